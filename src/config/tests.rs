use super::*;
use crate::journal::{self, postgres};

fn settings<F: File>(path: &Path, text: &str) -> Result<F::Settings, Vec<Problem>> {
    super::parse::<F>(path, text).map(|(_, settings)| settings)
}

fn parse(path: &Path, text: &str) -> Result<Site, Vec<Problem>> {
    settings::<site::File>(path, text)
}

const FULL: &str = r#"
site_name: fra
store:
  drives: [d0, d1, /abs/d2, d3]
  parity: 2
  s3_listen: "127.0.0.1:0"
  region: eu-central-1
  users: [{access_key: writer, secret_key_file: secret-key}]
  buckets: [{name: logs, versioning: true, object_lock: true}, {name: scratch}]
rules_dir: ./rules
refs_dir: ./refs
journal: ./journal.sqlite
peer_listen: "127.0.0.1:8443"
admin_listen: "127.0.0.1:9090"
ports_file: ports.json
"#;

fn wrong(text: &str) -> Vec<(String, String)> {
    let problems = parse(Path::new("/etc/isthmus/site.yaml"), text).unwrap_err();
    assert!(problems.iter().all(|p| !p.to_string().contains('\n')), "one line each: {problems:?}");
    problems.into_iter().map(|p| (p.line.unwrap_or_default().to_string(), p.key)).collect()
}

#[test]
fn a_full_file_is_read_and_its_paths_count_from_its_folder() {
    let s = parse(Path::new("/etc/isthmus/site.yaml"), FULL).unwrap();
    assert_eq!(s.replicator.site_name.as_deref(), Some("fra"));
    assert_eq!(s.store.drives[0], Path::new("/etc/isthmus/d0"));
    assert_eq!(s.store.drives[2], Path::new("/abs/d2"));
    assert_eq!(s.store.users[0].secret_key_file, Path::new("/etc/isthmus/secret-key"));
    assert_eq!(
        (s.store.parity, s.store.region.as_str(), s.store.buckets[0].versioning),
        (Some(2), "eu-central-1", true)
    );
    assert_eq!(s.store.buckets.iter().map(|b| b.object_lock).collect::<Vec<_>>(), [true, false]);
    assert_eq!((s.store.buckets[1].name.as_str(), s.store.buckets[1].versioning), ("scratch", false));
    assert_eq!(
        (s.store.s3_listen.port(), s.replicator.peer_listen.port(), s.replicator.admin_listen.port()),
        (0, 8443, 9090)
    );
    assert_eq!(s.replicator.journal, journal::Settings::Sqlite("/etc/isthmus/./journal.sqlite".into()));
    assert_eq!(s.replicator.admin_socket, Path::new("/etc/isthmus/./admin.sock"));
    assert_eq!(s.replicator.ports_file.as_deref(), Some(Path::new("/etc/isthmus/ports.json")));
}

#[test]
fn what_is_left_out_has_a_default_that_works() {
    let s = parse(Path::new("site.yaml"), "store: {drives: [a, b]}\n").unwrap();
    assert_eq!((s.replicator.rules_dir, s.replicator.refs_dir), ("rules".into(), "refs".into()));
    assert_eq!(s.replicator.journal, journal::Settings::Sqlite("journal.sqlite".into()));
    assert_eq!(
        (s.store.s3_listen.port(), s.replicator.peer_listen.port(), s.replicator.admin_listen.port()),
        (9000, 8443, 9090)
    );
    assert!(s.replicator.admin_listen.ip().is_loopback());
}

