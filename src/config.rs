//! Settings of a process, by role: drives, ports, paths, a store's buckets and users. No site, peer or rule
//! stands here: those are documents.
//!
//! Values; everything is checked before a drive is opened or a port bound, and all that is wrong is told at
//! once. Called by the roles; nothing here opens a store, a journal or a socket. A role's keys stand in a
//! file of their own.
mod journal;
mod kubernetes;
mod replicator;
mod site;
mod store;

pub use kubernetes::Settings as Kubernetes;
pub use replicator::Settings as Replicator;
pub use site::Settings as Site;
pub use store::Settings as Store;

use crate::document::{self, Node, schema};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file of one role, as it is written. Its doc lines are the reference of the keys.
trait File: DeserializeOwned + JsonSchema {
    type Settings;
    /// The values; relative paths count from `base`. What does not hold is said to `wrong`.
    fn resolve(self, base: &Path, wrong: &mut Wrong<'_>) -> Self::Settings;
    /// What the settings point to and is not there: key and what to do.
    fn missing(settings: &Self::Settings) -> Vec<(&'static str, String)>;
}

/// Reads and checks the file of role `site`; relative paths in it count from its folder.
///
/// # Errors
/// Everything that is wrong, one line each; nothing was opened or bound.
pub fn site(path: &Path) -> Result<Site, Vec<Problem>> {
    load::<site::File>(path)
}

/// Reads and checks the file of role `store`.
///
/// # Errors
/// As [`site()`].
pub fn store(path: &Path) -> Result<Store, Vec<Problem>> {
    load::<store::File>(path)
}

/// Reads and checks the file of role `replicator`; without one every key has its default. `kubeconfig`: documents come
/// from the API server it names, whatever the file says.
///
/// # Errors
/// As [`site()`].
pub fn replicator(path: Option<&Path>, kubeconfig: Option<PathBuf>) -> Result<Replicator, Vec<Problem>> {
    let (root, mut settings) = match path {
        Some(path) => parse::<replicator::File>(path, &read(path)?)?,
        None => parse::<replicator::File>(Path::new(""), "{}")?,
    };
    if let Some(file) = kubeconfig {
        let other = settings.kubernetes.take().map(|k| Kubernetes { kubeconfig: Some(file.clone()), ..k });
        settings.kubernetes = Some(other.unwrap_or_else(|| Kubernetes::of(file)));
    }
    match path {
        Some(path) => checked::<replicator::File>(path, Some(&root), settings),
        None => checked::<replicator::File>(Path::new("the defaults"), None, settings),
    }
}

/// A role with a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Site,
    Store,
    Replicator,
}

impl Role {
    /// By the keys of a file: only a store's has `origin` and `api`, and only a replicator's no `store`.
    fn of(text: &str) -> Role {
        let nodes = document::parse(text).unwrap_or_default();
        let has = |key: &str| nodes.first().is_some_and(|root| root.get(key).is_some());
        match (has("origin") || has("api"), has("store")) {
            (true, _) => Role::Store,
            (false, true) => Role::Site,
            (false, false) => Role::Replicator,
        }
    }

    /// Its word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Role::Site => "site",
            Role::Store => "store",
            Role::Replicator => "replicator",
        }
    }
}

/// A file as it would be read, whatever is wrong with it.
#[derive(Debug)]
pub struct Looked {
    pub role: Role,
    /// What its store would be opened with, where the file holds.
    pub store: Option<storage_engine::config::Settings>,
    /// What the private API would show.
    pub api: Option<storage_engine::identity::Files>,
    /// What its replicator would run with.
    pub replicator: Option<Replicator>,
    pub problems: Vec<Problem>,
}

/// Looks at a file of any role and starts nothing. `role`: which one it is for; `None`: its keys tell. `with_files`: looks for
/// what it names, too.
///
/// # Errors
/// The file cannot be read.
pub fn look(path: &Path, role: Option<Role>, with_files: bool) -> Result<Looked, Problem> {
    let text = read(path).map_err(|mut problems| problems.remove(0))?;
    let role = role.unwrap_or_else(|| Role::of(&text));
    let mut looked = Looked { role, store: None, api: None, replicator: None, problems: Vec::new() };
    match role {
        Role::Site => {
            let site = looked.take::<site::File>(path, &text, with_files);
            (looked.store, looked.replicator) = site.map(|site| (site.store, site.replicator)).unzip();
        }
        Role::Store => {
            let store = looked.take::<store::File>(path, &text, with_files);
            (looked.store, looked.api) = store.map(|store| (store.store, store.api.files)).unzip();
        }
        Role::Replicator => looked.replicator = looked.take::<replicator::File>(path, &text, with_files),
    }
    Ok(looked)
}

