//! What a rule promises while it comes, changes and goes: one site's replicator over its documents and its journal,
//! pushing to another site over real TLS.
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use isthmus::cli::certs;
use isthmus::journal::Journal;
use isthmus::journal::memory::MemoryJournal;
use isthmus::peer::server::{Counters, Known, Server};
use isthmus::peer::{Ack, Incoming, Receiver};
use isthmus::replicator::own::Shared;
use isthmus::replicator::proof::Pace;
use isthmus::replicator::receive::Receive;
use isthmus::replicator::tenure::{Tenure, Terms};
use isthmus::replicator::{Replicator, accepted};
use isthmus::rule::refs::Refs;
use isthmus::rule::watch_folder::{self, Loaded, Snapshot};
use isthmus::store::bundled::BundledStore;
use isthmus::telemetry::metrics::Metrics;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use storage_engine::clock::SystemClock;
use storage_engine::drive::Drive;
use storage_engine::drive::memory::MemoryDrive;
use storage_engine::identity::{Files, Identity};
use storage_engine::object::{Body, List, Objects, Put, Versioning};
use storage_engine::version::Origin;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const TRUST: &str = "test.example";
/// The bucket of `fra`; `ams` has it too, and another.
const LOGS: &str = "logs";
const COPIES: &str = "copies";

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn wait_until(what: &str, mut fact: impl AsyncFnMut() -> bool) {
    let all = async {
        while !fact().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "in vain: {what}");
}

/// The receiving end, which answers only while its gate is open.
struct Gate {
    inner: Arc<Receive>,
    heard: AtomicUsize,
    open: watch::Sender<bool>,
}

#[async_trait]
impl Receiver for Gate {
    async fn receive(&self, incoming: Incoming) -> Ack {
        let ack = self.inner.receive(incoming).await;
        self.heard.fetch_add(1, Ordering::SeqCst);
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        ack
    }
    async fn highest_epoch(&self, site: &str, link: &str) -> u64 {
        self.inner.highest_epoch(site, link).await
    }
}

/// Site `fra` with documents, store and journal; site `ams`, which listens.
struct World {
    dir: tempfile::TempDir,
    fra: Objects,
    ams: Objects,
    gate: Arc<Gate>,
    journal: MemoryJournal,
    _ams_rules: watch::Sender<Snapshot>,
}

/// One life of the replicator of `fra`.
struct Life {
    replicator: Arc<Replicator>,
    loaded: Loaded,
    tell: watch::Sender<Snapshot>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn objects(origin: &str) -> Objects {
    let drives = (0..4).map(|slot| Arc::new(MemoryDrive::new(slot)) as Arc<dyn Drive>).collect();
    Objects::new(drives, 2, Arc::new(SystemClock), Origin::new(origin))
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: replication.isthmus.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}\n")
}

/// The documents of a site but for its rules: itself, and its peer at `port`.
fn write_documents(dir: &Path, own: &str, peer: &str, port: u16) {
    std::fs::create_dir_all(dir).unwrap();
    let site = format!(
        "  siteID: {own}\n  trustDomain: {TRUST}\n  store: {{apiEndpoint: \"https://127.0.0.1:1\", apiTlsSecretRef: {{name: {own}}}}}\n  \
         listener: {{advertisedEndpoint: \"https://127.0.0.1:1\", tlsSecretRef: {{name: {own}}}}}"
    );
    std::fs::write(dir.join("site.yaml"), document("Site", own, &site)).unwrap();
    let peer_spec = format!(
        "  type: Replicator\n  replicator:\n    siteID: {peer}\n    endpoint: \"https://127.0.0.1:{port}\"\n    tls:\n      \
         caRef: {{kind: Secret, name: {own}}}\n      identities: [\"{}\"]\n    inbound: [{{bucket: {LOGS}}}, {{bucket: {COPIES}}}]",
        certs::spiffe_id(TRUST, peer)
    );
    std::fs::write(dir.join("peer.yaml"), document("Peer", peer, &peer_spec)).unwrap();
}

async fn replicator(
    site: &str,
    store: &Objects,
    refs: &Path,
    rules: watch::Receiver<Snapshot>,
    journal: Arc<dyn Journal>,
) -> Arc<Replicator> {
    let shared = Shared {
        store: Arc::new(BundledStore(store.clone())),
        tenure: Arc::new(Tenure::new(journal.clone(), site.into(), Terms::default())),
        journal,
        clock: Arc::new(SystemClock),
        metrics: Arc::new(Metrics::default()),
        pace: Pace::default(),
    };
    let own = rules.borrow().rules.sites[site].clone();
    let identity = Identity::load(Files::in_folder(&refs.join("secrets").join(site))).await.unwrap();
    Arc::new(Replicator::new(&own, shared, Refs::new(refs), Arc::new(identity), rules))
}

