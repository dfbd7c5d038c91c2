//! The multipart road: an upload and its parts are documents; completing copies no data.
//!
//! Owns the life of an upload and the one rule about it: an upload has one outcome. It is decided by
//! compare-and-set on the upload's document, which has these states:
//!
//! ```text
//! open ──> completing ──> completed      aborted, failed and completed are ends
//!   │           └───────> failed
//!   └─> aborted
//! ```
//!
//! `completing` carries the whole object: id, order, parts, blobs and conditions. Whoever meets it
//! (a retried Complete, an Abort) carries it to its end, and because id and order are pinned, carrying
//! it twice makes one version. So a crash anywhere leaves either an open upload, or one whose object
//! can only be that one; nothing appears after an acked Abort, which only an open upload takes.
//!
//! The parts' documents stay when the upload ends: the object names their blobs.
mod assemble;
mod state;
#[cfg(test)]
mod tests;

use super::ballot::{Draft, NewId};
use super::document::{Content, Document, RACES_MAX, is_race};
use super::put::conditions_hold;
use super::{
    Body, Bucket, Conditions, Error, Expect, Inner, Objects, PartRef, Put, Upload, UploadChecksum, UploadedPart,
    Versioning, Written,
};
use crate::entropy;
use crate::record::{BucketId, Record};
use crate::version::{Hlc, Order, Version, VersionId};
use assemble::Whole;
use state::{State, UploadDoc};
use std::collections::BTreeMap;

/// Part numbers S3 allows.
const PARTS: std::ops::RangeInclusive<u16> = 1..=10_000;

