//! The checksums of a body: the MD5 that S3 makes ETags of, the CRC-64/NVME that every reader of the
//! body proves it with, and those the client asked for. Pure.
use crate::object::{Error, Expect};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A checksum in the making. Source of names and encodings: Amazon S3 User Guide, "Checking object integrity".
enum Running {
    Crc(Crc, usize),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Running {
    fn new(algorithm: &str) -> Option<Running> {
        Some(match algorithm {
            "crc32" => Running::Crc(Crc::new(CrcAlgorithm::Crc32IsoHdlc), 4),
            "crc32c" => Running::Crc(Crc::new(CrcAlgorithm::Crc32Iscsi), 4),
            "crc64nvme" => Running::Crc(Crc::new(CrcAlgorithm::Crc64Nvme), 8),
            "sha1" => Running::Sha1(Sha1::new()),
            "sha256" => Running::Sha256(Sha256::new()),
            _ => return None,
        })
    }
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Running::Crc(crc, _) => crc.update(bytes),
            Running::Sha1(sha) => sha.update(bytes),
            Running::Sha256(sha) => sha.update(bytes),
        }
    }
    /// The checksum as S3 writes it: base64 of its bytes, big endian.
    fn finish(self) -> String {
        match self {
            Running::Crc(crc, width) => STANDARD.encode(&crc.finalize().to_be_bytes()[8 - width..]),
            Running::Sha1(sha) => STANDARD.encode(sha.finalize()),
            Running::Sha256(sha) => STANDARD.encode(sha.finalize()),
        }
    }
}

/// Every checksum of a body but its MD5, which is slow and runs beside them.
pub(super) struct Sums {
    crc64nvme: Crc,
    asked: BTreeMap<String, Running>,
}

impl Sums {
    /// The checksums `expect` asks for.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an algorithm that S3 does not have.
    pub(super) fn new(expect: &Expect) -> Result<Self, Error> {
        let running = |name: &String| match Running::new(name) {
            Some(running) => Ok((name.clone(), running)),
            None => Err(Error::Invalid(format!("checksum algorithm {name}"))),
        };
        let asked = expect.checksums.keys().map(running).collect::<Result<_, _>>()?;
        Ok(Sums { crc64nvme: Crc::new(CrcAlgorithm::Crc64Nvme), asked })
    }
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.crc64nvme.update(bytes);
        for running in self.asked.values_mut() {
            running.update(bytes);
        }
    }
    /// CRC-64/NVME of the body, and each asked checksum in base64.
    pub(super) fn finish(self) -> (u64, BTreeMap<String, String>) {
        let asked = self.asked.into_iter().map(|(name, running)| (name, running.finish())).collect();
        (self.crc64nvme.finalize(), asked)
    }
}

/// Holds what the body turned out to be against what the client said, before it ended and in its trailer.
///
/// # Errors
/// [`Error::BadDigest`] names what differs.
pub(super) fn verify(expect: Expect, md5: &[u8; 16], found: &BTreeMap<String, String>) -> Result<(), Error> {
    if expect.md5.is_some_and(|said| said != *md5) {
        return Err(Error::BadDigest("Content-MD5".into()));
    }
    let trailing = expect.trailer.map(|ask| ask()).unwrap_or_default();
    let said = expect.checksums.into_iter().filter_map(|(name, value)| Some((name, value?)));
    for (name, value) in said.chain(trailing) {
        match found.get(&name) {
            Some(found) if *found == value => {}
            Some(_) => return Err(Error::BadDigest(format!("x-amz-checksum-{name}"))),
            // A trailer nobody announced cannot be checked any more: the body is gone by.
            None => return Err(Error::BadDigest(format!("x-amz-checksum-{name}, which was not announced,"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(name: &str, value: Option<&str>) -> Expect {
        Expect { checksums: [(name.into(), value.map(Into::into))].into(), ..Expect::default() }
    }

    #[test]
    fn checksums_are_those_of_the_published_check_values() {
        // The check value of each algorithm over "123456789" (RFC 3174 and FIPS 180-4 for the hashes).
        for (name, value) in [
            ("crc32", "y/Q5Jg=="),
            ("crc32c", "4waSgw=="),
            ("crc64nvme", "rosUhgp5mIg="),
            ("sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="),
            ("sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
        ] {
            let mut sums = Sums::new(&asking(name, None)).unwrap();
            sums.update(b"1234");
            sums.update(b"56789");
            assert_eq!(sums.finish().1[name], value, "{name}");
        }
    }

    #[test]
    fn a_checksum_in_head_or_trailer_must_match() {
        let found = BTreeMap::from([("crc32".to_string(), "AAAAAA==".to_string())]);
        assert!(verify(asking("crc32", Some("AAAAAA==")), &[0; 16], &found).is_ok());
        assert!(verify(asking("crc32", Some("AAAAAQ==")), &[0; 16], &found).is_err());
        assert!(verify(Expect { md5: Some([1; 16]), ..Expect::default() }, &[0; 16], &found).is_err());
        let trailer = |value: &'static str| Expect {
            trailer: Some(Box::new(move || BTreeMap::from([("crc32".into(), value.into())]))),
            ..asking("crc32", None)
        };
        assert!(verify(trailer("AAAAAA=="), &[0; 16], &found).is_ok());
        assert!(verify(trailer("AAAAAQ=="), &[0; 16], &found).is_err());
        assert!(matches!(Sums::new(&asking("md4", None)), Err(Error::Invalid(_))));
    }
}
