//! A body on its way in: gathered into stripes, hashed, coded, spread over the drives.
//!
//! While one stripe is hashed, coded and written, the next one is gathered: two stripes of memory per
//! stream and no more. MD5 is the slowest of it and runs beside the coding, both off the async threads.
//! A dropped future leaves nothing behind: unsealed shards vanish and no record names the blob.
use super::digest::{self, Sums};
use super::{Data, INLINE_WORK_BYTES, slot};
use crate::drive::{self, Drive, ShardSink};
use crate::entropy;
use crate::erasure::code::Code;
use crate::erasure::stripe::{self, STRIPE_BYTES};
use crate::object::{Body, Error, Expect, Inner};
use crate::record::Blob;
use crate::wire::Fields;
use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use futures::stream::{Fuse, StreamExt};
use md5::{Digest, Md5};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use uuid::Uuid;

/// Bytes of a shard up to which it travels inside its record; larger ones get a file of their own
/// (`storage-engine/README.md`, drives).
const INLINE_SHARD_BYTES: usize = 1 << 20;

/// How long one drive may take for one piece before the stream goes on without it. A disk that answers
/// at all answers within seconds; the client's own timeout is usually 60 s.
const SINK_PATIENCE: Duration = Duration::from_secs(10);

/// A body that is on the drives but that no record names yet.
#[derive(Debug)]
pub(crate) struct StoredBody {
    /// Where the bytes are, and which drives lost their shard on the way.
    pub(crate) data: Data,
    pub(crate) size_bytes: u64,
    pub(crate) md5: [u8; 16],
    pub(crate) crc64nvme: u64,
    /// What the client asked for: lower-case algorithm to base64.
    pub(crate) checksums: BTreeMap<String, String>,
}

impl Inner {
    /// Takes a body to its clean end, verifies everything `expect` says and spreads it over the drives.
    ///
    /// # Errors
    /// - [`Error::Body`]: the stream failed or ended before `expect.size_bytes`.
    /// - [`Error::BadDigest`]: it is longer than said, or a checksum differs.
    /// - [`Error::Unavailable`], [`Error::Full`]: fewer than a write quorum of drives took their shard.
    ///
    /// In each case nothing remains.
    pub(crate) async fn store_body(&self, body: Body, expect: Expect) -> Result<StoredBody, Error> {
        let sums = Sums::new(&expect)?;
        let mut intake = Intake { body: body.fuse(), rest: Bytes::new(), received: 0, size_bytes: expect.size_bytes };
        let mut stripe = intake.gather().await?;
        let mut spread = Spread::new(self, expect.size_bytes.unwrap_or(stripe.len() as u64)).await?;
        let mut hashes = Hashes { md5: Md5::new(), sums };
        while !stripe.is_empty() {
            let (next, done) = tokio::try_join!(intake.gather(), spread.take(hashes, stripe))?;
            (stripe, hashes) = (next, done);
        }
        let md5: [u8; 16] = hashes.md5.finalize().into();
        let (crc64nvme, checksums) = hashes.sums.finish();
        digest::verify(expect, &md5, &checksums)?;
        let data = spread.finish(intake.received).await?;
        Ok(StoredBody { data, size_bytes: intake.received, md5, crc64nvme, checksums })
    }
}

/// The body, stripe by stripe.
struct Intake {
    /// Fused: a stripe that is full exactly at the end asks once more.
    body: Fuse<Body>,
    /// What came beyond the last stripe.
    rest: Bytes,
    received: u64,
    size_bytes: Option<u64>,
}

impl Intake {
    /// The next stripe; shorter than a stripe only at the clean end, empty behind it.
    async fn gather(&mut self) -> Result<Bytes, Error> {
        let want = STRIPE_BYTES as usize;
        let mut stripe = BytesMut::new();
        loop {
            let take = self.rest.len().min(want - stripe.len());
            if stripe.is_empty() && take > 0 {
                stripe.reserve(self.expected(want));
            }
            stripe.extend_from_slice(&self.rest.split_to(take));
            if stripe.len() == want {
                return Ok(stripe.freeze());
            }
            match self.body.next().await {
                Some(chunk) => self.admit(chunk.map_err(Error::Body)?)?,
                None => break,
            }
        }
        match self.size_bytes {
            Some(size) if self.received < size => {
                let why = format!("{} of {size} bytes came", self.received);
                Err(Error::Body(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, why)))
            }
            _ => Ok(stripe.freeze()),
        }
    }
    fn admit(&mut self, chunk: Bytes) -> Result<(), Error> {
        self.received += chunk.len() as u64;
        if self.size_bytes.is_some_and(|size| self.received > size) {
            return Err(Error::BadDigest("Content-Length".into()));
        }
        self.rest = chunk;
        Ok(())
    }
    /// Bytes still to come as far as the client said, at most `want`: what to make room for.
    fn expected(&self, want: usize) -> usize {
        let left = self.size_bytes.map_or(0, |size| size.saturating_sub(self.received) + self.rest.len() as u64);
        usize::try_from(left).unwrap_or(want).min(want)
    }
}

