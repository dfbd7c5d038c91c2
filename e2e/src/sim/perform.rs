//! The shell of a simulated link: hands events in, performs actions, and is the network between sites.
use super::Bug;
use super::oracle::pairs;
use super::world::{Answer, Coming, World};
use isthmus::link::{Action, Change, Event, Failure, Outcome, PushId, Record};
use isthmus::store::Applied;
use std::sync::Arc;
use storage_engine::version::{Hlc, Version};

/// Changes a read yields at most.
const BATCH: usize = 16;
/// Beyond this a version is ahead of the receiver's clock.
const AHEAD_MS: u64 = 60_000;

impl World {
    /// One event into one link; what it decides is performed at once.
    pub fn step(&mut self, site: usize, peer: usize, event: Event) -> Result<(), String> {
        let now = self.local(site);
        let life = self.sites[site].life;
        let Some(running) = self.sites[site].links.get_mut(&peer) else { return Ok(()) };
        let is_down = event == Event::PeerDown;
        let rows = |s: &isthmus::link::Shown| s.retry_versions + s.parked_versions;
        let before = rows(&running.link.shown(now));
        let actions = running.link.step(now, event);
        if is_down && rows(&running.link.shown(now)) > before {
            return Err(format!("{site}→{peer}: a row was made for a peer that is down"));
        }
        actions.into_iter().for_each(|action| self.perform(site, peer, life, action));
        Ok(())
    }

    fn perform(&mut self, site: usize, peer: usize, life: u64, action: Action) {
        match action {
            Action::Push { id, change } => self.send(site, peer, life, id, (*change.version).clone()),
            Action::PushRow { id, key, version_id } => {
                let version = self.sites[site].store.get(&key, version_id).cloned().expect("nothing is ever trimmed");
                if self.running(site, peer).link.includes(&version) {
                    self.send(site, peer, life, id, version);
                } else {
                    let answer = Answer::Taken(Outcome::Superseded);
                    self.soon(10, Coming::Answer { site, peer, life, push: id, answer });
                }
            }
            Action::Record { seq, record } => {
                self.work += 1;
                self.rows += record.upserts.len() as u64;
                self.note(site, peer, "record", seq);
                self.soon(50, Coming::Journal { site, peer, life, seq, record });
            }
            Action::WakeAt(at) => {
                let at = at - self.sites[site].skew;
                self.at(at, Coming::Wake { site, peer, life });
            }
            Action::Intake(on) => {
                self.running(site, peer).is_reading = on;
                self.read(site, peer);
            }
            Action::Rewind(cursor) => {
                let running = self.running(site, peer);
                running.read_to = cursor;
                running.generation += 1;
                running.is_read_due = false;
                self.note(site, peer, "rewind", 0);
            }
            // The rules of a world never change, so no link reads the past a second time.
            // No link of the simulation has a brake.
            Action::Existing(_) | Action::Done { .. } | Action::Count | Action::Stop => {}
        }
    }

    fn running(&mut self, site: usize, peer: usize) -> &mut super::world::Running {
        self.sites[site].links.get_mut(&peer).expect("the link just acted")
    }

    /// Reads the feed soon, unless that is under way.
    pub fn read(&mut self, site: usize, peer: usize) {
        let life = self.sites[site].life;
        let Some(running) = self.sites[site].links.get_mut(&peer) else { return };
        if running.is_reading && !running.is_read_due {
            running.is_read_due = true;
            let generation = running.generation;
            self.soon(20, Coming::Read { site, peer, life, generation });
        }
    }

    /// Whether a message between two sites is lost now.
    fn is_lost(&mut self, from: usize, to: usize) -> bool {
        let is_parted = self.parted.get(&(from, to)).is_some_and(|n| *n > 0);
        !self.sites[to].is_up || is_parted || (!self.is_healing && self.dice.chance(self.options.lost))
    }

    fn break_connection(&mut self, site: usize, peer: usize) {
        if let Some(running) = self.sites[site].links.get_mut(&peer) {
            running.is_broken = true;
        }
    }

