//! The custom resource definitions as an administrator installs them: what `isthmus crds` writes.
//!
//! Pure. The types are the source; `crds/` is their output and `tests/crds.rs` fails when the two differ.
use super::{FailoverDrill, Peer, ReplicationJob, ReplicationRule, Site};
use kube::CustomResourceExt;
use serde_json::Value as Json;

/// Every definition with the name of its file, in the order of the kinds.
pub fn crds() -> Vec<(String, Json)> {
    vec![
        definition::<Site>(),
        definition::<Peer>(),
        definition::<ReplicationRule>(),
        definition::<ReplicationJob>(),
        definition::<FailoverDrill>(),
    ]
}

/// A definition as YAML, with a head that says where it comes from.
pub fn yaml(definition: &Json) -> String {
    let body = serde_saphyr::to_string(definition).expect("a definition has string keys");
    format!("# Written by `isthmus crds`; change src/rule/resource instead.\n{body}")
}

fn definition<K: CustomResourceExt>() -> (String, Json) {
    let mut crd = serde_json::to_value(K::crd()).expect("a definition is JSON");
    without_nullable(&mut crd["spec"]["versions"]);
    let plural = crd["spec"]["names"]["plural"].as_str().expect("the derive names it").to_string();
    (format!("{plural}.yaml"), crd)
}

/// A field that may be left out is left out; the derive would also let it be null, and `null` would then be stored.
pub(super) fn without_nullable(json: &mut Json) {
    match json {
        Json::Object(map) => {
            if map.get("nullable") == Some(&Json::Bool(true)) {
                map.remove("nullable");
            }
            map.values_mut().for_each(without_nullable);
        }
        Json::Array(items) => items.iter_mut().for_each(without_nullable),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_says_what_it_is_for() {
        for (file, crd) in crds() {
            let mut silent = Vec::new();
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
            for part in ["spec", "status"] {
                look(&schema[part], part, &mut silent);
            }
            assert!(silent.is_empty(), "{file}: no description of {silent:?}");
        }
    }

    fn look(schema: &Json, path: &str, silent: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            // Conditions are Kubernetes' own; their inside is described there.
            if property["description"].as_str().is_none_or(str::is_empty) {
                silent.push(path.clone());
            }
            if name != "conditions" {
                look(property, &path, silent);
                look(&property["items"], &path, silent);
            }
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for (file, crd) in crds() {
            let read: Json = serde_saphyr::from_str(&yaml(&crd)).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert_eq!(read, crd, "{file}");
        }
    }

    #[test]
    fn people_see_lag_aged_by_the_server_backlog_and_reason() {
        let (_, rule) = crds().into_iter().find(|(file, _)| file == "replicationrules.yaml").expect("it is there");
        let columns = rule["spec"]["versions"][0]["additionalPrinterColumns"].as_array().expect("columns").clone();
        let column = |name: &str| columns.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        // A date column is rendered as its age at each get, so it ages without status writes.
        assert_eq!(
            (&column("Lag")["type"], &column("Lag")["jsonPath"]),
            (&"date".into(), &".status.oldestPendingTime".into())
        );
        column("Backlog");
        column("Reason");
        assert!(columns.iter().all(|c| !c["jsonPath"].as_str().unwrap().contains("[0]")), "by type, never by index");
    }
}
