//! The real shell, frames and TLS under a simulated network: every acked change arrives everywhere, whatever breaks.
use e2e::wire::ground::Ground;
use e2e::wire::{Failure, Options, Report, line, run};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seeds of each kind in a run of the suite (`WIRE_SEEDS` says otherwise): both under a minute on two cores.
const SEEDS: u64 = 20;
const FIRST: u64 = 0x31e_0000;

type One = fn(&Ground, &Options) -> Result<Report, Failure>;

fn seeds() -> u64 {
    std::env::var("WIRE_SEEDS").ok().map_or(SEEDS, |seeds| seeds.parse().expect("WIRE_SEEDS is a number"))
}

/// All seeds, on as many threads as there are cores; what they saw together.
fn all(what: &str, one: One) -> Vec<Report> {
    let ground = Ground::new().expect("certificates and documents");
    let (seeds, next, began) = (seeds(), AtomicU64::new(0), Instant::now());
    let work = || {
        let mut reports = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= seeds {
                return reports;
            }
            reports.push(one(&ground, &Options::of(FIRST + at)).unwrap_or_else(|failure| panic!("{failure}")));
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        started.into_iter().flat_map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let simulated: Duration = reports.iter().map(|r| r.simulated).sum();
    let mut happened: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, times) in reports.iter().flat_map(|r| &r.happened) {
        *happened.entry(name).or_default() += times;
    }
    println!(
        "{what}: {seeds} seeds, {} simulated s in {} s; {} acked, {} versions heard, {} connections, {} broken; {happened:?}",
        simulated.as_secs(),
        began.elapsed().as_secs(),
        sum(|r| r.acked),
        sum(|r| r.heard),
        sum(|r| r.connections),
        sum(|r| r.broken),
    );
    reports
}

#[test]
fn wire_sites_converge_whatever_the_network_does() {
    let reports = all("sites", run);
    let busy = reports.iter().filter(|r| r.heard >= 100 && r.connections >= 4).count();
    assert!(busy * 100 >= reports.len() * 80, "only {busy} of {} seeds were busy", reports.len());
    let faults = ["partition", "one-way partition", "stall", "delay", "breaking connections", "crash", "stop"];
    let felt = ["ended by silence", "ended by a break", "ended by a goodbye"];
    all_fired(&reports, &[&faults[..], &felt].concat());
    assert!(reports.iter().any(|r| r.broken > 0) || seeds() < SEEDS, "no connection broke within a frame");
}

#[test]
fn wire_connections_lose_no_version_and_no_ack() {
    let reports = all("lines", line::run);
    all_fired(&reports, &["partition", "acks are lost", "versions are lost", "stall"]);
    assert!(reports.iter().any(|r| r.broken > 0) && reports.iter().any(|r| r.connections > 3), "a tame network");
}

/// A kind of fault that never fires proves nothing; a few seeds need not have them all.
fn all_fired(reports: &[Report], kinds: &[&str]) {
    let is_missing = |kind: &&&str| !reports.iter().any(|r| r.happened.contains_key(**kind));
    let missing: Vec<_> = kinds.iter().filter(is_missing).collect();
    assert!((reports.len() as u64) < SEEDS || missing.is_empty(), "never fired: {missing:?}");
}

/// One seed again, by the line that a failure printed: `just wire-again`. Without `SEED` there is nothing to do.
fn replay(one: One) {
    if let Ok(seed) = std::env::var("SEED") {
        let seed = u64::from_str_radix(seed.trim_start_matches("0x"), 16).expect("SEED is a hexadecimal number");
        let ground = Ground::new().expect("certificates and documents");
        println!("{:#?}", one(&ground, &Options::of(seed)).unwrap_or_else(|failure| panic!("{failure}")));
    }
}

#[test]
fn wire_replay() {
    replay(run);
}

#[test]
fn wire_line_replay() {
    replay(line::run);
}
