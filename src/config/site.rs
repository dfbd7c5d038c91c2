//! Settings of role `site`: a store and a replicator in one process.
use super::journal::{self, JournalFile};
use super::kubernetes;
use super::replicator::{self, peer_listen, proof_pause_seconds, refs_dir, rules_dir};
use super::store::{self, StoreFile};
use super::{Wrong, admin_listen};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What a site runs with; every path is absolute or relative to where the process stands.
#[derive(Clone, Debug)]
pub struct Settings {
    pub store: storage_engine::config::Settings,
    pub replicator: replicator::Settings,
}

/// The file as it is written. Its doc lines are the reference of the keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Name of the Site document this process serves; may be left out where there is only one.
    site_name: Option<String>,
    /// The store: drives, S3 listener, users, buckets.
    store: StoreFile,
    /// Folder of Site, Peer and ReplicationRule documents; changes take effect live.
    #[serde(default = "rules_dir")]
    rules_dir: PathBuf,
    /// Documents come from an API server instead of rules_dir; an empty map takes what the pod is given.
    kubernetes: Option<kubernetes::File>,
    /// Folder the documents' references resolve to: secrets/<name>/<key>, configmaps/<name>/<key>.
    #[serde(default = "refs_dir")]
    refs_dir: PathBuf,
    /// The replicator's journal: a file, made where it is absent and held by one process; or a map with `postgres`, a
    /// database that the replicators of this site share.
    #[serde(default)]
    #[schemars(schema_with = "journal::schema")]
    journal: JournalFile,
    /// Unix socket for the verbs; left out: admin.sock beside the journal's file, or beside this file.
    admin_socket: Option<PathBuf>,
    /// Address that peers dial, mutual TLS; port 0 takes a free one.
    #[serde(default = "peer_listen")]
    peer_listen: String,
    /// Address of probes, metrics and status; port 0 takes a free one.
    #[serde(default = "admin_listen")]
    admin_listen: String,
    /// File with a token of 16 characters or more that the status page asks for, as password or bearer token, and shows
    /// keys then; left out: the page is open, and shows none.
    page_token_file: Option<PathBuf>,
    /// Seconds the slow proof rests between two pages of keys at least, on each link; 1 to 86400.
    #[serde(default = "proof_pause_seconds")]
    proof_pause_seconds: u32,
    /// File the bound addresses are written to, as JSON, once all are bound.
    ports_file: Option<PathBuf>,
}

impl super::File for File {
    type Settings = Settings;

    fn resolve(self, base: &Path, wrong: &mut Wrong<'_>) -> Settings {
        let store = self.store.resolve(base, wrong);
        let file = replicator::File {
            site_name: self.site_name,
            rules_dir: self.rules_dir,
            kubernetes: self.kubernetes,
            refs_dir: self.refs_dir,
            journal: self.journal,
            admin_socket: self.admin_socket,
            peer_listen: self.peer_listen,
            admin_listen: self.admin_listen,
            page_token_file: self.page_token_file,
            proof_pause_seconds: self.proof_pause_seconds,
            ports_file: self.ports_file,
        };
        let replicator = file.settings(base, wrong);
        wrong.distinct(&[
            ("store.s3_listen", store.s3_listen),
            ("peer_listen", replicator.peer_listen),
            ("admin_listen", replicator.admin_listen),
        ]);
        Settings { store, replicator }
    }

    fn missing(settings: &Settings) -> Vec<(&'static str, String)> {
        let mut missing = replicator::missing(&settings.replicator);
        missing.extend(store::missing_files(&settings.store));
        missing
    }
}
