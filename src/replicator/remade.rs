//! A bucket that was deleted and made again under its name: another bucket, found by the journal still knowing the link of
//! the former one. What it held when that was seen is left where it is until a person wants it copied; what is written
//! since travels like anything else. An empty one holds nothing to ask about.
//!
//! No record is no former bucket: a first start and a lost journal copy everything. Called by `own.rs` at a link's start.
use super::own::Shared;
use super::report::ConditionReport;
use super::run::consumer_name;
use super::tenure::Claimed;
use crate::journal::{self, LinkId};
use crate::link::{Checkpoint, Reach, Record, Settings, Since};
use crate::rule::Rule;
use crate::rule::plan::LinkView;
use crate::store::{self, Cursor, Interest};
use crate::words::utc;

/// As a condition's reason.
pub const REASON: &str = "BucketRecreated";

/// Links of the same rule to the same far end from buckets that are gone.
pub(super) fn former(known: &[(LinkId, Checkpoint)], id: &LinkId) -> Vec<LinkId> {
    let is_former = |other: &&LinkId| other.rule == id.rule && other.peer == id.peer && other.bucket != id.bucket;
    known.iter().map(|(other, _)| other).filter(is_former).cloned().collect()
}

/// Whether the rule, as it is now, leaves what the bucket held: its generation is the one of when that was seen.
pub(super) fn is_withheld(rule: &Rule, remade: Option<u64>) -> bool {
    remade == Some(rule.generation)
}

/// What a link of a bucket made again runs with.
pub(super) fn settings(view: &LinkView, remade: Option<u64>) -> Settings {
    let mut settings = view.settings();
    settings.existing_objects &= !is_withheld(&view.rule, remade);
    settings
}

/// What a person is told of a link that leaves what was in its bucket at `at`, Unix milliseconds.
pub(super) fn condition(rule: &Rule, remade: Option<u64>, at: Option<u64>) -> Option<ConditionReport> {
    if !is_withheld(rule, remade) || !rule.replicate.existing_objects {
        return None;
    }
    let (name, bucket, at) = (&rule.name, &rule.bucket, at.map_or("then".into(), utc));
    let message = format!(
        "bucket {bucket} was deleted and made again; what it held when that was seen ({at}) is not copied, what is written since is. To have it copied run a ReplicationJob of type Backfill (isthmus verify {name} --repair --existing), or change the rule's spec"
    );
    Some(ConditionReport { reason: REASON.into(), message, holds: false })
}

/// The same of a link that another process pushes.
pub(super) fn condition_of(rule: &Rule, checkpoint: &Checkpoint) -> Option<ConditionReport> {
    let since = checkpoint.reach.as_ref()?.since.as_ref()?;
    condition(rule, since.remade, Some(since.at))
}

/// Where a link begins whose bucket was made again; durable before anything is read. `floor`: what the store knows of it,
/// where a start was cut short.
///
/// # Errors
/// Of store and journal; again is safe.
pub(super) async fn begin(
    shared: &Shared,
    view: &LinkView,
    id: &LinkId,
    epoch: u64,
    bucket: &str,
    floor: Option<Cursor>,
) -> Result<Checkpoint, Begin> {
    // Taken before it is looked whether there is anything: what comes meanwhile is new, or counted.
    let head = shared.store.head(bucket).await?;
    let held = shared.store.backlog(bucket, None, &Interest::default()).await?;
    let (scope, at) = (view.settings().scope(), shared.clock.now_millis());
    let checkpoint = if held.versions == 0 && floor.is_none() {
        tracing::info!(bucket, rule = %view.rule.name, peer = view.peer.name(), "The bucket was deleted and made again, and is empty: the link goes on with it.");
        Checkpoint { reach: Some(Reach { covered: Some(scope), ..Reach::default() }), ..Checkpoint::default() }
    } else {
        let cursor = floor.unwrap_or(head);
        shared.store.commit(bucket, &consumer_name(id), &cursor, &cursor).await?;
        tracing::warn!(bucket, rule = %view.rule.name, peer = view.peer.name(), versions = held.versions, "The bucket was deleted and made again; what it holds is left where it is until a person wants it copied.");
        let since = Since { at, scope, remade: Some(view.rule.generation) };
        Checkpoint {
            cursor: Some(cursor.clone()),
            floor: Some(cursor),
            committed_through: at,
            reach: Some(Reach { since: Some(since), ..Reach::default() }),
            brake: None,
        }
    };
    shared.journal.record(id, epoch, &Record { checkpoint: checkpoint.clone(), ..Record::default() }).await?;
    Ok(checkpoint)
}

/// Why a link did not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum Begin {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

/// Forgets the links of buckets that are gone; the store has forgotten them with their buckets. What another process still
/// holds is forgotten at a later start.
pub(super) async fn retire(shared: &Shared, gone: Vec<LinkId>) {
    for id in gone {
        let retired = match shared.tenure.claim(&id, 0).await {
            Ok(Claimed::Owned(lease)) => {
                let released = shared.journal.release(&id, lease.epoch).await;
                shared.tenure.free(&id, &lease).await;
                released
            }
            Ok(Claimed::Elsewhere(_)) => continue,
            Err(e) => Err(e),
        };
        if let Err(e) = retired {
            tracing::debug!(bucket = id.bucket, error = %e, "The journal still knows the link of a bucket that is gone; another time.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_link_of_another_bucket_is_its_former_one() {
        let link = |rule: &str, bucket: &str, peer: &str| LinkId {
            rule: rule.into(),
            bucket: bucket.into(),
            peer: peer.into(),
        };
        let known = [
            link("r", "new", "ams@ams/logs"),
            link("r", "old", "ams@ams/logs"),
            link("r", "old", "nyc@nyc/logs"),
            link("r", "new", "ams@ams/elsewhere"),
            link("s", "old", "ams@ams/logs"),
        ];
        let known = known.map(|id| (id, Checkpoint::default()));
        let found = former(&known, &known[0].0);
        assert_eq!(found, [known[1].0.clone()]);
        assert_eq!(former(&known[..1], &known[0].0), [], "a first start");
    }
}
