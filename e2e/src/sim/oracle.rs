//! Judges a world: it saw every ack and knows what each site must hold in the end.
use super::world::{Site, World, base_place};
use isthmus::link::RowState;
use std::collections::{BTreeMap, BTreeSet};
use storage_engine::version::{Guards, Purges, Version, VersionId, merge};

/// Two versions of a key born without knowing of each other: key, later, earlier.
pub type Pair = (String, VersionId, VersionId);

/// Every acked change, joined.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    expected: BTreeMap<(String, VersionId), Version>,
    pub changes: u64,
}

impl Oracle {
    /// A client was told that this change is kept.
    pub fn acked(&mut self, change: &Version) {
        self.changes += 1;
        let id = (change.key.clone(), change.id);
        let known = self.expected.entry(id).or_insert_with(|| Version::blank(&change.key, change.id));
        merge::join(known, change);
    }

    /// What a site must hold once all is quiet.
    pub fn judge(&self, number: usize, site: &Site) -> Result<(), String> {
        for ((key, id), expected) in &self.expected {
            let held = site.store.get(key, *id);
            if held.is_none_or(|held| held.state_hash() != expected.state_hash()) {
                return Err(format!("site {number} holds {key} {id} as {held:?}, acked was {expected:?}"));
            }
        }
        if let Some((_, extra)) =
            site.store.versions().find(|(_, v)| !self.expected.contains_key(&(v.key.clone(), v.id)))
        {
            return Err(format!("site {number} holds {extra:?}, which nobody wrote"));
        }
        for key in site.store.keys() {
            let listed: Vec<VersionId> = site.store.list(key).iter().map(|v| v.id).collect();
            if listed != self.list(key) {
                return Err(format!("site {number} lists {key} in another order"));
            }
        }
        let conflicts = self.conflicts();
        if site.conflicts != conflicts {
            return Err(format!("site {number} saw conflicts {:?}, there were {conflicts:?}", site.conflicts));
        }
        Ok(())
    }

    fn list(&self, key: &str) -> Vec<VersionId> {
        let mut live: Vec<_> =
            self.of(key).filter(|v| v.purged().is_none()).filter_map(|v| v.birth.as_ref()).map(|b| &b.order).collect();
        live.sort();
        live.iter().rev().map(|o| o.version_id).collect()
    }

    fn of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Version> {
        let start = (key.to_string(), VersionId::NULL);
        self.expected.range(start..).map(|(_, v)| v).take_while(move |v| v.key == key)
    }

    /// All pairs of all keys.
    pub fn conflicts(&self) -> BTreeSet<Pair> {
        let all = self.expected.values();
        all.flat_map(|v| pairs(v, self.of(&v.key))).collect()
    }
}

/// The conflicts of `version` with any of `others`.
pub fn pairs<'a>(version: &Version, others: impl Iterator<Item = &'a Version>) -> Vec<Pair> {
    let Some(ours) = &version.birth else { return Vec::new() };
    let mut found = Vec::new();
    for theirs in others.filter_map(|o| o.birth.as_ref()) {
        let (ours_id, theirs_id) = (ours.order.version_id, theirs.order.version_id);
        if merge::is_conflict(ours, theirs) {
            found.push((version.key.clone(), ours_id, theirs_id));
        } else if merge::is_conflict(theirs, ours) {
            found.push((version.key.clone(), theirs_id, ours_id));
        }
    }
    found
}

/// Whether joining `theirs` teaches `ours` nothing.
fn holds<T: Clone + PartialEq>(ours: &T, theirs: &T, join: impl Fn(&mut T, &T)) -> bool {
    let mut both = ours.clone();
    join(&mut both, theirs);
    both == *ours
}

/// Whether `there` holds everything that `here` says.
fn covers(there: Option<&Version>, here: &Version) -> bool {
    there.is_some_and(|there| {
        (here.birth.is_none() || there.birth.is_some())
            && there.tags >= here.tags
            && holds(&there.purges, &here.purges, Purges::join)
            && holds(&there.later_guards, &here.later_guards, Guards::join)
    })
}

impl World {
    /// Versions at `site` that the link is to bring to `peer` and that are not there, by place in the feed.
    fn missing(&self, site: usize, peer: usize) -> impl Iterator<Item = (u64, &Version)> {
        let (here, there) = (&self.sites[site], &self.sites[peer]);
        let all = self.options.forward_all;
        here.store.versions().filter(move |(_, v)| {
            let is_wanted = if all { !v.is_wholly_of(&there.origin) } else { v.has_origin(&here.origin) };
            is_wanted && !covers(there.store.get(&v.key, v.id), v)
        })
    }

    /// A checkpoint passes nothing that is neither at the peer nor in a row; a floor nothing that is not at the peer.
    pub fn check_checkpoint(&self, site: usize, peer: usize) -> Result<(), String> {
        let Some(kept) = self.sites[site].journal.get(&peer) else { return Ok(()) };
        let (cursor, floor) = (base_place(&kept.checkpoint.cursor), base_place(&kept.checkpoint.floor));
        for (lsn, v) in self.missing(site, peer) {
            if lsn <= cursor && !kept.rows.contains_key(&(v.key.clone(), v.id)) {
                return Err(format!(
                    "{site}→{peer}: checkpoint {cursor} passed {} {} at {lsn}: not at the peer, not in a row",
                    v.key, v.id
                ));
            }
            if lsn <= floor {
                return Err(format!(
                    "{site}→{peer}: floor {floor} passed {} {} at {lsn}: not at the peer",
                    v.key, v.id
                ));
            }
        }
        let is_ahead =
            |r: &isthmus::link::Row| r.state == RowState::Parked && r.last_error == isthmus::link::CLOCK_AHEAD;
        match kept.rows.values().find(|r| is_ahead(r)) {
            Some(row) => Err(format!("{site}→{peer}: {row:?} is parked though it only waits for its time")),
            None => Ok(()),
        }
    }

    /// What is shown never says "nothing pending" while something is.
    pub fn check_shown(&self, site: usize, peer: usize) -> Result<(), String> {
        let here = &self.sites[site];
        let Some(running) = here.links.get(&peer) else { return Ok(()) };
        let Some((lsn, _)) = self.missing(site, peer).next() else { return Ok(()) };
        let shown = running.link.shown(self.local(site));
        let behind = here.store.backlog(running.link.cursor(), "");
        let is_shown = shown.pending_versions + behind.versions > 0
            && (shown.oldest_pending.is_some() || behind.oldest_pending_since.is_some());
        if is_shown {
            Ok(())
        } else {
            Err(format!("{site}→{peer}: {lsn} is not at the peer, but nothing is shown as pending"))
        }
    }
}
