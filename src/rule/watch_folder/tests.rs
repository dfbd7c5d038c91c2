use super::*;
use std::fs;
use tempfile::TempDir;

const SITE: &str = r#"apiVersion: replication.isthmus.dev/v1alpha1
kind: Site
metadata: {name: fra}
spec:
  siteID: fra
  trustDomain: isthmus.example.org
  store: {apiEndpoint: "https://store-api.isthmus.svc:9001", apiTlsSecretRef: {name: isthmus-tls}}
  listener: {advertisedEndpoint: "https://replication.fra.example.org:8443", tlsSecretRef: {name: isthmus-tls}}
"#;
const PEER: &str = r#"apiVersion: replication.isthmus.dev/v1alpha1
kind: Peer
metadata: {name: ams}
spec:
  type: Replicator
  replicator:
    siteID: ams
    endpoint: https://replication.ams.example.org:8443
    tls: {caRef: {kind: Secret, name: peer-ca}, identities: ["spiffe://isthmus.example.org/site/ams/replicator"]}
    inbound: [{bucket: logs, prefix: ams/}]
"#;
const COLD: &str = r#"apiVersion: replication.isthmus.dev/v1alpha1
kind: Peer
metadata: {name: cold}
spec:
  type: S3
  s3: {endpoint: "https://s3.example.org", pathStyle: false, dialect: AWS}
"#;
const RULE: &str = r#"apiVersion: replication.isthmus.dev/v1alpha1
kind: ReplicationRule
metadata: {name: logs}
spec: {siteRef: {name: fra}, bucket: logs, destinations: [{peer: ams}, {peer: cold, bucket: fra-logs}], recoveryPointObjective: 15m}
"#;

struct Folder(TempDir);
impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = Folder(TempDir::new().unwrap());
        files.iter().for_each(|(name, text)| folder.put(name, text));
        folder
    }
    /// The design's example, one document a file.
    fn example() -> Self {
        Folder::with(&[
            ("site.yaml", SITE),
            ("peer.yaml", PEER),
            ("rule.yaml", &RULE.replace(", {peer: cold, bucket: fra-logs}", "")),
        ])
    }
    fn put(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }
    fn read(&self, previous: Option<&Loaded>) -> Loaded {
        read(self.0.path(), previous)
    }
}
/// `(file:line and field without the folder, reason)` of every problem.
fn said(loaded: &Loaded) -> Vec<(String, &'static str)> {
    let short = |place: &str| place.rsplit_once('/').map_or(place, |(_, rest)| rest).to_string();
    loaded.snapshot.problems.iter().map(|p| (short(&p.place), p.reason)).collect()
}
fn rules(loaded: &Loaded) -> Vec<&str> {
    loaded.snapshot.rules.rules.keys().map(String::as_str).collect()
}

#[test]
fn the_example_of_the_design_reads_whole() {
    let folder = Folder::with(&[("all.yaml", &[SITE, PEER, COLD, RULE].join("---\n"))]);
    let loaded = folder.read(None);
    let set = &loaded.snapshot.rules;
    assert_eq!(said(&loaded), []);
    let site = set.own_site(None).unwrap();
    assert_eq!((site.site_id.as_str(), site.advertised_endpoint.as_str()), ("fra", "replication.fra.example.org:8443"));
    let peer = &set.peers["ams"];
    assert_eq!(
        (peer.endpoint.as_str(), peer.server_name.as_str()),
        ("replication.ams.example.org:8443", "replication.ams.example.org")
    );
    assert_eq!((peer.ca.name.as_str(), peer.ca.key.as_str(), peer.ca.is_secret), ("peer-ca", "ca.crt", true));
    assert_eq!(
        (peer.inbound[0].prefix.as_str(), peer.inbound[0].deletes, peer.inbound[0].version_deletes),
        ("ams/", true, false)
    );
    let rule = &set.rules["logs"];
    assert_eq!((rule.rpo_millis, rule.generation, rule.uid.len()), (Some(900_000), 1, 32));
    assert_eq!((rule.destinations.len(), rule.destinations[0].bucket.as_str()), (2, "logs"));
    assert!(rule.replicate.delete_markers && rule.replicate.existing_objects && !rule.replicate.version_deletes);
}

