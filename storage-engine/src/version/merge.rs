//! The join of two records of one version: commutative, associative, idempotent. Pure; the only
//! place with merge rules, for the store and for the replicator.
use super::{Birth, Version};

/// What a join did to the left side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// The left side learnt something.
    pub changed: bool,
    /// Two different births bore one id: the greater won, and somebody must look.
    pub equivocation: bool,
}

/// Joins `other` into `version`; both are of the same key and id.
pub fn join(version: &mut Version, other: &Version) -> Joined {
    debug_assert_eq!((&version.key, version.id), (&other.key, other.id), "one version joins only itself");
    let mut joined = Joined::default();
    // Null is not one version but a register of them: the greatest order wins whole, its tags and purge
    // with it. Components that named no birth belong to none and lose to any.
    if version.id.is_null() && place(version) != place(other) {
        if place(other) > place(version) {
            *version = other.clone();
            joined.changed = true;
        }
        return joined;
    }
    let before = version.state_hash();
    if let Some(theirs) = &other.birth {
        match &version.birth {
            None => version.birth = Some(theirs.clone()),
            Some(ours) if ours == theirs => {}
            Some(ours) => {
                joined.equivocation = true;
                if rank(theirs) > rank(ours) {
                    version.birth = Some(theirs.clone());
                }
            }
        }
    }
    // Last writer wins; equal stamps fall back to the document, so that both sides choose alike.
    if other.tags > version.tags {
        version.tags = other.tags.clone();
    }
    // Guards and purges only gather; which purge counts is read off them (`guard.rs`).
    version.later_guards.join(&other.later_guards);
    version.purges.join(&other.purges);
    version.unknown.join(&other.unknown);
    joined.changed = before != version.state_hash();
    joined
}

fn place(version: &Version) -> Option<&super::Order> {
    version.birth.as_ref().map(|b| &b.order)
}

fn rank(birth: &Birth) -> (&super::Order, &Birth) {
    (&birth.order, birth)
}

/// Whether two versions of one key were born without knowing of each other: the later one's `base`
/// is below the earlier one's order, and they come from different origins.
pub fn is_conflict(later: &Birth, earlier: &Birth) -> bool {
    later.order > earlier.order
        && later.order.origin != earlier.order.origin
        && later.base.as_ref().is_none_or(|base| *base < earlier.order)
}
