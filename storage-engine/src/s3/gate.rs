//! What stands around the codec: admission before it, and after it the corrections S3 clients need.
//! Called once per request by the accept loop in `node.rs`; it decides nothing about objects.
use crate::bucket::name;
use crate::entropy;
use crate::metrics::Metrics;
use crate::object::Objects;
use crate::s3::auth::{self, Operation};
use crate::s3::document::is_chunked;
use crate::s3::failures::Failures;
use crate::s3::pace::{FLOOR, Paced, TOO_SLOW};
use crate::s3::text::percent_decode;
use crate::s3::{KEY_BYTES_MAX, checksum, error, preflight};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Uri};
use s3s::service::S3Service;
use s3s::{Body, HttpError, HttpResponse, S3Error, S3Result, s3_error};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Largest XML document of a request, in bytes: 1,000 keys of 1,024 bytes to delete stay below.
pub const DOCUMENT_BYTES_MAX: usize = 2 << 20;

/// The front door as a service.
#[derive(Clone)]
pub struct Gate {
    pub(super) codec: S3Service,
    pub(super) region: Arc<str>,
    pub(super) failures: Arc<Failures>,
    pub(super) metrics: Arc<Metrics>,
    /// For the CORS of buckets and their fences alone.
    pub(super) objects: Objects,
}

impl Gate {
    /// Answers one request of `client`.
    ///
    /// # Errors
    /// Only when no answer can be written: the connection is to be closed.
    pub async fn answer(&self, request: Request<Incoming>, client: IpAddr) -> Result<HttpResponse, HttpError> {
        let start = Instant::now();
        let operation = Operation::default();
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(operation.clone());
        let access_key = auth::access_key(&parts).to_owned();
        let (body, end) = Paced::new(body, FLOOR);
        if parts.method == Method::OPTIONS {
            // A browser sends it without a signature, before the request that has one.
            let response = self.preflight(&parts).await?;
            return Ok(self.sent(("Preflight", None), response, end.was_seen(), start));
        }
        let _writing = auth::is_write(&parts.method).then(|| self.objects.fences().write(&bucket_of(parts.uri.path())));
        let for_pages = preflight::of_answer(&self.objects, &parts).await;
        let admitted = match self.failures.wait(client, &access_key, start) {
            Some(wait) => Err(slow_down(wait)),
            None => self.admit(&parts, body).await,
        };
        let mut response = match admitted {
            Ok(body) => self.codec.call(Request::from_parts(parts, body)).await?,
            Err(error) => refused(error)?,
        };
        response.headers_mut().extend(for_pages);
        let name = operation.name.get().map_or("none", String::as_str);
        if operation.name.get().is_none()
            && let Some(reason) = login_failure(&response)
        {
            self.metrics.login_failed(reason);
            if reason == "signature" {
                self.failures.failed(client, &access_key, start);
            }
        }
        let trace_id = operation.trace_id.get().map(String::as_str);
        Ok(self.sent((name, trace_id), response, end.was_seen(), start))
    }

    async fn preflight(&self, parts: &Parts) -> Result<HttpResponse, HttpError> {
        let answered = match names_fit(parts.uri.path()) {
            Ok(()) => preflight::answer(&self.objects, parts).await,
            Err(error) => Err(error),
        };
        answered.or_else(refused)
    }

    /// An answer as it leaves, counted as that of an operation, with its trace where it has one.
    fn sent(
        &self,
        (operation, trace_id): (&str, Option<&str>),
        mut response: HttpResponse,
        was_read: bool,
        start: Instant,
    ) -> HttpResponse {
        dress(operation, &mut response);
        if !was_read {
            // What is left of the body would be read as the next request.
            response.headers_mut().insert("connection", HeaderValue::from_static("close"));
        }
        self.metrics.request(operation, response.status().as_u16(), Some(start.elapsed()), trace_id);
        response
    }

    async fn admit(&self, parts: &Parts, body: Paced<Incoming>) -> S3Result<Body> {
        auth::admit(parts, &self.region)?;
        names_fit(parts.uri.path())?;
        if !carries_document(&parts.method, &parts.uri) || is_chunked(&parts.headers) {
            return Ok(if body.is_end_stream() { Body::empty() } else { Body::http_body_unsync(body) });
        }
        let document = whole(body).await?;
        if states_digest_of_document(&parts.uri) {
            checksum::verify(&parts.headers, &document)?;
        }
        Ok(Body::from(document))
    }
}

fn refused(error: S3Error) -> Result<HttpResponse, HttpError> {
    error.to_http_response().map_err(|e| HttpError::new(Box::new(e)))
}

/// Answer to a client that failed to log in too often.
fn slow_down(wait: Duration) -> S3Error {
    let seconds = wait.as_secs() + 1;
    let error = s3_error!(SlowDown, "Too many wrong signatures for this access key; try again in {seconds} s.");
    error::with_headers(error, [(error::header("retry-after"), seconds.to_string())])
}

