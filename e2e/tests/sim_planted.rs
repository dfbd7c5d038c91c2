//! The simulator finds the bugs it is there to find: each one planted, each one found.
#![cfg(feature = "planted-bugs")]
use e2e::sim::{Bug, Options, Planted, run};

/// A bug that needs more seeds than a run of the suite has would pass it.
const SEEDS: u64 = 2_000;
const FIRST: u64 = 0x5eed_0000;

fn found(bug: Bug) {
    let is_found = |seed: &u64| run(&Options { bug: Some(bug), ..Options::of(*seed) }).is_err();
    let seed = (FIRST..FIRST + SEEDS).find(is_found);
    assert!(seed.is_some(), "{bug:?} was not found within {SEEDS} seeds");
    println!("{bug:?} found by seed {:#x}", seed.unwrap_or_default());
}

macro_rules! found {
    ($($name:ident: $bug:expr;)*) => { $(#[test] fn $name() { found($bug) })* };
}

found! {
    sim_finds_cursor_past_failed: Bug::Real(Planted::CursorPastFailed);
    sim_finds_floor_from_cursor: Bug::Real(Planted::FloorFromCursor);
    sim_finds_row_for_down_peer: Bug::Real(Planted::RowForDownPeer);
    sim_finds_no_rewind: Bug::Real(Planted::NoRewind);
    sim_finds_replica_resent_as_own: Bug::Real(Planted::ReplicaResentAsOwn);
    sim_finds_lag_without_rows: Bug::Real(Planted::LagWithoutRows);
    sim_finds_clock_ahead_parked: Bug::Real(Planted::ClockAheadParked);
    sim_finds_expired_goes_on: Bug::Real(Planted::ExpiredGoesOn);
    sim_finds_unlike_taken_for_equal: Bug::Real(Planted::UnlikeTakenForEqual);
    sim_finds_widened_sends_nothing: Bug::Real(Planted::WidenedSendsNothing);
    sim_finds_cursor_past_braked: Bug::Real(Planted::CursorPastBraked);
    sim_finds_suspended_goes_on: Bug::Real(Planted::SuspendedGoesOn);
    sim_finds_guards_stay_here: Bug::Real(Planted::GuardsStayHere);
    sim_finds_waits_for_old_clock: Bug::Real(Planted::WaitsForOldClock);
    sim_finds_parked_for_good: Bug::Real(Planted::ParkedForGood);
    sim_finds_foreign_origin_taken: Bug::Real(Planted::ForeignOriginTaken);
    sim_finds_prefix_of_grant_ignored: Bug::Real(Planted::PrefixOfGrantIgnored);
    sim_finds_clock_forgotten: Bug::Real(Planted::ClockForgotten);
    sim_finds_early_purge_forgotten: Bug::Real(Planted::EarlyPurgeForgotten);
    sim_finds_ack_before_commit: Bug::AckBeforeCommit;
    sim_finds_order_by_arrival: Bug::OrderByArrival;
    sim_finds_checkpoint_without_rows: Bug::CheckpointWithoutRows;
    sim_finds_rows_forgotten_at_start: Bug::RowsForgottenAtStart;
    sim_finds_old_owner_pushes: Bug::OldOwnerPushes;
}
