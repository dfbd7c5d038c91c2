//! Who is refused, by which end, and that it is counted.
use super::rig::{Rig, TRUST, accept_all, object, within};
use crate::cli::certs;
use crate::peer::Ack;
use crate::peer::client::{Error, Target};
use crate::peer::connection::Ended;
use crate::peer::frame::{Frame, Hello, Message, PROTOCOL_VERSION, Windows};
use crate::peer::server::Refusal;
use bytes::Bytes;
use rustls::pki_types::ServerName;
use std::path::Path;
use storage_engine::identity::{self, Files, Identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

impl Rig {
    async fn until_refused(&self, why: Refusal) {
        within(async {
            while self.counters.refused(why) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let all: u64 = Refusal::ALL.iter().map(|r| self.counters.refused(*r)).sum();
        assert_eq!(all, 1, "counted once, as {}", why.label());
        assert_eq!(self.counters.connections_open.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    /// A caller with a good certificate that writes frames by hand.
    async fn raw(&self, hello: Hello) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(&self.endpoint).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = TlsConnector::from(self.identity("fra").await.configs().client);
        let mut line = tls.connect(name, tcp).await.unwrap();
        send(&mut line, Message::Hello(hello)).await;
        line
    }
}

async fn send(line: &mut (impl AsyncWriteExt + Unpin), message: Message) {
    line.write_all(&Frame { stream: 1, message }.encode().unwrap()).await.unwrap();
    line.flush().await.unwrap();
}

fn hello() -> Hello {
    Hello { versions: (PROTOCOL_VERSION, PROTOCOL_VERSION), site: "fra".into(), ..Hello::default() }
}

async fn until_closed(line: &mut TlsStream<TcpStream>) {
    within(async { while matches!(line.read(&mut [0; 4096]).await, Ok(1..)) {} }).await;
}

/// An identity signed by the test's own CA, believed by nobody, or by those told to.
async fn made(folder: &Path, ca: &str, uris: &[&str]) -> Identity {
    let ca_key = certs::authority(ca).unwrap();
    let (certificate, key) = certs::issue(&ca_key, "fra", &["127.0.0.1"], uris).unwrap();
    std::fs::write(folder.join("tls.crt"), certificate).unwrap();
    std::fs::write(folder.join("tls.key"), key).unwrap();
    std::fs::write(folder.join("ca.crt"), ca_key.pem()).unwrap();
    Identity::load(Files::in_folder(folder)).await.unwrap()
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_by_the_listener() {
    let rig = Rig::new(accept_all()).await;
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), "nobody's", &[&certs::spiffe_id(TRUST, "fra")]).await;
    // It believes the listener; the listener does not believe it.
    std::fs::copy(rig.certificates.path().join("ca.crt"), folder.path().join("ca.crt")).unwrap();
    let stranger = Identity::load(Files::in_folder(folder.path())).await.unwrap();
    assert!(rig.try_connect(&rig.target(), &stranger).await.is_err());
    rig.until_refused(Refusal::Certificate).await;
}

#[tokio::test]
async fn a_ca_signs_for_its_own_peer_only_and_is_believed_while_the_listener_runs() {
    let rig = Rig::new(accept_all()).await;
    let york_ca = certs::authority("york").unwrap();
    let target = Target { site: "nyc".into(), ..rig.target() };
    let york = rig.signed(&york_ca, "nyc", &certs::spiffe_id(TRUST, "nyc")).await;
    assert!(rig.try_connect(&target, &york).await.is_err(), "nobody told the listener of this CA");
    let bundle = rig.certificates.path().join("nyc-ca.crt");
    assert!(!rig.identity.trust(vec![bundle.clone()]).await.unwrap(), "the bundle is not there yet");
    std::fs::write(&bundle, york_ca.pem()).unwrap();
    assert!(rig.identity.reload().await.unwrap());
    rig.try_connect(&target, &york).await.unwrap();

    let refused = rig.counters.refused(Refusal::Certificate);
    let forged = rig.signed(&york_ca, "forged", &certs::spiffe_id(TRUST, "fra")).await;
    assert!(rig.try_connect(&rig.target(), &forged).await.is_err(), "york's CA in the name of frankfurt");
    assert_eq!(rig.counters.refused(Refusal::Certificate), refused + 1);
    rig.try_connect(&rig.target(), &rig.identity("fra").await).await.unwrap();

    let next_ca = certs::authority("york, rotated").unwrap();
    let next = rig.signed(&next_ca, "next", &certs::spiffe_id(TRUST, "nyc")).await;
    std::fs::write(&bundle, format!("{}{}", york_ca.pem(), next_ca.pem())).unwrap();
    assert!(rig.identity.reload().await.unwrap());
    rig.try_connect(&target, &next).await.unwrap();
    std::fs::write(&bundle, "damaged").unwrap();
    assert!(!rig.identity.reload().await.unwrap(), "what was read before holds");
    rig.try_connect(&target, &york).await.unwrap();
    assert!(rig.identity.trust(Vec::new()).await.unwrap());
    assert!(rig.try_connect(&target, &york).await.is_err(), "its Peer is gone");
}

#[tokio::test]
async fn a_listener_of_another_ca_or_name_or_identity_is_refused_by_the_caller() {
    let rig = Rig::new(accept_all()).await;
    let folder = tempfile::tempdir().unwrap();
    let stranger = made(folder.path(), "nobody's", &[&certs::spiffe_id(TRUST, "fra")]).await;
    let unbelieved = rig.try_connect(&rig.target(), &stranger).await;
    assert!(matches!(unbelieved, Err(Error::WrongIdentity { .. })));
    let fra = rig.identity("fra").await;
    for target in [
        Target { server_name: "other.example".into(), ..rig.target() },
        Target { identities: vec![certs::spiffe_id(TRUST, "lon")], ..rig.target() },
        Target { identities: vec![format!("{}/more", certs::spiffe_id(TRUST, "ams"))], ..rig.target() },
        Target { peer_site: "lon".into(), ..rig.target() },
    ] {
        let refused = rig.try_connect(&target, &fra).await;
        assert!(matches!(refused, Err(Error::WrongIdentity { .. })), "{target:?}");
    }
}

#[tokio::test]
async fn a_site_that_is_no_peer_is_refused() {
    let rig = Rig::new(accept_all()).await;
    let lon = rig.identity("lon").await;
    let target = Target { site: "lon".into(), ..rig.target() };
    assert!(rig.try_connect(&target, &lon).await.is_err());
    rig.until_refused(Refusal::UnknownPeer).await;
}

#[tokio::test]
async fn a_forged_site_is_refused_and_counted() {
    let rig = Rig::new(accept_all()).await;
    let target = Target { site: "lon".into(), ..rig.target() };
    assert!(rig.try_connect(&target, &rig.identity("fra").await).await.is_err());
    rig.until_refused(Refusal::ForgedSite).await;
}

#[tokio::test]
async fn a_certificate_with_two_uris_or_none_names_nobody() {
    let ca = certs::authority("test").unwrap();
    let id = certs::spiffe_id(TRUST, "fra");
    for (uris, fits) in [(vec![id.as_str()], true), (vec![id.as_str(), "spiffe://other/site"], false), (vec![], false)]
    {
        let (certificate, _) = certs::issue(&ca, "fra", &["127.0.0.1"], &uris).unwrap();
        let der = rustls::pki_types::pem::PemObject::from_pem_slice(certificate.as_bytes()).unwrap();
        let named = identity::named(Some(&[der]));
        assert_eq!(named.is_ok(), fits, "{uris:?}: {named:?}");
    }
    assert!(identity::named(None).is_err());
}

#[tokio::test]
async fn an_unknown_protocol_version_is_refused_with_a_word() {
    let rig = Rig::new(accept_all()).await;
    let mut line = rig.raw(Hello { versions: (7, 9), ..hello() }).await;
    until_closed(&mut line).await;
    rig.until_refused(Refusal::ProtocolVersion).await;
}

#[tokio::test]
async fn an_oversized_frame_closes_the_connection() {
    let rig = Rig::new(accept_all()).await;
    let mut line = rig.raw(hello()).await;
    line.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    line.flush().await.unwrap();
    until_closed(&mut line).await;
    rig.until_refused(Refusal::Oversized).await;
}

#[tokio::test]
async fn bytes_that_are_no_frame_close_the_connection() {
    let rig = Rig::new(accept_all()).await;
    let mut line = rig.raw(hello()).await;
    line.write_all(&[0, 0, 0, 6, 99, 0, 0, 0, 0, 1]).await.unwrap();
    line.flush().await.unwrap();
    until_closed(&mut line).await;
    rig.until_refused(Refusal::Malformed).await;
}

#[tokio::test]
async fn bytes_of_no_stream_and_acks_from_a_sender_break_the_protocol() {
    for message in
        [Message::Data(Bytes::from_static(b"x")), Message::End { aborted: false }, Message::Ack(Ack::Applied)]
    {
        let rig = Rig::new(accept_all()).await;
        let mut line = rig.raw(hello()).await;
        send(&mut line, message).await;
        until_closed(&mut line).await;
        rig.until_refused(Refusal::Protocol).await;
    }
}

#[tokio::test]
async fn a_peer_that_falls_silent_counts_as_down_after_four_seconds() {
    let rig = Rig::new(accept_all()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { endpoint: listener.local_addr().unwrap().to_string(), ..rig.target() };
    let tls = TlsAcceptor::from(rig.identity("ams").await.configs().server);
    let mute = tokio::spawn(async move {
        let mut line = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
        let windows = Some(Windows { connection_bytes: 16 << 20, stream_bytes: 1 << 20, streams: 16 });
        send(&mut line, Message::Hello(Hello { site: "ams".into(), windows, ..hello() })).await;
        std::future::pending::<()>().await;
    });
    let line = rig.try_connect(&target, &rig.identity("fra").await).await.unwrap();
    let began = tokio::time::Instant::now();
    let (pushed, ended) = within(async { tokio::join!(line.push(object("key", 10)), line.closed()) }).await;
    assert_eq!(ended, Ended::Silent);
    assert!(pushed.unwrap_err().is_peer_gone());
    assert!(began.elapsed().as_secs() < 10, "down after {:?}", began.elapsed());
    mute.abort();
}

#[tokio::test]
async fn certificates_are_read_again_and_a_bad_file_is_named() {
    let rig = Rig::new(accept_all()).await;
    let identity = rig.identity("fra").await;
    assert!(!identity.reload().await.unwrap(), "nothing changed");
    let folder = rig.certificates.path().join("fra");
    std::fs::write(folder.join("tls.key"), "no key").unwrap();
    let said = identity.reload().await.unwrap_err().to_string();
    assert!(said.contains("tls.key"), "{said}");
    // The old one stays in use.
    rig.try_connect(&rig.target(), &identity).await.unwrap();
    std::fs::remove_file(folder.join("ca.crt")).unwrap();
    let said = Identity::load(Files::in_folder(&folder)).await.unwrap_err().to_string();
    assert!(said.contains("ca.crt"), "{said}");
    certs::make(rig.certificates.path(), TRUST, &[("fra", &["127.0.0.1"])]).unwrap();
    assert!(identity.reload().await.unwrap());
    let rotated = rig.try_connect(&rig.target(), &identity).await;
    assert!(rotated.is_err(), "the new CA is not the listener's");
}
