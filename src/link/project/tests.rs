//! What a rule excludes is no difference; what it brings is one until it is there.
use super::super::reconcile::{Ask, Descent, Difference, Digest, KeyRange};
use super::*;
use proptest::prelude::*;
use storage_engine::version::guard::{Mode, Retention};
use storage_engine::version::{Birth, Hlc, Order, Stamp, Tags, VersionId, merge};

const A: &str = "ams";
const B: &str = "fra";
const C: &str = "waw";

fn rule() -> Projection {
    Projection {
        prefix: "in/".into(),
        tags: BTreeMap::new(),
        yields_to: Vec::new(),
        source: Origin::new(A),
        target: Origin::new(B),
        forward_all: false,
        delete_markers: true,
        version_deletes: true,
        object_lock: true,
        since: None,
    }
}

fn born(key: &str, origin: &str, kind: Kind) -> Version {
    let id = VersionId::from_bytes([7; 16]);
    let birth = Birth::blank(Order { hlc: Hlc::from_millis(1), origin: Origin::new(origin), version_id: id }, kind);
    Version { birth: Some(birth), ..Version::blank(key, id) }
}

fn stamp(at: u64, origin: &str) -> Stamp {
    Stamp { hlc: Hlc::from_millis(at), origin: Origin::new(origin), unknown: Default::default() }
}

fn tagged(mut version: Version, at: u64, origin: &str, value: &str) -> Version {
    let set = BTreeMap::from([("class".into(), value.into())]);
    version.tags = Some(Tags { stamp: stamp(at, origin), set, unknown: Default::default() });
    version
}

fn purged(mut version: Version, at: u64, origin: &str) -> Version {
    version.purges = stamp(at, origin).into();
    version
}

/// What the rule finds between one version here and what is held of it there.
fn found(rule: &Projection, here: Option<&Version>, there: Option<&Version>) -> Vec<Difference> {
    let there: Vec<_> = there.and_then(|v| rule.answer(v)).into_iter().collect();
    let here: Vec<_> = here.and_then(|v| rule.item(v)).into_iter().collect();
    let mut descent = Descent::new(KeyRange::default(), here);
    while let Some(ask) = descent.ask() {
        match ask {
            Ask::Digests(ranges) => descent.digests(&vec![Digest::of(&there); ranges.len()]).unwrap(),
            Ask::Items { .. } => descent.items(there.clone(), true).unwrap(),
        }
    }
    descent.differences()
}

fn is_only_here(found: &[Difference]) -> bool {
    matches!(found, [Difference::OnlyHere { .. }])
}

#[test]
fn what_the_rule_brings_differs_until_it_is_there() {
    let object = born("in/1", A, Kind::Object);
    let r = rule();
    assert!(is_only_here(&found(&r, Some(&object), None)));
    assert_eq!(found(&r, Some(&object), Some(&object)), []);
    let tags = tagged(object.clone(), 5, A, "x");
    assert!(matches!(found(&r, Some(&tags), Some(&object))[..], [Difference::Unlike { .. }]));
    let gone = purged(object.clone(), 5, A);
    assert!(matches!(found(&r, Some(&gone), Some(&object))[..], [Difference::Unlike { .. }]));
    assert!(matches!(found(&r, None, Some(&object))[..], [Difference::OnlyThere { .. }]));
    assert_eq!(
        found(&r, Some(&gone), Some(&purged(Version::blank("in/1", object.id), 5, A))),
        [],
        "births are forgotten"
    );
}

#[test]
fn tags_that_another_site_overwrote_here_are_told_from_what_is_lost_here() {
    let r = rule();
    let first = tagged(born("in/1", B, Kind::Object), 5, A, "x");
    let later = tagged(first.clone(), 6, C, "y");
    let [Difference::OnlyThere { is_gone: false, .. }] = found(&r, Some(&later), Some(&first))[..] else {
        panic!("tags of the source stand there alone");
    };
    assert!(r.is_overwritten(&later));
    assert!(!r.is_overwritten(&first) && !r.is_overwritten(&born("in/1", B, Kind::Object)), "no tags took their place");
    assert!(!r.is_overwritten(&tagged(born("in/1", A, Kind::Object), 6, C, "y")), "its birth is the source's");
    let gone = purged(first, 7, A);
    assert!(matches!(found(&r, Some(&later), Some(&gone))[..], [Difference::OnlyThere { is_gone: true, .. }]));
}

