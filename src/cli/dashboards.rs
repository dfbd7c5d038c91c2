//! `isthmus dashboards`: writes Grafana's dashboards, a file per board, or says which of those that are there differ.
use super::generated::Files;
use crate::dashboard::grafana;
use std::path::PathBuf;

/// Where to.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder of the dashboards; made where it is absent.
    #[arg(long, default_value = "manifests/components/monitoring/dashboards")]
    dir: PathBuf,
    /// Write nothing; exit with 1 when a file differs from what this version would write.
    #[arg(long)]
    check: bool,
}

/// Writes or checks; returns the exit code.
pub fn run(args: &Args) -> u8 {
    let all = grafana::files();
    let files = Files { verb: "dashboards", what: "dashboards", all: &all };
    if args.check { files.check(&args.dir) } else { files.write(&args.dir) }
}
