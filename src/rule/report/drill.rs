//! What a FailoverDrill asks of the drill engine, and what its status says of what the engine reports. Pure.
use super::super::RuleSet;
use super::super::accept;
use super::super::resource::drill::{
    Direction, DrillReport, DrillScope, DrillStep, DrillType, FailoverDrillSpec, FailoverDrillStatus, Workload,
};
use super::super::resource::shared::Duration;
use super::super::watch_kube::Object;
use super::status::{Verdict as Said, conditions, time, verdict};
use crate::drill::machine::{Step, Went};
use crate::drill::report::{Report, Verdict};
use crate::drill::{self, Load, Objectives, Plan, Type};

/// How long the peer serves in a planned switchover, before it is switched back or the drill ends.
const SERVES_MILLIS: u64 = 10_000;
/// What is written without a workload: enough to measure a time without service.
const PROBE: Load = Load { writes_per_second: 10, object_bytes: 1, delete_percent: 0 };
/// Examples in a status.
const SAMPLES_MAX: usize = 20;

/// How far a drill is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Why it does not begin yet: reason and sentence.
    Pending(&'static str, String),
    /// Why it can never be carried out.
    Refused(&'static str, String),
    /// The leader that writes this begins it next; no other one ever will.
    Claimed,
    /// What the engine shows.
    Shown(Box<Report>),
    /// The process that drove it does not any more; each site has lifted the fault by itself.
    Lost,
    /// It was to end before it began.
    Aborted,
}

/// What a drill asks; `None`: the API server holds something this version cannot read.
pub fn spec(object: &Object) -> Option<FailoverDrillSpec> {
    serde_json::from_value(object.spec.clone()).ok()
}

/// Whether its status says that it has ended.
pub fn is_over(object: &Object) -> bool {
    matches!(object.status.json()["phase"].as_str(), Some("Succeeded" | "Failed" | "Aborted"))
}

/// Whether some leader has begun it.
pub fn is_claimed(object: &Object) -> bool {
    object.status.json()["startTime"].is_string()
}

/// The id of its canary: the same for every process that sees the object.
pub fn id(object: &Object) -> String {
    object.uid.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).take(32).collect()
}

/// What the engine is to do.
///
/// # Errors
/// [`Stage::Refused`]: this version cannot, and which field says what it cannot.
pub fn plan(object: &Object, spec: &FailoverDrillSpec) -> Result<Plan, Stage> {
    let refused = |reason, why: String| Err(Stage::Refused(reason, why));
    let rules = match spec.scope {
        DrillScope::Canary => Vec::new(),
        DrillScope::Live => {
            let given: Vec<_> = spec.confirm.iter().cloned().collect();
            if let Err(why) = drill::confirmed(std::slice::from_ref(&object.name), &given) {
                return refused("NotConfirmed", format!("spec.confirm: {why}"));
            }
            spec.rule_refs.iter().map(|rule| rule.name.clone()).collect()
        }
    };
    let millis = |field: &str, duration: &Duration| {
        let wrong =
            || Stage::Refused("InvalidSpec", format!("{field}: {} is no duration; write for example 30s", duration.0));
        accept::duration_millis(duration).ok_or_else(wrong)
    };
    let (kind, duration_millis) = match (&spec.type_, &spec.partition, &spec.site_loss) {
        (DrillType::Partition, Some(p), _) => (Type::Partition, millis("spec.partition.duration", &p.duration)?),
        (DrillType::SiteLoss, _, Some(s)) => (Type::SiteLoss, millis("spec.siteLoss.duration", &s.duration)?),
        _ => (Type::Switchover, SERVES_MILLIS),
    };
    let direction = spec.partition.as_ref().map_or(drill::Direction::Both, |p| match p.direction {
        Direction::Both => drill::Direction::Both,
        Direction::Outbound => drill::Direction::Outbound,
        Direction::Inbound => drill::Direction::Inbound,
    });
    let switchover = spec.planned_switchover.as_ref();
    let drain_millis =
        switchover.map(|s| millis("spec.plannedSwitchover.drainTimeout", &s.drain_timeout)).transpose()?;
    let plan = Plan {
        id: id(object),
        peer: spec.peer_ref.name.clone(),
        kind,
        direction,
        duration_millis,
        deadline_millis: millis("spec.deadline", &spec.deadline)?,
        drain_millis,
        fails_back: switchover.is_none_or(|s| s.fail_back),
        load: spec.workload.as_ref().map_or(Ok(PROBE), load)?,
        objectives: Objectives {
            rpo_millis: Some(millis("spec.objectives.rpo", &spec.objectives.rpo)?),
            rto_millis: millis("spec.objectives.rto", &spec.objectives.rto)?,
        },
        rules,
    };
    plan.check().map(|()| plan).map_err(|why| Stage::Refused("InvalidSpec", why))
}

