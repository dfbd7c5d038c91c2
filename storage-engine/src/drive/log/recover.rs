//! Reading the log back: replay, the torn tail, and the media fault that is not one.
//!
//! A record that does not check out is torn exactly when nothing written after its sync follows it:
//! each record says how many before it were unsynced, so a later whole record whose unsynced ones do
//! not reach back to the bad place proves the bad one had been synced. Called once, at open.
use super::segment::{self, Entry, HEADER, Header, MAGIC, Placed, SEGMENT_HEADER};
use super::{Log, create, name};
use crate::drive::Lsn;
use crate::drive::disk::Disk;
use std::io;
use std::sync::Arc;
use uuid::Uuid;

/// Why the log cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Synced bytes are gone or changed: the drive must be rebuilt from its peers.
    #[error("{segment} is damaged at byte {offset}: record {lsn} had been synced")]
    Fault { segment: String, offset: u64, lsn: Lsn },
    /// A whole record this version cannot read.
    #[error("{segment} at byte {offset}: {source}")]
    Unknown { segment: String, offset: u64, source: crate::wire::Error },
    /// The log could not be written or extended.
    #[error(transparent)]
    Log(#[from] super::Error),
    /// A read or a repair failed.
    #[error("read the log")]
    Io(#[from] io::Error),
}

/// One record read back.
pub struct Replayed {
    /// Its place in the log.
    pub lsn: Lsn,
    /// What it changes.
    pub entry: Entry,
    /// Segment in which it stands.
    pub segment: u64,
    /// Offset in the segment of its payload; `placed` counts from there.
    pub offset: u64,
    /// Where the shards stand in the payload.
    pub placed: Placed,
}

/// Reads every record above `after` in order, cuts a torn tail, and opens the log for appending.
///
/// Segments wholly at or below `after` are not read.
pub fn recover<E: From<Error>>(
    disk: &Arc<dyn Disk>,
    incarnation: Uuid,
    after: Lsn,
    mut visit: impl FnMut(Replayed) -> Result<(), E>,
) -> Result<Log, E> {
    let segments = segments(&**disk, incarnation)?;
    let skip = segments.iter().rposition(|(_, first)| *first <= after + 1).unwrap_or(0);
    let mut end = (0, SEGMENT_HEADER);
    let mut next = segments.get(skip).map_or(1, |(_, first)| *first);
    for (i, (number, first)) in segments.iter().enumerate().skip(skip) {
        if *first != next {
            return Err(fault(end.0, end.1, next).into());
        }
        let newest = i + 1 == segments.len();
        let mut window = Window::open(&**disk, *number, incarnation)?;
        let mut offset = SEGMENT_HEADER;
        while let Some((header, record)) = window.record(offset, next).map_err(Error::from)? {
            if header.lsn > after {
                visit(replayed(*number, offset, header, record)?)?;
            }
            offset += (HEADER + header.length) as u64;
            next += 1;
        }
        if !window.is_tail(offset, next, newest).map_err(Error::from)? {
            return Err(fault(*number, offset, next).into());
        }
        end = (*number, offset);
    }
    open_end(disk, incarnation, end, next).map_err(E::from)
}

fn fault(segment: u64, offset: u64, lsn: Lsn) -> Error {
    Error::Fault { segment: name(segment), offset, lsn }
}

fn replayed(segment: u64, offset: u64, header: Header, record: &[u8]) -> Result<Replayed, Error> {
    let (entry, placed) = segment::decode(header.kind, &record[HEADER..]).map_err(|source| Error::Unknown {
        segment: name(segment),
        offset,
        source,
    })?;
    Ok(Replayed { lsn: header.lsn, entry, segment, offset: offset + HEADER as u64, placed })
}

/// Numbers and first lsns. A newest segment whose header was torn held nothing yet and is removed.
fn segments(disk: &dyn Disk, incarnation: Uuid) -> Result<Vec<(u64, Lsn)>, Error> {
    let mut numbers: Vec<u64> = disk.list("log")?.iter().filter_map(|n| n.strip_suffix(".seg")?.parse().ok()).collect();
    numbers.sort_unstable();
    let mut found = Vec::new();
    for number in &numbers {
        let header = disk.read_at(&name(*number), 0, SEGMENT_HEADER as usize)?;
        match segment::read_segment_header(&header, incarnation) {
            Some(first) => found.push((*number, first)),
            None if Some(number) == numbers.last()
                && Window::open(disk, *number, incarnation)?.is_tail(0, 0, true)? =>
            {
                disk.remove(&name(*number))?;
                disk.sync_folder("log")?;
            }
            None => return Err(fault(*number, 0, 0)),
        }
    }
    Ok(found)
}

/// Cuts what is torn, so that no ghost of it can ever continue the log, and opens the end.
fn open_end(disk: &Arc<dyn Disk>, incarnation: Uuid, end: (u64, u64), next: Lsn) -> Result<Log, Error> {
    let (mut segment, offset) = end;
    if segment == 0 {
        segment = 1;
        create(&**disk, incarnation, segment, next)?;
    } else {
        disk.truncate(&name(segment), offset)?;
        disk.sync(&name(segment))?;
    }
    Ok(Log { disk: disk.clone(), incarnation, segment, offset, reserved: offset, next, synced: next - 1 })
}

/// Bytes read ahead: one read per MiB of log, and bounded memory whatever the log holds.
const WINDOW: usize = 1 << 20;

/// A segment read through a sliding window.
struct Window<'a> {
    disk: &'a dyn Disk,
    incarnation: Uuid,
    name: String,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn open(disk: &'a dyn Disk, segment: u64, incarnation: Uuid) -> Result<Self, Error> {
        let name = name(segment);
        let len = disk.len(&name)?.unwrap_or(0);
        Ok(Window { disk, incarnation, name, len, start: 0, bytes: Vec::new() })
    }

    /// Up to `len` bytes at `offset`, fewer only at the end.
    fn at(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let len = len.min(usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX));
        let end = offset + len as u64;
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            self.bytes = self.disk.read_at(&self.name, offset, len.max(WINDOW))?;
            self.start = offset;
        }
        let from = ((offset - self.start) as usize).min(self.bytes.len());
        Ok(&self.bytes[from..(from + len).min(self.bytes.len())])
    }

    /// The record with this lsn at `offset`; `None` where there is no whole one.
    fn record(&mut self, offset: u64, lsn: Lsn) -> io::Result<Option<(Header, &[u8])>> {
        let Some(header) = Header::read(self.at(offset, HEADER)?) else { return Ok(None) };
        if header.lsn != lsn {
            return Ok(None);
        }
        let incarnation = self.incarnation;
        let record = self.at(offset, HEADER + header.length)?;
        Ok(header.holds(record, incarnation).then_some((header, record)))
    }

    /// Whether nothing from `offset` on proves that record `lsn` had been synced. In any segment but
    /// the newest everything had been: there the rest must be the zeros it was made of.
    fn is_tail(&mut self, mut offset: u64, lsn: Lsn, newest: bool) -> io::Result<bool> {
        while offset < self.len {
            let chunk = self.at(offset, WINDOW)?;
            let Some(step) =
                (if newest { chunk.windows(4).position(|w| w == MAGIC) } else { chunk.iter().position(|b| *b != 0) })
            else {
                // Overlap by three, so that a magic across two windows is met.
                offset += (chunk.len() as u64).saturating_sub(3).max(1);
                continue;
            };
            if !newest {
                return Ok(false);
            }
            offset += step as u64;
            if let Some(header) = Header::read(self.at(offset, HEADER)?) {
                let incarnation = self.incarnation;
                let whole = self.at(offset, HEADER + header.length)?;
                if header.lsn.saturating_sub(header.unsynced.into()) > lsn && header.holds(whole, incarnation) {
                    return Ok(false);
                }
            }
            offset += 1;
        }
        Ok(true)
    }
}
