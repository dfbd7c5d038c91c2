//! Role `site`: a store node and a replicator in one process, joined by a function call. Everything is
//! checked and opened before a port is bound; the stop goes the other way.
use crate::cli::exit;
use crate::config::Settings;
use crate::journal;
use crate::peer::identity::{Files, Identity};
use crate::peer::server::{Counters, Known, Server};
use crate::replicator::own::Shared;
use crate::replicator::tenure::{Tenure, Terms};
use crate::replicator::{Replicator, accepted, admin};
use crate::rule::SiteDoc;
use crate::rule::refs::Refs;
use crate::rule::watch_folder::{self, Snapshot};
use crate::shutdown;
use crate::store::bundled::BundledStore;
use crate::telemetry::metrics::Metrics;
use anyhow::{Context, anyhow};
use std::path::Path;
use std::sync::Arc;
use storage_engine::clock::{Clock, SystemClock};
use storage_engine::node::StoreNode;
use storage_engine::version::Origin;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why the role ended badly, by exit code.
enum Failed {
    /// The configuration, the drives or the documents are not as they must be.
    Configuration(anyhow::Error),
    /// Something else.
    Internal(anyhow::Error),
}

/// Runs until a signal; returns the exit code.
pub async fn run(file: &Path) -> u8 {
    let settings = match crate::config::load(file) {
        Ok(settings) => settings,
        Err(problems) => {
            problems.iter().for_each(|p| eprintln!("isthmus: {p}"));
            return exit::USAGE;
        }
    };
    match serve(settings).await {
        Ok(()) => exit::OK,
        Err(Failed::Configuration(e)) => {
            eprintln!("isthmus: {e:#}");
            exit::USAGE
        }
        Err(Failed::Internal(e)) => {
            eprintln!("isthmus: {e:#}");
            exit::INTERNAL
        }
    }
}

