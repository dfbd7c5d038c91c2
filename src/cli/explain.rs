//! `isthmus explain BUCKET/KEY`: where each version of an object is, and why not where it should be.
use super::output::{self, Format};
use super::socket::{self, Method};
use super::{Asking, exit};
use crate::replicator::told::{Explained, VersionPlaces};

/// What to explain.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    /// The object; with `?versionId=ID` behind it, that version alone, deleted for good or not.
    #[arg(value_name = "BUCKET/KEY")]
    object: String,
}

/// Asks and prints. Exit code: 0 every version is where it should be, 1 one is not, 2 it is not known, 64 there is no
/// such object here.
pub async fn run(args: &Args) -> u8 {
    let (object, version) = match args.object.rsplit_once("?versionId=") {
        Some((object, version)) => (object, Some(version)),
        None => (args.object.as_str(), None),
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
        Format::Json => output::json(&explained),
        Format::Table => {
            let rows = explained.versions.iter().flat_map(|version| rows(&explained.site, version)).collect();
            println!("{said}\n\n{}", output::table(&["VERSION", "ORIGIN", "BORN", "SITE", "STATE", "WHY"], rows));
        }
    }
    code
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
