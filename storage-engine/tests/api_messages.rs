//! The private API's messages: written as they were, read back, and what neither end knows is carried along.
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use storage_engine::api::lend::{Found, Question};
use storage_engine::api::message::{
    Answer, Call, Reply, Request, error_from_bytes, error_to_bytes, event_from_bytes, event_to_bytes,
};
use storage_engine::api::scratch::Act;
use storage_engine::api::{
    Applied, Backlog, BucketInfo, Cursor, Document, DriveHealth, Error, Event, ShownCertificate, StoreHealth, piece,
};
use storage_engine::bucket::document::Kind;
use storage_engine::feed::Interest;
use storage_engine::object::Cut;
use storage_engine::version::{Hlc, Origin, Stamp, Tags, Version, VersionId};
use storage_engine::wire::Fields;

fn version() -> Version {
    let id = VersionId::from_bytes([7; 16]);
    let stamp =
        Stamp { hlc: Hlc::from_millis(1_700_000_000_000), origin: Origin::new("fra"), unknown: Fields::default() };
    let tags =
        Some(Tags { stamp, set: BTreeMap::from([("colour".into(), "blue".into())]), unknown: Fields::default() });
    Version { tags, ..Version::blank("a/../b", id) }
}

fn document() -> Document {
    let stamp = Stamp::new(Hlc::from_millis(1_700_000_000_000), Origin::new("fra"));
    Document { kind: Kind::Cors, stamp, text: Some("<CORSConfiguration/>".into()) }
}

fn cursor(bytes: &'static [u8]) -> Cursor {
    Cursor(bytes.into())
}

fn calls() -> Vec<Call> {
    let (bucket, key, id, consumer) =
        ("orders".to_owned(), "a/../b".to_owned(), VersionId::from_bytes([7; 16]), "rule/bucket/ams".to_owned());
    let version = Box::new(version());
    let cut = Cut::new(40 << 20, 8 << 20).unwrap();
    let piece = |act| Call::Piece { bucket: "orders".into(), act };
    let traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    vec![
        Call::Hello,
        Call::Health,
        Call::Bucket { bucket: bucket.clone() },
        Call::Changes { bucket: bucket.clone(), cursor: Some(cursor(b"here")), limit: 256 },
        Call::Head { bucket: bucket.clone() },
        Call::Stat { bucket: bucket.clone(), key: key.clone(), id },
        Call::ReadVersion { bucket: bucket.clone(), key: key.clone(), id },
        Call::Apply { bucket: bucket.clone(), version, has_body: true, traceparent },
        Call::VersionsOf { bucket: bucket.clone(), key: key.clone() },
        Call::VersionsAfter { bucket: bucket.clone(), after: Some((key, id)), limit: 1000 },
        Call::Stretch { bucket: bucket.clone(), prefix: "a/".into(), after: Some("a/../a".into()), limit: 1000 },
        Call::Register { bucket: bucket.clone(), consumer: consumer.clone(), keeps_versioning: true },
        Call::Commit {
            bucket: bucket.clone(),
            consumer: consumer.clone(),
            cursor: cursor(b"read"),
            floor: cursor(b"durable"),
        },
        Call::Deregister { bucket: bucket.clone(), consumer },
        Call::JoinDocument { bucket: bucket.clone(), document: document() },
        Call::Scratch {
            bucket: "isthmus-drill-0123456789ab".into(),
            act: Act::Put { key: "k".into(), bytes: "bytes".into() },
        },
        Call::ReadRange { bucket: bucket.clone(), key: "a/../b".into(), id, range: 8..1 << 40 },
        piece(piece::Act::Put { id, cut, number: 3, crc64nvme: u64::MAX }),
        piece(piece::Act::Held { id, cut }),
        piece(piece::Act::Apply { version: Box::new(self::version()), cut, traceparent: Some("00-1".into()) }),
        piece(piece::Act::Forget { before_millis: 1_700_000_000_000 }),
        Call::Wanted { buckets: vec![bucket.clone(), "invoices".into()], wait_millis: 5_000 },
        Call::Lend { number: 7, found: Found::Version { place: "ams".into(), version: Box::new(self::version()) } },
        Call::Backlog { bucket, cursor: None, interest: Interest::under("a/") },
    ]
}

fn answers() -> Vec<(&'static str, Answer)> {
    let info = BucketInfo {
        id: "0123456789abcdef0123456789abcdef".into(),
        name: "orders".into(),
        versioned: true,
        ..BucketInfo::default()
    };
    let locked = BucketInfo { object_lock: true, documents: vec![document()], ..info.clone() };
    let backlog = Backlog { versions: 3, bytes: 4096, oldest_pending_since: Some(1_700_000_000_000) };
    vec![
        ("hello", Answer::Hello { protocol: 1, origin: Origin::new("fra") }),
        ("bucket", Answer::Bucket(info)),
        ("bucket-with-documents", Answer::Bucket(locked)),
        ("changes", Answer::Changes { cursor: cursor(b"there"), bucket: String::new() }),
        ("changes-of", Answer::Changes { cursor: cursor(b"there"), bucket: "0a".repeat(16) }),
        ("version", Answer::Version(Some(Box::new(version())))),
        ("bytes", Answer::Bytes { size_bytes: 1 << 40 }),
        ("applied", Answer::Applied(Applied::Superseded)),
        ("versions", Answer::Versions),
        ("cursor", Answer::Cursor(Some(cursor(b"committed")))),
        ("done", Answer::Done),
        ("made", Answer::Made(VersionId::from_bytes([7; 16]))),
        ("backlog", Answer::Backlog(backlog)),
        ("stretch", Answer::Stretch { through: Some("a/../b".into()) }),
        ("held", Answer::Held(vec![0, 3, 9_999])),
        ("forgotten", Answer::Forgotten(12)),
        (
            "health",
            Answer::Health(StoreHealth {
                drives: vec![drive(0, None), drive(1, Some("gone".into()))],
                below_target: 3,
                certificates: Vec::new(),
            }),
        ),
        (
            "health-certificates",
            Answer::Health(StoreHealth {
                certificates: vec![ShownCertificate {
                    whose: "the S3 listener's".into(),
                    from_millis: 7,
                    until_millis: u64::MAX,
                }],
                ..StoreHealth::default()
            }),
        ),
        ("wanted", Answer::Wanted(Some(question(Some(8..16))))),
    ]
}

