//! What of a version a rule compares: the part the link brings to its peer, as a hash. Pure.
//!
//! Both sides project what they hold in the same way, so that a rule's exclusions (prefix, tags, delete
//! markers, permanent deletes, other sites' changes) are no differences. Drives' matters (ballots, shards,
//! debt) and the bucket's uuid are no part of a [`Version`] and so in no hash. Used by
//! `replicator/reconcile.rs` on both ends.
use super::reconcile::{Beside, Core, Item};
use super::scope::carries;
use super::{Filter, Settings};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use storage_engine::version::{Guards, Kind, Origin, Purges, Version};

/// How a rule sees a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    pub prefix: String,
    /// Every one of these is set; none: no condition.
    pub tags: BTreeMap<String, String>,
    /// Left to rules of a higher priority.
    pub yields_to: Vec<Filter>,
    /// The site that sends on the link, and asks.
    pub source: Origin,
    /// The site that receives on it, and answers.
    pub target: Origin,
    /// Relay: what others made is compared too, but for what the target made alone.
    pub forward_all: bool,
    pub delete_markers: bool,
    pub version_deletes: bool,
    /// Retention and legal hold are compared.
    pub object_lock: bool,
    /// Unix milliseconds: what was not changed since is not compared, for the rule leaves it where it is.
    pub since: Option<u64>,
}

impl Projection {
    /// That of a link that sends all its settings cover.
    pub fn of(settings: &Settings) -> Self {
        Projection {
            prefix: settings.prefix.clone(),
            tags: settings.tags.clone(),
            yields_to: settings.yields_to.clone(),
            source: settings.own_origin.clone(),
            target: settings.peer_origin.clone(),
            forward_all: settings.forward_all,
            delete_markers: settings.delete_markers,
            version_deletes: settings.version_deletes,
            object_lock: settings.object_lock,
            since: None,
        }
    }

    /// The version as the rule compares it: what the link brings of it. `None`: it is not the rule's.
    pub fn item(&self, version: &Version) -> Option<Item> {
        Some(self.projected(version)?.1)
    }

    /// The same at the side that answers: it says of guards and purges all it holds, for whoever asks is to see that it
    /// lacks none; and, in no digest, the state of what is older than the rule or not covered by it as it is held here,
    /// which may have been changed there since.
    pub fn answer(&self, version: &Version) -> Option<Item> {
        let (guards, purges) = (self.carried(version.guards()), version.purges.clone());
        let Some((core, item)) = self.projected(version) else {
            // Nothing that the link brings, unless that was joined into what another site set or purged earlier.
            let is_meant = version.key.starts_with(&self.prefix) && !(guards.is_empty() && purges.is_empty());
            let (key, version_id, beside) =
                (version.key.clone(), version.id, Beside::with(Core::Absent, guards, purges));
            return is_meant.then_some(Item { key, version_id, hash: None, beside: Some(beside), purged_at: None });
        };
        let core = if item.hash.is_some() { item.core() } else { core };
        let is_left = item.hash.is_none() && core != Core::Settled;
        let beside = if is_left { Some(Beside::with(core, guards, purges)) } else { Beside::of(core, guards, purges) };
        Some(Item { beside, ..item })
    }

    fn projected(&self, version: &Version) -> Option<(Core, Item)> {
        if !version.key.starts_with(&self.prefix) {
            return None;
        }
        let (core, brought) = self.brought(version)?;
        let hash = brought.as_ref().map(hash);
        let beside = brought.and_then(|part| Beside::of(core, part.later_guards, part.purges));
        let purged_at = version.purged().map(|purge| purge.hlc.millis());
        Some((core, Item { key: version.key.clone(), version_id: version.id, hash, beside, purged_at }))
    }

    /// Whether birth and tags of a version held here are other sites': a peer that holds tags of the source's has not
    /// heard yet of those that took their place here, and whoever set them tells it.
    pub fn is_overwritten(&self, version: &Version) -> bool {
        let is_others = |origin: &Origin| !self.is_answered_for(origin);
        version.birth.as_ref().is_some_and(|b| is_others(&b.order.origin))
            && version.tags.as_ref().is_some_and(|t| is_others(&t.stamp.origin))
    }

