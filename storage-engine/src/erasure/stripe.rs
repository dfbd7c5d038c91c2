//! Stripes: how a blob's bytes are cut, coded and found again. Pure.
//!
//! A blob is a sequence of stripes of `stripe_bytes` of data, the last one shorter. A stripe of `len`
//! bytes gives k data shards of ceil(len / k) bytes, the last ones padded with zeros, and m parity
//! shards of the same length. Called by `object/blob.rs`; the blocks inside a shard are `bitrot.rs`.
use super::bitrot::{self, BLOCK_BYTES, Shard};
use super::code::{Code, Error};
use crate::record::Blob;
use std::ops::Range;
use uuid::Uuid;

/// Data bytes per stripe of blobs written today; each blob says its own.
///
/// 1 MiB: with 4+4 a shard's piece is four blocks, and two stripes of buffer per stream stay small.
pub const STRIPE_BYTES: u32 = 1 << 20;

/// Bytes of one shard's piece of a stripe of `data_bytes`.
pub fn piece_bytes(data_bytes: usize, k: usize) -> usize {
    data_bytes.div_ceil(k)
}

/// Codes one stripe of a blob: its k + m pieces, data first, as they stand on the drives (`bitrot.rs`).
///
/// Each byte of data is copied once, to where it leaves from; parity is computed in place.
///
/// # Errors
/// [`Error::Shape`] for an empty stripe: empty blobs have no stripe.
pub fn encode(code: &Code, blob: Uuid, stripe: u64, data: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    if data.is_empty() {
        return Err(Error::Shape);
    }
    let piece = piece_bytes(data.len(), code.k());
    let mut own = data.chunks(piece);
    let mut framed: Vec<Vec<u8>> =
        (0..code.shards()).map(|_| bitrot::laid_out(piece, own.next().unwrap_or_default())).collect();
    let (held, parity) = framed.split_at_mut(code.k());
    for block in bitrot::blocks(piece) {
        let held: Vec<&[u8]> = held.iter().map(|shard| &shard[block.clone()]).collect();
        let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(|shard| &mut shard[block.clone()]).collect();
        code.encode(&held, &mut parity)?;
    }
    let first_block = stripe * piece_bytes(STRIPE_BYTES as usize, code.k()).div_ceil(BLOCK_BYTES) as u64;
    for (index, shard) in (0..).zip(&mut framed) {
        Shard { blob, index }.seal(first_block, shard);
    }
    Ok(framed)
}

/// The `data_bytes` of a stripe from any k of its pieces.
///
/// # Errors
/// [`Error::TooFew`] below k pieces, [`Error::Shape`] when they are no pieces of this stripe.
pub fn decode(code: &Code, pieces: &[Option<&[u8]>], data_bytes: usize) -> Result<Vec<u8>, Error> {
    let piece = piece_bytes(data_bytes, code.k());
    if pieces.len() != code.shards() || pieces.iter().flatten().any(|p| p.len() != piece) {
        return Err(Error::Shape);
    }
    let lost: Vec<usize> = (0..code.k()).filter(|i| pieces[*i].is_none()).collect();
    let mut rebuilt = code.rebuild(pieces, &lost)?.into_iter();
    let mut data = Vec::with_capacity(piece * code.k());
    for held in &pieces[..code.k()] {
        match held {
            Some(held) => data.extend_from_slice(held),
            None => data.extend_from_slice(&rebuilt.next().ok_or(Error::Shape)?),
        }
    }
    data.truncate(data_bytes);
    Ok(data)
}

/// One stripe of a blob, and what of it a reader wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Number of the stripe in its blob.
    pub stripe: u64,
    /// Data bytes of the stripe.
    pub data_bytes: usize,
    /// Wanted bytes, within the stripe.
    pub wanted: Range<usize>,
}

/// The stripes of `blob` that `range` touches, in order; what lies beyond the blob is left out.
pub fn slices(blob: &Blob, range: Range<u64>) -> impl Iterator<Item = Slice> + Send + 'static {
    let (size, stripe_bytes) = (blob.size_bytes, u64::from(blob.stripe_bytes.max(1)));
    let range = range.start.min(size)..range.end.min(size);
    let last = if range.is_empty() { range.start / stripe_bytes } else { range.end.div_ceil(stripe_bytes) };
    (range.start / stripe_bytes..last).map(move |stripe| {
        let start = stripe * stripe_bytes;
        let end = size.min(start + stripe_bytes);
        let within = |at: u64| (at.clamp(start, end) - start) as usize; // below 2^32: stripe_bytes is a u32
        Slice { stripe, data_bytes: (end - start) as usize, wanted: within(range.start)..within(range.end) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Fields;
    use proptest::prelude::*;

    /// The pieces of a stripe, checksums left out.
    fn coded(code: &Code, data: &[u8]) -> Vec<Vec<u8>> {
        let bare = |framed: &Vec<u8>| -> Vec<u8> {
            let piece = piece_bytes(data.len(), code.k());
            bitrot::blocks(piece).flat_map(|block| framed[block].to_vec()).collect()
        };
        encode(code, Uuid::nil(), 0, data).unwrap().iter().map(bare).collect()
    }

    proptest! {
        #[test]
        fn any_m_pieces_may_be_lost(
            (k, m) in prop::sample::select(vec![(1, 0), (1, 1), (2, 2), (4, 4), (8, 4), (12, 4), (3, 2)]),
            seed in prop::collection::vec(any::<u8>(), 1..5000),
            // Up to three blocks a piece.
            copies in 1usize..150,
            dice in any::<u64>(),
        ) {
            let (code, data) = (Code::new(k, m).unwrap(), seed.repeat(copies));
            let coded = coded(&code, &data);
            let mut pieces: Vec<Option<&[u8]>> = coded.iter().map(|p| Some(&p[..])).collect();
            let mut dice = dice;
            for _ in 0..m {
                pieces[(dice % (k + m) as u64) as usize] = None;
                dice = dice.rotate_right(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
            prop_assert_eq!(decode(&code, &pieces, data.len()).unwrap(), data);
        }

        #[test]
        fn slices_cover_the_range_once_and_in_order(size in 0u64..5000, stripe_bytes in 1u32..700, a in 0u64..6000, b in 0u64..6000) {
            let blob = Blob { id: Uuid::nil(), size_bytes: size, k: 4, m: 4, first: 0, stripe_bytes, unknown: Fields::default() };
            let range = a.min(b)..a.max(b);
            let mut at = range.start.min(size);
            for slice in slices(&blob, range.clone()) {
                let start = slice.stripe * u64::from(stripe_bytes);
                prop_assert_eq!(start + slice.wanted.start as u64, at);
                prop_assert!(!slice.wanted.is_empty() && slice.wanted.end <= slice.data_bytes);
                at = start + slice.wanted.end as u64;
            }
            prop_assert_eq!(at, range.end.min(size));
        }
    }

    #[test]
    fn more_than_m_lost_is_an_error_not_bytes() {
        let code = Code::new(4, 2).unwrap();
        let coded = coded(&code, b"seventeen letters");
        let mut pieces: Vec<Option<&[u8]>> = coded.iter().map(|p| Some(&p[..])).collect();
        (pieces[0], pieces[3], pieces[5]) = (None, None, None);
        assert_eq!(decode(&code, &pieces, 17), Err(Error::TooFew { have: 3, k: 4 }));
        assert_eq!(encode(&code, Uuid::nil(), 0, b""), Err(Error::Shape));
    }
}
