//! What a drive holds after power cuts, torn writes, full disks and lost indexes.
//!
//! Every test runs the code of a real drive; only the files below may be the twin's.
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storage_engine::drive::format::OpenError;
use storage_engine::drive::local::open_store;
use storage_engine::drive::log::segment::{self, Entry};
use storage_engine::drive::memory::{Loss, MemoryDisk, MemoryDrive, Step};
use storage_engine::drive::{Drive, Error, Logged};
use storage_engine::quorum::participant::{Effect, KeyView, Op, Request, Verdict};
use storage_engine::record::{Blob, BucketId, Coded, Record};
use storage_engine::version::{Ballot, Birth, Hlc, Kind, Order, Origin, Stamp, Tags, Version, VersionId};
use storage_engine::wire::Fields;
use uuid::Uuid;

const BUCKET: BucketId = BucketId(Uuid::from_u128(0xb0c));

fn at(millis: u64) -> Ballot {
    Hlc::from_millis(millis)
}

fn id(n: u128) -> VersionId {
    VersionId::from_uuid(Uuid::from_u128(n))
}

fn stamp(millis: u64) -> Stamp {
    Stamp::new(at(millis), Origin::new("a"))
}

fn version(key: &str, n: u128, hlc: Ballot) -> Version {
    let birth = Birth {
        size_bytes: 3,
        etag: "0123".into(),
        crc64nvme: 7,
        ..Birth::blank(Order { hlc, origin: Origin::new("a"), version_id: id(n) }, Kind::Object)
    };
    Version { birth: Some(birth), ..Version::blank(key, id(n)) }
}

fn blob(n: u128) -> Blob {
    Blob {
        id: Uuid::from_u128(n),
        size_bytes: 3,
        k: 4,
        m: 4,
        first: 0,
        stripe_bytes: 1 << 20,
        unknown: Fields::default(),
    }
}

/// A PUT of version `n` at millisecond `n` with an inline shard of `bytes` bytes (0: none).
fn put(key: &str, n: u64, bytes: usize) -> Op {
    let mut record = Record::new(BUCKET, version(key, n.into(), at(n)), at(n));
    let mut shards = Vec::new();
    if bytes > 0 {
        record.blobs.push(blob(n.into()));
        shards.push((Uuid::from_u128(n.into()), Bytes::from(vec![n as u8; bytes])));
    }
    Op::Accept { record: record.into(), shards }
}

fn insert(key: &str, n: u64) -> Op {
    let mut record = Record::new(BUCKET, version(key, n.into(), at(n)), at(n));
    record.acked = n.is_multiple_of(2);
    Op::Insert { record: record.into(), shards: Vec::new() }
}

fn tags(key: &str, n: u64, millis: u64, value: &str) -> Op {
    let tags = Tags::new(stamp(millis), BTreeMap::from([("t".to_owned(), value.to_owned())]));
    let version = Version { tags: Some(tags), ..Version::blank(key, id(n.into())) };
    Op::Join { version: Box::new(version), pending_since: millis, passed: 0, traceparent: None }
}

fn purge(key: &str, n: u64, millis: u64) -> Op {
    let version = Version { purges: stamp(millis).into(), ..Version::blank(key, id(n.into())) };
    Op::Join { version: Box::new(version), pending_since: millis, passed: 0, traceparent: None }
}

/// A flag over a purge; it takes where exactly that purge is held.
fn settle(key: &str, n: u64, millis: u64) -> Op {
    let version = Version { purges: stamp(millis).into(), ..Version::blank(key, id(n.into())) };
    Op::Settle { version: Box::new(version) }
}

fn request(epoch: u64, key: &str, op: Op) -> Request {
    Request { epoch, bucket: BUCKET, key: key.into(), op }
}

async fn ask(drive: &dyn Drive, key: &str, op: Op) -> Result<Verdict, Error> {
    Ok(drive.call(request(1, key, op)).await?.verdict)
}

async fn all(drive: &dyn Drive) -> Vec<(String, KeyView)> {
    let mut found = drive.scan(BUCKET, "", None, 10_000).await.unwrap();
    for (_, view) in &mut found {
        view.records.sort_by_key(|r| (r.id(), r.ballot));
        view.aborts.sort();
    }
    found
}

fn lsns(logged: &[Logged]) -> Vec<(u64, VersionId)> {
    logged.iter().map(|l| (l.lsn, l.record.id())).collect()
}

fn dice(seed: &mut u64, sides: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % sides
}

