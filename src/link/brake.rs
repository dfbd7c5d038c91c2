//! The sender's brake: holds back deletes that come in a mass, until a person releases them. Pure.
//!
//! Delete markers and permanent deletes count, by the time they were committed, so that a backlog of many days is no
//! mass. Held deletes make no rows and are not kept in memory: the batch of the first stays unfinished, which holds
//! cursor and floor, and a release reads the feed again from there. Other changes go on. Called by `machine`.
use super::lag::earliest;
use super::retry::RowId;
use super::{Change, Millis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use storage_engine::version::{Kind, Version};

/// Parts a window is counted in: it slides in steps of 1/64 of its length.
const SLOTS: u64 = 64;

/// When deletes are a mass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Share of the bucket's versions, 1..=100.
    pub percent: u32,
    pub window_millis: u64,
    /// Fewer within the window never engage it.
    pub versions_min: u64,
}

impl Terms {
    /// Whether so many deletes, so many of them markers, are a mass among so many versions.
    fn is_mass(&self, (deletes, markers): (u64, u64), versions: u64) -> bool {
        // The markers themselves are versions of the bucket too.
        let before = versions.saturating_sub(markers);
        deletes >= self.versions_min && u128::from(deletes) * 100 >= u128::from(self.percent) * u128::from(before)
    }
}

/// What the journal keeps of a brake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Since when deletes are held back, Unix milliseconds; `None`: they go.
    pub engaged_at: Option<Millis>,
    /// Deletes committed up to then go: they were released, or are older than the link.
    pub released_through: Millis,
    /// The rule's `brakeRelease` last carried out.
    pub release: u64,
}

/// What becomes of a delete that is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Goes,
    Held,
}

/// What deletes that wait call for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Nothing: they may go.
    Nothing,
    /// The bucket's versions are not known: whether to `ask` for them now, and whether deletes `wait` meanwhile.
    Count { ask: bool, wait: bool },
    /// The brake has engaged: what was taken in is read again.
    Engaged,
}

/// Deletes by the time of their commit: how many, and how many of them are markers.
#[derive(Clone, Debug, Default)]
struct Slots(BTreeMap<u64, (u64, u64)>);

/// Deletes taken in and not yet landed, each counted once however often the feed shows it. As bounded as intake is.
#[derive(Debug, Default)]
struct Waiting {
    slots: Slots,
    /// Slot of the first showing, and how many showings wait.
    shown: BTreeMap<RowId, (u64, u32)>,
}

/// The brake of one link.
#[derive(Debug)]
pub(super) struct Brake {
    kept: Option<Kept>,
    /// Deletes the peer took, and those on their way.
    sent: Slots,
    waiting: Waiting,
    /// The greatest pressure since it was last judged.
    peak: (u64, u64),
    total: Option<Total>,
    /// The pressure when the count was asked for whose answer is awaited.
    asked: Option<(u64, u64)>,
    held_versions: u64,
    held_oldest: Option<Millis>,
}

/// Whether what changed is a delete the brake counts.
pub fn is_delete(version: &Version) -> bool {
    version.purged().is_some() || is_marker(version)
}

fn is_marker(version: &Version) -> bool {
    version.purged().is_none() && version.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker)
}

/// Versions in the bucket.
#[derive(Clone, Copy, Debug)]
struct Total {
    versions: u64,
    at: Millis,
    /// The pressure they were counted for: a bucket that grows since has more.
    asked: (u64, u64),
}

impl Slots {
    fn add(&mut self, slot: u64, marker: bool) {
        let (deletes, markers) = self.0.entry(slot).or_default();
        (*deletes, *markers) = (*deletes + 1, *markers + u64::from(marker));
    }
    fn remove(&mut self, slot: u64, marker: bool) {
        if let Some((deletes, markers)) = self.0.get_mut(&slot) {
            (*deletes, *markers) = (deletes.saturating_sub(1), markers.saturating_sub(u64::from(marker)));
            if *deletes == 0 {
                self.0.remove(&slot);
            }
        }
    }
    /// Of the window that ends with `slot`.
    fn within(&self, slot: u64) -> (u64, u64) {
        let window = self.0.range(slot.saturating_sub(SLOTS - 1)..=slot);
        window.fold((0, 0), |(deletes, markers), (_, (d, m))| (deletes + d, markers + m))
    }
}

impl Waiting {
    fn add(&mut self, slot: u64, version: &Version) {
        let (_, shown) = self.shown.entry(name(version)).or_insert_with(|| {
            self.slots.add(slot, is_marker(version));
            (slot, 0)
        });
        *shown += 1;
    }
    fn remove(&mut self, version: &Version) {
        let name = name(version);
        let Some((slot, shown)) = self.shown.get_mut(&name) else { return };
        *shown -= 1;
        if *shown == 0 {
            self.slots.remove(*slot, is_marker(version));
            self.shown.remove(&name);
        }
    }
}

fn name(version: &Version) -> RowId {
    (version.key.clone(), version.id)
}

