//! Which versions were not at the peer a minute after this site had them: what the objective's budget is spent on.
//!
//! Counted from two numbers at each measurement, how many versions were done and how many are pending, so that an outage
//! spends the budget while it lasts, also by versions nobody has read from the feed yet. Versions are taken to be done in
//! the order they came: while some overtake others the count is late by as many, and right again when they are done.
//! Pure; `replicator/run.rs` measures.
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A version is to be at the peer within so many milliseconds of its commit.
pub const IN_TIME_MS: u64 = 60_000;
/// Measurements kept are at least so far apart: 61 of them are held.
const APART_MS: u64 = 1_000;

/// How versions came out against the objective since they are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Unix milliseconds: since when. A link that begins anew counts anew.
    pub since: u64,
    /// Acked within [`IN_TIME_MS`].
    pub in_time: u64,
    /// Not there when so long had passed.
    pub late: u64,
}

/// The measurements of the last minute of one link.
#[derive(Debug, Default)]
pub struct Lateness {
    /// Unix milliseconds, and how many versions had come by then.
    came: VecDeque<(u64, u64)>,
    /// The first so many versions that came were looked at.
    looked_at: u64,
    judged: Judged,
}

impl Lateness {
    /// Takes note of a version that was acked so long after its commit.
    pub fn acked(&mut self, waited_ms: u64) {
        self.judged.in_time += u64::from(waited_ms <= IN_TIME_MS);
    }

    /// All that was judged; absent before the first measurement.
    pub fn judged(&self) -> Option<Judged> {
        Some(self.judged).filter(|judged| judged.since > 0)
    }

    /// Takes a measurement: `done` versions since the link runs, `pending` now. Returns how many became late since the
    /// last one, each version once.
    pub fn measured(&mut self, now: u64, done: u64, pending: u64) -> u64 {
        if self.judged.since == 0 {
            self.judged.since = now;
        }
        if self.came.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= APART_MS) {
            self.came.push_back((now, done + pending));
        }
        let mut newly = 0;
        while let Some((_, came)) = self.came.front().copied().filter(|(at, _)| *at + IN_TIME_MS <= now) {
            self.came.pop_front();
            let fresh = came.saturating_sub(self.looked_at);
            newly += fresh.min(came.saturating_sub(done));
            self.looked_at = self.looked_at.max(came);
        }
        self.judged.late += newly;
        newly
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    /// Late versions of a link that takes in and finishes so many in each second.
    fn late(seconds: impl Iterator<Item = (u64, u64)>) -> u64 {
        let (mut lateness, mut came, mut done, mut late) = (Lateness::default(), 0, 0, 0);
        for (second, (comes, ends)) in seconds.enumerate() {
            came += comes;
            done += ends;
            late += lateness.measured(second as u64 * SECOND, done, came - done);
        }
        late
    }

    #[test]
    fn what_is_done_within_a_minute_is_never_late() {
        assert_eq!(late((0..600).map(|second| (10, if second < 30 { 0 } else { 10 }))), 0);
    }

    #[test]
    fn an_outage_spends_the_budget_while_it_lasts_and_each_version_once() {
        let outage = |length: u64| late((0..length).map(|second| (10, if second < 5 { 10 } else { 0 })));
        assert_eq!((outage(60), outage(65), outage(66), outage(125)), (0, 0, 10, 600));
        // All is done at once in the end: what was late stays counted, and is not counted again.
        let healed = (0..300).map(|second| {
            (
                10,
                if second < 5 {
                    10
                } else if second == 125 {
                    1_210
                } else if second < 125 {
                    0
                } else {
                    10
                },
            )
        });
        assert_eq!(late(healed), 600);
    }

    #[test]
    fn what_was_there_before_becomes_late_a_minute_after_it_was_first_seen() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.measured(0, 0, 1_000), 0);
        assert_eq!(lateness.measured(59 * SECOND, 400, 600), 0);
        assert_eq!(lateness.measured(60 * SECOND, 400, 600), 600);
        assert_eq!(lateness.measured(200 * SECOND, 400, 600), 0);
    }

    #[test]
    fn what_was_judged_is_added_up_from_the_first_measurement_on() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.judged(), None);
        lateness.measured(7 * SECOND, 0, 5);
        for waited_ms in [100, IN_TIME_MS, IN_TIME_MS + 1] {
            lateness.acked(waited_ms);
        }
        lateness.measured(67 * SECOND, 2, 3);
        lateness.measured(68 * SECOND, 3, 2);
        assert_eq!(lateness.judged(), Some(Judged { since: 7 * SECOND, in_time: 2, late: 3 }));
    }
}
