//! How a record becomes decided: plain writes (rules 10 to 12) and conditional ones (rules 13, 14).
//!
//! Owns the fan-out to the drives and the coordinator's loop around `quorum::writer`. Keeps no lock:
//! exclusion is ballots and promises only. `put`, `delete`, `apply` and the document store call it.
use super::resolve::newest;
use super::{Error, Inner};
use crate::drive;
use crate::entropy;
use crate::object::blob::Data;
use crate::quorum::participant::{Op, Reply, Request, Verdict};
use crate::quorum::reader::{Fate, Want};
use crate::quorum::writer::{Progress, Tally};
use crate::record::{BucketId, Coded, Record};
use crate::trace::{self, Work};
use crate::version::{Ballot, Hlc, Order, Version, VersionId};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

/// Attempts of one write before its client is told to come back: with a pause that doubles up to
/// [`PAUSE_MAX_MILLIS`] this is about two seconds of contention on one key.
const ATTEMPTS_MAX: u32 = 40;
const PAUSE_MAX_MILLIS: u64 = 64;

/// A test of the decided records of the key, greatest order first, on which a write depends.
pub(crate) type Test<'a> = &'a (dyn Fn(&[Record]) -> Result<(), Error> + Sync);

/// Makes the version for one attempt: its clock reading, its id, and the newest version's order.
pub(crate) type Make<'a> = &'a (dyn Fn(Hlc, VersionId, Option<Order>) -> Version + Sync);

/// The id a draft is written under.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NewId {
    /// A fresh id, minted once for all attempts.
    Fresh,
    /// The null version.
    Null,
    /// An id minted elsewhere.
    Given(VersionId),
}

/// A record on its way to be decided.
pub(crate) struct Draft<'a> {
    pub(crate) bucket: BucketId,
    pub(crate) key: &'a str,
    pub(crate) id: NewId,
    pub(crate) make: Make<'a>,
    pub(crate) data: Data,
    pub(crate) test: Option<Test<'a>>,
    pub(crate) traceparent: Option<String>,
}

impl Inner {
    /// Writes the draft and returns the record as decided; a write quorum has it synced.
    ///
    /// If the future is dropped the outcome is unknown: the record may still take effect, once.
    ///
    /// # Errors
    /// - What `test` returned: nothing was written.
    /// - [`Error::Unavailable`]: no write quorum, the outcome is unknown.
    /// - [`Error::Full`]: no room on so many drives that there is no write quorum.
    pub(crate) async fn write(&self, draft: Draft<'_>) -> Result<Record, Error> {
        let id = match draft.id {
            NewId::Fresh => VersionId::from_uuid(entropy::id_at(self.clock.now_millis())),
            NewId::Null => VersionId::NULL,
            NewId::Given(id) => id,
        };
        let traced = trace::commit(id, draft.traceparent.as_deref());
        let written = self.write_as(id, &draft, traced.as_deref()).await;
        if let (Some(work), Err(e)) = (traced, &written) {
            work.failed(&e.to_string());
        }
        written
    }

    async fn write_as(&self, id: VersionId, draft: &Draft<'_>, work: Option<&dyn Work>) -> Result<Record, Error> {
        let mut floor = Ballot::ZERO;
        for attempt in 0..ATTEMPTS_MAX {
            self.pause(attempt, floor).await;
            let (ballot, base, tested) = match draft.test {
                None => {
                    let base = self.base(draft.bucket, draft.key).await?;
                    let above = base.as_ref().map_or(Hlc::ZERO, |(order, ballot)| order.hlc.max(*ballot));
                    (self.clock.tick(floor.max(above)), base.map(|(order, _)| order), None)
                }
                Some(test) => match self.prepare(draft, floor).await? {
                    Prepared::Promised { ballot, records } => {
                        test(&records)?;
                        let tested = newest(&records).map_or(Ballot::ZERO, |r| r.ballot);
                        // By order, not by ballot: a replica that came late stands on top and may be old.
                        let births = records.iter().filter_map(|r| r.version.birth.as_ref());
                        let base = births.map(|b| b.order.clone()).max();
                        (ballot, base, Some(tested))
                    }
                    Prepared::Stale { max } => {
                        floor = max;
                        continue;
                    }
                },
            };
            let mut record = Record::new(draft.bucket, (draft.make)(ballot, id, base), ballot);
            record.tested = tested;
            record.blobs = draft.data.blobs.clone();
            record.missing = draft.data.missing;
            record.pending_since = self.clock.now_millis();
            record.traceparent = draft.traceparent.clone();
            let record = Coded::from(record);
            match self.accept(&record, &draft.data, work).await? {
                None => return Ok(Record { acked: true, ..(*record).clone() }),
                Some(max) => floor = max.max(ballot),
            }
        }
        Err(Error::Unavailable(format!("{ATTEMPTS_MAX} attempts met other writers of the key")))
    }

