//! The only door to time: trait [`Clock`] and the hybrid logical clock on top of it.
use crate::version::Hlc;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Wall-clock time, handed in everywhere.
pub trait Clock: Send + Sync + 'static {
    /// Unix time in milliseconds.
    fn now_millis(&self) -> u64;
    /// Waits. Simulations let their own time pass instead.
    fn sleep(&self, millis: u64) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(Duration::from_millis(millis)))
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;
impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the door itself
    fn now_millis(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that stands still until it is moved; for tests and simulation.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);
impl ManualClock {
    /// A clock that shows `millis`.
    pub fn at(millis: u64) -> Self {
        ManualClock(AtomicU64::new(millis))
    }
    /// Moves the clock.
    pub fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::Relaxed);
    }
}
impl Clock for ManualClock {
    fn now_millis(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Hands out readings that only rise, whatever the wall clock does.
#[derive(Clone)]
pub struct HlcClock {
    clock: Arc<dyn Clock>,
    last: Arc<AtomicU64>,
}

impl HlcClock {
    /// A clock that starts above `ceiling`, the highest reading ever promised durably.
    pub fn new(clock: Arc<dyn Clock>, ceiling: Hlc) -> Self {
        HlcClock { clock, last: Arc::new(AtomicU64::new(ceiling.bits())) }
    }
    /// A reading above every earlier one, above `floor`, and not below the wall clock.
    pub fn tick(&self, floor: Hlc) -> Hlc {
        let wall = Hlc::from_millis(self.clock.now_millis()).bits();
        let next = |last: u64| wall.max(last + 1).max(floor.bits() + 1);
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            match self.last.compare_exchange_weak(last, next(last), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Hlc::from_bits(next(last)),
                Err(seen) => last = seen,
            }
        }
    }
    /// Learns a reading made elsewhere.
    pub fn observe(&self, seen: Hlc) {
        self.last.fetch_max(seen.bits(), Ordering::Relaxed);
    }
    /// Waits by the wall clock.
    pub fn sleep(&self, millis: u64) -> BoxFuture<'static, ()> {
        self.clock.sleep(millis)
    }
    /// Unix milliseconds of the wall clock.
    pub fn now_millis(&self) -> u64 {
        self.clock.now_millis()
    }
}
