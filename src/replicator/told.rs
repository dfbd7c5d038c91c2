//! What the verbs answer, as JSON: read by `cli`, made by `replicator/verbs.rs`.
use serde::{Deserialize, Serialize};

/// Why a link sends nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspended {
    /// The verb as it was typed, or the field of a document.
    pub by: String,
    /// Unix milliseconds; absent for a document.
    pub since: Option<u64>,
}

/// A version that failed while its peer answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowReport {
    pub rule: String,
    pub bucket: String,
    pub peer: String,
    pub key: String,
    pub version_id: String,
    /// A person must look; the others go again by themselves.
    pub is_parked: bool,
    /// Commit time of its oldest change not at the peer, Unix milliseconds.
    pub pending_since: u64,
    pub bytes: u64,
    pub attempts: u32,
    /// Unix milliseconds; absent while parked.
    pub next_attempt: Option<u64>,
    pub reason: String,
}

/// Two versions of a key, the later born without knowing the earlier; both are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConflictReport {
    pub bucket: String,
    pub key: String,
    /// The one that reads as the newer of the two everywhere.
    pub later: VersionMark,
    pub earlier: VersionMark,
    /// When this site saw it, Unix milliseconds.
    pub seen_millis: u64,
}

/// A version and what the own store holds of it now; what it does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VersionMark {
    pub version_id: String,
    /// siteID where it was born.
    pub origin: Option<String>,
    /// Clock reading of its birth, Unix milliseconds.
    pub born_millis: Option<u64>,
    /// Deleted for good since.
    pub is_purged: Option<bool>,
}

/// How many deletes a brake held back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReleaseReport {
    pub deletes: u64,
}

/// A delete that a brake holds back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeleteReport {
    pub rule: String,
    pub bucket: String,
    pub peer: String,
    pub key: String,
    /// The delete marker, or the version that was deleted for good.
    pub version_id: String,
    pub is_permanent: bool,
    /// Commit time, Unix milliseconds.
    pub pending_since: u64,
}

/// How many versions go again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RetryReport {
    pub versions: usize,
}

/// Where the versions of one object are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// siteID of the site that answers; it holds all of them.
    pub site: String,
    pub bucket: String,
    pub key: String,
    /// Newest first.
    pub versions: Vec<VersionPlaces>,
    /// What of this site's rules is not in force, and why: such a rule brings nothing anywhere.
    #[serde(default)]
    pub not_in_force: Vec<String>,
}

/// One version, and where each link has brought it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VersionPlaces {
    pub version_id: String,
    /// siteID where it was born; absent while only its tags or its deletion have arrived.
    pub origin: Option<String>,
    /// Clock reading of its birth, Unix milliseconds.
    pub born_millis: Option<u64>,
    pub is_delete_marker: bool,
    pub is_purged: bool,
    pub places: Vec<Place>,
}

/// One version at one peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    pub rule: String,
    pub peer: String,
    /// there, not_in_scope, flying, pending, failed, parked, clock_ahead, suspended, braked, blocked, unknown.
    pub state: String,
    /// Empty where nothing is to be said.
    pub why: String,
}
