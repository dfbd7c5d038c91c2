//! Links over a bad network: every acked change arrives everywhere, whatever breaks.
use e2e::sim::fault::{Fault, Faults};
use e2e::sim::{Options, Report, run, shrink};
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds of one run of the suite (`SIM_SEEDS` says otherwise): under five minutes on two cores in the dev profile.
const SEEDS: u64 = 2_000;
/// The first seed; each further one is the next number.
const FIRST: u64 = 0x5eed_0000;
/// Every so manieth seed runs twice.
const TWICE_EVERY: u64 = 50;

fn hold(options: &Options) -> Report {
    run(options).unwrap_or_else(|failure| panic!("{}", shrink(failure)))
}

fn seeds() -> u64 {
    std::env::var("SIM_SEEDS").ok().map_or(SEEDS, |seeds| seeds.parse().expect("SIM_SEEDS is a number"))
}

/// What all seeds of a run saw together.
#[derive(Default)]
struct Sum {
    busy: u64,
    conflicts: u64,
    rows: u64,
    events: u64,
    simulated_ms: u64,
    faults: Faults,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.busy += u64::from(report.applied >= 100 && report.heals > 0);
        self.conflicts += report.conflicts;
        self.rows += report.rows;
        self.events += report.events;
        self.simulated_ms += report.simulated_ms;
        self.faults.add(&report.faults);
    }
}

/// Every so manieth seed from `FIRST` on, until all are done: threads share nothing but the count.
fn worker(next: &AtomicU64, seeds: u64) -> Sum {
    let mut sum = Sum::default();
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= seeds {
            return sum;
        }
        let options = Options::of(FIRST + at);
        let report = hold(&options);
        if at.is_multiple_of(TWICE_EVERY) {
            assert_eq!(report, hold(&options), "seed {:#x}: one seed is one world", FIRST + at);
        }
        sum.add(&report);
    }
}

#[test]
fn sim_sites_converge_after_any_faults() {
    let (seeds, next) = (seeds(), AtomicU64::new(0));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = Sum::default();
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..workers).map(|_| scope.spawn(|| worker(&next, seeds))).collect();
        for each in started {
            let sum = each.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.busy += sum.busy;
            all.conflicts += sum.conflicts;
            all.rows += sum.rows;
            all.events += sum.events;
            all.simulated_ms += sum.simulated_ms;
            all.faults.add(&sum.faults);
        }
    });
    let hours = all.simulated_ms / 3_600_000;
    println!(
        "{seeds} seeds, {hours} simulated hours, {} events, {} conflicts, {} rows\n{}",
        all.events, all.conflicts, all.rows, all.faults
    );
    assert!(all.busy * 100 >= seeds * 80, "only {} of {seeds} seeds made 100 remote applies and a heal", all.busy);
    assert!(all.conflicts > seeds && all.rows > seeds, "a tame world: {} conflicts, {} rows", all.conflicts, all.rows);
    if seeds >= SEEDS {
        let silent: Vec<_> = Fault::ALL.iter().filter(|fault| all.faults.count(**fault) == 0).collect();
        assert!(silent.is_empty(), "never fired: {silent:?}");
    }
}

/// Seeds that once found something, one a line: `0x… what it found`.
#[test]
fn sim_seeds_that_once_failed_hold() {
    for line in include_str!("../seeds/links").lines().filter(|l| !l.starts_with('#')) {
        let word = line.split_whitespace().next().expect("a line begins with its seed");
        hold(&Options::of(parse(word)));
    }
}

/// `SEED=0x… cargo test -p e2e sim_replay -- --nocapture`
#[test]
fn sim_replay() {
    if let Ok(seed) = std::env::var("SEED") {
        println!("{:#?}", hold(&Options::of(parse(&seed))));
    }
}

fn parse(word: &str) -> u64 {
    u64::from_str_radix(word.trim_start_matches("0x"), 16).expect("a seed is hexadecimal")
}
