//! Large versions in pieces, over the private API.
use super::{Answer, Call, NetworkStore, PATIENCE, unexpected};
use crate::store::{Applied, Body, Cut, Error, Pieces};
use async_trait::async_trait;
use std::ops::Range;
use storage_engine::api::piece::Act;
use storage_engine::version::{Version, VersionId};

impl NetworkStore {
    async fn piece(&self, bucket: &str, act: Act) -> Result<Answer, Error> {
        Ok(self.ask(Call::Piece { bucket: bucket.into(), act }, PATIENCE).await?.0)
    }
}

#[async_trait]
impl Pieces for NetworkStore {
    async fn read_range(&self, bucket: &str, key: &str, id: VersionId, range: Range<u64>) -> Result<Body, Error> {
        match self.ask(Call::ReadRange { bucket: bucket.into(), key: key.into(), id, range }, PATIENCE).await? {
            (Answer::Bytes { .. }, reader) => Ok(reader.rest()),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn put_piece(
        &self,
        bucket: &str,
        id: VersionId,
        cut: Cut,
        number: u32,
        crc64nvme: u64,
        body: Body,
    ) -> Result<(), Error> {
        let act = Act::Put { id, cut, number, crc64nvme };
        match self.ask_with(Call::Piece { bucket: bucket.into(), act }, body).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn held_pieces(&self, bucket: &str, id: VersionId, cut: Cut) -> Result<Vec<u32>, Error> {
        match self.piece(bucket, Act::Held { id, cut }).await? {
            Answer::Held(numbers) => Ok(numbers),
            other => Err(unexpected(&other)),
        }
    }

    async fn apply_pieces(
        &self,
        bucket: &str,
        version: Version,
        cut: Cut,
        traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        match self.piece(bucket, Act::Apply { version: Box::new(version), cut, traceparent }).await? {
            Answer::Applied(applied) => Ok(applied),
            other => Err(unexpected(&other)),
        }
    }

    async fn forget_pieces(&self, bucket: &str, before_millis: u64) -> Result<u64, Error> {
        match self.piece(bucket, Act::Forget { before_millis }).await? {
            Answer::Forgotten(count) => Ok(count),
            other => Err(unexpected(&other)),
        }
    }
}
