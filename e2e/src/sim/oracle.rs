//! Judges a world: it saw every ack and knows what each site must hold in the end.
use super::options::{Edge, Options};
use super::site::Site;
use std::collections::{BTreeMap, BTreeSet};
use storage_engine::version::{Guards, Kind, Origin, Purges, Version, VersionId, merge};

/// Two versions of a key born without knowing of each other: key, later, earlier.
pub type Pair = (String, VersionId, VersionId);
type Id = (String, VersionId);

/// One change that a client was told is kept.
#[derive(Clone, Debug)]
struct Acked {
    site: usize,
    at: u64,
    change: Version,
}

/// Every acked change, and all of them joined.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    acked: Vec<Acked>,
    all: BTreeMap<Id, Version>,
    /// Acked at a site whose disks were lost since: what of it still is somewhere may stay there.
    lost: BTreeSet<Id>,
    /// Held when it was last said, and never lifted; or under compliance retention for longer than a world lasts.
    guarded: BTreeMap<Id, bool>,
}

impl Oracle {
    /// A client was told that this change is kept.
    pub fn acked(&mut self, site: usize, at: u64, change: &Version) {
        let id = (change.key.clone(), change.id);
        if !change.later_guards.is_empty() {
            let stays = change.later_guards.is_held()
                || change.later_guards.retention().is_some_and(|r| r.until_millis > at + 50 * 24 * 3_600_000);
            // Whether one that was once lifted stands is a question of who knew of what.
            let was = self.guarded.entry(id.clone()).or_insert(true);
            *was &= stays;
        }
        let known = self.all.entry(id).or_insert_with(|| Version::blank(&change.key, change.id));
        merge::join(known, change);
        self.acked.push(Acked { site, at, change: change.clone() });
    }
    /// Changes acked.
    pub fn changes(&self) -> u64 {
        self.acked.len() as u64
    }

    /// What was acked at `site` since then is no longer on its disks.
    pub fn lost(&mut self, site: usize, since: u64) {
        let gone = self.acked.iter().filter(|a| a.site == site && a.at >= since);
        self.lost.extend(gone.map(|a| (a.change.key.clone(), a.change.id)));
    }

    /// What the sites must hold once all is quiet.
    pub fn judge(&self, options: &Options, sites: &[Site]) -> Result<(), String> {
        let numbered: BTreeMap<&Origin, usize> = sites.iter().enumerate().map(|(n, s)| (&s.origin, n)).collect();
        for (number, site) in sites.iter().enumerate() {
            let reach = Reach { options, numbered: &numbered, to: number };
            for (id, all) in &self.all {
                let held = site.store.get(&id.0, id.1);
                self.judge_guarded(id, number, held)?;
                if self.lost.contains(id) {
                    continue;
                }
                if options.is_whole() {
                    let is_alike = |held: &Version| remains(held).state_hash() == remains(all).state_hash();
                    if !held.is_some_and(is_alike) {
                        return Err(format!("site {number} holds {} {} as {held:?}, acked was {all:?}", id.0, id.1));
                    }
                } else {
                    self.judge_part(id, all, held, &reach)?;
                }
            }
            self.judge_extra(number, site, &reach)?;
            if options.is_whole() && self.lost.is_empty() {
                self.judge_lists(number, site)?;
            }
            self.judge_conflicts(number, site, options.is_whole())?;
        }
        Ok(())
    }

    /// A version under a guard that nobody lifted is readable wherever it came.
    fn judge_guarded(&self, id: &Id, number: usize, held: Option<&Version>) -> Result<(), String> {
        let is_gone = held.is_some_and(|v| v.birth.is_some() && !v.guards().is_empty() && v.purged().is_some());
        match self.guarded.get(id) {
            Some(true) if is_gone => {
                Err(format!("site {number}: {} {} is gone although guarded: {held:?}", id.0, id.1))
            }
            _ => Ok(()),
        }
    }

