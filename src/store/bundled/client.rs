//! A client of the store in this process: what a drill writes, reads and removes.
use super::BundledStore;
use crate::store::{Client, Error};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use std::io;
use storage_engine::object::{Conditions, Put, Versioning};
use storage_engine::version::VersionId;

/// Versions listed at once for removal.
const PAGE: usize = 500;
/// Versions removed at once: group commit takes them together.
const AT_ONCE: usize = 32;
/// Longest object read whole: a drill's are no longer than 1 MiB.
const READ_MAX: usize = 1 << 20;

#[async_trait]
impl Client for BundledStore {
    async fn make_bucket(&self, name: &str) -> Result<(), Error> {
        self.0.create_bucket(name, Versioning::Enabled).await.map(drop)
    }

    async fn remove_bucket(&self, name: &str) -> Result<(), Error> {
        loop {
            let page = match self.0.versions_after(name, None, PAGE).await {
                Err(Error::NoSuchBucket(_)) => return Ok(()),
                page => page?,
            };
            if page.is_empty() {
                return match self.0.delete_bucket(name).await {
                    Err(Error::NoSuchBucket(_)) => Ok(()),
                    deleted => deleted,
                };
            }
            let purges = futures::stream::iter(page).map(|version| async move {
                let purged = self.0.delete(name, &version.key, Some(version.id), Conditions::default(), false);
                purged.await.map(drop)
            });
            purges.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        }
    }

    async fn put(&self, bucket: &str, key: &str, bytes: Bytes) -> Result<VersionId, Error> {
        let body = futures::stream::iter([Ok::<_, io::Error>(bytes)]).boxed();
        Ok(self.0.put(bucket, key, Put::default(), body).await?.version.id)
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<VersionId, Error> {
        let deleted = self.0.delete(bucket, key, None, Conditions::default(), false).await?;
        deleted.version_id.ok_or_else(|| Error::Invalid(format!("bucket {bucket} makes no delete markers")))
    }

    async fn read(&self, bucket: &str, key: &str) -> Result<Bytes, Error> {
        let opened = self.0.open(bucket, key, None).await?;
        let size = opened.version.birth.as_ref().map_or(0, |birth| birth.size_bytes);
        if size > READ_MAX as u64 {
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
