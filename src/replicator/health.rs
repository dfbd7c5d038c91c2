//! How the own store is, looked at now and then, so that whoever looks at the site never waits for it. Decides nothing.
use super::Replicator;
use super::report::{OtherCertificate, StoreReport};
use crate::store::Store;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// How the own store is, as last seen; what cannot be known is not shown. Nothing it holds is lent out: whoever kept
/// it while he looks once more would wait for himself.
#[derive(Default)]
pub(super) struct Health(Mutex<Option<StoreReport>>);

impl Health {
    pub(super) fn seen(&self) -> Option<StoreReport> {
        self.lock().clone()
    }

    /// Looks until it is dropped.
    pub(super) async fn watch(self: Arc<Self>, store: Arc<dyn Store>) {
        loop {
            let seen = store.health().await.unwrap_or_default();
            *self.lock() = seen.map(StoreReport::from);
            tokio::time::sleep(EVERY).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<StoreReport>> {
        self.0.lock().expect("no panic while held")
    }
}

impl Replicator {
    /// The certificates that listeners other than the peers' show: this process's, and those the store tells of.
    pub(super) fn certificates_elsewhere(&self) -> Vec<OtherCertificate> {
        let of_store = self.health.seen().map_or_else(Vec::new, |store| store.certificates);
        [(self.other_certificates)(), of_store].concat()
    }
}
