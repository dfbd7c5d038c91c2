//! `isthmus crds`: writes the custom resource definitions, a file per kind, or says which of those that are there differ.
use super::exit;
use crate::rule::resource::crd;
use std::path::{Path, PathBuf};

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
    if args.check {
        return check(&args.dir);
    }
    match write(&args.dir) {
        Ok(files) => {
            println!("WRITTEN  {} definitions in {}", files, args.dir.display());
            exit::OK
        }
        Err((path, e)) => {
            eprintln!("isthmus crds: write {}: {e}", path.display());
            exit::INTERNAL
        }
    }
}

fn write(dir: &Path) -> Result<usize, (PathBuf, std::io::Error)> {
    std::fs::create_dir_all(dir).map_err(|e| (dir.into(), e))?;
    let crds = crd::crds();
    for (file, definition) in &crds {
        let path = dir.join(file);
        std::fs::write(&path, crd::yaml(definition)).map_err(|e| (path, e))?;
    }
    Ok(crds.len())
}

fn check(dir: &Path) -> u8 {
    let differs = |(file, definition): &(String, serde_json::Value)| {
        std::fs::read_to_string(dir.join(file)).ok().as_deref() != Some(crd::yaml(definition).as_str())
    };
    let differing: Vec<String> = crd::crds().iter().filter(|crd| differs(crd)).map(|(file, _)| file.clone()).collect();
    if differing.is_empty() {
        println!("EQUAL  the definitions in {} are those of this version", dir.display());
        return exit::OK;
    }
    println!("DIFFERENT  {}; write them anew: isthmus crds --dir {}", differing.join(", "), dir.display());
    exit::DEGRADED
}
