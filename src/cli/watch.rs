//! `--watch`: a verb again and again, until Ctrl-C. Called by `main.rs` around the verbs that show how things stand.
use std::io::IsTerminal;
use std::time::Duration;

/// Between two answers.
const EVERY: Duration = Duration::from_secs(2);
/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Whether to ask once.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Watch {
    /// Ask again every 2 s, until Ctrl-C; the exit code is that of the last answer.
    #[arg(short, long)]
    watch: bool,
}

impl Watch {
    /// Asks and prints, once or until Ctrl-C.
    pub async fn run(self, once: impl AsyncFn() -> u8) -> u8 {
        if !self.watch {
            return once().await;
        }
        let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
        let mut code = super::exit::UNKNOWN;
        loop {
            if std::io::stdout().is_terminal() {
                print!("{CLEAR}");
            }
            tokio::select! {
                _ = &mut stop => return code,
                answered = once() => code = answered,
            }
            tokio::select! {
                _ = &mut stop => return code,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}
