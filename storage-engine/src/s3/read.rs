//! GET, HEAD and GetObjectAttributes: conditions, ranges, parts and the headers of a version.
use crate::object::Opened;
use crate::s3::body::outgoing;
use crate::s3::checksum::{self, show_checksums};
use crate::s3::error::{custom, header, with_headers};
use crate::s3::{FrontDoor, lock, tag, timestamp, version_id};
use crate::version::Birth;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, StatusCode};
use s3s::dto::{
    Checksum, ChecksumMode, ETag, ETagCondition, GetObjectAttributesInput, GetObjectAttributesOutput,
    GetObjectAttributesParts, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, ObjectAttributes,
    ObjectPart, Range, StorageClass, Timestamp, TimestampFormat,
};
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};
use std::ops;

/// Content type of an object that was stored without one.
const CONTENT_TYPE_DEFAULT: &str = "binary/octet-stream";

/// Conditions of a read.
#[derive(Default)]
pub struct Conditions {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
    pub if_modified_since: Option<Timestamp>,
    pub if_unmodified_since: Option<Timestamp>,
}

/// How a condition of a read fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    NotModified,
    PreconditionFailed,
}

impl Conditions {
    /// Whether all hold for a version with this ETag, modified at `millis`.
    ///
    /// # Source
    /// RFC 9110 section 13.2.2: entity tags come before dates, which count whole seconds.
    pub fn unmet(&self, etag: &str, millis: u64) -> Option<Unmet> {
        let modified = timestamp(millis / 1000 * 1000);
        let same = |c: &ETagCondition| c.as_etag().is_none_or(|e| e.value() == etag);
        let met = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => same(condition),
            (None, Some(since)) => modified <= *since,
            (None, None) => true,
        };
        if !met {
            return Some(Unmet::PreconditionFailed);
        }
        let fresh = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => !same(condition),
            (None, Some(since)) => modified > *since,
            (None, None) => true,
        };
        (!fresh).then_some(Unmet::NotModified)
    }
}

/// What a request wants of an object's bytes.
struct Wanted {
    range: Option<Range>,
    part: Option<i32>,
}

/// What it gets.
#[derive(Debug, PartialEq)]
struct Span {
    bytes: ops::Range<u64>,
    content_range: Option<String>,
    parts: Option<i32>,
}

impl Wanted {
    fn of(self, birth: &Birth) -> S3Result<Span> {
        let size = birth.size_bytes;
        let content_range =
            |r: &ops::Range<u64>| (!r.is_empty()).then(|| format!("bytes {}-{}/{size}", r.start, r.end - 1));
        match (self.range, self.part) {
            (Some(_), Some(_)) => {
                Err(s3_error!(InvalidRequest, "Cannot specify both Range header and partNumber query parameter."))
            }
            (None, None) => Ok(Span { bytes: 0..size, content_range: None, parts: None }),
            (Some(range), None) => {
                let bytes = range.check(size).ok().filter(|r| !r.is_empty()).ok_or_else(|| unsatisfiable(size))?;
                Ok(Span { content_range: content_range(&bytes), bytes, parts: None })
            }
            (None, Some(number)) => {
                let bytes = part_bytes(birth, number)?;
                let parts = birth.etag.contains('-').then(|| i32::try_from(birth.parts.len()).unwrap_or(i32::MAX));
                Ok(Span { content_range: content_range(&bytes), bytes, parts })
            }
        }
    }
}

fn part_bytes(birth: &Birth, number: i32) -> S3Result<ops::Range<u64>> {
    let mut start = 0;
    for part in &birth.parts {
        if i32::from(part.number) == number {
            return Ok(start..start + part.size_bytes);
        }
        start += part.size_bytes;
    }
    if number < 1 {
        return Err(s3_error!(InvalidArgument, "partNumber lies between 1 and 10000."));
    }
    Err(custom("InvalidPartNumber", StatusCode::RANGE_NOT_SATISFIABLE, "The requested part number is not satisfiable."))
}

fn unsatisfiable(size: u64) -> S3Error {
    let error = s3_error!(InvalidRange, "The requested range is not satisfiable.");
    with_headers(error, [(header("content-range"), format!("bytes */{size}"))])
}

/// Fills what GET and HEAD show alike.
macro_rules! describe {
    ($out:expr, $opened:expr, $birth:expr, $span:expr, $checksums:expr) => {{
        let headers = &$birth.headers;
        let one = |name: &str| headers.get(name).cloned();
        $out.accept_ranges = Some("bytes".into());
        $out.cache_control = one("cache-control");
        $out.content_disposition = one("content-disposition");
        $out.content_encoding = one("content-encoding");
        $out.content_language = one("content-language");
        $out.content_type = one("content-type").or_else(|| Some(CONTENT_TYPE_DEFAULT.into()));
        $out.expires = one("expires").and_then(|t| Timestamp::parse(TimestampFormat::HttpDate, &t).ok());
        $out.content_length = i64::try_from($span.bytes.end - $span.bytes.start).ok();
        $out.content_range = $span.content_range.clone();
        $out.parts_count = $span.parts;
        $out.e_tag = Some(ETag::Strong($birth.etag.clone()));
        $out.last_modified = Some(timestamp($birth.order.hlc.millis()));
        $out.metadata = (!$birth.metadata.is_empty()).then(|| $birth.metadata.clone().into_iter().collect());
        lock::show!($out, $opened.version.guards());
        $out.version_id = $opened.versioned.then(|| $opened.version.id.to_string());
        // A checksum is of the whole object: beside a range it would only mislead.
        if $checksums && $span.content_range.is_none() {
            show_checksums!($out, checksum::shown($birth));
            $out.checksum_type = checksum::kind(&$birth.checksums);
        }
    }};
}

