//! When the journal is asked: one record outstanding at a time, so that a slow journal makes larger
//! records instead of a queue of them. A failed one is asked for again, unchanged, until it is durable.
//! Called by `machine`.
use super::{Action, Checkpoint, Millis, Record};

/// Pause before a failed record is asked for again: doubles from 100 ms up to 5 s, so that a journal
/// that returns is used within seconds.
const AGAIN_MIN_MS: Millis = 100;
const AGAIN_MAX_MS: Millis = 5_000;

/// The record under way and what the last one said.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    seq: u64,
    outstanding: Option<(u64, Record)>,
    failures: u32,
    again_at: Option<Millis>,
    /// The checkpoint last asked to be recorded.
    last: Checkpoint,
}

impl Recorder {
    /// Goes on from what the journal holds.
    pub(super) fn new(checkpoint: Checkpoint) -> Self {
        Recorder { last: checkpoint, ..Recorder::default() }
    }
    pub(super) fn is_idle(&self) -> bool {
        self.outstanding.is_none()
    }
    /// Whether the journal does not take records: nothing new should be taken in then.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }
    /// When a failed record is due again.
    pub(super) fn again_at(&self) -> Option<Millis> {
        self.again_at
    }
    /// Whether a checkpoint differs from the one last asked for.
    pub(super) fn is_news(&self, checkpoint: &Checkpoint) -> bool {
        let said = |c: &Checkpoint| (c.cursor.clone(), c.floor.clone(), c.reach.clone(), c.brake);
        said(checkpoint) != said(&self.last)
    }

    /// Asks for a new record; only when idle.
    pub(super) fn ask(&mut self, record: Record) -> Action {
        debug_assert!(self.is_idle(), "one record at a time");
        self.seq += 1;
        self.last = record.checkpoint.clone();
        self.outstanding = Some((self.seq, record.clone()));
        Action::Record { seq: self.seq, record }
    }

    /// Asks for a failed record again once its time has come.
    pub(super) fn ask_again(&mut self, now: Millis) -> Option<Action> {
        let (seq, record) = self.outstanding.as_ref()?;
        if self.again_at? > now {
            return None;
        }
        self.again_at = None;
        Some(Action::Record { seq: *seq, record: record.clone() })
    }

    /// The clock went back: a failed record is due no later than the longest pause from now.
    pub(super) fn wait_no_longer(&mut self, now: Millis) {
        self.again_at = self.again_at.map(|at| at.min(now.saturating_add(AGAIN_MAX_MS)));
    }

    pub(super) fn recorded(&mut self, seq: u64) {
        if self.outstanding.as_ref().is_some_and(|(ours, _)| *ours == seq) {
            self.outstanding = None;
            self.again_at = None;
            self.failures = 0;
        }
    }
    pub(super) fn failed(&mut self, now: Millis, seq: u64) {
        if self.outstanding.as_ref().is_some_and(|(ours, _)| *ours == seq) {
            let pause = AGAIN_MIN_MS.saturating_mul(1 << self.failures.min(16)).min(AGAIN_MAX_MS);
            self.failures = self.failures.saturating_add(1);
            self.again_at = Some(now.saturating_add(pause));
        }
    }
}
