//! Logs and traces of a process, and the metrics it shows.
pub mod catalogue;
pub mod cluster;
mod drill;
pub mod exported;
pub mod listener;
pub mod metrics;
pub mod shown;
pub mod store;
pub mod trace;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Everything of ours; of the index, which tells each compaction, only what went wrong; of the S3 codec
/// nothing, for it logs each refused request as an error and we count those.
const QUIET: &str = "info,fjall=warn,lsm_tree=warn,s3s=off";

/// Starts logging to standard error: text on a terminal, JSON elsewhere; `ISTHMUS_LOG` filters. Starts the export of
/// traces where the environment asks for it; inside the runtime, which sends them.
///
/// # Errors
/// A variable of the environment that cannot be meant: nothing was started.
pub fn init() -> Result<(), trace::Error> {
    let is_traced = trace::start()?;
    let filter = EnvFilter::try_from_env("ISTHMUS_LOG").unwrap_or_else(|_| EnvFilter::new(QUIET));
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second call (tests) keeps the first subscriber; that is what is wanted.
    if is_traced {
        // Spans are for the exporter and no business of the log.
        let off = format!("{}=off", trace::span::TARGET).parse().expect("a target and a level");
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let log = if is_terminal { log.boxed() } else { log.json().boxed() };
        let spans = tracing_subscriber::registry().with(trace::layer());
        spans.with(log.with_filter(filter.add_directive(off))).try_init().ok();
        return Ok(());
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = if is_terminal { builder.try_init() } else { builder.json().try_init() };
    Ok(())
}
