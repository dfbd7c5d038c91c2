//! Failover drills between real processes: what they measure, whom they refuse, and that a killed one leaves nothing.
use crate::process::tail;
use crate::proxy::Fault;
use crate::site::{Fleet, LOOK, Site};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn drill(site: &Site, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
    command.arg("drill").args(args).arg("--socket").arg(site.socket());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a verb to its end: exit code and what it said.
pub async fn ended(site: &Site, args: &[&str]) -> (i32, String) {
    let output = drill(site, args).output().await.expect("run isthmus");
    (output.status.code().expect("an exit code"), said(&output))
}

/// Two sites that let each other drill.
async fn sites() -> Fleet {
    let fleet = Fleet::write(&["fra", "ams"], 4).await;
    let_drill(&fleet).await;
    fleet.drained(PATIENCE).await;
    fleet
}

/// Has two sites let each other drill, and starts them.
pub async fn let_drill(fleet: &Fleet) {
    for (site, peer) in [(0, "ams"), (1, "fra")] {
        rewrite(&fleet.sites[site], peer, "    inbound:", "    drills: Enabled\n    inbound:");
        fleet.sites[site].spawn();
    }
    for site in &fleet.sites {
        site.ready().await;
    }
}

fn rewrite(site: &Site, peer: &str, from: &str, to: &str) {
    crate::process::rewrite(&site.dir.join(format!("rules/peer-{peer}.yaml")), from, to);
}

pub async fn wait_until(what: &str, patience: Duration, mut fact: impl AsyncFnMut() -> bool) {
    let all = async {
        while !fact().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    assert!(tokio::time::timeout(patience, all).await.is_ok(), "in vain: {what}");
}

/// The report as the site shows it now.
pub async fn shown(site: &Site) -> Option<serde_json::Value> {
    let output = drill(site, &["report", "-o", "json"]).output().await.expect("run isthmus");
    serde_json::from_slice(&output.stdout).ok()
}

pub async fn is_at(site: &Site, step: &str) -> bool {
    shown(site).await.is_some_and(|r| r["steps"].as_array().and_then(|s| s.last()).is_some_and(|s| s["step"] == step))
}

/// Canary buckets of a site, as its S3 clients see them.
async fn canaries(site: &Site) -> Vec<String> {
    let listed = site.s3().client.list_buckets().send().await.expect("a list of buckets");
    let names = listed.buckets().iter().filter_map(|b| b.name().map(String::from));
    names.filter(|name| name.starts_with("isthmus-drill-")).collect()
}

/// Version ids of the workload in a canary.
async fn written(site: &Site, bucket: &str) -> BTreeSet<String> {
    site.s3().ids(bucket, "writes/").await
}

/// Nothing of a drill is left: no bucket, no link, and the other link brings what is written.
async fn nothing_is_left(fleet: &Fleet, key: &str) {
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    for site in [fra, ams] {
        wait_until("the canary is gone", PATIENCE, async || {
            let links = site.status().await.map(|r| r.links.len());
            canaries(site).await.is_empty() && links.is_ok_and(|links| links == 1)
        })
        .await;
    }
    let id = fra.s3().put(key, Bytes::from("after the drill")).await.expect("an acked put");
    wait_until("the other link goes on", PATIENCE, async || ams.s3().is_listed(key, &id).await).await;
    fleet.drained(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_measured_as_an_onlooker_sees_it_and_leaves_nothing() {
    let fleet = sites().await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    let began = Instant::now();
    // With some distance, something is under way when it is cut; what is on the wire by then may still land.
    fleet.proxies.iter().for_each(|proxy| proxy.set(Fault::Delay(Duration::from_millis(100))));
    let load = ["--writes-per-second", "30", "--object-bytes", "512"];
    let run = drill(fra, &[&["run", "--peer", "ams", "--duration", "8s", "-o", "json"], &load[..]].concat());
    let running = tokio::spawn(async move { { run }.output().await.expect("run isthmus") });
    wait_until("the canary is cut", PATIENCE, async || is_at(fra, "hold").await).await;
    let bucket = canaries(fra).await.pop().expect("there is a canary");
    let (held, here) = (written(ams, &bucket).await, written(fra, &bucket).await);
    // Another link of the two sites goes on while the canary's is cut.
    let id = fra.s3().put("meanwhile", Bytes::from("not cut")).await.expect("an acked put");
    wait_until("it arrives", Duration::from_secs(5), async || ams.s3().is_listed("meanwhile", &id).await).await;
    assert!(is_at(fra, "hold").await, "the drill was not looked at in time");
    assert_eq!(written(ams, &bucket).await, held, "nothing passes while it is cut");
    assert!(written(fra, &bucket).await.len() > here.len(), "this site goes on writing");

    let output = running.await.expect("no panic");
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    assert_eq!((output.status.code(), report["verdict"].as_str()), (Some(0), Some("pass")), "{report:#}");
    let risk = &report["figures"]["at_risk"];
    let (acked, lost) = (risk["acked"].as_u64().unwrap(), risk["versions"].as_u64().unwrap());
    // A write that reached the peer may have been acked here after the moment of the fault; a few fly at once.
    let seen = held.len() as u64;
    assert!((acked - lost) <= seen && seen - (acked - lost) <= 3, "{seen} held there, {acked} acked, {lost} lost");
    let held_samples = risk["samples"].as_array().into_iter().flatten().filter_map(|s| s.as_str()?.split_once(' '));
    assert!(held_samples.into_iter().all(|(_, id)| !held.contains(id)), "what is lost is not there");
    assert!(report["figures"]["versions_compared"].as_u64() > Some(acked));
    // What was lost waited for all of the fault, and came then; no user's versions were touched, and none came late.
    let cost = &report["cost"];
    let came = cost["from_here"]["versions"].as_u64().expect("it was counted");
    let written = report["client"]["puts"].as_u64().unwrap() + report["client"]["deletes"].as_u64().unwrap();
    assert!(came >= lost && came < written && cost["from_there"]["versions"].as_u64() >= Some(1), "{cost} {written}");
    assert_eq!((cost["from_here"]["late"].as_u64(), cost["from_there"]["late"].as_u64()), (Some(0), Some(0)));
    let longest = cost["longest_wait_seconds"].as_f64().expect("it was measured");
    assert!((7.5..8.0 + 15.0).contains(&longest), "{cost}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    fleet.heal();
    nothing_is_left(&fleet, "after").await;
    let (code, markdown) = ended(fra, &["report", "--markdown"]).await;
    assert!(code == 0 && markdown.contains("| RPO |") && markdown.contains("| cut |"), "{markdown}");
    fleet.no_alarm();
}

/// Puts an object into a bucket that is not the fleet's.
async fn put_into(site: &Site, bucket: &str, key: &str) {
    let put = site.s3().client.put_object().bucket(bucket).key(key).body(Bytes::from("by hand").into());
    put.send().await.expect("an acked put");
}

async fn holds(site: &Site, bucket: &str, key: &str) -> bool {
    site.s3().client.head_object().bucket(bucket).key(key).send().await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_in_one_direction_stops_that_one_and_lets_the_other_go_on() {
    let fleet = sites().await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    for (direction, from, to) in [("outbound", fra, ams), ("inbound", ams, fra)] {
        let run = drill(fra, &["run", "--peer", "ams", "--direction", direction, "--duration", "6s", "-o", "json"]);
        let running = tokio::spawn(async move { { run }.output().await.expect("run isthmus") });
        wait_until("the canary is cut", PATIENCE, async || is_at(fra, "hold").await).await;
        let bucket = canaries(fra).await.pop().expect("there is a canary");
        put_into(from, &bucket, "cut-off").await;
        put_into(to, &bucket, "goes-on").await;
        wait_until("the other way goes on", Duration::from_secs(4), async || holds(from, &bucket, "goes-on").await)
            .await;
        assert!(is_at(fra, "hold").await, "the drill was not looked at in time");
        assert!(!holds(to, &bucket, "cut-off").await, "{direction}: nothing passes where it is cut");
        let output = running.await.expect("no panic");
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
        println!("{}", serde_json::to_string_pretty(&report).unwrap());
        assert_eq!((output.status.code(), report["verdict"].as_str()), (Some(0), Some("pass")), "{report:#}");
        assert_eq!(report["direction"], direction);
        assert!(report["figures"]["other_way_seconds"].is_number(), "{report:#}");
        let lost = report["figures"]["at_risk"]["versions"].as_u64().expect("it was measured");
        assert!(direction == "outbound" || lost == 0, "what is sent goes on arriving: {lost}");
        nothing_is_left(&fleet, direction).await;
    }
    fleet.no_alarm();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_site_is_lost_and_switched_over_and_back_and_the_reports_outlive_the_process() {
    let fleet = sites().await;
    let fra = &fleet.sites[0];
    let first = "trend: the first of its kind";
    for (kind, trend) in [("switchover", first), ("site-loss", first), ("switchover", "trend: RTO ")] {
        let (code, text) = ended(fra, &["run", "--peer", "ams", "--type", kind, "--duration", "2s"]).await;
        println!("{text}");
        assert!(code == 0 && text.starts_with(&format!("PASS  {kind} fra -> ams")), "{text}");
        assert!(text.contains("turned away by the fence"), "{text}");
        assert!(text.contains("service level: no cost to users; of the canary's own 0 of "), "{text}");
        assert!(text.contains(trend) && (trend == first || text.contains("(2 of 2 passed)")), "{text}");
    }
    fra.stop().await;
    fra.start().await;
    let (code, text) = ended(fra, &["list"]).await;
    assert!(code == 0 && text.contains("site-loss") && text.starts_with("PASS  switchover"), "{text}");
    assert!(text.contains("; 3 of the last 3 passed\n"), "{text}");
    wait_until("its metrics are those of the last life", PATIENCE, async || {
        let shown = fra.metrics().await;
        let of = |line: &&str| {
            line.starts_with("isthmus_drill_last_timestamp_seconds{") && line.contains(r#"result="pass""#)
        };
        shown.lines().filter(of).count() == 2 && fra.status().await.is_ok_and(|r| r.last_drill.is_some())
    })
    .await;
    let last = fra.status().await.expect("its status").last_drill.map(|last| (last.kind, last.verdict));
    assert_eq!(last, Some(("switchover".to_string(), "PASS".to_string())));
    nothing_is_left(&fleet, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_is_refused_with_its_reason_and_touches_nothing() {
    let fleet = sites().await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    let refused = async |args: &[&str], code: i32, why: &str| {
        let (said_code, text) = ended(fra, &[&["run"], args].concat()).await;
        assert!(said_code == code && text.contains(why), "{code} {why}: {said_code} {text}");
    };
    refused(&["--peer", "nyc"], 64, "no peer nyc; there are: ams").await;
    let one_way = ["--peer", "ams", "--type", "site-loss", "--direction", "inbound"];
    refused(&one_way, 64, "only a partition has a direction").await;
    refused(&["--peer", "ams", "--duration", "30"], 64, "30s").await;
    refused(&["--peer", "ams", "--duration", "1h", "--deadline", "30m"], 64, "shorter than the deadline").await;

    let mut first: Child = drill(fra, &["run", "--peer", "ams", "--duration", "5s"]).spawn().expect("run isthmus");
    wait_until("a drill runs", PATIENCE, async || is_at(fra, "baseline").await).await;
    refused(&["--peer", "ams"], 1, "is under way").await;
    let there = ended(ams, &["run", "--peer", "fra"]).await;
    assert!(there.0 == 1 && there.1.contains("is under way"), "{there:?}");
    let (code, text) = ended(fra, &["abort"]).await;
    assert!(code == 0 && text.contains("ends now"), "{text}");
    assert_eq!(first.wait().await.expect("it ends").code(), Some(1));
    nothing_is_left(&fleet, "aborted").await;

    rewrite(ams, "fra", "    drills: Enabled\n", "");
    wait_until("the grant is gone", PATIENCE, async || {
        let (code, text) = ended(fra, &["run", "--peer", "ams", "--duration", "1s", "--deadline", "2s"]).await;
        code == 1 && text.contains("does not say drills: Enabled")
    })
    .await;
    fleet.proxies.iter().for_each(|proxy| proxy.set(Fault::Cut));
    wait_until("the peer is down", PATIENCE, async || {
        fra.status().await.is_ok_and(|r| r.peers.iter().all(|p| !p.is_up))
    })
    .await;
    refused(&["--peer", "ams"], 1, "peer ams is down").await;
    fleet.heal();
    nothing_is_left(&fleet, "refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_what_is_not_at_the_peer_now_and_says_what_to_do() {
    let fleet = sites().await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    let dry_run = async |code: i32, what: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
        command.args(["failover", "--dry-run", "--peer", "ams", "--socket"]).arg(fra.socket());
        let output = command.output().await.expect("run isthmus");
        output.status.code() == Some(code) && said(&output).contains(what)
    };
    assert!(dry_run(0, "NOTHING  would be lost now").await);
    ams.kill().await;
    wait_until("the peer is down", PATIENCE, async || {
        fra.status().await.is_ok_and(|r| r.peers.iter().all(|p| !p.is_up))
    })
    .await;
    for key in ["a", "b", "c"] {
        fra.s3().put(key, Bytes::from("only here")).await.expect("an acked put");
    }
    wait_until("three would be lost", PATIENCE, async || dry_run(1, "3 VERSIONS").await).await;
    assert!(dry_run(1, "1. bring ams back first").await);
}

/// Starts a drill at `fra` and kills that site once the step is under way.
async fn killed_at(fleet: &Fleet, step: &str, comes_back: bool) {
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    let args = ["run", "--peer", "ams", "--duration", "4s", "--deadline", "14s"];
    // A slow line makes every step long enough to be seen.
    fleet.proxies.iter().for_each(|proxy| proxy.set(Fault::Delay(Duration::from_millis(150))));
    let mut running = drill(fra, &args).spawn().expect("run isthmus");
    let mut began = Instant::now();
    wait_until(step, PATIENCE, async || {
        if let Some(status) = running.try_wait().expect("look at it") {
            // What a site knows of a canary goes a moment after its bucket; until then it takes part in no other drill.
            assert_eq!(status.code(), Some(1), "refused, or nothing");
            (running, began) = (drill(fra, &args).spawn().expect("run isthmus"), Instant::now());
        }
        is_at(fra, step).await
    })
    .await;
    fra.kill().await;
    fleet.heal();
    let output = running.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(2), "who drives it could not find out: {}", said(&output));
    if comes_back {
        fra.start().await;
    }
    // The peer has its own timer, and asks nobody.
    wait_until("the peer removes its canary", Duration::from_secs(30), async || canaries(ams).await.is_empty()).await;
    let log = tail(&ams.dir.join("log"));
    println!("killed at {step}: the peer's canary was gone {:?} after the start\n{log}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(14 + 10), "{:?}", began.elapsed());
    if !comes_back {
        fra.start().await;
    }
    nothing_is_left(fleet, step).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_at_whatever_step_nothing_is_left_behind_the_deadline() {
    let fleet = sites().await;
    killed_at(&fleet, "prepare", true).await;
    killed_at(&fleet, "baseline", false).await;
    killed_at(&fleet, "hold", true).await;
    killed_at(&fleet, "clean_up", false).await;
    let [fra, ams]: &[Arc<Site>; 2] = fleet.sites[..].try_into().expect("two sites");
    // And the peer: the drill fails, and its canary goes when it is back.
    let args = ["run", "--peer", "ams", "--duration", "3s", "--deadline", "12s"];
    let running = drill(fra, &args).spawn().expect("run isthmus");
    wait_until("hold", PATIENCE, async || is_at(fra, "hold").await).await;
    ams.kill().await;
    let output = running.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    ams.start().await;
    nothing_is_left(&fleet, "peer").await;
    let mut last = (1, "is not removed yet".to_owned());
    wait_until("both sites forget the canary", PATIENCE, async || {
        if last.1.contains("is not removed yet") {
            last = ended(fra, &["run", "--peer", "ams", "--duration", "1s"]).await;
        }
        !last.1.contains("is not removed yet")
    })
    .await;
    assert!(last.0 == 0, "another drill passes: {}", last.1);
    fleet.no_alarm();
}
