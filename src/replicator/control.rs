//! What the leader of a site does under Kubernetes: writes status, holds and lets go what is deleted, runs jobs and drills.
//! It reads the objects the watcher saw and what the replicator shows; it decides nothing about links, and no link waits
//! for it.
//!
//! Who is not the leader does nothing of this, and whoever stops being it stops at once. Started by `role/replication.rs`.
mod drill;

use super::Replicator;
use super::job::Asked;
use super::lease::Leadership;
use super::report::{LinkReport, SiteReport};
use crate::rule::report;
use crate::rule::report::job::{self, Stage};
use crate::rule::report::status::View;
use crate::rule::report::{FINALIZER, WRITES_AT_ONCE, Wanted, Writer};
use crate::rule::resource::job::ReplicationJobSpec;
use crate::rule::resource::shared::Duration as Ttl;
use crate::rule::watch_folder::Snapshot;
use crate::rule::watch_kube::{Object, Objects};
use crate::rule::{RuleSet, accept};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often it is looked what is to be written: a changed condition goes within it.
const TICK: Duration = Duration::from_secs(1);
/// A deleted rule is let go after so long even where a link of it did not drain: a link has 30 s, and is cut then.
const LET_GO: Duration = Duration::from_secs(40);
/// How often links that another replicator pushes are measured: numbers of status are written no oftener.
const OTHERS_EVERY: Duration = Duration::from_secs(10);
/// Comparisons at once; each reads a bucket and asks a peer.
const JOBS_AT_ONCE: usize = 2;

/// What it works with.
pub struct Control {
    pub replicator: Arc<Replicator>,
    pub objects: watch::Receiver<Option<Arc<Objects>>>,
    pub rules: watch::Receiver<Snapshot>,
    pub leadership: watch::Receiver<Leadership>,
    pub writer: Writer,
}

/// What it remembers between two ticks, as long as it leads.
#[derive(Default)]
struct Memory {
    /// Rules being deleted, by uid, since when.
    going: BTreeMap<String, Instant>,
    drills: BTreeMap<String, drill::Claim>,
    /// Links that another replicator pushes, and when they were measured.
    others: (Option<Instant>, Vec<LinkReport>),
}

