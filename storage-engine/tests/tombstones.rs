//! What a tombstone costs on a drive: run by hand, for the figures of the decision page.
//! `cargo test -p storage-engine --test tombstones -- --ignored --nocapture`
use futures::StreamExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storage_engine::clock::SystemClock;
use storage_engine::drive::local::open_store;
use storage_engine::object::{Conditions, Objects, Put, Versioning};
use storage_engine::version::{Origin, VersionId};

/// Enough that the young rows, which are in memory and in no file yet, count for little.
const VERSIONS: usize = 60_000;
const AT_ONCE: usize = 64;
const DRIVES: usize = 4;

/// Bytes of the files below a folder.
fn bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("list a folder of the test").map(|e| e.expect("read an entry").path());
    entries.map(|path| if path.is_dir() { bytes(&path) } else { path.metadata().map_or(0, |m| m.len()) }).sum()
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read the status of this process");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("it has a VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

async fn open(dirs: &[PathBuf]) -> Objects {
    let dirs = dirs.to_vec();
    let (drives, parity) = tokio::task::spawn_blocking(move || open_store(&dirs, None).expect("open")).await.unwrap();
    Objects::new(drives, parity, Arc::new(SystemClock), Origin::new("here"))
}

fn say(what: &str, dirs: &[PathBuf]) {
    let of = |part: &str| dirs.iter().map(|dir| bytes(&dir.join(part))).sum::<u64>() / DRIVES as u64 / VERSIONS as u64;
    let (index, log) = (of("index"), of("log"));
    println!("{what}: a version takes on a drive {index} bytes of index, {log} of log; RSS {} MiB", resident() >> 20);
}

#[ignore = "a measurement, minutes long"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tombstone_takes() {
    let root = tempfile::tempdir().unwrap();
    let dirs: Vec<PathBuf> = (0..DRIVES).map(|n| root.path().join(n.to_string())).collect();
    let objects = open(&dirs).await;
    objects.create_bucket("box", Versioning::Enabled).await.unwrap();
    say("nothing", &dirs);
    let put = |n: usize| {
        let objects = objects.clone();
        async move {
            let body = futures::stream::iter([Ok(bytes::Bytes::from_static(&[7; 4096]))]).boxed();
            objects.put("box", &format!("2026/11/22/object-{n:08}"), Put::default(), body).await.unwrap().version.id
        }
    };
    let ids: Vec<VersionId> = futures::stream::iter(0..VERSIONS).map(put).buffered(AT_ONCE).collect().await;
    say("live, of 4 KiB", &dirs);
    let purge = |(n, id): (usize, VersionId)| {
        let objects = objects.clone();
        async move {
            let key = format!("2026/11/22/object-{n:08}");
            objects.delete("box", &key, Some(id), Conditions::default(), false).await.unwrap();
        }
    };
    futures::stream::iter(ids.into_iter().enumerate()).map(purge).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    say("purged", &dirs);
}
