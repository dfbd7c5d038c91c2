//! DELETE: a marker on top, or one version gone for ever.
//!
//! A version with an id is purged by a component that joins it (rule 15). The null version is purged by
//! an ordered record of its own (rule 16), since a later null is another thing under the same id.
use super::ballot::{Draft, NewId, Test};
use super::blob::Data;
use super::put::{conditions_hold, marker, new_id};
use super::{Bucket, Conditions, Deleted, Error, Inner, Objects, Versioning};
use crate::record::Record;
use crate::version::{Ballot, Guards, Hlc, Order, Purges, Version, VersionId};

/// Times a purge of the null version is tried again because somebody wrote it in between.
const RACES_MAX: u32 = 16;

/// How a delete was asked for.
#[derive(Clone, Debug)]
pub(crate) struct How {
    pub(crate) conditions: Conditions,
    /// The person may delete what is under governance retention.
    pub(crate) bypass: bool,
    /// W3C traceparent of the request.
    pub(crate) traceparent: Option<String>,
}

impl Objects {
    /// Deletes the key (`version: None`: by a delete marker where the bucket is versioned), or one
    /// version for ever. Deleting what is not there succeeds and changes nothing. `bypass`: the person may delete
    /// what is under governance retention.
    ///
    /// # Errors
    /// - [`Error::Guarded`]: retention or legal hold forbids it; nothing was done.
    /// - [`Error::PreconditionFailed`], [`Error::NoSuchKey`] (If-Match of an absent key): nothing was done.
    /// - [`Error::Unavailable`], [`Error::Full`]: too few drives; it may still take effect.
    ///
    /// # Source
    /// Amazon S3 User Guide, "Deleting object versions".
    pub async fn delete(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        conditions: Conditions,
        bypass: bool,
    ) -> Result<Deleted, Error> {
        self.delete_for(bucket, key, version, How { conditions, bypass, traceparent: None }).await
    }

    /// [`Objects::delete`] for what a traceparent names.
    pub(crate) async fn delete_for(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        how: How,
    ) -> Result<Deleted, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        let deleted = match version {
            None if bucket.versioning == Versioning::Unversioned => {
                self.0.purge_null(&bucket, key, &how, false).await?
            }
            None => self.0.mark(&bucket, key, &how).await?,
            Some(VersionId::NULL) => self.0.purge_null(&bucket, key, &how, true).await?,
            Some(id) => self.0.purge(&bucket, key, id, &how).await?,
        };
        self.0.confirm_bucket(&bucket).await?;
        Ok(deleted)
    }
}

