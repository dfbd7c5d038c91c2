//! What the kernel says of a process and of the machine: CPU, memory. Linux; read from /proc.
use anyhow::Context;
use std::path::Path;
use std::time::{Duration, Instant};

/// Ticks of /proc in a second: USER_HZ, 100 on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU of one process and of the machine between two moments.
pub struct Watch {
    pid: u32,
    at: Instant,
    process: f64,
    own: f64,
    machine: f64,
}

/// What was used while a [`Watch`] ran.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// CPU seconds of the process.
    pub cpu_seconds: f64,
    /// CPU of everybody else on the machine (neither the process nor this client), in cores.
    pub others_cores: f64,
    /// How long it ran.
    pub seconds: f64,
}

impl Watch {
    /// Begins; the peak of the process's memory counts from here.
    pub fn start(pid: u32) -> anyhow::Result<Watch> {
        // Where it is not allowed the peak counts from the start of the process, which only shows more.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        Ok(Watch { pid, at: Instant::now(), process: cpu(pid)?, own: cpu(std::process::id())?, machine: machine()? })
    }
    pub fn stop(&self) -> anyhow::Result<Used> {
        let cpu_seconds = cpu(self.pid)? - self.process;
        let others = machine()? - self.machine - cpu_seconds - (cpu(std::process::id())? - self.own);
        let seconds = self.at.elapsed().max(Duration::from_millis(1)).as_secs_f64();
        Ok(Used { cpu_seconds, others_cores: (others / seconds).max(0.0), seconds })
    }
}

/// CPU seconds a process used, user and system.
fn cpu(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // Fields 14 and 15, counted after the name, which may hold blanks.
    let rest = text.rsplit_once(')').context("a process has a name")?.1;
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// CPU seconds the machine was busy: user, nice, system, irq, softirq; not idle, iowait and steal.
fn machine() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = first.split_whitespace().skip(1).filter_map(|t| t.parse().ok()).collect();
    Ok([0, 1, 2, 5, 6].iter().filter_map(|i| ticks.get(*i)).sum::<f64>() / TICKS_PER_SECOND)
}

/// Resident memory of a process in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub peak: f64,
    pub now: f64,
}

pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kib = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name));
        line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse::<f64>().ok()).unwrap_or(f64::NAN)
    };
    Ok(Memory { peak: kib("VmHWM:") / 1024.0, now: kib("VmRSS:") / 1024.0 })
}

/// The machine's load average of the last minute.
pub fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    text.split_whitespace().next().and_then(|n| n.parse().ok()).context("a load average")
}

/// File system type and device of a directory.
pub fn mount(dir: &Path) -> anyhow::Result<String> {
    let dir = dir.canonicalize()?;
    let text = std::fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    let mounts = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        Some((fields.next()?, fields.next()?, fields.next()?))
    });
    let best = mounts.filter(|(_, at, _)| dir.starts_with(at)).max_by_key(|(_, at, _)| at.len());
    Ok(best.map_or("unknown".into(), |(device, _, kind)| format!("{kind} on {device}")))
}
