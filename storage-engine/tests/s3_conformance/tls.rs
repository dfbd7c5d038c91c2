//! The front door over TLS: whom it serves, what it shows, and what a client that does not get through costs others.
use crate::authority::Authority;
use crate::client::{Answer, Call, Store, settings};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage_engine::clock::SystemClock;
use storage_engine::config::Settings;
use storage_engine::identity::ServerCertificate;
use storage_engine::metrics::Metrics;
use storage_engine::node::{OpenError, StoreNode};
use storage_engine::version::Origin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// Far beyond what a test waits for.
const DEADLINE: Duration = Duration::from_secs(20);
/// Clients at once, each with a connection for each request.
const CLIENTS: usize = 4;
const SWAPS: usize = 3;

/// A store that speaks TLS, with a bucket and the CA of its certificate.
struct Secured {
    store: Store,
    ca: Authority,
    certificate: Arc<ServerCertificate>,
    metrics: Arc<Metrics>,
}

impl Secured {
    async fn start() -> Secured {
        let (dir, ca) = (tempfile::tempdir().unwrap(), Authority::new());
        ca.sign_into(&dir.path().join("tls"));
        (0..4).for_each(|i| std::fs::create_dir(dir.path().join(format!("drive{i}"))).unwrap());
        let settings = Settings { s3_tls_dir: Some(dir.path().join("tls")), ..settings(&dir) };
        let node = StoreNode::open(&settings, Arc::new(SystemClock), Origin::new("here")).await.unwrap();
        let (certificate, metrics) = (node.certificate().expect("it speaks TLS"), node.metrics());
        let secured = Secured { store: Store::serve(dir, node).await, ca, certificate, metrics };
        secured.ask(&secured.knowing(), Call::new("PUT", "/box")).await.expect(200);
        secured.ask(&secured.knowing(), Call::new("PUT", "/box/k").body(b"hello")).await.expect(200);
        secured
    }
    /// What a client that believes the CA has.
    fn knowing(&self) -> Arc<ClientConfig> {
        Arc::new(believing(&self.ca, &[&TLS12, &TLS13]))
    }
    async fn ask(&self, config: &Arc<ClientConfig>, call: Call) -> Answer {
        let mut line = connect(self.store.addr, config).await.unwrap();
        whole_answer(&mut line, &call.sign(self.store.addr)).await.unwrap()
    }
    /// The certificate that the files hold.
    fn in_files(&self) -> Vec<u8> {
        let pem = std::fs::read(self.store.dir.path().join("tls/tls.crt")).unwrap();
        CertificateDer::from_pem_slice(&pem).unwrap().to_vec()
    }
}

fn believing(ca: &Authority, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    config.with_root_certificates(roots).with_no_client_auth()
}

async fn connect(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    TlsConnector::from(config.clone()).connect(name, TcpStream::connect(addr).await?).await
}

async fn whole_answer(line: &mut TlsStream<TcpStream>, request: &[u8]) -> io::Result<Answer> {
    line.write_all(request).await?;
    let mut bytes = Vec::new();
    line.read_to_end(&mut bytes).await?;
    Ok(Answer::parse(&bytes, false))
}

/// What the server showed on this line.
fn shown(line: &TlsStream<TcpStream>) -> Vec<u8> {
    line.get_ref().1.peer_certificates().expect("it showed one")[0].to_vec()
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_with_those_who_believe_the_ca_and_with_nobody_else() {
    let secured = Secured::start().await;
    let addr = secured.store.addr;
    for (version, name) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let mut config = believing(&secured.ca, &[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut line = connect(addr, &Arc::new(config)).await.unwrap();
        assert_eq!(line.get_ref().1.protocol_version(), Some(name));
        assert_eq!(line.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]), "the listener knows no HTTP/2");
        let got = whole_answer(&mut line, &Call::new("GET", "/box/k").sign(addr)).await.unwrap().expect(200);
        assert_eq!(got.body, b"hello");
    }
    let mut only_h2 = believing(&secured.ca, &[&TLS13]);
    only_h2.alpn_protocols = vec![b"h2".to_vec()];
    assert!(connect(addr, &Arc::new(only_h2)).await.is_err(), "nothing is spoken that nobody asked for");
    let before = secured.metrics.snapshot().handshakes_failed;
    let refused = connect(addr, &Arc::new(believing(&Authority::new(), &[&TLS13]))).await;
    let why = refused.expect_err("another CA signed it").to_string();
    assert!(why.contains("invalid peer certificate"), "{why}");
    let counted = async {
        while secured.metrics.snapshot().handshakes_failed == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, counted).await.expect("a client that does not believe us is counted");
}

