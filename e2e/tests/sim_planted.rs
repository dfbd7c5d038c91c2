//! The simulator finds the bugs it is there to find: each one planted, each one found.
#![cfg(feature = "planted-bugs")]
use e2e::sim::{Bug, Options, Planted, run};

/// A bug that needs more seeds than a run of the suite has would pass it.
const SEEDS: u64 = 500;

fn found(bug: Bug) {
    let is_found = |seed: &u64| run(&Options { bug: Some(bug), ..Options::of(*seed) }).is_err();
    let seed = (0x5eed_0000..0x5eed_0000 + SEEDS).find(is_found);
    assert!(seed.is_some(), "{bug:?} was not found within {SEEDS} seeds");
    println!("{bug:?} found by seed {:#x}", seed.unwrap_or_default());
}

macro_rules! found {
    ($($name:ident: $bug:expr;)*) => { $(#[test] fn $name() { found($bug) })* };
}

found! {
    sim_finds_cursor_past_failed: Bug::Link(Planted::CursorPastFailed);
    sim_finds_floor_from_cursor: Bug::Link(Planted::FloorFromCursor);
    sim_finds_row_for_down_peer: Bug::Link(Planted::RowForDownPeer);
    sim_finds_no_rewind: Bug::Link(Planted::NoRewind);
    sim_finds_replica_resent_as_own: Bug::Link(Planted::ReplicaResentAsOwn);
    sim_finds_lag_without_rows: Bug::Link(Planted::LagWithoutRows);
    sim_finds_clock_ahead_parked: Bug::Link(Planted::ClockAheadParked);
    sim_finds_ack_before_commit: Bug::AckBeforeCommit;
    sim_finds_order_by_arrival: Bug::OrderByArrival;
    sim_finds_purge_before_birth_dropped: Bug::PurgeBeforeBirthDropped;
    sim_finds_checkpoint_without_rows: Bug::CheckpointWithoutRows;
    sim_finds_rows_forgotten_at_start: Bug::RowsForgottenAtStart;
}
