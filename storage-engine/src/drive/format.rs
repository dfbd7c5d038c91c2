//! The superblock of a drive: who it is, where it stands, what it promised; and the checks at open.
//!
//! Two copies are written in turn, so that a torn write leaves the older one. Called by `local.rs` and
//! `memory.rs` at open and by the committer when it raises the ceiling or the epoch.
use crate::drive::disk::Disk;
use crate::version::Hlc;
use crate::wire::{self, Fields};
use crc_fast::CrcAlgorithm::Crc32Iscsi;
use std::io;
use std::path::PathBuf;
use uuid::Uuid;

/// The only format version so far.
pub const FORMAT_VERSION: u32 = 1;
/// Most drives in a set.
pub const DRIVES_MAX: usize = 16;
const MAGIC: [u8; 8] = *b"ISTHMSUP";
/// Bytes of a superblock: one page, so that it is torn at few places.
const BLOCK: usize = 4096;
const NAMES: [&str; 2] = ["superblock.a", "superblock.b"];

/// Why drives were not opened. Each says what to do; all are found before anything is changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The number of drives or parity shards makes no store.
    #[error("impossible layout: {0}")]
    Layout(String),
    /// Some directories are drives and some are empty.
    #[error("{} formatted already but {} empty; give all drives of the store, or only empty directories for a new one", are(.formatted), are(.empty))]
    Mixed { formatted: Vec<PathBuf>, empty: Vec<PathBuf> },
    /// A directory with files that are not a drive's.
    #[error("{} is not empty and no drive of ours; give an empty directory", .dir.display())]
    NotEmpty { dir: PathBuf },
    /// A drive of another store.
    #[error("{} belongs to store {found}, the first drive to store {expected}; give the drives of one store", .dir.display())]
    OtherStore { dir: PathBuf, found: Uuid, expected: Uuid },
    /// A drive in another's place.
    #[error("{} is drive {found} of its store but was given as drive {given}; give the directories in their first order", .dir.display())]
    WrongSlot { dir: PathBuf, found: usize, given: usize },
    /// The store was made with another layout.
    #[error("{} was formatted for {drives} drives with parity {parity}, not {wanted}; a layout never changes, configure the old one", .dir.display())]
    OtherLayout { dir: PathBuf, drives: usize, parity: usize, wanted: String },
    /// Made by a later version.
    #[error("{} has format version {found}, this program knows {FORMAT_VERSION}; use the newer program", .dir.display())]
    UnknownFormat { dir: PathBuf, found: u32 },
    /// Another process has it.
    #[error("{} is in use by another process; stop that one first", .dir.display())]
    Busy { dir: PathBuf },
    /// Neither superblock is readable.
    #[error("both superblocks of {} are damaged: {why}; restore one from a copy or replace the drive", .dir.display())]
    Damaged { dir: PathBuf, why: String },
    /// The log does not replay.
    #[error("the log of {} does not replay; the drive must be replaced and rebuilt", .dir.display())]
    Log { dir: PathBuf, source: super::log::recover::Error },
    /// The index cannot be made.
    #[error("the index of {} cannot be opened or rebuilt; delete its folder index/ if it is damaged", .dir.display())]
    Index { dir: PathBuf, source: super::index::Error },
    /// The file system said no.
    #[error("open the drive at {}", .dir.display())]
    Io { dir: PathBuf, source: io::Error },
}

fn are(dirs: &[PathBuf]) -> String {
    let names: Vec<_> = dirs.iter().map(|d| d.display().to_string()).collect();
    format!("{} {}", names.join(", "), if dirs.len() == 1 { "is" } else { "are" })
}

/// What a drive says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The store it belongs to.
    pub store: Uuid,
    /// The drive.
    pub drive: Uuid,
    /// This life of its content.
    pub incarnation: Uuid,
    /// Index in its set, 0-based.
    pub slot: u8,
    /// Drives in the set.
    pub drives: u8,
    /// Parity shards.
    pub parity: u8,
    /// Highest epoch it adopted.
    pub epoch: u64,
    /// No promise, fence or record is above it.
    pub ceiling: Hlc,
    /// Rises with each write; the greater of two whole copies counts.
    pub generation: u64,
    /// Fields of a later format.
    pub unknown: Fields,
}

impl Superblock {
    /// A new drive of a new store.
    pub fn new(store: Uuid, drive: Uuid, incarnation: Uuid, slot: u8, drives: u8, parity: u8) -> Self {
        let (epoch, ceiling, generation) = (1, Hlc::ZERO, 0);
        Superblock {
            store,
            drive,
            incarnation,
            slot,
            drives,
            parity,
            epoch,
            ceiling,
            generation,
            unknown: Fields::default(),
        }
    }

