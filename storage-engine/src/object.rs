//! Objects: the roads of a version through the set of drives, one file per road.
//!
//! [`Objects`] is what the S3 front door and the replicator's API call. It owns no state that decides
//! anything: every decision is a quorum of drives (`quorum`).
pub(crate) mod apply;
pub(crate) mod ballot;
pub(crate) mod blob;
pub(crate) mod delete;
pub(crate) mod document;
pub(crate) mod elsewhere;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod get;
pub(crate) mod join;
pub(crate) mod list;
pub(crate) mod lock;
pub(crate) mod multipart;
pub(crate) mod pieces;
pub(crate) mod put;
pub(crate) mod resolve;
pub(crate) mod scan;
pub(crate) mod tag;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk;

pub use pieces::Cut;
pub use scan::Stretch;

use crate::api::{Elsewhere, Neighbour};
use crate::bucket::Cache;
use crate::bucket::lock::{Lock, Protection};
use crate::clock::{Clock, HlcClock};
use crate::drive::Drive;
use crate::metrics::Metrics;
use crate::quorum::Quorum;
use crate::record::BucketId;
use crate::s3::Fences;
use crate::version::{Hlc, Origin, Version, VersionId, guard};
use bytes::Bytes;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

/// Bytes of an object on their way in or out. An error ends it: nothing of it may be believed.
pub type Body = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// Why an operation did not happen; a variant per thing the caller does about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("bucket {0} does not exist")]
    NoSuchBucket(String),
    #[error("key does not exist")]
    NoSuchKey,
    #[error("version does not exist")]
    NoSuchVersion,
    #[error("upload does not exist")]
    NoSuchUpload,
    #[error("bucket exists")]
    BucketExists,
    #[error("bucket name {name:?} breaks a rule: a name {rule}")]
    InvalidBucketName { name: String, rule: &'static str },
    #[error("bucket is not empty")]
    BucketNotEmpty,
    /// Retention or legal hold was asked for where object lock is off.
    #[error("bucket {0} has no object lock")]
    LockMissing(String),
    /// A condition of the request does not hold.
    #[error("{0} does not hold")]
    PreconditionFailed(&'static str),
    /// The version named is a delete marker.
    #[error("the version is a delete marker")]
    DeleteMarker { version_id: VersionId, is_latest: bool },
    #[error("part {0} is unknown or its ETag differs")]
    InvalidPart(u16),
    #[error("parts are not in ascending order")]
    InvalidPartOrder,
    #[error("part {0} is smaller than 5 MiB and not the last")]
    EntityTooSmall(u16),
    /// The body is not what the client said it would be; nothing was written.
    #[error("{0} does not match the body")]
    BadDigest(String),
    /// The body ended early or was refused on its way; nothing was written.
    #[error("body: {0}")]
    Body(#[source] std::io::Error),
    /// Too few drives answered; the outcome of a write is unknown. Try again.
    #[error("too few drives answered: {0}")]
    Unavailable(String),
    /// No room on a write quorum of drives; nothing was acked.
    #[error("the drives are full")]
    Full,
    /// Somebody depends on the state this would change.
    #[error("{0}")]
    Conflict(String),
    /// More than m shards of a block are lost or corrupt.
    #[error("too many shards of {0} are lost or corrupt")]
    Corrupt(String),
    /// The cursor is of a store that is gone: reconcile instead.
    #[error("the cursor has expired")]
    Expired,
    #[error("{0}")]
    Invalid(String),
    /// Retention or legal hold forbids it; nothing was changed.
    #[error("{0}")]
    Guarded(#[from] guard::Refused),
}

/// Versioning state of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    Unversioned,
    Enabled,
    Suspended,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub id: BucketId,
    pub name: String,
    pub versioning: Versioning,
    /// Object lock, where it is on: then versioning is.
    pub lock: Option<Lock>,
    pub created_millis: u64,
}

/// Conditions on a write, exclusive within this store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// ETag (without quotes) the latest version must have; `*`: any.
    pub if_match: Option<String>,
    /// The key must not exist (`If-None-Match: *`).
    pub if_none_match: bool,
}

/// Checksums to compute, and those the body must have.
#[derive(Default)]
pub struct Expect {
    /// Content-MD5.
    pub md5: Option<[u8; 16]>,
    /// Algorithm in lower case (`crc32`, `crc32c`, `crc64nvme`, `sha1`, `sha256`) to the expected base64, or to
    /// `None` where the value only comes in a trailer or none is expected and it is to be computed and kept.
    pub checksums: BTreeMap<String, Option<String>>,
    /// Asked once the body has ended cleanly: the trailing checksums (algorithm to base64).
    pub trailer: Option<Box<dyn FnOnce() -> BTreeMap<String, String> + Send>>,
    /// Exact length of the body, where it is known.
    pub size_bytes: Option<u64>,
}

/// Everything of a new object but its bytes.
#[derive(Default)]
pub struct Put {
    pub headers: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    pub protection: Protection,
    pub expect: Expect,
    pub conditions: Conditions,
    pub traceparent: Option<String>,
}

/// What a PUT made: the version as it now stands.
#[derive(Clone, Debug)]
pub struct Written {
    pub version: Version,
    /// Whether S3 shows its version id (the bucket is or was versioned).
    pub versioned: bool,
}

/// What a DELETE did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The marker made, or the version purged.
    pub version_id: Option<VersionId>,
    /// Whether a delete marker was made or removed.
    pub delete_marker: bool,
}

