//! What is shown of a link, to people and to metrics alike: one snapshot, so that they cannot disagree.
pub mod verdict;

use super::lateness::{IN_TIME_MS, Judged};
use super::told::Suspended;
use crate::journal::Extent;
use crate::link::Shown;
use crate::rule::Problem;
use crate::store::{Backlog, StoreHealth};
use crate::telemetry::metrics::{LinkLabels, Metrics};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage_engine::api::{DriveHealth, ShownCertificate};

/// One link, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkReport {
    pub rule: String,
    pub bucket: String,
    pub peer: String,
    /// live, catching_up, peer_down, suspended, braked, stopped, blocked; standby: another process pushes it.
    pub state: String,
    /// Unix milliseconds of this snapshot.
    pub measured_at: u64,
    /// Commit time (Unix milliseconds) of the oldest change not at the peer; absent: none.
    pub oldest_pending: Option<u64>,
    /// Now less `oldest_pending`; absent when it cannot be known.
    pub lag_seconds: Option<f64>,
    /// Not yet durable at the peer; absent when it cannot be known.
    pub backlog_versions: Option<u64>,
    pub backlog_bytes: Option<u64>,
    /// Of these, versions that were there before the rule covered them.
    #[serde(default)]
    pub existing_versions: Option<u64>,
    #[serde(default)]
    pub existing_bytes: Option<u64>,
    /// Of those, not read yet by the pass that brings them; counted every few seconds.
    #[serde(default)]
    pub existing_unread: Option<u64>,
    pub retry_versions: u64,
    pub parked_versions: u64,
    /// Of these, how many for each reason (`link/reason.rs`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parked_by: BTreeMap<String, u64>,
    pub clock_ahead_versions: u64,
    /// Deletes the brake holds back; they are part of backlog and lag.
    #[serde(default)]
    pub braked_versions: u64,
    /// Since when it does, Unix milliseconds; absent: it does not.
    #[serde(default)]
    pub braked_since: Option<u64>,
    /// The rule leaves where it is what was not changed since then (Unix milliseconds); absent: it sends everything.
    #[serde(default)]
    pub copies_since: Option<u64>,
    /// The store had lost the link's place in its feed: every key is being compared with the peer.
    #[serde(default)]
    pub compares: bool,
    /// How its versions came out against the objective since this process pushes it; absent where it does not.
    #[serde(default)]
    pub judged: Option<Judged>,
    /// What the slow comparison with the peer has found; absent where this process does not push the link.
    #[serde(default)]
    pub proof: Option<ProofReport>,
    pub last_error: Option<String>,
    /// The own store's feed gives nothing: too few of its drives answer, or it cannot be reached.
    #[serde(default)]
    pub feed_stalls: bool,
    /// Why it cannot start, in one word, as a condition's reason; absent while it can.
    #[serde(default)]
    pub blocked_reason: Option<String>,
    /// What does not fit, as conditions: each with its reason in one word.
    #[serde(default)]
    pub conditions: Vec<ConditionReport>,
    /// Why it sends nothing, where a person wanted it so.
    #[serde(default)]
    pub suspended: Option<Suspended>,
    /// The rule's recovery point objective; absent where none is promised.
    #[serde(default)]
    pub rpo_seconds: Option<f64>,
    /// How the S3 endpoint at its far end is spoken to, while it can be reached; absent for another site.
    #[serde(default)]
    pub dialect: Option<String>,
    /// Name in the journal of the process that pushes the link, where it is another and known.
    pub owner: Option<String>,
}

/// Something about a link that a person must mend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionReport {
    /// One word, CamelCase: BucketNotFound, VersioningDisabled, ObjectLockMismatch, RefusedByPeer, DocumentsRefused, BucketRecreated; of an
    /// S3 endpoint those of `store/s3/error.rs`.
    pub reason: String,
    /// What is wrong, where, and what to do.
    pub message: String,
    /// The link sends nothing until it is mended; its changes wait in the feed.
    pub holds: bool,
}

