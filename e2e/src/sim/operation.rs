//! What a world does to its sites, laid out before it begins: a list that can be cut shorter when it fails.
use super::dice::Dice;
use super::options::Options;

/// One operation and when, in milliseconds since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub at: u64,
    pub what: Op,
}

/// What is done. `ms`: for how long; `dice`: what it needs of chance, so that leaving another out changes nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Write {
        site: usize,
        dice: u64,
    },
    MassDelete {
        site: usize,
        dice: u64,
    },
    Part {
        from: usize,
        to: usize,
        both: bool,
        ms: u64,
    },
    Clog {
        from: usize,
        to: usize,
        ms: u64,
    },
    Slow {
        site: usize,
        ms: u64,
    },
    Storm {
        site: usize,
        ms: u64,
    },
    Crash {
        site: usize,
        ms: u64,
    },
    Pause {
        site: usize,
        ms: u64,
    },
    Clock {
        site: usize,
        by_ms: i64,
    },
    /// The rule of link number `edge` is suspended.
    Suspend {
        edge: usize,
        ms: u64,
    },
    /// Its receiver suspends the sender.
    SuspendPeer {
        edge: usize,
        ms: u64,
    },
    Narrow {
        edge: usize,
        ms: u64,
    },
    NarrowGrant {
        edge: usize,
        ms: u64,
    },
    Forge {
        edge: usize,
        dice: u64,
    },
    Expire {
        site: usize,
    },
    Backup {
        site: usize,
    },
    Restore {
        site: usize,
    },
    RestoreJournal {
        site: usize,
    },
    Recreate {
        site: usize,
    },
    Depose {
        site: usize,
    },
    Release {
        site: usize,
    },
}

/// All of a world, in order.
pub fn plan(options: &Options) -> Vec<Operation> {
    let mut d = Dice::new(options.seed ^ 0x0bad_cafe);
    let (end, n, edges) = (options.fault_ms, options.sites as u64, options.edges.len() as u64);
    let mut all = Vec::new();
    let mut add = |at: u64, what: Op| all.push(Operation { at, what });
    let senders: Vec<usize> = (0..options.sites).filter(|s| options.peers_of(*s).next().is_some()).collect();
    let (mut burst, mut busy) = (0, Vec::new());
    for _ in 0..options.writes {
        // Bursts make what flies meet; what lies between lets it settle.
        let at = if d.chance(700) { burst + d.range(0, 3_000) } else { d.range(0, end) };
        burst = if d.chance(80) { d.range(0, end) } else { burst };
        let any = d.range(0, n) as usize;
        let site = if d.chance(900) { senders[any % senders.len()] } else { any };
        busy.push(at);
        add(at.min(end), Op::Write { site, dice: d.bits() });
    }
    let mut several = |times: u64, mut of: Box<dyn FnMut(&mut Dice) -> Op>| {
        for _ in 0..times {
            // Half of what happens, happens while something flies.
            let near = busy[d.range(0, busy.len() as u64) as usize] + d.range(0, 500);
            let at = if d.chance(500) { near.min(end) } else { d.range(0, end) };
            add(at, of(&mut d));
        }
    };
    let site = move |d: &mut Dice| d.range(0, n) as usize;
    let edge = move |d: &mut Dice| d.range(0, edges) as usize;
    // Most breaks are short; some last.
    let ms = |d: &mut Dice| if d.chance(800) { d.range(10, 30_000) } else { d.range(30_000, 900_000) };
    let o = options;
    let part = move |d: &mut Dice| Op::Part { from: site(d), to: site(d), both: d.chance(500), ms: ms(d) };
    several(o.partitions, Box::new(part));
    several(o.clogs, Box::new(move |d| Op::Clog { from: site(d), to: site(d), ms: d.range(10, 3_500) }));
    several(o.storms, Box::new(move |d| Op::Storm { site: site(d), ms: ms(d) }));
    several(o.storms, Box::new(move |d| Op::Slow { site: site(d), ms: ms(d) }));
    several(o.crashes, Box::new(move |d| Op::Crash { site: site(d), ms: d.range(10, 15_000) }));
    several(o.pauses, Box::new(move |d| Op::Pause { site: site(d), ms: d.range(1_000, 300_000) }));
    let jump = |d: &mut Dice| d.range(0, 7_200_000) as i64 - 3_600_000;
    several(o.clock_jumps, Box::new(move |d| Op::Clock { site: site(d), by_ms: jump(d) }));
    let alter = move |d: &mut Dice| match d.range(0, 4) {
        0 => Op::Suspend { edge: edge(d), ms: ms(d) },
        1 => Op::SuspendPeer { edge: edge(d), ms: ms(d) },
        2 => Op::Narrow { edge: edge(d), ms: ms(d) },
        _ => Op::NarrowGrant { edge: edge(d), ms: ms(d) },
    };
    several(o.alterations, Box::new(alter));
    several(o.forgeries, Box::new(move |d| Op::Forge { edge: edge(d), dice: d.bits() }));
    several(o.expiries, Box::new(move |d| Op::Expire { site: site(d) }));
    several(o.deposals, Box::new(move |d| Op::Depose { site: site(d) }));
    several(o.mass_deletes, Box::new(move |d| Op::MassDelete { site: site(d), dice: d.bits() }));
    several(o.mass_deletes, Box::new(move |d| Op::Release { site: site(d) }));
    for _ in 0..o.restores {
        let (backup, back) = (d.range(0, end), d.range(0, end));
        let site = site(&mut d);
        all.push(Operation { at: backup.min(back), what: Op::Backup { site } });
        let what = match d.range(0, 3) {
            0 => Op::Restore { site },
            1 => Op::RestoreJournal { site },
            _ => Op::Recreate { site },
        };
        all.push(Operation { at: backup.max(back), what });
    }
    all.sort_by_key(|operation| operation.at);
    all
}
