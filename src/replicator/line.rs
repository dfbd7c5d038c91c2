//! The line to one peer: dials until it stands, tells the links when it comes and goes. Retries for
//! ever; a peer that is away costs one dial every few seconds.
use crate::peer::client::{Connection, PeerClient, Target};
use crate::peer::identity::Identity;
use backon::{BackoffBuilder, ExponentialBuilder};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// First pause between dials.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause: a peer that returns is seen well within 10 s.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// What stands behind `watch`: the connection, while there is one.
pub type Standing = watch::Sender<Option<Arc<Connection>>>;

/// Keeps the line until `stop`. Its error is the text in `trouble`; dropping it closes the connection.
pub async fn keep(
    peer: String,
    target: Target,
    identity: Arc<Identity>,
    tasks: TaskTracker,
    standing: Arc<Standing>,
    trouble: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let mut pauses = backoff();
    loop {
        let dialled = tokio::select! {
            () = stop.cancelled() => break,
            dialled = PeerClient::connect(&target, &identity, &tasks) => dialled,
        };
        match dialled {
            Ok(connection) => {
                pauses = backoff();
                let connection = Arc::new(connection);
                trouble.send_replace(None);
                standing.send_replace(Some(connection.clone()));
                tracing::info!(peer, endpoint = target.endpoint, "Connected.");
                let ended = tokio::select! {
                    () = stop.cancelled() => break,
                    ended = connection.closed() => ended,
                };
                standing.send_replace(None);
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
    standing.send_replace(None);
}

fn backoff() -> backon::ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}
