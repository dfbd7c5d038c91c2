//! When an answer is an answer: the pure state machine of the commit protocol. No I/O, clock or dice.
//!
//! `participant` is what a drive decides alone; `writer` and `reader` count replies. The rule numbers
//! in comments are those of the commit protocol (`storage-engine/README.md` carries the list).
pub mod participant;
pub mod reader;
pub mod writer;

/// Sizes of a set's quorums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Drives in the set.
    pub n: usize,
    /// Data shards.
    pub k: usize,
}

impl Quorum {
    /// Drives that must hold a record before it is acked: min(N, max(k+1, N/2+1)).
    pub const fn write(self) -> usize {
        let majority = self.n / 2 + 1;
        let wanted = if self.k + 1 > majority { self.k + 1 } else { majority };
        if wanted < self.n { wanted } else { self.n }
    }
    /// Replies that meet every acked record: N-W+1; also how many denials end an attempt.
    pub const fn read(self) -> usize {
        self.n - self.write() + 1
    }
}
