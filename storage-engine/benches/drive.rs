//! What the drives of one store cost: operations per second and CPU per operation, eight drives on one
//! disk, without the front door and the object layer.
//!
//! `cargo bench -p storage-engine --bench drive -- [--dir DIR] [--seconds N] [--tasks N]`. Each
//! operation asks all eight drives as a coordinator would. The CPU of the whole process counts, the
//! asking side's too. Figures are printed, never asserted.
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use storage_engine::drive::Drive;
use storage_engine::drive::local::open_store;
use storage_engine::quorum::participant::{Op, Request, Verdict};
use storage_engine::record::{Blob, BucketId, Coded, Record};
use storage_engine::version::{Birth, Hlc, Kind, Order, Origin, Part, Version, VersionId};
use storage_engine::wire::Fields;
use uuid::Uuid;

const BUCKET: BucketId = BucketId(Uuid::from_u128(0xb0c));
const DRIVES: usize = 8;
/// Drives whose answer ends a PUT: the write quorum of 4+4.
const WRITE_QUORUM: usize = 5;
/// Drives asked by a read: the read quorum of 4+4.
const READ_QUORUM: usize = 4;
/// A data shard of a 4 KiB object with its frame.
const SHARD_BYTES: usize = 1_024 + 32;
/// Changes asked of a drive's feed at once.
const PAGE: usize = 256;

struct Options {
    dir: Option<PathBuf>,
    seconds: u64,
    tasks: Vec<usize>,
}

fn options() -> Options {
    let mut options = Options { dir: None, seconds: 5, tasks: vec![32, 64] };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--dir" => options.dir = Some(value().into()),
            "--seconds" => options.seconds = value().parse().expect("--seconds takes a number"),
            "--tasks" => options.tasks = vec![value().parse().expect("--tasks takes a number")],
            "--bench" => {} // cargo's own
            other => panic!("unknown argument {other}; known: --dir DIR --seconds N --tasks N"),
        }
    }
    options
}

fn main() {
    let options = options();
    let parent = options.dir.clone().unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let root = tempfile::tempdir_in(parent).expect("make a directory for the drives");
    let runtime = tokio::runtime::Runtime::new().expect("start a runtime");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{DRIVES} drives in {}, load {}", root.path().display(), load.trim());
    println!("{:<12} {:>5} {:>10} {:>12} {:>10}", "operation", "tasks", "ops/s", "CPU us/op", "RSS MiB");
    for tasks in &options.tasks {
        let dirs: Vec<PathBuf> = (0..DRIVES).map(|n| root.path().join(format!("{tasks}-{n}"))).collect();
        let (drives, _) = open_store(&dirs, None).expect("open new drives");
        let bench = Arc::new(Bench { drives, done: AtomicU64::new(0) });
        runtime.block_on(bench.clone().all(*tasks, Duration::from_secs(options.seconds)));
        let opened = Measure::start();
        let count = bench.done.load(Ordering::Relaxed);
        drop(bench);
        let (drives, _) = open_store(&dirs, None).expect("open them again");
        opened.print("open again", *tasks, count);
        drop(drives);
    }
}

/// A wall clock and the process's CPU clock.
struct Measure {
    began: Instant,
    cpu: Duration,
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("below a second"))
}

impl Measure {
    fn start() -> Self {
        Measure { began: Instant::now(), cpu: cpu() }
    }
    fn print(&self, what: &str, tasks: usize, count: u64) {
        let (wall, cpu) = (self.began.elapsed(), cpu() - self.cpu);
        let count = count.max(1) as f64;
        let (rate, each) = (count / wall.as_secs_f64(), cpu.as_secs_f64() * 1e6 / count);
        println!("{what:<12} {tasks:>5} {rate:>10.0} {each:>12.1} {:>10}", resident_mib());
    }
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

struct Bench {
    drives: Vec<Arc<dyn Drive>>,
    /// Objects written so far; also the number of the next.
    done: AtomicU64,
}

impl Bench {
    async fn all(self: Arc<Self>, tasks: usize, during: Duration) {
        let measure = Measure::start();
        let wrote = self.clone().tasks(tasks, during, |bench, n| async move { bench.put(n, false).await }).await;
        measure.print("put", tasks, wrote);
        let measure = Measure::start();
        let count = self.clone().tasks(tasks, during, |bench, n| async move { bench.put(n, true).await }).await;
        measure.print("put+ack", tasks, count);
        let measure = Measure::start();
        let count = self.clone().tasks(tasks, during, move |bench, n| async move { bench.read(n % wrote).await }).await;
        measure.print("read key", tasks, count);
        let measure = Measure::start();
        let count = self.clone().tasks(tasks, during, move |bench, n| async move { bench.get(n % wrote).await }).await;
        measure.print("get shards", tasks, count);
        let measure = Measure::start();
        let count = self.feed().await;
        measure.print("feed entry", DRIVES, count);
        join_all(self.drives.iter().map(|d| d.close())).await;
    }