#[test]
fn a_journal_in_a_database_has_its_secrets_in_files() {
    let with = |journal: &str| FULL.replace("./journal.sqlite", journal);
    let s = parse(Path::new("/etc/isthmus/site.yaml"), &with("{postgres: {url_file: journal-url, ca_file: /ca.crt}}"));
    let s = s.unwrap();
    let journal::Settings::Postgres(database) = s.replicator.journal else { panic!("{:?}", s.replicator.journal) };
    assert_eq!(database.url_file, Path::new("/etc/isthmus/journal-url"));
    assert_eq!((database.tls, database.connections_max), (postgres::Tls::VerifyFull, 8));
    assert_eq!(s.replicator.admin_socket, Path::new("/etc/isthmus/admin.sock"));
    let line = || "12".to_string();
    for (journal, key) in [
        ("{postgres: {}}", "journal.postgres.url_file"),
        ("{postgres: {url_file: u, tls: maybe}}", "journal.postgres.tls"),
        ("{postgres: {url_file: u, url: postgres://u:p@h/d}}", "journal.postgres.url"),
        ("{postgres: {url_file: u, connections_max: 1}}", "journal.postgres.connections_max"),
        ("{postgress: {url_file: u}}", "journal.postgress"),
        ("7", "journal"),
    ] {
        assert!(wrong(&with(journal)).contains(&(line(), key.into())), "{journal}: {:?}", wrong(&with(journal)));
    }
}

#[test]
fn unknown_missing_and_mistyped_keys_are_told_together() {
    let text = FULL
        .replace("drives: [d0, d1, /abs/d2, d3]", "drivs: [d0]")
        .replace("refs_dir", "ref_dir")
        .replace(": 2", ": two");
    let said = wrong(&text);
    for expected in [("3", "store.drives"), ("4", "store.drivs"), ("5", "store.parity"), ("11", "ref_dir")] {
        let found = said.iter().any(|(line, key)| key == expected.1 && (line == expected.0 || key == "store.drives"));
        assert!(found, "{expected:?} in {said:?}");
    }
    assert_eq!(said.len(), 4, "{said:?}");
}

#[test]
fn values_that_cannot_hold_are_told_together_with_key_and_line() {
    let text = FULL
        .replace("parity: 2", "parity: 3")
        .replace("d1,", "d0,")
        .replace("{name: scratch}", "{name: lo..gs}, {name: logs}")
        .replace("127.0.0.1:9090", "127.0.0.1:8443")
        .replace("127.0.0.1:0", "localhost");
    let expected = [
        ("4", "store.drives"),
        ("5", "store.parity"),
        ("6", "store.s3_listen"),
        ("9", "store.buckets"),
        ("9", "store.buckets[1].name"),
        ("14", "admin_listen"),
    ];
    assert_eq!(wrong(&text), expected.map(|(line, key)| (line.to_string(), key.to_string())));
}

#[test]
fn no_yaml_no_document_and_empty_names_are_refused() {
    assert_eq!(wrong("store: [\n").len(), 1);
    assert_eq!(wrong(""), [("1".to_string(), String::new())]);
    assert_eq!(wrong("store: {drives: []}\n"), [("1".to_string(), "store.drives".to_string())]);
    let unnamed = "store: {drives: [a, b], buckets: [{name: \"\"}]}\n";
    assert!(wrong(unnamed).iter().all(|(_, key)| key == "store.buckets[0].name"));
}

#[test]
fn the_slow_proof_rests_for_a_second_to_a_day() {
    let of = |text: &str| parse(Path::new("site.yaml"), &FULL.replace("rules_dir:", &format!("{text}\nrules_dir:")));
    assert_eq!(of("").unwrap().replicator.proof_pause, Duration::from_secs(5));
    assert_eq!(of("proof_pause_seconds: 3600").unwrap().replicator.proof_pause, Duration::from_secs(3600));
    for wrong in ["0", "86401"] {
        let said = of(&format!("proof_pause_seconds: {wrong}")).unwrap_err();
        assert!(said.len() == 1 && said[0].key == "proof_pause_seconds", "{said:?}");
    }
}

