//! What of a version is sent, and that guards and purges meet alike in every order on two sites.
use super::*;
use crate::link::includes;
use crate::link::part::own_part;
use crate::link::tests::settings;
use crate::store::bundled::BundledStore;
use crate::store::conformance::{BUCKET, body, objects};
use crate::store::{Applied, Cursor, Interest};
use futures::TryStreamExt;
use storage_engine::bucket::lock::Lock;
use storage_engine::object::{Conditions, Error as Refused, Put};
use storage_engine::version::{Guards, Hlc, Origin, Purges, Stamp};

fn stamp(millis: u64, origin: &str) -> Stamp {
    Stamp::new(Hlc::from_millis(millis), Origin::new(origin))
}
fn blank() -> Version {
    Version::blank("k", VersionId::from_bytes([1; 16]))
}

#[test]
fn guards_are_passed_on_by_whoever_knows_them_also_after_a_purge_made_elsewhere() {
    let later_guards = Guards::default().hold(true, &stamp(1, "a"));
    let held = Version { later_guards: later_guards.clone(), ..blank() };
    assert_eq!(own_part(&held, &Origin::new("b")), Some(held.clone()));
    let mut lifted = later_guards.clone();
    lifted.join(&later_guards.hold(false, &stamp(2, "b")));
    let purged = Version { purges: Purges::one(lifted.clone(), stamp(3, "c")), later_guards: lifted, ..blank() };
    assert!(purged.purged().is_some());
    let part = own_part(&purged, &Origin::new("b")).expect("the lifting is for all");
    assert_eq!((part.later_guards, part.purges.is_empty()), (purged.later_guards, true));
    assert_eq!(own_part(&Version { purges: stamp(3, "c").into(), ..blank() }, &Origin::new("b")), None);
}

#[test]
fn what_the_rule_keeps_here_does_not_travel() {
    let own = settings().own_origin.to_string();
    let later_guards = Guards::default().hold(true, &stamp(1, &own));
    let void = Version { later_guards: later_guards.clone(), purges: stamp(2, &own).into(), ..blank() };
    assert!(void.is_purged_in_vain());
    let sent = |object_lock, version_deletes| {
        let sent = to_send(&Settings { object_lock, version_deletes, ..settings() }, &void)?;
        Some((!sent.later_guards.is_empty(), !sent.purges.is_empty()))
    };
    assert_eq!(sent(true, true), Some((true, true)));
    assert_eq!(sent(true, false), Some((true, false)));
    assert_eq!(sent(false, true), Some((false, true)));
    assert_eq!(sent(false, false), None);
}

/// A site that tells another its changes when the test says so.
struct Site {
    origin: &'static str,
    store: BundledStore,
    told: Option<Cursor>,
}

impl Site {
    async fn start(origin: &'static str) -> Site {
        let objects = objects(origin).await;
        objects.set_lock(BUCKET, Lock::default()).await.unwrap();
        Site { origin, store: BundledStore(objects), told: None }
    }

    /// Sends what changed since it was last asked; whether there was anything.
    async fn tell(&mut self, peer: &Site) -> bool {
        let (own_origin, peer_origin) = (Origin::new(self.origin), Origin::new(peer.origin));
        let settings = Settings { own_origin, peer_origin, ..settings() };
        let mut any = false;
        while self.store.backlog(BUCKET, self.told.as_ref(), &Interest::default()).await.unwrap().versions > 0 {
            let batch = self.store.changes(BUCKET, self.told.as_ref(), 10).await.unwrap();
            for event in batch.events.iter().filter(|e| includes(&settings, &e.version)) {
                let Some(part) = to_send(&settings, &event.version) else { continue };
                let has_bytes = part.is_live() && part.birth.as_ref().is_some_and(|b| b.size_bytes > 0);
                let body = match has_bytes {
                    true => Some(self.store.read_version(BUCKET, &part.key, part.id).await.unwrap()),
                    false => None,
                };
                let said = peer.store.apply_version(BUCKET, part, body, None).await.unwrap();
                assert_ne!(said, Applied::NeedsBody);
            }
            self.told = Some(batch.cursor);
            any = true;
        }
        any
    }

    async fn act(&self, act: Act, id: VersionId) -> Result<(), Refused> {
        let objects = &self.store.0;
        match act {
            Act::Hold => objects.set_hold(BUCKET, "k", Some(id), true).await.map(drop),
            Act::Lift => objects.set_hold(BUCKET, "k", Some(id), false).await.map(drop),
            Act::Purge => objects.delete(BUCKET, "k", Some(id), Conditions::default(), false).await.map(drop),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Hold,
    Lift,
    Purge,
}

/// Runs acts (0: at A, 1: at B), and after each of them who tells whom (bit 0: A tells B, bit 1: B tells A).
async fn two_sites_agree(acts: [(usize, Act); 3], told: [u8; 2]) {
    let story = format!("{acts:?}, told {told:?}");
    let (mut a, mut b) = (Site::start("a").await, Site::start("b").await);
    let id = a.store.0.put(BUCKET, "k", Put::default(), body(b"bytes")).await.unwrap().version.id;
    a.tell(&b).await;
    let mut done = Vec::new();
    for (step, (site, act)) in acts.into_iter().enumerate() {
        match [&a, &b][site].act(act, id).await {
            Ok(()) => done.push(act),
            Err(Refused::Guarded(_) | Refused::NoSuchVersion | Refused::Conflict(_)) => {}
            Err(other) => panic!("{story}: {other}"),
        }
        let told = told.get(step).copied().unwrap_or_default();
        if told & 1 > 0 {
            a.tell(&b).await;
        }
        if told & 2 > 0 {
            b.tell(&a).await;
        }
    }
    while a.tell(&b).await | b.tell(&a).await {}
    let at = async |site: &Site| site.store.stat(BUCKET, "k", id).await.unwrap().unwrap();
    let (at_a, at_b) = (at(&a).await, at(&b).await);
    if at_a.purged().is_none() {
        assert_eq!(at_a, at_b, "{story}");
        for site in [&a, &b] {
            let read = site.store.read_version(BUCKET, "k", id).await;
            let read = read.unwrap_or_else(|e| panic!("{story}: {}: {e}", site.origin));
            assert_eq!(read.try_collect::<Vec<_>>().await.unwrap().concat(), b"bytes", "{story}");
        }
    }
    // Of a purged version the birth may be forgotten.
    assert_eq!((&at_a.purges, &at_a.later_guards), (&at_b.purges, &at_b.later_guards), "{story}");
    assert_eq!(at_a.purged(), at_b.purged(), "{story}");
    let counted = [&a, &b].map(|site| site.store.0.metrics().snapshot().purges_voided > 0);
    assert_eq!(counted.contains(&true), at_a.is_purged_in_vain(), "{story}: {at_a:?}");
    if done == [Act::Purge] {
        assert!(at_a.purged().is_some(), "{story}: nothing forbade it");
    }
}

#[tokio::test]
async fn a_hold_and_a_purge_meet_alike_in_every_order() {
    let acts = [(0, Act::Hold), (1, Act::Purge), (1, Act::Lift)];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for told in 0..16 {
            two_sites_agree(order.map(|i| acts[i]), [told & 3, told >> 2]).await;
        }
    }
}
