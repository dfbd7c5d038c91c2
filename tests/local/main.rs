//! Real processes under fire: kill -9, pauses, a bad network between sites, old journals, full disks, bad
//! input. An oracle sees every acknowledgement a client got and judges what the sites hold afterwards.
//!
//! What kill -9 cannot show: a missing fsync, for the page cache survives the process. That is the powercut
//! ring's work (`storage-engine/tests/crash.rs`). Clocks cannot be faked here either; the simulator does.
mod bad_input;
mod behind;
mod collector;
mod dice;
mod documents;
mod drill;
mod drill_live;
mod full_disk;
mod journal;
mod large;
mod load;
mod mesh;
mod one_store;
mod oracle;
mod page;
#[path = "../process/mod.rs"]
mod process;
mod proxy;
mod s3;
mod shape;
mod site;
mod topologies;
mod trace;
mod verbs;
mod view;

/// Runs of kills in a test of the suite, or what `KILLS` says.
fn kills(default: u64) -> u64 {
    std::env::var("KILLS").map_or(default, |n| n.parse().expect("KILLS is a number"))
}
