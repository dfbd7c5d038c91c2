use super::status::View;
use super::*;
use crate::replicator::report::{Certificate, ConditionReport, LinkReport, OtherCertificate, PeerReport, SiteReport};
use crate::rule::watch_folder::Snapshot;
use crate::rule::watch_kube::Judged;
use crate::rule::watch_kube::mock::{Mock, specs};
use crate::rule::{Problem, RuleSet};
use std::sync::Arc;

const NOW: u64 = 1_800_000_000_000;

fn objects(rules: &[(&str, Json)]) -> Objects {
    let one = |kind: &'static str, name: &str, spec: &Json| {
        let object = Object {
            kind,
            name: name.into(),
            uid: format!("uid-{name}"),
            generation: 3,
            spec: spec.clone(),
            ..Object::default()
        };
        ((kind, name.to_string()), Arc::new(object))
    };
    let mut all: Objects = [one("Site", "fra", &specs::site()), one("Peer", "ams", &specs::peer("ams"))].into();
    all.extend(rules.iter().map(|(name, spec)| one("ReplicationRule", name, spec)));
    all
}

fn link(rule: &str) -> LinkReport {
    LinkReport {
        rule: rule.into(),
        bucket: "logs".into(),
        peer: "ams".into(),
        state: "live".into(),
        measured_at: NOW,
        lag_seconds: Some(0.0),
        backlog_versions: Some(0),
        backlog_bytes: Some(0),
        existing_versions: Some(0),
        ..LinkReport::default()
    }
}

/// What the leader of `fra` looks at.
fn view<'a>(rules: &'a RuleSet, problems: &'a [Problem], report: &'a SiteReport) -> View<'a> {
    View { site: "fra", rules, problems, report, leader: "me", leader_epoch: 1, now: NOW }
}

/// Status of rule `a`, with what its link shows; conditions as `type: status reason`.
fn shown(spec: Json, link: Option<LinkReport>) -> (Json, BTreeMap<String, String>) {
    let objects = objects(&[("a", spec)]);
    let Snapshot { rules, problems, .. } = Judged::default().snapshot(&objects, "default");
    let report = SiteReport { links: link.into_iter().collect(), ..SiteReport::default() };
    let view = view(&rules, &problems, &report);
    let status = serde_json::to_value(view.rule(&objects[&("ReplicationRule", "a".to_string())])).unwrap();
    (status.clone(), conditions_of(&status))
}

fn conditions_of(status: &Json) -> BTreeMap<String, String> {
    let text = |c: &Json, key: &str| c[key].as_str().unwrap().to_string();
    let all = status["conditions"].as_array().unwrap();
    assert!(all.iter().all(|c| c["observedGeneration"] == 3), "{all:?}");
    all.iter().map(|c| (text(c, "type"), format!("{} {}", text(c, "status"), text(c, "reason")))).collect()
}

#[test]
fn ready_takes_the_reason_of_what_fails_first() {
    let rule = || specs::rule("logs", "ams");
    let with = |key: &str, value: Json| {
        let mut spec = rule();
        spec[key] = value;
        spec
    };
    let blocked = LinkReport { state: "blocked".into(), blocked_reason: Some("BucketNotFound".into()), ..link("a") };
    let down = LinkReport { state: "peer_down".into(), ..link("a") };
    let braked = LinkReport { state: "braked".into(), braked_since: Some(NOW), ..link("a") };
    let held = crate::replicator::told::Suspended::default();
    let suspended = LinkReport { state: "suspended".into(), suspended: Some(held), ..link("a") };
    let there = "bucket logs does not exist at ams; make it there, with versioning enabled".to_string();
    let lacks = LinkReport { last_error: Some(there), ..blocked.clone() };
    let said = |reason: &str| ConditionReport { reason: reason.into(), message: "why".into(), holds: false };
    let refused = LinkReport { conditions: vec![said("RefusedByPeer")], ..link("a") };
    let no_room = "the drives are full".to_string();
    let full = LinkReport { retry_versions: 3, last_error: Some(no_room), ..link("a") };
    let expired = LinkReport { compares: true, lag_seconds: None, existing_versions: None, ..link("a") };
    let remade = LinkReport { conditions: vec![said("BucketRecreated")], ..link("a") };
    let table = [
        (rule(), Some(link("a")), "True Replicating"),
        (rule(), None, "Unknown Starting"),
        (rule(), Some(blocked), "False BucketNotFound"),
        (rule(), Some(down), "False PeerUnreachable"),
        (rule(), Some(braked), "False BrakeEngaged"),
        (rule(), Some(suspended), "False Suspended"),
        (rule(), Some(lacks), "False BucketNotFound"),
        (rule(), Some(refused), "False RefusedByPeer"),
        (rule(), Some(full.clone()), "False TargetFull"),
        (rule(), Some(LinkReport { retry_versions: 0, ..full }), "True Replicating"),
        (rule(), Some(expired), "False CursorExpired"),
        (rule(), Some(remade), "True Replicating"),
        (specs::rule("logs", "gone"), None, "False PeerNotFound"),
        (with("siteRef", json!({"name": "elsewhere"})), None, "False SiteNotFound"),
        (with("recoveryPointObjective", json!("25h")), None, "False InvalidSpec"),
    ];
    for (spec, link, ready) in table {
        let (status, conditions) = shown(spec, link);
        assert_eq!(conditions["Ready"], ready, "{status:#}");
    }
}