#[tokio::test]
async fn plain_http_at_the_port_of_tls_is_neither_answered_nor_done() {
    let secured = Secured::start().await;
    let addr = secured.store.addr;
    let answer = secured.store.send(&Call::new("PUT", "/box/plain").body(b"readable by all").sign(addr)).await;
    assert_eq!(answer.status, 0, "{answer:?}");
    assert!(!String::from_utf8_lossy(&answer.body).contains("HTTP"), "{answer:?}");
    secured.ask(&secured.knowing(), Call::new("GET", "/box/plain")).await.error(404, "NoSuchKey");
}

#[tokio::test]
async fn who_does_not_shake_hands_keeps_nobody_waiting_and_no_stop() {
    let secured = Secured::start().await;
    let addr = secured.store.addr;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap(); // the first bytes of a hello that never comes
        silent.push(stream);
    }
    let config = secured.knowing();
    let asked = secured.ask(&config, Call::new("GET", "/box/k"));
    let got = timeout(DEADLINE, asked).await.expect("others are served");
    assert_eq!(got.expect(200).body, b"hello");
    let stopped = Instant::now();
    secured.store.stop().await;
    assert!(stopped.elapsed() < Duration::from_secs(5), "a handshake is no request under way: {:?}", stopped.elapsed());
}

/// Asks on a connection of its own each time until `done`; notes what was shown.
async fn load(addr: SocketAddr, config: Arc<ClientConfig>, seen: &Mutex<BTreeSet<Vec<u8>>>, done: &CancellationToken) {
    while !done.is_cancelled() {
        let mut line = connect(addr, &config).await.expect("the certificate of the moment is believed");
        let got = whole_answer(&mut line, &Call::new("GET", "/box/k").sign(addr)).await.expect("an answer");
        assert_eq!(got.expect(200).body, b"hello");
        seen.lock().unwrap().insert(shown(&line));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_swapped_under_load_and_no_request_fails() {
    let secured = Secured::start().await;
    let (addr, config) = (secured.store.addr, secured.knowing());
    let (folder, done) = (secured.store.dir.path().join("tls"), CancellationToken::new());
    let seen: Vec<Mutex<BTreeSet<Vec<u8>>>> = (0..CLIENTS).map(|_| Mutex::default()).collect();
    let all_saw = async |certificate: Vec<u8>| {
        let all = async {
            while !seen.iter().all(|seen| seen.lock().unwrap().contains(&certificate)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, all).await.expect("every client is shown the new certificate");
    };
    let swaps = async {
        let mut kept = connect(addr, &config).await.unwrap();
        for _ in 0..SWAPS {
            all_saw(secured.in_files()).await;
            secured.ca.sign_into(&folder);
            assert!(secured.certificate.reload().await.unwrap(), "the files have changed");
        }
        all_saw(secured.in_files()).await;
        // A key that does not fit: the last certificate stays.
        let shown_last = secured.in_files();
        let held = std::fs::read(folder.join("tls.key")).unwrap();
        Authority::new().sign_into(&secured.store.dir.path().join("other"));
        std::fs::copy(secured.store.dir.path().join("other/tls.key"), folder.join("tls.key")).unwrap();
        let broken = secured.certificate.reload().await.unwrap_err().to_string();
        assert!(broken.contains("tls.crt") && broken.contains("KeyMismatch"), "{broken}");
        assert_eq!(shown(&connect(addr, &config).await.unwrap()), shown_last);
        std::fs::write(folder.join("tls.key"), held).unwrap();
        assert!(!secured.certificate.reload().await.unwrap(), "they are as they were");
        // A connection from before all that goes on.
        let got = whole_answer(&mut kept, &Call::new("GET", "/box/k").sign(addr)).await.unwrap();
        assert_eq!(got.expect(200).body, b"hello");
        done.cancel();
    };
    let clients = seen.iter().map(|seen| load(addr, config.clone(), seen, &done));
    let clients = futures::future::join_all(clients);
    timeout(DEADLINE * 3, async { tokio::join!(clients, swaps) }).await.expect("it ends");
    assert_eq!(secured.metrics.snapshot().handshakes_failed, 0);
}

#[tokio::test]
async fn without_a_certificate_that_fits_its_key_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let tls = dir.path().join("tls");
    let of = Settings { s3_tls_dir: Some(tls.clone()), ..settings(&dir) };
    let refused = async || match StoreNode::open(&of, Arc::new(SystemClock), Origin::new("here")).await {
        Err(error @ OpenError::Certificate(_)) => error.to_string(),
        other => panic!("{:?}", other.err()),
    };
    let said = refused().await;
    assert!(said.contains("tls.crt") && said.contains("s3_tls_dir"), "{said}");
    Authority::new().sign_into(&tls);
    std::fs::write(tls.join("tls.key"), "no key").unwrap();
    let said = refused().await;
    assert!(said.contains("tls.key"), "{said}");
    assert!(!dir.path().join("drive0").exists(), "no drive is touched");
}
