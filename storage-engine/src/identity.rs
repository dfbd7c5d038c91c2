//! Who a process is and whom it believes: TLS 1.3 with certificates on both sides, read from files
//! and read again while they change.
//!
//! Proves a chain and reads the one name in it; whose that name is and what it may do is decided by
//! who asks: `api/serve.rs`, its client, and whoever else speaks over mutual TLS. Never falls back to less:
//! no other TLS version, no anonymous side, no resumption without a fresh proof of the certificate.
//! Apart from it, `server`: a listener's certificate for clients without one.
mod fresh;
mod server;

pub use server::ServerCertificate;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version::TLS13};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read; the caller names it to a person.
    #[error("read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A file holds no PEM of the kind expected.
    #[error("read {}: {reason}", path.display())]
    Pem { path: PathBuf, reason: String },
    /// Certificate and key do not fit together, or the CA bundle is of no use.
    #[error("use {}: {source}", path.display())]
    Unusable { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    /// The certificate of the other end cannot be read, or does not hold exactly one URI.
    #[error("the certificate of the other end {0}")]
    Name(String),
    /// The chain is good, but not under the CA bundle its name belongs to, or it is revoked.
    #[error("its certificate does not hold under {}: {reason}", authority.display())]
    WrongAuthority { authority: PathBuf, reason: String },
}

/// Whose certificates are believed: CAs, and what they revoked since.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bundle {
    /// PEM: the CAs.
    pub authorities: PathBuf,
    /// PEM: a revocation list of each of them; `None`: none is asked. One that is named and cannot be read, or is out of
    /// date, lets nobody in.
    pub revocations: Option<PathBuf>,
}

impl From<PathBuf> for Bundle {
    /// Without revocation lists.
    fn from(authorities: PathBuf) -> Self {
        Bundle { authorities, revocations: None }
    }
}

/// Where an identity lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// PEM: its certificate, then intermediates.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// Whose certificates are believed.
    pub authorities: Vec<Bundle>,
}

impl Files {
    /// `tls.crt`, `tls.key` and `ca.crt` of one folder, as a mounted secret has them.
    pub fn in_folder(folder: &Path) -> Self {
        Files {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            authorities: vec![folder.join("ca.crt").into()],
        }
    }
}

/// The two ends' settings made from one reading of the files.
#[derive(Clone, Debug)]
pub struct Configs {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
    /// A proof under each CA bundle alone.
    proofs: BTreeMap<Bundle, Arc<dyn ClientCertVerifier>>,
}

impl Configs {
    /// Whether a caller's chain holds under this one bundle: the handshake only proves that it does under some.
    ///
    /// # Errors
    /// [`Error::WrongAuthority`]: another bundle's CA signed it, it is revoked, or the bundle could never be read.
    pub fn vouch(&self, bundle: &Bundle, chain: &[CertificateDer<'_>], now_millis: u64) -> Result<(), Error> {
        let wrong = |reason: String| Error::WrongAuthority { authority: bundle.authorities.clone(), reason };
        let proof = self.proofs.get(bundle).ok_or_else(|| wrong("the bundle was not read".into()))?;
        let (leaf, between) = chain.split_first().ok_or_else(|| wrong("there is none".into()))?;
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now_millis));
        proof.verify_client_cert(leaf, between, now).map(|_| ()).map_err(|err| wrong(err.to_string()))
    }
}

/// An identity, always the newest one that could be read.
#[derive(Debug)]
pub struct Identity {
    files: Files,
    /// Bundles believed besides, as the caller named them last.
    others: RwLock<Vec<Bundle>>,
    current: RwLock<Current>,
    /// One reading at a time: an older one must not take back what a newer one has found.
    reading: tokio::sync::Mutex<()>,
}
#[derive(Debug)]
struct Current {
    bytes: FileBytes,
    configs: Configs,
    /// What the own certificate says; `None`: it names nobody.
    named: Option<Named>,
    /// How long the CAs hold; `None`: there are none.
    authorities: Option<(u64, u64)>,
}

impl Current {
    fn of(files: &Files, bytes: FileBytes) -> Result<Self, Error> {
        let configs = configs(files, &bytes)?;
        let chain = certificates(&files.certificate, &bytes.certificate)?;
        let bundles = bytes.authorities.iter().chain(bytes.others.values());
        let authorities = bundles.filter_map(BundleBytes::valid_millis).min_by_key(|(_, until)| *until);
        Ok(Current { bytes, configs, named: named(Some(&chain)).ok(), authorities })
    }
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// Any [`Error`], naming the file: without an identity nothing may start.
    pub async fn load(files: Files) -> Result<Self, Error> {
        let bytes = FileBytes::read(&files, &[], None).await?;
        let current = RwLock::new(Current::of(&files, bytes)?);
        Ok(Identity { files, others: RwLock::default(), current, reading: tokio::sync::Mutex::default() })
    }

