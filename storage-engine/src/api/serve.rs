//! The private API's listener: proves who calls, answers questions about this store, many at once.
//!
//! HTTP/2 over mutual TLS, a request a question, so that a caller's versions travel side by side on one
//! connection, each with a window of bytes of its own; what they write shares the drives' group commit as
//! S3 requests do. Only the identities in its settings may ask anything. `node.rs` runs it; what a
//! question means is `api.rs`'s and `object`'s.
mod answered;

use super::framing::{self, Reader};
use super::lend::Desk;
use super::message::{Answer, Call, PATH_PREFIX, PROTOCOL_VERSION, Request, event_to_bytes, status_of};
use super::scratch::Done;
use super::{Error, Objects, ShownCertificate, StoreHealth, piece};
use crate::clock::Clock;
use crate::identity::{self, Identity, ServerCertificate};
use crate::metrics::Metrics;
use answered::{Answered, Follows, Outcome, follow, listed, respond};
use futures::StreamExt;
use futures::stream;
use hyper::Method;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Connections at once: a replicator holds one, and two while it replaces it.
const CONNECTIONS_MAX: usize = 64;
/// Questions of one connection at once; more wait at the caller.
pub const QUESTIONS_MAX: u32 = 2048;
/// Bytes on their way on one question: with a round trip of 1 ms good for 500 MB/s.
pub const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// Bytes of all bodies of a connection that arrived and are not yet stored.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Bytes of one answer that wait for the line.
const SEND_BYTES: usize = 512 << 10;
/// Largest HTTP/2 frame: four TLS records, so that a body costs few frames.
pub const FRAME_BYTES: u32 = 64 << 10;
/// A line is asked for a sign of life this often, and given up after so much silence.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// TLS has so long. Source: security.md section 5.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Age at which a connection is asked to leave; callers replace theirs earlier.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Questions under way have so long once a connection is to end.
const DRAIN: Duration = Duration::from_secs(10);
/// A replicator waits no longer for what readers want, then asks again.
const WANTED_MAX: Duration = Duration::from_secs(30);
/// Pause after a failed accept: it fails when file handles run out, and trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the private API listens and who may ask it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The store's certificate and key, and the CAs its callers chain to.
    pub files: identity::Files,
    /// The one URI in the certificate of each caller that is let in; nobody else is.
    pub clients: Vec<String>,
}

