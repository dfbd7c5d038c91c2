//! Rule sets out of an API server: watches the five kinds of one namespace and sends the whole set, level not edge.
//!
//! Nothing is sent before the first list of every kind is complete; a later failed list or a server that is away keeps
//! the last set, so that links run on. An object that does not hold keeps its last accepted form in force and harms no
//! other. Objects arrive untyped and are judged one by one, so that one bad object never hides a kind. Nothing here knows
//! links, and nothing is ever written to the objects: that is `rule/report.rs`.
pub mod cluster;
#[cfg(test)]
pub mod mock;
pub mod secrets;

use super::judge::{Finding, Held, Kept, judge};
use super::refs::Refs;
use super::resource::DESCRIBING;
use super::validate::validate;
use super::watch_folder::{Accepted, Snapshot};
use super::{Problem, RuleSet};
use crate::document::Node;
use cluster::Cluster;
use futures::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use secrets::Secrets;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

/// Changes of so long are judged together: `kubectl apply -k` brings a site's documents one after the other.
const GATHER: Duration = Duration::from_millis(150);
/// How often it is looked whether references have arrived.
const LOOK: Duration = Duration::from_secs(2);
/// A watch ends and begins anew after so long (kube: 290 s): a connection that died unseen costs no more.
const WATCH_SECONDS: u32 = 30;
/// Objects in one page of a list.
const PAGE: u32 = 500;
/// Pauses after a failure; kube's own cap of 30 s would keep a returned server waiting.
const PAUSE: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(5));

/// Kind and name; all are of one namespace.
pub type ObjectId = (&'static str, String);

/// Every object of the five kinds.
pub type Objects = BTreeMap<ObjectId, Arc<Object>>;

/// An object as the API server holds it, of what is needed here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    pub kind: &'static str,
    pub name: String,
    pub uid: String,
    pub generation: u64,
    /// It goes as soon as its finalizers are gone.
    pub is_deleting: bool,
    pub finalizers: Vec<String>,
    pub spec: Json,
    pub status: Packed,
}

/// A status as text: a thousand of them as maps would be most of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed(Arc<str>);

impl Packed {
    pub fn of(status: &Json) -> Packed {
        Packed(status.to_string().into())
    }

    pub fn json(&self) -> Json {
        serde_json::from_str(&self.0).expect("it was JSON")
    }
}

impl Default for Packed {
    fn default() -> Self {
        Packed::of(&Json::Null)
    }
}

impl Object {
    /// What is kept of an object of this kind.
    pub fn of(kind: &'static str, object: DynamicObject) -> Object {
        let DynamicObject { metadata, mut data, .. } = object;
        Object {
            kind,
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation.and_then(|g| u64::try_from(g).ok()).unwrap_or_default(),
            is_deleting: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.unwrap_or_default(),
            spec: data["spec"].take(),
            status: Packed::of(&data["status"]),
        }
    }

    fn document(&self, namespace: &str) -> Json {
        let metadata = json!({"name": self.name, "namespace": namespace, "uid": self.uid});
        json!({"apiVersion": super::resource::API_VERSION, "kind": self.kind, "metadata": metadata, "spec": self.spec})
    }
}

/// What became of each object, and the set in force.
#[derive(Debug, Default)]
pub struct Judged {
    verdicts: BTreeMap<ObjectId, Verdict>,
    set: RuleSet,
}

#[derive(Debug)]
struct Verdict {
    /// Uid and generation that were judged; `None`: it is known from the journal only.
    seen: Option<(String, u64)>,
    /// The last form that held.
    good: Option<Held>,
    problems: Vec<Problem>,
}

impl Judged {
    /// What was in force before a restart, out of what the journal kept.
    pub fn restore(kept: impl IntoIterator<Item = (u64, String)>) -> Judged {
        let held = kept.into_iter().filter_map(|(generation, spec)| Kept::restore(generation, &spec));
        let verdicts: BTreeMap<ObjectId, Verdict> = held
            .map(|(_, held)| {
                let id = (held.resource.kind(), held.resource.name().to_string());
                (id, Verdict { seen: None, good: Some(held), problems: Vec::new() })
            })
            .collect();
        let drafts: Vec<_> = verdicts.values().filter_map(|v| v.good.as_ref()).map(Held::draft).collect();
        let (set, _) = validate(&drafts, None);
        Judged { verdicts, set }
    }

