//! Answers what readers of a store in another process want: takes their questions from the store, asks the peers as
//! `neighbour.rs` does, brings the answers back. Keeps nothing: who lends the bytes is asked anew for each range.
use super::neighbour::Neighbours;
use crate::store::{Found, Question, Readers, Store};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use storage_engine::api::Neighbour;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Questions under way at once; the others wait at the store.
const AT_ONCE: usize = 64;
/// How long the store is waited for: a rule that was altered counts for readers no later.
const WAIT: Duration = Duration::from_secs(5);
/// Between two looks whether a rule lets its bucket be read from peers, and after an error.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers until it is dropped, which gives up what is under way. A store whose readers ask by themselves needs none of
/// it.
pub async fn answer(store: Arc<dyn Store>, neighbours: Arc<Neighbours>) {
    let Some(readers) = store.readers() else { return };
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut under_way = JoinSet::new();
    loop {
        while under_way.try_join_next().is_some() {}
        let buckets = neighbours.buckets();
        if buckets.is_empty() {
            sleep(PAUSE).await;
            continue;
        }
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match readers.wanted(buckets, WAIT).await {
            Ok(Some(question)) => {
                let (store, neighbours) = (store.clone(), neighbours.clone());
                under_way.spawn(async move {
                    let _place = place;
                    if let Some(readers) = store.readers() {
                        answer_one(readers, &neighbours, question).await;
                    }
                });
            }
            Ok(None) => {}
            Err(e) => {
                tracing::debug!(error = %e, "The store cannot say what its readers want.");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn answer_one(readers: &dyn Readers, neighbours: &Neighbours, question: Question) {
    let Question { number, bucket, key, version, range } = question;
    let found = neighbours.find(&bucket, &key, version).await;
    let nothing = || futures::stream::empty().boxed();
    let (found, body) = match (found, range) {
        (None, _) => (Found::Nothing, nothing()),
        (Some(found), None) => (Found::Version { place: found.place, version: Box::new(found.version) }, nothing()),
        (Some(found), Some(range)) => (Found::Bytes, (found.read)(range)),
    };
    if let Err(e) = readers.lend(number, found, body).await {
        tracing::debug!(bucket, error = %e, "A reader does not get what a peer lends.");
    }
}
