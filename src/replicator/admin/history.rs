//! How far behind each link was over the last hour, and how fast its backlog shrinks, for the status page. In memory alone: it begins with the process.
use crate::replicator::Replicator;
use crate::replicator::report::{LinkReport, SiteReport};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Between two points.
const EVERY: Duration = Duration::from_secs(30);
/// Points of a link: an hour of them, about a kilobyte.
pub(super) const POINTS: usize = 120;

/// Points from which the pace of a backlog is taken: a minute of them.
const PACE: usize = 3;
/// A backlog that takes longer at its pace is said to be of unknown end, milliseconds.
const ETA_MAX: u64 = 30 * 86_400_000;

/// Rule, bucket, peer.
type Name = (String, String, String);
/// Lags in seconds, oldest first; `None`: not known then.
pub(super) type Lags = VecDeque<Option<f64>>;

/// What is remembered of a link.
#[derive(Default)]
struct Past {
    lags: Lags,
    /// When it was measured, Unix milliseconds, and the versions that waited; the newest few where they were known.
    backlogs: VecDeque<(u64, u64)>,
}

/// What is remembered; bounded by the links there are.
#[derive(Default)]
pub struct History(Mutex<BTreeMap<Name, Past>>);

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
            let mut past = all.remove(&name(link)).unwrap_or_default();
            if past.lags.len() == POINTS {
                past.lags.pop_front();
            }
            past.lags.push_back(link.lag_seconds);
            if past.backlogs.len() == PACE {
                past.backlogs.pop_front();
            }
            past.backlogs.extend(link.backlog_versions.map(|versions| (link.measured_at, versions)));
            kept.insert(name(link), past);
        }
        *all = kept;
    }

    /// The points of a link.
    pub(super) fn of(&self, link: &LinkReport) -> Lags {
        self.lock().get(&name(link)).map(|past| past.lags.clone()).unwrap_or_default()
    }

    /// Seconds until its backlog is drained at the pace of the last minute; `None`: it does not shrink, or it is not known.
    pub(super) fn eta_seconds(&self, link: &LinkReport) -> Option<f64> {
        let (began, had) = *self.lock().get(&name(link))?.backlogs.front()?;
        let left = link.backlog_versions?;
        let (drained, passed) = (had.checked_sub(left)?, link.measured_at.checked_sub(began)?);
        let millis = left.saturating_mul(passed).checked_div(drained)?;
        (millis <= ETA_MAX).then_some(millis as f64 / 1000.0)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Past>> {
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

    #[test]
    fn a_backlog_that_shrinks_ends_at_its_pace_and_any_other_at_an_unknown_time() {
        let history = History::default();
        let link =
            |measured_at, backlog_versions| LinkReport { measured_at, backlog_versions, ..LinkReport::default() };
        let eta = |seconds: u64, versions| history.eta_seconds(&link(seconds * 1000, versions));
        assert_eq!(eta(0, Some(900)), None);
        for (seconds, versions) in [(0, Some(5_000)), (30, Some(1_000)), (60, None), (90, Some(900)), (120, Some(800))]
        {
            let report = SiteReport { links: vec![link(seconds * 1000, versions)], ..SiteReport::default() };
            history.note(&report);
        }
        // Of the last points that were known: 400 in 110 s.
        assert_eq!((eta(140, Some(600)), eta(140, Some(0))), (Some(165.0), Some(0.0)));
        assert_eq!((eta(140, Some(1_000)), eta(140, Some(1_100)), eta(140, None)), (None, None, None));
        assert_eq!(eta(9_000_000, Some(999)), None, "years");
    }
}