#[test]
fn of_a_bucket_made_again_the_rule_says_what_is_not_copied_and_what_to_do() {
    let left = ConditionReport { reason: "BucketRecreated".into(), message: "do this".into(), holds: false };
    let remade = LinkReport { conditions: vec![left], ..link("a") };
    let (status, conditions) = shown(specs::rule("logs", "ams"), Some(remade));
    assert_eq!(conditions["ExistingObjectsCopied"], "False BucketRecreated");
    let all = status["conditions"].as_array().unwrap();
    let told = all.iter().find(|c| c["type"] == "ExistingObjectsCopied").unwrap();
    assert_eq!(told["message"], "to ams: do this");
}

#[test]
fn a_bucket_that_is_not_at_the_peer_is_what_the_rule_refers_to() {
    let blocked = |why: &str| LinkReport {
        state: "blocked".into(),
        blocked_reason: Some("BucketNotFound".into()),
        last_error: Some(why.into()),
        ..link("a")
    };
    let of = |why: &str| {
        let (_, conditions) = shown(specs::rule("logs", "ams"), Some(blocked(why)));
        [conditions["Accepted"].clone(), conditions["ResolvedRefs"].clone()]
    };
    assert_eq!(of("bucket logs does not exist at this site"), ["False BucketNotFound", "True ResolvedRefs"]);
    assert_eq!(of("bucket logs does not exist at ams; make it"), ["True Accepted", "False BucketNotFound"]);
}

/// Conditions of Peer `ams` as it is shown.
fn peer_conditions(peer: PeerReport) -> BTreeMap<String, String> {
    let objects = objects(&[]);
    let Snapshot { rules, problems, .. } = Judged::default().snapshot(&objects, "default");
    let report = SiteReport { peers: vec![PeerReport { peer: "ams".into(), ..peer }], ..SiteReport::default() };
    let status = view(&rules, &problems, &report).peer(&objects[&("Peer", "ams".to_string())]);
    conditions_of(&serde_json::to_value(status).unwrap())
}

#[test]
fn a_peer_says_which_of_its_files_its_line_or_its_build_is_to_be_mended() {
    let down = |why: &str| peer_conditions(PeerReport { last_error: Some(why.into()), ..PeerReport::default() });
    let list = down("InvalidCRL: read ca.crl: no such file");
    assert_eq!([&list["ResolvedRefs"], &list["Ready"]], ["False InvalidCRL"; 2]);
    assert_eq!(down("InvalidCertificate: tls.crt: no certificate in it")["ResolvedRefs"], "False InvalidCertificate");
    let old = down("reach ams: it says goodbye: this end speaks protocol version 9 only");
    assert_eq!(old["Compatible"], "False ProtocolTooOld");
    let skewed = PeerReport { is_up: true, clock_offset_ms: Some(90_000), ..PeerReport::default() };
    let skewed = peer_conditions(skewed);
    assert_eq!([&skewed["Connected"], &skewed["Ready"]], ["True Connected", "False ClockSkewTooLarge"]);
    let young = PeerReport { is_up: true, lacks: vec!["comparisons".into()], ..PeerReport::default() };
    assert_eq!(peer_conditions(young)["Compatible"], "False FeatureMissing");
    assert_eq!(peer_conditions(PeerReport { is_up: true, ..PeerReport::default() })["Ready"], "True Ready");
}

