//! Documents judged before anybody takes them: a folder's, or those an API server is to hold.
//!
//! It owns no rule of its own: `judge` and `validate` judge here as in a running process, jobs and drills by what their
//! leader asks first (`report/job.rs`, `report/drill.rs`), and `refs` looks for files. Texts in, findings out, each with file
//! and line; nothing is written, and what only a process can know (whether a bucket is there, a peer answers, an older form
//! of a document stands) is not guessed. Called by `cli/check.rs`.
use super::accept::Accepted;
use super::judge::{Finding, judge, judge_asking};
use super::refs::Refs;
use super::report::{drill, job};
use super::resource::{API_VERSION, ASKING, Asking};
use super::validate::{Crossed, Draft, hold, namespace_of, stranger, uid};
use super::watch_kube::Object;
use super::{Problem, RuleSet};
use crate::document::{self, Node, Value};
use serde::Serialize;
use std::path::Path;

/// Who is to take the documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taker {
    /// A replicator, out of its `rules_dir`: every document there counts.
    Folder,
    /// An API server that a replicator watches: documents of other kinds are none of ours, and jobs and drills are carried
    /// out. `namespace`: of documents that name none, as `kubectl --namespace` has it.
    ApiServer { namespace: Option<String> },
}

/// A file, or what stands for one.
#[derive(Clone, Debug)]
pub struct Text {
    /// As people are told of it.
    pub file: String,
    pub text: String,
}

/// What became of the documents.
#[derive(Debug, Default, Serialize)]
pub struct Checked {
    /// Every document of ours, in the order of the files.
    pub documents: Vec<Document>,
    /// By file and line.
    pub problems: Vec<Found>,
    /// Documents that are none of ours.
    pub skipped: Vec<Skipped>,
    /// What would be in force.
    #[serde(skip)]
    pub rules: RuleSet,
}

/// A document of ours.
#[derive(Debug, Serialize)]
pub struct Document {
    pub file: String,
    /// Its first line, from 1.
    pub line: u64,
    pub kind: String,
    /// Empty where it has none.
    pub name: String,
    /// Whether it would be in force as it is written.
    pub in_force: bool,
    /// What it asks for, in a few words; empty where it could not be read.
    pub says: String,
    #[serde(skip)]
    node: Node,
}

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Found {
    pub file: String,
    /// From 1; `None` where the file or folder as a whole is meant.
    pub line: Option<u64>,
    /// `kind/name`; empty where no document could be read.
    pub object: String,
    /// Such as `spec.destinations[0].peer`; empty where the whole is meant.
    pub field: String,
    /// One word, as a condition's reason.
    pub reason: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// A document that no process of isthmus reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    pub file: String,
    pub line: u64,
    pub api_version: String,
    pub kind: String,
}

/// What holds by itself and is yet to be held against the others, with its place among the documents.
#[derive(Default)]
struct Alone {
    drafts: Vec<(usize, Draft)>,
    askings: Vec<(usize, Option<String>, Asking)>,
}

/// Judges all documents of `texts` as one set: those of one site.
pub fn check(texts: &[Text], taker: &Taker) -> Checked {
    let mut checked = Checked::default();
    let mut alone = Alone::default();
    for Text { file, text } in texts {
        match document::parse(text) {
            Ok(nodes) => {
                let nodes = nodes.into_iter().flat_map(|node| taker.one_by_one(node));
                nodes.for_each(|node| checked.take(file, node, taker, &mut alone));
            }
            Err(e) => checked.problems.push(Found {
                file: file.clone(),
                line: Some(e.line),
                object: String::new(),
                field: String::new(),
                reason: "NotYaml".into(),
                message: e.message,
            }),
        }
    }
    checked.hold_together(alone, taker);
    checked.problems.sort();
    checked
}

impl Taker {
    fn is_api_server(&self) -> bool {
        matches!(self, Taker::ApiServer { .. })
    }

    fn namespace(&self) -> Option<&str> {
        match self {
            Taker::ApiServer { namespace } => namespace.as_deref(),
            Taker::Folder => None,
        }
    }

