//! Where each version of one object is, and why not where it should be: asks the links and the peers, and says
//! "unknown" where neither can tell. Called by `replicator/admin/verbs.rs`.
use super::Replicator;
use super::ask::Ask;
use super::far::FarEnd;
use super::foreign::compare;
use super::report::LinkReport;
use super::told::{Explained, Place, VersionPlaces};
use super::verbs::Refused;
use crate::link::project::Projection;
use crate::link::reconcile::{Ask as Wanted, Item, KeyRange};
use crate::link::{Reason, RowState, Standing};
use crate::peer::frame::reconcile::{Answer, Question};
use crate::rule::plan::{self, LinkName, LinkView};
use crate::store::Error;
use std::collections::BTreeMap;
use std::time::Duration;
use storage_engine::version::{Kind, Version, VersionId};
use tokio::time::timeout;

/// Versions explained at once, the newest: the rest by their ids.
const VERSIONS_MAX: usize = 100;
/// How long a peer may take to say what it holds.
const PATIENCE: Duration = Duration::from_secs(4);

/// What a peer holds of an object, by version, as the rule compares it.
type There = BTreeMap<VersionId, Item>;

impl Replicator {
    /// Explains every version of an object that S3 shows here, newest first, or the one of this id.
    ///
    /// # Errors
    /// [`Refused`]: no such bucket or version here, or the own store does not answer.
    pub async fn explain(&self, bucket: &str, key: &str, id: Option<VersionId>) -> Result<Explained, Refused> {
        let store = &self.shared.store;
        let found = match id {
            Some(id) => store.stat(bucket, key, id).await.map(|found| found.into_iter().collect()),
            None => store.versions_of(bucket, key).await,
        };
        let mut versions: Vec<Version> = match found {
            Ok(versions) => versions,
            Err(e @ (Error::NoSuchBucket(_) | Error::NoSuchKey | Error::NoSuchVersion)) => {
                return Err(Refused::Unknown(e.to_string()));
            }
            Err(e) => return Err(Refused::Unavailable(e.to_string())),
        };
        if versions.is_empty() {
            return Err(Refused::Unknown(format!("no version of {bucket}/{key} at this site")));
        }
        versions.truncate(VERSIONS_MAX);
        let mut places: Vec<Vec<Place>> = versions.iter().map(|_| Vec::new()).collect();
        let set = self.rules.borrow().rules.clone();
        let links = plan::links(&set, &self.site).into_iter().filter(|(_, view)| view.rule.bucket == bucket);
        for (name, view) in links {
            let standings = self.ask(&name, |tell| Ask::Standing(versions.clone(), tell)).await;
            let is_it = |l: &LinkReport| l.rule == view.rule.name && l.peer == view.peer.name();
            let shown = self.report().links.into_iter().find(is_it);
            let since = shown.as_ref().and_then(|l| l.copies_since);
            let rule = Projection { since, ..Projection::of(&view.settings()) };
            let there = self.there(&name, &view, &rule, key).await;
            for (at, version) in versions.iter().enumerate() {
                let standing = standings.as_ref().and_then(|all| all.get(at));
                let (state, why) = state(&view, &rule, version, standing, &there, shown.as_ref());
                let (rule, peer) = (view.rule.name.clone(), view.peer.name().to_string());
                places[at].push(Place { rule, peer, state: state.into(), why });
            }
        }
        let versions = versions.iter().zip(places).map(|(version, places)| told(version, places)).collect();
        let problems = self.rules.borrow().problems.clone().into_iter();
        let of_rules = problems.filter(|p| p.document.starts_with("ReplicationRule/"));
        let not_in_force = of_rules.map(|p| format!("{}: {}: {}", p.document, p.reason, p.message)).collect();
        let (site, bucket, key) = (self.site_id.clone(), bucket.into(), key.into());
        Ok(Explained { site, bucket, key, versions, not_in_force })
    }

    /// What the peer of a link says it holds of an object; or why it does not say.
    async fn there(&self, name: &LinkName, view: &LinkView, rule: &Projection, key: &str) -> Result<There, String> {
        let line = self.state().links.get(name).map(|l| (l.line.borrow().clone(), l.trouble.clone()));
        let (standing, trouble) = line.ok_or("there is no line to the peer")?;
        let Some(far) = standing else {
            let reason = trouble.borrow().clone();
            return Err(format!("the peer is unreachable: {}", reason.unwrap_or_else(|| "dialling".into())));
        };
        let connection = match far {
            FarEnd::Site(connection) => connection,
            FarEnd::S3(end) => {
                let held = timeout(PATIENCE, compare::held(&end, key)).await;
                return held.unwrap_or_else(|_| Err(format!("it does not answer within {}s", PATIENCE.as_secs())));
            }
        };
        let range = KeyRange { after: None, upto: Some(key.into()) };
        // Of this key alone: what lies before it is behind.
        let behind = Some((key.to_string(), VersionId::from_bytes([0; 16])));
        let question = Question {
            bucket: view.destination.bucket.clone(),
            projection: rule.clone(),
            ask: Wanted::Items { range, behind },
            unknown: Default::default(),
        };
        match timeout(PATIENCE, connection.ask(question)).await {
            Ok(Ok((Answer::Items { items, .. }, _))) => {
                let of_key = items.into_iter().filter(|item| item.key == key);
                Ok(of_key.map(|item| (item.version_id, item)).collect())
            }
            Ok(Ok((Answer::Refused(why) | Answer::Unavailable(why), _))) => {
                Err(format!("the peer does not say: {why}"))
            }
            Ok(Ok(_)) => Err("the peer's answer does not fit the question".into()),
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("the peer does not answer within {}s", PATIENCE.as_secs())),
        }
    }
}

