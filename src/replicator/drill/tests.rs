//! What a canary is laid over, and when its fault ends.
use super::*;
use crate::rule::SiteDoc;

const ID: &str = "0123456789ab";

fn peer(name: &str) -> PeerDoc {
    PeerDoc { drills: true, ..PeerDoc::bare(name) }
}

fn drills(is_made_here: bool, lasts: Duration) -> Drills {
    let drills = Drills::default();
    let canary = Canary {
        peer: "ams".into(),
        is_driven_here: true,
        is_made_here,
        until: Instant::now() + lasts,
        fault: watch::Sender::default(),
        is_ending: false,
    };
    drills.canaries().insert(ID.into(), canary);
    drills
}

fn set() -> RuleSet {
    let site = SiteDoc {
        name: "fra".into(),
        site_id: "fra".into(),
        api_endpoint: String::new(),
        api_server_name: String::new(),
        api_secret: String::new(),
        trust_domain: String::new(),
        advertised_endpoint: String::new(),
        tls_secret: String::new(),
        suspend: false,
        bandwidth: None,
        transfers_max: None,
    };
    let peers = ["ams", "waw"].map(|name| (name.to_string(), peer(name)));
    RuleSet { sites: [("fra".into(), site)].into(), peers: peers.into(), ..RuleSet::default() }
}

#[test]
fn a_canary_is_a_rule_and_a_grant_of_its_own_for_one_peer_and_nothing_else() {
    let drills = drills(true, Duration::from_secs(60));
    let (mut laid, bucket) = (set(), canary(ID));
    drills.lay_over(&mut laid, "fra");
    assert_eq!(
        (laid.peers, laid.rules.len()),
        (set().peers, 1),
        "documents of peers stay: their lines would be dialled anew"
    );
    let links: Vec<_> = laid.rules[&bucket].destinations.iter().map(|d| (d.peer.as_str(), d.bucket.as_str())).collect();
    assert_eq!(links, [("ams", bucket.as_str())]);
    let granted = |peer_name: &str, bucket: &str| drills.granting(peer(peer_name), bucket).inbound;
    assert_eq!(granted("ams", &bucket).len(), 1);
    assert!(!granted("ams", &bucket)[0].version_deletes && granted("ams", &bucket)[0].origins.is_empty());
    for (peer, bucket) in [("waw", bucket.as_str()), ("ams", "orders"), ("ams", "isthmus-drill-ba9876543210")] {
        assert_eq!(granted(peer, bucket), [], "{peer} {bucket}");
    }
    drills.canaries().get_mut(ID).unwrap().is_ending = true;
    assert_eq!(granted("ams", &bucket), [], "what is being removed takes nothing");
    let mut laid = set();
    drills.lay_over(&mut laid, "fra");
    assert_eq!(laid, set());
}

#[test]
fn a_canary_of_another_process_runs_no_link_here() {
    let mut laid = set();
    drills(false, Duration::from_secs(60)).lay_over(&mut laid, "fra");
    assert_eq!(laid, set());
}

#[tokio::test]
async fn a_cut_breaks_the_canarys_way_alone_and_ends_with_its_canary_at_the_latest() {
    let drills = drills(true, Duration::from_secs(1));
    let tasks = TaskTracker::new();
    let (_line, standing) = watch::channel(None);
    assert!(drills.through("orders", standing.clone(), CancellationToken::new(), &tasks).same_channel(&standing));
    let way = drills.through(&canary(ID), standing.clone(), CancellationToken::new(), &tasks);
    assert!(!way.same_channel(&standing));
    assert!(drills.set_fault(ID, true, false, Duration::from_secs(3600)));
    let fault = drills.fault(ID).unwrap();
    assert!(fault.until.is_some_and(|until| until <= Instant::now() + Duration::from_secs(1)), "{fault:?}");
    assert!(drills.is_cut(&canary(ID)) && !drills.is_cut("orders"));
    assert!(drills.set_fault(ID, false, false, Duration::ZERO));
    assert_eq!((drills.is_cut(&canary(ID)), drills.fault(ID)), (false, Some(Fault::default())));
    assert!(!drills.set_fault("ba9876543210", true, true, Duration::from_secs(1)), "there is no such canary");
}