    /// The documents of a list, as `kubectl get -o yaml` prints one.
    fn one_by_one(&self, node: Node) -> Vec<Node> {
        let is_list =
            self.is_api_server() && node.text("apiVersion") == Some("v1") && node.text("kind") == Some("List");
        match node.get("items").map(|items| &items.value) {
            Some(Value::List(items)) if is_list => items.clone(),
            _ => vec![node],
        }
    }

    /// Why a document is none of ours.
    fn skips(&self, file: &str, node: &Node) -> Option<Skipped> {
        let (api_version, kind) = (node.text("apiVersion").unwrap_or_default(), node.text("kind").unwrap_or_default());
        let group = API_VERSION.split('/').next();
        let is_ours = api_version.split('/').next() == group;
        // Nobody else has these words; a Site or a Peer may well be somebody else's.
        let is_meant = kind == "ReplicationRule" || ASKING.contains(&kind);
        let is_kustomize = Path::new(file).file_stem().is_some_and(|stem| stem == "kustomization");
        let is_others = !api_version.is_empty() && !kind.is_empty() || is_kustomize;
        (self.is_api_server() && is_others && !is_ours && !is_meant).then(|| Skipped {
            file: file.into(),
            line: node.line,
            api_version: api_version.into(),
            kind: if kind.is_empty() { "Kustomization".into() } else { kind.into() },
        })
    }
}

impl Checked {
    fn take(&mut self, file: &str, node: Node, taker: &Taker, alone: &mut Alone) {
        if let Some(skipped) = taker.skips(file, &node) {
            self.skipped.push(skipped);
            return;
        }
        let kind = node.text("kind").unwrap_or_default().to_string();
        let meta = |field: &str| node.get("metadata").and_then(|m| m.text(field)).map(str::to_string);
        let name = meta("name").unwrap_or_default();
        let (at, namespace) = (self.documents.len(), meta("namespace").or(taker.namespace().map(str::to_string)));
        let place = format!("{file}:{}", node.line);
        let judged = if taker.is_api_server() && ASKING.contains(&kind.as_str()) {
            judge_asking(&node).map(|asking| {
                let says = gist_of_asking(&asking);
                alone.askings.push((at, namespace, asking));
                says
            })
        } else {
            judge(&node, place, None, None).map(|held| {
                let says = gist(&held.value);
                alone.drafts.push((at, Draft { namespace, ..held.draft() }));
                says
            })
        };
        let (says, findings) = match judged {
            Ok(says) => (says, Vec::new()),
            Err(findings) => (String::new(), findings),
        };
        self.documents.push(Document { file: file.into(), line: node.line, kind, name, in_force: true, says, node });
        for Finding { line, field, reason, message } in findings {
            self.say_at(at, line, field, reason, message);
        }
    }

    /// Holds the documents against each other, then jobs and drills against what is in force.
    fn hold_together(&mut self, Alone { drafts, askings }: Alone, taker: &Taker) {
        let (places, drafts): (Vec<usize>, Vec<Draft>) = drafts.into_iter().unzip();
        let named = drafts.iter().map(|d| d.namespace.as_deref());
        let named = named.chain(askings.iter().map(|(_, namespace, _)| namespace.as_deref()));
        let namespace = taker.namespace().unwrap_or_else(|| namespace_of(named)).to_string();
        let (rules, crossed) = hold(&drafts, &namespace, None);
        for Crossed { draft, field, reason, message } in crossed {
            let index = drafts.iter().position(|d| std::ptr::eq(d, draft)).expect("it is one of them");
            self.say(places[index], field, reason, message);
        }
        for (at, named, asking) in askings {
            if let Some(message) = stranger(named.as_deref(), &namespace) {
                self.say(at, "metadata.namespace".into(), "InvalidSpec", message);
            } else if let Some((reason, why)) = unmet(&asking, &rules, &namespace) {
                let (field, message) = match why.split_once(": ") {
                    Some((field, rest)) if field.starts_with("spec.") => (field.to_string(), rest.to_string()),
                    _ => (String::new(), why),
                };
                self.say(at, field, reason, message);
            }
        }
        self.rules = rules;
    }

    fn say(&mut self, at: usize, field: String, reason: &str, message: String) {
        let line = self.documents[at].node.line_of(&field);
        self.say_at(at, line, field, reason, message);
    }