#[test]
fn a_site_says_what_ails_its_certificate_its_store_and_its_journal() {
    let objects = objects(&[]);
    let Snapshot { rules, problems, .. } = Judged::default().snapshot(&objects, "default");
    let said = |report: SiteReport| {
        let status = view(&rules, &problems, &report).site(&objects[&("Site", "fra".to_string())]);
        conditions_of(&serde_json::to_value(status).unwrap())
    };
    let over = Some(Certificate { issued_at: NOW - 1_000, expires_at: NOW });
    let over = said(SiteReport { certificate: over, ..SiteReport::default() });
    assert_eq!([&over["ResolvedRefs"], &over["Ready"]], ["False CertificateExpired"; 2]);
    let tls = Some("TLS: invalid peer certificate: UnknownIssuer".into());
    assert_eq!(said(SiteReport { store_error: tls, ..SiteReport::default() })["StoreReachable"], "False TLSFailed");
    let of_link = |why: &str| SiteReport {
        links: vec![LinkReport { last_error: Some(why.into()), ..link("a") }],
        ..SiteReport::default()
    };
    let journal = |why: &str| said(of_link(why))["JournalReady"].clone();
    assert_eq!(journal("journal is unavailable: (code: 13) database or disk is full"), "False Full");
    assert_eq!(journal("journal cannot be used: database disk image is malformed"), "False Corrupt");
    assert_eq!(journal("the drives are full"), "True Ready");
}

#[test]
fn lag_is_a_time_the_server_ages_and_is_absent_without_a_backlog() {
    let mut spec = specs::rule("logs", "ams");
    spec["recoveryPointObjective"] = json!("1m");
    let (idle, conditions) = shown(spec.clone(), Some(link("a")));
    assert_eq!(
        (idle.get("oldestPendingTime"), conditions["LagWithinObjective"].as_str()),
        (None, "True WithinObjective")
    );
    let late = LinkReport {
        oldest_pending: Some(NOW - 90_000),
        lag_seconds: Some(90.0),
        backlog_versions: Some(7),
        backlog_bytes: Some(50 << 20),
        rpo_seconds: Some(60.0),
        ..link("a")
    };
    let (status, conditions) = shown(spec.clone(), Some(late));
    assert_eq!(status["oldestPendingTime"], "2027-01-15T07:58:30Z");
    assert_eq!(
        (&status["backlogVersions"], &status["backlogBytes"], &status["peersReady"]),
        (&json!(7), &json!("50Mi"), &json!("0/1"))
    );
    assert_eq!(conditions["LagWithinObjective"], "False LagObjectiveExceeded");
    let unknown = LinkReport { lag_seconds: None, backlog_versions: None, ..link("a") };
    let (status, conditions) = shown(spec, Some(unknown));
    assert_eq!(
        (status.get("backlogVersions"), conditions["LagWithinObjective"].as_str()),
        (None, "Unknown LagUnknown")
    );
}

#[test]
fn a_link_of_another_replicator_counts_by_what_is_known_of_it() {
    let other = LinkReport { state: "standby".into(), parked_versions: 2, ..link("a") };
    let (status, conditions) = shown(specs::rule("logs", "ams"), Some(other.clone()));
    assert_eq!((&status["peersReady"], conditions["Ready"].as_str()), (&json!("1/1"), "True Replicating"));
    assert_eq!(status["parkedVersions"], 2, "as the journal says");
    let unknown = LinkReport { lag_seconds: None, backlog_versions: None, ..other };
    let (status, _) = shown(specs::rule("logs", "ams"), Some(unknown));
    assert_eq!((&status["peersReady"], status.get("parkedVersions")), (&json!("0/1"), None));
}

#[test]
fn statuses_fit_their_definitions() {
    use crate::document::{Node, schema};
    let (status, _) = shown(specs::rule("logs", "ams"), Some(link("a")));
    let (_, crd) = crate::rule::resource::crd::crds().into_iter().find(|(f, _)| f == "replicationrules.yaml").unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    assert_eq!(schema::check(schema, &Node::from_json(&status), "status"), []);
}

