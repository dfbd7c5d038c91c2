//! The clock, the sites, and everything that is going to happen: a queue of events, no ticks.
use super::dice::Dice;
use super::fault::{Fault, Faults};
use super::network::Frame;
use super::operation::{Op, Operation};
use super::oracle::Oracle;
use super::site::{Run, Running, Site};
use super::survey::Told;
use super::trace::Trace;
use super::{Options, Report};
use isthmus::link::reconcile::Ask;
use isthmus::link::toll::Bucket;
use isthmus::link::{Again, Change, Event, Failure, Outcome, PushId, Record, RowState};
use isthmus::store::memory::MemoryStore;
use isthmus::store::{Cursor, Interest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use storage_engine::version::{Hlc, Origin, Version};

/// When every world begins.
pub const START: u64 = 1_700_000_000_000;
/// A world lasts at least this long.
const HOUR_MS: u64 = 3_600_000;
/// How often it is seen whether all is quiet.
const STEP_MS: u64 = 10_000;
/// After healing all must be quiet within this time: three of the longest pauses between attempts.
const HEAL_MS: u64 = 15 * 60_000;
/// Nothing may happen for this long once all is quiet.
const QUIET_MS: u64 = 60_000;
/// A person lets parked versions and braked deletes go this often while the world heals.
const PERSON_MS: u64 = 30_000;
/// Why a row of a version is parked that the site's store lost.
pub const NOT_HELD: &str = "the own store does not hold it";
/// Changes a read yields at most.
const BATCH: usize = 16;

/// How a push ended.
#[derive(Clone, Debug)]
pub enum Answer {
    Taken(Outcome),
    Failed(Failure),
    Fenced { highest: u64 },
}

/// What a rule or a grant says otherwise for a while; how many reasons there are for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Altered {
    pub suspended: u32,
    pub narrowed: u32,
    pub granted_less: u32,
    pub refused: u32,
}

/// Something that will happen.
#[derive(Clone, Debug)]
pub enum Coming {
    Operation(Op),
    Mend {
        way: (usize, usize),
    },
    AlterBack {
        from: usize,
        to: usize,
        what: fn(&mut Altered) -> &mut u32,
    },
    Restart {
        site: usize,
    },
    /// The site goes on after a pause.
    Sight {
        site: usize,
    },
    Person {
        site: usize,
    },
    /// The claim of a former owner is over.
    Lapse {
        run: Run,
    },
    Look {
        run: Run,
    },
    Read {
        run: Run,
        generation: u64,
    },
    Batch {
        run: Run,
        generation: u64,
        changes: Vec<Change>,
        cursor: Cursor,
    },
    Survey {
        run: Run,
        number: u64,
    },
    Asked {
        run: Run,
        number: u64,
        ask: Ask,
    },
    Told {
        run: Run,
        number: u64,
        ask: Ask,
        told: Told,
    },
    AskAgain {
        run: Run,
        number: u64,
        ask: Ask,
    },
    Counted {
        run: Run,
    },
    Wake {
        run: Run,
        at: u64,
    },
    Journal {
        run: Run,
        seq: u64,
        record: Record,
    },
    Depart {
        run: Run,
        push: PushId,
        frame: Frame,
    },
    Arrive {
        run: Run,
        push: PushId,
        frame: Frame,
    },
    /// At the receiver, in this life of it.
    Commit {
        run: Run,
        push: PushId,
        life: u64,
        version: Arc<Version>,
    },
    Answer {
        run: Run,
        push: PushId,
        answer: Answer,
    },
}

/// Everything.
pub struct World {
    pub options: Options,
    pub dice: Dice,
    pub now: u64,
    pub sites: Vec<Site>,
    pub runs: BTreeMap<Run, Running>,
    pub trace: Trace,
    pub oracle: Oracle,
    pub faults: Faults,
    /// Pairs between which nothing passes, and for how many reasons.
    pub parted: BTreeMap<(usize, usize), u32>,
    /// Until when messages wait.
    pub clogged: BTreeMap<(usize, usize), u64>,
    /// When the last message of a pair arrives.
    pub arrivals: BTreeMap<(usize, usize), u64>,
    pub altered: BTreeMap<(usize, usize), Altered>,
    pub is_healing: bool,
    pub applied: u64,
    pub rows: u64,
    pub heals: u64,
    /// Pushes, reads that yielded something and records: all that must cease.
    pub work: u64,
    pub owners: u64,
    pub lives: u64,
    pub events: u64,
    /// Time that passed while nothing happened.
    slept_ms: u64,
    coming: BTreeMap<(u64, u64), Coming>,
    next: u64,
}

