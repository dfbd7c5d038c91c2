//! A peer that lies: it has a good certificate and speaks the protocol, and sends what it may not. Every lie is refused
//! with a reason, counted, and leaves nothing to be seen; the connection lives on, and what is honest still arrives.
use bytes::Bytes;
use futures::StreamExt;
use isthmus::cli::certs;
use isthmus::journal::memory::MemoryJournal;
use isthmus::peer::client::{Connection, PeerClient, Target};
use isthmus::peer::frame::bucket::BucketAsk;
use isthmus::peer::frame::read::{Found, Read};
use isthmus::peer::frame::reconcile::Answer;
use isthmus::peer::server::{Counters, Known, Server, Settings};
use isthmus::peer::{Ack, Outgoing};
use isthmus::replicator::receive::Receive;
use isthmus::replicator::report::SiteReport;
use isthmus::rule::watch_folder::{self, Snapshot};
use isthmus::store::bundled::BundledStore;
use isthmus::telemetry::metrics::Metrics;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use storage_engine::bucket::document::{Document, Kind as DocumentKind};
use storage_engine::clock::{Clock, SystemClock};
use storage_engine::drive::Drive;
use storage_engine::drive::memory::MemoryDrive;
use storage_engine::identity::{Files, Identity};
use storage_engine::object::{List, Objects, Put, Versioning};
use storage_engine::version::{Hlc, Kind, Order, Origin, Part, Stamp, Tags, Version, VersionId};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const TRUST: &str = "test.example";
const BUCKETS: [&str; 2] = ["logs", "secret"];
const BYTES: &[u8] = b"bytes of the version";

fn objects(origin: &str) -> Objects {
    let drives = (0..4).map(|slot| Arc::new(MemoryDrive::new(slot)) as Arc<dyn Drive>).collect();
    Objects::new(drives, 2, Arc::new(SystemClock), Origin::new(origin))
}

/// `ams` listens; `fra` may bring versions of its own under `logs/allowed/`, and no deletes.
struct World {
    dir: tempfile::TempDir,
    ams: Objects,
    /// Where `fra` makes its versions.
    fra: Objects,
    metrics: Arc<Metrics>,
    counters: Arc<Counters>,
    target: Target,
    tasks: TaskTracker,
    next: AtomicU64,
    _rules: watch::Sender<Snapshot>,
}

impl World {
    async fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().join("secrets");
        certs::make(&secrets, TRUST, &[("fra", &["127.0.0.1"]), ("ams", &["127.0.0.1"])]).unwrap();
        let (ams, fra) = (objects("ams"), objects("fra"));
        for (store, bucket) in [(&ams, BUCKETS[0]), (&ams, BUCKETS[1]), (&fra, BUCKETS[0])] {
            store.create_bucket(bucket, Versioning::Enabled).await.unwrap();
        }
        let rules = rules(&dir.path().join("rules"));
        let metrics = Arc::new(Metrics::of("ams"));
        let receive = Receive {
            site_id: "ams".into(),
            rules: rules.subscribe(),
            store: Arc::new(BundledStore(ams.clone())),
            journal: Arc::new(MemoryJournal::default()),
            clock: Arc::new(SystemClock),
            metrics: metrics.clone(),
            drills: Default::default(),
            epochs: Default::default(),
            conflicts: 0.into(),
            refused: 0.into(),
        };
        let own = Files::in_folder(&secrets.join("ams"));
        let known = Known { site: "fra".into(), peer: "fra".into(), authority: own.authorities[0].clone() };
        let counters = Arc::new(Counters::default());
        let server = Server {
            site: "ams".into(),
            identity: Arc::new(Identity::load(own).await.unwrap()),
            resolver: Arc::new(move |uri| (uri == certs::spiffe_id(TRUST, "fra")).then(|| known.clone())),
            receiver: Arc::new(receive),
            clock: Arc::new(SystemClock),
            settings: Settings::default(),
            counters: counters.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            endpoint: listener.local_addr().unwrap().to_string(),
            server_name: "127.0.0.1".into(),
            identities: vec![certs::spiffe_id(TRUST, "ams")],
            site: "fra".into(),
            peer_site: "ams".into(),
        };
        tokio::spawn(Arc::new(server).run(listener, TaskTracker::new(), CancellationToken::new()));
        let (tasks, next) = (TaskTracker::new(), AtomicU64::new(0));
        World { dir, ams, fra, metrics, counters, target, tasks, next, _rules: rules }
    }

    async fn connect(&self) -> Connection {
        let own = Files::in_folder(&self.dir.path().join("secrets/fra"));
        PeerClient::connect(&self.target, &Identity::load(own).await.unwrap(), &self.tasks).await.unwrap()
    }

    /// A version as an honest `fra` would send it, under a key of its own.
    async fn honest(&self) -> Outgoing {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let body = futures::stream::iter([Ok(Bytes::from_static(BYTES))]).boxed();
        let written = self.fra.put(BUCKETS[0], &format!("allowed/{number}"), Put::default(), body).await.unwrap();
        outgoing(written.version)
    }

    /// How often versions were refused, by the reason that is shown.
    fn refused(&self, reason: &str) -> u64 {
        let text = self.metrics.encode(&SiteReport::default());
        let is_it = |l: &&str| l.starts_with("isthmus_peer_frames_refused_total") && l.contains(reason);
        let line = text.lines().find(is_it);
        line.and_then(|l| l.rsplit(' ').next()).map_or(0, |n| n.parse::<f64>().unwrap() as u64)
    }

    /// Everything `ams` shows, of all buckets; tombstones and what waits for its birth too.
    async fn held(&self) -> usize {
        let mut all = 0;
        for bucket in BUCKETS {
            all += self.ams.stretch(bucket, "", None, 10_000).await.unwrap().versions.len();
            let list = List { limit: 10_000, versions: true, ..List::default() };
            all += self.ams.list(bucket, list).await.unwrap().entries.len();
        }
        all
    }
}