#[test]
fn what_is_wrong_is_said_with_file_line_and_field() {
    let replaced = |text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    let table = [
        (replaced(RULE, "bucket: logs,", "bucket: logs, prefx: a,"), "4 spec.prefx", "InvalidSpec"),
        (replaced(RULE, "bucket: logs,", ""), "4 spec.bucket", "InvalidSpec"),
        (replaced(RULE, "bucket: logs,", "bucket: LOGS,"), "4 spec.bucket", "InvalidSpec"),
        (replaced(RULE, "bucket: logs,", "bucket: lo..gs,"), "4 spec.bucket", "InvalidSpec"),
        (replaced(RULE, "15m}", "48h}"), "4 spec.recoveryPointObjective", "InvalidSpec"),
        (replaced(RULE, "15m}", "15 minutes}"), "4 spec.recoveryPointObjective", "InvalidSpec"),
        (replaced(RULE, "15m}", "15m, mode: Both}"), "4 spec.mode", "InvalidSpec"),
        (replaced(RULE, "15m}", "15m, bandwidthLimit: \"0\"}"), "4 spec.bandwidthLimit", "InvalidSpec"),
        (replaced(RULE, "{peer: cold,", "{peer: ams,"), "4 spec.destinations[1]", "InvalidSpec"),
        (replaced(PEER, "https://rep", "http://rep"), "8 spec.replicator.endpoint", "InvalidSpec"),
        (replaced(PEER, "spiffe://", "https://"), "9 spec.replicator.tls.identities", "InvalidSpec"),
        (replaced(PEER, "type: Replicator", "type: S3"), "4 spec", "InvalidSpec"),
        (replaced(PEER, "prefix: ams/", "prefx: ams/"), "10 spec.replicator.inbound[0].prefx", "InvalidSpec"),
        (replaced(SITE, "siteID: fra", "siteID: 7"), "5 spec.siteID", "InvalidSpec"),
        (replaced(SITE, "kind: Site", "kind: Sight"), "2 kind", "UnknownKind"),
        (replaced(SITE, "v1alpha1", "v2"), "1 apiVersion", "UnknownKind"),
        (replaced(SITE, "metadata: {name: fra}", "metadata: {nam: fra}"), "3 metadata.name", "InvalidSpec"),
        (replaced(SITE, "spec:", "spek:"), "1 spec", "InvalidSpec"),
    ];
    for (text, place, reason) in table {
        let loaded = Folder::with(&[("bad.yaml", &text)]).read(None);
        let said = said(&loaded);
        assert!(said.contains(&(format!("bad.yaml:{place}"), reason)), "{place}: {said:?}\n{text}");
        assert!(loaded.snapshot.problems.iter().all(|p| !p.message.contains('\n')));
    }
}

#[test]
fn tags_with_delete_markers_contradict_each_other() {
    let text = RULE.replace("15m}", "15m, filter: {tags: {a: b}}}");
    let loaded = Folder::with(&[("site.yaml", SITE), ("peer.yaml", PEER), ("rule.yaml", &text)]).read(None);
    assert!(rules(&loaded).is_empty());
    assert!(
        loaded.snapshot.problems[0].message.contains("a delete marker has no tags"),
        "{:?}",
        loaded.snapshot.problems
    );
    let text = text.replace("15m,", "15m, replicate: {deleteMarkers: Disabled},");
    let loaded = Folder::with(&[("site.yaml", SITE), ("peer.yaml", PEER), ("rule.yaml", &text)]).read(None);
    assert_eq!(rules(&loaded), ["logs"]);
}

