//! Open tails: reads the drives' logs behind a cursor, waits where there is nothing, shows what is settled.
//!
//! Decides nothing itself: `merge` says what may be shown, `object/resolve.rs` decides attempts nobody
//! finished. Never passes a place whose change it has not shown, and rather stalls. The replicator's
//! API and the store's own consumers call it.
use super::cursor::Position;
use super::merge::{Decided, Merged, Tail, Undecided, merge};
use super::{Batch, Cursor};
use crate::drive::{self, Drive, Lsn};
use crate::object::{Error, Inner, Objects};
use crate::record::BucketId;
use crate::version::Version;
use futures::future::{join_all, select_all};
use futures::stream::{self, StreamExt};
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Most changes in a batch, whatever the caller asks for: with records of a few KiB some MiB.
const BATCH_MAX: usize = 1_000;

/// How long a change below a write quorum may be on its way before it is resolved. A commit takes
/// milliseconds and its flag follows within 100 ms; resolving earlier would fence off writes in flight.
const GRACE: Duration = Duration::from_millis(150);

/// Pause between a drive's word that it has something new and reading all of them: one commit reaches
/// the drives within about this time, and their words make one round instead of one each. It is added to
/// the lag of a quiet feed; a busy one reads more changes a round.
const GATHER: Duration = Duration::from_millis(5);

/// How long a quiet feed waits before it looks whether enough drives still answer.
const RECHECK: Duration = Duration::from_secs(5);

/// How long a quiet feed keeps to itself that it passed changes which need no showing: those of the drives that log
/// later than others, as a rule, so that one word is enough for many.
const TELL: Duration = Duration::from_millis(50);

/// Attempts resolved at once.
const RESOLVES_AT_ONCE: usize = 16;

impl Objects {
    /// Changes of a bucket after `cursor` (`None`: from the beginning), at most `limit`; waits until
    /// there is one. Each acked change is shown at least once; a batch is sorted by clock reading. Where all that
    /// stood behind the cursor was shown before or came to nothing, the batch is empty and its place is behind it:
    /// a reader that kept its old place would see a backlog in it.
    ///
    /// # Errors
    /// - [`Error::Expired`]: the cursor is of another store; reconcile instead.
    /// - [`Error::Unavailable`]: too few drives answer to say that nothing is missing; call again.
    /// - [`Error::NoSuchBucket`]: also when it is deleted while the call waits, or made again under its name.
    pub async fn changes(&self, name: &str, cursor: Option<&Cursor>, limit: usize) -> Result<Batch, Error> {
        let mut buckets = self.0.buckets.changes();
        let bucket = self.bucket(name).await?.id;
        let batch = |events, position: &Position| Batch {
            events,
            cursor: position.to_cursor(),
            bucket: bucket.0.as_simple().to_string(),
        };
        let inner = &self.0;
        let mut position = inner.position(cursor)?;
        let mut moves: Vec<watch::Receiver<Lsn>> = inner.drives.iter().map(|d| d.moves(bucket)).collect();
        let limit = limit.clamp(1, BATCH_MAX);
        let mut waits_since: Option<Instant> = None;
        let mut everybody = true;
        let mut tells_at: Option<Instant> = None;
        loop {
            // What moves behind this is told again; what is at or below the heads will be seen.
            moves.iter_mut().for_each(watch::Receiver::mark_unchanged);
            let tails = inner.tails(bucket, &position, &inner.heads(), limit, everybody).await?;
            let mut merged = inner.merge(bucket, &tails, &position, limit, &Decided::new());
            let is_overdue = waits_since.is_some_and(|since| since.elapsed() >= GRACE);
            let overdue = inner.overdue(&merged.undecided, is_overdue);
            if !overdue.is_empty() {
                let decided = inner.decide(bucket, overdue, merged.settled.is_empty()).await?;
                merged = inner.merge(bucket, &tails, &position, limit, &decided);
            }
            merged.places.iter().for_each(|(slot, lsn)| position.set(*slot, *lsn));
            if !merged.settled.is_empty() {
                return Ok(batch(merged.settled.into_iter().map(|s| s.event).collect(), &position));
            }
            let is_passed = |t: &Tail| t.entries.first().is_some_and(|e| e.lsn <= position.place(t.slot));
            if tells_at.is_none() && tails.iter().any(is_passed) {
                tells_at = Some(Instant::now() + TELL);
            }
            let until_told = tells_at.map(|at| at.saturating_duration_since(Instant::now()));
            if until_told.is_some_and(|left| left.is_zero()) {
                return Ok(batch(Vec::new(), &position));
            }
            let patience = match merged.undecided.is_empty() {
                true => until_told.unwrap_or(RECHECK),
                false => GRACE.saturating_sub(waits_since.get_or_insert_with(Instant::now).elapsed()),
            };
            if merged.undecided.is_empty() {
                waits_since = None;
            }
            // A full page may have more behind it that no head will tell of.
            let has_more = tails.iter().any(|t| t.entries.len() >= limit);
            everybody = if has_more && merged.undecided.is_empty() {
                false
            } else {
                let moving = moved(&mut moves, patience);
                tokio::pin!(moving);
                let has_moved = loop {
                    tokio::select! {
                        has_moved = &mut moving => break has_moved,
                        // Of any bucket: no reason to read the logs of this one.
                        _ = buckets.changed() => if self.bucket(name).await?.id != bucket {
                            return Err(Error::NoSuchBucket(name.to_owned()));
                        }
                    }
                };
                !has_moved && until_told.is_none()
            };
        }
    }

