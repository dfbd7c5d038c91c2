//! The replicator's half of a process, over whichever store it is handed: documents, journal, peer and
//! admin listeners, links. Roles `site` and `replicator` run it.
use super::Failed::{self, Configuration, Internal};
use super::bind;
use super::watching::Watching;
use crate::config;
use crate::journal::{self, Journal};
use crate::peer::server::{Counters, Known, Server};
use crate::replicator::admin::history::History;
use crate::replicator::admin::page::Door;
use crate::replicator::neighbour::Neighbours;
use crate::replicator::outward;
use crate::replicator::own::Shared;
use crate::replicator::proof::Pace;
use crate::replicator::report::OtherCertificates;
use crate::replicator::tenure::{Tenure, Terms};
use crate::replicator::{Replicator, accepted, admin};
use crate::rule::SiteDoc;
use crate::rule::refs::Refs;
use crate::rule::watch_folder::{self, Loaded, Snapshot};
use crate::store::Store;
use crate::telemetry::exported::Spans;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace;
use anyhow::{Context, anyhow};
use std::path::Path;
use std::sync::Arc;
use storage_engine::clock::Clock;
use storage_engine::identity::Identity;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Everything read, checked and opened; nothing bound.
pub struct Replication {
    pub settings: config::Replicator,
    /// The Site document this process serves, as it was at start.
    pub site: SiteDoc,
    refs: Refs,
    source: Source,
    identity: Arc<Identity>,
    journal: Arc<dyn Journal>,
}

/// Where documents come from.
enum Source {
    /// A folder, as it was at start.
    Folder(Box<Loaded>),
    /// An API server, watched since.
    Kubernetes(Watching),
}

/// Its listeners too.
pub struct Bound {
    opened: Replication,
    other_certificates: OtherCertificates,
    peers: TcpListener,
    public: TcpListener,
    local: UnixListener,
}

impl Replication {
    /// Reads documents and certificates, opens the journal.
    ///
    /// # Errors
    /// What is not as it must be, and where.
    pub(super) async fn open(settings: config::Replicator) -> Result<Self, Failed> {
        let refs = Refs::new(&settings.refs_dir);
        let journal = journal::open(&settings.journal).await.map_err(|e| {
            // A database that is away is nobody's misconfiguration.
            let kind = if e.is_retryable() { Internal } else { Configuration };
            kind(anyhow::Error::from(e).context("open the journal"))
        })?;
        let restored = accepted::restore(&*journal).await.context("read the journal").map_err(Internal)?;
        if let Some(server) = &settings.kubernetes {
            let watching = Watching::begin(server, restored, refs.clone()).await?;
            let (site, identity) = watching.own_site(&settings, &refs).await;
            return Ok(Replication { settings, site, refs, source: Source::Kubernetes(watching), identity, journal });
        }
        let restored = Loaded::restore(restored);
        let loaded = watch_folder::read(&settings.rules_dir, Some(&restored));
        let site = own_site(&loaded.snapshot, &settings).map_err(Configuration)?;
        let identity = identity(&site, &refs).await.context("read own certificate");
        let identity = identity.map_err(Configuration)?;
        Ok(Replication { settings, site, refs, source: Source::Folder(Box::new(loaded)), identity, journal })
    }

    /// What this process shows to a store in another process, and whom it believes there.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub async fn store_identity(&self) -> anyhow::Result<Arc<Identity>> {
        Ok(Arc::new(Identity::load(self.refs.identity(&self.site.api_secret)?).await?))
    }

    /// Binds peer and admin listeners and the local socket.
    ///
    /// # Errors
    /// The address that is taken.
    pub async fn bind(self) -> anyhow::Result<Bound> {
        let peers = bind(self.settings.peer_listen, "peers").await?;
        let public = bind(self.settings.admin_listen, "admin").await?;
        let local = bind_socket(&self.settings.admin_socket)?;
        Ok(Bound { opened: self, other_certificates: Arc::new(Vec::new), peers, public, local })
    }
}

impl Bound {
    /// What is bound where.
    pub fn addresses(&self) -> serde_json::Value {
        serde_json::json!({
            "peer": self.peers.local_addr().ok(), "admin": self.public.local_addr().ok(), "socket": self.opened.settings.admin_socket,
        })
    }

    /// Tells of certificates that the process shows elsewhere than at the peer listener.
    pub fn also_showing(mut self, others: OtherCertificates) -> Self {
        self.other_certificates = others;
        self
    }

