//! Holds the documents against each other: what does not fit is reported and left out, the rest is a RuleSet.
//!
//! Pure. A rule that stops fitting goes on by its last accepted form where that still fits; a destination whose
//! Peer is gone is left out alone.
use super::accept::Accepted;
use super::{Problem, Rule, RuleSet};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A document by itself in order, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// Where it comes from: `file:line`, or empty for an object of an API server.
    pub place: String,
    /// metadata.namespace, where it names one.
    pub namespace: Option<String>,
    pub value: Accepted,
}

/// Namespace of documents that name none.
pub const NAMESPACE: &str = "default";

/// A document that does not fit the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Crossed<'a> {
    pub draft: &'a Draft,
    /// Such as `spec.destinations[1].peer`.
    pub field: String,
    pub reason: &'static str,
    pub message: String,
}

/// The set of all that fits, and what does not. `previous` is the set in force so far.
pub fn validate(drafts: &[Draft], previous: Option<&RuleSet>) -> (RuleSet, Vec<Problem>) {
    let namespace = namespace_of(drafts.iter().map(|d| d.namespace.as_deref()));
    let (set, crossed) = hold(drafts, namespace, previous);
    let problem = |Crossed { draft, field, reason, message }: Crossed<'_>| {
        let (kind, name) = draft.value.id();
        let place = match draft.place.as_str() {
            "" => field,
            place => format!("{place} {field}"),
        };
        Problem { document: format!("{kind}/{namespace}/{name}"), place, reason, message }
    };
    let mut problems: Vec<Problem> = crossed.into_iter().map(problem).collect();
    // Each once, those of a document in the order they were found: the first is what its condition says.
    let mut seen = BTreeSet::new();
    problems.retain(|problem| seen.insert(problem.clone()));
    problems.sort_by(|a, b| a.document.cmp(&b.document));
    (set, problems)
}

/// As [`validate`], in a namespace that is known; every finding keeps its document.
pub fn hold<'a>(drafts: &'a [Draft], namespace: &str, previous: Option<&RuleSet>) -> (RuleSet, Vec<Crossed<'a>>) {
    let mut check = Check { namespace, set: RuleSet::default(), found: Vec::new() };
    let kept = check.without_strangers_and_doubles(drafts);
    for draft in &kept {
        match &draft.value {
            Accepted::Site(site) => {
                check.set.sites.insert(site.name.clone(), site.clone());
            }
            Accepted::Foreign(target) => {
                check.set.foreign.insert(target.name.clone(), target.clone());
            }
            Accepted::Peer(_) | Accepted::Rule(_) => {}
        }
    }
    check.peers(&kept);
    check.rules(&kept, previous);
    (check.set, check.found)
}

/// The one namespace of all documents, by what each names: what all of them name, else the default.
pub fn namespace_of<'a>(named: impl IntoIterator<Item = Option<&'a str>>) -> &'a str {
    let named: BTreeSet<Option<&str>> = named.into_iter().collect();
    match (named.len(), named.first()) {
        (1, Some(Some(only))) => only,
        _ => NAMESPACE,
    }
}

/// Why a document that names this namespace is not of those of `namespace`; `None`: it is.
pub fn stranger(named: Option<&str>, namespace: &str) -> Option<String> {
    let named = named.unwrap_or(NAMESPACE);
    (named != namespace).then(|| {
        format!("namespace {named} is not that of the other documents, {namespace}; name the same in all, or none")
    })
}

/// Names as a sentence lists them.
fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { "there is none".into() } else { format!("there are: {}", names.join(", ")) }
}

struct Check<'a, 'n> {
    namespace: &'n str,
    set: RuleSet,
    found: Vec<Crossed<'a>>,
}

/// Why a rule is left out.
struct Refused {
    field: String,
    reason: &'static str,
    message: String,
}
fn refused(field: &str, reason: &'static str, message: String) -> Refused {
    Refused { field: field.into(), reason, message }
}