impl Objects {
    /// Begins an upload. Of `put`, headers, metadata, tags, protection and traceparent become the object's.
    ///
    /// The algorithm of `checksum` is computed for every part.
    ///
    /// # Errors
    /// [`Error::Invalid`]: that checksum is not one, or cannot be had of the whole. [`Error::LockMissing`].
    pub async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        put: Put,
        checksum: Option<UploadChecksum>,
    ) -> Result<Upload, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        bucket.permits(&put.protection, self.0.clock.now_millis())?;
        if let Some(checksum) = &checksum {
            assemble::check(checksum)?;
        }
        let initiated_millis = self.0.clock.now_millis();
        let id = entropy::id_at(initiated_millis).as_simple().to_string();
        let upload = Upload { id, key: key.to_owned(), initiated_millis, checksum };
        let document = UploadDoc::open(upload, put);
        let key = upload_key(bucket.id, key, &document.upload.id);
        self.0.put_document(&key, &document.to_content()).await?;
        Ok(document.upload)
    }

    /// Stores a part; one of the same number is replaced.
    ///
    /// # Errors
    /// [`Error::NoSuchUpload`] unless the upload is open; [`Error::BadDigest`], [`Error::Body`]: nothing
    /// was written.
    pub async fn upload_part(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        number: u16,
        mut expect: Expect,
        body: Body,
    ) -> Result<UploadedPart, Error> {
        if !PARTS.contains(&number) {
            return Err(Error::Invalid("a part number is between 1 and 10000".into()));
        }
        let bucket = self.0.bucket_doc(bucket).await?;
        let (_, open) = self.0.upload(bucket.id, key, upload).await?;
        if open.state != State::Open {
            return Err(Error::NoSuchUpload);
        }
        if let Some(checksum) = open.upload.checksum {
            expect.checksums.entry(checksum.algorithm).or_insert(None);
        }
        let stored = self.0.store_body(body, expect).await?;
        let part = Content {
            size_bytes: stored.size_bytes,
            etag: hex(&stored.md5),
            crc64nvme: stored.crc64nvme,
            checksums: stored.checksums,
            data: stored.data,
            ..Content::default()
        };
        let order = self.0.put_document(&part_key(upload, number), &part).await?;
        Ok(UploadedPart {
            number,
            size_bytes: part.size_bytes,
            etag: part.etag,
            checksums: part.checksums,
            modified_millis: order.hlc.millis(),
        })
    }

    /// Makes the object out of parts, in one record that names their blobs. The same call again answers
    /// the same. `stated` is what the client says of the whole: algorithm to base64.
    ///
    /// # Errors
    /// [`Error::InvalidPart`], [`Error::InvalidPartOrder`], [`Error::EntityTooSmall`], [`Error::BadDigest`],
    /// [`Error::PreconditionFailed`] by what was there before: the upload stays open.
    /// [`Error::Conflict`]: another write came in between a condition and this one: start a new upload.
    /// [`Error::Unavailable`]: unknown; ask again.
    pub async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        parts: Vec<PartRef>,
        stated: BTreeMap<String, String>,
        conditions: Conditions,
    ) -> Result<Written, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        for _ in 0..RACES_MAX {
            let (order, found) = self.0.upload(bucket.id, key, upload).await?;
            let (order, document) = match &found.state {
                State::Open => {
                    match self.0.begin_completing(&bucket, &order, &found, &parts, &stated, &conditions).await {
                        Err(err) if is_race(&err) => continue,
                        begun => begun?,
                    }
                }
                _ => (order, found),
            };
            let version = self.0.carry(&bucket, &order, &document).await?;
            return Ok(Written { version, versioned: bucket.versioning != Versioning::Unversioned });
        }
        Err(Error::Unavailable("the upload is changed all the time".into()))
    }

    /// Ends an open upload; nothing of it appears after this.
    ///
    /// # Errors
    /// [`Error::NoSuchUpload`] when it has ended, or when a Complete had begun: that is carried to its end.
    pub async fn abort_upload(&self, bucket: &str, key: &str, upload: &str) -> Result<(), Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        let document_key = upload_key(bucket.id, key, upload);
        for _ in 0..RACES_MAX {
            let (order, found) = self.0.upload(bucket.id, key, upload).await?;
            match found.state {
                State::Open => {
                    let aborted = UploadDoc { state: State::Aborted, ..found };
                    match self.0.swap_document(&document_key, Some(&order), Some(&aborted.to_content())).await {
                        Err(err) if is_race(&err) => {}
                        swapped => return swapped.map(|_| ()),
                    }
                }
                State::Completing(_) => match self.0.carry(&bucket, &order, &found).await {
                    Err(err @ Error::Unavailable(_)) => return Err(err),
                    // Made, or failed for good: either way it is no open upload any more.
                    _ => return Err(Error::NoSuchUpload),
                },
                State::Completed(_) | State::Aborted | State::Failed => return Err(Error::NoSuchUpload),
            }
        }
        Err(Error::Unavailable("the upload is changed all the time".into()))
    }

    /// An open upload and its parts, by number.
    pub async fn parts(&self, bucket: &str, key: &str, upload: &str) -> Result<(Upload, Vec<UploadedPart>), Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        let (_, open) = self.0.upload(bucket.id, key, upload).await?;
        if !open.is_in_progress() {
            return Err(Error::NoSuchUpload);
        }
        let parts = self.0.part_documents(upload).await?;
        let listed = parts.into_iter().map(|(number, part)| UploadedPart {
            number,
            size_bytes: part.content.size_bytes,
            etag: part.content.etag,
            checksums: part.content.checksums,
            modified_millis: part.order.hlc.millis(),
        });
        Ok((open.upload, listed.collect()))
    }

    /// Uploads in progress whose key has `prefix`: by key, then by age.
    pub async fn uploads(&self, bucket: &str, prefix: &str) -> Result<Vec<Upload>, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        let base = upload_prefix(bucket.id);
        let documents = self.0.documents(&format!("{base}{prefix}")).await?;
        let mut uploads = Vec::new();
        for document in &documents {
            let found = UploadDoc::from_document(document)?;
            // The prefix may have matched the upload id behind the key.
            let is_shown = found.is_in_progress() && found.upload.key.starts_with(prefix);
            uploads.extend(is_shown.then_some(found.upload));
        }
        uploads.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
        Ok(uploads)
    }
}

