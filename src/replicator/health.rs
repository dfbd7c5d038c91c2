//! How what the site rests on is, its store and its journal: looked at now and then, so that whoever looks at the site
//! never waits for it. Decides nothing.
use super::Replicator;
use super::report::{JournalReport, OtherCertificate, StoreReport};
use crate::journal::Journal;
use crate::store::Store;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Between two looks at the store.
const STORE_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the journal, which counts what it keeps.
const JOURNAL_EVERY: Duration = Duration::from_secs(60);

/// What was seen last; absent where it cannot be known. Nothing of it is lent out: whoever kept it while he looks once
/// more would wait for himself.
pub(super) struct Seen<T>(Mutex<Option<T>>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Seen(Mutex::new(None))
    }
}

impl<T: Clone> Seen<T> {
    pub(super) fn get(&self) -> Option<T> {
        self.lock().clone()
    }
    pub(super) fn set(&self, seen: Option<T>) {
        *self.lock() = seen;
    }
    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.0.lock().expect("no panic while held")
    }
}

/// Both of them.
#[derive(Default)]
pub(super) struct Health {
    pub store: Seen<StoreReport>,
    pub journal: Seen<JournalReport>,
}

impl Health {
    /// Looks until it is dropped.
    pub(super) async fn watch(self: Arc<Self>, store: Arc<dyn Store>, journal: Arc<dyn Journal>) {
        let store = async {
            loop {
                let seen = store.health().await.unwrap_or_default();
                self.store.set(seen.map(StoreReport::from));
                tokio::time::sleep(STORE_EVERY).await;
            }
        };
        let journal = async {
            loop {
                self.journal.set(journal.extent().await.ok().map(JournalReport::from));
                tokio::time::sleep(JOURNAL_EVERY).await;
            }
        };
        tokio::join!(store, journal);
    }
}

impl Replicator {
    /// The certificates that listeners other than the peers' show: this process's, and those the store tells of.
    pub(super) fn certificates_elsewhere(&self) -> Vec<OtherCertificate> {
        let of_store = self.health.store.get().map_or_else(Vec::new, |store| store.certificates);
        [(self.other_certificates)(), of_store].concat()
    }
}