/// A repeatable mixed workload: a key and an operation for each step.
fn workload(mut seed: u64, steps: u64) -> Vec<(String, Op)> {
    let (mut done, mut purged) = (Vec::new(), ("a".to_owned(), 1));
    for step in 1..=steps {
        let mut key = ["a", "a\0b", "b", "../x"][dice(&mut seed, 4) as usize].to_owned();
        let earlier = 1 + dice(&mut seed, step);
        let op = match dice(&mut seed, 9) {
            0 => tags(&key, earlier, step, "v"),
            1 => {
                purged = (key.clone(), earlier);
                purge(&key, earlier, earlier)
            }
            2 => Op::Abort { version: id(earlier.into()), ballot: at(earlier) },
            8 => {
                key.clone_from(&purged.0);
                settle(&key, purged.1, purged.1)
            }
            3 => Op::Ack { version: id(earlier.into()), ballot: at(earlier) },
            4 => {
                let mut record = Record::new(BUCKET, version(&key, 0, at(step)), at(step));
                record.acked = dice(&mut seed, 2) == 0;
                Op::Insert { record: record.into(), shards: Vec::new() }
            }
            _ => put(&key, step, [0, 10, 700, 3_000][dice(&mut seed, 4) as usize]),
        };
        done.push((key, op));
    }
    done
}

#[tokio::test]
async fn what_is_put_reads_back_with_its_shard() {
    let drive = MemoryDrive::new(3);
    for (n, bytes) in [(1, 100), (2, 5_000)] {
        assert_eq!(ask(&drive, "k", put("k", n, bytes)).await.unwrap(), Verdict::Ok);
        let read = drive.read_shard(Uuid::from_u128(n.into()), 10..20).await.unwrap();
        assert_eq!(read, vec![n as u8; 10]);
        assert!(drive.corrupt_shard(Uuid::from_u128(n.into())));
        assert_ne!(drive.read_shard(Uuid::from_u128(n.into()), 0..bytes as u64).await.unwrap(), vec![n as u8; bytes]);
    }
    assert_eq!(drive.read_key(BUCKET, "k").await.unwrap().records.len(), 2);
    assert_eq!(*drive.head().borrow(), 2);
}

#[tokio::test]
async fn every_prefix_of_the_writes_recovers_to_what_was_acked() {
    for seed in 0..4 {
        let disk = MemoryDisk::recording();
        MemoryDrive::format(&disk, 0);
        let drive = MemoryDrive::open(disk).unwrap();
        // After each answer: how many steps the disk had seen, and what must be there from then on.
        let mut acked = vec![(drive.disk().steps().len(), all(&drive).await)];
        for (key, op) in workload(seed, 25) {
            // An ack flag may follow its answer by 100 ms; asked for by an insert it may not.
            if !matches!(op, Op::Ack { .. } | Op::Settle { .. }) {
                ask(&drive, &key, op).await.unwrap();
                acked.push((drive.disk().steps().len(), all(&drive).await));
            }
        }
        let steps = drive.disk().steps();
        for cut in acked[0].0..=steps.len() {
            let answered = acked.iter().rposition(|(len, _)| *len <= cut).unwrap();
            let torn = [512, 4096]
                .into_iter()
                .flat_map(|sector_bytes| (0..4).map(move |seed| Loss::Torn { sector_bytes, seed }));
            for loss in [Loss::All, Loss::None].into_iter().chain(torn) {
                let opened = MemoryDrive::open(MemoryDisk::after(&steps[..cut], loss));
                let again = opened.unwrap_or_else(|e| panic!("seed {seed} cut {cut} {loss:?}: {e:?}"));
                let found = all(&again).await;
                // The next change was on its way: all of it is there or nothing.
                let next = acked[answered..].iter().map(|(_, state)| state).find(|state| **state != acked[answered].1);
                assert!(
                    found == acked[answered].1 || Some(&found) == next,
                    "seed {seed} cut {cut} of {} {loss:?}",
                    steps.len()
                );
            }
        }
    }
}

