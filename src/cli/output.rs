//! How verbs print: data on standard output, talk on standard error; the verdict first.
use crate::replicator::report::LinkReport;
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For people, with more columns where there are more.
    Wide,
    /// One JSON document, on one line.
    Json,
    /// One YAML document.
    Yaml,
}

impl Format {
    /// Whether programs are to read it.
    pub fn is_data(self) -> bool {
        matches!(self, Format::Json | Format::Yaml)
    }
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

/// Prints a value for programs: as YAML where that is asked for, else as JSON on one line.
pub fn data<T: Serialize>(format: Format, value: &T) {
    match format {
        // A document of its own each time: `--watch` prints many.
        Format::Yaml => print!("---\n{}", serde_saphyr::to_string(value).expect("reports have string keys")),
        _ => println!("{}", serde_json::to_string(value).expect("reports have string keys")),
    }
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

/// Unix milliseconds as UTC: `2026-11-21 09:14:02Z`.
pub fn utc(millis: u64) -> String {
    let (days, seconds) = (millis / 86_400_000, millis / 1000 % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the day number since 1970-01-01.
///
/// # Source
/// H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`; eras of 146,097 days begin in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The lag of a link.
pub fn lag(link: &LinkReport) -> String {
    link.lag_seconds.map_or("unknown".into(), seconds)
}

/// The backlog of a link, in versions and bytes.
pub fn backlog(link: &LinkReport) -> String {
    match (link.backlog_versions, link.backlog_bytes) {
        (Some(0), _) => "0".into(),
        (Some(versions), Some(size)) => format!("{versions} / {}", bytes(size)),
        _ => "unknown".into(),
    }
}

/// `bucket/key`; control characters, which a key may hold, are escaped so that they do nothing to a terminal.
pub fn object(bucket: &str, key: &str) -> String {
    let plain = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    format!("{bucket}/{}", key.chars().map(plain).collect::<String>())
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
        assert_eq!(object("b", "a\u{1b}[2J/ü"), "b/a\\u{1b}[2J/ü");
    }

    #[test]
    fn times_are_dates_of_the_calendar() {
        for (millis, date) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_735_689_599_999, "2024-12-31 23:59:59Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(utc(millis), date);
        }
    }
}
