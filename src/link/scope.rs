//! Whether a change travels on a link: prefix, tags, kinds, and whose change it is.
//!
//! The one place where loops are prevented at the sender. Called by `machine` for what the feed yields;
//! a change outside is passed over, never held.
use super::{Change, Settings};
use storage_engine::version::{Kind, Origin, Version};

/// Bytes a head counts for in window and bandwidth: deletes are not free.
const HEAD_BYTES: u64 = 256;

/// Whether `version` is to be made durable at the peer.
pub(super) fn includes(settings: &Settings, version: &Version) -> bool {
    version.key.starts_with(&settings.prefix)
        && has_sender(settings, version)
        && has_kind(settings, version)
        && has_tags(settings, version)
}

/// Own: some part of it was made here. Relay: some part of it was made elsewhere than at the peer.
fn has_sender(settings: &Settings, version: &Version) -> bool {
    if settings.forward_all {
        !is_wholly_of(version, &settings.peer_origin)
    } else {
        version.has_origin(&settings.own_origin)
    }
}

fn is_wholly_of(version: &Version, origin: &Origin) -> bool {
    version.birth.as_ref().is_none_or(|b| &b.order.origin == origin)
        && version.tags.as_ref().is_none_or(|t| &t.stamp.origin == origin)
        && version.purge.as_ref().is_none_or(|p| &p.origin == origin)
}

fn has_kind(settings: &Settings, version: &Version) -> bool {
    let is_marker = version.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker);
    (settings.version_deletes || version.purge.is_none()) && (settings.delete_markers || !is_marker)
}

/// As in S3, a tag filter excludes delete markers: they carry no tags.
fn has_tags(settings: &Settings, version: &Version) -> bool {
    let set = version.tags.as_ref().map(|t| &t.set);
    settings.tags.iter().all(|(name, value)| set.and_then(|s| s.get(name)) == Some(value))
}

/// Bytes of the body that travels: none for markers and purged versions.
pub(super) fn body_bytes(version: &Version) -> u64 {
    if version.is_live() { version.birth.as_ref().map_or(0, |b| b.size_bytes) } else { 0 }
}

/// What a change of `body_bytes` takes of the window and of the bandwidth.
pub(super) fn weight(body_bytes: u64) -> u64 {
    body_bytes.saturating_add(HEAD_BYTES)
}

/// Whether what travels differs between two settings: what was read under the old ones is judged again.
pub(super) fn is_altered(old: &Settings, new: &Settings) -> bool {
    let scope = |s: &Settings| {
        let who = (s.own_origin.clone(), s.peer_origin.clone(), s.forward_all);
        (s.prefix.clone(), s.tags.clone(), who, s.delete_markers, s.version_deletes)
    };
    scope(old) != scope(new)
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
}
