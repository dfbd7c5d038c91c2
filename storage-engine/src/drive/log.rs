//! The commit log of one drive: the durability point.
//!
//! [`Log`] appends encoded batches to segments and syncs them; `segment` knows the bytes, `recover`
//! reads them back, `commit` is the thread that owns it all. A write or sync that failed is never
//! tried again: the caller takes the drive offline.
pub mod commit;
pub mod recover;
pub mod segment;

use crate::drive::Lsn;
use crate::drive::disk::Disk;
use segment::SEGMENT_HEADER;
use std::io;
use std::sync::Arc;
use uuid::Uuid;

/// Bytes of a segment: few files for a large drive, and small enough to copy when compacting.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Space is taken from the file system in steps of this size, so that a full disk shows before a
/// batch is written, and a small store stays small. The sync after a step writes its zeros: some
/// milliseconds.
const RESERVE_STEP: u64 = 1 << 20;

/// Why an append did nothing, or the log ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No room; nothing was written and the log goes on.
    #[error("no room for the log")]
    Full,
    /// A write or sync failed: what is on the medium is unknown until the drive is opened again.
    #[error("write the log")]
    Io(#[from] io::Error),
}

/// The end of the log, where batches are added.
pub struct Log {
    disk: Arc<dyn Disk>,
    incarnation: Uuid,
    segment: u64,
    offset: u64,
    reserved: u64,
    next: Lsn,
    synced: Lsn,
}

/// File name of a segment.
pub fn name(segment: u64) -> String {
    format!("log/{segment:08}.seg")
}

impl Log {
    /// The life of the drive whose records these are.
    pub fn incarnation(&self) -> Uuid {
        self.incarnation
    }
    /// The lsn the next record gets.
    pub fn next(&self) -> Lsn {
        self.next
    }
    /// The last lsn that survives a power cut.
    pub fn synced(&self) -> Lsn {
        self.synced
    }

    /// Adds `count` records, encoded from [`next`](Self::next) on, with one write. Not yet synced.
    /// Tells the segment and the offset at which `batch` stands.
    pub fn append(&mut self, batch: &[u8], count: u64) -> Result<(u64, u64), Error> {
        let len = batch.len() as u64;
        if self.offset + len > SEGMENT_BYTES && self.offset > SEGMENT_HEADER {
            self.rotate()?;
        }
        let end = self.offset + len;
        if end > self.reserved {
            let upto = end.next_multiple_of(RESERVE_STEP);
            self.disk.reserve(&name(self.segment), upto).map_err(full)?;
            self.reserved = upto;
        }
        self.disk.write_at(&name(self.segment), self.offset, batch)?;
        let at = self.offset;
        self.offset = end;
        self.next += count;
        Ok((self.segment, at))
    }

    /// Makes everything appended durable.
    pub fn sync(&mut self) -> Result<(), Error> {
        if self.synced + 1 < self.next {
            self.disk.sync(&name(self.segment))?;
            self.synced = self.next - 1;
        }
        Ok(())
    }

    /// Starts the next segment. The old one is whole and synced before the new one exists, so only
    /// the newest can have a torn tail.
    fn rotate(&mut self) -> Result<(), Error> {
        self.sync()?;
        let (segment, reserved) = (self.segment + 1, RESERVE_STEP);
        create(&*self.disk, self.incarnation, segment, self.next)?;
        *self = Log { segment, reserved, offset: SEGMENT_HEADER, disk: self.disk.clone(), ..*self };
        Ok(())
    }
}

/// Makes an empty segment, durable with its name.
fn create(disk: &dyn Disk, incarnation: Uuid, segment: u64, first: Lsn) -> Result<(), Error> {
    let name = name(segment);
    if let Err(e) = disk.reserve(&name, RESERVE_STEP) {
        disk.remove(&name)?;
        return Err(full(e));
    }
    disk.write_at(&name, 0, &segment::segment_header(incarnation, first))?;
    disk.sync(&name)?;
    disk.sync_folder("log")?;
    Ok(())
}

fn full(e: io::Error) -> Error {
    if e.kind() == io::ErrorKind::StorageFull || e.kind() == io::ErrorKind::QuotaExceeded {
        Error::Full
    } else {
        Error::Io(e)
    }
}
