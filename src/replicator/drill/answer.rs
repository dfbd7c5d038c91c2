//! The peer's side of a drill: each step is checked against the grant, and touches nothing but the canary this site
//! made for it. Called by `receive.rs` for every Drill frame.
use super::super::receive::Receive;
use super::Replicator;
use crate::drill::canary;
use crate::drill::is_id;
use crate::peer::frame::drill::{Act, DrillAsk, DrillState};
use crate::peer::frame::reconcile::Answer;
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
    let is_its_own = receive.drills.canaries().get(&ask.id).map(|c| c.peer == doc.name && !c.is_driven_here);
    let done = match (is_its_own, &ask.act) {
        (_, Act::Check) => host.drill_check(),
        (None, Act::Prepare { ttl_millis }) => {
            let made = host.make_canary(&ask.id, &doc.name, Duration::from_millis(*ttl_millis), false).await;
            made.map(|()| DrillState::default()).map_err(|e| e.to_string())
        }
        (None, Act::End) => Ok(DrillState { is_gone: true, ..DrillState::default() }),
        (Some(true), act) => host.drill_step(&ask.id, act).await,
        (None | Some(false), _) => Err(format!("no drill {} of Peer {peer} is under way there", ask.id)),
    };
    match done {
        Ok(state) => Answer::Drill(DrillState { now_millis: receive.clock.now_millis(), ..state }),
        Err(why) => refused(why),
    }
}

impl Replicator {
    /// Whether this site could take part in a drill now.
    pub(super) fn drill_check(&self) -> Result<DrillState, String> {
        if let Some(id) = self.any_canary() {
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
            Act::Fault { is_cut, is_fenced, ttl_millis } => {
                let ttl = Duration::from_millis(*ttl_millis);
                let is_set = self.drills.set_fault(id, *is_cut, *is_fenced, ttl);
                if is_set { Ok(DrillState::default()) } else { Err("its canary is being removed".into()) }
            }
            Act::Probe { key } => self.probe(id, key).await.map(|()| DrillState::default()),
            Act::Look => Ok(self.look(id).await),
            Act::Verify => {
                let begun = self.verify(&canary(id), false).ok_or("its link does not run")?;
                let verdict = begun.links.first().map(|l| l.verdict.clone());
                Ok(DrillState { verdict, ..DrillState::default() })
            }
            Act::End => {
                let (host, id) = (self.clone(), id.to_string());
                if let Some(canary) = self.drills.canaries().get_mut(&id) {
                    canary.is_ending = true;
                }
                let removing = async move { host.remove_or_say(&id).await };
                self.tasks.spawn(self.stopping.clone().run_until_cancelled_owned(removing));
                Ok(DrillState::default())
            }
            Act::Prepare { .. } => Err(super::canary::Error::Busy(id.into()).to_string()),
            Act::Check | Act::Unknown(_) => Err("this build does not know such a step; upgrade it".into()),
        }
    }

    /// Writes, reads back, lists and deletes a key of the canary, as a client of this site's store.
    pub(super) async fn probe(&self, id: &str, key: &str) -> Result<(), String> {
        if self.drills.fault(id).is_none_or(|fault| fault.is_fenced) {
            return Err("writes are fenced there".into());
        }
        let (store, bucket) = (&self.shared.store, canary(id));
        let client = store.client().ok_or_else(|| super::canary::Error::NoClient.to_string())?;
        let said = |what: &'static str| move |e: crate::store::Error| format!("{what}: {e}");
        let written = client.put(&bucket, key, Bytes::from_static(PROBE)).await.map_err(said("write"))?;
        if client.read(&bucket, key).await.map_err(said("read"))? != PROBE {
            return Err("what was read is not what was written".into());
        }
        let listed = store.versions_of(&bucket, key).await.map_err(said("list"))?;
        if !listed.iter().any(|version| version.id == written) {
            return Err("what was written is not listed".into());
        }
        client.delete(&bucket, key).await.map(drop).map_err(said("delete"))
    }

    /// How the canary's link from here and its comparison stand, measured after now.
    pub(super) async fn look(&self, id: &str) -> DrillState {
        let name = canary(id);
        let shown = self.state().links.iter().find(|(link, _)| link.rule == name).map(|(_, link)| link.shown.clone());
        let verified = self.verified(&name).and_then(|report| report.links.into_iter().next());
        let mut state = DrillState::default();
        if let Some(mut shown) = shown {
            let now = self.shared.clock.now_millis();
            if let Ok(Ok(report)) = timeout(MEASURED, shown.wait_for(|report| report.measured_at > now)).await {
                let is_known = report.state == "live" && report.retry_versions + report.parked_versions == 0;
                // A row is a part of the backlog; what is parked never goes by itself.
                state.backlog_versions = report.backlog_versions.filter(|left| *left > 0 || is_known);
            }
        }
        if let Some(link) = verified {
            state.differences = link.differences() + link.pending;
            state.versions = link.versions;
            state.verdict = Some(link.verdict);
        }
        state
    }
}
