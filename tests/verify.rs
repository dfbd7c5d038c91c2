//! `verify` over everything: two replicators with their stores and real TLS, and a feed that loses changes.
use async_trait::async_trait;
use isthmus::journal::Journal;
use isthmus::journal::memory::MemoryJournal;
use isthmus::replicator::Replicator;
use isthmus::replicator::job::Asked;
use isthmus::replicator::proof::Pace;
use isthmus::replicator::report::LinkReport;
use isthmus::replicator::verify::{LinkVerify, VerifyReport};
use isthmus::rule::watch_folder::Snapshot;
use isthmus::store::bundled::BundledStore;
use isthmus::store::{Applied, Backlog, Batch, Body, BucketInfo, Cursor, Error, Interest, Store, Stretch};
use pair::{Folder, body, document, job, objects_over, objects_with};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use storage_engine::drive::Drive;
use storage_engine::drive::memory::MemoryDrive;
use storage_engine::object::{Conditions, Objects, Put, Versioning};
use storage_engine::record::BucketId;
use storage_engine::version::guard::{Mode, Retention};
use storage_engine::version::{Version, VersionId};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BUCKET: &str = "logs";

mod pair;

/// A store whose feed can lose changes of keys with `lost`, of tags and of purges, and the place of every reader: what a
/// comparison is for.
struct Forgetful {
    inner: BundledStore,
    loses: AtomicBool,
    /// No cursor is known until the head was asked for.
    has_expired: AtomicBool,
    /// It tells of no changes.
    is_silent: AtomicBool,
}

#[async_trait]
impl Store for Forgetful {
    async fn changes(&self, bucket: &str, cursor: Option<&Cursor>, limit: usize) -> Result<Batch, Error> {
        let mut batch = self.inner.changes(bucket, cursor, limit).await?;
        if self.is_silent.load(Ordering::Relaxed) {
            return Err(Error::Unavailable("too few drives answer".into()));
        }
        if self.has_expired.load(Ordering::Relaxed) {
            return Err(Error::Expired);
        }
        let loses = self.loses.load(Ordering::Relaxed);
        let is_lost = |v: &Version| loses && (v.key.starts_with("lost") || v.tags.is_some() || v.purged().is_some());
        batch.events.retain(|event| !is_lost(&event.version));
        Ok(batch)
    }
    async fn head(&self, bucket: &str) -> Result<Cursor, Error> {
        let head = self.inner.head(bucket).await;
        self.has_expired.store(false, Ordering::Relaxed);
        head
    }
    async fn bucket(&self, name: &str) -> Result<BucketInfo, Error> {
        self.inner.bucket(name).await
    }
    async fn stat(&self, bucket: &str, key: &str, id: VersionId) -> Result<Option<Version>, Error> {
        self.inner.stat(bucket, key, id).await
    }
    async fn read_version(&self, bucket: &str, key: &str, id: VersionId) -> Result<Body, Error> {
        self.inner.read_version(bucket, key, id).await
    }
    async fn apply_version(
        &self,
        bucket: &str,
        version: Version,
        body: Option<Body>,
        traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        self.inner.apply_version(bucket, version, body, traceparent).await
    }
    async fn versions_of(&self, bucket: &str, key: &str) -> Result<Vec<Version>, Error> {
        self.inner.versions_of(bucket, key).await
    }
    async fn list_versions(
        &self,
        bucket: &str,
        after: Option<(String, VersionId)>,
        limit: usize,
    ) -> Result<Vec<Version>, Error> {
        self.inner.list_versions(bucket, after, limit).await
    }
    async fn stretch(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Stretch, Error> {
        self.inner.stretch(bucket, prefix, after, limit).await
    }
    async fn register(&self, bucket: &str, consumer: &str, keeps: bool) -> Result<Option<Cursor>, Error> {
        self.inner.register(bucket, consumer, keeps).await
    }
    async fn commit(&self, bucket: &str, consumer: &str, cursor: &Cursor, floor: &Cursor) -> Result<(), Error> {
        self.inner.commit(bucket, consumer, cursor, floor).await
    }
    async fn deregister(&self, bucket: &str, consumer: &str) -> Result<(), Error> {
        self.inner.deregister(bucket, consumer).await
    }
    async fn backlog(&self, bucket: &str, cursor: Option<&Cursor>, interest: &Interest) -> Result<Backlog, Error> {
        self.inner.backlog(bucket, cursor, interest).await
    }
}

/// The inbound entries of both peers.
const INBOUND: &str = "[{bucket: logs, versionDeletes: Enabled}]";

async fn replicator(
    folder: &Folder,
    site: &str,
    store: Arc<dyn Store>,
    rules: &watch::Sender<Snapshot>,
    pace: Pace,
) -> Arc<Replicator> {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::default());
    let tenure = pair::tenure(site, &journal);
    folder.replicator(site, pair::shared(store, journal, tenure, pace), rules.subscribe()).await
}

