//! What clients and persons do to a site, and what only an attacker does.
use super::dice::Dice;
use super::fault::Fault;
use super::network::{Frame, NOBODYS};
use super::operation::Op;
use super::options::PREFIXES;
use super::site::Backup;
use super::world::{Altered, Coming, World};
use isthmus::link::{Event, is_delete};
use std::sync::Arc;
use storage_engine::version::guard::{Mode, Retention};
use storage_engine::version::{Hlc, Kind, Order, Origin, Version, VersionId};

impl World {
    /// Begins an operation.
    pub fn operate(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Write { site, dice } => return self.write(site, Dice::new(dice)),
            Op::MassDelete { site, dice } => return self.delete_many(site, Dice::new(dice)),
            Op::Part { from, to, both, ms } if from != to => {
                self.faults.fire(if both { Fault::Partition } else { Fault::OneWayPartition });
                for way in [(from, to), (to, from)].into_iter().take(1 + usize::from(both)) {
                    *self.parted.entry(way).or_default() += 1;
                    self.at(self.now + ms, Coming::Mend { way });
                }
                self.lose_sight_of(from);
            }
            Op::Part { .. } => {}
            Op::Clog { from, to, ms } => drop(self.clogged.insert((from, to), self.now + ms)),
            Op::Slow { site, ms } => self.sites[site].slow_until = self.now + ms,
            Op::Storm { site, ms } => self.sites[site].storm_until = self.now + ms,
            Op::Crash { site, ms } => {
                self.crash(site)?;
                self.at(self.now + ms, Coming::Restart { site });
            }
            Op::Pause { site, ms } => {
                self.faults.fire(Fault::Pause);
                self.sites[site].paused_until = self.now + ms;
                self.lose_sight_of(site);
                self.at(self.now + ms, Coming::Sight { site });
            }
            Op::Clock { site, by_ms } => return self.set_clock(site, self.sites[site].skew_at_rest + by_ms),
            Op::Suspend { edge, ms } => return self.alter_for(edge, ms, Fault::Suspended, |a| &mut a.suspended),
            Op::SuspendPeer { edge, ms } => return self.alter_for(edge, ms, Fault::PeerSuspended, |a| &mut a.refused),
            Op::Narrow { edge, ms } => return self.alter_for(edge, ms, Fault::Narrowed, |a| &mut a.narrowed),
            Op::NarrowGrant { edge, ms } => {
                return self.alter_for(edge, ms, Fault::GrantNarrowed, |a| &mut a.granted_less);
            }
            Op::Forge { edge, dice } => self.forge(edge, Dice::new(dice)),
            Op::Expire { site } => {
                self.lives += 1;
                self.sites[site].store.renew(self.lives);
                self.sites[site].has_lost_feed = true;
                self.grew(site);
            }
            Op::Backup { site } => {
                let here = &self.sites[site];
                let (store, journal, seen) = (here.store.clone(), here.journal.clone(), here.seen.clone());
                self.sites[site].backup = Some(Backup { at: self.now, store, journal, seen });
            }
            Op::Restore { site } => return self.restore(site),
            Op::RestoreJournal { site } => return self.restore_journal(site),
            Op::Recreate { site } => return self.recreate(site),
            Op::Depose { site } => self.depose(site),
            Op::Release { site } => return self.release(site),
        }
        Ok(())
    }

    /// Sets a clock; a wake-up that came too early by it waits on, one that is late comes now.
    pub fn set_clock(&mut self, site: usize, skew: i64) -> Result<(), String> {
        let was = std::mem::replace(&mut self.sites[site].skew, skew);
        if was == skew {
            return Ok(());
        }
        self.note(site, site, "clock", skew.unsigned_abs());
        self.faults.fire(if skew > was { Fault::ClockForward } else { Fault::ClockBack });
        let runs: Vec<_> = self.runs.keys().filter(|r| r.site == site).copied().collect();
        runs.into_iter().try_for_each(|run| self.step(run, Event::Tick))
    }

    /// Alters a rule or a grant for a while.
    fn alter_for(
        &mut self,
        edge: usize,
        ms: u64,
        fault: Fault,
        what: fn(&mut Altered) -> &mut u32,
    ) -> Result<(), String> {
        let (from, to) = (self.options.edges[edge].from, self.options.edges[edge].to);
        self.faults.fire(fault);
        *what(self.altered.entry((from, to)).or_default()) += 1;
        self.at(self.now + ms, Coming::AlterBack { from, to, what });
        self.alter(from, to)
    }

    /// A client's change at one site; acked, so the oracle knows it.
    pub fn write(&mut self, site: usize, mut dice: Dice) -> Result<(), String> {
        if !self.sites[site].is_up {
            return Ok(());
        }
        let now = self.local(site);
        let prefix = PREFIXES[usize::from(dice.chance(300))];
        let key = format!("{prefix}{}", dice.range(0, self.options.keys));
        let kind = dice.range(0, 100);
        let known: Vec<VersionId> = self.sites[site].store.list(&key).iter().map(|v| v.id).collect();
        let any = dice.bits() as usize;
        let (fresh, size) = (dice.version_id(), dice.range(0, 20_000));
        let store = &mut self.sites[site].store;
        let until_millis = now + if any.is_multiple_of(3) { 1_000 } else { 100 * 24 * 3_600_000 };
        let mode = if any.is_multiple_of(2) { Mode::Compliance } else { Mode::Governance };
        let change = match (kind, known.get(any % known.len().max(1))) {
            (0..20, Some(id)) => store.tag(now, &key, *id, [("n".to_string(), size.to_string())].into()),
            (20..35, Some(id)) => store.purge(now, &key, *id),
            (35..43, Some(id)) => store.hold(now, &key, *id, any.is_multiple_of(2)),
            (43..47, Some(id)) => store.retain(now, &key, *id, Retention { mode, until_millis }),
            (47..55, _) => Some(store.put(now, &key, fresh, Kind::DeleteMarker, 0)),
            _ => Some(store.put(now, &key, fresh, Kind::Object, size)),
        };
        // A guard forbids the purge, or there is no hold to lift.
        let Some(change) = change else { return Ok(()) };
        self.acked(site, &change)
    }

    fn delete_many(&mut self, site: usize, mut dice: Dice) -> Result<(), String> {
        if !self.sites[site].is_up {
            return Ok(());
        }
        let now = self.local(site);
        let keys: Vec<String> = self.sites[site].store.keys().cloned().collect();
        for key in keys {
            if dice.chance(300) {
                continue;
            }
            let change = self.sites[site].store.put(now, &key, dice.version_id(), Kind::DeleteMarker, 0);
            self.acked(site, &change)?;
        }
        Ok(())
    }

    pub fn acked(&mut self, site: usize, change: &Version) -> Result<(), String> {
        self.oracle.acked(site, self.now, change);
        let hlc = change.max_hlc();
        self.note(site, site, "write", hlc.bits());
        // Lifting a hold repeats the clock of the hold.
        let is_stamped = change.later_guards.is_empty();
        let newest = &mut self.sites[site].newest;
        if is_stamped && hlc <= *newest {
            return Err(format!(
                "site {site}: the clock of versions went back: {} after {}",
                hlc.bits(),
                newest.bits()
            ));
        }
        *newest = hlc.max(*newest);
        self.grew(site);
        Ok(())
    }

    /// Frames that nobody honest sends.
    fn forge(&mut self, edge: usize, mut dice: Dice) {
        let (site, peer) = (self.options.edges[edge].from, self.options.edges[edge].to);
        let Some(run) = self.run_of(site, peer) else { return };
        let running = &self.runs[&run];
        let (mut epoch, relayed) = (running.epoch, running.settings.forward_all);
        let third = (0..self.options.sites).find(|s| *s != site && *s != peer);
        let mut origin = self.sites[site].origin.clone();
        let mut key = format!("{}forged-{}", PREFIXES[0], dice.bits());
        let is_known = self.sites[peer].seen.get(&site).is_some_and(|seen| *seen > 1);
        match (dice.range(0, 3), third) {
            (0, Some(third)) if !relayed => {
                self.faults.fire(Fault::ForgedOrigin);
                origin = self.sites[third].origin.clone();
            }
            (1, _) if !self.options.edges[edge].prefix.is_empty() => {
                self.faults.fire(Fault::OutsideGrant);
                key = format!("forged-{}", dice.bits());
            }
            _ if is_known => {
                self.faults.fire(Fault::StaleEpoch);
                epoch = 1;
            }
            _ => return,
        }
        let version = Arc::new(forged(&key, dice.version_id(), origin, self.now));
        self.carry(site, peer, Coming::Arrive { run, push: NOBODYS, frame: Frame { epoch, relayed, version } });
    }

    /// The site's drives hold what they held at its backup.
    fn restore(&mut self, site: usize) -> Result<(), String> {
        let Some(backup) = self.sites[site].backup.take() else { return Ok(()) };
        self.faults.fire(Fault::Restored);
        self.crash(site)?;
        self.lose_store(site, backup.at);
        let life = self.lives;
        let here = &mut self.sites[site];
        here.store = backup.store;
        here.store.renew(life);
        self.at(self.now + 1_000, Coming::Restart { site });
        Ok(())
    }

    /// The bucket is made anew: its links and their journal are new, too.
    fn recreate(&mut self, site: usize) -> Result<(), String> {
        self.faults.fire(Fault::Recreated);
        self.crash(site)?;
        self.lose_store(site, 0);
        let life = self.lives;
        let here = &mut self.sites[site];
        here.store = isthmus::store::memory::MemoryStore::new(here.origin.clone());
        here.store.renew(life);
        here.journal.clear();
        self.at(self.now + 1_000, Coming::Restart { site });
        Ok(())
    }

    /// What was acked here since then may be gone; what came from elsewhere its peers must bring again.
    fn lose_store(&mut self, site: usize, since: u64) {
        self.lives += 1;
        self.oracle.lost(site, since);
        let here = &mut self.sites[site];
        (here.is_damaged, here.has_lost_feed, here.newest) = (true, true, Hlc::ZERO);
    }

    fn restore_journal(&mut self, site: usize) -> Result<(), String> {
        let Some(backup) = self.sites[site].backup.take() else { return Ok(()) };
        self.faults.fire(Fault::JournalRestored);
        self.crash(site)?;
        let here = &mut self.sites[site];
        (here.journal, here.seen, here.has_lost_journal) = (backup.journal, backup.seen, true);
        self.at(self.now + 1_000, Coming::Restart { site });
        Ok(())
    }

    /// A person lets go what brakes hold.
    pub fn release(&mut self, site: usize) -> Result<(), String> {
        for peer in self.options.peers_of(site) {
            let Some(run) = self.run_of(site, peer) else { continue };
            if self.running(run).link.shown(0).braked_since.is_some() {
                self.faults.fire(Fault::Braked);
                self.step(run, Event::Release)?;
            }
        }
        Ok(())
    }
}

/// A marker that nobody wrote.
fn forged(key: &str, id: VersionId, origin: Origin, now: u64) -> Version {
    let mut store = isthmus::store::memory::MemoryStore::new(origin.clone());
    let mut version = store.put(now, key, id, Kind::DeleteMarker, 0);
    debug_assert!(is_delete(&version), "a marker is small and quickly refused");
    if let Some(birth) = &mut version.birth {
        birth.order = Order { hlc: Hlc::from_millis(now), origin, version_id: id };
    }
    version
}
