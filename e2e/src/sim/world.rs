//! The sites of one run, the clock, and everything that is going to happen.
use super::dice::Dice;
use super::oracle::{Oracle, Pair};
use super::trace::Trace;
use super::{Bug, Options, Report};
use isthmus::link::{Again, Change, Checkpoint, Event, Failure, Link, Outcome, Record, Row, Settings};
use isthmus::store::Cursor;
use isthmus::store::memory::{MemoryStore, place};
use std::collections::{BTreeMap, BTreeSet};
use storage_engine::version::{Kind, Origin, Version, VersionId};

/// When every world begins.
const START: u64 = 1_700_000_000_000;
/// Peers are asked for a sign of life this often.
const PROBE_MS: u64 = 2_000;
/// After healing all must be quiet within this time: three of the longest pauses between attempts.
const HEAL_MS: u64 = 15 * 60_000;
/// Nothing may happen for this long once all is quiet.
const QUIET_MS: u64 = 60_000;
/// A person lets parked versions go again this often while the world heals.
const PERSON_MS: u64 = 30_000;

/// What outlives a crash of a link.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub checkpoint: Checkpoint,
    pub rows: BTreeMap<(String, VersionId), Row>,
}

/// A link of this life of a site, and what its shell knows.
pub struct Running {
    pub link: Link,
    pub read_to: Option<Cursor>,
    /// Raised at each rewind: batches read before it are not handed in.
    pub generation: u64,
    pub is_reading: bool,
    pub is_read_due: bool,
    pub is_up: bool,
    /// A message was lost: the connection is gone and will be seen to be.
    pub is_broken: bool,
}

/// One site: what survives a crash, and what does not.
pub struct Site {
    pub origin: Origin,
    pub store: MemoryStore,
    pub journal: BTreeMap<usize, Kept>,
    pub conflicts: BTreeSet<Pair>,
    pub skew: u64,
    pub life: u64,
    pub is_up: bool,
    pub links: BTreeMap<usize, Running>,
}

/// How a push ended.
#[derive(Clone, Debug)]
pub enum Answer {
    Taken(Outcome),
    Failed(Failure),
}

/// Something that will happen.
#[derive(Clone, Debug)]
pub enum Coming {
    Write {
        site: usize,
    },
    Read {
        site: usize,
        peer: usize,
        life: u64,
        generation: u64,
    },
    Batch {
        site: usize,
        peer: usize,
        life: u64,
        generation: u64,
        changes: Vec<Change>,
        cursor: Cursor,
    },
    Arrive {
        site: usize,
        peer: usize,
        life: u64,
        push: u64,
        version: Version,
    },
    /// Only with a planted bug: the receiver's store is behind its acks.
    ApplyLate {
        site: usize,
        life: u64,
        version: Version,
    },
    Answer {
        site: usize,
        peer: usize,
        life: u64,
        push: u64,
        answer: Answer,
    },
    Journal {
        site: usize,
        peer: usize,
        life: u64,
        seq: u64,
        record: Record,
    },
    Wake {
        site: usize,
        peer: usize,
        life: u64,
    },
    Probe {
        site: usize,
        peer: usize,
    },
    Person {
        site: usize,
        peer: usize,
    },
    Part {
        from: usize,
        to: usize,
    },
    Mend {
        from: usize,
        to: usize,
    },
    Crash {
        site: usize,
    },
    Restart {
        site: usize,
    },
}

/// Everything.
pub struct World {
    pub options: Options,
    pub dice: Dice,
    pub now: u64,
    pub sites: Vec<Site>,
    pub trace: Trace,
    pub oracle: Oracle,
    pub parted: BTreeMap<(usize, usize), u32>,
    pub is_healing: bool,
    pub applied: u64,
    pub rows: u64,
    /// Pushes, reads that yielded something and records: all that must cease.
    pub work: u64,
    crashes: u64,
    coming: BTreeMap<(u64, u64), Coming>,
    next: u64,
}

/// The place a checkpoint's cursor means.
pub fn base_place(cursor: &Option<Cursor>) -> u64 {
    place(cursor.as_ref())
}

impl World {
    pub fn new(options: Options) -> World {
        let mut dice = Dice::new(options.seed);
        let sites = (0..options.sites).map(|n| {
            let origin = Origin::new(&format!("site-{n}"));
            let far = if n == 0 && options.far_ahead { 90_000 } else { 0 };
            let skew = dice.range(0, options.skew_ms) + far;
            let store = MemoryStore::new(origin.clone());
            Site {
                origin,
                store,
                journal: BTreeMap::new(),
                conflicts: BTreeSet::new(),
                skew,
                life: 0,
                is_up: false,
                links: BTreeMap::new(),
            }
        });
        let sites = sites.collect();
        World {
            options,
            dice,
            now: START,
            sites,
            trace: Trace::default(),
            oracle: Oracle::default(),
            parted: BTreeMap::new(),
            is_healing: false,
            applied: 0,
            rows: 0,
            work: 0,
            crashes: 0,
            coming: BTreeMap::new(),
            next: 0,
        }
    }

