//! DELETE: markers, versions gone for ever, and the null version.
use super::*;
use crate::drive::Drive;
use crate::object::fixture::versions;
use crate::quorum::participant::{Op, Request};
use crate::version::Stamp;

async fn delete(objects: &Objects, version: Option<VersionId>) -> Deleted {
    objects.delete("bucket", "k", version, Conditions::default(), false).await.expect("a write quorum")
}

#[tokio::test]
async fn a_marker_hides_and_its_own_delete_brings_the_version_back() {
    let (_set, objects) = store(Versioning::Enabled).await;
    let one = put(&objects, b"1").await;
    let marker = delete(&objects, None).await;
    let id = marker.version_id.expect("a marker has an id");
    assert!(marker.delete_marker && id != one.id);
    let latest = get(&objects, None).await;
    assert!(matches!(latest, Err(Error::DeleteMarker { version_id, is_latest: true }) if version_id == id));
    assert_eq!(get(&objects, Some(one.id)).await.expect("it is only hidden"), b"1");
    assert_eq!(delete(&objects, Some(id)).await, Deleted { version_id: Some(id), delete_marker: true });
    assert_eq!(get(&objects, None).await.expect("the marker is gone"), b"1");
}

#[tokio::test]
async fn a_version_deleted_stays_deleted_and_deleting_it_again_succeeds() {
    let (set, objects) = store(Versioning::Enabled).await;
    let (one, two) = (put(&objects, b"1").await, put(&objects, b"2").await);
    for _ in 0..2 {
        assert_eq!(delete(&objects, Some(two.id)).await, Deleted { version_id: Some(two.id), delete_marker: false });
        assert!(matches!(get(&objects, Some(two.id)).await, Err(Error::NoSuchVersion)));
        assert_eq!(get(&objects, None).await.expect("the one below"), b"1");
    }
    for slot in 0..4 {
        assert!(matches!(get(&set.start_without(&[slot]), Some(two.id)).await, Err(Error::NoSuchVersion)));
    }
    let unknown = VersionId::from_bytes([9; 16]);
    delete(&objects, Some(unknown)).await;
    assert_eq!(objects.stat("bucket", "k", unknown).await.expect("a read quorum"), None);
    assert_eq!(get(&objects, Some(one.id)).await.expect("untouched"), b"1");
    let purged = objects.stat("bucket", "k", two.id).await.expect("a read quorum").expect("a tombstone is kept");
    assert!(purged.birth.is_some() && purged.purged().is_some());
}

#[tokio::test]
async fn without_versioning_a_delete_leaves_nothing_and_a_new_null_is_not_hidden_by_it() {
    let (_set, objects) = store(Versioning::Unversioned).await;
    put(&objects, b"1").await;
    put(&objects, b"2").await;
    assert_eq!(delete(&objects, None).await, Deleted { version_id: None, delete_marker: false });
    assert!(matches!(get(&objects, None).await, Err(Error::NoSuchKey)));
    assert!(matches!(get(&objects, Some(VersionId::NULL)).await, Err(Error::NoSuchVersion)));
    delete(&objects, None).await;
    put(&objects, b"3").await;
    assert_eq!(get(&objects, None).await.expect("a new null"), b"3");
}

#[tokio::test]
async fn a_suspended_bucket_replaces_null_by_a_null_marker_and_keeps_the_others() {
    let (_set, objects) = store(Versioning::Enabled).await;
    let one = put(&objects, b"1").await;
    objects.set_versioning("bucket", Versioning::Suspended).await.expect("set");
    put(&objects, b"null").await;
    let marker = delete(&objects, None).await;
    assert_eq!(marker, Deleted { version_id: Some(VersionId::NULL), delete_marker: true });
    assert!(matches!(get(&objects, Some(VersionId::NULL)).await, Err(Error::DeleteMarker { .. })));
    assert_eq!(get(&objects, Some(one.id)).await.expect("untouched"), b"1");
    assert_eq!(delete(&objects, Some(VersionId::NULL)).await, marker);
    assert_eq!(get(&objects, None).await.expect("the null marker is gone"), b"1");
}

