//! Plain TCP or TLS to hosts that are none of ours (foreign targets, a collector of traces), with the one crypto provider
//! of the process. Holds no connection itself; peers and stores have their own mutual TLS.
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to stand.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Idle connections are given up before most servers do: a request on a connection just closed is an unknown outcome.
pub const IDLE_MAX: Duration = Duration::from_secs(20);

/// A connector that believes the CAs in `ca` (PEM), or the system's where there are none.
///
/// # Errors
/// A sentence on what cannot be used.
pub fn connector(ca: Option<&[u8]>) -> Result<HttpsConnector<HttpConnector>, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|e| format!("the CA bundle is no PEM: {e}"))?;
                roots.add(certificate).map_err(|e| format!("a CA of the bundle cannot be used: {e}"))?;
            }
            if roots.is_empty() {
                return Err("the CA bundle holds no certificate".into());
            }
        }
        None => {
            // A machine may have roots that rustls cannot read among those it can.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.map_err(|e| e.to_string())?.with_root_certificates(roots).with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_MAX));
    tcp.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    Ok(connector.wrap_connector(tcp))
}
