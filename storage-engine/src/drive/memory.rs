//! The twin: a whole drive over files in memory that can lose, tear, corrupt, delay and fail.
//!
//! [`MemoryDisk`] stands below the log and the superblock, so that [`MemoryDrive`] runs the very code
//! of a real drive. For tests and simulation only; the store never makes one.
use super::disk::Disk;
use super::format::Superblock;
use super::index::Locator;
use super::index::table::{Table, Tree};
use super::local::{LocalDrive, shard_name};
use super::{Drive, Error, Logged, Lsn, ShardSink, log};
use crate::quorum::participant::{KeyView, Reply, Request};
use crate::record::{BucketId, Recent};
use crate::version::Hlc;
use crate::{drive::format::OpenError, entropy};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// What the disk was told, in order.
#[derive(Clone, Debug)]
pub enum Step {
    /// Bytes at an offset; the file is made.
    Write { name: String, offset: u64, bytes: Vec<u8> },
    /// The file gets this length.
    Length { name: String, len: u64 },
    /// What was written to the file is durable.
    Sync { name: String },
    /// The names of this folder are durable.
    SyncFolder { folder: String },
    /// The file is gone.
    Remove { name: String },
}

/// What a power cut does to what was not synced.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// All of it is lost.
    All,
    /// All of it arrived all the same.
    None,
    /// Each sector of this size is lost or not, by dice from the seed: tearing and reordering.
    Torn { sector_bytes: usize, seed: u64 },
}

#[derive(Clone, Default)]
struct FileState {
    durable: Vec<u8>,
    now: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
    named: bool,
    /// Bytes of the disk it takes, reserved ones included.
    taken: u64,
}

#[derive(Default)]
struct Files {
    files: BTreeMap<String, FileState>,
    steps: Option<Vec<Step>>,
    fault: Option<io::ErrorKind>,
    delay: Duration,
    free: Option<u64>,
}

/// Files in memory.
#[derive(Default)]
pub struct MemoryDisk(Mutex<Files>);

/// Bytes a memory disk says it has.
const SPACE: u64 = 1 << 40;

impl MemoryDisk {
    /// An empty disk that keeps every step it is told; what it holds can be had for any prefix of them.
    pub fn recording() -> Self {
        MemoryDisk(Mutex::new(Files { steps: Some(Vec::new()), ..Files::default() }))
    }
    /// The disk after these steps and a power cut.
    pub fn after(steps: &[Step], loss: Loss) -> Self {
        let disk = MemoryDisk::default();
        for step in steps {
            disk.files().take(step);
        }
        disk.power_cut(loss)
    }
    /// The steps so far.
    pub fn steps(&self) -> Vec<Step> {
        self.files().steps.clone().unwrap_or_default()
    }
    /// What is on the medium after a power cut now.
    pub fn power_cut(&self, loss: Loss) -> Self {
        let before = self.files();
        let files = before.files.iter().filter(|(_, f)| f.named || matches!(loss, Loss::None)).map(|(name, file)| {
            let durable = file.after(loss);
            let taken = durable.len() as u64;
            (name.clone(), FileState { now: durable.clone(), durable, unsynced: Vec::new(), named: true, taken })
        });
        MemoryDisk(Mutex::new(Files { files: files.collect(), ..Files::default() }))
    }
    /// From now on every write, reserve and sync fails so; `None` heals it.
    pub fn set_fault(&self, fault: Option<io::ErrorKind>) {
        self.files().fault = fault;
    }
    /// Every sync takes this long.
    pub fn set_delay(&self, delay: Duration) {
        self.files().delay = delay;
    }
    /// So many bytes are free from now on, and fewer with each that is written; `None`: plenty.
    pub fn set_free(&self, free: Option<u64>) {
        self.files().free = free;
    }
    /// Flips one bit, on the medium and in what is read.
    pub fn flip(&self, name: &str, offset: u64) {
        let mut files = self.files();
        if let Some(file) = files.files.get_mut(name) {
            let at = offset as usize;
            for byte in [file.now.get_mut(at), file.durable.get_mut(at)].into_iter().flatten() {
                *byte ^= 1;
            }
        }
    }
    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn told(&self, step: Step) -> io::Result<()> {
        let mut files = self.files();
        if let Some(fault) = files.fault {
            return Err(fault.into());
        }
        if let Step::Write { name, offset, bytes } = &step {
            files.grow(name, offset + bytes.len() as u64)?;
        }
        files.take(&step);
        if let Some(steps) = &mut files.steps {
            steps.push(step);
        }
        Ok(())
    }
}

