//! Bodies in and out over drives that lose, flip and refuse shards.
use super::*;
use crate::clock::ManualClock;
use crate::drive::{self, Drive, Logged, Lsn, ShardSink};
use crate::object::{Body, Error, Expect, Objects};
use crate::quorum::participant::{KeyView, Reply, Request};
use crate::record::{BucketId, Record};
use crate::version::{Hlc, Origin, Version, VersionId};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use uuid::Uuid;

/// A drive that holds shards and nothing else.
#[derive(Default)]
struct Shelf {
    slot: usize,
    held: Arc<Mutex<BTreeMap<Uuid, Vec<u8>>>>,
    /// Bytes after which writing fails; the drive answers nothing from then on.
    breaks_after: Option<usize>,
    is_offline: Arc<Mutex<bool>>,
}

struct Sink {
    blob: Uuid,
    slot: usize,
    bytes: Vec<u8>,
    breaks_after: Option<usize>,
    held: Arc<Mutex<BTreeMap<Uuid, Vec<u8>>>>,
}

fn offline(slot: usize) -> drive::Error {
    drive::Error::Offline { slot, why: "a test said so".into() }
}

#[async_trait]
impl ShardSink for Sink {
    async fn write(&mut self, bytes: Bytes) -> Result<(), drive::Error> {
        self.bytes.extend_from_slice(&bytes);
        match self.breaks_after.is_some_and(|at| self.bytes.len() > at) {
            true => Err(offline(self.slot)),
            false => Ok(()),
        }
    }
    async fn seal(self: Box<Self>) -> Result<(), drive::Error> {
        self.held.lock().unwrap().insert(self.blob, self.bytes);
        Ok(())
    }
}

