//! What must hold at any time, not only in the end: checkpoints, what is shown, and bounds.
use super::oracle::covers;
use super::site::Run;
use super::world::World;
use isthmus::link::{RowState, Settings, includes, to_send};
use isthmus::store::Cursor;
use storage_engine::version::Version;

/// Batches of the feed a link may hold beyond its bound: the one that was under way.
const BATCH: u64 = 16;
/// Versions taken in, as a multiple of the window.
const INTAKE_WINDOWS: u64 = 4;

impl World {
    /// Versions at `site` that the link is to bring to `peer` and that are not there, by place in the feed.
    fn missing(&self, site: usize, peer: usize, settings: &Settings) -> impl Iterator<Item = (u64, &Version)> {
        let (here, there) = (&self.sites[site], &self.sites[peer]);
        here.store.versions().filter(move |(_, v)| {
            let held = there.store.get(&v.key, v.id);
            held != Some(*v) && includes(settings, v) && to_send(settings, v).is_some_and(|part| !covers(held, &part))
        })
    }

    /// A checkpoint passes nothing that is neither at the peer nor in a row; a floor nothing that is not at the peer.
    pub fn check_checkpoint(&self, site: usize, peer: usize) -> Result<(), String> {
        let Some(kept) = self.sites[site].journal.get(&peer) else { return Ok(()) };
        let is_ahead =
            |r: &isthmus::link::Row| r.state == RowState::Parked && r.reason == isthmus::link::Reason::ClockAhead;
        if let Some(row) = kept.rows.values().find(|r| is_ahead(r)) {
            return Err(format!("{site}→{peer}: {row:?} is parked though it only waits for its time"));
        }
        let settings = self.settings(site, peer);
        let reach = kept.checkpoint.reach.as_ref();
        let is_covered = reach.is_none_or(|r| r.existing.is_none() && r.covered.as_ref() == Some(&settings.scope()));
        // What a lost disk held its peers cannot know of before they compared.
        if self.sites[peer].is_damaged || !is_covered {
            return Ok(());
        }
        let place = |cursor: &Option<Cursor>| self.sites[site].store.place(cursor.as_ref());
        let (cursor, floor) = (place(&kept.checkpoint.cursor), place(&kept.checkpoint.floor));
        for (lsn, v) in self.missing(site, peer, &settings) {
            let what = if lsn <= floor {
                "floor"
            } else if lsn <= cursor && !kept.rows.contains_key(&(v.key.clone(), v.id)) {
                "checkpoint, without a row,"
            } else {
                continue;
            };
            return Err(format!(
                "{site}→{peer}: the {what} passed {} {} at {lsn}, which is not at the peer",
                v.key, v.id
            ));
        }
        Ok(())
    }

    /// What is shown never says "nothing pending" while something is, nor that it is younger than it is.
    pub fn check_shown(&self, run: Run) -> Result<(), String> {
        let here = &self.sites[run.site];
        let Some(running) = self.runs.get(&run) else { return Ok(()) };
        let is_current = here.owners.get(&run.peer) == Some(&run.owner);
        if running.link.survey().is_some() || self.sites[run.peer].is_damaged || !is_current {
            return Ok(());
        }
        let behind = here.store.backlog(running.link.cursor(), &running.settings.interest());
        let shown = running.link.shown(self.local(run.site));
        let oldest = [shown.oldest_pending, behind.oldest_pending_since].into_iter().flatten().min();
        for (lsn, v) in self.missing(run.site, run.peer, &running.settings) {
            let where_ = || format!("{}→{}: {} {} at {lsn} is not at the peer", run.site, run.peer, v.key, v.id);
            let Some(oldest) = oldest.filter(|_| shown.pending_versions + behind.versions > 0) else {
                return Err(format!("{}, but nothing is shown as pending", where_()));
            };
            let since = here.store.pending_since(&v.key, v.id).unwrap_or(0);
            if since < oldest && !here.has_lost_feed {
                return Err(format!("{} since {since}, and {oldest} is shown as the oldest", where_()));
            }
        }
        Ok(())
    }

    /// A link holds no more than its window allows, however much waits.
    pub fn check_bounds(&self, run: Run) -> Result<(), String> {
        let Some(running) = self.runs.get(&run) else { return Ok(()) };
        let shown = running.link.shown(self.local(run.site));
        let others = shown.retry_versions + shown.parked_versions + shown.braked_versions + shown.existing_versions;
        let live = shown.pending_versions.saturating_sub(others);
        let most = self.options.window_versions as u64 * INTAKE_WINDOWS + BATCH;
        if live > most {
            return Err(format!("{}→{}: {live} versions are held, {most} may be", run.site, run.peer));
        }
        Ok(())
    }
}
