//! Which bucket goes where, and how: the documents of a site as a replicator needs them.
//!
//! Pure: plain values without Kubernetes' types, clock or I/O. `rule/watch_folder.rs` reads documents,
//! `rule/accept.rs` turns them into these, `rule/validate.rs` holds them against each other, `rule/plan.rs`
//! says what changes, `rule/allow.rs` what a peer may do here, `rule/check.rs` what would become of documents. The set is always whole: level, not edge.
pub mod accept;
pub mod allow;
pub mod check;
pub mod judge;
pub mod plan;
pub mod refs;
pub mod report;
pub mod resource;
pub mod validate;
pub mod watch_folder;
pub mod watch_kube;

pub use crate::link::{BrakeTerms as Brake, Filter};
pub use resource::peer::Dialect;

use crate::link;
use std::collections::BTreeMap;
use storage_engine::version::Origin;

/// Versions in flight on one link at most: 20,000 a second at 200 ms round trip, twice the goal, since the way through
/// both stores comes on top of the line's.
pub const WINDOW_VERSIONS: usize = 4096;
/// Bytes in flight on one link at most: 1 Gbit/s at 200 ms is 25 MB.
pub const WINDOW_BYTES: u64 = 32 << 20;

/// Every document that holds, by name; all of one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSet {
    /// Usually one; several where a namespace serves several replicators.
    pub sites: BTreeMap<String, SiteDoc>,
    /// Other sites' replicators.
    pub peers: BTreeMap<String, PeerDoc>,
    /// Bare S3 endpoints; no name stands in both.
    pub foreign: BTreeMap<String, ForeignDoc>,
    /// Rules that hold, each with the destinations that exist.
    pub rules: BTreeMap<String, Rule>,
}

/// A Site: this cluster's identity towards its peers.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteDoc {
    pub name: String,
    /// Stands in every version born here.
    pub site_id: String,
    /// Private API of its store, where that is another process: `host:port`, host, and the Secret with the
    /// certificate shown to it and the CA it must chain to.
    pub api_endpoint: String,
    pub api_server_name: String,
    pub api_secret: String,
    /// SPIFFE trust domain of the site's own identity.
    pub trust_domain: String,
    /// `host:port` that peers dial.
    pub advertised_endpoint: String,
    /// Secret with tls.crt, tls.key and ca.crt.
    pub tls_secret: String,
    /// Nothing is sent or received.
    pub suspend: bool,
    /// Bytes a second to all peers together.
    pub bandwidth: Option<u64>,
    /// Versions in flight to all peers together.
    pub transfers_max: Option<usize>,
}

/// A Peer: another site's replicator.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerDoc {
    pub name: String,
    /// The site that stands there.
    pub site_id: String,
    /// `host:port` to dial.
    pub endpoint: String,
    /// Name sent as SNI and looked for in its certificate.
    pub server_name: String,
    /// CA bundle its certificate must chain to.
    pub ca: FileRef,
    /// Revocation lists, where they are wanted.
    pub crl: Option<FileRef>,
    /// Secret with the certificate shown to it; `None`: the Site's own.
    pub client_secret: Option<String>,
    /// URI SANs; its certificate carries exactly one and it is one of these.
    pub identities: Vec<String>,
    /// What it may write here; nothing else.
    pub inbound: Vec<Grant>,
    /// Whether it may inject a drill's fault here.
    pub drills: bool,
    /// Nothing is sent to it or taken from it.
    pub suspend: bool,
    /// Bytes a second to it by all rules together.
    pub bandwidth: Option<u64>,
}

impl PeerDoc {
    /// A Peer and its site of one name, with a CA and no rights here: what tests and simulations begin with.
    pub fn bare(name: &str) -> PeerDoc {
        PeerDoc {
            name: name.into(),
            site_id: name.into(),
            endpoint: format!("{name}:8443"),
            server_name: name.into(),
            ca: FileRef { is_secret: true, name: "ca".into(), key: "ca.crt".into() },
            crl: None,
            client_secret: None,
            identities: Vec::new(),
            inbound: Vec::new(),
            drills: false,
            suspend: false,
            bandwidth: None,
        }
    }
}

