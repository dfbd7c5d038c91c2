//! Whether a change travels on a link: prefix, tags, kinds, and whose change it is.
//!
//! The one place where loops are prevented at the sender. Called by `machine` for what the feed yields;
//! a change outside is passed over, never held.
use super::{Change, Settings};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use storage_engine::feed::Interest;
use storage_engine::version::{Kind, Version, VersionId};

/// Bytes a head counts for in window and bandwidth: deletes are not free.
const HEAD_BYTES: u64 = 256;

/// Which objects of a bucket a rule covers; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Keys begin with this.
    pub prefix: String,
    /// Every one of these tags is set.
    pub tags: BTreeMap<String, String>,
}

impl Filter {
    /// Whether it covers a version. As in S3, a tag filter excludes delete markers: they carry no tags.
    pub fn covers(&self, version: &Version) -> bool {
        version.key.starts_with(&self.prefix) && carries(version, &self.tags)
    }
    /// Whether an object can be covered by both.
    pub fn meets(&self, other: &Filter) -> bool {
        let prefixes = self.prefix.starts_with(&other.prefix) || other.prefix.starts_with(&self.prefix);
        prefixes && self.tags.iter().all(|(name, value)| other.tags.get(name).is_none_or(|v| v == value))
    }
    /// Whether `outer` covers all that this one covers.
    pub fn is_within(&self, outer: &Filter) -> bool {
        let has = |(name, value): (&String, &String)| self.tags.get(name) == Some(value);
        self.prefix.starts_with(&outer.prefix) && outer.tags.iter().all(has)
    }
}

/// Whether every one of these tags is set.
pub(super) fn carries(version: &Version, tags: &BTreeMap<String, String>) -> bool {
    let set = version.tags.as_ref().map(|t| &t.set);
    tags.iter().all(|(name, value)| set.and_then(|s| s.get(name)) == Some(value))
}

/// What of a bucket travels on a link, origins left out: they never change while the link is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub filter: Filter,
    /// Left to rules of a higher priority.
    pub yields_to: Vec<Filter>,
    pub delete_markers: bool,
    pub version_deletes: bool,
    /// Journals of before it existed do not say so; guards, had there been any, would have travelled.
    #[serde(default = "yes")]
    pub object_lock: bool,
    pub forward_all: bool,
}

impl Settings {
    /// What is counted as a backlog: what can travel under them, by what a store need not look long for.
    pub fn interest(&self) -> Interest {
        let own = (!self.forward_all).then(|| self.own_origin.clone());
        let peer = self.forward_all.then(|| self.peer_origin.clone());
        Interest { prefix: self.prefix.clone(), made_at: own, not_only_at: peer }
    }
    /// What travels under them.
    pub fn scope(&self) -> Scope {
        Scope {
            filter: Filter { prefix: self.prefix.clone(), tags: self.tags.clone() },
            yields_to: self.yields_to.clone(),
            delete_markers: self.delete_markers,
            version_deletes: self.version_deletes,
            object_lock: self.object_lock,
            forward_all: self.forward_all,
        }
    }
}

fn yes() -> bool {
    true
}

impl Scope {
    /// Whether `outer` surely lets everything travel that this one does. May say no where it does.
    pub fn is_within(&self, outer: &Scope) -> bool {
        let is_left_out = |left: &Filter| self.yields_to.iter().any(|own| left.is_within(own));
        self.filter.is_within(&outer.filter)
            && (outer.delete_markers || !self.delete_markers)
            && (outer.version_deletes || !self.version_deletes)
            && (outer.object_lock || !self.object_lock)
            && (outer.forward_all || !self.forward_all)
            && outer.yields_to.iter().all(|left| !left.meets(&self.filter) || is_left_out(left))
    }

    /// Whether `version` travels under it, on the link with these settings.
    pub(super) fn includes(&self, settings: &Settings, version: &Version) -> bool {
        self.filter.covers(version)
            && !self.yields_to.iter().any(|higher| higher.covers(version))
            && has_kind(self.delete_markers, self.version_deletes, version)
            && has_sender(settings, self.forward_all, version)
    }

