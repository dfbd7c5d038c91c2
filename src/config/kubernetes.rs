//! Where documents come from when they come from an API server.
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// An API server, and what is kept there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Namespace of the documents; `None`: that of the kubeconfig or of the pod.
    pub namespace: Option<String>,
    /// `None`: what the pod is given.
    pub kubeconfig: Option<PathBuf>,
    /// Name of the Lease.
    pub lease: String,
    /// Whether the Secrets and ConfigMaps that documents name are read from the API server and written to refs_dir;
    /// else they are mounted there.
    pub watches_secrets: bool,
}

/// As it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Namespace of the documents; left out: that of the kubeconfig, or of the pod.
    namespace: Option<String>,
    /// Kubeconfig of the API server; left out: what a pod is given.
    kubeconfig: Option<PathBuf>,
    /// Name of the Lease that says which replicator of the site writes status and runs jobs.
    #[serde(default = "lease")]
    lease: String,
    /// Where the Secrets and ConfigMaps that documents name come from: watched (read from the API server, written to
    /// refs_dir) or mounted (somebody else puts them there).
    #[serde(default)]
    secrets: SecretsFile,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SecretsFile {
    #[default]
    Watched,
    Mounted,
}

fn lease() -> String {
    "isthmus-controller".into()
}

impl File {
    /// Relative paths count from `base`.
    pub fn settings(self, base: &Path) -> Settings {
        Settings {
            namespace: self.namespace,
            kubeconfig: self.kubeconfig.map(|file| base.join(file)),
            lease: self.lease,
            watches_secrets: self.secrets == SecretsFile::Watched,
        }
    }
}

impl Settings {
    /// Every default, at the server of this file.
    pub fn of(kubeconfig: PathBuf) -> Settings {
        Settings { namespace: None, kubeconfig: Some(kubeconfig), lease: lease(), watches_secrets: true }
    }
}
