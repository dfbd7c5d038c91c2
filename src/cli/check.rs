//! `isthmus check`: what a process would say of documents and of a configuration, before anything is applied. Reads files and
//! prints; nothing is started, dialled or written. What is right is `rule/check.rs`'s and `config`'s to say.
use super::exit;
use super::output::{self, Format};
use crate::config::{self, Looked, Role};
use crate::document::TEXT_BYTES_MAX;
use crate::replicator::line;
use crate::rule::SiteDoc;
use crate::rule::check::{Checked, Found, Taker, Text, check};
use crate::rule::refs::{IS_MISSING, Refs};
use crate::rule::watch_folder::{list, read_text};
use clap::ValueEnum;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use storage_engine::identity::{Files, Identity};
use storage_engine::node;

/// What to look at.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// YAML files, folders of them (read as rules_dir is: not those below), or - for standard input; all documents of one site.
    #[arg(value_name = "PATH", required_unless_present = "config")]
    paths: Vec<PathBuf>,
    /// Configuration file of a role; with it come the documents of its rules_dir.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The role it is for; left out, its keys tell.
    #[arg(long, value_enum, requires = "config")]
    role: Option<RoleArg>,
    /// Look for no file that the configuration names (keys, certificates, refs_dir): they are on another machine.
    #[arg(long, requires = "config")]
    without_files: bool,
    /// Namespace of documents that name none, as `kubectl --namespace` has it.
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Roles with a configuration.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArg {
    Site,
    Store,
    Replicator,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::Site => Role::Site,
            RoleArg::Store => Role::Store,
            RoleArg::Replicator => Role::Replicator,
        }
    }
}

/// What was looked at, and what was found.
#[derive(Debug, Serialize)]
struct Report {
    /// VALID, INVALID or UNKNOWN.
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Configuration>,
    /// Links that would run.
    links: usize,
    #[serde(flatten)]
    checked: Checked,
}

#[derive(Debug, Serialize)]
struct Configuration {
    file: String,
    role: &'static str,
    /// Its documents come from an API server, which is not asked.
    watches_api_server: bool,
}

/// What could not be looked at.
const UNREADABLE: [&str; 2] = ["FileUnreadable", "FolderUnreadable"];

/// Looks and prints. Exit code: 0 all would be in force as it is written, 1 something would not, 2 something could not be read,
/// 64 options that exclude each other.
pub async fn run(args: &Args) -> u8 {
    match look(args).await {
        Ok(report) => {
            match args.output {
                format @ (Format::Json | Format::Yaml) => output::data(format, &report),
                format => report.print(format),
            }
            match report.verdict {
                "VALID" => exit::OK,
                "INVALID" => exit::DEGRADED,
                _ => exit::UNKNOWN,
            }
        }
        Err(why) => {
            eprintln!("isthmus check: {why}");
            exit::USAGE
        }
    }
}

/// What there is to say; or what is wrong with the options.
async fn look(args: &Args) -> Result<Report, &'static str> {
    let mut found = Vec::new();
    let looked = args.config.as_deref().and_then(|path| {
        let looked = config::look(path, args.role.map(Role::from), !args.without_files);
        looked.map_err(|e| found.push(of_config(e, "FileUnreadable"))).ok()
    });
    let taker = taker(args, looked.as_ref())?;
    let rules_dir = looked.as_ref().and_then(|l| l.replicator.as_ref()).map(|r| &r.rules_dir);
    let rules_dir = rules_dir.filter(|dir| taker == Taker::Folder && dir.is_dir());
    let texts = texts(rules_dir.into_iter().chain(&args.paths), &mut found);
    let mut checked = check(&texts, &taker);
    let asks_for_documents = !args.paths.is_empty() || rules_dir.is_some();
    if asks_for_documents && !found.iter().any(|f| UNREADABLE.contains(&f.reason.as_str())) {
        found.extend(no_site(args, looked.as_ref(), &checked));
    }
    if let Some(looked) = &looked {
        if !args.without_files {
            look_for_files(looked, args.config.as_deref(), &mut checked, &mut found).await;
        }
        found.extend(looked.problems.iter().cloned().map(|p| of_config(p, "InvalidConfiguration")));
    }
    checked.problems.extend(found);
    checked.problems.sort();
    let verdict = match &checked.problems {
        all if all.iter().any(|f| UNREADABLE.contains(&f.reason.as_str())) => "UNKNOWN",
        all if all.is_empty() => "VALID",
        _ => "INVALID",
    };
    let config = args.config.as_ref().zip(looked.as_ref()).map(|(path, looked)| Configuration {
        file: path.display().to_string(),
        role: looked.role.name(),
        watches_api_server: looked.replicator.as_ref().is_some_and(|r| r.kubernetes.is_some()),
    });
    Ok(Report { verdict, config, links: checked.links(), checked })
}

