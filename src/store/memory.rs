//! What a site's store holds, in memory and pure: the twin the simulator runs on.
//!
//! Versions per key under the engine's own join, and a change feed with one entry per version at its
//! latest place, like the bundled store's. Time and ids come as parameters; nothing is ever trimmed.
use super::{Applied, Backlog, Cursor, Interest, Stretch};
use crate::link::planted::{self, Planted};
use bytes::Bytes;
use std::collections::BTreeMap;
use storage_engine::feed::Event;
use storage_engine::version::guard::Retention;
use storage_engine::version::{Birth, Hlc, Kind, Order, Origin, Purges, Stamp, Tags, Version, VersionId, merge};

/// A version and its place in the feed.
#[derive(Clone, Debug)]
struct Held {
    version: Version,
    lsn: u64,
    pending_since: u64,
}

/// One bucket of one site.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    origin: Origin,
    keys: BTreeMap<String, BTreeMap<VersionId, Held>>,
    feed: BTreeMap<u64, (String, VersionId)>,
    last_lsn: u64,
    /// Life of its content: cursors of another one are not known here.
    life: u64,
    /// High-water mark of the clock: durable, like everything here.
    last_hlc: Hlc,
    /// Consumers by name: cursor and floor.
    consumers: BTreeMap<String, (Option<Cursor>, Option<Cursor>)>,
}

/// What a cursor says: the life of the store's content, and a place in its feed.
fn parse(cursor: &Cursor) -> Option<(u64, u64)> {
    let bytes = u128::from_be_bytes(cursor.0[..].try_into().ok()?);
    Some(((bytes >> 64) as u64, bytes as u64))
}

impl MemoryStore {
    /// An empty bucket of the site `origin`.
    pub fn new(origin: Origin) -> Self {
        MemoryStore {
            origin,
            keys: BTreeMap::new(),
            feed: BTreeMap::new(),
            last_lsn: 0,
            life: 0,
            last_hlc: Hlc::ZERO,
            consumers: BTreeMap::new(),
        }
    }

    /// Makes a new version of `key`; returns it as acked.
    pub fn put(&mut self, now: u64, key: &str, id: VersionId, kind: Kind, size_bytes: u64) -> Version {
        let base = self.versions_of(key).filter_map(|v| v.birth.as_ref()).map(|b| b.order.clone()).max();
        let hlc = self.tick(now, key);
        let order = Order { hlc, origin: self.origin.clone(), version_id: id };
        let birth = Birth {
            base,
            size_bytes,
            etag: format!("{:032x}", hlc.bits()),
            crc64nvme: hlc.bits(),
            ..Birth::blank(order, kind)
        };
        let version = Version { birth: Some(birth), ..Version::blank(key, id) };
        self.join(now, &version);
        version
    }

    /// Sets the tags of a live version; returns the change as acked, `None` where S3 shows no such version.
    pub fn tag(&mut self, now: u64, key: &str, id: VersionId, set: BTreeMap<String, String>) -> Option<Version> {
        self.get(key, id).filter(|v| v.is_live())?;
        let stamp = self.stamp(now, key);
        let change = Version { tags: Some(Tags::new(stamp, set)), ..Version::blank(key, id) };
        self.join(now, &change);
        Some(change)
    }

    /// Sets or lifts the legal hold of a live version; returns the change as acked, `None` where nothing changes.
    pub fn hold(&mut self, now: u64, key: &str, id: VersionId, on: bool) -> Option<Version> {
        let guards = self.get(key, id).filter(|v| v.is_live())?.guards();
        let later_guards = guards.hold(on, &self.stamp(now, key));
        let change = Version { later_guards, ..Version::blank(key, id) };
        self.join(now, &change).then_some(change)
    }

    /// Sets the retention of a live version; returns the change as acked, `None` where nothing changes or a stronger
    /// one stands.
    pub fn retain(&mut self, now: u64, key: &str, id: VersionId, retention: Retention) -> Option<Version> {
        let guards = self.get(key, id).filter(|v| v.is_live())?.guards();
        let later_guards = guards.retain(Some(retention), false, &self.stamp(now, key)).ok()?;
        let change = Version { later_guards, ..Version::blank(key, id) };
        self.join(now, &change).then_some(change)
    }

