//! Where the files of Secrets and ConfigMaps stand when there is no API server: `secrets/<name>/<key>` and
//! `configmaps/<name>/<key>` below one folder, the shape of a mounted Secret. It gives paths and looks whether
//! they are there; it never reads a secret. Callers: the watchers, `rule/check.rs`, and whoever shows a certificate.
use super::{FileRef, ForeignDoc, PeerDoc, Problem, RuleSet, SiteDoc};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use storage_engine::identity::{Bundle, Files};

/// Keys of a Secret with credentials for an S3 endpoint.
pub const CREDENTIALS: [&str; 2] = ["accessKeyId", "secretAccessKey"];

/// A folder of references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refs {
    dir: PathBuf,
}

/// The three files of a kubernetes.io/tls Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// tls.crt: own certificate and what leads to its CA.
    pub certificate: PathBuf,
    /// tls.key: its private key.
    pub key: PathBuf,
    /// ca.crt: the CA it was issued by.
    pub ca: PathBuf,
}

/// The name would lead out of the folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a Secret, a ConfigMap or a key: use letters, digits, `-`, `_` and `.`")]
pub struct BadName(pub String);

impl Refs {
    /// References below `dir`.
    pub fn new(dir: &Path) -> Self {
        Refs { dir: dir.into() }
    }

    /// Path of one key.
    ///
    /// # Errors
    /// [`BadName`]: the reference is no plain name; nothing is looked up.
    pub fn file(&self, reference: &FileRef) -> Result<PathBuf, BadName> {
        for part in [&reference.name, &reference.key] {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if part.is_empty() || part.starts_with('.') || !part.chars().all(is_plain) {
                return Err(BadName(part.clone()));
            }
        }
        let kind = if reference.is_secret { "secrets" } else { "configmaps" };
        Ok(self.dir.join(kind).join(&reference.name).join(&reference.key))
    }

    /// Folder of a Secret or ConfigMap.
    ///
    /// # Errors
    /// As [`Refs::file`].
    pub fn folder(&self, is_secret: bool, name: &str) -> Result<PathBuf, BadName> {
        let file = self.file(&FileRef { is_secret, name: name.into(), key: "key".into() })?;
        Ok(file.parent().expect("a key lies in a folder").into())
    }

    /// Paths of a TLS Secret.
    ///
    /// # Errors
    /// As [`Refs::file`].
    pub fn tls(&self, secret: &str) -> Result<TlsFiles, BadName> {
        let file = |key: &str| self.file(&FileRef { is_secret: true, name: secret.into(), key: key.into() });
        Ok(TlsFiles { certificate: file("tls.crt")?, key: file("tls.key")?, ca: file("ca.crt")? })
    }

    /// What a process shows by a TLS Secret, and the CA of the other end in the same Secret.
    ///
    /// # Errors
    /// As [`Refs::file`].
    pub fn identity(&self, secret: &str) -> Result<Files, BadName> {
        let own = self.tls(secret)?;
        Ok(Files { certificate: own.certificate, key: own.key, authorities: vec![own.ca.into()] })
    }

    /// What a site shows to a peer, and what that peer's certificate must hold under.
    ///
    /// # Errors
    /// As [`Refs::file`].
    pub fn towards(&self, site: &SiteDoc, peer: &PeerDoc) -> Result<Files, BadName> {
        let own = self.tls(peer.client_secret.as_ref().unwrap_or(&site.tls_secret))?;
        Ok(Files { certificate: own.certificate, key: own.key, authorities: vec![self.bundle(peer)?] })
    }

    /// What the certificates of a peer must hold under.
    ///
    /// # Errors
    /// As [`Refs::file`].
    pub fn bundle(&self, peer: &PeerDoc) -> Result<Bundle, BadName> {
        let revocations = peer.crl.as_ref().map(|list| self.file(list)).transpose()?;
        Ok(Bundle { authorities: self.file(&peer.ca)?, revocations })
    }

    /// What the documents refer to and is not there. The rules run on: a file may come a moment later.
    pub fn missing(&self, set: &RuleSet) -> Vec<Problem> {
        let mut problems = Vec::new();
        for site in set.sites.values() {
            self.look(&format!("Site/{}", site.name), "spec.listener.tlsSecretRef", &of_site(site), &mut problems);
        }
        for peer in set.peers.values() {
            self.look(&format!("Peer/{}", peer.name), "spec.replicator.tls", &of_peer(peer), &mut problems);
        }
        for target in set.foreign.values() {
            self.look(&format!("Peer/{}", target.name), "spec.s3", &of_foreign(target), &mut problems);
        }
        problems
    }

    fn look(&self, document: &str, field: &str, references: &[FileRef], problems: &mut Vec<Problem>) {
        for reference in references {
            let reason = if reference.is_secret { "SecretNotFound" } else { "ConfigMapNotFound" };
            let message = match self.file(reference) {
                Ok(path) if path.is_file() => continue,
                Ok(path) => format!("there is no file {}; put it there", path.display()),
                Err(bad) => bad.to_string(),
            };
            problems.push(Problem { document: document.into(), place: field.into(), reason, message });
        }
    }
}

/// Reasons of [`Refs::missing`].
pub const IS_MISSING: [&str; 2] = ["SecretNotFound", "ConfigMapNotFound"];

/// Secrets (true) and ConfigMaps that the documents name; those of the own store's certificate too.
pub fn named(set: &RuleSet) -> BTreeSet<(bool, String)> {
    let of_store = set.sites.values().map(|site| secret(&site.api_secret, "tls.crt"));
    let all = set.sites.values().flat_map(of_site).chain(set.peers.values().flat_map(of_peer)).chain(of_store);
    let all = all.chain(set.foreign.values().flat_map(of_foreign));
    all.map(|reference| (reference.is_secret, reference.name)).collect()
}

fn secret(name: &str, key: &str) -> FileRef {
    FileRef { is_secret: true, name: name.into(), key: key.into() }
}
fn of_site(site: &SiteDoc) -> Vec<FileRef> {
    ["tls.crt", "tls.key", "ca.crt"].map(|key| secret(&site.tls_secret, key)).to_vec()
}
fn of_foreign(target: &ForeignDoc) -> Vec<FileRef> {
    let keys = target.credentials_secret.iter().flat_map(|name| CREDENTIALS.map(|key| secret(name, key)));
    keys.chain(target.ca.clone()).collect()
}
fn of_peer(peer: &PeerDoc) -> Vec<FileRef> {
    let own = peer.client_secret.iter().flat_map(|name| ["tls.crt", "tls.key"].map(|key| secret(name, key)));
    std::iter::once(peer.ca.clone()).chain(peer.crl.clone()).chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stay_inside_the_folder() {
        let refs = Refs::new(Path::new("/refs"));
        assert_eq!(refs.tls("site-tls").unwrap().key, Path::new("/refs/secrets/site-tls/tls.key"));
        let config = FileRef { is_secret: false, name: "ca".into(), key: "ca.crt".into() };
        assert_eq!(refs.file(&config).unwrap(), Path::new("/refs/configmaps/ca/ca.crt"));
        for name in ["", "..", "../x", "a/b", "/etc", ".hidden", "a\0"] {
            assert!(refs.tls(name).is_err(), "{name:?}");
        }
    }
}
