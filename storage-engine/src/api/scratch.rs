//! Buckets that a replicator makes for a trial, writes and reads as a client does, and removes with all that is in them;
//! and, for a trial of a user's bucket, the place in it that bears the trial's id, and the fence that turns its clients
//! away for a while. Nothing else is touched: whoever may ask here replicates, and is no user of the store.
use super::message::tag;
use super::{Error, Objects};
use crate::object::{Conditions, List, Listed, Put, Versioning};
use crate::version::VersionId;
use crate::wire::{self, Fields};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use std::io;
use std::time::Duration;

/// Their names begin with this.
pub const PREFIX: &str = "isthmus-drill-";
/// In a user's bucket the keys of a trial have this and its id in them.
const PLACE: &str = "isthmus-drill/";
/// Largest object: what is written in a trial is counted, not weighed.
pub const OBJECT_BYTES_MAX: usize = 1 << 20;
/// Versions listed at once for removal.
const PAGE: usize = 500;
/// Versions removed at once: group commit takes them together.
const AT_ONCE: usize = 32;

/// What is done to such a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Makes it, with versioning; [`Error::BucketExists`].
    Make,
    /// Removes it with every version; one that is not there is fine. Again is safe.
    Remove,
    Put {
        key: String,
        bytes: Bytes,
    },
    /// Deletes the key: a marker.
    Delete {
        key: String,
    },
    /// Reads the latest version whole.
    Read {
        key: String,
    },
    /// Removes every version below the place of a trial; what retention or legal hold keeps is hidden by a marker. A
    /// bucket that is not there is fine. Again is safe.
    Clear {
        prefix: String,
    },
    /// Turns the clients of the bucket away at the front door, those that write or all of them, for so long at most; 0:
    /// lifts what this trial set. It returns once the writes before it are answered, but for one that shuts reads too: a
    /// site that is lost waits for nobody.
    Fence {
        trial: String,
        shuts_reads: bool,
        ttl_millis: u64,
    },
}

/// The place of a trial in a user's bucket: its keys begin with it, and it begins with `prefix`.
pub fn place(prefix: &str, id: &str) -> String {
    format!("{prefix}{PLACE}{id}/")
}

