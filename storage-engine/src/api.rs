//! What a replicator asks of its own store: by a function call in one process, or over mutual TLS.
//!
//! The questions are methods of [`Objects`]; those that only a replicator asks stand here. `message` says
//! how they look on the wire, `framing` how messages stand in a body, `serve` answers them. The client
//! is the replicator's.
pub mod framing;
pub mod health;
pub mod lend;
pub mod message;
pub mod neighbour;
pub mod piece;
pub mod scratch;
pub mod serve;

pub use crate::bucket::document::Document;
pub use health::{DriveHealth, ShownCertificate, StoreHealth};
pub use neighbour::{Elsewhere, Neighbour, ReadRange};

pub use crate::feed::{Backlog, Batch, Cursor, Event};
pub use crate::object::{Applied, Body, Error, Objects, Opened};
use crate::object::{List, Marker, Versioning};
use crate::version::{Origin, Version, VersionId};
use std::ops::Range;

/// A bucket as a replicator needs to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketInfo {
    /// uuid, 32 hexadecimal digits: a bucket deleted and made again is another one.
    pub id: String,
    pub name: String,
    /// Versioning is enabled: without it a bucket is not replicated.
    pub versioned: bool,
    /// Object lock is on.
    pub object_lock: bool,
    /// What was ever written of its documents.
    pub documents: Vec<Document>,
}

impl Objects {
    /// The name this store gives to every version born in it.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// The bucket as a replicator sees it.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`].
    pub async fn bucket_info(&self, name: &str) -> Result<BucketInfo, Error> {
        let bucket = self.bucket(name).await?;
        let versioned = bucket.versioning == Versioning::Enabled;
        let (id, object_lock) = (bucket.id.0.as_simple().to_string(), bucket.lock.is_some());
        let documents = self.bucket_documents(name).await?;
        Ok(BucketInfo { id, name: bucket.name, versioned, object_lock, documents })
    }

    /// Some of the bytes of a version; the range lies within it.
    ///
    /// # Errors
    /// As [`Objects::read_version`]; [`Error::Invalid`] where it has no such bytes.
    pub async fn version_range(
        &self,
        bucket: &str,
        key: &str,
        id: VersionId,
        range: Range<u64>,
    ) -> Result<Body, Error> {
        let opened = self.read_version(bucket, key, id).await?;
        let size = opened.version.birth.as_ref().map_or(0, |b| b.size_bytes);
        if range.start > range.end || range.end > size {
            return Err(Error::Invalid(format!("bytes {} to {} of a version of {size}", range.start, range.end)));
        }
        Ok(opened.read(range))
    }

    /// All bytes of a version and how many they are; none for a marker.
    ///
    /// # Errors
    /// As [`Objects::read_version`].
    pub async fn version_bytes(&self, bucket: &str, key: &str, id: VersionId) -> Result<(u64, Body), Error> {
        let opened = self.read_version(bucket, key, id).await?;
        let size = opened.version.birth.as_ref().map_or(0, |b| b.size_bytes);
        Ok((size, opened.read(0..size)))
    }

    /// Versions that S3 shows after this one, keys ascending, newest first within a key, at most `limit`.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`]: never a shorter list instead.
    pub async fn versions_after(
        &self,
        bucket: &str,
        after: Option<(String, VersionId)>,
        limit: usize,
    ) -> Result<Vec<Version>, Error> {
        let after = after.map(|(key, id)| Marker { key, version: Some(id) });
        let page = self.list(bucket, List { after, limit, versions: true, ..List::default() }).await?;
        Ok(page.entries.into_iter().map(|e| e.version).collect())
    }
}
