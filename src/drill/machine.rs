//! The steps of a drill: what comes after what, and what when one fails. `step(now, Event) -> Order`, pure.
//!
//! Invariant: whatever happens, the last step is [`Step::CleanUp`], which lifts the fault at both sites before it
//! removes the canary. Who dies before it leaves that to each site's own deadline.
use super::ledger::AtRisk;
use super::{Plan, Type};
use serde::{Deserialize, Serialize};

/// One step. Each is performed by `replicator/drill/conduct.rs` and answered with [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Make the canary at both sites, and wait until its links run; live: find the links at both sites.
    Prepare,
    /// Write for a while with nothing wrong.
    Baseline,
    /// Cut the canary's links, both ways or one; site loss: fence writes here too.
    Cut,
    /// Fence writes here.
    Fence,
    /// Wait until all that was acked here is at the peer.
    Drain,
    /// Write, read back, list and delete at the peer, until it is served.
    Takeover,
    /// Find out what the peer lacks of what was acked before the fault.
    Measure,
    /// Let it last.
    Hold,
    /// Fence the peer, drain it, serve here again.
    FailBack,
    /// Lift the fault at both sites.
    Heal,
    /// Wait until nothing is under way, both ways.
    CatchUp,
    /// Compare, both ways.
    Verify,
    /// Lift what is left of the fault, remove the canary, or what the drill wrote, at both sites.
    CleanUp,
}

impl Step {
    /// All of them, in the order in which a switchover would go through them, cuts before fences.
    pub const ALL: [Step; 13] = [
        Step::Prepare,
        Step::Baseline,
        Step::Cut,
        Step::Fence,
        Step::Drain,
        Step::Takeover,
        Step::Measure,
        Step::Hold,
        Step::FailBack,
        Step::Heal,
        Step::CatchUp,
        Step::Verify,
        Step::CleanUp,
    ];

    /// Its place among [`Step::ALL`], from 1 on: what a gauge can show of it.
    pub fn number(self) -> u8 {
        // Declared in the same order; `steps_are_numbered_in_their_order` holds the two together.
        self as u8 + 1
    }

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Step::Prepare => "prepare",
            Step::Baseline => "baseline",
            Step::Cut => "cut",
            Step::Fence => "fence",
            Step::Drain => "drain",
            Step::Takeover => "takeover",
            Step::Measure => "measure",
            Step::Hold => "hold",
            Step::FailBack => "fail back",
            Step::Heal => "heal",
            Step::CatchUp => "catch up",
            Step::Verify => "verify",
            Step::CleanUp => "clean up",
        }
    }
}

/// The steps of a plan. An unplanned one is taken over before anything is counted: nobody waits for figures.
pub fn steps(plan: &Plan) -> &'static [Step] {
    use Step::{
        Baseline, CatchUp, CleanUp, Cut, Drain, FailBack, Fence, Heal, Hold, Measure, Prepare, Takeover, Verify,
    };
    match plan.kind {
        Type::Partition | Type::SiteLoss => {
            &[Prepare, Baseline, Cut, Takeover, Measure, Hold, Heal, CatchUp, Verify, CleanUp]
        }
        Type::Switchover if !plan.fails_back => {
            &[Prepare, Baseline, Fence, Drain, Measure, Takeover, Hold, Heal, CatchUp, Verify, CleanUp]
        }
        Type::Switchover => {
            &[Prepare, Baseline, Fence, Drain, Measure, Takeover, Hold, FailBack, Heal, CatchUp, Verify, CleanUp]
        }
    }
}

/// What a step found out.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Nothing,
    /// The fault took hold at this moment (Unix milliseconds); the lag that was shown just before.
    Fault {
        at: u64,
        shown_lag_millis: Option<u64>,
    },
    AtRisk(AtRisk),
    /// The peer served at this moment.
    Served {
        at: u64,
    },
    /// The fault has lasted; of a cut in one direction: how long the other took, at its end, to bring all there was.
    Held {
        other_way_millis: Option<u64>,
    },
    /// This site served again so long after the peer was fenced.
    ServedHere {
        millis: u64,
    },
    /// What is left of the drill's own objects: retention or legal hold keeps so many versions.
    Left {
        versions: u64,
    },
    /// Differences that stand at the peer and here, and versions compared.
    Compared {
        there: u64,
        here: u64,
        versions: u64,
        conflicts: Option<u64>,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Begin,
    Done(Found),
    Failed(String),
    /// A person wants it to end.
    Abort,
    /// Its time is over.
    Deadline,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Do(Step),
    End,
}

/// A step as it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Went {
    pub step: Step,
    /// Unix milliseconds.
    pub began_at: u64,
    /// Absent: it runs.
    pub ended_at: Option<u64>,
    /// Why it did not come to its end.
    pub failure: Option<String>,
}