impl World {
    pub fn new(options: Options, operations: &[Operation]) -> World {
        let mut dice = Dice::new(options.seed);
        let sites = (0..options.sites).map(|n| {
            let origin = Origin::new(&format!("site-{n}"));
            let far = if n == 0 && options.far_ahead { 90_000 } else { 0 };
            let skew = (dice.range(0, options.skew_ms) + far) as i64;
            let mut toll = Bucket::default();
            toll.set(options.toll);
            Site {
                store: MemoryStore::new(origin.clone()),
                origin,
                journal: BTreeMap::new(),
                seen: BTreeMap::new(),
                conflicts: BTreeSet::new(),
                skew,
                skew_at_rest: skew,
                life: 0,
                is_up: false,
                owners: BTreeMap::new(),
                paused_until: 0,
                storm_until: 0,
                slow_until: 0,
                toll,
                backup: None,
                is_damaged: false,
                has_lost_feed: false,
                has_lost_journal: false,
                newest: Hlc::ZERO,
            }
        });
        let sites = sites.collect();
        let mut world = World {
            options,
            dice,
            now: START,
            sites,
            runs: BTreeMap::new(),
            trace: Trace::default(),
            oracle: Oracle::default(),
            faults: Faults::default(),
            parted: BTreeMap::new(),
            clogged: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            altered: BTreeMap::new(),
            is_healing: false,
            applied: 0,
            rows: 0,
            heals: 0,
            work: 0,
            owners: 0,
            lives: 0,
            events: 0,
            slept_ms: 0,
            coming: BTreeMap::new(),
            next: 0,
        };
        operations.iter().for_each(|o| world.at(START + o.at, Coming::Operation(o.what)));
        world
    }

    /// The clock of a site.
    pub fn local(&self, site: usize) -> u64 {
        self.now.saturating_add_signed(self.sites[site].skew)
    }
    pub fn at(&mut self, when: u64, what: Coming) {
        self.next += 1;
        self.coming.insert((when.max(self.now), self.next), what);
    }
    pub fn soon(&mut self, most_ms: u64, what: Coming) {
        let when = self.now + self.dice.range(1, most_ms + 2);
        self.at(when, what);
    }
    pub fn note(&mut self, site: usize, peer: usize, what: &'static str, number: u64) {
        self.trace.add(self.now - START, site, peer, what, number);
    }

    /// Faults, then healing, then quiet; the oracle at the end.
    pub fn run(&mut self) -> Result<Report, String> {
        (0..self.options.sites).for_each(|site| self.start(site));
        self.pass_until(START + self.options.fault_ms)?;
        self.stay_away()?;
        self.heal()?;
        self.settle()?;
        self.mend_damaged()?;
        // An hour is an hour, also where all is quiet early.
        self.pass_until(self.now.max(START + HOUR_MS - QUIET_MS))?;
        let work = self.work;
        self.pass_until(self.now + QUIET_MS)?;
        if self.work != work {
            return Err("something moves though all was quiet: a loop".into());
        }
        self.judge()
    }

    /// Until nothing is pending anywhere.
    fn settle(&mut self) -> Result<(), String> {
        // What is stamped ahead of its receiver waits for its time.
        let newest = self.sites.iter().flat_map(|s| s.store.versions()).map(|(_, v)| v.max_hlc().millis()).max();
        let slowest = (0..self.options.sites).map(|site| self.local(site)).min().unwrap_or(self.now);
        let limit = self.now + HEAL_MS + newest.unwrap_or(0).saturating_sub(slowest);
        while !self.is_quiet() {
            if self.now > limit {
                return Err(format!("not quiet in time after healing: {}", self.busy()));
            }
            self.pass_until(self.now + STEP_MS)?;
        }
        Ok(())
    }

    /// Persons who restored a site have its peers' buckets compared with it.
    fn mend_damaged(&mut self) -> Result<(), String> {
        if !self.sites.iter().any(|s| s.is_damaged) {
            return Ok(());
        }
        for run in self.runs_now().into_iter().filter(|run| self.sites[run.peer].is_damaged).collect::<Vec<_>>() {
            self.repair(run)?;
        }
        self.pass_until(self.now + STEP_MS)?;
        self.settle()
    }

    fn judge(&self) -> Result<Report, String> {
        self.oracle.judge(&self.options, &self.sites)?;
        for edge in &self.options.edges {
            self.check_checkpoint(edge.from, edge.to)?;
        }
        let restores = self.sites.iter().filter(|s| s.has_lost_feed).count() as u64;
        let most = self.oracle.changes() * (self.options.sites as u64 - 1) * (1 + restores);
        if self.applied > most {
            return Err(format!("{} versions applied, {most} would be enough", self.applied));
        }
        Ok(Report {
            trace_hash: self.trace.hash,
            applied: self.applied,
            changes: self.oracle.changes(),
            conflicts: self.oracle.conflicts().len() as u64,
            heals: self.heals,
            rows: self.rows,
            events: self.events,
            simulated_ms: self.now - START - self.slept_ms,
            faults: self.faults.clone(),
        })
    }