    fn say_at(&mut self, at: usize, line: u64, field: String, reason: &str, message: String) {
        let document = &mut self.documents[at];
        document.in_force = false;
        let found = Found {
            file: document.file.clone(),
            line: Some(line),
            object: document.object(),
            field,
            reason: reason.into(),
            message,
        };
        self.problems.push(found);
    }

    /// Says something of the document in force of this kind and name.
    pub fn say_of(&mut self, kind: &str, name: &str, field: &str, reason: &str, message: String) {
        // Of two of one name the first holds.
        if let Some(at) = self.documents.iter().position(|d| d.kind == kind && d.name == name) {
            self.say(at, field.into(), reason, message);
            self.problems.sort();
        }
    }

    /// Looks for the files that the documents in force refer to.
    pub fn look_for(&mut self, refs: &Refs) {
        for Problem { document, place, reason, message } in refs.missing(&self.rules) {
            let (kind, name) = document.split_once('/').unwrap_or_default();
            self.say_of(kind, name, &place, reason, message);
        }
    }

    /// Why no process could serve these documents: there is no Site, or not the one of this name. Of a Site that is there and
    /// does not hold, or may stand in a file that is no YAML, something was said already.
    pub fn without_site(&self, name: Option<&str>) -> Option<String> {
        let is_broken = self.documents.iter().any(|d| d.kind == "Site" && !d.in_force)
            || self.problems.iter().any(|f| f.reason == "NotYaml");
        self.rules.own_site(name).err().filter(|_| !is_broken)
    }

    /// How many links would run, at all Sites of the set.
    pub fn links(&self) -> usize {
        self.rules.sites.keys().map(|site| self.rules.links_of(site).count()).sum()
    }
}

impl Document {
    /// `kind/name`, as far as it has them.
    pub fn object(&self) -> String {
        if self.name.is_empty() { self.kind.clone() } else { format!("{}/{}", self.kind, self.name) }
    }
}

/// Why a job or a drill would wait or be refused under these rules: reason, and a sentence that begins with its field.
fn unmet(asking: &Asking, rules: &RuleSet, namespace: &str) -> Option<(&'static str, String)> {
    match asking {
        Asking::Job(asked) => match job::unmet(&asked.spec, rules)? {
            job::Stage::Pending(reason, why) | job::Stage::Refused(reason, why) => Some((reason, why)),
            _ => None,
        },
        Asking::Drill(asked) => {
            let name = asked.metadata.name.clone().unwrap_or_default();
            // The server gives it one; a plan wants any.
            let uid = uid("", "FailoverDrill", namespace, &name);
            let object = Object { kind: "FailoverDrill", name, uid, ..Object::default() };
            let refused = drill::plan(&object, &asked.spec).err();
            match refused.or_else(|| drill::unmet(&asked.spec, rules))? {
                drill::Stage::Pending(reason, why) | drill::Stage::Refused(reason, why) => Some((reason, why)),
                _ => None,
            }
        }
    }
}

fn gist(value: &Accepted) -> String {
    match value {
        Accepted::Site(site) => format!("site {}, reached at {}", site.site_id, site.advertised_endpoint),
        Accepted::Peer(peer) => format!("site {} at {}", peer.site_id, peer.endpoint),
        Accepted::Foreign(target) => format!("S3 at {}", target.endpoint),
        Accepted::Rule(rule) => {
            let to = rule.destinations.iter().map(|d| match d.bucket == rule.bucket {
                true => d.peer.clone(),
                false => format!("{}/{}", d.peer, d.bucket),
            });
            format!("{}/{} to {}", rule.bucket, rule.filter.prefix, to.collect::<Vec<_>>().join(", "))
        }
    }
}

fn gist_of_asking(asking: &Asking) -> String {
    match asking {
        Asking::Job(job) => format!("{:?} of {}, under Kubernetes alone", job.spec.type_, job.spec.rule_ref.name),
        Asking::Drill(drill) => {
            format!("{:?} with {}, under Kubernetes alone", drill.spec.type_, drill.spec.peer_ref.name)
        }
    }
}

#[cfg(test)]
mod tests;
