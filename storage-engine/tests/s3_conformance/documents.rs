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

/// A preflight as browsers send it: nobody signs it.
async fn preflight(store: &Store, path: &str, headers: &[(&str, &str)]) -> Answer {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("OPTIONS {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}\r\n", store.addr);
    store.send(request.as_bytes()).await
}

#[tokio::test]
async fn a_preflight_is_answered_as_the_buckets_cors_says() {
    let store = Store::with_bucket().await;
    let (origin, method) = (("Origin", "https://app.example.org"), ("Access-Control-Request-Method", "PUT"));
    let carried = ("Access-Control-Request-Headers", "X-Amz-Date, authorization");
    preflight(&store, "/box/k", &[origin, method]).await.error(403, "AccessForbidden");
    preflight(&store, "/nowhere/k", &[origin, method]).await.error(403, "AccessForbidden");
    preflight(&store, "/box/k", &[method]).await.error(400, "BadRequest");
    preflight(&store, "/box/k", &[origin]).await.error(400, "BadRequest");
    set(&store, "cors", CORS).await.expect(200);
    let allowed = preflight(&store, "/box/k", &[origin, method, carried]).await.expect(200);
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example.org"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "x-amz-date, authorization"),
        ("access-control-expose-headers", "ETag"),
        ("access-control-max-age", "3000"),
        ("access-control-allow-credentials", "true"),
        ("vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"),
    ] {
        assert_eq!(allowed.header(name), value, "{name}");
    }
    assert!(allowed.body.is_empty());
    let delete = ("Access-Control-Request-Method", "DELETE");
    preflight(&store, "/box/k", &[origin, delete]).await.error(403, "AccessForbidden");
    let stranger = ("Origin", "https://app.example.org.evil");
    preflight(&store, "/box/k", &[stranger, method]).await.error(403, "AccessForbidden");
    // The first rule that allows all of it answers; of any origin it allows no credentials.
    let open = "</CORSRule><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>HEAD</AllowedMethod></CORSRule>";
    set(&store, "cors", &CORS.replacen("</CORSRule>", open, 1)).await.expect(200);
    let head = ("Access-Control-Request-Method", "HEAD");
    let any = preflight(&store, "/box", &[stranger, head]).await.expect(200);
    assert_eq!(any.header("access-control-allow-origin"), "*");
    assert!(!any.headers.contains_key("access-control-allow-credentials"), "{any:?}");
    preflight(&store, "/box", &[stranger, head, carried]).await.error(403, "AccessForbidden");
    store.call(Call::new("DELETE", "/box").query("cors", "")).await.expect(204);
    preflight(&store, "/box/k", &[origin, method]).await.error(403, "AccessForbidden");
}

#[tokio::test]
async fn a_page_may_read_the_answers_its_bucket_allows_errors_too() {
    let store = Store::with_bucket().await;
    store.put("/box/k", b"hello").await;
    set(&store, "cors", CORS).await.expect(200);
    let from = |call: Call, origin: &str| call.header("origin", origin);
    let allowed = "https://app.example.org";
    let answer = store.call(from(Call::new("GET", "/box/k"), allowed)).await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), allowed);
    assert_eq!(answer.header("access-control-expose-headers"), "ETag");
    assert!(answer.header("vary").starts_with("Origin"));
    assert_eq!(answer.body, b"hello");
    let absent = store.call(from(Call::new("GET", "/box/absent"), allowed)).await.error(404, "NoSuchKey");
    assert_eq!(absent.header("access-control-allow-origin"), allowed);
    for call in [
        from(Call::new("GET", "/box/k"), "https://other.org"),
        from(Call::new("HEAD", "/box/k"), allowed),
        Call::new("GET", "/box/k"),
    ] {
        let answer = store.call(call).await.expect(200);
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{answer:?}");
    }
    // What a page may read is not what it may do: a request without a signature is refused all the same.
    let unsigned =
        format!("GET /box/k HTTP/1.1\r\nhost: {}\r\norigin: {allowed}\r\nconnection: close\r\n\r\n", store.addr);
    store.send(unsigned.as_bytes()).await.error(403, "AccessDenied");
}
