//! PUT, copy and delete of objects: from a request's headers to what the object layer commits.
use crate::object::delete::How;
use crate::object::{self, Error, Put};
use crate::s3::auth::{Operation, bypasses};
use crate::s3::body::incoming;
use crate::s3::checksum::{self, show_checksums};
use crate::s3::read::{self, Unmet, birth, open};
use crate::s3::{FrontDoor, KEY_BYTES_MAX, lock, tag, timestamp, version_id};
use crate::trace::Request;
use futures::{StreamExt, stream};
use hyper::HeaderMap;
use hyper::http::Extensions;
use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, DeleteObjectInput, DeleteObjectOutput,
    DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, Metadata, ObjectIdentifier,
    PutObjectInput, PutObjectOutput, Timestamp, TimestampFormat,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};
use std::collections::BTreeMap;

/// User metadata of an object, names and values together, as S3 has it.
const METADATA_BYTES_MAX: usize = 2048;
/// Keys of one DeleteObjects, as S3 has it.
const DELETE_KEYS_MAX: usize = 1000;
/// Deletes of one DeleteObjects that wait for the drives together; they share syncs.
const DELETES_TOGETHER: usize = 32;

/// The content headers of a request, to be kept with the object.
macro_rules! content_headers {
    ($input:expr) => {{
        let fields = [
            ("cache-control", $input.cache_control.clone()),
            ("content-disposition", $input.content_disposition.clone()),
            ("content-encoding", $crate::s3::write::stored_encoding($input.content_encoding.clone())),
            ("content-language", $input.content_language.clone()),
            ("content-type", $input.content_type.clone()),
            ("expires", $crate::s3::write::stored_date($input.expires.as_ref())),
        ];
        fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect::<std::collections::BTreeMap<_, _>>()
    }};
}
pub(crate) use content_headers;

pub async fn put(door: &FrontDoor, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
    let S3Request { input, headers, trailing_headers, extensions, .. } = request;
    let traced = traced("PutObject", &input.bucket, &input.key, &headers, &extensions);
    let (expect, announced) = checksum::expect(&headers, trailing_headers)?;
    let size_bytes = expect.size_bytes.unwrap_or_default();
    let put = Put {
        headers: content_headers!(input),
        metadata: metadata(input.metadata)?,
        tags: tag::from_header(input.tagging.as_deref())?,
        protection: lock::asked!(input)?,
        expect,
        conditions: conditions(input.if_match, input.if_none_match)?,
        traceparent: traced.traceparent(),
    };
    let body = incoming(input.body, size_bytes, announced);
    let writing = door.objects.put(&input.bucket, &input.key, put, body);
    let written = traced.until(writing, |w| Some(w.version.id)).await.map_err(|e| door.fail(e))?;
    let birth = written.version.birth.as_ref().ok_or_else(|| s3_error!(InternalError))?;
    let mut output = PutObjectOutput {
        e_tag: Some(ETag::Strong(birth.etag.clone())),
        checksum_type: checksum::kind(&birth.checksums),
        version_id: written.versioned.then(|| written.version.id.to_string()),
        ..Default::default()
    };
    show_checksums!(output, checksum::shown(birth));
    Ok(S3Response::new(output))
}

pub async fn copy(door: &FrontDoor, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
    let S3Request { input, headers, extensions, .. } = request;
    let traced = traced("CopyObject", &input.bucket, &input.key, &headers, &extensions);
    let (bucket, key, id) = source(&input.copy_source)?;
    let opened = open(door, bucket, key, id).await?;
    let from = birth(&opened)?;
    let wanted = read::Conditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    source_holds(wanted.unmet(&from.etag, from.order.hlc.millis()))?;
    let replace = directive(input.metadata_directive.as_ref().map(|d| d.as_str()))?;
    let replace_tags = directive(input.tagging_directive.as_ref().map(|d| d.as_str()))?;
    let onto_itself = (bucket, key, id) == (input.bucket.as_str(), input.key.as_str(), None);
    if onto_itself && !replace && !replace_tags {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal: it copies an object onto itself unchanged."
        ));
    }
    if from.size_bytes > checksum::UPLOAD_BYTES_MAX {
        return Err(s3_error!(InvalidRequest, "The source is larger than 5 GiB; copy it in parts."));
    }
    let mut put = Put { traceparent: traced.traceparent(), ..Put::default() };
    put.headers = if replace { content_headers!(input) } else { from.headers.clone() };
    put.metadata = if replace { metadata(input.metadata)? } else { from.metadata.clone() };
    put.tags = if replace_tags {
        tag::from_header(input.tagging.as_deref())?
    } else {
        opened.version.tags.as_ref().map(|t| t.set.clone()).unwrap_or_default()
    };
    put.protection = lock::asked!(input)?;
    put.conditions = header_conditions(&headers)?;
    put.expect.size_bytes = Some(from.size_bytes);
    put.expect.checksums = match &input.checksum_algorithm {
        Some(asked) => BTreeMap::from([(checksum::algorithm(asked)?, None)]),
        None => from.checksums.keys().map(|name| (name.clone(), None)).collect(),
    };
    let body = bytes_of(&opened, 0..from.size_bytes);
    let writing = door.objects.put(&input.bucket, &input.key, put, body);
    let written = traced.until(writing, |w| Some(w.version.id)).await.map_err(|e| door.fail(e))?;
    let made = written.version.birth.as_ref().ok_or_else(|| s3_error!(InternalError))?;
    let mut result = CopyObjectResult {
        e_tag: Some(ETag::Strong(made.etag.clone())),
        last_modified: Some(timestamp(made.order.hlc.millis())),
        checksum_type: checksum::kind(&made.checksums),
        ..Default::default()
    };
    show_checksums!(result, checksum::shown(made));
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(result),
        copy_source_version_id: opened.versioned.then(|| opened.version.id.to_string()),
        version_id: written.versioned.then(|| written.version.id.to_string()),
        ..Default::default()
    }))
}