#[test]
fn a_condition_goes_at_once_and_numbers_every_ten_seconds() {
    let of = |ready: &str, backlog: u64, at: &str| {
        json!({"conditions": [{"type": "Ready", "status": ready, "reason": "R", "observedGeneration": 1}],
            "observedGeneration": 1, "backlogVersions": backlog, "measuredTime": at})
    };
    let before = Instant::now();
    let now = before + NUMBERS_EVERY;
    let soon = before + NUMBERS_EVERY / 2;
    let written = of("True", 1, "a");
    assert_eq!(due(&of("True", 1, "b"), &written, Some(before), now + NUMBERS_EVERY), None, "only the time differs");
    assert_eq!(due(&of("True", 2, "b"), &written, Some(before), soon), None, "numbers wait");
    assert_eq!(due(&of("True", 2, "b"), &written, Some(before), now), Some(Due::Numbers), "and then go");
    assert_eq!(due(&of("False", 1, "a"), &written, Some(before), soon), Some(Due::Verdict), "a condition goes at once");
    let mut altered = of("False", 1, "a");
    altered["observedGeneration"] = json!(2);
    assert_eq!(due(&altered, &written, Some(before), soon), Some(Due::Asked));
    assert_eq!(due(&altered, &Json::Null, None, soon), Some(Due::Verdict), "one never written waits its turn");
}

#[tokio::test(start_paused = true)]
async fn a_round_ends_in_time_and_what_a_person_waits_for_goes_before_the_rest() {
    let mock = Mock::default();
    let names: Vec<String> = (0..100).map(|n| format!("rule-{n:03}")).collect();
    names.iter().for_each(|name| mock.put("ReplicationRule", name, specs::rule("logs", "ams")));
    let held = |name: &String| {
        Object::of("ReplicationRule", serde_json::from_value(mock.get("ReplicationRule", name)).unwrap())
    };
    let objects: Objects = names.iter().map(|name| (("ReplicationRule", name.clone()), Arc::new(held(name)))).collect();
    let wanted = |phase: &str, altered: &str| -> Vec<Wanted> {
        let one = |o: &Arc<Object>| {
            let generation = if o.name == altered { 4 } else { 3 };
            let status = json!({"phase": phase, "observedGeneration": generation});
            Wanted { id: (o.kind, o.name.clone()), uid: o.uid.clone(), status }
        };
        objects.values().map(one).collect()
    };
    let mut writer = Writer::new(mock.cluster(), "me");
    mock.slow(ROUND / 2);
    let mut rounds = 0;
    while mock.writes("/status").len() < names.len() {
        writer.write(&objects, wanted("Running", "")).await;
        rounds += 1;
    }
    assert!((4..=20).contains(&rounds), "{rounds} rounds");
    writer.write(&objects, wanted("Complete", "rule-099")).await;
    let writes = mock.writes("/status");
    let second: Vec<&str> = writes[names.len()..].iter().map(|w| w["metadata"]["name"].as_str().unwrap()).collect();
    assert!(second.len() < names.len() / 2 && second[..WRITES_AT_ONCE].contains(&"rule-099"), "{second:?}");
}

#[tokio::test]
async fn a_round_writes_however_long_it_takes_to_say_what_is_wanted() {
    let mock = Mock::default();
    let objects = at_the_server(&mock);
    let mut writer = Writer::new(mock.cluster(), "me");
    let began = Instant::now();
    let slowly = wanted(&objects, true).into_iter().inspect(|_| while began.elapsed() < 2 * ROUND {});
    writer.write(&objects, slowly).await;
    assert_eq!(mock.writes("/status").len(), objects.len());
}

/// Statuses of a site with one rule, as the leader would have them.
fn wanted(objects: &Objects, is_up: bool) -> Vec<Wanted> {
    let Snapshot { rules, problems, .. } = Judged::default().snapshot(objects, "default");
    let peer = PeerReport {
        peer: "ams".into(),
        is_up,
        last_error: (!is_up).then(|| "refused".into()),
        ..PeerReport::default()
    };
    let report = SiteReport { links: vec![link("a")], peers: vec![peer], ..SiteReport::default() };
    let view = view(&rules, &problems, &report);
    let one = |object: &Arc<Object>| {
        let status = match object.kind {
            "Site" => serde_json::to_value(view.site(object)),
            "Peer" => serde_json::to_value(view.peer(object)),
            _ => serde_json::to_value(view.rule(object)),
        };
        Wanted { id: (object.kind, object.name.clone()), uid: object.uid.clone(), status: status.unwrap() }
    };
    objects.values().map(one).collect()
}

fn at_the_server(mock: &Mock) -> Objects {
    mock.put("Site", "fra", specs::site());
    mock.put("Peer", "ams", specs::peer("ams"));
    mock.put("ReplicationRule", "a", specs::rule("logs", "ams"));
    let held = |kind: &'static str, name: &str| {
        let object = Object::of(kind, serde_json::from_value(mock.get(kind, name)).unwrap());
        ((kind, name.to_string()), Arc::new(object))
    };
    [held("Site", "fra"), held("Peer", "ams"), held("ReplicationRule", "a")].into()
}

