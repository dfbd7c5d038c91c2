//! The links that a live drill acts on, found at each site among those its own documents say: the named rules' here, and at
//! the peer those that lead back between the same buckets. Nothing of a rule is changed. What would make the drill harm
//! what clients use, or its figures worthless, refuses it here by the name of the rule.
use super::{Acted, Place, Replicator};
use crate::drill::{Cut, Fence, LIVE_DELETES_MAX, Plan, place};
use crate::peer::frame::drill::LiveLink;
use crate::replicator::push::link_name;
use crate::rule::plan::{self, LinkName, LinkView};
use crate::rule::{Filter, PeerDoc};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// A live drill's part of this site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    /// Links from here to the peer.
    pub(super) links: Vec<Acted>,
    /// What the peer's links call themselves in frames.
    pub(super) incoming: Vec<String>,
    /// Where the drill writes here.
    pub(super) places: Vec<Place>,
}

/// A link of this site, as a drill knows it.
pub(super) struct Own {
    pub(super) acted: Acted,
    pub(super) told: LiveLink,
}

impl Live {
    /// Whether it acts on this link of the site.
    pub(super) fn acts_on(&self, name: &LinkName) -> bool {
        self.links.iter().any(|acted| acted.name == *name)
    }
}

impl Replicator {
    /// The links of the rules a plan names, or why one of them may not be drilled now.
    ///
    /// # Errors
    /// A sentence that names the rule.
    pub(super) fn named_links(&self, plan: &Plan) -> Result<Vec<Own>, String> {
        let views = self.views();
        let mut all = Vec::new();
        for rule in &plan.rules {
            let view = views.values().find(|view| view.rule.name == *rule && view.peer.name() == plan.peer);
            let view = view.ok_or_else(|| match views.values().any(|view| view.rule.name == *rule) {
                true => format!("rule {rule} sends nothing to peer {}", plan.peer),
                false => format!("no rule {rule} is in force at this site"),
            })?;
            self.is_in_order(view).map_err(|why| format!("rule {rule} {why}"))?;
            all.push(self.told(view)?);
        }
        Ok(all)
    }

    /// The links that lead back to `peer` between the buckets of the links it tells of.
    ///
    /// # Errors
    /// A sentence that names the rule.
    pub(super) fn links_back(&self, peer: &str, told: &[LiveLink]) -> Result<Vec<Own>, String> {
        let leads_back = |view: &&LinkView| {
            view.peer.name() == peer
                && told.iter().any(|there| {
                    let filter = Filter { prefix: there.prefix.clone(), ..Filter::default() };
                    view.rule.bucket == there.to
                        && view.destination.bucket == there.from
                        && view.rule.filter.meets(&filter)
                })
        };
        self.views().values().filter(leads_back).map(|view| self.told(view)).collect()
    }

    fn views(&self) -> BTreeMap<LinkName, LinkView> {
        plan::links(&self.state().in_force, &self.site)
    }

    /// Whether a rule runs as it should, and the drill's own objects go its way.
    fn is_in_order(&self, view: &LinkView) -> Result<(), String> {
        let report = self.report();
        let is_it = |rule: &str, peer: &str| rule == view.rule.name && peer == view.peer.name();
        let link = report.links.iter().find(|l| is_it(&l.rule, &l.peer)).ok_or("has no link that runs")?;
        if let Some(suspended) = &link.suspended {
            return Err(format!("is suspended by {}", suspended.by));
        }
        if link.state != "live" {
            return Err(format!("is {}, not live", link.state));
        }
        match link.lag_seconds {
            None => return Err("has a lag that is not known now".into()),
            Some(lag) if link.is_late() => {
                let most = link.objective_seconds();
                return Err(format!("is behind its objective already: {lag:.1}s, objective {most:.0}s"));
            }
            Some(_) => {}
        }
        if !view.rule.filter.tags.is_empty() {
            return Err("selects by tags, and the objects of a drill bear none: they would not be replicated".into());
        }
        let prefix = &view.rule.filter.prefix;
        let is_covered = |higher: &&Filter| higher.tags.is_empty() && place(prefix, "").starts_with(&higher.prefix);
        if let Some(higher) = view.yields_to.iter().find(is_covered) {
            let by = &higher.prefix;
            return Err(format!("leaves keys that begin with {by:?} to a rule of higher priority; name that one"));
        }
        Ok(())
    }

    /// What the other side is to know of a link from here.
    fn told(&self, view: &LinkView) -> Result<Own, String> {
        let (rule, replicate) = (&view.rule.name, &view.rule.replicate);
        let name = LinkName { rule: view.rule.uid.clone(), peer: view.peer.name().into() };
        let route = self.state().links.get(&name).and_then(|link| link.route.borrow().clone());
        let route = route.ok_or_else(|| {
            let site = &self.site_id;
            format!("rule {rule} of site {site} is not pushed by the process that is asked; ask the one that pushes it")
        })?;
        let sends_deletes = replicate.delete_markers || replicate.version_deletes;
        if sends_deletes && view.rule.brake.versions_min < LIVE_DELETES_MAX {
            let most = view.rule.brake.versions_min;
            return Err(format!(
                "the brake of rule {rule} engages at {most} deletes, and a live drill removes up to {LIVE_DELETES_MAX} objects of its own: raise brake.minVersions, or drill a canary"
            ));
        }
        let told = LiveLink {
            link: link_name(&route.id),
            from: view.rule.bucket.clone(),
            to: view.destination.bucket.clone(),
            prefix: view.rule.filter.prefix.clone(),
            markers: replicate.delete_markers,
            purges: replicate.version_deletes,
        };
        Ok(Own { acted: Acted { name, rule: rule.clone() }, told })
    }

