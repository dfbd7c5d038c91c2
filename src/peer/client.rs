//! The sending end: one connection to one peer, many versions in flight, acks in any order.
//!
//! Decides nothing about what to send or when to try again: the links do. It never opens a second
//! connection by itself; whoever holds [`Connection`] waits for [`Connection::closed`] and connects anew.
//! Called by `replicator` (connecting) and `replicator/push.rs` (pushing).
mod abilities;
mod pulse;
mod questions;

use super::connection::{
    self, Ended, FrameReader, HANDSHAKE_MAX, INLINE_BYTES_MAX, Outbox, PING_INTERVAL, SILENCE_MAX,
};
use super::frame::read::Found;
use super::frame::reconcile::Answer;
use super::frame::{
    FRAME_BYTES_MAX, Frame, Hello, Message, PROTOCOL_VERSION, Put, PutBody, Windows, credit_cost, frame_bytes,
    on_stream,
};
use super::{Ack, MaySend, Outgoing, Portion};
use crate::link::planted::{self, Planted};
use abilities::Abilities;
pub use abilities::Drilling;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use pulse::Pulse;
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use storage_engine::identity::{self, Identity};
use storage_engine::object::Body;
use storage_engine::wire::Fields;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a stopped connection may take to say goodbye.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// Pieces of large versions at once over one connection: each is in memory whole, and has a stream of its own.
const PIECES_AT_ONCE: usize = 4;
/// Reads under way over one connection: half a MiB each, and no more than the other end lets wait.
const READS_AT_ONCE: usize = 16;

/// Whom to reach, and who that must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port`.
    pub endpoint: String,
    /// DNS name or IP address its certificate must hold; usually the host of the endpoint.
    pub server_name: String,
    /// The URIs of which its certificate must hold exactly one, and no other.
    pub identities: Vec<String>,
    /// siteID of this site.
    pub site: String,
    /// siteID the peer must announce.
    pub peer_site: String,
}

/// Why there is no connection, or no ack.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody there, or the line broke on the way; worth another try.
    #[error("reach {endpoint}: {reason}")]
    Unreachable { endpoint: String, reason: String },
    /// Somebody is there, but not whom the Peer document names; a person must look.
    #[error("the peer at {endpoint} is not believed: {reason}")]
    WrongIdentity { endpoint: String, reason: String },
    /// The connection ended; whether the version arrived is unknown. Sending it again is safe.
    #[error("the peer is gone: {0}")]
    PeerGone(Ended),
    /// The bytes could not be read here; the peer was told and holds nothing of them.
    #[error("read the body: {0}")]
    Body(#[source] std::io::Error),
    /// The link has another owner, or may have; what the peer holds of the version so far it throws away.
    #[error("the link is not owned here any more")]
    NotOwned,
    /// The peer runs a build that does not compare ranges of keys.
    #[error("the peer does not answer digests; upgrade it")]
    NoReconcile,
    /// The peer runs a build that does not tell of its buckets.
    #[error("the peer does not tell of its buckets; upgrade it")]
    NoBuckets,
    /// The peer runs a build that takes part in no such drills.
    #[error("the peer's build takes part in no {0}; upgrade it")]
    NoDrills(&'static str),
    /// The peer runs a build that does not read its bytes to be asked.
    #[error("the peer does not tell of its bytes (compare: Content); upgrade it, or compare Checksum")]
    NoContents,
    /// The record without its bytes does not fit the peer's window; it can never be sent there.
    #[error("a record of {bytes} bytes is above what the peer takes in")]
    TooLarge { bytes: usize },
}

impl Error {
    /// Whether the connection is to blame, and not the version.
    pub fn is_peer_gone(&self) -> bool {
        matches!(self, Error::PeerGone(_) | Error::Unreachable { .. } | Error::WrongIdentity { .. })
    }
}

/// How a peer is called. Asked once a dial: what flows later does not pass through it.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// As [`PeerClient::connect`], over whatever network this is.
    async fn dial(&self, target: &Target, identity: &Identity, tasks: &TaskTracker) -> Result<Connection, Error>;
}

/// Opens connections; as [`Dial`], over TCP.
pub struct PeerClient;

#[async_trait]
impl Dial for PeerClient {
    async fn dial(&self, target: &Target, identity: &Identity, tasks: &TaskTracker) -> Result<Connection, Error> {
        PeerClient::connect(target, identity, tasks).await
    }
}

