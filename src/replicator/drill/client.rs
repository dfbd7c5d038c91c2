//! The drill's own client at this site: puts and deletes at a steady rate, and keeps account of what it was told. It
//! writes by the store's own road, waits for nobody, and is turned away while the fence stands.
use super::{Place, Replicator};
use crate::drill::ledger::{Acked, Ledger};
use crate::drill::{Load, Plan};
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Writes under way at once: so many of a store that has become slow, and the rest is not begun.
const AT_ONCE: usize = 64;
/// A client gives a write up after so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// A write that was begun before the fence gets so long to be told.
const QUIET: Duration = Duration::from_secs(6);

/// A client at work, until it is dropped.
pub(super) struct Client {
    ledger: Arc<Mutex<Ledger>>,
    turns: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Client {
    /// Begins to write where the drill does here.
    pub(super) fn start(host: Arc<Replicator>, plan: &Plan) -> Client {
        let client =
            Client { ledger: Arc::default(), turns: Arc::new(Semaphore::new(AT_ONCE)), stop: CancellationToken::new() };
        let (ledger, turns, id, load) = (client.ledger.clone(), client.turns.clone(), plan.id.clone(), plan.load);
        let (tasks, every) = (host.tasks.clone(), Duration::from_micros(plan.write_every_micros()));
        let places = host.drills.places(&id);
        let writing = async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for number in 0usize.. {
                ticks.tick().await;
                let Ok(turn) = turns.clone().try_acquire_owned() else {
                    locked(&ledger).count(|c| c.skipped += 1);
                    continue;
                };
                let (host, id, ledger, places) = (host.clone(), id.clone(), ledger.clone(), places.clone());
                tokio::spawn(async move { write(&host, &id, &places, number, load, &ledger, turn).await });
            }
        };
        let stop = client.stop.clone();
        tasks.spawn(stop.run_until_cancelled_owned(writing));
        client
    }

    /// What it was told so far.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        locked(&self.ledger)
    }

    /// Begins no write any more.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until every write that was begun before now has been told.
    pub(super) async fn quiet(&self) {
        let all = u32::try_from(AT_ONCE).expect("few");
        // Those that came meanwhile are turned away at once, or told within their patience.
        let _ = timeout(QUIET, self.turns.acquire_many(all)).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().expect("no panic while held")
}

/// One write, and what its client was told.
async fn write(
    host: &Replicator,
    id: &str,
    places: &[Place],
    number: usize,
    load: Load,
    ledger: &Mutex<Ledger>,
    _turn: OwnedSemaphorePermit,
) {
    if host.drills.fault(id).is_none_or(|fault| fault.is_fenced) {
        return locked(ledger).count(|c| c.refused += 1);
    }
    let Some(client) = host.shared.store.client() else { return };
    if places.is_empty() {
        return;
    }
    // 37 and 100 have no common divisor: deletes are spread evenly.
    let is_delete = number * 37 % 100 < load.delete_percent as usize;
    let former = locked(ledger).key(number / 2).filter(|_| is_delete);
    let bytes = if former.is_some() { 0 } else { u64::from(load.object_bytes) };
    let is_delete = former.is_some();
    let Place { bucket, prefix } = &places[number % places.len()];
    let (bucket, key) = former.unwrap_or_else(|| (bucket.clone(), format!("{prefix}writes/{number:08}")));
    let told = timeout(PATIENCE, async {
        match is_delete {
            true => client.delete(&bucket, &key).await,
            false => client.put(&bucket, &key, Bytes::from(vec![b'd'; load.object_bytes as usize])).await,
        }
    });
    match told.await {
        Ok(Ok(version_id)) => {
            let at = host.shared.clock.now_millis();
            locked(ledger).ack(Acked { bucket, key, version_id, at, bytes, is_delete });
        }
        Ok(Err(_)) | Err(_) => locked(ledger).count(|c| c.failed += 1),
    }
}
