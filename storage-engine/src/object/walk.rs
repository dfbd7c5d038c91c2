//! Random walks through small worlds: the coordinators of this module over drives that are nothing but
//! the pure participant, with a network that delivers never, late, twice and out of order, clients that
//! die and drives that restart. Every run is a function of its seed.
use super::ballot::{Draft, NewId, Test};
use super::{Error, Objects};
use crate::clock::{Clock, HlcClock};
use crate::drive::{self, Drive, Logged, Lsn, ShardSink};
use crate::object::blob::Data;
use crate::object::put::{conditions_hold, marker};
use crate::quorum::participant::{Effect, Gate, KeyView, Op, Reply, Request, decide};
use crate::record::{Blob, BucketId, Record};
use crate::version::{Ballot, Hlc, Kind, Order, Origin, Stamp, Version, VersionId};
use crate::wire::Fields;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

const KEY: &str = "k";
const BUCKET: BucketId = BucketId(Uuid::from_u128(7));

/// A rule left out, to prove that the walks would notice.
#[derive(Clone, Copy, PartialEq)]
enum Bug {
    None,
    /// Trace H1: a denial that promises nothing.
    DenialWithoutPromise,
    /// Trace H2: an abort takes every attempt of the version.
    AbortByVersion,
    /// Trace H6: a restart forgets what was promised.
    CeilingLost,
    /// Rule 3: an accept below the promise is taken.
    AcceptBelowPromise,
    /// Rule 7: a component counts as settled where it is held.
    SettledUnasked,
}

struct Dice(u64);
impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }
}

/// Time that passes when somebody waits for it.
struct WorldClock(AtomicU64);
impl Clock for WorldClock {
    fn now_millis(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    fn sleep(&self, millis: u64) -> BoxFuture<'static, ()> {
        self.0.fetch_add(millis, Ordering::Relaxed);
        Box::pin(tokio::task::yield_now())
    }
}

enum Ask {
    Call(Request, Option<oneshot::Sender<Reply>>),
    Look(oneshot::Sender<KeyView>),
}

#[derive(Default)]
struct Held {
    view: KeyView,
    gate: Gate,
    ceiling: Ballot,
}

struct World {
    drives: Mutex<Vec<Held>>,
    bag: Mutex<Vec<(usize, Ask)>>,
    step: AtomicU64,
    /// An accept that one drive has is on its way to the others until somebody was fenced. Trace H1 needs
    /// a writer overtaken by a reader: by chance alone one walk in 50,000, this way one in 20 to 30.
    accepts_linger: AtomicBool,
    bug: Bug,
}

impl World {
    fn deliver(&self, slot: usize, ask: Ask, keep_reply: bool) {
        let mut drives = self.drives.lock().unwrap();
        let drive = &mut drives[slot];
        match ask {
            Ask::Look(answer) => {
                let _ = answer.send(drive.view.clone());
            }
            Ask::Call(request, answer) => {
                let reply = self.judge(drive, &request);
                if let (Some(answer), true) = (answer, keep_reply) {
                    let _ = answer.send(reply);
                }
            }
        }
    }

    fn lingers(&self, ask: &Ask) -> bool {
        let Ask::Call(Request { op: Op::Accept { record, .. }, .. }, _) = ask else { return false };
        let is_held = |drive: &Held| drive.view.held(record.id(), record.ballot).is_some();
        self.accepts_linger.load(Ordering::Relaxed) && self.drives.lock().unwrap().iter().any(is_held)
    }

