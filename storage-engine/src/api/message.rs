//! Questions and answers of the private API <-> bytes. Pure: no I/O, clock or dice.
//!
//! A question is an operation's name, which stands in the path, and tagged fields ([`Fields`]); an answer
//! is fields alone. A field number has one meaning for good, in every operation; what a reader does not
//! know it carries along ([`Request::unknown`], [`Reply::unknown`]) or, in a version, keeps. What follows
//! an answer in its body is said by the answer.
use super::scratch::Act;
use super::{Applied, Backlog, BucketInfo, Cursor, Document, Error, Event};
use crate::bucket::document::Kind;
use crate::feed::Interest;
use crate::version::{Hlc, Origin, Stamp, Version, VersionId};
use crate::wire::{self, Fields};

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
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Who is there, and what does it speak?
    Hello,
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
        act: Act,
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
            Call::Bucket { .. } => "Bucket",
            Call::Changes { .. } => "Changes",
            Call::Head { .. } => "Head",
            Call::Stat { .. } => "Stat",
            Call::ReadVersion { .. } => "ReadVersion",
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
        }
    }
}

impl Request {
    /// The question's fields; the operation's name is said elsewhere.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut f = self.unknown.clone();
        match &self.call {
            Call::Hello => f.put(tag::PROTOCOL, &PROTOCOL_VERSION),
            Call::Bucket { bucket } | Call::Head { bucket } => f.put(tag::BUCKET, bucket),
            Call::Changes { bucket, cursor, limit } => {
                f.put(tag::BUCKET, bucket);
                put_cursor(&mut f, tag::CURSOR, cursor.as_ref());
                f.put(tag::LIMIT, limit);
            }
            Call::Stat { bucket, key, id } | Call::ReadVersion { bucket, key, id } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::KEY, key);
                f.put_bytes(tag::VERSION_ID, id.as_bytes());
            }
            Call::Apply { bucket, version, has_body, traceparent } => {
                f.put(tag::BUCKET, bucket);
                f.put_bytes(tag::VERSION, &version.to_bytes());
                f.put(tag::HAS_BODY, has_body);
                f.put_some(tag::TRACEPARENT, traceparent);
            }
            Call::VersionsOf { bucket, key } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::KEY, key);
            }
            Call::VersionsAfter { bucket, after, limit } => {
                f.put(tag::BUCKET, bucket);
                if let Some((key, id)) = after {
                    f.put(tag::KEY, key);
                    f.put_bytes(tag::VERSION_ID, id.as_bytes());
                }
                f.put(tag::LIMIT, limit);
            }
            Call::Stretch { bucket, prefix, after, limit } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::PREFIX, prefix);
                f.put_some(tag::KEY, after);
                f.put(tag::LIMIT, limit);
            }
            Call::Register { bucket, consumer, keeps_versioning } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::CONSUMER, consumer);
                f.put(tag::KEEPS_VERSIONING, keeps_versioning);
            }
            Call::Commit { bucket, consumer, cursor, floor } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::CONSUMER, consumer);
                put_cursor(&mut f, tag::CURSOR, Some(cursor));
                put_cursor(&mut f, tag::FLOOR, Some(floor));
            }
            Call::Deregister { bucket, consumer } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::CONSUMER, consumer);
            }
            Call::Backlog { bucket, cursor, interest } => {
                f.put(tag::BUCKET, bucket);
                put_cursor(&mut f, tag::CURSOR, cursor.as_ref());
                f.put(tag::PREFIX, &interest.prefix);
                let name = |site: &Option<Origin>| site.as_ref().map(|site| site.as_str().to_owned());
                f.put_some(tag::MADE_AT, &name(&interest.made_at));
                f.put_some(tag::NOT_ONLY_AT, &name(&interest.not_only_at));
            }
            Call::JoinDocument { bucket, document } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::DOCUMENTS, &vec![row(document)]);
            }
            Call::Scratch { bucket, act } => {
                f.put(tag::BUCKET, bucket);
                act.put(&mut f);
            }
        }
        f.to_bytes()
    }

    /// The question an operation and its fields are; `None`: no such operation here.
    ///
    /// # Errors
    /// [`wire::Error`] when the fields are not those of the operation.
    pub fn from_bytes(operation: &str, bytes: &[u8]) -> Result<Option<Self>, wire::Error> {
        let mut f = Fields::parse(bytes)?;
        let call = match operation {
            "Hello" => {
                let _: Option<u32> = f.take(tag::PROTOCOL)?;
                Call::Hello
            }
            "Bucket" => Call::Bucket { bucket: f.need(tag::BUCKET)? },
            "Changes" => Call::Changes {
                bucket: f.need(tag::BUCKET)?,
                cursor: take_cursor(&mut f, tag::CURSOR)?,
                limit: f.need(tag::LIMIT)?,
            },
            "Head" => Call::Head { bucket: f.need(tag::BUCKET)? },
            "Stat" => Call::Stat { bucket: f.need(tag::BUCKET)?, key: f.need(tag::KEY)?, id: need_id(&mut f)? },
            "ReadVersion" => {
                Call::ReadVersion { bucket: f.need(tag::BUCKET)?, key: f.need(tag::KEY)?, id: need_id(&mut f)? }
            }
            "Apply" => Call::Apply {
                bucket: f.need(tag::BUCKET)?,
                version: Box::new(take_version(&mut f)?.ok_or(wire::Error::Missing(tag::VERSION))?),
                has_body: f.need(tag::HAS_BODY)?,
                traceparent: f.take(tag::TRACEPARENT)?,
            },
            "VersionsOf" => Call::VersionsOf { bucket: f.need(tag::BUCKET)?, key: f.need(tag::KEY)? },
            "VersionsAfter" => Call::VersionsAfter {
                bucket: f.need(tag::BUCKET)?,
                after: match f.take(tag::KEY)? {
                    Some(key) => Some((key, need_id(&mut f)?)),
                    None => None,
                },
                limit: f.need(tag::LIMIT)?,
            },
            "Stretch" => Call::Stretch {
                bucket: f.need(tag::BUCKET)?,
                prefix: f.need(tag::PREFIX)?,
                after: f.take(tag::KEY)?,
                limit: f.need(tag::LIMIT)?,
            },
            "Register" => Call::Register {
                bucket: f.need(tag::BUCKET)?,
                consumer: f.need(tag::CONSUMER)?,
                keeps_versioning: f.need(tag::KEEPS_VERSIONING)?,
            },
            "Commit" => Call::Commit {
                bucket: f.need(tag::BUCKET)?,
                consumer: f.need(tag::CONSUMER)?,
                cursor: need_cursor(&mut f, tag::CURSOR)?,
                floor: need_cursor(&mut f, tag::FLOOR)?,
            },
            "Deregister" => Call::Deregister { bucket: f.need(tag::BUCKET)?, consumer: f.need(tag::CONSUMER)? },
            "Backlog" => Call::Backlog {
                bucket: f.need(tag::BUCKET)?,
                cursor: take_cursor(&mut f, tag::CURSOR)?,
                interest: Interest {
                    prefix: f.need(tag::PREFIX)?,
                    made_at: f.take::<String>(tag::MADE_AT)?.map(|site| Origin::new(&site)),
                    not_only_at: f.take::<String>(tag::NOT_ONLY_AT)?.map(|site| Origin::new(&site)),
                },
            },
            "JoinDocument" => Call::JoinDocument {
                bucket: f.need(tag::BUCKET)?,
                document: documents(f.need(tag::DOCUMENTS)?).pop().ok_or(wire::Error::Missing(tag::DOCUMENTS))?,
            },
            "Scratch" => Call::Scratch { bucket: f.need(tag::BUCKET)?, act: Act::take(&mut f)? },
            _ => return Ok(None),
        };
        Ok(Some(Request { call, unknown: f }))
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Reply { answer, unknown: Fields::default() }
    }
}