#[tokio::test]
async fn acks_on_their_way_lose_only_the_flag() {
    let disk = MemoryDisk::recording();
    MemoryDrive::format(&disk, 0);
    let drive = MemoryDrive::open(disk).unwrap();
    let first = drive.disk().steps().len();
    for n in 1..=8 {
        ask(&drive, "k", put("k", n, 100)).await.unwrap();
        ask(&drive, "k", Op::Ack { version: id(n.into()), ballot: at(n) }).await.unwrap();
    }
    let steps = drive.disk().steps();
    for cut in first..=steps.len() {
        for seed in 0..8 {
            let after = MemoryDisk::after(&steps[..cut], Loss::Torn { sector_bytes: 512, seed });
            MemoryDrive::open(after).unwrap_or_else(|e| panic!("cut {cut} seed {seed}: {e:?}"));
        }
    }
    let again = drive.crash();
    assert_eq!(again.read_key(BUCKET, "k").await.unwrap().records.len(), 8);
}

#[tokio::test]
async fn index_equals_replay_of_the_log() {
    for seed in 100..140 {
        let drive = MemoryDrive::new(0);
        // Asked all at once, so that many share a batch.
        let asked = workload(seed, 60).into_iter().map(|(key, op)| {
            let drive = &drive;
            async move { ask(drive, &key, op).await.unwrap() }
        });
        futures::future::join_all(asked).await;
        drive.close().await;
        let again = MemoryDrive::open(drive.disk().power_cut(Loss::All)).unwrap();
        assert_eq!(again.rows(), drive.rows(), "seed {seed}");
    }
}

#[tokio::test]
async fn each_version_has_one_feed_entry_that_only_news_moves() {
    let drive = MemoryDrive::new(0);
    ask(&drive, "k", put("k", 1, 0)).await.unwrap();
    ask(&drive, "k", put("k", 2, 0)).await.unwrap();
    ask(&drive, "k", Op::Ack { version: id(1), ballot: at(1) }).await.unwrap();
    assert_eq!(lsns(&drive.tail(BUCKET, 0, 10).await.unwrap()), [(1, id(1)), (2, id(2))]);
    ask(&drive, "k", tags("k", 1, 9, "x")).await.unwrap();
    ask(&drive, "k", tags("k", 1, 9, "x")).await.unwrap();
    let moved = drive.tail(BUCKET, 0, 10).await.unwrap();
    assert!(moved[1].record.acked);
    assert_eq!(lsns(&moved), [(2, id(2)), (4, id(1))]);
    assert_eq!(lsns(&drive.tail(BUCKET, 2, 10).await.unwrap()), [(4, id(1))]);
    assert_eq!(lsns(&drive.tail(BUCKET, 0, 1).await.unwrap()), [(2, id(2))]);
}

#[tokio::test]
async fn an_aborted_version_leaves_the_feed_and_the_rest_is_still_paged() {
    let drive = MemoryDrive::new(0);
    for n in 1..=4 {
        ask(&drive, "k", put("k", n, 0)).await.unwrap();
    }
    for n in [1, 2] {
        ask(&drive, "k", Op::Abort { version: id(n.into()), ballot: at(n) }).await.unwrap();
    }
    assert_eq!(lsns(&drive.tail(BUCKET, 0, 1).await.unwrap()), [(3, id(3))]);
    assert_eq!(lsns(&drive.tail(BUCKET, 0, 9).await.unwrap()), [(3, id(3)), (4, id(4))]);
}

#[tokio::test]
async fn keys_with_zero_bytes_and_prefixes_scan_in_order() {
    let drive = MemoryDrive::new(0);
    let keys = ["a", "a\0", "a\0b", "a\u{1}", "ab", "b"];
    for (n, key) in (1..).zip(keys.iter().rev()) {
        ask(&drive, key, put(key, n, 0)).await.unwrap();
    }
    let names = |found: Vec<(String, KeyView)>| found.into_iter().map(|(k, _)| k).collect::<Vec<_>>();
    assert_eq!(names(drive.scan(BUCKET, "", None, 100).await.unwrap()), keys);
    assert_eq!(names(drive.scan(BUCKET, "a\0", None, 100).await.unwrap()), ["a\0", "a\0b"]);
    assert_eq!(names(drive.scan(BUCKET, "a", Some("a\0b"), 2).await.unwrap()), ["a\u{1}", "ab"]);
    assert_eq!(names(drive.scan(BUCKET, "", Some("aa"), 1).await.unwrap()), ["ab"]);
}

#[tokio::test]
async fn a_promise_outlives_the_power() {
    let drive = MemoryDrive::new(0);
    assert_eq!(ask(&drive, "k", Op::Fence { version: id(7), ballot: at(500) }).await.unwrap(), Verdict::Denied);
    let again = drive.crash();
    assert!(again.ceiling() >= at(500));
    assert!(matches!(ask(&again, "k", put("k", 500, 0)).await.unwrap(), Verdict::Stale { .. }));
    assert!(ask(&drive, "k", Op::Read).await.is_err(), "the old one is gone");
}

