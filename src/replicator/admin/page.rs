//! The status page: one document made here of the same snapshot as `isthmus status`, with a style sheet and nothing else.
//! It is read-only, has no scripts and loads nothing from elsewhere. Who may read keys on it is `reader`'s.
mod markup;
mod picture;
mod reader;
mod waiting;

pub use reader::Door;

use super::history::History;
use crate::drill::report::Report;
use crate::drill::trend;
use crate::replicator::Replicator;
use crate::replicator::report::verdict::{self, backlog, lag};
use crate::replicator::report::{Certificate, LinkReport, PeerReport, SiteReport};
use crate::words;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use markup::{Table, code, cut, escaped, section};
use reader::Reader;
use std::sync::Arc;
use waiting::{CHARS_MAX, Waiting};

const STYLE: &str = include_str!("page/status.css");
/// Nothing is loaded but the style sheet, nothing is sent, nobody frames it.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Most bytes of links, an hour of lag is up to 1 kB each, and of peers.
const LINKS_BYTES_MAX: usize = 44_000;
const PEERS_BYTES_MAX: usize = 6_000;
/// Peers that are down and named among what waits for a person.
const DOWN_MAX: usize = 10;
/// Documents not in force that are named.
const PROBLEMS_MAX: usize = 20;
/// Drills that are shown.
const DRILLS: usize = 5;

/// What the page is made of.
#[derive(Clone)]
struct Seen {
    replicator: Arc<Replicator>,
    history: Arc<History>,
    door: Door,
}

/// `/` and its style sheet.
pub fn routes(replicator: Arc<Replicator>, history: Arc<History>, door: Door) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/status.css", get(|| async { ([(CONTENT_TYPE, "text/css; charset=utf-8")], STYLE) }))
        .with_state(Seen { replicator, history, door })
}

async fn page(State(seen): State<Seen>, headers: HeaderMap) -> Response {
    let reader = match seen.door.admit(&headers).await {
        Ok(reader) => reader,
        Err(answer) => return answer,
    };
    let report = seen.replicator.report();
    let (drills, waiting) = tokio::join!(seen.replicator.drill_reports(), Waiting::look(&seen.replicator, &report));
    let text = html(&report, &waiting, reader, &drills, &seen.history, seen.replicator.now_millis());
    let head = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (head, text).into_response()
}

/// The page as of `now`, Unix milliseconds.
fn html(
    report: &SiteReport,
    waiting: &Waiting,
    reader: Reader,
    drills: &[Report],
    history: &History,
    now: u64,
) -> String {
    let said = verdict::verdict(report);
    let (word, why) = said.trim().split_once("  ").unwrap_or((said.trim(), ""));
    let (site, class) = (escaped(&report.site), if report.is_healthy() { "ok" } else { "bad" });
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta http-equiv=\"refresh\" content=\"10\">\
         <title>{word}: {site}, isthmus</title><link rel=\"stylesheet\" href=\"/status.css\"></head>\n\
         <body><header><h1>Site {site}</h1><p class=\"verdict {class}\"><strong>{word}</strong> {}</p>\
         <p class=\"when\">As of <time>{}</time>; again every 10 s.</p></header>\n<main>\n",
        escaped(why),
        words::utc(now)
    );
    section(&mut out, "For a person", &for_a_person(report));
    section(&mut out, "Mesh", &picture::mesh(report));
    section(&mut out, "Links", &links(report, reader, history));
    section(&mut out, "Parked", &waiting.parked(report, reader));
    section(&mut out, "Peers", &peers(report, reader));
    section(&mut out, "Certificates", &certificates(report, now));
    section(&mut out, "Store", &store(report));
    section(&mut out, "Drills", &drilled(drills));
    section(&mut out, "Conflicts", &waiting.conflicts(report, reader));
    out + "</main>\n</body></html>\n"
}

