//! The figures of two sites with a rule from A to B: does B keep up with A, and how late is it.
//!
//! B's rate is what its acks say while A writes as fast as it can. Lag is measured three ways while A
//! writes at half of that rate: an oracle that looks for written keys on B, A's own gauge, and A's
//! commit-to-ack histogram.
use crate::client::Connection;
use crate::load::{self, Content, Latencies, Work};
use crate::metrics::{Scrape, quantile, scrape};
use crate::process::{self, Used, Watch};
use crate::sites::Site;
use crate::store::key;
use crate::table::Row;
use anyhow::ensure;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use storage_engine::clock::{Clock, SystemClock};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

const BYTES: usize = 4 << 10;
const CONNECTIONS: usize = 32;
/// How often A's gauges are read.
const SAMPLE: Duration = Duration::from_millis(200);
/// How often the oracle looks for a key on B: the error of its figure.
const LOOK: Duration = Duration::from_millis(5);
/// Probes the oracle may owe; further keys are not probed.
const PROBES_MAX: usize = 64;
/// One write in so many is looked for on B.
const PROBE_EVERY: u64 = 10;
/// B may take so long to catch up between the two measurements.
const CATCH_UP: Duration = Duration::from_secs(300);

struct Writes {
    content: Content,
    folder: usize,
    /// Where the oracle hears of acked keys.
    probes: Option<mpsc::Sender<(String, Instant)>>,
}

impl Work for Writes {
    async fn work(&self, connection: &mut Connection, number: u64) -> anyhow::Result<()> {
        let key = key(self.folder, number);
        connection.put(&key, self.content.of(number, BYTES)).await?;
        if let Some(probes) = self.probes.as_ref().filter(|_| number.is_multiple_of(PROBE_EVERY)) {
            // A full queue means that the oracle is behind: it has enough to look for.
            let _ = probes.try_send((key, Instant::now()));
        }
        Ok(())
    }
}

/// Measures both: `span` of writing at full speed, then `span` at half of it.
pub async fn measure(a: &Site, b: &Site, span: Duration) -> anyhow::Result<Vec<Row>> {
    until_equal(a).await?;
    eprintln!("Measuring replication: A writes as fast as it can.");
    let (mut rows, rate) = full_speed(a, b, span).await?;
    let waited = until_equal(a).await?;
    let catch_up = format!("{:.1} s", waited.as_secs_f64());
    rows.push(Row::new("B has the rest after", "", catch_up, waited.as_secs_f64()));
    eprintln!("Measuring lag: A writes {:.0}/s.", rate / 2.0);
    rows.extend(half_speed(a, b, rate / 2.0, span).await?);
    Ok(rows)
}

async fn full_speed(a: &Site, b: &Site, span: Duration) -> anyhow::Result<(Vec<Row>, f64)> {
    let (on_a, on_b) = (Watch::start(a.pid())?, Watch::start(b.pid())?);
    let before = scrape(a).await?.applied();
    let writes = Writes { content: Content::new(BYTES), folder: 1, probes: None };
    let (mut latencies, took) = load::closed(a, CONNECTIONS, span, Rc::new(writes)).await?;
    let applied = scrape(a).await?.applied() - before;
    let (used_a, used_b) = others(on_a.stop()?, on_b.stop()?);
    let acked = latencies.count();
    let (rate_a, rate_b) = (acked as f64 / took.as_secs_f64(), applied / took.as_secs_f64());
    let share = 100.0 * applied / acked.max(1) as f64;
    let memory = |site: &Site| process::memory(site.pid());
    Ok((
        vec![
            Row::new("A acks PUT 4 KiB, 32 connections", "", format!("{rate_a:.0}/s"), rate_a)
                .latencies(&mut latencies)
                .used(used_a, acked)
                .memory(memory(a)?),
            Row::new("B applied in the same time", "", format!("{rate_b:.0}/s"), rate_b)
                .used(used_b, applied as usize)
                .memory(memory(b)?),
            Row::new("B applied of what A acked", "≥ 80 %", format!("{share:.0} %"), share),
        ],
        rate_a,
    ))
}

/// Each site is among "everybody else" of the other: both are ours.
fn others(a: Used, b: Used) -> (Used, Used) {
    let seconds = |used: Used, other: Used| Used {
        others_cores: (used.others_cores - other.cpu_seconds / used.seconds).max(0.0),
        ..used
    };
    (seconds(a, b), seconds(b, a))
}