    /// Deletes a live version for good; returns the change as acked, `None` where a guard forbids it.
    pub fn purge(&mut self, now: u64, key: &str, id: VersionId) -> Option<Version> {
        let seen = self.get(key, id).filter(|v| v.is_live())?.guards();
        let stamp = self.stamp(now, key);
        seen.permit_purge(stamp.hlc.millis()).ok()?;
        let change = Version { purges: Purges::one(seen, stamp), ..Version::blank(key, id) };
        self.join(now, &change);
        Some(change)
    }

    /// Joins a version born elsewhere.
    pub fn apply(&mut self, now: u64, version: &Version) -> Applied {
        let was_purged = self.get(&version.key, version.id).is_some_and(|v| v.purged().is_some());
        match self.join(now, version) {
            true => Applied::Applied,
            false if was_purged => Applied::Superseded,
            false => Applied::AlreadyPresent,
        }
    }

    /// All that is held of a version.
    pub fn get(&self, key: &str, id: VersionId) -> Option<&Version> {
        self.keys.get(key)?.get(&id).map(|h| &h.version)
    }
    /// Everything held of one key, by id.
    pub fn versions_of(&self, key: &str) -> impl Iterator<Item = &Version> {
        self.keys.get(key).into_iter().flat_map(|ids| ids.values().map(|h| &h.version))
    }
    /// Everything held, with its place in the feed.
    pub fn versions(&self) -> impl Iterator<Item = (u64, &Version)> {
        self.keys.values().flat_map(|ids| ids.values().map(|h| (h.lsn, &h.version)))
    }
    /// Commit time here of the oldest change of a version that some consumer has not made durable at its end.
    pub fn pending_since(&self, key: &str, id: VersionId) -> Option<u64> {
        self.keys.get(key)?.get(&id).map(|h| h.pending_since)
    }
    /// Versions that S3 shows of one key, newest first.
    pub fn list(&self, key: &str) -> Vec<&Version> {
        let mut live: Vec<&Version> = self.versions_of(key).filter(|v| v.is_live()).collect();
        live.sort_by(|a, b| b.birth.as_ref().map(|b| &b.order).cmp(&a.birth.as_ref().map(|b| &b.order)));
        live
    }
    /// Keys with anything under them.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.keys.keys()
    }
    /// At most `limit` versions that S3 shows, by key, newest first, behind one of them.
    pub fn page(&self, after: Option<(String, VersionId)>, limit: usize) -> Vec<Version> {
        let all = self.keys.keys().flat_map(|key| self.list(key)).cloned();
        let Some((key, id)) = after else { return all.take(limit).collect() };
        all.skip_while(|v| (&v.key, v.id) != (&key, id)).skip(1).take(limit).collect()
    }
    /// Everything held of at most `limit` keys under a prefix, behind one of them.
    pub fn stretch(&self, prefix: &str, after: Option<&str>, limit: usize) -> Stretch {
        let wanted = |key: &&String| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
        let mut keys = self.keys.keys().filter(wanted);
        let told: Vec<_> = keys.by_ref().take(limit).collect();
        let versions = told.iter().flat_map(|key| self.versions_of(key)).cloned().collect();
        Stretch { versions, through: keys.next().and(told.last().copied().cloned()) }
    }

    /// At most `limit` changes after `after`, and the cursor behind them.
    pub fn changes(&self, after: Option<&Cursor>, limit: usize) -> (Vec<Event>, Cursor) {
        let start = self.place(after);
        let mut end = start;
        let mut events = Vec::new();
        for (lsn, (key, id)) in self.feed.range(start + 1..).take(limit) {
            let held = &self.keys[key][id];
            events.push(Event { version: held.version.clone(), pending_since: held.pending_since, traceparent: None });
            end = *lsn;
        }
        (events, self.cursor(end))
    }

    /// What of an interest waits behind a cursor.
    pub fn backlog(&self, after: Option<&Cursor>, interest: &Interest) -> Backlog {
        let mut backlog = Backlog::default();
        let behind = self.feed.range(self.place(after) + 1..).map(|(_, (key, id))| &self.keys[key][id]);
        for held in behind.filter(|held| interest.covers(&held.version)) {
            backlog.versions += 1;
            backlog.bytes += held.version.birth.as_ref().map_or(0, |b| b.size_bytes);
            let since = held.pending_since;
            backlog.oldest_pending_since = Some(backlog.oldest_pending_since.map_or(since, |t| t.min(since)));
        }
        backlog
    }

    /// Registers a consumer; returns its committed floor.
    pub fn register(&mut self, consumer: &str) -> Option<Cursor> {
        self.consumers.entry(consumer.to_string()).or_default().1.clone()
    }
    /// Commits what a consumer has read and what is durable at its end.
    pub fn commit(&mut self, consumer: &str, cursor: Option<Cursor>, floor: Option<Cursor>) {
        self.consumers.insert(consumer.to_string(), (cursor, floor));
    }
    /// Where the feed ends.
    pub fn head(&self) -> Cursor {
        self.cursor(self.last_lsn)
    }
    /// The place in the feed a cursor means; `None` and what is not known here: the beginning.
    pub fn place(&self, cursor: Option<&Cursor>) -> u64 {
        let known = cursor.and_then(parse).filter(|(life, _)| *life == self.life);
        known.map_or(0, |(_, lsn)| lsn)
    }
    /// Whether the feed can be read on from a cursor; else it has expired.
    pub fn knows(&self, cursor: Option<&Cursor>) -> bool {
        cursor.is_none_or(|c| parse(c).is_some_and(|(life, _)| life == self.life))
    }
    /// What is held begins another life, numbered `life`: cursors handed out until now are not known any more.
    pub fn renew(&mut self, life: u64) {
        self.life = life;
    }
    /// The process that serves it begins anew; all it holds is durable.
    pub fn restart(&mut self) {
        if planted::has(Planted::ClockForgotten) {
            self.last_hlc = Hlc::ZERO;
        }
    }

    fn cursor(&self, lsn: u64) -> Cursor {
        let bytes = u128::from(self.life) << 64 | u128::from(lsn);
        Cursor(Bytes::copy_from_slice(&bytes.to_be_bytes()))
    }

    /// A reading above every earlier one here and above the newest of the key.
    fn tick(&mut self, now: u64, key: &str) -> Hlc {
        let newest = self.versions_of(key).map(Version::max_hlc).max().unwrap_or(Hlc::ZERO);
        self.last_hlc = Hlc::from_millis(now).max(self.last_hlc.next()).max(newest.next());
        self.last_hlc
    }
    fn stamp(&mut self, now: u64, key: &str) -> Stamp {
        Stamp::new(self.tick(now, key), self.origin.clone())
    }

    /// Record and feed entry change together, or not at all; true: something was learnt.
    fn join(&mut self, now: u64, change: &Version) -> bool {
        if planted::has(Planted::EarlyPurgeForgotten)
            && !change.purges.is_empty()
            && self.get(&change.key, change.id).is_none()
        {
            return false;
        }
        let lowest_floor = self.consumers.values().map(|(_, floor)| self.place(floor.as_ref())).min();
        let ids = self.keys.entry(change.key.clone()).or_default();
        let blank = || Held { version: Version::blank(&change.key, change.id), lsn: 0, pending_since: now };
        let held = ids.entry(change.id).or_insert_with(blank);
        if !merge::join(&mut held.version, change).changed {
            return false;
        }
        // An earlier change of it that some consumer has not yet made durable keeps its commit time.
        if held.lsn == 0 || lowest_floor.is_some_and(|floor| held.lsn <= floor) {
            held.pending_since = now;
        }
        self.feed.remove(&held.lsn);
        self.last_lsn += 1;
        held.lsn = self.last_lsn;
        self.feed.insert(held.lsn, (change.key.clone(), change.id));
        true
    }
}
