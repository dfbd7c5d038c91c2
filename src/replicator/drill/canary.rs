//! What a drill leaves at this site, a canary or objects in users' buckets: made, kept in mind over restarts, and removed.
//!
//! Order: first the journal knows what must go, then it is made; first it is gone, then the journal forgets it. Names bear
//! a random id, and a bucket that was there before is never touched.
use super::live::Live;
use super::{Fault, Part, Place, Replicator};
use crate::drill::cost::Wait;
use crate::drill::{DEADLINE_MAX_MILLIS, Fence, canary, is_id};
use crate::journal;
use crate::replicator::run::consumer_name;
use crate::replicator::tenure::Claimed;
use crate::rule::plan::LinkName;
use crate::store;
use crate::telemetry::metrics::LinkLabels;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How often deadlines are looked at: a fault outlives its own by no more.
const LOOK: Duration = Duration::from_millis(250);
/// How often the journal is read for drills of other processes, or of a former life; and how soon a removal that
/// failed is tried again.
const FRESH: Duration = Duration::from_secs(2);
/// A link that ends gets so long: what flies lands or is cut.
const LINK_END: Duration = Duration::from_secs(40);

/// Between two looks at whether anything came after what a live drill wrote was removed.
const SETTLES: Duration = Duration::from_secs(1);
/// A live drill nobody ended: its fault ends at its deadline, and what waited for that goes its way first.
const AFTERMATH: Duration = Duration::from_secs(5);
/// Passes over the places of a live drill; each but the first finds what came late.
const PASSES_MAX: usize = 10;

/// What the journal keeps of a drill. Unknown fields are those of a later version.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    peer: String,
    /// Unix milliseconds.
    until_millis: u64,
    /// Of a live drill: where it writes; absent: a canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    places: Option<Vec<Place>>,
}

/// Why a part in a drill could not be taken, or is not over yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("drill {0} is under way, or what it left is not removed yet; isthmus drill list shows it")]
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
    #[error("objects of the drill still come from the peer")]
    StillComes,
}

fn subject(id: &str) -> String {
    format!("drill/{id}")
}

impl Replicator {
    /// Looks after deadlines until the process stops; drills of a former life are found in the journal.
    pub(super) async fn keep_parts(&self, stop: CancellationToken) {
        let faults = async {
            loop {
                tokio::time::sleep(LOOK).await;
                self.lift_overdue();
                self.note_waits();
            }
        };
        let marks = async {
            loop {
                if let Err(e) = self.adopt().await {
                    tracing::debug!(error = %e, "The journal does not tell of drills.");
                }
                for id in self.overdue() {
                    self.remove_or_say(&id).await;
                }
                tokio::time::sleep(FRESH).await;
            }
        };
        stop.run_until_cancelled(async { tokio::join!(faults, marks) }).await;
    }

    /// Ends a part in a drill; what is left of it is tried again.
    pub(super) async fn remove_or_say(&self, id: &str) {
        if let Err(e) = self.remove_part(id).await {
            tracing::warn!(drill = id, error = %e, "What a drill left is not gone yet; it is tried again.");
        }
    }

    /// Faults whose time is over end.
    fn lift_overdue(&self) {
        let mut is_lifted = false;
        for (id, part) in self.drills.parts().iter_mut() {
            if part.fault.until.is_some_and(|until| until <= Instant::now()) {
                (part.fault, is_lifted) = (Fault::default(), true);
                tracing::warn!(drill = id, "The fault of a drill ended by its own deadline.");
            }
        }
        if is_lifted {
            self.drills.turned.send_replace(());
        }
    }

    /// Drills whose time is over, or whose removal did not come to its end.
    fn overdue(&self) -> Vec<String> {
        let is_over = |part: &Part| {
            let spare = if part.live.is_some() { AFTERMATH } else { Duration::ZERO };
            part.is_ending || part.until + spare <= Instant::now()
        };
        self.drills.parts().iter().filter(|(_, part)| is_over(part)).map(|(id, _)| id.clone()).collect()
    }

