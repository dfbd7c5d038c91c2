//! Stores without drives, so that what is measured is the replicators and the line: [`Made`] makes versions by number
//! when they are read, [`Sink`] takes each once and keeps a bit of it.
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use isthmus::store::{Applied, Backlog, Batch, Body, BucketInfo, Cursor, Error, Interest, Store, Stretch};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use storage_engine::clock::{Clock, SystemClock};
use storage_engine::feed::Event;
use storage_engine::version::{Birth, Hlc, Kind, Order, Origin, Version, VersionId};
use tokio::sync::watch;

/// Of every version.
pub const BYTES: usize = 4096;

/// A feed of so many versions as it was told.
pub struct Made {
    head: watch::Sender<u64>,
    began_millis: u64,
    bytes: Bytes,
}

impl Made {
    pub fn new() -> Self {
        Made {
            head: watch::Sender::new(0),
            began_millis: SystemClock.now_millis(),
            bytes: (0..BYTES).map(|at| (at * 31) as u8).collect::<Vec<_>>().into(),
        }
    }

    /// So many more versions are committed.
    pub fn commit(&self, versions: u64) {
        self.head.send_modify(|head| *head += versions);
    }

    fn version(&self, number: u64) -> Version {
        let id = VersionId::from_bytes(u128::from(number + 1).to_be_bytes());
        let birth = Birth {
            size_bytes: BYTES as u64,
            etag: format!("{number:032x}"),
            crc64nvme: number,
            headers: BTreeMap::from([("content-type".into(), "application/octet-stream".into())]),
            ..Birth::blank(
                Order { hlc: Hlc::from_millis(self.began_millis), origin: Origin::new("fra"), version_id: id },
                Kind::Object,
            )
        };
        Version { birth: Some(birth), ..Version::blank(&format!("some/folder/object-{number:010}"), id) }
    }
}

/// What of the feed lies before the cursor.
fn place(cursor: Option<&Cursor>) -> u64 {
    cursor.and_then(|c| c.0[..].try_into().ok()).map_or(0, u64::from_be_bytes)
}
fn cursor(place: u64) -> Cursor {
    Cursor(Bytes::copy_from_slice(&place.to_be_bytes()))
}
fn number(id: VersionId) -> u64 {
    u64::try_from(u128::from_be_bytes(*id.as_bytes())).map_or(0, |n| n.saturating_sub(1))
}
fn unasked<T>() -> Result<T, Error> {
    Err(Error::Unavailable("this measurement does not ask it".into()))
}
fn info(name: &str) -> BucketInfo {
    BucketInfo { id: "0".repeat(32), name: name.into(), versioned: true, ..BucketInfo::default() }
}

#[async_trait]
impl Store for Made {
    async fn bucket(&self, name: &str) -> Result<BucketInfo, Error> {
        Ok(info(name))
    }
    async fn changes(&self, _: &str, from: Option<&Cursor>, limit: usize) -> Result<Batch, Error> {
        let first = place(from);
        let head = *self.head.subscribe().wait_for(|head| *head > first).await.expect("the sender is ours");
        let last = head.min(first + limit as u64);
        let event = |n| Event { version: self.version(n), pending_since: self.began_millis, traceparent: None };
        Ok(Batch { events: (first..last).map(event).collect(), cursor: cursor(last), bucket: String::new() })
    }
    async fn head(&self, _: &str) -> Result<Cursor, Error> {
        Ok(cursor(*self.head.borrow()))
    }
    async fn stat(&self, _: &str, _: &str, id: VersionId) -> Result<Option<Version>, Error> {
        Ok(Some(self.version(number(id))))
    }
    async fn read_version(&self, _: &str, _: &str, _: VersionId) -> Result<Body, Error> {
        Ok(futures::stream::iter([Ok(self.bytes.clone())]).boxed())
    }
    async fn register(&self, _: &str, _: &str, _: bool) -> Result<Option<Cursor>, Error> {
        Ok(None)
    }
    async fn commit(&self, _: &str, _: &str, _: &Cursor, _: &Cursor) -> Result<(), Error> {
        Ok(())
    }
    async fn deregister(&self, _: &str, _: &str) -> Result<(), Error> {
        Ok(())
    }
    async fn backlog(&self, _: &str, from: Option<&Cursor>, _: &Interest) -> Result<Backlog, Error> {
        let versions = self.head.borrow().saturating_sub(place(from));
        let oldest_pending_since = (versions > 0).then_some(self.began_millis);
        Ok(Backlog { versions, bytes: versions * BYTES as u64, oldest_pending_since })
    }
    async fn apply_version(&self, _: &str, _: Version, _: Option<Body>, _: Option<String>) -> Result<Applied, Error> {
        unasked()
    }
    async fn versions_of(&self, _: &str, _: &str) -> Result<Vec<Version>, Error> {
        unasked()
    }
    async fn list_versions(&self, _: &str, _: Option<(String, VersionId)>, _: usize) -> Result<Vec<Version>, Error> {
        unasked()
    }
    async fn stretch(&self, _: &str, _: &str, _: Option<&str>, _: usize) -> Result<Stretch, Error> {
        unasked()
    }
}

