//! The change feed over whole drives in memory: nothing acked is skipped, whatever happens to readers,
//! writers and drives in between.
use bytes::Bytes;
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::{Clock, SystemClock};
use storage_engine::drive::Drive;
use storage_engine::drive::memory::MemoryDrive;
use storage_engine::feed::{Batch, Cursor, Interest};
use storage_engine::object::{Body, Conditions, Error, Objects, Put, Versioning};
use storage_engine::quorum::participant::{Op, Request, Verdict};
use storage_engine::record::{Blob, Record};
use storage_engine::version::{Hlc, Origin, Stamp, Version, VersionId};
use storage_engine::wire::Fields;

/// Longest wait for something that must happen.
const DEADLINE: Duration = Duration::from_secs(20);

type Change = (String, VersionId);

struct Store {
    drives: Vec<Arc<MemoryDrive>>,
    objects: Objects,
}

/// Eight drives, 4+4, and a bucket with versioning.
async fn store() -> Store {
    let drives: Vec<_> = (0..8).map(|slot| Arc::new(MemoryDrive::new(slot))).collect();
    let objects = start(&drives);
    objects.create_bucket("bucket", Versioning::Enabled).await.unwrap();
    Store { drives, objects }
}

fn start(drives: &[Arc<MemoryDrive>]) -> Objects {
    let drives = drives.iter().map(|d| d.clone() as Arc<dyn Drive>).collect();
    Objects::new(drives, 4, Arc::new(SystemClock), Origin::new("here"))
}

impl Store {
    /// The process dies and starts again over the same drives.
    fn restart(&mut self) {
        self.objects = start(&self.drives);
    }
    fn set_offline(&self, slots: impl IntoIterator<Item = usize>, offline: bool) {
        slots.into_iter().for_each(|slot| self.drives[slot].set_offline(offline));
    }
}

fn body(text: &str) -> Body {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    futures::stream::once(async move { Ok(bytes) }).boxed()
}

async fn put(objects: &Objects, key: &str) -> Change {
    let written = objects.put("bucket", key, Put::default(), body("some bytes")).await.unwrap();
    (key.to_owned(), written.version.id)
}

/// The next changes; a batch that only tells the place is read on from.
async fn next(objects: &Objects, cursor: Option<&Cursor>, limit: usize) -> Result<Batch, Error> {
    let mut cursor = cursor.cloned();
    loop {
        let reading = objects.changes("bucket", cursor.as_ref(), limit);
        match tokio::time::timeout(DEADLINE, reading).await.expect("a change within the deadline") {
            Ok(batch) if batch.events.is_empty() => cursor = Some(batch.cursor),
            other => return other,
        }
    }
}

