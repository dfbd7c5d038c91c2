//! One suite for every store: what a replicator relies on, asked through the trait alone. The changes come
//! from a real store beside it, as they would from a peer.
mod twin;

use super::bundled::BundledStore;
use super::bundled::network::tests::Served;
use super::{Applied, Body, Cursor, Cut, Error, Interest, Store};
use bytes::Bytes;
use futures::future::join_all;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::SystemClock;
use storage_engine::drive::Drive;
use storage_engine::drive::memory::MemoryDrive;
use storage_engine::object::{Conditions, Objects, Put, Versioning};
use storage_engine::version::{Kind, Origin, Purges, Version, VersionId};

pub const BUCKET: &str = "orders";

/// Waits for a fact, with a deadline no healthy run comes near.
pub async fn within<T>(fact: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), fact).await.expect("the fact within a minute")
}

/// Four drives, 2+2, in memory.
pub fn drives() -> Vec<Arc<dyn Drive>> {
    (0..4).map(|slot| Arc::new(MemoryDrive::new(slot)) as Arc<dyn Drive>).collect()
}

/// A store of the engine with the bucket in it.
pub async fn objects(origin: &str) -> Objects {
    let objects = Objects::new(drives(), 2, Arc::new(SystemClock), Origin::new(origin));
    objects.create_bucket(BUCKET, Versioning::Enabled).await.unwrap();
    objects
}