    fn judge(&self, drive: &mut Held, request: &Request) -> Reply {
        if matches!(request.op, Op::Fence { .. }) {
            self.accepts_linger.store(false, Ordering::Relaxed);
        }
        let mut gate = drive.gate;
        if self.bug == Bug::AcceptBelowPromise && matches!(request.op, Op::Accept { .. }) {
            gate = Gate { epoch: gate.epoch, ..Gate::default() };
        }
        let decision = decide(&drive.view, &gate, request);
        let denial = matches!(request.op, Op::Fence { .. } | Op::Forward { .. });
        if let (Some(promise), false) = (decision.promise, self.bug == Bug::DenialWithoutPromise && denial) {
            drive.gate.promise = drive.gate.promise.max(promise);
            drive.ceiling = drive.ceiling.max(promise);
        }
        if let Some(effect) = &decision.effect {
            drive.view.apply(effect);
            if let (Effect::Join { record }, Bug::SettledUnasked) = (effect, self.bug) {
                drive.view.apply(&Effect::Join { record: Record { settled: true, ..(**record).clone() }.into() });
            }
            if let (Effect::Abort { version, .. }, true) = (effect, self.bug == Bug::AbortByVersion) {
                let all: Vec<_> = drive.view.records.iter().filter(|r| r.id() == *version).map(|r| r.ballot).collect();
                for ballot in all {
                    drive.view.apply(&Effect::Abort { version: *version, ballot });
                }
            }
        }
        Reply { incarnation: Uuid::nil(), epoch: 1, voting: true, verdict: decision.verdict }
    }

    fn restart(&self, slot: usize) {
        let mut drives = self.drives.lock().unwrap();
        let drive = &mut drives[slot];
        let ceiling = if self.bug == Bug::CeilingLost { Ballot::ZERO } else { drive.ceiling };
        drive.gate = Gate { epoch: 1, ceiling_at_start: ceiling, ..Gate::default() };
    }

    fn now(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }
}

struct ModelDrive(usize, Arc<World>);

fn silent(slot: usize) -> drive::Error {
    drive::Error::Offline { slot, why: "the message was lost".into() }
}

