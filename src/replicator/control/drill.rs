//! FailoverDrills under the leader: each is claimed in its status before it begins, so that no two processes ever begin
//! one, and driven by the drill engine of this process. Who stops leading ends its drill; the fault of one that was killed
//! is lifted by each site's own deadline.
use super::{Control, Memory, wanted};
use crate::replicator::verbs::Refused;
use crate::rule::RuleSet;
use crate::rule::report::Wanted;
use crate::rule::report::drill::{self, Stage};
use crate::rule::resource::drill::FailoverDrillSpec;
use crate::rule::watch_kube::Object;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A drill that this process has claimed.
pub(super) enum Claim {
    /// Its status is to be seen as claimed first.
    Written,
    /// It was begun, or refused; it ends with this.
    Begun { first: Stage, _stop: Option<DropGuard> },
}

impl Control {
    /// Brings a drill one step on; its status, where it has one to be written.
    pub(super) async fn drill(
        &self,
        object: &Object,
        rules: &RuleSet,
        memory: &mut Memory,
        now: u64,
    ) -> Option<Wanted> {
        let spec = drill::spec(object)?;
        if drill::is_over(object) {
            memory.drills.remove(&object.uid);
            self.let_go(object, spec.ttl_after_finished.as_ref(), now).await;
            return None;
        }
        let stage = self.drill_stage(object, &spec, rules, memory).await;
        Some(wanted(object, &drill::status(object, &stage, now)))
    }

    async fn drill_stage(
        &self,
        object: &Object,
        spec: &FailoverDrillSpec,
        rules: &RuleSet,
        memory: &mut Memory,
    ) -> Stage {
        let plan = match drill::plan(object, spec) {
            Ok(plan) => plan,
            Err(refused) => return refused,
        };
        if let Some(report) = self.replicator.drill_report(Some(&plan.id)).await {
            let shown = Stage::Shown(Box::new(report));
            if spec.abort {
                memory.drills.insert(object.uid.clone(), Claim::Begun { first: shown.clone(), _stop: None });
            }
            return shown;
        }
        match (drill::is_claimed(object), memory.drills.get(&object.uid)) {
            (_, Some(Claim::Begun { first, .. })) => first.clone(),
            (true, None) => Stage::Lost,
            _ if spec.abort => Stage::Aborted,
            (true, Some(Claim::Written)) => {
                let id = plan.id.clone();
                let first = match self.replicator.drill(plan).await {
                    Ok(report) => Stage::Shown(Box::new(report)),
                    Err(Refused::Unknown(why) | Refused::Unavailable(why)) => Stage::Refused("PreflightFailed", why),
                };
                let stop = self.replicator.drill_stop(&id).map(CancellationToken::drop_guard);
                memory.drills.insert(object.uid.clone(), Claim::Begun { first: first.clone(), _stop: stop });
                first
            }
            (false, _) => match drill::unmet(spec, rules) {
                Some(pending) => pending,
                None => {
                    memory.drills.insert(object.uid.clone(), Claim::Written);
                    Stage::Claimed
                }
            },
        }
    }

    /// Whether no drill of this object is under way in this process.
    pub(super) async fn has_ended_drill(&self, object: &Object) -> bool {
        let report = self.replicator.drill_report(Some(&drill::id(object))).await;
        report.is_none_or(|report| report.is_over())
    }
}
