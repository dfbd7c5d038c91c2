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

/// Work on fewer bytes than this is done where it stands: a hop to another thread costs more than
/// the 130 µs that MD5 takes for 64 KiB.
const INLINE_WORK_BYTES: usize = 64 << 10;

/// Slot of the drive that holds shard `index` of `blob` in a set of `drives`.
fn slot(blob: &Blob, index: usize, drives: usize) -> usize {
    (usize::from(blob.first) + index) % drives
}
