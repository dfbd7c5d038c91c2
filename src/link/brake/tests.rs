//! What the brake promises: never more deletes than its terms allow, and nothing held that is no mass.
use super::super::tests::{changed, cursor, delete, place, pushes, record, settings, taken, why};
use super::super::{Action, Event, Failure, Link, Settings};
use super::*;
use proptest::prelude::*;

const TERMS: Terms = Terms { percent: 10, window_millis: 64_000, versions_min: 20 };
const NOW: Millis = 1_000_000;
/// Keys take turns, and of each one flies at a time.
const KEYS: usize = 10;

/// A link with these terms, which has begun at time 0.
fn link() -> Link {
    let wide = Settings { brake: Some(TERMS), window_versions: 1000, ..settings() };
    let mut link = Link::new(wide, None, Vec::new(), 1);
    let out = link.step(0, Event::PeerUp);
    if let Some((seq, _)) = record(&out) {
        link.step(0, Event::Recorded { seq });
    }
    link
}

fn deletes(places: std::ops::RangeInclusive<u64>) -> Event {
    let cursor = cursor(*places.end());
    Event::Changed { changes: places.map(delete).collect(), cursor }
}

/// Counts the bucket as `versions` where it is asked; all that is done.
fn counted(link: &mut Link, mut out: Vec<Action>, versions: u64) -> Vec<Action> {
    if out.contains(&Action::Count) {
        out.extend(link.step(NOW, Event::Counted { versions }));
    }
    out
}

#[test]
fn a_mass_of_deletes_is_held_and_other_changes_go_on() {
    let mut link = link();
    let out = link.step(NOW, deletes(100..=140));
    assert!(out.contains(&Action::Count) && pushes(&out).is_empty(), "nothing flies before it is judged: {out:?}");
    let out = counted(&mut link, out, 200);
    assert!(out.contains(&Action::Rewind(None)), "what was taken in is read again: {out:?}");
    assert_eq!(link.shown(NOW).state, "braked");
    let out = link.step(NOW, deletes(100..=140));
    assert!(pushes(&out).is_empty());
    let shown = link.shown(NOW);
    assert_eq!((shown.braked_versions, shown.pending_versions, shown.oldest_pending), (41, 41, Some(100)));
    let out = link.step(NOW, changed(141..=143));
    let ids = pushes(&out);
    assert_eq!(ids.len(), 3, "puts go on");
    let mut kept = None;
    for out in ids.into_iter().map(|id| link.step(NOW, taken(id))).collect::<Vec<_>>() {
        kept = record(&out).map(|(_, record)| record.checkpoint).or(kept);
    }
    assert_eq!(kept.map_or(0, |c| place(&c.cursor)), 0, "no cursor passes what is held");
}

#[test]
fn a_release_lets_go_what_is_held_and_the_next_mass_is_held_again() {
    let mut link = link();
    let out = link.step(NOW, deletes(100..=140));
    counted(&mut link, out, 200);
    link.step(NOW, deletes(100..=140));
    let out = link.step(NOW, Event::Release);
    assert!(out.contains(&Action::Rewind(None)), "{out:?}");
    assert_eq!(pushes(&link.step(NOW, deletes(100..=140))).len(), KEYS);
    assert_eq!(link.shown(NOW).braked_since, None);
    let out = link.step(NOW, deletes(NOW + 1..=NOW + 41));
    let out = counted(&mut link, out, 200);
    assert!(pushes(&out).is_empty(), "{out:?}");
    assert!(link.shown(NOW).braked_since.is_some());
}

#[test]
fn an_engaged_brake_outlives_the_process_and_a_raised_number_releases_it() {
    let mut first = link();
    let out = first.step(NOW, deletes(100..=140));
    let kept = counted(&mut first, out, 200).iter().rev().find_map(|a| match a {
        Action::Record { record, .. } => Some(record.checkpoint.clone()),
        _ => None,
    });
    let kept = kept.expect("an engaged brake is news");
    assert_eq!(kept.brake.and_then(|b| b.engaged_at), Some(NOW));
    let wide = Settings { brake: Some(TERMS), window_versions: 1000, ..settings() };
    let mut again = Link::new(wide.clone(), Some(kept.clone()), Vec::new(), 1);
    again.step(NOW, Event::PeerUp);
    assert!(pushes(&again.step(NOW, deletes(100..=101))).is_empty(), "two are held too: it is engaged");
    again.step(NOW, Event::RuleAltered(Settings { brake_release: 1, ..wide.clone() }));
    again.step(NOW, Event::Tick);
    assert_eq!(pushes(&again.step(NOW, deletes(100..=101))).len(), 2);
    let mut raised = Link::new(Settings { brake_release: 1, ..wide }, Some(kept), Vec::new(), 1);
    raised.step(NOW, Event::PeerUp);
    assert_eq!(pushes(&raised.step(NOW, deletes(100..=101))).len(), 2, "raised while nobody ran it");
}

