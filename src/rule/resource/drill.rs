//! Kind FailoverDrill: inject one failure, once, and measure the recovery.
use super::shared::{Bytes, Duration, NameRef, conditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which failure is exercised.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub enum DrillType {
    Partition,
    SiteLoss,
    PlannedSwitchover,
}
/// What the drill may touch.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema, Default)]
pub enum DrillScope {
    #[default]
    Canary,
    Live,
}
/// Which way a link is cut, seen from this site.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub enum Direction {
    Outbound,
    Inbound,
    Both,
}
/// The link to the peer is cut.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub struct PartitionDrill {
    /// How long the link stays cut.
    pub duration: Duration,
    /// Which way it is cut.
    pub direction: Direction,
}
/// The peer behaves as if the site were gone.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub struct SiteLossDrill {
    /// How long the site stays away.
    pub duration: Duration,
}
/// Writes are fenced, the backlog drains, the peer takes over.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SwitchoverDrill {
    /// Longest time the backlog may take to drain.
    pub drain_timeout: Duration,
    /// Whether to switch back afterwards.
    #[serde(default)]
    pub fail_back: bool,
}
/// What the drill must keep.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub struct Objectives {
    /// Longest acceptable age of a lost write.
    pub rpo: Duration,
    /// Longest acceptable time without service, as the drill's own client sees it.
    pub rto: Duration,
}
/// Writes made during the drill.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Writes a second.
    #[schemars(range(min = 1, max = 10000))]
    pub writes_per_second: i32,
    /// Size of each object.
    pub object_size: Bytes,
    /// Share of the writes that are deletes.
    #[schemars(range(min = 0, max = 100))]
    pub delete_percent: i32,
}

/// Injects one failure, once, and measures the recovery.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(group = "replication.isthmus.dev", version = "v1alpha1", kind = "FailoverDrill", namespaced, cel, derive = "PartialEq",
    doc = "FailoverDrill injects one failure once, measures the recovery, and reports in status.",
    status = "FailoverDrillStatus", shortname = "drill", category = "isthmus",
    validation = Rule::new("self.spec.scope != 'Live' || (has(self.spec.confirm) && self.spec.confirm == self.metadata.name)").message("a Live drill needs spec.confirm equal to metadata.name"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Scope", type_ = "string", json_path = ".spec.scope"),
    printcolumn(name = "Peer", type_ = "string", json_path = ".spec.peerRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "RPO", type_ = "string", json_path = ".status.report.rpoObserved"),
    printcolumn(name = "RTO", type_ = "string", json_path = ".status.report.rtoObserved"),
    printcolumn(name = "Lost", type_ = "integer", json_path = ".status.report.writesLost"),
    printcolumn(name = "Result", type_ = "string", json_path = ".status.report.result"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.type == 'Partition') == has(self.partition)").message("partition is set exactly when type is Partition"))]
#[x_kube(validation = Rule::new("(self.type == 'SiteLoss') == has(self.siteLoss)").message("siteLoss is set exactly when type is SiteLoss"))]
#[x_kube(validation = Rule::new("(self.type == 'PlannedSwitchover') == has(self.plannedSwitchover)").message("plannedSwitchover is set exactly when type is PlannedSwitchover"))]
#[x_kube(validation = Rule::new("self.type == oldSelf.type && self.scope == oldSelf.scope && has(self.confirm) == has(oldSelf.confirm) && (!has(self.confirm) || self.confirm == oldSelf.confirm) && self.peerRef == oldSelf.peerRef && self.ruleRefs == oldSelf.ruleRefs && self.objectives == oldSelf.objectives && self.deadline == oldSelf.deadline && (!has(self.partition) || !has(oldSelf.partition) || self.partition == oldSelf.partition) && (!has(self.siteLoss) || !has(oldSelf.siteLoss) || self.siteLoss == oldSelf.siteLoss) && (!has(self.plannedSwitchover) || !has(oldSelf.plannedSwitchover) || self.plannedSwitchover == oldSelf.plannedSwitchover) && has(self.workload) == has(oldSelf.workload) && (!has(self.workload) || self.workload == oldSelf.workload)").message("a drill is immutable but for abort and ttlAfterFinished"))]
#[x_kube(validation = Rule::new("(!has(self.partition) || duration(self.partition.duration) < duration(self.deadline)) && (!has(self.siteLoss) || duration(self.siteLoss.duration) < duration(self.deadline))").message("duration is shorter than deadline"))]
#[x_kube(validation = Rule::new("!oldSelf.abort || self.abort").message("an abort cannot be taken back"))]
pub struct FailoverDrillSpec {
    /// The Peer the failure concerns.
    pub peer_ref: NameRef,
    /// The rules measured.
    #[schemars(length(min = 1, max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub rule_refs: Vec<NameRef>,
    /// Which failure; exactly the member of that name is set.
    #[serde(rename = "type")]
    pub type_: DrillType,
    /// Canary acts only on links of a canary bucket made for the drill; Live touches what clients use.
    #[serde(default)]
    pub scope: DrillScope,
    /// metadata.name once more, for a Live drill; immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub confirm: Option<String>,
    /// The link to the peer is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<PartitionDrill>,
    /// The peer behaves as if the site were gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site_loss: Option<SiteLossDrill>,
    /// Writes are fenced, the backlog drains, the peer takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_switchover: Option<SwitchoverDrill>,
    /// What the drill must keep to pass.
    pub objectives: Objectives,
    /// Writes made during the drill; absent means none but the probe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// The fault is lifted and the drill ends this long after its start, whatever happens; at most 1h.
    #[x_kube(validation = Rule::new("duration(self) <= duration('1h')").message("deadline is at most 1h"))]
    pub deadline: Duration,
    /// The object is deleted this long after it finished; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<Duration>,
    /// Lifts the fault and ends the drill; cannot be taken back.
    #[serde(default)]
    pub abort: bool,
}
/// Observed state of a FailoverDrill.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailoverDrillStatus {
    /// metadata.generation this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Pending, Preparing, Injecting, Measuring, Recovering, Verifying, Succeeded, Failed or Aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// When the drill began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the drill ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// What was done, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<DrillStep>,
    /// The verdict and its numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<DrillReport>,
}
/// One step of a drill.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillStep {
    /// Name of the step; the key of this list.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Pending, Running, Done or Failed.
    pub state: String,
    /// When the step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the step ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// What happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
/// The verdict of a drill.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillReport {
    /// Pass or Fail.
    pub result: String,
    /// Age of the oldest lost write; `0s` when none was lost.
    pub rpo_observed: String,
    /// Time without service, measured by the drill's own client.
    pub rto_observed: String,
    /// Writes a client was told had succeeded.
    pub writes_acknowledged: i64,
    /// Of these, writes that are on no surviving site.
    pub writes_lost: i64,
    /// Pairs of concurrent versions; both are kept.
    pub conflicts: i64,
    /// Versions that differ between the sites after recovery.
    pub divergent: i64,
    /// Versions of the drill's links, both ways, that came due from the fault until all had caught up; absent: not known of
    /// both. Of a Canary they are the drill's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions_due: Option<i64>,
    /// Of these, versions that were not at the other site within 60 s: what a Live drill spent of the service level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions_late: Option<i64>,
    /// The longest that a version waited for the other site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_wait: Option<String>,
    /// This drill beside those before it of the same type, peer and scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trend: Option<String>,
    /// At most 20 examples of what was lost or differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub samples: Vec<String>,
}
