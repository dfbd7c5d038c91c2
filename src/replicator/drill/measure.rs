//! What the peer lacks at the fault of what this site holds: compared over the line the drill itself uses, for the links'
//! own way is cut.
use super::Acted;
use super::conduct::{Conductor, PATIENCE};
use crate::drill::ledger::AtRisk;
use crate::drill::machine::Found;
use crate::journal::Conflict;
use crate::link::reconcile::Difference;
use crate::replicator::reconcile::Sides;
use crate::rule::plan;
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeSet;
use std::time::Duration;
use storage_engine::version::VersionId;
use tokio::time::timeout;

/// Conflicts looked at: what a report counts.
const CONFLICTS_READ: usize = 1_000;
/// Records of versions at risk read at once.
const READ_AT_ONCE: usize = 16;

impl Conductor {
    /// What would be lost if this site were gone at the fault.
    pub(super) async fn measure(&self) -> Result<Found, String> {
        let Some(fault_at) = self.machine.figures.fault_at else { return Err("there was no fault".into()) };
        let until = fault_at.max(self.acked_until());
        if self.plan.is_live() {
            // While the fault stands: nothing of what is missing comes meanwhile.
            let passed = Duration::from_millis(self.now().saturating_sub(fault_at));
            let left = self.fault_ttl().saturating_sub(passed);
            let at_risk = timeout(left, self.at_risk_live(until)).await;
            let late = "the buckets were not compared while the fault stood; let it last longer (--duration)";
            return Ok(Found::AtRisk(at_risk.map_err(|_| late)??));
        }
        let missing = timeout(PATIENCE, self.missing()).await.map_err(|_| "the peer does not compare in time")??;
        let client = self.client.as_ref().ok_or("there was no workload")?;
        Ok(Found::AtRisk(client.ledger().at_risk(until, &missing)))
    }

    /// A planned fence lets what was begun before it be told; an unplanned fault asks nobody.
    fn acked_until(&self) -> u64 {
        if self.plan.kind.is_planned() { self.now() } else { 0 }
    }

    /// Of everything in the links' scope, whoever wrote it: stamped before the fault, and not at the peer.
    async fn at_risk_live(&self, until: u64) -> Result<AtRisk, String> {
        let (mut found, store) = (AtRisk::default(), &self.host.shared.store);
        for acted in self.host.drills.acted(&self.plan.id) {
            let sides = self.sides(&acted)?;
            let mut pages = std::pin::pin!(sides.pages());
            while let Some(page) = pages.try_next().await.map_err(|e| e.to_string())? {
                found.acked += page.items.len() as u64;
                let missing = only_here(sides.compare(page).await.map_err(|e| e.to_string())?);
                let bucket = &sides.bucket;
                let records =
                    futures::stream::iter(missing).map(|(key, id)| async move { store.stat(bucket, &key, id).await });
                let mut records = std::pin::pin!(records.buffered(READ_AT_ONCE));
                while let Some(version) = records.try_next().await.map_err(|e| e.to_string())? {
                    let born = version.as_ref().and_then(|v| v.birth.as_ref().map(|birth| (v, birth)));
                    let Some((version, birth)) = born else { continue };
                    let stamped = birth.order.hlc.millis();
                    if stamped <= until {
                        let key = format!("{}/{}", sides.bucket, version.key);
                        found.add(&key, version.id, birth.size_bytes, until - stamped);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Conflicts in the drill's buckets that this site has seen since the fault, at most [`CONFLICTS_READ`].
    pub(super) async fn conflicts(&self) -> Result<u64, String> {
        let since = self.machine.figures.fault_at.unwrap_or(u64::MAX);
        let places = self.host.drills.places(&self.plan.id);
        let newest = self.host.shared.journal.conflicts(CONFLICTS_READ).await.map_err(|e| e.to_string())?;
        let is_its = |conflict: &&Conflict| {
            conflict.seen_millis >= since && places.iter().any(|found| found.bucket == conflict.bucket)
        };
        Ok(newest.iter().filter(is_its).count() as u64)
    }

    async fn missing(&self) -> Result<BTreeSet<(String, VersionId)>, String> {
        let mut missing = BTreeSet::new();
        for acted in self.host.drills.acted(&self.plan.id) {
            let sides = self.sides(&acted)?;
            let mut pages = std::pin::pin!(sides.pages());
            while let Some(page) = pages.try_next().await.map_err(|e| e.to_string())? {
                missing.extend(only_here(sides.compare(page).await.map_err(|e| e.to_string())?));
            }
        }
        Ok(missing)
    }

    /// Both ends of a link from here.
    fn sides(&self, acted: &Acted) -> Result<Sides, String> {
        let (rule, state) = (&acted.rule, self.host.state());
        let views = plan::links(&state.in_force, &self.host.site);
        let view = views.get(&acted.name).ok_or_else(|| format!("rule {rule} is not in force"))?;
        let link = state.links.get(&acted.name).ok_or_else(|| format!("the link of rule {rule} does not run"))?;
        let line = state.lines.get(&self.plan.peer).ok_or("there is no line to the peer")?;
        // The link's own way is cut; the drill's is not.
        let ways = (line.standing.subscribe(), link.route.clone(), link.shown.clone(), link.conditions.clone());
        Ok(self.host.comparison(view, ways, false).sides())
    }
}

fn only_here(differences: Vec<Difference>) -> Vec<(String, VersionId)> {
    let missing = |difference| match difference {
        Difference::OnlyHere { key, version_id, .. } => Some((key, version_id)),
        _ => None,
    };
    differences.into_iter().filter_map(missing).collect()
}
