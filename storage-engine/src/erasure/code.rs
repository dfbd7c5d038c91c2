//! The Reed-Solomon code: k data shards to m parity shards and back. Pure; knows no stripe, blob or drive.
//!
//! The matrix is the one of the `reed-solomon-erasure` crate (Vandermonde, made systematic, over
//! GF(2^8)/0x11d). It belongs to the format on the drives: shards written today are read with any
//! coder that builds this matrix, and the golden vectors below hold every coder to it. Called by
//! `erasure/stripe.rs`.
use rusty_erasure::{Coder, coder, compat};

/// Most shards of a stripe; a set has at most 16 drives (`storage-engine/README.md`, sets).
pub const SHARDS_MAX: usize = 32;

/// Why a code or a decode is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such code: k is 0 or there are more than [`SHARDS_MAX`] shards.
    #[error("no code with {k} data and {m} parity shards")]
    Impossible { k: usize, m: usize },
    /// The shards are not k + m of one length.
    #[error("shards of unequal length or wrong number")]
    Shape,
    /// Fewer than k shards are there.
    #[error("{have} shards of {k} needed")]
    TooFew { have: usize, k: usize },
}

/// A code of k data and m parity shards; building one takes microseconds.
#[derive(Clone, Debug)]
pub struct Code {
    k: usize,
    m: usize,
    /// Absent for m = 0: there is nothing to compute.
    coder: Option<Coder>,
}

impl Code {
    /// The code of `k` data and `m` parity shards.
    ///
    /// # Errors
    /// [`Error::Impossible`]: the numbers come from a damaged or foreign record.
    pub fn new(k: usize, m: usize) -> Result<Self, Error> {
        let impossible = Error::Impossible { k, m };
        if k == 0 || k.saturating_add(m) > SHARDS_MAX {
            return Err(impossible);
        }
        let coder = match m {
            0 => None,
            _ => {
                let matrix = compat::reed_solomon_erasure_matrix(k, m).map_err(|_| impossible)?;
                Some(coder(matrix).map_err(|_| impossible)?)
            }
        };
        Ok(Code { k, m, coder })
    }
    /// Data shards.
    pub fn k(&self) -> usize {
        self.k
    }
    /// Parity shards.
    pub fn m(&self) -> usize {
        self.m
    }
    /// Data and parity shards.
    pub fn shards(&self) -> usize {
        self.k + self.m
    }

