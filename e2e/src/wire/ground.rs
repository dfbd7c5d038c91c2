//! What every seed stands on, made once: certificates, and the documents of two and of three sites that replicate one
//! bucket to each other.
use super::net::PORT;
use super::store::BUCKET;
use isthmus::cli::certs;
use isthmus::rule::refs::Refs;
use isthmus::rule::watch_folder::{self, Snapshot};
use std::path::PathBuf;
use storage_engine::identity::Files;

const TRUST: &str = "wire.example";
const HEAD: &str = "apiVersion: replication.isthmus.dev/v1alpha1\n";
/// The sites there may be; a smaller mesh has the first of them.
pub const SITES: [&str; 3] = ["ams", "fra", "lon"];

/// Certificates and documents, removed when dropped.
pub struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    /// Writes them into a temporary folder.
    pub fn new() -> anyhow::Result<Ground> {
        let dir = tempfile::tempdir()?;
        let hosts = SITES.map(|site| (site, [site]));
        let holders: Vec<(&str, &[&str])> = hosts.iter().map(|(site, hosts)| (*site, &hosts[..])).collect();
        certs::make(&dir.path().join("secrets"), TRUST, &holders)?;
        let ground = Ground { dir };
        for count in 2..=SITES.len() {
            SITES[..count].iter().try_for_each(|site| ground.write(count, site))?;
        }
        Ok(ground)
    }

    fn folder(&self, count: usize, site: &str) -> PathBuf {
        self.dir.path().join(format!("of-{count}")).join(site)
    }

    fn write(&self, count: usize, site: &str) -> std::io::Result<()> {
        let folder = self.folder(count, site);
        std::fs::create_dir_all(&folder)?;
        let own = format!(
            "{HEAD}kind: Site\nmetadata: {{name: {site}}}\nspec:\n  siteID: {site}\n  trustDomain: {TRUST}\n  \
             store: {{apiEndpoint: \"https://{site}:1\", apiTlsSecretRef: {{name: {site}}}}}\n  \
             listener: {{advertisedEndpoint: \"https://{site}:{PORT}\", tlsSecretRef: {{name: {site}}}}}\n"
        );
        std::fs::write(folder.join("site.yaml"), own)?;
        let peers: Vec<_> = SITES[..count].iter().filter(|other| **other != site).collect();
        for peer in &peers {
            let text = format!(
                "{HEAD}kind: Peer\nmetadata: {{name: {peer}}}\nspec:\n  type: Replicator\n  replicator:\n    siteID: {peer}\n    \
                 endpoint: \"https://{peer}:{PORT}\"\n    tls:\n      caRef: {{kind: Secret, name: {site}}}\n      \
                 identities: [\"{}\"]\n    inbound: [{{bucket: {BUCKET}, versionDeletes: Enabled}}]\n",
                certs::spiffe_id(TRUST, peer)
            );
            std::fs::write(folder.join(format!("peer-{peer}.yaml")), text)?;
        }
        let to: Vec<_> = peers.iter().map(|peer| format!("{{peer: {peer}}}")).collect();
        let rule = format!(
            "{HEAD}kind: ReplicationRule\nmetadata: {{name: {BUCKET}}}\nspec:\n  siteRef: {{name: {site}}}\n  bucket: {BUCKET}\n  \
             mode: ActiveActive\n  destinations: [{}]\n  replicate: {{versionDeletes: Enabled}}\n  \
             recoveryPointObjective: 15m\n",
            to.join(", ")
        );
        std::fs::write(folder.join("rule.yaml"), rule)
    }

    /// The documents of a site among so many.
    pub fn documents(&self, count: usize, site: &str) -> Snapshot {
        watch_folder::read(&self.folder(count, site), None).snapshot
    }

    pub fn refs(&self) -> Refs {
        Refs::new(self.dir.path())
    }

    /// The certificate of a site.
    pub fn files(&self, site: &str) -> Files {
        Files::in_folder(&self.dir.path().join("secrets").join(site))
    }

    /// What a site's certificate says it is.
    pub fn identity(site: &str) -> String {
        certs::spiffe_id(TRUST, site)
    }
}
