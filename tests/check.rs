//! `isthmus check` from outside: documents and configurations that are right, and each way to be wrong; what the documentation
//! and the manifests show is right; nothing is written.
use serde_json::Value as Json;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;
use tempfile::TempDir;

const HEAD: &str = "apiVersion: replication.isthmus.dev/v1alpha1\n";
const RULE: &str = "  siteRef: {name: fra}\n  bucket: orders\n  filter: {prefix: eu/}\n  destinations: [{peer: ams}]\n  recoveryPointObjective: 15m\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_isthmus")).current_dir(dir).arg("check").args(args).output();
    read(output.expect("run isthmus"))
}

fn read(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

/// Checks, and reads the answer as JSON.
fn json(dir: &Path, args: &[&str]) -> (i32, Json) {
    let (code, out, err) = run(dir, &[args, &["-o", "json"]].concat());
    assert_eq!(out.lines().count(), 1, "{out}{err}");
    (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}")))
}

/// `file:line object field reason` of what was found.
fn said(report: &Json) -> Vec<String> {
    let text = |f: &Json, key: &str| f[key].as_str().unwrap_or_default().to_string();
    let line = |f: &Json| f["line"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
    let one = |f: &Json| {
        format!("{}{} {} {} {}", text(f, "file"), line(f), text(f, "object"), text(f, "field"), text(f, "reason"))
    };
    report["problems"].as_array().expect("a list").iter().map(one).collect()
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("{HEAD}kind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}")
}

/// A folder with the site `fra`: its documents in `rules`, references and certificates, a configuration of each role.
struct Site(TempDir);

impl Site {
    fn new() -> Site {
        let site = Site(TempDir::new().expect("make a directory"));
        let hosts = ["--site", "fra=127.0.0.1,localhost", "--site", "ams=127.0.0.1"];
        let certs = [&["certs", "certs", "--trust-domain", "example.org"], &hosts[..]].concat();
        let made = Command::new(env!("CARGO_BIN_EXE_isthmus")).current_dir(site.dir()).args(certs).output();
        assert_eq!(read(made.expect("run isthmus")).0, 0);
        for key in ["tls.crt", "tls.key", "ca.crt"] {
            site.copy(&format!("certs/fra/{key}"), &format!("refs/secrets/own-tls/{key}"));
        }
        site.copy("certs/ca.crt", "refs/secrets/peer-ca/ca.crt");
        site.write("secret-key", "a-secret-key-of-some-length");
        let spec = "  siteID: fra\n  trustDomain: example.org\n  store: {apiEndpoint: \"https://127.0.0.1:9001\", apiTlsSecretRef: {name: own-tls}}\n  listener: {advertisedEndpoint: \"https://127.0.0.1:8443\", tlsSecretRef: {name: own-tls}}\n";
        site.write("rules/site.yaml", &document("Site", "fra", spec));
        let spec = "  type: Replicator\n  replicator:\n    siteID: ams\n    endpoint: \"https://127.0.0.1:8444\"\n    tls: {caRef: {kind: Secret, name: peer-ca}, identities: [\"spiffe://example.org/site/ams/replicator\"]}\n    inbound: [{bucket: orders, origins: [\"*\"]}]\n";
        site.write("rules/peers.yaml", &document("Peer", "ams", spec));
        site.write("rules/orders.yaml", &document("ReplicationRule", "orders", RULE));
        let store = "store:\n  drives: [d0, d1, d2, d3]\n  s3_tls_dir: certs/fra/s3\n  users: [{access_key: demo, secret_key_file: secret-key}]\n";
        site.write("site.yaml", &format!("{store}rules_dir: rules\nrefs_dir: refs\njournal: journal.sqlite\n"));
        site.write("replicator.yaml", "rules_dir: rules\nrefs_dir: refs\njournal: journal.sqlite\n");
        let api = "api:\n  tls_dir: certs/fra/store\n  clients: [\"spiffe://example.org/site/fra/replicator\"]\n";
        site.write("store.yaml", &format!("origin: fra\n{store}{api}"));
        site
    }
    fn dir(&self) -> &Path {
        self.0.path()
    }
    fn write(&self, file: &str, text: &str) {
        let path = self.dir().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        fs::write(path, text).expect("write a file");
    }
    fn copy(&self, from: &str, to: &str) {
        self.write(to, &fs::read_to_string(self.dir().join(from)).expect("read a file"));
    }
    fn replace(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.dir().join(file)).expect("read a file");
        assert!(text.contains(from), "{from} stands nowhere in {file}");
        self.write(file, &text.replacen(from, to, 1));
    }
    /// Every file with its length.
    fn files(&self) -> Vec<(PathBuf, u64)> {
        let (mut found, mut queue) = (Vec::new(), vec![self.dir().to_path_buf()]);
        while let Some(dir) = queue.pop() {
            for entry in fs::read_dir(&dir).expect("read a folder") {
                let path = entry.expect("read an entry").path();
                let length = fs::metadata(&path).expect("look at a file").len();
                if path.is_dir() { queue.push(path) } else { found.push((path, length)) }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn a_site_that_is_right_is_right_in_every_form() {
    let site = Site::new();
    let before = site.files();
    let (code, out, err) = run(site.dir(), &["rules"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(out.lines().next(), Some("VALID  3 documents, 1 link: all in force as written"), "{out}");
    for line in
        ["√  rules/peers.yaml:1   Peer/ams ", "√  rules/orders.yaml:1  ReplicationRule/orders  orders/eu/ to ams"]
    {
        assert!(out.contains(line), "{out}");
    }
    for config in ["site.yaml", "replicator.yaml", "store.yaml"] {
        let (code, report) = json(site.dir(), &["--config", config]);
        assert_eq!((code, said(&report)), (0, vec![]), "{config}");
        assert_eq!(report["config"]["role"], config.trim_end_matches(".yaml"));
        let documents = report["documents"].as_array().map(Vec::len);
        assert_eq!(documents, Some(if config == "store.yaml" { 0 } else { 3 }), "{config}");
    }
    for format in ["wide", "yaml"] {
        let (code, out, _) = run(site.dir(), &["--config", "site.yaml", "-o", format]);
        assert!(code == 0 && out.contains("VALID") && out.contains("rules/orders.yaml"), "{out}");
    }
    assert_eq!(site.files(), before, "nothing was written");
}

#[test]
fn what_is_wrong_with_documents_is_said_at_its_line() {
    let site = Site::new();
    site.replace("rules/orders.yaml", "prefix: eu/", "prefx: eu/");
    let wrong = |name: &str, from: &str, to: &str| {
        assert!(RULE.contains(from), "{from}");
        site.write(&format!("rules/{name}.yaml"), &document("ReplicationRule", name, &RULE.replace(from, to)));
    };
    wrong("photos", "peer: ams", "peer: wav");
    wrong("units", "15m", "15 minutes");
    wrong("a", "bucket: orders", "bucket: shared");
    wrong("b", "bucket: orders", "bucket: shared");
    wrong("waw", "name: fra", "name: waw");
    site.copy("rules/a.yaml", "rules/twice.yaml");
    site.write("rules/broken.yaml", "kind: [\n");
    let (code, report) = json(site.dir(), &["rules/"]);
    assert_eq!((code, &report["verdict"]), (1, &"INVALID".into()));
    assert_eq!(
        said(&report),
        [
            "rules/b.yaml:4 ReplicationRule/b spec.priority OverlapsRule",
            "rules/broken.yaml:1   NotYaml",
            "rules/orders.yaml:7 ReplicationRule/orders spec.filter.prefx InvalidSpec",
            "rules/photos.yaml:8 ReplicationRule/photos spec.destinations ResolvedNothing",
            "rules/photos.yaml:8 ReplicationRule/photos spec.destinations[0].peer PeerNotFound",
            "rules/twice.yaml:3 ReplicationRule/a metadata.name DuplicateName",
            "rules/units.yaml:9 ReplicationRule/units spec.recoveryPointObjective InvalidSpec",
            "rules/waw.yaml:5 ReplicationRule/waw spec.siteRef SiteNotFound",
        ]
    );
    let right = report["documents"].as_array().expect("a list").iter().filter(|d| d["in_force"] == true);
    let right: Vec<&str> = right.filter_map(|d| d["file"].as_str()).collect();
    assert_eq!(right, ["rules/a.yaml", "rules/peers.yaml", "rules/site.yaml"]);
    let (code, out, _) = run(site.dir(), &["rules", "-o", "wide"]);
    assert!(code == 1 && out.contains("×  rules/units.yaml:9") && out.contains("PeerNotFound"), "{out}");
    for gone in ["rules/site.yaml", "rules/broken.yaml"] {
        fs::remove_file(site.dir().join(gone)).expect("remove a file");
    }
    let (code, report) = json(site.dir(), &["rules"]);
    assert!(code == 1 && said(&report).contains(&"rules   SiteNotFound".into()), "{:?}", said(&report));
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_with_its_documents() {
    // What is changed, and what is then said: of the configuration, of what it names, of the documents.
    let table: [(&str, &str, &str, &str, &[&str]); 10] = [
        (
            "site.yaml",
            "site.yaml",
            "drives:",
            "drvies:",
            &["site.yaml:2   store.drives InvalidConfiguration", "site.yaml:2   store.drvies InvalidConfiguration"],
        ),
        (
            "site.yaml",
            "site.yaml",
            "secret_key_file: secret-key",
            "secret_key_file: nowhere",
            &["site.yaml:4   store.users InvalidConfiguration"],
        ),
        (
            "site.yaml",
            "site.yaml",
            "rules_dir: rules",
            "rules_dir: nowhere",
            &["site.yaml:5   rules_dir InvalidConfiguration"],
        ),
        ("site.yaml", "site.yaml", "store:", "site_name: waw\nstore:", &["site.yaml   site_name SiteNotFound"]),
        (
            "site.yaml",
            "secret-key",
            "a-secret-key-of-some-length",
            "short",
            &["site.yaml   store InvalidConfiguration"],
        ),
        (
            "site.yaml",
            "refs/secrets/own-tls/tls.key",
            "PRIVATE KEY",
            "PRIVATE",
            &["rules/site.yaml:8 Site/fra spec.listener.tlsSecretRef InvalidCertificate"],
        ),
        (
            "replicator.yaml",
            "refs/secrets/peer-ca/ca.crt",
            "CERTIFICATE",
            "CERTAINTY",
            &["rules/peers.yaml:9 Peer/ams spec.replicator.tls InvalidCertificate"],
        ),
        (
            "replicator.yaml",
            "rules/peers.yaml",
            "name: peer-ca",
            "name: other-ca",
            &["rules/peers.yaml:9 Peer/ams spec.replicator.tls SecretNotFound"],
        ),
        (
            "store.yaml",
            "certs/fra/store/tls.crt",
            "CERTIFICATE",
            "CERTAINTY",
            &["store.yaml   api.tls_dir InvalidConfiguration"],
        ),
        (
            "store.yaml",
            "store.yaml",
            "origin: fra",
            "origin: fra\nrules_dir: rules",
            &["store.yaml:2   rules_dir InvalidConfiguration"],
        ),
    ];
    for (config, file, from, to, expected) in table {
        let site = Site::new();
        site.replace(file, from, to);
        let (code, report) = json(site.dir(), &["--config", config]);
        let said: Vec<String> = said(&report);
        let expected: Vec<String> = expected.iter().map(|e| e.replacen("   ", "  ", 1)).collect();
        assert_eq!((code, said), (1, expected), "{file}: {to}\n{report}");
    }
    // The process that would run with it reads documents out of its folder alone.
    let site = Site::new();
    site.write("rules/job.yaml", &document("ReplicationJob", "x", "  ruleRef: {name: orders}\n  type: Verify\n"));
    assert_eq!(run(site.dir(), &["rules"]).0, 0);
    let (code, report) = json(site.dir(), &["--config", "site.yaml"]);
    assert_eq!((code, said(&report)), (1, vec!["rules/job.yaml:2 ReplicationJob/x kind KindUnsupported".to_string()]));
}

#[test]
fn files_of_another_machine_are_not_looked_for() {
    let site = Site::new();
    for gone in ["refs", "certs", "secret-key"] {
        let path = site.dir().join(gone);
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.expect("remove it");
    }
    for config in ["site.yaml", "store.yaml", "replicator.yaml"] {
        assert_eq!(run(site.dir(), &["--config", config]).0, 1, "{config}");
        let (code, out, err) = run(site.dir(), &["--config", config, "--without-files"]);
        assert_eq!(code, 0, "{config}: {out}{err}");
    }
}

#[test]
fn a_rule_to_come_is_held_against_those_there_are() {
    let site = Site::new();
    site.write("new.yaml", &document("ReplicationRule", "new", RULE));
    let (code, report) = json(site.dir(), &["--config", "site.yaml", "new.yaml", "rules/orders.yaml"]);
    assert_eq!((code, report["documents"].as_array().map(Vec::len)), (1, Some(4)), "a file named twice counts once");
    assert_eq!(said(&report), ["rules/orders.yaml:4 ReplicationRule/orders spec.priority OverlapsRule"]);
}

#[test]
fn what_cannot_be_read_is_unknown_and_wrong_usage_is_64() {
    let site = Site::new();
    for (args, names) in [(&["rules", "nowhere.yaml"][..], "nowhere.yaml"), (&["--config", "none.yaml"], "none.yaml")] {
        let (code, out, _) = run(site.dir(), args);
        let first = out.lines().next().unwrap_or_default();
        assert!(code == 2 && first.starts_with("UNKNOWN  ") && first.contains(names), "{args:?}: {out}");
    }
    for args in [&[][..], &["rules", "-o", "xml"], &["rules", "--without-files"], &["--config", "site.yaml", "-n", "x"]]
    {
        let (code, out, err) = run(site.dir(), args);
        assert!(code == 64 && out.is_empty() && !err.is_empty(), "{args:?}: {code} {out}{err}");
    }
}

#[test]
fn what_kustomize_renders_is_read_from_standard_input() {
    let site = Site::new();
    let all = ["site", "peers", "orders"].map(|name| {
        let text = fs::read_to_string(site.dir().join(format!("rules/{name}.yaml"))).expect("read a file");
        text.replacen("metadata: {", "metadata: {namespace: isthmus, ", 1)
    });
    let other = "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n".to_string();
    let text = [&all[..], &[other]].concat().join("---\n");
    let mut verb = Command::new(env!("CARGO_BIN_EXE_isthmus"));
    let verb = verb.args(["check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = verb.spawn().expect("run isthmus");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("write to it");
    let (code, out, err) = read(child.wait_with_output().expect("its answer"));
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("√  -:") && out.ends_with("SKIPPED  documents of other kinds: 1 Secret\n"), "{out}");
}

#[test]
fn no_colours_are_printed() {
    let site = Site::new();
    let mut verb = Command::new(env!("CARGO_BIN_EXE_isthmus"));
    for (key, value) in [("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")] {
        let output =
            verb.current_dir(site.dir()).args(["check", "rules"]).env(key, value).output().expect("run isthmus");
        assert!(!output.stdout.contains(&0x1b), "{key}");
        verb = Command::new(env!("CARGO_BIN_EXE_isthmus"));
    }
}

/// YAML blocks of a page.
fn blocks(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).expect("read a page");
    let blocks = text.split("```yaml\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_string()).collect()
}

#[test]
fn what_the_documentation_shows_is_right() {
    let site = Site::new();
    let page = |page: &str, is: fn(&str) -> bool| {
        let found: Vec<String> = blocks(page).into_iter().filter(|b| is(b)).collect();
        assert!(!found.is_empty(), "{page} shows none any more");
        found
    };
    let documents = |b: &str| b.starts_with("apiVersion: replication.isthmus.dev");
    let more = [page("docs/foreign-targets.md", documents), page("docs/drills.md", documents)].concat();
    more.iter().enumerate().for_each(|(place, text)| site.write(&format!("shown/{place}.yaml"), text));
    let (code, report) = json(site.dir(), &["rules", "shown"]);
    assert_eq!((code, said(&report)), (0, vec![]));
    assert_eq!(report["documents"].as_array().map(Vec::len), Some(3 + 2 + 1));
    let configs = [
        page("README.md", |b| b.contains("drives:")),
        page("docs/roles.md", |_| true),
        page("docs/operating.md", |b| b.starts_with("journal:")),
    ];
    for (place, text) in configs.concat().iter().enumerate() {
        let file = format!("shown-{place}.yaml");
        site.write(&file, text);
        let (code, report) = json(site.dir(), &["--config", &file, "--without-files"]);
        assert_eq!((code, said(&report)), (0, vec![]), "{text}");
    }
}

#[test]
fn the_manifests_are_right() {
    for site in ["a", "b", "c"] {
        let overlay = format!("manifests/overlays/site-{site}");
        let (code, report) = json(root(), &["-n", "isthmus", &overlay]);
        assert_eq!((code, said(&report), report["documents"].as_array().map(Vec::len)), (0, vec![], Some(3)), "{site}");
        let store = format!("{overlay}/config/store.yaml");
        assert_eq!(run(root(), &["--config", &store, "--without-files"]).0, 0, "{store}");
    }
    let replicator = ["--config", "manifests/base/config/replicator.yaml", "--without-files", "-n", "isthmus"];
    let (code, out, _) = run(root(), &replicator);
    assert!(code == 0 && out.contains("an API server's"), "{out}");
    let of_a = ["manifests/overlays/site-a", "manifests/components/samples"];
    let (code, report) = json(root(), &[&replicator[..], &of_a].concat());
    assert_eq!((code, said(&report), &report["links"]), (0, vec![], &1.into()));
    let skipped = report["skipped"].as_array().expect("a list");
    assert!(skipped.iter().any(|s| s["kind"] == "Cluster"), "{skipped:?}");
}

#[test]
fn the_output_in_the_manual_is_what_is_printed() {
    let site = Site::new();
    site.replace("rules/orders.yaml", "prefix: eu/", "prefx: eu/");
    let photos = RULE.replace("bucket: orders", "bucket: photos").replace("peer: ams", "peer: ams}, {peer: wav");
    site.write("rules/photos.yaml", &document("ReplicationRule", "photos", &photos));
    let manual = fs::read_to_string(root().join("docs/operating.md")).expect("read the manual");
    let shown = manual.split("$ isthmus check rules/\n").nth(1).expect("the manual shows it");
    let (code, out, _) = run(site.dir(), &["rules/"]);
    assert_eq!((code, out.as_str()), (1, shown.split("```").next().unwrap_or_default()));
}

/// In a build with debug assertions it takes some times as long as in a release.
#[test]
fn a_thousand_rules_take_seconds_at_most() {
    let site = Site::new();
    let rule = |number: usize| {
        let name = format!("rule-{number:04}");
        document("ReplicationRule", &name, &RULE.replace("bucket: orders", &format!("bucket: {name}")))
    };
    (0..1000).for_each(|number| site.write(&format!("rules/{number:04}.yaml"), &rule(number)));
    let began = Instant::now();
    let (code, report) = json(site.dir(), &["--config", "site.yaml"]);
    let took = began.elapsed();
    println!("1,003 documents in {took:?}");
    assert_eq!((code, &report["links"]), (0, &1001.into()));
    assert!(took.as_secs() < 20, "{took:?}");
}