/// Who is to take the documents: without a configuration that says otherwise an API server may.
fn taker(args: &Args, looked: Option<&Looked>) -> Result<Taker, &'static str> {
    match looked.and_then(|l| l.replicator.as_ref()).map(|r| &r.kubernetes) {
        Some(None) if args.namespace.is_some() => {
            Err("the configuration takes its documents from a folder: leave --namespace out")
        }
        Some(None) => Ok(Taker::Folder),
        Some(Some(server)) => {
            Ok(Taker::ApiServer { namespace: args.namespace.clone().or_else(|| server.namespace.clone()) })
        }
        None => Ok(Taker::ApiServer { namespace: args.namespace.clone() }),
    }
}

/// The texts at these paths, each once.
fn texts<'a>(paths: impl Iterator<Item = &'a PathBuf>, found: &mut Vec<Found>) -> Vec<Text> {
    let (mut texts, mut seen) = (Vec::new(), BTreeSet::new());
    for path in paths {
        let files = match path.is_dir() {
            true => list(path).unwrap_or_else(|e| {
                found.push(unreadable(path, "FolderUnreadable", format!("cannot be listed: {e}")));
                Vec::new()
            }),
            false => vec![path.clone()],
        };
        for file in files {
            if !seen.insert(std::fs::canonicalize(&file).unwrap_or_else(|_| file.clone())) {
                continue;
            }
            let read = if file == Path::new("-") { read_stdin() } else { read_text(&file) };
            match read {
                Ok(text) => texts.push(Text { file: file.display().to_string(), text }),
                Err(e) => found.push(unreadable(&file, "FileUnreadable", format!("cannot be read: {e}"))),
            }
        }
    }
    texts
}