impl PeerClient {
    /// Connects, proves both ends to each other and exchanges Hello, within 10 s.
    ///
    /// Two tasks of the connection run on `tasks` until it is closed or dropped.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::WrongIdentity`]. Dropping the future leaves nothing behind.
    pub async fn connect(target: &Target, identity: &Identity, tasks: &TaskTracker) -> Result<Connection, Error> {
        let tcp = async {
            let tcp = TcpStream::connect(&target.endpoint).await?;
            tcp.set_nodelay(true)?;
            Ok(tcp)
        };
        PeerClient::connect_over(tcp, target, identity, tasks).await
    }

    /// The same over the stream that `opening` gives.
    ///
    /// # Errors
    /// As [`PeerClient::connect`].
    pub async fn connect_over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        opening: impl Future<Output = std::io::Result<S>>,
        target: &Target,
        identity: &Identity,
        tasks: &TaskTracker,
    ) -> Result<Connection, Error> {
        let unreachable = |reason: String| Error::Unreachable { endpoint: target.endpoint.clone(), reason };
        let opened = tokio::time::timeout(HANDSHAKE_MAX, open(opening, target, identity));
        let opened = opened.await.map_err(|_| unreachable("took too long".into()))??;
        Ok(Connection::start(opened, tasks))
    }
}

/// A line past Hello.
struct Opened<S> {
    line: WriteHalf<TlsStream<S>>,
    reader: FrameReader<ReadHalf<TlsStream<S>>>,
    windows: Windows,
    abilities: Abilities,
    /// Unix milliseconds.
    certificate_until: u64,
}

async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    opening: impl Future<Output = std::io::Result<S>>,
    target: &Target,
    identity: &Identity,
) -> Result<Opened<S>, Error> {
    let unreachable = |reason: String| Error::Unreachable { endpoint: target.endpoint.clone(), reason };
    let disbelieved = |reason: String| Error::WrongIdentity { endpoint: target.endpoint.clone(), reason };
    let name = ServerName::try_from(target.server_name.clone()).map_err(|err| disbelieved(err.to_string()))?;
    let stream = opening.await.map_err(|err| unreachable(err.to_string()))?;
    let line = TlsConnector::from(identity.configs().client).connect(name, stream).await.map_err(|err| {
        let tls = err.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        if tls { disbelieved(err.to_string()) } else { unreachable(err.to_string()) }
    })?;
    let named = identity::named(line.get_ref().1.peer_certificates()).map_err(|err| disbelieved(err.to_string()))?;
    if !target.identities.contains(&named.uri) {
        return Err(disbelieved(format!("its certificate names {}", named.uri)));
    }
    let (read, mut line) = tokio::io::split(line);
    let hello = hello(&target.site, Vec::new()).encode().map_err(|err| unreachable(err.to_string()))?;
    line.write_all(&hello).await.map_err(|err| unreachable(err.to_string()))?;
    line.flush().await.map_err(|err| unreachable(err.to_string()))?;
    let mut reader = FrameReader::new(read, SILENCE_MAX, Arc::new(AtomicU64::new(0)));
    let (answer, _) = reader.next().await.map_err(|err| unreachable(format!("no Hello: {err}")))?;
    let (windows, features) = match answer.message {
        Message::Hello(hello) if hello.site != target.peer_site => {
            return Err(disbelieved(format!("it says it is site {}", hello.site)));
        }
        Message::Hello(Hello {
            versions: (PROTOCOL_VERSION, PROTOCOL_VERSION),
            windows: Some(windows),
            features,
            ..
        }) => (connection::check(windows).map_err(|err| unreachable(err.to_string()))?, features),
        Message::Goodbye(reason) => return Err(unreachable(format!("it says goodbye: {reason}"))),
        _ => return Err(unreachable("it speaks another protocol version".into())),
    };
    let (abilities, certificate_until) = (Abilities::of(&features), named.not_after_millis);
    Ok(Opened { line, reader, windows, abilities, certificate_until })
}

fn hello(site: &str, links: Vec<String>) -> Frame {
    let versions = (PROTOCOL_VERSION, PROTOCOL_VERSION);
    Frame::connection(Message::Hello(Hello { versions, site: site.into(), links, ..Hello::default() }))
}

