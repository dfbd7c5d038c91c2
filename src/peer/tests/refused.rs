//! Who is refused, by which end, and that it is counted.
use super::rig::{Rig, TRUST, accept_all, object, pattern, within};
use crate::cli::certs;
use crate::peer::Ack;
use crate::peer::client::{Connection, Error, Target};
use crate::peer::connection::Ended;
use crate::peer::frame::{Frame, Hello, Message, PROTOCOL_VERSION, Put, PutBody, Windows};
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

    /// A caller with a good certificate that writes frames by hand, past Hello.
    async fn raw(&self, hello: Hello) -> TlsStream<TcpStream> {
        let is_known = hello.versions.0 <= PROTOCOL_VERSION;
        let mut line = self.raw_unheard(hello).await;
        if is_known {
            assert!(matches!(answer(&mut line).await, Message::Hello(_)));
        }
        line
    }

    /// The answer to its Hello is not read yet.
    async fn raw_unheard(&self, hello: Hello) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(&self.endpoint).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = TlsConnector::from(self.identity("fra").await.configs().client);
        let mut line = tls.connect(name, tcp).await.unwrap();
        send(&mut line, Message::Hello(hello)).await;
        line
    }
}

/// The next frame that is no Ping.
async fn answer(line: &mut TlsStream<TcpStream>) -> Message {
    within(async {
        loop {
            let length = line.read_u32().await.unwrap();
            let mut bytes = bytes::BytesMut::from(&length.to_be_bytes()[..]);
            bytes.resize(4 + length as usize, 0);
            line.read_exact(&mut bytes[4..]).await.unwrap();
            match Frame::decode(&mut bytes).unwrap().unwrap().0.message {
                Message::Ping(_) => {}
                message => return message,
            }
        }
    })
    .await
}

/// A version of so many bytes, whole.
fn a_put(size: usize) -> Message {
    put_of(size, PutBody::Inline(pattern(size)))
}
fn a_put_streamed(size: usize) -> Message {
    put_of(size, PutBody::Streamed)
}
fn put_of(size: usize, body: PutBody) -> Message {
    let super::super::Outgoing { link, epoch, bucket, version, .. } = object("key", size);
    let (portion, unknown) = Default::default();
    Message::Put(Box::new(Put {
        link,
        epoch,
        bucket,
        version,
        traceparent: None,
        relayed: false,
        body,
        portion,
        unknown,
    }))
}

async fn send(line: &mut (impl AsyncWriteExt + Unpin), message: Message) {
    line.write_all(&Frame { stream: 1, message }.encode().unwrap()).await.unwrap();
    line.flush().await.unwrap();
}

fn hello() -> Hello {
    Hello { versions: (PROTOCOL_VERSION, PROTOCOL_VERSION), site: "fra".into(), ..Hello::default() }
}

impl Rig {
    /// Connects to a listener that shows a good certificate and answers Hello with `said`.
    async fn connect_to_listener_that_says(&self, said: Message) -> Result<Connection, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { endpoint: listener.local_addr().unwrap().to_string(), ..self.target() };
        let tls = TlsAcceptor::from(self.identity("ams").await.configs().server);
        let listening = tokio::spawn(async move {
            let mut line = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
            send(&mut line, said).await;
            std::future::pending::<()>().await;
        });
        let connected = self.try_connect(&target, &self.identity("fra").await).await;
        listening.abort();
        connected
    }
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
    assert!(!rig.identity.trust(vec![bundle.clone().into()]).await.unwrap(), "the bundle is not there yet");
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
    line.write_all(&[0, 0, 0, 6, 2, 0, 0, 0, 0, 1]).await.unwrap();
    line.flush().await.unwrap();
    until_closed(&mut line).await;
    rig.until_refused(Refusal::Malformed).await;
}

