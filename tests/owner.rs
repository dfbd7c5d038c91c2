//! Who pushes a link: two replicators of one site share its store and its journal, and push to another site over
//! real TLS. Each runs on a thread and a runtime of its own, so that it can be killed or paused as a process can.
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use isthmus::journal::memory::MemoryJournal;
use isthmus::journal::{Journal, postgres};
use isthmus::peer::frame::reconcile::{Answer, Question};
use isthmus::peer::{Ack, Incoming, Receiver};
use isthmus::replicator::Replicator;
use isthmus::replicator::job::Asked;
use isthmus::replicator::proof::Pace;
use isthmus::replicator::receive::Receive;
use isthmus::replicator::tenure::{Tenure, Terms};
use isthmus::rule::watch_folder::Snapshot;
use isthmus::store::bundled::BundledStore;
use pair::{Folder, body, document, job, objects_with};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, mpsc as blocking};
use std::time::Duration;
use storage_engine::object::{List, Objects, Put};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

mod pair;
#[path = "../src/journal/postgres/server.rs"]
#[allow(dead_code)] // the journal's own tests use the rest
mod pg;

const BUCKETS: [&str; 2] = ["logs", "photos"];

/// Terms in tenths of seconds, for what need not be shown with the real ones.
const SHORT: Terms = Terms {
    lease: Duration::from_millis(3_000),
    renew: Duration::from_millis(1_000),
    patience: Duration::from_millis(1_500),
};

type OpenJournal = Arc<dyn Fn() -> BoxFuture<'static, Arc<dyn Journal>> + Send + Sync>;

/// Everything that arrives at the receiving site, in order: link and epoch.
struct Spy {
    inner: Arc<Receive>,
    heard: Mutex<Vec<(String, u64)>>,
}

#[async_trait]
impl Receiver for Spy {
    async fn receive(&self, incoming: Incoming) -> Ack {
        self.heard.lock().unwrap().push((incoming.link.clone(), incoming.epoch));
        self.inner.receive(incoming).await
    }
    async fn answer(&self, site: &str, peer: &str, question: Question) -> Answer {
        self.inner.answer(site, peer, question).await
    }
    async fn highest_epoch(&self, site: &str, link: &str) -> u64 {
        self.inner.highest_epoch(site, link).await
    }
}

impl Spy {
    /// Frames that came under an epoch below one heard before on the same link.
    fn stale(&self) -> Vec<(String, u64)> {
        let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
        let heard = self.heard.lock().unwrap();
        let mut stale = Vec::new();
        for (link, epoch) in heard.iter() {
            let seen = highest.entry(link).or_default();
            *seen = (*seen).max(*epoch);
            if epoch < seen {
                stale.push((link.clone(), *epoch));
            }
        }
        stale
    }
}

/// Site `fra` with its store and two replicators to come; site `ams`, which listens.
struct World {
    folder: Arc<Folder>,
    fra: Objects,
    ams: Objects,
    spy: Arc<Spy>,
    rules: watch::Sender<Snapshot>,
    _ams_rules: watch::Sender<Snapshot>,
    journal: OpenJournal,
    written: usize,
}

impl World {
    async fn new(journal: OpenJournal) -> World {
        World::with(journal, "{}", 0).await
    }

