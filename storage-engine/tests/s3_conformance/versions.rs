//! Versions: ids, delete markers, the null version.
use crate::client::{Call, Store};

#[tokio::test]
async fn every_write_of_a_versioned_bucket_stays_reachable() {
    let store = Store::with_bucket().await;
    store.versioning("Enabled").await;
    let first = store.put("/box/k", b"first").await.header("x-amz-version-id").to_owned();
    let second = store.put("/box/k", b"second").await.header("x-amz-version-id").to_owned();
    let by_id = |id: &str| store.call(Call::new("GET", "/box/k").query("versionId", id));
    assert_eq!(by_id(&first).await.expect(200).body, b"first");
    let latest = store.get("/box/k").await.expect(200);
    assert_eq!((latest.body.as_slice(), latest.header("x-amz-version-id")), (&b"second"[..], second.as_str()));

    let delete = store.call(Call::new("DELETE", "/box/k")).await.expect(204);
    assert_eq!(delete.header("x-amz-delete-marker"), "true");
    let marker = delete.header("x-amz-version-id").to_owned();
    let gone = store.get("/box/k").await.error(404, "NoSuchKey");
    assert_eq!((gone.header("x-amz-delete-marker"), gone.header("x-amz-version-id")), ("true", marker.as_str()));
    let unreadable = by_id(&marker).await.error(405, "MethodNotAllowed");
    assert_eq!((unreadable.header("x-amz-delete-marker"), unreadable.header("allow")), ("true", "DELETE"));

    let list = store.call(Call::new("GET", "/box").query("versions", "")).await.expect(200);
    assert_eq!((list.all("Version").len(), list.all("DeleteMarker").len()), (2, 1));
    assert_eq!(list.all("VersionId").len(), 3);
    assert!(list.all("DeleteMarker")[0].contains("<IsLatest>true</IsLatest>"));
    assert!(list.all("Version")[0].contains(&second), "newest first");

    let undo = store.call(Call::new("DELETE", "/box/k").query("versionId", &marker)).await.expect(204);
    assert_eq!((undo.header("x-amz-delete-marker"), undo.header("x-amz-version-id")), ("true", marker.as_str()));
    assert_eq!(store.get("/box/k").await.expect(200).body, b"second");
    store.call(Call::new("DELETE", "/box/k").query("versionId", &second)).await.expect(204);
    assert_eq!(store.get("/box/k").await.expect(200).body, b"first");
    by_id(&second).await.error(404, "NoSuchVersion");
    by_id("not an id").await.error(400, "InvalidArgument");
}

#[tokio::test]
async fn a_suspended_bucket_writes_null_versions() {
    let store = Store::with_bucket().await;
    store.put("/box/k", b"before").await;
    let state = || store.call(Call::new("GET", "/box").query("versioning", ""));
    assert_eq!(state().await.expect(200).all("Status").len(), 0);
    store.versioning("Enabled").await;
    assert_eq!(state().await.one("Status"), "Enabled");
    store.put("/box/k", b"kept").await;
    let null = store.call(Call::new("GET", "/box/k").query("versionId", "null")).await.expect(200);
    assert_eq!((null.body.as_slice(), null.header("x-amz-version-id")), (&b"before"[..], "null"));
    store.versioning("Suspended").await;
    assert_eq!(store.put("/box/k", b"over").await.header("x-amz-version-id"), "null");
    let list = store.call(Call::new("GET", "/box").query("versions", "")).await.expect(200);
    assert_eq!(list.all("Version").len(), 2, "the null version was replaced: {}", list.text());
    let bad = b"<VersioningConfiguration><Status>Off</Status></VersioningConfiguration>";
    let bad = store.call(Call::new("PUT", "/box").query("versioning", "").body(bad)).await;
    bad.error(400, "IllegalVersioningConfigurationException");
}

#[tokio::test]
async fn version_lists_page_within_a_key() {
    let store = Store::with_bucket().await;
    store.versioning("Enabled").await;
    let mut ids = Vec::new();
    for body in ["1", "2", "3"] {
        ids.push(store.put("/box/k", body.as_bytes()).await.header("x-amz-version-id").to_owned());
    }
    ids.reverse();
    let (mut seen, mut call) = (Vec::new(), Call::new("GET", "/box").query("versions", "").query("max-keys", "1"));
    loop {
        let page = store.call(call).await.expect(200);
        seen.extend(page.all("VersionId"));
        if page.one("IsTruncated") == "false" {
            break;
        }
        call = Call::new("GET", "/box")
            .query("versions", "")
            .query("max-keys", "1")
            .query("key-marker", &page.one("NextKeyMarker"));
        call = page.all("NextVersionIdMarker").iter().fold(call, |c, id| c.query("version-id-marker", id));
        assert!(seen.len() < 9, "the list does not end");
    }
    assert_eq!(seen, ids);
}
