//! Errors <-> bytes, and the status beside them.
use super::tag;
use crate::api::Error;
use crate::wire::Fields;

/// An error as it travels. What only S3 requests are told becomes [`Error::Invalid`] with its text.
pub fn error_to_bytes(error: &Error) -> Vec<u8> {
    let mut f = Fields::default();
    let (kind, text): (u32, String) = match error {
        Error::NoSuchBucket(name) => (1, name.clone()),
        Error::NoSuchKey => (2, String::new()),
        Error::NoSuchVersion => (3, String::new()),
        Error::BadDigest(what) => (4, what.clone()),
        Error::Body(err) => (5, err.to_string()),
        Error::Unavailable(why) => (6, why.clone()),
        Error::Full => (7, String::new()),
        Error::Conflict(why) => (8, why.clone()),
        Error::Corrupt(what) => (9, what.clone()),
        Error::Expired => (10, String::new()),
        Error::Invalid(why) => (11, why.clone()),
        Error::BucketExists => (12, String::new()),
        other => (11, other.to_string()),
    };
    f.put(tag::KIND, &kind);
    f.put(tag::TEXT, &text);
    f.to_bytes()
}

/// An error from its bytes. One that a later store has and this build does not know is
/// [`Error::Unavailable`]: whatever it is, asking again does no harm.
pub fn error_from_bytes(bytes: &[u8]) -> Error {
    let read = Fields::parse(bytes).and_then(|mut f| Ok((f.need::<u32>(tag::KIND)?, f.need::<String>(tag::TEXT)?)));
    let (kind, text) = match read {
        Ok(read) => read,
        Err(err) => return Error::Unavailable(format!("the store's error cannot be read: {err}")),
    };
    match kind {
        1 => Error::NoSuchBucket(text),
        2 => Error::NoSuchKey,
        3 => Error::NoSuchVersion,
        4 => Error::BadDigest(text),
        5 => Error::Body(std::io::Error::other(text)),
        6 => Error::Unavailable(text),
        7 => Error::Full,
        8 => Error::Conflict(text),
        9 => Error::Corrupt(text),
        10 => Error::Expired,
        11 => Error::Invalid(text),
        12 => Error::BucketExists,
        _ => Error::Unavailable(text),
    }
}

/// The HTTP status beside an error: for people and metrics, the fields say more.
pub fn status_of(error: &Error) -> u16 {
    match error {
        Error::NoSuchBucket(_) | Error::NoSuchKey | Error::NoSuchVersion => 404,
        Error::Conflict(_) => 409,
        Error::Expired => 410,
        Error::Unavailable(_) | Error::Corrupt(_) => 503,
        Error::Full => 507,
        _ => 400,
    }
}