/// The checksums so far; they move to the thread that works on them and back.
struct Hashes {
    md5: Md5,
    sums: Sums,
}

/// Where the pieces go.
enum Output {
    /// One buffer per shard.
    Inline(Vec<Vec<u8>>),
    /// One sink per shard; `None`: that drive failed, its shard will be missing.
    Files(Vec<Option<Box<dyn ShardSink>>>),
}

/// A blob in the making.
struct Spread<'a> {
    drives: &'a [Arc<dyn Drive>],
    write_quorum: usize,
    code: Arc<Code>,
    blob: Blob,
    stripes: u64,
    output: Output,
    /// Some drive had no room.
    is_full: bool,
}

impl<'a> Spread<'a> {
    async fn new(inner: &'a Inner, size_hint: u64) -> Result<Self, Error> {
        let (n, k) = (inner.quorum.n, inner.quorum.k);
        let code = Code::new(k, n - k).map_err(|e| Error::Invalid(e.to_string()))?;
        let id = entropy::id();
        let narrow = |x: usize| u8::try_from(x).expect("Code::new allows no more than 32 shards");
        let first = narrow(usize::from(id.as_bytes()[15]) % n); // spreads the data shards over the drives
        let blob = Blob {
            id,
            size_bytes: 0,
            k: narrow(k),
            m: narrow(n - k),
            first,
            stripe_bytes: STRIPE_BYTES,
            unknown: Fields::default(),
        };
        let mut spread = Spread {
            drives: &inner.drives,
            write_quorum: inner.quorum.write(),
            code: Arc::new(code),
            blob,
            stripes: 0,
            output: Output::Inline(vec![Vec::new(); n]),
            is_full: false,
        };
        if size_hint > (INLINE_SHARD_BYTES * k) as u64 {
            spread.open_files().await?;
        }
        Ok(spread)
    }

    /// Hashes, codes and writes one stripe.
    async fn take(&mut self, mut hashes: Hashes, data: Bytes) -> Result<Hashes, Error> {
        let (code, id, stripe) = (self.code.clone(), self.blob.id, self.stripes);
        self.stripes += 1;
        if data.len() <= INLINE_WORK_BYTES {
            hashes.md5.update(&data);
            hashes.sums.update(&data);
            self.write(pieces(&code, id, stripe, &data)).await?;
            return Ok(hashes);
        }
        let Hashes { mut md5, mut sums } = hashes;
        let copy = data.clone();
        let hashing = spawn_blocking(move || {
            md5.update(&copy);
            md5
        });
        let coding = spawn_blocking(move || {
            sums.update(&data);
            (sums, pieces(&code, id, stripe, &data))
        });
        let coded = async {
            let (sums, pieces) = coding.await.map_err(stopping)?;
            self.write(pieces).await?;
            Ok(sums)
        };
        let hashed = async { hashing.await.map_err(stopping) };
        let (md5, sums) = tokio::try_join!(hashed, coded)?;
        Ok(Hashes { md5, sums })
    }

    async fn write(&mut self, pieces: Vec<Vec<u8>>) -> Result<(), Error> {
        if let Output::Inline(shards) = &mut self.output {
            for (shard, piece) in shards.iter_mut().zip(&pieces) {
                shard.extend_from_slice(piece);
            }
            let grown = shards.first().map_or(0, Vec::len);
            return if grown > INLINE_SHARD_BYTES { self.open_files().await } else { Ok(()) };
        }
        self.write_files(pieces).await
    }

