//! Parts into one object: what Complete checks and computes. Pure.
//!
//! Source: Amazon S3 API Reference, CompleteMultipartUpload; User Guide, "Checking object integrity"
//! (a composite checksum is the checksum of the parts' checksums, with `-N`; the CRC of the whole follows from
//! the CRCs and lengths of the parts, so that no byte is read again).
use crate::object::document::{Content, Document};
use crate::object::{Conditions, Error, PartRef, UploadChecksum};
use crate::version::{Guards, Order, Part};
use crate::wire::Fields;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use md5::{Digest, Md5};
use std::collections::BTreeMap;

/// Least size of a part that is not the last: 5 MiB.
pub(super) const PART_BYTES_MIN: u64 = 5 << 20;

/// Greatest size of an object: 5 TiB.
const OBJECT_BYTES_MAX: u64 = 5 << 40;

/// What a Complete decided: everything of the object that the upload did not know before.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Whole {
    /// Id and place of the version, pinned so that making it twice makes it once.
    pub(super) order: Order,
    pub(super) base: Option<Order>,
    pub(super) conditions: Conditions,
    /// Retention and legal hold it is born with.
    pub(super) guards: Guards,
    /// Size, ETag, checksums, parts and blobs; no fields.
    pub(super) content: Content,
}

/// Puts the parts a client names together, out of those that were uploaded, and holds them against the
/// checksums of the whole it states.
///
/// # Errors
/// [`Error::InvalidPart`], [`Error::InvalidPartOrder`], [`Error::EntityTooSmall`], [`Error::BadDigest`],
/// [`Error::Invalid`].
pub(super) fn assemble(
    named: &[PartRef],
    stored: &BTreeMap<u16, Document>,
    checksum: Option<&UploadChecksum>,
    stated: &BTreeMap<String, String>,
) -> Result<Content, Error> {
    if named.is_empty() {
        return Err(Error::Invalid("an upload needs at least one part".into()));
    }
    if named.windows(2).any(|pair| pair[0].number >= pair[1].number) {
        return Err(Error::InvalidPartOrder);
    }
    let mut whole = Content::default();
    let mut md5s = Md5::new();
    for (at, part) in named.iter().enumerate() {
        let content = stored.get(&part.number).map(|d| &d.content).filter(|c| is_named(part, c));
        let content = content.ok_or(Error::InvalidPart(part.number))?;
        if content.size_bytes < PART_BYTES_MIN && at + 1 < named.len() {
            return Err(Error::EntityTooSmall(part.number));
        }
        md5s.update(unhex(&content.etag).ok_or_else(|| Error::Corrupt(format!("the ETag of part {}", part.number)))?);
        whole.crc64nvme = match at {
            0 => content.crc64nvme,
            _ => crc_fast::checksum_combine(
                CrcAlgorithm::Crc64Nvme,
                whole.crc64nvme,
                content.crc64nvme,
                content.size_bytes,
            ),
        };
        whole.size_bytes += content.size_bytes;
        whole.data.append(&content.data);
        whole.parts.push(Part {
            number: part.number,
            size_bytes: content.size_bytes,
            etag: content.etag.clone(),
            checksums: content.checksums.clone(),
            unknown: Fields::default(),
        });
    }
    if whole.size_bytes > OBJECT_BYTES_MAX {
        return Err(Error::Invalid("an object has at most 5 TiB".into()));
    }
    whole.etag = format!("{}-{}", super::hex(&md5s.finalize()), named.len());
    if let Some(UploadChecksum { algorithm, is_of_whole }) = checksum {
        let sum = if *is_of_whole { of_whole(algorithm, &whole)? } else { of_parts(algorithm, &whole)? };
        whole.checksums.insert(algorithm.clone(), sum);
    }
    for (algorithm, said) in stated {
        verify(algorithm, said, &whole)?;
        if checksum.is_none() {
            whole.checksums.insert(algorithm.clone(), said.clone());
        }
    }
    Ok(whole)
}

/// Holds what the client says of the whole against what its parts make.
fn verify(algorithm: &str, said: &str, whole: &Content) -> Result<(), Error> {
    let found = match whole.checksums.get(algorithm) {
        Some(found) => found.clone(),
        None => of_whole(algorithm, whole)?,
    };
    // Clients write a composite checksum with or without the number of parts behind it.
    if *said == found || format!("{said}-{}", whole.parts.len()) == found {
        Ok(())
    } else {
        Err(Error::BadDigest(format!("x-amz-checksum-{algorithm} of the whole object")))
    }
}

/// Whether a stored part is the one the client means: its ETag, and what checksums it gives.
fn is_named(part: &PartRef, stored: &Content) -> bool {
    part.etag == stored.etag
        && part.checksums.iter().all(|(algorithm, sum)| stored.checksums.get(algorithm) == Some(sum))
}

