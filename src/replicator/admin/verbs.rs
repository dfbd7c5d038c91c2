//! The verbs as requests on the local socket: query in, JSON out; what is refused is 404 with a sentence for people
//! (a name that is not there), or 503 (not now).
use super::super::Replicator;
use super::super::told::{ReleaseReport, RetryReport};
use super::super::verbs::Refused;
use super::PAGE;
use crate::link::{Again, ROWS_MAX};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use storage_engine::version::VersionId;

/// What a verb is about; which of them it needs is the verb's own.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    rule: Option<String>,
    peer: Option<String>,
    bucket: Option<String>,
    key: Option<String>,
    version: Option<String>,
    #[serde(default)]
    parked: bool,
    limit: Option<usize>,
}

/// Routes of the verbs.
pub(super) fn routes() -> Router<Arc<Replicator>> {
    Router::new()
        .route("/suspend", post(suspend))
        .route("/resume", post(resume))
        .route("/retry", post(retry))
        .route("/release", post(release))
        .route("/explain", get(explain))
        .route("/rows", get(rows))
        .route("/deletes", get(deletes))
        .route("/conflicts", get(conflicts))
}

pub(super) fn answer<T: Serialize>(done: Result<T, Refused>) -> Response {
    match done {
        Ok(done) => Json(done).into_response(),
        Err(e @ Refused::Unknown(_)) => (StatusCode::NOT_FOUND, e.to_string()).into_response(),
        Err(e @ Refused::Unavailable(_)) => (StatusCode::SERVICE_UNAVAILABLE, e.to_string()).into_response(),
    }
}

async fn suspend(State(replicator): State<Arc<Replicator>>, Query(asked): Query<Asked>) -> Response {
    answer(replicator.suspend(asked.rule.as_deref(), asked.peer.as_deref()).await)
}

async fn resume(State(replicator): State<Arc<Replicator>>, Query(asked): Query<Asked>) -> Response {
    answer(replicator.resume(asked.rule.as_deref(), asked.peer.as_deref()).await)
}

async fn retry(State(replicator): State<Arc<Replicator>>, Query(asked): Query<Asked>) -> Response {
    let version_id = match version_id(&asked) {
        Ok(id) => id,
        Err(refused) => return answer::<()>(Err(refused)),
    };
    let which = Again { key: asked.key, version_id, parked_only: asked.parked };
    answer(replicator.retry(asked.rule.as_deref(), which).await.map(|versions| RetryReport { versions }))
}

async fn release(State(replicator): State<Arc<Replicator>>, Query(asked): Query<Asked>) -> Response {
    let rule = asked.rule.unwrap_or_default();
    answer(replicator.release(&rule).await.map(|deletes| ReleaseReport { deletes }))
}

async fn explain(State(replicator): State<Arc<Replicator>>, Query(asked): Query<Asked>) -> Response {
    let version_id = match version_id(&asked) {
        Ok(id) => id,
        Err(refused) => return answer::<()>(Err(refused)),
    };
    let (bucket, key) = (asked.bucket.unwrap_or_default(), asked.key.unwrap_or_default());
    answer(replicator.explain(&bucket, &key, version_id).await)
}

fn version_id(asked: &Asked) -> Result<Option<VersionId>, Refused> {
    let id = asked.version.as_deref().map(str::parse::<VersionId>).transpose();
    id.map_err(|_| Refused::Unknown("that is no version id of this store".into()))
}

async fn rows(State(replicator): State<Arc<Replicator>>, Query(asked): Query<Asked>) -> Response {
    Json(replicator.rows(asked.limit.unwrap_or(ROWS_MAX).min(ROWS_MAX)).await).into_response()
}

async fn deletes(State(replicator): State<Arc<Replicator>>, Query(asked): Query<Asked>) -> Response {
    Json(replicator.deletes(asked.limit.unwrap_or(PAGE).min(PAGE)).await).into_response()
}

async fn conflicts(State(replicator): State<Arc<Replicator>>, Query(asked): Query<Asked>) -> Response {
    answer(replicator.conflicts(asked.limit.unwrap_or(PAGE).min(PAGE)).await)
}
