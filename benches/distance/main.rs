//! What distance costs: two sites with a round trip between them, printed with its conditions; asserts nothing but that
//! everything arrives. `cargo bench --bench distance [-- --only NAME] [--queued N] [--dir DIR]`.
//!
//! - `rate`: versions of 4 KiB pushed and acked a second; made by number and taken without drives.
//! - `stored`: the same over stores on drives, at 0 and 200 ms. `lag`: at half load, at 20 and 200 ms.
//! - `queue`: many changes behind a peer that is away: memory, how soon it is noticed, how soon and fast it goes on.
//!
//! The round trip is a proxy in this process, which hands bytes on late and carries as many as come: what TCP itself
//! makes of a long line (its window: `net.ipv4.tcp_rmem`, `tcp_wmem`; loss) is not in it.
#[path = "../../tests/pair/mod.rs"]
mod fixture;
mod made;
mod pair;
mod stored;
mod wire;

use anyhow::{Context, ensure};
use made::{BYTES, Made, Sink};
use pair::{Pair, until};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use stored::Stored;
use wire::State;

const NEAR: State = State::Up(Duration::ZERO);
const FAR: Duration = Duration::from_millis(200);
/// How long each rate is measured.
const SPAN: Duration = Duration::from_secs(10);
/// Memory is looked at so often.
const SAMPLE: Duration = Duration::from_millis(100);

fn option<T: std::str::FromStr>(name: &str) -> Option<T> {
    let mut args = std::env::args().skip_while(|a| a != name);
    args.nth(1)?.parse().ok()
}

fn main() -> anyhow::Result<()> {
    let parent: PathBuf = option("--dir").unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    let dir = tempfile::Builder::new().prefix("distance-").tempdir_in(&parent).context("make a directory")?;
    let only: Option<String> = option("--only");
    let wants = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!(
            "{cores} cores shared by both sites, their clients and the line; load {}; round trip by a delay proxy; \
             mutual TLS, journal on SQLite; {}",
            load.trim(),
            parent.display()
        );
        if wants("rate") {
            rate(&dir.path().join("rate")).await?;
        }
        if wants("stored") {
            drains(&dir.path().join("stored")).await?;
        }
        if wants("lag") {
            lags(&dir.path().join("lag")).await?;
        }
        if wants("queue") {
            queue(&dir.path().join("queue"), option("--queued").unwrap_or(1_000_000)).await?;
        }
        Ok(())
    })
}

fn print(figure: &str, goal: &str, measured: &str) {
    println!("{figure:<52} {measured:<34} {goal}");
}

/// Two sites without drives.
async fn made(dir: &Path, state: State) -> anyhow::Result<(Pair, Arc<Made>, Arc<Sink>)> {
    std::fs::create_dir_all(dir)?;
    let (made, sink) = (Arc::new(Made::new()), Arc::new(Sink::default()));
    let pair = Pair::start(dir, made.clone(), sink.clone(), state).await?;
    Ok((pair, made, sink))
}

/// Versions a second that `b` takes while there is always more.
async fn steady(sink: &Sink) -> f64 {
    // The windows fill first.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (began, before) = (Instant::now(), sink.taken.load(Ordering::Relaxed));
    tokio::time::sleep(SPAN).await;
    (sink.taken.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64()
}

async fn rate(dir: &Path) -> anyhow::Result<()> {
    for rtt in [0, 20, 50, 200] {
        let (pair, made, sink) = made(&dir.join(rtt.to_string()), State::Up(Duration::from_millis(rtt))).await?;
        made.commit(1 << 40);
        until("the first version", || sink.taken.load(Ordering::Relaxed) > 0).await?;
        let rate = steady(&sink).await;
        let goal = if rtt == 200 { "≥ 10,000/s" } else { "" };
        let megabytes = rate * BYTES as f64 / 1e6;
        print(&format!("no drives, 4 KiB, {rtt} ms"), goal, &format!("{rate:.0}/s ({megabytes:.0} MB/s)"));
        let again = sink.again.load(Ordering::Relaxed);
        ensure!(again == 0, "{again} versions came twice over a whole line");
        drop(pair);
    }
    Ok(())
}

async fn drains(dir: &Path) -> anyhow::Result<()> {
    let stored = Stored::start(dir, NEAR).await?;
    until("the line", || stored.pair.is_up()).await?;
    stored.drain(1_000, Duration::ZERO).await?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        near.push(stored.drain(6_000, Duration::ZERO).await?);
        far.push(stored.drain(6_000, FAR).await?);
    }
    let best = |rates: &[f64]| rates.iter().copied().fold(0.0, f64::max);
    let said = |rates: &[f64]| rates.iter().map(|r| format!("{r:.0}")).collect::<Vec<_>>().join(", ");
    print("drives, 6,000 waiting versions, 0 ms", "", &format!("{} /s", said(&near)));
    print("drives, 6,000 waiting versions, 200 ms", "", &format!("{} /s", said(&far)));
    let share = 100.0 * best(&far) / best(&near);
    print("best at 200 ms of best at 0 ms", "≥ 90 %", &format!("{share:.0} %"));
    stored.pair.stop().await
}