    /// From now on believes these bundles besides those of its own files, and no others. One that cannot be read is
    /// left out until it can, and said.
    ///
    /// # Errors
    /// As [`Identity::reload`]; the bundles count with the next reload that succeeds.
    pub async fn trust(&self, others: Vec<Bundle>) -> Result<bool, Error> {
        *self.others.write().unwrap_or_else(PoisonError::into_inner) = others;
        self.reload().await
    }

    /// What new handshakes use.
    pub fn configs(&self) -> Configs {
        self.current.read().unwrap_or_else(PoisonError::into_inner).configs.clone()
    }

    /// Unix milliseconds from which and until which the own certificate holds; `None`: it names nobody.
    pub fn valid_millis(&self) -> Option<(u64, u64)> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.named.as_ref().map(|named| (named.not_before_millis, named.not_after_millis))
    }

    /// The same of the CAs that are believed. Of a bundle the CA counts that holds longest: the others are on their way
    /// out. Of several bundles the first that comes to its end.
    pub fn authorities_valid_millis(&self) -> Option<(u64, u64)> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).authorities
    }

    /// The one URI of the own certificate; `None`: it names nobody.
    pub fn uri(&self) -> Option<String> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).named.as_ref().map(|named| named.uri.clone())
    }

    /// Reads the files again; `true` when they had changed. Connections that stand are left alone.
    ///
    /// # Errors
    /// Any [`Error`]; the identity in use stays.
    pub async fn reload(&self) -> Result<bool, Error> {
        let _turn = self.reading.lock().await;
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner).clone();
        let known = self.current.read().unwrap_or_else(PoisonError::into_inner).bytes.others.clone();
        let bytes = FileBytes::read(&self.files, &others, Some(known)).await?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).bytes == bytes {
            return Ok(false);
        }
        let current = Current::of(&self.files, bytes)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(true)
    }

    /// Reloads every minute until `stop`. May be dropped at any time.
    pub async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        fresh::keep(&self.files.certificate, || self.reload(), &stop).await;
    }
}

/// The files as they were last read.
#[derive(Debug, PartialEq, Eq)]
struct FileBytes {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<BundleBytes>,
    others: BTreeMap<Bundle, BundleBytes>,
}

/// A bundle as it was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BundleBytes {
    authorities: Vec<u8>,
    revocations: Option<Vec<u8>>,
}

impl BundleBytes {
    fn valid_millis(&self) -> Option<(u64, u64)> {
        let authorities = CertificateDer::pem_slice_iter(&self.authorities).filter_map(Result::ok);
        authorities.filter_map(|ca| validity_millis(&ca).ok()).max_by_key(|(_, until)| *until)
    }
}

impl FileBytes {
    /// `known`: the other bundles as they were read last; one that cannot be read now stays as it was.
    async fn read(
        files: &Files,
        others: &[Bundle],
        known: Option<BTreeMap<Bundle, BundleBytes>>,
    ) -> Result<Self, Error> {
        let mut authorities = Vec::with_capacity(files.authorities.len());
        for bundle in &files.authorities {
            authorities.push(read_bundle(bundle).await?);
        }
        let (mut bundles, known) = (BTreeMap::new(), known.unwrap_or_default());
        for bundle in others {
            let bytes = match read_bundle(bundle).await {
                Ok(bytes) => Some(bytes),
                Err(err) => {
                    tracing::warn!(error = %err, "A CA bundle cannot be used; what was read of it before holds.");
                    known.get(bundle).cloned()
                }
            };
            bundles.extend(bytes.map(|bytes| (bundle.clone(), bytes)));
        }
        let (certificate, key) = (read(&files.certificate).await?, read(&files.key).await?);
        Ok(FileBytes { certificate, key, authorities, others: bundles })
    }
}

/// The bytes of a bundle whose every certificate can be a root, and whose every list can be read.
async fn read_bundle(bundle: &Bundle) -> Result<BundleBytes, Error> {
    let authorities = read(&bundle.authorities).await?;
    roots(&bundle.authorities, &authorities)?;
    let revocations = match &bundle.revocations {
        Some(path) => {
            let bytes = read(path).await?;
            revoked(path, &bytes)?;
            Some(bytes)
        }
        None => None,
    };
    Ok(BundleBytes { authorities, revocations })
}

fn revoked(path: &Path, pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    let found: Vec<_> = CertificateRevocationListDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|err| malformed(path, &err))?;
    if found.is_empty() {
        return Err(Error::Pem { path: path.into(), reason: "no revocation list in it".into() });
    }
    Ok(found)
}

fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path, pem)? {
        roots.add(authority).map_err(|err| unusable(path, err))?;
    }
    Ok(roots)
}