impl Reply {
    /// The answer as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut f = self.unknown.clone();
        let kind: u32 = match &self.answer {
            Answer::Hello { protocol, origin } => {
                f.put(tag::PROTOCOL, protocol);
                f.put(tag::ORIGIN, &origin.as_str().to_owned());
                1
            }
            Answer::Bucket(info) => {
                f.put(tag::BUCKET_ID, &info.id);
                f.put(tag::BUCKET, &info.name);
                f.put(tag::VERSIONED, &info.versioned);
                if info.object_lock {
                    f.put(tag::OBJECT_LOCK, &true);
                }
                if !info.documents.is_empty() {
                    f.put(tag::DOCUMENTS, &info.documents.iter().map(row).collect::<Vec<_>>());
                }
                2
            }
            Answer::Changes { cursor } => {
                put_cursor(&mut f, tag::CURSOR, Some(cursor));
                3
            }
            Answer::Version(version) => {
                if let Some(version) = version {
                    f.put_bytes(tag::VERSION, &version.to_bytes());
                }
                4
            }
            Answer::Bytes { size_bytes } => {
                f.put(tag::SIZE_BYTES, size_bytes);
                5
            }
            Answer::Applied(applied) => {
                f.put(tag::APPLIED, &applied_number(*applied));
                6
            }
            Answer::Versions => 7,
            Answer::Cursor(cursor) => {
                put_cursor(&mut f, tag::CURSOR, cursor.as_ref());
                8
            }
            Answer::Done => 9,
            Answer::Backlog(backlog) => {
                f.put(tag::VERSIONS, &backlog.versions);
                f.put(tag::BYTES, &backlog.bytes);
                f.put_some(tag::PENDING_SINCE, &backlog.oldest_pending_since);
                10
            }
            Answer::Stretch { through } => {
                f.put_some(tag::KEY, through);
                11
            }
            Answer::Made(id) => {
                f.put_bytes(tag::VERSION_ID, id.as_bytes());
                12
            }
        };
        f.put(tag::KIND, &kind);
        f.to_bytes()
    }

    /// An answer from its bytes.
    ///
    /// # Errors
    /// [`wire::Error`] when they are none that this build knows.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, wire::Error> {
        let mut f = Fields::parse(bytes)?;
        let answer = match f.need::<u32>(tag::KIND)? {
            1 => {
                Answer::Hello { protocol: f.need(tag::PROTOCOL)?, origin: Origin::new(&f.need::<String>(tag::ORIGIN)?) }
            }
            2 => Answer::Bucket(BucketInfo {
                id: f.need(tag::BUCKET_ID)?,
                name: f.need(tag::BUCKET)?,
                versioned: f.need(tag::VERSIONED)?,
                object_lock: f.take(tag::OBJECT_LOCK)?.unwrap_or_default(),
                documents: documents(f.take(tag::DOCUMENTS)?.unwrap_or_default()),
            }),
            3 => Answer::Changes { cursor: need_cursor(&mut f, tag::CURSOR)? },
            4 => Answer::Version(take_version(&mut f)?.map(Box::new)),
            5 => Answer::Bytes { size_bytes: f.need(tag::SIZE_BYTES)? },
            6 => Answer::Applied(applied(f.need(tag::APPLIED)?)?),
            7 => Answer::Versions,
            8 => Answer::Cursor(take_cursor(&mut f, tag::CURSOR)?),
            9 => Answer::Done,
            10 => Answer::Backlog(Backlog {
                versions: f.need(tag::VERSIONS)?,
                bytes: f.need(tag::BYTES)?,
                oldest_pending_since: f.take(tag::PENDING_SINCE)?,
            }),
            11 => Answer::Stretch { through: f.take(tag::KEY)? },
            12 => Answer::Made(need_id(&mut f)?),
            other => return Err(wire::Error::Malformed(format!("answer {other} is unknown"))),
        };
        Ok(Reply { answer, unknown: f })
    }
}