/// Which of `LOGIN_FAILURES` an answer is that came before the operation was known.
fn login_failure(response: &HttpResponse) -> Option<&'static str> {
    if !matches!(response.status(), StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let document = response.body().bytes()?;
    let reasons = [
        ("SignatureDoesNotMatch", "signature"),
        ("RequestTimeTooSkewed", "clock"),
        ("AccessDenied", "denied"),
        ("SlowDown", "too_often"),
    ];
    let code = code(std::str::from_utf8(&document).ok()?);
    reasons.into_iter().find(|(name, _)| *name == code).map(|(_, reason)| reason)
}

/// The code of an error document; the empty one: there is none.
fn code(document: &str) -> &str {
    document.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code)
}

/// The bucket a path names; the empty one: none.
fn bucket_of(path: &str) -> String {
    let path = path.strip_prefix('/').unwrap_or(path);
    percent_decode(path.split_once('/').map_or(path, |(bucket, _)| bucket)).unwrap_or_default()
}

/// Says of a bucket or key that cannot be what is wrong with it; the codec only names the error.
fn names_fit(path: &str) -> S3Result<()> {
    let (bucket, key) = path.strip_prefix('/').and_then(|p| p.split_once('/')).unwrap_or((path.trim_matches('/'), ""));
    if !bucket.is_empty() {
        let bucket = percent_decode(bucket).ok_or_else(|| s3_error!(InvalidURI, "The bucket is no UTF-8."))?;
        name::check(&bucket).map_err(|e| error::from_object(e, false))?;
    }
    // Decoding only shortens.
    if key.len() > KEY_BYTES_MAX && percent_decode(key).is_none_or(|k| k.len() > KEY_BYTES_MAX) {
        return Err(s3_error!(KeyTooLongError, "A key has at most {KEY_BYTES_MAX} bytes of UTF-8."));
    }
    Ok(())
}

/// What a PUT names in its query when its body is a document.
const DOCUMENTS: [&str; 8] =
    ["tagging", "versioning", "object-lock", "retention", "legal-hold", "cors", "lifecycle", "policy"];

/// Whether the body is a document and not an object.
pub fn carries_document(method: &Method, uri: &Uri) -> bool {
    method == Method::POST && (has(uri, "delete") || has(uri, "uploadId"))
        || method == Method::PUT && DOCUMENTS.iter().any(|name| has(uri, name))
}

/// CompleteMultipartUpload states checksums of the object, not of its document.
pub fn states_digest_of_document(uri: &Uri) -> bool {
    !has(uri, "uploadId")
}

fn has(uri: &Uri, name: &str) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|pair| pair.split('=').next() == Some(name))
}

async fn whole(body: Paced<Incoming>) -> S3Result<bytes::Bytes> {
    if body.size_hint().lower() > DOCUMENT_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match Limited::new(body, DOCUMENT_BYTES_MAX).collect().await {
        Ok(document) => Ok(document.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(error) if error.to_string() == TOO_SLOW => Err(error::too_slow()),
        Err(_) => Err(s3_error!(IncompleteBody, "The document ended early.")),
    }
}

pub fn too_large() -> S3Error {
    s3_error!(MaxMessageLengthExceeded, "The document is larger than 2 MiB.")
}

/// Corrects what the codec writes differently from S3.
fn dress(operation: &str, response: &mut HttpResponse) {
    let id = entropy::id().as_simple().to_string();
    if response.status().as_u16() >= 400 {
        rewrite(response, |document| complete(document, &id));
    }
    let id = HeaderValue::try_from(id).expect("hexadecimal digits are a header value");
    response.headers_mut().insert("x-amz-request-id", id);
    if response.status() == StatusCode::NOT_MODIFIED {
        response.headers_mut().remove("content-type");
        *response.body_mut() = Body::empty();
    }
    // The codec gives a ranged GET its status, a ranged HEAD it leaves at 200.
    if operation == "HeadObject"
        && response.headers().contains_key("content-range")
        && response.status() == StatusCode::OK
    {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    if operation == "GetObjectAttributes" && response.status() == StatusCode::OK {
        // S3 shows the ETag of GetObjectAttributes without quotes.
        let bare = |document: &str| document.replace("<ETag>\"", "<ETag>").replace("\"</ETag>", "</ETag>");
        rewrite(response, bare);
    }
}

/// An error document with its request id, and with words where the codec gives only a code.
fn complete(document: &str, id: &str) -> String {
    let message = match code(document) {
        _ if document.contains("<Message>") => None,
        "SignatureDoesNotMatch" => {
            Some("The signature does not match; check the access key, the secret and the clock.")
        }
        "IncompleteBody" => Some("The body is not as long as Content-Length says."),
        "InvalidURI" => Some("The path or query cannot be decoded."),
        "MalformedXML" => Some("The XML is not well-formed or not of the schema of this operation."),
        "MissingContentLength" => Some("Content-Length is missing."),
        _ => Some("The request was refused before it was looked at."),
    };
    let message = message.map(|m| format!("<Message>{m}</Message>")).unwrap_or_default();
    document.replace("</Error>", &format!("{message}<RequestId>{id}</RequestId></Error>"))
}

/// Changes an XML document on its way out.
fn rewrite(response: &mut HttpResponse, change: impl FnOnce(&str) -> String) {
    let document = response.body().bytes().and_then(|b| String::from_utf8(b.to_vec()).ok());
    if let Some(document) = document.filter(|d| !d.is_empty()) {
        *response.body_mut() = Body::from(change(&document));
    }
}
