//! The receiving end: accepts connections on the peer listener, proves who calls, counts what it refuses.
//!
//! What a proven peer says is handled by `server/session.rs`; what it may do is the `Receiver`'s to
//! check, version by version. Called by `replicator`, which hands in the listener and the tasks.
mod session;

use super::Receiver;
use super::connection::{self, Ended, FrameReader, HANDSHAKE_MAX, SENDER_SILENCE_MAX};
use super::frame::{
    self, BUCKETS, CONTENTS, DRILLS, Frame, Hello, LIVE_DRILLS, Message, ONE_WAY_DRILLS, PIECES, PROTOCOL_VERSION,
    READS, RECONCILES, Windows,
};
use session::Session;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use storage_engine::clock::Clock;
use storage_engine::identity::{self, Bundle, Identity};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after an accept that failed: the process is out of descriptors, and asking at once only burns.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the listener takes in at once; the defaults hold one peer with a long, fast line.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Windows given to each connection.
    pub windows: Windows,
    /// Connections at once, of all peers.
    pub connections_max: usize,
    /// Versions of one connection in the store at once; more wait, within the windows.
    pub receives_max: usize,
    /// Age at which a connection is asked to leave. Source: security.md section 3.
    pub lifetime: Duration,
    /// How long versions under way may take once a connection is asked to leave.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            // 4,096 in flight are 20,000 versions a second at 200 ms round trip; 32 MiB hold as many of 4 KiB twice, or
            // 160 MB/s. 4 MiB of one body: four pieces of large versions at once fill half of that.
            windows: Windows { connection_bytes: 32 << 20, stream_bytes: 4 << 20, streams: 4096 },
            connections_max: 256,
            receives_max: 256,
            lifetime: Duration::from_secs(3600),
            drain: Duration::from_secs(10),
        }
    }
}

/// A peer by its two names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// siteID.
    pub site: String,
    /// Name of the Peer document.
    pub peer: String,
    /// What its certificate must hold under: another peer's CA must not sign in its name.
    pub authority: Bundle,
}

/// Says whose URI this is under the rules of this moment; `None`: nobody's, or suspended.
pub type Resolver = Arc<dyn Fn(&str) -> Option<Known> + Send + Sync>;

/// Why something was refused here; a label of `peer_frames_refused_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// TLS failed: no certificate, a wrong CA, an expired one.
    Certificate,
    /// The certificate holds no URI, or several.
    Name,
    /// The URI is no peer's.
    UnknownPeer,
    /// Hello names another site than the certificate.
    ForgedSite,
    /// No common protocol version.
    ProtocolVersion,
    /// No Hello in time.
    Handshake,
    /// Too many connections.
    ConnectionLimit,
    /// A frame above the limit.
    Oversized,
    /// Bytes that are no frame.
    Malformed,
    /// A rule of the protocol was broken: credit, streams, order of frames.
    Protocol,
    /// A frame of an unknown type, passed over; the connection lives on.
    UnknownFrame,
}

impl Refusal {
    /// Every reason, in the order of its discriminant.
    pub const ALL: [Refusal; 11] = [
        Refusal::Certificate,
        Refusal::Name,
        Refusal::UnknownPeer,
        Refusal::ForgedSite,
        Refusal::ProtocolVersion,
        Refusal::Handshake,
        Refusal::ConnectionLimit,
        Refusal::Oversized,
        Refusal::Malformed,
        Refusal::Protocol,
        Refusal::UnknownFrame,
    ];

    /// The value of the label.
    pub fn label(self) -> &'static str {
        match self {
            Refusal::Certificate => "certificate",
            Refusal::Name => "name",
            Refusal::UnknownPeer => "unknown_peer",
            Refusal::ForgedSite => "forged_site",
            Refusal::ProtocolVersion => "protocol_version",
            Refusal::Handshake => "handshake",
            Refusal::ConnectionLimit => "connection_limit",
            Refusal::Oversized => "oversized",
            Refusal::Malformed => "malformed",
            Refusal::Protocol => "protocol",
            Refusal::UnknownFrame => "unknown_frame",
        }
    }
}

