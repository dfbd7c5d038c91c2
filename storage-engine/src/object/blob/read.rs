//! A body on its way out: the stripes a range touches, each block verified before it is given.
//!
//! The data shards alone are read while they are well; where one is missing, away or corrupt, that
//! stripe is decoded from any k shards. One stripe is read ahead of the reader. A range that ends in
//! the middle of a stripe reads only the blocks it needs, unless it must be decoded.
use super::{INLINE_WORK_BYTES, slot};
use crate::drive::{self, Drive};
use crate::erasure::bitrot::{self, Shard};
use crate::erasure::code::Code;
use crate::erasure::stripe::{self, Slice, piece_bytes};
use crate::object::{Body, Error, Inner};
use crate::record::{Blob, Record};
use bytes::{Bytes, BytesMut};
use futures::future::{join_all, ready};
use futures::stream::{self, StreamExt};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::task::spawn_blocking;

/// Stripes in work per reader: the one it takes and the one after it.
const STRIPES_AT_ONCE: usize = 2;

impl Inner {
    /// The bytes `range` of a record, over its blobs in order.
    ///
    /// The stream ends with an error, whose source is an [`Error`], when more than m shards of a stripe
    /// are lost ([`Error::Corrupt`]) or out of reach ([`Error::Unavailable`]), or when `range` is not
    /// within the record. No byte is given unverified.
    pub(crate) fn read_blobs(&self, record: &Record, range: Range<u64>) -> Body {
        let held: u64 = record.blobs.iter().map(|b| b.size_bytes).sum();
        if range.end > held && !range.is_empty() {
            let err = Error::Corrupt(format!("{}: {held} bytes are held", record.key()));
            return stream::once(ready(Err(std::io::Error::other(err)))).boxed();
        }
        let mut slices = Vec::new();
        let mut start = 0;
        for blob in &record.blobs {
            let within = range.start.saturating_sub(start)..range.end.saturating_sub(start);
            start += blob.size_bytes;
            if within.start < within.end && within.start < blob.size_bytes {
                let source = Arc::new(Source::new(&self.drives, blob, record.missing));
                slices.push(stripe::slices(blob, within).map(move |slice| (source.clone(), slice)));
            }
        }
        let stripes = stream::iter(slices.into_iter().flatten())
            .map(|(source, slice)| source.read(slice))
            .buffered(STRIPES_AT_ONCE)
            // Nothing follows an error: a reader that went on would get bytes with a hole.
            .scan(false, |ended, stripe| {
                let was = std::mem::replace(ended, stripe.is_err());
                ready((!was).then_some(stripe))
            });
        stripes
            .flat_map(|stripe| match stripe {
                Ok(blocks) => stream::iter(blocks.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(err) => stream::iter(vec![Err(std::io::Error::other(err))]),
            })
            .boxed()
    }
}

/// A blob and what this reader has learnt of its shards.
struct Source {
    drives: Vec<Arc<dyn Drive>>,
    blob: Blob,
    /// Bit per shard that its drive does not give: it is asked only when nothing else is left.
    absent: AtomicU32,
}

/// What came of a stripe's shards.
#[derive(Default)]
struct Losses {
    /// Shards whose drive did not answer.
    away: usize,
}

impl Source {
    fn new(drives: &[Arc<dyn Drive>], blob: &Blob, missing: u32) -> Self {
        let shards = usize::from(blob.k) + usize::from(blob.m);
        let lacks = |i: &usize| missing.checked_shr(slot(blob, *i, drives.len()) as u32).unwrap_or(0) & 1 == 1;
        let absent = (0..shards.min(32)).filter(lacks).fold(0, |bits, i| bits | 1 << i);
        Source { drives: drives.to_vec(), blob: blob.clone(), absent: AtomicU32::new(absent) }
    }
    fn is_absent(&self, shard: usize) -> bool {
        self.absent.load(Ordering::Relaxed).checked_shr(shard as u32).unwrap_or(0) & 1 == 1
    }

    /// The wanted bytes of one stripe.
    async fn read(self: Arc<Self>, slice: Slice) -> Result<Vec<Bytes>, Error> {
        let piece = piece_bytes(slice.data_bytes, usize::from(self.blob.k.max(1)));
        let touched = slice.wanted.start / piece..slice.wanted.end.div_ceil(piece);
        if !touched.clone().any(|shard| self.is_absent(shard)) {
            let reads = touched.map(async |shard| {
                let start = shard * piece;
                let within = slice.wanted.start.max(start) - start..slice.wanted.end.min(start + piece) - start;
                self.read_piece(shard, &slice, within).await
            });
            if let Some(read) = join_all(reads).await.into_iter().map(Result::ok).collect::<Option<Vec<_>>>() {
                return Ok(gathered(read.into_iter().flatten().collect(), slice.wanted.len()));
            }
        }
        let wanted = slice.wanted.clone();
        let data = self.decode(slice).await?;
        Ok(vec![data.slice(wanted)])
    }

