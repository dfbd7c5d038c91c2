//! The peer's side of a drill: each step is checked against the grant, and touches nothing but the canary this site
//! made for it, or the links it was staged on. Called by `receive.rs` for every Drill frame.
use super::super::receive::Receive;
use super::{Acted, Place, Replicator};
use crate::drill::{Fence, is_id};
use crate::peer::frame::drill::{Act, DrillAsk, DrillState};
use crate::peer::frame::reconcile::Answer;
use crate::replicator::lateness::Judged;
use crate::rule::allow::Refusal;
use crate::telemetry::metrics::RefusedLabels;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a fresh measurement of the link back is waited for.
const MEASURED: Duration = Duration::from_secs(3);
/// Bytes of a probe's object.
const PROBE: &[u8] = b"written, read back, listed and deleted by a drill";

/// Does one step for `peer`, whose certificate was proven.
pub(in super::super) async fn answer(receive: &Receive, peer: &str, ask: DrillAsk) -> Answer {
    let refused = |why: String| {
        let labels = RefusedLabels { peer: peer.into(), reason: "drill".into() };
        receive.metrics.frames_refused.get_or_create(&labels).inc();
        tracing::warn!(peer, drill = ask.id, why, "A step of a drill was refused.");
        Answer::Refused(why)
    };
    let doc = receive.rules.borrow().rules.peers.get(peer).cloned();
    let doc = match doc {
        Some(doc) if doc.suspend => return Answer::Unavailable(Refusal::Suspended.to_string()),
        Some(doc) if doc.drills => doc,
        Some(_) => return refused(format!("Peer {peer} there does not say drills: Enabled")),
        None => return refused(format!("there is no Peer {peer} there any more")),
    };
    let Some(host) = receive.drills.host() else { return refused("this process carries out no drills".into()) };
    if !is_id(&ask.id) {
        return refused(format!("{:?} is no id of a drill", ask.id));
    }
    let is_its_own = receive.drills.parts().get(&ask.id).map(|part| part.peer == doc.name && !part.is_driven_here);
    let done = match (is_its_own, &ask.act) {
        (_, Act::Check) => host.drill_check(),
        (None, Act::Prepare { ttl_millis }) => {
            let made = host.make_canary(&ask.id, &doc.name, Duration::from_millis(*ttl_millis), false).await;
            made.map(|()| DrillState::default()).map_err(|e| e.to_string())
        }
        (None | Some(true), Act::Stage { ttl_millis, links }) => {
            let joined = host.join_live(&ask.id, &doc, Duration::from_millis(*ttl_millis), links).await;
            joined.map(|links| DrillState { links, ..DrillState::default() })
        }
        (None, Act::End) => Ok(DrillState { is_gone: true, ..DrillState::default() }),
        (Some(true), act) => host.drill_step(&ask.id, act).await,
        (None | Some(false), _) => Err(format!("no drill {} of Peer {peer} is under way there", ask.id)),
    };
    match done {
        Ok(state) => Answer::Drill(Box::new(DrillState { now_millis: receive.clock.now_millis(), ..state })),
        Err(why) => refused(why),
    }
}

impl Replicator {
    /// Whether this site could take part in a drill now.
    pub(super) fn drill_check(&self) -> Result<DrillState, String> {
        if let Some(id) = self.any_part() {
            return Err(super::canary::Error::Busy(id).to_string());
        }
        if let Some(why) = self.shared.store.trouble() {
            return Err(why);
        }
        if self.shared.store.client().is_none() {
            return Err(super::canary::Error::NoClient.to_string());
        }
        let valid = self.listener.valid_millis();
        let certificate_millis = valid.map(|(_, until)| until.saturating_sub(self.shared.clock.now_millis()));
        Ok(DrillState { certificate_millis, ..DrillState::default() })
    }

    /// A step for the peer that drives the drill.
    async fn drill_step(self: &Arc<Self>, id: &str, act: &Act) -> Result<DrillState, String> {
        match act {
            Act::Fault { cut, is_fenced, ttl_millis } => {
                let ttl = Duration::from_millis(*ttl_millis);
                let fence = if *is_fenced { Fence::Writes } else { Fence::None };
                self.inject(id, *cut, fence, ttl).await.map(|()| DrillState::default())
            }
            Act::Probe { key } => self.probe(id, key).await.map(|()| DrillState::default()),
            Act::Look => Ok(self.look(id).await),
            Act::Verify => {
                self.compare_acted(id)?;
                Ok(DrillState::default())
            }
            Act::End => {
                let (host, id) = (self.clone(), id.to_string());
                if let Some(part) = self.drills.parts().get_mut(&id) {
                    part.is_ending = true;
                }
                let removing = async move { host.remove_or_say(&id).await };
                self.tasks.spawn(self.stopping.clone().run_until_cancelled_owned(removing));
                Ok(DrillState::default())
            }
            Act::Prepare { .. } | Act::Stage { .. } => Err(super::canary::Error::Busy(id.into()).to_string()),
            Act::Check | Act::Unknown(_) => Err("this build does not know such a step; upgrade it".into()),
        }
    }

