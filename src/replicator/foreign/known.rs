//! What is known of one key at a target: the journal's map, and, once looked, what the target itself says. Every change
//! of the map goes through here, under the link's claim.
use super::align::{self, Ours, Theirs};
use super::{End, Failed};
use crate::journal::Mapped;
use crate::replicator::push::Route;
use crate::replicator::tenure::Lease;
use crate::store::Store;
use crate::store::s3::Identity;
use crate::store::s3::list::Seen;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use storage_engine::version::{Kind, Version, VersionId};

/// Versions of one key the map gives at once; a key with more is looked up in the store besides.
const ROWS_MAX: usize = 100_000;

/// One key at a target.
pub struct Known<'a> {
    end: &'a End,
    lease: Arc<Lease>,
    store: Arc<dyn Store>,
    bucket: String,
    key: String,
    rows: BTreeMap<VersionId, Mapped>,
    has_looked: bool,
}

impl<'a> Known<'a> {
    /// What the journal knows.
    pub(super) async fn load(end: &'a End, route: &Route, key: &str) -> Result<Known<'a>, Failed> {
        Known::under(end, route.lease.clone(), route.store.clone(), &route.bucket, key).await
    }

    pub(super) async fn under(
        end: &'a End,
        lease: Arc<Lease>,
        store: Arc<dyn Store>,
        bucket: &str,
        key: &str,
    ) -> Result<Known<'a>, Failed> {
        let rows = end.journal.mapped(&end.link, Some(key), Some(key), ROWS_MAX).await?;
        let rows = rows.into_iter().map(|row| (row.version_id, row)).collect();
        Ok(Known { end, lease, store, bucket: bucket.into(), key: key.into(), rows, has_looked: false })
    }

    pub(super) fn of(&self, id: VersionId) -> Option<&Mapped> {
        self.rows.get(&id)
    }
    pub(super) fn rows(&self) -> impl Iterator<Item = &Mapped> {
        self.rows.values()
    }
    /// Whether nothing there was born after it.
    pub(super) fn is_newest(&self, born: u64) -> bool {
        self.rows.values().all(|row| row.born < born)
    }
    /// The epoch everything is done under.
    pub(super) fn epoch(&self) -> u64 {
        self.lease.epoch
    }
    /// Nothing is sent once the claim is over.
    pub(super) fn allow(&self) -> Result<(), Failed> {
        if self.lease.is_held() { Ok(()) } else { Err(Failed::NotOwned) }
    }

    pub(super) async fn set(&mut self, row: Mapped) -> Result<(), Failed> {
        self.end.journal.remap(&self.end.link, self.lease.epoch, std::slice::from_ref(&row), &[]).await?;
        self.rows.insert(row.version_id, row);
        Ok(())
    }
    pub(super) async fn remove(&mut self, id: VersionId) -> Result<(), Failed> {
        self.end.journal.remap(&self.end.link, self.lease.epoch, &[], &[(self.key.clone(), id)]).await?;
        self.rows.remove(&id);
        Ok(())
    }

    /// Asks the target, once: what is gone there is forgotten, and what is ours there is known from then on.
    pub(super) async fn look(&mut self) -> Result<(), Failed> {
        if self.has_looked {
            return Ok(());
        }
        let before: BTreeSet<VersionId> = self.rows.keys().copied().collect();
        let seen = self.end.target.versions_of(&self.key).await?;
        self.learn(&seen, &before).await?;
        self.has_looked = true;
        Ok(())
    }

    /// Learns from a whole list of the key's versions, newest first. Only what was known `before` the list was asked for
    /// and is not in it is gone: what was sent since stands in no list yet.
    pub(super) async fn learn(&mut self, seen: &[Seen], before: &BTreeSet<VersionId>) -> Result<(), Failed> {
        let is_there =
            |row: &Mapped| !before.contains(&row.version_id) || seen.iter().any(|s| s.remote_id == row.remote_id);
        let gone: Vec<VersionId> = self.rows.values().filter(|row| !is_there(row)).map(|row| row.version_id).collect();
        for id in gone {
            self.rows.remove(&id);
            self.forget(id).await?;
        }
        let mut found = Vec::new();
        for object in seen.iter().filter(|s| !s.is_marker) {
            if self.is_known(&object.remote_id) {
                continue;
            }
            let Some(head) = self.end.target.head(&self.key, &object.remote_id).await? else { continue };
            let Some(identity) = head.identity else { continue };
            // Of two copies of a version the newer one counts.
            if !self.rows.contains_key(&identity.version_id) {
                found.push(self.learnt(identity.version_id, &object.remote_id, identity.born));
            }
        }
        if seen.iter().any(|s| s.is_marker && !self.is_known(&s.remote_id)) {
            found.extend(self.markers(seen).await?);
        }
        if !found.is_empty() {
            self.end.journal.remap(&self.end.link, self.lease.epoch, &found, &[]).await?;
        }
        Ok(())
    }

    /// Pairs markers by their places among what is known of the key on both sides.
    async fn markers(&mut self, seen: &[Seen]) -> Result<Vec<Mapped>, Failed> {
        let mut versions: Vec<Version> = self.store.versions_of(&self.bucket, &self.key).await?;
        versions.sort_by_key(|v| v.birth.as_ref().map(|b| b.order.clone()));
        let ours: Vec<Ours> = versions.iter().map(|v| self.ours(v)).collect();
        let theirs: Vec<Theirs> =
            seen.iter().rev().map(|s| Theirs { remote_id: s.remote_id.clone(), is_marker: s.is_marker }).collect();
        let born = |id: VersionId| versions.iter().find(|v| v.id == id).map_or(0, |v| v.max_hlc().bits());
        let pairs = align::markers(&ours, &theirs);
        Ok(pairs.into_iter().map(|(id, remote_id)| self.learnt(id, &remote_id, born(id))).collect())
    }

    fn ours(&self, version: &Version) -> Ours {
        let birth = version.birth.as_ref();
        let mapped = self.rows.get(&version.id).map(|row| row.remote_id.clone());
        // What came from there through S3 says which of theirs it is.
        let copied = birth.and_then(|b| Identity::of_copy(&b.metadata)).map(|source| source.version_id.to_string());
        let is_marker = birth.is_some_and(|b| b.kind == Kind::DeleteMarker);
        Ours { id: version.id, is_marker, remote_id: mapped.or(copied) }
    }

    /// Its state there is not known, so it is compared before it counts as brought.
    fn learnt(&mut self, version_id: VersionId, remote_id: &str, born: u64) -> Mapped {
        let row = Mapped { key: self.key.clone(), version_id, remote_id: remote_id.into(), born, state: 0 };
        self.rows.insert(version_id, row.clone());
        row
    }

    fn is_known(&self, remote_id: &str) -> bool {
        self.rows.values().any(|row| row.remote_id == remote_id)
    }

    async fn forget(&self, id: VersionId) -> Result<(), Failed> {
        Ok(self.end.journal.remap(&self.end.link, self.lease.epoch, &[], &[(self.key.clone(), id)]).await?)
    }
}