#[tokio::test]
async fn a_frame_cut_short_by_the_end_of_the_line_reaches_nobody() {
    let rig = Rig::new(|_| Box::pin(async { panic!("half a version was handed over") })).await;
    let mut line = rig.raw(hello()).await;
    let put = Frame { stream: 1, message: a_put(4096) }.encode().unwrap();
    line.write_all(&put[..put.len() - 1]).await.unwrap();
    line.shutdown().await.unwrap();
    until_closed(&mut line).await;
    assert_eq!(rig.counters.versions.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_frame_of_an_unknown_type_is_counted_and_the_connection_lives_on() {
    let rig = Rig::new(accept_all()).await;
    let mut line = rig.raw(hello()).await;
    line.write_all(&[0, 0, 0, 9, 99, 0, 0, 0, 0, 1, b'a', b'b', b'c']).await.unwrap();
    send(&mut line, a_put(10)).await;
    assert_eq!(answer(&mut line).await, Message::Ack(Ack::Applied));
    assert_eq!(rig.counters.refused(Refusal::UnknownFrame), 1);
}

#[tokio::test]
async fn a_newer_peer_that_speaks_this_version_too_is_answered_in_it() {
    let rig = Rig::new(accept_all()).await;
    let mut later = Hello { versions: (PROTOCOL_VERSION, PROTOCOL_VERSION + 8), ..hello() };
    later.features = vec!["what is not thought of yet".into()];
    later.unknown.put(900, &"later".to_string());
    let mut line = rig.raw_unheard(later).await;
    let Message::Hello(answered) = answer(&mut line).await else { panic!("no Hello") };
    assert_eq!(answered.versions, (PROTOCOL_VERSION, PROTOCOL_VERSION));
    send(&mut line, a_put(10)).await;
    assert_eq!(answer(&mut line).await, Message::Ack(Ack::Applied));
}

#[tokio::test]
async fn an_older_peer_is_told_why_it_is_let_go() {
    let rig = Rig::new(accept_all()).await;
    let mut line = rig.raw_unheard(Hello { versions: (0, 0), ..hello() }).await;
    let Message::Goodbye(why) = answer(&mut line).await else { panic!("no word") };
    assert!(why.contains("version 1"), "{why}");
    until_closed(&mut line).await;
    rig.until_refused(Refusal::ProtocolVersion).await;
}

#[tokio::test]
async fn a_listener_of_another_protocol_version_is_not_spoken_to() {
    let rig = Rig::new(accept_all()).await;
    for versions in [(PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 1), (PROTOCOL_VERSION, PROTOCOL_VERSION + 1)] {
        let windows = Some(Windows { connection_bytes: 16 << 20, stream_bytes: 1 << 20, streams: 16 });
        let said = Message::Hello(Hello { site: "ams".into(), windows, versions, ..hello() });
        let refused = rig.connect_to_listener_that_says(said).await;
        let Err(Error::Unreachable { reason, .. }) = refused else { panic!("it was spoken to") };
        assert!(reason.contains("version"), "{reason}");
    }
}

#[tokio::test]
async fn more_bytes_than_credit_cut_the_sender_off() {
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    let shut = gate.clone();
    let rig = Rig::new(move |_| {
        let shut = shut.clone();
        Box::pin(async move {
            shut.notified().await;
            Ack::Applied
        })
    })
    .await;
    let mut line = rig.raw(hello()).await;
    // Nothing is consumed, so nothing is given back: the window, and one frame more.
    let frames = crate::peer::server::Settings::default().windows.connection_bytes >> 20;
    let put = Frame { stream: 0, message: a_put(1 << 20) }.encode().unwrap();
    for stream in 1..=frames + 1 {
        let frame = crate::peer::frame::on_stream(put.clone(), stream);
        if line.write_all(&frame).await.is_err() {
            break;
        }
    }
    let _ = line.flush().await;
    until_closed(&mut line).await;
    rig.until_refused(Refusal::Protocol).await;
}

#[tokio::test]
async fn more_bytes_of_one_body_than_its_window_cut_the_sender_off() {
    let rig = Rig::new(|incoming| {
        Box::pin(async move {
            // The body is held and never read.
            let _body = incoming.body;
            std::future::pending().await
        })
    })
    .await;
    let mut line = rig.raw(hello()).await;
    send(&mut line, a_put_streamed(8 << 20)).await;
    let frames = crate::peer::server::Settings::default().windows.stream_bytes >> 17;
    for _ in 0..=frames {
        let data = Frame { stream: 1, message: Message::Data(Bytes::from(vec![0; 128 << 10])) };
        if line.write_all(&data.encode().unwrap()).await.is_err() {
            break;
        }
    }
    let _ = line.flush().await;
    until_closed(&mut line).await;
    rig.until_refused(Refusal::Protocol).await;
}

#[tokio::test]
async fn credit_that_nobody_spent_ends_the_connection_of_the_sender() {
    let rig = Rig::new(accept_all()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { endpoint: listener.local_addr().unwrap().to_string(), ..rig.target() };
    let tls = TlsAcceptor::from(rig.identity("ams").await.configs().server);
    let generous = tokio::spawn(async move {
        let mut line = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
        let windows = Some(Windows { connection_bytes: 16 << 20, stream_bytes: 1 << 20, streams: 16 });
        send(&mut line, Message::Hello(Hello { site: "ams".into(), windows, ..hello() })).await;
        line.write_all(&Frame::connection(Message::Credit(u32::MAX)).encode().unwrap()).await.unwrap();
        line.flush().await.unwrap();
        std::future::pending::<()>().await;
    });
    let line = rig.try_connect(&target, &rig.identity("fra").await).await.unwrap();
    assert!(matches!(within(line.closed()).await, Ended::Protocol(_)));
    generous.abort();
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