    /// Writes, reads back, lists and deletes a key in each place of the drill, as a client of this site's store.
    pub(super) async fn probe(&self, id: &str, key: &str) -> Result<(), String> {
        if self.drills.fault(id).is_none_or(|fault| fault.is_fenced) {
            return Err("writes are fenced there".into());
        }
        let store = &self.shared.store;
        let client = store.client().ok_or_else(|| super::canary::Error::NoClient.to_string())?;
        let said = |what: &'static str| move |e: crate::store::Error| format!("{what}: {e}");
        for Place { bucket, prefix } in &self.drills.places(id) {
            let key = format!("{prefix}{key}");
            let written = client.put(bucket, &key, Bytes::from_static(PROBE)).await.map_err(said("write"))?;
            if client.read(bucket, &key).await.map_err(said("read"))? != PROBE {
                return Err("what was read is not what was written".into());
            }
            let listed = store.versions_of(bucket, &key).await.map_err(said("list"))?;
            if !listed.iter().any(|version| version.id == written) {
                return Err("what was written is not listed".into());
            }
            client.delete(bucket, &key).await.map(drop).map_err(said("delete"))?;
        }
        Ok(())
    }

    /// Begins to compare what the links from here have brought.
    pub(super) fn compare_acted(&self, id: &str) -> Result<(), String> {
        for Acted { name, rule } in self.drills.acted(id) {
            self.verify_to(&rule, Some(&name.peer), false, false)
                .ok_or_else(|| format!("the link of rule {rule} does not run"))?;
        }
        Ok(())
    }

    /// How the drill's links from here and their comparison stand, measured after now.
    pub(super) async fn look(&self, id: &str) -> DrillState {
        let acted = self.drills.acted(id);
        let (backlog, lag) = self.measured_acted(&acted).await;
        self.note_waits();
        let mut state = DrillState {
            backlog_versions: backlog,
            lag_millis: lag,
            judged: self.judged(&acted),
            longest_wait_millis: self.drills.parts().get(id).map(|part| part.wait.longest_millis()),
            ..DrillState::default()
        };
        let is_canary = self.drills.parts().get(id).is_some_and(|part| part.live.is_none());
        for Acted { name, rule } in &acted {
            let report = self.verified(rule).into_iter().flat_map(|report| report.links);
            let Some(link) = report.into_iter().find(|link| link.peer == name.peer) else { continue };
            // Clients of a live rule go on: what is under way there is no difference.
            state.differences += link.differences() + if is_canary { link.pending } else { 0 };
            state.versions += link.versions;
            let worse =
                |verdict: &str| ["equal", "behind", "different"].iter().position(|v| *v == verdict).unwrap_or(3);
            if state.verdict.as_deref().is_none_or(|so_far| {
                link.verdict == "running" || so_far != "running" && worse(&link.verdict) > worse(so_far)
            }) {
                state.verdict = Some(link.verdict);
            }
        }
        if acted.is_empty() {
            // No link leads there: nothing is under way, and nothing differs.
            state.verdict = Some("equal".into());
        }
        state
    }

    /// How the versions of these links came out, added up; `None`: one of them is not pushed here. Counted since the last of
    /// them began to count.
    fn judged(&self, acted: &[Acted]) -> Option<Judged> {
        let state = self.state();
        let of = |acted: &Acted| state.links.get(&acted.name)?.shown.borrow().judged;
        let add = |a: Judged, b: Judged| Judged {
            since: a.since.max(b.since),
            in_time: a.in_time + b.in_time,
            late: a.late + b.late,
        };
        acted.iter().map(of).try_fold(Judged::default(), |sum, judged| Some(add(sum, judged?)))
    }

    /// Notes how long versions of the drills' links wait; a link that does not know is asked another time.
    pub(super) fn note_waits(&self) {
        let ids: Vec<_> = self.drills.parts().keys().cloned().collect();
        for id in ids {
            let acted = self.drills.acted(&id);
            let known = |acted: &Acted| {
                let shown = self.state().links.get(&acted.name)?.shown.borrow().clone();
                shown.lag_seconds.map(|_| shown.oldest_pending)
            };
            let Some(oldest) = acted.iter().map(known).collect::<Option<Vec<_>>>() else { continue };
            let (now, oldest) = (self.shared.clock.now_millis(), oldest.into_iter().flatten().min());
            if let Some(part) = self.drills.parts().get_mut(&id) {
                part.wait.measured(now, oldest);
            }
        }
    }

    /// What these links have not brought, and how old the oldest of it is, measured after now; absent: not known.
    async fn measured_acted(&self, acted: &[Acted]) -> (Option<u64>, Option<u64>) {
        let now = self.shared.clock.now_millis();
        let (mut backlog, mut lag) = (Some(0), Some(0));
        for Acted { name, .. } in acted {
            let shown = self.state().links.get(name).map(|link| (link.shown.clone(), link.route.borrow().clone()));
            let Some((mut shown, route)) = shown else { return (None, None) };
            if let Some(route) = route {
                route.measure.notify_one();
            }
            let Ok(Ok(report)) = timeout(MEASURED, shown.wait_for(|report| report.measured_at > now)).await else {
                return (None, None);
            };
            let is_known = report.state == "live" && report.retry_versions + report.parked_versions == 0;
            // A row is a part of the backlog; what is parked never goes by itself.
            let left = report.backlog_versions.filter(|left| *left > 0 || is_known);
            backlog = backlog.zip(left).map(|(sum, left)| sum + left);
            let age = report.lag_seconds.map(|seconds| (seconds * 1000.0) as u64);
            lag = lag.zip(age).map(|(most, age): (u64, u64)| most.max(age));
        }
        (backlog, lag)
    }
}
