//! GET and HEAD: from a key to the version S3 shows, and to its bytes.
//!
//! Metadata comes from a read quorum, bytes from any k shards (`blob`). Called by the S3 front door and,
//! by version id without S3's rules, by replication.
use super::{Body, Bucket, Error, Objects, Opened, Versioning};
use crate::record::Record;
use crate::version::{Kind, Version, VersionId};
use std::ops::Range;

impl Objects {
    /// Finds a version: `version: None` opens the latest.
    ///
    /// # Errors
    /// - [`Error::NoSuchKey`], [`Error::NoSuchVersion`]: a read quorum knows that there is none.
    /// - [`Error::DeleteMarker`]: that is what stands there.
    /// - [`Error::Unavailable`]: too few drives to know.
    pub async fn open(&self, bucket: &str, key: &str, version: Option<VersionId>) -> Result<Opened, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        let (record, is_latest) = match version {
            None => (self.0.read_latest(bucket.id, key).await?.ok_or(Error::NoSuchKey)?, true),
            Some(id) => {
                let found = self.0.read_one(bucket.id, key, id).await?;
                found.filter(|(r, _)| r.version.is_live()).ok_or(Error::NoSuchVersion)?
            }
        };
        if record.version.is_delete_marker() {
            return Err(Error::DeleteMarker { version_id: record.id(), is_latest });
        }
        Ok(self.opened(&bucket, record, is_latest))
    }

    fn opened(&self, bucket: &Bucket, record: Record, is_latest: bool) -> Opened {
        Opened {
            version: record.version.clone(),
            is_latest,
            versioned: bucket.versioning != Versioning::Unversioned,
            record,
            objects: self.clone(),
            elsewhere: None,
        }
    }

    /// All that is held of one version, purged and unborn ones included; `None`: nothing is.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`].
    pub async fn stat(&self, bucket: &str, key: &str, version: VersionId) -> Result<Option<Version>, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        Ok(self.0.read_one(bucket.id, key, version).await?.map(|(record, _)| record.version))
    }

    /// Every version of a key that S3 shows, markers included, newest first.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`].
    pub async fn versions(&self, bucket: &str, key: &str) -> Result<Vec<Version>, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        let records = self.0.read_key(bucket.id, key).await?;
        Ok(records.into_iter().map(|record| record.version).filter(Version::is_live).collect())
    }

    /// One version by id with its bytes, for replication; delete markers open like objects of no bytes.
    ///
    /// # Errors
    /// [`Error::NoSuchVersion`]: unborn or purged here. [`Error::Unavailable`]: too few drives to know.
    pub async fn read_version(&self, bucket: &str, key: &str, version: VersionId) -> Result<Opened, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        let found = self.0.read_one(bucket.id, key, version).await?;
        let (record, is_latest) = found.filter(|(r, _)| r.version.is_live()).ok_or(Error::NoSuchVersion)?;
        Ok(self.opened(&bucket, record, is_latest))
    }
}

impl Opened {
    /// The bytes of the range, every block verified; `range` lies within the object.
    pub fn read(&self, range: Range<u64>) -> Body {
        debug_assert!(
            self.version.birth.as_ref().is_some_and(|b| b.kind == Kind::Object || range.is_empty()),
            "a marker has no bytes"
        );
        match &self.elsewhere {
            Some(elsewhere) => (elsewhere.read)(range),
            None => self.objects.0.read_blobs(&self.record, range),
        }
    }
}
