//! A drive that lost its shard on the way: who may vouch for the bytes, and how the debt travels.
use super::*;
use crate::object::fixture::{Event, eventful};

/// A body large enough for shard files: 6 MB a shard.
fn large() -> Vec<u8> {
    (0..12_000_000u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8).collect()
}

/// The body, while whose middle the drive has no room for its shard; it is well again before the end.
fn lost_midway(set: &Set, slot: usize, bytes: &[u8]) -> Body {
    let no_room = |free| {
        let drive = set.drives[slot].clone();
        Box::new(move || drive.disk().set_free(free)) as Event
    };
    eventful(bytes, vec![(40, no_room(Some(0))), (110, no_room(None))])
}

async fn put_large(set: &Set, objects: &Objects, bytes: &[u8]) -> Result<Written, Error> {
    objects.put("bucket", "k", Put::default(), lost_midway(set, 1, bytes)).await
}

#[tokio::test]
async fn a_drive_that_lost_its_shard_is_no_witness_of_an_ack() {
    let (set, objects) = store(Versioning::Enabled).await;
    let bytes = large();
    // Shards on 0, 2 and 3, but 3 takes no record: 0, 1 and 2 would be a write quorum of records.
    set.drives[3].set_mute(true);
    let err = put_large(&set, &objects, &bytes).await.expect_err("two drives hold shard and record");
    assert!(matches!(err, Error::Unavailable(_)), "{err}");
    set.drives[3].set_mute(false);
    assert!(matches!(get(&objects, None).await, Err(Error::NoSuchKey)), "what was not acked and not seen is not there");
}

#[tokio::test]
async fn an_object_acked_in_debt_is_read_with_m_drives_away_while_k_shards_are_left() {
    let (set, objects) = store(Versioning::Enabled).await;
    let bytes = large();
    put_large(&set, &objects, &bytes).await.expect("three drives hold shard and record");
    assert_eq!(record(&objects).await.missing, 0b0010);
    until_all_hold_it(&set, &objects).await;
    for away in [[0, 1], [1, 2], [1, 3]] {
        assert!(get(&set.start_without(&away), None).await.expect("k shards") == bytes, "{away:?} away");
    }
    // One shard more is lost than there is parity for: no answer, but never a wrong one.
    for away in [[0, 2], [0, 3], [2, 3]] {
        let err = get(&set.start_without(&away), None).await.expect_err("one shard of two");
        assert!(matches!(err, Error::Unavailable(_)), "{away:?} away: {err}");
    }
}

#[tokio::test]
async fn too_few_shards_are_no_write_at_all() {
    let (set, objects) = store(Versioning::Enabled).await;
    let bytes = large();
    let before = put(&objects, b"before").await;
    set.drives[0].disk().set_free(Some(0));
    let err = put_large(&set, &objects, &bytes).await.expect_err("two shards");
    assert!(matches!(err, Error::Full), "{err}");
    set.drives[0].disk().set_free(None);
    assert_eq!(record(&objects).await.id(), before.id);
    assert_eq!(get(&objects, None).await.expect("it was acked"), b"before");
}

#[tokio::test]
async fn debt_travels_from_parts_to_the_object_and_through_tags_of_null() {
    let (set, objects) = store(Versioning::Unversioned).await;
    let bytes = large();
    let id = objects.create_upload("bucket", "k", Put::default(), None).await.expect("a quorum").id;
    let expect = Expect::default;
    let one = objects.upload_part("bucket", "k", &id, 1, expect(), lost_midway(&set, 1, &bytes)).await.expect("W");
    let two = objects.upload_part("bucket", "k", &id, 2, expect(), lost_midway(&set, 2, &bytes)).await.expect("W");
    let parts = [one, two].map(|p| PartRef { number: p.number, etag: p.etag, checksums: BTreeMap::new() });
    let stated = BTreeMap::new();
    objects.complete_upload("bucket", "k", &id, parts.to_vec(), stated, Conditions::default()).await.expect("W");
    assert_eq!(record(&objects).await.missing, 0b0110);
    objects.set_tags("bucket", "k", None, BTreeMap::from([("a".into(), "b".into())])).await.expect("W");
    assert_eq!(record(&objects).await.missing, 0b0110);
    assert!(get(&set.start_without(&[1]), None).await.expect("k shards of each part") == [&bytes[..], &bytes].concat());
}

#[tokio::test]
async fn a_replica_is_acked_by_the_rule_of_a_put() {
    let (_elsewhere, origin) = store(Versioning::Enabled).await;
    let bytes = large();
    let born = put(&origin, &bytes).await;
    let (set, objects) = store(Versioning::Enabled).await;
    set.drives[3].set_mute(true);
    let err = objects.apply("bucket", born.clone(), Some(lost_midway(&set, 1, &bytes)), None).await.unwrap_err();
    assert!(matches!(err, Error::Unavailable(_)), "{err}");
    set.drives[3].set_mute(false);
    let applied = objects.apply("bucket", born, Some(lost_midway(&set, 1, &bytes)), None).await.expect("W");
    assert_eq!((applied, record(&objects).await.missing), (Applied::Applied, 0b0010));
    assert!(get(&set.start_without(&[1, 2]), None).await.expect("k shards") == bytes);
}

#[tokio::test]
async fn what_is_acked_without_every_drive_or_shard_is_counted() {
    let (set, objects) = store(Versioning::Enabled).await;
    let count = || objects.0.metrics.snapshot().commits_below_target;
    let until = async |debts: u64| {
        let counted = async {
            while count() < debts {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), counted).await.expect("the debt is counted");
    };
    put(&objects, b"whole").await;
    until_all_hold_it(&set, &objects).await;
    set.drives[2].set_offline(true);
    put(&objects, b"three of four").await;
    until(1).await;
    set.drives[2].set_offline(false);
    put_large(&set, &objects, &large()).await.expect("three drives hold shard and record");
    until(2).await;
    put(&objects, b"whole").await;
    until_all_hold_it(&set, &objects).await;
    assert_eq!(count(), 2, "what every drive holds is no debt");
}
