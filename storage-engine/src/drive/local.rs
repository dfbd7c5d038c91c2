//! [`LocalDrive`]: one directory (or its twin in memory) behind trait `Drive`, and how stores open.
//!
//! It owns opening (superblock, replay, orphans), the queue to the committer thread, shard files and
//! all reads. It decides nothing about records: that is the committer with the participant's rules.
mod sink;

use super::disk::{Directory, Disk};
use super::format::{OpenError, Superblock, Unreadable, parity};
use super::index::layers::Layers;
use super::index::table::Table;
use super::index::{self, Index, Locator};
use super::log::commit::{Cache, Committer, Job, Message, Promises, SPACE_RESERVE, State, weight};
use super::log::recover::{self, recover};
use super::moves::Moves;
use super::{Drive, Error, Health, Logged, Lsn, ShardSink, log};
use crate::entropy;
use crate::metrics::{FSYNC_BOUNDS, GROUP_BOUNDS, Histogram};
use crate::quorum::participant::{KeyView, Reply, Request};
use crate::record::{BucketId, Recent};
use crate::version::Hlc;
use async_trait::async_trait;
use bytes::Bytes;
use sink::Sink;
use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use tokio::sync::{Semaphore, oneshot, watch};
use uuid::Uuid;

/// Room of the queue, in units of 4 KiB and one per request: 4 MiB of shards wait per drive at most.
const QUEUE_ROOM: u32 = 1_024;
const ROOM_BYTES: usize = 4 << 10;
/// Reads up to this size come from the page cache or one seek and run where they are asked for;
/// longer ones would hold up an async thread.
const READ_INLINE: u64 = 64 << 10;
/// A reader of the feed that is no further behind reads on where it asks: these few changes are in memory as a
/// rule, and a hop to another thread on each of the drives would cost more. Records of the log, acks included.
const TAIL_INLINE: Lsn = 32;
/// Rows of the index gathered while replaying before they are written.
const REPLAY_ROWS: usize = 4_096;
/// The file whose lock says that a process has the drive.
const LOCK: &str = "lock";

/// One drive of this process.
#[derive(Clone)]
pub struct LocalDrive(Arc<Core>);

struct Core {
    slot: usize,
    incarnation: Uuid,
    disk: Arc<dyn Disk>,
    index: Index,
    state: Arc<State>,
    queue: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    lock: Option<Arc<File>>,
}

/// Opens the drives of a store, or makes a new store of empty directories. `parity`: what is configured.
///
/// Every directory is checked before the first is changed. Returns the drives by slot and the parity.
///
/// # Errors
/// [`OpenError`]: what to do is in its text.
pub fn open_store(dirs: &[PathBuf], asked: Option<u8>) -> Result<(Vec<Arc<dyn Drive>>, usize), OpenError> {
    let wanted = parity(dirs.len(), asked)?;
    let locks = dirs.iter().map(|dir| lock(dir)).collect::<Result<Vec<_>, _>>()?;
    let found = dirs.iter().map(|dir| inspect(dir)).collect::<Result<Vec<_>, _>>()?;
    let side = |formatted| {
        dirs.iter().zip(&found).filter(move |(_, f)| f.is_some() == formatted).map(|(d, _)| d.clone()).collect()
    };
    let (formatted, empty): (Vec<PathBuf>, Vec<PathBuf>) = (side(true), side(false));
    let blocks = if formatted.is_empty() {
        format(dirs, wanted)?
    } else if empty.is_empty() {
        found.into_iter().flatten().collect()
    } else {
        return Err(OpenError::Mixed { formatted, empty });
    };
    for (slot, (dir, block)) in dirs.iter().zip(&blocks).enumerate() {
        check(dir, slot, block, &blocks[0], dirs.len(), asked)?;
    }
    let (parity, recent) = (blocks[0].parity.into(), Recent::default());
    let mut drives: Vec<Arc<dyn Drive>> = Vec::new();
    for ((dir, block), lock) in dirs.iter().zip(blocks).zip(locks) {
        drives.push(Arc::new(LocalDrive::open(dir, block, lock, recent.clone())?));
    }
    Ok((drives, parity))
}

fn check(
    dir: &Path,
    slot: usize,
    block: &Superblock,
    first: &Superblock,
    drives: usize,
    asked: Option<u8>,
) -> Result<(), OpenError> {
    let dir = dir.to_path_buf();
    if block.store != first.store {
        return Err(OpenError::OtherStore { dir, found: block.store, expected: first.store });
    }
    let other =
        usize::from(block.drives) != drives || asked.is_some_and(|p| p != block.parity) || block.parity != first.parity;
    if other {
        let wanted = asked.map_or(format!("{drives} drives"), |p| format!("{drives} drives with parity {p}"));
        return Err(OpenError::OtherLayout { dir, drives: block.drives.into(), parity: block.parity.into(), wanted });
    }
    if usize::from(block.slot) != slot {
        return Err(OpenError::WrongSlot { dir, found: block.slot.into(), given: slot });
    }
    Ok(())
}

