//! Role `store`: a store node by itself, with the private API for its replicator.
use super::Failed::{self, Configuration, Internal};
use super::{bind, ended, refused, write_ports};
use crate::config;
use crate::shutdown;
use crate::telemetry::exported::Spans;
use crate::telemetry::metrics::{self, CONTENT_TYPE};
use crate::telemetry::store::Counted;
use crate::telemetry::trace;
use anyhow::{Context, anyhow};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use std::path::Path;
use std::sync::Arc;
use storage_engine::clock::{Clock, SystemClock};
use storage_engine::node::StoreNode;
use storage_engine::version::Origin;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs until a signal; returns the exit code.
pub async fn run(file: &Path) -> u8 {
    match config::store(file) {
        Ok(settings) => ended(serve(settings).await),
        Err(problems) => refused(&problems),
    }
}

async fn serve(settings: config::Store) -> Result<(), Failed> {
    let stop = shutdown::on_signal().context("listen for signals").map_err(Internal)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let node = StoreNode::open(&settings.store, clock, Origin::new(&settings.origin)).await;
    let mut node = node.context("open the store").map_err(Configuration)?;
    node.serve_api(&settings.api).await.map_err(|e| Configuration(e.into()))?;

    node.bind().await.map_err(|e| Configuration(e.into()))?;
    let admin = bind(settings.admin_listen, "admin").await.map_err(Configuration)?;
    let addresses =
        serde_json::json!({ "s3": node.s3_addr(), "api": node.api_addr(), "admin": admin.local_addr().ok() });
    tracing::info!(origin = settings.origin, %addresses, "Listening.");
    write_ports(settings.ports_file.as_deref(), &addresses).map_err(Internal)?;

    let mut registry = metrics::registry(&settings.origin);
    registry.register_collector(Box::new(Counted::of(&node)));
    trace::at_site(&settings.origin);
    if let Some(counts) = trace::counts() {
        registry.register_collector(Box::new(Spans(counts)));
    }
    let (tasks, admin_stop) = (TaskTracker::new(), CancellationToken::new());
    tasks.spawn(serve_admin(admin, Arc::new(Shown { registry, stop: stop.clone() }), admin_stop.clone()));
    let store = tasks.spawn(node.run(stop.clone()));

    stop.cancelled().await;
    let drained = tokio::time::timeout(shutdown::DEADLINE, store).await;
    admin_stop.cancel();
    match drained {
        Ok(Ok(Ok(()))) => {
            tracing::info!("Stopped.");
            Ok(())
        }
        Ok(Ok(Err(e))) => Err(Internal(anyhow!(e).context("serve S3"))),
        Ok(Err(e)) => Err(Internal(anyhow!(e).context("run the store"))),
        Err(_) => Err(Internal(anyhow!("the store did not stop within {}s", shutdown::DEADLINE.as_secs()))),
    }
}

/// What a store shows of itself.
struct Shown {
    registry: Registry,
    stop: CancellationToken,
}

/// Probes and metrics until `stop`; they answer while everything else drains.
async fn serve_admin(listener: TcpListener, shown: Arc<Shown>, stop: CancellationToken) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(shown);
    tokio::select! {
        () = stop.cancelled() => {}
        ended = axum::serve(listener, router).into_future() => {
            if let Err(e) = ended {
                tracing::error!(error = %e, "The admin listener ended; restart the process.");
            }
        }
    }
}

async fn readyz(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    match shown.stop.is_cancelled() {
        false => (StatusCode::OK, "ready\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

async fn scrape(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics::text(&[&shown.registry]))
}
