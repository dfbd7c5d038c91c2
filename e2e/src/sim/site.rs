//! A site of the simulation: what survives a crash, and the lives of its links.
use super::Bug;
use super::fault::Fault;
use super::options::PREFIXES;
use super::oracle::Pair;
use super::survey::Reading;
use super::world::{Coming, World};
use isthmus::link::toll::Bucket;
use isthmus::link::{Action, Checkpoint, Event, Link, Record, Row, Settings};
use isthmus::store::Cursor;
use isthmus::store::memory::MemoryStore;
use std::collections::{BTreeMap, BTreeSet};
use storage_engine::version::{Hlc, Origin, VersionId};

/// An owner that was deposed sends on for this long at most: its claim ends by its own clock.
const CLAIM_MS: u64 = 15_000;

/// What the journal holds of a link.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub checkpoint: Checkpoint,
    pub rows: BTreeMap<(String, VersionId), Row>,
    /// The highest epoch an owner claimed.
    pub epoch: u64,
}

/// Names one owner of a link; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    pub site: usize,
    pub peer: usize,
    pub owner: u64,
}

/// A link while somebody owns it, and what its shell knows.
pub struct Running {
    pub link: Link,
    pub settings: Settings,
    pub epoch: u64,
    pub read_to: Option<Cursor>,
    /// Raised at each rewind: batches read before it are not handed in.
    pub generation: u64,
    pub is_reading: bool,
    pub is_read_due: bool,
    pub is_up: bool,
    /// A message was lost: the connection is gone and will be seen to be.
    pub is_broken: bool,
    /// The second reading, for existing versions.
    pub survey: Option<Reading>,
    pub surveys: u64,
}

/// One site.
pub struct Site {
    pub origin: Origin,
    pub store: MemoryStore,
    pub journal: BTreeMap<usize, Kept>,
    /// The highest epoch seen of each incoming link.
    pub seen: BTreeMap<usize, u64>,
    pub conflicts: BTreeSet<Pair>,
    /// The clock's error, milliseconds.
    pub skew: i64,
    /// What it is once somebody has set it right.
    pub skew_at_rest: i64,
    pub life: u64,
    pub is_up: bool,
    /// Who owns the links.
    pub owners: BTreeMap<usize, u64>,
    pub paused_until: u64,
    pub storm_until: u64,
    pub slow_until: u64,
    pub toll: Bucket,
    pub backup: Option<Backup>,
    /// Its store is an old backup: what its peers had brought they bring again once a person has them compare.
    pub is_damaged: bool,
    /// Its feed was lost once: what was committed when is known about only.
    pub has_lost_feed: bool,
    pub has_lost_journal: bool,
    /// The newest reading of its clock that a client saw.
    pub newest: Hlc,
}

/// A copy of a site's disks.
pub struct Backup {
    pub at: u64,
    pub store: MemoryStore,
    pub journal: BTreeMap<usize, Kept>,
    pub seen: BTreeMap<usize, u64>,
}

impl World {
    /// The owner of a link; `None`: nobody.
    pub fn run_of(&self, site: usize, peer: usize) -> Option<Run> {
        self.sites[site].owners.get(&peer).map(|owner| Run { site, peer, owner: *owner })
    }
    /// Every link that somebody owns.
    pub fn runs_now(&self) -> Vec<Run> {
        let pairs = self.options.edges.iter().map(|e| (e.from, e.to));
        pairs.filter_map(|(site, peer)| self.run_of(site, peer)).collect()
    }

    /// The processes of a site die; what was under way is gone.
    pub fn crash(&mut self, site: usize) -> Result<(), String> {
        if !self.sites[site].is_up {
            return Ok(());
        }
        self.note(site, site, "crash", self.sites[site].life);
        self.faults.fire(Fault::Crash);
        self.sites[site].is_up = false;
        self.sites[site].owners.clear();
        self.runs.retain(|run, _| run.site != site);
        for peer in self.options.peers_of(site) {
            self.check_checkpoint(site, peer)?;
        }
        self.lose_sight_of(site);
        Ok(())
    }

