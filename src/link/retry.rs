//! Rows: versions that failed while the peer answered. When they go again, and when one is parked.
//!
//! Exponential back-off with full jitter, hashed from version id, attempt and seed, so that the same
//! life of a link always decides alike. Never drops a row: it goes when the version is at the peer, or
//! when the rule no longer covers it. Called by `machine`.
use super::lag::Pending;
use super::planted::{self, Planted};
use super::{Again, Failure, Millis, Reason, Row, RowState, Why};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use storage_engine::feed::Cursor;
use storage_engine::version::VersionId;

/// Rows a link keeps; beyond it nothing new is taken in. About 5 MiB, and far more than a person reads.
pub const ROWS_MAX: usize = 10_000;
/// The shortest pause before another attempt.
const BACKOFF_MIN_MS: Millis = 100;
/// The longest: a peer that recovers is used again within five minutes.
const BACKOFF_MAX_MS: Millis = 5 * 60 * 1000;
/// Refusals after which a person must look: one may be a grant on its way, five in a row are not.
const REFUSALS_MAX: u32 = 5;
/// What is said of a version stamped ahead of the peer's clock.
pub(super) const CLOCK_AHEAD: &str = "clock_ahead";

/// `last_error` of a version that waits for an older one of its key.
const BEHIND: &str = "waits for an older version of its key, which has failed";

/// Names a row.
pub(super) type RowId = (String, VersionId);
/// What a change brings into its row: its commit time, its bytes, and its trace.
pub(super) type Changed = (Millis, u64, Option<String>);

/// One row and what only this life needs of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) row: Row,
    /// The batch whose floor it holds.
    pub(super) place: u64,
    /// Refusals in a row; counted anew after a restart, which parks later, never sooner.
    refusals: u32,
    is_flying: bool,
}

/// All rows of a link.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: BTreeMap<RowId, Entry>,
    due: BTreeSet<(Millis, RowId)>,
    /// Rows changed since the last record was built.
    touched: BTreeSet<RowId>,
    pub(super) pending: Pending,
    parked: BTreeMap<Reason, u64>,
    clock_ahead: u64,
    /// Of a key only the row that has waited longest is ever due: the peer orders versions by their arrival.
    by_arrival: bool,
}

