//! Frames <-> bytes: what stands on the wire between two replicators. Pure: no I/O, clock or dice.
//!
//! A frame is `{length u32, type u8, flags u8, stream u32, payload}`, integers big-endian; `length`
//! counts everything behind itself. Payloads are tagged fields ([`Fields`]) so that a field of a later
//! version is carried over; only Data is raw, and Put is its head and raw bytes behind it. No input
//! makes this module panic, and none makes it ask for more than [`FRAME_BYTES_MAX`].
//!
//! `connection.rs` reads and writes frames; who may send which is decided in `client.rs` and `server.rs`.
mod ack;
pub mod bucket;
pub mod content;
pub mod drill;
mod hello;
mod put;
pub mod read;
pub mod reconcile;

pub use ack::PIECES_MAX;
pub use hello::{
    BUCKETS, CONTENTS, DRILLS, FEATURES_MAX, Hello, LINKS_MAX, LIVE_DRILLS, ONE_WAY_DRILLS, PIECES, PROTOCOL_VERSION,
    READS, RECONCILES, Windows,
};
pub use put::{Put, PutBody};

use super::Ack;
use crate::link::reconcile::Ask;
use bucket::BucketAsk;
use bytes::{BufMut, Bytes, BytesMut};
use content::ContentAsk;
use drill::DrillAsk;
use minicbor::{Decode, Decoder};
use read::{Found, Read};
use reconcile::{Answer, Question};
use storage_engine::wire::{self, Fields};

/// Largest frame, its length word left out. Source: security.md section 5.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// The length word.
const LENGTH_BYTES: usize = 4;
/// Type, flags and stream.
const HEADER_BYTES: usize = 6;
/// What one Put or Data frame costs in credit beside its payload: bounds how many tiny frames fit into
/// a window, since each takes memory of its own at the receiver.
pub const CREDIT_PER_FRAME: usize = 64;
/// Bits of the flags byte, by frame type.
mod flag {
    pub const PUT_BODY_INLINE: u8 = 1;
    pub const PUT_BODY_STREAMED: u8 = 2;
    pub const PUT_RELAYED: u8 = 4;
    pub const END_ABORT: u8 = 1;
}

/// A list that is read only as far as it may be long: a frame of 8 MiB holds millions of empty values, and each takes
/// far more memory than its byte on the wire.
struct AtMost<const N: usize, T>(Vec<T>);

impl<const N: usize, T> Default for AtMost<N, T> {
    fn default() -> Self {
        AtMost(Vec::new())
    }
}

impl<'b, C, const N: usize, T: Decode<'b, C>> Decode<'b, C> for AtMost<N, T> {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let mut all = Vec::new();
        for one in d.array_iter_with(ctx)? {
            if all.len() == N {
                return Err(minicbor::decode::Error::message("a list longer than allowed"));
            }
            all.push(one?);
        }
        Ok(AtMost(all))
    }
}

/// Bytes that are no frame; the connection cannot go on after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The length word is above the limit.
    #[error("a frame of {bytes} bytes, above the limit of {FRAME_BYTES_MAX}")]
    Oversized { bytes: u64 },
    /// The payload is not what the type promises.
    #[error("malformed frame: {0}")]
    Malformed(String),
}

impl From<wire::Error> for Error {
    fn from(err: wire::Error) -> Self {
        Error::Malformed(err.to_string())
    }
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    Hello(Hello),
    Put(Box<Put>),
    /// Bytes of a streamed body.
    Data(Bytes),
    /// The streamed body is complete, or was given up.
    End {
        aborted: bool,
    },
    Ack(Ack),
    /// So many bytes may be sent again: on this stream, or on the connection (stream 0).
    Credit(u32),
    Ping(u64),
    /// Answers the Ping of this number.
    Pong {
        number: u64,
        /// What the clock of the end that answers says, Unix milliseconds; an end that has none says nothing.
        clock_millis: Option<u64>,
    },
    /// Send nothing new; what is under way may finish.
    Goodbye(String),
    /// What is held of ranges of keys? A frame type for digests and one for items.
    Question(Box<Question>),
    Answer(Answer),
    /// How is a bucket set? And documents for it.
    Bucket(Box<BucketAsk>),
    /// What stands there of a version?
    Read(Box<Read>),
    Found(Found),
    /// What is read of versions?
    Contents(Box<ContentAsk>),
    /// A step of a failover drill.
    Drill(Box<DrillAsk>),
    /// Of a type that this version does not know, which is passed over: a later one may speak of more.
    Unknown(u8),
}

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The version it belongs to; 0 is the connection itself.
    pub stream: u32,
    pub message: Message,
}

