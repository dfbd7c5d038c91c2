//! What of a version a rule compares: the part the link brings to its peer, as a hash. Pure.
//!
//! Both sides project what they hold in the same way, so that a rule's exclusions (prefix, tags, delete
//! markers, permanent deletes, other sites' changes) are no differences. Drives' matters (ballots, shards,
//! debt) and the bucket's uuid are no part of a [`Version`] and so in no hash. Used by
//! `replicator/reconcile.rs` on both ends.
use super::reconcile::Item;
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

    /// The version as the rule compares it; `None`: it is not the rule's.
    pub fn item(&self, version: &Version) -> Option<Item> {
        if !version.key.starts_with(&self.prefix) {
            return None;
        }
        let item = |hash| Some(Item { key: version.key.clone(), version_id: version.id, hash });
        if let Some(purge) = version.purged() {
            // What it was before its purge may be forgotten, and on one site earlier than on another.
            let is_brought = if self.forward_all { purge.origin != self.target } else { purge.origin == self.source };
            let remains = Version { purges: purge.clone().into(), ..Version::blank(&version.key, version.id) };
            let is_brought = is_brought && self.version_deletes && !self.is_left(&remains);
            return item(is_brought.then(|| hash(&remains)));
        }
        if !self.delete_markers && version.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker) {
            return None;
        }
        let part = self.part(version)?;
        if self.is_left(&part) {
            return item(None);
        }
        let has = |(name, value): (&String, &String)| {
            version.tags.as_ref().is_some_and(|tags| tags.set.get(name) == Some(value))
        };
        if self.tags.iter().all(has) && !self.yields_to.iter().any(|higher| higher.covers(version)) {
            return item(Some(hash(&part)));
        }
        // Tagged out of the rule since, or another rule's: what the other side holds of it stays as it was.
        if part.birth.is_some() { item(None) } else { None }
    }

    /// Whether what the link brings of a version is older than what it copies.
    fn is_left(&self, part: &Version) -> bool {
        self.since.is_some_and(|at| part.max_hlc().millis() < at)
    }

    /// The components the link brings; void purges are not compared: each site adds its own to them.
    fn part(&self, version: &Version) -> Option<Version> {
        let guards = self.guards(version);
        let mut part = Version { later_guards: guards, purges: Purges::default(), ..version.clone() };
        part.birth.iter_mut().for_each(|birth| birth.guards = Guards::default());
        if self.forward_all {
            let foreign = |origin: &Origin| *origin != self.target;
            let is_brought = part.birth.as_ref().is_some_and(|b| foreign(&b.order.origin))
                || part.tags.as_ref().is_some_and(|t| foreign(&t.stamp.origin))
                || !part.later_guards.is_empty();
            return is_brought.then_some(part);
        }
        part.birth = part.birth.filter(|b| b.order.origin == self.source);
        part.tags = part.tags.filter(|t| t.stamp.origin == self.source);
        (part.birth.is_some() || part.tags.is_some() || !part.later_guards.is_empty()).then_some(part)
    }

    /// The guards the link answers for: what its source set (a relay: what anybody but the target did), and how far
    /// that was lifted. The target adds its own, and those are for the link back. Whether a guard was there at birth or
    /// came later is no difference.
    fn guards(&self, version: &Version) -> Guards {
        if !self.object_lock {
            return Guards::default();
        }
        let is_answered_for = |origin: &Origin| match self.forward_all {
            true => *origin != self.target,
            false => *origin == self.source,
        };
        // The later of two compliance dates counts, and nobody signs it: it goes with the birth.
        let compliance = version.birth.as_ref().is_some_and(|b| is_answered_for(&b.order.origin));
        version.guards().of(compliance, is_answered_for)
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
