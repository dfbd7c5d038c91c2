//! The API server's side of a role: found and checked before anything else, watched before a port is bound, and led, where
//! this process is the leader, until the links have drained.
use super::Failed::{self, Configuration, Unprepared};
use super::replication::{identity, own_site};
use crate::config;
use crate::replicator::Replicator;
use crate::replicator::control::Control;
use crate::replicator::lease::{Election, Leadership, Terms};
use crate::rule::SiteDoc;
use crate::rule::refs::Refs;
use crate::rule::report::Writer;
use crate::rule::watch_folder::Snapshot;
use crate::rule::watch_kube::cluster::{self, Cluster};
use crate::rule::watch_kube::secrets::Secrets;
use crate::rule::watch_kube::{self, Judged, Objects, Tell};
use anyhow::Context;
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::Clock;
use storage_engine::identity::Identity;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Pause before an API server that is away, or a Site that is not there yet, is looked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// What the leader's duties may take to end: one write and the Lease.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// An API server that is watched.
pub struct Watching {
    pub cluster: Cluster,
    pub tell: watch::Sender<Snapshot>,
    lease: String,
    /// Who leads.
    leadership: watch::Sender<Leadership>,
    objects: watch::Receiver<Option<Arc<Objects>>>,
    /// What a leader does.
    duties: TaskTracker,
    /// The watch ends with it.
    _stop: DropGuard,
}

impl Watching {
    /// Waits until the server answers, checks it, and begins to watch; `restored` is what the journal kept.
    ///
    /// # Errors
    /// Settings that name no server; definitions or rights that are not there.
    pub(super) async fn begin(
        settings: &config::Kubernetes,
        restored: Vec<(u64, String)>,
        refs: Refs,
    ) -> Result<Watching, Failed> {
        let cluster = Cluster::connect(settings).await.map_err(|e| Configuration(e.into()))?;
        let rights = cluster::rights(&settings.lease);
        let mut said = String::new();
        loop {
            match cluster.check(&rights).await {
                Ok(()) => break,
                Err(e @ cluster::Error::Away(_)) => {
                    say(&mut said, e.to_string(), "Waiting for the API server; rules are not guessed.");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(e) => return Err(Unprepared(anyhow::Error::from(e).context("use the API server"))),
            }
        }
        let secrets = settings.watches_secrets.then(|| Secrets::new(refs.clone()));
        let (tell, _) = watch::channel(Snapshot::default());
        let (tell_objects, objects) = watch::channel(None);
        let stop = CancellationToken::new();
        let told = Tell { objects: tell_objects, rules: tell.clone() };
        let judged = Judged::restore(restored);
        tokio::spawn(watch_kube::watch(cluster.clone(), judged, refs, secrets, told, stop.clone()));
        Ok(Watching {
            cluster,
            tell,
            lease: settings.lease.clone(),
            leadership: watch::channel(Leadership::default()).0,
            objects,
            duties: TaskTracker::new(),
            _stop: stop.drop_guard(),
        })
    }

    /// The documents, as they change.
    pub fn rules(&self) -> watch::Receiver<Snapshot> {
        self.tell.subscribe()
    }

    /// Waits for the Site document and its certificate: `kubectl apply` may bring them after the pod.
    pub(super) async fn own_site(&self, settings: &config::Replicator, refs: &Refs) -> (SiteDoc, Arc<Identity>) {
        let mut objects = self.objects.clone();
        let mut said = String::new();
        loop {
            // It fails only when the watch has ended, with the process.
            let _ = objects.wait_for(Option::is_some).await;
            let snapshot = self.tell.borrow().clone();
            let found = match own_site(&snapshot, settings) {
                Ok(site) => {
                    let own = identity(&site, refs).await.context("read own certificate");
                    own.map(|identity| (site, identity))
                }
                Err(e) => Err(e),
            };
            match found {
                Ok(found) => return found,
                Err(e) => say(&mut said, format!("{e:#}"), "Waiting for the Site and its certificate."),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Who leads, as this process knows.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Takes part in the election, and carries the leader's duties out, until `drained`.
    pub(super) fn lead(
        &self,
        process: String,
        replicator: Arc<Replicator>,
        clock: Arc<dyn Clock>,
        drained: CancellationToken,
    ) {
        let (tell, leadership) = (self.leadership.clone(), self.leadership());
        // The name of the pod, where there is one: that is what people look for.
        let me = match std::env::var("HOSTNAME") {
            Ok(host) if !host.is_empty() => format!("{host}_{process}"),
            _ => process,
        };
        let election = Election::new(&self.cluster, &self.lease, me.clone(), Terms::default(), clock, tell);
        let writer = Writer::new(self.cluster.clone(), &me);
        let (objects, rules) = (self.objects.clone(), self.rules());
        self.duties.spawn(election.run(drained.clone()));
        self.duties.spawn(Control { replicator, objects, rules, leadership, writer }.run(drained));
    }
}

impl Watching {
    /// Waits, not for long, until the Lease is given back.
    pub(super) async fn ended(&self) {
        self.duties.close();
        if tokio::time::timeout(LAST_WORDS, self.duties.wait()).await.is_err() {
            tracing::warn!("The leader's duties did not end in time; the Lease expires by itself.");
        }
    }
}

/// Says why it waits, once for each reason.
fn say(said: &mut String, why: String, what: &str) {
    if *said != why {
        tracing::warn!(why, "{what}");
        *said = why;
    }
}
