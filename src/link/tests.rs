//! What a link promises, told as stories, and the one promise that matters under random events.
mod arrival;
mod past;
mod rows;
mod time;

use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use storage_engine::version::{Birth, Hlc, Kind, Order, Origin};

/// One-way to one peer, everything travels, a window of four.
pub(crate) fn settings() -> Settings {
    Settings {
        prefix: String::new(),
        tags: BTreeMap::new(),
        own_origin: Origin::new("here"),
        forward_all: false,
        peer_origin: Origin::new("there"),
        delete_markers: true,
        version_deletes: true,
        object_lock: true,
        yields_to: Vec::new(),
        existing_objects: true,
        commit_order: false,
        by_arrival: false,
        bandwidth: None,
        window_versions: 4,
        window_bytes: 1 << 20,
        brake: None,
        brake_release: 0,
        suspend: false,
    }
}

pub(super) fn cursor(place: u64) -> Cursor {
    Cursor(Bytes::copy_from_slice(&place.to_be_bytes()))
}

pub(super) fn place(cursor: &Option<Cursor>) -> u64 {
    cursor.as_ref().map_or(0, |c| u64::from_be_bytes(c.0[..].try_into().expect("a cursor of this test")))
}

/// The change at `place` of the feed; ten keys take turns.
pub(super) fn change(place: u64, origin: &str) -> Change {
    let id = VersionId::from_bytes(u128::from(place).to_be_bytes());
    let key = format!("key-{}", place % 10);
    let birth = Birth {
        size_bytes: 100,
        ..Birth::blank(
            Order { hlc: Hlc::from_millis(place), origin: Origin::new(origin), version_id: id },
            Kind::Object,
        )
    };
    let version = Version { birth: Some(birth), ..Version::blank(&key, id) };
    Change { version: Arc::new(version), pending_since: place, traceparent: None }
}

/// A delete marker at `place` of the feed.
pub(super) fn delete(place: u64) -> Change {
    let mut change = change(place, "here");
    let version = Arc::make_mut(&mut change.version);
    version.birth.as_mut().expect("it was just born").kind = Kind::DeleteMarker;
    change
}

pub(super) fn changed(places: std::ops::RangeInclusive<u64>) -> Event {
    let cursor = cursor(*places.end());
    Event::Changed { changes: places.map(|p| change(p, "here")).collect(), cursor }
}

pub(super) fn pushes(actions: &[Action]) -> Vec<PushId> {
    let id = |a: &Action| match a {
        Action::Push { id, .. } | Action::PushRow { id, .. } => Some(*id),
        _ => None,
    };
    actions.iter().filter_map(id).collect()
}

pub(super) fn record(actions: &[Action]) -> Option<(u64, Record)> {
    actions.iter().find_map(|a| match a {
        Action::Record { seq, record } => Some((*seq, record.clone())),
        _ => None,
    })
}

fn up(settings: Settings) -> Link {
    let mut link = Link::new(settings, None, Vec::new(), 1);
    assert_eq!(link.step(0, Event::PeerUp), [Action::Intake(true)]);
    link
}

pub(super) fn taken(id: PushId) -> Event {
    Event::Pushed { id, outcome: Outcome::Applied }
}

pub(super) fn why(said: &str) -> Why {
    Why::new(Reason::Grant, said)
}

fn refused(id: PushId) -> Event {
    Event::PushFailed { id, failure: Failure::Refused(why("no grant")) }
}

#[test]
fn a_line_that_was_replaced_unseen_lets_what_flew_on_the_old_one_fly_again() {
    let mut link = up(settings());
    assert_eq!(pushes(&link.step(1, changed(1..=4))).len(), 4);
    let actions = link.step(2, Event::PeerUp);
    assert!(actions.contains(&Action::Rewind(None)), "read again from the beginning: {actions:?}");
    assert_eq!(link.shown(2).in_flight, 0);
    assert_eq!(pushes(&link.step(3, changed(1..=4))).len(), 4);
}

