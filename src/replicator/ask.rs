//! What a person may ask of a running link, answered by its loop between two steps: nothing else may look into a
//! link. Called by `replicator/verbs.rs`.
use crate::link::{Again, Event, Link, Millis, ROWS_MAX, Row, Standing};
use storage_engine::feed::Cursor;
use storage_engine::version::Version;
use tokio::sync::oneshot::Sender;

/// A question, and where its answer goes; a link that ends first drops it.
#[derive(Debug)]
pub enum Ask {
    /// Versions that failed go again now; answered with how many.
    Retry(Again, Sender<usize>),
    /// Versions that failed, parked ones first, at most so many.
    Rows(usize, Sender<Vec<Row>>),
    /// Parked versions, the newest first, at most so many.
    Parked(usize, Sender<Vec<Row>>),
    /// What the brake holds back goes; answered with how many deletes it held.
    Release(Sender<u64>),
    /// Where the link stands in its store's feed: what the brake holds back lies behind it.
    Place(Sender<Option<Cursor>>),
    /// Where these versions stand, in their order.
    Standing(Vec<Version>, Sender<Vec<Standing>>),
}

impl Ask {
    /// Answers from the link as it is; returns what it is told then.
    pub fn answer(self, link: &Link, now: Millis) -> Event {
        // Whoever asked may have gone.
        match self {
            Ask::Retry(which, tell) => {
                let _ = tell.send(link.rows(ROWS_MAX).iter().filter(|row| which.matches(row)).count());
                return Event::Retry(which);
            }
            Ask::Release(tell) => {
                let _ = tell.send(link.shown(now).braked_versions);
                return Event::Release;
            }
            Ask::Rows(limit, tell) => drop(tell.send(link.rows(limit))),
            Ask::Parked(limit, tell) => drop(tell.send(link.parked(limit))),
            Ask::Place(tell) => drop(tell.send(link.place())),
            Ask::Standing(versions, tell) => {
                drop(tell.send(versions.iter().map(|version| link.standing(version)).collect()));
            }
        }
        Event::Tick
    }
}
