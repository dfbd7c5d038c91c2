//! What a bucket's CORS document says to browsers: the answer to a preflight, and the headers on the answer to the request
//! itself. Called by `gate.rs`; it says what a page may read, never what a request may do: that is the signature's.
//!
//! The document is read for every request that names an origin, so that a change counts at once.
//!
//! Source: Amazon S3 User Guide, "How does Amazon S3 evaluate the CORS configuration on a bucket?"; Fetch Standard,
//! "CORS protocol".
use crate::bucket::document::Kind;
use crate::object::{Error, Objects};
use crate::s3::error::{custom, from_object};
use crate::s3::text::{from_xml, percent_decode};
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode};
use s3s::dto::{CORSConfiguration, CORSRule};
use s3s::{Body, HttpResponse, S3Result};

/// What S3 says is in the way when nothing allows a request.
const NOT_ALLOWED: &str = "CORSResponse: This CORS request is not allowed. This is usually because the evaluation of Origin, \
    request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's \
    CORS spec.";
/// A cache must not give one origin's answer to another.
const VARY: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";

/// What a browser says of a request: its page, its method, the headers it will carry.
struct Asked<'a> {
    origin: &'a str,
    method: &'a str,
    headers: Vec<String>,
}

/// Answers OPTIONS.
///
/// # Errors
/// 400 where it is no preflight, 403 where no rule allows what it asks, 503 where the document cannot be read.
pub async fn answer(objects: &Objects, parts: &Parts) -> S3Result<HttpResponse> {
    let insufficient =
        |what: &str| custom("BadRequest", StatusCode::BAD_REQUEST, format!("{what} request header needed."));
    let origin = text(&parts.headers, "origin").ok_or_else(|| insufficient("Insufficient information. Origin"))?;
    let method = text(&parts.headers, "access-control-request-method")
        .ok_or_else(|| insufficient("Insufficient information. Access-Control-Request-Method"))?;
    let headers = text(&parts.headers, "access-control-request-headers").unwrap_or_default();
    let headers = headers.split(',').map(|h| h.trim().to_ascii_lowercase()).filter(|h| !h.is_empty()).collect();
    let asked = Asked { origin, method, headers };
    let forbidden = |message: &'static str| custom("AccessForbidden", StatusCode::FORBIDDEN, message);
    let rules = rules(objects, parts.uri.path()).await.map_err(|e| from_object(e, false))?;
    let rules = rules.ok_or_else(|| forbidden("CORSResponse: CORS is not enabled for this bucket."))?;
    let (rule, allowed) = matching(&rules, &asked).ok_or_else(|| forbidden(NOT_ALLOWED))?;
    let mut response = HttpResponse::new(Body::empty());
    *response.headers_mut() = said(rule, allowed, &asked);
    Ok(response)
}

/// The headers that let a page read the answer to this request; none where no rule allows it, or where that cannot be
/// found out.
pub async fn of_answer(objects: &Objects, parts: &Parts) -> HeaderMap {
    let Some(origin) = text(&parts.headers, "origin") else { return HeaderMap::new() };
    match rules(objects, parts.uri.path()).await {
        Ok(Some(rules)) => {
            let asked = Asked { origin, method: parts.method.as_str(), headers: Vec::new() };
            matching(&rules, &asked).map(|(rule, allowed)| said(rule, allowed, &asked)).unwrap_or_default()
        }
        Ok(None) => HeaderMap::new(),
        Err(err) => {
            tracing::debug!(%err, "A bucket's CORS cannot be read; a page cannot read this answer.");
            HeaderMap::new()
        }
    }
}

/// The rules of the bucket in a path; `None`: no such bucket, or it has none, which a stranger is not told apart.
async fn rules(objects: &Objects, path: &str) -> Result<Option<Vec<CORSRule>>, Error> {
    let bucket = path.trim_start_matches('/').split('/').next().and_then(percent_decode);
    let Some(bucket) = bucket.filter(|bucket| !bucket.is_empty()) else { return Ok(None) };
    match objects.bucket_document(&bucket, Kind::Cors).await {
        Ok(document) => Ok(document.and_then(|d| from_xml::<CORSConfiguration>(&d).ok()).map(|cors| cors.cors_rules)),
        Err(Error::NoSuchBucket(_)) => Ok(None),
        Err(err) => Err(err),
    }
}

/// The first rule that allows all of it, and the origin it names.
fn matching<'r>(rules: &'r [CORSRule], asked: &Asked<'_>) -> Option<(&'r CORSRule, &'r str)> {
    rules.iter().find_map(|rule| {
        let allowed = rule.allowed_origins.iter().find(|pattern| fits(pattern, asked.origin))?;
        let is_method = rule.allowed_methods.iter().any(|method| method == asked.method);
        let patterns: Vec<String> = rule.allowed_headers.iter().flatten().map(|h| h.to_ascii_lowercase()).collect();
        let are_headers = asked.headers.iter().all(|header| patterns.iter().any(|pattern| fits(pattern, header)));
        (is_method && are_headers).then_some((rule, allowed.as_str()))
    })
}

/// Whether a text fits a pattern with at most one `*`.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.len() >= head.len() + tail.len() && text.starts_with(head) && text.ends_with(tail),
    }
}

fn said(rule: &CORSRule, allowed: &str, asked: &Asked<'_>) -> HeaderMap {
    let is_any = allowed == "*";
    let exposed = rule.expose_headers.as_ref().map(|headers| headers.join(", "));
    let values = [
        ("access-control-allow-origin", Some(if is_any { "*" } else { asked.origin }.to_owned())),
        ("access-control-allow-methods", Some(rule.allowed_methods.join(", "))),
        ("access-control-allow-headers", Some(asked.headers.join(", ")).filter(|headers| !headers.is_empty())),
        ("access-control-expose-headers", exposed.filter(|headers| !headers.is_empty())),
        ("access-control-max-age", rule.max_age_seconds.map(|seconds| seconds.to_string())),
        // Of any origin a page may read without credentials only.
        ("access-control-allow-credentials", (!is_any).then(|| "true".to_owned())),
        ("vary", Some(VARY.to_owned())),
    ];
    // What no header can carry, no document of a client held.
    let fitting = |(name, value): (&'static str, Option<String>)| {
        Some((HeaderName::from_static(name), HeaderValue::try_from(value?).ok()?))
    };
    values.into_iter().filter_map(fitting).collect()
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn one_wildcard_stands_for_anything_between() {
        for (pattern, text, is_fit) in [
            ("*", "https://any", true),
            ("https://*.example.org", "https://a.b.example.org", true),
            ("https://*.example.org", "https://.example.org", true),
            ("https://*.example.org", "https://example.org", false),
            ("https://*.example.org", "https://a.example.org.evil", false),
            ("https://example.org", "https://example.org", true),
            ("https://example.org", "https://example.org:8443", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(fits(pattern, text), is_fit, "{pattern} {text}");
        }
    }
}