impl Files {
    /// Takes room so that the file may have this length.
    fn grow(&mut self, name: &str, len: u64) -> io::Result<()> {
        let file = self.files.entry(name.to_owned()).or_default();
        let more = len.saturating_sub(file.taken);
        if let Some(free) = &mut self.free {
            *free = free.checked_sub(more).ok_or(io::ErrorKind::StorageFull)?;
        }
        file.taken += more;
        Ok(())
    }
    fn take(&mut self, step: &Step) {
        match step {
            Step::Write { name, offset, bytes } => {
                let file = self.files.entry(name.clone()).or_default();
                put(&mut file.now, *offset, bytes);
                file.unsynced.push((*offset, bytes.clone()));
            }
            Step::Length { name, len } => {
                // The length is durable at once: worse for the log than a length that may be lost.
                let file = self.files.entry(name.clone()).or_default();
                file.now.resize(*len as usize, 0);
                file.durable.resize(*len as usize, 0);
            }
            Step::Sync { name } => {
                if let Some(file) = self.files.get_mut(name) {
                    file.durable.clone_from(&file.now);
                    file.unsynced.clear();
                }
            }
            Step::SyncFolder { folder } => {
                let inside = |name: &str| name.rsplit_once('/').map_or("", |(f, _)| f) == folder;
                self.files.iter_mut().filter(|(name, _)| inside(name)).for_each(|(_, f)| f.named = true);
            }
            Step::Remove { name } => {
                let taken = self.files.remove(name).map_or(0, |f| f.taken);
                self.free = self.free.map(|free| free + taken);
            }
        }
    }
}

impl FileState {
    fn after(&self, loss: Loss) -> Vec<u8> {
        let mut left = self.durable.clone();
        match loss {
            Loss::All => {}
            Loss::None => left.clone_from(&self.now),
            Loss::Torn { sector_bytes, mut seed } => {
                for (offset, bytes) in &self.unsynced {
                    let mut at = 0;
                    while at < bytes.len() {
                        // Sectors are aligned to the file, not to the write.
                        let in_sector = (*offset as usize + at) % sector_bytes;
                        let end = bytes.len().min(at + sector_bytes - in_sector);
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        if seed >> 63 == 0 {
                            put(&mut left, offset + at as u64, &bytes[at..end]);
                        }
                        at = end;
                    }
                }
            }
        }
        left
    }
}

fn put(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + bytes.len());
    file.resize(file.len().max(to), 0);
    file[from..to].copy_from_slice(bytes);
}

impl Disk for MemoryDisk {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let start = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let files = self.files();
        let inside = files.files.keys().filter_map(|name| name.strip_prefix(&start)?.split('/').next());
        let mut names: Vec<String> = inside.map(str::to_owned).collect();
        names.dedup();
        Ok(names)
    }
    fn len(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.files().files.get(name).map(|f| f.now.len() as u64))
    }
    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let files = self.files();
        let file = files.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let from = (offset as usize).min(file.now.len());
        Ok(file.now[from..file.now.len().min(from.saturating_add(len))].to_vec())
    }
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.told(Step::Write { name: name.into(), offset, bytes: bytes.into() })
    }
    fn reserve(&self, name: &str, len: u64) -> io::Result<()> {
        // No zeros are kept: a test with eight drives would hold 32 MiB of them.
        self.files().grow(name, len)?;
        self.told(Step::Write { name: name.into(), offset: 0, bytes: Vec::new() })
    }
    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.told(Step::Length { name: name.into(), len })
    }
    fn sync(&self, name: &str) -> io::Result<()> {
        let delay = self.files().delay;
        if !delay.is_zero() {
            #[allow(clippy::disallowed_methods)] // the fault is a slow drive
            std::thread::sleep(delay);
        }
        self.told(Step::Sync { name: name.into() })
    }
    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.told(Step::SyncFolder { folder: folder.into() })
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.told(Step::Remove { name: name.into() })
    }
    fn space(&self) -> io::Result<(u64, u64)> {
        Ok((self.files().free.unwrap_or(SPACE), SPACE))
    }
}

/// A drive without files.
pub struct MemoryDrive {
    drive: LocalDrive,
    disk: Arc<MemoryDisk>,
    offline: AtomicBool,
    mute: AtomicBool,
    /// What is told while the head is held.
    held_head: Mutex<Option<watch::Sender<Lsn>>>,
}

