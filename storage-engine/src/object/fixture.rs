//! A small store on drives in memory, for the tests of the roads: writes past the S3 rules, and a
//! process that dies after so many calls.
use super::ballot::{Draft, NewId};
use super::blob::Data;
use super::{Body, Bucket, List, Objects};
use crate::clock::{HlcClock, SystemClock};
use crate::drive::memory::MemoryDrive;
use crate::drive::{self, Drive, Logged, Lsn, ShardSink};
use crate::quorum::participant::{KeyView, Reply, Request};
use crate::record::{BucketId, Record};
use crate::version::{Birth, Hlc, Kind, Order, Origin, Version, VersionId};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::watch;
use uuid::Uuid;

/// Four drives, 2+2, that answer until their process has used up its calls.
pub(crate) struct Set {
    pub(crate) drives: Vec<Arc<MemoryDrive>>,
    /// One for all processes: coordinators never share a ballot, and these have nothing else to tell
    /// them apart.
    clock: HlcClock,
}

impl Set {
    pub(crate) fn new() -> Self {
        let drives = (0..4).map(|slot| Arc::new(MemoryDrive::new(slot))).collect();
        Set { drives, clock: HlcClock::new(Arc::new(SystemClock), Hlc::ZERO) }
    }
    /// A process over the drives as they stand.
    pub(crate) fn start(&self) -> Objects {
        self.start_with(i64::MAX)
    }
    /// A process whose drives stop answering after so many calls in all.
    pub(crate) fn start_with(&self, calls: i64) -> Objects {
        let left = Arc::new(AtomicI64::new(calls));
        self.process(|_| left.clone())
    }
    /// A process without the drives of these slots.
    pub(crate) fn start_without(&self, slots: &[usize]) -> Objects {
        self.process(|slot| Arc::new(AtomicI64::new(if slots.contains(&slot) { 0 } else { i64::MAX })))
    }
    fn process(&self, left: impl Fn(usize) -> Arc<AtomicI64>) -> Objects {
        let mortal =
            |d: &Arc<MemoryDrive>| Arc::new(Mortal { drive: d.clone(), left: left(d.slot()) }) as Arc<dyn Drive>;
        let drives = self.drives.iter().map(mortal).collect();
        let mut objects = Objects::new(drives, 2, Arc::new(SystemClock), Origin::new("here"));
        Arc::get_mut(&mut objects.0).expect("nobody else has it yet").clock = self.clock.clone();
        objects
    }
}

pub(crate) fn body(bytes: impl Into<Bytes>) -> Body {
    let bytes = bytes.into();
    futures::stream::once(async move { Ok(bytes) }).boxed()
}

/// A body in chunks of 100,000 bytes; what is to happen happens before the chunk of that number.
pub(crate) fn eventful(bytes: &[u8], mut events: Vec<(usize, Event)>) -> Body {
    let chunks: Vec<Bytes> = bytes.chunks(100_000).map(Bytes::copy_from_slice).collect();
    let told = chunks.into_iter().enumerate().map(move |(number, chunk)| {
        events.extract_if(.., |(at, _)| *at == number).for_each(|(_, event)| event());
        Ok(chunk)
    });
    futures::stream::iter(told).boxed()
}
/// What happens while a body is on its way.
pub(crate) type Event = Box<dyn FnOnce() + Send>;

/// Writes an empty version, as PUT (or, with a marker, DELETE) would.
pub(crate) async fn write(objects: &Objects, bucket: &Bucket, key: &str, id: NewId, kind: Kind) -> Record {
    let make = |hlc: Hlc, id: VersionId, base: Option<Order>| {
        let mut version = Version::blank(key, id);
        version.birth =
            Some(Birth { base, ..Birth::blank(Order { hlc, origin: Origin::new("here"), version_id: id }, kind) });
        version
    };
    let draft = Draft { bucket: bucket.id, key, id, make: &make, data: Data::default(), test: None, traceparent: None };
    objects.0.write(draft).await.expect("four drives answer")
}

/// Every live version of a bucket, as (key, id).
pub(crate) async fn versions(objects: &Objects, bucket: &str) -> Vec<(String, VersionId)> {
    let page = objects.list(bucket, List { limit: 1_000, versions: true, ..List::default() }).await.expect("a list");
    page.entries.into_iter().map(|l| (l.version.key.clone(), l.version.id)).collect()
}

struct Mortal {
    drive: Arc<dyn Drive>,
    left: Arc<AtomicI64>,
}

impl Mortal {
    fn spend(&self) -> Result<(), drive::Error> {
        if self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Ok(());
        }
        Err(drive::Error::Offline { slot: self.drive.slot(), why: "the process is dead".into() })
    }
}

#[async_trait]
impl Drive for Mortal {
    fn slot(&self) -> usize {
        self.drive.slot()
    }
    fn incarnation(&self) -> Uuid {
        self.drive.incarnation()
    }
    fn ceiling(&self) -> Hlc {
        self.drive.ceiling()
    }
    async fn call(&self, request: Request) -> Result<Reply, drive::Error> {
        self.spend()?;
        self.drive.call(request).await
    }
    async fn create_shard(&self, blob: Uuid) -> Result<Box<dyn ShardSink>, drive::Error> {
        self.spend()?;
        self.drive.create_shard(blob).await
    }
    async fn read_shard(&self, blob: Uuid, range: Range<u64>) -> Result<Bytes, drive::Error> {
        self.spend()?;
        self.drive.read_shard(blob, range).await
    }
    async fn read_key(&self, bucket: BucketId, key: &str) -> Result<KeyView, drive::Error> {
        self.spend()?;
        self.drive.read_key(bucket, key).await
    }
    async fn scan(
        &self,
        bucket: BucketId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, KeyView)>, drive::Error> {
        self.spend()?;
        self.drive.scan(bucket, prefix, after, limit).await
    }
    async fn tail(&self, bucket: BucketId, after: Lsn, limit: usize) -> Result<Vec<Logged>, drive::Error> {
        self.spend()?;
        self.drive.tail(bucket, after, limit).await
    }
    fn head(&self) -> watch::Receiver<Lsn> {
        self.drive.head()
    }
    fn moves(&self, bucket: BucketId) -> watch::Receiver<Lsn> {
        self.drive.moves(bucket)
    }
    fn space(&self) -> (u64, u64) {
        self.drive.space()
    }
    async fn close(&self) {
        self.drive.close().await;
    }
}
