//! `isthmus completions SHELL`: what a shell needs to complete verbs and options.
use super::{Cli, exit};
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::Write;

/// For which shell.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The shell that is to read it.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints it; returns the exit code.
pub fn run(args: &Args) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "isthmus", &mut script);
    // Whoever stopped reading has what he wanted.
    let _ = std::io::stdout().write_all(&script);
    exit::OK
}
