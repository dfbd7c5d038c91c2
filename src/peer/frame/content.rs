//! Contents: what bytes does the other side read of these versions? And its answer <-> fields. Pure.
//!
//! Large versions are asked for in spans, so that one answer reads [`SPAN_BYTES_MAX`] of one and
//! [`ASKED_BYTES_MAX`] in all. What a peer may be told is decided in `replicator/content.rs`.
use super::{AtMost, Error};
use minicbor::bytes::ByteVec;
use storage_engine::version::VersionId;
use storage_engine::wire::Fields;

/// Bytes of one span at most.
pub const SPAN_BYTES_MAX: u64 = 16 << 20;
/// Bytes of all spans of one question at most: some seconds of a slow drive.
pub const ASKED_BYTES_MAX: u64 = 32 << 20;
/// Spans of one question at most.
pub const SPANS_MAX: usize = 256;

/// Asks for hashes of what is read of versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentAsk {
    /// Bucket at the side that answers.
    pub bucket: String,
    pub spans: Vec<Span>,
    /// Fields of a later version.
    pub unknown: Fields,
}

/// Some bytes of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub key: String,
    pub version_id: VersionId,
    pub offset: u64,
    pub bytes: u64,
}

/// What was read of a [`Span`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// SHA-256 of the bytes.
    Hash([u8; 32]),
    /// No such version is there, or the peer may not know of it.
    Absent,
    /// It is there and its bytes are not: what the store said.
    Unreadable(String),
}

/// Kinds of contents; never reused for another meaning.
mod outcome {
    pub const HASH: u8 = 1;
    pub const ABSENT: u8 = 2;
    pub const UNREADABLE: u8 = 3;
}

impl ContentAsk {
    pub(super) fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        f.put(1, &self.bucket);
        let span = |s: &Span| (s.key.clone(), ByteVec::from(s.version_id.as_bytes().to_vec()), s.offset, s.bytes);
        f.put(2, &self.spans.iter().map(span).collect::<Vec<_>>());
        f
    }

    pub(super) fn from_fields(mut f: Fields) -> Result<Self, Error> {
        let AtMost(spans) = f.need::<AtMost<SPANS_MAX, (String, ByteVec, u64, u64)>>(2)?;
        let span = |(key, id, offset, bytes): (String, ByteVec, u64, u64)| {
            Ok::<_, Error>(Span { key, version_id: super::reconcile::version_id(&id)?, offset, bytes })
        };
        let spans = spans.into_iter().map(span).collect::<Result<Vec<_>, _>>()?;
        let sum = spans.iter().try_fold(0u64, |sum, s| sum.checked_add(s.bytes));
        let is_too_much = |s: &Span| s.bytes > SPAN_BYTES_MAX || s.offset.checked_add(s.bytes).is_none();
        if sum.is_none_or(|sum| sum > ASKED_BYTES_MAX) || spans.iter().any(is_too_much) {
            return Err(Error::Malformed("more bytes than are read at once".into()));
        }
        Ok(ContentAsk { bucket: f.need(1)?, spans, unknown: f })
    }
}

/// How the contents of an answer stand in it.
pub(super) type Told = (u8, ByteVec, String);

impl Content {
    pub(super) fn to_told(&self) -> Told {
        match self {
            Content::Hash(hash) => (outcome::HASH, hash.to_vec().into(), String::new()),
            Content::Absent => (outcome::ABSENT, Vec::new().into(), String::new()),
            Content::Unreadable(why) => (outcome::UNREADABLE, Vec::new().into(), why.clone()),
        }
    }

    pub(super) fn from_told((kind, hash, why): Told) -> Result<Self, Error> {
        Ok(match kind {
            outcome::HASH => {
                let hash = <[u8; 32]>::try_from(&hash[..]);
                Content::Hash(hash.map_err(|_| Error::Malformed("a content hash has 32 bytes".into()))?)
            }
            outcome::ABSENT => Content::Absent,
            outcome::UNREADABLE => Content::Unreadable(why),
            other => return Err(Error::Malformed(format!("content {other} is unknown"))),
        })
    }
}