fn links(report: &SiteReport, reader: Reader, history: &History) -> String {
    let mut links: Vec<&LinkReport> = report.links.iter().collect();
    links.sort_by(|a, b| b.by_lag(a));
    let row = |l: &&LinkReport| {
        vec![
            escaped(&l.rule),
            escaped(&l.bucket),
            escaped(&l.peer),
            format!("<span class=\"{}\">{}</span>", picture::class(l), escaped(&l.state)),
            lag(l),
            l.rpo_seconds.map_or("-".into(), words::seconds),
            picture::sparkline(&history.of(l)),
            backlog(l),
            eta(l, history),
            l.parked_versions.to_string(),
            why(l, reader),
        ]
    };
    let table = Table {
        what: "Links, the worst first",
        head: &["Rule", "Bucket", "Peer", "State", "Lag", "Objective", "Last hour", "Backlog", "ETA", "Parked", "Why"],
        bytes_max: LINKS_BYTES_MAX,
        all: links.len() as u64,
        verb: "isthmus status",
    };
    table.with(links.iter().map(row))
}

/// When its backlog is drained, at the pace of the last minute.
fn eta(link: &LinkReport, history: &History) -> String {
    match link.backlog_versions {
        Some(0) => "-".into(),
        _ => history.eta_seconds(link).map_or("unknown".into(), words::seconds),
    }
}

/// What holds it, or what failed last; to anybody in words that never hold a key.
fn why(link: &LinkReport, reader: Reader) -> String {
    if reader == Reader::Trusted {
        return cut(&verdict::why(link), CHARS_MAX);
    }
    let suspended = link.suspended.is_some().then(|| "suspended".to_owned());
    let braked = link.braked_since.map(|_| format!("MassDelete: {} deletes", link.braked_versions));
    let conditions = link.conditions.iter().map(|c| c.reason.clone());
    let all: Vec<_> = suspended.into_iter().chain(braked).chain(conditions).collect();
    if all.is_empty() { "-".into() } else { escaped(&all.join(", ")) }
}

fn peers(report: &SiteReport, reader: Reader) -> String {
    let row = |p: &PeerReport| {
        let (class, state) = if p.is_up { ("ok", "up") } else { ("bad", "down") };
        let rtt = p.rtt_ms.map_or("-".into(), |ms| format!("{ms:.1}ms"));
        let clock = p.clock_offset_ms.map_or("-".into(), |ms| format!("{ms:+}ms"));
        let state = format!("<span class=\"{class}\">{state}</span>");
        let seen = p.last_seen.map_or("never".into(), words::utc);
        let mut row = vec![escaped(&p.peer), escaped(&p.site), state, rtt, clock, seen];
        if reader == Reader::Trusted {
            row.push(p.last_error.as_ref().map_or("-".into(), |why| cut(why, CHARS_MAX)));
        }
        row
    };
    let why: &[&str] = if reader == Reader::Trusted { &["Why"] } else { &[] };
    let table = Table {
        what: "Peers",
        head: &[&["Peer", "Site", "State", "Round trip", "Clock", "Connected last"], why].concat(),
        bytes_max: PEERS_BYTES_MAX,
        all: report.peers.len() as u64,
        verb: "isthmus status",
    };
    table.with(report.peers.iter().map(row))
}

/// Whose certificates hold until when, the first to end first.
fn certificates(report: &SiteReport, now: u64) -> String {
    let own = report.certificate.map(|holds| ("this site's".to_owned(), holds));
    let authorities = report.authorities.map(|holds| ("the CAs this site believes".to_owned(), holds));
    let of_store = report.store.iter().flat_map(|store| &store.certificates);
    let others = report.other_certificates.iter().chain(of_store).map(|other| (other.whose.clone(), other.holds));
    let is_late = |holds: Certificate| if holds.is_late(now) { "bad" } else { "ok" };
    let mine = own.into_iter().chain(authorities).chain(others);
    let mine = mine.map(|(whose, holds)| (whose, holds.expires_at, is_late(holds)));
    // Of a peer's its end alone is known.
    let theirs = report.peers.iter().filter_map(|p| Some((format!("peer {}'s", p.peer), p.certificate_until?)));
    let mut all: Vec<_> = mine.chain(theirs.map(|(whose, until)| (whose, until, "idle"))).collect();
    if all.is_empty() {
        return "<p>None is shown or seen.</p>".into();
    }
    all.sort_by_key(|(_, until, _)| *until);
    let row = |(whose, until, class): &(String, u64, &str)| {
        let left = match until.saturating_sub(now) / 3_600_000 {
            hours @ 0..48 => format!("{hours}h"),
            hours => format!("{}d", hours / 24),
        };
        vec![escaped(whose), words::utc(*until), format!("<span class=\"{class}\">{left}</span>")]
    };
    let table = Table {
        what: "Certificates, the first to end first",
        head: &["Whose", "Until", "Left"],
        bytes_max: PEERS_BYTES_MAX / 2,
        all: all.len() as u64,
        verb: "isthmus certs",
    };
    table.with(all.iter().map(row))
}

