//! The line to one peer: dials until it stands, tells the links when it comes and goes. Retries for
//! ever; a peer that is away costs one dial every few seconds. Certificates are read again while it stands, so that
//! the next dial shows the newest.
use super::far::FarEnd;
use crate::peer::client::{Dial, Target};
use backon::{BackoffBuilder, ExponentialBuilder};
use std::sync::Arc;
use std::time::Duration;
use storage_engine::identity::{self, Files, Identity};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// First pause between dials.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause: a peer that returns is seen well within 10 s.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// What stands behind `watch`: the connection, while there is one.
pub type Standing = watch::Sender<Option<FarEnd>>;

/// A line to one peer, and where it is told of.
pub struct Line {
    pub peer: String,
    pub target: Target,
    pub dial: Arc<dyn Dial>,
    /// What is shown to the peer, and the CA it must chain to.
    pub files: Files,
    /// Takes the connection's own tasks.
    pub tasks: TaskTracker,
    pub standing: Arc<Standing>,
    /// Why there is no connection.
    pub trouble: watch::Sender<Option<String>>,
    /// When the last connection ended.
    pub ended: watch::Sender<Option<Instant>>,
}

/// Keeps the line until `stop`. Dropping it closes the connection.
pub async fn keep(line: Line, stop: CancellationToken) {
    if let Some(identity) = stop.run_until_cancelled(load(&line)).await {
        let identity = Arc::new(identity);
        tokio::select! {
            () = dial(&line, &identity, &stop) => {}
            () = identity.clone().keep_fresh(stop.clone()) => {}
        }
    }
    line.standing.send_replace(None);
}

/// The identity, once its files can be used.
async fn load(line: &Line) -> Identity {
    loop {
        match Identity::load(line.files.clone()).await {
            Ok(identity) => return identity,
            Err(e) => {
                let why = format!("{}: {e}", reason(&line.files, &e));
                if line.trouble.borrow().as_deref() != Some(&why) {
                    tracing::error!(peer = line.peer, error = %e, "The certificates for a peer cannot be used; put them right.");
                }
                line.trouble.send_replace(Some(why));
                tokio::time::sleep(PAUSE_MAX).await;
            }
        }
    }
}

/// Which of a peer's files cannot be used, as a condition's reason.
pub fn reason(files: &Files, e: &identity::Error) -> &'static str {
    use identity::Error::{Pem, Read, Unusable};
    let (Read { path, .. } | Pem { path, .. } | Unusable { path, .. }) = e else { return "InvalidCertificate" };
    let mut lists = files.authorities.iter().filter_map(|bundle| bundle.revocations.as_ref());
    if lists.any(|list| list == path) { "InvalidCRL" } else { "InvalidCertificate" }
}

async fn dial(line: &Line, identity: &Identity, stop: &CancellationToken) {
    let Line { peer, target, tasks, standing, trouble, ended: told, .. } = line;
    let mut pauses = backoff();
    loop {
        let dialled = tokio::select! {
            () = stop.cancelled() => break,
            dialled = line.dial.dial(target, identity, tasks) => dialled,
        };
        match dialled {
            Ok(connection) => {
                pauses = backoff();
                let connection = Arc::new(connection);
                trouble.send_replace(None);
                standing.send_replace(Some(FarEnd::Site(connection.clone())));
                tracing::info!(peer, endpoint = target.endpoint, "Connected.");
                let ended = tokio::select! {
                    () = stop.cancelled() => break,
                    ended = connection.closed() => ended,
                };
                standing.send_replace(None);
                told.send_replace(Some(Instant::now()));
                tracing::warn!(peer, endpoint = target.endpoint, reason = %ended, "The connection ended; dialling again.");
                trouble.send_replace(Some(ended.to_string()));
            }
            Err(e) => {
                if trouble.borrow().as_deref() != Some(&e.to_string()) {
                    tracing::warn!(peer, error = %e, "The peer cannot be reached; its changes wait in the feed.");
                }
                trouble.send_replace(Some(e.to_string()));
            }
        }
        let pause = pauses.next().unwrap_or(PAUSE_MAX);
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            break;
        }
    }
}

fn backoff() -> backon::ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}
