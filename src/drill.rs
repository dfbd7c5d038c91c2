//! A failover drill as it is thought of: what is asked for, in which steps it goes, what its client was told, and what
//! the figures say. Pure: no clock, dice or I/O; time, effects and answers are parameters.
//!
//! A drill acts on a canary: a bucket of its own at two sites, with a link each way, made for it and removed after it.
//! A live one acts on the links of the rules it names, and writes in a place of its own in their buckets. `replicator/drill`
//! carries the steps out; the command line and the admin socket show [`report::Report`].
pub mod cost;
pub mod ledger;
pub mod machine;
pub mod report;
pub mod trend;

use serde::{Deserialize, Serialize};
use storage_engine::api::scratch;
pub use storage_engine::api::scratch::{is_id, place};

/// The canary bucket, its rule and the rule's uid are called this and the drill's id.
pub const PREFIX: &str = scratch::PREFIX;
/// Longest drill. Source: the FailoverDrill kind (`spec.deadline`).
pub const DEADLINE_MAX_MILLIS: u64 = 3_600_000;
/// Shortest fault that shows anything: a few measurements of the lag.
pub const DURATION_MIN_MILLIS: u64 = 1_000;
/// What a drill needs beside its fault, at most, where nobody says: to prepare, to catch up, to compare, to clean up.
pub const BESIDE_MILLIS: u64 = 120_000;
/// Writes of one drill: each is remembered, about 100 bytes.
pub const WRITES_MAX: u64 = 200_000;
/// Largest object of the workload: small ones are what a drill counts.
pub const OBJECT_BYTES_MAX: u32 = scratch::OBJECT_BYTES_MAX as u32;
/// Writes behind the shown lag that count as in order: it is measured twice a second, and a write takes its time.
pub const RPO_SLACK_MILLIS: u64 = 1_000;
/// Time without service that is in order. Source: operations.md section 6.
pub const RTO_MILLIS: u64 = 60_000;
/// Rules of one live drill. Source: the FailoverDrill kind (`spec.ruleRefs`).
pub const RULES_MAX: usize = 32;
/// Objects that the client of a live drill writes into users' buckets, and probes made there, spread over its time.
const LIVE_WRITES_MAX: u64 = 200;
const LIVE_PROBES_MAX: u64 = 50;
/// Deletes that a live drill makes of its own objects at one site, at most: each write and probe is removed again, and some
/// are deleted before. A brake that engages below it would hold users' deletes for the drill's sake.
pub const LIVE_DELETES_MAX: u64 = 2 * (LIVE_WRITES_MAX + 2 * LIVE_PROBES_MAX);
/// Between two probes while the peer serves.
const PROBE_MILLIS: u64 = 500;

/// Which failure is exercised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Type {
    /// The link between the sites is cut, both ways; each goes on.
    #[default]
    Partition,
    /// This site takes no writes and reaches nobody; the peer takes over.
    SiteLoss,
    /// Writes are fenced here, what is left drains, the peer takes over, and back again.
    Switchover,
}

impl Type {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Type::Partition => "partition",
            Type::SiteLoss => "site-loss",
            Type::Switchover => "switchover",
        }
    }
    /// Whether nothing may be lost.
    pub fn is_planned(self) -> bool {
        self == Type::Switchover
    }
}

/// Which way a partition cuts, seen from the site that drives the drill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    #[default]
    Both,
    /// What this site sends does not arrive; what the peer sends does.
    Outbound,
    /// What the peer sends does not arrive; what this site sends does.
    Inbound,
}

impl Direction {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Both => "both",
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        }
    }
    /// What is cut at this site; at the peer it is the mirror of it.
    pub fn cut(self) -> Cut {
        Cut { outbound: self != Direction::Inbound, inbound: self != Direction::Outbound }
    }
}

/// What one side does not let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// What it sends.
    pub outbound: bool,
    /// What comes in.
    pub inbound: bool,
}

impl Cut {
    pub const NONE: Cut = Cut { outbound: false, inbound: false };
    pub const BOTH: Cut = Cut { outbound: true, inbound: true };

    /// The same cut at the other side of it.
    pub fn mirrored(self) -> Cut {
        Cut { outbound: self.inbound, inbound: self.outbound }
    }
    /// Whether anything is cut.
    pub fn is_some(self) -> bool {
        self != Cut::NONE
    }
    /// Whether one way is cut and the other is not.
    pub fn is_one_way(self) -> bool {
        self.outbound != self.inbound
    }
}