    /// What of a version is compared as a whole, and all that the link brings of it, guards and purges included;
    /// `None` in it: it brings nothing, and the first says what is held all the same.
    fn brought(&self, version: &Version) -> Option<(Core, Option<Version>)> {
        let purges = self.purges(version);
        if let Some(purge) = version.purged() {
            // What it was before its purge may be forgotten, and on one site earlier than on another; a guard that came
            // with another purge is of no use until one voids them all.
            let remains = Version { purges, ..Version::blank(&version.key, version.id) };
            let is_brought = !remains.purges.is_empty() && !self.is_left(&remains);
            let core = if is_brought && self.is_answered_for(&purge.origin) { Core::Gone } else { Core::Settled };
            return Some((core, (is_brought && self.covers(version)).then_some(remains)));
        }
        if !self.delete_markers && version.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker) {
            return None;
        }
        let (whole, guards) = (self.whole(version), self.guards(version));
        let is_born = whole.birth.is_some();
        let is_bare = guards.is_empty() && purges.is_empty();
        let is_blank = !is_born && whole.tags.is_none();
        if is_blank && is_bare {
            return None;
        }
        let beside = (!is_bare).then(|| hash(&whole));
        let part = Version { later_guards: guards, purges, ..whole };
        let state = || if is_blank { Core::Absent } else { Core::State(beside.unwrap_or_else(|| hash(&part))) };
        if self.is_left(&part) {
            return Some((state(), None));
        }
        // Nothing is beside it: the hash of all that is brought is the core's.
        let core = if is_bare { Core::Settled } else { state() };
        if self.covers(version) {
            return Some((core, Some(part)));
        }
        // Not the rule's by its tags as they are held here: as a side that answers it says so by its state, for whoever asks
        // may have tagged it into the rule since.
        is_born.then(|| (state(), None))
    }

    /// Whether a version is the rule's by its tags, as it is held here, and no higher rule's; a tombstone keeps its tags.
    fn covers(&self, version: &Version) -> bool {
        carries(version, &self.tags) && !self.yields_to.iter().any(|higher| higher.covers(version))
    }

    /// Whether what the link brings of a version is older than what it copies.
    fn is_left(&self, part: &Version) -> bool {
        self.since.is_some_and(|at| part.max_hlc().millis() < at)
    }

    /// Birth and tags, as far as the link brings them.
    fn whole(&self, version: &Version) -> Version {
        let mut whole = Version { later_guards: Guards::default(), purges: Purges::default(), ..version.clone() };
        whole.birth.iter_mut().for_each(|birth| birth.guards = Guards::default());
        let is_of = |origin: &Origin| self.is_answered_for(origin);
        let (is_birth, is_tags) = (
            whole.birth.as_ref().is_some_and(|b| is_of(&b.order.origin)),
            whole.tags.as_ref().is_some_and(|t| is_of(&t.stamp.origin)),
        );
        // A relay brings all of a version that is not wholly the target's.
        let is_relayed = self.forward_all && (is_birth || is_tags);
        whole.birth = whole.birth.filter(|_| is_birth || is_relayed);
        whole.tags = whole.tags.filter(|_| is_tags || is_relayed);
        if whole.birth.is_none() && whole.tags.is_none() {
            return Version::blank(&version.key, version.id);
        }
        whole
    }

    /// Whose changes the link brings: the source's; a relay all but the target's.
    fn is_answered_for(&self, origin: &Origin) -> bool {
        if self.forward_all { *origin != self.target } else { *origin == self.source }
    }

    /// The guards the link brings: all that are known, for whoever knows guards passes them on; those of a birth go with
    /// it. What the target set itself is its own matter. Whether a guard was there at birth or came later is no difference.
    fn guards(&self, version: &Version) -> Guards {
        let mut guards = version.later_guards.clone();
        if let Some(birth) = version.birth.as_ref().filter(|b| self.is_answered_for(&b.order.origin)) {
            guards.join(&birth.guards);
        }
        self.carried(guards).but_set_at(&self.target)
    }

    fn carried(&self, guards: Guards) -> Guards {
        if self.object_lock { guards } else { Guards::default() }
    }

    /// The purges the link brings, void ones too.
    fn purges(&self, version: &Version) -> Purges {
        let mut purges = if self.version_deletes { version.purges.clone() } else { Purges::default() };
        purges.retain(|stamp| self.is_answered_for(&stamp.origin));
        purges
    }
}

/// The first 128 bits of SHA-256: sums of them collide by chance once in 2^64 comparisons.
fn hash(version: &Version) -> u128 {
    let digest = Sha256::digest(version.to_bytes());
    let (first, _) = digest.split_first_chunk::<16>().expect("a SHA-256 has 32 bytes");
    u128::from_be_bytes(*first)
}

#[cfg(test)]
mod tests;