pub fn body(bytes: &[u8]) -> Body {
    let chunks: Vec<_> = bytes.chunks(100_000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    stream::iter(chunks).boxed()
}

async fn read(store: &dyn Store, version: &Version) -> Vec<u8> {
    let body = store.read_version(BUCKET, &version.key, version.id).await.unwrap();
    body.try_collect::<Vec<_>>().await.unwrap().concat()
}

fn has_bytes(version: &Version) -> bool {
    version.is_live() && version.birth.as_ref().is_some_and(|b| b.kind == Kind::Object && b.size_bytes > 0)
}

/// What a peer's store holds, as far as it is told by its feed.
async fn all_changes(store: &dyn Store) -> Vec<Version> {
    let (mut cursor, mut last) = (None, BTreeMap::new());
    while store.backlog(BUCKET, cursor.as_ref(), &Interest::default()).await.unwrap().versions > 0 {
        let batch = within(store.changes(BUCKET, cursor.as_ref(), 3)).await.unwrap();
        last.extend(batch.events.into_iter().map(|e| ((e.version.key.clone(), e.version.id), e.version)));
        cursor = Some(batch.cursor);
    }
    last.into_values().collect()
}

async fn give(to: &dyn Store, from: &dyn Store, version: &Version) -> Result<Applied, Error> {
    let body = match has_bytes(version) {
        true => Some(from.read_version(BUCKET, &version.key, version.id).await.unwrap()),
        false => None,
    };
    to.apply_version(BUCKET, version.clone(), body, None).await
}

/// A peer with objects of all sizes, an overwrite, a marker, tags and a purge.
async fn peer() -> BundledStore {
    let objects = objects("elsewhere").await;
    for (key, bytes) in [("empty", 0), ("small", 10), ("../odd\u{1}key", 70_000), ("large", 3 << 20), ("small", 11)] {
        objects.put(BUCKET, key, Put::default(), body(&vec![7; bytes])).await.unwrap();
    }
    objects.set_tags(BUCKET, "large", None, BTreeMap::from([("a".into(), "b".into())])).await.unwrap();
    objects.delete(BUCKET, "empty", None, Conditions::default(), false).await.unwrap();
    let gone = objects.put(BUCKET, "gone", Put::default(), body(b"gone")).await.unwrap();
    objects.delete(BUCKET, "gone", Some(gone.version.id), Conditions::default(), false).await.unwrap();
    BundledStore(objects)
}

/// Everything of the suite; `expires`: a cursor of another store is known as one.
async fn suite(store: Arc<dyn Store>, expires: bool) {
    what_a_peer_holds_is_held_after_it_was_given(&*store).await;
    a_change_ends_the_wait_for_it(&store).await;
    many_at_once_arrive_whole(&*store).await;
    a_version_comes_in_pieces_and_some_of_its_bytes_are_read(&*store).await;
    a_backlog_is_of_what_somebody_is_after(&*store).await;
    a_bucket_of_a_drill_is_made_written_and_removed_and_no_other(&*store).await;
    a_body_that_breaks_leaves_nothing(&*store).await;
    consumers_keep_their_cursor(&*store).await;
    errors_say_what_they_are(&*store, expires).await;
}

async fn what_a_peer_holds_is_held_after_it_was_given(store: &dyn Store) {
    let peer = peer().await;
    let changes = all_changes(&peer).await;
    assert_eq!(changes.len(), 7, "six births and one that was purged");
    for version in changes.iter().rev() {
        if has_bytes(version) {
            let without = store.apply_version(BUCKET, version.clone(), None, None).await.unwrap();
            assert_eq!(without, Applied::NeedsBody);
        }
        assert_eq!(give(store, &peer, version).await.unwrap(), Applied::Applied, "{}", version.key);
        let again = give(store, &peer, version).await.unwrap();
        let held = store.stat(BUCKET, &version.key, version.id).await.unwrap().unwrap();
        if version.purged().is_some() {
            assert_eq!(held.purges, version.purges, "what it was before may be forgotten");
            continue;
        }
        assert_eq!(again, Applied::AlreadyPresent, "{}", version.key);
        assert_eq!(held.state_hash(), version.state_hash(), "{}", version.key);
        if has_bytes(version) {
            assert!(read(store, version).await == read(&peer, version).await, "{}", version.key);
        }
    }
    let purged = changes.iter().find(|v| v.purged().is_some()).unwrap();
    let unpurged = Version { purges: Purges::default(), tags: None, ..purged.clone() };
    assert_eq!(store.apply_version(BUCKET, unpurged, None, None).await.unwrap(), Applied::Superseded);

    let states = |versions: Vec<Version>| -> BTreeSet<_> {
        versions.iter().map(|v| (v.key.clone(), v.purged().is_none().then(|| v.state_hash()))).collect()
    };
    assert_eq!(states(all_changes(store).await), states(changes));
    let mut listed = Vec::new();
    while let page = store.list_versions(BUCKET, listed.last().cloned(), 2).await.unwrap()
        && !page.is_empty()
    {
        assert!(page.len() <= 2);
        listed.extend(page.into_iter().map(|v| (v.key, v.id)));
    }
    let shown = peer.list_versions(BUCKET, None, 100).await.unwrap();
    assert_eq!(listed, shown.into_iter().map(|v| (v.key, v.id)).collect::<Vec<_>>());
    // Tombstones and all, whole keys, no key twice.
    let (mut stretched, mut after) = (Vec::new(), None);
    loop {
        let stretch = store.stretch(BUCKET, "", after.as_deref(), 2).await.unwrap();
        assert!(stretch.versions.iter().all(|v| after.as_deref().is_none_or(|after| v.key.as_str() > after)));
        stretched.extend(stretch.versions);
        let Some(through) = stretch.through else { break };
        assert!(after.as_ref().is_none_or(|after| *after < through), "a stretch goes on");
        after = Some(through);
    }
    assert_eq!(stretched.len(), 7);
    assert_eq!(states(stretched), states(all_changes(&peer).await));
    let one = store.stretch(BUCKET, "small", None, 100).await.unwrap();
    assert!(one.through.is_none() && one.versions.iter().all(|v| v.key == "small") && one.versions.len() == 2);
    let two: Vec<_> = store.versions_of(BUCKET, "small").await.unwrap().iter().map(|v| v.birth.clone()).collect();
    assert!(two.len() == 2 && two[0].as_ref().map(|b| &b.order) > two[1].as_ref().map(|b| &b.order));
}

async fn a_change_ends_the_wait_for_it(store: &Arc<dyn Store>) {
    let peer = BundledStore(objects("another").await);
    let mut cursor = None;
    while store.backlog(BUCKET, cursor.as_ref(), &Interest::default()).await.unwrap().versions > 0 {
        cursor = Some(within(store.changes(BUCKET, cursor.as_ref(), 1000)).await.unwrap().cursor);
    }
    let head = store.head(BUCKET).await.unwrap();
    let waiting = store.changes(BUCKET, cursor.as_ref(), 10);
    tokio::pin!(waiting);
    assert!((&mut waiting).now_or_never().is_none());
    let put = Put { traceparent: Some("00-trace".into()), ..Put::default() };
    let version = peer.0.put(BUCKET, "awaited", put, body(b"now")).await.unwrap().version;
    let (batch, applied) = within(futures::future::join(waiting, give(&**store, &peer, &version))).await;
    assert_eq!(applied.unwrap(), Applied::Applied);
    let mut batch = batch.unwrap();
    while batch.events.is_empty() {
        batch = within(store.changes(BUCKET, Some(&batch.cursor), 10)).await.unwrap();
    }
    assert_eq!(batch.events[0].version, version);
    let after = within(store.changes(BUCKET, Some(&head), 1000)).await.unwrap();
    assert!(after.events.iter().any(|e| e.version == version), "what is acked after the head lies behind it");
}

async fn many_at_once_arrive_whole(store: &dyn Store) {
    let peer = BundledStore(objects("busy").await);
    let puts = (0..100).map(|i| {
        let (key, objects) = (format!("many/{i:03}"), &peer.0);
        async move { objects.put(BUCKET, &key, Put::default(), body(&vec![i as u8; i * 1000])).await.unwrap().version }
    });
    let versions = join_all(puts).await;
    let given = join_all(versions.iter().map(|v| give(store, &peer, v))).await;
    assert!(given.iter().all(|g| matches!(g, Ok(Applied::Applied))), "{given:?}");
    let bodies = within(join_all(versions.iter().map(|v| async { read_or_none(store, v).await }))).await;
    for (i, bytes) in bodies.iter().enumerate() {
        assert!(*bytes == vec![i as u8; i * 1000], "{i}");
    }
    let behind = store.backlog(BUCKET, None, &Interest::under("many/")).await.unwrap();
    assert_eq!((behind.versions, behind.bytes), (100, (0..100).map(|i| i * 1000).sum()));
}

async fn a_version_comes_in_pieces_and_some_of_its_bytes_are_read(store: &dyn Store) {
    let Some(pieces) = store.pieces() else { return };
    let peer = BundledStore(objects("large").await);
    let whole: Vec<u8> = (0..(2 << 20) + 5_000).map(|at| (at / 251 + at) as u8).collect();
    let version = peer.0.put(BUCKET, "in/pieces", Put::default(), body(&whole)).await.unwrap().version;
    let cut = Cut::new(whole.len() as u64, 1 << 20).unwrap();
    let apply = || pieces.apply_pieces(BUCKET, version.clone(), cut, None);
    assert_eq!(apply().await.unwrap(), Applied::NeedsBody);
    for number in [2, 0] {
        let range = cut.range(number).unwrap();
        let bytes = &whole[range.start as usize..range.end as usize];
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
        let lie = pieces.put_piece(BUCKET, version.id, cut, number, crc ^ 1, body(bytes)).await;
        assert!(matches!(lie, Err(Error::BadDigest(_))), "{lie:?}");
        pieces.put_piece(BUCKET, version.id, cut, number, crc, body(bytes)).await.unwrap();
    }
    assert_eq!(pieces.held_pieces(BUCKET, version.id, cut).await.unwrap(), [0, 2]);
    assert_eq!(apply().await.unwrap(), Applied::NeedsBody);
    assert_eq!(store.stat(BUCKET, "in/pieces", version.id).await.unwrap(), None, "nothing of it shows");
    assert_eq!(pieces.forget_pieces(BUCKET, 1).await.unwrap(), 0, "they are young");
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &whole[1 << 20..2 << 20]);
    pieces.put_piece(BUCKET, version.id, cut, 1, crc, body(&whole[1 << 20..2 << 20])).await.unwrap();
    assert_eq!(apply().await.unwrap(), Applied::Applied);
    assert!(read(store, &version).await == whole);
    for range in [0..0, 5..6, (1 << 20) - 3..(1 << 20) + 3, 0..whole.len() as u64] {
        let bytes = pieces.read_range(BUCKET, "in/pieces", version.id, range.clone()).await.unwrap();
        let bytes = bytes.try_collect::<Vec<_>>().await.unwrap().concat();
        assert!(bytes == whole[range.start as usize..range.end as usize], "{range:?}");
    }
}