/// What a drill names and is not in force.
pub fn unmet(spec: &FailoverDrillSpec, rules: &RuleSet) -> Option<Stage> {
    let peer = &spec.peer_ref.name;
    for (place, rule) in spec.rule_refs.iter().enumerate() {
        let name = &rule.name;
        let Some(rule) = rules.rules.get(name) else {
            let why = format!("spec.ruleRefs[{place}]: no ReplicationRule {name} is in force");
            return Some(Stage::Pending("RuleNotFound", why));
        };
        if !rule.destinations.iter().any(|d| d.peer == *peer) {
            let why = format!("spec.ruleRefs[{place}]: ReplicationRule {name} sends nothing to Peer {peer}");
            return Some(Stage::Refused("PeerNotOfRule", why));
        }
    }
    None
}

fn load(workload: &Workload) -> Result<Load, Stage> {
    let wrong = |why: String| Stage::Refused("InvalidSpec", format!("spec.workload.objectSize: {why}"));
    let bytes = accept::bytes(&workload.object_size).map_err(wrong)?;
    Ok(Load {
        writes_per_second: u32::try_from(workload.writes_per_second).unwrap_or(0),
        object_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        delete_percent: u32::try_from(workload.delete_percent).unwrap_or(u32::MAX),
    })
}

/// Status of a drill.
pub fn status(object: &Object, stage: &Stage, now: u64) -> FailoverDrillStatus {
    let old: FailoverDrillStatus = serde_json::from_value(object.status.json()).unwrap_or_default();
    let mut status = FailoverDrillStatus { observed_generation: i64::try_from(object.generation).ok(), ..old };
    let accepted = || verdict("Accepted", "True", "Accepted", "");
    let failed = |reason: &str, why: &str| verdict("Failed", "True", reason, why);
    let (phase, said) = match stage {
        Stage::Pending(reason, why) => ("Pending", vec![verdict("Accepted", "False", reason, why.clone())]),
        Stage::Refused(reason, why) => {
            ("Failed", vec![verdict("Accepted", "False", reason, why.clone()), failed(reason, why)])
        }
        Stage::Claimed => {
            status.start_time = Some(time(now));
            ("Preparing", vec![accepted()])
        }
        Stage::Lost => {
            let why = "the process that drove it ended or leads no more; each site lifted the fault by itself";
            ("Aborted", vec![accepted(), failed("Aborted", why)])
        }
        Stage::Aborted => ("Aborted", vec![accepted(), failed("Aborted", "spec.abort was set before it began")]),
        Stage::Shown(report) => {
            status.start_time = Some(time(report.began_at));
            status.steps = report.steps.iter().map(step).collect();
            status.report = report.is_over().then(|| figures(report)).filter(|_| report.verdict != Verdict::Refused);
            (phase(report), of_report(report))
        }
    };
    if matches!(phase, "Succeeded" | "Failed" | "Aborted") && status.completion_time.is_none() {
        status.completion_time = Some(time(now));
    }
    status.phase = Some(phase.into());
    status.conditions = conditions(said, object, now);
    status
}

fn phase(report: &Report) -> &'static str {
    match report.verdict {
        Verdict::Pass => return "Succeeded",
        Verdict::Fail | Verdict::Refused => return "Failed",
        Verdict::Aborted => return "Aborted",
        Verdict::Running => {}
    }
    match report.steps.last().map(|went| went.step) {
        None | Some(Step::Prepare | Step::Baseline) => "Preparing",
        Some(Step::Cut | Step::Fence) => "Injecting",
        Some(Step::Drain | Step::Takeover | Step::Measure | Step::Hold) => "Measuring",
        Some(Step::FailBack | Step::Heal | Step::CatchUp) => "Recovering",
        Some(Step::Verify | Step::CleanUp) => "Verifying",
    }
}

