use super::*;
use crate::rule::watch_folder;
use std::collections::BTreeSet;
use tempfile::TempDir;

const SITE: &str = r#"apiVersion: replication.isthmus.dev/v1alpha1
kind: Site
metadata: {name: fra}
spec:
  siteID: fra
  trustDomain: example.org
  store: {apiEndpoint: "https://store.example.org:9001", apiTlsSecretRef: {name: own-tls}}
  listener: {advertisedEndpoint: "https://fra.example.org:8443", tlsSecretRef: {name: own-tls}}
"#;
const PEER: &str = r#"apiVersion: replication.isthmus.dev/v1alpha1
kind: Peer
metadata: {name: ams}
spec:
  type: Replicator
  replicator:
    siteID: ams
    endpoint: https://ams.example.org:8443
    tls: {caRef: {kind: Secret, name: peer-ca}, identities: ["spiffe://example.org/site/ams/replicator"]}
    inbound:
      - {bucket: orders, origins: ["*"]}
"#;
const COLD: &str = r#"apiVersion: replication.isthmus.dev/v1alpha1
kind: Peer
metadata: {name: cold}
spec:
  type: S3
  s3: {endpoint: "https://s3.example.org"}
"#;
const RULE: &str = r#"apiVersion: replication.isthmus.dev/v1alpha1
kind: ReplicationRule
metadata: {name: orders}
spec:
  siteRef: {name: fra}
  bucket: orders
  filter: {prefix: eu/}
  destinations:
    - {peer: ams}
    - {peer: cold, bucket: orders-archive}
  recoveryPointObjective: 15m
"#;
const JOB: &str = r#"apiVersion: replication.isthmus.dev/v1alpha1
kind: ReplicationJob
metadata: {name: proof}
spec:
  ruleRef: {name: orders}
  type: Verify
"#;
const DRILL: &str = r#"apiVersion: replication.isthmus.dev/v1alpha1
kind: FailoverDrill
metadata: {name: friday}
spec:
  peerRef: {name: ams}
  ruleRefs: [{name: orders}]
  type: Partition
  partition: {duration: 30s, direction: Both}
  objectives: {rpo: 10s, rto: 1m}
  deadline: 5m
"#;

const SERVER: Taker = Taker::ApiServer { namespace: None };

fn text(file: &str, text: &str) -> Text {
    Text { file: file.into(), text: text.into() }
}
fn base() -> Vec<Text> {
    vec![text("site.yaml", SITE), text("peers.yaml", &[PEER, COLD].join("---\n")), text("rule.yaml", RULE)]
}
/// The base with one more document.
fn with(more: &str) -> Vec<Text> {
    [base(), vec![text("more.yaml", more)]].concat()
}
/// The base with a document of its own in place of one of its files.
fn instead(file: &str, from: &str, to: &str) -> Vec<Text> {
    let replace = |t: Text| {
        assert!(t.file != file || t.text.contains(from), "{from} stands nowhere in {file}");
        Text { text: if t.file == file { t.text.replacen(from, to, 1) } else { t.text }, ..t }
    };
    base().into_iter().map(replace).collect()
}
/// `file:line object field reason` of everything found.
fn said(checked: &Checked) -> Vec<String> {
    let one = |f: &Found| format!("{}:{} {} {} {}", f.file, f.line.unwrap_or(0), f.object, f.field, f.reason);
    checked.problems.iter().map(one).collect()
}

#[test]
fn what_holds_is_named_with_what_it_says() {
    for taker in [Taker::Folder, SERVER] {
        let checked = check(&base(), &taker);
        assert_eq!(said(&checked), Vec::<String>::new());
        let rows: Vec<String> = checked
            .documents
            .iter()
            .map(|d| format!("{}:{} {}: {}{}", d.file, d.line, d.object(), d.says, if d.in_force { "" } else { "!" }))
            .collect();
        assert_eq!(
            rows,
            [
                "site.yaml:1 Site/fra: site fra, reached at fra.example.org:8443",
                "peers.yaml:1 Peer/ams: site ams at ams.example.org:8443",
                "peers.yaml:13 Peer/cold: S3 at https://s3.example.org",
                "rule.yaml:1 ReplicationRule/orders: orders/eu/ to ams, cold/orders-archive",
            ]
        );
        assert_eq!((checked.links(), checked.without_site(None)), (2, None));
    }
}

