//! The S3 front door: one operation of the S3 API per method, one file per family of them.
//!
//! It authenticates (`auth`), translates between S3's words and the object layer's, and evaluates what only
//! concerns a request (ranges, conditions of reads, limits of headers). It decides nothing about versions,
//! holds no state of its own and never talks to a drive. Only this folder names the codec, `s3s`.
mod auth;
mod body;
mod bucket;
mod checksum;
mod cors;
mod document;
mod error;
mod failures;
mod fence;
mod form;
mod gate;
mod lifecycle;
mod list;
mod lock;
mod multipart;
mod pace;
mod policy;
mod preflight;
mod read;
mod tag;
mod text;
mod write;

pub use error::STORAGE_FULL;
pub use fence::Fences;
pub use form::check_document;
pub use gate::Gate;

use crate::config::Settings;
use crate::metrics::Metrics;
use crate::object::{Error, Objects};
use crate::version::VersionId;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::*; // the codec's types are named after the operations they belong to
use s3s::host::{S3Host, VirtualHost};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Object key in bytes of UTF-8, as S3 has it.
const KEY_BYTES_MAX: usize = 1024;

/// The operations over an object layer.
#[derive(Clone)]
struct FrontDoor {
    objects: Objects,
    region: Arc<str>,
    metrics: Arc<Metrics>,
}

/// The front door over `objects` for `users` (access key to secret key), with the region and limits of `settings`.
pub fn gate(objects: Objects, users: BTreeMap<String, String>, settings: &Settings) -> Gate {
    let metrics = objects.metrics().clone();
    let of_pages = objects.clone();
    let region: Arc<str> = settings.region.as_str().into();
    let door = FrontDoor { objects, region: region.clone(), metrics: metrics.clone() };
    let mut trusting = builder(door.clone());
    trusting.set_auth(auth::Users::new(BTreeMap::new()));
    trusting.set_access(auth::SignedBefore { fences: of_pages.fences().clone() });
    let rights = auth::Rights::of(&settings.users);
    let mut builder = builder(door);
    builder.set_auth(auth::Users::new(users));
    builder.set_access(auth::SignedOnly { rights: rights.clone(), fences: of_pages.fences().clone() });
    builder.set_route(document::Chunked { trusting: trusting.build(), rights });
    let failures = Arc::new(failures::Failures::new(settings.limits.failed_logins_per_minute_max));
    Gate { codec: builder.build(), region, failures, metrics, objects: of_pages }
}

/// A codec over the operations, without a word on who may use it.
fn builder(door: FrontDoor) -> S3ServiceBuilder {
    let mut builder = S3ServiceBuilder::new(door);
    builder.set_host(PathStyle);
    let mut limits = S3Config::default();
    limits.xml_max_body_size = gate::DOCUMENT_BYTES_MAX;
    limits.post_object_max_file_size = 0; // uploads by form are refused before the codec
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(limits))));
    builder
}

/// Buckets stand in the path, whatever the host is called.
struct PathStyle;

impl S3Host for PathStyle {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        Ok(VirtualHost::new(host))
    }
}

impl FrontDoor {
    /// The S3 error for a write that the object layer could not do; a lost quorum is counted.
    fn fail(&self, error: Error) -> S3Error {
        self.fail_by_id(error, false)
    }
    /// The same, where the request may have named a version.
    fn fail_by_id(&self, error: Error, by_id: bool) -> S3Error {
        if matches!(error, Error::Unavailable(_)) {
            self.metrics.write_without_quorum();
        }
        error::from_object(error, by_id)
    }
    /// The S3 error for something that could not be read; a lost quorum is counted.
    fn unread(&self, error: Error) -> S3Error {
        self.unread_by_id(error, false)
    }
    /// The same, where the request may have named a version.
    fn unread_by_id(&self, error: Error, by_id: bool) -> S3Error {
        if matches!(error, Error::Unavailable(_)) {
            self.metrics.read_without_quorum();
        }
        error::from_object(error, by_id)
    }
}

/// A version id out of a request.
fn version_id(text: Option<&str>) -> S3Result<Option<VersionId>> {
    let parse = |id: &str| id.parse().map_err(|_| s3_error!(InvalidArgument, "Invalid version id specified."));
    text.filter(|id| !id.is_empty()).map(parse).transpose()
}

/// A moment in Unix milliseconds as the codec wants it.
fn timestamp(millis: u64) -> Timestamp {
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
}

