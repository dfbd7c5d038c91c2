//! The journal's twin in memory: for tests and the simulator. It keeps every promise but durability;
//! clones share one state, so that a simulated crash drops the owner and opens a clone.
use super::sql::KEPT;
use super::{
    CONFLICTS_MAX, Claim, ClaimTerms, Conflict, EPOCH_MAX, Error, Extent, Journal, LinkId, Mapped, Renewed, Upload,
};
use crate::link::{Checkpoint, Record, Row, RowState};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use storage_engine::clock::{Clock, SystemClock};
use storage_engine::version::VersionId;

/// A journal that lives as long as its last clone; several replicators may share it.
#[derive(Clone)]
pub struct MemoryJournal {
    state: Arc<Mutex<State>>,
    /// Claims end by it.
    clock: Arc<dyn Clock>,
}

impl Default for MemoryJournal {
    fn default() -> Self {
        MemoryJournal { state: Arc::default(), clock: Arc::new(SystemClock) }
    }
}

#[derive(Default)]
struct State {
    links: BTreeMap<LinkId, Link>,
    inbound: BTreeMap<String, u64>,
    /// In the order they were seen.
    conflicts: Vec<Conflict>,
    specs: BTreeMap<String, (u64, String)>,
    verbs: BTreeMap<String, String>,
    /// When each holder that wants links ceases to count, Unix milliseconds.
    holders: BTreeMap<String, u64>,
    full: bool,
}

#[derive(Default)]
struct Link {
    /// Whose it is; empty: nobody's.
    holder: String,
    epoch: u64,
    /// Until when, or since when it is nobody's; Unix milliseconds.
    expires: u64,
    checkpoint: Option<Checkpoint>,
    rows: BTreeMap<(String, String), Row>,
    mapped: BTreeMap<(String, VersionId), Mapped>,
    uploads: BTreeMap<(String, VersionId), Upload>,
}

impl MemoryJournal {
    /// An empty one whose claims end by this clock.
    pub fn by(clock: Arc<dyn Clock>) -> Self {
        MemoryJournal { state: Arc::default(), clock }
    }
    /// From now on every write answers [`Error::Unavailable`] (`true`), or works again.
    pub fn set_full(&self, full: bool) {
        self.locked().full = full;
    }
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
    fn writing(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.locked();
        if state.full { Err(Error::Unavailable("the journal is full".into())) } else { Ok(state) }
    }
}