    /// Takes up what the journal knows of drills, and lets go what it no longer does.
    async fn adopt(&self) -> Result<(), journal::Error> {
        let now = self.shared.clock.now_millis();
        let marks = self.shared.journal.verb_states().await?.into_iter().filter_map(|(subject, state)| {
            let id = subject.strip_prefix("drill/").filter(|id| is_id(id))?.to_string();
            let mark: Mark = serde_json::from_str(&state).ok()?;
            Some((id, mark))
        });
        let marks: std::collections::BTreeMap<String, Mark> = marks.collect();
        let mut parts = self.drills.parts();
        parts.retain(|id, part| part.is_made_here || marks.contains_key(id));
        for (id, mark) in marks {
            parts.entry(id).or_insert_with_key(|id| {
                tracing::info!(
                    drill = id,
                    peer = mark.peer,
                    "A drill of another process, or of a former one, is taken up."
                );
                // A clock that was set back does not keep it for longer than any drill lasts.
                let left = mark.until_millis.saturating_sub(now).min(DEADLINE_MAX_MILLIS);
                Part {
                    peer: mark.peer,
                    is_driven_here: false,
                    is_made_here: false,
                    until: Instant::now() + Duration::from_millis(left),
                    fault: Fault::default(),
                    // Whoever set it may not live any more; a fence has its own end, too.
                    is_door_fenced: mark.places.is_some(),
                    is_ending: false,
                    // What is to be removed is known; its links were another process' to cut.
                    live: mark.places.map(|places| Live { places, ..Live::default() }),
                    wait: Wait::default(),
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
        self.keep_part(id, peer, ttl, is_driven_here, None).await?;
        client.make_bucket(&bucket).await?;
        self.verbs.notify_one();
        tracing::info!(drill = id, peer, "The canary of a drill was made.");
        Ok(())
    }

    /// Takes a part in a drill for so long, if none is taken, and writes down what is to be removed after it.
    pub(super) async fn keep_part(
        &self,
        id: &str,
        peer: &str,
        ttl: Duration,
        is_driven_here: bool,
        live: Option<Live>,
    ) -> Result<(), Error> {
        let ttl = ttl.min(Duration::from_millis(DEADLINE_MAX_MILLIS));
        let places = live.as_ref().map(|live| live.places.clone());
        let part = Part {
            peer: peer.into(),
            is_driven_here,
            is_made_here: true,
            until: Instant::now() + ttl,
            fault: Fault::default(),
            is_door_fenced: false,
            is_ending: false,
            live,
            wait: Wait::default(),
        };
        {
            let mut parts = self.drills.parts();
            if let Some(other) = parts.keys().next() {
                return Err(Error::Busy(other.clone()));
            }
            parts.insert(id.into(), part);
        }
        let until_millis = self.shared.clock.now_millis() + ttl.as_millis() as u64;
        let mark =
            serde_json::to_string(&Mark { peer: peer.into(), until_millis, places }).expect("it has string keys");
        if let Err(e) = self.shared.journal.set_verb_state(&subject(id), Some(&mark)).await {
            self.drills.parts().remove(id);
            return Err(e.into());
        }
        Ok(())
    }

    /// Ends this site's part in a drill: its fault, then what it left, and then what is known of it. Again is safe; what
    /// fails is tried again by [`Replicator::keep_parts`].
    pub(super) async fn remove_part(&self, id: &str) -> Result<(), Error> {
        let (peer, places) = {
            let mut parts = self.drills.parts();
            let Some(part) = parts.get_mut(id) else { return Ok(()) };
            (part.is_ending, part.fault) = (true, Fault::default());
            (part.peer.clone(), part.live.as_ref().map(|live| live.places.clone()))
        };
        self.drills.turned.send_replace(());
        self.verbs.notify_one();
        let _turn = self.drills.removal.lock().await;
        if !self.drills.parts().contains_key(id) {
            return Ok(());
        }
        if let Err(why) = self.fence(id, Fence::None, Duration::ZERO).await {
            tracing::warn!(drill = id, why, "A fence is not lifted; it ends by its own deadline.");
        }
        match places {
            Some(places) => self.clear_places(&places).await?,
            None => self.remove_canary(id, &peer).await?,
        }
        self.shared.journal.set_verb_state(&subject(id), None).await?;
        self.drills.parts().remove(id);
        tracing::info!(drill = id, "What a drill left here is gone.");
        Ok(())
    }

    /// Removes what a live drill wrote, until a pass finds no more than the one before it: what is guarded stays.
    pub(super) async fn clear_places(&self, places: &[Place]) -> Result<(), Error> {
        let client = self.shared.store.client().ok_or(Error::NoClient)?;
        let mut before = None;
        for _ in 0..PASSES_MAX {
            for Place { bucket, prefix } in places {
                client.clear(bucket, prefix).await?;
            }
            tokio::time::sleep(SETTLES).await;
            let left = self.left_in(places).await?;
            if left == 0 || before == Some(left) {
                return Ok(());
            }
            before = Some(left);
        }
        Err(Error::StillComes)
    }

    /// Removes a canary: its link, and its bucket.
    async fn remove_canary(&self, id: &str, peer: &str) -> Result<(), Error> {
        let name = canary(id);
        let ended = async {
            while self.runs(&name) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LINK_END, ended).await.map_err(|_| Error::LinkRuns)?;
        self.forget_links(&name).await?;
        self.shared.store.client().ok_or(Error::NoClient)?.remove_bucket(&name).await?;
        self.state().verifies.remove(&name);
        let labels = LinkLabels { rule: name.clone(), bucket: name, peer: peer.into() };
        self.shared.metrics.forget_bucket(&labels);
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

    /// Whether this site takes part in some drill: its id.
    pub(super) fn any_part(&self) -> Option<String> {
        self.drills.parts().keys().next().cloned()
    }
}