/// How far the slow comparison of a link with its peer is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProofReport {
    /// Unix milliseconds: when the last whole pass began of which every version was at the peer at its end.
    pub verified_at: Option<u64>,
    /// When the pass under way began, what it has compared, and the last key of that.
    pub began_at: u64,
    pub versions: u64,
    pub behind_key: Option<String>,
    /// Of the last whole pass: what remains of deleted versions here, when the oldest was deleted (Unix milliseconds), and
    /// how many of them this link brings and had not at the peer.
    #[serde(default)]
    pub tombstones: Option<u64>,
    #[serde(default)]
    pub oldest_tombstone_at: Option<u64>,
    #[serde(default)]
    pub unacked_tombstones: Option<u64>,
    /// Found since the process started: each is a bug, or a loss at the peer.
    pub differences: u64,
    /// Of these, sent again and taken by the peer.
    pub repaired: u64,
    /// Why it does not go on.
    pub last_error: Option<String>,
}

impl LinkReport {
    /// Whether this process pushes the link and has measured it.
    pub fn is_pushed_here(&self) -> bool {
        self.measured_at > 0 && !matches!(self.state.as_str(), "standby" | "blocked")
    }

    /// Longest lag that is in order, seconds: what its rule promises, else the objective of the service as a whole.
    pub fn objective_seconds(&self) -> f64 {
        self.rpo_seconds.unwrap_or(IN_TIME_MS as f64 / 1000.0)
    }
    /// Whether it is known to be behind its objective.
    pub fn is_late(&self) -> bool {
        self.lag_seconds.is_some_and(|lag| lag > self.objective_seconds())
    }
    /// Orders links by lag; one that is not known may be worse than any that is.
    pub fn by_lag(&self, other: &LinkReport) -> std::cmp::Ordering {
        let lag = |link: &LinkReport| link.lag_seconds.unwrap_or(f64::INFINITY);
        lag(self).total_cmp(&lag(other))
    }

    /// Joins what the link knows with what the store counts behind its cursor (`behind`) and what a pass over
    /// existing versions has not read yet (`unread`).
    pub fn new(labels: &LinkLabels, now: u64, shown: Shown, behind: Option<Backlog>, unread: Option<Backlog>) -> Self {
        let counted = [behind, unread].map(|b| b.and_then(|b| b.oldest_pending_since));
        let oldest_pending = counted.into_iter().chain([shown.oldest_pending]).flatten().min();
        let both = behind.zip(unread);
        let lag_seconds = both.map(|_| oldest_pending.map_or(0.0, |at| now.saturating_sub(at) as f64 / 1000.0));
        LinkReport {
            rule: labels.rule.clone(),
            bucket: labels.bucket.clone(),
            peer: labels.peer.clone(),
            state: shown.state.into(),
            measured_at: now,
            oldest_pending,
            lag_seconds,
            backlog_versions: both.map(|(b, e)| b.versions + e.versions + shown.pending_versions),
            backlog_bytes: both.map(|(b, e)| b.bytes + e.bytes + shown.pending_bytes),
            existing_versions: unread.map(|e| e.versions + shown.existing_versions),
            existing_bytes: unread.map(|e| e.bytes + shown.existing_bytes),
            existing_unread: unread.map(|e| e.versions),
            retry_versions: shown.retry_versions,
            parked_versions: shown.parked_versions,
            parked_by: shown.parked_by.iter().map(|(reason, n)| (reason.word().into(), *n)).collect(),
            clock_ahead_versions: shown.clock_ahead_versions,
            braked_versions: shown.braked_versions,
            braked_since: shown.braked_since,
            copies_since: shown.copies_since,
            compares: shown.compares,
            proof: None,
            last_error: shown.last_error,
            ..LinkReport::default()
        }
    }

    /// Whether what its bucket held when it had been made again is left where it is.
    pub fn is_of_remade_bucket(&self) -> bool {
        self.conditions.iter().any(|c| c.reason == super::remade::REASON)
    }

    /// Whether a person must let it go on.
    pub fn is_held(&self) -> bool {
        self.suspended.is_some() || self.braked_since.is_some() || !self.conditions.is_empty()
    }

    /// The same with what was found of its two buckets.
    pub fn under(mut self, conditions: &[ConditionReport]) -> Self {
        if !self.is_pushed_here() {
            return self;
        }
        self.conditions.extend_from_slice(conditions);
        // An endpoint that is not fit is a way that is closed.
        let is_closed = matches!(self.state.as_str(), "suspended" | "peer_down");
        if let Some(holding) = conditions.iter().find(|c| c.holds).filter(|_| is_closed) {
            self.state = "blocked".into();
            self.blocked_reason = Some(holding.reason.clone());
            self.last_error = Some(holding.message.clone());
        }
        self
    }

