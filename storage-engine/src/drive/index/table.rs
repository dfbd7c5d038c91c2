//! Trait [`Table`]: an ordered map with atomic batches, and its two kinds. Knows nothing of rows.
use super::Error;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

/// Changes of one batch: name, and value or `None` to remove. The last one of a name counts.
pub type Rows = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// An ordered map of bytes. Nothing in it is durable; its owner can make it again.
pub trait Table: Send + Sync + 'static {
    /// One value.
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    /// Rows in `from..to` in order, from one snapshot, while `visit` says true.
    fn range(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error>;
    /// All of the rows or none.
    fn commit(&self, rows: Rows) -> Result<(), Error>;
}

/// Rows in memory.
#[derive(Default)]
pub struct Tree(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Table for Tree {
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
    }
    fn range(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error> {
        let tree = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if from < to {
            let _all = tree.range(from.to_vec()..to.to_vec()).all(|(name, value)| visit(name, value));
        }
        Ok(())
    }
    fn commit(&self, rows: Rows) -> Result<(), Error> {
        let mut tree = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in rows {
            match value {
                Some(value) => tree.insert(name, value),
                None => tree.remove(&name),
            };
        }
        Ok(())
    }
}

/// Block cache of one drive's index. Eight drives share a process of 300 MiB.
const CACHE_BYTES: u64 = 4 << 20;
/// Memtable of one drive's index; up to four wait to be flushed.
const MEMTABLE_BYTES: u64 = 4 << 20;
/// fjall's smallest: its journal lives as long as a memtable that is not flushed.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Table files kept open per drive, within the process's usual 1,024 descriptors.
const OPEN_FILES: usize = 24;

/// Rows in a fjall keyspace.
pub struct Fjall {
    db: Database,
    rows: Keyspace,
}

impl Fjall {
    /// Opens or makes the table in a folder.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let db = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(OPEN_FILES))
            .worker_threads(1)
            .open()
            .map_err(error)?;
        let rows = db
            .keyspace("rows", || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES))
            .map_err(error)?;
        Ok(Fjall { db, rows })
    }
}

fn error(e: fjall::Error) -> Error {
    Error::Table(e.to_string())
}

impl Table for Fjall {
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.rows.get(name).map_err(error)?.map(|v| v.to_vec()))
    }
    fn range(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Error> {
        if from < to {
            for row in self.rows.range(from..to) {
                let (name, value) = row.into_inner().map_err(error)?;
                if !visit(&name, &value) {
                    break;
                }
            }
        }
        Ok(())
    }
    fn commit(&self, rows: Rows) -> Result<(), Error> {
        // No durability asked for: the log is the durability point, a lost tail is replayed.
        let mut batch = self.db.batch().durability(None);
        // A batch of fjall gives all its rows one number, so of two rows of a name only the last may go in.
        let last: BTreeMap<Vec<u8>, Option<Vec<u8>>> = rows.into_iter().collect();
        for (name, value) in last {
            match value {
                Some(value) => batch.insert(&self.rows, name, value),
                None => batch.remove(&self.rows, name),
            }
        }
        batch.commit().map_err(error)
    }
}
