//! What differs between two sites' sets of versions, found by comparing digests of key ranges.
//!
//! A [`Descent`] holds one page of this site's items and says what to ask the other side next: digests
//! of ranges first, then, where a range differs and is small, its items. Cost grows with the
//! difference, not with the page. Pure: it owns no connection, store or clock; the shell
//! (`replicator/reconcile.rs`) fetches what it asks for, and runs several pages at once.
//!
//! Ranges end at keys, never inside one: all versions of a key are compared together.
//!
//! Source: Meyer, "Range-Based Set Reconciliation" (2023); the sums are additive, as in Clarke et al.,
//! "Incremental Multiset Hash Functions" (2003), so that a range's digest is the sum of its parts'.
use super::planted::{self, Planted};
use std::cmp::Ordering;
use storage_engine::version::{Guards, Purges, Version, VersionId};

/// A range this small is exchanged item by item: about the bytes of one more round of digests.
pub const LEAF_ITEMS: usize = 32;
/// Ranges a differing one is split into: 4 rounds take a page of 65,536 items to its leaves.
pub const FANOUT: usize = 16;

/// One version as a digest sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    pub key: String,
    pub version_id: VersionId,
    /// Hash of key, id and the state of the version, projected by the rule: equal where nothing is to be done.
    /// `None`: held, and the rule does not compare it; it answers "missing there", and is in no digest.
    pub hash: Option<u128>,
    /// Guards and purges, which only gather: a side that holds more of them lacks nothing. `None`: it has neither.
    pub beside: Option<Box<Beside>>,
    /// Unix milliseconds of the purge that counts, for whoever counts tombstones: neither compared nor told.
    pub purged_at: Option<u64>,
}

/// What of a version is compared as a whole; its guards and purges are compared beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Core {
    /// Held, and not compared: another site purged it, or the rule leaves it as it is.
    Settled,
    /// Nothing is held but what is beside it.
    Absent,
    /// Purged by the site that sends.
    Gone,
    /// Hash of birth and tags, as the rule brings them.
    State(u128),
}

/// What gathers, and the core that it is beside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beside {
    pub core: Core,
    /// A version without key, birth and tags: read where two differ, else carried as it is, in few bytes.
    pub gathered: Box<[u8]>,
}

impl Beside {
    /// `None` where nothing gathered: then the item's hash says all.
    pub fn of(core: Core, guards: Guards, purges: Purges) -> Option<Box<Beside>> {
        let is_nothing = guards.is_empty() && purges.is_empty();
        (!is_nothing).then(|| Beside::with(core, guards, purges))
    }

    /// Also where nothing gathered.
    pub fn with(core: Core, guards: Guards, purges: Purges) -> Box<Beside> {
        let gathered = Version { later_guards: guards, purges, ..Version::blank("", VersionId::NULL) };
        Box::new(Beside { core, gathered: gathered.to_bytes().into() })
    }
}

/// Keys after `after` (`None`: from the beginning) up to and with `upto` (`None`: to the end).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    pub after: Option<String>,
    pub upto: Option<String>,
}

/// What a range holds, in 24 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    pub count: u64,
    /// Sum of the items' hashes, modulo 2^128.
    pub sum: u128,
}

/// What to ask the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A digest for each of these ranges.
    Digests(Vec<KeyRange>),
    /// The items of this range behind this one, ascending by key and id, as many as one answer takes.
    Items { range: KeyRange, behind: Option<(String, VersionId)> },
}

/// A version that is not alike on both sides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The other side lacks it, or answers that it is missing there; `state`: its hash here.
    OnlyHere { key: String, version_id: VersionId, state: u128 },
    /// This side lacks it, or what it set of it; `is_gone`: the other side holds it as purged from here.
    OnlyThere { key: String, version_id: VersionId, is_gone: bool },
    /// Both hold it, in different states; `state`: its hash here.
    Unlike { key: String, version_id: VersionId, state: u128 },
}