    /// From here on the shards are files; what was kept in memory goes there first.
    async fn open_files(&mut self) -> Result<(), Error> {
        let opening = (0..self.drives.len()).map(|i| {
            let drive = &self.drives[slot(&self.blob, i, self.drives.len())];
            patiently(drive.slot(), drive.create_shard(self.blob.id))
        });
        let opened = join_all(opening).await;
        let sinks = opened.into_iter().map(|sink| self.alive(sink)).collect();
        match std::mem::replace(&mut self.output, Output::Files(sinks)) {
            Output::Inline(kept) if self.stripes > 0 => self.write_files(kept).await,
            _ => self.enough(),
        }
    }

    async fn write_files(&mut self, pieces: Vec<Vec<u8>>) -> Result<(), Error> {
        let Output::Files(sinks) = &mut self.output else { return Ok(()) };
        let writing = std::mem::take(sinks).into_iter().zip(pieces).enumerate().map(async |(i, (sink, piece))| {
            let mut sink = sink?;
            let slot = slot(&self.blob, i, self.drives.len());
            Some(patiently(slot, sink.write(piece.into())).await.map(|()| sink))
        });
        let written = join_all(writing).await;
        let sinks = written.into_iter().map(|sink| sink.and_then(|sink| self.alive(sink))).collect();
        self.output = Output::Files(sinks);
        self.enough()
    }

    /// Seals the shards; the blob can be named from here on.
    async fn finish(mut self, size_bytes: u64) -> Result<Data, Error> {
        let n = self.drives.len();
        if size_bytes == 0 {
            return Ok(Data::default());
        }
        let (mut shards, mut missing) = (vec![Vec::new(); n], 0u32);
        self.blob.size_bytes = size_bytes;
        match std::mem::replace(&mut self.output, Output::Inline(Vec::new())) {
            Output::Inline(kept) => {
                for (i, shard) in kept.into_iter().enumerate() {
                    shards[slot(&self.blob, i, n)].push((self.blob.id, shard.into()));
                }
            }
            Output::Files(sinks) => {
                let sealing = sinks
                    .into_iter()
                    .enumerate()
                    .map(async |(i, sink)| Some(patiently(slot(&self.blob, i, n), sink?.seal()).await));
                for (i, sealed) in join_all(sealing).await.into_iter().enumerate() {
                    if sealed.and_then(|sealed| self.alive(sealed)).is_none() {
                        missing |= 1 << slot(&self.blob, i, n);
                    }
                }
                self.quorum(n - missing.count_ones() as usize)?;
            }
        }
        Ok(Data { blobs: vec![self.blob], shards, missing, is_fresh: true })
    }

    /// What a drive that is well gave; otherwise the stream goes on without it.
    fn alive<T>(&mut self, answer: Result<T, drive::Error>) -> Option<T> {
        answer
            .inspect_err(|err| {
                self.is_full |= matches!(err, drive::Error::Full { .. });
                tracing::warn!(blob = %self.blob.id, "Shard dropped: {err:#}.");
            })
            .ok()
    }
    fn enough(&self) -> Result<(), Error> {
        match &self.output {
            Output::Inline(_) => Ok(()),
            Output::Files(sinks) => self.quorum(sinks.iter().flatten().count()),
        }
    }
    fn quorum(&self, alive: usize) -> Result<(), Error> {
        match alive >= self.write_quorum {
            true => Ok(()),
            false if self.is_full => Err(Error::Full),
            false => Err(Error::Unavailable(format!("{alive} of {} shards written", self.write_quorum))),
        }
    }
}

/// The pieces of one stripe as they stand on the drives.
fn pieces(code: &Code, blob: Uuid, stripe: u64, data: &[u8]) -> Vec<Vec<u8>> {
    stripe::encode(code, blob, stripe, data).expect("a gathered stripe is not empty")
}

async fn patiently<T>(slot: usize, call: impl Future<Output = Result<T, drive::Error>>) -> Result<T, drive::Error> {
    match tokio::time::timeout(SINK_PATIENCE, call).await {
        Ok(answer) => answer,
        Err(_) => Err(drive::Error::Offline { slot, why: format!("no answer within {SINK_PATIENCE:?}") }),
    }
}

/// A task of ours only ends early when it panicked, which goes on here, or when the runtime is shut down.
fn stopping(err: tokio::task::JoinError) -> Error {
    match err.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Error::Unavailable("the store is stopping".into()),
    }
}
