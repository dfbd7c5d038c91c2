//! Additional checksums and Content-MD5: from a request's headers to what the object layer must verify, and
//! from a version to what a response shows. Pure.
use crate::object::Expect;
use crate::s3::body::Announced;
use crate::version::Birth;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::HeaderMap;
use s3s::dto::{ChecksumAlgorithm, ChecksumType};
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Algorithms by their name in lower case, with the length of their value in bytes.
const ALGORITHMS: [(&str, usize); 5] = [("crc32", 4), ("crc32c", 4), ("crc64nvme", 8), ("sha1", 20), ("sha256", 32)];

/// Largest single upload, as S3 has it.
pub const UPLOAD_BYTES_MAX: u64 = 5 << 30;

/// Fills the five checksum fields of a response from a map of lower-case algorithm to base64.
macro_rules! show_checksums {
    ($out:expr, $sums:expr) => {{
        let sums = &$sums;
        $out.checksum_crc32 = sums.get("crc32").cloned();
        $out.checksum_crc32c = sums.get("crc32c").cloned();
        $out.checksum_crc64nvme = sums.get("crc64nvme").cloned();
        $out.checksum_sha1 = sums.get("sha1").cloned();
        $out.checksum_sha256 = sums.get("sha256").cloned();
    }};
}
pub(crate) use show_checksums;

/// The five checksum fields of a part a client names, as a map.
macro_rules! named_checksums {
    ($part:expr) => {{
        let fields = [
            ("crc32", &$part.checksum_crc32),
            ("crc32c", &$part.checksum_crc32c),
            ("crc64nvme", &$part.checksum_crc64nvme),
            ("sha1", &$part.checksum_sha1),
            ("sha256", &$part.checksum_sha256),
        ];
        fields.into_iter().filter_map(|(name, v)| Some((name.to_owned(), v.clone()?))).collect()
    }};
}
pub(crate) use named_checksums;

/// Lower-case name of an algorithm this store computes.
pub fn algorithm(asked: &ChecksumAlgorithm) -> S3Result<String> {
    let name = asked.as_str().to_ascii_lowercase();
    if ALGORITHMS.iter().any(|(known, _)| *known == name) {
        Ok(name)
    } else {
        Err(s3_error!(InvalidRequest, "The checksum algorithm {} is not supported.", asked.as_str()))
    }
}

/// Whether the checksums of a version are of the whole object or of its parts' checksums.
pub fn kind(sums: &BTreeMap<String, String>) -> Option<ChecksumType> {
    let composite = sums.values().next().is_some_and(|sum| sum.contains('-'));
    Some(ChecksumType::from_static(if composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT }))
}

/// What a body must be, and the trailers that must come with it.
///
/// # Errors
/// `InvalidDigest`, `InvalidRequest`: a value that cannot be one, more than one algorithm, or a trailer that
/// cannot come. `MissingContentLength`, `EntityTooLarge`.
pub fn expect(headers: &HeaderMap, trailing: Option<TrailingHeaders>) -> S3Result<(Expect, Option<Announced>)> {
    let size_bytes = body_length(headers)?;
    let mut expect = Expect { md5: content_md5(headers)?, size_bytes: Some(size_bytes), ..Expect::default() };
    for (name, value) in stated(headers)? {
        expect.checksums.insert(name.into(), Some(value));
    }
    let announced = announced(headers, trailing)?;
    if let Some(announced) = &announced {
        for name in &announced.names {
            expect.checksums.insert(name["x-amz-checksum-".len()..].to_owned(), None);
        }
        let handle = announced.handle.clone();
        expect.trailer = Some(Box::new(move || trailer_values(&handle)));
    }
    if expect.checksums.len() > 1 {
        return Err(s3_error!(InvalidRequest, "Expecting a single x-amz-checksum- header."));
    }
    if expect.checksums.is_empty()
        && let Some(asked) = text(headers, "x-amz-sdk-checksum-algorithm")?
    {
        expect.checksums.insert(algorithm(&ChecksumAlgorithm::from(asked.to_owned()))?, None);
    }
    Ok((expect, announced))
}

