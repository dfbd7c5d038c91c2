//! Owning one link: claim it in the journal under a new epoch, load where it stands, run it. While another process
//! has it, stand by; when it is lost, stop at once; when it is called back, drain it and give it back.
use super::far::{Far, FarEnd};
use super::foreign;
use super::proof::Pace;
use super::push::{Route, link_name};
use super::remade;
use super::report::{ConditionReport, LinkReport};
use super::run::{Command, Ended, Run, consumer_name};
use super::tenure::{Claimed, Tenure, Wanted};
use super::toll::Toll;
use crate::journal::{Error, Journal, LinkId};
use crate::link::{Checkpoint, Existing, Held, Link, ROWS_MAX, Reach, Record, Row, Since};
use crate::rule::plan::LinkView;
use crate::store::{self, BucketInfo, Cursor, Store};
use crate::telemetry::metrics::{LinkLabels, Metrics};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::Clock;
use tokio::sync::{Notify, mpsc, watch};

/// Pause before a link that could not start, or that another process has, is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// What all links of a site share.
#[derive(Clone)]
pub struct Shared {
    pub store: Arc<dyn Store>,
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    /// What this process owns of the links.
    pub tenure: Arc<Tenure>,
    /// How much the slow proof of a link takes.
    pub pace: Pace,
}

/// The way to a peer: its line, and what is shared on it.
pub struct Way {
    pub line: Far,
    pub toll: Toll,
    /// What does not fit between the two buckets.
    pub conditions: watch::Receiver<Vec<ConditionReport>>,
}

/// Why a link could not start; tried again until the rule changes.
#[derive(Debug, thiserror::Error)]
enum Blocked {
    #[error("bucket {0} does not exist at this site; make it, with versioning enabled")]
    MissingBucket(String),
    #[error("bucket {0} is not versioned; enable versioning, an unversioned bucket is not replicated")]
    Unversioned(String),
    #[error("store: {0}")]
    Store(#[from] store::Error),
    #[error(transparent)]
    Journal(#[from] Error),
}

impl From<remade::Begin> for Blocked {
    fn from(e: remade::Begin) -> Self {
        match e {
            remade::Begin::Store(e) => e.into(),
            remade::Begin::Journal(e) => e.into(),
        }
    }
}

impl Blocked {
    /// The word for what a person must mend in the rule or its bucket; `None`: it passes by itself.
    fn word(&self) -> Option<&'static str> {
        match self {
            Blocked::MissingBucket(_) => Some("BucketNotFound"),
            Blocked::Unversioned(_) => Some("VersioningDisabled"),
            Blocked::Store(_) | Blocked::Journal(_) => None,
        }
    }
}

/// What came of a start.
enum Start<'a> {
    Run(Run<'a>),
    /// Another process has the link (its name), or may take it first.
    Elsewhere(Option<String>),
}

/// Runs a link until it is drained. Cancel-safe: what was not recorded is sent again.
pub async fn own(
    shared: Shared,
    mut view: LinkView,
    way: Way,
    mut commands: mpsc::Receiver<Command>,
    shown: watch::Sender<LinkReport>,
    route: watch::Sender<Option<Arc<Route>>>,
) {
    let labels = labels(&view);
    shared.metrics.start_link(&labels);
    let (mut at_least, mut wanted) = (0, None);
    loop {
        let now = shared.clock.now_millis();
        // Boxed, as what the link does seldom: a thousand links are mostly a thousand futures.
        let starting = start(&shared, &mut view, &labels, &way, &mut commands, &shown, &mut wanted, at_least);
        let report = match Box::pin(starting).await {
            Ok(Start::Run(run)) => {
                let (id, lease) = (run.route.id.clone(), run.route.lease.clone());
                shared.metrics.own(&labels, lease.epoch);
                route.send_replace(Some(run.route.clone()));
                let ended = Box::pin(run.run()).await;
                route.send_replace(None);
                shared.metrics.disown(&labels);
                match ended {
                    Ended::Drained => return shared.tenure.free(&id, &lease).await,
                    Ended::Removed => {
                        Box::pin(give_up(&way.line, lease.epoch)).await;
                        Box::pin(forget(&shared, &view.rule.bucket, &id, lease.epoch)).await;
                        return shared.tenure.free(&id, &lease).await;
                    }
                    Ended::CalledBack => shared.tenure.free(&id, &lease).await,
                    Ended::BucketGone => {
                        shared.tenure.free(&id, &lease).await;
                        tracing::warn!(rule = %labels.rule, peer = %labels.peer, bucket = %labels.bucket, "The bucket was deleted; the link begins anew should there be one of its name again.");
                        continue;
                    }
                    Ended::Lost => shared.tenure.forget(&id, lease.epoch),
                    Ended::Fenced { highest } => {
                        shared.tenure.forget(&id, lease.epoch);
                        at_least = highest + 1;
                    }
                }
                tracing::info!(rule = %labels.rule, peer = %labels.peer, ?ended, "The link is not pushed from here any more.");
                LinkReport::standby(&labels, shared.clock.now_millis(), None)
            }
            Ok(Start::Elsewhere(by)) => LinkReport::standby(&labels, now, by),
            Err(blocked) => {
                let reason = blocked.to_string();
                if shown.borrow().last_error.as_ref() != Some(&reason) {
                    tracing::warn!(rule = %labels.rule, peer = %labels.peer, reason, "The link cannot start.");
                }
                LinkReport::blocked(&labels, now, reason, blocked.word())
            }
        };
        shown.send_replace(report);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            command = commands.recv() => match command {
                // The new settings are those of the next start.
                Some(Command::Alter(next)) => view = *next,
                // Who asks hears that nobody answers.
                Some(Command::Ask(_)) => {}
                Some(Command::Drain | Command::Remove) | None => return,
            }
        }
    }
}

