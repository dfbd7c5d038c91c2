//! Figures of the last drill with each peer, by type: what dashboards and alerts ask for. Bounded by peers and types.
use crate::drill::Plan;
use crate::drill::machine::Step;
use crate::drill::report::{Report, Verdict};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

type Seconds = Gauge<f64, AtomicU64>;

/// Of which drills.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    peer: String,
    r#type: String,
}

/// And how they ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    peer: String,
    r#type: String,
    result: String,
}

/// What a drill leaves to be scraped.
#[derive(Default)]
pub(super) struct Drills {
    rpo: Family<Labels, Seconds>,
    rto: Family<Labels, Seconds>,
    rto_objective: Family<Labels, Seconds>,
    rpo_objective: Family<Labels, Seconds>,
    last: Family<ResultLabels, Seconds>,
    step: Family<Labels, Gauge>,
}

impl Drills {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("drill_rpo_seconds", "Age of the oldest version at risk in the last drill", self.rpo.clone());
        r.register("drill_rto_seconds", "Time without service in the last drill", self.rto.clone());
        r.register(
            "drill_rpo_objective_seconds",
            "What the last drill allowed for its RPO",
            self.rpo_objective.clone(),
        );
        r.register(
            "drill_rto_objective_seconds",
            "What the last drill allowed for its RTO",
            self.rto_objective.clone(),
        );
        r.register("drill_last_timestamp_seconds", "When the last drill of each result ended", self.last.clone());
        r.register("drill_step", "Number of the step a drill is at; 0 once it is over", self.step.clone());
    }

    /// `None`: it is over.
    pub(super) fn at(&self, plan: &Plan, step: Option<Step>) {
        let labels = Labels { peer: plan.peer.clone(), r#type: plan.kind.name().into() };
        self.step.get_or_create(&labels).set(step.map_or(0, |step| step.number().into()));
    }

    /// A figure that was not measured is absent.
    pub(super) fn show(&self, report: &Report) {
        let (peer, kind) = (&report.plan.peer, report.plan.kind.name());
        let labels = Labels { peer: peer.clone(), r#type: kind.into() };
        let set = |family: &Family<Labels, Seconds>, value: Option<f64>| match value {
            Some(value) => drop(family.get_or_create(&labels).set(value)),
            None => drop(family.remove(&labels)),
        };
        set(&self.rpo, report.figures.at_risk.as_ref().map(|r| r.seconds));
        set(&self.rto, report.figures.rto_seconds);
        set(&self.rpo_objective, report.rpo_objective_seconds());
        set(&self.rto_objective, Some(report.plan.objectives.rto_millis as f64 / 1000.0));
        let result = match report.verdict {
            Verdict::Pass => "pass",
            Verdict::Aborted => "aborted",
            _ => "fail",
        };
        let labels = ResultLabels { peer: peer.clone(), r#type: kind.into(), result: result.into() };
        let ended_at = report.ended_at.unwrap_or(report.began_at);
        self.last.get_or_create(&labels).set(ended_at as f64 / 1000.0);
    }
}