/// What was measured; absent: not come to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub fault_at: Option<u64>,
    /// Lag of the canary's link as it was shown just before the fault.
    pub shown_lag_seconds: Option<f64>,
    pub at_risk: Option<AtRisk>,
    /// From the fault to the first write that was served and read back at the peer.
    pub rto_seconds: Option<f64>,
    /// Of a cut in one direction: how long the other one took, while the cut stood, to bring all there was.
    #[serde(default)]
    pub other_way_seconds: Option<f64>,
    /// From the fence at the peer to the first write that was served and read back here.
    pub fail_back_seconds: Option<f64>,
    /// From the end of the fault until nothing was under way, both ways.
    pub catch_up_seconds: Option<f64>,
    /// Versions that differ afterwards, at the peer and here; and how many were compared.
    pub differences_there: Option<u64>,
    pub differences_here: Option<u64>,
    pub versions_compared: Option<u64>,
    /// Of a live drill: pairs of concurrent versions that came to this site since the fault; both are kept.
    #[serde(default)]
    pub conflicts: Option<u64>,
    /// Versions of the drill's own that stay here, hidden by delete markers, for they are guarded.
    #[serde(default)]
    pub left_versions: Option<u64>,
}

/// Why it did not go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    Failed(String),
    Aborted,
    Deadline,
}

/// Where a drill is.
#[derive(Clone, Debug)]
pub struct Machine {
    plan: Plan,
    /// Index of the step under way.
    at: usize,
    pub went: Vec<Went>,
    pub figures: Figures,
    pub stopped: Option<Stopped>,
    healed_at: Option<u64>,
}

impl Machine {
    /// A drill that has not begun.
    pub fn new(plan: Plan) -> Self {
        Machine { plan, at: 0, went: Vec::new(), figures: Figures::default(), stopped: None, healed_at: None }
    }

    /// What to do next. The end is said once, by [`Order::End`].
    pub fn step(&mut self, now: u64, event: Event) -> Order {
        let steps = steps(&self.plan);
        let current = steps[self.at];
        let stopped = match event {
            Event::Begin => return self.begin(now),
            Event::Done(found) => {
                self.end(now, None);
                self.note(now, current, found);
                None
            }
            Event::Failed(why) => {
                self.end(now, Some(why.clone()));
                Some(Stopped::Failed(format!("{}: {why}", current.name())))
            }
            Event::Abort => {
                self.end(now, Some("aborted".into()));
                Some(Stopped::Aborted)
            }
            Event::Deadline => {
                self.end(now, Some("the deadline passed".into()));
                Some(Stopped::Deadline)
            }
        };
        if current == Step::CleanUp {
            self.stopped = self.stopped.take().or(stopped);
            return Order::End;
        }
        self.at = match stopped {
            None => self.at + 1,
            Some(_) => steps.len() - 1,
        };
        self.stopped = self.stopped.take().or(stopped);
        self.begin(now)
    }

    /// The step under way.
    pub fn current(&self) -> Step {
        steps(&self.plan)[self.at]
    }

    fn begin(&mut self, now: u64) -> Order {
        let step = self.current();
        self.went.push(Went { step, began_at: now, ended_at: None, failure: None });
        Order::Do(step)
    }

    fn end(&mut self, now: u64, failure: Option<String>) {
        if let Some(last) = self.went.last_mut() {
            (last.ended_at, last.failure) = (Some(now), failure);
        }
    }

