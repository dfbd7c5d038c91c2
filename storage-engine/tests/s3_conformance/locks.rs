//! Object lock: configuration of a bucket, retention and legal hold of a version, and what they forbid.
use crate::client::{ACCESS_KEY, Answer, Call, PLAIN_KEY, Store};

const FAR: &str = "2120-01-02T03:04:05Z";
const FARTHER: &str = "2121-01-02T03:04:05Z";
const PAST: &str = "2020-01-02T03:04:05Z";

/// A store with a bucket `safe` that was made with object lock.
async fn store() -> Store {
    let store = Store::with_bucket().await;
    store.call(Call::new("PUT", "/safe").header("x-amz-bucket-object-lock-enabled", "true")).await.expect(200);
    store
}
async fn document(store: &Store, path: &str, kind: &str, xml: &str) -> Answer {
    store.call(Call::new("PUT", path).query(kind, "").body(xml.as_bytes()).with_md5()).await
}
async fn shown(store: &Store, path: &str, kind: &str) -> Answer {
    store.call(Call::new("GET", path).query(kind, "")).await
}
fn retention(mode: &str, until: &str) -> String {
    format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>")
}
fn by_default(rule: &str) -> String {
    let rule = format!("<Rule><DefaultRetention>{rule}</DefaultRetention></Rule>");
    format!("<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}</ObjectLockConfiguration>")
}
fn delete(path: &str, id: &str) -> Call {
    Call::new("DELETE", path).query("versionId", id)
}

#[tokio::test]
async fn a_bucket_made_with_object_lock_is_versioned_for_ever() {
    let store = store().await;
    let lock = shown(&store, "/safe", "object-lock").await.expect(200);
    assert_eq!((lock.one("ObjectLockEnabled").as_str(), lock.all("Rule").len()), ("Enabled", 0));
    assert_eq!(shown(&store, "/safe", "versioning").await.one("Status"), "Enabled");
    let off = "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";
    document(&store, "/safe", "versioning", off).await.error(409, "InvalidBucketState");
    let store = store.restart().await;
    shown(&store, "/safe", "object-lock").await.expect(200);
}

#[tokio::test]
async fn object_lock_is_turned_on_where_versioning_is_and_nowhere_else() {
    let store = Store::with_bucket().await;
    shown(&store, "/box", "object-lock").await.error(404, "ObjectLockConfigurationNotFoundError");
    let on = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
    document(&store, "/box", "object-lock", on).await.error(409, "InvalidBucketState");
    store.put("/box/k", b"1").await;
    for kind in ["retention", "legal-hold"] {
        shown(&store, "/box/k", kind).await.error(400, "InvalidRequest");
    }
    document(&store, "/box/k", "retention", &retention("GOVERNANCE", FAR)).await.error(400, "InvalidRequest");
    let hold = Call::new("PUT", "/box/k").header("x-amz-object-lock-legal-hold", "ON");
    store.call(hold.clone()).await.error(400, "InvalidRequest");
    let upload = Call::new("POST", "/box/k").query("uploads", "").header("x-amz-object-lock-legal-hold", "ON");
    store.call(upload).await.error(400, "InvalidRequest");
    document(&store, "/none", "object-lock", on).await.error(404, "NoSuchBucket");

    store.versioning("Enabled").await;
    document(&store, "/box", "object-lock", on).await.expect(200);
    shown(&store, "/box", "object-lock").await.expect(200);
    shown(&store, "/box/k", "retention").await.error(404, "NoSuchObjectLockConfiguration");
    shown(&store, "/box/k", "legal-hold").await.error(404, "NoSuchObjectLockConfiguration");
    store.call(hold).await.expect(200);
}

#[tokio::test]
async fn configurations_that_cannot_be_are_refused() {
    let store = store().await;
    let cases = [
        ("<ObjectLockConfiguration></ObjectLockConfiguration>".to_owned(), "MalformedXML"),
        (by_default("<Mode>GOVERNANCE</Mode>"), "MalformedXML"),
        (by_default("<Days>1</Days>"), "MalformedXML"),
        (by_default("<Mode>governance</Mode><Days>1</Days>"), "MalformedXML"),
        (by_default("<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>"), "MalformedXML"),
        (by_default("<Mode>GOVERNANCE</Mode><Days>0</Days>"), "InvalidArgument"),
        (by_default("<Mode>GOVERNANCE</Mode><Days>-1</Days>"), "InvalidArgument"),
        (by_default("<Mode>GOVERNANCE</Mode><Years>101</Years>"), "InvalidArgument"),
    ];
    for (xml, code) in cases {
        let answer = document(&store, "/safe", "object-lock", &xml).await;
        assert_eq!((answer.status, answer.one("Code").as_str()), (400, code), "{xml}: {}", answer.text());
    }
    assert!(shown(&store, "/safe", "object-lock").await.expect(200).all("Rule").is_empty());
}