#[test]
fn few_deletes_of_a_large_bucket_and_deletes_older_than_the_rule_go() {
    let mut large = link();
    let out = large.step(NOW, deletes(100..=140));
    assert_eq!(pushes(&counted(&mut large, out, 100_000)).len(), KEYS);
    let mut few = link();
    assert_eq!(pushes(&few.step(NOW, deletes(100..=108))).len(), 9, "below half of the minimum nothing is counted");
    assert!(few.step(NOW, deletes(109..=109)).contains(&Action::Count), "from half of it on the bucket is");
    let wide = Settings { brake: Some(TERMS), window_versions: 1000, ..settings() };
    let mut new = Link::new(wide, None, Vec::new(), 1);
    new.step(NOW, Event::PeerUp);
    assert_eq!(pushes(&new.step(NOW, deletes(100..=140))).len(), KEYS, "committed before the link began");
}

#[test]
fn a_bucket_that_grew_since_it_was_counted_is_counted_again_before_anything_is_held() {
    let mut link = link();
    let out = link.step(NOW, deletes(100..=112));
    assert!(out.contains(&Action::Count), "half of the minimum: {out:?}");
    for id in pushes(&counted(&mut link, out, 100)) {
        link.step(NOW, taken(id));
    }
    let later = NOW + TERMS.window_millis / 2;
    let out = link.step(later, deletes(113..=140));
    assert!(out.contains(&Action::Count) && pushes(&out).is_empty(), "41 of 100 were a mass: {out:?}");
    assert_eq!(link.shown(later).braked_since, None);
    let out = link.step(later, Event::Counted { versions: 1_000 });
    assert!(!pushes(&out).is_empty() && !out.contains(&Action::Count), "41 of 1,000 are none: {out:?}");
    assert_eq!(link.shown(later).braked_since, None);
}

#[test]
fn a_mass_that_grows_while_it_is_counted_is_held_by_that_count() {
    let mut link = link();
    let out = link.step(NOW, deletes(100..=125));
    assert!(out.contains(&Action::Count), "{out:?}");
    assert!(!link.step(NOW, deletes(126..=140)).contains(&Action::Count), "one count at a time");
    link.step(NOW, Event::Counted { versions: 200 });
    assert!(link.shown(NOW).braked_since.is_some(), "26 of 200 were one already");
}

#[test]
fn a_delete_that_is_shown_again_and_again_is_one() {
    let mut link = link();
    let out = link.step(NOW, deletes(100..=111));
    let mut out = counted(&mut link, out, 100);
    for _ in 0..10 {
        out.extend(link.step(NOW, deletes(100..=111)));
    }
    assert_eq!(link.shown(NOW).braked_since, None, "12 deletes were shown 132 times");
    // The peer refuses the first of them, over cuts again and again.
    for _ in 0..30 {
        let refused = Event::PushFailed { id: pushes(&out)[0], failure: Failure::Retryable(why("no")) };
        link.step(NOW, refused);
        link.step(NOW, Event::PeerDown);
        link.step(NOW, Event::PeerUp);
        out = link.step(NOW, deletes(100..=111));
    }
    assert_eq!(link.shown(NOW).braked_since, None, "12 deletes failed 30 times");
}

#[test]
fn deletes_that_do_not_wait_any_more_are_forgotten_and_the_others_are_not() {
    let mut slots = Slots::default();
    for is_marker in [true, false, true] {
        slots.add(7, is_marker);
    }
    slots.remove(7, true);
    assert_eq!(slots.within(7), (2, 1));
    slots.remove(7, true);
    slots.remove(7, false);
    assert!(slots.0.is_empty(), "nothing is kept of what is over");
}

/// A delete committed at this time goes to the peer.
fn goes(brake: &mut Brake, at: Millis) {
    let one = Change { pending_since: at, ..delete(1) };
    assert_eq!(brake.judge(&TERMS, &one), Verdict::Goes);
    brake.land(&TERMS, &one, true);
}

#[test]
fn a_reader_a_window_behind_finds_what_went_then() {
    let mut brake = Brake::load(Some(Kept::default()));
    (1..TERMS.versions_min).for_each(|_| goes(&mut brake, NOW));
    goes(&mut brake, NOW + 3 * TERMS.window_millis / 2);
    assert_eq!(brake.call(NOW, &TERMS), Call::Count { ask: true, wait: false }, "one less than the minimum");
    goes(&mut brake, NOW + 1);
    assert_eq!(brake.call(NOW, &TERMS), Call::Count { ask: false, wait: true });
}