async fn half_speed(a: &Site, b: &Site, rate: f64, span: Duration) -> anyhow::Result<Vec<Row>> {
    let before = scrape(a).await?.commit_to_ack();
    let (on_a, on_b) = (Watch::start(a.pid())?, Watch::start(b.pid())?);
    let (probes, heard) = mpsc::channel(PROBES_MAX);
    let writes = Writes { content: Content::new(BYTES), folder: 2, probes: Some(probes) };
    let gauge = Rc::new(RefCell::new(Latencies::default()));
    let local = LocalSet::new();
    let sampler = local.spawn_local(sample(a.clone(), gauge.clone()));
    let oracle = local.spawn_local(look(b.clone(), heard));
    let (mut latencies, _) = local.run_until(load::open(a, CONNECTIONS, rate, span, Rc::new(writes))).await?;
    let (used_a, used_b) = others(on_a.stop()?, on_b.stop()?);
    sampler.abort();
    let mut seen = local.run_until(oracle).await??;
    let after = scrape(a).await?;
    let written = latencies.count();
    let mut gauge = gauge.take();
    let late = format!("A writes {rate:.0}/s");
    Ok(vec![
        Row::new(&late, "", format!("{:.0}/s", written as f64 / span.as_secs_f64()), rate)
            .latencies(&mut latencies)
            .used(used_a, written)
            .memory(process::memory(a.pid())?),
        Row::new("B meanwhile", "", String::new(), f64::NAN).used(used_b, written).memory(process::memory(b.pid())?),
        lag("lag: acked on A to readable on B", "p99 < 1 s", &mut seen),
        lag("lag: A's gauge", "p99 < 1 s", &mut gauge),
        histogram(&before, &after),
    ])
}

fn lag(name: &str, goal: &str, seen: &mut Latencies) -> Row {
    let max = seen.quantile(1.0).unwrap_or(f64::NAN);
    let p99 = seen.quantile(0.99).unwrap_or(f64::NAN) / 1000.0;
    Row::new(name, goal, format!("p99 {p99:.2} s, max {:.2} s", max / 1000.0), p99).latencies(seen)
}

fn histogram(before: &[(f64, f64)], after: &Scrape) -> Row {
    let after = after.commit_to_ack();
    let bound = |share| quantile(before, &after, share).unwrap_or(f64::NAN);
    let measured = format!("p50 ≤ {} s, p99 ≤ {} s", bound(0.5), bound(0.99));
    Row::new("lag: commit on A to ack of B, A's histogram", "p99 < 1 s", measured, bound(0.99))
}

/// Reads A's lag again and again until it is aborted.
async fn sample(a: Site, into: Rc<RefCell<Latencies>>) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(SAMPLE);
    loop {
        tick.tick().await;
        let lag = scrape(&a).await?.lag(SystemClock.now_millis());
        if let Some(seconds) = lag {
            into.borrow_mut().add(Duration::from_secs_f64(seconds));
        }
    }
}

/// Waits for every key it hears of to be readable on B; its figure is from the ack on A to then.
async fn look(b: Site, mut heard: mpsc::Receiver<(String, Instant)>) -> anyhow::Result<Latencies> {
    let mut connection = Connection::open(&b).await?;
    let mut seen = Latencies::default();
    let mut owed: Vec<(String, Instant)> = Vec::new();
    loop {
        while let Ok(probe) = heard.try_recv() {
            owed.push(probe);
        }
        let mut still = Vec::new();
        for (key, acked) in owed {
            match connection.has(&key).await? {
                true => seen.add(acked.elapsed()),
                false => still.push((key, acked)),
            }
        }
        owed = still;
        ensure!(owed.iter().all(|(_, at)| at.elapsed() < CATCH_UP), "B never showed {owed:?}");
        if owed.is_empty() {
            match heard.recv().await {
                Some(probe) => owed.push(probe),
                None => return Ok(seen),
            }
        } else {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Waits until A has nothing left to send.
async fn until_equal(a: &Site) -> anyhow::Result<Duration> {
    let started = Instant::now();
    loop {
        let backlog = scrape(a).await?.backlog();
        if backlog == Some(0.0) {
            return Ok(started.elapsed());
        }
        ensure!(started.elapsed() < CATCH_UP, "A still has {backlog:?} versions to send");
        tokio::time::sleep(SAMPLE).await;
    }
}