/// A version that was found; its bytes can be read while this is held.
pub struct Opened {
    pub version: Version,
    pub is_latest: bool,
    pub versioned: bool,
    pub(crate) record: crate::record::Record,
    pub(crate) objects: Objects,
    /// Where it stands, where that is not here.
    pub elsewhere: Option<Elsewhere>,
}

/// One row of a version list.
#[derive(Clone, Debug)]
pub struct Listed {
    pub version: Version,
    pub is_latest: bool,
}

/// A page of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Keys ascending; versions of a key newest first.
    pub entries: Vec<Listed>,
    /// Prefixes up to the delimiter, ascending, interleaved by order with `entries` for paging.
    pub common_prefixes: Vec<String>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Marker>,
}

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// After this key (or after every key under this common prefix).
    pub key: String,
    /// After this version of it; `None`: after all of its versions.
    pub version: Option<VersionId>,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct List {
    pub prefix: String,
    pub delimiter: Option<String>,
    pub after: Option<Marker>,
    /// Entries and common prefixes together, at most 1,000.
    pub limit: usize,
    /// All versions with markers and nulls, or only latest objects.
    pub versions: bool,
}

/// An upload in progress.
#[derive(Clone, Debug)]
pub struct Upload {
    pub id: String,
    pub key: String,
    pub initiated_millis: u64,
    /// What every part is checked with besides MD5, and what the object is to show of it.
    pub checksum: Option<UploadChecksum>,
}

/// The additional checksum of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadChecksum {
    /// In lower case, as in [`Expect::checksums`].
    pub algorithm: String,
    /// Of the object's bytes; otherwise of its parts' checksums.
    pub is_of_whole: bool,
}

/// A part of an upload in progress.
#[derive(Clone, Debug)]
pub struct UploadedPart {
    pub number: u16,
    pub size_bytes: u64,
    pub etag: String,
    pub checksums: BTreeMap<String, String>,
    pub modified_millis: u64,
}

/// A part as CompleteMultipartUpload names it.
#[derive(Clone, Debug)]
pub struct PartRef {
    pub number: u16,
    pub etag: String,
    pub checksums: BTreeMap<String, String>,
}

/// What became of a version from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// This store learnt something.
    Applied,
    /// It held all of it.
    AlreadyPresent,
    /// It is purged here; nothing of it will show.
    Superseded,
    /// The birth is unknown here and came without its bytes: send them.
    NeedsBody,
}

/// The store's object layer; cheap to clone.
#[derive(Clone)]
pub struct Objects(pub(crate) Arc<Inner>);
pub(crate) struct Inner {
    /// The drives of the set, by slot.
    pub(crate) drives: Vec<Arc<dyn Drive>>,
    pub(crate) quorum: Quorum,
    pub(crate) clock: HlcClock,
    pub(crate) origin: Origin,
    /// Map epoch every operation carries; one embedded set stays in one epoch.
    pub(crate) epoch: u64,
    /// What the feed showed lately; only spares readers duplicates.
    pub(crate) sightings: std::sync::Mutex<crate::feed::sightings::Sightings>,
    /// What backlogs found nothing in.
    pub(crate) quiet: std::sync::Mutex<crate::feed::backlog::Quiet>,
    /// What the store counts.
    pub(crate) metrics: Arc<Metrics>,
    /// Bucket documents already read.
    pub(crate) buckets: Cache,
    /// Bounds what is left to stragglers, in KiB.
    stragglers: Arc<Semaphore>,
    /// Buckets whose clients are turned away.
    fences: Arc<Fences>,
    /// Who is asked for what is not here yet.
    pub(crate) neighbour: OnceLock<Arc<dyn Neighbour>>,
}

impl Objects {
    /// The object layer over one set of drives. `origin` names this store in every version born here.
    ///
    /// The clock starts above every reading the drives ever promised.
    pub fn new(drives: Vec<Arc<dyn Drive>>, parity: usize, clock: Arc<dyn Clock>, origin: Origin) -> Self {
        let ceiling = drives.iter().map(|d| d.ceiling()).max().unwrap_or(Hlc::ZERO);
        let quorum = Quorum { n: drives.len(), k: drives.len() - parity };
        Objects(Arc::new(Inner {
            drives,
            quorum,
            clock: HlcClock::new(clock, ceiling),
            origin,
            epoch: 1,
            sightings: std::sync::Mutex::default(),
            quiet: std::sync::Mutex::default(),
            metrics: Arc::default(),
            buckets: Cache::default(),
            stragglers: Arc::new(Semaphore::new(STRAGGLERS_KIB)),
            fences: Arc::default(),
            neighbour: OnceLock::new(),
        }))
    }

    /// What this store counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Buckets whose clients the front door turns away.
    pub fn fences(&self) -> &Arc<Fences> {
        &self.0.fences
    }
}

/// Bytes that answered requests may still keep in memory for slow drives, in KiB: a drive that hangs
/// costs this much and no more. What does not fit is dropped; readers and healing catch up on it.
const STRAGGLERS_KIB: usize = 64 * 1024;

impl Inner {
    /// Goes on with `work` after the request is answered: stragglers, flags. `bytes` is what it keeps.
    /// Nothing may depend on its end: on shutdown it is cut off like a lost message.
    pub(crate) fn background(&self, bytes: usize, work: impl Future<Output = ()> + Send + 'static) {
        let kib = u32::try_from(1 + bytes / 1024).unwrap_or(u32::MAX);
        let Ok(permit) = self.stragglers.clone().try_acquire_many_owned(kib) else { return };
        #[allow(clippy::disallowed_methods)] // the one spawn of the object layer; bounded by the permit
        tokio::spawn(async move {
            work.await;
            drop(permit);
        });
    }
}
