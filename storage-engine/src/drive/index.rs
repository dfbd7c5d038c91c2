//! The index of one drive: derived from the log, deletable, rebuilt on open.
//!
//! Its rows are a function of the log ([`Index::stage`] runs on the live road and on replay), and the
//! lsn up to which they hold is written with them in one batch. It is never synced: a lost tail is
//! replayed. [`Table`] is the ordered map below, `layers` over fjall for files and a tree in memory for
//! the twin. The committer alone writes; everybody reads.
pub mod held;
pub mod layers;
pub mod rows;
pub mod table;

use crate::drive::log::segment::{Entry, Placed};
use crate::drive::{Logged, Lsn};
use crate::quorum::participant::{Effect, KeyView};
use crate::record::{BucketId, Coded, Recent};
use crate::version::VersionId;
use held::Held;
use rows::Row;
use std::collections::BTreeMap;
use std::sync::Arc;
use table::{Rows, Table};
use uuid::Uuid;

/// Rows a scan reads at once.
const PAGE_ROWS: usize = 256;

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
}

/// The index over one table.
#[derive(Clone)]
pub struct Index {
    table: Arc<dyn Table>,
    /// Shared by all drives of the process: they hold the same records.
    recent: Recent,
}

impl Index {
    /// An index whose rows are in `table`.
    pub fn new(table: Arc<dyn Table>, recent: Recent) -> Self {
        Index { table, recent }
    }

    /// The last lsn whose change is in the rows; 0 for an empty index.
    pub fn applied(&self) -> Result<Lsn, Error> {
        let row = self.table.get(rows::APPLIED)?;
        row.map_or(Ok(0), |v| rows::read_applied(&v).ok_or_else(|| Error::Damaged("the applied lsn".into())))
    }

    /// Everything held of a key.
    pub fn load(&self, bucket: BucketId, key: &str) -> Result<Held, Error> {
        let prefix = rows::key_prefix(bucket, key);
        match self.table.get(&prefix)? {
            None => Ok(Held::default()),
            Some(head) => self.behind(&prefix, &head).ok_or_else(|| Error::Damaged(format!("key {key:?}")))?,
        }
    }

    /// What a head says, or the rows it stands for; `None`: something is damaged.
    fn behind(&self, prefix: &[u8], head: &[u8]) -> Option<Result<Held, Error>> {
        let held = rows::read_head(head, &self.recent)?;
        if !held.is_spread {
            return Some(Ok(held));
        }
        match self.table.range(prefix, &rows::after_prefix(prefix), usize::MAX) {
            Ok(found) => {
                let rest = found.iter().map(|(name, value)| (&name[prefix.len()..], &value[..]));
                Held::gather(rest.filter(|(rest, _)| !rest.is_empty()), &self.recent).map(Ok)
            }
            Err(e) => Some(Err(e)),
        }
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
        let end = rows::after_prefix(&start);
        let mut from = after
            .map_or(start.clone(), |after| rows::after_prefix(&rows::key_prefix(bucket, after)).max(start.clone()));
        let mut found: Vec<(String, KeyView)> = Vec::new();
        loop {
            // Every page is a snapshot of its own; what is held of one key always comes from one.
            let wanted = PAGE_ROWS.min(limit - found.len());
            let page = self.table.range(&from, &end, wanted)?;
            let mut more = page.len() == wanted;
            from = page.last().map_or(from, |(last, _)| [last, &[0][..]].concat());
            for (name, value) in &page {
                let (key, rest) = rows::split(name).ok_or_else(|| Error::Damaged("a key".into()))?;
                if !rest.is_empty() {
                    // Rows of a spread key stand behind its head and were read with it.
                    from = rows::after_prefix(&name[..name.len() - rest.len()]);
                    more = true;
                    break;
                }
                let held = self.behind(name, value).ok_or_else(|| Error::Damaged(format!("key {key:?}")))??;
                found.push((key, held.view));
            }
            if !more || found.len() >= limit {
                return Ok(found);
            }
        }
    }

    /// Changes of a bucket after `after` in log order, at most `limit`.
    ///
    /// A version whose attempts were all aborted has nothing to show; its entry is passed over.
    pub fn tail(&self, bucket: BucketId, after: Lsn, limit: usize) -> Result<Vec<Logged>, Error> {
        let mut found = Vec::new();
        let mut from = after + 1;
        loop {
            let wanted = limit - found.len();
            let page = self.table.range(&rows::feed(bucket, from), &rows::feed_end(bucket), wanted)?;
            for (name, value) in &page {
                let (lsn, key, version) =
                    rows::feed_entry(name, value).ok_or_else(|| Error::Damaged("the feed".into()))?;
                from = lsn + 1;
                found.extend(self.newest(bucket, &key, version)?.map(|record| Logged { lsn, record }));
            }
            if page.len() < wanted || found.len() >= limit {
                return Ok(found);
            }
        }
    }

