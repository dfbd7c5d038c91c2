//! What the replies to a read mean: commit protocol, rules 18 to 23. Pure.
//!
//! A [`Reader`] takes the replies of a read quorum and says what to do next: write components forward,
//! resolve an attempt, or answer. A [`Resolver`] decides one attempt. The shell (`object/resolve.rs`)
//! and the explorer in `quorum/tests.rs` drive the same two machines.
use super::Quorum;
use super::participant::{KeyView, Reply, Verdict, is_blank, later};
use crate::record::{Coded, Record};
use crate::version::{Ballot, Order, Version, VersionId, merge};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// One attempt at a version.
pub type Attempt = (VersionId, Ballot);

/// How much of a key a reader needs decided. What it does not need it leaves as it is, so that an
/// attempt nobody can decide now does not hide what was acked long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Every version.
    All,
    /// The newest live version, and what stands above it.
    Latest,
    /// One version.
    Version(VersionId),
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It counts, for ever.
    Committed,
    /// It never counts.
    Aborted,
    /// Its version was purged: read again.
    Tombstoned,
    /// A null that is committed sorts above it, and drives forget nulls below such a one (rule 17): whether
    /// it counted once cannot be known any more and does not matter. Read again.
    Superseded,
}

/// What a reader does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Rule 19: join these into W drives, add R fresh replies, tell [`Reader::forwarded`], go on.
    Forward(Vec<Version>),
    /// Rule 22: decide this attempt, tell [`Reader::decided`], go on.
    Resolve(Box<Record>),
    /// The answer: decided, joined records, greatest order first, unborn ones last.
    Done(Vec<Record>),
}

/// A read of one key.
#[derive(Clone, Debug)]
pub struct Reader {
    want: Want,
    /// Replies, fresh ones beside older ones. What a drive once said stays true (held, acked, aborted,
    /// purged only ever grow), so old replies are kept: a conditional write needs what it was promised on.
    views: Vec<KeyView>,
    /// Components that a write quorum holds by our own hand.
    remembered: BTreeMap<VersionId, Version>,
    fates: BTreeMap<Attempt, Fate>,
}

impl Reader {
    /// A read over the replies of a read quorum.
    pub fn new(want: Want, views: Vec<KeyView>) -> Self {
        Reader { want, views, remembered: BTreeMap::new(), fates: BTreeMap::new() }
    }
    /// Adds fresh replies.
    pub fn add(&mut self, views: impl IntoIterator<Item = KeyView>) {
        self.views.extend(views);
    }
    /// A write quorum holds these components now.
    pub fn forwarded(&mut self, versions: Vec<Version>) {
        self.remembered.extend(versions.into_iter().map(|v| (v.id, v)));
    }
    /// The attempt was resolved.
    pub fn decided(&mut self, attempt: Attempt, fate: Fate) {
        self.fates.insert(attempt, fate);
    }

    /// Whether a write quorum is known to hold these components, whoever of the replies lacks them.
    pub fn is_settled(&self, joined: &Version) -> bool {
        let mut records = self.views.iter().flat_map(|v| &v.records);
        records.any(|r| r.settled && r.id() == joined.id && later(&r.version) == *joined)
    }

    /// What to do now.
    ///
    /// All R replies may hold components that a write quorum does not, where R is below W: the next reader
    /// would not meet them. So they are written forward unless one of the replies knows that they need not be.
    pub fn step(&self) -> Step {
        let later = self.components();
        let counts = |joined: &Version| self.all_hold(joined) && self.is_settled(joined);
        let forward: Vec<Version> = later
            .iter()
            .filter(|(id, joined)| self.remembered.get(id) != Some(joined) && !counts(joined))
            .map(|(_, joined)| joined.clone())
            .collect();
        if !forward.is_empty() {
            return Step::Forward(forward);
        }
        self.decide(later)
    }

    /// What was joined into each version after its birth, out of all replies. A null version has no
    /// such components.
    fn components(&self) -> BTreeMap<VersionId, Version> {
        let mut joined: BTreeMap<VersionId, Version> = self.remembered.clone();
        for record in self.views.iter().flat_map(|v| &v.records).filter(|r| !r.id().is_null()) {
            let rest = later(&record.version);
            if is_blank(&rest) {
                continue;
            }
            match joined.get_mut(&record.id()) {
                Some(mine) => _ = merge::join(mine, &rest),
                None => _ = joined.insert(record.id(), rest),
            }
        }
        joined
    }

