//! Requests that are wrong, cut, forged or too large: each gets its S3 error, and nothing of it is visible.
use crate::client::{Call, Payload, Store, crc32, md5, sha256};
use storage_engine::config::Limits;

const BODY: &[u8] = b"hello, world";

fn put() -> Call {
    Call::new("PUT", "/box/k").body(BODY)
}
fn trailers(value: &str) -> Vec<(String, String)> {
    vec![("x-amz-checksum-crc32".into(), value.into())]
}
fn signed(value: &str) -> Payload {
    Payload::Chunks { bytes: 5, trailers: trailers(value) }
}
fn unsigned(value: &str) -> Payload {
    Payload::UnsignedChunks { bytes: 5, trailers: trailers(value) }
}
fn swap(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes());
    let at = at.unwrap_or_else(|| panic!("{from} is not in the request"));
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

#[tokio::test]
async fn a_wrong_upload_is_named_and_leaves_nothing() {
    let store = Store::with_bucket().await;
    let right = crc32(BODY);
    let cases = [
        ("content-md5 of something else", put().header("content-md5", &md5(b"other")), 400, "BadDigest"),
        ("content-md5 that is none", put().header("content-md5", "bm8="), 400, "InvalidDigest"),
        ("checksum of something else", put().header("x-amz-checksum-crc32", &crc32(b"other")), 400, "BadDigest"),
        ("checksum that is none", put().header("x-amz-checksum-crc32", "AAAA"), 400, "InvalidRequest"),
        (
            "two checksums",
            put().header("x-amz-checksum-crc32", &right).header("x-amz-checksum-crc32c", "AAAAAA=="),
            400,
            "InvalidRequest",
        ),
        ("unknown algorithm", put().header("x-amz-sdk-checksum-algorithm", "MD4"), 400, "InvalidRequest"),
        (
            "sha256 of something else",
            put().header("x-amz-content-sha256", &sha256(b"other")),
            400,
            "XAmzContentSHA256Mismatch",
        ),
        ("wrong trailer, unsigned", put().payload(unsigned(&crc32(b"other"))), 400, "BadDigest"),
        ("wrong trailer, signed", put().payload(signed(&crc32(b"other"))), 400, "BadDigest"),
        (
            "trailer of another kind",
            put().payload(unsigned(&right)).header("x-amz-trailer", "x-amz-meta-late"),
            400,
            "InvalidRequest",
        ),
        (
            "trailer that does not come",
            put()
                .payload(Payload::UnsignedChunks { bytes: 5, trailers: vec![] })
                .header("x-amz-trailer", "x-amz-checksum-crc32"),
            400,
            "InvalidRequest",
        ),
        ("eleven tags", put().header("x-amz-tagging", &tags(11)), 400, "BadRequest"),
        ("a tag twice", put().header("x-amz-tagging", "a=1&a=2"), 400, "InvalidArgument"),
        ("metadata of 2,049 bytes", put().header("x-amz-meta-a", &"v".repeat(2048)), 400, "MetadataTooLarge"),
    ];
    for (what, call, status, code) in cases {
        let answer = store.call(call).await;
        assert_eq!((answer.status, answer.all("Code").concat().as_str()), (status, code), "{what}: {}", answer.text());
        store.get("/box/k").await.error(404, "NoSuchKey");
    }
}

fn tags(count: usize) -> String {
    (0..count).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join("&")
}

#[tokio::test]
async fn bytes_that_were_changed_on_the_way_are_found() {
    let store = Store::with_bucket().await;
    let chunks = put().payload(signed(&crc32(BODY))).sign(store.addr);
    let plain = put().sign(store.addr);
    let first_signature = String::from_utf8_lossy(&chunks).split_once("chunk-signature=").unwrap().1[..64].to_owned();
    let cases = [
        ("a byte of the body", swap(&plain, "hello", "hellO"), 400, "XAmzContentSHA256Mismatch"),
        ("a byte of a chunk", swap(&chunks, "\r\nhello\r\n", "\r\nhellO\r\n"), 403, "SignatureDoesNotMatch"),
        ("a chunk's signature", swap(&chunks, &first_signature, &"0".repeat(64)), 403, "SignatureDoesNotMatch"),
        ("the trailer", swap(&chunks, &crc32(BODY), &crc32(b"other")), 403, "SignatureDoesNotMatch"),
        ("the key", swap(&plain, "/box/k", "/box/j"), 403, "SignatureDoesNotMatch"),
        ("a header", swap(&plain, "x-amz-content-sha256: ", "x-amz-content-sha256: 0"), 403, "SignatureDoesNotMatch"),
        ("the length of a chunk", swap(&chunks, "5;chunk-signature", "4;chunk-signature"), 400, "InvalidRequest"),
    ];
    for (what, request, status, code) in cases {
        let answer = store.send(&request).await;
        assert_eq!((answer.status, answer.all("Code").concat().as_str()), (status, code), "{what}: {}", answer.text());
    }
    for key in ["/box/k", "/box/j"] {
        store.get(key).await.error(404, "NoSuchKey");
    }
}

