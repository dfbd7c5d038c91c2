//! What a link asks and tells of the bucket at its far end <-> fields. Pure.
//!
//! Who may write a document is decided by the receiver (`replicator/bucket.rs`); here only sizes are bounded.
use super::{AtMost, Error};
use storage_engine::bucket::document::{Document, Kind};
use storage_engine::version::{Hlc, Origin, Stamp};
use storage_engine::wire::Fields;

/// Documents of one bucket: one of each kind, and room for kinds of later versions.
const DOCUMENTS_MAX: usize = 16;

/// Asks how a bucket is set, and brings documents of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketAsk {
    /// The link that asks, as in a Put, and its epoch.
    pub link: String,
    pub epoch: u64,
    /// Bucket at the side that answers.
    pub bucket: String,
    /// Documents to be joined there; usually none.
    pub documents: Vec<Document>,
    /// They may be of other sites than the sender's own.
    pub relayed: bool,
    /// Fields of a later version.
    pub unknown: Fields,
}

/// How a bucket is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketState {
    pub versioned: bool,
    pub object_lock: bool,
    /// Why documents that came with the question were not taken.
    pub refused: Option<String>,
}

/// Kind, HLC bits, origin, text.
type Row = (String, u64, String, Option<String>);

impl BucketAsk {
    pub(super) fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        let row = |d: &Document| {
            (d.kind.name().to_owned(), d.stamp.hlc.bits(), d.stamp.origin.as_str().to_owned(), d.text.clone())
        };
        f.put(1, &self.link);
        f.put(2, &self.epoch);
        f.put(3, &self.bucket);
        f.put(4, &self.documents.iter().map(row).collect::<Vec<Row>>());
        f.put(5, &self.relayed);
        f
    }

    pub(super) fn from_fields(mut f: Fields) -> Result<Self, Error> {
        let AtMost(rows) = f.need::<AtMost<DOCUMENTS_MAX, Row>>(4)?;
        // A kind of a later version is not for this build.
        let document = |(kind, hlc, origin, text): Row| {
            let stamp = Stamp::new(Hlc::from_bits(hlc), Origin::new(&origin));
            Some(Document { kind: Kind::named(&kind)?, stamp, text })
        };
        let documents = rows.into_iter().filter_map(document).collect();
        Ok(BucketAsk {
            link: f.need(1)?,
            epoch: f.need(2)?,
            bucket: f.need(3)?,
            documents,
            relayed: f.need(5)?,
            unknown: f,
        })
    }
}

impl BucketState {
    pub(super) fn to_fields(&self) -> Fields {
        let mut f = Fields::default();
        f.put(1, &self.versioned);
        f.put(2, &self.object_lock);
        f.put_some(3, &self.refused);
        f
    }

    pub(super) fn from_fields(mut f: Fields) -> Result<Self, Error> {
        Ok(BucketState { versioned: f.need(1)?, object_lock: f.need(2)?, refused: f.take(3)? })
    }
}
