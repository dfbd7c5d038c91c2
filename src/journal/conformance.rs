//! What every journal must do, as one suite: memory and SQLite run it alike.
//!
//! `open` yields the same journal once more each time, as after a crash: whatever was answered `Ok` before must
//! be there, and nothing may rely on the earlier handle having been closed.
use super::{Conflict, EPOCH_MAX, Error, Journal, LinkId};
use crate::link::{Checkpoint, Record, Row, RowState};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use storage_engine::feed::Cursor;
use storage_engine::version::VersionId;

/// Runs the whole suite.
pub async fn run(mut open: impl AsyncFnMut() -> Arc<dyn Journal>) {
    epochs_rise_and_fence(&*open().await).await;
    epochs_survive_a_crash_and_a_release(&mut open).await;
    a_record_is_whole_and_survives_a_crash(&mut open).await;
    a_fenced_record_leaves_nothing(&*open().await).await;
    rows_due_first_come_first(&*open().await).await;
    ten_thousand_rows_in_one_record(&mut open).await;
    links_do_not_mix(&*open().await).await;
    inbound_epochs_keep_the_highest(&mut open).await;
    conflicts_are_kept_once_newest_first(&*open().await).await;
    accepted_specs_are_replaced(&mut open).await;
}

fn link(rule: &str) -> LinkId {
    LinkId { rule: rule.into(), bucket: "b0".into(), peer: "ams".into() }
}
fn cursor(bytes: &'static [u8]) -> Option<Cursor> {
    Some(Cursor(Bytes::from_static(bytes)))
}
fn id(n: u64) -> VersionId {
    let mut bytes = [1u8; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    VersionId::from_bytes(bytes)
}
fn row(key: &str, n: u64, next_attempt: u64, state: RowState) -> Row {
    Row {
        key: key.into(),
        version_id: id(n),
        pending_since: 17,
        bytes: 4096,
        attempts: 3,
        next_attempt,
        last_error: "peer said: no".into(),
        state,
        floor: cursor(b"\x00floor\xff"),
    }
}
fn checkpoint(at: u64) -> Checkpoint {
    Checkpoint { cursor: cursor(b"\xff\x00cursor"), floor: None, committed_through: at }
}

async fn epochs_rise_and_fence(j: &dyn Journal) {
    let l = link("fence");
    let first = j.acquire(&l, "one", 0).await.unwrap();
    assert!(first >= 1);
    let second = j.acquire(&l, "two", 0).await.unwrap();
    assert!(second > first);
    let told = j.acquire(&l, "three", 900).await.unwrap();
    assert!(told >= 900, "an epoch a peer has seen is not handed out again: {told}");
    let late = j.record(&l, second, &Record::default()).await;
    assert!(matches!(late, Err(Error::Fenced { ours, current }) if ours == second && current == told), "{late:?}");
    assert!(matches!(j.release(&l, first).await, Err(Error::Fenced { .. })));
    assert!(matches!(j.record(&link("never acquired"), 1, &Record::default()).await, Err(Error::Fenced { .. })));
    assert!(matches!(j.acquire(&l, "four", u64::MAX).await, Err(Error::EpochTooHigh { .. })));
    assert_eq!(j.acquire(&l, "five", 0).await.unwrap(), told + 1, "a refused epoch leaves no trace");
}

async fn epochs_survive_a_crash_and_a_release(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let (j, l) = (open().await, link("crash"));
    let before = j.acquire(&l, "one", 0).await.unwrap();
    j.release(&l, before).await.unwrap();
    let j = open().await;
    assert!(j.acquire(&l, "two", 0).await.unwrap() > before);
}

async fn a_record_is_whole_and_survives_a_crash(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let (j, l) = (open().await, link("record"));
    assert_eq!(j.load(&l, 10).await.unwrap(), (None, vec![]), "an unknown link has nothing");
    let epoch = j.acquire(&l, "one", 0).await.unwrap();
    assert_eq!(j.load(&l, 10).await.unwrap(), (None, vec![]), "an acquired link has recorded nothing");
    let odd = row("../\u{0}\n\u{1f600}", 1, 5, RowState::Pending);
    let (gone, null) = (row("gone", 2, 6, RowState::Pending), Row { version_id: VersionId::NULL, ..odd.clone() });
    let upserts = vec![odd.clone(), gone.clone(), null.clone()];
    j.record(&l, epoch, &Record { checkpoint: checkpoint(1), upserts, deletes: vec![] }).await.unwrap();
    let changed = Row { state: RowState::Parked, attempts: 9, floor: None, ..odd };
    let second = Record {
        checkpoint: checkpoint(2),
        upserts: vec![changed.clone(), null.clone()],
        deletes: vec![("gone".into(), id(2)), ("never there".into(), id(3)), (null.key.clone(), VersionId::NULL)],
    };
    j.record(&l, epoch, &second).await.unwrap();
    let j = open().await;
    let (at, rows) = j.load(&l, 10).await.unwrap();
    assert_eq!(at, Some(checkpoint(2)));
    assert_eq!(rows, vec![null, changed], "deleted rows go, a row both deleted and made stays");
    let epoch = j.acquire(&l, "two", 0).await.unwrap();
    j.release(&l, epoch).await.unwrap();
    let j = open().await;
    assert_eq!(j.load(&l, 10).await.unwrap(), (None, vec![]));
    assert!(j.links().await.unwrap().iter().all(|(found, _)| *found != l));
}

async fn a_fenced_record_leaves_nothing(j: &dyn Journal) {
    let l = link("fenced");
    let old = j.acquire(&l, "one", 0).await.unwrap();
    let new = j.acquire(&l, "two", 0).await.unwrap();
    j.record(&l, new, &Record { checkpoint: checkpoint(7), ..Record::default() }).await.unwrap();
    let late = Record { checkpoint: checkpoint(1), upserts: vec![row("k", 1, 1, RowState::Pending)], deletes: vec![] };
    assert!(matches!(j.record(&l, old, &late).await, Err(Error::Fenced { .. })));
    assert_eq!(j.load(&l, 10).await.unwrap(), (Some(checkpoint(7)), vec![]));
}

async fn rows_due_first_come_first(j: &dyn Journal) {
    let l = link("due");
    let epoch = j.acquire(&l, "one", 0).await.unwrap();
    let rows = vec![
        row("parked", 1, 0, RowState::Parked),
        row("later", 2, 30, RowState::Pending),
        row("now", 3, 10, RowState::Pending),
    ];
    j.record(&l, epoch, &Record { upserts: rows, ..Record::default() }).await.unwrap();
    let keys = |rows: Vec<Row>| rows.into_iter().map(|r| r.key).collect::<Vec<_>>();
    assert_eq!(keys(j.load(&l, 10).await.unwrap().1), ["now", "later", "parked"]);
    assert_eq!(keys(j.load(&l, 2).await.unwrap().1), ["now", "later"]);
}

async fn ten_thousand_rows_in_one_record(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let (j, l) = (open().await, link("many"));
    let epoch = j.acquire(&l, "one", 0).await.unwrap();
    let upserts: Vec<Row> = (0..10_000).map(|n| row(&format!("k/{n}"), n, n, RowState::Pending)).collect();
    j.record(&l, epoch, &Record { upserts, ..Record::default() }).await.unwrap();
    let j = open().await;
    assert_eq!(j.load(&l, 20_000).await.unwrap().1.len(), 10_000);
    let deletes = (0..10_000).filter(|n| n % 4 != 0).map(|n| (format!("k/{n}"), id(n))).collect();
    j.record(&l, epoch, &Record { deletes, ..Record::default() }).await.unwrap();
    let left: BTreeSet<String> = j.load(&l, 20_000).await.unwrap().1.into_iter().map(|r| r.key).collect();
    assert_eq!(left, (0..10_000).step_by(4).map(|n| format!("k/{n}")).collect());
    j.release(&l, epoch).await.unwrap();
}

async fn links_do_not_mix(j: &dyn Journal) {
    let base = link("apart");
    let others = [
        LinkId { rule: "apart2".into(), ..base.clone() },
        LinkId { bucket: "b1".into(), ..base.clone() },
        LinkId { peer: "nyc".into(), ..base.clone() },
    ];
    for (n, l) in others.iter().enumerate() {
        let epoch = j.acquire(l, "one", 0).await.unwrap();
        let upserts = vec![row("same", 1, n as u64, RowState::Pending)];
        let record = Record { checkpoint: checkpoint(n as u64), upserts, deletes: vec![] };
        j.record(l, epoch, &record).await.unwrap();
    }
    let known = j.links().await.unwrap();
    for (n, l) in others.iter().enumerate() {
        assert!(known.contains(&(l.clone(), checkpoint(n as u64))), "{l:?}");
        assert_eq!(j.load(l, 10).await.unwrap().1, vec![row("same", 1, n as u64, RowState::Pending)]);
    }
    assert!(known.iter().all(|(l, _)| *l != base));
}

async fn inbound_epochs_keep_the_highest(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let j = open().await;
    assert_eq!(j.see_epoch("ams/r/b", 0).await.unwrap(), 0);
    assert_eq!(j.see_epoch("ams/r/b", 7).await.unwrap(), 7);
    assert_eq!(j.see_epoch("ams/r/b", 3).await.unwrap(), 7);
    assert_eq!(j.see_epoch("ams/r/other", 1).await.unwrap(), 1);
    assert!(matches!(j.see_epoch("ams/r/b", EPOCH_MAX + 1).await, Err(Error::EpochTooHigh { .. })));
    let j = open().await;
    assert_eq!(j.see_epoch("ams/r/b", 0).await.unwrap(), 7);
}

async fn conflicts_are_kept_once_newest_first(j: &dyn Journal) {
    let pair = |key: &str, seen_millis| Conflict {
        bucket: "photos".into(),
        key: key.into(),
        later: "aa".into(),
        earlier: "bb".into(),
        seen_millis,
    };
    for c in [pair("a", 10), pair("b", 30), pair("c", 20), pair("a", 99)] {
        j.add_conflict(&c).await.unwrap();
    }
    assert_eq!(j.conflicts(10).await.unwrap(), vec![pair("b", 30), pair("c", 20), pair("a", 10)]);
    assert_eq!(j.conflicts(1).await.unwrap(), vec![pair("b", 30)]);
}

async fn accepted_specs_are_replaced(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let (j, name) = (open().await, "ReplicationRule/default/logs");
    assert_eq!(j.accepted_spec(name).await.unwrap(), None);
    j.accept_spec(name, 1, "{}").await.unwrap();
    j.accept_spec(name, 2, r#"{"bucket":"logs"}"#).await.unwrap();
    let j = open().await;
    assert_eq!(j.accepted_spec(name).await.unwrap(), Some((2, r#"{"bucket":"logs"}"#.into())));
    assert_eq!(j.accepted_spec("Peer/default/logs").await.unwrap(), None);
}
