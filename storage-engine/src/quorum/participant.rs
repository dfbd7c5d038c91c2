//! What one drive decides alone: commit protocol, rules 1 to 9. Pure.
use crate::record::{BucketId, Coded, Record};
use crate::version::{Ballot, Birth, Guards, Purges, Tags, Version, VersionId, merge};
use bytes::Bytes;
use std::cmp::Ordering;
use uuid::Uuid;

/// What a coordinator asks of a drive.
#[derive(Clone, Debug)]
pub struct Request {
    /// Map epoch in which the operation began.
    pub epoch: u64,
    /// Bucket of the key.
    pub bucket: BucketId,
    /// The key; all records named are of it.
    pub key: String,
    /// What to do.
    pub op: Op,
}

/// One operation of the protocol.
#[derive(Clone, Debug)]
pub enum Op {
    /// Rule 3: hold this attempt. `shards` are this drive's small shards, by blob.
    Accept { record: Coded, shards: Vec<(Uuid, Bytes)> },
    /// Rule 4: promise to refuse ballots below, and tell what is held.
    Prepare { ballot: Ballot },
    /// Rule 5: promise to refuse this attempt unless it is held.
    Fence { version: VersionId, ballot: Ballot },
    /// Rule 5: as accept, with a refusal that counts as a denial.
    Forward { record: Coded, shards: Vec<(Uuid, Bytes)> },
    /// Rule 6: this attempt never counts.
    Abort { version: VersionId, ballot: Ballot },
    /// Rule 7 and every later component: join this state (a purge, tags) into the version, held or not.
    /// `passed`: all that this drive logged up to there is durable at every registered consumer.
    Join { version: Box<Version>, pending_since: u64, passed: u64, traceparent: Option<String> },
    /// Rule 7: a write quorum holds these later components; flag them where exactly they are held.
    Settle { version: Box<Version> },
    /// Rule 7: flag a held attempt as acked.
    Ack { version: VersionId, ballot: Ballot },
    /// Rule 8: heal inserts a record, promises ignored.
    Insert { record: Coded, shards: Vec<(Uuid, Bytes)> },
    /// Tell what is held; promises nothing.
    Read,
}

/// A drive's answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Life of the drive's content at that moment.
    pub incarnation: Uuid,
    /// Its epoch at that moment.
    pub epoch: u64,
    /// Whether its answers count, at that moment.
    pub voting: bool,
    /// The answer.
    pub verdict: Verdict,
}

/// What a drive says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Held, durable.
    Ok,
    /// Refused: a ballot above `max` is needed. A denial.
    Stale { max: Ballot },
    /// Refused: that attempt was aborted. A denial.
    Aborted,
    /// Below the garbage collection floor: neither hold nor denial.
    Gone,
    /// Not held, and from now on refused. A denial.
    Denied,
    /// Held; whether flagged acked.
    Held { acked: bool },
    /// The version is purged.
    Tombstoned,
    /// Refused: a guard held here forbids it, whoever asks. Neither hold nor denial.
    Guarded,
    /// The operation began in an older epoch; no effect.
    Epoch { current: u64 },
    /// Everything held of the key.
    State(KeyView),
}

/// Everything one drive holds of one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyView {
    /// Attempts and records, one per (version id, ballot); a version known only by later components has ballot zero.
    pub records: Vec<Coded>,
    /// Attempts that never count.
    pub aborts: Vec<(VersionId, Ballot)>,
    /// Attempts at or below it may have been forgotten.
    pub gc_floor: Ballot,
}

/// Sentinel for attempts nobody wrote: a record of components without a birth.
const UNBORN: Ballot = Ballot::ZERO;

/// What a drive knows besides the records of the key when it judges a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gate {
    /// The drive's epoch. A drive adopts a newer one durably before it judges.
    pub epoch: u64,
    /// The promise given for this key in this life of the process; zero: none.
    pub promise: Ballot,
    /// The durable ceiling when the process started (rule 9), and the join floor where that is higher.
    pub ceiling_at_start: Ballot,
    /// Of a join: where its version stands in the drive's feed; zero: nowhere.
    pub place: u64,
}