/// The names of a link, for people and metrics.
pub fn labels(view: &LinkView) -> LinkLabels {
    LinkLabels { rule: view.rule.name.clone(), bucket: view.rule.bucket.clone(), peer: view.peer.name().into() }
}

/// Nobody will finish the uploads a removed link has at an S3 endpoint.
async fn give_up(line: &Far, epoch: u64) {
    let far = line.borrow().clone();
    if let Some(FarEnd::S3(end)) = far
        && let Err(e) = foreign::give_up(&end, epoch).await
    {
        tracing::warn!(error = %e, "An upload of a removed link stays at the S3 endpoint; a lifecycle rule for incomplete uploads removes it.");
    }
}

/// The rule no longer has this link: nothing is kept for it. Should it come again, it begins anew.
async fn forget(shared: &Shared, bucket: &str, id: &LinkId, epoch: u64) {
    if let Err(e) = shared.journal.release(id, epoch).await {
        // Another process has it, and forgets it by itself; or the journal keeps a place nobody reads.
        tracing::warn!(bucket, error = %e, "The place of a link that is gone stays in the journal.");
        return;
    }
    if let Err(e) = shared.store.deregister(bucket, &consumer_name(id)).await {
        tracing::warn!(bucket, error = %e, "The store still keeps changes for a link that is gone.");
    }
}

async fn start<'a>(
    shared: &Shared,
    view: &'a mut LinkView,
    labels: &LinkLabels,
    way: &Way,
    commands: &'a mut mpsc::Receiver<Command>,
    shown: &watch::Sender<LinkReport>,
    wanted: &mut Option<Wanted>,
    at_least: u64,
) -> Result<Start<'a>, Blocked> {
    let bucket = match bucket(shared, view).await {
        Ok(bucket) => bucket,
        Err(blocked) => {
            // Nothing is left to this process that it could not run.
            *wanted = None;
            return Err(blocked);
        }
    };
    wanted.get_or_insert_with(|| shared.tenure.want());
    let id = LinkId { rule: view.rule.uid.clone(), bucket: bucket.id, peer: view.far_end() };
    let lease = match claim(shared, &id, &way.line, at_least).await? {
        Claimed::Owned(lease) => lease,
        Claimed::Elsewhere(by) => return Ok(Start::Elsewhere(by)),
    };
    let (checkpoint, rows) = match prepare(shared, view, &id, lease.epoch, &bucket.name).await {
        Ok(loaded) => loaded,
        Err(blocked) => {
            shared.tenure.free(&id, &lease).await;
            return Err(blocked);
        }
    };
    let cursor = checkpoint.as_ref().and_then(|c| c.cursor.clone());
    let mut seed = DefaultHasher::new();
    id.hash(&mut seed);
    let reach = checkpoint.as_ref().and_then(|c| c.reach.as_ref());
    let remade = reach.and_then(|reach| reach.since.as_ref()?.remade);
    let settings = remade::settings(view, remade);
    let peer_bucket = view.destination.bucket.clone();
    let (store, toll) = (shared.store.clone(), way.toll.clone());
    // Until the loop has looked at its conditions nobody sends.
    let held = watch::Sender::new(Held { all: true, deletes: true });
    let (measure, covered) = (Notify::new(), watch::Sender::default());
    let route = Route { id, lease, bucket: bucket.name, peer_bucket, store, toll, held, measure, covered };
    Ok(Start::Run(Run {
        labels: labels.clone(),
        route: Arc::new(route),
        settings: Arc::new(settings.clone()),
        link: Link::new(settings, checkpoint, rows, seed.finish()),
        journal: shared.journal.clone(),
        clock: shared.clock.clone(),
        line: way.line.clone(),
        commands,
        view,
        shown: shown.clone(),
        conditions: way.conditions.clone(),
        metrics: shared.metrics.clone(),
        cursor,
    }))
}

