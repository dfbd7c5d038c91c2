//! The laws of the join, and the bytes that must be readable for ever.
use super::guard::tests::{guards, purges};
use super::merge::{is_conflict, join};
use super::*;
use crate::record::{Blob, BucketId, Record};
use minicbor::bytes::ByteVec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use uuid::Uuid;

fn origins() -> impl Strategy<Value = Origin> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(Origin::new)
}
/// Few readings, so that equal ones meet.
fn stamps() -> impl Strategy<Value = Stamp> {
    (0u64..4, origins(), unknowns()).prop_map(|(hlc, origin, unknown)| Stamp {
        hlc: Hlc::from_bits(hlc),
        origin,
        unknown,
    })
}
fn orders() -> impl Strategy<Value = Order> {
    stamps().prop_map(|s| Order { hlc: s.hlc, origin: s.origin, version_id: VersionId::from_bytes([1; 16]) })
}
fn unknowns() -> impl Strategy<Value = Fields> {
    prop::collection::btree_map(200u32..203, 0u64..3, 0..3).prop_map(|map| {
        let mut fields = Fields::default();
        map.iter().for_each(|(key, value)| fields.put(*key, value));
        fields
    })
}
fn births() -> impl Strategy<Value = Birth> {
    (orders(), prop::option::of(orders()), any::<bool>(), 0u64..2, guards(), unknowns()).prop_map(
        |(order, base, marker, size, guards, unknown)| Birth {
            order,
            base,
            kind: if marker { Kind::DeleteMarker } else { Kind::Object },
            size_bytes: size,
            etag: String::new(),
            crc64nvme: 0,
            checksums: BTreeMap::new(),
            parts: Vec::new(),
            headers: BTreeMap::new(),
            metadata: BTreeMap::new(),
            guards,
            unknown,
        },
    )
}
fn tags() -> impl Strategy<Value = Tags> {
    (stamps(), prop::collection::btree_map("[xy]", "[01]", 0..2), unknowns()).prop_map(|(stamp, set, unknown)| Tags {
        stamp,
        set,
        unknown,
    })
}
/// Any piece of one version: whatever arrived, in whatever order.
fn pieces() -> impl Strategy<Value = Version> {
    let parts = (prop::option::of(births()), prop::option::of(tags()), guards(), purges(), unknowns());
    parts.prop_map(|(birth, tags, later_guards, purges, unknown)| Version {
        birth,
        tags,
        later_guards,
        purges,
        unknown,
        ..Version::blank("key", VersionId::from_bytes([1; 16]))
    })
}
/// Where a record holds fields within fields: the number, what stands there, and whether it is a list.
enum Level {
    Record,
    Version,
    Birth,
    Order,
    Tags,
    Stamp,
    Part,
    Blob,
    Guards,
}
impl Level {
    fn below(&self) -> &'static [(u32, Level, bool)] {
        match self {
            Level::Record => &[(2, Level::Version, false), (5, Level::Blob, true)],
            Level::Version => &[
                (3, Level::Birth, false),
                (4, Level::Tags, false),
                (5, Level::Stamp, false),
                (6, Level::Guards, false),
            ],
            Level::Birth => &[
                (1, Level::Order, false),
                (2, Level::Order, false),
                (8, Level::Part, true),
                (11, Level::Guards, false),
            ],
            Level::Tags => &[(1, Level::Stamp, false)],
            Level::Order | Level::Stamp | Level::Part | Level::Blob | Level::Guards => &[],
        }
    }
    /// The same fields as a later version may write them: at every level some that we do not know.
    fn later(&self, bytes: &[u8], news: &mut impl Iterator<Item = Fields>) -> Vec<u8> {
        let mut fields = Fields::parse(bytes).unwrap();
        for (number, level, is_list) in self.below() {
            if *is_list {
                let list: Vec<ByteVec> = fields.need(*number).unwrap();
                let list: Vec<_> = list.iter().map(|one| ByteVec::from(level.later(one, news))).collect();
                fields.put(*number, &list);
            } else if let Some(one) = fields.take_bytes(*number).unwrap() {
                fields.put_bytes(*number, &level.later(&one, news));
            }
        }
        fields.join(&news.next().unwrap());
        fields.to_bytes()
    }
}
fn blob(id: u128) -> Blob {
    let id = Uuid::from_u128(id);
    Blob { id, size_bytes: 7, k: 4, m: 2, first: 1, stripe_bytes: 8, unknown: Fields::default() }
}
fn joined(a: &Version, b: &Version) -> Version {
    let mut out = a.clone();
    join(&mut out, b);
    out
}

