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
    let defaults = Path::new("the defaults");
    let mut settings = match path {
        Some(path) => parse::<replicator::File>(path, &read(path)?)?,
        None => parse::<replicator::File>(Path::new(""), "{}")?,
    };
    if let Some(file) = kubeconfig {
        let other = settings.kubernetes.take().map(|k| Kubernetes { kubeconfig: Some(file.clone()), ..k });
        settings.kubernetes = Some(other.unwrap_or_else(|| Kubernetes::of(file)));
    }
    checked::<replicator::File>(path.unwrap_or(defaults), settings)
}

/// Something in the settings that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// `file:line`.
    pub place: String,
    /// Such as `store.drives[1]`; empty where the whole file is meant.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        write!(f, "{}: {key}{}", self.place, self.message)
    }
}

fn load<F: File>(path: &Path) -> Result<F::Settings, Vec<Problem>> {
    checked::<F>(path, parse::<F>(path, &read(path)?)?)
}

fn read(path: &Path) -> Result<String, Vec<Problem>> {
    std::fs::read_to_string(path).map_err(|e| {
        let message = format!("cannot be read ({e}); give the path of a YAML file");
        vec![Problem { place: path.display().to_string(), key: String::new(), message }]
    })
}

/// The settings, where all they point to is there.
fn checked<F: File>(path: &Path, settings: F::Settings) -> Result<F::Settings, Vec<Problem>> {
    let missing: Vec<_> = F::missing(&settings)
        .into_iter()
        .map(|(key, message)| Problem { place: path.display().to_string(), key: key.into(), message })
        .collect();
    if missing.is_empty() { Ok(settings) } else { Err(missing) }
}

/// The settings in a text, without a look at what they point to.
fn parse<F: File>(path: &Path, text: &str) -> Result<F::Settings, Vec<Problem>> {
    let problem = |line: u64, key: &str, message: String| Problem {
        place: format!("{}:{line}", path.display()),
        key: key.into(),
        message,
    };
    let nodes = document::parse(text).map_err(|e| vec![problem(e.line, "", e.message)])?;
    let [root] = nodes.as_slice() else {
        return Err(vec![problem(1, "", format!("holds {} documents, must hold one", nodes.len()))]);
    };
    let findings = schema::check(&file_schema::<F>(), root, "");
    if !findings.is_empty() {
        return Err(findings.into_iter().map(|f| problem(f.line, &f.path, f.message)).collect());
    }
    let file: F = serde_json::from_value(root.to_json()).map_err(|e| vec![problem(1, "", e.to_string())])?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut wrong = Wrong { root, found: Vec::new() };
    let settings = file.resolve(base, &mut wrong);
    if wrong.found.is_empty() {
        return Ok(settings);
    }
    wrong.found.sort();
    Err(wrong.found.into_iter().map(|(line, key, message)| problem(line, &key, message)).collect())
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
