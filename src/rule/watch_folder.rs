//! Rule sets out of a folder of YAML documents: the same documents, types and checks as at an API server.
//!
//! What does not parse keeps its last good form in force; an unreadable folder changes nothing; only a file that
//! is gone from a folder that could be listed takes its documents with it. The replicator starts [`watch`] and
//! reads the channel; nothing here knows links.
use super::judge::{Finding, Held, Kept, judge};
use super::refs::Refs;
use super::validate::{Draft, validate};
use super::{Problem, RuleSet};
use crate::document::{self, Node};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

/// Between two looks at the folder. A change is taken when two looks see the same: an editor may still write.
const POLL: Duration = Duration::from_millis(500);

/// The rules in force and what is wrong with the documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub rules: RuleSet,
    pub problems: Vec<Problem>,
    /// The documents in force, by `kind/namespace/name`: the journal keeps them over a restart.
    pub accepted: BTreeMap<String, Accepted>,
}

/// The last good form of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// Counts the changes of its spec.
    pub generation: u64,
    /// The document and where it stood, as JSON (`rule/judge.rs`).
    pub spec: String,
}

/// A folder as it was read last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    files: BTreeMap<PathBuf, File>,
    pub snapshot: Snapshot,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct File {
    text: String,
    documents: Vec<Held>,
    problems: Vec<Problem>,
}

/// Watches a folder until `token` is cancelled: sends the first set at once, then each that differs. `first` is
/// what was read before, or restored.
///
/// Never fails: what is wrong stands in the problems. Dropping the future leaves nothing behind.
pub async fn watch(dir: PathBuf, refs: Option<PathBuf>, first: Loaded, tx: Sender<Snapshot>, token: CancellationToken) {
    let refs = refs.map(|dir| Refs::new(&dir));
    let mut last: (Option<Look>, Loaded) = (None, first);
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (folder, refs, previous) = (dir.clone(), refs.clone(), std::mem::take(&mut last));
        // Files and CEL may take long on a slow drive or with many rules: never on the async threads.
        let looked = tokio::task::spawn_blocking(move || {
            let (look, loaded) = look_again(&folder, previous);
            let mut snapshot = loaded.snapshot.clone();
            snapshot.problems.extend(refs.iter().flat_map(|r| r.missing(&snapshot.rules)));
            (look, loaded, snapshot)
        });
        // It fails only when the runtime ends, or by a panic: then the receiver sees the channel closed.
        let Ok((look, loaded, snapshot)) = looked.await else { return };
        last = (Some(look), loaded);
        tx.send_if_modified(|shown| {
            let is_other = *shown != snapshot;
            if is_other {
                *shown = snapshot;
            }
            is_other
        });
    }
}

/// How the folder looked: at the last look, and when what is in force was read.
struct Look {
    seen: Stamps,
    in_force: Stamps,
}

/// Reads the folder again where it changed and then stood still for one look.
fn look_again(dir: &Path, (last, loaded): (Option<Look>, Loaded)) -> (Look, Loaded) {
    let seen = stamps(dir);
    match last {
        Some(last) if seen == last.in_force || seen != last.seen => (Look { seen, in_force: last.in_force }, loaded),
        _ => (Look { seen: seen.clone(), in_force: seen }, read(dir, Some(&loaded))),
    }
}

/// What changes whenever a file does: path, inode, length, time of change. `None`: the folder cannot be listed.
type Stamps = Option<BTreeMap<PathBuf, (u64, u64, i64, i64)>>;

fn stamps(dir: &Path) -> Stamps {
    let files = list(dir).ok()?;
    let stamp = |path: PathBuf| {
        let m = std::fs::metadata(&path).ok()?;
        Some((path, (m.ino(), m.len(), m.ctime(), m.ctime_nsec())))
    };
    Some(files.into_iter().filter_map(stamp).collect())
}

