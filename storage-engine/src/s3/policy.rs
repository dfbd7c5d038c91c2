//! Policy of a bucket: set, shown, removed. It is not evaluated yet: whoever signs may do all.
//!
//! Source: Amazon S3 API Reference, PutBucketPolicy; IAM User Guide, "Grammar of the JSON policy language".
use crate::bucket::document::Kind;
use crate::s3::FrontDoor;
use s3s::dto::{
    DeleteBucketPolicyInput, DeleteBucketPolicyOutput, GetBucketPolicyInput, GetBucketPolicyOutput,
    PutBucketPolicyInput, PutBucketPolicyOutput,
};
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};
use serde_json::{Map, Value};

/// A policy's size in bytes, as S3 has it.
const POLICY_BYTES_MAX: usize = 20 << 10;
const VERSIONS: [&str; 2] = ["2012-10-17", "2008-10-17"];

pub async fn get(
    door: &FrontDoor,
    request: S3Request<GetBucketPolicyInput>,
) -> S3Result<S3Response<GetBucketPolicyOutput>> {
    let held = door.objects.bucket_document(&request.input.bucket, Kind::Policy).await.map_err(|e| door.unread(e))?;
    let held = held.ok_or_else(|| s3_error!(NoSuchBucketPolicy, "The bucket policy does not exist"))?;
    Ok(S3Response::new(GetBucketPolicyOutput { policy: Some(held) }))
}

pub async fn set(
    door: &FrontDoor,
    request: S3Request<PutBucketPolicyInput>,
) -> S3Result<S3Response<PutBucketPolicyOutput>> {
    let input = request.input;
    let policy = canonical(&input.policy, &input.bucket)?;
    let done = door.objects.set_bucket_document(&input.bucket, Kind::Policy, Some(policy)).await;
    done.map_err(|e| door.fail(e))?;
    Ok(S3Response::new(PutBucketPolicyOutput::default()))
}

pub async fn clear(
    door: &FrontDoor,
    request: S3Request<DeleteBucketPolicyInput>,
) -> S3Result<S3Response<DeleteBucketPolicyOutput>> {
    let done = door.objects.set_bucket_document(&request.input.bucket, Kind::Policy, None).await;
    done.map_err(|e| door.fail(e))?;
    Ok(S3Response::new(DeleteBucketPolicyOutput::default()))
}

fn malformed(why: &str) -> S3Error {
    s3_error!(MalformedPolicy, "{why}")
}

/// The policy without white space, after its form was looked at.
fn canonical(text: &str, bucket: &str) -> S3Result<String> {
    if text.len() > POLICY_BYTES_MAX {
        return Err(malformed("Policies must not be larger than 20 KiB."));
    }
    let policy: Value = serde_json::from_str(text).map_err(|_| malformed("Policies must be valid JSON."))?;
    let policy = policy.as_object().ok_or_else(|| malformed("A policy is a JSON object."))?;
    if let Some(key) = policy.keys().find(|k| !["Version", "Id", "Statement"].contains(&k.as_str())) {
        return Err(malformed(&format!("Unknown field {key}")));
    }
    if policy.get("Version").is_some_and(|v| !v.as_str().is_some_and(|v| VERSIONS.contains(&v))) {
        return Err(malformed("The policy must contain a valid version string"));
    }
    let statements = match policy.get("Statement") {
        Some(Value::Array(all)) if !all.is_empty() => all.iter().collect(),
        Some(one @ Value::Object(_)) => vec![one],
        _ => return Err(malformed("Missing required field Statement")),
    };
    for statement in statements {
        let statement = statement.as_object().ok_or_else(|| malformed("A statement is a JSON object."))?;
        check(statement, bucket)?;
    }
    serde_json::to_string(policy).map_err(S3Error::internal_error)
}

fn check(statement: &Map<String, Value>, bucket: &str) -> S3Result<()> {
    if !matches!(statement.get("Effect").and_then(Value::as_str), Some("Allow" | "Deny")) {
        return Err(malformed("Effect is Allow or Deny."));
    }
    for (name, not) in [("Principal", "NotPrincipal"), ("Action", "NotAction"), ("Resource", "NotResource")] {
        if statement.contains_key(name) == statement.contains_key(not) {
            return Err(malformed(&format!("Missing required field {name}")));
        }
    }
    let texts = |names: [&str; 2]| names.iter().find_map(|name| statement.get(*name)).map(words).unwrap_or_default();
    if texts(["Action", "NotAction"]).is_none_or(|all| all.iter().any(|a| *a != "*" && !a.starts_with("s3:"))) {
        return Err(malformed("Policy has invalid action"));
    }
    let arn = format!("arn:aws:s3:::{bucket}");
    let is_ours = |resource: &&str| resource.strip_prefix(&arn).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    match texts(["Resource", "NotResource"]) {
        Some(all) if all.iter().all(is_ours) => Ok(()),
        _ => Err(malformed("Policy has invalid resource")),
    }
}

/// A text or a list of them; `None` for anything else, and for an empty list.
fn words(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(one) => Some(vec![one]),
        Value::Array(all) if !all.is_empty() => all.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
