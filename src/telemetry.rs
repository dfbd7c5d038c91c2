//! Logs and traces of a process, and the metrics it shows.
pub mod cluster;
mod drill;
pub mod listener;
pub mod metrics;
pub mod shown;
pub mod store;

use tracing_subscriber::EnvFilter;

/// Everything of ours; of the index, which tells each compaction, only what went wrong; of the S3 codec
/// nothing, for it logs each refused request as an error and we count those.
const QUIET: &str = "info,fjall=warn,lsm_tree=warn,s3s=off";

/// Starts logging to standard error: text on a terminal, JSON elsewhere. `ISTHMUS_LOG` filters.
pub fn init() {
    let filter = EnvFilter::try_from_env("ISTHMUS_LOG").unwrap_or_else(|_| EnvFilter::new(QUIET));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call (tests) keeps the first subscriber; that is what is wanted.
    let _ = if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        builder.try_init()
    } else {
        builder.json().try_init()
    };
}