/// Whom a side turns away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fence {
    #[default]
    None,
    /// Who writes.
    Writes,
    /// Everybody: the site is lost.
    All,
}

/// Writes made during the drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    pub writes_per_second: u32,
    pub object_bytes: u32,
    /// Share of the writes that are deletes.
    pub delete_percent: u32,
}

impl Default for Load {
    fn default() -> Self {
        Load { writes_per_second: 20, object_bytes: 4096, delete_percent: 10 }
    }
}

/// What the drill must keep to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objectives {
    /// Longest age of a write at risk; `None`: nothing where the drill is planned, else the shown lag and 1 s.
    pub rpo_millis: Option<u64>,
    /// Longest time without service.
    pub rto_millis: u64,
}

impl Default for Objectives {
    fn default() -> Self {
        Objectives { rpo_millis: None, rto_millis: RTO_MILLIS }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub id: String,
    /// Name of the Peer.
    pub peer: String,
    #[serde(rename = "type")]
    pub kind: Type,
    /// Of a partition.
    #[serde(default)]
    pub direction: Direction,
    /// How long the fault stays, or the peer serves.
    pub duration_millis: u64,
    /// After so long from its start it is over, whatever happens.
    pub deadline_millis: u64,
    /// Longest time the backlog may take to drain in a switchover; `None`: until the deadline.
    #[serde(default)]
    pub drain_millis: Option<u64>,
    /// A switchover is switched back.
    #[serde(default = "yes")]
    pub fails_back: bool,
    pub load: Load,
    pub objectives: Objectives,
    /// Names of the rules whose links a live drill acts on; none: it acts on a canary.
    #[serde(default)]
    pub rules: Vec<String>,
}

impl Plan {
    /// Nothing is known of it but its id: what is left of it is to be removed.
    pub fn of_a_former_life(id: &str) -> Self {
        Plan {
            id: id.into(),
            peer: String::new(),
            kind: Type::default(),
            direction: Direction::default(),
            duration_millis: 0,
            deadline_millis: 0,
            drain_millis: None,
            fails_back: true,
            load: Load::default(),
            objectives: Objectives::default(),
            rules: Vec::new(),
        }
    }