    fn send(&mut self, site: usize, peer: usize, life: u64, push: PushId, version: Version) {
        self.work += 1;
        self.note(site, peer, "push", push);
        if self.is_lost(site, peer) {
            if self.dice.chance(300) {
                let answer = Answer::Failed(Failure::PeerGone);
                self.soon(10, Coming::Answer { site, peer, life, push, answer });
            }
            return self.break_connection(site, peer);
        }
        let copies = 1 + u64::from(!self.is_healing && self.dice.chance(self.options.doubled));
        for _ in 0..copies {
            self.soon(self.options.delay_ms, Coming::Arrive { site, peer, life, push, version: version.clone() });
        }
    }

    /// Messages and answers of the site's own store and journal; those of an earlier life are gone.
    pub fn deliver(&mut self, what: Coming) -> Result<(), String> {
        match what {
            Coming::Arrive { site, peer, life, push, version } => self.arrive(site, peer, life, push, version),
            Coming::ApplyLate { site, life, version } if self.is_life(site, life) => {
                self.apply(site, &version).map(drop)
            }
            Coming::Read { site, peer, life, generation } if self.is_life(site, life) => {
                self.yield_changes(site, peer, life, generation)
            }
            Coming::Batch { site, peer, life, generation, changes, cursor } if self.is_life(site, life) => {
                if self.running(site, peer).generation != generation {
                    return Ok(());
                }
                self.running(site, peer).is_read_due = false;
                self.step(site, peer, Event::Changed { changes, cursor })?;
                self.read(site, peer);
                Ok(())
            }
            Coming::Answer { site, peer, life, push, answer } if self.is_life(site, life) => {
                self.note(site, peer, "answer", push);
                self.step(
                    site,
                    peer,
                    match answer {
                        Answer::Taken(outcome) => Event::Pushed { id: push, outcome },
                        Answer::Failed(failure) => Event::PushFailed { id: push, failure },
                    },
                )
            }
            Coming::Journal { site, peer, life, seq, record } if self.is_life(site, life) => {
                self.journal(site, peer, seq, record)
            }
            Coming::Wake { site, peer, life } if self.is_life(site, life) => self.step(site, peer, Event::Tick),
            _ => Ok(()),
        }
    }

    fn is_life(&self, site: usize, life: u64) -> bool {
        self.sites[site].is_up && self.sites[site].life == life
    }

    fn yield_changes(&mut self, site: usize, peer: usize, life: u64, generation: u64) -> Result<(), String> {
        let running = self.running(site, peer);
        if running.generation != generation {
            return Ok(());
        }
        let after = running.read_to.clone();
        let (events, cursor) = self.sites[site].store.changes(after.as_ref(), BATCH);
        if events.is_empty() || !self.running(site, peer).is_reading {
            let running = self.running(site, peer);
            running.is_read_due = false;
            return if running.is_reading { self.step(site, peer, Event::CaughtUp) } else { Ok(()) };
        }
        self.work += 1;
        let change = |e: storage_engine::feed::Event| Change {
            version: Arc::new(e.version),
            pending_since: e.pending_since,
            traceparent: None,
        };
        let changes = events.into_iter().map(change).collect();
        self.running(site, peer).read_to = Some(cursor.clone());
        self.soon(20, Coming::Batch { site, peer, life, generation, changes, cursor });
        Ok(())
    }

    fn journal(&mut self, site: usize, peer: usize, seq: u64, record: Record) -> Result<(), String> {
        let fails = !self.is_healing && self.dice.chance(self.options.record_fails);
        // A failed answer says nothing of what the disk holds.
        if !fails || self.dice.chance(500) {
            let loses_rows = self.options.bug == Some(Bug::CheckpointWithoutRows) && self.dice.chance(300);
            let kept = self.sites[site].journal.entry(peer).or_default();
            kept.checkpoint = record.checkpoint.clone();
            if !loses_rows {
                kept.rows.extend(record.upserts.into_iter().map(|row| ((row.key.clone(), row.version_id), row)));
                record.deletes.iter().for_each(|id| drop(kept.rows.remove(id)));
            }
            if self.dice.chance(200) {
                self.check_checkpoint(site, peer)?;
            }
        }
        if fails {
            return self.step(site, peer, Event::RecordFailed { seq });
        }
        self.sites[site].store.commit(&format!("to-{peer}"), record.checkpoint.cursor, record.checkpoint.floor);
        self.step(site, peer, Event::Recorded { seq })
    }

