//! All metric names of the replicator, on one page. Timestamps, not ages; labels never name a key.
use super::shown;
use crate::drill::Plan;
use crate::drill::machine::Step;
use crate::drill::report::Report;
use crate::journal::LinkId;
use crate::link::{Op, Outcome, Reason};
use crate::replicator::lateness::IN_TIME_MS;
use crate::replicator::report::SiteReport;
use crate::replicator::toll::LIMITS;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;

/// Labels of a link: bounded by the rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LinkLabels {
    pub rule: String,
    pub bucket: String,
    pub peer: String,
}

/// What was brought of a bucket to a peer, and how the peer took it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabels {
    pub bucket: String,
    pub peer: String,
    pub op: &'static str,
    pub result: &'static str,
}

/// Pushes of a bucket to a peer, and why they failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FailedLabels {
    pub bucket: String,
    pub peer: String,
    pub reason: &'static str,
}

/// A link, and why versions of it wait for a person.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ParkedLabels {
    pub rule: String,
    pub bucket: String,
    pub peer: String,
    pub reason: &'static str,
}

/// A link and what its versions waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabels {
    pub rule: String,
    pub bucket: String,
    pub peer: String,
    pub limit: &'static str,
}

/// The versions of a bucket on their way to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WayLabels {
    pub bucket: String,
    pub peer: String,
}

/// The same, and whether they were in time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    pub bucket: String,
    pub peer: String,
    pub outcome: &'static str,
}

/// Versions born without knowing each other: an object and another, or a delete marker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConflictLabels {
    pub bucket: String,
    pub kind: &'static str,
}

/// What leads from a version's time to its trace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TraceLabels {
    pub trace_id: String,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerLabels {
    pub peer: String,
}

/// A refused frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    pub peer: String,
    pub reason: String,
}

/// Bounds of commit-to-ack in seconds; 1, 3, 60 and 900 are the bounds objectives are written in.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0, 60.0, 300.0, 900.0, 3600.0];

/// Bounds of a journal's commit in seconds.
const COMMIT_SECONDS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// What two versions of a key that did not know each other are: both objects, or one a delete.
pub const CONFLICTS: [&str; 2] = ["concurrent_put", "concurrent_delete"];

/// Acked within [`IN_TIME_MS`], or not.
const IN_TIME: &str = "in_time";
const LATE: &str = "late";

/// Media type of what is scraped.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry whose names begin as all of ours do, and whose every series says whose it is: one Prometheus may hold several
/// sites, and links of the same name lead from each of them.
pub fn registry(site: &str) -> Registry {
    let own = ("site".into(), site.to_owned().into());
    Registry::with_prefix_and_labels("isthmus", [own].into_iter())
}

/// Registries, whose names differ, in OpenMetrics text.
pub fn text(registries: &[&Registry]) -> String {
    let mut text = String::new();
    for registry in registries {
        encode_registry(&mut text, registry).expect("a String takes every byte");
    }
    encode_eof(&mut text).expect("a String takes every byte");
    text
}

/// The replicator's metrics.
pub struct Metrics {
    registry: Registry,
    pub oldest_pending: Family<LinkLabels, Gauge<f64, AtomicU64>>,
    pub backlog_versions: Family<LinkLabels, Gauge>,
    pub backlog_bytes: Family<LinkLabels, Gauge>,
    pub parked: Family<ParkedLabels, Gauge>,
    pub clock_ahead: Family<LinkLabels, Gauge>,
    pub braked: Family<LinkLabels, Gauge>,
    pub verified: Family<LinkLabels, Gauge<f64, AtomicU64>>,
    pub tombstones: Family<LinkLabels, Gauge>,
    pub tombstones_unacked: Family<LinkLabels, Gauge>,
    pub oldest_tombstone: Family<LinkLabels, Gauge<f64, AtomicU64>>,
    pub differences: Family<LinkLabels, Counter>,
    pub throttled: Family<LimitLabels, Counter<f64, AtomicU64>>,
    pub commit_to_ack: Family<WayLabels, HistogramWithExemplars<TraceLabels>>,
    pub slo: Family<OutcomeLabels, Counter>,
    pub versions: Family<ResultLabels, Counter>,
    pub bytes: Family<LinkLabels, Counter>,
    pub attempts_failed: Family<FailedLabels, Counter>,
    pub conflicts: Family<ConflictLabels, Counter>,
    /// Seconds until the journal had a checkpoint.
    pub journal_commit: Histogram,
    pub link_owned: Family<LinkLabels, Gauge>,
    pub link_epoch: Family<LinkLabels, Gauge>,
    pub frames_refused: Family<RefusedLabels, Counter>,
    drills: super::drill::Drills,
}

