//! Guards against purges: over S3's roads, by other sites, and by whoever talks to a drive directly.
use super::*;
use crate::bucket::lock::{DefaultRetention, Lock, Period, Protection};
use crate::drive::Drive;
use crate::object::fixture::Set;
use crate::quorum::participant::{Op, Request, Verdict};
use crate::version::guard::{Mode, Refused, Retention};
use crate::version::{Guards, Hlc, Purges, Stamp};

fn far(mode: Mode) -> Retention {
    Retention { mode, until_millis: 9_000_000_000_000 }
}
/// A store with object lock on its bucket.
async fn locked() -> (Set, Objects) {
    let (set, objects) = store(Versioning::Enabled).await;
    objects.set_lock("bucket", Lock::default()).await.expect("W");
    (set, objects)
}
async fn delete(objects: &Objects, id: VersionId, bypass: bool) -> Result<Deleted, Error> {
    objects.delete("bucket", "k", Some(id), Conditions::default(), bypass).await
}
fn elsewhere(millis: u64) -> Stamp {
    Stamp::new(Hlc::from_millis(millis), Origin::new("elsewhere"))
}
/// What every drive says to an operation that no coordinator checked.
async fn directly(set: &Set, objects: &Objects, op: Op) -> Vec<Verdict> {
    let bucket = objects.bucket("bucket").await.expect("it is there").id;
    let mut said = Vec::new();
    for drive in &set.drives {
        let request = Request { epoch: 1, bucket, key: "k".into(), op: op.clone() };
        said.push(drive.call(request).await.expect("a drive in memory").verdict);
    }
    said
}