    /// A link that another process pushes, or will: what is known of it is known there.
    pub fn standby(labels: &LinkLabels, now: u64, owner: Option<String>) -> Self {
        LinkReport {
            state: "standby".into(),
            last_error: None,
            owner,
            ..LinkReport::blocked(labels, now, String::new(), None)
        }
    }

    /// A link that could not start, and why; nothing else is known of it.
    pub fn blocked(labels: &LinkLabels, now: u64, reason: String, word: Option<&str>) -> Self {
        let condition = word.map(|word| ConditionReport { reason: word.into(), message: reason.clone(), holds: true });
        LinkReport {
            conditions: condition.into_iter().collect(),
            rule: labels.rule.clone(),
            bucket: labels.bucket.clone(),
            peer: labels.peer.clone(),
            state: "blocked".into(),
            measured_at: now,
            last_error: Some(reason),
            blocked_reason: word.map(Into::into),
            ..LinkReport::default()
        }
    }

    /// Puts the snapshot into the gauges; what cannot be known keeps its last value's age visible.
    pub fn measure(&self, labels: &LinkLabels, metrics: &Metrics) {
        let (Some(versions), Some(bytes)) = (self.backlog_versions, self.backlog_bytes) else { return };
        let oldest = self.oldest_pending.unwrap_or(self.measured_at) as f64 / 1000.0;
        metrics.oldest_pending.get_or_create(labels).set(oldest);
        metrics.backlog_versions.get_or_create(labels).set(versions.cast_signed());
        metrics.backlog_bytes.get_or_create(labels).set(bytes.cast_signed());
        metrics.parked(labels, &self.parked_by);
        metrics.braked.get_or_create(labels).set(self.braked_versions.cast_signed());
        metrics.clock_ahead.get_or_create(labels).set(self.clock_ahead_versions.cast_signed());
    }
}

/// A peer, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    pub peer: String,
    pub site: String,
    pub endpoint: String,
    pub is_up: bool,
    /// Round trip of the last ping; absent while it is down.
    pub rtt_ms: Option<f64>,
    /// How far its clock is ahead of this site's, as good as half a round trip; absent while it is down.
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
    /// The certificate it shows holds until then, Unix milliseconds; absent while it is down.
    #[serde(default)]
    pub certificate_until: Option<u64>,
    /// When it was connected last, Unix milliseconds: now, while it is up; absent where it never was since the process began.
    #[serde(default)]
    pub last_seen: Option<u64>,
    pub last_error: Option<String>,
    /// How an S3 endpoint is spoken to; absent for another site.
    #[serde(default)]
    pub dialect: Option<String>,
    /// What its build cannot do that this one asks of it; nothing while it is down.
    #[serde(default)]
    pub lacks: Vec<String>,
}

/// A document that is not in force, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProblemReport {
    pub document: String,
    /// File and line, or field.
    pub place: String,
    pub reason: String,
    pub message: String,
}

impl From<&Problem> for ProblemReport {
    fn from(problem: &Problem) -> Self {
        let Problem { document, place, reason, message } = problem.clone();
        ProblemReport { document, place, reason: reason.into(), message }
    }
}

/// The last failover drill that this site drove to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastDrill {
    pub id: String,
    pub peer: String,
    /// partition, site-loss, switchover.
    pub kind: String,
    /// PASS, FAIL, ABORTED.
    pub verdict: String,
    /// Unix milliseconds.
    pub ended_at: u64,
}

