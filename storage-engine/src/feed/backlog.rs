//! What waits behind a cursor, counted without reading it out: of a long backlog the oldest part is counted and the rest
//! estimated. Shows no change and moves no cursor; links measure themselves by it.
use super::Cursor;
use super::cursor::Position;
use crate::drive::{Drive, Lsn};
use crate::object::{Error, Inner, Objects};
use crate::record::BucketId;
use crate::version::{Kind, Origin, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Entries of each drive's log that a backlog counts one by one; what lies further is estimated, so that
/// measuring a long backlog does not slow down working it off. One page of what a link reads at once.
const BACKLOG_ENTRIES: usize = 256;

/// Interests of which a stretch of the logs is remembered as holding nothing: some 600 bytes each, one a link.
const QUIET_MAX: usize = 4_096;

/// How long it is taken from memory alone that nothing waits, before it is looked whether enough drives still answer.
const TRUST: Duration = Duration::from_secs(5);

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

/// Where nothing of an interest was found: a reader that waits while others write walks each log once, not once a
/// measurement, and a reader for whom nothing waits asks no drive. What is rewritten there comes to stand at a later place.
#[derive(Debug, Default)]
pub struct Quiet(BTreeMap<(BucketId, Interest), Stretch>);

/// Nothing of the interest stands between these two places.
#[derive(Clone, Debug)]
struct Stretch {
    behind: Position,
    through: Position,
    /// When all drives were last asked; `None`: never.
    asked_at: Option<Instant>,
}

impl Stretch {
    fn none(at: &Position) -> Stretch {
        Stretch { behind: at.clone(), through: at.clone(), asked_at: None }
    }
}

impl Quiet {
    /// What is known of the logs from `behind` on.
    fn from(&self, name: &(BucketId, Interest), behind: &Position) -> Option<Stretch> {
        let known = self.0.get(name)?;
        let is_same = known.behind.incarnations().eq(behind.incarnations());
        (is_same && known.behind.is_at_or_before(behind)).then(|| known.clone())
    }
    fn note(&mut self, name: (BucketId, Interest), stretch: Stretch) {
        if self.0.len() >= QUIET_MAX && !self.0.contains_key(&name) {
            self.0.clear();
        }
        self.0.insert(name, stretch);
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
        let name = (bucket, interest.clone());
        let quiet = || inner.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        let known = quiet().from(&name, &behind).unwrap_or_else(|| Stretch::none(&behind));
        let Stretch { behind: from, through: begin, asked_at } = inner.beyond(known, &behind);
        let mut everybody = asked_at.is_none_or(|at| at.elapsed() >= TRUST);
        let asked_at = asked_at.filter(|_| !everybody).or_else(|| Some(Instant::now()));
        let mut position = begin.clone();
        let (mut backlog, mut counted) = (Backlog::default(), BTreeSet::new());
        loop {
            let tails = inner.tails(bucket, &position, &inner.heads(), BACKLOG_ENTRIES, everybody).await?;
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
            // Of what was not met yet nothing can be said: it may have nothing behind the cursor.
            if backlog.versions == 0 {
                let through = position.clone();
                quiet().note(name.clone(), Stretch { behind: from.clone(), through, asked_at });
            }
            if tails.iter().all(|t| t.entries.len() < BACKLOG_ENTRIES) {
                return Ok(backlog);
            }
            if backlog.versions > 0 {
                let passed = tails.iter().map(|t| t.through - begin.place(t.slot)).sum();
                let left = tails.iter().map(|t| inner.drives[t.slot].head().borrow().saturating_sub(t.through)).sum();
                backlog.extrapolate(passed, left);
                return Ok(backlog);
            }
        }
    }
}

impl Inner {
    /// Where to walk on from what is known, for a reader at `behind`: on each drive behind whichever is further.
    fn beyond(&self, known: Stretch, behind: &Position) -> Stretch {
        let is_short = |drive: &Arc<dyn Drive>| known.through.place(drive.slot()) > *drive.head().borrow();
        if self.drives.iter().any(is_short) {
            // A log that was set back is read anew.
            return Stretch::none(behind);
        }
        let mut begin = behind.clone();
        for slot in self.drives.iter().map(|drive| drive.slot()) {
            begin.set(slot, known.through.place(slot).max(behind.place(slot)));
        }
        // What lies between the two was not walked where the reader is further.
        let is_joined = behind.is_at_or_before(&known.through);
        let from = if is_joined { known.behind } else { behind.clone() };
        Stretch { behind: from, through: begin, asked_at: known.asked_at }
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
        assert!(walked.expect("remembered").through.place(0) >= 2 * BACKLOG_ENTRIES as Lsn);
        for n in 1..=2 {
            objects.put("bucket", "ours", Put::default(), body("bytes")).await.expect("W");
            assert_eq!(count().await, n);
        }
        set.drives.iter().for_each(|drive| drive.set_offline(true));
        assert!(objects.backlog("bucket", None, &own).await.is_err(), "what waits must be counted");
        let read = objects.head("bucket").await.expect("it is known here");
        assert!(objects.backlog("bucket", Some(&read), &own).await.is_ok(), "nobody is asked what is known");
        set.drives.iter().for_each(|drive| drive.set_offline(false));
        assert_eq!(count().await, 2, "what a reader further on has passed waits for others");
        let all = objects.backlog("bucket", None, &Interest::default()).await.expect("a read quorum").versions;
        assert!(all > 2 * BACKLOG_ENTRIES as u64, "{all}");
    }
}
