//! What the feed showed lately, so that a drive that logs a change later does not show it again.
//!
//! A change stands in the logs of all drives, and a reader meets it once per drive. It is new to a
//! reader unless one of the places where exactly this state stands is behind the reader's cursor: then
//! it was shown on the way there, whoever the reader is. Forgetting costs a duplicate, never a change.
use super::cursor::Position;
use crate::drive::Lsn;
use crate::record::BucketId;
use crate::version::{Version, VersionId};
use std::collections::{BTreeMap, VecDeque};
use uuid::Uuid;

/// Versions remembered. Drives answer within milliseconds of each other, so this is seconds of writing
/// at full rate; with keys of usual length it takes about 2 MB.
const VERSIONS_MAX: usize = 8_192;

type Name = (BucketId, String, VersionId);

/// Where the last shown state of each recent version stands.
#[derive(Debug, Default)]
pub struct Sightings {
    /// The lives of content the places belong to.
    incarnations: Vec<Uuid>,
    /// State hash, and by slot the place.
    seen: BTreeMap<Name, (u64, BTreeMap<usize, Lsn>)>,
    /// Oldest first: what is forgotten next.
    order: VecDeque<Name>,
}

impl Sightings {
    /// Whether this state was shown before `position`.
    pub fn is_past(&self, bucket: BucketId, version: &Version, position: &Position) -> bool {
        let name = (bucket, version.key.clone(), version.id);
        let Some((state, places)) = self.seen.get(&name) else { return false };
        self.incarnations.iter().copied().eq(position.incarnations())
            && places.iter().any(|(slot, lsn)| *lsn <= position.place(*slot))
            && *state == version.state_hash()
    }

    /// Remembers that this state is being shown and stands at `places`. Only places that hold exactly
    /// this state may be named.
    pub fn note(&mut self, bucket: BucketId, version: &Version, places: &[(usize, Lsn)], position: &Position) {
        if !self.incarnations.iter().copied().eq(position.incarnations()) {
            *self = Sightings { incarnations: position.incarnations().collect(), ..Sightings::default() };
        }
        let name = (bucket, version.key.clone(), version.id);
        let state = version.state_hash();
        if !self.seen.contains_key(&name) {
            self.order.push_back(name.clone());
        }
        let held = self.seen.entry(name).or_insert_with(|| (state, BTreeMap::new()));
        if held.0 != state {
            *held = (state, BTreeMap::new());
        }
        held.1.extend(places.iter().copied());
        while self.order.len() > VERSIONS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.seen.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::{Hlc, Origin, Stamp};

    fn version(purged_at: u64) -> Version {
        let mut version = Version::blank("key", VersionId::from_bytes([7; 16]));
        version.purges = Stamp::new(Hlc::from_millis(purged_at), Origin::new("a")).into();
        version
    }
    fn at(places: [Lsn; 2]) -> Position {
        let mut position = Position::start(1, &[Uuid::from_u128(1), Uuid::from_u128(2)]);
        (0..2).for_each(|slot| position.set(slot, places[slot]));
        position
    }

    #[test]
    fn a_change_is_past_only_for_a_reader_whose_cursor_passed_it() {
        let mut sightings = Sightings::default();
        sightings.note(BucketId::SYSTEM, &version(1), &[(0, 5)], &at([4, 0]));
        let is_past = |version: &Version, places| sightings.is_past(BucketId::SYSTEM, version, &at(places));
        assert!(is_past(&version(1), [5, 0]));
        assert!(!is_past(&version(1), [4, 9]), "another reader that has not been there");
        assert!(!is_past(&version(2), [5, 0]), "another state");
        let replaced = Position::start(1, &[Uuid::from_u128(1), Uuid::from_u128(3)]);
        assert!(!sightings.is_past(BucketId::SYSTEM, &version(1), &replaced), "another drive");
    }

    #[test]
    fn it_forgets_rather_than_grows() {
        let mut sightings = Sightings::default();
        for n in 0..VERSIONS_MAX + 10 {
            let version = Version::blank(&format!("{n}"), VersionId::NULL);
            sightings.note(BucketId::SYSTEM, &version, &[(0, n as u64)], &at([0, 0]));
        }
        assert_eq!((sightings.seen.len(), sightings.order.len()), (VERSIONS_MAX, VERSIONS_MAX));
    }
}
