//! Turns one resource into the plain value a replicator works with: quantities into numbers, defaults filled in.
//!
//! Pure. Called by the watchers for each document by itself; what concerns several is `rule/validate.rs`.
use super::resource::peer::{Inbound, PeerSpec, ReplicatorPeer, S3Peer};
use super::resource::replication_rule::{Forward, Mode, Ordering, ReplicationRuleSpec, TransferClass};
use super::resource::shared::{Bytes, CaKind, Duration, Switch};
use super::resource::site::SiteSpec;
use super::resource::{Peer, ReplicationRule, Resource, Site};
use super::{Brake, Destination, FileRef, Filter, ForeignDoc, Grant, PeerDoc, Replicate, Rule, SiteDoc};

/// A document by itself in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    Site(SiteDoc),
    Peer(PeerDoc),
    Foreign(ForeignDoc),
    /// Its `uid` is empty where the document has none: `rule/validate.rs` derives it.
    Rule(Rule),
}

impl Accepted {
    /// `(kind, name)` of the document.
    pub fn id(&self) -> (&'static str, &str) {
        match self {
            Accepted::Site(site) => ("Site", &site.name),
            Accepted::Peer(peer) => ("Peer", &peer.name),
            Accepted::Foreign(target) => ("Peer", &target.name),
            Accepted::Rule(rule) => ("ReplicationRule", &rule.name),
        }
    }
}

/// A field that cannot be used, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Unusable {
    pub field: &'static str,
    pub message: String,
}

/// The value of a resource; `generation` counts changes of its spec.
///
/// # Errors
/// [`Unusable`] for what neither schema nor CEL rule can see, such as a quantity beyond 2^64.
pub fn accept(resource: &Resource, generation: u64) -> Result<Accepted, Unusable> {
    match resource {
        Resource::Site(site) => accept_site(site).map(Accepted::Site),
        Resource::Peer(peer) => accept_peer(peer),
        Resource::Rule(rule) => accept_rule(rule, generation).map(Accepted::Rule),
    }
}

fn accept_site(site: &Site) -> Result<SiteDoc, Unusable> {
    let SiteSpec { site_id, store, listener, trust_domain, bandwidth_limit, max_concurrent_transfers, suspend } =
        &site.spec;
    let (api_endpoint, api_server_name) = authority("spec.store.apiEndpoint", &store.api_endpoint)?;
    Ok(SiteDoc {
        api_endpoint,
        api_server_name,
        api_secret: store.api_tls_secret_ref.name.clone(),
        name: site.metadata.name.clone().unwrap_or_default(),
        site_id: site_id.clone(),
        trust_domain: trust_domain.clone(),
        advertised_endpoint: authority("spec.listener.advertisedEndpoint", &listener.advertised_endpoint)?.0,
        tls_secret: listener.tls_secret_ref.name.clone(),
        suspend: *suspend,
        bandwidth: rate("spec.bandwidthLimit", bandwidth_limit)?,
        transfers_max: max_concurrent_transfers.and_then(|max| usize::try_from(max).ok()),
    })
}

fn accept_peer(peer: &Peer) -> Result<Accepted, Unusable> {
    let PeerSpec { type_: _, replicator, s3, bandwidth_limit, suspend } = &peer.spec;
    let name = peer.metadata.name.clone().unwrap_or_default();
    let bandwidth = rate("spec.bandwidthLimit", bandwidth_limit)?;
    let Some(ReplicatorPeer { site_id, endpoint, tls, inbound, drills }) = replicator else {
        let missing = || Unusable { field: "spec.s3", message: "type S3 needs the member s3".into() };
        let s3 = s3.as_ref().ok_or_else(missing)?;
        return accept_foreign(name, s3, bandwidth, *suspend).map(Accepted::Foreign);
    };
    let (endpoint, host) = authority("spec.replicator.endpoint", endpoint)?;
    Ok(Accepted::Peer(PeerDoc {
        name,
        site_id: site_id.clone(),
        endpoint,
        server_name: tls.server_name.clone().unwrap_or(host),
        ca: file(&tls.ca_ref.kind, &tls.ca_ref.name, &tls.ca_ref.key),
        crl: tls.crl_ref.as_ref().map(|r| file(&r.kind, &r.name, &r.key)),
        client_secret: tls.client_secret_ref.as_ref().map(|r| r.name.clone()),
        identities: tls.identities.clone(),
        inbound: inbound.iter().map(grant).collect(),
        drills: is_on(drills),
        suspend: *suspend,
        bandwidth,
    }))
}

