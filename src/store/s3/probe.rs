//! Whether a bucket can be a target, and how it is spoken to: its settings, then a canary (an object, a delete marker,
//! the end of both) under a reserved key. What is wrong with it is named as a condition. Called before anything is sent,
//! and the settings again and again after.
use super::connect::{self, Endpoint};
use super::dialect::uuid;
use super::error::of;
use super::send::Terms;
use super::{Dialect, Error, Target, in_time};
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockEnabled};
use std::sync::{Arc, Mutex};
use storage_engine::version::{Birth, Hlc, Kind, Order, Origin, Version, VersionId};

/// What stands in every canary's key, behind the rule's prefix.
pub const CANARY: &str = ".isthmus/canary/";

/// A canary's id, key prefix and time.
#[derive(Clone, Debug)]
pub struct Canary {
    pub prefix: String,
    pub id: VersionId,
    pub now_millis: u64,
}

/// Finds out whether the bucket is fit, and its dialect: the one wanted, or (`None`) the first it keeps ids in.
///
/// # Errors
/// Any [`Error`]; [`Error::Unfit`] says what a person must do.
pub async fn open(endpoint: &Endpoint, bucket: &str, want: Option<Dialect>, canary: &Canary) -> Result<Target, Error> {
    let client = connect::client(endpoint).await;
    let client = client.map_err(|message| Error::Unfit { reason: "EndpointInvalid", message })?;
    let mut target = Target::new(client, bucket.into(), want.unwrap_or(Dialect::Aws), false);
    target.has_lock = target.check().await?;
    if want.is_some() {
        return match target.sing(canary).await {
            Ok(true) => Ok(target),
            Ok(false) => Err(changes_ids(target.dialect, "it gave another id")),
            Err(Error::Refused(said)) if target.dialect.keeps_ids() => Err(changes_ids(target.dialect, &said)),
            Err(e) => Err(e),
        };
    }
    for dialect in [Dialect::MinIO, Dialect::RustFs, Dialect::Ceph] {
        target.dialect = dialect;
        match target.sing(canary).await {
            Ok(true) => {
                if dialect == Dialect::MinIO && target.server().await?.to_ascii_lowercase().contains("rustfs") {
                    target.dialect = Dialect::RustFs;
                }
                return Ok(target);
            }
            // It knows no such request, or goes its own way.
            Ok(false) | Err(Error::Refused(_) | Error::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    target.dialect = Dialect::Aws;
    target.sing(canary).await?;
    Ok(target)
}

fn changes_ids(dialect: Dialect, said: &str) -> Error {
    let name = dialect.name();
    let message = format!(
        "it does not keep version ids in the dialect {name}; set spec.s3.dialect of the Peer to Auto or AWS, or give the credentials the right to replicate ({said})"
    );
    Error::Unfit { reason: "TargetChangesVersionIds", message }
}

impl Target {
    /// Whether the bucket is there and versioned; returns whether it takes retention and legal hold.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn check(&self) -> Result<bool, Error> {
        let versioning = self.client.get_bucket_versioning().bucket(&self.bucket).send();
        match in_time(0, async { versioning.await.map_err(of) }).await {
            Ok(versioning) if versioning.status() == Some(&BucketVersioningStatus::Enabled) => {}
            Ok(_) => return Err(self.unversioned()),
            Err(Error::NotFound) => {
                let message =
                    format!("bucket {} does not exist at the endpoint; make it, with versioning enabled", self.bucket);
                return Err(Error::Unfit { reason: "TargetBucketNotFound", message });
            }
            Err(Error::Refused(said)) => return Err(denied(&self.bucket, &said)),
            // Some servers answer in another form: the canary tells.
            Err(Error::Unreadable(_)) => {}
            Err(e) => return Err(e),
        }
        let lock = self.client.get_object_lock_configuration().bucket(&self.bucket).send();
        match in_time(0, async { lock.await.map_err(of) }).await {
            Ok(lock) => {
                let enabled = lock.object_lock_configuration().and_then(|c| c.object_lock_enabled());
                Ok(enabled == Some(&ObjectLockEnabled::Enabled))
            }
            // Without a configuration, without the feature, or without the right to read it.
            Err(Error::NotFound | Error::Refused(_) | Error::Unreadable(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn unversioned(&self) -> Error {
        let message = format!(
            "versioning of bucket {} is not enabled at the endpoint; enable it, an unversioned bucket keeps one version of a key",
            self.bucket
        );
        Error::Unfit { reason: "TargetNotVersioned", message }
    }

    /// Writes, deletes and ends a canary; whether its ids were kept (plain S3 need not).
    async fn sing(&self, canary: &Canary) -> Result<bool, Error> {
        let version = self.canary(canary, Kind::Object, 0);
        let birth = version.birth.as_ref().expect("it was just born");
        let terms = Terms { object_lock: false, now_millis: canary.now_millis };
        let put = self.put(&version, birth, &terms, None).await?;
        if put == "null" {
            return Err(self.unversioned());
        }
        let is_kept = |id: &str, of: &Version| !self.dialect.keeps_ids() || id == uuid(of.id);
        let mut ids_kept = is_kept(&put, &version);
        if !ids_kept {
            self.purge_quietly(&version, &put).await;
            return Ok(false);
        }
        let head = self.head(&version.key, &put).await;
        let has_metadata = head.as_ref().is_ok_and(|h| h.as_ref().is_some_and(|h| h.identity.is_some()));
        let marker = self.canary(canary, Kind::DeleteMarker, 1);
        let marked = self.mark(&marker).await;
        self.purge_quietly(&version, &put).await;
        if let Ok(id) = &marked {
            ids_kept = is_kept(id, &marker);
            self.purge_quietly(&marker, id).await;
        }
        head?;
        marked?;
        if !has_metadata {
            let message =
                "it does not give back the user metadata of an object, which say whose it is; it cannot be a target";
            return Err(Error::Unfit { reason: "TargetDropsMetadata", message: message.into() });
        }
        Ok(ids_kept)
    }

    fn canary(&self, canary: &Canary, kind: Kind, place: u8) -> Version {
        let mut id = *canary.id.as_bytes();
        id[15] = id[15].wrapping_add(place).wrapping_add(16 * self.dialect as u8);
        let id = VersionId::from_bytes(id);
        let key = format!("{}{CANARY}{}", canary.prefix, canary.id);
        let birth = Birth {
            // The MD5 of nothing.
            etag: "d41d8cd98f00b204e9800998ecf8427e".into(),
            ..Birth::blank(
                Order {
                    hlc: Hlc::from_millis(canary.now_millis + u64::from(place)),
                    origin: Origin::new("canary"),
                    version_id: id,
                },
                kind,
            )
        };
        Version { birth: Some(birth), ..Version::blank(&key, id) }
    }

    /// What a lock or missing rights leave behind is a few bytes under the reserved key.
    async fn purge_quietly(&self, version: &Version, remote_id: &str) {
        if let Err(e) = self.purge(version, remote_id).await {
            tracing::debug!(key = version.key, error = %e, "A canary stays at the S3 endpoint.");
        }
    }

    /// How the server calls itself.
    async fn server(&self) -> Result<String, Error> {
        let name = ServerName::default();
        let request = self.client.head_bucket().bucket(&self.bucket).customize().interceptor(name.clone());
        in_time(0, async { request.send().await.map_err(of) }).await?;
        let name = name.0.lock().expect("no panic while held").clone();
        Ok(name)
    }
}

fn denied(bucket: &str, said: &str) -> Error {
    let message = format!(
        "the credentials may not read the versioning of bucket {bucket}; allow s3:GetBucketVersioning ({said})"
    );
    Error::Unfit { reason: "AccessDenied", message }
}

/// Keeps the answer's `server` header.
#[derive(Clone, Debug, Default)]
struct ServerName(Arc<Mutex<String>>);

impl Intercept for ServerName {
    fn name(&self) -> &'static str {
        "ServerName"
    }
    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(server) = context.response().headers().get("server") {
            *self.0.lock().expect("no panic while held") = server.into();
        }
        Ok(())
    }
}
