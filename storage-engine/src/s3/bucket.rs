//! Buckets: make, remove, find, list, and their versioning.
use crate::object::{Error, Versioning};
use crate::s3::{FrontDoor, owner, timestamp};
use s3s::dto::{
    Bucket, BucketLocationConstraint, BucketVersioningStatus, CreateBucketInput, CreateBucketOutput, DeleteBucketInput,
    DeleteBucketOutput, GetBucketLocationInput, GetBucketLocationOutput, GetBucketVersioningInput,
    GetBucketVersioningOutput, HeadBucketInput, HeadBucketOutput, ListBucketsInput, ListBucketsOutput,
    PutBucketVersioningInput, PutBucketVersioningOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

/// The region S3 shows as no location at all.
const REGION_WITHOUT_NAME: &str = "us-east-1";

pub async fn create(
    door: &FrontDoor,
    request: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let input = request.input;
    let wanted = input.create_bucket_configuration.and_then(|c| c.location_constraint);
    if let Some(wanted) = wanted
        && !wanted.as_str().is_empty()
        && wanted.as_str() != &*door.region
    {
        return Err(s3_error!(IllegalLocationConstraintException, "Buckets of this store are in {}.", door.region));
    }
    let made = match input.object_lock_enabled_for_bucket {
        Some(true) => door.objects.create_locked_bucket(&input.bucket).await,
        _ => door.objects.create_bucket(&input.bucket, Versioning::Unversioned).await,
    };
    made.map_err(|e| door.fail(e))?;
    let location = Some(format!("/{}", input.bucket));
    Ok(S3Response::new(CreateBucketOutput { location }))
}

pub async fn delete(
    door: &FrontDoor,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    door.objects.delete_bucket(&request.input.bucket).await.map_err(|e| door.fail(e))?;
    Ok(S3Response::new(DeleteBucketOutput::default()))
}

pub async fn head(door: &FrontDoor, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
    door.objects.bucket(&request.input.bucket).await.map_err(|e| door.unread(e))?;
    let bucket_region = Some(door.region.to_string());
    Ok(S3Response::new(HeadBucketOutput { bucket_region, ..Default::default() }))
}

pub async fn list(door: &FrontDoor, request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
    let input = request.input;
    let prefix = input.prefix.clone().unwrap_or_default();
    let after = input.continuation_token.unwrap_or_default();
    let limit = usize::try_from(input.max_buckets.unwrap_or(10_000)).ok().filter(|n| (1..=10_000).contains(n));
    let limit = limit.ok_or_else(|| s3_error!(InvalidArgument, "max-buckets lies between 1 and 10000."))?;
    let mut all = door.objects.buckets().await.map_err(|e| door.unread(e))?;
    all.retain(|b| b.name.starts_with(&prefix) && b.name > after);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let continuation_token = if all.len() > limit { Some(all[limit - 1].name.clone()) } else { None };
    let shown = all.into_iter().take(limit).map(|b| Bucket {
        bucket_region: Some(door.region.to_string()),
        creation_date: Some(timestamp(b.created_millis)),
        name: Some(b.name),
    });
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(shown.collect()),
        continuation_token,
        owner: Some(owner()),
        prefix: input.prefix,
    }))
}

pub async fn location(
    door: &FrontDoor,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    door.objects.bucket(&request.input.bucket).await.map_err(|e| door.unread(e))?;
    let named = (&*door.region != REGION_WITHOUT_NAME).then(|| BucketLocationConstraint::from(door.region.to_string()));
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint: named }))
}

pub async fn versioning(
    door: &FrontDoor,
    request: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    let bucket = door.objects.bucket(&request.input.bucket).await.map_err(|e| door.unread(e))?;
    let status = match bucket.versioning {
        Versioning::Unversioned => None,
        Versioning::Enabled => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED)),
        Versioning::Suspended => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::SUSPENDED)),
    };
    Ok(S3Response::new(GetBucketVersioningOutput { mfa_delete: None, status }))
}

pub async fn set_versioning(
    door: &FrontDoor,
    request: S3Request<PutBucketVersioningInput>,
) -> S3Result<S3Response<PutBucketVersioningOutput>> {
    let input = request.input;
    let wanted = input.versioning_configuration;
    if wanted.mfa_delete.is_some_and(|mfa| mfa.as_str() != "Disabled") {
        return Err(s3_error!(NotImplemented, "MFA delete is not supported."));
    }
    let state = match wanted.status.as_ref().map(|s| s.as_str()) {
        Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
        Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
        _ => return Err(s3_error!(IllegalVersioningConfigurationException, "Status is Enabled or Suspended.")),
    };
    let done = door.objects.set_versioning(&input.bucket, state).await;
    done.map_err(|error| match error {
        Error::Conflict(why) => s3_error!(InvalidBucketState, "{why}"),
        other => door.fail(other),
    })?;
    Ok(S3Response::new(PutBucketVersioningOutput::default()))
}