fn of_report(report: &Report) -> Vec<Said> {
    let why = report.reason.clone().unwrap_or_default();
    if report.verdict == Verdict::Refused {
        return vec![
            verdict("Accepted", "False", "PreflightFailed", why.clone()),
            verdict("Failed", "True", "PreflightFailed", why),
        ];
    }
    let done = |step: Step| report.steps.iter().any(|w| w.step == step && w.ended_at.is_some() && w.failure.is_none());
    let is = |kind, holds: bool, reason: &str| verdict(kind, if holds { "True" } else { "False" }, reason, "");
    let mut all = vec![verdict("Accepted", "True", "Accepted", "")];
    if report.figures.fault_at.is_some() {
        let is_lifted = done(Step::Heal) || done(Step::CleanUp);
        all.push(is("FaultInjected", !is_lifted, if is_lifted { "Lifted" } else { "Injected" }));
    }
    if done(Step::Heal) {
        all.push(is("Recovered", done(Step::CatchUp), if done(Step::CatchUp) { "CaughtUp" } else { "CatchingUp" }));
    }
    if let Some(differ) = divergent(report).filter(|_| done(Step::Verify)) {
        all.push(is("Verified", differ == 0, if differ == 0 { "Equal" } else { "Different" }));
    }
    match report.verdict {
        Verdict::Pass => all.push(verdict("Complete", "True", "ObjectivesKept", report.headline())),
        Verdict::Fail | Verdict::Aborted => all.push(verdict("Failed", "True", failure(report), why)),
        Verdict::Running | Verdict::Refused => {}
    }
    all
}

/// Why it failed, in one word.
fn failure(report: &Report) -> &'static str {
    let took = report.ended_at.map_or(0, |at| at.saturating_sub(report.began_at));
    match () {
        () if report.verdict == Verdict::Aborted => "Aborted",
        () if took >= report.plan.deadline_millis => "DeadlineExceeded",
        () if report.steps.iter().any(|w| w.failure.is_some()) => "StepFailed",
        () if divergent(report).is_some_and(|differ| differ > 0) => "VerificationFailed",
        () => "ObjectiveMissed",
    }
}

fn step(went: &Went) -> DrillStep {
    let state = match (went.ended_at, &went.failure) {
        (_, Some(_)) => "Failed",
        (Some(_), None) => "Done",
        (None, None) => "Running",
    };
    DrillStep {
        name: went.step.name().replace(' ', "-"),
        state: state.into(),
        start_time: Some(time(went.began_at)),
        end_time: went.ended_at.map(time),
        message: went.failure.clone(),
    }
}

fn divergent(report: &Report) -> Option<u64> {
    report.figures.differences_there.zip(report.figures.differences_here).map(|(there, here)| there + here)
}

