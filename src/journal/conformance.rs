//! What every journal must do, as one suite: memory, SQLite and PostgreSQL run it alike. [`run_shared`] is what
//! those must do besides that several processes share.
//!
//! `open` yields the same journal once more each time, as after a crash: whatever was answered `Ok` before must
//! be there, and nothing may rely on the earlier handle having been closed.
use super::sql::KEPT;
use super::{CONFLICTS_MAX, Claim, ClaimTerms, Conflict, EPOCH_MAX, Error, Journal, LinkId, Mapped, Upload};
use crate::link::{Checkpoint, Existing, Filter, KeptBrake, Reach, Reason, Record, Row, RowState, Scope, Since};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use storage_engine::feed::Cursor;
use storage_engine::version::VersionId;

/// Runs the whole suite.
pub async fn run(mut open: impl AsyncFnMut() -> Arc<dyn Journal>) {
    what_is_kept_is_counted(&*open().await).await;
    epochs_rise_and_fence(&*open().await).await;
    epochs_survive_a_crash_and_a_release(&mut open).await;
    a_record_is_whole_and_survives_a_crash(&mut open).await;
    a_fenced_record_leaves_nothing(&*open().await).await;
    rows_due_first_come_first(&*open().await).await;
    ten_thousand_rows_in_one_record(&mut open).await;
    links_do_not_mix(&*open().await).await;
    inbound_epochs_keep_the_highest(&mut open).await;
    conflicts_are_kept_once_newest_first_and_within_a_bound(&*open().await).await;
    accepted_specs_are_replaced(&mut open).await;
    verb_states_are_set_and_forgotten(&mut open).await;
    a_version_map_is_found_by_key_and_fenced(&mut open).await;
    uploads_are_kept_until_they_are_over(&mut open).await;
}

/// Runs what only a journal of several processes can show.
pub async fn run_shared(mut open: impl AsyncFnMut() -> Arc<dyn Journal>) {
    of_many_claims_at_once_one_is_granted(&mut open).await;
    a_claim_ends_by_the_journals_clock_and_fences_its_holder(&mut open).await;
    a_renewed_claim_stands(&*open().await).await;
    a_freed_link_is_claimed_at_once_but_by_the_patient(&*open().await).await;
    a_claim_and_a_write_never_pass_each_other(&mut open).await;
    holders_are_counted_while_they_renew(&mut open).await;
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
        reason: Reason::Grant,
        state,
        floor: cursor(b"\x00floor\xff"),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    }
}
fn checkpoint(at: u64) -> Checkpoint {
    let scope = |prefix: &str| Scope {
        filter: Filter { prefix: prefix.into(), tags: [("a\u{0}".to_string(), "\u{1f600}".to_string())].into() },
        yields_to: vec![Filter::default()],
        version_deletes: true,
        object_lock: true,
        ..Scope::default()
    };
    let until = Cursor(Bytes::from_static(b"\xff\x00until"));
    let existing =
        Existing { cursor: cursor(b"\x00"), until, except: Some(scope("old/")), compares: at.is_multiple_of(2) };
    let since = Some(Since { at, scope: scope("new/"), remade: at.is_multiple_of(3).then_some(at) });
    let reach = Some(Reach { covered: Some(scope("")), since, existing: Some(existing) }).filter(|_| at != 1);
    let brake = Some(KeptBrake { engaged_at: Some(at), released_through: at / 2, release: 3 });
    Checkpoint { cursor: cursor(b"\xff\x00cursor"), floor: None, committed_through: at, reach, brake }
}

fn mapped(key: &str, n: u64, remote: &str) -> Mapped {
    Mapped {
        key: key.into(),
        version_id: id(n),
        remote_id: remote.into(),
        born: n << 16,
        state: u128::MAX - u128::from(n),
    }
}

