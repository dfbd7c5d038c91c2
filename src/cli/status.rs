//! `isthmus status`: the verdict, peers and links of a running process.
use super::output::{self, Format};
use super::{exit, socket};
use crate::replicator::report::verdict::{verdict, why};
use crate::replicator::report::{JournalReport, LastDrill, LinkReport, PeerReport, SiteReport, StoreReport};
use std::path::Path;

/// Asks and prints. Exit code: 0 healthy, 1 degraded, 2 could not find out.
pub async fn run(path: &Path, format: Format) -> u8 {
    let report: SiteReport = match socket::get(path, "/status").await {
        Ok(report) => report,
        Err(e) => {
            eprintln!("UNKNOWN  {e:#}");
            return exit::UNKNOWN;
        }
    };
    match format {
        format @ (Format::Json | Format::Yaml) => output::data(format, &report),
        Format::Table => say_all!(text(&report)),
        Format::Wide => say_all!(shown(&report, true)),
    }
    if report.is_healthy() { exit::OK } else { exit::DEGRADED }
}

/// The report for people, verdict first.
pub fn text(report: &SiteReport) -> String {
    shown(report, false)
}

fn or_none(shown: Option<String>) -> String {
    shown.unwrap_or("-".into())
}

/// Columns of peers that are shown where there is room for them: its clock against this site's, the end of its
/// certificate, when it was connected last.
const APART: [&str; 3] = ["CLOCK", "CERT", "SEEN"];

fn apart(p: &PeerReport) -> [String; 3] {
    [
        or_none(p.clock_offset_ms.map(|ms| format!("{ms:+}ms"))),
        or_none(p.certificate_until.map(output::utc)),
        or_none(p.last_seen.map(output::utc)),
    ]
}

/// Its drives in a line; each that is offline with its reason.
fn drives(store: &StoreReport) -> String {
    let free = store.drives.iter().map(|d| d.free_bytes).min().unwrap_or_default();
    let offline =
        store.drives.iter().filter_map(|d| Some(format!(", drive {} offline: {}", d.drive, d.offline.as_ref()?)));
    let (online, all) = (store.online(), store.drives.len());
    format!("{online}/{all} drives, least free {}{}", output::bytes(free), offline.collect::<String>())
}

/// What the journal keeps in a line: its links, versions that failed, those mapped to ids of S3 endpoints, and its room.
fn kept(journal: &JournalReport) -> String {
    let rows = |table: &str| journal.rows.get(table).copied().unwrap_or_default();
    let mapped = Some(rows("version_map")).filter(|n| *n > 0).map_or(String::new(), |n| format!(", {n} mapped"));
    let free = journal.free_bytes.map_or(String::new(), |free| format!(", {} free", output::bytes(free)));
    format!("{} links, {} retried or parked{mapped}{free}", rows("checkpoint"), rows("link_row"))
}

/// Columns of links that are shown where there is room for them.
const WIDE: [&str; 7] = ["OBJECTIVE", "OLDEST", "EXISTING", "AHEAD", "BRAKED", "VERIFIED", "OWNER"];

fn wide(l: &LinkReport) -> [String; 7] {
    [
        or_none(l.rpo_seconds.map(output::seconds)),
        or_none(l.oldest_pending.map(output::utc)),
        or_none(l.existing_versions.map(|n| n.to_string())),
        l.clock_ahead_versions.to_string(),
        l.braked_versions.to_string(),
        or_none(l.proof.as_ref().and_then(|proof| proof.verified_at).map(output::utc)),
        or_none(l.owner.clone()),
    ]
}

