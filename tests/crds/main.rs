//! The custom resource definitions: that `crds/` is what the types say, and that CEL refuses what it should with a
//! sentence that helps, through the generated validators and, where there is one, at a real API server.
mod api_server;
mod cases;
#[path = "../kube/environment.rs"]
mod environment;

use cases::{Case, cases, good};
use isthmus::rule::resource::{FailoverDrill, ReplicationJob, Resource, crd};
use kube::core::cel::ValidationErrors;
use serde_json::Value as Json;
use std::path::Path;

#[test]
fn the_definitions_in_the_tree_are_those_of_the_types() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    for (file, definition) in crd::crds() {
        let held = std::fs::read_to_string(dir.join(&file)).unwrap_or_default();
        assert!(held == crd::yaml(&definition), "crds/{file} differs from the types; run: cargo run -- crds");
    }
    let files = std::fs::read_dir(&dir).expect("crds/ is there").count();
    assert_eq!(files, crd::crds().len(), "crds/ holds a file that no kind writes");
}

/// What the validators say of a document: messages only.
fn said(kind: &str, new: &Json, old: Option<&Json>) -> Vec<String> {
    let listed = |r: Result<(), ValidationErrors>| -> Vec<String> {
        r.err().map(|e| e.into_vec().into_iter().map(|e| e.message).collect()).unwrap_or_default()
    };
    fn read<K: serde::de::DeserializeOwned>(json: &Json) -> K {
        serde_json::from_value(json.clone()).unwrap_or_else(|e| panic!("{e}: {json}"))
    }
    match (kind, old) {
        ("ReplicationJob", None) => listed(read::<ReplicationJob>(new).validate_cel()),
        ("ReplicationJob", Some(old)) => listed(read::<ReplicationJob>(new).validate_cel_update(&read(old))),
        ("FailoverDrill", None) => listed(read::<FailoverDrill>(new).validate_cel()),
        ("FailoverDrill", Some(old)) => listed(read::<FailoverDrill>(new).validate_cel_update(&read(old))),
        _ => {
            let resource =
                |json: &Json| Resource::from_json(kind, json.clone()).unwrap_or_else(|e| panic!("{e}: {json}"));
            let old = old.map(resource);
            resource(new).check_cel(old.as_ref()).into_iter().map(|(_, message)| message).collect()
        }
    }
}

#[test]
fn good_documents_and_allowed_changes_pass() {
    for (kind, document) in good() {
        assert_eq!(said(kind, &document, None), Vec::<String>::new(), "{kind}");
        assert_eq!(said(kind, &document, Some(&document)), Vec::<String>::new(), "{kind} unchanged");
    }
}

#[test]
fn what_cel_refuses_is_refused_with_its_sentence() {
    for Case { kind, before, document, message } in cases() {
        let said = said(kind, &document, before.as_ref());
        assert!(said.iter().any(|m| m == message), "{kind}: wanted `{message}`, was told {said:?}: {document}");
    }
}

/// Every rule of the definitions has a case, so that a new rule is not left untested.
#[test]
fn every_rule_of_the_definitions_has_a_case() {
    let tested: Vec<&str> = cases().iter().map(|case| case.message).collect();
    let mut untested = Vec::new();
    for (file, definition) in crd::crds() {
        walk(&definition["spec"]["versions"][0]["schema"], &mut |message| {
            if !tested.contains(&message) {
                untested.push(format!("{file}: {message}"));
            }
        });
    }
    assert!(untested.is_empty(), "{untested:#?}");
}

fn walk(json: &Json, see: &mut dyn FnMut(&str)) {
    match json {
        Json::Object(map) => {
            for rule in map.get("x-kubernetes-validations").and_then(Json::as_array).into_iter().flatten() {
                see(rule["message"].as_str().expect("every rule says what to write instead"));
            }
            map.values().for_each(|child| walk(child, see));
        }
        Json::Array(items) => items.iter().for_each(|child| walk(child, see)),
        _ => {}
    }
}
