//! Figures of the journal on SQLite and on PostgreSQL, printed: rows a second by the size of a record, checkpoints a
//! second, and what it takes to find the 100 rows due first among a million.
//!
//! `cargo bench --bench journal [-- --dir DIR] [--rows N]`. It starts a PostgreSQL of its own, with fsync on.
use isthmus::journal::postgres::{PostgresJournal, Settings, Tls};
use isthmus::journal::sqlite::SqliteJournal;
use isthmus::journal::{Claim, ClaimTerms, Journal, LinkId};
use isthmus::link::{Checkpoint, Reason, Record, Row, RowState};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use storage_engine::version::VersionId;

#[path = "../src/journal/postgres/server.rs"]
#[allow(dead_code)] // tests use the rest
mod pg;

const TERMS: ClaimTerms = ClaimTerms { at_least: 0, lease: Duration::from_secs(3600), patience: Duration::ZERO };

fn option<T: std::str::FromStr>(name: &str) -> Option<T> {
    let mut args = std::env::args().skip_while(|a| a != name);
    args.nth(1)?.parse().ok()
}

#[tokio::main]
async fn main() {
    let dir: PathBuf = option("--dir").unwrap_or_else(std::env::temp_dir);
    let rows: u64 = option("--rows").unwrap_or(1_000_000);
    let dir = tempfile::Builder::new().prefix("journal-bench").tempdir_in(dir).expect("make a folder");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, load {}, files in {}", load.trim(), dir.path().display());
    let sqlite = SqliteJournal::open(&dir.path().join("journal.sqlite")).await.expect("open SQLite");
    measure("SQLite", &sqlite, rows).await;
    match pg::Server::start(&["shared_buffers=256MB"]).await {
        Ok(server) => {
            let url_file = server.url_file();
            let settings = Settings { url_file, tls: Tls::Off, ca_file: None, connections_max: 4 };
            let postgres = PostgresJournal::open(settings).await.expect("open PostgreSQL");
            measure("PostgreSQL", &postgres, rows).await;
        }
        Err(why) => println!("SKIPPED: PostgreSQL: {why}"),
    }
}

fn row(n: u64) -> Row {
    let mut id = [1; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    Row {
        key: format!("some/folder/of/a/bucket/object-{n:010}"),
        version_id: VersionId::from_bytes(id),
        pending_since: n,
        bytes: 4096,
        attempts: 1,
        // Spread, so that what is due first lies all over the table.
        next_attempt: n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24,
        last_error: "the peer answered 503: too few drives".into(),
        reason: Reason::Unavailable,
        traceparent: None,
        state: RowState::Pending,
        floor: None,
    }
}

fn checkpoint(at: u64) -> Checkpoint {
    Checkpoint { committed_through: at, ..Checkpoint::default() }
}

async fn own(journal: &dyn Journal, name: &str) -> (LinkId, u64) {
    let link = LinkId { rule: name.into(), bucket: "b".into(), peer: "p".into() };
    match journal.claim(&link, "bench", TERMS).await.expect("claim") {
        Claim::Owned { epoch } => (link, epoch),
        held => panic!("{held:?}"),
    }
}

async fn measure(name: &str, journal: &dyn Journal, total: u64) {
    let (link, epoch) = own(journal, "checkpoints").await;
    let (began, mut count) = (Instant::now(), 0u64);
    while began.elapsed() < Duration::from_secs(3) {
        count += 1;
        journal
            .record(&link, epoch, &Record { checkpoint: checkpoint(count), ..Record::default() })
            .await
            .expect("record");
    }
    println!("{name}: {:.0} checkpoints/s, one after another", count as f64 / began.elapsed().as_secs_f64());
    for batch in [1, 64, 512, 4096] {
        let (link, epoch) = own(journal, &format!("batch {batch}")).await;
        let (began, mut n) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(4) {
            let upserts = (n..n + batch).map(row).collect();
            journal
                .record(&link, epoch, &Record { checkpoint: checkpoint(n), upserts, deletes: vec![] })
                .await
                .expect("record");
            n += batch;
        }
        let rate = n as f64 / began.elapsed().as_secs_f64();
        println!("{name}: {rate:.0} rows/s in records of {batch}");
    }
    let (link, epoch) = own(journal, "million").await;
    let began = Instant::now();
    for from in (0..total).step_by(4096) {
        let upserts = (from..(from + 4096).min(total)).map(row).collect();
        journal
            .record(&link, epoch, &Record { checkpoint: checkpoint(from), upserts, deletes: vec![] })
            .await
            .expect("record");
    }
    println!("{name}: {total} rows made in {:.1} s", began.elapsed().as_secs_f64());
    let mut times = Vec::new();
    for _ in 0..101 {
        let began = Instant::now();
        let (_, due) = journal.load(&link, 100).await.expect("load");
        times.push(began.elapsed());
        assert!(due.len() == 100 && due.is_sorted_by_key(|r| r.next_attempt), "the rows due first");
    }
    times.sort();
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    println!(
        "{name}: the 100 rows due first of {total}: median {:.2} ms, worst {:.2} ms",
        ms(times[50]),
        ms(times[100])
    );
}
