//! What it costs to compare two sites by digests of key ranges, printed with its conditions: a million equal versions,
//! ten differences among them, and the same over stores on real drives.
//!
//! `cargo bench --bench reconcile [-- --versions N] [--stored N] [--dir DIR]`. The million is made by number when it is
//! read, so that what is measured is hashing, comparing and the wire (mutual TLS on loopback); the stores on drives
//! (4, 2+2, fsync on) add the reading. Goals: a million equal versions in 30 s, ten differences in 2 MB.
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use isthmus::cli::certs;
use isthmus::link::project::Projection;
use isthmus::peer::client::{PeerClient, Target};
use isthmus::peer::frame::reconcile::{Answer, Question};
use isthmus::peer::server::{Counters, Known, Server, Settings};
use isthmus::peer::{Ack, Incoming, Receiver};
use isthmus::replicator::answer::answer;
use isthmus::replicator::far::FarEnd;
use isthmus::replicator::reconcile::Sides;
use isthmus::rule::{FileRef, Grant, PeerDoc};
use isthmus::store::bundled::BundledStore;
use isthmus::store::{Applied, Backlog, Batch, Body, BucketInfo, Cursor, Error, Store, Stretch};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use storage_engine::clock::SystemClock;
use storage_engine::drive::local::open_store;
use storage_engine::identity::{Files, Identity};
use storage_engine::object::{Objects, Put, Versioning};
use storage_engine::version::{Birth, Hlc, Kind, Order, Origin, Version, VersionId};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const TRUST: &str = "bench.example";
const BUCKET: &str = "logs";
/// Pages compared at once, as `isthmus verify` does.
const PAGES_AT_ONCE: usize = 4;
/// Versions written at once while the stores are filled.
const WRITES_AT_ONCE: usize = 64;

fn option<T: std::str::FromStr>(name: &str) -> Option<T> {
    let mut args = std::env::args().skip_while(|a| a != name);
    args.nth(1)?.parse().ok()
}

#[tokio::main]
async fn main() {
    let versions: u64 = option("--versions").unwrap_or(1_000_000);
    let stored: u64 = option("--stored").unwrap_or(20_000);
    let dir: PathBuf = option("--dir").unwrap_or_else(std::env::temp_dir);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} cores shared by both sites, load {}, mutual TLS on loopback, {PAGES_AT_ONCE} pages at once",
        load.trim()
    );
    let all = Numbered { count: versions, missing: BTreeSet::new() };
    measure("made by number, equal", versions, Arc::new(all.clone()), Arc::new(all.clone()), 0).await;
    let missing = (0..10).map(|n| n * (versions / 10) + 3).collect();
    measure("made by number, 10 differ", versions, Arc::new(all), Arc::new(Numbered { count: versions, missing }), 10)
        .await;
    if stored > 0 {
        let dir = tempfile::Builder::new().prefix("reconcile-bench").tempdir_in(dir).expect("make a folder");
        on_drives(dir.path(), stored).await;
    }
}

/// Fills two stores with the same versions, then compares; then ten more at one of them.
async fn on_drives(dir: &Path, versions: u64) {
    let (here, there) = (objects(dir, "ams").await, objects(dir, "fra").await);
    let began = Instant::now();
    futures::stream::iter(0..versions)
        .map(|number| {
            let (here, there) = (here.clone(), there.clone());
            async move {
                let version = put(&here, number).await;
                there.apply(BUCKET, version, None, None).await.expect("applies");
            }
        })
        .buffer_unordered(WRITES_AT_ONCE)
        .collect::<Vec<()>>()
        .await;
    println!("{versions} versions on drives in {} (filled in {:.0?})", dir.display(), began.elapsed());
    let [a, b]: [Arc<dyn Store>; 2] = [Arc::new(BundledStore(here.clone())), Arc::new(BundledStore(there))];
    measure("on drives, equal", versions, a.clone(), b.clone(), 0).await;
    for number in 0..10 {
        put(&here, versions + number).await;
    }
    measure("on drives, 10 differ", versions + 10, a, b, 10).await;
}