/// The files of a folder that are read: YAML, not hidden, none of the folders below.
///
/// # Errors
/// The folder cannot be listed.
pub fn list(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let is_yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        let is_hidden = path.file_name().is_none_or(|n| n.to_string_lossy().starts_with('.'));
        if is_yaml && !is_hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a folder. `previous` is what was in force: it stays where a file or the folder cannot be read.
pub fn read(dir: &Path, previous: Option<&Loaded>) -> Loaded {
    let paths = match list(dir) {
        Ok(paths) => paths,
        Err(e) => return unreadable(dir, &e, previous),
    };
    let mut files = BTreeMap::new();
    for path in paths {
        let last = previous.and_then(|p| p.files.get(&path));
        files.insert(path.clone(), read_file(&path, last, previous));
    }
    let drafts: Vec<Draft> = files.values().flat_map(|f| &f.documents).map(Held::draft).collect();
    let (rules, crossed) = validate(&drafts, previous.map(|p| &p.snapshot.rules));
    let mut problems: Vec<Problem> = files.values().flat_map(|f| f.problems.clone()).collect();
    problems.extend(crossed);
    let accepted = accepted(&files);
    Loaded { files, snapshot: Snapshot { rules, problems, accepted } }
}

/// Of two documents of one name the first by file counts, as in `rule/validate.rs`.
fn accepted(files: &BTreeMap<PathBuf, File>) -> BTreeMap<String, Accepted> {
    let mut all = BTreeMap::new();
    for (file, held) in files.iter().flat_map(|(path, f)| f.documents.iter().map(move |held| (path, held))) {
        let spec = Kept::of(file.clone(), held);
        all.entry(held.name()).or_insert(Accepted { generation: held.generation, spec });
    }
    all
}

fn unreadable(dir: &Path, e: &std::io::Error, previous: Option<&Loaded>) -> Loaded {
    let mut kept = previous.cloned().unwrap_or_default();
    let message = format!("cannot be listed ({e}); the rules read before stay in force");
    let name = dir.display().to_string();
    kept.snapshot.problems.retain(|p| p.reason != "FolderUnreadable");
    kept.snapshot.problems.push(Problem { document: name.clone(), place: name, reason: "FolderUnreadable", message });
    kept
}

fn read_file(path: &Path, last: Option<&File>, previous: Option<&Loaded>) -> File {
    let keep = |text: String, line: u64, reason: &'static str, message: String| {
        let kept = last.map(|f| f.documents.clone()).unwrap_or_default();
        let stays = if kept.is_empty() { "" } else { "; its last good documents stay in force" };
        let (document, place) = (path.display().to_string(), format!("{}:{line}", path.display()));
        let problem = Problem { document, place, reason, message: format!("{message}{stays}") };
        File { text, documents: kept, problems: vec![problem] }
    };
    let text = match read_text(path) {
        Ok(text) => text,
        Err(e) => return keep(String::new(), 1, "FileUnreadable", format!("cannot be read: {e}")),
    };
    if let Some(same) = last.filter(|f| f.text == text && !text.is_empty()) {
        return same.clone();
    }
    let nodes = match document::parse(&text) {
        Ok(nodes) => nodes,
        Err(e) => return keep(text, e.line, "NotYaml", e.message),
    };
    let mut file = File { text, ..File::default() };
    for node in &nodes {
        match read_document(node, path, previous) {
            Ok(held) => file.documents.push(held),
            Err(problems) => {
                file.documents.extend(previous.and_then(|p| p.held(node)).cloned());
                file.problems.extend(problems);
            }
        }
    }
    file
}

/// The text of a plain file of bounded length: a pipe would block, an endless file fill the memory.
///
/// # Errors
/// The file cannot be read, or is none of that.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() || meta.len() > document::TEXT_BYTES_MAX as u64 {
        let limit = document::TEXT_BYTES_MAX;
        return Err(std::io::Error::other(format!("it is no plain file of at most {limit} bytes")));
    }
    std::fs::read_to_string(path)
}

impl Loaded {
    /// What was in force before a restart, out of what the journal kept: (generation, spec) of each document. One
    /// that this version cannot read is left out, as if it had never been accepted.
    pub fn restore(kept: impl IntoIterator<Item = (u64, String)>) -> Loaded {
        let mut files: BTreeMap<PathBuf, File> = BTreeMap::new();
        for (generation, spec) in kept {
            let Some((file, held)) = Kept::restore(generation, &spec) else { continue };
            files.entry(file).or_default().documents.push(held);
        }
        let drafts: Vec<Draft> = files.values().flat_map(|f| &f.documents).map(Held::draft).collect();
        let (rules, problems) = validate(&drafts, None);
        let accepted = accepted(&files);
        Loaded { files, snapshot: Snapshot { rules, problems, accepted } }
    }

    /// The document in force of the same kind and name.
    fn held(&self, node: &Node) -> Option<&Held> {
        let (kind, name) = (node.text("kind")?, node.get("metadata")?.text("name")?);
        let mut all = self.files.values().flat_map(|f| &f.documents);
        all.find(|held| held.resource.kind() == kind && held.resource.name() == name)
    }
}

/// One document by itself; what is wrong with it has its file and line.
fn read_document(node: &Node, path: &Path, previous: Option<&Loaded>) -> Result<Held, Vec<Problem>> {
    let kind = node.text("kind").unwrap_or_default();
    let meta = |field: &str| node.get("metadata").and_then(|m| m.text(field));
    let document = match (kind, meta("name")) {
        ("", _) | (_, None) => path.display().to_string(),
        (kind, Some(name)) => format!("{kind}/{}/{name}", meta("namespace").unwrap_or(super::validate::NAMESPACE)),
    };
    let place = format!("{}:{}", path.display(), node.line);
    judge(node, place, previous.and_then(|p| p.held(node)), None).map_err(|findings| {
        let problem = |f: Finding| {
            let place = format!("{}:{} {}", path.display(), f.line, f.field).trim_end().to_string();
            Problem { document: document.clone(), place, reason: f.reason, message: f.message }
        };
        findings.into_iter().map(problem).collect()
    })
}

#[cfg(test)]
mod tests;
