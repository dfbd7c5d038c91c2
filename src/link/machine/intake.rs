//! What is taken in of the feed and of a pass over existing versions, and whether more of it is read. Pushes nothing.
use crate::link::brake::{Verdict, is_delete};
use crate::link::existing::FIRST_PLACE;
use crate::link::planted::{self, Planted};
use crate::link::retry::ROWS_MAX;
use crate::link::scope::{self, Item};
use crate::link::{Action, Change, Link};
use storage_engine::feed::Cursor;
use storage_engine::version::Version;

/// Versions taken in and not yet at the peer, as a multiple of the window: enough to keep the window
/// full while the feed is read, and a bound on memory.
const INTAKE_WINDOWS: usize = 4;

impl Link {
    pub(super) fn take_in(&mut self, changes: Vec<Change>, cursor: Cursor, out: &mut Vec<Action>) {
        if !self.is_open() {
            // The reader was ahead of us: what it read is not kept, so it must be read again.
            self.is_reading = true;
            self.rewind(out);
            return;
        }
        let newest = changes.iter().map(|c| c.pending_since).max().unwrap_or(0);
        let all = planted::has(Planted::ReplicaResentAsOwn);
        let mut wanted: Vec<Change> =
            changes.into_iter().filter(|c| all || scope::includes(&self.settings, &c.version)).collect();
        let (before, _) = self.brake.held();
        if let Some(terms) = &self.settings.brake {
            wanted.retain(|c| !is_delete(&c.version) || self.brake.judge(terms, c) == Verdict::Goes);
        }
        // The first batch with a held delete stays unfinished until a release: no cursor passes it.
        let holds = usize::from(before == 0 && self.brake.held().0 > 0 && !planted::has(Planted::CursorPastBraked));
        let batch = self.progress.take_in(cursor, wanted.len() + holds, newest);
        for change in wanted {
            let item = Item { change, batch, ticket: self.next_ticket };
            self.next_ticket += 1;
            self.pending.add(item.change.pending_since, item.bytes());
            self.queue.push(item, self.settings.by_arrival);
        }
    }

    /// Takes in what a pass found; what came after it was told to stop is read again.
    pub(super) fn take_in_existing(&mut self, changes: Vec<Change>, cursor: Cursor, is_last: bool) {
        if !self.existing.is_reading() || !self.is_open() {
            return;
        }
        let newest = changes.iter().map(|c| c.pending_since).max().unwrap_or(0);
        let is_sent = |v: &Version| self.existing.except().is_some_and(|sent| sent.sends_whole(&self.settings, v));
        let since = self.existing.since();
        let is_left = |v: &Version| since.is_some_and(|at| v.max_hlc().millis() < at);
        let is_wanted =
            |c: &Change| scope::includes(&self.settings, &c.version) && !is_sent(&c.version) && !is_left(&c.version);
        let wanted: Vec<Change> = changes.into_iter().filter(is_wanted).collect();
        let batch = self.existing.progress.take_in(cursor, wanted.len(), newest);
        for change in wanted {
            // Behind every ticket of a live change.
            let item = Item { change, batch, ticket: FIRST_PLACE + self.next_ticket };
            self.next_ticket += 1;
            self.existing.pending.add(item.change.pending_since, item.bytes());
            self.queue.push(item, self.settings.by_arrival);
        }
        if is_last {
            self.existing.end_of_reading();
        }
    }

    /// Reads on below half of the bound, stops above it: no flapping at the edge.
    pub(super) fn set_intake(&mut self, out: &mut Vec<Action>) {
        let bound = self.settings.window_versions.max(1) * INTAKE_WINDOWS;
        // Existing versions have a bound of their own, and never keep live changes out.
        let existing = usize::try_from(self.existing.pending.versions).unwrap_or(usize::MAX);
        let load = (self.queue.len() + self.flights.len()).saturating_sub(existing);
        let has_room = if self.is_reading { load <= bound } else { load <= bound / 2 };
        let wanted = self.is_open() && has_room && self.rows.len() < ROWS_MAX && !self.recorder.is_failing();
        if wanted != self.is_reading {
            self.is_reading = wanted;
            self.is_caught_up = false;
            out.push(Action::Intake(wanted));
        }
    }

    /// Reads for a pass as long as no more than a window of it waits.
    pub(super) fn set_survey(&mut self, out: &mut Vec<Action>) {
        let bound = self.settings.window_versions.max(1) as u64;
        let waits = self.existing.pending.versions;
        let has_room = if self.existing.is_reading() { waits <= bound } else { waits <= bound / 2 };
        // Among what a comparison finds are the deletes the brake holds.
        let is_braked = self.existing.is_comparing() && self.brake.engaged_at().is_some();
        let may_read =
            self.is_open() && !is_braked && has_room && self.rows.len() < ROWS_MAX && !self.recorder.is_failing();
        out.extend(self.existing.steer(may_read).map(Action::Existing));
    }
}
