//! Bugs planted on purpose, to prove that the simulator finds such bugs. Compiled in only with the
//! feature `planted-bugs`, and then off until a test switches one on.

/// One planted bug of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A change that failed makes no row: the cursor passes it all the same.
    CursorPastFailed,
    /// The floor ignores rows.
    FloorFromCursor,
    /// What is in flight when the peer goes down becomes rows.
    RowForDownPeer,
    /// After a break the feed is read on from where it was, not from what is settled.
    NoRewind,
    /// Replicas are sent on as if they were born here.
    ReplicaResentAsOwn,
    /// Rows do not count as lag.
    LagWithoutRows,
    /// A version ahead of the peer's clock is treated like a refused one.
    ClockAheadParked,
}

impl super::Link {
    /// Switches a planted bug on.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, bug: Planted) {
        self.planted = Some(bug);
    }
    #[cfg(feature = "planted-bugs")]
    pub(super) fn has_planted(&self, bug: Planted) -> bool {
        self.planted == Some(bug)
    }
    #[cfg(not(feature = "planted-bugs"))]
    pub(super) const fn has_planted(&self, _: Planted) -> bool {
        false
    }
}
