//! The slow proof of one link: compares what its peer holds with this site, page after page, for ever, and repairs
//! what differs though it should not.
//!
//! What it finds in steady state is a bug, or a loss at the peer: counted, logged as an error, sent again. Its place
//! is not kept over a restart; only whole passes count. Spawned by `replicator.rs`, one a link; it works while this
//! process pushes the link and the link has caught up. Dropping it halfway is safe.
use super::report::ProofReport;
use super::verify::{Fate, Verify};
use crate::link::reconcile::{Difference, Item};
use crate::telemetry::metrics::{LinkLabels, Metrics};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How much of both sites the proof takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Versions of a page, about.
    pub page_items: usize,
    /// Between two passes at least, and before a page that could not be compared is tried again.
    pub pause: Duration,
    /// A page is paused after for so many times what it took.
    pub rest: u32,
}

impl Default for Pace {
    /// At most one part in 50 of the time, and no page so long that changes wait for it: it takes 0.1 s of both sites on
    /// drives. A million versions take 40 minutes.
    fn default() -> Self {
        Pace { page_items: 2_048, pause: Duration::from_secs(5), rest: 50 }
    }
}

/// A pass under way.
#[derive(Default)]
struct Pass {
    began_at: u64,
    after: Option<String>,
    versions: u64,
    tombstones: Tombstones,
    /// Everything so far was at the peer, or is by now.
    is_proven: bool,
}

/// What a pass has seen of deleted versions.
#[derive(Default)]
struct Tombstones {
    count: u64,
    /// When the oldest was deleted, Unix milliseconds.
    oldest_at: Option<u64>,
    /// What the link brings of them, and the peer did not have.
    unacked: u64,
}

impl Tombstones {
    fn add(&mut self, items: &[Item]) {
        let purged = || items.iter().filter_map(|item| item.purged_at);
        self.count += purged().count() as u64;
        self.oldest_at = self.oldest_at.into_iter().chain(purged().min()).min();
    }
}

/// Proves one link.
pub struct Proof {
    pub labels: LinkLabels,
    pub pace: Pace,
    pub metrics: Arc<Metrics>,
    pub show: watch::Sender<Option<ProofReport>>,
}

impl Proof {
    /// Runs until it is dropped. `links` yields the comparison as the rule is now.
    pub async fn run(self, mut links: watch::Receiver<Arc<Verify>>) {
        let mut pass: Option<Pass> = None;
        let mut rests = self.pace.pause;
        loop {
            tokio::time::sleep(std::mem::replace(&mut rests, self.pace.pause)).await;
            if links.has_changed().unwrap_or(true) {
                // What was proven so far was proven under a rule that holds no more.
                pass = None;
            }
            let link = links.borrow_and_update().clone();
            if !link.is_settled() {
                // What is under way is no proof of anything.
                continue;
            }
            let began = Instant::now();
            let mut now = pass.take().unwrap_or_else(|| self.begin(&link));
            // A thousand links rest nearly all the time: what a page needs is held while one is looked at.
            let compared = Box::pin(self.page(&link, &mut now)).await;
            if links.has_changed().unwrap_or(true) {
                continue;
            }
            let rest = began.elapsed().saturating_mul(self.pace.rest);
            rests += rest;
            let trouble = match compared {
                Ok(true) => {
                    self.end(&now);
                    None
                }
                Ok(false) => {
                    (pass, rests) = (Some(now), rest);
                    None
                }
                Err(error) => {
                    pass = Some(now);
                    Some(error.to_string())
                }
            };
            if let Some(error) = &trouble
                && self.show.borrow().as_ref().is_none_or(|shown| shown.last_error != trouble)
            {
                let LinkLabels { rule, peer, .. } = &self.labels;
                tracing::warn!(%rule, %peer, error, "The proof that the peer holds everything cannot go on; it is tried again.");
            }
            self.update(|shown| shown.last_error = trouble);
        }
    }

    fn begin(&self, link: &Verify) -> Pass {
        let began_at = link.clock.now_millis();
        self.update(|shown| (shown.began_at, shown.versions, shown.behind_key) = (began_at, 0, None));
        Pass { began_at, is_proven: true, ..Pass::default() }
    }

    /// One page; whether it was the last.
    async fn page(&self, link: &Verify, pass: &mut Pass) -> Result<bool, super::reconcile::Error> {
        let sides = link.sides();
        let page = sides.page(pass.after.clone(), self.pace.page_items).await?;
        let (versions, end) = (page.items.len() as u64, page.range.upto.clone());
        pass.tombstones.add(&page.items);
        for fate in link.settle(&sides, page).await? {
            if let Fate::Pending(missing) | Fate::Stands(missing, _) = &fate {
                pass.tombstones.unacked += u64::from(link.is_purged(missing).await?);
            }
            pass.is_proven &= self.count(fate);
        }
        pass.versions += versions;
        pass.after.clone_from(&end);
        self.update(|shown| (shown.versions, shown.behind_key) = (pass.versions, pass.after.clone()));
        Ok(end.is_none())
    }

    /// Whether the version is at the peer now.
    fn count(&self, fate: Fate) -> bool {
        let (difference, reason) = match fate {
            // It may be a conflict of tags, which the site that won brings.
            Fate::Covered => return true,
            Fate::Pending(_) => return false,
            Fate::Repaired(difference) => (difference, None),
            Fate::Stands(difference, reason) => {
                (difference, Some(reason.unwrap_or_else(|| "this site lacks it, and never pulls".into())))
            }
        };
        let kind = match &difference {
            Difference::OnlyHere { .. } => "missing there",
            Difference::Unlike { .. } => "unlike",
            Difference::OnlyThere { .. } => "missing here",
        };
        let (is_repaired, (key, version_id)) = (reason.is_none(), difference.place());
        let LinkLabels { rule, bucket, peer } = &self.labels;
        tracing::error!(%rule, %peer, %bucket, key, %version_id, kind, is_repaired, reason, "The peer did not hold what it should.");
        self.metrics.differences.get_or_create(&self.labels).inc();
        self.update(|shown| {
            shown.differences += 1;
            shown.repaired += u64::from(is_repaired);
        });
        is_repaired
    }

    fn end(&self, pass: &Pass) {
        let Tombstones { count, oldest_at, unacked } = pass.tombstones;
        self.metrics.tombstones(&self.labels, count, oldest_at, unacked);
        self.update(|shown| {
            (shown.tombstones, shown.oldest_tombstone_at) = (Some(count), oldest_at);
            shown.unacked_tombstones = Some(unacked);
        });
        if !pass.is_proven {
            return;
        }
        self.metrics.verified.get_or_create(&self.labels).set(pass.began_at as f64 / 1000.0);
        self.update(|shown| shown.verified_at = Some(pass.began_at));
    }

    fn update(&self, change: impl FnOnce(&mut ProofReport)) {
        self.show.send_modify(|shown| change(shown.get_or_insert_default()));
    }
}