/// What a client says of the whole object when it completes an upload: algorithm to base64. A composite
/// checksum may have the number of parts behind it.
pub fn of_whole(headers: &HeaderMap) -> S3Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (name, length) in ALGORITHMS {
        let Some(value) = text(headers, &format!("x-amz-checksum-{name}"))? else { continue };
        let sum = value.split_once('-').map_or(value, |(sum, _)| sum);
        if BASE64_STANDARD.decode(sum).is_ok_and(|b| b.len() == length) {
            all.insert(name.to_owned(), value.to_owned());
        } else {
            return Err(s3_error!(InvalidRequest, "Value for x-amz-checksum-{name} header is invalid."));
        }
    }
    Ok(all)
}

/// What S3 shows of a version's checksums: those that were asked for, else the CRC-64/NVME every version has.
pub fn shown(birth: &Birth) -> Cow<'_, BTreeMap<String, String>> {
    if birth.checksums.is_empty() {
        let sum = BASE64_STANDARD.encode(birth.crc64nvme.to_be_bytes());
        Cow::Owned(BTreeMap::from([("crc64nvme".to_owned(), sum)]))
    } else {
        Cow::Borrowed(&birth.checksums)
    }
}

/// Length of a body once aws-chunked coding is off, and the trailers that must come with it.
pub fn announced_length(headers: &HeaderMap, trailing: Option<TrailingHeaders>) -> S3Result<(u64, Option<Announced>)> {
    Ok((body_length(headers)?, announced(headers, trailing)?))
}

/// Verifies a document that was read whole against what its headers state; `BadDigest` when it differs.
pub fn verify(headers: &HeaderMap, document: &[u8]) -> S3Result<()> {
    use s3s::crypto::Checksum as _;
    if let Some(md5) = content_md5(headers)?
        && s3s::crypto::Md5::checksum(document).as_ref() != md5
    {
        return Err(s3_error!(BadDigest, "Content-MD5 does not match what was received."));
    }
    for (name, value) in stated(headers)? {
        let sum: Vec<u8> = match name {
            "crc32" => s3s::crypto::Crc32::checksum(document).as_ref().to_vec(),
            "crc32c" => s3s::crypto::Crc32c::checksum(document).as_ref().to_vec(),
            "crc64nvme" => s3s::crypto::Crc64Nvme::checksum(document).as_ref().to_vec(),
            "sha1" => s3s::crypto::Sha1::checksum(document).as_ref().to_vec(),
            _ => s3s::crypto::Sha256::checksum(document).as_ref().to_vec(),
        };
        if BASE64_STANDARD.encode(sum) != value {
            return Err(s3_error!(BadDigest, "x-amz-checksum-{name} does not match what was received."));
        }
    }
    Ok(())
}

/// Length of the body once aws-chunked coding is off.
fn body_length(headers: &HeaderMap) -> S3Result<u64> {
    let stated = match text(headers, "x-amz-decoded-content-length")? {
        Some(decoded) => Some(decoded),
        None => text(headers, "content-length")?,
    };
    let stated = stated.ok_or_else(|| s3_error!(MissingContentLength, "Content-Length is missing."))?;
    let length: u64 = stated.parse().map_err(|_| s3_error!(InvalidArgument, "Content-Length is no number."))?;
    if length > UPLOAD_BYTES_MAX {
        return Err(s3_error!(EntityTooLarge, "A single upload holds at most 5 GiB."));
    }
    Ok(length)
}

fn content_md5(headers: &HeaderMap) -> S3Result<Option<[u8; 16]>> {
    let Some(value) = text(headers, "content-md5")? else { return Ok(None) };
    let bytes = BASE64_STANDARD.decode(value).ok().and_then(|b| b.try_into().ok());
    bytes.map(Some).ok_or_else(|| s3_error!(InvalidDigest, "Content-MD5 is not valid."))
}