/// A standing connection. Shared by reference between the pushes; dropping it closes the line.
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    outbox: Outbox,
    windows: Windows,
    abilities: Abilities,
    pieces: Semaphore,
    reads: Arc<Semaphore>,
    /// Bytes the receiver will take on the connection.
    credit: Arc<Semaphore>,
    /// Versions it will take at once.
    slots: Arc<Semaphore>,
    /// Streamed bodies at once: so few that their windows together leave a quarter of the connection's
    /// free, and bodies the receiver is slow with can never hold up everything else.
    bodies: Semaphore,
    waiting: Mutex<Waiting>,
    pulse: Pulse,
    /// The peer's certificate holds until then, Unix milliseconds.
    certificate_until: u64,
    leaving: AtomicBool,
    ended: watch::Sender<Option<Ended>>,
    stop: CancellationToken,
}

/// Streams that wait for an answer, by number.
#[derive(Default)]
struct Waiting {
    last: u32,
    streams: HashMap<u32, Waiter>,
    ended: bool,
}

enum Waiter {
    /// A version: its slot comes back with the ack.
    Push { slot: OwnedSemaphorePermit, credit: Arc<Semaphore>, ack: oneshot::Sender<(Ack, OwnedSemaphorePermit)> },
    /// A question for epochs.
    Hello(oneshot::Sender<Hello>),
    /// A question about ranges of keys; told with the bytes of the answer's frame.
    Answer(oneshot::Sender<(Answer, u64)>),
    /// A version that is not here yet; its turn ends with the answer, though nobody wait for it any more.
    Found(oneshot::Sender<Found>, OwnedSemaphorePermit),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    fn start<S>(opened: Opened<S>, tasks: &TaskTracker) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Opened { mut line, mut reader, windows, abilities, certificate_until } = opened;
        let (outbox, mut outgoing) = connection::outbox();
        let turns = (windows.connection_bytes / windows.stream_bytes * 3 / 4).max(1);
        let shared = Arc::new(Shared {
            outbox,
            windows,
            abilities,
            pieces: Semaphore::new(PIECES_AT_ONCE),
            reads: Arc::new(Semaphore::new(READS_AT_ONCE)),
            credit: Arc::new(Semaphore::new(windows.connection_bytes as usize)),
            slots: Arc::new(Semaphore::new(windows.streams as usize)),
            bodies: Semaphore::new(turns as usize),
            waiting: Mutex::default(),
            pulse: Pulse::new(),
            certificate_until,
            leaving: AtomicBool::new(false),
            ended: watch::Sender::new(None),
            stop: CancellationToken::new(),
        });
        let writing = shared.clone();
        tasks.spawn(async move {
            let written = AtomicU64::new(0);
            match writing.stop.run_until_cancelled(outgoing.write_to(&mut line, &written)).await {
                Some(result) => {
                    // Acks may wait behind the end of the line: the reader ends when it has read them.
                    let read = async { writing.ended.subscribe().wait_for(Option::is_some).await.map(drop) };
                    let _ = tokio::time::timeout(FAREWELL_MAX, read).await;
                    writing.end(result.err().unwrap_or(Ended::Stopped));
                }
                None => {
                    let farewell = async { outgoing.flush_to(&mut line).await.ok().map(|()| line.shutdown()) };
                    if let Ok(Some(shutdown)) = tokio::time::timeout(FAREWELL_MAX, farewell).await {
                        let _ = tokio::time::timeout(FAREWELL_MAX, shutdown).await;
                    }
                }
            }
        });
        let reading = shared.clone();
        tasks.spawn(async move {
            let ended = reading.stop.run_until_cancelled(reading.read(&mut reader)).await;
            reading.end(ended.unwrap_or(Ended::Stopped));
        });
        Connection { shared }
    }

    /// Sends one version and waits for the peer's word on it; many may be under way at once.
    ///
    /// A body of up to 1 MiB is read whole before anything is sent. If the future is dropped, the peer
    /// may or may not have the version, and the other pushes go on.
    ///
    /// # Errors
    /// [`Error::PeerGone`], [`Error::Body`], [`Error::TooLarge`], [`Error::NotOwned`].
    pub async fn push(&self, outgoing: Outgoing) -> Result<Ack, Error> {
        let slot = self.shared.slots.clone().acquire_owned().await.map_err(|_| self.shared.gone())?;
        if self.shared.leaving.load(Ordering::Acquire) {
            return Err(self.shared.gone());
        }
        let size = match outgoing.portion {
            // Pieces are above what travels inside a Put.
            Portion::Piece { piece_bytes, .. } => piece_bytes,
            _ => outgoing.version.birth.as_ref().map_or(0, |b| b.size_bytes),
        };
        let mut put = Put {
            link: outgoing.link,
            epoch: outgoing.epoch,
            bucket: outgoing.bucket,
            version: outgoing.version,
            traceparent: outgoing.traceparent,
            relayed: outgoing.relayed,
            body: PutBody::None,
            portion: outgoing.portion,
            unknown: Fields::default(),
        };
        let may_send = outgoing.may_send;
        let head_bytes = credit_cost(&encode(&put)?);
        let half = self.shared.windows.connection_bytes as usize / 2;
        if head_bytes > half {
            return Err(Error::TooLarge { bytes: head_bytes });
        }
        match outgoing.body {
            Some(body) if size > INLINE_BYTES_MAX || head_bytes + size as usize > half => {
                put.body = PutBody::Streamed;
                self.shared.push_streamed(put, head_bytes, body, slot, &may_send).await
            }
            Some(body) => self.shared.push_whole(put, head_bytes, Some((body, size as usize)), slot, &may_send).await,
            None => self.shared.push_whole(put, head_bytes, None, slot, &may_send).await,
        }
    }

    /// Whether the peer takes large versions in pieces.
    pub fn takes_pieces(&self) -> bool {
        self.shared.abilities.takes_pieces
    }

    /// Waits for the turn of a piece, which is held in memory: few are at once. [`Error::PeerGone`] ends it.
    pub async fn piece_turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        self.shared.pieces.acquire().await.map_err(|_| self.shared.gone())
    }

    /// Resolves when the connection is over, with the reason; at once when it already is.
    pub async fn closed(&self) -> Ended {
        let mut ended = self.shared.ended.subscribe();
        let seen = ended.wait_for(Option::is_some).await;
        seen.ok().and_then(|e| e.clone()).unwrap_or(Ended::Stopped)
    }

    /// What its build lacks of what every build of today has.
    pub fn lacks(&self) -> Vec<&'static str> {
        self.shared.abilities.lacks()
    }

    /// The peer's certificate holds until then, Unix milliseconds.
    pub fn certificate_until(&self) -> u64 {
        self.shared.certificate_until
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.outbox.control(&Frame::connection(Message::Goodbye("closed".into())));
        self.shared.stop.cancel();
    }
}

