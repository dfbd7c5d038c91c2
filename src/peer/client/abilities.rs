//! What a peer's build can do beside taking versions, as it says in its Hello. A peer of an earlier build lacks some.
use crate::peer::frame::{BUCKETS, CONTENTS, DRILLS, PIECES, READS, RECONCILES};

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
    /// It takes part in drills.
    pub(super) drills: bool,
    /// It reads bytes that it holds, to tell their hash.
    pub(super) tells_of_contents: bool,
}

impl Abilities {
    /// Those named in a Hello; others are passed over.
    pub(super) fn of(features: &[String]) -> Self {
        let says = |ability: &str| features.iter().any(|f| f == ability);
        Abilities {
            reconciles: says(RECONCILES),
            tells_of_buckets: says(BUCKETS),
            takes_pieces: says(PIECES),
            lends: says(READS),
            drills: says(DRILLS),
            tells_of_contents: says(CONTENTS),
        }
    }
}
