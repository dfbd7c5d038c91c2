//! What stands around the codec: admission before it, and after it the corrections S3 clients need.
//! Called once per request by the accept loop in `node.rs`; it decides nothing about objects.
use crate::entropy;
use crate::metrics::Metrics;
use crate::s3::auth::{self, Operation};
use crate::s3::checksum;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use s3s::service::S3Service;
use s3s::{Body, HttpError, HttpResponse, S3Error, S3Result, s3_error};
use std::sync::Arc;
use tokio::time::Instant;

/// Largest XML document of a request, in bytes: 1,000 keys of 1,024 bytes to delete stay below.
pub const DOCUMENT_BYTES_MAX: usize = 2 << 20;

/// The front door as a service.
#[derive(Clone)]
pub struct Gate {
    pub(super) codec: S3Service,
    pub(super) region: Arc<str>,
    pub(super) metrics: Arc<Metrics>,
}

impl Gate {
    /// Answers one request.
    ///
    /// # Errors
    /// Only when no answer can be written: the connection is to be closed.
    pub async fn answer(&self, request: Request<Incoming>) -> Result<HttpResponse, HttpError> {
        let start = Instant::now();
        let operation = Operation::default();
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(operation.clone());
        let mut response = match self.admit(&parts, body).await {
            Ok(body) => self.codec.call(Request::from_parts(parts, body)).await?,
            Err(error) => error.to_http_response().map_err(|e| HttpError::new(Box::new(e)))?,
        };
        let name = operation.0.get().map_or("none", String::as_str);
        dress(name, &mut response);
        self.metrics.request(name, response.status().as_u16(), start.elapsed());
        Ok(response)
    }

    async fn admit(&self, parts: &Parts, body: Incoming) -> S3Result<Body> {
        auth::admit(parts, &self.region)?;
        if !carries_document(parts) {
            return Ok(Body::from(body));
        }
        let payload = parts.headers.get("x-amz-content-sha256").map(HeaderValue::as_bytes);
        if payload.is_some_and(|p| p.starts_with(b"STREAMING-")) {
            // The codec loses the length of a document that comes in chunks and then calls it incomplete.
            return Err(s3_error!(NotImplemented, "Please send XML documents in one piece, not aws-chunked."));
        }
        let document = whole(body).await?;
        if states_digest_of_document(parts) {
            checksum::verify(&parts.headers, &document)?;
        }
        Ok(Body::from(document))
    }
}

/// Whether the body is an XML document and not an object.
fn carries_document(parts: &Parts) -> bool {
    parts.method == Method::POST && (has(parts, "delete") || has(parts, "uploadId"))
        || parts.method == Method::PUT && (has(parts, "tagging") || has(parts, "versioning"))
}

/// CompleteMultipartUpload states checksums of the object, not of its document.
fn states_digest_of_document(parts: &Parts) -> bool {
    !has(parts, "uploadId")
}

fn has(parts: &Parts, name: &str) -> bool {
    let query = parts.uri.query().unwrap_or_default();
    query.split('&').any(|pair| pair.split('=').next() == Some(name))
}

async fn whole(body: Incoming) -> S3Result<bytes::Bytes> {
    if body.size_hint().lower() > DOCUMENT_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match Limited::new(body, DOCUMENT_BYTES_MAX).collect().await {
        Ok(document) => Ok(document.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(_) => Err(s3_error!(IncompleteBody, "The document ended early.")),
    }
}

fn too_large() -> S3Error {
    s3_error!(MaxMessageLengthExceeded, "The document is larger than 2 MiB.")
}

/// Corrects what the codec writes differently from S3.
fn dress(operation: &str, response: &mut HttpResponse) {
    let id = entropy::id().as_simple().to_string();
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
        bare_etag(response);
    }
}

/// S3 shows the ETag of GetObjectAttributes without quotes.
fn bare_etag(response: &mut HttpResponse) {
    let document = response.body().bytes().and_then(|b| String::from_utf8(b.to_vec()).ok());
    let Some(document) = document else { return };
    let bare = document.replace("<ETag>\"", "<ETag>").replace("\"</ETag>", "</ETag>");
    *response.body_mut() = Body::from(bare);
}
