//! What a link promises to a peer that orders versions of a key by their arrival.
use super::*;

/// The change at `place`, of this key.
fn of_key(place: u64, key: &str) -> Change {
    let mut change = change(place, "here");
    Arc::make_mut(&mut change.version).key = key.into();
    change
}

/// Versions of pushes, in their order.
fn pushed_places(actions: &[Action]) -> Vec<u64> {
    let place = |id: &VersionId| u128::from_be_bytes(*id.as_bytes()) as u64;
    let of = |a: &Action| match a {
        Action::Push { change, .. } => Some(place(&change.version.id)),
        Action::PushRow { version_id, .. } => Some(place(version_id)),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

#[test]
fn by_arrival_the_version_born_first_flies_first() {
    let mut link = up(Settings { by_arrival: true, ..settings() });
    // The older one was tagged since, so the feed yields it behind the younger one.
    let changes = vec![of_key(5, "busy"), of_key(8, "busy"), of_key(6, "busy"), of_key(7, "other")];
    let out = link.step(1, Event::Changed { changes, cursor: cursor(9) });
    assert_eq!(pushed_places(&out), [5, 7], "one of a key at a time");
    let out = link.step(2, taken(pushes(&out)[0]));
    assert_eq!(pushed_places(&out), [6]);
    let out = link.step(3, taken(pushes(&out)[0]));
    assert_eq!(pushed_places(&out), [8]);
}

#[test]
fn by_arrival_a_version_that_failed_holds_back_its_key_and_nothing_else() {
    let mut link = up(Settings { by_arrival: true, ..settings() });
    let out = link.step(1, Event::Changed { changes: vec![of_key(5, "busy")], cursor: cursor(5) });
    let failure = Failure::Retryable(why("503"));
    link.step(2, Event::PushFailed { id: pushes(&out)[0], failure: failure.clone() });
    let changes = vec![of_key(6, "busy"), of_key(7, "busy"), of_key(8, "other")];
    let out = link.step(3, Event::Changed { changes, cursor: cursor(8) });
    assert_eq!(pushed_places(&out), [8], "the others of the key wait as rows");
    assert_eq!((link.shown(3).retry_versions, link.rows(9).len()), (3, 3));
    let behind = link.rows(9).iter().filter(|row| row.last_error.contains("an older version of its key")).count();
    assert_eq!(behind, 2);
    // Long after all are due, only the first goes; then the next.
    link.step(4, taken(pushes(&out)[0]));
    let out = link.step(1_000_000, Event::Tick);
    assert_eq!(pushed_places(&out), [5]);
    let out = link.step(1_000_001, taken(pushes(&out)[0]));
    assert_eq!(pushed_places(&out), [6]);
    let out = link.step(1_000_002, taken(pushes(&out)[0]));
    assert_eq!(pushed_places(&out), [7]);
    link.step(1_000_003, taken(pushes(&out)[0]));
    assert_eq!(link.shown(1_000_003).pending_versions, 0);
}

#[test]
fn by_arrival_a_parked_version_holds_back_its_key_until_a_person_lets_it_go() {
    let mut link = up(Settings { by_arrival: true, ..settings() });
    let mut out =
        link.step(1, Event::Changed { changes: vec![of_key(5, "busy"), of_key(6, "busy")], cursor: cursor(6) });
    let mut now = 1;
    while link.shown(now).parked_versions == 0 {
        assert_eq!(pushed_places(&out), [5]);
        link.step(now, refused(pushes(&out)[0]));
        now += 1_000_000;
        out = link.step(now, Event::Tick);
    }
    assert!(pushes(&out).is_empty(), "6 stays behind 5");
    // So it does over a restart.
    let rows = link.rows(9);
    let mut again = Link::new(Settings { by_arrival: true, ..settings() }, None, rows, 1);
    assert!(pushes(&again.step(now, Event::PeerUp)).is_empty());
    let out = again.step(now, Event::Retry(Again::default()));
    assert_eq!(pushed_places(&out), [5]);
    let out = again.step(now, taken(pushes(&out)[0]));
    assert_eq!(pushed_places(&out), [6]);
}