    fn note(&mut self, now: u64, step: Step, found: Found) {
        let figures = &mut self.figures;
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1000.0;
        match found {
            Found::Nothing => {}
            Found::Fault { at, shown_lag_millis } => {
                figures.fault_at = Some(at);
                figures.shown_lag_seconds = shown_lag_millis.map(|ms| ms as f64 / 1000.0);
            }
            Found::AtRisk(at_risk) => figures.at_risk = Some(at_risk),
            Found::Served { at } => figures.rto_seconds = figures.fault_at.map(|fault| seconds(fault, at)),
            Found::Held { other_way_millis } => {
                figures.other_way_seconds = other_way_millis.map(|ms| ms as f64 / 1000.0);
            }
            Found::ServedHere { millis } => figures.fail_back_seconds = Some(millis as f64 / 1000.0),
            Found::Left { versions } => figures.left_versions = Some(versions),
            Found::Compared { there, here, versions, conflicts } => {
                figures.conflicts = conflicts;
                figures.differences_there = Some(there);
                figures.differences_here = Some(here);
                figures.versions_compared = Some(versions);
            }
        }
        match step {
            Step::Heal => self.healed_at = Some(now),
            Step::CatchUp => self.figures.catch_up_seconds = self.healed_at.map(|healed| seconds(healed, now)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::*;

    /// One of each kind, and a switchover that stays.
    fn plans() -> Vec<Plan> {
        let kinds = [Type::Partition, Type::SiteLoss, Type::Switchover];
        let stays = Plan { fails_back: false, ..plan(Type::Switchover) };
        kinds.into_iter().map(plan).chain([stays]).collect()
    }

    /// Goes through with nothing found; what was ordered.
    fn ordered(machine: &mut Machine, mut now: u64) -> Vec<Step> {
        let mut all = Vec::new();
        let mut order = machine.step(now, Event::Begin);
        while let Order::Do(step) = order {
            all.push(step);
            now += 100;
            order = machine.step(now, Event::Done(Found::Nothing));
        }
        all
    }

    #[test]
    fn steps_are_numbered_in_their_order() {
        for (step, number) in Step::ALL.into_iter().zip(1..) {
            assert_eq!(step.number(), number, "{step:?}");
        }
        assert!(plans().iter().flat_map(steps).all(|step| Step::ALL.contains(step)));
    }

    #[test]
    fn every_kind_prepares_first_and_heals_verifies_and_cleans_up_last() {
        for plan in plans() {
            let mut machine = Machine::new(plan.clone());
            let all = ordered(&mut machine, 1000);
            assert_eq!(all, steps(&plan));
            assert_eq!(all.contains(&Step::FailBack), plan.kind == Type::Switchover && plan.fails_back);
            assert_eq!(all[0], Step::Prepare);
            let tail = [Step::Heal, Step::CatchUp, Step::Verify, Step::CleanUp];
            assert_eq!(all[all.len() - 4..], tail, "{plan:?}");
            assert!(machine.went.iter().all(|w| w.ended_at == Some(w.began_at + 100) && w.failure.is_none()));
            assert_eq!(machine.stopped, None);
        }
    }

    #[test]
    fn whatever_fails_the_fault_is_lifted_and_the_canary_removed() {
        let ways = [Event::Failed("no answer".into()), Event::Abort, Event::Deadline];
        for plan in plans() {
            for (at, _) in steps(&plan).iter().enumerate().filter(|(_, s)| **s != Step::CleanUp) {
                for way in &ways {
                    let mut machine = Machine::new(plan.clone());
                    machine.step(0, Event::Begin);
                    (0..at).for_each(|_| _ = machine.step(1, Event::Done(Found::Nothing)));
                    assert_eq!(machine.step(2, way.clone()), Order::Do(Step::CleanUp), "{plan:?} {at}");
                    assert!(machine.went[at].failure.is_some() && machine.stopped.is_some());
                    assert_eq!(machine.step(3, Event::Done(Found::Nothing)), Order::End);
                    assert!(machine.stopped.is_some(), "a clean end does not make it pass");
                }
            }
        }
    }

    #[test]
    fn a_clean_up_that_fails_ends_it_and_is_said_unless_something_failed_before() {
        let mut machine = Machine::new(plan(Type::Partition));
        machine.step(0, Event::Begin);
        machine.step(1, Event::Abort);
        assert_eq!(machine.step(2, Event::Failed("the peer is down".into())), Order::End);
        assert_eq!(machine.stopped, Some(Stopped::Aborted));
        assert_eq!(machine.went.last().unwrap().failure.as_deref(), Some("the peer is down"));
    }

    #[test]
    fn figures_are_taken_from_the_moments_of_the_steps() {
        let mut machine = Machine::new(plan(Type::Partition));
        let mut order = machine.step(0, Event::Begin);
        while let Order::Do(step) = order {
            let (now, found) = match step {
                Step::Cut => (1_000, Found::Fault { at: 990, shown_lag_millis: Some(40) }),
                Step::Takeover => (1_200, Found::Served { at: 1_190 }),
                Step::Measure => (1_300, Found::AtRisk(AtRisk { versions: 2, ..AtRisk::default() })),
                Step::Hold => (30_990, Found::Held { other_way_millis: Some(250) }),
                Step::Heal => (31_000, Found::Nothing),
                Step::CatchUp => (31_700, Found::Nothing),
                Step::Verify => (32_000, Found::Compared { there: 0, here: 1, versions: 9, conflicts: Some(3) }),
                _ => (0, Found::Nothing),
            };
            order = machine.step(now, Event::Done(found));
        }
        let f = &machine.figures;
        assert_eq!((f.fault_at, f.shown_lag_seconds, f.rto_seconds), (Some(990), Some(0.04), Some(0.2)));
        assert_eq!(f.conflicts, Some(3));
        assert_eq!((f.catch_up_seconds, f.differences_there, f.differences_here), (Some(0.7), Some(0), Some(1)));
        assert_eq!((f.at_risk.as_ref().map(|r| r.versions), f.other_way_seconds), (Some(2), Some(0.25)));
    }
}
