//! Object lock: retention and legal hold of a version, set, changed and lifted.
//!
//! What a guard permits is decided by the pure laws in `version/guard.rs`; here they meet the drives.
//! Deletes ask the same laws in `delete.rs`.
use super::{Error, Inner, Objects};
use crate::bucket::lock::lies_ahead;
use crate::version::guard::{Refused, Retention};
use crate::version::{Guards, Hlc, Stamp, Version, VersionId};

/// Times a guard of the null version is tried again because somebody wrote it in between.
const RACES_MAX: usize = 16;

impl Objects {
    /// Sets the retention of a version (`version: None`: the latest; `retention: None`: removes it) and
    /// says which one it was. `bypass`: the person may shorten and lift governance retention.
    ///
    /// # Errors
    /// - [`Error::Guarded`]: it would weaken a retention that stands; nothing was changed.
    /// - [`Error::Invalid`]: it has ended already. [`Error::LockMissing`]: object lock is off.
    /// - [`Error::NoSuchKey`], [`Error::NoSuchVersion`], [`Error::DeleteMarker`]: nothing to retain.
    /// - [`Error::Unavailable`], [`Error::Full`]: too few drives; it may still take effect.
    pub async fn set_retention(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        retention: Option<Retention>,
        bypass: bool,
    ) -> Result<VersionId, Error> {
        self.set_retention_for(bucket, key, version, retention, bypass, None).await
    }

    /// [`Objects::set_retention`] for what this traceparent names.
    pub(crate) async fn set_retention_for(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        retention: Option<Retention>,
        bypass: bool,
        traceparent: Option<String>,
    ) -> Result<VersionId, Error> {
        lies_ahead(retention, self.0.clock.now_millis())?;
        self.guard(bucket, key, version, |now, stamp| now.retain(retention, bypass, stamp), traceparent).await
    }

    /// Sets or lifts the legal hold of a version (`None`: the latest) and says which one it was.
    ///
    /// # Errors
    /// As [`Objects::set_retention`], without [`Error::Guarded`].
    pub async fn set_hold(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        on: bool,
    ) -> Result<VersionId, Error> {
        self.set_hold_for(bucket, key, version, on, None).await
    }

    /// [`Objects::set_hold`] for what this traceparent names.
    pub(crate) async fn set_hold_for(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        on: bool,
        traceparent: Option<String>,
    ) -> Result<VersionId, Error> {
        self.guard(bucket, key, version, |now, stamp| Ok(now.hold(on, stamp)), traceparent).await
    }

    async fn guard(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        change: impl Fn(&Guards, &Stamp) -> Result<Guards, Refused> + Sync,
        traceparent: Option<String>,
    ) -> Result<VersionId, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        bucket.require_lock()?;
        for _ in 0..RACES_MAX {
            let opened = self.open(&bucket.name, key, version).await?;
            let (id, guards) = (opened.version.id, opened.version.guards());
            let stamp = self.0.stamp(self.0.clock.tick(opened.version.max_hlc()));
            let later_guards = change(&guards, &stamp)?;
            let done = if id.is_null() {
                let join = |_: Hlc, version: &mut Version| version.later_guards.join(&later_guards);
                self.0.rewrite_null(&bucket, &opened.record, &join, traceparent.clone()).await?
            } else {
                let change = Version { later_guards, ..Version::blank(key, id) };
                self.0.join(bucket.id, change, &opened.version, traceparent.clone()).await?;
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
    /// A stamp of this store.
    pub(super) fn stamp(&self, hlc: Hlc) -> Stamp {
        Stamp::new(hlc, self.origin.clone())
    }
}
