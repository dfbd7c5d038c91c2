//! What the program itself says while it is simulated: the last lines for a failure's report, and those that must
//! never be said between honest sites. It listens on the thread of one seed.
use super::locked;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Lines kept.
const KEPT: usize = 50;
/// Words of a line that says that an end broke the protocol, or takes the other for one that did.
const NEVER: [&str; 5] = ["protocol violated", "was cut off", "is not believed", "A version was refused", "panicked"];

/// What a sender says of a connection that ended, by words of the reason: how the faults were felt.
const FELT: [(&str, &str); 3] = [
    ("nothing heard", "ended by silence"),
    ("the line broke", "ended by a break"),
    ("says goodbye", "ended by a goodbye"),
];

#[derive(Default)]
struct Said {
    felt: BTreeMap<&'static str, u64>,
    last: VecDeque<String>,
    wrong: Vec<String>,
}

/// The lines of one seed.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Said>>);

/// Simulated seconds.
struct SimulatedTime;
impl FormatTime for SimulatedTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{:>9.3}", turmoil::sim_elapsed().unwrap_or_default().as_secs_f64())
    }
}

impl Log {
    fn said(&self) -> MutexGuard<'_, Said> {
        locked(&self.0)
    }

    /// Hears this thread until the guard is dropped.
    pub fn hear(&self) -> tracing::subscriber::DefaultGuard {
        let filter = tracing_subscriber::EnvFilter::new("info,turmoil=off");
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_target(false)
            .with_timer(SimulatedTime)
            .with_writer(self.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    /// Lines that must never be said between honest sites.
    pub fn wrong(&self) -> Vec<String> {
        self.said().wrong.clone()
    }

    /// How often connections ended, by why.
    pub fn felt(&self) -> BTreeMap<&'static str, u64> {
        self.said().felt.clone()
    }

    pub fn last(&self) -> String {
        self.said().last.iter().cloned().collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).into_owned();
        let mut said = self.said();
        if NEVER.iter().any(|word| line.contains(word)) && said.wrong.len() < KEPT {
            said.wrong.push(line.trim_end().to_string());
        }
        if line.contains("The connection ended") {
            let felt = FELT.iter().filter(|(words, _)| line.contains(words));
            felt.for_each(|(_, name)| *said.felt.entry(name).or_default() += 1);
        }
        if said.last.len() == KEPT {
            said.last.pop_front();
        }
        said.last.push_back(line);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;
    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}