/// A Peer that is a bare S3 endpoint: a destination only.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignDoc {
    pub name: String,
    /// An http or https URL.
    pub endpoint: String,
    /// Region of request signatures.
    pub region: String,
    /// The bucket stands in the path, else in the host's name.
    pub path_style: bool,
    /// Secret with accessKeyId and secretAccessKey; `None`: the SDK's own chain.
    pub credentials_secret: Option<String>,
    /// CA bundle its certificate must chain to; `None`: the system's.
    pub ca: Option<FileRef>,
    /// How it is spoken to; `Auto`: found out.
    pub dialect: Dialect,
    /// Between two probes, and how long one may take, milliseconds.
    pub probe_interval_millis: u64,
    pub probe_timeout_millis: u64,
    /// Failed probes in a row after which it counts as down.
    pub probe_failures: u32,
    /// Nothing is sent to it.
    pub suspend: bool,
    /// Bytes a second to it by all rules together.
    pub bandwidth: Option<u64>,
}

/// What stands at the far end of a link.
#[derive(Clone, Debug, PartialEq)]
pub enum FarDoc {
    Site(PeerDoc),
    S3(ForeignDoc),
}

impl FarDoc {
    /// Name of the Peer document.
    pub fn name(&self) -> &str {
        match self {
            FarDoc::Site(peer) => &peer.name,
            FarDoc::S3(target) => &target.name,
        }
    }
    /// Which site it is; of an S3 endpoint its address, which is no siteID.
    pub fn site_id(&self) -> String {
        match self {
            FarDoc::Site(peer) => peer.site_id.clone(),
            FarDoc::S3(target) => format!("s3:{}", target.endpoint),
        }
    }
    /// Whether its document says that nothing is sent to it.
    pub fn is_suspended(&self) -> bool {
        match self {
            FarDoc::Site(peer) => peer.suspend,
            FarDoc::S3(target) => target.suspend,
        }
    }
}

/// A key of a Secret or ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    pub is_secret: bool,
    pub name: String,
    pub key: String,
}

/// What a peer may write into one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub bucket: String,
    /// Keys begin with this; empty: every key.
    pub prefix: String,
    /// Sites whose versions it may bring; empty: its own; `*`: all.
    pub origins: Vec<String>,
    pub deletes: bool,
    pub version_deletes: bool,
    pub documents: bool,
}

/// A ReplicationRule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The object's uid, or in a folder a hash of (siteID, kind, namespace, name).
    pub uid: String,
    pub name: String,
    /// Name of the Site it belongs to.
    pub site: String,
    pub bucket: String,
    pub active_active: bool,
    pub priority: u32,
    pub filter: Filter,
    pub destinations: Vec<Destination>,
    pub replicate: Replicate,
    /// Relay: also what other sites wrote, except what the peer itself did.
    pub forward_all: bool,
    /// Whether a GET may be answered from a peer.
    pub read_from_peers: bool,
    /// Gives way to interactive rules when the link is full.
    pub is_bulk: bool,
    /// Versions are applied at the peer in commit order.
    pub commit_order: bool,
    /// When deletes in a mass are held back.
    pub brake: Brake,
    /// Raised to release what the brake holds.
    pub brake_release: u64,
    /// Bytes a second over all its peers.
    pub bandwidth: Option<u64>,
    /// Longest lag that is in order, milliseconds.
    pub rpo_millis: Option<u64>,
    pub suspend: bool,
    /// Rises with every change of the spec; in a folder counted since the journal was made.
    pub generation: u64,
}

/// One peer a rule sends to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Name of the Peer.
    pub peer: String,
    /// Bucket there.
    pub bucket: String,
    /// Bytes a second of this rule to this peer.
    pub bandwidth: Option<u64>,
    pub suspend: bool,
}

/// What of an object travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicate {
    pub delete_markers: bool,
    pub version_deletes: bool,
    pub tags: bool,
    pub object_lock: bool,
    pub existing_objects: bool,
    pub bucket_documents: bool,
}

