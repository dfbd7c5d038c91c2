//! What a site's store holds, in memory and pure: the twin the simulator runs on.
//!
//! Versions per key under the engine's own join, and a change feed with one entry per version at its
//! latest place, like the bundled store's. Time and ids come as parameters; nothing is ever trimmed.
use super::{Applied, Backlog, Cursor};
use bytes::Bytes;
use std::collections::BTreeMap;
use storage_engine::feed::Event;
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
    /// High-water mark of the clock: durable, like everything here.
    last_hlc: Hlc,
    /// Consumers by name: cursor and floor.
    consumers: BTreeMap<String, (Option<Cursor>, Option<Cursor>)>,
}

/// The place in the feed a cursor means; `None` and what is no cursor of ours: the beginning.
pub fn place(cursor: Option<&Cursor>) -> u64 {
    cursor.and_then(|c| <[u8; 8]>::try_from(&c.0[..]).ok()).map_or(0, u64::from_be_bytes)
}

fn cursor(lsn: u64) -> Cursor {
    Cursor(Bytes::copy_from_slice(&lsn.to_be_bytes()))
}

impl MemoryStore {
    /// An empty bucket of the site `origin`.
    pub fn new(origin: Origin) -> Self {
        MemoryStore {
            origin,
            keys: BTreeMap::new(),
            feed: BTreeMap::new(),
            last_lsn: 0,
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
            order,
            base,
            kind,
            size_bytes,
            etag: format!("{:032x}", hlc.bits()),
            crc64nvme: hlc.bits(),
            checksums: BTreeMap::new(),
            parts: Vec::new(),
            headers: BTreeMap::new(),
            metadata: BTreeMap::new(),
            guards: Default::default(),
            unknown: Default::default(),
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

    /// At most `limit` changes after `after`, and the cursor behind them.
    pub fn changes(&self, after: Option<&Cursor>, limit: usize) -> (Vec<Event>, Cursor) {
        let start = place(after);
        let mut end = start;
        let mut events = Vec::new();
        for (lsn, (key, id)) in self.feed.range(start + 1..).take(limit) {
            let held = &self.keys[key][id];
            events.push(Event { version: held.version.clone(), pending_since: held.pending_since, traceparent: None });
            end = *lsn;
        }
        (events, cursor(end))
    }

    /// What waits behind a cursor under a prefix.
    pub fn backlog(&self, after: Option<&Cursor>, prefix: &str) -> Backlog {
        let mut backlog = Backlog::default();
        for (key, id) in
            self.feed.range(place(after) + 1..).map(|(_, at)| at).filter(|(key, _)| key.starts_with(prefix))
        {
            let held = &self.keys[key][id];
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
    pub fn head(&self) -> u64 {
        self.last_lsn
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
        let lowest_floor = self.consumers.values().map(|(_, floor)| place(floor.as_ref())).min();
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
