//! Put: one version, whole or a piece of it, with its bytes behind the head or announced.
use super::{Error, Parts, assemble, flag, kind, split_head};
use crate::peer::Portion;
use bytes::Bytes;
use storage_engine::version::Version;
use storage_engine::wire::{self, Fields};

/// Where the bytes of a Put are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutBody {
    /// The version travels without bytes.
    None,
    /// All of them, in this frame.
    Inline(Bytes),
    /// In the Data frames that follow on this stream, up to End.
    Streamed,
}

/// One version, with its bytes or announcing them.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    pub link: String,
    pub epoch: u64,
    pub bucket: String,
    pub version: Version,
    pub traceparent: Option<String>,
    pub relayed: bool,
    pub body: PutBody,
    /// Other than the whole only to a receiver that says [`PIECES`](super::PIECES).
    pub portion: Portion,
    /// Fields of a later version.
    pub unknown: Fields,
}

impl Put {
    /// The frame of this Put on `stream`, as bytes; what [`Frame::encode`](super::Frame::encode) gives.
    ///
    /// # Errors
    /// [`Error::Oversized`] when it would be above [`FRAME_BYTES_MAX`](super::FRAME_BYTES_MAX).
    pub fn encode(&self, stream: u32) -> Result<Bytes, Error> {
        assemble(stream, self.parts())
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        let fields = self.to_fields().to_bytes();
        let mut head = u32::try_from(fields.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
        head.extend_from_slice(&fields);
        let (flags, raw) = match &self.body {
            PutBody::None => (0, None),
            PutBody::Inline(bytes) => (flag::PUT_BODY_INLINE, Some(bytes)),
            PutBody::Streamed => (flag::PUT_BODY_STREAMED, None),
        };
        (kind::PUT, flags | if self.relayed { flag::PUT_RELAYED } else { 0 }, head, raw)
    }

    fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        f.put(1, &self.link);
        f.put(2, &self.epoch);
        f.put(3, &self.bucket);
        f.put_bytes(4, &self.version.to_bytes());
        f.put_some(5, &self.traceparent);
        match self.portion {
            Portion::Whole => {}
            Portion::Assemble { piece_bytes } => f.put(6, &piece_bytes),
            Portion::Piece { piece_bytes, number, crc64nvme } => {
                f.put(6, &piece_bytes);
                f.put(7, &number);
                f.put(8, &crc64nvme);
            }
        }
        f
    }

    pub(super) fn parse(flags: u8, payload: &[u8]) -> Result<Self, Error> {
        let (head, raw) = split_head(payload)?;
        let body = match flags & (flag::PUT_BODY_INLINE | flag::PUT_BODY_STREAMED) {
            flag::PUT_BODY_INLINE => PutBody::Inline(Bytes::copy_from_slice(raw)),
            flag::PUT_BODY_STREAMED if raw.is_empty() => PutBody::Streamed,
            0 if raw.is_empty() => PutBody::None,
            _ => return Err(Error::Malformed("bytes where the flags promise none".into())),
        };
        let mut f = Fields::parse(head)?;
        let version = f.take_bytes(4)?.ok_or(wire::Error::Missing(4))?;
        let portion = match (f.take(6)?, f.take(7)?) {
            (None, None) => Portion::Whole,
            (Some(piece_bytes), None) => Portion::Assemble { piece_bytes },
            (Some(piece_bytes), Some(number)) => Portion::Piece { piece_bytes, number, crc64nvme: f.need(8)? },
            (None, Some(_)) => return Err(wire::Error::Missing(6).into()),
        };
        Ok(Put {
            link: f.need(1)?,
            epoch: f.need(2)?,
            bucket: f.need(3)?,
            version: Version::from_bytes(&version)?,
            traceparent: f.take(5)?,
            relayed: flags & flag::PUT_RELAYED != 0,
            body,
            portion,
            unknown: f,
        })
    }
}
