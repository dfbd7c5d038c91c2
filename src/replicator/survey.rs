//! One read of a link's pass over existing versions: of the feed, or, where the feed has lost the link's place, of a
//! page of keys compared with the peer. Called by the link's loop (`run.rs`); it changes nothing.
use super::far::Far;
use super::push::Route;
use super::reconcile::{self, Sides};
use super::run::{BATCH, changes};
use crate::link::project::Projection;
use crate::link::reconcile::Difference;
use crate::link::{Change, Settings, Survey};
use crate::store::{self, Cursor};
use std::sync::Arc;

/// Items of a page: all of it may differ and is then taken in at once, without bytes.
const PAGE_ITEMS: usize = 2048;

/// What was read.
pub struct Surveyed {
    pub changes: Vec<Change>,
    /// Behind it; a place in the feed or among the keys, as the survey says.
    pub cursor: Cursor,
    pub is_last: bool,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read own store: {0}")]
    Store(#[from] store::Error),
    /// The place is kept, and the same page is compared again.
    #[error("compare with the peer: {0}")]
    Compare(#[from] reconcile::Error),
}

/// Reads on where the survey stands. Cancel-safe.
///
/// # Errors
/// Any [`Error`]: read again.
pub async fn read(
    route: Arc<Route>,
    settings: Arc<Settings>,
    line: Far,
    since: Option<u64>,
    survey: Survey,
) -> Result<Surveyed, Error> {
    if survey.compares {
        return compare(&route, &settings, line, since, survey).await;
    }
    let batch = route.changes(survey.cursor.as_ref(), BATCH).await?;
    let is_last = batch.cursor.has_passed(&survey.until);
    Ok(Surveyed { changes: changes(batch.events), cursor: batch.cursor, is_last })
}

async fn compare(
    route: &Route,
    settings: &Settings,
    line: Far,
    since: Option<u64>,
    survey: Survey,
) -> Result<Surveyed, Error> {
    let sides = Sides {
        store: route.store.clone(),
        bucket: route.bucket.clone(),
        peer_bucket: route.peer_bucket.clone(),
        projection: Arc::new(Projection { since, ..Projection::of(settings) }),
        line,
        lease: Some(route.lease.clone()),
        wire_bytes: 0.into(),
        questions: 0.into(),
    };
    let after = survey.cursor.as_ref().map(|cursor| String::from_utf8_lossy(&cursor.0).into_owned());
    let page = sides.page(after, PAGE_ITEMS).await?;
    let end = page.range.upto.clone();
    let mut changes = Vec::new();
    for difference in sides.compare(page).await? {
        // What the peer holds and this site lacks is never pulled.
        let (Difference::OnlyHere { key, version_id, .. } | Difference::Unlike { key, version_id, .. }) = difference
        else {
            continue;
        };
        // Gone meanwhile: that change stands in the feed.
        let Some(version) = route.store.stat(&route.bucket, &key, version_id).await? else { continue };
        let pending_since = version.max_hlc().millis();
        changes.push(Change { version: Arc::new(version), pending_since, traceparent: None });
    }
    route.look().await?;
    let is_last = end.is_none();
    let cursor = end.map_or_else(|| survey.until.clone(), |key| Cursor(key.into_bytes().into()));
    Ok(Surveyed { changes, cursor, is_last })
}