/// The checksum of all bytes, out of those of the parts.
fn of_whole(algorithm: &str, whole: &Content) -> Result<String, Error> {
    let kind = match algorithm {
        "crc64nvme" => return Ok(BASE64.encode(whole.crc64nvme.to_be_bytes())),
        "crc32" => CrcAlgorithm::Crc32IsoHdlc,
        "crc32c" => CrcAlgorithm::Crc32Iscsi,
        _ => return Err(no_whole(algorithm)),
    };
    let crc = whole.parts.iter().try_fold(0, |crc, part| {
        let sum = part.checksums.get(algorithm).and_then(|sum| BASE64.decode(sum).ok()?.try_into().ok());
        let unknown = || Error::Invalid(format!("part {} was uploaded without {algorithm}", part.number));
        let sum = u64::from(u32::from_be_bytes(sum.ok_or_else(unknown)?));
        Ok::<_, Error>(crc_fast::checksum_combine(kind, crc, sum, part.size_bytes))
    })?;
    Ok(BASE64.encode(&crc.to_be_bytes()[4..]))
}

fn no_whole(algorithm: &str) -> Error {
    Error::Invalid(format!("{algorithm} of parts does not make one of the whole object; use a CRC"))
}

/// The checksum of the parts' checksums.
fn of_parts(algorithm: &str, whole: &Content) -> Result<String, Error> {
    let mut sums = Vec::new();
    for part in &whole.parts {
        let sum = part.checksums.get(algorithm).and_then(|sum| BASE64.decode(sum).ok());
        sums.extend(sum.ok_or_else(|| Error::Corrupt(format!("the {algorithm} of part {}", part.number)))?);
    }
    Ok(format!("{}-{}", BASE64.encode(digest(algorithm, &sums)?), whole.parts.len()))
}

fn digest(algorithm: &str, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let crc32 = |kind| crc_fast::checksum(kind, bytes).to_be_bytes()[4..].to_vec();
    Ok(match algorithm {
        "crc32" => crc32(CrcAlgorithm::Crc32IsoHdlc),
        "crc32c" => crc32(CrcAlgorithm::Crc32Iscsi),
        "sha1" => sha1::Sha1::digest(bytes).to_vec(),
        "sha256" => sha2::Sha256::digest(bytes).to_vec(),
        _ => return Err(Error::Invalid(format!("checksum algorithm {algorithm} is not known"))),
    })
}