    /// Whether what the drill does at the other side may come here over this link of the peer's: refused by a grant it
    /// would be parked there, for a person to look at.
    pub(super) async fn takes(&self, peer: &PeerDoc, id: &str, link: &LiveLink) -> Result<(), String> {
        let (site, bucket) = (&self.site_id, &link.to);
        let grant = peer.inbound.iter().find(|grant| grant.bucket == *bucket);
        let grant = grant.ok_or_else(|| format!("Peer {} at site {site} may not write bucket {bucket}", peer.name))?;
        if !place(&link.prefix, id).starts_with(&grant.prefix) {
            let (peer, granted) = (&peer.name, &grant.prefix);
            return Err(format!(
                "Peer {peer} at site {site} may write only keys of {bucket} that begin with {granted:?}"
            ));
        }
        if link.markers && !grant.deletes || link.purges && !grant.version_deletes {
            let peer = &peer.name;
            return Err(format!(
                "Peer {peer} at site {site} may not delete in bucket {bucket} what the rule brings: the drill's own deletes would be parked"
            ));
        }
        let found =
            self.shared.store.bucket(bucket).await.map_err(|e| format!("bucket {bucket} at site {site}: {e}"))?;
        if !found.versioned {
            return Err(format!("bucket {bucket} at site {site} is not versioned"));
        }
        Ok(())
    }

    /// Takes part in a live drill that another site drives.
    ///
    /// # Errors
    /// A sentence; nothing was begun.
    pub(super) async fn join_live(
        &self,
        id: &str,
        peer: &PeerDoc,
        ttl: Duration,
        told: &[LiveLink],
    ) -> Result<Vec<LiveLink>, String> {
        for link in told {
            self.takes(peer, id, link).await?;
        }
        let back = self.links_back(&peer.name, told)?;
        let places = told.iter().map(|l| Place { bucket: l.to.clone(), prefix: place(&l.prefix, id) }).collect();
        let incoming = told.iter().map(|link| link.link.clone()).collect();
        let (links, back) = back.into_iter().map(|own| (own.acted, own.told)).unzip();
        let live = Live { links, incoming, places };
        self.stage(id, &peer.name, ttl, false, live).await?;
        Ok(back)
    }

    /// Begins this site's part in a live drill; it ends after `ttl`, whatever happens. Again is safe.
    ///
    /// # Errors
    /// A sentence; nothing was begun.
    pub(super) async fn stage(
        &self,
        id: &str,
        peer: &str,
        ttl: Duration,
        is_driven_here: bool,
        mut live: Live,
    ) -> Result<(), String> {
        live.places.sort_by(|a, b| (&a.bucket, &a.prefix).cmp(&(&b.bucket, &b.prefix)));
        live.places.dedup();
        if self.drills.parts().get(id).is_some_and(|part| part.live.as_ref() == Some(&live) && part.peer == peer) {
            return Ok(());
        }
        let client = self.shared.store.client().ok_or_else(|| super::canary::Error::NoClient.to_string())?;
        for found in &live.places {
            // There is nothing yet: a store that could not remove what is written is found out now.
            let cleared = client.clear(&found.bucket, &found.prefix).await;
            cleared.map_err(|e| format!("the store could not remove objects of a drill: {e}"))?;
        }
        self.keep_part(id, peer, ttl, is_driven_here, Some(live)).await.map_err(|e| e.to_string())?;
        tracing::info!(drill = id, peer, "This site takes part in a live drill.");
        Ok(())
    }

    /// Sets the fault of this site's part in a drill, and, of a live one, the fences of its buckets; each ends by itself.
    ///
    /// # Errors
    /// A sentence: the drill is being ended, or the store does not fence.
    pub(super) async fn inject(&self, id: &str, cut: Cut, fence: Fence, ttl: Duration) -> Result<(), String> {
        if !self.drills.set_fault(id, cut, fence, ttl) {
            return Err("it is being ended".into());
        }
        self.fence(id, fence, ttl).await
    }

    /// Fences the buckets of a live drill at the front door of this site's store, or lifts that.
    pub(super) async fn fence(&self, id: &str, fence: Fence, ttl: Duration) -> Result<(), String> {
        let (buckets, left) = {
            let mut parts = self.drills.parts();
            let Some(part) = parts.get_mut(id) else { return Ok(()) };
            let Some(live) = &part.live else { return Ok(()) };
            if fence == Fence::None && !part.is_door_fenced {
                return Ok(());
            }
            part.is_door_fenced = fence != Fence::None;
            let buckets: BTreeSet<_> = live.places.iter().map(|found| found.bucket.clone()).collect();
            (buckets, ttl.min(part.until.saturating_duration_since(Instant::now())))
        };
        let ttl = if fence == Fence::None { Duration::ZERO } else { left };
        let client = self.shared.store.client().ok_or_else(|| super::canary::Error::NoClient.to_string())?;
        for bucket in &buckets {
            let fenced = client.fence(bucket, id, fence == Fence::All, ttl).await;
            fenced.map_err(|e| format!("the fence of bucket {bucket} at site {}: {e}", self.site_id))?;
        }
        Ok(())
    }

    /// Versions that are still in the places of a drill here, at most a page of them each.
    pub(super) async fn left_in(&self, places: &[Place]) -> Result<u64, crate::store::Error> {
        /// More than any live drill writes.
        const PAGE: usize = 1_000;
        let mut left = 0;
        for Place { bucket, prefix } in places {
            let after = Some((prefix.clone(), storage_engine::version::VersionId::NULL));
            match self.shared.store.list_versions(bucket, after, PAGE).await {
                Ok(page) => left += page.iter().filter(|version| version.key.starts_with(prefix)).count() as u64,
                Err(crate::store::Error::NoSuchBucket(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(left)
    }
}
