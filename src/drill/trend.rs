//! How a drill compares with those before it that exercised the same: type and direction, peer, and what they acted on.
//! Pure; what is kept of earlier ones is a parameter.
use super::report::{Report, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Earlier drills that are named.
const BEFORE_MAX: usize = 5;

/// What is compared of one drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    pub id: String,
    /// Unix milliseconds.
    pub began_at: u64,
    pub verdict: Verdict,
    /// Absent: not measured.
    pub rpo_seconds: Option<f64>,
    pub rto_seconds: Option<f64>,
}

/// A drill beside those before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// The newest first, five at most.
    pub before: Vec<Past>,
    /// All that are kept, this one included: how many passed, of how many.
    pub passed: u64,
    pub of: u64,
}

/// Whether a drill came to a verdict of its own: one that a person ended, or that was not begun, says nothing.
fn is_judged(report: &Report) -> bool {
    matches!(report.verdict, Verdict::Pass | Verdict::Fail)
}

/// Whether two drills exercised the same.
fn is_alike(a: &Report, b: &Report) -> bool {
    let rules = |report: &Report| report.plan.rules.iter().cloned().collect::<BTreeSet<_>>();
    (a.plan.kind, a.plan.direction, &a.plan.peer) == (b.plan.kind, b.plan.direction, &b.plan.peer)
        && rules(a) == rules(b)
}

/// How many of these passed, of how many that came to a verdict.
pub fn passed<'a>(reports: impl IntoIterator<Item = &'a Report>) -> (u64, u64) {
    let count = |(passed, of), report: &Report| (passed + u64::from(report.verdict == Verdict::Pass), of + 1);
    reports.into_iter().filter(|report| is_judged(report)).fold((0, 0), count)
}

impl Trend {
    /// Of a drill that is over, among those kept, newest first; `None`: it came to no verdict.
    pub fn of(report: &Report, kept: &[Report]) -> Option<Trend> {
        let is_earlier = |other: &&Report| {
            other.plan.id != report.plan.id && other.began_at <= report.began_at && is_alike(report, other)
        };
        let earlier: Vec<_> = kept.iter().filter(is_earlier).filter(|other| is_judged(other)).collect();
        let (passed, of) = passed(earlier.iter().copied().chain([report]));
        let past = |other: &&Report| Past {
            id: other.plan.id.clone(),
            began_at: other.began_at,
            verdict: other.verdict,
            rpo_seconds: other.figures.at_risk.as_ref().map(|risk| risk.seconds),
            rto_seconds: other.figures.rto_seconds,
        };
        is_judged(report).then(|| Trend { before: earlier.iter().take(BEFORE_MAX).map(past).collect(), passed, of })
    }

    /// One line: this drill's figures and those before it, the newest first.
    pub fn said(&self, rpo_seconds: Option<f64>, rto_seconds: Option<f64>) -> String {
        if self.before.is_empty() {
            return "the first of its kind that is kept here".into();
        }
        let shown = |seconds: Option<f64>| seconds.map_or("not measured".into(), |s| format!("{s:.3}s"));
        let all = |of: fn(&Past) -> Option<f64>| {
            self.before.iter().map(|past| shown(of(past))).collect::<Vec<_>>().join(", ")
        };
        format!(
            "RTO {}, before {}; RPO {}, before {} ({} of {} passed)",
            shown(rto_seconds),
            all(|past| past.rto_seconds),
            shown(rpo_seconds),
            all(|past| past.rpo_seconds),
            self.passed,
            self.of
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::AtRisk;
    use super::super::tests::plan;
    use super::super::{Direction, Plan, Type};
    use super::*;

    /// A drill of this plan that came to this verdict; its RTO tells its beginning.
    fn drill(began_at: u64, verdict: Verdict, change: impl FnOnce(&mut Plan)) -> Report {
        let mut plan = Plan { id: format!("{began_at:012}"), ..plan(Type::Partition) };
        change(&mut plan);
        let mut report = Report::begun(plan, "fra", began_at);
        report.verdict = verdict;
        report.figures.rto_seconds = Some(began_at as f64 / 1000.0);
        report.figures.at_risk = Some(AtRisk::default());
        report
    }

    #[test]
    fn a_drill_is_compared_with_earlier_ones_that_exercised_the_same() {
        let same = |_: &mut Plan| ();
        let mut broken = drill(300, Verdict::Fail, same);
        (broken.figures.rto_seconds, broken.figures.at_risk) = (None, None);
        let now = drill(500, Verdict::Pass, same);
        let kept = [
            drill(900, Verdict::Pass, same),
            now.clone(),
            drill(410, Verdict::Aborted, same),
            drill(409, Verdict::Running, same),
            drill(408, Verdict::Refused, same),
            drill(407, Verdict::Pass, |p| p.peer = "waw".into()),
            drill(406, Verdict::Pass, |p| p.kind = Type::SiteLoss),
            drill(405, Verdict::Pass, |p| p.direction = Direction::Inbound),
            drill(404, Verdict::Pass, |p| p.rules = vec!["orders".into()]),
            drill(400, Verdict::Pass, same),
            broken,
        ];
        let trend = Trend::of(&now, &kept).expect("it has a verdict");
        let before: Vec<_> = trend.before.iter().map(|past| past.began_at).collect();
        assert_eq!((before.as_slice(), trend.passed, trend.of), (&[400, 300][..], 2, 3));
        assert_eq!(
            trend.said(Some(0.0), now.figures.rto_seconds),
            "RTO 0.500s, before 0.400s, not measured; RPO 0.000s, before 0.000s, not measured (2 of 3 passed)"
        );
        assert_eq!(Trend::of(&drill(500, Verdict::Aborted, same), &kept), None);
    }

    #[test]
    fn rules_are_a_set_and_the_newest_few_are_named_while_all_are_counted() {
        let live = |names: &'static [&'static str]| {
            move |p: &mut Plan| p.rules = names.iter().map(|name| name.to_string()).collect()
        };
        let kept: Vec<_> = (0..9).rev().map(|at| drill(at, Verdict::Pass, live(&["a", "b"]))).collect();
        let trend = Trend::of(&drill(10, Verdict::Fail, live(&["b", "a"])), &kept).expect("it has a verdict");
        assert_eq!((trend.before.len(), trend.before[0].began_at, trend.passed, trend.of), (BEFORE_MAX, 8, 9, 10));
        let first = Trend::of(&drill(10, Verdict::Pass, live(&["a"])), &kept).expect("it has a verdict");
        assert_eq!((first.passed, first.of), (1, 1));
        assert!(first.said(None, Some(1.0)).starts_with("the first of its kind"));
    }
}
