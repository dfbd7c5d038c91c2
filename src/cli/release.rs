//! `isthmus release`: what the mass-delete brake of a rule holds back goes.
use super::output::{self, Format};
use super::socket::{self, Method};
use super::{Asking, exit};
use crate::replicator::told::ReleaseReport;

/// Which rule.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    /// Name of the ReplicationRule.
    #[arg(value_name = "RULE")]
    rule: String,
}

/// Tells and prints. Exit code: 0 done (or nothing was held), 2 could not be done, 64 no such rule.
pub async fn run(args: &Args) -> u8 {
    let path = socket::with_query("/release", &[("rule", &args.rule)]);
    let report: ReleaseReport = match socket::ask(&args.asking.socket, Method::POST, &path).await {
        Ok(report) => report,
        Err(failed) => return failed.say(),
    };
    match (args.asking.output, report.deletes) {
        (format @ (Format::Json | Format::Yaml), _) => output::data(format, &report),
        (_, 0) => say!("NONE  the brake of {} holds nothing back", args.rule),
        (_, n) => say!("RELEASED  {n} deletes go now. Next: isthmus backlog"),
    }
    exit::OK
}