async fn objects(dir: &Path, site: &str) -> Objects {
    let dirs: Vec<_> = (0..4).map(|drive| dir.join(site).join(drive.to_string())).collect();
    dirs.iter().for_each(|dir| std::fs::create_dir_all(dir).expect("make a folder"));
    let (drives, data) = open_store(&dirs, Some(2)).expect("open drives");
    let objects = Objects::new(drives, data, Arc::new(SystemClock), Origin::new(site));
    objects.create_bucket(BUCKET, Versioning::Enabled).await.expect("make a bucket");
    objects
}

async fn put(objects: &Objects, number: u64) -> Version {
    let empty: Body = futures::stream::empty().boxed();
    objects.put(BUCKET, &key(number), Put::default(), empty).await.expect("puts").version
}

/// Compares `here` with `there` and prints what it took.
async fn measure(what: &str, versions: u64, here: Arc<dyn Store>, there: Arc<dyn Store>, expected: usize) {
    let rig = rig(here, there).await;
    let began = Instant::now();
    let pages = rig.sides.pages().map(|page| async { rig.sides.compare(page?).await });
    let found: Vec<_> = pages.buffered(PAGES_AT_ONCE).try_collect().await.expect("compares");
    let took = began.elapsed();
    assert_eq!(found.iter().map(Vec::len).sum::<usize>(), expected);
    let wire = rig.counters.bytes_in.load(Ordering::Relaxed) + rig.counters.bytes_out.load(Ordering::Relaxed);
    let rate = versions as f64 / took.as_secs_f64();
    let questions = rig.sides.questions.load(Ordering::Relaxed);
    println!(
        "{what:<26} {versions:>9} versions  {:>6.1} s  {rate:>8.0}/s  {questions:>4} questions  {wire:>8} bytes on the wire",
        took.as_secs_f64()
    );
}

struct Rig {
    sides: Sides,
    counters: Arc<Counters>,
    _line: watch::Sender<Option<FarEnd>>,
    _certificates: tempfile::TempDir,
}

/// `ams` here asks `fra` there, over TLS.
async fn rig(here: Arc<dyn Store>, there: Arc<dyn Store>) -> Rig {
    let certificates = tempfile::tempdir().expect("make a folder");
    let hosts: &[&str] = &["127.0.0.1"];
    certs::make(certificates.path(), TRUST, &[("ams", hosts), ("fra", hosts)]).expect("make certificates");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let endpoint = listener.local_addr().expect("it is bound").to_string();
    let files = |site: &str| Files::in_folder(&certificates.path().join(site));
    let (counters, authority) = (Arc::new(Counters::default()), files("fra").authorities[0].clone());
    let server = Server {
        site: "fra".into(),
        identity: Arc::new(Identity::load(files("fra")).await.expect("load")),
        resolver: Arc::new(move |_| {
            Some(Known { site: "ams".into(), peer: "ams".into(), authority: authority.clone() })
        }),
        receiver: Arc::new(Answering(there)),
        clock: Arc::new(SystemClock),
        settings: Settings::default(),
        counters: counters.clone(),
    };
    let tasks = TaskTracker::new();
    tokio::spawn(Arc::new(server).run(listener, tasks.clone(), CancellationToken::new()));
    let target = Target {
        endpoint,
        server_name: "127.0.0.1".into(),
        identities: vec![certs::spiffe_id(TRUST, "fra")],
        site: "ams".into(),
        peer_site: "fra".into(),
    };
    let own = Identity::load(files("ams")).await.expect("load");
    let connection = PeerClient::connect(&target, &own, &tasks).await.expect("connect");
    let (tell, line) = watch::channel(Some(FarEnd::Site(Arc::new(connection))));
    let projection = Projection {
        prefix: String::new(),
        tags: BTreeMap::new(),
        yields_to: Vec::new(),
        source: Origin::new("ams"),
        target: Origin::new("fra"),
        forward_all: false,
        delete_markers: true,
        version_deletes: true,
        object_lock: true,
        since: None,
    };
    let sides = Sides {
        store: here,
        bucket: BUCKET.into(),
        peer_bucket: BUCKET.into(),
        projection: Arc::new(projection),
        line,
        lease: None,
        wire_bytes: 0.into(),
        questions: 0.into(),
    };
    Rig { sides, counters, _line: tell, _certificates: certificates }
}

/// `fra`, which only answers.
struct Answering(Arc<dyn Store>);

