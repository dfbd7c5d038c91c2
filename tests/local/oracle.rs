//! What the clients were told: every operation from before it is sent, and what came back. Judges what a site
//! holds: acked is there, unacked is there whole or not at all, deleted stays deleted, nothing is invented.
use crate::s3::{Miss, Said, Tags};
use crate::view::{Seen, View};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use storage_engine::clock::{Clock, SystemClock};

/// Moments in the order in which the test saw them.
type Moment = u64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gone {
    #[default]
    No,
    /// A permanent delete was sent; its outcome is not known.
    Perhaps,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Acked,
}

#[derive(Clone, Debug)]
struct Tagging {
    tags: Tags,
    site: usize,
    began: Moment,
    ended: Moment,
    outcome: Outcome,
}

/// A version whose id a client was told.
#[derive(Clone, Debug)]
pub struct Known {
    /// SHA-256 of its bytes; `None`: a delete marker.
    pub body: Option<String>,
    site: usize,
    began: Moment,
    ended: Moment,
    /// Unix milliseconds at which the client had its ack.
    acked_at: u64,
    pub gone: Gone,
    taggings: Vec<Tagging>,
}

#[derive(Default)]
struct Key {
    versions: BTreeMap<String, Known>,
    /// Bodies sent and not answered: each is there once, whole, or not at all.
    open_bodies: Vec<String>,
    /// Markers asked for and not answered.
    open_markers: usize,
}

/// What was acked, for the figures of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub acked: u64,
    pub unknown: u64,
    pub refused: u64,
}

#[derive(Default)]
struct Inner {
    now: Moment,
    keys: BTreeMap<String, Key>,
    counts: Counts,
}

/// The record of all clients of a run.
#[derive(Default)]
pub struct Oracle(Mutex<Inner>);

/// A version that a client may work on.
#[derive(Clone, Debug)]
pub struct Handle {
    pub key: String,
    pub id: String,
    pub site: usize,
    pub body: Option<String>,
}

impl Inner {
    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }
    fn count<T>(&mut self, said: &Said<T>) {
        match said {
            Ok(_) => self.counts.acked += 1,
            Err(Miss::Refused(..)) => self.counts.refused += 1,
            Err(Miss::Unknown(_)) => self.counts.unknown += 1,
        }
    }
    fn key(&mut self, key: &str) -> &mut Key {
        self.keys.entry(key.to_owned()).or_default()
    }
    fn version(&mut self, key: &str, id: &str) -> &mut Known {
        self.key(key).versions.get_mut(id).expect("only known versions are worked on")
    }
}

