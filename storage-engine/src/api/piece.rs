//! What a replicator in another process does with the pieces of large versions, so that a transfer that was cut goes on
//! where it was: the questions of `object/pieces.rs` on the wire. Decides nothing.
use super::message::tag;
use super::{Applied, Body, Error, Objects};
use crate::object::Cut;
use crate::version::order::version_id;
use crate::version::{Version, VersionId};
use crate::wire::{self, Fields};

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Stores one piece, whose bytes follow the question; durable when it is answered.
    Put { id: VersionId, cut: Cut, number: u32, crc64nvme: u64 },
    /// Which pieces are durable.
    Held { id: VersionId, cut: Cut },
    /// Joins the version, with the bytes of its pieces.
    Apply { version: Box<Version>, cut: Cut, traceparent: Option<String> },
    /// Forgets pieces of versions that never came, of which the youngest was written before this time, Unix milliseconds.
    Forget { before_millis: u64 },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    Stored,
    /// By number.
    Held(Vec<u32>),
    Applied(Applied),
    /// So many.
    Forgotten(u64),
}

impl Act {
    /// The operation's name.
    pub fn operation(&self) -> &'static str {
        match self {
            Act::Put { .. } => "PutPiece",
            Act::Held { .. } => "HeldPieces",
            Act::Apply { .. } => "ApplyPieces",
            Act::Forget { .. } => "ForgetPieces",
        }
    }

    /// Its fields.
    pub(super) fn put(&self, f: &mut Fields) {
        match self {
            Act::Put { id, cut, number, crc64nvme } => {
                put_version(f, *id, *cut);
                f.put(tag::PIECE, number);
                f.put(tag::CRC64NVME, crc64nvme);
            }
            Act::Held { id, cut } => put_version(f, *id, *cut),
            Act::Apply { version, cut, traceparent } => {
                f.put_bytes(tag::VERSION, &version.to_bytes());
                put_cut(f, *cut);
                f.put_some(tag::TRACEPARENT, traceparent);
            }
            Act::Forget { before_millis } => f.put(tag::BEFORE, before_millis),
        }
    }

    /// The act of this name with these fields; `None`: it is the name of none.
    pub(super) fn take(operation: &str, f: &mut Fields) -> Result<Option<Act>, wire::Error> {
        Ok(Some(match operation {
            "PutPiece" => Act::Put {
                id: version_id(f, tag::VERSION_ID)?,
                cut: take_cut(f)?,
                number: f.need(tag::PIECE)?,
                crc64nvme: f.need(tag::CRC64NVME)?,
            },
            "HeldPieces" => Act::Held { id: version_id(f, tag::VERSION_ID)?, cut: take_cut(f)? },
            "ApplyPieces" => {
                let bytes = f.take_bytes(tag::VERSION)?.ok_or(wire::Error::Missing(tag::VERSION))?;
                let version = Box::new(Version::from_bytes(&bytes)?);
                Act::Apply { version, cut: take_cut(f)?, traceparent: f.take(tag::TRACEPARENT)? }
            }
            "ForgetPieces" => Act::Forget { before_millis: f.need(tag::BEFORE)? },
            _ => return Ok(None),
        }))
    }
}

fn put_version(f: &mut Fields, id: VersionId, cut: Cut) {
    f.put_bytes(tag::VERSION_ID, id.as_bytes());
    put_cut(f, cut);
}

fn put_cut(f: &mut Fields, cut: Cut) {
    f.put(tag::SIZE_BYTES, &cut.size_bytes());
    f.put(tag::PIECE_BYTES, &cut.piece_bytes());
}

fn take_cut(f: &mut Fields) -> Result<Cut, wire::Error> {
    let (size, piece) = (f.need(tag::SIZE_BYTES)?, f.need(tag::PIECE_BYTES)?);
    Cut::new(size, piece)
        .ok_or_else(|| wire::Error::Malformed(format!("{size} bytes are not cut into pieces of {piece}")))
}

impl Objects {
    /// Does something with pieces; `body` holds the bytes of the one that is put.
    ///
    /// # Errors
    /// As those of `object/pieces.rs`.
    pub async fn piece(&self, bucket: &str, act: Act, body: Body) -> Result<Done, Error> {
        Ok(match act {
            Act::Put { id, cut, number, crc64nvme } => {
                self.put_piece(bucket, id, cut, number, crc64nvme, body).await?;
                Done::Stored
            }
            Act::Held { id, cut } => Done::Held(self.pieces(bucket, id, cut).await?),
            Act::Apply { version, cut, traceparent } => {
                Done::Applied(self.apply_pieces(bucket, *version, cut, traceparent).await?)
            }
            Act::Forget { before_millis } => Done::Forgotten(self.forget_pieces(bucket, before_millis).await?),
        })
    }
}