impl State {
    fn owned(&mut self, link: &LinkId, epoch: u64) -> Result<&mut Link, Error> {
        match self.links.get_mut(link) {
            Some(found) if found.epoch == epoch => Ok(found),
            found => Err(Error::Fenced { ours: epoch, current: found.map_or(0, |l| l.epoch) }),
        }
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn claim(&self, link: &LinkId, holder: &str, terms: ClaimTerms) -> Result<Claim, Error> {
        let mut state = self.writing()?;
        let now = self.clock.now_millis();
        let entry = state.links.entry(link.clone()).or_insert(Link { expires: now, ..Link::default() });
        if entry.holder != holder && now < entry.expires + millis(terms.patience) {
            let is_held = now < entry.expires && !entry.holder.is_empty();
            return Ok(Claim::Held { by: is_held.then(|| entry.holder.clone()) });
        }
        entry.epoch = super::next_epoch(entry.epoch, terms.at_least)?;
        entry.holder = holder.into();
        entry.expires = now + millis(terms.lease);
        Ok(Claim::Owned { epoch: entry.epoch })
    }
    async fn renew(
        &self,
        holder: &str,
        links_wanted: u64,
        held: &[(LinkId, u64)],
        lease: Duration,
    ) -> Result<Renewed, Error> {
        let mut state = self.writing()?;
        let now = self.clock.now_millis();
        let expires = now + millis(lease);
        state.holders.retain(|name, until| *until > now && name != holder);
        if links_wanted > 0 {
            state.holders.insert(holder.into(), expires);
        }
        let mut kept = Vec::new();
        for (id, epoch) in held {
            if let Some(link) = state.links.get_mut(id).filter(|l| l.holder == holder && l.epoch == *epoch) {
                link.expires = expires;
                kept.push(id.clone());
            }
        }
        Ok(Renewed { kept, holders: state.holders.len() as u64 })
    }
    async fn free(&self, link: &LinkId, epoch: u64) -> Result<(), Error> {
        let mut state = self.writing()?;
        let now = self.clock.now_millis();
        let entry = state.owned(link, epoch)?;
        entry.holder.clear();
        entry.expires = now;
        Ok(())
    }
    async fn load(&self, link: &LinkId, limit: usize) -> Result<(Option<Checkpoint>, Vec<Row>), Error> {
        let state = self.locked();
        let Some(found) = state.links.get(link) else { return Ok((None, Vec::new())) };
        let mut rows: Vec<Row> = found.rows.values().cloned().collect();
        rows.sort_by_key(|r| (r.state == RowState::Parked, r.next_attempt));
        rows.truncate(limit);
        Ok((found.checkpoint.clone(), rows))
    }
    async fn parked(&self, link: &LinkId) -> Result<u64, Error> {
        let parked = |found: &Link| found.rows.values().filter(|r| r.state == RowState::Parked).count();
        Ok(self.locked().links.get(link).map_or(0, parked) as u64)
    }
    async fn record(&self, link: &LinkId, epoch: u64, record: &Record) -> Result<(), Error> {
        let mut state = self.writing()?;
        let entry = state.owned(link, epoch)?;
        entry.checkpoint = Some(record.checkpoint.clone());
        for (key, id) in &record.deletes {
            entry.rows.remove(&(key.clone(), id.to_string()));
        }
        for row in &record.upserts {
            entry.rows.insert((row.key.clone(), row.version_id.to_string()), row.clone());
        }
        Ok(())
    }
    async fn release(&self, link: &LinkId, epoch: u64) -> Result<(), Error> {
        let mut state = self.writing()?;
        let entry = state.owned(link, epoch)?;
        entry.checkpoint = None;
        entry.rows.clear();
        entry.mapped.clear();
        entry.uploads.clear();
        Ok(())
    }
    async fn links(&self, rule: Option<&str>) -> Result<Vec<(LinkId, Checkpoint)>, Error> {
        let state = self.locked();
        let of_rule = state.links.iter().filter(|(id, _)| rule.is_none_or(|rule| id.rule == rule));
        Ok(of_rule.filter_map(|(id, l)| Some((id.clone(), l.checkpoint.clone()?))).collect())
    }
    async fn mapped(
        &self,
        link: &LinkId,
        from: Option<&str>,
        upto: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Mapped>, Error> {
        let state = self.locked();
        let Some(found) = state.links.get(link) else { return Ok(Vec::new()) };
        let is_meant = |m: &&Mapped| {
            from.is_none_or(|from| m.key.as_str() >= from) && upto.is_none_or(|upto| m.key.as_str() <= upto)
        };
        Ok(found.mapped.values().filter(is_meant).take(limit).cloned().collect())
    }

    async fn remap(
        &self,
        link: &LinkId,
        epoch: u64,
        upserts: &[Mapped],
        deletes: &[(String, VersionId)],
    ) -> Result<(), Error> {
        let mut state = self.writing()?;
        let entry = state.owned(link, epoch)?;
        for gone in deletes {
            entry.mapped.remove(gone);
        }
        entry.mapped.extend(upserts.iter().map(|m| ((m.key.clone(), m.version_id), m.clone())));
        Ok(())
    }

    async fn uploads(&self, link: &LinkId) -> Result<Vec<Upload>, Error> {
        let state = self.locked();
        Ok(state.links.get(link).map(|found| found.uploads.values().cloned().collect()).unwrap_or_default())
    }

    async fn set_upload(
        &self,
        link: &LinkId,
        epoch: u64,
        version: (&str, VersionId),
        upload_id: Option<&str>,
    ) -> Result<(), Error> {
        let mut state = self.writing()?;
        let entry = state.owned(link, epoch)?;
        let (key, version_id) = (version.0.to_string(), version.1);
        match upload_id {
            Some(id) => {
                let upload = Upload { key: key.clone(), version_id, upload_id: id.into() };
                entry.uploads.insert((key, version_id), upload);
            }
            None => drop(entry.uploads.remove(&(key, version_id))),
        }
        Ok(())
    }

    async fn see_epoch(&self, incoming: &str, epoch: u64) -> Result<u64, Error> {
        if epoch > EPOCH_MAX {
            return Err(Error::EpochTooHigh { epoch });
        }
        let mut state = self.writing()?;
        let known = state.inbound.entry(incoming.into()).or_default();
        *known = epoch.max(*known);
        Ok(*known)
    }
    async fn add_conflict(&self, conflict: &Conflict) -> Result<(), Error> {
        let mut state = self.writing()?;
        let pair = |c: &Conflict| (c.bucket.clone(), c.key.clone(), c.later.clone(), c.earlier.clone());
        if !state.conflicts.iter().any(|known| pair(known) == pair(conflict)) {
            state.conflicts.push(conflict.clone());
            let surplus = state.conflicts.len().saturating_sub(CONFLICTS_MAX);
            state.conflicts.drain(..surplus);
        }
        Ok(())
    }
    async fn conflicts(&self, limit: usize) -> Result<Vec<Conflict>, Error> {
        let mut newest = self.locked().conflicts.clone();
        newest.reverse();
        newest.sort_by_key(|c| std::cmp::Reverse(c.seen_millis));
        newest.truncate(limit);
        Ok(newest)
    }
    async fn accepted_spec(&self, document: &str) -> Result<Option<(u64, String)>, Error> {
        Ok(self.locked().specs.get(document).cloned())
    }
    async fn accepted_specs(&self) -> Result<Vec<(String, u64, String)>, Error> {
        Ok(self
            .locked()
            .specs
            .iter()
            .map(|(name, (generation, spec))| (name.clone(), *generation, spec.clone()))
            .collect())
    }
    async fn forget_spec(&self, document: &str) -> Result<(), Error> {
        self.writing()?.specs.remove(document);
        Ok(())
    }
    async fn accept_spec(&self, document: &str, generation: u64, spec: &str) -> Result<(), Error> {
        self.writing()?.specs.insert(document.into(), (generation, spec.into()));
        Ok(())
    }
    async fn verb_states(&self) -> Result<Vec<(String, String)>, Error> {
        Ok(self.locked().verbs.iter().map(|(subject, state)| (subject.clone(), state.clone())).collect())
    }
    async fn set_verb_state(&self, subject: &str, verb: Option<&str>) -> Result<(), Error> {
        let mut state = self.writing()?;
        match verb {
            Some(verb) => state.verbs.insert(subject.into(), verb.into()),
            None => state.verbs.remove(subject),
        };
        Ok(())
    }

    async fn extent(&self) -> Result<Extent, Error> {
        let state = self.locked();
        let of_links = |count: fn(&Link) -> usize| state.links.values().map(count).sum();
        let counts: [usize; KEPT.len()] = [
            of_links(|link| usize::from(link.checkpoint.is_some())),
            of_links(|link| link.rows.len()),
            of_links(|link| link.mapped.len()),
            of_links(|link| link.uploads.len()),
            state.inbound.len(),
            state.conflicts.len(),
            state.specs.len(),
            state.verbs.len(),
        ];
        let rows = KEPT.iter().zip(counts).map(|(kept, n)| (kept.to_string(), n as u64)).collect();
        Ok(Extent { rows, free_bytes: None })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage_engine::clock::ManualClock;

    #[tokio::test]
    async fn memory_journal_conforms() {
        let shared = MemoryJournal::default();
        super::super::conformance::run(async || Arc::new(shared.clone()) as Arc<dyn Journal>).await;
        super::super::conformance::run_shared(async || Arc::new(shared.clone()) as Arc<dyn Journal>).await;
    }

    #[tokio::test]
    async fn claims_and_holders_end_by_the_journals_clock_to_the_millisecond() {
        let clock = Arc::new(ManualClock::at(1_000));
        let journal = MemoryJournal::by(clock.clone());
        let link = LinkId { rule: "r".into(), bucket: "b".into(), peer: "p".into() };
        let lease = Duration::from_secs(10);
        let hasty = ClaimTerms { at_least: 0, lease, patience: Duration::ZERO };
        let patient = ClaimTerms { patience: Duration::from_secs(5), ..hasty };
        assert_eq!(journal.claim(&link, "a", hasty).await.unwrap(), Claim::Owned { epoch: 1 });
        assert_eq!(journal.renew("a", 1, &[], lease).await.unwrap().holders, 1);
        clock.set(10_999);
        assert_eq!(journal.claim(&link, "b", hasty).await.unwrap(), Claim::Held { by: Some("a".into()) });
        assert_eq!(journal.renew("b", 1, &[], lease).await.unwrap().holders, 2);
        clock.set(11_000);
        assert_eq!(journal.claim(&link, "b", patient).await.unwrap(), Claim::Held { by: None }, "it has ended");
        assert_eq!(journal.renew("b", 1, &[], lease).await.unwrap().holders, 1);
        assert_eq!(journal.claim(&link, "b", hasty).await.unwrap(), Claim::Owned { epoch: 2 });
    }

    #[tokio::test]
    async fn a_full_journal_refuses_writes_and_still_reads() {
        let journal = MemoryJournal::default();
        let link = LinkId { rule: "r".into(), bucket: "b".into(), peer: "p".into() };
        let terms = ClaimTerms { at_least: 0, lease: Duration::from_secs(15), patience: Duration::ZERO };
        let Claim::Owned { epoch } = journal.claim(&link, "me", terms).await.unwrap() else { panic!("it is free") };
        journal.set_full(true);
        assert!(matches!(journal.record(&link, epoch, &Record::default()).await, Err(Error::Unavailable(_))));
        assert_eq!(journal.load(&link, 10).await.unwrap(), (None, vec![]));
        journal.set_full(false);
        journal.record(&link, epoch, &Record::default()).await.unwrap();
    }
}