#[test]
fn a_file_that_no_longer_parses_keeps_its_last_good_documents() {
    let folder = Folder::example();
    let first = folder.read(None);
    assert_eq!((said(&first), rules(&first)), (vec![], vec!["logs"]));
    folder.put("rule.yaml", "apiVersion: [\nkind: x\n");
    let second = folder.read(Some(&first));
    assert_eq!(second.snapshot.rules, first.snapshot.rules);
    assert_eq!(second.snapshot.problems[0].reason, "NotYaml");
    assert!(second.snapshot.problems[0].place.contains("rule.yaml:"), "{:?}", second.snapshot.problems);
    let third = folder.read(Some(&second));
    assert_eq!(third, second, "and goes on doing so");
}

#[test]
fn a_bad_edit_of_one_document_leaves_its_last_form_and_the_others() {
    let folder = Folder::example();
    let first = folder.read(None);
    let other = RULE.replace("{name: logs}", "{name: other}").replace("bucket: logs,", "bucket: photos,");
    let bad = RULE.replace("bucket: logs,", "bucket: logs, priorty: 3,");
    folder.put("rule.yaml", &[bad, other].join("---\n"));
    let second = folder.read(Some(&first));
    assert_eq!(rules(&second), ["logs", "other"]);
    assert_eq!(second.snapshot.rules.rules["logs"], first.snapshot.rules.rules["logs"]);
    assert!(said(&second).contains(&("rule.yaml:4 spec.priorty".into(), "InvalidSpec")), "{:?}", said(&second));
}

#[test]
fn an_immutable_field_cannot_be_edited_and_a_change_raises_the_generation() {
    let folder = Folder::example();
    let first = folder.read(None);
    let rule = fs::read_to_string(folder.0.path().join("rule.yaml")).unwrap();
    folder.put("rule.yaml", &rule.replace("bucket: logs", "bucket: elsewhere"));
    let second = folder.read(Some(&first));
    assert_eq!(second.snapshot.rules, first.snapshot.rules);
    assert!(second.snapshot.problems[0].message.contains("bucket is immutable"), "{:?}", second.snapshot.problems);
    folder.put("rule.yaml", &rule.replace("15m", "5m"));
    let third = folder.read(Some(&second));
    assert_eq!((third.snapshot.rules.rules["logs"].generation, said(&third).len()), (2, 0));
    assert_eq!(third.snapshot.rules.rules["logs"].uid, first.snapshot.rules.rules["logs"].uid);
}

#[test]
fn an_unreadable_folder_changes_nothing_and_a_file_that_is_gone_is_a_deletion() {
    let folder = Folder::example();
    let first = folder.read(None);
    let gone = read(&folder.0.path().join("nowhere"), Some(&first));
    assert_eq!(gone.snapshot.rules, first.snapshot.rules);
    assert_eq!(gone.snapshot.problems[0].reason, "FolderUnreadable");
    fs::remove_file(folder.0.path().join("rule.yaml")).unwrap();
    let second = folder.read(Some(&gone));
    assert_eq!((rules(&second), second.snapshot.rules.peers.len()), (vec![], 1));
    assert_eq!(said(&second), []);
}

#[test]
fn jobs_and_drills_are_refused_in_a_folder_and_other_files_are_passed_over() {
    let job = "apiVersion: replication.isthmus.dev/v1alpha1\nkind: ReplicationJob\nmetadata: {name: x}\nspec: {}\n";
    let folder = Folder::with(&[("job.yml", job), (".swp.yaml", "}{"), ("README.md", "}{")]);
    assert_eq!(said(&folder.read(None)), [("job.yml:2 kind".to_string(), "KindUnsupported")]);
}

