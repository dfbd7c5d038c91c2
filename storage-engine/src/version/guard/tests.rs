//! The laws of guards and purges, and what S3 says of each.
use super::*;
use proptest::prelude::*;

fn stamp(millis: u64, origin: &str) -> Stamp {
    Stamp::new(Hlc::from_millis(millis), Origin::new(origin))
}

fn governance(until_millis: u64) -> Option<Retention> {
    Some(Retention { mode: Mode::Governance, until_millis })
}

fn compliance(until_millis: u64) -> Option<Retention> {
    Some(Retention { mode: Mode::Compliance, until_millis })
}

fn joined(mut a: Guards, b: &Guards) -> Guards {
    a.join(b);
    a
}

pub fn guards() -> impl Strategy<Value = Guards> {
    let small = 0u64..6;
    let governed = prop::collection::btree_map(0usize..3, (small.clone(), small.clone(), small.clone()), 0..3);
    let held = prop::collection::btree_map(0usize..3, (small.clone(), small.clone()), 0..3);
    ((small.clone(), small), governed, held).prop_map(|((until_millis, on), governed, held)| {
        let compliance = Compliance { until_millis, on: Hlc::from_millis(on) };
        let origin = |i: usize| Origin::new(["a", "b", "c"][i]);
        let governance = governed.into_iter().map(|(i, (on, until_millis, cancelled))| {
            let (on, cancelled) = (Hlc::from_millis(on), Hlc::from_millis(cancelled));
            (origin(i), Governance { on, until_millis, cancelled })
        });
        let holds = held
            .into_iter()
            .map(|(i, (on, off))| (origin(i), Hold { on: Hlc::from_millis(on), cancelled: Hlc::from_millis(off) }));
        Guards { compliance, governance: governance.collect(), holds: holds.collect(), ..Guards::default() }
    })
}

/// Made by hand, so that the laws below do not rest on the join they are about.
pub fn purges() -> impl Strategy<Value = Purges> {
    prop::collection::vec((guards(), 0u64..8, 0usize..3), 0..3).prop_map(|made| {
        Purges(made.into_iter().map(|(seen, at, origin)| (seen, stamp(at, ["a", "b", "c"][origin]))).collect())
    })
}

proptest! {
    #[test]
    fn guards_join_as_a_semilattice(a in guards(), b in guards(), c in guards()) {
        prop_assert_eq!(joined(a.clone(), &b), joined(b.clone(), &a));
        prop_assert_eq!(joined(joined(a.clone(), &b), &c), joined(a.clone(), &joined(b, &c)));
        prop_assert_eq!(joined(a.clone(), &a), a);
    }

    #[test]
    fn purges_join_as_a_semilattice(a in purges(), b in purges(), c in purges()) {
        let join = |a: &Purges, b: &Purges| { let mut j = a.clone(); j.join(b); j };
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        prop_assert_eq!(join(&a, &a), a);
    }

    #[test]
    fn more_guards_never_make_a_void_purge_good(now in guards(), more in guards(), purges in purges()) {
        let later = joined(now.clone(), &more);
        if purges.effective(&now).is_none() {
            prop_assert!(purges.effective(&later).is_none());
        }
    }

    #[test]
    fn one_holds_all_of_another_iff_joining_it_in_teaches_nothing(a in guards(), b in guards(), p in purges(), q in purges()) {
        let (both, all) = (joined(a.clone(), &b), { let mut all = p.clone(); all.join(&q); all });
        prop_assert!(both.hold_all_of(&a) && both.hold_all_of(&b) && all.hold_all_of(&p) && all.hold_all_of(&q));
        prop_assert_eq!(a.hold_all_of(&b), both == a);
        prop_assert_eq!(p.hold_all_of(&q), all == p);
    }

    #[test]
    fn guards_survive_their_bytes(guards in guards()) {
        prop_assert_eq!(Guards::from_fields(guards.to_fields()).unwrap(), guards);
    }
}

#[test]
fn an_extension_made_beside_a_bypass_survives_it_and_voids_the_purge() {
    let mut here = Guards::default();
    here.join(&here.retain(governance(1_000), false, &stamp(1, "a")).unwrap());
    let mut there = here.clone();
    there.join(&there.retain(governance(2_000), false, &stamp(10, "b")).unwrap());
    here.join(&here.lift_governance());
    assert_eq!(here.permit_purge(20), Ok(()));
    let purge = Purges::one(here.clone(), stamp(20, "a"));
    assert!(purge.effective(&here).is_some());
    here.join(&there);
    assert!(purge.effective(&here).is_none());
    assert_eq!(here.permit_purge(30), Err(Refused::Governance { until_millis: 2_000 }));
}

