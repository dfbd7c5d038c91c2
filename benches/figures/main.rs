//! The project's figures, measured on real processes: `just bench`, or `cargo bench --bench figures`.
//!
//! Starts `isthmus site` (8 drives, 4+4, in one directory on disk, fsync on) and drives it over S3 with a
//! client that costs little, because it shares the machine's cores. Prints what it measured beside the
//! goal and the conditions; asserts nothing but that every byte read is the byte written.
mod client;
mod conditions;
mod load;
mod metrics;
mod process;
mod replication;
mod sites;
mod store;
mod table;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use conditions::Conditions;
use std::path::PathBuf;
use std::time::Duration;
use table::Row;

/// Which figures can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Figure {
    Put4k,
    Get4k,
    GetOne,
    Put64m,
    Get64m,
    Replication,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Measures what the README promises; prints, asserts nothing.
#[derive(Parser, Debug)]
#[command(name = "figures")]
struct Args {
    /// Only these figures; may stand several times. All of them otherwise.
    #[arg(long, value_enum, value_name = "NAME")]
    only: Vec<Figure>,
    /// Seconds of each measurement; 10 for the store's figures and 60 for replication otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,
    /// Where the drives stand, in a directory of its own that is removed again; must be on a disk. The
    /// build's target directory otherwise.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Another program to measure than the one built with this, for comparing two builds in one minute.
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_isthmus"), hide_default_value = true)]
    program: PathBuf,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn wants(&self, figure: Figure) -> bool {
        self.only.is_empty() || self.only.contains(&figure)
    }
    fn span(&self, default: u64) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(default))
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // One thread: the client takes no more than it must from the two cores it shares with the servers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the client")?;
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let parent = args.dir.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    let dir = tempfile::Builder::new()
        .prefix("figures-")
        .tempdir_in(&parent)
        .with_context(|| format!("make a directory in {}", parent.display()))?;
    let conditions = Conditions::measure(dir.path()).context("look at the machine")?;
    if args.output == Format::Table {
        println!("{conditions}");
    }
    let mut rows: Vec<Row> = Vec::new();
    let wanted: Vec<_> = store::WORKLOADS.iter().filter(|w| args.wants(w.figure)).collect();
    if !wanted.is_empty() {
        let sites = sites::start(&args.program, &dir.path().join("one"), &["solo"]).await?;
        let mut objects = store::Objects::default();
        for workload in wanted {
            eprintln!("Measuring {}.", workload.name);
            rows.push(store::measure(workload, &sites[0], &mut objects, args.span(10)).await?);
        }
        sites::stop(sites).await?;
    }
    if args.wants(Figure::Replication) {
        let sites = sites::start(&args.program, &dir.path().join("two"), &["a", "b"]).await?;
        rows.extend(replication::measure(&sites[0], &sites[1], args.span(60)).await?);
        sites::stop(sites).await?;
    }
    match args.output {
        Format::Table => println!("{}", table::text(&rows)),
        Format::Json => println!("{}", serde_json::json!({"conditions": conditions, "figures": rows})),
    }
    Ok(())
}