#[tokio::test]
async fn lengths_that_do_not_fit_the_body_are_found() {
    let store = Store::with_bucket().await;
    let chunks = put().payload(unsigned(&crc32(BODY)));
    let decoded = |length: &str| {
        // Sent as it is signed: the client itself is wrong.
        let mut call = chunks.clone();
        call.decoded_length = Some(length.into());
        call
    };
    for (what, call, code) in [
        ("shorter than the body", decoded("11"), "InvalidRequest"),
        ("longer than the body", decoded("13"), "IncompleteBody"),
        ("no number", decoded("x"), "InvalidRequest"),
    ] {
        let answer = store.call(call).await;
        assert_eq!((answer.status, answer.all("Code").concat().as_str()), (400, code), "{what}: {}", answer.text());
    }
    // The head promises more than comes before the client hangs up.
    let long = put().header("content-length", "13").sign(store.addr);
    assert!([0, 400].contains(&store.send_cut(&long).await.status));
    let none = put().header("x-amz-content-sha256", "UNSIGNED-PAYLOAD").header("transfer-encoding", "chunked");
    let none = swap(&none.sign(store.addr), "content-length: 12\r\n", "");
    let none = swap(&none, "hello, world", "c\r\nhello, world\r\n0\r\n\r\n");
    store.send(&none).await.error(411, "MissingContentLength");
    store.get("/box/k").await.error(404, "NoSuchKey");
}

#[tokio::test]
async fn heads_that_cannot_be_are_refused() {
    let store = Store::with_bucket().await;
    let get = |path: &str| Call::new("GET", path);
    let cases = [
        (get("/box/k").header("x-minio-source-etag", "v"), 400, "InvalidRequest"),
        (get("/box/k").header("x-isthmus-origin", "v"), 400, "InvalidRequest"),
        (get("/box/k").header("x-amz-replication-status", "REPLICA"), 400, "InvalidRequest"),
        (put().header("x-amz-server-side-encryption", "aws:kms"), 501, "NotImplemented"),
        (put().header("x-amz-server-side-encryption-customer-algorithm", "AES256"), 501, "NotImplemented"),
        (put().header("x-amz-acl", "public-read"), 400, "AccessControlListNotSupported"),
        (get("/box/k").header("x-padding", &"v".repeat(17_000)), 400, "RequestHeaderSectionTooLarge"),
        (Call::new("POST", "/box").header("content-type", "multipart/form-data; boundary=x"), 501, "NotImplemented"),
        (get("/no"), 400, "InvalidBucketName"),
        (get("/UPPER/k"), 400, "InvalidBucketName"),
        (Call::new("PUT", "/a_b"), 400, "InvalidBucketName"),
        (Call::new("PUT", "/a..b"), 400, "InvalidBucketName"),
        (Call::new("PUT", "/10.0.0.1"), 400, "InvalidBucketName"),
        (Call::new("PUT", "/xn--abc"), 400, "InvalidBucketName"),
        (Call::new("PUT", &format!("/{}", "b".repeat(64))), 400, "InvalidBucketName"),
        (get(&format!("/box/{}", "k".repeat(1025))), 400, "KeyTooLongError"),
        (get(&format!("/box/{}", "é".repeat(513))), 400, "KeyTooLongError"),
        (get("/box/k").query("versionId", "x"), 400, "InvalidArgument"),
        (get("/box").query("encoding-type", "base64"), 400, "InvalidArgument"),
    ];
    for (call, status, code) in cases {
        let answer = store.call(call.clone()).await;
        assert_eq!(
            (answer.status, answer.all("Code").concat().as_str()),
            (status, code),
            "{call:?}: {}",
            answer.text()
        );
        assert!(!answer.one("Message").is_empty(), "{call:?}: an error says what to do");
    }
    let keys = ["k".repeat(1024), "é".repeat(512)];
    for key in keys {
        store.get(&format!("/box/{key}")).await.error(404, "NoSuchKey");
    }
}