/// Takes what [`Made`] makes.
#[derive(Default)]
pub struct Sink {
    /// A bit a version.
    seen: Mutex<Vec<u64>>,
    /// Different versions that came.
    pub taken: AtomicU64,
    /// Versions that came again.
    pub again: AtomicU64,
    last: Mutex<Option<Instant>>,
}

impl Sink {
    /// When the last one came.
    pub fn last(&self) -> Option<Instant> {
        *self.last.lock().expect("no panic while held")
    }

    fn is_new(&self, number: u64) -> bool {
        let mut seen = self.seen.lock().expect("no panic while held");
        let (word, bit) = ((number / 64) as usize, 1u64 << (number % 64));
        if seen.len() <= word {
            seen.resize(word + 1, 0);
        }
        let is_new = seen[word] & bit == 0;
        seen[word] |= bit;
        is_new
    }
}

#[async_trait]
impl Store for Sink {
    async fn apply_version(
        &self,
        _: &str,
        version: Version,
        body: Option<Body>,
        _: Option<String>,
    ) -> Result<Applied, Error> {
        let Some(mut body) = body else { return Ok(Applied::NeedsBody) };
        let mut read = 0;
        while let Some(piece) = body.next().await {
            read += piece.map_err(Error::Body)?.len();
        }
        if read != BYTES {
            return Err(Error::Invalid(format!("{read} bytes of {BYTES}")));
        }
        *self.last.lock().expect("no panic while held") = Some(Instant::now());
        if self.is_new(number(version.id)) {
            self.taken.fetch_add(1, Ordering::Relaxed);
            Ok(Applied::Applied)
        } else {
            self.again.fetch_add(1, Ordering::Relaxed);
            Ok(Applied::AlreadyPresent)
        }
    }
    async fn versions_of(&self, _: &str, _: &str) -> Result<Vec<Version>, Error> {
        Ok(Vec::new())
    }
    async fn bucket(&self, name: &str) -> Result<BucketInfo, Error> {
        Ok(info(name))
    }
    async fn changes(&self, _: &str, _: Option<&Cursor>, _: usize) -> Result<Batch, Error> {
        std::future::pending().await
    }
    async fn head(&self, _: &str) -> Result<Cursor, Error> {
        Ok(cursor(0))
    }
    async fn stat(&self, _: &str, _: &str, _: VersionId) -> Result<Option<Version>, Error> {
        unasked()
    }
    async fn read_version(&self, _: &str, _: &str, _: VersionId) -> Result<Body, Error> {
        unasked()
    }
    async fn list_versions(&self, _: &str, _: Option<(String, VersionId)>, _: usize) -> Result<Vec<Version>, Error> {
        unasked()
    }
    async fn stretch(&self, _: &str, _: &str, _: Option<&str>, _: usize) -> Result<Stretch, Error> {
        unasked()
    }
    async fn register(&self, _: &str, _: &str, _: bool) -> Result<Option<Cursor>, Error> {
        Ok(None)
    }
    async fn commit(&self, _: &str, _: &str, _: &Cursor, _: &Cursor) -> Result<(), Error> {
        Ok(())
    }
    async fn deregister(&self, _: &str, _: &str) -> Result<(), Error> {
        Ok(())
    }
    async fn backlog(&self, _: &str, _: Option<&Cursor>, _: &Interest) -> Result<Backlog, Error> {
        Ok(Backlog::default())
    }
}