/// Makes the drives of a new store.
fn format(dirs: &[PathBuf], parity: u8) -> Result<Vec<Superblock>, OpenError> {
    let store = entropy::id();
    let mut blocks = Vec::new();
    for (slot, dir) in (0u8..).zip(dirs) {
        let mut block = Superblock::new(store, entropy::id(), entropy::id(), slot, dirs.len() as u8, parity);
        let disk = Directory::new(dir);
        block.store(&disk).map_err(|source| OpenError::Io { dir: dir.clone(), source })?;
        blocks.push(block);
    }
    Ok(blocks)
}

/// What a directory says it is; `None` for an empty one.
fn inspect(dir: &Path) -> Result<Option<Superblock>, OpenError> {
    let disk = Directory::new(dir);
    let io = |source| OpenError::Io { dir: dir.to_path_buf(), source };
    match Superblock::load(&disk) {
        Ok(Some(block)) => Ok(Some(block)),
        Ok(None) if disk.list("").map_err(io)?.iter().all(|n| n == LOCK || n == "lost+found") => Ok(None),
        Ok(None) => Err(OpenError::NotEmpty { dir: dir.to_path_buf() }),
        Err(Unreadable::Version(found)) => Err(OpenError::UnknownFormat { dir: dir.to_path_buf(), found }),
        Err(Unreadable::Torn(why)) => Err(OpenError::Damaged { dir: dir.to_path_buf(), why }),
        Err(Unreadable::Io(source)) => Err(io(source)),
    }
}

