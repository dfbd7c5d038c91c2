//! How the own store is, looked at now and then, so that whoever looks at the site never waits for it. Decides nothing.
use super::Replicator;
use super::report::{OtherCertificate, StoreReport};
use crate::store::Store;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

impl Replicator {
    /// What this process shows elsewhere than at the peer listener, and its store's process where that is another.
    pub(super) fn certificates_elsewhere(&self) -> Vec<OtherCertificate> {
        let of_store = self.health.borrow().iter().flat_map(|store| store.certificates.clone()).collect();
        [(self.other_certificates)(), of_store].concat()
    }
}

/// Looks until it is dropped; what cannot be known is not shown.
pub async fn watch(store: Arc<dyn Store>, show: watch::Sender<Option<StoreReport>>) {
    loop {
        let seen = store.health().await.unwrap_or_default();
        show.send_replace(seen.map(StoreReport::from));
        tokio::time::sleep(EVERY).await;
    }
}
