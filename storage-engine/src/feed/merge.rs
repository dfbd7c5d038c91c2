//! Many drives' logs, one feed: which changes may be shown, and how far each drive is dealt with. Pure.
//!
//! Drives log the same change at different places and times. A version is shown once it is settled: a
//! write quorum of drives shows it, or one shows it flagged, its birth and what joined it later. What is not
//! settled holds back every drive that shows it, so that a place is never passed before its change was shown
//! or is known to have come to nothing; what no drive's place would pass is not shown yet. Called by `feed/serve.rs`, which also asks for the undecided ones.
use super::Event;
use crate::drive::{Logged, Lsn};
use crate::quorum::participant::{is_blank, later};
use crate::record::{Coded, Record};
use crate::version::{Hlc, Version, VersionId, merge};
use std::collections::BTreeMap;

/// What one drive told of its log.
#[derive(Clone, Debug)]
pub struct Tail {
    /// Slot of the drive.
    pub slot: usize,
    /// Its changes, in log order.
    pub entries: Vec<Logged>,
    /// Where the drive's place is once all entries are dealt with: its head, where there is nothing between.
    pub through: Lsn,
}

/// A change that may be shown.
#[derive(Clone, Debug)]
pub struct Settled {
    pub event: Event,
    /// Where drives show exactly this state.
    pub seen: Vec<(usize, Lsn)>,
}

/// A change nobody can call settled from what the drives showed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Undecided {
    pub key: String,
    pub version: VersionId,
    /// Reading of the clock of the youngest thing in it: an attempt, or what joined it.
    pub begun: Hlc,
    /// The drives that show it.
    pub slots: Vec<usize>,
}

/// What a merge found.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// To be shown, at most the limit, by clock reading: what `places` pass, so that a reader meets it once.
    pub settled: Vec<Settled>,
    /// To be waited for or resolved.
    pub undecided: Vec<Undecided>,
    /// By slot, the place that is dealt with once `settled` is. Slots not named stay where they are.
    pub places: Vec<(usize, Lsn)>,
}

/// What a read quorum decided of undecided versions; `None`: nothing of it counts.
pub type Decided = BTreeMap<(String, VersionId), Option<Record>>;

/// One version in what the drives showed.
struct Group<'a> {
    /// Slot, place, record.
    shown: Vec<(usize, Lsn, &'a Coded)>,
    /// Least distance to the start of a drive's entries: what came first is shown first.
    rank: usize,
}

/// Merges what the drives showed. `is_past` tells that a state shown at these places was shown before
/// the cursor of this reader; `decided` is what was resolved since an earlier merge of the same tails.
pub fn merge(
    tails: &[Tail],
    write_quorum: usize,
    limit: usize,
    is_past: &dyn Fn(&Version) -> bool,
    decided: &Decided,
) -> Merged {
    let mut groups: BTreeMap<(&str, VersionId), Group<'_>> = BTreeMap::new();
    for tail in tails {
        for (rank, logged) in tail.entries.iter().enumerate() {
            let key = (logged.record.key(), logged.record.id());
            let group = groups.entry(key).or_insert_with(|| Group { shown: Vec::new(), rank });
            group.rank = group.rank.min(rank);
            group.shown.push((tail.slot, logged.lsn, &logged.record));
        }
    }
    let mut order: Vec<_> = groups.iter().collect();
    order.sort_by_key(|(key, group)| (group.rank, *key));
    let (mut merged, mut held_back) = (Merged::default(), std::collections::BTreeSet::new());
    for (key, group) in order {
        let verdict = match decided.get(&(key.0.to_owned(), key.1)) {
            Some(Some(record)) => Verdict::Show(group.event(record.clone().into())),
            Some(None) => Verdict::Pass,
            None => group.judge(write_quorum, is_past),
        };
        match verdict {
            Verdict::Pass => {}
            Verdict::Show(settled) if merged.settled.len() < limit => merged.settled.push(settled),
            Verdict::Show(_) => drop(held_back.insert(*key)),
            Verdict::Undecided(begun) => {
                held_back.insert(*key);
                let slots = group.shown.iter().map(|(slot, _, _)| *slot).collect();
                merged.undecided.push(Undecided { key: key.0.to_owned(), version: key.1, begun, slots });
            }
        }
    }
    for tail in tails {
        let is_held = |logged: &&Logged| held_back.contains(&(logged.record.key(), logged.record.id()));
        match tail.entries.iter().position(|logged| is_held(&logged)) {
            None => merged.places.push((tail.slot, tail.through)),
            Some(0) => {}
            Some(at) => merged.places.push((tail.slot, tail.entries[at - 1].lsn)),
        }
    }
    // What stands behind an undecided change on every drive that shows it would be shown again from the same place,
    // as fast as it is read, until that one is decided: it waits with it.
    let places: BTreeMap<usize, Lsn> = merged.places.iter().copied().collect();
    let is_dealt_with = |(slot, lsn): &(usize, Lsn)| places.get(slot).is_some_and(|place| lsn <= place);
    merged.settled.retain(|s| s.seen.is_empty() || s.seen.iter().any(is_dealt_with));
    merged.settled.sort_by(|a, b| {
        let key = |s: &Settled| (s.event.version.max_hlc(), s.event.version.id);
        key(a).cmp(&key(b)).then_with(|| a.event.version.key.cmp(&b.event.version.key))
    });
    merged
}