fn file(kind: &CaKind, name: &str, key: &str) -> FileRef {
    FileRef { is_secret: *kind == CaKind::Secret, name: name.into(), key: key.into() }
}

fn accept_foreign(name: String, s3: &S3Peer, bandwidth: Option<u64>, suspend: bool) -> Result<ForeignDoc, Unusable> {
    let endpoint = s3.endpoint.strip_suffix('/').unwrap_or(&s3.endpoint).to_string();
    let (_, rest) = endpoint.split_once("://").unwrap_or_default();
    if rest.is_empty() || rest.contains(['/', '?', '#', '@', ' ']) {
        let message = format!("`{endpoint}`: write http://host:port or https://host:port, without a path");
        return Err(Unusable { field: "spec.s3.endpoint", message });
    }
    Ok(ForeignDoc {
        name,
        endpoint,
        region: s3.region.clone(),
        path_style: s3.path_style,
        credentials_secret: s3.credentials_secret_ref.as_ref().map(|r| r.name.clone()),
        ca: s3.ca_ref.as_ref().map(|r| file(&r.kind, &r.name, &r.key)),
        dialect: s3.dialect.clone(),
        probe_interval_millis: millis("spec.s3.probe.interval", &s3.probe.interval)?,
        probe_timeout_millis: millis("spec.s3.probe.timeout", &s3.probe.timeout)?,
        probe_failures: u32::try_from(s3.probe.failure_threshold).unwrap_or(1).max(1),
        suspend,
        bandwidth,
    })
}

fn grant(inbound: &Inbound) -> Grant {
    Grant {
        bucket: inbound.bucket.clone(),
        prefix: inbound.prefix.clone().unwrap_or_default(),
        origins: inbound.origins.clone(),
        deletes: is_on(&inbound.deletes),
        version_deletes: is_on(&inbound.version_deletes),
        documents: is_on(&inbound.documents),
    }
}

fn accept_rule(rule: &ReplicationRule, generation: u64) -> Result<Rule, Unusable> {
    let spec: &ReplicationRuleSpec = &rule.spec;
    let r = &spec.replicate;
    Ok(Rule {
        uid: rule.metadata.uid.clone().unwrap_or_default(),
        name: rule.metadata.name.clone().unwrap_or_default(),
        site: spec.site_ref.name.clone(),
        bucket: spec.bucket.clone(),
        active_active: spec.mode == Mode::ActiveActive,
        priority: u32::try_from(spec.priority).unwrap_or(0),
        filter: spec.filter.as_ref().map_or_else(Filter::default, |f| Filter {
            prefix: f.prefix.clone().unwrap_or_default(),
            tags: f.tags.clone(),
        }),
        destinations: destinations(spec)?,
        replicate: Replicate {
            delete_markers: is_on(&r.delete_markers),
            version_deletes: is_on(&r.version_deletes),
            tags: is_on(&r.tags),
            object_lock: is_on(&r.object_lock),
            existing_objects: is_on(&r.existing_objects),
            bucket_documents: is_on(&r.bucket_documents),
        },
        forward_all: spec.forward == Forward::All,
        read_from_peers: is_on(&spec.read_from_peers),
        is_bulk: spec.transfer_class == TransferClass::Bulk,
        commit_order: spec.ordering == Ordering::CommitOrder,
        brake: Brake {
            percent: u32::try_from(spec.brake.percent).unwrap_or(1),
            window_millis: millis("spec.brake.window", &spec.brake.window)?,
            versions_min: u64::try_from(spec.brake.min_versions).unwrap_or(1),
        },
        brake_release: u64::try_from(spec.brake_release).unwrap_or(0),
        bandwidth: rate("spec.bandwidthLimit", &spec.bandwidth_limit)?,
        rpo_millis: match &spec.recovery_point_objective {
            Some(rpo) => Some(millis("spec.recoveryPointObjective", rpo)?),
            None => None,
        },
        suspend: spec.suspend,
        generation,
    })
}

fn destinations(spec: &ReplicationRuleSpec) -> Result<Vec<Destination>, Unusable> {
    let one = |d: &super::resource::replication_rule::Destination| {
        Ok(Destination {
            peer: d.peer.clone(),
            bucket: d.bucket.clone().unwrap_or_else(|| spec.bucket.clone()),
            bandwidth: rate("spec.destinations", &d.bandwidth_limit)?,
            suspend: d.suspend,
        })
    };
    spec.destinations.iter().map(one).collect()
}

