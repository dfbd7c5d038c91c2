//! The wire ring: the real replicator, frames and TLS of two or three sites under a simulated network and a simulated
//! clock, over stores and journals in memory.
//!
//! A seed lays out what goes wrong (`storm.rs`) and what clients write (`site.rs`). After the storm everything heals,
//! and every site must come to hold the same versions with their bytes and everything a client was told of; its links
//! must owe nothing, send nothing more, and no end may ever have taken the other for one that breaks the protocol.
//! `line.rs` looks at one connection by itself, ack by ack. What a seed does not fix stands in docs/decisions.
pub mod ground;
pub mod line;
mod log;
mod net;
mod site;
mod store;
mod storm;

pub use crate::sim::Planted;
use crate::sim::{dice, oracle};

use dice::Dice;
use ground::{Ground, SITES};
use isthmus::peer::frame::Windows;
use isthmus::peer::server::{Refusal, Settings};
use log::Log;
use net::WorldClock;
use site::Site;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use storage_engine::clock::Clock;
use storage_engine::version::{Version, VersionId, merge};
use turmoil::Sim;

/// A step of the simulated network: no message is faster.
const TICK: Duration = Duration::from_millis(5);
/// How long all sites may take to hold the same once everything flows: a claim of a crashed life ends after 15 s, a
/// row that failed often waits longest.
const CONVERGE_MAX: Duration = Duration::from_secs(300);
/// After that nothing may be sent for so long.
const QUIET: Duration = Duration::from_secs(20);
/// A failed expectation is looked for every so many steps: looking costs more than stepping.
const LOOK_EVERY: u32 = 100;

/// One seed, and what it does not say.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    /// How long the storm lasts.
    pub storm: Duration,
    /// A bug switched on, to see that it is found.
    pub bug: Option<Planted>,
}

impl Options {
    pub fn of(seed: u64) -> Options {
        Options { seed, storm: Duration::from_secs(45), bug: None }
    }
}

/// What a seed saw that held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Changes clients were told of.
    pub acked: u64,
    /// Versions handed to a receiver, those sent again included.
    pub heard: u64,
    pub connections: u64,
    /// Connections that broke after some bytes.
    pub broken: u64,
    pub simulated: Duration,
    /// Faults, and how they were felt.
    pub happened: BTreeMap<&'static str, u64>,
    /// What all sites hold in the end, as a hash.
    pub state: u64,
}

/// What did not hold, and how to see it again.
pub struct Failure {
    options: Options,
    test: &'static str,
    what: String,
    log: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { options, test, what, log } = self;
        writeln!(f, "{options:?}: {what}\nThe last lines, by simulated seconds:\n{log}")?;
        write!(f, "SEED={:#x} cargo test --workspace --locked --test wire {test} -- --exact --nocapture", options.seed)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the whole thread of a seed has: dice that the program itself takes, and a bug.
pub(crate) fn set_up(options: &Options) {
    fastrand::seed(options.seed);
    #[cfg(feature = "planted-bugs")]
    isthmus::link::planted::plant(options.bug);
}

/// A network of one seed, with the simulated time at which it begins. So many segments of a stream may be on their way,
/// and as many callers may wait for a host that is down: turmoil panics over more.
fn network(dice: &mut Dice, began: u64, segments: usize) -> Sim<'static> {
    let (low, high) = (dice.range(5, 60), dice.range(60, 250));
    turmoil::Builder::new()
        .rng_seed(dice.bits())
        .epoch(UNIX_EPOCH + Duration::from_millis(began))
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(24 * 3600))
        .min_message_latency(Duration::from_millis(low))
        .max_message_latency(Duration::from_millis(high))
        .tcp_capacity(segments)
        .build()
}

/// Windows of any size a peer may announce, mostly small; connections that live long or are asked to leave soon.
fn settings(dice: &mut Dice) -> Settings {
    let connection_bytes = 1 << dice.range(20, 23);
    let windows = Windows { connection_bytes, stream_bytes: 1 << dice.range(16, 19), streams: 1 << dice.range(5, 10) };
    let lifetime = if dice.chance(600) { dice.range(2_000, 30_000) } else { 3_600_000 };
    let drain = Duration::from_millis(dice.range(200, 10_000));
    Settings { windows, lifetime: Duration::from_millis(lifetime), drain, ..Settings::default() }
}

/// What a seed's thread left behind when it failed is still to be looked at.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One step of the simulated network; no site ends by itself.
fn step(sim: &mut Sim<'_>) -> Result<(), String> {
    sim.step().map(|_| ()).map_err(|e| format!("a site ended: {e}"))
}

/// The real clock, read once: certificates are valid by it.
fn real_now() -> u64 {
    storage_engine::clock::SystemClock.now_millis()
}

