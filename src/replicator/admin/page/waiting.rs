//! The lists of the page: versions that wait for a person, and conflicts, each with the command that goes on. What this
//! process cannot know is said. Keys are users' words: they are escaped, cut, and quoted where they stand in a command.
use super::markup::{ROWS_MAX, Table, code, cut, escaped};
use super::reader::Reader;
use crate::journal::{CONFLICTS_MAX, Conflict};
use crate::replicator::Replicator;
use crate::replicator::report::SiteReport;
use crate::replicator::told::RowReport;
use crate::words;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::timeout;

/// How long the page waits for links and journal; both answer at once while nothing is wrong.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);
/// Most bytes of either list.
const BYTES_MAX: usize = 12_000;
/// Characters of a key, or of a reason, that are shown.
pub(super) const CHARS_MAX: usize = 120;

/// What was found; `None`: it was not told in time.
#[derive(Default)]
pub(super) struct Waiting {
    /// The newest parked versions of links this process pushes.
    pub(super) parked: Option<Vec<RowReport>>,
    /// All conflicts that are kept, the newest first.
    pub(super) conflicts: Option<Vec<Conflict>>,
}

impl Waiting {
    /// Asks links and journal.
    pub(super) async fn look(replicator: &Replicator, report: &SiteReport) -> Self {
        let is_any = report.links.iter().any(|l| l.parked_versions > 0);
        let parked = async { if is_any { replicator.parked(ROWS_MAX).await } else { Vec::new() } };
        let conflicts = replicator.conflict_pairs(CONFLICTS_MAX);
        let (parked, conflicts) = tokio::join!(timeout(KNOWN_WITHIN, parked), timeout(KNOWN_WITHIN, conflicts));
        Waiting { parked: parked.ok(), conflicts: conflicts.ok().and_then(Result::ok) }
    }

    /// Versions that do not go by themselves.
    pub(super) fn parked(&self, report: &SiteReport, reader: Reader) -> String {
        let all: u64 = report.links.iter().map(|l| l.parked_versions).sum();
        let list = match &self.parked {
            None => "<p>Not known: the links did not answer within 1 s.</p>".into(),
            Some(rows) if rows.is_empty() && all == 0 => "<p>None.</p>".into(),
            Some(rows) => {
                let reason: &[&str] = if reader == Reader::Trusted { &["Reason"] } else { &[] };
                let head = [&["Rule", "Peer", object_head(reader), "Version", "Since"], reason, &["Command"]].concat();
                let verb = "isthmus backlog --parked";
                let table =
                    Table { what: "Parked versions, the newest first", head: &head, bytes_max: BYTES_MAX, all, verb };
                table.with(rows.iter().map(|row| parked_row(row, reader))) + kept_back(reader)
            }
        };
        list + &elsewhere(report)
    }

    /// Pairs of versions born without knowing of each other.
    pub(super) fn conflicts(&self, report: &SiteReport, reader: Reader) -> String {
        let Some(pairs) = &self.conflicts else {
            return "<p>Not known: the journal did not answer within 1 s.</p>".into();
        };
        if pairs.is_empty() {
            return "<p>None was seen.</p>".into();
        }
        let table = Table {
            what: "Conflicts, the newest first",
            head: &[object_head(reader), "Reads as newer", "Kept below", "Seen", "Command"],
            bytes_max: BYTES_MAX,
            all: pairs.len() as u64,
            verb: "isthmus conflicts --limit 1000",
        };
        let list = table.with(pairs.iter().map(|pair| conflict_row(pair, reader)));
        let since = report.conflicts;
        format!(
            "<p>Both versions of each are kept; nothing has to be done. Since the process began: {since}.</p>{list}{}",
            kept_back(reader)
        )
    }
}

fn object_head(reader: Reader) -> &'static str {
    if reader == Reader::Trusted { "Object" } else { "Bucket" }
}

fn object(bucket: &str, key: &str, reader: Reader) -> String {
    match reader {
        Reader::Trusted => cut(&words::object(bucket, key), CHARS_MAX),
        Reader::Anybody => escaped(bucket),
    }
}

fn kept_back(reader: Reader) -> &'static str {
    match reader {
        Reader::Trusted => "",
        Reader::Anybody => {
            "<p>Keys and reasons are not shown on a port that is open: \
             set <code>page_token_file</code>, or ask by the command.</p>"
        }
    }
}

fn parked_row(row: &RowReport, reader: Reader) -> Vec<String> {
    let command = format!("isthmus retry {} --version {}", row.rule, row.version_id);
    let names = [escaped(&row.rule), escaped(&row.peer), object(&row.bucket, &row.key, reader)];
    let reason = (reader == Reader::Trusted).then(|| cut(&row.reason, CHARS_MAX));
    let facts = [escaped(&row.version_id), words::utc(row.pending_since)].into_iter().chain(reason);
    names.into_iter().chain(facts).chain([code(&command)]).collect()
}

fn conflict_row(pair: &Conflict, reader: Reader) -> Vec<String> {
    let named = format!("{}/{}", pair.bucket, pair.key);
    // A key that is not shown whole, or that no shell line can hold, is not to be copied from here.
    let is_whole = named.chars().count() <= CHARS_MAX && !named.chars().any(char::is_control);
    let command = match reader == Reader::Trusted && is_whole {
        true => format!("isthmus explain {}", quoted(&named)),
        false => "isthmus conflicts".into(),
    };
    let object = object(&pair.bucket, &pair.key, reader);
    vec![object, escaped(&pair.later), escaped(&pair.earlier), words::utc(pair.seen_millis), code(&command)]
}

/// One word of a shell's line, whatever it holds.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Links whose parked versions another process knows.
fn elsewhere(report: &SiteReport) -> String {
    let standby = || report.links.iter().filter(|l| l.state == "standby");
    let owners: BTreeSet<&str> = standby().filter_map(|l| l.owner.as_deref()).collect();
    let owners: Vec<_> = owners.into_iter().take(ROWS_MAX / 10).map(|owner| cut(owner, CHARS_MAX)).collect();
    let who = if owners.is_empty() { String::new() } else { format!(" ({})", owners.join(", ")) };
    match standby().count() {
        0 => String::new(),
        links => format!(
            "<p>Not known here: parked versions of {links} links that another replicator pushes{who}; its page has them.</p>"
        ),
    }
}