#[test]
fn window_bounds_what_flies_and_a_key_flies_once() {
    let mut link = up(settings());
    assert_eq!(pushes(&link.step(1, changed(1..=9))).len(), 4);
    let mut link = up(settings());
    let twice = Event::Changed { changes: vec![change(3, "here"), change(13, "here")], cursor: cursor(13) };
    let first = pushes(&link.step(1, twice));
    assert_eq!(first.len(), 1);
    assert_eq!(pushes(&link.step(2, taken(first[0]))).len(), 1);
}

#[test]
fn bytes_bound_the_window_but_one_version_always_flies() {
    let mut link = up(Settings { window_bytes: 10, ..settings() });
    assert_eq!(pushes(&link.step(1, changed(1..=3))).len(), 1);
}

#[test]
fn a_version_larger_than_the_window_does_not_keep_the_others_out() {
    let mut large = change(1, "here");
    let version = Arc::make_mut(&mut large.version);
    version.birth.as_mut().expect("it was just born").size_bytes = 50 << 30;
    let mut link = up(Settings { window_bytes: 32 << 20, ..settings() });
    let both = Event::Changed { changes: vec![large, change(2, "here")], cursor: cursor(2) };
    let flying = pushes(&link.step(1, both));
    assert_eq!(flying.len(), 2);
    link.step(2, taken(flying[0]));
    assert_eq!(pushes(&link.step(3, changed(3..=3))).len(), 1, "what landed leaves the window as it came");
}

#[test]
fn replicas_are_passed_over_and_the_cursor_moves() {
    let mut link = up(settings());
    let replica = Event::Changed { changes: vec![change(7, "there"), change(8, "elsewhere")], cursor: cursor(8) };
    let out = link.step(1, replica.clone());
    assert!(pushes(&out).is_empty());
    assert_eq!(place(&record(&out).expect("the cursor moved").1.checkpoint.cursor), 8);
    let mut relay = up(Settings { forward_all: true, ..settings() });
    assert_eq!(pushes(&relay.step(1, replica)).len(), 1, "all but the peer's own");
}

#[test]
fn peer_down_makes_no_rows_and_reads_again() {
    let mut link = up(settings());
    let flying = pushes(&link.step(1, changed(1..=9)));
    let out = link.step(2, Event::PeerDown);
    assert_eq!(out, [Action::Intake(false), Action::Rewind(None)]);
    assert!(link.step(3, taken(flying[0])).is_empty(), "an answer from before is not counted");
    assert_eq!(link.shown(3).retry_versions, 0);
    assert_eq!(link.step(4, Event::PeerUp), [Action::Intake(true)]);
    assert_eq!(pushes(&link.step(5, changed(1..=9))).len(), 4);
}

#[test]
fn refused_version_is_parked_after_five_attempts_and_holds_the_floor() {
    let mut link = up(settings());
    let mut id = pushes(&link.step(0, changed(1..=1)))[0];
    let mut now = 0;
    for attempt in 1..=5 {
        let out = link.step(now, refused(id));
        let shown = link.shown(now);
        assert_eq!((shown.retry_versions, shown.parked_versions), if attempt < 5 { (1, 0) } else { (0, 1) });
        if let Some((seq, record)) = record(&out) {
            assert_eq!((place(&record.checkpoint.cursor), place(&record.checkpoint.floor)), (1, 0));
            link.step(now, Event::Recorded { seq });
        }
        now += 400_000;
        let again = pushes(&link.step(now, Event::Tick));
        if attempt < 5 {
            id = again[0];
        } else {
            assert!(again.is_empty(), "a parked version does not go by itself");
        }
    }
    assert_eq!(link.shown(now).oldest_pending, Some(1), "what is parked is lag");
    let again = link.step(now, Event::Retry(Again::default()));
    let (seq, _) = record(&again).expect("the row is pending again");
    link.step(now, Event::Recorded { seq });
    let out = link.step(now, taken(pushes(&again)[0]));
    let record = record(&out).expect("the row is gone").1;
    assert_eq!((record.deletes.len(), place(&record.checkpoint.floor)), (1, 1));
}