#[test]
fn a_hold_lifted_later_does_not_revive_a_purge_that_had_not_seen_it() {
    let mut held = Guards::default();
    held.join(&held.hold(true, &stamp(10, "b")));
    let purge = Purges::one(Guards::default(), stamp(15, "a"));
    assert!(purge.effective(&held).is_none());
    held.join(&held.hold(false, &stamp(20, "b")));
    assert!(!held.is_held());
    assert!(purge.effective(&held).is_none());
}

#[test]
fn two_purges_that_each_saw_another_guard_do_not_add_up() {
    let a = Guards::default().hold(true, &stamp(1, "a"));
    let b = Guards::default().hold(true, &stamp(1, "b"));
    let lift = |g: &Guards| joined(g.clone(), &g.hold(false, &stamp(2, "a")));
    let mut purges = Purges::one(lift(&a), stamp(3, "a"));
    purges.join(&Purges::one(lift(&b), stamp(3, "b")));
    assert!(purges.effective(&joined(a, &b)).is_none());
}

#[test]
fn compliance_is_extended_but_never_shortened_lowered_or_bypassed() {
    let mut guards = Guards::default();
    guards.join(&guards.retain(compliance(1_000), false, &stamp(1, "a")).unwrap());
    let refused = Err(Refused::Compliance { until_millis: 1_000 });
    for weaker in [compliance(999), governance(5_000), None] {
        assert_eq!(guards.retain(weaker, true, &stamp(2, "a")), refused);
    }
    assert!(guards.retain(compliance(2_000), false, &stamp(2, "a")).is_ok());
    assert!(guards.retain(governance(3_000), false, &stamp(1_001, "a")).is_ok(), "it has expired");
    assert_eq!(guards.permit_purge(999).unwrap_err(), Refused::Compliance { until_millis: 1_000 });
    assert_eq!(guards.permit_purge(1_000), Ok(()));
}

#[test]
fn governance_is_shortened_only_with_a_bypass() {
    let mut guards = Guards::default();
    guards.join(&guards.retain(governance(1_000), false, &stamp(1, "a")).unwrap());
    assert!(guards.retain(governance(500), false, &stamp(2, "b")).is_err());
    guards.join(&guards.retain(governance(500), true, &stamp(2, "b")).unwrap());
    assert_eq!(guards.retention(), governance(500));
    guards.join(&guards.retain(None, true, &stamp(3, "a")).unwrap());
    assert_eq!(guards.retention(), None);
}

#[test]
fn a_purge_stamped_before_a_retention_ends_does_not_count() {
    let guards = Guards::default().retain(governance(1_000), false, &stamp(1, "a")).unwrap();
    assert!(Purges::one(guards.clone(), stamp(999, "a")).effective(&guards).is_none());
    assert!(Purges::one(guards.clone(), stamp(1_000, "a")).effective(&guards).is_some());
}

#[test]
fn a_mode_is_named_as_s3_names_it() {
    assert_eq!(
        ["GOVERNANCE", "COMPLIANCE", "governance", ""].map(Mode::named),
        [Some(Mode::Governance), Some(Mode::Compliance), None, None]
    );
    assert_eq!([Mode::Governance, Mode::Compliance].map(Mode::name), ["GOVERNANCE", "COMPLIANCE"]);
}

#[test]
fn a_version_is_born_with_the_retention_and_the_hold_that_were_asked_for() {
    assert!(Guards::at_birth(None, false, &stamp(1, "a")).is_empty());
    for asked in [governance(1_000), compliance(1_000)] {
        let guards = Guards::at_birth(asked, false, &stamp(1, "a"));
        assert_eq!((guards.retention(), guards.is_held(), guards.was_held()), (asked, false, false));
        assert!(guards.permit_purge(999).is_err());
        let guards = Guards::at_birth(asked, true, &stamp(1, "a"));
        assert_eq!((guards.retention(), guards.is_held(), guards.was_held()), (asked, true, true));
        assert_eq!(guards.permit_purge(2_000), Err(Refused::Hold), "a hold has no end");
    }
}

