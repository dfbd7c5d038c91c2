//! What it costs to compare two sites by digests of key ranges, printed with its conditions: a million equal versions,
//! ten differences among them, and the same over stores on real drives.
//!
//! `cargo bench --bench reconcile [-- --versions N] [--stored N] [--dir DIR]`. The million is made by number when it is
//! read, so that what is measured is hashing, comparing and the wire (mutual TLS on loopback); the stores on drives
//! (4, 2+2, fsync on) add the reading. Goals: a million equal versions in 30 s, ten differences in 2 MB.
use futures::{StreamExt, TryStreamExt};
use isthmus::store::bundled::BundledStore;
use isthmus::store::{Body, Store};
use rig::{BUCKET, Numbered, key};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use storage_engine::clock::SystemClock;
use storage_engine::drive::local::open_store;
use storage_engine::object::{Objects, Put, Versioning};
use storage_engine::version::{Origin, Version};

#[path = "../src/replicator/reconcile/tests/rig.rs"]
#[allow(dead_code)] // the tests use the rest
mod rig;

/// Pages compared at once, as `isthmus verify` does.
const PAGES_AT_ONCE: usize = 4;
/// Versions written at once while the stores are filled.
const WRITES_AT_ONCE: usize = 64;

fn option<T: std::str::FromStr>(name: &str) -> Option<T> {
    let mut args = std::env::args().skip_while(|a| a != name);
    args.nth(1)?.parse().ok()
}

#[tokio::main]
async fn main() {
    let versions: u64 = option("--versions").unwrap_or(1_000_000);
    let stored: u64 = option("--stored").unwrap_or(20_000);
    let dir: PathBuf = option("--dir").unwrap_or_else(std::env::temp_dir);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} cores shared by both sites, load {}, mutual TLS on loopback, {PAGES_AT_ONCE} pages at once",
        load.trim()
    );
    let all = Numbered { count: versions, ..Numbered::default() };
    measure("made by number, equal", versions, Arc::new(all.clone()), Arc::new(all.clone()), 0).await;
    let missing = (0..10).map(|n| n * (versions / 10) + 3).collect();
    measure(
        "made by number, 10 differ",
        versions,
        Arc::new(all),
        Arc::new(Numbered { count: versions, missing, ..Numbered::default() }),
        10,
    )
    .await;
    if stored > 0 {
        let dir = tempfile::Builder::new().prefix("reconcile-bench").tempdir_in(dir).expect("make a folder");
        on_drives(dir.path(), stored).await;
    }
}

/// Fills two stores with the same versions, then compares; then ten more at one of them.
async fn on_drives(dir: &Path, versions: u64) {
    let (here, there) = (objects(dir, "ams").await, objects(dir, "fra").await);
    let began = Instant::now();
    futures::stream::iter(0..versions)
        .map(|number| {
            let (here, there) = (here.clone(), there.clone());
            async move {
                let version = put(&here, number).await;
                there.apply(BUCKET, version, None, None).await.expect("applies");
            }
        })
        .buffer_unordered(WRITES_AT_ONCE)
        .collect::<Vec<()>>()
        .await;
    println!("{versions} versions on drives in {} (filled in {:.0?})", dir.display(), began.elapsed());
    let [a, b]: [Arc<dyn Store>; 2] = [Arc::new(BundledStore(here.clone())), Arc::new(BundledStore(there))];
    measure("on drives, equal", versions, a.clone(), b.clone(), 0).await;
    for number in 0..10 {
        put(&here, versions + number).await;
    }
    measure("on drives, 10 differ", versions + 10, a, b, 10).await;
}

async fn objects(dir: &Path, site: &str) -> Objects {
    let dirs: Vec<_> = (0..4).map(|drive| dir.join(site).join(drive.to_string())).collect();
    dirs.iter().for_each(|dir| std::fs::create_dir_all(dir).expect("make a folder"));
    let (drives, data) = open_store(&dirs, Some(2)).expect("open drives");
    let objects = Objects::new(drives, data, Arc::new(SystemClock), Origin::new(site));
    objects.create_bucket(BUCKET, Versioning::Enabled).await.expect("make a bucket");
    objects
}

async fn put(objects: &Objects, number: u64) -> Version {
    let empty: Body = futures::stream::empty().boxed();
    objects.put(BUCKET, &key(number), Put::default(), empty).await.expect("puts").version
}

/// Compares `here` with `there` and prints what it took.
async fn measure(what: &str, versions: u64, here: Arc<dyn Store>, there: Arc<dyn Store>, expected: usize) {
    let rig = rig::rig(here, there).await;
    let began = Instant::now();
    let pages = rig.sides.pages().map(|page| async { rig.sides.compare(page?).await });
    let found: Vec<_> = pages.buffered(PAGES_AT_ONCE).try_collect().await.expect("compares");
    let took = began.elapsed();
    assert_eq!(found.iter().map(Vec::len).sum::<usize>(), expected);
    let wire = rig.wire_bytes();
    let rate = versions as f64 / took.as_secs_f64();
    let questions = rig.sides.questions.load(Ordering::Relaxed);
    println!(
        "{what:<26} {versions:>9} versions  {:>6.1} s  {rate:>8.0}/s  {questions:>4} questions  {wire:>8} bytes on the wire",
        took.as_secs_f64()
    );
}
