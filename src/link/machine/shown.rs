//! What a link shows of itself; changes nothing. Called by the shell and by the machine's record.
use crate::link::lag::{Pending, earliest};
use crate::link::planted::{self, Planted};
use crate::link::{Held, Link, Millis, Shown, Survey, scope};
use storage_engine::feed::Cursor;
use storage_engine::version::Version;

impl Link {
    /// Where the feed was read up to: what lies behind it only the store can count.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.progress.taken()
    }

    /// Every change before it is at the peer or a row.
    pub fn place(&self) -> Option<Cursor> {
        self.progress.cursor()
    }

    /// Where the pass over existing versions stands, while it has something to read.
    pub fn survey(&self) -> Option<Survey> {
        self.existing.survey()
    }

    /// What was in the bucket when it was seen that it had been made again is left where it is: the generation of the rule
    /// then. `None`: nothing is.
    pub fn remade(&self) -> Option<u64> {
        self.existing.remade()
    }

    /// Whether a record as it is now travels on this link.
    pub fn includes(&self, version: &Version) -> bool {
        scope::includes(&self.settings, version)
    }

    /// What it sends nothing of now, whatever waits.
    pub fn held(&self) -> Held {
        let is_all = self.settings.suspend || self.is_draining;
        Held { all: is_all, deletes: is_all || self.brake.engaged_at().is_some() }
    }

    /// What to show of the link. Changes behind [`Link::cursor`] are not in it: the store's backlog is
    /// added to it by the shell.
    pub fn shown(&self, now: Millis) -> Shown {
        let rows = if planted::has(Planted::LagWithoutRows) { &Pending::default() } else { &self.rows.pending };
        let (braked, _) = self.brake.held();
        Shown {
            state: self.state(now),
            oldest_pending: earliest(self.oldest_taken_in(), rows.oldest()),
            pending_versions: self.pending.versions + self.existing.pending.versions + rows.versions + braked,
            pending_bytes: self.pending.bytes.saturating_add(self.existing.pending.bytes).saturating_add(rows.bytes),
            existing_versions: self.existing.pending.versions,
            existing_bytes: self.existing.pending.bytes,
            retry_versions: self.rows.retrying(),
            parked_versions: self.rows.parked(),
            parked_by: self.rows.parked_by().clone(),
            clock_ahead_versions: self.rows.clock_ahead(),
            braked_versions: braked,
            braked_since: self.brake.engaged_at(),
            in_flight: self.flights.len() as u64,
            copies_since: self.existing.since(),
            compares: self.existing.is_comparing(),
            last_error: self.last_error.clone(),
        }
    }

    fn state(&self, now: Millis) -> &'static str {
        match () {
            () if self.is_stopped => "stopped",
            () if self.settings.suspend => "suspended",
            () if !self.is_peer_up || now < self.paused_until => "peer_down",
            () if self.brake.engaged_at().is_some() => "braked",
            () if !self.is_caught_up => "catching_up",
            () => "live",
        }
    }

    /// Commit time of the oldest change taken in and neither at the peer nor a row: what the brake holds included.
    pub(super) fn oldest_taken_in(&self) -> Option<Millis> {
        let (_, held) = self.brake.held();
        earliest(earliest(self.pending.oldest(), self.existing.pending.oldest()), held)
    }
}
