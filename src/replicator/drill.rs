//! Failover drills at this site: what takes part in them, what their fault is, and until when. A canary is laid over the
//! documents: a rule of its own towards one peer, a grant of its own for that peer, and nothing else of either. A live
//! drill changes no document: it names links that there are (`live.rs`).
//!
//! Faults live in memory with a deadline of their own, so that a restart lifts them; what must be undone (the canary's
//! bucket, objects in a user's) stands in the journal, and whichever process of the site sees its deadline pass removes it
//! (`canary.rs`). No fault ever touches a link that is not named: every one of them is looked up by its name.
mod answer;
mod canary;
mod client;
mod conduct;
mod kept;
mod live;
mod measure;
mod preflight;

use super::Replicator;
use super::far::{Far, FarEnd};
use super::health::Seen;
use super::report::{LastDrill, LinkReport};
use crate::drill::cost::Wait;
use crate::drill::report::Report;
use crate::drill::{Cut, Fence, PREFIX, canary, is_canary};
use crate::rule::plan::LinkName;
use crate::rule::{Brake, Destination, Filter, Grant, PeerDoc, Replicate, Rule, RuleSet};
pub(super) use answer::answer;
use kept::Kept;
use live::Live;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fault {
    /// Which way nothing passes: the links bring nothing, nothing is taken of what comes.
    cut: Cut,
    /// The drill's client is turned away here.
    is_fenced: bool,
    /// It ends by itself then; `None`: there is none.
    until: Option<Instant>,
}

/// This site's part in a drill.
struct Part {
    /// Name of the Peer it is with.
    peer: String,
    /// The drill is driven by this process.
    is_driven_here: bool,
    /// Made by this process, which runs its links; another only takes what comes for a canary, and removes what is left.
    is_made_here: bool,
    until: Instant,
    fault: Fault,
    /// A fence was set at the front door of the store.
    is_door_fenced: bool,
    /// It is being removed: no rule, no grant and no fault any more.
    is_ending: bool,
    /// Of a live drill; `None`: a canary.
    live: Option<Live>,
    /// How long the versions of its links from here wait.
    wait: Wait,
}

/// Where a drill writes at this site: keys of a bucket that begin with this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    bucket: String,
    prefix: String,
}

/// A link that a drill acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Acted {
    name: LinkName,
    /// Name of its rule.
    rule: String,
}

/// A drill that this process drives, or drove.
struct Driven {
    shown: watch::Receiver<Report>,
    abort: CancellationToken,
}

/// All of it.
#[derive(Default)]
pub struct Drills {
    parts: Mutex<BTreeMap<String, Part>>,
    /// A fault has begun or ended.
    turned: watch::Sender<()>,
    driven: Mutex<Option<Driven>>,
    /// The last one that this site drove to its end, in this life or one before.
    pub(super) last: Seen<LastDrill>,
    /// One removal at a time.
    removal: tokio::sync::Mutex<()>,
    /// The replicator, once drills may be carried out; reports that are kept.
    host: OnceLock<(Weak<Replicator>, Kept)>,
}

impl Drills {
    /// Lays the canaries' rules over the documents'.
    pub(super) fn lay_over(&self, set: &mut RuleSet, site: &str) {
        let is_run = |part: &Part| part.live.is_none() && part.is_made_here && !part.is_ending;
        for (id, found) in self.parts().iter().filter(|(_, part)| is_run(part)) {
            if set.peers.contains_key(&found.peer) {
                let rule = rule(id, site, &found.peer);
                set.rules.insert(rule.name.clone(), rule);
            }
        }
    }

