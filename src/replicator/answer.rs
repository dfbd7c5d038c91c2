//! What a peer may know of this site's versions: the answers to its questions about ranges of keys.
//!
//! A peer is told of what it may write, no more: the bucket, the prefix and the origins of its grant, and
//! without relay only of its own versions. Nothing is kept between two questions. Called by `receive.rs`.
use super::reconcile::walk::{Project, Walk};
use crate::link::project::Projection;
use crate::link::reconcile::{Ask, Digest, Item, KeyRange};
use crate::peer::frame::reconcile::{Answer, ITEMS_MAX, Question};
use crate::rule::allow::{Facts, Refusal, may};
use crate::rule::{Grant, PeerDoc};
use crate::store::{Error, Store};
use std::sync::Arc;
use storage_engine::version::{Kind, Version, VersionId};

/// Items of one answer take about so many bytes at most: guards and purges of a version may be many.
const ITEMS_BYTES_MAX: usize = 1 << 20;

/// Answers `peer`, whose certificate was proven.
pub async fn answer(store: Arc<dyn Store>, own_site: &str, peer: Option<PeerDoc>, question: Question) -> Answer {
    let project = match allowed(own_site, peer, &question) {
        Ok(project) => project,
        Err(refused) => return refused,
    };
    let walk = Walk::new(store, &question.bucket, &question.projection.prefix, project);
    let answered = match question.ask {
        Ask::Digests(ranges) => digests(walk, &ranges).await.map(Answer::Digests),
        Ask::Items { range, behind } => items(walk, &range, behind).await,
    };
    answered.unwrap_or_else(|err| match err {
        Error::NoSuchBucket(name) => {
            Answer::Refused(format!("bucket {name} does not exist at the peer; make it there"))
        }
        Error::Invalid(why) => Answer::Refused(why),
        other => Answer::Unavailable(other.to_string()),
    })
}

/// What the peer may be told of each version; or the answer that says why nothing.
fn allowed(own_site: &str, peer: Option<PeerDoc>, question: &Question) -> Result<Project, Answer> {
    let refused = |why: String| Err(Answer::Refused(why));
    let Some(peer) = peer else { return refused("there is no such Peer here any more".into()) };
    let projection = question.projection.clone();
    if projection.source.as_str() != peer.site_id || projection.target.as_str() != own_site {
        return refused(format!("site {} may ask for itself only", peer.site_id));
    }
    if peer.suspend {
        return Err(Answer::Unavailable(Refusal::Suspended.to_string()));
    }
    let Some(grant) = peer.inbound.iter().find(|g| g.bucket == question.bucket).cloned() else {
        return refused(Refusal::Bucket { bucket: question.bucket.clone() }.to_string());
    };
    if !projection.prefix.starts_with(&grant.prefix) {
        return refused(Refusal::Prefix { bucket: grant.bucket, prefix: grant.prefix }.to_string());
    }
    Ok(Arc::new(move |version| {
        may_know(&peer, &grant, &projection, version).then(|| projection.answer(version)).flatten()
    }))
}

/// What it may bring it may know to be here; a purge is told of to whoever may bring the version.
fn may_know(peer: &PeerDoc, grant: &Grant, projection: &Projection, version: &Version) -> bool {
    let birth = version.birth.as_ref().map(|b| b.order.origin.as_str());
    let tags = version.tags.as_ref().map(|t| t.stamp.origin.as_str());
    let purge = version.purged().map(|p| p.origin.as_str());
    if !projection.forward_all {
        // Guards and purges of its own it may bring for any version of the grant, and is to see whether they are here.
        let own = peer.site_id.as_str();
        return birth.is_none()
            || [birth, tags].contains(&Some(own))
            // One of its own may have been joined into another site's, which was earlier and had seen no more.
            || projection.version_deletes && !version.purges.is_empty()
            || projection.object_lock && !version.later_guards.is_empty();
    }
    let origins: Vec<_> = match birth {
        Some(birth) => std::iter::once(birth).chain(tags).collect(),
        None => tags.or(purge).into_iter().collect(),
    };
    // What this site adds to a version it may know of is no secret kept from it by the list of origins.
    let origins: Vec<_> = origins.into_iter().filter(|o| *o != projection.target.as_str()).collect();
    let facts = Facts {
        bucket: &grant.bucket,
        key: &version.key,
        origins: &origins,
        is_delete_marker: version.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker)
            && version.purged().is_none(),
        is_purge: false,
        relayed: true,
    };
    may(peer, &facts).is_ok()
}

