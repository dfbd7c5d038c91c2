//! What links share on their way out: bandwidth of a rule, a peer and the site, and versions in flight of the site.
//! A push waits here for its turn; bodies pay as they are read, so that a large one holds nobody up for long.
//! Called by `push.rs`; the limits are set by `replicator.rs` as the documents say.
use crate::link::toll::{Bucket, Class};
use crate::rule::RuleSet;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use storage_engine::object::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What is paid for at once: small enough that an interactive version soon has its turn on a slow line.
const SLICE_BYTES: u64 = 64 << 10;

/// One limit of bandwidth, shared.
struct Limit {
    bucket: Mutex<Bucket>,
    /// In each class one waits for the bucket, the others behind it in their order.
    lanes: [tokio::sync::Mutex<()>; 2],
    /// Of the interactive class, how many wait.
    interactive: AtomicUsize,
    began: Instant,
}

impl Default for Limit {
    fn default() -> Self {
        Limit { bucket: Mutex::default(), lanes: Default::default(), interactive: 0.into(), began: Instant::now() }
    }
}

/// Counts one of the interactive class while it waits.
struct Waits<'a>(&'a AtomicUsize);
impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Limit {
    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().expect("no panic while held")
    }

    /// Waits until so many bytes may go. Dropped while waiting, nothing was taken.
    async fn take(&self, bytes: u64, class: Class) {
        let _waits = (class == Class::Interactive).then(|| {
            self.interactive.fetch_add(1, Ordering::Relaxed);
            Waits(&self.interactive)
        });
        let _turn = self.lanes[usize::from(class == Class::Bulk)].lock().await;
        loop {
            let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let is_wanted = self.interactive.load(Ordering::Relaxed) > 0;
            let Err(at) = self.bucket().take(now, bytes, class, is_wanted) else { return };
            // A limit that is lifted meanwhile is seen within a second.
            let pause = Duration::from_micros(at.saturating_sub(now)).clamp(Duration::from_millis(1), LOOK);
            tokio::time::sleep(pause).await;
        }
    }
}

/// Waits until so many bytes may go by all of these limits, slice by slice; the times waited at each are told.
async fn pay<const N: usize>(limits: [&Limit; N], bytes: u64, class: impl Fn() -> Class) -> [Duration; N] {
    let (mut left, mut waited) = (bytes, [Duration::ZERO; N]);
    while left > 0 {
        let slice = left.min(SLICE_BYTES);
        for (limit, waited) in limits.iter().zip(&mut waited) {
            let began = Instant::now();
            limit.take(slice, class()).await;
            *waited += began.elapsed();
        }
        left -= slice;
    }
    waited
}

/// How long a wait goes on at most before the limit is looked at again: it may have changed.
const LOOK: Duration = Duration::from_secs(1);

/// Versions of a site in flight, to all peers together.
struct Flights {
    permits: Mutex<(usize, Arc<Semaphore>)>,
    /// As in [`Limit`]: of each class one waits, so that bulk never stands in line before all of the others.
    lanes: [tokio::sync::Mutex<()>; 2],
}

impl Default for Flights {
    fn default() -> Self {
        Flights {
            permits: Mutex::new((0, Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)))),
            lanes: Default::default(),
        }
    }
}

/// What the links of one rule share, and what gives way.
#[derive(Default)]
struct RuleToll {
    limit: Arc<Limit>,
    is_bulk: AtomicBool,
}

/// All limits of a site.
#[derive(Default)]
pub struct Tolls {
    rules: Mutex<BTreeMap<String, Arc<RuleToll>>>,
    peers: Mutex<BTreeMap<String, Arc<Limit>>>,
    site: Arc<Limit>,
    flights: Arc<Flights>,
}

/// What versions wait for: bandwidth of their rule, their peer and the site, and the site's versions in flight.
pub const LIMITS: [&str; 4] = ["rule", "peer", "site", "transfers"];
/// The place of the last among [`LIMITS`].
const TRANSFERS: usize = 3;