    /// A version reaches its peer; the answer goes back, maybe.
    fn arrive(&mut self, site: usize, peer: usize, life: u64, push: PushId, version: Version) -> Result<(), String> {
        if self.is_lost(site, peer) {
            self.break_connection(site, peer);
            return Ok(());
        }
        if !self.options.forward_all && !version.has_origin(&self.sites[site].origin) {
            return Err(format!("{site}→{peer}: a replica was sent on as own: {} {}", version.key, version.id));
        }
        let answer = self.answer(peer, version)?;
        self.note(site, peer, "arrive", push);
        if self.is_lost(peer, site) {
            self.break_connection(site, peer);
        } else {
            self.soon(self.options.delay_ms, Coming::Answer { site, peer, life, push, answer });
        }
        Ok(())
    }

    /// What the receiver says of a version, once it is durable there.
    fn answer(&mut self, site: usize, mut version: Version) -> Result<Answer, String> {
        if !self.is_healing && self.dice.chance(self.options.retryable) {
            return Ok(Answer::Failed(Failure::Retryable("503".into())));
        }
        // A grant that is missing refuses the same keys for as long as it is missing.
        let is_granted = self.is_healing || !version.key.ends_with('3');
        if !is_granted && self.dice.chance(self.options.refused * 10) {
            return Ok(Answer::Failed(Failure::Refused("outside the grant".into())));
        }
        let now = self.local(site);
        let limit = now + AHEAD_MS;
        if version.max_hlc().millis() > limit {
            return Ok(Answer::Failed(Failure::ClockAhead { after_ms: version.max_hlc().millis() - limit }));
        }
        let store = &self.sites[site].store;
        match self.options.bug {
            Some(Bug::AckBeforeCommit) => {
                let life = self.sites[site].life;
                self.soon(500, Coming::ApplyLate { site, life, version });
                return Ok(Answer::Taken(Outcome::Applied));
            }
            Some(Bug::PurgeBeforeBirthDropped)
                if !version.purges.is_empty() && store.get(&version.key, version.id).is_none() =>
            {
                return Ok(Answer::Taken(Outcome::AlreadyPresent));
            }
            Some(Bug::OrderByArrival) => {
                if let Some(birth) = &mut version.birth {
                    birth.order.hlc = Hlc::from_millis(now);
                }
            }
            _ => {}
        }
        Ok(Answer::Taken(match self.apply(site, &version)? {
            Applied::Applied => Outcome::Applied,
            Applied::Superseded => Outcome::Superseded,
            Applied::AlreadyPresent | Applied::NeedsBody => Outcome::AlreadyPresent,
        }))
    }

    /// Joins a version into a site's store and lists the conflicts it makes.
    fn apply(&mut self, site: usize, version: &Version) -> Result<Applied, String> {
        let now = self.local(site);
        let here = &mut self.sites[site];
        let was_purged = here.store.get(&version.key, version.id).is_some_and(|v| v.purged().is_some());
        let applied = here.store.apply(now, version);
        let held = here.store.get(&version.key, version.id);
        // A guard that the purge had not seen makes it void; nothing else brings a version back.
        let is_undone = |v: &Version| v.purged().is_none() && (v.purges.is_empty() || v.guards().is_empty());
        if was_purged && held.is_none_or(is_undone) {
            return Err(format!("site {site}: the purge of {} {} was undone", version.key, version.id));
        }
        let found = held.map(|v| pairs(v, here.store.versions_of(&version.key))).unwrap_or_default();
        here.conflicts.extend(found);
        if applied == Applied::Applied {
            self.applied += 1;
            self.grew(site);
        }
        Ok(applied)
    }

    /// A sign of life, or none.
    pub fn probe(&mut self, site: usize, peer: usize) -> Result<(), String> {
        if !self.sites[site].is_up {
            return Ok(());
        }
        if self.dice.chance(150) {
            self.check_shown(site, peer)?;
        }
        let is_parted = [(site, peer), (peer, site)].iter().any(|way| self.parted.get(way).is_some_and(|n| *n > 0));
        let is_reachable = self.sites[peer].is_up && !is_parted;
        let running = self.running(site, peer);
        let (was_up, was_broken) = (running.is_up, std::mem::take(&mut running.is_broken));
        running.is_up = is_reachable && !(was_up && was_broken);
        match (was_up, running.is_up) {
            (true, false) => self.step(site, peer, Event::PeerDown),
            (false, true) => self.step(site, peer, Event::PeerUp),
            _ => Ok(()),
        }
    }
}