impl Rows {
    /// Rows as the journal kept them.
    pub(super) fn load(rows: Vec<Row>, place: u64, by_arrival: bool) -> Self {
        let mut loaded = Rows { by_arrival, ..Rows::default() };
        for row in rows {
            loaded.put(Entry { row, place, refusals: 0, is_flying: false });
        }
        loaded
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
    pub(super) fn parked(&self) -> u64 {
        self.parked.values().sum()
    }
    /// How many are parked for each reason.
    pub(super) fn parked_by(&self) -> &BTreeMap<Reason, u64> {
        &self.parked
    }
    pub(super) fn clock_ahead(&self) -> u64 {
        self.clock_ahead
    }
    /// Rows that go again by themselves.
    pub(super) fn retrying(&self) -> u64 {
        self.pending.versions - self.parked()
    }
    pub(super) fn get(&self, id: &RowId) -> Option<&Row> {
        self.rows.get(id).map(|e| &e.row)
    }

    /// Whether another version of this key has a row.
    pub(super) fn has_other_of_key(&self, key: &str, id: VersionId) -> bool {
        self.of_key(key).any(|entry| entry.row.version_id != id)
    }
    fn of_key<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Entry> {
        let from = (key.to_string(), VersionId::from_bytes([0; 16]));
        self.rows.range(from..).map(|(_, entry)| entry).take_while(move |entry| entry.row.key == key)
    }
    /// A new row goes once the others of its key are done; one that has failed before keeps its reason.
    pub(super) fn wait(&mut self, id: &RowId, now: Millis) {
        self.touched.insert(id.clone());
        self.alter(id, |e| {
            if e.row.last_error.is_empty() {
                (e.row.last_error, e.row.reason, e.row.next_attempt) = (BEHIND.into(), Reason::Order, now);
            }
        });
    }

    /// Rows that are due, oldest first, at most `limit`.
    pub(super) fn due(&self, now: Millis, limit: usize) -> Vec<RowId> {
        self.due.iter().take_while(|(at, _)| *at <= now).take(limit).map(|(_, id)| id.clone()).collect()
    }
    /// When the next row is due.
    pub(super) fn next_due(&self) -> Option<Millis> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The clock went back: no row is due later than the longest pause from now.
    pub(super) fn wait_no_longer(&mut self, now: Millis) {
        let latest = now.saturating_add(BACKOFF_MAX_MS);
        let far: Vec<RowId> =
            self.due.iter().rev().take_while(|(at, _)| *at > latest).map(|(_, id)| id.clone()).collect();
        for id in far {
            self.alter(&id, |e| e.row.next_attempt = latest);
        }
    }

    /// The row flies: it is not due again before it has landed.
    pub(super) fn take_off(&mut self, id: &RowId) {
        self.alter(id, |e| e.is_flying = true);
    }
    /// Its push ended without an answer that counts.
    pub(super) fn land(&mut self, id: &RowId) {
        self.alter(id, |e| e.is_flying = false);
    }

    /// The peer answered, and did not take it: the row's next attempt, or its end as parked.
    pub(super) fn fail(&mut self, id: &RowId, now: Millis, seed: u64, failure: &Failure) {
        self.touched.insert(id.clone());
        self.alter(id, |e| {
            e.is_flying = false;
            e.row.attempts = e.row.attempts.saturating_add(1);
            let pause = backoff_ms(id.1, e.row.attempts, seed);
            let (why, pause) = match failure {
                Failure::Retryable(why) | Failure::Refused(why) => (why.clone(), pause),
                Failure::ClockAhead { after_ms } => {
                    (Why::new(Reason::ClockAhead, CLOCK_AHEAD), (*after_ms).clamp(BACKOFF_MIN_MS, BACKOFF_MAX_MS))
                }
                Failure::PeerGone => (Why::new(Reason::Other, "peer gone"), pause),
            };
            e.refusals = if matches!(failure, Failure::Refused(_)) { e.refusals + 1 } else { 0 };
            (e.row.last_error, e.row.reason) = (why.said, why.reason);
            e.row.next_attempt = now.saturating_add(pause);
            // A newer change of a parked version, which the peer does not refuse, takes the row with it.
            let was_parked = e.row.state == RowState::Parked && planted::has(Planted::ParkedForGood);
            let is_parked = e.refusals >= REFUSALS_MAX || was_parked;
            e.row.state = if is_parked { RowState::Parked } else { RowState::Pending };
        });
    }

    /// Makes a row for a version that has none yet; [`Rows::fail`] then says when it goes again.
    pub(super) fn make(&mut self, id: RowId, change: Changed, place: u64, floor: Option<Cursor>) {
        let ((key, version_id), (pending_since, bytes, traceparent)) = (id, change);
        let row = Row {
            key,
            version_id,
            pending_since,
            bytes,
            attempts: 0,
            next_attempt: 0,
            last_error: String::new(),
            reason: Reason::Other,
            state: RowState::Pending,
            floor,
            traceparent,
        };
        self.put(Entry { row, place, refusals: 0, is_flying: false });
    }

    /// Another change of a version that has a row failed too: the older commit time counts, and the later trace.
    pub(super) fn merge(&mut self, id: &RowId, (pending_since, bytes, traceparent): Changed) {
        self.alter(id, |e| {
            e.row.pending_since = e.row.pending_since.min(pending_since);
            e.row.bytes = bytes;
            e.row.traceparent = traceparent.or(e.row.traceparent.take());
        });
    }

    /// Takes a row out: its version is at the peer, or no longer meant for it.
    pub(super) fn remove(&mut self, id: &RowId) -> Option<Entry> {
        let entry = self.take(id)?;
        self.touched.insert(id.clone());
        self.let_first_go(&id.0);
        Some(entry)
    }

    /// A person wants these rows to go now, and to be refused as often again before they are parked.
    pub(super) fn release(&mut self, now: Millis, which: &Again) {
        let meant = self.rows.iter().filter(|(_, e)| !e.is_flying && which.matches(&e.row));
        let ids: Vec<RowId> = meant.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.alter(&id, |e| {
                e.row.state = RowState::Pending;
                e.row.attempts = 0;
                e.refusals = 0;
                e.row.next_attempt = now;
            });
            self.touched.insert(id);
        }
    }

    /// Parked rows, then the others as they are due; at most `limit`.
    pub(super) fn all(&self, limit: usize) -> Vec<Row> {
        let of = |state| self.rows.values().map(|e| &e.row).filter(move |r| r.state == state);
        let mut pending: Vec<&Row> = of(RowState::Pending).collect();
        pending.sort_by_key(|r| r.next_attempt);
        of(RowState::Parked).chain(pending).take(limit).cloned().collect()
    }

    /// Parked rows, the newest change first; at most `limit`.
    pub(super) fn newest_parked(&self, limit: usize) -> Vec<Row> {
        let mut parked: Vec<&Row> =
            self.rows.values().map(|e| &e.row).filter(|r| r.state == RowState::Parked).collect();
        parked.sort_by_key(|r| Reverse(r.pending_since));
        parked.into_iter().take(limit).cloned().collect()
    }

    /// Rows of keys outside `prefix`, which the rule no longer covers.
    pub(super) fn outside(&self, prefix: &str) -> Vec<RowId> {
        self.rows.keys().filter(|(key, _)| !key.starts_with(prefix)).cloned().collect()
    }

