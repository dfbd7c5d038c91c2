//! The bytes of versions, read and hashed: what a peer is told of those it may bring, and what this site reads of its own.
//!
//! A hash is of what the drives give now, never of what a record says. Nothing is kept and nothing is healed. Called by
//! `receive.rs` and `verify/content.rs`.
use crate::peer::frame::content::{Content, ContentAsk, Span};
use crate::peer::frame::reconcile::Answer;
use crate::rule::PeerDoc;
use crate::rule::allow::{Facts, Refusal, may};
use crate::store::{Body, Error, Store};
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use storage_engine::version::Version;

/// Answers `peer`, whose certificate was proven. Of what it may not bring it hears that there is nothing.
pub async fn answer(store: &dyn Store, own_site: &str, peer: Option<PeerDoc>, ask: ContentAsk) -> Answer {
    let Some(peer) = peer else { return Answer::Refused("there is no such Peer here any more".into()) };
    if peer.suspend {
        return Answer::Unavailable(Refusal::Suspended.to_string());
    }
    if !peer.inbound.iter().any(|grant| grant.bucket == ask.bucket) {
        return Answer::Refused(Refusal::Bucket { bucket: ask.bucket }.to_string());
    }
    let mut contents = Vec::with_capacity(ask.spans.len());
    for span in &ask.spans {
        let version = match store.stat(&ask.bucket, &span.key, span.version_id).await {
            Ok(version) => version.filter(|v| v.is_live() && may_bring(&peer, own_site, &ask.bucket, v)),
            Err(e) => return Answer::Unavailable(e.to_string()),
        };
        contents.push(match version {
            None => Content::Absent,
            Some(_) => match read(store, &ask.bucket, span).await {
                Ok(hash) => Content::Hash(hash),
                // Deleted meanwhile.
                Err(Error::NoSuchVersion | Error::NoSuchKey) => Content::Absent,
                Err(e) => Content::Unreadable(e.to_string()),
            },
        });
    }
    Answer::Contents(contents)
}

/// What it may bring it may know the bytes of; what this site wrote is no secret from whoever holds it too.
fn may_bring(peer: &PeerDoc, own_site: &str, bucket: &str, version: &Version) -> bool {
    let origin = version.birth.as_ref().map(|birth| birth.order.origin.as_str());
    let origins: Vec<&str> = origin.into_iter().filter(|origin| *origin != own_site).collect();
    let (key, relayed) = (&*version.key, true);
    may(peer, &Facts { bucket, key, origins: &origins, is_delete_marker: false, is_purge: false, relayed }).is_ok()
}

/// SHA-256 of some bytes of a version, as the store gives them.
///
/// # Errors
/// Those of the store; [`Error::Body`] where the bytes end early or cannot be read.
pub async fn read(store: &dyn Store, bucket: &str, span: &Span) -> Result<[u8; 32], Error> {
    let Span { key, version_id, offset, bytes } = span;
    let mut body: Body = match store.pieces() {
        Some(pieces) => pieces.read_range(bucket, key, *version_id, *offset..offset + bytes).await?,
        None => from(store.read_version(bucket, key, *version_id).await?, *offset, *bytes),
    };
    let mut hash = Sha256::new();
    let mut came = 0u64;
    while let Some(chunk) = body.try_next().await.map_err(Error::Body)? {
        came += chunk.len() as u64;
        hash.update(&chunk);
        // A chunk takes a millisecond or so; others have their turn between two.
        tokio::task::yield_now().await;
    }
    if came != *bytes {
        let why = format!("{came} of {bytes} bytes are there");
        return Err(Error::Body(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, why)));
    }
    Ok(hash.finalize().into())
}

/// Some bytes of a whole body.
fn from(body: Body, offset: u64, bytes: u64) -> Body {
    let cut = body.scan(0u64, move |at, chunk| {
        let start = *at;
        let cut = chunk.map(|chunk| {
            *at += chunk.len() as u64;
            let within =
                |place: u64| usize::try_from(place.saturating_sub(start)).unwrap_or(usize::MAX).min(chunk.len());
            chunk.slice(within(offset)..within(offset + bytes))
        });
        futures::future::ready((start < offset + bytes).then_some(cut))
    });
    cut.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicator::reconcile::tests::rig::peer;
    use crate::store::bundled::BundledStore;
    use bytes::Bytes;
    use std::sync::Arc;
    use storage_engine::clock::SystemClock;
    use storage_engine::drive::Drive;
    use storage_engine::drive::memory::MemoryDrive;
    use storage_engine::object::{Objects, Put, Versioning};
    use storage_engine::version::Origin;
    use storage_engine::wire::Fields;

    #[tokio::test]
    async fn a_span_is_cut_out_of_a_body_of_any_chunks() {
        let whole: Vec<u8> = (0..100).collect();
        for size in [1, 7, 30, 100] {
            let chunks: Vec<_> = whole.chunks(size).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            let body = futures::stream::iter(chunks).boxed();
            let cut: Vec<Bytes> = from(body, 20, 50).try_collect().await.unwrap();
            assert_eq!(cut.concat(), whole[20..70], "chunks of {size}");
        }
    }

    #[tokio::test]
    async fn a_peer_hears_of_what_it_may_bring_alone() {
        let drives = (0..4).map(|slot| Arc::new(MemoryDrive::new(slot)) as Arc<dyn Drive>).collect();
        let objects = Objects::new(drives, 2, Arc::new(SystemClock), Origin::new("fra"));
        objects.create_bucket("logs", Versioning::Enabled).await.unwrap();
        let body = futures::stream::iter([Ok(Bytes::from_static(b"abc"))]).boxed();
        let id = objects.put("logs", "a/1", Put::default(), body).await.unwrap().version.id;
        let store = BundledStore(objects);
        let span = |key: &str, version_id| Span { key: key.into(), version_id, offset: 0, bytes: 3 };
        let told = async |peer: Option<PeerDoc>, bucket: &str, span: Span| {
            let ask = ContentAsk { bucket: bucket.into(), spans: vec![span], unknown: Fields::default() };
            answer(&store, "fra", peer, ask).await
        };
        let one = |content| Answer::Contents(vec![content]);
        let hash = Content::Hash(Sha256::digest(b"abc").into());
        assert_eq!(told(Some(peer("logs", "a/")), "logs", span("a/1", id)).await, one(hash));
        assert_eq!(told(Some(peer("logs", "b/")), "logs", span("a/1", id)).await, one(Content::Absent));
        assert_eq!(told(Some(peer("logs", "")), "logs", span("a/2", id)).await, one(Content::Absent));
        let beyond = Span { offset: 2, ..span("a/1", id) };
        let said = told(Some(peer("logs", "")), "logs", beyond).await;
        assert!(matches!(&said, Answer::Contents(all) if matches!(all[0], Content::Unreadable(_))), "{said:?}");
        assert!(matches!(told(Some(peer("other", "")), "logs", span("a/1", id)).await, Answer::Refused(_)));
        assert!(matches!(told(None, "logs", span("a/1", id)).await, Answer::Refused(_)));
        let suspended = PeerDoc { suspend: true, ..peer("logs", "") };
        assert!(matches!(told(Some(suspended), "logs", span("a/1", id)).await, Answer::Unavailable(_)));
    }
}
