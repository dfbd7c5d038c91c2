//! Pieces of a large version from elsewhere: each is durable by itself, so that a transfer that was cut goes on where it
//! was. Nothing of them shows until [`Objects::apply_pieces`] names their blobs in the version's one record.
//!
//! A piece is a document under the version's identity, its bytes as those of a part of an upload (`multipart`). The
//! documents of an applied version stay: it names their blobs. Those of a version that never came are forgotten by age.
use super::apply::Source;
use super::blob::Data;
use super::document::{Content, Document};
use super::{Applied, Body, Error, Expect, Inner, Objects};
use crate::record::BucketId;
use crate::version::{Birth, Version, VersionId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use std::collections::BTreeMap;
use std::ops::Range;

/// Least size of a piece that is not the last.
pub const PIECE_BYTES_MIN: u64 = 1 << 20;
/// Pieces of a version at most: a record names a blob for each.
pub const PIECES_MAX: u64 = 10_000;

/// How a version is cut: into pieces of one size, the last with what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    size_bytes: u64,
    piece_bytes: u64,
}

impl Cut {
    /// `None` where that is no way to cut so many bytes.
    pub fn new(size_bytes: u64, piece_bytes: u64) -> Option<Cut> {
        let is_sound =
            piece_bytes >= PIECE_BYTES_MIN && size_bytes > 0 && size_bytes.div_ceil(piece_bytes) <= PIECES_MAX;
        is_sound.then_some(Cut { size_bytes, piece_bytes })
    }
    /// Pieces of `piece_bytes`, or larger ones where there would be too many.
    pub fn about(size_bytes: u64, piece_bytes: u64) -> Option<Cut> {
        let least = size_bytes.div_ceil(PIECES_MAX).next_multiple_of(PIECE_BYTES_MIN);
        Cut::new(size_bytes, piece_bytes.max(least))
    }
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
    pub fn piece_bytes(&self) -> u64 {
        self.piece_bytes
    }
    /// Pieces are numbered from 0 to below this.
    pub fn count(&self) -> u32 {
        u32::try_from(self.size_bytes.div_ceil(self.piece_bytes)).expect("a cut has at most 10,000 pieces")
    }
    /// Where a piece lies in the whole; `None`: there is none of this number.
    pub fn range(&self, number: u32) -> Option<Range<u64>> {
        let start = u64::from(number).checked_mul(self.piece_bytes).filter(|start| *start < self.size_bytes)?;
        Some(start..(start + self.piece_bytes).min(self.size_bytes))
    }
}

impl Objects {
    /// Stores one piece; it is durable on return. Safe to repeat; `crc64nvme` is that of its bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the cut has no such piece. [`Error::BadDigest`], [`Error::Body`]: nothing was written.
    pub async fn put_piece(
        &self,
        bucket: &str,
        version: VersionId,
        cut: Cut,
        number: u32,
        crc64nvme: u64,
        body: Body,
    ) -> Result<(), Error> {
        let range = cut.range(number).ok_or_else(|| Error::Invalid(format!("there is no piece {number}")))?;
        let bucket = self.0.bucket_doc(bucket).await?;
        let said = BASE64.encode(crc64nvme.to_be_bytes());
        let expect = Expect {
            size_bytes: Some(range.end - range.start),
            checksums: BTreeMap::from([("crc64nvme".to_owned(), Some(said))]),
            ..Expect::default()
        };
        let stored = self.0.store_body(body, expect).await?;
        let piece = Content {
            size_bytes: stored.size_bytes,
            crc64nvme: stored.crc64nvme,
            data: stored.data,
            ..Content::default()
        };
        self.0.put_document(&piece_key(bucket.id, version, number), &piece).await.map(|_| ())
    }

    /// The pieces of a version that are durable here, by number.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`].
    pub async fn pieces(&self, bucket: &str, version: VersionId, cut: Cut) -> Result<Vec<u32>, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        Ok(self.0.held_pieces(bucket.id, version, cut).await?.into_keys().collect())
    }

    /// As [`Objects::apply`], with the bytes that [`Objects::put_piece`] stored.
    ///
    /// [`Applied::NeedsBody`]: some pieces are missing; [`Objects::pieces`] says which are not.
    ///
    /// # Errors
    /// [`Error::BadDigest`]: together the pieces are not the version; they are forgotten.
    pub async fn apply_pieces(
        &self,
        bucket: &str,
        version: Version,
        cut: Cut,
        traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        self.apply_from(bucket, version, Source::Pieces(cut), traceparent).await
    }

    /// Forgets the pieces of versions that were not applied, where the youngest piece was written before `before_millis`;
    /// returns how many.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`].
    pub async fn forget_pieces(&self, bucket: &str, before_millis: u64) -> Result<u64, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        let prefix = format!("piece/{}/", bucket.id.0.as_simple());
        let (mut after, mut forgotten, mut of_one): (Option<String>, u64, Vec<Document>) = Default::default();
        loop {
            let (documents, through) = self.0.documents_after(&prefix, after.as_deref()).await?;
            for document in documents {
                if of_one.first().is_some_and(|first| version_of(&prefix, first) != version_of(&prefix, &document)) {
                    forgotten += self.0.forget_of_one(std::mem::take(&mut of_one), before_millis).await?;
                }
                of_one.push(document);
            }
            let Some(through) = through else { break };
            after = Some(through);
        }
        Ok(forgotten + self.0.forget_of_one(of_one, before_millis).await?)
    }
}

