//! What a canary is laid over, and when its fault ends.
use super::*;
use crate::drill::{Direction, place};
use crate::rule::SiteDoc;

const ID: &str = "0123456789ab";

fn peer(name: &str) -> PeerDoc {
    PeerDoc { drills: true, ..PeerDoc::bare(name) }
}

fn drills(is_made_here: bool, lasts: Duration, live: Option<Live>) -> Arc<Drills> {
    let drills = Drills::default();
    let part = Part {
        peer: "ams".into(),
        is_driven_here: true,
        is_made_here,
        until: Instant::now() + lasts,
        fault: Fault::default(),
        is_door_fenced: false,
        is_ending: false,
        live,
        wait: Wait::default(),
    };
    drills.parts().insert(ID.into(), part);
    Arc::new(drills)
}

fn link(rule: &str, peer: &str) -> LinkName {
    LinkName { rule: rule.into(), peer: peer.into() }
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
    let drills = drills(true, Duration::from_secs(60), None);
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
    drills.parts().get_mut(ID).unwrap().is_ending = true;
    assert_eq!(granted("ams", &bucket), [], "what is being removed takes nothing");
    let mut laid = set();
    drills.lay_over(&mut laid, "fra");
    assert_eq!(laid, set());
}

#[test]
fn a_canary_of_another_process_runs_no_link_here() {
    let mut laid = set();
    drills(false, Duration::from_secs(60), None).lay_over(&mut laid, "fra");
    assert_eq!(laid, set());
}

#[tokio::test]
async fn a_cut_breaks_the_canarys_way_alone_and_ends_with_its_canary_at_the_latest() {
    let drills = drills(true, Duration::from_secs(1), None);
    assert!(drills.set_fault(ID, Cut::BOTH, Fence::None, Duration::from_secs(3600)));
    let fault = drills.fault(ID).unwrap();
    assert!(fault.until.is_some_and(|until| until <= Instant::now() + Duration::from_secs(1)), "{fault:?}");
    let is_refused = |bucket: &str| drills.is_refused("ams", "r/b", bucket);
    assert!(is_refused(&canary(ID)) && !is_refused("orders"));
    assert!(drills.is_cut_off(&link(&canary(ID), "ams")) && !drills.is_cut_off(&link("orders", "ams")));
    for (direction, refuses) in [(Direction::Outbound, false), (Direction::Inbound, true)] {
        assert!(drills.set_fault(ID, direction.cut(), Fence::None, Duration::from_secs(1)));
        assert_eq!(is_refused(&canary(ID)), refuses, "{direction:?}");
        assert_eq!(drills.is_cut_off(&link(&canary(ID), "ams")), !refuses, "{direction:?}");
    }
    assert!(drills.set_fault(ID, Cut::NONE, Fence::None, Duration::ZERO));
    assert_eq!((is_refused(&canary(ID)), drills.fault(ID)), (false, Some(Fault::default())));
    assert!(!drills.set_fault("ba9876543210", Cut::BOTH, Fence::All, Duration::from_secs(1)), "there is no such drill");
}

#[tokio::test]
async fn a_live_cut_names_its_links_and_no_other_and_changes_no_document() {
    let acted = Acted { name: link("uid-orders", "ams"), rule: "orders".into() };
    let places = vec![Place { bucket: "orders".into(), prefix: place("", ID) }];
    let live = Live { links: vec![acted.clone()], incoming: vec!["uid-there/b".into()], places: places.clone() };
    let drills = drills(true, Duration::from_secs(60), Some(live));
    let mut laid = set();
    drills.lay_over(&mut laid, "fra");
    assert_eq!((laid, drills.granting(peer("ams"), "orders").inbound), (set(), vec![]));
    assert_eq!((drills.acted(ID), drills.places(ID)), (vec![acted], places));
    assert!(drills.set_fault(ID, Cut::BOTH, Fence::None, Duration::from_secs(30)));
    assert!(drills.is_refused("ams", "uid-there/b", "orders"));
    for (peer, name) in [("waw", "uid-there/b"), ("ams", "uid-other/b")] {
        assert!(!drills.is_refused(peer, name, "orders"), "{peer} {name}");
    }
    let named = link("uid-orders", "ams");
    assert!(drills.is_cut_off(&named) && drills.cut_by(&named).as_deref() == Some(ID));
    let said = drills.said(&named, LinkReport::default()).last_error;
    assert!(said.is_some_and(|why| why.contains(ID)));
    for other in [link("uid-orders", "waw"), link("uid-logs", "ams"), link(&canary(ID), "ams")] {
        assert!(!drills.is_cut_off(&other) && drills.cut_by(&other).is_none(), "{other:?}");
    }
    let inbound = Direction::Inbound.cut();
    assert!(drills.set_fault(ID, inbound, Fence::None, Duration::from_secs(30)));
    assert!(!drills.is_cut_off(&named) && drills.cut_by(&named).is_some());
}
