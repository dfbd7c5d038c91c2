//! Settings of role `replicator`. Where its store is and as what it must prove itself stands in the Site document.
use super::journal::{self, JournalFile};
use super::kubernetes;
use super::{Wrong, admin_listen};
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a replicator runs with; every path is absolute or relative to where the process stands.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Site document this process serves; `None`: the only one there is.
    pub site_name: Option<String>,
    /// Folder of Site, Peer and ReplicationRule documents; not looked at where there is an API server.
    pub rules_dir: PathBuf,
    /// The API server they come from instead.
    pub kubernetes: Option<kubernetes::Settings>,
    /// Folder of `secrets/<name>/<key>` and `configmaps/<name>/<key>`.
    pub refs_dir: PathBuf,
    /// Where the journal is.
    pub journal: crate::journal::Settings,
    /// Unix socket of the verbs.
    pub admin_socket: PathBuf,
    /// Listener for peers.
    pub peer_listen: SocketAddr,
    /// Listener for probes, metrics and status.
    pub admin_listen: SocketAddr,
    /// File with the token that the status page asks for; `None`: it is open, and shows no key.
    pub page_token_file: Option<PathBuf>,
    /// Between two passes of the slow proof of a link, at least.
    pub proof_pause: Duration,
    /// Where the bound addresses are written as JSON.
    pub ports_file: Option<PathBuf>,
}

/// The file as it is written. Its doc lines are the reference of the keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Name of the Site document this process serves; may be left out where there is only one.
    pub(super) site_name: Option<String>,
    /// Folder of Site, Peer and ReplicationRule documents; changes take effect live.
    #[serde(default = "rules_dir")]
    pub(super) rules_dir: PathBuf,
    /// Documents come from an API server instead of rules_dir; an empty map takes what the pod is given.
    pub(super) kubernetes: Option<kubernetes::File>,
    /// Folder the documents' references resolve to: secrets/<name>/<key>, configmaps/<name>/<key>.
    #[serde(default = "refs_dir")]
    pub(super) refs_dir: PathBuf,
    /// The replicator's journal: a file, made where it is absent and held by one process; or a map with `postgres`, a
    /// database that the replicators of this site share.
    #[serde(default)]
    #[schemars(schema_with = "journal::schema")]
    pub(super) journal: JournalFile,
    /// Unix socket for the verbs; left out: admin.sock beside the journal's file, or beside this file.
    pub(super) admin_socket: Option<PathBuf>,
    /// Address that peers dial, mutual TLS; port 0 takes a free one.
    #[serde(default = "peer_listen")]
    pub(super) peer_listen: String,
    /// Address of probes, metrics and status; port 0 takes a free one.
    #[serde(default = "admin_listen")]
    pub(super) admin_listen: String,
    /// File with a token of 16 characters or more that the status page asks for, as password or bearer token, and shows
    /// keys then; left out: the page is open, and shows none.
    pub(super) page_token_file: Option<PathBuf>,
    /// Seconds the slow proof rests between two passes over a bucket at least, on each link; 1 to 86400.
    #[serde(default = "proof_pause_seconds")]
    pub(super) proof_pause_seconds: u32,
    /// File the bound addresses are written to, as JSON, once all are bound.
    pub(super) ports_file: Option<PathBuf>,
}

impl File {
    /// The settings, without a look at what else the process listens on.
    pub(super) fn settings(self, base: &Path, wrong: &mut Wrong<'_>) -> Settings {
        let journal = self.journal.resolve(base);
        Settings {
            site_name: self.site_name,
            rules_dir: base.join(self.rules_dir),
            kubernetes: self.kubernetes.map(|k| k.settings(base)),
            refs_dir: base.join(self.refs_dir),
            admin_socket: journal::admin_socket(self.admin_socket, &journal, base),
            journal,
            peer_listen: wrong.address("peer_listen", &self.peer_listen),
            admin_listen: wrong.address("admin_listen", &self.admin_listen),
            page_token_file: self.page_token_file.map(|file| base.join(file)),
            proof_pause: wrong.seconds("proof_pause_seconds", self.proof_pause_seconds),
            ports_file: self.ports_file.map(|file| base.join(file)),
        }
    }
}

impl super::File for File {
    type Settings = Settings;

    fn resolve(self, base: &Path, wrong: &mut Wrong<'_>) -> Settings {
        let settings = self.settings(base, wrong);
        wrong.distinct(&[("peer_listen", settings.peer_listen), ("admin_listen", settings.admin_listen)]);
        settings
    }

    fn missing(settings: &Settings) -> Vec<(&'static str, String)> {
        missing(settings)
    }
}

/// What a replicator needs and is not there.
pub fn missing(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut missing = journal::missing(&settings.journal);
    if settings.kubernetes.is_none() && !settings.rules_dir.is_dir() {
        let message = format!("{} is no folder; make it, even an empty one", settings.rules_dir.display());
        missing.push(("rules_dir", message));
    }
    if let Some(file) = settings.kubernetes.iter().find_map(|k| k.kubeconfig.as_ref()).filter(|file| !file.is_file()) {
        missing.push(("kubernetes.kubeconfig", format!("there is no file {}; put it there", file.display())));
    }
    missing.extend(settings.page_token_file.as_deref().and_then(no_token).map(|message| ("page_token_file", message)));
    missing
}

/// Fewer can be tried, one after the other.
const TOKEN_CHARS_MIN: usize = 16;

/// Why this file holds no token.
fn no_token(file: &Path) -> Option<String> {
    let message = match std::fs::read_to_string(file) {
        Ok(token) if token.trim().chars().count() >= TOKEN_CHARS_MIN => return None,
        Ok(_) => format!("holds fewer than {TOKEN_CHARS_MIN} characters"),
        Err(e) => format!("cannot be read ({e})"),
    };
    Some(format!("{} {message}; write a random token into it, such as of openssl rand -hex 24", file.display()))
}

pub fn rules_dir() -> PathBuf {
    "rules".into()
}
pub fn refs_dir() -> PathBuf {
    "refs".into()
}
pub fn proof_pause_seconds() -> u32 {
    5
}
pub fn peer_listen() -> String {
    "0.0.0.0:8443".into()
}
