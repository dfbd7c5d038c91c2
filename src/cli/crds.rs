//! `isthmus crds`: writes the custom resource definitions, a file per kind, or says which of those that are there differ.
use super::generated::Files;
use crate::rule::resource::crd;
use std::path::PathBuf;

/// Where to.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder of the definitions; made where it is absent.
    #[arg(long, default_value = "crds")]
    dir: PathBuf,
    /// Write nothing; exit with 1 when a file differs from what this version would write.
    #[arg(long)]
    check: bool,
}

/// Writes or checks; returns the exit code.
pub fn run(args: &Args) -> u8 {
    let all: Vec<_> = crd::crds().into_iter().map(|(file, definition)| (file, crd::yaml(&definition))).collect();
    let files = Files { verb: "crds", what: "definitions", all: &all };
    if args.check { files.check(&args.dir) } else { files.write(&args.dir) }
}