    fn all_hold(&self, joined: &Version) -> bool {
        self.views.iter().all(|view| {
            let mut mine = view.records.iter().filter(|r| r.id() == joined.id).peekable();
            mine.peek().is_some() && mine.all(|r| !merge::join(&mut r.version.clone(), joined).changed)
        })
    }

    /// Rules 18, 20 and 21, newest first.
    fn decide(&self, mut later: BTreeMap<VersionId, Version>) -> Step {
        let mut done: Vec<Record> = Vec::new();
        let mut seen: BTreeSet<VersionId> = BTreeSet::new();
        for record in self.candidates().into_values() {
            let attempt = (record.id(), record.ballot);
            if seen.contains(&attempt.0) {
                continue; // A newer attempt of the version counts; below the newest null nothing does.
            }
            let components = later.get(&attempt.0);
            let purged = components.is_some_and(|c| is_purged(record, c));
            if self.needs(attempt.0) && !purged && !self.committed(attempt, record) {
                return Step::Resolve(Box::new((**record).clone()));
            }
            if !purged && !self.committed(attempt, record) {
                continue;
            }
            seen.insert(attempt.0);
            let mut record = (**record).clone();
            record.acked = true;
            if let Some(components) = later.remove(&attempt.0) {
                merge::join(&mut record.version, &components);
            }
            let live = record.version.is_live();
            done.push(record);
            if live && self.want == Want::Latest {
                return Step::Done(done);
            }
        }
        let unborn = self.views.iter().flat_map(|v| &v.records).filter(|r| r.version.birth.is_none());
        for record in unborn {
            if let Some(version) = later.remove(&record.id()) {
                done.push(Record { version, ..(**record).clone() });
            }
        }
        Step::Done(done)
    }

    /// Attempts that were not aborted, greatest (order, ballot) first, one record each.
    fn candidates(&self) -> BTreeMap<(Reverse<Order>, Reverse<Ballot>), &Coded> {
        let mut found: BTreeMap<_, &Coded> = BTreeMap::new();
        for record in self.views.iter().flat_map(|v| &v.records) {
            let attempt = (record.id(), record.ballot);
            let dead = self.fates.get(&attempt) == Some(&Fate::Aborted)
                || self.views.iter().any(|v| v.aborted(attempt.0, attempt.1));
            if let (Some(birth), false) = (&record.version.birth, dead) {
                found.insert((Reverse(birth.order.clone()), Reverse(record.ballot)), record);
            }
        }
        found
    }

    fn needs(&self, id: VersionId) -> bool {
        match self.want {
            Want::All | Want::Latest => true,
            Want::Version(wanted) => wanted == id,
        }
    }

    /// Rule 21, and rule 20: where a reply may have forgotten the attempt, a flag alone is no proof.
    fn committed(&self, attempt: Attempt, record: &Record) -> bool {
        if self.fates.get(&attempt) == Some(&Fate::Committed) {
            return true;
        }
        let forgotten = |v: &KeyView| v.gc_floor >= record.ballot && v.held(attempt.0, attempt.1).is_none();
        let acked = |v: &KeyView| v.held(attempt.0, attempt.1).is_some_and(|r| r.acked);
        self.views.iter().any(acked) && !self.views.iter().any(forgotten)
    }
}

/// Whether what was joined later purges the attempt, for all guards it was born with or got since.
fn is_purged(record: &Record, later: &Version) -> bool {
    let born = record.version.birth.as_ref().map(|b| &b.guards);
    let mut guards = later.later_guards.clone();
    born.into_iter().for_each(|b| guards.join(b));
    later.purges.effective(&guards).is_some()
}

/// The decision about one attempt. Nothing is decided by silence.
#[derive(Clone, Debug)]
pub struct Resolver {
    quorum: Quorum,
    epoch: u64,
    attempt: Attempt,
    /// Place of the attempt among the nulls; `None`: its version has an id of its own.
    null_order: Option<Order>,
    /// Whole holders needed before the record may be written forward: k where it has bytes, else one.
    enough: usize,
    bytes: bool,
    held: u64,
    /// Holders that do not owe their shard, as their own copy of the record says.
    whole: u64,
    denied: u64,
    fate: Option<Fate>,
    /// A reply came from another epoch: start the read again.
    pub restart: bool,
}

