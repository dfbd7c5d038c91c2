//! Meshes of other shapes than three sites that all know each other: five of them, a relay, fan-out by prefix one
//! way, a site that joins a running mesh and leaves it.
use crate::dice::Dice;
use crate::load::{Load, Settings};
use crate::mesh::{alike, silent};
use crate::oracle::Oracle;
use crate::shape::{Shape, Way};
use crate::site::{Fleet, LOOK};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const LOAD: Settings = Settings { clients: 2, pause: Duration::from_millis(100), prefix: "" };
/// Everything is everywhere within this time after the last fault.
const HEAL: Duration = Duration::from_secs(120);
/// Versions acked by the whole fleet before something happens to it.
const BEFORE: u64 = 150;

/// Waits until so many more operations were acked.
async fn more(oracle: &Oracle, operations: u64) {
    let (deadline, from) = (Instant::now() + HEAL, oracle.counts().acked);
    while oracle.counts().acked < from + operations {
        assert!(Instant::now() < deadline, "clients come to no end");
        tokio::time::sleep(LOOK).await;
    }
}

/// Clients on the sites of these places.
fn loads(fleet: &Fleet, places: std::ops::Range<usize>, oracle: &Arc<Oracle>, dice: &mut Dice) -> Vec<Load> {
    places.map(|i| Load::start(i, &fleet.sites[i], oracle, LOAD, dice)).collect()
}

async fn stop(loads: Vec<Load>) {
    for load in loads {
        load.stop().await;
    }
}

/// Kills and restarts the sites of these places, one after the other, while clients write everywhere; then every site
/// holds the same and sends nothing more.
async fn converges_over_restarts(fleet: Fleet, dice: &mut Dice, restarts: &[usize]) {
    let oracle = Arc::new(Oracle::default());
    let clients = loads(&fleet, 0..fleet.sites.len(), &oracle, dice);
    for place in restarts {
        more(&oracle, BEFORE).await;
        fleet.sites[*place].kill().await;
        fleet.sites[*place].start().await;
    }
    stop(clients).await;
    settles(&fleet, &oracle).await;
}

/// Everything arrives, every site holds the same, and then nothing more is sent.
async fn settles(fleet: &Fleet, oracle: &Oracle) {
    fleet.drained(HEAL).await;
    alike(fleet, oracle).await;
    silent(fleet).await;
    fleet.no_alarm();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_sites_that_all_know_each_other_converge() {
    let (mut dice, _replay) = Dice::of("five_sites", 0x5517);
    let fleet = Fleet::start(&["fra", "ams", "waw", "lon", "par"], 4).await;
    converges_over_restarts(fleet, &mut dice, &[3, 4]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_in_the_middle_relays_between_sites_without_a_link() {
    let (mut dice, _replay) = Dice::of("relay", 0x3e1a);
    let fleet = Fleet::start_as(&["fra", "ams", "waw"], 4, Shape::relay(3)).await;
    converges_over_restarts(fleet, &mut dice, &[1, 1, 1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_joins_a_running_mesh_with_all_there_is_and_leaves_it() {
    let (mut dice, _replay) = Dice::of("joins_and_leaves", 0x101e);
    let mut fleet = Fleet::write_as(&["fra", "ams", "waw"], 4, Shape::mesh(0..2)).await;
    let oracle = Arc::new(Oracle::default());
    fleet.sites[0].start().await;
    fleet.sites[1].start().await;
    let first = loads(&fleet, 0..2, &oracle, &mut dice);
    more(&oracle, BEFORE).await;

    fleet.reshape(Shape::mesh(0..3)).await;
    fleet.sites[2].start().await;
    let joined = loads(&fleet, 2..3, &oracle, &mut dice);
    more(&oracle, BEFORE).await;
    stop(joined).await;
    stop(first).await;
    fleet.drained(HEAL).await;
    alike(&fleet, &oracle).await;

    fleet.reshape(Shape::mesh(0..2)).await;
    fleet.drained(HEAL).await;
    fleet.sites[2].kill().await;
    let rest = loads(&fleet, 0..2, &oracle, &mut dice);
    more(&oracle, BEFORE).await;
    stop(rest).await;
    settles(&fleet, &oracle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefixes_go_one_way_to_their_own_peers_and_nothing_comes_back() {
    let ways = vec![Way { from: 0, to: 1, prefix: "eu/" }, Way { from: 0, to: 2, prefix: "us/" }];
    let fleet = Fleet::start_as(&["fra", "ams", "waw"], 4, Shape { ways, relays: false }).await;
    let put = async |place: usize, key: &str| {
        let body = Bytes::from(format!("{key} written at site {place}"));
        fleet.sites[place].s3().put(key, body).await.expect("an acked put")
    };
    let (eu, us, own) = (put(0, "eu/1").await, put(0, "us/1").await, put(0, "own/1").await);
    let (gone, back) = (put(0, "eu/gone").await, put(1, "eu/back").await);
    let marker = fleet.sites[0].s3().delete("us/1").await.expect("an acked marker");
    fleet.sites[0].s3().purge("eu/gone", &gone).await.expect("an acked purge");
    fleet.drained(HEAL).await;

    let expected: [&[(&str, &str)]; 3] = [
        &[("eu/1", &eu), ("us/1", &us), ("us/1", &marker), ("own/1", &own)],
        &[("eu/1", &eu), ("eu/back", &back)],
        &[("us/1", &us), ("us/1", &marker)],
    ];
    for (place, there) in expected.iter().enumerate() {
        let s3 = fleet.sites[place].s3();
        for (key, id) in
            [("eu/1", &eu), ("us/1", &us), ("us/1", &marker), ("own/1", &own), ("eu/gone", &gone), ("eu/back", &back)]
        {
            let is_wanted = there.contains(&(key, id.as_str()));
            assert_eq!(s3.is_listed(key, id).await, is_wanted, "{key} {id} at {}", fleet.sites[place].name);
        }
    }
    fleet.no_alarm();
}