    /// Runs `work` on `tasks` tasks for the time; tells how often.
    async fn tasks<F>(
        self: Arc<Self>,
        tasks: usize,
        during: Duration,
        work: impl Fn(Arc<Bench>, u64) -> F + Clone + Send + 'static,
    ) -> u64
    where
        F: Future<Output = ()> + Send,
    {
        let first = self.done.load(Ordering::Relaxed);
        let until = Instant::now() + during;
        let workers = (0..tasks).map(|_| {
            let (bench, work) = (self.clone(), work.clone());
            tokio::spawn(async move {
                while Instant::now() < until {
                    let n = bench.done.fetch_add(1, Ordering::Relaxed);
                    work(bench.clone(), n).await;
                }
            })
        });
        join_all(workers).await.into_iter().for_each(|w| w.expect("a worker ends"));
        self.done.load(Ordering::Relaxed) - first
    }

    /// A new object on all drives; ends at the write quorum with acks, else with all answers.
    async fn put(&self, n: u64, acked: bool) {
        let record = Coded::from(record(n));
        let calls = self.drives.iter().map(|drive| {
            let shards = vec![(record.blobs[0].id, Bytes::from(vec![n as u8; SHARD_BYTES]))];
            self.call(drive, n, Op::Accept { record: record.clone(), shards })
        });
        let mut calls: FuturesUnordered<_> = calls.collect();
        let mut held = 0;
        while held < if acked { WRITE_QUORUM } else { DRIVES } {
            assert_eq!(calls.next().await.expect("eight drives answer"), Verdict::Ok);
            held += 1;
        }
        if acked {
            let (version, ballot) = (record.id(), record.ballot);
            let acks = self.drives.iter().map(|drive| self.call(drive, n, Op::Ack { version, ballot }));
            let acks: FuturesUnordered<_> = acks.collect();
            let (_, acked) = futures::join!(calls.count(), acks.count());
            assert_eq!(acked, DRIVES);
        }
    }

    fn call(&self, drive: &Arc<dyn Drive>, n: u64, op: Op) -> impl Future<Output = Verdict> + Send + use<> {
        let drive = drive.clone();
        let request = Request { epoch: 1, bucket: BUCKET, key: key(n), op };
        async move { drive.call(request).await.expect("the drive answers").verdict }
    }

    /// What a read quorum holds of a key.
    async fn read(&self, n: u64) {
        let key = key(n);
        let start = n as usize % DRIVES;
        let asked = (0..READ_QUORUM).map(|i| self.drives[(start + i) % DRIVES].read_key(BUCKET, &key));
        for view in join_all(asked).await {
            assert_eq!(view.expect("the drive answers").records.len(), 1);
        }
    }

    /// The data shards of an object.
    async fn get(&self, n: u64) {
        let blob = record(n).blobs[0].id;
        let asked = self.drives[..4].iter().map(|drive| drive.read_shard(blob, 0..SHARD_BYTES as u64));
        for shard in join_all(asked).await {
            assert_eq!(shard.expect("the drive has it")[0], n as u8);
        }
    }

    /// Reads every drive's feed to its end; tells how many entries.
    async fn feed(&self) -> u64 {
        let read = self.drives.iter().map(|drive| async move {
            let (mut after, mut count) = (0, 0);
            loop {
                let page = drive.tail(BUCKET, after, PAGE).await.expect("the drive answers");
                let Some(last) = page.last() else { return count };
                after = last.lsn;
                count += page.len() as u64;
            }
        });
        join_all(read).await.into_iter().sum()
    }
}

fn key(n: u64) -> String {
    format!("photos/2026/11/{n:012}.jpg")
}

/// The record of a PUT of 4 KiB as the front door makes it.
fn record(n: u64) -> Record {
    let id = VersionId::from_uuid(Uuid::from_u128(u128::from(n) << 64 | 0x7000_0000_0000_0001));
    let hlc = Hlc::from_millis(1_800_000_000_000 + n / 4);
    let hlc = Hlc::from_bits(hlc.bits() + n % 4);
    let etag = format!("{n:032x}");
    let checksums = BTreeMap::from([("crc64nvme".to_owned(), "AAAAAAAAAAA=".to_owned())]);
    let part = Part {
        number: 1,
        size_bytes: 4_096,
        etag: etag.clone(),
        checksums: checksums.clone(),
        unknown: Fields::default(),
    };
    let mut version = Version::blank(&key(n), id);
    version.birth = Some(Birth {
        size_bytes: 4_096,
        etag,
        crc64nvme: n,
        checksums,
        parts: vec![part],
        headers: BTreeMap::from([("content-type".to_owned(), "image/jpeg".to_owned())]),
        ..Birth::blank(Order { hlc, origin: Origin::new("waw"), version_id: id }, Kind::Object)
    });
    let mut record = Record::new(BUCKET, version, hlc);
    let id = Uuid::from_u128(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) | 1);
    record.blobs =
        vec![Blob { id, size_bytes: 4_096, k: 4, m: 4, first: 0, stripe_bytes: 1 << 20, unknown: Fields::default() }];
    record
}
