//! What a link promises of the past: passes over existing versions, and comparisons where the feed has lost its place.
use super::*;

fn survey(actions: &[Action]) -> Option<Option<(u64, u64)>> {
    actions.iter().find_map(|a| match a {
        Action::Existing(told) => Some(told.as_ref().map(|s| (place(&s.cursor), place(&Some(s.until.clone()))))),
        _ => None,
    })
}

/// A link that covers key-1 and has come to place 20; keys are `key-{place % 10}`.
fn narrow() -> (Link, Settings) {
    let narrow = Settings { prefix: "key-1".into(), ..settings() };
    let mut link = up(narrow.clone());
    let mut all = pushes(&link.step(0, changed(1..=20)));
    while let Some(id) = all.pop() {
        all.extend(pushes(&link.step(0, taken(id))));
    }
    for seq in 0..9 {
        link.step(0, Event::Recorded { seq });
    }
    assert_eq!(link.shown(0).pending_versions, 0);
    (link, narrow)
}

#[test]
fn a_widened_filter_sends_what_was_there_behind_what_changes_now() {
    let (mut link, _) = narrow();
    let out = link.step(1, Event::RuleAltered(settings()));
    assert_eq!(survey(&out), Some(Some((0, 20))), "from the beginning to where the link stands");
    let (seq, kept) = record(&out).expect("the pass is durable before it begins");
    link.step(1, Event::Recorded { seq });
    assert!(kept.checkpoint.reach.is_some_and(|r| r.existing.is_some()));
    let first = pushes(&link.step(2, existing(1..=9, false)));
    assert_eq!(first.len(), 2, "half of the window, and key-1 was sent before");
    assert_eq!(link.shown(2).existing_versions, 8);
    let live = link.step(3, changed(28..=30));
    assert_eq!(pushes(&live).len(), 2, "the other half is for what changes now");
    let next = link.step(4, taken(pushes(&live)[0]));
    assert!(matches!(&next[1], Action::Push { change, .. } if change.pending_since == 30), "live first: {next:?}");
}

#[test]
fn a_pass_survives_a_crash_and_ends_by_itself() {
    let (mut link, _) = narrow();
    let mut told = link.step(1, Event::RuleAltered(settings()));
    let mut kept = Checkpoint::default();
    let mut flying = Vec::new();
    for event in [existing(1..=5, false), existing(6..=20, true), Event::Tick] {
        told.extend(link.step(2, event));
        while let Some(action) = told.pop() {
            match action {
                Action::Push { id, .. } => flying.push(id),
                Action::Record { seq, record } => {
                    kept = record.checkpoint;
                    told.extend(link.step(2, Event::Recorded { seq }));
                }
                _ => {}
            }
            if told.is_empty()
                && let Some(id) = flying.pop()
            {
                told.extend(link.step(2, taken(id)));
            }
        }
        if kept.reach.as_ref().is_some_and(|r| r.existing.as_ref().is_some_and(|e| place(&e.cursor) == 5)) {
            let mut again = Link::new(settings(), Some(kept.clone()), Vec::new(), 1);
            assert_eq!(survey(&again.step(3, Event::PeerUp)), Some(Some((5, 20))), "goes on where it was");
        }
    }
    let reach = kept.reach.clone().expect("it was recorded");
    assert_eq!((reach.existing, reach.covered), (None, Some(settings().scope())));
    let mut again = Link::new(settings(), Some(kept), Vec::new(), 1);
    assert_eq!(survey(&again.step(3, Event::PeerUp)), None, "it is over");
}

#[test]
fn what_was_left_out_at_first_comes_once_it_is_wanted() {
    let late = Settings { existing_objects: false, ..settings() };
    let at_head = Checkpoint { cursor: Some(cursor(20)), reach: Some(Reach::default()), ..Checkpoint::default() };
    let mut link = Link::new(late.clone(), Some(at_head.clone()), Vec::new(), 1);
    assert_eq!(survey(&link.step(0, Event::PeerUp)), None);
    let wider = Settings { prefix: String::new(), ..late };
    assert_eq!(survey(&link.step(1, Event::RuleAltered(wider))), None, "not wanted");
    assert_eq!(survey(&link.step(2, Event::RuleAltered(settings()))), Some(Some((0, 20))));
    let mut meanwhile = Link::new(settings(), Some(at_head), Vec::new(), 1);
    assert_eq!(survey(&meanwhile.step(0, Event::PeerUp)), Some(Some((0, 20))), "the rule changed while nobody ran it");
}