    /// Replicates until `stop`, then drains the links; probes answer until `ended`.
    pub async fn run(
        self,
        store: Arc<dyn Store>,
        mut metrics: Metrics,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
        stop: CancellationToken,
        ended: CancellationToken,
        neighbours: Arc<Neighbours>,
    ) {
        let Bound { opened, other_certificates, peers, public, local } = self;
        let Replication { settings, site, refs, source, identity, journal } = opened;
        let counters = Arc::new(Counters::default());
        metrics.collect(crate::telemetry::listener::Refused(counters.clone()));
        if let Some(counts) = trace::counts() {
            metrics.collect(Spans(counts));
        }
        if let Source::Kubernetes(watching) = &source {
            metrics.collect(crate::telemetry::cluster::Watched {
                cluster: watching.cluster.clone(),
                leadership: watching.leadership(),
            });
        }
        let holder = format!("{}-{}", site.site_id, storage_engine::entropy::id().as_simple());
        let shared = Shared {
            store: store.clone(),
            tenure: Arc::new(Tenure::new(journal.clone(), holder.clone(), Terms::default())),
            journal,
            clock: clock.clone(),
            metrics: Arc::new(metrics),
            pace: Pace { pause: settings.proof_pause, ..Pace::default() },
        };
        let (tell, rules) = match &source {
            Source::Folder(loaded) => watch::channel(loaded.snapshot.clone()),
            Source::Kubernetes(watching) => (watching.tell.clone(), watching.rules()),
        };
        let replicator = Replicator::new(&site, shared, refs.clone(), identity.clone(), rules.clone());
        let replicator = Arc::new(replicator.also_showing(other_certificates));
        neighbours.serve(&replicator);
        tasks.spawn(stop.clone().run_until_cancelled_owned(outward::answer(store, neighbours)));
        replicator.open_drills(settings.admin_socket.with_file_name("drills"));
        let door = Door::of(settings.page_token_file.clone());
        let server = Arc::new(Server {
            site: site.site_id,
            identity: identity.clone(),
            resolver: resolver(rules, refs),
            receiver: replicator.receiver(),
            clock: clock.clone(),
            settings: crate::peer::server::Settings::default(),
            counters,
        });
        tasks.spawn(identity.keep_fresh(stop.clone()));
        // Status is written until the links have drained: what they did last is told.
        let drained = CancellationToken::new();
        let watching = match source {
            Source::Folder(loaded) => {
                let refs_dir = Some(settings.refs_dir);
                tasks.spawn(watch_folder::watch(settings.rules_dir, refs_dir, *loaded, tell, stop.clone()));
                None
            }
            Source::Kubernetes(watching) => {
                watching.lead(holder, replicator.clone(), clock, drained.clone());
                Some(watching)
            }
        };
        tasks.spawn(server.run(peers, tasks.clone(), stop.clone()));
        tasks.spawn(serve_admin(public, local, replicator.clone(), door, ended));
        replicator.run(stop).await;
        drained.cancel();
        if let Some(watching) = watching {
            watching.ended().await;
        }
        let _ = std::fs::remove_file(settings.admin_socket);
    }
}

pub(super) fn own_site(first: &Snapshot, settings: &config::Replicator) -> anyhow::Result<SiteDoc> {
    let problems: Vec<_> = first.problems.iter().map(ToString::to_string).collect();
    let site = first.rules.own_site(settings.site_name.as_deref());
    site.cloned().map_err(|why| {
        let found = if problems.is_empty() { String::new() } else { format!("; {}", problems.join("; ")) };
        match &settings.kubernetes {
            Some(_) => anyhow!("{why}{found}"),
            None => anyhow!("{}: {why}{found}", settings.rules_dir.display()),
        }
    })
}

/// What the peer listener shows. The peers' CAs are the replicator's to name: they come and go with the rules.
pub(super) async fn identity(site: &SiteDoc, refs: &Refs) -> anyhow::Result<Arc<Identity>> {
    Ok(Arc::new(Identity::load(refs.identity(&site.tls_secret)?).await?))
}

/// Whose certificate it is, under the rules of this moment.
fn resolver(rules: watch::Receiver<Snapshot>, refs: Refs) -> crate::peer::server::Resolver {
    Arc::new(move |uri| {
        let snapshot = rules.borrow();
        let peer = snapshot.rules.peers.values().find(|p| p.identities.iter().any(|i| i == uri))?;
        let authority = refs.bundle(peer).ok()?;
        Some(Known { site: peer.site_id.clone(), peer: peer.name.clone(), authority })
    })
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
async fn serve_admin(
    public: TcpListener,
    local: UnixListener,
    replicator: Arc<Replicator>,
    door: Door,
    stop: CancellationToken,
) {
    let history = Arc::new(History::default());
    let page = |door| admin::page::routes(replicator.clone(), history.clone(), door);
    let probes = axum::serve(public, admin::public(replicator.clone()).merge(page(door)));
    let verbs = axum::serve(local, admin::local(replicator.clone()).merge(page(Door::Local)));
    tokio::select! {
        () = stop.cancelled() => {}
        () = history.remember(&replicator) => {}
        ended = async { tokio::try_join!(probes.into_future(), verbs.into_future()) } => {
            if let Err(e) = ended {
                tracing::error!(error = %e, "The admin listeners ended; restart the process.");
            }
        }
    }
}
