use super::super::validate::uid;
use super::super::{Brake, PeerDoc, Replicate};
use super::*;
use crate::link::includes;
use crate::store::memory::MemoryStore;
use proptest::prelude::*;
use storage_engine::version::{Kind, Origin, Version, VersionId};

pub(crate) fn site() -> SiteDoc {
    SiteDoc {
        name: "fra".into(),
        site_id: "fra".into(),
        api_endpoint: "store:1".into(),
        api_server_name: "store".into(),
        api_secret: "tls".into(),
        trust_domain: "t".into(),
        advertised_endpoint: "fra:1".into(),
        tls_secret: "tls".into(),
        suspend: false,
        bandwidth: None,
        transfers_max: None,
    }
}
fn peer(name: &str) -> PeerDoc {
    PeerDoc::bare(name)
}
fn rule(name: &str, peers: &[&str]) -> Rule {
    let to = |p: &&str| Destination { peer: p.to_string(), bucket: "b".into(), bandwidth: None, suspend: false };
    Rule {
        uid: uid("fra", "ReplicationRule", "default", name),
        name: name.into(),
        site: "fra".into(),
        bucket: "b".into(),
        active_active: false,
        priority: 0,
        filter: Filter::default(),
        destinations: peers.iter().map(to).collect(),
        replicate: Replicate {
            delete_markers: true,
            version_deletes: false,
            tags: true,
            object_lock: true,
            existing_objects: true,
            bucket_documents: false,
        },
        forward_all: false,
        read_from_peers: false,
        is_bulk: false,
        commit_order: false,
        brake: Brake { percent: 10, window_millis: 600_000, versions_min: 1000 },
        brake_release: 0,
        bandwidth: None,
        rpo_millis: None,
        suspend: false,
        generation: 1,
    }
}
fn set(rules: Vec<Rule>) -> RuleSet {
    RuleSet {
        sites: [("fra".to_string(), site())].into(),
        foreign: BTreeMap::new(),
        peers: ["ams", "nyc"].map(|p| (p.to_string(), peer(p))).into(),
        rules: rules.into_iter().map(|r| (r.name.clone(), r)).collect(),
    }
}
/// The changes as short words: `start logs>ams`.
fn words(old: &RuleSet, new: &RuleSet) -> Vec<String> {
    let names: BTreeMap<String, String> =
        old.rules.values().chain(new.rules.values()).map(|r| (r.uid.clone(), r.name.clone())).collect();
    let link = |l: &LinkName| format!("{}>{}", names[&l.rule], l.peer);
    let word = |c: &Change| match c {
        Change::Start(l) => format!("start {}", link(l)),
        Change::Alter(l) => format!("alter {}", link(l)),
        Change::Stop(l) => format!("stop {}", link(l)),
    };
    plan(old, new, "fra").iter().map(word).collect()
}

#[test]
fn a_plan_starts_alters_and_stops() {
    let base = set(vec![rule("logs", &["ams"])]);
    let with = |change: &dyn Fn(&mut Rule)| {
        let mut r = rule("logs", &["ams"]);
        change(&mut r);
        set(vec![r])
    };
    let none = set(vec![]);
    assert_eq!(words(&none, &base), ["start logs>ams"]);
    assert_eq!(words(&base, &base), Vec::<String>::new());
    assert_eq!(words(&base, &none), ["stop logs>ams"]);
    assert_eq!(words(&base, &with(&|r| r.suspend = true)), ["alter logs>ams"]);
    assert_eq!(words(&base, &with(&|r| r.filter.prefix = "a/".into())), ["alter logs>ams"]);
    let elsewhere = with(&|r| r.destinations[0].bucket = "c".into());
    assert_eq!(words(&base, &elsewhere), ["stop logs>ams", "start logs>ams"]);
}

#[test]
fn a_rule_of_higher_priority_alters_the_links_it_takes_from() {
    let prefixed = |name: &str, priority: u32, prefix: &str| {
        let mut r = rule(name, &["ams"]);
        (r.priority, r.filter.prefix) = (priority, prefix.into());
        r
    };
    let all = prefixed("all", 1, "");
    let old = set(vec![all.clone()]);
    let new = set(vec![all.clone(), prefixed("logs", 2, "logs/")]);
    let mut said = words(&old, &new);
    said.sort();
    assert_eq!(said, ["alter all>ams", "start logs>ams"]);
    let lower = set(vec![all.clone(), prefixed("logs", 0, "logs/")]);
    assert_eq!(words(&old, &lower), ["start logs>ams"]);
    let other_peer = Rule { destinations: rule("x", &["nyc"]).destinations, ..prefixed("logs", 2, "logs/") };
    assert_eq!(words(&old, &set(vec![all, other_peer])), ["start logs>nyc"]);
}

#[test]
fn a_peer_that_changes_alters_its_links_only() {
    let old = set(vec![rule("logs", &["ams", "nyc"])]);
    let mut new = old.clone();
    new.peers.get_mut("nyc").unwrap().endpoint = "elsewhere:1".into();
    assert_eq!(words(&old, &new), ["alter logs>nyc"]);
    new.peers.get_mut("nyc").unwrap().site_id = "other".into();
    assert_eq!(words(&old, &new), ["stop logs>nyc", "start logs>nyc"]);
}

