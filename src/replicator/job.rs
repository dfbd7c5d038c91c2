//! A ReplicationJob as the replicators of a site share it: the leader keeps in the journal what a job asks, each replicator
//! carries out the part that belongs to the links it pushes (`carry`) and keeps beside it how far it is, and the leader
//! makes one report of that. So a job works whoever pushes a link, and goes on under another leader.
//!
//! What is told of a link stands under the epoch of the claim it was found out under; the highest one counts. Decides
//! nothing about versions, and never speaks for a link that is another's.
mod carry;

use super::Replicator;
use super::verify::{LinkVerify, VerifyReport};
use crate::journal;
use crate::rule::plan::{self, LinkName, LinkView};
use crate::rule::report::job::narrowed;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Where jobs stand among the verbs' states: `job/<uid>` what is asked, `job/<uid>/<peer>/<epoch>` what is told.
const ROOT: &str = "job/";
/// A link nobody has worked at for so long has no owner: more than a claim takes to move, and a replicator to start.
const QUIET_MAX_MS: u64 = 60_000;

/// What a job asks of the links of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Name of the rule.
    pub rule: String,
    /// One destination; `None`: all.
    pub peer: Option<String>,
    /// Keys that begin with this.
    pub prefix: String,
    /// Sends again what differs.
    pub repair: bool,
    /// Looks too at versions that the rule leaves where they are.
    pub existing: bool,
    /// Reads and compares the bytes too.
    pub content: bool,
    /// What it may send a second, on each link; comparing bytes, what it may read at each end.
    pub bytes_per_second: Option<u64>,
    /// It waits where it is.
    pub is_suspended: bool,
    /// Unix milliseconds: when it began, and when it was last asked for something else.
    pub began_at: u64,
    pub asked_at: u64,
}

impl Asked {
    /// Whether whoever carries `self` out carries out what is asked now: limit and suspension change under way.
    fn is_same_work(&self, now: &Asked) -> bool {
        let work =
            |of: &Asked| Asked { bytes_per_second: None, is_suspended: false, began_at: 0, asked_at: 0, ..of.clone() };
        work(self) == work(now)
    }
}

/// How far the part of one link is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Told {
    /// Unix milliseconds, of whoever tells.
    at: u64,
    link: LinkVerify,
}

/// What the journal holds of jobs, as last read or written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Jobs(BTreeMap<String, String>);

impl Jobs {
    /// Those among the verbs' states.
    pub(super) fn of(states: &[(String, String)]) -> Self {
        Jobs(states.iter().filter(|(subject, _)| subject.starts_with(ROOT)).cloned().collect())
    }

    fn asked(&self, job: &str) -> Option<Asked> {
        serde_json::from_str(self.0.get(&format!("{ROOT}{job}"))?).ok()
    }

    /// Every job, with what it asks.
    fn all(&self) -> BTreeMap<String, Asked> {
        self.uids().into_iter().filter_map(|uid| Some((uid.to_string(), self.asked(uid)?))).collect()
    }

    /// Every job of which something is held, what is asked or what was told.
    fn uids(&self) -> BTreeSet<&str> {
        self.0.keys().filter_map(|subject| subject[ROOT.len()..].split('/').next()).collect()
    }

    /// What was told last of a job's part: under the highest epoch.
    fn told(&self, job: &str, peer: &str) -> Option<Told> {
        let part = format!("{ROOT}{job}/{peer}/");
        let epochs = self.0.range(part.clone()..).take_while(|(subject, _)| subject.starts_with(&part));
        let parsed = epochs.filter_map(|(subject, state)| {
            Some((subject[part.len()..].parse::<u64>().ok()?, serde_json::from_str::<Told>(state).ok()?))
        });
        parsed.max_by_key(|(epoch, _)| *epoch).map(|(_, told)| told)
    }

    /// One report of what was told of these links, at a moment.
    fn report(&self, job: &str, asked: &Asked, links: &[(LinkName, LinkView)], now: u64) -> VerifyReport {
        let part = |(name, view): &(LinkName, LinkView)| {
            let told = self.told(job, &name.peer);
            let heard_at = told.as_ref().map_or(asked.asked_at, |told| told.at.max(asked.asked_at));
            let is_quiet = now.saturating_sub(heard_at) > QUIET_MAX_MS;
            let mut link = told.map(|told| told.link).unwrap_or_else(|| LinkVerify {
                peer: name.peer.clone(),
                bucket: view.rule.bucket.clone(),
                verdict: "running".into(),
                ..LinkVerify::default()
            });
            if link.verdict == "running" && is_quiet && !asked.is_suspended {
                link.verdict = "unknown".into();
                let seconds = QUIET_MAX_MS / 1000;
                link.error = Some(format!(
                    "no replicator of this site has worked at it for {seconds}s: is the link pushed by any? See isthmus status"
                ));
            }
            link
        };
        VerifyReport {
            rule: asked.rule.clone(),
            repair: asked.repair,
            existing: asked.existing,
            links: links.iter().map(part).collect(),
        }
    }
}

impl Replicator {
    /// What is asked for a job, where it is known.
    pub fn asked(&self, job: &str) -> Option<Asked> {
        self.jobs.borrow().asked(job)
    }

    /// Jobs other than this one that are asked for and not suspended.
    pub fn others_asked(&self, job: &str) -> usize {
        self.jobs.borrow().all().into_iter().filter(|(uid, asked)| uid != job && !asked.is_suspended).count()
    }