/// Whether an upload can have this checksum.
///
/// # Errors
/// [`Error::Invalid`] says what cannot be.
pub(super) fn check(checksum: &UploadChecksum) -> Result<(), Error> {
    let UploadChecksum { algorithm, is_of_whole } = checksum;
    match (algorithm.as_str(), *is_of_whole) {
        ("crc32" | "crc32c" | "crc64nvme", true) => Ok(()),
        (algorithm, true) => digest(algorithm, b"").and_then(|_| Err(no_whole(algorithm))),
        ("crc64nvme", false) => Err(Error::Invalid("crc64nvme is kept of the whole object only".into())),
        (algorithm, false) => digest(algorithm, b"").map(|_| ()),
    }
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::{Hlc, Origin, VersionId};

    fn part(body: &[u8]) -> Document {
        let etag = crate::object::multipart::hex(&Md5::digest(body));
        let crc = |kind| BASE64.encode(&crc_fast::checksum(kind, body).to_be_bytes()[4..]);
        let checksums = BTreeMap::from([
            ("crc32".into(), crc(CrcAlgorithm::Crc32IsoHdlc)),
            ("crc32c".into(), crc(CrcAlgorithm::Crc32Iscsi)),
            ("sha256".into(), BASE64.encode(sha2::Sha256::digest(body))),
        ]);
        Document {
            key: String::new(),
            order: Order { hlc: Hlc::ZERO, origin: Origin::new("a"), version_id: VersionId::NULL },
            content: Content {
                size_bytes: body.len() as u64,
                etag,
                crc64nvme: crc_fast::checksum(CrcAlgorithm::Crc64Nvme, body),
                checksums,
                ..Content::default()
            },
        }
    }
    fn named(number: u16, document: &Document) -> PartRef {
        PartRef { number, etag: document.content.etag.clone(), checksums: BTreeMap::new() }
    }
    fn large(byte: u8) -> Vec<u8> {
        vec![byte; PART_BYTES_MIN as usize]
    }

    #[test]
    fn the_whole_has_the_checksum_of_its_bytes_and_the_etag_of_its_parts() {
        let (a, b) = (large(1), b"tail".to_vec());
        let stored = BTreeMap::from([(2, part(&a)), (7, part(&b))]);
        let refs = [named(2, &stored[&2]), named(7, &stored[&7])];
        let with = |algorithm: &str, is_of_whole: bool| {
            let checksum = UploadChecksum { algorithm: algorithm.into(), is_of_whole };
            assemble(&refs, &stored, Some(&checksum), &BTreeMap::new()).unwrap()
        };
        let whole = with("crc64nvme", true);
        let bytes = [a.clone(), b.clone()].concat();
        let crc = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &bytes);
        assert_eq!(whole.crc64nvme, crc);
        assert_eq!(whole.checksums["crc64nvme"], BASE64.encode(crc.to_be_bytes()));
        assert_eq!(with("crc32", true).checksums["crc32"], part(&bytes).content.checksums["crc32"]);
        assert_eq!(with("crc32c", true).checksums["crc32c"], part(&bytes).content.checksums["crc32c"]);
        let md5s = [Md5::digest(&a), Md5::digest(&b)].concat();
        assert_eq!(whole.etag, format!("{}-2", crate::object::multipart::hex(&Md5::digest(&md5s))));
        let composite = with("sha256", false).checksums["sha256"].clone();
        let sums = [sha2::Sha256::digest(&a), sha2::Sha256::digest(&b)].concat();
        assert_eq!(composite, format!("{}-2", BASE64.encode(sha2::Sha256::digest(&sums))));
    }

    #[test]
    fn parts_are_checked_for_order_identity_and_size() {
        let stored = BTreeMap::from([(1, part(&large(1))), (2, part(b"small")), (3, part(b"tail"))]);
        let [one, two, three] = [1, 2, 3].map(|n| named(n, &stored[&n]));
        let with = |refs: &[&PartRef]| {
            assemble(&refs.iter().map(|r| (*r).clone()).collect::<Vec<_>>(), &stored, None, &BTreeMap::new())
        };
        assert!(with(&[&one, &three]).is_ok());
        assert!(matches!(with(&[]), Err(Error::Invalid(_))));
        assert!(matches!(with(&[&two, &one]), Err(Error::InvalidPartOrder)));
        assert!(matches!(with(&[&one, &one]), Err(Error::InvalidPartOrder)));
        assert!(matches!(with(&[&one, &two, &three]), Err(Error::EntityTooSmall(2))));
        assert!(matches!(with(&[&PartRef { number: 9, ..one.clone() }]), Err(Error::InvalidPart(9))));
        assert!(matches!(with(&[&PartRef { etag: two.etag.clone(), ..one.clone() }]), Err(Error::InvalidPart(1))));
        let wrong = BTreeMap::from([("sha256".to_owned(), "x".to_owned())]);
        assert!(matches!(with(&[&PartRef { checksums: wrong, ..one.clone() }]), Err(Error::InvalidPart(1))));
    }

    #[test]
    fn the_whole_is_held_to_what_the_client_states() {
        let stored = BTreeMap::from([(1, part(b"hello"))]);
        let refs = [named(1, &stored[&1])];
        let of_parts = UploadChecksum { algorithm: "sha256".into(), is_of_whole: false };
        let with = |checksum: Option<&UploadChecksum>, algorithm: &str, said: &str| {
            assemble(&refs, &stored, checksum, &BTreeMap::from([(algorithm.into(), said.into())]))
        };
        let crc = stored[&1].content.checksums["crc32"].clone();
        assert_eq!(with(None, "crc32", &crc).unwrap().checksums["crc32"], crc, "what was verified is kept");
        assert!(matches!(with(None, "crc32", "AAAAAA=="), Err(Error::BadDigest(_))));
        let sha256 = BASE64.encode(sha2::Sha256::digest(sha2::Sha256::digest(b"hello")));
        for said in [sha256.clone(), format!("{sha256}-1")] {
            assert!(with(Some(&of_parts), "sha256", &said).is_ok(), "{said}");
        }
        assert!(matches!(with(Some(&of_parts), "sha256", &format!("{sha256}-2")), Err(Error::BadDigest(_))));
        assert!(matches!(with(None, "sha256", &sha256), Err(Error::Invalid(_))), "there is none of the whole");
    }

    #[test]
    fn checksums_that_cannot_be_are_refused_at_the_start() {
        let ok =
            |algorithm: &str, is_of_whole| check(&UploadChecksum { algorithm: algorithm.into(), is_of_whole }).is_ok();
        for crc in ["crc32", "crc32c", "crc64nvme"] {
            assert!(ok(crc, true), "{crc}");
        }
        assert!(ok("crc32", false) && ok("sha1", false) && ok("sha256", false));
        assert!(!ok("crc64nvme", false) && !ok("sha1", true) && !ok("sha256", true) && !ok("md4", false));
    }
}