    /// Whether nothing of `version` that may travel on the link stays behind under it.
    pub(super) fn sends_whole(&self, settings: &Settings, version: &Version) -> bool {
        self.includes(settings, version) && (self.object_lock || version.guards().is_empty())
    }
}

/// Whether `version` is to be made durable at the peer.
pub fn includes(settings: &Settings, version: &Version) -> bool {
    // The prefix first, without a copy of the rest: the feed holds every key of the bucket.
    version.key.starts_with(&settings.prefix) && settings.scope().includes(settings, version)
}

/// Why `version` is not to be made durable at the peer; `None`: it is.
pub(super) fn why_not(settings: &Settings, version: &Version) -> Option<&'static str> {
    let scope = settings.scope();
    let is_marker = version.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker);
    Some(match () {
        () if !version.key.starts_with(&settings.prefix) => "the key does not begin with the rule's prefix",
        () if !scope.filter.covers(version) => "it does not carry the rule's tags",
        () if scope.yields_to.iter().any(|higher| higher.covers(version)) => "a rule of higher priority sends it",
        () if !settings.delete_markers && is_marker => "the rule sends no delete markers",
        () if !settings.version_deletes && version.purged().is_some() => "the rule sends no version deletes",
        () if !has_sender(settings, settings.forward_all, version) && settings.forward_all => "it came from the peer",
        () if !has_sender(settings, settings.forward_all, version) => "nothing of it was made at this site",
        () => return None,
    })
}

/// Own: some part of it was made here. Relay: some part of it was made elsewhere than at the peer.
fn has_sender(settings: &Settings, forward_all: bool, version: &Version) -> bool {
    if forward_all { !version.is_wholly_of(&settings.peer_origin) } else { version.has_origin(&settings.own_origin) }
}

fn has_kind(delete_markers: bool, version_deletes: bool, version: &Version) -> bool {
    let is_marker = version.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker);
    (version_deletes || version.purged().is_none()) && (delete_markers || !is_marker)
}

/// Bytes of the body that travels: none for markers and purged versions.
pub(super) fn body_bytes(version: &Version) -> u64 {
    if version.is_live() { version.birth.as_ref().map_or(0, |b| b.size_bytes) } else { 0 }
}

/// What a version takes of the bandwidth, bytes.
pub fn weight_of(version: &Version) -> u64 {
    weight(body_bytes(version))
}

/// What a change of `body_bytes` takes of the window and of the bandwidth.
pub(super) fn weight(body_bytes: u64) -> u64 {
    body_bytes.saturating_add(HEAD_BYTES)
}

/// A larger version is poured out as the peer takes it in, and holds no more than this in memory.
const POURED_BYTES: u64 = 4 << 20;

/// What a change of this weight takes of the window: a large one must not keep all others out of it.
pub(super) fn room(weight: u64) -> u64 {
    weight.min(POURED_BYTES)
}

/// Whether what travels differs between two settings: what was read under the old ones is judged again.
pub(super) fn is_altered(old: &Settings, new: &Settings) -> bool {
    let who = |s: &Settings| (s.own_origin.clone(), s.peer_origin.clone(), s.existing_objects);
    old.scope() != new.scope() || who(old) != who(new)
}

/// A change taken in, and the batch it came with.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) change: Change,
    pub(super) batch: u64,
    /// Place in the order of intake; kept when the item goes back to the queue.
    pub(super) ticket: u64,
}

impl Item {
    pub(super) fn key(&self) -> &str {
        &self.change.version.key
    }
    pub(super) fn bytes(&self) -> u64 {
        body_bytes(&self.change.version)
    }
    /// Whether its version was born before that of `other`; of one version the change taken in first.
    pub(super) fn is_older(&self, other: &Item) -> bool {
        let age = |item: &Item| (item.change.version.birth.as_ref().map(|b| b.order.clone()), item.ticket);
        age(self) < age(other)
    }
    /// Whether it is a change of this version.
    pub(super) fn is_of(&self, (key, id): &(String, VersionId)) -> bool {
        self.change.version.id == *id && self.change.version.key == *key
    }
    /// Came from a pass over existing versions: gives way to what changes now.
    pub(super) fn is_existing(&self) -> bool {
        self.batch >= super::existing::FIRST_PLACE
    }
}

#[cfg(test)]
mod tests;
