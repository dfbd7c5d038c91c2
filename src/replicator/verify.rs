//! `verify RULE [--repair]`: proves that a rule's peers hold what this site has to bring, names what they
//! lack, and sends it again where asked to.
//!
//! Differences are looked at twice, the second time when the link has caught up with the first look; only what
//! differs in the same state both times stands, and nothing while the link may still carry it. It never changes
//! this site, and sends under the link's own claim, a few versions at a time. `proof.rs` does the same slowly, for ever.
mod content;

use super::far::Far;
use super::push::{Pushed, Route};
use super::reconcile::{Error, Page, Sides};
use super::report::{ConditionReport, LinkReport};
use super::toll::Allowance;
use crate::link::project::Projection;
use crate::link::reconcile::Difference;
use crate::link::{Failure, Outcome, Settings, is_delete, weight_of};
use crate::store::Store;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage_engine::clock::Clock;
use storage_engine::version::VersionId;
use tokio::sync::watch;

/// Pages compared at once: hides the round trip; one page is read while another's answer is under way.
const PAGES_AT_ONCE: usize = 4;
/// Versions sent again at once: few, so that what changes now is not held up.
const REPAIRS_AT_ONCE: usize = 8;
/// How long a second look waits for the link to catch up with the first.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// How long a link that is just starting is waited for.
const START_MAX: Duration = Duration::from_secs(5);
/// A version is stamped when its write begins and waits since that is committed; a Complete of many parts takes a while.
const STAMPED_BEFORE_MS: u64 = 10_000;
/// Differences named; all are counted.
const SAMPLES: usize = 20;

/// What one link's comparison works with.
pub struct Verify {
    pub settings: Settings,
    pub peer: String,
    /// Bucket here and there.
    pub bucket: String,
    pub peer_bucket: String,
    pub store: Arc<dyn Store>,
    pub line: Far,
    pub route: watch::Receiver<Option<Arc<Route>>>,
    pub shown: watch::Receiver<LinkReport>,
    /// What does not fit between the two buckets.
    pub conditions: watch::Receiver<Vec<ConditionReport>>,
    pub clock: Arc<dyn Clock>,
    pub repair: bool,
    /// Looks too at versions that the rule leaves where they are, for they are older than it.
    pub existing: bool,
    /// Reads and compares the bytes too, of versions that are alike by their records.
    pub content: bool,
    /// What it may send a second; `None`: the limits of its link are all.
    pub allowance: Option<Arc<Allowance>>,
    /// While true it waits, between two pages or two versions; `None`: nobody pauses it.
    pub pause: Option<watch::Receiver<bool>>,
    /// Whether the rule brings documents of the bucket (`bucket.rs`).
    pub documents: bool,
}

/// What a comparison of a rule found, or has found so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    pub rule: String,
    pub repair: bool,
    /// It looks too at versions that the rule leaves where they are.
    #[serde(default)]
    pub existing: bool,
    /// One a peer.
    pub links: Vec<LinkVerify>,
}

/// One link's comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkVerify {
    pub peer: String,
    pub bucket: String,
    /// running; equal; repaired; behind (all that differs is under way); different; unknown.
    pub verdict: String,
    /// Versions of this site compared.
    pub versions: u64,
    /// Not at the peer.
    pub missing_there: u64,
    /// At both, in another state.
    pub unlike: u64,
    /// At the peer, and brought from here once, but not here.
    pub missing_here: u64,
    /// Under way on the link.
    pub pending: u64,
    /// Versions whose bytes were read at both ends and compared, and how many bytes that were at each.
    #[serde(default)]
    pub contents: u64,
    #[serde(default)]
    pub content_bytes: u64,
    /// Sent again and taken by the peer.
    pub repaired: u64,
    /// Sent again, and the peer held all of it.
    pub covered: u64,
    /// The first few differences that stand.
    pub samples: Vec<Sample>,
    /// Bytes and number of questions and answers; versions sent again are not among them.
    pub wire_bytes: u64,
    pub questions: u64,
    pub seconds: f64,
    /// Why nothing may be sent on the link now; nothing was sent again since.
    #[serde(default)]
    pub held: Option<String>,
    /// Why there is no verdict.
    pub error: Option<String>,
}

