//! The Lease: which of a site's replicators writes status and starts jobs. Who pushes a link is no matter of it: that is
//! decided in the journal.
//!
//! kube has no election. [`decide`] is pure; whether a Lease has expired is judged by how long *we* saw it unchanged, never
//! by comparing clocks. A write that meets another's (409), or none that succeeded within the renew deadline, ends the
//! leader's duties at once; its links run on. Called by `replicator/control.rs`.
use crate::rule::watch_kube::cluster::{Cluster, chain};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::Clock;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long a Lease lasts, and how it is kept. Source: client-go's defaults.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// A Lease not renewed for so long is free.
    pub duration: Duration,
    /// A leader that could not renew for so long stops leading; shorter, so that two never lead.
    pub renew_deadline: Duration,
    /// Between two looks.
    pub retry: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Terms {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Who leads, as this process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub is_ours: bool,
    /// Holder of the Lease; empty while it is not known.
    pub holder: String,
    /// How often the holder has changed.
    pub transitions: i64,
}

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nobody holds it, or whoever did has let it expire.
    Acquire,
    Renew,
    /// Another holds it.
    Wait,
}

/// What to do: `holder` is who holds it (empty: nobody), `lasts` what it was taken for, `unchanged` for how long we have
/// seen it as it is.
pub fn decide(holder: &str, me: &str, lasts: Duration, unchanged: Duration) -> Step {
    match holder {
        "" => Step::Acquire,
        holder if holder == me => Step::Renew,
        _ if unchanged >= lasts => Step::Acquire,
        _ => Step::Wait,
    }
}

/// An election among the processes that share a Lease.
pub struct Election {
    api: Api<Lease>,
    name: String,
    /// Names this process; never used by another or again.
    me: String,
    terms: Terms,
    clock: Arc<dyn Clock>,
    tell: watch::Sender<Leadership>,
    /// The version seen last, and since when.
    seen: Option<(String, Instant)>,
    renewed: Option<Instant>,
}

impl Election {
    /// One that has asked nobody yet; `tell` hears who leads.
    pub fn new(
        cluster: &Cluster,
        name: &str,
        me: String,
        terms: Terms,
        clock: Arc<dyn Clock>,
        tell: watch::Sender<Leadership>,
    ) -> Election {
        let api = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        Election { api, name: name.into(), me, terms, clock, tell, seen: None, renewed: None }
    }

    /// Takes part until `stop`, then gives the Lease back where it is ours.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            // A look that takes longer than the deadline would leave two leaders.
            match timeout(self.terms.renew_deadline / 2, self.look()).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => self.failed(&chain(&e)),
                Err(_) => self.failed("no answer in time"),
            }
            if stop.run_until_cancelled(tokio::time::sleep(self.terms.retry)).await.is_none() {
                break;
            }
        }
        if self.tell.borrow().is_ours {
            let released = timeout(self.terms.retry, self.release()).await;
            if !matches!(released, Ok(Ok(()))) {
                tracing::warn!("The Lease was not given back; it expires by itself.");
            }
        }
        self.tell.send_modify(|l| l.is_ours = false);
    }

    fn failed(&mut self, why: &str) {
        let is_late = self.renewed.is_none_or(|at| at.elapsed() >= self.terms.renew_deadline);
        if self.tell.borrow().is_ours && is_late {
            tracing::warn!(
                error = why,
                "The Lease cannot be renewed: status and jobs are left to others; links run on."
            );
            self.tell.send_modify(|l| l.is_ours = false);
        }
    }

    /// Reads the Lease and does what is to be done.
    async fn look(&mut self) -> kube::Result<()> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(&LeaseSpec::default())) };
            let made = self.api.create(&PostParams::default(), &lease).await;
            return self.took(made);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => self.seen.insert((version, Instant::now())).1,
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let lasts = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
        match decide(&holder, &self.me, lasts.unwrap_or(self.terms.duration), since.elapsed()) {
            Step::Wait => {
                let transitions = i64::from(spec.lease_transitions.unwrap_or_default());
                self.show(Leadership { is_ours: false, holder, transitions });
                Ok(())
            }
            Step::Acquire | Step::Renew => {
                let ours = Lease { metadata: lease.metadata, spec: Some(self.spec(&spec)) };
                let taken = self.api.replace(&self.name, &PostParams::default(), &ours).await;
                self.took(taken)
            }
        }
    }

    fn took(&mut self, taken: kube::Result<Lease>) -> kube::Result<()> {
        match taken {
            Ok(lease) => {
                self.renewed = Some(Instant::now());
                self.seen = Some((lease.metadata.resource_version.unwrap_or_default(), Instant::now()));
                let transitions = lease.spec.and_then(|s| s.lease_transitions).unwrap_or_default();
                self.show(Leadership { is_ours: true, holder: self.me.clone(), transitions: transitions.into() });
                Ok(())
            }
            // Another wrote meanwhile: it is theirs until we have looked again.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.tell.send_modify(|l| l.is_ours = false);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn spec(&self, before: &LeaseSpec) -> LeaseSpec {
        let millis = i64::try_from(self.clock.now_millis()).unwrap_or(i64::MAX);
        let now = Timestamp::from_millisecond(millis).ok().map(MicroTime);
        let is_ours = before.holder_identity.as_ref() == Some(&self.me);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(self.terms.duration.as_secs()).ok(),
            acquire_time: if is_ours { before.acquire_time.clone() } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(before.lease_transitions.map_or(0, |n| n + i32::from(!is_ours))),
            ..LeaseSpec::default()
        }
    }

    fn show(&self, found: Leadership) {
        self.tell.send_if_modified(|known| {
            if *known == found {
                return false;
            }
            if known.is_ours != found.is_ours {
                tracing::info!(
                    holder = found.holder,
                    ours = found.is_ours,
                    "Who writes status and starts jobs has changed."
                );
            }
            *known = found;
            true
        });
    }

    /// Nobody holds it now, and the next may take it at once.
    async fn release(&mut self) -> kube::Result<()> {
        let mut lease = self.api.get(&self.name).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.me) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        self.api.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