/// S3 shows an owner where it shows objects; this store has one.
fn owner() -> Owner {
    Owner { display_name: Some("isthmus".into()), id: Some("isthmus".into()) }
}

/// Forwards each operation to the file that holds it.
macro_rules! operations {
    ($($name:ident($input:ident) -> $output:ident = $road:path;)*) => {
        #[async_trait::async_trait]
        impl S3 for FrontDoor {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                $road(self, request).await
            })*
        }
    };
}

operations! {
    create_bucket(CreateBucketInput) -> CreateBucketOutput = bucket::create;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput = bucket::delete;
    head_bucket(HeadBucketInput) -> HeadBucketOutput = bucket::head;
    list_buckets(ListBucketsInput) -> ListBucketsOutput = bucket::list;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput = bucket::location;
    get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput = bucket::versioning;
    put_bucket_versioning(PutBucketVersioningInput) -> PutBucketVersioningOutput = bucket::set_versioning;

    get_bucket_tagging(GetBucketTaggingInput) -> GetBucketTaggingOutput = tag::bucket;
    put_bucket_tagging(PutBucketTaggingInput) -> PutBucketTaggingOutput = tag::set_bucket;
    delete_bucket_tagging(DeleteBucketTaggingInput) -> DeleteBucketTaggingOutput = tag::clear_bucket;
    get_bucket_cors(GetBucketCorsInput) -> GetBucketCorsOutput = cors::get;
    put_bucket_cors(PutBucketCorsInput) -> PutBucketCorsOutput = cors::set;
    delete_bucket_cors(DeleteBucketCorsInput) -> DeleteBucketCorsOutput = cors::clear;
    get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput) -> GetBucketLifecycleConfigurationOutput = lifecycle::get;
    put_bucket_lifecycle_configuration(PutBucketLifecycleConfigurationInput) -> PutBucketLifecycleConfigurationOutput = lifecycle::set;
    delete_bucket_lifecycle(DeleteBucketLifecycleInput) -> DeleteBucketLifecycleOutput = lifecycle::clear;
    get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput = policy::get;
    put_bucket_policy(PutBucketPolicyInput) -> PutBucketPolicyOutput = policy::set;
    delete_bucket_policy(DeleteBucketPolicyInput) -> DeleteBucketPolicyOutput = policy::clear;
    get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput = tag::object;
    put_object_tagging(PutObjectTaggingInput) -> PutObjectTaggingOutput = tag::set_object;
    delete_object_tagging(DeleteObjectTaggingInput) -> DeleteObjectTaggingOutput = tag::clear_object;

    get_object_lock_configuration(GetObjectLockConfigurationInput) -> GetObjectLockConfigurationOutput = lock::bucket;
    put_object_lock_configuration(PutObjectLockConfigurationInput) -> PutObjectLockConfigurationOutput = lock::set_bucket;
    get_object_retention(GetObjectRetentionInput) -> GetObjectRetentionOutput = lock::retention;
    put_object_retention(PutObjectRetentionInput) -> PutObjectRetentionOutput = lock::set_retention;
    get_object_legal_hold(GetObjectLegalHoldInput) -> GetObjectLegalHoldOutput = lock::hold;
    put_object_legal_hold(PutObjectLegalHoldInput) -> PutObjectLegalHoldOutput = lock::set_hold;

    get_object(GetObjectInput) -> GetObjectOutput = read::get;
    head_object(HeadObjectInput) -> HeadObjectOutput = read::head;
    get_object_attributes(GetObjectAttributesInput) -> GetObjectAttributesOutput = read::attributes;

    put_object(PutObjectInput) -> PutObjectOutput = write::put;
    copy_object(CopyObjectInput) -> CopyObjectOutput = write::copy;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput = write::delete;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput = write::delete_many;

    list_objects(ListObjectsInput) -> ListObjectsOutput = list::objects;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output = list::objects_v2;
    list_object_versions(ListObjectVersionsInput) -> ListObjectVersionsOutput = list::versions;

    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput = multipart::create;
    upload_part(UploadPartInput) -> UploadPartOutput = multipart::upload_part;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput = multipart::upload_part_copy;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput = multipart::complete;
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput = multipart::abort;
    list_parts(ListPartsInput) -> ListPartsOutput = multipart::parts;
    list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput = multipart::uploads;
}
