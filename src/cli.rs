//! The command line: one table of verbs, a file per verb. Thin: a verb parses, asks, prints, and
//! returns an exit code; roles are started in `role`.
/// Prints a line.
macro_rules! say {
    ($text:literal $($rest:tt)*) => { $crate::cli::output::print(format_args!("{}\n", format_args!($text $($rest)*))) };
}
/// Prints a text that ends its own lines.
macro_rules! say_all {
    ($text:expr) => {
        $crate::cli::output::print(format_args!("{}", $text))
    };
}

pub mod backlog;
pub mod certs;
pub mod check;
pub mod completions;
pub mod conflicts;
pub mod crds;
pub mod dashboards;
pub mod demo;
pub mod diff;
pub mod drill;
pub mod explain;
pub mod failover;
mod generated;
pub mod lag;
pub mod man;
pub mod metrics;
pub mod output;
pub mod release;
pub mod retry;
pub mod socket;
pub mod status;
pub mod suspend;
pub mod verify;
pub mod watch;

use clap::{Parser, Subcommand};
use output::Format;
use std::path::PathBuf;

/// Exit codes, one scheme for every verb and role.
pub mod exit {
    /// Healthy, equal, pass.
    pub const OK: u8 = 0;
    /// Degraded, behind objective, different; what was checked would not be in force as it is written.
    pub const DEGRADED: u8 = 1;
    /// Could not find out.
    pub const UNKNOWN: u8 = 2;
    /// Bad configuration or usage.
    pub const USAGE: u8 = 64;
    /// Internal error.
    pub const INTERNAL: u8 = 70;
    /// The API server lacks the definitions, or gives too few rights.
    pub const UNPREPARED: u8 = 78;

    /// All of them, as `--help` and the manual say them.
    pub const ALL: [(u8, &str); 6] = [
        (OK, "healthy, equal, pass"),
        (DEGRADED, "degraded, behind objective, different, something waits, a drill failed, a document not in force"),
        (UNKNOWN, "could not be found out or done: the process cannot be reached, a file not read"),
        (USAGE, "bad configuration or usage"),
        (INTERNAL, "internal error"),
        (UNPREPARED, "the API server lacks the definitions, or gives too few rights"),
    ];

    pub(super) fn help() -> String {
        let line = |(code, meaning): &(u8, &str)| format!("  {code:>2}  {meaning}");
        format!("Exit codes:\n{}", ALL.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

/// Cross-cluster bucket replication with a bundled erasure-coded S3 store.
#[derive(Parser, Debug)]
#[command(name = "isthmus", version, about, after_help = exit::help())]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Run a store and its replicator in one process.
    Site {
        /// Configuration file (YAML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run a store by itself; its replicator reaches it over the private API.
    Store(StoreArgs),
    /// Run a replicator by itself, over the store its Site document names.
    Replicator {
        /// Configuration file (YAML); left out where `--kubeconfig` is given: every key's default.
        #[arg(long, value_name = "FILE", required_unless_present = "kubeconfig")]
        config: Option<PathBuf>,
        /// Documents come from the API server this file names, whatever the configuration says.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
    /// What a process would say of documents and of a configuration, before anything is applied; needs no process.
    Check(check::Args),
    /// Make a CA and certificates, for trying out and for tests.
    Certs(certs::Args),
    /// Write the custom resource definitions, a file per kind; or check those that are there.
    Crds(crds::Args),
    /// Write Grafana's dashboards, a file per board; or check those that are there.
    Dashboards(dashboards::Args),
    /// Write the page of all metrics; or check the one that is there.
    Metrics(metrics::Args),
    /// Three sites on this machine: write on all, kill one, catch up, compare version by version.
    Demo(demo::Args),
    /// Links with lag, backlog and last error, of a running process.
    Status {
        /// Its local socket (`admin.sock` beside its journal).
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
        #[command(flatten)]
        watch: watch::Watch,
    },
    /// How far behind each link is, worst first, against its rule's objective.
    Lag(lag::Args),
    /// What is not at the peers yet, by link; or the versions that failed, or the deletes a brake holds.
    Backlog(backlog::Args),
    /// Versions born without knowing each other; both are kept.
    Conflicts(conflicts::Args),
    /// Where each version of an object is, and why not where it should be; or why a peer is behind.
    Explain(explain::Args),
    /// Versions that failed go again now, parked ones too.
    Retry(retry::Args),
    /// Stops sending on the links of a rule or to a peer; changes wait in the store's feed.
    Suspend(suspend::Args),
    /// Lets go what the mass-delete brake of a rule holds back.
    Release(release::Args),
    /// Ends a suspension.
    Resume(suspend::Args),
    /// Proves by digests that a rule's peers hold what this site has to bring; names what differs.
    Verify(verify::Args),
    /// Rehearses a failure with a peer on a bucket of its own, with figures.
    Drill(drill::Args),
    /// What would be lost if this site were gone now, and how to switch to a peer; changes nothing.
    Failover(failover::Args),
    /// Prints what a shell needs to complete verbs and options.
    Completions(completions::Args),
    /// Writes the manual, a page per verb.
    Man(man::Args),
    /// Compares the version sets of one bucket on two sites.
    Diff {
        /// Local socket of the first site.
        a: PathBuf,
        /// Local socket of the second site.
        b: PathBuf,
        /// Bucket to compare.
        #[arg(long)]
        bucket: String,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
}

/// Whom to ask, and how to print the answer.
#[derive(clap::Args, Debug)]
pub struct Asking {
    /// Local socket of the running process (`admin.sock` beside its journal).
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// `isthmus store --config FILE`, and `isthmus store run --config FILE`.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct StoreArgs {
    #[command(subcommand)]
    verb: Option<StoreVerb>,
    /// Configuration file (YAML).
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
}

/// What to do with a store.
#[derive(Subcommand, Debug)]
enum StoreVerb {
    /// Run it.
    Run {
        /// Configuration file (YAML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

impl StoreArgs {
    /// The configuration file, wherever it was named.
    pub fn config(&self) -> &std::path::Path {
        match (&self.verb, &self.config) {
            (Some(StoreVerb::Run { config }), _) | (None, Some(config)) => config,
            (None, None) => unreachable!("clap asks for one of them"),
        }
    }
}