#[tokio::test]
async fn a_clean_stop_keeps_the_exact_ceiling() {
    let drive = MemoryDrive::new(0);
    ask(&drive, "k", put("k", 500, 0)).await.unwrap();
    drive.close().await;
    let again = MemoryDrive::open(drive.disk().power_cut(Loss::All)).unwrap();
    assert_eq!(again.ceiling(), at(500));
}

#[tokio::test]
async fn a_newer_epoch_is_adopted_for_good() {
    let drive = MemoryDrive::new(0);
    assert_eq!(drive.call(request(5, "k", Op::Read)).await.unwrap().epoch, 5);
    let again = drive.crash();
    assert_eq!(ask(&again, "k", put("k", 90_000, 0)).await.unwrap(), Verdict::Epoch { current: 5 });
}

#[tokio::test]
async fn a_flip_amid_synced_records_is_a_fault_and_not_a_torn_tail() {
    let drive = MemoryDrive::new(0);
    for n in 1..=5 {
        ask(&drive, "k", put("k", n, 100)).await.unwrap();
    }
    drive.disk().flip("log/00000001.seg", 512 + 40);
    let opened = MemoryDrive::open(drive.disk().power_cut(Loss::All));
    assert!(matches!(opened.map(drop), Err(OpenError::Log { .. })));
}

#[tokio::test]
async fn a_ghost_of_a_torn_batch_never_continues_the_log() {
    let disk = MemoryDisk::recording();
    MemoryDrive::format(&disk, 0);
    let drive = MemoryDrive::open(disk).unwrap();
    // The first one's sync is slow, so the others share the next batch.
    drive.disk().set_delay(std::time::Duration::from_millis(20));
    let asked = (10_001..10_006).map(|n| ask(&drive, "k", put("k", n, 700)));
    futures::future::join_all(asked).await;
    let steps = drive.disk().steps();
    let is_batch = |step: &Step| matches!(step, Step::Write { bytes, .. } if bytes.len() > 3_000);
    let torn = steps.iter().rposition(is_batch).expect("several shared a batch");
    for seed in 0..64 {
        let cut = Loss::Torn { sector_bytes: 512, seed };
        let again = MemoryDrive::open(MemoryDisk::after(&steps[..=torn], cut)).unwrap();
        let before = again.read_key(BUCKET, "k").await.unwrap().records.len();
        // As long as the one whose place it takes.
        assert_eq!(ask(&again, "k", put("k", 30_000, 700)).await.unwrap(), Verdict::Ok);
        let last = again.crash().read_key(BUCKET, "k").await.unwrap().records;
        assert_eq!(last.len(), before + 1, "seed {seed}");
    }
}

#[tokio::test]
async fn a_failed_sync_ends_the_drive_and_a_full_disk_does_not() {
    let drive = MemoryDrive::new(0);
    ask(&drive, "k", put("k", 1, 100)).await.unwrap();
    drive.disk().set_free(Some(1 << 20));
    assert!(matches!(ask(&drive, "k", put("k", 2, 100)).await, Err(Error::Full { .. })));
    assert_eq!(ask(&drive, "k", purge("k", 1, 3)).await.unwrap(), Verdict::Ok, "a delete fits into the reserve");
    drive.disk().set_free(None);
    assert_eq!(ask(&drive, "k", put("k", 4, 100)).await.unwrap(), Verdict::Ok);
    drive.disk().set_fault(Some(std::io::ErrorKind::Other));
    assert!(matches!(ask(&drive, "k", put("k", 5, 100)).await, Err(Error::Offline { .. })));
    drive.disk().set_fault(None);
    assert!(matches!(ask(&drive, "k", put("k", 6, 100)).await, Err(Error::Offline { .. })), "it is never tried again");
    assert!(matches!(drive.read_key(BUCKET, "k").await, Err(Error::Offline { .. })));
}

