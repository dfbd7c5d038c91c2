//! Who stops first, and how long it may take. Readiness goes, then intake, links, the last checkpoint,
//! listeners, the store node; what is left after the deadline is said and cut.
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Time a graceful stop may take before the process ends anyway.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// What of it the links may take until their last push is answered and recorded; the store has the rest.
pub const DRAIN: Duration = Duration::from_secs(15);

/// A token that is cancelled by SIGTERM or SIGINT.
///
/// # Errors
/// When the process may not install signal handlers.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let stop = token.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "Stopping.");
        stop.cancel();
    });
    Ok(token)
}