#[test]
fn what_the_rule_excludes_is_no_difference() {
    let r = rule();
    assert_eq!(found(&r, Some(&born("out/1", A, Kind::Object)), None), [], "another prefix");
    assert_eq!(found(&r, Some(&born("in/1", C, Kind::Object)), None), [], "another site's");
    assert_eq!(found(&r, None, Some(&born("in/1", B, Kind::Object))), [], "a one-way rule never pulls");
    let marker = born("in/1", A, Kind::DeleteMarker);
    assert!(is_only_here(&found(&r, Some(&marker), None)));
    assert_eq!(found(&Projection { delete_markers: false, ..r.clone() }, Some(&marker), None), []);
    let object = born("in/1", A, Kind::Object);
    let keeps = Projection { version_deletes: false, ..r.clone() };
    assert_eq!(found(&keeps, Some(&purged(object.clone(), 5, A)), Some(&object)), [], "purges do not travel");
    let higher = Filter { prefix: "in/".into(), tags: BTreeMap::new() };
    assert_eq!(found(&Projection { yields_to: vec![higher], ..r.clone() }, Some(&object), None), [], "another rule's");
    let filtered = Projection { tags: BTreeMap::from([("class".into(), "x".into())]), ..r };
    assert_eq!(found(&filtered, Some(&object), None), []);
    let (inside, outside) = (tagged(object.clone(), 5, A, "x"), tagged(object, 6, A, "y"));
    assert!(is_only_here(&found(&filtered, Some(&inside), None)));
    assert_eq!(found(&filtered, Some(&outside), Some(&inside)), [], "tagged out of the rule");
    assert_eq!(found(&filtered, Some(&outside), Some(&outside)), []);
    let gone = |version: &Version| purged(version.clone(), 7, A);
    assert_eq!(found(&filtered, Some(&gone(&outside)), None), [], "a delete of what was never the rule's");
    assert!(is_only_here(&found(&filtered, Some(&gone(&inside)), None)));
    assert_eq!(found(&filtered, Some(&gone(&inside)), Some(&gone(&outside))), [], "it is gone there too");
}

#[test]
fn what_was_tagged_into_the_rule_is_missed_at_a_peer_that_holds_it_as_it_was() {
    let filtered = Projection { tags: BTreeMap::from([("class".into(), "x".into())]), ..rule() };
    let before = [born("in/1", A, Kind::Object), tagged(born("in/1", A, Kind::Object), 2, A, "y")];
    for before in before {
        let inside = tagged(before.clone(), 5, A, "x");
        assert!(matches!(found(&filtered, Some(&inside), Some(&before))[..], [Difference::Unlike { .. }]));
        assert_eq!(found(&filtered, Some(&inside), Some(&inside)), []);
        let gone = purged(before, 6, B);
        assert_eq!(found(&filtered, Some(&inside), Some(&gone)), [], "a tombstone answers missing");
    }
    // By another rule, of a higher priority, it was brought in the state it had then.
    let object = born("in/1", A, Kind::Object);
    let higher = Filter { prefix: "in/".into(), tags: BTreeMap::from([("class".into(), "y".into())]) };
    let lower = Projection { yields_to: vec![higher], ..rule() };
    let (theirs, ours) = (tagged(object.clone(), 2, A, "y"), tagged(object, 5, A, "x"));
    assert!(matches!(found(&lower, Some(&ours), Some(&theirs))[..], [Difference::Unlike { .. }]));
}

