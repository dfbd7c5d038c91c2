//! The bundled store: trait [`Store`] over the engine, by a function call in this process
//! ([`BundledStore`]) or over the private API of a store in another one ([`network::NetworkStore`]).
pub mod network;

use super::{
    Act, Applied, Backlog, Batch, Body, BucketInfo, Client, Cursor, Cut, Document, Done, Error, Interest, Pieces,
    Store, StoreHealth, Stretch,
};
use async_trait::async_trait;
use std::ops::Range;
use storage_engine::object::Objects;
use storage_engine::version::{Version, VersionId};

/// A store reached by a function call.
pub struct BundledStore(pub Objects);

#[async_trait]
impl Client for BundledStore {
    async fn scratch(&self, bucket: &str, act: Act) -> Result<Done, Error> {
        self.0.scratch(bucket, act).await
    }
}

#[async_trait]
impl Store for BundledStore {
    async fn bucket(&self, name: &str) -> Result<BucketInfo, Error> {
        self.0.bucket_info(name).await
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
        Ok(self.0.version_bytes(bucket, key, id).await?.1)
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
        self.0.versions_after(bucket, after, limit).await
    }
    async fn stretch(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Stretch, Error> {
        self.0.stretch(bucket, prefix, after, limit).await
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
    async fn backlog(&self, bucket: &str, cursor: Option<&Cursor>, interest: &Interest) -> Result<Backlog, Error> {
        self.0.backlog(bucket, cursor, interest).await
    }
    async fn join_document(&self, bucket: &str, document: Document) -> Result<bool, Error> {
        self.0.join_bucket_document(bucket, document).await
    }
    async fn health(&self) -> Result<Option<StoreHealth>, Error> {
        Ok(Some(self.0.store_health()))
    }
    fn client(&self) -> Option<&dyn Client> {
        Some(self)
    }
    fn pieces(&self) -> Option<&dyn Pieces> {
        Some(self)
    }
}

#[async_trait]
impl Pieces for BundledStore {
    async fn read_range(&self, bucket: &str, key: &str, id: VersionId, range: Range<u64>) -> Result<Body, Error> {
        Ok(self.0.read_version(bucket, key, id).await?.read(range))
    }
    async fn put_piece(
        &self,
        bucket: &str,
        id: VersionId,
        cut: Cut,
        number: u32,
        crc64nvme: u64,
        body: Body,
    ) -> Result<(), Error> {
        self.0.put_piece(bucket, id, cut, number, crc64nvme, body).await
    }
    async fn held_pieces(&self, bucket: &str, id: VersionId, cut: Cut) -> Result<Vec<u32>, Error> {
        self.0.pieces(bucket, id, cut).await
    }
    async fn apply_pieces(
        &self,
        bucket: &str,
        version: Version,
        cut: Cut,
        traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        self.0.apply_pieces(bucket, version, cut, traceparent).await
    }
    async fn forget_pieces(&self, bucket: &str, before_millis: u64) -> Result<u64, Error> {
        self.0.forget_pieces(bucket, before_millis).await
    }
}
