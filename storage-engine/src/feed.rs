//! The change feed of a bucket: every committed change, at least once, from a cursor on.
pub mod backlog;
pub mod consumer;
pub mod cursor;
pub mod merge;
pub mod serve;
pub mod sightings;

pub use backlog::{Backlog, Interest};
pub use consumer::Consumer;

use crate::version::Version;
use bytes::Bytes;

/// One change: the whole current record of a version, without its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What is held now.
    pub version: Version,
    /// Unix milliseconds when the oldest unreplicated change of it was committed in this store.
    pub pending_since: u64,
    /// W3C traceparent of the request that made the change.
    pub traceparent: Option<String>,
}

/// A place in the feed of a bucket; opaque, versioned, resumable.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Cursor(pub Bytes);

/// What a tail yields: the events up to a place.
#[derive(Clone, Debug)]
pub struct Batch {
    /// In commit order as far as one is known; never empty unless the feed moved past what it does not show.
    pub events: Vec<Event>,
    /// Commit it once every event of this batch is dealt with.
    pub cursor: Cursor,
    /// Id of the bucket they are changes of: one that was deleted and made again under its name is another. Empty: the
    /// store does not say.
    pub bucket: String,
}
