//! The demo's verdict and its figures.
use super::compare::Compared;
use crate::cli::output::{self, Format};
use serde::Serialize;
use std::time::Duration;

/// Samples of the lag shown by links between living sites, in seconds.
#[derive(Debug, Default)]
pub struct Lag {
    pub samples: Vec<f64>,
}

/// Lag over the whole run, in seconds: age of the oldest change not yet there, sampled five times a
/// second on every link between living sites.
#[derive(Debug, Serialize)]
pub struct LagFigures {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Lag {
    fn figures(mut self) -> LagFigures {
        self.samples.sort_by(f64::total_cmp);
        let at = |q: f64| match self.samples.len() {
            0 => 0.0,
            n => self.samples[(((n - 1) as f64) * q).round() as usize],
        };
        LagFigures { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// What the demo found out.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// `converged` only if all sites are identical.
    pub verdict: &'static str,
    pub sites: usize,
    pub versions: usize,
    pub bytes: u64,
    /// Pairs of versions written on two sites at once without knowing each other; both are kept.
    pub conflicts: u64,
    pub mismatches: usize,
    pub lag_seconds: LagFigures,
    pub catch_up_seconds: f64,
    pub duration_seconds: f64,
    #[serde(skip)]
    samples: Vec<String>,
}

impl Verdict {
    /// The verdict over a comparison.
    pub fn new(compared: &Compared, lag: Lag, catch_up: Duration, duration: Duration) -> Self {
        Verdict {
            verdict: if compared.is_equal() { "converged" } else { "diverged" },
            sites: compared.sites,
            versions: compared.versions,
            bytes: compared.bytes,
            conflicts: compared.conflicts,
            mismatches: compared.mismatches.len(),
            lag_seconds: lag.figures(),
            catch_up_seconds: round(catch_up.as_secs_f64()),
            duration_seconds: round(duration.as_secs_f64()),
            samples: compared.mismatches.iter().take(20).cloned().collect(),
        }
    }

    /// Prints it, for people or as the one JSON object on the last line.
    pub fn print(&self, format: Format) {
        if format.is_data() {
            self.samples.iter().for_each(|s| eprintln!("{s}"));
            output::data(format, self);
            return;
        }
        say!(
            "{}  {} sites hold the same {} versions ({}): {} mismatches",
            self.verdict.to_uppercase(),
            self.sites,
            self.versions,
            output::bytes(self.bytes),
            self.mismatches
        );
        say!(
            "conflicts {} (both versions kept)  lag p50 {:.2}s p99 {:.2}s max {:.2}s  catch-up after kill -9 {:.1}s  took {:.1}s",
            self.conflicts,
            self.lag_seconds.p50,
            self.lag_seconds.p99,
            self.lag_seconds.max,
            self.catch_up_seconds,
            self.duration_seconds
        );
        self.samples.iter().for_each(|s| say!("{s}"));
    }
}

fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_from_the_samples() {
        let lag = Lag { samples: (0..=100).rev().map(f64::from).collect() }.figures();
        assert_eq!((lag.p50, lag.p99, lag.max), (50.0, 99.0, 100.0));
        assert_eq!(Lag::default().figures().max, 0.0);
    }
}
