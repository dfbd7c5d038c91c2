//! Outcomes of uploads: retried, raced, crashed at every call.
use super::*;
use crate::object::ballot::NewId;
use crate::object::fixture::{Set, body, versions, write};
use crate::version::Kind;

async fn upload(objects: &Objects, key: &str) -> String {
    objects.create_upload("bucket", key, Put::default(), None).await.unwrap().id
}
async fn part(objects: &Objects, key: &str, upload: &str, number: u16, bytes: &[u8]) -> PartRef {
    let stored =
        objects.upload_part("bucket", key, upload, number, Expect::default(), body(bytes.to_vec())).await.unwrap();
    PartRef { number, etag: stored.etag, checksums: BTreeMap::new() }
}
async fn complete(objects: &Objects, upload: &str, part: &PartRef) -> Result<Version, Error> {
    let done = objects
        .complete_upload("bucket", "k", upload, vec![part.clone()], BTreeMap::new(), Conditions::default())
        .await;
    done.map(|written| written.version)
}
async fn store(versioning: Versioning) -> (Set, Objects, Bucket) {
    let set = Set::new();
    let objects = set.start();
    let bucket = objects.create_bucket("bucket", versioning).await.unwrap();
    (set, objects, bucket)
}

#[tokio::test]
async fn complete_makes_one_version_of_all_parts_and_copies_nothing() {
    let (_set, objects, bucket) = store(Versioning::Enabled).await;
    let put = Put {
        headers: BTreeMap::from([("content-type".into(), "text/plain".into())]),
        metadata: BTreeMap::from([("colour".into(), "red".into())]),
        tags: BTreeMap::from([("a".into(), "b".into())]),
        ..Put::default()
    };
    let id = objects
        .create_upload("bucket", "k", put, Some(UploadChecksum { algorithm: "crc64nvme".into(), is_of_whole: true }))
        .await
        .unwrap()
        .id;
    let large = vec![7u8; assemble::PART_BYTES_MIN as usize];
    let two = part(&objects, "k", &id, 2, b"tail").await;
    let one = part(&objects, "k", &id, 1, &large).await;
    let (shown, listed) = objects.parts("bucket", "k", &id).await.unwrap();
    assert_eq!((shown.key.as_str(), listed.iter().map(|p| p.number).collect::<Vec<_>>()), ("k", vec![1, 2]));

    let written = objects
        .complete_upload("bucket", "k", &id, vec![one, two], BTreeMap::new(), Conditions::default())
        .await
        .unwrap();
    let records = objects.0.read_key(bucket.id, "k").await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].version, written.version);
    assert_eq!(records[0].blobs.iter().map(|b| b.size_bytes).collect::<Vec<_>>(), [large.len() as u64, 4]);
    let birth = written.version.birth.unwrap();
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &[large, b"tail".to_vec()].concat());
    assert_eq!((birth.crc64nvme, birth.parts.len(), birth.metadata["colour"].as_str()), (crc, 2, "red"));
    assert_eq!(birth.headers["content-type"], "text/plain");
    assert_eq!(written.version.tags.unwrap().set["a"], "b");
    assert!(objects.uploads("bucket", "").await.unwrap().is_empty());
}

#[tokio::test]
async fn complete_again_answers_the_same_and_an_abort_comes_too_late() {
    for versioning in [Versioning::Enabled, Versioning::Unversioned] {
        let (_set, objects, bucket) = store(versioning).await;
        let id = upload(&objects, "k").await;
        let one = part(&objects, "k", &id, 1, b"x").await;
        let first = complete(&objects, &id, &one).await.unwrap();
        // What came on top stays on top.
        let newer =
            write(&objects, &bucket, "k", if first.id.is_null() { NewId::Null } else { NewId::Fresh }, Kind::Object)
                .await;
        assert_eq!(complete(&objects, &id, &one).await.unwrap(), first);
        assert!(matches!(objects.abort_upload("bucket", "k", &id).await, Err(Error::NoSuchUpload)));
        assert_eq!(objects.0.read_key(bucket.id, "k").await.unwrap()[0].version, newer.version);
    }
}

#[tokio::test]
async fn an_aborted_upload_makes_nothing_and_takes_nothing() {
    let (_set, objects, _) = store(Versioning::Enabled).await;
    let id = upload(&objects, "k").await;
    let one = part(&objects, "k", &id, 1, b"x").await;
    objects.abort_upload("bucket", "k", &id).await.unwrap();
    assert!(matches!(complete(&objects, &id, &one).await, Err(Error::NoSuchUpload)));
    assert!(matches!(objects.abort_upload("bucket", "k", &id).await, Err(Error::NoSuchUpload)));
    let late = objects.upload_part("bucket", "k", &id, 2, Expect::default(), body("y")).await;
    assert!(matches!(late, Err(Error::NoSuchUpload)));
    for unknown in ["", "x", "../../../../../../../../../../etc", &"0".repeat(32)] {
        assert!(matches!(objects.abort_upload("bucket", "k", unknown).await, Err(Error::NoSuchUpload)));
    }
    assert!(versions(&objects, "bucket").await.is_empty());
}

