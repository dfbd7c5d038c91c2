//! The verbs of the command line against real sites: what they print, what they return, what they keep.
use crate::site::{Fleet, LOOK, Site};
use bytes::Bytes;
use std::process::Output;
use std::time::Duration;
use tokio::process::Command;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a verb against a site.
async fn verb(site: &Site, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
    command.args(args).arg("--socket").arg(site.socket());
    command.output().await.expect("run isthmus")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a verb that must end with this code; what it said.
#[track_caller]
fn ended(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    said(output)
}

/// The JSON a verb prints.
async fn json(site: &Site, args: &[&str]) -> serde_json::Value {
    let output = verb(site, &[args, &["-o", "json"]].concat()).await;
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)))
}

async fn wait_until(what: &str, mut fact: impl AsyncFnMut() -> bool) {
    let all = async {
        while !fact().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "in vain: {what}");
}

async fn put(site: &Site, key: &str) -> String {
    let body = Bytes::from(format!("{key} of {}", site.name));
    site.s3().put(key, body).await.expect("an acked put")
}

/// Rewrites a document of a site; it takes effect by itself.
fn rewrite(site: &Site, document: &str, from: &str, to: &str) {
    crate::process::rewrite(&site.dir.join("rules").join(document), from, to);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_rule_sends_nothing_over_a_restart_and_shows_what_waits() {
    let fleet = Fleet::start(&["fra", "ams"], 4).await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    let unknown = ended(&verb(fra, &["suspend", "--rule", "invoices"]).await, 64);
    assert!(unknown.contains("no rule invoices; there are: orders"), "{unknown}");
    ended(&verb(fra, &["suspend"]).await, 64);
    let done = ended(&verb(fra, &["suspend", "--rule", "orders", "--peer", "ams"]).await, 0);
    assert!(done.starts_with("SUSPENDED  1 link"), "{done}");
    wait_until("the link is suspended", async || {
        fra.status().await.is_ok_and(|r| r.links.iter().all(|l| l.state == "suspended"))
    })
    .await;
    let id = put(fra, "a").await;
    fra.stop().await;
    fra.start().await;
    wait_until("what waits is counted", async || {
        let report = fra.status().await.expect("the site runs");
        report.links.iter().any(|l| l.state == "suspended" && l.backlog_versions == Some(1))
    })
    .await;
    assert!(!ams.s3().is_listed("a", &id).await);
    let lag = json(fra, &["lag"]).await;
    assert!(lag[0]["lag_seconds"].as_f64() > Some(0.0), "{lag}");
    let waiting = ended(&verb(fra, &["backlog"]).await, 1);
    assert!(waiting.starts_with("WAITING  1 versions"), "{waiting}");
    let status = ended(&verb(fra, &["status"]).await, 1);
    assert!(status.contains("isthmus suspend --rule orders --peer ams"), "{status}");
    ended(&verb(fra, &["resume", "--rule", "orders"]).await, 0);
    wait_until("it arrives", async || ams.s3().is_listed("a", &id).await).await;
    fleet.drained(PATIENCE).await;
    ended(&verb(fra, &["backlog"]).await, 0);
    ended(&verb(fra, &["lag"]).await, 0);
    fleet.no_alarm();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_suspends_is_not_overruled_by_resume() {
    let fleet = Fleet::start(&["fra", "ams"], 4).await;
    let fra = &fleet.sites[0];
    rewrite(fra, "rule.yaml", "  mode: ActiveActive", "  mode: ActiveActive\n  suspend: true");
    wait_until("the document is in force", async || {
        fra.status().await.is_ok_and(|r| r.links.iter().any(|l| l.suspended.is_some()))
    })
    .await;
    let held = ended(&verb(fra, &["resume", "--peer", "ams"]).await, 1);
    assert!(held.starts_with("HELD") && held.contains("spec.suspend of ReplicationRule orders"), "{held}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_version_is_parked_with_its_reason_and_goes_when_told() {
    let fleet = Fleet::start(&["fra", "ams"], 4).await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    rewrite(ams, "peer-fra.yaml", "bucket: orders,", "bucket: orders, prefix: public/,");
    wait_until("the grant is smaller", async || {
        put(fra, "probe").await;
        json(fra, &["backlog", "--failed"]).await.as_array().is_some_and(|rows| !rows.is_empty())
    })
    .await;
    let id = put(fra, "a").await;
    let parked = async |key: &str| {
        let rows = json(fra, &["backlog", "--parked"]).await;
        rows.as_array().into_iter().flatten().find(|row| row["key"] == key).cloned()
    };
    wait_until("it is parked", async || parked("a").await.is_some()).await;
    fra.kill().await;
    fra.start().await;
    wait_until("it is parked still", async || parked("a").await.is_some()).await;
    let row = parked("a").await.expect("it was just there");
    assert_eq!(row["version_id"], id.as_str());
    assert!(row["reason"].as_str().is_some_and(|r| r.contains("public/")), "{row}");
    wait_until("it is counted by its reason", async || {
        let shown = fra.metrics().await;
        let of = |line: &&str| line.starts_with("isthmus_link_parked_versions{");
        let counts: Vec<_> = shown.lines().filter(of).filter(|line| !line.ends_with(" 0")).collect();
        counts.len() == 1 && counts[0].contains(r#"reason="grant""#)
    })
    .await;
    let none = ended(&verb(fra, &["retry", "orders", "--key", "b"]).await, 1);
    assert!(none.starts_with("NONE"), "{none}");
    rewrite(ams, "peer-fra.yaml", "prefix: public/,", "");
    // The grant takes effect within a moment; a version that comes before is parked once more.
    wait_until("all arrive", async || {
        ended(&verb(fra, &["retry", "orders", "--parked"]).await, 0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        ams.s3().is_listed("a", &id).await
    })
    .await;
    fleet.drained(PATIENCE).await;
    ended(&verb(fra, &["backlog", "--parked"]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_written_on_both_sides_are_shown_as_conflicts() {
    let fleet = Fleet::start(&["fra", "ams"], 4).await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    for site in [fra, ams] {
        ended(&verb(site, &["suspend", "--rule", "orders"]).await, 0);
        let is_suspended = async || site.status().await.is_ok_and(|r| r.links.iter().all(|l| l.state == "suspended"));
        wait_until("the link is suspended", is_suspended).await;
    }
    let (earlier, later) = (put(fra, "a").await, put(ams, "a").await);
    for site in [fra, ams] {
        ended(&verb(site, &["resume", "--rule", "orders"]).await, 0);
    }
    let pairs = async || json(fra, &["conflicts"]).await.as_array().cloned().unwrap_or_default();
    wait_until("fra sees it", async || !pairs().await.is_empty()).await;
    let pairs = pairs().await;
    assert_eq!(pairs.len(), 1, "{pairs:?}");
    assert_eq!(
        (&pairs[0]["earlier"]["version_id"], &pairs[0]["later"]["version_id"]),
        (&earlier.into(), &later.into())
    );
    assert_eq!(pairs[0]["later"]["origin"], "ams");
    let text = ended(&verb(fra, &["conflicts"]).await, 0);
    assert!(text.contains("later clock"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_of_deletes_waits_for_a_person_over_a_restart_and_other_changes_go_on() {
    let fleet = Fleet::start(&["fra", "ams"], 4).await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    rewrite(fra, "rule.yaml", "  mode:", "  brake: {percent: 10, window: 1h, minVersions: 6}\n  mode:");
    for n in 0..20 {
        put(fra, &format!("k{n}")).await;
    }
    fleet.drained(PATIENCE).await;
    fra.stop().await;
    fra.start().await;
    fleet.drained(PATIENCE).await;
    let mut markers = Vec::new();
    for n in 0..10 {
        let key = format!("k{n}");
        markers.push((fra.s3().delete(&key).await.expect("an acked delete"), key));
    }
    let held = async || fra.status().await.ok().and_then(|r| r.links[0].braked_since.map(|_| r.links[0].clone()));
    let all_held = async || held().await.is_some_and(|l| l.braked_versions > 0 && l.backlog_versions > Some(0));
    wait_until("the brake engages", all_held).await;
    fra.kill().await;
    fra.start().await;
    let put_since = put(fra, "other").await;
    wait_until("a put goes on", async || ams.s3().is_listed("other", &put_since).await).await;
    wait_until("it is engaged still", all_held).await;
    let status = ended(&verb(fra, &["status"]).await, 1);
    assert!(status.contains("MassDelete"), "{status}");
    let (last, key) = markers.last().expect("ten");
    assert!(!ams.s3().is_listed(key, last).await, "held");
    ended(&verb(fra, &["release", "invoices"]).await, 64);
    let done = ended(&verb(fra, &["release", "orders"]).await, 0);
    assert!(done.starts_with("RELEASED"), "{done}");
    fleet.drained(PATIENCE).await;
    for (id, key) in &markers {
        assert!(ams.s3().is_listed(key, id).await, "{key}");
    }
    ended(&verb(fra, &["status"]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_where_each_version_is_and_why_not() {
    let fleet = Fleet::start(&["fra", "ams", "waw"], 4).await;
    let [fra, ams, waw] = &fleet.sites[..] else { unreachable!("three sites") };
    let places = async |object: &str| -> Vec<(String, String, String)> {
        let explained = json(fra, &["explain", object]).await;
        let of_version = |v: &serde_json::Value| v["places"].as_array().cloned().unwrap_or_default();
        let text = |p: &serde_json::Value, name: &str| p[name].as_str().unwrap_or_default().to_string();
        let places = explained["versions"].as_array().into_iter().flatten().flat_map(of_version);
        let mut all: Vec<_> = places.map(|p| (text(&p, "peer"), text(&p, "state"), text(&p, "why"))).collect();
        all.sort();
        all
    };
    put(fra, "a").await;
    fleet.drained(PATIENCE).await;
    let there = ended(&verb(fra, &["explain", "orders/a"]).await, 0);
    assert!(there.starts_with("THERE"), "{there}");
    put(ams, "theirs").await;
    fleet.drained(PATIENCE).await;
    let states: Vec<_> = places("orders/theirs").await.into_iter().map(|(_, state, _)| state).collect();
    assert_eq!(states, ["not_in_scope", "not_in_scope"], "ams brings its own to both");

    waw.kill().await;
    ended(&verb(fra, &["suspend", "--peer", "ams"]).await, 0);
    let is_so = async || {
        let report = fra.status().await.expect("the site runs");
        report.links.iter().any(|l| l.state == "suspended") && report.peers.iter().any(|p| !p.is_up)
    };
    wait_until("one peer is suspended, one is down", is_so).await;
    let id = put(fra, "b").await;
    let found = places(&format!("orders/b?versionId={id}")).await;
    assert_eq!((found[0].0.as_str(), found[0].1.as_str()), ("ams", "suspended"), "{found:?}");
    assert!(found[0].2.contains("isthmus suspend --peer ams"), "{found:?}");
    assert_eq!((found[1].0.as_str(), found[1].1.as_str()), ("waw", "unknown"), "nobody guesses: {found:?}");
    assert!(found[1].2.contains("unreachable"), "{found:?}");
    ended(&verb(fra, &["explain", "orders/b"]).await, 1);
    ended(&verb(fra, &["explain", "orders/none"]).await, 64);
    ended(&verb(fra, &["explain", "b"]).await, 64);
}
