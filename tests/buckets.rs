//! Two sites whose buckets do not fit each other, and documents of a bucket on their way: two replicators with their
//! stores and real TLS.
use isthmus::journal::Journal;
use isthmus::journal::memory::MemoryJournal;
use isthmus::replicator::Replicator;
use isthmus::replicator::job::Asked;
use isthmus::replicator::proof::Pace;
use isthmus::replicator::report::LinkReport;
use isthmus::rule::watch_folder::{self, Snapshot};
use isthmus::store::bundled::BundledStore;
use pair::{Folder, body, document, job, objects_by, shared, tenure};
use std::sync::Arc;
use std::time::Duration;
use storage_engine::bucket::document::Kind;
use storage_engine::bucket::lock::Lock;
use storage_engine::clock::{Clock, SystemClock};
use storage_engine::object::{Conditions, Objects, Put, Versioning};
use storage_engine::version::Version;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod pair;

/// A wall clock that is so many milliseconds ahead.
struct Ahead(u64);

impl Clock for Ahead {
    fn now_millis(&self) -> u64 {
        SystemClock.now_millis() + self.0
    }
}

/// A rule of `fra` for a bucket: to `ams`, but for one that names nobody.
fn write_rule(folder: &Folder, bucket: &str) {
    let to = if bucket == "orphan" { "nobody" } else { "ams" };
    let brake = if bucket == "braked" { "\n  brake: {percent: 1, window: 1h, minVersions: 2}" } else { "" };
    let rule = format!(
        "  siteRef: {{name: fra}}\n  bucket: {bucket}\n  destinations: [{{peer: {to}}}]\n  replicate: {{bucketDocuments: Enabled}}{brake}"
    );
    folder.write("fra", &format!("{bucket}.yaml"), &document("ReplicationRule", bucket, &rule));
}

async fn replicator(
    site: &str,
    store: &Objects,
    folder: &Folder,
    journal: Arc<dyn Journal>,
    rules: watch::Receiver<Snapshot>,
) -> Arc<Replicator> {
    let pace = Pace { pause: Duration::from_secs(3600), ..Pace::default() };
    let tenure = tenure(site, &journal);
    let store = Arc::new(BundledStore(store.clone()));
    folder.replicator(site, shared(store, journal, tenure, pace), rules).await
}

/// `fra` sends to `ams`.
struct World {
    folder: Folder,
    fra: Objects,
    ams: Objects,
    /// Of `fra`.
    journal: Arc<dyn Journal>,
    replicator: Arc<Replicator>,
    rules: [watch::Sender<Snapshot>; 2],
}

impl World {
    /// Rules at `fra` for each of `sends`, and what `ams` lets `fra` write. `good` fits on both sides.
    async fn new(sends: &[&str], grants: &str) -> World {
        World::with_clock(sends, grants, 0).await
    }

    /// The same; the clock of the store at `fra` is ahead.
    async fn with_clock(sends: &[&str], grants: &str, ahead_millis: u64) -> World {
        let folder = Folder::new();
        let ahead: Arc<dyn Clock> = Arc::new(Ahead(ahead_millis));
        let (fra, ams) = (objects_by("fra", ahead), objects_by("ams", Arc::new(SystemClock)));
        for store in [&fra, &ams] {
            store.create_bucket("good", Versioning::Enabled).await.unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        folder.write_sites(listener.local_addr().unwrap().port(), &format!("[{grants}]"));
        sends.iter().for_each(|bucket| write_rule(&folder, bucket));
        // One of the rules may name a peer that is not there.
        let at_fra = watch::Sender::new(watch_folder::read(&folder.of("fra"), None).snapshot);
        let at_ams = folder.read("ams");
        let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::default());
        let receiving = replicator("ams", &ams, &folder, Arc::new(MemoryJournal::default()), at_ams.subscribe()).await;
        folder.listen(listener, receiving.receiver()).await;
        let replicator = replicator("fra", &fra, &folder, journal.clone(), at_fra.subscribe()).await;
        World { folder, fra, ams, journal, replicator, rules: [at_fra, at_ams] }
    }

    fn run(&self) {
        self.run_until(CancellationToken::new());
    }