async fn serve(settings: Settings) -> Result<(), Failed> {
    use Failed::{Configuration, Internal};
    let stop = shutdown::on_signal().context("listen for signals").map_err(Internal)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let refs = Refs::new(&settings.refs_dir);
    let journal = journal::open(&settings.journal).await.context("open the journal").map_err(|e| {
        // A database that is away is nobody's misconfiguration.
        let is_away = e.downcast_ref::<journal::Error>().is_some_and(journal::Error::is_retryable);
        if is_away { Internal(e) } else { Configuration(e) }
    })?;
    let restored = accepted::restore(&*journal).await.context("read the journal").map_err(Internal)?;
    let loaded = watch_folder::read(&settings.rules_dir, Some(&restored));
    let first = loaded.snapshot.clone();
    let site = own_site(&first, &settings).map_err(Configuration)?;
    let identity = identity(&site, &refs).await.context("read own certificate").map_err(Configuration)?;

    let origin = Origin::new(&site.site_id);
    let mut node = StoreNode::open(&settings.store, clock.clone(), origin)
        .await
        .context("open the store")
        .map_err(Configuration)?;

    node.bind().await.with_context(|| format!("bind S3 to {}", settings.store.s3_listen)).map_err(Configuration)?;
    let peers = bind(settings.peer_listen, "peers").await.map_err(Configuration)?;
    let public = bind(settings.admin_listen, "admin").await.map_err(Configuration)?;
    let socket = settings.admin_socket;
    let local = bind_socket(&socket).map_err(Configuration)?;
    tracing::info!(
        site = %site.site_id, s3 = ?node.s3_addr(), peers = ?peers.local_addr().ok(), admin = ?public.local_addr().ok(),
        socket = %socket.display(), "Listening."
    );

    if let Some(file) = &settings.ports_file {
        let addresses = serde_json::json!({
            "s3": node.s3_addr(), "peer": peers.local_addr().ok(), "admin": public.local_addr().ok(), "socket": socket,
        });
        std::fs::write(file, addresses.to_string())
            .with_context(|| format!("write {}", file.display()))
            .map_err(Internal)?;
    }

    let holder = format!("{}-{}", site.site_id, storage_engine::entropy::id().as_simple());
    let shared = Shared {
        store: Arc::new(BundledStore(node.objects())),
        tenure: Arc::new(Tenure::new(journal.clone(), holder, Terms::default())),
        journal,
        clock: clock.clone(),
        metrics: Arc::new(Metrics::default()),
    };
    let (tell, rules) = watch::channel(first);
    let replicator = Arc::new(Replicator::new(&site, shared, refs.clone(), identity.clone(), rules.clone()));
    let server = Arc::new(Server {
        site: site.site_id.clone(),
        identity: identity.clone(),
        resolver: resolver(rules, refs),
        receiver: replicator.receiver(),
        clock,
        settings: crate::peer::server::Settings::default(),
        counters: Arc::new(Counters::default()),
    });

    let tasks = TaskTracker::new();
    let store_stop = CancellationToken::new();
    let store = tasks.spawn(node.run(store_stop.clone()));
    tasks.spawn(identity.keep_fresh(stop.clone()));
    tasks.spawn(watch_folder::watch(settings.rules_dir, Some(settings.refs_dir), loaded, tell, stop.clone()));
    tasks.spawn(server.run(peers, tasks.clone(), stop.clone()));
    tasks.spawn(serve_admin(public, local, replicator.clone(), store_stop.clone()));

    // Intake and links first, then the store under them; what is not done by the deadline is said and cut.
    replicator.run(stop.clone()).await;
    store_stop.cancel();
    let drained = tokio::time::timeout(shutdown::DEADLINE, store).await;
    let _ = std::fs::remove_file(&socket);
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

fn own_site(first: &Snapshot, settings: &Settings) -> anyhow::Result<SiteDoc> {
    let problems: Vec<_> = first.problems.iter().map(ToString::to_string).collect();
    let site = first.rules.own_site(settings.site_name.as_deref());
    site.cloned().map_err(|why| {
        let found = if problems.is_empty() { String::new() } else { format!("; {}", problems.join("; ")) };
        anyhow!("{}: {why}{found}", settings.rules_dir.display())
    })
}

/// What the peer listener shows. The peers' CAs are the replicator's to name: they come and go with the rules.
async fn identity(site: &SiteDoc, refs: &Refs) -> anyhow::Result<Arc<Identity>> {
    let own = refs.tls(&site.tls_secret)?;
    let files = Files { certificate: own.certificate, key: own.key, authorities: vec![own.ca] };
    Ok(Arc::new(Identity::load(files).await?))
}

/// Whose certificate it is, under the rules of this moment.
fn resolver(rules: watch::Receiver<Snapshot>, refs: Refs) -> crate::peer::server::Resolver {
    Arc::new(move |uri| {
        let snapshot = rules.borrow();
        let peer = snapshot.rules.peers.values().find(|p| p.identities.iter().any(|i| i == uri))?;
        let authority = refs.file(&peer.ca).ok()?;
        Some(Known { site: peer.site_id.clone(), peer: peer.name.clone(), authority })
    })
}

async fn bind(address: std::net::SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("bind {what} to {address}"))
}

/// An old socket that nobody listens on is a leftover.
fn bind_socket(path: &Path) -> anyhow::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("{}: another process listens there; give this one an admin_socket of its own", path.display());
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))?
        }
        _ => {}
    }
    UnixListener::bind(path).with_context(|| format!("bind {}", path.display()))
}

/// Serves both admin listeners until `stop`; probes answer while everything else drains.
async fn serve_admin(public: TcpListener, local: UnixListener, replicator: Arc<Replicator>, stop: CancellationToken) {
    let probes = axum::serve(public, admin::public(replicator.clone()));
    let verbs = axum::serve(local, admin::local(replicator));
    tokio::select! {
        () = stop.cancelled() => {}
        ended = async { tokio::try_join!(probes.into_future(), verbs.into_future()) } => {
            if let Err(e) = ended {
                tracing::error!(error = %e, "The admin listeners ended; restart the process.");
            }
        }
    }
}
