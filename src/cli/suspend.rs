//! `isthmus suspend` and `isthmus resume`: a rule, a peer, or a rule to one peer.
use super::output::{self, Format};
use super::socket::{self, Method};
use super::{Asking, exit};
use crate::replicator::report::LinkReport;

/// What is suspended or resumed.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    /// Name of the ReplicationRule.
    #[arg(long, value_name = "RULE", required_unless_present = "peer")]
    rule: Option<String>,
    /// Name of the Peer; with a rule: only that rule's link to it.
    #[arg(long, value_name = "PEER")]
    peer: Option<String>,
}

/// Stops sending; changes wait in the store's feed. Exit code: 0 done, 2 could not be done, 64 no such rule or peer.
pub async fn suspend(args: &Args) -> u8 {
    let links = match ask(args, "/suspend").await {
        Ok(links) => links,
        Err(failed) => return failed.say(),
    };
    let named = [("--rule", &args.rule), ("--peer", &args.peer)];
    let named: String =
        named.into_iter().filter_map(|(flag, name)| Some(format!(" {flag} {}", name.as_ref()?))).collect();
    let said = format!("SUSPENDED  {}, kept over restarts. Next: isthmus resume{named}", count(links.len()));
    print(args.asking.output, &said, &links);
    exit::OK
}

/// Goes on. Exit code: 0 done, 1 something else holds a link back still, 2 could not be done, 64 no such rule or peer.
pub async fn resume(args: &Args) -> u8 {
    let links = match ask(args, "/resume").await {
        Ok(links) => links,
        Err(failed) => return failed.say(),
    };
    let held = links.iter().filter(|l| l.suspended.is_some()).count();
    let said = match held {
        0 => format!("RESUMED  {}", count(links.len())),
        _ => format!("HELD  {held} of {} still suspended: see BY, and end it there", count(links.len())),
    };
    print(args.asking.output, &said, &links);
    if held == 0 { exit::OK } else { exit::DEGRADED }
}

async fn ask(args: &Args, path: &str) -> Result<Vec<LinkReport>, socket::Failed> {
    let names = [("rule", &args.rule), ("peer", &args.peer)];
    let query: Vec<(&str, &str)> = names.iter().filter_map(|(n, v)| Some((*n, v.as_deref()?))).collect();
    socket::ask(&args.asking.socket, Method::POST, &socket::with_query(path, &query)).await
}

fn count(links: usize) -> String {
    if links == 1 { "1 link".into() } else { format!("{links} links") }
}

fn print(format: Format, said: &str, links: &[LinkReport]) {
    if format.is_data() {
        return output::data(format, &links);
    }
    let rows = links.iter().map(|l| {
        let (by, since) = match &l.suspended {
            Some(held) => (held.by.clone(), held.since.map_or("-".into(), output::utc)),
            None => ("-".into(), "-".into()),
        };
        vec![l.rule.clone(), l.bucket.clone(), l.peer.clone(), output::lag(l), output::backlog(l), by, since]
    });
    let head = ["RULE", "BUCKET", "PEER", "LAG", "BACKLOG", "BY", "SINCE"];
    say!("{said}\n\n{}", output::table(&head, rows.collect()));
}