impl Metrics {
    /// Of the site with this siteID.
    pub fn of(site: &str) -> Self {
        let mut metrics = Metrics {
            registry: registry(site),
            oldest_pending: Family::default(),
            backlog_versions: Family::default(),
            backlog_bytes: Family::default(),
            parked: Family::default(),
            clock_ahead: Family::default(),
            braked: Family::default(),
            verified: Family::default(),
            tombstones: Family::default(),
            tombstones_unacked: Family::default(),
            oldest_tombstone: Family::default(),
            differences: Family::default(),
            throttled: Family::default(),
            commit_to_ack: Family::new_with_constructor(|| HistogramWithExemplars::new(SECONDS.into_iter())),
            slo: Family::default(),
            versions: Family::default(),
            bytes: Family::default(),
            attempts_failed: Family::default(),
            conflicts: Family::default(),
            journal_commit: Histogram::new(COMMIT_SECONDS),
            link_owned: Family::default(),
            link_epoch: Family::default(),
            frames_refused: Family::default(),
            drills: super::drill::Drills::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "link_oldest_pending_timestamp_seconds",
            "Everything committed before this is at the peer",
            self.oldest_pending.clone(),
        );
        r.register("link_backlog_versions", "Versions not yet durable at the peer", self.backlog_versions.clone());
        r.register("link_backlog_bytes", "Bytes not yet durable at the peer", self.backlog_bytes.clone());
        r.register("link_parked_versions", "Versions a person must look at", self.parked.clone());
        r.register(
            "link_clock_ahead_versions",
            "Versions stamped too far ahead; they resume by themselves",
            self.clock_ahead.clone(),
        );
        r.register(
            "link_braked_versions",
            "Deletes the brake holds back until a person releases them",
            self.braked.clone(),
        );
        r.register(
            "link_verified_timestamp_seconds",
            "Begin of the last whole comparison that found everything at the peer",
            self.verified.clone(),
        );
        r.register(
            "link_tombstones",
            "What remained of deleted versions, by the last whole comparison",
            self.tombstones.clone(),
        );
        r.register(
            "link_tombstones_unacked",
            "Of these, what the link brings and the peer did not have",
            self.tombstones_unacked.clone(),
        );
        r.register(
            "link_oldest_tombstone_timestamp_seconds",
            "When the oldest of them was deleted; absent where there is none",
            self.oldest_tombstone.clone(),
        );
        r.register(
            "link_differences",
            "Versions the slow comparison found unlike at the peer: each is a bug, or a loss there",
            self.differences.clone(),
        );
        r.register(
            "link_throttled_seconds",
            "Seconds versions waited for a limit of bandwidth or transfers, added up over versions",
            self.throttled.clone(),
        );
        r.register("link_commit_to_ack_seconds", "Commit here to durable ack there", self.commit_to_ack.clone());
        r.register(
            "link_slo_versions",
            "Versions acked within 60 s of their commit, and versions that were not when 60 s had passed",
            self.slo.clone(),
        );
        r.register("link_versions", "Versions acked by the peer", self.versions.clone());
        r.register("link_bytes", "Bytes of versions acked by the peer", self.bytes.clone());
        r.register("link_attempts_failed", "Pushes that did not succeed", self.attempts_failed.clone());
        r.register("conflicts", "Versions born without knowing each other", self.conflicts.clone());
        r.register("journal_commit_seconds", "Until a checkpoint was durable", self.journal_commit.clone());
        r.register("link_owned", "1 where this process pushes the link", self.link_owned.clone());
        r.register("link_epoch", "Epoch this process owns the link under", self.link_epoch.clone());
        r.register("peer_frames_refused", "Frames outside the grant or of a stale epoch", self.frames_refused.clone());
        self.drills.register(r);
    }

