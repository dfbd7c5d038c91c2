//! A version out to a bucket at a bare S3 endpoint: looks what is there, sends what is missing, oldest first, and keeps
//! in the journal which version there is which of ours.
//!
//! Such a target orders the versions of a key by their arrival and mostly mints ids of its own. So nothing is sent that
//! may be there already: a version the map does not know is looked for first, by what every object of ours says of
//! itself; a request whose outcome is unknown is answered by that look. One of a key flies at a time (`link/window.rs`).
pub mod align;
pub mod compare;
pub mod gate;
mod known;
mod send;

pub use send::give_up;

use super::push::{Pushed, Route};
use crate::journal::{self, Journal, LinkId};
use crate::link::project::Projection;
use crate::link::{Failure, Outcome, Reason, Settings, Why, includes, to_send};
use crate::store;
use crate::store::s3::{self, Identity, Target};
use known::Known;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use storage_engine::clock::Clock;
use storage_engine::version::Version;
use tokio::sync::Notify;

/// What a head counts for in limits of bandwidth: deletes are not free.
const HEAD_BYTES: u64 = 256;

/// A bucket at an S3 endpoint, found fit, as one link uses it.
pub struct End {
    pub target: Target,
    pub link: LinkId,
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
    /// A request failed as if the whole target had: it is probed at once.
    pub suspect: Notify,
    /// Uploads that earlier lives left were looked at.
    is_tidy: AtomicBool,
}

/// Why a version is not there now.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    S3(#[from] s3::Error),
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error("read own store: {0}")]
    Store(#[from] store::Error),
    /// The claim on the link is over.
    #[error("the link is not pushed by this process any more")]
    NotOwned,
}

impl End {
    pub fn new(target: Target, link: LinkId, journal: Arc<dyn Journal>, clock: Arc<dyn Clock>) -> Self {
        End { target, link, journal, clock, suspect: Notify::new(), is_tidy: false.into() }
    }
}

/// Brings a version as it is now to the target.
pub async fn push(end: &End, route: &Route, settings: &Settings, version: &Version) -> Pushed {
    let _flight = route.toll.take_off().await;
    match bring(end, route, settings, version).await {
        Ok(outcome) => Pushed::Done(outcome),
        Err(Failed::S3(e)) if e.is_of_target() => {
            tracing::debug!(key = version.key, error = %e, "The S3 endpoint failed during a push; it is probed.");
            end.suspect.notify_one();
            match e {
                // The answer may be lost for this version alone, again and again.
                s3::Error::Silent(_) => Pushed::Failed(Failure::Retryable(why(Reason::Unavailable, &e))),
                _ => Pushed::Failed(Failure::PeerGone),
            }
        }
        Err(Failed::S3(e @ s3::Error::Refused(_))) => Pushed::Failed(Failure::Refused(why(Reason::Rejected, &e))),
        Err(Failed::Journal(journal::Error::Fenced { current, .. })) => Pushed::Fenced { highest: current },
        // Neither counts as an attempt: the loop ends with the claim, and waits for the journal anyway.
        Err(Failed::NotOwned | Failed::Journal(_)) => Pushed::Failed(Failure::PeerGone),
        Err(e @ Failed::Store(_)) => Pushed::Failed(Failure::Retryable(why(Reason::OwnStore, &e))),
        Err(e) => Pushed::Failed(Failure::Retryable(why(Reason::Unavailable, &e))),
    }
}

fn why(reason: Reason, e: &impl std::error::Error) -> Why {
    Why::new(reason, e.to_string())
}

/// Whether another isthmus put it here through S3: it never goes to a foreign target, so that two sites which see each
/// other as such do not send copies back and forth.
fn is_copy(version: &Version) -> bool {
    version.birth.as_ref().is_some_and(|birth| Identity::of_copy(&birth.metadata).is_some())
}

/// Whether the link brings the bytes or the marker of a version.
fn is_sent(settings: &Settings, version: &Version) -> bool {
    version.is_live()
        && !is_copy(version)
        && includes(settings, version)
        && to_send(settings, version).is_some_and(|part| part.birth.is_some())
}

/// What the target is to hold of a version, as comparisons see it.
fn state(settings: &Settings, version: &Version) -> u128 {
    Projection::of(settings).item(version).and_then(|item| item.hash).unwrap_or(0)
}