/// A Put as bytes, its stream still open.
fn encode(put: &Put) -> Result<Bytes, Error> {
    put.encode(0).map_err(|_| Error::TooLarge { bytes: FRAME_BYTES_MAX })
}

/// Tells the peer that a body ends early, however its push ended.
struct OpenBody<'a> {
    outbox: &'a Outbox,
    stream: u32,
    open: bool,
}
impl OpenBody<'_> {
    fn complete(&mut self) {
        self.outbox.end(self.stream, false);
        self.open = false;
    }
}
impl Drop for OpenBody<'_> {
    fn drop(&mut self) {
        if self.open {
            self.outbox.end(self.stream, true);
        }
    }
}

impl Shared {
    fn gone(&self) -> Error {
        Error::PeerGone(self.ended.borrow().clone().unwrap_or(Ended::Closed))
    }

    fn register(&self, waiter: Waiter) -> Result<u32, Error> {
        let mut waiting = locked(&self.waiting);
        if waiting.ended {
            return Err(self.gone());
        }
        // Numbers come round after four billion; those still in use are passed over.
        loop {
            waiting.last = waiting.last.wrapping_add(1).max(1);
            if !waiting.streams.contains_key(&waiting.last) {
                break;
            }
        }
        let stream = waiting.last;
        waiting.streams.insert(stream, waiter);
        Ok(stream)
    }

    /// Takes so much of a window, in turn. Dropped while waiting, nothing was taken.
    async fn spend(&self, window: &Arc<Semaphore>, cost: usize) -> Result<OwnedSemaphorePermit, Error> {
        let cost = u32::try_from(cost).expect("a cost is below a window, which is below 1 GiB");
        window.clone().acquire_many_owned(cost).await.map_err(|_| self.gone())
    }