#[test]
fn what_is_older_than_the_rule_is_no_difference_and_what_changed_since_is() {
    let late = Projection { since: Some(4), ..rule() };
    let old = born("in/1", A, Kind::Object);
    assert_eq!(found(&late, Some(&old), None), [], "born before");
    assert_eq!(found(&late, None, Some(&old)), [], "brought by a rule of old");
    assert_eq!(found(&late, Some(&purged(old.clone(), 3, A)), Some(&old)), [], "purged before");
    assert!(is_only_here(&found(&late, Some(&tagged(old.clone(), 4, A, "x")), None)), "changed since");
    let theirs = tagged(old.clone(), 5, C, "x");
    assert_eq!(found(&late, Some(&theirs), None), [], "changed since by another site, which brings its part");
}

#[test]
fn what_was_changed_since_the_rule_is_missed_at_a_peer_that_holds_the_state_of_before() {
    let late = Projection { since: Some(4), ..rule() };
    let old = held(born("in/1", A, Kind::Object), true, 2, A);
    for before in [born("in/1", A, Kind::Object), old, retained(born("in/1", A, Kind::Object), Mode::Compliance, 2, A)]
    {
        let changed = |at: u64| {
            [
                tagged(before.clone(), at, A, "x"),
                held(before.clone(), true, at, A),
                retained(before.clone(), Mode::Compliance, at, A),
                purged(before.clone(), at, A),
            ]
        };
        for since in changed(5) {
            assert!(matches!(found(&late, Some(&since), Some(&before))[..], [Difference::Unlike { .. }]), "{since:?}");
            assert!(is_only_here(&found(&late, Some(&since), None)), "{since:?}");
            assert_eq!(found(&late, Some(&since), Some(&since)), []);
            assert_eq!(found(&late, Some(&before), Some(&since)), [], "it was changed there");
        }
        for earlier in changed(3) {
            assert_eq!(found(&late, Some(&earlier), Some(&before)), [], "changed before the rule: {earlier:?}");
            assert_eq!(found(&late, Some(&earlier), None), []);
        }
    }
    let guards = held(Version::blank("in/1", VersionId::from_bytes([7; 16])), true, 2, A);
    let tags = tagged(held(born("in/1", A, Kind::Object), true, 2, A), 5, A, "x");
    assert!(is_only_here(&found(&late, Some(&tags), Some(&guards))), "only old guards are there");
}

#[test]
fn a_tombstone_answers_missing() {
    let object = born("in/1", A, Kind::Object);
    for origin in [B, C] {
        let gone = purged(object.clone(), 5, origin);
        assert_eq!(found(&rule(), Some(&object), Some(&gone)), [], "purged there by {origin}: that site brings it");
        assert_eq!(found(&rule(), Some(&gone), Some(&object)), []);
    }
}

fn held(mut version: Version, on: bool, at: u64, origin: &str) -> Version {
    let change = version.guards().hold(on, &stamp(at, origin));
    version.later_guards.join(&change);
    version
}

fn retained(mut version: Version, mode: Mode, at: u64, origin: &str) -> Version {
    let asked = Some(Retention { mode, until_millis: 1_000 });
    let change = version.guards().retain(asked, false, &stamp(at, origin)).unwrap_or_default();
    version.later_guards.join(&change);
    version
}

