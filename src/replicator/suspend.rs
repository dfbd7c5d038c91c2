//! What `isthmus suspend` holds back: kept in the journal, shared by the replicators of a site, laid over the
//! documents before links are planned. It stops sending; what a peer sends here goes on.
use super::told::Suspended;
use crate::journal::{self, Journal};
use crate::rule::{Destination, Rule, RuleSet};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// What a person suspends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Every link of the rule, by its uid.
    Rule(String),
    /// Every link to the Peer, by its name.
    Peer(String),
    /// One link: uid of the rule and name of the Peer.
    Link(String, String),
}

/// The state of a subject in the journal. Unknown fields are those of a later version.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Unix milliseconds.
    suspended_at: Option<u64>,
}

impl Subject {
    fn text(&self) -> String {
        match self {
            Subject::Rule(uid) => format!("rule/{uid}"),
            Subject::Peer(name) => format!("peer/{name}"),
            Subject::Link(uid, name) => format!("link/{uid}/{name}"),
        }
    }
    fn parse(text: &str) -> Option<Subject> {
        let (kind, rest) = text.split_once('/')?;
        match kind {
            "rule" => Some(Subject::Rule(rest.into())),
            "peer" => Some(Subject::Peer(rest.into())),
            "link" => rest.split_once('/').map(|(uid, name)| Subject::Link(uid.into(), name.into())),
            _ => None,
        }
    }
    fn covers(&self, rule: &str, peer: &str) -> bool {
        match self {
            Subject::Rule(uid) => uid == rule,
            Subject::Peer(name) => name == peer,
            Subject::Link(uid, name) => uid == rule && name == peer,
        }
    }
    /// The verb that suspended it, as it was typed.
    fn verb(&self, rule: &str) -> String {
        match self {
            Subject::Rule(_) => format!("isthmus suspend --rule {rule}"),
            Subject::Peer(name) => format!("isthmus suspend --peer {name}"),
            Subject::Link(_, name) => format!("isthmus suspend --rule {rule} --peer {name}"),
        }
    }
    /// Whether resuming `self` ends `other` too: a part of what it names.
    fn includes(&self, other: &Subject) -> bool {
        match (self, other) {
            (Subject::Rule(uid), Subject::Link(of, _)) => uid == of,
            (Subject::Peer(name), Subject::Link(_, to)) => name == to,
            _ => self == other,
        }
    }
}

/// Everything suspended by a verb, and since when (Unix milliseconds).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspensions(BTreeMap<Subject, u64>);

impl Suspensions {
    /// As the journal keeps them among the verbs' states; what is another's, or a later version's, is passed over.
    pub fn of(states: &[(String, String)]) -> Self {
        let kept = states.iter().filter_map(|(subject, state)| {
            let subject = Subject::parse(subject)?;
            let state: Kept = serde_json::from_str(state).ok()?;
            Some((subject, state.suspended_at?))
        });
        Suspensions(kept.collect())
    }

    /// Suspends a subject; one that is suspended stays so since it was.
    ///
    /// # Errors
    /// When the journal did not take it: nothing is suspended then.
    pub async fn suspend(&mut self, journal: &dyn Journal, subject: Subject, now: u64) -> Result<(), journal::Error> {
        if let Entry::Vacant(free) = self.0.entry(subject) {
            let state = serde_json::to_string(&Kept { suspended_at: Some(now) }).expect("it has string keys");
            journal.set_verb_state(&free.key().text(), Some(&state)).await?;
            free.insert(now);
        }
        Ok(())
    }

    /// Resumes a subject and what is part of it.
    ///
    /// # Errors
    /// When the journal did not take all of it; again is safe.
    pub async fn resume(&mut self, journal: &dyn Journal, subject: &Subject) -> Result<(), journal::Error> {
        let over: Vec<Subject> = self.0.keys().filter(|other| subject.includes(other)).cloned().collect();
        for subject in over {
            journal.set_verb_state(&subject.text(), None).await?;
            self.0.remove(&subject);
        }
        Ok(())
    }

    /// Lays them over the documents' rules.
    pub fn lay_over(&self, set: &mut RuleSet) {
        for rule in set.rules.values_mut() {
            for destination in &mut rule.destinations {
                destination.suspend |= self.0.keys().any(|subject| subject.covers(&rule.uid, &destination.peer));
            }
        }
    }

    /// Why a link sends nothing; `None`: it does. `set` is the documents' own.
    pub fn why(&self, set: &RuleSet, rule: &Rule, destination: &Destination) -> Option<Suspended> {
        let verb = self.0.iter().find(|(subject, _)| subject.covers(&rule.uid, &destination.peer));
        if let Some((subject, since)) = verb {
            return Some(Suspended { by: subject.verb(&rule.name), since: Some(*since) });
        }
        let document = match () {
            () if destination.suspend => format!("spec.destinations of ReplicationRule {}", rule.name),
            () if rule.suspend => format!("spec.suspend of ReplicationRule {}", rule.name),
            () if set.far(&destination.peer).is_some_and(|far| far.is_suspended()) => {
                format!("spec.suspend of Peer {}", destination.peer)
            }
            () if set.sites.get(&rule.site).is_some_and(|s| s.suspend) => format!("spec.suspend of Site {}", rule.site),
            () => return None,
        };
        Some(Suspended { by: document, since: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::memory::MemoryJournal;

    #[tokio::test]
    async fn suspensions_outlive_the_process_and_a_rule_resumes_with_its_parts() {
        let journal = MemoryJournal::default();
        let mut held = Suspensions::default();
        let link = Subject::Link("r".into(), "ams".into());
        held.suspend(&journal, link.clone(), 7).await.unwrap();
        held.suspend(&journal, Subject::Peer("waw".into()), 8).await.unwrap();
        held.suspend(&journal, link, 9).await.unwrap();
        let mut again = Suspensions::of(&journal.verb_states().await.unwrap());
        assert_eq!(again, held, "the second suspend changed nothing");
        again.resume(&journal, &Subject::Rule("r".into())).await.unwrap();
        assert_eq!(again.0.keys().collect::<Vec<_>>(), [&Subject::Peer("waw".into())]);
        assert_eq!(Suspensions::of(&journal.verb_states().await.unwrap()), again);
    }

    #[tokio::test]
    async fn what_the_journal_does_not_take_is_not_suspended() {
        let journal = MemoryJournal::default();
        journal.set_full(true);
        let mut held = Suspensions::default();
        assert!(held.suspend(&journal, Subject::Peer("waw".into()), 8).await.is_err());
        assert_eq!(held, Suspensions::default());
    }
}
