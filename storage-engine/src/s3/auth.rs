//! Who may ask: the checks before the codec's own, the keys it verifies signatures with, and default deny.
//!
//! [`admit`] is the one gate: every request passes it before anything else reads it. It looks at the head
//! only and never at a body; the signature itself is computed by the codec with a key from [`Users`].
use crate::config::User;
use crate::entropy;
use crate::s3::Fences;
use crate::s3::text::query_pairs;
use hyper::http::Extensions;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3Result, s3_error};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

/// Longest life of a presigned request in seconds: seven days, as S3 has it.
const PRESIGNED_SECONDS_MAX: u64 = 604_800;

/// All header names and values of a request together, in bytes.
const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// Headers by which stores speak to each other; from a client they would forge history.
const RESERVED: [&str; 6] = [
    "x-minio-source-",
    "x-minio-replication-",
    "x-minio-internal-",
    "x-rustfs-",
    "x-isthmus-",
    "x-amz-replication-status",
];

/// Headers that ask for what this store does not do; ignoring them would promise it.
const UNSUPPORTED: [&str; 6] = [
    "x-amz-server-side-encryption",
    "x-amz-copy-source-server-side-encryption",
    "x-amz-grant-",
    "x-amz-write-offset-bytes",
    "x-amz-mfa",
    "x-amz-website-redirect-location",
];

/// How a request says who sends it.
enum Mechanism<'a> {
    Header(&'a str),
    Query(BTreeMap<String, String>),
}

/// Lets a request through to the signature check, or says why not.
///
/// # Errors
/// 400 for what no client may send, for two or unknown mechanisms and for malformed credentials; 403 for
/// anonymous requests and headers outside the signature.
///
/// # Source
/// Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)".
pub fn admit(parts: &Parts, region: &str) -> S3Result<()> {
    headers_allowed(&parts.headers)?;
    if parts.method == Method::POST && content_type(&parts.headers).starts_with("multipart/form-data") {
        return Err(s3_error!(NotImplemented, "Uploads by HTML form are not supported; use PUT with a presigned URL."));
    }
    let query = query_pairs(parts.uri.query().unwrap_or_default())
        .ok_or_else(|| s3_error!(InvalidURI, "The query string is not valid."))?;
    if query.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-amz-security-token"))
        || parts.headers.contains_key("x-amz-security-token")
    {
        return Err(s3_error!(InvalidToken, "This store issues no session tokens."));
    }
    match mechanism(&parts.headers, query)? {
        Mechanism::Header(value) => admit_header(value, &parts.headers, region),
        Mechanism::Query(query) => admit_query(&query, &parts.headers, region),
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get("content-type").and_then(|v| v.to_str().ok());
    value.unwrap_or_default().trim_start().to_ascii_lowercase()
}

fn headers_allowed(headers: &HeaderMap) -> S3Result<()> {
    let bytes: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
    if bytes > HEADERS_BYTES_MAX {
        return Err(s3_error!(RequestHeaderSectionTooLarge, "The headers are larger than 16 KiB."));
    }
    for name in headers.keys().map(|n| n.as_str()) {
        if RESERVED.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(s3_error!(InvalidRequest, "The header {name} is reserved."));
        }
        if UNSUPPORTED.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(s3_error!(NotImplemented, "The header {name} asks for what is not supported."));
        }
    }
    let acl = headers.get("x-amz-acl").map(|v| v.as_bytes());
    if !matches!(acl, None | Some(b"private" | b"bucket-owner-read" | b"bucket-owner-full-control")) {
        return Err(s3_error!(AccessControlListNotSupported, "Access is not granted by ACL here."));
    }
    Ok(())
}