    /// Makes a link's series exist at 0, so that rates exist from the start.
    pub fn start_link(&self, link: &LinkLabels) {
        for labels in all_results(link) {
            drop(self.versions.get_or_create(&labels));
        }
        for reason in Reason::ALL {
            drop(self.attempts_failed.get_or_create(&failed_labels(link, reason)));
        }
        for kind in CONFLICTS {
            drop(self.conflicts.get_or_create(&ConflictLabels { bucket: link.bucket.clone(), kind }));
        }
        drop(self.bytes.get_or_create(link));
        drop(self.differences.get_or_create(link));
        self.throttled(link, [0.0; LIMITS.len()]);
        drop(self.link_owned.get_or_create(link));
        for outcome in [IN_TIME, LATE] {
            drop(self.slo.get_or_create(&outcome_labels(link, outcome)));
        }
        drop(self.commit_to_ack.get_or_create(&way_labels(link)));
    }

    /// This process pushes the link.
    pub fn own(&self, link: &LinkLabels, epoch: u64) {
        self.link_owned.get_or_create(link).set(1);
        self.link_epoch.get_or_create(link).set(epoch.cast_signed());
    }

    /// It does not any more.
    pub fn disown(&self, link: &LinkLabels) {
        self.link_owned.get_or_create(link).set(0);
        self.link_epoch.remove(link);
    }

    /// Removes the gauges of a link that has stopped: what cannot be known is absent.
    pub fn stop_link(&self, link: &LinkLabels) {
        self.oldest_pending.remove(link);
        self.backlog_versions.remove(link);
        self.backlog_bytes.remove(link);
        for reason in Reason::PARK {
            self.parked.remove(&parked_labels(link, reason));
        }
        self.clock_ahead.remove(link);
        self.braked.remove(link);
        self.verified.remove(link);
        self.tombstones.remove(link);
        self.tombstones_unacked.remove(link);
        self.oldest_tombstone.remove(link);
    }

    /// What a whole pass of the slow comparison has seen of deleted versions; `oldest_at` in Unix milliseconds.
    pub fn tombstones(&self, link: &LinkLabels, count: u64, oldest_at: Option<u64>, unacked: u64) {
        self.tombstones.get_or_create(link).set(count.cast_signed());
        self.tombstones_unacked.get_or_create(link).set(unacked.cast_signed());
        match oldest_at {
            Some(at) => {
                self.oldest_tombstone.get_or_create(link).set(at as f64 / 1000.0);
            }
            None => {
                self.oldest_tombstone.remove(link);
            }
        }
    }

    /// Counts a version that is durable at the peer; `trace` is the id of its trace, where it is sampled.
    pub fn done(&self, link: &LinkLabels, what: (Op, Outcome), seconds: f64, bytes: u64, trace: Option<String>) {
        self.versions.get_or_create(&result_labels(link, what)).inc();
        self.bytes.get_or_create(link).inc_by(bytes);
        let exemplar = trace.map(|trace_id| TraceLabels { trace_id });
        self.commit_to_ack.get_or_create(&way_labels(link)).observe(seconds, exemplar, None);
        if seconds * 1000.0 <= IN_TIME_MS as f64 {
            self.slo.get_or_create(&outcome_labels(link, IN_TIME)).inc();
        }
    }

    /// Counts the seconds that versions waited at each of [`LIMITS`].
    pub fn throttled(&self, link: &LinkLabels, seconds: [f64; LIMITS.len()]) {
        for (limit, seconds) in LIMITS.into_iter().zip(seconds) {
            self.throttled.get_or_create(&limit_labels(link, limit)).inc_by(seconds);
        }
    }

    /// Counts versions that were not at the peer in time.
    pub fn late(&self, link: &LinkLabels, versions: u64) {
        self.slo.get_or_create(&outcome_labels(link, LATE)).inc_by(versions);
    }

    /// Counts a push that did not succeed.
    pub fn failed(&self, link: &LinkLabels, reason: Reason) {
        self.attempts_failed.get_or_create(&failed_labels(link, reason)).inc();
    }

    /// Shows how many versions wait for a person, by the words of their reasons.
    pub fn parked(&self, link: &LinkLabels, by: &BTreeMap<String, u64>) {
        // What no reason of today stands for waits all the same.
        let mut others: u64 = by.values().sum();
        for reason in Reason::PARK {
            let count = if reason == Reason::Other { others } else { by.get(reason.word()).copied().unwrap_or(0) };
            others -= count;
            self.parked.get_or_create(&parked_labels(link, reason)).set(count.cast_signed());
        }
    }

    /// Shows which step a drill begins.
    pub fn drills_at(&self, plan: &Plan, step: Step) {
        self.drills.at(plan, Some(step));
    }

    /// Shows the figures of a drill that is over.
    pub fn drilled(&self, report: &Report) {
        self.drills.at(&report.plan, None);
        self.drills.show(report);
    }