#[tokio::test]
async fn status_and_events_are_written_once_and_again_when_something_changes() {
    let mock = Mock::default();
    let objects = at_the_server(&mock);
    let mut writer = Writer::new(mock.cluster(), "me");
    writer.write(&objects, wanted(&objects, true)).await;
    writer.write(&objects, wanted(&objects, true)).await;
    assert_eq!(mock.writes("/status").len(), 3, "each object once");
    assert_eq!(mock.get("ReplicationRule", "a")["status"]["peersReady"], "1/1");
    let reasons = |mock: &Mock| -> Vec<String> {
        mock.writes("/events").iter().map(|e| e["reason"].as_str().unwrap().to_string()).collect()
    };
    let mut first = reasons(&mock);
    first.sort();
    assert_eq!(first, ["LeaderElected", "PeerConnected", "RuleAccepted"]);
    writer.write(&objects, wanted(&objects, false)).await;
    assert_eq!(mock.writes("/status").len(), 4, "the peer's alone");
    assert_eq!(reasons(&mock).last().unwrap(), "PeerLost");
}

#[tokio::test]
async fn what_the_server_does_not_take_comes_again() {
    let mock = Mock::default();
    let objects = at_the_server(&mock);
    let mut writer = Writer::new(mock.cluster(), "me");
    mock.fail("ReplicationRule", Some(500));
    writer.write(&objects, wanted(&objects, true)).await;
    assert_eq!(mock.get("ReplicationRule", "a")["status"], Json::Null);
    assert_eq!(mock.get("Peer", "ams")["status"]["attachedRules"], 1, "the others are written");
    mock.fail("ReplicationRule", None);
    writer.write(&objects, wanted(&objects, true)).await;
    assert_eq!(mock.get("ReplicationRule", "a")["status"]["peersReady"], "1/1");
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_let_go_and_never_makes_one_anew() {
    let mock = Mock::default();
    let objects = at_the_server(&mock);
    let rule = &objects[&("ReplicationRule", "a".to_string())];
    let writer = Writer::new(mock.cluster(), "me");
    assert!(writer.hold(rule, true).await);
    mock.delete("ReplicationRule", "a");
    assert!(mock.get("ReplicationRule", "a")["metadata"]["deletionTimestamp"].is_string(), "it is held");
    assert!(writer.hold(rule, false).await);
    assert_eq!(mock.get("ReplicationRule", "a"), Json::Null, "it went");
    mock.put("ReplicationRule", "a", specs::rule("other", "ams"));
    assert!(!writer.hold(rule, false).await, "that is another object");
}

#[test]
fn a_certificate_that_nobody_renews_is_told_before_it_expires() {
    let object = Object { kind: "Site", name: "fra".into(), ..Object::default() };
    let status = |expires_at| {
        let certificate = Some(Certificate { issued_at: NOW - 1_000, expires_at });
        let report = SiteReport { certificate, ..SiteReport::default() };
        serde_json::to_value(view(&RuleSet::default(), &[], &report).site(&object)).unwrap()
    };
    let said = |status: &Json| {
        let all = status["conditions"].as_array().unwrap();
        let found = all.iter().find(|c| c["type"] == "CertificateValid").unwrap();
        format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
    };
    let (fresh, late, over) = (status(NOW + 3_000), status(NOW + 300), status(NOW));
    assert_eq!([said(&fresh), said(&late), said(&over)], ["True Valid", "False Expiring", "False Expired"]);
    assert!(fresh["certificateNotAfter"].is_string());
    let told = |before, after| events::between("Site", before, after).iter().map(|e| e.reason).collect::<Vec<_>>();
    assert_eq!(told(&fresh, &late), ["CertificateExpiring"]);
    assert!(told(&late, &late).is_empty() && told(&late, &fresh).is_empty());
}

#[test]
fn a_certificate_for_another_site_is_told_with_its_secret() {
    let objects = objects(&[]);
    let Snapshot { rules, problems, .. } = Judged::default().snapshot(&objects, "default");
    let site = rules.sites.values().next().expect("there is a Site");
    let own = crate::cli::certs::spiffe_id(&site.trust_domain, &site.site_id);
    let said = |uri: &str| {
        let report = SiteReport { certificate_uri: Some(uri.into()), ..SiteReport::default() };
        let status = view(&rules, &problems, &report).site(&objects[&("Site", site.name.clone())]);
        let of = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind).unwrap().clone();
        (of("ResolvedRefs"), of("Ready"))
    };
    let (resolved, ready) = said(&own);
    assert_eq!([&*resolved.status, &*ready.status], ["True", "True"], "{resolved:?} {ready:?}");
    let (resolved, ready) = said("spiffe://example.org/site/ams/replicator");
    assert_eq!([&*resolved.reason, &*ready.reason], ["InvalidCertificate"; 2]);
    for word in ["spec.listener.tlsSecretRef", &site.tls_secret, "site/ams/replicator", &own] {
        assert!(resolved.message.contains(word), "{word}: {}", resolved.message);
    }
}