impl Oracle {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while held")
    }

    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// A put or a Complete is about to be sent; `body` is unlike every other body of the run.
    pub fn put_begins(&self, key: &str, body: &str) -> Moment {
        let mut inner = self.lock();
        inner.key(key).open_bodies.push(body.to_owned());
        inner.tick()
    }

    pub fn put_ends(&self, site: usize, key: &str, body: &str, began: Moment, said: &Said<String>) {
        let mut inner = self.lock();
        let ended = inner.tick();
        inner.count(said);
        if matches!(said, Err(Miss::Unknown(_))) {
            return;
        }
        let entry = inner.key(key);
        entry.open_bodies.retain(|b| b != body);
        if let Ok(id) = said {
            let known = Known::new(Some(body.to_owned()), site, began, ended);
            assert!(entry.versions.insert(id.clone(), known).is_none(), "{key}: the version id {id} was given twice");
        }
    }

    pub fn delete_begins(&self, key: &str) -> Moment {
        let mut inner = self.lock();
        inner.key(key).open_markers += 1;
        inner.tick()
    }

    pub fn delete_ends(&self, site: usize, key: &str, began: Moment, said: &Said<String>) {
        let mut inner = self.lock();
        let ended = inner.tick();
        inner.count(said);
        if matches!(said, Err(Miss::Unknown(_))) {
            return;
        }
        let entry = inner.key(key);
        entry.open_markers -= 1;
        if let Ok(id) = said {
            let known = Known::new(None, site, began, ended);
            assert!(entry.versions.insert(id.clone(), known).is_none(), "{key}: the version id {id} was given twice");
        }
    }

    /// A permanent delete of a known version is about to be sent.
    pub fn purge_begins(&self, key: &str, id: &str) {
        let mut inner = self.lock();
        let version = inner.version(key, id);
        if version.gone == Gone::No {
            version.gone = Gone::Perhaps;
        }
    }

    pub fn purge_ends(&self, key: &str, id: &str, said: &Said<()>) {
        let mut inner = self.lock();
        inner.count(said);
        if said.is_ok() {
            inner.version(key, id).gone = Gone::Yes;
        }
    }

    /// Tags of a known version are about to be set; the place of this operation among those of the version.
    pub fn tag_begins(&self, site: usize, key: &str, id: &str, tags: &Tags) -> usize {
        let mut inner = self.lock();
        let began = inner.tick();
        let taggings = &mut inner.version(key, id).taggings;
        let tagging = Tagging { tags: tags.clone(), site, began, ended: Moment::MAX, outcome: Outcome::Unknown };
        taggings.push(tagging);
        taggings.len() - 1
    }

    pub fn tag_ends(&self, key: &str, id: &str, place: usize, said: &Said<()>) {
        let mut inner = self.lock();
        let ended = inner.tick();
        inner.count(said);
        let tagging = &mut inner.version(key, id).taggings[place];
        // Refused or unknown, it stays among those that may be seen; that is harmless and keeps the places.
        if said.is_ok() {
            (tagging.ended, tagging.outcome) = (ended, Outcome::Acked);
        }
    }

    /// A version that nobody began to delete, picked by `pick` among so many.
    pub fn some_version(&self, pick: impl FnOnce(usize) -> usize) -> Option<Handle> {
        let inner = self.lock();
        let all: Vec<_> = inner
            .keys
            .iter()
            .flat_map(|(key, entry)| entry.versions.iter().map(move |(id, known)| (key, id, known)))
            .filter(|(_, _, known)| known.gone == Gone::No)
            .collect();
        let (key, id, known) = *all.get(if all.is_empty() { 0 } else { pick(all.len()) })?;
        Some(Handle { key: key.clone(), id: id.clone(), site: known.site, body: known.body.clone() })
    }

    /// The last object that a site acked before `millis` and that nobody began to delete.
    pub fn newest_before(&self, site: usize, millis: u64) -> Option<Handle> {
        let inner = self.lock();
        let all = inner.keys.iter().flat_map(|(key, entry)| entry.versions.iter().map(move |(id, k)| (key, id, k)));
        let own =
            all.filter(|(_, _, k)| k.site == site && k.acked_at < millis && k.gone == Gone::No && k.body.is_some());
        let (key, id, known) = own.max_by_key(|(_, _, k)| k.ended)?;
        Some(Handle { key: key.clone(), id: id.clone(), site, body: known.body.clone() })
    }

    /// Whether somebody began to delete the version.
    pub fn gone(&self, key: &str, id: &str) -> Gone {
        self.lock().version(key, id).gone
    }

    /// Whether tags of the version were ever set.
    pub fn is_tagged(&self, key: &str, id: &str) -> bool {
        let inner = self.lock();
        let known = inner.keys.get(key).and_then(|k| k.versions.get(id));
        known.is_some_and(|k| !k.taggings.is_empty())
    }

    /// Everything a site holds that it should not, and everything it lacks. No operation may be under way.
    pub fn judge(&self, view: &View) -> Vec<String> {
        let inner = self.lock();
        let none = BTreeMap::new();
        let mut wrong = Vec::new();
        for (key, entry) in &inner.keys {
            let seen = view.keys.get(key).unwrap_or(&none);
            entry.judge(key, seen, &mut wrong);
        }
        let strange = view.keys.keys().filter(|k| !inner.keys.contains_key(*k));
        wrong.extend(strange.map(|key| format!("INVENTED key {key}")));
        wrong
    }
}