fn drive(slot: u32, offline: Option<String>) -> DriveHealth {
    DriveHealth { slot, offline, free_bytes: 1 << 30, total_bytes: 1 << 40 }
}

fn question(range: Option<Range<u64>>) -> Question {
    let version = range.as_ref().map(|_| VersionId::from_bytes([7; 16]));
    Question { number: 7, bucket: "orders".into(), key: "a/../b".into(), version, range }
}

/// Compares with a golden file; `WRITE_GOLDEN=1` makes the ones that are not there yet.
fn golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/api").join(format!("{name}.bin"));
    if !path.exists() && std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let held = std::fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    assert_eq!(held, bytes, "{name} is written otherwise than it was: an older end will not read it");
}

#[test]
fn every_question_is_written_as_it_was_and_read_back() {
    for call in calls() {
        let operation = call.operation();
        let request = Request::from(call);
        let bytes = request.to_bytes();
        golden(&format!("ask-{operation}"), &bytes);
        assert_eq!(Request::from_bytes(operation, &bytes), Ok(Some(request)));
    }
    assert_eq!(Request::from_bytes("FromTheFuture", &Fields::default().to_bytes()), Ok(None));
}

#[test]
fn every_answer_is_written_as_it_was_and_read_back() {
    for (name, answer) in answers() {
        let reply = Reply::from(answer);
        let bytes = reply.to_bytes();
        golden(&format!("answer-{name}"), &bytes);
        assert_eq!(Reply::from_bytes(&bytes), Ok(reply));
    }
    let event = Event { version: version(), pending_since: 1_700_000_000_001, traceparent: Some("00-1".into()) };
    golden("event", &event_to_bytes(&event));
    assert_eq!(event_from_bytes(&event_to_bytes(&event)), Ok(event));
}

#[test]
fn what_readers_want_and_get_is_read_back_in_every_shape() {
    for wanted in [None, Some(question(None)), Some(question(Some(0..0)))] {
        let reply = Reply::from(Answer::Wanted(wanted));
        assert_eq!(Reply::from_bytes(&reply.to_bytes()), Ok(reply));
    }
    for found in [Found::Nothing, Found::Bytes] {
        let request = Request::from(Call::Lend { number: 7, found });
        assert_eq!(Request::from_bytes("Lend", &request.to_bytes()), Ok(Some(request)));
    }
    let id = VersionId::from_bytes([7; 16]);
    let backwards = Call::ReadRange { bucket: "orders".into(), key: "k".into(), id, range: Range { start: 2, end: 1 } };
    assert!(Request::from_bytes("ReadRange", &Request::from(backwards).to_bytes()).is_err());
}

#[test]
fn fields_of_a_later_version_are_carried_along() {
    let mut later = Fields::default();
    later.put(900, &"from a later version".to_owned());
    for call in calls() {
        let operation = call.operation();
        let request = Request { call, unknown: later.clone() };
        assert_eq!(Request::from_bytes(operation, &request.to_bytes()), Ok(Some(request)), "{operation}");
    }
    for (name, answer) in answers() {
        let reply = Reply { answer, unknown: later.clone() };
        assert_eq!(Reply::from_bytes(&reply.to_bytes()), Ok(reply), "{name}");
    }
}

#[test]
fn an_error_means_the_same_at_the_other_end() {
    let told = |error: Error| error_from_bytes(&error_to_bytes(&error));
    for error in [
        Error::NoSuchBucket("b".into()),
        Error::NoSuchKey,
        Error::NoSuchVersion,
        Error::BadDigest("crc64nvme".into()),
        Error::Unavailable("2 of 5".into()),
        Error::Full,
        Error::Conflict("kept".into()),
        Error::Corrupt("blob".into()),
        Error::Expired,
        Error::Invalid("no".into()),
        Error::BucketExists,
    ] {
        let text = format!("{error:?}");
        assert_eq!(format!("{:?}", told(error)), text);
    }
    assert!(matches!(told(Error::Body(std::io::ErrorKind::UnexpectedEof.into())), Error::Body(_)));
    assert!(matches!(told(Error::InvalidPartOrder), Error::Invalid(_)));
    let mut newer = Fields::default();
    newer.put(1, &77u32);
    newer.put(23, &"something new".to_owned());
    assert!(matches!(error_from_bytes(&newer.to_bytes()), Error::Unavailable(_)));
    assert!(matches!(error_from_bytes(b"\xff"), Error::Unavailable(_)));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), which in any::<prop::sample::Index>()) {
        let operation = which.get(&calls()).operation();
        let _ = Request::from_bytes(operation, &bytes);
        let _ = Reply::from_bytes(&bytes);
        let _ = event_from_bytes(&bytes);
        let _ = error_from_bytes(&bytes);
    }
}
