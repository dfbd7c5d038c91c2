//! What the store counts: plain numbers, read as values by whoever encodes them. It knows no text format.
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the request histogram in seconds; the last bucket is open.
pub const SECONDS_BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Counters of one store.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests by (operation, status). Bounded: operations are the codec's names, statuses a few dozen.
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    seconds: [AtomicU64; SECONDS_BOUNDS.len() + 1],
    micros: AtomicU64,
    quorum_failures: AtomicU64,
    commits_below_target: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Requests by (operation, HTTP status).
    pub requests: BTreeMap<(String, u16), u64>,
    /// Requests per bucket of [`SECONDS_BOUNDS`], not cumulative; one more for the open bucket.
    pub seconds_buckets: Vec<u64>,
    /// Seconds of all requests together, to the head of their response.
    pub seconds_sum: f64,
    /// Operations that found no quorum of drives.
    pub quorum_failures: u64,
    /// Records acked although, when all had answered, some drive lacked them or their shard. A lower bound
    /// of the debt made since the process started: one whose drive hangs is not told, and none is ever taken off.
    pub commits_below_target: u64,
}

impl Metrics {
    /// Counts a request that was answered.
    pub fn request(&self, operation: &str, status: u16, took: Duration) {
        let bucket =
            SECONDS_BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound).unwrap_or(SECONDS_BOUNDS.len());
        self.seconds[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let mut requests = self.requests.lock().expect("nothing panics while it counts");
        *requests.entry((operation.to_owned(), status)).or_default() += 1;
    }
    /// Counts an operation that found no quorum.
    pub fn quorum_failed(&self) {
        self.quorum_failures.fetch_add(1, Ordering::Relaxed);
    }
    /// Counts a record that was acked and is not whole on every drive.
    pub fn committed_below_target(&self) {
        self.commits_below_target.fetch_add(1, Ordering::Relaxed);
    }
    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            requests: self.requests.lock().expect("nothing panics while it counts").clone(),
            seconds_buckets: self.seconds.iter().map(|b| b.load(Ordering::Relaxed)).collect(),
            seconds_sum: self.micros.load(Ordering::Relaxed) as f64 / 1e6,
            quorum_failures: self.quorum_failures.load(Ordering::Relaxed),
            commits_below_target: self.commits_below_target.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_falls_into_the_first_bucket_that_holds_it() {
        let metrics = Metrics::default();
        metrics.request("GetObject", 200, Duration::from_micros(1000));
        metrics.request("GetObject", 200, Duration::from_secs(31));
        let seen = metrics.snapshot();
        assert_eq!(seen.requests[&("GetObject".into(), 200)], 2);
        assert_eq!((seen.seconds_buckets[1], seen.seconds_buckets[12]), (1, 1));
        assert_eq!(seen.seconds_buckets.iter().sum::<u64>(), 2);
    }
}
