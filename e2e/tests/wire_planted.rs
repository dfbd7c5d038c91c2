//! The wire ring finds bugs that no pure core has: of frames, credit and bodies, each planted, each found.
#![cfg(feature = "planted-bugs")]
use e2e::wire::ground::Ground;
use e2e::wire::{Failure, Options, Planted, Report, line, run};

/// A bug that needs more seeds than a run of the suite has would pass it.
const SEEDS: u64 = 20;
const FIRST: u64 = 0x31e_0000;

fn found(bug: Planted, one: fn(&Ground, &Options) -> Result<Report, Failure>) {
    let ground = Ground::new().expect("certificates and documents");
    let failure = (FIRST..FIRST + SEEDS)
        .find_map(|seed| one(&ground, &Options { bug: Some(bug), ..Options::of(seed) }).err().map(|e| (seed, e)));
    let (seed, failure) = failure.unwrap_or_else(|| panic!("{bug:?} was not found within {SEEDS} seeds"));
    let text = failure.to_string();
    println!("{bug:?} found by seed {seed:#x}: {}", text.lines().next().unwrap_or_default());
}

macro_rules! found {
    ($($name:ident: $bug:ident, $one:path;)*) => { $(#[test] fn $name() { found(Planted::$bug, $one) })* };
}

found! {
    wire_finds_credit_leaked: CreditLeaked, line::run;
    wire_finds_cut_body_taken_for_whole: CutBodyTakenForWhole, run;
    wire_finds_half_read_forgotten: HalfReadForgotten, line::run;
    wire_finds_credit_ignored: CreditIgnored, line::run;
    wire_finds_goodbye_before_acks: GoodbyeBeforeAcks, line::run;
}
