//! Two replicators in this process, each over the store it is handed: `fra` sends to `ams` over mutual TLS through a
//! [`Wire`], with a journal on SQLite, as in production.
use crate::fixture::{Folder, document, shared, tenure};
use crate::wire::{State, Wire};
use isthmus::journal;
use isthmus::replicator::Replicator;
use isthmus::replicator::proof::Pace;
use isthmus::rule::watch_folder::Snapshot;
use isthmus::store::Store;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const BUCKET: &str = "logs";
/// Any fact that is waited for comes within this time, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a fact is looked at: the error of what is timed.
const LOOK: Duration = Duration::from_millis(5);

/// `fra`, `ams` and the line between them.
pub struct Pair {
    pub wire: Wire,
    pub fra: Arc<Replicator>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    _rules: [watch::Sender<Snapshot>; 2],
    _folder: Folder,
}

impl Pair {
    /// Starts both in a folder of their own below `dir`.
    pub async fn start(dir: &Path, fra: Arc<dyn Store>, ams: Arc<dyn Store>, state: State) -> anyhow::Result<Pair> {
        let folder = Folder::of_sites(tempfile::tempdir_in(dir)?);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let wire = Wire::start(listener.local_addr()?, state).await?;
        folder.write_sites(wire.addr.port(), &format!("[{{bucket: {BUCKET}}}]"));
        // One write in eight deletes: as a rule that would be a mass, and held back.
        let brake = "  brake: {percent: 100}";
        let rule = format!("  siteRef: {{name: fra}}\n  bucket: {BUCKET}\n{brake}\n  destinations: [{{peer: ams}}]");
        folder.write("fra", "rule.yaml", &document("ReplicationRule", "to-ams", &rule));
        let rules = [folder.read("fra"), folder.read("ams")];
        let receiving = replicator(&folder, "ams", ams, rules[1].subscribe()).await?;
        let fra = replicator(&folder, "fra", fra, rules[0].subscribe()).await?;
        folder.listen(listener, receiving.receiver()).await;
        let stop = CancellationToken::new();
        let (running, stopping) = (fra.clone(), stop.clone());
        let running = tokio::spawn(async move { running.run(stopping).await });
        Ok(Pair { wire, fra, stop, running, _rules: rules, _folder: folder })
    }

    /// Whether `fra` counts its peer as reached.
    pub fn is_up(&self) -> bool {
        self.fra.report().peers.iter().all(|p| p.is_up)
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
    folder: &Folder,
    site: &str,
    store: Arc<dyn Store>,
    rules: watch::Receiver<Snapshot>,
) -> anyhow::Result<Arc<Replicator>> {
    let file = folder.0.path().join(format!("{site}.sqlite"));
    let journal = journal::open(&journal::Settings::Sqlite(file)).await?;
    // Comparing is measured by another bench.
    let pace = Pace { pause: Duration::from_secs(86_400), ..Pace::default() };
    let tenure = tenure(site, &journal);
    Ok(folder.replicator(site, shared(store, journal, tenure, pace), rules).await)
}
