//! Tags: the whole set is replaced, on exactly the version that was named.
use super::*;

fn tags(text: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("colour".to_owned(), text.to_owned())])
}
async fn held(objects: &Objects, id: VersionId) -> Version {
    objects.stat("bucket", "k", id).await.expect("a read quorum").expect("it is there")
}
fn colour(version: &Version) -> Option<&str> {
    version.tags.as_ref().and_then(|t| t.set.get("colour")).map(String::as_str)
}

#[tokio::test]
async fn tags_go_to_the_version_named_or_to_the_latest_and_the_last_set_wins() {
    let (_set, objects) = store(Versioning::Enabled).await;
    let (one, two) = (put(&objects, b"1").await, put(&objects, b"2").await);
    let set = |version, text| objects.set_tags("bucket", "k", version, tags(text));
    assert_eq!(set(None, "red").await.expect("W"), two.id);
    assert_eq!(set(Some(one.id), "blue").await.expect("W"), one.id);
    assert_eq!(set(None, "green").await.expect("W"), two.id);
    assert_eq!(colour(&held(&objects, one.id).await), Some("blue"));
    assert_eq!(colour(&held(&objects, two.id).await), Some("green"));
    assert_eq!(held(&objects, two.id).await.birth, two.birth, "a tag changes nothing of the birth");
    objects.set_tags("bucket", "k", None, BTreeMap::new()).await.expect("W");
    assert!(held(&objects, two.id).await.tags.is_some_and(|t| t.set.is_empty()), "no tags, and since when");
}

#[tokio::test]
async fn tags_of_null_keep_its_bytes_and_its_place_and_end_with_it() {
    let (_set, objects) = store(Versioning::Unversioned).await;
    let one = put(&objects, b"1").await;
    objects.set_tags("bucket", "k", None, tags("red")).await.expect("W");
    let tagged = held(&objects, VersionId::NULL).await;
    assert_eq!((colour(&tagged), &tagged.birth), (Some("red"), &one.birth));
    assert_eq!(get(&objects, None).await.expect("the bytes stay"), b"1");
    put(&objects, b"2").await;
    assert_eq!(held(&objects, VersionId::NULL).await.tags, None, "they were of the null before");
}

#[tokio::test]
async fn there_is_nothing_to_tag_on_markers_and_absent_things() {
    let (_set, objects) = store(Versioning::Enabled).await;
    let set = |version| objects.set_tags("bucket", "k", version, tags("red"));
    assert!(matches!(set(None).await, Err(Error::NoSuchKey)));
    let one = put(&objects, b"1").await;
    assert!(matches!(set(Some(VersionId::NULL)).await, Err(Error::NoSuchVersion)));
    objects.delete("bucket", "k", Some(one.id), Conditions::default(), false).await.expect("W");
    assert!(matches!(set(Some(one.id)).await, Err(Error::NoSuchVersion)));
    objects.delete("bucket", "k", None, Conditions::default(), false).await.expect("W");
    assert!(matches!(set(None).await, Err(Error::DeleteMarker { .. })));
}
