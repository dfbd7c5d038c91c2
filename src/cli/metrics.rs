//! `isthmus metrics`: writes the page of all metrics, or says whether the one that is there differs.
use super::generated::Files;
use crate::telemetry::catalogue;
use std::path::PathBuf;

/// Where to.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder of the page `metrics.md`; made where it is absent.
    #[arg(long, default_value = "docs")]
    dir: PathBuf,
    /// Write nothing; exit with 1 when the page differs from what this version would write.
    #[arg(long)]
    check: bool,
}

/// Writes or checks; returns the exit code.
pub fn run(args: &Args) -> u8 {
    let all = [("metrics.md".to_owned(), catalogue::page())];
    let files = Files { verb: "metrics", what: "page of metrics", all: &all };
    if args.check { files.check(&args.dir) } else { files.write(&args.dir) }
}
