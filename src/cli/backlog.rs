//! `isthmus backlog`: what is not at the peers yet, by link; or the versions that failed, with the reason.
use super::output::{self, Format};
use super::socket::{self, Method};
use super::watch::Watch;
use super::{Asking, exit};
use crate::replicator::report::{LinkReport, SiteReport};
use crate::replicator::told::{DeleteReport, RowReport};

/// What to show.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    /// The versions that wait for a person, with the reason.
    #[arg(long)]
    parked: bool,
    /// The versions that failed and go again by themselves, too.
    #[arg(long)]
    failed: bool,
    /// The deletes a brake holds back; they go with isthmus release.
    #[arg(long, conflicts_with_all = ["parked", "failed"])]
    deletes: bool,
    /// At most so many versions of each link.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    pub watch: Watch,
}

/// Asks and prints. Exit code: 0 nothing waits, 1 something does, 2 could not find out.
pub async fn run(args: &Args) -> u8 {
    let shown = match args {
        Args { deletes: true, .. } => deletes(args).await,
        Args { parked: true, .. } | Args { failed: true, .. } => rows(args).await,
        _ => links(args).await,
    };
    shown.unwrap_or_else(|failed| failed.say())
}

async fn links(args: &Args) -> Result<u8, socket::Failed> {
    let report: SiteReport = socket::ask(&args.asking.socket, Method::GET, "/status").await?;
    let links: Vec<_> = report.links.into_iter().filter(|l| l.state != "standby").collect();
    let (said, code) = verdict(&links);
    match args.asking.output {
        format @ (Format::Json | Format::Yaml) => output::data(format, &links),
        Format::Table | Format::Wide => {
            let row = |l: &LinkReport| {
                let existing = l.existing_versions.map_or("unknown".into(), |n| n.to_string());
                let numbers = [l.retry_versions, l.parked_versions, l.braked_versions].map(|n| n.to_string());
                let names = [l.rule.clone(), l.bucket.clone(), l.peer.clone(), l.state.clone()];
                [names.to_vec(), vec![output::backlog(l), existing], numbers.to_vec()].concat()
            };
            let head = ["RULE", "BUCKET", "PEER", "STATE", "BACKLOG", "EXISTING", "RETRY", "PARKED", "BRAKED"];
            say!("{said}\n\n{}", output::table(&head, links.iter().map(row).collect()));
        }
    }
    Ok(code)
}

fn verdict(links: &[LinkReport]) -> (String, u8) {
    if let Some(link) = links.iter().find(|l| l.backlog_versions.is_none()) {
        let said = format!("UNKNOWN  the backlog of {} to {} is not known. Next: isthmus status", link.rule, link.peer);
        return (said, exit::UNKNOWN);
    }
    let versions: u64 = links.iter().filter_map(|l| l.backlog_versions).sum();
    let bytes = links.iter().filter_map(|l| l.backlog_bytes).sum();
    let parked: u64 = links.iter().map(|l| l.parked_versions).sum();
    match (versions, parked) {
        (0, 0) => (format!("EMPTY  nothing waits on {} links", links.len()), exit::OK),
        (_, 0) => (format!("WAITING  {versions} versions, {}", output::bytes(bytes)), exit::DEGRADED),
        _ => {
            let next = "Next: isthmus backlog --parked, mend the cause, isthmus retry";
            let said = format!("WAITING  {versions} versions, {}, {parked} parked. {next}", output::bytes(bytes));
            (said, exit::DEGRADED)
        }
    }
}

async fn deletes(args: &Args) -> Result<u8, socket::Failed> {
    let path = socket::with_query("/deletes", &[("limit", &args.limit.to_string())]);
    let held: Vec<DeleteReport> = socket::ask(&args.asking.socket, Method::GET, &path).await?;
    if args.asking.output.is_data() {
        output::data(args.asking.output, &held);
    } else {
        match held.len() {
            0 => say!("EMPTY  no brake holds anything back"),
            n => {
                say!("HELD  {n} deletes shown. Next: restore what was deleted by mistake, or isthmus release RULE")
            }
        }
        let row = |d: &DeleteReport| {
            let what = if d.is_permanent { "deleted for good" } else { "delete marker" };
            let names = [d.rule.clone(), d.peer.clone(), output::object(&d.bucket, &d.key), d.version_id.clone()];
            [names.to_vec(), vec![what.into(), output::utc(d.pending_since)]].concat()
        };
        let head = ["RULE", "PEER", "OBJECT", "VERSION", "WHAT", "SINCE"];
        say!("\n{}", output::table(&head, held.iter().map(row).collect()));
    }
    Ok(if held.is_empty() { exit::OK } else { exit::DEGRADED })
}

async fn rows(args: &Args) -> Result<u8, socket::Failed> {
    let path = socket::with_query("/rows", &[("limit", &args.limit.to_string())]);
    let mut rows: Vec<RowReport> = socket::ask(&args.asking.socket, Method::GET, &path).await?;
    rows.retain(|row| args.failed || row.is_parked);
    if args.asking.output.is_data() {
        output::data(args.asking.output, &rows);
    } else {
        let parked = rows.iter().filter(|row| row.is_parked).count();
        match (rows.len(), parked) {
            (0, _) => say!("EMPTY  none"),
            (all, 0) => say!("WAITING  {all} versions failed and go again by themselves"),
            (all, _) => say!("PARKED  {parked} of {all} versions. Next: mend the cause, then isthmus retry RULE"),
        }
        let head = ["RULE", "PEER", "OBJECT", "VERSION", "SINCE", "ATTEMPTS", "NEXT", "REASON"];
        say!("\n{}", output::table(&head, rows.iter().map(row).collect()));
    }
    Ok(if rows.is_empty() { exit::OK } else { exit::DEGRADED })
}

fn row(row: &RowReport) -> Vec<String> {
    vec![
        row.rule.clone(),
        row.peer.clone(),
        output::object(&row.bucket, &row.key),
        row.version_id.clone(),
        output::utc(row.pending_since),
        row.attempts.to_string(),
        row.next_attempt.map_or("parked".into(), output::utc),
        row.reason.clone(),
    ]
}