    /// The place where the feed of a bucket ends now: what was acked before the call lies before it, what
    /// begins after it lies behind it. A change under way may be on either side.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`]: call again.
    pub async fn head(&self, bucket: &str) -> Result<Cursor, Error> {
        self.bucket(bucket).await?;
        let mut position = self.0.position(None)?;
        self.0.drives.iter().for_each(|d| position.set(d.slot(), *d.head().borrow()));
        Ok(position.to_cursor())
    }
}

impl Inner {
    pub(super) fn position(&self, cursor: Option<&Cursor>) -> Result<Position, Error> {
        let incarnations: Vec<_> = self.drives.iter().map(|d| d.incarnation()).collect();
        let Some(cursor) = cursor else { return Ok(Position::start(self.epoch, &incarnations)) };
        let mut position = Position::resume(cursor, self.epoch, &incarnations).map_err(|_| Error::Expired)?;
        for drive in &self.drives {
            // A log that is shorter than the cursor remembers was set back: what it holds is read anew.
            if position.place(drive.slot()) > *drive.head().borrow() {
                position.set(drive.slot(), 0);
            }
        }
        Ok(position)
    }

    /// Where the drives' logs end, read before what they hold.
    pub(super) fn heads(&self) -> Vec<Lsn> {
        self.drives.iter().map(|drive| *drive.head().borrow()).collect()
    }

    /// What the drives logged behind `position`, up to `heads`. A drive whose head is not beyond it is not asked,
    /// unless `everybody` is.
    pub(super) async fn tails(
        &self,
        bucket: BucketId,
        position: &Position,
        heads: &[Lsn],
        limit: usize,
        everybody: bool,
    ) -> Result<Vec<Tail>, Error> {
        let mut asked = Vec::new();
        let mut answers = 0;
        for (drive, head) in self.drives.iter().zip(heads.iter().copied()) {
            let after = position.place(drive.slot());
            if everybody || head > after {
                asked.push(tail(drive.as_ref(), bucket, after, head, limit));
            } else {
                answers += 1;
            }
        }
        let (mut tails, mut last_error) = (Vec::with_capacity(asked.len()), None);
        for answer in join_all(asked).await {
            match answer {
                Ok(tail) => tails.push(tail),
                Err(err) => last_error = Some(err),
            }
        }
        answers += tails.len();
        match last_error {
            Some(err) if answers < self.quorum.read() => {
                let why = format!("{answers} of {} drives for the feed: {err}", self.quorum.read());
                Err(Error::Unavailable(why))
            }
            _ => Ok(tails),
        }
    }

    fn merge(&self, bucket: BucketId, tails: &[Tail], position: &Position, limit: usize, decided: &Decided) -> Merged {
        let mut sightings = self.sightings.lock().unwrap_or_else(PoisonError::into_inner);
        let is_past = |version: &Version| sightings.is_past(bucket, version, position);
        let merged = merge(tails, self.quorum.write(), limit, &is_past, decided);
        for settled in &merged.settled {
            sightings.note(bucket, &settled.event.version, &settled.seen, position);
        }
        merged
    }

    /// The undecided attempts that have had their time.
    fn overdue(&self, undecided: &[Undecided], all: bool) -> Vec<Undecided> {
        let now = self.clock.now_millis();
        let grace = u64::try_from(GRACE.as_millis()).expect("a constant below a second");
        undecided.iter().filter(|u| all || u.begun.millis() + grace < now).cloned().collect()
    }

    /// Asks what became of these, the drives that show them among others: those of any read quorum may not
    /// have it yet, and then it would seem to have come to nothing. One that cannot be decided now stays
    /// undecided, unless nothing else could be shown: then the feed stalls.
    async fn decide(&self, bucket: BucketId, undecided: Vec<Undecided>, must: bool) -> Result<Decided, Error> {
        let reads = undecided.into_iter().map(async |u| {
            let records = self.read_met(bucket, &u.key, &u.slots).await;
            (u, records)
        });
        let answers: Vec<_> = stream::iter(reads.collect::<Vec<_>>()).buffered(RESOLVES_AT_ONCE).collect().await;
        let (mut decided, mut last_error) = (Decided::new(), None);
        for (u, records) in answers {
            match records {
                Ok(records) => {
                    let record = records.into_iter().find(|r| r.id() == u.version);
                    decided.insert((u.key, u.version), record);
                }
                Err(err) => last_error = Some(err),
            }
        }
        match last_error {
            Some(err) if must && decided.is_empty() => Err(err),
            _ => Ok(decided),
        }
    }
}