#[tokio::test]
async fn changes_of_the_folder_take_effect_live() {
    let folder = Folder::example();
    let (tx, mut rx) = tokio::sync::watch::channel(Snapshot::default());
    let token = CancellationToken::new();
    let refs = folder.0.path().join("refs");
    let task = tokio::spawn(watch(folder.0.path().into(), Some(refs.clone()), Loaded::default(), tx, token.clone()));
    async fn within<T>(fact: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), fact).await.expect("it takes effect")
    }
    within(rx.wait_for(|s| s.rules.rules.contains_key("logs"))).await.unwrap();
    within(rx.wait_for(|s| s.problems.iter().any(|p| p.reason == "SecretNotFound"))).await.unwrap();
    for (secret, keys) in [("isthmus-tls", vec!["tls.crt", "tls.key", "ca.crt"]), ("peer-ca", vec!["ca.crt"])] {
        fs::create_dir_all(refs.join("secrets").join(secret)).unwrap();
        keys.iter().for_each(|key| fs::write(refs.join("secrets").join(secret).join(key), "x").unwrap());
    }
    within(rx.wait_for(|s| s.problems.is_empty())).await.unwrap();
    let rule = fs::read_to_string(folder.0.path().join("rule.yaml")).unwrap();
    folder.put("rule.yaml", &rule.replace("15m}", "15m, suspend: true}"));
    within(rx.wait_for(|s| s.rules.rules["logs"].suspend)).await.unwrap();
    fs::remove_file(folder.0.path().join("rule.yaml")).unwrap();
    within(rx.wait_for(|s| s.rules.rules.is_empty())).await.unwrap();
    token.cancel();
    within(task).await.unwrap();
}

/// What the journal hands back to the next process.
fn restarted(loaded: &Loaded) -> Loaded {
    Loaded::restore(loaded.snapshot.accepted.values().map(|a| (a.generation, a.spec.clone())))
}

#[test]
fn after_a_restart_a_broken_file_leaves_its_last_form_and_generations_go_on() {
    let folder = Folder::example();
    let first = folder.read(None);
    let rule = fs::read_to_string(folder.0.path().join("rule.yaml")).unwrap();
    folder.put("rule.yaml", &rule.replace("15m", "5m"));
    let second = folder.read(Some(&first));
    let again = restarted(&second);
    assert_eq!(again.snapshot.rules, second.snapshot.rules);
    for (broken, place, reason) in [
        ("spec: [", "rule.yaml:1", "NotYaml"),
        (&rule.replace("bucket:", "bukket:"), "rule.yaml:4 spec.bukket", "InvalidSpec"),
    ] {
        folder.put("rule.yaml", broken);
        let third = folder.read(Some(&again));
        assert_eq!(third.snapshot.rules, second.snapshot.rules);
        assert_eq!(third.snapshot.accepted, second.snapshot.accepted, "the next restart has it too");
        assert!(said(&third).contains(&(place.into(), reason)), "{:?}", said(&third));
    }
    folder.put("rule.yaml", &rule.replace("15m", "1m"));
    assert_eq!(folder.read(Some(&again)).snapshot.rules.rules["logs"].generation, 3);
}

#[test]
fn after_a_restart_an_unreadable_folder_is_not_an_empty_one() {
    let folder = Folder::example();
    let again = restarted(&folder.read(None));
    let gone = folder.0.path().join("gone");
    let second = read(&gone, Some(&again));
    assert_eq!((second.snapshot.rules, second.snapshot.accepted), (again.snapshot.rules, again.snapshot.accepted));
    assert_eq!(second.snapshot.problems[0].reason, "FolderUnreadable");
}

#[test]
fn a_file_that_went_while_the_process_was_down_takes_its_rule() {
    let folder = Folder::example();
    let again = restarted(&folder.read(None));
    fs::remove_file(folder.0.path().join("rule.yaml")).unwrap();
    let second = folder.read(Some(&again));
    assert!(second.snapshot.rules.rules.is_empty());
    assert!(
        !second.snapshot.accepted.keys().any(|name| name.contains("logs")),
        "{:?}",
        second.snapshot.accepted.keys()
    );
}
