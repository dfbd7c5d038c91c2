//! What a person tells or asks this process: the verbs behind the CLI, but for their form. Names are looked up in
//! the documents in force; an unknown one is answered with those there are. Called by `replicator/admin/verbs.rs`.
use super::Replicator;
use super::ask::Ask;
use super::job::Jobs;
use super::report::LinkReport;
use super::run::{BATCH, Command};
use super::suspend::{Subject, Suspensions};
use super::told::{ConflictReport, DeleteReport, RowReport, VersionMark};
use crate::journal::{self, Conflict};
use crate::link::{Again, ROWS_MAX, Row, RowState, is_delete};
use crate::rule::plan::LinkName;
use crate::rule::{Destination, Rule, RuleSet};
use futures::future::join_all;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;
use storage_engine::version::VersionId;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a link may take to answer: it answers between two steps, and a step waits for nothing but the own store.
const PATIENCE: Duration = Duration::from_secs(5);

/// Changes of one link looked at for the deletes that its brake holds.
const DELETES_READ: usize = 16_384;
/// How long a feed may be silent before it counts as read to its end.
const FEED_END: Duration = Duration::from_millis(250);

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Nothing of this name, or nothing to do it to: a person mends the request.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be done or told now; nothing was changed.
    #[error("{0}")]
    Unavailable(String),
}

impl From<journal::Error> for Refused {
    fn from(e: journal::Error) -> Self {
        Refused::Unavailable(e.to_string())
    }
}

fn nobody() -> Refused {
    Refused::Unavailable("no link of it is pushed by this process now; see isthmus status".into())
}

/// One link of the documents.
pub(super) struct Named {
    pub(super) name: LinkName,
    pub(super) rule: Rule,
    pub(super) destination: Destination,
}

impl Named {
    /// A row of it, by the names people know.
    fn tells(&self, row: Row) -> RowReport {
        RowReport {
            rule: self.rule.name.clone(),
            bucket: self.rule.bucket.clone(),
            peer: self.destination.peer.clone(),
            key: row.key,
            version_id: row.version_id.to_string(),
            is_parked: row.state == RowState::Parked,
            pending_since: row.pending_since,
            bytes: row.bytes,
            attempts: row.attempts,
            next_attempt: (row.state == RowState::Pending).then_some(row.next_attempt),
            reason: row.last_error,
        }
    }
}

impl Replicator {
    /// Stops sending on the links of a rule, to a peer, or of a rule to a peer; what flies lands. Kept over restarts.
    ///
    /// # Errors
    /// [`Refused`]; nothing is suspended then.
    pub async fn suspend(&self, rule: Option<&str>, peer: Option<&str>) -> Result<Vec<LinkReport>, Refused> {
        let (subject, named) = self.subject(rule, peer)?;
        let mut held = self.suspensions.lock().await;
        let now = self.shared.clock.now_millis();
        held.suspend(&*self.shared.journal, subject, now).await?;
        self.tell(&held);
        Ok(self.reports(&named))
    }

    /// Lets go what [`Replicator::suspend`] held back; what a document suspends stays so, and the answer says it.
    ///
    /// # Errors
    /// [`Refused`]; again is safe.
    pub async fn resume(&self, rule: Option<&str>, peer: Option<&str>) -> Result<Vec<LinkReport>, Refused> {
        let (subject, named) = self.subject(rule, peer)?;
        let mut held = self.suspensions.lock().await;
        let resumed = held.resume(&*self.shared.journal, &subject).await;
        self.tell(&held);
        resumed?;
        Ok(self.reports(&named))
    }

    /// Versions of a rule (`None`: of all) that failed go again now; returns how many.
    ///
    /// # Errors
    /// [`Refused`]: no such rule, or none of its links is pushed from here.
    pub async fn retry(&self, rule: Option<&str>, which: Again) -> Result<usize, Refused> {
        let (mut again, mut answered) = (0, 0);
        let named = self.named(rule, None)?;
        for link in &named {
            if let Some(count) = self.ask(&link.name, |tell| Ask::Retry(which.clone(), tell)).await {
                (again, answered) = (again + count, answered + 1);
            }
        }
        if answered == 0 && !named.is_empty() {
            return Err(nobody());
        }
        Ok(again)
    }

    /// Lets go what the brake of a rule holds back; returns how many deletes it held.
    ///
    /// # Errors
    /// [`Refused`]: no such rule, or none of its links is pushed from here.
    pub async fn release(&self, rule: &str) -> Result<u64, Refused> {
        let (mut released, mut answered) = (0, 0);
        let named = self.named(Some(rule), None)?;
        for link in &named {
            if let Some(held) = self.ask(&link.name, Ask::Release).await {
                (released, answered) = (released + held, answered + 1);
            }
        }
        if answered == 0 { Err(nobody()) } else { Ok(released) }
    }

