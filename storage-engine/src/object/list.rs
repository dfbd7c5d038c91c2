//! The list road: ListObjects (v1, v2) and ListObjectVersions.
//!
//! [`Walk`] is the pure half: it takes keys in order and decides entry, common prefix or neither, and
//! where the page ends. The other half feeds it from `scan.rs`. Called by `s3` and the replicator;
//! never touches a drive itself.
use super::{Error, Inner, List, Listed, Marker, Objects, Page};
use crate::record::{BucketId, Record};
use crate::version::Kind;

/// Entries and common prefixes in one page, as S3 has it.
pub const PAGE_MAX: usize = 1_000;

/// Keys asked for at first when there is a delimiter: the next key is often under a prefix already
/// told, and then the rest of a large page would be thrown away.
const KEYS_AT_FIRST: usize = 32;

/// Longest key S3 allows, in bytes of UTF-8.
pub(crate) const KEY_BYTES_MAX: usize = 1_024;

impl Objects {
    /// One page of a bucket's list, at most [`PAGE_MAX`] entries and common prefixes.
    ///
    /// What was acked before the call is in it. `next` is set exactly when something more would show.
    ///
    /// # Errors
    /// - [`Error::NoSuchBucket`].
    /// - [`Error::Unavailable`]: too few drives answer; a list is never shorter for it.
    ///
    /// # Source
    /// Amazon S3 API Reference, ListObjectsV2 and ListObjectVersions.
    pub async fn list(&self, bucket: &str, list: List) -> Result<Page, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        self.0.list_versions(bucket.id, list).await
    }
}

impl Inner {
    /// One page of the list of a bucket by its id.
    pub(crate) async fn list_versions(&self, bucket: BucketId, list: List) -> Result<Page, Error> {
        let mut after = list.after.as_ref().map(|m| m.key.clone());
        let resumed = list.after.clone().filter(|m| list.versions && m.version.is_some());
        let mut walk = Walk::new(list);
        if walk.list.limit == 0 {
            return Ok(Page::default());
        }
        if let Some(Marker { key, version: Some(version) }) = resumed {
            let records = self.read_key(bucket, &key).await?;
            // A version that is not there any more leaves no place to go on from: repeat rather than miss.
            let told = records.iter().position(|r| r.id() == version).map_or(0, |at| at + 1);
            walk.take_rest(&key, &records, told);
        }
        let page = walk.list.limit + 1;
        let mut chunk = if walk.list.delimiter.is_some() { page.min(KEYS_AT_FIRST) } else { page };
        while !walk.more {
            if let Some(under) = walk.seek(after.as_deref()) {
                after = Some(under);
                chunk = chunk.min(KEYS_AT_FIRST);
            }
            let scan = self.scan(bucket, &walk.list.prefix, after.as_deref(), chunk).await?;
            for (key, records) in &scan.keys {
                walk.take_rest(key, records, 0);
            }
            match scan.through {
                Some(through) => after = Some(through),
                None => break,
            }
            // Keys that do not show (deleted ones) may be many: larger steps, up to a whole page.
            chunk = (chunk * 2).min(PAGE_MAX + 1);
        }
        Ok(walk.end())
    }
}

/// A list in progress. Pure.
struct Walk {
    list: List,
    page: Page,
    /// The last thing put on the page.
    last: Option<Marker>,
    /// The common prefix told last: nothing under it shows again.
    under: Option<String>,
    /// The page is full and something more would show.
    more: bool,
}

impl Walk {
    fn new(mut list: List) -> Self {
        list.limit = list.limit.min(PAGE_MAX);
        list.delimiter = list.delimiter.filter(|d| !d.is_empty());
        let mut walk = Walk { list, page: Page::default(), last: None, under: None, more: false };
        // A marker that is a common prefix stands for all that is under it.
        walk.under = walk.list.after.as_ref().map(|m| m.key.clone()).filter(|key| walk.common_prefix(key) == Some(key));
        walk
    }

    /// The key up to the first delimiter behind the list's prefix, if it has one.
    fn common_prefix<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.list.delimiter.as_deref()?;
        let rest = key.strip_prefix(self.list.prefix.as_str())?;
        let at = rest.find(delimiter)?;
        Some(&key[..self.list.prefix.len() + at + delimiter.len()])
    }

    /// Where to go on instead of `after`, when that lies under a common prefix already told.
    fn seek(&self, after: Option<&str>) -> Option<String> {
        let under = self.under.as_deref()?;
        after.is_some_and(|after| after.starts_with(under)).then(|| beyond(under))
    }

    /// Takes the next key, without its first `told` records.
    fn take_rest(&mut self, key: &str, records: &[Record], told: usize) {
        let is_told = self.under.as_deref().is_some_and(|under| key.starts_with(under));
        if self.more || is_told || !key.starts_with(&self.list.prefix) {
            return;
        }
        let Some(latest) = records.iter().position(|r| r.version.is_live()) else { return };
        let is_shown = |at: usize, r: &Record| {
            if self.list.versions { r.version.is_live() } else { at == latest && is_object(r) }
        };
        let shown: Vec<(usize, &Record)> =
            records.iter().enumerate().skip(told).filter(|(at, r)| is_shown(*at, r)).collect();
        if let Some(common) = self.common_prefix(key).map(str::to_owned) {
            if !shown.is_empty() && self.has_room(Marker { key: common.clone(), version: None }) {
                self.page.common_prefixes.push(common.clone());
                self.under = Some(common);
            }
            return;
        }
        for (at, record) in shown {
            let version = self.list.versions.then_some(record.id());
            if !self.has_room(Marker { key: key.to_owned(), version }) {
                return;
            }
            self.page.entries.push(Listed { version: record.version.clone(), is_latest: at == latest });
        }
    }

    /// Whether the thing at `marker` still fits; what does not fit ends the page.
    fn has_room(&mut self, marker: Marker) -> bool {
        self.more = self.page.entries.len() + self.page.common_prefixes.len() >= self.list.limit;
        if !self.more {
            self.last = Some(marker);
        }
        !self.more
    }

    fn end(mut self) -> Page {
        self.page.next = if self.more { self.last } else { None };
        self.page
    }
}

