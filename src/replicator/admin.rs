//! The admin listeners: probes, metrics and a status page on a port, what shows keys or changes something on a local
//! socket. They read snapshots; none of them waits for a peer.
mod drills;
pub mod history;
pub mod page;
mod verbs;

use super::Replicator;
use crate::telemetry::metrics::CONTENT_TYPE;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use storage_engine::version::VersionId;

/// One row of a version list for `isthmus diff`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow {
    pub key: String,
    pub id: String,
    /// Hash of the whole replicated state, hexadecimal: equal state, equal hash.
    pub state: String,
}

/// Which page of versions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct VersionQuery {
    pub bucket: String,
    pub after_key: Option<String>,
    pub after_id: Option<String>,
}

/// Versions in one page.
pub const PAGE: usize = 1000;

/// What anybody may ask over the network: nothing that shows a key.
pub fn public(replicator: Arc<Replicator>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(replicator)
}

/// What may be asked over the local socket.
pub fn local(replicator: Arc<Replicator>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/versions", get(versions))
        .merge(verbs::routes())
        .merge(drills::routes())
        .route("/verify", get(verified).post(verify))
        .with_state(replicator.clone())
        .merge(public(replicator))
}

async fn readyz(State(replicator): State<Arc<Replicator>>) -> impl IntoResponse {
    match replicator.store().trouble() {
        _ if !replicator.is_ready() => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        None => (StatusCode::OK, "ready\n".to_owned()),
    }
}

async fn metrics(State(replicator): State<Arc<Replicator>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], replicator.metrics_text())
}

async fn status(State(replicator): State<Arc<Replicator>>) -> impl IntoResponse {
    Json(replicator.report())
}

/// Which rule to compare.
#[derive(Debug, Deserialize)]
pub struct VerifyQuery {
    rule: String,
    /// Send what the peers lack again.
    #[serde(default)]
    repair: bool,
    /// Versions too that the rule leaves where they are.
    #[serde(default)]
    existing: bool,
}

async fn verify(State(replicator): State<Arc<Replicator>>, Query(query): Query<VerifyQuery>) -> impl IntoResponse {
    match replicator.verify_to(&query.rule, None, query.repair, query.existing) {
        Some(report) => Json(report).into_response(),
        None => no_rule(&query.rule).into_response(),
    }
}

async fn verified(State(replicator): State<Arc<Replicator>>, Query(query): Query<VerifyQuery>) -> impl IntoResponse {
    match replicator.verified(&query.rule) {
        Some(report) => Json(report).into_response(),
        None => no_rule(&query.rule).into_response(),
    }
}

fn no_rule(name: &str) -> impl IntoResponse {
    (StatusCode::NOT_FOUND, format!("no rule {name} is in force here; isthmus status lists those that are\n"))
}

async fn versions(State(replicator): State<Arc<Replicator>>, Query(query): Query<VersionQuery>) -> impl IntoResponse {
    let after = match (query.after_key, query.after_id.as_deref().map(str::parse::<VersionId>)) {
        (Some(key), Some(Ok(id))) => Some((key, id)),
        (None, None) => None,
        _ => return (StatusCode::BAD_REQUEST, "after_key and after_id go together\n").into_response(),
    };
    match replicator.store().list_versions(&query.bucket, after, PAGE).await {
        Ok(page) => {
            let rows: Vec<_> = page
                .into_iter()
                .map(|v| VersionRow { state: format!("{:016x}", v.state_hash()), id: v.id.to_string(), key: v.key })
                .collect();
            Json(rows).into_response()
        }
        Err(crate::store::Error::NoSuchBucket(name)) => {
            (StatusCode::NOT_FOUND, format!("bucket {name} does not exist\n")).into_response()
        }
        Err(e) => (StatusCode::SERVICE_UNAVAILABLE, format!("{e}\n")).into_response(),
    }
}