/// A type byte per message; never reused for another meaning.
mod kind {
    pub const HELLO: u8 = 1;
    pub const PUT: u8 = 2;
    pub const DATA: u8 = 3;
    pub const END: u8 = 4;
    pub const ACK: u8 = 5;
    pub const CREDIT: u8 = 6;
    pub const PING: u8 = 7;
    pub const PONG: u8 = 8;
    pub const GOODBYE: u8 = 9;
    pub const DIGEST: u8 = 10;
    pub const ITEMS: u8 = 11;
    pub const ANSWER: u8 = 12;
    pub const READ: u8 = 13;
    pub const FOUND: u8 = 14;
    pub const BUCKET: u8 = 20;
    pub const DRILL: u8 = 30;
    pub const CONTENTS: u8 = 40;
}

impl Frame {
    /// A frame on the connection itself.
    pub fn connection(message: Message) -> Self {
        Frame { stream: 0, message }
    }

    /// The frame as bytes, its length word included.
    ///
    /// # Errors
    /// [`Error::Oversized`] when it would be above [`FRAME_BYTES_MAX`].
    pub fn encode(&self) -> Result<Bytes, Error> {
        assemble(self.stream, self.message.parts())
    }

    /// Takes the first frame off `buffer` with the credit it costs; `None` when it is not whole yet.
    ///
    /// # Errors
    /// Any [`Error`]: the buffer is of no use any more.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<(Frame, usize)>, Error> {
        let Some((word, rest)) = buffer.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*word) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Error::Oversized { bytes: length as u64 });
        }
        if length < HEADER_BYTES {
            return Err(Error::Malformed("shorter than a header".into()));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let frame = buffer.split_to(LENGTH_BYTES + length);
        let body = &frame[LENGTH_BYTES..];
        let (kind, flags) = (body[0], body[1]);
        let stream = u32::from_be_bytes([body[2], body[3], body[4], body[5]]);
        let message = Message::parse(kind, flags, &body[HEADER_BYTES..])?;
        Ok(Some((Frame { stream, message }, length - HEADER_BYTES + CREDIT_PER_FRAME)))
    }
}

/// Type, flags, encoded head, raw bytes behind it.
type Parts<'a> = (u8, u8, Vec<u8>, Option<&'a Bytes>);

fn assemble(stream: u32, (kind, flags, head, raw): Parts<'_>) -> Result<Bytes, Error> {
    let length = HEADER_BYTES + head.len() + raw.map_or(0, Bytes::len);
    let word = u32::try_from(length).ok().filter(|_| length <= FRAME_BYTES_MAX);
    let word = word.ok_or(Error::Oversized { bytes: length as u64 })?;
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + length);
    out.put_u32(word);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.put_slice(&head);
    if let Some(raw) = raw {
        out.put_slice(raw);
    }
    Ok(out.freeze())
}

/// The same frame on another stream: a frame is made before its stream is known.
pub fn on_stream(encoded: Bytes, stream: u32) -> Bytes {
    let mut frame = encoded.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    frame[LENGTH_BYTES + 2..LENGTH_BYTES + HEADER_BYTES].copy_from_slice(&stream.to_be_bytes());
    frame.freeze()
}

/// What sending `encoded` (a Put or Data frame) costs of a window, as the receiver counts it.
pub fn credit_cost(encoded: &Bytes) -> usize {
    encoded.len() - LENGTH_BYTES - HEADER_BYTES + CREDIT_PER_FRAME
}

/// The bytes of a frame that cost so much of a window.
pub fn frame_bytes(cost: usize) -> u64 {
    (cost - CREDIT_PER_FRAME + LENGTH_BYTES + HEADER_BYTES) as u64
}

