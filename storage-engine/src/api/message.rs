//! Questions and answers of the private API <-> bytes. Pure: no I/O, clock or dice.
//!
//! A question is an operation's name, which stands in the path, and tagged fields ([`Fields`]); an answer
//! is fields alone. A field number has one meaning for good, in every operation; what a reader does not
//! know it carries along ([`Request::unknown`], [`Reply::unknown`]) or, in a version, keeps. What follows
//! an answer in its body is said by the answer.
mod error;
mod question;
mod reply;

use super::{Applied, Backlog, BucketInfo, Cursor, Document, StoreHealth, lend, piece, scratch};
use crate::bucket::document::Kind;
use crate::feed::Interest;
use crate::version::{Hlc, Origin, Stamp, Version, VersionId};
use crate::wire::{self, Fields};
pub use error::{error_from_bytes, error_to_bytes, status_of};
pub use reply::{event_from_bytes, event_to_bytes};
use std::ops::Range;

/// The protocol version this build speaks, both ends.
pub const PROTOCOL_VERSION: u32 = 1;
/// Where the operations are found.
pub const PATH_PREFIX: &str = "/v1/";
/// Trailer of a body that could not be given to its end: an error's fields in base64.
pub const ERROR_TRAILER: &str = "isthmus-error";

/// Field numbers; none is ever used for another meaning.
pub(super) mod tag {
    pub const KIND: u32 = 1;
    pub const BUCKET: u32 = 2;
    pub const KEY: u32 = 3;
    pub const VERSION_ID: u32 = 4;
    pub const CURSOR: u32 = 5;
    pub const FLOOR: u32 = 6;
    pub const CONSUMER: u32 = 7;
    pub const LIMIT: u32 = 8;
    pub const KEEPS_VERSIONING: u32 = 9;
    pub const PREFIX: u32 = 10;
    pub const VERSION: u32 = 11;
    pub const TRACEPARENT: u32 = 12;
    pub const HAS_BODY: u32 = 13;
    pub const PROTOCOL: u32 = 14;
    pub const ORIGIN: u32 = 15;
    pub const BUCKET_ID: u32 = 16;
    pub const VERSIONED: u32 = 17;
    pub const SIZE_BYTES: u32 = 18;
    pub const APPLIED: u32 = 19;
    pub const VERSIONS: u32 = 20;
    pub const BYTES: u32 = 21;
    pub const PENDING_SINCE: u32 = 22;
    pub const TEXT: u32 = 23;
    pub const OBJECT_LOCK: u32 = 24;
    pub const DOCUMENTS: u32 = 25;
    pub const MADE_AT: u32 = 26;
    pub const NOT_ONLY_AT: u32 = 27;
    pub const ACT: u32 = 28;
    pub const OBJECT: u32 = 29;
    pub const PIECE_BYTES: u32 = 30;
    pub const PIECE: u32 = 31;
    pub const CRC64NVME: u32 = 32;
    pub const BEFORE: u32 = 33;
    pub const PIECES: u32 = 34;
    pub const START: u32 = 35;
    pub const END: u32 = 36;
    pub const BUCKETS: u32 = 37;
    pub const QUESTION: u32 = 38;
    pub const PLACE: u32 = 39;
    pub const WAIT_MILLIS: u32 = 40;
    pub const DRIVES: u32 = 41;
    pub const BELOW_TARGET: u32 = 42;
    pub const SHUTS_READS: u32 = 43;
    pub const TTL_MILLIS: u32 = 44;
    pub const CERTIFICATES: u32 = 45;
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Who is there, and what does it speak?
    Hello,
    /// How is the store?
    Health,
    Bucket {
        bucket: String,
    },
    /// Waits until there is a change; at most `limit`.
    Changes {
        bucket: String,
        cursor: Option<Cursor>,
        limit: u32,
    },
    Head {
        bucket: String,
    },
    Stat {
        bucket: String,
        key: String,
        id: VersionId,
    },
    ReadVersion {
        bucket: String,
        key: String,
        id: VersionId,
    },
    /// Some of the bytes of a version.
    ReadRange {
        bucket: String,
        key: String,
        id: VersionId,
        range: Range<u64>,
    },
    /// The bytes follow the question where `has_body`.
    Apply {
        bucket: String,
        version: Box<Version>,
        has_body: bool,
        traceparent: Option<String>,
    },
    VersionsOf {
        bucket: String,
        key: String,
    },
    VersionsAfter {
        bucket: String,
        after: Option<(String, VersionId)>,
        limit: u32,
    },
    /// All that is held of about `limit` keys with `prefix` behind `after`.
    Stretch {
        bucket: String,
        prefix: String,
        after: Option<String>,
        limit: u32,
    },
    Register {
        bucket: String,
        consumer: String,
        keeps_versioning: bool,
    },
    Commit {
        bucket: String,
        consumer: String,
        cursor: Cursor,
        floor: Cursor,
    },
    Deregister {
        bucket: String,
        consumer: String,
    },
    Backlog {
        bucket: String,
        cursor: Option<Cursor>,
        interest: Interest,
    },
    /// A document of a bucket that was written elsewhere.
    JoinDocument {
        bucket: String,
        document: Document,
    },
    /// Something is done to a bucket of a trial.
    Scratch {
        bucket: String,
        act: scratch::Act,
    },
    /// Something is done with the pieces of a large version.
    Piece {
        bucket: String,
        act: piece::Act,
    },
    /// Waits for a question that a reader of one of these buckets has, at most so long.
    Wanted {
        buckets: Vec<String>,
        wait_millis: u64,
    },
    /// Answers such a question; the bytes follow where it asks for some and they were found.
    Lend {
        number: u64,
        found: lend::Found,
    },
}