async fn a_backlog_is_of_what_somebody_is_after(store: &dyn Store) {
    for (site, count) in [("talkative", 3), ("silent", 1)] {
        let peer = BundledStore(objects(site).await);
        for n in 0..count {
            let version =
                peer.0.put(BUCKET, &format!("of/{site}/{n}"), Put::default(), body(b"")).await.unwrap().version;
            give(store, &peer, &version).await.unwrap();
        }
    }
    let behind = async |interest: Interest| store.backlog(BUCKET, None, &interest).await.unwrap().versions;
    let silent = Some(Origin::new("silent"));
    assert_eq!(behind(Interest::under("of/")).await, 4);
    assert_eq!(behind(Interest { made_at: silent.clone(), ..Interest::under("") }).await, 1);
    assert_eq!(behind(Interest { not_only_at: silent.clone(), ..Interest::under("of/") }).await, 3);
    assert_eq!(behind(Interest { made_at: silent, ..Interest::under("of/talkative/") }).await, 0);
}

async fn a_bucket_of_a_drill_is_made_written_and_removed_and_no_other(store: &dyn Store) {
    let Some(client) = store.client() else { return };
    let name = "isthmus-drill-0123456789ab";
    client.make_bucket(name).await.unwrap();
    assert!(matches!(client.make_bucket(name).await, Err(Error::BucketExists)));
    let put = client.put(name, "k", Bytes::from(vec![7; 1 << 20])).await.unwrap();
    assert_eq!(client.read(name, "k").await.unwrap().len(), 1 << 20);
    let marker = client.delete(name, "k").await.unwrap();
    assert!(client.read(name, "k").await.is_err());
    let held: Vec<_> = store.versions_of(name, "k").await.unwrap().iter().map(|v| v.id).collect();
    assert_eq!(held, [marker, put]);
    assert!(matches!(client.put(name, "k", Bytes::from(vec![7; (1 << 20) + 1])).await, Err(Error::Invalid(_))));
    for _ in 0..2 {
        client.remove_bucket(name).await.unwrap();
        assert!(matches!(store.bucket(name).await, Err(Error::NoSuchBucket(_))));
    }
    for refused in [client.remove_bucket(BUCKET).await, client.put(BUCKET, "k", Bytes::new()).await.map(drop)] {
        assert!(matches!(&refused, Err(Error::Invalid(why)) if why.contains(BUCKET)), "{refused:?}");
    }
}