impl Control {
    /// Carries the leader's duties out until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut memory = Memory::default();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let (leader, objects) = (self.leadership.borrow().clone(), self.objects.borrow().clone());
            match objects.filter(|_| leader.is_ours) {
                Some(objects) => {
                    stop.run_until_cancelled(self.tick(&objects, &leader, &mut memory)).await;
                }
                None => {
                    memory = Memory::default();
                    self.writer.forget();
                }
            }
        }
    }

    async fn tick(&mut self, objects: &Objects, leader: &Leadership, memory: &mut Memory) {
        let now = self.replicator.now_millis();
        let (rules, problems) = {
            let snapshot = self.rules.borrow();
            (snapshot.rules.clone(), snapshot.problems.clone())
        };
        let report = self.report(memory).await;
        let view = View {
            site: self.replicator.site_name(),
            rules: &rules,
            problems: &problems,
            report: &report,
            leader: &leader.holder,
            leader_epoch: leader.transitions,
            now,
        };
        let mut wanted = Vec::new();
        for object in objects.values().filter(|o| o.kind == "ReplicationJob" && !o.is_deleting) {
            wanted.extend(self.job(object, &rules, now).await);
        }
        for object in objects.values().filter(|o| o.kind == "FailoverDrill" && !o.is_deleting) {
            wanted.extend(self.drill(object, &rules, memory, now).await);
        }
        let stays = |uid: &String| objects.values().any(|o| o.uid == *uid && !o.is_deleting);
        let runs = |uid: &str| objects.values().any(|o| o.uid == uid && !o.is_deleting && !job::is_over(o));
        if let Err(e) = self.replicator.end_jobs(runs).await {
            tracing::warn!(error = %e, "The journal still holds what was asked for jobs that are over; it is asked again.");
        }
        memory.drills.retain(|uid, _| stays(uid));
        // One after the other: only what is due is kept.
        let described = objects.values().filter_map(|o| described(&view, o));
        self.writer.write(objects, described.chain(wanted)).await;
        self.finalizers(objects, memory).await;
    }

    /// What this process shows, with what is known of the links others push.
    async fn report(&self, memory: &mut Memory) -> SiteReport {
        if memory.others.0.is_none_or(|at| at.elapsed() >= OTHERS_EVERY) {
            memory.others = (Some(Instant::now()), self.replicator.others().await);
        }
        let mut report = self.replicator.report();
        for link in report.links.iter_mut().filter(|l| l.state == "standby") {
            let is_same = |other: &&LinkReport| other.rule == link.rule && other.peer == link.peer;
            if let Some(other) = memory.others.1.iter().find(is_same) {
                let rpo_seconds = link.rpo_seconds;
                *link = LinkReport { rpo_seconds, suspended: link.suspended.clone(), ..other.clone() };
            }
        }
        report
    }

    /// Holds what needs an orderly end, and lets go what has had one. Nothing is ever deleted at a store.
    async fn finalizers(&self, objects: &Objects, memory: &mut Memory) {
        memory.going.retain(|uid, _| objects.values().any(|o| o.uid == *uid && o.is_deleting));
        let mut to_hold = Vec::new();
        for object in objects.values() {
            let is_held = object.finalizers.iter().any(|f| f == FINALIZER);
            let is_ours = match object.kind {
                "ReplicationRule" => object.spec["siteRef"]["name"] == self.replicator.site_name(),
                "ReplicationJob" => !job::is_over(object),
                "FailoverDrill" => !report::drill::is_over(object),
                _ => false,
            };
            match (is_held, object.is_deleting) {
                (false, false) if is_ours => to_hold.push(object.clone()),
                (true, true) => {
                    let since = *memory.going.entry(object.uid.clone()).or_insert_with(Instant::now);
                    if self.has_ended(object).await || since.elapsed() >= LET_GO {
                        self.writer.hold(object, false).await;
                    }
                }
                _ => {}
            }
        }
        let writer = &self.writer;
        let hold = |object: Arc<Object>| async move { writer.hold(&object, true).await };
        let holds = report::in_time(Instant::now(), to_hold).map(hold);
        holds.buffer_unordered(WRITES_AT_ONCE).collect::<Vec<_>>().await;
    }

    /// Whether nothing runs for an object any more. A journal that does not answer is no proof.
    async fn has_ended(&self, object: &Object) -> bool {
        match object.kind {
            "ReplicationRule" => self.replicator.has_left(&object.uid).await,
            "FailoverDrill" => self.has_ended_drill(object).await,
            _ => true,
        }
    }

    /// What has ended is deleted after its time, and held no longer.
    async fn let_go(&self, object: &Object, ttl: Option<&Ttl>, now: u64) {
        if job::ends_at(object, ttl.and_then(accept::duration_millis)).is_some_and(|at| at <= now) {
            self.writer.delete(object).await;
        } else if object.finalizers.iter().any(|f| f == FINALIZER) {
            self.writer.hold(object, false).await;
        }
    }

    /// Brings a job one step on; its status, where it has one to be written.
    async fn job(&self, object: &Object, rules: &RuleSet, now: u64) -> Option<Wanted> {
        let spec = job::spec(object)?;
        if job::is_over(object) {
            self.let_go(object, spec.ttl_after_finished.as_ref(), now).await;
            return None;
        }
        let stage = self.stage(object, &spec, rules).await;
        let began = self.replicator.asked(&object.uid).map(|asked| asked.began_at);
        let status = job::status(object, &spec, &stage, began, now);
        Some(wanted(object, &status))
    }

    async fn stage(&self, object: &Object, spec: &ReplicationJobSpec, rules: &RuleSet) -> Stage {
        let is_known = self.replicator.asked(&object.uid).is_some();
        if spec.suspend && !is_known {
            return Stage::Suspended;
        }
        if let Some(unmet) = job::unmet(spec, rules) {
            return unmet;
        }
        let under_way = self.replicator.others_asked(&object.uid);
        if !is_known && under_way >= JOBS_AT_ONCE {
            return Stage::Pending("Queued", format!("{under_way} other jobs run; this one is next"));
        }
        let limit = accept::rate("spec.bandwidthLimit", &spec.bandwidth_limit).ok().flatten();
        let asked = Asked { bytes_per_second: limit, is_suspended: spec.suspend, ..job::asked(spec) };
        if let Err(why) = self.replicator.job_links(&asked) {
            return Stage::Pending("NothingToCompare", why);
        }
        if let Err(e) = self.replicator.ask_for_job(&object.uid, asked).await {
            return Stage::Pending("JournalUnavailable", e.to_string());
        }
        match self.replicator.job_report(&object.uid) {
            _ if spec.suspend => Stage::Suspended,
            Some(Ok(report)) if report.is_running() => Stage::Running(report),
            Some(Ok(report)) => Stage::Ended(report),
            Some(Err(why)) => Stage::Pending("NothingToCompare", why),
            None => Stage::Pending("NothingToCompare", "the job was just ended; it begins anew".into()),
        }
    }
}

impl Replicator {
    /// Name of the Site document this process serves.
    pub fn site_name(&self) -> &str {
        &self.site
    }

    /// Unix milliseconds of the process' clock.
    pub fn now_millis(&self) -> u64 {
        self.shared.clock.now_millis()
    }

    /// Whether the links of a rule that is gone have ended: none runs here, and the journal knows none.
    pub async fn has_left(&self, rule_uid: &str) -> bool {
        {
            let mut state = self.state();
            state.ending.retain(|_, task| !task.is_finished());
            let runs = state.links.keys().chain(state.ending.keys()).any(|name| name.rule == rule_uid);
            if runs {
                return false;
            }
        }
        self.shared.journal.links(Some(rule_uid)).await.is_ok_and(|links| links.is_empty())
    }
}

/// Status of what describes replication.
fn described(view: &View<'_>, object: &Object) -> Option<Wanted> {
    if object.is_deleting {
        return None;
    }
    match object.kind {
        "Site" if object.name == view.site => Some(wanted(object, &view.site(object))),
        "Peer" => Some(wanted(object, &view.peer(object))),
        "ReplicationRule" if view.is_ours(object) => Some(wanted(object, &view.rule(object))),
        _ => None,
    }
}

fn wanted(object: &Object, status: &impl serde::Serialize) -> Wanted {
    let status = serde_json::to_value(status).expect("a status has string keys");
    Wanted { id: (object.kind, object.name.clone()), uid: object.uid.clone(), status }
}
