//! Bucket documents already read, so that a request does not begin with a quorum read.
//!
//! Right only in the embedded shape, where every change of a bucket goes through this process and
//! forgets the entry before it is acked. It decides nothing: changes are tested against the drives.
use super::Held;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Buckets kept, and changes of unknown outcome remembered; beyond it documents are read from the drives.
const BUCKETS_MAX: usize = 4_096;

/// The documents by name.
#[derive(Default)]
pub(crate) struct Cache {
    known: Mutex<Known>,
    /// Told at every change of some bucket.
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    /// Counts what happened to the cache, so that a slow reader does not bring back an old document.
    generation: u64,
    buckets: BTreeMap<String, Held>,
    /// Buckets with a change whose outcome nobody knows (it failed, or its request went away), and
    /// when that was: it may still take effect, so they are not kept until a later change has fenced it.
    doubtful: BTreeMap<String, u64>,
}

/// A change on its way. Dropped without [`end`](Change::end) its outcome is unknown.
pub(crate) struct Change<'c> {
    cache: &'c Cache,
    name: &'c str,
    began: u64,
    has_ended: bool,
}

impl Cache {
    /// The document, or the generation to hand to [`learn`](Cache::learn) once it was read.
    pub(crate) fn get(&self, name: &str) -> Result<Held, u64> {
        let known = self.lock();
        known.buckets.get(name).cloned().ok_or(known.generation)
    }

    /// Keeps what was read, unless something changed since the reading began or still may.
    pub(crate) fn learn(&self, generation: u64, held: &Held) {
        let mut known = self.lock();
        let name = &held.bucket.name;
        if known.generation != generation || known.doubtful.contains_key(name) || known.doubtful.len() >= BUCKETS_MAX {
            return;
        }
        if known.buckets.len() >= BUCKETS_MAX {
            known.buckets.pop_first();
        }
        known.buckets.insert(name.clone(), held.clone());
    }

    /// To be called before a document is changed.
    pub(crate) fn change<'c>(&'c self, name: &'c str) -> Change<'c> {
        Change { cache: self, name, began: self.lock().generation, has_ended: false }
    }

    /// Told from now on whenever a bucket is made, changed or deleted, or may have been.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it is held, and every state of it is a right one.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change<'_> {
    /// The change is decided; older ones of unknown outcome can no longer take effect.
    pub(crate) fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let mut known = self.cache.lock();
        known.generation += 1;
        known.buckets.remove(self.name);
        if !self.has_ended {
            let now = known.generation;
            // At the bound nothing is kept at all, so one more name need not be remembered.
            if known.doubtful.len() < BUCKETS_MAX {
                known.doubtful.insert(self.name.to_owned(), now);
            }
        } else if known.doubtful.get(self.name).is_some_and(|since| *since <= self.began) {
            known.doubtful.remove(self.name);
        }
        drop(known);
        self.cache.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Bucket, Versioning};
    use crate::record::BucketId;
    use crate::version::{Hlc, Order, Origin, VersionId};

    fn held(millis: u64) -> Held {
        Held {
            bucket: Bucket {
                id: BucketId::SYSTEM,
                name: "abc".into(),
                versioning: Versioning::Enabled,
                lock: None,
                created_millis: 0,
            },
            order: Order { hlc: Hlc::from_millis(millis), origin: Origin::new("a"), version_id: VersionId::NULL },
            is_marked: false,
        }
    }

    #[test]
    fn a_slow_reader_does_not_bring_back_what_was_changed_meanwhile() {
        let cache = Cache::default();
        let before = cache.get("abc").unwrap_err();
        cache.change("abc").end();
        cache.learn(before, &held(1));
        assert!(cache.get("abc").is_err());
        cache.learn(cache.get("abc").unwrap_err(), &held(2));
        assert_eq!(cache.get("abc").unwrap().order, held(2).order);
    }

    #[test]
    fn a_bucket_whose_change_went_away_is_not_kept_until_a_later_change_ends() {
        let cache = Cache::default();
        let early = cache.change("abc");
        drop(cache.change("abc"));
        cache.learn(cache.get("abc").unwrap_err(), &held(1));
        assert!(cache.get("abc").is_err(), "the change may still take effect");
        early.end();
        cache.learn(cache.get("abc").unwrap_err(), &held(1));
        assert!(cache.get("abc").is_err(), "a change that began before fences nothing");
        cache.change("abc").end();
        cache.learn(cache.get("abc").unwrap_err(), &held(3));
        assert!(cache.get("abc").is_ok());
    }
}
