//! Buckets whose clients are turned away for a while, because a failover drill says so (`api/scratch.rs`). The front door asks
//! here before it does anything; replicators, which come another way, are never turned away.
//!
//! In memory, and each fence bears its own end: a restart lifts it, and so does its time, whoever set it.
use super::error;
use s3s::{S3Error, s3_error};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Longest fence: a drill takes no longer.
pub const FENCE_MAX: Duration = Duration::from_secs(3600);
/// How long writes that were begun before the fence are waited for.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(5);
/// Buckets with writes under way that are remembered before those without are forgotten.
const REMEMBERED: usize = 256;

/// The fences of a store.
#[derive(Debug, Default)]
pub struct Fences(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    fences: BTreeMap<String, Fence>,
    /// A mark that each write under way to a bucket holds; a fence begins a new one.
    writing: BTreeMap<String, Arc<()>>,
}

#[derive(Debug)]
struct Fence {
    drill: String,
    /// Reads are turned away too.
    shuts_reads: bool,
    until: Instant,
}

/// A write under way, until it is dropped.
#[derive(Debug)]
pub struct Writing(#[expect(dead_code, reason = "it is counted, not read")] Arc<()>);

impl Fences {
    /// Turns the clients of a bucket away from now on: those that write, and, where `shuts_reads`, all of them. It ends by
    /// itself after `ttl`, at most [`FENCE_MAX`].
    pub fn set(&self, bucket: &str, drill: &str, shuts_reads: bool, ttl: Duration) {
        let until = Instant::now() + ttl.min(FENCE_MAX);
        let fence = Fence { drill: drill.into(), shuts_reads, until };
        self.state().fences.insert(bucket.into(), fence);
    }

    /// Lifts the fence of a drill; one that is not there is fine.
    pub fn lift(&self, bucket: &str, drill: &str) {
        let mut state = self.state();
        if state.fences.get(bucket).is_some_and(|fence| fence.drill == drill) {
            state.fences.remove(bucket);
        }
    }

    /// A write to a bucket begins; it is asked of [`Fences::answer`] after that, so that none slips past a fence.
    pub fn write(&self, bucket: &str) -> Writing {
        let mut state = self.state();
        if state.writing.len() >= REMEMBERED {
            state.writing.retain(|_, mark| Arc::strong_count(mark) > 1);
        }
        Writing(state.writing.entry(bucket.into()).or_default().clone())
    }

    /// Waits until the writes that were begun before now are answered; whether they were in time.
    pub async fn quiet(&self, bucket: &str) -> bool {
        let Some(begun) = self.state().writing.insert(bucket.into(), Arc::default()) else { return true };
        let ended = async {
            while Arc::strong_count(&begun) > 1 {
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, ended).await.is_ok()
    }

    /// The answer to a request that is turned away; `None`: it is let through.
    pub fn answer(&self, bucket: &str, is_write: bool) -> Option<S3Error> {
        let mut state = self.state();
        let fence = state.fences.get(bucket)?;
        let left = fence.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            state.fences.remove(bucket);
            return None;
        }
        if !is_write && !fence.shuts_reads {
            return None;
        }
        let (drill, what) = (&fence.drill, if fence.shuts_reads { "its clients are" } else { "writes are" });
        let error = s3_error!(
            ServiceUnavailable,
            "Bucket {bucket} is fenced by failover drill {drill}: {what} turned away here for {} s at most. Nothing was done.",
            left.as_secs() + 1
        );
        Some(error::with_headers(error, [(error::header("retry-after"), (left.as_secs() + 1).to_string())]))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fence_turns_away_what_it_shuts_and_ends_by_itself() {
        let fences = Fences::default();
        let lets = |bucket: &str| [true, false].map(|is_write| fences.answer(bucket, is_write).is_none());
        fences.set("orders", "d1", false, Duration::from_secs(10));
        assert_eq!((lets("orders"), lets("logs")), ([false, true], [true, true]));
        fences.set("orders", "d1", true, Duration::from_secs(10));
        assert_eq!(lets("orders"), [false, false]);
        let said = fences.answer("orders", true).unwrap();
        assert!(said.message().unwrap().contains("failover drill d1"), "{said:?}");
        assert_eq!(said.headers().unwrap()["retry-after"], "11");
        fences.lift("orders", "another");
        assert_eq!(lets("orders"), [false, false], "another drill's lift");
        sleep(Duration::from_secs(10)).await;
        assert_eq!(lets("orders"), [true, true]);
        fences.set("orders", "d1", true, Duration::from_secs(7200));
        sleep(FENCE_MAX).await;
        assert_eq!(lets("orders"), [true, true], "no fence is longer than any drill");
        fences.set("orders", "d1", true, Duration::from_secs(10));
        fences.lift("orders", "d1");
        assert_eq!(lets("orders"), [true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fence_waits_for_the_writes_before_it_and_no_others() {
        let fences = Fences::default();
        assert!(fences.quiet("orders").await);
        let (before, other) = (fences.write("orders"), fences.write("logs"));
        let quiet = fences.quiet("orders");
        let mut quiet = std::pin::pin!(quiet);
        assert!(timeout(Duration::from_secs(1), &mut quiet).await.is_err(), "a write is under way");
        let after = fences.write("orders");
        drop(before);
        assert!(quiet.await, "one that began after the fence is not waited for");
        drop((after, other));
        let _stuck = fences.write("orders");
        assert!(!fences.quiet("orders").await, "it is not waited for for ever");
        for n in 0..2 * REMEMBERED {
            drop(fences.write(&n.to_string()));
        }
        assert!(fences.state().writing.len() <= REMEMBERED + 1);
    }
}
