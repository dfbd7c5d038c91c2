//! The custom resources of `replication.isthmus.dev/v1alpha1`; a rule file is the same document.
//!
//! Every kind is namespaced; every reference is a bare name in the same namespace. Where a document and these
//! types differ, the types win. Rules for the kinds' files: a `///` on every field (`kubectl explain` shows it);
//! every string under CEL has a maximum length and every list a maximum size (the API server prices CEL by
//! them); status words are strings, so that an older binary still reads what a newer one wrote.
#![allow(
    clippy::duplicated_attributes,
    reason = "each printcolumn of kube has keys of its own; the lint mixes them up"
)]
pub mod crd;
pub mod drill;
pub mod job;
pub mod peer;
pub mod replication_rule;
pub mod shared;
pub mod site;

pub use drill::FailoverDrill;
pub use job::ReplicationJob;
pub use peer::Peer;
pub use replication_rule::ReplicationRule;
pub use site::Site;

use kube::CustomResourceExt;
use kube::core::cel::{CompiledSchema, ValidationErrors, Validator, compile_schema};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Group and version of every kind.
pub const API_VERSION: &str = "replication.isthmus.dev/v1alpha1";

/// Kinds that describe replication; the other two ask for something once.
pub const DESCRIBING: [&str; 3] = ["Site", "Peer", "ReplicationRule"];
/// Those two.
pub const ASKING: [&str; 2] = ["ReplicationJob", "FailoverDrill"];

/// A document whose spec could be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    Site(Box<Site>),
    Peer(Box<Peer>),
    Rule(Box<ReplicationRule>),
}

/// A document that asks for something once, whose spec could be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Asking {
    Job(Box<ReplicationJob>),
    Drill(Box<FailoverDrill>),
}

/// Schema of a kind's spec, as the API server holds it; `None`: no such kind.
pub fn spec_schema(kind: &str) -> Option<&'static Json> {
    static SCHEMAS: OnceLock<BTreeMap<&'static str, Json>> = OnceLock::new();
    let all = SCHEMAS.get_or_init(|| {
        BTreeMap::from([
            ("Site", schema_of::<Site>()),
            ("Peer", schema_of::<Peer>()),
            ("ReplicationRule", schema_of::<ReplicationRule>()),
            ("ReplicationJob", schema_of::<ReplicationJob>()),
            ("FailoverDrill", schema_of::<FailoverDrill>()),
        ])
    });
    all.get(kind)
}

fn schema_of<K: CustomResourceExt>() -> Json {
    let mut spec = whole_schema_of::<K>()["properties"]["spec"].take();
    crd::without_nullable(&mut spec);
    spec
}