    /// The clock of a site.
    pub fn local(&self, site: usize) -> u64 {
        self.now + self.sites[site].skew
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
        self.plan();
        let end = START + self.options.fault_ms;
        self.pass_until(end)?;
        self.heal();
        let mut limit = self.now + HEAL_MS;
        while !self.is_quiet() {
            if self.now > limit {
                return Err(format!("not quiet {HEAL_MS} ms after healing"));
            }
            self.pass_until(self.now + PROBE_MS)?;
        }
        limit = self.now + QUIET_MS;
        let work = self.work;
        self.pass_until(limit)?;
        if self.work != work {
            return Err("something moves though all was quiet: a loop".into());
        }
        self.judge()
    }

    fn judge(&self) -> Result<Report, String> {
        for (number, site) in self.sites.iter().enumerate() {
            self.oracle.judge(number, site)?;
            self.others(number).try_for_each(|peer| self.check_checkpoint(number, peer))?;
        }
        let most = self.oracle.changes * (self.options.sites as u64 - 1);
        if self.applied > most {
            return Err(format!("{} versions applied, {most} would be enough", self.applied));
        }
        Ok(Report {
            trace_hash: self.trace.hash,
            applied: self.applied,
            changes: self.oracle.changes,
            conflicts: self.oracle.conflicts().len() as u64,
            crashes: self.crashes,
            rows: self.rows,
        })
    }