pub async fn get(door: &FrontDoor, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
    let S3Request { input, headers, .. } = request;
    let opened = open_anywhere(door, &input.bucket, &input.key, input.version_id.as_deref()).await?;
    let birth = birth(&opened)?;
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    hold(&conditions, &opened, birth)?;
    let range = input.range.filter(|_| range_applies(&headers, birth));
    let span = Wanted { range, part: input.part_number }.of(birth)?;
    let mut output = GetObjectOutput::default();
    describe!(output, opened, birth, span, wants_checksums(input.checksum_mode.as_ref()));
    output.tag_count = Some(tag_count(&opened)).filter(|n| *n > 0).and_then(|n| i32::try_from(n).ok());
    output.body = Some(outgoing(&opened, span.bytes).await?);
    Ok(S3Response::with_headers(output, read_from(&opened)))
}

pub async fn head(door: &FrontDoor, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
    let S3Request { input, headers, .. } = request;
    let opened = open_anywhere(door, &input.bucket, &input.key, input.version_id.as_deref()).await?;
    let birth = birth(&opened)?;
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    hold(&conditions, &opened, birth)?;
    let range = input.range.filter(|_| range_applies(&headers, birth));
    let span = Wanted { range, part: input.part_number }.of(birth)?;
    let mut output = HeadObjectOutput::default();
    describe!(output, opened, birth, span, wants_checksums(input.checksum_mode.as_ref()));
    output.cache_control = input.response_cache_control.or(output.cache_control);
    output.content_disposition = input.response_content_disposition.or(output.content_disposition);
    output.content_encoding = input.response_content_encoding.or(output.content_encoding);
    output.content_language = input.response_content_language.or(output.content_language);
    output.content_type = input.response_content_type.or(output.content_type);
    output.expires = input.response_expires.or(output.expires);
    let mut headers = tag::count_header(tag_count(&opened));
    headers.extend(read_from(&opened));
    Ok(S3Response::with_headers(output, headers))
}

pub async fn attributes(
    door: &FrontDoor,
    request: S3Request<GetObjectAttributesInput>,
) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    let input = request.input;
    let opened = open(door, &input.bucket, &input.key, input.version_id.as_deref()).await?;
    let birth = birth(&opened)?;
    // Clients send one header with commas or several headers; the codec splits only the latter.
    let asked = || input.object_attributes.iter().flat_map(|a| a.as_str().split(','));
    let wants = |name: &str| asked().any(|a| a.trim() == name);
    let mut output = GetObjectAttributesOutput {
        last_modified: Some(timestamp(birth.order.hlc.millis())),
        version_id: opened.versioned.then(|| opened.version.id.to_string()),
        ..Default::default()
    };
    output.e_tag = wants(ObjectAttributes::ETAG).then(|| ETag::Strong(birth.etag.clone()));
    output.object_size = i64::try_from(birth.size_bytes).ok().filter(|_| wants(ObjectAttributes::OBJECT_SIZE));
    output.storage_class =
        wants(ObjectAttributes::STORAGE_CLASS).then(|| StorageClass::from_static(StorageClass::STANDARD));
    if wants(ObjectAttributes::CHECKSUM) {
        let mut sums = Checksum { checksum_type: checksum::kind(&birth.checksums), ..Default::default() };
        show_checksums!(sums, checksum::shown(birth));
        output.checksum = Some(sums);
    }
    if wants(ObjectAttributes::OBJECT_PARTS) && birth.etag.contains('-') {
        output.object_parts = Some(part_page(birth, input.part_number_marker, input.max_parts)?);
    }
    Ok(S3Response::new(output))
}

fn part_page(birth: &Birth, marker: Option<i32>, most: Option<i32>) -> S3Result<GetObjectAttributesParts> {
    let most =
        usize::try_from(most.unwrap_or(1000)).map_err(|_| s3_error!(InvalidArgument, "max-parts is negative."))?;
    let after = marker.unwrap_or(0);
    let rest: Vec<_> = birth.parts.iter().filter(|p| i32::from(p.number) > after).collect();
    let shown = &rest[..rest.len().min(most.min(1000))];
    let part = |p: &&crate::version::Part| {
        let mut part = ObjectPart {
            part_number: Some(p.number.into()),
            size: i64::try_from(p.size_bytes).ok(),
            ..Default::default()
        };
        show_checksums!(part, p.checksums);
        part
    };
    Ok(GetObjectAttributesParts {
        is_truncated: Some(shown.len() < rest.len()),
        max_parts: i32::try_from(most).ok(),
        next_part_number_marker: shown.last().map(|p| p.number.into()),
        part_number_marker: Some(after),
        parts: Some(shown.iter().map(part).collect()),
        total_parts_count: i32::try_from(birth.parts.len()).ok(),
    })
}

