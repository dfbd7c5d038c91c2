//! What the store counts: plain numbers, read as values by whoever encodes them. It knows no text format.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// Upper bounds for a sync of a log in seconds.
pub const FSYNC_BOUNDS: [f64; 10] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0];
/// Upper bounds for the records that share a sync.
pub const GROUP_BOUNDS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// A histogram that threads add to without waiting.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    /// In millionths: what is added is seconds or small counts.
    sum: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Upper bounds; one more bucket is open.
    pub bounds: &'static [f64],
    /// Per bucket, not cumulative.
    pub counts: Vec<u64>,
    pub sum: f64,
}

impl Histogram {
    /// An empty one with these upper bounds.
    pub fn new(bounds: &'static [f64]) -> Self {
        Histogram { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }
    /// Adds one observation, which is not negative.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }
    /// What was added until now.
    pub fn read(&self) -> Distribution {
        let counts = self.counts.iter().map(|c| c.load(Ordering::Relaxed)).collect();
        Distribution { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) as f64 / 1e6 }
    }
}

/// Takes the time of each request, and the trace that explains it: how these are shown is the process' business.
pub trait Times: Send + Sync + std::fmt::Debug {
    /// A request took so long to the head of its answer; `trace_id`: where it is sampled.
    fn took(&self, operation: &str, seconds: f64, trace_id: Option<&str>);
}

/// Counters of one store.
#[derive(Debug)]
pub struct Metrics {
    /// By operation and status. Bounded: the codec's names and the private API's, each with a few dozen statuses.
    requests: Mutex<BTreeMap<String, BTreeMap<u16, u64>>>,
    times: OnceLock<Box<dyn Times>>,
    reads_without_quorum: AtomicU64,
    writes_without_quorum: AtomicU64,
    attempts_unresolved: AtomicU64,
    commits_below_target: AtomicU64,
    purges_voided: AtomicU64,
    handshakes_failed: AtomicU64,
    /// Callers refused by the private API.
    callers_refused: Reasons,
    /// S3 requests that proved no user.
    logins_failed: Reasons,
}

/// What was counted by reason: constants, each there from the start.
#[derive(Debug)]
struct Reasons(Mutex<BTreeMap<&'static str, u64>>);

impl Reasons {
    fn of(all: &[&'static str]) -> Self {
        Reasons(Mutex::new(all.iter().map(|reason| (*reason, 0)).collect()))
    }
    fn count(&self, reason: &'static str) {
        *self.0.lock().expect("nothing panics while it counts").entry(reason).or_default() += 1;
    }
    fn read(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().expect("nothing panics while it counts").clone()
    }
}

/// Why the private API refuses a caller.
pub const CALLER_REFUSALS: [&str; 4] = ["handshake", "certificate", "name", "unknown_client"];

/// Why an S3 request proves no user: a wrong secret or a user there is none of, which is not told apart; a clock that is
/// off; no signature, or one that has expired; too many wrong ones before.
pub const LOGIN_FAILURES: [&str; 4] = ["signature", "clock", "denied", "too_often"];

/// The counters at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Requests by operation and HTTP status.
    pub requests: BTreeMap<String, BTreeMap<u16, u64>>,
    /// Requests that found too few drives to read from.
    pub reads_without_quorum: u64,
    /// Requests that found too few drives to write to; the write may still take effect.
    pub writes_without_quorum: u64,
    /// Attempts of a write that a later reader or writer met and could not decide: too few drives answered.
    pub attempts_unresolved: u64,
    /// Records acked although, when all had answered, some drive lacked them or their shard. A lower bound
    /// of the debt made since the process started: one whose drive hangs is not told, and none is ever taken off.
    pub commits_below_target: u64,
    /// Permanent deletes that a guard set elsewhere at the same time made void.
    pub purges_voided: u64,
    /// S3 clients that did not get through TLS: they spoke something else, took too long, or did not believe us.
    pub handshakes_failed: u64,
    /// Callers refused by the private API, by reason; each of [`CALLER_REFUSALS`] stands there from the start.
    pub callers_refused: BTreeMap<&'static str, u64>,
    /// S3 requests that proved no user, by reason; each of [`LOGIN_FAILURES`] stands there from the start.
    pub logins_failed: BTreeMap<&'static str, u64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            requests: Mutex::default(),
            times: OnceLock::new(),
            reads_without_quorum: AtomicU64::new(0),
            writes_without_quorum: AtomicU64::new(0),
            attempts_unresolved: AtomicU64::new(0),
            commits_below_target: AtomicU64::new(0),
            purges_voided: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
            callers_refused: Reasons::of(&CALLER_REFUSALS),
            logins_failed: Reasons::of(&LOGIN_FAILURES),
        }
    }
}

