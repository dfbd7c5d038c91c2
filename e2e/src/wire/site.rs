//! One site on its simulated host: the real replicator and peer listener over a store and a journal that outlive them,
//! and a client that writes. What the client is told is acked; it is remembered outside.
use super::dice::Dice;
use super::ground::Ground;
use super::locked;
use super::net::{Caller, Wire};
use super::store::Twin;
use async_trait::async_trait;
use isthmus::journal::memory::MemoryJournal;
use isthmus::peer::frame::bucket::BucketAsk;
use isthmus::peer::frame::reconcile::{Answer, Question};
use isthmus::peer::server::{Counters, Known, Resolver, Server, Settings};
use isthmus::peer::{Ack, Incoming, Receiver};
use isthmus::replicator::Replicator;
use isthmus::replicator::own::Shared;
use isthmus::replicator::proof::Pace;
use isthmus::replicator::receive::Receive;
use isthmus::replicator::tenure::{Tenure, Terms};
use isthmus::rule::refs::Refs;
use isthmus::rule::watch_folder::Snapshot;
use isthmus::telemetry::metrics::Metrics;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage_engine::clock::Clock;
use storage_engine::identity::{Files, Identity};
use storage_engine::version::{Kind, Version};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Keys a client writes: few, so that sites meet on them.
const KEYS: u64 = 24;

/// What outlives every life of a site.
pub struct Site {
    pub name: &'static str,
    pub store: Twin,
    pub caller: Arc<Caller>,
    pub settings: Settings,
    pub counters: Arc<Counters>,
    /// Clients write.
    pub writes: AtomicBool,
    /// Every change a client was told of.
    pub acked: Mutex<Vec<Version>>,
    /// Versions handed to the receiver, in all its lives.
    pub heard: Arc<AtomicU64>,
    journal: MemoryJournal,
    clock: Arc<dyn Clock>,
    rules: watch::Sender<Snapshot>,
    refs: Refs,
    files: Files,
    dice: Mutex<Dice>,
    /// Milliseconds between two writes, about.
    pause_ms: u64,
    lives: AtomicU64,
    life: Mutex<Option<Life>>,
}

/// A life of a site: its replicator, and what asks it to stop.
struct Life {
    replicator: Arc<Replicator>,
    stop: CancellationToken,
}

/// Counts what is handed to the receiver.
struct Spy {
    inner: Arc<Receive>,
    heard: Arc<AtomicU64>,
}

#[async_trait]
impl Receiver for Spy {
    async fn receive(&self, incoming: Incoming) -> Ack {
        self.heard.fetch_add(1, Ordering::Relaxed);
        self.inner.receive(incoming).await
    }
    fn takes_pieces(&self) -> bool {
        self.inner.takes_pieces()
    }
    async fn highest_epoch(&self, site: &str, link: &str) -> u64 {
        self.inner.highest_epoch(site, link).await
    }
    async fn answer(&self, site: &str, peer: &str, question: Question) -> Answer {
        self.inner.answer(site, peer, question).await
    }
    async fn bucket(&self, site: &str, peer: &str, ask: BucketAsk) -> Answer {
        self.inner.bucket(site, peer, ask).await
    }
}

impl Site {
    /// A site that has not lived yet, one of `count`.
    pub fn new(
        ground: &Ground,
        count: usize,
        name: &'static str,
        clock: Arc<dyn Clock>,
        settings: Settings,
        mut dice: Dice,
    ) -> Arc<Site> {
        Arc::new(Site {
            name,
            store: Twin::new(name, clock.clone()),
            caller: Arc::new(Caller::new(Dice::new(dice.bits()))),
            settings,
            counters: Arc::default(),
            writes: AtomicBool::new(true),
            acked: Mutex::default(),
            heard: Arc::default(),
            journal: MemoryJournal::by(clock.clone()),
            clock,
            rules: watch::Sender::new(ground.documents(count, name)),
            refs: ground.refs(),
            files: ground.files(name),
            pause_ms: dice.range(80, 500),
            dice: Mutex::new(dice),
            lives: AtomicU64::new(0),
            life: Mutex::default(),
        })
    }

