//! What a key holds: reading from R drives and deciding what is not yet decided (rules 18 to 24).
//!
//! Drives the machines of `quorum::reader`. Too few drives is an error, never an absence. Every road
//! that reads a key comes through here.
use super::{Error, Inner};
use crate::drive::{self, Drive};
use crate::quorum::participant::{KeyView, Op};
use crate::quorum::reader::{Ask, Fate, Reader, Resolver, Step, Want};
use crate::record::{BucketId, Coded, Record};
use crate::version::VersionId;
use futures::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;

/// Times a read starts over because components arrive while it reads; each time it wrote some forward.
const ROUNDS_MAX: usize = 32;

/// How long a young undecided attempt is watched before it is forced: its writer is most likely alive
/// and a sync away from done, and a fence would send it back to the start.
const PATIENCE_MILLIS: u64 = 100;

/// Newest version that S3 may show, markers included.
pub(crate) fn newest(records: &[Record]) -> Option<&Record> {
    records.iter().find(|r| r.version.is_live())
}

impl Inner {
    /// Decided, joined records of the key, greatest order first; purged and unborn ones included.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: fewer than R drives answered, or an attempt cannot be decided now.
    pub(crate) async fn read_key(&self, bucket: BucketId, key: &str) -> Result<Vec<Record>, Error> {
        self.read_for(Want::All, bucket, key).await
    }

    /// The newest version S3 may show, markers included; `None`: there is none.
    ///
    /// # Errors
    /// As [`Inner::read_key`], but older attempts that cannot be decided do not matter.
    pub(crate) async fn read_latest(&self, bucket: BucketId, key: &str) -> Result<Option<Record>, Error> {
        let records = self.read_for(Want::Latest, bucket, key).await?;
        Ok(records.into_iter().find(|r| r.version.is_live()))
    }

    /// One version, purged or unborn too, and whether it is the newest live one.
    ///
    /// # Errors
    /// As [`Inner::read_key`], but other versions that cannot be decided do not matter.
    pub(crate) async fn read_one(
        &self,
        bucket: BucketId,
        key: &str,
        id: VersionId,
    ) -> Result<Option<(Record, bool)>, Error> {
        let records = self.read_for(Want::Version(id), bucket, key).await?;
        let latest = newest(&records).is_some_and(|r| r.id() == id);
        Ok(records.into_iter().find(|r| r.id() == id).map(|r| (r, latest)))
    }

    /// As [`Inner::read_key`], over all drives that answer: what was met on the drives of `slots` is decided, too.
    ///
    /// # Errors
    /// As [`Inner::read_key`]; also where one of those drives does not answer.
    pub(crate) async fn read_met(&self, bucket: BucketId, key: &str, slots: &[usize]) -> Result<Vec<Record>, Error> {
        let answers = futures::future::join_all(self.drives.iter().map(|d| look(d.clone(), bucket, key))).await;
        let mut views = Vec::with_capacity(answers.len());
        for (slot, answer) in answers {
            match answer {
                Ok(view) => views.push((slot, view)),
                Err(err) if slots.contains(&slot) => return Err(Error::Unavailable(err.to_string())),
                Err(_) => {}
            }
        }
        self.settle(bucket, key, views).await
    }

    async fn read_for(&self, want: Want, bucket: BucketId, key: &str) -> Result<Vec<Record>, Error> {
        let views = self.views(bucket, key, self.quorum.read()).await?;
        self.settle_for(want, bucket, key, views).await
    }

    /// As [`Inner::read_key`], over what R drives said already (one view per drive).
    pub(crate) async fn settle(
        &self,
        bucket: BucketId,
        key: &str,
        views: Vec<(usize, KeyView)>,
    ) -> Result<Vec<Record>, Error> {
        self.settle_for(Want::All, bucket, key, views).await
    }

    /// As [`Inner::settle`], deciding only what is wanted.
    pub(crate) async fn settle_for(
        &self,
        want: Want,
        bucket: BucketId,
        key: &str,
        views: Vec<(usize, KeyView)>,
    ) -> Result<Vec<Record>, Error> {
        let read = self.quorum.read();
        if views.len() < read {
            return Err(Error::Unavailable(format!("{} of {read} drives", views.len())));
        }
        let mut reader = Reader::new(want, views.into_iter().map(|(_, view)| view).collect());
        let mut rounds = 0;
        while rounds < ROUNDS_MAX {
            match reader.step() {
                Step::Done(records) => return Ok(records),
                Step::Forward(versions) => {
                    rounds += 1;
                    for version in &versions {
                        match self.join_behind(bucket, version.clone(), |_| 0).await {
                            // It counts already: too few drives keep nobody from reading it.
                            Err(Error::Unavailable(_)) if reader.is_settled(version) => {}
                            joined => joined?,
                        }
                    }
                    reader.add(self.fresh(bucket, key).await?);
                    reader.forwarded(versions);
                }
                Step::Resolve(record) => match self.resolve(&record).await? {
                    Fate::Tombstoned | Fate::Superseded => {
                        rounds += 1;
                        reader.add(self.everyone(bucket, key).await?);
                    }
                    // Denied by drives that may have forgotten it below a newer null (rule 17): only fresh
                    // replies tell whether there is one. Without them an overwritten null would read as absent.
                    Fate::Aborted if record.id().is_null() => {
                        rounds += 1;
                        reader.add(self.everyone(bucket, key).await?);
                        reader.decided((record.id(), record.ballot), Fate::Aborted);
                    }
                    fate => reader.decided((record.id(), record.ballot), fate),
                },
            }
        }
        Err(Error::Unavailable("the key changes faster than it can be read".into()))
    }

