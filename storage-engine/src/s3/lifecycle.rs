//! Lifecycle of a bucket: set, shown, removed. Nothing expires by it yet.
//!
//! Source: Amazon S3 API Reference, PutBucketLifecycleConfiguration; User Guide, "Lifecycle configuration elements".
use crate::bucket::document::Kind;
use crate::entropy;
use crate::s3::FrontDoor;
use crate::s3::text::{from_xml, to_xml};
use s3s::dto::{
    BucketLifecycleConfiguration, DeleteBucketLifecycleInput, DeleteBucketLifecycleOutput, ExpirationStatus,
    GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput, LifecycleRule, LifecycleRuleFilter,
    PutBucketLifecycleConfigurationInput, PutBucketLifecycleConfigurationOutput, Timestamp, TimestampFormat,
};
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};
use std::collections::BTreeSet;

/// Rules of a configuration and characters of a rule's id, as S3 has them.
const RULES_MAX: usize = 1_000;
const ID_CHARS_MAX: usize = 255;

pub async fn get(
    door: &FrontDoor,
    request: S3Request<GetBucketLifecycleConfigurationInput>,
) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
    let held = door.objects.bucket_document(&request.input.bucket, Kind::Lifecycle).await;
    let none = || s3_error!(NoSuchLifecycleConfiguration, "The lifecycle configuration does not exist.");
    let held: BucketLifecycleConfiguration = from_xml(&held.map_err(|e| door.unread(e))?.ok_or_else(none)?)?;
    Ok(S3Response::new(GetBucketLifecycleConfigurationOutput { rules: Some(held.rules), ..Default::default() }))
}

pub async fn set(
    door: &FrontDoor,
    request: S3Request<PutBucketLifecycleConfigurationInput>,
) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
    let input = request.input;
    let mut asked = input.lifecycle_configuration.ok_or_else(malformed)?;
    check(&asked)?;
    for rule in asked.rules.iter_mut().filter(|rule| rule.id.as_ref().is_none_or(String::is_empty)) {
        rule.id = Some(entropy::id().as_simple().to_string());
    }
    let done = door.objects.set_bucket_document(&input.bucket, Kind::Lifecycle, Some(to_xml(&asked)?)).await;
    done.map_err(|e| door.fail(e))?;
    Ok(S3Response::new(PutBucketLifecycleConfigurationOutput::default()))
}

pub async fn clear(
    door: &FrontDoor,
    request: S3Request<DeleteBucketLifecycleInput>,
) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
    let done = door.objects.set_bucket_document(&request.input.bucket, Kind::Lifecycle, None).await;
    done.map_err(|e| door.fail(e))?;
    Ok(S3Response::new(DeleteBucketLifecycleOutput::default()))
}

fn malformed() -> S3Error {
    s3_error!(
        MalformedXML,
        "The XML you provided was not well-formed or did not validate against our published schema."
    )
}

pub(super) fn check(asked: &BucketLifecycleConfiguration) -> S3Result<()> {
    if asked.rules.is_empty() || asked.rules.len() > RULES_MAX {
        return Err(malformed());
    }
    let mut ids = BTreeSet::new();
    for rule in &asked.rules {
        let id = rule.id.as_deref().unwrap_or_default();
        if id.chars().count() > ID_CHARS_MAX {
            return Err(s3_error!(InvalidArgument, "ID length should not exceed allowed limit of {ID_CHARS_MAX}"));
        }
        if !id.is_empty() && !ids.insert(id) {
            return Err(s3_error!(InvalidArgument, "Rule ID must be unique. Found same ID for more than one rule"));
        }
        check_rule(rule)?;
    }
    Ok(())
}

fn check_rule(rule: &LifecycleRule) -> S3Result<()> {
    if ![ExpirationStatus::ENABLED, ExpirationStatus::DISABLED].contains(&rule.status.as_str()) {
        return Err(malformed());
    }
    match (&rule.prefix, &rule.filter) {
        (None, Some(filter)) if is_one(filter) => {}
        (Some(_), None) => {}
        _ => return Err(malformed()),
    }
    if rule.transitions.as_ref().is_some_and(|t| !t.is_empty())
        || rule.noncurrent_version_transitions.as_ref().is_some_and(|t| !t.is_empty())
    {
        return Err(s3_error!(NotImplemented, "There is one storage class; objects have nowhere to go."));
    }
    let of_versions = rule.noncurrent_version_expiration.as_ref();
    let of_uploads = rule.abort_incomplete_multipart_upload.as_ref();
    if rule.expiration.is_none() && of_versions.is_none() && of_uploads.is_none() {
        return Err(s3_error!(InvalidRequest, "At least one action needs to be specified in a rule."));
    }
    if let Some(expiration) = &rule.expiration {
        let said =
            [expiration.days.is_some(), expiration.date.is_some(), expiration.expired_object_delete_marker.is_some()];
        if said.iter().filter(|said| **said).count() != 1 {
            return Err(malformed());
        }
        if expiration.date.as_ref().is_some_and(|date| !is_midnight(date)) {
            return Err(s3_error!(InvalidArgument, "'Date' must be at midnight GMT"));
        }
        positive("Days' for Expiration", expiration.days)?;
    }
    if let Some(expiration) = of_versions {
        if expiration.noncurrent_days.is_none() {
            return Err(malformed());
        }
        positive("NoncurrentDays' for NoncurrentVersionExpiration", expiration.noncurrent_days)?;
        positive("NewerNoncurrentVersions' for NoncurrentVersionExpiration", expiration.newer_noncurrent_versions)?;
    }
    let Some(abort) = of_uploads else { return Ok(()) };
    positive("DaysAfterInitiation' for AbortIncompleteMultipartUpload", abort.days_after_initiation)
}

fn positive(what: &str, days: Option<i32>) -> S3Result<()> {
    match days {
        Some(days) if days < 1 => Err(s3_error!(InvalidArgument, "'{what} action must be a positive integer")),
        _ => Ok(()),
    }
}

/// Whether a filter has at most one condition, or several under `And`.
fn is_one(filter: &LifecycleRuleFilter) -> bool {
    let conditions = [
        filter.and.is_some(),
        filter.prefix.is_some(),
        filter.tag.is_some(),
        filter.object_size_greater_than.is_some(),
        filter.object_size_less_than.is_some(),
    ];
    conditions.iter().filter(|is_said| **is_said).count() <= 1
}

fn is_midnight(date: &Timestamp) -> bool {
    let mut text = Vec::new();
    date.format(TimestampFormat::DateTime, &mut text).is_ok()
        && std::str::from_utf8(&text).is_ok_and(|t| t.contains("T00:00:00Z") || t.contains("T00:00:00.000Z"))
}
