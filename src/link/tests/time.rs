//! When a link asks to be woken, what it waits for, and what it does when the clock is set back.
use super::*;

fn wakes(actions: &[Action]) -> Vec<Millis> {
    actions.iter().filter_map(|a| if let Action::WakeAt(at) = a { Some(*at) } else { None }).collect()
}

fn retryable(id: PushId) -> Event {
    Event::PushFailed { id, failure: Failure::Retryable(why("503")) }
}

#[test]
fn a_link_asks_once_to_be_woken_when_bandwidth_lets_the_next_version_go() {
    let mut link = up(Settings { bandwidth: Some(356), ..settings() });
    let out = link.step(10_000, changed(1..=3));
    assert_eq!((pushes(&out).len(), wakes(&out)), (1, vec![10_900]), "a burst of 100 ms may be caught up on");
    assert_eq!(link.step(10_500, Event::Tick), [], "it has asked");
    let out = link.step(10_900, Event::Tick);
    assert_eq!((pushes(&out).len(), wakes(&out)), (1, vec![11_900]));
    let out = link.step(11_900, Event::Tick);
    assert_eq!((pushes(&out).len(), wakes(&out)), (1, vec![]), "nothing waits any more");
}

#[test]
fn what_is_due_earlier_is_asked_for_besides() {
    let mut link = up(Settings { bandwidth: Some(356), ..settings() });
    let out = link.step(10_000, Event::Changed { changes: vec![change(1, "there")], cursor: cursor(1) });
    let (seq, _) = record(&out).expect("the cursor moved");
    assert_eq!(wakes(&link.step(10_000, changed(2..=3))), [10_900]);
    let out = link.step(10_100, Event::RecordFailed { seq });
    assert_eq!(wakes(&out), [10_200], "a failed record goes again after 100 ms");
}

#[test]
fn a_full_window_asks_for_no_time_because_an_answer_will_come() {
    let mut link = up(settings());
    assert!(wakes(&link.step(0, changed(1..=9))).is_empty());
}

#[test]
fn a_row_is_asked_for_when_it_is_due_and_not_while_it_has_no_room() {
    let mut link = up(Settings { window_versions: 1, ..settings() });
    let first = pushes(&link.step(0, changed(1..=2)));
    let out = link.step(0, retryable(first[0]));
    let due = link.rows(1)[0].next_attempt;
    assert_eq!((wakes(&out), pushes(&out).len()), (vec![due], 1), "the other one flies");
    assert!(wakes(&link.step(due, Event::Tick)).is_empty(), "it is due, and no time will help");
}

#[test]
fn a_push_that_found_no_peer_is_tried_again_after_a_second() {
    let mut link = up(settings());
    let id = pushes(&link.step(5, changed(1..=1)))[0];
    let out = link.step(6, Event::PushFailed { id, failure: Failure::PeerGone });
    assert_eq!((pushes(&out), wakes(&out), link.shown(6).state), (vec![], vec![1_006], "peer_down"));
    assert_eq!((link.step(1_005, Event::Tick), link.shown(1_005).state), (vec![], "peer_down"));
    assert_eq!(pushes(&link.step(1_006, Event::Tick)).len(), 1);
    assert_eq!((link.shown(1_006).state, link.shown(1_006).retry_versions), ("catching_up", 0), "and is no row");
}

#[test]
fn a_clock_set_back_makes_nothing_wait_longer_than_its_longest_pause() {
    let failed = |after_ms| {
        let mut link = up(settings());
        let id = pushes(&link.step(1_000_000, changed(1..=1)))[0];
        link.step(1_000_000, Event::PushFailed { id, failure: Failure::ClockAhead { after_ms } });
        link
    };
    let mut link = failed(1_000);
    assert_eq!(wakes(&link.step(5, Event::Tick)), [300_005]);
    assert_eq!(pushes(&link.step(300_005, Event::Tick)).len(), 1);
    let mut link = failed(300_000);
    link.step(999_000, Event::Tick);
    assert_eq!(link.rows(1)[0].next_attempt, 1_300_000, "a second heals by itself");
    link.step(997_999, Event::Tick);
    assert_eq!(link.rows(1)[0].next_attempt, 1_297_999);
}

#[test]
fn other_limits_interrupt_nothing_that_flies() {
    let mut link = up(settings());
    let id = pushes(&link.step(0, changed(1..=1)))[0];
    assert_eq!(link.step(1, Event::RuleAltered(Settings { bandwidth: Some(1), ..settings() })), []);
    assert_eq!(link.shown(1).in_flight, 1);
    assert!(link.step(2, taken(id)).iter().any(|a| matches!(a, Action::Done { .. })));
}

/// A link with a record under way, asked for at `now`.
fn recording(now: Millis) -> (Link, u64) {
    let mut link = up(settings());
    let out = link.step(now, Event::Changed { changes: vec![change(1, "there")], cursor: cursor(1) });
    let (seq, _) = record(&out).expect("the cursor moved");
    (link, seq)
}

#[test]
fn a_record_that_fails_is_asked_for_after_pauses_that_double_up_to_five_seconds() {
    let (mut link, seq) = recording(0);
    let mut now = 0;
    for pause in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
        assert_eq!(wakes(&link.step(now, Event::RecordFailed { seq })), [now + pause]);
        now += pause;
        assert_eq!(record(&link.step(now, Event::Tick)).map(|(seq, _)| seq), Some(seq));
    }
    link.step(now, Event::Recorded { seq });
    let out = link.step(now, Event::Changed { changes: vec![change(2, "there")], cursor: cursor(2) });
    let (next, _) = record(&out).expect("the cursor moved again");
    link.step(now, Event::Recorded { seq });
    let out = link.step(now, Event::Changed { changes: vec![change(3, "there")], cursor: cursor(3) });
    assert_eq!((next > seq, record(&out)), (true, None), "a late answer to the first is none to the second");
}

#[test]
fn a_failed_record_waits_no_longer_than_five_seconds_when_the_clock_is_set_back() {
    let (mut link, seq) = recording(1_000_000);
    link.step(1_000_000, Event::RecordFailed { seq });
    assert_eq!(wakes(&link.step(5, Event::Tick)), [5_005]);
    assert!(record(&link.step(5_005, Event::Tick)).is_some());
}
