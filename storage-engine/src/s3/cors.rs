//! CORS of a bucket: set, shown, removed. Browsers are answered by it in `preflight.rs`.
//!
//! Source: Amazon S3 API Reference, PutBucketCors; User Guide, "Elements of a CORS configuration".
use crate::bucket::document::Kind;
use crate::s3::FrontDoor;
use crate::s3::text::{from_xml, to_xml};
use s3s::dto::{
    CORSConfiguration, DeleteBucketCorsInput, DeleteBucketCorsOutput, GetBucketCorsInput, GetBucketCorsOutput,
    PutBucketCorsInput, PutBucketCorsOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

/// Rules of a configuration, as S3 has it.
const RULES_MAX: usize = 100;
const METHODS: [&str; 5] = ["GET", "PUT", "HEAD", "POST", "DELETE"];

pub async fn get(
    door: &FrontDoor,
    request: S3Request<GetBucketCorsInput>,
) -> S3Result<S3Response<GetBucketCorsOutput>> {
    let held = door.objects.bucket_document(&request.input.bucket, Kind::Cors).await.map_err(|e| door.unread(e))?;
    let none = || s3_error!(NoSuchCORSConfiguration, "The CORS configuration does not exist.");
    let held: CORSConfiguration = from_xml(&held.ok_or_else(none)?)?;
    Ok(S3Response::new(GetBucketCorsOutput { cors_rules: Some(held.cors_rules) }))
}

pub async fn set(
    door: &FrontDoor,
    request: S3Request<PutBucketCorsInput>,
) -> S3Result<S3Response<PutBucketCorsOutput>> {
    let input = request.input;
    check(&input.cors_configuration)?;
    let text = to_xml(&input.cors_configuration)?;
    let done = door.objects.set_bucket_document(&input.bucket, Kind::Cors, Some(text)).await;
    done.map_err(|e| door.fail(e))?;
    Ok(S3Response::new(PutBucketCorsOutput::default()))
}

pub async fn clear(
    door: &FrontDoor,
    request: S3Request<DeleteBucketCorsInput>,
) -> S3Result<S3Response<DeleteBucketCorsOutput>> {
    let done = door.objects.set_bucket_document(&request.input.bucket, Kind::Cors, None).await;
    done.map_err(|e| door.fail(e))?;
    Ok(S3Response::new(DeleteBucketCorsOutput::default()))
}

pub(super) fn check(cors: &CORSConfiguration) -> S3Result<()> {
    let rules = &cors.cors_rules;
    if rules.is_empty() || rules.len() > RULES_MAX {
        return Err(s3_error!(MalformedXML, "A CORS configuration has 1 to {RULES_MAX} rules."));
    }
    for rule in rules {
        if rule.allowed_methods.is_empty() || rule.allowed_origins.is_empty() {
            return Err(s3_error!(MalformedXML, "A CORS rule has an AllowedMethod and an AllowedOrigin."));
        }
        if let Some(method) = rule.allowed_methods.iter().find(|m| !METHODS.contains(&m.as_str())) {
            let why = "Found unsupported HTTP method in CORS config. Unsupported method is";
            return Err(s3_error!(InvalidRequest, "{why} {method}"));
        }
        let origins = rule.allowed_origins.iter().map(|origin| ("AllowedOrigin", origin));
        let headers = rule.allowed_headers.iter().flatten().map(|header| ("AllowedHeader", header));
        for (what, value) in origins.chain(headers) {
            if value.matches('*').count() > 1 {
                return Err(s3_error!(InvalidRequest, "{what} \"{value}\" can not have more than one wildcard."));
            }
        }
    }
    Ok(())
}