/// Waits until every drive holds the guard: one of them may get it behind the ack.
async fn until_guarded(set: &Set, objects: &Objects) {
    let bucket = objects.bucket("bucket").await.expect("it is there").id;
    let guarded = async {
        for drive in &set.drives {
            let held = || async { drive.read_key(bucket, "k").await.expect("it answers").records };
            while held().await.iter().all(|r| r.version.guards().is_empty()) {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), guarded).await.expect("the guard follows");
}

#[tokio::test]
async fn a_held_or_retained_version_is_not_deleted_and_its_marker_is() {
    let (_set, objects) = locked().await;
    let one = put(&objects, b"1").await;
    objects.set_hold("bucket", "k", None, true).await.expect("W");
    assert!(matches!(delete(&objects, one.id, true).await, Err(Error::Guarded(Refused::Hold))));
    objects.set_hold("bucket", "k", Some(one.id), false).await.expect("W");
    objects.set_retention("bucket", "k", None, Some(far(Mode::Governance)), false).await.expect("W");
    assert!(matches!(delete(&objects, one.id, false).await, Err(Error::Guarded(Refused::Governance { .. }))));
    objects.delete("bucket", "k", None, Conditions::default(), false).await.expect("a marker removes nothing");
    assert_eq!(get(&objects, Some(one.id)).await.expect("it is guarded"), b"1");
    delete(&objects, one.id, true).await.expect("governance is bypassed");
    assert!(matches!(get(&objects, Some(one.id)).await, Err(Error::NoSuchVersion)));
}

#[tokio::test]
async fn compliance_is_never_shortened_or_bypassed() {
    let (_set, objects) = locked().await;
    let one = put(&objects, b"1").await;
    let retain = |retention, bypass| objects.set_retention("bucket", "k", Some(one.id), retention, bypass);
    retain(Some(far(Mode::Compliance)), false).await.expect("W");
    for weaker in [
        None,
        Some(far(Mode::Governance)),
        Some(Retention { until_millis: 8_000_000_000_000, ..far(Mode::Compliance) }),
    ] {
        assert!(matches!(retain(weaker, true).await, Err(Error::Guarded(Refused::Compliance { .. }))));
    }
    assert!(matches!(delete(&objects, one.id, true).await, Err(Error::Guarded(Refused::Compliance { .. }))));
}

#[tokio::test]
async fn a_guarded_null_version_is_neither_deleted_nor_overwritten() {
    let (set, objects) = store(Versioning::Unversioned).await;
    put(&objects, b"1").await;
    objects.set_versioning("bucket", Versioning::Enabled).await.expect("W");
    objects.set_lock("bucket", Lock::default()).await.expect("W");
    objects.set_retention("bucket", "k", None, Some(far(Mode::Governance)), false).await.expect("W");
    assert!(matches!(delete(&objects, VersionId::NULL, false).await, Err(Error::Guarded(_))));
    let newer = {
        let (_set, other) = store(Versioning::Unversioned).await;
        put(&other, b"2").await
    };
    let replica = objects.apply("bucket", newer.clone(), Some(body(&b"2"[..])), None).await;
    assert!(matches!(replica, Err(Error::Guarded(_))));
    let bucket = objects.bucket("bucket").await.expect("it is there").id;
    until_guarded(&set, &objects).await;
    let ballot = Hlc::from_millis(8_000_000_000_000);
    let record = crate::record::Record { acked: true, ..crate::record::Record::new(bucket, newer, ballot) };
    let shards = Vec::new();
    assert_eq!(
        directly(&set, &objects, Op::Accept { record: record.clone().into(), shards: shards.clone() }).await,
        vec![Verdict::Guarded; 4]
    );
    assert_eq!(directly(&set, &objects, Op::Insert { record: record.into(), shards }).await, vec![Verdict::Guarded; 4]);
    assert_eq!(get(&objects, None).await.expect("it is guarded"), b"1");
    delete(&objects, VersionId::NULL, true).await.expect("governance is bypassed");
    assert!(matches!(get(&objects, None).await, Err(Error::NoSuchKey)));
}

#[tokio::test]
async fn a_bypass_deletes_a_governed_null_version_while_others_write_its_tags_and_retention() {
    for round in 0..20u64 {
        let (_set, objects) = store(Versioning::Unversioned).await;
        put(&objects, b"1").await;
        objects.set_versioning("bucket", Versioning::Enabled).await.expect("W");
        objects.set_lock("bucket", Lock::default()).await.expect("W");
        let retain = |until_millis| {
            let longer = Some(Retention { until_millis, ..far(Mode::Governance) });
            objects.set_retention("bucket", "k", Some(VersionId::NULL), longer, false)
        };
        retain(8_000_000_000_000).await.expect("W");
        let others = async {
            // What is gone by then is not there to be tagged or retained.
            for n in 0..4 {
                let tags = [("n".to_string(), n.to_string())].into();
                let tagged = objects.set_tags("bucket", "k", Some(VersionId::NULL), tags).await;
                let retained = retain(8_000_000_000_001 + round + n).await;
                for answer in [tagged, retained] {
                    assert!(matches!(answer, Ok(_) | Err(Error::NoSuchVersion | Error::Unavailable(_))), "{answer:?}");
                }
            }
        };
        let (deleted, ()) = tokio::join!(delete(&objects, VersionId::NULL, true), others);
        deleted.expect("governance is bypassed");
        assert!(matches!(get(&objects, None).await, Err(Error::NoSuchKey)), "round {round}");
    }
}

#[tokio::test]
async fn a_purge_sent_to_the_drives_directly_has_no_effect_on_a_guarded_version() {
    let (set, objects) = locked().await;
    let one = put(&objects, b"1").await;
    objects.set_hold("bucket", "k", None, true).await.expect("W");
    let guards = objects.stat("bucket", "k", one.id).await.expect("R").expect("it is there").guards();
    let now = elsewhere(objects.0.clock.now_millis());
    for seen in [Guards::default(), guards] {
        let purge = Version { purges: Purges::one(seen, now.clone()), ..Version::blank("k", one.id) };
        directly(&set, &objects, Op::Join { version: Box::new(purge), pending_since: 1, passed: 0, traceparent: None })
            .await;
        assert_eq!(get(&objects, Some(one.id)).await.expect("it is held"), b"1");
        assert_eq!(get(&set.start_without(&[0]), None).await.expect("it is held"), b"1");
    }
    // Nor does a drive give up the attempt, or take the version again without its guard.
    let held =
        set.drives[0].read_key(objects.bucket("bucket").await.unwrap().id, "k").await.unwrap().records[0].clone();
    assert!(held.acked, "told before the client was read to");
    let said = directly(&set, &objects, Op::Abort { version: one.id, ballot: held.ballot }).await;
    assert!(said.iter().all(|v| *v == Verdict::Held { acked: true }), "{said:?}");
}

#[tokio::test]
async fn a_version_born_guarded_voids_a_purge_that_came_before_it() {
    let (_elsewhere, origin) = store(Versioning::Enabled).await;
    let mut born = put(&origin, b"bytes").await;
    let held = Guards::default().hold(true, &elsewhere(5));
    born.birth.as_mut().expect("born").guards = held;
    let (_set, objects) = store(Versioning::Enabled).await;
    let purge = Version { purges: elsewhere(6).into(), ..Version::blank("k", born.id) };
    assert_eq!(objects.apply("bucket", purge, None, None).await.expect("W"), Applied::Applied);
    let bytes = || Some(body(&b"bytes"[..]));
    assert_eq!(objects.apply("bucket", born.clone(), bytes(), None).await.expect("W"), Applied::Applied);
    assert_eq!(get(&objects, Some(born.id)).await.expect("its purge is void"), b"bytes");
    assert_eq!(objects.metrics().snapshot().purges_voided, 1);
    assert_eq!(objects.apply("bucket", born.clone(), None, None).await.expect("R"), Applied::AlreadyPresent);
    assert_eq!(objects.metrics().snapshot().purges_voided, 1, "said once");
}

#[tokio::test]
async fn a_hold_from_elsewhere_brings_back_what_was_purged_without_knowing_it() {
    let (set, objects) = store(Versioning::Enabled).await;
    let one = put(&objects, b"1").await;
    delete(&objects, one.id, false).await.expect("nothing guards it here");
    assert!(matches!(get(&objects, Some(one.id)).await, Err(Error::NoSuchVersion)));
    let later_guards = Guards::default().hold(true, &elsewhere(5));
    let hold = Version { later_guards, ..Version::blank("k", one.id) };
    assert_eq!(objects.apply("bucket", hold, None, None).await.expect("W"), Applied::Applied);
    assert_eq!(get(&objects, Some(one.id)).await.expect("its purge is void"), b"1");
    assert_eq!(objects.metrics().snapshot().purges_voided, 1);
    for slot in 0..4 {
        assert_eq!(get(&set.start_without(&[slot]), None).await.expect("on any quorum"), b"1");
    }
}

#[tokio::test]
async fn object_lock_stays_on_and_keeps_versioning_on() {
    let (_set, objects) = store(Versioning::Unversioned).await;
    let asked = Protection { legal_hold: true, ..Protection::default() };
    let held = || Put { protection: asked, ..Put::default() };
    let refused = objects.put("bucket", "k", held(), body(&b"1"[..])).await;
    assert!(matches!(refused, Err(Error::LockMissing(_))));
    assert!(matches!(objects.create_upload("bucket", "k", held(), None).await, Err(Error::LockMissing(_))));
    assert!(matches!(objects.set_lock("bucket", Lock::default()).await, Err(Error::Conflict(_))));
    objects.set_versioning("bucket", Versioning::Enabled).await.expect("W");
    objects.set_lock("bucket", Lock::default()).await.expect("W");
    assert!(matches!(objects.set_versioning("bucket", Versioning::Suspended).await, Err(Error::Conflict(_))));
    objects.put("bucket", "k", held(), body(&b"1"[..])).await.expect("W");
}

#[tokio::test]
async fn what_is_born_without_a_retention_gets_that_of_the_bucket() {
    let (_set, objects) = locked().await;
    let period = Period::Days(2);
    let default_retention = Some(DefaultRetention { mode: Mode::Governance, period });
    objects.set_lock("bucket", Lock { default_retention }).await.expect("W");
    let one = put(&objects, b"1").await;
    let born = one.birth.as_ref().expect("born").order.hlc.millis();
    let until_millis = born + 2 * 86_400_000;
    assert_eq!(one.guards().retention(), Some(Retention { mode: Mode::Governance, until_millis }));
    let retention = Some(far(Mode::Compliance));
    let asking = Put { protection: Protection { retention, legal_hold: false }, ..Put::default() };
    let two = objects.put("bucket", "k", asking, body(&b"2"[..])).await.expect("W").version;
    assert_eq!(two.guards().retention(), retention);
    let marker = objects.delete("bucket", "k", None, Conditions::default(), false).await.expect("W");
    delete(&objects, marker.version_id.expect("a marker"), false).await.expect("markers are not guarded");
}