    /// The peer with what it may write into this bucket for a drill's sake.
    pub(super) fn granting(&self, mut peer: PeerDoc, bucket: &str) -> PeerDoc {
        let granted = id_of(bucket)
            .is_some_and(|id| self.parts().get(id).is_some_and(|part| part.peer == peer.name && !part.is_ending));
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

    /// Whether nothing is taken now of what this link of a peer brings to a bucket here.
    pub(super) fn is_refused(&self, peer: &str, link: &str, bucket: &str) -> bool {
        self.parts().iter().any(|(id, part)| {
            part.fault.cut.inbound
                && part.peer == peer
                && match &part.live {
                    Some(live) => live.incoming.iter().any(|name| name == link),
                    None => id_of(bucket) == Some(id.as_str()),
                }
        })
    }

    /// Whether this link of the site sends nothing now.
    fn is_cut_off(&self, name: &LinkName) -> bool {
        let is_it = |(id, part): (&String, &Part)| match &part.live {
            Some(live) => live.acts_on(name),
            None => id_of(&name.rule) == Some(id.as_str()),
        };
        self.parts().iter().any(|entry| entry.1.fault.cut.outbound && is_it(entry))
    }

    /// The live drill that has cut a link of the site, in whichever direction: nothing can be read over it.
    pub(super) fn cut_by(&self, name: &LinkName) -> Option<String> {
        let is_it = |part: &Part| part.live.as_ref().is_some_and(|live| live.acts_on(name));
        let parts = self.parts();
        parts.iter().find(|(_, part)| part.fault.cut.is_some() && is_it(part)).map(|(id, _)| id.clone())
    }

    /// What a link shows, with the drill that has cut it.
    pub(super) fn said(&self, name: &LinkName, report: LinkReport) -> LinkReport {
        match self.cut_by(name) {
            Some(id) => LinkReport { last_error: Some(format!("cut by failover drill {id}, until its end")), ..report },
            None => report,
        }
    }

    /// The fault of a drill as it holds now.
    fn fault(&self, id: &str) -> Option<Fault> {
        self.parts().get(id).map(|part| part.fault)
    }

    /// Where a drill writes here.
    fn places(&self, id: &str) -> Vec<Place> {
        match self.parts().get(id).map(|part| part.live.as_ref().map(|live| live.places.clone())) {
            None => Vec::new(),
            Some(None) => vec![Place { bucket: canary(id), prefix: String::new() }],
            Some(Some(places)) => places,
        }
    }

    /// The links from here that a drill acts on.
    fn acted(&self, id: &str) -> Vec<Acted> {
        match self.parts().get(id) {
            None => Vec::new(),
            Some(Part { live: Some(live), .. }) => live.links.clone(),
            Some(Part { peer, .. }) => {
                vec![Acted { name: LinkName { rule: canary(id), peer: peer.clone() }, rule: canary(id) }]
            }
        }
    }

    /// Sets the fault of a drill; it ends by itself after `ttl`, and never later than the drill.
    fn set_fault(&self, id: &str, cut: Cut, fence: Fence, ttl: Duration) -> bool {
        let is_fenced = fence != Fence::None;
        {
            let mut parts = self.parts();
            let Some(part) = parts.get_mut(id).filter(|part| !part.is_ending) else { return false };
            let until = (cut.is_some() || is_fenced).then(|| (Instant::now() + ttl).min(part.until));
            part.fault = Fault { cut, is_fenced, until };
        }
        self.turned.send_replace(());
        tracing::info!(drill = id, cut.outbound, cut.inbound, ?fence, "The fault of a drill was set.");
        true
    }

    /// The way of a link to its peer: broken while a drill has it send nothing.
    pub(super) fn through(self: &Arc<Self>, name: &LinkName, mut line: Far, tasks: &TaskTracker) -> Far {
        let turned = self.turned.subscribe();
        let is_cut = self.is_cut_off(name);
        let standing = line.borrow_and_update().clone().filter(|_| !is_cut);
        let (tell, told) = watch::channel::<Option<FarEnd>>(standing);
        tasks.spawn(carry(self.clone(), name.clone(), line, is_cut, turned, tell));
        told
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<String, Part>> {
        self.parts.lock().expect("no panic while held")
    }

    fn driven(&self) -> MutexGuard<'_, Option<Driven>> {
        self.driven.lock().expect("no panic while held")
    }

    /// The replicator that carries drills out; `None`: it carries none out.
    fn host(&self) -> Option<Arc<Replicator>> {
        self.host.get()?.0.upgrade()
    }
}

/// Shows the line while no drill has the link send nothing, for as long as somebody looks: a link drains over it.
async fn carry(
    drills: Arc<Drills>,
    name: LinkName,
    mut line: Far,
    mut was_cut: bool,
    mut turned: watch::Receiver<()>,
    tell: watch::Sender<Option<FarEnd>>,
) {
    let mut is_told = true;
    loop {
        turned.mark_unchanged();
        let is_cut = drills.is_cut_off(&name);
        if !is_told || is_cut != was_cut {
            let standing = line.borrow_and_update().clone();
            tell.send_replace(standing.filter(|_| !is_cut));
        }
        (is_told, was_cut) = (true, is_cut);
        tokio::select! {
            changed = line.changed() => match changed {
                Ok(()) => is_told = false,
                Err(_) => return,
            },
            changed = turned.changed() => if changed.is_err() { return },
            () = tell.closed() => return,
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