    /// Versions that failed while their peer answered, parked ones first; at most `limit` of each link.
    pub async fn rows(&self, limit: usize) -> Vec<RowReport> {
        let mut all = Vec::new();
        let Ok(named) = self.named(None, None) else { return all };
        for link in named {
            let rows = self.ask(&link.name, |tell| Ask::Rows(limit.min(ROWS_MAX), tell)).await;
            all.extend(rows.unwrap_or_default().into_iter().map(|row| link.tells(row)));
        }
        all.sort_by_key(|row| !row.is_parked);
        all
    }

    /// The newest parked versions of this process' links, at most `limit`; of so many links that have any, the others
    /// are not asked.
    pub async fn parked(&self, limit: usize) -> Vec<RowReport> {
        let Ok(named) = self.named(None, None) else { return Vec::new() };
        let report = self.report();
        let having: BTreeSet<_> =
            report.links.iter().filter(|l| l.parked_versions > 0).map(|l| (&*l.rule, &*l.peer)).collect();
        let asked = named.iter().filter(|n| having.contains(&(&*n.rule.name, &*n.destination.peer))).take(limit);
        let told = asked.map(|link| async move {
            let rows = self.ask(&link.name, |tell| Ask::Parked(limit, tell)).await.unwrap_or_default();
            rows.into_iter().map(|row| link.tells(row)).collect::<Vec<_>>()
        });
        let mut all: Vec<_> = join_all(told).await.into_iter().flatten().collect();
        all.sort_by_key(|row| Reverse(row.pending_since));
        all.truncate(limit);
        all
    }

    /// Deletes the brake holds back, oldest first; at most `limit` of each link, and of its next [`DELETES_READ`]
    /// changes. They make no rows: they are read from the feed behind the link's place.
    pub async fn deletes(&self, limit: usize) -> Vec<DeleteReport> {
        let mut all = Vec::new();
        let Ok(named) = self.named(None, None) else { return all };
        for link in named {
            let is_braked = self.reports(std::slice::from_ref(&link)).iter().any(|l| l.braked_since.is_some());
            let Some(mut cursor) = (if is_braked { self.ask(&link.name, Ask::Place).await } else { None }) else {
                continue;
            };
            let (mut read, mut found) = (0, 0);
            // A feed at its head waits for a change: that is the end of what is held.
            while read < DELETES_READ
                && found < limit
                && let Ok(Ok(batch)) =
                    timeout(FEED_END, self.shared.store.changes(&link.rule.bucket, cursor.as_ref(), BATCH)).await
            {
                read += batch.events.len().max(1);
                let held = batch.events.iter().filter(|e| is_delete(&e.version)).take(limit - found);
                let before = all.len();
                all.extend(held.map(|event| DeleteReport {
                    rule: link.rule.name.clone(),
                    bucket: link.rule.bucket.clone(),
                    peer: link.destination.peer.clone(),
                    key: event.version.key.clone(),
                    version_id: event.version.id.to_string(),
                    is_permanent: event.version.purged().is_some(),
                    pending_since: event.pending_since,
                }));
                found += all.len() - before;
                cursor = Some(batch.cursor);
            }
        }
        all
    }

    /// The newest conflicts this site has seen, as they were seen.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] when the journal cannot be read.
    pub async fn conflict_pairs(&self, limit: usize) -> Result<Vec<Conflict>, Refused> {
        Ok(self.shared.journal.conflicts(limit).await?)
    }

    /// The newest conflicts this site has seen, each with what is held of its two versions.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] when the journal cannot be read.
    pub async fn conflicts(&self, limit: usize) -> Result<Vec<ConflictReport>, Refused> {
        let mut all = Vec::new();
        for pair in self.conflict_pairs(limit).await? {
            all.push(ConflictReport {
                later: self.mark(&pair.bucket, &pair.key, pair.later).await,
                earlier: self.mark(&pair.bucket, &pair.key, pair.earlier).await,
                bucket: pair.bucket,
                key: pair.key,
                seen_millis: pair.seen_millis,
            });
        }
        Ok(all)
    }