/// Opens a version for reading.
pub async fn open(door: &FrontDoor, bucket: &str, key: &str, id: Option<&str>) -> S3Result<Opened> {
    let id = version_id(id)?;
    door.objects.open(bucket, key, id).await.map_err(|e| door.unread_by_id(e, id.is_some()))
}

/// Opens a version for reading, at a peer where it is not here yet.
async fn open_anywhere(door: &FrontDoor, bucket: &str, key: &str, id: Option<&str>) -> S3Result<Opened> {
    let id = version_id(id)?;
    door.objects.open_anywhere(bucket, key, id).await.map_err(|e| door.unread_by_id(e, id.is_some()))
}

/// Says that a version was read elsewhere, and where.
fn read_from(opened: &Opened) -> HeaderMap {
    let place = opened.elsewhere.as_ref().and_then(|e| HeaderValue::try_from(&e.place).ok());
    place.into_iter().map(|place| (header("x-isthmus-read-from"), place)).collect()
}

/// The birth of an open version: only what was born is opened.
pub fn birth(opened: &Opened) -> S3Result<&Birth> {
    opened.version.birth.as_ref().ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
}

fn tag_count(opened: &Opened) -> usize {
    opened.version.tags.as_ref().map_or(0, |t| t.set.len())
}

fn wants_checksums(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|m| m.as_str().eq_ignore_ascii_case(ChecksumMode::ENABLED))
}

/// If-Range: the range holds only for the version the client has part of (RFC 9110 section 13.1.5).
fn range_applies(headers: &HeaderMap, birth: &Birth) -> bool {
    let Some(condition) = headers.get("if-range").and_then(|v| v.to_str().ok()) else { return true };
    match Timestamp::parse(TimestampFormat::HttpDate, condition) {
        Ok(date) => date == timestamp(birth.order.hlc.millis() / 1000 * 1000),
        Err(_) => condition.trim_matches('"') == birth.etag,
    }
}

fn hold(conditions: &Conditions, opened: &Opened, birth: &Birth) -> S3Result<()> {
    let millis = birth.order.hlc.millis();
    match conditions.unmet(&birth.etag, millis) {
        None => Ok(()),
        Some(Unmet::PreconditionFailed) => {
            Err(s3_error!(PreconditionFailed, "A condition of the request does not hold."))
        }
        Some(Unmet::NotModified) => {
            let mut headers =
                vec![(header("etag"), format!("\"{}\"", birth.etag)), (header("last-modified"), http_date(millis)?)];
            if opened.versioned {
                headers.push((header("x-amz-version-id"), opened.version.id.to_string()));
            }
            Err(with_headers(s3_error!(NotModified), headers))
        }
    }
}

fn http_date(millis: u64) -> S3Result<String> {
    let mut out = Vec::new();
    timestamp(millis).format(TimestampFormat::HttpDate, &mut out).map_err(S3Error::internal_error)?;
    String::from_utf8(out).map_err(S3Error::internal_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etag(value: &str) -> Option<ETagCondition> {
        Some(value.parse().unwrap())
    }
    fn at(millis: u64) -> Option<Timestamp> {
        Some(timestamp(millis))
    }

    #[test]
    fn entity_tags_come_before_dates() {
        let unmet = |c: Conditions| c.unmet("abc", 10_999);
        let none = Conditions::default;
        assert_eq!(unmet(Conditions { if_match: etag("\"abc\""), if_unmodified_since: at(0), ..none() }), None);
        assert_eq!(unmet(Conditions { if_match: etag("\"x\""), ..none() }), Some(Unmet::PreconditionFailed));
        assert_eq!(unmet(Conditions { if_none_match: etag("\"x\""), if_modified_since: at(99_000), ..none() }), None);
        assert_eq!(unmet(Conditions { if_none_match: etag("*"), ..none() }), Some(Unmet::NotModified));
    }

    #[test]
    fn dates_count_whole_seconds() {
        let unmet = |c: Conditions| c.unmet("abc", 10_999);
        let none = Conditions::default;
        assert_eq!(unmet(Conditions { if_modified_since: at(10_000), ..none() }), Some(Unmet::NotModified));
        assert_eq!(unmet(Conditions { if_modified_since: at(9_000), ..none() }), None);
        assert_eq!(unmet(Conditions { if_unmodified_since: at(10_000), ..none() }), None);
        assert_eq!(unmet(Conditions { if_unmodified_since: at(9_000), ..none() }), Some(Unmet::PreconditionFailed));
    }
}
