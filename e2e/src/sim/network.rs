//! The network between sites: what is lost, late, doubled or out of order, and who sees whom.
use super::Bug;
use super::fault::Fault;
use super::site::Run;
use super::world::{Answer, Coming, World};
use isthmus::link::toll::Class;
use isthmus::link::{Event, Failure, Outcome, PushId, Reason, Why, is_delete, to_send};
use isthmus::rule::allow::{Facts, may};
use isthmus::rule::{Grant, PeerDoc};
use isthmus::store::Applied;
use std::sync::Arc;
use storage_engine::version::{Hlc, Kind, Version, VersionId};

/// Beyond this a version is ahead of the receiver's clock.
const AHEAD_MS: u64 = 60_000;
/// A peer that gives no sign of life is seen to be down after this long.
const DOWN_MS: u64 = 4_000;
/// What a head counts for in limits of bandwidth.
const HEAD_BYTES: u64 = 256;
/// No link has a push of this number: nobody waits for its answer.
pub const NOBODYS: PushId = 0;

/// A version on its way, and who says so.
#[derive(Clone, Debug)]
pub struct Frame {
    pub epoch: u64,
    pub relayed: bool,
    pub version: Arc<Version>,
}

impl World {
    /// Whether anything passes from one to the other.
    pub fn is_parted(&self, from: usize, to: usize) -> bool {
        self.parted.get(&(from, to)).is_some_and(|n| *n > 0)
    }
    fn is_reachable(&self, site: usize, peer: usize) -> bool {
        let (here, there) = (&self.sites[site], &self.sites[peer]);
        let stands = |until: u64| until > self.now + DOWN_MS;
        here.is_up
            && there.is_up
            && !stands(there.paused_until)
            && !self.is_parted(site, peer)
            && !self.is_parted(peer, site)
    }

    /// Looks for a sign of life of the peer, within the time that takes.
    pub fn look_soon(&mut self, run: Run) {
        self.soon(DOWN_MS, Coming::Look { run });
    }
    /// Something happened to a site, so whoever talks with it will notice.
    pub fn lose_sight_of(&mut self, site: usize) {
        let runs: Vec<Run> = self.runs.keys().filter(|r| r.site == site || r.peer == site).copied().collect();
        for run in runs {
            if run.peer == site && !self.sites[site].is_up {
                self.running(run).is_broken = true;
            }
            self.look_soon(run);
        }
    }
    fn break_line(&mut self, run: Run) {
        if let Some(running) = self.runs.get_mut(&run) {
            running.is_broken = true;
            self.look_soon(run);
        }
    }

    /// A sign of life, or none.
    pub fn look(&mut self, run: Run) -> Result<(), String> {
        let is_reachable = self.is_reachable(run.site, run.peer);
        let Some(running) = self.runs.get_mut(&run) else { return Ok(()) };
        let (was_up, was_broken) = (running.is_up, std::mem::take(&mut running.is_broken));
        running.is_up = is_reachable && !(was_up && was_broken);
        let is_up = running.is_up;
        if is_reachable && !is_up {
            self.look_soon(run);
        }
        match (was_up, is_up) {
            (true, false) => {
                self.check_shown(run)?;
                self.step(run, Event::PeerDown)
            }
            (false, true) => {
                self.heals += 1;
                self.step(run, Event::PeerUp)
            }
            _ => Ok(()),
        }
    }

    /// Whether a message is lost now.
    fn is_lost(&mut self, from: usize, to: usize) -> bool {
        let is_cut = !self.sites[to].is_up || self.is_parted(from, to);
        is_cut || (!self.is_healing && self.dice.chance(self.options.lost))
    }

    /// Sends something over; it comes when it comes.
    pub fn carry(&mut self, from: usize, to: usize, what: Coming) {
        let mut when = self.now + self.dice.range(1, self.options.delay_ms + 2);
        if let Some(until) = self.clogged.get(&(from, to)).filter(|until| **until > self.now) {
            when += until - self.now;
            self.faults.fire(Fault::Clogged);
        }
        let last = self.arrivals.entry((from, to)).or_default();
        if when < *last {
            self.faults.fire(Fault::Reordered);
        }
        *last = when.max(*last);
        self.at(when, what);
    }