    fn run_until(&self, stop: CancellationToken) -> JoinHandle<()> {
        let running = self.replicator.clone();
        tokio::spawn(async move { running.run(stop).await })
    }

    /// Another process of `fra` takes the place of the one that ended, with its journal.
    async fn start_again(&mut self) -> (CancellationToken, JoinHandle<()>) {
        let rules = self.rules[0].subscribe();
        self.replicator = replicator("fra", &self.fra, &self.folder, self.journal.clone(), rules).await;
        let stop = CancellationToken::new();
        (stop.clone(), self.run_until(stop))
    }

    /// Deletes all that a bucket of `fra` holds, and it, and makes it again.
    async fn remake(&self, bucket: &str) {
        for version in self.fra.versions(bucket, "k").await.unwrap() {
            self.fra.delete(bucket, "k", Some(version.id), Conditions::default(), false).await.unwrap();
        }
        self.fra.delete_bucket(bucket).await.unwrap();
        self.fra.create_bucket(bucket, Versioning::Enabled).await.unwrap();
    }

    /// Waits until the journal knows where the link of a bucket stands, and nothing of it waits.
    async fn recorded(&self, bucket: &str) {
        self.shows(bucket, "nothing waits", |l| l.state == "live" && l.backlog_versions == Some(0)).await;
        let id = self.fra.bucket_info(bucket).await.unwrap().id;
        let is_known = async {
            while !self.journal.links(None).await.unwrap().iter().any(|(l, c)| l.bucket == id && c.cursor.is_some()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), is_known).await.expect("it is recorded");
    }

    /// A person changes the rule of a bucket.
    fn change_rule(&self, bucket: &str) {
        self.rules[0].send_modify(|s| s.rules.rules.get_mut(bucket).expect("it is in force").generation += 1);
    }

    async fn put(&self, bucket: &str) -> Version {
        self.fra.put(bucket, "k", Put::default(), body("x")).await.unwrap().version
    }