    async fn fresh(&self, bucket: BucketId, key: &str) -> Result<Vec<KeyView>, Error> {
        let views = self.views(bucket, key, self.quorum.read()).await?;
        Ok(views.into_iter().map(|(_, view)| view).collect())
    }

    /// What every drive that answers holds: a purge that stopped short of W may stand on any one of them.
    async fn everyone(&self, bucket: BucketId, key: &str) -> Result<Vec<KeyView>, Error> {
        let answers = futures::future::join_all(self.drives.iter().map(|d| look(d.clone(), bucket, key))).await;
        let views: Vec<KeyView> = answers.into_iter().filter_map(|(_, view)| view.ok()).collect();
        let read = self.quorum.read();
        if views.len() < read {
            Err(Error::Unavailable(format!("{} of {read} drives", views.len())))
        } else {
            Ok(views)
        }
    }

    /// What `wanted` drives hold of the key: a replacement is asked for each that fails.
    async fn views(&self, bucket: BucketId, key: &str, wanted: usize) -> Result<Vec<(usize, KeyView)>, Error> {
        let mut spare = self.drives_from(key);
        let mut asked: FuturesUnordered<_> =
            spare.by_ref().take(wanted).map(|d| look(d.clone(), bucket, key)).collect();
        let (mut views, mut why) = (Vec::with_capacity(wanted), String::new());
        while let Some((slot, answer)) = asked.next().await {
            match answer {
                Ok(view) => views.push((slot, view)),
                Err(err) => {
                    why = err.to_string();
                    asked.extend(spare.next().map(|d| look(d.clone(), bucket, key)));
                }
            }
        }
        if views.len() < wanted {
            return Err(Error::Unavailable(format!("{} of {wanted} drives: {why}", views.len())));
        }
        Ok(views)
    }

    /// All drives, beginning at one that depends on the key: reads of many keys spread over all.
    pub(crate) fn drives_from(&self, key: &str) -> impl Iterator<Item = &Arc<dyn Drive>> {
        let start =
            crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, key.as_bytes()) as usize % self.drives.len().max(1);
        self.drives[start..].iter().chain(&self.drives[..start])
    }

    /// Rules 22 and 23: decides one attempt, whoever wrote it.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: too few drives to know.
    pub(crate) async fn resolve(&self, record: &Record) -> Result<Fate, Error> {
        let fate = self.resolve_uncounted(record).await;
        if matches!(fate, Err(Error::Unavailable(_))) {
            self.metrics.attempt_unresolved();
        }
        fate
    }

    async fn resolve_uncounted(&self, record: &Record) -> Result<Fate, Error> {
        let mut resolver = Resolver::new(self.quorum, self.epoch, record);
        let mut pause = 1;
        loop {
            let heard = self.look_around(&mut resolver, record).await;
            if let Some(fate) = resolver.fate() {
                return self.conclude(record, fate).await;
            }
            if self.clock.now_millis().saturating_sub(record.ballot.millis()) > PATIENCE_MILLIS
                || pause > PATIENCE_MILLIS
            {
                return self.force(resolver, record, heard).await;
            }
            self.clock.sleep(pause).await;
            pause *= 2;
        }
    }

    /// Counts who holds the attempt, promising nothing. Returns how many drives answered.
    async fn look_around(&self, resolver: &mut Resolver, record: &Record) -> usize {
        let mut asked: FuturesUnordered<_> =
            self.drives.iter().map(|d| look(d.clone(), record.bucket, record.key())).collect();
        let mut heard = 0;
        while let Some((slot, answer)) = asked.next().await {
            let Ok(view) = answer else { continue };
            heard += 1;
            if resolver.view(slot, &view).is_some() {
                break;
            }
        }
        heard
    }

    /// Asks the drives that do not hold the attempt to take it or to refuse it for ever.
    async fn force(&self, mut resolver: Resolver, record: &Record, heard: usize) -> Result<Fate, Error> {
        let ask = resolver.ask(heard);
        // A forwarded record brings no shard: the drives that take it owe theirs, as healing will see.
        let everyone = (1u64 << self.quorum.n) - 1;
        let mut forward = Record { acked: false, ..record.clone() };
        if !record.blobs.is_empty() {
            forward.missing |= u32::try_from(everyone & !resolver.whole()).unwrap_or(u32::MAX);
        }
        let forward = Coded::from(forward);
        let holders = resolver.holders();
        let mut asked = self.ask_some(
            record.bucket,
            record.key(),
            |slot| holders & (1 << slot) == 0,
            |_| match ask {
                Ask::Forward => Op::Forward { record: forward.clone(), shards: Vec::new() },
                Ask::Fence => Op::Fence { version: record.id(), ballot: record.ballot },
            },
        );
        while let Some((slot, reply)) = asked.next().await {
            if let Some(fate) = reply.and_then(|r| resolver.reply(slot, &r)) {
                self.background(1, asked.drain());
                return self.conclude(record, fate).await;
            }
        }
        Err(asked.error())
    }

    /// Makes the decision stand: an abort is written to W, a commit is flagged lazily.
    async fn conclude(&self, record: &Record, fate: Fate) -> Result<Fate, Error> {
        match fate {
            Fate::Aborted => self.abort(record.bucket, record.key(), record.id(), record.ballot).await?,
            Fate::Committed => {
                let (version, ballot) = (record.id(), record.ballot);
                self.background(1, self.ask_all(record.bucket, record.key(), |_| Op::Ack { version, ballot }).drain());
            }
            Fate::Tombstoned | Fate::Superseded => {}
        }
        Ok(fate)
    }
}

async fn look(drive: Arc<dyn Drive>, bucket: BucketId, key: &str) -> (usize, Result<KeyView, drive::Error>) {
    (drive.slot(), drive.read_key(bucket, key).await)
}
