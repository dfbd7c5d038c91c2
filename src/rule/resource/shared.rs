//! Shapes that several kinds share: references, sizes, durations, switches, conditions.
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub(super) fn schema(v: serde_json::Value) -> Schema {
    v.try_into().expect("a schema object")
}

/// metav1.Condition as Kubernetes itself validates it; a list map keyed by type.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    schema(json!({
        "type": "array", "maxItems": 16,
        "description": "What holds now, one entry a type; Ready is the summary.",
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {"type": "object", "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 316},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                "message": {"type": "string", "maxLength": 32768}}}
    }))
}

/// Bytes, or bytes a second, as a Kubernetes quantity string such as `100Mi`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub String);
impl JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema(json!({"type": "string", "maxLength": 20, "pattern": "^[0-9]+(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"}))
    }
}
/// A duration in the Gateway API's form (GEP-2257), such as `30s` or `1h15m`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Duration(pub String);
impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema(json!({"type": "string", "maxLength": 24, "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}))
    }
}

/// The name of an object in the same namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub struct NameRef {
    /// Name of the object; its namespace is that of the object that refers to it.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
/// Kind of object that holds a CA bundle or a revocation list.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub enum CaKind {
    Secret,
    ConfigMap,
}
/// Where a PEM bundle of CA certificates stands. There is no namespace field on purpose.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub struct CaRef {
    /// Secret or ConfigMap.
    pub kind: CaKind,
    /// Name of the object in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within the object; the bundle may hold two CAs during a roll-over.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}
fn ca_key() -> String {
    "ca.crt".into()
}
/// Where a PEM bundle of certificate revocation lists stands.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub struct CrlRef {
    /// Secret or ConfigMap.
    pub kind: CaKind,
    /// Name of the object in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within the object; one list for each CA of the bundle.
    #[serde(default = "crl_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}
fn crl_key() -> String {
    "ca.crl".into()
}

/// On or off, as a word that can gain a third value later.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub enum Switch {
    Enabled,
    Disabled,
}
pub(super) fn on() -> Switch {
    Switch::Enabled
}
pub(super) fn off() -> Switch {
    Switch::Disabled
}
pub(super) fn region() -> String {
    "us-east-1".into()
}
pub(super) fn yes() -> bool {
    true
}