fn shown(report: &SiteReport, is_wide: bool) -> String {
    let mut out = verdict(report);
    let peers = report.peers.iter().map(|p| {
        let more = if is_wide { apart(p).to_vec() } else { Vec::new() };
        let first = vec![
            p.peer.clone(),
            p.site.clone(),
            match (p.is_up, &p.dialect) {
                (true, Some(dialect)) => format!("up ({dialect})"),
                (true, None) => "up".into(),
                (false, _) => "down".into(),
            },
            p.rtt_ms.map_or("-".into(), |ms| format!("{ms:.1}ms")),
        ];
        let last = vec![p.endpoint.clone(), p.last_error.clone().unwrap_or("-".into())];
        [first, more, last].concat()
    });
    let more: &[&str] = if is_wide { &APART } else { &[] };
    let head = [&["PEER", "SITE", "STATE", "RTT"], more, &["ENDPOINT", "ERROR"]].concat();
    out += &output::table(&head, peers.collect());
    out += "\n\n";
    let row = |l: &LinkReport| {
        let names = [l.rule.clone(), l.bucket.clone(), l.peer.clone(), l.state.clone()];
        let numbers = [output::lag(l), output::backlog(l), l.retry_versions.to_string(), l.parked_versions.to_string()];
        let more = if is_wide { wide(l).to_vec() } else { Vec::new() };
        [names.to_vec(), numbers.to_vec(), more, vec![why(l)]].concat()
    };
    let head = ["RULE", "BUCKET", "PEER", "STATE", "LAG", "BACKLOG", "RETRY", "PARKED"];
    let more: &[&str] = if is_wide { &WIDE } else { &[] };
    let head = [&head, more, &["WHY"]].concat();
    out += &output::table(&head, report.links.iter().map(row).collect());
    out.push('\n');
    if let Some(store) = &report.store {
        out += &format!("\nSTORE  {}\n", drives(store));
    }
    if let Some(journal) = &report.journal {
        out += &format!("\nJOURNAL  {}\n", kept(journal));
    }
    if let Some(LastDrill { id, peer, kind, verdict, ended_at }) = &report.last_drill {
        let at = output::utc(*ended_at);
        out += &format!("\nLAST DRILL  {verdict}  {kind} {} -> {peer}, {at}: isthmus drill report {id}\n", report.site);
    }
    for p in &report.problems {
        out += &format!("\n{}  {}  {}: {}", p.document, p.place, p.reason, p.message);
    }
    if !report.problems.is_empty() {
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicator::report::DriveReport;

    #[test]
    fn wide_has_more_columns_and_yaml_says_all_of_it() {
        let link =
            LinkReport { rule: "r".into(), rpo_seconds: Some(900.0), braked_versions: 7, ..LinkReport::default() };
        let drive = |drive, offline| DriveReport { drive, offline, free_bytes: 3 << 30, total_bytes: 4 << 30 };
        let store =
            StoreReport { drives: vec![drive(0, None), drive(1, Some("gone".into()))], ..StoreReport::default() };
        let rows = [("checkpoint", 2), ("link_row", 7)].map(|(table, n)| (table.to_string(), n)).into();
        let journal = JournalReport { rows, free_bytes: Some(2 << 30) };
        let last_drill = Some(LastDrill {
            id: "0123456789ab".into(),
            peer: "ams".into(),
            kind: "partition".into(),
            verdict: "PASS".into(),
            ended_at: 0,
        });
        let (links, store, journal) = (vec![link], Some(store), Some(journal));
        let report = SiteReport { site: "fra".into(), links, store, journal, last_drill, ..SiteReport::default() };
        let drilled =
            "LAST DRILL  PASS  partition fra -> ams, 1970-01-01 00:00:00Z: isthmus drill report 0123456789ab\n";
        assert!(text(&report).contains(drilled), "{}", text(&report));
        assert!(text(&report).contains("JOURNAL  2 links, 7 retried or parked, 2.0GiB free\n"), "{}", text(&report));
        assert!(
            text(&report).contains("STORE  1/2 drives, least free 3.0GiB, drive 1 offline: gone"),
            "{}",
            text(&report)
        );
        let wide = shown(&report, true);
        assert!(WIDE.iter().all(|column| wide.contains(column) && !text(&report).contains(column)), "{wide}");
        assert!(wide.contains("15m00s"), "{wide}");
        let yaml = serde_saphyr::to_string(&report).expect("it has string keys");
        assert_eq!(serde_saphyr::from_str::<SiteReport>(&yaml).expect("it is YAML"), report, "{yaml}");
    }
}
