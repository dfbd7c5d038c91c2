//! An S3 endpoint as a client of the SDK sees it, and what its buckets hold, in words that two endpoints can share.
use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Tag, Tagging};
use isthmus::store::s3::connect::{self, Keys};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where it is, and who asks.
#[derive(Clone)]
pub struct Endpoint {
    pub url: String,
    pub access_key: String,
    pub secret_key: String,
    /// The CA of an https endpoint.
    pub ca: Option<PathBuf>,
}

/// One object as it stands in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Id of the version at the site it was born.
    pub source_id: String,
    pub etag: String,
    pub bytes: usize,
    pub crc: u64,
    pub content_type: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
}

/// All of a key: objects newest first, how many markers, whether it reads as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    pub objects: Vec<Object>,
    pub markers: usize,
    pub is_deleted: bool,
}

impl Endpoint {
    pub async fn client(&self) -> Client {
        let keys = Keys {
            access_key_id: self.access_key.clone(),
            secret_access_key: self.secret_key.clone(),
            session_token: None,
        };
        let endpoint = connect::Endpoint {
            url: self.url.clone(),
            region: "us-east-1".into(),
            path_style: true,
            keys: Some(keys),
            ca: self.ca.as_ref().map(|file| std::fs::read(file).expect("read a CA")),
        };
        let spare = connect::client(&endpoint).await.expect("a client");
        // As applications have it.
        let usual = spare.config().to_builder().retry_config(RetryConfig::standard());
        Client::from_conf(usual.request_checksum_calculation(RequestChecksumCalculation::WhenSupported).build())
    }
}

/// Puts an object; returns its id.
pub async fn put(client: &Client, bucket: &str, key: &str, body: &str) -> String {
    let put = client.put_object().bucket(bucket).key(key).body(ByteStream::from(body.as_bytes().to_vec()));
    let put = put.metadata("colour", "blue").content_type("text/plain").cache_control("max-age=7");
    put.send().await.expect("put").version_id().expect("an id").to_string()
}

/// Puts an object of parts of these sizes; returns its id.
pub async fn put_parts(client: &Client, bucket: &str, key: &str, sizes: &[usize]) -> String {
    let begun = client.create_multipart_upload().bucket(bucket).key(key).metadata("colour", "green");
    let begun = begun.send().await.expect("begin the upload");
    let id = begun.upload_id().expect("an id");
    let mut parts = Vec::new();
    for (at, size) in sizes.iter().enumerate() {
        let number = i32::try_from(at).expect("few parts") + 1;
        let body: Vec<u8> = (0..*size).map(|i| (i * 31 + at * 7 + i / 4099) as u8).collect();
        let part = client.upload_part().bucket(bucket).key(key).upload_id(id).part_number(number);
        let sent = part.body(ByteStream::from(body)).send().await.expect("send a part");
        parts.push(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag().map(str::to_string)).build());
    }
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let end = client.complete_multipart_upload().bucket(bucket).key(key).upload_id(id).multipart_upload(parts);
    end.send().await.expect("end the upload").version_id().expect("an id").to_string()
}

/// Makes a delete marker; returns its id.
pub async fn delete(client: &Client, bucket: &str, key: &str) -> String {
    let made = client.delete_object().bucket(bucket).key(key).send().await.expect("delete");
    made.version_id().expect("a marker's id").to_string()
}

/// Ends one version.
pub async fn purge(client: &Client, bucket: &str, key: &str, id: &str) {
    client.delete_object().bucket(bucket).key(key).version_id(id).send().await.expect("delete a version");
}

pub async fn tag(client: &Client, bucket: &str, key: &str, id: &str, value: &str) {
    let tag = Tag::builder().key("stage + more").value(value).build().expect("a tag");
    let set = Tagging::builder().tag_set(tag).build().expect("a tag set");
    client.put_object_tagging().bucket(bucket).key(key).version_id(id).tagging(set).send().await.expect("tag");
}

/// Everything a bucket holds, by key.
pub async fn read(client: &Client, bucket: &str) -> BTreeMap<String, Key> {
    let mut keys: BTreeMap<String, Key> = BTreeMap::new();
    let (mut key_marker, mut id_marker) = (None, None);
    loop {
        let page = client.list_object_versions().bucket(bucket).set_key_marker(key_marker);
        let page = page.set_version_id_marker(id_marker).send().await.expect("list versions");
        for version in page.versions().iter().filter(|v| !is_canary(v.key())) {
            let (key, id) = (version.key().expect("a key"), version.version_id().expect("an id"));
            let object = object(client, bucket, key, id).await;
            keys.entry(key.into()).or_default().objects.push(object);
        }
        for marker in page.delete_markers().iter().filter(|m| !is_canary(m.key())) {
            let entry = keys.entry(marker.key().expect("a key").into()).or_default();
            entry.markers += 1;
            entry.is_deleted |= marker.is_latest() == Some(true);
        }
        key_marker = page.next_key_marker().map(str::to_string);
        id_marker = page.next_version_id_marker().map(str::to_string);
        if page.is_truncated() != Some(true) {
            return keys;
        }
    }
}

/// A gate that looks at its bucket again at this moment writes there and takes it away again.
fn is_canary(key: Option<&str>) -> bool {
    key.is_some_and(|key| key.starts_with(".isthmus/canary/"))
}

async fn object(client: &Client, bucket: &str, key: &str, id: &str) -> Object {
    let got = client.get_object().bucket(bucket).key(key).version_id(id).send().await.expect("get");
    let mut metadata: BTreeMap<String, String> = got.metadata().cloned().unwrap_or_default().into_iter().collect();
    let source_id = metadata.get("isthmus-source-version-id").cloned().unwrap_or_else(|| id.to_string());
    metadata.retain(|name, _| !name.starts_with("isthmus-source-"));
    let (etag, content_type) = (got.e_tag().unwrap_or_default().to_string(), got.content_type().map(str::to_string));
    let body = got.body.collect().await.expect("a whole body").into_bytes();
    let tags = client.get_object_tagging().bucket(bucket).key(key).version_id(id).send().await.expect("tags");
    let tags = tags.tag_set().iter().map(|t| (t.key().to_string(), t.value().to_string())).collect();
    let crc = body.iter().fold(7u64, |sum, byte| sum.wrapping_mul(1_099_511_628_211) ^ u64::from(*byte));
    Object { source_id, etag, bytes: body.len(), crc, content_type, metadata, tags }
}