#[test]
fn every_class_of_problem_is_found_at_its_line() {
    let table = [
        (
            instead("rule.yaml", "prefix: eu/", "prefx: eu/"),
            "rule.yaml:7 ReplicationRule/orders spec.filter.prefx InvalidSpec",
        ),
        (
            instead("rule.yaml", "15m", "15 minutes"),
            "rule.yaml:11 ReplicationRule/orders spec.recoveryPointObjective InvalidSpec",
        ),
        (
            instead("rule.yaml", "15m", "48h"),
            "rule.yaml:11 ReplicationRule/orders spec.recoveryPointObjective InvalidSpec",
        ),
        (
            instead("rule.yaml", "15m", "15m\n  bandwidthLimit: 100MB"),
            "rule.yaml:12 ReplicationRule/orders spec.bandwidthLimit InvalidSpec",
        ),
        (
            instead("rule.yaml", "15m", "15m\n  bandwidthLimit: 100"),
            "rule.yaml:12 ReplicationRule/orders spec.bandwidthLimit InvalidSpec",
        ),
        (
            instead("rule.yaml", "15m", "15m\n  bandwidthLimit: \"0\""),
            "rule.yaml:12 ReplicationRule/orders spec.bandwidthLimit InvalidSpec",
        ),
        (instead("rule.yaml", "  bucket: orders\n", ""), "rule.yaml:5 ReplicationRule/orders spec.bucket InvalidSpec"),
        (
            instead("rule.yaml", "{peer: ams}", "{peer: amx}"),
            "rule.yaml:9 ReplicationRule/orders spec.destinations[0].peer PeerNotFound",
        ),
        (
            instead("rule.yaml", "{name: fra}", "{name: waw}"),
            "rule.yaml:5 ReplicationRule/orders spec.siteRef SiteNotFound",
        ),
        (
            instead("rule.yaml", "15m", "15m\n  mode: ActiveActive"),
            "rule.yaml:12 ReplicationRule/orders spec.mode ModeUnsupportedByPeer",
        ),
        (
            instead("peers.yaml", "siteID: ams", "siteID: fra"),
            "peers.yaml:7 Peer/ams spec.replicator.siteID SiteIDInUse",
        ),
        (
            instead("peers.yaml", "{bucket: orders,", "{bucket: orders}\n      - {bucket: orders,"),
            "peers.yaml:12 Peer/ams spec.replicator.inbound[1] InvalidSpec",
        ),
        (
            instead("peers.yaml", "{bucket: orders,", "{bucket: orders, deletions: Enabled,"),
            "peers.yaml:11 Peer/ams spec.replicator.inbound[0].deletions InvalidSpec",
        ),
        (
            instead("peers.yaml", "https://ams", "http://ams"),
            "peers.yaml:8 Peer/ams spec.replicator.endpoint InvalidSpec",
        ),
        (instead("site.yaml", "kind: Site", "kind: Sight"), "site.yaml:2 Sight/fra kind UnknownKind"),
        (instead("site.yaml", "v1alpha1", "v1beta1"), "site.yaml:1 Site/fra apiVersion UnknownKind"),
        (instead("site.yaml", "metadata: {name: fra}\n", ""), "site.yaml:1 Site metadata InvalidSpec"),
        (
            with(&RULE.replace("name: orders}", "name: zebra}")),
            "more.yaml:4 ReplicationRule/zebra spec.priority OverlapsRule",
        ),
        (with(RULE), "more.yaml:3 ReplicationRule/orders metadata.name DuplicateName"),
        (with("kind: [\n"), "more.yaml:1   NotYaml"),
        (with("a: 1\na: 2\n"), "more.yaml:2   NotYaml"),
    ];
    for (texts, expected) in table {
        for taker in [Taker::Folder, SERVER] {
            let checked = check(&texts, &taker);
            let said = said(&checked);
            assert!(said.iter().any(|s| s == expected), "{expected}: {said:?}");
            let broken: BTreeSet<String> = checked
                .documents
                .iter()
                .filter(|d| !d.in_force)
                .map(|d| format!("{} {}", d.file, d.object()))
                .collect();
            let of: BTreeSet<String> = checked
                .problems
                .iter()
                .filter(|f| f.reason != "NotYaml")
                .map(|f| format!("{} {}", f.file, f.object))
                .collect();
            assert_eq!(broken, of, "a document is right exactly where nothing is said of it");
            assert!(checked.problems.iter().all(|f| !f.message.contains('\n') && f.message.len() > 8), "{said:?}");
        }
    }
}