async fn bring(end: &End, route: &Route, settings: &Settings, version: &Version) -> Result<Outcome, Failed> {
    if !end.is_tidy.swap(true, Ordering::Relaxed) {
        send::reap(end, route).await?;
    }
    if is_copy(version) {
        return Ok(Outcome::Superseded);
    }
    route.toll.pass(HEAD_BYTES).await;
    let mut known = Known::load(end, route, &version.key).await?;
    // Whoever purged it: nobody else tells the target.
    if version.purged().is_some() && settings.version_deletes {
        return purge(end, &mut known, version).await;
    }
    let Some(part) = to_send(settings, version) else { return Ok(Outcome::Superseded) };
    if !version.is_live() || known.of(version.id).is_none() && part.birth.is_none() {
        // Unborn here, purged elsewhere, or another site's, which is not sent.
        return Ok(Outcome::Superseded);
    }
    if known.of(version.id).is_none() {
        known.look().await?;
    }
    if known.of(version.id).is_some() {
        return update(end, settings, &mut known, version, &part).await;
    }
    in_order(end, route, settings, &mut known, version).await?;
    Ok(Outcome::Applied)
}

/// Sends a version after those born before it; one that came late goes below those that are there.
async fn in_order(
    end: &End,
    route: &Route,
    settings: &Settings,
    known: &mut Known<'_>,
    version: &Version,
) -> Result<(), Failed> {
    let birth = version.birth.as_ref().expect("a live version was born");
    let follows = birth.base.as_ref().is_none_or(|base| known.of(base.version_id).is_some());
    // A rule that leaves existing objects where they are must not bring them as predecessors.
    if follows && known.is_newest(birth.order.hlc.bits()) || !settings.existing_objects {
        return send::version(end, route, settings, known, version).await;
    }
    let order = |v: &Version| v.birth.as_ref().map(|b| b.order.clone());
    let mut all = route.store.versions_of(&route.bucket, &version.key).await?;
    all.retain(|v| is_sent(settings, v));
    all.sort_by_key(order);
    for earlier in all.iter().filter(|v| order(v) < order(version)) {
        if known.of(earlier.id).is_none() {
            send::version(end, route, settings, known, earlier).await?;
        }
    }
    send::version(end, route, settings, known, version).await?;
    if end.target.dialect().keeps_ids() {
        // It orders by the times it is given.
        return Ok(());
    }
    for later in all.iter().filter(|v| order(v) > order(version)) {
        if let Some(former) = known.of(later.id).cloned() {
            send::version(end, route, settings, known, later).await?;
            known.allow()?;
            end.target.purge(later, &former.remote_id).await?;
        }
    }
    Ok(())
}

/// What may have changed since a version was sent.
async fn update(
    end: &End,
    settings: &Settings,
    known: &mut Known<'_>,
    version: &Version,
    part: &Version,
) -> Result<Outcome, Failed> {
    let row = known.of(version.id).cloned().expect("the caller found it");
    let state = state(settings, version);
    let mut outcome = Outcome::AlreadyPresent;
    if row.state != state
        && let Some(tags) = &part.tags
        && end.target.tags(&version.key, &row.remote_id).await? != tags.set
    {
        known.allow()?;
        end.target.set_tags(&version.key, &row.remote_id, &tags.set).await?;
        outcome = Outcome::Applied;
    }
    // A guard that another site brought is in no state of ours, and is set there all the same.
    let guards = version.guards();
    if settings.object_lock && !guards.is_empty() && end.target.has_lock() {
        known.allow()?;
        end.target.guard(&version.key, &row.remote_id, &guards, end.clock.now_millis()).await?;
        outcome = Outcome::Applied;
    }
    if row.state != state {
        known.set(journal::Mapped { state, ..row }).await?;
    }
    Ok(outcome)
}

async fn purge(end: &End, known: &mut Known<'_>, version: &Version) -> Result<Outcome, Failed> {
    send::forget_upload(end, known, version).await?;
    if known.of(version.id).is_none() {
        known.look().await?;
    }
    let Some(row) = known.of(version.id).cloned() else { return Ok(Outcome::AlreadyPresent) };
    known.allow()?;
    end.target.purge(version, &row.remote_id).await?;
    known.remove(version.id).await?;
    Ok(Outcome::Applied)
}
