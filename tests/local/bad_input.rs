//! Bad input at start and while running, over the real binary: one clear line, exit 64, no port bound; a bad
//! document stops nothing else; a peer that cannot prove who it is gets nothing.
use crate::documents::configuration;
use crate::process::tail;
use crate::site::{Fleet, LOOK, Site};
use isthmus::cli::certs;
use isthmus::replicator::report::SiteReport;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use tokio::time::Instant;

/// A fact that a running site shows comes true within this time.
const PATIENCE: Duration = Duration::from_secs(30);

fn isthmus(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isthmus")).current_dir(dir).args(args).output().expect("run isthmus")
}

/// Starts a site that must not start: exit 64, these words on one line, nothing bound.
#[track_caller]
fn refused(site: &Site, words: &[&str]) {
    let _ = fs::remove_file(site.dir.join("ports.json"));
    let output = isthmus(&site.dir, &["site", "--config", "site.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    let lines: Vec<_> = said.lines().filter(|l| l.starts_with("isthmus: ")).collect();
    assert_eq!(lines.len(), 1, "one clear line: {said}");
    for word in words {
        assert!(lines[0].contains(word), "{word} in: {}", lines[0]);
    }
    assert!(!said.contains("Listening"), "a port was bound: {said}");
    assert!(!site.dir.join("ports.json").exists(), "a port was bound");
}

fn edit(site: &Site, from: &str, to: &str) {
    crate::process::rewrite(&site.dir.join("site.yaml"), from, to);
}

/// Waits until the site's status shows it.
async fn until(site: &Site, what: &str, fact: impl Fn(&SiteReport) -> bool) -> SiteReport {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = site.status().await;
        if let Ok(report) = &report
            && fact(report)
        {
            return report.clone();
        }
        assert!(Instant::now() < deadline, "{what}: {report:#?}\n{}", tail(&site.dir.join("log")));
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test]
async fn an_unknown_key_names_itself_and_its_line() {
    let fleet = Fleet::write(&["fra"], 4).await;
    edit(&fleet.sites[0], "rules_dir: rules", "rules_dri: rules");
    refused(&fleet.sites[0], &["rules_dri", "site.yaml:"]);
}

#[tokio::test]
async fn drives_that_cannot_make_the_layout_are_refused() {
    let fleet = Fleet::write(&["fra"], 4).await;
    edit(&fleet.sites[0], "  s3_listen", "  parity: 3\n  s3_listen");
    refused(&fleet.sites[0], &["parity", "site.yaml:"]);
    assert!(!fleet.sites[0].dir.join("drives").exists(), "no drive is touched");
}

#[tokio::test]
async fn a_store_opened_with_another_layout_than_it_was_made_with_is_refused() {
    let fleet = Fleet::start(&["fra"], 4).await;
    let site = &fleet.sites[0];
    site.stop().await;
    edit(site, "  s3_listen", "  parity: 1\n  s3_listen");
    refused(site, &["parity"]);
    fs::write(site.dir.join("site.yaml"), configuration(5)).expect("write the configuration");
    refused(site, &["drives"]);
}

#[tokio::test]
async fn a_drive_of_another_store_is_refused() {
    let fleet = Fleet::start(&["fra", "ams"], 4).await;
    let [site, other] = [&fleet.sites[0], &fleet.sites[1]];
    site.stop().await;
    other.stop().await;
    edit(site, "drives/2", "../ams/drives/2");
    refused(site, &["ams/drives/2"]);
}

#[tokio::test]
async fn a_second_process_on_the_same_drives_is_refused_and_the_first_goes_on() {
    let fleet = Fleet::start(&["fra"], 4).await;
    let site = &fleet.sites[0];
    let ports = fs::read(site.dir.join("ports.json")).expect("the first process wrote its ports");
    refused(site, &["journal.sqlite", "another process"]);
    edit(site, "journal.sqlite", "other.sqlite");
    refused(site, &["drives/0"]);
    fs::write(site.dir.join("ports.json"), ports).expect("put the ports back");
    site.s3().put("still/here", "served".into()).await.expect("the first process goes on");
    assert!(site.status().await.is_ok(), "the first process keeps its socket");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("take a port");
    let address = taken.local_addr().expect("a bound port").to_string();
    for (key, what) in [("  s3_listen", "S3"), ("peer_listen", "peers"), ("admin_listen", "admin")] {
        let fleet = Fleet::write(&["fra"], 4).await;
        edit(&fleet.sites[0], &format!("{key}: \"127.0.0.1:0\""), &format!("{key}: \"{address}\""));
        refused(&fleet.sites[0], &[what, &address]);
    }
}

#[tokio::test]
async fn a_missing_certificate_is_named() {
    let fleet = Fleet::write(&["fra"], 4).await;
    fs::remove_file(fleet.sites[0].dir.join("refs/secrets/own-tls/tls.crt")).expect("remove the certificate");
    refused(&fleet.sites[0], &["tls.crt"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_rule_file_is_shown_with_file_and_line_and_the_others_run_on() {
    let fleet = Fleet::start(&["fra", "ams"], 4).await;
    let [site, peer] = [&fleet.sites[0], &fleet.sites[1]];
    fleet.drained(PATIENCE).await;
    fs::write(site.dir.join("rules/broken.yaml"), "kind: ReplicationRule\nspec: [\n").expect("write a file");
    let rule = fs::read_to_string(site.dir.join("rules/rule.yaml")).expect("read the rule");
    let stranger = rule.replace("metadata: {name: orders}", "metadata: {name: stranger}").replace("ams", "nowhere");
    fs::write(site.dir.join("rules/stranger.yaml"), stranger).expect("write a file");
    let report = until(site, "both files are reported", |r| r.problems.len() >= 2).await;
    let shown = isthmus(&site.dir, &["status", "--socket", "admin.sock"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.status.code(), Some(1), "{text}");
    assert!(report.problems.iter().any(|p| p.place.contains("broken.yaml:")), "{report:#?}");
    assert!(text.contains("broken.yaml:") && text.contains("stranger.yaml:") && text.contains("nowhere"), "{text}");

    let id = site.s3().put("runs/on", "sent by the good rule".into()).await.expect("the site takes writes");
    arrives(peer, "runs/on", &id).await;
    fs::remove_file(site.dir.join("rules/broken.yaml")).expect("remove the file");
    fs::remove_file(site.dir.join("rules/stranger.yaml")).expect("remove the file");
    until(site, "the problems are gone", |r| r.problems.is_empty()).await;
}

async fn arrives(peer: &Site, key: &str, id: &str) {
    let deadline = Instant::now() + PATIENCE;
    while peer.s3().read(key, id).await.is_err() {
        assert!(Instant::now() < deadline, "{key} {id} does not arrive at {}", peer.name);
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_a_wrong_certificate_is_refused_and_said() {
    let fleet = Fleet::write(&["fra", "ams"], 4).await;
    let [site, stranger] = [&fleet.sites[0], &fleet.sites[1]];
    // The stranger shows a certificate with the right name, from a CA of its own.
    let forged = stranger.dir.join("forged");
    certs::make(&forged, "local.isthmus.dev", &[("ams", &["127.0.0.1"])]).expect("make a forged certificate");
    for file in ["tls.crt", "tls.key"] {
        let own = stranger.dir.join("refs/secrets/own-tls").join(file);
        fs::copy(forged.join("ams").join(file), own).expect("put it in place");
    }
    fleet.sites.iter().for_each(|s| s.spawn());
    site.ready().await;
    stranger.ready().await;
    let id = stranger.s3().put("forged/1", "never to be seen".into()).await.expect("the stranger takes writes");

    let report = until(site, "the site says why", |r| r.peers.iter().any(|p| p.last_error.is_some())).await;
    assert!(report.peers.iter().all(|p| !p.is_up), "{report:#?}");
    let deadline = Instant::now() + PATIENCE;
    let log = site.dir.join("log");
    while !fs::read_to_string(&log).expect("read the log").contains("\"reason\":\"certificate\"") {
        assert!(Instant::now() < deadline, "the refusal is not said:\n{}", tail(&log));
        tokio::time::sleep(LOOK).await;
    }
    assert!(site.s3().read("forged/1", &id).await.is_err(), "nothing of it is visible");
    TcpStream::connect(site.door().expect("the site runs").peer).expect("the listener goes on");
}
