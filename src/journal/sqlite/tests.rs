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

#[tokio::test]
async fn rows_of_before_there_were_reasons_are_read() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal.sqlite");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut before = SqliteConnection::connect_with(&options).await.unwrap();
    sql::migrator(&MIGRATIONS[..5]).run(&mut before).await.unwrap();
    let link = "INSERT INTO link (rule, bucket, peer, holder, epoch) VALUES ('r', 'b', 'p', 'h', 1)";
    sqlx::query(link).execute(&mut before).await.unwrap();
    for (key, error) in [("a", "clock_ahead"), ("b", "no grant")] {
        let row = "INSERT INTO link_row (link, key, version_id, pending_since, bytes, attempts, next_attempt, last_error, state)
             VALUES (1, ?, ?, 1, 1, 1, 1, ?, 'pending')";
        let id = storage_engine::version::VersionId::from_bytes([7; 16]).to_string();
        sqlx::query(row).bind(key).bind(id).bind(error).execute(&mut before).await.unwrap();
    }
    before.close().await.unwrap();
    let journal = SqliteJournal::open(&path).await.unwrap();
    let link = LinkId { rule: "r".into(), bucket: "b".into(), peer: "p".into() };
    let (_, mut rows) = journal.load(&link, 9).await.unwrap();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    let read: Vec<_> = rows.iter().map(|r| (r.last_error.as_str(), r.reason, r.traceparent.clone())).collect();
    assert_eq!(read, [("clock_ahead", Reason::ClockAhead, None), ("no grant", Reason::Other, None)]);
}

/// What a power cut leaves of the two files.
#[derive(Clone, Default)]
struct Files {
    database: Vec<u8>,
    wal: Vec<u8>,
}

const WAL_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

impl Files {
    fn of(dir: &Path) -> Files {
        let read = |name: &str| std::fs::read(dir.join(name)).unwrap_or_default();
        Files { database: read("journal.sqlite"), wal: read("journal.sqlite-wal") }
    }

    /// Ends of the WAL's frames, and of its header.
    fn frames(&self) -> impl Iterator<Item = usize> {
        let page = u32::from_be_bytes(self.wal[8..12].try_into().unwrap()) as usize;
        (WAL_HEADER_BYTES..=self.wal.len()).step_by(FRAME_HEADER_BYTES + page)
    }

    /// A first part of what these files became, the rest as it was.
    fn torn(&self, after: &Files, database: usize, wal: usize) -> Files {
        let mix = |before: &[u8], after: &[u8], cut: usize| {
            let kept = before.get(cut..).unwrap_or_default();
            [&after[..cut.min(after.len())], kept].concat()
        };
        Files { database: mix(&self.database, &after.database, database), wal: mix(&self.wal, &after.wal, wal) }
    }

    /// Where the journal stands when it is opened on them.
    async fn recover(&self, link: &LinkId) -> (u64, Vec<Row>) {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("journal.sqlite"), &self.database).unwrap();
        std::fs::write(dir.path().join("journal.sqlite-wal"), &self.wal).unwrap();
        let journal = SqliteJournal::open(&dir.path().join("journal.sqlite")).await.unwrap();
        let (checkpoint, mut rows) = journal.load(link, usize::MAX).await.unwrap();
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        (checkpoint.map_or(0, |c| c.committed_through), rows)
    }
}

/// Record number `n`: a row made, a row gone; every eighth so large that the WAL is folded into the database.
fn numbered(n: u64) -> Record {
    let row = |key: String, error_bytes: usize| Row {
        key,
        version_id: storage_engine::version::VersionId::from_bytes([7; 16]),
        pending_since: n,
        bytes: 1,
        attempts: 1,
        next_attempt: n,
        last_error: "x".repeat(error_bytes),
        reason: Default::default(),
        traceparent: None,
        state: RowState::Pending,
        floor: None,
    };
    let mut upserts = vec![row(format!("small {n:04}"), 100)];
    if n.is_multiple_of(8) {
        upserts.extend((0..500).map(|i| row(format!("large {i:04}"), 3_000)));
    }
    let gone = (n > 3).then(|| (format!("small {:04}", n - 3), upserts[0].version_id));
    let checkpoint = Checkpoint { committed_through: n, ..Checkpoint::default() };
    Record { checkpoint, upserts, deletes: gone.into_iter().collect() }
}

#[tokio::test]
async fn files_cut_at_every_frame_recover_to_what_was_committed() {
    let dir = TempDir::new().unwrap();
    let journal = SqliteJournal::open(&dir.path().join("journal.sqlite")).await.unwrap();
    let link = LinkId { rule: "r".into(), bucket: "b".into(), peer: "p".into() };
    let terms = ClaimTerms { at_least: 0, lease: Duration::from_secs(15), patience: Duration::ZERO };
    let Claim::Owned { epoch } = journal.claim(&link, "me", terms).await.unwrap() else { panic!("it is free") };
    let (mut before, mut earlier) = (Files::of(dir.path()), (0, Vec::new()));
    let (mut states, mut folds) = (0, 0);
    for n in 1..=40 {
        journal.record(&link, epoch, &numbered(n)).await.unwrap();
        let after = Files::of(dir.path());
        let now = after.recover(&link).await;
        assert_eq!(now.0, n, "what was answered is there");
        // The WAL is written first, and synced, before a page of the database is.
        let news: Vec<usize> =
            after.frames().filter(|end| after.wal[..*end] != before.wal[..(*end).min(before.wal.len())]).collect();
        let every = news.len().div_ceil(20).max(1);
        for end in news.iter().copied().step_by(every) {
            for cut in [end, end + 512] {
                let found = before.torn(&after, 0, cut).recover(&link).await;
                // A commit frame ends a record: cut before the last frame's end, it is as if never written.
                assert!(found == earlier || found == now, "record {n} cut at {cut} is half there: {}", found.0);
                states += 1;
            }
        }
        if after.database != before.database {
            folds += 1;
            for cut in (0..after.database.len()).step_by(4096 * 16) {
                assert_eq!(before.torn(&after, cut, after.wal.len()).recover(&link).await, now, "folding cut at {cut}");
                states += 1;
            }
        }
        (before, earlier) = (after, now);
    }
    assert!(states > 200 && folds > 0, "{states} crash states, {folds} folds");
}
