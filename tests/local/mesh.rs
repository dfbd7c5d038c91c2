//! Three sites in full mesh, all written at once, under kills, pauses and a bad network; then everything heals:
//! all sites are alike version by version, hold what was acked, and fall silent.
use crate::dice::Dice;
use crate::kills;
use crate::load::{Load, Settings};
use crate::oracle::Oracle;
use crate::proxy::Fault;
use crate::s3::Miss;
use crate::site::{BUCKET, Fleet, Site};
use crate::view::{View, nothing};
use futures::future::join_all;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const NAMES: [&str; 3] = ["fra", "ams", "waw"];
const LOAD: Settings = Settings { clients: 3, pause: Duration::from_millis(150), prefix: "" };
/// Everything is everywhere within this time after the last fault.
const HEAL: Duration = Duration::from_secs(180);
/// A network fault is waited for so long to do something; every link sends several times a second.
const BITE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_sites_converge_after_kills_pauses_and_a_bad_network() {
    let (mut dice, _replay) = Dice::of("three_sites_converge", 0x3517);
    let fleet = Fleet::start(&NAMES, 4).await;
    let oracle = Arc::new(Oracle::default());
    let loads: Vec<_> =
        (0..).zip(&fleet.sites).map(|(i, site)| Load::start(i, site, &oracle, LOAD, &mut dice)).collect();
    let honest = Honest::start(&fleet, &oracle, dice.fork());

    let most = kills(30);
    let (mut killed, mut paused, mut faults, mut bitten) = (0, 0, 0, [0; Fault::KINDS.len()]);
    while killed < most {
        if dice.chance(50) {
            fleet.heal();
        }
        if dice.chance(60) {
            let (proxy, kind) = (dice.index(fleet.proxies.len()), faults % bitten.len());
            let fault = Fault::of_kind(kind, &mut dice);
            bitten[kind] += u64::from(fleet.proxies[proxy].bite(fault, BITE).await);
            faults += 1;
        }
        tokio::time::sleep(Duration::from_millis(dice.range(0, 1500))).await;
        let site = &fleet.sites[dice.index(fleet.sites.len())];
        if dice.chance(20) {
            pause(site, &mut dice).await;
            paused += 1;
        } else {
            killed += kill(site, most - killed, &mut dice).await;
        }
    }
    fleet.heal();
    for load in loads {
        load.stop().await;
    }
    fleet.drained(HEAL).await;
    let looks = honest.stop().await;
    println!("{killed} kills, {paused} pauses, {faults} network faults, {looks} looks at links, {:?}", oracle.counts());
    println!("network faults that did something: {:?}", Fault::KINDS.iter().zip(bitten).collect::<Vec<_>>());
    assert!(oracle.counts().acked > 10 * most && looks > 0, "a tame run");
    let is_whole = most < 30 || (paused > 0 && bitten.iter().all(|times| *times > 0));
    assert!(is_whole, "something never happened: {paused} pauses, {bitten:?} of {:?}", Fault::KINDS);

    let views = alike(&fleet, &oracle).await;
    println!("{} versions on each site", views[0].versions());
    silent(&fleet).await;
    fleet.no_alarm();
}

/// Kills a site, perhaps again while it starts; so many kills.
async fn kill(site: &Site, most: u64, dice: &mut Dice) -> u64 {
    let mut killed = 1;
    site.kill().await;
    tokio::time::sleep(Duration::from_millis(dice.range(0, 1000))).await;
    while killed < most && dice.chance(35) {
        site.spawn();
        tokio::time::sleep(Duration::from_millis(dice.range(0, 600))).await;
        site.kill().await;
        killed += 1;
    }
    site.start().await;
    killed
}

/// Stops a site in its tracks, sometimes for longer than its peers have patience.
async fn pause(site: &Site, dice: &mut Dice) {
    site.signal("-STOP").await;
    tokio::time::sleep(Duration::from_millis(dice.range(300, 5500))).await;
    site.signal("-CONT").await;
}

