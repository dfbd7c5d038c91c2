//! Versions from elsewhere: in any order, any number of times, with the bytes or without.
use super::*;
use crate::version::{Hlc, Stamp, Tags};

fn stamp(millis: u64) -> Stamp {
    Stamp::new(Hlc::from_millis(millis), Origin::new("elsewhere"))
}
/// What joins a version after its birth.
fn component(born: &Version) -> Version {
    Version::blank(&born.key, born.id)
}
async fn born_elsewhere(versioning: Versioning) -> Version {
    let (_set, objects) = store(versioning).await;
    put(&objects, b"bytes").await
}
async fn apply(objects: &Objects, version: &Version, bytes: Option<&'static [u8]>) -> Result<Applied, Error> {
    objects.apply("bucket", version.clone(), bytes.map(body), None).await
}

#[tokio::test]
async fn a_replica_keeps_id_and_order_and_a_second_one_is_already_present() {
    let born = born_elsewhere(Versioning::Enabled).await;
    let (_set, objects) = store(Versioning::Enabled).await;
    assert_eq!(apply(&objects, &born, None).await.expect("asked for"), Applied::NeedsBody);
    assert!(matches!(apply(&objects, &born, Some(b"other")).await, Err(Error::BadDigest(_))));
    assert!(matches!(apply(&objects, &born, Some(b"byte")).await, Err(Error::Body(_))));
    assert!(matches!(get(&objects, None).await, Err(Error::NoSuchKey)), "nothing of a bad body is there");
    assert_eq!(apply(&objects, &born, Some(b"bytes")).await.expect("W"), Applied::Applied);
    assert_eq!(apply(&objects, &born, None).await.expect("R"), Applied::AlreadyPresent);
    assert_eq!(objects.stat("bucket", "k", born.id).await.expect("R"), Some(born.clone()));
    assert_eq!(get(&objects, Some(born.id)).await.expect("k shards"), b"bytes");
}

#[tokio::test]
async fn a_purge_before_its_birth_hides_it_for_ever() {
    let born = born_elsewhere(Versioning::Enabled).await;
    let (_set, objects) = store(Versioning::Enabled).await;
    let purge = Version { purges: stamp(5).into(), ..component(&born) };
    assert_eq!(apply(&objects, &purge, None).await.expect("W"), Applied::Applied);
    assert_eq!(apply(&objects, &purge, None).await.expect("R"), Applied::AlreadyPresent);
    assert_eq!(apply(&objects, &born, None).await.expect("no bytes are asked for"), Applied::Superseded);
    assert!(matches!(get(&objects, Some(born.id)).await, Err(Error::NoSuchVersion)));
    assert!(matches!(get(&objects, None).await, Err(Error::NoSuchKey)));
}

#[tokio::test]
async fn tags_before_their_birth_are_kept_unseen_and_older_ones_lose() {
    let born = born_elsewhere(Versioning::Enabled).await;
    let (_set, objects) = store(Versioning::Enabled).await;
    let tags = |millis, text: &str| {
        let set = BTreeMap::from([("colour".to_owned(), text.to_owned())]);
        Version { tags: Some(Tags::new(stamp(millis), set)), ..component(&born) }
    };
    assert_eq!(apply(&objects, &tags(9, "red"), None).await.expect("W"), Applied::Applied);
    assert!(matches!(get(&objects, None).await, Err(Error::NoSuchKey)), "unborn is invisible");
    assert_eq!(apply(&objects, &born, Some(b"bytes")).await.expect("W"), Applied::Applied);
    assert_eq!(apply(&objects, &tags(8, "blue"), None).await.expect("R"), Applied::AlreadyPresent);
    let held = objects.stat("bucket", "k", born.id).await.expect("R").expect("born");
    assert_eq!(held.tags, tags(9, "red").tags);
    assert_eq!(get(&objects, None).await.expect("k shards"), b"bytes");
}

#[tokio::test]
async fn of_null_versions_the_greater_order_wins_whole_in_whatever_order_they_come() {
    let (older, newer) = (born_elsewhere(Versioning::Unversioned).await, {
        let mut newer = born_elsewhere(Versioning::Unversioned).await;
        newer.birth.as_mut().expect("written").order.hlc = Hlc::from_millis(2_000_000_000_000);
        newer
    });
    for turn in [[&older, &newer], [&newer, &older]] {
        let (_set, objects) = store(Versioning::Unversioned).await;
        for version in turn {
            apply(&objects, version, Some(b"bytes")).await.expect("W");
        }
        assert_eq!(objects.stat("bucket", "k", VersionId::NULL).await.expect("R"), Some(newer.clone()));
        assert_eq!(apply(&objects, &older, None).await.expect("R"), Applied::Superseded);
        assert_eq!(apply(&objects, &newer, None).await.expect("R"), Applied::AlreadyPresent);
    }
}

#[tokio::test]
async fn what_is_written_here_after_a_replica_sorts_above_it() {
    let mut ahead = born_elsewhere(Versioning::Enabled).await;
    let soon = ahead.birth.as_ref().expect("written").order.hlc.millis() + 30_000;
    ahead.birth.as_mut().expect("written").order.hlc = Hlc::from_millis(soon);
    let (set, objects) = store(Versioning::Enabled).await;
    apply(&objects, &ahead, Some(b"bytes")).await.expect("W");
    // The base is what one drive knows, and any may be the one that is behind.
    until_all_hold_it(&set, &objects).await;
    let next = put(&objects, b"next").await.birth.expect("written");
    assert!(next.order.hlc > Hlc::from_millis(soon));
    assert_eq!(next.base, ahead.birth.map(|b| b.order));
    assert_eq!(get(&objects, None).await.expect("the newest"), b"next");
}
