//! Versions from elsewhere: they keep id, order and origin and join what is here.
//!
//! A replica gets a local ballot, and only that is subject to STALE and promises. Called by the
//! replicator's receiving side; knows nothing of who sent it.
use super::ballot::{Draft, NewId, Test};
use super::pieces::Cut;
use super::{Applied, Body, Bucket, Error, Expect, Inner, Objects};
use crate::object::blob::{Data, StoredBody};
use crate::record::Record;
use crate::version::{Birth, Hlc, Kind, Version, VersionId, merge};

/// How far ahead of its own wall clock the store follows another one's: the skew that is refused
/// beyond it, so that one wrong clock cannot drag all others with it.
const AHEAD_MAX_MILLIS: u64 = 60_000;

/// Times a null version is compared again because somebody wrote it in between.
const RACES_MAX: usize = 16;
const RACE: &str = "the null version that was compared";

/// Where the bytes of a version come from.
pub(super) enum Source {
    Nowhere,
    Stream(Body),
    /// Pieces that are durable here already.
    Pieces(Cut),
}

impl Objects {
    /// Joins a version born elsewhere; keeps its id, order and origin.
    ///
    /// `body` yields exactly the bytes of the birth; it is read only where the birth is new here. On
    /// return a write quorum has synced what was learnt. Safe to repeat, in any order.
    ///
    /// # Errors
    /// - [`Error::BadDigest`], [`Error::Body`]: the bytes are not those of the birth; ask again.
    /// - [`Error::Unavailable`], [`Error::Full`]: too few drives; try again.
    ///
    /// # Source
    /// The join: `version/merge.rs`. A null version is a whole: the greater order wins.
    pub async fn apply(
        &self,
        bucket: &str,
        version: Version,
        body: Option<Body>,
        traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        self.apply_from(bucket, version, body.map_or(Source::Nowhere, Source::Stream), traceparent).await
    }

    pub(super) async fn apply_from(
        &self,
        bucket: &str,
        version: Version,
        source: Source,
        traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        let inner = &self.0;
        let bucket = inner.bucket_doc(bucket).await?;
        let nearest = Hlc::from_millis(inner.clock.now_millis().saturating_add(AHEAD_MAX_MILLIS));
        inner.clock.observe(version.max_hlc().min(nearest));
        let applied = if version.id.is_null() {
            inner.apply_null(&bucket, version, source, traceparent).await?
        } else {
            inner.apply_joined(&bucket, version, source, traceparent).await?
        };
        if applied == Applied::Applied {
            inner.confirm_bucket(&bucket).await?;
        }
        Ok(applied)
    }
}

impl Inner {
    async fn apply_joined(
        &self,
        bucket: &Bucket,
        version: Version,
        source: Source,
        traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        let found = self.read_one(bucket.id, &version.key, version.id).await?;
        let held = found.map_or_else(|| Version::blank(&version.key, version.id), |(record, _)| record.version);
        let superseded = held.purged().is_some();
        let mut whole = held.clone();
        merge::join(&mut whole, &version);
        let was_void = held.is_purged_in_vain() && held.purges == whole.purges;
        // A birth matters only where it can show: of a version that stays purged nothing does.
        if let (None, Some(birth), None) = (&held.birth, &version.birth, whole.purged()) {
            let Some(data) = self.take_bytes(bucket, &version, birth, source).await? else {
                return Ok(Applied::NeedsBody);
            };
            let id = NewId::Given(version.id);
            self.store_replica(bucket, &version, id, data, None, traceparent).await?;
            if whole.is_purged_in_vain() && !was_void {
                self.note_void(&whole);
            }
            return Ok(Applied::Applied);
        }
        let mut news = version.clone();
        news.birth = None;
        if held.birth.is_some() && version.birth.is_some() && held.birth != version.birth {
            tracing::error!(key = version.key, version_id = %version.id, "Two births bear one version id.");
        }
        let mut after = held.clone();
        if merge::join(&mut after, &news).changed {
            self.join(bucket.id, news, &held, traceparent).await?;
            if after.is_purged_in_vain() && !was_void {
                self.note_void(&after);
            }
            return Ok(if after.purged().is_some() && superseded { Applied::Superseded } else { Applied::Applied });
        }
        Ok(if superseded && version.purges.is_empty() { Applied::Superseded } else { Applied::AlreadyPresent })
    }

