//! An API server in memory, behind `kube::Client`: enough of one for the watcher, the status writer and the Lease. It keeps
//! versions, refuses writes of an old one, watches by version, honours finalizers, and fails on request.
use super::cluster::Cluster;
use http_body_util::BodyExt as _;
use hyper::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// A server; clones are the same one.
#[derive(Clone, Default)]
pub struct Mock {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By collection (such as `peers`) and name.
    objects: BTreeMap<(String, String), Json>,
    /// What watches show: version, collection, event.
    log: Vec<(u64, String, Json)>,
    /// Requests to a collection are answered with this code.
    failing: BTreeMap<String, u16>,
    /// Writes taken: method, path, body.
    writes: Vec<(String, String, Json)>,
    /// Every answer takes so long.
    pause: Duration,
    /// Verb and resource that are not allowed.
    denied: Vec<(String, String)>,
}

impl Mock {
    /// The way to it.
    pub fn cluster(&self) -> Cluster {
        let mock = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let mock = mock.clone();
            async move { Ok::<_, Infallible>(mock.answer(request).await) }
        });
        Cluster::new(Client::new(service, "default"), "default")
    }

    /// Puts an object there, as a person would; its generation rises.
    pub fn put(&self, kind: &str, name: &str, spec: Json) {
        let collection = collection(kind);
        let mut state = self.state.lock().unwrap();
        let key = (collection.clone(), name.to_string());
        let old = state.objects.get(&key).cloned();
        let generation = old.as_ref().map_or(1, |o| o["metadata"]["generation"].as_u64().unwrap() + 1);
        let uid = old
            .as_ref()
            .map_or_else(|| json!(format!("uid-{name}-{}", state.version)), |o| o["metadata"]["uid"].clone());
        let status = old.map(|o| o["status"].clone()).unwrap_or_default();
        let metadata = json!({"name": name, "namespace": "default", "uid": uid, "generation": generation});
        let object = json!({"apiVersion": "replication.isthmus.dev/v1alpha1", "kind": kind, "metadata": metadata,
            "spec": spec, "status": status});
        state.keep(key, object);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Deletes an object, as a person would: it stays as long as it has finalizers.
    pub fn delete(&self, kind: &str, name: &str) {
        self.state.lock().unwrap().delete((collection(kind), name.to_string()));
        self.changed.notify_waiters();
    }

    /// Requests to a collection fail from now on; `None`: they succeed.
    pub fn fail(&self, kind: &str, code: Option<u16>) {
        let mut state = self.state.lock().unwrap();
        match code {
            Some(code) => drop(state.failing.insert(collection(kind), code)),
            None => drop(state.failing.remove(&collection(kind))),
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Every answer takes so long from now on.
    pub fn slow(&self, pause: Duration) {
        self.state.lock().unwrap().pause = pause;
    }

    /// This is not allowed.
    pub fn deny(&self, verb: &str, resource: &str) {
        self.state.lock().unwrap().denied.push((verb.into(), resource.into()));
    }

    /// An object as it is; null: it is not there.
    pub fn get(&self, kind: &str, name: &str) -> Json {
        self.state.lock().unwrap().objects.get(&(collection(kind), name.into())).cloned().unwrap_or_default()
    }

    /// Writes taken so far to paths that contain `part`.
    pub fn writes(&self, part: &str) -> Vec<Json> {
        let state = self.state.lock().unwrap();
        state.writes.iter().filter(|(_, path, _)| path.contains(part)).map(|(_, _, body)| body.clone()).collect()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let pause = self.state.lock().unwrap().pause;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body in memory").to_bytes();
        let body: Json = serde_json::from_slice(&body).unwrap_or_default();
        let parts: Vec<String> = head.uri.path().trim_matches('/').split('/').map(String::from).collect();
        if parts.last().is_some_and(|p| p == "selfsubjectaccessreviews") {
            return self.review(body);
        }
        let at = parts.iter().position(|p| p == "namespaces").expect("all is namespaced") + 2;
        let (collection, name) = (parts[at].clone(), parts.get(at + 1).cloned());
        let failing = || self.state.lock().unwrap().failing.get(&collection).copied();
        if let Some(code) = failing() {
            return status(code, "it was asked to fail");
        }
        let query = head.uri.query().unwrap_or_default().to_string();
        if head.method == Method::GET && query.contains("watch=true") {
            let since = query.split('&').find_map(|p| p.strip_prefix("resourceVersion=")?.parse().ok()).unwrap_or(0);
            return self.watched(&collection, since).await;
        }
        let answer = self.state.lock().unwrap().answer(&head.method, head.uri.path(), collection, name, body);
        self.changed.notify_waiters();
        answer
    }

    /// What came since a version; where nothing did, waits a little.
    async fn watched(&self, collection: &str, since: u64) -> Response<Body> {
        let changed = self.changed.notified();
        let events = self.state.lock().unwrap().since(collection, since);
        if !events.is_empty() {
            return Response::new(events.into_bytes().into());
        }
        let _ = tokio::time::timeout(Duration::from_millis(200), changed).await;
        let state = self.state.lock().unwrap();
        match state.failing.get(collection) {
            Some(code) => status(*code, "it was asked to fail"),
            None => Response::new(state.since(collection, since).into_bytes().into()),
        }
    }

    fn review(&self, mut body: Json) -> Response<Body> {
        let asked = &body["spec"]["resourceAttributes"];
        let text = |key: &str| asked[key].as_str().unwrap_or_default().to_string();
        let resource = match asked["subresource"].as_str() {
            Some(sub) => format!("{}/{sub}", text("resource")),
            None => text("resource"),
        };
        let is_denied = self.state.lock().unwrap().denied.contains(&(text("verb"), resource));
        body["status"] = json!({"allowed": !is_denied});
        ok(&body)
    }
}

impl State {
    fn keep(&mut self, key: (String, String), mut object: Json) {
        self.version += 1;
        let kind = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log.push((self.version, key.0.clone(), json!({"type": kind, "object": object})));
        self.objects.insert(key, object);
    }

    fn delete(&mut self, key: (String, String)) {
        let Some(mut object) = self.objects.get(&key).cloned() else { return };
        if object["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()) {
            object["metadata"]["deletionTimestamp"] = json!("2026-11-22T00:00:00Z");
            object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_u64().unwrap_or(0) + 1);
            return self.keep(key, object);
        }
        self.version += 1;
        self.objects.remove(&key);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log.push((self.version, key.0, json!({"type": "DELETED", "object": object})));
    }

    fn since(&self, collection: &str, since: u64) -> String {
        let news = self.log.iter().filter(|(version, of, _)| *version > since && of == collection);
        news.map(|(_, _, event)| format!("{event}\n")).collect()
    }

    fn answer(
        &mut self,
        method: &Method,
        path: &str,
        collection: String,
        name: Option<String>,
        body: Json,
    ) -> Response<Body> {
        if *method != Method::GET {
            self.writes.push((method.to_string(), path.into(), body.clone()));
        }
        let Some(name) = name.or_else(|| body["metadata"]["name"].as_str().map(String::from)) else {
            let items: Vec<&Json> =
                self.objects.iter().filter(|((of, _), _)| *of == collection).map(|(_, o)| o).collect();
            let version = self.version.to_string();
            return ok(
                &json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": version}, "items": items}),
            );
        };
        let key = (collection, name);
        let held = self.objects.get(&key).cloned();
        match (method.as_str(), held) {
            ("PUT" | "POST", None) => self.keep(key.clone(), body),
            ("POST", Some(_)) => return status(409, "it exists"),
            (_, None) => return status(404, "it is not there"),
            ("GET", Some(_)) => {}
            ("PUT", Some(held)) => {
                if body["metadata"]["resourceVersion"] != held["metadata"]["resourceVersion"] {
                    return status(409, "the object has been modified");
                }
                self.keep(key.clone(), body);
            }
            ("PATCH", Some(held))
                if body["metadata"]["uid"].is_string() && body["metadata"]["uid"] != held["metadata"]["uid"] =>
            {
                return status(409, "another uid");
            }
            ("PATCH", Some(mut held)) => {
                if path.ends_with("/status") {
                    held["status"] = body["status"].clone();
                } else {
                    held["metadata"]["finalizers"] = body["metadata"]["finalizers"].clone();
                }
                let is_gone = held["metadata"]["deletionTimestamp"].is_string()
                    && held["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
                self.keep(key.clone(), held.clone());
                if is_gone {
                    self.delete(key);
                    return ok(&held);
                }
            }
            ("DELETE", Some(held)) => {
                self.delete(key);
                return ok(&held);
            }
            (other, _) => panic!("the mock knows no {other}"),
        }
        ok(&self.objects[&key])
    }
}

fn collection(kind: &str) -> String {
    format!("{}s", kind.to_lowercase())
}

fn ok(body: &Json) -> Response<Body> {
    Response::new(body.to_string().into_bytes().into())
}

fn status(code: u16, message: &str) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message,
        "reason": match code { 404 => "NotFound", 409 => "Conflict", 403 => "Forbidden", _ => "InternalError" }});
    let mut response = ok(&body);
    *response.status_mut() = hyper::StatusCode::from_u16(code).expect("a code");
    response
}

/// Specs that hold.
pub mod specs {
    use serde_json::{Value as Json, json};

    pub fn site() -> Json {
        let tls = json!({"name": "tls"});
        json!({"siteID": "fra", "trustDomain": "t", "store": {"apiEndpoint": "https://s:1", "apiTlsSecretRef": tls},
            "listener": {"advertisedEndpoint": "https://l:1", "tlsSecretRef": tls}})
    }
    pub fn peer(site_id: &str) -> Json {
        json!({"type": "Replicator", "replicator": {"siteID": site_id, "endpoint": "https://p:1",
            "tls": {"caRef": {"kind": "Secret", "name": "ca"}, "identities": ["spiffe://t/site/x/replicator"]}}})
    }
    pub fn rule(bucket: &str, peer: &str) -> Json {
        json!({"siteRef": {"name": "fra"}, "bucket": bucket, "destinations": [{"peer": peer}]})
    }
}