/// A question as it travels.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub call: Call,
    /// Fields of a later version.
    pub unknown: Fields,
}

impl From<Call> for Request {
    fn from(call: Call) -> Self {
        Request { call, unknown: Fields::default() }
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Hello {
        protocol: u32,
        origin: Origin,
    },
    Bucket(BucketInfo),
    /// Events follow, one message each, to the end of the body.
    Changes {
        cursor: Cursor,
        bucket: String,
    },
    Version(Option<Box<Version>>),
    /// So many bytes follow.
    Bytes {
        size_bytes: u64,
    },
    Applied(Applied),
    /// Versions follow, one message each, to the end of the body.
    Versions,
    Cursor(Option<Cursor>),
    Done,
    Backlog(Backlog),
    /// The version that was made.
    Made(VersionId),
    /// Versions follow, one message each, to the end of the body; with them everything is told up to this
    /// key, or to the last one.
    Stretch {
        through: Option<String>,
    },
    /// The pieces that are durable here, by number.
    Held(Vec<u32>),
    /// How many were forgotten.
    Forgotten(u64),
    /// What a reader wants; nothing came in time.
    Wanted(Option<lend::Question>),
    Health(StoreHealth),
}

/// An answer as it travels.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub answer: Answer,
    /// Fields of a later version.
    pub unknown: Fields,
}

impl Call {
    /// The operation's name: last part of the path, and label of what is counted.
    pub fn operation(&self) -> &'static str {
        match self {
            Call::Hello => "Hello",
            Call::Health => "Health",
            Call::Bucket { .. } => "Bucket",
            Call::Changes { .. } => "Changes",
            Call::Head { .. } => "Head",
            Call::Stat { .. } => "Stat",
            Call::ReadVersion { .. } => "ReadVersion",
            Call::ReadRange { .. } => "ReadRange",
            Call::Apply { .. } => "Apply",
            Call::VersionsOf { .. } => "VersionsOf",
            Call::VersionsAfter { .. } => "VersionsAfter",
            Call::Stretch { .. } => "Stretch",
            Call::Register { .. } => "Register",
            Call::Commit { .. } => "Commit",
            Call::Deregister { .. } => "Deregister",
            Call::Backlog { .. } => "Backlog",
            Call::JoinDocument { .. } => "JoinDocument",
            Call::Scratch { .. } => "Scratch",
            Call::Piece { act, .. } => act.operation(),
            Call::Wanted { .. } => "Wanted",
            Call::Lend { .. } => "Lend",
        }
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Reply { answer, unknown: Fields::default() }
    }
}

/// Kind, HLC bits, origin, text.
type DocumentRow = (String, u64, String, Option<String>);

fn row(document: &Document) -> DocumentRow {
    let Document { kind, stamp, text } = document;
    (kind.name().to_owned(), stamp.hlc.bits(), stamp.origin.as_str().to_owned(), text.clone())
}

/// Documents of a kind of a later version are not for this build.
fn documents(rows: Vec<DocumentRow>) -> Vec<Document> {
    let document = |(kind, hlc, origin, text): DocumentRow| {
        let stamp = Stamp::new(Hlc::from_bits(hlc), Origin::new(&origin));
        Some(Document { kind: Kind::named(&kind)?, stamp, text })
    };
    rows.into_iter().filter_map(document).collect()
}

fn put_cursor(f: &mut Fields, tag: u32, cursor: Option<&Cursor>) {
    if let Some(cursor) = cursor {
        f.put_bytes(tag, &cursor.0);
    }
}
fn take_cursor(f: &mut Fields, tag: u32) -> Result<Option<Cursor>, wire::Error> {
    Ok(f.take_bytes(tag)?.map(|bytes| Cursor(bytes.into())))
}
fn need_cursor(f: &mut Fields, tag: u32) -> Result<Cursor, wire::Error> {
    take_cursor(f, tag)?.ok_or(wire::Error::Missing(tag))
}
fn need_id(f: &mut Fields) -> Result<VersionId, wire::Error> {
    crate::version::order::version_id(f, tag::VERSION_ID)
}
fn take_version(f: &mut Fields) -> Result<Option<Version>, wire::Error> {
    f.take_bytes(tag::VERSION)?.map(|bytes| Version::from_bytes(&bytes)).transpose()
}
pub(super) fn put_range(f: &mut Fields, range: &Range<u64>) {
    f.put(tag::START, &range.start);
    f.put(tag::END, &range.end);
}
pub(super) fn take_range(f: &mut Fields) -> Result<Option<Range<u64>>, wire::Error> {
    match f.take(tag::START)? {
        Some(start) => {
            let range = start..f.need(tag::END)?;
            let is_backwards = range.start > range.end;
            if is_backwards {
                Err(wire::Error::Malformed("a range that ends before it starts".into()))
            } else {
                Ok(Some(range))
            }
        }
        None => Ok(None),
    }
}