    /// Computes the parity of k pieces of data of one length; `parity` is overwritten.
    ///
    /// # Errors
    /// [`Error::Shape`] when the numbers or lengths do not fit, or there are no bytes.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), Error> {
        let bytes = data.first().map_or(0, |piece| piece.len());
        let counts = data.len() == self.k && parity.len() == self.m;
        if bytes == 0 || !counts || data.iter().any(|p| p.len() != bytes) || parity.iter().any(|p| p.len() != bytes) {
            return Err(Error::Shape);
        }
        let Some(coder) = &self.coder else { return Ok(()) };
        coder.encode(data, parity).map_err(|_| Error::Shape)
    }

    /// Rebuilds the shards named in `wanted` from any k present ones.
    ///
    /// # Errors
    /// [`Error::TooFew`] when fewer than k are present, [`Error::Shape`] when lengths differ.
    pub fn rebuild(&self, shards: &[Option<&[u8]>], wanted: &[usize]) -> Result<Vec<Vec<u8>>, Error> {
        let have = shards.iter().flatten().count();
        if have < self.k {
            return Err(Error::TooFew { have, k: self.k });
        }
        let shard_bytes = shards.iter().flatten().next().map_or(0, |s| s.len());
        if shards.len() != self.shards() || shard_bytes == 0 || shards.iter().flatten().any(|s| s.len() != shard_bytes)
        {
            return Err(Error::Shape);
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        // With m = 0 all shards are data and present, so nothing can be wanted that is not there.
        let Some(coder) = &self.coder else { return Err(Error::Shape) };
        let mut out = vec![vec![0u8; shard_bytes]; wanted.len()];
        let mut into: Vec<&mut [u8]> = out.iter_mut().map(Vec::as_mut_slice).collect();
        coder.recover(shards, wanted, &mut into).map_err(|_| Error::Shape)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reed_solomon_erasure::galois_8::ReedSolomon;

    fn bytes(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_u32;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    }

    /// Codes shards that stand one after another, data first.
    fn encode(code: &Code, shards: &mut [u8], shard_bytes: usize) -> Result<(), Error> {
        let (data, parity) = shards.split_at_mut(code.k() * shard_bytes);
        let data: Vec<&[u8]> = data.chunks_exact(shard_bytes).collect();
        let mut parity: Vec<&mut [u8]> = parity.chunks_exact_mut(shard_bytes).collect();
        code.encode(&data, &mut parity)
    }

    #[test]
    fn parity_is_byte_identical_to_the_reference_coder() {
        for (k, m) in [(1, 1), (2, 2), (4, 4), (8, 4), (12, 4), (3, 2), (5, 3)] {
            for shard_bytes in [1, 31, 64, 4096, 4113] {
                let mut ours = bytes(k * shard_bytes);
                ours.resize((k + m) * shard_bytes, 0xee);
                let mut theirs: Vec<Vec<u8>> = ours.chunks(shard_bytes).map(<[u8]>::to_vec).collect();
                ReedSolomon::new(k, m).unwrap().encode(&mut theirs).unwrap();
                encode(&Code::new(k, m).unwrap(), &mut ours, shard_bytes).unwrap();
                assert_eq!(ours, theirs.concat(), "{k}+{m} of {shard_bytes} bytes");
            }
        }
    }

    /// Computed by a separate implementation straight from the definition of the matrix.
    /// They are the format: a change here means that old data can no longer be read.
    #[test]
    fn golden_parity_stays() {
        let golden: [(usize, usize, &[u8]); 4] =
            [(1, 1, &GOLDEN_1_1), (2, 2, &GOLDEN_2_2), (4, 4, &GOLDEN_4_4), (8, 4, &GOLDEN_8_4)];
        for (k, m, parity) in golden {
            let mut shards: Vec<u8> = (0..4 * k).map(|i| (i * i * 37 + 11) as u8).collect();
            shards.resize((k + m) * 4, 0);
            encode(&Code::new(k, m).unwrap(), &mut shards, 4).unwrap();
            assert_eq!(&shards[k * 4..], parity, "{k}+{m}");
        }
    }
    const GOLDEN_1_1: [u8; 4] = [11, 48, 159, 88];
    const GOLDEN_2_2: [u8; 8] = [171, 29, 194, 168, 251, 133, 98, 208];
    const GOLDEN_4_4: [u8; 16] = [151, 36, 94, 182, 125, 124, 217, 147, 153, 201, 202, 65, 179, 177, 205, 4];
    const GOLDEN_8_4: [u8; 16] = [66, 136, 129, 142, 252, 101, 208, 172, 150, 159, 189, 154, 232, 116, 108, 49];

    #[test]
    fn impossible_codes_and_shapes_are_refused() {
        assert!(Code::new(0, 4).is_err());
        assert!(Code::new(30, 30).is_err());
        let code = Code::new(2, 1).unwrap();
        assert_eq!(code.encode(&[&[0; 2], &[0; 1]], &mut [&mut [0; 2]]), Err(Error::Shape), "of different lengths");
        assert_eq!(code.encode(&[&[0; 2]], &mut [&mut [0; 2]]), Err(Error::Shape), "too few");
        assert_eq!(code.encode(&[&[], &[]], &mut [&mut []]), Err(Error::Shape), "no bytes");
        assert_eq!(code.rebuild(&[Some(&[1]), None, None], &[1]), Err(Error::TooFew { have: 1, k: 2 }));
        assert_eq!(code.rebuild(&[Some(&[1]), Some(&[1, 2]), None], &[2]), Err(Error::Shape));
        assert!(Code::new(1, 0).unwrap().encode(&[&[7; 3]], &mut []).is_ok());
    }
}
