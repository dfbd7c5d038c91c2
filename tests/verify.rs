//! `verify` over everything: two replicators with their stores and real TLS, and a feed that loses changes.
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use isthmus::cli::certs;
use isthmus::journal::Journal;
use isthmus::journal::memory::MemoryJournal;
use isthmus::peer::server::{Counters, Known, Server};
use isthmus::replicator::Replicator;
use isthmus::replicator::own::Shared;
use isthmus::replicator::tenure::{Tenure, Terms};
use isthmus::replicator::verify::{LinkVerify, VerifyReport};
use isthmus::rule::refs::Refs;
use isthmus::rule::watch_folder::{self, Snapshot};
use isthmus::store::bundled::BundledStore;
use isthmus::store::{Applied, Backlog, Batch, Body, BucketInfo, Cursor, Error, Store, Stretch};
use isthmus::telemetry::metrics::Metrics;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::SystemClock;
use storage_engine::drive::Drive;
use storage_engine::drive::memory::MemoryDrive;
use storage_engine::identity::{Files, Identity};
use storage_engine::object::{Conditions, Objects, Put, Versioning};
use storage_engine::version::{Origin, Version, VersionId};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const BUCKET: &str = "logs";
const TRUST: &str = "test.example";

/// A store whose feed loses changes of keys with `lost`, of tags and of purges: what a comparison is for.
struct Forgetful(BundledStore);

#[async_trait]
impl Store for Forgetful {
    async fn changes(&self, bucket: &str, cursor: Option<&Cursor>, limit: usize) -> Result<Batch, Error> {
        let mut batch = self.0.changes(bucket, cursor, limit).await?;
        let is_lost = |v: &Version| v.key.starts_with("lost") || v.tags.is_some() || v.purge.is_some();
        batch.events.retain(|event| !is_lost(&event.version));
        Ok(batch)
    }
    async fn head(&self, bucket: &str) -> Result<Cursor, Error> {
        self.0.head(bucket).await
    }
    async fn bucket(&self, name: &str) -> Result<BucketInfo, Error> {
        self.0.bucket(name).await
    }
    async fn stat(&self, bucket: &str, key: &str, id: VersionId) -> Result<Option<Version>, Error> {
        self.0.stat(bucket, key, id).await
    }
    async fn read_version(&self, bucket: &str, key: &str, id: VersionId) -> Result<Body, Error> {
        self.0.read_version(bucket, key, id).await
    }
    async fn apply_version(
        &self,
        bucket: &str,
        version: Version,
        body: Option<Body>,
        traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        self.0.apply_version(bucket, version, body, traceparent).await
    }
    async fn versions_of(&self, bucket: &str, key: &str) -> Result<Vec<Version>, Error> {
        self.0.versions_of(bucket, key).await
    }
    async fn list_versions(
        &self,
        bucket: &str,
        after: Option<(String, VersionId)>,
        limit: usize,
    ) -> Result<Vec<Version>, Error> {
        self.0.list_versions(bucket, after, limit).await
    }
    async fn stretch(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Stretch, Error> {
        self.0.stretch(bucket, prefix, after, limit).await
    }
    async fn register(&self, bucket: &str, consumer: &str, keeps: bool) -> Result<Option<Cursor>, Error> {
        self.0.register(bucket, consumer, keeps).await
    }
    async fn commit(&self, bucket: &str, consumer: &str, cursor: &Cursor, floor: &Cursor) -> Result<(), Error> {
        self.0.commit(bucket, consumer, cursor, floor).await
    }
    async fn deregister(&self, bucket: &str, consumer: &str) -> Result<(), Error> {
        self.0.deregister(bucket, consumer).await
    }
    async fn backlog(&self, bucket: &str, cursor: Option<&Cursor>, prefix: &str) -> Result<Backlog, Error> {
        self.0.backlog(bucket, cursor, prefix).await
    }
}

fn objects(origin: &str) -> Objects {
    let drives = (0..4).map(|slot| Arc::new(MemoryDrive::new(slot)) as Arc<dyn Drive>).collect();
    Objects::new(drives, 2, Arc::new(SystemClock), Origin::new(origin))
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: replication.isthmus.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}\n")
}

