//! Drills as requests on the local socket: started, looked at, ended. A drill that its preflight refused is an answer,
//! not an error.
use super::super::Replicator;
use super::verbs::answer;
use crate::drill::report::Report;
use crate::drill::{Direction, Load, Objectives, Plan, Type, confirmed};
use crate::replicator::verbs::Refused;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use std::sync::Arc;

/// What is to be drilled.
#[derive(Debug, Deserialize)]
struct Wanted {
    peer: String,
    #[serde(rename = "type")]
    kind: Type,
    direction: Direction,
    duration_millis: u64,
    deadline_millis: u64,
    writes_per_second: u32,
    object_bytes: u32,
    delete_percent: u32,
    /// Names of rules for a live drill, with commas between, and the same once more.
    #[serde(default)]
    rules: String,
    #[serde(default)]
    confirm: String,
}

#[derive(Debug, Deserialize)]
struct Which {
    id: Option<String>,
}

/// Routes of drills.
pub(super) fn routes() -> Router<Arc<Replicator>> {
    Router::new().route("/drill", get(look).post(run)).route("/drills", get(list)).route("/drill/abort", post(abort))
}

async fn run(State(replicator): State<Arc<Replicator>>, Query(wanted): Query<Wanted>) -> Response {
    let Wanted { peer, kind, direction, duration_millis, deadline_millis, .. } = wanted;
    let Wanted { writes_per_second, object_bytes, delete_percent, .. } = wanted;
    let names = |text: &str| text.split(',').filter(|name| !name.is_empty()).map(String::from).collect::<Vec<_>>();
    let rules = names(&wanted.rules);
    if let Err(why) = confirmed(&rules, &names(&wanted.confirm)) {
        return answer::<Report>(Err(Refused::Unknown(why)));
    }
    let plan = Plan {
        id: new_id(),
        peer,
        kind,
        direction,
        duration_millis,
        deadline_millis,
        drain_millis: None,
        fails_back: true,
        load: Load { writes_per_second, object_bytes, delete_percent },
        objectives: Objectives::default(),
        rules,
    };
    answer(replicator.drill(plan).await)
}

/// 48 random bits: a name that nobody has.
fn new_id() -> String {
    storage_engine::entropy::id().simple().to_string().chars().take(12).collect()
}

async fn look(State(replicator): State<Arc<Replicator>>, Query(which): Query<Which>) -> Response {
    let found = replicator.drill_report(which.id.as_deref()).await;
    let none = || match &which.id {
        Some(id) => Refused::Unknown(format!("no report of drill {id} here; isthmus drill list shows those there are")),
        None => Refused::Unknown("this site drove no drill".into()),
    };
    answer(found.ok_or_else(none))
}

async fn list(State(replicator): State<Arc<Replicator>>) -> Response {
    answer(Ok(replicator.drill_reports().await))
}

async fn abort(State(replicator): State<Arc<Replicator>>) -> Response {
    answer(replicator.abort_drill().await)
}
