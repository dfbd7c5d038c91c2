//! Role `site`: a store node and a replicator in one process, joined by a function call. Everything is
//! checked and opened before a port is bound; the stop goes the other way.
use super::Failed::{self, Configuration, Internal};
use super::replication::Replication;
use super::{ended, refused, write_ports};
use crate::config;
use crate::replicator::neighbour::Neighbours;
use crate::replicator::report::{Certificate, OtherCertificate, OtherCertificates};
use crate::shutdown;
use crate::store::bundled::BundledStore;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace;
use anyhow::{Context, anyhow};
use std::path::Path;
use std::sync::Arc;
use storage_engine::clock::{Clock, SystemClock};
use storage_engine::node::StoreNode;
use storage_engine::version::Origin;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs until a signal; returns the exit code.
pub async fn run(file: &Path) -> u8 {
    match config::site(file) {
        Ok(settings) => ended(serve(settings).await),
        Err(problems) => refused(&problems),
    }
}

async fn serve(settings: config::Site) -> Result<(), Failed> {
    let stop = shutdown::on_signal().context("listen for signals").map_err(Internal)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ports_file = settings.replicator.ports_file.clone();
    // It waits as long as an API server is away.
    let Some(opened) = stop.run_until_cancelled(Replication::open(settings.replicator)).await else { return Ok(()) };
    let replication = opened?;
    let origin = Origin::new(&replication.site.site_id);
    let node = StoreNode::open(&settings.store, clock.clone(), origin).await;
    let mut node = node.context("open the store").map_err(Configuration)?;

    node.bind().await.map_err(|e| Configuration(e.into()))?;
    let site = replication.site.site_id.clone();
    let replication = replication.bind().await.map_err(Configuration)?;
    let mut addresses = replication.addresses();
    addresses["s3"] = serde_json::json!(node.s3_addr());
    tracing::info!(site, %addresses, "Listening.");
    write_ports(ports_file.as_deref(), &addresses).map_err(Internal)?;

    trace::at_site(&site);
    let mut metrics = Metrics::of(&site);
    metrics.collect(crate::telemetry::store::Counted::of(&node));
    let (tasks, store_stop) = (TaskTracker::new(), CancellationToken::new());
    let replication = replication.also_showing(shown_by(&node));
    let bundled = Arc::new(BundledStore(node.objects()));
    let neighbours = Arc::new(Neighbours::default());
    bundled.0.set_neighbour(neighbours.clone());
    let store = tasks.spawn(node.run(store_stop.clone()));

    // Intake and links first, then the store under them; what is not done by the deadline is said and cut.
    replication.run(bundled, metrics, clock, &tasks, stop, store_stop.clone(), neighbours).await;
    store_stop.cancel();
    match tokio::time::timeout(shutdown::DEADLINE, store).await {
        Ok(Ok(Ok(()))) => {
            tracing::info!("Stopped.");
            Ok(())
        }
        Ok(Ok(Err(e))) => Err(Internal(anyhow!(e).context("serve S3"))),
        Ok(Err(e)) => Err(Internal(anyhow!(e).context("run the store"))),
        Err(_) => Err(Internal(anyhow!("the store did not stop within {}s", shutdown::DEADLINE.as_secs()))),
    }
}

/// The certificates of the store's own listeners, where they show any.
fn shown_by(node: &StoreNode) -> OtherCertificates {
    let (s3, api) = (node.certificate(), node.api_identity());
    let other =
        |whose: &str, valid: (u64, u64)| OtherCertificate { whose: whose.into(), holds: Certificate::from(valid) };
    Arc::new(move || {
        let s3 = s3.iter().map(|shown| other("the S3 listener's", shown.valid_millis()));
        let api = api.iter().filter_map(|shown| Some(other("the private API's", shown.valid_millis()?)));
        s3.chain(api).collect()
    })
}
