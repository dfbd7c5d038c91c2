//! Traced pushes of one link: a span for each attempt, under the span of the wait before it; a later attempt names the
//! first. Of what is not sampled it keeps nothing. Decides nothing; called by the link's loop.
use super::push::Pushed;
use crate::link::{Change, Failure};
use crate::telemetry::metrics::LinkLabels;
use crate::telemetry::trace::span::{self, Way, Work};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use storage_engine::version::VersionId;

/// Sampled versions whose first attempt is remembered; one of those beyond is forgotten, and its later attempts are not
/// traced.
const REMEMBERED_MAX: usize = 1024;

/// A version of the link's bucket.
type Name = (String, VersionId);

/// What is known of versions whose push did not succeed yet.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<BTreeMap<Name, Tried>>);

/// A version that was tried.
#[derive(Clone, Debug)]
struct Tried {
    /// Traceparent of its wait.
    under: String,
    /// Traceparent of its first attempt.
    first: String,
    attempts: u32,
}

/// One attempt under way; dropped, it was cut off.
#[derive(Debug)]
pub(super) struct Attempt {
    of: Arc<Attempts>,
    name: Name,
    tried: Tried,
    work: Option<Work>,
}

impl Attempts {
    /// A change is about to be pushed, at `now` in Unix milliseconds.
    pub(super) fn push(self: &Arc<Self>, labels: &LinkLabels, change: &Change, now: u64) -> Option<Attempt> {
        let cause = change.traceparent.as_deref()?;
        let version = &change.version;
        let way = way(labels, &version.key, version.id);
        // A change comes again from the feed when the peer was away.
        let tried = self.known(&version.key, version.id);
        let under = match &tried {
            Some(tried) => tried.under.clone(),
            None => span::wait(cause, &way, change.pending_since, now)?,
        };
        let bytes = version.birth.as_ref().map_or(0, |b| b.size_bytes);
        self.begin(&way, under, bytes, tried)
    }

    /// The version of a row is about to be pushed again, at `now` in Unix milliseconds; of one that failed before the
    /// process began the journal keeps the trace of its request alone, and since when it waits.
    pub(super) fn again(
        self: &Arc<Self>,
        labels: &LinkLabels,
        (key, version): (&str, VersionId),
        cause: Option<(&str, u64)>,
        now: u64,
    ) -> Option<Attempt> {
        let way = way(labels, key, version);
        let tried = self.known(key, version);
        let under = match &tried {
            Some(tried) => tried.under.clone(),
            None => {
                let (cause, since) = cause?;
                span::wait(cause, &way, since, now)?
            }
        };
        self.begin(&way, under, 0, tried)
    }

    fn begin(self: &Arc<Self>, way: &Way<'_>, under: String, bytes: u64, tried: Option<Tried>) -> Option<Attempt> {
        let attempts = tried.as_ref().map_or(0, |t| t.attempts) + 1;
        let work = span::push(&under, way, bytes, attempts, tried.as_ref().map(|t| t.first.as_str()))?;
        let first = tried.map_or_else(|| work.traceparent(), |t| t.first);
        let tried = Tried { under, first, attempts };
        Some(Attempt { of: self.clone(), name: (way.key.into(), way.version), tried, work: Some(work) })
    }

    fn known(&self, key: &str, version: VersionId) -> Option<Tried> {
        let known = self.0.lock().expect("no panic while held");
        if known.is_empty() { None } else { known.get(&(key.to_owned(), version)).cloned() }
    }
}

impl Attempt {
    /// What the peer continues.
    pub(super) fn traceparent(&self) -> String {
        self.work.as_ref().expect("it ends once, by value").traceparent()
    }

    /// What log lines made during it bear.
    pub(super) fn in_log(&self) -> tracing::Span {
        self.work.as_ref().expect("it ends once, by value").in_log()
    }

    /// Ends with what became of it; the id of its trace where it succeeded.
    pub(super) fn ended(mut self, pushed: &Pushed) -> Option<String> {
        let work = self.work.take().expect("it ends once, by value");
        let (outcome, failure) = match pushed {
            Pushed::Done(outcome) => {
                let trace = work.trace_id();
                work.ended(outcome.word(), None);
                self.of.0.lock().expect("no panic while held").remove(&self.name);
                return Some(trace);
            }
            Pushed::Failed(Failure::Retryable(why)) => ("retryable", why.to_string()),
            Pushed::Failed(Failure::Refused(why)) => ("refused", why.to_string()),
            Pushed::Failed(Failure::ClockAhead { .. }) => {
                ("clock_ahead", "the version is stamped too far ahead for the peer".into())
            }
            Pushed::Failed(Failure::PeerGone) => ("peer_gone", "the peer went away".into()),
            Pushed::Fenced { .. } => ("fenced", "the peer has seen a newer owner of the link".into()),
        };
        work.ended(outcome, Some(failure));
        self.remember();
        None
    }

    fn remember(&self) {
        let mut known = self.of.0.lock().expect("no panic while held");
        if known.len() >= REMEMBERED_MAX && !known.contains_key(&self.name) {
            known.pop_first();
        }
        known.insert(self.name.clone(), self.tried.clone());
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            work.ended("cut", Some("the peer went away, or the link ended".into()));
            self.remember();
        }
    }
}

fn way<'a>(labels: &'a LinkLabels, key: &'a str, version: VersionId) -> Way<'a> {
    Way { rule: &labels.rule, bucket: &labels.bucket, peer: &labels.peer, key, version }
}