    /// A row's version as it is now, where the rule still covers it.
    pub fn push_row(&mut self, run: Run, push: PushId, key: &str, id: VersionId) -> Result<(), String> {
        let version = self.sites[run.site].store.get(key, id).cloned();
        let Some(version) = version else {
            // The store is an older copy than the row.
            let answer = Answer::Failed(Failure::Refused(Why::new(Reason::OwnStore, super::world::NOT_HELD)));
            self.soon(10, Coming::Answer { run, push, answer });
            return if self.sites[run.site].has_lost_feed {
                Ok(())
            } else {
                Err(format!("{}→{}: {key} {id} has a row and is not in the store", run.site, run.peer))
            };
        };
        if self.running(run).link.includes(&version) {
            return self.push(run, push, &version);
        }
        self.soon(10, Coming::Answer { run, push, answer: Answer::Taken(Outcome::Superseded) });
        Ok(())
    }

    /// What the link has to tell of a version leaves the site.
    pub fn push(&mut self, run: Run, push: PushId, version: &Version) -> Result<(), String> {
        let Run { site, peer, .. } = run;
        self.work += 1;
        self.note(site, peer, "push", push);
        let running = self.running(run);
        if running.settings.suspend {
            return Err(format!("{site}→{peer}: a suspended link pushes {} {}", version.key, version.id));
        }
        let Some(part) = to_send(&running.settings, version) else {
            self.soon(10, Coming::Answer { run, push, answer: Answer::Taken(Outcome::Superseded) });
            return Ok(());
        };
        let (epoch, relayed) = (running.epoch, running.settings.forward_all);
        self.depart(run, push, Frame { epoch, relayed, version: Arc::new(part) });
        Ok(())
    }

    /// Through what the links of a site share of bandwidth, then onto the line.
    pub fn depart(&mut self, run: Run, push: PushId, frame: Frame) {
        let Run { site, peer, .. } = run;
        if !self.runs.contains_key(&run) {
            return;
        }
        let size = if is_delete(&frame.version) { 0 } else { frame.version.birth.as_ref().map_or(0, |b| b.size_bytes) };
        let (now, toll) = (self.now, &mut self.sites[site].toll);
        if let Err(at) = toll.take(now * 1000, HEAD_BYTES + size, Class::Interactive, false) {
            self.faults.fire(Fault::Throttled);
            return self.at(at.div_ceil(1000).max(now + 1), Coming::Depart { run, push, frame });
        }
        if self.is_lost(site, peer) {
            self.faults.fire(Fault::LostMessage);
            if self.dice.chance(300) {
                self.soon(10, Coming::Answer { run, push, answer: Answer::Failed(Failure::PeerGone) });
            }
            return self.break_line(run);
        }
        if !self.is_healing && self.dice.chance(self.options.doubled) {
            self.faults.fire(Fault::Doubled);
            self.carry(site, peer, Coming::Arrive { run, push, frame: frame.clone() });
        }
        self.carry(site, peer, Coming::Arrive { run, push, frame });
    }

    /// A version reaches its peer, which judges it before its store sees it.
    pub fn arrive(&mut self, run: Run, push: PushId, frame: Frame) -> Result<(), String> {
        let Run { site, peer, .. } = run;
        if !self.sites[peer].is_up || self.is_parted(site, peer) {
            self.faults.fire(Fault::LostMessage);
            self.break_line(run);
            return Ok(());
        }
        self.note(site, peer, "arrive", push);
        if let Some(answer) = self.refuse(run, &frame) {
            self.answer(run, push, answer);
            return Ok(());
        }
        if self.options.bug == Some(Bug::AckBeforeCommit) {
            self.answer(run, push, Answer::Taken(Outcome::Applied));
            let life = self.sites[peer].life;
            self.soon(500, Coming::Commit { run, push: NOBODYS, life, version: frame.version });
            return Ok(());
        }
        let life = self.sites[peer].life;
        self.soon(20, Coming::Commit { run, push, life, version: frame.version });
        Ok(())
    }