fn mechanism(headers: &HeaderMap, query: Vec<(String, String)>) -> S3Result<Mechanism<'_>> {
    let signs = |name: &str| matches!(name, "X-Amz-Algorithm" | "X-Amz-Credential" | "X-Amz-Signature");
    if query.iter().any(|(name, _)| matches!(name.as_str(), "Signature" | "AWSAccessKeyId")) {
        return Err(old_signature());
    }
    let in_query = query.iter().any(|(name, _)| signs(name));
    let mut in_header = headers.get_all("authorization").iter();
    match (in_header.next(), in_query) {
        (None, false) => Err(s3_error!(AccessDenied, "Anonymous requests are denied.")),
        (None, true) => {
            let count = query.len();
            let query: BTreeMap<_, _> = query.into_iter().collect();
            if query.len() != count {
                return Err(query_error("A query parameter stands twice."));
            }
            Ok(Mechanism::Query(query))
        }
        (Some(value), false) if in_header.next().is_none() => {
            let malformed = |_| s3_error!(AuthorizationHeaderMalformed, "The Authorization header is no text.");
            value.to_str().map(Mechanism::Header).map_err(malformed)
        }
        _ => Err(s3_error!(InvalidRequest, "Only one authentication mechanism is allowed.")),
    }
}

fn admit_header(value: &str, headers: &HeaderMap, region: &str) -> S3Result<()> {
    let malformed = |why: String| S3Error::with_message(s3s::S3ErrorCode::AuthorizationHeaderMalformed, why);
    let Some(fields) = value.strip_prefix("AWS4-HMAC-SHA256") else {
        return Err(old_signature());
    };
    let field = |wanted: &str| fields.split(',').find_map(|f| f.trim().strip_prefix(wanted)?.strip_prefix('='));
    let scope = field("Credential").ok_or_else(|| malformed("Credential is missing.".into()))?;
    scope_matches(scope, region).map_err(malformed)?;
    let signed = field("SignedHeaders").ok_or_else(|| malformed("SignedHeaders is missing.".into()))?;
    headers_signed(signed, headers)
}

fn admit_query(query: &BTreeMap<String, String>, headers: &HeaderMap, region: &str) -> S3Result<()> {
    let field =
        |name: &str| query.get(name).map(String::as_str).ok_or_else(|| query_error(&format!("{name} is missing.")));
    if field("X-Amz-Algorithm")? != "AWS4-HMAC-SHA256" {
        return Err(old_signature());
    }
    field("X-Amz-Signature")?;
    scope_matches(field("X-Amz-Credential")?, region).map_err(|why| query_error(&why))?;
    match field("X-Amz-Expires")?.parse::<u64>() {
        Ok(1..=PRESIGNED_SECONDS_MAX) => {}
        _ => return Err(query_error("X-Amz-Expires must lie between 1 and 604800 seconds.")),
    }
    headers_signed(field("X-Amz-SignedHeaders")?, headers)
}

fn query_error(why: &str) -> S3Error {
    S3Error::with_message(s3s::S3ErrorCode::AuthorizationQueryParametersError, why.to_owned())
}

fn old_signature() -> S3Error {
    s3_error!(
        InvalidRequest,
        "The authorization mechanism is not supported. Please use AWS4-HMAC-SHA256 (signature version 4)."
    )
}

/// `<access key>/<date>/<region>/s3/aws4_request`; the date is held against x-amz-date by the codec.
fn scope_matches(scope: &str, region: &str) -> Result<(), String> {
    let mut from_end = scope.rsplit('/');
    let (terminal, service, theirs) = (from_end.next(), from_end.next(), from_end.next());
    match (terminal, service, theirs) {
        (Some("aws4_request"), Some("s3"), Some(theirs)) if theirs == region => Ok(()),
        (Some("aws4_request"), Some("s3"), Some(theirs)) => {
            Err(format!("The region '{theirs}' is wrong; expecting '{region}'."))
        }
        (Some("aws4_request"), Some(_), Some(_)) => Err("The service in the credential scope must be s3.".into()),
        _ => Err("The credential scope is malformed.".into()),
    }
}

/// `host` and every `x-amz-*` that was sent is signed, and every signed header was sent.
fn headers_signed(signed: &str, headers: &HeaderMap) -> S3Result<()> {
    let signed: Vec<&str> = signed.split(';').collect();
    if let Some(missing) = signed.iter().find(|name| !headers.contains_key(**name)) {
        return Err(s3_error!(AccessDenied, "The signed header {missing} was not sent."));
    }
    let must = |name: &str| name == "host" || name.starts_with("x-amz-");
    match headers.keys().map(|n| n.as_str()).find(|name| must(name) && !signed.contains(name)) {
        Some(name) => {
            Err(s3_error!(AccessDenied, "There were headers present in the request which were not signed: {name}."))
        }
        None if signed.contains(&"host") => Ok(()),
        None => Err(s3_error!(AccessDenied, "The host header must be signed.")),
    }
}

