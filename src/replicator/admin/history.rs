//! How far behind each link was over the last hour, for the status page. In memory alone: it begins with the process.
use crate::replicator::Replicator;
use crate::replicator::report::{LinkReport, SiteReport};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Between two points.
const EVERY: Duration = Duration::from_secs(30);
/// Points of a link: an hour of them, about a kilobyte.
pub(super) const POINTS: usize = 120;

/// Rule, bucket, peer.
type Name = (String, String, String);
/// Lags in seconds, oldest first; `None`: not known then.
pub(super) type Lags = VecDeque<Option<f64>>;

/// What is remembered; bounded by the links there are.
#[derive(Default)]
pub struct History(Mutex<BTreeMap<Name, Lags>>);

impl History {
    /// Takes a point of every link again and again; ends only by being dropped.
    pub async fn remember(&self, replicator: &Replicator) {
        loop {
            self.note(&replicator.report());
            tokio::time::sleep(EVERY).await;
        }
    }

    /// One point of each link; links that are no more are forgotten.
    pub(super) fn note(&self, report: &SiteReport) {
        let mut all = self.lock();
        let mut kept = BTreeMap::new();
        for link in &report.links {
            let mut lags = all.remove(&name(link)).unwrap_or_default();
            if lags.len() == POINTS {
                lags.pop_front();
            }
            lags.push_back(link.lag_seconds);
            kept.insert(name(link), lags);
        }
        *all = kept;
    }

    /// The points of a link.
    pub(super) fn of(&self, link: &LinkReport) -> Lags {
        self.lock().get(&name(link)).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Lags>> {
        self.0.lock().expect("no panic while held")
    }
}

fn name(link: &LinkReport) -> Name {
    (link.rule.clone(), link.bucket.clone(), link.peer.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_remembered_of_links_that_there_are() {
        let history = History::default();
        let link = LinkReport { rule: "r".into(), lag_seconds: Some(7.0), ..LinkReport::default() };
        let report = SiteReport { links: vec![link.clone()], ..SiteReport::default() };
        (0..POINTS + 5).for_each(|_| history.note(&report));
        assert_eq!(history.of(&link).len(), POINTS);
        history.note(&SiteReport::default());
        assert!(history.of(&link).is_empty());
    }
}