async fn read_or_none(store: &dyn Store, version: &Version) -> Vec<u8> {
    if has_bytes(version) { read(store, version).await } else { Vec::new() }
}

async fn a_body_that_breaks_leaves_nothing(store: &dyn Store) {
    let peer = BundledStore(objects("broken").await);
    let version = peer.0.put(BUCKET, "cut", Put::default(), body(&[1; 300_000])).await.unwrap().version;
    let cut = body(&[1; 200_000]).chain(stream::iter([Err(std::io::Error::other("cut on its way"))])).boxed();
    let err = store.apply_version(BUCKET, version.clone(), Some(cut), None).await.unwrap_err();
    assert!(matches!(&err, Error::Body(why) if why.to_string().contains("cut on its way")), "{err:?}");
    let wrong = store.apply_version(BUCKET, version.clone(), Some(body(&[2; 300_000])), None).await;
    assert!(matches!(wrong, Err(Error::BadDigest(_))), "{wrong:?}");
    assert!(matches!(store.read_version(BUCKET, "cut", version.id).await, Err(Error::NoSuchVersion)));
    assert_eq!(give(store, &peer, &version).await.unwrap(), Applied::Applied);
}

async fn consumers_keep_their_cursor(store: &dyn Store) {
    assert_eq!(store.register(BUCKET, "rule/ams", true).await.unwrap(), None);
    let first = within(store.changes(BUCKET, None, 5)).await.unwrap().cursor;
    let second = within(store.changes(BUCKET, Some(&first), 5)).await.unwrap().cursor;
    store.commit(BUCKET, "rule/ams", &second, &first).await.unwrap();
    assert_eq!(store.register(BUCKET, "rule/ams", true).await.unwrap(), Some(first.clone()), "the floor");
    store.deregister(BUCKET, "rule/ams").await.unwrap();
    store.deregister(BUCKET, "rule/ams").await.unwrap();
    let unknown = store.commit(BUCKET, "rule/ams", &second, &first).await;
    assert!(matches!(unknown, Err(Error::Invalid(_))), "{unknown:?}");
}

async fn errors_say_what_they_are(store: &dyn Store, expires: bool) {
    let id = VersionId::from_bytes([9; 16]);
    assert!(matches!(store.bucket("nowhere").await, Err(Error::NoSuchBucket(name)) if name == "nowhere"));
    assert!(matches!(store.changes("nowhere", None, 1).await, Err(Error::NoSuchBucket(_))));
    assert!(matches!(store.stretch("nowhere", "", None, 1).await, Err(Error::NoSuchBucket(_))));
    assert!(store.bucket(BUCKET).await.unwrap().versioned);
    assert_eq!(store.stat(BUCKET, "nothing", id).await.unwrap(), None);
    assert!(matches!(store.read_version(BUCKET, "nothing", id).await, Err(Error::NoSuchVersion)));
    assert_eq!(store.trouble(), None);
    if let Some(health) = store.health().await.unwrap() {
        assert_eq!(health.drives.iter().map(|d| d.slot).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(health.drives.iter().all(|d| d.offline.is_none()) && health.below_target == 0, "{health:?}");
    }
    if expires {
        let foreign = Cursor(Bytes::from_static(b"of another store"));
        assert!(matches!(store.changes(BUCKET, Some(&foreign), 1).await, Err(Error::Expired)));
        assert!(matches!(store.backlog(BUCKET, Some(&foreign), &Interest::default()).await, Err(Error::Expired)));
    }
}

#[tokio::test]
async fn the_twin_in_memory_conforms() {
    suite(Arc::new(twin::Twin::new(BUCKET)), false).await;
}

#[tokio::test]
async fn the_store_by_handle_conforms() {
    suite(Arc::new(BundledStore(objects("here").await)), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_by_network_conforms() {
    let served = Served::start().await;
    suite(served.connect().await, true).await;
}
