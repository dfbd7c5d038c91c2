//! The API server as a person sees it, with the rights of whoever owns the kubeconfig.
use super::environment;
use isthmus::rule::resource::crd;
use kube::Client;
use kube::api::{Api as Objects, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// One API server.
pub struct Api {
    client: Client,
    /// `host:port`, and the PEM of its CA as a kubeconfig has it.
    pub address: String,
    pub authority: Json,
}

impl Api {
    /// The first of the list; `None`: there is none, and that is said.
    pub async fn of_environment() -> Option<Api> {
        Some(Api::of(environment::kubeconfig()?).await)
    }

    /// All API servers of the list; `None`: there is none, and that is said.
    pub async fn all_of_environment() -> Option<Vec<Api>> {
        Some(futures::future::join_all(environment::kubeconfigs()?.into_iter().map(Api::of)).await)
    }

    async fn of(kubeconfig: Kubeconfig) -> Api {
        let cluster = serde_json::to_value(&kubeconfig.clusters[0].cluster).expect("it is JSON");
        let server = cluster["server"].as_str().expect("it names a server").trim_start_matches("https://").to_string();
        let mut authority = cluster;
        authority
            .as_object_mut()
            .expect("a map")
            .retain(|key, value| key.starts_with("certificate-authority") && !value.is_null());
        let client = environment::client(kubeconfig).await;
        let api = Api { client, address: server.trim_end_matches('/').into(), authority };
        api.install().await;
        api
    }

    fn objects(&self, namespace: &str, kind: &str) -> Objects<DynamicObject> {
        let (group, version) = match kind {
            "Namespace" | "ServiceAccount" | "Secret" => ("", "v1"),
            "Role" | "RoleBinding" => ("rbac.authorization.k8s.io", "v1"),
            "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1"),
            "Event" => ("events.k8s.io", "v1"),
            _ => ("replication.isthmus.dev", "v1alpha1"),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match kind {
            "Namespace" | "CustomResourceDefinition" => Objects::all_with(self.client.clone(), &resource),
            _ => Objects::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    async fn install(&self) {
        for (_, definition) in crd::crds() {
            self.apply_object("", definition).await;
        }
        let by = Instant::now() + PATIENCE;
        for (_, definition) in crd::crds() {
            let name = definition["metadata"]["name"].as_str().expect("a name");
            loop {
                let held = self.objects("", "CustomResourceDefinition").get(name).await.expect("read it").data;
                if held["status"]["conditions"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|c| c["type"] == "Established" && c["status"] == "True"))
                {
                    break;
                }
                assert!(Instant::now() < by, "{name} is not established");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Applies any object.
    pub async fn apply_object(&self, namespace: &str, object: Json) {
        let (kind, name) =
            (object["kind"].as_str().expect("a kind"), object["metadata"]["name"].as_str().expect("a name"));
        let how = PatchParams::apply("isthmus-e2e").force();
        let applied = self.objects(namespace, kind).patch(name, &how, &Patch::Apply(&object)).await;
        applied.unwrap_or_else(|e| panic!("apply {kind} {name}: {e}"));
    }

    /// Applies an object of our kinds.
    pub async fn apply(&self, namespace: &str, kind: &str, name: &str, spec: Json) {
        let object = json!({"apiVersion": "replication.isthmus.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        self.apply_object(namespace, object).await;
    }

    pub async fn merge(&self, namespace: &str, kind: &str, name: &str, change: Json) {
        let merged = self.objects(namespace, kind).patch(name, &PatchParams::default(), &Patch::Merge(&change)).await;
        merged.unwrap_or_else(|e| panic!("change {kind} {name}: {e}"));
    }

    pub async fn get(&self, namespace: &str, kind: &str, name: &str) -> Option<DynamicObject> {
        self.objects(namespace, kind).get_opt(name).await.expect("read an object")
    }

    pub async fn delete(&self, namespace: &str, kind: &str, name: &str) {
        self.objects(namespace, kind).delete(name, &DeleteParams::default()).await.expect("delete an object");
    }

    pub async fn delete_role_binding(&self, namespace: &str) {
        self.delete(namespace, "RoleBinding", "isthmus-replicator").await;
    }

    /// Waits until the status of an object is as wanted, and gives it.
    pub async fn until(&self, namespace: &str, kind: &str, name: &str, holds: impl Fn(&Json) -> bool) -> Json {
        let by = Instant::now() + PATIENCE;
        loop {
            let status = self.get(namespace, kind, name).await.map(|o| o.data["status"].clone()).unwrap_or_default();
            if holds(&status) {
                return status;
            }
            assert!(Instant::now() < by, "{kind} {name} stays: {status:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn until_gone(&self, namespace: &str, kind: &str, name: &str) {
        let by = Instant::now() + PATIENCE;
        while let Some(object) = self.get(namespace, kind, name).await {
            assert!(Instant::now() < by, "{kind} {name} stays: {:?}", object.metadata);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until Events of a namespace have all these reasons: they follow the status that they tell of.
    pub async fn until_said(&self, namespace: &str, reasons: &[&str]) {
        let by = Instant::now() + PATIENCE;
        loop {
            let events = self.events(namespace).await;
            let Some(missing) = reasons.iter().find(|reason| !events.iter().any(|e| e == *reason)) else { return };
            assert!(Instant::now() < by, "{missing} is not among {events:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reasons of the Events of a namespace.
    async fn events(&self, namespace: &str) -> Vec<String> {
        let all = self.objects(namespace, "Event").list(&ListParams::default()).await.expect("list events");
        all.items.into_iter().filter_map(|e| e.data["reason"].as_str().map(String::from)).collect()
    }

    /// A token of a ServiceAccount.
    pub async fn token(&self, namespace: &str, account: &str) -> String {
        let accounts: Objects<k8s_openapi::api::core::v1::ServiceAccount> =
            Objects::namespaced(self.client.clone(), namespace);
        let request = k8s_openapi::api::authentication::v1::TokenRequest::default();
        let answer =
            accounts.create_token_request(account, &PostParams::default(), &request).await.expect("ask for a token");
        answer.status.expect("it was given").token
    }
}
