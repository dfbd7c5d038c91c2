//! Compares the bytes of versions that are alike by their records: each end reads and hashes its own, and the hashes are
//! compared. It costs both ends their reading, under the job's limit, and the line next to nothing.
//!
//! Finds what no record says: bytes that cannot be read, or are others than were acked. Mends nothing: a store takes the
//! bytes of a version once.
use super::Verify;
use crate::link::reconcile::{Difference, Item};
use crate::peer::frame::content::{ASKED_BYTES_MAX, Content, ContentAsk, SPAN_BYTES_MAX, SPANS_MAX, Span};
use crate::replicator::content;
use crate::replicator::reconcile::{Error, Sides};
use std::collections::{BTreeMap, BTreeSet};
use storage_engine::version::{Kind, VersionId};
use storage_engine::wire::Fields;

/// A version: its key and id.
type Place = (String, VersionId);

/// What the bytes of a page came to.
#[derive(Default)]
pub(super) struct Bytes {
    /// Versions whose bytes were compared.
    pub(super) versions: u64,
    pub(super) read: u64,
    /// Versions whose bytes are not alike, each with why.
    pub(super) unlike: Vec<(Difference, String)>,
}

impl Verify {
    /// Compares the bytes of these versions, but for those `known` to differ already.
    ///
    /// # Errors
    /// Any [`Error`]: then nothing is known of the page. A peer of an earlier build is one.
    pub(super) async fn bytes_of(
        &self,
        sides: &Sides,
        items: Vec<Item>,
        known: &BTreeSet<Place>,
    ) -> Result<Bytes, Error> {
        let mut found = Bytes::default();
        let mut states = BTreeMap::new();
        let mut asked: Vec<Span> = Vec::new();
        for item in items {
            let (place, Some(state)) = ((item.key, item.version_id), item.hash) else { continue };
            if known.contains(&place) {
                continue;
            }
            let held = self.store.stat(&self.bucket, &place.0, place.1).await?;
            let birth = held.filter(|v| v.is_live()).and_then(|v| v.birth).filter(|b| b.kind == Kind::Object);
            let Some(size) = birth.map(|b| b.size_bytes).filter(|size| *size > 0) else { continue };
            found.versions += 1;
            let mut offset = 0;
            while offset < size {
                let bytes = SPAN_BYTES_MAX.min(size - offset);
                let sum: u64 = asked.iter().map(|span| span.bytes).sum();
                if sum + bytes > ASKED_BYTES_MAX || asked.len() == SPANS_MAX {
                    self.exchange(sides, std::mem::take(&mut asked), &states, &mut found).await?;
                }
                states.insert(place.clone(), state);
                asked.push(Span { key: place.0.clone(), version_id: place.1, offset, bytes });
                offset += bytes;
            }
        }
        if !asked.is_empty() {
            self.exchange(sides, asked, &states, &mut found).await?;
        }
        Ok(found)
    }

    /// Reads these spans at both ends.
    async fn exchange(
        &self,
        sides: &Sides,
        spans: Vec<Span>,
        states: &BTreeMap<Place, u128>,
        found: &mut Bytes,
    ) -> Result<(), Error> {
        self.go_on().await;
        let bytes: u64 = spans.iter().map(|span| span.bytes).sum();
        let route = self.route.borrow().clone();
        match (&self.allowance, route) {
            (Some(allowance), _) if allowance.is_limited() => allowance.pass(bytes).await,
            // No limit of its own: that of the link is the most that one rule asks of the stores.
            (_, Some(route)) => route.toll.pass(bytes).await,
            _ => {}
        }
        let ask = ContentAsk { bucket: self.peer_bucket.clone(), spans: spans.clone(), unknown: Fields::default() };
        let here = async {
            let mut here = Vec::with_capacity(spans.len());
            for span in &spans {
                here.push(content::read(&*self.store, &self.bucket, span).await.map_err(|e| e.to_string()));
            }
            here
        };
        let (there, here) = tokio::join!(sides.ask_contents(&ask), here);
        found.read += bytes;
        for ((span, there), here) in spans.into_iter().zip(there?).zip(here) {
            let Some(why) = verdict(here, there) else { continue };
            let place = (span.key, span.version_id);
            let is_known = found.unlike.iter().any(|(d, _)| d.place() == (place.0.as_str(), place.1));
            if !is_known && self.is_still_held(&place).await? {
                let state = states.get(&place).copied().unwrap_or_default();
                found.unlike.push((Difference::Unlike { key: place.0, version_id: place.1, state }, why));
            }
        }
        Ok(())
    }

    /// What was deleted here meanwhile differs in nothing that counts.
    async fn is_still_held(&self, (key, id): &Place) -> Result<bool, Error> {
        Ok(self.store.stat(&self.bucket, key, *id).await?.is_some_and(|version| version.is_live()))
    }
}

/// What is wrong with the bytes of a span; `None`: nothing.
fn verdict(here: Result<[u8; 32], String>, there: Content) -> Option<String> {
    match (here, there) {
        (Ok(here), Content::Hash(there)) if here == there => None,
        // Deleted there meanwhile, which the next comparison of records tells.
        (_, Content::Absent) => None,
        (Err(e), _) => Some(format!("its bytes cannot be read at this site, which a peer never mends: {e}")),
        (Ok(_), Content::Unreadable(e)) => Some(format!(
            "its bytes cannot be read at the peer: {e}; bring the drives there back, or write the object anew"
        )),
        (Ok(_), Content::Hash(_)) => Some(
            "its bytes are others at the peer, under the same record; read both ends and write the object anew".into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_differ_where_either_end_has_others_or_none() {
        let (one, two) = ([1; 32], [2; 32]);
        let lost = || Content::Unreadable("too few shards".into());
        assert_eq!(verdict(Ok(one), Content::Hash(one)), None);
        assert_eq!(verdict(Ok(one), Content::Absent), None);
        assert!(verdict(Ok(one), Content::Hash(two)).is_some_and(|why| why.contains("others at the peer")));
        assert!(verdict(Ok(one), lost()).is_some_and(|why| why.contains("at the peer: too few shards")));
        assert!(verdict(Err("gone".into()), Content::Hash(one)).is_some_and(|why| why.contains("at this site")));
    }
}