    /// Everything that was broken works again; what happens to hold persons back, they let go.
    fn heal(&mut self) -> Result<(), String> {
        self.is_healing = true;
        self.parted.clear();
        self.clogged.clear();
        self.altered.clear();
        self.coming
            .retain(|_, what| !matches!(what, Coming::Operation(_) | Coming::Mend { .. } | Coming::AlterBack { .. }));
        self.runs.retain(|run, _| self.sites[run.site].owners.get(&run.peer) == Some(&run.owner));
        for site in 0..self.options.sites {
            let here = &mut self.sites[site];
            (here.paused_until, here.storm_until, here.slow_until) = (0, 0, 0);
            let rest = here.skew_at_rest;
            self.set_clock(site, rest)?;
            self.start(site);
            self.lose_sight_of(site);
            self.at(self.now, Coming::Person { site });
        }
        self.options.edges.clone().iter().try_for_each(|edge| self.alter(edge.from, edge.to))
    }

    fn is_quiet(&self) -> bool {
        self.busy().is_empty()
    }

    /// What is not done yet, in words.
    fn busy(&self) -> String {
        for run in self.runs_now() {
            let running = &self.runs[&run];
            let mut shown = running.link.shown(self.local(run.site));
            if self.sites[run.site].is_damaged {
                // What only the lost disks held nobody can send any more; a person was told.
                let lost = running.link.rows(usize::MAX).iter().filter(|row| row.last_error == NOT_HELD).count();
                shown.pending_versions -= lost as u64;
            }
            let behind =
                self.sites[run.site].store.backlog(running.link.cursor(), &running.settings.interest()).versions;
            if shown.state != "live" || shown.pending_versions + behind > 0 || running.survey.is_some() {
                return format!("{}→{}: {behind} behind, {shown:?}", run.site, run.peer);
            }
        }
        let is_work = |c: &Coming| {
            matches!(
                c,
                Coming::Journal { .. }
                    | Coming::Arrive { .. }
                    | Coming::Commit { .. }
                    | Coming::Answer { .. }
                    | Coming::Depart { .. }
            )
        };
        self.coming.values().find(|c| is_work(c)).map(|c| format!("{c:?}")).unwrap_or_default()
    }

    /// Time passes and nothing happens: what is under way comes later by as much.
    pub fn sleep(&mut self, ms: u64) {
        (self.now, self.slept_ms) = (self.now + ms, self.slept_ms + ms);
        let coming = std::mem::take(&mut self.coming).into_iter();
        self.coming = coming.map(|((when, number), what)| ((when + ms, number), what)).collect();
    }

    pub fn pass_until(&mut self, end: u64) -> Result<(), String> {
        while self.coming.first_key_value().is_some_and(|((when, _), _)| *when <= end) {
            let ((when, _), what) = self.coming.pop_first().expect("it was just seen");
            self.now = when;
            self.events += 1;
            if let Some(until) = self.pauses(&what) {
                self.at(until, what);
                continue;
            }
            self.happen(what)?;
        }
        self.now = end;
        Ok(())
    }

    /// Until when the site that would do it stands still.
    fn pauses(&self, what: &Coming) -> Option<u64> {
        let site = match what {
            Coming::Arrive { run, .. } | Coming::Asked { run, .. } | Coming::Commit { run, .. } => run.peer,
            Coming::Look { run }
            | Coming::Read { run, .. }
            | Coming::Batch { run, .. }
            | Coming::Survey { run, .. }
            | Coming::Told { run, .. }
            | Coming::AskAgain { run, .. }
            | Coming::Counted { run }
            | Coming::Wake { run, .. }
            | Coming::Journal { run, .. }
            | Coming::Depart { run, .. }
            | Coming::Answer { run, .. } => run.site,
            _ => return None,
        };
        Some(self.sites[site].paused_until).filter(|until| *until > self.now)
    }

    fn happen(&mut self, what: Coming) -> Result<(), String> {
        match what {
            Coming::Operation(op) => self.operate(op)?,
            Coming::Mend { way } => {
                *self.parted.entry(way).or_default() -= 1;
                self.lose_sight_of(way.0);
            }
            Coming::AlterBack { from, to, what } => {
                if self.sites[from].is_up {
                    self.check_checkpoint(from, to)?;
                }
                *what(self.altered.entry((from, to)).or_default()) -= 1;
                self.alter(from, to)?;
            }
            Coming::Restart { site } => self.start(site),
            Coming::Sight { site } => self.lose_sight_of(site),
            Coming::Person { site } => {
                self.at(self.now + PERSON_MS, Coming::Person { site });
                self.release(site)?;
                self.unpark(site)?;
            }
            Coming::Lapse { run } => drop(self.runs.remove(&run)),
            Coming::Arrive { run, push, frame } => self.arrive(run, push, frame)?,
            Coming::Commit { run, push, life, version } => {
                if self.sites[run.peer].is_up && self.sites[run.peer].life == life {
                    return self.commit(run, push, &version);
                }
                self.faults.fire(Fault::UnsyncedLost);
            }
            Coming::Asked { run, number, ask } => self.asked(run, number, ask),
            other => return self.deliver(other),
        }
        Ok(())
    }

