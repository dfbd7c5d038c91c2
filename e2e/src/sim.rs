//! Seeded simulation of sites, their links and a bad network, on a simulated clock.
//!
//! A run is a loop over the pure link, the store's twin in memory and a journal in memory: messages are
//! delayed, reordered, doubled and lost, networks part, sites crash, clocks differ. Then everything
//! heals, and an oracle that saw every ack judges what is left. One seed is one world: nothing here
//! knows a real clock, dice, threads or sockets.
mod dice;
mod oracle;
mod perform;
mod trace;
mod world;

pub use isthmus::link::planted::Planted;

use dice::Dice;
use world::World;

/// A bug switched on for a run, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// In the link (feature `planted-bugs`).
    Link(Planted),
    /// The receiver acks before its store has the version.
    AckBeforeCommit,
    /// The receiver orders versions by arrival.
    OrderByArrival,
    /// The receiver drops a purge of a version it never had.
    PurgeBeforeBirthDropped,
    /// A record's checkpoint is kept without its rows.
    CheckpointWithoutRows,
    /// Rows are not loaded after a restart.
    RowsForgottenAtStart,
}

/// One world, wholly: the same options give the same run.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub sites: usize,
    /// Local changes in the fault phase.
    pub writes: u64,
    pub keys: u64,
    /// Length of the fault phase.
    pub fault_ms: u64,
    /// A message takes 1 ms to this long.
    pub delay_ms: u64,
    /// Of a thousand: messages lost, messages doubled, pushes answered "try again", pushes refused,
    /// records that fail.
    pub lost: u64,
    pub doubled: u64,
    pub retryable: u64,
    pub refused: u64,
    pub record_fails: u64,
    pub partitions: u64,
    pub crashes: u64,
    /// Each site's clock is off by up to this much, one of them maybe far ahead.
    pub skew_ms: u64,
    pub far_ahead: bool,
    pub window_versions: usize,
    pub window_bytes: u64,
    pub bandwidth: Option<u64>,
    pub commit_order: bool,
    pub forward_all: bool,
    pub bug: Option<Bug>,
}

impl Options {
    /// The world of a seed.
    pub fn of(seed: u64) -> Options {
        let mut d = Dice::new(seed ^ 0x0971_0115);
        let sites = d.range(2, 6) as usize;
        Options {
            seed,
            sites,
            writes: d.range(130, 260),
            keys: d.range(3, 40),
            fault_ms: d.range(20_000, 90_000),
            delay_ms: d.range(5, 400),
            lost: d.range(0, 20),
            doubled: d.range(0, 100),
            retryable: d.range(0, 60),
            refused: d.range(0, 60),
            record_fails: d.range(0, 100),
            partitions: d.range(0, 8),
            crashes: d.range(0, 6),
            skew_ms: d.range(1, 20_000),
            far_ahead: d.chance(150),
            window_versions: d.range(1, 64) as usize,
            window_bytes: d.range(1_000, 1_000_000),
            bandwidth: d.chance(200).then(|| d.range(20_000, 500_000)),
            commit_order: d.chance(150),
            forward_all: d.chance(200),
            bug: None,
        }
    }
}

/// What a run that held all properties saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub trace_hash: u64,
    /// Versions that a remote site learnt something from.
    pub applied: u64,
    pub changes: u64,
    pub conflicts: u64,
    pub crashes: u64,
    pub rows: u64,
}

/// A property that did not hold, and all that is needed to see it again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{property}\n{options:#?}\nthe last events:\n{trace}\nSEED={:#x} cargo test -p e2e sim_replay -- --nocapture", .options.seed)]
pub struct Failure {
    pub property: String,
    pub options: Box<Options>,
    pub trace: String,
}

/// Runs one world to its end.
///
/// # Errors
/// [`Failure`] names the first property that did not hold.
pub fn run(options: &Options) -> Result<Report, Failure> {
    let mut world = World::new(options.clone());
    world.run().map_err(|property| Failure {
        property,
        options: Box::new(options.clone()),
        trace: world.trace.to_string(),
    })
}
