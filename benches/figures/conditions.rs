//! Under what a run measured: cores, disk, what a sync costs, how busy the machine was already.
use crate::process;
use anyhow::{Context, ensure};
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

/// Syncs that are timed.
const SYNCS: usize = 40;

#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    pub cores: usize,
    pub disk: String,
    /// Median and 99th percentile of write 4 KiB + fdatasync, milliseconds.
    pub sync_p50_ms: f64,
    pub sync_p99_ms: f64,
    /// Load average of the minute before the run.
    pub load_average: f64,
    pub client: &'static str,
}

impl Conditions {
    /// Looks at the machine and times a few syncs in `dir`.
    pub fn measure(dir: &Path) -> anyhow::Result<Conditions> {
        let disk = process::mount(dir)?;
        ensure!(!disk.starts_with("tmpfs"), "{} is in memory ({disk}): name a directory on a disk", dir.display());
        let file = File::create(dir.join("sync")).context("make a file")?;
        let mut latencies = crate::load::Latencies::default();
        for i in 0..SYNCS {
            let at = Instant::now();
            file.write_all_at(&[i as u8; 4096], i as u64 * 4096)?;
            file.sync_data()?;
            latencies.add(at.elapsed());
        }
        Ok(Conditions {
            cores: std::thread::available_parallelism()?.get(),
            disk,
            sync_p50_ms: latencies.quantile(0.5).unwrap_or(f64::NAN),
            sync_p99_ms: latencies.quantile(0.99).unwrap_or(f64::NAN),
            load_average: process::load_average()?,
            client: "on the same cores, one thread",
        })
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conditions { cores, disk, sync_p50_ms, sync_p99_ms, load_average, client } = self;
        writeln!(f, "8 drives 4+4 in one directory, fsync on; page cache warm; versioned bucket")?;
        writeln!(f, "{cores} cores, client {client}; load average at start {load_average:.2}")?;
        write!(f, "{disk}; write 4 KiB + fdatasync p50 {sync_p50_ms:.2} ms p99 {sync_p99_ms:.2} ms")
    }
}
