//! Components that join a version after its birth: a purge, tags (rules 7 and 15).
use super::{Error, Inner};
use crate::drive::Lsn;
use crate::quorum::participant::Op;
use crate::quorum::writer::Progress;
use crate::record::BucketId;
use crate::version::Version;

impl Inner {
    /// Joins the components of `version` (its birth is left out) into the version as it was read, `held`.
    /// On return a write quorum has synced them. Not for null versions, which are rewritten whole.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Full`]: no write quorum; it may still take effect.
    pub(crate) async fn join(&self, bucket: BucketId, version: Version, held: &Version) -> Result<(), Error> {
        match self.passed(bucket, held).await {
            Ok(passed) => self.join_behind(bucket, version, |slot| passed[slot]).await,
            // A purge must not wait for the consumers' floors: it may look older than it is, never younger.
            Err(_) => self.join_behind(bucket, version, |_| 0).await,
        }
    }

    /// As [`join`](Self::join), where all that drives logged up to `passed` is durable at every consumer.
    pub(crate) async fn join_behind(
        &self,
        bucket: BucketId,
        mut version: Version,
        passed: impl Fn(usize) -> Lsn,
    ) -> Result<(), Error> {
        debug_assert!(!version.id.is_null(), "a null version has no later components");
        let pending_since = self.clock.now_millis();
        version.birth = None;
        let mut asked = self.ask_all(bucket, &version.key, |slot| Op::Join {
            version: Box::new(version.clone()),
            pending_since,
            passed: passed(slot),
        });
        match asked.settle().await {
            Progress::Held => {
                self.background(0, asked.drain());
                Ok(())
            }
            _ => Err(asked.error()),
        }
    }
}