/// An event as it follows [`Answer::Changes`].
pub fn event_to_bytes(event: &Event) -> Vec<u8> {
    let mut f = Fields::default();
    f.put_bytes(tag::VERSION, &event.version.to_bytes());
    f.put(tag::PENDING_SINCE, &event.pending_since);
    f.put_some(tag::TRACEPARENT, &event.traceparent);
    f.to_bytes()
}

/// An event from its bytes; fields of a later version are left out.
///
/// # Errors
/// [`wire::Error`] when they are none.
pub fn event_from_bytes(bytes: &[u8]) -> Result<Event, wire::Error> {
    let mut f = Fields::parse(bytes)?;
    Ok(Event {
        version: take_version(&mut f)?.ok_or(wire::Error::Missing(tag::VERSION))?,
        pending_since: f.need(tag::PENDING_SINCE)?,
        traceparent: f.take(tag::TRACEPARENT)?,
    })
}

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

fn applied_number(applied: Applied) -> u32 {
    match applied {
        Applied::Applied => 1,
        Applied::AlreadyPresent => 2,
        Applied::Superseded => 3,
        Applied::NeedsBody => 4,
    }
}
fn applied(number: u32) -> Result<Applied, wire::Error> {
    match number {
        1 => Ok(Applied::Applied),
        2 => Ok(Applied::AlreadyPresent),
        3 => Ok(Applied::Superseded),
        4 => Ok(Applied::NeedsBody),
        other => Err(wire::Error::Malformed(format!("outcome {other} is unknown"))),
    }
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