    /// A person has parked versions go again, but for those that no longer exist.
    fn unpark(&mut self, site: usize) -> Result<(), String> {
        for run in self.runs_now().into_iter().filter(|run| run.site == site) {
            let rows = self.runs[&run].link.rows(usize::MAX);
            for row in rows.into_iter().filter(|r| r.state == RowState::Parked && r.last_error != NOT_HELD) {
                self.faults.fire(Fault::Parked);
                let (key, version_id) = (Some(row.key), Some(row.version_id));
                self.step(run, Event::Retry(Again { key, version_id, parked_only: true }))?;
            }
        }
        Ok(())
    }

    /// What comes to a link; the link of an earlier owner or life is gone.
    fn deliver(&mut self, what: Coming) -> Result<(), String> {
        match what {
            Coming::Look { run } => self.look(run),
            Coming::Read { run, generation } => self.yield_changes(run, generation),
            Coming::Batch { run, generation, changes, cursor } => {
                let Some(running) = self.runs.get_mut(&run).filter(|r| r.generation == generation) else {
                    return Ok(());
                };
                running.is_read_due = false;
                self.step(run, Event::Changed { changes, cursor })?;
                self.check_bounds(run)?;
                self.read(run);
                Ok(())
            }
            Coming::Survey { run, number } => self.survey_on(run, number),
            Coming::AskAgain { run, number, ask } => self.ask_again(run, number, &ask),
            Coming::Told { run, number, ask, told } => self.told(run, number, &ask, told),
            Coming::Counted { run } => {
                let versions = self.sites[run.site].store.backlog(None, &Interest::default()).versions;
                self.step(run, Event::Counted { versions })
            }
            Coming::Wake { run, at } if self.runs.contains_key(&run) && self.local(run.site) < at => {
                self.wake_at(run, at);
                Ok(())
            }
            Coming::Wake { run, .. } => self.step(run, Event::Tick),
            Coming::Journal { run, seq, record } if self.runs.contains_key(&run) => self.record(run, seq, record),
            Coming::Journal { .. } => {
                self.faults.fire(Fault::UnsyncedLost);
                Ok(())
            }
            Coming::Depart { run, push, frame } => {
                self.depart(run, push, frame);
                Ok(())
            }
            Coming::Answer { run, push, answer } => {
                self.note(run.site, run.peer, "answer", push);
                match answer {
                    Answer::Taken(outcome) => self.step(run, Event::Pushed { id: push, outcome }),
                    Answer::Failed(failure) => self.step(run, Event::PushFailed { id: push, failure }),
                    Answer::Fenced { highest } => {
                        if self.runs.contains_key(&run) {
                            self.fenced(run, highest);
                        }
                        Ok(())
                    }
                }
            }
            _ => Ok(()),
        }
    }

    /// Reads the feed soon, unless that is under way.
    pub fn read(&mut self, run: Run) {
        let Some(running) = self.runs.get_mut(&run) else { return };
        if running.is_reading && !running.is_read_due {
            running.is_read_due = true;
            let generation = running.generation;
            self.soon(20, Coming::Read { run, generation });
        }
    }

    /// The feed has something new for every link of the site.
    pub fn grew(&mut self, site: usize) {
        let runs: Vec<Run> = self.runs.keys().filter(|r| r.site == site).copied().collect();
        runs.into_iter().for_each(|run| self.read(run));
    }

    fn yield_changes(&mut self, run: Run, generation: u64) -> Result<(), String> {
        let Some(running) = self.runs.get_mut(&run).filter(|r| r.generation == generation) else { return Ok(()) };
        let store = &self.sites[run.site].store;
        if !running.is_reading {
            running.is_read_due = false;
            return Ok(());
        }
        let after = running.read_to.clone();
        if !store.knows(after.as_ref()) {
            return self.expired(run);
        }
        let (events, cursor) = store.changes(after.as_ref(), BATCH);
        if events.is_empty() {
            running.is_read_due = false;
            return self.step(run, Event::CaughtUp);
        }
        self.work += 1;
        let change = |e: storage_engine::feed::Event| Change {
            version: Arc::new(e.version),
            pending_since: e.pending_since,
            traceparent: None,
        };
        let changes = events.into_iter().map(change).collect();
        running.read_to = Some(cursor.clone());
        self.soon(20, Coming::Batch { run, generation, changes, cursor });
        Ok(())
    }
}
