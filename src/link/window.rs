//! What may fly: order per key, and bandwidth.
//!
//! [`Queue`] holds what was taken in and does not fly yet, one lane per key, so that a hot key holds
//! back only itself; [`Pacer`] spreads bytes over time. How much may fly at once is decided in
//! `machine`, which calls both.
use super::Millis;
use super::scope::Item;
use std::collections::{BTreeMap, VecDeque};

/// Changes waiting for their turn, at most one of a key in flight.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: BTreeMap<String, Lane>,
    /// The first of each lane that may fly, by ticket: the head is the oldest of all.
    ready: BTreeMap<u64, String>,
    len: usize,
}

/// Changes of one key; exists while something of the key waits or flies.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Item>,
    is_flying: bool,
}

impl Queue {
    /// Changes that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts a change among the others of its key, by ticket: behind those taken in before it, and before existing ones;
    /// `by_arrival`: before those born after it.
    pub(super) fn push(&mut self, item: Item, by_arrival: bool) {
        let (key, ticket) = (item.key().to_string(), item.ticket);
        let lane = self.lanes.entry(key.clone()).or_default();
        let is_before = |waiting: &Item| if by_arrival { waiting.is_older(&item) } else { waiting.ticket < ticket };
        let at = lane.waiting.iter().rposition(is_before).map_or(0, |last| last + 1);
        if !lane.is_flying && at == 0 {
            if let Some(first) = lane.waiting.front() {
                self.ready.remove(&first.ticket);
            }
            self.ready.insert(ticket, key);
        }
        lane.waiting.insert(at, item);
        self.len += 1;
    }

    /// The oldest change that may fly.
    pub(super) fn peek(&self) -> Option<&Item> {
        let key = self.ready.values().next()?;
        self.lanes.get(key)?.waiting.front()
    }

    /// What waits of one key, oldest first.
    pub(super) fn of_key(&self, key: &str) -> impl Iterator<Item = &Item> {
        self.lanes.get(key).into_iter().flat_map(|lane| &lane.waiting)
    }

    /// Takes that change out; its key counts as flying until [`Queue::land`].
    pub(super) fn pop(&mut self) -> Option<Item> {
        let (_, key) = self.ready.pop_first()?;
        let lane = self.lanes.get_mut(&key).expect("a ready key has a lane");
        lane.is_flying = true;
        self.len -= 1;
        Some(lane.waiting.pop_front().expect("a ready lane is not empty"))
    }

    /// Lets something of `key` fly that is not in the queue (a row); false: something of it flies.
    pub(super) fn take_off(&mut self, key: &str) -> bool {
        let lane = self.lanes.entry(key.to_string()).or_default();
        if lane.is_flying {
            return false;
        }
        lane.is_flying = true;
        if let Some(first) = lane.waiting.front() {
            self.ready.remove(&first.ticket);
        }
        true
    }

    /// What flew of `key` has ended; `back` goes to its place in the lane again.
    pub(super) fn land(&mut self, key: &str, back: Option<Item>, by_arrival: bool) {
        if let Some(item) = back {
            self.push(item, by_arrival);
        }
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.is_flying = false;
        match lane.waiting.front() {
            Some(first) => {
                self.ready.insert(first.ticket, key.to_string());
            }
            None => {
                self.lanes.remove(key);
            }
        }
    }
}

/// A token bucket counted in time: when the next byte may go.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    free_at_micros: u64,
}

/// Unused time that may be caught up on: 100 ms smooth out the shell's jitter without a burst.
const BURST_MICROS: u64 = 100_000;

impl Pacer {
    /// When the next version may go.
    pub(super) fn ready_at(&self) -> Millis {
        self.free_at_micros.div_ceil(1000)
    }

    /// Spends `bytes` at `bytes_per_second`; a version larger than the bucket is paid for afterwards.
    pub(super) fn spend(&mut self, now: Millis, bytes: u64, bytes_per_second: Option<u64>) {
        let Some(rate) = bytes_per_second else {
            self.free_at_micros = 0;
            return;
        };
        let floor = now.saturating_mul(1000).saturating_sub(BURST_MICROS);
        let micros = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        self.free_at_micros = self.free_at_micros.max(floor).saturating_add(micros);
    }
}