/// One difference that stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// missing_there, unlike, missing_here.
    pub kind: String,
    pub key: String,
    pub version_id: String,
    /// Why it could not be repaired.
    pub reason: Option<String>,
}

impl VerifyReport {
    /// The report before anything is known.
    pub fn begun(rule: &str, repair: bool, links: &[Verify]) -> Self {
        let begun = |link: &Verify| LinkVerify {
            peer: link.peer.clone(),
            bucket: link.bucket.clone(),
            verdict: "running".into(),
            ..LinkVerify::default()
        };
        let existing = links.iter().any(|link| link.existing);
        VerifyReport { rule: rule.into(), repair, existing, links: links.iter().map(begun).collect() }
    }
    /// Whether some link has no verdict yet.
    pub fn is_running(&self) -> bool {
        self.links.iter().any(|link| link.verdict == "running")
    }
}

impl LinkVerify {
    /// Differences that stand.
    pub fn differences(&self) -> u64 {
        self.missing_there + self.unlike + self.missing_here
    }

    fn conclude(&mut self, ended: Result<(), Error>) {
        self.error = ended.err().map(|err| err.to_string());
        let verdict = match (&self.error, self.differences(), self.pending, self.repaired) {
            (Some(_), ..) => "unknown",
            (None, 1.., ..) => "different",
            (None, 0, 1.., _) => "behind",
            (None, 0, 0, 1..) => "repaired",
            (None, 0, 0, 0) => "equal",
        };
        self.verdict = verdict.into();
    }

    fn note(&mut self, difference: &Difference, reason: Option<String>) {
        let (kind, count) = match difference {
            Difference::OnlyHere { .. } => ("missing_there", &mut self.missing_there),
            Difference::Unlike { .. } => ("unlike", &mut self.unlike),
            Difference::OnlyThere { .. } => ("missing_here", &mut self.missing_here),
        };
        *count += 1;
        if self.samples.len() < SAMPLES {
            let (key, id) = difference.place();
            self.samples.push(Sample { kind: kind.into(), key: key.into(), version_id: id.to_string(), reason });
        }
    }
}

/// What became of one difference.
pub(super) enum Fate {
    Stands(Difference, Option<String>),
    /// Under way, or held back.
    Pending(Difference),
    Repaired(Difference),
    /// It is none: gone here meanwhile, or the peer holds all of it, or another site brings what overwrote it here.
    Covered,
}

impl Fate {
    /// Key and id of a version that differs by its record.
    fn place(&self) -> Option<(String, VersionId)> {
        let (Fate::Stands(difference, _) | Fate::Pending(difference)) = self else { return None };
        let (key, id) = difference.place();
        Some((key.into(), id))
    }
}

/// Changes the report of one link as it is shown.
type Update<'a> = dyn Fn(&mut dyn FnMut(&mut LinkVerify)) + Sync + 'a;

/// Compares link after link and shows how far it is. Cancel-safe: what was sent again stays sent.
pub async fn run(links: Vec<Verify>, show: watch::Sender<VerifyReport>) {
    for (at, link) in links.into_iter().enumerate() {
        let began = link.clock.now_millis();
        let update = |change: &mut dyn FnMut(&mut LinkVerify)| show.send_modify(|report| change(&mut report.links[at]));
        let started = link.pushed_here().await;
        let sides = link.sides();
        let ended = match started {
            Ok(()) => link.compare(&sides, &update).await,
            Err(elsewhere) => Err(elsewhere),
        };
        let mut ended = Some(ended);
        update(&mut |report| {
            count(report, &sides, link.clock.now_millis().saturating_sub(began));
            report.held = link.held();
            if let Some(ended) = ended.take() {
                report.conclude(ended);
            }
            // What the peer holds besides is no matter: a former bucket of the name may have left it there.
            let lacks = report.missing_there + report.unlike + report.pending;
            if link.repair && link.existing && report.error.is_none() && lacks == 0 {
                link.tell_covered();
            }
            tracing::info!(
                peer = report.peer,
                bucket = report.bucket,
                verdict = report.verdict,
                versions = report.versions,
                differences = report.differences(),
                repaired = report.repaired,
                error = report.error,
                "Compared what the peer holds."
            );
        });
    }
}