proptest! {
    #[test]
    fn join_is_commutative_associative_and_idempotent(a in pieces(), b in pieces(), c in pieces()) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(joined(&a, &a), a.clone());
        prop_assert_eq!(joined(&joined(&a, &b), &b), joined(&a, &b));
    }

    #[test]
    fn join_says_truly_whether_it_learnt_something(a in pieces(), b in pieces()) {
        let mut out = a.clone();
        let told = join(&mut out, &b);
        prop_assert_eq!(told.changed, out != a);
        prop_assert!(!join(&mut out, &b).changed);
        let both = a.birth.as_ref().zip(b.birth.as_ref());
        prop_assert_eq!(told.equivocation, both.is_some_and(|(x, y)| x != y));
        let same = out.clone();
        prop_assert!(!join(&mut out, &same).equivocation, "a birth does not contradict itself");
    }

    #[test]
    fn of_two_births_the_greater_wins_and_of_two_tag_sets_the_later(a in pieces(), b in pieces()) {
        let out = joined(&a, &b);
        let rank = |v: &Version| v.birth.clone().map(|b| (b.order.clone(), b));
        prop_assert_eq!(rank(&out), rank(&a).max(rank(&b)));
        prop_assert_eq!(out.tags, a.tags.max(b.tags));
    }

    #[test]
    fn what_was_purged_or_born_stays_so(a in pieces(), b in pieces()) {
        let out = joined(&a, &b);
        prop_assert_eq!(out.purges.is_empty(), a.purges.is_empty() && b.purges.is_empty());
        prop_assert_eq!(out.birth.is_some(), a.birth.is_some() || b.birth.is_some());
    }

    /// Of null there is one at a time: whichever was born last, with its own tags and purges; what has no birth loses.
    #[test]
    fn the_null_version_is_the_one_born_last_and_nothing_of_another(a in pieces(), b in pieces(), c in pieces()) {
        let [a, b, c] = [a, b, c].map(|v| Version { id: VersionId::NULL, ..v });
        let born = |v: &Version| v.birth.as_ref().map(|b| b.order.clone());
        if born(&a) < born(&b) {
            let mut out = a.clone();
            prop_assert!(join(&mut out, &b).changed);
            prop_assert_eq!(&out, &b);
            prop_assert!(!join(&mut out, &a).changed);
            prop_assert_eq!(&out, &b);
        }
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
    }

    #[test]
    fn a_version_has_something_of_whoever_set_any_of_it_and_guards_of_everybody(a in pieces(), is_bare: bool) {
        // Nearly all that is made up carries guards, and so is of everybody.
        let a = if is_bare { Version { later_guards: Guards::default(), ..a } } else { a };
        let birth = a.birth.iter().map(|b| &b.order.origin);
        let tags = a.tags.iter().map(|t| &t.stamp.origin);
        let setters: BTreeSet<_> = birth.chain(tags).chain(a.purges.iter().map(|(_, p)| &p.origin)).collect();
        let is_guarded = a.later_guards != Guards::default();
        for origin in ["a", "b", "c"].map(Origin::new) {
            prop_assert_eq!(a.has_origin(&origin), is_guarded || setters.contains(&origin));
            prop_assert_eq!(a.is_wholly_of(&origin), !is_guarded && setters.iter().all(|o| **o == origin));
        }
    }

    #[test]
    fn a_version_is_shown_unless_unborn_or_purged_to_some_effect(a in pieces()) {
        let is_gone = a.purges.effective(&a.guards()).is_some();
        prop_assert_eq!(a.is_live(), a.birth.is_some() && !is_gone);
        prop_assert_eq!(a.is_purged_in_vain(), a.purges != Purges::default() && !is_gone);
        let is_marker = a.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker);
        prop_assert_eq!(a.is_delete_marker(), is_marker && !is_gone);
    }

    #[test]
    fn every_version_survives_its_bytes(a in pieces()) {
        prop_assert_eq!(Version::from_bytes(&a.to_bytes()).unwrap(), a.clone());
        let mut record = Record::new(BucketId(Uuid::from_u128(5)), a, Hlc::from_bits(9));
        record.tested = Some(Hlc::ZERO);
        record.traceparent = Some("00-0-0-00".into());
        record.blobs = vec![blob(6)];
        prop_assert_eq!(Record::from_bytes(&record.to_bytes()).unwrap(), record);
    }

    #[test]
    fn fields_of_a_later_version_survive_at_every_level(a in pieces(), news in prop::collection::vec(unknowns(), 1..8)) {
        let mut record = Record::new(BucketId(Uuid::from_u128(5)), a, Hlc::from_bits(9));
        record.blobs = vec![blob(6), blob(7)];
        if let Some(birth) = &mut record.version.birth {
            let part = |number| Part { number, size_bytes: 1, etag: String::new(), checksums: BTreeMap::new(), unknown: Fields::default() };
            birth.parts = vec![part(1), part(2)];
        }
        let bytes = Level::Record.later(&record.to_bytes(), &mut news.iter().cycle().cloned());
        let mut read = Record::from_bytes(&bytes).unwrap();
        prop_assert_eq!(read.to_bytes(), bytes.clone());
        // A change of what we know leaves what we do not know.
        read.missing = 3;
        let mut expected = Fields::parse(&bytes).unwrap();
        expected.put(7, &3u32);
        prop_assert_eq!(read.to_bytes(), expected.to_bytes());
        let mut alone = Version::blank(read.key(), read.id());
        merge::join(&mut alone, &read.version);
        prop_assert_eq!(alone, read.version);
    }

    #[test]
    fn damaged_bytes_are_refused_or_other_values_but_never_a_panic(a in pieces(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = a.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        drop(Version::from_bytes(&bytes));
        prop_assert!(Version::from_bytes(&bytes[..at]).is_err());
    }

    #[test]
    fn a_conflict_is_the_later_of_two_origins_that_did_not_know_the_earlier(x in births(), y in births()) {
        let knew = x.base.as_ref().is_some_and(|base| *base >= y.order);
        let is_later = x.order > y.order && x.order.origin != y.order.origin;
        prop_assert_eq!(is_conflict(&x, &y), is_later && !knew);
        prop_assert!(!(is_conflict(&x, &y) && is_conflict(&y, &x)));
    }
}

