//! Kind ReplicationRule: one bucket of this site to one or more peers.
use super::shared::{Bytes, Duration, NameRef, Switch, conditions, off, on};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One way, or both sites accept writes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema, Default)]
pub enum Mode {
    #[default]
    OneWay,
    ActiveActive,
}
/// Whose versions are sent.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema, Default)]
pub enum Forward {
    #[default]
    Own,
    All,
}
/// What gives way when the link is full.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema, Default)]
pub enum TransferClass {
    #[default]
    Interactive,
    Bulk,
}
/// In which order versions become readable at the peer.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema, Default)]
pub enum Ordering {
    #[default]
    None,
    CommitOrder,
}

/// Which objects of the bucket the rule covers; every member that is set must match.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Keys begin with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prefix: Option<String>,
    /// Objects carry all of these tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 10, "additionalProperties" = {"type": "string", "maxLength": 256}))]
    pub tags: BTreeMap<String, String>,
}
/// What of an object is replicated.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.versionDeletes == 'Disabled' || self.deleteMarkers == 'Enabled'").message("versionDeletes needs deleteMarkers"))]
pub struct Replicate {
    /// Delete markers.
    #[serde(default = "on")]
    pub delete_markers: Switch,
    /// Permanent deletes of one version.
    #[serde(default = "off")]
    pub version_deletes: Switch,
    /// Object tags and their changes.
    #[serde(default = "on")]
    pub tags: Switch,
    /// Retention and legal hold.
    #[serde(default = "on")]
    pub object_lock: Switch,
    /// Versions older than the rule.
    #[serde(default = "on")]
    pub existing_objects: Switch,
    /// The bucket's lifecycle, tags and CORS; policies never travel.
    #[serde(default = "off")]
    pub bucket_documents: Switch,
}
impl Default for Replicate {
    fn default() -> Self {
        Self {
            delete_markers: on(),
            version_deletes: off(),
            tags: on(),
            object_lock: on(),
            existing_objects: on(),
            bucket_documents: off(),
        }
    }
}
/// Holds back deletes that come in a mass, until a person releases them. Delete markers and purges count,
/// lifecycle does not.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Brake {
    /// Share of the bucket's versions whose deletion within the window engages the brake.
    #[serde(default = "brake_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: i32,
    /// Length of the window, 1s to 24h.
    #[serde(default = "brake_window")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("window is between 1s and 24h"))]
    pub window: Duration,
    /// Fewer deletes than this never engage it.
    #[serde(default = "brake_min")]
    #[schemars(range(min = 1))]
    pub min_versions: i64,
}
fn brake_percent() -> i32 {
    10
}
fn brake_window() -> Duration {
    Duration("10m".into())
}
fn brake_min() -> i64 {
    1000
}
impl Default for Brake {
    fn default() -> Self {
        Self { percent: brake_percent(), window: brake_window(), min_versions: brake_min() }
    }
}
/// One peer a rule sends to.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Name of a Peer in the same namespace; the key of this list.
    #[schemars(length(min = 1, max = 253))]
    pub peer: String,
    /// Bucket at the peer; absent means the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: Option<String>,
    /// Bytes a second for this rule and peer; absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit: Option<Bytes>,
    /// Stops sending to this peer; the cursor waits in the store's feed.
    #[serde(default)]
    pub suspend: bool,
}

