//! Failover drills at this site: the canaries there are, what their fault is, and until when. A canary is laid over the
//! documents: a rule of its own towards one peer, a grant of its own for that peer, and nothing else of either.
//!
//! Faults live in memory with a deadline of their own, so that a restart lifts them; what must be undone (the canary's
//! bucket) stands in the journal, and whichever process of the site sees its deadline pass removes it (`canary.rs`).
//! No fault ever touches another link: every one of them is looked up by the canary's name.
mod answer;
mod canary;
mod client;
mod conduct;
mod kept;
mod preflight;

use super::Replicator;
use super::far::{Far, FarEnd};
use crate::drill::report::Report;
use crate::drill::{PREFIX, canary, is_canary};
use crate::rule::{Brake, Destination, Filter, Grant, PeerDoc, Replicate, Rule, RuleSet};
pub(super) use answer::answer;
use kept::Kept;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What is wrong with a canary on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fault {
    /// Its link brings nothing, and nothing is taken for it.
    is_cut: bool,
    /// The drill's client is turned away here.
    is_fenced: bool,
    /// It ends by itself then; `None`: there is none.
    until: Option<Instant>,
}

/// A canary of this site.
struct Canary {
    /// Name of the Peer it goes to and comes from.
    peer: String,
    /// The drill is driven by this process.
    is_driven_here: bool,
    /// Made by this process, which runs its link; another only takes what comes for it, and removes it.
    is_made_here: bool,
    until: Instant,
    fault: watch::Sender<Fault>,
    /// It is being removed: no rule and no grant any more.
    is_ending: bool,
}

/// A drill that this process drives, or drove.
struct Driven {
    shown: watch::Receiver<Report>,
    abort: CancellationToken,
}

/// All of it.
#[derive(Default)]
pub struct Drills {
    canaries: Mutex<BTreeMap<String, Canary>>,
    driven: Mutex<Option<Driven>>,
    /// One removal at a time.
    removal: tokio::sync::Mutex<()>,
    /// The replicator, once drills may be carried out; reports that are kept.
    host: OnceLock<(Weak<Replicator>, Kept)>,
}

impl Drills {
    /// Lays the canaries' rules over the documents'.
    pub(super) fn lay_over(&self, set: &mut RuleSet, site: &str) {
        for (id, found) in self.canaries().iter().filter(|(_, c)| c.is_made_here && !c.is_ending) {
            if set.peers.contains_key(&found.peer) {
                let rule = rule(id, site, &found.peer);
                set.rules.insert(rule.name.clone(), rule);
            }
        }
    }

    /// The peer with what it may write into this bucket for a drill's sake.
    pub(super) fn granting(&self, mut peer: PeerDoc, bucket: &str) -> PeerDoc {
        let granted = id_of(bucket)
            .is_some_and(|id| self.canaries().get(id).is_some_and(|c| c.peer == peer.name && !c.is_ending));
        if granted {
            let origins = Vec::new();
            let (prefix, bucket) = (String::new(), bucket.to_string());
            peer.inbound.push(Grant {
                bucket,
                prefix,
                origins,
                deletes: true,
                version_deletes: false,
                documents: false,
            });
        }
        peer
    }

    /// Whether nothing is taken for this bucket now.
    pub(super) fn is_cut(&self, bucket: &str) -> bool {
        id_of(bucket).and_then(|id| self.fault(id)).is_some_and(|fault| fault.is_cut)
    }

    /// The fault of a canary as it holds now.
    fn fault(&self, id: &str) -> Option<Fault> {
        self.canaries().get(id).map(|c| *c.fault.borrow())
    }

    /// Sets the fault of a canary; it ends by itself after `ttl`, and never later than the canary.
    fn set_fault(&self, id: &str, is_cut: bool, is_fenced: bool, ttl: Duration) -> bool {
        let canaries = self.canaries();
        let Some(canary) = canaries.get(id).filter(|c| !c.is_ending) else { return false };
        let until = (is_cut || is_fenced).then(|| (Instant::now() + ttl).min(canary.until));
        canary.fault.send_replace(Fault { is_cut, is_fenced, until });
        tracing::info!(drill = id, is_cut, is_fenced, "The fault of a drill was set.");
        true
    }

    /// The way of a link to its peer: of a canary's, broken while it is cut.
    pub(super) fn through(&self, rule_uid: &str, line: Far, stop: CancellationToken, tasks: &TaskTracker) -> Far {
        let fault = id_of(rule_uid).and_then(|id| self.canaries().get(id).map(|c| c.fault.subscribe()));
        let Some(fault) = fault else { return line };
        let (tell, told) = watch::channel::<Option<FarEnd>>(None);
        tasks.spawn(stop.run_until_cancelled_owned(carry(line, fault, tell)));
        told
    }

    fn canaries(&self) -> MutexGuard<'_, BTreeMap<String, Canary>> {
        self.canaries.lock().expect("no panic while held")
    }

    fn driven(&self) -> MutexGuard<'_, Option<Driven>> {
        self.driven.lock().expect("no panic while held")
    }

    /// The replicator that carries drills out; `None`: it carries none out.
    fn host(&self) -> Option<Arc<Replicator>> {
        self.host.get()?.0.upgrade()
    }
}

/// Shows the line while the canary is not cut.
async fn carry(mut line: Far, mut fault: watch::Receiver<Fault>, tell: watch::Sender<Option<FarEnd>>) {
    loop {
        let is_cut = fault.borrow_and_update().is_cut;
        let standing = line.borrow_and_update().clone();
        tell.send_replace(standing.filter(|_| !is_cut));
        tokio::select! {
            changed = line.changed() => if changed.is_err() { return },
            changed = fault.changed() => if changed.is_err() { return },
        }
    }
}

fn id_of(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX).filter(|_| is_canary(name))
}

/// The rule of a canary: everything of its bucket to one peer, deletes too, and no brake.
fn rule(id: &str, site: &str, peer: &str) -> Rule {
    let name = canary(id);
    let destination = Destination { peer: peer.into(), bucket: name.clone(), bandwidth: None, suspend: false };
    Rule {
        uid: name.clone(),
        name: name.clone(),
        site: site.into(),
        bucket: name,
        active_active: true,
        priority: 0,
        filter: Filter::default(),
        destinations: vec![destination],
        replicate: Replicate {
            delete_markers: true,
            version_deletes: false,
            tags: true,
            object_lock: false,
            existing_objects: true,
            bucket_documents: false,
        },
        forward_all: false,
        read_from_peers: false,
        is_bulk: false,
        commit_order: false,
        brake: Brake { percent: 100, window_millis: 1_000, versions_min: u64::MAX },
        brake_release: 0,
        bandwidth: None,
        rpo_millis: None,
        suspend: false,
        generation: 1,
    }
}

#[cfg(test)]
mod tests;
