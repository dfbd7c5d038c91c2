//! Live drills between real processes: what clients of the named rule feel, what nobody else does, what is counted, and that
//! nothing of the drill is left in users' buckets, whoever dies.
use crate::drill::{drill, ended, is_at, let_drill, said, shown, wait_until};
use crate::s3::Miss;
use crate::shape::{Shape, Way};
use crate::site::{BUCKET, Fleet, Site};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::{Clock, SystemClock};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// What every live drill here is asked for by.
const LIVE: [&str; 9] = ["run", "--peer", "ams", "--scope", "live", "--rule", "orders-a", "--confirm", "orders-a"];

/// What every rule of a fleet says, and what more is written before.
const OBJECTIVE: &str = "  recoveryPointObjective";

const BRAKE: &str = "  brake: {minVersions: 10}\n  recoveryPointObjective";

/// Two sites with two rules each way, by prefix, that let each other drill.
async fn sites() -> Fleet {
    sites_where("").await
}

/// The same, where the rule of the first site says one thing more.
async fn sites_where(more: &str) -> Fleet {
    let way = |from, to, prefix| Way { from, to, prefix };
    let ways = vec![way(0, 1, "a/"), way(1, 0, "a/"), way(0, 1, "b/"), way(1, 0, "b/")];
    let fleet = Fleet::write_as(&["fra", "ams"], 4, Shape { ways, relays: false }).await;
    rewrite_rule(&fleet.sites[0], "a", OBJECTIVE, &format!("{more}{OBJECTIVE}"));
    let_drill(&fleet).await;
    fleet.drained(PATIENCE).await;
    fleet
}

fn rewrite_rule(site: &Site, name: &str, from: &str, to: &str) {
    crate::process::rewrite(&site.dir.join(format!("rules/rule-{name}.yaml")), from, to);
}

/// Ids of all versions and markers below a prefix, by S3.
async fn held(site: &Site, prefix: &str) -> BTreeSet<String> {
    site.s3().ids(BUCKET, prefix).await
}

/// Nothing of a drill is left: no object in its place, no fault on either rule's links, both ways.
async fn nothing_is_left(fleet: &Fleet, word: &str) {
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    for site in [fra, ams] {
        wait_until("the drill's objects are gone", PATIENCE, async || {
            held(site, "a/isthmus-drill/").await.is_empty() && held(site, "b/isthmus-drill/").await.is_empty()
        })
        .await;
    }
    for (from, to) in [(fra, ams), (ams, fra)] {
        for rule in ["a", "b"] {
            let key = format!("{rule}/{word}-from-{}", from.name);
            let id = from.s3().put(&key, Bytes::from("after the drill")).await.expect("an acked put");
            wait_until("every link goes on", PATIENCE, async || to.s3().is_listed(&key, &id).await).await;
        }
    }
    fleet.drained(PATIENCE).await;
}

async fn verified_equal(site: &Site) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_isthmus"));
    command.args(["verify", "orders-a", "--socket"]).arg(site.socket());
    let output = command.output().await.expect("run isthmus");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

