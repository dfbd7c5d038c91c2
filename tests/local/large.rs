//! A large object over a line that is cut and between sites that are killed: what the peer holds already is not sent
//! again, small versions travel meanwhile, and neither end holds much of it in memory.
//!
//! `LARGE_MIB=2048 cargo test --test local large -- --nocapture` does it with 2 GiB.
use crate::proxy::Fault;
use crate::s3::hex;
use crate::site::{BUCKET, Fleet, LOOK, Site};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fs;
use std::time::Duration;
use tokio::time::Instant;

const MIB: u64 = 1 << 20;
/// Of the object, unless `LARGE_MIB` says otherwise.
const SIZE_MIB: u64 = 192;
/// Of its parts but the last, as a client would upload them; no multiple of a piece.
const PART_BYTES: usize = (9 << 20) + 77;
/// Of its pieces, so many bytes may be under way when the transfer stops: 8 MiB on each of four streams.
const UNDER_WAY: u64 = 4 * 8 * MIB;
/// What the line carries a second; a proxy that pauses for each 16 KiB carries less.
const LINE: Fault = Fault::Slow(24_000_000);
/// Versions written while the large one is on its way.
const SMALL: usize = 30;
/// How much more memory a site may take for it than it had: the pieces under way, what of each is cut into shards, and
/// what the allocator keeps.
const GROWTH_MAX: u64 = 96 * MIB;
const PATIENCE: Duration = Duration::from_secs(180);

/// Bytes that differ from place to place.
fn part(number: usize) -> Bytes {
    (0..PART_BYTES).map(|at| (at / 253 + at + number) as u8).collect::<Vec<_>>().into()
}

/// What a site says of each part: size, ETag of the whole, number of parts.
async fn layout(site: &Site, key: &str, id: &str, parts: usize) -> Vec<(Option<i64>, Option<String>, Option<i32>)> {
    let mut layout = Vec::new();
    for number in 1..=parts as i32 {
        let request = site.s3().client.head_object().bucket(BUCKET).key(key).version_id(id);
        let head = request.part_number(number).send().await.expect("a site shows its object");
        layout.push((head.content_length, head.e_tag, head.parts_count));
    }
    layout
}

async fn until(what: &str, mut fact: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !fact().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The memory of a site's process, from now on.
struct Memory {
    process: u32,
    before: u64,
}

impl Memory {
    fn of(site: &Site) -> Memory {
        let process = site.process();
        // The peak is what it has now.
        fs::write(format!("/proc/{process}/clear_refs"), "5").expect("reset the peak of an own process");
        Memory { process, before: resident(process, "VmRSS:") }
    }

    /// How much more it had at most.
    fn growth(&self) -> u64 {
        resident(self.process, "VmHWM:").saturating_sub(self.before)
    }
}

/// A line of a process' status, in bytes.
fn resident(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux shows it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_object_goes_on_where_a_cut_and_kills_of_both_ends_stopped_it() {
    let size = MIB * std::env::var("LARGE_MIB").map_or(SIZE_MIB, |n| n.parse().expect("LARGE_MIB is a number"));
    let fleet = Fleet::start(&["ams", "fra"], 4).await;
    let (ams, fra, line) = (&fleet.sites[0], &fleet.sites[1], &fleet.proxies[0]);
    fleet.drained(PATIENCE).await;
    let count = (size as usize).div_ceil(PART_BYTES);
    let mut parts: Vec<Bytes> = (0..count).map(part).collect();
    let last = &mut parts[count - 1];
    last.truncate(size as usize - (count - 1) * PART_BYTES);
    let mut whole = Sha256::new();
    parts.iter().for_each(|part| whole.update(part));
    let upload = ams.s3().upload("large", &parts).await.expect("an upload");
    drop(parts);

    let memory = (Memory::of(ams), Memory::of(fra));
    line.set(LINE);
    let before = line.carried();
    let id = ams.s3().complete("large", &upload).await.expect("a complete upload");
    let carried = async |from: u64, bytes: u64| {
        until("bytes over the line", async || line.carried() >= from + bytes).await;
    };
    let is_there = async || fra.s3().is_listed("large", &id).await;

    // Small versions overtake it.
    carried(before, 16 * MIB).await;
    for number in 0..SMALL {
        ams.s3().put(&format!("small-{number}"), Bytes::from_static(b"small")).await.expect("an acked put");
    }
    let written = Instant::now();
    for number in 0..SMALL {
        let request = || fra.s3().client.head_object().bucket(BUCKET).key(format!("small-{number}")).send();
        until("a small version", async || request().await.is_ok()).await;
    }
    assert!(!is_there().await, "small versions waited for the large one");
    let waited = written.elapsed();

    // A quarter of it later the line is cut, then the receiver is killed, then the sender.
    carried(before, size / 4).await;
    line.set(Fault::Cut);
    let down = async || ams.status().await.is_ok_and(|report| report.peers.iter().all(|peer| !peer.is_up));
    until("the end of the line", down).await;
    let from = line.carried();
    line.set(LINE);
    carried(from, size / 4).await;
    let growth_fra = memory.1.growth();
    fra.kill().await;
    let from = line.carried();
    fra.start().await;
    carried(from, size / 4).await;
    let growth_ams = memory.0.growth();
    assert!(!is_there().await, "it was through before the last interruption");
    ams.kill().await;
    ams.start().await;
    line.set(Fault::None);
    fleet.drained(PATIENCE).await;

    let read = fra.s3().read("large", &id).await.expect("it is there");
    assert_eq!(read, hex(&whole.finalize()));
    assert_eq!(layout(fra, "large", &id, count).await, layout(ams, "large", &id, count).await);
    let twice = (line.carried() - before).saturating_sub(size);
    println!(
        "{} MiB of {} were sent twice, in three interruptions; memory grew by {} MiB at the sender and {} MiB at the \
         receiver; small versions were there after {waited:.1?}",
        twice / MIB,
        size / MIB,
        growth_ams / MIB,
        growth_fra / MIB
    );
    // Frames, TLS and the small versions are some thousandths.
    assert!(twice < 3 * UNDER_WAY + size / 50, "{twice} bytes were sent twice, in three interruptions");
    for (growth, end) in [(growth_ams, "sender"), (growth_fra, "receiver")] {
        assert!(growth < GROWTH_MAX, "the {end} took {} MiB more memory", growth / MIB);
    }
    fleet.no_alarm();
}
