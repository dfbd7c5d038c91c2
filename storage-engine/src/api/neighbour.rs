//! What a store asks outward: reading a version that it does not hold yet.
//!
//! Implemented by whoever knows of other stores; this one knows of none. Asked by the S3 front door, never on the road
//! of a write, and never for what is known here to be deleted.
use crate::object::Body;
use crate::version::{Version, VersionId};
use async_trait::async_trait;
use std::ops::Range;
use std::sync::Arc;

/// Gives some of the bytes of a version that was found; the range lies within it.
pub type ReadRange = Arc<dyn Fn(Range<u64>) -> Body + Send + Sync>;

/// A version that stands elsewhere.
pub struct Elsewhere {
    /// Where, in words for the client.
    pub place: String,
    pub version: Version,
    pub read: ReadRange,
}

/// Whoever can read versions from elsewhere.
#[async_trait]
pub trait Neighbour: Send + Sync + 'static {
    /// The version of this id, or the latest of the key; `None`: nobody has it, can be reached or may be asked. Bounded
    /// in time by whoever implements it.
    async fn find(&self, bucket: &str, key: &str, version: Option<VersionId>) -> Option<Elsewhere>;
}