/// What one link passes.
#[derive(Clone)]
pub struct Toll {
    rule: Arc<RuleToll>,
    peer: Arc<Limit>,
    site: Arc<Limit>,
    flights: Arc<Flights>,
    /// Microseconds versions of the link have waited here, by the limit ([`LIMITS`]).
    waited: Arc<[AtomicU64; 4]>,
}

impl Tolls {
    /// The limits as the documents say from now on; those of rules and peers that are gone are forgotten.
    pub fn set(&self, set: &RuleSet, site: &str) {
        let mut rules = self.rules.lock().expect("no panic while held");
        rules.retain(|uid, _| set.rules.values().any(|rule| rule.uid == *uid));
        for rule in set.rules.values() {
            let toll = rules.entry(rule.uid.clone()).or_default();
            toll.limit.bucket().set(rule.bandwidth);
            toll.is_bulk.store(rule.is_bulk, Ordering::Relaxed);
        }
        let mut peers = self.peers.lock().expect("no panic while held");
        peers.retain(|name, _| set.far(name).is_some());
        let sites = set.peers.iter().map(|(name, peer)| (name, peer.bandwidth));
        for (name, bandwidth) in sites.chain(set.foreign.iter().map(|(name, target)| (name, target.bandwidth))) {
            peers.entry(name.clone()).or_default().bucket().set(bandwidth);
        }
        let Some(own) = set.sites.get(site) else { return };
        self.site.bucket().set(own.bandwidth);
        let most = own.transfers_max.unwrap_or(Semaphore::MAX_PERMITS).clamp(1, Semaphore::MAX_PERMITS);
        let mut permits = self.flights.permits.lock().expect("no panic while held");
        if permits.0 != most {
            // What flies by the former number lands beside it, once.
            *permits = (most, Arc::new(Semaphore::new(most)));
        }
    }

    /// What the link of a rule to a peer passes.
    pub fn of(&self, rule: &str, peer: &str) -> Toll {
        let rule = self.rules.lock().expect("no panic while held").entry(rule.into()).or_default().clone();
        let peer = self.peers.lock().expect("no panic while held").entry(peer.into()).or_default().clone();
        Toll { rule, peer, site: self.site.clone(), flights: self.flights.clone(), waited: Arc::default() }
    }
}

/// What one job may send a second, beside the limits of the links it sends on.
#[derive(Default)]
pub struct Allowance(Limit);

impl Allowance {
    /// Bytes a second from now on; `None`: no limit.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        self.0.bucket().set(bytes_per_second);
    }

    /// Whether there is a limit now.
    pub fn is_limited(&self) -> bool {
        self.0.bucket().is_limited()
    }

    /// Waits until a version of so many bytes may go: it is paid for before it is sent, so that nothing is held meanwhile.
    pub async fn pass(&self, bytes: u64) {
        pay([&self.0], bytes, || Class::Interactive).await;
    }
}

impl Toll {
    fn class(&self) -> Class {
        if self.rule.is_bulk.load(Ordering::Relaxed) { Class::Bulk } else { Class::Interactive }
    }

    /// Seconds waited at each of [`LIMITS`] since this was asked the last time, added up over versions.
    pub fn waited_seconds(&self) -> [f64; 4] {
        self.waited.each_ref().map(|at| Duration::from_micros(at.swap(0, Ordering::Relaxed)).as_secs_f64())
    }

    fn waited(&self, limit: usize, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.waited[limit].fetch_add(micros, Ordering::Relaxed);
    }

    /// Waits until one more version may fly; it does while the permit is held.
    pub async fn take_off(&self) -> OwnedSemaphorePermit {
        let began = Instant::now();
        let _turn = self.flights.lanes[usize::from(self.class() == Class::Bulk)].lock().await;
        let permits = self.flights.permits.lock().expect("no panic while held").1.clone();
        let permit = permits.acquire_owned().await.expect("it is never closed");
        self.waited(TRANSFERS, began.elapsed());
        permit
    }