/// The same words, reasons and documents as the process that reads the folder.
#[test]
fn a_folder_is_judged_as_the_process_judges_it() {
    let folders = [
        base(),
        instead("rule.yaml", "{peer: ams}", "{peer: amx}"),
        instead("rule.yaml", "prefix: eu/", "prefx: eu/"),
        instead("site.yaml", "siteID: fra", "siteID: FRA"),
        with(&RULE.replace("name: orders}", "name: zebra}")),
        with(RULE),
        with(JOB),
        with("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"),
        with(&RULE.replace("{name: orders}", "{name: other, namespace: prod}")),
        with("spec: ["),
    ];
    for texts in folders {
        let dir = TempDir::new().unwrap();
        let at = |file: &str| dir.path().join(file);
        texts.iter().for_each(|t| std::fs::write(at(&t.file), &t.text).unwrap());
        let process = watch_folder::read(dir.path(), None).snapshot;
        let whole = |t: Text| Text { file: at(&t.file).display().to_string(), ..t };
        let mut texts: Vec<Text> = texts.into_iter().map(whole).collect();
        texts.sort_by(|a, b| a.file.cmp(&b.file));
        let checked = check(&texts, &Taker::Folder);
        let by_process: BTreeSet<(&str, String)> =
            process.problems.iter().map(|p| (p.reason, p.message.clone())).collect();
        let by_check: BTreeSet<(&str, String)> =
            checked.problems.iter().map(|f| (f.reason.as_str(), f.message.clone())).collect();
        assert_eq!(by_check, by_process);
        assert_eq!(checked.rules, process.rules);
    }
}

#[test]
fn an_api_server_holds_other_kinds_and_carries_jobs_and_drills_out() {
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n---\napiVersion: skupper.io/v2alpha1\nkind: Site\nmetadata: {name: y}\n";
    let checked = check(&with(&[other, JOB, DRILL].join("---\n")), &SERVER);
    assert_eq!(said(&checked), Vec::<String>::new());
    let skipped: Vec<_> = checked.skipped.iter().map(|s| (s.line, s.kind.as_str())).collect();
    assert_eq!(skipped, [(1, "ConfigMap"), (5, "Site")]);
    assert_eq!(checked.documents[4].says, "Verify of orders, under Kubernetes alone");
    assert_eq!(checked.documents[5].says, "Partition with ams, under Kubernetes alone");
    let folder = said(&check(&with(&[other, JOB].join("---\n")), &Taker::Folder));
    assert_eq!(folder.iter().filter(|s| s.ends_with("UnknownKind")).count(), 2, "{folder:?}");
    assert!(folder.iter().any(|s| s.ends_with("KindUnsupported")), "{folder:?}");
    // kustomize reads its own file without these two lines.
    let own = check(&[base(), vec![text("x/kustomization.yaml", "resources: [site.yaml]\n")]].concat(), &SERVER);
    assert_eq!((own.problems.len(), own.skipped.len()), (0, 1));
    let typo = check(&with(&RULE.replace("isthmus.dev", "isthmus.io").replace("{name: orders}", "{name: x}")), &SERVER);
    assert_eq!(said(&typo), ["more.yaml:1 ReplicationRule/x apiVersion UnknownKind"]);
    assert_eq!(check(&with("spec: {}\n"), &SERVER).problems.len(), 1, "a document without a kind is nobody's");
}

#[test]
fn jobs_and_drills_are_held_against_the_rules() {
    let table = [
        (JOB.replace("{name: orders}", "{name: gone}"), "more.yaml:5 ReplicationJob/proof spec.ruleRef RuleNotFound"),
        (JOB.replace("Verify", "Prove"), "more.yaml:6 ReplicationJob/proof spec.type InvalidSpec"),
        (JOB.replace("Verify", "Verify\n  peer: waw"), "more.yaml:7 ReplicationJob/proof spec.peer NothingToCompare"),
        (
            JOB.replace("Verify", "Verify\n  prefix: us/"),
            "more.yaml:7 ReplicationJob/proof spec.prefix NothingToCompare",
        ),
        (
            JOB.replace("Verify", "Verify\n  compare: Content"),
            "more.yaml:7 ReplicationJob/proof spec.compare CompareUnsupported",
        ),
        (
            JOB.replace("Verify", "Verify\n  bandwidthLimit: \"0\""),
            "more.yaml:7 ReplicationJob/proof spec.bandwidthLimit BandwidthLimitUnusable",
        ),
        (
            DRILL.replace("[{name: orders}]", "[{name: gone}]"),
            "more.yaml:6 FailoverDrill/friday spec.ruleRefs[0] RuleNotFound",
        ),
        (
            DRILL.replace("{name: ams}", "{name: waw}"),
            "more.yaml:6 FailoverDrill/friday spec.ruleRefs[0] PeerNotOfRule",
        ),
        (DRILL.replace("5m", "2h"), "more.yaml:10 FailoverDrill/friday spec.deadline InvalidSpec"),
        (DRILL.replace("type: Partition", "type: SiteLoss"), "more.yaml:4 FailoverDrill/friday spec InvalidSpec"),
        (DRILL.replace("  deadline", "  scope: Live\n  deadline"), "more.yaml:1 FailoverDrill/friday  InvalidSpec"),
    ];
    for (document, expected) in table {
        let said = said(&check(&with(&document), &SERVER));
        assert!(said.iter().any(|s| s == expected), "{expected}: {said:?}\n{document}");
    }
    let only_ams = JOB.replace("Verify", "Verify\n  compare: Content\n  peer: ams");
    assert_eq!(said(&check(&with(&only_ams), &SERVER)), Vec::<String>::new());
}

