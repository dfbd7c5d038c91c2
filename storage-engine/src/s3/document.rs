//! XML documents that come aws-chunked: clients that put a trailing checksum on every request send them so.
//!
//! The codec verifies the chunks but then holds the document against a length it has lost. So such a request
//! leaves it by a route, behind the check of its signature, is read and verified here, and is handed in one
//! piece to a second codec that asks for no signature. Nothing else reaches that one.
use crate::object::Body as Bytestream;
use crate::s3::auth::Rights;
use crate::s3::body::incoming;
use crate::s3::gate::{DOCUMENT_BYTES_MAX, carries_document, states_digest_of_document, too_large};
use crate::s3::{checksum, error};
use bytes::BytesMut;
use futures::TryStreamExt;
use hyper::http::Extensions;
use hyper::{HeaderMap, Method, Request, Uri, header};
use s3s::dto::StreamingBlob;
use s3s::route::S3Route;
use s3s::service::S3Service;
use s3s::{Body, HttpError, HttpRequest, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

/// Headers that speak of the chunks and of the signature; both are behind us.
const OF_THE_TRANSFER: [&str; 6] = [
    "authorization",
    "content-encoding",
    "x-amz-content-sha256",
    "x-amz-decoded-content-length",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-trailer",
];

/// The way of such documents past the codec's own reading.
pub struct Chunked {
    /// The codec without signatures.
    pub trusting: S3Service,
    pub rights: Rights,
}

#[async_trait::async_trait]
impl S3Route for Chunked {
    fn is_match(&self, method: &Method, uri: &Uri, headers: &HeaderMap, _: &mut Extensions) -> bool {
        carries_document(method, uri) && is_chunked(headers)
    }

    async fn call(&self, mut request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        if let Some(signer) = &request.credentials {
            self.rights.tell(&signer.access_key, &mut request.extensions);
        }
        let answered = match in_one_piece(request).await {
            Ok(request) => self.trusting.call(request).await.map_err(unwritable)?,
            Err(error) => error.to_http_response().map_err(S3Error::internal_error)?,
        };
        let (parts, body) = answered.into_parts();
        let mut response = S3Response::new(body);
        (response.status, response.headers) = (Some(parts.status), parts.headers);
        Ok(response)
    }
}

fn unwritable(error: HttpError) -> S3Error {
    S3Error::with_source(S3ErrorCode::InternalError, error.into())
}

/// Whether the body comes in chunks of its own coding.
pub fn is_chunked(headers: &HeaderMap) -> bool {
    headers.get("x-amz-content-sha256").is_some_and(|v| v.as_bytes().starts_with(b"STREAMING-"))
}

/// The same request with its document whole, verified and without its signature.
async fn in_one_piece(request: S3Request<Body>) -> S3Result<HttpRequest> {
    let S3Request { input, method, uri, mut headers, extensions, trailing_headers, .. } = request;
    let (size_bytes, announced) = checksum::announced_length(&headers, trailing_headers.clone())?;
    if size_bytes > DOCUMENT_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let document = whole(incoming(Some(StreamingBlob::from(input)), size_bytes, announced)).await?;
    let trailers = trailing_headers.and_then(|t| t.take()).unwrap_or_default();
    checksum::verify(&trailers, &document)?;
    if states_digest_of_document(&uri) {
        checksum::verify(&headers, &document)?;
    }
    OF_THE_TRANSFER.iter().for_each(|name| drop(headers.remove(*name)));
    headers.insert(header::CONTENT_LENGTH, document.len().into());
    let mut whole = Request::new(Body::from(document.freeze()));
    (*whole.method_mut(), *whole.uri_mut(), *whole.headers_mut()) = (method, uri, headers);
    *whole.extensions_mut() = extensions;
    Ok(whole)
}

/// `incoming` ends at the length that was announced, which is within bounds.
async fn whole(mut body: Bytestream) -> S3Result<BytesMut> {
    let mut document = BytesMut::new();
    while let Some(bytes) = body.try_next().await.map_err(error::from_body)? {
        document.extend_from_slice(&bytes);
    }
    Ok(document)
}