#[test]
fn a_guard_of_the_source_is_missed_at_the_peer_and_one_of_the_peer_is_its_own_matter() {
    let object = born("in/1", A, Kind::Object);
    let blind = Projection { object_lock: false, ..rule() };
    let guarded = [
        held(object.clone(), true, 5, A),
        retained(object.clone(), Mode::Governance, 5, A),
        retained(object.clone(), Mode::Compliance, 5, A),
    ];
    for here in &guarded {
        assert!(matches!(found(&rule(), Some(here), Some(&object))[..], [Difference::Unlike { .. }]), "{here:?}");
        assert_eq!(found(&rule(), Some(here), Some(&held(here.clone(), true, 6, B))), [], "the peer holds it too");
        assert_eq!(found(&blind, Some(here), Some(&object)), [], "the rule carries none");
    }
    let lifted = held(guarded[0].clone(), false, 7, A);
    assert!(matches!(found(&rule(), Some(&lifted), Some(&guarded[0]))[..], [Difference::Unlike { .. }]));
    let replica = born("in/1", B, Kind::Object);
    assert!(is_only_here(&found(&rule(), Some(&held(replica.clone(), true, 5, A)), Some(&replica))));
    assert_eq!(found(&rule(), Some(&held(replica.clone(), true, 5, B)), Some(&replica)), []);
    let mut at_birth = object.clone();
    at_birth.birth.as_mut().expect("it was born").guards = guarded[0].later_guards.clone();
    assert_eq!(found(&rule(), Some(&at_birth), Some(&guarded[0])), [], "since birth or since later");
}

#[test]
fn what_the_source_set_or_lifted_on_anothers_version_is_missed_at_the_peer() {
    let (r, object) = (rule(), born("in/1", C, Kind::Object));
    assert!(is_only_here(&found(&r, Some(&retained(object.clone(), Mode::Compliance, 5, A)), None)));
    for origin in [B, C] {
        let version = born("in/1", origin, Kind::Object);
        let compliant = retained(version.clone(), Mode::Compliance, 5, A);
        assert!(is_only_here(&found(&r, Some(&compliant), Some(&version))), "a date on {origin}'s version");
        let on = held(version.clone(), true, 5, origin);
        let lifted = held(on.clone(), false, 6, A);
        assert!(!found(&r, Some(&lifted), Some(&on)).is_empty(), "{origin}'s hold, lifted");
        assert_eq!(found(&r, Some(&on), Some(&lifted)), [], "it was lifted there");
        assert_eq!(found(&r, Some(&compliant), Some(&held(compliant.clone(), true, 7, B))), [], "it holds more");
    }
    let of_the_peer = held(born("in/1", B, Kind::Object), true, 5, B);
    assert_eq!(found(&r, None, Some(&of_the_peer)), [], "the peer's own matter");
}

#[test]
fn what_differs_beside_equal_guards_is_found() {
    let object = born("in/1", A, Kind::Object);
    let (here, there) = (held(tagged(object.clone(), 5, A, "x"), true, 6, A), held(object, true, 6, A));
    assert!(matches!(found(&rule(), Some(&here), Some(&there))[..], [Difference::Unlike { .. }]));
}

#[test]
fn a_version_of_which_only_guards_arrived_is_missing_there() {
    let object = born("in/1", A, Kind::Object);
    let guards = held(Version::blank("in/1", object.id), true, 5, A);
    assert!(is_only_here(&found(&rule(), Some(&object), Some(&guards))));
    assert!(is_only_here(&found(&rule(), Some(&held(object, true, 5, A)), Some(&guards))));
}

#[test]
fn what_the_peer_purged_first_is_not_told_as_purged_from_here() {
    let object = born("in/1", C, Kind::Object);
    let mut both = purged(object.clone(), 7, A);
    merge::join(&mut both, &purged(object, 6, B));
    assert_eq!(found(&rule(), None, Some(&both)), []);
}

#[test]
fn each_sites_purge_is_missed_where_only_anothers_is() {
    let object = born("in/1", C, Kind::Object);
    let (ours, theirs) = (purged(object.clone(), 6, A), purged(object.clone(), 7, B));
    assert!(!found(&rule(), Some(&ours), Some(&theirs)).is_empty(), "an earlier one");
    assert_eq!(found(&rule(), Some(&theirs), Some(&ours)), [], "the peer's link brings it");
    let mut both = ours.clone();
    merge::join(&mut both, &theirs);
    assert_eq!(found(&rule(), Some(&ours), Some(&both)), []);
    let hold = held(object.clone(), true, 5, C);
    let void = Version { purges: ours.purges.clone(), ..hold.clone() };
    assert!(void.is_purged_in_vain());
    assert!(!found(&rule(), Some(&void), Some(&hold)).is_empty(), "one that is void");
    let seen = Purges::one(hold.guards(), stamp(8, B));
    let gone = Version { purges: seen, ..held(hold.clone(), false, 7, C) };
    let again = held(hold, true, 9, A);
    assert!(!found(&rule(), Some(&again), Some(&gone)).is_empty(), "a guard that voids the purge there");
}

