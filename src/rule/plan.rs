//! What must change when the rules do: (old, new) -> start, alter, stop, per link. Pure.
//!
//! The replicator carries a plan out for the links it owns: an altered link keeps its cursor, a stopped one
//! drains. The order of the changes is the order to carry them out. What an altered link must send of the past is
//! its own to find (`link/existing.rs`): it also changes while no process runs.
use super::{Destination, FarDoc, Filter, Rule, RuleSet, SiteDoc, link_settings};
use crate::link;
use std::collections::BTreeMap;

/// Names a link of one site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkName {
    /// Uid of the rule.
    pub rule: String,
    /// Name of the Peer.
    pub peer: String,
}

/// Something to do to one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Drain it, then forget it: the store keeps nothing for it any more.
    Stop(LinkName),
    /// Run it, from its cursor where the journal knows one.
    Start(LinkName),
    /// Let it go on under its new settings.
    Alter(LinkName),
}

/// All a link depends on; when it is equal, the link is left alone.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkView {
    pub rule: Rule,
    pub destination: Destination,
    pub site: SiteDoc,
    pub peer: FarDoc,
    /// What rules of a higher priority send to the same peer.
    pub yields_to: Vec<Filter>,
}

impl LinkView {
    /// What its state machine runs with.
    pub fn settings(&self) -> link::Settings {
        let yields_to = self.yields_to.clone();
        link::Settings { yields_to, ..link_settings(&self.rule, &self.destination, &self.site, &self.peer) }
    }
    /// The far end as the journal names it: to another site there, or another bucket, goes another link, which has
    /// sent nothing yet.
    pub fn far_end(&self) -> String {
        format!("{}@{}/{}", self.peer.name(), self.peer.site_id(), self.destination.bucket)
    }
    /// Another bucket or site at the far end: nothing of the old link's progress holds.
    fn is_elsewhere(&self, other: &Self) -> bool {
        (&self.rule.bucket, &self.destination.bucket, self.peer.site_id(), &self.site.site_id)
            != (&other.rule.bucket, &other.destination.bucket, other.peer.site_id(), &other.site.site_id)
    }
}

/// The links of a Site, as they should run.
pub fn links(set: &RuleSet, site: &str) -> BTreeMap<LinkName, LinkView> {
    let Some(own) = set.sites.get(site) else { return BTreeMap::new() };
    let view = |(rule, destination): (&Rule, &Destination)| {
        let peer = set.far(&destination.peer)?;
        let name = LinkName { rule: rule.uid.clone(), peer: peer.name().into() };
        let yields_to = set.higher(rule, peer.name());
        let (rule, destination) = (rule.clone(), destination.clone());
        Some((name, LinkView { rule, destination, site: own.clone(), peer, yields_to }))
    };
    set.links_of(site).filter_map(view).collect()
}

/// What leads from `old` to `new` for the links of a Site.
pub fn plan(old: &RuleSet, new: &RuleSet, site: &str) -> Vec<Change> {
    let (before, after) = (links(old, site), links(new, site));
    let mut changes = Vec::new();
    for (name, view) in &before {
        if after.get(name).is_none_or(|next| next.is_elsewhere(view)) {
            changes.push(Change::Stop(name.clone()));
        }
    }
    for (name, view) in &after {
        match before.get(name).filter(|last| !last.is_elsewhere(view)) {
            None => changes.push(Change::Start(name.clone())),
            Some(last) if last == view => {}
            Some(_) => changes.push(Change::Alter(name.clone())),
        }
    }
    changes
}

#[cfg(test)]
mod tests;