impl<'a> Check<'a, '_> {
    fn say(&mut self, draft: &'a Draft, why: Refused) {
        let Refused { field, reason, message } = why;
        self.found.push(Crossed { draft, field, reason, message });
    }

    fn without_strangers_and_doubles(&mut self, drafts: &'a [Draft]) -> Vec<&'a Draft> {
        let mut first: BTreeMap<(&str, &str), &Draft> = BTreeMap::new();
        let mut kept = Vec::new();
        for draft in drafts {
            if let Some(message) = stranger(draft.namespace.as_deref(), self.namespace) {
                self.say(draft, refused("metadata.namespace", "InvalidSpec", message));
                continue;
            }
            if let Some(other) = first.get(&draft.value.id()) {
                let message = format!("this name is taken by {}; that one holds, give this one another", other.place);
                self.say(draft, refused("metadata.name", "DuplicateName", message));
                continue;
            }
            first.insert(draft.value.id(), draft);
            kept.push(draft);
        }
        kept
    }

    fn peers(&mut self, kept: &[&'a Draft]) {
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        for site in self.set.sites.values() {
            taken.insert(site.site_id.clone(), format!("Site {}", site.name));
        }
        for draft in kept {
            let Accepted::Peer(peer) = &draft.value else { continue };
            // A namespace may hold several Sites, each other's peers: only the one site there is cannot be its own.
            let is_other_site = self.set.sites.len() > 1 && self.set.sites.values().any(|s| s.site_id == peer.site_id);
            if let Some(holder) = taken.get(&peer.site_id).filter(|_| !is_other_site) {
                let message = format!("siteID {} is that of {holder}; every site has its own", peer.site_id);
                self.say(draft, refused("spec.replicator.siteID", "SiteIDInUse", message));
                continue;
            }
            taken.insert(peer.site_id.clone(), format!("Peer {}", peer.name));
            self.set.peers.insert(peer.name.clone(), peer.clone());
        }
    }

    fn rules(&mut self, kept: &[&'a Draft], previous: Option<&RuleSet>) {
        let mut drafts: Vec<(&Rule, &'a Draft)> = kept
            .iter()
            .filter_map(|draft| match &draft.value {
                Accepted::Rule(rule) => Some((rule, *draft)),
                _ => None,
            })
            .collect();
        // Of two that exclude each other the one in force holds, then the first by name, wherever their files lie.
        let is_new = |rule: &Rule| previous.is_none_or(|set| !set.rules.contains_key(&rule.name));
        drafts.sort_by_key(|(rule, _)| (is_new(rule), rule.name.clone()));
        for (rule, draft) in drafts {
            let fitted = match self.fit(rule, draft) {
                Ok(rule) => Some(rule),
                Err(why) => {
                    self.say(draft, why);
                    let last = previous.and_then(|set| set.rules.get(&rule.name));
                    last.and_then(|last| self.fit(last, draft).ok())
                }
            };
            if let Some(rule) = fitted {
                self.set.rules.insert(rule.name.clone(), rule);
            }
        }
    }

    /// The rule with its uid and the destinations that exist; says which do not.
    fn fit(&mut self, rule: &Rule, draft: &'a Draft) -> Result<Rule, Refused> {
        let site = self.set.sites.get(&rule.site).ok_or_else(|| {
            let message = format!("no Site {} that can be used; {}", rule.site, listed(self.set.sites.keys()));
            refused("spec.siteRef", "SiteNotFound", message)
        })?;
        let mut fitted = rule.clone();
        if fitted.uid.is_empty() {
            fitted.uid = uid(&site.site_id, "ReplicationRule", self.namespace, &rule.name);
        }
        self.contradictions(&fitted)?;
        fitted.destinations.clear();
        let own_id = site.site_id.clone();
        for (place, destination) in rule.destinations.iter().enumerate() {
            match self.reach(&destination.peer, &own_id) {
                Ok(()) => fitted.destinations.push(destination.clone()),
                Err((reason, message)) => {
                    self.say(draft, refused(&format!("spec.destinations[{place}].peer"), reason, message));
                }
            }
        }
        self.overlaps(&fitted)?;
        if fitted.destinations.is_empty() {
            return Err(refused("spec.destinations", "ResolvedNothing", "none of its destinations can be used".into()));
        }
        Ok(fitted)
    }

    fn contradictions(&self, rule: &Rule) -> Result<(), Refused> {
        let foreign = rule.destinations.iter().find(|d| self.set.foreign.contains_key(&d.peer));
        if let Some(d) = foreign.filter(|_| rule.active_active) {
            let message = format!("Peer {} is an S3 endpoint, which never writes here; use mode OneWay", d.peer);
            return Err(refused("spec.mode", "ModeUnsupportedByPeer", message));
        }
        if !rule.filter.tags.is_empty() && rule.replicate.delete_markers {
            let message = "a delete marker has no tags: with filter.tags write replicate.deleteMarkers: Disabled";
            return Err(refused("spec.filter.tags", "InvalidSpec", message.into()));
        }
        if rule.replicate.version_deletes && !rule.replicate.delete_markers {
            let message = "versionDeletes needs replicate.deleteMarkers: Enabled";
            return Err(refused("spec.replicate.versionDeletes", "InvalidSpec", message.into()));
        }
        Ok(())
    }

    /// Whether a link to the Peer can be run.
    fn reach(&self, peer: &str, own_id: &str) -> Result<(), (&'static str, String)> {
        if self.set.foreign.contains_key(peer) {
            return Ok(());
        }
        match self.set.peers.get(peer) {
            None => {
                let known = listed(self.set.peer_names());
                Err(("PeerNotFound", format!("no Peer {peer} that can be used; {known}")))
            }
            Some(found) if found.site_id == own_id => {
                Err(("TargetIsSource", format!("Peer {peer} is this very site, {own_id}; name another one")))
            }
            Some(_) => Ok(()),
        }
    }

    /// Two rules that match the same object for the same peer must differ in priority.
    fn overlaps(&self, rule: &Rule) -> Result<(), Refused> {
        let common = |other: &Rule| {
            rule.destinations.iter().find(|d| other.destinations.iter().any(|o| o.peer == d.peer)).cloned()
        };
        for other in self.set.rules.values().filter(|o| o.name != rule.name) {
            let same = (&other.site, &other.bucket, other.priority) == (&rule.site, &rule.bucket, rule.priority);
            let Some(d) = common(other).filter(|_| same && rule.filter.meets(&other.filter)) else { continue };
            let message = format!(
                "overlaps rule {} of the same priority {} for Peer {}; that one holds, give this one another priority",
                other.name, rule.priority, d.peer
            );
            return Err(refused("spec.priority", "OverlapsRule", message));
        }
        Ok(())
    }
}

/// Uid of a document that has none: 32 hexadecimal digits, the same wherever the same document is read.
pub fn uid(site_id: &str, kind: &str, namespace: &str, name: &str) -> String {
    // A zero byte stands in none of them, so different documents never give the same text.
    let digest = Sha256::digest([site_id, kind, namespace, name].join("\0"));
    digest[..16].iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every character");
        text
    })
}

#[cfg(test)]
mod tests;