#[tokio::test]
async fn a_crash_at_any_call_of_complete_leaves_one_outcome() {
    for versioning in [Versioning::Enabled, Versioning::Unversioned] {
        let mut outcomes = std::collections::BTreeSet::new();
        for calls in 0.. {
            let (set, objects, _) = store(versioning).await;
            let id = upload(&objects, "k").await;
            let one = part(&objects, "k", &id, 1, b"x").await;
            let acked = complete(&set.start_with(calls), &id, &one).await;

            let after = set.start();
            let aborted = objects.abort_upload("bucket", "k", &id).await;
            let seen = versions(&after, "bucket").await;
            let again = complete(&after, &id, &one).await;
            match &aborted {
                Ok(()) => {
                    assert!(acked.is_err() && seen.is_empty(), "after {calls} calls");
                    assert!(matches!(again, Err(Error::NoSuchUpload)), "after {calls} calls");
                }
                Err(Error::NoSuchUpload) => {
                    assert_eq!(seen.len(), 1, "after {calls} calls");
                    assert_eq!(again.unwrap().id, seen[0].1, "after {calls} calls");
                }
                Err(err) => panic!("after {calls} calls: {err}"),
            }
            assert_eq!(versions(&after, "bucket").await, seen, "after {calls} calls");
            outcomes.insert((aborted.is_ok(), acked.is_ok()));
            if acked.is_ok() {
                break;
            }
        }
        assert_eq!(outcomes.len(), 3, "acked, made without an ack, and not made: {outcomes:?}");
    }
}

#[tokio::test]
async fn a_retry_after_a_crash_makes_the_version_once_and_beneath_what_came_since() {
    for calls in 0.. {
        let (set, objects, bucket) = store(Versioning::Enabled).await;
        let id = upload(&objects, "k").await;
        let one = part(&objects, "k", &id, 1, b"x").await;
        let acked = complete(&set.start_with(calls), &id, &one).await;
        let made = complete(&objects, &id, &one).await.unwrap();
        let listed = versions(&objects, "bucket").await;
        assert_eq!(listed, [("k".to_owned(), made.id)], "after {calls} calls");
        assert_eq!(objects.0.read_key(bucket.id, "k").await.unwrap()[0].version, made, "after {calls} calls");
        if let Ok(acked) = acked {
            assert_eq!(acked, made);
            break;
        }
    }
}

#[tokio::test]
async fn racing_completes_and_aborts_have_one_outcome() {
    for round in 0..40 {
        let (set, objects, _) = store(Versioning::Enabled).await;
        let other = set.start();
        let id = upload(&objects, "k").await;
        let one = part(&objects, "k", &id, 1, b"x").await;
        let aborting = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            objects.abort_upload("bucket", "k", &id).await
        };
        let (a, b, aborted) = futures::join!(complete(&objects, &id, &one), complete(&other, &id, &one), aborting);
        let seen = versions(&objects, "bucket").await;
        if aborted.is_ok() {
            assert!(a.is_err() && b.is_err() && seen.is_empty(), "round {round}: {a:?} {b:?}");
        } else if let (Ok(a), Ok(b)) = (&a, &b) {
            assert_eq!((a.id, seen.len()), (b.id, 1), "round {round}");
        } else {
            // An abort that had to look twice may meet its own mark and say that the upload is gone.
            assert!(a.is_err() && b.is_err() && seen.is_empty(), "round {round}: {a:?} {b:?} {aborted:?}");
        }
    }
}

#[tokio::test]
async fn a_condition_that_does_not_hold_leaves_the_upload_open() {
    let (_set, objects, bucket) = store(Versioning::Enabled).await;
    let id = upload(&objects, "k").await;
    let one = part(&objects, "k", &id, 1, b"x").await;
    write(&objects, &bucket, "k", NewId::Fresh, Kind::Object).await;
    let only_new = Conditions { if_none_match: true, if_match: None };
    let refused =
        objects.complete_upload("bucket", "k", &id, vec![one.clone()], BTreeMap::new(), only_new.clone()).await;
    assert!(matches!(refused, Err(Error::PreconditionFailed(_))));
    write(&objects, &bucket, "k", NewId::Fresh, Kind::DeleteMarker).await;
    objects.complete_upload("bucket", "k", &id, vec![one], BTreeMap::new(), only_new).await.unwrap();
    assert_eq!(versions(&objects, "bucket").await.len(), 3);
}

#[tokio::test]
async fn a_part_uploaded_again_replaces_the_first() {
    let (_set, objects, _) = store(Versioning::Enabled).await;
    let id = upload(&objects, "k").await;
    let old = part(&objects, "k", &id, 1, b"old").await;
    let new = part(&objects, "k", &id, 1, b"newer").await;
    assert_eq!(objects.parts("bucket", "k", &id).await.unwrap().1.len(), 1);
    assert!(matches!(complete(&objects, &id, &old).await, Err(Error::InvalidPart(1))));
    assert_eq!(complete(&objects, &id, &new).await.unwrap().birth.unwrap().size_bytes, 5);
}

#[tokio::test]
async fn uploads_are_listed_by_the_prefix_of_their_key_alone() {
    let (_set, objects, _) = store(Versioning::Enabled).await;
    for key in ["a", "a\0b", "a/b", "ab", "b", "ä"] {
        upload(&objects, key).await;
    }
    let listed = async |prefix: &str| -> Vec<String> {
        objects.uploads("bucket", prefix).await.unwrap().into_iter().map(|u| u.key).collect()
    };
    assert_eq!(listed("").await, ["a", "a\0b", "a/b", "ab", "b", "ä"]);
    assert_eq!(listed("a").await, ["a", "a\0b", "a/b", "ab"]);
    assert_eq!(listed("a\0").await, ["a\0b"]);
    objects.create_bucket("other", Versioning::Enabled).await.unwrap();
    assert!(objects.uploads("other", "").await.unwrap().is_empty());
}