#[async_trait]
impl Drive for Shelf {
    fn slot(&self) -> usize {
        self.slot
    }
    fn incarnation(&self) -> Uuid {
        Uuid::nil()
    }
    fn ceiling(&self) -> Hlc {
        Hlc::ZERO
    }
    async fn call(&self, _: Request) -> Result<Reply, drive::Error> {
        Err(offline(self.slot))
    }
    async fn create_shard(&self, blob: Uuid) -> Result<Box<dyn ShardSink>, drive::Error> {
        let (slot, held) = (self.slot, self.held.clone());
        Ok(Box::new(Sink { blob, slot, bytes: Vec::new(), breaks_after: self.breaks_after, held }))
    }
    async fn read_shard(&self, blob: Uuid, range: Range<u64>) -> Result<Bytes, drive::Error> {
        if *self.is_offline.lock().unwrap() {
            return Err(offline(self.slot));
        }
        let held = self.held.lock().unwrap();
        let shard = held.get(&blob).ok_or(drive::Error::NoShard { slot: self.slot, blob })?;
        let end = shard.len().min(range.end as usize);
        Ok(Bytes::copy_from_slice(&shard[end.min(range.start as usize)..end]))
    }
    async fn read_key(&self, _: BucketId, _: &str) -> Result<KeyView, drive::Error> {
        Err(offline(self.slot))
    }
    async fn scan(
        &self,
        _: BucketId,
        _: &str,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<(String, KeyView)>, drive::Error> {
        Err(offline(self.slot))
    }
    async fn tail(&self, _: BucketId, _: Lsn, _: usize) -> Result<Vec<Logged>, drive::Error> {
        Err(offline(self.slot))
    }
    fn head(&self) -> watch::Receiver<Lsn> {
        watch::channel(0).1
    }
    fn space(&self) -> (u64, u64) {
        (1, 1)
    }
    async fn close(&self) {}
}

struct Store {
    objects: Objects,
    shelves: Vec<Arc<Shelf>>,
}

fn store(drives: usize, parity: usize, break_at: &[(usize, usize)]) -> Store {
    let breaks_after = |slot| break_at.iter().find(|(s, _)| *s == slot).map(|(_, at)| *at);
    let shelf = |slot| Arc::new(Shelf { slot, breaks_after: breaks_after(slot), ..Shelf::default() });
    let shelves: Vec<_> = (0..drives).map(shelf).collect();
    let drives = shelves.iter().map(|s| s.clone() as Arc<dyn Drive>).collect();
    Store { objects: Objects::new(drives, parity, Arc::new(ManualClock::at(1)), Origin::new("a")), shelves }
}

impl Store {
    /// Stores a body in chunks of 100,000 bytes and lays inline shards on the shelves as a commit would.
    async fn write(&self, body: &[u8], expect: Expect) -> Result<(Record, StoredBody), Error> {
        let stored = self.objects.0.store_body(chunks(body), expect).await?;
        for (shelf, shards) in self.shelves.iter().zip(&stored.data.shards) {
            shelf.held.lock().unwrap().extend(shards.iter().map(|(id, shard)| (*id, shard.to_vec())));
        }
        let mut record = Record::new(BucketId::SYSTEM, Version::blank("key", VersionId::NULL), Hlc::ZERO);
        record.blobs.extend(stored.data.blobs.clone());
        Ok((record, stored))
    }
    async fn read(&self, record: &Record, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let mut body = self.objects.0.read_blobs(record, range);
        let mut out = Vec::new();
        while let Some(bytes) = body.next().await {
            match bytes {
                Ok(bytes) => out.extend_from_slice(&bytes),
                Err(err) => {
                    assert!(body.next().await.is_none(), "nothing may follow an error");
                    return Err(*err.into_inner().unwrap().downcast::<Error>().unwrap());
                }
            }
        }
        Ok(out)
    }
    fn held(&self) -> usize {
        self.shelves.iter().map(|s| s.held.lock().unwrap().len()).sum()
    }
    fn damage(&self, slot: usize, at: usize) {
        for shard in self.shelves[slot].held.lock().unwrap().values_mut() {
            let at = at % shard.len();
            shard[at] ^= 0x20;
        }
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8).collect()
}

fn chunks(body: &[u8]) -> Body {
    let chunks: Vec<_> = body.chunks(100_000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    stream::iter(chunks).boxed()
}

#[tokio::test]
async fn bodies_of_every_size_come_back_with_m_drives_away() {
    for (drives, parity) in [(1, 0), (2, 1), (4, 2), (8, 4)] {
        for len in [1, 3, 4096, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 3_000_000, 9_500_001] {
            let store = store(drives, parity, &[]);
            let body = bytes(len);
            let (record, stored) = store.write(&body, Expect::default()).await.unwrap();
            assert_eq!(stored.size_bytes, len as u64);
            assert_eq!(stored.crc64nvme, crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &body));
            assert!(store.read(&record, 0..len as u64).await.unwrap() == body, "{len} bytes on {drives}");
            for lost in 0..parity {
                *store.shelves[(lost * 3) % drives].is_offline.lock().unwrap() = true;
            }
            let range = len as u64 / 3..len as u64;
            let got = store.read(&record, range.clone()).await.unwrap();
            assert!(got == body[range.start as usize..], "{range:?} of {len} bytes on {drives}, {parity} away");
        }
    }
}

#[tokio::test]
async fn a_flip_is_read_around_and_never_given() {
    let store = store(4, 2, &[]);
    let body = bytes(2_500_000);
    let (record, _) = store.write(&body, Expect::default()).await.unwrap();
    store.damage(0, 8);
    store.damage(3, 777_777);
    assert!(store.read(&record, 0..2_500_000).await.unwrap() == body);
    (0..3).for_each(|slot| store.damage(slot, 30));
    let err = store.read(&record, 0..2_500_000).await.unwrap_err();
    assert!(matches!(err, Error::Corrupt(_)), "{err}");
}

#[tokio::test]
async fn drives_that_are_away_make_a_body_unavailable_not_corrupt() {
    let store = store(4, 2, &[]);
    let (record, _) = store.write(&bytes(1000), Expect::default()).await.unwrap();
    (0..3).for_each(|slot| *store.shelves[slot].is_offline.lock().unwrap() = true);
    let err = store.read(&record, 0..1000).await.unwrap_err();
    assert!(matches!(err, Error::Unavailable(_)), "{err}");
}

#[tokio::test]
async fn a_drive_that_breaks_in_the_middle_is_left_out_while_a_write_quorum_stands() {
    let body = bytes(12_000_000);
    let three_of_eight = store(8, 4, &[(1, 300_000), (4, 0), (6, 2_000_000)]);
    let (record, _) = three_of_eight.write(&body, Expect::default()).await.unwrap();
    assert_eq!(three_of_eight.held(), 5);
    assert!(three_of_eight.read(&record, 0..12_000_000).await.unwrap() == body);

    let four_of_eight = store(8, 4, &[(0, 0), (1, 300_000), (4, 0), (6, 2_000_000)]);
    let err = four_of_eight.write(&body, Expect::default()).await.unwrap_err();
    assert!(matches!(err, Error::Unavailable(_)), "{err}");
    assert_eq!(four_of_eight.held(), 0, "nothing remains");
}

#[tokio::test]
async fn what_the_client_said_of_the_body_must_hold_and_nothing_remains_if_not() {
    let body = bytes(6_000_000);
    let sized = |size| Expect { size_bytes: Some(size), ..Expect::default() };
    let store = store(4, 2, &[]);
    let short = store.write(&body, sized(6_000_001)).await.unwrap_err();
    assert!(matches!(short, Error::Body(_)), "{short}");
    let long = store.write(&body, sized(5_999_999)).await.unwrap_err();
    assert!(matches!(long, Error::BadDigest(_)), "{long}");
    let md5 = store.write(&body, Expect { md5: Some([7; 16]), ..sized(6_000_000) }).await.unwrap_err();
    assert!(matches!(md5, Error::BadDigest(_)), "{md5}");
    let broken = chunks(&body).take(3).chain(stream::iter([Err(std::io::Error::other("reset"))])).boxed();
    let broken = store.objects.0.store_body(broken, Expect::default()).await.unwrap_err();
    assert!(matches!(broken, Error::Body(_)), "{broken}");
    assert_eq!(store.held(), 0);
    assert!(store.write(&body, sized(6_000_000)).await.is_ok());
}

#[tokio::test]
async fn an_empty_body_has_no_blob() {
    let store = store(4, 2, &[]);
    let (record, stored) = store.write(&[], Expect::default()).await.unwrap();
    assert!(stored.data == Data::default());
    assert_eq!(stored.md5[..4], [0xd4, 0x1d, 0x8c, 0xd9]);
    assert_eq!(store.read(&record, 0..0).await.unwrap(), b"");
}

#[tokio::test]
async fn parts_read_as_one_body() {
    let store = store(4, 2, &[]);
    let body = bytes(1_300_000);
    let mut record = store.write(&body[..400_000], Expect::default()).await.unwrap().0;
    record.blobs.extend(store.write(&body[400_000..400_001], Expect::default()).await.unwrap().0.blobs);
    record.blobs.extend(store.write(&body[400_001..], Expect::default()).await.unwrap().0.blobs);
    for range in [0..1_300_000, 399_999..400_002, 400_000..400_001, 1_299_999..1_300_000] {
        let got = store.read(&record, range.clone()).await.unwrap();
        assert!(got == body[range.start as usize..range.end as usize], "{range:?}");
    }
    assert!(store.read(&record, 0..1_300_001).await.is_err(), "beyond the record");
}