/// What a drive does about a request.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The answer, to be given only after `effect` and the ceiling over `promise` are durable.
    pub verdict: Verdict,
    /// The change to log; apply it with [`KeyView::apply`], also on replay.
    pub effect: Option<Effect>,
    /// The key's new promise; absent: unchanged. It never falls.
    pub promise: Option<Ballot>,
}

/// A change of what a drive holds of one key.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Hold this attempt, with this drive's small shards.
    Put { record: Coded, shards: Vec<(Uuid, Bytes)> },
    /// The attempt never counts.
    Abort { version: VersionId, ballot: Ballot },
    /// The attempt is known to be held by a write quorum.
    Ack { version: VersionId, ballot: Ballot },
    /// Join these components (a record of ballot zero, without birth) into what is held of the version. With
    /// its `settled` set they are what is held already, and a write quorum holds them too.
    Join { record: Coded },
}

/// Judges one request against what the drive holds of the key: rules 1 to 9. Changes nothing.
pub fn decide(view: &KeyView, gate: &Gate, request: &Request) -> Decision {
    if request.epoch < gate.epoch {
        return Decision::say(Verdict::Epoch { current: gate.epoch });
    }
    match &request.op {
        Op::Accept { record, shards } => accept(view, gate, record, shards),
        Op::Forward { record, shards } => {
            let mut decision = accept(view, gate, record, shards);
            if matches!(decision.verdict, Verdict::Stale { .. }) {
                decision.promise = raised(gate, record.ballot.next());
            }
            decision
        }
        Op::Prepare { ballot } => prepare(view, gate, *ballot),
        Op::Fence { version, ballot } => fence(view, gate, *version, *ballot),
        Op::Abort { version, ballot } => abort(view, *version, *ballot),
        Op::Join { version, pending_since, passed, traceparent } => {
            let mut record = Record::new(request.bucket, components(version), UNBORN);
            (record.pending_since, record.traceparent) = (*pending_since, traceparent.clone());
            if gate.place > *passed {
                // What waits stays as old as it was, and of the trace it was of, where the change has none.
                let since = view.pending_since(version.id);
                record.pending_since = since.map_or(*pending_since, |since| since.min(*pending_since));
                record.traceparent = record.traceparent.or_else(|| view.traceparent(version.id));
            }
            join(view, record)
        }
        Op::Settle { version } => settle(view, request.bucket, version),
        Op::Ack { version, ballot } => match view.held(*version, *ballot) {
            Some(held) if !held.acked => Decision::change(Effect::Ack { version: *version, ballot: *ballot }),
            Some(_) => Decision::say(Verdict::Ok),
            None => Decision::say(Verdict::Gone),
        },
        Op::Insert { record, shards } => insert(view, record, shards),
        Op::Read => Decision::say(Verdict::State(view.clone())),
    }
}

/// Rule 3.
fn accept(view: &KeyView, gate: &Gate, record: &Coded, shards: &[(Uuid, Bytes)]) -> Decision {
    let (id, ballot) = (record.id(), record.ballot);
    if view.aborted(id, ballot) {
        return Decision::say(Verdict::Aborted);
    }
    if view.held(id, ballot).is_some() {
        return Decision::say(Verdict::Ok);
    }
    if ballot <= view.gc_floor {
        return Decision::say(Verdict::Gone);
    }
    if view.tombstoned_beside(id, &record.version.guards()) {
        return Decision::say(Verdict::Tombstoned);
    }
    let floor = floor(view, gate);
    if ballot < floor {
        return Decision::say(Verdict::Stale { max: floor });
    }
    put(view, record, shards)
}

/// Rule 4.
fn prepare(view: &KeyView, gate: &Gate, ballot: Ballot) -> Decision {
    let floor = floor(view, gate);
    if ballot < floor {
        return Decision::say(Verdict::Stale { max: floor });
    }
    Decision { verdict: Verdict::State(view.clone()), effect: None, promise: raised(gate, ballot) }
}