impl Key {
    fn judge(&self, key: &str, seen: &BTreeMap<String, Seen>, wrong: &mut Vec<String>) {
        for (id, known) in &self.versions {
            let what = if known.body.is_some() { "version" } else { "marker" };
            match (known.gone, seen.get(id)) {
                (Gone::No, None) => wrong.push(format!("LOST {what} {key} {id} acked by site {}", known.site)),
                (Gone::Yes, Some(_)) => wrong.push(format!("RESURRECTED {what} {key} {id}")),
                (_, Some(seen)) => {
                    if seen.body != known.body {
                        wrong.push(format!("WRONG BYTES {key} {id}: {:?}, written {:?}", seen.body, known.body));
                    }
                    if let Some(tags) = &seen.tags
                        && !known.may_show(tags)
                    {
                        wrong.push(format!("WRONG TAGS {key} {id}: {tags:?} of {:?}", known.taggings));
                    }
                }
                (_, None) => {}
            }
        }
        self.judge_unknown(key, seen, wrong);
        self.judge_order(key, seen, wrong);
    }

    /// What no client was told of must be an operation that nobody answered.
    fn judge_unknown(&self, key: &str, seen: &BTreeMap<String, Seen>, wrong: &mut Vec<String>) {
        let mut open = self.open_bodies.clone();
        let mut markers = self.open_markers;
        for (id, seen) in seen.iter().filter(|(id, _)| !self.versions.contains_key(*id)) {
            let is_explained = match &seen.body {
                None => {
                    markers = markers.wrapping_sub(1);
                    markers != usize::MAX
                }
                Some(body) => open.iter().position(|o| o == body).map(|at| open.swap_remove(at)).is_some(),
            };
            if !is_explained {
                wrong.push(format!("INVENTED or twice: {key} {id} {seen:?}"));
                return;
            }
        }
    }

    /// On one site, what began after another's ack is newer.
    fn judge_order(&self, key: &str, seen: &BTreeMap<String, Seen>, wrong: &mut Vec<String>) {
        let shown: Vec<_> = self.versions.iter().filter_map(|(id, k)| seen.get(id).map(|s| (id, k, s))).collect();
        for (a, earlier, seen_a) in &shown {
            for (b, later, seen_b) in &shown {
                let is_after = earlier.site == later.site && earlier.ended < later.began;
                let same_list = seen_a.body.is_some() == seen_b.body.is_some();
                if is_after && (same_list && seen_a.place <= seen_b.place || seen_a.is_latest) {
                    wrong.push(format!("ORDER {key}: {b} began after {a} was acked, and is listed as older"));
                }
            }
        }
        let latest = seen.values().filter(|s| s.is_latest).count();
        if latest != usize::from(!seen.is_empty()) {
            wrong.push(format!("LATEST {key}: {latest} versions of {} are latest", seen.len()));
        }
    }
}

impl Known {
    fn new(body: Option<String>, site: usize, began: Moment, ended: Moment) -> Known {
        let acked_at = SystemClock.now_millis();
        Known { body, site, began, ended, acked_at, gone: Gone::No, taggings: Vec::new() }
    }

    /// Whether these tags are those of an operation that no later one must have replaced.
    fn may_show(&self, tags: &Tags) -> bool {
        let acked = |t: &Tagging| t.outcome == Outcome::Acked;
        if tags.is_empty() {
            return !self.taggings.iter().any(acked);
        }
        self.taggings.iter().filter(|t| t.tags == *tags).any(|t| {
            let replaced = |later: &Tagging| acked(later) && later.site == t.site && later.began > t.ended;
            !self.taggings.iter().any(replaced)
        })
    }
}
