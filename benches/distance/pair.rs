//! Two replicators in this process, each over the store it is handed: `a` sends to `b` over mutual TLS through a
//! [`Wire`], with a journal on SQLite, as in production.
use crate::wire::{State, Wire};
use isthmus::cli::certs;
use isthmus::journal;
use isthmus::peer::server::{Counters, Known, Server, Settings};
use isthmus::replicator::Replicator;
use isthmus::replicator::own::Shared;
use isthmus::replicator::proof::Pace;
use isthmus::replicator::tenure::{Tenure, Terms};
use isthmus::rule::refs::Refs;
use isthmus::rule::watch_folder::{self, Snapshot};
use isthmus::store::Store;
use isthmus::telemetry::metrics::Metrics;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage_engine::clock::SystemClock;
use storage_engine::identity::{Files, Identity};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const BUCKET: &str = "logs";
const TRUST: &str = "bench.example";
/// Any fact that is waited for comes within this time, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often a fact is looked at: the error of what is timed.
const LOOK: Duration = Duration::from_millis(5);

/// `a`, `b` and the line between them.
pub struct Pair {
    pub wire: Wire,
    pub a: Arc<Replicator>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    _rules: [watch::Sender<Snapshot>; 2],
}

impl Pair {
    /// Starts both below `dir`.
    pub async fn start(dir: &Path, a: Arc<dyn Store>, b: Arc<dyn Store>, state: State) -> anyhow::Result<Pair> {
        let secrets = dir.join("secrets");
        certs::make(&secrets, TRUST, &[("a", &["127.0.0.1"]), ("b", &["127.0.0.1"])])?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let wire = Wire::start(listener.local_addr()?, state).await?;
        let at_a = documents(&dir.join("rules-a"), "a", "b", wire.addr, true)?;
        let at_b = documents(&dir.join("rules-b"), "b", "a", "127.0.0.1:1".parse()?, false)?;
        let receiving = replicator(dir, "b", b, at_b.subscribe()).await?;
        let sending = replicator(dir, "a", a, at_a.subscribe()).await?;
        let stop = CancellationToken::new();
        let own = Files::in_folder(&secrets.join("b"));
        let authority = own.authorities[0].clone();
        let known = Known { site: "a".into(), peer: "a".into(), authority };
        let server = Server {
            site: "b".into(),
            identity: Arc::new(Identity::load(own).await?),
            resolver: Arc::new(move |uri| (uri == certs::spiffe_id(TRUST, "a")).then(|| known.clone())),
            receiver: receiving.receiver(),
            clock: Arc::new(SystemClock),
            settings: Settings::default(),
            counters: Arc::new(Counters::default()),
        };
        tokio::spawn(Arc::new(server).run(listener, TaskTracker::new(), stop.clone()));
        let (running, stopping) = (sending.clone(), stop.clone());
        let running = tokio::spawn(async move { running.run(stopping).await });
        Ok(Pair { wire, a: sending, stop, running, _rules: [at_a, at_b] })
    }

    /// Whether `a` counts its peer as reached.
    pub fn is_up(&self) -> bool {
        self.a.report().peers.iter().all(|p| p.is_up)
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.running.await?)
    }
}

/// Waits for a fact; how long that took.
pub async fn until(what: &str, is_so: impl Fn() -> bool) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while !is_so() {
        anyhow::ensure!(began.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(LOOK).await;
    }
    Ok(began.elapsed())
}

async fn replicator(
    dir: &Path,
    site: &str,
    store: Arc<dyn Store>,
    rules: watch::Receiver<Snapshot>,
) -> anyhow::Result<Arc<Replicator>> {
    let journal = journal::open(&journal::Settings::Sqlite(dir.join(format!("{site}.sqlite")))).await?;
    let tenure = Arc::new(Tenure::new(journal.clone(), site.into(), Terms::default()));
    // Comparing is measured by another bench.
    let pace = Pace { pause: Duration::from_secs(86_400), ..Pace::default() };
    let (clock, metrics) = (Arc::new(SystemClock), Arc::new(Metrics::default()));
    let shared = Shared { store, journal, clock, metrics, tenure, pace };
    let own = rules.borrow().rules.sites[site].clone();
    let identity = Identity::load(Files::in_folder(&dir.join("secrets").join(site))).await?;
    Ok(Arc::new(Replicator::new(&own, shared, Refs::new(dir), Arc::new(identity), rules)))
}

/// The documents of a site, as a person would write them.
fn documents(
    dir: &Path,
    own: &str,
    peer: &str,
    at: SocketAddr,
    sends: bool,
) -> anyhow::Result<watch::Sender<Snapshot>> {
    fs::create_dir_all(dir)?;
    let document = |kind: &str, name: &str, spec: &str| {
        let text = format!(
            "apiVersion: replication.isthmus.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}\n"
        );
        fs::write(dir.join(format!("{kind}.yaml")), text)
    };
    document(
        "Site",
        own,
        &format!(
            "  siteID: {own}\n  trustDomain: {TRUST}\n  \
             store: {{apiEndpoint: \"https://127.0.0.1:1\", apiTlsSecretRef: {{name: {own}}}}}\n  \
             listener: {{advertisedEndpoint: \"https://127.0.0.1:1\", tlsSecretRef: {{name: {own}}}}}"
        ),
    )?;
    document(
        "Peer",
        peer,
        &format!(
            "  type: Replicator\n  replicator:\n    siteID: {peer}\n    endpoint: \"https://{at}\"\n    tls:\n      \
             caRef: {{kind: Secret, name: {own}}}\n      identities: [\"{}\"]\n    inbound:\n      \
             - {{bucket: {BUCKET}}}",
            certs::spiffe_id(TRUST, peer)
        ),
    )?;
    if sends {
        let rule = format!("  siteRef: {{name: {own}}}\n  bucket: {BUCKET}\n  destinations: [{{peer: {peer}}}]");
        document("ReplicationRule", "to-b", &rule)?;
    }
    let snapshot = watch_folder::read(dir, None).snapshot;
    anyhow::ensure!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    Ok(watch::Sender::new(snapshot))
}
