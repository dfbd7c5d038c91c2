//! What a status says of a Site, a Peer and a rule: conditions and numbers out of the documents' problems and of what
//! the process shows of itself. Pure: time comes in as milliseconds.
//!
//! `Ready` is always the summary and takes the reason of the first condition that fails.
use super::super::resource::peer::PeerStatus;
use super::super::resource::replication_rule::{DestinationStatus, Progress, ReplicationRuleStatus};
use super::super::resource::shared::Bytes;
use super::super::resource::site::SiteStatus;
use super::super::watch_kube::Object;
use super::super::{Problem, Rule, RuleSet, SiteDoc};
use super::reason;
use crate::replicator::remade;
use crate::replicator::report::{Certificate, LinkReport, PeerReport, SiteReport};
use crate::words::utc;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value as Json;

/// Problems of what a document refers to; every other is one of the document itself.
const UNRESOLVED: [&str; 5] =
    ["SiteNotFound", "PeerNotFound", "ResolvedNothing", "SecretNotFound", "ConfigMapNotFound"];

/// What statuses are made of.
pub struct View<'a> {
    /// Name of the Site document this process serves.
    pub site: &'a str,
    pub rules: &'a RuleSet,
    pub problems: &'a [Problem],
    pub report: &'a SiteReport,
    /// Who writes status, and how often that has changed.
    pub leader: &'a str,
    pub leader_epoch: i64,
    /// Unix milliseconds.
    pub now: u64,
}

/// A condition before it has times and a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    kind: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

/// A verdict.
pub fn verdict(kind: &'static str, status: &'static str, reason: &str, message: impl Into<String>) -> Verdict {
    Verdict { kind, status, reason: reason.into(), message: message.into() }
}