#[async_trait]
impl Receiver for Answering {
    async fn receive(&self, _: Incoming) -> Ack {
        Ack::Refused("a comparison sends nothing".into())
    }
    async fn highest_epoch(&self, _: &str, _: &str) -> u64 {
        0
    }
    async fn answer(&self, _: &str, _: &str, question: Question) -> Answer {
        let grant = Grant {
            bucket: BUCKET.into(),
            prefix: String::new(),
            origins: Vec::new(),
            deletes: true,
            version_deletes: true,
            documents: false,
        };
        let peer = PeerDoc {
            name: "ams".into(),
            site_id: "ams".into(),
            endpoint: "ams:8443".into(),
            server_name: "ams".into(),
            ca: FileRef { is_secret: true, name: "ca".into(), key: "ca.crt".into() },
            crl: None,
            client_secret: None,
            identities: Vec::new(),
            inbound: vec![grant],
            drills: false,
            suspend: false,
            bandwidth: None,
        };
        answer(self.0.clone(), "fra", Some(peer), question).await
    }
}

/// Versions made when they are read.
#[derive(Clone)]
struct Numbered {
    count: u64,
    missing: BTreeSet<u64>,
}

fn key(number: u64) -> String {
    format!("some/folder/of/a/bucket/object-{number:010}")
}

fn version(number: u64) -> Version {
    let id = VersionId::from_bytes(u128::from(number + 1).to_be_bytes());
    let birth = Birth {
        order: Order { hlc: Hlc::from_millis(number), origin: Origin::new("ams"), version_id: id },
        base: None,
        kind: Kind::Object,
        size_bytes: 4096,
        etag: format!("{number:032x}"),
        crc64nvme: number,
        checksums: BTreeMap::new(),
        parts: Vec::new(),
        headers: BTreeMap::from([("content-type".into(), "application/octet-stream".into())]),
        metadata: BTreeMap::new(),
        guards: Default::default(),
        unknown: Default::default(),
    };
    Version { birth: Some(birth), ..Version::blank(&key(number), id) }
}

fn number(key: &str) -> u64 {
    key.rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[async_trait]
impl Store for Numbered {
    async fn stretch(&self, _: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Stretch, Error> {
        let first = after.map_or_else(|| number(prefix), |after| number(after) + 1);
        let last = (first + limit as u64).min(self.count);
        let versions = (first..last).filter(|number| !self.missing.contains(number)).map(version).collect();
        Ok(Stretch { versions, through: (last < self.count).then(|| key(last - 1)) })
    }
    async fn bucket(&self, _: &str) -> Result<BucketInfo, Error> {
        unasked()
    }
    async fn changes(&self, _: &str, _: Option<&Cursor>, _: usize) -> Result<Batch, Error> {
        unasked()
    }
    async fn head(&self, _: &str) -> Result<Cursor, Error> {
        unasked()
    }
    async fn stat(&self, _: &str, _: &str, _: VersionId) -> Result<Option<Version>, Error> {
        unasked()
    }
    async fn read_version(&self, _: &str, _: &str, _: VersionId) -> Result<Body, Error> {
        unasked()
    }
    async fn apply_version(&self, _: &str, _: Version, _: Option<Body>, _: Option<String>) -> Result<Applied, Error> {
        unasked()
    }
    async fn versions_of(&self, _: &str, _: &str) -> Result<Vec<Version>, Error> {
        unasked()
    }
    async fn list_versions(&self, _: &str, _: Option<(String, VersionId)>, _: usize) -> Result<Vec<Version>, Error> {
        unasked()
    }
    async fn register(&self, _: &str, _: &str, _: bool) -> Result<Option<Cursor>, Error> {
        unasked()
    }
    async fn commit(&self, _: &str, _: &str, _: &Cursor, _: &Cursor) -> Result<(), Error> {
        unasked()
    }
    async fn deregister(&self, _: &str, _: &str) -> Result<(), Error> {
        unasked()
    }
    async fn backlog(&self, _: &str, _: Option<&Cursor>, _: &str) -> Result<Backlog, Error> {
        unasked()
    }
}

fn unasked<T>() -> Result<T, Error> {
    Err(Error::Unavailable("a comparison does not ask it".into()))
}
