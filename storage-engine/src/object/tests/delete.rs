//! DELETE: markers, versions gone for ever, and the null version.
use super::*;

async fn delete(objects: &Objects, version: Option<VersionId>) -> Deleted {
    objects.delete("bucket", "k", version, Conditions::default()).await.expect("a write quorum")
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
    assert!(purged.birth.is_some() && purged.purge.is_some());
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