/// The access key a request names, whoever signed it; empty where it names none.
pub fn access_key(parts: &Parts) -> &str {
    let header = parts.headers.get("authorization").and_then(|v| v.to_str().ok());
    let (text, mark) = match header {
        Some(header) => (header, "Credential="),
        None => (parts.uri.query().unwrap_or_default(), "X-Amz-Credential="),
    };
    let scope = text.split_once(mark).map_or("", |(_, scope)| scope);
    scope.split(['/', '%', '&', ',']).next().unwrap_or_default()
}

/// The keys of those who may sign.
pub struct Users {
    keys: BTreeMap<String, SecretKey>,
    /// Stands for the key of nobody: an unknown access key takes the same road as a wrong secret, and nobody
    /// can sign with this.
    nobody: SecretKey,
}

impl Users {
    /// Users from access key to secret key.
    pub fn new(keys: BTreeMap<String, String>) -> Self {
        let nobody = SecretKey::from(format!("{}{}", entropy::id().as_simple(), entropy::id().as_simple()));
        Users { keys: keys.into_iter().map(|(access, secret)| (access, SecretKey::from(secret))).collect(), nobody }
    }
}

#[async_trait::async_trait]
impl S3Auth for Users {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(self.keys.get(access_key).unwrap_or(&self.nobody).clone())
    }
}

/// What metrics say of a request; travels in its extensions.
#[derive(Clone, Default)]
pub struct Operation {
    /// Name of the operation the codec found.
    pub name: Arc<OnceLock<String>>,
    /// Its trace, where it is sampled.
    pub trace_id: Arc<OnceLock<String>>,
}

fn name(context: &mut S3AccessContext<'_>) {
    let name = context.s3_op().name().to_owned();
    if let Some(operation) = context.extensions_mut().get::<Operation>() {
        let _ = operation.name.set(name); // only the first name counts
    }
}

/// Turns a client away whose bucket is fenced.
fn fenced(fences: &Fences, context: &S3AccessContext<'_>) -> S3Result<()> {
    let Some(bucket) = context.s3_path().get_bucket_name() else { return Ok(()) };
    fences.answer(bucket, is_write(context.method())).map_or(Ok(()), Err)
}

/// Whether a request would change something.
pub fn is_write(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// For requests whose signature another codec has checked.
pub struct SignedBefore {
    pub fences: Arc<Fences>,
}

#[async_trait::async_trait]
impl S3Access for SignedBefore {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        name(context);
        fenced(&self.fences, context)
    }
}

/// What some users may do and others may not.
#[derive(Clone)]
pub struct Rights {
    bypass_governance: Arc<BTreeSet<String>>,
}

/// Stands in the extensions of a request whose signer may bypass governance retention.
#[derive(Clone, Copy)]
struct MayBypass;

impl Rights {
    /// The rights of the users of the settings.
    pub fn of(users: &[User]) -> Self {
        let may = users.iter().filter(|user| user.bypass_governance).map(|user| user.access_key.clone());
        Rights { bypass_governance: Arc::new(may.collect()) }
    }
    /// Tells the operation what the signer may do.
    pub fn tell(&self, access_key: &str, extensions: &mut Extensions) {
        if self.bypass_governance.contains(access_key) {
            extensions.insert(MayBypass);
        }
    }
}

/// Whether the request bypasses governance retention: it asks for it, and its signer may. Of others the word has no
/// effect, as S3 has it: what is not guarded they may still delete.
pub fn bypasses(asked: Option<bool>, extensions: &Extensions) -> bool {
    asked.unwrap_or(false) && extensions.get::<MayBypass>().is_some()
}

/// Whoever signed may do everything but what [`Rights`] name; nobody else may do anything.
pub struct SignedOnly {
    pub rights: Rights,
    pub fences: Arc<Fences>,
}

