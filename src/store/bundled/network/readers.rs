//! What readers of the store want that is not here yet, over the private API.
use super::{Answer, Call, NetworkStore, PATIENCE, unexpected};
use crate::store::{Body, Error, Found, Question, Readers};
use async_trait::async_trait;
use std::time::Duration;

#[async_trait]
impl Readers for NetworkStore {
    async fn wanted(&self, buckets: Vec<String>, wait: Duration) -> Result<Option<Question>, Error> {
        let wait_millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        match self.ask(Call::Wanted { buckets, wait_millis }, PATIENCE).await?.0 {
            Answer::Wanted(question) => Ok(question),
            other => Err(unexpected(&other)),
        }
    }

    async fn lend(&self, number: u64, found: Found, body: Body) -> Result<(), Error> {
        match self.ask_with(Call::Lend { number, found }, body).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}
