//! One world, wholly: what a seed expands to. The same options and operations give the same run.
use super::Bug;
use super::dice::Dice;
use isthmus::link::BrakeTerms;

/// Which site sends to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Each to each, what it made itself: active-active.
    Mesh,
    /// Each to each, whatever the peer did not make: relay.
    RelayMesh,
    /// In a row, both ways, relaying.
    RelayChain,
    /// The first with each other one, both ways, relaying.
    RelayStar,
    /// From the first to each other one.
    OneWay,
    /// Each to each; some links carry keys with a prefix only, or no deletes.
    Filtered,
}

/// One link: a rule to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub prefix: &'static str,
    pub forward_all: bool,
    pub delete_markers: bool,
    pub version_deletes: bool,
}

/// Prefixes of the keys that clients write.
pub const PREFIXES: [&str; 2] = ["a/", "b/"];

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub sites: usize,
    pub topology: Topology,
    pub edges: Vec<Edge>,
    /// Local changes in the fault phase.
    pub writes: u64,
    pub keys: u64,
    /// Length of the fault phase.
    pub fault_ms: u64,
    /// A message takes 1 ms to this long.
    pub delay_ms: u64,
    /// Of a thousand: messages lost, messages doubled, pushes answered "try again", records that fail.
    pub lost: u64,
    pub doubled: u64,
    pub retryable: u64,
    pub record_fails: u64,
    /// How often each happens in the fault phase.
    pub partitions: u64,
    pub clogs: u64,
    pub storms: u64,
    pub crashes: u64,
    pub pauses: u64,
    pub clock_jumps: u64,
    pub alterations: u64,
    pub forgeries: u64,
    pub expiries: u64,
    pub restores: u64,
    pub deposals: u64,
    pub mass_deletes: u64,
    /// Each site's clock is off by up to this much, one of them maybe far ahead.
    pub skew_ms: u64,
    pub far_ahead: bool,
    pub window_versions: usize,
    pub window_bytes: u64,
    /// Bytes a second of one link, and of all of a site together.
    pub bandwidth: Option<u64>,
    pub toll: Option<u64>,
    pub commit_order: bool,
    pub brake: Option<BrakeTerms>,
    /// This site is away for weeks when the faults are over.
    pub away: Option<usize>,
    pub bug: Option<Bug>,
}

impl Options {
    /// The world of a seed.
    pub fn of(seed: u64) -> Options {
        let mut d = Dice::new(seed ^ 0x0971_0115);
        let sites = d.range(2, 6) as usize;
        let topology = match d.range(0, 100) {
            0..40 => Topology::Mesh,
            40..55 => Topology::RelayMesh,
            55..65 => Topology::RelayChain,
            65..75 => Topology::RelayStar,
            75..85 => Topology::OneWay,
            _ => Topology::Filtered,
        };
        let edges = edges(topology, sites, &mut d);
        // Half of all worlds are spared what happens once in a year, so that the rest is seen at its usual pace.
        let is_rough = d.chance(500);
        let mut rare = |most: u64| if is_rough { d.range(0, most + 1) } else { 0 };
        let (expiries, restores, deposals, alterations, clock_jumps) = (rare(2), rare(1), rare(3), rare(6), rare(3));
        Options {
            seed,
            sites,
            topology,
            edges,
            writes: d.range(150, 260),
            keys: d.range(3, 40),
            fault_ms: d.range(35, 50) * 60_000,
            delay_ms: d.range(5, 400),
            lost: d.range(0, 20),
            doubled: d.range(0, 100),
            retryable: d.range(0, 60),
            record_fails: d.range(0, 100),
            partitions: d.range(0, 8),
            clogs: d.range(0, 4),
            storms: d.range(0, 3),
            crashes: d.range(0, 6),
            pauses: d.range(0, 3),
            clock_jumps,
            alterations,
            forgeries: d.range(0, 6),
            expiries,
            restores,
            deposals,
            mass_deletes: d.range(0, 2),
            skew_ms: d.range(1, 20_000),
            far_ahead: d.chance(150),
            window_versions: d.range(1, 64) as usize,
            window_bytes: d.range(1_000, 1_000_000),
            bandwidth: d.chance(200).then(|| d.range(20_000, 500_000)),
            toll: d.chance(200).then(|| d.range(40_000, 500_000)),
            commit_order: d.chance(150),
            brake: d.chance(250).then(|| BrakeTerms {
                percent: d.range(5, 50) as u32,
                window_millis: d.range(10_000, 600_000),
                versions_min: d.range(3, 20),
            }),
            away: d.chance(100).then(|| d.range(0, sites as u64) as usize),
            bug: None,
        }
    }

    /// The link from one site to another.
    pub fn edge(&self, from: usize, to: usize) -> Option<&Edge> {
        self.edges.iter().find(|e| (e.from, e.to) == (from, to))
    }
    /// Sites that `site` sends to.
    pub fn peers_of(&self, site: usize) -> impl Iterator<Item = usize> + use<> {
        let to: Vec<usize> = self.edges.iter().filter(|e| e.from == site).map(|e| e.to).collect();
        to.into_iter()
    }
    /// Whether everything is to be the same everywhere.
    pub fn is_whole(&self) -> bool {
        !matches!(self.topology, Topology::OneWay | Topology::Filtered)
    }
}

fn edges(topology: Topology, sites: usize, d: &mut Dice) -> Vec<Edge> {
    let forward_all = matches!(topology, Topology::RelayMesh | Topology::RelayChain | Topology::RelayStar);
    let is_joined = |from: usize, to: usize| match topology {
        Topology::RelayChain => from.abs_diff(to) == 1,
        Topology::RelayStar => from == 0 || to == 0,
        Topology::OneWay => from == 0,
        _ => true,
    };
    let pairs = (0..sites).flat_map(|from| (0..sites).map(move |to| (from, to)));
    let mut edges = Vec::new();
    for (from, to) in pairs.filter(|(from, to)| from != to && is_joined(*from, *to)) {
        let is_filtered = topology == Topology::Filtered;
        edges.push(Edge {
            from,
            to,
            prefix: if is_filtered && d.chance(400) { PREFIXES[d.range(0, 2) as usize] } else { "" },
            forward_all,
            delete_markers: !(is_filtered && d.chance(200)),
            version_deletes: !(is_filtered && d.chance(200)),
        });
    }
    edges
}