fn whole_schema_of<K: CustomResourceExt>() -> Json {
    let mut crd = serde_json::to_value(K::crd()).expect("a CRD is JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

/// The CEL rules of a kind, compiled once: a set may have a thousand documents.
fn cel_rules(kind: &str) -> Option<&'static CompiledSchema> {
    static RULES: OnceLock<BTreeMap<&'static str, CompiledSchema>> = OnceLock::new();
    let all = RULES.get_or_init(|| {
        BTreeMap::from([
            ("Site", compile_schema(&whole_schema_of::<Site>())),
            ("Peer", compile_schema(&whole_schema_of::<Peer>())),
            ("ReplicationRule", compile_schema(&whole_schema_of::<ReplicationRule>())),
            ("ReplicationJob", compile_schema(&whole_schema_of::<ReplicationJob>())),
            ("FailoverDrill", compile_schema(&whole_schema_of::<FailoverDrill>())),
        ])
    });
    all.get(kind)
}

/// What the CEL rules of one of the kinds say of a document with its defaults, as (field, message).
fn check_cel(kind: &str, document: &Json, old: Option<&Json>) -> Vec<(String, String)> {
    let rules = cel_rules(kind).expect("it is one of the kinds");
    let listed = |e: ValidationErrors| e.into_vec().into_iter().map(|e| (e.field_path, e.message)).collect();
    Validator::new().validate_compiled(rules, document, old).err().map(listed).unwrap_or_default()
}

impl Resource {
    /// A document of a kind that describes replication; its spec has been held against [`spec_schema`].
    ///
    /// # Errors
    /// What serde says, where the schema let something through; or that the kind is not read from documents.
    pub fn from_json(kind: &str, document: Json) -> Result<Self, String> {
        let said = |e: serde_json::Error| e.to_string();
        match kind {
            "Site" => Ok(Resource::Site(Box::new(serde_json::from_value(document).map_err(said)?))),
            "Peer" => Ok(Resource::Peer(Box::new(serde_json::from_value(document).map_err(said)?))),
            "ReplicationRule" => Ok(Resource::Rule(Box::new(serde_json::from_value(document).map_err(said)?))),
            other => Err(format!("kind {other} describes no replication")),
        }
    }

    /// The document as JSON, as [`Resource::from_json`] reads it.
    pub fn to_json(&self) -> Json {
        let json = match self {
            Resource::Site(site) => serde_json::to_value(site),
            Resource::Peer(peer) => serde_json::to_value(peer),
            Resource::Rule(rule) => serde_json::to_value(rule),
        };
        json.expect("a document that was read has string keys")
    }

    /// What the CEL rules of the kind say, as (field, message); `old` is the spec that held before.
    pub fn check_cel(&self, old: Option<&Resource>) -> Vec<(String, String)> {
        let old = old.filter(|old| old.kind() == self.kind()).map(Resource::to_json);
        check_cel(self.kind(), &self.to_json(), old.as_ref())
    }

    /// Kind of the document.
    pub fn kind(&self) -> &'static str {
        match self {
            Resource::Site(_) => "Site",
            Resource::Peer(_) => "Peer",
            Resource::Rule(_) => "ReplicationRule",
        }
    }

    /// metadata.name; empty where there is none.
    pub fn name(&self) -> &str {
        let meta = match self {
            Resource::Site(r) => &r.metadata,
            Resource::Peer(r) => &r.metadata,
            Resource::Rule(r) => &r.metadata,
        };
        meta.name.as_deref().unwrap_or_default()
    }

    /// metadata.uid, where an API server gave one.
    pub fn uid(&self) -> Option<&String> {
        match self {
            Resource::Site(r) => r.metadata.uid.as_ref(),
            Resource::Peer(r) => r.metadata.uid.as_ref(),
            Resource::Rule(r) => r.metadata.uid.as_ref(),
        }
    }

    /// metadata.namespace, where the document names one.
    pub fn namespace(&self) -> Option<&str> {
        let meta = match self {
            Resource::Site(r) => &r.metadata,
            Resource::Peer(r) => &r.metadata,
            Resource::Rule(r) => &r.metadata,
        };
        meta.namespace.as_deref()
    }
}

impl Asking {
    /// A document of a kind that asks for something once; its spec has been held against [`spec_schema`].
    ///
    /// # Errors
    /// As [`Resource::from_json`].
    pub fn from_json(kind: &str, document: Json) -> Result<Self, String> {
        let said = |e: serde_json::Error| e.to_string();
        match kind {
            "ReplicationJob" => Ok(Asking::Job(Box::new(serde_json::from_value(document).map_err(said)?))),
            "FailoverDrill" => Ok(Asking::Drill(Box::new(serde_json::from_value(document).map_err(said)?))),
            other => Err(format!("kind {other} asks for nothing")),
        }
    }

    /// What the CEL rules of the kind say, as (field, message).
    pub fn check_cel(&self) -> Vec<(String, String)> {
        let (kind, json) = match self {
            Asking::Job(job) => ("ReplicationJob", serde_json::to_value(job)),
            Asking::Drill(drill) => ("FailoverDrill", serde_json::to_value(drill)),
        };
        check_cel(kind, &json.expect("a document that was read has string keys"), None)
    }
}
