//! Settings of a store node: values only, checked before anything is bound or opened.
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
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
    /// Folder with `tls.crt` and `tls.key`: the S3 listener speaks TLS alone; absent: plain HTTP.
    #[serde(default)]
    pub s3_tls_dir: Option<PathBuf>,
    /// Region in request signatures.
    #[serde(default = "region")]
    pub region: String,
    /// Who may sign requests.
    #[serde(default)]
    pub users: Vec<User>,
    /// Buckets made at start and never deleted by it.
    #[serde(default)]
    pub buckets: Vec<BucketSettings>,
    /// What clients may take.
    #[serde(default)]
    pub limits: Limits,
}

/// What the S3 listener lets clients take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once. Each holds at most two stripes and a small body, so this bounds memory; clients
    /// beyond it wait in the listen queue.
    pub connections_max: u32,
    /// Connections at once from one IPv4 address or IPv6 /64; those beyond it are answered 503 `SlowDown`.
    /// All clients behind one proxy share it.
    pub connections_per_address_max: u32,
    /// Wrong signatures a minute for one access key from one address, before both wait for the minute to end.
    pub failed_logins_per_minute_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections_max: 1024, connections_per_address_max: 512, failed_logins_per_minute_max: 30 }
    }
}

/// Somebody who may sign S3 requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Access key.
    pub access_key: String,
    /// File that holds the secret key; its trailing white space is ignored.
    pub secret_key_file: PathBuf,
    /// Whether they may shorten and lift governance retention, and delete what is under it, by asking for it.
    #[serde(default)]
    pub bypass_governance: bool,
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
    /// Whether object lock is on; it needs versioning and is never turned off again.
    #[serde(default)]
    pub object_lock: bool,
}

/// Shorter secrets can be guessed.
pub const SECRET_BYTES_MIN: usize = 8;

/// Access keys everybody knows; a store that takes one is open.
const DEFAULT_ACCESS_KEYS: [&str; 2] = ["minioadmin", "rustfsadmin"];

/// Everything that is wrong with the settings, at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("settings of the store: {}", .0.join("; "))]
pub struct Invalid(pub Vec<String>);

impl Settings {
    /// Looks for contradictions; what needs a drive or a file to be read is found at opening.
    ///
    /// # Errors
    /// [`Invalid`] with one sentence per problem.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut problems = Vec::new();
        if self.drives.is_empty() {
            problems.push("drives is empty".to_owned());
        }
        problems.extend(twice("the drive", self.drives.iter().map(|d| d.display().to_string())));
        if let Some(parity) = self.parity
            && usize::from(parity) * 2 > self.drives.len()
        {
            problems.push(format!("parity {parity} is more than half of {} drives", self.drives.len()));
        }
        if self.region.is_empty() || !self.region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            problems.push(format!("region {:?} is no name of letters, digits and hyphens", self.region));
        }
        for user in &self.users {
            let key = &user.access_key;
            if !(3..=128).contains(&key.len())
                || !key.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b',' && b != b'=')
            {
                problems.push(format!("the access key {key:?} is not 3 to 128 visible characters without / , ="));
            }
            if DEFAULT_ACCESS_KEYS.contains(&key.as_str()) {
                problems.push(format!("the access key {key} is a default everybody knows"));
            }
        }
        let Limits { connections_max, connections_per_address_max, failed_logins_per_minute_max } = self.limits;
        for (name, value) in [
            ("connections_max", connections_max),
            ("connections_per_address_max", connections_per_address_max),
            ("failed_logins_per_minute_max", failed_logins_per_minute_max),
        ] {
            if value == 0 {
                problems.push(format!("limits.{name} is 0, which lets nobody in"));
            }
        }
        problems.extend(twice("the access key", self.users.iter().map(|u| u.access_key.clone())));
        problems.extend(twice("the bucket", self.buckets.iter().map(|b| b.name.clone())));
        for bucket in self.buckets.iter().filter(|b| b.object_lock && !b.versioning) {
            problems.push(format!("the bucket {} has object_lock, which needs versioning: true", bucket.name));
        }
        if problems.is_empty() { Ok(()) } else { Err(Invalid(problems)) }
    }
}

fn twice(what: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(name.clone())).map(|name| format!("{what} {name} stands twice")).collect()
}

fn region() -> String {
    "us-east-1".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            drives: (0..4).map(|i| format!("/d/{i}").into()).collect(),
            parity: None,
            s3_listen: ([127, 0, 0, 1], 0).into(),
            s3_tls_dir: None,
            region: region(),
            users: vec![User { access_key: "writer".into(), secret_key_file: "/k".into(), bypass_governance: false }],
            buckets: vec![BucketSettings { name: "photos".into(), versioning: true, object_lock: true }],
            limits: Limits::default(),
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        assert_eq!(settings().check(), Ok(()));
        let mut bad = settings();
        bad.drives[1] = bad.drives[0].clone();
        bad.parity = Some(3);
        bad.region = "eu west".into();
        bad.users[0].access_key = "minioadmin".into();
        bad.buckets.push(bad.buckets[0].clone());
        bad.buckets[0].versioning = false;
        bad.limits.connections_max = 0;
        assert_eq!(bad.check().unwrap_err().0.len(), 7);
    }
}
