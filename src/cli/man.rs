//! `isthmus man`: writes the manual, a page per verb, made of what `--help` says.
use super::generated::Files;
use super::{Cli, exit};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use std::path::PathBuf;

/// Where to.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder of the pages, such as /usr/local/share/man/man1; made where it is absent.
    #[arg(long)]
    dir: PathBuf,
}

/// Writes it; returns the exit code.
pub fn run(args: &Args) -> u8 {
    let mut command = Cli::command();
    // Gives verbs of verbs their whole names.
    command.build();
    let mut all = Vec::new();
    if let Err(e) = pages(&command, &mut all) {
        eprintln!("isthmus man: {e}");
        return exit::INTERNAL;
    }
    Files { verb: "man", what: "pages", all: &all }.write(&args.dir)
}

fn pages(command: &Command, all: &mut Vec<(String, String)>) -> std::io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        pages(verb, all)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    all.push((format!("{name}.1"), String::from_utf8_lossy(&page).into_owned()));
    Ok(())
}
