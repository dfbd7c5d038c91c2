//! Since when a change waits for its consumers: no later change makes it look younger than it is.
use super::*;
use crate::feed::{Cursor, Interest};

/// The moment of a PUT, at least a millisecond ago.
async fn put_before(objects: &Objects) -> (VersionId, u64) {
    let version = put(objects, b"1").await;
    let put_at = version.max_hlc().millis();
    while objects.0.clock.now_millis() <= put_at + 1 {
        objects.0.clock.sleep(1).await;
    }
    (version.id, put_at + 1)
}
async fn tag(objects: &Objects, text: &str) {
    let set = BTreeMap::from([("colour".to_owned(), text.to_owned())]);
    objects.set_tags("bucket", "k", None, set).await.expect("W");
}
async fn pending_since(objects: &Objects, floor: Option<&Cursor>) -> u64 {
    let backlog = objects.backlog("bucket", floor, &Interest::default()).await.expect("a read quorum");
    backlog.oldest_pending_since.expect("something waits")
}
/// Waits until the last drive has the change too and nothing waits since the PUT any more.
async fn until_nothing_waits_since(objects: &Objects, floor: Option<&Cursor>, put_by: u64) {
    let young = async {
        while pending_since(objects, floor).await <= put_by {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), young).await.expect("the change waits since now");
}
/// Everything there is reaches the consumer.
async fn replicate(objects: &Objects, consumer: &str) -> Cursor {
    let all = objects.changes("bucket", None, 100).await.expect("a change").cursor;
    objects.commit("bucket", consumer, &all, &all).await.expect("W");
    all
}

#[tokio::test]
async fn a_tag_or_a_purge_does_not_make_an_unsent_version_look_young() {
    let (_set, objects) = store(Versioning::Enabled).await;
    objects.register("bucket", "peer", true).await.expect("W");
    let (id, put_by) = put_before(&objects).await;
    tag(&objects, "red").await;
    assert!(pending_since(&objects, None).await <= put_by);
    tag(&objects, "blue").await;
    assert!(pending_since(&objects, None).await <= put_by);
    let batch = objects.changes("bucket", None, 10).await.expect("a change");
    assert!(batch.events.iter().all(|e| e.pending_since <= put_by), "the lag counted at its ack is as honest");
    objects.delete("bucket", "k", Some(id), Conditions::default(), false).await.expect("W");
    assert!(pending_since(&objects, None).await <= put_by);
}

#[tokio::test]
async fn a_tag_on_a_version_that_every_consumer_has_waits_since_now() {
    let (_set, objects) = store(Versioning::Enabled).await;
    objects.register("bucket", "one", true).await.expect("W");
    objects.register("bucket", "two", true).await.expect("W");
    let (_, put_by) = put_before(&objects).await;
    let floor = replicate(&objects, "one").await;
    tag(&objects, "red").await;
    assert!(pending_since(&objects, Some(&floor)).await <= put_by, "consumer two has nothing of it yet");
    replicate(&objects, "one").await;
    let floor = replicate(&objects, "two").await;
    tag(&objects, "blue").await;
    until_nothing_waits_since(&objects, Some(&floor), put_by).await;
}

#[tokio::test]
async fn a_tag_waits_since_now_where_nobody_is_registered() {
    let (_set, objects) = store(Versioning::Enabled).await;
    let (_, put_by) = put_before(&objects).await;
    tag(&objects, "red").await;
    until_nothing_waits_since(&objects, None, put_by).await;
}
