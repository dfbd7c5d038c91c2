//! Reads of versions that are not here yet, where the replicator is another process: what a reader wants lies on the
//! [`Desk`] until the replicator, which waits for it over the private API, takes it along and brings the answer.
//!
//! The store dials nobody. Where no replicator waits for questions of a bucket, nobody is asked and no reader waits.
//! What is known here to be deleted is decided by `object/elsewhere.rs`, and what may be lent by whoever lends it.
use super::Body;
use super::message::{put_range, tag, take_range};
use super::neighbour::{Elsewhere, Neighbour};
use crate::version::order::version_id;
use crate::version::{Version, VersionId};
use crate::wire::{self, Fields};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// How long a reader waits to hear who has it: the replicator asks several places, one after another.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a reader waits for the next bytes.
const PATIENCE_BYTES: Duration = Duration::from_secs(30);
/// A replicator that took a question is back within this time; until then more may be put down for it.
const AWAY: Duration = Duration::from_secs(2);
/// Questions that wait to be taken.
const QUESTIONS_MAX: usize = 1_024;
/// Chunks of one body that wait for their reader.
const CHUNKS: usize = 4;

/// What a reader wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub number: u64,
    pub bucket: String,
    pub key: String,
    /// `None`: the latest.
    pub version: Option<VersionId>,
    /// Which of its bytes; `None`: who has it, and all but the bytes.
    pub range: Option<Range<u64>>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Nothing,
    /// The version, and where it stands, in words for the client.
    Version {
        place: String,
        version: Box<Version>,
    },
    /// The bytes follow.
    Bytes,
}

impl Question {
    pub(super) fn put(&self, f: &mut Fields) {
        f.put(tag::QUESTION, &self.number);
        f.put(tag::BUCKET, &self.bucket);
        f.put(tag::KEY, &self.key);
        if let Some(id) = self.version {
            f.put_bytes(tag::VERSION_ID, id.as_bytes());
        }
        if let Some(range) = &self.range {
            put_range(f, range);
        }
    }

    pub(super) fn take(f: &mut Fields) -> Result<Option<Question>, wire::Error> {
        let Some(number) = f.take(tag::QUESTION)? else { return Ok(None) };
        let version = match version_id(f, tag::VERSION_ID) {
            Ok(id) => Some(id),
            Err(wire::Error::Missing(_)) => None,
            Err(e) => return Err(e),
        };
        let (bucket, key) = (f.need(tag::BUCKET)?, f.need(tag::KEY)?);
        Ok(Some(Question { number, bucket, key, version, range: take_range(f)? }))
    }
}

impl Found {
    pub(super) fn put(&self, f: &mut Fields) {
        match self {
            Found::Nothing => f.put(tag::HAS_BODY, &false),
            Found::Version { place, version } => {
                f.put_bytes(tag::VERSION, &version.to_bytes());
                f.put(tag::HAS_BODY, &false);
                f.put(tag::PLACE, place);
            }
            Found::Bytes => f.put(tag::HAS_BODY, &true),
        }
    }

    pub(super) fn take(f: &mut Fields) -> Result<Found, wire::Error> {
        let has_body: bool = f.need(tag::HAS_BODY)?;
        Ok(match f.take_bytes(tag::VERSION)? {
            Some(bytes) => {
                Found::Version { place: f.need(tag::PLACE)?, version: Box::new(Version::from_bytes(&bytes)?) }
            }
            None if has_body => Found::Bytes,
            None => Found::Nothing,
        })
    }
}

/// Where readers put their questions down, and a replicator takes them.
#[derive(Clone, Default)]
pub struct Desk(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    put_down: Notify,
}

#[derive(Default)]
struct State {
    last: u64,
    /// Not taken yet, oldest first.
    waiting: VecDeque<Question>,
    readers: BTreeMap<u64, Reader>,
    /// Who waits for questions of a bucket, and when one was here last.
    takers: BTreeMap<String, Takers>,
}

#[derive(Default)]
struct Takers {
    waiting: usize,
    left: Option<Instant>,
}

/// Who waits for an answer.
enum Reader {
    Place(oneshot::Sender<(String, Version)>),
    Bytes(mpsc::Sender<io::Result<Bytes>>),
}

impl Desk {
    /// The next question of a reader of one of `buckets`; `None`: there was none within `wait`. Cancel-safe.
    pub async fn next(&self, buckets: &[String], wait: Duration) -> Option<Question> {
        let _here = Here::new(&self.0, buckets);
        let taken = async {
            loop {
                let put_down = self.0.put_down.notified();
                let mut put_down = std::pin::pin!(put_down);
                put_down.as_mut().enable();
                if let Some(question) = self.0.state().take(buckets) {
                    return question;
                }
                put_down.await;
            }
        };
        timeout(wait, taken).await.ok()
    }