    /// Sends one attempt to all drives. `None`: decided. `Some(max)`: retired, a ballot above may try.
    ///
    /// A drive that lacks its shard is fenced instead: it cannot vouch for the bytes, but its promise may
    /// still help to retire the attempt. It gets the record, in debt, once that is decided.
    async fn accept(&self, record: &Coded, data: &Data, work: Option<&dyn Work>) -> Result<Option<Ballot>, Error> {
        let mut asked = self.ask_all(record.bucket, record.key(), |slot| match data.may_vouch(slot) {
            true => Op::Accept { record: record.clone(), shards: data.shards_of(slot) },
            false => Op::Fence { version: record.id(), ballot: record.ballot },
        });
        match asked.settle().await {
            Progress::Held => {
                if let Some(work) = work {
                    work.acked(asked.tally.holders(), self.drives.len());
                }
                self.follow(asked, record, data);
                Ok(None)
            }
            Progress::Denied { max } => match self.retire(record).await? {
                Fate::Committed => Ok(None),
                Fate::Aborted | Fate::Tombstoned | Fate::Superseded => Ok(Some(max)),
            },
            Progress::Unknown | Progress::Open => Err(asked.error()),
        }
    }

    /// Rule 12: an attempt that was denied is aborted at W before another begins (trace H3). Where that
    /// fails it is resolved as a reader would.
    async fn retire(&self, record: &Record) -> Result<Fate, Error> {
        match self.abort(record.bucket, record.key(), record.id(), record.ballot).await {
            Ok(()) => Ok(Fate::Aborted),
            Err(_) => self.resolve(record).await,
        }
    }

    /// Rules 6 and 23: an abort counts once W drives hold it.
    pub(crate) async fn abort(
        &self,
        bucket: BucketId,
        key: &str,
        version: VersionId,
        ballot: Ballot,
    ) -> Result<(), Error> {
        let mut asked = self.ask_all(bucket, key, |_| Op::Abort { version, ballot });
        asked.refuse_held = true;
        match asked.settle().await {
            Progress::Held => {
                self.background(1, asked.drain());
                Ok(())
            }
            _ => Err(asked.error()),
        }
    }

    /// Rule 13: promises of N-W+1 drives and the decided state under them.
    async fn prepare(&self, draft: &Draft<'_>, floor: Ballot) -> Result<Prepared, Error> {
        let ballot = self.clock.tick(floor);
        let mut asked = self.ask_all(draft.bucket, draft.key, |_| Op::Prepare { ballot });
        let (mut views, mut max) = (Vec::new(), Ballot::ZERO);
        while views.len() < self.quorum.read() {
            match asked.next().await {
                Some((slot, Some(reply))) => match reply.verdict {
                    Verdict::State(view) if reply.voting && reply.epoch == self.epoch => views.push((slot, view)),
                    Verdict::Stale { max: theirs } => max = max.max(theirs),
                    _ => {}
                },
                Some((_, None)) => {}
                None if max > Ballot::ZERO => return Ok(Prepared::Stale { max }),
                None => return Err(asked.error()),
            }
        }
        let records = self.settle_for(Want::All, draft.bucket, draft.key, views).await?;
        // A version born now must sort above what it was tested on.
        match records.iter().filter_map(|r| r.version.birth.as_ref()).map(|b| b.order.hlc).max() {
            Some(top) if top >= ballot => Ok(Prepared::Stale { max: top }),
            _ => Ok(Prepared::Promised { ballot, records }),
        }
    }

    /// The newest version one drive knows of: its order, and the greatest ballot of the key there. Too
    /// old an answer can only show a conflict too many or cost a second attempt, never hide anything.
    async fn base(&self, bucket: BucketId, key: &str) -> Result<Option<(Order, Ballot)>, Error> {
        let mut why = String::new();
        for drive in self.drives_from(key) {
            match drive.read_key(bucket, key).await {
                Ok(view) => {
                    let ballot = view.records.iter().map(|r| r.ballot).max().unwrap_or(Ballot::ZERO);
                    let order = view.records.iter().filter_map(|r| r.version.birth.as_ref()).map(|b| &b.order).max();
                    return Ok(order.map(|o| (o.clone(), ballot)));
                }
                Err(err) => why = err.to_string(),
            }
        }
        Err(Error::Unavailable(why))
    }

