//! Status out: writes what holds of each object to the API server, and Events for what people look for.
//!
//! What a status says is decided in `report/status.rs` and `report/job.rs`, when it is due here, all of it pure. A changed
//! condition goes at once, numbers every ten seconds at most. By server-side apply with force: a field left out is
//! removed, and a status patched by hand does not stop us. It never touches a spec. Called by `replicator/control.rs`,
//! where this process is the leader.
pub mod drill;
pub mod events;
pub mod job;
mod reason;
pub mod status;

use super::resource::API_VERSION;
use super::watch_kube::cluster::{Cluster, chain};
use super::watch_kube::{Object, ObjectId, Objects, Packed};
use events::Said;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Numbers of one object are written at most so often.
pub const NUMBERS_EVERY: Duration = Duration::from_secs(10);
/// Writes under way at once: a thousand rules are through in seconds, and the server is not flooded.
pub const WRITES_AT_ONCE: usize = 8;
/// A round begins no write after so long: what is due then is due in the next one, behind what has become urgent.
pub const ROUND: Duration = Duration::from_secs(1);
/// Who owns the fields we apply.
const MANAGER: &str = "isthmus-controller";
/// Holds an object until what it asked for has ended.
pub const FINALIZER: &str = "replication.isthmus.dev/cleanup";
/// Fields that only say when the others were taken: alone they are no reason to write.
const TIMES: [&str; 2] = ["measuredTime", "lastSeenTime"];

/// The status an object is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub id: ObjectId,
    pub uid: String,
    pub status: Json,
}

#[derive(Clone, Debug)]
struct Written {
    uid: String,
    status: Packed,
    at: Option<Instant>,
}

/// Why a status is due; what a person waits for goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The object asks for something else than it did when it was last answered.
    Asked,
    /// A condition changed, or nothing was written yet.
    Verdict,
    Numbers,
}

/// What was written last, and the way to write.
pub struct Writer {
    cluster: Cluster,
    recorder: Recorder,
    written: BTreeMap<ObjectId, Written>,
}

impl Writer {
    /// One that has written nothing; `process` names this process in Events.
    pub fn new(cluster: Cluster, process: &str) -> Writer {
        let reporter = Reporter { controller: MANAGER.into(), instance: Some(process.into()) };
        Writer { recorder: Recorder::new(cluster.client.clone(), reporter), cluster, written: BTreeMap::new() }
    }

    /// Writes what is due, and the Events of what changed, for about a round. What the server does not take and what it
    /// has no time for comes again with the next call.
    pub async fn write(&mut self, objects: &Objects, wanted: impl IntoIterator<Item = Wanted>) {
        let now = Instant::now();
        self.written.retain(|id, written| objects.get(id).is_some_and(|o| o.uid == written.uid));
        let due = wanted.into_iter().filter_map(|wanted| {
            let object = objects.get(&wanted.id)?;
            let last = self.written.entry(wanted.id.clone()).or_insert_with(|| Written {
                uid: object.uid.clone(),
                status: object.status.clone(),
                at: None,
            });
            let due = due(&wanted.status, &last.status.json(), last.at, now)?;
            Some(((due, last.at), wanted, last.status.clone()))
        });
        let mut due: Vec<_> = due.collect();
        // Of the same kind what waits longest.
        due.sort_by_key(|(urgency, ..)| *urgency);
        let (cluster, recorder) = (&self.cluster, &self.recorder);
        // To find out what is due of thousands may take as long as a round.
        let writes = in_time(Instant::now(), due).map(|(_, wanted, before)| async move {
            let applied = apply_status(cluster, &wanted).await;
            if applied {
                for said in events::between(wanted.id.0, &before.json(), &wanted.status) {
                    tell(cluster, recorder, &wanted, said).await;
                }
            }
            applied.then_some(wanted)
        });
        let done: Vec<_> = writes.buffer_unordered(WRITES_AT_ONCE).filter_map(futures::future::ready).collect().await;
        for Wanted { id, uid, status } in done {
            self.written.insert(id, Written { uid, status: Packed::of(&status), at: Some(now) });
        }
    }

    /// Another process is the leader now: what it wrote is not known here.
    pub fn forget(&mut self) {
        self.written.clear();
    }