    /// Verified bytes of one shard's piece of a stripe, exactly `within`.
    async fn read_piece(&self, shard: usize, slice: &Slice, within: Range<usize>) -> Result<Vec<Bytes>, drive::Error> {
        let place = bitrot::place(&self.blob, slice.stripe, slice.data_bytes, within.clone());
        let slot = slot(&self.blob, shard, self.drives.len());
        let index = u8::try_from(shard).expect("Code::new allows no more than 32 shards, k counts in a u8");
        let framed = self.drives[slot].read_shard(self.blob.id, place.on_drive.clone()).await;
        let verified = framed.and_then(|framed| {
            Shard { blob: self.blob.id, index }
                .verify(&place, &framed)
                .map_err(|err| drive::Error::Corrupt { slot, what: err.to_string() })
        });
        match verified {
            Ok(blocks) => Ok(trimmed(blocks, place.in_piece.start, within)),
            Err(err) => {
                if let drive::Error::Corrupt { .. } = &err {
                    tracing::warn!(drive = slot, stripe = slice.stripe, "Read around a bad block: {err:#}.");
                } else {
                    self.absent.fetch_or(1 << (shard & 31), Ordering::Relaxed);
                }
                Err(err)
            }
        }
    }

    /// All data of a stripe from any k of its shards: data shards first, absent ones last.
    async fn decode(self: Arc<Self>, slice: Slice) -> Result<Bytes, Error> {
        let invalid = |err: crate::erasure::code::Error| Error::Corrupt(format!("blob {}: {err}", self.blob.id));
        let code = Code::new(self.blob.k.into(), self.blob.m.into()).map_err(invalid)?;
        let piece = piece_bytes(slice.data_bytes, code.k());
        let mut order: Vec<usize> = (0..code.shards()).collect();
        order.sort_by_key(|shard| self.is_absent(*shard));
        let mut spare = order.into_iter();
        let mut pieces: Vec<Option<Bytes>> = vec![None; code.shards()];
        let (mut have, mut losses) = (0, Losses::default());
        while have < code.k() {
            let asked: Vec<usize> = spare.by_ref().take(code.k() - have).collect();
            if asked.is_empty() {
                return Err(losses.verdict(&self.blob, have));
            }
            let reads = asked.into_iter().map(async |shard| (shard, self.read_piece(shard, &slice, 0..piece).await));
            for (shard, read) in join_all(reads).await {
                match read {
                    Ok(blocks) => {
                        pieces[shard] = Some(joined(blocks));
                        have += 1;
                    }
                    Err(err) => losses.note(&err),
                }
            }
        }
        let decode = move || {
            let pieces: Vec<Option<&[u8]>> = pieces.iter().map(Option::as_deref).collect();
            stripe::decode(&code, &pieces, slice.data_bytes).map(Bytes::from)
        };
        if slice.data_bytes <= INLINE_WORK_BYTES {
            return decode().map_err(invalid);
        }
        match spawn_blocking(decode).await {
            Ok(decoded) => decoded.map_err(invalid),
            Err(err) => match err.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Unavailable("the store is stopping".into())),
            },
        }
    }
}

impl Losses {
    fn note(&mut self, err: &drive::Error) {
        self.away += usize::from(matches!(err, drive::Error::Offline { .. } | drive::Error::Full { .. }));
    }
    /// Unreachable is not lost: while the drives that are away could make up k, it is a matter of waiting.
    fn verdict(&self, blob: &Blob, have: usize) -> Error {
        match have + self.away >= usize::from(blob.k) {
            true => Error::Unavailable(format!("{have} of {} shards of blob {}", blob.k, blob.id)),
            false => Error::Corrupt(format!("blob {}", blob.id)),
        }
    }
}

/// The part `within` of blocks that begin at `start`.
fn trimmed(blocks: Vec<Bytes>, start: usize, within: Range<usize>) -> Vec<Bytes> {
    let mut at = start;
    let mut out = Vec::with_capacity(blocks.len());
    for block in blocks {
        let span = at..at + block.len();
        let cut = within.start.max(span.start)..within.end.min(span.end);
        if cut.start < cut.end {
            out.push(block.slice(cut.start - at..cut.end - at));
        }
        at = span.end;
    }
    out
}

/// Few bytes in one piece, so that a small object leaves in one write; many as they are, uncopied.
fn gathered(blocks: Vec<Bytes>, bytes: usize) -> Vec<Bytes> {
    if bytes <= INLINE_WORK_BYTES { vec![joined(blocks)] } else { blocks }
}

fn joined(mut blocks: Vec<Bytes>) -> Bytes {
    if blocks.len() == 1 {
        return blocks.pop().expect("its length is 1");
    }
    let mut out = BytesMut::with_capacity(blocks.iter().map(Bytes::len).sum());
    blocks.iter().for_each(|block| out.extend_from_slice(block));
    out.freeze()
}
