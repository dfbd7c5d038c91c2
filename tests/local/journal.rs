//! A replicator whose journal is lost or comes back old: nothing is lost, nothing deleted returns.
use crate::dice::Dice;
use crate::load::{Load, Settings};
use crate::mesh::{alike, silent};
use crate::oracle::Oracle;
use crate::site::{Fleet, LOOK};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const LOAD: Settings = Settings { clients: 3, pause: Duration::from_millis(20), prefix: "" };
/// Everything is everywhere within this time, on a machine that others use too.
const DRAIN: Duration = Duration::from_secs(180);

/// What is done to the journal of the stopped site.
#[derive(Clone, Copy)]
enum Journal {
    Lost,
    Old,
}

/// SQLite keeps its last writes beside the file.
const FILES: [&str; 3] = ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a folder");
    for file in FILES {
        let _ = fs::remove_file(to.join(file));
        if from.join(file).exists() {
            fs::copy(from.join(file), to.join(file)).expect("copy a file of the journal");
        }
    }
}

/// Clients of all sites write until so many more changes were acked.
async fn write_some(fleet: &Fleet, oracle: &Arc<Oracle>, more: u64, dice: &mut Dice) {
    let enough = oracle.counts().acked + more;
    let loads: Vec<_> = (0..).zip(&fleet.sites).map(|(i, s)| Load::start(i, s, oracle, LOAD, dice)).collect();
    let acked = async {
        while oracle.counts().acked < enough {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(DRAIN, acked).await.expect("clients are answered");
    for load in loads {
        load.stop().await;
    }
}

async fn converges_with(journal: Journal, seed: u64) {
    let (mut dice, _replay) = Dice::of("journal::", seed);
    let fleet = Fleet::start(&["fra", "ams", "waw"], 4).await;
    let oracle = Arc::new(Oracle::default());
    let site = &fleet.sites[0];
    let old = site.dir.join("old-journal");
    write_some(&fleet, &oracle, 150, &mut dice).await;
    fleet.drained(DRAIN).await;
    site.stop().await;
    copy(&site.dir, &old);
    site.start().await;
    // What is deleted from here on is what an old cursor will read again.
    write_some(&fleet, &oracle, 250, &mut dice).await;
    fleet.drained(DRAIN).await;
    site.kill().await;
    match journal {
        Journal::Lost => copy(&site.dir.join("no-such-folder"), &site.dir),
        Journal::Old => copy(&old, &site.dir),
    }
    site.start().await;
    write_some(&fleet, &oracle, 150, &mut dice).await;
    fleet.drained(DRAIN).await;
    let views = alike(&fleet, &oracle).await;
    println!("{} versions, {:?}", views[0].versions(), oracle.counts());
    silent(&fleet).await;
    fleet.no_alarm();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_journal_loses_nothing_and_resurrects_nothing() {
    converges_with(Journal::Lost, 0x1057).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_restored_from_an_old_copy_loses_nothing_and_resurrects_nothing() {
    converges_with(Journal::Old, 0x01d).await;
}
