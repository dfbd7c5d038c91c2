//! What a status says of a ReplicationJob. Pure.
use super::super::resource::job::{Compare, JobType, ReplicationJobSpec, ReplicationJobStatus};
use super::super::watch_kube::Object;
use super::super::{RuleSet, accept};
use super::status::{conditions, time, verdict};
use crate::replicator::job::Asked;
use crate::replicator::verify::VerifyReport;
use serde_json::Value as Json;

/// How far a job is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Why it does not run yet: reason and sentence.
    Pending(&'static str, String),
    Suspended,
    Running(VerifyReport),
    /// It compared to the end.
    Ended(VerifyReport),
    /// Why it cannot be carried out.
    Refused(&'static str, String),
}

/// What a job asks; `None`: the API server holds something this version cannot read.
pub fn spec(object: &Object) -> Option<ReplicationJobSpec> {
    serde_json::from_value(object.spec.clone()).ok()
}

/// Whether its status says that it has ended.
pub fn is_over(object: &Object) -> bool {
    matches!(object.status.json()["phase"].as_str(), Some("Complete" | "Failed"))
}

/// What cannot be done for a job whose links go to these peers of type S3.
fn refusal(spec: &ReplicationJobSpec, s3: &[String]) -> Option<Stage> {
    (spec.compare == Compare::Content && !s3.is_empty()).then(|| {
        let message = format!(
            "spec.compare: Content asks the far end to read its bytes, and Peer {} is of type S3, from which every byte would have to be fetched; use Checksum, or name another peer in spec.peer",
            s3.join(", ")
        );
        Stage::Refused("CompareUnsupported", message)
    })
}

/// Why a job cannot begin under these rules, whoever runs their links; `None`: nothing here is against it.
pub fn unmet(spec: &ReplicationJobSpec, rules: &RuleSet) -> Option<Stage> {
    if let Err(e) = accept::rate("spec.bandwidthLimit", &spec.bandwidth_limit) {
        return Some(Stage::Pending("BandwidthLimitUnusable", format!("{}: {}", e.field, e.message)));
    }
    let name = &spec.rule_ref.name;
    let Some(rule) = rules.rules.get(name) else {
        return Some(Stage::Pending("RuleNotFound", format!("spec.ruleRef: no ReplicationRule {name} is in force")));
    };
    let is_meant = |peer: &&String| spec.peer.as_ref().is_none_or(|wanted| wanted == *peer);
    let peers: Vec<&String> = rule.destinations.iter().map(|d| &d.peer).filter(is_meant).collect();
    if let (Some(peer), []) = (&spec.peer, peers.as_slice()) {
        let why = format!("spec.peer: ReplicationRule {name} sends nothing to Peer {peer}");
        return Some(Stage::Pending("NothingToCompare", why));
    }
    if let Err(why) = narrowed(&rule.filter.prefix, spec.prefix.as_deref().unwrap_or_default()) {
        return Some(Stage::Pending("NothingToCompare", why));
    }
    let s3: Vec<String> = peers.into_iter().filter(|peer| rules.foreign.contains_key(*peer)).cloned().collect();
    refusal(spec, &s3)
}

/// The longer of a rule's prefix and a job's.
///
/// # Errors
/// A sentence: they have no key in common.
pub fn narrowed(own: &str, wanted: &str) -> Result<String, String> {
    match () {
        () if wanted.starts_with(own) => Ok(wanted.into()),
        () if own.starts_with(wanted) => Ok(own.into()),
        () => Err(format!("spec.prefix: `{wanted}` lies outside the rule's own prefix `{own}`")),
    }
}

/// What a job asks of the replicators of its site, its limit and suspension left out.
pub fn asked(spec: &ReplicationJobSpec) -> Asked {
    Asked {
        rule: spec.rule_ref.name.clone(),
        peer: spec.peer.clone(),
        prefix: spec.prefix.clone().unwrap_or_default(),
        repair: spec.type_ != JobType::Verify,
        existing: spec.type_ == JobType::Backfill,
        content: spec.compare == Compare::Content,
        ..Asked::default()
    }
}

/// Status of a job that began at `began` (Unix milliseconds).
pub fn status(
    object: &Object,
    spec: &ReplicationJobSpec,
    stage: &Stage,
    began: Option<u64>,
    now: u64,
) -> ReplicationJobStatus {
    let old: ReplicationJobStatus = serde_json::from_value(object.status.json()).unwrap_or_default();
    let mut status = ReplicationJobStatus {
        observed_generation: i64::try_from(object.generation).ok(),
        start_time: began.map(time).or(old.start_time.clone()),
        ..counts(stage, old)
    };
    let accepted = match stage {
        Stage::Refused(reason, why) | Stage::Pending(reason, why) => verdict("Accepted", "False", reason, why.clone()),
        _ => verdict("Accepted", "True", "Accepted", ""),
    };
    let (phase, ends) = match stage {
        Stage::Pending(..) => ("Pending", None),
        Stage::Suspended => ("Suspended", None),
        Stage::Running(_) => ("Running", None),
        Stage::Refused(reason, why) => ("Failed", Some(verdict("Failed", "True", reason, why.clone()))),
        Stage::Ended(report) => match report.links.iter().find(|l| l.error.is_some()) {
            Some(link) => {
                let why = format!("peer {}: {}", link.peer, link.error.clone().unwrap_or_default());
                ("Failed", Some(verdict("Failed", "True", "ComparisonFailed", why)))
            }
            None => {
                let result = result(spec, report);
                status.result = Some(result.into());
                ("Complete", Some(verdict("Complete", "True", result, "")))
            }
        },
    };
    if ends.is_some() {
        status.completion_time = Some(time(now));
    }
    status.phase = Some(phase.into());
    status.conditions = conditions([Some(accepted), ends].into_iter().flatten().collect(), object, now);
    status
}

/// The counts of what was compared; those of before where nothing is known now.
fn counts(stage: &Stage, old: ReplicationJobStatus) -> ReplicationJobStatus {
    let (Stage::Running(report) | Stage::Ended(report)) = stage else { return old };
    let sum = |of: fn(&crate::replicator::verify::LinkVerify) -> u64| {
        i64::try_from(report.links.iter().map(of).sum::<u64>()).unwrap_or(i64::MAX)
    };
    let samples = report.links.iter().flat_map(|l| l.samples.iter().map(move |s| (l, s)));
    let named = |(link, s): (&crate::replicator::verify::LinkVerify, &crate::replicator::verify::Sample)| {
        let why = s.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
        format!("{} {} {}/{}?versionId={}{why}", link.peer, s.kind, link.bucket, s.key, s.version_id)
    };
    let is_unsent = |s: &&crate::replicator::verify::Sample| report.repair && s.reason.is_some();
    let unsent = report.links.iter().flat_map(|l| &l.samples).filter(is_unsent).count();
    ReplicationJobStatus {
        scanned: sum(|l| l.versions),
        missing: sum(|l| l.missing_there),
        different: sum(|l| l.unlike),
        extra: sum(|l| l.missing_here),
        repaired: sum(|l| l.repaired),
        failed: i64::try_from(unsent).unwrap_or(i64::MAX),
        samples: samples.map(named).take(20).collect(),
        ..old
    }
}

fn result(spec: &ReplicationJobSpec, report: &VerifyReport) -> &'static str {
    let differs = report.links.iter().any(|l| l.differences() > 0);
    match (&spec.type_, differs) {
        (_, true) => "Divergent",
        (JobType::Backfill, false) => "Backfilled",
        (_, false) if report.links.iter().any(|l| l.repaired > 0) => "Repaired",
        (_, false) => "Consistent",
    }
}

/// When an object that has ended goes, Unix milliseconds; `None`: never.
pub fn ends_at(object: &Object, ttl_millis: Option<u64>) -> Option<u64> {
    let ended: Json = object.status.json()["completionTime"].take();
    let ended: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time = serde_json::from_value(ended).ok()?;
    u64::try_from(ended.0.as_millisecond()).ok()?.checked_add(ttl_millis?)
}