    /// Puts our finalizer on an object, or takes it away; false: try again.
    pub async fn hold(&self, object: &Object, holds: bool) -> bool {
        let finalizers = if holds { vec![FINALIZER] } else { vec![] };
        // With its uid it cannot make an object anew that has gone meanwhile.
        let body = json!({"apiVersion": API_VERSION, "kind": object.kind,
            "metadata": {"name": object.name, "uid": object.uid, "finalizers": finalizers}});
        let how = PatchParams::apply("isthmus-finalizer").force();
        let patched = self.cluster.api(object.kind).patch(&object.name, &how, &Patch::Apply(&body)).await;
        ended(patched.map(drop), object.kind, &object.name, "its finalizer cannot be set")
    }

    /// Deletes an object that asked for it (`ttlAfterFinished`); false: try again.
    pub async fn delete(&self, object: &Object) -> bool {
        let only = Preconditions { uid: Some(object.uid.clone()), ..Preconditions::default() };
        let how = DeleteParams::default().preconditions(only);
        let deleted = self.cluster.api(object.kind).delete(&object.name, &how).await;
        ended(deleted.map(drop), object.kind, &object.name, "it cannot be deleted")
    }
}

/// Those of `all` that are begun in the round that began then.
pub fn in_time<T>(began: Instant, all: Vec<T>) -> impl Stream<Item = T> {
    futures::stream::iter(all).take_while(move |_| futures::future::ready(began.elapsed() < ROUND))
}

/// Whether a status goes now, and why.
fn due(wanted: &Json, written: &Json, at: Option<Instant>, now: Instant) -> Option<Due> {
    let answered = |status: &Json| status["observedGeneration"].as_u64();
    if answered(written).is_some_and(|last| answered(wanted) != Some(last)) {
        return Some(Due::Asked);
    }
    if verdicts(wanted) != verdicts(written) || wanted["phase"] != written["phase"] {
        return Some(Due::Verdict);
    }
    let is_time = at.is_none_or(|at| now.duration_since(at) >= NUMBERS_EVERY);
    (is_time && without_times(wanted) != without_times(written)).then_some(Due::Numbers)
}

/// Conditions as they count: not what they say at length, which may name a number, nor when.
fn verdicts(status: &Json) -> Vec<[Json; 4]> {
    let all = status["conditions"].as_array().into_iter().flatten();
    all.map(|c| ["type", "status", "reason", "observedGeneration"].map(|key| c[key].clone())).collect()
}

fn without_times(status: &Json) -> Json {
    let mut status = status.clone();
    if let Some(map) = status.as_object_mut() {
        map.retain(|key, _| !TIMES.contains(&key.as_str()));
    }
    status
}

async fn apply_status(cluster: &Cluster, wanted: &Wanted) -> bool {
    let (kind, name) = (wanted.id.0, &wanted.id.1);
    let body = json!({"apiVersion": API_VERSION, "kind": kind,
        "metadata": {"name": name, "uid": wanted.uid}, "status": wanted.status});
    let how = PatchParams::apply(MANAGER).force();
    let patched = cluster.api(kind).patch_status(name, &how, &Patch::Apply(&body)).await;
    ended(patched.map(drop), kind, name, "its status cannot be written")
}

/// Whether it is done; an object that is gone needs nothing more.
fn ended(result: kube::Result<()>, kind: &str, name: &str, what: &str) -> bool {
    match result {
        Ok(()) => true,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => false,
        Err(e) => {
            tracing::warn!(kind, name, error = chain(&e), "An object is as it was, {what}; it is tried again.");
            false
        }
    }
}

/// An Event is a courtesy: one that cannot be written is not tried again.
async fn tell(cluster: &Cluster, recorder: &Recorder, wanted: &Wanted, said: Said) {
    let about = ObjectReference {
        api_version: Some(API_VERSION.into()),
        kind: Some(wanted.id.0.into()),
        name: Some(wanted.id.1.clone()),
        namespace: Some(cluster.namespace.clone()),
        uid: Some(wanted.uid.clone()),
        ..ObjectReference::default()
    };
    // The API takes notes of up to 1 kB.
    let note: String = said.note.chars().take(900).collect();
    let event = Event {
        type_: if said.is_warning { EventType::Warning } else { EventType::Normal },
        reason: said.reason.into(),
        note: (!note.is_empty()).then_some(note),
        action: "Replicate".into(),
        secondary: None,
    };
    if let Err(e) = recorder.publish(&event, &about).await {
        tracing::debug!(reason = said.reason, error = chain(&e), "An Event could not be written.");
    }
}

#[cfg(test)]
mod tests;
