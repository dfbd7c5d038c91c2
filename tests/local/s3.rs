//! An S3 client that never retries and says what it knows: done, refused, or unknown.
use crate::site::{ACCESS_KEY, BUCKET, SECRET_KEY};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, StalledStreamProtectionConfig};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Tag, Tagging};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// A request that takes longer has an unknown outcome.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client knows of a request that was not done.
#[derive(Clone, Debug)]
pub enum Miss {
    /// The server said no: nothing happened. Status, code and message.
    Refused(u16, String),
    /// No answer, or one that leaves it open (5xx).
    Unknown(String),
}

pub type Said<T> = Result<T, Miss>;
pub type Tags = BTreeMap<String, String>;

#[derive(Clone, Debug)]
pub struct S3 {
    pub client: Client,
}

impl S3 {
    pub fn new(addr: SocketAddr) -> S3 {
        let patience = TimeoutConfig::builder().operation_timeout(PATIENCE).build();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "tests"))
            .endpoint_url(format!("http://{addr}"))
            .force_path_style(true)
            .retry_config(RetryConfig::disabled())
            .timeout_config(patience)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        S3 { client: Client::from_conf(config) }
    }

    /// Puts an object; its version id.
    pub async fn put(&self, key: &str, body: Bytes) -> Said<String> {
        let sent = self.client.put_object().bucket(BUCKET).key(key).body(ByteStream::from(body)).send().await;
        Ok(sent.map_err(miss)?.version_id.expect("a versioned bucket gives version ids"))
    }

    /// Deletes the key: the version id of the marker.
    pub async fn delete(&self, key: &str) -> Said<String> {
        let sent = self.client.delete_object().bucket(BUCKET).key(key).send().await;
        Ok(sent.map_err(miss)?.version_id.expect("a versioned bucket makes markers"))
    }

    /// Deletes one version for good.
    pub async fn purge(&self, key: &str, id: &str) -> Said<()> {
        self.client.delete_object().bucket(BUCKET).key(key).version_id(id).send().await.map_err(miss)?;
        Ok(())
    }

    pub async fn tag(&self, key: &str, id: &str, tags: &Tags) -> Said<()> {
        let set = tags.iter().map(|(k, v)| Tag::builder().key(k).value(v).build().expect("a whole tag")).collect();
        let tagging = Tagging::builder().set_tag_set(Some(set)).build().expect("a whole tag set");
        let request = self.client.put_object_tagging().bucket(BUCKET).key(key).version_id(id).tagging(tagging);
        request.send().await.map_err(miss)?;
        Ok(())
    }

    pub async fn tags(&self, key: &str, id: &str) -> Said<Tags> {
        let got = self.client.get_object_tagging().bucket(BUCKET).key(key).version_id(id).send().await;
        Ok(got.map_err(miss)?.tag_set.into_iter().map(|t| (t.key, t.value)).collect())
    }

    /// Reads one version whole: the SHA-256 of its bytes.
    pub async fn read(&self, key: &str, id: &str) -> Said<String> {
        let got = self.client.get_object().bucket(BUCKET).key(key).version_id(id).send().await;
        let (mut body, mut hash) = (got.map_err(miss)?.body, Sha256::new());
        while let Some(chunk) = body.try_next().await.map_err(|e| Miss::Unknown(e.to_string()))? {
            hash.update(&chunk);
        }
        Ok(hex(&hash.finalize()))
    }

    /// Ids of all versions and markers below a prefix of a bucket.
    pub async fn ids(&self, bucket: &str, prefix: &str) -> BTreeSet<String> {
        let (mut all, mut key, mut id) = (BTreeSet::new(), None, None);
        loop {
            let page = self.client.list_object_versions().bucket(bucket).prefix(prefix);
            let page = page.set_key_marker(key).set_version_id_marker(id).send().await.expect("a list of versions");
            all.extend(page.versions().iter().filter_map(|v| v.version_id().map(String::from)));
            all.extend(page.delete_markers().iter().filter_map(|m| m.version_id().map(String::from)));
            if page.is_truncated() != Some(true) {
                return all;
            }
            (key, id) = (page.next_key_marker().map(String::from), page.next_version_id_marker().map(String::from));
        }
    }

    /// Whether the key's versions list this one, marker or object; `false` also when nobody answers.
    pub async fn is_listed(&self, key: &str, id: &str) -> bool {
        let request = self.client.list_object_versions().bucket(BUCKET).prefix(key);
        request.send().await.is_ok_and(|page| {
            page.versions().iter().any(|v| v.key() == Some(key) && v.version_id() == Some(id))
                || page.delete_markers().iter().any(|m| m.key() == Some(key) && m.version_id() == Some(id))
        })
    }

    /// Starts an upload and sends its parts; what Complete needs.
    pub async fn upload(&self, key: &str, parts: &[Bytes]) -> Said<Upload> {
        let made = self.client.create_multipart_upload().bucket(BUCKET).key(key).send().await.map_err(miss)?;
        let id = made.upload_id.expect("an upload has an id");
        let mut done = Vec::new();
        for (number, body) in (1..).zip(parts) {
            let request = self.client.upload_part().bucket(BUCKET).key(key).upload_id(&id).part_number(number);
            let sent = request.body(ByteStream::from(body.clone())).send().await.map_err(miss)?;
            let part = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag);
            done.push(part.set_checksum_crc32(sent.checksum_crc32).build());
        }
        Ok(Upload { id, parts: CompletedMultipartUpload::builder().set_parts(Some(done)).build() })
    }

    /// Completes an upload: the version id.
    pub async fn complete(&self, key: &str, upload: &Upload) -> Said<String> {
        let request = self.client.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(&upload.id);
        let sent = request.multipart_upload(upload.parts.clone()).send().await;
        Ok(sent.map_err(miss)?.version_id.expect("a versioned bucket gives version ids"))
    }
}

/// An upload whose parts are all there.
#[derive(Clone)]
pub struct Upload {
    id: String,
    parts: CompletedMultipartUpload,
}

/// Sorts an error: only a 4xx says that nothing happened.
pub fn miss<E>(error: SdkError<E>) -> Miss
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = error.raw_response().map(|r| r.status().as_u16());
    match (&error, status) {
        (SdkError::ServiceError(said), Some(status @ 400..500)) => {
            let text = format!("{} {}", said.err().code().unwrap_or("-"), said.err().message().unwrap_or("-"));
            Miss::Refused(status, text)
        }
        _ => Miss::Unknown(format!("{status:?} {}", DisplayErrorContext(&error))),
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
