//! Kind ReplicationJob: verify, repair or backfill one rule, once.
use super::shared::{Bytes, Duration, NameRef, conditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a job does.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub enum JobType {
    Verify,
    Repair,
    Backfill,
}
/// How two versions are compared.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema, Default)]
pub enum Compare {
    #[default]
    Checksum,
    Metadata,
    Content,
}

/// Verifies, repairs or backfills one rule, once.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "replication.isthmus.dev",
    version = "v1alpha1",
    kind = "ReplicationJob",
    namespaced,
    cel,
    derive = "PartialEq",
    doc = "ReplicationJob verifies, repairs or backfills one rule once, and keeps the counts in status.",
    status = "ReplicationJobStatus",
    shortname = "rjob",
    category = "isthmus",
    printcolumn(name = "Rule", type_ = "string", json_path = ".spec.ruleRef.name"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Scanned", type_ = "integer", json_path = ".status.scanned"),
    printcolumn(name = "Different", type_ = "integer", json_path = ".status.different"),
    printcolumn(name = "Repaired", type_ = "integer", json_path = ".status.repaired"),
    printcolumn(name = "Result", type_ = "string", json_path = ".status.result"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.ruleRef == oldSelf.ruleRef && self.type == oldSelf.type && self.compare == oldSelf.compare && has(self.peer) == has(oldSelf.peer) && (!has(self.peer) || self.peer == oldSelf.peer) && has(self.prefix) == has(oldSelf.prefix) && (!has(self.prefix) || self.prefix == oldSelf.prefix)").message("only suspend, bandwidthLimit and ttlAfterFinished can change"))]
pub struct ReplicationJobSpec {
    /// The rule concerned.
    pub rule_ref: NameRef,
    /// One destination of the rule; absent means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub peer: Option<String>,
    /// Verify reports; Repair sends what differs; Backfill sends the versions older than the rule, and confirms a bucket
    /// that was deleted and made again.
    #[serde(rename = "type")]
    pub type_: JobType,
    /// Checksum and Metadata compare records: stored checksums, metadata, tags and lock. Content reads the bytes too, at
    /// both sides; not for a Peer of type S3.
    #[serde(default)]
    pub compare: Compare,
    /// Only keys that begin with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prefix: Option<String>,
    /// Bytes a second of this job, sent or, with compare: Content, read at each side; absent means the rule's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit: Option<Bytes>,
    /// The object is deleted this long after it finished; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<Duration>,
    /// Pauses the job; it resumes where it stood, or from the beginning on a link that has moved to another process.
    #[serde(default)]
    pub suspend: bool,
}
/// Observed state of a ReplicationJob.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationJobStatus {
    /// metadata.generation this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Pending, Running, Suspended, Complete or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Consistent, Divergent, Repaired or Backfilled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// When the job began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the job finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Versions compared.
    #[serde(default)]
    pub scanned: i64,
    /// Versions here that the peer lacks.
    #[serde(default)]
    pub missing: i64,
    /// Versions on both sides that differ.
    #[serde(default)]
    pub different: i64,
    /// Versions at the peer that are not here.
    #[serde(default)]
    pub extra: i64,
    /// Versions sent with success, by Repair or Backfill.
    #[serde(default)]
    pub repaired: i64,
    /// Versions that could not be compared or sent.
    #[serde(default)]
    pub failed: i64,
    /// At most 20 examples of what was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub samples: Vec<String>,
}
