use super::line::Target;
use super::*;
use crate::cli::certs;
use crate::store::conformance::{BUCKET, body, drives, within};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use storage_engine::api::serve;
use storage_engine::clock::SystemClock;
use storage_engine::config::{Limits, Settings};
use storage_engine::drive::Drive;
use storage_engine::drive::memory::MemoryDrive;
use storage_engine::identity::Files;
use storage_engine::node::StoreNode;
use storage_engine::object::{Objects, Put, Versioning};
use storage_engine::version::Origin;
use tokio::task::JoinHandle;

const TRUST: &str = "test.example";

/// A store that serves its private API to the replicator of `here`.
pub struct Served {
    certificates: tempfile::TempDir,
    drives: Vec<Arc<dyn Drive>>,
    pub addr: SocketAddr,
    pub objects: Objects,
    pub node_metrics: Arc<storage_engine::metrics::Metrics>,
    stop: CancellationToken,
    running: JoinHandle<std::io::Result<()>>,
    tasks: TaskTracker,
}

impl Served {
    pub async fn start() -> Served {
        Self::with(drives()).await
    }

    async fn with(drives: Vec<Arc<dyn Drive>>) -> Served {
        let certificates = tempfile::tempdir().unwrap();
        let hosts: &[&str] = &["localhost", "127.0.0.1"];
        certs::make(certificates.path(), TRUST, &[("here", hosts), ("there", hosts)]).unwrap();
        let served = Self::over(certificates, drives, ([127, 0, 0, 1], 0).into()).await;
        served.objects.create_bucket(BUCKET, Versioning::Enabled).await.unwrap();
        served
    }

    async fn over(certificates: tempfile::TempDir, drives: Vec<Arc<dyn Drive>>, listen: SocketAddr) -> Served {
        let settings = Settings {
            drives: Vec::new(),
            parity: None,
            s3_listen: ([127, 0, 0, 1], 0).into(),
            s3_tls_dir: None,
            region: "us-east-1".into(),
            users: Vec::new(),
            buckets: Vec::new(),
            limits: Limits::default(),
        };
        let (clock, origin) = (Arc::new(SystemClock), Origin::new("here"));
        let mut node = StoreNode::over(drives.clone(), 2, &settings, BTreeMap::new(), clock, origin);
        let files = Files::in_folder(&certificates.path().join("here/store"));
        let clients = vec![certs::spiffe_id(TRUST, "here")];
        node.serve_api(&serve::Settings { listen, files, clients }).await.unwrap();
        node.bind().await.unwrap();
        let (addr, objects, node_metrics) = (node.api_addr().unwrap(), node.objects(), node.metrics());
        let stop = CancellationToken::new();
        let running = tokio::spawn(node.run(stop.clone()));
        Served { certificates, drives, addr, objects, node_metrics, stop, running, tasks: TaskTracker::new() }
    }

    /// Dies as a process does, and comes back on the same port over the same drives.
    async fn die(self) -> (tempfile::TempDir, Vec<Arc<dyn Drive>>, SocketAddr) {
        self.running.abort();
        let _ = self.running.await;
        (self.certificates, self.drives, self.addr)
    }

    /// A replicator's store, as the holder of the certificate in `folder`.
    async fn dial(&self, folder: &str, change: impl FnOnce(&mut Target)) -> Arc<NetworkStore> {
        let files = Files::in_folder(&self.certificates.path().join(folder));
        let identity = Arc::new(Identity::load(files).await.unwrap());
        let mut target = Target {
            endpoint: self.addr.to_string(),
            server_name: "localhost".into(),
            identity: certs::store_id(TRUST, "here"),
            origin: "here".into(),
        };
        change(&mut target);
        Arc::new(NetworkStore::start(target, identity, &self.tasks, self.stop.child_token()))
    }

    pub async fn connect(&self) -> Arc<NetworkStore> {
        let store = self.dial("here", |_| {}).await;
        within(store.bucket(BUCKET)).await.unwrap();
        store
    }
}

