//! The bundled store in this process: trait [`Store`] over the engine's object layer.
use super::{Applied, Backlog, Batch, Body, BucketInfo, Cursor, Error, Store};
use async_trait::async_trait;
use storage_engine::object::{List, Marker, Objects, Versioning};
use storage_engine::version::{Version, VersionId};

/// A store reached by a function call.
pub struct BundledStore(pub Objects);

#[async_trait]
impl Store for BundledStore {
    async fn bucket(&self, name: &str) -> Result<BucketInfo, Error> {
        let bucket = self.0.bucket(name).await?;
        Ok(BucketInfo {
            id: bucket.id.0.as_simple().to_string(),
            name: bucket.name,
            versioned: bucket.versioning == Versioning::Enabled,
        })
    }
    async fn changes(&self, bucket: &str, cursor: Option<&Cursor>, limit: usize) -> Result<Batch, Error> {
        self.0.changes(bucket, cursor, limit).await
    }
    async fn head(&self, bucket: &str) -> Result<Cursor, Error> {
        self.0.head(bucket).await
    }
    async fn stat(&self, bucket: &str, key: &str, id: VersionId) -> Result<Option<Version>, Error> {
        self.0.stat(bucket, key, id).await
    }
    async fn read_version(&self, bucket: &str, key: &str, id: VersionId) -> Result<Body, Error> {
        let opened = self.0.read_version(bucket, key, id).await?;
        let size = opened.version.birth.as_ref().map_or(0, |b| b.size_bytes);
        Ok(opened.read(0..size))
    }
    async fn apply_version(
        &self,
        bucket: &str,
        version: Version,
        body: Option<Body>,
        traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        self.0.apply(bucket, version, body, traceparent).await
    }
    async fn versions_of(&self, bucket: &str, key: &str) -> Result<Vec<Version>, Error> {
        self.0.versions(bucket, key).await
    }
    async fn list_versions(
        &self,
        bucket: &str,
        after: Option<(String, VersionId)>,
        limit: usize,
    ) -> Result<Vec<Version>, Error> {
        let after = after.map(|(key, id)| Marker { key, version: Some(id) });
        let page = self.0.list(bucket, List { after, limit, versions: true, ..List::default() }).await?;
        Ok(page.entries.into_iter().map(|e| e.version).collect())
    }
    async fn register(&self, bucket: &str, consumer: &str, keeps_versioning: bool) -> Result<Option<Cursor>, Error> {
        self.0.register(bucket, consumer, keeps_versioning).await
    }
    async fn commit(&self, bucket: &str, consumer: &str, cursor: &Cursor, floor: &Cursor) -> Result<(), Error> {
        self.0.commit(bucket, consumer, cursor, floor).await
    }
    async fn deregister(&self, bucket: &str, consumer: &str) -> Result<(), Error> {
        self.0.deregister(bucket, consumer).await
    }
    async fn backlog(&self, bucket: &str, cursor: Option<&Cursor>, prefix: &str) -> Result<Backlog, Error> {
        self.0.backlog(bucket, cursor, prefix).await
    }
}
