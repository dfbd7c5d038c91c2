//! One site alone, killed again and again under load: whatever a client was told holds after the restart.
use crate::dice::Dice;
use crate::kills;
use crate::load::{Load, Settings, body};
use crate::oracle::Oracle;
use crate::s3::{Miss, Said, sha256};
use crate::site::Fleet;
use crate::view::{View, nothing};
use std::sync::Arc;
use std::time::Duration;

const LOAD: Settings = Settings { clients: 8, pause: Duration::from_millis(5), prefix: "" };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acked_writes_survive_kills_under_load_and_while_recovering() {
    let (mut dice, _replay) = Dice::of("acked_writes_survive_kills", 0xdead);
    let fleet = Fleet::start(&["fra"], 8).await;
    let (site, oracle) = (&fleet.sites[0], Arc::new(Oracle::default()));
    let mut killed = 0;
    let most = kills(12);
    while killed < most {
        let load = Load::start(0, site, &oracle, LOAD, &mut dice);
        tokio::time::sleep(Duration::from_millis(dice.range(200, 1500))).await;
        site.kill().await;
        killed += 1;
        // Half of the time it dies again while it recovers.
        while killed < most && dice.chance(50) {
            site.spawn();
            tokio::time::sleep(Duration::from_millis(dice.range(0, 400))).await;
            site.kill().await;
            killed += 1;
        }
        load.stop().await;
        site.start().await;
        nothing("after a kill", &oracle.judge(&View::read(&site.s3(), &oracle, "").await));
    }
    let counts = oracle.counts();
    println!("{killed} kills, {counts:?}");
    assert!(counts.acked > 20 * killed && counts.unknown > killed / 2, "a tame run: {counts:?}");
    fleet.no_alarm();
    assert!(site.stop().await.success(), "a graceful stop at the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_killed_in_complete_has_one_outcome_and_can_be_completed_again() {
    let (mut dice, _replay) = Dice::of("an_upload_killed_in_complete", 0xc0de);
    let fleet = Fleet::start(&["fra"], 4).await;
    let (site, oracle) = (&fleet.sites[0], Oracle::default());
    for round in 0..kills(6) {
        let key = format!("upload/{round}");
        let parts = [body(5 << 20), body(usize::try_from(dice.range(1, 300_000)).expect("small"))];
        let hash = sha256(&parts.concat());
        let s3 = site.s3();
        let upload = s3.upload(&key, &parts).await.expect("nothing fails before the kill");
        let began = oracle.put_begins(&key, &hash);
        let completing = tokio::spawn({
            let (s3, key, upload) = (s3.clone(), key.clone(), upload.clone());
            async move { s3.complete(&key, &upload).await }
        });
        tokio::time::sleep(Duration::from_millis(dice.range(0, 25))).await;
        site.kill().await;
        let said = completing.await.expect("the client does not panic");
        site.start().await;
        let said = match said {
            Ok(id) => Ok(id),
            Err(_) => complete_again(&fleet, &key, &upload, &hash).await,
        };
        oracle.put_ends(0, &key, &hash, began, &said);
        nothing("after a kill in Complete", &oracle.judge(&View::read(&site.s3(), &oracle, "").await));
    }
    fleet.no_alarm();
}

/// Completing again gives the version, or says that it is there already.
async fn complete_again(fleet: &Fleet, key: &str, upload: &crate::s3::Upload, hash: &str) -> Said<String> {
    match fleet.sites[0].s3().complete(key, upload).await {
        Err(Miss::Refused(404, _)) => {
            let view = View::read(&fleet.sites[0].s3(), &Oracle::default(), key).await;
            let made = view.keys.get(key).and_then(|v| v.iter().find(|(_, s)| s.body.as_deref() == Some(hash)));
            let (id, _) = made.unwrap_or_else(|| panic!("{key}: the upload is gone and made no version: {view:?}"));
            Ok(id.clone())
        }
        Err(other) => panic!("{key}: completing again: {other:?}"),
        done => done,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_of_versions_survive_kills() {
    let (mut dice, _replay) = Dice::of("deletes_of_versions_survive_kills", 0xde1e);
    let fleet = Fleet::start(&["fra"], 4).await;
    let (site, oracle) = (&fleet.sites[0], Arc::new(Oracle::default()));
    for round in 0..kills(4) {
        let s3 = site.s3();
        let mut written = Vec::new();
        for place in 0..40 {
            let (key, body) = (format!("delete/{round}/{}", place % 10), body(dice.index(9000)));
            let hash = sha256(&body);
            let began = oracle.put_begins(&key, &hash);
            let said = s3.put(&key, body).await;
            oracle.put_ends(0, &key, &hash, began, &said);
            written.push((key, said.expect("nothing fails before the kill")));
        }
        let deleting: Vec<_> = written
            .into_iter()
            .map(|(key, id)| {
                let (s3, oracle) = (s3.clone(), oracle.clone());
                tokio::spawn(async move {
                    oracle.purge_begins(&key, &id);
                    oracle.purge_ends(&key, &id, &s3.purge(&key, &id).await);
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(dice.range(2, 60))).await;
        site.kill().await;
        for task in deleting {
            task.await.expect("the client does not panic");
        }
        site.start().await;
        nothing("after a kill in deletes", &oracle.judge(&View::read(&site.s3(), &oracle, "").await));
    }
    println!("{:?}", oracle.counts());
    fleet.no_alarm();
}