    /// Waits until what is shown of the link of a bucket is so.
    async fn shows(&self, bucket: &str, what: &str, is_so: impl Fn(&LinkReport) -> bool) -> LinkReport {
        let shown = async {
            loop {
                match self.replicator.report().links.into_iter().find(|l| l.bucket == bucket) {
                    Some(link) if is_so(&link) => return link,
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let shown = tokio::time::timeout(Duration::from_secs(60), shown).await;
        shown.unwrap_or_else(|_| panic!("{what}: {:?}", self.replicator.report().links))
    }

    async fn arrives(&self, bucket: &str, version: &Version) {
        let arrived = async {
            while !matches!(self.ams.stat(bucket, "k", version.id).await, Ok(Some(_))) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("the version arrives");
    }

    /// Waits until `ams` has this document.
    async fn has(&self, kind: Kind, text: Option<&str>) {
        let has = async {
            while self.ams.bucket_document("good", kind).await.unwrap().as_deref() != text {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), has).await.unwrap_or_else(|_| panic!("{kind:?} {text:?}"));
    }
}

/// A CORS document as a client could have set it.
fn cors(origin: &str) -> String {
    format!(
        "<CORSConfiguration><CORSRule><AllowedOrigin>https://{origin}</AllowedOrigin>\
         <AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>"
    )
}

fn has(reason: &str) -> impl Fn(&LinkReport) -> bool {
    move |link| link.conditions.iter().any(|c| c.reason == reason)
}

#[tokio::test]
async fn every_bucket_that_does_not_fit_has_its_reason_and_stops_nothing_else() {
    let grants =
        "{bucket: good}, {bucket: locked}, {bucket: plain}, {bucket: gone}, {bucket: here-plain}, {bucket: absent}";
    let sends = ["good", "locked", "plain", "gone", "here-plain", "absent", "refused", "orphan"];
    let world = World::new(&sends, grants).await;
    world.fra.create_locked_bucket("locked").await.unwrap();
    world.ams.create_bucket("locked", Versioning::Enabled).await.unwrap();
    for (bucket, there) in [("plain", Some(Versioning::Unversioned)), ("gone", None), ("refused", None)] {
        world.fra.create_bucket(bucket, Versioning::Enabled).await.unwrap();
        if let Some(versioning) = there {
            world.ams.create_bucket(bucket, versioning).await.unwrap();
        }
    }
    world.fra.create_bucket("here-plain", Versioning::Unversioned).await.unwrap();
    world.run();
    let held = [
        ("locked", "ObjectLockMismatch"),
        ("plain", "VersioningDisabled"),
        ("gone", "BucketNotFound"),
        ("here-plain", "VersioningDisabled"),
        ("absent", "BucketNotFound"),
    ];
    for (bucket, reason) in held {
        let link = world.shows(bucket, reason, |l| has(reason)(l) && l.state == "blocked").await;
        assert!(link.conditions[0].message.contains(bucket), "{link:?}");
    }
    world.shows("refused", "no grant names it", has("RefusedByPeer")).await;
    let problems = world.replicator.report().problems;
    assert!(problems.iter().any(|p| p.reason == "PeerNotFound" && p.document.ends_with("/orphan")), "{problems:?}");

    let version = world.put("good").await;
    world.arrives("good", &version).await;
    let good = world.shows("good", "it is current", |l| l.state == "live").await;
    assert_eq!(good.conditions, []);
    assert!(!world.replicator.report().is_healthy());

    let waiting = world.put("locked").await;
    let explained = world.replicator.explain("locked", "k", None).await.unwrap();
    let place = &explained.versions[0].places[0];
    assert_eq!(place.state, "blocked");
    assert!(place.why.starts_with("ObjectLockMismatch: "), "{}", place.why);
    assert!(explained.not_in_force.iter().any(|p| p.contains("PeerNotFound")), "{:?}", explained.not_in_force);
    assert_eq!(world.ams.stat("locked", "k", waiting.id).await.unwrap(), None, "nothing is sent meanwhile");
    world.ams.set_lock("locked", Lock::default()).await.unwrap();
    world.arrives("locked", &waiting).await;
    world.shows("locked", "it is mended", |l| l.conditions.is_empty() && l.parked_versions == 0).await;
}

#[tokio::test]
async fn documents_travel_where_the_rule_and_the_grant_say_so_and_the_last_writer_wins() {
    let world = World::new(&["good"], "{bucket: good, documents: Enabled}").await;
    let set = async |kind, text: Option<&str>| {
        world.fra.set_bucket_document("good", kind, text.map(str::to_owned)).await.unwrap();
    };
    let (of_fra, of_ams) = (cors("fra"), cors("ams"));
    set(Kind::Cors, Some(&of_fra)).await;
    set(Kind::Policy, Some("policy of fra")).await;
    world.run();
    world.has(Kind::Cors, Some(&of_fra)).await;
    world.ams.set_bucket_document("good", Kind::Cors, Some(of_ams.clone())).await.unwrap();
    set(Kind::Tags, Some("team=a")).await;
    world.has(Kind::Tags, Some("team=a")).await;
    world.has(Kind::Cors, Some(&of_ams)).await;
    set(Kind::Tags, None).await;
    world.has(Kind::Tags, None).await;
    assert_eq!(world.ams.bucket_document("good", Kind::Policy).await.unwrap(), None, "policies never travel");
    world.shows("good", "nothing is refused", |l| l.state == "live" && l.conditions.is_empty()).await;
}

#[tokio::test]
async fn documents_without_a_grant_are_refused_and_said_and_versions_go_on() {
    let world = World::new(&["good"], "{bucket: good}").await;
    world.fra.set_bucket_document("good", Kind::Cors, Some(cors("fra"))).await.unwrap();
    world.run();
    let link = world.shows("good", "refused", has("DocumentsRefused")).await;
    assert!(link.conditions[0].message.contains("documents"), "{link:?}");
    let version = world.put("good").await;
    world.arrives("good", &version).await;
    assert_eq!(world.ams.bucket_document("good", Kind::Cors).await.unwrap(), None);
}

#[tokio::test]
async fn a_document_of_no_form_is_refused_and_named_and_versions_go_on() {
    let world = World::new(&["good"], "{bucket: good, documents: Enabled}").await;
    // Set beside the front door, which would have refused it.
    world.fra.set_bucket_document("good", Kind::Lifecycle, Some("<LifecycleConfiguration/>".into())).await.unwrap();
    world.fra.set_bucket_document("good", Kind::Cors, Some(cors("fra"))).await.unwrap();
    world.run();
    let link = world.shows("good", "refused", has("DocumentsRefused")).await;
    let message = &link.conditions[0].message;
    assert!(["lifecycle", "good", "fra", "MalformedXML"].iter().all(|word| message.contains(word)), "{message}");
    world.has(Kind::Cors, Some(&cors("fra"))).await;
    assert_eq!(world.ams.bucket_document("good", Kind::Lifecycle).await.unwrap(), None);
    let version = world.put("good").await;
    world.arrives("good", &version).await;
}

#[tokio::test]
async fn a_version_stamped_ahead_is_shown_as_such_never_parked_and_goes_by_itself() {
    let world = World::with_clock(&["good"], "{bucket: good}", 70_000).await;
    world.run();
    world.shows("good", "the link is up", |l| l.state == "live").await;
    let version = world.put("good").await;
    let link = world.shows("good", "it waits", |l| l.clock_ahead_versions == 1).await;
    assert_eq!(link.parked_versions, 0);
    let explained = world.replicator.explain("good", "k", None).await.unwrap();
    assert_eq!(explained.versions[0].places[0].state, "clock_ahead");
    world.arrives("good", &version).await;
    let link = world.shows("good", "nothing waits", |l| l.clock_ahead_versions == 0 && l.retry_versions == 0).await;
    assert_eq!(link.parked_versions, 0);
}

#[tokio::test]
async fn deletes_that_a_brake_holds_are_listed_until_they_are_released() {
    let world = World::new(&["braked"], "{bucket: braked, deletes: Enabled}").await;
    for store in [&world.fra, &world.ams] {
        store.create_bucket("braked", Versioning::Enabled).await.unwrap();
    }
    world.run();
    let version = world.put("braked").await;
    world.arrives("braked", &version).await;
    assert_eq!(world.replicator.deletes(10).await, []);
    for _ in 0..5 {
        world.fra.delete("braked", "k", None, Conditions::default(), false).await.unwrap();
    }
    world.shows("braked", "the brake holds", |l| l.braked_since.is_some() && l.braked_versions > 0).await;
    let held = world.replicator.deletes(10).await;
    assert!(!held.is_empty() && held.iter().all(|d| d.key == "k" && !d.is_permanent), "{held:?}");
    assert_eq!(world.replicator.deletes(1).await.len(), 1);
    world.replicator.release("braked").await.unwrap();
    world.shows("braked", "all have gone", |l| l.braked_since.is_none() && l.backlog_versions == Some(0)).await;
    assert_eq!(world.replicator.deletes(10).await, []);
}

/// A world whose bucket `good` was replicated, and made again while no process ran; it holds one version by now.
async fn remade() -> (World, Version, (CancellationToken, JoinHandle<()>)) {
    let mut world = World::new(&["good"], "{bucket: good}").await;
    let stop = CancellationToken::new();
    let running = world.run_until(stop.clone());
    let first = world.put("good").await;
    world.arrives("good", &first).await;
    world.recorded("good").await;
    stop.cancel();
    running.await.unwrap();
    world.remake("good").await;
    let held = world.put("good").await;
    // Shown once, it is behind whoever begins at the head, though a drive may log it later than the others.
    let shown = world.fra.changes("good", None, 10).await.unwrap();
    assert_eq!(shown.events.len(), 1);
    let running = world.start_again().await;
    (world, held, running)
}

#[tokio::test]
async fn what_a_bucket_made_again_held_is_copied_once_its_rule_changes() {
    let (mut world, held, (stop, running)) = remade().await;
    let link = world.shows("good", "it is said", has("BucketRecreated")).await;
    let why = &link.conditions[0].message;
    assert!(["bucket good", "Backfill", "verify good --repair --existing"].iter().all(|w| why.contains(w)), "{why}");
    let new = world.put("good").await;
    world.arrives("good", &new).await;
    stop.cancel();
    running.await.unwrap();
    let _running = world.start_again().await;
    world.shows("good", "a restart keeps it", |l| has("BucketRecreated")(l) && l.state == "live").await;
    assert_eq!(world.ams.stat("good", "k", held.id).await.unwrap(), None, "nobody wanted it copied");
    let places = world.replicator.explain("good", "k", Some(held.id)).await.unwrap().versions.remove(0).places;
    assert!(places[0].state == "not_in_scope" && places[0].why.contains("made again"), "{places:?}");
    let asked = Asked { rule: "good".into(), ..Asked::default() };
    assert_eq!(job(&world.replicator, "verify", asked).await.verdict, "equal", "it is no difference");
    let known = world.journal.links(None).await.unwrap();
    assert_eq!(known.len(), 1, "the link of the former bucket is forgotten: {known:?}");

    world.change_rule("good");
    world.arrives("good", &held).await;
    world.shows("good", "it is over", |l| l.conditions.is_empty() && l.existing_versions == Some(0)).await;
}

#[tokio::test]
async fn what_a_bucket_made_again_held_is_copied_by_a_backfill_of_all_of_it() {
    let (world, held, _running) = remade().await;
    world.shows("good", "it is said", has("BucketRecreated")).await;
    let asked = |prefix: &str| Asked {
        rule: "good".into(),
        prefix: prefix.into(),
        repair: true,
        existing: true,
        ..Asked::default()
    };
    let part = job(&world.replicator, "part", asked("k-and-more")).await;
    assert_eq!((part.verdict.as_str(), part.repaired), ("equal", 0), "{part:?}");
    world.shows("good", "a part is not all", has("BucketRecreated")).await;
    let all = job(&world.replicator, "all", asked("")).await;
    // What the former bucket left at the peer is none of this one's, and is said.
    assert_eq!((all.verdict.as_str(), all.repaired, all.missing_here), ("different", 1, 1), "{all:?}");
    world.arrives("good", &held).await;
    world.shows("good", "it is over", |l| l.conditions.is_empty() && l.copies_since.is_none()).await;
    let next = world.put("good").await;
    world.arrives("good", &next).await;
}

#[tokio::test]
async fn a_running_link_follows_its_bucket_through_deletion_and_goes_on_where_it_is_empty() {
    let world = World::new(&["good"], "{bucket: good}").await;
    world.run();
    let first = world.put("good").await;
    world.arrives("good", &first).await;
    let former = world.fra.bucket_info("good").await.unwrap().id;
    world.recorded("good").await;
    world.remake("good").await;
    let is_begun = async {
        while world.journal.links(None).await.unwrap().iter().all(|(id, _)| id.bucket == former) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), is_begun).await.expect("the link begins anew");
    let next = world.put("good").await;
    world.arrives("good", &next).await;
    let link = world.shows("good", "nothing waits", |l| l.state == "live" && l.backlog_versions == Some(0)).await;
    assert_eq!(link.conditions, [], "an empty bucket holds nothing to ask about");
}

#[tokio::test]
async fn a_link_that_was_not_listening_finds_its_bucket_made_again() {
    let world = World::new(&["good"], "{bucket: good}").await;
    world.run();
    let first = world.put("good").await;
    world.arrives("good", &first).await;
    world.recorded("good").await;
    world.replicator.suspend(Some("good"), None).await.unwrap();
    world.shows("good", "it is suspended", |l| l.state == "suspended").await;
    world.remake("good").await;
    let held = world.put("good").await;
    world.shows("good", "it is said", has("BucketRecreated")).await;
    world.replicator.resume(Some("good"), None).await.unwrap();
    let next = world.put("good").await;
    world.arrives("good", &next).await;
    assert_eq!(world.ams.stat("good", "k", held.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_lost_journal_knows_no_former_bucket_and_copies_everything() {
    let (mut world, held, (stop, running)) = remade().await;
    world.shows("good", "it is said", has("BucketRecreated")).await;
    stop.cancel();
    running.await.unwrap();
    world.journal = Arc::new(MemoryJournal::default());
    let _running = world.start_again().await;
    world.arrives("good", &held).await;
    world.shows("good", "nothing is left", |l| l.conditions.is_empty() && l.backlog_versions == Some(0)).await;
}
