//! A site's store: the twin in memory behind trait `Store`, as durable as a disk. It keeps of bytes only that it was
//! given the right ones; what they are follows from the version's id, so that any site can tell.
use super::locked;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use isthmus::store::memory::MemoryStore;
use isthmus::store::{Applied, Backlog, Batch, Body, BucketInfo, Cursor, Error, Interest, Store, Stretch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use storage_engine::clock::Clock;
use storage_engine::version::{Kind, Origin, Version, VersionId, merge};
use tokio::sync::Notify;

/// The one bucket of every site.
pub const BUCKET: &str = "logs";
/// Bytes of a body come in pieces of about this size, as from drives.
const PIECE_BYTES: usize = 60_000;

/// The store of one site; clones share what it holds.
#[derive(Clone)]
pub struct Twin(Arc<Inner>);

struct Inner {
    held: Mutex<Held>,
    changed: Notify,
    clock: Arc<dyn Clock>,
}

struct Held {
    store: MemoryStore,
    /// Versions whose bytes it was given.
    whole: BTreeSet<VersionId>,
    registered: BTreeSet<String>,
    /// Bodies that were not what their version says.
    wrong: u64,
}

/// The bytes of a version: its id over and over, each time with the place it stands at, so that no two pieces of any
/// two versions are alike.
pub fn bytes_of(id: VersionId, size: u64) -> Bytes {
    let size = usize::try_from(size).expect("a size in memory");
    let mut bytes = Vec::with_capacity(size + 24);
    while bytes.len() < size {
        let place = bytes.len() as u64;
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&place.to_be_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

/// A body as a store gives it.
pub fn body_of(id: VersionId, size: u64) -> Body {
    let bytes = bytes_of(id, size);
    let pieces: Vec<_> = (0..bytes.len()).step_by(PIECE_BYTES).collect();
    stream::iter(pieces.into_iter().map(move |at| Ok(bytes.slice(at..bytes.len().min(at + PIECE_BYTES))))).boxed()
}

fn has_bytes(version: &Version) -> bool {
    version.birth.as_ref().is_some_and(|b| b.kind == Kind::Object && b.size_bytes > 0)
}

impl Twin {
    pub fn new(origin: &str, clock: Arc<dyn Clock>) -> Self {
        let (whole, registered) = Default::default();
        let held = Held { store: MemoryStore::new(Origin::new(origin)), whole, registered, wrong: 0 };
        Twin(Arc::new(Inner { held: Mutex::new(held), changed: Notify::new(), clock }))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        locked(&self.0.held)
    }
    fn of(&self, bucket: &str) -> Result<MutexGuard<'_, Held>, Error> {
        if bucket == BUCKET { Ok(self.held()) } else { Err(Error::NoSuchBucket(bucket.into())) }
    }

    /// A client's write; what `write` returns is acked, and every tail hears of it.
    pub fn write<T>(&self, write: impl FnOnce(&mut MemoryStore, u64) -> T) -> T {
        let done = write(&mut self.held().store, self.0.clock.now_millis());
        self.0.changed.notify_waiters();
        done
    }

    /// A client's object; its bytes are here.
    pub fn put(&self, key: &str, id: VersionId, size_bytes: u64) -> Version {
        self.held().whole.insert(id);
        self.write(|store, now| store.put(now, key, id, Kind::Object, size_bytes))
    }

    /// What is held, by key and id.
    pub fn versions(&self) -> BTreeMap<(String, VersionId), Version> {
        self.held().store.versions().map(|(_, v)| ((v.key.clone(), v.id), v.clone())).collect()
    }

    /// Live versions without their bytes, and bodies that came and were wrong.
    pub fn unsound(&self) -> (Vec<String>, u64) {
        let held = self.held();
        let lacks = |v: &&Version| v.is_live() && has_bytes(v) && !held.whole.contains(&v.id);
        let without = held.store.versions().map(|(_, v)| v).filter(lacks);
        (without.map(|v| format!("{}/{}", v.key, v.id)).collect(), held.wrong)
    }
}

#[async_trait]
impl Store for Twin {
    async fn bucket(&self, name: &str) -> Result<BucketInfo, Error> {
        drop(self.of(name)?);
        Ok(BucketInfo { id: "0".repeat(32), name: name.into(), versioned: true, ..BucketInfo::default() })
    }
    async fn changes(&self, bucket: &str, cursor: Option<&Cursor>, limit: usize) -> Result<Batch, Error> {
        loop {
            let changed = self.0.changed.notified();
            let (events, cursor) = self.of(bucket)?.store.changes(cursor, limit);
            if !events.is_empty() {
                return Ok(Batch { events, cursor, bucket: "0".repeat(32) });
            }
            changed.await;
        }
    }
    async fn head(&self, bucket: &str) -> Result<Cursor, Error> {
        Ok(self.of(bucket)?.store.head())
    }
    async fn stat(&self, bucket: &str, key: &str, id: VersionId) -> Result<Option<Version>, Error> {
        Ok(self.of(bucket)?.store.get(key, id).cloned())
    }
    async fn read_version(&self, bucket: &str, key: &str, id: VersionId) -> Result<Body, Error> {
        let held = self.of(bucket)?;
        let version = held.store.get(key, id).filter(|v| v.is_live()).ok_or(Error::NoSuchVersion)?;
        Ok(body_of(id, version.birth.as_ref().map_or(0, |b| b.size_bytes)))
    }
    async fn apply_version(
        &self,
        bucket: &str,
        version: Version,
        body: Option<Body>,
        _traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        let known = self.of(bucket)?.store.get(&version.key, version.id).cloned();
        let is_new = known.as_ref().is_none_or(|v| v.birth.is_none());
        let mut all = known.unwrap_or_else(|| Version::blank(&version.key, version.id));
        merge::join(&mut all, &version);
        if is_new && has_bytes(&version) && all.purged().is_none() {
            let Some(body) = body else { return Ok(Applied::NeedsBody) };
            let bytes = body.try_collect::<Vec<_>>().await.map_err(Error::Body)?.concat();
            let size = version.birth.as_ref().map_or(0, |b| b.size_bytes);
            let mut held = self.of(bucket)?;
            if bytes != bytes_of(version.id, size) {
                held.wrong += 1;
                return Err(Error::BadDigest(format!("{} bytes of {size}", bytes.len())));
            }
            held.whole.insert(version.id);
        }
        Ok(self.write(|store, now| store.apply(now, &version)))
    }
    async fn versions_of(&self, bucket: &str, key: &str) -> Result<Vec<Version>, Error> {
        Ok(self.of(bucket)?.store.list(key).into_iter().cloned().collect())
    }
    async fn list_versions(
        &self,
        bucket: &str,
        after: Option<(String, VersionId)>,
        limit: usize,
    ) -> Result<Vec<Version>, Error> {
        Ok(self.of(bucket)?.store.page(after, limit))
    }
    async fn stretch(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Stretch, Error> {
        Ok(self.of(bucket)?.store.stretch(prefix, after, limit))
    }
    async fn register(&self, bucket: &str, consumer: &str, _keeps: bool) -> Result<Option<Cursor>, Error> {
        let mut held = self.of(bucket)?;
        held.registered.insert(consumer.into());
        Ok(held.store.register(consumer))
    }
    async fn commit(&self, bucket: &str, consumer: &str, cursor: &Cursor, floor: &Cursor) -> Result<(), Error> {
        let mut held = self.of(bucket)?;
        if !held.registered.contains(consumer) {
            return Err(Error::Invalid(format!("consumer {consumer} is not registered")));
        }
        held.store.commit(consumer, Some(cursor.clone()), Some(floor.clone()));
        Ok(())
    }
    async fn deregister(&self, bucket: &str, consumer: &str) -> Result<(), Error> {
        self.of(bucket)?.registered.remove(consumer);
        Ok(())
    }
    async fn backlog(&self, bucket: &str, cursor: Option<&Cursor>, interest: &Interest) -> Result<Backlog, Error> {
        Ok(self.of(bucket)?.store.backlog(cursor, interest))
    }
}
