//! Two sides over real TLS, `ams` that compares and `fra` that answers, and versions that are made when they are read, so
//! that a million of them take no room. The tests of comparing and its benchmark share it.
use async_trait::async_trait;
use isthmus::cli::certs;
use isthmus::link::project::Projection;
use isthmus::link::{Reason, Why};
use isthmus::peer::client::{PeerClient, Target};
use isthmus::peer::frame::reconcile::{Answer, Question};
use isthmus::peer::server::{Counters, Known, Server, Settings};
use isthmus::peer::{Ack, Incoming, Receiver};
use isthmus::replicator::answer::answer;
use isthmus::replicator::far::FarEnd;
use isthmus::replicator::reconcile::Sides;
use isthmus::rule::{Grant, PeerDoc};
use isthmus::store::{Applied, Backlog, Batch, Body, BucketInfo, Cursor, Error, Interest, Store, Stretch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use storage_engine::clock::SystemClock;
use storage_engine::identity::{Files, Identity};
use storage_engine::version::{Birth, Hlc, Kind, Order, Origin, Version, VersionId};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const TRUST: &str = "test.example";
pub const BUCKET: &str = "logs";

/// Versions by number.
#[derive(Clone, Default)]
pub struct Numbered {
    pub count: u64,
    pub missing: BTreeSet<u64>,
    /// Born at another site than `ams`.
    pub foreign: BTreeSet<u64>,
    /// The stretch that holds this number cannot be read.
    pub unreadable: Option<u64>,
}

pub fn key(number: u64) -> String {
    format!("some/folder/of/a/bucket/object-{number:010}")
}

/// The number in a key; 0 where it is only the beginning of one.
pub fn number(key: &str) -> u64 {
    key.rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

pub fn version(number: u64, origin: &str) -> Version {
    let id = VersionId::from_bytes(u128::from(number + 1).to_be_bytes());
    let order = Order { hlc: Hlc::from_millis(number), origin: Origin::new(origin), version_id: id };
    let birth = Birth {
        size_bytes: 4096,
        etag: format!("{number:032x}"),
        crc64nvme: number,
        headers: BTreeMap::from([("content-type".into(), "application/octet-stream".into())]),
        ..Birth::blank(order, Kind::Object)
    };
    Version { birth: Some(birth), ..Version::blank(&key(number), id) }
}

#[async_trait]
impl Store for Numbered {
    async fn stretch(&self, _: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Stretch, Error> {
        // What is left of one key is asked for by the key.
        let first = after.map_or_else(|| number(prefix), |after| number(after) + 1);
        let last = (first + limit as u64).min(self.count);
        if self.unreadable.is_some_and(|number| (first..last).contains(&number)) {
            return Err(Error::Unavailable("two drives are gone".into()));
        }
        let held = (first..last).filter(|number| !self.missing.contains(number));
        let origin = |number: &u64| if self.foreign.contains(number) { "waw" } else { "ams" };
        let versions = held.map(|number| version(number, origin(&number))).collect();
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
    async fn backlog(&self, _: &str, _: Option<&Cursor>, _: &Interest) -> Result<Backlog, Error> {
        unasked()
    }
}

fn unasked<T>() -> Result<T, Error> {
    Err(Error::Unavailable("a comparison does not ask it".into()))
}

/// `ams` as `fra` knows it.
pub fn peer(bucket: &str, prefix: &str) -> PeerDoc {
    let grant = Grant {
        bucket: bucket.into(),
        prefix: prefix.into(),
        origins: vec![],
        deletes: true,
        version_deletes: true,
        documents: false,
    };
    PeerDoc { inbound: vec![grant], ..PeerDoc::bare("ams") }
}

pub fn projection() -> Projection {
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

/// `fra`, which only answers.
struct Answering(Arc<dyn Store>);

#[async_trait]
impl Receiver for Answering {
    async fn receive(&self, _: Incoming) -> Ack {
        Ack::Refused(Why::new(Reason::Other, "a comparison sends nothing"))
    }
    async fn highest_epoch(&self, _: &str, _: &str) -> u64 {
        0
    }
    async fn answer(&self, site: &str, _: &str, question: Question) -> Answer {
        assert_eq!(site, "ams");
        answer(self.0.clone(), "fra", Some(peer(BUCKET, "")), question).await
    }
}

/// `ams` here compares with `fra` there.
pub struct Rig {
    pub sides: Sides,
    /// Bytes `fra` has read and written, after TLS.
    counters: Arc<Counters>,
    _line: watch::Sender<Option<FarEnd>>,
    _certificates: tempfile::TempDir,
}

/// Both sides over these stores.
pub async fn rig(here: Arc<dyn Store>, there: Arc<dyn Store>) -> Rig {
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
        store: here,
        bucket: BUCKET.into(),
        peer_bucket: BUCKET.into(),
        projection: Arc::new(projection()),
        line,
        lease: None,
        wire_bytes: 0.into(),
        questions: 0.into(),
    };
    Rig { sides, counters, _line: tell, _certificates: certificates }
}

impl Rig {
    /// Bytes that crossed the line, after TLS.
    pub fn wire_bytes(&self) -> u64 {
        self.counters.bytes_in.load(Ordering::Relaxed) + self.counters.bytes_out.load(Ordering::Relaxed)
    }
}
