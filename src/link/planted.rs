//! Bugs planted on purpose, to prove that the simulator finds such bugs. Compiled in only with the
//! feature `planted-bugs`, and then off until a test switches one on, for its own thread.

/// One planted bug, named after what goes wrong.
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
    /// An expired cursor goes on at the head of the feed, and nothing is compared.
    ExpiredGoesOn,
    /// A comparison takes what both sides hold for equal.
    UnlikeTakenForEqual,
    /// A widened rule sends nothing of what was there.
    WidenedSendsNothing,
    /// The cursor passes the deletes that the brake holds.
    CursorPastBraked,
    /// A suspended link goes on with what it had read.
    SuspendedGoesOn,
    /// Guards set since a version's birth do not travel.
    GuardsStayHere,
    /// A row that waits for a time far off, because the clock jumped back, goes on waiting.
    WaitsForOldClock,
    /// A parked row stays parked, whatever the peer says of a newer change of its version.
    ParkedForGood,
    /// A receiver takes versions of other sites from a peer that may bring its own only.
    ForeignOriginTaken,
    /// A receiver takes keys outside of the prefix it granted.
    PrefixOfGrantIgnored,
    /// A store's clock forgets how far it was when the store starts again.
    ClockForgotten,
    /// A store keeps no purge of a version it does not have.
    EarlyPurgeForgotten,
    /// Of the credit that is due an eighth is never given back.
    CreditLeaked,
    /// A read given up half way forgets what it had of a frame.
    HalfReadForgotten,
    /// Data frames leave without the connection's credit.
    CreditIgnored,
    /// A receiver that leaves does not wait for the acks of what it took.
    GoodbyeBeforeAcks,
    /// A body the line broke in counts as ended.
    CutBodyTakenForWhole,
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use super::Planted;
    use std::cell::Cell;

    thread_local! { static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) }; }

    /// Switches a planted bug on for this thread, or the last one off.
    pub fn plant(bug: Option<Planted>) {
        PLANTED.set(bug);
    }
    pub(crate) fn has(bug: Planted) -> bool {
        PLANTED.get() == Some(bug)
    }
}
#[cfg(feature = "planted-bugs")]
pub(crate) use switch::has;
#[cfg(feature = "planted-bugs")]
pub use switch::plant;

#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn has(_: Planted) -> bool {
    false
}
