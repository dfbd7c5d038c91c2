//! What every object of ours carries at a foreign target: which version of which site it is. Pure.
//!
//! The version map can be built from it again, and what carries it is never sent to a foreign target: that is how
//! two sites that see each other as S3 endpoints do not send each other's copies back and forth.
use std::collections::BTreeMap;
use storage_engine::version::{Birth, VersionId};

const VERSION_ID: &str = "isthmus-source-version-id";
const SITE: &str = "isthmus-source-site";
const ORDER: &str = "isthmus-source-order";
const ETAG: &str = "isthmus-source-etag";

/// Which version an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub version_id: VersionId,
    /// Where it was born.
    pub site: String,
    /// When, as bits of its HLC.
    pub born: u64,
    /// Its ETag there.
    pub etag: String,
}

impl Identity {
    /// That of a version of ours.
    pub fn of(birth: &Birth) -> Self {
        let order = &birth.order;
        let (site, born) = (order.origin.as_str().to_string(), order.hlc.bits());
        Identity { version_id: order.version_id, site, born, etag: birth.etag.clone() }
    }

    /// As user metadata, names without `x-amz-meta-`.
    pub fn to_metadata(&self) -> [(&'static str, String); 4] {
        [
            (VERSION_ID, self.version_id.to_string()),
            (SITE, self.site.clone()),
            (ORDER, format!("{:016x}", self.born)),
            (ETAG, self.etag.clone()),
        ]
    }

    /// From user metadata; `None`: nobody of us wrote it.
    pub fn from_metadata(mut get: impl FnMut(&str) -> Option<String>) -> Option<Self> {
        Some(Identity {
            version_id: get(VERSION_ID)?.parse().ok()?,
            site: get(SITE)?,
            born: u64::from_str_radix(&get(ORDER)?, 16).ok()?,
            etag: get(ETAG).unwrap_or_default(),
        })
    }

    /// That of a version here which another isthmus put here through S3.
    pub fn of_copy(metadata: &BTreeMap<String, String>) -> Option<Self> {
        Identity::from_metadata(|name| metadata.get(name).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_the_trip_and_strangers_have_none() {
        let version_id = VersionId::from_bytes([7; 16]);
        let identity = Identity { version_id, site: "fra".into(), born: 0x1234_5678_9abc, etag: "e-2".into() };
        let metadata: BTreeMap<String, String> =
            identity.to_metadata().into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        assert_eq!(Identity::of_copy(&metadata), Some(identity));
        assert_eq!(Identity::of_copy(&BTreeMap::new()), None);
        let broken = metadata.into_keys().map(|name| (name, "?".to_string())).collect();
        assert_eq!(Identity::of_copy(&broken), None);
    }
}