async fn lags(dir: &Path) -> anyhow::Result<()> {
    let stored = Stored::start(dir, NEAR).await?;
    until("the line", || stored.pair.is_up()).await?;
    let full = stored.full(SPAN).await?;
    print("drives, writing and replicating at once, 0 ms", "", &format!("{full:.0}/s"));
    for (rtt, goal) in [(20, "p99 < 1 s"), (200, "p99 < 3 s")] {
        stored.pair.wire.set(State::Up(Duration::from_millis(rtt)));
        let lags = stored.lags(full / 2.0, 2 * SPAN).await?;
        let at = |share: f64| lags[((lags.len() - 1) as f64 * share) as usize].as_secs_f64();
        let measured = format!("p50 {:.2} s, p99 {:.2} s, max {:.2} s", at(0.5), at(0.99), at(1.0));
        print(&format!("lag at {:.0}/s, deletes included, {rtt} ms", full / 2.0), goal, &measured);
    }
    stored.pair.stop().await
}

async fn queue(dir: &Path, queued: u64) -> anyhow::Result<()> {
    let (pair, made, sink) = made(dir, State::Up(FAR)).await?;
    let taken = || sink.taken.load(Ordering::Relaxed);
    made.commit(400_000);
    until("the first version", || taken() > 0).await?;
    let steady = steady(&sink).await;
    until("the rest", || taken() == 400_000).await?;
    until("an idle link", || pair.fra.report().is_drained()).await?;
    let base = resident_mib()?;

    // The cable is pulled while versions flow.
    made.commit(10_000);
    until("a few versions", || taken() > 400_000).await?;
    pair.wire.set(State::Silent);
    let noticed = until("the end of the line", || !pair.is_up()).await?;
    print("cable pulled: peer counts as down after", "≤ 5 s", &format!("{:.1} s", noticed.as_secs_f64()));
    let left = queued.saturating_sub(10_000);
    let mut peak = resident_mib()?;
    for _ in 0..100 {
        made.commit(left / 100);
        tokio::time::sleep(SAMPLE).await;
        peak = peak.max(resident_mib()?);
    }
    let all = 410_000 + left / 100 * 100;
    let behind = pair.fra.report().links.iter().filter_map(|l| l.backlog_versions).sum::<u64>();
    print("backlog shown behind the dead peer", "", &format!("{behind} versions"));
    print("memory of both sites while it grows", "< 64 MiB", &format!("{:+.0} MiB ({base:.0} before)", peak - base));

    let before = taken();
    pair.wire.set(State::Up(FAR));
    let resumed = until("the first version", || taken() > before).await?;
    print("cable back: first version after", "≤ 10 s", &format!("{:.1} s", resumed.as_secs_f64()));
    let (began, before, mut peak) = (Instant::now(), taken(), resident_mib()?);
    while taken() < all {
        tokio::time::sleep(SAMPLE).await;
        peak = peak.max(resident_mib()?);
    }
    let took = sink.last().map_or(Duration::ZERO, |at| at.duration_since(began));
    let drained = (all - before) as f64 / took.as_secs_f64();
    let measured = format!("{drained:.0}/s of {steady:.0}/s, {:.0} %", 100.0 * drained / steady);
    print(&format!("{queued} changes drained, 200 ms"), "≥ 80 % of steady", &measured);
    print("memory of both sites while it drains", "< 64 MiB", &format!("{:+.0} MiB", peak - base));

    // The peer's process ends and comes back.
    until("an idle link", || pair.fra.report().is_drained()).await?;
    pair.wire.set(State::Reset);
    let noticed = until("the end of the line", || !pair.is_up()).await?;
    tokio::time::sleep(Duration::from_secs(15)).await;
    made.commit(1);
    pair.wire.set(State::Up(FAR));
    let resumed = until("the version", || taken() > all).await?;
    let measured = format!("{:.1} s, {:.1} s", noticed.as_secs_f64(), resumed.as_secs_f64());
    print("peer ends, returns after 15 s: noticed, resumed", "≤ 5 s, ≤ 10 s", &measured);
    ensure!(taken() == all + 1, "{} versions arrived of {}", taken(), all + 1);
    pair.stop().await
}

/// What this process holds in memory.
fn resident_mib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("read the own status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("find VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