fn outgoing(version: Version) -> Outgoing {
    let has_bytes = version.birth.as_ref().is_some_and(|b| b.size_bytes > 0);
    Outgoing {
        link: "rule/bucket".into(),
        epoch: 7,
        may_send: Arc::new(|| true),
        bucket: BUCKETS[0].into(),
        version,
        body: has_bytes.then(|| futures::stream::iter([Ok(Bytes::from_static(BYTES))]).boxed()),
        portion: Default::default(),
        traceparent: None,
        relayed: false,
    }
}

fn rules(dir: &Path) -> watch::Sender<Snapshot> {
    std::fs::create_dir_all(dir).unwrap();
    let document = |kind: &str, name: &str, spec: &str| {
        let text = format!(
            "apiVersion: replication.isthmus.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}\n"
        );
        std::fs::write(dir.join(format!("{kind}.yaml")), text).unwrap();
    };
    document(
        "Site",
        "ams",
        &format!(
            "  siteID: ams\n  trustDomain: {TRUST}\n  store: {{apiEndpoint: \"https://127.0.0.1:1\", apiTlsSecretRef: {{name: ams}}}}\n  \
             listener: {{advertisedEndpoint: \"https://127.0.0.1:1\", tlsSecretRef: {{name: ams}}}}"
        ),
    );
    let identity = certs::spiffe_id(TRUST, "fra");
    document(
        "Peer",
        "fra",
        &format!(
            "  type: Replicator\n  replicator:\n    siteID: fra\n    endpoint: \"https://127.0.0.1:1\"\n    tls:\n      \
             caRef: {{kind: Secret, name: ams}}\n      identities: [\"{identity}\"]\n    inbound:\n      \
             - {{bucket: logs, prefix: allowed/, deletes: Disabled, documents: Enabled}}"
        ),
    );
    let snapshot = watch_folder::read(dir, None).snapshot;
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    watch::Sender::new(snapshot)
}

fn birth(lie: &mut Outgoing) -> &mut storage_engine::version::Birth {
    lie.version.birth.as_mut().expect("the tests lie about born versions")
}

/// What an answer is called in the table of lies.
fn word(ack: &Ack) -> &'static str {
    match ack {
        Ack::Refused(_) => "refused",
        Ack::Retry { .. } => "retry",
        Ack::ClockAhead { .. } => "clock ahead",
        Ack::Fenced { .. } => "fenced",
        Ack::NeedsBody | Ack::NeedsPieces { .. } => "needs body",
        Ack::Applied | Ack::AlreadyPresent | Ack::Superseded => "taken",
    }
}

