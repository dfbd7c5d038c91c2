//! What a drill cost in service level: of the versions that were judged while it ran, how many were not at the other site in
//! time, and how long the longest waited. Pure.
//!
//! How many versions 30 days bring is known to nobody here: the cost is said in versions, beside what the objective allows
//! of as many, and never as a share of a month.
use crate::replicator::lateness::{IN_TIME_MS, Judged};
use serde::{Deserialize, Serialize};

/// One version in so many may be late. Source: operations.md section 3, 99.9 % over 30 days.
const LATE_ONE_IN: u64 = 1_000;

/// Versions of the drill's links, one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// Acked, or late, from the last moment before the fault until all had caught up.
    pub versions: u64,
    /// Of these, not at the other site 60 s after their commit.
    pub late: u64,
}

/// What the drill's links did not keep while it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// From the site that drives; absent: not known.
    pub from_here: Option<Way>,
    /// From the peer; absent: not known, or a peer of an earlier build.
    pub from_there: Option<Way>,
    /// The longest that a version waited for the other site, either way, at most; what came and went between two
    /// measurements is not seen. Absent: not known of both.
    pub longest_wait_seconds: Option<f64>,
    /// How many of as many versions the objective allows to be late.
    pub late_allowed: f64,
}

impl Way {
    /// What was judged from one moment to another; `None`: some link began to count anew in between.
    pub fn between(before: Judged, after: Judged) -> Option<Way> {
        let late = after.late.checked_sub(before.late)?;
        let in_time = after.in_time.checked_sub(before.in_time)?;
        (before.since == after.since).then_some(Way { versions: in_time + late, late })
    }
}

impl Cost {
    /// Of what was found each way, and of the longest waits there and here in milliseconds.
    pub fn new(from_here: Option<Way>, from_there: Option<Way>, longest_millis: Option<u64>) -> Cost {
        let longest_wait_seconds = longest_millis.map(|ms| ms as f64 / 1000.0);
        let versions: u64 = [from_here, from_there].into_iter().flatten().map(|way| way.versions).sum();
        Cost { from_here, from_there, longest_wait_seconds, late_allowed: versions as f64 / LATE_ONE_IN as f64 }
    }

    /// Both ways, as far as they are known; `None`: nothing is known.
    pub fn known(&self) -> Option<Way> {
        let add = |a: Way, b: Way| Way { versions: a.versions + b.versions, late: a.late + b.late };
        [self.from_here, self.from_there].into_iter().flatten().reduce(add)
    }

    /// One sentence. `is_live`: the versions were users'.
    pub fn said(&self, is_live: bool) -> String {
        let allowed_seconds = IN_TIME_MS / 1000;
        let way = |(way, from): (Option<Way>, &str)| match way {
            Some(Way { versions: 0, .. }) => None,
            Some(Way { versions, late }) => Some(format!("{late} of {versions} versions {from}")),
            None => Some(format!("an unknown number of versions {from}")),
        };
        let ways = [(self.from_here, "from here"), (self.from_there, "back")].into_iter().filter_map(way);
        let ways = ways.reduce(|a, b| format!("{a} and {b}")).unwrap_or("none".into());
        let longest = self.longest_wait_seconds.map_or("not known".into(), |s| format!("{s:.1}s"));
        let late = format!("{ways} came later than {allowed_seconds}s, longest wait {longest}");
        let spent = match self.known() {
            _ if !is_live => return format!("no cost to users; of the canary's own {late}"),
            Some(Way { late: late @ 1.., .. }) => {
                let (allowed, budget) = (self.late_allowed, late * LATE_ONE_IN);
                format!(
                    "the objective (99.9 % over 30d) allows {allowed:.1} of as many: spent is the budget of {budget} versions"
                )
            }
            _ if self.from_here.is_none() || self.from_there.is_none() => "what is spent is not known in full".into(),
            _ => "nothing of the budget is spent".into(),
        };
        format!("{late}; {spent}")
    }
}

/// The longest that versions of some links have waited, found from when the oldest of those that wait was committed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait {
    oldest: Option<u64>,
    longest_millis: u64,
}

impl Wait {
    /// Takes a measurement at `now`; `oldest`: nothing committed before waits. Both in Unix milliseconds. What waited at the
    /// last measurement has waited until this one at most.
    pub fn measured(&mut self, now: u64, oldest: Option<u64>) {
        let since = self.oldest.into_iter().chain(oldest).min();
        let waited = since.map_or(0, |since| now.saturating_sub(since));
        self.longest_millis = self.longest_millis.max(waited);
        self.oldest = oldest;
    }

    /// The longest so far, milliseconds.
    pub fn longest_millis(&self) -> u64 {
        self.longest_millis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(since: u64, in_time: u64, late: u64) -> Judged {
        Judged { since, in_time, late }
    }

    #[test]
    fn versions_are_those_judged_in_between_and_not_known_where_counting_began_anew() {
        let before = judged(5, 1_000, 3);
        assert_eq!(Way::between(before, judged(5, 1_088, 15)), Some(Way { versions: 100, late: 12 }));
        for anew in [judged(6, 1_088, 15), judged(5, 1_088, 2), judged(5, 999, 15)] {
            assert_eq!(Way::between(before, anew), None, "{anew:?}");
        }
    }

    #[test]
    fn a_live_drill_says_what_it_spent_in_versions_and_never_of_a_month() {
        let way = |versions, late| Some(Way { versions, late });
        let table = [
            (
                Cost::new(way(4_000, 12), way(312, 0), Some(74_120)),
                "12 of 4000 versions from here and 0 of 312 versions back came later than 60s, longest wait 74.1s; the objective (99.9 % over 30d) allows 4.3 of as many: spent is the budget of 12000 versions",
            ),
            (
                Cost::new(way(40, 0), way(0, 0), Some(9_000)),
                "0 of 40 versions from here came later than 60s, longest wait 9.0s; nothing of the budget is spent",
            ),
            (
                Cost::new(way(40, 0), None, None),
                "0 of 40 versions from here and an unknown number of versions back came later than 60s, longest wait not known; what is spent is not known in full",
            ),
        ];
        for (cost, said) in table {
            assert_eq!(cost.said(true), said);
        }
    }

    #[test]
    fn a_canary_costs_users_nothing_and_says_how_its_own_versions_fared() {
        let cost = Cost::new(Some(Way { versions: 60, late: 2 }), Some(Way::default()), Some(61_000));
        let said = cost.said(false);
        assert!(said.starts_with("no cost to users; of the canary's own 2 of 60 versions from here"), "{said}");
        assert!(said.ends_with("longest wait 61.0s") && !said.contains("budget"), "{said}");
    }

    #[test]
    fn what_waited_at_one_measurement_has_waited_until_the_next() {
        let mut wait = Wait::default();
        for (now, oldest) in [(1_000, None), (1_250, Some(1_100)), (9_000, Some(1_100)), (9_250, Some(8_000))] {
            wait.measured(now, oldest);
        }
        assert_eq!(wait.longest_millis(), 9_250 - 1_100);
        wait.measured(9_500, None);
        wait.measured(60_000, None);
        assert_eq!(wait.longest_millis(), 9_250 - 1_100, "what is there does not wait any more");
    }
}
