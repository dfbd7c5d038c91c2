//! The link itself: every event changes the state, then one pass decides what follows from it.
//!
//! Invariant: every change taken in is outstanding in its batch until it is acked, a row, or forgotten
//! by a rewind of the feed to the settled cursor; so no change before a recorded cursor is lost.
use super::brake::{Brake, Call, Verdict, is_delete};
use super::existing::{Existing, FIRST_PLACE};
use super::lag::{Pending, earliest};
use super::planted::{self, Planted};
use super::progress::{LOADED, Progress};
use super::recorder::Recorder;
use super::retry::{ROWS_MAX, RowId, Rows};
use super::scope::{self, Item};
use super::window::{Pacer, Queue};
use super::{
    Action, Change, Checkpoint, Event, Failure, Held, Link, Millis, Outcome, PushId, Record, Row, Settings, Shown,
    Survey,
};
use std::collections::BTreeMap;
use storage_engine::feed::Cursor;
use storage_engine::version::Version;

/// Versions taken in and not yet at the peer, as a multiple of the window: enough to keep the window
/// full while the feed is read, and a bound on memory.
const INTAKE_WINDOWS: usize = 4;
/// Pause after a push said that the peer is gone, unless `PeerDown` comes first as it should.
const PEER_GONE_PAUSE_MS: Millis = 1_000;
/// A clock that is set back by less waits for itself.
const CLOCK_SLACK_MS: Millis = 1_000;

/// One push without an answer yet.
#[derive(Debug)]
pub(super) struct Flight {
    key: String,
    weight: u64,
    pub(super) load: Load,
}

#[derive(Debug)]
pub(super) enum Load {
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
    /// A link as the journal left it: stopped at its checkpoint, the peer not yet seen.
    ///
    /// `seed` feeds the jitter of retries and nothing else.
    pub fn new(settings: Settings, checkpoint: Option<Checkpoint>, rows: Vec<Row>, seed: u64) -> Link {
        let checkpoint = checkpoint.unwrap_or_default();
        let Checkpoint { cursor, floor, committed_through, reach, brake } = checkpoint.clone();
        let mut existing = Existing::load(reach, settings.existing_objects.then(|| settings.scope()));
        let known = Checkpoint { reach: Some(existing.reach()), ..checkpoint };
        // The rule may have changed while nobody ran it.
        existing.cover(settings.scope(), cursor.clone(), settings.existing_objects, committed_through);
        Link {
            progress: Progress::new(cursor, floor, committed_through, rows.len()),
            existing,
            rows: Rows::load(rows, LOADED, settings.by_arrival),
            recorder: Recorder::new(known),
            settings,
            seed,
            is_peer_up: false,
            is_draining: false,
            is_stopped: false,
            is_reading: false,
            is_caught_up: false,
            queue: Queue::default(),
            next_ticket: 0,
            flights: BTreeMap::new(),
            flying_bytes: 0,
            flying_rows: 0,
            next_push: 1,
            pending: Pending::default(),
            pacer: Pacer::default(),
            brake: Brake::load(brake),
            is_counting: false,
            paused_until: 0,
            woken_at: None,
            seen_at: 0,
            last_error: None,
        }
    }

