//! DELETE: a marker on top, or one version gone for ever.
//!
//! A version with an id is purged by a component that joins it (rule 15). The null version is purged by
//! an ordered record of its own (rule 16), since a later null is another thing under the same id.
use super::ballot::{Draft, NewId, Test};
use super::blob::Data;
use super::put::{conditions_hold, marker, new_id};
use super::{Bucket, Conditions, Deleted, Error, Inner, Objects, Versioning};
use crate::record::Record;
use crate::version::{Hlc, Order, Stamp, Version, VersionId};

impl Objects {
    /// Deletes the key (`version: None`: by a delete marker where the bucket is versioned), or one
    /// version for ever. Deleting what is not there succeeds and changes nothing.
    ///
    /// # Errors
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
    ) -> Result<Deleted, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        let deleted = match version {
            None if bucket.versioning == Versioning::Unversioned => {
                self.0.purge_null(&bucket, key, &conditions, false).await?
            }
            None => self.0.mark(&bucket, key, &conditions).await?,
            Some(VersionId::NULL) => self.0.purge_null(&bucket, key, &conditions, true).await?,
            Some(id) => self.0.purge(&bucket, key, id, &conditions).await?,
        };
        self.0.confirm_bucket(&bucket).await?;
        Ok(deleted)
    }
}

impl Inner {
    async fn mark(&self, bucket: &Bucket, key: &str, conditions: &Conditions) -> Result<Deleted, Error> {
        let make =
            |hlc: Hlc, version_id, base| marker(key, Order { hlc, origin: self.origin.clone(), version_id }, base);
        let test = |records: &[Record]| conditions_hold(records, conditions);
        let conditional = *conditions != Conditions::default();
        let draft = self.bare(bucket, key, new_id(bucket.versioning), &make, conditional.then_some(&test as Test<'_>));
        let record = self.write(draft).await?;
        Ok(Deleted { version_id: Some(record.id()), delete_marker: true })
    }

    async fn purge(
        &self,
        bucket: &Bucket,
        key: &str,
        id: VersionId,
        conditions: &Conditions,
    ) -> Result<Deleted, Error> {
        let found = self.read_one(bucket.id, key, id).await?.map(|(record, _)| record);
        check(found.as_ref(), conditions)?;
        let is_marker = found.as_ref().is_some_and(|r| r.version.is_delete_marker());
        if let Some(held) = found.map(|r| r.version).filter(|v| v.purge.is_none()) {
            let mut version = Version::blank(key, id);
            version.purge = Some(Stamp::new(self.clock.tick(Hlc::ZERO), self.origin.clone()));
            self.join(bucket.id, version, &held).await?;
        }
        Ok(Deleted { version_id: Some(id), delete_marker: is_marker })
    }

    /// Hides the null version and every null below it. `named`: the request named it.
    async fn purge_null(
        &self,
        bucket: &Bucket,
        key: &str,
        conditions: &Conditions,
        named: bool,
    ) -> Result<Deleted, Error> {
        let null = self.read_one(bucket.id, key, VersionId::NULL).await?.map(|(record, _)| record);
        let null = null.filter(|r| r.version.is_live());
        check(null.as_ref(), conditions)?;
        let deleted = Deleted {
            version_id: named.then_some(VersionId::NULL),
            delete_marker: null.as_ref().is_some_and(|r| r.version.is_delete_marker()),
        };
        if null.is_none() {
            return Ok(deleted);
        }
        let make = |hlc: Hlc, version_id, base| {
            let order = Order { hlc, origin: self.origin.clone(), version_id };
            let mut version = marker(key, order, base);
            version.purge = Some(Stamp::new(hlc, self.origin.clone()));
            version
        };
        let test =
            |records: &[Record]| check(records.iter().find(|r| r.id().is_null() && r.version.is_live()), conditions);
        let conditional = *conditions != Conditions::default();
        self.write(self.bare(bucket, key, NewId::Null, &make, conditional.then_some(&test as Test<'_>))).await?;
        Ok(deleted)
    }

    /// A draft of a version without bytes.
    fn bare<'a>(
        &self,
        bucket: &Bucket,
        key: &'a str,
        id: NewId,
        make: &'a (dyn Fn(Hlc, VersionId, Option<Order>) -> Version + Sync),
        test: Option<Test<'a>>,
    ) -> Draft<'a> {
        Draft { bucket: bucket.id, key, id, make, data: Data::default(), test, traceparent: None }
    }
}

/// Tests the conditions against the version that is to be deleted.
fn check(found: Option<&Record>, conditions: &Conditions) -> Result<(), Error> {
    conditions_hold(found.map(std::slice::from_ref).unwrap_or_default(), conditions)
}
