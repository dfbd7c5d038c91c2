//! Load: closed loops over some connections, open loops at a rate, the latencies they saw, and the bytes
//! they write. It knows no figure.
use crate::client::Connection;
use crate::sites::Site;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

/// Latencies of what was done, in microseconds.
#[derive(Debug, Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    pub fn add(&mut self, took: Duration) {
        self.0.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }
    pub fn count(&self) -> usize {
        self.0.len()
    }
    /// The latency that `share` of all did not exceed, in milliseconds; `None`: there was nothing.
    pub fn quantile(&mut self, share: f64) -> Option<f64> {
        self.0.sort_unstable();
        let last = self.0.len().checked_sub(1)?;
        Some(f64::from(self.0[(last as f64 * share).round() as usize]) / 1000.0)
    }
}

/// Bytes of objects: windows of one random block, so that any object can be checked without being kept.
#[derive(Clone)]
pub struct Content(Bytes);

impl Content {
    /// Distinct windows of the block.
    const WINDOWS: usize = 4096;
    const STEP: usize = 64;

    /// Content for objects of up to `bytes_max`.
    pub fn new(bytes_max: usize) -> Content {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = (bytes_max + Self::WINDOWS * Self::STEP).div_ceil(8);
        let mut block = Vec::with_capacity(words * 8);
        for _ in 0..words {
            // xorshift64*: bytes that nothing can compress.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            block.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        Content(block.into())
    }
    /// The bytes of object `number`.
    pub fn of(&self, number: u64, bytes: usize) -> Bytes {
        let window = number.wrapping_mul(7919) as usize % Self::WINDOWS * Self::STEP;
        self.0.slice(window..window + bytes)
    }
}

/// One thing done on a connection: its number counts up over all connections.
pub trait Work {
    async fn work(&self, connection: &mut Connection, number: u64) -> anyhow::Result<()>;
}

/// As many as `connections` manage until `span` has passed, each one after the other. The first error ends it.
pub async fn closed(
    site: &Site,
    connections: usize,
    span: Duration,
    work: Rc<impl Work + 'static>,
) -> anyhow::Result<(Latencies, Duration)> {
    let (latencies, next) = (Rc::new(RefCell::new(Latencies::default())), Rc::new(Cell::new(0)));
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(site).await?);
    }
    let (local, started) = (LocalSet::new(), Instant::now());
    let workers: Vec<_> = open
        .into_iter()
        .map(|mut connection| {
            let (work, latencies, next) = (work.clone(), latencies.clone(), next.clone());
            local.spawn_local(async move {
                while started.elapsed() < span {
                    let at = Instant::now();
                    work.work(&mut connection, next.replace(next.get() + 1)).await?;
                    latencies.borrow_mut().add(at.elapsed());
                }
                anyhow::Ok(())
            })
        })
        .collect();
    local.run_until(join(workers)).await?;
    Ok((latencies.take(), started.elapsed()))
}

/// `rate` a second over `connections` until `span` has passed, whatever the answers take: an answer that
/// comes late delays nobody's beginning, only its own latency, which counts from when it was due.
pub async fn open(
    site: &Site,
    connections: usize,
    rate: f64,
    span: Duration,
    work: Rc<impl Work + 'static>,
) -> anyhow::Result<(Latencies, Duration)> {
    let (latencies, next) = (Rc::new(RefCell::new(Latencies::default())), Rc::new(Cell::new(0u64)));
    let mut lines = Vec::new();
    for _ in 0..connections {
        lines.push(Connection::open(site).await?);
    }
    let (local, started) = (LocalSet::new(), tokio::time::Instant::now());
    let workers: Vec<_> = lines
        .into_iter()
        .map(|mut connection| {
            let (work, latencies, next) = (work.clone(), latencies.clone(), next.clone());
            local.spawn_local(async move {
                loop {
                    let number = next.replace(next.get() + 1);
                    let due = started + Duration::from_secs_f64(number as f64 / rate);
                    if due > started + span {
                        return anyhow::Ok(());
                    }
                    tokio::time::sleep_until(due).await;
                    work.work(&mut connection, number).await?;
                    latencies.borrow_mut().add(due.elapsed());
                }
            })
        })
        .collect();
    local.run_until(join(workers)).await?;
    Ok((latencies.take(), started.elapsed()))
}

async fn join(workers: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<()> {
    for worker in workers {
        worker.await??;
    }
    Ok(())
}