async fn what_is_kept_is_counted(j: &dyn Journal) {
    let counts = async || {
        let rows = j.extent().await.unwrap().rows;
        assert!(rows.keys().map(String::as_str).eq(BTreeSet::from(KEPT)), "{rows:?}");
        KEPT.map(|kept| rows[kept])
    };
    let before = counts().await;
    let more = async || {
        let now = counts().await;
        std::array::from_fn::<u64, { KEPT.len() }, _>(|i| now[i] - before[i])
    };
    let l = link("counted");
    let epoch = own(j, &l, 0).await;
    assert_eq!(more().await, [0; KEPT.len()], "a claim is no row of these");
    let rows = [row("a", 1, 5, RowState::Pending), row("b", 2, 5, RowState::Parked)];
    let record = Record { checkpoint: checkpoint(1), upserts: rows.into(), deletes: Vec::new() };
    j.record(&l, epoch, &record).await.unwrap();
    j.remap(&l, epoch, &[mapped("a", 1, "r1"), mapped("a", 2, "r2"), mapped("b", 3, "r3")], &[]).await.unwrap();
    for n in 0..4 {
        j.set_upload(&l, epoch, ("k", id(n)), Some("upload")).await.unwrap();
        j.see_epoch(&format!("counted/{}", n % 3), 1).await.unwrap();
        j.accept_spec(&format!("Rule//counted-{}", n % 2), n, "{}").await.unwrap();
    }
    j.set_verb_state("rule/counted", Some("{}")).await.unwrap();
    assert_eq!(more().await, [1, 2, 3, 4, 3, 0, 2, 1]);
    j.release(&l, epoch).await.unwrap();
    assert_eq!(more().await, [0, 0, 0, 0, 3, 0, 2, 1], "the rows of a link go with it");
    j.forget_spec("Rule//counted-0").await.unwrap();
    j.forget_spec("Rule//counted-1").await.unwrap();
    j.set_verb_state("rule/counted", None).await.unwrap();
    assert_eq!(more().await, [0, 0, 0, 0, 3, 0, 0, 0]);
}

async fn a_version_map_is_found_by_key_and_fenced(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let j = open().await;
    let (l, other) = (link("map"), link("map-other"));
    let epoch = own(&*j, &l, 0).await;
    let other_epoch = own(&*j, &other, 0).await;
    let all = [mapped("a", 1, "r1"), mapped("a", 2, "r\u{1f600}"), mapped("a/", 3, "r3"), mapped("b", 4, "")];
    j.remap(&l, epoch, &all, &[]).await.unwrap();
    j.remap(&other, other_epoch, &[mapped("a", 1, "elsewhere")], &[]).await.unwrap();
    let late = j.remap(&l, epoch - 1, &[mapped("a", 1, "late")], &[("b".into(), id(4))]).await;
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    drop(j);
    let j = open().await;
    assert_eq!(j.mapped(&l, None, None, 10).await.unwrap(), all);
    assert_eq!(j.mapped(&l, Some("a"), Some("a"), 10).await.unwrap(), all[..2]);
    assert_eq!(j.mapped(&l, Some("a/"), None, 10).await.unwrap(), all[2..]);
    assert_eq!(j.mapped(&l, None, Some("a/"), 2).await.unwrap(), all[..2]);
    let epoch = own(&*j, &l, 0).await;
    j.remap(&l, epoch, &[mapped("a", 2, "again")], &[("a".into(), id(1)), ("none".into(), id(9))]).await.unwrap();
    assert_eq!(j.mapped(&l, Some("a"), Some("a"), 10).await.unwrap(), [mapped("a", 2, "again")]);
    j.release(&l, epoch).await.unwrap();
    assert_eq!(j.mapped(&l, None, None, 10).await.unwrap(), []);
    assert_eq!(j.mapped(&other, None, None, 10).await.unwrap().len(), 1, "links do not mix");
}