    /// The null version is one register: its greatest order wins whole, and equal orders join.
    async fn apply_null(
        &self,
        bucket: &Bucket,
        version: Version,
        mut source: Source,
        traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        let Some(birth) = &version.birth else { return Ok(Applied::AlreadyPresent) };
        for _ in 0..RACES_MAX {
            let found = self.read_one(bucket.id, &version.key, VersionId::NULL).await?.map(|(record, _)| record);
            let held = found.as_ref().and_then(|r| r.version.birth.as_ref());
            match held.map(|b| b.order.cmp(&birth.order)) {
                Some(std::cmp::Ordering::Greater) => return Ok(Applied::Superseded),
                Some(std::cmp::Ordering::Equal) => {
                    let seen = found.as_ref().expect("its order was just compared");
                    if !merge::join(&mut seen.version.clone(), &version).changed {
                        return Ok(Applied::AlreadyPresent);
                    }
                    let join = |_, mine: &mut Version| _ = merge::join(mine, &version);
                    if self.rewrite_null(bucket, seen, &join, traceparent.clone()).await? {
                        return Ok(Applied::Applied);
                    }
                }
                Some(std::cmp::Ordering::Less) | None => {
                    // Its own guards bind a null until they end: a newer null from elsewhere waits for a person.
                    if let Some(seen) = found.as_ref().filter(|r| r.version.is_live()) {
                        seen.version.guards().permit_purge(birth.order.hlc.millis())?;
                    }
                    let source = std::mem::replace(&mut source, Source::Nowhere);
                    let data = match version.purged() {
                        Some(_) => Some(Data::default()),
                        None => self.take_bytes(bucket, &version, birth, source).await?,
                    };
                    let Some(data) = data else { return Ok(Applied::NeedsBody) };
                    let below = |records: &[Record]| match newest_null(records) {
                        Some(now) if now.order >= birth.order => Err(Error::PreconditionFailed(RACE)),
                        _ => Ok(()),
                    };
                    match self
                        .store_replica(bucket, &version, NewId::Null, data, Some(&below), traceparent.clone())
                        .await
                    {
                        Ok(()) => return Ok(Applied::Applied),
                        Err(Error::PreconditionFailed(RACE)) => {}
                        Err(err) => return Err(err),
                    }
                }
            }
        }
        Err(Error::Unavailable("the null version is written all the time".into()))
    }

    async fn store_replica(
        &self,
        bucket: &Bucket,
        version: &Version,
        id: NewId,
        data: Data,
        test: Option<Test<'_>>,
        traceparent: Option<String>,
    ) -> Result<(), Error> {
        let make = |_, _, _| version.clone();
        self.write(Draft { bucket: bucket.id, key: &version.key, id, make: &make, data, test, traceparent }).await?;
        Ok(())
    }

    /// The bytes of a birth, stored and verified; `None` where it has some and they are not to be had.
    async fn take_bytes(
        &self,
        bucket: &Bucket,
        version: &Version,
        birth: &Birth,
        source: Source,
    ) -> Result<Option<Data>, Error> {
        match source {
            Source::Stream(body) if birth.kind == Kind::Object => {
                self.store_replica_body(birth, body).await.map(|stored| Some(stored.data))
            }
            Source::Pieces(cut) => self.gather_pieces(bucket.id, version.id, birth, cut).await,
            _ => Ok((birth.kind != Kind::Object || birth.size_bytes == 0).then(Data::default)),
        }
    }

    async fn store_replica_body(&self, birth: &Birth, body: Body) -> Result<StoredBody, Error> {
        let expect = Expect { size_bytes: Some(birth.size_bytes), ..Expect::default() };
        let stored = self.store_body(body, expect).await?;
        if stored.crc64nvme != birth.crc64nvme {
            return Err(Error::BadDigest("crc64nvme".into()));
        }
        Ok(stored)
    }
}

fn newest_null(records: &[Record]) -> Option<&Birth> {
    records.iter().find(|r| r.id().is_null()).and_then(|r| r.version.birth.as_ref())
}