/// The drives of the own store.
fn store(report: &SiteReport) -> String {
    let Some(store) = &report.store else { return "<p>Not known now.</p>".into() };
    let row = |d: &crate::replicator::report::DriveReport| {
        let (class, state) = if d.offline.is_none() { ("ok", "online") } else { ("bad", "offline") };
        let state = format!("<span class=\"{class}\">{state}</span>");
        vec![d.drive.to_string(), state, words::bytes(d.free_bytes), words::bytes(d.total_bytes)]
    };
    let table = Table {
        what: "Drives",
        head: &["Drive", "State", "Free", "Of"],
        bytes_max: PEERS_BYTES_MAX,
        all: store.drives.len() as u64,
        verb: "isthmus status",
    };
    let below = match store.below_target {
        0 => String::new(),
        n => format!("<p>Acked while a drive lacked them, since the store began: {n}. Nothing heals them yet.</p>"),
    };
    table.with(store.drives.iter().map(row)) + &below
}

/// Drives that take no requests.
fn offline(report: &SiteReport) -> u64 {
    report.store.as_ref().map_or(0, |store| (store.drives.len() - store.online()) as u64)
}

/// What waits for somebody, each with the command that says more.
fn for_a_person(report: &SiteReport) -> String {
    let sum = |of: fn(&LinkReport) -> u64| report.links.iter().map(of).sum::<u64>();
    let lines = [
        (sum(|l| l.parked_versions), "parked versions", "isthmus backlog --parked"),
        (sum(|l| l.braked_versions), "deletes held back by a brake", "isthmus backlog --deletes"),
        (sum(|l| l.suspended.is_some().into()), "suspended links", "isthmus status"),
        (report.problems.len() as u64, "documents not in force", "isthmus status"),
        (offline(report), "drives offline", "isthmus status"),
        (u64::from(report.store_error.is_some()), "stores out of reach", "isthmus status"),
    ];
    let down = report.peers.iter().filter(|p| !p.is_up).take(DOWN_MAX).map(|p| {
        let since =
            p.last_seen.map_or("since before the process began".into(), |at| format!("since {}", words::utc(at)));
        let verb = code(&format!("isthmus explain --peer {}", p.peer));
        format!("<li>peer {} is down {since} ({verb})</li>", escaped(&p.peer))
    });
    let said = lines.iter().filter(|(count, ..)| *count > 0);
    let said = said.map(|(count, what, verb)| format!("<li>{what}: {count} (<code>{verb}</code>)</li>"));
    let items: String = down.chain(said).collect();
    let documents = report
        .problems
        .iter()
        .take(PROBLEMS_MAX)
        .map(|p| format!("<li>{}: {}</li>", escaped(&p.document), escaped(&p.reason)));
    match items.is_empty() {
        true => "<p>Nothing.</p>".into(),
        false => format!("<ul>{items}{}</ul>", documents.collect::<String>()),
    }
}

fn drilled(drills: &[Report]) -> String {
    if drills.is_empty() {
        return "<p>This site drove none: <code>isthmus drill run --peer PEER</code></p>".into();
    }
    let seconds = |s: Option<f64>| s.map_or("-".into(), |s| format!("{s:.3}s"));
    let row = |r: &Report| {
        vec![
            words::utc(r.began_at),
            r.plan.kind.name().into(),
            escaped(&r.plan.peer),
            r.verdict.word().into(),
            seconds(r.figures.at_risk.as_ref().map(|risk| risk.seconds)),
            seconds(r.figures.rto_seconds),
            code(&format!("isthmus drill report {}", r.plan.id)),
        ]
    };
    let table = Table {
        what: "Drills, the newest first",
        head: &["Began", "Type", "Peer", "Verdict", "RPO", "RTO", "Command"],
        bytes_max: PEERS_BYTES_MAX,
        all: drills.len() as u64,
        verb: "isthmus drill list",
    };
    let (passed, of) = trend::passed(drills);
    let passed = if of > 0 { format!("<p>{passed} of the last {of} passed.</p>") } else { String::new() };
    passed + &table.with(drills.iter().take(DRILLS).map(row))
}

#[cfg(test)]
mod tests;
