//! What a link knows of one version: for a person who asks where it is. Looks, and changes nothing.
//!
//! Called by the shell for `isthmus explain` and `isthmus backlog`. What a link does not hold is at the peer or
//! not read yet: only the peer and the store can tell which.
use super::machine::Load;
use super::scope::why_not;
use super::{Link, Millis, Row};
use storage_engine::version::Version;

/// Where one version stands on one link.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// Not meant for the peer, and why not.
    OutOfScope(&'static str),
    /// On its way; no answer yet.
    Flying,
    /// Taken in, and waiting for its turn since its change was committed.
    Queued { pending_since: Millis },
    /// It failed while the peer answered.
    Row(Row),
    /// Nothing of it waits here.
    NotHeld,
}

impl Link {
    /// Where `version`, as the own store holds it now, stands on this link.
    pub fn standing(&self, version: &Version) -> Standing {
        if let Some(why) = why_not(&self.settings, version) {
            return Standing::OutOfScope(why);
        }
        let id = (version.key.clone(), version.id);
        let is_it = |load: &Load| match load {
            Load::Change(item) => item.is_of(&id),
            Load::Row(row) => *row == id,
        };
        if self.flights.values().any(|flight| is_it(&flight.load)) {
            return Standing::Flying;
        }
        if let Some(item) = self.queue.of_key(&version.key).find(|item| item.is_of(&id)) {
            return Standing::Queued { pending_since: item.change.pending_since };
        }
        match self.rows.get(&id) {
            Some(row) => Standing::Row(row.clone()),
            None => Standing::NotHeld,
        }
    }

    /// Versions that failed while the peer answered, parked ones first, at most `limit`.
    pub fn rows(&self, limit: usize) -> Vec<Row> {
        self.rows.all(limit)
    }

    /// Parked versions, the newest first; at most `limit`.
    pub fn parked(&self, limit: usize) -> Vec<Row> {
        self.rows.newest_parked(limit)
    }
}