/// The other side's answer does not fit the question; the page is to be compared again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's answer to a digest question does not fit: {0}")]
pub struct Misfit(&'static str);

impl Item {
    /// What of it is compared as a whole.
    pub fn core(&self) -> Core {
        let whole = || self.hash.map_or(Core::Settled, Core::State);
        self.beside.as_ref().map_or_else(whole, |beside| beside.core)
    }

    /// Bytes it takes in an answer, about.
    pub fn bytes(&self) -> usize {
        self.key.len() + 40 + self.beside.as_ref().map_or(0, |beside| beside.gathered.len() + 24)
    }

    /// Whether `there` holds all of it.
    pub fn is_within(&self, there: &Item) -> bool {
        if self.hash.is_some() && self.hash == there.hash {
            return true;
        }
        let is_core_there = match (self.core(), there.core()) {
            (Core::State(ours), Core::State(theirs)) => ours == theirs,
            (Core::State(_), Core::Absent | Core::Gone) => false,
            // Its own purge is beside it.
            _ => true,
        };
        is_core_there && self.has_gathered_within(there)
    }

    fn has_gathered_within(&self, there: &Item) -> bool {
        let Some(ours) = &self.beside else { return true };
        let Some(theirs) = &there.beside else { return false };
        // What cannot be read is sent; whoever receives it judges by its own record.
        let (Ok(ours), Ok(theirs)) = (Version::from_bytes(&ours.gathered), Version::from_bytes(&theirs.gathered))
        else {
            return false;
        };
        theirs.later_guards.hold_all_of(&ours.later_guards) && theirs.purges.hold_all_of(&ours.purges)
    }

    fn only_here(&self, state: u128) -> Difference {
        Difference::OnlyHere { key: self.key.clone(), version_id: self.version_id, state }
    }
    fn unlike(&self, state: u128) -> Difference {
        Difference::Unlike { key: self.key.clone(), version_id: self.version_id, state }
    }
}

impl KeyRange {
    /// Whether the key lies in it.
    pub fn contains(&self, key: &str) -> bool {
        self.after.as_deref().is_none_or(|after| key > after) && self.upto.as_deref().is_none_or(|upto| key <= upto)
    }
}

impl Digest {
    /// The digest of these items.
    pub fn of<'a>(items: impl IntoIterator<Item = &'a Item>) -> Self {
        let mut digest = Digest::default();
        for item in items {
            digest.add(item);
        }
        digest
    }

    /// Adds one item.
    pub fn add(&mut self, item: &Item) {
        let Some(hash) = item.hash else { return };
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash);
    }
}

/// The comparison of one page. Ask, answer, until [`Descent::ask`] has nothing more.
#[derive(Debug)]
pub struct Descent {
    /// This side's items, ascending by key and id.
    here: Vec<Item>,
    /// Ranges to be digested next, with the bounds of this side's items in them.
    open: Vec<Span>,
    /// Ranges to be listed, last first.
    leaves: Vec<Span>,
    /// Items of the last leaf that have arrived.
    there: Vec<Item>,
    found: Vec<Difference>,
}

#[derive(Clone, Debug)]
struct Span {
    range: KeyRange,
    from: usize,
    to: usize,
}

impl Descent {
    /// Compares the keys of `range`; `here` holds all of this side's items in it, in any order.
    pub fn new(range: KeyRange, mut here: Vec<Item>) -> Self {
        debug_assert!(here.iter().all(|item| range.contains(&item.key)), "every item lies in the range");
        here.sort();
        let span = Span { range, from: 0, to: here.len() };
        Descent { here, open: vec![span], leaves: Vec::new(), there: Vec::new(), found: Vec::new() }
    }

    /// The next question; `None`: the comparison is over.
    pub fn ask(&self) -> Option<Ask> {
        if !self.open.is_empty() {
            return Some(Ask::Digests(self.open.iter().map(|span| span.range.clone()).collect()));
        }
        let leaf = self.leaves.last()?;
        let behind = self.there.last().map(|item| (item.key.clone(), item.version_id));
        Some(Ask::Items { range: leaf.range.clone(), behind })
    }

    /// Takes the digests asked for, in the order of the ranges.
    ///
    /// # Errors
    /// [`Misfit`] where there are more or fewer of them.
    pub fn digests(&mut self, there: &[Digest]) -> Result<(), Misfit> {
        if there.len() != self.open.len() {
            return Err(Misfit("one digest a range"));
        }
        for (span, theirs) in std::mem::take(&mut self.open).into_iter().zip(there) {
            let ours = &self.here[span.from..span.to];
            if Digest::of(ours) == *theirs {
                continue;
            }
            match self.split(&span) {
                Some(parts) if ours.len() > LEAF_ITEMS => self.open.extend(parts),
                _ => self.leaves.push(span),
            }
        }
        Ok(())
    }

    /// Takes items asked for; `is_last`: the range has no more.
    ///
    /// # Errors
    /// [`Misfit`] where items are out of order or range, or none came and more are promised.
    pub fn items(&mut self, items: Vec<Item>, is_last: bool) -> Result<(), Misfit> {
        let leaf = self.leaves.last().ok_or(Misfit("no items were asked for"))?;
        if items.is_empty() && !is_last {
            return Err(Misfit("an empty answer that is not the last"));
        }
        for item in items {
            let place = |item: &Item| (item.key.clone(), item.version_id);
            if self.there.last().is_some_and(|last| place(last) >= place(&item)) {
                return Err(Misfit("items ascend by key and id"));
            }
            if !leaf.range.contains(&item.key) {
                return Err(Misfit("an item outside its range"));
            }
            self.there.push(item);
        }
        if is_last {
            let leaf = self.leaves.pop().expect("it was looked at above");
            let there = std::mem::take(&mut self.there);
            compare(&self.here[leaf.from..leaf.to], &there, &mut self.found);
        }
        Ok(())
    }

