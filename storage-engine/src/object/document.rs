//! The store's own documents: buckets, uploads and parts, kept as null versions in
//! [`BucketId::SYSTEM`] under the same quorum rules as every object.
//!
//! Owns the shape of such a record and compare-and-set on it. Knows nothing of what a document means;
//! that is `bucket.rs` and `multipart.rs`. A document that is gone is a delete marker, so that "gone"
//! has an order and can be tested like any other state.
use super::ballot::{Draft, NewId};
use super::blob::Data;
use super::{Error, Inner};
use crate::record::{BucketId, Record};
use crate::version::{Birth, Hlc, Kind, Order, Part, Version, VersionId};
use std::collections::BTreeMap;

/// Documents fetched at a time while walking a prefix; a page of part records is about 1 MiB.
const SCAN_KEYS: usize = 1_000;

/// Times a change is tried again because somebody else changed the document in between.
pub(crate) const RACES_MAX: usize = 16;

/// What a document says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Content {
    /// The document itself.
    pub(crate) fields: BTreeMap<String, String>,
    /// What it says of bytes it keeps, as a [`Birth`] would.
    pub(crate) size_bytes: u64,
    pub(crate) etag: String,
    pub(crate) crc64nvme: u64,
    pub(crate) checksums: BTreeMap<String, String>,
    pub(crate) parts: Vec<Part>,
    /// The bytes it keeps.
    pub(crate) data: Data,
}

/// A document as it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    /// Key in [`BucketId::SYSTEM`].
    pub(crate) key: String,
    /// Which writing of it this is: what compare-and-set compares.
    pub(crate) order: Order,
    pub(crate) content: Content,
}

impl Document {
    /// The document among the records of its key, newest first; `None` when it is not there.
    fn of(records: &[Record]) -> Option<Document> {
        let record = records.iter().find(|r| r.version.is_live())?;
        let birth = record.version.birth.as_ref().filter(|b| b.kind == Kind::Object)?;
        Some(Document {
            key: record.key().to_owned(),
            order: birth.order.clone(),
            content: Content {
                fields: birth.metadata.clone(),
                size_bytes: birth.size_bytes,
                etag: birth.etag.clone(),
                crc64nvme: birth.crc64nvme,
                checksums: birth.checksums.clone(),
                parts: birth.parts.clone(),
                data: Data::held(record.blobs.clone(), record.missing),
            },
        })
    }
}

/// Whether compare-and-set failed only because somebody else was first.
pub(crate) fn is_race(err: &Error) -> bool {
    matches!(err, Error::PreconditionFailed(RACE))
}
const RACE: &str = "the state that was read";

impl Inner {
    /// The document under `key`, decided by a read quorum.
    pub(crate) async fn document(&self, key: &str) -> Result<Option<Document>, Error> {
        Ok(Document::of(&self.read_key(BucketId::SYSTEM, key).await?))
    }

    /// A page of the documents under `prefix` behind a key, keys ascending, and where the next one begins.
    pub(crate) async fn documents_after(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Vec<Document>, Option<String>), Error> {
        let scan = self.scan(BucketId::SYSTEM, prefix, after, SCAN_KEYS).await?;
        Ok((scan.keys.iter().filter_map(|(_, records)| Document::of(records)).collect(), scan.through))
    }

    /// Every document under `prefix`, keys ascending. The caller's prefix bounds how many there are.
    pub(crate) async fn documents(&self, prefix: &str) -> Result<Vec<Document>, Error> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let (documents, through) = self.documents_after(prefix, after.as_deref()).await?;
            found.extend(documents);
            match through {
                Some(through) => after = Some(through),
                None => return Ok(found),
            }
        }
    }

    /// Writes a document over whatever is there: the last writer wins.
    pub(crate) async fn put_document(&self, key: &str, content: &Content) -> Result<Order, Error> {
        self.write_document(key, Some(content), None).await
    }

    /// Writes a document (`None`: deletes it) if it still is as it was `seen` (`None`: not there).
    ///
    /// # Errors
    /// [`is_race`] tells that somebody else was first: read again.
    pub(crate) async fn swap_document(
        &self,
        key: &str,
        seen: Option<&Order>,
        content: Option<&Content>,
    ) -> Result<Order, Error> {
        let unchanged = |records: &[Record]| {
            let found = Document::of(records).map(|d| d.order);
            if found.as_ref() == seen { Ok(()) } else { Err(Error::PreconditionFailed(RACE)) }
        };
        self.write_document(key, content, Some(&unchanged)).await
    }

    async fn write_document(
        &self,
        key: &str,
        content: Option<&Content>,
        test: Option<&(dyn Fn(&[Record]) -> Result<(), Error> + Sync)>,
    ) -> Result<Order, Error> {
        let make = |hlc: Hlc, id: VersionId, base: Option<Order>| {
            let order = Order { hlc, origin: self.origin.clone(), version_id: id };
            let mut version = Version::blank(key, id);
            version.birth = Some(birth(order, base, content));
            version
        };
        let data = content.map(|c| c.data.clone()).unwrap_or_default();
        let draft =
            Draft { bucket: BucketId::SYSTEM, key, id: NewId::Null, make: &make, data, test, traceparent: None };
        let record = self.write(draft).await?;
        Ok(record.version.birth.expect("a document was written with its birth").order)
    }
}

fn birth(order: Order, base: Option<Order>, content: Option<&Content>) -> Birth {
    let kind = if content.is_some() { Kind::Object } else { Kind::DeleteMarker };
    let content = content.cloned().unwrap_or_default();
    Birth {
        base,
        size_bytes: content.size_bytes,
        etag: content.etag,
        crc64nvme: content.crc64nvme,
        checksums: content.checksums,
        parts: content.parts,
        metadata: content.fields,
        ..Birth::blank(order, kind)
    }
}
