//! What a peer's build can do beside taking versions, as it says in its Hello. A peer of an earlier build lacks some.
use crate::peer::frame::{BUCKETS, CONTENTS, DRILLS, LIVE_DRILLS, ONE_WAY_DRILLS, PIECES, READS, RECONCILES};

/// Which drills a peer takes part in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drilling {
    pub any: bool,
    /// With cuts in one direction.
    pub one_way: bool,
    /// Of live rules.
    pub live: bool,
}

impl Drilling {
    /// What a peer of an earlier build takes no part in.
    pub const ONE_WAY: &str = "drills with a cut in one direction";
    pub const LIVE: &str = "live drills";
}

/// Abilities of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    /// It answers questions about ranges of keys.
    pub(super) reconciles: bool,
    /// It answers questions about its buckets.
    pub(super) tells_of_buckets: bool,
    /// It takes large versions in pieces.
    pub(super) takes_pieces: bool,
    /// It lends versions that are not here yet.
    pub(super) lends: bool,
    /// The drills it takes part in.
    pub(super) drills: Drilling,
    /// It reads bytes that it holds, to tell their hash.
    pub(super) tells_of_contents: bool,
}

impl Abilities {
    /// Those it lacks that every build of today has.
    pub(super) fn lacks(&self) -> Vec<&'static str> {
        let all = [
            (self.reconciles, "comparisons"),
            (self.tells_of_buckets, "telling of its buckets"),
            (self.takes_pieces, "large versions in pieces"),
            (self.lends, "reads for a peer"),
            (self.tells_of_contents, "comparisons of contents"),
        ];
        all.into_iter().filter(|(has, _)| !has).map(|(_, what)| what).collect()
    }

    /// Those named in a Hello; others are passed over.
    pub(super) fn of(features: &[String]) -> Self {
        let says = |ability: &str| features.iter().any(|f| f == ability);
        Abilities {
            reconciles: says(RECONCILES),
            tells_of_buckets: says(BUCKETS),
            takes_pieces: says(PIECES),
            lends: says(READS),
            drills: Drilling { any: says(DRILLS), one_way: says(ONE_WAY_DRILLS), live: says(LIVE_DRILLS) },
            tells_of_contents: says(CONTENTS),
        }
    }
}