/// Where the link stands; its store keeps from now on what it needs.
async fn prepare(
    shared: &Shared,
    view: &LinkView,
    id: &LinkId,
    epoch: u64,
    bucket: &str,
) -> Result<(Option<Checkpoint>, Vec<Row>), Blocked> {
    let (mut checkpoint, rows) = shared.journal.load(id, ROWS_MAX).await?;
    let floor = shared.store.register(bucket, &consumer_name(id), true).await?;
    // The far end may have changed while nobody ran the rule.
    let is_former = |other: &LinkId| {
        let is_same_peer = other.peer.strip_prefix(view.peer.name()).is_some_and(|rest| rest.starts_with('@'));
        other.bucket == id.bucket && is_same_peer && other.peer != id.peer
    };
    let known = shared.journal.links(Some(&id.rule)).await?;
    for (former, _) in known.iter().filter(|(other, _)| is_former(other)) {
        shared.store.deregister(bucket, &consumer_name(former)).await?;
    }
    let gone = remade::former(&known, id);
    if checkpoint.is_none() {
        checkpoint = match !gone.is_empty() && view.rule.replicate.existing_objects {
            true => Some(remade::begin(shared, view, id, epoch, bucket, floor).await?),
            false => begin(shared, view, id, epoch, bucket, floor).await?,
        };
    }
    remade::retire(shared, gone).await;
    Ok((checkpoint, rows))
}

async fn bucket(shared: &Shared, view: &LinkView) -> Result<BucketInfo, Blocked> {
    match shared.store.bucket(&view.rule.bucket).await {
        Ok(bucket) if bucket.versioned => Ok(bucket),
        Ok(bucket) => Err(Blocked::Unversioned(bucket.name)),
        Err(store::Error::NoSuchBucket(name)) => Err(Blocked::MissingBucket(name)),
        Err(e) => Err(e.into()),
    }
}

/// Claims the link under an epoch above what its receiver has seen: an owner with a lost or restored journal learns
/// from the receiver how far epochs have come.
async fn claim(shared: &Shared, id: &LinkId, line: &Far, at_least: u64) -> Result<Claimed, Error> {
    let claimed = shared.tenure.claim(id, at_least).await?;
    let standing = line.borrow().clone();
    // Nothing at an S3 endpoint keeps epochs.
    let (Claimed::Owned(lease), Some(FarEnd::Site(standing))) = (&claimed, standing) else { return Ok(claimed) };
    match standing.highest_epoch(&link_name(id)).await {
        Ok(highest) if highest >= lease.epoch => shared.tenure.claim(id, highest + 1).await,
        // Should it have seen more, it will say so at the first frame.
        _ => Ok(claimed),
    }
}

/// Where a link begins that the journal does not know: `None`, at the beginning of the feed.
///
/// Its store may know it: then the journal was lost, and all that is certain is the floor the store keeps. Changes
/// behind it are read again, and what lies before it is compared with the peer, for the rule may have been another.
/// A new link of a rule that leaves existing objects where they are begins where the feed ends now. Either is durable
/// before the first read, so that a restart neither goes back nor skips what came since.
async fn begin(
    shared: &Shared,
    view: &LinkView,
    id: &LinkId,
    epoch: u64,
    bucket: &str,
    floor: Option<Cursor>,
) -> Result<Option<Checkpoint>, Blocked> {
    let (scope, at) = (view.settings().scope(), shared.clock.now_millis());
    let wants_existing = view.rule.replicate.existing_objects;
    let (cursor, reach, committed_through) = match floor {
        Some(floor) if wants_existing => {
            tracing::warn!(bucket, rule = %view.rule.name, peer = view.peer.name(), "The journal does not know a link that its store knows; everything is compared with the peer.");
            let pass = Existing { cursor: None, until: floor.clone(), except: None, compares: true };
            (floor, Reach { covered: Some(scope), since: None, existing: Some(pass) }, 0)
        }
        // From when the rule copies is not known any more; what the feed still owes the peer is.
        Some(floor) => (floor, Reach { since: Some(Since { at, scope, remade: None }), ..Reach::default() }, 0),
        None if wants_existing => return Ok(None),
        None => {
            let head = shared.store.head(bucket).await?;
            // Should the journal be lost before the first change, the store knows where the link began.
            shared.store.commit(bucket, &consumer_name(id), &head, &head).await?;
            let at = shared.clock.now_millis();
            (head, Reach { since: Some(Since { at, scope, remade: None }), ..Reach::default() }, at)
        }
    };
    let floor = Some(cursor.clone()).filter(|_| reach.existing.is_none());
    let checkpoint = Checkpoint { cursor: Some(cursor), floor, committed_through, reach: Some(reach), brake: None };
    shared.journal.record(id, epoch, &Record { checkpoint: checkpoint.clone(), ..Record::default() }).await?;
    Ok(Some(checkpoint))
}
