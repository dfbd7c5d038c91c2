//! How verbs print: data on standard output, talk on standard error; the verdict first.
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
}

/// A table without frames, as `kubectl` prints them.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Prints a value as JSON on one line.
pub fn json<T: Serialize>(value: &T) {
    println!("{}", serde_json::to_string(value).expect("reports have string keys"));
}

/// Seconds for people: `0.4s`, `4m12s`.
pub fn seconds(value: f64) -> String {
    if value < 60.0 {
        return format!("{value:.1}s");
    }
    let whole = value as u64;
    if whole < 3600 {
        format!("{}m{:02}s", whole / 60, whole % 60)
    } else {
        format!("{}h{:02}m", whole / 3600, whole % 3600 / 60)
    }
}

/// Bytes for people, in binary units.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = value as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value}B") } else { format!("{size:.1}{}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(seconds(0.44), "0.4s");
        assert_eq!(seconds(252.0), "4m12s");
        assert_eq!(seconds(7260.0), "2h01m");
        assert_eq!(bytes(1023), "1023B");
        assert_eq!(bytes(64 << 20), "64.0MiB");
    }
}
