//! Two sides over real TLS: what a comparison finds, what it costs, and what a peer is told.
use super::*;
use crate::cli::certs;
use crate::peer::client::{PeerClient, Target};
use crate::peer::server::{Counters, Known, Server, Settings};
use crate::peer::{Ack, Incoming, Receiver};
use crate::replicator::answer::answer;
use crate::rule::{FileRef, Grant, PeerDoc};
use crate::store::{Applied, Backlog, Batch, Body, BucketInfo, Cursor, Stretch};
use async_trait::async_trait;
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use storage_engine::clock::SystemClock;
use storage_engine::identity::{Files, Identity};
use storage_engine::version::{Birth, Hlc, Kind, Order, Origin, Version, VersionId};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const TRUST: &str = "test.example";

/// Versions by number, made when they are asked for, so that a million of them take no room.
#[derive(Clone, Default)]
struct Numbered {
    count: u64,
    missing: BTreeSet<u64>,
    /// Born at another site than `ams`.
    foreign: BTreeSet<u64>,
    /// The stretch that holds this number cannot be read.
    unreadable: Option<u64>,
}

fn key(number: u64) -> String {
    format!("k{number:09}")
}

fn version(number: u64, origin: &str) -> Version {
    let id = VersionId::from_bytes(u128::from(number + 1).to_be_bytes());
    let birth = Birth {
        order: Order { hlc: Hlc::from_millis(number), origin: Origin::new(origin), version_id: id },
        base: None,
        kind: Kind::Object,
        size_bytes: 1,
        etag: String::new(),
        crc64nvme: number,
        checksums: BTreeMap::new(),
        parts: Vec::new(),
        headers: BTreeMap::new(),
        metadata: BTreeMap::new(),
        guards: Default::default(),
        unknown: Fields::default(),
    };
    Version { birth: Some(birth), ..Version::blank(&key(number), id) }
}