    /// Rules with this `replicate`, over buckets that hold so many objects each.
    async fn with(journal: OpenJournal, replicate: &str, before: usize) -> World {
        let folder = Folder::new();
        let (fra, ams) = (objects_with("fra", &BUCKETS).await, objects_with("ams", &BUCKETS).await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        folder.write_sites(
            listener.local_addr().unwrap().port(),
            &format!("[{{bucket: {}}}, {{bucket: {}}}]", BUCKETS[0], BUCKETS[1]),
        );
        for bucket in BUCKETS {
            for n in 0..before {
                fra.put(bucket, &format!("before-{n}"), Put::default(), body(Bytes::from("old"))).await.unwrap();
            }
            let rule = format!(
                "  siteRef: {{name: fra}}\n  bucket: {bucket}\n  destinations: [{{peer: ams}}]\n  replicate: {replicate}"
            );
            folder.write("fra", &format!("{bucket}.yaml"), &document("ReplicationRule", bucket, &rule));
        }
        let (at_fra, at_ams) = (folder.read("fra"), folder.read("ams"));
        let seen: Arc<dyn Journal> = Arc::new(MemoryJournal::default());
        let tenure = pair::tenure("ams", &seen);
        let shared = pair::shared(Arc::new(BundledStore(ams.clone())), seen, tenure, Pace::default());
        let receiving = folder.replicator("ams", shared, at_ams.subscribe()).await;
        let spy = Arc::new(Spy { inner: receiving.receiver(), heard: Mutex::default() });
        folder.listen(listener, spy.clone()).await;
        World { folder: Arc::new(folder), fra, ams, spy, rules: at_fra, _ams_rules: at_ams, journal, written: 0 }
    }

    /// Writes some objects into every bucket of `fra`.
    async fn write(&mut self, count: usize) {
        for _ in 0..count {
            self.written += 1;
            for bucket in BUCKETS {
                let bytes = Bytes::from(format!("object {} of {bucket}", self.written));
                self.fra.put(bucket, &format!("k{:05}", self.written), Put::default(), body(bytes)).await.unwrap();
            }
        }
    }

    /// Objects that `ams` holds.
    async fn arrived(&self) -> usize {
        let mut count = 0;
        for bucket in BUCKETS {
            let page = self.ams.list(bucket, List { limit: 10_000, versions: true, ..List::default() }).await.unwrap();
            count += page.entries.len();
        }
        count
    }

    async fn all_arrive(&self) {
        let wanted = self.written * BUCKETS.len();
        let all = async {
            while self.arrived().await < wanted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("every object arrives");
        assert_eq!(self.arrived().await, wanted, "once each");
    }

    /// Starts a replicator of `fra`.
    fn start(&self, name: &str, terms: Terms) -> Instance {
        let (store, folder, rules, journal) =
            (BundledStore(self.fra.clone()), self.folder.clone(), self.rules.subscribe(), self.journal.clone());
        let (kill, killed) = oneshot::channel::<()>();
        let (freezer, mut freezes) = mpsc::channel::<blocking::Receiver<()>>(1);
        let (tell, told) = blocking::channel();
        let holder = name.to_string();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let journal = journal().await;
                let tenure = Arc::new(Tenure::new(journal.clone(), holder, terms));
                let shared = pair::shared(Arc::new(store), journal, tenure, Pace::default());
                let replicator = folder.replicator("fra", shared, rules).await;
                tell.send(replicator.clone()).unwrap();
                tokio::spawn(async move { replicator.run(CancellationToken::new()).await });
                tokio::spawn(async move {
                    while let Some(thaw) = freezes.recv().await {
                        // The one thread of this runtime stands still, and with it everything: as under SIGSTOP.
                        let _ = thaw.recv();
                    }
                });
                let _ = killed.await;
            });
            // Dropped with all its tasks where they stand: as under SIGKILL.
            runtime.shutdown_background();
        });
        let replicator = told.recv().expect("it starts");
        Instance { replicator, freezer, kill: Some(kill), thread: Some(thread) }
    }
}