    /// Removes every series of a bucket that is gone for good: a drill's.
    pub fn forget_bucket(&self, link: &LinkLabels) {
        for labels in all_results(link) {
            self.versions.remove(&labels);
        }
        for reason in Reason::ALL {
            self.attempts_failed.remove(&failed_labels(link, reason));
        }
        for outcome in [IN_TIME, LATE] {
            self.slo.remove(&outcome_labels(link, outcome));
        }
        for kind in CONFLICTS {
            self.conflicts.remove(&ConflictLabels { bucket: link.bucket.clone(), kind });
        }
        self.commit_to_ack.remove(&way_labels(link));
        self.bytes.remove(link);
        self.differences.remove(link);
        for limit in LIMITS {
            self.throttled.remove(&limit_labels(link, limit));
        }
        self.link_owned.remove(link);
        self.link_epoch.remove(link);
        self.stop_link(link);
    }

    /// All metrics in OpenMetrics text, with what `report` shows at this moment.
    pub fn encode(&self, report: &SiteReport) -> String {
        text(&[&self.registry, &shown::registry_of(report)])
    }

    /// Shows what another part of the process counts beside them.
    pub fn collect(&mut self, collector: impl Collector) {
        self.registry.register_collector(Box::new(collector));
    }
}

/// Labels of a link as its metrics carry them: names for people, not uids.
pub fn link_labels(rule: &str, bucket: &str, id: &LinkId) -> LinkLabels {
    LinkLabels { rule: rule.into(), bucket: bucket.into(), peer: id.peer.clone() }
}

fn way_labels(link: &LinkLabels) -> WayLabels {
    WayLabels { bucket: link.bucket.clone(), peer: link.peer.clone() }
}

fn outcome_labels(link: &LinkLabels, outcome: &'static str) -> OutcomeLabels {
    OutcomeLabels { bucket: link.bucket.clone(), peer: link.peer.clone(), outcome }
}

fn limit_labels(link: &LinkLabels, limit: &'static str) -> LimitLabels {
    let LinkLabels { rule, bucket, peer } = link.clone();
    LimitLabels { rule, bucket, peer, limit }
}

fn result_labels(link: &LinkLabels, (op, outcome): (Op, Outcome)) -> ResultLabels {
    ResultLabels { bucket: link.bucket.clone(), peer: link.peer.clone(), op: op.word(), result: outcome.word() }
}

fn all_results(link: &LinkLabels) -> impl Iterator<Item = ResultLabels> {
    let outcomes = [Outcome::Applied, Outcome::AlreadyPresent, Outcome::Superseded];
    Op::ALL.into_iter().flat_map(move |op| outcomes.map(|outcome| result_labels(link, (op, outcome))))
}

fn failed_labels(link: &LinkLabels, reason: Reason) -> FailedLabels {
    FailedLabels { bucket: link.bucket.clone(), peer: link.peer.clone(), reason: reason.word() }
}

fn parked_labels(link: &LinkLabels, reason: Reason) -> ParkedLabels {
    let LinkLabels { rule, bucket, peer } = link.clone();
    ParkedLabels { rule, bucket, peer, reason: reason.word() }
}

/// A counter that is read at each scrape, to be given its values by [`add`].
pub(super) fn counter<'s>(
    to: &'s mut DescriptorEncoder<'_>,
    name: &'s str,
    help: &str,
) -> Result<MetricEncoder<'s>, fmt::Error> {
    to.encode_descriptor(name, help, None, MetricType::Counter)
}

/// One of its values.
pub(super) fn add(to: &mut MetricEncoder<'_>, labels: &[(&str, &str)], count: u64) -> fmt::Result {
    to.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_is_gone_leaves_no_series() {
        let metrics = Metrics::of("fra");
        let link = LinkLabels { rule: "canary".into(), bucket: "canary".into(), peer: "ams".into() };
        metrics.start_link(&link);
        metrics.own(&link, 1);
        metrics.done(&link, (Op::Put, Outcome::Applied), 0.1, 7, None);
        metrics.late(&link, 1);
        let shown = metrics.encode(&SiteReport::default());
        assert!(shown.contains(r#"isthmus_link_owned{site="fra",rule="canary""#), "{shown}");
        metrics.forget_bucket(&link);
        let left = metrics.encode(&SiteReport::default());
        assert!(!left.contains("canary"), "{left}");
    }
}