/// A duration in milliseconds; `None`: it is none.
pub fn duration_millis(duration: &Duration) -> Option<u64> {
    millis("", duration).ok()
}

fn is_on(switch: &Switch) -> bool {
    *switch == Switch::Enabled
}

/// `host:port` and host of an https URL; without a port it is that of https.
fn authority(field: &'static str, url: &str) -> Result<(String, String), Unusable> {
    let wrong = || Unusable { field, message: format!("`{url}`: write https://host:port, without a path") };
    let rest = url.strip_prefix("https://").ok_or_else(wrong)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() || rest.contains(['/', '?', '#', '@', ' ']) {
        return Err(wrong());
    }
    // The colon of a port stands behind the bracket of an IPv6 address.
    let (host, port) = match rest.rfind(':').filter(|at| rest.rfind(']').is_none_or(|bracket| bracket < *at)) {
        Some(at) => (&rest[..at], rest[at + 1..].parse::<u16>().map_err(|_| wrong())?),
        None => (rest, 443),
    };
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((format!("{host}:{port}"), host.trim_matches(['[', ']']).to_string()))
}

/// A rate in bytes a second. 0 would be a pause in disguise and is refused.
///
/// # Errors
/// What is wrong with it.
pub fn rate(field: &'static str, limit: &Option<Bytes>) -> Result<Option<u64>, Unusable> {
    let Some(limit) = limit else { return Ok(None) };
    match bytes(limit) {
        Ok(0) => Err(Unusable {
            field,
            message: format!("`{}` sends nothing; to stop sending write suspend: true", limit.0),
        }),
        Ok(bytes) => Ok(Some(bytes)),
        Err(message) => Err(Unusable { field, message }),
    }
}

/// A quantity of bytes.
///
/// # Errors
/// A sentence.
pub fn bytes(Bytes(text): &Bytes) -> Result<u64, String> {
    let wrong = |why: &str| format!("`{text}` {why}");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return Err(wrong("has an unknown unit; write for example 100Mi")),
    };
    let number: u64 = digits.parse().map_err(|_| wrong("is no number of bytes; write for example 100Mi"))?;
    number.checked_mul(factor).ok_or_else(|| wrong("is more than 2^64 bytes; write for example 100Mi"))
}

/// A duration of the form `1h15m` (GEP-2257) in milliseconds; its form has been checked by the schema.
fn millis(field: &'static str, Duration(text): &Duration) -> Result<u64, Unusable> {
    let wrong = || Unusable { field, message: format!("`{text}` is no duration; write for example 1h15m or 30s") };
    let (mut total, mut rest) = (0u64, text.as_str());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit: u64 = match &rest[..end] {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return Err(wrong()),
        };
        rest = &rest[end..];
        total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_become_host_and_port() {
        for (url, expected) in [
            ("https://a.example.org:8443", Some(("a.example.org:8443", "a.example.org"))),
            ("https://127.0.0.1:1/", Some(("127.0.0.1:1", "127.0.0.1"))),
            ("https://a.example.org", Some(("a.example.org:443", "a.example.org"))),
            ("https://[::1]:8443", Some(("[::1]:8443", "::1"))),
            ("https://[::1]", Some(("[::1]:443", "::1"))),
            ("http://a:1", None),
            ("https://a:70000", None),
            ("https://a:1/path", None),
            ("https://user@a:1", None),
            ("https://:1", None),
        ] {
            let expected = expected.map(|(a, h)| (a.to_string(), h.to_string()));
            assert_eq!(authority("f", url).ok(), expected, "{url}");
        }
    }

    #[test]
    fn rates_and_durations_become_numbers() {
        let rate_of = |t: &str| rate("f", &Some(Bytes(t.into())));
        assert_eq!(rate_of("100Mi").unwrap(), Some(104_857_600));
        assert_eq!(rate_of("3k").unwrap(), Some(3000));
        assert_eq!(rate_of("7").unwrap(), Some(7));
        assert!(rate_of("0").unwrap_err().message.contains("suspend"));
        assert!(rate_of("99999999Pi").is_err());
        let millis_of = |t: &str| millis("f", &Duration(t.into())).ok();
        assert_eq!(millis_of("1h15m"), Some(4_500_000));
        assert_eq!(millis_of("1s500ms"), Some(1500));
        assert_eq!(millis_of("10"), None);
    }
}