    /// What the own store holds of one version now; a store that does not answer leaves it unknown.
    async fn mark(&self, bucket: &str, key: &str, version_id: String) -> VersionMark {
        let held = match version_id.parse::<VersionId>() {
            Ok(id) => self.shared.store.stat(bucket, key, id).await.ok().flatten(),
            Err(_) => None,
        };
        let birth = held.as_ref().and_then(|v| v.birth.as_ref());
        VersionMark {
            origin: birth.map(|b| b.order.origin.as_str().to_string()),
            born_millis: birth.map(|b| b.order.hlc.millis()),
            is_purged: held.as_ref().map(|v| v.purged().is_some()),
            version_id,
        }
    }

    /// Reads again what verbs hold back, which another replicator of the site may have changed; true: it did.
    pub(super) async fn read_suspensions(&self) -> Result<bool, journal::Error> {
        let mut held = self.suspensions.lock().await;
        let states = self.shared.journal.verb_states().await?;
        let jobs = Jobs::of(&states);
        self.jobs.send_if_modified(|known| {
            let is_news = *known != jobs;
            *known = jobs;
            is_news
        });
        let now = Suspensions::of(&states);
        let is_news = now != *held;
        *held = now;
        self.state().suspensions = held.clone();
        Ok(is_news)
    }

    /// What is held back has changed: it is shown at once, and carried out by [`Replicator::run`].
    fn tell(&self, held: &Suspensions) {
        self.state().suspensions = held.clone();
        self.verbs.notify_one();
    }

    fn subject(&self, rule: Option<&str>, peer: Option<&str>) -> Result<(Subject, Vec<Named>), Refused> {
        let named = self.named(rule, peer)?;
        let subject = match (rule, peer) {
            (None, None) => return Err(Refused::Unknown("say what: a rule, a peer, or both".into())),
            (None, Some(peer)) => Subject::Peer(peer.into()),
            (Some(rule), peer) => {
                let uid = self.documents().rules.get(rule).map(|r| r.uid.clone()).unwrap_or_default();
                peer.map_or(Subject::Rule(uid.clone()), |peer| Subject::Link(uid, peer.into()))
            }
        };
        Ok((subject, named))
    }

    fn documents(&self) -> RuleSet {
        self.rules.borrow().rules.clone()
    }

    /// Links of the documents by the names people know.
    pub(super) fn named(&self, rule: Option<&str>, peer: Option<&str>) -> Result<Vec<Named>, Refused> {
        let set = self.documents();
        let known = |names: Vec<&String>| match names.len() {
            0 => "there is none".to_string(),
            _ => format!("there are: {}", names.into_iter().cloned().collect::<Vec<_>>().join(", ")),
        };
        let own = || set.rules.values().filter(|r| r.site == self.site).map(|r| &r.name).collect();
        if let Some(rule) = rule.filter(|name| set.rules.get(*name).is_none_or(|r| r.site != self.site)) {
            return Err(Refused::Unknown(format!("no rule {rule}; {}", known(own()))));
        }
        if let Some(peer) = peer.filter(|name| set.far(name).is_none()) {
            return Err(Refused::Unknown(format!("no peer {peer}; {}", known(set.peer_names().collect()))));
        }
        let is_meant = |(r, d): &(&Rule, &Destination)| {
            rule.is_none_or(|name| r.name == name) && peer.is_none_or(|name| d.peer == name)
        };
        let links = set.links_of(&self.site).filter(is_meant).map(|(rule, destination)| Named {
            name: LinkName { rule: rule.uid.clone(), peer: destination.peer.clone() },
            rule: rule.clone(),
            destination: destination.clone(),
        });
        let links: Vec<Named> = links.collect();
        if let (Some(rule), Some(peer), true) = (rule, peer, links.is_empty()) {
            let rule_doc = &set.rules[rule];
            let peers = known(rule_doc.destinations.iter().map(|d| &d.peer).collect());
            return Err(Refused::Unknown(format!("rule {rule} does not send to peer {peer}; {peers}")));
        }
        Ok(links)
    }

    fn reports(&self, named: &[Named]) -> Vec<LinkReport> {
        let is_named = |l: &LinkReport| named.iter().any(|n| n.rule.name == l.rule && n.destination.peer == l.peer);
        self.report().links.into_iter().filter(is_named).collect()
    }

    /// Asks a running link; `None`: it is not pushed from here, or did not answer in time.
    pub(super) async fn ask<T>(&self, name: &LinkName, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let commands = self.state().links.get(name).map(|l| l.commands.clone())?;
        let (tell, told) = oneshot::channel();
        let answer = async {
            commands.send(Command::Ask(ask(tell))).await.ok()?;
            told.await.ok()
        };
        timeout(PATIENCE, answer).await.ok().flatten()
    }
}