async fn tail(drive: &dyn Drive, bucket: BucketId, after: Lsn, head: Lsn, limit: usize) -> Result<Tail, drive::Error> {
    let mut entries = drive.tail(bucket, after, limit).await?;
    // Rows stand before the head tells of them. A place beyond the head would look like a log that was set back.
    let is_short = entries.len() < limit || entries.last().is_some_and(|e| e.lsn > head);
    entries.retain(|e| e.lsn <= head);
    let last = entries.last().map_or(after, |e| e.lsn);
    // A short page is everything up to the head; the rest of the log is of other buckets.
    let through = if is_short { last.max(head) } else { last };
    Ok(Tail { slot: drive.slot(), entries, through })
}

/// Waits until a drive has something new of the bucket; false when `patience` ends first.
async fn moved(moves: &mut [watch::Receiver<Lsn>], patience: Duration) -> bool {
    // A drive that is closed for good will not tell anything any more.
    let open = moves.iter_mut().filter(|m| m.has_changed().is_ok());
    let waits: Vec<_> = open.map(|moves| Box::pin(moves.changed())).collect();
    if waits.is_empty() {
        tokio::time::sleep(patience).await;
        return false;
    }
    match tokio::time::timeout(patience, select_all(waits)).await {
        Ok(_) => {
            tokio::time::sleep(GATHER).await;
            true
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::fixture::{Set, body};
    use crate::object::{Put, Versioning};

    #[tokio::test]
    async fn a_reader_is_woken_by_its_own_bucket_alone() {
        let set = Set::new();
        let objects = set.start();
        objects.create_bucket("busy", Versioning::Enabled).await.expect("W");
        objects.create_bucket("quiet", Versioning::Enabled).await.expect("W");
        let quiet = objects.bucket("quiet").await.expect("made").id;
        let moves: Vec<_> = set.drives.iter().map(|d| d.moves(quiet)).collect();
        let told = || moves.iter().filter(|m| m.has_changed().expect("open")).count();
        let heads = objects.0.heads();
        objects.put("busy", "k", Put::default(), body("bytes")).await.expect("W");
        let moved = objects.0.heads().iter().zip(&heads).filter(|(now, before)| now > before).count();
        assert!(moved >= objects.0.quorum.write() && told() == 0, "{moved} drives have moved, {} of them here", told());
        objects.put("quiet", "k", Put::default(), body("bytes")).await.expect("W");
        assert!(told() >= objects.0.quorum.write(), "{} drives tell", told());
    }

    #[tokio::test]
    async fn a_reader_of_a_bucket_that_is_deleted_is_told_at_once() {
        let set = Set::new();
        let objects = set.start();
        let former = objects.create_bucket("bucket", Versioning::Enabled).await.expect("W").id;
        objects.create_bucket("other", Versioning::Enabled).await.expect("W");
        let waits = objects.changes("bucket", None, 10);
        let remade = async {
            tokio::task::yield_now().await;
            objects.delete_bucket("other").await.expect("it is empty");
            objects.delete_bucket("bucket").await.expect("it is empty");
            objects.create_bucket("bucket", Versioning::Enabled).await.expect("W").id
        };
        let both = async { futures::join!(waits, remade) };
        let (told, now) = tokio::time::timeout(RECHECK / 2, both).await.expect("before the next look");
        assert!(matches!(&told, Err(Error::NoSuchBucket(name)) if name == "bucket"), "{told:?}");
        assert_ne!(now, former);
        objects.put("bucket", "k", Put::default(), body("bytes")).await.expect("W");
        let read = objects.changes("bucket", None, 10).await.expect("a change");
        assert_eq!((read.events.len(), read.bucket), (1, now.0.as_simple().to_string()));
    }

    #[tokio::test]
    async fn a_reader_is_told_its_place_behind_what_was_shown_before() {
        let set = Set::new();
        let objects = set.start();
        objects.create_bucket("bucket", Versioning::Enabled).await.expect("W");
        objects.put("bucket", "k", Put::default(), body("bytes")).await.expect("W");
        let head = objects.head("bucket").await.expect("it answers");
        let shown = objects.changes("bucket", None, 10).await.expect("a change");
        assert_eq!(shown.events.len(), 1);
        let read = async {
            loop {
                // The place of a reader that met the change on this drive, which may log it last.
                let mut position = objects.0.position(None).expect("of this store");
                position.set(0, *set.drives[0].head().borrow());
                let read = objects.changes("bucket", Some(&position.to_cursor()), 10).await.expect("it answers");
                if read.events.is_empty() {
                    return read;
                }
            }
        };
        let read =
            tokio::time::timeout(Duration::from_secs(60), read).await.expect("it is not shown again, nor waited for");
        assert!(read.cursor.has_passed(&head));
    }
}
