//! How a coordinator counts the replies to one write: commit protocol, rules 10 to 12 and 15. Pure.
//!
//! A [`Tally`] belongs to one question (an accept, an abort, a join) asked in one epoch of every
//! drive. It never adds replies of two epochs and never counts a drive twice.
use super::Quorum;
use super::participant::{Reply, Verdict};
use crate::version::Ballot;

/// What is known of a question so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Neither yes nor no yet.
    Open,
    /// A write quorum holds it, durably.
    Held,
    /// Enough drives refused for ever that no write quorum can come about. A ballot above `max` may pass.
    Denied { max: Ballot },
    /// This question can no longer be answered; what became of it is unknown.
    Unknown,
}

/// Replies to one question, one voice per drive.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    quorum: Quorum,
    epoch: u64,
    held: u64,
    denied: u64,
    silent: u64,
    /// GONE, tombstoned, guarded, or another epoch: neither a hold nor a denial may be concluded (rule 11).
    broken: bool,
    max: Ballot,
}

impl Tally {
    /// A question asked in `epoch` with nothing answered yet.
    pub fn new(quorum: Quorum, epoch: u64) -> Self {
        Tally { quorum, epoch, held: 0, denied: 0, silent: 0, broken: false, max: Ballot::ZERO }
    }

    /// Counts the reply of the drive in `slot`; `None`: it gave none and will give none.
    pub fn reply(&mut self, slot: usize, reply: Option<&Reply>) -> Progress {
        let voice = 1u64 << slot;
        let Some(reply) = reply else {
            self.silent |= voice;
            return self.progress();
        };
        match &reply.verdict {
            Verdict::Epoch { .. } => self.broken = true,
            _ if reply.epoch != self.epoch => self.broken = true,
            Verdict::Ok | Verdict::Held { acked: _ } | Verdict::State(_) => self.held |= voice,
            Verdict::Stale { max } => {
                self.max = self.max.max(*max);
                self.deny(voice, reply.voting);
            }
            Verdict::Aborted | Verdict::Denied => self.deny(voice, reply.voting),
            Verdict::Gone | Verdict::Tombstoned | Verdict::Guarded => self.broken = true,
        }
        self.progress()
    }

    fn deny(&mut self, voice: u64, voting: bool) {
        if voting {
            self.denied |= voice;
        } else {
            self.silent |= voice;
        }
    }

    /// Where the question stands.
    pub fn progress(&self) -> Progress {
        let count = |voices: u64| voices.count_ones() as usize;
        if count(self.held) >= self.quorum.write() {
            return Progress::Held;
        }
        if self.broken {
            return Progress::Unknown;
        }
        if count(self.denied) >= self.quorum.read() {
            return Progress::Denied { max: self.max };
        }
        let open = self.quorum.n - count(self.held | self.denied | self.silent);
        let can_hold = count(self.held) + open >= self.quorum.write();
        let can_deny = count(self.denied) + open >= self.quorum.read();
        if can_hold || can_deny { Progress::Open } else { Progress::Unknown }
    }

    /// Whether the drive in `slot` refused: it will need the record by insert once that is decided.
    pub fn refused(&self, slot: usize) -> bool {
        self.denied & (1 << slot) != 0
    }
    /// Drives that hold it.
    pub fn holders(&self) -> usize {
        self.held.count_ones() as usize
    }
    /// The greatest ballot a refusal named.
    pub fn max(&self) -> Ballot {
        self.max
    }
}
