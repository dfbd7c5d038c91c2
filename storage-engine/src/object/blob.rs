//! Blobs: a body's way into the shards of a set of drives and out again.
//!
//! `write` cuts, hashes, codes and spreads a body; `read` gives it back, every block verified;
//! `digest` holds the checksums a client may ask for. A blob means nothing until a record names it:
//! this file commits nothing and decides nothing. Called by the roads that take or give bytes.
mod digest;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use write::StoredBody;

use crate::record::Blob;
use bytes::Bytes;
use uuid::Uuid;

/// Work on fewer bytes than this is done where it stands: a hop to another thread costs more than
/// the 130 µs that MD5 takes for 64 KiB.
const INLINE_WORK_BYTES: usize = 64 << 10;

/// The bytes of a record on their way to be named by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Data {
    /// Where they are, one blob per part in order; none for no bytes.
    pub(crate) blobs: Vec<Blob>,
    /// By slot, the small shards that go inside that drive's record; empty lists where they are files.
    pub(crate) shards: Vec<Vec<(Uuid, Bytes)>>,
    /// Drives that lack a shard, bit per slot: the record's debt.
    pub(crate) missing: u32,
    /// No record names these bytes yet: who lacks a shard cannot vouch for them.
    pub(crate) is_fresh: bool,
}

impl Data {
    /// Bytes that a record of a write quorum names already.
    pub(crate) fn held(blobs: Vec<Blob>, missing: u32) -> Self {
        Data { blobs, missing, ..Data::default() }
    }
    /// Appends the bytes of another held one.
    pub(crate) fn append(&mut self, next: &Data) {
        self.blobs.extend(next.blobs.iter().cloned());
        self.missing |= next.missing;
    }
    /// Whether the drive's word counts towards the ack of a record that names these bytes.
    ///
    /// A record of fresh bytes is acked by drives that hold their shard, so that a write quorum of records
    /// is a write quorum of shards: at least k+1 where there are so many drives, one drive more than a read needs.
    pub(crate) fn may_vouch(&self, slot: usize) -> bool {
        !self.is_fresh || self.missing & (1 << slot) == 0
    }
    /// The small shards of one drive.
    pub(crate) fn shards_of(&self, slot: usize) -> Vec<(Uuid, Bytes)> {
        self.shards.get(slot).cloned().unwrap_or_default()
    }
}

/// Slot of the drive that holds shard `index` of `blob` in a set of `drives`.
fn slot(blob: &Blob, index: usize, drives: usize) -> usize {
    (usize::from(blob.first) + index) % drives
}
