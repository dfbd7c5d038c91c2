//! The journal's twin in memory: for tests and the simulator. It keeps every promise but durability;
//! clones share one state, so that a simulated crash drops the owner and opens a clone.
use super::{Conflict, EPOCH_MAX, Error, Journal, LinkId};
use crate::link::{Checkpoint, Record, Row, RowState};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// A journal that lives as long as its last clone.
#[derive(Clone, Default)]
pub struct MemoryJournal {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    links: BTreeMap<LinkId, Link>,
    inbound: BTreeMap<String, u64>,
    /// In the order they were seen.
    conflicts: Vec<Conflict>,
    specs: BTreeMap<String, (u64, String)>,
    full: bool,
}

#[derive(Default)]
struct Link {
    epoch: u64,
    checkpoint: Option<Checkpoint>,
    rows: BTreeMap<(String, String), Row>,
}

impl MemoryJournal {
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
    async fn acquire(&self, link: &LinkId, _holder: &str, at_least: u64) -> Result<u64, Error> {
        let mut state = self.writing()?;
        let entry = state.links.entry(link.clone()).or_default();
        entry.epoch = super::next_epoch(entry.epoch, at_least)?;
        Ok(entry.epoch)
    }
    async fn load(&self, link: &LinkId, limit: usize) -> Result<(Option<Checkpoint>, Vec<Row>), Error> {
        let state = self.locked();
        let Some(found) = state.links.get(link) else { return Ok((None, Vec::new())) };
        let mut rows: Vec<Row> = found.rows.values().cloned().collect();
        rows.sort_by_key(|r| (r.state == RowState::Parked, r.next_attempt));
        rows.truncate(limit);
        Ok((found.checkpoint.clone(), rows))
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
        Ok(())
    }
    async fn links(&self) -> Result<Vec<(LinkId, Checkpoint)>, Error> {
        let state = self.locked();
        Ok(state.links.iter().filter_map(|(id, l)| Some((id.clone(), l.checkpoint.clone()?))).collect())
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
    async fn accept_spec(&self, document: &str, generation: u64, spec: &str) -> Result<(), Error> {
        self.writing()?.specs.insert(document.into(), (generation, spec.into()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_journal_conforms() {
        let shared = MemoryJournal::default();
        super::super::conformance::run(async || Arc::new(shared.clone()) as Arc<dyn Journal>).await;
    }

    #[tokio::test]
    async fn a_full_journal_refuses_writes_and_still_reads() {
        let journal = MemoryJournal::default();
        let link = LinkId { rule: "r".into(), bucket: "b".into(), peer: "p".into() };
        let epoch = journal.acquire(&link, "me", 0).await.unwrap();
        journal.set_full(true);
        assert!(matches!(journal.record(&link, epoch, &Record::default()).await, Err(Error::Unavailable(_))));
        assert_eq!(journal.load(&link, 10).await.unwrap(), (None, vec![]));
        journal.set_full(false);
        journal.record(&link, epoch, &Record::default()).await.unwrap();
    }
}
