//! The index of one drive: derived from the log, deletable, rebuilt on open.
//!
//! Its rows are a function of the log ([`Index::stage`] runs on the live road and on replay), and the
//! lsn up to which they hold is written with them in one batch. It is never synced: a lost tail is
//! replayed. [`Table`] is the ordered map below, fjall for files and a tree in memory for the twin.
//! The committer alone writes; everybody reads.
pub mod rows;
pub mod table;

use crate::drive::log::segment::{Entry, Placed};
use crate::drive::{Logged, Lsn};
use crate::quorum::participant::{Effect, KeyView};
use crate::record::{BucketId, Record};
use crate::version::{Ballot, VersionId};
use rows::Row;
use std::collections::BTreeMap;
use std::sync::Arc;
use table::{Rows, Table};
use uuid::Uuid;

/// Shards up to this size are kept in the index too, so that reading a small object touches nothing else.
pub const INLINE_BYTES: usize = 2 << 10;

/// Why the index gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table below failed.
    #[error("index: {0}")]
    Table(String),
    /// A row is not what was put there; delete the folder, it is rebuilt from the log.
    #[error("index row of {0} is damaged")]
    Damaged(String),
}

/// Where a shard stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locator {
    /// A file of its own under data/.
    File,
    /// In the log.
    Log { segment: u64, offset: u64, len: u32 },
    /// In the log, and this copy of it.
    Inline(Vec<u8>),
}

/// Everything held of one key, with the feed places of its versions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// What the protocol sees.
    pub view: KeyView,
    /// The lsn at which each version stands in the feed.
    pub feed: BTreeMap<VersionId, Lsn>,
}

/// The index over one table.
#[derive(Clone)]
pub struct Index(Arc<dyn Table>);

impl Index {
    /// An index whose rows are in `table`.
    pub fn new(table: Arc<dyn Table>) -> Self {
        Index(table)
    }

    /// The last lsn whose change is in the rows; 0 for an empty index.
    pub fn applied(&self) -> Result<Lsn, Error> {
        let row = self.0.get(rows::APPLIED)?;
        row.map_or(Ok(0), |v| rows::number(&v).ok_or_else(|| Error::Damaged("the applied lsn".into())))
    }

    /// Everything held of a key.
    pub fn load(&self, bucket: BucketId, key: &str) -> Result<Held, Error> {
        let prefix = rows::key_prefix(bucket, key);
        let mut held = Loading::default();
        let mut damaged = false;
        self.0.range(&prefix, &rows::after_prefix(&prefix), &mut |name, value| {
            damaged |= held.add(&name[prefix.len()..], value).is_none();
            !damaged
        })?;
        if damaged { Err(Error::Damaged(format!("key {key:?}"))) } else { Ok(held.finish()) }
    }

    /// Keys in order from `after`, at most `limit`, each with all that is held of it.
    pub fn scan(
        &self,
        bucket: BucketId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, KeyView)>, Error> {
        let start = rows::prefix_of_keys(bucket, prefix);
        let from = after.map(|after| rows::after_prefix(&rows::key_prefix(bucket, after)));
        let from = from.map_or(start.clone(), |from| from.max(start.clone()));
        let mut found: Vec<(String, KeyView)> = Vec::new();
        let mut current: Option<(String, Loading)> = None;
        let mut damaged = None;
        self.0.range(&from, &rows::after_prefix(&start), &mut |name, value| {
            let Some((key, rest)) = rows::split(name) else {
                damaged = Some("a key".to_owned());
                return false;
            };
            if current.as_ref().is_none_or(|(k, _)| *k != key) {
                found.extend(current.take().map(|(k, l)| (k, l.finish().view)));
                if found.len() == limit {
                    return false;
                }
                current = Some((key.clone(), Loading::default()));
            }
            let (_, loading) = current.as_mut().expect("set above");
            if loading.add(rest, value).is_none() {
                damaged = Some(format!("key {key:?}"));
            }
            damaged.is_none()
        })?;
        if let Some(what) = damaged {
            return Err(Error::Damaged(what));
        }
        if found.len() < limit {
            found.extend(current.map(|(k, l)| (k, l.finish().view)));
        }
        Ok(found)
    }