/// Replicates one bucket of this site to one or more peers.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "replication.isthmus.dev",
    version = "v1alpha1",
    kind = "ReplicationRule",
    namespaced,
    cel,
    derive = "PartialEq",
    doc = "ReplicationRule replicates one bucket of this site to one or more peers.",
    status = "ReplicationRuleStatus",
    shortname = "rr",
    category = "isthmus",
    selectable = ".spec.bucket",
    printcolumn(name = "Bucket", type_ = "string", json_path = ".spec.bucket"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Peers",
        type_ = "string",
        json_path = ".status.peersReady",
        description = "destinations within the objective / all"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(
        name = "Lag",
        type_ = "date",
        json_path = ".status.oldestPendingTime",
        description = "age of the oldest change not yet on every peer; empty when there is none"
    ),
    printcolumn(name = "Backlog", type_ = "integer", json_path = ".status.backlogVersions"),
    printcolumn(name = "Bytes", type_ = "string", json_path = ".status.backlogBytes"),
    printcolumn(name = "Parked", type_ = "integer", json_path = ".status.parkedVersions"),
    printcolumn(name = "RPO", type_ = "string", json_path = ".spec.recoveryPointObjective", priority = "1"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.filter) || !has(self.filter.tags) || self.filter.tags.size() == 0 || self.replicate.deleteMarkers == 'Disabled'").message("a delete marker has no tags: with filter.tags, replicate.deleteMarkers is Disabled"))]
pub struct ReplicationRuleSpec {
    /// The Site whose bucket this is.
    pub site_ref: NameRef,
    /// Bucket of this site.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("bucket is immutable"))]
    #[x_kube(validation = Rule::new("!self.contains('..')").message("a bucket name has no two dots in a row"))]
    pub bucket: String,
    /// OneWay, or ActiveActive when the peers write the same bucket; concurrent versions are all kept, in one order on
    /// every site.
    #[serde(default)]
    pub mode: Mode,
    /// Of the rules of a bucket that match an object for one peer, the highest applies; it does not rank transfers.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: i32,
    /// Which objects; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Where to.
    #[schemars(length(min = 1, max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["peer"]))]
    pub destinations: Vec<Destination>,
    /// What of an object is replicated.
    #[serde(default)]
    pub replicate: Replicate,
    /// Own sends what was written at this site; All relays what other sites wrote too, except what the peer itself wrote.
    #[serde(default)]
    pub forward: Forward,
    /// Whether a GET of a key not here yet may be answered from a peer of this rule.
    #[serde(default = "off")]
    pub read_from_peers: Switch,
    /// Interactive goes before Bulk when the link is full.
    #[serde(default)]
    pub transfer_class: TransferClass,
    /// CommitOrder applies the versions of this rule at the peer in commit order, so that WAL and "backup complete"
    /// markers follow their data; None orders per key only.
    #[serde(default)]
    pub ordering: Ordering,
    /// When deletes in a mass are held back.
    #[serde(default)]
    pub brake: Brake,
    /// Raise it to release what the brake holds now; it never falls.
    #[serde(default)]
    #[schemars(range(min = 0))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("brakeRelease only rises"))]
    pub brake_release: i64,
    /// Bytes a second for this rule over all peers; absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit: Option<Bytes>,
    /// Longest lag that is in order, 1s to 24h; absent means none is promised and LagWithinObjective stays Unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("recoveryPointObjective is between 1s and 24h"))]
    pub recovery_point_objective: Option<Duration>,
    /// Stops sending; the cursors wait in the store's feed.
    #[serde(default)]
    pub suspend: bool,
}
/// Observed state of a ReplicationRule.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationRuleStatus {
    /// metadata.generation this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Destinations within the objective / all, such as `1/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers_ready: Option<String>,
    /// Commit time of the oldest change not yet on every peer; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_pending_time: Option<Time>,
    /// Versions not yet on every peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_versions: Option<i64>,
    /// Bytes not yet on every peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_bytes: Option<Bytes>,
    /// Versions parked after a failure that retrying does not cure; they wait for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_versions: Option<i64>,
    /// spec.brakeRelease last carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brake_released: Option<i64>,
    /// When the numbers above were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_time: Option<Time>,
    /// One entry a destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["peer"]))]
    pub destinations: Vec<DestinationStatus>,
}
/// Observed state of one destination of a rule.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DestinationStatus {
    /// Name of the Peer; the key of this list.
    #[schemars(length(min = 1, max = 253))]
    pub peer: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Commit time of the oldest change not yet on this peer; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_pending_time: Option<Time>,
    /// Versions not yet on this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_versions: Option<i64>,
    /// Bytes not yet on this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_bytes: Option<Bytes>,
    /// Versions parked for this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_versions: Option<i64>,
    /// When this peer last confirmed a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_replicated_time: Option<Time>,
    /// Progress of the versions older than the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing_objects: Option<Progress>,
}
/// Progress of a listing.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Versions listed so far.
    #[serde(default)]
    pub listed: i64,
    /// Of these, versions now at the peer.
    #[serde(default)]
    pub copied: i64,
    /// When the last one arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}