    /// The block as written.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut f = self.unknown.clone();
        f.put_bytes(1, self.store.as_bytes());
        f.put_bytes(2, self.drive.as_bytes());
        f.put_bytes(3, self.incarnation.as_bytes());
        f.put(4, &self.slot);
        f.put(5, &self.drives);
        f.put(6, &self.parity);
        f.put(7, &FORMAT_VERSION);
        f.put(8, &self.epoch);
        f.put(9, &self.ceiling.bits());
        f.put(10, &self.generation);
        let body = f.to_bytes();
        let mut block = Vec::with_capacity(BLOCK);
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&(body.len() as u32).to_le_bytes());
        block.extend_from_slice(&(crc_fast::checksum(Crc32Iscsi, &body) as u32).to_le_bytes());
        block.extend_from_slice(&body);
        block.resize(block.len().max(BLOCK), 0);
        block
    }

    /// Reads a block.
    ///
    /// # Errors
    /// What is wrong with it; [`Unreadable::Version`] only for a whole block of a later format.
    pub fn from_bytes(block: &[u8]) -> Result<Self, Unreadable> {
        let torn = || Unreadable::Torn("its checksum does not match".into());
        if block.len() < 16 || block[..8] != MAGIC {
            return Err(Unreadable::Torn("it has no magic number".into()));
        }
        let len = u32::from_le_bytes(block[8..12].try_into().expect("four bytes")) as usize;
        let crc = u32::from_le_bytes(block[12..16].try_into().expect("four bytes"));
        let body = block.get(16..16 + len).ok_or_else(torn)?;
        if crc_fast::checksum(Crc32Iscsi, body) as u32 != crc {
            return Err(torn());
        }
        let mut f = Fields::parse(body)?;
        let version: u32 = f.need(7)?;
        if version != FORMAT_VERSION {
            return Err(Unreadable::Version(version));
        }
        let mut id = |key| {
            let bytes = f.take_bytes(key)?.ok_or(wire::Error::Missing(key))?;
            Uuid::from_slice(&bytes).map_err(|_| wire::Error::Malformed("an id has 16 bytes".into()))
        };
        let (store, drive, incarnation) = (id(1)?, id(2)?, id(3)?);
        Ok(Superblock {
            store,
            drive,
            incarnation,
            slot: f.need(4)?,
            drives: f.need(5)?,
            parity: f.need(6)?,
            epoch: f.need(8)?,
            ceiling: Hlc::from_bits(f.need(9)?),
            generation: f.need(10)?,
            unknown: f,
        })
    }

    /// Writes the next generation over the older copy and syncs it.
    ///
    /// # Errors
    /// The disk's; whether the write took effect is then unknown.
    pub fn store(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.generation += 1;
        let name = NAMES[(self.generation % 2) as usize];
        let is_new = disk.len(name)?.is_none();
        disk.write_at(name, 0, &self.to_bytes())?;
        disk.sync(name)?;
        // A copy whose name is lost with the power is no copy.
        if is_new { disk.sync_folder("") } else { Ok(()) }
    }

    /// The newer whole copy; `None` where there is no copy at all.
    ///
    /// # Errors
    /// [`Unreadable`] when there are copies and none is whole, or one is of a later format.
    pub fn load(disk: &dyn Disk) -> Result<Option<Self>, Unreadable> {
        let mut newest: Option<Superblock> = None;
        let mut why = None;
        for name in NAMES {
            if disk.len(name)?.is_none() {
                continue;
            }
            match Superblock::from_bytes(&disk.read_at(name, 0, BLOCK)?) {
                Ok(read) if newest.as_ref().is_none_or(|n| n.generation < read.generation) => newest = Some(read),
                Ok(_) => {}
                Err(Unreadable::Torn(what)) => why = Some(Unreadable::Torn(format!("{name}: {what}"))),
                Err(other) => return Err(other),
            }
        }
        match (newest, why) {
            (None, Some(why)) => Err(why),
            (newest, _) => Ok(newest),
        }
    }
}

/// What is wrong with a superblock.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not what was written.
    #[error("{0}")]
    Torn(String),
    /// Of a later format.
    #[error("format version {0}")]
    Version(u32),
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<wire::Error> for Unreadable {
    fn from(e: wire::Error) -> Self {
        Unreadable::Torn(e.to_string())
    }
}

/// The parity of a set of `drives`: what was asked for, or the default by their number.
///
/// # Errors
/// [`OpenError::Layout`] when no such store can exist.
///
/// # Source
/// Defaults: 1+0, 1+1, 2+2, 4+4, 8+4, 12+4; half of the drives, at most 4.
pub fn parity(drives: usize, asked: Option<u8>) -> Result<u8, OpenError> {
    if !(1..=DRIVES_MAX).contains(&drives) {
        return Err(OpenError::Layout(format!("{drives} drives; a store has 1 to {DRIVES_MAX}")));
    }
    let half = (drives / 2) as u8;
    match asked {
        None => Ok(half.min(4)),
        Some(parity) if parity <= half => Ok(parity),
        Some(parity) => Err(OpenError::Layout(format!(
            "parity {parity} on {drives} drives; it is at most half of the drives, {half}"
        ))),
    }
}
