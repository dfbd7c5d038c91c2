//! What waits behind a cursor, counted without reading it out: of a long backlog the oldest part is counted and the rest
//! estimated. Shows no change and moves no cursor; links measure themselves by it.
use super::Cursor;
use super::cursor::Position;
use crate::drive::Lsn;
use crate::object::{Error, Objects};
use crate::record::BucketId;
use crate::version::{Kind, Origin, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use tokio::sync::watch;

/// Entries of each drive's log that a backlog counts one by one; what lies further is estimated, so that
/// measuring a long backlog does not slow down working it off. One page of what a link reads at once.
const BACKLOG_ENTRIES: usize = 256;

/// Stretches of logs that are remembered as holding nothing of an interest.
const QUIET_MAX: usize = 256;

/// Which changes of a bucket a reader is after; the default: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interest {
    /// Their keys begin with this.
    pub prefix: String,
    /// Something of them was made at this site.
    pub made_at: Option<Origin>,
    /// Something of them was made elsewhere than at this site.
    pub not_only_at: Option<Origin>,
}

impl Interest {
    /// Of all sites' changes, those of keys that begin with `prefix`.
    pub fn under(prefix: &str) -> Interest {
        Interest { prefix: prefix.into(), ..Interest::default() }
    }
    /// Whether it is one of them.
    pub fn covers(&self, version: &Version) -> bool {
        version.key.starts_with(&self.prefix)
            && self.made_at.as_ref().is_none_or(|site| version.has_origin(site))
            && self.not_only_at.as_ref().is_none_or(|site| !version.is_wholly_of(site))
    }
}

/// What waits behind a cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Changes.
    pub versions: u64,
    /// Bytes of their objects.
    pub bytes: u64,
    /// Unix milliseconds of the oldest one's commit; `None` when nothing waits.
    pub oldest_pending_since: Option<u64>,
}

/// How far behind a cursor nothing of an interest was found: a reader that waits while others write walks each log once,
/// not once a measurement. What is rewritten there comes to stand at a later place.
#[derive(Debug, Default)]
pub struct Quiet(BTreeMap<(BucketId, Interest, Vec<Lsn>), Position>);

impl Quiet {
    /// Where to begin instead of `behind`.
    fn after(&self, name: &(BucketId, Interest, Vec<Lsn>), behind: &Position) -> Position {
        let known = self.0.get(name).filter(|quiet| quiet.incarnations().eq(behind.incarnations()));
        known.unwrap_or(behind).clone()
    }
    fn note(&mut self, name: (BucketId, Interest, Vec<Lsn>), through: Position) {
        if self.0.len() >= QUIET_MAX {
            self.0.clear();
        }
        self.0.insert(name, through);
    }
}

impl Objects {
    /// What of an interest lies behind `cursor` in a bucket: each version counted once, as the drives that answer
    /// know it. Exact for a short backlog and for an empty one; of a long one the oldest part is counted and the rest
    /// estimated from it by the lengths of the logs.
    ///
    /// # Errors
    /// As [`Objects::changes`].
    pub async fn backlog(&self, bucket: &str, cursor: Option<&Cursor>, interest: &Interest) -> Result<Backlog, Error> {
        let bucket = self.bucket(bucket).await?.id;
        let inner = &self.0;
        let behind = inner.position(cursor)?;
        let name = (bucket, interest.clone(), inner.drives.iter().map(|d| behind.place(d.slot())).collect::<Vec<_>>());
        let quiet = || inner.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = quiet().after(&name, &behind);
        let mut position = begin.clone();
        let mut heads: Vec<watch::Receiver<Lsn>> = inner.drives.iter().map(|d| d.head()).collect();
        let (mut backlog, mut counted) = (Backlog::default(), BTreeSet::new());
        let mut everybody = true;
        loop {
            let tails = inner.tails(bucket, &position, &mut heads, BACKLOG_ENTRIES, everybody).await?;
            everybody = false;
            let sightings = inner.sightings.lock().unwrap_or_else(PoisonError::into_inner);
            for logged in tails.iter().flat_map(|t| &t.entries).filter(|l| interest.covers(&l.record.version)) {
                let record = &logged.record;
                let name = (record.key().to_owned(), record.id());
                if !counted.contains(&name) && !sightings.is_past(bucket, &record.version, &behind) {
                    counted.insert(name);
                    backlog.add(bytes_of(&record.version), record.pending_since);
                }
            }
            drop(sightings);
            tails.iter().for_each(|tail| position.set(tail.slot, tail.through));
            if tails.iter().all(|t| t.entries.len() < BACKLOG_ENTRIES) {
                return Ok(backlog);
            }
            // Of what was not met yet nothing can be said: it may have nothing behind the cursor.
            if backlog.versions == 0 {
                quiet().note(name.clone(), position.clone());
            } else {
                let passed = tails.iter().map(|t| t.through - begin.place(t.slot)).sum();
                let left = tails.iter().map(|t| inner.drives[t.slot].head().borrow().saturating_sub(t.through)).sum();
                backlog.extrapolate(passed, left);
                return Ok(backlog);
            }
        }
    }
}

