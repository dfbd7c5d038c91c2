//! A row per figure, and the table of them.
use crate::load::Latencies;
use crate::process::{Memory, Used};
use comfy_table::{Table, presets};
use serde::Serialize;

/// One measured figure. What was not measured is absent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    pub figure: String,
    pub goal: String,
    pub measured: String,
    /// The measured value as a number, in the unit of `measured`.
    pub value: f64,
    pub operations: Option<usize>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// CPU of the server process, user and system, per operation.
    pub server_cpu_ms_per_operation: Option<f64>,
    /// Cores that neither the servers nor the client used.
    pub others_cores: Option<f64>,
    pub rss_peak_mib: Option<f64>,
    pub rss_mib: Option<f64>,
}

impl Row {
    pub fn new(figure: &str, goal: &str, measured: String, value: f64) -> Row {
        Row { figure: figure.into(), goal: goal.into(), measured, value, ..Row::default() }
    }
    pub fn latencies(mut self, latencies: &mut Latencies) -> Row {
        self.operations = Some(latencies.count());
        self.p50_ms = latencies.quantile(0.5);
        self.p99_ms = latencies.quantile(0.99);
        self
    }
    pub fn used(mut self, used: Used, operations: usize) -> Row {
        self.server_cpu_ms_per_operation = Some(used.cpu_seconds * 1000.0 / operations.max(1) as f64);
        self.others_cores = Some(used.others_cores);
        self
    }
    pub fn memory(mut self, memory: Memory) -> Row {
        self.rss_peak_mib = Some(memory.peak);
        self.rss_mib = Some(memory.now);
        self
    }
}

/// All rows as a table.
pub fn text(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "figure",
        "goal",
        "measured",
        "p50 ms",
        "p99 ms",
        "CPU ms/op",
        "RSS peak MiB",
        "RSS MiB",
        "other cores",
    ]);
    let number = |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}"));
    for row in rows {
        table.add_row([
            row.figure.clone(),
            row.goal.clone(),
            row.measured.clone(),
            number(row.p50_ms, 2),
            number(row.p99_ms, 2),
            number(row.server_cpu_ms_per_operation, 3),
            number(row.rss_peak_mib, 0),
            number(row.rss_mib, 0),
            number(row.others_cores, 2),
        ]);
    }
    table.to_string()
}
