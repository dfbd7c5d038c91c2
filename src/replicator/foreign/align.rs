//! Which delete marker of a target is which of ours. A marker carries no metadata, so nothing but its place among the
//! versions of its key tells. Pure.
use storage_engine::version::VersionId;

/// One version of a key here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ours {
    pub id: VersionId,
    pub is_marker: bool,
    /// Its id at the target, where that is known.
    pub remote_id: Option<String>,
}

/// One version of the key there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Theirs {
    pub remote_id: String,
    pub is_marker: bool,
}

/// Pairs our markers without a known id with those of the target that nobody claims; both lists oldest first.
///
/// As many on both sides are paired in their order. Else one is paired only with a marker that lies between the same
/// two known versions; the rest stay without.
pub fn markers(ours: &[Ours], theirs: &[Theirs]) -> Vec<(VersionId, String)> {
    let is_claimed = |remote: &str| ours.iter().any(|v| v.remote_id.as_deref() == Some(remote));
    let is_open = |v: &&Ours| v.is_marker && v.remote_id.is_none();
    let free: Vec<&Theirs> = theirs.iter().filter(|t| t.is_marker && !is_claimed(&t.remote_id)).collect();
    let open: Vec<&Ours> = ours.iter().filter(is_open).collect();
    if free.len() == open.len() {
        return open.iter().zip(free).map(|(our, their)| (our.id, their.remote_id.clone())).collect();
    }
    let mut pairs = Vec::new();
    let mut at = 0;
    for their in theirs {
        if let Some(known) = ours.iter().position(|v| v.remote_id.as_deref() == Some(&their.remote_id)) {
            at = known + 1;
        } else if their.is_marker {
            let until = ours[at..].iter().position(|v| v.remote_id.is_some()).map_or(ours.len(), |n| at + n);
            if let Some(n) = ours[at..until].iter().position(|v| v.is_marker) {
                pairs.push((ours[at + n].id, their.remote_id.clone()));
                at += n + 1;
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> VersionId {
        VersionId::from_bytes([n; 16])
    }
    fn ours(versions: &[(u8, bool, &str)]) -> Vec<Ours> {
        let one = |(n, is_marker, remote): &(u8, bool, &str)| {
            let remote_id = Some(remote.to_string()).filter(|r| !r.is_empty());
            Ours { id: id(*n), is_marker: *is_marker, remote_id }
        };
        versions.iter().map(one).collect()
    }
    fn theirs(versions: &[(&str, bool)]) -> Vec<Theirs> {
        versions
            .iter()
            .map(|(remote, is_marker)| Theirs { remote_id: remote.to_string(), is_marker: *is_marker })
            .collect()
    }

    #[test]
    fn a_lost_map_finds_every_marker_again() {
        let here = ours(&[(1, false, "a"), (2, true, ""), (3, false, "c"), (4, true, "")]);
        // Of the same second, the list may give markers behind objects.
        for there in [
            theirs(&[("a", false), ("b", true), ("c", false), ("d", true)]),
            theirs(&[("a", false), ("c", false), ("b", true), ("d", true)]),
        ] {
            assert_eq!(markers(&here, &there), [(id(2), "b".into()), (id(4), "d".into())]);
        }
    }

    #[test]
    fn a_marker_made_just_before_a_crash_is_found_and_a_second_one_is_not() {
        let here = ours(&[(1, false, "a"), (2, true, "")]);
        assert_eq!(markers(&here, &theirs(&[("a", false), ("b", true)])), [(id(2), "b".into())]);
        assert_eq!(markers(&here, &theirs(&[("a", false)])), []);
        // Ours are both known or new: what is there is taken.
        let here = ours(&[(1, true, "a"), (2, true, "")]);
        assert_eq!(markers(&here, &theirs(&[("a", true)])), []);
    }

    #[test]
    fn a_strangers_marker_among_other_versions_stays_a_strangers() {
        let here = ours(&[(1, true, ""), (2, false, "b"), (3, false, "c")]);
        let there = theirs(&[("x", true), ("b", false), ("y", true), ("c", false)]);
        assert_eq!(markers(&here, &there), [(id(1), "x".into())]);
    }
}
