//! Tags of a version: the whole set is replaced, the last writer wins.
use super::ballot::{Draft, NewId};
use super::blob::Data;
use super::{Bucket, Error, Inner, Objects};
use crate::record::Record;
use crate::version::{Hlc, Stamp, Tags, Version, VersionId};
use std::collections::BTreeMap;

/// Times tags of the null version are tried again because somebody wrote it in between.
const RACES_MAX: usize = 16;

impl Objects {
    /// Replaces the tags of a version (`None`: the latest) and says which one it was.
    ///
    /// # Errors
    /// - [`Error::NoSuchKey`], [`Error::NoSuchVersion`], [`Error::DeleteMarker`]: nothing to tag.
    /// - [`Error::Unavailable`], [`Error::Full`]: too few drives; it may still take effect.
    pub async fn set_tags(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        tags: BTreeMap<String, String>,
    ) -> Result<VersionId, Error> {
        self.set_tags_for(bucket, key, version, tags, None).await
    }

    /// [`Objects::set_tags`] for what this traceparent names.
    pub(crate) async fn set_tags_for(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        tags: BTreeMap<String, String>,
        traceparent: Option<String>,
    ) -> Result<VersionId, Error> {
        let name = bucket;
        let bucket = self.0.bucket_doc(name).await?;
        for _ in 0..RACES_MAX {
            let opened = self.open(name, key, version).await?;
            let id = opened.record.id();
            let stamp = |hlc| Stamp::new(hlc, self.0.origin.clone());
            let done = if id.is_null() {
                let retag = |hlc, version: &mut Version| version.tags = Some(Tags::new(stamp(hlc), tags.clone()));
                self.0.rewrite_null(&bucket, &opened.record, &retag, traceparent.clone()).await?
            } else {
                let above = opened.version.max_hlc();
                let mut version = Version::blank(key, id);
                version.tags = Some(Tags::new(stamp(self.0.clock.tick(above)), tags.clone()));
                self.0.join(bucket.id, version, &opened.version, traceparent.clone()).await?;
                true
            };
            if done {
                self.0.confirm_bucket(&bucket).await?;
                return Ok(id);
            }
        }
        Err(Error::Unavailable("the null version is written all the time".into()))
    }
}

impl Inner {
    /// Writes the null version again with its order and bytes and another component, if it still is
    /// `seen`. Components of a null do not join on their own: they belong to one writing of it.
    pub(super) async fn rewrite_null(
        &self,
        bucket: &Bucket,
        seen: &Record,
        change: &(dyn Fn(Hlc, &mut Version) + Sync),
        traceparent: Option<String>,
    ) -> Result<bool, Error> {
        const RACE: &str = "the null version that was read";
        let make = |hlc: Hlc, _, _| {
            let mut version = seen.version.clone();
            change(hlc, &mut version);
            version
        };
        let unchanged = |records: &[Record]| match records.iter().find(|r| r.id().is_null()) {
            Some(now) if now.ballot == seen.ballot => Ok(()),
            _ => Err(Error::PreconditionFailed(RACE)),
        };
        let draft = Draft {
            bucket: bucket.id,
            key: seen.key(),
            id: NewId::Null,
            make: &make,
            data: Data::held(seen.blobs.clone(), seen.missing),
            test: Some(&unchanged),
            traceparent,
        };
        match self.write(draft).await {
            Ok(_) => Ok(true),
            Err(Error::PreconditionFailed(RACE)) => Ok(false),
            Err(err) => Err(err),
        }
    }
}