    async fn push_whole(
        &self,
        mut put: Put,
        head_bytes: usize,
        body: Option<(Body, usize)>,
        slot: OwnedSemaphorePermit,
        may_send: &MaySend,
    ) -> Result<Ack, Error> {
        // Credit first, so that bodies read and not yet sent stay within the window too.
        let credit = self.spend(&self.credit, head_bytes + body.as_ref().map_or(0, |(_, size)| *size)).await?;
        if let Some((body, size)) = body {
            put.body = PutBody::Inline(read_whole(body, size).await.map_err(Error::Body)?);
        }
        let frame = encode(&put)?;
        let room = self.outbox.room(&frame).await.map_err(|_| self.gone())?;
        ask(may_send)?;
        let (ack, acked) = oneshot::channel();
        let stream = self.register(Waiter::Push { slot, credit: Arc::new(Semaphore::new(0)), ack })?;
        credit.forget();
        self.outbox.data(on_stream(frame, stream), room);
        acked.await.map(|(ack, _slot)| ack).map_err(|_| self.gone())
    }

    async fn push_streamed(
        &self,
        put: Put,
        head_bytes: usize,
        mut body: Body,
        slot: OwnedSemaphorePermit,
        may_send: &MaySend,
    ) -> Result<Ack, Error> {
        let _turn = self.bodies.acquire().await.map_err(|_| self.gone())?;
        let credit = self.spend(&self.credit, head_bytes).await?;
        let frame = encode(&put)?;
        let room = self.outbox.room(&frame).await.map_err(|_| self.gone())?;
        ask(may_send)?;
        let window = Arc::new(Semaphore::new(self.windows.stream_bytes as usize));
        let (ack, mut acked) = oneshot::channel();
        let stream = self.register(Waiter::Push { slot, credit: window.clone(), ack })?;
        credit.forget();
        self.outbox.data(on_stream(frame, stream), room);
        // Declared behind `acked`, so dropped before it: End leaves before the slot is free again.
        let mut open = OpenBody { outbox: &self.outbox, stream, open: true };
        let early = tokio::select! {
            biased;
            ack = &mut acked => Some(ack),
            poured = self.pour(stream, &window, &mut body, may_send) => {
                poured?;
                None
            }
        };
        let answer = match early {
            Some(ack) => ack,
            None => {
                open.complete();
                (&mut acked).await
            }
        };
        let (ack, slot) = answer.map_err(|_| self.gone())?;
        drop(open);
        drop(slot);
        Ok(ack)
    }

    /// Sends the body in Data frames of even size, each under credit and in turn with other streams.
    async fn pour(
        &self,
        stream: u32,
        window: &Arc<Semaphore>,
        body: &mut Body,
        may_send: &MaySend,
    ) -> Result<(), Error> {
        let size = connection::data_bytes(self.windows);
        let mut buffer = BytesMut::new();
        let mut more = true;
        while more || !buffer.is_empty() {
            while more && buffer.len() < size {
                match body.next().await {
                    Some(chunk) => buffer.extend_from_slice(&chunk.map_err(Error::Body)?),
                    None => more = false,
                }
            }
            let piece = buffer.split_to(size.min(buffer.len())).freeze();
            if piece.is_empty() {
                break;
            }
            let frame = Frame { stream, message: Message::Data(piece) };
            let frame = frame.encode().expect("a piece is below the frame limit");
            let of_stream = self.spend(window, credit_cost(&frame)).await?;
            let cost = if planted::has(Planted::CreditIgnored) { 0 } else { credit_cost(&frame) };
            let of_connection = self.spend(&self.credit, cost).await?;
            let room = self.outbox.room(&frame).await.map_err(|_| self.gone())?;
            ask(may_send)?;
            of_stream.forget();
            of_connection.forget();
            self.outbox.data(frame, room);
        }
        Ok(())
    }