/// Runs one seed.
///
/// # Errors
/// What did not hold.
pub fn run(ground: &Ground, options: &Options) -> Result<Report, Failure> {
    set_up(options);
    let log = Log::default();
    let _hearing = log.hear();
    let fail = |what: String| Failure { options: *options, test: "wire_replay", what, log: log.last() };
    let mut dice = Dice::new(options.seed);
    let began = real_now();
    let clock: Arc<dyn Clock> = Arc::new(WorldClock { began });
    let count = 2 + dice.range(0, 2) as usize;
    let mut sim = network(&mut dice, began, 256);
    let sites: Vec<_> = SITES[..count]
        .iter()
        .map(|name| {
            let settings = settings(&mut dice);
            Site::new(ground, count, name, clock.clone(), settings, Dice::new(dice.bits()))
        })
        .collect();
    for site in &sites {
        let site = site.clone();
        sim.host(site.name, move || site.clone().live());
    }
    let mut storm = storm::Storm::of(Dice::new(dice.bits()), count, options.storm.as_millis() as u64);
    while sim.elapsed() < options.storm {
        storm.pass(&mut sim, &sites);
        step(&mut sim).map_err(&fail)?;
    }
    // What ends with the storm: a site that still stops is started again.
    storm.pass(&mut sim, &sites);
    sites.iter().for_each(|site| site.writes.store(false, Ordering::Relaxed));
    storm::calm(&mut sim, &sites);
    converge(&mut sim, &sites).map_err(&fail)?;
    let heard = || sites.iter().map(|s| s.heard.load(Ordering::Relaxed)).sum::<u64>();
    let (before, until) = (heard(), sim.elapsed() + QUIET);
    while sim.elapsed() < until {
        step(&mut sim).map_err(&fail)?;
    }
    if heard() != before {
        return Err(fail(format!("{} versions were sent though every site had all", heard() - before)));
    }
    judge(&sites, &log).map_err(&fail)?;
    Ok(Report {
        acked: sites.iter().map(|s| s.acked().len() as u64).sum(),
        heard: before,
        connections: sites.iter().map(|s| s.counters.connections.load(Ordering::Relaxed)).sum(),
        broken: sites.iter().map(|s| s.caller.broken.load(Ordering::Relaxed)).sum(),
        simulated: sim.elapsed(),
        happened: storm.happened.into_iter().chain(log.felt()).collect(),
        state: sites.first().map_or(0, |site| state(site).values().fold(0, |h, v| dice::mix(h ^ *v))),
    })
}

/// What of every version must be alike at all sites, as hashes. Of a purged one all purges, void ones too, and nothing
/// else, as in the world: when one site writes and another purges while a third is cut off from the first (seed
/// 0x31e0001), the third hears of the purge alone, and the first sends it no birth of which it knows the purge. Should a
/// guard void the purge, the version is compared whole again.
fn state(site: &Site) -> BTreeMap<(String, VersionId), u64> {
    site.store.versions().into_iter().map(|(at, v)| (at, oracle::remains(&v).state_hash())).collect()
}

/// Until every site holds the same and owes nothing.
fn converge(sim: &mut Sim<'_>, sites: &[Arc<Site>]) -> Result<(), String> {
    let until = sim.elapsed() + CONVERGE_MAX;
    loop {
        for _ in 0..LOOK_EVERY {
            step(sim)?;
        }
        let owing: Vec<_> = sites.iter().flat_map(|site| site.owes()).collect();
        if !owing.is_empty() && sim.elapsed() <= until {
            continue;
        }
        let states: Vec<_> = sites.iter().map(|site| state(site)).collect();
        let is_alike = states.windows(2).all(|two| two[0] == two[1]);
        if is_alike && owing.is_empty() {
            return Ok(());
        }
        if sim.elapsed() > until {
            let held: Vec<_> = sites.iter().zip(&states).map(|(s, v)| format!("{} {}", s.name, v.len())).collect();
            let word = if is_alike { "owes" } else { "differs" };
            let first = difference(sites, &states);
            return Err(format!("after {CONVERGE_MAX:?} in the calm it {word}: {owing:#?}, versions {held:?}{first}"));
        }
    }
}

/// The first version that sites show differently, as each holds it.
fn difference(sites: &[Arc<Site>], states: &[BTreeMap<(String, VersionId), u64>]) -> String {
    let mut all = states.iter().flat_map(BTreeMap::keys);
    let is_unlike = |at: &&(String, VersionId)| states.windows(2).any(|two| two[0].get(*at) != two[1].get(*at));
    let Some(at) = all.find(is_unlike) else { return String::new() };
    let held = |site: &Arc<Site>| format!("\n{} holds {:?}", site.name, site.store.versions().get(at));
    sites.iter().map(held).collect()
}

/// What must hold of sites that came to hold the same.
fn judge(sites: &[Arc<Site>], log: &Log) -> Result<(), String> {
    for site in sites {
        let held = site.store.versions();
        for change in sites.iter().flat_map(|s| s.acked()) {
            let found = held.get(&(change.key.clone(), change.id));
            let is_gone = |v: &&Version| change.purges.is_empty() && v.purged().is_some();
            let is_there = found.is_some_and(|v| is_gone(&v) || !merge::join(&mut v.clone(), &change).changed);
            if !is_there {
                return Err(format!("{} does not hold {}/{}, which was acked", site.name, change.key, change.id));
            }
        }
        let (without, wrong) = site.store.unsound();
        if !without.is_empty() || wrong > 0 {
            return Err(format!("{}: {wrong} bodies were wrong, without bytes: {without:?}", site.name));
        }
        // A handshake may break anywhere; nothing else is ever to be refused between honest sites.
        let refused = Refusal::ALL.iter().filter(|why| !matches!(why, Refusal::Handshake | Refusal::Certificate));
        let refused: Vec<_> = refused.filter(|why| site.counters.refused(**why) > 0).collect();
        if !refused.is_empty() {
            return Err(format!("{} refused {refused:?}", site.name));
        }
    }
    match log.wrong().as_slice() {
        [] => Ok(()),
        wrong => Err(format!("said between honest sites:\n{}", wrong.join("\n"))),
    }
}
