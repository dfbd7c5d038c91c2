//! Pushes: what may go now takes off, and its answer lands it as done, as a row, or back in the queue. Decides nothing
//! of what is read.
use crate::link::brake::is_delete;
use crate::link::planted::{self, Planted};
use crate::link::retry::{CLOCK_AHEAD, ROWS_MAX, RowId};
use crate::link::scope::{self, Item};
use crate::link::{Action, Failure, Link, Millis, Outcome, PushId, Reason, Settings, Why};

/// Pause after a push said that the peer is gone, unless `PeerDown` comes first as it should.
const PEER_GONE_PAUSE_MS: Millis = 1_000;

/// One push without an answer yet.
#[derive(Debug)]
pub(in crate::link) struct Flight {
    key: String,
    weight: u64,
    pub(in crate::link) load: Load,
}

#[derive(Debug)]
pub(in crate::link) enum Load {
    Change(Item),
    Row(RowId),
}

impl Flight {
    fn is_row(&self) -> bool {
        matches!(self.load, Load::Row(_))
    }
    fn is_existing(&self) -> bool {
        matches!(&self.load, Load::Change(item) if item.is_existing())
    }
}

impl Link {
    /// Rows that are due go before changes, but take at most half of the window from them.
    pub(super) fn push_rows(&mut self, now: Millis, out: &mut Vec<Action>) {
        let most = (self.settings.window_versions / 2).max(1).saturating_sub(self.flying_rows);
        for id in self.rows.due(now, most) {
            let weight = scope::weight(self.rows.get(&id).map_or(0, |r| r.bytes));
            if self.pacer.ready_at() > now || !self.has_room(weight) {
                return;
            }
            if self.queue.take_off(&id.0) {
                self.rows.take_off(&id);
                let (key, version_id) = id.clone();
                let row = self.rows.get(&id).map(|row| (row.pending_since, row.traceparent.clone()));
                let (pending_since, traceparent) = row.unwrap_or((now, None));
                let id = self.fly(now, Flight { key: key.clone(), weight, load: Load::Row(id) });
                out.push(Action::PushRow { id, key, version_id, pending_since, traceparent });
            }
        }
    }

    pub(super) fn push_changes(&mut self, now: Millis, out: &mut Vec<Action>) {
        while let Some(next) = self.queue.peek() {
            let weight = scope::weight(next.bytes());
            // In commit order nothing overtakes a version that will go again by itself.
            let waits_for_row = self.settings.commit_order && self.rows.retrying() > 0;
            if next.is_existing() && self.existing.flying >= (self.settings.window_versions / 2).max(1) {
                return;
            }
            let waits_for_count = self.is_counting && is_delete(&next.change.version);
            if waits_for_count
                || waits_for_row
                || self.rows.len() >= ROWS_MAX
                || self.pacer.ready_at() > now
                || !self.has_room(weight)
            {
                return;
            }
            let item = self.queue.pop().expect("it was just seen");
            if self.settings.by_arrival && self.rows.has_other_of_key(item.key(), item.change.version.id) {
                self.hold_back(now, item);
                continue;
            }
            let change = item.change.clone();
            let id = self.fly(now, Flight { key: item.key().to_string(), weight, load: Load::Change(item) });
            out.push(Action::Push { id, change });
        }
    }

    /// An older version of its key has failed: it waits as a row, so that it holds back nothing but its key.
    fn hold_back(&mut self, now: Millis, item: Item) {
        let row = (item.key().to_string(), item.change.version.id);
        self.brake_lands(&item, false);
        self.make_row(&row, &item);
        self.progress_of(item.batch).finish(item.batch);
        self.rows.wait(&row, now);
        self.land_key(&row.0, None);
    }

    fn has_room(&self, weight: u64) -> bool {
        let Settings { window_versions, window_bytes, commit_order, .. } = self.settings;
        let fits = || {
            self.flights.len() < window_versions
                && self.flying_bytes.saturating_add(scope::room(weight)) <= window_bytes
        };
        self.flights.is_empty() || (!commit_order && fits())
    }