/// Whether this can be the id of a trial: it becomes a part of names of buckets, keys and files.
pub fn is_id(id: &str) -> bool {
    (8..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Whether a key, or all that begin with it, lie in the place of some trial.
fn is_in_place(key: &str) -> bool {
    let is_place =
        |(at, found): (usize, &str)| key[at + found.len()..].split_once('/').is_some_and(|(id, _)| is_id(id));
    key.match_indices(PLACE).any(is_place)
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    Nothing,
    /// The version that was made.
    Made(VersionId),
    Read(Bytes),
}

impl Act {
    /// Its fields.
    pub(super) fn put(&self, f: &mut Fields) {
        let (kind, key) = match self {
            Act::Make => (1, None),
            Act::Remove => (2, None),
            Act::Put { key, .. } => (3, Some(key)),
            Act::Delete { key } => (4, Some(key)),
            Act::Read { key } => (5, Some(key)),
            Act::Clear { prefix } => (6, Some(prefix)),
            Act::Fence { trial, .. } => (7, Some(trial)),
        };
        f.put(tag::ACT, &kind);
        f.put_some(tag::KEY, &key);
        if let Act::Put { bytes, .. } = self {
            f.put_bytes(tag::OBJECT, bytes);
        }
        if let Act::Fence { shuts_reads, ttl_millis, .. } = self {
            f.put(tag::SHUTS_READS, shuts_reads);
            f.put(tag::TTL_MILLIS, ttl_millis);
        }
    }

    /// The act these fields are.
    pub(super) fn take(f: &mut Fields) -> Result<Act, wire::Error> {
        Ok(match f.need::<u8>(tag::ACT)? {
            1 => Act::Make,
            2 => Act::Remove,
            3 => {
                let bytes: minicbor::bytes::ByteVec = f.need(tag::OBJECT)?;
                Act::Put { key: f.need(tag::KEY)?, bytes: Vec::from(bytes).into() }
            }
            4 => Act::Delete { key: f.need(tag::KEY)? },
            5 => Act::Read { key: f.need(tag::KEY)? },
            6 => Act::Clear { prefix: f.need(tag::KEY)? },
            7 => Act::Fence {
                trial: f.need(tag::KEY)?,
                shuts_reads: f.need(tag::SHUTS_READS)?,
                ttl_millis: f.need(tag::TTL_MILLIS)?,
            },
            other => return Err(wire::Error::Malformed(format!("act {other} is unknown"))),
        })
    }
}

impl Objects {
    /// Does something to a bucket of a trial, or in its place in another, or fences one, by the roads of S3 and without its door.
    ///
    /// # Errors
    /// [`Error::Invalid`]: it is no such bucket or place, or the object is too large; otherwise as the S3 operation.
    pub async fn scratch(&self, bucket: &str, act: Act) -> Result<Done, Error> {
        let is_its_place = match &act {
            Act::Make | Act::Remove => false,
            Act::Fence { trial, .. } => is_id(trial),
            Act::Put { key, .. } | Act::Delete { key } | Act::Read { key } | Act::Clear { prefix: key } => {
                is_in_place(key)
            }
        };
        if !bucket.starts_with(PREFIX) && !is_its_place {
            let why = format!("{bucket} is a user's bucket: only {PREFIX}* are written here, and keys in {PLACE}ID/");
            return Err(Error::Invalid(why));
        }
        match act {
            Act::Make => self.create_bucket(bucket, Versioning::Enabled).await.map(|_| Done::Nothing),
            Act::Remove => self.remove_scratch(bucket).await.map(|()| Done::Nothing),
            Act::Put { bytes, .. } if bytes.len() > OBJECT_BYTES_MAX => {
                Err(Error::Invalid(format!("an object of {} bytes: at most {OBJECT_BYTES_MAX}", bytes.len())))
            }
            Act::Put { key, bytes } => {
                let body = futures::stream::iter([Ok::<_, io::Error>(bytes)]).boxed();
                Ok(Done::Made(self.put(bucket, &key, Put::default(), body).await?.version.id))
            }
            Act::Delete { key } => {
                let deleted = self.delete(bucket, &key, None, Conditions::default(), false).await?;
                let made = deleted.version_id.map(Done::Made);
                made.ok_or_else(|| Error::Invalid(format!("bucket {bucket} makes no delete markers")))
            }
            Act::Read { key } => self.read_scratch(bucket, &key).await.map(Done::Read),
            Act::Fence { trial, ttl_millis: 0, .. } => {
                self.fences().lift(bucket, &trial);
                Ok(Done::Nothing)
            }
            Act::Fence { trial, shuts_reads, ttl_millis } => {
                self.fences().set(bucket, &trial, shuts_reads, Duration::from_millis(ttl_millis));
                if !shuts_reads && !self.fences().quiet(bucket).await {
                    let why =
                        format!("writes to bucket {bucket} that were begun before its fence are not answered yet");
                    return Err(Error::Conflict(why));
                }
                Ok(Done::Nothing)
            }
            Act::Clear { prefix } => self.clear_place(bucket, prefix).await.map(|()| Done::Nothing),
        }
    }

    async fn clear_place(&self, bucket: &str, prefix: String) -> Result<(), Error> {
        let mut after = None;
        loop {
            let list = List { prefix: prefix.clone(), after, limit: PAGE, versions: true, ..List::default() };
            let page = match self.list(bucket, list).await {
                Err(Error::NoSuchBucket(_)) => return Ok(()),
                page => page?,
            };
            let mut keys: Vec<Vec<Listed>> = Vec::new();
            for entry in page.entries {
                match keys.last_mut().filter(|key| key[0].version.key == entry.version.key) {
                    Some(key) => key.push(entry),
                    None => keys.push(vec![entry]),
                }
            }
            let cleared = futures::stream::iter(keys).map(|key| self.clear_key(bucket, key));
            cleared.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Markers go last: one that hides what stays is left.
    async fn clear_key(&self, bucket: &str, versions: Vec<Listed>) -> Result<(), Error> {
        let Some(key) = versions.first().map(|entry| entry.version.key.clone()) else { return Ok(()) };
        let (markers, objects): (Vec<_>, Vec<_>) = versions.iter().partition(|entry| entry.version.is_delete_marker());
        let mut is_all_gone = true;
        for entry in objects {
            match self.delete(bucket, &key, Some(entry.version.id), Conditions::default(), false).await {
                Ok(_) => {}
                Err(Error::Guarded(_)) => is_all_gone = false,
                Err(other) => return Err(other),
            }
        }
        if is_all_gone {
            for entry in markers {
                self.delete(bucket, &key, Some(entry.version.id), Conditions::default(), false).await?;
            }
        } else if !versions[0].version.is_delete_marker() {
            self.delete(bucket, &key, None, Conditions::default(), false).await?;
        }
        Ok(())
    }

    async fn remove_scratch(&self, bucket: &str) -> Result<(), Error> {
        loop {
            let page = match self.versions_after(bucket, None, PAGE).await {
                Err(Error::NoSuchBucket(_)) => return Ok(()),
                page => page?,
            };
            if page.is_empty() {
                return match self.delete_bucket(bucket).await {
                    Err(Error::NoSuchBucket(_)) => Ok(()),
                    deleted => deleted,
                };
            }
            let purges = futures::stream::iter(page).map(|version| async move {
                let purged = self.delete(bucket, &version.key, Some(version.id), Conditions::default(), false);
                purged.await.map(drop)
            });
            purges.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        }
    }

    async fn read_scratch(&self, bucket: &str, key: &str) -> Result<Bytes, Error> {
        let opened = self.open(bucket, key, None).await?;
        let size = opened.version.birth.as_ref().map_or(0, |birth| birth.size_bytes);
        if size > OBJECT_BYTES_MAX as u64 {
            return Err(Error::Invalid(format!("an object of {size} bytes is not read whole")));
        }
        let mut body = opened.read(0..size);
        let mut whole = BytesMut::new();
        while let Some(piece) = body.try_next().await.map_err(Error::Body)? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::lock::{Lock, Protection};
    use crate::object::fixture::{Set, versions};

    #[test]
    fn a_place_bears_an_id_and_nothing_else_is_one() {
        for prefix in ["", "a/", "2026-"] {
            assert!(is_in_place(&place(prefix, "0123456789ab")), "{prefix}");
            assert!(is_in_place(&(place(prefix, "0123456789ab") + "writes/1")), "{prefix}");
        }
        for other in
            ["", "a", "isthmus-drill/", "isthmus-drill/0123456789ab", "isthmus-drill/x/y", "isthmus-drill/A1234567/y"]
        {
            assert!(!is_in_place(other), "{other}");
        }
    }

    #[test]
    fn every_act_is_read_back_by_its_number() {
        let key = || "a/isthmus-drill/0123456789ab/x".to_string();
        let acts = [
            Act::Make,
            Act::Remove,
            Act::Put { key: key(), bytes: "bytes".into() },
            Act::Delete { key: key() },
            Act::Read { key: key() },
            Act::Clear { prefix: key() },
            Act::Fence { trial: "0123456789ab".into(), shuts_reads: true, ttl_millis: 9 },
        ];
        for (number, act) in (1u8..).zip(acts) {
            let mut fields = Fields::default();
            act.put(&mut fields);
            assert_eq!(fields.clone().need::<u8>(tag::ACT), Ok(number), "{act:?}");
            assert_eq!(Act::take(&mut fields), Ok(act));
        }
    }

    #[tokio::test]
    async fn a_users_bucket_is_written_and_cleared_in_the_place_of_a_trial_alone() {
        let objects = Set::new().start();
        objects.create_bucket("orders", Versioning::Enabled).await.unwrap();
        let (place, mine) = (place("a/", "0123456789ab"), "a/isthmus-drill/notes");
        let put = |key: &str| Act::Put { key: key.into(), bytes: "x".into() };
        for key in [mine, "a/1", "isthmus-drill/"] {
            assert!(matches!(objects.scratch("orders", put(key)).await, Err(Error::Invalid(_))), "{key}");
            let body = futures::stream::iter([Ok::<_, io::Error>(Bytes::from("users"))]).boxed();
            objects.put("orders", key, Put::default(), body).await.unwrap();
        }
        for act in [Act::Make, Act::Remove, Act::Clear { prefix: "a/".into() }] {
            assert!(matches!(objects.scratch("orders", act.clone()).await, Err(Error::Invalid(_))), "{act:?}");
        }
        for key in ["1", "1", "2"] {
            objects.scratch("orders", put(&format!("{place}{key}"))).await.unwrap();
        }
        objects.scratch("orders", Act::Delete { key: format!("{place}1") }).await.unwrap();
        assert_eq!(versions(&objects, "orders").await.len(), 3 + 4);
        objects.scratch("orders", Act::Clear { prefix: place.clone() }).await.unwrap();
        let left: Vec<_> = versions(&objects, "orders").await.into_iter().map(|(key, _)| key).collect();
        assert_eq!(left, ["a/1", mine, "isthmus-drill/"]);
        let gone = Act::Clear { prefix: place };
        assert_eq!(objects.scratch("nobodys", gone).await.unwrap(), Done::Nothing, "a bucket that is not there");
    }

    #[tokio::test]
    async fn what_is_guarded_in_a_place_is_hidden_by_one_marker_and_stays_so() {
        let objects = Set::new().start();
        objects.create_bucket("locked", Versioning::Enabled).await.unwrap();
        objects.set_lock("locked", Lock::default()).await.unwrap();
        let place = place("", "0123456789ab");
        let hold = Protection { legal_hold: true, ..Protection::default() };
        for (key, protection) in [("held", hold), ("free", Protection::default())] {
            let body = futures::stream::iter([Ok::<_, io::Error>(Bytes::from("x"))]).boxed();
            let put = Put { protection, ..Put::default() };
            objects.put("locked", &format!("{place}{key}"), put, body).await.unwrap();
        }
        for _ in 0..2 {
            objects.scratch("locked", Act::Clear { prefix: place.clone() }).await.unwrap();
            let list = List { prefix: place.clone(), limit: 10, versions: true, ..List::default() };
            let left = objects.list("locked", list).await.unwrap().entries;
            let shown: Vec<_> = left.iter().map(|e| (&*e.version.key, e.version.is_delete_marker())).collect();
            let held = format!("{place}held");
            assert_eq!(shown, [(&*held, true), (&*held, false)]);
        }
    }

    #[tokio::test]
    async fn a_fence_is_a_trials_own_and_is_lifted_by_it() {
        let objects = Set::new().start();
        let fence = |trial: &str, ttl_millis| Act::Fence { trial: trial.into(), shuts_reads: false, ttl_millis };
        let is_shut = || objects.fences().answer("orders", true).is_some();
        assert!(matches!(objects.scratch("orders", fence("a person", 1_000)).await, Err(Error::Invalid(_))));
        objects.scratch("orders", fence("0123456789ab", 60_000)).await.unwrap();
        assert!(is_shut());
        objects.scratch("orders", fence("ba9876543210", 0)).await.unwrap();
        assert!(is_shut(), "another's");
        objects.scratch("orders", fence("0123456789ab", 0)).await.unwrap();
        assert!(!is_shut());
    }
}
