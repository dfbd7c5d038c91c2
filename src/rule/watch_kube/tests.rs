use super::cluster::{Error, rights};
use super::mock::{Mock, specs};
use super::*;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(20);

fn object(kind: &'static str, name: &str, generation: u64, spec: Json) -> (ObjectId, Arc<Object>) {
    let uid = format!("uid-{name}");
    let object = Object { kind, name: name.into(), uid, generation, spec, ..Object::default() };
    ((kind, name.to_string()), Arc::new(object))
}
fn base() -> Objects {
    [object("Site", "fra", 1, specs::site()), object("Peer", "ams", 1, specs::peer("ams"))].into_iter().collect()
}
fn rules(snapshot: &Snapshot) -> Vec<(String, String)> {
    snapshot.rules.rules.values().map(|r| (r.name.clone(), r.bucket.clone())).collect()
}
fn pair(name: &str, bucket: &str) -> (String, String) {
    (name.into(), bucket.into())
}

#[test]
fn a_bad_object_keeps_its_last_form_and_harms_no_other() {
    let mut judged = Judged::default();
    let mut objects = base();
    objects.extend([object("ReplicationRule", "a", 1, specs::rule("logs", "ams"))]);
    objects.extend([object("ReplicationRule", "b", 1, specs::rule("data", "ams"))]);
    let first = judged.snapshot(&objects, "default");
    assert_eq!((rules(&first), first.problems.len()), (vec![pair("a", "logs"), pair("b", "data")], 0));
    assert_eq!(first.rules.rules["a"].uid, "uid-a", "the API server's uid names the rule");

    // Something a definition older than this binary would let through.
    let mut bad = specs::rule("logs", "ams");
    bad["recoveryPointObjective"] = json!("25h");
    objects.extend([object("ReplicationRule", "a", 2, bad)]);
    objects.extend([object("ReplicationRule", "b", 2, specs::rule("data", "gone"))]);
    objects.extend([object("ReplicationRule", "c", 1, specs::rule("more", "ams"))]);
    let second = judged.snapshot(&objects, "default");
    assert_eq!(rules(&second), [pair("a", "logs"), pair("b", "data"), pair("c", "more")]);
    let said: Vec<_> = second.problems.iter().map(|p| (p.document.as_str(), p.reason)).collect();
    assert!(said.contains(&("ReplicationRule/default/a", "InvalidSpec")), "{said:?}");
    assert!(said.contains(&("ReplicationRule/default/b", "PeerNotFound")), "{said:?}");
    assert_eq!(second.accepted["ReplicationRule/default/a"].generation, 1);

    // After a restart too: the journal kept the last form. One that names a Peer that is gone held by itself, and waits.
    let kept = second.accepted.values().map(|a| (a.generation, a.spec.clone()));
    let third = Judged::restore(kept).snapshot(&objects, "default");
    assert_eq!(rules(&third), [pair("a", "logs"), pair("c", "more")]);
}

#[test]
fn an_object_that_is_being_deleted_is_gone_and_one_made_again_is_another() {
    let mut judged = Judged::default();
    let mut objects = base();
    objects.extend([object("ReplicationRule", "a", 1, specs::rule("logs", "ams"))]);
    judged.snapshot(&objects, "default");
    let (id, going) = object("ReplicationRule", "a", 2, specs::rule("logs", "ams"));
    objects.insert(id.clone(), Arc::new(Object { is_deleting: true, ..(*going).clone() }));
    assert_eq!(rules(&judged.snapshot(&objects, "default")), []);

    // Its bucket is immutable, but this is another object.
    let again = Object { uid: "another".into(), spec: specs::rule("other", "ams"), generation: 1, ..(*going).clone() };
    objects.insert(id, Arc::new(again));
    assert_eq!(rules(&judged.snapshot(&objects, "default")), [pair("a", "other")]);
}

/// A watch of a mock, and what it tells.
struct Watched {
    mock: Mock,
    cluster: Cluster,
    objects: watch::Receiver<Option<Arc<Objects>>>,
    rules: watch::Receiver<Snapshot>,
    stop: CancellationToken,
}