async fn uploads_are_kept_until_they_are_over(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let j = open().await;
    let l = link("uploads");
    let epoch = own(&*j, &l, 0).await;
    j.set_upload(&l, epoch, ("k", id(1)), Some("first")).await.unwrap();
    j.set_upload(&l, epoch, ("k", id(1)), Some("second")).await.unwrap();
    j.set_upload(&l, epoch, ("k", id(2)), Some("other")).await.unwrap();
    assert!(matches!(j.set_upload(&l, epoch - 1, ("k", id(2)), None).await, Err(Error::Fenced { .. })));
    drop(j);
    let j = open().await;
    let upload = |n, upload_id: &str| Upload { key: "k".into(), version_id: id(n), upload_id: upload_id.into() };
    assert_eq!(j.uploads(&l).await.unwrap(), [upload(1, "second"), upload(2, "other")]);
    j.set_upload(&l, epoch, ("k", id(1)), None).await.unwrap();
    assert_eq!(j.uploads(&l).await.unwrap(), [upload(2, "other")]);
    j.release(&l, epoch).await.unwrap();
    assert_eq!(j.uploads(&l).await.unwrap(), []);
}

/// A lease no test outlives.
const LONG: Duration = Duration::from_secs(600);
/// A lease a test waits for.
const SHORT: Duration = Duration::from_millis(400);

fn terms(at_least: u64, lease: Duration) -> ClaimTerms {
    ClaimTerms { at_least, lease, patience: Duration::ZERO }
}
/// Claims as the one holder of the tests that need no other: always granted.
async fn own(j: &dyn Journal, link: &LinkId, at_least: u64) -> u64 {
    match j.claim(link, "one", terms(at_least, LONG)).await.unwrap() {
        Claim::Owned { epoch } => epoch,
        held => panic!("{held:?}"),
    }
}
/// Claims until it is granted.
async fn wait_for(j: &dyn Journal, link: &LinkId, holder: &str, terms: ClaimTerms) -> u64 {
    let granted = async {
        loop {
            match j.claim(link, holder, terms).await.unwrap() {
                Claim::Owned { epoch } => return epoch,
                Claim::Held { .. } => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), granted).await.expect("the claim is granted in the end")
}

async fn epochs_rise_and_fence(j: &dyn Journal) {
    let l = link("fence");
    let first = own(j, &l, 0).await;
    assert!(first >= 1);
    let second = own(j, &l, 0).await;
    assert!(second > first);
    let told = own(j, &l, 900).await;
    assert!(told >= 900, "an epoch a peer has seen is not handed out again: {told}");
    let late = j.record(&l, second, &Record::default()).await;
    assert!(matches!(late, Err(Error::Fenced { ours, current }) if ours == second && current == told), "{late:?}");
    assert!(matches!(j.release(&l, first).await, Err(Error::Fenced { .. })));
    assert!(matches!(j.free(&l, first).await, Err(Error::Fenced { .. })));
    let held = [(l.clone(), second), (link("never acquired"), 1)];
    assert_eq!(j.renew("one", 1, &held, LONG).await.unwrap().kept, [], "what is lost is not renewed");
    assert_eq!(j.renew("one", 1, &[(l.clone(), told)], LONG).await.unwrap().kept, std::slice::from_ref(&l));
    assert!(matches!(j.record(&link("never acquired"), 1, &Record::default()).await, Err(Error::Fenced { .. })));
    assert!(matches!(j.claim(&l, "one", terms(u64::MAX, LONG)).await, Err(Error::EpochTooHigh { .. })));
    assert_eq!(own(j, &l, 0).await, told + 1, "a refused epoch leaves no trace");
}

async fn epochs_survive_a_crash_and_a_release(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let (j, l) = (open().await, link("crash"));
    let before = own(&*j, &l, 0).await;
    j.release(&l, before).await.unwrap();
    let j = open().await;
    assert!(own(&*j, &l, 0).await > before);
}

async fn a_record_is_whole_and_survives_a_crash(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let (j, l) = (open().await, link("record"));
    assert_eq!(j.load(&l, 10).await.unwrap(), (None, vec![]), "an unknown link has nothing");
    let epoch = own(&*j, &l, 0).await;
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
    let epoch = own(&*j, &l, 0).await;
    j.release(&l, epoch).await.unwrap();
    let j = open().await;
    assert_eq!(j.load(&l, 10).await.unwrap(), (None, vec![]));
    assert!(j.links(None).await.unwrap().iter().all(|(found, _)| *found != l));
}

async fn a_fenced_record_leaves_nothing(j: &dyn Journal) {
    let l = link("fenced");
    let old = own(j, &l, 0).await;
    let new = own(j, &l, 0).await;
    j.record(&l, new, &Record { checkpoint: checkpoint(7), ..Record::default() }).await.unwrap();
    let late = Record { checkpoint: checkpoint(1), upserts: vec![row("k", 1, 1, RowState::Pending)], deletes: vec![] };
    assert!(matches!(j.record(&l, old, &late).await, Err(Error::Fenced { .. })));
    assert_eq!(j.load(&l, 10).await.unwrap(), (Some(checkpoint(7)), vec![]));
}

async fn rows_due_first_come_first(j: &dyn Journal) {
    let l = link("due");
    let epoch = own(j, &l, 0).await;
    let rows = vec![
        row("parked", 1, 0, RowState::Parked),
        row("later", 2, 30, RowState::Pending),
        row("now", 3, 10, RowState::Pending),
    ];
    j.record(&l, epoch, &Record { upserts: rows, ..Record::default() }).await.unwrap();
    let keys = |rows: Vec<Row>| rows.into_iter().map(|r| r.key).collect::<Vec<_>>();
    assert_eq!(keys(j.load(&l, 10).await.unwrap().1), ["now", "later", "parked"]);
    assert_eq!(keys(j.load(&l, 2).await.unwrap().1), ["now", "later"]);
    assert_eq!(j.parked(&l).await.unwrap(), 1);
    assert_eq!(j.parked(&link("nobody's")).await.unwrap(), 0);
}

async fn ten_thousand_rows_in_one_record(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let (j, l) = (open().await, link("many"));
    let epoch = own(&*j, &l, 0).await;
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
        let epoch = own(j, l, 0).await;
        let upserts = vec![row("same", 1, n as u64, RowState::Pending)];
        let record = Record { checkpoint: checkpoint(n as u64), upserts, deletes: vec![] };
        j.record(l, epoch, &record).await.unwrap();
    }
    let known = j.links(None).await.unwrap();
    for (n, l) in others.iter().enumerate() {
        assert!(known.contains(&(l.clone(), checkpoint(n as u64))), "{l:?}");
        assert_eq!(j.load(l, 10).await.unwrap().1, vec![row("same", 1, n as u64, RowState::Pending)]);
    }
    assert!(known.iter().all(|(l, _)| *l != base));
    let of_rule: Vec<LinkId> = j.links(Some(&base.rule)).await.unwrap().into_iter().map(|(l, _)| l).collect();
    assert_eq!(of_rule, [others[2].clone(), others[1].clone()]);
}

