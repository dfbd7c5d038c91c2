//! Trait [`Store`]: what a replicator asks of a store. It never sees drives, quorums or S3 requests.
pub mod bundled;
#[cfg(test)]
pub(crate) mod conformance;
pub mod memory;
pub mod s3;

use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::time::Duration;
pub use storage_engine::api::lend::{Found, Question};
pub use storage_engine::api::scratch::{Act, Done};
pub use storage_engine::api::{BucketInfo, Document, StoreHealth};
pub use storage_engine::feed::{Backlog, Batch, Cursor, Interest};
pub use storage_engine::object::Cut;
pub use storage_engine::object::{Applied, Body, Error, Stretch};
use storage_engine::version::{Version, VersionId};

/// A store as its replicator sees it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The bucket, or [`Error::NoSuchBucket`].
    async fn bucket(&self, name: &str) -> Result<BucketInfo, Error>;
    /// Changes after `cursor` (`None`: from the beginning), at most `limit`; waits until there is one.
    /// An empty batch says that what stood there needs no sending, and its cursor is behind it.
    async fn changes(&self, bucket: &str, cursor: Option<&Cursor>, limit: usize) -> Result<Batch, Error>;
    /// Where the feed of a bucket ends now: everything acked before lies before it.
    async fn head(&self, bucket: &str) -> Result<Cursor, Error>;
    /// All that is held of a version; `None`: nothing.
    async fn stat(&self, bucket: &str, key: &str, id: VersionId) -> Result<Option<Version>, Error>;
    /// The bytes of a version from `offset` on.
    async fn read_version(&self, bucket: &str, key: &str, id: VersionId) -> Result<Body, Error>;
    /// Joins a version born elsewhere; keeps id, order and origin.
    async fn apply_version(
        &self,
        bucket: &str,
        version: Version,
        body: Option<Body>,
        traceparent: Option<String>,
    ) -> Result<Applied, Error>;
    /// Every version of one key that S3 shows, newest first.
    async fn versions_of(&self, bucket: &str, key: &str) -> Result<Vec<Version>, Error>;
    /// Versions that S3 shows after this one, keys ascending, newest first within a key, at most `limit`.
    async fn list_versions(
        &self,
        bucket: &str,
        after: Option<(String, VersionId)>,
        limit: usize,
    ) -> Result<Vec<Version>, Error>;
    /// All that is held of about `limit` keys with `prefix` after `after`, tombstones included, keys ascending.
    async fn stretch(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Stretch, Error>;
    /// Registers a consumer; returns its committed floor, if it was registered before. `keeps_versioning`: suspending
    /// versioning is then refused.
    async fn register(&self, bucket: &str, consumer: &str, keeps_versioning: bool) -> Result<Option<Cursor>, Error>;
    /// Commits what a consumer has read (`cursor`) and what is durable at its end (`floor`).
    async fn commit(&self, bucket: &str, consumer: &str, cursor: &Cursor, floor: &Cursor) -> Result<(), Error>;
    /// Forgets a consumer.
    async fn deregister(&self, bucket: &str, consumer: &str) -> Result<(), Error>;
    /// What of an interest waits behind a cursor.
    async fn backlog(&self, bucket: &str, cursor: Option<&Cursor>, interest: &Interest) -> Result<Backlog, Error>;
    /// Joins a document of a bucket that was written elsewhere; whether it is what counts now. Stores of others keep
    /// none of ours.
    async fn join_document(&self, _bucket: &str, _document: Document) -> Result<bool, Error> {
        Err(Error::Invalid("this store takes no bucket documents".into()))
    }
    /// How large versions come and go in pieces; `None`: whole only.
    fn pieces(&self) -> Option<&dyn Pieces> {
        None
    }
    /// What its readers want that is not here yet; `None`: they ask by themselves, or not at all.
    fn readers(&self) -> Option<&dyn Readers> {
        None
    }
    /// What writes to it as a client does; `None`: this store takes no clients from here.
    fn client(&self) -> Option<&dyn Client> {
        None
    }
    /// How it is; `None`: it does not say.
    async fn health(&self) -> Result<Option<StoreHealth>, Error> {
        Ok(None)
    }
    /// Why it cannot be reached now; `None` while it can, and for a store that is always at hand.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// What a store does with large versions, so that a transfer that was cut goes on where it was.
#[async_trait]
pub trait Pieces: Send + Sync {
    /// Some of the bytes of a version.
    async fn read_range(&self, bucket: &str, key: &str, id: VersionId, range: Range<u64>) -> Result<Body, Error>;
    /// Stores one piece, durable on return; nothing of it shows.
    async fn put_piece(
        &self,
        bucket: &str,
        id: VersionId,
        cut: Cut,
        number: u32,
        crc64nvme: u64,
        body: Body,
    ) -> Result<(), Error>;
    /// The pieces that are durable here, by number.
    async fn held_pieces(&self, bucket: &str, id: VersionId, cut: Cut) -> Result<Vec<u32>, Error>;
    /// As [`Store::apply_version`], with the bytes of the pieces; `NeedsBody` where some are missing.
    async fn apply_pieces(
        &self,
        bucket: &str,
        version: Version,
        cut: Cut,
        traceparent: Option<String>,
    ) -> Result<Applied, Error>;
    /// Forgets pieces of versions that never came, where the youngest was written before this time; how many.
    async fn forget_pieces(&self, bucket: &str, before_millis: u64) -> Result<u64, Error>;
}

/// What the readers of a store in another process want: it dials nobody, its replicator asks for them.
#[async_trait]
pub trait Readers: Send + Sync {
    /// Waits for what a reader of one of these buckets wants, at most so long.
    async fn wanted(&self, buckets: Vec<String>, wait: Duration) -> Result<Option<Question>, Error>;
    /// Brings the answer; with [`Found::Bytes`] the bytes that were asked for.
    async fn lend(&self, number: u64, found: Found, body: Body) -> Result<(), Error>;
}

/// What a drill does at its own site's store, by the roads of S3 and without its door: to its bucket, or in its place in
/// another.
#[async_trait]
pub trait Client: Send + Sync {
    /// Does something to a bucket or in a place of a drill; nothing else is touched.
    async fn scratch(&self, bucket: &str, act: Act) -> Result<Done, Error>;

    /// Makes a bucket with versioning; [`Error::BucketExists`].
    async fn make_bucket(&self, name: &str) -> Result<(), Error> {
        self.scratch(name, Act::Make).await.map(drop)
    }
    /// Removes a bucket with every version in it; one that is not there is fine. Again is safe.
    async fn remove_bucket(&self, name: &str) -> Result<(), Error> {
        self.scratch(name, Act::Remove).await.map(drop)
    }
    /// Puts an object; its version id.
    async fn put(&self, bucket: &str, key: &str, bytes: Bytes) -> Result<VersionId, Error> {
        made(self.scratch(bucket, Act::Put { key: key.into(), bytes }).await?)
    }
    /// Deletes the key: the version id of the marker.
    async fn delete(&self, bucket: &str, key: &str) -> Result<VersionId, Error> {
        made(self.scratch(bucket, Act::Delete { key: key.into() }).await?)
    }
    /// Removes every version in the place of a drill in a user's bucket; what is guarded is hidden by a marker.
    async fn clear(&self, bucket: &str, prefix: &str) -> Result<(), Error> {
        self.scratch(bucket, Act::Clear { prefix: prefix.into() }).await.map(drop)
    }
    /// Turns the clients of a bucket away at the store's front door, for so long at most; with nothing left: lifts it.
    async fn fence(&self, bucket: &str, drill: &str, shuts_reads: bool, ttl: Duration) -> Result<(), Error> {
        let ttl_millis = ttl.as_millis().try_into().unwrap_or(u64::MAX);
        self.scratch(bucket, Act::Fence { trial: drill.into(), shuts_reads, ttl_millis }).await.map(drop)
    }
    /// Reads the latest version whole.
    async fn read(&self, bucket: &str, key: &str) -> Result<Bytes, Error> {
        match self.scratch(bucket, Act::Read { key: key.into() }).await? {
            Done::Read(bytes) => Ok(bytes),
            other => Err(Error::Invalid(format!("the store answered something else: {other:?}"))),
        }
    }
}

fn made(done: Done) -> Result<VersionId, Error> {
    match done {
        Done::Made(id) => Ok(id),
        other => Err(Error::Invalid(format!("the store answered something else: {other:?}"))),
    }
}