    /// Waits until so many bytes may go.
    pub async fn pass(&self, bytes: u64) {
        let times = pay([&self.rule.limit, &self.peer, &self.site], bytes, || self.class()).await;
        for (limit, time) in times.into_iter().enumerate() {
            self.waited(limit, time);
        }
    }

    /// The same body, each piece of it after it was paid for.
    pub fn pace(&self, body: Body) -> Body {
        let toll = self.clone();
        let paid = move |piece: Result<bytes::Bytes, std::io::Error>| {
            let toll = toll.clone();
            async move {
                if let Ok(bytes) = &piece {
                    toll.pass(bytes.len() as u64).await;
                }
                piece
            }
        };
        body.then(paid).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Links of two rules, the second bulk, to one peer that has a limit of 4 MiB a second.
    fn two_rules() -> (Toll, Toll) {
        let tolls = Tolls::default();
        let (first, second) = (tolls.of("first", "ams"), tolls.of("second", "ams"));
        first.peer.bucket().set(Some(4 << 20));
        second.rule.is_bulk.store(true, Ordering::Relaxed);
        (first, second)
    }

    #[tokio::test]
    async fn two_rules_to_one_peer_share_its_limit() {
        let (first, second) = two_rules();
        let began = Instant::now();
        tokio::join!(first.pass(1 << 20), second.pass(1 << 20));
        let took = began.elapsed();
        // 0.5 s less the burst; each by itself would take half of it.
        assert!(took >= Duration::from_millis(380), "2 MiB at 4 MiB/s took {took:?}");
        let [[rule, peer, site, transfers], second] = [first.waited_seconds(), second.waited_seconds()];
        assert!(peer + second[1] >= 0.38, "{peer} and {second:?} s were counted");
        assert!(rule + site + transfers < 0.1, "of what has no limit: {rule}, {site}, {transfers} s");
        assert_eq!(first.waited_seconds(), [0.0; 4], "counted once");
    }

    #[tokio::test(start_paused = true)]
    async fn an_allowance_holds_until_it_is_lifted() {
        let (allowance, began) = (Allowance::default(), Instant::now());
        allowance.pass(1 << 30).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "without a limit");
        allowance.set(Some(1 << 20));
        allowance.pass(2 << 20).await;
        assert!(began.elapsed() >= Duration::from_millis(1_700), "2 MiB took {:?}", began.elapsed());
        let lifted = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            allowance.set(None);
        };
        tokio::join!(allowance.pass(1 << 30), lifted);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn small_interactive_versions_go_before_bulk_and_bulk_still_ends() {
        let (interactive, bulk) = two_rules();
        let load = tokio::spawn(async move { futures::future::join_all((0..16).map(|_| bulk.pass(1 << 20))).await });
        let is_limited = async {
            while interactive.peer.bucket().take(0, 0, Class::Interactive, false).is_ok() {
                tokio::task::yield_now().await;
            }
        };
        is_limited.await;
        for _ in 0..20 {
            interactive.pass(4 << 10).await;
        }
        assert!(!load.is_finished(), "16 MiB of bulk take 4 s, and twenty small versions went before their end");
        load.await.unwrap();
    }

    #[tokio::test]
    async fn versions_in_flight_are_the_sites_and_bulk_does_not_stand_before_all_others() {
        let (interactive, bulk) = two_rules();
        *bulk.flights.permits.lock().unwrap() = (2, Arc::new(Semaphore::new(2)));
        let held = (bulk.take_off().await, bulk.take_off().await);
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let bulk = bulk.clone();
            waiting.spawn(async move {
                let _flight = bulk.take_off().await;
                std::future::pending::<()>().await;
            });
        }
        tokio::task::yield_now().await;
        let taking = interactive.take_off();
        tokio::pin!(taking);
        assert!(futures::poll!(taking.as_mut()).is_pending(), "two fly already");
        drop(held);
        let second = tokio::time::timeout(Duration::from_secs(60), taking).await;
        assert!(second.is_ok(), "one of fifty bulk versions goes before it, not all");
    }
}
