//! Who gets in, and what every answer looks like.
use crate::client::{Call, Store, settings};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage_engine::clock::SystemClock;
use storage_engine::config::Limits;
use storage_engine::node::StoreNode;
use storage_engine::version::Origin;

#[tokio::test]
async fn wrong_secrets_and_unknown_keys_get_the_same_answer() {
    let store = Store::with_bucket().await;
    let mut wrong = Call::new("GET", "/box/k");
    wrong.secret_key = "another secret".into();
    let mut unknown = Call::new("GET", "/box/k");
    unknown.access_key = "nobody".into();
    let wrong = store.call(wrong).await.error(403, "SignatureDoesNotMatch");
    let unknown = store.call(unknown).await.error(403, "SignatureDoesNotMatch");
    assert_eq!(wrong.one("Message"), unknown.one("Message"));
}

#[tokio::test]
async fn failed_logins_are_counted_by_reason_and_what_a_user_may_not_do_is_none() {
    let store = Store::with_limits(Limits { failed_logins_per_minute_max: 1, ..Limits::default() }).await;
    let get = || Call::new("GET", "/box/k");
    let (mut wrong, mut skewed) = (get(), get());
    wrong.access_key = "nobody".into();
    skewed.at -= 16 * 60;
    store.send(&get().unsigned(store.addr)).await.error(403, "AccessDenied");
    store.call(skewed).await.error(403, "RequestTimeTooSkewed");
    store.call(wrong.clone()).await.error(403, "SignatureDoesNotMatch");
    store.call(wrong).await.error(503, "SlowDown");
    store.call(get()).await.error(404, "NoSuchKey");
    store.call(Call::new("HEAD", "/box/k")).await.expect(404);
    let failed = store.metrics.snapshot().logins_failed;
    assert_eq!(failed, BTreeMap::from([("clock", 1), ("denied", 1), ("signature", 1), ("too_often", 1)]));
}

#[tokio::test]
async fn anonymous_old_double_skewed_and_foreign_requests_are_refused() {
    let store = Store::with_bucket().await;
    let get = || Call::new("GET", "/box/k");
    store.send(&get().unsigned(store.addr)).await.error(403, "AccessDenied");
    store
        .send(&get().header("authorization", "AWS writer:c2ln").unsigned(store.addr))
        .await
        .error(400, "InvalidRequest");
    let v2 = get().query("AWSAccessKeyId", "writer").query("Signature", "x").query("Expires", "9999999999");
    store.send(&v2.unsigned(store.addr)).await.error(400, "InvalidRequest");
    let both = get().header("authorization", "AWS4-HMAC-SHA256 x").presign(store.addr, 60);
    store.send(&both).await.error(400, "InvalidRequest");
    let mut skewed = get();
    skewed.at -= 16 * 60;
    store.call(skewed).await.error(403, "RequestTimeTooSkewed");
    let mut elsewhere = get();
    elsewhere.region = "eu-west-1".into();
    store.call(elsewhere).await.error(400, "AuthorizationHeaderMalformed");
    for name in
        ["x-minio-source-mtime", "x-isthmus-origin", "x-amz-replication-status", "x-rustfs-x", "x-minio-internal-y"]
    {
        store.call(get().header(name, "v")).await.error(400, "InvalidRequest");
    }
    store.call(get().header("x-amz-security-token", "t")).await.error(400, "InvalidToken");
    store.call(get().header("x-amz-server-side-encryption", "AES256")).await.error(501, "NotImplemented");
}

#[tokio::test]
async fn a_presigned_request_holds_for_its_time_and_its_words() {
    let store = Store::with_bucket().await;
    let put = Call::new("PUT", "/box/k").body(b"presigned").presign(store.addr, 60);
    store.send(&put).await.expect(200);
    let get = Call::new("GET", "/box/k").query("response-content-type", "text/x").presign(store.addr, 60);
    let answer = store.send(&get).await.expect(200);
    assert_eq!((answer.body.as_slice(), answer.header("content-type")), (&b"presigned"[..], "text/x"));
    let other = String::from_utf8(get).unwrap().replace("GET /box/k", "GET /box/l");
    store.send(other.as_bytes()).await.error(403, "SignatureDoesNotMatch");
    let mut old = Call::new("GET", "/box/k");
    old.at -= 61;
    store.send(&old.presign(store.addr, 60)).await.error(403, "AccessDenied");
    store
        .send(&Call::new("GET", "/box/k").presign(store.addr, 604_801))
        .await
        .error(400, "AuthorizationQueryParametersError");
}

#[tokio::test]
async fn errors_name_what_is_wrong() {
    let store = Store::with_bucket().await;
    store.get("/absent/k").await.error(404, "NoSuchBucket");
    let absent = store.get("/box/absent").await.error(404, "NoSuchKey");
    assert!(absent.headers.contains_key("x-amz-request-id"));
    store.call(Call::new("PUT", "/box")).await.error(409, "BucketAlreadyOwnedByYou");
    store.call(Call::new("PUT", "/B_")).await.error(400, "InvalidBucketName");
    store.put("/box/k", b"x").await;
    store.call(Call::new("DELETE", "/box")).await.error(409, "BucketNotEmpty");
    store.call(Call::new("GET", "/box").query("logging", "")).await.error(501, "NotImplemented");
    store.call(Call::new("HEAD", "/box/absent")).await.expect(404);
}

#[tokio::test]
async fn buckets_are_made_found_listed_and_removed() {
    let store = Store::with_bucket().await;
    store.call(Call::new("PUT", "/other")).await.expect(200);
    assert_eq!(store.get("/").await.expect(200).all("Name"), ["box", "other"].map(str::to_owned));
    let head = store.call(Call::new("HEAD", "/box")).await.expect(200);
    assert_eq!(head.header("x-amz-bucket-region"), "us-east-1");
    assert!(
        store
            .call(Call::new("GET", "/box").query("location", ""))
            .await
            .expect(200)
            .text()
            .contains("LocationConstraint")
    );
    store.call(Call::new("DELETE", "/other")).await.expect(204);
    store.call(Call::new("HEAD", "/other")).await.expect(404);
    assert_eq!(store.get("/").await.all("Name"), ["box"]);
}

#[tokio::test]
async fn what_was_acked_is_there_after_a_restart_and_drives_have_one_process() {
    let store = Store::with_bucket().await;
    store.put("/box/k", b"kept").await;
    let second = StoreNode::open(&settings(&store.dir), Arc::new(SystemClock), Origin::new("here")).await;
    assert!(second.is_err_and(|e| e.to_string().contains("in use")));
    let store = store.restart().await;
    assert_eq!(store.get("/box/k").await.expect(200).body, b"kept");
}