pub async fn delete(
    door: &FrontDoor,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let S3Request { input, extensions, headers, .. } = request;
    let traced = traced("DeleteObject", &input.bucket, &input.key, &headers, &extensions);
    if input.if_match_last_modified_time.is_some() || input.if_match_size.is_some() {
        return Err(s3_error!(NotImplemented, "Deletes are conditional on the ETag only."));
    }
    let id = version_id(input.version_id.as_deref())?;
    let conditions = conditions(input.if_match, None)?;
    let bypass = bypasses(input.bypass_governance_retention, &extensions);
    let how = How { conditions, bypass, traceparent: traced.traceparent() };
    let deleting = absent_is_deleted(door.objects.delete_for(&input.bucket, &input.key, id, how));
    let deleted = traced.until(deleting, |deleted| deleted.version_id.or(id)).await.map_err(|e| door.fail(e))?;
    Ok(S3Response::new(DeleteObjectOutput {
        delete_marker: deleted.delete_marker.then_some(true),
        version_id: deleted.version_id.or(id).map(|id| id.to_string()),
        ..Default::default()
    }))
}

/// What is absent already counts as deleted, as in S3.
async fn absent_is_deleted(
    deleting: impl Future<Output = Result<object::Deleted, Error>>,
) -> Result<object::Deleted, Error> {
    match deleting.await {
        Err(Error::NoSuchKey | Error::NoSuchVersion) => Ok(object::Deleted { version_id: None, delete_marker: false }),
        other => other,
    }
}

pub async fn delete_many(
    door: &FrontDoor,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let DeleteObjectsInput { bucket, delete, bypass_governance_retention, .. } = request.input;
    let bypass = bypasses(bypass_governance_retention, &request.extensions);
    // One span for all of its keys; it ends with the answer.
    let traced = traced("DeleteObjects", &bucket, "", &request.headers, &request.extensions);
    if delete.objects.is_empty() || delete.objects.len() > DELETE_KEYS_MAX {
        return Err(s3_error!(MalformedXML, "Name between 1 and 1000 objects."));
    }
    door.objects.bucket(&bucket).await.map_err(|e| door.unread(e))?;
    let quiet = delete.quiet.unwrap_or(false);
    let (bucket, cause) = (bucket.as_str(), &traced.traceparent());
    let one = |named: ObjectIdentifier| async move { (delete_named(door, bucket, &named, bypass, cause).await, named) };
    let mut done = stream::iter(delete.objects).map(one).buffered(DELETES_TOGETHER);
    let mut output = DeleteObjectsOutput { deleted: Some(Vec::new()), errors: Some(Vec::new()), ..Default::default() };
    while let Some((result, named)) = done.next().await {
        match result {
            Ok(deleted) if !quiet => output.deleted.get_or_insert_default().push(deleted),
            Ok(_) => {}
            Err(error) => output.errors.get_or_insert_default().push(s3s::dto::Error {
                code: Some(error.code().as_str().to_owned()),
                key: Some(named.key),
                message: error.message().map(str::to_owned),
                version_id: named.version_id,
            }),
        }
    }
    drop(traced);
    Ok(S3Response::new(output))
}

