//! The committer: the one thread that judges requests, writes the log and updates the index.
//!
//! It drains what waits, judges it request by request against the index and what this batch already
//! changed, writes all effects at once, syncs once, and only then answers. It never asks another
//! drive. Group commit comes from draining, not from a timer: a lone request never waits for company.
use super::segment::{self, Entry, Placed};
use super::{Error as LogError, Log};
use crate::drive::disk::Disk;
use crate::drive::format::Superblock;
use crate::drive::index::Index;
use crate::drive::index::held::Held;
use crate::drive::index::table::Rows;
use crate::drive::moves::Moves;
use crate::drive::{Error, Lsn};
use crate::metrics::Histogram;
use crate::quorum::participant::{Effect, Gate, Op, Reply, Request, Verdict, decide};
use crate::record::BucketId;
use crate::version::{Ballot, Hlc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

/// Requests in one batch: bounds the time to answer the first of them.
const BATCH_MAX: usize = 512;
/// Bytes of inline shards in one batch, beyond which the rest waits for the next.
const BATCH_BYTES: usize = 4 << 20;
/// An ack flag is durable at the latest this long after it was answered.
const ACK_FLUSH: Duration = Duration::from_millis(100);
/// How far above a promise the ceiling is persisted: one superblock write in this time at most. After
/// a crash the drive's clock starts up to this far ahead.
const HEADROOM_MILLIS: u64 = 3_000;
/// Space never given to objects, so that deletes, acks and superblocks still fit on a full disk.
pub const SPACE_RESERVE: u64 = 64 << 20;
/// Records of hot keys kept decoded, per generation of the cache; about 2 KiB each.
const CACHED_RECORDS: usize = 1_024;
/// Promises kept per key; beyond them all keys promise the highest, which is always safe.
const PROMISES_MAX: usize = 16_384;

/// What the committer shares with the drive's handles.
pub struct State {
    /// Why the drive is offline.
    pub offline: OnceLock<String>,
    /// The last lsn that is durable and in the index.
    pub head: watch::Sender<Lsn>,
    /// Who waits for changes of which bucket.
    pub moves: Moves,
    /// Bits of the persisted ceiling.
    pub ceiling: std::sync::atomic::AtomicU64,
    /// Seconds of each sync of the log.
    pub fsync_seconds: Histogram,
    /// Records that shared a sync.
    pub group_records: Histogram,
}

/// A request on its way.
pub struct Job {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes; the asker may be gone.
    pub answer: oneshot::Sender<Result<Reply, Error>>,
    /// The room it takes in the queue, given back with the answer.
    pub room: OwnedSemaphorePermit,
}

/// What the thread is sent.
pub enum Message {
    /// Judge this.
    Call(Job),
    /// Drain, sync, persist the exact ceiling, end.
    Close(oneshot::Sender<()>),
}

/// Everything the thread owns.
pub struct Committer {
    /// Slot of the drive, for errors.
    pub slot: usize,
    /// The drive's files.
    pub disk: Arc<dyn Disk>,
    /// The end of the log.
    pub log: Log,
    /// The derived rows.
    pub index: Index,
    /// What the drive says of itself.
    pub superblock: Superblock,
    /// Seen from outside.
    pub state: Arc<State>,
    /// Promises since the start.
    pub promises: Promises,
    /// Hot keys.
    pub cache: Cache,
    /// Buckets with changes that the head has not passed yet.
    pub unshown: BTreeSet<BucketId>,
}

/// One effect of a batch, encoded.
struct Change {
    entry: Entry,
    placed: Placed,
}

/// What a batch will write and answer.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    changes: Vec<Change>,
    rows: Rows,
    answers: Vec<(Job, Verdict)>,
    raised: Ballot,
    needs_sync: bool,
}

impl Committer {
    /// Works until closed, or until every handle is gone.
    pub fn run(mut self, queue: &Receiver<Message>) {
        let mut patience = ACK_FLUSH;
        loop {
            let unsynced = self.log.synced() + 1 < self.log.next();
            // Halved with each batch of acks alone, so that the waits of one flag never add up to more.
            patience = if unsynced { patience / 2 } else { ACK_FLUSH };
            let first =
                if unsynced { queue.recv_timeout(patience) } else { queue.recv().map_err(RecvTimeoutError::from) };
            let closing = match first {
                Ok(Message::Call(job)) => self.drain(job, queue),
                Ok(Message::Close(done)) => Some(Some(done)),
                Err(RecvTimeoutError::Timeout) => {
                    self.flush();
                    None
                }
                Err(RecvTimeoutError::Disconnected) => Some(None),
            };
            if let Some(done) = closing {
                self.close();
                // The asker may have given up waiting.
                let _ = done.map(|done| done.send(()));
                return;
            }
        }
    }

