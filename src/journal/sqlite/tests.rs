use super::*;
use std::sync::Arc;
use tempfile::TempDir;

/// What is on the drive at this moment, as a kill -9 would leave it.
fn crash_image(from: &Path, to: &Path) {
    for name in ["journal.sqlite", "journal.sqlite-wal"] {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

#[tokio::test]
async fn sqlite_journal_conforms_and_survives_kills() {
    let mut lives: Vec<TempDir> = Vec::new();
    let mut alive: Vec<Arc<SqliteJournal>> = Vec::new();
    crate::journal::conformance::run(async || {
        let next = TempDir::new().unwrap();
        if let Some(last) = lives.last() {
            crash_image(last.path(), next.path());
        }
        let journal = Arc::new(SqliteJournal::open(&next.path().join("journal.sqlite")).await.unwrap());
        // The killed one is kept: it never gets to close its file in good order.
        alive.push(journal.clone());
        lives.push(next);
        journal as Arc<dyn Journal>
    })
    .await;
    assert!(alive.len() > 3, "the suite reopens");
}

#[tokio::test]
async fn second_process_on_the_same_journal_is_refused_with_a_clear_error() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal.sqlite");
    let first = SqliteJournal::open(&path).await.unwrap();
    let Err(Error::Unusable(said)) = SqliteJournal::open(&path).await else { panic!("two owners of one journal") };
    assert!(said.contains("another process holds it") && said.contains("journal.sqlite"), "{said}");
    drop(first);
    // The connection's thread closes the file a moment after the drop; an open waits for that.
    SqliteJournal::open(&path).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_journal_is_unusable_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal.sqlite");
    std::fs::write(&path, vec![7u8; 8192]).unwrap();
    assert!(matches!(SqliteJournal::open(&path).await, Err(Error::Unusable(_))));
    assert_eq!(std::fs::read(&path).unwrap(), vec![7u8; 8192]);
}
