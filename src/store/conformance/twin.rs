//! The pure twin behind the trait: what the simulator runs on answers the same suite.
use crate::store::memory::MemoryStore;
use crate::store::{Applied, Backlog, Batch, Body, BucketInfo, Cursor, Error, Interest, Store, Stretch};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use storage_engine::version::{Kind, Origin, Version, VersionId, merge};
use tokio::sync::Notify;

/// One bucket of the twin, with bytes beside it.
pub struct Twin {
    bucket: String,
    held: Mutex<Held>,
    changed: Notify,
}

struct Held {
    store: MemoryStore,
    bytes: BTreeMap<VersionId, Bytes>,
    registered: BTreeSet<String>,
    /// A time that rises by one a change is all it needs.
    now: u64,
}

impl Twin {
    pub fn new(bucket: &str) -> Self {
        let (bytes, registered) = Default::default();
        let held = Held { store: MemoryStore::new(Origin::new("here")), bytes, registered, now: 1 };
        Twin { bucket: bucket.into(), held: Mutex::new(held), changed: Notify::new() }
    }
    fn held(&self, bucket: &str) -> Result<std::sync::MutexGuard<'_, Held>, Error> {
        if bucket != self.bucket {
            return Err(Error::NoSuchBucket(bucket.into()));
        }
        Ok(self.held.lock().unwrap())
    }
}

#[async_trait]
impl Store for Twin {
    async fn bucket(&self, name: &str) -> Result<BucketInfo, Error> {
        drop(self.held(name)?);
        Ok(BucketInfo { id: "0".repeat(32), name: name.into(), versioned: true, ..BucketInfo::default() })
    }
    async fn changes(&self, bucket: &str, cursor: Option<&Cursor>, limit: usize) -> Result<Batch, Error> {
        loop {
            let changed = self.changed.notified();
            let (events, cursor) = self.held(bucket)?.store.changes(cursor, limit);
            if !events.is_empty() {
                return Ok(Batch { events, cursor, bucket: "0".repeat(32) });
            }
            changed.await;
        }
    }
    async fn head(&self, bucket: &str) -> Result<Cursor, Error> {
        Ok(self.held(bucket)?.store.head())
    }
    async fn stat(&self, bucket: &str, key: &str, id: VersionId) -> Result<Option<Version>, Error> {
        Ok(self.held(bucket)?.store.get(key, id).cloned())
    }
    async fn read_version(&self, bucket: &str, key: &str, id: VersionId) -> Result<Body, Error> {
        let held = self.held(bucket)?;
        held.store.get(key, id).filter(|v| v.is_live()).ok_or(Error::NoSuchVersion)?;
        let bytes = held.bytes.get(&id).cloned().unwrap_or_default();
        Ok(stream::iter([Ok(bytes)]).boxed())
    }
    async fn apply_version(
        &self,
        bucket: &str,
        version: Version,
        body: Option<Body>,
        _traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        let known = self.held(bucket)?.store.get(&version.key, version.id).cloned();
        let is_new = known.as_ref().is_none_or(|v| v.birth.is_none());
        let mut whole = known.unwrap_or_else(|| Version::blank(&version.key, version.id));
        merge::join(&mut whole, &version);
        let birth = version.birth.as_ref().filter(|b| b.kind == Kind::Object && b.size_bytes > 0);
        if let (true, Some(birth), None) = (is_new, birth, whole.purged()) {
            let Some(body) = body else { return Ok(Applied::NeedsBody) };
            let bytes = Bytes::from(body.try_collect::<Vec<_>>().await.map_err(Error::Body)?.concat());
            if bytes.len() as u64 != birth.size_bytes || crc64nvme(&bytes) != birth.crc64nvme {
                return Err(Error::BadDigest("crc64nvme".into()));
            }
            self.held(bucket)?.bytes.insert(version.id, bytes);
        }
        let mut held = self.held(bucket)?;
        held.now += 1;
        let now = held.now;
        let applied = held.store.apply(now, &version);
        drop(held);
        self.changed.notify_waiters();
        Ok(applied)
    }
    async fn versions_of(&self, bucket: &str, key: &str) -> Result<Vec<Version>, Error> {
        Ok(self.held(bucket)?.store.list(key).into_iter().cloned().collect())
    }
    async fn list_versions(
        &self,
        bucket: &str,
        after: Option<(String, VersionId)>,
        limit: usize,
    ) -> Result<Vec<Version>, Error> {
        Ok(self.held(bucket)?.store.page(after, limit))
    }
    async fn stretch(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Stretch, Error> {
        Ok(self.held(bucket)?.store.stretch(prefix, after, limit))
    }
    async fn register(&self, bucket: &str, consumer: &str, _keeps: bool) -> Result<Option<Cursor>, Error> {
        let mut held = self.held(bucket)?;
        held.registered.insert(consumer.into());
        Ok(held.store.register(consumer))
    }
    async fn commit(&self, bucket: &str, consumer: &str, cursor: &Cursor, floor: &Cursor) -> Result<(), Error> {
        let mut held = self.held(bucket)?;
        if !held.registered.contains(consumer) {
            return Err(Error::Invalid(format!("consumer {consumer} is not registered")));
        }
        held.store.commit(consumer, Some(cursor.clone()), Some(floor.clone()));
        Ok(())
    }
    async fn deregister(&self, bucket: &str, consumer: &str) -> Result<(), Error> {
        let mut held = self.held(bucket)?;
        held.registered.remove(consumer);
        held.store.commit(consumer, None, None);
        Ok(())
    }
    async fn backlog(&self, bucket: &str, cursor: Option<&Cursor>, interest: &Interest) -> Result<Backlog, Error> {
        Ok(self.held(bucket)?.store.backlog(cursor, interest))
    }
}

/// CRC-64/NVME, bit by bit: slow, and nobody else's code.
fn crc64nvme(bytes: &[u8]) -> u64 {
    const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;
    !bytes.iter().fold(!0u64, |crc, byte| {
        (0..8).fold(crc ^ u64::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 })
    })
}