impl MemoryDrive {
    /// A new drive at this slot.
    pub fn new(slot: usize) -> Self {
        let disk = MemoryDisk::default();
        MemoryDrive::format(&disk, slot);
        MemoryDrive::open(disk).expect("a new drive opens")
    }
    /// Makes an empty disk a drive.
    pub fn format(disk: &MemoryDisk, slot: usize) {
        let slot = u8::try_from(slot).expect("a set has at most 16 drives");
        let mut block = Superblock::new(Uuid::nil(), entropy::id(), entropy::id(), slot, 8, 4);
        block.store(disk).expect("a new disk takes writes");
    }
    /// Opens a disk as a drive, its index rebuilt from the log.
    ///
    /// # Errors
    /// As for a real drive.
    pub fn open(disk: MemoryDisk) -> Result<Self, OpenError> {
        let dir = Path::new("memory");
        let damaged = |why: String| OpenError::Damaged { dir: dir.into(), why };
        let disk = Arc::new(disk);
        let block = Superblock::load(&*disk)
            .map_err(|e| damaged(e.to_string()))?
            .ok_or_else(|| damaged("there is none".into()))?;
        let table = |_fresh: bool| -> Result<Arc<dyn Table>, super::index::Error> { Ok(Arc::new(Tree::default())) };
        let drive = LocalDrive::start(dir, disk.clone(), block, &table, Recent::default(), None)?;
        Ok(MemoryDrive {
            drive,
            disk,
            offline: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            held_head: Mutex::default(),
        })
    }
    /// Cuts the power: this drive is offline for good, the one returned has what was synced.
    pub fn crash(&self) -> MemoryDrive {
        self.drive.fail("power cut");
        MemoryDrive::open(self.disk.power_cut(Loss::All)).expect("a drive recovers from a power cut")
    }
    /// While `true` every call fails as if the drive were unreachable; nothing is lost.
    pub fn set_offline(&self, offline: bool) {
        self.offline.store(offline, Ordering::Release);
    }
    /// While `true` no request is judged, as if the road to the committer were cut; shards come and go.
    pub fn set_mute(&self, mute: bool) {
        self.mute.store(mute, Ordering::Release);
    }
    /// While `true` what is logged can be read before the head tells of it, for as long as it may take.
    pub fn hold_head(&self, held: bool) {
        let now = || watch::Sender::new(*self.drive.head().borrow());
        *self.held_head.lock().unwrap_or_else(PoisonError::into_inner) = held.then(now);
    }
    /// Flips a bit in the middle of the drive's shard of a blob; whether it holds one.
    pub fn corrupt_shard(&self, blob: Uuid) -> bool {
        match self.drive.index().locate(blob).expect("rows in memory read") {
            None => false,
            Some(Locator::Log { segment, offset, len }) => {
                self.disk.flip(&log::name(segment), offset + u64::from(len) / 2);
                true
            }
            Some(Locator::File) => {
                let name = shard_name(blob);
                let len = self.disk.len(&name).ok().flatten();
                self.disk.flip(&name, len.unwrap_or(0) / 2);
                len.is_some()
            }
        }
    }
    /// The files below, for faults.
    pub fn disk(&self) -> &MemoryDisk {
        &self.disk
    }
    /// Every row of the index.
    pub fn rows(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.drive.index().dump().expect("rows in memory read")
    }
    fn reachable(&self) -> Result<&LocalDrive, Error> {
        if self.offline.load(Ordering::Acquire) {
            return Err(Error::Offline { slot: self.drive.slot(), why: "set offline".into() });
        }
        Ok(&self.drive)
    }
}

#[async_trait]
impl Drive for MemoryDrive {
    fn slot(&self) -> usize {
        self.drive.slot()
    }
    fn incarnation(&self) -> Uuid {
        self.drive.incarnation()
    }
    fn ceiling(&self) -> Hlc {
        self.drive.ceiling()
    }
    async fn call(&self, request: Request) -> Result<Reply, Error> {
        if self.mute.load(Ordering::Acquire) {
            return Err(Error::Offline { slot: self.drive.slot(), why: "set mute".into() });
        }
        self.reachable()?.call(request).await
    }
    async fn create_shard(&self, blob: Uuid) -> Result<Box<dyn ShardSink>, Error> {
        self.reachable()?.create_shard(blob).await
    }
    async fn read_shard(&self, blob: Uuid, range: Range<u64>) -> Result<Bytes, Error> {
        self.reachable()?.read_shard(blob, range).await
    }
    async fn read_key(&self, bucket: BucketId, key: &str) -> Result<KeyView, Error> {
        self.reachable()?.read_key(bucket, key).await
    }
    async fn scan(
        &self,
        bucket: BucketId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, KeyView)>, Error> {
        self.reachable()?.scan(bucket, prefix, after, limit).await
    }
    async fn tail(&self, bucket: BucketId, after: Lsn, limit: usize) -> Result<Vec<Logged>, Error> {
        self.reachable()?.tail(bucket, after, limit).await
    }
    fn head(&self) -> watch::Receiver<Lsn> {
        let held = self.held_head.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map_or_else(|| self.drive.head(), watch::Sender::subscribe)
    }
    fn moves(&self, bucket: BucketId) -> watch::Receiver<Lsn> {
        let held = self.held_head.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map_or_else(|| self.drive.moves(bucket), watch::Sender::subscribe)
    }
    fn space(&self) -> (u64, u64) {
        self.drive.space()
    }
    async fn close(&self) {
        self.drive.close().await;
    }
}