/// All running sites show the same and what the oracle knows, through S3 and through `isthmus diff`.
pub async fn alike(fleet: &Fleet, oracle: &Oracle) -> Vec<View> {
    let sites: Vec<_> = fleet.sites.iter().filter(|s| s.door().is_some()).collect();
    let doors: Vec<_> = sites.iter().map(|s| s.s3()).collect();
    let views = join_all(doors.iter().map(|s3| View::read(s3, oracle, ""))).await;
    for (site, view) in sites.iter().zip(&views) {
        nothing(&format!("site {}", site.name), &oracle.judge(view));
        nothing(&format!("{} against {}", sites[0].name, site.name), &views[0].differences(view));
    }
    for site in &sites[1..] {
        let mut diff = Command::new(env!("CARGO_BIN_EXE_isthmus"));
        diff.arg("diff").arg(sites[0].socket()).arg(site.socket()).args(["--bucket", BUCKET]);
        let said = diff.output().expect("run isthmus diff");
        assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stdout));
    }
    views
}

/// After quiesce nothing travels any more: no version is sent, none is tried.
pub async fn silent(fleet: &Fleet) {
    let before = traffic(fleet).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(before, traffic(fleet).await, "versions still travel between sites that are alike");
}

/// Every counter of versions, bytes and attempts of every link.
async fn traffic(fleet: &Fleet) -> Vec<String> {
    let mut counters = Vec::new();
    for site in fleet.sites.iter().filter(|s| s.door().is_some()) {
        let text = site.metrics().await;
        let words = ["isthmus_link_versions_total", "isthmus_link_bytes_total", "isthmus_link_attempts_failed_total"];
        let lines = text.lines().filter(|l| words.iter().any(|w| l.starts_with(w)));
        counters.extend(lines.map(|l| format!("{} {l}", site.name)));
    }
    assert!(!counters.is_empty(), "links count what they send");
    counters.sort();
    counters
}

/// Looks at links all the time: one that shows nothing pending at a moment has sent everything acked before it.
struct Honest {
    stop: CancellationToken,
    task: JoinHandle<u64>,
}

impl Honest {
    fn start(fleet: &Fleet, oracle: &Arc<Oracle>, mut dice: Dice) -> Honest {
        let stop = CancellationToken::new();
        let (token, sites, oracle) = (stop.clone(), fleet.sites.clone(), oracle.clone());
        let task = tokio::spawn(async move {
            let mut looks = 0;
            while !token.is_cancelled() {
                let at = dice.index(sites.len());
                looks += look(&sites, at, &oracle).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            looks
        });
        Honest { stop, task }
    }
    async fn stop(self) -> u64 {
        self.stop.cancel();
        self.task.await.expect("a link showed nothing pending while something was")
    }
}

/// One look at the links of a site: how many showed nothing pending and were right.
async fn look(sites: &[Arc<Site>], at: usize, oracle: &Oracle) -> u64 {
    let Ok(Ok(report)) = tokio::time::timeout(Duration::from_secs(1), sites[at].status()).await else { return 0 };
    let mut right = 0;
    for link in report.links.iter().filter(|l| l.backlog_versions == Some(0)) {
        let Some(version) = oracle.newest_before(at, link.measured_at) else { continue };
        let peer = sites.iter().find(|s| s.name == link.peer).expect("a peer is a site");
        let Some(door) = peer.door() else { continue };
        let there = door.s3.client.head_object().bucket(BUCKET).key(&version.key).version_id(&version.id).send().await;
        match there.map_err(crate::s3::miss) {
            Ok(_) => right += 1,
            Err(Miss::Unknown(_)) => {}
            Err(Miss::Refused(status, _)) => {
                let gone = oracle.gone(&version.key, &version.id);
                let what = format!("{version:?} answered {status} at {}: {link:?}", link.peer);
                assert_ne!(gone, crate::oracle::Gone::No, "P12: shown as there and not there: {what}");
            }
        }
    }
    right
}