/// The version a piece belongs to, as its key says.
fn version_of<'a>(prefix: &str, document: &'a Document) -> Option<&'a str> {
    document.key.strip_prefix(prefix)?.split('/').next()
}

/// Set on the first piece of a version that was applied: its pieces stay.
const APPLIED: &str = "applied";

impl Inner {
    /// Forgets the pieces of one version, unless it was applied or one of them is young.
    async fn forget_of_one(&self, documents: Vec<Document>, before_millis: u64) -> Result<u64, Error> {
        let is_kept = |d: &Document| d.order.hlc.millis() >= before_millis || d.content.fields.contains_key(APPLIED);
        if documents.iter().any(is_kept) {
            return Ok(0);
        }
        for document in &documents {
            self.swap_document(&document.key, Some(&document.order), None).await?;
        }
        Ok(documents.len() as u64)
    }

    async fn held_pieces(
        &self,
        bucket: BucketId,
        version: VersionId,
        cut: Cut,
    ) -> Result<BTreeMap<u32, Document>, Error> {
        let prefix = version_prefix(bucket, version);
        let mut held = BTreeMap::new();
        for document in self.documents(&prefix).await? {
            let number = document.key.strip_prefix(&prefix).and_then(|n| n.parse().ok());
            let number: u32 = number.ok_or_else(|| Error::Corrupt(format!("a piece of version {version}")))?;
            // One that was cut otherwise does not count.
            let bytes = cut.range(number).map(|range| range.end - range.start);
            if bytes == Some(document.content.size_bytes) {
                held.insert(number, document);
            }
        }
        Ok(held)
    }

    /// The bytes of a birth out of its pieces; `None` where some are missing.
    pub(super) async fn gather_pieces(
        &self,
        bucket: BucketId,
        version: VersionId,
        birth: &Birth,
        cut: Cut,
    ) -> Result<Option<Data>, Error> {
        if cut.size_bytes != birth.size_bytes {
            return Err(Error::Invalid(format!("a cut of {} bytes for {}", cut.size_bytes, birth.size_bytes)));
        }
        let held = self.held_pieces(bucket, version, cut).await?;
        if held.len() < cut.count() as usize {
            return Ok(None);
        }
        let (mut data, mut crc) = (Data::default(), None);
        for document in held.values() {
            let Content { crc64nvme, size_bytes, data: piece, .. } = &document.content;
            crc = Some(match crc {
                None => *crc64nvme,
                Some(before) => crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, before, *crc64nvme, *size_bytes),
            });
            data.append(piece);
        }
        if crc != Some(birth.crc64nvme) {
            for document in held.values() {
                self.swap_document(&document.key, Some(&document.order), None).await?;
            }
            return Err(Error::BadDigest("crc64nvme of the pieces together".into()));
        }
        // Before the version names their blobs, so that no piece of an applied version is ever forgotten.
        let first = held.values().next().expect("a cut has a piece at least");
        let mut content = first.content.clone();
        content.fields.insert(APPLIED.into(), "yes".into());
        self.swap_document(&first.key, Some(&first.order), Some(&content)).await?;
        Ok(Some(data))
    }
}