fn at_key(key: &str) -> Cursor {
    Cursor(Bytes::copy_from_slice(key.as_bytes()))
}

/// The survey told of, in whole.
fn comparison(actions: &[Action]) -> Option<Survey> {
    actions.iter().find_map(|a| if let Action::Existing(told) = a { told.clone() } else { None })
}

/// Acks everything and makes every record durable, until nothing is left; returns the last checkpoint.
fn settle(link: &mut Link, mut todo: Vec<Action>) -> Option<Checkpoint> {
    let mut kept = None;
    while let Some(action) = todo.pop() {
        match action {
            Action::Push { id, .. } => todo.extend(link.step(9, taken(id))),
            Action::Record { seq, record } => {
                kept = Some(record.checkpoint);
                todo.extend(link.step(9, Event::Recorded { seq }));
            }
            _ => {}
        }
    }
    kept
}

#[test]
fn a_place_the_feed_has_lost_is_made_up_for_by_comparing_every_key() {
    let mut link = up(settings());
    let flying = pushes(&link.step(1, changed(1..=2)));
    let out = link.step(2, Event::Expired { head: cursor(50) });
    assert!(out.contains(&Action::Rewind(Some(cursor(50)))), "{out:?}");
    let all = Survey { cursor: None, until: cursor(50), compares: true };
    assert_eq!(comparison(&out), Some(all));
    assert!(pushes(&link.step(3, taken(flying[0]))).is_empty(), "an answer from before is not counted");
    let kept = settle(&mut link, out).expect("durable at once");
    assert_eq!((kept.cursor, kept.floor, kept.committed_through), (Some(cursor(50)), None, 0));

    let found = |n: u64, key: &str, is_last| Event::Existing {
        changes: vec![change(n, "here")],
        cursor: if is_last { cursor(50) } else { at_key(key) },
        is_last,
    };
    let out = link.step(4, found(3, "key-3", false));
    let kept = settle(&mut link, out).expect("its place is kept");
    assert_eq!(kept.floor, None, "a key is no place in the feed");
    let mut again = Link::new(settings(), Some(kept), Vec::new(), 1);
    let on = Survey { cursor: Some(at_key("key-3")), until: cursor(50), compares: true };
    assert_eq!(comparison(&again.step(5, Event::PeerUp)), Some(on), "a restart goes on behind the key");
    let out = again.step(6, found(9, "", true));
    let kept = settle(&mut again, out).expect("its end is kept");
    assert_eq!((kept.cursor, kept.floor), (Some(cursor(50)), Some(cursor(50))));
    assert_eq!(kept.reach.and_then(|r| r.existing), None);
}

#[test]
fn a_comparison_waits_for_a_brake_that_holds_deletes() {
    let mut link = up(settings());
    let held = KeptBrake { engaged_at: Some(1), released_through: 0, release: 0 };
    let kept = Checkpoint { cursor: Some(cursor(20)), brake: Some(held), ..Checkpoint::default() };
    let terms = BrakeTerms { percent: 10, window_millis: 60_000, versions_min: 10 };
    let mut braked = Link::new(Settings { brake: Some(terms), ..settings() }, Some(kept), Vec::new(), 1);
    braked.step(1, Event::PeerUp);
    for (link, is_read) in [(&mut link, true), (&mut braked, false)] {
        let out = link.step(2, Event::Expired { head: cursor(50) });
        assert_eq!(comparison(&out).is_some(), is_read);
    }
    assert!(comparison(&braked.step(3, Event::Release)).is_some(), "a person let them go");
}