#[test]
fn a_relay_compares_what_others_made() {
    let relay = Projection { forward_all: true, ..rule() };
    assert!(is_only_here(&found(&relay, Some(&born("in/1", C, Kind::Object)), None)));
    assert_eq!(found(&relay, Some(&born("in/1", B, Kind::Object)), None), [], "the peer's own");
    let hash = |version: &Version| relay.item(version).and_then(|item| item.hash);
    for (birth, tags) in [(B, C), (C, B)] {
        let object = born("in/1", birth, Kind::Object);
        assert_ne!(
            hash(&tagged(object.clone(), 5, tags, "x")),
            hash(&tagged(object, 5, tags, "y")),
            "not wholly its own"
        );
    }
}

/// Any state of one version, in pieces from three sites.
fn state() -> impl Strategy<Value = Version> {
    let origin = || prop::sample::select(vec![A, B, C]);
    let tags = prop::option::of((2u64..6, origin(), "[xy]"));
    let purge = prop::option::of((2u64..6, origin()));
    let kind = prop::sample::select(vec![Kind::Object, Kind::DeleteMarker]);
    let guards = prop::collection::vec((0u8..4, 2u64..6, origin()), 0..3);
    (origin(), kind, tags, purge, guards).prop_map(|(by, kind, tags, purge, guards)| {
        let version = guards.into_iter().fold(born("in/1", by, kind), |v, (what, at, by)| match what {
            0 | 1 => held(v, what == 0, at, by),
            2 => retained(v, Mode::Governance, at, by),
            _ => retained(v, Mode::Compliance, at, by),
        });
        let version = tags.into_iter().fold(version, |v, (at, by, value)| tagged(v, at, by, &value));
        purge.into_iter().fold(version, |v, (at, by)| purged(v, at, by))
    })
}

fn any_rule() -> impl Strategy<Value = Projection> {
    let filter = prop::option::of("[xy]");
    let since = prop::option::of(0u64..7);
    (any::<bool>(), any::<bool>(), any::<bool>(), filter, since).prop_map(
        |(forward_all, markers, deletes, filter, since)| Projection {
            since,
            forward_all,
            delete_markers: markers,
            version_deletes: deletes,
            tags: filter.into_iter().map(|value| ("class".to_string(), value)).collect(),
            ..rule()
        },
    )
}

/// The settings of a link under the rule, as far as they say what is sent.
fn settings(rule: &Projection) -> Settings {
    Settings {
        forward_all: rule.forward_all,
        delete_markers: rule.delete_markers,
        version_deletes: rule.version_deletes,
        prefix: rule.prefix.clone(),
        tags: rule.tags.clone(),
        own_origin: rule.source.clone(),
        peer_origin: rule.target.clone(),
        ..super::super::tests::settings()
    }
}

/// What is done to a version, when and by whom: a guard set, a hold lifted, or a purge by somebody who has seen all
/// guards that are known there, or none.
type Done = (u8, u64, &'static str);

fn done(by: &'static [&'static str]) -> impl Strategy<Value = Vec<Done>> {
    prop::collection::vec((0u8..6, 2u64..9, prop::sample::select(by)), 0..4)
}

fn after(version: Version, all: &[Done]) -> Version {
    all.iter().fold(version, |mut v, (what, at, by)| match what {
        0 | 1 => held(v, *what == 0, *at, by),
        2 => retained(v, Mode::Governance, *at, by),
        3 => retained(v, Mode::Compliance, *at, by),
        what => {
            let seen = if *what == 4 { v.guards() } else { Guards::default() };
            v.purges.join(&Purges::one(seen, stamp(2_000 + *at, by)));
            v
        }
    })
}

