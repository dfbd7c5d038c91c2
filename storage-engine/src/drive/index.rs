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
                found.extend(self.newest(bucket, &key, version, lsn)?.map(|record| Logged { lsn, record }));
            }
            if page.len() < wanted || found.len() >= limit {
                return Ok(found);
            }
        }
    }

    /// The newest attempt at one version, in the state that stands at `lsn` in the feed; `None` where it has moved on
    /// since that entry was read: it is met at its new place, behind all that was read with it. Shown at the old
    /// place, a newer state would count as seen by every reader that had only the old one there.
    /// Of a spread key only that version's rows are read.
    fn newest(&self, bucket: BucketId, key: &str, version: VersionId, lsn: Lsn) -> Result<Option<Coded>, Error> {
        let damaged = || Error::Damaged(format!("key {key:?}"));
        let prefix = rows::key_prefix(bucket, key);
        let Some(head) = self.table.get(&prefix)? else { return Ok(None) };
        let held = rows::read_head(&head, &self.recent).ok_or_else(damaged)?;
        if !held.is_spread {
            let stands = held.feed.get(&version) == Some(&lsn);
            let attempts = held.view.records.into_iter().filter(|r| stands && r.id() == version);
            return Ok(attempts.max_by_key(|r| r.ballot));
        }
        let attempts = rows::records_of(&prefix, version);
        let found = self.table.range(&attempts, &rows::after_prefix(&attempts), usize::MAX)?;
        let Some((_, last)) = found.last() else { return Ok(None) };
        let record = self.recent.read(last).map_err(|_| damaged())?;
        let acked = self.table.get(&rows::name(&prefix, Row::Ack(version, record.ballot)))?.is_some();
        // Asked last: a move takes this row away in the commit that changes the record.
        let stands = self.table.get(&rows::feed(bucket, lsn))?.is_some();
        Ok(stands.then(|| if acked { record.flagged() } else { record }))
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
            Effect::Join { record } => !record.settled,
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

#[cfg(test)]
mod tests {
    use super::table::Tree;
    use super::*;
    use crate::record::Record;
    use crate::version::{Birth, Hlc, Kind, Order, Origin, Stamp, Tags, Version};
    use std::sync::Mutex;

    /// Rows that change right after the next page of the feed was read.
    struct Moving {
        rows: Tree,
        next: Mutex<Option<Rows>>,
    }

    impl Table for Moving {
        fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
            self.rows.get(name)
        }
        fn range(&self, from: &[u8], to: &[u8], most: usize) -> Result<Vec<table::Pair>, Error> {
            let page = self.rows.range(from, to, most)?;
            let next = self.next.lock().unwrap().take();
            next.map_or(Ok(()), |rows| self.rows.commit(rows))?;
            Ok(page)
        }
        fn commit(&self, rows: Rows) -> Result<(), Error> {
            self.rows.commit(rows)
        }
    }

    #[test]
    fn a_state_is_never_shown_at_a_place_it_did_not_have() {
        let (bucket, id) = (BucketId(Uuid::from_u128(1)), VersionId::from_bytes([7; 16]));
        let origin = Origin::new("a");
        let order = Order { hlc: Hlc::from_millis(1), origin: origin.clone(), version_id: id };
        let mut born = Version::blank("k", id);
        born.birth = Some(Birth::blank(order, Kind::DeleteMarker));
        let mut tagged = Version::blank("k", id);
        tagged.tags = Some(Tags::new(Stamp::new(Hlc::from_millis(2), origin), BTreeMap::new()));
        let entry = |effect| Entry { bucket, key: "k".into(), effect };
        let record = |version, ballot| Record::new(bucket, version, Hlc::from_millis(ballot)).into();
        let put = entry(Effect::Put { record: record(born, 1), shards: Vec::new() });
        let tag = entry(Effect::Join { record: record(tagged, 0) });

        let (mut held, mut first, mut then) = (Held::default(), Rows::new(), Rows::new());
        Index::stage(&mut held, 10, &put, &mut first);
        Index::stage(&mut held, 12, &tag, &mut then);
        let table = Arc::new(Moving { rows: Tree::default(), next: Mutex::default() });
        table.commit(first).unwrap();
        *table.next.lock().unwrap() = Some(then);
        let index = Index::new(table, Recent::default());
        let met = index.tail(bucket, 0, 10).unwrap();
        assert!(met.iter().all(|l| l.lsn == 12 || l.record.version.tags.is_none()), "{met:?}");
        let met = index.tail(bucket, 0, 10).unwrap();
        assert_eq!(met.iter().map(|l| l.lsn).collect::<Vec<_>>(), [12]);
        assert!(met[0].record.version.tags.is_some());
    }
}
