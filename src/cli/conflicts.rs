//! `isthmus conflicts`: versions born without knowing each other; both are kept, and here is which reads as newer.
use super::output;
use super::socket::{self, Method};
use super::{Asking, exit};
use crate::replicator::told::{ConflictReport, VersionMark};

/// What to show.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    /// At most so many, the newest first; a site keeps its last 1,000.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

/// Asks and prints. Exit code: 0 (a conflict asks nothing of anybody), 2 could not find out.
pub async fn run(args: &Args) -> u8 {
    let path = socket::with_query("/conflicts", &[("limit", &args.limit.to_string())]);
    let pairs: Vec<ConflictReport> = match socket::ask(&args.asking.socket, Method::GET, &path).await {
        Ok(pairs) => pairs,
        Err(failed) => return failed.say(),
    };
    if args.asking.output.is_data() {
        output::data(args.asking.output, &pairs);
        return exit::OK;
    }
    match pairs.len() {
        0 => say!("NONE  no conflicts seen"),
        n => say!("CONFLICTS  {n} shown, the newest first; both versions of each are kept. Nothing to do."),
    }
    let row = |c: &ConflictReport| {
        let seen = output::utc(c.seen_millis);
        vec![output::object(&c.bucket, &c.key), mark(&c.later), mark(&c.earlier), why(c).into(), seen]
    };
    let head = ["OBJECT", "READS AS NEWER", "KEPT BELOW", "WHY", "SEEN"];
    say!("\n{}", output::table(&head, pairs.iter().map(row).collect()));
    exit::OK
}

fn mark(version: &VersionMark) -> String {
    let gone = if version.is_purged == Some(true) { " (deleted since)" } else { "" };
    match &version.origin {
        Some(origin) => format!("{} of {origin}{gone}", version.version_id),
        None => format!("{}{gone}", version.version_id),
    }
}

/// The order of versions is (clock, origin, version id).
fn why(pair: &ConflictReport) -> &'static str {
    match (pair.later.born_millis, pair.earlier.born_millis) {
        (Some(later), Some(earlier)) if later > earlier => "later clock",
        (Some(_), Some(_)) => "same millisecond: counter, site, id",
        _ => "not held any more",
    }
}