impl Looked {
    fn take<F: File>(&mut self, path: &Path, text: &str, with_files: bool) -> Option<F::Settings> {
        match parse::<F>(path, text) {
            Ok((root, settings)) => {
                let missing = if with_files { missing::<F>(path, Some(&root), &settings) } else { Vec::new() };
                self.problems.extend(missing);
                Some(settings)
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }
}

/// Something in the settings that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub file: String,
    /// From 1; `None` where the file as a whole is meant.
    pub line: Option<u64>,
    /// Such as `store.drives[1]`; empty where the whole file is meant.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        write!(f, "{}{line}: {key}{}", self.file, self.message)
    }
}

fn load<F: File>(path: &Path) -> Result<F::Settings, Vec<Problem>> {
    let (root, settings) = parse::<F>(path, &read(path)?)?;
    checked::<F>(path, Some(&root), settings)
}

fn read(path: &Path) -> Result<String, Vec<Problem>> {
    std::fs::read_to_string(path).map_err(|e| {
        let message = format!("cannot be read ({e}); give the path of a YAML file");
        vec![Problem { file: path.display().to_string(), line: None, key: String::new(), message }]
    })
}

/// The settings, where all they point to is there.
fn checked<F: File>(path: &Path, root: Option<&Node>, settings: F::Settings) -> Result<F::Settings, Vec<Problem>> {
    let missing = missing::<F>(path, root, &settings);
    if missing.is_empty() { Ok(settings) } else { Err(missing) }
}

/// What the settings point to and is not there.
fn missing<F: File>(path: &Path, root: Option<&Node>, settings: &F::Settings) -> Vec<Problem> {
    let problem = |(key, message): (&str, String)| Problem {
        file: path.display().to_string(),
        line: root.map(|root| root.line_of(key)),
        key: key.into(),
        message,
    };
    F::missing(settings).into_iter().map(problem).collect()
}

/// The settings in a text and what they stand in, without a look at what they point to.
fn parse<F: File>(path: &Path, text: &str) -> Result<(Node, F::Settings), Vec<Problem>> {
    let problem = |line: u64, key: &str, message: String| Problem {
        file: path.display().to_string(),
        line: Some(line),
        key: key.into(),
        message,
    };
    let nodes = document::parse(text).map_err(|e| vec![problem(e.line, "", e.message)])?;
    let many = |nodes: Vec<Node>| vec![problem(1, "", format!("holds {} documents, must hold one", nodes.len()))];
    let [root] = <[Node; 1]>::try_from(nodes).map_err(many)?;
    let findings = schema::check(&file_schema::<F>(), &root, "");
    if !findings.is_empty() {
        return Err(findings.into_iter().map(|f| problem(f.line, &f.path, f.message)).collect());
    }
    let file: F = serde_json::from_value(root.to_json()).map_err(|e| vec![problem(1, "", e.to_string())])?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut wrong = Wrong { root: &root, found: Vec::new() };
    let settings = file.resolve(base, &mut wrong);
    let mut found = wrong.found;
    if found.is_empty() {
        return Ok((root, settings));
    }
    found.sort();
    Err(found.into_iter().map(|(line, key, message)| problem(line, &key, message)).collect())
}

fn file_schema<F: File>() -> serde_json::Value {
    let generator = SchemaSettings::draft07().with(|s| s.inline_subschemas = true).into_generator();
    generator.into_root_schema_for::<F>().into()
}

/// What is wrong, with its line and key.
struct Wrong<'a> {
    root: &'a Node,
    found: Vec<(u64, String, String)>,
}

impl Wrong<'_> {
    fn say(&mut self, key: &str, message: String) {
        self.found.push((self.root.line_of(key), key.into(), message));
    }

    /// An address; one that is none is said and stands as a placeholder until the problems are told.
    fn address(&mut self, key: &str, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.say(
                key,
                format!("`{text}` is no address; write host:port with an IP address, such as 127.0.0.1:9000"),
            );
            ([127, 0, 0, 1], 0).into()
        })
    }

    /// A pause of a second to a day.
    fn seconds(&mut self, key: &str, seconds: u32) -> Duration {
        if !(1..=86_400).contains(&seconds) {
            self.say(key, format!("`{seconds}` is no pause; write seconds from 1 to 86400"));
        }
        Duration::from_secs(seconds.into())
    }

    /// Every listener has its own address.
    fn distinct(&mut self, listeners: &[(&str, SocketAddr)]) {
        let mut taken: BTreeMap<SocketAddr, &str> = BTreeMap::new();
        for (key, address) in listeners {
            let other = taken.insert(*address, key).filter(|_| address.port() != 0);
            if let Some(other) = other {
                self.say(key, format!("{address} is taken by {other}; give every listener its own port, or 0"));
            }
        }
    }
}

/// Loopback: it is open to whoever reaches it, so whoever wants it elsewhere says so.
fn admin_listen() -> String {
    "127.0.0.1:9090".into()
}

#[cfg(test)]
mod tests;
