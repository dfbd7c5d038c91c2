//! Bytes of the commit log: segment headers and records. Pure; the README draws them.
//!
//! Called by `log.rs` to write and by `recover.rs` to read. It decides nothing about torn tails.
use crate::drive::Lsn;
use crate::quorum::participant::Effect;
use crate::record::{BucketId, Coded};
use crate::version::{Hlc, VersionId};
use crate::wire::{self, Fields};
use bytes::Bytes;
use crc_fast::CrcAlgorithm::Crc32Iscsi;
use uuid::Uuid;

/// Bytes of a record's header.
pub const HEADER: usize = 28;
/// Bytes of a segment's header, a sector of its own: a torn first record cannot hurt it.
pub const SEGMENT_HEADER: u64 = 512;
/// First bytes of a record, "IREC".
pub const MAGIC: [u8; 4] = *b"IREC";
const SEGMENT_MAGIC: [u8; 8] = *b"ISTHMLOG";
const SEGMENT_VERSION: u32 = 1;
/// Longest payload a reader believes: a record with 10,000 parts and every inline shard is below it.
pub const PAYLOAD_MAX: usize = 48 << 20;

/// One change as the log holds it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Bucket of the key.
    pub bucket: BucketId,
    /// The key it changes.
    pub key: String,
    /// What changes.
    pub effect: Effect,
}

/// Where an encoded entry's shards stand, from the start of the buffer it was written into.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// Each inline shard: blob, offset, length.
    pub shards: Vec<(Uuid, usize, usize)>,
}

const PUT: u8 = 1;
const ABORT: u8 = 2;
const ACK: u8 = 3;
const JOIN: u8 = 4;

/// A checked record header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload after the header.
    pub length: usize,
    /// The record's place in the log.
    pub lsn: Lsn,
    /// How many records right before it were not yet synced when it was written.
    pub unsynced: u32,
    /// Kind of the payload.
    pub kind: u8,
    crc: u32,
}

impl Header {
    /// Reads a header; `None` where the bytes cannot be one.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        if bytes.len() < HEADER || bytes[..4] != MAGIC || bytes[21..24] != [0; 3] {
            return None;
        }
        let length = u32_at(bytes, 4) as usize;
        let lsn = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
        let header = Header { length, lsn, unsynced: u32_at(bytes, 16), kind: bytes[20], crc: u32_at(bytes, 24) };
        (length <= PAYLOAD_MAX).then_some(header)
    }

    /// Whether `record`, header and payload, is what was written by this incarnation.
    pub fn holds(&self, record: &[u8], incarnation: Uuid) -> bool {
        record.len() == HEADER + self.length && checksum(record, incarnation) == self.crc
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// CRC-32C of everything but the magic and the checksum itself, salted with the incarnation: object
/// bytes that happen to look like a log record, by chance or by will, are not taken for one.
fn checksum(record: &[u8], incarnation: Uuid) -> u32 {
    let mut digest = crc_fast::Digest::new(Crc32Iscsi);
    digest.update(incarnation.as_bytes());
    digest.update(&record[4..24]);
    digest.update(&record[HEADER..]);
    digest.finalize() as u32
}

/// The header of a segment whose first record will be `first`.
pub fn segment_header(incarnation: Uuid, first: Lsn) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER as usize);
    bytes.extend_from_slice(&SEGMENT_MAGIC);
    bytes.extend_from_slice(&SEGMENT_VERSION.to_le_bytes());
    bytes.extend_from_slice(incarnation.as_bytes());
    bytes.extend_from_slice(&first.to_le_bytes());
    let crc = crc_fast::checksum(Crc32Iscsi, &bytes) as u32;
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.resize(SEGMENT_HEADER as usize, 0);
    bytes
}

/// The first lsn of a segment of this incarnation; `None` where the bytes are no such header.
pub fn read_segment_header(bytes: &[u8], incarnation: Uuid) -> Option<Lsn> {
    let crc = u32_at(bytes.get(..40)?, 36);
    let whole = bytes[..8] == SEGMENT_MAGIC
        && u32_at(bytes, 8) == SEGMENT_VERSION
        && bytes[12..28] == *incarnation.as_bytes()
        && crc_fast::checksum(Crc32Iscsi, &bytes[..36]) as u32 == crc;
    whole.then(|| u64::from_le_bytes(bytes[28..36].try_into().expect("eight bytes")))
}