impl Inner {
    /// The upload's document, whatever its state.
    async fn upload(&self, bucket: BucketId, key: &str, upload: &str) -> Result<(Order, UploadDoc), Error> {
        if upload.len() != UPLOAD_ID_LEN || !upload.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::NoSuchUpload);
        }
        let document = self.document(&upload_key(bucket, key, upload)).await?.ok_or(Error::NoSuchUpload)?;
        Ok((document.order.clone(), UploadDoc::from_document(&document)?))
    }

    async fn part_documents(&self, upload: &str) -> Result<BTreeMap<u16, Document>, Error> {
        let prefix = part_prefix(upload);
        let numbered = |d: Document| {
            let number = d.key.strip_prefix(&prefix).and_then(|n| n.parse().ok());
            number.map(|n| (n, d)).ok_or_else(|| Error::Corrupt(format!("a part of upload {upload}")))
        };
        self.documents(&prefix).await?.into_iter().map(numbered).collect()
    }

    /// Decides what the object will be and writes it into the open upload's document.
    async fn begin_completing(
        &self,
        bucket: &Bucket,
        seen: &Order,
        open: &UploadDoc,
        parts: &[PartRef],
        stated: &BTreeMap<String, String>,
        conditions: &Conditions,
    ) -> Result<(Order, UploadDoc), Error> {
        let upload = &open.upload;
        let stored = self.part_documents(&upload.id).await?;
        let content = assemble::assemble(parts, &stored, upload.checksum.as_ref(), stated)?;
        let records = self.read_key(bucket.id, &upload.key).await?;
        conditions_hold(&records, conditions)?;
        // Above all that is there, whatever the clocks of those who wrote it said.
        let newest = records.iter().filter_map(|r| r.version.birth.as_ref()).map(|b| b.order.clone()).max();
        let above = records.iter().map(|r| r.version.max_hlc()).max().unwrap_or(Hlc::ZERO);
        let hlc = self.clock.tick(above);
        let version_id = match bucket.versioning {
            Versioning::Enabled => VersionId::from_uuid(entropy::id_at(hlc.millis())),
            Versioning::Unversioned | Versioning::Suspended => VersionId::NULL,
        };
        let order = Order { hlc, origin: self.origin.clone(), version_id };
        let guards = bucket.guards_at_birth(&open.protection, &self.stamp(hlc));
        let whole = Whole { order, base: newest, conditions: conditions.clone(), guards, content };
        let next = UploadDoc { state: State::Completing(Box::new(whole)), ..open.clone() };
        let key = upload_key(bucket.id, &upload.key, &upload.id);
        Ok((self.swap_document(&key, Some(seen), Some(&next.to_content())).await?, next))
    }

    /// Carries an upload whose Complete has begun to its end: its version, or why there never is one.
    async fn carry(&self, bucket: &Bucket, seen: &Order, document: &UploadDoc) -> Result<Version, Error> {
        let whole = match &document.state {
            State::Completing(whole) => whole,
            State::Completed(whole) => return Ok(document.version(whole)),
            State::Open | State::Aborted | State::Failed => return Err(Error::NoSuchUpload),
        };
        let made = self.make_object(bucket, document, whole).await;
        let state = match &made {
            Ok(()) => State::Completed(whole.clone()),
            Err(Error::PreconditionFailed(_) | Error::Conflict(_) | Error::NoSuchKey) => State::Failed,
            Err(_) => return made.map(|()| document.version(whole)), // unknown, and the document goes on saying so
        };
        let end = UploadDoc { state, ..document.clone() };
        let key = upload_key(bucket.id, &document.upload.key, &document.upload.id);
        let ended = self.swap_document(&key, Some(seen), Some(&end.to_content())).await;
        match (made, ended) {
            // The object decides; who asks next lets the document catch up.
            (Ok(()), _) => self.confirm_bucket(bucket).await.map(|()| document.version(whole)),
            (Err(_), Err(err)) if !is_race(&err) => Err(err),
            (Err(err), _) => Err(err),
        }
    }

    async fn make_object(&self, bucket: &Bucket, document: &UploadDoc, whole: &Whole) -> Result<(), Error> {
        let key = &document.upload.key;
        if is_made(&self.read_key(bucket.id, key).await?, &whole.order) {
            return Ok(());
        }
        let version = document.version(whole);
        let make = |_: Hlc, _: VersionId, _: Option<Order>| version.clone();
        let still = |records: &[Record]| {
            if is_made(records, &whole.order) {
                return Ok(());
            }
            // With something newer on top the condition was tested by nobody at the place of this order.
            if records.iter().any(|r| r.version.birth.as_ref().is_some_and(|b| b.order > whole.order)) {
                return Err(Error::Conflict("another write came in between".into()));
            }
            conditions_hold(records, &whole.conditions)
        };
        let is_conditional = whole.conditions.if_none_match || whole.conditions.if_match.is_some();
        let id = whole.order.version_id;
        let draft = Draft {
            bucket: bucket.id,
            key,
            id: if id.is_null() { NewId::Null } else { NewId::Given(id) },
            make: &make,
            data: whole.content.data.clone(),
            test: if is_conditional { Some(&still) } else { None },
            traceparent: document.traceparent.clone(),
        };
        self.write(draft).await.map(|_| ())
    }
}

/// Whether the version of this id and order stands, or stood and was deleted or overwritten since.
fn is_made(records: &[Record], order: &Order) -> bool {
    records.iter().filter(|r| r.id() == order.version_id).any(|r| {
        let born = r.version.birth.as_ref().is_some_and(|b| b.order >= *order);
        born || (!order.version_id.is_null() && !r.version.purges.is_empty())
    })
}

/// Length of an upload id: with it, the key in front of it can hold any character.
const UPLOAD_ID_LEN: usize = 32;

fn upload_prefix(bucket: BucketId) -> String {
    format!("upload/{}/", bucket.0.as_simple())
}
fn upload_key(bucket: BucketId, key: &str, upload: &str) -> String {
    format!("{}{key}\0{upload}", upload_prefix(bucket))
}
fn part_prefix(upload: &str) -> String {
    format!("part/{upload}/")
}
fn part_key(upload: &str, number: u16) -> String {
    format!("{}{number:05}", part_prefix(upload))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