/// Rule 5: without the promise a denial would be worth nothing (trace H1).
fn fence(view: &KeyView, gate: &Gate, id: VersionId, ballot: Ballot) -> Decision {
    let held = view.held(id, ballot);
    if held.is_some_and(|r| r.acked) {
        return Decision::say(Verdict::Held { acked: true });
    }
    if view.aborted(id, ballot) {
        return Decision::say(Verdict::Aborted);
    }
    if view.tombstoned(id) {
        return Decision::say(Verdict::Tombstoned);
    }
    if held.is_some() {
        return Decision::say(Verdict::Held { acked: false });
    }
    if ballot <= view.gc_floor {
        return Decision::say(Verdict::Gone);
    }
    Decision { verdict: Verdict::Denied, effect: None, promise: raised(gate, ballot.next()) }
}

/// Rule 6. `Held { acked: true }` is the refusal that must never happen: the caller raises an alarm.
fn abort(view: &KeyView, id: VersionId, ballot: Ballot) -> Decision {
    if view.aborted(id, ballot) {
        return Decision::say(Verdict::Ok);
    }
    if view.held(id, ballot).is_some_and(|r| r.acked) && !view.tombstoned(id) {
        return Decision::say(Verdict::Held { acked: true });
    }
    Decision::change(Effect::Abort { version: id, ballot })
}

/// Rule 7, for every later component; a change that waits for a consumer stays as old as it was. A null version has none (it is rewritten whole): `Gone`.
fn join(view: &KeyView, record: Record) -> Decision {
    let id = record.id();
    if id.is_null() {
        return Decision::say(Verdict::Gone);
    }
    let mut learns = !view.records.iter().any(|r| r.id() == id) && !is_blank(&record.version);
    for held in view.records.iter().filter(|r| r.id() == id) {
        learns |= merge::join(&mut held.version.clone(), &record.version).changed;
    }
    if learns { Decision::change(Effect::Join { record: record.into() }) } else { Decision::say(Verdict::Ok) }
}

/// Rule 7: where a later component has come since, or one has not come yet, the flag would not be true.
fn settle(view: &KeyView, bucket: BucketId, version: &Version) -> Decision {
    let version = components(version);
    let mine = || view.records.iter().filter(|r| r.id() == version.id);
    let exactly = mine().all(|r| later(&r.version) == version);
    if version.id.is_null() || !exactly || mine().all(|r| r.settled) {
        return Decision::say(Verdict::Ok);
    }
    let mut record = Record::new(bucket, version, UNBORN);
    record.settled = true;
    Decision::change(Effect::Join { record: record.into() })
}

/// Rule 8: what is decided needs no promise. An unflagged record that is held gets its flag.
fn insert(view: &KeyView, record: &Coded, shards: &[(Uuid, Bytes)]) -> Decision {
    let (id, ballot) = (record.id(), record.ballot);
    if view.tombstoned_beside(id, &record.version.guards()) {
        return Decision::say(Verdict::Tombstoned);
    }
    if view.aborted(id, ballot) {
        return Decision::say(Verdict::Aborted);
    }
    if ballot <= view.gc_floor {
        return Decision::say(Verdict::Gone);
    }
    match view.held(id, ballot) {
        Some(held) if record.acked && !held.acked => Decision::change(Effect::Ack { version: id, ballot }),
        Some(_) => Decision::say(Verdict::Ok),
        None => put(view, record, shards),
    }
}

/// Holds a record, with every later component the drive already has of its version, unless a guard forbids it.
fn put(view: &KeyView, record: &Coded, shards: &[(Uuid, Bytes)]) -> Decision {
    let record = joined(view, record);
    if view.forbids(&record) {
        return Decision::say(Verdict::Guarded);
    }
    Decision::change(Effect::Put { record, shards: shards.to_vec() })
}