    /// The set of all objects that hold, each in its last form that did, and what is wrong with the others.
    pub fn snapshot(&mut self, objects: &Objects, namespace: &str) -> Snapshot {
        let is_there = |id: &ObjectId| objects.get(id).is_some_and(|o| !o.is_deleting);
        self.verdicts.retain(|id, _| is_there(id));
        for (id, object) in objects.iter().filter(|(id, o)| DESCRIBING.contains(&id.0) && !o.is_deleting) {
            let seen = (object.uid.clone(), object.generation);
            let last = self.verdicts.remove(id);
            let verdict = match last {
                Some(last) if last.seen.as_ref() == Some(&seen) => last,
                last => {
                    // One deleted and made again under its name is another object.
                    let good = last.and_then(|l| l.good).filter(|held| held.resource.uid() == Some(&object.uid));
                    self.judge(object, namespace, good)
                }
            };
            self.verdicts.insert(id.clone(), verdict);
        }
        let good: Vec<&Held> = self.verdicts.values().filter_map(|v| v.good.as_ref()).collect();
        let drafts: Vec<_> = good.iter().map(|held| held.draft()).collect();
        let (rules, crossed) = validate(&drafts, Some(&self.set));
        let accepted = good.iter().map(|held| {
            let spec = Kept::of(Default::default(), held);
            (held.name(), Accepted { generation: held.generation, spec })
        });
        let accepted = accepted.collect();
        self.set = rules.clone();
        let mut problems: Vec<Problem> = self.verdicts.values().flat_map(|v| v.problems.clone()).collect();
        problems.extend(crossed);
        Snapshot { rules, problems, accepted }
    }

    fn judge(&self, object: &Object, namespace: &str, last: Option<Held>) -> Verdict {
        let node = Node::from_json(&object.document(namespace));
        let seen = Some((object.uid.clone(), object.generation));
        match judge(&node, String::new(), last.as_ref(), Some(object.generation)) {
            Ok(held) => Verdict { seen, good: Some(held), problems: Vec::new() },
            Err(findings) => {
                let document = format!("{}/{namespace}/{}", object.kind, object.name);
                let stays = if last.is_some() { "; its last accepted form stays in force" } else { "" };
                let problem = |f: Finding| Problem {
                    document: document.clone(),
                    place: f.field,
                    reason: f.reason,
                    message: format!("{}{stays}", f.message),
                };
                Verdict { seen, good: last, problems: findings.into_iter().map(problem).collect() }
            }
        }
    }
}

/// Where a watch tells what it sees.
pub struct Tell {
    /// `None` until every kind was listed.
    pub objects: Sender<Option<Arc<Objects>>>,
    pub rules: Sender<Snapshot>,
}

/// Watches until `token` is cancelled. Never fails: what is wrong stands in the problems, and a server that is away is
/// tried again for ever. `secrets`: writes what the objects refer to below the folder of references.
pub async fn watch(
    cluster: Cluster,
    judged: Judged,
    refs: Refs,
    mut secrets: Option<Secrets>,
    tell: Tell,
    token: CancellationToken,
) {
    let streams = cluster::KINDS.map(|kind| {
        let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        let events = watcher(cluster.api(kind), config).backoff(pauses());
        events.map(move |event| (kind, event)).boxed()
    });
    let mut events = futures::stream::select_all(streams);
    let (mut seen, mut judged) = (Seen::default(), judged);
    let mut looks = tokio::time::interval(LOOK);
    let mut gathered = std::pin::pin!(tokio::time::sleep(GATHER));
    let mut news = News::None;
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            Some((kind, event)) = events.next() => {
                cluster.heard(kind, event.as_ref().err().map(|e| e as &dyn std::error::Error));
                let more = event.map_or(News::None, |event| seen.take(kind, event));
                if news == News::None && more > news {
                    gathered.as_mut().reset(tokio::time::Instant::now() + GATHER);
                }
                news = news.max(more);
            }
            () = gathered.as_mut(), if news > News::None && seen.is_complete() => {
                let objects = Arc::new(seen.objects());
                if std::mem::replace(&mut news, News::None) == News::Shown {
                    // What we wrote ourselves comes back: it is no reason to judge a thousand rules again.
                    tell.objects.send_replace(Some(objects));
                    continue;
                }
                let (of, namespace) = (objects.clone(), cluster.namespace.clone());
                // A thousand CEL rules take their time: never on the async threads.
                let work = tokio::task::spawn_blocking(move || {
                    let snapshot = judged.snapshot(&of, &namespace);
                    (judged, snapshot)
                });
                // It fails only when the runtime ends, or by a panic, which ends the process.
                let Ok((back, snapshot)) = work.await else { return };
                judged = back;
                if let Some(secrets) = &mut secrets {
                    secrets.want(&cluster, &snapshot.rules);
                }
                show(&tell.rules, snapshot, &refs);
                tell.objects.send_replace(Some(objects));
            }
            () = next(&mut secrets) => again(&tell.rules, &refs),
            _ = looks.tick() => {
                cluster.ask_again().await;
                if seen.is_complete() {
                    again(&tell.rules, &refs);
                }
            }
        }
    }
}