    /// Changes of a bucket after `after` in log order, at most `limit`.
    ///
    /// A version whose attempts were all aborted has nothing to show; its entry is passed over.
    pub fn tail(&self, bucket: BucketId, after: Lsn, limit: usize) -> Result<Vec<Logged>, Error> {
        let mut found = Vec::new();
        let mut from = after + 1;
        loop {
            let mut entries = Vec::new();
            let wanted = limit - found.len();
            self.0.range(&rows::feed(bucket, from), &rows::feed_end(bucket), &mut |name, value| {
                if entries.len() < wanted {
                    entries.push(rows::feed_entry(name, value));
                }
                entries.len() < wanted
            })?;
            let more = entries.len() == wanted;
            for entry in entries {
                let (lsn, key, version) = entry.ok_or_else(|| Error::Damaged("the feed".into()))?;
                from = lsn + 1;
                found.extend(self.newest(bucket, &key, version)?.map(|record| Logged { lsn, record }));
            }
            if !more || found.len() >= limit {
                return Ok(found);
            }
        }
    }

    fn newest(&self, bucket: BucketId, key: &str, version: VersionId) -> Result<Option<Record>, Error> {
        let records = self.load(bucket, key)?.view.records;
        Ok(records.into_iter().filter(|r| r.id() == version).max_by_key(|r| r.ballot))
    }

    /// Where the drive's shard of a blob stands.
    pub fn locate(&self, blob: Uuid) -> Result<Option<Locator>, Error> {
        let row = match self.0.get(&rows::shard(blob))? {
            None => self.0.get(&rows::shard_file(blob))?,
            found => found,
        };
        row.map(|v| rows::read_locator(&v).ok_or_else(|| Error::Damaged(format!("shard {blob}")))).transpose()
    }

    /// Makes a change to `held` and tells which rows follow from it, save where its shards stand.
    /// Whether replicated state changed decides alone whether the version moves in the feed: an ack, an
    /// abort and a copy of known state do not.
    pub fn stage(held: &mut Held, lsn: Lsn, entry: &Entry, record_bytes: &[u8], out: &mut Rows) {
        let id = match &entry.effect {
            Effect::Put { record, .. } | Effect::Join { record } => record.id(),
            Effect::Abort { version, .. } | Effect::Ack { version, .. } => *version,
        };
        let before = Attempts::of(&held.view, id);
        let news = match &entry.effect {
            Effect::Put { record, .. } => {
                !held.view.records.iter().any(|r| r.id() == id && r.version == record.version)
            }
            Effect::Join { .. } => true,
            Effect::Abort { .. } | Effect::Ack { .. } => false,
        };
        held.view.apply(&entry.effect);
        let prefix = rows::key_prefix(entry.bucket, &entry.key);
        before.differences(&held.view, id, entry, record_bytes, &prefix, out);
        if news {
            if let Some(old) = held.feed.insert(id, lsn) {
                out.push((rows::feed(entry.bucket, old), None));
            }
            out.push((rows::name(&prefix, Row::Feed(id)), Some(lsn.to_be_bytes().to_vec())));
            out.push((rows::feed(entry.bucket, lsn), Some(rows::feed_value(&entry.key, id))));
        }
    }

    /// The rows that say where the shards of an entry stand; `at` is the place of the buffer `placed` counts from.
    pub fn stage_shards(entry: &Entry, placed: &Placed, at: (u64, u64), out: &mut Rows) {
        let Effect::Put { record, shards } = &entry.effect else { return };
        for ((blob, bytes), (_, offset, len)) in shards.iter().zip(&placed.shards) {
            let locator = if bytes.len() <= INLINE_BYTES {
                Locator::Inline(bytes.to_vec())
            } else {
                Locator::Log { segment: at.0, offset: at.1 + *offset as u64, len: *len as u32 }
            };
            out.push((rows::shard(*blob), Some(rows::write_locator(&locator))));
        }
        for blob in record.blobs.iter().filter(|b| shards.iter().all(|(id, _)| *id != b.id)) {
            // A second attempt at the same bytes names a blob whose shard may stand in the log already.
            out.push((rows::shard_file(blob.id), Some(rows::write_locator(&Locator::File))));
        }
    }

