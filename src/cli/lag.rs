//! `isthmus lag`: how far behind each link is, worst first, held against what its rule promises.
use super::output::{self, Format};
use super::socket::{self, Method};
use super::watch::Watch;
use super::{Asking, exit};
use crate::replicator::report::{LinkReport, SiteReport};

/// Whom to ask.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    pub asking: Asking,
    #[command(flatten)]
    pub watch: Watch,
}

/// Asks and prints. Exit code: 0 every link within its objective, 1 one is behind, 2 a lag is not known.
pub async fn run(asking: &Asking) -> u8 {
    let report: SiteReport = match socket::ask(&asking.socket, Method::GET, "/status").await {
        Ok(report) => report,
        Err(failed) => return failed.say(),
    };
    let mut links: Vec<_> = report.links.into_iter().filter(|l| l.state != "standby").collect();
    links.sort_by(|a, b| b.by_lag(a));
    let (said, code) = verdict(&links);
    match asking.output {
        format @ (Format::Json | Format::Yaml) => output::data(format, &links),
        Format::Table | Format::Wide => {
            let head = ["RULE", "BUCKET", "PEER", "STATE", "LAG", "OBJECTIVE", "OLDEST", "BACKLOG"];
            say!("{said}\n\n{}", output::table(&head, links.iter().map(row).collect()));
        }
    }
    code
}

fn verdict(links: &[LinkReport]) -> (String, u8) {
    let name = |l: &LinkReport| format!("{} to {}", l.rule, l.peer);
    if let Some(link) = links.iter().find(|l| l.lag_seconds.is_none()) {
        let said = format!("UNKNOWN  the lag of {} is not known. Next: isthmus status", name(link));
        return (said, exit::UNKNOWN);
    }
    let behind = links.iter().filter(|l| l.is_late()).count();
    match links.first() {
        None => ("CURRENT  no links".into(), exit::OK),
        Some(worst) if behind > 0 => {
            let (lag, all) = (output::lag(worst), links.len());
            (format!("BEHIND  {behind} of {all} links, the worst {lag}: {}. Next: isthmus backlog", name(worst)), 1)
        }
        Some(worst) => (format!("CURRENT  {} links, the worst {}", links.len(), output::lag(worst)), exit::OK),
    }
}

fn row(link: &LinkReport) -> Vec<String> {
    let promised = if link.rpo_seconds.is_some() { "" } else { " (default)" };
    vec![
        link.rule.clone(),
        link.bucket.clone(),
        link.peer.clone(),
        link.state.clone(),
        output::lag(link),
        format!("{}{promised}", output::seconds(link.objective_seconds())),
        link.oldest_pending.map_or("-".into(), output::utc),
        output::backlog(link),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(lag_seconds: Option<f64>, rpo_seconds: Option<f64>) -> LinkReport {
        LinkReport { rule: "r".into(), peer: "p".into(), lag_seconds, rpo_seconds, ..LinkReport::default() }
    }

    #[test]
    fn a_link_is_behind_by_its_own_objective_and_an_unknown_lag_is_not_current() {
        assert_eq!(verdict(&[link(Some(30.0), None)]).1, exit::OK);
        assert_eq!(verdict(&[link(Some(30.0), Some(10.0)), link(Some(1.0), None)]).1, exit::DEGRADED);
        assert_eq!(verdict(&[link(Some(61.0), None)]).1, exit::DEGRADED);
        assert_eq!(verdict(&[link(None, None), link(Some(61.0), None)]).1, exit::UNKNOWN);
    }
}