#[test]
fn a_certificate_of_any_listener_is_told_by_name() {
    let object = Object { kind: "Site", name: "fra".into(), ..Object::default() };
    let holds = |left: u64| Certificate { issued_at: NOW - 1_000, expires_at: NOW + left };
    let said = |own: Option<u64>, s3: u64, api: u64| {
        let other = |whose: &str, left| OtherCertificate { whose: whose.into(), holds: holds(left) };
        let other_certificates = vec![other("the S3 listener's", s3), other("the private API's", api)];
        let report = SiteReport { certificate: own.map(holds), other_certificates, ..SiteReport::default() };
        let status = view(&RuleSet::default(), &[], &report).site(&object);
        let found = status.conditions.into_iter().find(|c| c.type_ == "CertificateValid").unwrap();
        (format!("{} {}", found.status, found.reason), found.message)
    };
    assert_eq!(said(Some(3_000), 3_000, 3_000).0, "True Valid");
    let (state, why) = said(Some(3_000), 200, 3_000);
    assert_eq!(state, "False Expiring");
    assert!(why.starts_with("the S3 listener's certificate holds until ") && !why.contains("private API"), "{why}");
    let (state, why) = said(Some(3_000), 200, 0);
    assert_eq!(state, "False Expired", "the worst of them");
    assert!(why.starts_with("the private API's certificate held until ") && why.contains("the S3 listener's"), "{why}");
    assert_eq!(said(None, 3_000, 3_000).0, "Unknown NotRead");
    assert_eq!(said(None, 3_000, 200).0, "False Expiring");
}

#[test]
fn a_job_says_what_it_found() {
    use super::job::{Stage, spec, status};
    use crate::replicator::verify::{LinkVerify, VerifyReport};
    let job = |kind: &str| Object {
        kind: "ReplicationJob",
        spec: json!({"ruleRef": {"name": "a"}, "type": kind}),
        ..Object::default()
    };
    let found = |verdict: &str, missing: u64, repaired: u64, error: Option<&str>| {
        let link = LinkVerify {
            peer: "ams".into(),
            verdict: verdict.into(),
            versions: 9,
            missing_there: missing,
            repaired,
            error: error.map(Into::into),
            ..LinkVerify::default()
        };
        VerifyReport { rule: "a".into(), repair: kind_repairs(repaired), existing: false, links: vec![link] }
    };
    fn kind_repairs(repaired: u64) -> bool {
        repaired > 0
    }
    let table = [
        ("Verify", Stage::Ended(found("equal", 0, 0, None)), "Complete", Some("Consistent")),
        ("Verify", Stage::Ended(found("different", 2, 0, None)), "Complete", Some("Divergent")),
        ("Repair", Stage::Ended(found("repaired", 0, 2, None)), "Complete", Some("Repaired")),
        ("Backfill", Stage::Ended(found("repaired", 0, 2, None)), "Complete", Some("Backfilled")),
        ("Verify", Stage::Ended(found("unknown", 0, 0, Some("the peer is down"))), "Failed", None),
        ("Verify", Stage::Running(found("running", 0, 0, None)), "Running", None),
        ("Verify", Stage::Pending("RuleNotFound", "x".into()), "Pending", None),
        ("Verify", Stage::Suspended, "Suspended", None),
    ];
    for (kind, stage, phase, result) in table {
        let object = job(kind);
        let status = status(&object, &spec(&object).unwrap(), &stage, Some(NOW), NOW);
        assert_eq!((status.phase.as_deref(), status.result.as_deref()), (Some(phase), result), "{kind} {stage:?}");
        assert_eq!(status.completion_time.is_some(), matches!(phase, "Complete" | "Failed"));
    }
}