    /// Those in flight have landed.
    pub(super) fn land_all(&mut self) {
        let flying: Vec<RowId> = self.rows.iter().filter(|(_, e)| e.is_flying).map(|(id, _)| id.clone()).collect();
        flying.iter().for_each(|id| self.land(id));
    }
    /// Rows made from batches `places`, which are forgotten now, hold the first of them.
    pub(super) fn move_back(&mut self, places: std::ops::Range<u64>) {
        let moved = self.rows.values_mut().filter(|e| places.contains(&e.place));
        moved.for_each(|e| e.place = places.start);
    }

    /// Whether rows changed since the last record.
    pub(super) fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }
    /// Rows for the next record: those that stand, and those that are gone.
    pub(super) fn take_touched(&mut self) -> (Vec<Row>, Vec<RowId>) {
        let (mut upserts, mut deletes) = (Vec::new(), Vec::new());
        for id in std::mem::take(&mut self.touched) {
            match self.rows.get(&id) {
                Some(e) => upserts.push(e.row.clone()),
                None => deletes.push(id),
            }
        }
        (upserts, deletes)
    }

    /// Every change of a row goes through here, so that the counts and the due list always agree.
    fn alter(&mut self, id: &RowId, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(mut entry) = self.take(id) else { return false };
        change(&mut entry);
        self.put(entry);
        true
    }
    fn put(&mut self, entry: Entry) {
        let id = (entry.row.key.clone(), entry.row.version_id);
        self.pending.add(entry.row.pending_since, entry.row.bytes);
        match entry.row.state {
            RowState::Parked => *self.parked.entry(entry.row.reason).or_default() += 1,
            RowState::Pending => self.clock_ahead += u64::from(entry.row.reason == Reason::ClockAhead),
        }
        if entry.row.state == RowState::Pending && !entry.is_flying && !self.by_arrival {
            self.due.insert((entry.row.next_attempt, id.clone()));
        }
        let key = id.0.clone();
        self.rows.insert(id, entry);
        self.let_first_go(&key);
    }
    /// By arrival: of the rows of a key only the one that has waited longest is due, and none while that one is parked.
    fn let_first_go(&mut self, key: &str) {
        if !self.by_arrival {
            return;
        }
        let age = |e: &&Entry| (e.row.pending_since, e.row.version_id);
        let first = self.of_key(key).min_by_key(age).map(|e| e.row.version_id);
        let place = |e: &Entry| {
            let is_due = e.row.state == RowState::Pending && !e.is_flying && Some(e.row.version_id) == first;
            (is_due, (e.row.next_attempt, (e.row.key.clone(), e.row.version_id)))
        };
        let places: Vec<_> = self.of_key(key).map(place).collect();
        for (is_due, place) in places {
            if is_due {
                self.due.insert(place);
            } else {
                self.due.remove(&place);
            }
        }
    }
    fn unpark(&mut self, reason: Reason) {
        if let Some(count) = self.parked.get_mut(&reason) {
            *count -= 1;
            if *count == 0 {
                self.parked.remove(&reason);
            }
        }
    }
    fn take(&mut self, id: &RowId) -> Option<Entry> {
        let entry = self.rows.remove(id)?;
        self.pending.remove(entry.row.pending_since, entry.row.bytes);
        match entry.row.state {
            RowState::Parked => self.unpark(entry.row.reason),
            RowState::Pending => self.clock_ahead -= u64::from(entry.row.reason == Reason::ClockAhead),
        }
        self.due.remove(&(entry.row.next_attempt, id.clone()));
        Some(entry)
    }
}

/// The pause before the attempt after `attempts` failed ones: between 100 ms and 100 ms · 2^attempts,
/// at most 5 min.
///
/// # Source
/// "Full jitter": M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
pub(super) fn backoff_ms(version_id: VersionId, attempts: u32, seed: u64) -> Millis {
    let ceiling = BACKOFF_MIN_MS.saturating_mul(1 << attempts.min(16)).min(BACKOFF_MAX_MS);
    let id = u128::from_be_bytes(*version_id.as_bytes());
    let dice = mix(seed ^ mix((id >> 64) as u64) ^ mix((id as u64).wrapping_add(u64::from(attempts))));
    BACKOFF_MIN_MS + dice % (ceiling - BACKOFF_MIN_MS + 1)
}

/// SplitMix64's finalizer: every input bit reaches every output bit.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    /// The first outputs of SplitMix64 from the seeds 0 and 1234567, as published with it.
    #[test]
    fn mixing_is_that_of_splitmix64() {
        assert_eq!((super::mix(0), super::mix(1_234_567)), (0xe220_a839_7b1d_cdaf, 6_457_827_717_110_365_317));
    }
}
