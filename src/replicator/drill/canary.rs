//! The canary of a drill at this site: made, kept in mind over restarts, and removed with all that is in it.
//!
//! Order: first the journal knows that the bucket must go, then it is made; first the bucket is gone, then the journal
//! forgets it. The name is a random id's, and a bucket that was there before is never touched.
use super::{Canary, Fault, Replicator};
use crate::drill::{DEADLINE_MAX_MILLIS, canary, is_id};
use crate::journal;
use crate::replicator::run::consumer_name;
use crate::replicator::tenure::Claimed;
use crate::rule::plan::LinkName;
use crate::store;
use crate::telemetry::metrics::LinkLabels;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How often deadlines are looked at: a fault outlives its own by no more.
const LOOK: Duration = Duration::from_millis(250);
/// How often the journal is read for canaries of other processes, or of a former life; and how soon a removal that
/// failed is tried again.
const FRESH: Duration = Duration::from_secs(2);
/// A link that ends gets so long: what flies lands or is cut.
const LINK_END: Duration = Duration::from_secs(40);

/// What the journal keeps of a canary. Unknown fields are those of a later version.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    peer: String,
    /// Unix milliseconds.
    until_millis: u64,
}

/// Why a canary could not be made, or is not gone yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("drill {0} is under way, or its canary is not removed yet; isthmus drill list shows it")]
    Busy(String),
    #[error("the store of this site takes no writes from here")]
    NoClient,
    #[error("bucket {0} exists already")]
    Exists(String),
    #[error("store: {0}")]
    Store(#[from] store::Error),
    #[error("journal: {0}")]
    Journal(#[from] journal::Error),
    #[error("its link has not ended")]
    LinkRuns,
}

fn subject(id: &str) -> String {
    format!("drill/{id}")
}

impl Replicator {
    /// Looks after deadlines until the process stops; canaries of a former life are found in the journal.
    pub(super) async fn keep_canaries(&self, stop: CancellationToken) {
        let faults = async {
            loop {
                tokio::time::sleep(LOOK).await;
                self.lift_overdue();
            }
        };
        let marks = async {
            loop {
                if let Err(e) = self.adopt().await {
                    tracing::debug!(error = %e, "The journal does not tell of canaries.");
                }
                for id in self.overdue() {
                    self.remove_or_say(&id).await;
                }
                tokio::time::sleep(FRESH).await;
            }
        };
        stop.run_until_cancelled(async { tokio::join!(faults, marks) }).await;
    }

    /// Removes a canary; what is left of it is tried again.
    pub(super) async fn remove_or_say(&self, id: &str) {
        if let Err(e) = self.remove_canary(id).await {
            tracing::warn!(drill = id, error = %e, "The canary of a drill is not gone yet; it is tried again.");
        }
    }

    /// Faults whose time is over end.
    fn lift_overdue(&self) {
        for (id, canary) in self.drills.canaries().iter() {
            let is_over = canary.fault.borrow().until.is_some_and(|until| until <= Instant::now());
            if is_over {
                canary.fault.send_replace(Fault::default());
                tracing::warn!(drill = id, "The fault of a drill ended by its own deadline.");
            }
        }
    }

    /// Canaries whose time is over, or whose removal did not come to its end.
    fn overdue(&self) -> Vec<String> {
        let canaries = self.drills.canaries();
        canaries.iter().filter(|(_, c)| c.is_ending || c.until <= Instant::now()).map(|(id, _)| id.clone()).collect()
    }

    /// Takes up what the journal knows of canaries, and lets go what it no longer does.
    async fn adopt(&self) -> Result<(), journal::Error> {
        let now = self.shared.clock.now_millis();
        let marks = self.shared.journal.verb_states().await?.into_iter().filter_map(|(subject, state)| {
            let id = subject.strip_prefix("drill/").filter(|id| is_id(id))?.to_string();
            let mark: Mark = serde_json::from_str(&state).ok()?;
            Some((id, mark))
        });
        let marks: std::collections::BTreeMap<String, Mark> = marks.collect();
        let mut canaries = self.drills.canaries();
        canaries.retain(|id, canary| canary.is_made_here || marks.contains_key(id));
        for (id, mark) in marks {
            canaries.entry(id).or_insert_with_key(|id| {
                tracing::info!(
                    drill = id,
                    peer = mark.peer,
                    "A canary of another process, or of a former one, is taken up."
                );
                // A clock that was set back does not keep it for longer than any drill lasts.
                let left = mark.until_millis.saturating_sub(now).min(DEADLINE_MAX_MILLIS);
                Canary {
                    peer: mark.peer,
                    is_driven_here: false,
                    is_made_here: false,
                    until: Instant::now() + Duration::from_millis(left),
                    fault: watch::Sender::new(Fault::default()),
                    is_ending: false,
                }
            });
        }
        Ok(())
    }

    /// Makes the canary of a drill with a peer; it goes after `ttl`, whatever happens.
    pub(super) async fn make_canary(
        &self,
        id: &str,
        peer: &str,
        ttl: Duration,
        is_driven_here: bool,
    ) -> Result<(), Error> {
        let (bucket, store) = (canary(id), &self.shared.store);
        let client = store.client().ok_or(Error::NoClient)?;
        match store.bucket(&bucket).await {
            Err(store::Error::NoSuchBucket(_)) => {}
            Ok(_) => return Err(Error::Exists(bucket)),
            Err(e) => return Err(e.into()),
        }
        let ttl = ttl.min(Duration::from_millis(DEADLINE_MAX_MILLIS));
        {
            let mut canaries = self.drills.canaries();
            if let Some(other) = canaries.keys().next() {
                return Err(Error::Busy(other.clone()));
            }
            let canary = Canary {
                peer: peer.into(),
                is_driven_here,
                is_made_here: true,
                until: Instant::now() + ttl,
                fault: watch::Sender::new(Fault::default()),
                is_ending: false,
            };
            canaries.insert(id.into(), canary);
        }
        let until_millis = self.shared.clock.now_millis() + ttl.as_millis() as u64;
        let mark = serde_json::to_string(&Mark { peer: peer.into(), until_millis }).expect("it has string keys");
        if let Err(e) = self.shared.journal.set_verb_state(&subject(id), Some(&mark)).await {
            self.drills.canaries().remove(id);
            return Err(e.into());
        }
        client.make_bucket(&bucket).await?;
        self.verbs.notify_one();
        tracing::info!(drill = id, peer, "The canary of a drill was made.");
        Ok(())
    }

    /// Removes a canary: its fault, its link, its bucket, and then what is known of it. Again is safe; what fails is
    /// tried again by [`Replicator::keep_canaries`].
    pub(super) async fn remove_canary(&self, id: &str) -> Result<(), Error> {
        let peer = {
            let mut canaries = self.drills.canaries();
            let Some(canary) = canaries.get_mut(id) else { return Ok(()) };
            canary.is_ending = true;
            canary.fault.send_replace(Fault::default());
            canary.peer.clone()
        };
        self.verbs.notify_one();
        let _turn = self.drills.removal.lock().await;
        if !self.drills.canaries().contains_key(id) {
            return Ok(());
        }
        let name = canary(id);
        let ended = async {
            while self.runs(&name) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LINK_END, ended).await.map_err(|_| Error::LinkRuns)?;
        self.forget_links(&name).await?;
        self.shared.store.client().ok_or(Error::NoClient)?.remove_bucket(&name).await?;
        self.shared.journal.set_verb_state(&subject(id), None).await?;
        self.drills.canaries().remove(id);
        self.state().verifies.remove(&name);
        let labels = LinkLabels { rule: name.clone(), bucket: name, peer: peer.clone() };
        self.shared.metrics.forget_bucket(&labels);
        tracing::info!(drill = id, "The canary of a drill is gone.");
        Ok(())
    }

    /// Whether a link of this rule runs here, or has not ended.
    fn runs(&self, rule_uid: &str) -> bool {
        let mut state = self.state();
        state.ending.retain(|_, task| !task.is_finished());
        state.links.keys().chain(state.ending.keys()).any(|name: &LinkName| name.rule == rule_uid)
    }

    /// Forgets what a link that never ended in order has left in the journal and at the store.
    async fn forget_links(&self, rule_uid: &str) -> Result<(), Error> {
        for (link, _) in self.shared.journal.links(Some(rule_uid)).await? {
            let Claimed::Owned(lease) = self.shared.tenure.claim(&link, 0).await? else { continue };
            self.shared.journal.release(&link, lease.epoch).await?;
            self.shared.tenure.free(&link, &lease).await;
            match self.shared.store.deregister(rule_uid, &consumer_name(&link)).await {
                Err(store::Error::NoSuchBucket(_)) | Ok(()) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Whether some canary of a drill is here: its id.
    pub(super) fn any_canary(&self) -> Option<String> {
        self.drills.canaries().keys().next().cloned()
    }
}