/// Users of a rule: writes without a pause until told to stop; when each was acked, by its version id.
fn users(site: &Arc<Site>, bytes: usize, stop: CancellationToken) -> tokio::task::JoinHandle<BTreeMap<String, u64>> {
    let site = site.clone();
    tokio::spawn(async move {
        let mut acked = BTreeMap::new();
        for number in 0.. {
            if stop.is_cancelled() {
                break;
            }
            let body = Bytes::from(vec![b'u'; bytes]);
            if let Ok(id) = site.s3().put(&format!("a/users/{number:05}"), body).await {
                acked.insert(id, SystemClock.now_millis());
            }
            sleep(Duration::from_millis(40)).await;
        }
        acked
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_partition_counts_what_users_wrote_and_touches_no_other_rule() {
    // Slower than its users write: something of theirs waits when it is cut.
    let fleet = sites_where("  bandwidthLimit: 100Ki\n").await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    let stop = CancellationToken::new();
    let writing = users(fra, 16 << 10, stop.clone());
    let run = drill(fra, &[&LIVE[..], &["--duration", "64s", "--deadline", "3m", "-o", "json"]].concat());
    let running = tokio::spawn(async move { { run }.output().await.expect("run isthmus") });
    wait_until("the link is cut", PATIENCE, async || is_at(fra, "hold").await).await;
    stop.cancel();
    let acked = writing.await.expect("no panic");
    let (here, there) = (held(fra, "a/users/").await, held(ams, "a/users/").await);
    let own = held(fra, "a/isthmus-drill/").await.difference(&held(ams, "a/isthmus-drill/").await).count() as u64;
    for (rule, is_cut) in [("b", false), ("a", true)] {
        for (from, to) in [(fra, ams), (ams, fra)] {
            let key = format!("{rule}/meanwhile-{}", from.name);
            let id = from.s3().put(&key, Bytes::from("x")).await.expect("clients are served at both");
            if is_cut {
                assert!(!to.s3().is_listed(&key, &id).await, "{key} passed");
            } else {
                wait_until("another rule's link goes on", Duration::from_secs(4), async || {
                    to.s3().is_listed(&key, &id).await
                })
                .await;
            }
        }
    }
    assert!(is_at(fra, "hold").await, "the drill was not looked at in time");
    assert_eq!(held(ams, "a/users/").await, there, "nothing passes while it is cut");

    let output = running.await.expect("no panic");
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    assert_eq!((output.status.code(), report["verdict"].as_str()), (Some(0), Some("pass")), "{report:#}");
    let fault_at = report["figures"]["fault_at"].as_u64().expect("there was a fault");
    let lost = acked.iter().filter(|(id, at)| **at <= fault_at && !there.contains(*id)).count() as u64;
    let counted = report["figures"]["at_risk"]["versions"].as_u64().expect("it was measured");
    // A write that was stamped before the fault may be acked after it; its own are counted like anybody's.
    assert!(lost > 0 && here.len() > there.len(), "{lost} of {} users' writes", acked.len());
    assert!(counted >= lost && counted <= lost + own + 2, "{lost} lost, {own} of its own, {counted} counted");
    let samples = report["figures"]["at_risk"]["samples"].as_array().expect("examples");
    assert!(samples.iter().any(|s| s.as_str().is_some_and(|s| s.starts_with("orders/a/users/"))), "{samples:?}");
    // All that waited since before the fault is later than the objective allows.
    let (cost, late) = (&report["cost"], report["cost"]["from_here"]["late"].as_u64().expect("it was counted"));
    let due = cost["from_here"]["versions"].as_u64().expect("it was counted");
    assert!(late >= lost && late <= due && due >= (here.len() - there.len()) as u64, "{lost} lost: {cost}");
    assert!(cost["from_there"]["versions"].as_u64() >= Some(1), "what was written at the peer came back: {cost}");
    assert!(cost["longest_wait_seconds"].as_f64() >= Some(64.0), "{cost}");
    let (_, text) = ended(fra, &["report"]).await;
    let late_back = cost["from_there"]["late"].as_u64().expect("it was counted");
    let spent = format!("spent is the budget of {} versions", (late + late_back) * 1000);
    assert!(
        text.contains(&format!("service level: {late} of {due} versions from here")) && text.contains(&spent),
        "{text}"
    );
    nothing_is_left(&fleet, "partition").await;
    verified_equal(fra).await;
    verified_equal(ams).await;
    fleet.no_alarm();
}

/// What a client is told that writes and one that reads.
async fn turned_away(site: &Site, key: &str) -> [bool; 2] {
    let by_the_drill = |miss: &Miss| match miss {
        Miss::Unknown(why) => why.contains("503") && why.contains("failover drill"),
        Miss::Refused(..) => false,
    };
    let wrote = site.s3().put(key, Bytes::from("x")).await;
    let read = site.s3().client.head_object().bucket(BUCKET).key("a/first").send().await;
    let listed = site.s3().client.list_objects_v2().bucket(BUCKET).send().await.map_err(crate::s3::miss);
    assert_eq!(read.is_err(), listed.is_err(), "{read:?} {listed:?}");
    [wrote.is_err_and(|miss| by_the_drill(&miss)), listed.is_err_and(|miss| by_the_drill(&miss))]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_site_loss_and_switchover_turn_clients_away_at_the_door_for_their_time() {
    let fleet = sites().await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    fra.s3().put("a/first", Bytes::from("x")).await.expect("an acked put");
    fleet.drained(PATIENCE).await;
    for (kind, away) in [("site-loss", [true, true]), ("switchover", [true, false])] {
        assert_eq!(turned_away(fra, "a/before").await, [false, false]);
        let run = drill(fra, &[&LIVE[..], &["--type", kind, "--duration", "5s", "--deadline", "2m"]].concat());
        let running = tokio::spawn(async move { { run }.output().await.expect("run isthmus") });
        wait_until("the peer serves", PATIENCE, async || is_at(fra, "hold").await).await;
        assert_eq!(turned_away(fra, "a/during").await, away, "{kind}");
        assert_eq!(turned_away(ams, "a/there").await, [false, false], "{kind}: the peer serves");
        assert!(is_at(fra, "hold").await, "the drill was not looked at in time");
        let output = running.await.expect("no panic");
        println!("{}", said(&output));
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        for site in [fra, ams] {
            assert_eq!(turned_away(site, "a/after").await, [false, false], "{kind}: it is lifted");
        }
        nothing_is_left(&fleet, kind).await;
    }
    verified_equal(fra).await;
    fleet.no_alarm();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_drill_that_would_harm_or_was_not_meant_is_refused_by_name() {
    let fleet = sites_where("  brake: {minVersions: 10}\n").await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    let refused = async |args: &[&str], code: i32, why: &str| {
        let (said_code, text) = ended(fra, &[&["run", "--peer", "ams"], args].concat()).await;
        assert!(said_code == code && text.contains(why), "{code} {why}: {said_code} {text}");
    };
    let live = ["--scope", "live"];
    let of = |rule: &'static str| [&live[..], &["--rule", rule, "--confirm", rule]].concat();
    refused(&live, 64, "--scope live needs --rule").await;
    refused(&[&live[..], &["--rule", "orders-a"]].concat(), 64, "confirm it by name: orders-a").await;
    refused(&[&live[..], &["--rule", "orders-a", "--confirm", "orders-b"]].concat(), 64, "orders-a").await;
    refused(&["--rule", "orders-a"], 64, "--scope live").await;
    refused(&of("nope"), 1, "no rule nope is in force").await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_isthmus"));
    command.args(["suspend", "--rule", "orders-b", "--socket"]).arg(fra.socket());
    assert!(command.status().await.expect("run isthmus").success());
    wait_until("it is suspended", PATIENCE, async || {
        ended(fra, &[&["run", "--peer", "ams"], &of("orders-b")[..]].concat())
            .await
            .1
            .contains("is suspended by isthmus")
    })
    .await;
    refused(&of("orders-a"), 1, "the brake of rule orders-a engages at 10 deletes").await;
    // And at the peer: what leads back is looked at there.
    rewrite_rule(fra, "a", BRAKE, OBJECTIVE);
    rewrite_rule(ams, "a", OBJECTIVE, BRAKE);
    wait_until("the brake there is too quick", PATIENCE, async || {
        let (code, text) =
            ended(fra, &[&["run", "--peer", "ams", "--duration", "1s"], &of("orders-a")[..]].concat()).await;
        code == 1 && text.contains("prepare: the peer refuses: the brake of rule orders-a")
    })
    .await;
    for site in [fra, ams] {
        assert!(held(site, "a/isthmus-drill/").await.is_empty());
    }
    assert_eq!(shown(fra).await.expect("a report")["figures"]["fault_at"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_drill_whose_driver_is_killed_ends_at_both_sites_and_leaves_no_object() {
    let fleet = sites().await;
    let [fra, ams] = &fleet.sites[..] else { unreachable!("two sites") };
    fra.s3().put("a/first", Bytes::from("x")).await.expect("an acked put");
    for (step, kind, comes_back) in
        [("baseline", "partition", true), ("hold", "site-loss", false), ("hold", "partition", true)]
    {
        let args = [&LIVE[..], &["--type", kind, "--duration", "6s", "--deadline", "16s"]].concat();
        let (mut running, mut began) = (drill(fra, &args).spawn().expect("run isthmus"), Instant::now());
        wait_until(step, PATIENCE, async || {
            if let Some(status) = running.try_wait().expect("look at it") {
                // Until both sites have forgotten the one before they take part in no other.
                assert_eq!(status.code(), Some(1), "refused, or nothing");
                (running, began) = (drill(fra, &args).spawn().expect("run isthmus"), Instant::now());
            }
            is_at(fra, step).await
        })
        .await;
        // A site that is lost says nothing of its objects.
        assert!(kind == "site-loss" || !held(fra, "a/isthmus-drill/").await.is_empty());
        fra.kill().await;
        let output = running.wait_with_output().await.expect("it ends");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        if comes_back {
            fra.start().await;
            // A fault lives in memory: what starts anew has none.
            assert_eq!(turned_away(fra, "a/again").await, [false, false], "{kind}");
        }
        wait_until("the peer removes the drill's objects", Duration::from_secs(40), async || {
            held(ams, "a/isthmus-drill/").await.is_empty()
        })
        .await;
        println!("killed at {step} of a {kind}: nothing of it at the peer {:?} after the start", began.elapsed());
        if !comes_back {
            fra.start().await;
        }
        nothing_is_left(&fleet, &format!("{step}-{kind}")).await;
    }
    fleet.no_alarm();
}
