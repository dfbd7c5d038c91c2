//! A store in another process, over its private API: trait [`Store`] as questions on one line.
//!
//! Every question may be asked again and is, on the next line, while its patience lasts, but those with bytes: they
//! cannot be sent twice, and their sender hears that it should. What cannot be asked is
//! [`Error::Unavailable`], never an absence. `line.rs` keeps the line.
pub mod line;
mod pieces;
mod readers;

use super::super::{
    Act, Applied, Backlog, Batch, Body, BucketInfo, Client, Cursor, Document, Done, Error, Interest, Pieces, Readers,
    Store, StoreHealth, Stretch,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use line::{AskBody, Line, Target};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use storage_engine::api::framing::{Reader, framed};
use storage_engine::api::message::{Answer, Call, PATH_PREFIX, Reply, Request, error_from_bytes, event_from_bytes};
use storage_engine::identity::Identity;
use storage_engine::version::{Version, VersionId};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a question waits for a line to the store: a store that is started again takes about a
/// second, and whoever asks tries again anyway.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the wait for changes waits for a line: nobody waits behind it, and each end of it is a warning.
const PATIENCE_CHANGES: Duration = Duration::from_secs(30);
/// Commits and backlogs are asked from within a link's loop, which must go on: all of one takes no longer.
const BRIEF: Duration = Duration::from_secs(1);

/// A store reached over its private API.
pub struct NetworkStore {
    endpoint: String,
    line: watch::Receiver<Line>,
}

/// An answer, and what follows it.
type Answered = (Answer, Reader<Incoming>);
/// The line broke before there was an answer.
struct Broken(String);

impl NetworkStore {
    /// A store whose line is dialled, and dialled again, on `tasks` until `stop`. It need not be there yet.
    pub fn start(
        target: Target,
        identity: Arc<Identity>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> NetworkStore {
        let endpoint = target.endpoint.clone();
        let (tell, line) = watch::channel(Line::Down("not dialled yet".into()));
        tasks.spawn(line::keep(target, identity, tell, tasks.clone(), stop));
        NetworkStore { endpoint, line }
    }

    /// Asks what may be asked again, while `patience` lasts.
    async fn ask(&self, call: Call, patience: Duration) -> Result<Answered, Error> {
        let deadline = Instant::now() + patience;
        let operation = call.operation();
        let question = framed(&Request::from(call).to_bytes());
        let mut broken: Option<(u64, String)> = None;
        loop {
            let (number, sender) = self.line_after(broken, deadline).await?;
            let body = Full::new(question.clone()).map_err(|never| match never {}).boxed_unsync();
            match exchange(sender, operation, body).await {
                Ok(answered) => return answered,
                Err(Broken(why)) => broken = Some((number, why)),
            }
        }
    }

    /// Asks what bytes belong to: once, for they cannot be sent twice.
    async fn ask_with(&self, call: Call, body: Body) -> Result<Answer, Error> {
        let (_, sender) = self.line_after(None, Instant::now() + PATIENCE).await?;
        let operation = call.operation();
        let head = framed(&Request::from(call).to_bytes());
        let failed: Arc<OnceLock<String>> = Arc::default();
        match exchange(sender, operation, pour(head, body, failed.clone())).await {
            Ok(answered) => Ok(answered?.0),
            Err(Broken(why)) => Err(match failed.get() {
                Some(why) => Error::Body(std::io::Error::other(why.clone())),
                None => Error::Unavailable(why),
            }),
        }
    }

    /// Asks within a time that holds for everything together.
    async fn ask_briefly(&self, call: Call) -> Result<Answer, Error> {
        let asked = tokio::time::timeout(BRIEF, self.ask(call, BRIEF)).await;
        Ok(asked.unwrap_or_else(|_| Err(self.away("no answer in time")))?.0)
    }

    /// A line that stands and is not the one that broke.
    async fn line_after(&self, broken: Option<(u64, String)>, deadline: Instant) -> Result<(u64, line::Sender), Error> {
        let mut line = self.line.clone();
        let usable = |line: &Line| match (line, &broken) {
            (Line::Up { number, .. }, Some((broken, _))) => number != broken,
            (Line::Up { .. }, None) => true,
            (Line::Down(_), _) => false,
        };
        let standing = tokio::time::timeout_at(deadline, line.wait_for(usable)).await;
        match standing {
            Ok(Ok(standing)) => match &*standing {
                Line::Up { number, sender } => Ok((*number, sender.clone())),
                Line::Down(why) => Err(self.away(why)),
            },
            Ok(Err(_)) => Err(self.away("this process is stopping")),
            Err(_) => {
                let why = self.trouble().or(broken.map(|(_, why)| why));
                Err(Error::Unavailable(why.unwrap_or_else(|| format!("the store at {} was away", self.endpoint))))
            }
        }
    }

    fn away(&self, why: &str) -> Error {
        Error::Unavailable(format!("the store at {} cannot be reached: {why}", self.endpoint))
    }
}

/// One question and its answer on one line.
async fn exchange(mut sender: line::Sender, operation: &str, body: AskBody) -> Result<Result<Answered, Error>, Broken> {
    let broken = |err: &dyn std::fmt::Display| Broken(format!("the line to the store broke: {err}"));
    let request = hyper::Request::post(format!("https://store{PATH_PREFIX}{operation}")).body(body);
    let request = request.expect("an operation's name is a path");
    let response = sender.send_request(request).await.map_err(|err| broken(&err))?;
    let status = response.status();
    let mut reader = Reader::new(response.into_body());
    let message = match reader.message().await {
        Ok(Some(message)) => message,
        Ok(None) => return Ok(Err(Error::Unavailable(format!("{operation}: an empty answer, status {status}")))),
        Err(err) => return Err(broken(&err)),
    };
    if !status.is_success() {
        return Ok(Err(error_from_bytes(&message)));
    }
    Ok(match Reply::from_bytes(&message) {
        Ok(reply) => Ok((reply.answer, reader)),
        Err(err) => Err(Error::Invalid(format!("{operation}: the store's answer cannot be read: {err}"))),
    })
}

/// Two builds that do not understand each other; `line.rs` has compared versions before.
fn unexpected(answer: &Answer) -> Error {
    Error::Invalid(format!("the store answered something else: {answer:?}"))
}

/// The messages behind an answer, to a clean end.
async fn messages<T>(
    reader: &mut Reader<Incoming>,
    read: impl Fn(&[u8]) -> Result<T, storage_engine::wire::Error>,
) -> Result<Vec<T>, Error> {
    let mut out = Vec::new();
    while let Some(message) = reader.message().await.map_err(|err| Error::Unavailable(err.to_string()))? {
        let one = read(&message);
        out.push(one.map_err(|err| Error::Invalid(format!("the store's answer cannot be read: {err}")))?);
    }
    Ok(out)
}

#[async_trait]
impl Client for NetworkStore {
    async fn scratch(&self, bucket: &str, act: Act) -> Result<Done, Error> {
        match self.ask(Call::Scratch { bucket: bucket.into(), act }, PATIENCE).await? {
            (Answer::Done, _) => Ok(Done::Nothing),
            (Answer::Made(id), _) => Ok(Done::Made(id)),
            (Answer::Bytes { .. }, reader) => {
                let pieces: Vec<Bytes> = reader.rest().try_collect().await.map_err(Error::Body)?;
                Ok(Done::Read(pieces.concat().into()))
            }
            (other, _) => Err(unexpected(&other)),
        }
    }
}

#[async_trait]
impl Store for NetworkStore {
    async fn bucket(&self, name: &str) -> Result<BucketInfo, Error> {
        match self.ask(Call::Bucket { bucket: name.into() }, PATIENCE).await?.0 {
            Answer::Bucket(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    async fn changes(&self, bucket: &str, cursor: Option<&Cursor>, limit: usize) -> Result<Batch, Error> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let call = Call::Changes { bucket: bucket.into(), cursor: cursor.cloned(), limit };
        match self.ask(call, PATIENCE_CHANGES).await? {
            (Answer::Changes { cursor, bucket }, mut reader) => {
                Ok(Batch { events: messages(&mut reader, event_from_bytes).await?, cursor, bucket })
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn head(&self, bucket: &str) -> Result<Cursor, Error> {
        match self.ask_briefly(Call::Head { bucket: bucket.into() }).await? {
            Answer::Cursor(Some(head)) => Ok(head),
            other => Err(unexpected(&other)),
        }
    }

    async fn stat(&self, bucket: &str, key: &str, id: VersionId) -> Result<Option<Version>, Error> {
        match self.ask(Call::Stat { bucket: bucket.into(), key: key.into(), id }, PATIENCE).await?.0 {
            Answer::Version(version) => Ok(version.map(|v| *v)),
            other => Err(unexpected(&other)),
        }
    }

    async fn read_version(&self, bucket: &str, key: &str, id: VersionId) -> Result<Body, Error> {
        match self.ask(Call::ReadVersion { bucket: bucket.into(), key: key.into(), id }, PATIENCE).await? {
            (Answer::Bytes { .. }, reader) => Ok(reader.rest()),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn apply_version(
        &self,
        bucket: &str,
        version: Version,
        body: Option<Body>,
        traceparent: Option<String>,
    ) -> Result<Applied, Error> {
        let (version, has_body) = (Box::new(version), body.is_some());
        let call = Call::Apply { bucket: bucket.into(), version, has_body, traceparent };
        let answer = match body {
            None => self.ask(call, PATIENCE).await?.0,
            Some(body) => self.ask_with(call, body).await?,
        };
        match answer {
            Answer::Applied(applied) => Ok(applied),
            other => Err(unexpected(&other)),
        }
    }

    async fn versions_of(&self, bucket: &str, key: &str) -> Result<Vec<Version>, Error> {
        match self.ask(Call::VersionsOf { bucket: bucket.into(), key: key.into() }, PATIENCE).await? {
            (Answer::Versions, mut reader) => messages(&mut reader, Version::from_bytes).await,
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn list_versions(
        &self,
        bucket: &str,
        after: Option<(String, VersionId)>,
        limit: usize,
    ) -> Result<Vec<Version>, Error> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        match self.ask(Call::VersionsAfter { bucket: bucket.into(), after, limit }, PATIENCE).await? {
            (Answer::Versions, mut reader) => messages(&mut reader, Version::from_bytes).await,
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn stretch(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Stretch, Error> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let (bucket, prefix, after) = (bucket.into(), prefix.into(), after.map(String::from));
        match self.ask(Call::Stretch { bucket, prefix, after, limit }, PATIENCE).await? {
            (Answer::Stretch { through }, mut reader) => {
                Ok(Stretch { versions: messages(&mut reader, Version::from_bytes).await?, through })
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn register(&self, bucket: &str, consumer: &str, keeps_versioning: bool) -> Result<Option<Cursor>, Error> {
        let call = Call::Register { bucket: bucket.into(), consumer: consumer.into(), keeps_versioning };
        match self.ask(call, PATIENCE).await?.0 {
            Answer::Cursor(cursor) => Ok(cursor),
            other => Err(unexpected(&other)),
        }
    }

    async fn commit(&self, bucket: &str, consumer: &str, cursor: &Cursor, floor: &Cursor) -> Result<(), Error> {
        let (cursor, floor) = (cursor.clone(), floor.clone());
        let call = Call::Commit { bucket: bucket.into(), consumer: consumer.into(), cursor, floor };
        match self.ask_briefly(call).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn deregister(&self, bucket: &str, consumer: &str) -> Result<(), Error> {
        let call = Call::Deregister { bucket: bucket.into(), consumer: consumer.into() };
        match self.ask(call, PATIENCE).await?.0 {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn backlog(&self, bucket: &str, cursor: Option<&Cursor>, interest: &Interest) -> Result<Backlog, Error> {
        let call = Call::Backlog { bucket: bucket.into(), cursor: cursor.cloned(), interest: interest.clone() };
        match self.ask_briefly(call).await? {
            Answer::Backlog(backlog) => Ok(backlog),
            other => Err(unexpected(&other)),
        }
    }

    async fn join_document(&self, bucket: &str, document: Document) -> Result<bool, Error> {
        match self.ask(Call::JoinDocument { bucket: bucket.into(), document }, PATIENCE).await?.0 {
            Answer::Applied(applied) => Ok(applied == Applied::Applied),
            other => Err(unexpected(&other)),
        }
    }

    async fn health(&self) -> Result<Option<StoreHealth>, Error> {
        match self.ask_briefly(Call::Health).await? {
            Answer::Health(health) => Ok(Some(health)),
            other => Err(unexpected(&other)),
        }
    }

    fn pieces(&self) -> Option<&dyn Pieces> {
        Some(self)
    }

    fn readers(&self) -> Option<&dyn Readers> {
        Some(self)
    }

    fn client(&self) -> Option<&dyn Client> {
        Some(self)
    }

    fn trouble(&self) -> Option<String> {
        match &*self.line.borrow() {
            Line::Up { .. } => None,
            Line::Down(why) => Some(format!("the store at {} cannot be reached: {why}", self.endpoint)),
        }
    }
}

/// A question and the bytes behind it; an error of the bytes is kept, for the line only says that it broke.
fn pour(head: Bytes, body: Body, failed: Arc<OnceLock<String>>) -> AskBody {
    let bytes = body.inspect_err(move |err| _ = failed.set(err.to_string())).map_ok(Frame::data);
    StreamBody::new(stream::once(std::future::ready(Ok(Frame::data(head)))).chain(bytes)).boxed_unsync()
}

#[cfg(test)]
pub(crate) mod tests;
