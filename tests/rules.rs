//! What a rule promises while it comes, changes and goes: one site's replicator over its documents and its journal,
//! pushing to another site over real TLS.
use async_trait::async_trait;
use isthmus::journal::Journal;
use isthmus::journal::memory::MemoryJournal;
use isthmus::peer::{Ack, Incoming, Receiver};
use isthmus::replicator::proof::Pace;
use isthmus::replicator::receive::Receive;
use isthmus::replicator::{Replicator, accepted};
use isthmus::rule::watch_folder::{self, Loaded, Snapshot};
use isthmus::store::Interest;
use isthmus::store::bundled::BundledStore;
use pair::{Folder, body, document, objects_with};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use storage_engine::object::{List, Objects, Put, Versioning};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod pair;

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
    folder: Folder,
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

async fn replicator(
    folder: &Folder,
    site: &str,
    store: &Objects,
    journal: Arc<MemoryJournal>,
    rules: watch::Receiver<Snapshot>,
) -> Arc<Replicator> {
    let journal: Arc<dyn Journal> = journal;
    let tenure = pair::tenure(site, &journal);
    let shared = pair::shared(Arc::new(BundledStore(store.clone())), journal, tenure, Pace::default());
    folder.replicator(site, shared, rules).await
}

impl World {
    async fn new() -> World {
        let folder = Folder::new();
        let (fra, ams) = (objects_with("fra", &[LOGS]).await, objects_with("ams", &[LOGS, COPIES]).await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        folder
            .write_sites(listener.local_addr().unwrap().port(), &format!("[{{bucket: {LOGS}}}, {{bucket: {COPIES}}}]"));
        let at_ams = folder.read("ams");
        let receiving = replicator(&folder, "ams", &ams, Arc::default(), at_ams.subscribe()).await;
        let gate = Gate { inner: receiving.receiver(), heard: 0.into(), open: watch::channel(true).0 };
        let gate = Arc::new(gate);
        folder.listen(listener, gate.clone()).await;
        World { folder, fra, ams, gate, journal: MemoryJournal::default(), _ams_rules: at_ams }
    }

    /// Writes the rule's document; `spec` follows site and bucket.
    fn write_rule(&self, spec: &str) {
        let text = document("ReplicationRule", LOGS, &format!("  siteRef: {{name: fra}}\n  bucket: {LOGS}\n{spec}"));
        self.write_rule_file(&text);
    }
    fn write_rule_file(&self, text: &str) {
        self.folder.write("fra", "rule.yaml", text);
    }

    async fn start(&self) -> Life {
        let journal = Arc::new(self.journal.clone());
        let restored = Loaded::restore(accepted::restore(&*journal).await.unwrap());
        let loaded = watch_folder::read(&self.folder.of("fra"), Some(&restored));
        let (tell, rules) = watch::channel(loaded.snapshot.clone());
        let replicator = replicator(&self.folder, "fra", &self.fra, journal, rules).await;
        let stop = CancellationToken::new();
        let (running, told) = (replicator.clone(), stop.clone());
        let task = tokio::spawn(async move { running.run(told).await });
        Life { replicator, loaded, tell, stop, task }
    }

    /// Reads the documents again, as the watcher does.
    fn read_again(&self, life: &mut Life) {
        life.loaded = watch_folder::read(&self.folder.of("fra"), Some(&life.loaded));
        assert_eq!(life.loaded.snapshot.problems, []);
        life.tell.send_replace(life.loaded.snapshot.clone());
    }

    async fn put(&self, key: &str) {
        self.fra.put(LOGS, key, Put::default(), body(format!("bytes of {key}"))).await.unwrap();
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
        let links = self.journal.links(None).await.unwrap();
        let [(_, checkpoint)] = &links[..] else { return None };
        Some(self.fra.backlog(LOGS, checkpoint.cursor.as_ref(), &Interest::default()).await.unwrap().versions)
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
    std::fs::remove_file(world.folder.of("fra").join("rule.yaml")).unwrap();
    world.read_again(&mut life);
    wait_until("its place is gone", async || world.journal.links(None).await.unwrap().is_empty()).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_site_tells_of_itself_while_everything_it_tells_changes() {
    const REPORTS: usize = 5_000;
    let world = World::new().await;
    world.write_rule("  destinations: [{peer: ams}]");
    let life = world.start().await;
    life.is_live().await;
    let (done, told) = std::sync::mpsc::channel();
    for _ in 0..3 {
        let (replicator, done) = (life.replicator.clone(), done.clone());
        std::thread::spawn(move || {
            let links: usize = (0..REPORTS).map(|_| replicator.report().links.len()).sum();
            let _ = done.send(links);
        });
    }
    let over = CancellationToken::new();
    let (tell, changes) = (life.tell.clone(), over.clone());
    std::thread::spawn(move || {
        while !changes.is_cancelled() {
            tell.send_modify(|_| {});
        }
    });
    let all = tokio::task::spawn_blocking(move || (0..3).map(|_| told.recv_timeout(PATIENCE)).collect::<Vec<_>>());
    assert_eq!(all.await.unwrap(), [Ok(REPORTS); 3], "reports that wait for one another never come");
    over.cancel();
    life.end().await;
}