    /// Whether it acts on what clients use.
    pub fn is_live(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Microseconds between two writes of its client.
    pub fn write_every_micros(&self) -> u64 {
        let every = (1_000_000 / u64::from(self.load.writes_per_second.max(1))).max(1);
        if self.is_live() { every.max(self.deadline_millis * 1000 / LIVE_WRITES_MAX) } else { every }
    }

    /// Milliseconds between two probes while the peer serves.
    pub fn probe_every_millis(&self) -> u64 {
        if self.is_live() { PROBE_MILLIS.max(self.duration_millis / LIVE_PROBES_MAX) } else { PROBE_MILLIS }
    }

    /// What of it cannot be done, with what to write instead.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        let Plan { id, duration_millis, deadline_millis, load, .. } = self;
        if !is_id(id) {
            return Err(format!("{id:?} is no id of a drill: 8 to 32 of a-z and 0-9"));
        }
        if self.rules.len() > RULES_MAX {
            return Err(format!("a live drill acts on {RULES_MAX} rules at most"));
        }
        if self.direction != Direction::Both && self.kind != Type::Partition {
            let kind = self.kind.name();
            return Err(format!("only a partition has a direction: a {kind} leaves nothing in between that goes on"));
        }
        if *duration_millis < DURATION_MIN_MILLIS {
            return Err("a duration below 1s shows nothing; write for example 30s".into());
        }
        if *deadline_millis > DEADLINE_MAX_MILLIS {
            return Err("the deadline is at most 1h".into());
        }
        if duration_millis >= deadline_millis {
            return Err("the duration is shorter than the deadline, for the drill has to end before it".into());
        }
        if load.writes_per_second == 0 || load.object_bytes == 0 || load.object_bytes > OBJECT_BYTES_MAX {
            return Err("the workload writes at least once a second, objects of 1 byte to 1 MiB".into());
        }
        if load.delete_percent > 100 {
            return Err("delete-percent is a percentage".into());
        }
        if u64::from(load.writes_per_second).saturating_mul(deadline_millis / 1000) > WRITES_MAX {
            return Err(format!("more than {WRITES_MAX} writes in one drill: fewer a second, or a shorter deadline"));
        }
        Ok(())
    }
}

fn yes() -> bool {
    true
}

/// Whether a live drill was confirmed: `given` is what it is asked for by, once more.
///
/// # Errors
/// A sentence.
pub fn confirmed(asked: &[String], given: &[String]) -> Result<(), String> {
    let sorted = |names: &[String]| names.iter().cloned().collect::<std::collections::BTreeSet<_>>();
    if sorted(asked) == sorted(given) {
        return Ok(());
    }
    Err(format!("a live drill touches what clients use; confirm it by name: {}", asked.join(",")))
}

/// Name of the canary's bucket, rule and uid.
pub fn canary(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// Whether a bucket is a drill's.
pub fn is_canary(bucket: &str) -> bool {
    bucket.strip_prefix(PREFIX).is_some_and(is_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn plan(kind: Type) -> Plan {
        Plan {
            id: "0123456789ab".into(),
            peer: "ams".into(),
            kind,
            direction: Direction::Both,
            duration_millis: 30_000,
            deadline_millis: 150_000,
            drain_millis: None,
            fails_back: true,
            load: Load::default(),
            objectives: Objectives::default(),
            rules: Vec::new(),
        }
    }

    #[test]
    fn a_live_drill_is_confirmed_by_name_and_writes_little() {
        let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        let rules = names(&["orders", "logs"]);
        assert_eq!(confirmed(&rules, &names(&["logs", "orders"])), Ok(()));
        for given in [names(&[]), names(&["orders"]), names(&["orders", "logs", "more"])] {
            assert!(confirmed(&rules, &given).unwrap_err().contains("orders,logs"), "{given:?}");
        }
        let live = Plan { rules, ..plan(Type::Partition) };
        assert_eq!((live.write_every_micros(), live.probe_every_millis()), (750_000, 600));
        assert_eq!(plan(Type::Partition).write_every_micros(), 50_000);
        let refused = |change: fn(&mut Plan)| {
            let mut plan = live.clone();
            change(&mut plan);
            plan.check().unwrap_err()
        };
        assert!(refused(|p| p.rules = vec!["r".into(); RULES_MAX + 1]).contains("32"));
    }

    #[test]
    fn a_plan_that_cannot_be_kept_is_refused_with_what_to_write() {
        let good = plan(Type::Partition);
        assert_eq!(good.check(), Ok(()));
        let refused = |change: &dyn Fn(&mut Plan)| {
            let mut plan = good.clone();
            change(&mut plan);
            plan.check().unwrap_err()
        };
        assert!(refused(&|p| p.id = "../../etc".into()).contains("id"));
        assert!(refused(&|p| (p.kind, p.direction) = (Type::SiteLoss, Direction::Inbound)).contains("direction"));
        assert!(refused(&|p| p.duration_millis = 10).contains("30s"));
        assert!(refused(&|p| p.deadline_millis = 3_600_001).contains("1h"));
        assert!(refused(&|p| p.duration_millis = p.deadline_millis).contains("shorter"));
        assert!(refused(&|p| p.load.writes_per_second = 0).contains("once a second"));
        assert!(refused(&|p| p.load.object_bytes = OBJECT_BYTES_MAX + 1).contains("1 MiB"));
        assert!(refused(&|p| p.load.delete_percent = 101).contains("percentage"));
        assert!(refused(&|p| p.load.writes_per_second = 2000).contains("200000"));
    }

    #[test]
    fn a_cut_at_one_side_is_its_mirror_at_the_other() {
        let table = [
            (Direction::Both, Cut::BOTH, Cut::BOTH),
            (Direction::Outbound, Cut { outbound: true, inbound: false }, Cut { outbound: false, inbound: true }),
            (Direction::Inbound, Cut { outbound: false, inbound: true }, Cut { outbound: true, inbound: false }),
        ];
        for (direction, here, there) in table {
            assert_eq!((direction.cut(), direction.cut().mirrored()), (here, there), "{direction:?}");
            assert_eq!(here.is_one_way(), direction != Direction::Both);
        }
    }

    #[test]
    fn only_a_drills_own_bucket_is_a_canary() {
        assert!(is_canary(&canary("0123456789ab")));
        for other in
            ["orders", "isthmus-drill-", "isthmus-drill-a", "isthmus-drill-0123456-", "xisthmus-drill-01234567"]
        {
            assert!(!is_canary(other), "{other}");
        }
    }
}
