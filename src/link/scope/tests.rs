use super::*;
use crate::link::tests::{change, delete, settings};
use crate::store::memory::MemoryStore;
use proptest::prelude::*;
use storage_engine::version::{Guards, Hlc, Origin, Stamp, VersionId};

fn any_filter() -> impl Strategy<Value = Filter> {
    let tag = (0..2usize, 0..2usize);
    (0..4usize, prop::collection::vec(tag, 0..2)).prop_map(|(prefix, tags)| Filter {
        prefix: ["", "a/", "a/b/", "c/"][prefix].into(),
        tags: tags.into_iter().map(|(n, v)| (["k", "l"][n].into(), ["1", "2"][v].into())).collect(),
    })
}

fn any_scope() -> impl Strategy<Value = Scope> {
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (any_filter(), prop::collection::vec(any_filter(), 0..3), switches).prop_map(|(filter, yields_to, on)| Scope {
        filter,
        yields_to,
        delete_markers: on.0,
        version_deletes: on.1,
        object_lock: on.3,
        forward_all: on.2,
    })
}

/// Any version: born here, there or elsewhere, object or marker, tagged, purged, held.
fn any_version() -> impl Strategy<Value = Version> {
    (0..3usize, 0..4usize, any::<[bool; 3]>(), any_filter()).prop_map(
        |(origin, prefix, [is_marker, is_purged, is_held], tags)| {
            let (id, key) = (VersionId::from_bytes([1; 16]), format!("{}x", ["", "a/", "a/b/", "c/"][prefix]));
            let mut store = MemoryStore::new(Origin::new(["here", "there", "elsewhere"][origin]));
            store.put(1, &key, id, if is_marker { Kind::DeleteMarker } else { Kind::Object }, 1);
            store.tag(1, &key, id, tags.tags).filter(|_| is_purged).and_then(|_| store.purge(1, &key, id));
            let mut version = store.get(&key, id).expect("it was just put").clone();
            if is_held {
                version.later_guards = Guards::default().hold(true, &Stamp::new(Hlc::from_millis(9), Origin::new("b")));
            }
            version
        },
    )
}

fn filter(prefix: &str, tags: &[(&str, &str)]) -> Filter {
    Filter { prefix: prefix.into(), tags: tags.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect() }
}

#[test]
fn filters_meet_unless_prefixes_part_or_a_tag_has_two_values() {
    let (one, two, other) = ([("k", "1")], [("k", "2")], [("l", "2")]);
    for (a, b, meets) in [
        (filter("a/", &[]), filter("a/b/", &[]), true),
        (filter("a/", &[]), filter("c/", &[]), false),
        (filter("a/", &one), filter("", &one), true),
        (filter("a/", &one), filter("a/", &two), false),
        (filter("a/", &one), filter("c/", &one), false),
        (filter("a/", &one), filter("a/", &other), true),
    ] {
        assert_eq!((a.meets(&b), b.meets(&a)), (meets, meets), "{a:?} {b:?}");
    }
}

#[test]
fn every_reason_to_send_nothing_is_told_and_is_one() {
    let (plain, marker, foreign) = (change(1, "here").version, delete(1).version, change(1, "there").version);
    let mut purged = Version::clone(&plain);
    purged.purges = Stamp::new(Hlc::from_millis(9), Origin::new("here")).into();
    let s = settings;
    for (settings, version, told) in [
        (s(), &*plain, None),
        (s(), &*marker, None),
        (s(), &purged, None),
        (Settings { prefix: "other".into(), ..s() }, &*plain, Some("the key does not begin with the rule's prefix")),
        (Settings { tags: filter("", &[("k", "1")]).tags, ..s() }, &*plain, Some("it does not carry the rule's tags")),
        (Settings { yields_to: vec![filter("key", &[])], ..s() }, &*plain, Some("a rule of higher priority sends it")),
        (Settings { yields_to: vec![filter("other", &[])], ..s() }, &*plain, None),
        (Settings { delete_markers: false, ..s() }, &*marker, Some("the rule sends no delete markers")),
        (Settings { delete_markers: false, ..s() }, &*plain, None),
        (Settings { version_deletes: false, ..s() }, &purged, Some("the rule sends no version deletes")),
        (Settings { version_deletes: false, ..s() }, &*plain, None),
        (Settings { forward_all: true, ..s() }, &*foreign, Some("it came from the peer")),
        (s(), &*foreign, Some("nothing of it was made at this site")),
    ] {
        assert_eq!(why_not(&settings, version), told);
        assert_eq!(includes(&settings, version), told.is_none(), "{told:?}");
    }
}

#[test]
fn a_version_is_sent_whole_where_its_guards_travel_or_it_has_none() {
    let plain = Version::clone(&change(1, "here").version);
    let hold = Guards::default().hold(true, &Stamp::new(Hlc::from_millis(9), Origin::new("here")));
    let held = Version { later_guards: hold, ..plain.clone() };
    let with = settings().scope();
    let without = Scope { object_lock: false, ..with.clone() };
    let sent = |scope: &Scope| [&plain, &held].map(|version| scope.sends_whole(&settings(), version));
    assert_eq!((sent(&with), sent(&without)), ([true, true], [true, false]));
}

#[test]
fn guards_stay_here_where_the_rule_carries_none() {
    let hold = Guards::default().hold(true, &Stamp::new(Hlc::from_millis(9), Origin::new("here")));
    let plain = Version::clone(&change(1, "here").version);
    let held = Version { later_guards: hold, ..plain.clone() };
    let bare = Settings { object_lock: false, ..settings() };
    assert_eq!(crate::link::to_send(&settings(), &held), Some(held.clone()));
    assert_eq!(crate::link::to_send(&bare, &held), Some(plain));
}

#[test]
fn a_scope_of_before_there_was_object_lock_let_guards_travel() {
    let mut kept = serde_json::to_value(Scope { object_lock: false, ..settings().scope() }).expect("it is plain data");
    kept.as_object_mut().expect("a struct").remove("object_lock");
    assert_eq!(serde_json::from_value::<Scope>(kept).expect("one field is missing"), settings().scope());
}

proptest! {
    /// What is called narrower lets nothing travel that the wider one did not: else widening would lose versions.
    #[test]
    fn a_scope_within_another_covers_no_more(inner in any_scope(), outer in any_scope(), version in any_version()) {
        let settings = settings();
        if inner.is_within(&outer) && inner.includes(&settings, &version) {
            prop_assert!(outer.includes(&settings, &version));
            prop_assert!(outer.sends_whole(&settings, &version) || !inner.sends_whole(&settings, &version));
        }
        prop_assert!(inner.is_within(&inner));
    }

    /// Else a rule that lets object lock travel from now on would not bring the guards that are there.
    #[test]
    fn nothing_guarded_was_sent_whole_without_its_guards(scope in any_scope(), version in any_version()) {
        let scope = Scope { object_lock: false, ..scope };
        prop_assert!(version.guards().is_empty() || !scope.sends_whole(&settings(), &version));
    }

    #[test]
    fn filters_that_both_cover_a_version_meet(a in any_filter(), b in any_filter(), version in any_version()) {
        prop_assert!(a.meets(&b) || !(a.covers(&version) && b.covers(&version)));
        prop_assert!(!a.is_within(&b) || !a.covers(&version) || b.covers(&version));
    }
}
