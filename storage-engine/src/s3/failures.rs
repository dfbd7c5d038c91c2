//! Failed logins, counted per client and access key, so that guessing a secret takes for ever.
//!
//! Who failed too often waits until the window is over; a client behind the same address with another key, or
//! with this key from elsewhere, does not. Memory only: a restart forgives. Called by the gate.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Failures are counted over so long.
const WINDOW: Duration = Duration::from_secs(60);
/// Pairs of client and key remembered; the oldest gives way. 4,096 of them stay below 3 MiB.
const PAIRS_MAX: usize = 4096;
/// Characters of an access key that are remembered; longer keys share a count, and settings allow no longer one.
const KEY_CHARS_MAX: usize = 128;

struct Count {
    since: Instant,
    failures: u32,
}

/// Who failed lately.
pub struct Failures {
    most: u32,
    counts: Mutex<BTreeMap<(IpAddr, String), Count>>,
}

impl Failures {
    /// Lets `most` failures a minute pass for each pair of client and key.
    pub fn new(most: u32) -> Self {
        Failures { most, counts: Mutex::default() }
    }

    /// How long this client must wait before this key is looked at again; `None`: not at all.
    pub fn wait(&self, client: IpAddr, access_key: &str, now: Instant) -> Option<Duration> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&(client, short(access_key)))?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(count.since))?;
        (count.failures >= self.most && !left.is_zero()).then_some(left)
    }

    /// Counts a signature that was wrong.
    pub fn failed(&self, client: IpAddr, access_key: &str, now: Instant) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = (client, short(access_key));
        if counts.len() >= PAIRS_MAX && !counts.contains_key(&pair) {
            counts.retain(|_, c| now.saturating_duration_since(c.since) < WINDOW);
            let oldest = counts.iter().min_by_key(|(_, c)| c.since).map(|(pair, _)| pair.clone());
            if let Some(oldest) = oldest.filter(|_| counts.len() >= PAIRS_MAX) {
                counts.remove(&oldest);
            }
        }
        let count = counts.entry(pair).or_insert(Count { since: now, failures: 0 });
        if now.saturating_duration_since(count.since) >= WINDOW {
            *count = Count { since: now, failures: 0 };
        }
        count.failures = count.failures.saturating_add(1);
    }
}

fn short(access_key: &str) -> String {
    access_key.chars().take(KEY_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn a_pair_that_failed_too_often_waits_for_the_window_and_no_other_does() {
        let (failures, start) = (Failures::new(3), Instant::now());
        for _ in 0..3 {
            assert_eq!(failures.wait(A, "key", start), None);
            failures.failed(A, "key", start);
        }
        assert_eq!(failures.wait(A, "key", start), Some(WINDOW));
        assert_eq!(failures.wait(A, "other", start), None);
        assert_eq!(failures.wait(B, "key", start), None);
        assert_eq!(failures.wait(A, "key", start + WINDOW), None);
        failures.failed(A, "key", start + WINDOW);
        assert_eq!(failures.wait(A, "key", start + WINDOW), None, "a new window counts from one");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (failures, start) = (Failures::new(1), Instant::now());
        for i in 0..=PAIRS_MAX {
            failures.failed(A, &format!("key{i}"), start + Duration::from_millis(i as u64));
        }
        assert_eq!(failures.counts.lock().unwrap().len(), PAIRS_MAX);
        assert_eq!(failures.wait(A, "key0", start), None, "the oldest gave way");
        assert!(failures.wait(A, &format!("key{PAIRS_MAX}"), start).is_some());
    }
}