    /// Where links carry a part only: what has a way here is here.
    fn judge_part(&self, id: &Id, all: &Version, held: Option<&Version>, reach: &Reach<'_>) -> Result<(), String> {
        let missing = |what: &str| {
            Err(format!("site {} lacks the {what} of {} {}: {held:?}, acked was {all:?}", reach.to, id.0, id.1))
        };
        let is_marker = all.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker);
        let has_way = |origin: &Origin, is_purge: bool| reach.has(origin, &id.0, is_marker, is_purge);
        let blank = Version::blank(&id.0, id.1);
        let held = held.unwrap_or(&blank);
        for (_, stamp) in all.purges.iter() {
            if has_way(&stamp.origin, true) && !held.purges.iter().any(|(_, s)| s == stamp) {
                return missing("purge");
            }
        }
        // What a version was before it was purged may be forgotten, and void purges are rare enough.
        if !all.purges.is_empty() {
            return Ok(());
        }
        if all.birth.as_ref().is_some_and(|b| has_way(&b.order.origin, false)) && held.birth.is_none() {
            return missing("birth");
        }
        if all.tags.as_ref().is_some_and(|t| has_way(&t.stamp.origin, false)) && held.tags != all.tags {
            return missing("tags");
        }
        Ok(())
    }

    /// Nothing is anywhere that nobody wrote, or that has no way there.
    fn judge_extra(&self, number: usize, site: &Site, reach: &Reach<'_>) -> Result<(), String> {
        for (_, held) in site.store.versions() {
            let all = self.all.get(&(held.key.clone(), held.id));
            if all.is_none_or(|all| !covers(Some(all), held)) {
                return Err(format!("site {number} holds {held:?}, which nobody wrote"));
            }
            let is_marker = held.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker);
            let birth = held.birth.as_ref().map(|b| (&b.order.origin, false));
            let purges = held.purges.iter().map(|(_, s)| (&s.origin, true));
            for (origin, is_purge) in birth.into_iter().chain(purges) {
                // Of a purge alone nobody can tell whether it was a marker's: a comparison brings it.
                if !reach.has(origin, &held.key, is_marker && !is_purge, is_purge) {
                    return Err(format!("site {number} holds {held:?}, which no rule brings there"));
                }
            }
        }
        Ok(())
    }

    fn judge_lists(&self, number: usize, site: &Site) -> Result<(), String> {
        for key in site.store.keys() {
            let listed: Vec<VersionId> = site.store.list(key).iter().map(|v| v.id).collect();
            if listed != self.list(key) {
                return Err(format!("site {number} lists {key} in another order"));
            }
        }
        Ok(())
    }

    /// Every pair of versions that stand is listed where both came, and nothing else is.
    fn judge_conflicts(&self, number: usize, site: &Site, is_whole: bool) -> Result<(), String> {
        let conflicts = self.conflicts();
        if let Some(extra) = site.conflicts.difference(&conflicts).next() {
            return Err(format!("site {number} lists {extra:?}, which is no conflict"));
        }
        let stands = |key: &String, id: &VersionId| {
            let place = (key.clone(), *id);
            !self.lost.contains(&place) && self.all.get(&place).is_some_and(|v| v.purges.is_empty())
        };
        let must = conflicts.iter().filter(|(key, later, earlier)| stands(key, later) && stands(key, earlier));
        match must.into_iter().find(|pair| !site.conflicts.contains(pair)) {
            Some(pair) if is_whole => Err(format!("site {number} does not list the conflict {pair:?}")),
            _ => Ok(()),
        }
    }

    fn list(&self, key: &str) -> Vec<VersionId> {
        let live = self.of(key).filter(|v| v.purged().is_none()).filter_map(|v| v.birth.as_ref());
        let mut live: Vec<_> = live.map(|b| &b.order).collect();
        live.sort();
        live.iter().rev().map(|o| o.version_id).collect()
    }

    fn of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Version> {
        let start = (key.to_string(), VersionId::NULL);
        self.all.range(start..).map(|(_, v)| v).take_while(move |v| v.key == key)
    }

    /// All pairs of all keys.
    pub fn conflicts(&self) -> BTreeSet<Pair> {
        self.all.values().flat_map(|v| pairs(v, self.of(&v.key))).collect()
    }
}

/// What has a way to a site.
struct Reach<'a> {
    options: &'a Options,
    numbered: &'a BTreeMap<&'a Origin, usize>,
    to: usize,
}

impl Reach<'_> {
    /// Whether links bring what `origin` made of a key here: the first one what it made itself, further ones if they relay.
    fn has(&self, origin: &Origin, key: &str, is_marker: bool, is_purge: bool) -> bool {
        let Some(&from) = self.numbered.get(origin) else { return false };
        let carries = |e: &&Edge| {
            key.starts_with(e.prefix) && (e.delete_markers || !is_marker) && (e.version_deletes || !is_purge)
        };
        let mut reached = BTreeSet::from([from]);
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            for edge in
                self.options.edges.iter().filter(|e| e.from == at && (at == from || e.forward_all)).filter(carries)
            {
                if reached.insert(edge.to) {
                    open.push(edge.to);
                }
            }
        }
        reached.contains(&self.to)
    }
}

/// What of a version must be alike everywhere: of a purged one, the purges.
pub(crate) fn remains(version: &Version) -> Version {
    match version.purged() {
        Some(_) => Version { purges: version.purges.clone(), ..Version::blank(&version.key, version.id) },
        None => version.clone(),
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

/// Whether `there` holds everything that `here` says; of what is purged there, every purge.
pub fn covers(there: Option<&Version>, here: &Version) -> bool {
    there.is_some_and(|there| {
        holds(&there.purges, &here.purges, Purges::join)
            && (there.purged().is_some()
                || ((here.birth.is_none() || there.birth == here.birth)
                    && there.tags >= here.tags
                    && holds(&there.later_guards, &here.later_guards, Guards::join)))
    })
}