#[async_trait::async_trait]
impl S3Access for SignedOnly {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        name(context);
        match context.credentials().map(|signer| signer.access_key.clone()) {
            Some(signer) => {
                self.rights.tell(&signer, context.extensions_mut());
                fenced(&self.fences, context)
            }
            None => Err(s3_error!(AccessDenied, "Anonymous requests are denied.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    const SCOPE: &str = "AK/20260101/eu-west-1/s3/aws4_request";

    fn code(uri: &str, headers: &[(&str, &str)]) -> Option<String> {
        let mut request = Request::builder().uri(uri).header("host", "h");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        admit(&parts, "eu-west-1").err().map(|e| e.code().as_str().to_owned())
    }
    fn header(scope: &str, signed: &str) -> String {
        format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={signed}, Signature=00")
    }
    fn presigned(expires: &str) -> String {
        let scope = SCOPE.replace('/', "%2F");
        format!(
            "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={scope}&X-Amz-Date=20260101T000000Z\
             &X-Amz-Expires={expires}&X-Amz-SignedHeaders=host&X-Amz-Signature=00"
        )
    }

    #[test]
    fn a_plain_header_or_query_signature_passes() {
        assert_eq!(code("/b/k", &[("authorization", &header(SCOPE, "host"))]), None);
        assert_eq!(code(&presigned("604800"), &[]), None);
    }

    #[test]
    fn anonymous_double_and_old_mechanisms_are_refused() {
        assert_eq!(code("/b/k", &[]).as_deref(), Some("AccessDenied"));
        let both = code(&presigned("60"), &[("authorization", &header(SCOPE, "host"))]);
        assert_eq!(both.as_deref(), Some("InvalidRequest"));
        let twice = [("authorization", &*header(SCOPE, "host")), ("authorization", &*header(SCOPE, "host"))];
        assert_eq!(code("/b/k", &twice).as_deref(), Some("InvalidRequest"));
        assert_eq!(code("/b/k", &[("authorization", "AWS AK:c2ln")]).as_deref(), Some("InvalidRequest"));
        assert_eq!(code("/b/k?AWSAccessKeyId=AK&Signature=x&Expires=9", &[]).as_deref(), Some("InvalidRequest"));
    }

    #[test]
    fn expiry_region_and_service_have_bounds() {
        for expires in ["0", "604801", "-1", "x"] {
            assert_eq!(
                code(&presigned(expires), &[]).as_deref(),
                Some("AuthorizationQueryParametersError"),
                "{expires}"
            );
        }
        for wrong in ["AK/20260101/us-east-1/s3/aws4_request", "AK/20260101/eu-west-1/sts/aws4_request", "AK/x"] {
            let refused = code("/b/k", &[("authorization", &header(wrong, "host"))]);
            assert_eq!(refused.as_deref(), Some("AuthorizationHeaderMalformed"), "{wrong}");
        }
    }

    #[test]
    fn what_is_sent_is_signed_and_what_is_signed_is_sent() {
        let unsigned = [("authorization", &*header(SCOPE, "host")), ("x-amz-tagging", "a=b")];
        assert_eq!(code("/b/k", &unsigned).as_deref(), Some("AccessDenied"));
        let absent = [("authorization", &*header(SCOPE, "host;x-amz-tagging"))];
        assert_eq!(code("/b/k", &absent).as_deref(), Some("AccessDenied"));
        assert_eq!(
            code("/b/k", &[("authorization", &header(SCOPE, "x-amz-date")), ("x-amz-date", "d")]).as_deref(),
            Some("AccessDenied")
        );
    }

    #[test]
    fn words_between_stores_are_not_for_clients() {
        for name in [
            "x-minio-source-mtime",
            "x-minio-replication-ssec",
            "x-rustfs-a",
            "x-isthmus-origin",
            "x-amz-replication-status",
        ] {
            let signed = format!("host;{name}");
            let refused = code("/b/k", &[("authorization", &header(SCOPE, &signed)), (name, "v")]);
            assert_eq!(refused.as_deref(), Some("InvalidRequest"), "{name}");
        }
    }
}
