//! What a link promises of versions that failed, and of the figures it shows of what waits.
use super::*;

fn row(key: &str, id: u8, state: RowState) -> Row {
    Row {
        key: key.into(),
        version_id: VersionId::from_bytes([id; 16]),
        pending_since: 1,
        bytes: 1,
        attempts: 5,
        next_attempt: 0,
        last_error: "no grant".into(),
        reason: Reason::Grant,
        state,
        floor: None,
        traceparent: None,
    }
}

#[test]
fn a_person_names_rows_by_key_version_and_state_and_means_no_others() {
    let rows = [row("a", 1, RowState::Parked), row("a", 2, RowState::Pending), row("b", 1, RowState::Parked)];
    let meant = |again: &Again| rows.iter().map(|row| again.matches(row)).collect::<Vec<_>>();
    let all = Again::default();
    assert_eq!(meant(&all), [true, true, true]);
    let of_key = Again { key: Some("a".into()), ..all.clone() };
    assert_eq!(meant(&of_key), [true, true, false]);
    let of_version = Again { version_id: Some(rows[0].version_id), ..all.clone() };
    assert_eq!(meant(&of_version), [true, false, true]);
    let parked = Again { parked_only: true, ..all };
    assert_eq!(meant(&parked), [true, false, true]);
    assert_eq!(meant(&Again { version_id: of_version.version_id, ..of_key.clone() }), [true, false, false]);
    assert_eq!(meant(&Again { parked_only: true, ..of_key }), [true, false, false]);
}

#[test]
fn the_oldest_that_waits_is_shown_until_it_is_there() {
    let mut link = up(settings());
    let mut twins = vec![change(1, "here"), change(2, "here"), change(3, "here")];
    twins[1].pending_since = 1;
    let flying = pushes(&link.step(1, Event::Changed { changes: twins, cursor: cursor(3) }));
    let oldest: Vec<_> = flying
        .into_iter()
        .map(|id| {
            link.step(2, taken(id));
            link.shown(2).oldest_pending
        })
        .collect();
    assert_eq!(oldest, [Some(1), Some(3), None]);
}

#[test]
fn a_break_without_rows_leaves_nothing_that_holds_the_floor() {
    let mut link = up(settings());
    link.step(1, changed(1..=4));
    link.step(2, Event::PeerDown);
    link.step(3, Event::PeerUp);
    let mut todo = link.step(4, changed(1..=4));
    let mut kept = None;
    while let Some(action) = todo.pop() {
        match action {
            Action::Push { id, .. } => todo.extend(link.step(5, taken(id))),
            Action::Record { seq, record } => {
                kept = Some(record.checkpoint);
                todo.extend(link.step(5, Event::Recorded { seq }));
            }
            _ => {}
        }
    }
    assert_eq!(kept.map(|c| (place(&c.cursor), place(&c.floor))), Some((4, 4)));
}

#[test]
fn why_a_version_failed_is_shown_until_it_is_there() {
    let mut link = up(settings());
    let id = pushes(&link.step(0, changed(1..=1)))[0];
    assert_eq!((link.shown(0).last_error, link.shown(0).clock_ahead_versions), (None, 0));
    link.step(0, refused(id));
    assert_eq!(link.shown(0).last_error.as_deref(), Some("no grant"));
    let held = link.rows(1);
    assert_eq!(link.standing(&change(1, "here").version), Standing::Row(held[0].clone()));
    let again = pushes(&link.step(held[0].next_attempt, Event::Tick));
    link.step(held[0].next_attempt, taken(again[0]));
    assert_eq!((link.shown(0).last_error, link.rows(1)), (None, vec![]));
    assert_eq!(link.standing(&change(1, "here").version), Standing::NotHeld);
}

#[test]
fn a_link_full_of_rows_takes_nothing_in_until_one_is_done() {
    let rows = (0..ROWS_MAX).map(|n| Row { next_attempt: 1_000, ..row(&format!("{n}"), 1, RowState::Pending) });
    let mut link = Link::new(settings(), None, rows.collect(), 1);
    assert!(!link.step(0, Event::PeerUp).contains(&Action::Intake(true)));
    let id = pushes(&link.step(1_000, Event::Tick))[0];
    assert!(link.step(1_000, taken(id)).contains(&Action::Intake(true)));
}

/// A link with a row of each of these, all due at 1,000.
fn with_rows(rows: &[(&str, RowState)]) -> Link {
    let rows = rows.iter().map(|(key, state)| Row { next_attempt: 1_000, ..row(key, 1, *state) });
    let mut link = Link::new(settings(), None, rows.collect(), 1);
    link.step(0, Event::PeerUp);
    link
}

#[test]
fn a_row_that_flew_when_the_peer_went_goes_again() {
    let mut link = with_rows(&[("a", RowState::Pending)]);
    let id = pushes(&link.step(1_000, Event::Tick))[0];
    assert!(pushes(&link.step(1_000, Event::Tick)).is_empty(), "it flies");
    link.step(1_000, Event::PushFailed { id, failure: Failure::PeerGone });
    assert_eq!(pushes(&link.step(2_000, Event::Tick)).len(), 1, "after a push that found no peer");
    link.step(2_000, Event::PeerDown);
    assert_eq!(pushes(&link.step(2_001, Event::PeerUp)).len(), 1, "after a break");
    assert_eq!(link.rows(1)[0].attempts, 5, "neither was an attempt");
}