fn joined(view: &KeyView, record: &Coded) -> Coded {
    let id = record.id();
    // The flag of the drive that the record came from says nothing about what is joined here.
    let mut joined = record.settled.then(|| Record { settled: false, ..(**record).clone() });
    for held in view.records.iter().filter(|r| r.id() == id && !id.is_null()) {
        merge::join(&mut joined.get_or_insert_with(|| (**record).clone()).version, &later(&held.version));
    }
    joined.map_or_else(|| record.clone(), Coded::from)
}

/// The least ballot the drive takes for this key. Aborted attempts count too: a STALE once said
/// because of a record must outlive that record's abort, or the denial would be no promise.
fn floor(view: &KeyView, gate: &Gate) -> Ballot {
    let held = view.records.iter().map(|r| r.ballot).max().unwrap_or(Ballot::ZERO);
    let aborted = view.aborts.iter().map(|(_, b)| *b).max().unwrap_or(Ballot::ZERO);
    held.max(aborted).next().max(gate.promise).max(gate.ceiling_at_start)
}

fn raised(gate: &Gate, to: Ballot) -> Option<Ballot> {
    (to > gate.promise).then_some(to)
}

/// The components that were set after the birth: they stay true when the attempt is aborted.
pub(crate) fn later(version: &Version) -> Version {
    let mut rest = components(version);
    let born = |b: &Birth, t: &Tags| b.order.hlc == t.stamp.hlc && b.order.origin == t.stamp.origin;
    if version.birth.as_ref().zip(rest.tags.as_ref()).is_some_and(|(b, t)| born(b, t)) {
        rest.tags = None;
    }
    rest
}

/// The version without its birth: what joins on its own.
fn components(version: &Version) -> Version {
    Version {
        key: version.key.clone(),
        id: version.id,
        birth: None,
        tags: version.tags.clone(),
        later_guards: version.later_guards.clone(),
        purges: version.purges.clone(),
        unknown: version.unknown.clone(),
    }
}

pub(crate) fn is_blank(version: &Version) -> bool {
    version.tags.is_none() && version.later_guards.is_empty() && version.purges.is_empty() && version.unknown.is_empty()
}

impl Decision {
    fn say(verdict: Verdict) -> Self {
        Decision { verdict, effect: None, promise: None }
    }
    fn change(effect: Effect) -> Self {
        Decision { verdict: Verdict::Ok, effect: Some(effect), promise: None }
    }
}

impl KeyView {
    /// The attempt, where it is held.
    pub fn held(&self, id: VersionId, ballot: Ballot) -> Option<&Record> {
        self.records.iter().map(|r| &**r).find(|r| r.ballot == ballot && r.id() == id)
    }
    /// Since when the oldest change of a version waits, by its records.
    fn pending_since(&self, id: VersionId) -> Option<u64> {
        self.records.iter().filter(|r| r.id() == id).map(|r| r.pending_since).min()
    }
    /// What the newest change of a version was caused by, where its records know.
    fn traceparent(&self, id: VersionId) -> Option<String> {
        let of = self.records.iter().filter(|r| r.id() == id);
        of.max_by_key(|r| (r.pending_since, r.ballot)).and_then(|r| r.traceparent.clone())
    }
    /// Whether the attempt was aborted.
    pub fn aborted(&self, id: VersionId, ballot: Ballot) -> bool {
        self.aborts.contains(&(id, ballot))
    }
    /// Whether the version is purged, by all the guards this drive knows of it: a purge that one of them
    /// forbids is held and has no effect. A purge of null is an ordered record like any other (rule 16).
    pub fn tombstoned(&self, id: VersionId) -> bool {
        self.tombstoned_beside(id, &Guards::default())
    }

    /// The same, with `more` guards that just arrived.
    fn tombstoned_beside(&self, id: VersionId, more: &Guards) -> bool {
        let held = || self.records.iter().filter(|r| r.id() == id);
        if id.is_null() || held().all(|r| r.version.purges.is_empty()) {
            return false;
        }
        let (mut guards, mut purges) = (more.clone(), Purges::default());
        for record in held() {
            guards.join(&record.version.guards());
            purges.join(&record.version.purges);
        }
        purges.effective(&guards).is_some()
    }

