//! Documents of a bucket: CORS, lifecycle, policy, tags: kept as they were set, refused where S3 refuses them.
use crate::client::{Answer, Call, Store};

const CORS: &str = "<CORSConfiguration><CORSRule><AllowedOrigin>https://*.example.org</AllowedOrigin>\
    <AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod><AllowedHeader>*</AllowedHeader>\
    <ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>3000</MaxAgeSeconds></CORSRule></CORSConfiguration>";
const LIFECYCLE: &str = "<LifecycleConfiguration><Rule><ID>logs</ID><Filter><Prefix>logs/</Prefix></Filter>\
    <Status>Enabled</Status><Expiration><Days>30</Days></Expiration><NoncurrentVersionExpiration>\
    <NoncurrentDays>7</NoncurrentDays></NoncurrentVersionExpiration></Rule></LifecycleConfiguration>";
const POLICY: &str = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*",
    "Action": "s3:*", "Resource": ["arn:aws:s3:::box", "arn:aws:s3:::box/*"]}]}"#;

async fn set(store: &Store, kind: &str, document: &str) -> Answer {
    store.call(Call::new("PUT", "/box").query(kind, "").body(document.as_bytes()).with_md5()).await
}
async fn shown(store: &Store, kind: &str) -> Answer {
    store.call(Call::new("GET", "/box").query(kind, "")).await
}

#[tokio::test]
async fn documents_are_kept_as_they_were_set_over_a_restart_and_gone_once_removed() {
    let store = Store::with_bucket().await;
    let none = [
        ("cors", "NoSuchCORSConfiguration"),
        ("lifecycle", "NoSuchLifecycleConfiguration"),
        ("policy", "NoSuchBucketPolicy"),
        ("tagging", "NoSuchTagSet"),
    ];
    for (kind, code) in none {
        shown(&store, kind).await.error(404, code);
    }
    set(&store, "cors", CORS).await.expect(200);
    set(&store, "lifecycle", LIFECYCLE).await.expect(200);
    let status = set(&store, "policy", POLICY).await.status;
    assert!(matches!(status, 200 | 204), "{status}");
    let tags = "<Tagging><TagSet><Tag><Key>a=b</Key><Value>c &amp; d</Value></Tag></TagSet></Tagging>";
    let status = set(&store, "tagging", tags).await.status;
    assert!(matches!(status, 200 | 204), "{status}");
    let store = store.restart().await;
    let cors = shown(&store, "cors").await.expect(200);
    assert_eq!(cors.all("AllowedMethod"), ["GET", "PUT"]);
    assert_eq!((cors.one("AllowedOrigin"), cors.one("MaxAgeSeconds")), ("https://*.example.org".into(), "3000".into()));
    let lifecycle = shown(&store, "lifecycle").await.expect(200);
    assert_eq!((lifecycle.one("ID"), lifecycle.one("Days")), ("logs".into(), "30".into()));
    assert_eq!((lifecycle.one("Prefix"), lifecycle.one("NoncurrentDays")), ("logs/".into(), "7".into()));
    let policy = shown(&store, "policy").await.expect(200).text();
    assert!(policy.contains(r#""Effect":"Deny""#) && policy.contains("arn:aws:s3:::box/*"), "{policy}");
    assert_eq!(shown(&store, "tagging").await.expect(200).one("Key"), "a=b");
    for (kind, code) in none {
        store.call(Call::new("DELETE", "/box").query(kind, "")).await.expect(204);
        shown(&store, kind).await.error(404, code);
    }
    let nowhere = Call::new("PUT", "/nowhere").query("cors", "").body(CORS.as_bytes()).with_md5();
    store.call(nowhere).await.error(404, "NoSuchBucket");
}

#[tokio::test]
async fn documents_that_cannot_be_are_refused_and_leave_what_was_there() {
    let store = Store::with_bucket().await;
    set(&store, "cors", CORS).await.expect(200);
    let swapped = |document: &str, from: &str, to: &str| document.replace(from, to);
    for (kind, document, code) in [
        ("cors", "<CORSConfiguration></CORSConfiguration>".into(), "MalformedXML"),
        ("cors", swapped(CORS, ">PUT<", ">PATCH<"), "InvalidRequest"),
        ("cors", swapped(CORS, "https://*.example", "https://*.*.example"), "InvalidRequest"),
        ("lifecycle", swapped(LIFECYCLE, "Enabled", "On"), "MalformedXML"),
        ("lifecycle", swapped(LIFECYCLE, "<Days>30<", "<Days>0<"), "InvalidArgument"),
        ("policy", "{".into(), "MalformedPolicy"),
        ("policy", swapped(POLICY, "Deny", "Perhaps"), "MalformedPolicy"),
        ("policy", swapped(POLICY, ":::box", ":::other"), "MalformedPolicy"),
        ("policy", format!("{}{POLICY}", " ".repeat(20 << 10)), "MalformedPolicy"),
    ] {
        set(&store, kind, &document).await.error(400, code);
    }
    assert_eq!(shown(&store, "cors").await.expect(200).all("AllowedMethod").len(), 2);
    shown(&store, "policy").await.error(404, "NoSuchBucketPolicy");
}