fn body_of(key: &str) -> Body {
    body(format!("bytes of {key}"))
}

/// How a world begins.
struct Setup {
    leaves_existing: bool,
    loses: bool,
    /// Keys at `fra` before there is a rule.
    before: Vec<&'static str>,
    pace: Pace,
}

impl Default for Setup {
    /// The slow proof does not come to work.
    fn default() -> Self {
        let pace = Pace { pause: Duration::from_secs(3600), ..Pace::default() };
        Setup { leaves_existing: false, loses: false, before: Vec::new(), pace }
    }
}

/// `fra` sends to `ams`.
struct World {
    folder: Folder,
    fra: Objects,
    ams: Objects,
    ams_drives: Vec<Arc<MemoryDrive>>,
    store: Arc<Forgetful>,
    replicator: Arc<Replicator>,
    running: Option<(CancellationToken, JoinHandle<()>)>,
    rules: [watch::Sender<Snapshot>; 2],
}

impl World {
    /// A feed that loses what a feed must not.
    async fn new() -> World {
        World::with(Setup { loses: true, ..Setup::default() }).await
    }

    async fn with(setup: Setup) -> World {
        let folder = Folder::new();
        let ams_drives: Vec<_> = (0..4).map(|slot| Arc::new(MemoryDrive::new(slot))).collect();
        let (fra, ams) = (objects_with("fra", &[BUCKET]).await, objects_over("ams", &ams_drives));
        ams.create_bucket(BUCKET, Versioning::Enabled).await.unwrap();
        for key in &setup.before {
            fra.put(BUCKET, key, Put::default(), body_of(key)).await.unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        folder.write_sites(listener.local_addr().unwrap().port(), INBOUND);
        let existing = if setup.leaves_existing { ", existingObjects: Disabled" } else { "" };
        let rule = format!(
            "  siteRef: {{name: fra}}\n  bucket: {BUCKET}\n  destinations: [{{peer: ams}}]\n  replicate: {{versionDeletes: Enabled{existing}}}"
        );
        folder.write("fra", "rule.yaml", &document("ReplicationRule", "to-ams", &rule));
        let (at_fra, at_ams) = (folder.read("fra"), folder.read("ams"));
        let store = Arc::new(BundledStore(ams.clone()));
        let receiving = replicator(&folder, "ams", store, &at_ams, setup.pace).await;
        folder.listen(listener, receiving.receiver()).await;
        let loses = AtomicBool::new(setup.loses);
        let [has_expired, is_silent] = [(); 2].map(|()| AtomicBool::new(false));
        let store = Arc::new(Forgetful { inner: BundledStore(fra.clone()), loses, has_expired, is_silent });
        let sending = replicator(&folder, "fra", store.clone(), &at_fra, setup.pace).await;
        let rules = [at_fra, at_ams];
        let mut world = World { folder, fra, ams, ams_drives, store, replicator: sending, running: None, rules };
        world.run();
        world
    }

    fn run(&mut self) {
        let (stop, running) = (CancellationToken::new(), self.replicator.clone());
        let stopping = stop.clone();
        self.running = Some((stop, tokio::spawn(async move { running.run(stopping).await })));
    }

    /// The replicator of `fra` stops, and another one starts that knows nothing.
    async fn lose_the_journal(&mut self) {
        let (stop, running) = self.running.take().expect("it runs");
        stop.cancel();
        running.await.unwrap();
        let pace = Setup::default().pace;
        self.replicator = replicator(&self.folder, "fra", self.store.clone(), &self.rules[0], pace).await;
        self.run();
    }

    async fn put(&self, key: &str) -> Version {
        self.fra.put(BUCKET, key, Put::default(), body_of(key)).await.unwrap().version
    }

    /// Waits until what is shown of the link is so.
    async fn shows(&self, what: &str, is_so: impl Fn(&LinkReport) -> bool) -> LinkReport {
        let shown = async {
            loop {
                match self.replicator.report().links.into_iter().next() {
                    Some(link) if is_so(&link) => return link,
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), shown).await.unwrap_or_else(|_| panic!("{what}"))
    }

    /// The counters of the link by their name and a label's value, added up.
    fn counted(&self, name: &str, label: &str) -> u64 {
        let text = self.replicator.metrics_text();
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        let values: Vec<u64> =
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).collect();
        assert!(!values.is_empty(), "{name} {label}: {text}");
        values.into_iter().sum()
    }

    /// Waits until `ams` holds the version in the state `fra` holds it in.
    async fn becomes_equal(&self, version: &Version) {
        let equal = async {
            while !self.same_state(version).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), equal).await.unwrap_or_else(|_| panic!("{}", version.key));
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
        there.is_some_and(|there| there.tags == here.tags && there.purges == here.purges)
    }
}