#[test]
fn a_link_has_its_own_limit_and_any_suspension_holds() {
    let mut r = rule("logs", &["ams", "nyc"]);
    r.bandwidth = Some(100);
    r.destinations[0].bandwidth = Some(7);
    let settings = |s: &SiteDoc, p: &PeerDoc| link_settings(&r, &r.destinations[0], s, &FarDoc::Site(p.clone()));
    let shared = PeerDoc { bandwidth: Some(3), ..peer("ams") };
    assert_eq!(settings(&site(), &shared).bandwidth, Some(7), "what links share is kept elsewhere");
    assert!(!settings(&site(), &peer("ams")).suspend);
    assert!(settings(&SiteDoc { suspend: true, ..site() }, &peer("ams")).suspend);
    assert_eq!(settings(&SiteDoc { transfers_max: Some(3), ..site() }, &peer("ams")).window_versions, 3);
}

/// What a replicator would hold after carrying the plan out.
fn carry_out(held: &BTreeMap<LinkName, LinkView>, changes: &[Change], new: &RuleSet) -> BTreeMap<LinkName, LinkView> {
    let wanted = links(new, "fra");
    let mut held = held.clone();
    for change in changes {
        match change {
            Change::Stop(name) => assert!(held.remove(name).is_some(), "stops what runs"),
            Change::Start(name) => {
                assert!(held.insert(name.clone(), wanted[name].clone()).is_none(), "starts what does not run")
            }
            Change::Alter(name) => {
                assert!(held.insert(name.clone(), wanted[name].clone()).is_some(), "alters what runs")
            }
        }
    }
    held
}

fn any_set() -> impl Strategy<Value = RuleSet> {
    let any_rule =
        (0..3usize, 0..4usize, 0..2usize, any::<bool>(), 0..2usize).prop_map(|(name, peers, prefix, on, bucket)| {
            let mut r = rule(["a", "b", "c"][name], [&[][..], &["ams"], &["nyc"], &["ams", "nyc"]][peers]);
            r.filter.prefix = ["", "x/"][prefix].into();
            r.replicate.version_deletes = on;
            r.destinations.iter_mut().for_each(|d| d.bucket = ["b", "c"][bucket].into());
            r
        });
    (prop::collection::vec(any_rule, 0..4), 0..3usize, any::<bool>()).prop_map(|(rules, site_id, has_nyc)| {
        let mut s = set(rules);
        s.peers.get_mut("ams").unwrap().site_id = ["ams", "ams2", "ams3"][site_id].into();
        if !has_nyc {
            s.peers.remove("nyc");
        }
        s
    })
}

/// A born object of this site with some of the tags.
fn object(key: &str, tags: &BTreeMap<String, String>) -> Version {
    let id = VersionId::from_bytes([1; 16]);
    let mut store = MemoryStore::new(Origin::new("fra"));
    store.put(1, key, id, Kind::Object, 1);
    store.tag(1, key, id, tags.clone());
    store.get(key, id).expect("it was just put").clone()
}

fn any_tags() -> impl Strategy<Value = BTreeMap<String, String>> {
    let tag = |name: usize, value: usize| (["k", "l"][name].to_string(), ["1", "2"][value].to_string());
    prop::collection::vec((0..2usize, 0..2usize), 0..3)
        .prop_map(move |t| t.into_iter().map(|(n, v)| tag(n, v)).collect())
}

proptest! {
    /// Of the rules that match an object for a peer the highest sends it, and no other.
    #[test]
    fn the_highest_priority_alone_sends_an_object(
        filters in prop::collection::vec((0..4usize, any_tags(), any::<bool>()), 1..6), key in 0..4usize, tags in any_tags(),
    ) {
        let prefixes = ["", "a/", "a/b/", "c/"];
        let rules: Vec<Rule> = filters.iter().enumerate().map(|(n, (prefix, tags, to_both))| {
            let mut r = rule(&format!("r{n}"), if *to_both { &["ams", "nyc"] } else { &["ams"] });
            // Every one another priority, in an order that is not that of their names.
            r.priority = (n as u32 * 7 + 3) % 11;
            r.filter = Filter { prefix: prefixes[*prefix].into(), tags: tags.clone() };
            r.replicate.delete_markers = tags.is_empty();
            r
        }).collect();
        let version = object(&format!("{}x", prefixes[key]), &tags);
        let links = links(&set(rules.clone()), "fra");
        for peer in ["ams", "nyc"] {
            let to_peer = rules.iter().filter(|r| r.destinations.iter().any(|d| d.peer == peer));
            let highest = to_peer.filter(|r| r.filter.covers(&version)).max_by_key(|r| r.priority);
            let sends = links.iter().filter(|(name, view)| name.peer == peer && includes(&view.settings(), &version));
            let senders: Vec<_> = sends.map(|(name, _)| name.rule.clone()).collect();
            prop_assert_eq!(senders, highest.map(|r| r.uid.clone()).into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_plan_carried_out_gives_the_new_links(old in any_set(), new in any_set()) {
        let changes = plan(&old, &new, "fra");
        prop_assert_eq!(carry_out(&links(&old, "fra"), &changes, &new), links(&new, "fra"));
        prop_assert_eq!(plan(&new, &new, "fra"), vec![]);
    }
}
