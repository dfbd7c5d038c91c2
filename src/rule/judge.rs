//! One document by itself: held against its schema, its CEL rules, and what only numbers can tell. Pure.
//!
//! Both watchers judge with it, so that a folder and an API server take the same documents; an API server's objects
//! are judged too, for its definitions may be older than this binary; so does `rule/check.rs`, before anybody takes them.
//! What concerns several documents is `rule/validate.rs`.
use super::accept;
use super::resource::{API_VERSION, ASKING, Asking, DESCRIBING, Resource, spec_schema};
use super::validate::Draft;
use crate::document::{Node, Value, schema};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A document in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Where it stands: `file:line`, or empty for an object of an API server.
    pub place: String,
    pub resource: Resource,
    /// Counts the changes of its spec.
    pub generation: u64,
    pub value: accept::Accepted,
}

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub line: u64,
    /// Such as `spec.destinations[0].peer`.
    pub field: String,
    pub reason: &'static str,
    pub message: String,
}

/// A document in force as the journal keeps it; only [`Kept::restore`] reads it.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    /// Empty for an object of an API server.
    pub file: PathBuf,
    place: String,
    kind: String,
    document: serde_json::Value,
}

impl Kept {
    /// As JSON.
    pub fn of(file: PathBuf, held: &Held) -> String {
        let kept = Kept {
            file,
            place: held.place.clone(),
            kind: held.resource.kind().into(),
            document: held.resource.to_json(),
        };
        serde_json::to_string(&kept).expect("its maps have string keys")
    }

    /// What was in force; `None`: this version cannot read it, as if it had never been accepted.
    pub fn restore(generation: u64, spec: &str) -> Option<(PathBuf, Held)> {
        let Kept { file, place, kind, document } = serde_json::from_str(spec).ok()?;
        let resource = Resource::from_json(&kind, document).ok()?;
        let value = accept::accept(&resource, generation).ok()?;
        Some((file, Held { place, resource, generation, value }))
    }
}

impl Held {
    /// What `rule/validate.rs` holds against the others.
    pub fn draft(&self) -> Draft {
        let namespace = self.resource.namespace().map(str::to_string);
        Draft { place: self.place.clone(), namespace, value: self.value.clone() }
    }

    /// `kind/namespace/name`.
    pub fn name(&self) -> String {
        let namespace = self.resource.namespace().unwrap_or(super::validate::NAMESPACE);
        format!("{}/{namespace}/{}", self.resource.kind(), self.resource.name())
    }
}

/// Judges a document; `last` is its form in force. Without a `generation` of its own it counts on from the last one.
///
/// # Errors
/// All that its schema finds, or else all that its CEL rules say.
pub fn judge(node: &Node, place: String, last: Option<&Held>, generation: Option<u64>) -> Result<Held, Vec<Finding>> {
    let kind = node.text("kind").unwrap_or_default();
    if ASKING.contains(&kind) && node.text("apiVersion") == Some(API_VERSION) {
        return Err(wrong(node, "kind", "KindUnsupported", format!("{kind} is not carried out from a folder")));
    }
    let json = by_schema(node, kind, &DESCRIBING)?;
    let resource = Resource::from_json(kind, json).map_err(|e| wrong(node, "spec", "InvalidSpec", e))?;
    by_cel(node, resource.check_cel(last.map(|held| &held.resource)))?;
    let counted = || last.map_or(1, |held| held.generation + u64::from(held.resource != resource));
    let generation = generation.unwrap_or_else(counted);
    let value = accept::accept(&resource, generation).map_err(|e| wrong(node, e.field, "InvalidSpec", e.message))?;
    Ok(Held { place, resource, generation, value })
}

/// Judges a ReplicationJob or a FailoverDrill by itself, as an API server does before it takes it.
///
/// # Errors
/// As [`judge`].
pub fn judge_asking(node: &Node) -> Result<Asking, Vec<Finding>> {
    let kind = node.text("kind").unwrap_or_default();
    let json = by_schema(node, kind, &ASKING)?;
    let asking = Asking::from_json(kind, json).map_err(|e| wrong(node, "spec", "InvalidSpec", e))?;
    by_cel(node, asking.check_cel())?;
    Ok(asking)
}

fn wrong(node: &Node, field: &str, reason: &'static str, message: String) -> Vec<Finding> {
    vec![Finding { line: node.line_of(field), field: field.into(), reason, message }]
}

/// The document without its status, where its schema finds nothing.
fn by_schema(node: &Node, kind: &str, kinds: &[&str]) -> Result<Json, Vec<Finding>> {
    let schema = envelope(node, kind, kinds).map_err(|(field, message)| wrong(node, field, "UnknownKind", message))?;
    let findings = schema::check(schema, node, "");
    if !findings.is_empty() {
        let finding =
            |f: schema::Finding| Finding { line: f.line, field: f.path, reason: "InvalidSpec", message: f.message };
        return Err(findings.into_iter().map(finding).collect());
    }
    let mut json = node.to_json();
    json.as_object_mut().expect("the schema says it is a map").remove("status");
    Ok(json)
}

fn by_cel(node: &Node, broken: Vec<(String, String)>) -> Result<(), Vec<Finding>> {
    let said = |(field, message): (String, String)| wrong(node, &field, "InvalidSpec", message);
    let found: Vec<Finding> = broken.into_iter().flat_map(said).collect();
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Schema of a whole document of this kind.
///
/// # Errors
/// (field, message) when it is no document of these kinds.
fn envelope(node: &Node, kind: &str, kinds: &[&str]) -> Result<&'static Json, (&'static str, String)> {
    if !matches!(node.value, Value::Map(_)) {
        return Err(("", format!("is no document; it begins with apiVersion: {API_VERSION}")));
    }
    if node.text("apiVersion") != Some(API_VERSION) {
        return Err(("apiVersion", format!("must be {API_VERSION}")));
    }
    static SCHEMAS: OnceLock<BTreeMap<&'static str, Json>> = OnceLock::new();
    let whole = |kind| Some((kind, whole(spec_schema(kind)?)));
    let schemas = SCHEMAS.get_or_init(|| DESCRIBING.into_iter().chain(ASKING).filter_map(whole).collect());
    let known = schemas.get(kind).filter(|_| kinds.contains(&kind));
    known.ok_or_else(|| ("kind", format!("`{kind}` is none of {}", kinds.join(", "))))
}

/// Schema of a document around that of its spec.
fn whole(spec: &Json) -> Json {
    let any = serde_json::json!({"x-any": true});
    let text = serde_json::json!({"type": "string"});
    let texts = serde_json::json!({"type": "object", "additionalProperties": text});
    // What an API server adds to an object is taken as it is, so that its output can be put into a folder.
    serde_json::json!({"type": "object", "required": ["apiVersion", "kind", "metadata", "spec"], "properties": {
        "apiVersion": text, "kind": text, "spec": spec, "status": any,
        "metadata": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
            "namespace": {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
            "labels": texts, "annotations": texts, "uid": text, "resourceVersion": text, "generation": any,
            "creationTimestamp": any, "managedFields": any, "finalizers": any, "ownerReferences": any}}}})
}
