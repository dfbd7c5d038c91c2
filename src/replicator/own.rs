//! Owning one link: claim it in the journal under a new epoch, load where it stands, run it; when
//! another owner is seen, claim again above it.
use super::push::{Route, link_name};
use super::report::LinkReport;
use super::run::{Command, Ended, Run, consumer_name};
use crate::journal::{Error, Journal, LinkId};
use crate::link::{Link, ROWS_MAX};
use crate::peer::client::Connection;
use crate::rule::plan::LinkView;
use crate::store::{self, Store};
use crate::telemetry::metrics::{LinkLabels, Metrics};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::Clock;
use tokio::sync::{mpsc, watch};

/// Pause before a link that could not start is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// What all links of a site share.
#[derive(Clone)]
pub struct Shared {
    pub store: Arc<dyn Store>,
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    /// Names this process in the journal.
    pub holder: String,
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

/// Runs a link until it is drained. Cancel-safe: what was not recorded is sent again.
pub async fn own(
    shared: Shared,
    mut view: LinkView,
    line: watch::Receiver<Option<Arc<Connection>>>,
    mut commands: mpsc::Receiver<Command>,
    shown: watch::Sender<LinkReport>,
) {
    let labels =
        LinkLabels { rule: view.rule.name.clone(), bucket: view.rule.bucket.clone(), peer: view.peer.name.clone() };
    shared.metrics.start_link(&labels);
    let mut at_least = 0;
    loop {
        let run = match start(&shared, &view, &labels, line.clone(), &mut commands, shown.clone(), at_least).await {
            Ok(run) => run,
            Err(blocked) => {
                let reason = blocked.to_string();
                if shown.borrow().last_error.as_ref() != Some(&reason) {
                    tracing::warn!(rule = %labels.rule, peer = %labels.peer, reason, "The link cannot start.");
                }
                shown.send_replace(LinkReport::blocked(&labels, shared.clock.now_millis(), reason));
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    command = commands.recv() => match command {
                        // The new settings are those of the next start.
                        Some(Command::Alter(next)) => view = *next,
                        Some(Command::Retry(_)) => {}
                        Some(Command::Drain) | None => return,
                    }
                }
                continue;
            }
        };
        match run.run().await {
            Ended::Drained => return,
            Ended::Fenced { highest } => {
                at_least = highest + 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn start<'a>(
    shared: &Shared,
    view: &LinkView,
    labels: &LinkLabels,
    line: watch::Receiver<Option<Arc<Connection>>>,
    commands: &'a mut mpsc::Receiver<Command>,
    shown: watch::Sender<LinkReport>,
    mut at_least: u64,
) -> Result<Run<'a>, Blocked> {
    let bucket = match shared.store.bucket(&view.rule.bucket).await {
        Ok(bucket) if bucket.versioned => bucket,
        Ok(bucket) => return Err(Blocked::Unversioned(bucket.name)),
        Err(store::Error::NoSuchBucket(name)) => return Err(Blocked::MissingBucket(name)),
        Err(e) => return Err(e.into()),
    };
    let id = LinkId { rule: view.rule.uid.clone(), bucket: bucket.id, peer: view.peer.name.clone() };
    // An owner with a lost or restored journal learns from the receiver how far epochs have come.
    let standing = line.borrow().clone();
    if let Some(standing) = standing {
        at_least = at_least.max(standing.highest_epoch(&link_name(&id)).await.map_or(0, |highest| highest + 1));
    }
    let epoch = shared.journal.acquire(&id, &shared.holder, at_least).await?;
    let (checkpoint, rows) = shared.journal.load(&id, ROWS_MAX).await?;
    shared.store.register(&bucket.name, &consumer_name(&id), true).await?;
    let cursor = checkpoint.as_ref().and_then(|c| c.cursor.clone());
    let mut seed = DefaultHasher::new();
    id.hash(&mut seed);
    let settings = view.settings();
    let route = Route {
        id,
        epoch,
        bucket: bucket.name,
        peer_bucket: view.destination.bucket.clone(),
        own_origin: settings.own_origin.clone(),
        forward_all: settings.forward_all,
        store: shared.store.clone(),
    };
    Ok(Run {
        labels: labels.clone(),
        route: Arc::new(route),
        prefix: settings.prefix.clone(),
        link: Link::new(settings, checkpoint, rows, seed.finish()),
        journal: shared.journal.clone(),
        clock: shared.clock.clone(),
        line,
        commands,
        shown,
        metrics: shared.metrics.clone(),
        cursor,
    })
}