#[test]
fn a_guard_counts_whether_it_was_there_at_birth_or_came_later() {
    let stamp = |millis| Stamp::new(Hlc::from_millis(millis), Origin::new("a"));
    let hold = Guards::default().hold(true, &stamp(2));
    let id = VersionId::from_bytes([1; 16]);
    let order = Order { hlc: Hlc::from_millis(1), origin: Origin::new("a"), version_id: id };
    let birth = Birth::blank(order, Kind::Object);
    let bare = Version { birth: Some(birth.clone()), ..Version::blank("key", id) };
    let held = Version { birth: Some(Birth { guards: hold.clone(), ..birth }), ..bare.clone() };
    let held_later = Version { later_guards: hold.clone(), ..bare.clone() };
    for (version, is_gone) in [(bare, true), (held, false), (held_later, false)] {
        let version = Version { purges: Purges::from(stamp(3)), ..version };
        assert_eq!(version.guards() == hold, !is_gone);
        assert_eq!((version.purged().is_some(), version.is_purged_in_vain()), (is_gone, !is_gone));
    }
}

#[test]
fn the_greatest_reading_is_that_of_the_part_set_last() {
    let stamp = |millis| Stamp::new(Hlc::from_millis(millis), Origin::new("a"));
    let id = VersionId::from_bytes([1; 16]);
    let at = |[birth, tags, purge, hold]: [u64; 4]| {
        let order = Order { hlc: Hlc::from_millis(birth), origin: Origin::new("a"), version_id: id };
        Version {
            birth: Some(Birth::blank(order, Kind::Object)),
            tags: Some(Tags::new(stamp(tags), BTreeMap::new())),
            purges: Purges::from(stamp(purge)),
            later_guards: Guards::default().hold(true, &stamp(hold)),
            ..Version::blank("key", id)
        }
    };
    for readings in [[9, 1, 2, 3], [1, 9, 2, 3], [1, 2, 9, 3], [1, 2, 3, 9]] {
        assert_eq!(at(readings).max_hlc(), Hlc::from_millis(9), "{readings:?}");
    }
    assert_eq!(Version::blank("key", id).max_hlc(), Hlc::ZERO);
}

/// Files of the first format, and the same with fields of a later one at the top (`-newer`) and at every
/// level (`-newer-nested`), written by a separate encoder.
#[test]
fn stored_bytes_are_read_and_written_unchanged() {
    for golden in [
        &include_bytes!("../../tests/golden/version.bin")[..],
        include_bytes!("../../tests/golden/version-newer.bin"),
        include_bytes!("../../tests/golden/version-newer-nested.bin"),
    ] {
        let version = Version::from_bytes(golden).unwrap();
        assert_eq!((version.key.as_str(), version.tags.as_ref().unwrap().set.len()), ("photos/ä.jpg", 2));
        assert_eq!(version.birth.as_ref().unwrap().parts[1].number, 2);
        assert_eq!(version.purged().unwrap().origin.as_str(), "site-c");
        assert_eq!(version.to_bytes(), golden);
    }
    for golden in [
        &include_bytes!("../../tests/golden/record.bin")[..],
        include_bytes!("../../tests/golden/record-newer.bin"),
        include_bytes!("../../tests/golden/record-newer-nested.bin"),
        include_bytes!("../../tests/golden/record-settled.bin"),
    ] {
        let record = Record::from_bytes(golden).unwrap();
        assert_eq!((record.blobs[0].first, record.tested, record.acked), (3, Some(Hlc::ZERO), true));
        assert_eq!(record.to_bytes(), golden);
    }
    let settled = Record::from_bytes(include_bytes!("../../tests/golden/record-settled.bin")).unwrap();
    assert!(settled.settled);
    let golden = include_bytes!("../../tests/golden/order.bin");
    let order = Order::from_fields(Fields::parse(golden).unwrap()).unwrap();
    assert_eq!((order.hlc.millis(), order.origin.as_str()), (1_760_000_000_000, "site-a"));
    assert_eq!(order.to_fields().to_bytes(), golden);
}