    pub fn others(&self, site: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.options.sites).filter(move |peer| *peer != site)
    }

    /// Lays out the fault phase: writes, partitions, crashes.
    fn plan(&mut self) {
        let (end, n) = (self.options.fault_ms, self.options.sites as u64);
        for _ in 0..self.options.writes {
            let (site, when) = (self.dice.range(0, n) as usize, self.dice.range(0, end));
            self.at(START + when, Coming::Write { site });
        }
        for _ in 0..self.options.partitions {
            let (from, to) = (self.dice.range(0, n) as usize, self.dice.range(0, n) as usize);
            let (start, long) = (self.dice.range(0, end), self.dice.range(10, end / 2));
            let is_full = self.dice.chance(500);
            for (from, to) in [(from, to), (to, from)].into_iter().take(1 + usize::from(is_full)) {
                self.at(START + start, Coming::Part { from, to });
                self.at(START + start + long, Coming::Mend { from, to });
            }
        }
        for _ in 0..self.options.crashes {
            let (site, when, long) =
                (self.dice.range(0, n) as usize, self.dice.range(0, end), self.dice.range(10, 15_000));
            self.at(START + when, Coming::Crash { site });
            self.at(START + when + long, Coming::Restart { site });
        }
        for site in 0..self.options.sites {
            for peer in self.others(site) {
                let first = START + self.dice.range(0, PROBE_MS);
                self.at(first, Coming::Probe { site, peer });
            }
        }
    }

    fn heal(&mut self) {
        self.is_healing = true;
        self.parted.clear();
        for site in 0..self.options.sites {
            self.restart(site);
            for peer in self.others(site) {
                self.at(self.now, Coming::Person { site, peer });
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.sites.iter().all(|site| {
            site.links.values().all(|running| {
                let shown = running.link.shown(self.now);
                shown.state == "live"
                    && shown.pending_versions == 0
                    && site.store.backlog(running.link.cursor(), "").versions == 0
            })
        }) && !self.coming.values().any(|c| {
            matches!(c, Coming::Journal { .. } | Coming::Arrive { .. } | Coming::Answer { .. } | Coming::Write { .. })
        })
    }

    fn pass_until(&mut self, end: u64) -> Result<(), String> {
        while self.coming.first_key_value().is_some_and(|((when, _), _)| *when <= end) {
            let ((when, _), what) = self.coming.pop_first().expect("it was just seen");
            self.now = when;
            self.happen(what)?;
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, what: Coming) -> Result<(), String> {
        match what {
            Coming::Write { site } => self.write(site),
            Coming::Part { from, to } if !self.is_healing => *self.parted.entry((from, to)).or_default() += 1,
            Coming::Mend { from, to } if !self.is_healing => *self.parted.entry((from, to)).or_default() -= 1,
            Coming::Crash { site } if !self.is_healing => return self.crash(site),
            Coming::Restart { site } => self.restart(site),
            Coming::Part { .. } | Coming::Mend { .. } | Coming::Crash { .. } => {}
            Coming::Probe { site, peer } => {
                self.at(self.now + PROBE_MS, Coming::Probe { site, peer });
                return self.probe(site, peer);
            }
            Coming::Person { site, peer } => {
                self.at(self.now + PERSON_MS, Coming::Person { site, peer });
                return self.step(site, peer, Event::Retry(Again { parked_only: true, ..Again::default() }));
            }
            other => return self.deliver(other),
        }
        Ok(())
    }

    /// A client's change at one site; acked, so the oracle knows it.
    fn write(&mut self, site: usize) {
        if !self.sites[site].is_up {
            return;
        }
        let now = self.local(site);
        let key = format!("key-{}", self.dice.range(0, self.options.keys));
        let kind = self.dice.range(0, 100);
        let known: Vec<VersionId> = self.sites[site].store.list(&key).iter().map(|v| v.id).collect();
        let any = self.dice.bits() as usize;
        let fresh =
            VersionId::from_bytes((u128::from(self.dice.bits()) << 64 | u128::from(self.dice.bits())).to_be_bytes());
        let size = self.dice.range(0, 20_000);
        let store = &mut self.sites[site].store;
        let change = match (kind, known.get(any % known.len().max(1))) {
            (0..20, Some(id)) => store.tag(now, &key, *id, [("n".to_string(), size.to_string())].into()),
            (20..35, Some(id)) => store.purge(now, &key, *id),
            (35..43, Some(id)) => store.hold(now, &key, *id, any.is_multiple_of(2)),
            (43..53, _) => Some(store.put(now, &key, fresh, Kind::DeleteMarker, 0)),
            _ => Some(store.put(now, &key, fresh, Kind::Object, size)),
        };
        // A guard forbids the purge, or there is no hold to lift.
        let Some(change) = change else { return };
        self.oracle.acked(&change);
        self.note(site, site, "write", change.max_hlc().bits());
        self.grew(site);
    }

    /// The feed has something new for every link of the site.
    pub fn grew(&mut self, site: usize) {
        for peer in self.others(site) {
            self.read(site, peer);
        }
    }

    fn crash(&mut self, site: usize) -> Result<(), String> {
        if !self.sites[site].is_up {
            return Ok(());
        }
        self.note(site, site, "crash", self.sites[site].life);
        self.crashes += 1;
        self.sites[site].is_up = false;
        self.sites[site].links.clear();
        for peer in self.others(site) {
            self.check_checkpoint(site, peer)?;
            if let Some(running) = self.sites[peer].links.get_mut(&site) {
                running.is_broken = true;
            }
        }
        Ok(())
    }

    fn restart(&mut self, site: usize) {
        if !self.sites[site].is_up {
            self.start(site);
        }
    }

    /// Begins a life: links go on from what the journal holds.
    fn start(&mut self, site: usize) {
        self.sites[site].life += 1;
        self.sites[site].is_up = true;
        self.note(site, site, "start", self.sites[site].life);
        for peer in self.others(site) {
            let settings = self.settings(site, peer);
            let here = &mut self.sites[site];
            here.store.register(&format!("to-{peer}"));
            let kept = here.journal.get(&peer).cloned();
            let forgets = self.options.bug == Some(Bug::RowsForgottenAtStart);
            let rows = kept.iter().flat_map(|k| k.rows.values().cloned()).filter(|_| !forgets).collect();
            let read_to = kept.as_ref().and_then(|k| k.checkpoint.cursor.clone());
            let link = Link::new(settings, kept.map(|k| k.checkpoint), rows, self.options.seed ^ peer as u64);
            #[cfg(feature = "planted-bugs")]
            let link = match self.options.bug {
                Some(Bug::Link(bug)) => {
                    let mut link = link;
                    link.plant(bug);
                    link
                }
                _ => link,
            };
            let running = Running {
                link,
                read_to,
                generation: 0,
                is_reading: false,
                is_read_due: false,
                is_up: false,
                is_broken: false,
            };
            here.links.insert(peer, running);
        }
    }

    fn settings(&self, site: usize, peer: usize) -> Settings {
        Settings {
            prefix: String::new(),
            tags: BTreeMap::new(),
            own_origin: self.sites[site].origin.clone(),
            forward_all: self.options.forward_all,
            peer_origin: self.sites[peer].origin.clone(),
            delete_markers: true,
            version_deletes: true,
            object_lock: true,
            yields_to: Vec::new(),
            existing_objects: true,
            commit_order: self.options.commit_order,
            bandwidth: self.options.bandwidth,
            window_versions: self.options.window_versions,
            window_bytes: self.options.window_bytes,
            brake: None,
            brake_release: 0,
            suspend: false,
        }
    }
}
