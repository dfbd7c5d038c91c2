//! What an S3 endpoint's "no" means to who sends: try for ever, look at the whole target, or a person must look.
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// Why a request did not succeed; a variant per thing the sender does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No answer came: whether it was carried out is not known.
    #[error("the S3 endpoint cannot be reached: {0}")]
    Unreachable(String),
    /// The request was sent and not answered in time: whether it was carried out is not known.
    #[error("the S3 endpoint did not answer in time: {0}")]
    Silent(String),
    /// Throttled or failing for now: the same request may succeed later.
    #[error("the S3 endpoint is busy or failing: {0}")]
    Busy(String),
    /// It was carried out, and its answer is none that S3 gives.
    #[error("the S3 endpoint's answer cannot be read: {0}")]
    Unreadable(String),
    /// Nothing can be sent to the bucket until a person mends it: condition and what to do.
    #[error("{reason}: {message}")]
    Unfit { reason: &'static str, message: String },
    /// There is no such key, version or upload.
    #[error("not there")]
    NotFound,
    /// This very request is refused, for a reason that stays.
    #[error("the S3 endpoint refuses: {0}")]
    Refused(String),
    /// What was to be sent could not be read here.
    #[error("read own store: {0}")]
    Body(String),
}

impl Error {
    /// Whether the fault lies with the target as a whole: the link stops until a probe succeeds.
    pub fn is_of_target(&self) -> bool {
        matches!(self, Error::Unreachable(_) | Error::Silent(_) | Error::Unfit { .. })
    }
}

/// The SDK's error in this module's words.
pub(super) fn of<E>(e: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match &e {
        SdkError::ServiceError(context) => {
            let (error, status) = (context.err(), context.raw().status().as_u16());
            judge(status, error.code().unwrap_or_default(), error.message().unwrap_or_default())
        }
        SdkError::ResponseError(context) if context.raw().status().as_u16() < 500 => {
            Error::Unreachable(format!("{}", DisplayErrorContext(&e)))
        }
        SdkError::ResponseError(context) => judge(context.raw().status().as_u16(), "", ""),
        SdkError::TimeoutError(_) => Error::Silent(root(&e)),
        SdkError::ConstructionFailure(_) => Error::Refused(format!("{}", DisplayErrorContext(&e))),
        other => {
            let text = format!("{}", DisplayErrorContext(other));
            if text.contains("redential") { credentials_missing(&text) } else { Error::Unreachable(root(other)) }
        }
    }
}

/// The innermost cause: what the socket or TLS said.
fn root(e: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn credentials_missing(text: &str) -> Error {
    let message =
        format!("no credentials were found; set credentialsSecretRef of the Peer, or the AWS environment: {text}");
    Error::Unfit { reason: "CredentialsMissing", message }
}

/// What a status, an S3 error code and its message mean.
pub(super) fn judge(status: u16, code: &str, message: &str) -> Error {
    let said = match (code, message) {
        ("", "") => format!("HTTP {status}"),
        (code, "") => format!("HTTP {status} {code}"),
        (code, message) => format!("HTTP {status} {code}: {message}"),
    };
    let unfit = |reason, hint: &str| Error::Unfit { reason, message: format!("{hint} ({said})") };
    match (status, code) {
        (
            _,
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "AuthFailure"
            | "UnrecognizedClientException",
        ) => unfit(
            "CredentialsInvalid",
            "the endpoint does not know the access key or its secret; put the Peer's credentials right",
        ),
        (_, "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException") => {
            unfit("CredentialsExpired", "the credentials have expired; renew them")
        }
        (_, "RequestTimeTooSkewed") => {
            unfit("ClockSkewed", "the clocks of this machine and the endpoint differ too much")
        }
        (_, "NoSuchBucket") => {
            unfit("TargetBucketNotFound", "the bucket does not exist at the endpoint; make it, with versioning enabled")
        }
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") | (301 | 307, _) => {
            unfit("WrongRegion", "the bucket is in another region; put spec.s3.region of the Peer right")
        }
        (
            _,
            "SlowDown"
            | "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "ServiceUnavailable"
            | "InternalError"
            | "RequestTimeout"
            | "OperationAborted"
            | "ConditionalRequestConflict"
            | "IncompleteBody"
            // No room: nothing is wrong with the version.
            | "QuotaExceeded"
            | "XMinioStorageFull"
            | "XMinioAdminBucketQuotaExceeded"
            | "InsufficientStorage",
        )
        | (408 | 425 | 429, _)
        | (500..=599, _)
            if status != 501 =>
        {
            Error::Busy(said)
        }
        (200..=299, _) => Error::Unreadable(said),
        (404, _) => Error::NotFound,
        _ => Error::Refused(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_what_is_done_about_them() {
        let unfit = |e: Error| if let Error::Unfit { reason, .. } = e { reason } else { panic!("{e}") };
        assert_eq!(unfit(judge(403, "InvalidAccessKeyId", "")), "CredentialsInvalid");
        assert_eq!(unfit(judge(400, "ExpiredToken", "x")), "CredentialsExpired");
        assert_eq!(unfit(judge(404, "NoSuchBucket", "")), "TargetBucketNotFound");
        for (status, code) in
            [(503, "SlowDown"), (500, ""), (429, ""), (400, "RequestTimeout"), (409, "OperationAborted")]
        {
            assert!(matches!(judge(status, code, ""), Error::Busy(_)), "{status} {code}");
        }
        for (status, code) in
            [(403, "AccessDenied"), (400, "EntityTooSmall"), (501, "NotImplemented"), (400, "MetadataTooLarge")]
        {
            assert!(matches!(judge(status, code, ""), Error::Refused(_)), "{status} {code}");
        }
        assert_eq!(judge(404, "NoSuchVersion", ""), Error::NotFound);
    }
}