#[tokio::test]
async fn a_default_retention_is_given_to_what_asks_for_none() {
    let store = store().await;
    let rule = by_default("<Mode>COMPLIANCE</Mode><Days>3</Days>");
    document(&store, "/safe", "object-lock", &rule).await.expect(200);
    let lock = shown(&store, "/safe", "object-lock").await.expect(200);
    assert_eq!((lock.one("Mode").as_str(), lock.one("Days").as_str()), ("COMPLIANCE", "3"));
    let plain = store.put("/safe/plain", b"1").await.header("x-amz-version-id").to_owned();
    let asking = Call::new("PUT", "/safe/asking").body(b"1");
    let asking =
        asking.header("x-amz-object-lock-mode", "GOVERNANCE").header("x-amz-object-lock-retain-until-date", FAR);
    store.call(asking).await.expect(200);
    let copy = Call::new("PUT", "/safe/copy").header("x-amz-copy-source", "/safe/asking");
    store.call(copy).await.expect(200);
    let mode = async |path: &str| {
        let head = store.call(Call::new("HEAD", path)).await.expect(200);
        head.header("x-amz-object-lock-mode").to_owned()
    };
    assert_eq!(mode("/safe/plain").await, "COMPLIANCE");
    assert_eq!(mode("/safe/asking").await, "GOVERNANCE");
    assert_eq!(mode("/safe/copy").await, "COMPLIANCE", "guards are not copied");
    let upload = store.call(Call::new("POST", "/safe/parts").query("uploads", "")).await.expect(200).one("UploadId");
    let part = Call::new("PUT", "/safe/parts").query("uploadId", &upload).query("partNumber", "1").body(b"1");
    let tag = store.call(part).await.expect(200).header("etag").to_owned();
    let xml = format!("<Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part>");
    let xml = format!("<CompleteMultipartUpload>{xml}</CompleteMultipartUpload>");
    let complete = Call::new("POST", "/safe/parts").query("uploadId", &upload).body(xml.as_bytes());
    store.call(complete.clone()).await.expect(200);
    store.call(complete).await.expect(200);
    assert_eq!(mode("/safe/parts").await, "COMPLIANCE");
    let bypass = delete("/safe/plain", &plain).header("x-amz-bypass-governance-retention", "true");
    store.call(bypass).await.error(403, "AccessDenied");
}

#[tokio::test]
async fn retention_is_extended_freely_and_shortened_only_with_a_bypass() {
    let store = store().await;
    let id = store.put("/safe/k", b"1").await.header("x-amz-version-id").to_owned();
    let set = async |xml: &str, bypass: bool| {
        let call = Call::new("PUT", "/safe/k").query("retention", "").query("versionId", &id).body(xml.as_bytes());
        let call = if bypass { call.header("x-amz-bypass-governance-retention", "true") } else { call };
        store.call(call.with_md5()).await
    };
    set(&retention("GOVERNANCE", PAST), false).await.error(400, "InvalidArgument");
    set(&retention("governance", FAR), false).await.error(400, "MalformedXML");
    set("<Retention><Mode>GOVERNANCE</Mode></Retention>", false).await.error(400, "MalformedXML");
    set(&retention("GOVERNANCE", FARTHER), false).await.expect(200);
    set(&retention("GOVERNANCE", FAR), false).await.error(403, "AccessDenied");
    set("<Retention></Retention>", false).await.error(403, "AccessDenied");
    set(&retention("GOVERNANCE", FAR), true).await.expect(200);
    let shown = shown(&store, "/safe/k", "retention").await.expect(200);
    assert_eq!(shown.one("Mode"), "GOVERNANCE");
    assert!(shown.one("RetainUntilDate").starts_with("2120-01-02T03:04:05"), "{}", shown.text());
    let get = store.get("/safe/k").await.expect(200);
    assert_eq!(get.header("x-amz-object-lock-mode"), "GOVERNANCE");
    assert!(get.header("x-amz-object-lock-retain-until-date").starts_with("2120-01-02T03:04:05"));

    store.call(delete("/safe/k", &id)).await.error(403, "AccessDenied");
    set(&retention("COMPLIANCE", FARTHER), false).await.expect(200);
    for weaker in [retention("COMPLIANCE", FAR), retention("GOVERNANCE", FARTHER), "<Retention/>".into()] {
        set(&weaker, true).await.error(403, "AccessDenied");
    }
    let bypass = || delete("/safe/k", &id).header("x-amz-bypass-governance-retention", "true");
    store.call(bypass()).await.error(403, "AccessDenied");
    store.call(Call::new("DELETE", "/safe/k")).await.expect(204);
    let kept = store.call(Call::new("GET", "/safe/k").query("versionId", &id)).await.expect(200);
    assert_eq!(kept.body, b"1");
}