/// What the listener counts, for `telemetry/metrics.rs`.
#[derive(Debug, Default)]
pub struct Counters {
    refused: [AtomicU64; Refusal::ALL.len()],
    /// Connections past Hello, now.
    pub connections_open: AtomicU64,
    /// Connections past Hello, ever.
    pub connections: AtomicU64,
    /// Versions handed to the receiver.
    pub versions: AtomicU64,
    /// Bytes of frames, after TLS.
    pub bytes_in: Arc<AtomicU64>,
    pub bytes_out: Arc<AtomicU64>,
}

impl Counters {
    /// How often this was the reason.
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }
    fn refuse(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The peer listener.
pub struct Server {
    /// siteID of this site.
    pub site: String,
    pub identity: Arc<Identity>,
    pub resolver: Resolver,
    pub receiver: Arc<dyn Receiver>,
    pub clock: Arc<dyn Clock>,
    pub settings: Settings,
    pub counters: Arc<Counters>,
}

/// A caller refused before or at Hello, with what to count and say.
struct Refused {
    why: Refusal,
    from: String,
    detail: String,
}

/// Where callers come from.
pub trait Listen: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next caller, and where it calls from.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

impl Listen for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn accept(&mut self) -> io::Result<(Self::Stream, SocketAddr)> {
        let (tcp, from) = TcpListener::accept(self).await?;
        // A caller that is gone already shows at the first read.
        tcp.set_nodelay(true).ok();
        Ok((tcp, from))
    }
}

/// A line whose other end is proven.
struct Proven<S> {
    line: TlsStream<S>,
    named: identity::Named,
    known: Known,
}

