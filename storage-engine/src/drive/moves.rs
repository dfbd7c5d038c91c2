//! Who waits for changes of which bucket on one drive: a drive logs for all its buckets, and a reader of one need not
//! wake for the others. The committer tells, `feed/serve.rs` listens; what changed stands in the log.
use super::Lsn;
use crate::record::BucketId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// The listeners of a drive, by bucket.
#[derive(Default)]
pub struct Moves(Mutex<BTreeMap<BucketId, watch::Sender<Lsn>>>);

impl Moves {
    /// Told each time from now on that the head has moved past a change of this bucket.
    pub fn of(&self, bucket: BucketId) -> watch::Receiver<Lsn> {
        let mut listened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listened.entry(bucket).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// The head is here now, past changes of these buckets.
    pub fn tell(&self, buckets: &BTreeSet<BucketId>, head: Lsn) {
        let mut listened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for bucket in buckets {
            match listened.get(bucket) {
                Some(listeners) if listeners.receiver_count() > 0 => drop(listeners.send_replace(head)),
                Some(_) => drop(listened.remove(bucket)),
                None => {}
            }
        }
    }
}
