//! What a version's newest change is, in one of four words. Pure.
use storage_engine::version::{Hlc, Kind, Version};

/// What is brought to a peer with a version as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// An object.
    Put,
    /// A delete marker.
    Marker,
    /// A permanent delete.
    Purge,
    /// Tags, retention or a legal hold, set since the version was born.
    Meta,
}

impl Op {
    /// All of them.
    pub const ALL: [Op; 4] = [Op::Put, Op::Marker, Op::Purge, Op::Meta];

    /// Of a version: what joined it last counts, so that an object that is tagged before it was sent is `Meta`.
    pub fn of(version: &Version) -> Self {
        let born = version.birth.as_ref().map_or(Hlc::ZERO, |b| b.order.hlc);
        match version.birth.as_ref().map(|b| b.kind) {
            _ if version.purged().is_some() => Op::Purge,
            _ if version.max_hlc() > born => Op::Meta,
            Some(Kind::DeleteMarker) => Op::Marker,
            _ => Op::Put,
        }
    }

    /// Its name in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Op::Put => "put",
            Op::Marker => "marker",
            Op::Purge => "purge",
            Op::Meta => "meta",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage_engine::version::{Birth, Order, Origin, Purges, Stamp, Tags, VersionId};

    #[test]
    fn the_newest_change_of_a_version_names_it() {
        let stamp = |millis| Stamp::new(Hlc::from_millis(millis), Origin::new("here"));
        let id = VersionId::from_bytes([1; 16]);
        let born = |kind| {
            let order = Order { hlc: Hlc::from_millis(5), origin: Origin::new("here"), version_id: id };
            Version { birth: Some(Birth::blank(order, kind)), ..Version::blank("k", id) }
        };
        let tags = |millis| Some(Tags::new(stamp(millis), [("a".to_string(), "b".to_string())].into()));
        let put = born(Kind::Object);
        assert_eq!((Op::of(&put), Op::of(&born(Kind::DeleteMarker))), (Op::Put, Op::Marker));
        assert_eq!(Op::of(&Version { tags: tags(5), ..put.clone() }), Op::Put, "born with its tags");
        assert_eq!(Op::of(&Version { tags: tags(6), ..put.clone() }), Op::Meta);
        assert_eq!(Op::of(&Version { tags: tags(5), ..Version::blank("k", id) }), Op::Meta, "its birth comes later");
        let purges = Purges::one(put.guards(), stamp(4));
        assert_eq!(Op::of(&Version { purges, tags: tags(6), ..put }), Op::Purge);
    }
}