/// Bytes that must travel for a version.
fn bytes_of(version: &Version) -> u64 {
    let birth = version.birth.as_ref().filter(|b| b.kind == Kind::Object && version.purged().is_none());
    birth.map_or(0, |b| b.size_bytes)
}

impl Backlog {
    fn add(&mut self, bytes: u64, pending_since: u64) {
        self.versions += 1;
        self.bytes += bytes;
        self.oldest_pending_since = Some(self.oldest_pending_since.map_or(pending_since, |o| o.min(pending_since)));
    }

    /// Takes what was counted over `passed` places of the logs as the measure of `left` more.
    fn extrapolate(&mut self, passed: Lsn, left: Lsn) {
        let more = |counted: u64| u64::try_from(u128::from(counted) * u128::from(left) / u128::from(passed.max(1)));
        self.versions = self.versions.saturating_add(more(self.versions).unwrap_or(u64::MAX));
        self.bytes = self.bytes.saturating_add(more(self.bytes).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::fixture::{Set, body};
    use crate::object::{Put, Versioning};
    use crate::version::Order;
    use crate::version::{Birth, Hlc, VersionId};

    /// A marker that another site wrote.
    fn foreign(n: u128) -> Version {
        let id = VersionId::from_bytes(n.to_be_bytes());
        let order = Order { hlc: Hlc::from_millis(1), origin: Origin::new("elsewhere"), version_id: id };
        Version { birth: Some(Birth::blank(order, Kind::DeleteMarker)), ..Version::blank(&format!("theirs/{n}"), id) }
    }

    #[tokio::test]
    async fn what_others_wrote_is_walked_once_and_hides_nothing() {
        let set = Set::new();
        let objects = set.start();
        objects.create_bucket("bucket", Versioning::Enabled).await.expect("W");
        for n in 1..=3 * BACKLOG_ENTRIES as u128 {
            objects.apply("bucket", foreign(n), None, None).await.expect("W");
        }
        let own = Interest { made_at: Some(objects.0.origin.clone()), ..Interest::default() };
        let count = async || objects.backlog("bucket", None, &own).await.expect("a read quorum").versions;
        assert_eq!(count().await, 0);
        let walked = objects.0.quiet.lock().expect("nobody panicked").0.values().next().cloned();
        assert!(walked.expect("remembered").place(0) >= 2 * BACKLOG_ENTRIES as Lsn);
        for n in 1..=2 {
            objects.put("bucket", "ours", Put::default(), body("bytes")).await.expect("W");
            assert_eq!(count().await, n);
        }
        let all = objects.backlog("bucket", None, &Interest::default()).await.expect("a read quorum").versions;
        assert!(all > 2 * BACKLOG_ENTRIES as u64, "{all}");
    }
}