enum Verdict {
    Show(Settled),
    Pass,
    Undecided(Hlc),
}

impl Group<'_> {
    fn judge(&self, write_quorum: usize, is_past: &dyn Fn(&Version) -> bool) -> Verdict {
        let record = self.newest();
        if is_past(&record.version) {
            return Verdict::Pass;
        }
        let holders = self.shown.iter().filter(|(_, _, r)| r.ballot == record.ballot && alike(r, &record)).count();
        match holders >= write_quorum || self.is_flagged(&record) {
            true => Verdict::Show(self.event(record)),
            // A change that waits for a consumer is as old as the first of its kind: its stamps tell more.
            false => {
                let told = Hlc::from_millis(record.pending_since);
                Verdict::Undecided(record.ballot.max(record.version.max_hlc()).max(told))
            }
        }
    }

    /// Whether a write quorum is known to hold the birth, where there is one, and all that joined it.
    fn is_flagged(&self, record: &Coded) -> bool {
        let is_born = record.version.birth.is_some();
        if is_born && !record.acked {
            return false;
        }
        let rest = later(&record.version);
        let settled = |r: &Coded| r.settled && later(&r.version) == rest;
        record.id().is_null() || is_blank(&rest) || self.shown.iter().any(|(_, _, r)| settled(r))
    }

    /// The newest attempt, joined over the drives. Purges and guards count for every attempt at their
    /// version; other components may belong to an attempt that came to nothing.
    fn newest(&self) -> Coded {
        // Of equal ballots a flagged one, so that what the others hold alike adds nothing.
        let shown = self.shown.iter().map(|(_, _, r)| *r);
        let newest = shown.clone().max_by_key(|r| (r.ballot, r.acked)).expect("a group has an entry");
        let mut joined = newest.clone();
        for other in shown.filter(|r| r.ballot != newest.ballot || !alike(r, newest)) {
            let joined = joined.to_mut();
            if other.ballot == joined.ballot {
                merge::join(&mut joined.version, &other.version);
                joined.acked |= other.acked;
            } else if !joined.id().is_null() {
                joined.version.purges.join(&other.version.purges);
                joined.version.later_guards.join(&other.version.later_guards);
            }
        }
        joined
    }

    fn event(&self, record: Coded) -> Settled {
        let same = self.shown.iter().filter(|(_, _, r)| alike(r, &record));
        let seen = same.map(|(slot, lsn, _)| (*slot, *lsn)).collect();
        // Drives may have been told at different moments; the oldest is what lag is counted from.
        let pending_since = self.shown.iter().map(|(_, _, r)| r.pending_since).min().unwrap_or(record.pending_since);
        let (version, traceparent) = (record.version.clone(), record.traceparent.clone());
        Settled { event: Event { version, pending_since, traceparent }, seen }
    }
}

