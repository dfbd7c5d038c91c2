//! Pieces of large versions that never came whole: forgotten once they are old. A transfer that is cut goes on within
//! minutes, and one that is held up for days is rare enough to be sent again.
//!
//! Spawned by `replicator.rs`. Dropping it halfway is safe.
use crate::rule::watch_folder::Snapshot;
use crate::store::Store;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::Clock;
use tokio::sync::watch;

/// Pieces of which the youngest is older wait for nothing any more.
const AGE_MAX_MS: u64 = 7 * 24 * 3600 * 1000;
/// How often it is looked for them: the first time soon enough for a process that is started anew each day.
const EVERY: Duration = Duration::from_secs(3600);

/// Looks for them in every bucket that a peer may write, for ever.
pub async fn forget(store: Arc<dyn Store>, rules: watch::Receiver<Snapshot>, clock: Arc<dyn Clock>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(pieces) = store.pieces() else { return };
        let inbound = |snapshot: &Snapshot| -> BTreeSet<String> {
            let grants = snapshot.rules.peers.values().flat_map(|peer| &peer.inbound);
            grants.map(|grant| grant.bucket.clone()).collect()
        };
        let buckets = inbound(&rules.borrow());
        for bucket in buckets {
            let before = clock.now_millis().saturating_sub(AGE_MAX_MS);
            match pieces.forget_pieces(&bucket, before).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(bucket, count, "Pieces of versions that never came were forgotten."),
                Err(e) => tracing::warn!(bucket, error = %e, "Old pieces could not be looked for; another time."),
            }
        }
    }
}
