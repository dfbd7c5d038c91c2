//! Trait [`Drive`]: what one drive can do, and the fsync rules.
//!
//! A drive judges each [`Request`] with the pure rules of `quorum/participant.rs` against its own
//! records, writes the effect into its commit log, syncs once per batch and only then answers. It
//! never starts a quorum operation and never asks another drive.
pub mod disk;
pub mod format;
pub mod index;
pub mod local;
pub mod log;
pub mod memory;
pub mod moves;

use crate::metrics::Distribution;
use crate::quorum::participant::{KeyView, Reply, Request};
use crate::record::{BucketId, Coded};
use crate::version::VersionId;
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use tokio::sync::watch;
use uuid::Uuid;

/// Position of a record in the commit log of one incarnation of one drive; rises by one a record.
pub type Lsn = u64;

/// Why a drive gave no answer. No answer is never an answer: the outcome of a write is unknown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The drive is offline: a write or sync failed, or it is stopping. Reopen it from disk.
    #[error("drive {slot} is offline: {why}")]
    Offline { slot: usize, why: String },
    /// No room; nothing was written.
    #[error("drive {slot} is full")]
    Full { slot: usize },
    /// The shard is not on this drive.
    #[error("drive {slot} does not hold shard {blob}")]
    NoShard { slot: usize, blob: Uuid },
    /// What the drive holds fails its checksum.
    #[error("drive {slot}: {what} is corrupt")]
    Corrupt { slot: usize, what: String },
}

/// A shard on its way to a drive. Dropped without [`seal`](ShardSink::seal) it leaves nothing behind.
#[async_trait]
pub trait ShardSink: Send {
    /// Appends bytes; the caller frames and checksums them (`erasure/bitrot.rs`).
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error>;
    /// Ends the shard. It is durable once a record that names its blob is answered `Ok`.
    async fn seal(self: Box<Self>) -> Result<(), Error>;
}

/// One change of a bucket as one drive logged it.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Where it stands in this drive's log.
    pub lsn: Lsn,
    /// The record as the drive holds it now.
    pub record: Coded,
}

/// A place in the list of versions: after this key, or after this version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// Key after which to go on.
    pub key: String,
    /// `None`: after every version of the key.
    pub version: Option<VersionId>,
}

/// What a drive says of itself, for people and metrics; nothing is decided by it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Why it takes no requests.
    pub offline: Option<String>,
    /// Seconds of each sync of the log.
    pub fsync_seconds: Option<Distribution>,
    /// Records that shared a sync.
    pub group_commit_records: Option<Distribution>,
}

/// One drive of a set.
#[async_trait]
pub trait Drive: Send + Sync + 'static {
    /// Index of the drive in its set, 0-based.
    fn slot(&self) -> usize;
    /// Random number of this life of the drive's content.
    fn incarnation(&self) -> Uuid;
    /// Highest clock reading this drive ever promised durably; a restarted store's clock starts above.
    fn ceiling(&self) -> crate::version::Hlc;

    /// Judges and, when it has an effect, makes it durable before it answers. Requests that wait
    /// together share one sync.
    ///
    /// # Errors
    /// Any [`Error`] means: the outcome is unknown.
    async fn call(&self, request: Request) -> Result<Reply, Error>;

    /// Opens a sink for this drive's shard of a blob larger than what travels inside a record.
    async fn create_shard(&self, blob: Uuid) -> Result<Box<dyn ShardSink>, Error>;
    /// Reads bytes of this drive's shard, wherever it stands (log or file).
    async fn read_shard(&self, blob: Uuid, range: Range<u64>) -> Result<Bytes, Error>;

    /// Everything held of one key.
    async fn read_key(&self, bucket: BucketId, key: &str) -> Result<KeyView, Error>;
    /// Keys of a bucket in order from `after`, each with all that is held of it, at most `limit` keys.
    async fn scan(
        &self,
        bucket: BucketId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, KeyView)>, Error>;
    /// Changes of a bucket with `lsn > after`, in log order, at most `limit`.
    async fn tail(&self, bucket: BucketId, after: Lsn, limit: usize) -> Result<Vec<Logged>, Error>;
    /// The lsn of the last record applied, told again whenever it moves.
    fn head(&self) -> watch::Receiver<Lsn>;
    /// Told whenever the head has moved past a change of this bucket; of others too, where a drive cannot tell them apart.
    fn moves(&self, _bucket: BucketId) -> watch::Receiver<Lsn> {
        self.head()
    }
    /// How it is; a drive that counts nothing says nothing.
    fn health(&self) -> Health {
        Health::default()
    }
    /// Bytes free and bytes in all.
    fn space(&self) -> (u64, u64);
    /// Stops taking requests, drains, syncs. The drive is offline afterwards.
    async fn close(&self);
}