/// Whether two drives hold the same state; as a rule it is one record in memory.
fn alike(a: &Coded, b: &Coded) -> bool {
    a.is_shared_with(b) || a.version == b.version
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BucketId;
    use crate::version::{Birth, Kind, Order, Origin, Stamp};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A change of key `n`: its state is a purge stamped `n`, so that each differs.
    fn record(n: u64, acked: bool) -> Record {
        let mut version = Version::blank(&format!("key-{n}"), VersionId::from_bytes([7; 16]));
        version.purges = Stamp::new(Hlc::from_millis(n), Origin::new("a")).into();
        let mut record = Record::new(BucketId::SYSTEM, version, Hlc::from_millis(n));
        (record.acked, record.settled) = (acked, acked);
        record
    }
    fn tail(slot: usize, shown: &[(Lsn, u64, bool)]) -> Tail {
        let entries = shown
            .iter()
            .map(|(lsn, n, acked)| Logged { lsn: *lsn, record: record(*n, *acked).into() })
            .collect::<Vec<_>>();
        Tail { slot, through: entries.last().map_or(0, |e: &Logged| e.lsn), entries }
    }
    fn keys(merged: &Merged) -> Vec<&str> {
        merged.settled.iter().map(|s| s.event.version.key.as_str()).collect()
    }
    const NEW: &dyn Fn(&Version) -> bool = &|_| false;

    #[test]
    fn a_change_below_a_write_quorum_holds_back_every_drive_that_shows_it() {
        let tails = [
            tail(0, &[(3, 1, false), (4, 2, false), (9, 3, false)]),
            tail(1, &[(5, 1, false), (8, 3, false)]),
            tail(2, &[(1, 3, false), (2, 1, false)]),
        ];
        let merged = merge(&tails, 3, 10, NEW, &Decided::new());
        assert_eq!(keys(&merged), ["key-1", "key-3"]);
        assert_eq!(merged.undecided.len(), 1);
        assert_eq!(merged.places, [(0, 3), (1, 8), (2, 2)], "drive 0 stays before key-2");
        let undecided = ("key-2".to_owned(), VersionId::from_bytes([7; 16]));
        let aborted = merge(&tails, 3, 10, NEW, &Decided::from([(undecided.clone(), None)]));
        assert_eq!((keys(&aborted), aborted.places[0]), (vec!["key-1", "key-3"], (0, 9)));
        let committed = merge(&tails, 3, 10, NEW, &Decided::from([(undecided, Some(record(2, true)))]));
        assert_eq!(keys(&committed), ["key-1", "key-2", "key-3"]);
    }

    #[test]
    fn what_stands_behind_an_undecided_change_everywhere_waits_with_it() {
        let behind = [tail(0, &[(1, 1, false), (2, 2, true)]), tail(1, &[(1, 1, false), (2, 2, true)])];
        let merged = merge(&behind, 3, 10, NEW, &Decided::new());
        assert!(merged.settled.is_empty() && merged.places.is_empty(), "it would be shown again: {merged:?}");
        let decided = Decided::from([(("key-1".to_owned(), VersionId::from_bytes([7; 16])), None)]);
        assert_eq!(keys(&merge(&behind, 3, 10, NEW, &decided)), ["key-2"]);
        let elsewhere = [behind[0].clone(), behind[1].clone(), tail(2, &[(1, 2, true)])];
        let merged = merge(&elsewhere, 3, 10, NEW, &Decided::new());
        assert_eq!((keys(&merged), merged.places.clone()), (vec!["key-2"], vec![(2, 1)]));
    }

    #[test]
    fn one_drive_with_the_flag_is_enough() {
        let merged = merge(&[tail(4, &[(7, 1, true)])], 5, 10, NEW, &Decided::new());
        assert_eq!((keys(&merged), merged.places.clone()), (vec!["key-1"], vec![(4, 7)]));
    }

    #[test]
    fn the_flag_of_a_birth_says_nothing_of_a_purge_that_joined_it() {
        let born = Birth::blank(
            Order { hlc: Hlc::from_millis(1), origin: Origin::new("a"), version_id: VersionId::from_bytes([7; 16]) },
            Kind::Object,
        );
        let mut shown = Record { ballot: Hlc::from_millis(1), pending_since: 1, ..record(9, true) };
        shown.version.birth = Some(born);
        let shows = |settled| {
            let entries = vec![Logged { lsn: 7, record: Record { settled, ..shown.clone() }.into() }];
            merge(&[Tail { slot: 4, through: 7, entries }], 5, 10, NEW, &Decided::new())
        };
        assert_eq!(keys(&shows(true)), ["key-9"]);
        let undecided = shows(false);
        assert!(undecided.settled.is_empty() && undecided.places.is_empty());
        assert_eq!(undecided.undecided[0].begun, Hlc::from_millis(9), "as old as the purge, not as the version");
    }

    #[test]
    fn what_was_shown_before_is_passed_in_silence() {
        let merged = merge(&[tail(0, &[(7, 1, false)])], 5, 10, &|_| true, &Decided::new());
        assert!(merged.settled.is_empty() && merged.undecided.is_empty());
        assert_eq!(merged.places, [(0, 7)]);
    }

    #[test]
    fn the_limit_holds_and_loses_nothing() {
        let tails = [tail(0, &[(1, 1, true), (2, 2, true)]), tail(1, &[(1, 2, true), (2, 1, true)])];
        let merged = merge(&tails, 2, 1, NEW, &Decided::new());
        assert_eq!((keys(&merged), merged.places.clone()), (vec!["key-1"], vec![(0, 1)]));
    }

    proptest! {
        /// Drives log acked changes in their own order and miss some; a reader with any limit and any
        /// page size, and some drives away in each round, sees all of them.
        #[test]
        fn no_acked_change_is_skipped(
            order in prop::collection::vec(prop::sample::subsequence((0u64..24).collect::<Vec<_>>(), 14..24), 5),
            shuffle in any::<u64>(), limit in 1usize..6, page in 1usize..6, away in prop::collection::vec(0usize..5, 0..40),
        ) {
            let logs: Vec<Vec<u64>> = order.iter().enumerate().map(|(slot, log)| {
                let mut log = log.clone();
                log.sort_by_key(|n| (n / 4, n.wrapping_mul(shuffle | 1).rotate_left(slot as u32 * 9)));
                log
            }).collect();
            let holders = |n: u64| logs.iter().filter(|l| l.contains(&n)).count();
            let acked: BTreeSet<u64> = (0..24).filter(|n| holders(*n) >= 3).collect();
            let mut places = [0u64; 5];
            let mut seen = BTreeSet::new();
            for round in 0..400 {
                let is_away = |slot| away.get(round) == Some(&slot);
                let tails: Vec<Tail> = (0..5).filter(|s| !is_away(*s)).map(|slot| {
                    let from = places[slot] as usize;
                    let shown: Vec<_> = logs[slot].iter().enumerate().skip(from).take(page)
                        .map(|(at, n)| (at as u64 + 1, *n, acked.contains(n))).collect();
                    Tail { through: shown.last().map_or(places[slot], |s| s.0), ..tail(slot, &shown) }
                }).collect();
                // Attempts below a write quorum come to nothing when they are asked for.
                let first = merge(&tails, 3, limit, NEW, &Decided::new());
                let decided = first.undecided.iter().map(|u| ((u.key.clone(), u.version), None)).collect();
                let merged = merge(&tails, 3, limit, NEW, &decided);
                prop_assert!(merged.settled.len() <= limit);
                seen.extend(merged.settled.iter().map(|s| s.event.version.max_hlc().millis()));
                for (slot, place) in merged.places {
                    prop_assert!(place >= places[slot]);
                    places[slot] = place;
                }
            }
            prop_assert_eq!(seen, acked);
            prop_assert!((0..5).all(|s| places[s] as usize == logs[s].len()), "and comes to the end");
        }
    }
}
