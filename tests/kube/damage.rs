//! A site whose drives were set back: what it had acked since is gone there without a word, and one of its versions is in
//! an older state. A job finds that, another mends it, and a third proves it. Each site is under an API server of its own
//! where the list has three.
use super::cluster::Api;
use super::mesh::until_alike;
use super::ready;
use super::sites::{BUCKET, Fleet, Site};
use serde_json::{Value as Json, json};

/// Runs a job at a site; its status when it has ended.
async fn job(api: &Api, site: &Site, name: &str, kind: &str) -> Json {
    let spec = json!({"ruleRef": {"name": BUCKET}, "type": kind});
    api.apply(&site.namespace, "ReplicationJob", name, spec).await;
    api.until(&site.namespace, "ReplicationJob", name, |s| s["completionTime"].is_string()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_what_a_site_lost_silently_is_found_and_mended_by_jobs() {
    let Some(apis) = Api::all_of_environment().await else { return };
    let apis: Vec<&Api> = apis.iter().take(3).collect();
    println!("three sites at {} API servers", apis.len());
    let fleet = Fleet::of(&["a", "b", "c"], &apis).await;
    // The slow proof would find it too, and mend it before a job is asked for.
    fleet.sites.iter().for_each(|site| site.configure("proof_pause_seconds: 3600"));
    fleet.sites.iter().for_each(Site::run);
    fleet.apply_mesh(&apis).await;
    let [a, b, c] = &fleet.sites[..] else { panic!("three sites") };
    let all_ready = async || {
        for (site, api) in fleet.sites.iter().zip(apis.iter().cycle()) {
            site.until_ready().await;
            let is_ready = |s: &Json| ready(s) == "True Replicating" && s["peersReady"] == "2/2";
            api.until(&site.namespace, "ReplicationRule", BUCKET, is_ready).await;
        }
    };
    all_ready().await;
    a.put("kept", 10).await;
    until_alike(&fleet.sites, 10).await;

    b.kill();
    b.save_drives();
    b.run();
    all_ready().await;
    a.put("lost", 5).await;
    until_alike(&fleet.sites, 15).await;
    a.tag("kept/003").await;
    b.until_tagged("kept/003").await;
    c.until_tagged("kept/003").await;
    b.kill();
    b.set_drives_back();
    b.run();
    all_ready().await;
    assert_eq!((b.count("kept").await, b.count("lost").await), (10, 0), "the damage is planted");

    let api = apis[0];
    let found = job(api, a, "find", "Verify").await;
    let counts = ["missing", "different", "extra", "repaired"].map(|of| found[of].as_i64());
    assert_eq!((&found["result"], counts), (&json!("Divergent"), [Some(5), Some(1), Some(0), Some(0)]), "{found}");
    let samples = found["samples"].as_array().expect("it names them");
    assert!(samples.iter().all(|s| s.as_str().is_some_and(|s| s.starts_with("b "))), "{found}");
    assert_eq!(b.count("lost").await, 0, "it was looked at, and not touched");
    let mended = job(api, a, "mend", "Repair").await;
    assert_eq!((&mended["result"], &mended["repaired"]), (&json!("Repaired"), &json!(6)), "{mended}");
    let proven = job(api, a, "prove", "Verify").await;
    assert_eq!((&proven["result"], &proven["missing"]), (&json!("Consistent"), &json!(0)), "{proven}");
    until_alike(&fleet.sites, 15).await;
    b.until_tagged("kept/003").await;
    fleet.stop().await;
}
