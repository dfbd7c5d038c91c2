//! The loop of one link: wait, `step`, perform. All decisions are the link's (`crate::link`); this
//! file reads the feed, pushes, records, and shows.
use super::ask::Ask;
use super::attempts::{Attempt, Attempts};
use super::far::{Far, FarEnd};
use super::lateness::Lateness;
use super::push::{Pushed, Route, link_name};
use super::remade;
use super::report::{ConditionReport, LinkReport};
use super::survey::{self, Surveyed};
use crate::journal::{self, Journal, LinkId};
use crate::link::{Action, Change, Checkpoint, Event, Failure, Link, Op, Reason, Record, Settings, Survey};
use crate::rule::plan::LinkView;
use crate::store::{self, Backlog, Batch, Cursor, Interest};
use crate::telemetry::metrics::{LinkLabels, Metrics};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::Clock;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::Instrument;

/// Changes read from the feed at once.
pub(super) const BATCH: usize = 256;
/// How often the backlog behind the cursor is asked for while that is cheap: a shown lag is no staler.
const MEASURE_MIN: Duration = Duration::from_millis(100);
/// How often at least, however long the backlog.
const MEASURE_MAX: Duration = Duration::from_millis(500);
/// How often a link is measured that has nothing to do: its feed and its line tell when that changes.
const MEASURE_IDLE: Duration = Duration::from_secs(1);
/// Measuring takes at most one part in so many of the link's time, because the link waits meanwhile.
const MEASURE_SHARE: u32 = 20;
/// What a pass has left is counted at every so manieth measurement: the store walks what it counts.
const COUNT_EXISTING_EVERY: u32 = 20;
/// Pause after the own store or journal gave an error.
const PAUSE: Duration = Duration::from_millis(250);
/// The own store's feed is mended when no read of it failed for so long and what waits in it can be counted.
const FEED_MENDED: Duration = Duration::from_secs(1);
/// Pause after a page could not be compared: it was asked for several times.
const COMPARE_PAUSE: Duration = Duration::from_secs(5);

/// What the replicator tells a running link.
#[derive(Debug)]
pub enum Command {
    Alter(Box<LinkView>),
    Ask(Ask),
    /// Finish what flies, then end; the link goes on from there another time.
    Drain,
    /// The same, and never again: the rule no longer has this link.
    Remove,
}

/// Everything a link's loop works with.
pub struct Run<'a> {
    pub labels: LinkLabels,
    pub route: Arc<Route>,
    pub link: Link,
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
    pub line: Far,
    pub commands: &'a mut mpsc::Receiver<Command>,
    /// The rule as it is now: what the link starts with the next time.
    pub view: &'a mut LinkView,
    pub shown: watch::Sender<LinkReport>,
    /// What does not fit between the two buckets; some of it holds the link.
    pub conditions: watch::Receiver<Vec<ConditionReport>>,
    pub metrics: Arc<Metrics>,
    /// What the rule says now.
    pub settings: Arc<Settings>,
    /// Where the feed is read on.
    pub cursor: Option<Cursor>,
}

/// Why a link's loop ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// A person or a rule ended it.
    Drained,
    /// Drained, and the rule no longer has it.
    Removed,
    /// Drained, so that another process may have the link.
    CalledBack,
    /// The bucket is gone, or another one stands under its name.
    BucketGone,
    /// The claim on the link is over: nothing more may be sent or written.
    Lost,
    /// Another owner of the link was seen, under this epoch.
    Fenced { highest: u64 },
}

/// A push that ended.
struct Landed {
    id: u64,
    pushed: Pushed,
    what: Brought,
}

/// What a push brought: its newest change, and its trace where it is sampled and succeeded.
#[derive(Debug, Default)]
struct Brought {
    op: Option<Op>,
    trace: Option<String>,
}

type Flight = BoxFuture<'static, Landed>;
type Recording = BoxFuture<'static, (u64, Result<Checkpoint, journal::Error>)>;

