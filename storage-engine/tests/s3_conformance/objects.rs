//! Objects: bytes in and out, bodies that lie, ranges, conditions, headers, tags, copies, lists.
use crate::client::{Call, Payload, Store, crc32, etag, md5};

fn trailer(value: &str) -> Vec<(String, String)> {
    vec![("x-amz-checksum-crc32".into(), value.into())]
}

#[tokio::test]
async fn an_object_comes_back_as_it_went_in() {
    let store = Store::with_bucket().await;
    for size in [0, 1, 4096, 65_537, 3 << 20] {
        let body: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
        let put = store.put("/box/k", &body).await;
        assert_eq!(put.header("etag"), etag(&body));
        assert!(!put.headers.contains_key("x-amz-version-id"), "the bucket has no versions");
        let get = store.get("/box/k").await.expect(200);
        assert!(get.body == body, "{size} bytes");
        assert_eq!(get.header("content-type"), "binary/octet-stream");
        let head = store.call(Call::new("HEAD", "/box/k")).await.expect(200);
        assert_eq!(head.header("content-length"), size.to_string());
        assert_eq!(head.header("etag"), etag(&body));
    }
}

#[tokio::test]
async fn chunked_bodies_arrive_with_their_trailing_checksum() {
    let store = Store::with_bucket().await;
    let body: Vec<u8> = (0..200_000u32).map(|i| (i % 255) as u8).collect();
    let payloads = [
        Payload::Chunks { bytes: 65_536, trailers: vec![] },
        Payload::Chunks { bytes: 65_536, trailers: trailer(&crc32(&body)) },
        Payload::UnsignedChunks { bytes: 65_536, trailers: trailer(&crc32(&body)) },
    ];
    for payload in payloads {
        let has_trailer = !matches!(&payload, Payload::Chunks { trailers, .. } if trailers.is_empty());
        let put = store.call(Call::new("PUT", "/box/k").body(&body).payload(payload)).await.expect(200);
        assert_eq!(put.header("etag"), etag(&body));
        let get = store.call(Call::new("GET", "/box/k").header("x-amz-checksum-mode", "ENABLED")).await.expect(200);
        assert!(get.body == body);
        assert!(!get.headers.contains_key("content-encoding"), "aws-chunked is of the transfer");
        if has_trailer {
            assert_eq!(get.header("x-amz-checksum-crc32"), crc32(&body));
            assert_eq!(get.header("x-amz-checksum-type"), "FULL_OBJECT");
        }
        store.call(Call::new("DELETE", "/box/k")).await.expect(204);
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_it_claims_leaves_nothing() {
    let store = Store::with_bucket().await;
    let put = || Call::new("PUT", "/box/k").body(b"hello");
    let unsigned = |value: &str| Payload::UnsignedChunks { bytes: 3, trailers: trailer(value) };
    let gone = || async { store.get("/box/k").await.error(404, "NoSuchKey") };
    store.call(put().header("content-md5", &md5(b"other"))).await.error(400, "BadDigest");
    store.call(put().header("content-md5", "bm8=")).await.error(400, "InvalidDigest");
    store.call(put().header("x-amz-checksum-crc32", &crc32(b"other"))).await.error(400, "BadDigest");
    gone().await;
    let other = crate::client::sha256(b"other");
    store.call(put().header("x-amz-content-sha256", &other)).await.error(400, "XAmzContentSHA256Mismatch");
    gone().await;
    store.call(put().payload(unsigned(&crc32(b"other")))).await.error(400, "BadDigest");
    let promised = put()
        .payload(Payload::UnsignedChunks { bytes: 3, trailers: vec![] })
        .header("x-amz-trailer", "x-amz-checksum-crc32");
    store.call(promised).await.error(400, "InvalidRequest");
    let signed = Payload::Chunks { bytes: 3, trailers: trailer(&crc32(b"hello")) };
    let request = put().payload(signed).sign(store.addr);
    let corrupt = replace(&request, b"hel\r\n", b"heL\r\n");
    store.send(&corrupt).await.error(403, "SignatureDoesNotMatch");
    let other_trailer = replace(&request, crc32(b"hello").as_bytes(), crc32(b"hellp").as_bytes());
    store.send(&other_trailer).await.error(403, "SignatureDoesNotMatch");
    gone().await;
}

#[tokio::test]
async fn a_body_cut_anywhere_leaves_nothing() {
    let store = Store::with_bucket().await;
    let plain = Call::new("PUT", "/box/k").body(b"hello, world").sign(store.addr);
    let chunks = Payload::Chunks { bytes: 4, trailers: trailer(&crc32(b"hello, world")) };
    let chunked = Call::new("PUT", "/box/k").body(b"hello, world").payload(chunks).sign(store.addr);
    for request in [plain, chunked] {
        let body = request.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        for end in (body..request.len()).step_by(5) {
            let answer = store.send_cut(&request[..end]).await;
            assert!([0, 400].contains(&answer.status), "cut at {end}: {}", answer.text());
        }
    }
    store.get("/box/k").await.error(404, "NoSuchKey");
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match bytes.windows(from.len()).position(|w| w == from) {
        Some(at) => [&bytes[..at], to, &bytes[at + from.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

#[tokio::test]
async fn keys_are_just_keys() {
    let store = Store::with_bucket().await;
    let long = "k".repeat(1024);
    let keys = [
        "../../etc/passwd",
        "a/../b",
        ".",
        "//x",
        "dir/",
        "a b+c&d=e?f#g%41",
        "\u{1}\u{7f}\n",
        "näé/€/🦀",
        "<&\">'",
        &long,
    ];
    for key in keys {
        store.put(&format!("/box/{key}"), key.as_bytes()).await;
    }
    for key in keys {
        let get = store.get(&format!("/box/{key}")).await.expect(200);
        assert_eq!(get.body, key.as_bytes(), "{key:?}");
    }
    let list =
        store.call(Call::new("GET", "/box").query("list-type", "2").query("encoding-type", "url")).await.expect(200);
    let mut listed: Vec<String> = list.all("Key").iter().map(|k| decode(k)).collect();
    let mut all = keys.map(str::to_owned).to_vec();
    all.sort();
    listed.sort();
    assert_eq!(listed, all);
    store.call(Call::new("PUT", &format!("/box/{}", "k".repeat(1025)))).await.error(400, "KeyTooLongError");
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let pair = [bytes.next().unwrap(), bytes.next().unwrap()];
            out.push(u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap());
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn ranges_give_what_they_name() {
    let store = Store::with_bucket().await;
    let body: Vec<u8> = (0..2_500_000u32).map(|i| (i % 253) as u8).collect();
    store.put("/box/k", &body).await;
    let range = |r: &str| store.call(Call::new("GET", "/box/k").header("range", r));
    let cases = [
        ("bytes=0-4", 0..5),
        ("bytes=10-", 10..2_500_000),
        ("bytes=-7", 2_499_993..2_500_000),
        ("bytes=2499999-9999999", 2_499_999..2_500_000),
    ];
    for (header, bytes) in cases {
        let answer = range(header).await.expect(206);
        assert_eq!(answer.header("content-range"), format!("bytes {}-{}/2500000", bytes.start, bytes.end - 1));
        assert!(answer.body == body[bytes], "{header}");
    }
    let past = range("bytes=2500000-").await.error(416, "InvalidRange");
    assert_eq!(past.header("content-range"), "bytes */2500000");
    let head = store.call(Call::new("HEAD", "/box/k").header("range", "bytes=0-4")).await.expect(206);
    assert_eq!(head.header("content-length"), "5");
    let stale = Call::new("GET", "/box/k").header("range", "bytes=0-4").header("if-range", "\"other\"");
    assert_eq!(store.call(stale).await.expect(200).body.len(), body.len());
    store.put("/box/empty", b"").await;
    store.call(Call::new("GET", "/box/empty").header("range", "bytes=0-")).await.error(416, "InvalidRange");
}

#[tokio::test]
async fn conditions_hold_reads_and_writes() {
    let store = Store::with_bucket().await;
    let put = |name: &str, value: &str| store.call(Call::new("PUT", "/box/k").body(b"new").header(name, value));
    let get = |name: &str, value: &str| store.call(Call::new("GET", "/box/k").header(name, value));
    put("if-none-match", "*").await.expect(200);
    put("if-none-match", "*").await.error(412, "PreconditionFailed");
    put("if-match", "\"other\"").await.error(412, "PreconditionFailed");
    put("if-match", &etag(b"new")).await.expect(200);
    get("if-match", &etag(b"new")).await.expect(200);
    get("if-match", "\"other\"").await.error(412, "PreconditionFailed");
    let fresh = get("if-none-match", &etag(b"new")).await.expect(304);
    assert_eq!(fresh.header("etag"), etag(b"new"));
    assert_eq!(fresh.body, b"");
    let modified = store.get("/box/k").await.header("last-modified").to_owned();
    get("if-modified-since", &modified).await.expect(304);
    get("if-unmodified-since", &modified).await.expect(200);
    get("if-unmodified-since", "Tue, 01 Jan 2019 00:00:00 GMT").await.error(412, "PreconditionFailed");
    store.call(Call::new("HEAD", "/box/k").header("if-none-match", &etag(b"new"))).await.expect(304);
}

#[tokio::test]
async fn headers_metadata_and_tags_stay_with_the_object() {
    let store = Store::with_bucket().await;
    let put = Call::new("PUT", "/box/k")
        .body(b"x")
        .header("content-type", "text/plain")
        .header("cache-control", "max-age=9")
        .header("content-disposition", "attachment")
        .header("content-encoding", "gzip")
        .header("content-language", "de")
        .header("expires", "Wed, 21 Oct 2026 07:28:00 GMT")
        .header("x-amz-meta-colour", "blue")
        .header("x-amz-tagging", "a=1&b=x%20y");
    store.call(put).await.expect(200);
    for method in ["GET", "HEAD"] {
        let answer = store.call(Call::new(method, "/box/k")).await.expect(200);
        let seen = [
            "content-type",
            "cache-control",
            "content-disposition",
            "content-encoding",
            "content-language",
            "expires",
            "x-amz-meta-colour",
            "x-amz-tagging-count",
        ]
        .map(|name| answer.header(name).to_owned());
        assert_eq!(
            seen,
            ["text/plain", "max-age=9", "attachment", "gzip", "de", "Wed, 21 Oct 2026 07:28:00 GMT", "blue", "2"]
        );
    }
    let tags = || store.call(Call::new("GET", "/box/k").query("tagging", ""));
    assert_eq!(tags().await.expect(200).all("Value"), ["1", "x y"]);
    let set = |n: usize| {
        let tags: String = (0..n).map(|i| format!("<Tag><Key>k{i}</Key><Value>v</Value></Tag>")).collect();
        let xml = format!("<Tagging><TagSet>{tags}</TagSet></Tagging>");
        store.call(Call::new("PUT", "/box/k").query("tagging", "").body(xml.as_bytes()).with_md5())
    };
    set(3).await.expect(200);
    assert_eq!(tags().await.all("Key"), ["k0", "k1", "k2"]);
    set(11).await.error(400, "BadRequest");
    store.call(Call::new("DELETE", "/box/k").query("tagging", "")).await.expect(204);
    assert_eq!(tags().await.expect(200).all("Key").len(), 0);
    let big = Call::new("PUT", "/box/k").header("x-amz-meta-a", &"v".repeat(2048));
    store.call(big).await.error(400, "MetadataTooLarge");
}

#[tokio::test]
async fn a_copy_takes_along_or_replaces_what_was_asked() {
    let store = Store::with_bucket().await;
    let put = Call::new("PUT", "/box/a b").body(b"copied").header("x-amz-meta-m", "1").header("x-amz-tagging", "t=1");
    store.call(put).await.expect(200);
    let copy = |to: &str| Call::new("PUT", to).header("x-amz-copy-source", "/box/a%20b");
    let answer = store.call(copy("/box/c")).await.expect(200);
    assert_eq!(answer.one("ETag"), etag(b"copied"));
    let get = store.get("/box/c").await.expect(200);
    assert_eq!(
        (get.header("x-amz-meta-m"), get.header("x-amz-tagging-count"), get.body.as_slice()),
        ("1", "1", &b"copied"[..])
    );
    store.call(copy("/box/a b")).await.error(400, "InvalidRequest");
    let replace = copy("/box/a b").header("x-amz-metadata-directive", "REPLACE").header("x-amz-meta-m", "2");
    store.call(replace).await.expect(200);
    assert_eq!(store.get("/box/a b").await.header("x-amz-meta-m"), "2");
    store.call(copy("/box/d").header("x-amz-copy-source-if-match", "\"other\"")).await.error(412, "PreconditionFailed");
    store.call(Call::new("PUT", "/box/d").header("x-amz-copy-source", "/box/absent")).await.error(404, "NoSuchKey");
}

#[tokio::test]
async fn lists_page_through_prefixes_and_keys() {
    let store = Store::with_bucket().await;
    for key in ["a", "d/1", "d/2", "e", "f/x/1", "g"] {
        store.put(&format!("/box/{key}"), b"x").await;
    }
    let v2 = || Call::new("GET", "/box").query("list-type", "2").query("delimiter", "/");
    let all = store.call(v2()).await.expect(200);
    assert_eq!((all.all("Key"), all.one("KeyCount")), (vec!["a".into(), "e".into(), "g".into()], "5".into()));
    let prefixes = |a: &crate::client::Answer| {
        a.all("CommonPrefixes").iter().map(|p| p.replace("<Prefix>", "").replace("</Prefix>", "")).collect::<Vec<_>>()
    };
    assert_eq!(prefixes(&all), ["d/", "f/"]);
    let (mut seen, mut token) = (Vec::new(), None::<String>);
    loop {
        let page = v2().query("max-keys", "2");
        let page = token.iter().fold(page, |call, t| call.query("continuation-token", t));
        let page = store.call(page).await.expect(200);
        seen.extend(page.all("Key"));
        seen.extend(prefixes(&page));
        token = page.all("NextContinuationToken").pop();
        assert_eq!(page.one("IsTruncated"), token.is_some().to_string());
        if token.is_none() {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, ["a", "d/", "e", "f/", "g"]);
    let v1 = store.call(Call::new("GET", "/box").query("marker", "d/1").query("max-keys", "2")).await.expect(200);
    assert_eq!((v1.all("Key"), v1.one("IsTruncated")), (vec!["d/2".into(), "e".into()], "true".into()));
    store.call(v2().query("continuation-token", "!")).await.error(400, "InvalidArgument");
    store.call(v2().query("max-keys", "-1")).await.error(400, "InvalidArgument");
    let none = store.call(v2().query("max-keys", "0")).await.expect(200);
    assert_eq!((none.one("KeyCount"), none.one("IsTruncated")), ("0".into(), "false".into()));
    let after = store.call(Call::new("GET", "/box").query("list-type", "2").query("start-after", "e")).await;
    assert_eq!(after.all("Key"), ["f/x/1", "g"]);
}

#[tokio::test]
async fn many_keys_are_deleted_at_once() {
    let store = Store::with_bucket().await;
    store.put("/box/one", b"1").await;
    store.put("/box/two", b"2").await;
    let xml = b"<Delete><Object><Key>one</Key></Object><Object><Key>absent</Key></Object><Object><Key>two</Key><VersionId>bad</VersionId></Object></Delete>";
    let delete = || Call::new("POST", "/box").query("delete", "").body(xml);
    store.call(delete().header("content-md5", &md5(b"other"))).await.error(400, "BadDigest");
    let answer = store.call(delete().with_md5()).await.expect(200);
    let text = answer.text();
    assert!(text.contains("<Key>one</Key>") && text.contains("<Key>absent</Key>"), "{text}");
    assert_eq!(answer.all("Code"), ["InvalidArgument"]);
    store.get("/box/one").await.error(404, "NoSuchKey");
    store.get("/box/two").await.expect(200);
}

#[tokio::test]
async fn attributes_show_the_etag_bare() {
    let store = Store::with_bucket().await;
    store
        .call(Call::new("PUT", "/box/k").body(b"hello").header("x-amz-checksum-crc32", &crc32(b"hello")))
        .await
        .expect(200);
    let ask = Call::new("GET", "/box/k")
        .query("attributes", "")
        .header("x-amz-object-attributes", "ETag,ObjectSize,Checksum");
    let answer = store.call(ask).await.expect(200);
    assert_eq!(answer.one("ETag"), etag(b"hello").trim_matches('"'));
    assert_eq!((answer.one("ObjectSize"), answer.one("ChecksumCRC32")), ("5".into(), crc32(b"hello")));
}
