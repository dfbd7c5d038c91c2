//! Three sites that all write to one bucket, each under an API server of its own where the list has three: they agree on
//! every version, with one lost and returned, and a rule altered meanwhile.
use super::cluster::Api;
use super::sites::{BUCKET, Fleet, Site};
use super::{condition, ready};
use serde_json::json;
use std::time::{Duration, Instant};

/// Waits until all sites show the same versions in the same order, and so many.
pub async fn until_alike(sites: &[Site], count: usize) {
    let by = Instant::now() + Duration::from_secs(90);
    loop {
        let mut all = Vec::new();
        for site in sites {
            all.push(site.versions().await);
        }
        if all.iter().all(|one| *one == all[0]) && all[0].len() == count {
            return;
        }
        let counts: Vec<_> = all.iter().map(Vec::len).collect();
        assert!(Instant::now() < by, "the sites show {counts:?} versions, {count} were made; the first: {:#?}", all[0]);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_three_sites_write_to_one_bucket_and_agree() {
    let Some(apis) = Api::all_of_environment().await else { return };
    let apis: Vec<&Api> = apis.iter().take(3).collect();
    println!("three sites at {} API servers", apis.len());
    let fleet = Fleet::of(&["a", "b", "c"], &apis).await;
    fleet.sites.iter().for_each(Site::run);
    fleet.apply_mesh(&apis).await;
    let each = || fleet.sites.iter().zip(apis.iter().cycle());
    for (site, api) in each() {
        site.until_ready().await;
        let status = api.until(&site.namespace, "ReplicationRule", BUCKET, |s| ready(s) == "True Replicating").await;
        assert_eq!(status["peersReady"], "2/2", "{status}");
    }
    let [a, b, c] = &fleet.sites[..] else { panic!("three sites") };

    // Keys of their own, and the same keys at once.
    let began = Instant::now();
    for site in &fleet.sites {
        site.put(site.name, 10).await;
    }
    tokio::join!(a.put("shared", 10), b.put("shared", 10), c.put("shared", 10));
    until_alike(&fleet.sites, 60).await;
    println!("60 versions of three sites were alike everywhere after {:?}", began.elapsed());
    b.delete("shared/003").await;
    until_alike(&fleet.sites, 61).await;

    // One is lost; the others write on, and a rule is altered meanwhile. It returns, with what it had not sent.
    c.kill();
    a.put("without-c", 10).await;
    b.put("without-c", 10).await;
    let (site, api) = (a, apis[0]);
    api.until(&site.namespace, "ReplicationRule", BUCKET, |s| s["peersReady"] == "1/2").await;
    api.merge(&site.namespace, "ReplicationRule", BUCKET, json!({"spec": {"transferClass": "Bulk"}})).await;
    until_alike(&fleet.sites[..2], 81).await;
    let back = Instant::now();
    c.run();
    c.until_ready().await;
    until_alike(&fleet.sites, 81).await;
    println!("the site that was lost had all {:?} after its start", back.elapsed());

    // Each proves, by the bytes of both ends, that the two others hold what it has to bring.
    for (site, api) in each() {
        let spec = json!({"ruleRef": {"name": BUCKET}, "type": "Verify", "compare": "Content"});
        api.apply(&site.namespace, "ReplicationJob", "proof", spec).await;
    }
    for (site, api) in each() {
        let job = api.until(&site.namespace, "ReplicationJob", "proof", |s| s["completionTime"].is_string()).await;
        assert_eq!(
            (&job["result"], condition(&job, "Complete")),
            (&json!("Consistent"), "True Consistent".into()),
            "{job}"
        );
    }
    fleet.stop().await;
}
