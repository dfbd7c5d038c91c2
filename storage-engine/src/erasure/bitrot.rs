//! Blocks: how a shard stands on a drive, each block behind a checksum that binds it to its place. Pure.
//!
//! A shard is the pieces of its stripes one after another; a piece is cut into blocks of 64 KiB, the
//! last one shorter; each block is `checksum (8 bytes, little endian) ++ bytes`. The checksum is
//! CRC-64/NVME over (blob id, shard index, block number) and the bytes, so a flipped byte and a
//! swapped block, shard or file all show. Numbers of blocks run through the whole shard. Lengths are
//! not stored: they follow from the blob's size. Called by `object/blob.rs`.
use super::stripe::piece_bytes;
use crate::record::Blob;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use std::ops::Range;
use uuid::Uuid;

/// Bytes of a full block. 64 KiB: small enough for range reads, large enough that 8 bytes do not count.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Bytes of the checksum before each block.
pub const CHECKSUM_BYTES: usize = 8;

/// A block that is not what was written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {block} of shard {shard} of {blob} fails its checksum")]
pub struct Corrupt {
    pub blob: Uuid,
    pub shard: u8,
    pub block: u64,
}

/// One shard of one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub blob: Uuid,
    /// 0..k: data, k..k+m: parity.
    pub index: u8,
}

/// Where blocks of a piece stand in the shard on the drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the first block.
    pub first_block: u64,
    /// Bytes on the drive, checksums included.
    pub on_drive: Range<u64>,
    /// The bytes they hold, within the piece; covers what was asked for.
    pub in_piece: Range<usize>,
}

/// Bytes on the drive of a piece of `piece_bytes`.
pub fn framed_bytes(piece_bytes: usize) -> usize {
    piece_bytes + piece_bytes.div_ceil(BLOCK_BYTES) * CHECKSUM_BYTES
}

/// Where the blocks of a piece of `piece_bytes` stand in it once it is laid out, checksums left out.
pub fn blocks(piece_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    (0..piece_bytes).step_by(BLOCK_BYTES).map(move |at| {
        let start = at + (at / BLOCK_BYTES + 1) * CHECKSUM_BYTES;
        start..start + (piece_bytes - at).min(BLOCK_BYTES)
    })
}

/// A piece of `piece_bytes` as it will stand on the drive: room for the checksums, `bytes`, and zeros to
/// the end. It is written once and coded where it lies.
pub fn laid_out(piece_bytes: usize, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(framed_bytes(piece_bytes));
    let mut rest = bytes;
    for block in blocks(piece_bytes) {
        out.resize(block.start, 0);
        let (held, after) = rest.split_at(rest.len().min(block.len()));
        out.extend_from_slice(held);
        out.resize(block.end, 0);
        rest = after;
    }
    out
}

/// Bytes on the drive of one shard of a blob.
pub fn shard_bytes(size_bytes: u64, stripe_bytes: u32, k: usize) -> u64 {
    let stripe = u64::from(stripe_bytes.max(1));
    let full = framed_bytes(piece_bytes(stripe as usize, k)) as u64;
    let rest = (size_bytes % stripe) as usize;
    size_bytes / stripe * full + framed_bytes(piece_bytes(rest, k)) as u64
}

/// Finds the blocks that hold `wanted` of the piece of stripe `stripe`, whose stripe has `data_bytes`.
pub fn place(blob: &Blob, stripe: u64, data_bytes: usize, wanted: Range<usize>) -> Place {
    let k = usize::from(blob.k.max(1));
    let full = piece_bytes(blob.stripe_bytes as usize, k);
    let piece = piece_bytes(data_bytes, k);
    let first = wanted.start / BLOCK_BYTES;
    let last = wanted.end.min(piece).div_ceil(BLOCK_BYTES).max(first);
    let in_piece = first * BLOCK_BYTES..(last * BLOCK_BYTES).min(piece);
    let start = stripe * framed_bytes(full) as u64 + (first * (BLOCK_BYTES + CHECKSUM_BYTES)) as u64;
    Place {
        first_block: stripe * full.div_ceil(BLOCK_BYTES) as u64 + first as u64,
        on_drive: start..start + (in_piece.len() + (last - first) * CHECKSUM_BYTES) as u64,
        in_piece,
    }
}

impl Shard {
    /// Fills in the checksums of a piece (or whole blocks of one) that is [laid out](laid_out).
    pub fn seal(self, first_block: u64, framed: &mut [u8]) {
        for (block, framed) in (first_block..).zip(framed.chunks_mut(CHECKSUM_BYTES + BLOCK_BYTES)) {
            let (checksum, bytes) = framed.split_at_mut(CHECKSUM_BYTES);
            checksum.copy_from_slice(&self.checksum(block, bytes).to_le_bytes());
        }
    }