impl World {
    async fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().join("secrets");
        let hosts: &[&str] = &["127.0.0.1"];
        certs::make(&secrets, TRUST, &[("fra", hosts), ("ams", hosts)]).unwrap();
        let (fra, ams) = (objects("fra"), objects("ams"));
        for (store, bucket) in [(&fra, LOGS), (&ams, LOGS), (&ams, COPIES)] {
            store.create_bucket(bucket, Versioning::Enabled).await.unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        write_documents(&dir.path().join("fra"), "fra", "ams", listener.local_addr().unwrap().port());
        write_documents(&dir.path().join("ams"), "ams", "fra", 1);
        let (tell, at_ams) = watch::channel(watch_folder::read(&dir.path().join("ams"), None).snapshot);
        let receiving = replicator("ams", &ams, dir.path(), at_ams, Arc::new(MemoryJournal::default())).await;
        let gate = Gate { inner: receiving.receiver(), heard: 0.into(), open: watch::channel(true).0 };
        let gate = Arc::new(gate);
        let own = Files::in_folder(&secrets.join("ams"));
        let authority = own.authorities[0].clone();
        let server = Server {
            site: "ams".into(),
            identity: Arc::new(Identity::load(own).await.unwrap()),
            resolver: Arc::new(move |uri| {
                let is_fra = uri == certs::spiffe_id(TRUST, "fra");
                is_fra.then(|| Known { site: "fra".into(), peer: "fra".into(), authority: authority.clone() })
            }),
            receiver: gate.clone(),
            clock: Arc::new(SystemClock),
            settings: isthmus::peer::server::Settings::default(),
            counters: Arc::new(Counters::default()),
        };
        tokio::spawn(Arc::new(server).run(listener, TaskTracker::new(), CancellationToken::new()));
        World { dir, fra, ams, gate, journal: MemoryJournal::default(), _ams_rules: tell }
    }

    /// Writes the rule's document; `spec` follows site and bucket.
    fn write_rule(&self, spec: &str) {
        let text = document("ReplicationRule", LOGS, &format!("  siteRef: {{name: fra}}\n  bucket: {LOGS}\n{spec}"));
        self.write_rule_file(&text);
    }
    fn write_rule_file(&self, text: &str) {
        std::fs::write(self.dir.path().join("fra/rule.yaml"), text).unwrap();
    }

    async fn start(&self) -> Life {
        let journal: Arc<dyn Journal> = Arc::new(self.journal.clone());
        let restored = Loaded::restore(accepted::restore(&*journal).await.unwrap());
        let loaded = watch_folder::read(&self.dir.path().join("fra"), Some(&restored));
        let (tell, rules) = watch::channel(loaded.snapshot.clone());
        let replicator = replicator("fra", &self.fra, self.dir.path(), rules, journal).await;
        let stop = CancellationToken::new();
        let (running, told) = (replicator.clone(), stop.clone());
        let task = tokio::spawn(async move { running.run(told).await });
        Life { replicator, loaded, tell, stop, task }
    }

    /// Reads the documents again, as the watcher does.
    fn read_again(&self, life: &mut Life) {
        life.loaded = watch_folder::read(&self.dir.path().join("fra"), Some(&life.loaded));
        assert_eq!(life.loaded.snapshot.problems, []);
        life.tell.send_replace(life.loaded.snapshot.clone());
    }

    async fn put(&self, key: &str) {
        let body: Body = futures::stream::iter([Ok(Bytes::from(format!("bytes of {key}")))]).boxed();
        self.fra.put(LOGS, key, Put::default(), body).await.unwrap();
    }

    /// Keys in a bucket of `ams`.
    async fn arrived(&self, bucket: &str) -> Vec<String> {
        let page = self.ams.list(bucket, List { limit: 1_000, versions: true, ..List::default() }).await.unwrap();
        page.entries.into_iter().map(|e| e.version.key.clone()).collect()
    }
    async fn arrive(&self, bucket: &str, keys: &[&str]) {
        let what = format!("{keys:?} in {bucket}");
        wait_until(&what, async || self.arrived(bucket).await.iter().map(String::as_str).eq(keys.iter().copied()))
            .await;
    }

    /// What waits behind the one link's recorded place; `None`: there is not one link.
    async fn behind(&self) -> Option<u64> {
        let links = self.journal.links().await.unwrap();
        let [(_, checkpoint)] = &links[..] else { return None };
        Some(self.fra.backlog(LOGS, checkpoint.cursor.as_ref(), "").await.unwrap().versions)
    }
}