/// Everything a process shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    pub site: String,
    pub peers: Vec<PeerReport>,
    pub links: Vec<LinkReport>,
    pub problems: Vec<ProblemReport>,
    /// Conflicts this site has seen since it started.
    pub conflicts: u64,
    /// Frames of peers refused since it started.
    pub frames_refused: u64,
    /// Why the own store cannot be reached; absent while it can.
    pub store_error: Option<String>,
    /// How it is; absent while that is not known.
    #[serde(default)]
    pub store: Option<StoreReport>,
    /// How much the journal keeps; absent while that is not known.
    #[serde(default)]
    pub journal: Option<JournalReport>,
    /// What the peer listener shows; absent: it names nobody.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// The URI in what the peer listener shows; absent: it names nobody.
    #[serde(default)]
    pub certificate_uri: Option<String>,
    /// The CAs the peer listener believes: the first bundle to come to its end; absent: there is none.
    #[serde(default)]
    pub authorities: Option<Certificate>,
    /// What this process shows elsewhere.
    #[serde(default)]
    pub other_certificates: Vec<OtherCertificate>,
    /// The last drill, as long as its report is kept; absent: none is.
    #[serde(default)]
    pub last_drill: Option<LastDrill>,
}

/// How the own store is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    pub drives: Vec<DriveReport>,
    /// Records acked while some drive lacked them or their shard, since the store's process began.
    pub below_target: u64,
    /// What the listeners of its process show, where that is another process than this.
    #[serde(default)]
    pub certificates: Vec<OtherCertificate>,
}

/// A drive of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveReport {
    /// Index in its set, 0-based.
    pub drive: u32,
    /// Why it takes no requests; absent while it is online.
    pub offline: Option<String>,
    pub free_bytes: u64,
    pub total_bytes: u64,
}

impl StoreReport {
    /// Drives that take requests.
    pub fn online(&self) -> usize {
        self.drives.iter().filter(|d| d.offline.is_none()).count()
    }
}

impl From<StoreHealth> for StoreReport {
    fn from(health: StoreHealth) -> Self {
        let drive = |d: DriveHealth| {
            let DriveHealth { slot, offline, free_bytes, total_bytes } = d;
            DriveReport { drive: slot, offline, free_bytes, total_bytes }
        };
        let certificate = |c: ShownCertificate| OtherCertificate {
            whose: format!("its store's: {}", c.whose),
            holds: (c.from_millis, c.until_millis).into(),
        };
        StoreReport {
            drives: health.drives.into_iter().map(drive).collect(),
            below_target: health.below_target,
            certificates: health.certificates.into_iter().map(certificate).collect(),
        }
    }
}

/// How much the journal keeps, as last counted: once a minute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalReport {
    /// Rows by table: `link_row` has the versions that failed, `version_map` those at S3 endpoints.
    pub rows: BTreeMap<String, u64>,
    /// Bytes left where its file lies; absent: it is a database elsewhere.
    pub free_bytes: Option<u64>,
}

impl From<Extent> for JournalReport {
    fn from(Extent { rows, free_bytes }: Extent) -> Self {
        JournalReport { rows, free_bytes }
    }
}

/// A certificate this process shows elsewhere than at the peer listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherCertificate {
    /// As a person knows it: `the S3 listener's`.
    pub whose: String,
    pub holds: Certificate,
}

/// What else a process shows, as it is now.
pub type OtherCertificates = Arc<dyn Fn() -> Vec<OtherCertificate> + Send + Sync>;

/// How long a certificate holds, Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub issued_at: u64,
    pub expires_at: u64,
}

impl From<(u64, u64)> for Certificate {
    fn from((issued_at, expires_at): (u64, u64)) -> Self {
        Certificate { issued_at, expires_at }
    }
}

impl Certificate {
    /// Whether less than a quarter of its life is left: what renews it should have.
    pub fn is_late(&self, now: u64) -> bool {
        let (left, life) = (self.expires_at.saturating_sub(now), self.expires_at.saturating_sub(self.issued_at));
        left < life / 4
    }
}

impl SiteReport {
    /// Whether nothing is parked, suspended or braked, every lag is known, every peer answers and every document is in force.
    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty()
            && self.store_error.is_none()
            && self.peers.iter().all(|p| p.is_up)
            && self.pushed_here().all(|l| l.parked_versions == 0 && !l.is_held() && l.lag_seconds.is_some())
    }
    fn pushed_here(&self) -> impl Iterator<Item = &LinkReport> {
        self.links.iter().filter(|l| l.state != "standby")
    }
    /// Whether every link that is pushed from here has nothing left to send.
    pub fn is_drained(&self) -> bool {
        self.pushed_here().all(|l| l.backlog_versions == Some(0) && l.retry_versions == 0 && l.parked_versions == 0)
    }
}