#[test]
fn other_terms_count_anew() {
    let mut link = link();
    let out = link.step(NOW, deletes(100..=111));
    let mut flying = pushes(&counted(&mut link, out, 1_000));
    while let Some(id) = flying.pop() {
        flying.extend(pushes(&link.step(NOW, taken(id))));
    }
    let stricter = Terms { percent: 1, ..TERMS };
    link.step(NOW, Event::RuleAltered(Settings { brake: Some(stricter), window_versions: 1000, ..settings() }));
    assert_eq!(link.shown(NOW).braked_since, None);
    assert_eq!(pushes(&link.step(NOW, deletes(112..=120))).len(), 9);
    assert!(!link.step(NOW, Event::Tick).contains(&Action::Count), "nine since then");
}

#[test]
fn a_count_serves_for_a_window_and_a_mass_it_has_let_go_is_not_held_against_later_deletes() {
    let mut brake = Brake::load(Some(Kept::default()));
    (0..TERMS.versions_min).for_each(|_| goes(&mut brake, NOW));
    assert_eq!(brake.call(NOW, &TERMS), Call::Count { ask: true, wait: true });
    brake.counted(NOW, 1_000);
    let end = NOW + TERMS.window_millis;
    assert_eq!(brake.call(end - 1, &TERMS), Call::Nothing, "20 of 1,000");
    goes(&mut brake, NOW + 10 * TERMS.window_millis);
    assert_eq!(brake.call(NOW + 10 * TERMS.window_millis, &TERMS), Call::Nothing, "one");
    let mut brake = Brake::load(Some(Kept::default()));
    (0..TERMS.versions_min).for_each(|_| goes(&mut brake, NOW));
    brake.counted(NOW, 1_000);
    assert_eq!(brake.call(end, &TERMS), Call::Count { ask: true, wait: true }, "it is a window old");
}

#[test]
fn a_bucket_is_not_counted_for_ever_because_of_a_few_deletes_long_ago() {
    let mut brake = Brake::load(Some(Kept::default()));
    (0..TERMS.versions_min / 2).for_each(|_| goes(&mut brake, NOW));
    assert_eq!(brake.call(NOW, &TERMS), Call::Count { ask: true, wait: false });
    brake.counted(NOW, 1_000);
    assert_eq!(brake.call(NOW, &TERMS), Call::Nothing);
    assert_eq!(brake.call(NOW + 2 * TERMS.window_millis, &TERMS), Call::Nothing, "it went by a count");
}

proptest! {
    /// However deletes are spread and however often what waits is read again: what the peer takes within one window
    /// stays below the terms, and what stays below them is never held.
    #[test]
    fn the_peer_never_takes_a_mass(
        steps in prop::collection::vec((0u64..4_000, any::<bool>()), 1..200),
        total in 1u64..2_000,
    ) {
        let mut brake = Brake::load(Some(Kept::default()));
        let (mut at, mut went, mut offered): (Millis, Vec<Millis>, Vec<Millis>) = (NOW, Vec::new(), Vec::new());
        for (pause, again) in steps {
            at += pause;
            offered.push(at);
            let one = Change { pending_since: at, ..delete(1) };
            if again {
                // A line fell: what waited is read again.
                prop_assume!(brake.engaged_at().is_none());
                brake.judge(&TERMS, &one);
                brake.forget_waiting();
            }
            let verdict = brake.judge(&TERMS, &one);
            let mut call = brake.call(at, &TERMS);
            while let Call::Count { ask: true, .. } = call {
                brake.counted(at, total);
                call = brake.call(at, &TERMS);
            }
            if call == Call::Engaged {
                brake.forget_waiting();
                break;
            }
            prop_assert_eq!(verdict, Verdict::Goes);
            brake.land(&TERMS, &one, true);
            went.push(at);
        }
        let most = |times: &[Millis], window: Millis| {
            let within = |end: &Millis| times.iter().filter(|t| **t <= *end && **t + window > *end).count() as u64;
            times.iter().map(within).max().unwrap_or(0)
        };
        let is_mass = |deletes: u64| {
            deletes >= TERMS.versions_min && deletes * 100 >= u64::from(TERMS.percent) * total.saturating_sub(deletes)
        };
        // A window slides in steps of one slot.
        let slot = TERMS.window_millis / SLOTS;
        prop_assert!(!is_mass(most(&went, TERMS.window_millis - slot)), "{} went", went.len());
        if brake.engaged_at().is_some() {
            prop_assert!(is_mass(most(&offered, TERMS.window_millis)), "{offered:?}");
        }
    }
}
