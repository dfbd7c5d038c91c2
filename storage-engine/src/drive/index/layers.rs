//! [`Layers`]: the rows of a drive's index, the young ones in memory over tables of fjall in files.
//!
//! The index is derived, so young rows need no journal: they are lost with the process and replayed from
//! the log. A full layer is written by a thread of its own as one sorted table, with the applied lsn in
//! it, all or nothing. A row that is soon replaced (an ack follows each write) is thus written once.
//! Knows nothing of what rows mean; the committer writes, everybody reads.
use super::Error;
use super::table::{Pair, Rows, Table};
use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

/// Block cache of one drive's index. Eight drives share a process of 300 MiB.
const CACHE_BYTES: u64 = 6 << 20;
/// Table files kept open per drive, within the process's usual 1,024 descriptors.
const OPEN_FILES: usize = 24;
/// Bytes of a layer, names and places in the tree included. Two of them live at most, one taking rows
/// and one being written, so eight drives have 64 MiB of young rows at the worst.
const LAYER_BYTES: usize = 4 << 20;
/// Size a table file grows to. Names of rows rise with time, so a compaction leaves most files of this size as they
/// are; and the first level, which is rewritten with every fourth layer, ends at four of them.
const FILE_BYTES: u64 = 8 << 20;
/// Drives that write their layers one after the other instead of all in the same moment.
const STAGGERED: usize = 8;
/// Compactions are this much nicer than requests: a burst of them on few cores would be felt as a pause.
const NICE: i32 = 5;
/// What a row takes in the tree beside its bytes, about.
const ROW_BYTES: usize = 96;

/// Rows by name; `None`: removed.
type Layer = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Rows in memory over rows in files.
pub struct Layers {
    shared: Arc<Shared>,
    /// Ends the writer when it is dropped.
    full: Option<mpsc::Sender<Arc<Layer>>>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    /// Bytes at which a layer is full.
    layer_bytes: usize,
    young: Mutex<Young>,
    written: Condvar,
    /// Its files; they are written as whole tables, never through its journal.
    files: Keyspace,
    /// Keeps the keyspace's workers.
    _db: Database,
}

#[derive(Default)]
struct Young {
    rows: Layer,
    bytes: usize,
    /// Full, and being written.
    frozen: Option<Arc<Layer>>,
    /// Why a layer could not be written: nothing more can be.
    failed: Option<String>,
}

impl Layers {
    /// Opens or makes the table in a folder. The drives of a set take rows alike: their `slot`s say when each
    /// writes its first layer, so that they do not all write and compact together.
    ///
    /// # Errors
    /// [`Error::Table`]: the files are no index; delete the folder, it is rebuilt from the log.
    pub fn open(folder: &Path, slot: usize) -> Result<Self, Error> {
        Layers::with_layers_of(folder, LAYER_BYTES, slot)
    }

    fn with_layers_of(folder: &Path, layer_bytes: usize, slot: usize) -> Result<Self, Error> {
        let (files, db) = open_nicely(folder)?;
        let head_start = layer_bytes / STAGGERED * (STAGGERED - 1 - slot % STAGGERED);
        let young = Mutex::new(Young { bytes: head_start, ..Young::default() });
        let shared = Arc::new(Shared { layer_bytes, young, written: Condvar::new(), files, _db: db });
        let (full, waiting) = mpsc::channel();
        let writer = shared.clone();
        // A thread of its own: it blocks in writes of whole tables while the committer goes on.
        #[allow(clippy::disallowed_methods)]
        let writer = std::thread::Builder::new()
            .name("index".into())
            .spawn(move || waiting.into_iter().for_each(|layer: Arc<Layer>| writer.write(&layer)))
            .map_err(|e| Error::Table(e.to_string()))?;
        Ok(Layers { shared, full: Some(full), writer: Some(writer) })
    }

