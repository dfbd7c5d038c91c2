//! The same documents at a real API server, where `ISTHMUS_E2E_KUBECONFIGS` names one: it takes the definitions, the good
//! documents, and refuses the others in the same words. Everything is a dry run but the definitions and one namespace.
use super::cases::{Case, cases, good};
use super::environment;
use isthmus::rule::resource::crd;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value as Json, json};
use std::time::Duration;

const NAMESPACE: &str = "isthmus-crd-test";

fn api(client: &Client, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match kind {
        "CustomResourceDefinition" | "Namespace" => Api::all_with(client.clone(), &resource),
        _ => Api::namespaced_with(client.clone(), NAMESPACE, &resource),
    }
}

async fn apply(api: &Api<DynamicObject>, name: &str, object: &Json) {
    let how = PatchParams::apply("isthmus-test").force();
    api.patch(name, &how, &Patch::Apply(object)).await.unwrap_or_else(|e| panic!("apply {name}: {e}"));
}

async fn install(client: &Client) {
    let definitions = api(client, "apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    for (_, definition) in crd::crds() {
        apply(&definitions, definition["metadata"]["name"].as_str().unwrap(), &definition).await;
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply(&api(client, "", "v1", "Namespace"), NAMESPACE, &namespace).await;
    let by = tokio::time::Instant::now() + Duration::from_secs(30);
    for (_, definition) in crd::crds() {
        let name = definition["metadata"]["name"].as_str().unwrap();
        loop {
            let held = definitions.get(name).await.expect("read a definition").data;
            let conditions = held["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is = |kind: &str, status: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == status);
            assert!(!is("NonStructuralSchema", "True"), "{name}: {conditions:?}");
            if is("Established", "True") {
                break;
            }
            assert!(tokio::time::Instant::now() < by, "{name} is not established: {conditions:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn object(document: &Json) -> DynamicObject {
    serde_json::from_value(document.clone()).expect("a document is an object")
}

#[tokio::test]
async fn an_api_server_takes_the_definitions_and_says_the_same_as_the_validators() {
    let Some(kubeconfig) = environment::kubeconfig() else { return };
    let client = environment::client(kubeconfig).await;
    install(&client).await;
    let of = |kind: &str| api(&client, "replication.isthmus.dev", "v1alpha1", kind);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    for (kind, document) in good() {
        of(kind).create(&dry, &object(&document)).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
    }
    for Case { kind, before, document, message } in cases() {
        let objects = of(kind);
        let said = match before {
            None => objects.create(&dry, &object(&document)).await.map(drop),
            Some(before) => {
                let mut held = objects.create(&PostParams::default(), &object(&before)).await.expect("create");
                let name = held.metadata.name.clone().expect("it has a name");
                held.data["spec"] = document["spec"].clone();
                let said = objects.replace(&name, &dry, &held).await.map(drop);
                objects.delete(&name, &Default::default()).await.expect("delete");
                said
            }
        };
        match said {
            Err(kube::Error::Api(refused)) if refused.message.contains(message) => {}
            other => panic!("{kind}: wanted `{message}`, was told {other:?}"),
        }
    }
}
