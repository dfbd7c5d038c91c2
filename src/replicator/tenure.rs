//! What this process owns of the links: claims them in the journal, renews all claims together, and says of each
//! whether it still holds. It knows the journal only; it pushes nothing and decides nothing about versions.
//!
//! A claim holds as long as the journal was last asked *with success* less than a lease ago, by this process' own
//! monotonic clock: a process that was paused knows so before its next frame, without asking anybody. Where several
//! processes share a journal each takes its share of the links, and gives back what is above it.
use crate::journal::{Claim, ClaimTerms, Error, Journal, LinkId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long claims last and how often they are renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A claim ends so long after its last renewal.
    pub lease: Duration,
    /// Between renewals: a third of the lease, so that two may fail.
    pub renew: Duration,
    /// For how long whoever has its share leaves a link to others; longer than their pause between two claims.
    pub patience: Duration,
}

impl Default for Terms {
    /// Source: replication.md section 4. The links of a process that was killed move within 15 s, 2 s of patience
    /// and 1 s until the next claim.
    fn default() -> Self {
        Terms { lease: Duration::from_secs(15), renew: Duration::from_secs(5), patience: Duration::from_secs(2) }
    }
}

/// One claim on one link.
#[derive(Debug)]
pub struct Lease {
    pub epoch: u64,
    /// When the tenure began; `held_until` counts from there.
    began: Instant,
    /// Milliseconds; until then no other process can have the link.
    held_until: AtomicU64,
    /// Another has it, or may have it: nothing more is sent or written.
    lost: CancellationToken,
    /// Another shall have it: what flies may finish.
    called_back: CancellationToken,
}

impl Lease {
    /// Whether the link is this process' at this moment. Asked before every frame.
    pub fn is_held(&self) -> bool {
        !self.lost.is_cancelled() && self.now() < self.held_until.load(Ordering::Acquire)
    }

    /// Resolves when the claim is lost: taken by another, or not renewed in time.
    pub async fn lost(&self) {
        while self.is_held() {
            let until = self.began + Duration::from_millis(self.held_until.load(Ordering::Acquire));
            let _ = tokio::time::timeout_at(until, self.lost.cancelled()).await;
        }
    }

    /// Resolves when the link shall be drained and given back.
    pub async fn called_back(&self) {
        self.called_back.cancelled().await;
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a claim came to.
pub enum Claimed {
    Owned(Arc<Lease>),
    /// Another process pushes the link, or is left to take it.
    Elsewhere(Option<String>),
}

/// All claims of this process.
pub struct Tenure {
    journal: Arc<dyn Journal>,
    /// Names this process in the journal; never used by another or again.
    holder: String,
    terms: Terms,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    leases: BTreeMap<LinkId, Arc<Lease>>,
    /// Links this process would run, owned or not.
    wanted: u64,
    /// Holders alive, as the last renewal found them; 0: none was made yet.
    holders: u64,
}

impl State {
    /// Links this process should own: the same for all, rounded up.
    fn share(&self) -> usize {
        usize::try_from(self.wanted.div_ceil(self.holders.max(1))).unwrap_or(usize::MAX)
    }
}

impl Tenure {
    /// A tenure that holds nothing yet.
    pub fn new(journal: Arc<dyn Journal>, holder: String, terms: Terms) -> Self {
        Tenure { journal, holder, terms, began: Instant::now(), state: Mutex::default() }
    }

    /// One more link that this process would run; until the guard is dropped.
    pub fn want(self: &Arc<Self>) -> Wanted {
        self.state().wanted += 1;
        Wanted(self.clone())
    }

    /// Claims a link, under an epoch of at least `at_least`.
    ///
    /// # Errors
    /// Those of the journal. Dropped halfway, the link may be claimed and not known to be: that claim ends by itself.
    pub async fn claim(&self, link: &LinkId, at_least: u64) -> Result<Claimed, Error> {
        if self.state().holders == 0 {
            self.renew().await?;
        }
        let has_share = {
            let state = self.state();
            state.holders > 1 && state.leases.len() >= state.share()
        };
        let patience = if has_share { self.terms.patience } else { Duration::ZERO };
        // Counted from before the question: the journal's own count begins later and ends later.
        let asked = millis(self.began.elapsed());
        let terms = ClaimTerms { at_least, lease: self.terms.lease, patience };
        match self.journal.claim(link, &self.holder, terms).await? {
            Claim::Held { by } => Ok(Claimed::Elsewhere(by)),
            Claim::Owned { epoch } => {
                let lease = Arc::new(Lease {
                    epoch,
                    began: self.began,
                    held_until: AtomicU64::new(asked + millis(self.terms.lease)),
                    lost: CancellationToken::new(),
                    called_back: CancellationToken::new(),
                });
                if let Some(old) = self.state().leases.insert(link.clone(), lease.clone()) {
                    old.lost.cancel();
                }
                Ok(Claimed::Owned(lease))
            }
        }
    }

    /// Gives a link back; another may take it at once.
    pub async fn free(&self, link: &LinkId, lease: &Lease) {
        lease.lost.cancel();
        self.forget(link, lease.epoch);
        if let Err(e) = self.journal.free(link, lease.epoch).await {
            tracing::debug!(error = %e, "A claim could not be given back; it ends by itself.");
        }
    }

    /// Stops renewing a link that was lost.
    pub fn forget(&self, link: &LinkId, epoch: u64) {
        let mut state = self.state();
        if state.leases.get(link).is_some_and(|l| l.epoch == epoch) {
            state.leases.remove(link);
        }
    }

    /// Renews until `stop`, then says that this process leaves. Dropped, all claims end by themselves.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.terms.renew);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            // A journal that hangs must not keep the next renewal back.
            let renewed = tokio::time::timeout(self.terms.renew, self.renew()).await;
            match renewed {
                Ok(Ok(())) => self.call_back(),
                Ok(Err(e)) => tracing::warn!(error = %e, "The claims on the links were not renewed; trying again."),
                Err(_) => tracing::warn!("The journal does not answer; the claims on the links were not renewed."),
            }
        }
        if let Err(e) = self.journal.renew(&self.holder, 0, &[], self.terms.lease).await {
            tracing::debug!(error = %e, "The journal was not told that this process leaves.");
        }
    }

    async fn renew(&self) -> Result<(), Error> {
        let (held, wanted) = {
            let state = self.state();
            let held: Vec<_> = state.leases.iter().map(|(link, lease)| (link.clone(), lease.epoch)).collect();
            (held, state.wanted)
        };
        let asked = millis(self.began.elapsed());
        let renewed = self.journal.renew(&self.holder, wanted, &held, self.terms.lease).await?;
        let mut state = self.state();
        state.holders = renewed.holders.max(1);
        for (link, epoch) in held {
            let Some(lease) = state.leases.get(&link).filter(|l| l.epoch == epoch) else { continue };
            if renewed.kept.contains(&link) {
                lease.held_until.fetch_max(asked + millis(self.terms.lease), Ordering::AcqRel);
            } else {
                lease.lost.cancel();
                state.leases.remove(&link);
            }
        }
        Ok(())
    }

    /// Has what is above this process' share drained and given back.
    fn call_back(&self) {
        let state = self.state();
        let above = state.leases.len().saturating_sub(state.share());
        state.leases.values().rev().take(above).for_each(|lease| lease.called_back.cancel());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

/// A link that this process would run.
pub struct Wanted(Arc<Tenure>);

impl Drop for Wanted {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.wanted = state.wanted.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