/// What is under way between two steps.
#[derive(Default)]
struct Busy {
    reading: Option<BoxFuture<'static, Result<Batch, store::Error>>>,
    flights: FuturesUnordered<Flight>,
    recording: Option<Recording>,
    /// The pass over existing versions: where it reads on, and the read under way.
    survey: Option<Survey>,
    surveying: Option<BoxFuture<'static, Result<Surveyed, survey::Error>>>,
    /// Why the pass cannot go on.
    survey_trouble: Option<String>,
    /// The versions of the bucket are being counted, for the brake.
    counting: Option<BoxFuture<'static, u64>>,
    /// Versions done since the link runs, and which of those that came are late.
    done: u64,
    /// Sampled pushes.
    attempts: Arc<Attempts>,
    /// Of the push that just succeeded.
    brought: Brought,
    lateness: Lateness,
    /// Nothing waits, and the feed is listened to.
    is_idle: bool,
    /// Measurements until what is left of the pass is counted.
    uncounted: u32,
    /// Where the feed is read on.
    cursor: Option<Cursor>,
    intake: bool,
    wake_at: Option<u64>,
    stopped: bool,
    /// Why the own store gave no batch of its feed, and when that was.
    feed_trouble: Option<(String, Instant)>,
    /// The bucket was not there any more when it was looked at.
    is_bucket_gone: bool,
    /// Why the journal took no checkpoint the last time.
    journal_trouble: Option<String>,
    /// Draining, and what it ends as.
    after: Option<Ended>,
    /// Nobody is left who could command the link.
    is_abandoned: bool,
}