#[tokio::test]
async fn only_users_with_the_right_bypass_governance_and_others_lose_nothing_by_asking() {
    let store = store().await;
    let bypassing = |call: Call, access_key: &str| {
        let mut call = call.header("x-amz-bypass-governance-retention", "true");
        call.access_key = access_key.into();
        call
    };
    let id = store.put("/safe/k", b"1").await.header("x-amz-version-id").to_owned();
    document(&store, "/safe/k", "retention", &retention("GOVERNANCE", FAR)).await.expect(200);
    let shorten = || Call::new("PUT", "/safe/k").query("retention", "").body(b"<Retention></Retention>").with_md5();
    let many = format!("<Delete><Object><Key>k</Key><VersionId>{id}</VersionId></Object></Delete>");
    let many = || Call::new("POST", "/safe").query("delete", "").body(many.as_bytes()).with_md5();
    store.call(bypassing(delete("/safe/k", &id), PLAIN_KEY)).await.error(403, "AccessDenied");
    store.call(bypassing(shorten(), PLAIN_KEY)).await.error(403, "AccessDenied");
    assert_eq!(store.call(bypassing(many(), PLAIN_KEY)).await.expect(200).one("Code"), "AccessDenied");
    let free = store.put("/safe/free", b"1").await.header("x-amz-version-id").to_owned();
    store.call(bypassing(delete("/safe/free", &free), PLAIN_KEY)).await.expect(204);
    assert!(store.call(bypassing(many(), ACCESS_KEY)).await.expect(200).all("Code").is_empty());
    store.call(Call::new("GET", "/safe/k").query("versionId", &id)).await.error(404, "NoSuchVersion");
}

#[tokio::test]
async fn a_legal_hold_stands_until_it_is_lifted() {
    let store = store().await;
    let hold = |status: &str| format!("<LegalHold><Status>{status}</Status></LegalHold>");
    let held = Call::new("PUT", "/safe/k").header("x-amz-object-lock-legal-hold", "ON").body(b"1");
    let id = store.call(held).await.expect(200).header("x-amz-version-id").to_owned();
    assert_eq!(shown(&store, "/safe/k", "legal-hold").await.expect(200).one("Status"), "ON");
    let head = store.call(Call::new("HEAD", "/safe/k")).await.expect(200);
    assert_eq!(head.header("x-amz-object-lock-legal-hold"), "ON");
    assert!(!head.headers.contains_key("x-amz-object-lock-mode"));
    let bypass = delete("/safe/k", &id).header("x-amz-bypass-governance-retention", "true");
    store.call(bypass).await.error(403, "AccessDenied");
    let xml = format!("<Delete><Object><Key>k</Key><VersionId>{id}</VersionId></Object></Delete>");
    let many = Call::new("POST", "/safe").query("delete", "").body(xml.as_bytes()).with_md5();
    assert_eq!(store.call(many.clone()).await.expect(200).one("Code"), "AccessDenied");
    document(&store, "/safe/k", "legal-hold", &hold("on")).await.error(400, "MalformedXML");
    document(&store, "/safe/k", "legal-hold", &hold("OFF")).await.expect(200);
    assert_eq!(shown(&store, "/safe/k", "legal-hold").await.expect(200).one("Status"), "OFF");
    assert!(store.call(many).await.expect(200).all("Code").is_empty());
    store.get("/safe/k").await.error(404, "NoSuchKey");
}

#[tokio::test]
async fn lock_headers_that_cannot_be_are_refused() {
    let store = store().await;
    let put = |headers: &[(&str, &str)]| {
        let named = headers.iter().map(|(n, v)| (format!("x-amz-object-lock-{n}"), *v));
        named.fold(Call::new("PUT", "/safe/k").body(b"1"), |call, (name, value)| call.header(&name, value))
    };
    for headers in [
        &[("mode", "GOVERNANCE")][..],
        &[("retain-until-date", FAR)],
        &[("mode", "LAX"), ("retain-until-date", FAR)],
        &[("mode", "GOVERNANCE"), ("retain-until-date", PAST)],
        &[("mode", "GOVERNANCE"), ("retain-until-date", "tomorrow")],
        &[("legal-hold", "MAYBE")],
    ] {
        store.call(put(headers)).await.error(400, "InvalidArgument");
    }
    store.get("/safe/k").await.error(404, "NoSuchKey");
}