    fn fly(&mut self, now: Millis, flight: Flight) -> PushId {
        let id = self.next_push;
        self.next_push += 1;
        self.flying_bytes += scope::room(flight.weight);
        self.flying_rows += usize::from(flight.is_row());
        self.existing.flying += usize::from(flight.is_existing());
        self.pacer.spend(now, flight.weight, self.settings.bandwidth);
        self.flights.insert(id, flight);
        id
    }

    pub(super) fn on_pushed(&mut self, id: PushId, outcome: Outcome, out: &mut Vec<Action>) {
        let Some(flight) = self.land(id) else { return };
        self.land_key(&flight.key, None);
        let (row, done) = match flight.load {
            Load::Change(item) => {
                let (since, bytes) = (item.change.pending_since, item.bytes());
                self.pending_of(&item).remove(since, bytes);
                self.brake_lands(&item, outcome == Outcome::Applied);
                self.progress_of(item.batch).finish(item.batch);
                ((flight.key, item.change.version.id), Some((since, bytes)))
            }
            Load::Row(row) => (row, None),
        };
        // A change carries all that is held of its version, so its row is done with it.
        let row = self.rows.remove(&row).map(|entry| {
            self.progress_of(entry.place).release(entry.place);
            (entry.row.pending_since, entry.row.bytes)
        });
        if let Some((pending_since, bytes)) = done.or(row) {
            out.push(Action::Done { outcome, pending_since, bytes });
        }
        if self.rows.len() == 0 {
            self.last_error = None;
        }
    }

    pub(super) fn on_failed(&mut self, now: Millis, id: PushId, failure: Failure) {
        let Some(flight) = self.land(id) else { return };
        if failure == Failure::PeerGone {
            self.paused_until = now.saturating_add(PEER_GONE_PAUSE_MS);
            let back = match flight.load {
                Load::Change(item) => Some(item),
                Load::Row(row) => {
                    self.rows.land(&row);
                    None
                }
            };
            self.land_key(&flight.key, back);
            return;
        }
        self.land_key(&flight.key, None);
        let failure = match failure {
            Failure::ClockAhead { .. } if planted::has(Planted::ClockAheadParked) => {
                Failure::Refused(Why::new(Reason::ClockAhead, CLOCK_AHEAD))
            }
            other => other,
        };
        let row = match flight.load {
            Load::Change(item) => {
                let row = (flight.key, item.change.version.id);
                // Read again after a cut it fails again, and is still one.
                let is_first = self.rows.get(&row).is_none();
                self.brake_lands(&item, is_first);
                self.make_row(&row, &item);
                self.progress_of(item.batch).finish(item.batch);
                row
            }
            Load::Row(row) => row,
        };
        self.rows.fail(&row, now, self.seed, &failure);
        self.last_error = self.rows.get(&row).map(|r| r.last_error.clone());
    }

    /// Before its batch is finished: the cursor may pass a change only with its row.
    fn make_row(&mut self, row: &RowId, item: &Item) {
        let (since, bytes) = (item.change.pending_since, item.bytes());
        let traceparent = item.change.traceparent.clone();
        self.pending_of(item).remove(since, bytes);
        if planted::has(Planted::CursorPastFailed) {
            return;
        }
        if self.rows.get(row).is_some() {
            self.rows.merge(row, (since, bytes, traceparent));
        } else {
            let floor = self.progress_of(item.batch).hold(item.batch);
            self.rows.make(row.clone(), (since, bytes, traceparent), item.batch, floor);
        }
    }

    /// A delete that was taken in waits no more.
    fn brake_lands(&mut self, item: &Item, counts: bool) {
        if let Some(terms) = self.settings.brake.as_ref().filter(|_| !item.is_existing())
            && is_delete(&item.change.version)
        {
            self.brake.land(terms, &item.change, counts);
        }
    }

    fn land_key(&mut self, key: &str, back: Option<Item>) {
        self.queue.land(key, back, self.settings.by_arrival);
    }

    /// Takes a push out of flight; `None`: it was forgotten before.
    fn land(&mut self, id: PushId) -> Option<Flight> {
        let flight = self.flights.remove(&id)?;
        self.flying_bytes -= scope::room(flight.weight);
        self.flying_rows -= usize::from(flight.is_row());
        self.existing.flying -= usize::from(flight.is_existing());
        Some(flight)
    }
}