impl Run<'_> {
    /// Runs until drained or fenced. Cancel-safe: what was in flight is sent again after a restart.
    pub async fn run(mut self) -> Ended {
        let mut busy = Busy { cursor: self.cursor.take(), ..Busy::default() };
        let mut measure_at = Instant::now();
        let up = self.line.borrow_and_update().is_some();
        self.step(&mut busy, if up { Event::PeerUp } else { Event::PeerDown });
        if self.conditions.borrow_and_update().iter().any(|c| c.holds) {
            let held = self.altered();
            self.step(&mut busy, held);
        }
        let mut covered = self.route.covered.subscribe();
        let ended = loop {
            if busy.is_bucket_gone {
                break busy.after.unwrap_or(Ended::BucketGone);
            }
            if busy.stopped {
                break busy.after.unwrap_or(Ended::Drained);
            }
            self.read_on(&mut busy);
            let lease = self.route.lease.clone();
            let event = tokio::select! {
                () = lease.lost() => {
                    tracing::warn!(peer = %self.labels.peer, rule = %self.labels.rule, "The claim on the link is over; its pushes stop.");
                    break Ended::Lost;
                }
                () = lease.called_back(), if busy.after.is_none() => {
                    busy.after = Some(Ended::CalledBack);
                    Event::Drain
                }
                Some(Landed { id, pushed, what }) = busy.flights.next(), if !busy.flights.is_empty() => match pushed {
                    Pushed::Done(outcome) => { busy.brought = what; Event::Pushed { id, outcome } }
                    Pushed::Failed(failure) => { self.count_failure(&failure); Event::PushFailed { id, failure } }
                    Pushed::Fenced { highest } => {
                        tracing::warn!(peer = %self.labels.peer, rule = %self.labels.rule, highest, "The peer has seen a newer owner of this link.");
                        break Ended::Fenced { highest };
                    }
                },
                (seq, result) = wait(&mut busy.recording) => {
                    busy.recording = None;
                    match result {
                        Ok(checkpoint) => {
                            busy.journal_trouble = None;
                            Box::pin(self.commit(checkpoint)).await;
                            Event::Recorded { seq }
                        }
                        Err(journal::Error::Fenced { current, .. }) => break Ended::Fenced { highest: current },
                        Err(e) => {
                            tracing::warn!(peer = %self.labels.peer, rule = %self.labels.rule, error = %e, "The journal did not take a checkpoint; intake waits.");
                            busy.journal_trouble = Some(e.to_string());
                            Event::RecordFailed { seq }
                        }
                    }
                },
                read = wait(&mut busy.reading) => {
                    busy.reading = None;
                    match read {
                        Err(store::Error::NoSuchBucket(_)) => {
                            busy.is_bucket_gone = true;
                            continue;
                        }
                        Ok(batch) => {
                            busy.feed_trouble = None;
                            busy.cursor = Some(batch.cursor.clone());
                            Event::Changed { changes: changes(batch.events), cursor: batch.cursor }
                        }
                        Err(e) => {
                            busy.feed_trouble = Some((e.to_string(), Instant::now()));
                            Box::pin(self.stalls(e)).await
                        }
                    }
                },
                read = wait(&mut busy.surveying) => {
                    busy.surveying = None;
                    match (read, &mut busy.survey) {
                        (Ok(Surveyed { changes, cursor, is_last }), Some(survey)) => {
                            survey.cursor = Some(cursor.clone());
                            busy.survey_trouble = None;
                            Event::Existing { changes, cursor, is_last }
                        }
                        (Ok(_), None) => Event::Tick,
                        (Err(survey::Error::Store(store::Error::NoSuchBucket(_))), _) => {
                            busy.is_bucket_gone = true;
                            continue;
                        }
                        (Err(survey::Error::Store(e)), _) => Box::pin(self.stalls(e)).await,
                        (Err(e), survey) => {
                            tracing::warn!(peer = %self.labels.peer, rule = %self.labels.rule, error = %e, "A page of keys is compared again.");
                            busy.survey_trouble = Some(e.to_string());
                            busy.surveying = survey.clone().map(|survey| self.survey(survey, COMPARE_PAUSE));
                            Event::Tick
                        }
                    }
                },
                versions = wait(&mut busy.counting) => {
                    busy.counting = None;
                    Event::Counted { versions }
                }
                changed = self.line.changed() => {
                    if changed.is_err() { break Ended::Drained; }
                    busy.flights = FuturesUnordered::new();
                    if self.line.borrow_and_update().is_some() { Event::PeerUp } else { Event::PeerDown }
                },
                Ok(()) = self.conditions.changed() => self.altered(),
                Ok(()) = covered.changed() => {
                    if let (Some(scope), Some(_)) = (covered.borrow_and_update().clone(), self.link.remade()) {
                        self.step(&mut busy, Event::Covered { scope });
                    }
                    self.altered()
                }
                command = self.commands.recv(), if !busy.is_abandoned => match command {
                    Some(Command::Alter(view)) => {
                        *self.view = *view;
                        self.altered()
                    }
                    Some(Command::Ask(ask)) => ask.answer(&self.link, self.clock.now_millis()),
                    Some(Command::Drain) => {
                        busy.after = Some(Ended::Drained);
                        Event::Drain
                    }
                    // Asked again it would say so at once, for as long as the drain takes.
                    None => {
                        busy.is_abandoned = true;
                        busy.after.get_or_insert(Ended::Drained);
                        Event::Drain
                    }
                    Some(Command::Remove) => {
                        busy.after = Some(Ended::Removed);
                        Event::Drain
                    }
                },
                () = until(&*self.clock, busy.wake_at) => { busy.wake_at = None; Event::Tick },
                () = self.route.measure.notified() => {
                    measure_at = Instant::now();
                    continue;
                }
                () = tokio::time::sleep_until(measure_at) => {
                    let began = Instant::now();
                    Box::pin(self.show(&mut busy)).await;
                    let pause = if busy.is_idle { MEASURE_IDLE } else { pause_after(began.elapsed()) };
                    measure_at = Instant::now() + pause;
                    Event::Tick
                }
            };
            if event != Event::Tick && std::mem::take(&mut busy.is_idle) {
                measure_at = measure_at.min(Instant::now() + MEASURE_MIN);
            }
            self.step(&mut busy, event);
        };
        self.metrics.stop_link(&self.labels);
        ended
    }

    /// The settings that hold now: of the rule, and suspended while the buckets do not fit each other.
    fn altered(&mut self) -> Event {
        let mut settings = remade::settings(self.view, self.link.remade());
        settings.suspend |= self.conditions.borrow().iter().any(|c| c.holds);
        self.settings = Arc::new(settings.clone());
        Event::RuleAltered(settings)
    }

    fn step(&mut self, busy: &mut Busy, event: Event) {
        for action in self.link.step(self.clock.now_millis(), event) {
            self.perform(busy, action);
        }
        busy.brought = Brought::default();
        let held = self.link.held();
        self.route.held.send_if_modified(|was| std::mem::replace(was, held) != held);
    }

    fn perform(&self, busy: &mut Busy, action: Action) {
        match action {
            Action::Push { id, change } => {
                let (route, settings, line) = self.way();
                let attempt = busy.attempts.push(&self.labels, &change, self.clock.now_millis());
                busy.flights.push(Box::pin(async move {
                    let Some(line) = line else { return landed(id, gone(), None, None) };
                    let traceparent = attempt.as_ref().map(Attempt::traceparent).or_else(|| change.traceparent.clone());
                    let pushing = line.push(&route, &settings, &change.version, traceparent);
                    let pushed = pushing.instrument(in_log(&attempt)).await;
                    landed(id, pushed, Some(Op::of(&change.version)), attempt)
                }));
            }
            Action::PushRow { id, key, version_id, pending_since, traceparent } => {
                let (route, settings, line) = self.way();
                let cause = traceparent.as_deref().map(|cause| (cause, pending_since));
                let now = self.clock.now_millis();
                let attempt = busy.attempts.again(&self.labels, (&key, version_id), cause, now);
                busy.flights.push(Box::pin(async move {
                    let Some(line) = line else { return landed(id, gone(), None, None) };
                    let traceparent = attempt.as_ref().map(Attempt::traceparent).or(traceparent);
                    let pushing = async {
                        let version = match route.current(&key, version_id).await {
                            Ok(version) => version,
                            Err(pushed) => return (pushed, None),
                        };
                        let pushed = line.push_current(&route, &settings, &version, traceparent).await;
                        (pushed, Some(Op::of(&version)))
                    };
                    let (pushed, op) = pushing.instrument(in_log(&attempt)).await;
                    landed(id, pushed, op, attempt)
                }));
            }
            Action::Done { outcome, pending_since, bytes } => {
                let waited_ms = self.clock.now_millis().saturating_sub(pending_since);
                busy.done += 1;
                busy.lateness.acked(waited_ms);
                let Brought { op, trace } = std::mem::take(&mut busy.brought);
                let seconds = waited_ms as f64 / 1000.0;
                self.metrics.done(&self.labels, (op.unwrap_or(Op::Put), outcome), seconds, bytes, trace);
            }
            Action::Record { seq, record } => busy.recording = Some(self.record(seq, record)),
            Action::WakeAt(at) => busy.wake_at = Some(busy.wake_at.map_or(at, |old| old.min(at))),
            Action::Intake(on) => {
                busy.intake = on;
                if !on {
                    busy.reading = None;
                }
            }
            Action::Rewind(cursor) => {
                busy.reading = None;
                busy.cursor = cursor;
            }
            Action::Existing(survey) => {
                (busy.surveying, busy.survey_trouble) = (None, None);
                busy.survey = survey;
            }
            Action::Count => busy.counting = Some(self.count()),
            Action::Stop => busy.stopped = true,
        }
    }

    fn way(&self) -> (Arc<Route>, Arc<Settings>, Option<FarEnd>) {
        (self.route.clone(), self.settings.clone(), self.line.borrow().clone())
    }

    /// The own store did not give a batch: a pause, then the same read again; or it lost the place.
    async fn stalls(&self, e: store::Error) -> Event {
        if matches!(e, store::Error::Expired)
            && let Ok(head) = self.route.store.head(&self.route.bucket).await
        {
            tracing::warn!(peer = %self.labels.peer, rule = %self.labels.rule, bucket = %self.route.bucket, "The own store does not know the link's place in its feed any more; everything is compared with the peer.");
            return Event::Expired { head };
        }
        tracing::warn!(bucket = %self.route.bucket, error = %e, "The own store's feed stalls.");
        tokio::time::sleep(PAUSE).await;
        Event::Tick
    }

    fn read_on(&self, busy: &mut Busy) {
        if busy.intake && busy.reading.is_none() {
            let (route, cursor) = (self.route.clone(), busy.cursor.clone());
            busy.reading = Some(Box::pin(async move { route.changes(cursor.as_ref(), BATCH).await }));
        }
        if let (Some(survey), None) = (&busy.survey, &busy.surveying) {
            busy.surveying = Some(self.survey(survey.clone(), Duration::ZERO));
        }
    }

    /// Versions in the bucket, about; a store that does not answer is asked again.
    fn count(&self) -> BoxFuture<'static, u64> {
        let route = self.route.clone();
        Box::pin(async move {
            loop {
                match route.store.backlog(&route.bucket, None, &Interest::default()).await {
                    Ok(all) => return all.versions,
                    Err(e) => {
                        tracing::warn!(bucket = %route.bucket, error = %e, "The bucket cannot be counted; deletes wait for it.");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        })
    }

    fn survey(&self, survey: Survey, after: Duration) -> BoxFuture<'static, Result<Surveyed, survey::Error>> {
        let (route, settings, _) = self.way();
        let (line, since) = (self.line.clone(), self.link.shown(self.clock.now_millis()).copies_since);
        Box::pin(async move {
            tokio::time::sleep(after).await;
            survey::read(route, settings, line, since, survey).await
        })
    }

    fn record(&self, seq: u64, record: Record) -> Recording {
        let (journal, id, epoch) = (self.journal.clone(), self.route.id.clone(), self.route.lease.epoch);
        let metrics = self.metrics.clone();
        Box::pin(async move {
            let began = Instant::now();
            let result = journal.record(&id, epoch, &record).await;
            if result.is_ok() {
                metrics.journal_commit.observe(began.elapsed().as_secs_f64());
            }
            (seq, result.map(|()| record.checkpoint))
        })
    }

    /// Tells the store what it need not keep for this link any more; a failure only keeps more.
    async fn commit(&self, checkpoint: Checkpoint) {
        let (Some(cursor), Some(floor)) = (checkpoint.cursor, checkpoint.floor) else { return };
        let consumer = consumer_name(&self.route.id);
        if let Err(e) = self.route.store.commit(&self.route.bucket, &consumer, &cursor, &floor).await {
            tracing::debug!(bucket = %self.route.bucket, error = %e, "The store did not take the floor; it comes again.");
        }
    }

    /// One snapshot: what the link knows and what waits in the feed behind its cursor.
    async fn show(&mut self, busy: &mut Busy) {
        let now = self.clock.now_millis();
        // Whoever waits for changes is told when the bucket goes.
        if busy.reading.is_none() {
            busy.is_bucket_gone = matches!(self.route.look().await, Err(store::Error::NoSuchBucket(_)));
        }
        let behind =
            match self.route.store.backlog(&self.route.bucket, busy.cursor.as_ref(), &self.settings.interest()).await {
                Ok(behind) => Some(behind),
                Err(e) => {
                    tracing::debug!(bucket = %self.route.bucket, error = %e, "The backlog cannot be counted now.");
                    None
                }
            };
        // A read that stands would have failed by now.
        busy.feed_trouble.take_if(|(_, at)| behind.is_some() && at.elapsed() > FEED_MENDED);
        if behind.is_some_and(|b| b.versions == 0) {
            self.step(busy, Event::CaughtUp);
        }
        let existing = self.existing(busy, behind).await;
        let shown = self.link.shown(now);
        let left = remade::condition(&self.view.rule, self.link.remade(), shown.copies_since);
        let mut report = LinkReport::new(&self.labels, now, shown, behind, existing);
        report.conditions.extend(left);
        let feed_trouble = busy.feed_trouble.as_ref().map(|(why, _)| format!("the own store's feed stalls: {why}"));
        report.feed_stalls = behind.is_none() || feed_trouble.is_some();
        let trouble = busy.journal_trouble.clone().or(busy.survey_trouble.clone()).or(feed_trouble);
        report.last_error = trouble.or(report.last_error);
        report.measure(&self.labels, &self.metrics);
        busy.is_idle =
            report.backlog_versions == Some(0) && report.existing_versions == Some(0) && busy.reading.is_some();
        if let Some(pending) = report.backlog_versions {
            self.metrics.late(&self.labels, busy.lateness.measured(now, busy.done, pending));
        }
        report.judged = busy.lateness.judged();
        self.metrics.throttled(&self.labels, self.route.toll.waited_seconds());
        self.shown.send_replace(report);
    }

    /// What the pass over existing versions has not read yet; nothing without one, `None` where it cannot be known, as
    /// long as it compares with the peer.
    async fn existing(&mut self, busy: &mut Busy, behind: Option<Backlog>) -> Option<Backlog> {
        let Some(survey) = self.link.survey() else {
            busy.uncounted = 0;
            return Some(Backlog::default());
        };
        if survey.compares {
            // What differs is known once it was looked at.
            return None;
        }
        if busy.uncounted > 0 {
            busy.uncounted -= 1;
            let last = self.shown.borrow().existing_unread;
            return last.map(|versions| Backlog { versions, ..Backlog::default() });
        }
        busy.uncounted = COUNT_EXISTING_EVERY;
        let cursor = survey.cursor.as_ref();
        let all = self.route.store.backlog(&self.route.bucket, cursor, &self.settings.interest()).await.ok()?;
        if all.versions == 0 && busy.survey.is_some() {
            // Nothing of it lies behind the pass, though the feed has nothing that would show it.
            busy.surveying = None;
            let cursor = survey.until;
            self.step(busy, Event::Existing { changes: Vec::new(), cursor, is_last: true });
        }
        let live = behind?;
        let oldest_pending_since = (all.versions > live.versions).then_some(all.oldest_pending_since).flatten();
        let (versions, bytes) = (all.versions.saturating_sub(live.versions), all.bytes.saturating_sub(live.bytes));
        Some(Backlog { versions, bytes, oldest_pending_since })
    }

    fn count_failure(&self, failure: &Failure) {
        let reason = match failure {
            Failure::Retryable(why) | Failure::Refused(why) => why.reason,
            Failure::ClockAhead { .. } => Reason::ClockAhead,
            Failure::PeerGone => return,
        };
        self.metrics.failed(&self.labels, reason);
    }
}