/// Damages the shards of a version on all drives but one: fewer are left than its bytes need.
async fn damage(drives: &[Arc<MemoryDrive>], bucket: &str, version: &Version) {
    let bucket = BucketId(bucket.parse().unwrap());
    for drive in &drives[1..] {
        let view = drive.read_key(bucket, &version.key).await.unwrap();
        let record = view.records.iter().find(|record| record.id() == version.id).expect("the drive has the record");
        assert!(record.blobs.iter().all(|blob| drive.corrupt_shard(blob.id)), "the drive has its shard");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_lost_under_a_whole_record_are_found_by_content_alone() {
    let world = World::with(Setup::default()).await;
    let mut versions = Vec::new();
    for n in 0..20 {
        versions.push(world.put(&format!("k/{n:02}")).await);
    }
    versions.push(world.put("k/20").await);
    world.fra.delete(BUCKET, "k/03", None, Conditions::default(), false).await.unwrap();
    let large = body(vec![7u8; 40 << 20]);
    versions.push(world.fra.put(BUCKET, "k/large", Put::default(), large).await.unwrap().version);
    for version in &versions {
        world.arrives(version).await;
    }
    world.verify_settled().await;
    let asked = |content, repair| Asked { rule: "to-ams".into(), content, repair, ..Asked::default() };
    let found = job(&world.replicator, "before", asked(true, false)).await;
    assert_eq!((found.verdict.as_str(), found.contents), ("equal", 22), "a marker has no bytes: {found:?}");
    assert!(found.content_bytes > 40 << 20 && found.wire_bytes < 64 << 10, "hashes cross, not bytes: {found:?}");

    let id = world.ams.bucket_info(BUCKET).await.unwrap().id;
    damage(&world.ams_drives, &id, &versions[7]).await;
    damage(&world.ams_drives, &id, &versions[21]).await;
    let found = job(&world.replicator, "records", asked(false, false)).await;
    assert_eq!(found.verdict, "equal", "the records are whole: {found:?}");
    let found = job(&world.replicator, "bytes", asked(true, false)).await;
    assert_eq!((found.verdict.as_str(), found.unlike), ("different", 2), "{found:?}");
    let named: Vec<_> = found.samples.iter().map(|s| s.key.as_str()).collect();
    assert_eq!(named, ["k/07", "k/large"]);
    let why = found.samples[0].reason.as_deref().unwrap();
    assert!(why.contains("cannot be read at the peer") && why.contains("write the object anew"), "{why}");
    // A store takes the bytes of a version once: what was found stands, and is said.
    let found = job(&world.replicator, "repair", asked(true, true)).await;
    assert_eq!((found.verdict.as_str(), found.unlike, found.repaired), ("different", 2, 0), "{found:?}");

    // The job's own limit goes for what is read: another 40 MiB of 20 MiB a second.
    let began = tokio::time::Instant::now();
    let part = Asked { prefix: "k/large".into(), bytes_per_second: Some(20 << 20), ..asked(true, false) };
    job(&world.replicator, "slow", part).await;
    assert!(began.elapsed() > Duration::from_millis(1_000), "{:?}", began.elapsed());
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
    world.fra.delete(BUCKET, "kept/23", Some(kept[23].id), Conditions::default(), false).await.unwrap();
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
    let body = body("born there");
    world.ams.put(BUCKET, "elsewhere", Put::default(), body).await.unwrap();
    world.ams.delete(BUCKET, "shared", Some(version.id), Conditions::default(), false).await.unwrap();
    let found = world.verify(true).await;
    assert_eq!((found.verdict.as_str(), found.repaired), ("equal", 0), "{found:?}");
    // Written and not waited for: the second look finds it there.
    for n in 0..50 {
        world.put(&format!("fresh/{n}")).await;
    }
    let found = world.verify_settled().await;
    assert_eq!((found.verdict.as_str(), found.differences()), ("equal", 0), "{found:?}");
}

/// Changes of every kind on few keys, until told to stop.
async fn keep_writing(fra: Objects, stop: CancellationToken) -> u64 {
    let mut round = 0u64;
    while !stop.is_cancelled() {
        let key = format!("busy/{}", round % 7);
        let version = fra.put(BUCKET, &key, Put::default(), body_of(&key)).await.unwrap().version;
        for class in ["gold", "silver", "lead"] {
            let tags = BTreeMap::from([("class".to_string(), format!("{class} {round}"))]);
            fra.set_tags(BUCKET, &key, Some(version.id), tags).await.unwrap();
        }
        if round.is_multiple_of(3) {
            fra.delete(BUCKET, &key, Some(version.id), Conditions::default(), false).await.unwrap();
        }
        round += 1;
        // As much as the link can follow on one busy core.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    round
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_what_is_under_way_is_never_a_difference() {
    let world = World::with(Setup::default()).await;
    world.shows("the link starts", |link| link.state == "live").await;
    let stop = CancellationToken::new();
    let writing = tokio::spawn(keep_writing(world.fra.clone(), stop.clone()));
    for _ in 0..5 {
        let found = world.verify(false).await;
        assert!(found.differences() == 0 && found.error.is_none(), "{found:?}");
    }
    stop.cancel();
    assert!(writing.await.unwrap() > 7, "it was written meanwhile");
    assert_eq!(world.verify_settled().await.verdict, "equal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_a_rule_that_leaves_it_is_no_difference() {
    let before = vec!["old/1", "old/2", "old/3"];
    let world = World::with(Setup { leaves_existing: true, before, ..Setup::default() }).await;
    world.shows("the link starts", |link| link.state == "live").await;
    let new = world.put("new").await;
    world.arrives(&new).await;
    for repair in [false, true] {
        let found = world.verify(repair).await;
        assert_eq!((found.verdict.as_str(), found.differences(), found.repaired), ("equal", 0, 0), "{found:?}");
    }
    assert!(world.ams.versions(BUCKET, "old/1").await.unwrap().is_empty());
    let tags = BTreeMap::from([("class".to_string(), "gold".to_string())]);
    world.fra.set_tags(BUCKET, "old/2", None, tags).await.unwrap();
    let old = world.fra.versions(BUCKET, "old/2").await.unwrap().remove(0);
    world.becomes_equal(&old).await;
    let settled = world.verify_settled().await;
    assert_eq!((settled.verdict.as_str(), settled.questions), ("equal", 1), "{settled:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compliance_date_set_on_what_is_older_than_the_rule_is_compared_where_the_peer_holds_it() {
    let before = vec!["lost/1", "lost/2"];
    let world = World::with(Setup { leaves_existing: true, loses: true, before, ..Setup::default() }).await;
    world.ams.set_lock(BUCKET, Default::default()).await.unwrap();
    world.fra.set_lock(BUCKET, Default::default()).await.unwrap();
    world.shows("the buckets fit", |link| link.state == "live").await;
    let old = world.fra.versions(BUCKET, "lost/1").await.unwrap().remove(0);
    let ams = BundledStore(world.ams.clone());
    ams.apply_version(BUCKET, old.clone(), Some(body_of("lost/1")), None).await.unwrap();
    let place = async |key| {
        let mut explained = world.replicator.explain(BUCKET, key, None).await.unwrap();
        explained.versions.remove(0).places.remove(0)
    };
    assert_eq!(world.verify_settled().await.verdict, "equal");
    let left = place("lost/2").await;
    assert_eq!((left.state.as_str(), left.why.contains("older than the rule")), ("not_in_scope", true), "{left:?}");
    assert_eq!(place("lost/1").await.state, "there");
    let retention = Some(Retention { mode: Mode::Compliance, until_millis: 9_000_000_000_000 });
    world.fra.set_retention(BUCKET, "lost/1", None, retention, false).await.unwrap();
    let found = world.verify_settled().await;
    assert_eq!((found.verdict.as_str(), found.unlike, found.differences()), ("different", 1, 1), "{found:?}");
    let missed = place("lost/1").await;
    assert!(missed.state != "there" && missed.why.contains("an older state is there"), "{missed:?}");
    assert_eq!(world.verify(true).await.repaired, 1);
    let there = world.ams.stat(BUCKET, "lost/1", old.id).await.unwrap().expect("it is there");
    assert_eq!(there.guards().retention(), retention);
    assert_eq!(place("lost/1").await.state, "there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_place_in_the_feed_costs_what_differs_and_no_more() {
    let world = World::new().await;
    let mut kept = Vec::new();
    for n in 0..30 {
        kept.push(world.put(&format!("kept/{n:02}")).await);
    }
    for version in &kept {
        world.arrives(version).await;
    }
    let lost = [world.put("lost/1").await, world.put("lost/2").await];
    world.fra.delete(BUCKET, "kept/23", Some(kept[23].id), Conditions::default(), false).await.unwrap();
    world.store.has_expired.store(true, Ordering::Relaxed);
    // It ends the wait for changes.
    let live = world.put("wakes the reader").await;
    for version in lost.iter().chain([&kept[23], &live]) {
        world.becomes_equal(version).await;
    }
    world.shows("lag is known again", |link| link.lag_seconds.is_some() && link.backlog_versions == Some(0)).await;
    let sent = ["applied", "already_present"].map(|result| world.counted("isthmus_link_versions_total", result));
    assert!(sent[0] == 34 && sent[1] <= 1, "{sent:?}: only what differed was sent again");
    let after = world.put("after").await;
    world.arrives(&after).await;
    assert_eq!(world.verify_settled().await.verdict, "equal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_tells_of_no_changes_is_shown_and_mends_by_itself() {
    let world = World::new().await;
    let first = world.put("first").await;
    world.arrives(&first).await;
    let feeds = || ["live", "incomplete", "expired"].map(|state| world.counted("isthmus_link_feed_state", state));
    world.shows("it is live", |link| !link.feed_stalls).await;
    assert_eq!(feeds(), [1, 0, 0]);
    world.store.is_silent.store(true, Ordering::Relaxed);
    // It ends the wait for changes.
    let second = world.put("second").await;
    let stalled = world.shows("it stalls", |link| link.feed_stalls).await;
    assert!(stalled.last_error.is_some_and(|why| why.contains("feed stalls") && why.contains("too few drives")));
    assert_eq!(feeds(), [0, 1, 0]);
    let third = world.put("third").await;
    world.store.is_silent.store(false, Ordering::Relaxed);
    for version in [second, third] {
        world.arrives(&version).await;
    }
    let mended = world.shows("it is live again", |link| !link.feed_stalls).await;
    assert_eq!((feeds(), mended.last_error), ([1, 0, 0], None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_journal_costs_what_differs_and_no_more() {
    let mut world = World::new().await;
    for n in 0..30 {
        let version = world.put(&format!("kept/{n:02}")).await;
        world.arrives(&version).await;
    }
    world.shows("the floor follows", |link| link.backlog_versions == Some(0)).await;
    let lost = world.put("lost/1").await;
    world.lose_the_journal().await;
    world.becomes_equal(&lost).await;
    world.shows("it comes to its end", |link| link.backlog_versions == Some(0)).await;
    let sent = ["applied", "already_present"].map(|result| world.counted("isthmus_link_versions_total", result));
    assert!(sent[0] == 1 && sent[1] < 15, "{sent:?}: of what was there nothing before the floor was sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slow_proof_finds_counts_and_repairs_and_says_when_all_was_there() {
    let pace = Pace { page_items: 10, pause: Duration::from_millis(20), rest: 0 };
    let world = World::with(Setup { loses: true, pace, ..Setup::default() }).await;
    for n in 0..35 {
        world.put(&format!("kept/{n:02}")).await;
    }
    let proven = |link: &LinkReport| link.proof.as_ref().and_then(|proof| proof.verified_at);
    let first = world.shows("a whole pass", |link| proven(link).is_some()).await;
    assert_eq!(first.proof.as_ref().map(|proof| proof.differences), Some(0), "{first:?}");
    let lost = world.put("lost/1").await;
    world.becomes_equal(&lost).await;
    let is_newer =
        |link: &LinkReport| proven(link) > proven(&first) && link.proof.as_ref().is_some_and(|p| p.repaired > 0);
    let later = world.shows("another pass", is_newer).await.proof.unwrap();
    assert_eq!((later.differences, later.repaired, later.last_error), (1, 1, None));
    assert_eq!(world.counted("isthmus_link_differences_total", "to-ams"), 1);
    assert!(world.counted("isthmus_link_verified_timestamp_seconds", "to-ams") > 1_600_000_000);
    assert_eq!((later.tombstones, later.oldest_tombstone_at, later.unacked_tombstones), (Some(0), None, Some(0)));
    let purged = world.put("kept/00").await;
    world.arrives(&purged).await;
    world.store.loses.store(false, Ordering::Relaxed);
    world.fra.delete(BUCKET, "kept/00", Some(purged.id), Conditions::default(), false).await.unwrap();
    let counts = |link: &LinkReport| {
        link.proof.as_ref().is_some_and(|p| (p.tombstones, p.unacked_tombstones) == (Some(1), Some(0)))
    };
    let shown = world.shows("the tombstone is counted and acked", counts).await.proof.unwrap();
    let at =
        world.fra.stat(BUCKET, "kept/00", purged.id).await.unwrap().and_then(|v| v.purged().map(|p| p.hlc.millis()));
    assert!(at.is_some() && shown.oldest_tombstone_at == at, "{shown:?}");
    assert_eq!(world.counted("isthmus_link_tombstones{", "to-ams"), 1);
    assert_eq!(world.counted("isthmus_link_tombstones_unacked", "to-ams"), 0);
    assert!(world.counted("isthmus_link_oldest_tombstone_timestamp_seconds", "to-ams") > 1_600_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_sends_nothing_on_a_link_that_is_held_and_says_why() {
    let world = World::new().await;
    let kept = world.put("kept").await;
    world.arrives(&kept).await;
    world.shows("nothing waits", |link| link.state == "live" && link.backlog_versions == Some(0)).await;
    let lost = world.put("lost/1").await;
    assert_eq!(world.verify_settled().await.verdict, "different");
    world.replicator.suspend(Some("to-ams"), None).await.unwrap();
    world.shows("it is suspended", |link| link.state == "suspended").await;
    let found = world.verify(true).await;
    assert!(found.repaired == 0 && found.held.as_ref().is_some_and(|why| why.contains("suspended")), "{found:?}");
    world.replicator.resume(Some("to-ams"), None).await.unwrap();
    world.ams.set_lock(BUCKET, Default::default()).await.unwrap();
    world.shows("the buckets do not fit", |link| link.blocked_reason.is_some()).await;
    let found = world.verify(true).await;
    let is_said = found.held.as_ref().is_some_and(|why| why.contains("ObjectLockMismatch"));
    assert!(found.repaired == 0 && is_said, "{found:?}");
    let why = found.samples.iter().find_map(|sample| sample.reason.as_deref());
    assert!(why.is_none_or(|why| why.contains("ObjectLockMismatch")), "{found:?}");
    assert!(world.ams.stat(BUCKET, "lost/1", lost.id).await.unwrap().is_none(), "it was sent on a link that is held");
    world.fra.set_lock(BUCKET, Default::default()).await.unwrap();
    world.shows("the buckets fit", |link| link.state == "live").await;
    let found = world.verify(true).await;
    assert_eq!((found.verdict.as_str(), found.repaired, &found.held), ("repaired", 1, &None), "{found:?}");
}

#[tokio::test]
async fn a_rule_that_is_not_in_force_is_not_compared() {
    assert_eq!(World::new().await.replicator.verify("no-such-rule", false), None);
}
