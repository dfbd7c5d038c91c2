//! Before a drill: everything that would make its figures worthless, or a bad day worse, refuses it with the reason.
//! Nothing is changed here, at neither site.
use super::Replicator;
use super::conduct::Peer;
use crate::drill::{Direction, Plan};
use crate::peer::client::{Drilling, Error};
use crate::peer::frame::drill::Act;
use crate::replicator::verbs::Refused;
use crate::rule::FarDoc;
use std::sync::Arc;
use std::time::Duration;

/// Clocks further apart than this page somebody (operations.md section 3).
const CLOCK_MILLIS_MAX: u64 = 5_000;
/// A certificate must hold so much longer than the drill may last: nothing else may fail meanwhile.
const CERTIFICATE_SPARE_MILLIS: u64 = 3_600_000;
/// How long the peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl Replicator {
    /// Why the drill must not begin; `Ok(Err)` is the reason for its report.
    ///
    /// # Errors
    /// [`Refused`]: there is no such peer.
    pub(super) async fn preflight(self: &Arc<Self>, plan: &Plan) -> Result<Result<(), String>, Refused> {
        self.named(None, Some(&plan.peer))?;
        Ok(self.fits(plan).await)
    }

    async fn fits(self: &Arc<Self>, plan: &Plan) -> Result<(), String> {
        let peer = &plan.peer;
        let far = self.state().in_force.far(peer);
        match far {
            Some(FarDoc::Site(_)) => {}
            Some(FarDoc::S3(_)) => {
                return Err(format!("{peer} is a bare S3 endpoint: nobody there takes part in a drill"));
            }
            None => return Err(format!("Peer {peer} is not in force yet")),
        }
        if far.is_some_and(|far| far.is_suspended()) {
            return Err(format!("Peer {peer} is suspended"));
        }
        let here = self.drill_check()?;
        self.lags_are_in_order(peer)?;
        certificate(here.certificate_millis, plan, "this site")?;
        if let Some(drills) = Peer::new(self, plan).line().map(|line| line.drills()) {
            if plan.direction != Direction::Both && !drills.one_way {
                return Err(Error::NoDrills(Drilling::ONE_WAY).to_string());
            }
            if plan.is_live() && !drills.live {
                return Err(Error::NoDrills(Drilling::LIVE).to_string());
            }
        }
        if plan.is_live() {
            self.named_links(plan)?;
        }
        let asked_at = self.shared.clock.now_millis();
        let there = Peer::new(self, plan).ask(Act::Check, PATIENCE).await?;
        let answered_at = self.shared.clock.now_millis();
        // Its clock was read somewhere between the two.
        let apart = (asked_at.saturating_sub(there.now_millis)).max(there.now_millis.saturating_sub(answered_at));
        if apart > CLOCK_MILLIS_MAX {
            let apart = apart as f64 / 1000.0;
            return Err(format!("the clocks of the two sites are {apart:.1}s apart; mend the time service first"));
        }
        certificate(there.certificate_millis, plan, &format!("peer {peer}"))
    }

    /// No rule to the peer may be behind its objective already.
    fn lags_are_in_order(&self, peer: &str) -> Result<(), String> {
        let report = self.report();
        if let Some(down) = report.peers.iter().find(|p| p.peer == peer && !p.is_up) {
            let why = down.last_error.as_deref().unwrap_or("it has not answered yet");
            return Err(format!("peer {peer} is down: {why}"));
        }
        for link in report.links.iter().filter(|l| l.peer == peer && l.state != "standby") {
            let Some(rpo) = link.rpo_seconds else { continue };
            match link.lag_seconds {
                Some(lag) if lag <= rpo => {}
                Some(lag) => {
                    let rule = &link.rule;
                    return Err(format!("rule {rule} is behind its objective already: {lag:.1}s, objective {rpo:.0}s"));
                }
                None => return Err(format!("the lag of rule {} is not known now", link.rule)),
            }
        }
        Ok(())
    }
}

fn certificate(left_millis: Option<u64>, plan: &Plan, whose: &str) -> Result<(), String> {
    match left_millis {
        Some(left) if left < plan.deadline_millis + CERTIFICATE_SPARE_MILLIS => {
            Err(format!("the certificate of {whose} expires in {} minutes; renew it first", left / 60_000))
        }
        _ => Ok(()),
    }
}