impl Inner {
    async fn mark(&self, bucket: &Bucket, key: &str, how: &How) -> Result<Deleted, Error> {
        let make =
            |hlc: Hlc, version_id, base| marker(key, Order { hlc, origin: self.origin.clone(), version_id }, base);
        let test = |records: &[Record]| conditions_hold(records, &how.conditions);
        let test = how.is_conditional().then_some(&test as Test<'_>);
        let draft = bare(bucket, key, new_id(bucket.versioning), &make, test, how);
        let record = self.write(draft).await?;
        Ok(Deleted { version_id: Some(record.id()), delete_marker: true })
    }

    async fn purge(&self, bucket: &Bucket, key: &str, id: VersionId, how: &How) -> Result<Deleted, Error> {
        let found = self.read_one(bucket.id, key, id).await?.map(|(record, _)| record);
        check(found.as_ref(), &how.conditions)?;
        let is_marker = found.as_ref().is_some_and(|r| r.version.is_delete_marker());
        if let Some(found) = found.filter(|r| r.version.purged().is_none()) {
            let stamp = self.stamp(self.clock.tick(found.version.max_hlc()));
            let (later_guards, seen) = pass(&found.version, how.bypass, stamp.hlc)?;
            let is_guarded = !seen.is_empty();
            let purges = Purges::one(seen, stamp);
            let purge = Version { later_guards, purges, ..Version::blank(key, id) };
            self.join(bucket.id, purge, &found.version, how.traceparent.clone()).await?;
            if is_guarded {
                self.confirm_purge(bucket, key, id).await?;
            }
        }
        Ok(Deleted { version_id: Some(id), delete_marker: is_marker })
    }

    /// Whether the purge just written counts: somebody may have set a guard since we looked.
    async fn confirm_purge(&self, bucket: &Bucket, key: &str, id: VersionId) -> Result<(), Error> {
        match self.read_one(bucket.id, key, id).await? {
            Some((now, _)) if now.version.is_purged_in_vain() => {
                self.note_void(&now.version);
                Err(now.version.guards().permit_purge(self.clock.now_millis()).err().map_or_else(
                    || Error::Conflict("somebody set and lifted a guard of the version at the same time".into()),
                    Error::Guarded,
                ))
            }
            _ => Ok(()),
        }
    }

    /// Counts a purge that a guard made void, and says so.
    pub(super) fn note_void(&self, version: &Version) {
        self.metrics.purge_voided();
        tracing::warn!(
            key = version.key,
            version_id = %version.id,
            "A permanent delete is void: a guard was set that it had not seen. The version lives."
        );
    }

    /// Hides the null version and every null below it. `named`: the request named it.
    async fn purge_null(&self, bucket: &Bucket, key: &str, how: &How, named: bool) -> Result<Deleted, Error> {
        // The order of the null that was seen when a purge was sent whose outcome is unknown.
        let mut sent: Option<Order> = None;
        for attempt in 0..RACES_MAX {
            self.pause(attempt, Ballot::ZERO).await;
            let null = self.read_one(bucket.id, key, VersionId::NULL).await?.map(|(record, _)| record);
            let null = null.filter(|r| r.version.is_live());
            let deleted = Deleted {
                version_id: named.then_some(VersionId::NULL),
                delete_marker: null.as_ref().is_some_and(|r| r.version.is_delete_marker()),
            };
            let order = null.as_ref().and_then(|r| r.version.birth.as_ref()).map(|b| b.order.clone());
            if sent.is_some() && sent != order {
                return Ok(deleted);
            }
            check(null.as_ref(), &how.conditions)?;
            let Some(null) = null else { return Ok(deleted) };
            let is_guarded = named && !null.version.guards().is_empty();
            if is_guarded && !self.lift_null(bucket, &null, how).await? {
                continue;
            }
            match self.write_null_purge(bucket, key, how).await {
                // A drive that hears of the lifting behind its ack, or of another guard, refuses the purge.
                Err(Error::Unavailable(_)) if is_guarded => sent = order,
                written => return written.map(|()| deleted),
            }
        }
        Err(Error::Unavailable("the null version is written all the time".into()))
    }

    /// Lifts what a bypass lifts, for a drive judges a purge of the null version by its own record. `false`: somebody
    /// wrote the null version since it was read.
    async fn lift_null(&self, bucket: &Bucket, null: &Record, how: &How) -> Result<bool, Error> {
        let at = self.clock.tick(null.version.max_hlc());
        let (lifted, _) = pass(&null.version, how.bypass, at)?;
        let lift = |_, version: &mut Version| version.later_guards.join(&lifted);
        Ok(lifted.is_empty() || self.rewrite_null(bucket, null, &lift, how.traceparent.clone()).await?)
    }

    async fn write_null_purge(&self, bucket: &Bucket, key: &str, how: &How) -> Result<(), Error> {
        let make = |hlc: Hlc, version_id, base| {
            let order = Order { hlc, origin: self.origin.clone(), version_id };
            let mut version = marker(key, order, base);
            version.purges = self.stamp(hlc).into();
            version
        };
        let test = |records: &[Record]| {
            check(records.iter().find(|r| r.id().is_null() && r.version.is_live()), &how.conditions)
        };
        let test = how.is_conditional().then_some(&test as Test<'_>);
        self.write(bare(bucket, key, NewId::Null, &make, test, how)).await.map(drop)
    }
}

impl How {
    fn is_conditional(&self) -> bool {
        self.conditions != Conditions::default()
    }
}

/// A draft of a version without bytes.
fn bare<'a>(
    bucket: &Bucket,
    key: &'a str,
    id: NewId,
    make: &'a (dyn Fn(Hlc, VersionId, Option<Order>) -> Version + Sync),
    test: Option<Test<'a>>,
    how: &How,
) -> Draft<'a> {
    Draft { bucket: bucket.id, key, id, make, data: Data::default(), test, traceparent: how.traceparent.clone() }
}

/// What is to be lifted so that a purge made at `at` counts, and all the guards it will have seen.
///
/// # Errors
/// [`Error::Guarded`]: it may not be purged.
fn pass(version: &Version, bypass: bool, at: Hlc) -> Result<(Guards, Guards), Error> {
    let mut seen = version.guards();
    let lifted = if bypass { seen.lift_governance() } else { Guards::default() };
    seen.join(&lifted);
    seen.permit_purge(at.millis())?;
    Ok((lifted, seen))
}

/// Tests the conditions against the version that is to be deleted.
fn check(found: Option<&Record>, conditions: &Conditions) -> Result<(), Error> {
    conditions_hold(found.map(std::slice::from_ref).unwrap_or_default(), conditions)
}