/// Takes the directory for this process; the operating system gives it back when the process ends.
fn lock(dir: &Path) -> Result<Arc<File>, OpenError> {
    let io = |source| OpenError::Io { dir: dir.to_path_buf(), source };
    std::fs::create_dir_all(dir).map_err(io)?;
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK)).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(Arc::new(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::Busy { dir: dir.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Opens the index's table; `true` throws away what is there.
type OpenTable<'a> = &'a dyn Fn(bool) -> Result<Arc<dyn Table>, index::Error>;

impl LocalDrive {
    fn open(dir: &Path, block: Superblock, lock: Arc<File>, recent: Recent) -> Result<Self, OpenError> {
        let (folder, slot) = (dir.join("index"), usize::from(block.slot));
        let table = |fresh: bool| -> Result<Arc<dyn Table>, index::Error> {
            if fresh && folder.exists() {
                std::fs::remove_dir_all(&folder).map_err(|e| index::Error::Table(e.to_string()))?;
            }
            Ok(Arc::new(Layers::open(&folder, slot)?))
        };
        LocalDrive::start(dir, Arc::new(Directory::new(dir)), block, &table, recent, Some(lock))
    }

    /// Replays the log and starts the committer. `dir` only names the drive in errors.
    pub(super) fn start(
        dir: &Path,
        disk: Arc<dyn Disk>,
        superblock: Superblock,
        table: OpenTable<'_>,
        recent: Recent,
        lock: Option<Arc<File>>,
    ) -> Result<Self, OpenError> {
        let (index, log) = replay(dir, &disk, superblock.incarnation, table, &recent)?;
        remove_orphans(&*disk, &index).map_err(|e| e.named(dir))?;
        let state = Arc::new(State {
            offline: OnceLock::new(),
            head: watch::Sender::new(log.synced()),
            moves: Moves::default(),
            ceiling: AtomicU64::new(superblock.ceiling.bits()),
            fsync_seconds: Histogram::new(&FSYNC_BOUNDS),
            group_records: Histogram::new(&GROUP_BOUNDS),
        });
        let (queue, waiting) = mpsc::channel();
        let (slot, incarnation) = (usize::from(superblock.slot), superblock.incarnation);
        let core = Core {
            slot,
            incarnation,
            disk: disk.clone(),
            index: index.clone(),
            state: state.clone(),
            queue,
            room: Arc::new(Semaphore::new(QUEUE_ROOM as usize)),
            lock: lock.clone(),
        };
        let promises = Promises::new(superblock.ceiling);
        let (cache, unshown) = (Cache::default(), BTreeSet::new());
        let committer = Committer { slot, disk, log, index, superblock, state, promises, cache, unshown };
        // A thread of its own: it blocks in fdatasync most of the time, for as long as the drive lives.
        #[allow(clippy::disallowed_methods)]
        std::thread::Builder::new()
            .name(format!("drive-{slot}"))
            .spawn(move || {
                let _held_until_the_last_write = lock;
                committer.run(&waiting);
            })
            .map_err(|source| OpenError::Io { dir: dir.to_path_buf(), source })?;
        Ok(LocalDrive(Arc::new(core)))
    }

    fn offline(&self) -> Option<Error> {
        self.0.state.offline.get().map(|why| Error::Offline { slot: self.0.slot, why: why.clone() })
    }

    fn online(&self) -> Result<(), Error> {
        self.offline().map_or(Ok(()), Err)
    }

    /// Takes the drive offline as a failed write would; nothing more is written.
    pub(super) fn fail(&self, why: &str) -> Error {
        if self.0.state.offline.set(why.to_owned()).is_ok() {
            tracing::error!(drive = self.0.slot, why, "Drive is offline until it is opened again.");
        }
        self.offline().expect("set above")
    }

    pub(super) fn index(&self) -> &Index {
        &self.0.index
    }

    fn corrupt(&self, e: &dyn std::fmt::Display) -> Error {
        Error::Corrupt { slot: self.0.slot, what: e.to_string() }
    }

    /// A failed write of a shard: a full disk hurts nobody, anything else is the drive's end.
    fn write_failed(&self, e: &io::Error) -> Error {
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { slot: self.0.slot },
            _ => self.fail(&format!("write a shard: {e}")),
        }
    }

    /// Runs `work` where blocking is allowed.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let drive = self.clone();
        tokio::task::spawn_blocking(move || work(&drive))
            .await
            .expect("a panic ends the process, the runtime outlives its drives")
    }

    fn read(&self, blob: Uuid, name: &str, range: Range<u64>) -> Result<Bytes, Error> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        match self.0.disk.read_at(name, range.start, len) {
            Ok(bytes) if bytes.len() == len => Ok(bytes.into()),
            Ok(_) => Err(self.corrupt(&format!("shard {blob} (it is too short)"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::NoShard { slot: self.0.slot, blob }),
            Err(e) => Err(self.corrupt(&format!("shard {blob} ({e})"))),
        }
    }
}

/// File name of a shard: 256 folders keep each of them small.
pub(super) fn shard_name(blob: Uuid) -> String {
    format!("data/{:02x}/{blob}.shard", blob.as_bytes()[15])
}

enum Failed {
    Index(index::Error),
    Replay(recover::Error),
    Io(io::Error),
}
impl From<index::Error> for Failed {
    fn from(e: index::Error) -> Self {
        Failed::Index(e)
    }
}
impl From<recover::Error> for Failed {
    fn from(e: recover::Error) -> Self {
        Failed::Replay(e)
    }
}
impl From<io::Error> for Failed {
    fn from(e: io::Error) -> Self {
        Failed::Io(e)
    }
}
impl Failed {
    fn named(self, dir: &Path) -> OpenError {
        let dir = dir.to_path_buf();
        match self {
            Failed::Index(source) => OpenError::Index { dir, source },
            Failed::Replay(source) => OpenError::Log { dir, source },
            Failed::Io(source) => OpenError::Io { dir, source },
        }
    }
}

/// Brings the index up to the log. One that does not open, does not read or is ahead of the log (its
/// last acks were lost with the power) is thrown away and made again.
fn replay(
    dir: &Path,
    disk: &Arc<dyn Disk>,
    incarnation: Uuid,
    table: OpenTable<'_>,
    recent: &Recent,
) -> Result<(Index, log::Log), OpenError> {
    let index = |table| Index::new(table, recent.clone());
    match table(false).map_err(Failed::from).and_then(|t| catch_up(disk, incarnation, index(t))) {
        Ok(Some(done)) => return Ok(done),
        Err(Failed::Replay(e)) => return Err(Failed::Replay(e).named(dir)),
        Ok(None) | Err(_) => tracing::info!(drive = %dir.display(), "Index is rebuilt from the log."),
    }
    let fresh = table(true).map_err(Failed::from).and_then(|t| catch_up(disk, incarnation, index(t)));
    let done = fresh.map_err(|e| e.named(dir))?;
    Ok(done.expect("an empty index is not ahead of a log"))
}

/// `None`: the index is ahead of the log.
fn catch_up(disk: &Arc<dyn Disk>, incarnation: Uuid, index: Index) -> Result<Option<(Index, log::Log)>, Failed> {
    let applied = index.applied()?;
    let (mut cache, mut rows, mut last) = (Cache::default(), Vec::new(), applied);
    let log = recover::<Failed>(disk, incarnation, applied, |found| {
        let key = (found.entry.bucket, found.entry.key.clone());
        let held = cache.held(&index, &key)?;
        Index::stage(held, found.lsn, &found.entry, &mut rows);
        Index::stage_shards(&found.entry, &found.placed, (found.segment, found.offset), &mut rows);
        last = found.lsn;
        if rows.len() >= REPLAY_ROWS {
            index.commit(std::mem::take(&mut rows), last)?;
            cache.trim(REPLAY_ROWS);
        }
        Ok(())
    })?;
    if log.next() <= applied {
        return Ok(None);
    }
    if last > applied {
        index.commit(rows, last)?;
    }
    Ok(Some((index, log)))
}

/// Deletes shard files no record names: whoever wrote them never committed, and never will.
fn remove_orphans(disk: &dyn Disk, index: &Index) -> Result<(), Failed> {
    for folder in disk.list("data")? {
        for file in disk.list(&format!("data/{folder}"))? {
            let blob = file.strip_suffix(".shard").and_then(|id| Uuid::try_parse(id).ok());
            if let Some(blob) = blob
                && !index.names_file(blob)?
            {
                disk.remove(&format!("data/{folder}/{file}"))?;
            }
        }
    }
    Ok(())
}

#[async_trait]
impl Drive for LocalDrive {
    fn slot(&self) -> usize {
        self.0.slot
    }
    fn incarnation(&self) -> Uuid {
        self.0.incarnation
    }
    fn ceiling(&self) -> Hlc {
        Hlc::from_bits(self.0.state.ceiling.load(Ordering::Acquire))
    }

    async fn call(&self, request: Request) -> Result<Reply, Error> {
        let closed = || Error::Offline { slot: self.0.slot, why: "closed".into() };
        let room = (weight(&request) / ROOM_BYTES + 1).min(QUEUE_ROOM as usize) as u32;
        let room = self.0.room.clone().acquire_many_owned(room).await.map_err(|_| closed())?;
        self.online()?;
        let (answer, reply) = oneshot::channel();
        self.0.queue.send(Message::Call(Job { request, answer, room })).map_err(|_| closed())?;
        reply.await.unwrap_or_else(|_| Err(closed()))
    }

    async fn create_shard(&self, blob: Uuid) -> Result<Box<dyn ShardSink>, Error> {
        self.online()?;
        if self.space().0 < SPACE_RESERVE {
            return Err(Error::Full { slot: self.0.slot });
        }
        Ok(Box::new(Sink::new(self.clone(), shard_name(blob))))
    }

    async fn read_shard(&self, blob: Uuid, range: Range<u64>) -> Result<Bytes, Error> {
        self.online()?;
        let (name, range) = match self.0.index.locate(blob).map_err(|e| self.corrupt(&e))? {
            None => return Err(Error::NoShard { slot: self.0.slot, blob }),
            Some(Locator::Log { segment, offset, len }) => {
                if range.end > u64::from(len) {
                    return Err(self.corrupt(&format!("shard {blob} (it is too short)")));
                }
                (log::name(segment), offset + range.start..offset + range.end)
            }
            Some(Locator::File) => (shard_name(blob), range),
        };
        if range.end - range.start <= READ_INLINE {
            return self.read(blob, &name, range);
        }
        self.blocking(move |drive| drive.read(blob, &name, range)).await
    }

    async fn read_key(&self, bucket: BucketId, key: &str) -> Result<KeyView, Error> {
        self.online()?;
        Ok(self.0.index.load(bucket, key).map_err(|e| self.corrupt(&e))?.view)
    }

    async fn scan(
        &self,
        bucket: BucketId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, KeyView)>, Error> {
        self.online()?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let scanned = self.blocking(move |drive| drive.0.index.scan(bucket, &prefix, after.as_deref(), limit)).await;
        scanned.map_err(|e| self.corrupt(&e))
    }

    async fn tail(&self, bucket: BucketId, after: Lsn, limit: usize) -> Result<Vec<Logged>, Error> {
        self.online()?;
        let behind = self.0.state.head.borrow().saturating_sub(after);
        let read = move |drive: &Self| drive.0.index.tail(bucket, after, limit);
        let found = if behind <= TAIL_INLINE { read(self) } else { self.blocking(read).await };
        found.map_err(|e| self.corrupt(&e))
    }

    fn head(&self) -> watch::Receiver<Lsn> {
        self.0.state.head.subscribe()
    }

    fn moves(&self, bucket: BucketId) -> watch::Receiver<Lsn> {
        self.0.state.moves.of(bucket)
    }

    fn health(&self) -> Health {
        Health {
            offline: self.0.state.offline.get().cloned(),
            fsync_seconds: Some(self.0.state.fsync_seconds.read()),
            group_commit_records: Some(self.0.state.group_records.read()),
        }
    }
    fn space(&self) -> (u64, u64) {
        self.0.disk.space().unwrap_or((0, 0))
    }

    async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.0.queue.send(Message::Close(done)).is_ok() {
            // An error means it had ended already.
            drop(closed.await);
        }
        if let Some(lock) = &self.0.lock {
            // Dropping the file would do the same, only later.
            drop(lock.unlock());
        }
    }
}