impl Message {
    fn parts(&self) -> Parts<'_> {
        match self {
            Message::Hello(hello) => (kind::HELLO, 0, hello.to_fields().to_bytes(), None),
            Message::Put(put) => put.parts(),
            Message::Data(bytes) => (kind::DATA, 0, Vec::new(), Some(bytes)),
            Message::End { aborted } => {
                (kind::END, if *aborted { flag::END_ABORT } else { 0 }, Fields::default().to_bytes(), None)
            }
            Message::Ack(ack) => (kind::ACK, 0, ack::to_fields(ack).to_bytes(), None),
            Message::Credit(bytes) => (kind::CREDIT, 0, single(bytes), None),
            Message::Ping(number) => (kind::PING, 0, single(number), None),
            Message::Pong { number, clock_millis } => {
                let mut fields = Fields::default();
                fields.put(1, number);
                fields.put_some(2, clock_millis);
                (kind::PONG, 0, fields.to_bytes(), None)
            }
            Message::Goodbye(reason) => (kind::GOODBYE, 0, single(reason), None),
            Message::Question(question) => {
                let kind = match question.ask {
                    Ask::Digests(_) => kind::DIGEST,
                    Ask::Items { .. } => kind::ITEMS,
                };
                (kind, 0, question.to_fields().to_bytes(), None)
            }
            Message::Answer(answer) => (kind::ANSWER, 0, answer.to_fields().to_bytes(), None),
            Message::Bucket(ask) => (kind::BUCKET, 0, ask.to_fields().to_bytes(), None),
            Message::Read(read) => (kind::READ, 0, read.to_fields().to_bytes(), None),
            Message::Found(found) => found.parts(),
            Message::Drill(ask) => (kind::DRILL, 0, ask.to_fields().to_bytes(), None),
            Message::Contents(ask) => (kind::CONTENTS, 0, ask.to_fields().to_bytes(), None),
            Message::Unknown(kind) => (*kind, 0, Vec::new(), None),
        }
    }

    fn parse(kind: u8, flags: u8, payload: &[u8]) -> Result<Message, Error> {
        Ok(match kind {
            kind::HELLO => Message::Hello(Hello::from_fields(Fields::parse(payload)?)?),
            kind::PUT => Message::Put(Box::new(Put::parse(flags, payload)?)),
            kind::DATA => Message::Data(Bytes::copy_from_slice(payload)),
            kind::END => {
                Fields::parse(payload)?;
                Message::End { aborted: flags & flag::END_ABORT != 0 }
            }
            kind::ACK => Message::Ack(ack::from_fields(Fields::parse(payload)?)?),
            kind::CREDIT => Message::Credit(Fields::parse(payload)?.need(1)?),
            kind::PING => Message::Ping(Fields::parse(payload)?.need(1)?),
            kind::PONG => {
                let mut fields = Fields::parse(payload)?;
                Message::Pong { number: fields.need(1)?, clock_millis: fields.take(2)? }
            }
            kind::GOODBYE => Message::Goodbye(Fields::parse(payload)?.need(1)?),
            kind::DIGEST | kind::ITEMS => {
                let question = Question::from_fields(Fields::parse(payload)?, kind == kind::ITEMS)?;
                Message::Question(Box::new(question))
            }
            kind::ANSWER => Message::Answer(Answer::from_fields(Fields::parse(payload)?)?),
            kind::BUCKET => Message::Bucket(Box::new(BucketAsk::from_fields(Fields::parse(payload)?)?)),
            kind::READ => Message::Read(Box::new(Read::from_fields(Fields::parse(payload)?)?)),
            kind::FOUND => Message::Found(Found::parse(payload)?),
            kind::CONTENTS => Message::Contents(Box::new(ContentAsk::from_fields(Fields::parse(payload)?)?)),
            kind::DRILL => Message::Drill(Box::new(DrillAsk::from_fields(Fields::parse(payload)?)?)),
            other => Message::Unknown(other),
        })
    }
}

/// Fields with one value, number 1.
fn single<T: minicbor::Encode<()> + minicbor::CborLen<()>>(value: &T) -> Vec<u8> {
    let mut fields = Fields::default();
    fields.put(1, value);
    fields.to_bytes()
}

/// Fields behind their length, and the raw bytes behind them.
fn split_head(payload: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let short = || Error::Malformed("shorter than its head".into());
    let (word, rest) = payload.split_first_chunk::<4>().ok_or_else(short)?;
    rest.split_at_checked(u32::from_be_bytes(*word) as usize).ok_or_else(short)
}

#[cfg(test)]
mod tests;
