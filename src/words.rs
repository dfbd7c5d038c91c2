//! Numbers, times and names as people read them: on terminals, on the status page, in reports and in the status of
//! resources alike. Pure; knows none of them.

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