#[test]
fn a_comparison_begins_anew_under_a_wider_rule_and_goes_on_under_a_narrower_one() {
    let narrow = Settings { prefix: "key-1".into(), ..settings() };
    let mut link = up(narrow.clone());
    let out = link.step(1, Event::Expired { head: cursor(50) });
    settle(&mut link, out);
    let half = Event::Existing { changes: vec![change(11, "here")], cursor: at_key("key-11"), is_last: false };
    let out = link.step(2, half);
    settle(&mut link, out);
    let narrower = Settings { prefix: "key-11".into(), existing_objects: false, ..narrow };
    let out = link.step(3, Event::RuleAltered(narrower));
    let on = Survey { cursor: Some(at_key("key-11")), until: cursor(50), compares: true };
    assert_eq!(comparison(&out), Some(on), "what the feed lost is not what was there before the rule");
    let out = link.step(4, Event::RuleAltered(settings()));
    assert_eq!(comparison(&out).map(|s| (s.cursor, s.compares)), Some((None, true)));
}

#[test]
fn a_rule_that_leaves_existing_objects_knows_from_when_it_copies() {
    let late = Settings { existing_objects: false, ..settings() };
    let since = Since { at: 30, scope: late.scope(), remade: None };
    let reach = Some(Reach { since: Some(since), ..Reach::default() });
    let kept = Checkpoint { cursor: Some(cursor(20)), committed_through: 30, reach, ..Checkpoint::default() };
    let mut link = Link::new(late.clone(), Some(kept), Vec::new(), 1);
    assert_eq!(link.shown(40).copies_since, Some(30), "a start does not move it");
    link.step(40, Event::PeerUp);
    let out = link.step(41, Event::Expired { head: cursor(50) });
    settle(&mut link, out);
    let changes = vec![change(29, "here"), change(31, "here")];
    let sent = pushes(&link.step(42, Event::Existing { changes, cursor: cursor(50), is_last: true }));
    assert_eq!(sent.len(), 1, "born at 29 is left where it is");
    link.step(43, taken(sent[0]));
    link.step(44, Event::RuleAltered(Settings { prefix: "key-1".into(), ..late.clone() }));
    assert_eq!(link.shown(45).copies_since, Some(30), "less is covered");
    link.step(46, Event::RuleAltered(late));
    assert_eq!(link.shown(47).copies_since, Some(46), "what came back was left out meanwhile");
    link.step(48, Event::RuleAltered(settings()));
    assert_eq!(link.shown(49).copies_since, None);
}

#[test]
fn while_a_pass_runs_floor_and_commit_time_are_those_it_has_come_to() {
    let (mut link, _) = narrow();
    let out = link.step(1, Event::RuleAltered(settings()));
    let kept = settle(&mut link, out).expect("the pass is durable before it begins");
    assert_eq!((place(&kept.cursor), place(&kept.floor), kept.committed_through), (20, 0, 0));
    let out = link.step(2, existing(2..=4, false));
    let kept = settle(&mut link, out).expect("its place is kept");
    assert_eq!((place(&kept.cursor), place(&kept.floor), kept.committed_through), (20, 4, 4));
}

#[test]
fn what_a_pass_read_after_it_was_told_to_stop_is_read_again() {
    let (mut link, _) = narrow();
    link.step(1, Event::RuleAltered(settings()));
    let out = link.step(2, existing(2..=9, false));
    assert_eq!(survey(&out), Some(None), "a window of it waits: no more for now");
    link.step(3, existing(12..=15, false));
    assert_eq!(link.shown(3).existing_versions, 8);
    assert_eq!(link.survey().map(|s| place(&s.cursor)), Some(9), "it goes on behind what was kept");
}

#[test]
fn a_rule_that_is_to_leave_existing_objects_from_now_on_knows_what_it_has_brought() {
    let (mut link, narrow) = narrow();
    let late = Settings { existing_objects: false, ..narrow };
    link.step(1, Event::RuleAltered(Settings { prefix: "key-11".into(), ..late.clone() }));
    assert_eq!(link.shown(1).copies_since, None, "all of less was sent already");
    link.step(2, Event::RuleAltered(Settings { prefix: String::new(), ..late }));
    assert_eq!(link.shown(2).copies_since, Some(2), "of more only what changes from now on");
}

