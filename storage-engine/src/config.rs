//! Settings of a store node: values only, checked before anything is bound or opened.
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// What a store node needs to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Directories, one per drive; their count and order belong to the store.
    pub drives: Vec<PathBuf>,
    /// Parity shards; absent: half of the drives up to 8 drives, else 4.
    #[serde(default)]
    pub parity: Option<u8>,
    /// Address of the S3 listener; port 0 takes a free one.
    pub s3_listen: SocketAddr,
    /// Region in request signatures.
    #[serde(default = "region")]
    pub region: String,
    /// Who may sign requests.
    #[serde(default)]
    pub users: Vec<User>,
    /// Buckets made at start and never deleted by it.
    #[serde(default)]
    pub buckets: Vec<BucketSettings>,
}

/// Somebody who may sign S3 requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Access key.
    pub access_key: String,
    /// File that holds the secret key; its trailing white space is ignored.
    pub secret_key_file: PathBuf,
}

/// A bucket that shall exist.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketSettings {
    /// Name, as S3 allows it.
    pub name: String,
    /// Whether versioning is on.
    #[serde(default)]
    pub versioning: bool,
}

fn region() -> String {
    "us-east-1".into()
}
