//! `isthmus failover --dry-run --peer P`: what would be lost if this site were gone now, or switched to the peer now, and
//! what to do step by step. It reads what the site shows, and changes nothing; moving clients is a person's work.
use super::output::{self, Format};
use super::socket::{self, Failed, Method};
use super::{Asking, exit};
use crate::replicator::report::{LinkReport, SiteReport};
use serde::Serialize;

/// To which peer.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    /// Name of the Peer that would take over.
    #[arg(long)]
    peer: String,
    /// Only say what it would cost; there is no other way yet, and it must be said.
    #[arg(long, required = true)]
    dry_run: bool,
}

/// What a switch would cost at this moment.
#[derive(Debug, PartialEq, Serialize)]
struct Cost {
    peer: String,
    is_peer_up: bool,
    /// Not at the peer: lost if this site is gone for good; drained by a planned switch. Absent: not known.
    versions: Option<u64>,
    bytes: Option<u64>,
    /// Age of the oldest of them, seconds.
    rpo_seconds: Option<f64>,
    links: Vec<Link>,
    /// What to do, in order.
    steps: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Link {
    rule: String,
    bucket: String,
    state: String,
    versions: Option<u64>,
    bytes: Option<u64>,
    lag_seconds: Option<f64>,
    /// Versions that will not go by themselves: parked, or held by the brake.
    stuck: u64,
}

/// Asks and prints. Exit code: 0 nothing would be lost, 1 something would, 2 it is not known, 64 nothing is sent there.
pub async fn run(args: &Args) -> u8 {
    let report: SiteReport = match socket::ask(&args.asking.socket, Method::GET, "/status").await {
        Ok(report) => report,
        Err(failed) => return failed.say(),
    };
    let cost = match cost(&report, &args.peer) {
        Ok(cost) => cost,
        Err(why) => return Failed::Refused(why).say(),
    };
    match args.asking.output {
        format @ (Format::Json | Format::Yaml) => output::data(format, &cost),
        Format::Table | Format::Wide => say_all!(text(&cost)),
    }
    match cost.versions {
        Some(0) => exit::OK,
        Some(_) => exit::DEGRADED,
        None => exit::UNKNOWN,
    }
}

/// From what the site shows. Pure.
fn cost(report: &SiteReport, peer: &str) -> Result<Cost, String> {
    let Some(standing) = report.peers.iter().find(|p| p.peer == peer) else {
        let names: Vec<_> = report.peers.iter().map(|p| p.peer.as_str()).collect();
        return Err(format!("no peer {peer}; there are: {}", names.join(", ")));
    };
    // What a drill writes is nobody's.
    let is_meant = |l: &&LinkReport| l.peer == peer && !crate::drill::is_canary(&l.bucket);
    let links: Vec<Link> = report.links.iter().filter(is_meant).map(link).collect();
    if links.is_empty() {
        return Err(format!("no rule of this site sends to {peer}: it holds nothing that could take over"));
    }
    let sum = |of: fn(&Link) -> Option<u64>| links.iter().map(of).sum::<Option<u64>>();
    let lags = links.iter().map(|l| l.lag_seconds).collect::<Option<Vec<_>>>();
    let (versions, bytes) = (sum(|l| l.versions), sum(|l| l.bytes));
    let rpo_seconds = lags.map(|lags| lags.into_iter().fold(0.0, f64::max));
    let steps = steps(&links, peer, standing.is_up);
    Ok(Cost { peer: peer.into(), is_peer_up: standing.is_up, versions, bytes, rpo_seconds, links, steps })
}

fn link(l: &LinkReport) -> Link {
    // Another process pushes it, or nobody: nothing is known of it here.
    let is_known = l.is_pushed_here();
    Link {
        rule: l.rule.clone(),
        bucket: l.bucket.clone(),
        state: l.state.clone(),
        versions: l.backlog_versions.filter(|_| is_known),
        bytes: l.backlog_bytes.filter(|_| is_known),
        lag_seconds: l.lag_seconds.filter(|_| is_known),
        stuck: l.parked_versions + l.braked_versions,
    }
}

fn steps(links: &[Link], peer: &str, is_up: bool) -> Vec<String> {
    let mut all = Vec::new();
    if !is_up {
        all.push(format!(
            "bring {peer} back first (isthmus explain --peer {peer}): without it only a loss is left to count"
        ));
    }
    for stuck in links.iter().filter(|l| l.stuck > 0) {
        let (rule, versions) = (&stuck.rule, stuck.stuck);
        all.push(format!(
            "rule {rule}: {versions} versions do not go by themselves; isthmus backlog --parked, retry, release {rule}"
        ));
    }
    for held in links.iter().filter(|l| matches!(l.state.as_str(), "suspended" | "blocked" | "braked")) {
        all.push(format!(
            "rule {} is {}: mend that, or count its backlog as lost (isthmus explain --peer {peer})",
            held.rule, held.state
        ));
    }
    all.push("stop the writers of these buckets here".into());
    all.push(format!("wait until isthmus backlog shows nothing for {peer}"));
    all.extend(links.iter().map(|l| format!("prove it: isthmus verify {}", l.rule)));
    all.push(format!("point clients at {peer}; write, read, list and delete there"));
    all.push(
        "to fail back: stop the writers there, wait for its backlog to this site, verify there, point clients here"
            .into(),
    );
    all
}

/// For people, verdict first.
fn text(cost: &Cost) -> String {
    let seconds = cost.rpo_seconds.map_or("unknown".into(), output::seconds);
    let bytes = cost.bytes.map_or("unknown".into(), output::bytes);
    let state = if cost.is_peer_up { "" } else { ", which is down" };
    let verdict = match cost.versions {
        Some(0) => format!("NOTHING  would be lost now: {}{state} holds all that was acked here", cost.peer),
        Some(n) => format!(
            "{n} VERSIONS  ({bytes}) are not at {}{state}; the oldest waits since {seconds}: lost if this site is gone, drained by a planned switch",
            cost.peer
        ),
        None => {
            format!("UNKNOWN  what {}{state} lacks is not known here; ask the process that pushes the links", cost.peer)
        }
    };
    let known = |n: Option<u64>| n.map_or("unknown".into(), |n| n.to_string());
    let row = |l: &Link| {
        let lag = l.lag_seconds.map_or("unknown".into(), output::seconds);
        vec![l.rule.clone(), l.bucket.clone(), l.state.clone(), lag, known(l.versions), l.stuck.to_string()]
    };
    let head = ["RULE", "BUCKET", "STATE", "LAG", "NOT THERE", "STUCK"];
    let table = output::table(&head, cost.links.iter().map(row).collect());
    let steps: String = cost.steps.iter().zip(1..).map(|(step, n)| format!("{n}. {step}\n")).collect();
    format!("{verdict}\n\n{table}\n\nTo switch to {}:\n{steps}Nothing was changed.\n", cost.peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicator::report::PeerReport;

    fn report(links: Vec<LinkReport>) -> SiteReport {
        let peer = PeerReport { peer: "ams".into(), is_up: true, ..PeerReport::default() };
        SiteReport { peers: vec![peer], links, ..SiteReport::default() }
    }

    fn live(rule: &str, backlog: Option<u64>, lag: Option<f64>) -> LinkReport {
        LinkReport {
            rule: rule.into(),
            bucket: rule.into(),
            peer: "ams".into(),
            state: "live".into(),
            measured_at: 1,
            backlog_versions: backlog,
            backlog_bytes: backlog.map(|n| n * 10),
            lag_seconds: lag,
            ..LinkReport::default()
        }
    }

    #[test]
    fn what_is_not_at_the_peer_is_added_up_and_the_worst_lag_counts() {
        let canary = live("isthmus-drill-0123456789ab", Some(99), Some(99.0));
        let found = cost(&report(vec![live("a", Some(2), Some(0.5)), live("b", Some(0), Some(0.0)), canary]), "ams");
        let found = found.unwrap();
        assert_eq!((found.versions, found.bytes, found.rpo_seconds), (Some(2), Some(20), Some(0.5)));
        assert!(
            text(&found).starts_with("2 VERSIONS  (20B) are not at ams; the oldest waits since 0.5s"),
            "{}",
            text(&found)
        );
        assert!(found.steps.iter().any(|s| s.contains("isthmus verify b")), "{:?}", found.steps);
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        let standby = LinkReport { state: "standby".into(), ..live("b", Some(0), Some(0.0)) };
        let found = cost(&report(vec![live("a", Some(0), Some(0.0)), standby]), "ams").unwrap();
        assert_eq!((found.versions, found.rpo_seconds), (None, None));
        assert!(text(&found).starts_with("UNKNOWN"), "{}", text(&found));
    }

    #[test]
    fn a_peer_nothing_is_sent_to_cannot_take_over() {
        assert!(cost(&report(vec![]), "nyc").unwrap_err().contains("there are: ams"));
        assert!(cost(&report(vec![]), "ams").unwrap_err().contains("no rule"));
        let parked = LinkReport { parked_versions: 3, ..live("a", Some(3), Some(9.0)) };
        let steps = cost(&report(vec![parked]), "ams").unwrap().steps;
        assert!(steps[0].contains("3 versions do not go by themselves"), "{steps:?}");
    }
}
