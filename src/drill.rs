//! A failover drill as it is thought of: what is asked for, in which steps it goes, what its client was told, and what
//! the figures say. Pure: no clock, dice or I/O; time, effects and answers are parameters.
//!
//! A drill acts on a canary alone: a bucket of its own at two sites, with a link each way, made for it and removed
//! after it. `replicator/drill` carries the steps out; the command line and the admin socket show [`report::Report`].
pub mod ledger;
pub mod machine;
pub mod report;

use serde::{Deserialize, Serialize};
use storage_engine::api::scratch;

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
}

impl Plan {
    /// Nothing is known of it but its id: what is left of it is to be removed.
    pub fn of_a_former_life(id: &str) -> Self {
        Plan {
            id: id.into(),
            peer: String::new(),
            kind: Type::default(),
            duration_millis: 0,
            deadline_millis: 0,
            drain_millis: None,
            fails_back: true,
            load: Load::default(),
            objectives: Objectives::default(),
        }
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

/// Name of the canary's bucket, rule and uid.
pub fn canary(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// Whether a bucket is a drill's.
pub fn is_canary(bucket: &str) -> bool {
    bucket.strip_prefix(PREFIX).is_some_and(is_id)
}

/// Whether this can be the id of a drill: it becomes a part of a bucket's name and of a file's.
pub fn is_id(id: &str) -> bool {
    (8..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn plan(kind: Type) -> Plan {
        Plan {
            id: "0123456789ab".into(),
            peer: "ams".into(),
            kind,
            duration_millis: 30_000,
            deadline_millis: 150_000,
            drain_millis: None,
            fails_back: true,
            load: Load::default(),
            objectives: Objectives::default(),
        }
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
        assert!(refused(&|p| p.duration_millis = 10).contains("30s"));
        assert!(refused(&|p| p.deadline_millis = 3_600_001).contains("1h"));
        assert!(refused(&|p| p.duration_millis = p.deadline_millis).contains("shorter"));
        assert!(refused(&|p| p.load.writes_per_second = 0).contains("once a second"));
        assert!(refused(&|p| p.load.object_bytes = OBJECT_BYTES_MAX + 1).contains("1 MiB"));
        assert!(refused(&|p| p.load.delete_percent = 101).contains("percentage"));
        assert!(refused(&|p| p.load.writes_per_second = 2000).contains("200000"));
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
