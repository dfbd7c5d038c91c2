//! Compares a page of keys with what a target holds: the target is listed, the map says which of its versions is which of
//! ours, and what the map does not know is asked for, so that a lost map is built again on the way. Sends nothing.
use super::known::Known;
use super::{End, Failed};
use crate::journal::Mapped;
use crate::link::project::Projection;
use crate::link::reconcile::{Difference, Item, KeyRange, between};
use crate::replicator::tenure::Lease;
use crate::store::Store;
use crate::store::s3::list::Seen;
use crate::store::s3::probe::CANARY;
use futures::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use storage_engine::version::{Kind, Origin, Version, VersionId};

/// Keys whose unknown versions are asked for at once.
const KEYS_AT_ONCE: usize = 16;
/// Versions of the map, or of the target, in one page at most.
pub const PAGE_MAX: usize = 200_000;

/// Why a page was not compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Failed(String),
    /// The target holds far more than this site between two keys.
    #[error("the target holds more than {PAGE_MAX} versions between two keys")]
    Surplus,
}

impl From<Failed> for Error {
    fn from(e: Failed) -> Self {
        Error::Failed(e.to_string())
    }
}

/// This site's side of a comparison.
pub struct Here<'a> {
    pub store: &'a Arc<dyn Store>,
    pub bucket: &'a str,
    pub projection: &'a Projection,
    pub lease: Arc<Lease>,
}

/// What differs in a range of keys of which this site holds `items`.
///
/// # Errors
/// Any [`Error`]: then nothing is known of the range.
pub async fn page(end: &End, here: &Here<'_>, range: &KeyRange, items: &[Item]) -> Result<Vec<Difference>, Error> {
    let (after, upto) = (range.after.as_deref(), range.upto.as_deref());
    // The map first: what is sent between the two is in the list, and counts as there.
    let rows = end.journal.mapped(&end.link, after, upto, PAGE_MAX).await.map_err(Failed::from)?;
    let seen = end.target.versions_in(after, upto, &here.projection.prefix, PAGE_MAX).await.map_err(Failed::from)?;
    let mut by_key: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
    for one in seen.ok_or(Error::Surplus)? {
        by_key.entry(one.key.clone()).or_default().push(one);
    }
    if rows.len() == PAGE_MAX {
        return Err(Error::Surplus);
    }
    let mut mapped: BTreeMap<String, Vec<Mapped>> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| range.contains(&row.key)) {
        mapped.entry(row.key.clone()).or_default().push(row);
    }
    let keys: BTreeSet<String> = by_key.keys().chain(mapped.keys()).cloned().collect();
    let keys = keys.into_iter().filter(|key| !key.contains(CANARY)).map(|key| {
        let (seen, rows) = (by_key.remove(&key).unwrap_or_default(), mapped.remove(&key).unwrap_or_default());
        of_key(end, here, key, seen, rows)
    });
    let keys: Vec<_> = keys.collect();
    let there: Vec<Vec<Item>> = futures::stream::iter(keys).buffer_unordered(KEYS_AT_ONCE).try_collect().await?;
    let mut there: Vec<Item> = there.into_iter().flatten().collect();
    there.sort();
    let mut differences = Vec::new();
    for difference in between(items, &there) {
        if !is_absent_on_both(here, &difference).await? {
            differences.push(difference);
        }
    }
    Ok(differences)
}

/// What the target holds of one key, newest first in `seen`, as the map knows it or as it is found out now.
async fn of_key(
    end: &End,
    here: &Here<'_>,
    key: String,
    seen: Vec<Seen>,
    mut rows: Vec<Mapped>,
) -> Result<Vec<Item>, Error> {
    let remote: BTreeSet<&str> = seen.iter().map(|s| s.remote_id.as_str()).collect();
    let held: BTreeSet<&str> = rows.iter().map(|row| row.remote_id.as_str()).collect();
    if remote != held {
        let lease = here.lease.clone();
        let mut known = Known::under(end, lease, here.store.clone(), here.bucket, &key).await?;
        let before = rows.iter().map(|row| row.version_id).collect();
        known.learn(&seen, &before).await?;
        rows = known.rows().cloned().collect();
        for row in rows.iter_mut().filter(|row| row.state == 0) {
            if let Some(state) = proven(end, here, row, &seen).await? {
                row.state = state;
                known.set(row.clone()).await?;
            }
        }
    }
    rows.sort_by_key(|row| row.version_id);
    Ok(rows.into_iter().map(item).collect())
}

/// A version of the map: its state is the hash of all that was brought, guards too.
fn item(row: Mapped) -> Item {
    Item { key: row.key, version_id: row.version_id, hash: Some(row.state), beside: None, purged_at: None }
}

/// The state of a version just found, where the target holds all that would be brought.
async fn proven(end: &End, here: &Here<'_>, row: &Mapped, seen: &[Seen]) -> Result<Option<u128>, Error> {
    let version = here.store.stat(here.bucket, &row.key, row.version_id).await.map_err(Failed::from)?;
    let Some(version) = version.filter(|v| v.is_live()) else { return Ok(None) };
    let Some(birth) = &version.birth else { return Ok(None) };
    let is_alike = |s: &Seen| match birth.kind {
        Kind::DeleteMarker => s.is_marker,
        Kind::Object => !s.is_marker && s.size_bytes == birth.size_bytes,
    };
    if !seen.iter().any(|s| s.remote_id == row.remote_id && is_alike(s)) {
        return Ok(None);
    }
    // Whether they stand there only a push finds out.
    if !version.guards().is_empty() {
        return Ok(None);
    }
    let tags = version.tags.as_ref().map(|tags| &tags.set);
    if let Some(tags) = tags
        && end.target.tags(&row.key, &row.remote_id).await.map_err(Failed::from)? != *tags
    {
        return Ok(None);
    }
    Ok(here.projection.item(&version).and_then(|item| item.hash))
}

/// A version that was purged here and is not there, or another site's whose birth the link does not send.
async fn is_absent_on_both(here: &Here<'_>, difference: &Difference) -> Result<bool, Error> {
    let Difference::OnlyHere { key, version_id, .. } = difference else { return Ok(false) };
    let version = here.store.stat(here.bucket, key, *version_id).await.map_err(Failed::from)?;
    let is_sent = |origin: &Origin| here.projection.forward_all || *origin == here.projection.source;
    let is_of_others = |v: &Version| v.birth.as_ref().is_none_or(|birth| !is_sent(&birth.order.origin));
    Ok(version.is_none_or(|v| !v.is_live() || super::is_copy(&v) || is_of_others(&v)))
}

/// What the target holds of one key by the map, each in the state it was brought in; for a person who asks.
///
/// # Errors
/// A sentence on why it cannot be told.
pub async fn held(end: &End, key: &str) -> Result<BTreeMap<VersionId, Item>, String> {
    let seen = end.target.versions_of(key).await.map_err(|e| e.to_string())?;
    let rows = end.journal.mapped(&end.link, Some(key), Some(key), PAGE_MAX).await.map_err(|e| e.to_string())?;
    let is_there = |row: &Mapped| seen.iter().any(|s| s.remote_id == row.remote_id);
    Ok(rows.into_iter().filter(is_there).map(|row| (row.version_id, item(row))).collect())
}