#[test]
fn what_names_no_namespace_goes_where_it_is_applied() {
    let named = RULE.replace("{name: orders}", "{name: orders, namespace: isthmus}");
    let mixed =
        vec![text("site.yaml", SITE), text("peers.yaml", &[PEER, COLD].join("---\n")), text("rule.yaml", &named)];
    let place = "rule.yaml:3 ReplicationRule/orders metadata.namespace InvalidSpec";
    assert_eq!(said(&check(&mixed, &SERVER)), [place], "who applies it is not known");
    let into = |namespace: &str| Taker::ApiServer { namespace: Some(namespace.into()) };
    assert_eq!(said(&check(&mixed, &into("isthmus"))), Vec::<String>::new());
    assert_eq!(said(&check(&mixed, &into("prod"))), [place]);
    let job = JOB.replace("{name: proof}", "{name: proof, namespace: prod}");
    let said = said(&check(&[mixed, vec![text("job.yaml", &job)]].concat(), &into("isthmus")));
    assert_eq!(said, ["job.yaml:3 ReplicationJob/proof metadata.namespace InvalidSpec"]);
}

#[test]
fn a_list_is_its_items() {
    let indented = |document: &str| document.replace('\n', "\n    ").trim_end().to_string();
    let items: Vec<String> = [SITE, PEER, COLD, RULE].iter().map(|d| format!("  - {}\n", indented(d))).collect();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{}", items.concat());
    let checked = check(&[text("all.yaml", &list)], &SERVER);
    assert_eq!((said(&checked), checked.documents.len(), checked.links()), (vec![], 4, 2));
    let broken = check(&[text("all.yaml", &list.replace("prefix: eu/", "prefx: eu/"))], &SERVER);
    let line = list.lines().position(|l| l.contains("prefix: eu/")).unwrap() + 1;
    assert_eq!(said(&broken), [format!("all.yaml:{line} ReplicationRule/orders spec.filter.prefx InvalidSpec")]);
}

#[test]
fn a_set_without_a_site_has_nobody_to_serve_it() {
    let checked = check(&base()[1..], &SERVER);
    assert!(checked.without_site(None).unwrap().contains("there is no Site document"));
    let whole = check(&base(), &Taker::Folder);
    assert!(whole.without_site(Some("waw")).unwrap().contains("there are: fra"));
    let broken = check(&instead("site.yaml", "siteID", "siteId"), &SERVER);
    assert_eq!(broken.without_site(None), None, "what is wrong with it was said");
}

#[test]
fn references_are_looked_for_where_they_are_named() {
    let dir = TempDir::new().unwrap();
    let put = |file: &str| {
        let path = dir.path().join("secrets").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    };
    ["own-tls/tls.crt", "own-tls/tls.key", "own-tls/ca.crt"].into_iter().for_each(put);
    let mut checked = check(&base(), &Taker::Folder);
    checked.look_for(&Refs::new(dir.path()));
    assert_eq!(said(&checked), ["peers.yaml:9 Peer/ams spec.replicator.tls SecretNotFound"]);
    assert_eq!(checked.documents.iter().filter(|d| !d.in_force).count(), 1);
    put("peer-ca/ca.crt");
    let mut checked = check(&base(), &Taker::Folder);
    checked.look_for(&Refs::new(dir.path()));
    assert_eq!(said(&checked), Vec::<String>::new());
}