#[async_trait]
impl Drive for ModelDrive {
    fn slot(&self) -> usize {
        self.0
    }
    fn incarnation(&self) -> Uuid {
        Uuid::nil()
    }
    fn ceiling(&self) -> Hlc {
        Hlc::ZERO
    }
    async fn call(&self, request: Request) -> Result<Reply, drive::Error> {
        let (tx, rx) = oneshot::channel();
        self.1.bag.lock().unwrap().push((self.0, Ask::Call(request, Some(tx))));
        rx.await.map_err(|_| silent(self.0))
    }
    async fn read_key(&self, _: BucketId, _: &str) -> Result<KeyView, drive::Error> {
        let (tx, rx) = oneshot::channel();
        self.1.bag.lock().unwrap().push((self.0, Ask::Look(tx)));
        rx.await.map_err(|_| silent(self.0))
    }
    async fn create_shard(&self, _: Uuid) -> Result<Box<dyn ShardSink>, drive::Error> {
        Err(silent(self.0))
    }
    async fn read_shard(&self, _: Uuid, _: Range<u64>) -> Result<Bytes, drive::Error> {
        Err(silent(self.0))
    }
    async fn scan(
        &self,
        _: BucketId,
        _: &str,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<(String, KeyView)>, drive::Error> {
        Err(silent(self.0))
    }
    async fn tail(&self, _: BucketId, _: Lsn, _: usize) -> Result<Vec<Logged>, drive::Error> {
        Err(silent(self.0))
    }
    fn head(&self) -> watch::Receiver<Lsn> {
        watch::channel(0).1
    }
    fn space(&self) -> (u64, u64) {
        (0, 0)
    }
    async fn close(&self) {}
}

/// What a client learnt, and between which steps it learnt it.
#[derive(Debug)]
enum Learnt {
    /// An unconditional or (`create`) If-None-Match write was acked.
    Wrote {
        order: Order,
        ballot: Ballot,
        create: bool,
    },
    Purged(VersionId),
    /// Live versions with their place, and the place of the null register, purged or not.
    Saw {
        live: BTreeSet<Order>,
        null: Option<Order>,
    },
}
type Log = Arc<Mutex<Vec<(u64, u64, Learnt)>>>;

#[derive(Clone, Copy, Debug)]
enum Plan {
    Put,
    Create,
    PutNull,
    PurgeNull,
    Purge(VersionId),
    Read,
}

async fn act(
    plan: Plan,
    objects: Objects,
    world: Arc<World>,
    log: Log,
    begun: Arc<Mutex<BTreeSet<VersionId>>>,
) -> Result<(), Error> {
    let start = world.now();
    let inner = &objects.0;
    let learnt = match plan {
        Plan::Read => {
            let records = inner.read_key(BUCKET, KEY).await?;
            let order = |r: &Record| r.version.birth.as_ref().map(|b| b.order.clone());
            let live = records.iter().filter(|r| r.version.is_live()).filter_map(order).collect();
            Learnt::Saw { live, null: records.iter().find(|r| r.id().is_null()).and_then(order) }
        }
        Plan::Purge(id) => {
            begun.lock().unwrap().insert(id);
            let mut version = Version::blank(KEY, id);
            version.purges = Stamp::new(inner.clock.tick(Hlc::ZERO), inner.origin.clone()).into();
            inner.join_behind(BUCKET, version, |_| 0).await?;
            Learnt::Purged(id)
        }
        Plan::Put | Plan::Create | Plan::PutNull | Plan::PurgeNull => {
            let make = |hlc: Hlc, version_id, base| {
                let mut version = marker(KEY, Order { hlc, origin: inner.origin.clone(), version_id }, base);
                version.birth.as_mut().expect("a marker is born").kind = Kind::Object;
                if matches!(plan, Plan::PurgeNull) {
                    version.purges = Stamp::new(hlc, inner.origin.clone()).into();
                }
                version
            };
            let conditions = super::Conditions { if_none_match: true, if_match: None };
            let test = |records: &[Record]| conditions_hold(records, &conditions);
            let create = matches!(plan, Plan::Create);
            let id = if matches!(plan, Plan::Put | Plan::Create) { NewId::Fresh } else { NewId::Null };
            let blob = Blob {
                id: Uuid::nil(),
                size_bytes: 1,
                k: 1,
                m: 1,
                first: 0,
                stripe_bytes: 1,
                unknown: Fields::default(),
            };
            let blobs = if matches!(plan, Plan::PurgeNull) { vec![] } else { vec![blob] };
            let data = Data::held(blobs, 0);
            let test = create.then_some(&test as Test<'_>);
            let draft = Draft { bucket: BUCKET, key: KEY, id, make: &make, data, test, traceparent: None };
            let record = inner.write(draft).await?;
            let order = record.version.birth.expect("it was written with its birth").order;
            Learnt::Wrote { order, ballot: record.ballot, create }
        }
    };
    log.lock().unwrap().push((start, world.now(), learnt));
    Ok(())
}

/// One walk; the error is what was violated.
fn walk(seed: u64, (n, k): (usize, usize), accepts_linger: bool, bug: Bug) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async move {
        let mut dice = Dice(seed);
        let clock: Arc<dyn Clock> = Arc::new(WorldClock(AtomicU64::new(1_000_000)));
        let hlc = HlcClock::new(clock.clone(), Hlc::ZERO);
        let held = || Held { gate: Gate { epoch: 1, ..Gate::default() }, ..Held::default() };
        let world = Arc::new(World {
            drives: Mutex::new((0..n).map(|_| held()).collect()),
            bag: Mutex::default(),
            step: AtomicU64::new(0),
            accepts_linger: AtomicBool::new(accepts_linger),
            bug,
        });
        // Each asks other drives first, as lists do; of four, every second one asks none that the last one asked.
        let started = Cell::new(0);
        let process = || {
            let first = [0, 2, 1, 3][started.replace(started.get() + 1) % 4];
            let drive = |slot| Arc::new(ModelDrive(slot % n, world.clone())) as Arc<dyn Drive>;
            let drives = (first..first + n).map(drive).collect();
            let mut objects = Objects::new(drives, n - k, clock.clone(), Origin::new("here"));
            // One clock for all: coordinators never share a ballot.
            Arc::get_mut(&mut objects.0).expect("nobody else has it").clock = hlc.clone();
            objects
        };
        let (log, begun) = (Log::default(), Arc::new(Mutex::new(BTreeSet::new())));
        let start = |plan| tokio::spawn(act(plan, process(), world.clone(), log.clone(), begun.clone()));

        let mut first = None;
        if dice.roll(2) == 0 {
            let task = start(Plan::Put);
            run(&world, &mut dice, &mut [task], false).await;
            first = log.lock().unwrap().iter().find_map(|(_, _, l)| match l {
                Learnt::Wrote { order, .. } => Some(order.version_id),
                _ => None,
            });
        }
        let mut tasks: Vec<_> = (0..3 + dice.roll(5))
            .map(|_| match (dice.roll(8), first) {
                (0 | 1, _) => Plan::Create,
                (2, _) => Plan::Put,
                (3, _) => Plan::PutNull,
                (4, _) if dice.roll(2) == 0 => Plan::PurgeNull,
                (5, Some(id)) => Plan::Purge(id),
                _ => Plan::Read,
            })
            .map(start)
            .collect();
        run(&world, &mut dice, &mut tasks, true).await;
        for _ in 0..2 {
            let seen = log.lock().unwrap().len();
            run(&world, &mut dice, &mut [start(Plan::Read)], false).await;
            if log.lock().unwrap().len() == seen {
                return Err("a read fails though every drive answers".to_owned());
            }
        }
        judge(&log.lock().unwrap(), &begun.lock().unwrap(), &world.drives.lock().unwrap())
    })
}