/// As a store takes a part in: of a version that stays purged it keeps no birth.
fn arrive(there: &mut Version, mut part: Version) {
    let mut whole = there.clone();
    merge::join(&mut whole, &part);
    if there.birth.is_none() && whole.purged().is_some() {
        part.birth = None;
    }
    merge::join(there, &part);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    /// Purges on both sides too, of which some are void.
    #[test]
    fn what_is_sent_ends_the_difference_though_both_sides_purged(
        by in prop::sample::select(vec![A, B, C]), common in done(&[A, B, C]), ours in done(&[A, C]), theirs in done(&[B, C]),
        is_there: bool, is_held_at_birth: bool, forward_all: bool,
    ) {
        let rule = Projection { forward_all, ..rule() };
        // What a relay is to bring and this side lacks is a loss here, and no push mends it.
        let theirs: Vec<_> = theirs.into_iter().filter(|(.., by)| *by == B || !forward_all).collect();
        let mut birth = born("in/1", by, Kind::Object);
        if is_held_at_birth {
            birth.birth.as_mut().expect("born").guards = Guards::default().hold(true, &stamp(1, by));
        }
        let there = if is_there { birth.clone() } else { Version::blank("in/1", birth.id) };
        let (here, mut there) = (after(after(birth, &common), &ours), after(after(there, &common), &theirs));
        let settings = settings(&rule);
        let sent = crate::link::includes(&settings, &here).then(|| crate::link::to_send(&settings, &here)).flatten();
        sent.into_iter().for_each(|part| arrive(&mut there, part));
        let lacks = |d: &Difference| !matches!(d, Difference::OnlyThere { .. });
        let left: Vec<_> = found(&rule, Some(&here), Some(&there)).into_iter().filter(lacks).collect();
        prop_assert_eq!(left, [], "{:#?} {:#?}", here, there);
    }
}

proptest! {
    /// Else a comparison would find it again and again, and `verify` say "different" for ever.
    #[test]
    fn what_is_sent_ends_the_difference(here in state(), more in state(), is_there: bool, rule in any_rule()) {
        // Whether a version that is gone was a marker, a comparison leaves open.
        let rule = Projection { since: None, delete_markers: true, ..rule };
        // Purges there that this side lacks are a loss here, and no push mends it.
        let mut there = Version { later_guards: more.later_guards, ..Version::blank("in/1", here.id) };
        there.birth = here.birth.clone().filter(|_| is_there);
        let settings = settings(&rule);
        let sent = crate::link::includes(&settings, &here).then(|| crate::link::to_send(&settings, &here)).flatten();
        if let Some(part) = sent {
            merge::join(&mut there, &part);
        }
        let lacks = |d: &Difference| !matches!(d, Difference::OnlyThere { .. });
        let left: Vec<_> = found(&rule, Some(&here), Some(&there)).into_iter().filter(lacks).collect();
        prop_assert_eq!(left, []);
    }

    #[test]
    fn equal_states_never_differ(state in state(), rule in any_rule()) {
        prop_assert_eq!(found(&rule, Some(&state), Some(&state)), []);
    }

    #[test]
    fn a_site_that_holds_all_of_here_and_a_purge_more_does_not_differ(state in state(), rule in any_rule(), at in 2u64..6) {
        prop_assume!(state.purges.is_empty());
        let mut there = state.clone();
        merge::join(&mut there, &purged(Version::blank("in/1", state.id), at, B));
        prop_assert_eq!(found(&rule, Some(&state), Some(&there)), []);
    }

    #[test]
    fn what_is_missing_there_is_found_iff_the_rule_compares_it(state in state(), rule in any_rule()) {
        let compared = rule.item(&state).is_some_and(|item| item.hash.is_some());
        prop_assert_eq!(is_only_here(&found(&rule, Some(&state), None)), compared);
    }
}
