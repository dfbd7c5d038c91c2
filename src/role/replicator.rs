//! Role `replicator`: a replicator by itself, over the private API of its store. It starts without the store
//! and waits for it; which store that is stands in the Site document.
use super::Failed::{self, Configuration, Internal};
use super::replication::Replication;
use super::{ended, refused, write_ports};
use crate::cli::certs;
use crate::config;
use crate::replicator::report::{Certificate, OtherCertificate};
use crate::shutdown;
use crate::store::bundled::network::NetworkStore;
use crate::store::bundled::network::line::Target;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storage_engine::clock::{Clock, SystemClock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs until a signal; returns the exit code.
pub async fn run(file: Option<&Path>, kubeconfig: Option<PathBuf>) -> u8 {
    match config::replicator(file, kubeconfig) {
        Ok(settings) => ended(serve(settings).await),
        Err(problems) => refused(&problems),
    }
}

async fn serve(settings: config::Replicator) -> Result<(), Failed> {
    let stop = shutdown::on_signal().context("listen for signals").map_err(Internal)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ports_file = settings.ports_file.clone();
    // It waits as long as an API server is away.
    let Some(opened) = stop.run_until_cancelled(Replication::open(settings)).await else { return Ok(()) };
    let replication = opened?;
    let identity = replication.store_identity().await.context("read the certificate for the store");
    let identity = identity.map_err(Configuration)?;
    let site = replication.site.clone();

    let replication = replication.bind().await.map_err(Configuration)?;
    let addresses = replication.addresses();
    tracing::info!(site = site.site_id, store = site.api_endpoint, %addresses, "Listening.");
    write_ports(ports_file.as_deref(), &addresses).map_err(Internal)?;

    trace::at_site(&site.site_id);
    let tasks = TaskTracker::new();
    let target = Target {
        identity: certs::store_id(&site.trust_domain, &site.site_id),
        endpoint: site.api_endpoint,
        server_name: site.api_server_name,
        origin: site.site_id.clone(),
    };
    // The links still ask the store while they drain.
    let drained = CancellationToken::new();
    tasks.spawn(identity.clone().keep_fresh(stop.clone()));
    let to_store = identity.clone();
    let replication = replication.also_showing(Arc::new(move || {
        let shown = to_store.valid_millis().map(Certificate::from);
        shown.into_iter().map(|holds| OtherCertificate { whose: "the private API client's".into(), holds }).collect()
    }));
    let store = Arc::new(NetworkStore::start(target, identity, &tasks, drained.clone()));
    let neighbours = Arc::default();
    replication.run(store, Metrics::of(&site.site_id), clock, &tasks, stop, drained.clone(), neighbours).await;
    drained.cancel();
    tracing::info!("Stopped.");
    Ok(())
}