type Task = tokio::task::JoinHandle<Result<(), Error>>;

/// Delivers until all clients are done; `rough`: not always, not once, not in order.
async fn run(world: &World, dice: &mut Dice, tasks: &mut [Task], rough: bool) {
    let (mut idle, mut lingering) = (0, 0);
    while idle < 40 {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        world.step.fetch_add(1, Ordering::Relaxed);
        let picked = {
            let mut bag = world.bag.lock().unwrap();
            let len = bag.len();
            let at = (len > 0).then(|| dice.roll(len));
            // So often in a row means that nothing else is on its way.
            if lingering < 24 && at.is_some_and(|at| world.lingers(&bag[at].1)) {
                lingering += 1;
                continue;
            }
            lingering = 0;
            at.map(|at| bag.swap_remove(at))
        };
        let Some((slot, ask)) = picked else {
            idle = if tasks.iter().all(|t| t.is_finished()) { idle + 10 } else { idle + 1 };
            continue;
        };
        idle = 0;
        match (rough.then(|| dice.roll(100)), ask) {
            (Some(0..8), Ask::Call(request, answer)) => {
                world.bag.lock().unwrap().push((slot, Ask::Call(request.clone(), None)));
                world.deliver(slot, Ask::Call(request, answer), true);
            }
            (Some(8..14), ask) => world.deliver(slot, ask, false),
            (Some(14..20), Ask::Call(request, answer)) => {
                drop(answer);
                world.bag.lock().unwrap().push((slot, Ask::Call(request, None)));
            }
            (Some(20..24), _) => {}
            // A delete often stops short: only one that few drives have is ever shown by some and not by others.
            (Some(30..60), Ask::Call(Request { op: Op::Join { .. }, .. }, _)) => {}
            (Some(24..28), ask) => {
                let drives = world.drives.lock().unwrap().len();
                world.restart(dice.roll(drives));
                world.deliver(slot, ask, true);
            }
            (Some(28..30), ask) => {
                tasks[dice.roll(tasks.len())].abort();
                world.deliver(slot, ask, true);
            }
            (_, ask) => world.deliver(slot, ask, true),
        }
    }
}

