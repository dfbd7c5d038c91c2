//! Two sides over real TLS: what a comparison finds, what it costs, and what a peer is told.
use super::*;
use crate::replicator::answer::answer;
use crate::rule::PeerDoc;
use futures::StreamExt;
use rig::{Numbered, Rig, key, number, peer, projection};
use std::sync::atomic::Ordering;
use storage_engine::version::Origin;

pub(in crate::replicator) mod rig;

/// Both sides over versions by number.
async fn rig(here: Numbered, there: Numbered) -> Rig {
    rig::rig(Arc::new(here), Arc::new(there)).await
}

impl Rig {
    /// Every difference, by number; fails within a minute rather than hang.
    async fn differences(&self) -> Result<Vec<(u64, &'static str)>, Error> {
        let all = async {
            let pages = self.sides.pages().map(|page| async { self.sides.compare(page?).await });
            pages.buffered(4).collect::<Vec<_>>().await
        };
        let mut found = Vec::new();
        for page in tokio::time::timeout(Duration::from_secs(120), all).await.expect("it ends") {
            found.extend(page?.into_iter().map(|difference| {
                let kind = match difference {
                    Difference::OnlyHere { .. } => "missing there",
                    Difference::OnlyThere { .. } => "missing here",
                    Difference::Unlike { .. } => "unlike",
                };
                (number(difference.place().0), kind)
            }));
        }
        Ok(found)
    }
}

/// Ten differences spread over `count` versions: seven missing there, three here.
async fn ten_differences(count: u64) -> Rig {
    let at = |n: u64| n * (count / 10) + 3;
    let here = Numbered { count, missing: (0..3).map(at).collect(), ..Numbered::default() };
    let there = Numbered { count, missing: (3..10).map(at).collect(), ..Numbered::default() };
    let rig = rig(here, there).await;
    let expected: Vec<_> = (0..10).map(|n| (at(n), if n < 3 { "missing here" } else { "missing there" })).collect();
    assert_eq!(rig.differences().await.unwrap(), expected);
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_sites_cost_a_question_a_page() {
    let all = Numbered { count: 20_000, ..Numbered::default() };
    let rig = rig(all.clone(), all).await;
    assert_eq!(rig.differences().await.unwrap(), []);
    assert_eq!(rig.sides.questions.load(Ordering::Relaxed), 2);
    assert!(rig.wire_bytes() < 20_000, "{} bytes", rig.wire_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cost_grows_with_the_difference_and_is_counted() {
    let rig = ten_differences(20_000).await;
    let counted = rig.sides.wire_bytes.load(Ordering::Relaxed);
    // The other end counts an answer once it is written: it may be here before.
    let both_have = async {
        while rig.wire_bytes() < counted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), both_have).await.expect("both ends count the same bytes");
    assert!(rig.wire_bytes() < 200_000, "{} bytes", rig.wire_bytes());
    // Beside the questions and answers there are Hello and pings.
    assert!(rig.wire_bytes() < counted + 20_000, "{counted} of {}", rig.wire_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_lacks_everything_is_found_to() {
    let rig = rig(Numbered { count: 2_500, ..Numbered::default() }, Numbered::default()).await;
    assert_eq!(rig.differences().await.unwrap().len(), 2_500);
    let rig = self::rig(Numbered::default(), Numbered { count: 2_500, ..Numbered::default() }).await;
    let found = rig.differences().await.unwrap();
    assert_eq!((found.len(), found[0], found[2_499]), (2_500, (0, "missing here"), (2_499, "missing here")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_read_is_never_an_empty_one() {
    let all = Numbered { count: 5_000, ..Numbered::default() };
    let broken = Numbered { unreadable: Some(4_321), ..all.clone() };
    let here = rig(broken.clone(), all.clone()).await.differences().await;
    assert!(matches!(&here, Err(Error::Store(store::Error::Unavailable(_)))), "{here:?}");
    let there = rig(all, broken).await.differences().await;
    assert!(matches!(&there, Err(Error::NoAnswer(why)) if why.contains("two drives are gone")), "{there:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_made_is_not_compared() {
    let here = Numbered { count: 100, foreign: [5].into(), ..Numbered::default() };
    let there = Numbered { count: 100, foreign: [5].into(), missing: [5].into(), ..Numbered::default() };
    assert_eq!(rig(here, there).await.differences().await.unwrap(), []);
}

fn ask_all(projection: Projection, bucket: &str) -> Question {
    let ask = Ask::Items { range: KeyRange::default(), behind: None };
    Question { bucket: bucket.into(), projection, ask, unknown: Fields::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_told_within_its_grant_only() {
    let store = Arc::new(Numbered { count: 4, foreign: [1, 2].into(), ..Numbered::default() });
    let told = async |peer: Option<PeerDoc>, question: Question| answer(store.clone(), "fra", peer, question).await;
    let relay = Projection { forward_all: true, ..projection() };
    let Answer::Items { items, is_last: true } = told(Some(peer("logs", "")), ask_all(relay, "logs")).await else {
        panic!("its own versions are told");
    };
    assert_eq!(items.iter().map(|i| i.key.as_str()).collect::<Vec<_>>(), [key(0), key(3)], "not another site's");
    let posing = Projection { source: Origin::new("waw"), ..projection() };
    let refused = [
        (Some(peer("other", "")), projection(), "bucket"),
        (Some(peer("logs", "ams/")), projection(), "prefix"),
        (Some(peer("logs", "")), posing, "another site's source"),
        (None, projection(), "no such peer"),
    ];
    for (peer, projection, why) in refused {
        let said = told(peer, ask_all(projection, "logs")).await;
        assert!(matches!(said, Answer::Refused(_)), "{why}: {said:?}");
    }
    let suspended = PeerDoc { suspend: true, ..peer("logs", "") };
    assert!(matches!(told(Some(suspended), ask_all(projection(), "logs")).await, Answer::Unavailable(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_that_descend_are_refused() {
    let store = Arc::new(Numbered { count: 4, ..Numbered::default() });
    let ranges = vec![KeyRange { after: Some(key(2)), upto: None }, KeyRange { after: None, upto: Some(key(1)) }];
    let question = Question { ask: Ask::Digests(ranges), ..ask_all(projection(), "logs") };
    assert!(matches!(answer(store, "fra", Some(peer("logs", "")), question).await, Answer::Refused(_)));
}
