//! The link itself: every event changes the state, then one pass decides what follows from it.
//!
//! Invariant: every change taken in is outstanding in its batch until it is acked, a row, or forgotten
//! by a rewind of the feed to the settled cursor; so no change before a recorded cursor is lost.
use super::brake::{Brake, Call};
use super::existing::{Existing, FIRST_PLACE};
use super::lag::{Pending, earliest};
use super::planted::{self, Planted};
use super::progress::{LOADED, Progress};
use super::recorder::Recorder;
use super::retry::Rows;
use super::scope::{self, Item};
use super::window::{Pacer, Queue};
use super::{Action, Checkpoint, Event, Failure, Link, Millis, PushId, Reason, Record, Row, Settings, Why};
use std::collections::BTreeMap;
use storage_engine::feed::Cursor;

mod flight;
mod intake;
mod shown;

pub(super) use flight::{Flight, Load};

/// A clock that is set back by less waits for itself.
const CLOCK_SLACK_MS: Millis = 1_000;

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
            Event::Covered { scope } => self.existing.covered_by(&scope, self.settings.scope()),
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
                    flying.into_iter().for_each(|id| {
                        self.on_failed(now, id, Failure::Retryable(Why::new(Reason::Other, "peer is down")))
                    });
                }
                self.is_peer_up = false;
                self.rewind(&mut out);
            }
            Event::Drain => self.is_draining = true,
        }
        self.go_on(now, &mut out);
        out
    }

    /// Whether changes may go out now, but for window and bandwidth. In commit order nothing overtakes a held delete.
    fn is_open(&self) -> bool {
        let is_behind_brake = self.settings.commit_order && self.brake.engaged_at().is_some();
        let is_suspended = self.settings.suspend && !planted::has(Planted::SuspendedGoesOn);
        self.is_peer_up && !is_suspended && !self.is_draining && !is_behind_brake
    }

    /// The progress a batch or a place belongs to.
    fn progress_of(&mut self, place: u64) -> &mut Progress {
        if place >= FIRST_PLACE { &mut self.existing.progress } else { &mut self.progress }
    }

    fn pending_of(&mut self, item: &Item) -> &mut Pending {
        if item.is_existing() { &mut self.existing.pending } else { &mut self.pending }
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
