//! What of a version a link brings to its peer. Pure; the shell calls it for every push.
use super::Settings;
use super::planted::{self, Planted};
use storage_engine::version::{Guards, Origin, Purges, Version};

/// Relaying: all of a version. Else only what this site set of it. Without what the rule keeps here; nothing, when
/// nothing is left.
pub fn to_send(settings: &Settings, version: &Version) -> Option<Version> {
    let all = settings.forward_all || planted::has(Planted::ReplicaResentAsOwn);
    let part = if all { Some(version.clone()) } else { own_part(version, &settings.own_origin) };
    let mut part = part?;
    if !settings.object_lock || planted::has(Planted::GuardsStayHere) {
        part.later_guards = Guards::default();
        part.birth.iter_mut().for_each(|birth| birth.guards = Guards::default());
    }
    // Void ones too: the peer need not take what has no effect.
    if !settings.version_deletes {
        part.purges = Purges::default();
    }
    let says_nothing = part == Version { unknown: part.unknown.clone(), ..Version::blank(&part.key, part.id) };
    (!says_nothing).then_some(part)
}

/// What `origin` has to tell of a version: every site brings its own pieces and all guards it knows, and
/// they join where they meet. Nothing, when it has none. Of a version that another site purged since, only
/// guards and purges: that site brings the purge that counts, and the bytes are gone.
pub(crate) fn own_part(version: &Version, origin: &Origin) -> Option<Version> {
    let mut part = version.clone();
    part.purges.retain(|p| p.origin == *origin);
    if version.purged().is_some() && part.purged().is_none() {
        (part.birth, part.tags) = (None, None);
    }
    part.birth = part.birth.filter(|b| b.order.origin == *origin);
    part.tags = part.tags.filter(|t| t.stamp.origin == *origin);
    part.has_origin(origin).then_some(part)
}
