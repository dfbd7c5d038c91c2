//! Multipart uploads.
use crate::client::{Answer, Call, Store, etag};

const PART: usize = 5 << 20;

async fn begin(store: &Store, key: &str) -> String {
    let create =
        Call::new("POST", key).query("uploads", "").header("x-amz-meta-m", "1").header("content-type", "text/x");
    store.call(create).await.expect(200).one("UploadId")
}
async fn part(store: &Store, key: &str, id: &str, number: usize, body: &[u8]) -> Answer {
    let call = Call::new("PUT", key).query("uploadId", id).query("partNumber", &number.to_string());
    store.call(call.body(body)).await
}
async fn complete(store: &Store, key: &str, id: &str, parts: &[(usize, String)]) -> Answer {
    let parts: String =
        parts.iter().map(|(n, e)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{e}</ETag></Part>")).collect();
    let xml = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    store.call(Call::new("POST", key).query("uploadId", id).body(xml.as_bytes())).await
}

#[tokio::test]
async fn parts_become_one_object() {
    let store = Store::with_bucket().await;
    let id = begin(&store, "/box/k").await;
    let first = vec![7u8; PART];
    let one = part(&store, "/box/k", &id, 1, &first).await.expect(200).header("etag").to_owned();
    assert_eq!(one, etag(&first));
    let two = part(&store, "/box/k", &id, 2, b"tail").await.expect(200).header("etag").to_owned();
    store.get("/box/k").await.error(404, "NoSuchKey");
    let listed = store.call(Call::new("GET", "/box/k").query("uploadId", &id)).await.expect(200);
    assert_eq!(
        (listed.all("PartNumber"), listed.all("Size")),
        (vec!["1".into(), "2".into()], vec![PART.to_string(), "4".into()])
    );
    let open = store.call(Call::new("GET", "/box").query("uploads", "")).await.expect(200);
    assert_eq!(open.all("UploadId"), std::slice::from_ref(&id));

    let done = complete(&store, "/box/k", &id, &[(1, one), (2, two)]).await.expect(200);
    assert!(done.one("ETag").ends_with("-2\""), "{}", done.text());
    let get = store.get("/box/k").await.expect(200);
    assert!(get.body == [&first[..], b"tail"].concat());
    assert_eq!((get.header("x-amz-meta-m"), get.header("content-type")), ("1", "text/x"));
    let second = store.call(Call::new("GET", "/box/k").query("partNumber", "2")).await.expect(206);
    assert_eq!((second.body.as_slice(), second.header("x-amz-mp-parts-count")), (&b"tail"[..], "2"));
    store.call(Call::new("GET", "/box/k").query("partNumber", "3")).await.error(416, "InvalidPartNumber");
    assert_eq!(store.call(Call::new("GET", "/box").query("uploads", "")).await.all("UploadId").len(), 0);
}

#[tokio::test]
async fn parts_that_do_not_fit_are_refused_and_the_upload_goes_on() {
    let store = Store::with_bucket().await;
    let id = begin(&store, "/box/k").await;
    let one = part(&store, "/box/k", &id, 1, b"small").await.expect(200).header("etag").to_owned();
    let two = part(&store, "/box/k", &id, 2, b"tail").await.expect(200).header("etag").to_owned();
    complete(&store, "/box/k", &id, &[(1, one.clone()), (2, two.clone())]).await.error(400, "EntityTooSmall");
    complete(&store, "/box/k", &id, &[(2, two), (1, one.clone())]).await.error(400, "InvalidPartOrder");
    complete(&store, "/box/k", &id, &[(1, etag(b"other"))]).await.error(400, "InvalidPart");
    complete(&store, "/box/k", &id, &[]).await.error(400, "MalformedXML");
    part(&store, "/box/k", &id, 0, b"x").await.error(400, "InvalidArgument");
    part(&store, "/box/k", &id, 10_001, b"x").await.error(400, "InvalidArgument");
    part(&store, "/box/k", "no-such-upload", 1, b"x").await.error(404, "NoSuchUpload");
    store.get("/box/k").await.error(404, "NoSuchKey");
    complete(&store, "/box/k", &id, &[(1, one)]).await.expect(200);
    assert_eq!(store.get("/box/k").await.expect(200).body, b"small");
}

#[tokio::test]
async fn an_aborted_upload_is_gone() {
    let store = Store::with_bucket().await;
    let id = begin(&store, "/box/k").await;
    let one = part(&store, "/box/k", &id, 1, b"x").await.expect(200).header("etag").to_owned();
    store.call(Call::new("DELETE", "/box/k").query("uploadId", &id)).await.expect(204);
    complete(&store, "/box/k", &id, &[(1, one)]).await.error(404, "NoSuchUpload");
    store.get("/box/k").await.error(404, "NoSuchKey");
}

#[tokio::test]
async fn a_part_can_be_a_range_of_another_object() {
    let store = Store::with_bucket().await;
    store.put("/box/src", b"0123456789").await;
    let id = begin(&store, "/box/k").await;
    let copy = |range: &str| {
        let call = Call::new("PUT", "/box/k").query("uploadId", &id).query("partNumber", "1");
        store.call(call.header("x-amz-copy-source", "box/src").header("x-amz-copy-source-range", range))
    };
    copy("bytes=5-10").await.error(400, "InvalidArgument");
    copy("bytes=5-").await.error(400, "InvalidArgument");
    let etag = copy("bytes=2-5").await.expect(200).one("ETag");
    complete(&store, "/box/k", &id, &[(1, etag)]).await.expect(200);
    assert_eq!(store.get("/box/k").await.expect(200).body, b"2345");
}
