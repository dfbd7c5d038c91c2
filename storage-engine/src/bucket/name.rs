//! Which names a bucket may have. Pure.
//!
//! Source: Amazon S3 User Guide, "General purpose bucket naming rules".
use crate::object::Error;

/// Suffixes and prefixes S3 keeps for itself.
const PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
const SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

/// Checks a bucket's name.
///
/// # Errors
/// [`Error::InvalidBucketName`] says which rule it breaks.
pub fn check(name: &str) -> Result<(), Error> {
    let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let broken = if !(3..=63).contains(&name.len()) {
        "has 3 to 63 characters"
    } else if !name.chars().all(|c| is_edge(c) || c == '-' || c == '.') {
        "has only lower-case letters, digits, dots and hyphens"
    } else if !name.starts_with(is_edge) || !name.ends_with(is_edge) {
        "begins and ends with a letter or a digit"
    } else if name.contains("..") {
        "has no two dots in a row"
    } else if name.parse::<std::net::Ipv4Addr>().is_ok() {
        "is no IP address"
    } else if PREFIXES.iter().any(|p| name.starts_with(p)) || SUFFIXES.iter().any(|s| name.ends_with(s)) {
        "has no prefix or suffix that S3 keeps for itself"
    } else {
        return Ok(());
    };
    Err(Error::InvalidBucketName { name: name.to_owned(), rule: broken })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_s3() {
        for good in ["abc", "a.b-c", "0ab", "my-bucket.example.com", &"a".repeat(63), "1.2.3.4.5"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ab",
            &"a".repeat(64),
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            ".ab",
            "ab.",
            "a..b",
            "1.2.3.4",
            "a/b",
            "a\0b",
            "äbc",
            "xn--abc",
            "abc--x-s3",
        ] {
            assert!(matches!(check(bad), Err(Error::InvalidBucketName { .. })), "{bad:?}");
        }
    }
}