    /// Whether a record names the blob as a file of its own.
    pub fn names_file(&self, blob: Uuid) -> Result<bool, Error> {
        Ok(self.0.get(&rows::shard_file(blob))?.is_some())
    }

    /// Writes rows and the lsn up to which they hold, all or nothing.
    pub fn commit(&self, mut rows: Rows, applied: Lsn) -> Result<(), Error> {
        rows.push((rows::APPLIED.to_vec(), Some(applied.to_be_bytes().to_vec())));
        self.0.commit(rows)
    }

    /// Every row, for comparing two indexes.
    pub fn dump(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
        let mut all = BTreeMap::new();
        self.0.range(&[], &[0xff], &mut |name, value| {
            all.insert(name.to_vec(), value.to_vec());
            true
        })?;
        Ok(all)
    }

    /// The table below, for the twin's faults.
    pub(crate) fn table(&self) -> &dyn Table {
        &*self.0
    }
}

/// Attempts of one version, before a change.
struct Attempts {
    records: Vec<(Ballot, bool)>,
    aborts: Vec<Ballot>,
}

impl Attempts {
    fn of(view: &KeyView, id: VersionId) -> Self {
        Attempts {
            records: view.records.iter().filter(|r| r.id() == id).map(|r| (r.ballot, r.acked)).collect(),
            aborts: view.aborts.iter().filter(|(v, _)| *v == id).map(|(_, b)| *b).collect(),
        }
    }

    /// The rows that turn what was held of the version into what is held now.
    fn differences(
        &self,
        now: &KeyView,
        id: VersionId,
        entry: &Entry,
        record_bytes: &[u8],
        prefix: &[u8],
        out: &mut Rows,
    ) {
        for (ballot, acked) in self.records.iter().filter(|(b, _)| now.held(id, *b).is_none()) {
            out.push((rows::name(prefix, Row::Record(id, *ballot)), None));
            if *acked {
                out.push((rows::name(prefix, Row::Ack(id, *ballot)), None));
            }
        }
        for record in now.records.iter().filter(|r| r.id() == id) {
            let was = self.records.iter().find(|(b, _)| *b == record.ballot);
            let bytes = match &entry.effect {
                Effect::Put { record: put, .. } if put.ballot == record.ballot => Some(record_bytes.to_vec()),
                Effect::Join { .. } => Some(record.to_bytes()),
                _ if was.is_none() => Some(record.to_bytes()),
                _ => None,
            };
            out.extend(bytes.map(|bytes| (rows::name(prefix, Row::Record(id, record.ballot)), Some(bytes))));
            // The flag has a row of its own: an ack rewrites no record.
            if record.acked && !was.is_some_and(|(_, acked)| *acked) {
                out.push((rows::name(prefix, Row::Ack(id, record.ballot)), Some(Vec::new())));
            }
        }
        let gone = self.aborts.iter().filter(|b| !now.aborted(id, **b));
        out.extend(gone.map(|b| (rows::name(prefix, Row::Abort(id, *b)), None)));
        let new = now.aborts.iter().filter(|(v, b)| *v == id && !self.aborts.contains(b));
        out.extend(new.map(|(_, b)| (rows::name(prefix, Row::Abort(id, *b)), Some(Vec::new()))));
    }
}

/// A key's rows on their way to a [`Held`].
#[derive(Default)]
struct Loading {
    held: Held,
    acks: Vec<(VersionId, Ballot)>,
}

impl Loading {
    fn add(&mut self, rest: &[u8], value: &[u8]) -> Option<()> {
        match Row::read(rest)? {
            Row::Record(..) => self.held.view.records.push(Record::from_bytes(value).ok()?),
            Row::Ack(id, ballot) => self.acks.push((id, ballot)),
            Row::Abort(id, ballot) => self.held.view.aborts.push((id, ballot)),
            Row::Feed(id) => drop(self.held.feed.insert(id, rows::number(value)?)),
        }
        Some(())
    }

    fn finish(mut self) -> Held {
        for record in &mut self.held.view.records {
            record.acked |= self.acks.contains(&(record.id(), record.ballot));
        }
        self.held
    }
}
