//! `isthmus explain BUCKET/KEY`: where each version of an object is, and why not where it should be.
use super::output::{self, Format};
use super::socket::{self, Method};
use super::{Asking, exit};
use crate::replicator::report::verdict::why;
use crate::replicator::report::{LinkReport, PeerReport, SiteReport};
use crate::replicator::told::{Explained, VersionPlaces};

/// What to explain.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    /// The object; with `?versionId=ID` behind it, that version alone, deleted for good or not.
    #[arg(value_name = "BUCKET/KEY", required_unless_present = "peer")]
    object: Option<String>,
    /// Instead of an object: why this peer is behind.
    #[arg(long, value_name = "PEER", conflicts_with = "object")]
    peer: Option<String>,
}

/// Asks and prints. Exit code: 0 every version is where it should be, 1 one is not, 2 it is not known, 64 there is no
/// such object here.
pub async fn run(args: &Args) -> u8 {
    if let Some(peer) = &args.peer {
        return of_peer(args, peer).await.unwrap_or_else(|failed| failed.say());
    }
    let named = args.object.as_deref().unwrap_or_default();
    let (object, version) = match named.rsplit_once("?versionId=") {
        Some((object, version)) => (object, Some(version)),
        None => (named, None),
    };
    let Some((bucket, key)) = object.split_once('/') else {
        eprintln!("REFUSED  {object} is no BUCKET/KEY");
        return exit::USAGE;
    };
    let mut query = vec![("bucket", bucket), ("key", key)];
    query.extend(version.map(|version| ("version", version)));
    let path = socket::with_query("/explain", &query);
    let explained: Explained = match socket::ask(&args.asking.socket, Method::GET, &path).await {
        Ok(explained) => explained,
        Err(failed) => return failed.say(),
    };
    let (said, code) = verdict(&explained);
    match args.asking.output {
        format @ (Format::Json | Format::Yaml) => output::data(format, &explained),
        Format::Table | Format::Wide => {
            let rows = explained.versions.iter().flat_map(|version| rows(&explained.site, version)).collect();
            say!("{said}\n\n{}", output::table(&["VERSION", "ORIGIN", "BORN", "SITE", "STATE", "WHY"], rows));
            for problem in &explained.not_in_force {
                say!("\nNOT IN FORCE  {problem}");
            }
        }
    }
    code
}

async fn of_peer(args: &Args, name: &str) -> Result<u8, socket::Failed> {
    let mut report: SiteReport = socket::ask(&args.asking.socket, Method::GET, "/status").await?;
    let Some(peer) = report.peers.iter().find(|p| p.peer == name).cloned() else {
        let known: Vec<_> = report.peers.iter().map(|p| p.peer.as_str()).collect();
        return Err(socket::Failed::Refused(format!("no peer {name}; there are: {}", known.join(", "))));
    };
    report.links.retain(|l| l.peer == name && l.state != "standby");
    let (said, code) = peer_verdict(&peer, &report.links);
    match args.asking.output {
        format @ (Format::Json | Format::Yaml) => output::data(format, &(peer, report.links)),
        Format::Table | Format::Wide => {
            let row = |l: &LinkReport| {
                let names = [l.rule.clone(), l.bucket.clone(), l.state.clone()];
                [names.to_vec(), vec![output::lag(l), output::backlog(l), why(l)]].concat()
            };
            let head = ["RULE", "BUCKET", "STATE", "LAG", "BACKLOG", "WHY"];
            say!("{said}\n\n{}", output::table(&head, report.links.iter().map(row).collect()));
        }
    }
    Ok(code)
}

fn peer_verdict(peer: &PeerReport, links: &[LinkReport]) -> (String, u8) {
    let name = &peer.peer;
    if !peer.is_up {
        let why = peer.last_error.as_deref().unwrap_or("dialling");
        return (format!("UNREACHABLE  {name} at {}: {why}. Changes wait and go by themselves", peer.endpoint), 1);
    }
    if links.iter().any(|l| l.backlog_versions.is_none()) {
        return (format!("UNKNOWN  what waits for {name} cannot be counted now"), exit::UNKNOWN);
    }
    let waiting: u64 = links.iter().filter_map(|l| l.backlog_versions).sum();
    match links.iter().filter(|l| l.is_held() || l.parked_versions > 0).count() {
        0 if waiting == 0 => (format!("CURRENT  {name} has everything"), exit::OK),
        0 => (format!("BEHIND  {waiting} versions are on their way to {name}"), exit::DEGRADED),
        n => (format!("HELD  {n} of {} links to {name} need a person, {waiting} versions wait", links.len()), 1),
    }
}

fn verdict(explained: &Explained) -> (String, u8) {
    let places = || explained.versions.iter().flat_map(|version| &version.places);
    let count = |states: &[&str]| places().filter(|place| states.contains(&place.state.as_str())).count();
    let (unknown, fine) = (count(&["unknown"]), count(&["there", "not_in_scope"]));
    let object = output::object(&explained.bucket, &explained.key);
    match places().count() - fine - unknown {
        0 if unknown == 0 => (format!("THERE  {object} is at every peer that is to have it"), exit::OK),
        0 => (format!("UNKNOWN  {unknown} answers about {object} are missing"), exit::UNKNOWN),
        n => (format!("PENDING  {object}: {n} times a version is not yet where it is to be"), exit::DEGRADED),
    }
}

fn rows(site: &str, version: &VersionPlaces) -> Vec<Vec<String>> {
    let kind = match (version.is_purged, version.is_delete_marker) {
        (true, _) => "deleted for good",
        (_, true) => "delete marker",
        _ => "here",
    };
    let born = version.born_millis.map_or("-".into(), output::utc);
    let origin = version.origin.clone().unwrap_or("-".into());
    let here = vec![version.version_id.clone(), origin, born, site.into(), kind.into(), "-".into()];
    let place = |p: &crate::replicator::told::Place| {
        let why = if p.why.is_empty() { "-".into() } else { p.why.clone() };
        vec![String::new(), String::new(), String::new(), p.peer.clone(), p.state.clone(), why]
    };
    std::iter::once(here).chain(version.places.iter().map(place)).collect()
}
