//! Percent coding, query strings and kept XML, as S3 writes them. Pure; called by the whole front door.
use s3s::xml::{Deserialize, Deserializer, Serialize, Serializer};
use s3s::{S3Error, S3Result};
use std::collections::BTreeMap;

/// Encodes everything but unreserved characters and `/`; a space becomes `%20`, which every decoder reads alike.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Decodes a component of a query string, where `+` is a space; `None` when it is no UTF-8 or a `%` is cut.
pub fn query_decode(text: &str) -> Option<String> {
    percent_decode(&text.replace('+', " "))
}

/// Decodes a path, where `+` is itself; `None` when it is no UTF-8 or a `%` is cut.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// The pairs of a query string in order; a name without `=` has an empty value.
pub fn query_pairs(query: &str) -> Option<Vec<(String, String)>> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        Some((query_decode(name)?, query_decode(value)?))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

/// A tag set out of `x-amz-tagging`; `None` when it does not decode or a key stands twice.
pub fn tags(header: &str) -> Option<BTreeMap<String, String>> {
    let mut set = BTreeMap::new();
    for (key, value) in query_pairs(header)? {
        if set.insert(key, value).is_some() {
            return None;
        }
    }
    Some(set)
}

/// An XML document as it is kept.
pub fn to_xml<T: Serialize>(value: &T) -> S3Result<String> {
    let mut out = Vec::new();
    let mut serializer = Serializer::new(&mut out);
    serializer.decl().and_then(|()| value.serialize(&mut serializer)).map_err(S3Error::internal_error)?;
    String::from_utf8(out).map_err(S3Error::internal_error)
}

/// A kept XML document. One that does not read is not this client's fault.
pub fn from_xml<T: for<'xml> Deserialize<'xml>>(text: &str) -> S3Result<T> {
    let mut deserializer = Deserializer::new(text.as_bytes());
    let value = T::deserialize(&mut deserializer).map_err(S3Error::internal_error)?;
    deserializer.expect_eof().map_err(S3Error::internal_error)?;
    Ok(value)
}

/// A tag set as a query string, which [`tags`] reads.
pub fn query(tags: &BTreeMap<String, String>) -> String {
    // Between a name and its value stands one `=`; those within are encoded.
    tags.iter().map(|(k, v)| format!("{}={}", percent_encode(k), percent_encode(v))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for key in ["a b+c", "../x", "\u{1}\u{7f}", "näé/€", "%41", ""] {
            assert_eq!(query_decode(&percent_encode(key)).as_deref(), Some(key));
        }
        assert_eq!(percent_encode("a b+c/ü"), "a%20b%2Bc/%C3%BC");
    }

    #[test]
    fn cut_escapes_and_other_encodings_are_refused() {
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(query_decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tag_twice_is_no_tag_set() {
        assert_eq!(tags("a=1&b=x%20y").unwrap()["b"], "x y");
        assert_eq!(tags("a=1&a=2"), None);
    }
}
