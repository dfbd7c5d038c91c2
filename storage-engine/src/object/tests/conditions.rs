//! Conditions of PUT and DELETE: tested on what is decided, exclusive within the store.
use super::*;
use futures::future::join_all;

fn if_match(etag: &str) -> Conditions {
    Conditions { if_match: Some(etag.into()), if_none_match: false }
}
fn if_absent() -> Conditions {
    Conditions { if_match: None, if_none_match: true }
}
fn etag(version: &Version) -> String {
    version.birth.as_ref().expect("it was written").etag.clone()
}
async fn put_if(objects: &Objects, bytes: &[u8], conditions: Conditions) -> Result<Version, Error> {
    let put = Put { conditions, ..Put::default() };
    objects.put("bucket", "k", put, body(bytes.to_vec())).await.map(|written| written.version)
}

#[tokio::test]
async fn if_match_asks_for_the_latest_etag_and_an_absent_key_is_no_such_key() {
    for versioning in [Versioning::Enabled, Versioning::Unversioned] {
        let (_set, objects) = store(versioning).await;
        assert!(matches!(put_if(&objects, b"1", if_match("*")).await, Err(Error::NoSuchKey)));
        let one = put(&objects, b"1").await;
        let two = put_if(&objects, b"2", if_match(&etag(&one))).await.expect("it matches");
        let late = put_if(&objects, b"3", if_match(&etag(&one))).await;
        assert!(matches!(late, Err(Error::PreconditionFailed("If-Match"))), "{late:?}");
        assert_eq!(get(&objects, None).await.expect("two stands"), b"2");
        put_if(&objects, b"4", if_match("*")).await.expect("there is one");
        objects.delete("bucket", "k", None, Conditions::default(), false).await.expect("deleted");
        let gone = put_if(&objects, b"5", if_match(&etag(&two))).await;
        assert!(matches!(gone, Err(Error::NoSuchKey)), "{gone:?}");
    }
}

#[tokio::test]
async fn if_none_match_is_for_absent_and_deleted_keys() {
    for versioning in [Versioning::Enabled, Versioning::Unversioned, Versioning::Suspended] {
        let (_set, objects) = store(Versioning::Unversioned).await;
        if versioning != Versioning::Unversioned {
            objects.set_versioning("bucket", versioning).await.expect("set");
        }
        put_if(&objects, b"1", if_absent()).await.expect("nothing there");
        let held = put_if(&objects, b"2", if_absent()).await;
        assert!(matches!(held, Err(Error::PreconditionFailed("If-None-Match"))), "{held:?}");
        assert_eq!(get(&objects, None).await.expect("one stands"), b"1");
        objects.delete("bucket", "k", None, Conditions::default(), false).await.expect("deleted");
        put_if(&objects, b"3", if_absent()).await.expect("deleted is absent");
        assert_eq!(get(&objects, None).await.expect("three stands"), b"3");
    }
}

#[tokio::test]
async fn of_many_writers_with_one_etag_one_wins() {
    for versioning in [Versioning::Enabled, Versioning::Unversioned] {
        let (set, objects) = store(versioning).await;
        let base = etag(&put(&objects, b"base").await);
        let others: Vec<Objects> = (0..6).map(|_| set.start()).collect();
        let bodies: Vec<[u8; 1]> = (0..6).map(|n| [n]).collect();
        let writing = others.iter().zip(&bodies).map(|(o, bytes)| put_if(o, bytes, if_match(&base)));
        let done = join_all(writing).await;
        let winners: Vec<usize> = (0..6).filter(|n| done[*n].is_ok()).collect();
        let lost = |err: &Error| matches!(err, Error::PreconditionFailed(_));
        assert!(done.iter().filter_map(|d| d.as_ref().err()).all(lost), "{done:?}");
        assert_eq!(winners.len(), 1, "{done:?}");
        assert_eq!(get(&objects, None).await.expect("the winner's"), bodies[winners[0]]);
    }
}

#[tokio::test]
async fn a_replica_counts_for_conditions_like_a_version_born_here() {
    let (_elsewhere, origin) = store(Versioning::Enabled).await;
    let born = put(&origin, b"from elsewhere").await;
    let (_set, objects) = store(Versioning::Enabled).await;
    objects.apply("bucket", born.clone(), Some(body(&b"from elsewhere"[..])), None).await.expect("applied");
    assert!(matches!(put_if(&objects, b"x", if_absent()).await, Err(Error::PreconditionFailed(_))));
    let next = put_if(&objects, b"y", if_match(&etag(&born))).await.expect("it matches");
    let (next, born) = (next.birth.expect("written"), born.birth.expect("written"));
    assert!(next.order > born.order && next.base == Some(born.order));
}

#[tokio::test]
async fn a_delete_has_conditions_too() {
    let (_set, objects) = store(Versioning::Enabled).await;
    let delete = |version, conditions| objects.delete("bucket", "k", version, conditions, false);
    assert!(matches!(delete(None, if_match("*")).await, Err(Error::NoSuchKey)));
    let one = put(&objects, b"1").await;
    let two = put(&objects, b"2").await;
    assert!(matches!(delete(None, if_match(&etag(&one))).await, Err(Error::PreconditionFailed(_))));
    assert!(matches!(delete(Some(one.id), if_match(&etag(&two))).await, Err(Error::PreconditionFailed(_))));
    assert_eq!(get(&objects, Some(one.id)).await.expect("nothing was done"), b"1");
    delete(Some(one.id), if_match(&etag(&one))).await.expect("it matches");
    assert!(matches!(get(&objects, Some(one.id)).await, Err(Error::NoSuchVersion)));
    delete(None, if_match(&etag(&two))).await.expect("it matches");
    assert!(matches!(get(&objects, None).await, Err(Error::DeleteMarker { is_latest: true, .. })));
}

#[tokio::test]
async fn a_conditional_write_is_born_above_the_newest_version_though_an_older_one_came_later() {
    let (_elsewhere, there) = store(Versioning::Enabled).await;
    let mut old = put(&there, b"old").await;
    old.birth.as_mut().expect("it was written").order.hlc = crate::version::Hlc::from_millis(1);
    let (_set, objects) = store(Versioning::Enabled).await;
    let new = put(&objects, b"new").await;
    objects.apply("bucket", old.clone(), Some(body(b"old".to_vec())), None).await.expect("W");
    let third = put_if(&objects, b"third", if_match(&etag(&new))).await.expect("new is the latest");
    let order = |version: &Version| version.birth.as_ref().expect("it was written").order.clone();
    assert_eq!(third.birth.as_ref().expect("it was written").base, Some(order(&new)), "a conflict too many");
}