/// Reads on until all of `wanted` was seen; returns how often each change was.
async fn read_until(
    objects: &Objects,
    cursor: &mut Option<Cursor>,
    wanted: &BTreeSet<Change>,
    limit: usize,
) -> BTreeMap<Change, u32> {
    let mut seen = BTreeMap::new();
    while wanted.iter().any(|w| !seen.contains_key(w)) {
        let batch = next(objects, cursor.as_ref(), limit).await.unwrap();
        assert!(batch.events.len() <= limit);
        assert!(batch.events.is_sorted_by_key(|e| e.version.max_hlc()));
        for event in batch.events {
            *seen.entry((event.version.key, event.version.id)).or_default() += 1;
        }
        *cursor = Some(batch.cursor);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acked_change_is_seen_with_writers_beside_restarts_and_drives_away() {
    let mut store = store().await;
    let (mut wanted, mut seen, mut cursor) = (BTreeSet::new(), BTreeSet::new(), None);
    for round in 0..6usize {
        let away = [round % 8, (round * 3 + 1) % 8];
        store.set_offline(away, true);
        let writers = (0..4).map(|writer| {
            let objects = store.objects.clone();
            tokio::spawn(async move {
                let mut acked = Vec::new();
                for n in 0..12 {
                    acked.push(put(&objects, &format!("{}/{n}", (writer + n) % 5)).await);
                }
                acked
            })
        });
        let writers: Vec<_> = writers.collect();
        // Reads beside the writers, and commits what it read.
        for _ in 0..5 {
            let batch = next(&store.objects, cursor.as_ref(), 7).await.unwrap();
            seen.extend(batch.events.into_iter().map(|e| (e.version.key, e.version.id)));
            cursor = Some(batch.cursor);
        }
        for writer in writers {
            wanted.extend(writer.await.unwrap());
        }
        store.set_offline(away, false);
        if round % 2 == 1 {
            store.drives[round] = Arc::new(store.drives[round].crash());
            store.restart();
        }
    }
    let missing = wanted.difference(&seen).cloned().collect();
    read_until(&store.objects, &mut cursor, &missing, 7).await;
}

#[tokio::test]
async fn a_reader_that_keeps_up_sees_each_change_once() {
    let store = store().await;
    let mut cursor = None;
    for n in 0..60 {
        let change = put(&store.objects, &format!("key-{n}")).await;
        let seen = read_until(&store.objects, &mut cursor, &[change.clone()].into(), 100).await;
        assert_eq!(seen, [(change, 1)].into());
    }
}

#[tokio::test]
async fn what_is_read_before_the_head_tells_of_it_is_no_log_set_back() {
    let mut store = store().await;
    let mut cursor = None;
    let first = put(&store.objects, "a").await;
    read_until(&store.objects, &mut cursor, &BTreeSet::from([first.clone()]), 10).await;
    store.drives[..4].iter().for_each(|drive| drive.hold_head(true));
    let second = put(&store.objects, "b").await;
    read_until(&store.objects, &mut cursor, &BTreeSet::from([second]), 10).await;
    // Without the memory of what was shown only the cursor says where the reader stands.
    store.restart();
    let third = put(&store.objects, "c").await;
    let seen = read_until(&store.objects, &mut cursor, &BTreeSet::from([third]), 10).await;
    assert!(!seen.contains_key(&first), "the logs were read from their beginning");
}

#[tokio::test]
async fn a_waiting_reader_is_woken_by_the_next_change() {
    let store = store().await;
    let mut cursor = None;
    let first = put(&store.objects, "first").await;
    read_until(&store.objects, &mut cursor, &[first].into(), 10).await;
    let objects = store.objects.clone();
    let waiting = tokio::spawn(async move { next(&objects, cursor.as_ref(), 10).await.unwrap() });
    tokio::task::yield_now().await;
    let second = put(&store.objects, "second").await;
    let woken = waiting.await.unwrap();
    assert_eq!((woken.events[0].version.key.clone(), woken.events[0].version.id), second);
}

#[tokio::test]
async fn too_few_drives_stall_the_feed_and_lose_nothing() {
    let store = store().await;
    let change = put(&store.objects, "key").await;
    store.set_offline(0..5, true);
    let bucket_is_known = store.objects.bucket("bucket").await;
    let stalled = next(&store.objects, None, 10).await.map(|b| b.events.len());
    assert!(matches!(stalled, Err(Error::Unavailable(_))), "{stalled:?} {bucket_is_known:?}");
    store.set_offline(0..5, false);
    read_until(&store.objects, &mut None, &[change].into(), 10).await;
}

/// An attempt as a writer that died left it on the first drives.
async fn leave(store: &Store, key: &str, drives: usize) -> Change {
    let bucket = store.objects.bucket("bucket").await.unwrap().id;
    let hlc = Hlc::from_millis(SystemClock.now_millis());
    let id = VersionId::from_bytes([drives as u8 + 1; 16]);
    let origin = Origin::new("here");
    let mut version = Version::blank(key, id);
    version.birth = next(&store.objects, None, 1).await.unwrap().events[0].version.birth.clone();
    version.birth.as_mut().unwrap().order = storage_engine::version::Order { hlc, origin, version_id: id };
    let mut record = Record::new(bucket, version, hlc);
    // With bytes: fewer than k holders cannot be completed by anybody, so the attempt comes to nothing.
    let id_of_blob = storage_engine::entropy::id();
    record.blobs = vec![Blob {
        id: id_of_blob,
        size_bytes: 10,
        k: 4,
        m: 4,
        first: 0,
        stripe_bytes: 1 << 20,
        unknown: Fields::default(),
    }];
    for drive in &store.drives[..drives] {
        let op = Op::Accept { record: record.clone().into(), shards: Vec::new() };
        let reply = drive.call(Request { epoch: 1, bucket, key: key.into(), op }).await.unwrap();
        assert_eq!(reply.verdict, Verdict::Ok);
    }
    (key.to_owned(), id)
}

#[tokio::test]
async fn an_unfinished_write_is_decided_before_it_is_shown() {
    let store = store().await;
    let before = put(&store.objects, "a").await;
    let aborted = leave(&store, "left-on-one-drive", 1).await;
    let committed = leave(&store, "left-on-five-drives", 5).await;
    let after = put(&store.objects, "z").await;
    let mut cursor = None;
    let seen = read_until(&store.objects, &mut cursor, &[before, committed, after].into(), 10).await;
    assert!(!seen.contains_key(&aborted), "{seen:?}");
    // Once it had its time it is decided, and its place is passed: nothing is left behind it.
    let passed = async {
        for n in 0.. {
            let later = put(&store.objects, &format!("zz-{n}")).await;
            let seen = read_until(&store.objects, &mut cursor, &[later].into(), 10).await;
            assert!(!seen.contains_key(&aborted), "{seen:?}");
            if store.objects.backlog("bucket", cursor.as_ref(), &Interest::default()).await.unwrap().versions == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(DEADLINE, passed).await.expect("the feed gets past it");
}

/// Readers share what the store remembers of places where a change was shown. A place that one of them passed
/// without showing what stands there would hide it from that reader for ever.
#[tokio::test]
async fn a_change_that_one_drive_has_early_is_passed_by_no_reader() {
    for slot in 0..8 {
        let store = store().await;
        let before = put(&store.objects, "before").await;
        let bucket = store.objects.bucket("bucket").await.unwrap().id;
        let hlc = Hlc::from_millis(SystemClock.now_millis() - 1_000);
        let late = ("late".to_owned(), VersionId::from_bytes([9; 16]));
        let mut version = Version::blank("late", late.1);
        version.birth = next(&store.objects, None, 1).await.unwrap().events[0].version.birth.clone();
        let birth = version.birth.as_mut().unwrap();
        birth.order = storage_engine::version::Order { hlc, origin: Origin::new("here"), version_id: late.1 };
        let record = Record::new(bucket, version, hlc);
        let accept = async |drive: &MemoryDrive| {
            let op = Op::Accept { record: record.clone().into(), shards: Vec::new() };
            drive.call(Request { epoch: 1, bucket, key: "late".into(), op }).await.unwrap()
        };
        accept(&store.drives[slot]).await;
        let (mut one, mut other) = (None, None);
        let mut seen = read_until(&store.objects, &mut one, &[before].into(), 10).await;
        // The other drives were slow and take it now.
        for drive in &store.drives {
            accept(drive).await;
        }
        read_until(&store.objects, &mut other, &[late.clone()].into(), 10).await;
        while !seen.contains_key(&late) {
            seen.extend(read_until(&store.objects, &mut one, &[late.clone()].into(), 10).await);
        }
    }
}

#[tokio::test]
async fn a_purge_and_a_delete_marker_are_changes_too() {
    let store = store().await;
    let (key, id) = put(&store.objects, "key").await;
    let mut cursor = None;
    read_until(&store.objects, &mut cursor, &[(key.clone(), id)].into(), 10).await;
    let marker =
        store.objects.delete("bucket", "key", None, Conditions::default(), false).await.unwrap().version_id.unwrap();
    read_until(&store.objects, &mut cursor, &[(key.clone(), marker)].into(), 10).await;
    store.objects.delete("bucket", "key", Some(id), Conditions::default(), false).await.unwrap();
    let purged = next(&store.objects, cursor.as_ref(), 10).await.unwrap();
    let event = purged.events.iter().find(|e| e.version.id == id).unwrap();
    assert!(matches!(event.version.purged(), Some(Stamp { .. })));
}

#[tokio::test]
async fn a_consumer_finds_its_cursor_after_a_restart_and_keeps_versioning_on() {
    let mut store = store().await;
    assert_eq!(store.objects.register("bucket", "peer-1", true).await.unwrap(), None);
    put(&store.objects, "key").await;
    let batch = next(&store.objects, None, 10).await.unwrap();
    store.objects.commit("bucket", "peer-1", &batch.cursor, &batch.cursor).await.unwrap();
    store.restart();
    assert_eq!(store.objects.register("bucket", "peer-1", true).await.unwrap(), Some(batch.cursor.clone()));
    let suspended = store.objects.set_versioning("bucket", Versioning::Suspended).await;
    assert!(matches!(suspended, Err(Error::Conflict(_))), "{suspended:?}");
    store.objects.deregister("bucket", "peer-1").await.unwrap();
    store.objects.set_versioning("bucket", Versioning::Suspended).await.unwrap();
    let unknown = store.objects.commit("bucket", "peer-1", &batch.cursor, &batch.cursor).await;
    assert!(matches!(unknown, Err(Error::Invalid(_))), "{unknown:?}");
    assert_eq!(store.objects.register("bucket", "peer-1", false).await.unwrap(), None, "it begins anew");
}

#[tokio::test]
async fn a_cursor_of_another_store_is_expired() {
    let (ours, theirs) = (store().await, store().await);
    put(&theirs.objects, "key").await;
    put(&ours.objects, "key").await;
    let foreign = next(&theirs.objects, None, 10).await.unwrap().cursor;
    let read = next(&ours.objects, Some(&foreign), 10).await.map(|b| b.events.len());
    assert!(matches!(read, Err(Error::Expired)), "{read:?}");
    ours.objects.register("bucket", "peer", false).await.unwrap();
    let committed = ours.objects.commit("bucket", "peer", &foreign, &foreign).await;
    assert!(matches!(committed, Err(Error::Expired)), "{committed:?}");
}

#[tokio::test]
async fn the_backlog_counts_versions_once_and_ends_at_zero() {
    let store = store().await;
    let start = SystemClock.now_millis();
    let mut wanted = BTreeSet::new();
    for n in 0..20 {
        wanted.insert(put(&store.objects, &format!("{}/{n}", n % 2)).await);
    }
    let all = store.objects.backlog("bucket", None, &Interest::default()).await.unwrap();
    assert_eq!((all.versions, all.bytes), (20, 200));
    assert!(all.oldest_pending_since.is_some_and(|at| at >= start));
    assert_eq!(store.objects.backlog("bucket", None, &Interest::under("1/")).await.unwrap().versions, 10);
    let mut cursor = None;
    read_until(&store.objects, &mut cursor, &wanted, 6).await;
    // Drives that log a change after its event add nothing.
    assert_eq!(
        store.objects.backlog("bucket", cursor.as_ref(), &Interest::default()).await.unwrap(),
        Default::default()
    );
}

#[tokio::test]
async fn a_long_backlog_is_estimated_from_its_oldest_part() {
    let store = store().await;
    let start = SystemClock.now_millis();
    for n in 0..1_200 {
        put(&store.objects, &format!("{}/{n}", if n < 1_000 { "old" } else { "new" })).await;
    }
    let all = store.objects.backlog("bucket", None, &Interest::default()).await.unwrap();
    assert!((900..=1_500).contains(&all.versions) && (9_000..=15_000).contains(&all.bytes), "{all:?}");
    assert!(all.oldest_pending_since.is_some_and(|at| at >= start));
    // What a prefix has only far behind the cursor is found all the same.
    assert!(store.objects.backlog("bucket", None, &Interest::under("new/")).await.unwrap().versions > 0);
    assert_eq!(store.objects.backlog("bucket", None, &Interest::under("none/")).await.unwrap(), Default::default());
}

/// The S3 front door and the private API run these on any thread.
#[allow(dead_code)]
fn futures_may_move_between_threads(objects: &Objects, cursor: &Cursor) {
    fn is_send(_: impl Send) {}
    is_send(objects.changes("bucket", None, 1));
    is_send(objects.backlog("bucket", None, &Interest::default()));
    is_send(objects.register("bucket", "c", true));
    is_send(objects.commit("bucket", "c", cursor, cursor));
}
