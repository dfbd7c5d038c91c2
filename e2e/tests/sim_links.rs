//! Links over a bad network: every acked change arrives everywhere, whatever breaks.
use e2e::sim::{Options, Report, run};

/// Seeds of one run of the suite: under a minute on two cores in the dev profile.
const SEEDS: u64 = 500;
/// The first seed; each further one is the next number.
const FIRST: u64 = 0x5eed_0000;

fn hold(options: &Options) -> Report {
    run(options).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn sim_sites_converge_after_any_faults() {
    let reports: Vec<Report> = (FIRST..FIRST + SEEDS).map(|seed| hold(&Options::of(seed))).collect();
    let busy = reports.iter().filter(|r| r.applied >= 100).count() as u64;
    assert!(busy * 100 >= SEEDS * 80, "only {busy} of {SEEDS} seeds made 100 remote applies: the faults hide the work");
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let (conflicts, crashes, rows) = (sum(|r| r.conflicts), sum(|r| r.crashes), sum(|r| r.rows));
    assert!(
        conflicts > SEEDS && crashes > SEEDS && rows > SEEDS,
        "a tame world: {conflicts} conflicts, {crashes} crashes, {rows} rows"
    );
}

#[test]
fn sim_one_seed_is_one_world() {
    for seed in (FIRST..FIRST + SEEDS).step_by(50) {
        let options = Options::of(seed);
        assert_eq!(hold(&options), hold(&options), "seed {seed:#x}");
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
