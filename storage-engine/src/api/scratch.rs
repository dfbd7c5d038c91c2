//! Buckets that a replicator makes for a trial, writes and reads as a client does, and removes with all that is in them.
//! No other bucket is touched: whoever may ask here replicates, and is no user of the store.
use super::message::tag;
use super::{Error, Objects};
use crate::object::{Conditions, Put, Versioning};
use crate::version::VersionId;
use crate::wire::{self, Fields};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use std::io;

/// Their names begin with this.
pub const PREFIX: &str = "isthmus-drill-";
/// Largest object: what is written in a trial is counted, not weighed.
pub const OBJECT_BYTES_MAX: usize = 1 << 20;
/// Versions listed at once for removal.
const PAGE: usize = 500;
/// Versions removed at once: group commit takes them together.
const AT_ONCE: usize = 32;

/// What is done to such a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Makes it, with versioning; [`Error::BucketExists`].
    Make,
    /// Removes it with every version; one that is not there is fine. Again is safe.
    Remove,
    Put {
        key: String,
        bytes: Bytes,
    },
    /// Deletes the key: a marker.
    Delete {
        key: String,
    },
    /// Reads the latest version whole.
    Read {
        key: String,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    Nothing,
    /// The version that was made.
    Made(VersionId),
    Read(Bytes),
}

impl Act {
    /// Its fields.
    pub(super) fn put(&self, f: &mut Fields) {
        let (kind, key) = match self {
            Act::Make => (1, None),
            Act::Remove => (2, None),
            Act::Put { key, .. } => (3, Some(key)),
            Act::Delete { key } => (4, Some(key)),
            Act::Read { key } => (5, Some(key)),
        };
        f.put(tag::ACT, &kind);
        f.put_some(tag::KEY, &key);
        if let Act::Put { bytes, .. } = self {
            f.put_bytes(tag::OBJECT, bytes);
        }
    }

    /// The act these fields are.
    pub(super) fn take(f: &mut Fields) -> Result<Act, wire::Error> {
        Ok(match f.need::<u8>(tag::ACT)? {
            1 => Act::Make,
            2 => Act::Remove,
            3 => {
                let bytes: minicbor::bytes::ByteVec = f.need(tag::OBJECT)?;
                Act::Put { key: f.need(tag::KEY)?, bytes: Vec::from(bytes).into() }
            }
            4 => Act::Delete { key: f.need(tag::KEY)? },
            5 => Act::Read { key: f.need(tag::KEY)? },
            other => return Err(wire::Error::Malformed(format!("act {other} is unknown"))),
        })
    }
}

impl Objects {
    /// Does something to a bucket of a trial, by the roads of S3 and without its door.
    ///
    /// # Errors
    /// [`Error::Invalid`]: it is no such bucket, or the object is too large; otherwise as the S3 operation.
    pub async fn scratch(&self, bucket: &str, act: Act) -> Result<Done, Error> {
        if !bucket.starts_with(PREFIX) {
            return Err(Error::Invalid(format!("{bucket} is a user's bucket: only {PREFIX}* are written here")));
        }
        match act {
            Act::Make => self.create_bucket(bucket, Versioning::Enabled).await.map(|_| Done::Nothing),
            Act::Remove => self.remove_scratch(bucket).await.map(|()| Done::Nothing),
            Act::Put { bytes, .. } if bytes.len() > OBJECT_BYTES_MAX => {
                Err(Error::Invalid(format!("an object of {} bytes: at most {OBJECT_BYTES_MAX}", bytes.len())))
            }
            Act::Put { key, bytes } => {
                let body = futures::stream::iter([Ok::<_, io::Error>(bytes)]).boxed();
                Ok(Done::Made(self.put(bucket, &key, Put::default(), body).await?.version.id))
            }
            Act::Delete { key } => {
                let deleted = self.delete(bucket, &key, None, Conditions::default(), false).await?;
                let made = deleted.version_id.map(Done::Made);
                made.ok_or_else(|| Error::Invalid(format!("bucket {bucket} makes no delete markers")))
            }
            Act::Read { key } => self.read_scratch(bucket, &key).await.map(Done::Read),
        }
    }

    async fn remove_scratch(&self, bucket: &str) -> Result<(), Error> {
        loop {
            let page = match self.versions_after(bucket, None, PAGE).await {
                Err(Error::NoSuchBucket(_)) => return Ok(()),
                page => page?,
            };
            if page.is_empty() {
                return match self.delete_bucket(bucket).await {
                    Err(Error::NoSuchBucket(_)) => Ok(()),
                    deleted => deleted,
                };
            }
            let purges = futures::stream::iter(page).map(|version| async move {
                let purged = self.delete(bucket, &version.key, Some(version.id), Conditions::default(), false);
                purged.await.map(drop)
            });
            purges.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        }
    }

    async fn read_scratch(&self, bucket: &str, key: &str) -> Result<Bytes, Error> {
        let opened = self.open(bucket, key, None).await?;
        let size = opened.version.birth.as_ref().map_or(0, |birth| birth.size_bytes);
        if size > OBJECT_BYTES_MAX as u64 {
            return Err(Error::Invalid(format!("an object of {size} bytes is not read whole")));
        }
        let mut body = opened.read(0..size);
        let mut whole = BytesMut::new();
        while let Some(piece) = body.try_next().await.map_err(Error::Body)? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}