    /// Brings the answer to a question; `body` are the bytes that were asked for. One whose reader is gone is dropped.
    pub async fn answer(&self, number: u64, found: Found, mut body: Body) {
        let Some(reader) = self.0.state().readers.remove(&number) else { return };
        match (reader, found) {
            (Reader::Place(tell), Found::Version { place, version }) => _ = tell.send((place, *version)),
            (Reader::Bytes(pour), Found::Bytes) => {
                while let Some(chunk) = body.next().await {
                    if pour.send(chunk).await.is_err() {
                        return;
                    }
                }
            }
            // Whoever waits hears it by the end of its channel.
            _ => {}
        }
    }

    /// Puts a question down; `None`: nobody would take it.
    fn ask(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        range: Option<Range<u64>>,
        reader: Reader,
    ) -> Option<Asked> {
        let mut state = self.0.state();
        let is_taken = state.takers.get(bucket).is_some_and(Takers::are_here);
        if !is_taken || state.waiting.len() >= QUESTIONS_MAX {
            return None;
        }
        state.last += 1;
        let number = state.last;
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        state.waiting.push_back(Question { number, bucket, key, version, range });
        state.readers.insert(number, reader);
        drop(state);
        self.0.put_down.notify_waiters();
        Some(Asked { inner: self.0.clone(), number })
    }

    /// The bytes of a range, as they come.
    fn read(&self, bucket: &str, key: &str, version: VersionId, range: Range<u64>) -> Body {
        let length = range.end - range.start;
        let (pour, poured) = mpsc::channel(CHUNKS);
        let asked = self.ask(bucket, key, Some(version), Some(range), Reader::Bytes(pour));
        let Some(asked) = asked else {
            return futures::stream::iter([Err(io::Error::other("no replicator takes questions now"))]).boxed();
        };
        let reading = Reading { poured, left: length, _asked: asked };
        futures::stream::try_unfold(reading, Reading::next).boxed()
    }
}

/// A body on its way to its reader.
struct Reading {
    poured: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
    _asked: Asked,
}

impl Reading {
    async fn next(mut self) -> io::Result<Option<(Bytes, Reading)>> {
        if self.left == 0 {
            return Ok(None);
        }
        let late = |_| io::Error::other("the replicator brought no bytes in time");
        let chunk = timeout(PATIENCE_BYTES, self.poured.recv()).await.map_err(late)?;
        let chunk = chunk.unwrap_or_else(|| Err(io::Error::other("it is lent no longer")))?;
        let left = self.left.checked_sub(chunk.len() as u64);
        self.left = left.ok_or_else(|| io::Error::other("more bytes came than were asked for"))?;
        Ok(Some((chunk, self)))
    }
}

#[async_trait]
impl Neighbour for Desk {
    async fn find(&self, bucket: &str, key: &str, version: Option<VersionId>) -> Option<Elsewhere> {
        let (tell, told) = oneshot::channel();
        let _asked = self.ask(bucket, key, version, None, Reader::Place(tell))?;
        let (place, version) = timeout(PATIENCE, told).await.ok()?.ok()?;
        let (desk, bucket, key, id) = (self.clone(), bucket.to_owned(), key.to_owned(), version.id);
        let read = Arc::new(move |range| desk.read(&bucket, &key, id, range));
        Some(Elsewhere { place, version, read })
    }
}

/// A question that is waited for; dropped, it is not asked any more.
struct Asked {
    inner: Arc<Inner>,
    number: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        state.readers.remove(&self.number);
        state.waiting.retain(|question| question.number != self.number);
    }
}

/// A replicator that waits for questions of these buckets.
struct Here<'a> {
    inner: &'a Inner,
    buckets: &'a [String],
}

impl<'a> Here<'a> {
    fn new(inner: &'a Inner, buckets: &'a [String]) -> Self {
        let mut state = inner.state();
        let is_near = |left: Instant| left.elapsed() < AWAY;
        state.takers.retain(|_, takers| takers.waiting > 0 || takers.left.is_some_and(is_near));
        for bucket in buckets {
            state.takers.entry(bucket.clone()).or_default().waiting += 1;
        }
        Here { inner, buckets }
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        for bucket in self.buckets {
            if let Some(takers) = state.takers.get_mut(bucket) {
                takers.waiting -= 1;
                takers.left = Some(Instant::now());
            }
        }
    }
}

impl Takers {
    fn are_here(&self) -> bool {
        self.waiting > 0 || self.left.is_some_and(|left| left.elapsed() < AWAY)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

impl State {
    fn take(&mut self, buckets: &[String]) -> Option<Question> {
        let at = self.waiting.iter().position(|question| buckets.contains(&question.bucket))?;
        self.waiting.remove(at)
    }
}

#[cfg(test)]
mod tests;