    /// Hands a full layer to the writer; waits while the one before is still being written.
    fn freeze<'a>(&self, mut young: MutexGuard<'a, Young>) -> MutexGuard<'a, Young> {
        while young.frozen.is_some() && young.failed.is_none() {
            young = self.shared.written.wait(young).unwrap_or_else(PoisonError::into_inner);
        }
        let layer = Arc::new(std::mem::take(&mut young.rows));
        young.bytes = 0;
        young.frozen = Some(layer.clone());
        let sent = self.full.as_ref().map(|full| full.send(layer));
        if !matches!(sent, Some(Ok(()))) {
            young.failed = Some("its writer has ended".into());
        }
        young
    }
}

impl Drop for Layers {
    /// The layer being written is finished, the rest is left to replay.
    fn drop(&mut self) {
        self.full = None;
        // It ends with an error only by a panic, which has been told.
        drop(self.writer.take().map(JoinHandle::join));
    }
}

fn error(e: fjall::Error) -> Error {
    Error::Table(e.to_string())
}

/// Opens the files on a thread of less weight, which their compaction threads inherit.
fn open_nicely(folder: &Path) -> Result<(Keyspace, Database), Error> {
    let open = || {
        // Refused, they weigh as much as everybody.
        let _ = rustix::process::nice(NICE);
        let builder = Database::builder(folder).cache_size(CACHE_BYTES).max_cached_files(Some(OPEN_FILES));
        let db = builder.worker_threads(1).open().map_err(error)?;
        let levels = || Arc::new(Leveled::default().with_table_target_size(FILE_BYTES));
        let options = || KeyspaceCreateOptions::default().compaction_strategy(levels());
        Ok((db.keyspace("rows", options).map_err(error)?, db))
    };
    // The thread ends before this returns.
    #[allow(clippy::disallowed_methods)]
    std::thread::scope(|scope| scope.spawn(open).join()).expect("opening an index does not panic")
}

impl Shared {
    fn young(&self) -> MutexGuard<'_, Young> {
        self.young.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a layer to the files and takes it out of memory.
    fn write(&self, layer: &Layer) {
        let written = self.ingest(layer);
        let mut young = self.young();
        match written {
            Ok(()) => young.frozen = None,
            Err(e) => young.failed = Some(e.to_string()),
        }
        self.written.notify_all();
    }

    fn ingest(&self, layer: &Layer) -> Result<(), fjall::Error> {
        let mut table = self.files.start_ingestion()?;
        for (name, value) in layer {
            match value {
                Some(value) => table.write(&name[..], &value[..])?,
                None => table.write_tombstone(&name[..])?,
            }
        }
        table.finish()
    }

    /// A page of at most `most` rows from one snapshot, and where the next one begins, if there is one.
    fn page(&self, from: &[u8], to: &[u8], most: usize) -> Result<(Vec<Pair>, Option<Vec<u8>>), Error> {
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let (young, mut next, files) = {
            let young = self.young();
            let (mut merged, mut next): (Layer, Option<Vec<u8>>) = (Layer::new(), None);
            for layer in young.frozen.as_deref().into_iter().chain([&young.rows]) {
                let mut rows = layer.range::<[u8], _>(bounds);
                for (name, value) in rows.by_ref().take(most) {
                    merged.insert(name.clone(), value.clone());
                }
                // From there on this layer's rows are not in the page.
                let cut = rows.next().map(|(name, _)| name);
                if let Some(cut) = cut.filter(|cut| next.as_ref().is_none_or(|next| *cut < next)) {
                    next = Some(cut.clone());
                }
            }
            // Taken under the lock: a layer is in memory or in the snapshot, never in neither.
            (merged, next, self.files.range(from..to))
        };
        let end = next.clone().unwrap_or_else(|| to.to_vec());
        let mut young = young.into_iter().filter(|(name, _)| *name < end).peekable();
        let mut files = files.map(fjall::Guard::into_inner).peekable();
        let mut found = Vec::new();
        loop {
            if found.len() == most {
                next = found.last().map(|(name, _): &Pair| [&name[..], &[0]].concat());
                return Ok((found, next));
            }
            let old = match files.peek() {
                Some(Err(_)) => return Err(error(files.next().and_then(Result::err).expect("peeked"))),
                Some(Ok((name, _))) if **name < end[..] => Some(&name[..]),
                _ => None,
            };
            let Some((name, _)) = young.peek() else {
                let Some(_) = old else { return Ok((found, next)) };
                found.extend(files.next().and_then(Result::ok).map(|(name, value)| (name.to_vec(), value.to_vec())));
                continue;
            };
            match old {
                Some(old) if *old < name[..] => {
                    let row = files.next().and_then(Result::ok);
                    found.extend(row.map(|(name, value)| (name.to_vec(), value.to_vec())));
                }
                Some(old) if *old == name[..] => drop(files.next()),
                _ => found.extend(young.next().and_then(|(name, value)| Some((name, value?)))),
            }
        }
    }
}

