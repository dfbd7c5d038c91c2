//! Components that join a version after its birth: a purge, tags (rules 7 and 15).
use super::{Error, Inner};
use crate::drive::Lsn;
use crate::quorum::participant::{Op, later};
use crate::quorum::writer::Progress;
use crate::record::BucketId;
use crate::trace;
use crate::version::{Version, merge};

impl Inner {
    /// Joins the components of `version` (its birth is left out) into the version as it was read, `held`,
    /// whose components go along: so what is settled afterwards is all that joined it. On return a write
    /// quorum has synced them. Not for null versions, which are rewritten whole.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Full`]: no write quorum; it may still take effect.
    pub(crate) async fn join(
        &self,
        bucket: BucketId,
        mut version: Version,
        held: &Version,
        traceparent: Option<String>,
    ) -> Result<(), Error> {
        merge::join(&mut version, &later(held));
        let traced = trace::commit(version.id, traceparent.as_deref());
        let joined = match self.passed(bucket, held).await {
            Ok(passed) => self.join_traced(bucket, version, |slot| passed[slot], traceparent).await,
            // A purge must not wait for the consumers' floors: it may look older than it is, never younger.
            Err(_) => self.join_traced(bucket, version, |_| 0, traceparent).await,
        };
        if let Some(work) = traced {
            match &joined {
                Ok(acks) => work.acked(*acks, self.drives.len()),
                Err(e) => work.failed(&e.to_string()),
            }
        }
        joined.map(drop)
    }

    /// Joins these components and no others, where all that drives logged up to `passed` is durable at every
    /// consumer. A write quorum that holds them is told so, lazily: then R drives are enough to read them.
    pub(crate) async fn join_behind(
        &self,
        bucket: BucketId,
        version: Version,
        passed: impl Fn(usize) -> Lsn,
    ) -> Result<(), Error> {
        self.join_traced(bucket, version, passed, None).await.map(drop)
    }

    /// The same for a change of this trace; how many drives held it when it counted.
    async fn join_traced(
        &self,
        bucket: BucketId,
        mut version: Version,
        passed: impl Fn(usize) -> Lsn,
        traceparent: Option<String>,
    ) -> Result<usize, Error> {
        debug_assert!(!version.id.is_null(), "a null version has no later components");
        let pending_since = self.clock.now_millis();
        version.birth = None;
        let mut asked = self.ask_all(bucket, &version.key, |slot| Op::Join {
            version: Box::new(version.clone()),
            pending_since,
            passed: passed(slot),
            traceparent: traceparent.clone(),
        });
        match asked.settle().await {
            Progress::Held => {
                let acks = asked.tally.holders();
                let settles = self.ask_all(bucket, &version.key, |_| Op::Settle { version: Box::new(version.clone()) });
                self.background(0, async { _ = futures::join!(asked.drain(), settles.drain()) });
                Ok(acks)
            }
            _ => Err(asked.error()),
        }
    }
}
