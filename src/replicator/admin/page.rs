//! The status page: one document made here of the same snapshot as `isthmus status`, with a style sheet and nothing else.
//! It is read-only, has no scripts, loads nothing from elsewhere, and says no more than `/metrics` does: no key, and no error
//! text, which may hold one.
mod picture;

use super::history::History;
use crate::cli::output;
use crate::cli::status;
use crate::drill::report::Report;
use crate::replicator::Replicator;
use crate::replicator::report::{LinkReport, SiteReport};
use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use axum::routing::get;
use std::fmt::Write;
use std::sync::Arc;

const STYLE: &str = include_str!("page/status.css");
/// Nothing is loaded but the style sheet, nothing is sent, nobody frames it.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Rows of a table: 50 links with an hour of lag each are about 70 kB.
const ROWS_MAX: usize = 50;
/// Drills that are shown.
const DRILLS: usize = 5;

/// What the page is made of.
#[derive(Clone)]
struct Seen {
    replicator: Arc<Replicator>,
    history: Arc<History>,
}

/// `/` and its style sheet.
pub fn routes(replicator: Arc<Replicator>, history: Arc<History>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/status.css", get(|| async { ([(CONTENT_TYPE, "text/css; charset=utf-8")], STYLE) }))
        .with_state(Seen { replicator, history })
}

async fn page(State(seen): State<Seen>) -> impl IntoResponse {
    let drills = seen.replicator.drill_reports().await;
    let text = html(&seen.replicator.report(), &drills, &seen.history, seen.replicator.now_millis());
    let head = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (head, text)
}

/// The page as of `now`, Unix milliseconds.
fn html(report: &SiteReport, drills: &[Report], history: &History, now: u64) -> String {
    let said = status::verdict(report);
    let (word, why) = said.trim().split_once("  ").unwrap_or((said.trim(), ""));
    let (site, class) = (escaped(&report.site), if report.is_healthy() { "ok" } else { "bad" });
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta http-equiv=\"refresh\" content=\"10\">\
         <title>{word}: {site}, isthmus</title><link rel=\"stylesheet\" href=\"/status.css\"></head>\n\
         <body><header><h1>Site {site}</h1><p class=\"verdict {class}\"><strong>{word}</strong> {}</p>\
         <p class=\"when\">As of <time>{}</time>; again every 10 s.</p></header>\n<main>\n",
        escaped(why),
        output::utc(now)
    );
    section(&mut out, "Mesh", &picture::mesh(report));
    section(&mut out, "Links", &links(report, history));
    section(&mut out, "Peers", &peers(report));
    section(&mut out, "For a person", &for_a_person(report));
    section(&mut out, "Drills", &drilled(drills));
    out + "</main>\n</body></html>\n"
}

fn section(out: &mut String, title: &str, body: &str) {
    let id = title.to_lowercase().replace(' ', "-");
    let _ = writeln!(out, "<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{title}</h2>{body}</section>");
}

/// Scrolls by itself where it is too wide, by keyboard too. Cells are markup.
fn table(what: &str, head: &[&str], rows: &[Vec<String>], all: usize) -> String {
    let head: String = head.iter().map(|cell| format!("<th scope=\"col\">{cell}</th>")).collect();
    let row = |cells: &Vec<String>| cells.iter().map(|cell| format!("<td>{cell}</td>")).collect::<String>();
    let body: String = rows.iter().map(|cells| format!("<tr>{}</tr>\n", row(cells))).collect();
    let more = if all > rows.len() {
        format!("<p>{} more: <code>isthmus status</code></p>", all - rows.len())
    } else {
        String::new()
    };
    format!(
        "<div class=\"wide\" role=\"region\" aria-label=\"{what}\" tabindex=\"0\"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>{more}"
    )
}

fn links(report: &SiteReport, history: &History) -> String {
    let mut links: Vec<&LinkReport> = report.links.iter().collect();
    links.sort_by(|a, b| b.by_lag(a));
    let row = |l: &&LinkReport| {
        vec![
            escaped(&l.rule),
            escaped(&l.bucket),
            escaped(&l.peer),
            format!("<span class=\"{}\">{}</span>", picture::class(l), escaped(&l.state)),
            output::lag(l),
            l.rpo_seconds.map_or("-".into(), output::seconds),
            picture::sparkline(&history.of(l)),
            output::backlog(l),
            l.parked_versions.to_string(),
            escaped(&why(l)),
        ]
    };
    let rows: Vec<_> = links.iter().take(ROWS_MAX).map(row).collect();
    let head = ["Rule", "Bucket", "Peer", "State", "Lag", "Objective", "Last hour", "Backlog", "Parked", "Why"];
    table("Links, the worst first", &head, &rows, links.len())
}

/// What holds it, in words that never hold a key.
fn why(link: &LinkReport) -> String {
    let suspended = link.suspended.is_some().then(|| "suspended".to_owned());
    let braked = link.braked_since.map(|_| format!("MassDelete: {} deletes", link.braked_versions));
    let conditions = link.conditions.iter().map(|c| c.reason.clone());
    let all: Vec<_> = suspended.into_iter().chain(braked).chain(conditions).collect();
    if all.is_empty() { "-".into() } else { all.join(", ") }
}

fn peers(report: &SiteReport) -> String {
    let row = |p: &crate::replicator::report::PeerReport| {
        let (class, state) = if p.is_up { ("ok", "up") } else { ("bad", "down") };
        let rtt = p.rtt_ms.map_or("-".into(), |ms| format!("{ms:.1}ms"));
        vec![escaped(&p.peer), escaped(&p.site), format!("<span class=\"{class}\">{state}</span>"), rtt]
    };
    let rows: Vec<_> = report.peers.iter().take(ROWS_MAX).map(row).collect();
    table("Peers", &["Peer", "Site", "State", "Round trip"], &rows, report.peers.len())
}

/// What waits for somebody, each with the command that says more.
fn for_a_person(report: &SiteReport) -> String {
    let sum = |of: fn(&LinkReport) -> u64| report.links.iter().map(of).sum::<u64>();
    let lines = [
        (sum(|l| l.parked_versions), "parked versions", "isthmus backlog --parked"),
        (sum(|l| l.braked_versions), "deletes held back by a brake", "isthmus backlog --deletes"),
        (sum(|l| l.suspended.is_some().into()), "suspended links", "isthmus status"),
        (report.peers.iter().filter(|p| !p.is_up).count() as u64, "peers down", "isthmus explain --peer PEER"),
        (report.problems.len() as u64, "documents not in force", "isthmus status"),
        (u64::from(report.store_error.is_some()), "stores out of reach", "isthmus status"),
        (report.conflicts, "conflicts since the process began, both versions kept", "isthmus conflicts"),
    ];
    let said = lines.iter().filter(|(count, ..)| *count > 0);
    let items: String =
        said.map(|(count, what, verb)| format!("<li>{what}: {count} (<code>{verb}</code>)</li>")).collect();
    let documents = report
        .problems
        .iter()
        .take(ROWS_MAX)
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
            output::utc(r.began_at),
            r.plan.kind.name().into(),
            escaped(&r.plan.peer),
            r.verdict.word().into(),
            seconds(r.figures.at_risk.as_ref().map(|risk| risk.seconds)),
            seconds(r.figures.rto_seconds),
        ]
    };
    let rows: Vec<_> = drills.iter().take(DRILLS).map(row).collect();
    table("Drills, the newest first", &["Began", "Type", "Peer", "Verdict", "RPO", "RTO"], &rows, rows.len())
}

/// Text as markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