/// Appends an entry as one record.
pub fn encode(out: &mut Vec<u8>, incarnation: Uuid, lsn: Lsn, unsynced: u32, entry: &Entry) -> Placed {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    let mut placed = Placed::default();
    let kind = match &entry.effect {
        Effect::Put { record, shards } => {
            block(out, record.bytes());
            let mut list = Fields::default();
            for (i, (blob, bytes)) in (0u32..).zip(shards) {
                list.put_fields(i, &shard_fields(*blob, bytes.len()));
            }
            block(out, &list.to_bytes());
            for (blob, bytes) in shards {
                placed.shards.push((*blob, out.len(), bytes.len()));
                out.extend_from_slice(bytes);
            }
            PUT
        }
        Effect::Join { record } => {
            block(out, record.bytes());
            JOIN
        }
        Effect::Abort { version, ballot } => {
            block(out, &attempt(entry, *version, *ballot));
            ABORT
        }
        Effect::Ack { version, ballot } => {
            block(out, &attempt(entry, *version, *ballot));
            ACK
        }
    };
    let length = out.len() - start - HEADER;
    let header = &mut out[start..];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&u32::try_from(length).expect("a record is far below 4 GiB").to_le_bytes());
    header[8..16].copy_from_slice(&lsn.to_le_bytes());
    header[16..20].copy_from_slice(&unsynced.to_le_bytes());
    header[20] = kind;
    let crc = checksum(header, incarnation);
    header[24..28].copy_from_slice(&crc.to_le_bytes());
    placed
}

/// Reads a payload; the offsets told are from its start.
///
/// # Errors
/// [`wire::Error`] for what is no entry, or one of a later format.
pub fn decode(kind: u8, payload: &[u8]) -> Result<(Entry, Placed), wire::Error> {
    let short = || wire::Error::Malformed("the entry ends early".into());
    let (first, len) = next_block(payload, 0).ok_or_else(short)?;
    let head = &payload[first..first + len];
    let mut placed = Placed::default();
    if kind == ABORT || kind == ACK {
        let mut f = Fields::parse(head)?;
        let bucket = f.take_bytes(1)?.and_then(|b| Uuid::from_slice(&b).ok()).ok_or(wire::Error::Missing(1))?;
        let key = f.need(2)?;
        let version = crate::version::order::version_id(&mut f, 3)?;
        let ballot = Hlc::from_bits(f.need(4)?);
        let effect = if kind == ABORT { Effect::Abort { version, ballot } } else { Effect::Ack { version, ballot } };
        return Ok((Entry { bucket: BucketId(bucket), key, effect }, placed));
    }
    let record = Coded::from_bytes(head)?;
    let (bucket, key) = (record.bucket, record.key().to_owned());
    let effect = match kind {
        JOIN => Effect::Join { record },
        PUT => {
            let (list, list_len) = next_block(payload, first + len).ok_or_else(short)?;
            let mut list_fields = Fields::parse(&payload[list..list + list_len])?;
            let mut at = list + list_len;
            let mut shards = Vec::new();
            while let Some(mut f) = list_fields.take_fields(shards.len() as u32)? {
                let blob = f.take_bytes(1)?.and_then(|b| Uuid::from_slice(&b).ok()).ok_or(wire::Error::Missing(1))?;
                let size: u32 = f.need(2)?;
                let bytes = payload.get(at..at + size as usize).ok_or_else(short)?;
                placed.shards.push((blob, at, bytes.len()));
                shards.push((blob, Bytes::copy_from_slice(bytes)));
                at += bytes.len();
            }
            Effect::Put { record, shards }
        }
        other => return Err(wire::Error::Malformed(format!("a log record of kind {other}, of a later format"))),
    };
    Ok((Entry { bucket, key, effect }, placed))
}

fn shard_fields(blob: Uuid, len: usize) -> Fields {
    let mut f = Fields::default();
    f.put_bytes(1, blob.as_bytes());
    f.put(2, &u32::try_from(len).expect("inline shards are at most 1 MiB"));
    f
}

fn attempt(entry: &Entry, version: VersionId, ballot: Hlc) -> Vec<u8> {
    let mut f = Fields::default();
    f.put_bytes(1, entry.bucket.0.as_bytes());
    f.put(2, &entry.key);
    f.put_bytes(3, version.as_bytes());
    f.put(4, &ballot.bits());
    f.to_bytes()
}

/// Appends a length and the bytes.
fn block(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("records are far below 4 GiB").to_le_bytes());
    out.extend_from_slice(bytes);
}

fn next_block(payload: &[u8], at: usize) -> Option<(usize, usize)> {
    let len = u32::from_le_bytes(payload.get(at..at + 4)?.try_into().ok()?) as usize;
    (at + 4 + len <= payload.len()).then_some((at + 4, len))
}
