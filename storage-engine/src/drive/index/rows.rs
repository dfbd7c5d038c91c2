//! Names and values of the index rows. Pure; `index.rs` alone calls it.
//!
//! `k bucket key 00 01` is the head of a key, `k bucket key 00 01 kind …` what its head has no room for,
//! `f bucket lsn` the feed, `s blob` where a shard stands, `b blob` that a record names the blob as a
//! file, `a` the applied lsn. Numbers are big-endian, so that their order is the order of rows; a zero
//! byte in a key is written 00 FF.
use super::Locator;
use super::held::{Held, Kept};
use crate::drive::Lsn;
use crate::record::{BucketId, Recent};
use crate::version::{Ballot, VersionId};
use uuid::Uuid;

/// The row of the applied lsn.
pub const APPLIED: &[u8] = b"a";
/// First byte of the applied row: rows of another layout are thrown away and made again.
const LAYOUT: u8 = 2;

/// First byte of a head that is followed by all that is held of the key.
const WHOLE: u8 = 1;
/// The only byte of the head of a key whose records have rows of their own.
const SPREAD: &[u8] = &[2];

/// The value of the applied row.
pub fn write_applied(lsn: Lsn) -> Vec<u8> {
    [&[LAYOUT][..], &lsn.to_be_bytes()].concat()
}

/// The applied lsn; `None` for rows of another layout.
pub fn read_applied(value: &[u8]) -> Option<Lsn> {
    match value.split_first()? {
        (&LAYOUT, lsn) => number(lsn),
        _ => None,
    }
}

/// The value of a key's head.
pub fn write_head(held: &Held) -> Vec<u8> {
    if held.is_spread {
        return SPREAD.to_vec();
    }
    let (view, feed) = (&held.view, &held.feed);
    let room = held.kept.iter().map(|k| k.bytes.len() + 5).sum::<usize>() + 24 * (view.aborts.len() + feed.len()) + 4;
    let mut out = Vec::with_capacity(room);
    let count = |n: usize| u8::try_from(n).expect("a head holds a few attempts, see HEAD_ATTEMPTS");
    out.extend([WHOLE, count(view.records.len())]);
    for record in &view.records {
        let bytes = &held.kept(record.id(), record.ballot).expect("kept for every record of a head").bytes;
        out.push(u8::from(record.acked));
        out.extend_from_slice(&u32::try_from(bytes.len()).expect("below HEAD_BYTES").to_be_bytes());
        out.extend_from_slice(bytes);
    }
    let pairs = [
        view.aborts.iter().map(|(id, ballot)| (*id, ballot.bits())).collect::<Vec<_>>(),
        feed.iter().map(|(id, lsn)| (*id, *lsn)).collect(),
    ];
    for pairs in pairs {
        out.push(count(pairs.len()));
        for (id, n) in pairs {
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(&n.to_be_bytes());
        }
    }
    out
}

/// A head read back; `None`: it is no head. Where it is spread, the records have rows of their own.
pub fn read_head(value: &[u8], recent: &Recent) -> Option<Held> {
    if value == SPREAD {
        return Some(Held { is_spread: true, ..Held::default() });
    }
    let mut rest = value.strip_prefix(&[WHOLE])?;
    let mut held = Held::default();
    for _ in 0..take(&mut rest, 1)?[0] {
        let flag = take(&mut rest, 1)?[0];
        let len = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
        let bytes = take(&mut rest, len as usize)?;
        let record = recent.read(bytes).ok()?;
        held.kept.push(Kept { id: record.id(), ballot: record.ballot, bytes: record.bytes().clone() });
        held.view.records.push(if flag == 1 { record.flagged() } else { record });
    }
    for _ in 0..take(&mut rest, 1)?[0] {
        let (id, ballot) = pair(&mut rest)?;
        held.view.aborts.push((id, Ballot::from_bits(ballot)));
    }
    for _ in 0..take(&mut rest, 1)?[0] {
        let (id, lsn) = pair(&mut rest)?;
        held.feed.insert(id, lsn);
    }
    rest.is_empty().then_some(held)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn pair(rest: &mut &[u8]) -> Option<(VersionId, u64)> {
    let id = VersionId::from_bytes(take(rest, 16)?.try_into().ok()?);
    Some((id, number(take(rest, 8)?)?))
}

/// One kind of row under a key, beside its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// A record as it came, the acked flag aside.
    Record(VersionId, Ballot),
    /// That record is flagged acked.
    Ack(VersionId, Ballot),
    /// That attempt never counts.
    Abort(VersionId, Ballot),
    /// The version's place in the feed.
    Feed(VersionId),
}

impl Row {
    /// Reads what follows the key's prefix.
    pub fn read(rest: &[u8]) -> Option<Row> {
        let (kind, rest) = rest.split_first()?;
        let (id, ballot) = rest.split_at_checked(16)?;
        let id = VersionId::from_bytes(id.try_into().ok()?);
        if *kind == b'l' {
            return ballot.is_empty().then_some(Row::Feed(id));
        }
        let ballot = Ballot::from_bits(number(ballot)?);
        match kind {
            b'r' => Some(Row::Record(id, ballot)),
            b'c' => Some(Row::Ack(id, ballot)),
            b'x' => Some(Row::Abort(id, ballot)),
            _ => None,
        }
    }
}