#[tokio::test]
async fn large_shards_survive_when_named_and_vanish_when_not() {
    let root = tempfile::tempdir().unwrap();
    let dirs = [root.path().join("d1")];
    let (drives, parity) = open_store(&dirs, None).unwrap();
    assert_eq!(parity, 0);
    let bytes = Bytes::from((0..600_000u32).map(|i| i as u8).collect::<Vec<_>>());
    for n in [1, 2] {
        let mut sink = drives[0].create_shard(Uuid::from_u128(n)).await.unwrap();
        sink.write(bytes.clone()).await.unwrap();
        sink.seal().await.unwrap();
    }
    let mut dropped = drives[0].create_shard(Uuid::from_u128(3)).await.unwrap();
    dropped.write(bytes.clone()).await.unwrap();
    drop(dropped);
    assert_eq!(count_files(&dirs[0].join("data")), 2);
    let mut record = Record::new(BUCKET, version("k", 1, at(1)), at(1));
    record.blobs.push(blob(1));
    ask(&*drives[0], "k", Op::Accept { record: record.into(), shards: Vec::new() }).await.unwrap();
    drives[0].close().await;
    drop(drives);
    let (drives, _) = open_store(&dirs, None).unwrap();
    assert_eq!(drives[0].read_shard(Uuid::from_u128(1), 0..600_000).await.unwrap(), bytes);
    assert_eq!(drives[0].read_shard(Uuid::from_u128(1), 5..9).await.unwrap(), bytes.slice(5..9));
    assert!(matches!(drives[0].read_shard(Uuid::from_u128(2), 0..1).await, Err(Error::NoShard { .. })));
    assert_eq!(count_files(&dirs[0].join("data")), 1, "orphans are deleted at open");
}

fn count_files(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.map(|p| if p.is_dir() { count_files(&p) } else { 1 }).sum()
}

#[tokio::test]
async fn a_deleted_index_is_rebuilt_from_the_log() {
    let root = tempfile::tempdir().unwrap();
    let dirs = [root.path().join("d1"), root.path().join("d2")];
    let (drives, parity) = open_store(&dirs, None).unwrap();
    assert_eq!(parity, 1);
    for (key, op) in workload(5, 80) {
        ask(&*drives[1], &key, op).await.unwrap();
    }
    let before = shown(&drives[1]).await;
    close(drives).await;
    for _ in 0..2 {
        let (drives, _) = open_store(&dirs, Some(1)).unwrap();
        assert_eq!(shown(&drives[1]).await, before);
        close(drives).await;
        std::fs::remove_dir_all(dirs[1].join("index")).unwrap();
    }
    std::fs::create_dir(dirs[1].join("index")).unwrap();
    std::fs::write(dirs[1].join("index/version"), b"nonsense").unwrap();
    let (drives, _) = open_store(&dirs, None).unwrap();
    assert_eq!(shown(&drives[1]).await, before, "one that does not open is made again");
}

#[tokio::test]
async fn layers_in_files_and_rows_replayed_make_the_index_of_the_whole_log() {
    let root = tempfile::tempdir().unwrap();
    let dirs = [root.path().join("d1")];
    let (drives, _) = open_store(&dirs, None).unwrap();
    // Long keys, so that few changes fill several layers. One key grows all the while; others are tagged
    // or flagged acked a round later, when their rows may stand in files already.
    let key = |n: u64| format!("{n:05}{}", "k".repeat(900));
    for round in 0..8 {
        let asked = (1..=500).map(|i| {
            let n = round * 500 + i;
            let (key, op) = match i % 5 {
                // They may arrive in any order, which an insert does not mind.
                0 => (key(7), insert(&key(7), n)),
                1 if round > 0 => (key(n - 498), tags(&key(n - 498), n - 498, n, "v")),
                2 if round > 0 => (key(n - 498), Op::Ack { version: id((n - 498).into()), ballot: at(n - 498) }),
                _ => (key(n), put(&key(n), n, 20)),
            };
            let drive = &drives[0];
            async move { ask(&**drive, &key, op).await.unwrap() }
        });
        futures::future::join_all(asked).await;
    }
    let before = shown(&drives[0]).await;
    assert!(before.0.len() > 1_500 && before.0.iter().any(|(_, view)| view.records.len() > 700));
    for (_, record) in &before.1 {
        let (_, view) = before.0.iter().find(|(key, _)| key == record.key()).unwrap();
        assert_eq!(view.held(record.id(), record.ballot), Some(&**record), "the feed shows what the key holds");
    }
    close(drives).await;
    assert!(bytes_in(&dirs[0].join("index")) > 4 << 20, "layers were written");
    for _ in 0..2 {
        let (drives, _) = open_store(&dirs, None).unwrap();
        assert!(shown(&drives[0]).await == before);
        assert_eq!(drives[0].read_shard(Uuid::from_u128(3), 0..20).await.unwrap(), vec![3; 20]);
        close(drives).await;
        std::fs::remove_dir_all(dirs[0].join("index")).unwrap();
    }
}

fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    entries.map(|e| if e.path().is_dir() { bytes_in(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}

type Shown = (Vec<(String, KeyView)>, Vec<(u64, Coded)>);

async fn shown(drive: &Arc<dyn Drive>) -> Shown {
    let feed = drive.tail(BUCKET, 0, 1_000).await.unwrap();
    (all(&**drive).await, feed.into_iter().map(|l| (l.lsn, l.record)).collect())
}

async fn close(drives: Vec<Arc<dyn Drive>>) {
    for drive in drives {
        drive.close().await;
    }
}

#[tokio::test]
async fn wrong_directories_are_refused_with_a_reason() {
    let root = tempfile::tempdir().unwrap();
    let dir = |name: &str| root.path().join(name);
    let (one, two) = ([dir("a1"), dir("a2")], [dir("b1"), dir("b2")]);
    let (open, _) = open_store(&one, None).unwrap();
    assert!(matches!(open_store(&one, None).map(drop), Err(OpenError::Busy { .. })));
    close(open).await;
    close(open_store(&two, None).unwrap().0).await;
    let refused = |dirs: &[PathBuf], parity| open_store(dirs, parity).map(drop).unwrap_err();
    assert!(matches!(refused(&[dir("a2"), dir("a1")], None), OpenError::WrongSlot { found: 1, given: 0, .. }));
    assert!(matches!(refused(&[dir("a1"), dir("b2")], None), OpenError::OtherStore { .. }));
    assert!(matches!(refused(&[dir("a1")], None), OpenError::OtherLayout { .. }));
    assert!(matches!(refused(&one, Some(0)), OpenError::OtherLayout { .. }));
    assert!(matches!(refused(&one, Some(2)), OpenError::Layout(_)));
    assert!(matches!(refused(&[], None), OpenError::Layout(_)));
    let mixed = refused(&[dir("a1"), dir("new")], None).to_string();
    assert!(mixed.contains("a1 is formatted already but") && mixed.contains("new is empty"), "{mixed}");
    std::fs::create_dir(dir("c")).unwrap();
    std::fs::write(dir("c").join("photo.jpg"), b"mine").unwrap();
    assert!(matches!(refused(&[dir("c")], None), OpenError::NotEmpty { .. }));
    assert_eq!(open_store(&one, None).unwrap().1, 1, "a refusal leaves nothing behind");
}

/// The bytes of log records; a file is added with a new kind, never changed.
#[test]
fn log_records_have_the_bytes_they_always_had() {
    let mut record = Record::new(BUCKET, version("k", 1, at(1)), at(1));
    record.blobs.push(blob(9));
    let shards = vec![(Uuid::from_u128(9), Bytes::from_static(b"shard"))];
    let purged = Version { purges: stamp(2).into(), ..Version::blank("k", id(1)) };
    let effects = [
        Effect::Put { record: record.into(), shards },
        Effect::Ack { version: id(1), ballot: at(1) },
        Effect::Abort { version: id(2), ballot: at(3) },
        Effect::Join { record: Record::new(BUCKET, purged, Hlc::ZERO).into() },
    ];
    let incarnation = Uuid::from_u128(0x15);
    let mut bytes = segment::segment_header(incarnation, 41);
    for (lsn, effect) in (41..).zip(effects) {
        let entry = Entry { bucket: BUCKET, key: "k".into(), effect };
        let start = bytes.len();
        segment::encode(&mut bytes, incarnation, lsn, 0, &entry);
        let header = segment::Header::read(&bytes[start..]).unwrap();
        assert!(header.holds(&bytes[start..], incarnation) && !header.holds(&bytes[start..], Uuid::nil()));
        let (read, _) = segment::decode(header.kind, &bytes[start + segment::HEADER..]).unwrap();
        assert_eq!(format!("{read:?}"), format!("{entry:?}"));
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/log-v1.bin");
    assert_eq!(std::fs::read(golden).unwrap(), bytes);
}

#[tokio::test]
async fn no_put_is_answered_before_its_sync() {
    let disk = MemoryDisk::recording();
    MemoryDrive::format(&disk, 0);
    let drive = MemoryDrive::open(disk).unwrap();
    for n in 1..=10 {
        ask(&drive, "k", put("k", n, 50)).await.unwrap();
        assert!(matches!(drive.disk().steps().last(), Some(Step::Sync { name }) if name.starts_with("log/")));
    }
}