    /// The newest attempt at one version. Of a spread key only that version's rows are read.
    fn newest(&self, bucket: BucketId, key: &str, version: VersionId) -> Result<Option<Coded>, Error> {
        let damaged = || Error::Damaged(format!("key {key:?}"));
        let prefix = rows::key_prefix(bucket, key);
        let Some(head) = self.table.get(&prefix)? else { return Ok(None) };
        let held = rows::read_head(&head, &self.recent).ok_or_else(damaged)?;
        if !held.is_spread {
            let attempts = held.view.records.into_iter().filter(|r| r.id() == version);
            return Ok(attempts.max_by_key(|r| r.ballot));
        }
        let attempts = rows::records_of(&prefix, version);
        let found = self.table.range(&attempts, &rows::after_prefix(&attempts), usize::MAX)?;
        let Some((_, last)) = found.last() else { return Ok(None) };
        let record = self.recent.read(last).map_err(|_| damaged())?;
        let acked = self.table.get(&rows::name(&prefix, Row::Ack(version, record.ballot)))?.is_some();
        Ok(Some(if acked { record.flagged() } else { record }))
    }

    /// Where the drive's shard of a blob stands.
    pub fn locate(&self, blob: Uuid) -> Result<Option<Locator>, Error> {
        let row = match self.table.get(&rows::shard(blob))? {
            None => self.table.get(&rows::shard_file(blob))?,
            found => found,
        };
        row.map(|v| rows::read_locator(&v).ok_or_else(|| Error::Damaged(format!("shard {blob}")))).transpose()
    }

    /// Makes a change to `held` and tells which rows follow from it, save where its shards stand.
    /// Whether replicated state changed decides alone whether the version moves in the feed: an ack, an
    /// abort and a copy of known state do not.
    pub fn stage(held: &mut Held, lsn: Lsn, entry: &Entry, out: &mut Rows) {
        let id = match &entry.effect {
            Effect::Put { record, .. } | Effect::Join { record } => record.id(),
            Effect::Abort { version, .. } | Effect::Ack { version, .. } => *version,
        };
        let news = match &entry.effect {
            Effect::Put { record, .. } => {
                !held.view.records.iter().any(|r| r.id() == id && r.version == record.version)
            }
            Effect::Join { .. } => true,
            Effect::Abort { .. } | Effect::Ack { .. } => false,
        };
        if news {
            if let Some(old) = held.feed.get(&id) {
                out.push((rows::feed(entry.bucket, *old), None));
            }
            out.push((rows::feed(entry.bucket, lsn), Some(rows::feed_value(&entry.key, id))));
        }
        let prefix = rows::key_prefix(entry.bucket, &entry.key);
        held.change(&prefix, id, entry, news.then_some(lsn), out);
    }

    /// The rows that say where the shards of an entry stand; `at` is the place of the buffer `placed` counts from.
    pub fn stage_shards(entry: &Entry, placed: &Placed, at: (u64, u64), out: &mut Rows) {
        let Effect::Put { record, shards } = &entry.effect else { return };
        for (blob, offset, len) in &placed.shards {
            let locator = Locator::Log { segment: at.0, offset: at.1 + *offset as u64, len: *len as u32 };
            out.push((rows::shard(*blob), Some(rows::write_locator(&locator))));
        }
        for blob in record.blobs.iter().filter(|b| shards.iter().all(|(id, _)| *id != b.id)) {
            // A second attempt at the same bytes names a blob whose shard may stand in the log already.
            out.push((rows::shard_file(blob.id), Some(rows::write_locator(&Locator::File))));
        }
    }

    /// Whether a record names the blob as a file of its own.
    pub fn names_file(&self, blob: Uuid) -> Result<bool, Error> {
        Ok(self.table.get(&rows::shard_file(blob))?.is_some())
    }

    /// Writes rows and the lsn up to which they hold, all or nothing.
    pub fn commit(&self, mut rows: Rows, applied: Lsn) -> Result<(), Error> {
        rows.push((rows::APPLIED.to_vec(), Some(rows::write_applied(applied))));
        self.table.commit(rows)
    }

    /// Every row, for comparing two indexes.
    pub fn dump(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
        Ok(self.table.range(&[], &[0xff], usize::MAX)?.into_iter().collect())
    }
}