/// The private API of a store.
pub struct Server {
    objects: Objects,
    /// What readers want that is not here yet.
    desk: Desk,
    identity: Arc<Identity>,
    /// What the process' S3 listener shows.
    s3: Option<Arc<ServerCertificate>>,
    clients: BTreeSet<String>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl Server {
    /// A server over `objects` that lets in `clients` only; what they can lend is read from them from now on.
    pub fn new(
        objects: Objects,
        identity: Arc<Identity>,
        clients: Vec<String>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let desk = Desk::default();
        objects.set_neighbour(Arc::new(desk.clone()));
        Server { objects, desk, identity, s3: None, clients: clients.into_iter().collect(), metrics, clock }
    }

    /// Tells its callers too of what the S3 listener shows.
    pub fn beside(mut self, s3: Option<Arc<ServerCertificate>>) -> Self {
        self.s3 = s3;
        self
    }

    /// What the listeners of the process show now.
    fn certificates(&self) -> Vec<ShownCertificate> {
        let shown = |whose: &str, (from_millis, until_millis): (u64, u64)| ShownCertificate {
            whose: whose.into(),
            from_millis,
            until_millis,
        };
        let s3 = self.s3.iter().map(|s3| shown("the S3 listener's", s3.valid_millis()));
        s3.chain(self.identity.valid_millis().map(|valid| shown("the private API's", valid))).collect()
    }

    /// What it shows to its callers, and whom it believes.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Accepts until `stop`, then lets questions under way end.
    pub async fn run(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        let fresh = self.identity.clone().keep_fresh(stop.clone());
        let accept = async {
            loop {
                let next = async {
                    let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
                    (listener.accept().await, place)
                };
                tokio::select! {
                    () = stop.cancelled() => return,
                    Some(ended) = connections.join_next() => crate::node::end_of(ended),
                    (accepted, place) = next => match accepted {
                        Ok((tcp, _)) => { connections.spawn(self.clone().serve(tcp, place, stop.clone())); }
                        Err(error) => {
                            tracing::warn!(err = %error, "Accepting a connection of the private API failed.");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                }
            }
        };
        tokio::join!(fresh, accept);
        drop(listener);
        // Each connection ends itself within its drain.
        while let Some(ended) = connections.join_next().await {
            crate::node::end_of(ended);
        }
    }

    /// One connection, until the caller leaves, it is too old, or `stop`.
    async fn serve(self: Arc<Self>, tcp: TcpStream, _place: OwnedSemaphorePermit, stop: CancellationToken) {
        let from = tcp.peer_addr().map_or_else(|_| "?".to_owned(), |a| a.to_string());
        let proven = tokio::time::timeout(HANDSHAKE_MAX, self.prove(tcp)).await;
        let (line, named) = match proven.unwrap_or_else(|_| Err(("handshake", "took too long".into()))) {
            Ok(proven) => proven,
            Err((reason, detail)) => {
                self.metrics.caller_refused(reason);
                tracing::warn!(from, reason, detail, "A caller of the private API was refused.");
                return;
            }
        };
        tracing::info!(from, client = named.uri, "A replicator connected.");
        let expires_in = Duration::from_millis(named.not_after_millis.saturating_sub(self.clock.now_millis()));
        let leaving = stop.child_token();
        let service = {
            let leaving = leaving.clone();
            service_fn(move |request| {
                let (server, leaving) = (self.clone(), leaving.clone());
                async move { Ok::<_, Infallible>(server.answer(request, &leaving).await) }
            })
        };
        let connection = builder().serve_connection(TokioIo::new(line), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped_or_old(&stop, LIFETIME.min(expires_in)) => {
                leaving.cancel();
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(DRAIN, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return tracing::warn!(from, "Questions of a replicator were cut at the deadline."),
                }
            }
        };
        match ended {
            Ok(()) => tracing::info!(from, "A replicator disconnected."),
            Err(error) => tracing::info!(from, err = %error, "The connection of a replicator broke."),
        }
    }

    /// The handshake, and whether the certificate it showed may ask.
    async fn prove(&self, tcp: TcpStream) -> Result<(TlsStream<TcpStream>, identity::Named), (&'static str, String)> {
        tcp.set_nodelay(true).map_err(|err| ("handshake", err.to_string()))?;
        let acceptor = TlsAcceptor::from(self.identity.configs().server);
        let line = acceptor.accept(tcp).await.map_err(|err| ("certificate", err.to_string()))?;
        let named = identity::named(line.get_ref().1.peer_certificates());
        let named = named.map_err(|err| ("name", err.to_string()))?;
        if !self.clients.contains(&named.uri) {
            return Err(("unknown_client", format!("{} is not among the clients in the settings", named.uri)));
        }
        Ok((line, named))
    }

    /// One question: read, asked, counted, answered.
    async fn answer(&self, request: hyper::Request<Incoming>, leaving: &CancellationToken) -> Answered {
        let started = Instant::now();
        let (operation, outcome) = match read(request).await {
            Ok((call, reader)) => (call.operation(), self.ask(call, reader, leaving).await),
            Err(error) => ("Unknown", Err(error)),
        };
        let status = outcome.as_ref().map_or_else(status_of, |_| 200);
        if matches!(outcome, Err(Error::Unavailable(_))) && !leaving.is_cancelled() {
            match operation {
                "Apply" | "Register" | "Commit" | "Deregister" | "JoinDocument" | "Scratch" | "PutPiece"
                | "ApplyPieces" | "ForgetPieces" => self.metrics.write_without_quorum(),
                _ => self.metrics.read_without_quorum(),
            }
        }
        // They wait for others, which says nothing about the store's speed.
        let took = (!matches!(operation, "Changes" | "Wanted" | "Lend")).then(|| started.elapsed());
        self.metrics.request(operation, status, took, None);
        respond(status, outcome)
    }

    async fn ask(&self, call: Call, body: Reader<Incoming>, leaving: &CancellationToken) -> Outcome {
        let objects = &self.objects;
        let answer = match call {
            Call::Hello => Answer::Hello { protocol: PROTOCOL_VERSION, origin: objects.origin().clone() },
            Call::Health => Answer::Health(StoreHealth { certificates: self.certificates(), ..objects.store_health() }),
            Call::Bucket { bucket } => Answer::Bucket(objects.bucket_info(&bucket).await?),
            Call::Changes { bucket, cursor, limit } => {
                let changes = objects.changes(&bucket, cursor.as_ref(), limit as usize);
                let batch = leaving.run_until_cancelled(changes).await;
                let batch = batch.unwrap_or_else(|| Err(Error::Unavailable("the connection is to end".into())))?;
                let events = batch.events.into_iter().map(|e| event_to_bytes(&e));
                return Ok((
                    Answer::Changes { cursor: batch.cursor, bucket: batch.bucket },
                    Follows::Messages(Box::new(events)),
                ));
            }
            Call::Head { bucket } => Answer::Cursor(Some(objects.head(&bucket).await?)),
            Call::Stat { bucket, key, id } => Answer::Version(objects.stat(&bucket, &key, id).await?.map(Box::new)),
            Call::ReadVersion { bucket, key, id } => {
                let (size_bytes, bytes) = objects.version_bytes(&bucket, &key, id).await?;
                return Ok((Answer::Bytes { size_bytes }, Follows::Bytes(bytes)));
            }
            Call::ReadRange { bucket, key, id, range } => {
                let size_bytes = range.end - range.start;
                let bytes = objects.version_range(&bucket, &key, id, range).await?;
                return Ok((Answer::Bytes { size_bytes }, Follows::Bytes(bytes)));
            }
            Call::Apply { bucket, version, has_body, traceparent } => {
                let body = has_body.then(|| body.rest());
                Answer::Applied(objects.apply(&bucket, *version, body, traceparent).await?)
            }
            Call::VersionsOf { bucket, key } => return Ok(listed(objects.versions(&bucket, &key).await?)),
            Call::VersionsAfter { bucket, after, limit } => {
                return Ok(listed(objects.versions_after(&bucket, after, limit as usize).await?));
            }
            Call::Stretch { bucket, prefix, after, limit } => {
                let stretch = objects.stretch(&bucket, &prefix, after.as_deref(), limit as usize).await?;
                return Ok((Answer::Stretch { through: stretch.through }, follow(stretch.versions)));
            }
            Call::Register { bucket, consumer, keeps_versioning } => {
                Answer::Cursor(objects.register(&bucket, &consumer, keeps_versioning).await?)
            }
            Call::Commit { bucket, consumer, cursor, floor } => {
                objects.commit(&bucket, &consumer, &cursor, &floor).await?;
                Answer::Done
            }
            Call::Deregister { bucket, consumer } => {
                objects.deregister(&bucket, &consumer).await?;
                Answer::Done
            }
            Call::Backlog { bucket, cursor, interest } => {
                Answer::Backlog(objects.backlog(&bucket, cursor.as_ref(), &interest).await?)
            }
            Call::JoinDocument { bucket, document } => {
                let is_news = objects.join_bucket_document(&bucket, document).await?;
                Answer::Applied(if is_news { super::Applied::Applied } else { super::Applied::Superseded })
            }
            Call::Scratch { bucket, act } => match objects.scratch(&bucket, act).await? {
                Done::Nothing => Answer::Done,
                Done::Made(id) => Answer::Made(id),
                Done::Read(bytes) => {
                    let (size_bytes, bytes) = (bytes.len() as u64, stream::iter([Ok(bytes)]).boxed());
                    return Ok((Answer::Bytes { size_bytes }, Follows::Bytes(bytes)));
                }
            },
            Call::Piece { bucket, act } => match objects.piece(&bucket, act, body.rest()).await? {
                piece::Done::Stored => Answer::Done,
                piece::Done::Held(numbers) => Answer::Held(numbers),
                piece::Done::Applied(applied) => Answer::Applied(applied),
                piece::Done::Forgotten(count) => Answer::Forgotten(count),
            },
            Call::Wanted { buckets, wait_millis } => {
                let wait = Duration::from_millis(wait_millis).min(WANTED_MAX);
                Answer::Wanted(leaving.run_until_cancelled(self.desk.next(&buckets, wait)).await.flatten())
            }
            Call::Lend { number, found } => {
                self.desk.answer(number, found, body.rest()).await;
                Answer::Done
            }
        };
        Ok((answer, Follows::Nothing))
    }
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(QUESTIONS_MAX)
        // A caller that loses interest in all its questions at once is no attacker: it is proven.
        .max_pending_accept_reset_streams(QUESTIONS_MAX as usize)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(SEND_BYTES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(SILENCE_MAX);
    builder
}

async fn stopped_or_old(stop: &CancellationToken, lifetime: Duration) {
    let _ = tokio::time::timeout(lifetime, stop.cancelled()).await;
}

/// The question in a request; its body, if it has one, is still to be read.
async fn read(request: hyper::Request<Incoming>) -> Result<(Call, Reader<Incoming>), Error> {
    let (head, body) = request.into_parts();
    let operation = head.uri.path().strip_prefix(PATH_PREFIX).filter(|_| head.method == Method::POST);
    let unknown = || {
        let (method, path) = (&head.method, head.uri.path());
        Error::Invalid(format!("{method} {path} is no operation of this store; it speaks version {PROTOCOL_VERSION}"))
    };
    let operation = operation.ok_or_else(unknown)?;
    let mut reader = Reader::new(body);
    let message = reader.message().await?.ok_or_else(|| Error::Invalid("the question is missing".into()))?;
    let question = Request::from_bytes(operation, &message);
    let question = question.map_err(|err| Error::Invalid(format!("{operation}: {err}")))?;
    Ok((question.ok_or_else(unknown)?.call, reader))
}

const _: () = assert!(framing::MESSAGE_BYTES_MAX < u32::MAX as usize, "a length takes four bytes");