    /// The verified blocks of what a drive gave for `place`, without copying.
    ///
    /// # Errors
    /// [`Corrupt`] names the first block that is too short or fails its checksum; nothing is believed.
    pub fn verify(self, place: &Place, framed: &Bytes) -> Result<Vec<Bytes>, Corrupt> {
        let mut blocks = Vec::with_capacity(place.in_piece.len().div_ceil(BLOCK_BYTES));
        let (mut at, mut left) = (0, place.in_piece.len());
        let mut block = place.first_block;
        while left > 0 {
            let corrupt = Corrupt { blob: self.blob, shard: self.index, block };
            let body = at + CHECKSUM_BYTES;
            let len = left.min(BLOCK_BYTES);
            let expected =
                framed.get(at..body).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes).ok_or(corrupt)?;
            let bytes = framed.get(body..body + len).ok_or(corrupt)?;
            if self.checksum(block, bytes) != expected {
                return Err(corrupt);
            }
            blocks.push(framed.slice(body..body + len));
            (at, left, block) = (body + len, left - len, block + 1);
        }
        match framed.len() == at {
            true => Ok(blocks),
            false => Err(Corrupt { blob: self.blob, shard: self.index, block }),
        }
    }

    fn checksum(self, block: u64, bytes: &[u8]) -> u64 {
        let mut binding = [0u8; 25];
        binding[..16].copy_from_slice(self.blob.as_bytes());
        binding[16] = self.index;
        binding[17..].copy_from_slice(&block.to_le_bytes());
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        digest.update(&binding);
        digest.update(bytes);
        digest.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Fields;
    use proptest::prelude::*;

    fn blob(size_bytes: u64, stripe_bytes: u32, k: u8) -> Blob {
        Blob { id: Uuid::from_u128(7), size_bytes, k, m: 1, first: 0, stripe_bytes, unknown: Fields::default() }
    }

    /// Appends a piece as it stands on the drive.
    fn frame(shard: Shard, first_block: u64, piece: &[u8], out: &mut Vec<u8>) {
        let mut framed = laid_out(piece.len(), piece);
        shard.seal(first_block, &mut framed);
        out.extend(framed);
    }

    #[test]
    fn a_flip_anywhere_and_any_truncation_is_detected() {
        let shard = Shard { blob: Uuid::from_u128(7), index: 2 };
        let piece: Vec<u8> = (0..BLOCK_BYTES + 300).map(|i| (i * 7) as u8).collect();
        let mut framed = Vec::new();
        frame(shard, 5, &piece, &mut framed);
        let place = Place { first_block: 5, on_drive: 0..framed.len() as u64, in_piece: 0..piece.len() };
        assert_eq!(shard.verify(&place, &framed.clone().into()).unwrap().concat(), piece);
        let end = framed.len();
        for at in (0..end).step_by(97).chain([0, 7, 8, BLOCK_BYTES + 8, end - 1]) {
            for bit in [0x01, 0x80] {
                let mut bad = framed.clone();
                bad[at] ^= bit;
                assert!(shard.verify(&place, &bad.into()).is_err(), "flip at {at}");
            }
        }
        for cut in [0, 7, 8, BLOCK_BYTES, end - 1] {
            assert!(shard.verify(&place, &framed[..cut].to_vec().into()).is_err(), "cut at {cut}");
        }
        framed.push(0);
        assert!(shard.verify(&place, &framed.into()).is_err(), "a tail");
    }

    #[test]
    fn a_block_in_the_place_of_another_is_detected() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut framed = Vec::new();
        frame(Shard { blob: a, index: 0 }, 3, b"the same bytes", &mut framed);
        let framed = Bytes::from(framed);
        let at = |first_block| Place { first_block, on_drive: 0..framed.len() as u64, in_piece: 0..14 };
        assert!(Shard { blob: a, index: 0 }.verify(&at(3), &framed).is_ok());
        assert!(Shard { blob: a, index: 0 }.verify(&at(4), &framed).is_err(), "another block");
        assert!(Shard { blob: a, index: 1 }.verify(&at(3), &framed).is_err(), "another shard");
        assert!(Shard { blob: b, index: 0 }.verify(&at(3), &framed).is_err(), "another file");
    }

    #[test]
    fn the_frame_stays_as_it_was_first_written() {
        let mut framed = Vec::new();
        frame(Shard { blob: Uuid::from_u128(0x0102_0304), index: 3 }, 9, b"isthmus", &mut framed);
        let checksum = [28, 213, 87, 160, 214, 4, 157, 76];
        assert_eq!(framed, [&checksum[..], b"isthmus"].concat());
    }

    proptest! {
        #[test]
        fn every_range_of_every_stripe_is_found_on_the_drive(
            size in 1u64..900_000, stripe_bytes in 1u32..400_000, k in 1u8..5, a in any::<u32>(), b in any::<u32>(),
        ) {
            let blob = blob(size, stripe_bytes, k);
            let shard = Shard { blob: blob.id, index: 0 };
            // The shard as a writer makes it, with pieces that tell their stripe.
            let (mut on_drive, mut pieces) = (Vec::new(), Vec::new());
            let mut next_block = 0;
            for slice in super::super::stripe::slices(&blob, 0..size).take(40) {
                let len = piece_bytes(slice.data_bytes, k.into());
                let piece: Vec<u8> = (0..len).map(|i| (i as u64 * 31 + slice.stripe) as u8).collect();
                frame(shard, next_block, &piece, &mut on_drive);
                next_block += len.div_ceil(BLOCK_BYTES) as u64;
                pieces.push((slice, piece));
            }
            let (slice, piece) = &pieces[a as usize % pieces.len()];
            let (x, y) = (a as usize % (piece.len() + 1), b as usize % (piece.len() + 1));
            let wanted = x.min(y)..x.max(y);
            let place = place(&blob, slice.stripe, slice.data_bytes, wanted.clone());
            let framed = Bytes::copy_from_slice(&on_drive[place.on_drive.start as usize..place.on_drive.end as usize]);
            let got = shard.verify(&place, &framed).unwrap().concat();
            prop_assert_eq!(&got, &piece[place.in_piece.clone()]);
            prop_assert!(wanted.is_empty() || (place.in_piece.start <= wanted.start && place.in_piece.end >= wanted.end));
            if (pieces.len() as u64) == size.div_ceil(u64::from(stripe_bytes)) {
                prop_assert_eq!(shard_bytes(size, stripe_bytes, k.into()), on_drive.len() as u64);
            }
        }
    }
}