/// The documents of a site: itself, its peer at `port`, and a rule where it sends.
fn rules(dir: &Path, own: &str, peer: &str, port: u16, sends: bool) -> watch::Sender<Snapshot> {
    std::fs::create_dir_all(dir).unwrap();
    let site = format!(
        "  siteID: {own}\n  trustDomain: {TRUST}\n  store: {{apiEndpoint: \"https://127.0.0.1:1\", apiTlsSecretRef: {{name: {own}}}}}\n  \
         listener: {{advertisedEndpoint: \"https://127.0.0.1:1\", tlsSecretRef: {{name: {own}}}}}"
    );
    std::fs::write(dir.join("site.yaml"), document("Site", own, &site)).unwrap();
    let peer_spec = format!(
        "  type: Replicator\n  replicator:\n    siteID: {peer}\n    endpoint: \"https://127.0.0.1:{port}\"\n    tls:\n      \
         caRef: {{kind: Secret, name: {own}}}\n      identities: [\"{}\"]\n    inbound:\n      - {{bucket: {BUCKET}, versionDeletes: Enabled}}\n",
        certs::spiffe_id(TRUST, peer)
    );
    std::fs::write(dir.join("peer.yaml"), document("Peer", peer, &peer_spec)).unwrap();
    if sends {
        let rule = format!(
            "  siteRef: {{name: {own}}}\n  bucket: {BUCKET}\n  destinations: [{{peer: {peer}}}]\n  replicate: {{versionDeletes: Enabled}}"
        );
        std::fs::write(dir.join("rule.yaml"), document("ReplicationRule", "to-ams", &rule)).unwrap();
    }
    let snapshot = watch_folder::read(dir, None).snapshot;
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    watch::Sender::new(snapshot)
}

async fn replicator(
    site: &str,
    store: Arc<dyn Store>,
    refs: &Path,
    rules: watch::Receiver<Snapshot>,
) -> Arc<Replicator> {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::default());
    let tenure = Arc::new(Tenure::new(journal.clone(), site.into(), Terms::default()));
    let (clock, metrics) = (Arc::new(SystemClock), Arc::new(Metrics::default()));
    let shared = Shared { store, journal, clock, metrics, tenure };
    let own = rules.borrow().rules.sites[site].clone();
    let identity = Identity::load(Files::in_folder(&refs.join("secrets").join(site))).await.unwrap();
    Arc::new(Replicator::new(&own, shared, Refs::new(refs), Arc::new(identity), rules))
}

/// `fra` sends to `ams`.
struct World {
    _dir: tempfile::TempDir,
    fra: Objects,
    ams: Objects,
    replicator: Arc<Replicator>,
    _rules: [watch::Sender<Snapshot>; 2],
}

impl World {
    async fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().join("secrets");
        let hosts: &[&str] = &["127.0.0.1"];
        certs::make(&secrets, TRUST, &[("fra", hosts), ("ams", hosts)]).unwrap();
        let (fra, ams) = (objects("fra"), objects("ams"));
        for store in [&fra, &ams] {
            store.create_bucket(BUCKET, Versioning::Enabled).await.unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let at_fra = rules(&dir.path().join("fra"), "fra", "ams", port, true);
        let at_ams = rules(&dir.path().join("ams"), "ams", "fra", 1, false);
        let store = Arc::new(BundledStore(ams.clone()));
        let receiving = replicator("ams", store, dir.path(), at_ams.subscribe()).await;
        let own = Files::in_folder(&secrets.join("ams"));
        let authority = own.authorities[0].clone();
        let server = Server {
            site: "ams".into(),
            identity: Arc::new(Identity::load(own).await.unwrap()),
            resolver: Arc::new(move |uri| {
                let is_fra = uri == certs::spiffe_id(TRUST, "fra");
                is_fra.then(|| Known { site: "fra".into(), peer: "fra".into(), authority: authority.clone() })
            }),
            receiver: receiving.receiver(),
            clock: Arc::new(SystemClock),
            settings: isthmus::peer::server::Settings::default(),
            counters: Arc::new(Counters::default()),
        };
        tokio::spawn(Arc::new(server).run(listener, TaskTracker::new(), CancellationToken::new()));
        let store = Arc::new(Forgetful(BundledStore(fra.clone())));
        let sending = replicator("fra", store, dir.path(), at_fra.subscribe()).await;
        let running = sending.clone();
        tokio::spawn(async move { running.run(CancellationToken::new()).await });
        World { _dir: dir, fra, ams, replicator: sending, _rules: [at_fra, at_ams] }
    }