    /// One life, until it is asked to stop; the host's crash cuts it anywhere.
    pub async fn live(self: Arc<Self>) -> turmoil::Result {
        let identity = Arc::new(Identity::load(self.files.clone()).await?);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let journal = Arc::new(self.journal.clone());
        let holder = format!("{}-{}", self.name, self.lives.fetch_add(1, Ordering::Relaxed));
        let shared = Shared {
            store: Arc::new(self.store.clone()),
            tenure: Arc::new(Tenure::new(journal.clone(), holder, Terms::default())),
            journal,
            clock: self.clock.clone(),
            metrics: Arc::new(Metrics::of(self.name)),
            pace: Pace::default(),
        };
        let own = self.rules.borrow().rules.sites[self.name].clone();
        let replicator = Replicator::new(&own, shared, self.refs.clone(), identity.clone(), self.rules.subscribe());
        let replicator = Arc::new(replicator.dialling(self.caller.clone()));
        let server = Server {
            site: self.name.into(),
            identity: identity.clone(),
            resolver: self.resolver(),
            receiver: Arc::new(Spy { inner: replicator.receiver(), heard: self.heard.clone() }),
            clock: self.clock.clone(),
            settings: self.settings,
            counters: self.counters.clone(),
        };
        *locked(&self.life) = Some(Life { replicator: replicator.clone(), stop: stop.clone() });
        tasks.spawn(Arc::new(server).run(Wire::bind().await?, tasks.clone(), stop.clone()));
        tasks.spawn(identity.keep_fresh(stop.clone()));
        tasks.spawn(stop.clone().run_until_cancelled_owned(self.clone().write()));
        replicator.run(stop).await;
        tasks.close();
        tasks.wait().await;
        Ok(())
    }

    fn resolver(&self) -> Resolver {
        let (rules, refs) = (self.rules.subscribe(), self.refs.clone());
        Arc::new(move |uri| {
            let snapshot = rules.borrow();
            let peer = snapshot.rules.peers.values().find(|p| p.identities.iter().any(|i| i == uri))?;
            let authority = refs.bundle(peer).ok()?;
            Some(Known { site: peer.site_id.clone(), peer: peer.name.clone(), authority })
        })
    }

    /// Asks the life that runs to stop as a process is asked: it drains and says goodbye.
    pub fn stop(&self) {
        if let Some(life) = &*locked(&self.life) {
            life.stop.cancel();
        }
    }

    /// What its links still owe, in words; nothing when all is recorded as done.
    pub fn owes(&self) -> Vec<String> {
        let life = locked(&self.life);
        let Some(life) = &*life else { return vec![format!("{} has not begun", self.name)] };
        let links = life.replicator.report().links;
        let owing = links
            .iter()
            .filter(|l| l.state != "live" || l.retry_versions + l.parked_versions > 0 || l.backlog_versions != Some(0));
        owing
            .map(|l| {
                format!(
                    "{}→{}: {}, backlog {:?}, {} to retry, {} parked, {}",
                    self.name,
                    l.peer,
                    l.state,
                    l.backlog_versions,
                    l.retry_versions,
                    l.parked_versions,
                    l.last_error.as_deref().unwrap_or("no error")
                )
            })
            .collect()
    }

    async fn write(self: Arc<Self>) {
        loop {
            let pause = locked(&self.dice).range(1, 2 * self.pause_ms);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if self.writes.load(Ordering::Relaxed) {
                let acked = self.write_once(&mut locked(&self.dice));
                locked(&self.acked).extend(acked);
            }
        }
    }

    /// Anything a client does; what it was told of.
    fn write_once(&self, dice: &mut Dice) -> Option<Version> {
        let key = format!("k{:02}", dice.range(0, KEYS));
        let of_key: Vec<_> = self.store.versions().into_values().filter(|v| v.key == key && v.is_live()).collect();
        let known = (!of_key.is_empty()).then(|| of_key[dice.range(0, of_key.len() as u64) as usize].id);
        match (dice.range(0, 100), known) {
            (0..10, Some(id)) => {
                let set = BTreeMap::from([("n".to_string(), dice.range(0, 1000).to_string())]);
                self.store.write(|store, now| store.tag(now, &key, id, set))
            }
            (10..16, Some(id)) => self.store.write(|store, now| store.purge(now, &key, id)),
            (16..24, _) => {
                let id = dice.version_id();
                Some(self.store.write(|store, now| store.put(now, &key, id, Kind::DeleteMarker, 0)))
            }
            _ => {
                let size = match dice.range(0, 100) {
                    0..10 => 0,
                    10..75 => dice.range(1, 3_000),
                    75..98 => dice.range(3_000, 120_000),
                    _ => dice.range(600_000, 1_800_000),
                };
                Some(self.store.put(&key, dice.version_id(), size))
            }
        }
    }

    /// Everything its clients were told of.
    pub fn acked(&self) -> Vec<Version> {
        locked(&self.acked).clone()
    }
}
