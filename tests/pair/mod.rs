//! Two sites in one process for tests: `fra` sends to `ams`, which listens with real TLS. Stores on drives in memory,
//! certificates, documents, replicators; what is special stays with each test.
#![allow(dead_code)] // each test takes what it needs
use bytes::Bytes;
use futures::StreamExt;
use isthmus::cli::certs;
use isthmus::journal::Journal;
use isthmus::peer::Receiver;
use isthmus::peer::server::{Counters, Known, Server, Settings};
use isthmus::replicator::Replicator;
use isthmus::replicator::job::Asked;
use isthmus::replicator::own::Shared;
use isthmus::replicator::proof::Pace;
use isthmus::replicator::tenure::{Tenure, Terms};
use isthmus::replicator::verify::LinkVerify;
use isthmus::rule::refs::Refs;
use isthmus::rule::watch_folder::{self, Snapshot};
use isthmus::store::Store;
use isthmus::telemetry::metrics::Metrics;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::{Clock, SystemClock};
use storage_engine::drive::Drive;
use storage_engine::drive::memory::MemoryDrive;
use storage_engine::identity::{Files, Identity};
use storage_engine::object::{Body, Objects, Versioning};
use storage_engine::version::Origin;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const TRUST: &str = "test.example";

/// A store on four drives in memory.
pub fn objects(origin: &str) -> Objects {
    objects_by(origin, Arc::new(SystemClock))
}

/// The same with a clock of its own.
pub fn objects_by(origin: &str, clock: Arc<dyn Clock>) -> Objects {
    let drives = (0..4).map(|slot| Arc::new(MemoryDrive::new(slot)) as Arc<dyn Drive>).collect();
    Objects::new(drives, 2, clock, Origin::new(origin))
}

/// The same over these drives.
pub fn objects_over(origin: &str, drives: &[Arc<MemoryDrive>]) -> Objects {
    let drives = drives.iter().map(|drive| drive.clone() as Arc<dyn Drive>).collect();
    Objects::new(drives, 2, Arc::new(SystemClock), Origin::new(origin))
}

/// A store on four drives in memory with versioned buckets.
pub async fn objects_with(origin: &str, buckets: &[&str]) -> Objects {
    let objects = objects(origin);
    for bucket in buckets {
        objects.create_bucket(bucket, Versioning::Enabled).await.unwrap();
    }
    objects
}

/// A body of one piece.
pub fn body(bytes: impl Into<Bytes>) -> Body {
    futures::stream::iter([Ok(bytes.into())]).boxed()
}

/// A document with its spec, which is indented by two.
pub fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: replication.isthmus.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}\n")
}

/// A journal that nobody else has.
pub fn tenure(site: &str, journal: &Arc<dyn Journal>) -> Arc<Tenure> {
    Arc::new(Tenure::new(journal.clone(), site.into(), Terms::default()))
}

/// Everything a replicator shares between its links.
pub fn shared(store: Arc<dyn Store>, journal: Arc<dyn Journal>, tenure: Arc<Tenure>, pace: Pace) -> Shared {
    let (clock, metrics) = (Arc::new(SystemClock), Arc::new(Metrics::of("a-site")));
    Shared { store, journal, clock, metrics, tenure, pace }
}

/// The folder of both sites: their certificates and their documents.
pub struct Folder(pub TempDir);

impl Folder {
    /// With certificates of both sites.
    pub fn new() -> Folder {
        Folder::of_sites(tempfile::tempdir().unwrap())
    }

    /// The same in a folder made before.
    pub fn of_sites(dir: TempDir) -> Folder {
        let hosts: &[&str] = &["127.0.0.1"];
        certs::make(&dir.path().join("secrets"), TRUST, &[("fra", hosts), ("ams", hosts)]).unwrap();
        Folder(dir)
    }

    /// The documents of a site.
    pub fn of(&self, site: &str) -> PathBuf {
        self.0.path().join(site)
    }

    pub fn write(&self, site: &str, file: &str, text: &str) {
        fs::write(self.of(site).join(file), text).unwrap();
    }

    /// The documents of both sites but for rules: themselves, and each other as peers that may write what `inbound`
    /// says, a YAML list in one line; `ams` is reached at `port`.
    pub fn write_sites(&self, port: u16, inbound: &str) {
        for (own, peer, port) in [("fra", "ams", port), ("ams", "fra", 1)] {
            fs::create_dir_all(self.of(own)).unwrap();
            let site = format!(
                "  siteID: {own}\n  trustDomain: {TRUST}\n  store: {{apiEndpoint: \"https://127.0.0.1:1\", apiTlsSecretRef: {{name: {own}}}}}\n  \
                 listener: {{advertisedEndpoint: \"https://127.0.0.1:1\", tlsSecretRef: {{name: {own}}}}}"
            );
            self.write(own, "site.yaml", &document("Site", own, &site));
            let spec = format!(
                "  type: Replicator\n  replicator:\n    siteID: {peer}\n    endpoint: \"https://127.0.0.1:{port}\"\n    tls:\n      \
                 caRef: {{kind: Secret, name: {own}}}\n      identities: [\"{}\"]\n    inbound: {inbound}",
                certs::spiffe_id(TRUST, peer)
            );
            self.write(own, "peer.yaml", &document("Peer", peer, &spec));
        }
    }

    /// The documents of a site as they are now.
    #[track_caller]
    pub fn read(&self, site: &str) -> watch::Sender<Snapshot> {
        let snapshot = watch_folder::read(&self.of(site), None).snapshot;
        assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
        watch::Sender::new(snapshot)
    }

    pub async fn replicator(&self, site: &str, shared: Shared, rules: watch::Receiver<Snapshot>) -> Arc<Replicator> {
        let own = rules.borrow().rules.sites[site].clone();
        let identity = Identity::load(self.files(site)).await.unwrap();
        Arc::new(Replicator::new(&own, shared, Refs::new(self.0.path()), Arc::new(identity), rules))
    }

    /// Site `ams` listens, to `fra` alone.
    pub async fn listen(&self, listener: TcpListener, receiver: Arc<dyn Receiver>) {
        let own = self.files("ams");
        let authority = own.authorities[0].clone();
        let server = Server {
            site: "ams".into(),
            identity: Arc::new(Identity::load(own).await.unwrap()),
            resolver: Arc::new(move |uri| {
                let is_fra = uri == certs::spiffe_id(TRUST, "fra");
                is_fra.then(|| Known { site: "fra".into(), peer: "fra".into(), authority: authority.clone() })
            }),
            receiver,
            clock: Arc::new(SystemClock),
            settings: Settings::default(),
            counters: Arc::new(Counters::default()),
        };
        tokio::spawn(Arc::new(server).run(listener, TaskTracker::new(), CancellationToken::new()));
    }

    fn files(&self, site: &str) -> Files {
        Files::in_folder(&self.0.path().join("secrets").join(site))
    }
}

/// What a job finds of its one link: asked of one replicator of a site, carried out by whoever pushes the link.
pub async fn job(at: &Replicator, uid: &str, asked: Asked) -> LinkVerify {
    at.ask_for_job(uid, asked).await.unwrap();
    let ended = async {
        loop {
            let report = at.job_report(uid).expect("it is asked for").expect("there is a link");
            if !report.is_running() {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let report = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the job ends");
    let [link] = report.links.as_slice() else { panic!("one link: {report:?}") };
    link.clone()
}
