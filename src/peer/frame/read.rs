//! Read and Found: a version that the asking site does not have yet <-> fields. Pure.
//!
//! A large version is read in several questions, each for a range. What a peer may read is decided in
//! `replicator/lend.rs`.
use super::{Error, Parts, kind};
use bytes::Bytes;
use storage_engine::version::{Version, VersionId};
use storage_engine::wire::{self, Fields};

/// Bytes in one answer at most.
pub const READ_BYTES_MAX: u32 = 512 << 10;

/// Asks for a version and some of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Bucket at the side that answers.
    pub bucket: String,
    pub key: String,
    /// `None`: the latest.
    pub version_id: Option<VersionId>,
    pub offset: u64,
    /// So many bytes from there on, at most [`READ_BYTES_MAX`].
    pub bytes: u32,
    /// Fields of a later version.
    pub unknown: Fields,
}

/// The answer to a [`Read`].
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// It stands there; the bytes asked for.
    Version { version: Box<Version>, bytes: Bytes },
    /// Nothing S3 would show: no version, a delete marker, a purged one.
    Nothing,
    /// Outside of what the asking site may read.
    Refused(String),
    /// The store there cannot be asked now.
    Unavailable(String),
}

/// Kinds of answers; never reused for another meaning.
mod found {
    pub const VERSION: u8 = 1;
    pub const NOTHING: u8 = 2;
    pub const REFUSED: u8 = 3;
    pub const UNAVAILABLE: u8 = 4;
}

impl Read {
    pub(super) fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        f.put(1, &self.bucket);
        f.put(2, &self.key);
        if let Some(id) = &self.version_id {
            f.put_bytes(3, id.as_bytes());
        }
        f.put(4, &self.offset);
        f.put(5, &self.bytes);
        f
    }

    pub(super) fn from_fields(mut f: Fields) -> Result<Self, Error> {
        let version_id = f.take_bytes(3)?.map(|bytes| super::reconcile::version_id(&bytes));
        let bytes: u32 = f.need(5)?;
        if bytes > READ_BYTES_MAX {
            return Err(Error::Malformed(format!("{bytes} bytes asked for at once")));
        }
        Ok(Read {
            bucket: f.need(1)?,
            key: f.need(2)?,
            version_id: version_id.transpose()?,
            offset: f.need(4)?,
            bytes,
            unknown: f,
        })
    }
}

impl Found {
    pub(super) fn parts(&self) -> Parts<'_> {
        let mut f = Fields::default();
        let (number, raw) = match self {
            Found::Version { version, bytes } => {
                f.put_bytes(2, &version.to_bytes());
                (found::VERSION, Some(bytes))
            }
            Found::Nothing => (found::NOTHING, None),
            Found::Refused(why) => {
                f.put(3, why);
                (found::REFUSED, None)
            }
            Found::Unavailable(why) => {
                f.put(3, why);
                (found::UNAVAILABLE, None)
            }
        };
        f.put(1, &number);
        let fields = f.to_bytes();
        let mut head = u32::try_from(fields.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
        head.extend_from_slice(&fields);
        (kind::FOUND, 0, head, raw)
    }

    pub(super) fn parse(payload: &[u8]) -> Result<Self, Error> {
        let (head, raw) = super::split_head(payload)?;
        let mut f = Fields::parse(head)?;
        Ok(match f.need::<u8>(1)? {
            found::VERSION => {
                let version = f.take_bytes(2)?.ok_or(wire::Error::Missing(2))?;
                let version = Box::new(Version::from_bytes(&version)?);
                Found::Version { version, bytes: Bytes::copy_from_slice(raw) }
            }
            found::NOTHING => Found::Nothing,
            found::REFUSED => Found::Refused(f.need(3)?),
            found::UNAVAILABLE => Found::Unavailable(f.need(3)?),
            other => return Err(Error::Malformed(format!("answer {other} is unknown"))),
        })
    }
}