/// One replicator, as a process.
struct Instance {
    replicator: Arc<Replicator>,
    freezer: mpsc::Sender<blocking::Receiver<()>>,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Instance {
    fn owned(&self) -> usize {
        self.replicator.report().links.iter().filter(|l| matches!(l.state.as_str(), "live" | "catching_up")).count()
    }
    fn kill(&mut self) {
        self.kill.take();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
    /// Stands still until the sender is dropped.
    async fn freeze(&self) -> blocking::Sender<()> {
        let (thaw, thawed) = blocking::channel();
        self.freezer.send(thawed).await.unwrap();
        thaw
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Writes on until the fact holds; returns after how long.
async fn until(world: &mut World, what: &str, fact: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !fact() {
        assert!(began.elapsed() < Duration::from_secs(60), "in vain: {what}");
        world.write(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    began.elapsed()
}

fn in_memory() -> OpenJournal {
    let journal = MemoryJournal::default();
    Arc::new(move || {
        let journal = journal.clone();
        Box::pin(async move { Arc::new(journal) as Arc<dyn Journal> })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicator_knows_how_far_the_others_links_are() {
    let mut world = World::new(in_memory()).await;
    let one = world.start("one", Terms::default());
    let two = world.start("two", Terms::default());
    until(&mut world, "each owns one link", || one.owned() == 1 && two.owned() == 1).await;
    world.all_arrive().await;
    let known = async {
        loop {
            match one.replicator.others().await.as_slice() {
                [other] if other.lag_seconds == Some(0.0) && other.backlog_versions == Some(0) => return other.clone(),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let other = tokio::time::timeout(Duration::from_secs(60), known).await.expect("the other's link is measured");
    assert_eq!(other.state, "standby");
}

/// What the replicators of a site hold of jobs once all of them are over.
async fn forgotten(at: &Instance) {
    at.replicator.end_jobs(|_| false).await.unwrap();
    assert_eq!(at.replicator.job_report("verify-logs"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_works_whoever_pushes_the_link() {
    const BEFORE: usize = 30;
    let (server, on_postgres) = match on_postgres().await {
        Ok((server, open)) => (Some(server), Some(open)),
        Err(why) => {
            writeln!(std::io::stderr(), "SKIPPED: a job on PostgreSQL: {why}").unwrap();
            (None, None)
        }
    };
    for open in [Some(in_memory()), on_postgres].into_iter().flatten() {
        let mut world = World::with(open, "{existingObjects: Disabled}", BEFORE).await;
        let (one, two) = (world.start("one", Terms::default()), world.start("two", Terms::default()));
        // What is written before a link begins is left where it is too.
        let shared = async {
            while (one.owned(), two.owned()) != (1, 1) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), shared).await.expect("each owns one link");
        world.write(5).await;
        world.all_arrive().await;
        for bucket in BUCKETS {
            let asked = |repair, existing| Asked { rule: bucket.into(), repair, existing, ..Asked::default() };
            let uid = |kind: &str| format!("{kind}-{bucket}");
            let found = job(&one.replicator, &uid("verify"), asked(false, false)).await;
            assert_eq!((found.verdict.as_str(), found.versions > 0), ("equal", true), "{found:?}");
            let found = job(&one.replicator, &uid("look"), asked(false, true)).await;
            assert_eq!((found.verdict.as_str(), found.missing_there), ("different", BEFORE as u64), "{found:?}");
            let found = job(&one.replicator, &uid("backfill"), asked(true, true)).await;
            assert_eq!((found.verdict.as_str(), found.repaired), ("repaired", BEFORE as u64), "{found:?}");
            let part = Asked { prefix: "before-1".into(), ..asked(false, true) };
            assert_eq!(job(&one.replicator, &uid("part"), part).await.versions, 11, "before-1 and before-10 to 19");
        }
        assert_eq!(world.arrived().await, (world.written + BEFORE) * BUCKETS.len(), "the older ones came, once");
        forgotten(&one).await;
        assert_eq!(world.spy.stale(), []);
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_part_of_a_killed_owner_is_carried_out_by_the_next() {
    let mut world = World::new(in_memory()).await;
    let one = world.start("one", SHORT);
    let mut two = world.start("two", SHORT);
    until(&mut world, "each owns one link", || one.owned() == 1 && two.owned() == 1).await;
    world.all_arrive().await;
    let standby = one.replicator.report().links.into_iter().find(|l| l.state == "standby").unwrap();
    two.kill();
    let asked = Asked { rule: standby.rule, ..Asked::default() };
    let found = job(&one.replicator, "verify", asked).await;
    assert_eq!((found.verdict.as_str(), found.error), ("equal", None));
    assert_eq!(one.owned(), 2, "it was carried out under a claim of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_job_waits_where_it_is() {
    let mut world = World::new(in_memory()).await;
    let one = world.start("one", Terms::default());
    until(&mut world, "it owns both links", || one.owned() == 2).await;
    world.all_arrive().await;
    let asked = Asked { rule: BUCKETS[0].into(), ..Asked::default() };
    one.replicator.ask_for_job("u", Asked { is_suspended: true, ..asked.clone() }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let waits = one.replicator.job_report("u").unwrap().unwrap();
    assert!(waits.is_running() && waits.links[0].versions == 0, "{waits:?}");
    assert_eq!(job(&one.replicator, "u", asked).await.verdict, "equal");
}

/// A server of this test and how its journal is opened.
async fn on_postgres() -> Result<(pg::Server, OpenJournal), String> {
    let server = pg::Server::start(&[]).await?;
    let settings =
        postgres::Settings { url_file: server.url_file(), tls: postgres::Tls::Off, ca_file: None, connections_max: 4 };
    let open: OpenJournal = Arc::new(move || {
        let settings = settings.clone();
        Box::pin(async move { Arc::new(postgres::PostgresJournal::open(settings).await.unwrap()) as Arc<dyn Journal> })
    });
    Ok((server, open))
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_a_killed_owner_move_within_20_s_without_loss() {
    let (_server, open) = match on_postgres().await {
        Ok(started) => started,
        Err(why) => {
            writeln!(std::io::stderr(), "SKIPPED: a killed owner on PostgreSQL: {why}").unwrap();
            return;
        }
    };
    let mut world = World::new(open).await;
    let mut one = world.start("one", Terms::default());
    let two = world.start("two", Terms::default());
    until(&mut world, "each owns one link", || one.owned() == 1 && two.owned() == 1).await;
    one.kill();
    let took = until(&mut world, "the other owns both", || two.owned() == 2).await;
    assert!(took < Duration::from_secs(20), "{took:?}");
    world.all_arrive().await;
    assert_eq!(world.spy.stale(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_was_paused_sends_nothing_when_it_wakes() {
    let mut world = World::new(in_memory()).await;
    let one = world.start("one", SHORT);
    until(&mut world, "the first owns both", || one.owned() == 2).await;
    let thaw = one.freeze().await;
    let two = world.start("two", SHORT);
    until(&mut world, "the other owns both", || two.owned() == 2).await;
    world.all_arrive().await;
    world.write(20).await;
    let pushed = world.spy.heard.lock().unwrap().len();
    drop(thaw);
    let standby = || one.replicator.report().links.iter().any(|l| l.state == "standby");
    until(&mut world, "the first knows that it is not the owner", standby).await;
    world.all_arrive().await;
    assert!(world.spy.heard.lock().unwrap().len() > pushed, "the other pushed on meanwhile");
    assert_eq!(world.spy.stale(), [], "a frame under an epoch that was over");
    // Both live: the links are spread again.
    until(&mut world, "each owns one link", || one.owned() == 1 && two.owned() == 1).await;
    world.all_arrive().await;
    assert_eq!(world.spy.stale(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_whose_journal_was_lost_or_restored_is_not_shut_out() {
    let mut world = World::new(in_memory()).await;
    let mut one = world.start("one", SHORT);
    for _ in 0..3 {
        until(&mut world, "it owns both", || one.owned() == 2).await;
        one.kill();
        one = world.start("one", SHORT);
    }
    world.all_arrive().await;
    one.kill();
    // A journal from before the first epoch: the receiver has seen higher ones.
    world.journal = in_memory();
    let again = world.start("one", SHORT);
    until(&mut world, "it owns both again", || again.owned() == 2).await;
    world.all_arrive().await;
}
