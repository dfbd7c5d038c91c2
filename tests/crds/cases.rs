//! Documents: good ones of every kind, and for every CEL rule one that breaks it.
use serde_json::{Value as Json, json};

/// A document that a rule refuses.
pub struct Case {
    pub kind: &'static str,
    /// What held before; `None`: the document is new.
    pub before: Option<Json>,
    pub document: Json,
    pub message: &'static str,
}

fn document(kind: &str, name: &str, spec: Json) -> Json {
    json!({"apiVersion": "replication.isthmus.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}
fn site() -> Json {
    let tls = json!({"name": "isthmus-tls"});
    let s3 = json!({"endpoint": "https://s3:9000", "credentialsSecretRef": {"name": "keys"}, "caRef": {"kind": "Secret", "name": "ca"}});
    document(
        "Site",
        "fra",
        json!({"siteID": "fra", "trustDomain": "isthmus.example.org",
            "store": {"apiEndpoint": "https://store:9001", "apiTlsSecretRef": tls, "s3": s3},
            "listener": {"advertisedEndpoint": "https://fra.example.org:8443", "tlsSecretRef": tls}}),
    )
}
fn replicator() -> Json {
    document(
        "Peer",
        "ams",
        json!({"type": "Replicator", "replicator": {"siteID": "ams", "endpoint": "https://ams.example.org:8443",
            "tls": {"caRef": {"kind": "ConfigMap", "name": "ca"}, "identities": ["spiffe://isthmus.example.org/site/ams/replicator"]},
            "inbound": [{"bucket": "logs", "prefix": "ams/", "origins": ["ams", "*"]}]}}),
    )
}
fn s3() -> Json {
    let s3 = json!({"endpoint": "https://s3.example.org", "dialect": "AWS", "pathStyle": false,
        "credentialsSecretRef": {"name": "keys"}, "probe": {"interval": "10s", "timeout": "3s"}});
    document("Peer", "cold", json!({"type": "S3", "s3": s3}))
}
fn rule() -> Json {
    document(
        "ReplicationRule",
        "logs",
        json!({"siteRef": {"name": "fra"}, "bucket": "logs", "destinations": [{"peer": "ams"}, {"peer": "cold", "bucket": "fra-logs"}],
            "recoveryPointObjective": "15m", "brakeRelease": 1}),
    )
}
fn job() -> Json {
    document(
        "ReplicationJob",
        "check",
        json!({"ruleRef": {"name": "logs"}, "type": "Verify", "peer": "ams", "prefix": "a/"}),
    )
}
fn drill(fault: Json) -> Json {
    let mut spec = json!({"peerRef": {"name": "ams"}, "ruleRefs": [{"name": "logs"}],
        "objectives": {"rpo": "30s", "rto": "1m"}, "deadline": "10m"});
    spec.as_object_mut().unwrap().extend(fault.as_object().unwrap().clone());
    document("FailoverDrill", "friday", spec)
}
fn partition() -> Json {
    drill(json!({"type": "Partition", "partition": {"duration": "1m", "direction": "Both"}}))
}

/// Documents that hold, of every kind and variant.
pub fn good() -> Vec<(&'static str, Json)> {
    vec![
        ("Site", site()),
        ("Peer", replicator()),
        ("Peer", s3()),
        ("ReplicationRule", rule()),
        ("ReplicationJob", job()),
        ("FailoverDrill", partition()),
        ("FailoverDrill", drill(json!({"type": "SiteLoss", "siteLoss": {"duration": "1m"}}))),
        ("FailoverDrill", drill(json!({"type": "PlannedSwitchover", "plannedSwitchover": {"drainTimeout": "1m"}}))),
        (
            "FailoverDrill",
            drill(json!({"type": "SiteLoss", "siteLoss": {"duration": "1m"}, "scope": "Live", "confirm": "friday"})),
        ),
    ]
}

/// The document with `change` merged into its spec; null takes a field away.
fn with(mut document: Json, change: Json) -> Json {
    merge(&mut document["spec"], &change);
    document
}
fn merge(into: &mut Json, change: &Json) {
    let Json::Object(change) = change else {
        *into = change.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let map = into.as_object_mut().expect("made a map above");
    for (key, value) in change {
        match value {
            Json::Null => drop(map.remove(key)),
            value => merge(map.entry(key.clone()).or_insert(Json::Null), value),
        }
    }
}

/// One or more a rule.
pub fn cases() -> Vec<Case> {
    [of_site(), of_peer(), of_rule(), of_job(), of_drill()].into_iter().flatten().collect()
}

fn new(kind: &'static str, document: Json, message: &'static str) -> Case {
    Case { kind, before: None, document, message }
}
fn update(kind: &'static str, before: Json, change: Json, message: &'static str) -> Case {
    Case { kind, document: with(before.clone(), change), before: Some(before), message }
}

fn of_site() -> Vec<Case> {
    let bad = |change: Json, message| new("Site", with(site(), change), message);
    vec![
        update("Site", site(), json!({"siteID": "ams"}), "siteID is immutable"),
        bad(json!({"store": {"apiEndpoint": "http://store:9001"}}), "apiEndpoint is an https URL"),
        bad(json!({"store": {"s3": {"endpoint": "ftp://s3"}}}), "endpoint is an http or https URL"),
        bad(json!({"store": {"s3": {"endpoint": "http://s3:9000"}}}), "caRef needs an https endpoint"),
        bad(json!({"listener": {"advertisedEndpoint": "fra.example.org"}}), "advertisedEndpoint is an https URL"),
    ]
}

fn of_peer() -> Vec<Case> {
    let bad = |document: Json, change: Json, message| new("Peer", with(document, change), message);
    let s3_of = || s3()["spec"]["s3"].clone();
    let exactly = "replicator is set exactly when type is Replicator";
    vec![
        bad(replicator(), json!({"replicator": {"endpoint": "http://ams:8443"}}), "endpoint is an https URL"),
        bad(replicator(), json!({"replicator": {"tls": {"identities": ["ams"]}}}), "identities are spiffe:// URIs"),
        bad(replicator(), json!({"replicator": null}), exactly),
        bad(replicator(), json!({"s3": s3_of()}), "s3 is set exactly when type is S3"),
        bad(s3(), json!({"s3": null}), "s3 is set exactly when type is S3"),
        bad(s3(), json!({"replicator": replicator()["spec"]["replicator"]}), exactly),
        bad(s3(), json!({"s3": {"endpoint": "s3.example.org"}}), "endpoint is an http or https URL"),
        bad(
            s3(),
            json!({"s3": {"endpoint": "http://s3", "caRef": {"kind": "Secret", "name": "ca"}}}),
            "caRef needs an https endpoint",
        ),
        bad(s3(), json!({"s3": {"probe": {"timeout": "10s"}}}), "timeout is shorter than interval"),
        update("Peer", replicator(), json!({"type": "S3", "replicator": null, "s3": s3_of()}), "type is immutable"),
        update("Peer", replicator(), json!({"replicator": {"siteID": "waw"}}), "siteID is immutable"),
    ]
}

fn of_rule() -> Vec<Case> {
    let kind = "ReplicationRule";
    let bad = |change: Json, message| new(kind, with(rule(), change), message);
    let objective = "recoveryPointObjective is between 1s and 24h";
    vec![
        update(kind, rule(), json!({"bucket": "other"}), "bucket is immutable"),
        update(kind, rule(), json!({"brakeRelease": 0}), "brakeRelease only rises"),
        bad(json!({"bucket": "lo..gs"}), "a bucket name has no two dots in a row"),
        bad(
            json!({"filter": {"tags": {"keep": "yes"}}}),
            "a delete marker has no tags: with filter.tags, replicate.deleteMarkers is Disabled",
        ),
        bad(
            json!({"replicate": {"versionDeletes": "Enabled", "deleteMarkers": "Disabled"}}),
            "versionDeletes needs deleteMarkers",
        ),
        bad(json!({"brake": {"window": "500ms"}}), "window is between 1s and 24h"),
        bad(json!({"recoveryPointObjective": "25h"}), objective),
        bad(json!({"recoveryPointObjective": "10ms"}), objective),
    ]
}

fn of_job() -> Vec<Case> {
    let message = "only suspend, bandwidthLimit and ttlAfterFinished can change";
    let changed = |change| update("ReplicationJob", job(), change, message);
    vec![
        changed(json!({"type": "Repair"})),
        changed(json!({"ruleRef": {"name": "other"}})),
        changed(json!({"peer": null})),
        changed(json!({"prefix": "b/"})),
        changed(json!({"compare": "Content"})),
    ]
}

fn of_drill() -> Vec<Case> {
    let kind = "FailoverDrill";
    let bad = |change: Json, message| new(kind, with(partition(), change), message);
    let live = "a Live drill needs spec.confirm equal to metadata.name";
    let aborted = with(partition(), json!({"abort": true}));
    vec![
        bad(json!({"scope": "Live"}), live),
        bad(json!({"scope": "Live", "confirm": "monday"}), live),
        bad(json!({"partition": null}), "partition is set exactly when type is Partition"),
        bad(json!({"siteLoss": {"duration": "1m"}}), "siteLoss is set exactly when type is SiteLoss"),
        bad(
            json!({"plannedSwitchover": {"drainTimeout": "1m"}}),
            "plannedSwitchover is set exactly when type is PlannedSwitchover",
        ),
        bad(json!({"partition": {"duration": "10m"}}), "duration is shorter than deadline"),
        bad(json!({"deadline": "2h"}), "deadline is at most 1h"),
        update(
            kind,
            partition(),
            json!({"deadline": "11m"}),
            "a drill is immutable but for abort and ttlAfterFinished",
        ),
        update(kind, aborted, json!({"abort": false}), "an abort cannot be taken back"),
    ]
}
