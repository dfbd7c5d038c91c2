//! The line to a store in another process: dials until it stands, proves who answers, replaces it before
//! it is too old. Retries for ever; knows no question but Hello.
use super::exchange;
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use storage_engine::api::framing::framed;
use storage_engine::api::message::{Answer, Call, PROTOCOL_VERSION, Request};
use storage_engine::api::serve::{FRAME_BYTES, HANDSHAKE_MAX, KEEP_ALIVE, SILENCE_MAX, STREAM_WINDOW_BYTES};
use storage_engine::identity::{self, Identity};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// First pause between dials.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause: a store that returns is found within two seconds.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Age at which a line is replaced: before the store asks it to leave after an hour, so that nothing waits.
const RENEW: Duration = Duration::from_secs(50 * 60);
/// Bytes of all answers that arrived and were not yet taken. So large that it never binds: bodies read for
/// a peer that is slow must not hold up the answers of others; what they hold is bounded by the links'
/// windows and by each stream's own.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;
/// Bytes of one question that wait for the line.
const SEND_BYTES: usize = 512 << 10;

/// Body of a question.
pub type AskBody = UnsyncBoxBody<Bytes, io::Error>;
/// Asks on a line; cheap to clone.
pub type Sender = http2::SendRequest<AskBody>;

/// Whom to reach, and as what it must prove itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port`.
    pub endpoint: String,
    /// Name its certificate must hold beside its identity.
    pub server_name: String,
    /// The one URI in its certificate.
    pub identity: String,
    /// The origin its versions must bear: the siteID of the replicator's own site.
    pub origin: String,
}

/// How the line stands.
#[derive(Clone)]
pub enum Line {
    /// Why there is none.
    Down(String),
    Up {
        /// Rises with each line.
        number: u64,
        sender: Sender,
    },
}

/// Keeps the line until `stop`; may be dropped at any time. Connections run on `tasks`, and an old one
/// until the questions on it are answered.
pub async fn keep(
    target: Target,
    identity: Arc<Identity>,
    line: watch::Sender<Line>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut pauses = backoff();
    let mut number = 0;
    loop {
        let dialled = tokio::select! {
            () = stop.cancelled() => break,
            dialled = dial(&target, &identity, &tasks) => dialled,
        };
        let why = match dialled {
            Ok((sender, mut running)) => {
                (pauses, number) = (backoff(), number + 1);
                line.send_replace(Line::Up { number, sender });
                tracing::info!(endpoint = target.endpoint, "Connected to the store.");
                let ended = tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(RENEW) => continue,
                    ended = &mut running => ended,
                };
                let why = match ended {
                    Ok(Ok(())) => "it closed the connection".to_owned(),
                    Ok(Err(err)) => err.to_string(),
                    Err(err) => err.to_string(),
                };
                tracing::warn!(
                    endpoint = target.endpoint,
                    reason = why,
                    "The line to the store ended; dialling again."
                );
                why
            }
            Err(why) => {
                if !matches!(&*line.borrow(), Line::Down(before) if *before == why) {
                    tracing::warn!(endpoint = target.endpoint, error = why, "The store cannot be reached; links wait.");
                }
                why
            }
        };
        line.send_replace(Line::Down(why));
        let pause = pauses.next().unwrap_or(PAUSE_MAX);
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            break;
        }
    }
    line.send_replace(Line::Down("this process is stopping".into()));
}

/// A connection whose other end is proven to be this site's store, in words we speak.
async fn dial(
    target: &Target,
    identity: &Identity,
    tasks: &TaskTracker,
) -> Result<(Sender, JoinHandle<hyper::Result<()>>), String> {
    let connecting = tokio::time::timeout(HANDSHAKE_MAX, connect(target, identity));
    let (sender, connection) = connecting.await.map_err(|_| "the handshake took too long")??;
    let running = tasks.spawn(connection);
    let hello = framed(&Request::from(Call::Hello).to_bytes());
    let body = Full::new(hello).map_err(|never| match never {}).boxed_unsync();
    let asked = tokio::time::timeout(HANDSHAKE_MAX, exchange(sender.clone(), Call::Hello.operation(), body));
    let answered = asked.await.map_err(|_| "no answer to Hello")?.map_err(|broken| broken.0)?;
    match answered.map_err(|err| err.to_string())?.0 {
        Answer::Hello { protocol, .. } if protocol != PROTOCOL_VERSION => {
            Err(format!("it speaks protocol version {protocol}, this process {PROTOCOL_VERSION}; bring both to one"))
        }
        Answer::Hello { origin, .. } if origin.as_str() != target.origin => Err(format!(
            "it is the store of site {origin}, this replicator serves {}; mend origin there or apiEndpoint here",
            target.origin
        )),
        Answer::Hello { .. } => Ok((sender, running)),
        _ => Err("it answers Hello with something else".into()),
    }
}

type Connection = http2::Connection<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>, AskBody, TokioExecutor>;

async fn connect(target: &Target, identity: &Identity) -> Result<(Sender, Connection), String> {
    let name = ServerName::try_from(target.server_name.clone()).map_err(|err| err.to_string())?;
    let tcp = TcpStream::connect(&target.endpoint).await.map_err(|err| err.to_string())?;
    tcp.set_nodelay(true).map_err(|err| err.to_string())?;
    let connector = TlsConnector::from(identity.configs().client);
    let line = connector.connect(name, tcp).await.map_err(|err| format!("TLS: {err}"))?;
    let named = identity::named(line.get_ref().1.peer_certificates()).map_err(|err| err.to_string())?;
    if named.uri != target.identity {
        return Err(format!("its certificate names {}, not {}", named.uri, target.identity));
    }
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_send_buf_size(SEND_BYTES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(SILENCE_MAX)
        .keep_alive_while_idle(true);
    builder.handshake(TokioIo::new(line)).await.map_err(|err| err.to_string())
}

fn backoff() -> backon::ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}