    /// Why the receiver does not take a version; `None`: it does.
    fn refuse(&mut self, run: Run, frame: &Frame) -> Option<Answer> {
        let Run { site, peer, .. } = run;
        let there = &self.sites[peer];
        let is_storm = there.storm_until > self.now;
        if is_storm {
            self.faults.fire(Fault::Storm);
        }
        if is_storm || (!self.is_healing && self.dice.chance(self.options.retryable)) {
            return Some(Answer::Failed(Failure::Retryable(Why::new(Reason::Unavailable, "503"))));
        }
        let origins = origins(&frame.version);
        let facts = Facts {
            bucket: "logs",
            key: &frame.version.key,
            origins: &origins,
            is_delete_marker: frame.version.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker),
            is_purge: !frame.version.purges.is_empty(),
            relayed: frame.relayed,
        };
        if let Err(refusal) = may(&self.peer_doc(peer, site), &facts) {
            return Some(Answer::Failed(match refusal.is_retryable() {
                true => Failure::Retryable(Why::new(Reason::Grant, refusal.to_string())),
                false => Failure::Refused(Why::new(Reason::Grant, refusal.to_string())),
            }));
        }
        let limit = self.local(peer) + AHEAD_MS;
        let stamped = frame.version.max_hlc().millis();
        if stamped > limit {
            self.faults.fire(Fault::ClockAhead);
            return Some(Answer::Failed(Failure::ClockAhead { after_ms: stamped - limit }));
        }
        let seen = self.sites[peer].seen.entry(site).or_default();
        if frame.epoch < *seen && self.options.bug != Some(Bug::OldOwnerPushes) {
            return Some(Answer::Fenced { highest: *seen });
        }
        *seen = frame.epoch.max(*seen);
        None
    }

    /// What `receiver` lets `sender` do.
    fn peer_doc(&self, receiver: usize, sender: usize) -> PeerDoc {
        let edge = self.options.edge(sender, receiver).expect("only edges carry frames");
        let altered = self.altered.get(&(sender, receiver)).copied().unwrap_or_default();
        let name = self.sites[sender].origin.as_str();
        let grant = Grant {
            bucket: "logs".into(),
            prefix: if altered.granted_less > 0 { super::options::PREFIXES[0].into() } else { edge.prefix.into() },
            origins: if edge.forward_all { vec!["*".into()] } else { Vec::new() },
            deletes: edge.delete_markers,
            version_deletes: edge.version_deletes,
            documents: false,
        };
        PeerDoc { inbound: vec![grant], suspend: altered.refused > 0, ..PeerDoc::bare(name) }
    }

    /// The receiver's store has a version, durably; now the answer goes.
    pub fn commit(&mut self, run: Run, push: PushId, version: &Version) -> Result<(), String> {
        let applied = self.apply(run.peer, version)?;
        let outcome = match applied {
            Applied::Applied => Outcome::Applied,
            Applied::Superseded => Outcome::Superseded,
            Applied::AlreadyPresent | Applied::NeedsBody => Outcome::AlreadyPresent,
        };
        self.answer(run, push, Answer::Taken(outcome));
        Ok(())
    }

    fn answer(&mut self, run: Run, push: PushId, answer: Answer) {
        let Run { site, peer, .. } = run;
        if push == NOBODYS {
            return;
        }
        if self.is_lost(peer, site) {
            self.faults.fire(Fault::LostAck);
            return self.break_line(run);
        }
        let what = Coming::Answer { run, push, answer };
        if self.sites[peer].slow_until > self.now {
            self.faults.fire(Fault::SlowPeer);
            return self.soon(10_000, what);
        }
        self.carry(peer, site, what);
    }

    /// Joins a version into a site's store and lists the conflicts it makes.
    fn apply(&mut self, site: usize, version: &Version) -> Result<Applied, String> {
        let now = self.local(site);
        let mut arrived = version.clone();
        if let (Some(Bug::OrderByArrival), Some(birth)) = (self.options.bug, &mut arrived.birth) {
            birth.order.hlc = Hlc::from_millis(now);
        }
        let here = &mut self.sites[site];
        let was_purged = here.store.get(&version.key, version.id).is_some_and(|v| v.purged().is_some());
        let applied = here.store.apply(now, &arrived);
        let held = here.store.get(&version.key, version.id);
        // A guard that the purge had not seen makes it void; nothing else brings a version back.
        let is_undone = |v: &Version| v.purged().is_none() && (v.purges.is_empty() || v.guards().is_empty());
        if was_purged && held.is_none_or(is_undone) {
            return Err(format!("site {site}: the purge of {} {} was undone", version.key, version.id));
        }
        if held.is_some_and(Version::is_purged_in_vain) {
            self.faults.fire(Fault::PurgeVoid);
        }
        let found = held.map(|v| super::oracle::pairs(v, here.store.versions_of(&version.key))).unwrap_or_default();
        here.conflicts.extend(found);
        if applied == Applied::Applied {
            self.applied += 1;
            self.grew(site);
        }
        Ok(applied)
    }
}

/// Every site that set a component of a version, guards left out.
fn origins(version: &Version) -> Vec<&str> {
    let birth = version.birth.as_ref().map(|b| b.order.origin.as_str());
    let tags = version.tags.as_ref().map(|t| t.stamp.origin.as_str());
    [birth, tags].into_iter().flatten().chain(version.purges.iter().map(|(_, p)| p.origin.as_str())).collect()
}