    /// What differs, ascending; meaningful once nothing is left to ask.
    pub fn differences(mut self) -> Vec<Difference> {
        self.found.sort_by(|a, b| a.place().cmp(&b.place()));
        self.found
    }

    /// About equal parts that end at keys; `None` where there is only one key to end at.
    fn split(&self, span: &Span) -> Option<Vec<Span>> {
        let step = (span.to - span.from).div_ceil(FANOUT).max(1);
        let mut parts: Vec<Span> = Vec::with_capacity(FANOUT);
        let (mut from, mut after) = (span.from, span.range.after.clone());
        while from < span.to {
            let key = &self.here[(from + step - 1).min(span.to - 1)].key;
            let to = span.from + self.here[span.from..span.to].partition_point(|item| item.key <= *key);
            let range = KeyRange { after: after.replace(key.clone()), upto: Some(key.clone()) };
            parts.push(Span { range, from, to });
            from = to;
        }
        let last = parts.last_mut()?;
        // What lies behind the last key belongs to the last part.
        last.range.upto.clone_from(&span.range.upto);
        (parts.len() > 1).then_some(parts)
    }
}

impl Difference {
    /// Key and id of the version.
    pub fn place(&self) -> (&str, VersionId) {
        match self {
            Difference::OnlyHere { key, version_id, .. }
            | Difference::OnlyThere { key, version_id, .. }
            | Difference::Unlike { key, version_id, .. } => (key, *version_id),
        }
    }
}

/// What differs between two whole sets of items of the same keys, both ascending by key and id.
pub fn between(here: &[Item], there: &[Item]) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(here, there, &mut found);
    found
}

