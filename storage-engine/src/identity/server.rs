//! What a listener shows of itself to clients that prove themselves otherwise: a certificate and its key, read from
//! files and read again while they change.
//!
//! It asks for no certificate and believes nobody. `node.rs` takes the newest for every handshake of the S3 listener.
use super::{Error, certificates, fresh, malformed, read, unusable, validity_millis};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;

/// What is spoken inside: the S3 listener knows no HTTP/2.
const ALPN: &[u8] = b"http/1.1";

/// A server's certificate, always the newest one that could be read.
#[derive(Debug)]
pub struct ServerCertificate {
    /// PEM: its certificate, then intermediates.
    certificate: PathBuf,
    /// PEM: its private key.
    key: PathBuf,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    bytes: [Vec<u8>; 2],
    config: Arc<ServerConfig>,
    valid: (u64, u64),
}

impl ServerCertificate {
    /// The files a folder must hold.
    pub fn files_in(folder: &Path) -> [PathBuf; 2] {
        [folder.join("tls.crt"), folder.join("tls.key")]
    }

    /// Reads `tls.crt` and `tls.key` of a folder, as a mounted secret has them.
    ///
    /// # Errors
    /// Any [`Error`], naming the file: without a certificate nothing may start.
    pub async fn load(folder: &Path) -> Result<Self, Error> {
        let [certificate, key] = Self::files_in(folder);
        let bytes = [read(&certificate).await?, read(&key).await?];
        let current = RwLock::new(Current::of(&certificate, &key, bytes)?);
        Ok(ServerCertificate { certificate, key, current })
    }

    /// What new handshakes use.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).config.clone()
    }

    /// Unix milliseconds from which and until which it holds.
    pub fn valid_millis(&self) -> (u64, u64) {
        self.current.read().unwrap_or_else(PoisonError::into_inner).valid
    }

    /// Reads the files again; `true` when they had changed. Connections that stand are left alone.
    ///
    /// # Errors
    /// Any [`Error`]; the certificate in use stays.
    pub async fn reload(&self) -> Result<bool, Error> {
        let bytes = [read(&self.certificate).await?, read(&self.key).await?];
        if self.current.read().unwrap_or_else(PoisonError::into_inner).bytes == bytes {
            return Ok(false);
        }
        let current = Current::of(&self.certificate, &self.key, bytes)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(true)
    }

    /// Reloads every minute until `stop`. May be dropped at any time.
    pub async fn keep_fresh(&self, stop: &CancellationToken) {
        fresh::keep(&self.certificate, || self.reload(), stop).await;
    }
}

impl Current {
    fn of(certificate: &Path, key: &Path, bytes: [Vec<u8>; 2]) -> Result<Self, Error> {
        let [chain, secret] = &bytes;
        let chain = certificates(certificate, chain)?;
        let valid = validity_millis(&chain[0]).map_err(|reason| Error::Pem { path: certificate.into(), reason })?;
        let secret = PrivateKeyDer::from_pem_slice(secret).map_err(|err| malformed(key, &err))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS12, &TLS13]) // S3 clients are old
            .map_err(|err| unusable(certificate, err))?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(|err| unusable(certificate, err))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A request that is replayed is done twice. Sessions are resumed under this very certificate alone: the cache
        // goes with the configuration.
        config.max_early_data_size = 0;
        Ok(Current { bytes, config: Arc::new(config), valid })
    }
}