type Lie = (&'static str, fn(&mut Outgoing), &'static str, &'static str);

/// What is lied about, how, the answer, and as what it is counted.
const LIES: [Lie; 15] = [
    ("a bucket of somebody else", |lie| lie.bucket = "secret".into(), "refused", "grant"),
    ("a bucket that is not there", |lie| lie.bucket = "nowhere".into(), "refused", "grant"),
    ("a key outside its prefix", |lie| lie.version.key = "private/1".into(), "refused", "grant"),
    ("another site's birth", |lie| birth(lie).order.origin = Origin::new("ams"), "refused", "grant"),
    (
        "another site's birth, said to be relayed",
        |lie| {
            lie.relayed = true;
            birth(lie).order.origin = Origin::new("lon");
        },
        "refused",
        "grant",
    ),
    (
        "another site's tags",
        |lie| {
            let stamp = Stamp::new(Hlc::from_millis(SystemClock.now_millis()), Origin::new("ams"));
            lie.version.tags = Some(Tags::new(stamp, [("class".into(), "secret".into())].into()));
        },
        "refused",
        "grant",
    ),
    (
        "a delete it may not make",
        |lie| {
            birth(lie).kind = Kind::DeleteMarker;
            birth(lie).size_bytes = 0;
            lie.body = None;
        },
        "refused",
        "grant",
    ),
    (
        "a time to come",
        |lie| birth(lie).order.hlc = Hlc::from_millis(SystemClock.now_millis() + 3_600_000),
        "clock ahead",
        "clock_ahead",
    ),
    ("other bytes", |lie| birth(lie).crc64nvme ^= 1, "retry", "digest"),
    ("more bytes than there are", |lie| birth(lie).size_bytes += 1, "lost", ""),
    ("an epoch that is over", |lie| lie.epoch = 6, "fenced", "epoch"),
    ("an epoch nobody can have", |lie| lie.epoch = u64::MAX, "retry", ""),
    ("a key of two kilobytes", |lie| lie.version.key = format!("allowed/{}", "k".repeat(2048)), "refused", "malformed"),
    (
        "an order under another version's id",
        |lie| {
            let Order { hlc, origin, .. } = birth(lie).order.clone();
            birth(lie).order = Order { hlc, origin, version_id: VersionId::from_bytes([9; 16]) };
        },
        "refused",
        "malformed",
    ),
    (
        "parts that are not its bytes",
        |lie| {
            let part = |size_bytes| Part {
                number: 1,
                size_bytes,
                etag: String::new(),
                checksums: Default::default(),
                unknown: Default::default(),
            };
            birth(lie).parts = vec![part(u64::MAX), part(2)];
        },
        "refused",
        "malformed",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_reads_only_what_it_may_bring_itself() {
    let world = World::new().await;
    let line = world.connect().await;
    let body = || futures::stream::iter([Ok(Bytes::from_static(BYTES))]).boxed();
    for (bucket, key) in [("logs", "allowed/1"), ("logs", "private/1"), ("secret", "allowed/1")] {
        world.ams.put(bucket, key, Put::default(), body()).await.unwrap();
    }
    let read = |bucket: &str, key: &str, offset| Read {
        bucket: bucket.into(),
        key: key.into(),
        version_id: None,
        offset,
        bytes: 100,
        unknown: Default::default(),
    };
    let Found::Version { version, bytes } = line.read(read("logs", "allowed/1", 6)).await.unwrap() else {
        panic!("what it may write it may read")
    };
    assert_eq!((version.key.as_str(), &bytes[..]), ("allowed/1", &BYTES[6..]));
    for (bucket, key) in [("logs", "private/1"), ("secret", "allowed/1")] {
        let found = line.read(read(bucket, key, 0)).await.unwrap();
        assert!(matches!(found, Found::Refused(_)), "{bucket}/{key}: {found:?}");
    }
    assert_eq!(line.read(read("logs", "allowed/nothing", 0)).await.unwrap(), Found::Nothing);
    let deleted = world.ams.delete("logs", "allowed/1", None, Default::default(), false).await.unwrap();
    assert!(deleted.delete_marker);
    assert_eq!(line.read(read("logs", "allowed/1", 0)).await.unwrap(), Found::Nothing, "a marker stands on top");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lie_of_a_peer_is_refused_counted_and_invisible() {
    let world = World::new().await;
    let line = world.connect().await;
    assert_eq!(line.push(world.honest().await).await.unwrap(), Ack::Applied);
    let mut held = world.held().await;
    assert_eq!(held, 2, "one version, in the listing and in the stretch");
    for (lie, tell, answer, counted) in LIES {
        let before = world.refused(counted);
        let mut outgoing = world.honest().await;
        tell(&mut outgoing);
        let said = line.push(outgoing).await;
        let said = match &said {
            Ok(ack) => word(ack),
            // Its own end does not send what it does not have.
            Err(isthmus::peer::client::Error::Body(_)) => "lost",
            Err(e) => panic!("{lie}: the connection ended: {e}"),
        };
        assert_eq!(said, answer, "{lie}");
        if !counted.is_empty() {
            assert_eq!(world.refused(counted), before + 1, "{lie} is counted as {counted}");
        }
        assert_eq!(world.held().await, held, "{lie} left something");
        assert_eq!(line.push(world.honest().await).await.unwrap(), Ack::Applied, "the truth after {lie}");
        held += 2;
    }
    assert_eq!(world.counters.connections.load(Ordering::Relaxed), 1, "all over one connection");
}

const CORS: &str = "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>\
    </CORSRule></CORSConfiguration>";

type DocumentLie = (DocumentKind, &'static str, fn(&str) -> String);

/// Documents that a front door would have refused, and what they are made of.
const DOCUMENT_LIES: [DocumentLie; 6] = [
    (DocumentKind::Cors, "no document at all", |_| "{\"cors\": true}".into()),
    (DocumentKind::Cors, "a method nobody knows", |cors| cors.replace(">GET<", ">BREW<")),
    (DocumentKind::Cors, "a thousand rules", |cors| {
        let rule = &cors["<CORSConfiguration>".len()..cors.len() - "</CORSConfiguration>".len()];
        format!("<CORSConfiguration>{}</CORSConfiguration>", rule.repeat(1000))
    }),
    (DocumentKind::Lifecycle, "another document", |cors| cors.into()),
    (DocumentKind::Tags, "one tag twice", |_| "team=a&team=b".into()),
    (DocumentKind::Policy, "a policy", |_| "{}".into()),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_document_of_no_form_is_refused_counted_named_and_not_kept() {
    let world = World::new().await;
    let line = world.connect().await;
    let bring = async |kind, text: String| {
        let stamp = Stamp::new(Hlc::from_millis(SystemClock.now_millis()), Origin::new("fra"));
        let documents = vec![Document { kind, stamp, text: Some(text) }];
        let (link, bucket) = ("rule/bucket".into(), BUCKETS[0].into());
        let ask = BucketAsk { link, epoch: 7, bucket, documents, relayed: false, unknown: Default::default() };
        match line.ask_bucket(ask).await {
            Ok(Answer::Bucket(Some(state))) => state.refused,
            other => panic!("{other:?}"),
        }
    };
    for (kind, lie, tell) in DOCUMENT_LIES {
        let before = world.refused("document");
        let refused = bring(kind, tell(CORS)).await.unwrap_or_else(|| panic!("{lie} was taken"));
        assert!(refused.contains(BUCKETS[0]), "{lie}: {refused}");
        assert_eq!(world.refused("document"), before + 1, "{lie} is counted");
        assert_eq!(world.ams.bucket_documents(BUCKETS[0]).await.unwrap(), [], "{lie} was kept");
        assert_eq!(line.push(world.honest().await).await.unwrap(), Ack::Applied, "the truth after {lie}");
    }
    assert_eq!(bring(DocumentKind::Cors, CORS.into()).await, None);
    assert_eq!(world.ams.bucket_document(BUCKETS[0], DocumentKind::Cors).await.unwrap().as_deref(), Some(CORS));
}