#[test]
fn version_ahead_of_the_clock_is_never_parked() {
    let mut link = up(settings());
    let mut id = pushes(&link.step(0, changed(1..=1)))[0];
    for now in (0..20).map(|n| n * 10_000) {
        link.step(now, Event::PushFailed { id, failure: Failure::ClockAhead { after_ms: 9_000 } });
        let shown = link.shown(now);
        assert_eq!((shown.clock_ahead_versions, shown.parked_versions), (1, 0));
        assert!(pushes(&link.step(now + 8_000, Event::Tick)).is_empty(), "not before its time");
        id = pushes(&link.step(now + 9_000, Event::Tick))[0];
    }
}

#[test]
fn intake_stops_above_the_bound_and_resumes_below_half() {
    let mut link = up(settings());
    let out = link.step(0, changed(1..=17));
    assert!(out.contains(&Action::Intake(false)));
    let mut flying = pushes(&out);
    for left in (0..17).rev() {
        let out = link.step(1, taken(flying.remove(0)));
        flying.extend(pushes(&out));
        assert_eq!(out.contains(&Action::Intake(true)), left == 8, "{left} left");
    }
}

#[test]
fn failed_record_is_asked_for_again_and_intake_waits() {
    let mut link = up(settings());
    let id = pushes(&link.step(0, changed(1..=1)))[0];
    let first = record(&link.step(0, taken(id))).expect("something changed");
    let out = link.step(0, Event::RecordFailed { seq: first.0 });
    assert_eq!(out, [Action::Intake(false), Action::WakeAt(100)]);
    assert_eq!(record(&link.step(100, Event::Tick)), Some(first.clone()));
    assert!(link.step(100, Event::Recorded { seq: first.0 }).contains(&Action::Intake(true)));
}

#[test]
fn commit_order_keeps_later_versions_behind_a_row() {
    let mut link = up(Settings { commit_order: true, ..settings() });
    let first = pushes(&link.step(0, changed(1..=2)));
    assert_eq!(first.len(), 1);
    let failed = Event::PushFailed { id: first[0], failure: Failure::Retryable(why("503")) };
    assert!(pushes(&link.step(0, failed)).is_empty());
    let again = link.step(400_000, Event::Tick);
    assert!(matches!(again[0], Action::PushRow { .. }));
    assert_eq!(pushes(&link.step(400_000, taken(pushes(&again)[0]))).len(), 1);
}

#[test]
fn bandwidth_spaces_versions_out() {
    // 356 bytes each with the head; after the burst one a second.
    let mut link = up(Settings { bandwidth: Some(356), ..settings() });
    assert_eq!(pushes(&link.step(10_000, changed(1..=4))).len(), 1);
    assert!(pushes(&link.step(10_500, Event::Tick)).is_empty());
    assert_eq!(pushes(&link.step(11_000, Event::Tick)).len(), 1);
}

#[test]
fn suspend_forgets_and_resume_reads_again() {
    let mut link = up(settings());
    link.step(0, changed(1..=3));
    let out = link.step(1, Event::RuleAltered(Settings { suspend: true, ..settings() }));
    assert_eq!(out, [Action::Intake(false), Action::Rewind(None)]);
    assert_eq!(link.shown(1).state, "suspended");
    assert_eq!(link.step(2, Event::RuleAltered(settings())), [Action::Intake(true)]);
}

#[test]
fn drain_finishes_what_flies_records_and_stops() {
    let mut link = up(settings());
    let flying = pushes(&link.step(0, changed(1..=1)));
    assert_eq!(link.step(1, Event::Drain), [Action::Intake(false)]);
    let out = link.step(2, taken(flying[0]));
    let (seq, _) = record(&out).expect("progress is kept");
    assert!(!out.contains(&Action::Stop));
    assert!(link.step(3, Event::Recorded { seq }).contains(&Action::Stop));
}