async fn delete_named(
    door: &FrontDoor,
    bucket: &str,
    named: &ObjectIdentifier,
    bypass: bool,
    traceparent: &Option<String>,
) -> S3Result<DeletedObject> {
    if named.key.is_empty() || named.key.len() > KEY_BYTES_MAX {
        return Err(s3_error!(KeyTooLongError, "A key has 1 to 1024 bytes."));
    }
    let id = version_id(named.version_id.as_deref())?;
    let if_match = named.e_tag.clone().map(ETagCondition::ETag);
    let how = How { conditions: conditions(if_match, None)?, bypass, traceparent: traceparent.clone() };
    let deleting = absent_is_deleted(door.objects.delete_for(bucket, &named.key, id, how));
    let deleted = deleting.await.map_err(|e| door.fail(e))?;
    Ok(DeletedObject {
        delete_marker: deleted.delete_marker.then_some(true),
        delete_marker_version_id: deleted.version_id.filter(|_| deleted.delete_marker).map(|id| id.to_string()),
        key: Some(named.key.clone()),
        version_id: id.map(|id| id.to_string()),
    })
}

/// Without `aws-chunked`, which is a coding of the transfer and not of the object.
pub fn stored_encoding(value: Option<String>) -> Option<String> {
    let value = value?;
    let kept: Vec<&str> = value.split(',').map(str::trim).filter(|c| !c.is_empty() && *c != "aws-chunked").collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

pub fn stored_date(value: Option<&Timestamp>) -> Option<String> {
    let mut out = Vec::new();
    value?.format(TimestampFormat::HttpDate, &mut out).ok()?;
    String::from_utf8(out).ok()
}

/// User metadata within its limit, names in lower case.
pub fn metadata(given: Option<Metadata>) -> S3Result<BTreeMap<String, String>> {
    let kept: BTreeMap<String, String> =
        given.unwrap_or_default().into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    if kept.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > METADATA_BYTES_MAX {
        return Err(s3_error!(MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size."));
    }
    Ok(kept)
}

/// Conditions of a write: an ETag or `*` to match, or that there is nothing.
pub fn conditions(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<object::Conditions> {
    let if_match = if_match.map(|c| c.as_etag().map_or_else(|| "*".to_owned(), |e| e.value().to_owned()));
    let if_none_match = match if_none_match {
        None => false,
        Some(ETagCondition::Any) => true,
        Some(ETagCondition::ETag(_)) => {
            return Err(s3_error!(NotImplemented, "If-None-Match on a write takes only *."));
        }
    };
    Ok(object::Conditions { if_match, if_none_match })
}

/// The conditions on the target of a copy, which the codec does not read.
fn header_conditions(headers: &HeaderMap) -> S3Result<object::Conditions> {
    let read = |name: &str| -> S3Result<Option<ETagCondition>> {
        let Some(value) = checksum::text(headers, name)? else { return Ok(None) };
        value.parse().map(Some).map_err(|_| s3_error!(InvalidArgument, "The header {name} is not valid."))
    };
    conditions(read("if-match")?, read("if-none-match")?)
}

/// Begins a request that may be traced, and tells the gate, which times it.
pub fn traced(
    operation: &'static str,
    bucket: &str,
    key: &str,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Request {
    let request = Request::begin(operation, bucket, key, traceparent(headers));
    if let (Some(id), Some(timed)) = (request.trace_id(), extensions.get::<Operation>()) {
        let _ = timed.trace_id.set(id); // one request, one trace
    }
    request
}

/// W3C traceparent of a request, when it has the one length the standard gives it.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    (value.len() == 55).then(|| value.to_owned())
}

/// Bucket, key and version id of a copy source.
pub fn source(source: &CopySource) -> S3Result<(&str, &str, Option<&str>)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => Ok((bucket, key, version_id.as_deref())),
        _ => Err(s3_error!(NotImplemented, "Copy sources by ARN are not supported.")),
    }
}

/// A copy whose source does not meet its conditions is 412, never 304.
pub fn source_holds(unmet: Option<Unmet>) -> S3Result<()> {
    match unmet {
        None => Ok(()),
        Some(_) => Err(s3_error!(PreconditionFailed, "A condition on the copy source does not hold.")),
    }
}

/// The bytes of a range as a body; an empty range reads nothing.
pub fn bytes_of(opened: &object::Opened, range: std::ops::Range<u64>) -> object::Body {
    if range.is_empty() { stream::empty().boxed() } else { opened.read(range) }
}

fn directive(value: Option<&str>) -> S3Result<bool> {
    match value {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(_) => Err(s3_error!(InvalidArgument, "A directive is COPY or REPLACE.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfer_codings_are_not_kept() {
        assert_eq!(stored_encoding(Some("aws-chunked".into())), None);
        assert_eq!(stored_encoding(Some("aws-chunked, gzip".into())).as_deref(), Some("gzip"));
        assert_eq!(stored_encoding(Some("gzip".into())).as_deref(), Some("gzip"));
    }

    #[test]
    fn metadata_has_a_limit() {
        let of = |bytes: usize| Some(Metadata::from([("k".to_owned(), "v".repeat(bytes - 1))]));
        assert!(metadata(of(2048)).is_ok());
        assert!(metadata(of(2049)).is_err());
    }
}