impl Table for Layers {
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let young = self.shared.young();
        let frozen = young.frozen.as_ref();
        if let Some(row) = young.rows.get(name).or_else(|| frozen.and_then(|layer| layer.get(name))) {
            return Ok(row.clone());
        }
        drop(young);
        Ok(self.shared.files.get(name).map_err(error)?.map(|v| v.to_vec()))
    }

    fn range(&self, from: &[u8], to: &[u8], most: usize) -> Result<Vec<Pair>, Error> {
        let (mut found, mut from) = (Vec::new(), from.to_vec());
        while *from < *to && found.len() < most {
            let (page, next) = self.shared.page(&from, to, most - found.len())?;
            found.extend(page);
            let Some(next) = next else { break };
            from = next;
        }
        Ok(found)
    }

    fn commit(&self, rows: Rows) -> Result<(), Error> {
        let mut young = self.shared.young();
        if young.bytes >= self.shared.layer_bytes {
            young = self.freeze(young);
        }
        if let Some(why) = &young.failed {
            return Err(Error::Table(why.clone()));
        }
        for (name, value) in rows {
            let weigh = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
            young.bytes += name.len() + weigh(&value) + ROW_BYTES;
            let len = name.len();
            if let Some(old) = young.rows.insert(name, value) {
                young.bytes -= len + weigh(&old) + ROW_BYTES;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Tree;
    use super::*;
    use proptest::prelude::*;

    fn name(n: u8) -> Vec<u8> {
        vec![b'k', n / 16, n % 16]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        /// Rows in memory, frozen and in files read as one ordered map, whatever the pages; the layers
        /// are so small that several are written.
        #[test]
        fn layers_read_like_one_map(
            batches in prop::collection::vec(prop::collection::vec((any::<u8>(), prop::option::of(0usize..40)), 1..12), 1..40),
            reads in prop::collection::vec((any::<u8>(), any::<u8>(), 1usize..9), 1..12),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (layers, tree) = (Layers::with_layers_of(folder.path(), 1_500, 3).unwrap(), Tree::default());
            for (at, batch) in batches.into_iter().enumerate() {
                let rows: Rows = batch.iter().map(|(n, len)| (name(*n), len.map(|len| vec![at as u8; len]))).collect();
                layers.commit(rows.clone()).unwrap();
                tree.commit(rows).unwrap();
                let (from, to, most) = reads[at % reads.len()];
                let (from, to) = (name(from), name(to));
                prop_assert_eq!(layers.range(&from, &to, most).unwrap(), tree.range(&from, &to, most).unwrap());
                prop_assert_eq!(layers.get(&from).unwrap(), tree.get(&from).unwrap());
            }
            prop_assert_eq!(layers.range(&[], &[0xff], usize::MAX).unwrap(), tree.range(&[], &[0xff], usize::MAX).unwrap());
            drop(layers);
            // What was written to files is a whole layer, never a part of a batch; here: it still opens.
            Layers::open(folder.path(), 0).unwrap();
        }
    }
}
