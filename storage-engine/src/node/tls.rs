//! The handshake of the S3 listener: by the certificate of the moment, within its time. What is spoken afterwards is
//! the accept loop's, over TLS as over plain TCP.
use rustls::ServerConfig;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// TLS has so long, as at the private API; a connection that has not spoken holds a place.
pub(super) use crate::api::serve::HANDSHAKE_MAX;

/// A line that is encrypted from here on.
///
/// # Errors
/// `TimedOut` after `limit`; else what the client sent is no TLS, or it does not believe the certificate.
pub(super) async fn handshake<T>(io: T, config: Arc<ServerConfig>, limit: Duration) -> io::Result<TlsStream<T>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(limit, TlsAcceptor::from(config).accept(io)).await {
        Ok(shaken) => shaken,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::version::TLS13;
    use tokio::io::AsyncWriteExt;

    /// It shows nothing: no client here comes so far.
    fn config() -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
        let nothing = Arc::new(rustls::server::ResolvesServerCertUsingSni::new());
        Arc::new(config.with_no_client_auth().with_cert_resolver(nothing))
    }

    #[tokio::test]
    async fn a_handshake_that_drips_is_cut() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        let cut = handshake(server, config(), Duration::from_millis(20)).await;
        assert_eq!(cut.map(|_| ()).map_err(|e| e.kind()), Err(io::ErrorKind::TimedOut));
    }

    #[tokio::test]
    async fn what_is_no_tls_is_no_line() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let refused = handshake(server, config(), Duration::from_secs(3600)).await;
        assert_eq!(refused.map(|_| ()).map_err(|e| e.kind()), Err(io::ErrorKind::InvalidData));
    }
}
