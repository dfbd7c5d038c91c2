//! What goes wrong between and on the hosts of one seed, laid out before it begins: partitions both ways and one way,
//! lines that stall and go on, delay, connections that break within a frame, sites that crash and sites that are
//! restarted in order.
use super::dice::Dice;
use super::site::Site;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use turmoil::Sim;

/// One thing that happens; sites by their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing passes between the two; what was on its way is lost.
    Part(usize, usize),
    /// Nothing passes from the first to the second.
    Deafen(usize, usize),
    /// Everything between the two waits.
    Hold(usize, usize),
    /// What waits arrives, and everything flows again.
    Heal(usize, usize),
    /// Each message between the two takes so many milliseconds.
    Delay(usize, usize, u64),
    /// Connections this site dials break after some bytes, from now on or no more.
    Break(usize, bool),
    /// The process is gone, with everything in memory.
    Crash(usize),
    /// It is asked to stop.
    Stop(usize),
    /// It starts again; one that still stops is killed.
    Start(usize),
}

impl Act {
    fn name(self) -> &'static str {
        match self {
            Act::Part(..) => "partition",
            Act::Deafen(..) => "one-way partition",
            Act::Hold(..) => "stall",
            Act::Heal(..) => "heal",
            Act::Delay(..) => "delay",
            Act::Break(_, true) => "breaking connections",
            Act::Break(_, false) => "connections hold",
            Act::Crash(_) => "crash",
            Act::Stop(_) => "stop",
            Act::Start(_) => "start",
        }
    }
}

/// Everything that happens, by simulated milliseconds.
pub struct Storm {
    acts: std::vec::IntoIter<(u64, Act)>,
    next: Option<(u64, Act)>,
    /// How often each happened.
    pub happened: BTreeMap<&'static str, u64>,
}

impl Storm {
    /// About one fault every four seconds for so long, each over before the end.
    pub fn of(mut dice: Dice, sites: usize, lasts_ms: u64) -> Storm {
        let mut acts = Vec::new();
        let mut at = dice.range(1_000, 6_000);
        while at + 500 < lasts_ms {
            let (one, other) = pair(&mut dice, sites);
            let until = (at + dice.range(200, 15_000)).min(lasts_ms);
            let (begins, ends) = match dice.range(0, 100) {
                0..15 => (Act::Part(one, other), Act::Heal(one, other)),
                15..32 => (Act::Deafen(one, other), Act::Heal(one, other)),
                32..45 => (Act::Hold(one, other), Act::Heal(one, other)),
                45..55 => (Act::Delay(one, other, dice.range(50, 1_500)), Act::Delay(one, other, 20)),
                55..75 => (Act::Break(one, true), Act::Break(one, false)),
                75..88 => (Act::Crash(one), Act::Start(one)),
                _ => (Act::Stop(one), Act::Start(one)),
            };
            acts.extend([(at, begins), (until, ends)]);
            at += dice.range(500, 7_500);
        }
        acts.sort_by_key(|(at, _)| *at);
        let mut acts = acts.into_iter();
        Storm { next: acts.next(), acts, happened: BTreeMap::new() }
    }

    /// Lets happen what is due.
    pub fn pass(&mut self, sim: &mut Sim<'_>, sites: &[Arc<Site>]) {
        let now = sim.elapsed();
        while let Some((_, act)) = self.next.filter(|(at, _)| Duration::from_millis(*at) <= now) {
            *self.happened.entry(act.name()).or_default() += 1;
            act.happen(sim, sites);
            self.next = self.acts.next();
        }
    }
}

fn pair(dice: &mut Dice, sites: usize) -> (usize, usize) {
    let count = sites as u64;
    let one = dice.range(0, count);
    let other = (one + dice.range(1, count)) % count;
    (one as usize, other as usize)
}

impl Act {
    fn happen(self, sim: &mut Sim<'_>, sites: &[Arc<Site>]) {
        let name = |at: usize| sites[at].name;
        // The log's own clock knows only what happens on a host.
        tracing::info!(at = ?sim.elapsed(), act = ?self, "The storm.");
        match self {
            Act::Part(a, b) => sim.partition(name(a), name(b)),
            Act::Deafen(a, b) => sim.partition_oneway(name(a), name(b)),
            Act::Hold(a, b) => sim.hold(name(a), name(b)),
            Act::Heal(a, b) => heal(sim, name(a), name(b)),
            Act::Delay(a, b, ms) => sim.set_link_latency(name(a), name(b), Duration::from_millis(ms)),
            Act::Break(a, on) => sites[a].caller.breaks.store(on, Ordering::Relaxed),
            Act::Crash(a) => sim.crash(name(a)),
            Act::Stop(a) => sites[a].stop(),
            Act::Start(a) => sim.bounce(name(a)),
        }
    }
}

/// Lets everything flow between two hosts, also what waited.
fn heal(sim: &Sim<'_>, one: &str, other: &str) {
    sim.release(one, other);
    sim.repair(one, other);
}

/// Everything flows, everywhere, and every site runs.
pub fn calm(sim: &mut Sim<'_>, sites: &[Arc<Site>]) {
    for (at, site) in sites.iter().enumerate() {
        site.caller.breaks.store(false, Ordering::Relaxed);
        for other in &sites[at + 1..] {
            heal(sim, site.name, other.name);
            sim.set_link_latency(site.name, other.name, Duration::from_millis(20));
        }
        if !sim.is_host_running(site.name) {
            sim.bounce(site.name);
        }
    }
}