    async fn put(&self, key: &str) -> Version {
        let body: Body = futures::stream::iter([Ok(Bytes::from(format!("bytes of {key}")))]).boxed();
        self.fra.put(BUCKET, key, Put::default(), body).await.unwrap().version
    }

    /// Waits until `ams` holds the version as `fra` does.
    async fn arrives(&self, version: &Version) {
        let arrived = async {
            while self.ams.stat(BUCKET, &version.key, version.id).await.unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("the version arrives");
    }

    async fn verify(&self, repair: bool) -> LinkVerify {
        let begun = self.replicator.verify("to-ams", repair).expect("the rule is in force");
        assert!(begun.is_running());
        let ended = async {
            loop {
                let report: VerifyReport = self.replicator.verified("to-ams").expect("it was begun");
                if !report.is_running() {
                    return report.links.into_iter().next().expect("one peer");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends")
    }

    /// Compares until nothing that differs is under way any more.
    async fn verify_settled(&self) -> LinkVerify {
        let settled = async {
            loop {
                let found = self.verify(false).await;
                if found.pending == 0 {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(120), settled).await.expect("the link catches up")
    }

    async fn same_state(&self, version: &Version) -> bool {
        let here = self.fra.stat(BUCKET, &version.key, version.id).await.unwrap().unwrap();
        let there = self.ams.stat(BUCKET, &version.key, version.id).await.unwrap();
        there.is_some_and(|there| there.tags == here.tags && there.purge == here.purge)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_feed_lost_is_found_and_repaired() {
    let world = World::new().await;
    let mut kept = Vec::new();
    for n in 0..40 {
        kept.push(world.put(&format!("kept/{n:02}")).await);
    }
    for version in &kept {
        world.arrives(version).await;
    }
    let equal = world.verify_settled().await;
    assert_eq!((equal.verdict.as_str(), equal.versions, equal.questions), ("equal", 40, 1), "{equal:?}");

    let lost = [world.put("lost/1").await, world.put("lost/2").await, world.put("lost/3").await];
    let tags = BTreeMap::from([("class".to_string(), "gold".to_string())]);
    world.fra.set_tags(BUCKET, "kept/07", None, tags).await.unwrap();
    world.fra.delete(BUCKET, "kept/23", Some(kept[23].id), Conditions::default()).await.unwrap();
    let found = world.verify_settled().await;
    let counts = (found.verdict.as_str(), found.missing_there, found.unlike, found.missing_here, found.pending);
    assert_eq!(counts, ("different", 3, 2, 0, 0), "{found:?}");
    let mut named: Vec<_> = found.samples.iter().map(|s| s.key.as_str()).collect();
    named.sort_unstable();
    assert_eq!(named, ["kept/07", "kept/23", "lost/1", "lost/2", "lost/3"]);

    let repaired = world.verify(true).await;
    assert_eq!(
        (repaired.verdict.as_str(), repaired.repaired, repaired.differences()),
        ("repaired", 5, 0),
        "{repaired:?}"
    );
    for version in lost.iter().chain([&kept[7], &kept[23]]) {
        assert!(world.same_state(version).await, "{}", version.key);
    }
    let equal = world.verify_settled().await;
    assert_eq!((equal.verdict.as_str(), equal.questions), ("equal", 1), "{equal:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_is_no_difference_and_what_the_peer_added_neither() {
    let world = World::new().await;
    let version = world.put("shared").await;
    world.arrives(&version).await;
    let body: Body = futures::stream::iter([Ok(Bytes::from_static(b"born there"))]).boxed();
    world.ams.put(BUCKET, "elsewhere", Put::default(), body).await.unwrap();
    world.ams.delete(BUCKET, "shared", Some(version.id), Conditions::default()).await.unwrap();
    let found = world.verify(true).await;
    assert_eq!((found.verdict.as_str(), found.repaired), ("equal", 0), "{found:?}");
    // Written and not waited for: the second look finds it there.
    for n in 0..50 {
        world.put(&format!("fresh/{n}")).await;
    }
    let found = world.verify_settled().await;
    assert_eq!((found.verdict.as_str(), found.differences()), ("equal", 0), "{found:?}");
}

#[tokio::test]
async fn a_rule_that_is_not_in_force_is_not_compared() {
    assert_eq!(World::new().await.replicator.verify("no-such-rule", false), None);
}