    /// Takes an event in; returns what is to be done, in this order.
    ///
    /// Answers to pushes made before a `PeerDown` and to old records are ignored, so late and doubled
    /// ones do no harm.
    pub fn step(&mut self, now: Millis, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        if self.is_stopped {
            return out;
        }
        if now.saturating_add(CLOCK_SLACK_MS) < self.seen_at && !planted::has(Planted::WaitsForOldClock) {
            self.on_clock_back(now);
        }
        self.seen_at = now;
        if self.settings.brake.is_some() && self.brake.begin(now, self.settings.brake_release) {
            self.rewind(&mut out);
        }
        match event {
            Event::Changed { changes, cursor } => self.take_in(changes, cursor, &mut out),
            Event::CaughtUp => self.is_caught_up = self.is_reading,
            Event::Expired { head } => self.on_expired(head, &mut out),
            Event::Existing { changes, cursor, is_last } => self.take_in_existing(changes, cursor, is_last),
            Event::Pushed { id, outcome } => self.on_pushed(id, outcome, &mut out),
            Event::PushFailed { id, failure } => self.on_failed(now, id, failure),
            Event::Recorded { seq } => self.recorder.recorded(seq),
            Event::RecordFailed { seq } => self.recorder.failed(now, seq),
            Event::Tick => {}
            Event::Counted { versions } => self.brake.counted(now, versions),
            Event::Release => {
                if self.brake.release(now) {
                    self.rewind(&mut out);
                }
            }
            Event::RuleAltered(settings) => self.on_altered(now, settings, &mut out),
            Event::Retry(which) => self.rows.release(now, &which),
            Event::PeerUp => {
                if self.is_peer_up {
                    // Another line stands and nobody saw the old one fall: what flew on it gets no answer any more.
                    self.rewind(&mut out);
                }
                self.is_peer_up = true;
                self.paused_until = now;
            }
            Event::PeerDown => {
                if planted::has(Planted::RowForDownPeer) {
                    let flying: Vec<PushId> = self.flights.keys().copied().collect();
                    flying
                        .into_iter()
                        .for_each(|id| self.on_failed(now, id, Failure::Retryable("peer is down".into())));
                }
                self.is_peer_up = false;
                self.rewind(&mut out);
            }
            Event::Drain => self.is_draining = true,
        }
        self.go_on(now, &mut out);
        out
    }

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
            clock_ahead_versions: self.rows.clock_ahead(),
            braked_versions: braked,
            braked_since: self.brake.engaged_at(),
            in_flight: self.flights.len() as u64,
            copies_since: self.existing.since(),
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

    /// Whether changes may go out now, but for window and bandwidth. In commit order nothing overtakes a held delete.
    fn is_open(&self) -> bool {
        let is_behind_brake = self.settings.commit_order && self.brake.engaged_at().is_some();
        let is_suspended = self.settings.suspend && !planted::has(Planted::SuspendedGoesOn);
        self.is_peer_up && !is_suspended && !self.is_draining && !is_behind_brake
    }

    /// Commit time of the oldest change taken in and neither at the peer nor a row: what the brake holds included.
    fn oldest_taken_in(&self) -> Option<Millis> {
        let (_, held) = self.brake.held();
        earliest(earliest(self.pending.oldest(), self.existing.pending.oldest()), held)
    }