#[tokio::test]
async fn documents_that_cannot_be_are_refused() {
    let store = Store::with_bucket().await;
    store.put("/box/k", b"kept").await;
    let delete = |xml: &str| Call::new("POST", "/box").query("delete", "").body(xml.as_bytes());
    let many = "<Object><Key>k</Key></Object>".repeat(1001);
    let large = format!("<Delete><!--{}--></Delete>", "x".repeat(2 << 20));
    let cases = [
        (delete(&format!("<Delete>{many}</Delete>")).with_md5(), 400, "MalformedXML"),
        (delete("<Delete></Delete>").with_md5(), 400, "MalformedXML"),
        (delete("<Delete><Object><Key>k</Key>").with_md5(), 400, "MalformedXML"),
        (delete("not XML").with_md5(), 400, "MalformedXML"),
        (delete(&large).with_md5(), 400, "MaxMessageLengthExceeded"),
        (delete(&large).payload(Payload::Chunks { bytes: 65_536, trailers: vec![] }), 400, "MaxMessageLengthExceeded"),
    ];
    for (call, status, code) in cases {
        let answer = store.call(call).await;
        assert_eq!((answer.status, answer.all("Code").concat().as_str()), (status, code), "{}", answer.text());
    }
    assert_eq!(store.get("/box/k").await.expect(200).body, b"kept");
}

#[tokio::test]
async fn documents_may_come_in_chunks_and_are_held_to_what_they_say() {
    let store = Store::with_bucket().await;
    let xml = b"<Delete><Object><Key>k</Key></Object></Delete>";
    let delete = |payload: Payload| Call::new("POST", "/box").query("delete", "").body(xml).payload(payload);
    let signed = |value: &str| Payload::Chunks { bytes: 9, trailers: trailers(value) };
    let unsigned = |value: &str| Payload::UnsignedChunks { bytes: 9, trailers: trailers(value) };
    store.put("/box/k", b"x").await;
    for payload in [signed(&crc32(b"other")), unsigned(&crc32(b"other"))] {
        store.call(delete(payload)).await.error(400, "BadDigest");
    }
    store.call(delete(signed(&crc32(xml))).header("content-md5", &md5(b"other"))).await.error(400, "BadDigest");
    let request = delete(signed(&crc32(xml))).sign(store.addr);
    store.send(&swap(&request, "ey>k", "ey>j")).await.error(403, "SignatureDoesNotMatch");
    let mut forged = delete(unsigned(&crc32(xml)));
    forged.secret_key = "another secret".into();
    store.call(forged).await.error(403, "SignatureDoesNotMatch");
    store.send(&delete(unsigned(&crc32(xml))).unsigned(store.addr)).await.error(403, "AccessDenied");
    assert_eq!(store.get("/box/k").await.expect(200).body, b"x", "nothing of it was done");
    for payload in [signed(&crc32(xml)), unsigned(&crc32(xml)), Payload::Chunks { bytes: 9, trailers: vec![] }] {
        store.put("/box/k", b"x").await;
        let done = store.call(delete(payload)).await.expect(200);
        assert_eq!(done.all("Key"), ["k"], "{}", done.text());
        store.get("/box/k").await.error(404, "NoSuchKey");
    }
    let xml = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    let enable = Call::new("PUT", "/box").query("versioning", "").body(xml.as_bytes());
    store.call(enable.payload(unsigned(&crc32(xml.as_bytes())))).await.expect(200);
    assert_eq!(store.call(Call::new("GET", "/box").query("versioning", "")).await.one("Status"), "Enabled");
}

#[tokio::test]
async fn who_fails_to_log_in_too_often_waits_and_nobody_else_does() {
    let store = Store::with_limits(Limits { failed_logins_per_minute_max: 2, ..Limits::default() }).await;
    let with_secret = |key: &str, secret: &str| {
        let mut call = Call::new("GET", "/box/k");
        (call.access_key, call.secret_key) = (key.into(), secret.into());
        call
    };
    for _ in 0..2 {
        store.call(with_secret("guesser", "a wrong secret")).await.error(403, "SignatureDoesNotMatch");
    }
    let slow = store.call(with_secret("guesser", "a wrong secret")).await.error(503, "SlowDown");
    assert!((1..=60).contains(&slow.header("retry-after").parse::<u32>().unwrap()));
    store.get("/box/k").await.error(404, "NoSuchKey");
    let presigned = with_secret("guesser", "another wrong secret").presign(store.addr, 60);
    store.send(&presigned).await.error(503, "SlowDown");
}