#[test]
fn a_lifted_hold_permits_a_purge_and_is_remembered() {
    let held = Guards::default().hold(true, &stamp(1, "a"));
    let lifted = joined(held.clone(), &held.hold(false, &stamp(2, "b")));
    assert_eq!((lifted.is_held(), lifted.was_held(), lifted.permit_purge(3)), (false, true, Ok(())));
    let again = joined(lifted.clone(), &lifted.hold(true, &stamp(4, "b")));
    assert!(again.is_held());
}

#[test]
fn on_the_day_it_ends_a_retention_binds_no_more_and_to_set_the_same_again_weakens_nothing() {
    let bound = Guards::at_birth(compliance(1_000), false, &stamp(1, "a"));
    assert!(bound.retain(None, false, &stamp(999, "a")).is_err());
    assert!(bound.retain(None, false, &stamp(1_000, "a")).is_ok());
    let bound = Guards::at_birth(governance(1_000), false, &stamp(1, "a"));
    assert!(bound.retain(governance(999), false, &stamp(999, "a")).is_err());
    assert!(bound.retain(governance(999), false, &stamp(1_000, "a")).is_ok());
    let same = bound.retain(governance(1_000), false, &stamp(2, "b")).unwrap();
    assert_eq!(same, Guards::at_birth(governance(1_000), false, &stamp(2, "b")), "and lifts nothing");
}

#[test]
fn without_what_a_site_set_others_guards_and_every_lifting_remain() {
    let (a, b) = (Origin::new("a"), Origin::new("b"));
    let set_at = |site: &str| {
        let set = Guards::at_birth(governance(1_000), true, &stamp(1, site));
        joined(set.clone(), &Guards::at_birth(compliance(500), false, &stamp(1, site)))
    };
    let date = Guards::at_birth(compliance(500), false, &stamp(1, "a"));
    assert_eq!(set_at("a").but_set_at(&a), date, "the compliance date is nobody's");
    assert_eq!(set_at("a").but_set_at(&b), set_at("a"));
    assert_eq!(joined(set_at("a"), &set_at("b")).but_set_at(&a), set_at("b"));
    let set = set_at("a");
    let lifting = joined(set.lift_governance(), &set.hold(false, &stamp(2, "b")));
    let rest = joined(set.clone(), &lifting).but_set_at(&a);
    assert_eq!(rest, joined(date, &lifting), "the lifting alone");
    let there = joined(set, &rest);
    assert!(!there.is_held() && there.lift_governance().max_hlc() == Hlc::from_millis(1));
    assert_eq!(there.permit_purge(501), Ok(()), "it lifts wherever it arrives");
}

#[test]
fn the_greatest_reading_is_that_of_the_last_setting_of_any_guard() {
    assert_eq!(Guards::default().max_hlc(), Hlc::ZERO);
    for (governed, held) in [(7, 3), (3, 7)] {
        let guards = Guards::at_birth(governance(1_000), false, &stamp(governed, "a"));
        let guards = joined(guards, &Guards::default().hold(true, &stamp(held, "b")));
        assert_eq!(guards.max_hlc(), Hlc::from_millis(7));
    }
}

#[test]
fn of_two_purges_that_saw_the_same_the_earlier_remains_and_those_of_a_site_can_be_told_apart() {
    let hold = Guards::default().hold(true, &stamp(1, "a"));
    let mut purges = Purges::from(stamp(5, "a"));
    for (seen, at) in [(Guards::default(), 4), (Guards::default(), 6), (hold.clone(), 3)] {
        purges.join(&Purges::one(seen, stamp(at, "b")));
    }
    let of = |purges: &Purges| purges.iter().map(|(seen, p)| (seen.clone(), p.clone())).collect::<Vec<_>>();
    assert_eq!(of(&purges), [(Guards::default(), stamp(4, "b")), (hold, stamp(3, "b"))]);
    assert!(!purges.is_empty());
    purges.retain(|p| p.hlc.millis() == 4);
    assert_eq!(of(&purges), [(Guards::default(), stamp(4, "b"))]);
    purges.retain(|p| p.origin == Origin::new("a"));
    assert!(purges.is_empty());
}

#[test]
fn what_was_never_set_is_not_written() {
    assert_eq!(Guards::default().to_fields(), Fields::default());
    let mut held = Guards::default().hold(true, &stamp(1, "a")).to_fields();
    assert!(held.take::<u64>(1).unwrap().is_none() && held.take::<Vec<Row>>(2).unwrap().is_none());
}
