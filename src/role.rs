//! The roles of a process, a file each, and what they share: how a run ends as an exit code, listeners, the
//! file of ports. Started by `main`; a role opens, binds, runs and stops in one flat function.
pub mod replication;
pub mod replicator;
pub mod site;
pub mod store;
mod watching;

use crate::cli::exit;
use crate::config::Problem;
use anyhow::Context;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;

/// Why a role ended badly, by exit code.
enum Failed {
    /// The configuration, the drives or the documents are not as they must be.
    Configuration(anyhow::Error),
    /// The API server lacks the definitions, or gives too few rights.
    Unprepared(anyhow::Error),
    /// Something else.
    Internal(anyhow::Error),
}

/// Says how a role ended and gives the exit code.
fn ended(result: Result<(), Failed>) -> u8 {
    match result {
        Ok(()) => exit::OK,
        Err(Failed::Configuration(e)) => {
            eprintln!("isthmus: {e:#}");
            exit::USAGE
        }
        Err(Failed::Unprepared(e)) => {
            eprintln!("isthmus: {e:#}");
            exit::UNPREPARED
        }
        Err(Failed::Internal(e)) => {
            eprintln!("isthmus: {e:#}");
            exit::INTERNAL
        }
    }
}

/// Says everything that is wrong with a configuration.
fn refused(problems: &[Problem]) -> u8 {
    problems.iter().for_each(|p| eprintln!("isthmus: {p}"));
    exit::USAGE
}

async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("bind {what} to {address}"))
}

/// Writes the bound addresses where the settings ask for it.
fn write_ports(file: Option<&Path>, addresses: &serde_json::Value) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    std::fs::write(file, addresses.to_string()).with_context(|| format!("write {}", file.display()))
}
