use super::*;
use crate::link::tests::settings;
use crate::store::memory::MemoryStore;
use proptest::prelude::*;
use storage_engine::version::{Origin, VersionId};

fn any_filter() -> impl Strategy<Value = Filter> {
    let tag = (0..2usize, 0..2usize);
    (0..4usize, prop::collection::vec(tag, 0..2)).prop_map(|(prefix, tags)| Filter {
        prefix: ["", "a/", "a/b/", "c/"][prefix].into(),
        tags: tags.into_iter().map(|(n, v)| (["k", "l"][n].into(), ["1", "2"][v].into())).collect(),
    })
}

fn any_scope() -> impl Strategy<Value = Scope> {
    let switches = (any::<bool>(), any::<bool>(), any::<bool>());
    (any_filter(), prop::collection::vec(any_filter(), 0..3), switches).prop_map(|(filter, yields_to, on)| Scope {
        filter,
        yields_to,
        delete_markers: on.0,
        version_deletes: on.1,
        forward_all: on.2,
    })
}

/// Any version: born here, there or elsewhere, object or marker, tagged, purged.
fn any_version() -> impl Strategy<Value = Version> {
    (0..3usize, 0..4usize, any::<bool>(), any::<bool>(), any_filter()).prop_map(
        |(origin, prefix, is_marker, is_purged, tags)| {
            let (id, key) = (VersionId::from_bytes([1; 16]), format!("{}x", ["", "a/", "a/b/", "c/"][prefix]));
            let mut store = MemoryStore::new(Origin::new(["here", "there", "elsewhere"][origin]));
            store.put(1, &key, id, if is_marker { Kind::DeleteMarker } else { Kind::Object }, 1);
            store.tag(1, &key, id, tags.tags).filter(|_| is_purged).and_then(|_| store.purge(1, &key, id));
            store.get(&key, id).expect("it was just put").clone()
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
        }
        prop_assert!(inner.is_within(&inner));
    }

    #[test]
    fn filters_that_both_cover_a_version_meet(a in any_filter(), b in any_filter(), version in any_version()) {
        prop_assert!(a.meets(&b) || !(a.covers(&version) && b.covers(&version)));
        prop_assert!(!a.is_within(&b) || !a.covers(&version) || b.covers(&version));
    }
}