    /// Takes what waits and commits it; tells of a close met on the way.
    fn drain(&mut self, first: Job, queue: &Receiver<Message>) -> Option<Option<oneshot::Sender<()>>> {
        let mut bytes = weight(&first.request);
        let mut jobs = vec![first];
        let mut closing = None;
        while closing.is_none() && jobs.len() < BATCH_MAX && bytes < BATCH_BYTES {
            match queue.try_recv() {
                Ok(Message::Call(job)) => {
                    bytes += weight(&job.request);
                    jobs.push(job);
                }
                Ok(Message::Close(done)) => closing = Some(Some(done)),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        self.commit(jobs);
        closing
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        if let Some(why) = self.state.offline.get() {
            return jobs
                .into_iter()
                .for_each(|job| answer(job, Err(Error::Offline { slot: self.slot, why: why.clone() })));
        }
        let epoch = jobs.iter().map(|j| j.request.epoch).max().unwrap_or(0);
        if epoch > self.superblock.epoch {
            // A newer epoch is adopted durably before anything is judged under it.
            self.superblock.epoch = epoch;
            if let Err(e) = self.superblock.store(&*self.disk) {
                self.go_offline(&format!("write the superblock: {e}"));
                return self.commit(jobs);
            }
        }
        let mut batch = self.judge(jobs);
        match self.write(&mut batch) {
            Ok(()) => {
                self.cache.trim(batch.changes.len());
                self.reply(batch);
            }
            Err(error) => {
                // The cache may hold what was not written; the index never does.
                self.cache = Cache::default();
                if !matches!(error, Error::Full { .. }) {
                    self.go_offline(&error.to_string());
                }
                let slot = self.slot;
                for (job, _) in batch.answers {
                    answer(
                        job,
                        Err(if matches!(error, Error::Full { .. }) { Error::Full { slot } } else { self.offline() }),
                    );
                }
            }
        }
    }

    /// Judges request by request; nothing is written yet.
    fn judge(&mut self, jobs: Vec<Job>) -> Batch {
        let mut batch = Batch::default();
        let full = self.disk.space().is_ok_and(|(free, _)| free < SPACE_RESERVE);
        for mut job in jobs {
            if full && grows(&job.request) {
                answer(job, Err(Error::Full { slot: self.slot }));
                continue;
            }
            match self.judge_one(&mut job.request, &mut batch) {
                Ok(verdict) => batch.answers.push((job, verdict)),
                Err(e) => answer(job, Err(Error::Corrupt { slot: self.slot, what: e.to_string() })),
            }
        }
        batch
    }

    fn judge_one(&mut self, request: &mut Request, batch: &mut Batch) -> Result<Verdict, crate::drive::index::Error> {
        let key = (request.bucket, std::mem::take(&mut request.key));
        let held = self.cache.held(&self.index, &key)?;
        let gate = Gate {
            epoch: self.superblock.epoch,
            promise: self.promises.of(&key),
            ceiling_at_start: self.promises.floor,
            place: match &request.op {
                Op::Join { version, .. } => held.feed.get(&version.id).copied().unwrap_or(0),
                _ => 0,
            },
        };
        let decision = decide(&held.view, &gate, request);
        if let Some(promise) = decision.promise {
            batch.raised = batch.raised.max(promise);
            self.promises.raise(key.clone(), promise);
        }
        if let Some(effect) = decision.effect {
            if let Effect::Put { record, .. } = &effect {
                batch.raised = batch.raised.max(record.ballot);
            }
            batch.needs_sync |= !matches!(request.op, Op::Ack { .. } | Op::Settle { .. });
            let entry = Entry { bucket: key.0, key: key.1, effect };
            let lsn = self.log.next() + batch.changes.len() as u64;
            let unsynced = u32::try_from(lsn - self.log.synced() - 1).expect("acks are synced within 100 ms");
            let placed = segment::encode(&mut batch.bytes, self.log.incarnation(), lsn, unsynced, &entry);
            Index::stage(held, lsn, &entry, &mut batch.rows);
            batch.changes.push(Change { entry, placed });
        }
        Ok(decision.verdict)
    }

    /// Makes the batch durable and shows it.
    fn write(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let offline =
            |what: &str, e: &dyn std::fmt::Display| Error::Offline { slot: self.slot, why: format!("{what}: {e}") };
        self.promises.highest = self.promises.highest.max(batch.raised);
        if batch.raised > self.superblock.ceiling {
            self.superblock.ceiling = Hlc::from_millis(batch.raised.millis() + HEADROOM_MILLIS);
            self.superblock.store(&*self.disk).map_err(|e| offline("write the superblock", &e))?;
            self.state.ceiling.store(self.superblock.ceiling.bits(), std::sync::atomic::Ordering::Release);
        }
        if batch.changes.is_empty() {
            return Ok(());
        }
        let at = self.log.append(&batch.bytes, batch.changes.len() as u64).map_err(|e| match e {
            LogError::Full => Error::Full { slot: self.slot },
            LogError::Io(e) => offline("write the log", &e),
        })?;
        if batch.needs_sync {
            let started = std::time::Instant::now();
            self.log.sync().map_err(|e| offline("sync the log", &e))?;
            self.state.fsync_seconds.observe(started.elapsed().as_secs_f64());
            self.state.group_records.observe(batch.changes.len() as f64);
        }
        self.unshown.extend(batch.changes.iter().map(|change| change.entry.bucket));
        // Acks alone are shown before their sync: the flag only says what other logs hold durably.
        let mut rows = std::mem::take(&mut batch.rows);
        for change in &batch.changes {
            Index::stage_shards(&change.entry, &change.placed, at, &mut rows);
        }
        self.index.commit(rows, self.log.next() - 1).map_err(|e| offline("update the index", &e))?;
        self.show();
        Ok(())
    }

    /// Moves the head to what is durable, and wakes who waits for what it passes.
    fn show(&mut self) {
        let synced = self.log.synced();
        if self.state.head.send_if_modified(|head| std::mem::replace(head, synced) != synced) {
            self.state.moves.tell(&std::mem::take(&mut self.unshown), synced);
        }
    }

    fn reply(&self, batch: Batch) {
        let (incarnation, epoch) = (self.superblock.incarnation, self.superblock.epoch);
        for (job, verdict) in batch.answers {
            answer(job, Ok(Reply { incarnation, epoch, voting: true, verdict }));
        }
    }

    fn flush(&mut self) {
        match self.log.sync() {
            Ok(()) => self.show(),
            Err(e) => self.go_offline(&format!("sync the log: {e}")),
        }
    }

    /// A drive that failed once writes nothing more: what its medium holds is unknown.
    fn close(&mut self) {
        if self.state.offline.get().is_none() {
            self.flush();
            let exact = self.promises.highest.max(self.promises.floor);
            if exact < self.superblock.ceiling {
                self.superblock.ceiling = exact;
                // The ceiling on the medium stays above every promise, should this fail.
                drop(self.superblock.store(&*self.disk));
            }
        }
        self.go_offline("closed");
    }

    fn go_offline(&self, why: &str) {
        if self.state.offline.set(why.to_owned()).is_ok() && why != "closed" {
            tracing::error!(drive = self.slot, why, "Drive is offline until it is opened again.");
        }
    }

    fn offline(&self) -> Error {
        Error::Offline { slot: self.slot, why: self.state.offline.get().cloned().unwrap_or_default() }
    }
}

/// Whether the request needs room that a full drive does not give. Deletes never do: markers and purges
/// live in the reserve, for without them no room could ever be made.
fn grows(request: &Request) -> bool {
    match &request.op {
        Op::Accept { record, .. } | Op::Forward { record, .. } | Op::Insert { record, .. } => {
            record.version.purged().is_none() && !record.version.is_delete_marker()
        }
        _ => false,
    }
}

/// Bytes of inline shards in a request.
pub fn weight(request: &Request) -> usize {
    match &request.op {
        Op::Accept { shards, .. } | Op::Forward { shards, .. } | Op::Insert { shards, .. } => {
            shards.iter().map(|(_, bytes)| bytes.len()).sum()
        }
        _ => 0,
    }
}

fn answer(job: Job, reply: Result<Reply, Error>) {
    // Whoever asked may be gone; what was decided stands.
    drop(job.answer.send(reply));
    drop(job.room);
}

type Key = (BucketId, String);

/// Promises by key since the start. They only rise; forgetting one means promising more to all.
pub struct Promises {
    by_key: BTreeMap<Key, Ballot>,
    /// Promised for every key.
    pub floor: Ballot,
    /// The highest ballot promised or held since the start.
    pub highest: Ballot,
}

impl Promises {
    /// After a start every key promises the ceiling (rule 9).
    pub fn new(ceiling: Ballot) -> Self {
        Promises { by_key: BTreeMap::new(), floor: ceiling, highest: ceiling }
    }
    fn of(&self, key: &Key) -> Ballot {
        self.by_key.get(key).copied().unwrap_or(Ballot::ZERO)
    }
    fn raise(&mut self, key: Key, to: Ballot) {
        if self.by_key.len() >= PROMISES_MAX && !self.by_key.contains_key(&key) {
            self.floor = self.floor.max(self.by_key.values().copied().max().unwrap_or(Ballot::ZERO));
            self.by_key.clear();
        }
        let promise = self.by_key.entry(key).or_default();
        *promise = (*promise).max(to);
    }
}

/// Hot keys, decoded: always what the index says plus what the running batch changed. Two generations;
/// when the young one is full the old one is forgotten.
#[derive(Default)]
pub struct Cache {
    young: BTreeMap<Key, Held>,
    old: BTreeMap<Key, Held>,
    records: usize,
}

impl Cache {
    /// What is held of a key, to be changed in step with the index.
    pub fn held(&mut self, index: &Index, key: &Key) -> Result<&mut Held, crate::drive::index::Error> {
        if !self.young.contains_key(key) {
            let held = match self.old.remove(key) {
                Some(held) => held,
                None => index.load(key.0, &key.1)?,
            };
            self.records += 1 + held.view.records.len();
            self.young.insert(key.clone(), held);
        }
        Ok(self.young.get_mut(key).expect("put there above"))
    }
    /// Forgets what is cold after `changes` were written; never within a batch, whose changes are
    /// nowhere else yet.
    pub fn trim(&mut self, changes: usize) {
        self.records += changes;
        if self.records > CACHED_RECORDS {
            self.records = 0;
            self.old = std::mem::take(&mut self.young);
        }
    }
}
