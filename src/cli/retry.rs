//! `isthmus retry`: versions that failed go again now, parked ones too.
use super::output::{self, Format};
use super::socket::{self, Method};
use super::{Asking, exit};
use crate::replicator::told::RetryReport;

/// Which versions.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    /// Name of the ReplicationRule.
    #[arg(value_name = "RULE", required_unless_present = "all")]
    rule: Option<String>,
    /// Those of every rule.
    #[arg(long, conflicts_with = "rule")]
    all: bool,
    /// Only this object.
    #[arg(long)]
    key: Option<String>,
    /// Only this version.
    #[arg(long, value_name = "VERSION ID")]
    version: Option<String>,
    /// Only those that do not go by themselves.
    #[arg(long)]
    parked: bool,
}

/// Tells and prints. Exit code: 0 they go (or none had failed), 1 the named version has not failed, 2 could not be
/// done, 64 no such rule.
pub async fn run(args: &Args) -> u8 {
    let named = [("rule", &args.rule), ("key", &args.key), ("version", &args.version)];
    let mut query: Vec<(&str, &str)> = named.iter().filter_map(|(n, v)| Some((*n, v.as_deref()?))).collect();
    if args.parked {
        query.push(("parked", "true"));
    }
    let path = socket::with_query("/retry", &query);
    let report: RetryReport = match socket::ask(&args.asking.socket, Method::POST, &path).await {
        Ok(report) => report,
        Err(failed) => return failed.say(),
    };
    match (args.asking.output, report.versions) {
        (format @ (Format::Json | Format::Yaml), _) => output::data(format, &report),
        (_, 0) => say!("NONE  no version that failed is meant. Next: isthmus backlog --failed"),
        (_, n) => say!("RETRY  {n} go again now. Next: isthmus backlog --failed"),
    }
    let is_in_vain = report.versions == 0 && (args.key.is_some() || args.version.is_some());
    if is_in_vain { exit::DEGRADED } else { exit::OK }
}
