//! Kind Peer: another site's replicator and what it may write here, or a bare S3 endpoint.
use super::shared::{Bytes, CaRef, CrlRef, Duration, NameRef, Switch, conditions, off, on, region, yes};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What stands at the far end.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub enum PeerType {
    Replicator,
    S3,
}

/// Who the far end must prove to be, and what it is shown.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PeerTls {
    /// Client certificate shown to the peer; absent means the Site's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_ref: Option<NameRef>,
    /// CA bundle the peer's certificate must chain to. The system's roots are never used.
    pub ca_ref: CaRef,
    /// Revocation lists; when set, a list that is missing or past its nextUpdate refuses the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_ref: Option<CrlRef>,
    /// Name sent as SNI; absent means the host of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// URI SANs; the peer's certificate carries exactly one URI SAN and it is one of these.
    #[schemars(length(min = 1, max = 4), inner(length(max = 2048)))]
    #[x_kube(validation = Rule::new("self.all(i, i.startsWith('spiffe://'))").message("identities are spiffe:// URIs"))]
    pub identities: Vec<String>,
}
/// What the peer may write here. A bucket not named is refused.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Inbound {
    /// Bucket of this site; the key of this list.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,
    /// Keys must begin with this; absent means every key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prefix: Option<String>,
    /// Sites whose versions the peer may bring, or `*`; absent or empty means its own siteID. Relay and
    /// reconciliation need the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 32), regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub origins: Vec<String>,
    /// Whether delete markers are applied.
    #[serde(default = "on")]
    pub deletes: Switch,
    /// Whether permanent deletes of one version are applied; object lock is obeyed all the same.
    #[serde(default = "off")]
    pub version_deletes: Switch,
    /// Whether bucket documents (lifecycle, tags, CORS) are applied; policies never are.
    #[serde(default = "off")]
    pub documents: Switch,
}
/// Another site's replicator: traffic both ways over mutual TLS.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReplicatorPeer {
    /// siteID of the other site; a peer that announces another one is refused.
    #[serde(rename = "siteID")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("siteID is immutable"))]
    pub site_id: String,
    /// advertisedEndpoint of the other site: https only.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() == 'https'").message("endpoint is an https URL"))]
    pub endpoint: String,
    /// Who the other site must prove to be.
    pub tls: PeerTls,
    /// What the other site may write here; absent or empty means nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["bucket"]))]
    pub inbound: Vec<Inbound>,
    /// Whether the other site may inject a drill's fault here.
    #[serde(default = "off")]
    pub drills: Switch,
}
/// Which extensions to S3 the far end speaks.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema, Default)]
pub enum Dialect {
    #[default]
    Auto,
    #[serde(rename = "AWS")]
    Aws,
    MinIO,
    RustFS,
    Ceph,
}
/// A bare S3 endpoint: a destination only, which never writes here.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.caRef) || self.endpoint.startsWith('https:')").message("caRef needs an https endpoint"))]
pub struct S3Peer {
    /// S3 endpoint, an http or https URL.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() in ['http','https']").message("endpoint is an http or https URL"))]
    pub endpoint: String,
    /// Region used in request signatures.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 63))]
    pub region: String,
    /// Bucket in the path (true) or in the host name (false).
    #[serde(default = "yes")]
    pub path_style: bool,
    /// Secret with the keys accessKeyId and secretAccessKey; absent means the AWS default credential chain
    /// (environment, web identity such as IRSA, instance profile).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<NameRef>,
    /// CA bundle for an https endpoint; absent means the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// Auto probes the endpoint and keeps to plain S3 when in doubt; status.dialect says what was found.
    #[serde(default)]
    pub dialect: Dialect,
    /// How the endpoint is probed; a Replicator is pinged every 2 s and down after 4 s.
    #[serde(default)]
    pub probe: Probe,
}
/// How an S3 endpoint is probed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.timeout) < duration(self.interval)").message("timeout is shorter than interval"))]
pub struct Probe {
    /// Time between two probes.
    #[serde(default = "ten")]
    pub interval: Duration,
    /// Time after which one probe has failed; shorter than interval.
    #[serde(default = "three")]
    pub timeout: Duration,
    /// Failed probes in a row that make Connected False.
    #[serde(default = "fails")]
    #[schemars(range(min = 1, max = 20))]
    pub failure_threshold: i32,
}
fn ten() -> Duration {
    Duration("10s".into())
}
fn three() -> Duration {
    Duration("3s".into())
}
fn fails() -> i32 {
    3
}
impl Default for Probe {
    fn default() -> Self {
        Self { interval: ten(), timeout: three(), failure_threshold: fails() }
    }
}

/// Another site's replicator, or a bare S3 endpoint.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "replication.isthmus.dev",
    version = "v1alpha1",
    kind = "Peer",
    namespaced,
    cel,
    derive = "PartialEq",
    doc = "Peer is where versions are sent: another site's replicator (and what it may write here) or a bare S3 endpoint.",
    status = "PeerStatus",
    category = "isthmus",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.replicator.siteID"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec['replicator','s3'].endpoint"),
    printcolumn(
        name = "Connected",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Connected\")].status"
    ),
    printcolumn(name = "RTT", type_ = "string", json_path = ".status.roundTrip"),
    printcolumn(name = "Last-Seen", type_ = "date", json_path = ".status.lastSeenTime"),
    printcolumn(name = "Rules", type_ = "integer", json_path = ".status.attachedRules"),
    printcolumn(name = "Dialect", type_ = "string", json_path = ".status.dialect", priority = "1"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Connected\")].reason",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type == oldSelf.type").message("type is immutable"))]
#[x_kube(validation = Rule::new("(self.type == 'Replicator') == has(self.replicator)").message("replicator is set exactly when type is Replicator"))]
#[x_kube(validation = Rule::new("(self.type == 'S3') == has(self.s3)").message("s3 is set exactly when type is S3"))]
pub struct PeerSpec {
    /// What stands at the far end; exactly the member of that name is set.
    #[serde(rename = "type")]
    pub type_: PeerType,
    /// Another site's replicator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicator: Option<ReplicatorPeer>,
    /// A bare S3 endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Peer>,
    /// Bytes a second sent to this peer by all rules together; absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit: Option<Bytes>,
    /// Stops all sending to and receiving from this peer; the cursors wait in the store's feed.
    #[serde(default)]
    pub suspend: bool,
}
/// Observed state of a Peer.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// metadata.generation this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// When the last ping or probe succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_time: Option<Time>,
    /// Round trip of the last ping or probe, such as `23ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip: Option<String>,
    /// The peer's clock less ours, such as `-120ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew: Option<String>,
    /// Wire version agreed with a Replicator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
    /// Dialect in use with an S3 endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
    /// URI SAN the peer's certificate carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presented_identity: Option<String>,
    /// When the peer's certificate expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<Time>,
    /// Accepted rules that name this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_rules: Option<i32>,
}