    /// Asks the replicators of the site to carry a job out, or alters what they were asked; what is not news is not written.
    ///
    /// # Errors
    /// Those of the journal: then nothing was asked. Again is safe.
    pub async fn ask_for_job(&self, job: &str, asked: Asked) -> Result<(), journal::Error> {
        let now = self.shared.clock.now_millis();
        let held = self.asked(job);
        let began_at = held.as_ref().map_or(now, |held| held.began_at);
        let same = held.as_ref().map_or(now, |held| held.asked_at);
        let asked = Asked { began_at, asked_at: same, ..asked };
        if held.as_ref() == Some(&asked) {
            return Ok(());
        }
        let asked = serde_json::to_string(&Asked { asked_at: now, ..asked }).expect("it has string keys");
        self.keep_job(&format!("{ROOT}{job}"), Some(asked)).await
    }

    /// What was found so far by all who carry a job out; `None`: it is not asked for.
    ///
    /// # Errors
    /// Why there is nothing to compare: a sentence for a person.
    pub fn job_report(&self, job: &str) -> Option<Result<VerifyReport, String>> {
        let asked = self.asked(job)?;
        let now = self.shared.clock.now_millis();
        Some(self.job_links(&asked).map(|links| self.jobs.borrow().report(job, &asked, &links, now)))
    }

    /// Ends what is carried out for every job that does not stay, and forgets what was told of it; what was repaired stays.
    ///
    /// # Errors
    /// Those of the journal; again is safe.
    pub async fn end_jobs(&self, stays: impl Fn(&str) -> bool) -> Result<(), journal::Error> {
        let held = self.jobs.borrow().clone();
        for job in held.uids().into_iter().filter(|job| !stays(job)) {
            // What is asked stands before what is told: who reads between the two begins nothing.
            let part = format!("{ROOT}{job}/");
            let of_it = |subject: &&String| subject.starts_with(&part) || **subject == part[..part.len() - 1];
            for subject in held.0.keys().filter(of_it) {
                self.keep_job(subject, None).await?;
            }
        }
        Ok(())
    }

    /// The links a job is about, by the documents in force, each narrowed to the part asked for.
    ///
    /// # Errors
    /// Why there is none: a sentence for a person.
    pub(super) fn job_links(&self, asked: &Asked) -> Result<Vec<(LinkName, LinkView)>, String> {
        let state = self.state();
        let is_meant = |peer: &str| asked.peer.as_ref().is_none_or(|wanted| wanted == peer);
        let mut links = Vec::new();
        for (name, mut view) in plan::links(&state.in_force, &self.site) {
            if view.rule.name != asked.rule || !is_meant(view.peer.name()) || !state.links.contains_key(&name) {
                continue;
            }
            let own = &mut view.rule.filter.prefix;
            *own = narrowed(own, &asked.prefix)?;
            links.push((name, view));
        }
        if links.is_empty() {
            let peer = asked.peer.as_ref().map(|p| format!(" to Peer {p}")).unwrap_or_default();
            return Err(format!("no link of rule {}{peer} runs here", asked.rule));
        }
        Ok(links)
    }

    /// Writes one state of a job, and knows it from then on.
    async fn keep_job(&self, subject: &str, state: Option<String>) -> Result<(), journal::Error> {
        // A reading under way would bring back what stood there before.
        let _reading = self.suspensions.lock().await;
        self.shared.journal.set_verb_state(subject, state.as_deref()).await?;
        self.jobs.send_modify(|jobs| match state {
            Some(state) => drop(jobs.0.insert(subject.into(), state)),
            None => drop(jobs.0.remove(subject)),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_looks_at_no_more_than_its_rule() {
        assert_eq!(narrowed("", "a/"), Ok("a/".into()));
        assert_eq!(narrowed("a/", ""), Ok("a/".into()));
        assert_eq!(narrowed("a/", "a/b"), Ok("a/b".into()));
        assert!(narrowed("a/", "b/").is_err());
    }

    #[test]
    fn the_highest_epoch_speaks_for_a_link() {
        let told = |verdict: &str| {
            let link = LinkVerify { verdict: verdict.into(), ..LinkVerify::default() };
            serde_json::to_string(&Told { at: 7, link }).unwrap()
        };
        let states = [
            ("job/u/b/10", told("equal")),
            ("job/u/b/9", told("running")),
            ("job/u/bb/11", told("different")),
            ("job/uu/b/12", told("unknown")),
            ("rule/u", "{}".into()),
        ];
        let jobs = Jobs::of(&states.map(|(subject, state)| (subject.to_string(), state)));
        assert_eq!(jobs.told("u", "b").unwrap().link.verdict, "equal");
        assert_eq!(jobs.told("u", "c"), None);
        assert_eq!(jobs.uids(), ["u", "uu"].into());
        assert_eq!(jobs.asked("u"), None);
    }

    #[test]
    fn a_limit_changes_under_way_and_another_prefix_is_other_work() {
        let asked = Asked { rule: "r".into(), ..Asked::default() };
        assert!(asked.is_same_work(&Asked {
            bytes_per_second: Some(1),
            is_suspended: true,
            asked_at: 9,
            ..asked.clone()
        }));
        assert!(!asked.is_same_work(&Asked { prefix: "a/".into(), ..asked.clone() }));
        assert!(!asked.is_same_work(&Asked { repair: true, ..asked.clone() }));
    }
}