/// The checksums whose value stands in a header.
fn stated(headers: &HeaderMap) -> S3Result<Vec<(&'static str, String)>> {
    let mut all = Vec::new();
    for (name, length) in ALGORITHMS {
        let Some(value) = text(headers, &format!("x-amz-checksum-{name}"))? else { continue };
        if BASE64_STANDARD.decode(value).is_ok_and(|b| b.len() == length) {
            all.push((name, value.to_owned()));
        } else {
            return Err(s3_error!(InvalidRequest, "Value for x-amz-checksum-{name} header is invalid."));
        }
    }
    Ok(all)
}

fn announced(headers: &HeaderMap, trailing: Option<TrailingHeaders>) -> S3Result<Option<Announced>> {
    let Some(list) = text(headers, "x-amz-trailer")? else { return Ok(None) };
    let known = |name: &str| ALGORITHMS.iter().any(|(a, _)| name.strip_prefix("x-amz-checksum-") == Some(a));
    let names: Vec<String> = list.split(',').map(|n| n.trim().to_ascii_lowercase()).collect();
    if let Some(other) = names.iter().find(|name| !known(name)) {
        return Err(s3_error!(InvalidRequest, "The trailer {other} is not supported."));
    }
    let handle = trailing.ok_or_else(no_trailer)?;
    Ok(Some(Announced { handle, names }))
}

fn no_trailer() -> S3Error {
    s3_error!(InvalidRequest, "x-amz-trailer needs a streaming body.")
}

fn trailer_values(handle: &TrailingHeaders) -> BTreeMap<String, String> {
    let value =
        |h: &HeaderMap, name: &str| Some(h.get(format!("x-amz-checksum-{name}"))?.to_str().ok()?.trim().to_owned());
    let all = handle
        .read(|h| ALGORITHMS.iter().filter_map(|(name, _)| Some(((*name).to_owned(), value(h, name)?))).collect());
    all.unwrap_or_default()
}

/// A header as text; it may stand once.
pub fn text<'h>(headers: &'h HeaderMap, name: &str) -> S3Result<Option<&'h str>> {
    let mut all = headers.get_all(name).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(s3_error!(InvalidArgument, "The header {name} stands twice."));
    }
    value.to_str().map(Some).map_err(|_| s3_error!(InvalidArgument, "The header {name} is not ASCII text."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderName;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn values_that_cannot_be_checksums_are_refused() {
        let code = |all: &[_]| expect(&headers(all), None).err().map(|e| e.code().as_str().to_owned());
        let length = ("content-length", "1");
        assert_eq!(code(&[length]), None);
        assert_eq!(code(&[length, ("content-md5", "bm90IGFuIG1kNQ==")]).as_deref(), Some("InvalidDigest"));
        assert_eq!(code(&[length, ("x-amz-checksum-crc32", "AAAA")]).as_deref(), Some("InvalidRequest"));
        assert_eq!(code(&[length, ("x-amz-trailer", "x-amz-checksum-crc32")]).as_deref(), Some("InvalidRequest"));
        assert_eq!(code(&[]).as_deref(), Some("MissingContentLength"));
        assert_eq!(code(&[("content-length", "5368709121")]).as_deref(), Some("EntityTooLarge"));
    }

    #[test]
    fn a_document_is_held_to_its_digest() {
        let md5 = ("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="); // of "hello"
        assert!(verify(&headers(&[md5]), b"hello").is_ok());
        assert!(verify(&headers(&[md5]), b"hellO").is_err());
        let crc = ("x-amz-checksum-crc32", "NhCmhg=="); // of "hello"
        assert!(verify(&headers(&[crc]), b"hello").is_ok());
        assert!(verify(&headers(&[crc]), b"hellp").is_err());
    }
}