/// State and reason of one version on one link.
fn state(
    view: &LinkView,
    rule: &Projection,
    version: &Version,
    standing: Option<&Standing>,
    there: &Result<There, String>,
    shown: Option<&LinkReport>,
) -> (&'static str, String) {
    if let Some(Standing::OutOfScope(why)) = standing {
        return ("not_in_scope", (*why).into());
    }
    let is_hashed = |item: &Item| item.hash.is_some();
    let is_brought = rule.item(version).as_ref().is_some_and(is_hashed);
    let ours = Projection { since: None, ..rule.clone() }.item(version).filter(is_hashed);
    let is_left = ours.is_some() && !is_brought;
    let is_there = |theirs: &Item| match &ours {
        Some(ours) => ours.is_within(theirs),
        None => theirs.hash.is_none(),
    };
    let held = match there {
        Ok(there) => there.get(&version.id),
        Err(_) => None,
    };
    match held {
        Some(theirs) if is_there(theirs) => return ("there", String::new()),
        _ if is_left && shown.is_some_and(LinkReport::is_of_remade_bucket) => {
            let verb = format!("isthmus verify {} --repair --existing", view.rule.name);
            return (
                "not_in_scope",
                format!("it was there when it was seen that the bucket had been made again; {verb}"),
            );
        }
        _ if is_left => {
            return ("not_in_scope", "older than the rule, which leaves existing objects where they are".into());
        }
        _ if !is_brought => return ("not_in_scope", "the rule brings nothing of it as it is now".into()),
        _ => {}
    }
    if let Some(c) = shown.and_then(|l| l.conditions.iter().find(|c| c.holds)) {
        return ("blocked", format!("{}: {}", c.reason, c.message));
    }
    let older = if held.is_some() { "an older state is there; " } else { "" };
    let (state, why) = match (standing, shown.and_then(|l| l.suspended.as_ref())) {
        (Some(Standing::Row(row)), _) if row.state == RowState::Parked => {
            ("parked", format!("refused {} times: {}; isthmus retry {}", row.attempts, row.last_error, view.rule.name))
        }
        (_, Some(suspended)) => ("suspended", suspended.by.clone()),
        (Some(Standing::Row(row)), _) if row.reason == Reason::ClockAhead => {
            ("clock_ahead", "stamped ahead of the peer's clock; goes by itself once that clock is there".into())
        }
        (Some(Standing::Row(row)), _) => {
            ("failed", format!("{} attempts, goes again by itself: {}", row.attempts, row.last_error))
        }
        (Some(Standing::Flying), _) => ("flying", "on its way".into()),
        (Some(Standing::Queued { .. }), _) => ("pending", "waits for its turn".into()),
        (None, _) => ("unknown", "no link of it is pushed by this process; ask the one that does".into()),
        (_, _) if is_delete(version) && shown.is_some_and(|l| l.braked_since.is_some()) && there.is_ok() => {
            ("braked", format!("held back as part of a mass delete; isthmus release {}", view.rule.name))
        }
        (_, _) if there.is_ok() => ("pending", "waits in the feed".into()),
        (_, _) => ("unknown", String::new()),
    };
    match there {
        Ok(_) => (state, format!("{older}{why}")),
        Err(reason) if why.is_empty() => (state, reason.clone()),
        Err(reason) => (state, format!("{why}; {reason}")),
    }
}

fn is_delete(version: &Version) -> bool {
    version.purged().is_some() || version.is_delete_marker()
}

fn told(version: &Version, places: Vec<Place>) -> VersionPlaces {
    let birth = version.birth.as_ref();
    VersionPlaces {
        version_id: version.id.to_string(),
        origin: birth.map(|b| b.order.origin.as_str().to_string()),
        born_millis: birth.map(|b| b.order.hlc.millis()),
        is_delete_marker: birth.is_some_and(|b| b.kind == Kind::DeleteMarker),
        is_purged: version.purged().is_some(),
        places,
    }
}