impl Watched {
    fn begin(mock: Mock) -> Watched {
        let (objects, seen) = watch::channel(None);
        let (tell, rules) = watch::channel(Snapshot::default());
        let (cluster, stop) = (mock.cluster(), CancellationToken::new());
        let refs = Refs::new(std::path::Path::new("/nowhere"));
        let tell = Tell { objects, rules: tell };
        tokio::spawn(watch(cluster.clone(), Judged::default(), refs, None, tell, stop.clone()));
        Watched { mock, cluster, objects: seen, rules, stop }
    }

    async fn until(&mut self, holds: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let shown = tokio::time::timeout(PATIENCE, self.rules.wait_for(|s| holds(s))).await;
        shown.expect("in time").expect("it watches").clone()
    }

    async fn until_up(&self, up: bool) {
        let by = tokio::time::Instant::now() + PATIENCE;
        while self.cluster.is_up() != up {
            assert!(tokio::time::Instant::now() < by, "is_up stays {}", !up);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn mock() -> Mock {
    let mock = Mock::default();
    mock.put("Site", "fra", specs::site());
    mock.put("Peer", "ams", specs::peer("ams"));
    mock.put("ReplicationRule", "a", specs::rule("logs", "ams"));
    mock
}

#[tokio::test]
async fn the_set_is_told_whole_and_follows_what_people_apply() {
    let mut watched = Watched::begin(mock());
    watched.until(|s| rules(s) == [pair("a", "logs")]).await;
    watched.mock.put("ReplicationRule", "b", specs::rule("data", "ams"));
    watched.until(|s| rules(s) == [pair("a", "logs"), pair("b", "data")]).await;
    watched.mock.delete("ReplicationRule", "a");
    watched.until(|s| rules(s) == [pair("b", "data")]).await;
    watched.stop.cancel();
}

#[tokio::test]
async fn nothing_is_told_before_every_kind_was_listed() {
    let mock = mock();
    mock.fail("FailoverDrill", Some(500));
    let mut watched = Watched::begin(mock);
    watched.until_up(false).await;
    // The other kinds were listed meanwhile: their watches go on, and one more object comes by.
    watched.mock.put("ReplicationRule", "b", specs::rule("data", "ams"));
    tokio::time::timeout(Duration::from_millis(600), watched.objects.changed()).await.expect_err("it told too early");
    assert_eq!(*watched.rules.borrow(), Snapshot::default());
    watched.mock.fail("FailoverDrill", None);
    watched.until(|s| s.rules.rules.len() == 2).await;
}

#[tokio::test]
async fn a_server_that_is_away_or_lists_nothing_after_an_error_stops_no_rule() {
    let mut watched = Watched::begin(mock());
    watched.until(|s| s.rules.rules.len() == 1).await;
    watched.until_up(true).await;
    for code in [500, 410, 403] {
        for kind in cluster::KINDS {
            watched.mock.fail(kind, Some(code));
        }
        watched.until_up(false).await;
        assert_eq!(watched.rules.borrow().rules.rules.len(), 1, "after {code}");
        for kind in cluster::KINDS {
            watched.mock.fail(kind, None);
        }
        watched.until_up(true).await;
        assert_eq!(watched.rules.borrow().rules.rules.len(), 1, "after {code}");
    }
    watched.mock.put("ReplicationRule", "b", specs::rule("data", "ams"));
    watched.until(|s| s.rules.rules.len() == 2).await;
}

#[tokio::test]
async fn a_server_without_definitions_or_rights_is_told_apart_from_one_that_is_away() {
    let mock = mock();
    let cluster = mock.cluster();
    let rights = rights("isthmus-controller");
    cluster.check(&rights).await.expect("all is there");

    mock.fail("Peer", Some(404));
    mock.deny("patch", "replicationrules/status");
    mock.deny("update", "leases");
    let Err(Error::Lacking(lacking)) = cluster.check(&rights).await else { panic!("it lacks three things") };
    assert_eq!(lacking.len(), 3, "{lacking:#?}");
    assert!(lacking[0].contains("kind Peer") && lacking[0].contains("kubectl apply"), "{lacking:#?}");
    assert!(lacking[1].contains("patch replicationrules.replication.isthmus.dev/status"), "{lacking:#?}");
    assert!(lacking[2].contains("update leases.coordination.k8s.io named isthmus-controller"), "{lacking:#?}");

    mock.fail("Peer", Some(503));
    assert!(matches!(cluster.check(&rights).await, Err(Error::Away(_))));
}