fn compare(here: &[Item], there: &[Item], found: &mut Vec<Difference>) {
    let (mut ours, mut theirs) = (here.iter().peekable(), there.iter().peekable());
    loop {
        let order = match (ours.peek(), theirs.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => (&a.key, a.version_id).cmp(&(&b.key, b.version_id)),
        };
        let mine = if order.is_le() { ours.next() } else { None };
        let other = if order.is_ge() { theirs.next() } else { None };
        match (mine, other) {
            (Some(a), b) => match (a.hash, b) {
                (Some(state), None) => found.push(a.only_here(state)),
                (Some(_), Some(b)) if a.is_within(b) || planted::has(Planted::UnlikeTakenForEqual) => {}
                (Some(state), Some(b)) if b.core() == Core::Absent && a.core() != Core::Absent => {
                    found.push(a.only_here(state));
                }
                (Some(state), Some(_)) => found.push(a.unlike(state)),
                (None, _) => {}
            },
            (None, Some(b)) if b.hash.is_some() && matches!(b.core(), Core::State(_) | Core::Gone) => {
                let is_gone = b.core() == Core::Gone;
                found.push(Difference::OnlyThere { key: b.key.clone(), version_id: b.version_id, is_gone });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A set of versions, and the other side's answers to a descent over it.
    type Set = BTreeMap<(String, VersionId), Option<u128>>;

    fn id(n: u8) -> VersionId {
        VersionId::from_bytes([n.max(1); 16])
    }

    fn items(set: &Set, range: &KeyRange) -> Vec<Item> {
        let item = |((key, version_id), hash): (&(String, VersionId), &Option<u128>)| Item {
            key: key.clone(),
            version_id: *version_id,
            hash: *hash,
            beside: None,
            purged_at: None,
        };
        set.iter().map(item).filter(|item| range.contains(&item.key)).collect()
    }

    /// Runs a descent to its end; returns the differences and how many digests and items crossed.
    fn run(here: &Set, there: &Set, page: usize) -> (Vec<Difference>, usize) {
        let range = KeyRange::default();
        let mut descent = Descent::new(range.clone(), items(here, &range));
        let mut crossed = 0;
        while let Some(ask) = descent.ask() {
            match ask {
                Ask::Digests(ranges) => {
                    crossed += ranges.len();
                    let digests: Vec<_> = ranges.iter().map(|r| Digest::of(&items(there, r))).collect();
                    descent.digests(&digests).unwrap();
                }
                Ask::Items { range, behind } => {
                    let mut rest = items(there, &range);
                    rest.retain(|i| behind.as_ref().is_none_or(|b| (&i.key, i.version_id) > (&b.0, b.1)));
                    let is_last = rest.len() <= page;
                    rest.truncate(page);
                    crossed += rest.len();
                    descent.items(rest, is_last).unwrap();
                }
            }
        }
        (descent.differences(), crossed)
    }

    fn expected(here: &Set, there: &Set) -> Vec<Difference> {
        let mut all: Vec<_> = here.keys().chain(there.keys()).cloned().collect();
        all.sort();
        all.dedup();
        let differ = |place: (String, VersionId)| {
            let ((key, version_id), ours, theirs) = (place.clone(), here.get(&place), there.get(&place));
            match (ours, theirs) {
                (Some(Some(a)), Some(Some(b))) if a != b => Some(Difference::Unlike { key, version_id, state: *a }),
                (Some(Some(state)), None) => Some(Difference::OnlyHere { key, version_id, state: *state }),
                (None, Some(Some(_))) => Some(Difference::OnlyThere { key, version_id, is_gone: false }),
                _ => None,
            }
        };
        all.into_iter().filter_map(differ).collect()
    }

    fn set() -> impl Strategy<Value = Set> {
        prop::collection::btree_map(("[a-c]{1,3}", (1u8..5).prop_map(id)), any::<Option<u128>>(), 0..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_descent_finds_exactly_what_differs(
            common in set(), mine in set(), theirs in set(), page in 1usize..40,
        ) {
            let (mut here, mut there) = (common.clone(), common);
            here.extend(mine);
            there.extend(theirs);
            prop_assert_eq!(run(&here, &there, page).0, expected(&here, &there));
            let all = |set: &Set| items(set, &KeyRange::default());
            prop_assert_eq!(between(&all(&here), &all(&there)), expected(&here, &there));
        }
    }

    #[test]
    fn equal_pages_cost_one_digest_and_ten_differences_in_65_536_cost_few() {
        let here: Set =
            (0..65_536u128).map(|n| ((format!("key/{n:08}"), id(1)), Some(n * 0x9e37_79b9_7f4a_7c15))).collect();
        assert_eq!(run(&here, &here, 1_000), (Vec::new(), 1));
        let mut there = here.clone();
        for n in 0..10 {
            there.remove(&(format!("key/{:08}", n * 6_000), id(1)));
        }
        let (found, crossed) = run(&here, &there, 1_000);
        assert_eq!(found.len(), 10);
        assert!(crossed < 10 * (4 * FANOUT + LEAF_ITEMS), "{crossed} digests and items crossed");
    }

    #[test]
    fn a_small_range_that_differs_is_listed_and_a_larger_one_is_split() {
        for (count, is_listed) in [(LEAF_ITEMS, true), (LEAF_ITEMS + 1, false)] {
            let here: Set = (0..count).map(|n| ((format!("key/{n:08}"), id(1)), Some(7))).collect();
            let mut descent = Descent::new(KeyRange::default(), items(&here, &KeyRange::default()));
            descent.digests(&[Digest::default()]).unwrap();
            assert_eq!(matches!(descent.ask(), Some(Ask::Items { .. })), is_listed, "{count} items");
        }
    }

    #[test]
    fn versions_of_one_key_are_listed_however_many_they_are() {
        let here: Set = (0..2 * LEAF_ITEMS as u8).map(|n| (("busy".to_string(), id(n)), Some(7))).collect();
        let mut descent = Descent::new(KeyRange::default(), items(&here, &KeyRange::default()));
        descent.digests(&[Digest::default()]).unwrap();
        assert!(matches!(descent.ask(), Some(Ask::Items { .. })), "a range ends at keys");
    }

    #[test]
    fn an_item_counts_for_its_key_and_all_that_gathered_beside_it() {
        let item = |key: &str, beside: Option<Box<Beside>>| {
            Item { key: key.into(), version_id: id(1), hash: Some(1), beside, purged_at: None }.bytes()
        };
        let gathered = vec![0; 500].into_boxed_slice();
        let beside = Box::new(Beside { core: Core::Absent, gathered });
        // Id and hash take 16 bytes each; a head for both, and one for what is beside.
        assert_eq!((item("", None), item("key", None), item("key", Some(beside))), (40, 43, 43 + 524));
    }

    #[test]
    fn an_answer_that_does_not_fit_is_refused() {
        let mut descent = Descent::new(KeyRange::default(), Vec::new());
        assert!(descent.digests(&[]).is_err());
        descent.digests(&[Digest { count: 1, sum: 1 }]).unwrap();
        assert!(descent.items(Vec::new(), false).is_err(), "no progress");
        let item =
            |key: &str| Item { key: key.into(), version_id: id(1), hash: Some(1), beside: None, purged_at: None };
        assert!(descent.items(vec![item("b"), item("a")], true).is_err(), "descending");
    }
}