async fn read(path: &Path) -> Result<Vec<u8>, Error> {
    tokio::fs::read(path).await.map_err(|source| Error::Read { path: path.into(), source })
}

fn configs(files: &Files, bytes: &FileBytes) -> Result<Configs, Error> {
    let chain = certificates(&files.certificate, &bytes.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes.key).map_err(|err| malformed(&files.key, &err))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut all = RootCertStore::empty();
    let mut proofs: BTreeMap<Bundle, Arc<dyn ClientCertVerifier>> = BTreeMap::new();
    for (bundle, read) in files.authorities.iter().zip(&bytes.authorities).chain(&bytes.others) {
        let path = &bundle.authorities;
        let own = roots(path, &read.authorities)?;
        all.extend(own.roots.iter().cloned());
        let mut proof = WebPkiClientVerifier::builder_with_provider(Arc::new(own), provider.clone());
        if let (Some(path), Some(pem)) = (&bundle.revocations, &read.revocations) {
            proof = proof.with_crls(revoked(path, pem)?).enforce_revocation_expiration();
        }
        proofs.insert(bundle.clone(), proof.build().map_err(|err| unusable(path, err))?);
    }
    let roots = Arc::new(all);
    let bundle = files.authorities.first().map_or(Path::new("the CA bundle"), |b| b.authorities.as_path());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|err| unusable(bundle, err))?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|err| unusable(&files.certificate, err))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|err| unusable(&files.certificate, err))?;
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|err| unusable(&files.certificate, err))?
        .with_webpki_verifier(dialled(files, bytes, roots, &provider)?)
        .with_client_auth_cert(chain, key)
        .map_err(|err| unusable(&files.certificate, err))?;
    // A resumed session would carry an identity proven by certificates no longer in use.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    client.resumption = Resumption::disabled();
    Ok(Configs { server: Arc::new(server), client: Arc::new(client), proofs })
}

/// What proves whoever is dialled: under all bundles of the files, and not revoked by any list there is among them. A CA
/// without a list is asked for none only where no bundle has one.
fn dialled(
    files: &Files,
    bytes: &FileBytes,
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
    for (bundle, read) in files.authorities.iter().zip(&bytes.authorities) {
        if let (Some(path), Some(pem)) = (&bundle.revocations, &read.revocations) {
            verifier = verifier.with_crls(revoked(path, pem)?).enforce_revocation_expiration();
        }
    }
    verifier.build().map_err(|err| unusable(&files.certificate, err))
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(bytes).collect::<Result<_, _>>().map_err(|err| malformed(path, &err))?;
    if found.is_empty() {
        return Err(Error::Pem { path: path.into(), reason: "no certificate in it".into() });
    }
    Ok(found)
}

fn malformed(path: &Path, err: &pem::Error) -> Error {
    Error::Pem { path: path.into(), reason: err.to_string() }
}

fn unusable(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unusable { path: path.into(), source: Box::new(source) }
}

/// Whom a verified certificate names, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its one URI, whole.
    pub uri: String,
    /// Unix milliseconds from which it holds.
    pub not_before_millis: u64,
    /// Unix milliseconds after which it holds no more.
    pub not_after_millis: u64,
}

/// Reads the one URI of the certificate the handshake proved (the first of `chain`). The name verifier
/// of TLS checks no URIs; the common name is never looked at.
///
/// # Errors
/// [`Error::Name`] when there is no certificate, it cannot be read, or it holds no URI or several.
pub fn named(chain: Option<&[CertificateDer<'_>]>) -> Result<Named, Error> {
    let leaf = chain.and_then(<[_]>::first).ok_or_else(|| Error::Name("is absent".into()))?;
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|err| Error::Name(format!("cannot be read: {err}")))?;
    let (not_before_millis, not_after_millis) = holds_millis(&certificate);
    let names = certificate
        .subject_alternative_name()
        .map_err(|err| Error::Name(format!("has unreadable alternative names: {err}")))?;
    let mut uris = names.iter().flat_map(|n| &n.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(Named { uri: uri.to_string(), not_before_millis, not_after_millis }),
        (None, _) => Err(Error::Name("holds no URI".into())),
        (Some(_), Some(_)) => Err(Error::Name("holds more than one URI".into())),
    }
}

/// Unix milliseconds from which and until which a certificate holds, whomever it names.
fn validity_millis(certificate: &CertificateDer<'_>) -> Result<(u64, u64), String> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|err| err.to_string())?;
    Ok(holds_millis(&certificate))
}

fn holds_millis(certificate: &X509Certificate<'_>) -> (u64, u64) {
    let millis = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    let validity = certificate.validity();
    (millis(validity.not_before.timestamp()), millis(validity.not_after.timestamp()))
}