fn is_object(record: &Record) -> bool {
    record.version.birth.as_ref().is_some_and(|b| b.kind == Kind::Object)
}

/// A string that follows every key under `prefix` and precedes every other key behind it: keys end at
/// [`KEY_BYTES_MAX`], so none is greater than the prefix filled up with the greatest character.
fn beyond(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    while end.len() <= KEY_BYTES_MAX {
        end.push(char::MAX);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Versioning;
    use crate::object::ballot::NewId;
    use crate::object::fixture::{Set, versions, write};
    use crate::version::{Ballot, Birth, Hlc, Order, Origin, Stamp, Version, VersionId};
    use uuid::Uuid;

    fn version(key: &str, n: u64, kind: Kind) -> Record {
        let id = VersionId::from_uuid(Uuid::from_u128(n.into()));
        let mut version = Version::blank(key, id);
        version.birth =
            Some(Birth::blank(Order { hlc: Hlc::from_millis(n), origin: Origin::new("a"), version_id: id }, kind));
        Record::new(BucketId::SYSTEM, version, Ballot::from_millis(n))
    }
    fn purged(key: &str, n: u64) -> Record {
        let mut record = version(key, n, Kind::Object);
        record.version.purges = Stamp::new(Hlc::from_millis(n), Origin::new("a")).into();
        record
    }
    fn walk(list: List, keys: &[(&str, Vec<Record>)]) -> Page {
        let mut walk = Walk::new(list);
        for (key, records) in keys {
            walk.take_rest(key, records, 0);
        }
        walk.end()
    }

    #[test]
    fn a_key_under_a_marker_shows_only_among_versions() {
        let keys = [("k", vec![version("k", 2, Kind::DeleteMarker), version("k", 1, Kind::Object)])];
        let objects = walk(List { limit: 9, ..Default::default() }, &keys);
        assert!(objects.entries.is_empty());
        let versions = walk(List { limit: 9, versions: true, ..Default::default() }, &keys);
        assert_eq!(versions.entries.iter().map(|l| l.is_latest).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_purged_newest_version_uncovers_the_one_below() {
        let keys = [("k", vec![purged("k", 2), version("k", 1, Kind::Object)])];
        let page = walk(List { limit: 9, versions: true, ..Default::default() }, &keys);
        assert_eq!(page.entries.len(), 1);
        assert!(page.entries[0].is_latest);
    }

    #[test]
    fn a_prefix_whose_keys_are_all_deleted_does_not_show_and_hides_nothing() {
        let list = List { limit: 9, delimiter: Some("/".into()), ..Default::default() };
        let dead = || vec![version("a/1", 2, Kind::DeleteMarker)];
        assert!(walk(list.clone(), &[("a/1", dead())]).common_prefixes.is_empty());
        let alive = vec![version("a/2", 1, Kind::Object)];
        assert_eq!(walk(list, &[("a/1", dead()), ("a/2", alive)]).common_prefixes, ["a/"]);
    }

    #[test]
    fn a_full_page_that_ends_the_bucket_has_no_next() {
        let one = || vec![version("k", 1, Kind::Object)];
        assert_eq!(walk(List { limit: 1, ..Default::default() }, &[("k", one())]).next, None);
        let dead = vec![version("l", 1, Kind::DeleteMarker)];
        assert_eq!(walk(List { limit: 1, ..Default::default() }, &[("k", one()), ("l", dead)]).next, None);
        let next = walk(List { limit: 1, ..Default::default() }, &[("k", one()), ("l", one())]).next;
        assert_eq!(next, Some(Marker { key: "k".into(), version: None }));
    }

    #[tokio::test]
    async fn too_few_drives_are_an_error_and_never_a_shorter_list() {
        let set = Set::new();
        let bucket = set.start().create_bucket("bucket", Versioning::Enabled).await.unwrap();
        for n in 0..30 {
            write(&set.start(), &bucket, &format!("k{n:02}"), NewId::Fresh, Kind::Object).await;
        }
        // Of four drives with W = 3, two answer for the whole.
        for away in [[0, 1], [0, 2], [1, 3], [2, 3]] {
            assert_eq!(versions(&set.start_without(&away), "bucket").await.len(), 30, "without {away:?}");
        }
        let list = List { limit: 9, ..List::default() };
        let listed = set.start_without(&[0, 1, 3]).0.list_versions(bucket.id, list).await;
        assert!(matches!(listed, Err(Error::Unavailable(_))), "{listed:?}");
    }

    #[test]
    fn beyond_a_prefix_lies_behind_all_its_keys_and_before_the_next() {
        let longest = format!("a/{}", char::MAX.to_string().repeat(255));
        assert!(longest.len() <= KEY_BYTES_MAX && beyond("a/") > longest);
        assert!(beyond("a/").as_str() < "a0");
    }
}