    async fn read<R: AsyncRead + Unpin>(&self, reader: &mut FrameReader<R>) -> Ended {
        let mut ping = tokio::time::interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let heard = tokio::select! {
                frame = reader.next() => frame.and_then(|(frame, cost)| self.hear(frame, cost)),
                _ = ping.tick() => {
                    self.outbox.control(&Frame::connection(Message::Ping(self.pulse.ping())));
                    Ok(())
                }
            };
            if let Err(ended) = heard {
                return ended;
            }
        }
    }

    fn hear(&self, frame: Frame, cost: usize) -> Result<(), Ended> {
        self.outbox.check_waiting()?;
        match frame.message {
            Message::Ack(ack) => self.hear_ack(frame.stream, ack)?,
            Message::Credit(bytes) => self.hear_credit(frame.stream, bytes as usize)?,
            Message::Hello(hello) => match locked(&self.waiting).streams.remove(&frame.stream) {
                Some(Waiter::Hello(tell)) => drop(tell.send(hello)),
                _ => return Err(Ended::Protocol("a Hello nobody asked for")),
            },
            // Nobody listens when the question was dropped.
            Message::Answer(answer) => match locked(&self.waiting).streams.remove(&frame.stream) {
                Some(Waiter::Answer(tell)) => drop(tell.send((answer, frame_bytes(cost)))),
                _ => return Err(Ended::Protocol("an answer nobody asked for")),
            },
            Message::Found(found) => match locked(&self.waiting).streams.remove(&frame.stream) {
                Some(Waiter::Found(tell, _turn)) => drop(tell.send(found)),
                _ => return Err(Ended::Protocol("an answer nobody asked for")),
            },
            Message::Ping(number) => {
                self.outbox.control(&Frame::connection(Message::Pong { number, clock_millis: None }));
            }
            Message::Pong { number, clock_millis } => {
                self.pulse.pong(number, clock_millis);
            }
            Message::Goodbye(reason) => {
                self.leaving.store(true, Ordering::Release);
                if locked(&self.waiting).streams.is_empty() {
                    return Err(Ended::Goodbye(reason));
                }
            }
            Message::Unknown(_) => {}
            Message::Put(_)
            | Message::Data(_)
            | Message::End { .. }
            | Message::Question(_)
            | Message::Bucket(_)
            | Message::Read(_)
            | Message::Contents(_)
            | Message::Drill(_) => {
                return Err(Ended::Protocol("a frame only senders send"));
            }
        }
        Ok(())
    }

    fn hear_ack(&self, stream: u32, ack: Ack) -> Result<(), Ended> {
        let mut waiting = locked(&self.waiting);
        match waiting.streams.remove(&stream) {
            // Nobody listens when the push was dropped; its slot comes back all the same.
            Some(Waiter::Push { slot, ack: tell, .. }) => drop(tell.send((ack, slot))),
            _ => return Err(Ended::Protocol("an ack for no stream")),
        }
        if waiting.streams.is_empty() && self.leaving.load(Ordering::Acquire) {
            return Err(Ended::Goodbye("all is acked".into()));
        }
        Ok(())
    }

    /// Adds credit; never above the window, whatever the other end says.
    fn hear_credit(&self, stream: u32, bytes: usize) -> Result<(), Ended> {
        let (window, size) = if stream == 0 {
            (self.credit.clone(), self.windows.connection_bytes)
        } else {
            match locked(&self.waiting).streams.get(&stream) {
                Some(Waiter::Push { credit, .. }) => (credit.clone(), self.windows.stream_bytes),
                // It was acked meanwhile.
                _ => return Ok(()),
            }
        };
        if window.available_permits() + bytes > size as usize {
            return Err(Ended::Protocol("more credit than was spent"));
        }
        window.add_permits(bytes);
        Ok(())
    }

    /// The connection is over: whoever waits for anything of it is let go.
    fn end(&self, ended: Ended) {
        self.ended.send_if_modified(|seen| {
            let first = seen.is_none();
            seen.get_or_insert(ended);
            first
        });
        self.stop.cancel();
        let streams = {
            let mut waiting = locked(&self.waiting);
            waiting.ended = true;
            std::mem::take(&mut waiting.streams)
        };
        for waiter in streams.into_values() {
            if let Waiter::Push { credit, .. } = waiter {
                credit.close();
            }
        }
        self.credit.close();
        self.slots.close();
        self.bodies.close();
        self.pieces.close();
        self.reads.close();
        self.outbox.close();
    }
}

/// The last question before a frame of a link leaves: nothing is waited for behind it.
fn ask(may_send: &MaySend) -> Result<(), Error> {
    if may_send() { Ok(()) } else { Err(Error::NotOwned) }
}

/// Reads a body of exactly `size` bytes.
async fn read_whole(mut body: Body, size: usize) -> Result<Bytes, std::io::Error> {
    let wrong = || std::io::Error::other(format!("the body does not have its {size} bytes"));
    let mut whole = BytesMut::with_capacity(size);
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        if whole.len() + chunk.len() > size {
            return Err(wrong());
        }
        whole.extend_from_slice(&chunk);
    }
    if whole.len() == size { Ok(whole.freeze()) } else { Err(wrong()) }
}
