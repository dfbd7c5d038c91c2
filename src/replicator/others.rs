//! What is known here of links that another replicator of the site pushes: how far the journal says they are, and what the
//! store counts behind that. The leader asks it, for it writes the status of all links; nothing is decided by it.
//!
//! A checkpoint is a moment old, so that what is shown is never less than what waits.
use super::Replicator;
use super::remade;
use super::report::LinkReport;
use crate::journal::LinkId;
use crate::link::Checkpoint;
use crate::rule::plan::{self, LinkView};

impl Replicator {
    /// Links that another process pushes, measured by journal and store; what cannot be found out is left out.
    pub async fn others(&self) -> Vec<LinkReport> {
        let standing: Vec<LinkReport> = self.report().links.into_iter().filter(|l| l.state == "standby").collect();
        if standing.is_empty() {
            return standing;
        }
        let views = plan::links(&self.state().in_force, &self.site);
        let Ok(known) = self.shared.journal.links(None).await else { return Vec::new() };
        let mut all = Vec::new();
        for link in standing {
            let view = views.values().find(|v| v.rule.name == link.rule && v.peer.name() == link.peer);
            if let Some(view) = view {
                all.extend(self.measured(link, view, &known).await);
            }
        }
        all
    }

    async fn measured(&self, link: LinkReport, view: &LinkView, known: &[(LinkId, Checkpoint)]) -> Option<LinkReport> {
        let store = &self.shared.store;
        let bucket = store.bucket(&view.rule.bucket).await.ok()?;
        let id = LinkId { rule: view.rule.uid.clone(), bucket: bucket.id, peer: view.far_end() };
        let (_, checkpoint) = known.iter().find(|(other, _)| *other == id)?;
        let floor = checkpoint.floor.as_ref().or(checkpoint.cursor.as_ref());
        let behind = store.backlog(&bucket.name, floor, &view.settings().interest()).await.ok()?;
        let parked_versions = self.shared.journal.parked(&id).await.ok()?;
        let now = self.shared.clock.now_millis();
        let compares = checkpoint.reach.as_ref().and_then(|r| r.existing.as_ref()).is_some_and(|e| e.compares);
        let passes = checkpoint.reach.as_ref().is_some_and(|reach| reach.existing.is_some());
        let lag = behind.oldest_pending_since.map_or(0.0, |at| now.saturating_sub(at) as f64 / 1000.0);
        Some(LinkReport {
            measured_at: now,
            oldest_pending: behind.oldest_pending_since,
            // As long as what was there before is under way, nobody but the owner knows how old it is.
            lag_seconds: (!passes).then_some(lag),
            backlog_versions: Some(behind.versions),
            backlog_bytes: Some(behind.bytes),
            parked_versions,
            compares,
            existing_versions: (!passes).then_some(0),
            conditions: remade::condition_of(&view.rule, checkpoint).into_iter().collect(),
            ..link
        })
    }
}
