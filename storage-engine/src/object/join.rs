//! Components that join a version after its birth: a purge, tags (rules 7 and 15).
use super::{Error, Inner};
use crate::quorum::participant::Op;
use crate::quorum::writer::Progress;
use crate::record::BucketId;
use crate::version::Version;

impl Inner {
    /// Joins the components of `version` (its birth is left out) into the version, held or not. On
    /// return a write quorum has synced them. Not for null versions, which are rewritten whole.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Full`]: no write quorum; it may still take effect.
    pub(crate) async fn join(&self, bucket: BucketId, version: Version) -> Result<(), Error> {
        debug_assert!(!version.id.is_null(), "a null version has no later components");
        let pending_since = self.clock.now_millis();
        let mut version = version;
        version.birth = None;
        let mut asked =
            self.ask_all(bucket, &version.key, |_| Op::Join { version: Box::new(version.clone()), pending_since });
        match asked.settle().await {
            Progress::Held => {
                self.background(0, asked.drain());
                Ok(())
            }
            _ => Err(asked.error()),
        }
    }
}
