use super::super::accept::accept;
use super::super::resource::Resource;
use super::*;
use serde_json::{Value as Json, json};

fn draft(kind: &str, name: &str, spec: Json) -> Draft {
    let document = json!({"apiVersion": "replication.isthmus.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let value = accept(&Resource::from_json(kind, document).unwrap(), 1).unwrap();
    Draft { place: format!("{name}.yaml:1"), namespace: None, value }
}
fn site(name: &str) -> Draft {
    let tls = json!({"name": "tls"});
    draft(
        "Site",
        name,
        json!({"siteID": name, "trustDomain": "t", "store": {"apiEndpoint": "https://s:1", "apiTlsSecretRef": tls},
        "listener": {"advertisedEndpoint": "https://l:1", "tlsSecretRef": tls}}),
    )
}
fn peer(name: &str, site_id: &str) -> Draft {
    draft(
        "Peer",
        name,
        json!({"type": "Replicator", "replicator": {"siteID": site_id, "endpoint": "https://p:1",
        "tls": {"caRef": {"kind": "Secret", "name": "ca"}, "identities": ["spiffe://t/site/x/replicator"]}}}),
    )
}
fn cold() -> Draft {
    draft("Peer", "cold", json!({"type": "S3", "s3": {"endpoint": "https://s3:1"}}))
}
fn rule(name: &str, to: &[&str], more: Json) -> Draft {
    let to: Vec<Json> = to.iter().map(|p| json!({"peer": p})).collect();
    let mut spec = json!({"siteRef": {"name": "fra"}, "bucket": "logs", "destinations": to});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    draft("ReplicationRule", name, spec)
}
fn base() -> Vec<Draft> {
    vec![site("fra"), peer("ams", "ams"), peer("nyc", "nyc"), cold()]
}
/// Names of the rules that hold, and (document, reason) of the problems.
fn outcome(more: Vec<Draft>, previous: Option<&RuleSet>) -> (Vec<String>, Vec<(String, &'static str)>) {
    let (set, problems) = validate(&[base(), more].concat(), previous);
    (set.rules.into_keys().collect(), problems.into_iter().map(|p| (p.document, p.reason)).collect())
}

#[test]
fn one_bad_rule_is_reported_and_the_others_hold() {
    let table = [
        (rule("bad", &["ams"], json!({"siteRef": {"name": "elsewhere"}})), "SiteNotFound"),
        (rule("bad", &["cold", "nyc"], json!({"mode": "ActiveActive"})), "ModeUnsupportedByPeer"),
        (rule("bad", &["nyc"], json!({"filter": {"tags": {"a": "b"}}})), "InvalidSpec"),
        (
            rule("bad", &["nyc"], json!({"replicate": {"versionDeletes": "Enabled", "deleteMarkers": "Disabled"}})),
            "InvalidSpec",
        ),
        (rule("z-bad", &["ams"], json!({})), "OverlapsRule"),
    ];
    for (bad, reason) in table {
        let document = format!("ReplicationRule/default/{}", bad.value.id().1);
        let good = rule("good", &["ams"], json!({}));
        assert_eq!(outcome(vec![bad, good], None), (vec!["good".to_string()], vec![(document, reason)]), "{reason}");
    }
}

#[test]
fn a_destination_that_cannot_be_used_is_left_out_alone() {
    let (set, problems) = validate(&[base(), vec![rule("r", &["ams", "gone", "cold"], json!({}))]].concat(), None);
    let peers: Vec<&str> = set.rules["r"].destinations.iter().map(|d| d.peer.as_str()).collect();
    assert_eq!(peers, ["ams", "cold"]);
    assert_eq!(problems.iter().map(|p| p.reason).collect::<Vec<_>>(), ["PeerNotFound"]);
    assert_eq!(problems[0].place, "r.yaml:1 spec.destinations[1].peer");
    assert!(problems[0].message.ends_with("there are: ams, nyc, cold"), "{problems:?}");
}

#[test]
fn rules_overlap_only_where_an_object_can_match_both() {
    let with =
        |more: Json| vec![rule("a", &["ams"], json!({"filter": {"prefix": "x/"}})), rule("b", &["ams", "nyc"], more)];
    let tags = |v: &str| json!({"filter": {"tags": {"k": v}}, "replicate": {"deleteMarkers": "Disabled"}});
    assert_eq!(outcome(with(json!({"filter": {"prefix": "x/y/"}})), None).0, ["a"]);
    assert_eq!(outcome(with(json!({"filter": {"prefix": "y/"}})), None).0, ["a", "b"]);
    assert_eq!(outcome(with(json!({"priority": 1})), None).0, ["a", "b"]);
    assert_eq!(outcome(with(json!({"bucket": "other"})), None).0, ["a", "b"]);
    assert_eq!(outcome(vec![rule("a", &["ams"], tags("1")), rule("b", &["ams"], tags("2"))], None).0, ["a", "b"]);
    assert_eq!(outcome(vec![rule("a", &["ams"], tags("1")), rule("b", &["ams"], tags("1"))], None).0, ["a"]);
}

#[test]
fn a_new_rule_never_pushes_out_one_in_force() {
    let running = rule("z-running", &["ams"], json!({}));
    let (before, _) = validate(&[base(), vec![running.clone()]].concat(), None);
    let (held, problems) = outcome(vec![rule("a-new", &["ams"], json!({})), running], Some(&before));
    assert_eq!(
        (held, problems),
        (vec!["z-running".into()], vec![("ReplicationRule/default/a-new".into(), "OverlapsRule")])
    );
}

#[test]
fn a_rule_that_stops_fitting_goes_on_in_its_last_form() {
    let (before, _) = validate(&[base(), vec![rule("r", &["ams"], json!({}))]].concat(), None);
    let bad = rule("r", &["ams", "cold"], json!({"mode": "ActiveActive"}));
    let (after, problems) = validate(&[base(), vec![bad]].concat(), Some(&before));
    assert_eq!(after.rules, before.rules);
    assert_eq!(problems.len(), 1);
}

#[test]
fn names_and_site_ids_are_taken_once() {
    let doubles = vec![peer("ams", "sfo"), peer("self", "fra"), peer("again", "nyc")];
    let (set, problems) = validate(&[base(), doubles].concat(), None);
    assert_eq!(set.peers.keys().collect::<Vec<_>>(), ["ams", "nyc"]);
    assert_eq!(set.peers["ams"].site_id, "ams", "the first holds");
    let said: Vec<_> = problems.iter().map(|p| (p.document.as_str(), p.reason)).collect();
    assert_eq!(
        said,
        [
            ("Peer/default/again", "SiteIDInUse"),
            ("Peer/default/ams", "DuplicateName"),
            ("Peer/default/self", "SiteIDInUse")
        ]
    );
}

#[test]
fn all_documents_lie_in_one_namespace() {
    let named = |d: Draft, ns: &str| Draft { namespace: Some(ns.into()), ..d };
    let moved: Vec<Draft> = base().into_iter().map(|d| named(d, "prod")).collect();
    let (set, problems) =
        validate(&[moved.clone(), vec![named(rule("r", &["ams"], json!({})), "prod")]].concat(), None);
    assert_eq!((set.rules.len(), problems.len()), (1, 0));
    assert_eq!(set.rules["r"].uid, uid("fra", "ReplicationRule", "prod", "r"));
    let (set, problems) = validate(&[base(), vec![named(rule("r", &["ams"], json!({})), "prod")]].concat(), None);
    assert_eq!((set.rules.len(), problems[0].place.as_str()), (0, "r.yaml:1 metadata.namespace"));
}
