use super::*;
use crate::link::tests::settings;
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