impl Metrics {
    /// Hands the times of requests to `times` from here on; before, and without, nobody takes them. The first stays.
    pub fn time_with(&self, times: Box<dyn Times>) {
        // A second would be the same process' own.
        let _ = self.times.set(times);
    }
    /// Counts a request that was answered, and how long it took; `None` where that says nothing of the store.
    pub fn request(&self, operation: &str, status: u16, took: Option<Duration>, trace_id: Option<&str>) {
        let mut requests = self.requests.lock().expect("nothing panics while it counts");
        if !requests.contains_key(operation) {
            requests.insert(operation.to_owned(), BTreeMap::new());
        }
        let codes = requests.get_mut(operation).expect("it was put there if it was not");
        *codes.entry(status).or_default() += 1;
        drop(requests);
        if let (Some(took), Some(times)) = (took, self.times.get()) {
            times.took(operation, took.as_secs_f64(), trace_id);
        }
    }
    /// Counts a request that found too few drives to read from.
    pub fn read_without_quorum(&self) {
        self.reads_without_quorum.fetch_add(1, Ordering::Relaxed);
    }
    /// Counts a request that found too few drives to write to.
    pub fn write_without_quorum(&self) {
        self.writes_without_quorum.fetch_add(1, Ordering::Relaxed);
    }
    /// Counts an attempt that could not be decided.
    pub fn attempt_unresolved(&self) {
        self.attempts_unresolved.fetch_add(1, Ordering::Relaxed);
    }
    /// Counts an S3 client that did not get through TLS.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    }
    /// Counts a caller that the private API refused.
    pub fn caller_refused(&self, reason: &'static str) {
        self.callers_refused.count(reason);
    }
    /// Counts an S3 request that proved no user; `reason` is one of [`LOGIN_FAILURES`].
    pub fn login_failed(&self, reason: &'static str) {
        self.logins_failed.count(reason);
    }
    /// Counts a record that was acked and is not whole on every drive.
    pub fn committed_below_target(&self) {
        self.commits_below_target.fetch_add(1, Ordering::Relaxed);
    }
    /// Counts a purge that a guard made void.
    pub fn purge_voided(&self) {
        self.purges_voided.fetch_add(1, Ordering::Relaxed);
    }
    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let requests = self.requests.lock().expect("nothing panics while it counts");
        Snapshot {
            requests: requests.clone(),
            reads_without_quorum: self.reads_without_quorum.load(Ordering::Relaxed),
            writes_without_quorum: self.writes_without_quorum.load(Ordering::Relaxed),
            attempts_unresolved: self.attempts_unresolved.load(Ordering::Relaxed),
            commits_below_target: self.commits_below_target.load(Ordering::Relaxed),
            callers_refused: self.callers_refused.read(),
            logins_failed: self.logins_failed.read(),
            purges_voided: self.purges_voided.load(Ordering::Relaxed),
            handshakes_failed: self.handshakes_failed.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Keeps what it is told.
    #[derive(Debug, Default)]
    struct Kept(Arc<Mutex<Vec<(String, f64, Option<String>)>>>);

    impl Times for Kept {
        fn took(&self, operation: &str, seconds: f64, trace_id: Option<&str>) {
            self.0.lock().unwrap().push((operation.to_owned(), seconds, trace_id.map(str::to_owned)));
        }
    }

    #[test]
    fn requests_are_counted_and_their_times_told_with_their_trace() {
        let (metrics, kept) = (Metrics::default(), Kept::default());
        let told = kept.0.clone();
        metrics.request("GetObject", 200, Some(Duration::from_secs(1)), None);
        metrics.time_with(Box::new(kept));
        metrics.request("GetObject", 503, Some(Duration::from_secs(31)), Some("a trace"));
        metrics.request("Changes", 200, None, None);
        let seen = metrics.snapshot();
        let (get, changes) = (&seen.requests["GetObject"], &seen.requests["Changes"]);
        assert_eq!((get[&200], get[&503], changes[&200]), (1, 1, 1));
        let told = told.lock().unwrap().clone();
        assert_eq!(told, [("GetObject".to_owned(), 31.0, Some("a trace".to_owned()))], "a wait is no slow request");
        assert_eq!(seen.callers_refused.len(), CALLER_REFUSALS.len(), "they are there before they happen");
    }

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&FSYNC_BOUNDS);
        [0.0001, 0.00011, 7.0].into_iter().for_each(|value| histogram.observe(value));
        let seen = histogram.read();
        assert_eq!((seen.counts[0], seen.counts[1], seen.counts[10]), (1, 1, 1));
        assert!((seen.sum - 7.00021).abs() < 1e-6);
    }
}
