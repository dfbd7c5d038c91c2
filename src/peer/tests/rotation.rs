//! Certificates and CAs change while versions flow, and old connections are asked to leave: no ack is lost.
use super::rig::{Rig, TRUST, drain, object, within};
use crate::cli::certs;
use crate::peer::Ack;
use crate::peer::server::Settings;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use storage_engine::identity::Identity;
use tokio_util::sync::CancellationToken;

const ROTATIONS: u64 = 4;
/// Pushes at once.
const PUSHES: usize = 8;
const SITES: [&str; 2] = ["ams", "fra"];

/// Pushes over one connection after the other until `done`; counts what was acked as applied.
async fn load(rig: &Rig, identity: &Identity, acked: &AtomicU64, done: &CancellationToken) {
    while !done.is_cancelled() {
        let line = rig.try_connect(&rig.target(), identity).await.expect("the certificates of the moment are believed");
        let pushes = (0..PUSHES).map(|_| async {
            while !done.is_cancelled() {
                match line.push(object("key", 3000)).await {
                    Ok(Ack::Applied) => _ = acked.fetch_add(1, Ordering::Relaxed),
                    // It came after Goodbye, and was not handed over.
                    Ok(Ack::Retry { .. }) => {}
                    Ok(other) => panic!("{other:?}"),
                    Err(e) => return assert!(e.is_peer_gone(), "{e}"),
                }
            }
        });
        futures::future::join_all(pushes).await;
    }
}

/// A new CA signs for `site` from now on; every bundle holds the former ones too, as in a rotation.
async fn rotate(rig: &Rig, site: &str, of_site: &Identity, all: [&Identity; 2], n: u64) {
    let folder = rig.certificates.path();
    let ca = certs::authority(&format!("{site} {n}")).unwrap();
    let (certificate, key) = certs::issue(&ca, site, &["127.0.0.1"], &[&certs::spiffe_id(TRUST, site)]).unwrap();
    for bundle in SITES {
        let file = folder.join(bundle).join("ca.crt");
        let held = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, format!("{held}{}", ca.pem())).unwrap();
    }
    // Whoever believes comes before whoever is to be believed.
    for identity in all {
        assert!(identity.reload().await.unwrap(), "{site} {n}: the new CA is read");
    }
    std::fs::write(folder.join(site).join("tls.crt"), certificate).unwrap();
    std::fs::write(folder.join(site).join("tls.key"), key).unwrap();
    assert!(of_site.reload().await.unwrap(), "{site} {n}: the new certificate is read");
}

/// A site that counts what it applied, its connections asked to leave at this age.
async fn counting(lifetime: Duration) -> (Rig, Arc<AtomicU64>) {
    let applied = Arc::new(AtomicU64::new(0));
    let counter = applied.clone();
    let settings = Settings { lifetime, ..Settings::default() };
    let rig = Rig::with(settings, move |incoming| {
        let counter = counter.clone();
        Box::pin(async move {
            let ack = drain(incoming).await;
            if ack == Ack::Applied {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            ack
        })
    })
    .await;
    (rig, applied)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_leave_under_load_take_every_ack_along() {
    let (rig, applied) = counting(Duration::from_millis(2)).await;
    let fra = rig.identity("fra").await;
    let (acked, done) = (AtomicU64::new(0), CancellationToken::new());
    let enough = async {
        while rig.counters.connections.load(Ordering::Relaxed) < 400 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        done.cancel();
    };
    within(async { tokio::join!(load(&rig, &fra, &acked, &done), enough) }).await;
    assert_eq!(acked.load(Ordering::Relaxed), applied.load(Ordering::Relaxed), "every version taken was acked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_under_load_and_no_ack_is_lost() {
    let (rig, applied) = counting(Duration::from_millis(400)).await;
    let fra = rig.identity("fra").await;
    let (acked, done) = (AtomicU64::new(0), CancellationToken::new());
    let rotations = async {
        for n in 0..ROTATIONS {
            for (site, identity) in [("ams", &*rig.identity), ("fra", &fra)] {
                rotate(&rig, site, identity, [&rig.identity, &fra], n).await;
            }
            // Both ends meet again under the new certificates, and versions flow.
            let (opened, before) = (rig.counters.connections.load(Ordering::Relaxed), acked.load(Ordering::Relaxed));
            while rig.counters.connections.load(Ordering::Relaxed) < opened + 2
                || acked.load(Ordering::Relaxed) < before + 20
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        done.cancel();
    };
    within(async { tokio::join!(load(&rig, &fra, &acked, &done), rotations) }).await;
    assert_eq!(acked.load(Ordering::Relaxed), applied.load(Ordering::Relaxed), "every version taken was acked");
}