#[test]
fn backoff_stays_between_its_bounds_reaches_both_and_differs_by_version() {
    let id = |high: u64, low: u64| VersionId::from_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes());
    for attempt in 1..100 {
        assert!((100..=300_000).contains(&retry::backoff_ms(id(0, 7), attempt, 1)));
    }
    let first: std::collections::BTreeSet<_> = (0..5_000).map(|n| retry::backoff_ms(id(0, n), 1, 1)).collect();
    assert_eq!(first, (100..=200).collect(), "each of the pauses there are");
    let pauses = [(0, 1, 1), (0, 2, 1), (1, 1, 1), (0, 1, 2)].map(|(h, l, seed)| retry::backoff_ms(id(h, l), 10, seed));
    assert_eq!(pauses.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{pauses:?}");
}

#[test]
fn a_narrowed_filter_drops_its_rows() {
    let mut link = up(settings());
    let failing = pushes(&link.step(0, changed(1..=3)));
    let out = failing.into_iter().flat_map(|id| link.step(0, refused(id))).collect::<Vec<_>>();
    let (seq, _) = record(&out).expect("rows were made");
    link.step(0, Event::Recorded { seq });
    let out = link.step(1, Event::RuleAltered(Settings { prefix: "key-2".into(), ..settings() }));
    assert_eq!(link.shown(1).retry_versions, 1);
    let dropped: usize =
        out.iter().map(|a| if let Action::Record { record, .. } = a { record.deletes.len() } else { 0 }).sum();
    assert!(dropped > 0 || record(&out).is_none(), "the journal forgets them with the next record");
}

fn existing(places: std::ops::RangeInclusive<u64>, is_last: bool) -> Event {
    let cursor = cursor(*places.end());
    Event::Existing { changes: places.map(|p| change(p, "here")).collect(), cursor, is_last }
}

/// Rules the random test changes between.
fn forms() -> [Settings; 6] {
    let with = |prefix: &str| Settings { prefix: prefix.into(), ..settings() };
    let left = Filter { prefix: "key-1".into(), ..Filter::default() };
    let right = Filter { prefix: "key-2".into(), ..Filter::default() };
    [
        settings(),
        with("key-1"),
        with("key-2"),
        Settings { yields_to: vec![left.clone()], ..settings() },
        Settings { yields_to: vec![left, right], ..settings() },
        Settings { existing_objects: false, ..with("key-1") },
    ]
}

/// Feed, peer and journal of the random test.
struct Bench {
    link: Link,
    settings: Settings,
    survey: Option<Survey>,
    now: Millis,
    head: u64,
    read_to: u64,
    is_reading: bool,
    flying: Vec<(PushId, VersionId)>,
    records: Vec<(u64, Record)>,
    peer: std::collections::BTreeSet<VersionId>,
    kept: Checkpoint,
    rows: BTreeMap<(String, VersionId), Row>,
}

impl Bench {
    fn step(&mut self, event: Event) {
        for action in self.link.step(self.now, event) {
            match action {
                Action::Push { id, change } => self.flying.push((id, change.version.id)),
                Action::PushRow { id, version_id, .. } => self.flying.push((id, version_id)),
                Action::Record { seq, record } => self.records.push((seq, record)),
                Action::Intake(on) => self.is_reading = on,
                Action::Rewind(cursor) => self.read_to = place(&cursor),
                Action::Existing(survey) => self.survey = survey,
                Action::Done { .. } | Action::WakeAt(_) | Action::Count | Action::Stop => {}
            }
        }
        assert!(self.records.len() <= 1, "one record outstanding");
    }

