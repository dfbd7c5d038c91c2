//! Kind Site: this cluster's store, and the identity it has towards its peers.
use super::shared::{Bytes, CaRef, NameRef, conditions, region, yes};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The object store of this site, as the replicator reaches it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Store {
    /// Private API of the store: https only, mutual TLS.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() == 'https'").message("apiEndpoint is an https URL"))]
    pub api_endpoint: String,
    /// kubernetes.io/tls Secret: the certificate shown to the store, and in ca.crt the CA the store must chain to.
    pub api_tls_secret_ref: NameRef,
    /// S3 front door of the same store, for what goes over S3 only; replication does not use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<StoreS3>,
}
/// The S3 front door of this site's store.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.caRef) || self.endpoint.startsWith('https:')").message("caRef needs an https endpoint"))]
pub struct StoreS3 {
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
    /// Secret with the keys accessKeyId and secretAccessKey.
    pub credentials_secret_ref: NameRef,
    /// CA bundle for an https endpoint; absent means the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
}

/// Where peers reach this site, and the certificate they are shown.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// What peers dial: https only.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() == 'https'").message("advertisedEndpoint is an https URL"))]
    pub advertised_endpoint: String,
    /// kubernetes.io/tls Secret (cert-manager shape: tls.crt, tls.key, ca.crt).
    pub tls_secret_ref: NameRef,
}

/// The object store of this cluster and the identity this cluster has towards its peers.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "replication.isthmus.dev",
    version = "v1alpha1",
    kind = "Site",
    namespaced,
    cel,
    derive = "PartialEq",
    doc = "Site is the object store of this cluster and its identity towards peers.",
    status = "SiteStatus",
    category = "isthmus",
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.siteID"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.store.apiEndpoint"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SiteSpec {
    /// Stands in every replicated version; unique in the fleet and never reused.
    #[serde(rename = "siteID")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("siteID is immutable"))]
    pub site_id: String,
    /// The object store of this site.
    pub store: Store,
    /// Where peers reach this site.
    pub listener: Listener,
    /// SPIFFE trust domain of this site's own identity.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9._-]+$"))]
    pub trust_domain: String,
    /// Bytes a second sent to all peers together; absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit: Option<Bytes>,
    /// Transfers in flight to all peers together; absent means the replicator's own setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_concurrent_transfers: Option<i32>,
    /// Stops all sending and receiving of this site; the cursors wait in the store's feed.
    #[serde(default)]
    pub suspend: bool,
}
/// Observed state of a Site.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteStatus {
    /// metadata.generation this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Holder of the Lease: who writes status and starts jobs and drills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// leaseTransitions of the Lease; every link has an epoch of its own, in the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_epoch: Option<i64>,
    /// Version of the leader's binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_version: Option<String>,
    /// SPIFFE URI of the certificate in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// When the certificate in use expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<Time>,
    /// What the store can do, such as Changefeed, Versioning or ObjectLock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub store_features: Vec<String>,
}