/// Why the line does not stand, once something was tried.
async fn trouble(store: &NetworkStore) -> String {
    let told = |line: &Line| matches!(line, Line::Down(why) if why != "not dialled yet");
    within(store.line.clone().wait_for(told)).await.unwrap();
    store.trouble().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_tail_goes_on_where_it_was_when_the_store_comes_back() {
    let served = Served::start().await;
    let store = served.dial("here", |_| {}).await;
    let put = async |served: &Served, key: &str| {
        served.objects.put(BUCKET, key, Put::default(), body(b"bytes")).await.unwrap().version
    };
    let first = put(&served, "first").await;
    let batch = within(store.changes(BUCKET, None, 10)).await.unwrap();
    assert_eq!(batch.events[0].version, first);
    let tail = {
        let (store, cursor) = (store.clone(), batch.cursor.clone());
        tokio::spawn(async move { store.changes(BUCKET, Some(&cursor), 10).await })
    };
    let tasks = served.tasks.clone();
    let (certificates, drives, addr) = served.die().await;
    trouble(&store).await;
    assert!(
        matches!(store.backlog(BUCKET, None, &Interest::default()).await, Err(Error::Unavailable(why)) if why.contains("127.0.0.1"))
    );
    let served = Served::over(certificates, drives, addr).await;
    let second = put(&served, "second").await;
    let mut batch = within(tail).await.unwrap().unwrap();
    // A drive that was behind when the store died may show the first once more, but nothing is left out.
    while batch.events.iter().all(|e| e.version != second) {
        assert!(batch.events.iter().all(|e| e.version == first), "{:?}", batch.events);
        batch = within(store.changes(BUCKET, Some(&batch.cursor), 10)).await.unwrap();
    }
    assert_eq!(store.trouble(), None);
    drop(tasks);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_the_named_replicator_may_ask() {
    let served = Served::start().await;
    for stranger in ["there", "here/store", "there/store"] {
        let store = served.dial(stranger, |_| {}).await;
        trouble(&store).await;
        assert!(matches!(store.bucket(BUCKET).await, Err(Error::Unavailable(_))), "{stranger}");
    }
    let counted = || served.node_metrics.snapshot().callers_refused["unknown_client"];
    assert!(counted() >= 3, "{}", counted());
    within(served.connect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_ours_is_not_asked() {
    let served = Served::start().await;
    let other = served.dial("here", |t| t.identity = certs::store_id(TRUST, "there")).await;
    assert!(trouble(&other).await.contains("names spiffe://test.example/site/here/store"));
    let other = served.dial("here", |t| t.origin = "there".into()).await;
    let why = trouble(&other).await;
    assert!(why.contains("it is the store of site here"), "{why}");
    let other = served.dial("here", |t| t.server_name = "elsewhere.example".into()).await;
    assert!(trouble(&other).await.contains("TLS"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_is_told_and_counted_by_what_was_asked() {
    let memory: Vec<_> = (0..4).map(|slot| Arc::new(MemoryDrive::new(slot))).collect();
    let served = Served::with(memory.iter().map(|d| d.clone() as Arc<dyn Drive>).collect()).await;
    let store = served.connect().await;
    let version = served.objects.put(BUCKET, "key", Put::default(), body(b"bytes")).await.unwrap().version;
    let lost = || {
        let seen = served.node_metrics.snapshot();
        (seen.reads_without_quorum, seen.writes_without_quorum)
    };
    assert_eq!(lost(), (0, 0));
    memory[..3].iter().for_each(|drive| drive.set_offline(true));
    let read = within(store.stat(BUCKET, "other", version.id)).await;
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    assert_eq!(lost(), (1, 0));
    let written = within(store.apply_version(BUCKET, version, Some(body(b"bytes")), None)).await;
    assert!(matches!(written, Err(Error::Unavailable(_))), "{written:?}");
    assert_eq!(lost(), (1, 1));
}
