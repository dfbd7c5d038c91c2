//! Why a version is not at the peer: one of a few words, which metrics may carry, and a sentence for a person. Pure.
use std::fmt;

/// What kind of reason it is. Words are kept in journals and travel in frames: one is never used for another meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The peer's `inbound` does not let it in, or the peer has no Peer document for this site any more.
    Grant,
    /// The bucket is not there at the peer.
    Bucket,
    /// The far end takes no such version, however often it comes.
    Rejected,
    /// The far end cannot take it now: drives, journal, space, time.
    Unavailable,
    /// Its bytes did not arrive as they were sent.
    Digest,
    /// The own store does not give it.
    OwnStore,
    /// It is stamped too far ahead of the peer's clock.
    ClockAhead,
    /// An older version of its key goes first.
    Order,
    /// A drill cuts the link.
    Drill,
    /// A build of before did not say.
    #[default]
    Other,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 10] = [
        Reason::Grant,
        Reason::Bucket,
        Reason::Rejected,
        Reason::Unavailable,
        Reason::Digest,
        Reason::OwnStore,
        Reason::ClockAhead,
        Reason::Order,
        Reason::Drill,
        Reason::Other,
    ];
    /// Those for which a version may come to wait for a person: the others pass by themselves.
    pub const PARK: [Reason; 5] = [Reason::Grant, Reason::Bucket, Reason::Rejected, Reason::OwnStore, Reason::Other];

    /// As journals, frames and metrics have it.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Grant => "grant",
            Reason::Bucket => "bucket",
            Reason::Rejected => "rejected",
            Reason::Unavailable => "unavailable",
            Reason::Digest => "digest",
            Reason::OwnStore => "own_store",
            Reason::ClockAhead => "clock_ahead",
            Reason::Order => "order",
            Reason::Drill => "drill",
            Reason::Other => "other",
        }
    }

    /// The reason with this word; a word of a later build is [`Reason::Other`].
    pub fn of(word: &str) -> Self {
        Reason::ALL.into_iter().find(|reason| reason.word() == word).unwrap_or_default()
    }
}

/// A reason, and what a person is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub reason: Reason,
    pub said: String,
}

impl Why {
    pub fn new(reason: Reason, said: impl Into<String>) -> Self {
        Why { reason, said: said.into() }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_leads_back_to_its_reason() {
        for reason in Reason::ALL {
            assert_eq!(Reason::of(reason.word()), reason);
        }
        assert_eq!(Reason::of("quota"), Reason::Other);
    }
}