pub(super) fn changes(events: Vec<storage_engine::feed::Event>) -> Vec<Change> {
    let change = |e: storage_engine::feed::Event| Change {
        version: Arc::new(e.version),
        pending_since: e.pending_since,
        traceparent: e.traceparent,
    };
    events.into_iter().map(change).collect()
}

/// The name under which a link is registered with its store.
pub fn consumer_name(id: &LinkId) -> String {
    format!("{}/{}", link_name(id), id.peer)
}

/// How long to wait after a measurement that took so long.
fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(MEASURE_SHARE).clamp(MEASURE_MIN, MEASURE_MAX)
}

/// What log lines made during a push bear: nothing where it is not traced.
fn in_log(attempt: &Option<Attempt>) -> tracing::Span {
    attempt.as_ref().map_or_else(tracing::Span::none, Attempt::in_log)
}

fn landed(id: u64, pushed: Pushed, op: Option<Op>, attempt: Option<Attempt>) -> Landed {
    let trace = attempt.and_then(|attempt| attempt.ended(&pushed));
    Landed { id, pushed, what: Brought { op, trace } }
}

fn gone() -> Pushed {
    Pushed::Failed(Failure::PeerGone)
}

async fn wait<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(clock: &dyn Clock, at: Option<u64>) {
    match at {
        Some(at) => tokio::time::sleep(Duration::from_millis(at.saturating_sub(clock.now_millis()))).await,
        None => std::future::pending().await,
    }
}
