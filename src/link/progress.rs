//! How far the cursor and the floor may move.
//!
//! Changes come in batches, each with the cursor behind it. The cursor folds a batch once all of its
//! changes are at the peer or in a row; the floor stays before the oldest batch that is unfinished or
//! from which a row still stands. Cursors are opaque: their order is the order of batches, by number.
//! Called by `machine` only.
use super::Millis;
use std::collections::BTreeMap;
use storage_engine::feed::Cursor;

/// The place of rows that were loaded: before every batch of this life.
pub(super) const LOADED: u64 = 0;

/// Batches in flight and rows that hold the floor.
#[derive(Debug)]
pub(super) struct Progress {
    /// Unfinished batches; one that finishes early joins the one before it, so that there are never
    /// more of them than changes outstanding.
    batches: BTreeMap<u64, Batch>,
    next: u64,
    taken: Option<Cursor>,
    folded: Option<Cursor>,
    newest_folded: Millis,
    holds: BTreeMap<u64, Hold>,
}

#[derive(Debug)]
struct Batch {
    before: Option<Cursor>,
    cursor: Cursor,
    outstanding: usize,
    newest: Millis,
}

#[derive(Debug)]
struct Hold {
    rows: usize,
    before: Option<Cursor>,
}

impl Progress {
    /// Goes on from a checkpoint; `rows` loaded rows hold its floor together, since the order of their
    /// own floors is unknown.
    pub(super) fn new(cursor: Option<Cursor>, floor: Option<Cursor>, committed_through: Millis, rows: usize) -> Self {
        let mut holds = BTreeMap::new();
        if rows > 0 {
            holds.insert(LOADED, Hold { rows, before: floor });
        }
        let taken = cursor.clone();
        Progress {
            batches: BTreeMap::new(),
            next: LOADED + 1,
            taken,
            folded: cursor,
            newest_folded: committed_through,
            holds,
        }
    }

    /// Goes on from a cursor without rows; batches are numbered from `first`.
    pub(super) fn numbered_from(first: u64, cursor: Option<Cursor>) -> Self {
        Progress { next: first, ..Progress::new(cursor, None, 0, 0) }
    }

    /// Begins at the beginning of the feed again; nothing may be outstanding. Rows keep holding the floor, now there.
    pub(super) fn restart(&mut self) {
        debug_assert!(self.is_settled(), "what is outstanding was forgotten before");
        (self.taken, self.folded, self.newest_folded) = (None, None, 0);
        self.holds.values_mut().for_each(|hold| hold.before = None);
    }

    /// Goes on from a place that has nothing to do with the last one; nothing may be outstanding. What rows hold of the
    /// former feed nobody can say any more: the beginning.
    pub(super) fn go_on_at(&mut self, cursor: Cursor) {
        debug_assert!(self.is_settled(), "what is outstanding was forgotten before");
        (self.taken, self.folded) = (Some(cursor.clone()), Some(cursor));
        self.holds.values_mut().for_each(|hold| hold.before = None);
    }

    /// Whether no change taken in is outstanding.
    pub(super) fn is_settled(&self) -> bool {
        self.batches.is_empty()
    }
    /// Whether rows hold the floor.
    pub(super) fn has_holds(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Everything before it is at the peer or in a row.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        self.folded.clone()
    }

    /// Behind the last change taken in.
    pub(super) fn taken(&self) -> Option<&Cursor> {
        self.taken.as_ref()
    }

    /// Newest commit time among what was folded.
    pub(super) fn newest_folded(&self) -> Millis {
        self.newest_folded
    }

    /// Everything before it is at the peer.
    pub(super) fn floor(&self) -> Option<Cursor> {
        let unfinished = self.batches.keys().next().copied().unwrap_or(self.next);
        match self.holds.first_key_value() {
            Some((place, hold)) if *place < unfinished => hold.before.clone(),
            _ => self.folded.clone(),
        }
    }

    /// Takes a batch in; returns its number.
    pub(super) fn take_in(&mut self, cursor: Cursor, outstanding: usize, newest: Millis) -> u64 {
        let number = self.next;
        self.next += 1;
        let before = self.taken.replace(cursor.clone());
        self.batches.insert(number, Batch { before, cursor, outstanding, newest });
        if outstanding == 0 {
            self.close(number);
        }
        number
    }

    /// One change of a batch is at the peer or in a row.
    pub(super) fn finish(&mut self, number: u64) {
        let batch = self.batches.get_mut(&number).expect("a batch stands while changes of it are outstanding");
        batch.outstanding -= 1;
        if batch.outstanding == 0 {
            self.close(number);
        }
    }

    /// Folds a finished batch into the one before it, or into the cursor.
    fn close(&mut self, number: u64) {
        let batch = self.batches.remove(&number).expect("the caller found it");
        match self.batches.range_mut(..number).next_back() {
            Some((_, earlier)) => {
                earlier.cursor = batch.cursor;
                earlier.newest = earlier.newest.max(batch.newest);
            }
            None => {
                self.folded = Some(batch.cursor);
                self.newest_folded = self.newest_folded.max(batch.newest);
            }
        }
    }

    /// A row stands for a change of this batch; returns the floor it holds.
    pub(super) fn hold(&mut self, number: u64) -> Option<Cursor> {
        let before = self.batches.get(&number).expect("a row is made before its change is finished").before.clone();
        self.holds.entry(number).or_insert_with(|| Hold { rows: 0, before: before.clone() }).rows += 1;
        before
    }

    /// A row of this place is done.
    pub(super) fn release(&mut self, place: u64) {
        let hold = self.holds.get_mut(&place).expect("a row holds its place");
        hold.rows -= 1;
        if hold.rows == 0 {
            self.holds.remove(&place);
        }
    }

    /// Forgets every unfinished batch: they will be read again, under new numbers. Rows made from them
    /// move to the place returned, which stands before those.
    pub(super) fn rewind(&mut self) -> Option<u64> {
        self.taken = self.folded.clone();
        let (first, _) = self.batches.pop_first()?;
        self.batches.clear();
        let moved = self.holds.split_off(&first);
        let rows = moved.values().map(|h| h.rows).sum();
        if rows > 0 {
            self.holds.insert(first, Hold { rows, before: self.folded.clone() });
        }
        Some(first)
    }
}