impl Brake {
    /// As the journal kept it; `None`: the link is new.
    pub(super) fn load(kept: Option<Kept>) -> Self {
        Brake {
            kept,
            sent: Slots::default(),
            waiting: Waiting::default(),
            peak: (0, 0),
            total: None,
            asked: None,
            held_versions: 0,
            held_oldest: None,
        }
    }

    /// What the journal is to keep; `None`: nothing was decided yet.
    pub(super) fn kept(&self) -> Option<Kept> {
        self.kept
    }
    /// Since when deletes are held back.
    pub(super) fn engaged_at(&self) -> Option<Millis> {
        self.kept.and_then(|k| k.engaged_at)
    }
    /// Deletes held back since they were last read; of them the commit time of the oldest.
    pub(super) fn held(&self) -> (u64, Option<Millis>) {
        (self.held_versions, self.held_oldest)
    }

    /// Settles what a new link begins with, and releases where the rule was told to since; true: something was held.
    pub(super) fn begin(&mut self, now: Millis, release: u64) -> bool {
        match &mut self.kept {
            None => {
                // What was deleted before the rule came is no mass.
                self.kept = Some(Kept { engaged_at: None, released_through: now, release });
                false
            }
            Some(kept) if release > kept.release => {
                kept.release = release;
                self.release(now)
            }
            Some(_) => false,
        }
    }

    /// A person lets go what was deleted until now; true: something was held.
    pub(super) fn release(&mut self, now: Millis) -> bool {
        let Some(kept) = &mut self.kept else { return false };
        kept.released_through = kept.released_through.max(now);
        (self.sent, self.peak, self.total) = (Slots::default(), (0, 0), None);
        kept.engaged_at.take().is_some()
    }

    /// A delete is taken in.
    pub(super) fn judge(&mut self, terms: &Terms, change: &Change) -> Verdict {
        let since = change.pending_since;
        if self.is_released(since) {
            return Verdict::Goes;
        }
        if self.engaged_at().is_some() {
            self.held_versions += 1;
            self.held_oldest = earliest(self.held_oldest, Some(since));
            return Verdict::Held;
        }
        let slot = slot(terms, since);
        self.waiting.add(slot, &change.version);
        let (sent, waiting) = (self.sent.within(slot), self.waiting.slots.within(slot));
        self.peak = self.peak.max((sent.0 + waiting.0, sent.1 + waiting.1));
        Verdict::Goes
    }

    /// A delete that was taken in does not wait any more; `counts`: the peer had not had it before.
    pub(super) fn land(&mut self, terms: &Terms, change: &Change, counts: bool) {
        if self.is_released(change.pending_since) {
            return;
        }
        self.waiting.remove(&change.version);
        if counts {
            self.sent.add(slot(terms, change.pending_since), is_marker(&change.version));
            // A window behind the newest nothing is asked for any more, unless a reader is that far behind.
            let newest = self.sent.0.last_key_value().map_or(0, |(newest, _)| *newest);
            self.sent.0 = self.sent.0.split_off(&newest.saturating_sub(2 * SLOTS));
        }
    }

    /// What waits is forgotten and read again.
    pub(super) fn forget_waiting(&mut self) {
        (self.waiting, self.peak) = (Waiting::default(), (0, 0));
        (self.held_versions, self.held_oldest) = (0, None);
    }

    /// Other terms: what was counted under the former ones is not comparable.
    pub(super) fn forget(&mut self) {
        self.forget_waiting();
        (self.sent, self.total) = (Slots::default(), None);
    }

    /// So many versions are in the bucket.
    pub(super) fn counted(&mut self, now: Millis, versions: u64) {
        self.total = Some(Total { versions, at: now, asked: self.asked.take().unwrap_or_default() });
    }

    /// What the deletes that wait call for; the bucket is counted from half of the minimum on, so that nothing waits
    /// for it as a rule. A count serves for a window, but engages nothing by itself: the bucket may have grown since,
    /// so a mass is one by a count that was asked for when it stood there.
    pub(super) fn call(&mut self, now: Millis, terms: &Terms) -> Call {
        let peak = self.peak;
        if self.engaged_at().is_some() || peak.0 < terms.versions_min.div_ceil(2) {
            return Call::Nothing;
        }
        let reaches = peak.0 >= terms.versions_min;
        match self.total.filter(|total| now.saturating_sub(total.at) < terms.window_millis) {
            Some(total) if terms.is_mass(peak, total.versions) => {
                if !terms.is_mass(total.asked, total.versions) {
                    return self.ask(true);
                }
                self.kept.get_or_insert_default().engaged_at = Some(now);
                Call::Engaged
            }
            Some(_) => {
                // It is judged: kept, it would have the bucket counted again in every window to come.
                self.peak = (0, 0);
                Call::Nothing
            }
            None => self.ask(reaches),
        }
    }

    fn ask(&mut self, wait: bool) -> Call {
        let ask = self.asked.is_none();
        self.asked.get_or_insert(self.peak);
        Call::Count { ask, wait }
    }

    fn is_released(&self, since: Millis) -> bool {
        self.kept.is_some_and(|kept| since <= kept.released_through)
    }
}

fn slot(terms: &Terms, since: Millis) -> u64 {
    since / (terms.window_millis / SLOTS).max(1)
}

#[cfg(test)]
mod tests;