/// The verdict and its numbers. What was not come to is `unknown`.
fn figures(report: &Report) -> DrillReport {
    let seconds = |found: Option<f64>| found.map_or("unknown".into(), |s| format!("{s:.3}s"));
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let risk = report.figures.at_risk.as_ref();
    let cost = report.cost.as_ref();
    let due = cost.filter(|cost| cost.from_here.is_some() && cost.from_there.is_some()).and_then(|cost| cost.known());
    let rpo = risk.map(|r| if r.versions == 0 { "0s".to_string() } else { format!("{:.3}s", r.seconds) });
    DrillReport {
        result: if report.verdict == Verdict::Pass { "Pass" } else { "Fail" }.into(),
        rpo_observed: rpo.unwrap_or_else(|| "unknown".into()),
        rto_observed: seconds(report.figures.rto_seconds),
        writes_acknowledged: count(report.client.puts + report.client.deletes),
        writes_lost: risk.map_or(0, |r| count(r.versions)),
        // The two sides of a canary never write one key.
        conflicts: report.figures.conflicts.map_or(0, count),
        divergent: divergent(report).map_or(0, count),
        versions_due: due.map(|way| count(way.versions)),
        versions_late: due.map(|way| count(way.late)),
        longest_wait: cost.and_then(|cost| cost.longest_wait_seconds).map(|s| format!("{s:.3}s")),
        trend: report.trend_said(),
        samples: risk.map_or_else(Vec::new, |r| r.samples.iter().take(SAMPLES_MAX).cloned().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::watch_kube::Packed;
    use super::*;
    use crate::drill::cost::{Cost, Way};
    use crate::drill::ledger::AtRisk;
    use crate::drill::trend::Trend;
    use crate::rule::report::events;
    use serde_json::{Value as Json, json};

    const NOW: u64 = 1_800_000_000_000;

    fn object(change: impl FnOnce(&mut Json)) -> Object {
        let mut spec = json!({"peerRef": {"name": "ams"}, "ruleRefs": [{"name": "orders"}], "type": "Partition",
            "partition": {"duration": "30s", "direction": "Both"}, "objectives": {"rpo": "1m", "rto": "2m"},
            "deadline": "10m", "workload": {"writesPerSecond": 5, "objectSize": "4Ki", "deletePercent": 20}});
        change(&mut spec);
        let uid = "0A1b2c3d-0000-4000-8000-000000000001".into();
        Object { kind: "FailoverDrill", name: "friday".into(), uid, generation: 1, spec, ..Object::default() }
    }
    fn planned(object: &Object) -> Result<Plan, Stage> {
        plan(object, &spec(object).expect("the CRD's own form"))
    }
    fn said(status: &FailoverDrillStatus, kind: &str) -> Option<(String, String)> {
        let found = status.conditions.iter().find(|c| c.type_ == kind);
        found.map(|c| (c.status.clone(), c.reason.clone()))
    }
    fn is(status: &str, reason: &str) -> Option<(String, String)> {
        Some((status.into(), reason.into()))
    }

    #[test]
    fn a_spec_becomes_a_plan_or_says_which_field_cannot_be() {
        let plan = planned(&object(|_| ())).expect("it can be carried out");
        assert_eq!(
            (plan.id.as_str(), plan.peer.as_str(), plan.kind),
            ("0a1b2c3d000040008000000000000001", "ams", Type::Partition)
        );
        assert_eq!((plan.duration_millis, plan.deadline_millis, plan.load.object_bytes), (30_000, 600_000, 4096));
        assert_eq!(plan.direction, drill::Direction::Both);
        let inbound = planned(&object(|s| s["partition"]["direction"] = json!("Inbound"))).expect("carried out");
        assert_eq!(inbound.direction, drill::Direction::Inbound);
        assert_eq!((plan.objectives.rpo_millis, plan.objectives.rto_millis), (Some(60_000), 120_000));
        let refused = |change: fn(&mut Json)| match planned(&object(change)) {
            Err(Stage::Refused(reason, why)) => (reason, why),
            other => panic!("{other:?}"),
        };
        for confirm in [json!(null), json!("monday")] {
            let live = object(|s| (s["scope"], s["confirm"]) = (json!("Live"), confirm));
            assert!(matches!(planned(&live), Err(Stage::Refused("NotConfirmed", why)) if why.contains("friday")));
        }
        let live = planned(&object(|s| (s["scope"], s["confirm"]) = (json!("Live"), json!("friday"))));
        assert_eq!(live.expect("it is confirmed").rules, ["orders"]);
        assert!(plan.rules.is_empty());
        let (reason, why) = refused(|s| s["workload"]["objectSize"] = json!("2Gi"));
        assert!(reason == "InvalidSpec" && why.contains("1 MiB"), "{why}");
        let switchover = object(|s| {
            s["type"] = json!("PlannedSwitchover");
            s["plannedSwitchover"] = json!({"drainTimeout": "90s"});
            s.as_object_mut().expect("a spec").retain(|key, _| key != "partition" && key != "workload");
        });
        let plan = planned(&switchover).expect("it can be carried out");
        assert_eq!((plan.kind, plan.drain_millis, plan.fails_back), (Type::Switchover, Some(90_000), false));
        assert_eq!(plan.load, PROBE);
    }

    #[test]
    fn a_status_follows_the_engine_to_its_verdict() {
        let object = object(|_| ());
        let plan = planned(&object).expect("it can be carried out");
        let claimed = status(&object, &Stage::Claimed, NOW);
        assert_eq!((claimed.phase.as_deref(), claimed.start_time.is_some()), (Some("Preparing"), true));
        let mut report = Report::begun(plan, "fra", NOW);
        let went = |step, ended_at| Went { step, began_at: NOW, ended_at, failure: None };
        let steps = [Step::Prepare, Step::Baseline, Step::Cut, Step::Takeover, Step::Heal, Step::CatchUp, Step::Verify];
        report.figures.fault_at = Some(NOW);
        let mut phases = Vec::new();
        for step in steps {
            report.steps.iter_mut().for_each(|w| w.ended_at = Some(NOW));
            report.steps.push(went(step, None));
            phases.extend(status(&object, &Stage::Shown(Box::new(report.clone())), NOW).phase);
        }
        assert_eq!(
            phases,
            ["Preparing", "Preparing", "Injecting", "Measuring", "Recovering", "Recovering", "Verifying"]
        );
        report.steps.iter_mut().for_each(|w| w.ended_at = Some(NOW));
        let figures = &mut report.figures;
        figures.conflicts = Some(4);
        figures.at_risk = Some(AtRisk { versions: 2, seconds: 0.25, samples: vec!["k 1".into()], ..AtRisk::default() });
        (figures.differences_there, figures.differences_here) = (Some(0), Some(0));
        (figures.rto_seconds, report.verdict, report.ended_at) = (Some(1.5), Verdict::Pass, Some(NOW + 9));
        let way = |versions, late| Some(Way { versions, late });
        report.cost = Some(Cost::new(way(100, 3), way(10, 0), Some(61_200)));
        report.trend = Trend::of(&report, &[]);
        let passed = status(&object, &Stage::Shown(Box::new(report.clone())), NOW + 9);
        assert_eq!(passed.phase.as_deref(), Some("Succeeded"));
        assert_eq!(said(&passed, "Complete"), is("True", "ObjectivesKept"));
        assert_eq!(said(&passed, "FaultInjected"), is("False", "Lifted"));
        assert_eq!(
            (said(&passed, "Recovered"), said(&passed, "Verified")),
            (is("True", "CaughtUp"), is("True", "Equal"))
        );
        let found = passed.report.clone().expect("it is over");
        assert_eq!(
            (found.result.as_str(), found.rpo_observed.as_str(), found.rto_observed.as_str()),
            ("Pass", "0.250s", "1.500s")
        );
        assert_eq!((found.writes_lost, found.divergent, found.conflicts), (2, 0, 4));
        assert_eq!(found.samples, ["k 1"]);
        let cost = (found.versions_due, found.versions_late, found.longest_wait.as_deref(), found.trend.as_deref());
        assert_eq!(cost, (Some(110), Some(3), Some("61.200s"), Some("the first of its kind that is kept here")));
        assert!(passed.completion_time.is_some() && passed.steps.len() == steps.len());
        let told = |before: &FailoverDrillStatus, after: &FailoverDrillStatus| {
            let json = |s: &FailoverDrillStatus| serde_json::to_value(s).expect("a status");
            let all = events::between("FailoverDrill", &json(before), &json(after));
            all.into_iter().map(|e| (e.reason, e.is_warning)).collect::<Vec<_>>()
        };
        assert_eq!(told(&FailoverDrillStatus::default(), &claimed), [("DrillStarted", false)]);
        assert_eq!(told(&claimed, &passed), [("DrillFinished", false)]);
        report.verdict = Verdict::Fail;
        report.cost = Some(Cost::new(way(100, 3), None, None));
        report.figures.differences_here = Some(3);
        let failed = status(&object, &Stage::Shown(Box::new(report.clone())), NOW + 9);
        assert_eq!(said(&failed, "Failed"), is("True", "VerificationFailed"));
        assert_eq!(failed.report.and_then(|r| r.versions_late), None, "one way is not known");
        report.figures.differences_here = Some(0);
        let failed = status(&object, &Stage::Shown(Box::new(report)), NOW + 9);
        assert_eq!(said(&failed, "Failed"), is("True", "ObjectiveMissed"));
        assert_eq!(told(&claimed, &failed), [("DrillFinished", true)]);
    }

    #[test]
    fn a_drill_that_is_refused_or_lost_says_so_and_is_over() {
        let object = object(|_| ());
        let refused = Report::refused(planned(&object).expect("a plan"), "fra", NOW, "peer ams is down".into());
        let stages = [
            (Stage::Shown(Box::new(refused)), "Failed", "PreflightFailed"),
            (Stage::Refused("NotConfirmed", "x".into()), "Failed", "NotConfirmed"),
            (Stage::Lost, "Aborted", "Aborted"),
            (Stage::Aborted, "Aborted", "Aborted"),
        ];
        for (stage, phase, reason) in stages {
            let status = status(&object, &stage, NOW);
            assert_eq!((status.phase.as_deref(), said(&status, "Failed")), (Some(phase), is("True", reason)));
            assert!(status.report.is_none() && status.completion_time.is_some());
            let ended =
                Object { status: Packed::of(&serde_json::to_value(&status).expect("a status")), ..object.clone() };
            assert!(is_over(&ended));
        }
        let waits = status(&object, &Stage::Pending("RuleNotFound", "x".into()), NOW);
        assert_eq!((waits.phase.as_deref(), said(&waits, "Accepted")), (Some("Pending"), is("False", "RuleNotFound")));
    }
}