/// A delete of a version whose process died when only these drives had it.
async fn leave_purge(set: &Set, objects: &Objects, id: VersionId, slots: &[usize]) {
    let bucket = objects.bucket("bucket").await.expect("it was made").id;
    let mut version = Version::blank("k", id);
    version.purges = Stamp::new(objects.0.clock.tick(Hlc::ZERO), Origin::new("here")).into();
    for slot in slots {
        let op = Op::Join { version: Box::new(version.clone()), pending_since: 1, passed: 0, traceparent: None };
        set.drives[*slot].call(Request { epoch: 1, bucket, key: "k".into(), op }).await.expect("it answers");
    }
}

/// R = 2 of four drives may hold all of it alike and still be fewer than W = 3.
#[tokio::test]
async fn a_delete_that_stopped_short_is_decided_by_whoever_meets_it_first() {
    let mut met = 0;
    for slots in [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]] {
        let (set, objects) = store(Versioning::Enabled).await;
        let id = put(&objects, b"1").await.id;
        until_settled(&set, &objects, VersionId::NULL, &[0, 1, 2, 3]).await;
        leave_purge(&set, &objects, id, &slots).await;
        match get(&objects, Some(id)).await {
            Err(Error::NoSuchVersion) => met += 1,
            read => {
                // The two others were asked: until somebody meets it, it is as if it were on its way.
                read.expect("there, or gone");
                continue;
            }
        }
        assert!(holders(&set, &objects, id).await >= 3, "shown, and below W: left on {slots:?}");
        // The list asks drives of its own, and so may every later reader.
        assert!(versions(&objects, "bucket").await.is_empty(), "listed and not there, left on {slots:?}");
        until_settled(&set, &objects, id, &[0, 1, 2, 3]).await;
        for away in [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]] {
            let rest = set.start_without(&away);
            assert!(versions(&rest, "bucket").await.is_empty(), "left on {slots:?}, {away:?} lost");
        }
    }
    assert_eq!(met, 5, "of six pairs one is missed by two drives");
}

#[tokio::test]
async fn what_lists_showed_deleted_stays_so_for_gets() {
    for slots in [[0, 1], [2, 3]] {
        let (set, objects) = store(Versioning::Enabled).await;
        let id = put(&objects, b"1").await.id;
        until_settled(&set, &objects, VersionId::NULL, &[0, 1, 2, 3]).await;
        leave_purge(&set, &objects, id, &slots).await;
        let shown = versions(&objects, "bucket").await.is_empty();
        assert!(!shown || holders(&set, &objects, id).await >= 3, "shown, and below W: left on {slots:?}");
        let read = get(&objects, Some(id)).await;
        assert!(!shown || matches!(read, Err(Error::NoSuchVersion)), "not listed, and there, left on {slots:?}");
    }
}

/// Of a drive that was away, a delete that counts hides nothing when as many more are lost as may be.
#[tokio::test]
async fn a_delete_that_one_drive_missed_is_read_with_two_drives_lost() {
    let (set, objects) = store(Versioning::Enabled).await;
    let (one, two) = (put(&objects, b"1").await, put(&objects, b"2").await);
    until_settled(&set, &objects, VersionId::NULL, &[0, 1, 2, 3]).await;
    set.drives[1].set_offline(true);
    delete(&objects, Some(two.id)).await;
    set.drives[1].set_offline(false);
    until_settled(&set, &objects, two.id, &[0, 2, 3]).await;
    for away in [[0, 2], [0, 3], [2, 3]] {
        let rest = set.start_without(&away);
        assert_eq!(versions(&rest, "bucket").await, [("k".to_owned(), one.id)], "{away:?} lost");
    }
}

/// How many drives hold the delete.
async fn holders(set: &Set, objects: &Objects, id: VersionId) -> usize {
    let bucket = objects.bucket("bucket").await.expect("it was made").id;
    let mut holders = 0;
    for drive in &set.drives {
        holders += usize::from(drive.read_key(bucket, "k").await.expect("it answers").tombstoned(id));
    }
    holders
}

/// Waits until these drives know that the delete counts, and the version below.
async fn until_settled(set: &Set, objects: &Objects, id: VersionId, slots: &[usize]) {
    let bucket = objects.bucket("bucket").await.expect("it was made").id;
    let is_flagged = |r: &Record| r.acked && (r.settled || r.id() != id);
    let settled = async {
        for slot in slots {
            let drive = &set.drives[*slot];
            while !drive.read_key(bucket, "k").await.expect("it answers").records.iter().all(|r| is_flagged(r)) {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), settled).await.expect("the flags follow");
}