/// Something in a document that does not hold; the rest runs on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// `kind/namespace/name`, or the file where no document could be read.
    pub document: String,
    /// `file:line`, and the field where one is meant.
    pub place: String,
    /// One word, CamelCase, as a condition's reason.
    pub reason: &'static str,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}: {}", self.place, self.document, self.reason, self.message)
    }
}

impl RuleSet {
    /// The Site a process serves: the one named, or the only one.
    ///
    /// # Errors
    /// A sentence that says which Sites there are and what to write.
    pub fn own_site(&self, name: Option<&str>) -> Result<&SiteDoc, String> {
        let names = || self.sites.keys().cloned().collect::<Vec<_>>().join(", ");
        match (name, self.sites.len()) {
            (Some(name), _) => self.sites.get(name).ok_or_else(|| match names() {
                known if known.is_empty() => format!("no Site `{name}`: there is no Site document at all"),
                known => format!("no Site `{name}`; there are: {known}"),
            }),
            (None, 1) => Ok(self.sites.values().next().expect("there is one")),
            (None, 0) => Err("there is no Site document; write one that says who this site is".into()),
            (None, _) => Err(format!("several Sites ({}); say with site_name which one this process serves", names())),
        }
    }

    /// The Peer of this name, whatever stands there.
    pub fn far(&self, name: &str) -> Option<FarDoc> {
        let site = || self.peers.get(name).cloned().map(FarDoc::Site);
        site().or_else(|| self.foreign.get(name).cloned().map(FarDoc::S3))
    }

    /// Names of all Peers.
    pub fn peer_names(&self) -> impl Iterator<Item = &String> {
        self.peers.keys().chain(self.foreign.keys())
    }

    /// What rules of a higher priority send of the same bucket to the same peer: of the rules that cover an object,
    /// the highest applies, whatever it lets travel. Two that meet never have the same priority (`rule/validate.rs`).
    pub fn higher(&self, rule: &Rule, peer: &str) -> Vec<Filter> {
        let is_higher = |other: &&Rule| {
            (&other.site, &other.bucket) == (&rule.site, &rule.bucket)
                && other.priority > rule.priority
                && other.destinations.iter().any(|d| d.peer == peer)
                && other.filter.meets(&rule.filter)
        };
        self.rules.values().filter(is_higher).map(|other| other.filter.clone()).collect()
    }

    /// The links of a Site: each rule with each of its destinations.
    pub fn links_of<'a>(&'a self, site: &'a str) -> impl Iterator<Item = (&'a Rule, &'a Destination)> {
        let rules = self.rules.values().filter(move |rule| rule.site == site);
        rules.flat_map(|rule| rule.destinations.iter().map(move |d| (rule, d)))
    }
}

/// What the link of `rule` to `destination` is run with.
///
/// Limits that several links share (of the rule, the peer, the site) are not in it: `replicator/toll.rs` keeps them.
/// A bulk link has a quarter of the window, so that interactive ones find room on the same line.
///
/// `yields_to` is left empty: it depends on other rules ([`RuleSet::higher`]).
pub fn link_settings(rule: &Rule, destination: &Destination, site: &SiteDoc, far: &FarDoc) -> link::Settings {
    let share = if rule.is_bulk { 4 } else { 1 };
    let window_versions = site.transfers_max.map_or(WINDOW_VERSIONS, |max| max.clamp(1, WINDOW_VERSIONS));
    link::Settings {
        prefix: rule.filter.prefix.clone(),
        tags: rule.filter.tags.clone(),
        own_origin: Origin::new(&site.site_id),
        forward_all: rule.forward_all,
        peer_origin: Origin::new(&far.site_id()),
        delete_markers: rule.replicate.delete_markers,
        version_deletes: rule.replicate.version_deletes,
        object_lock: rule.replicate.object_lock,
        yields_to: Vec::new(),
        existing_objects: rule.replicate.existing_objects,
        commit_order: rule.commit_order,
        by_arrival: matches!(far, FarDoc::S3(_)),
        bandwidth: destination.bandwidth,
        window_versions: (window_versions / share).max(1),
        window_bytes: WINDOW_BYTES / share as u64,
        brake: Some(rule.brake),
        brake_release: rule.brake_release,
        suspend: site.suspend || far.is_suspended() || rule.suspend || destination.suspend,
    }
}