fn count(report: &mut LinkVerify, sides: &Sides, millis: u64) {
    report.wire_bytes = sides.wire_bytes.load(Ordering::Relaxed);
    report.questions = sides.questions.load(Ordering::Relaxed);
    report.seconds = millis as f64 / 1000.0;
}

impl Verify {
    /// Both sides, as the link sees them now.
    pub(super) fn sides(&self) -> Sides {
        let since = if self.existing { None } else { self.shown.borrow().copies_since };
        Sides {
            store: self.store.clone(),
            bucket: self.bucket.clone(),
            peer_bucket: self.peer_bucket.clone(),
            projection: Arc::new(Projection { since, ..Projection::of(&self.settings) }),
            line: self.line.clone(),
            lease: self.route.borrow().as_ref().map(|route| route.lease.clone()),
            wire_bytes: 0.into(),
            questions: 0.into(),
        }
    }

    /// The link need not bring what was found, or made, to be at the peer whatever its age.
    fn tell_covered(&self) {
        if let Some(route) = self.route.borrow().as_ref() {
            route.covered.send_replace(Some(self.settings.scope()));
        }
    }

    /// Whether this process pushes the link, its peer answers, and no old change is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.line.borrow().is_some() && self.shown.borrow().state == "live"
    }

    /// Waits for a link that is starting.
    async fn pushed_here(&self) -> Result<(), Error> {
        let mut shown = self.shown.clone();
        let is_pushed = |report: &LinkReport| report.is_pushed_here();
        if matches!(tokio::time::timeout(START_MAX, shown.wait_for(is_pushed)).await, Ok(Ok(_))) {
            return Ok(());
        }
        let report = self.shown.borrow().clone();
        Err(Error::NotPushedHere(report.owner.or(report.last_error).unwrap_or(report.state)))
    }

    async fn compare(&self, sides: &Sides, update: &Update<'_>) -> Result<(), Error> {
        let began = self.clock.now_millis();
        let compared = sides.pages().map(|page| async move {
            let page = page?;
            self.go_on().await;
            let versions = page.items.len() as u64;
            let read = if self.content { page.items.clone() } else { Vec::new() };
            Ok::<_, Error>((versions, read, self.settle(sides, page).await?))
        });
        let mut compared = std::pin::pin!(compared.buffer_unordered(PAGES_AT_ONCE));
        while let Some(page) = compared.next().await {
            let (versions, read, mut fates) = page?;
            let differ = fates.iter().filter_map(Fate::place).collect();
            // One page after the other: what is read at once is bounded.
            let bytes = self.bytes_of(sides, read, &differ).await?;
            update(&mut |report| {
                report.versions += versions;
                report.contents += bytes.versions;
                report.content_bytes += bytes.read;
                bytes.unlike.iter().for_each(|(difference, why)| report.note(difference, Some(why.clone())));
                count(report, sides, self.clock.now_millis().saturating_sub(began));
                for fate in fates.drain(..) {
                    match fate {
                        Fate::Stands(difference, reason) => report.note(&difference, reason),
                        Fate::Pending(_) => report.pending += 1,
                        Fate::Repaired(_) => report.repaired += 1,
                        Fate::Covered => report.covered += 1,
                    }
                }
            });
        }
        Ok(())
    }

    /// Compares a page, twice where it differs, and repairs what still does.
    pub(super) async fn settle(&self, sides: &Sides, page: Page) -> Result<Vec<Fate>, Error> {
        let range = page.range.clone();
        let first: BTreeSet<_> = sides.compare(page).await?.into_iter().collect();
        if first.is_empty() {
            return Ok(Vec::new());
        }
        let has_caught_up = self.caught_up().await;
        let second = sides.compare(sides.read(range).await?).await?;
        // What has changed here meanwhile differs in another state: it is under way.
        let both = second.into_iter().filter(|difference| first.contains(difference));
        let judge = |difference| self.judge(difference, has_caught_up);
        let fates = futures::stream::iter(both).map(judge).buffered(REPAIRS_AT_ONCE);
        let fates: Vec<_> = fates.collect().await;
        fates.into_iter().collect()
    }

    /// Waits while it is paused.
    async fn go_on(&self) {
        if let Some(pause) = &self.pause {
            // Who paused it and is gone has ended it.
            let _ = pause.clone().wait_for(|is_paused| !is_paused).await;
        }
    }

    /// Waits for a while until the link has brought what was committed before now; whether it has.
    async fn caught_up(&self) -> bool {
        let now = self.clock.now_millis();
        let mut shown = self.shown.clone();
        if let Some(route) = self.route.borrow().as_ref() {
            route.measure.notify_one();
        }
        let has_caught_up =
            |report: &LinkReport| report.measured_at > now && report.oldest_pending.is_none_or(|at| at > now);
        matches!(tokio::time::timeout(SETTLE_MAX, shown.wait_for(has_caught_up)).await, Ok(Ok(_)))
    }

    /// Whether what differs is that a version is gone here.
    pub(super) async fn is_purged(&self, difference: &Difference) -> Result<bool, Error> {
        let (key, id) = difference.place();
        Ok(self.store.stat(&self.bucket, key, id).await?.is_some_and(|version| version.purged().is_some()))
    }

    async fn judge(&self, difference: Difference, has_caught_up: bool) -> Result<Fate, Error> {
        let (key, id) = difference.place();
        let held = self.store.stat(&self.bucket, key, id).await?;
        if let Difference::OnlyThere { is_gone, .. } = &difference {
            let rule = Projection::of(&self.settings);
            let is_overwritten = !is_gone && held.is_some_and(|version| rule.is_overwritten(&version));
            return Ok(if is_overwritten { Fate::Covered } else { Fate::Stands(difference, None) });
        }
        let Some(version) = held else { return Ok(Fate::Covered) };
        let oldest_pending = self.shown.borrow().oldest_pending;
        let is_braked = self.route.borrow().as_ref().is_some_and(|route| route.held.borrow().deletes);
        // Of a relay's versions nobody can say when they came here.
        let stamped = version.max_hlc().millis().saturating_add(STAMPED_BEFORE_MS);
        let may_wait = self.settings.forward_all || oldest_pending.is_none_or(|at| stamped >= at);
        if !has_caught_up && may_wait || is_braked && self.held().is_none() && is_delete(&version) {
            return Ok(Fate::Pending(difference));
        }
        if !self.repair {
            return Ok(Fate::Stands(difference, None));
        }
        self.go_on().await;
        if let Some(allowance) = &self.allowance {
            allowance.pass(weight_of(&version)).await;
        }
        let pushed = self.push(key, id).await;
        Ok(match pushed {
            Ok(Outcome::Applied) => Fate::Repaired(difference),
            Ok(Outcome::AlreadyPresent | Outcome::Superseded) => Fate::Covered,
            Err(reason) => Fate::Stands(difference, Some(reason)),
        })
    }

    /// Why the link's loop sends nothing now, as a person can mend it; `None`: it sends, or is not pushed here.
    fn held(&self) -> Option<String> {
        if !self.route.borrow().as_ref()?.held.borrow().all {
            return None;
        }
        let holding = self.conditions.borrow().iter().find(|c| c.holds).map(|c| format!("{}: {}", c.reason, c.message));
        let suspended =
            "the link is suspended or ends; `isthmus status` says by what, `isthmus resume --rule RULE` lets it go on";
        Some(holding.unwrap_or_else(|| suspended.into()))
    }

    /// Sends one version again, under the link's claim, unless the link itself may not send.
    async fn push(&self, key: &str, id: VersionId) -> Result<Outcome, String> {
        if let Some(why) = self.held() {
            return Err(format!("not sent again: {why}"));
        }
        let route =
            self.route.borrow().clone().ok_or("the link is not pushed by this process; ask the one that does")?;
        let line = self.line.borrow().clone().ok_or("the peer is down")?;
        let pushed = match route.current(key, id).await {
            Ok(version) => line.push_current(&route, &self.settings, &version, None).await,
            Err(pushed) => pushed,
        };
        match pushed {
            Pushed::Done(outcome) => Ok(outcome),
            Pushed::Failed(Failure::Retryable(why) | Failure::Refused(why)) => Err(why.said),
            Pushed::Failed(Failure::ClockAhead { .. }) => Err("stamped ahead of the peer's clock".into()),
            Pushed::Failed(Failure::PeerGone) => Err("the peer went away".into()),
            Pushed::Fenced { .. } => Err("the link has another owner".into()),
        }
    }
}