#[test]
fn a_person_lets_go_what_was_named_but_for_what_flies() {
    let mut link = with_rows(&[("a", RowState::Parked), ("b", RowState::Parked), ("c", RowState::Pending)]);
    assert_eq!(pushes(&link.step(1_000, Event::Tick)).len(), 1, "c flies");
    let named = |key: &str| Event::Retry(Again { key: Some(key.into()), ..Again::default() });
    assert_eq!(pushes(&link.step(1_001, named("a"))).len(), 1);
    link.step(1_002, named("c"));
    let rows: Vec<_> = link.rows(9).into_iter().map(|r| (r.key, r.state, r.attempts)).collect();
    let expected = [("b", RowState::Parked, 5), ("c", RowState::Pending, 5), ("a", RowState::Pending, 0)];
    assert_eq!(rows, expected.map(|(key, state, attempts)| (key.to_string(), state, attempts)), "parked ones first");
    assert_eq!((link.shown(1_002).parked_versions, link.shown(1_002).retry_versions), (1, 2));
}

#[test]
fn a_newer_change_of_a_parked_version_takes_its_row_with_it() {
    let first = change(1, "here");
    let parked = Row { version_id: first.version.id, ..row(&first.version.key, 1, RowState::Parked) };
    let mut link = Link::new(settings(), None, vec![parked], 1);
    link.step(0, Event::PeerUp);
    let mut newer = Change { pending_since: 7, ..first };
    Arc::make_mut(&mut newer.version).birth.as_mut().expect("it was just born").size_bytes = 200;
    let id = pushes(&link.step(8, Event::Changed { changes: vec![newer], cursor: cursor(7) }))[0];
    link.step(8, Event::PushFailed { id, failure: Failure::Retryable(why("503")) });
    let rows = link.rows(9);
    assert_eq!((rows.len(), rows[0].state, rows[0].pending_since, rows[0].bytes), (1, RowState::Pending, 1, 200));
    assert_eq!((link.shown(8).parked_versions, link.shown(8).pending_bytes), (0, 200));
}

#[test]
fn parked_versions_are_counted_by_reason_until_they_go() {
    let of = |key: &str, reason| Row { reason, ..row(key, 1, RowState::Parked) };
    let rows = [of("a", Reason::Grant), of("b", Reason::Bucket), of("c", Reason::Grant)];
    let pending = Row { reason: Reason::Bucket, ..row("d", 1, RowState::Pending) };
    let mut link = Link::new(settings(), None, [&rows[..], &[pending]].concat(), 1);
    let by = |link: &Link| link.shown(0).parked_by.into_iter().collect::<Vec<_>>();
    assert_eq!(by(&link), [(Reason::Grant, 2), (Reason::Bucket, 1)]);
    let named = |key: &str| Event::Retry(Again { key: Some(key.into()), ..Again::default() });
    link.step(0, named("a"));
    link.step(0, named("b"));
    assert_eq!(by(&link), [(Reason::Grant, 1)], "a reason without any is left out");
}

#[test]
fn a_row_goes_again_for_what_it_failed_for_last_and_in_its_own_trace() {
    let mut link = up(settings());
    let traced = |mark: &str| Change { traceparent: Some(mark.into()), ..change(1, "here") };
    let id = pushes(&link.step(1, Event::Changed { changes: vec![traced("first")], cursor: cursor(1) }))[0];
    link.step(2, Event::PushFailed { id, failure: Failure::Retryable(Why::new(Reason::Unavailable, "503")) });
    let kept = link.rows(1);
    assert_eq!((kept[0].reason, kept[0].traceparent.as_deref()), (Reason::Unavailable, Some("first")));
    // As the next life of the link reads it.
    let mut link = Link::new(settings(), None, kept, 1);
    link.step(3, Event::PeerUp);
    let again = link.step(1_000_000, Event::Tick);
    let trace = |a: &Action| match a {
        Action::PushRow { pending_since, traceparent, .. } => Some((*pending_since, traceparent.clone())),
        _ => None,
    };
    assert_eq!(again.iter().find_map(trace), Some((change(1, "here").pending_since, Some("first".to_string()))));
    link.step(1_000_001, refused(pushes(&again)[0]));
    assert_eq!(link.rows(1)[0].reason, Reason::Grant);
    // The later of two traces goes on; a change without one takes none away.
    for (at, mark, goes_on) in [(1_000_002, Some("second"), "second"), (1_000_003, None, "second")] {
        let newer = Change { traceparent: mark.map(Into::into), ..change(1, "here") };
        let ids = pushes(&link.step(at, Event::Changed { changes: vec![newer], cursor: cursor(at) }));
        link.step(at, Event::PushFailed { id: ids[0], failure: Failure::Retryable(why("503")) });
        assert_eq!(link.rows(1)[0].traceparent.as_deref(), Some(goes_on));
    }
}
