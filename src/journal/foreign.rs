//! What a journal keeps of a foreign target: which of its versions is which of ours, and uploads that are not over.
//!
//! Both can be found again at the target itself (`replicator/foreign/known.rs`): losing them costs a look at each
//! version, and sends nothing twice.
use storage_engine::version::VersionId;

/// A version of ours at a foreign target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    pub key: String,
    pub version_id: VersionId,
    /// Its id there.
    pub remote_id: String,
    /// When it was born, as bits of its HLC: the newest of a key is found without reading the store.
    pub born: u64,
    /// Hash of the state that was brought there, as the rule compares it; 0: not known, so it is compared.
    pub state: u128,
}

/// A multipart upload under way at a foreign target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    pub key: String,
    pub version_id: VersionId,
    /// Its id there; which parts it has, the target says.
    pub upload_id: String,
}
