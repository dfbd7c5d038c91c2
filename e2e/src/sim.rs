//! Seeded simulation of sites, their links and a bad network, on a simulated clock.
//!
//! A run is a loop over the pure cores: the link and its passes, what a comparison asks and answers, the part of a
//! version a link brings, grants, the join, the store's twin in memory; the journal and the network are the world's own.
//! `fault.rs` names what goes wrong, `operation.rs` lays it out, `check.rs` looks at what must hold at any time. Then
//! everything heals, and an oracle that saw every ack judges what is left. One seed is one world: nothing here knows a
//! real clock, dice, threads or sockets.
mod away;
mod check;
mod client;
pub(crate) mod dice;
pub mod fault;
mod network;
mod operation;
mod options;
pub(crate) mod oracle;
mod shrink;
mod site;
mod survey;
mod trace;
mod world;

pub use isthmus::link::planted::Planted;
pub use operation::Operation;
pub use options::{Options, Topology};
pub use shrink::shrink;

use fault::Faults;
use world::World;

/// A bug switched on for a run, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// In the real code (feature `planted-bugs`).
    Real(Planted),
    /// The receiver acks before its store has the version.
    AckBeforeCommit,
    /// The receiver orders versions by arrival.
    OrderByArrival,
    /// A record's checkpoint is kept without its rows.
    CheckpointWithoutRows,
    /// Rows are not loaded after a restart.
    RowsForgottenAtStart,
    /// The receiver takes frames under an epoch that is over.
    OldOwnerPushes,
}

/// What a run that held all properties saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub trace_hash: u64,
    /// Versions that a remote site learnt something from.
    pub applied: u64,
    pub changes: u64,
    pub conflicts: u64,
    /// Links that came back.
    pub heals: u64,
    pub rows: u64,
    pub events: u64,
    pub simulated_ms: u64,
    pub faults: Faults,
}

/// A property that did not hold, and all that is needed to see it again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{property}\n{options:#?}\nthe operations:\n{}\nthe last events:\n{trace}\nSEED={:#x} cargo test -p e2e sim_replay -- --nocapture", said(.operations), .options.seed)]
pub struct Failure {
    pub property: String,
    pub options: Box<Options>,
    pub operations: Vec<Operation>,
    pub trace: String,
}

fn said(operations: &[Operation]) -> String {
    operations.iter().map(|o| format!("{:>8} ms  {:?}\n", o.at, o.what)).collect()
}

/// Runs one world to its end.
///
/// # Errors
/// [`Failure`] names the first property that did not hold.
pub fn run(options: &Options) -> Result<Report, Failure> {
    run_with(options, &operation::plan(options))
}

/// The same with these operations only.
///
/// # Errors
/// As [`run`].
pub fn run_with(options: &Options, operations: &[Operation]) -> Result<Report, Failure> {
    #[cfg(feature = "planted-bugs")]
    isthmus::link::planted::plant(match options.bug {
        Some(Bug::Real(bug)) => Some(bug),
        _ => None,
    });
    let mut world = World::new(options.clone(), operations);
    world.run().map_err(|property| Failure {
        property,
        options: Box::new(options.clone()),
        operations: operations.to_vec(),
        trace: world.trace.to_string(),
    })
}