async fn digests(mut walk: Walk, ranges: &[KeyRange]) -> Result<Vec<Digest>, Error> {
    let mut digests = Vec::with_capacity(ranges.len());
    let mut last: Option<&str> = None;
    for range in ranges {
        if !digests.is_empty() && (last.is_none() || range.after.as_deref() < last) {
            return Err(Error::Invalid("ranges ascend and do not meet".into()));
        }
        last = range.upto.as_deref();
        walk.seek(range.after.as_deref());
        let mut digest = Digest::default();
        while let Some(item) = walk.next(range).await? {
            digest.add(&item);
        }
        digests.push(digest);
    }
    Ok(digests)
}

async fn items(mut walk: Walk, range: &KeyRange, behind: Option<(String, VersionId)>) -> Result<Answer, Error> {
    let mut items: Vec<Item> = Vec::new();
    let mut bytes = 0;
    walk.seek(range.after.as_deref());
    if let Some((key, id)) = behind
        && range.contains(&key)
    {
        items = walk.rest_of(&key, id).await?;
    }
    while items.len() <= ITEMS_MAX
        && bytes <= ITEMS_BYTES_MAX
        && let Some(item) = walk.next(range).await?
    {
        bytes += item.bytes();
        items.push(item);
    }
    let sizes = items.iter().scan(0, |sum, item| {
        *sum += item.bytes();
        Some(*sum)
    });
    // One at least, however large: it fits a frame, as its version did when it came.
    let fitting = sizes.take_while(|sum| *sum <= ITEMS_BYTES_MAX).count().clamp(1, ITEMS_MAX);
    let is_last = items.len() <= fitting;
    items.truncate(fitting);
    Ok(Answer::Items { items, is_last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicator::reconcile::tests::rig::{peer, projection};
    use storage_engine::version::{Birth, Guards, Hlc, Order, Origin, Purges, Stamp, Tags};

    const OWN: &str = "ams";
    const THIRD: &str = "waw";
    const HERE: &str = "fra";

    fn stamp(site: &str) -> Stamp {
        Stamp::new(Hlc::ZERO, Origin::new(site))
    }
    fn born(site: &str) -> Version {
        let id = VersionId::from_bytes([1; 16]);
        let order = Order { hlc: Hlc::ZERO, origin: Origin::new(site), version_id: id };
        Version { birth: Some(Birth::blank(order, Kind::Object)), ..Version::blank("k", id) }
    }
    fn tagged(site: &str, version: Version) -> Version {
        Version { tags: Some(Tags::new(stamp(site), Default::default())), ..version }
    }
    fn purged(site: &str, version: Version) -> Version {
        Version { purges: Purges::one(Guards::default(), stamp(site)), ..version }
    }
    fn held(site: &str, version: Version) -> Version {
        Version { later_guards: Guards::default().hold(true, &stamp(site)), ..version }
    }

    /// What the peer may know of each: with this grant of origins, asking by this projection.
    fn known(origins: &[&str], projection: &Projection, versions: &[Version]) -> Vec<bool> {
        let mut doc = peer("logs", "");
        doc.inbound[0].origins = origins.iter().map(|o| o.to_string()).collect();
        versions.iter().map(|version| may_know(&doc, &doc.inbound[0], projection, version)).collect()
    }

    #[test]
    fn a_peer_is_told_of_its_own_versions_and_of_changes_that_it_may_bring_to_others() {
        let unborn = Version { birth: None, ..born(THIRD) };
        let versions = [born(OWN), born(THIRD), tagged(OWN, born(THIRD)), tagged(THIRD, born(HERE)), unborn];
        let asks = Projection { version_deletes: true, object_lock: true, ..projection() };
        assert_eq!(known(&[], &asks, &versions), [true, false, true, false, true]);
        let changed = [purged(THIRD, born(THIRD)), purged(OWN, born(HERE)), held(THIRD, born(THIRD))];
        assert_eq!(known(&[], &asks, &changed), [true; 3]);
        let asks = Projection { version_deletes: false, object_lock: false, ..projection() };
        assert_eq!(known(&[], &asks, &changed), [false; 3], "the link brings neither purges nor guards");
    }

    #[test]
    fn who_relays_is_told_of_the_origins_it_may_relay() {
        let asks = Projection { forward_all: true, version_deletes: true, object_lock: true, ..projection() };
        let versions = [born(OWN), born(THIRD), tagged(THIRD, born(OWN)), purged(THIRD, born(THIRD)), born(HERE)];
        assert_eq!(known(&["*"], &asks, &versions), [true; 5]);
        assert_eq!(known(&[OWN], &asks, &versions), [true, false, false, false, true]);
        assert_eq!(known(&[THIRD], &asks, &versions), [false, true, false, true, true]);
        let orphan = purged(THIRD, Version { birth: None, ..born(THIRD) });
        assert_eq!(known(&[OWN], &asks, std::slice::from_ref(&orphan)), [false]);
        assert_eq!(known(&[THIRD], &asks, &[orphan]), [true]);
    }
}
