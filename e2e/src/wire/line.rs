//! One connection by itself, version by version and ack by ack: a sender that pushes from many tasks, a receiver that
//! takes its time, answers early, or does not read what came. Connections are asked to leave while versions fly.
//!
//! On a calm network every version that was applied is acked, once: no ack is lost with a connection that says goodbye.
//! On a rough one pushes are given up and lines break; every version arrives all the same, and only what was applied
//! is ever acked.
use super::dice::Dice;
use super::ground::Ground;
use super::locked;
use super::net::{Caller, PORT, Wire, WorldClock};
use super::store::{body_of, bytes_of};
use super::{Failure, LOOK_EVERY, Log, Options, Report};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use isthmus::link::{Reason, Why};
use isthmus::peer::client::{Connection, Dial, Target};
use isthmus::peer::server::{Counters, Known, Server};
use isthmus::peer::{Ack, Incoming, Outgoing, Portion, Receiver};
use isthmus::store::memory::MemoryStore;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage_engine::clock::Clock;
use storage_engine::identity::Identity;
use storage_engine::version::{Kind, Origin, Version, VersionId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Versions of a seed.
const VERSIONS: usize = 400;
/// Tasks that push at once.
const PUSHERS: usize = 24;
/// How long it may be rough: most seeds take less than a minute.
const ROUGH_MAX: Duration = Duration::from_secs(300);
/// All versions, then, on a calm network.
const ALL_MAX: Duration = Duration::from_secs(600);
/// A body that breaks off is asked for again.
const RETRY_MS: u64 = 50;

/// What both ends saw.
#[derive(Default)]
struct Seen {
    /// Versions applied.
    applied: BTreeSet<VersionId>,
    /// Versions the sender heard are there.
    acked: BTreeSet<VersionId>,
    /// Acks of versions that were not there.
    early: u64,
    /// Bodies that ended well and were wrong.
    wrong: u64,
    heard: u64,
    /// Versions that came again though they were there: their ack was not heard.
    again: u64,
}

/// The receiving store.
struct Till {
    seen: Arc<Mutex<Seen>>,
    dice: Mutex<Dice>,
}

#[async_trait]
impl Receiver for Till {
    async fn receive(&self, incoming: Incoming) -> Ack {
        let (id, mood, late) = {
            let mut dice = locked(&self.dice);
            let late = if dice.chance(200) { dice.range(1, 700) } else { 0 };
            (incoming.version.id, dice.range(0, 100), late)
        };
        locked(&self.seen).heard += 1;
        tokio::time::sleep(Duration::from_millis(late)).await;
        if locked(&self.seen).applied.contains(&id) {
            locked(&self.seen).again += 1;
            return Ack::AlreadyPresent;
        }
        if mood < 6 {
            return Ack::Retry { after_ms: RETRY_MS, why: Why::new(Reason::Unavailable, "not now") };
        }
        let size = incoming.version.birth.as_ref().map_or(0, |b| b.size_bytes);
        let bytes = match incoming.body {
            Some(body) => body.try_collect::<Vec<_>>().await.map(|pieces| pieces.concat()),
            None => Ok(Vec::new()),
        };
        let mut seen = locked(&self.seen);
        match bytes {
            Ok(bytes) if bytes == bytes_of(id, size) => {
                seen.applied.insert(id);
                Ack::Applied
            }
            Ok(_) => {
                seen.wrong += 1;
                Ack::Refused(Why::new(Reason::Rejected, "other bytes"))
            }
            Err(e) => Ack::Retry { after_ms: RETRY_MS, why: Why::new(Reason::Digest, e.to_string()) },
        }
    }
    async fn highest_epoch(&self, _site: &str, _link: &str) -> u64 {
        0
    }
}

/// The sending end.
struct Sender {
    seen: Arc<Mutex<Seen>>,
    left: Mutex<VecDeque<Version>>,
    dice: Mutex<Dice>,
    is_rough: bool,
}

impl Sender {
    /// Pushes what is left over one connection, until all is there or it is over.
    async fn push_all(&self, line: &Connection) {
        let pushers = futures::stream::iter(0..PUSHERS).for_each_concurrent(None, |_| async {
            while let Some(version) = self.next() {
                if !self.push(line, version).await {
                    return;
                }
            }
        });
        tokio::select! {
            () = pushers => {}
            // Pushes end by themselves; this only wakes one that would hang.
            _ = async { line.closed().await; tokio::time::sleep(Duration::from_secs(5)).await } => {}
        }
    }

    fn next(&self) -> Option<Version> {
        locked(&self.left).pop_front()
    }

    /// Whether the connection takes more.
    async fn push(&self, line: &Connection, version: Version) -> bool {
        let (id, size) = (version.id, version.birth.as_ref().map_or(0, |b| b.size_bytes));
        let outgoing = Outgoing {
            link: "rule/bucket".into(),
            epoch: 1,
            may_send: Arc::new(|| true),
            bucket: "logs".into(),
            version: version.clone(),
            body: (size > 0).then(|| body_of(id, size)),
            portion: Portion::Whole,
            traceparent: None,
            relayed: false,
        };
        let patience = {
            let mut dice = locked(&self.dice);
            if self.is_rough && dice.chance(150) { dice.range(1, 400) } else { 3_600_000 }
        };
        let said = tokio::time::timeout(Duration::from_millis(patience), line.push(outgoing)).await;
        let mut seen = locked(&self.seen);
        match said {
            Ok(Ok(Ack::Applied | Ack::AlreadyPresent)) => {
                seen.early += u64::from(!seen.applied.contains(&id));
                seen.acked.insert(id);
                true
            }
            Ok(Err(e)) if e.is_peer_gone() => {
                locked(&self.left).push_front(version);
                false
            }
            _ => {
                locked(&self.left).push_back(version);
                true
            }
        }
    }
}

/// Runs one seed.
///
/// # Errors
/// What did not hold.
pub fn run(ground: &Ground, options: &Options) -> Result<Report, Failure> {
    super::set_up(options);
    let log = Log::default();
    let _hearing = log.hear();
    let fail = |what: String| Failure { options: *options, test: "wire_line_replay", what, log: log.last() };
    let mut dice = Dice::new(options.seed ^ 0x11e);
    let began = super::real_now();
    let clock: Arc<dyn Clock> = Arc::new(WorldClock { began });
    // Few segments on the way: a writer often waits with half of what it has.
    let segments = dice.range(8, 32) as usize;
    let mut sim = super::network(&mut dice, began, segments);
    let is_rough = dice.chance(500);
    let mut settings = super::settings(&mut dice);
    // Twice the longest way there and back: one that is old before its first version came never brings any.
    let lifetime = if dice.chance(300) { 3_600_000 } else { dice.range(1_000, 6_000) };
    settings.lifetime = Duration::from_millis(lifetime);
    settings.drain = Duration::from_secs(60);
    settings.receives_max = dice.range(2, 16) as usize;
    let (seen, counters) = (Arc::new(Mutex::new(Seen::default())), Arc::new(Counters::default()));
    let till = Arc::new(Till { seen: seen.clone(), dice: Mutex::new(Dice::new(dice.bits())) });
    let known = Known { site: "fra".into(), peer: "fra".into(), authority: ground.files("ams").authorities[0].clone() };
    let (files, told) = (ground.files("ams"), counters.clone());
    sim.host("ams", move || {
        let (files, till, known, told, clock) =
            (files.clone(), till.clone(), known.clone(), told.clone(), clock.clone());
        async move {
            let server = Server {
                site: "ams".into(),
                identity: Arc::new(Identity::load(files).await?),
                resolver: Arc::new(move |_| Some(known.clone())),
                receiver: till,
                clock,
                settings,
                counters: told,
            };
            Arc::new(server).run(Wire::bind().await?, TaskTracker::new(), CancellationToken::new()).await;
            Ok(())
        }
    });
    let (sender, caller) = sender(&mut dice, is_rough, &seen);
    let files = ground.files("fra");
    let (sending, calling, broken) = (sender.clone(), caller.clone(), caller.broken.clone());
    sim.client("fra", async move {
        let identity = Identity::load(files).await?;
        let target = Target {
            endpoint: format!("ams:{PORT}"),
            server_name: "ams".into(),
            identities: vec![Ground::identity("ams")],
            site: "fra".into(),
            peer_site: "ams".into(),
        };
        while !locked(&sending.left).is_empty() {
            match calling.dial(&target, &identity, &TaskTracker::new()).await {
                Ok(line) => {
                    sending.push_all(&line).await;
                    // Only the log asks how it ended; one that stands has no more to do.
                    if let Ok(reason) = tokio::time::timeout(Duration::ZERO, line.closed()).await {
                        tracing::info!(%reason, "The connection ended.");
                    }
                }
                Err(e) => tracing::info!(error = %e, "Dialling again."),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    });
    let mut weather = Dice::new(dice.bits());
    let mut change_at = Duration::ZERO;
    let (mut happened, mut steps) = (BTreeMap::new(), 0);
    loop {
        if is_rough && sim.elapsed() > ROUGH_MAX {
            caller.breaks.store(false, Ordering::Relaxed);
            clear(&sim);
        } else if is_rough && sim.elapsed() >= change_at {
            change_at = sim.elapsed() + Duration::from_millis(weather.range(300, 9_000));
            *happened.entry(blow(&sim, &mut weather)).or_default() += 1;
        }
        if sim.step().map_err(|e| fail(format!("the sender ended: {e}")))? {
            break;
        }
        // An end that takes the other for one that breaks the protocol goes on dialling for ever.
        steps += 1;
        if steps % LOOK_EVERY == 0 && !log.wrong().is_empty() {
            break;
        }
        if sim.elapsed() > ALL_MAX {
            let left = locked(&sender.left).len();
            let acked = locked(&seen).acked.len();
            return Err(fail(format!("{acked} of {VERSIONS} acked after {ALL_MAX:?}, {left} not under way")));
        }
    }
    if let [first, ..] = log.wrong().as_slice() {
        return Err(fail(format!("said between honest ends: {first}")));
    }
    judge(&locked(&seen), is_rough).map_err(&fail)?;
    let seen = locked(&seen);
    Ok(Report {
        acked: seen.acked.len() as u64,
        heard: seen.heard,
        connections: counters.connections.load(Ordering::Relaxed),
        broken: broken.load(Ordering::Relaxed),
        simulated: sim.elapsed(),
        happened,
        ..Report::default()
    })
}

fn sender(dice: &mut Dice, is_rough: bool, seen: &Arc<Mutex<Seen>>) -> (Arc<Sender>, Arc<Caller>) {
    let mut store = MemoryStore::new(Origin::new("fra"));
    let mut left = VecDeque::new();
    for number in 0..VERSIONS {
        let id = dice.version_id();
        let size = match dice.range(0, 100) {
            0..60 => dice.range(0, 3_000),
            60..95 => dice.range(3_000, 90_000),
            _ => dice.range(600_000, 1_500_000),
        };
        left.push_back(store.put(1, &format!("k{number:04}"), id, Kind::Object, size));
    }
    let caller = Caller::new(Dice::new(dice.bits()));
    caller.breaks.store(is_rough, Ordering::Relaxed);
    let (left, dice) = (Mutex::new(left), Mutex::new(Dice::new(dice.bits())));
    (Arc::new(Sender { seen: seen.clone(), left, dice, is_rough }), Arc::new(caller))
}

/// Everything flows, also what waited.
fn clear(sim: &turmoil::Sim<'_>) {
    sim.release("ams", "fra");
    sim.repair("ams", "fra");
}

/// The weather changes, to what it says; mostly it is fine.
fn blow(sim: &turmoil::Sim<'_>, dice: &mut Dice) -> &'static str {
    clear(sim);
    match dice.range(0, 10) {
        0 => {
            sim.partition("ams", "fra");
            "partition"
        }
        1 => {
            sim.partition_oneway("ams", "fra");
            "acks are lost"
        }
        2 => {
            sim.partition_oneway("fra", "ams");
            "versions are lost"
        }
        3 => {
            sim.hold("ams", "fra");
            "stall"
        }
        _ => "fine",
    }
}

fn judge(seen: &Seen, is_rough: bool) -> Result<(), String> {
    if seen.early + seen.wrong > 0 {
        return Err(format!("{} acks before the version was there, {} wrong bodies", seen.early, seen.wrong));
    }
    if seen.acked.len() != VERSIONS || seen.applied.len() != VERSIONS {
        return Err(format!("{} of {VERSIONS} acked, {} applied", seen.acked.len(), seen.applied.len()));
    }
    if !is_rough && seen.again > 0 {
        return Err(format!("{} acks were lost on a calm network", seen.again));
    }
    Ok(())
}