impl Server {
    /// Accepts until `stop`, then returns; connections that stand say goodbye and finish on `tasks`.
    pub async fn run(self: Arc<Self>, mut listener: impl Listen, tasks: TaskTracker, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.settings.connections_max));
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, from)) => match places.clone().try_acquire_owned() {
                    Ok(place) => {
                        let serve = self.clone().serve(stream, from, place, tasks.clone(), stop.clone());
                        tasks.spawn(serve);
                    }
                    Err(_) => self.counters.refuse(Refusal::ConnectionLimit),
                },
                Err(err) => {
                    tracing::warn!(error = %err, "The peer listener cannot accept.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        from: SocketAddr,
        _place: OwnedSemaphorePermit,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        let opening = tokio::time::timeout(HANDSHAKE_MAX, self.clone().open(stream, from, tasks.clone()));
        let opened = match stop.run_until_cancelled(opening).await {
            None => return,
            Some(opened) => opened.unwrap_or_else(|_| {
                Err(Refused { why: Refusal::Handshake, from: from.to_string(), detail: "took too long".into() })
            }),
        };
        match opened {
            Ok((session, reader)) => self.attend(session, reader, stop).await,
            Err(refused) => {
                self.counters.refuse(refused.why);
                tracing::warn!(
                    from = refused.from,
                    reason = refused.why.label(),
                    detail = refused.detail,
                    "A caller of the peer listener was refused."
                );
            }
        }
    }

    async fn attend<R>(&self, session: Arc<Session>, reader: FrameReader<R>, stop: CancellationToken)
    where
        R: AsyncRead + Unpin,
    {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        self.counters.connections_open.fetch_add(1, Ordering::Relaxed);
        let (site, peer) = (&session.known.site, &session.known.peer);
        tracing::info!(site, peer, "A peer connected.");
        let ended = session.run(reader, stop).await;
        self.counters.connections_open.fetch_sub(1, Ordering::Relaxed);
        let why = match &ended {
            Ended::Frame(frame::Error::Oversized { .. }) => Some(Refusal::Oversized),
            Ended::Frame(_) => Some(Refusal::Malformed),
            Ended::Protocol(_) => Some(Refusal::Protocol),
            _ => None,
        };
        if let Some(why) = why {
            self.counters.refuse(why);
            tracing::warn!(site, peer, error = %ended, "A peer was cut off.");
        } else {
            tracing::info!(site, peer, reason = %ended, "A peer disconnected.");
        }
    }

    /// TLS, the name in the certificate, Hello and its answer.
    async fn open<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self: Arc<Self>,
        stream: S,
        from: SocketAddr,
        tasks: TaskTracker,
    ) -> Result<(Arc<Session>, FrameReader<ReadHalf<TlsStream<S>>>), Refused> {
        let refused = |why, detail: String| Refused { why, from: from.to_string(), detail };
        let Proven { line, named, known } = self.prove(stream).await.map_err(|(why, detail)| refused(why, detail))?;
        let (read, mut write) = tokio::io::split(line);
        let mut reader = FrameReader::new(read, SENDER_SILENCE_MAX, self.counters.bytes_in.clone());
        let (first, _) = reader.next().await.map_err(|err| refused(Refusal::Handshake, err.to_string()))?;
        let Message::Hello(hello) = first.message else {
            return Err(refused(Refusal::Handshake, "the first frame is no Hello".into()));
        };
        if hello.site != known.site {
            let detail = format!("{} says it is {}", named.uri, hello.site);
            return Err(refused(Refusal::ForgedSite, detail));
        }
        let (low, high) = hello.versions;
        let answer = if (low..=high).contains(&PROTOCOL_VERSION) {
            self.hello(&known.site, &hello.links).await
        } else {
            Message::Goodbye(format!("this end speaks protocol version {PROTOCOL_VERSION} only"))
        };
        let speaks = matches!(answer, Message::Hello(_));
        let bytes = Frame::connection(answer).encode().map_err(|err| refused(Refusal::Handshake, err.to_string()))?;
        let sent = async {
            write.write_all(&bytes).await?;
            write.flush().await
        };
        sent.await.map_err(|err| refused(Refusal::Handshake, err.to_string()))?;
        if !speaks {
            return Err(refused(Refusal::ProtocolVersion, format!("versions {low} to {high}")));
        }
        let expires_in = named.not_after_millis.saturating_sub(self.clock.now_millis());
        let lifetime = self.settings.lifetime.min(Duration::from_millis(expires_in));
        let (outbox, outgoing) = connection::outbox();
        let session = Session::new(self.clone(), known, named.uri, outbox, lifetime, tasks.clone());
        tasks.spawn(session.clone().write(outgoing, write));
        Ok((session, reader))
    }

    /// The handshake, and whose certificate it showed.
    async fn prove<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<Proven<S>, (Refusal, String)> {
        let configs = self.identity.configs();
        let acceptor = TlsAcceptor::from(configs.server.clone());
        let line = acceptor.accept(stream).await.map_err(|err| {
            let tls = err.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            (if tls { Refusal::Certificate } else { Refusal::Handshake }, err.to_string())
        })?;
        let chain = line.get_ref().1.peer_certificates();
        let named = identity::named(chain).map_err(|err| (Refusal::Name, err.to_string()))?;
        let known = (self.resolver)(&named.uri).ok_or_else(|| (Refusal::UnknownPeer, named.uri.clone()))?;
        let vouched = configs.vouch(&known.authority, chain.unwrap_or_default(), self.clock.now_millis());
        vouched.map_err(|err| (Refusal::Certificate, format!("{}: {err}", named.uri)))?;
        Ok(Proven { line, named, known })
    }

    /// The answer to a Hello: what this end takes in, and the epochs asked for.
    async fn hello(&self, asking: &str, links: &[String]) -> Message {
        let mut hello = Hello {
            versions: (PROTOCOL_VERSION, PROTOCOL_VERSION),
            site: self.site.clone(),
            windows: Some(self.settings.windows),
            features: [RECONCILES, BUCKETS, READS, DRILLS, ONE_WAY_DRILLS, LIVE_DRILLS, CONTENTS]
                .map(String::from)
                .to_vec(),
            ..Hello::default()
        };
        if self.receiver.takes_pieces() {
            hello.features.push(PIECES.into());
        }
        for link in links {
            hello.epochs.insert(link.clone(), self.receiver.highest_epoch(asking, link).await);
        }
        Message::Hello(hello)
    }
}
