//! Two sites that take their rules from a real API server, as local processes: what people do with `kubectl`, an API server
//! that goes away, and a rule that is deleted. Needs `ISTHMUS_E2E_KUBECONFIGS`; without it says SKIPPED.
mod cluster;
mod damage;
mod environment;
mod mesh;
#[path = "../../src/journal/postgres/server.rs"]
#[allow(dead_code)] // the journal's own tests use the rest
mod pg;
#[path = "../process/mod.rs"]
mod process;
mod sites;
mod split;

use cluster::Api;
use serde_json::json;
use sites::{BUCKET, Fleet, Site};
use split::Split;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rules_of_an_api_server_run_and_outlive_it() {
    let Some(api) = Api::of_environment().await else { return };
    let fleet = Fleet::start(&api).await;
    let (a, b) = (&fleet.sites[0], &fleet.sites[1]);

    // A controller waits for its Site, and then replicates.
    fleet.apply_documents(&api).await;
    a.until_ready().await;
    b.until_ready().await;
    a.put("first", 20).await;
    b.until_holds("first", 20).await;
    let status = api.until(&a.namespace, "ReplicationRule", BUCKET, |s| ready(s) == "True Replicating").await;
    assert_eq!(status["destinations"][0]["peer"], "b");
    api.until(&a.namespace, "Peer", "b", |s| condition(s, "Connected") == "True Connected").await;
    let site = api.until(&a.namespace, "Site", "a", |s| ready(s) == "True Ready").await;
    assert!(!site["leader"].as_str().unwrap_or_default().is_empty(), "{site}");
    api.until_said(&a.namespace, &["RuleAccepted", "LeaderElected"]).await;

    // A bad rule beside it says why, in its own status, and stops nothing.
    api.apply(
        &a.namespace,
        "ReplicationRule",
        "bad",
        json!({"siteRef": {"name": "a"}, "bucket": BUCKET, "destinations": [{"peer": "gone"}]}),
    )
    .await;
    api.until(&a.namespace, "ReplicationRule", "bad", |s| ready(s) == "False PeerNotFound").await;
    a.put("second", 5).await;
    b.until_holds("second", 5).await;

    // Suspended, changes wait; resumed, they go.
    let began = Instant::now();
    api.merge(&a.namespace, "ReplicationRule", BUCKET, json!({"spec": {"suspend": true}})).await;
    api.until(&a.namespace, "ReplicationRule", BUCKET, |s| ready(s) == "False Suspended").await;
    println!("suspended and told after {:?}", began.elapsed());
    a.put("third", 5).await;
    assert_eq!(b.count("third").await, 0);
    let waiting = api.until(&a.namespace, "ReplicationRule", BUCKET, |s| s["backlogVersions"].as_i64() > Some(0)).await;
    assert!(waiting["oldestPendingTime"].is_string(), "{waiting}");
    api.merge(&a.namespace, "ReplicationRule", BUCKET, json!({"spec": {"suspend": false}})).await;
    b.until_holds("third", 5).await;
    api.until(&a.namespace, "ReplicationRule", BUCKET, |s| {
        s.get("oldestPendingTime").is_none() && ready(s) == "True Replicating"
    })
    .await;

    // The API server goes away for a minute, under load and longer than the Lease lasts: links run on.
    fleet.cut(true);
    a.until_metric(&format!("isthmus_kube_up{{site=\"{}\"}} 0", a.name)).await;
    let away = Instant::now();
    for round in 0..20 {
        a.put(&format!("away-{round}"), 5).await;
        b.until_holds(&format!("away-{round}"), 5).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    assert!(away.elapsed() > Duration::from_secs(59));
    assert_eq!(a.ready_code(), Some(200), "/readyz does not depend on the API server");
    fleet.cut(false);
    let back = Instant::now();
    a.until_metric(&format!("isthmus_kube_up{{site=\"{}\"}} 1", a.name)).await;
    api.merge(&a.namespace, "ReplicationRule", BUCKET, json!({"spec": {"recoveryPointObjective": "10m"}})).await;
    let generation = api.get(&a.namespace, "ReplicationRule", BUCKET).await.expect("it is there").metadata.generation;
    api.until(&a.namespace, "ReplicationRule", BUCKET, |s| s["observedGeneration"].as_i64() == generation).await;
    println!("state fresh {:?} after the API server's return", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(15), "{:?}", back.elapsed());

    // A job compares.
    api.apply(&a.namespace, "ReplicationJob", "check", json!({"ruleRef": {"name": BUCKET}, "type": "Verify"})).await;
    let job = api.until(&a.namespace, "ReplicationJob", "check", |s| s["phase"] == "Complete").await;
    assert_eq!((&job["result"], job["scanned"].as_i64() > Some(40)), (&json!("Consistent"), true), "{job}");
    drills(&api, a).await;

    // Certificates of another CA on both sites, under way; then the peer is lost and comes back, which takes new handshakes.
    a.rotate(&api).await;
    b.rotate(&api).await;
    let rotated = Instant::now();
    let mut round = 0;
    while rotated.elapsed() < Duration::from_secs(65) {
        a.put(&format!("rotated-{round}"), 2).await;
        b.until_holds(&format!("rotated-{round}"), 2).await;
        round += 1;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    b.kill();
    a.put("lost", 5).await;
    api.until(&a.namespace, "ReplicationRule", BUCKET, |s| ready(s) == "False PeerUnreachable").await;
    b.run();
    b.until_ready().await;
    b.until_holds("lost", 5).await;
    let whole = api.until(&a.namespace, "ReplicationRule", BUCKET, |s| ready(s) == "True Replicating").await;
    assert_eq!(whole["parkedVersions"], 0, "no transfer failed for good");

    // A deleted rule drains and goes; what was replicated stays.
    api.delete(&a.namespace, "ReplicationRule", BUCKET).await;
    api.until_gone(&a.namespace, "ReplicationRule", BUCKET).await;
    assert_eq!((a.count("first").await, b.count("first").await), (20, 20));
    fleet.stop().await;
}

/// Rules over parts of the bucket, which leave where it is what was there before them.
const PARTS: [&str; 4] = ["p0", "p1", "p2", "p3"];

/// Runs a job of each part, all at once; their statuses when all have ended.
async fn jobs(api: &Api, namespace: &str, round: &str, kind: &str, compare: &str) -> Vec<serde_json::Value> {
    for part in PARTS {
        let spec = json!({"ruleRef": {"name": part}, "type": kind, "compare": compare});
        api.apply(namespace, "ReplicationJob", &format!("{round}-{part}"), spec).await;
    }
    let mut ended = Vec::new();
    for part in PARTS {
        let is_over = |s: &serde_json::Value| s["completionTime"].is_string();
        ended.push(api.until(namespace, "ReplicationJob", &format!("{round}-{part}"), is_over).await);
    }
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_two_replicators_share_a_site_and_its_jobs() {
    const BEFORE: usize = 10;
    let Some(api) = Api::of_environment().await else { return };
    let server = match pg::Server::start(&[]).await {
        Ok(server) => server,
        Err(why) => return println!("SKIPPED: two replicators on one PostgreSQL: {why}"),
    };
    let mut fleet = Fleet::prepare(&api).await;
    let mut split = Split::prepare(&mut fleet.sites[0], &server);
    let (a, b) = (&fleet.sites[0], &fleet.sites[1]);
    split.start_store().await;
    for part in PARTS {
        a.put(part, BEFORE).await;
    }
    b.run();
    fleet.apply_documents(&api).await;
    for part in PARTS {
        let spec = json!({"siteRef": {"name": "a"}, "bucket": BUCKET, "priority": 1, "filter": {"prefix": format!("{part}/")},
            "destinations": [{"peer": "b"}], "replicate": {"existingObjects": "Disabled"}});
        api.apply(&a.namespace, "ReplicationRule", part, spec).await;
    }
    split.start_replicators().await;
    b.until_ready().await;
    split.until_shared().await;
    for part in PARTS {
        api.until(&a.namespace, "ReplicationRule", part, |s| ready(s) == "True Replicating").await;
    }

    // Whoever pushes a link, the jobs reach it: what was there before is brought by a Backfill, and by nothing else.
    for status in jobs(&api, &a.namespace, "verify", "Verify", "Checksum").await {
        assert_eq!((&status["result"], &status["different"]), (&json!("Consistent"), &json!(0)), "{status}");
    }
    assert_eq!(b.count("p0").await, 0);
    let began = Instant::now();
    for status in jobs(&api, &a.namespace, "backfill", "Backfill", "Checksum").await {
        assert_eq!((&status["result"], &status["repaired"]), (&json!("Backfilled"), &json!(BEFORE)), "{status}");
    }
    println!("four backfills ended after {:?}", began.elapsed());
    for part in PARTS {
        b.until_holds(part, BEFORE).await;
    }

    // The leader is killed under load: its links and its duties move, and the jobs with them.
    let leads = |status: &serde_json::Value, name: &str| {
        status["leader"].as_str().is_some_and(|l| l.starts_with(&format!("{name}_")))
    };
    let site = api.until(&a.namespace, "Site", "a", |s| leads(s, "one") || leads(s, "two")).await;
    let (leader, other) = if leads(&site, "one") { ("one", "two") } else { ("two", "one") };
    let killed = Instant::now();
    split.kill(leader);
    for round in 0..5 {
        for part in PARTS {
            a.put(&format!("{part}/load-{round}"), 3).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for part in PARTS {
        for round in 0..5 {
            b.until_holds(&format!("{part}/load-{round}"), 3).await;
        }
    }
    println!("all that was written while the leader was killed had arrived {:?} after that", killed.elapsed());
    api.until(&a.namespace, "Site", "a", |s| leads(s, other)).await;
    println!("another leader wrote status {:?} after the kill", killed.elapsed());
    for status in jobs(&api, &a.namespace, "after", "Verify", "Content").await {
        assert_eq!(
            (&status["result"], status["scanned"].as_i64() >= Some(15)),
            (&json!("Consistent"), true),
            "{status}"
        );
    }
}

/// Figures, not a verdict: `ISTHMUS_E2E_RULES=1000` says how many rules.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_many_rules_are_planned_soon() {
    let Some(rules) = std::env::var("ISTHMUS_E2E_RULES").ok().and_then(|n| n.parse::<usize>().ok()) else {
        println!("SKIPPED: ISTHMUS_E2E_RULES is not set (how many rules)");
        return;
    };
    let Some(api) = Api::of_environment().await else { return };
    let fleet = Fleet::prepare(&api).await;
    fleet.apply_documents(&api).await;
    for n in 0..rules {
        let spec = json!({"siteRef": {"name": "a"}, "bucket": BUCKET, "priority": 1,
            "filter": {"prefix": format!("{n:04}/")}, "destinations": [{"peer": "b"}]});
        api.apply(&fleet.sites[0].namespace, "ReplicationRule", &format!("many-{n:04}"), spec).await;
    }
    let began = Instant::now();
    fleet.sites.iter().for_each(Site::run);
    let a = &fleet.sites[0];
    a.until_ready().await;
    println!("{rules} rules planned {:?} after the start", began.elapsed());
    let last = format!("many-{:04}", rules - 1);
    api.until(&a.namespace, "ReplicationRule", &last, |s| ready(s) == "True Replicating").await;
    println!("the last one's status was written {:?} after the start", began.elapsed());
    let altered = Instant::now();
    api.merge(&a.namespace, "ReplicationRule", &last, json!({"spec": {"suspend": true}})).await;
    api.until(&a.namespace, "ReplicationRule", &last, |s| ready(s) == "False Suspended").await;
    println!("a changed rule was told {:?} after the change; memory {} MiB", altered.elapsed(), a.memory_mib());
    fleet.stop().await;
}

#[tokio::test]
async fn kube_a_controller_without_rights_says_which_and_exits_78() {
    let Some(api) = Api::of_environment().await else { return };
    let fleet = Fleet::prepare(&api).await;
    api.delete_role_binding(&fleet.sites[0].namespace).await;
    let (code, said) = fleet.sites[0].run_to_end().await;
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("no right to list sites.replication.isthmus.dev"), "{said}");
    assert!(said.contains("update leases.coordination.k8s.io named isthmus-controller"), "{said}");
}

fn condition(status: &serde_json::Value, kind: &str) -> String {
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
    format!("{} {}", found["status"].as_str().unwrap_or_default(), found["reason"].as_str().unwrap_or_default())
}

fn ready(status: &serde_json::Value) -> String {
    condition(status, "Ready")
}

/// A drill is carried out once and reports; what cannot be carried out says so; one that is deleted ends at once.
async fn drills(api: &Api, a: &Site) {
    let drill = |scope: &str, duration: &str| {
        json!({"peerRef": {"name": "b"}, "ruleRefs": [{"name": BUCKET}], "type": "Partition", "scope": scope,
            "partition": {"duration": duration, "direction": "Both"}, "objectives": {"rpo": "10s", "rto": "10s"},
            "deadline": "5m", "workload": {"writesPerSecond": 20, "objectSize": "1Ki", "deletePercent": 10}})
    };
    let began = Instant::now();
    api.apply(&a.namespace, "FailoverDrill", "friday", drill("Canary", "3s")).await;
    let status = api.until(&a.namespace, "FailoverDrill", "friday", |s| s["completionTime"].is_string()).await;
    println!("a drill told after {:?}: {}", began.elapsed(), status["report"]);
    assert_eq!((&status["phase"], &status["report"]["result"]), (&json!("Succeeded"), &json!("Pass")), "{status}");
    assert!(status["report"]["writesAcknowledged"].as_i64() > Some(20), "{status}");
    assert_eq!(condition(&status, "Verified"), "True Equal", "{status}");
    api.until_said(&a.namespace, &["DrillStarted", "DrillFinished"]).await;
    let mut live = drill("Live", "3s");
    live["confirm"] = json!("all-of-it");
    api.apply(&a.namespace, "FailoverDrill", "all-of-it", live).await;
    let status = api.until(&a.namespace, "FailoverDrill", "all-of-it", |s| s["completionTime"].is_string()).await;
    assert_eq!(condition(&status, "Complete"), "True ObjectivesKept", "{status}");
    assert_eq!(condition(&status, "Verified"), "True Equal", "{status}");
    api.apply(&a.namespace, "FailoverDrill", "long", drill("Canary", "2m")).await;
    api.until(&a.namespace, "FailoverDrill", "long", |s| condition(s, "FaultInjected") == "True Injected").await;
    api.apply(&a.namespace, "FailoverDrill", "second", drill("Canary", "3s")).await;
    let second = api.until(&a.namespace, "FailoverDrill", "second", |s| s["completionTime"].is_string()).await;
    assert_eq!(condition(&second, "Failed"), "True PreflightFailed", "{second}");
    let began = Instant::now();
    api.delete(&a.namespace, "FailoverDrill", "long").await;
    api.until_gone(&a.namespace, "FailoverDrill", "long").await;
    println!("a drill that was deleted has ended after {:?}", began.elapsed());
}