fn version_prefix(bucket: BucketId, version: VersionId) -> String {
    format!("piece/{}/{version}/", bucket.0.as_simple())
}
fn piece_key(bucket: BucketId, version: VersionId, number: u32) -> String {
    format!("{}{number:05}", version_prefix(bucket, version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::object::fixture::{Set, body};
    use crate::object::{Put, Versioning};
    use futures::TryStreamExt;

    const PIECE: u64 = PIECE_BYTES_MIN;

    fn bytes(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at / 251 + at) as u8).collect()
    }
    fn crc(bytes: &[u8]) -> u64 {
        crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
    }

    async fn world() -> (Objects, Objects, Version, Vec<u8>, Cut) {
        let (here, there) = (Set::new().start(), Set::new().start());
        for store in [&here, &there] {
            store.create_bucket("logs", Versioning::Enabled).await.unwrap();
        }
        let whole = bytes(2 * PIECE as usize + 700_000);
        let written = here.put("logs", "key", Put::default(), body(whole.clone())).await.unwrap();
        let cut = Cut::new(whole.len() as u64, PIECE).unwrap();
        (here, there, written.version, whole, cut)
    }

    async fn put(there: &Objects, version: &Version, whole: &[u8], cut: Cut, number: u32) -> Result<(), Error> {
        let range = cut.range(number).unwrap();
        let piece = whole[range.start as usize..range.end as usize].to_vec();
        there.put_piece("logs", version.id, cut, number, crc(&piece), body(piece)).await
    }

    #[tokio::test]
    async fn pieces_in_any_order_make_the_version_and_nothing_shows_before() {
        let (_here, there, version, whole, cut) = world().await;
        let apply = || there.apply_pieces("logs", version.clone(), cut, None);
        assert_eq!(apply().await.unwrap(), Applied::NeedsBody);
        for number in [2, 0] {
            put(&there, &version, &whole, cut, number).await.unwrap();
        }
        assert_eq!(there.pieces("logs", version.id, cut).await.unwrap(), [0, 2]);
        assert_eq!(apply().await.unwrap(), Applied::NeedsBody);
        assert!(there.versions("logs", "key").await.unwrap().is_empty());
        put(&there, &version, &whole, cut, 1).await.unwrap();
        assert_eq!(apply().await.unwrap(), Applied::Applied);
        assert_eq!(apply().await.unwrap(), Applied::AlreadyPresent);
        let opened = there.read_version("logs", "key", version.id).await.unwrap();
        assert_eq!(opened.version, version, "ETag, parts and order are those of the origin");
        let read: Vec<_> = opened.read(0..whole.len() as u64).try_collect().await.unwrap();
        assert!(read.concat() == whole);
        let far = SystemClock.now_millis() + 1_000_000;
        assert_eq!(there.forget_pieces("logs", far).await.unwrap(), 0, "an applied version keeps its pieces");
    }

    #[tokio::test]
    async fn a_piece_with_other_bytes_is_refused_and_a_false_whole_is_forgotten() {
        let (_here, there, mut version, whole, cut) = world().await;
        let lie = there.put_piece("logs", version.id, cut, 2, 7, body(whole[2 * PIECE as usize..].to_vec())).await;
        assert!(matches!(lie, Err(Error::BadDigest(_))), "{lie:?}");
        assert!(put(&there, &version, &whole, cut, 0).await.is_ok());
        assert!(matches!(there.put_piece("logs", version.id, cut, 3, 0, body("")).await, Err(Error::Invalid(_))));
        for number in [1, 2] {
            put(&there, &version, &whole, cut, number).await.unwrap();
        }
        version.birth.as_mut().unwrap().crc64nvme ^= 1;
        let lie = there.apply_pieces("logs", version.clone(), cut, None).await;
        assert!(matches!(lie, Err(Error::BadDigest(_))), "{lie:?}");
        assert!(there.pieces("logs", version.id, cut).await.unwrap().is_empty());
        assert!(there.versions("logs", "key").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn pieces_of_a_version_that_never_came_are_forgotten_by_age() {
        let (_here, there, version, whole, cut) = world().await;
        put(&there, &version, &whole, cut, 0).await.unwrap();
        assert_eq!(there.forget_pieces("logs", 1).await.unwrap(), 0, "it is young");
        let far = SystemClock.now_millis() + 1_000_000;
        assert_eq!(there.forget_pieces("logs", far).await.unwrap(), 1);
        assert!(there.pieces("logs", version.id, cut).await.unwrap().is_empty());
    }

    #[test]
    fn a_cut_covers_every_byte_once() {
        for (size, piece) in [(1, PIECE), (PIECE, PIECE), (PIECE + 1, PIECE), (50 << 30, 8 << 20)] {
            let cut = Cut::new(size, piece).unwrap();
            let mut end = 0;
            for number in 0..cut.count() {
                let range = cut.range(number).unwrap();
                assert_eq!(range.start, end);
                end = range.end;
            }
            assert_eq!(end, size);
            assert_eq!(cut.range(cut.count()), None);
        }
        assert_eq!(Cut::new(5 << 40, 8 << 20), None);
        assert!(Cut::about(5 << 40, 8 << 20).is_some());
        assert_eq!(Cut::new(10, 0), None);
        assert_eq!(Cut::new(0, PIECE), None);
    }
}
