//! Two sites over stores on drives (8, 4+4, fsync on): how fast what waits goes at a distance, and how late a change is
//! readable there while the other site is written at half of what it can take. What `b` shows is read from its feed.
use crate::pair::{BUCKET, Pair, until};
use crate::wire::State;
use anyhow::ensure;
use bytes::Bytes;
use futures::StreamExt;
use isthmus::store::bundled::BundledStore;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use storage_engine::clock::SystemClock;
use storage_engine::drive::local::open_store;
use storage_engine::object::{Body, Conditions, Objects, Put, Versioning};
use storage_engine::version::{Origin, VersionId};

const DRIVES: usize = 8;
const BYTES: usize = 4096;
/// Clients of `a`.
const CLIENTS: usize = 32;
/// Of the versions that are timed, those at both ends are left out: dialling, and the last few.
const ENDS: f64 = 0.1;
/// One write in so many deletes the key written so many before.
const DELETE_EVERY: u64 = 8;

/// Two stores on drives, and replicators over them.
pub struct Stored {
    pub pair: Pair,
    a: Objects,
    /// When each version was shown at `b`.
    shown: Arc<Mutex<HashMap<VersionId, Instant>>>,
    next: AtomicU64,
}

impl Stored {
    pub async fn start(dir: &Path, state: State) -> anyhow::Result<Stored> {
        let (a, b) = (objects(dir, "fra").await?, objects(dir, "ams").await?);
        let shown = Arc::new(Mutex::new(HashMap::new()));
        tokio::spawn(watch(b.clone(), shown.clone()));
        let pair = Pair::start(dir, Arc::new(BundledStore(a.clone())), Arc::new(BundledStore(b)), state).await?;
        Ok(Stored { pair, a, shown, next: AtomicU64::new(0) })
    }

    fn count(&self) -> usize {
        self.shown.lock().expect("no panic while held").len()
    }

    /// Writes so many versions while the line is cut, then opens it; versions a second that `b` shows.
    pub async fn drain(&self, versions: u64, rtt: Duration) -> anyhow::Result<f64> {
        self.pair.wire.set(State::Reset);
        until("the end of the line", || !self.pair.is_up()).await?;
        let before = self.count();
        let writes = futures::stream::iter(0..versions).map(|_| self.write()).buffer_unordered(CLIENTS);
        let written: Vec<_> = writes.collect().await;
        let written: anyhow::Result<Vec<_>> = written.into_iter().collect();
        let written = written?;
        ensure!(self.count() == before, "something came over a line that is cut");
        self.pair.wire.set(State::Up(rtt));
        until("the last version", || self.count() >= before + versions as usize).await?;
        let shown = self.shown.lock().expect("no panic while held");
        let mut times: Vec<Instant> = written.iter().filter_map(|(id, _)| shown.get(id).copied()).collect();
        times.sort_unstable();
        let end = (times.len() as f64 * ENDS) as usize;
        let (first, last) = (times[end], times[times.len() - 1 - end]);
        Ok((times.len() - 1 - 2 * end) as f64 / last.duration_since(first).as_secs_f64())
    }

    /// Writes as fast as it goes for `span`; versions a second, counted until `b` shows them all.
    pub async fn full(&self, span: Duration) -> anyhow::Result<f64> {
        let (began, before) = (Instant::now(), self.count());
        let client = || async {
            let mut count = 0;
            while began.elapsed() < span {
                self.write().await?;
                count += 1;
            }
            anyhow::Ok(count)
        };
        let counts = futures::future::try_join_all((0..CLIENTS).map(|_| client())).await?;
        let versions: usize = counts.iter().sum();
        until("the last version", || self.count() >= before + versions).await?;
        Ok(versions as f64 / began.elapsed().as_secs_f64())
    }

    /// Writes `rate` versions a second for `span`; how late each was shown at `b`, sorted.
    pub async fn lags(&self, rate: f64, span: Duration) -> anyhow::Result<Vec<Duration>> {
        let before = self.count();
        let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let began = Instant::now();
        let ticks = futures::stream::unfold(tick, |mut tick| async move {
            tick.tick().await;
            Some(((), tick))
        });
        let writes = ticks
            .take_while(|()| std::future::ready(began.elapsed() < span))
            .map(|()| self.write())
            .buffer_unordered(CLIENTS);
        let written: Vec<_> = writes.collect().await;
        let written: anyhow::Result<Vec<_>> = written.into_iter().collect();
        let written = written?;
        until("the last version", || self.count() >= before + written.len()).await?;
        let shown = self.shown.lock().expect("no panic while held");
        let mut lags: Vec<Duration> = written
            .iter()
            .map(|(id, acked)| shown.get(id).map_or(Duration::MAX, |at| at.saturating_duration_since(*acked)))
            .collect();
        lags.sort_unstable();
        Ok(lags)
    }

    /// One write: its version, and when it was acked.
    async fn write(&self) -> anyhow::Result<(VersionId, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let key = |number: u64| format!("some/folder/object-{number:010}");
        let id = if number % DELETE_EVERY == DELETE_EVERY - 1 {
            let key = key(number - DELETE_EVERY / 2);
            let deleted = self.a.delete(BUCKET, &key, None, Conditions::default(), false).await?;
            deleted.version_id.ok_or_else(|| anyhow::anyhow!("a delete made no marker"))?
        } else {
            let bytes: Bytes = (0..BYTES).map(|at| (at as u64 * 31 + number) as u8).collect::<Vec<_>>().into();
            let body: Body = futures::stream::iter([Ok(bytes)]).boxed();
            self.a.put(BUCKET, &key(number), Put::default(), body).await?.version.id
        };
        Ok((id, Instant::now()))
    }
}

async fn objects(dir: &Path, site: &str) -> anyhow::Result<Objects> {
    let dirs: Vec<_> = (0..DRIVES).map(|drive| dir.join(site).join(drive.to_string())).collect();
    for dir in &dirs {
        std::fs::create_dir_all(dir)?;
    }
    let (drives, data) = open_store(&dirs, None)?;
    let objects = Objects::new(drives, data, Arc::new(SystemClock), Origin::new(site));
    objects.create_bucket(BUCKET, Versioning::Enabled).await?;
    Ok(objects)
}

/// Notes when versions become readable at `b`, until the process ends.
async fn watch(b: Objects, shown: Arc<Mutex<HashMap<VersionId, Instant>>>) {
    let mut cursor = None;
    loop {
        match b.changes(BUCKET, cursor.as_ref(), 1024).await {
            Ok(batch) => {
                let now = Instant::now();
                let mut shown = shown.lock().expect("no panic while held");
                for event in batch.events {
                    shown.entry(event.version.id).or_insert(now);
                }
                cursor = Some(batch.cursor);
            }
            Err(e) => {
                eprintln!("b's feed stalls: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
