//! What is pending, counted as it changes: the source of every lag and backlog figure of a link.
//!
//! Never walks anything and never guesses: a change is added when it is taken in (or made a row) and
//! removed when it is durable at the peer. Called by `machine` for changes and by `retry` for rows.
use super::Millis;
use std::collections::BTreeMap;

/// A multiset of pending changes by commit time.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    since: BTreeMap<Millis, usize>,
    pub(super) versions: u64,
    pub(super) bytes: u64,
}

impl Pending {
    /// Counts a change committed at `since` in.
    pub(super) fn add(&mut self, since: Millis, bytes: u64) {
        *self.since.entry(since).or_default() += 1;
        self.versions += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Counts it out again; it was added with the same figures.
    pub(super) fn remove(&mut self, since: Millis, bytes: u64) {
        let left = self.since.get_mut(&since).expect("only what was added is removed");
        *left -= 1;
        if *left == 0 {
            self.since.remove(&since);
        }
        self.versions -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Commit time of the oldest pending change.
    pub(super) fn oldest(&self) -> Option<Millis> {
        self.since.keys().next().copied()
    }
}

/// The earlier of two times of which either may be unknown.
pub(super) fn earliest(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
