//! Clients that never rest: puts of all sizes, overwrites, markers, permanent deletes, tags, uploads in parts,
//! reads of what was acked. They go on through crashes; what they were told goes to the oracle.
use crate::dice::Dice;
use crate::oracle::{Gone, Oracle};
use crate::s3::{Miss, S3, Tags, sha256};
use crate::site::Site;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Keys that all clients of all sites write.
const SHARED_KEYS: u64 = 24;
/// A client rests so long after a request that failed: its site is down or busy.
const REST: Duration = Duration::from_millis(30);

/// Makes every body of a run unlike the others.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// How a load goes.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub clients: usize,
    /// Pause after each operation.
    pub pause: Duration,
    /// Prefix of the keys.
    pub prefix: &'static str,
}

/// Clients of one site.
pub struct Load {
    stop: CancellationToken,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts clients of site number `place`.
    pub fn start(place: usize, site: &Arc<Site>, oracle: &Arc<Oracle>, settings: Settings, dice: &mut Dice) -> Load {
        let stop = CancellationToken::new();
        let clients = (0..settings.clients).map(|number| {
            let client =
                Client { place, number, site: site.clone(), oracle: oracle.clone(), settings, dice: dice.fork() };
            tokio::spawn(client.run(stop.clone()))
        });
        Load { clients: clients.collect(), stop }
    }

    /// Waits until every request under way has come to an end.
    pub async fn stop(self) {
        self.stop.cancel();
        for client in self.clients {
            client.await.expect("a client found something wrong");
        }
    }
}

struct Client {
    place: usize,
    number: usize,
    site: Arc<Site>,
    oracle: Arc<Oracle>,
    settings: Settings,
    dice: Dice,
}

impl Client {
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let done = match self.site.door() {
                Some(door) => self.once(&door.s3).await,
                None => false,
            };
            tokio::time::sleep(if done { self.settings.pause } else { REST }).await;
        }
    }

    /// One operation; whether it was answered.
    async fn once(&mut self, s3: &S3) -> bool {
        match self.dice.range(0, 100) {
            0..56 => self.put(s3).await,
            56..62 => self.upload(s3).await,
            62..70 => self.delete(s3).await,
            70..78 => self.purge(s3).await,
            78..88 => self.tag(s3).await,
            _ => self.read(s3).await,
        }
    }

    fn key(&mut self) -> String {
        let prefix = self.settings.prefix;
        match self.dice.chance(50) {
            true => format!("{prefix}shared/{}", self.dice.range(0, SHARED_KEYS)),
            false => format!("{prefix}own/{}/{}/{}", self.place, self.number, self.dice.range(0, 12)),
        }
    }

    fn size(&mut self) -> usize {
        let most = match self.dice.range(0, 100) {
            0..50 => 4 << 10,
            50..88 => 64 << 10,
            88..98 => 512 << 10,
            _ => 3 << 20,
        };
        self.dice.index(most)
    }

    async fn put(&mut self, s3: &S3) -> bool {
        let (key, size) = (self.key(), self.size());
        let body = body(size);
        let hash = sha256(&body);
        let began = self.oracle.put_begins(&key, &hash);
        let said = s3.put(&key, body).await;
        self.oracle.put_ends(self.place, &key, &hash, began, &said);
        said.is_ok()
    }

    async fn upload(&mut self, s3: &S3) -> bool {
        let (key, size) = (self.key(), self.size());
        let body = body(size);
        let hash = sha256(&body);
        let Ok(upload) = s3.upload(&key, &[body]).await else { return false };
        let began = self.oracle.put_begins(&key, &hash);
        let said = s3.complete(&key, &upload).await;
        self.oracle.put_ends(self.place, &key, &hash, began, &said);
        said.is_ok()
    }

    async fn delete(&mut self, s3: &S3) -> bool {
        let key = self.key();
        let began = self.oracle.delete_begins(&key);
        let said = s3.delete(&key).await;
        self.oracle.delete_ends(self.place, &key, began, &said);
        said.is_ok()
    }

    /// Deletes a version for good, of its own site or of another one once it is here: what is not here is deleted
    /// without effect, as in S3.
    async fn purge(&mut self, s3: &S3) -> bool {
        let Some(version) = self.oracle.some_version(|n| self.dice.index(n)) else { return true };
        if version.site != self.place && !s3.is_listed(&version.key, &version.id).await {
            return true;
        }
        self.oracle.purge_begins(&version.key, &version.id);
        let said = s3.purge(&version.key, &version.id).await;
        self.oracle.purge_ends(&version.key, &version.id, &said);
        said.is_ok()
    }

    async fn tag(&mut self, s3: &S3) -> bool {
        let Some(version) = self.oracle.some_version(|n| self.dice.index(n)) else { return true };
        if version.body.is_none() {
            return true;
        }
        let value = format!("{}-{}", self.site.name, NUMBER.fetch_add(1, Ordering::Relaxed));
        let tags = Tags::from([("by".to_owned(), value)]);
        let place = self.oracle.tag_begins(self.place, &version.key, &version.id, &tags);
        let said = s3.tag(&version.key, &version.id, &tags).await;
        self.oracle.tag_ends(&version.key, &version.id, place, &said);
        // Not there yet, or deleted meanwhile: an answer like any other.
        !matches!(said, Err(Miss::Unknown(_)))
    }

    /// What this site acked is readable here, at once, whatever was killed in between.
    async fn read(&mut self, s3: &S3) -> bool {
        let Some(version) = self.oracle.some_version(|n| self.dice.index(n)) else { return true };
        let Some(body) = version.body.filter(|_| version.site == self.place) else { return true };
        match s3.read(&version.key, &version.id).await {
            Ok(read) => assert_eq!(read, body, "{} {} at {}", version.key, version.id, self.site.name),
            Err(Miss::Unknown(_)) => return false,
            Err(Miss::Refused(status, why)) => {
                let gone = self.oracle.gone(&version.key, &version.id);
                let what = format!("{} {} at {}: {status} {why}", version.key, version.id, self.site.name);
                assert_ne!(gone, Gone::No, "LOST while running: {what}");
            }
        }
        true
    }
}

/// Bytes unlike all others of the run.
pub fn body(size: usize) -> Bytes {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let head = format!("body number {number}\n").into_bytes();
    let rest = (0..size).map(|i| (i as u64).wrapping_mul(number | 1).wrapping_shr(7) as u8);
    head.into_iter().chain(rest).collect()
}
