//! The life of a bucket, and what deleting races with.
use super::*;
use crate::object::ballot::NewId;
use crate::object::fixture::{Set, versions, write};
use crate::version::{Hlc, Kind, Origin, Stamp, Version};

const ON: Versioning = Versioning::Enabled;

#[tokio::test]
async fn one_of_many_creators_makes_the_bucket() {
    let set = Set::new();
    let processes: Vec<Objects> = (0..5).map(|_| set.start()).collect();
    let made = futures::future::join_all(processes.iter().map(|o| o.create_bucket("abc", ON))).await;
    assert_eq!(made.iter().filter(|m| m.is_ok()).count(), 1, "{made:?}");
    assert!(made.iter().all(|m| matches!(m, Ok(_) | Err(Error::BucketExists))), "{made:?}");
    assert!(matches!(processes[0].create_bucket("A", ON).await, Err(Error::InvalidBucketName { .. })));
}

#[tokio::test]
async fn a_document_says_all_of_the_bucket_to_the_next_process() {
    let set = Set::new();
    let objects = set.start();
    objects.create_bucket("abc", Versioning::Unversioned).await.unwrap();
    objects.set_versioning("abc", Versioning::Suspended).await.unwrap();
    let bucket = objects.bucket("abc").await.unwrap();
    assert_eq!(bucket.versioning, Versioning::Suspended);
    let next = set.start();
    assert_eq!(next.bucket("abc").await.unwrap(), bucket);
    assert_eq!(next.buckets().await.unwrap(), [bucket]);
    assert!(matches!(next.set_versioning("abc", Versioning::Unversioned).await, Err(Error::Invalid(_))));
    assert!(matches!(next.bucket("abd").await, Err(Error::NoSuchBucket(_))));
}

#[tokio::test]
async fn only_a_bucket_without_live_versions_is_deleted_and_its_successor_is_empty() {
    let objects = Set::new().start();
    let bucket = objects.create_bucket("abc", ON).await.unwrap();
    let marker = write(&objects, &bucket, "k", NewId::Fresh, Kind::DeleteMarker).await;
    assert!(matches!(objects.delete_bucket("abc").await, Err(Error::BucketNotEmpty)));
    objects.0.confirm_bucket(&bucket).await.unwrap();

    let mut purge = Version::blank("k", marker.id());
    purge.purges = Stamp::new(Hlc::from_millis(1), Origin::new("here")).into();
    objects.0.join_behind(bucket.id, purge, |_| 0).await.unwrap();
    objects.delete_bucket("abc").await.unwrap();
    assert!(matches!(objects.bucket("abc").await, Err(Error::NoSuchBucket(_))));
    assert!(matches!(objects.delete_bucket("abc").await, Err(Error::NoSuchBucket(_))));
    assert!(objects.buckets().await.unwrap().is_empty());

    let again = objects.create_bucket("abc", ON).await.unwrap();
    assert_ne!(again.id, bucket.id);
    assert!(versions(&objects, "abc").await.is_empty());
    assert!(
        matches!(objects.0.confirm_bucket(&bucket).await, Err(Error::NoSuchBucket(_))),
        "an old write is not acked"
    );
}

#[tokio::test]
async fn a_write_that_races_a_delete_is_either_kept_or_not_acked() {
    let (mut kept, mut refused) = (0, 0);
    // The later the write begins, the likelier the delete is first, however busy the machine.
    for round in 0..6_000 {
        if round >= 60 && kept > 0 && refused > 0 {
            break;
        }
        let objects = Set::new().start();
        let bucket = objects.create_bucket("abc", ON).await.unwrap();
        let writing = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            write(&objects, &bucket, "k", NewId::Fresh, Kind::Object).await;
            objects.0.confirm_bucket(&bucket).await
        };
        let (written, deleted) = futures::join!(writing, objects.delete_bucket("abc"));
        match written {
            Ok(()) => {
                assert!(deleted.is_err(), "round {round}: an acked version is gone");
                assert_eq!(versions(&objects, "abc").await.len(), 1, "round {round}");
                kept += 1;
            }
            Err(Error::NoSuchBucket(_)) => {
                deleted.unwrap();
                refused += 1;
            }
            Err(err) => panic!("round {round}: {err}"),
        }
    }
    assert!(kept > 0 && refused > 0, "both happened: {kept} kept, {refused} refused");
}

#[tokio::test]
async fn a_delete_that_died_halfway_hinders_nobody() {
    for calls in 0.. {
        let set = Set::new();
        let objects = set.start();
        let bucket = objects.create_bucket("abc", ON).await.unwrap();
        let deleted = set.start_with(calls).delete_bucket("abc").await;
        let next = set.start();
        match next.bucket("abc").await {
            Ok(found) => {
                assert!(deleted.is_err(), "after {calls} calls");
                assert_eq!(found, bucket);
                write(&next, &bucket, "k", NewId::Fresh, Kind::Object).await;
                match next.0.confirm_bucket(&bucket).await {
                    Ok(()) => {
                        next.set_versioning("abc", ON).await.unwrap();
                        assert!(matches!(next.delete_bucket("abc").await, Err(Error::BucketNotEmpty)));
                    }
                    // The last message of the dead was still on its way: its delete came true now.
                    Err(Error::NoSuchBucket(_)) => _ = next.create_bucket("abc", ON).await.unwrap(),
                    Err(err) => panic!("after {calls} calls: {err}"),
                }
            }
            Err(Error::NoSuchBucket(_)) => _ = next.create_bucket("abc", ON).await.unwrap(),
            Err(err) => panic!("after {calls} calls: {err}"),
        }
        if deleted.is_ok() {
            break;
        }
    }
}