    /// Whether holding `record` would take guards away that bind a version held here: by another birth
    /// under its id, or (a null, which is a register) by a newer null while they stand.
    fn forbids(&self, record: &Record) -> bool {
        let order = |r: &Record| r.version.birth.as_ref().map(|b| b.order.clone());
        let binding = |held: &&Coded| held.id() == record.id() && held.acked && !held.version.guards().is_empty();
        self.records.iter().filter(binding).any(|held| {
            // What a later writing of the same version set or lifted counts, its flag may yet come.
            let mut guards = Guards::default();
            let same = |r: &&Coded| r.id() == held.id() && order(r) == order(held);
            self.records.iter().filter(same).for_each(|r| guards.join(&r.version.guards()));
            match order(record).cmp(&order(held)) {
                Ordering::Less => false,
                Ordering::Greater if record.id().is_null() => {
                    let at_millis = record.version.birth.as_ref().map_or(0, |b| b.order.hlc.millis());
                    held.version.is_live() && guards.permit_purge(at_millis).is_err()
                }
                Ordering::Equal | Ordering::Greater => {
                    let mut both = record.version.guards();
                    both.join(&guards);
                    both != record.version.guards()
                }
            }
        })
    }

    /// Makes the change; the same change twice changes nothing more. Drives use it on the live road
    /// and on replay, so that what is held is a function of the log.
    pub fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Put { record, .. } => {
                let (id, ballot) = (record.id(), record.ballot);
                // The record has absorbed the unborn one.
                self.records.retain(|r| r.id() != id || !(r.ballot == ballot || r.ballot == UNBORN));
                self.records.push(record.clone());
                if record.acked {
                    self.supersede(id, ballot);
                }
            }
            Effect::Abort { version, ballot } => self.apply_abort(*version, *ballot),
            Effect::Ack { version, ballot } => {
                if let Some(held) = self.records.iter_mut().find(|r| r.ballot == *ballot && r.id() == *version) {
                    *held = held.flagged();
                    self.supersede(*version, *ballot);
                }
            }
            Effect::Join { record } => {
                let mut held = false;
                for mine in self.records.iter_mut().filter(|r| r.id() == record.id()) {
                    held = true;
                    let mine = mine.to_mut();
                    if record.settled {
                        mine.settled = true;
                    } else if merge::join(&mut mine.version, &record.version).changed {
                        (mine.pending_since, mine.settled) = (record.pending_since, false);
                        mine.traceparent = record.traceparent.clone();
                    }
                }
                if !held {
                    self.records.push(record.clone());
                }
            }
        }
    }

    /// Drops an attempt but never the components that joined it: a purge outlives the attempt it met.
    fn apply_abort(&mut self, id: VersionId, ballot: Ballot) {
        if !self.aborted(id, ballot) {
            self.aborts.push((id, ballot));
        }
        let Some(at) = self.records.iter().position(|r| r.ballot == ballot && r.id() == id) else { return };
        let dropped = self.records.remove(at);
        let rest = later(&dropped.version);
        if !id.is_null() && !is_blank(&rest) && !self.records.iter().any(|r| r.id() == id) {
            let mut unborn = Record::new(dropped.bucket, rest, UNBORN);
            (unborn.pending_since, unborn.settled) = (dropped.pending_since, dropped.settled);
            unborn.traceparent = dropped.traceparent.clone();
            self.records.push(unborn.into());
        }
    }

    /// Rule 17: nulls below an acked null are history, and so are their aborts (the held ballot
    /// refuses those attempts as well). Keeps a hot null key at a few records.
    fn supersede(&mut self, id: VersionId, ballot: Ballot) {
        if !id.is_null() {
            return;
        }
        let order = |r: &Record| r.version.birth.as_ref().map(|b| b.order.clone());
        let Some(top) = self.held(id, ballot).map(order) else { return };
        self.records.retain(|r| !r.id().is_null() || r.ballot >= ballot || order(r) > top);
        self.aborts.retain(|(v, b)| !v.is_null() || *b >= ballot);
    }
}