    /// Begins a life: links go on from what the journal holds.
    pub fn start(&mut self, site: usize) {
        if self.sites[site].is_up {
            return;
        }
        let here = &mut self.sites[site];
        here.life += 1;
        here.is_up = true;
        here.store.restart();
        let life = here.life;
        self.note(site, site, "start", life);
        self.options.peers_of(site).for_each(|peer| self.own(site, peer, 0));
        self.lose_sight_of(site);
    }

    /// A new owner of a link, under an epoch above the last one and above `seen`.
    pub fn own(&mut self, site: usize, peer: usize, seen: u64) {
        let settings = self.settings(site, peer);
        self.owners += 1;
        let owner = self.owners;
        let forgets = self.options.bug == Some(Bug::RowsForgottenAtStart);
        let seed = self.options.seed ^ peer as u64;
        let here = &mut self.sites[site];
        here.store.register(&format!("to-{peer}"));
        let is_new = !here.journal.contains_key(&peer);
        let kept = here.journal.entry(peer).or_default();
        kept.epoch = kept.epoch.max(seen) + 1;
        let rows = kept.rows.values().filter(|_| !forgets).cloned().collect();
        let read_to = kept.checkpoint.cursor.clone();
        let link = Link::new(settings.clone(), (!is_new).then(|| kept.checkpoint.clone()), rows, seed);
        let running = Running {
            link,
            settings,
            epoch: kept.epoch,
            read_to,
            generation: 0,
            is_reading: false,
            is_read_due: false,
            is_up: false,
            is_broken: false,
            survey: None,
            surveys: 0,
        };
        here.owners.insert(peer, owner);
        let run = Run { site, peer, owner };
        self.runs.insert(run, running);
        self.look_soon(run);
    }

    /// Another process takes the links of a site over; the old one does not know yet.
    pub fn depose(&mut self, site: usize) {
        if !self.sites[site].is_up {
            return;
        }
        self.faults.fire(Fault::Deposed);
        for peer in self.options.peers_of(site) {
            if let Some(run) = self.run_of(site, peer) {
                self.soon(CLAIM_MS, Coming::Lapse { run });
            }
            self.own(site, peer, 0);
        }
    }

    /// The process that runs a link learns that it no longer owns it.
    pub fn fenced(&mut self, run: Run, highest: u64) {
        self.note(run.site, run.peer, "fenced", highest);
        self.runs.remove(&run);
        if self.sites[run.site].owners.get(&run.peer) == Some(&run.owner) {
            self.own(run.site, run.peer, highest);
        }
    }

    /// One event into one link; what it decides is performed at once.
    pub fn step(&mut self, run: Run, event: Event) -> Result<(), String> {
        let now = self.local(run.site);
        let Some(running) = self.runs.get_mut(&run) else { return Ok(()) };
        let is_down = event == Event::PeerDown;
        let rows = |s: &isthmus::link::Shown| s.retry_versions + s.parked_versions;
        let before = if is_down { rows(&running.link.shown(now)) } else { 0 };
        let actions = running.link.step(now, event);
        if is_down && rows(&running.link.shown(now)) > before {
            return Err(format!("{}→{}: a row was made for a peer that is down", run.site, run.peer));
        }
        actions.into_iter().try_for_each(|action| self.perform(run, action))
    }