/// The name of a row under a key's prefix.
pub fn name(prefix: &[u8], row: Row) -> Vec<u8> {
    let (kind, id, ballot) = match row {
        Row::Record(id, ballot) => (b'r', id, Some(ballot)),
        Row::Ack(id, ballot) => (b'c', id, Some(ballot)),
        Row::Abort(id, ballot) => (b'x', id, Some(ballot)),
        Row::Feed(id) => (b'l', id, None),
    };
    let mut name = Vec::with_capacity(prefix.len() + 25);
    name.extend_from_slice(prefix);
    name.push(kind);
    name.extend_from_slice(id.as_bytes());
    name.extend(ballot.map(|b| b.bits().to_be_bytes()).into_iter().flatten());
    name
}

/// What the rows of a version's records begin with; the greatest ballot stands last.
pub fn records_of(prefix: &[u8], version: VersionId) -> Vec<u8> {
    [prefix, b"r", version.as_bytes()].concat()
}

/// What every row of a key begins with; the name of its head.
pub fn key_prefix(bucket: BucketId, key: &str) -> Vec<u8> {
    let mut name = prefix_of_keys(bucket, key);
    name.extend_from_slice(&[0, 1]);
    name
}

/// What the rows of all keys that begin with `prefix` begin with.
pub fn prefix_of_keys(bucket: BucketId, prefix: &str) -> Vec<u8> {
    let mut name = Vec::with_capacity(prefix.len() + 48);
    name.push(b'k');
    name.extend_from_slice(bucket.0.as_bytes());
    for byte in prefix.bytes() {
        name.push(byte);
        if byte == 0 {
            name.push(0xff);
        }
    }
    name
}

/// The least name above everything that begins with `prefix`.
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while end.pop_if(|b| *b == 0xff).is_some() {}
    let last = end.last_mut().expect("rows begin with a letter");
    *last += 1;
    end
}

/// Splits a row's name into its key and what follows the key's prefix.
pub fn split(name: &[u8]) -> Option<(String, &[u8])> {
    let body = name.get(17..)?;
    let mut key = Vec::with_capacity(body.len());
    let mut at = 0;
    loop {
        match (body.get(at)?, body.get(at + 1)) {
            (0, Some(0xff)) => {
                key.push(0);
                at += 2;
            }
            (0, Some(1)) => return Some((String::from_utf8(key).ok()?, &body[at + 2..])),
            (0, _) => return None,
            (byte, _) => {
                key.push(*byte);
                at += 1;
            }
        }
    }
}

/// The feed row at an lsn.
pub fn feed(bucket: BucketId, lsn: Lsn) -> Vec<u8> {
    [&b"f"[..], bucket.0.as_bytes(), &lsn.to_be_bytes()].concat()
}

/// A name above every feed row of the bucket.
pub fn feed_end(bucket: BucketId) -> Vec<u8> {
    after_prefix(&[&b"f"[..], bucket.0.as_bytes()].concat())
}

/// The value of a feed row.
pub fn feed_value(key: &str, version: VersionId) -> Vec<u8> {
    [&version.as_bytes()[..], key.as_bytes()].concat()
}

/// A feed row: its lsn, key and version.
pub fn feed_entry(name: &[u8], value: &[u8]) -> Option<(Lsn, String, VersionId)> {
    let (version, key) = value.split_at_checked(16)?;
    let version = VersionId::from_bytes(version.try_into().ok()?);
    Some((number(name.get(17..)?)?, String::from_utf8(key.to_vec()).ok()?, version))
}

/// The row that says where a shard stands in the log.
pub fn shard(blob: Uuid) -> Vec<u8> {
    [&b"s"[..], blob.as_bytes()].concat()
}

/// The row that says a record names the blob as a file.
pub fn shard_file(blob: Uuid) -> Vec<u8> {
    [&b"b"[..], blob.as_bytes()].concat()
}

/// The value of a shard's row.
pub fn write_locator(locator: &Locator) -> Vec<u8> {
    match locator {
        Locator::File => vec![0],
        Locator::Log { segment, offset, len } => {
            [&[1][..], &segment.to_be_bytes(), &offset.to_be_bytes(), &len.to_be_bytes()].concat()
        }
    }
}

/// A shard's row read back.
pub fn read_locator(value: &[u8]) -> Option<Locator> {
    match value.split_first()? {
        (0, []) => Some(Locator::File),
        (1, rest) if rest.len() == 20 => Some(Locator::Log {
            segment: number(&rest[..8])?,
            offset: number(&rest[8..16])?,
            len: u32::from_be_bytes(rest[16..].try_into().ok()?),
        }),
        _ => None,
    }
}

/// A number as rows hold it.
pub fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use crate::version::Version;

    #[test]
    fn a_head_reads_back_and_never_in_part() {
        let (id, ballot) = (VersionId::from_bytes([7; 16]), Ballot::from_millis(5));
        let mut record = Record::new(BucketId::SYSTEM, Version::blank("k", id), ballot);
        let mut held = Held { kept: vec![Kept { id, ballot, bytes: record.to_bytes().into() }], ..Held::default() };
        record.acked = true;
        held.view.records.push(record.into());
        held.view.aborts.push((id, Ballot::from_millis(4)));
        held.feed.insert(id, 9);
        let bytes = write_head(&held);
        let recent = Recent::default();
        assert_eq!(read_head(&bytes, &recent), Some(held));
        for cut in 0..bytes.len() {
            assert_eq!(read_head(&bytes[..cut], &recent), None, "cut at {cut}");
        }
        assert!(read_head(SPREAD, &recent).is_some_and(|held| held.is_spread));
    }

    #[test]
    fn rows_of_another_layout_are_no_rows() {
        assert_eq!(read_applied(&write_applied(7)), Some(7));
        assert_eq!(read_applied(&7u64.to_be_bytes()), None, "the first layout");
    }
}