    /// After the ack: stragglers finish, all are told that the record counts, and a drive that refused
    /// it because of a concurrent write gets it by insert, which needs no promise (rule 8).
    fn follow(&self, asked: Asked, record: &Coded, data: &Data) {
        let acks =
            self.ask_all(record.bucket, record.key(), |_| Op::Ack { version: record.id(), ballot: record.ballot });
        let (drives, epoch, data, metrics) = (self.drives.clone(), self.epoch, data.clone(), self.metrics.clone());
        let record = record.clone();
        let bytes: usize = data.shards.iter().flatten().map(|(_, shard)| shard.len()).sum();
        self.background(bytes, async move {
            let (tally, ()) = futures::join!(asked.drain_counting(), acks.drain());
            let mut holders = tally.holders();
            for drive in drives.iter().filter(|d| tally.refused(d.slot())) {
                let acked = Record { acked: true, ..(*record).clone() };
                let op = Op::Insert { record: acked.into(), shards: data.shards_of(drive.slot()) };
                let request = Request { epoch, bucket: record.bucket, key: record.key().to_owned(), op };
                match drive.call(request).await {
                    Ok(reply) => holders += usize::from(reply.verdict == Verdict::Ok),
                    Err(err) => {
                        tracing::debug!(drive = drive.slot(), %err, "A drive stays without a decided record until it heals.");
                    }
                }
            }
            if holders < drives.len() || record.missing != 0 {
                metrics.committed_below_target();
            }
        });
    }

    /// Lets a rival finish: nothing before the first attempt, then longer each time, spread by ballot.
    pub(super) async fn pause(&self, attempt: u32, floor: Ballot) {
        if attempt > 0 {
            let longest = (1u64 << attempt.min(6)).min(PAUSE_MAX_MILLIS);
            let spread = floor.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            self.clock.sleep(1 + (spread + u64::from(attempt)) % longest).await;
        }
    }

    /// Asks one question of every drive at once.
    pub(crate) fn ask_all(&self, bucket: BucketId, key: &str, op: impl Fn(usize) -> Op) -> Asked {
        self.ask_some(bucket, key, |_| true, op)
    }

    /// Asks one question of the drives for which `whom` holds; the others count as silent.
    pub(crate) fn ask_some(
        &self,
        bucket: BucketId,
        key: &str,
        whom: impl Fn(usize) -> bool,
        op: impl Fn(usize) -> Op,
    ) -> Asked {
        let mut tally = Tally::new(self.quorum, self.epoch);
        let calls = FuturesUnordered::new();
        for drive in &self.drives {
            let slot = drive.slot();
            if !whom(slot) {
                tally.reply(slot, None);
                continue;
            }
            let request = Request { epoch: self.epoch, bucket, key: key.to_owned(), op: op(slot) };
            let drive = drive.clone();
            calls.push(Box::pin(async move { (slot, drive.call(request).await) }) as Call);
        }
        Asked { calls, tally, full: 0, refuse_held: false, why: None }
    }
}

enum Prepared {
    Promised { ballot: Ballot, records: Vec<Record> },
    Stale { max: Ballot },
}

type Call = BoxFuture<'static, (usize, Result<Reply, drive::Error>)>;

/// One question under way to many drives.
pub(crate) struct Asked {
    calls: FuturesUnordered<Call>,
    pub(super) tally: Tally,
    /// Drives without room.
    full: usize,
    /// The question is an abort: "held and acked" is not a yes but the alarm of rule 6.
    refuse_held: bool,
    why: Option<String>,
}

impl Asked {
    /// The next reply, counted; `None` at the end, `(slot, None)` for a drive that gave no answer.
    pub(crate) async fn next(&mut self) -> Option<(usize, Option<Reply>)> {
        let (slot, answer) = self.calls.next().await?;
        let reply = match answer {
            Ok(reply) if self.refuse_held && matches!(reply.verdict, Verdict::Held { acked: true }) => {
                tracing::error!(drive = slot, "An acked attempt was to be aborted; refused.");
                self.why = Some(format!("drive {slot} holds the attempt as acked"));
                None
            }
            Ok(reply) => Some(reply),
            Err(err) => {
                self.full += usize::from(matches!(err, drive::Error::Full { .. }));
                self.why = Some(err.to_string());
                None
            }
        };
        self.tally.reply(slot, reply.as_ref());
        Some((slot, reply))
    }

    /// Waits until the question is answered or cannot be any more; never for more replies than that.
    pub(crate) async fn settle(&mut self) -> Progress {
        while self.tally.progress() == Progress::Open && self.next().await.is_some() {}
        self.tally.progress()
    }

    /// Hears the rest.
    pub(crate) async fn drain(self) {
        self.drain_counting().await;
    }

    async fn drain_counting(mut self) -> Tally {
        while self.next().await.is_some() {}
        self.tally
    }

    /// Why there is no answer.
    pub(crate) fn error(&self) -> Error {
        if self.full > 0 {
            return Error::Full;
        }
        let why = self.why.clone().unwrap_or_else(|| "no write quorum could be reached".into());
        Error::Unavailable(format!("{} hold it; {why}", self.tally.holders()))
    }
}
