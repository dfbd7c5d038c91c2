//! `isthmus verify RULE [--repair [--existing]]`: starts a comparison in a running process, shows how far it is, and
//! prints its verdict.
use super::output::{self, Format};
use super::socket::{self, Failed, Method};
use super::{Asking, exit};
use crate::replicator::verify::{LinkVerify, VerifyReport};
use std::time::Duration;

/// How often a running comparison is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// What to compare.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name of the rule.
    rule: String,
    /// Send again what a peer lacks or holds in another state.
    #[arg(long)]
    repair: bool,
    /// Look too at what the rule leaves where it is, and send it: what was there before the rule, or in a bucket that was
    /// deleted and made again.
    #[arg(long, requires = "repair")]
    existing: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Compares and prints. Exit code: 0 equal or repaired, 1 different or behind, 2 could not find out.
pub async fn run(args: &Args) -> u8 {
    let report = match compared(args).await {
        Ok(report) => report,
        Err(failed) => return failed.say(),
    };
    match args.asking.output {
        format @ (Format::Json | Format::Yaml) => output::data(format, &report),
        Format::Table | Format::Wide => say_all!(text(&report)),
    }
    code(&report)
}

async fn compared(args: &Args) -> Result<VerifyReport, Failed> {
    let socket = &args.asking.socket;
    let (repair, existing) = (args.repair.to_string(), args.existing.to_string());
    let start = socket::with_query("/verify", &[("rule", &args.rule), ("repair", &repair), ("existing", &existing)]);
    let look = socket::with_query("/verify", &[("rule", &args.rule)]);
    let mut report: VerifyReport = socket::ask(socket, Method::POST, &start).await?;
    if (report.repair, report.existing) != (args.repair, args.existing) {
        let how = match (report.repair, report.existing) {
            (false, _) => "without --repair",
            (true, false) => "with --repair alone",
            (true, true) => "with --repair --existing",
        };
        let why = format!("a comparison of {} {how} is running; wait for its end", args.rule);
        return Err(Failed::Refused(why));
    }
    let mut said = tokio::time::Instant::now();
    while report.is_running() {
        tokio::time::sleep(LOOK).await;
        report = socket::ask(socket, Method::GET, &look).await?;
        if said.elapsed() >= PROGRESS {
            said = tokio::time::Instant::now();
            for link in report.links.iter().filter(|link| link.verdict == "running") {
                let (versions, found) = (link.versions, link.differences());
                eprintln!("{}: {versions} versions compared, {found} differences so far", link.peer);
            }
        }
    }
    Ok(report)
}

fn code(report: &VerifyReport) -> u8 {
    let has = |verdicts: &[&str]| report.links.iter().any(|link| verdicts.contains(&link.verdict.as_str()));
    if has(&["unknown"]) {
        exit::UNKNOWN
    } else if has(&["different", "behind"]) {
        exit::DEGRADED
    } else {
        exit::OK
    }
}

/// The report for people, verdict first.
pub fn text(report: &VerifyReport) -> String {
    report.links.iter().map(|link| of_link(report, link)).collect()
}

fn of_link(report: &VerifyReport, link: &LinkVerify) -> String {
    let place = format!("{} to {}", link.bucket, link.peer);
    let cost = format!(
        "{} versions compared by {} digests and lists in {}, {} on the wire",
        link.versions,
        link.questions,
        output::seconds(link.seconds),
        output::bytes(link.wire_bytes)
    );
    let verdict = link.verdict.to_uppercase();
    let mut out = match (&link.error, link.verdict.as_str()) {
        (Some(error), _) => format!("{verdict}  {place}: {error}\n{cost}\n"),
        (None, "equal") => format!("{verdict}  {place}: {cost}\n"),
        (None, "behind") => format!("{verdict}  {place}: {} versions are under way. {cost}\n", link.pending),
        (None, "repaired") => format!("{verdict}  {place}: {} versions sent again. {cost}\n", link.repaired),
        (None, _) => {
            let next = format!(" Next: isthmus verify {} --repair", report.rule);
            let next = if report.repair || link.held.is_some() { "" } else { next.as_str() };
            format!("{verdict}  {place}: {} versions.{next}\n{cost}\n", link.differences())
        }
    };
    if let Some(held) = &link.held {
        out += &format!("nothing is sent on this link: {held}\n");
    }
    if link.differences() + link.repaired + link.covered + link.pending > 0 {
        out += &format!(
            "missing there {}  unlike {}  missing here {}  under way {}  repaired {}  held there already {}\n",
            link.missing_there, link.unlike, link.missing_here, link.pending, link.repaired, link.covered
        );
    }
    for sample in &link.samples {
        let reason = sample.reason.as_ref().map_or(String::new(), |reason| format!("  {reason}"));
        out += &format!("{}  {}  {}{reason}\n", sample.kind.replace('_', " "), sample.key, sample.version_id);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: &[&str]) -> VerifyReport {
        let link = |verdict: &&str| LinkVerify { verdict: verdict.to_string(), ..LinkVerify::default() };
        VerifyReport { rule: "r".into(), repair: false, existing: false, links: verdicts.iter().map(link).collect() }
    }

    #[test]
    fn the_worst_link_makes_the_exit_code() {
        assert_eq!(code(&report(&["equal", "repaired"])), exit::OK);
        assert_eq!(code(&report(&["equal", "behind"])), exit::DEGRADED);
        assert_eq!(code(&report(&["different", "equal"])), exit::DEGRADED);
        assert_eq!(code(&report(&["different", "unknown"])), exit::UNKNOWN);
    }

    #[test]
    fn the_verdict_comes_first_and_says_what_to_do() {
        assert!(text(&report(&["different"])).starts_with("DIFFERENT  "));
        assert!(text(&report(&["different"])).contains("isthmus verify r --repair"));
    }
}