#[async_trait]
impl Store for Numbered {
    async fn stretch(&self, _: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Stretch, store::Error> {
        // What is left of one key is asked for by the key.
        let from = prefix.strip_prefix('k').map_or(0, |number| number.parse().unwrap());
        let first = after.map_or(from, |after| after[1..].parse::<u64>().unwrap() + 1);
        let last = (first + limit as u64).min(self.count);
        if self.unreadable.is_some_and(|number| (first..last).contains(&number)) {
            return Err(store::Error::Unavailable("two drives are gone".into()));
        }
        let held = (first..last).filter(|number| !self.missing.contains(number));
        let origin = |number: &u64| if self.foreign.contains(number) { "waw" } else { "ams" };
        let versions = held.map(|number| version(number, origin(&number))).collect();
        Ok(Stretch { versions, through: (last < self.count).then(|| key(last - 1)) })
    }
    async fn bucket(&self, _: &str) -> Result<BucketInfo, store::Error> {
        unimplemented!("a comparison does not ask it")
    }
    async fn changes(&self, _: &str, _: Option<&Cursor>, _: usize) -> Result<Batch, store::Error> {
        unimplemented!("a comparison does not ask it")
    }
    async fn head(&self, _: &str) -> Result<Cursor, store::Error> {
        unimplemented!("a comparison does not ask it")
    }
    async fn stat(&self, _: &str, _: &str, _: VersionId) -> Result<Option<Version>, store::Error> {
        unimplemented!("a comparison does not ask it")
    }
    async fn read_version(&self, _: &str, _: &str, _: VersionId) -> Result<Body, store::Error> {
        unimplemented!("a comparison does not ask it")
    }
    async fn apply_version(
        &self,
        _: &str,
        _: Version,
        _: Option<Body>,
        _: Option<String>,
    ) -> Result<Applied, store::Error> {
        unimplemented!("a comparison does not ask it")
    }
    async fn versions_of(&self, _: &str, _: &str) -> Result<Vec<Version>, store::Error> {
        unimplemented!("a comparison does not ask it")
    }
    async fn list_versions(
        &self,
        _: &str,
        _: Option<(String, VersionId)>,
        _: usize,
    ) -> Result<Vec<Version>, store::Error> {
        unimplemented!("a comparison does not ask it")
    }
    async fn register(&self, _: &str, _: &str, _: bool) -> Result<Option<Cursor>, store::Error> {
        unimplemented!("a comparison does not ask it")
    }
    async fn commit(&self, _: &str, _: &str, _: &Cursor, _: &Cursor) -> Result<(), store::Error> {
        unimplemented!("a comparison does not ask it")
    }
    async fn deregister(&self, _: &str, _: &str) -> Result<(), store::Error> {
        unimplemented!("a comparison does not ask it")
    }
    async fn backlog(&self, _: &str, _: Option<&Cursor>, _: &str) -> Result<Backlog, store::Error> {
        unimplemented!("a comparison does not ask it")
    }
}

/// `ams` as `fra` knows it.
fn peer(bucket: &str, prefix: &str) -> PeerDoc {
    let grant = Grant {
        bucket: bucket.into(),
        prefix: prefix.into(),
        origins: vec![],
        deletes: true,
        version_deletes: true,
        documents: false,
    };
    PeerDoc {
        name: "ams".into(),
        site_id: "ams".into(),
        endpoint: "ams:8443".into(),
        server_name: "ams".into(),
        ca: FileRef { is_secret: true, name: "ca".into(), key: "ca.crt".into() },
        crl: None,
        client_secret: None,
        identities: vec![],
        inbound: vec![grant],
        drills: false,
        suspend: false,
        bandwidth: None,
    }
}

fn projection() -> Projection {
    Projection {
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
    }
}

struct Answering(Numbered);

#[async_trait]
impl Receiver for Answering {
    async fn receive(&self, _: Incoming) -> Ack {
        Ack::Refused("a comparison sends nothing".into())
    }
    async fn highest_epoch(&self, _: &str, _: &str) -> u64 {
        0
    }
    async fn answer(&self, site: &str, _: &str, question: Question) -> Answer {
        assert_eq!(site, "ams");
        answer(Arc::new(self.0.clone()), "fra", Some(peer("logs", "")), question).await
    }
}

/// `ams` here compares with `fra` there.
struct Rig {
    sides: Sides,
    /// Bytes `fra` has read and written, after TLS.
    counters: Arc<Counters>,
    _line: watch::Sender<Option<FarEnd>>,
    _certificates: tempfile::TempDir,
}

async fn rig(here: Numbered, there: Numbered) -> Rig {
    let certificates = tempfile::tempdir().unwrap();
    let hosts: &[&str] = &["127.0.0.1"];
    certs::make(certificates.path(), TRUST, &[("ams", hosts), ("fra", hosts)]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let counters = Arc::new(Counters::default());
    let identity = |site: &str| Files::in_folder(&certificates.path().join(site));
    let authority = identity("fra").authorities[0].clone();
    let server = Server {
        site: "fra".into(),
        identity: Arc::new(Identity::load(identity("fra")).await.unwrap()),
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
    let own = Identity::load(identity("ams")).await.unwrap();
    let connection = PeerClient::connect(&target, &own, &tasks).await.unwrap();
    let (tell, line) = watch::channel(Some(FarEnd::Site(Arc::new(connection))));
    let sides = Sides {
        store: Arc::new(here),
        bucket: "logs".into(),
        peer_bucket: "logs".into(),
        projection: Arc::new(projection()),
        line,
        lease: None,
        wire_bytes: 0.into(),
        questions: 0.into(),
    };
    Rig { sides, counters, _line: tell, _certificates: certificates }
}

impl Rig {
    /// Every difference, by number; fails within a minute rather than hang.
    async fn differences(&self) -> Result<Vec<(u64, &'static str)>, Error> {
        let all = async {
            let pages = self.sides.pages().map(|page| async { self.sides.compare(page?).await });
            pages.buffered(4).collect::<Vec<_>>().await
        };
        let mut found = Vec::new();
        for page in tokio::time::timeout(Duration::from_secs(120), all).await.expect("it ends") {
            found.extend(page?.into_iter().map(|difference| {
                let kind = match difference {
                    Difference::OnlyHere { .. } => "missing there",
                    Difference::OnlyThere { .. } => "missing here",
                    Difference::Unlike { .. } => "unlike",
                };
                (difference.place().0[1..].parse().unwrap(), kind)
            }));
        }
        Ok(found)
    }

    fn wire_bytes(&self) -> u64 {
        self.counters.bytes_in.load(Ordering::Relaxed) + self.counters.bytes_out.load(Ordering::Relaxed)
    }
}

/// Ten differences spread over `count` versions: seven missing there, three here.
async fn ten_differences(count: u64) -> Rig {
    let at = |n: u64| n * (count / 10) + 3;
    let here = Numbered { count, missing: (0..3).map(at).collect(), ..Numbered::default() };
    let there = Numbered { count, missing: (3..10).map(at).collect(), ..Numbered::default() };
    let rig = rig(here, there).await;
    let expected: Vec<_> = (0..10).map(|n| (at(n), if n < 3 { "missing here" } else { "missing there" })).collect();
    assert_eq!(rig.differences().await.unwrap(), expected);
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_sites_cost_a_question_a_page() {
    let all = Numbered { count: 20_000, ..Numbered::default() };
    let rig = rig(all.clone(), all).await;
    assert_eq!(rig.differences().await.unwrap(), []);
    assert_eq!(rig.sides.questions.load(Ordering::Relaxed), 2);
    assert!(rig.wire_bytes() < 20_000, "{} bytes", rig.wire_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cost_grows_with_the_difference_and_is_counted() {
    let rig = ten_differences(20_000).await;
    let counted = rig.sides.wire_bytes.load(Ordering::Relaxed);
    // The other end counts an answer once it is written: it may be here before.
    let both_have = async {
        while rig.wire_bytes() < counted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), both_have).await.expect("both ends count the same bytes");
    assert!(rig.wire_bytes() < 200_000, "{} bytes", rig.wire_bytes());
    // Beside the questions and answers there are Hello and pings.
    assert!(rig.wire_bytes() < counted + 20_000, "{counted} of {}", rig.wire_bytes());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a million versions: a minute without optimisation"]
async fn a_million_versions_with_ten_differences_cost_under_2_mb() {
    let began = std::time::Instant::now();
    let rig = ten_differences(1_000_000).await;
    eprintln!("{} bytes on the wire in {:.1?}", rig.wire_bytes(), began.elapsed());
    assert!(rig.wire_bytes() < 2_000_000, "{} bytes", rig.wire_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_lacks_everything_is_found_to() {
    let rig = rig(Numbered { count: 2_500, ..Numbered::default() }, Numbered::default()).await;
    assert_eq!(rig.differences().await.unwrap().len(), 2_500);
    let rig = self::rig(Numbered::default(), Numbered { count: 2_500, ..Numbered::default() }).await;
    let found = rig.differences().await.unwrap();
    assert_eq!((found.len(), found[0], found[2_499]), (2_500, (0, "missing here"), (2_499, "missing here")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_read_is_never_an_empty_one() {
    let all = Numbered { count: 5_000, ..Numbered::default() };
    let broken = Numbered { unreadable: Some(4_321), ..all.clone() };
    let here = rig(broken.clone(), all.clone()).await.differences().await;
    assert!(matches!(&here, Err(Error::Store(store::Error::Unavailable(_)))), "{here:?}");
    let there = rig(all, broken).await.differences().await;
    assert!(matches!(&there, Err(Error::NoAnswer(why)) if why.contains("two drives are gone")), "{there:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_made_is_not_compared() {
    let here = Numbered { count: 100, foreign: [5].into(), ..Numbered::default() };
    let there = Numbered { count: 100, foreign: [5].into(), missing: [5].into(), ..Numbered::default() };
    assert_eq!(rig(here, there).await.differences().await.unwrap(), []);
}

fn ask_all(projection: Projection, bucket: &str) -> Question {
    let ask = Ask::Items { range: KeyRange::default(), behind: None };
    Question { bucket: bucket.into(), projection, ask, unknown: Fields::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_told_within_its_grant_only() {
    let store = Arc::new(Numbered { count: 4, foreign: [1, 2].into(), ..Numbered::default() });
    let told = async |peer: Option<PeerDoc>, question: Question| answer(store.clone(), "fra", peer, question).await;
    let relay = Projection { forward_all: true, ..projection() };
    let Answer::Items { items, is_last: true } = told(Some(peer("logs", "")), ask_all(relay, "logs")).await else {
        panic!("its own versions are told");
    };
    assert_eq!(items.iter().map(|i| i.key.as_str()).collect::<Vec<_>>(), [key(0), key(3)], "not another site's");
    let posing = Projection { source: Origin::new("waw"), ..projection() };
    let refused = [
        (Some(peer("other", "")), projection(), "bucket"),
        (Some(peer("logs", "ams/")), projection(), "prefix"),
        (Some(peer("logs", "")), posing, "another site's source"),
        (None, projection(), "no such peer"),
    ];
    for (peer, projection, why) in refused {
        let said = told(peer, ask_all(projection, "logs")).await;
        assert!(matches!(said, Answer::Refused(_)), "{why}: {said:?}");
    }
    let suspended = PeerDoc { suspend: true, ..peer("logs", "") };
    assert!(matches!(told(Some(suspended), ask_all(projection(), "logs")).await, Answer::Unavailable(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_that_descend_are_refused() {
    let store = Arc::new(Numbered { count: 4, ..Numbered::default() });
    let ranges = vec![KeyRange { after: Some(key(2)), upto: None }, KeyRange { after: None, upto: Some(key(1)) }];
    let question = Question { ask: Ask::Digests(ranges), ..ask_all(projection(), "logs") };
    assert!(matches!(answer(store, "fra", Some(peer("logs", "")), question).await, Answer::Refused(_)));
}