#[test]
fn files_that_are_not_there_are_told_at_loading() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("site.yaml");
    std::fs::write(&path, FULL).unwrap();
    let keys: Vec<String> = site(&path).unwrap_err().into_iter().map(|p| p.key).collect();
    assert_eq!(keys, ["rules_dir", "store.users"]);
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    std::fs::write(dir.path().join("secret-key"), "a secret").unwrap();
    site(&path).unwrap();
    let with_token = FULL.replace("rules_dir:", "page_token_file: token\nrules_dir:");
    for token in [None, Some("too short"), Some("  fifteen-letters \n")] {
        std::fs::write(&path, &with_token).unwrap();
        token.map_or(Ok(()), |token| std::fs::write(dir.path().join("token"), token)).unwrap();
        let wrong = site(&path).unwrap_err();
        assert!(wrong.len() == 1 && wrong[0].to_string().contains("openssl rand"), "{wrong:?}");
    }
    std::fs::write(dir.path().join("token"), "a-token-of-sixteen-or-more").unwrap();
    assert_eq!(site(&path).unwrap().replicator.page_token_file, Some(dir.path().join("token")));
    let none = site(&dir.path().join("nowhere.yaml")).unwrap_err();
    assert!(none[0].to_string().contains("nowhere.yaml: cannot be read"), "{}", none[0]);
}

#[test]
fn the_s3_listener_takes_a_certificate_and_both_its_files_must_be_there() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("site.yaml");
    assert_eq!(parse(&path, FULL).unwrap().store.s3_tls_dir, None, "plain HTTP unless it is asked for");
    std::fs::write(&path, FULL.replace("  region:", "  s3_tls_dir: s3-tls\n  region:")).unwrap();
    std::fs::create_dir_all(dir.path().join("rules")).unwrap();
    std::fs::create_dir_all(dir.path().join("s3-tls")).unwrap();
    std::fs::write(dir.path().join("secret-key"), "a secret").unwrap();
    std::fs::write(dir.path().join("s3-tls/tls.crt"), "looked at when the store opens").unwrap();
    let said: Vec<String> = site(&path).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("store.s3_tls_dir: ") && said[0].contains("s3-tls/tls.key; put it there"), "{said:?}");
    std::fs::write(dir.path().join("s3-tls/tls.key"), "that too").unwrap();
    assert_eq!(site(&path).unwrap().store.s3_tls_dir, Some(dir.path().join("s3-tls")));
}

#[test]
fn every_key_is_documented() {
    fn walk(schema: &serde_json::Value, path: &str) {
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            assert!(child["description"].as_str().is_some_and(|d| d.len() > 10), "{path}{name} has no doc line");
            walk(child, &format!("{path}{name}."));
            walk(&child["items"], &format!("{path}{name}[]."));
        }
    }
    walk(&file_schema::<site::File>(), "site: ");
    walk(&file_schema::<store::File>(), "store: ");
    walk(&file_schema::<replicator::File>(), "replicator: ");
}

#[test]
fn a_store_names_its_callers_and_a_replicator_has_no_drives() {
    let path = Path::new("/etc/isthmus/store.yaml");
    let text = r#"
origin: fra
store: {drives: [d0, d1]}
api: {listen: "127.0.0.1:0", tls_dir: api-tls, clients: ["spiffe://example.org/site/fra/replicator"]}
"#;
    let s = settings::<store::File>(path, text).unwrap();
    assert_eq!((s.origin.as_str(), s.store.drives[1].as_path()), ("fra", Path::new("/etc/isthmus/d1")));
    assert_eq!(s.api.files.key, Path::new("/etc/isthmus/api-tls/tls.key"));
    let keys = |problems: Vec<Problem>| problems.into_iter().map(|p| p.key).collect::<Vec<_>>();
    let wrong =
        text.replace("clients: [\"spiffe", "clients: [\"https").replace("origin: fra", "origin: fra\nrules_dir: r");
    assert_eq!(keys(settings::<store::File>(path, &wrong).unwrap_err()), ["rules_dir"]);
    let wrong = wrong.replace("rules_dir: r", "").replace("127.0.0.1:0", "here");
    assert_eq!(keys(settings::<store::File>(path, &wrong).unwrap_err()), ["api.clients[0]", "api.listen"]);
    let nobody = text.replace("\"spiffe://example.org/site/fra/replicator\"", "");
    assert_eq!(keys(settings::<store::File>(path, &nobody).unwrap_err()), ["api.clients"]);
    let role = settings::<replicator::File>(path, "store: {drives: [a, b]}\njournal: j\n");
    assert_eq!(keys(role.unwrap_err()), ["store"]);
    assert!(settings::<replicator::File>(path, "journal: j\n").is_ok());
}