/// The time of Unix milliseconds.
pub fn time(millis: u64) -> Time {
    let at = i64::try_from(millis).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    Time(at.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Conditions with their generation; one whose status is as before keeps the time of its last change.
pub fn conditions(verdicts: Vec<Verdict>, object: &Object, now: u64) -> Vec<Condition> {
    conditions_at(verdicts, &object.status.json()["conditions"], object.generation, now)
}

fn conditions_at(verdicts: Vec<Verdict>, before: &Json, generation: u64, now: u64) -> Vec<Condition> {
    let before: Vec<Condition> = serde_json::from_value(before.clone()).unwrap_or_default();
    let dated = |v: Verdict| {
        let same = before.iter().find(|c| c.type_ == v.kind && c.status == v.status);
        Condition {
            type_: v.kind.into(),
            status: v.status.into(),
            observed_generation: i64::try_from(generation).ok(),
            last_transition_time: same.map_or_else(|| time(now), |c| c.last_transition_time.clone()),
            reason: v.reason,
            message: v.message,
        }
    };
    verdicts.into_iter().map(dated).collect()
}

impl View<'_> {
    fn problems_of(&self, object: &Object) -> Vec<&Problem> {
        let is_its = |p: &&Problem| {
            let (kind, rest) = p.document.split_once('/').unwrap_or_default();
            kind == object.kind && rest.rsplit('/').next() == Some(object.name.as_str())
        };
        self.problems.iter().filter(is_its).collect()
    }

    /// Accepted and ResolvedRefs.
    fn documents(&self, object: &Object) -> Vec<Verdict> {
        let problems = self.problems_of(object);
        let is_ref = |p: &&&Problem| UNRESOLVED.contains(&p.reason);
        let of = |kind, good: &str, problem: Option<&&Problem>| match problem {
            Some(p) => verdict(kind, "False", p.reason, format!("{}: {}", p.place, p.message)),
            None => verdict(kind, "True", good, ""),
        };
        vec![
            of("Accepted", "Accepted", problems.iter().find(|p| !is_ref(p))),
            of("ResolvedRefs", "ResolvedRefs", problems.iter().find(is_ref)),
        ]
    }

    /// Status of the Site this process serves.
    pub fn site(&self, object: &Object) -> SiteStatus {
        let mut all = self.documents(object);
        let doc = self.rules.sites.get(&object.name);
        if let Some(why) = doc.and_then(|site| self.foreign_certificate(site))
            && all[1].status == "True"
        {
            all[1] = verdict("ResolvedRefs", "False", "InvalidCertificate", why);
        }
        if let (Some(site), Some(own)) = (doc, self.report.certificate)
            && own.expires_at <= self.now
            && all[1].status == "True"
        {
            let why = format!(
                "spec.listener.tlsSecretRef: tls.crt of Secret {} held until {}; renew it",
                site.tls_secret,
                utc(own.expires_at)
            );
            all[1] = verdict("ResolvedRefs", "False", "CertificateExpired", why);
        }
        all.push(match &self.report.store_error {
            None => verdict("StoreReachable", "True", "Reachable", ""),
            Some(why) => verdict("StoreReachable", "False", reason::of_store(why), why),
        });
        let errors = self.report.links.iter().filter_map(|l| l.last_error.as_deref());
        all.push(match errors.into_iter().find_map(|e| Some((reason::of_journal(e)?, e))) {
            None => verdict("JournalReady", "True", "Ready", ""),
            Some((word, why)) => verdict("JournalReady", "False", word, why),
        });
        let suspended = doc.is_some_and(|s| s.suspend);
        all.push(ready(&all, suspended, "Ready"));
        all.push(self.certificates());
        SiteStatus {
            observed_generation: i64::try_from(object.generation).ok(),
            conditions: conditions(all, object, self.now),
            leader: Some(self.leader.into()),
            leader_epoch: Some(self.leader_epoch),
            software_version: Some(env!("CARGO_PKG_VERSION").into()),
            identity: doc.map(|s| crate::cli::certs::spiffe_id(&s.trust_domain, &s.site_id)),
            certificate_not_after: self.report.certificate.map(|c| time(c.expires_at)),
            store_features: ["Changefeed", "Versioning", "ObjectLock"].map(String::from).to_vec(),
        }
    }

    /// Why the peer listener's certificate is another site's: peers refuse it.
    fn foreign_certificate(&self, site: &SiteDoc) -> Option<String> {
        let own = crate::cli::certs::spiffe_id(&site.trust_domain, &site.site_id);
        let uri = self.report.certificate_uri.as_ref().filter(|uri| **uri != own)?;
        let secret = &site.tls_secret;
        Some(format!(
            "spec.listener.tlsSecretRef: tls.crt of Secret {secret} names {uri}, and this site is {own}; issue it with that URI"
        ))
    }

    /// CertificateValid: of all certificates this process shows. One that is ill is named, the one that ends first before
    /// others.
    fn certificates(&self) -> Verdict {
        let kind = "CertificateValid";
        let own = self.report.certificate.map(|holds| ("the peer listener's", holds));
        let others = self.report.other_certificates.iter().map(|other| (&*other.whose, other.holds));
        let mut late: Vec<_> = own.into_iter().chain(others).filter(|(_, c)| c.is_late(self.now)).collect();
        late.sort_by_key(|(_, c)| c.expires_at);
        let Some((_, first)) = late.first() else {
            return match own {
                Some(_) => verdict(kind, "True", "Valid", ""),
                None => verdict(kind, "Unknown", "NotRead", "the peer listener's tls.crt names nobody"),
            };
        };
        let reason = if first.expires_at <= self.now { "Expired" } else { "Expiring" };
        let tells = |(whose, c): &(&str, Certificate)| {
            let holds = if c.expires_at <= self.now { "held" } else { "holds" };
            format!(
                "{whose} certificate {holds} until {}, less than a quarter of its life: renew it",
                utc(c.expires_at)
            )
        };
        verdict(kind, "False", reason, late.iter().map(tells).collect::<Vec<_>>().join("; "))
    }

    /// Status of a Peer.
    pub fn peer(&self, object: &Object) -> PeerStatus {
        let mut all = self.documents(object);
        let shown = self.report.peers.iter().find(|p| p.peer == object.name);
        let suspended = object.spec["suspend"] == true;
        if let Some((word, why)) = shown.and_then(|p| Some((reason::of_files(p)?, p.last_error.as_ref()?)))
            && all[1].status == "True"
        {
            all[1] = verdict("ResolvedRefs", "False", word, why);
        }
        all.push(connected(shown, suspended, object.spec["type"] == "S3"));
        all.push(match (shown.and_then(reason::of_fit), shown) {
            (Some((word, why)), _) => verdict("Compatible", "False", word, why),
            (None, Some(p)) if p.is_up => verdict("Compatible", "True", "Compatible", ""),
            _ => verdict("Compatible", "Unknown", "NotConnected", "known once it is connected"),
        });
        all.push(ready(&all, suspended, "Ready"));
        let up = shown.filter(|p| p.is_up);
        let attached = self.rules.links_of(self.site).filter(|(_, d)| d.peer == object.name).count();
        PeerStatus {
            observed_generation: i64::try_from(object.generation).ok(),
            conditions: conditions(all, object, self.now),
            last_seen_time: up.map(|_| time(self.now)).or_else(|| last_seen(object)),
            // Whole milliseconds: the last digit would be news ten times a minute.
            round_trip: up.and_then(|p| p.rtt_ms).map(|ms| format!("{}ms", ms.round())),
            dialect: up.and_then(|p| p.dialect.clone()),
            attached_rules: i32::try_from(attached).ok(),
            ..PeerStatus::default()
        }
    }

    /// Whether a rule is this process' to speak of: its Site is the one served, or there is no such Site.
    pub fn is_ours(&self, rule: &Object) -> bool {
        let site = rule.spec["siteRef"]["name"].as_str().unwrap_or_default();
        site == self.site || !self.rules.sites.contains_key(site)
    }

    /// Status of a rule.
    pub fn rule(&self, object: &Object) -> ReplicationRuleStatus {
        let rule = self.rules.rules.get(&object.name);
        let mut links: Vec<&LinkReport> = self.report.links.iter().filter(|l| l.rule == object.name).collect();
        links.sort_by(|a, b| a.peer.cmp(&b.peer));
        let mut all = self.documents(object);
        if let Some((link, word)) = links.iter().find_map(|l| Some((l, l.blocked_reason.as_ref()?)))
            && all[0].status == "True"
        {
            let why = link.last_error.clone().unwrap_or_default();
            // The bucket here belongs to the rule, the one there to what it refers to.
            match word == "BucketNotFound" && why.contains(&format!("does not exist at {}", link.peer)) {
                true => all[1] = verdict("ResolvedRefs", "False", word, why),
                false => all[0] = verdict("Accepted", "False", word, why),
            }
        }
        let refused = links.iter().flat_map(|l| l.conditions.iter().map(|c| (l.peer.as_str(), c)));
        if let Some((peer, c)) = refused.into_iter().find(|(_, c)| c.reason == "RefusedByPeer")
            && all[1].status == "True"
        {
            all[1] = verdict("ResolvedRefs", "False", &c.reason, format!("{peer}: {}", c.message));
        }
        let suspended =
            rule.is_some_and(|r| r.suspend) || !links.is_empty() && links.iter().all(|l| l.suspended.is_some());
        all.push(existing(rule, &links));
        all.push(lag(rule, &links));
        all.push(stalled(&links));
        all.push(match rule {
            Some(_) if links.is_empty() || links.iter().any(|l| l.state.is_empty()) => {
                first_failing(&all).unwrap_or_else(|| verdict("Ready", "Unknown", "Starting", "its links are starting"))
            }
            _ => ready(&all, suspended, "Replicating"),
        });
        let in_order = links.iter().filter(|l| is_in_order(l)).count();
        let sum = |of: fn(&LinkReport) -> Option<u64>| -> Option<i64> {
            let each: Option<Vec<u64>> = links.iter().map(|l| of(l)).collect();
            each.filter(|e| !e.is_empty()).and_then(|e| i64::try_from(e.iter().sum::<u64>()).ok())
        };
        ReplicationRuleStatus {
            observed_generation: i64::try_from(object.generation).ok(),
            conditions: conditions(all, object, self.now),
            peers_ready: rule.map(|r| format!("{in_order}/{}", r.destinations.len())),
            oldest_pending_time: links.iter().filter_map(|l| l.oldest_pending).min().map(time),
            backlog_versions: sum(|l| l.backlog_versions),
            backlog_bytes: sum(|l| l.backlog_bytes).map(quantity),
            parked_versions: sum(parked),
            brake_released: rule.and_then(|r| i64::try_from(r.brake_release).ok()),
            measured_time: Some(time(self.now)),
            destinations: links.iter().map(|l| self.destination(l, object)).collect(),
        }
    }

    fn destination(&self, link: &LinkReport, object: &Object) -> DestinationStatus {
        let status = object.status.json();
        let before = status["destinations"].as_array().into_iter().flatten();
        let before = before.filter(|d| d["peer"] == link.peer.as_str()).map(|d| d["conditions"].clone()).next();
        let one = [link];
        let mut all = vec![stalled(&one)];
        all.push(ready(&all, link.suspended.is_some(), "Replicating"));
        DestinationStatus {
            peer: link.peer.clone(),
            conditions: conditions_at(all, &before.unwrap_or_default(), object.generation, self.now),
            oldest_pending_time: link.oldest_pending.map(time),
            backlog_versions: link.backlog_versions.and_then(|n| i64::try_from(n).ok()),
            backlog_bytes: link.backlog_bytes.and_then(|n| i64::try_from(n).ok()).map(quantity),
            parked_versions: parked(link).and_then(|n| i64::try_from(n).ok()),
            last_replicated_time: None,
            existing_objects: link.existing_versions.filter(|n| *n > 0).map(|n| Progress {
                listed: i64::try_from(n - link.existing_unread.unwrap_or(0).min(n)).unwrap_or(i64::MAX),
                ..Progress::default()
            }),
        }
    }
}

/// What waits for a person: of a link that another process pushes it is known once the journal was asked.
fn parked(link: &LinkReport) -> Option<u64> {
    (link.state != "standby" || link.backlog_versions.is_some()).then_some(link.parked_versions)
}

/// Shown with its unit, rounded up, so that a small change of a large backlog is no news.
fn quantity(bytes: i64) -> Bytes {
    let units = [("Gi", 1_i64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let unit = units.iter().find(|(_, size)| bytes >= 10 * size);
    Bytes(unit.map_or_else(|| bytes.to_string(), |(name, size)| format!("{}{name}", (bytes + size - 1) / size)))
}

fn last_seen(object: &Object) -> Option<Time> {
    serde_json::from_value(object.status.json()["lastSeenTime"].take()).ok()
}

fn connected(shown: Option<&PeerReport>, suspended: bool, is_s3: bool) -> Verdict {
    let kind = "Connected";
    match shown {
        _ if suspended => verdict(kind, "False", "Suspended", "spec.suspend is true"),
        Some(p) if p.is_up => verdict(kind, "True", "Connected", ""),
        Some(PeerReport { last_error: Some(why), .. }) => match reason::of_line(why, is_s3) {
            Some(word) => verdict(kind, "False", word, why),
            None => verdict(kind, "True", "Connected", "it answers; Compatible says what is wrong"),
        },
        Some(_) => verdict(kind, "Unknown", "Dialling", "it is being dialled"),
        None => verdict(kind, "Unknown", "NotDialled", "no rule in force needs it, or the document is not accepted"),
    }
}

fn existing(rule: Option<&Rule>, links: &[&LinkReport]) -> Verdict {
    let kind = "ExistingObjectsCopied";
    match rule {
        None => verdict(kind, "Unknown", "NotInForce", "the rule is not in force"),
        Some(r) if !r.replicate.existing_objects => {
            verdict(kind, "False", "Disabled", "replicate.existingObjects is Disabled")
        }
        Some(_) if links.iter().any(|l| l.is_of_remade_bucket()) => {
            let left: Vec<_> = links.iter().filter(|l| l.is_of_remade_bucket()).collect();
            let peers: Vec<&str> = left.iter().map(|l| l.peer.as_str()).collect();
            let why = left.iter().flat_map(|l| &l.conditions).find(|c| c.reason == remade::REASON);
            let why = why.map(|c| c.message.clone()).unwrap_or_default();
            verdict(kind, "False", remade::REASON, format!("to {}: {why}", peers.join(", ")))
        }
        Some(_) if links.iter().any(|l| l.existing_versions.is_none()) || links.is_empty() => {
            verdict(kind, "Unknown", "Counting", "not counted yet")
        }
        Some(_) if links.iter().all(|l| l.existing_versions == Some(0)) => verdict(kind, "True", "Complete", ""),
        Some(_) => verdict(kind, "False", "InProgress", "versions older than the rule are on their way"),
    }
}

fn lag(rule: Option<&Rule>, links: &[&LinkReport]) -> Verdict {
    let kind = "LagWithinObjective";
    let Some(objective) = rule.and_then(|r| r.rpo_millis) else {
        return verdict(kind, "Unknown", "NoObjective", "spec.recoveryPointObjective is not set");
    };
    let objective = objective as f64 / 1000.0;
    let lags: Option<Vec<f64>> = links.iter().map(|l| l.lag_seconds).collect();
    match lags {
        Some(lags) if !lags.is_empty() && lags.iter().all(|lag| *lag <= objective) => {
            verdict(kind, "True", "WithinObjective", "")
        }
        Some(lags) if !lags.is_empty() => {
            let late: Vec<&str> =
                links.iter().filter(|l| l.lag_seconds > Some(objective)).map(|l| l.peer.as_str()).collect();
            let message = format!("behind by more than the objective of {objective}s: {}", late.join(", "));
            verdict(kind, "False", "LagObjectiveExceeded", message)
        }
        _ => verdict(kind, "Unknown", "LagUnknown", "the lag of a link cannot be known now"),
    }
}

/// True is bad.
fn stalled(links: &[&LinkReport]) -> Verdict {
    let kind = "Stalled";
    let named = |of: &dyn Fn(&LinkReport) -> bool| -> Option<String> {
        let names: Vec<&str> = links.iter().filter(|l| of(l)).map(|l| l.peer.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(peers) = named(&|l| l.braked_since.is_some()) {
        let message =
            format!("deletes to {peers} came in a mass and are held back; raise spec.brakeRelease to let them go");
        return verdict(kind, "True", "BrakeEngaged", message);
    }
    if let Some(peers) = named(&reason::is_full) {
        let why = links.iter().find(|l| reason::is_full(l)).and_then(|l| l.last_error.clone()).unwrap_or_default();
        return verdict(kind, "True", "TargetFull", format!("no room at {peers}; changes wait: {why}"));
    }
    if let Some(peers) = named(&|l| l.state == "peer_down") {
        return verdict(
            kind,
            "True",
            "PeerUnreachable",
            format!("cannot be reached: {peers}; changes wait in the store's feed"),
        );
    }
    if let Some(peers) = named(&|l| l.compares) {
        let message = format!(
            "the store does not know the place in its feed any more of the links to {peers}: every key is compared with the peer, and until that is through their lag is not known"
        );
        return verdict(kind, "True", "CursorExpired", message);
    }
    verdict(kind, "False", "Progressing", "")
}

fn is_in_order(link: &LinkReport) -> bool {
    let within = link.rpo_seconds.is_none_or(|rpo| link.lag_seconds.is_some_and(|lag| lag <= rpo));
    matches!(link.state.as_str(), "live" | "catching_up" | "standby")
        && link.lag_seconds.is_some()
        && within
        && !link.is_held()
}

/// The summary where something fails: Accepted and what follows it; Stalled fails when it is True.
fn first_failing(all: &[Verdict]) -> Option<Verdict> {
    let fails = |v: &&Verdict| match v.kind {
        "Stalled" => v.status == "True",
        "ExistingObjectsCopied" | "LagWithinObjective" => false,
        _ => v.status != "True",
    };
    all.iter().find(fails).map(|v| {
        let status = if v.status == "Unknown" { "Unknown" } else { "False" };
        verdict("Ready", status, &v.reason, v.message.clone())
    })
}

fn ready(all: &[Verdict], suspended: bool, good: &str) -> Verdict {
    let failing = first_failing(all).filter(|v| !suspended || v.status == "False");
    match failing {
        Some(failing) => failing,
        None if suspended => verdict("Ready", "False", "Suspended", "it sends nothing until it is resumed"),
        None => verdict("Ready", "True", good, ""),
    }
}