fn read_stdin() -> std::io::Result<String> {
    let mut text = String::new();
    std::io::stdin().take(TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

fn unreadable(path: &Path, reason: &str, message: String) -> Found {
    let (object, field) = Default::default();
    Found { file: path.display().to_string(), line: None, object, field, reason: reason.into(), message }
}

fn of_config(problem: config::Problem, reason: &str) -> Found {
    let config::Problem { file, line, key, message } = problem;
    Found { file, line, object: String::new(), field: key, reason: reason.into(), message }
}

/// No Site for the process to be.
fn no_site(args: &Args, looked: Option<&Looked>, checked: &Checked) -> Option<Found> {
    let replicator = looked.and_then(|l| l.replicator.as_ref());
    let name = replicator.and_then(|r| r.site_name.as_deref());
    // Which of several Sites a process is, its configuration says.
    if replicator.is_none() && !checked.rules.sites.is_empty() {
        return None;
    }
    let message = checked.without_site(name)?;
    let (file, field) = match (&args.config, name, args.paths.first()) {
        (Some(config), Some(_), _) => (config, "site_name"),
        (Some(config), None, None) => (config, "rules_dir"),
        (_, _, Some(path)) => (path, ""),
        (None, _, None) => return None,
    };
    Some(Found { field: field.into(), ..unreadable(file, "SiteNotFound", message) })
}

/// Looks at what the configuration and the documents name as a process does at its start; reads, and keeps nothing.
async fn look_for_files(looked: &Looked, config: Option<&Path>, checked: &mut Checked, found: &mut Vec<Found>) {
    let is_missing = |of: &str| looked.problems.iter().any(|p| p.key.starts_with(of));
    let config = config.unwrap_or(Path::new(""));
    let say = |key: &str, e: &dyn std::error::Error| {
        let why = chain(e);
        Found { field: key.into(), ..unreadable(config, "InvalidConfiguration", format!("{why}; put it right")) }
    };
    if let Some(store) = looked.store.as_ref().filter(|_| !is_missing("store.")) {
        found.extend(node::check_files(store).await.err().map(|e| say("store", &e)));
    }
    if let Some(api) = looked.api.as_ref().filter(|_| !is_missing("api.")) {
        found.extend(Identity::load(api.clone()).await.err().map(|e| say("api.tls_dir", &e)));
    }
    let Some(replicator) = &looked.replicator else { return };
    // What the replicator itself brings there is not there before it.
    if replicator.kubernetes.as_ref().is_some_and(|server| server.watches_secrets) {
        return;
    }
    let refs = Refs::new(&replicator.refs_dir);
    checked.look_for(&refs);
    let Ok(site) = checked.rules.own_site(replicator.site_name.as_deref()).cloned() else { return };
    look_at_certificates(&refs, &site, looked.role, checked).await;
}

async fn look_at_certificates(refs: &Refs, site: &SiteDoc, role: Role, checked: &mut Checked) {
    let own = ("Site", site.name.clone(), "spec.listener.tlsSecretRef", refs.identity(&site.tls_secret));
    let to_store = ("Site", site.name.clone(), "spec.store.apiTlsSecretRef", refs.identity(&site.api_secret));
    let mut all = vec![own];
    if role == Role::Replicator && site.api_secret != site.tls_secret {
        all.push(to_store);
    }
    // Most peers are shown the site's own certificate: what is wrong with it is said once.
    let mut told = BTreeSet::new();
    let peers = checked.rules.peers.values();
    all.extend(peers.map(|peer| ("Peer", peer.name.clone(), "spec.replicator.tls", refs.towards(site, peer))));
    for (kind, name, field, files) in all {
        let object = format!("{kind}/{name}");
        let is_said = |f: &Found| f.object == object && IS_MISSING.contains(&f.reason.as_str());
        // A name that leads nowhere was said too.
        let (Ok(files), false) = (files, checked.problems.iter().any(is_said)) else { continue };
        if let Err((reason, why)) = load(files).await
            && told.insert(why.clone())
        {
            checked.say_of(kind, &name, field, reason, format!("{why}; put it right"));
        }
    }
}

/// # Errors
/// Which of the files cannot be used, as a condition's reason, and why.
async fn load(files: Files) -> Result<(), (&'static str, String)> {
    let loaded = Identity::load(files.clone()).await;
    loaded.map(drop).map_err(|e| (line::reason(&files, &e), chain(&e)))
}

fn chain(e: &dyn std::error::Error) -> String {
    let mut said = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        // Some errors say their source themselves.
        if !said.contains(&e.to_string()) {
            said = format!("{said}: {e}");
        }
        source = e.source();
    }
    said
}

impl Report {
    fn print(&self, format: Format) {
        say!("{}", self.said());
        if !self.checked.problems.is_empty() {
            say!("\n{}", self.problems(format));
        }
        let right = self.right();
        if !right.is_empty() {
            say!("\n{}", output::table(&["", "WHERE", "OBJECT", "WHAT IT SAYS"], right));
        }
        if !self.checked.skipped.is_empty() {
            let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
            self.checked.skipped.iter().for_each(|s| *kinds.entry(&s.kind).or_default() += 1);
            let kinds: Vec<String> = kinds.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            say!("\nSKIPPED  documents of other kinds: {}", kinds.join(", "));
        }
    }

    /// The verdict, and what to do next.
    fn said(&self) -> String {
        let Checked { documents, problems, .. } = &self.checked;
        let of_config = self.config.as_ref().map(|c| format!("{} (role {})", c.file, c.role));
        let of_documents = (!documents.is_empty())
            .then(|| format!("{}, {}", count(documents.len(), "document"), count(self.links, "link")));
        let what: Vec<String> = of_config.into_iter().chain(of_documents).collect();
        let what = what.join("; ");
        match (self.verdict, &self.config) {
            ("VALID", Some(c)) if c.watches_api_server && documents.is_empty() => {
                format!("VALID  {what}; its documents are an API server's: name their files to have them checked")
            }
            ("VALID", _) => format!("VALID  {what}: all in force as written"),
            ("INVALID", _) => {
                let broken = documents.iter().filter(|d| !d.in_force).count();
                let of = format!(", {broken} of {} not in force as written", count(documents.len(), "document"));
                let of = if broken > 0 { of } else { String::new() };
                format!("INVALID  {}{of}. Next: mend what is marked ×, check again", count(problems.len(), "problem"))
            }
            _ => {
                let cannot = problems.iter().find(|f| UNREADABLE.contains(&f.reason.as_str()));
                let why = cannot.map(|f| format!("{} {}", f.file, f.message)).unwrap_or_default();
                let others = problems.len().saturating_sub(1);
                let others = if others > 0 { format!(" ({} more)", count(others, "problem")) } else { String::new() };
                format!("UNKNOWN  {why}{others}. Next: name what is there, check again")
            }
        }
    }

    fn problems(&self, format: Format) -> String {
        let row = |f: &Found| {
            let line = f.line.map(|line| format!(":{line}")).unwrap_or_default();
            let field = if f.field.is_empty() { String::new() } else { format!("{}: ", f.field) };
            let object = if f.object.is_empty() { "-" } else { &f.object };
            let mut row = vec!["×".into(), format!("{}{line}", f.file), object.into()];
            if format == Format::Wide {
                row.push(f.reason.clone());
            }
            row.push(format!("{field}{}", f.message));
            row
        };
        let rows = self.checked.problems.iter().map(row).collect();
        let head: &[&str] = match format {
            Format::Wide => &["", "WHERE", "OBJECT", "REASON", "WHAT IS WRONG"],
            _ => &["", "WHERE", "OBJECT", "WHAT IS WRONG"],
        };
        output::table(head, rows)
    }

    /// Rows of what holds.
    fn right(&self) -> Vec<Vec<String>> {
        let of_config = self.config.iter().filter(|c| self.checked.problems.iter().all(|f| f.file != c.file));
        let of_config = of_config.map(|c| vec!["√".into(), c.file.clone(), "-".into(), format!("role {}", c.role)]);
        let documents = self.checked.documents.iter().filter(|d| d.in_force);
        let of_documents =
            documents.map(|d| vec!["√".into(), format!("{}:{}", d.file, d.line), d.object(), d.says.clone()]);
        of_config.chain(of_documents).collect()
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