fn judge(log: &[(u64, u64, Learnt)], begun: &BTreeSet<VersionId>, drives: &[Held]) -> Result<(), String> {
    let sights = |after: u64| {
        log.iter().filter_map(move |(start, _, l)| match l {
            Learnt::Saw { live, null } if *start > after => Some((live, null)),
            _ => None,
        })
    };
    let sees = |live: &BTreeSet<Order>, id: VersionId| live.iter().any(|o| o.version_id == id);
    for (start, end, learnt) in log {
        match learnt {
            Learnt::Wrote { order, ballot, .. } => {
                let id = order.version_id;
                // Rule 17 forgets a null below an acked one, so a late reader may abort what is history
                // anyway; below nothing that is acked it must not.
                let newer = |r: &Record| r.acked && r.version.birth.as_ref().is_some_and(|b| b.order > *order);
                let is_history =
                    id.is_null() && drives.iter().flat_map(|d| &d.view.records).any(|r| r.id().is_null() && newer(r));
                if !is_history && drives.iter().any(|d| d.view.aborted(id, *ballot)) {
                    return Err(format!("{id} at {ballot:?} was acked and aborted"));
                }
                for (live, null) in sights(*end) {
                    let lost = if id.is_null() {
                        null.as_ref() < Some(order)
                    } else {
                        !begun.contains(&id) && !live.contains(order)
                    };
                    if lost {
                        return Err(format!("{id} was acked and then not seen"));
                    }
                }
            }
            Learnt::Purged(id) => {
                if sights(*end).any(|(live, _)| sees(live, *id)) {
                    return Err(format!("{id} was purged and then seen"));
                }
            }
            Learnt::Saw { live, null } => {
                let written = |l: &Learnt| match l {
                    Learnt::Wrote { order, .. } if !order.version_id.is_null() => Some(order.version_id),
                    _ => None,
                };
                // Deleted by somebody who may never learn it: whoever was shown that decides it for all.
                let before = log.iter().filter(|(_, end, _)| end < start).filter_map(|(_, _, l)| written(l));
                for gone in before.filter(|id| !sees(live, *id)) {
                    if sights(*end).any(|(later, _)| sees(later, gone)) {
                        return Err(format!("{gone} was seen to be gone and then seen"));
                    }
                }
                for (later, later_null) in sights(*end) {
                    if live
                        .iter()
                        .any(|o| !o.version_id.is_null() && !begun.contains(&o.version_id) && !later.contains(o))
                        || later_null < null
                    {
                        return Err("what was seen is not seen any more".to_owned());
                    }
                }
            }
        }
    }
    let winners = log.iter().filter(|(_, _, l)| matches!(l, Learnt::Wrote { create: true, .. })).count();
    let cleared = !begun.is_empty()
        || log.iter().any(|(_, _, l)| matches!(l, Learnt::Wrote { order, .. } if order.version_id.is_null()));
    if winners > 1 && !cleared {
        return Err(format!("{winners} writers each found the key absent"));
    }
    Ok(())
}

fn walks(set: (usize, usize), accepts_linger: bool, seeds: Range<u64>, bug: Bug) -> Option<String> {
    let told = |seed, why| format!("seed {seed}, (drives, k) {set:?}, accepts linger {accepts_linger}: {why}");
    seeds.into_iter().find_map(|seed| walk(seed, set, accepts_linger, bug).err().map(|why| told(seed, why)))
}

#[test]
fn three_drives_keep_every_promise_in_random_walks() {
    assert_eq!(walks((3, 1), false, 0..1_500, Bug::None), None);
    assert_eq!(walks((3, 1), true, 0..500, Bug::None), None);
}

#[test]
fn four_drives_keep_every_promise_in_random_walks() {
    assert_eq!(walks((4, 2), false, 0..1_500, Bug::None), None);
    assert_eq!(walks((4, 2), true, 0..500, Bug::None), None);
}

/// Each over seeds that pass with all rules in place, which the walks above prove.
#[test]
fn a_rule_left_out_is_noticed() {
    for (bug, name, set, accepts_linger, seeds) in [
        (Bug::DenialWithoutPromise, "denial without promise", (3, 1), true, 0..500),
        (Bug::DenialWithoutPromise, "denial without promise", (4, 2), true, 0..500),
        (Bug::AbortByVersion, "abort by version", (3, 1), false, 0..1_500),
        (Bug::CeilingLost, "ceiling lost", (3, 1), false, 0..1_500),
        (Bug::AcceptBelowPromise, "accept below the promise", (3, 1), false, 0..1_500),
        (Bug::SettledUnasked, "settled unasked", (4, 2), false, 0..1_500),
    ] {
        assert!(walks(set, accepts_linger, seeds, bug).is_some(), "{name} passes");
    }
}