impl Life {
    async fn is_live(&self) {
        let is_live = async || self.replicator.report().links.iter().any(|l| l.state == "live");
        wait_until("the link is live", is_live).await;
    }
    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_what_flies_land_and_records_it() {
    let world = World::new().await;
    world.write_rule("  destinations: [{peer: ams}]");
    let life = world.start().await;
    life.is_live().await;
    world.gate.open.send_replace(false);
    world.put("a").await;
    wait_until("it flies", async || world.gate.heard.load(Ordering::SeqCst) == 1).await;
    life.stop.cancel();
    wait_until("the stop has begun", async || !life.replicator.is_ready()).await;
    world.gate.open.send_replace(true);
    life.end().await;
    assert_eq!(world.behind().await, Some(0), "the answer was waited for and recorded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_though_a_push_is_never_answered() {
    let world = World::new().await;
    world.write_rule("  destinations: [{peer: ams}]");
    let life = world.start().await;
    life.is_live().await;
    world.gate.open.send_replace(false);
    world.put("a").await;
    wait_until("it flies", async || world.gate.heard.load(Ordering::SeqCst) == 1).await;
    let began = tokio::time::Instant::now();
    life.end().await;
    assert!(began.elapsed() < isthmus::shutdown::DEADLINE, "{:?}", began.elapsed());
    assert_ne!(world.behind().await, Some(0), "what was not answered goes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_destination_gets_what_the_former_one_has() {
    let world = World::new().await;
    world.put("a").await;
    world.put("b").await;
    world.write_rule("  destinations: [{peer: ams}]");
    let mut life = world.start().await;
    world.arrive(LOGS, &["a", "b"]).await;
    world.write_rule(&format!("  destinations: [{{peer: ams, bucket: {COPIES}}}]"));
    world.read_again(&mut life);
    world.put("c").await;
    world.arrive(COPIES, &["a", "b", "c"]).await;
    wait_until("only the new link has a place", async || world.behind().await == Some(0)).await;
    assert_eq!(world.arrived(LOGS).await, ["a", "b"]);
    life.end().await;
    // The same while no process runs.
    world.write_rule("  destinations: [{peer: ams}]");
    let life = world.start().await;
    world.arrive(LOGS, &["a", "b", "c"]).await;
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_gone_is_forgotten_and_begins_anew() {
    let world = World::new().await;
    world.put("a").await;
    world.write_rule("  destinations: [{peer: ams}]");
    let mut life = world.start().await;
    world.arrive(LOGS, &["a"]).await;
    std::fs::remove_file(world.dir.path().join("fra/rule.yaml")).unwrap();
    world.read_again(&mut life);
    wait_until("its place is gone", async || world.journal.links().await.unwrap().is_empty()).await;
    let suspended = async || world.fra.set_versioning(LOGS, Versioning::Suspended).await.is_ok();
    wait_until("the store keeps nothing for it", suspended).await;
    world.fra.set_versioning(LOGS, Versioning::Enabled).await.unwrap();
    world.put("b").await;
    world.write_rule("  destinations: [{peer: ams}]");
    world.read_again(&mut life);
    world.arrive(LOGS, &["a", "b"]).await;
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_objects_stay_where_a_rule_says_so() {
    let world = World::new().await;
    world.put("old").await;
    world.write_rule("  destinations: [{peer: ams}]\n  replicate: {existingObjects: Disabled}");
    let life = world.start().await;
    life.is_live().await;
    world.put("new").await;
    world.arrive(LOGS, &["new"]).await;
    life.end().await;
    world.put("newer").await;
    let life = world.start().await;
    world.arrive(LOGS, &["new", "newer"]).await;
    life.is_live().await;
    assert_eq!(world.arrived(LOGS).await, ["new", "newer"]);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_widened_prefix_brings_what_was_there() {
    let world = World::new().await;
    for key in ["a/1", "b/1", "c/1"] {
        world.put(key).await;
    }
    world.write_rule("  destinations: [{peer: ams}]\n  filter: {prefix: a/}");
    let mut life = world.start().await;
    life.is_live().await;
    world.arrive(LOGS, &["a/1"]).await;
    world.write_rule("  destinations: [{peer: ams}]\n  filter: {prefix: \"\"}");
    world.read_again(&mut life);
    world.put("d/1").await;
    world.arrive(LOGS, &["a/1", "b/1", "c/1", "d/1"]).await;
    let is_done = async || life.replicator.report().links.iter().all(|l| l.backlog_versions == Some(0));
    wait_until("nothing is left of the pass", is_done).await;
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_broken_file_leaves_its_rule_running_and_is_said() {
    let world = World::new().await;
    world.write_rule("  destinations: [{peer: ams}]");
    let life = world.start().await;
    life.is_live().await;
    life.end().await;
    world.write_rule_file("kind: [");
    let life = world.start().await;
    world.put("a").await;
    world.arrive(LOGS, &["a"]).await;
    let problems = life.replicator.report().problems;
    assert!(problems.iter().any(|p| p.place.contains("rule.yaml:") && p.reason == "NotYaml"), "{problems:?}");
    life.end().await;
}