/// Waits for a Secret that was written; for ever where none is watched.
async fn next(secrets: &mut Option<Secrets>) {
    match secrets {
        Some(secrets) => secrets.next().await,
        None => std::future::pending().await,
    }
}

fn show(rules: &Sender<Snapshot>, mut snapshot: Snapshot, refs: &Refs) {
    snapshot.problems.extend(refs.missing(&snapshot.rules));
    rules.send_if_modified(|shown| {
        let is_other = *shown != snapshot;
        if is_other {
            *shown = snapshot;
        }
        is_other
    });
}

/// The same set, with the references that are missing now.
fn again(rules: &Sender<Snapshot>, refs: &Refs) {
    let mut snapshot = rules.borrow().clone();
    snapshot.problems.retain(|p| !super::refs::IS_MISSING.contains(&p.reason));
    show(rules, snapshot, refs);
}

fn pauses() -> watcher::ExponentialBackoff {
    let builder = backon::ExponentialBuilder::default().with_min_delay(PAUSE.0).with_max_delay(PAUSE.1);
    builder.with_factor(2.0).with_jitter().without_max_times().into()
}

/// What an event changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    None,
    /// Status or finalizers.
    Shown,
    /// What the object asks for, or whether it is there.
    Asked,
}

impl News {
    fn between(before: Option<&Arc<Object>>, after: Option<&Arc<Object>>) -> News {
        let asked = |o: &Arc<Object>| (o.uid.clone(), o.generation, o.is_deleting);
        match (before, after) {
            (before, after) if before == after => News::None,
            (before, after) if before.map(asked) == after.map(asked) => News::Shown,
            _ => News::Asked,
        }
    }
}

/// What the streams have brought so far.
#[derive(Default)]
struct Seen {
    objects: BTreeMap<&'static str, BTreeMap<String, Arc<Object>>>,
    /// Lists under way: they take the place of what was there when they are complete, and not before.
    coming: BTreeMap<&'static str, BTreeMap<String, Arc<Object>>>,
    listed: BTreeSet<&'static str>,
}

impl Seen {
    /// Takes an event, and says what it changes.
    fn take(&mut self, kind: &'static str, event: Event<DynamicObject>) -> News {
        let named = |object: DynamicObject| {
            let object = Object::of(kind, object);
            (object.name.clone(), Arc::new(object))
        };
        match event {
            Event::Init => {
                self.coming.insert(kind, BTreeMap::new());
                News::None
            }
            Event::InitApply(object) => {
                self.coming.entry(kind).or_default().extend([named(object)]);
                News::None
            }
            Event::InitDone => {
                let all = self.coming.remove(kind).unwrap_or_default();
                let is_first = self.listed.insert(kind);
                let before = self.objects.insert(kind, all);
                if is_first || before.as_ref() != self.objects.get(kind) { News::Asked } else { News::None }
            }
            Event::Apply(object) => {
                let (name, object) = named(object);
                let before = self.objects.entry(kind).or_default().insert(name, object.clone());
                News::between(before.as_ref(), Some(&object))
            }
            Event::Delete(object) => {
                let name = object.metadata.name.unwrap_or_default();
                News::between(self.objects.entry(kind).or_default().remove(&name).as_ref(), None)
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.listed.len() == cluster::KINDS.len()
    }

    fn objects(&self) -> Objects {
        let all = self.objects.iter().flat_map(|(kind, named)| named.iter().map(move |(n, o)| ((*kind, n.clone()), o)));
        all.map(|(id, object)| (id, object.clone())).collect()
    }
}

#[cfg(test)]
mod tests;
