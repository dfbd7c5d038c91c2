//! What the object layer says, as S3 says it: code, status and headers. Pure; called by every handler.
use crate::object::Error;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use s3s::{S3Error, S3ErrorCode, s3_error};
use std::io;

/// Code of the 503 a client gets when a write quorum of drives has no room. Nothing was acked; what was acked
/// before is still there. Retrying helps only after space was made.
pub const STORAGE_FULL: &str = "XIsthmusStorageFull";

/// An error whose code the codec does not know.
pub fn custom(code: &'static str, status: StatusCode, message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    let mut error = S3Error::with_message(code, message);
    error.set_status_code(status);
    error
}

/// An error with headers beside its XML body.
pub fn with_headers(mut error: S3Error, headers: impl IntoIterator<Item = (HeaderName, String)>) -> S3Error {
    // The codec replaces all headers by these, the content type too.
    let mut map = HeaderMap::new();
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            map.insert(name, value);
        }
    }
    error.set_headers(map);
    error
}

/// Name of a header that is spelled in lower case.
pub const fn header(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

/// The S3 error for an error of the object layer. `by_id`: the request named a version id.
pub fn from_object(error: Error, by_id: bool) -> S3Error {
    match error {
        Error::NoSuchBucket(_) => s3_error!(NoSuchBucket, "The specified bucket does not exist."),
        Error::NoSuchKey => s3_error!(NoSuchKey, "The specified key does not exist."),
        Error::NoSuchVersion => s3_error!(NoSuchVersion, "The specified version does not exist."),
        Error::NoSuchUpload => {
            s3_error!(NoSuchUpload, "The specified upload does not exist; it may have been aborted or completed.")
        }
        Error::BucketExists => s3_error!(BucketAlreadyOwnedByYou, "The bucket exists and is yours."),
        Error::InvalidBucketName { rule, .. } => s3_error!(InvalidBucketName, "The bucket name is not valid: {rule}."),
        Error::BucketNotEmpty => s3_error!(BucketNotEmpty, "The bucket holds objects, versions or delete markers."),
        Error::LockMissing(_) => s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration."),
        Error::PreconditionFailed(what) => s3_error!(PreconditionFailed, "{what} does not hold."),
        Error::DeleteMarker { version_id, .. } => delete_marker(version_id.to_string(), by_id),
        Error::InvalidPart(n) => s3_error!(InvalidPart, "Part {n} was not uploaded or its ETag differs."),
        Error::InvalidPartOrder => s3_error!(InvalidPartOrder, "Parts are not in ascending order."),
        Error::EntityTooSmall(n) => s3_error!(EntityTooSmall, "Part {n} is smaller than 5 MiB and not the last."),
        Error::BadDigest(what) => s3_error!(BadDigest, "{what} does not match what was received."),
        Error::Body(source) => from_body(source),
        Error::Unavailable(_) => s3_error!(ServiceUnavailable, "Too few drives answered. Please try again."),
        Error::Full => custom(STORAGE_FULL, StatusCode::SERVICE_UNAVAILABLE, "The drives are full; nothing was acked."),
        Error::Conflict(why) => S3Error::with_message(S3ErrorCode::OperationAborted, why),
        Error::Corrupt(_) => s3_error!(error, InternalError, "Too many shards of the object are lost or corrupt."),
        Error::Expired => s3_error!(error, InternalError),
        Error::Guarded(why) => s3_error!(AccessDenied, "Access Denied because {why}."),
        Error::Invalid(why) => S3Error::with_message(S3ErrorCode::InvalidArgument, why),
    }
}

/// A marker read without its id is an absent key; named by id it is something that cannot be read.
fn delete_marker(version_id: String, by_id: bool) -> S3Error {
    let marker = (header("x-amz-delete-marker"), "true".to_owned());
    let id = (header("x-amz-version-id"), version_id);
    if by_id {
        let error = s3_error!(MethodNotAllowed, "The version is a delete marker.");
        with_headers(error, [marker, id, (ALLOW, "DELETE".to_owned())])
    } else {
        with_headers(s3_error!(NoSuchKey, "The specified key does not exist."), [marker, id])
    }
}

/// The client was waited for long enough.
pub fn too_slow() -> S3Error {
    s3_error!(RequestTimeout, "The body came too slowly: less than 1 KiB/s, or nothing for a minute.")
}

/// The S3 error for a body that broke on its way in; the kinds are those `body.rs` gives.
pub fn from_body(source: io::Error) -> S3Error {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            s3_error!(source, SignatureDoesNotMatch, "A signature within the body does not match.")
        }
        io::ErrorKind::InvalidData => custom(
            "XAmzContentSHA256Mismatch",
            StatusCode::BAD_REQUEST,
            "The body does not match x-amz-content-sha256.",
        ),
        io::ErrorKind::TimedOut => too_slow(),
        io::ErrorKind::InvalidInput => S3Error::with_message(S3ErrorCode::InvalidRequest, source.to_string()),
        _ => s3_error!(source, IncompleteBody, "The body ended before the length that was announced."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::VersionId;

    #[test]
    fn a_marker_is_absent_as_latest_and_unreadable_by_id() {
        let marker = || Error::DeleteMarker { version_id: VersionId::NULL, is_latest: true };
        let latest = from_object(marker(), false);
        assert_eq!(latest.status_code(), Some(StatusCode::NOT_FOUND));
        assert_eq!(latest.headers().unwrap()["x-amz-delete-marker"], "true");
        let by_id = from_object(marker(), true);
        assert_eq!(by_id.status_code(), Some(StatusCode::METHOD_NOT_ALLOWED));
        assert_eq!(by_id.headers().unwrap()["allow"], "DELETE");
    }

    #[test]
    fn full_drives_have_one_documented_code() {
        let error = from_object(Error::Full, false);
        assert_eq!(error.code().as_str(), STORAGE_FULL);
        assert_eq!(error.status_code(), Some(StatusCode::SERVICE_UNAVAILABLE));
    }
}