#[test]
fn a_comparison_under_a_rule_that_leaves_existing_objects_keeps_to_what_the_rule_covered() {
    let late = Settings { existing_objects: false, ..settings() };
    let since = Since { at: 30, scope: late.scope(), remade: None };
    let reach = Some(Reach { since: Some(since), ..Reach::default() });
    let kept = Checkpoint { cursor: Some(cursor(20)), committed_through: 30, reach, ..Checkpoint::default() };
    let mut link = Link::new(late.clone(), Some(kept), Vec::new(), 1);
    link.step(40, Event::PeerUp);
    let out = link.step(41, Event::Expired { head: cursor(50) });
    settle(&mut link, out);
    let mut at = 41;
    let mut told = |settings: Settings| {
        at += 2;
        let half = Event::Existing { changes: vec![change(31, "here")], cursor: at_key("key-1"), is_last: false };
        let out = link.step(at, half);
        let kept = settle(&mut link, out);
        assert!(kept.is_none_or(|kept| kept.committed_through == 0), "what the feed lost may be of any time");
        let out = link.step(at + 1, Event::RuleAltered(settings));
        let from = comparison(&out).expect("it goes on").cursor;
        settle(&mut link, out);
        (from, link.shown(at).copies_since)
    };
    assert_eq!(told(Settings { prefix: "key-1".into(), ..late.clone() }), (Some(at_key("key-1")), Some(30)));
    assert_eq!(told(late), (None, Some(30)), "keys it has passed over are covered again");
    assert_eq!(told(settings()), (None, None), "and now what was there before");
}

#[test]
fn of_a_bucket_made_again_what_it_held_is_copied_once_a_person_wants_it() {
    let withheld = Settings { existing_objects: false, ..settings() };
    let since = Since { at: 30, scope: withheld.scope(), remade: Some(7) };
    let reach = Some(Reach { since: Some(since), ..Reach::default() });
    let kept = Checkpoint { cursor: Some(cursor(20)), committed_through: 30, reach, ..Checkpoint::default() };
    let begun = || {
        let mut link = Link::new(withheld.clone(), Some(kept.clone()), Vec::new(), 1);
        let out = link.step(40, Event::PeerUp);
        settle(&mut link, out);
        link
    };
    let mut link = begun();
    assert_eq!(pushes(&link.step(41, changed(21..=22))).len(), 2, "what is written from now on goes");
    // A rule of higher priority has come: not a change of this one.
    let narrower =
        Settings { yields_to: vec![Filter { prefix: "key-3".into(), ..Filter::default() }], ..withheld.clone() };
    link.step(42, Event::RuleAltered(narrower));
    link.step(43, Event::RuleAltered(withheld.clone()));
    assert_eq!((link.remade(), link.shown(43).copies_since), (Some(7), Some(43)));
    let out = link.step(44, Event::RuleAltered(settings()));
    assert_eq!(survey(&out).map(|s| s.map(|(from, _)| from)), Some(Some(0)), "all of it, from the beginning");
    assert_eq!((link.remade(), link.shown(44).copies_since), (None, None));

    // A comparison of a part brings a part; one of all brings all, and nothing is sent twice.
    let mut link = begun();
    let part = Settings { prefix: "key-1".into(), ..withheld.clone() };
    let out = link.step(45, Event::Covered { scope: part.scope() });
    settle(&mut link, out);
    assert_eq!(link.remade(), Some(7));
    let out = link.step(46, Event::Covered { scope: withheld.scope() });
    let kept = settle(&mut link, out).expect("it is durable");
    assert_eq!(kept.reach.map(|r| (r.covered.is_some(), r.since)), Some((true, None)));
    let out = link.step(47, Event::RuleAltered(settings()));
    assert_eq!((survey(&out), link.remade()), (None, None));
}