/// How a drive that does not hold the attempt is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Take it, or refuse it for ever.
    Forward,
    /// Refuse it for ever, unless it is held.
    Fence,
}

impl Resolver {
    /// Begins to decide `record`'s attempt.
    pub fn new(quorum: Quorum, epoch: u64, record: &Record) -> Self {
        let bytes = !record.blobs.is_empty();
        let enough = if bytes { quorum.k } else { 1 };
        let attempt = (record.id(), record.ballot);
        let born = record.version.birth.as_ref().filter(|_| attempt.0.is_null());
        Resolver {
            quorum,
            epoch,
            attempt,
            null_order: born.map(|b| b.order.clone()),
            enough,
            bytes,
            held: 0,
            whole: 0,
            denied: 0,
            fate: None,
            restart: false,
        }
    }

    /// Counts what a drive holds, as it said without promising anything: only holds count.
    pub fn view(&mut self, slot: usize, view: &KeyView) -> Option<Fate> {
        if view.aborted(self.attempt.0, self.attempt.1) {
            self.fate = Some(Fate::Aborted);
        } else if view.tombstoned(self.attempt.0) {
            self.fate = Some(Fate::Tombstoned);
        } else if let Some(held) = view.held(self.attempt.0, self.attempt.1) {
            self.held |= 1 << slot;
            self.whole |= u64::from(held.missing & (1 << slot) == 0) << slot;
            if held.acked {
                self.fate = Some(Fate::Committed);
            }
        } else if self.is_hidden(view) {
            self.fate = Some(Fate::Superseded);
        }
        self.fate()
    }

    /// Whether the drive holds a committed null above a null attempt.
    fn is_hidden(&self, view: &KeyView) -> bool {
        let Some(mine) = &self.null_order else { return false };
        let above = |r: &&Coded| r.version.birth.as_ref().is_some_and(|b| b.order > *mine);
        view.records.iter().filter(|r| r.id().is_null() && r.acked).any(|r| above(&r))
    }

    /// Counts the reply to a fence or forward.
    pub fn reply(&mut self, slot: usize, reply: &Reply) -> Option<Fate> {
        if reply.epoch != self.epoch || matches!(reply.verdict, Verdict::Epoch { .. }) {
            self.restart = true;
            return None;
        }
        match reply.verdict {
            Verdict::Held { acked: true } => self.fate = Some(Fate::Committed),
            Verdict::Ok | Verdict::Held { acked: false } => self.held |= 1 << slot,
            // A holder that has forgotten it: the version was purged and its purge collected (rule 20).
            Verdict::Gone | Verdict::Aborted => self.fate = Some(Fate::Aborted),
            Verdict::Tombstoned => self.fate = Some(Fate::Tombstoned),
            Verdict::Denied | Verdict::Stale { .. } if reply.voting => self.denied |= 1 << slot,
            _ => {}
        }
        self.fate()
    }

    /// Rule 23.
    pub fn fate(&self) -> Option<Fate> {
        if self.fate.is_some() {
            return self.fate;
        }
        if self.held.count_ones() as usize >= self.quorum.write() {
            return Some(Fate::Committed);
        }
        (self.denied.count_ones() as usize >= self.quorum.read()).then_some(Fate::Aborted)
    }

    /// How the drives that do not hold it are to be asked, of `heard` that answer. A record with bytes is
    /// forwarded (without shards, in debt) only where refusals of all the others would decide nothing.
    pub fn ask(&self, heard: usize) -> Ask {
        let (held, whole) = (self.held.count_ones() as usize, self.whole.count_ones() as usize);
        let refusable = heard.saturating_sub(held) >= self.quorum.read();
        if whole < self.enough || (self.bytes && refusable) { Ask::Fence } else { Ask::Forward }
    }
    /// Which drives hold it, bit per drive.
    pub fn holders(&self) -> u64 {
        self.held
    }
    /// Which of them hold their shard too.
    pub fn whole(&self) -> u64 {
        self.whole
    }
}