    fn perform(&mut self, run: Run, action: Action) -> Result<(), String> {
        match action {
            Action::Push { id, change } => return self.push(run, id, &change.version),
            Action::PushRow { id, key, version_id, .. } => return self.push_row(run, id, &key, version_id),
            Action::Record { seq, record } => {
                self.work += 1;
                self.rows += record.upserts.len() as u64;
                self.note(run.site, run.peer, "record", seq);
                self.soon(50, Coming::Journal { run, seq, record });
            }
            Action::WakeAt(at) => self.wake_at(run, at),
            Action::Intake(on) => {
                self.running(run).is_reading = on;
                self.read(run);
            }
            Action::Rewind(cursor) => {
                let running = self.running(run);
                running.read_to = cursor;
                running.generation += 1;
                running.is_read_due = false;
                self.note(run.site, run.peer, "rewind", 0);
            }
            Action::Existing(survey) => self.survey(run, survey),
            Action::Count => self.soon(100, Coming::Counted { run }),
            Action::Done { .. } | Action::Stop => {}
        }
        Ok(())
    }

    /// A link that just acted.
    pub fn running(&mut self, run: Run) -> &mut Running {
        self.runs.get_mut(&run).expect("the link just acted")
    }

    /// At this time by the site's clock, wherever that goes meanwhile.
    pub fn wake_at(&mut self, run: Run, at: u64) {
        let after = at.saturating_sub(self.local(run.site));
        self.at(self.now + after, Coming::Wake { run, at });
    }

    /// Makes a record durable, or not; under the claim it was made.
    pub fn record(&mut self, run: Run, seq: u64, record: Record) -> Result<(), String> {
        let Run { site, peer, .. } = run;
        let epoch = self.running(run).epoch;
        let fails = !self.is_healing && self.dice.chance(self.options.record_fails);
        let kept = self.sites[site].journal.entry(peer).or_default();
        if epoch < kept.epoch {
            self.faults.fire(Fault::RecordFenced);
            let highest = self.sites[site].journal[&peer].epoch;
            self.fenced(run, highest);
            return Ok(());
        }
        // A failed answer says nothing of what the disk holds.
        if !fails || self.dice.chance(500) {
            let loses_rows = self.options.bug == Some(Bug::CheckpointWithoutRows) && self.dice.chance(300);
            let kept = self.sites[site].journal.entry(peer).or_default();
            kept.checkpoint = record.checkpoint.clone();
            if !loses_rows {
                kept.rows.extend(record.upserts.into_iter().map(|row| ((row.key.clone(), row.version_id), row)));
                record.deletes.iter().for_each(|id| drop(kept.rows.remove(id)));
            }
            if self.dice.chance(100) {
                self.check_checkpoint(site, peer)?;
            }
        }
        if fails {
            self.faults.fire(Fault::JournalFailed);
            return self.step(run, Event::RecordFailed { seq });
        }
        self.sites[site].store.commit(&format!("to-{peer}"), record.checkpoint.cursor, record.checkpoint.floor);
        self.step(run, Event::Recorded { seq })
    }

    /// What the rule says now.
    pub fn settings(&self, site: usize, peer: usize) -> Settings {
        let edge = self.options.edge(site, peer).expect("only edges have links");
        let altered = self.altered.get(&(site, peer)).copied().unwrap_or_default();
        Settings {
            prefix: if altered.narrowed > 0 { PREFIXES[0].into() } else { edge.prefix.into() },
            tags: BTreeMap::new(),
            own_origin: self.sites[site].origin.clone(),
            forward_all: edge.forward_all,
            peer_origin: self.sites[peer].origin.clone(),
            delete_markers: edge.delete_markers,
            version_deletes: edge.version_deletes,
            object_lock: true,
            yields_to: Vec::new(),
            existing_objects: true,
            commit_order: self.options.commit_order,
            by_arrival: false,
            bandwidth: self.options.bandwidth,
            window_versions: self.options.window_versions,
            window_bytes: self.options.window_bytes,
            brake: self.options.brake,
            brake_release: 0,
            suspend: altered.suspended > 0,
        }
    }

    /// The rule of a link has changed.
    pub fn alter(&mut self, site: usize, peer: usize) -> Result<(), String> {
        let Some(run) = self.run_of(site, peer) else { return Ok(()) };
        let settings = self.settings(site, peer);
        self.running(run).settings = settings.clone();
        self.step(run, Event::RuleAltered(settings))
    }
}