    fn take_in(&mut self, changes: Vec<Change>, cursor: Cursor, out: &mut Vec<Action>) {
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
    fn take_in_existing(&mut self, changes: Vec<Change>, cursor: Cursor, is_last: bool) {
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

    /// The progress a batch or a place belongs to.
    fn progress_of(&mut self, place: u64) -> &mut Progress {
        if place >= FIRST_PLACE { &mut self.existing.progress } else { &mut self.progress }
    }
    fn pending_of(&mut self, item: &Item) -> &mut Pending {
        if item.is_existing() { &mut self.existing.pending } else { &mut self.pending }
    }

    fn on_pushed(&mut self, id: PushId, outcome: Outcome, out: &mut Vec<Action>) {
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

    fn on_failed(&mut self, now: Millis, id: PushId, failure: Failure) {
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
                Failure::Refused("clock_ahead".into())
            }
            other => other,
        };
        let row = match flight.load {
            Load::Change(item) => {
                let row = (flight.key, item.change.version.id);
                self.brake_lands(&item, true);
                self.make_row(&row, &item);
                self.progress_of(item.batch).finish(item.batch);
                row
            }
            Load::Row(row) => row,
        };
        self.rows.fail(&row, now, self.seed, &failure);
        self.last_error = self.rows.get(&row).map(|r| r.last_error.clone());
    }

    /// A delete that was taken in waits no more.
    fn brake_lands(&mut self, item: &Item, counts: bool) {
        if let Some(terms) = self.settings.brake.as_ref().filter(|_| !item.is_existing())
            && is_delete(&item.change.version)
        {
            self.brake.land(terms, &item.change, counts);
        }
    }

    /// Before its batch is finished: the cursor may pass a change only with its row.
    fn make_row(&mut self, row: &RowId, item: &Item) {
        let (since, bytes) = (item.change.pending_since, item.bytes());
        self.pending_of(item).remove(since, bytes);
        if planted::has(Planted::CursorPastFailed) {
            return;
        }
        if self.rows.get(row).is_some() {
            self.rows.merge(row, since, bytes);
        } else {
            let floor = self.progress_of(item.batch).hold(item.batch);
            self.rows.make(row.clone(), since, bytes, item.batch, floor);
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

    /// Forgets what is queued or in flight and reads it again from the settled cursor. Rows stay.
    fn rewind(&mut self, out: &mut Vec<Action>) {
        let was_ahead = self.is_reading || self.progress.taken() != self.progress.cursor().as_ref();
        self.queue = Queue::default();
        self.flights.clear();
        (self.flying_bytes, self.flying_rows) = (0, 0);
        self.pending = Pending::default();
        self.brake.forget_waiting();
        self.is_caught_up = false;
        let taken = self.progress.taken().cloned();
        self.rows.land_all();
        if let Some(first) = self.progress.rewind() {
            self.rows.move_back(first..FIRST_PLACE);
        }
        if let Some(cursor) = taken.filter(|_| planted::has(Planted::NoRewind)) {
            self.progress.take_in(cursor, 0, 0);
        }
        let (first, was_reading) = self.existing.rewind();
        if let Some(first) = first {
            self.rows.move_back(first..u64::MAX);
        }
        if was_reading {
            out.push(Action::Existing(None));
        }
        if self.is_reading {
            self.is_reading = false;
            out.push(Action::Intake(false));
        }
        if was_ahead {
            out.push(Action::Rewind(self.progress.taken().cloned()));
        }
    }

    /// What flew is found again by the comparison, with everything else.
    fn on_expired(&mut self, head: Cursor, out: &mut Vec<Action>) {
        self.rewind(out);
        self.progress.go_on_at(head.clone());
        if !planted::has(Planted::ExpiredGoesOn) {
            self.existing.compare(head.clone());
        }
        out.push(Action::Rewind(Some(head)));
    }

    fn on_altered(&mut self, now: Millis, settings: Settings, out: &mut Vec<Action>) {
        let is_altered = scope::is_altered(&self.settings, &settings);
        if is_altered || settings.suspend && !self.settings.suspend {
            self.rewind(out);
        }
        for row in self.rows.outside(&settings.prefix) {
            let entry = self.rows.remove(&row).expect("it was just listed");
            self.progress_of(entry.place).release(entry.place);
        }
        if is_altered {
            self.existing.cover(settings.scope(), self.progress.cursor(), settings.existing_objects, now);
        }
        self.pacer = Pacer::default();
        if settings.brake != self.settings.brake {
            // What waits was counted under other terms.
            self.rewind(out);
            self.brake.forget();
        }
        self.settings = settings;
    }

    /// The clock went back: what waits for a time of the old one waits no longer than it would have.
    fn on_clock_back(&mut self, now: Millis) {
        self.pacer = Pacer::default();
        self.paused_until = now;
        self.woken_at = None;
        self.rows.wait_no_longer(now);
        self.recorder.wait_no_longer(now);
    }

    /// What follows from the state as it is now.
    fn go_on(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.heed_brake(now, out);
        if self.is_open() && now >= self.paused_until {
            self.push_rows(now, out);
            self.push_changes(now, out);
        }
        self.set_intake(out);
        self.set_survey(out);
        self.existing.close();
        self.record(now, out);
        if self.is_draining && self.flights.is_empty() && self.recorder.is_idle() {
            self.is_stopped = true;
            out.push(Action::Stop);
        }
        self.wake(now, out);
    }

    /// Whether the deletes that wait are a mass; nothing has flown since they were taken in.
    fn heed_brake(&mut self, now: Millis, out: &mut Vec<Action>) {
        let Some(terms) = &self.settings.brake else { return };
        let call = self.brake.call(now, terms);
        self.is_counting = matches!(call, Call::Count { wait: true, .. });
        match call {
            Call::Nothing | Call::Count { ask: false, .. } => {}
            Call::Count { ask: true, .. } => out.push(Action::Count),
            Call::Engaged => self.rewind(out),
        }
    }

    /// Rows that are due go before changes, but take at most half of the window from them.
    fn push_rows(&mut self, now: Millis, out: &mut Vec<Action>) {
        let most = (self.settings.window_versions / 2).max(1).saturating_sub(self.flying_rows);
        for id in self.rows.due(now, most) {
            let weight = scope::weight(self.rows.get(&id).map_or(0, |r| r.bytes));
            if self.pacer.ready_at() > now || !self.has_room(weight) {
                return;
            }
            if self.queue.take_off(&id.0) {
                self.rows.take_off(&id);
                let (key, version_id) = id.clone();
                let id = self.fly(now, Flight { key: key.clone(), weight, load: Load::Row(id) });
                out.push(Action::PushRow { id, key, version_id });
            }
        }
    }

    fn push_changes(&mut self, now: Millis, out: &mut Vec<Action>) {
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

    /// Reads on below half of the bound, stops above it: no flapping at the edge.
    fn set_intake(&mut self, out: &mut Vec<Action>) {
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
    fn set_survey(&mut self, out: &mut Vec<Action>) {
        let bound = self.settings.window_versions.max(1) as u64;
        let waits = self.existing.pending.versions;
        let has_room = if self.existing.is_reading() { waits <= bound } else { waits <= bound / 2 };
        // Among what a comparison finds are the deletes the brake holds.
        let is_braked = self.existing.is_comparing() && self.brake.engaged_at().is_some();
        let may_read =
            self.is_open() && !is_braked && has_room && self.rows.len() < ROWS_MAX && !self.recorder.is_failing();
        out.extend(self.existing.steer(may_read).map(Action::Existing));
    }

    fn record(&mut self, now: Millis, out: &mut Vec<Action>) {
        out.extend(self.recorder.ask_again(now));
        if !self.recorder.is_idle() {
            return;
        }
        let checkpoint = self.checkpoint();
        if self.rows.is_touched() || self.recorder.is_news(&checkpoint) {
            let (upserts, deletes) = self.rows.take_touched();
            out.push(self.recorder.ask(Record { checkpoint, upserts, deletes }));
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        let cursor = self.progress.cursor();
        let floor = if planted::has(Planted::FloorFromCursor) { cursor.clone() } else { self.floor() };
        let oldest = earliest(self.oldest_taken_in(), self.rows.pending.oldest());
        let before_oldest = oldest.map_or(Millis::MAX, |t| t.saturating_sub(1));
        let committed_through = self.progress.newest_folded().min(before_oldest).min(self.existing.through());
        let reach = Some(self.existing.reach());
        Checkpoint { cursor, floor, committed_through, reach, brake: self.brake.kept() }
    }

    /// The earlier of two floors, whose order nobody knows: with rows on both sides it is the beginning.
    fn floor(&self) -> Option<Cursor> {
        match (self.existing.holds_floor(), self.progress.has_holds()) {
            (false, _) => self.progress.floor(),
            (true, false) => self.existing.floor(),
            (true, true) => None,
        }
    }

    /// Asks for the next moment at which something happens by itself, unless an earlier one was asked for.
    fn wake(&mut self, now: Millis, out: &mut Vec<Action>) {
        let mut at = self.recorder.again_at();
        if self.is_open() {
            let start = self.paused_until.max(self.pacer.ready_at());
            let waits = (self.queue.len() > 0 && start > now).then_some(start);
            let due = self.rows.next_due().map(|due| due.max(start)).filter(|due| *due > now);
            at = earliest(at, earliest(waits, due));
        }
        let asked = self.woken_at.filter(|t| *t > now);
        if let Some(at) = at.filter(|at| asked.is_none_or(|asked| *at < asked)) {
            self.woken_at = Some(at);
            out.push(Action::WakeAt(at));
        } else {
            self.woken_at = asked;
        }
    }
}
