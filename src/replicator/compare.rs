//! One comparison of a rule, or of a part of it, on its own: what a ReplicationJob runs. `isthmus verify` joins the
//! comparison of a rule that runs; a job has its own, with its own peer and prefix, and can be stopped alone.
use super::Replicator;
use super::toll::Allowance;
use super::verify::{self, VerifyReport};
use crate::rule::plan;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Which part of a rule, and how fast.
#[derive(Clone, Default)]
pub struct Part {
    /// One destination; `None`: all.
    pub peer: Option<String>,
    /// Keys that begin with this.
    pub prefix: String,
    /// What it may send a second.
    pub allowance: Arc<Allowance>,
}

impl Replicator {
    /// Compares a part of a rule in force with what its peers hold, and repairs where `repair`. It ends by itself, with the
    /// token, or with the process; what it had repaired stays.
    ///
    /// # Errors
    /// Why there is nothing to compare: a sentence for a person.
    pub fn compare(
        &self,
        rule: &str,
        part: &Part,
        repair: bool,
    ) -> Result<(watch::Receiver<VerifyReport>, CancellationToken), String> {
        let state = self.state();
        let views = plan::links(&state.in_force, &self.site);
        let is_meant = |peer: &str| part.peer.as_ref().is_none_or(|wanted| wanted == peer);
        let mut links = Vec::new();
        for (name, view) in views.iter().filter(|(_, v)| v.rule.name == rule && is_meant(v.peer.name())) {
            let Some(link) = state.links.get(name) else { continue };
            let mut one = self.comparison(view, link.ways(), repair);
            one.settings.prefix = narrowed(&one.settings.prefix, &part.prefix).ok_or_else(|| {
                format!("spec.prefix: `{}` lies outside the rule's own prefix `{}`", part.prefix, one.settings.prefix)
            })?;
            one.allowance = Some(part.allowance.clone());
            links.push(one);
        }
        if links.is_empty() {
            let peer = part.peer.as_ref().map(|p| format!(" to Peer {p}")).unwrap_or_default();
            return Err(format!("no link of rule {rule}{peer} runs here"));
        }
        let (show, shown) = watch::channel(VerifyReport::begun(rule, repair, &links));
        let stop = self.stopping.child_token();
        self.tasks.spawn(stop.clone().run_until_cancelled_owned(verify::run(links, show)));
        Ok((shown, stop))
    }

    /// Name of the Site document this process serves.
    pub fn site_name(&self) -> &str {
        &self.site
    }

    /// Unix milliseconds of the process' clock.
    pub fn now_millis(&self) -> u64 {
        self.shared.clock.now_millis()
    }

    /// Whether the links of a rule that is gone have ended: none runs here, and the journal knows none.
    pub async fn has_left(&self, rule_uid: &str) -> bool {
        {
            let mut state = self.state();
            state.ending.retain(|_, task| !task.is_finished());
            let runs = state.links.keys().chain(state.ending.keys()).any(|name| name.rule == rule_uid);
            if runs {
                return false;
            }
        }
        self.shared.journal.links(Some(rule_uid)).await.is_ok_and(|links| links.is_empty())
    }
}

/// The longer of two prefixes where one begins with the other; `None`: they have no key in common.
fn narrowed(own: &str, wanted: &str) -> Option<String> {
    if wanted.starts_with(own) {
        return Some(wanted.into());
    }
    own.starts_with(wanted).then(|| own.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_looks_at_no_more_than_its_rule() {
        assert_eq!(narrowed("", "a/"), Some("a/".into()));
        assert_eq!(narrowed("a/", ""), Some("a/".into()));
        assert_eq!(narrowed("a/", "a/b"), Some("a/b".into()));
        assert_eq!(narrowed("a/", "b/"), None);
    }
}