    fn random(&mut self, (what, which, far): (u8, usize, u64)) {
        self.now += far;
        let push = (!self.flying.is_empty()).then(|| which % self.flying.len().max(1));
        match (what, push) {
            (0..30, _) if self.is_reading && self.read_to < self.head => {
                let end = self.head.min(self.read_to + 1 + which as u64 % 7);
                let event = changed(self.read_to + 1..=end);
                self.read_to = end;
                self.step(event);
            }
            (30..60, Some(at)) => {
                let (id, version) = self.flying.remove(at);
                self.peer.insert(version);
                self.step(taken(id));
            }
            (60..75, Some(at)) => {
                let id = self.flying.remove(at).0;
                let failure = [
                    Failure::Retryable(why("503")),
                    Failure::Refused(why("no")),
                    Failure::ClockAhead { after_ms: 50 },
                    Failure::PeerGone,
                ];
                self.step(Event::PushFailed { id, failure: failure[which % 4].clone() });
            }
            (75..85, _) if !self.records.is_empty() => {
                let (seq, record) = self.records.remove(0);
                self.kept = record.checkpoint;
                self.rows.extend(record.upserts.into_iter().map(|r| ((r.key.clone(), r.version_id), r)));
                record.deletes.iter().for_each(|id| drop(self.rows.remove(id)));
                self.step(Event::Recorded { seq });
            }
            (85..88, _) if !self.records.is_empty() => {
                let (seq, _) = self.records.remove(0);
                self.step(Event::RecordFailed { seq });
            }
            (88..91, _) => self.step(Event::PeerDown),
            (91..96, _) => self.step(Event::PeerUp),
            (96, _) => self.step(Event::Retry(Again { parked_only: true, ..Again::default() })),
            (97, _) => {
                let rows = self.rows.values().cloned().collect();
                self.link = Link::new(self.settings.clone(), Some(self.kept.clone()), rows, 1);
                (self.read_to, self.is_reading, self.survey) = (place(&self.kept.cursor), false, None);
                self.flying.clear();
                self.records.clear();
                self.step(Event::PeerUp);
            }
            (100..104, _) => {
                self.settings = forms()[which % 6].clone();
                self.step(Event::RuleAltered(self.settings.clone()));
            }
            (104..120, _) if self.survey.is_some() => {
                let survey = self.survey.as_mut().expect("it was just seen");
                let (from, until) = (place(&survey.cursor), place(&Some(survey.until.clone())));
                let end = self.head.min(from + 1 + which as u64 % 7);
                survey.cursor = Some(cursor(end));
                self.step(existing(from + 1..=end, end >= until));
            }
            _ => self.step(Event::Tick),
        }
    }

    /// Every change that is covered is at the peer or in a row before the recorded cursor passes it, or a recorded
    /// pass has yet to come by.
    fn check(&self) {
        let reach = self.kept.reach.clone().unwrap_or_default();
        for p in 1..=place(&self.kept.cursor) {
            let v = change(p, "here").version;
            let is_covered = reach.covered.as_ref().is_some_and(|s| s.includes(&self.settings, &v));
            let is_to_come = reach.existing.as_ref().is_some_and(|e| {
                p > place(&e.cursor) && !e.except.as_ref().is_some_and(|s| s.includes(&self.settings, &v))
            });
            if !is_covered {
                continue;
            }
            let is_there = self.peer.contains(&v.id);
            assert!(is_there || p > place(&self.kept.floor), "floor passed {p}");
            if is_to_come {
                continue;
            }
            assert!(is_there || self.rows.contains_key(&(v.key.clone(), v.id)), "cursor passed {p}");
        }
        let shown = self.link.shown(self.now);
        let waiting = (1..=place(&self.link.cursor().cloned()))
            .filter(|p| !self.peer.contains(&change(*p, "here").version.id))
            .filter(|p| self.link.includes(&change(*p, "here").version) && reach.covered.is_some())
            .count();
        // What a pass has not read, the store counts.
        let is_counted = self.link.survey().is_some() || shown.oldest_pending.is_some();
        assert!(waiting == 0 || is_counted || !self.settings.existing_objects, "{waiting} wait, none is shown");
    }
}

proptest! {
    #[test]
    fn no_change_is_lost_under_random_events(events in prop::collection::vec((0u8..120, any::<usize>(), 0u64..2_000), 1..400)) {
        let link = up(settings());
        let mut bench = Bench {
            link, settings: settings(), survey: None, now: 0, head: 40, read_to: 0, is_reading: true, flying: Vec::new(), records: Vec::new(),
            peer: Default::default(), kept: Checkpoint::default(), rows: BTreeMap::new(),
        };
        for event in events {
            bench.random(event);
            bench.check();
        }
    }
}
