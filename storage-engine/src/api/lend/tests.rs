use super::*;
use crate::version::VersionId;
use futures::TryStreamExt;

/// How long the replicator waits for a question.
const SOON: Duration = Duration::from_secs(60);

fn id() -> VersionId {
    VersionId::from_bytes([7; 16])
}

fn buckets() -> Vec<String> {
    vec!["orders".into()]
}

fn body(chunks: Vec<io::Result<&'static str>>) -> Body {
    futures::stream::iter(chunks.into_iter().map(|chunk| chunk.map(Bytes::from))).boxed()
}

/// A replicator that answers every question: it has the key `there`, of ten bytes.
fn replicator(desk: &Desk) -> tokio::task::JoinHandle<()> {
    let desk = desk.clone();
    tokio::spawn(async move {
        loop {
            let Some(question) = desk.next(&buckets(), SOON).await else { continue };
            let (found, bytes) = match (question.key.as_str(), &question.range) {
                ("there" | "cut" | "short" | "long", None) => {
                    let version = Box::new(Version::blank(&question.key, id()));
                    (Found::Version { place: "ams".into(), version }, vec![])
                }
                ("there", Some(range)) if *range == (2..8) => (Found::Bytes, vec![Ok("234"), Ok("567")]),
                ("cut", Some(_)) => (Found::Bytes, vec![Ok("234"), Err(io::Error::other("cut on its way"))]),
                ("short", Some(_)) => (Found::Bytes, vec![Ok("234")]),
                ("long", Some(_)) => (Found::Bytes, vec![Ok("234567"), Ok("8")]),
                _ => (Found::Nothing, vec![]),
            };
            desk.answer(question.number, found, body(bytes)).await;
        }
    })
}

async fn read(desk: &Desk, key: &str) -> Result<Vec<u8>, String> {
    let found = desk.find("orders", key, Some(id())).await.expect("it is lent");
    assert_eq!((found.place.as_str(), found.version.id), ("ams", id()));
    let chunks: Result<Vec<Bytes>, _> = (found.read)(2..8).try_collect().await;
    chunks.map(|chunks| chunks.concat()).map_err(|e| e.to_string())
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_where_nobody_takes_questions() {
    let desk = Desk::default();
    let began = Instant::now();
    assert!(desk.find("orders", "there", None).await.is_none());
    let _replicator = replicator(&desk);
    tokio::task::yield_now().await;
    assert!(desk.find("invoices", "there", None).await.is_none(), "not a bucket that it takes questions of");
    assert_eq!(began.elapsed(), Duration::ZERO, "and no reader waits for it");
}

#[tokio::test(start_paused = true)]
async fn what_is_lent_arrives_whole_or_the_reader_hears_that_it_did_not() {
    let desk = Desk::default();
    let replicator = replicator(&desk);
    tokio::task::yield_now().await;
    assert!(desk.find("orders", "nowhere", None).await.is_none());
    assert_eq!(read(&desk, "there").await.unwrap(), b"234567");
    assert!(read(&desk, "cut").await.unwrap_err().contains("cut on its way"));
    assert!(read(&desk, "short").await.unwrap_err().contains("no longer"));
    assert!(read(&desk, "long").await.is_ok_and(|bytes| bytes == b"234567"), "what was asked for, and no more");
    // It dies: what is asked just then ends with the reader's patience, later questions at once.
    let found = desk.find("orders", "there", None).await.expect("it is lent");
    replicator.abort();
    assert!(desk.find("orders", "there", None).await.is_none());
    tokio::time::sleep(AWAY).await;
    let began = Instant::now();
    assert!(desk.find("orders", "there", None).await.is_none());
    assert!((found.read)(2..8).try_collect::<Vec<_>>().await.is_err());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_question_is_forgotten_with_its_reader_and_there_are_never_too_many() {
    let desk = Desk::default();
    assert_eq!(desk.next(&buckets(), Duration::from_millis(1)).await, None, "it was here a moment ago");
    let readers: Vec<_> = (0..QUESTIONS_MAX + 1)
        .map(|_| {
            let desk = desk.clone();
            tokio::spawn(async move { desk.find("orders", "there", None).await.is_some() })
        })
        .collect();
    for _ in 0..QUESTIONS_MAX {
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.0.state().waiting.len(), QUESTIONS_MAX);
    for reader in readers {
        reader.abort();
        let _ = reader.await;
    }
    let state = desk.0.state();
    assert!(state.waiting.is_empty() && state.readers.is_empty());
}