async fn inbound_epochs_keep_the_highest(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let j = open().await;
    assert_eq!(j.see_epoch("ams/r/b", 0).await.unwrap(), 0);
    assert_eq!(j.see_epoch("ams/r/b", 7).await.unwrap(), 7);
    assert_eq!(j.see_epoch("ams/r/b", 3).await.unwrap(), 7);
    assert_eq!(j.see_epoch("ams/r/other", 1).await.unwrap(), 1);
    assert!(matches!(j.see_epoch("ams/r/b", EPOCH_MAX + 1).await, Err(Error::EpochTooHigh { .. })));
    assert_eq!(j.see_epoch("ams/r/last", EPOCH_MAX).await.unwrap(), EPOCH_MAX);
    let j = open().await;
    assert_eq!(j.see_epoch("ams/r/b", 0).await.unwrap(), 7);
}

async fn conflicts_are_kept_once_newest_first_and_within_a_bound(j: &dyn Journal) {
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
    for n in 0..CONFLICTS_MAX as u64 {
        j.add_conflict(&pair(&format!("later {n}"), 100 + n)).await.unwrap();
    }
    let kept = j.conflicts(2 * CONFLICTS_MAX).await.unwrap();
    assert_eq!((kept.len(), kept.last()), (CONFLICTS_MAX, Some(&pair("later 0", 100))));
    assert_eq!(j.extent().await.unwrap().rows["conflict"], CONFLICTS_MAX as u64);
}

