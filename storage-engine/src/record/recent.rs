//! [`Recent`]: records decoded lately, shared by the drives of a process. Pure but for its locks.
//!
//! All drives hold the same bytes of a record, so a read quorum and the feed meet each record many times.
//! Equal bytes are decoded once; who meets them again shares the result. It is a memory of bytes and not of
//! drives: what is not exactly equal is decoded anew, so it can never show a state that is not there. Called
//! by the drives' indexes.
use super::Coded;
use crate::wire;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// Records remembered: some pages of the feed of 256 changes each find room. A usual record takes some 4 KiB
/// here, with its flagged twin, so 4 MiB in all.
const PLACES: usize = 1_024;
/// Longer records are decoded every time: this bounds the memory, and the time a lock is held at tens of
/// microseconds.
const BYTES_MAX: usize = 4 << 10;

/// Records decoded lately, each in the place that its bytes hash to.
#[derive(Clone)]
pub struct Recent(Arc<[Mutex<Option<Coded>>]>);

impl Default for Recent {
    fn default() -> Self {
        Recent::with_places(PLACES)
    }
}

impl Recent {
    fn with_places(places: usize) -> Self {
        Recent((0..places).map(|_| Mutex::default()).collect())
    }

    /// A record from its bytes, which are kept as they came.
    ///
    /// # Errors
    /// [`wire::Error`] when the bytes are no record.
    pub fn read(&self, bytes: &[u8]) -> Result<Coded, wire::Error> {
        if bytes.len() > BYTES_MAX {
            return Coded::from_bytes(bytes);
        }
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let place = hasher.finish() as usize % self.0.len();
        // Held while decoding: drives read the same pages side by side, and the second one waits for the first.
        let mut place = self.0[place].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = place.as_ref().filter(|known| known.bytes() == bytes) {
            return Ok(known.clone());
        }
        let record = Coded::from_bytes(bytes)?;
        *place = Some(record.clone());
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BucketId, Record};
    use crate::version::{Ballot, Version, VersionId};

    fn bytes(key: &str) -> Vec<u8> {
        let version = Version::blank(key, VersionId::from_bytes([7; 16]));
        Record::new(BucketId::SYSTEM, version, Ballot::from_millis(5)).to_bytes()
    }

    #[test]
    fn equal_bytes_are_decoded_once_and_flagged_once() {
        let recent = Recent::default();
        let (first, again) = (recent.read(&bytes("a")).unwrap(), recent.read(&bytes("a")).unwrap());
        assert!(first.is_shared_with(&again));
        assert!(first.flagged().is_shared_with(&again.flagged()));
        assert!(!first.acked && first.flagged().acked);
        assert_eq!(Record::from_bytes(first.flagged().bytes()), Ok((*first.flagged()).clone()));
    }

    #[test]
    fn who_changes_a_shared_record_changes_only_its_own() {
        let recent = Recent::default();
        let (kept, mut changed) = (recent.read(&bytes("a")).unwrap(), recent.read(&bytes("a")).unwrap().flagged());
        changed.to_mut().missing = 5;
        assert_eq!((kept.missing, kept.flagged().missing), (0, 0));
        assert_eq!(Record::from_bytes(changed.bytes()).unwrap().missing, 5, "coded anew");
        assert_eq!(recent.read(&bytes("a")).unwrap().bytes(), &bytes("a")[..]);
    }

    #[test]
    fn records_that_meet_in_a_place_stay_themselves() {
        let recent = Recent::with_places(1);
        for key in ["a", "b", "a"] {
            assert_eq!(recent.read(&bytes(key)).unwrap().key(), key);
        }
        assert!(recent.read(&bytes("a")[1..]).is_err());
        let long = "k".repeat(BYTES_MAX);
        assert_eq!(recent.read(&bytes(&long)).unwrap().key(), long);
    }
}