async fn accepted_specs_are_replaced(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let (j, name) = (open().await, "ReplicationRule/default/logs");
    assert_eq!(j.accepted_spec(name).await.unwrap(), None);
    j.accept_spec(name, 1, "{}").await.unwrap();
    j.accept_spec(name, 2, r#"{"bucket":"logs"}"#).await.unwrap();
    let j = open().await;
    assert_eq!(j.accepted_spec(name).await.unwrap(), Some((2, r#"{"bucket":"logs"}"#.into())));
    assert_eq!(j.accepted_spec("Peer/default/logs").await.unwrap(), None);
    let kept = (name.to_string(), 2, r#"{"bucket":"logs"}"#.to_string());
    assert!(j.accepted_specs().await.unwrap().contains(&kept));
    j.forget_spec(name).await.unwrap();
    assert!(!open().await.accepted_specs().await.unwrap().contains(&kept));
}

async fn verb_states_are_set_and_forgotten(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let (j, subject) = (open().await, "rule/0a1b");
    assert_eq!(j.verb_states().await.unwrap(), vec![]);
    j.set_verb_state("peer/ams", Some("{}")).await.unwrap();
    j.set_verb_state(subject, Some("{}")).await.unwrap();
    j.set_verb_state(subject, Some(r#"{"suspended":true}"#)).await.unwrap();
    let j = open().await;
    let pair = |subject: &str, state: &str| (subject.to_string(), state.to_string());
    let both = vec![pair("peer/ams", "{}"), pair(subject, r#"{"suspended":true}"#)];
    assert_eq!(j.verb_states().await.unwrap(), both);
    j.set_verb_state(subject, None).await.unwrap();
    assert_eq!(j.verb_states().await.unwrap(), both[..1]);
}

async fn of_many_claims_at_once_one_is_granted(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let (l, mut claims) = (link("race"), tokio::task::JoinSet::new());
    for n in 0..8 {
        let (j, l) = (open().await, l.clone());
        claims.spawn(async move { j.claim(&l, &format!("holder {n}"), terms(0, LONG)).await.unwrap() });
    }
    let all = claims.join_all().await;
    let granted: Vec<_> = all.iter().filter(|c| matches!(c, Claim::Owned { .. })).collect();
    assert_eq!(granted, [&Claim::Owned { epoch: 1 }], "{all:?}");
}

async fn a_claim_ends_by_the_journals_clock_and_fences_its_holder(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let (one, two, l) = (open().await, open().await, link("expiry"));
    let before = tokio::time::Instant::now();
    let Claim::Owned { epoch: old } = one.claim(&l, "one", terms(0, SHORT)).await.unwrap() else { panic!("free") };
    one.record(&l, old, &Record { checkpoint: checkpoint(1), ..Record::default() }).await.unwrap();
    if let Claim::Held { by } = two.claim(&l, "two", terms(0, LONG)).await.unwrap() {
        assert_eq!(by.as_deref(), Some("one"));
    }
    let new = wait_for(&*two, &l, "two", terms(0, LONG)).await;
    assert!(before.elapsed() >= SHORT, "taken before its time");
    assert!(new > old);
    let late = Record { checkpoint: checkpoint(9), upserts: vec![row("k", 1, 1, RowState::Pending)], deletes: vec![] };
    assert!(
        matches!(one.record(&l, old, &late).await, Err(Error::Fenced { ours, current }) if (ours, current) == (old, new))
    );
    assert!(matches!(one.free(&l, old).await, Err(Error::Fenced { .. })));
    assert_eq!(one.renew("one", 1, &[(l.clone(), old)], LONG).await.unwrap().kept, [], "what another took is lost");
    assert_eq!(one.claim(&l, "one", terms(0, LONG)).await.unwrap(), Claim::Held { by: Some("two".into()) });
    assert_eq!(two.load(&l, 10).await.unwrap(), (Some(checkpoint(1)), vec![]), "the late write had no effect");
}

async fn a_renewed_claim_stands(j: &dyn Journal) {
    let l = link("renewed");
    let Claim::Owned { epoch } = j.claim(&l, "one", terms(0, SHORT)).await.unwrap() else { panic!("free") };
    assert_eq!(j.renew("one", 1, &[(l.clone(), epoch)], LONG).await.unwrap().kept, std::slice::from_ref(&l));
    tokio::time::sleep(2 * SHORT).await;
    assert_eq!(j.claim(&l, "two", terms(0, LONG)).await.unwrap(), Claim::Held { by: Some("one".into()) });
}

async fn a_freed_link_is_claimed_at_once_but_by_the_patient(j: &dyn Journal) {
    let (l, patient) = (link("freed"), ClaimTerms { patience: LONG, ..terms(0, LONG) });
    assert_eq!(
        j.claim(&l, "two", patient).await.unwrap(),
        Claim::Held { by: None },
        "new links too are left to others"
    );
    let first = own(j, &l, 0).await;
    j.free(&l, first).await.unwrap();
    assert_eq!(j.claim(&l, "two", patient).await.unwrap(), Claim::Held { by: None });
    let brief = ClaimTerms { patience: SHORT, ..terms(0, LONG) };
    let second = wait_for(j, &l, "two", brief).await;
    assert!(second > first);
    j.free(&l, second).await.unwrap();
    assert!(own(j, &l, 0).await > second);
}

/// A holder writes as fast as it can while another takes over: what the new owner finds is the last word.
async fn a_claim_and_a_write_never_pass_each_other(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    for round in 0..5 {
        let (one, two, l) = (open().await, open().await, link(&format!("pass {round}")));
        let Claim::Owned { epoch: old } = one.claim(&l, "one", terms(0, SHORT)).await.unwrap() else { panic!("free") };
        let (writer, of) = (one.clone(), l.clone());
        let writing = tokio::spawn(async move {
            for at in 1.. {
                let record = Record { checkpoint: checkpoint(at), ..Record::default() };
                match writer.record(&of, old, &record).await {
                    // A journal in memory never waits by itself.
                    Ok(()) => tokio::task::yield_now().await,
                    Err(Error::Fenced { .. }) => return at - 1,
                    Err(e) => panic!("{e}"),
                }
            }
            unreachable!("the writer is fenced")
        });
        wait_for(&*two, &l, "two", terms(0, LONG)).await;
        let found = two.load(&l, 1).await.unwrap().0.map_or(0, |c| c.committed_through);
        assert_eq!(writing.await.unwrap(), found, "a write was taken behind the claim");
        assert_eq!(two.load(&l, 1).await.unwrap().0.map_or(0, |c| c.committed_through), found);
    }
}

async fn holders_are_counted_while_they_renew(open: &mut impl AsyncFnMut() -> Arc<dyn Journal>) {
    let (a, b) = (open().await, open().await);
    let alone = async |j: &dyn Journal| {
        let counted = async {
            while j.renew("a", 3, &[], LONG).await.unwrap().holders != 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), counted).await.expect("the others cease to count");
    };
    a.renew("one", 0, &[], LONG).await.unwrap();
    alone(&*a).await;
    assert_eq!(b.renew("b", 3, &[], SHORT).await.unwrap().holders, 2);
    assert_eq!(a.renew("a", 3, &[], LONG).await.unwrap().holders, 2);
    assert_eq!(b.renew("c without rules", 0, &[], LONG).await.unwrap().holders, 2, "it would run nothing");
    alone(&*a).await;
    assert_eq!(b.renew("b", 3, &[], LONG).await.unwrap().holders, 2);
    assert_eq!(b.renew("b", 0, &[], LONG).await.unwrap().holders, 1, "it leaves");
}
