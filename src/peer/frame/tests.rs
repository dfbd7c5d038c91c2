//! Frames: golden bytes, and no panic on any others.
use super::bucket::BucketState;
use super::content::{Content, ContentAsk, Span};
use super::*;
use crate::link::project::Projection;
use crate::link::reconcile::{Beside, Core, Digest, Item, KeyRange};
use crate::link::{Filter, Reason, Why};
use crate::peer::Portion;
use proptest::prelude::*;
use std::collections::BTreeMap;
use storage_engine::bucket::document::{Document, Kind as DocumentKind};
use storage_engine::version::{Birth, Hlc, Kind, Order, Origin, Version, VersionId};

/// Frames of reconciliation, which came later.
const GOLDEN_RECONCILE: &str = include_str!("../../../tests/golden/peer_frames_reconcile.txt");
/// Frames about buckets, later still.
const GOLDEN_BUCKET: &str = include_str!("../../../tests/golden/peer_frames_bucket.txt");
const GOLDEN: &str = include_str!("../../../tests/golden/peer_frames.txt");

fn version() -> Version {
    let id = VersionId::from_bytes([7; 16]);
    let mut version = Version::blank("a/key", id);
    version.birth = Some(Birth {
        size_bytes: 3,
        etag: "900150983cd24fb0d6963f7d28e17f72".into(),
        crc64nvme: 42,
        metadata: BTreeMap::from([("a".into(), "b".into())]),
        ..Birth::blank(
            Order { hlc: Hlc::from_millis(1_700_000_000_000), origin: Origin::new("ams"), version_id: id },
            Kind::Object,
        )
    });
    version
}

fn put(body: PutBody) -> Message {
    Message::Put(Box::new(Put {
        link: "rule/bucket".into(),
        epoch: 9,
        bucket: "logs".into(),
        version: version(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        relayed: true,
        body,
        portion: Portion::Whole,
        unknown: Fields::default(),
    }))
}

/// One of each, by name.
fn examples() -> Vec<(&'static str, Frame)> {
    let hello = Hello {
        versions: (1, 1),
        site: "ams".into(),
        features: vec!["resume".into()],
        links: vec!["rule/bucket".into()],
        epochs: BTreeMap::from([("rule/bucket".into(), 9)]),
        windows: Some(Windows { connection_bytes: 16 << 20, stream_bytes: 1 << 20, streams: 4096 }),
        unknown: Fields::default(),
    };
    let messages = vec![
        ("hello", Message::Hello(hello)),
        ("put_without_bytes", put(PutBody::None)),
        ("put_inline", put(PutBody::Inline(Bytes::from_static(b"abc")))),
        ("put_streamed", put(PutBody::Streamed)),
        ("data", Message::Data(Bytes::from_static(b"bytes"))),
        ("end", Message::End { aborted: false }),
        ("end_aborted", Message::End { aborted: true }),
        ("ack_applied", Message::Ack(Ack::Applied)),
        ("ack_already_present", Message::Ack(Ack::AlreadyPresent)),
        ("ack_superseded", Message::Ack(Ack::Superseded)),
        ("ack_needs_body", Message::Ack(Ack::NeedsBody)),
        ("ack_refused", Message::Ack(Ack::Refused(Why::new(Reason::Other, "no grant")))),
        ("ack_refused_by_grant", Message::Ack(Ack::Refused(Why::new(Reason::Grant, "no grant")))),
        ("ack_retry", Message::Ack(Ack::Retry { after_ms: 100, why: Why::new(Reason::Other, "no quorum") })),
        ("ack_clock_ahead", Message::Ack(Ack::ClockAhead { after_ms: 70_000 })),
        ("ack_fenced", Message::Ack(Ack::Fenced { highest: 10 })),
        ("credit", Message::Credit(131_072)),
        ("ping", Message::Ping(5)),
        ("pong", Message::Pong { number: 5, clock_millis: None }),
        ("pong_with_clock", Message::Pong { number: 5, clock_millis: Some(1_700_000_000_000) }),
        ("goodbye", Message::Goodbye("this site stops".into())),
    ];
    messages.into_iter().map(|(name, message)| (name, Frame { stream: 3, message })).collect()
}

fn question(ask: Ask) -> Message {
    let projection = Projection {
        prefix: "2026/".into(),
        tags: BTreeMap::from([("class".into(), "x".into())]),
        yields_to: vec![Filter { prefix: "2026/12/".into(), tags: BTreeMap::new() }],
        source: Origin::new("ams"),
        target: Origin::new("fra"),
        forward_all: true,
        delete_markers: false,
        version_deletes: true,
        object_lock: false,
        since: None,
    };
    Message::Question(Box::new(Question { bucket: "logs".into(), projection, ask, unknown: Fields::default() }))
}

/// One of each frame of reconciliation, by name.
fn reconcile_examples() -> Vec<(&'static str, Frame)> {
    let id = VersionId::from_bytes([7; 16]);
    let range = KeyRange { after: Some("a".into()), upto: None };
    let item = |key: &str, hash| Item { key: key.into(), version_id: id, hash, beside: None, purged_at: None };
    let stamp = storage_engine::version::Stamp::new(Hlc::from_millis(5), Origin::new("ams"));
    let held = storage_engine::version::Guards::at_birth(None, true, &stamp);
    let beside = |core| Item { beside: Beside::of(core, held.clone(), stamp.clone().into()), ..item("k", Some(9)) };
    let next = |item: Item| Item { key: "l".into(), ..item };
    let messages = vec![
        ("digest", question(Ask::Digests(vec![range.clone(), KeyRange { after: None, upto: Some("b".into()) }]))),
        ("items", question(Ask::Items { range: range.clone(), behind: Some(("k".into(), id)) })),
        ("items_from_the_first", question(Ask::Items { range, behind: None })),
        ("answer_digests", Message::Answer(Answer::Digests(vec![Digest { count: 3, sum: u128::MAX - 5 }]))),
        (
            "answer_items",
            Message::Answer(Answer::Items { items: vec![item("k", Some(9)), item("l", None)], is_last: true }),
        ),
        ("answer_refused", Message::Answer(Answer::Refused("no grant".into()))),
        ("answer_unavailable", Message::Answer(Answer::Unavailable("no quorum".into()))),
        (
            "answer_items_beside",
            Message::Answer(Answer::Items {
                items: vec![beside(Core::State(7)), next(beside(Core::Gone))],
                is_last: false,
            }),
        ),
    ];
    messages.into_iter().map(|(name, message)| (name, Frame { stream: 3, message })).collect()
}

/// One of each frame about buckets, by name.
fn bucket_examples() -> Vec<(&'static str, Frame)> {
    let stamp = storage_engine::version::Stamp::new(Hlc::from_millis(1_700_000_000_000), Origin::new("ams"));
    let document = |kind, text: Option<&str>| Document { kind, stamp: stamp.clone(), text: text.map(str::to_owned) };
    let ask = BucketAsk {
        link: "rule/bucket".into(),
        epoch: 9,
        bucket: "logs".into(),
        documents: vec![document(DocumentKind::Cors, Some("<CORSConfiguration/>")), document(DocumentKind::Tags, None)],
        relayed: true,
        unknown: Fields::default(),
    };
    let state = BucketState { versioned: true, object_lock: true, refused: Some("no grant".into()) };
    let messages = vec![
        ("bucket", Message::Bucket(Box::new(ask))),
        ("answer_bucket", Message::Answer(Answer::Bucket(Some(state)))),
        ("answer_no_bucket", Message::Answer(Answer::Bucket(None))),
    ];
    messages.into_iter().map(|(name, message)| (name, Frame { stream: 3, message })).collect()
}

/// One of each frame of large versions, by name.
fn pieces_examples() -> Vec<(&'static str, Frame)> {
    let portioned = |portion, body| {
        let Message::Put(mut whole) = put(body) else { unreachable!("made as a Put") };
        whole.portion = portion;
        Message::Put(whole)
    };
    let piece = Portion::Piece { piece_bytes: 8 << 20, number: 7, crc64nvme: 42 };
    let messages = vec![
        ("put_piece", portioned(piece, PutBody::Streamed)),
        ("put_assemble", portioned(Portion::Assemble { piece_bytes: 8 << 20 }, PutBody::None)),
        ("ack_needs_pieces", Message::Ack(Ack::NeedsPieces { held: vec![0, 2, 9_999] })),
    ];
    messages.into_iter().map(|(name, message)| (name, Frame { stream: 3, message })).collect()
}

/// One of each frame of reads, by name.
fn read_examples() -> Vec<(&'static str, Frame)> {
    let read = |version_id| Read {
        bucket: "logs".into(),
        key: "a/key".into(),
        version_id,
        offset: 5,
        bytes: 3,
        unknown: Fields::default(),
    };
    let found = Found::Version { version: Box::new(version()), bytes: Bytes::from_static(b"abc") };
    let messages = vec![
        ("read", Message::Read(Box::new(read(Some(VersionId::from_bytes([7; 16])))))),
        ("read_latest", Message::Read(Box::new(read(None)))),
        ("found", Message::Found(found)),
        ("found_nothing", Message::Found(Found::Nothing)),
        ("found_refused", Message::Found(Found::Refused("no grant".into()))),
        ("found_unavailable", Message::Found(Found::Unavailable("no quorum".into()))),
    ];
    messages.into_iter().map(|(name, message)| (name, Frame { stream: 3, message })).collect()
}

/// One of each frame of contents, by name.
fn contents_examples() -> Vec<(&'static str, Frame)> {
    let span = |bytes| Span { key: "a/key".into(), version_id: VersionId::from_bytes([7; 16]), offset: 5, bytes };
    let ask = ContentAsk { bucket: "logs".into(), spans: vec![span(3)], unknown: Fields::default() };
    let told = vec![Content::Hash([9; 32]), Content::Absent, Content::Unreadable("lost".into())];
    let messages = vec![
        ("contents", Message::Contents(Box::new(ask))),
        ("answer_contents", Message::Answer(Answer::Contents(told))),
    ];
    messages.into_iter().map(|(name, message)| (name, Frame { stream: 3, message })).collect()
}

#[test]
fn no_more_bytes_are_asked_for_than_are_read_at_once() {
    let asks = |bytes: &[u64]| {
        let id = VersionId::from_bytes([7; 16]);
        let span = |bytes: &u64| Span { key: "k".into(), version_id: id, offset: 0, bytes: *bytes };
        let spans = bytes.iter().map(span).collect();
        let ask = ContentAsk { bucket: "logs".into(), spans, unknown: Fields::default() };
        let frame = Frame { stream: 3, message: Message::Contents(Box::new(ask)) }.encode().unwrap();
        Frame::decode(&mut BytesMut::from(&frame[..])).is_ok()
    };
    let most = content::SPAN_BYTES_MAX;
    assert!(asks(&[most]) && asks(&[most, most]));
    assert!(!asks(&[most + 1]) && !asks(&[most, most, 1]) && !asks(&[u64::MAX, 1]));
}

fn all_examples() -> Vec<(&'static str, Frame)> {
    examples()
        .into_iter()
        .chain(reconcile_examples())
        .chain(bucket_examples())
        .chain(pieces_examples())
        .chain(read_examples())
        .chain(contents_examples())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn frames_have_the_bytes_of_the_first_release() {
    let now: String =
        examples().iter().map(|(name, frame)| format!("{name} {}\n", hex(&frame.encode().unwrap()))).collect();
    assert_eq!(now, GOLDEN, "frames changed on the wire");
    let reconcile = reconcile_examples();
    let now: String =
        reconcile.iter().map(|(name, frame)| format!("{name} {}\n", hex(&frame.encode().unwrap()))).collect();
    assert_eq!(now, GOLDEN_RECONCILE, "frames changed on the wire");
    let now: String =
        bucket_examples().iter().map(|(name, frame)| format!("{name} {}\n", hex(&frame.encode().unwrap()))).collect();
    assert_eq!(now, GOLDEN_BUCKET, "frames changed on the wire");
    // Those of large versions and of reads came later still.
    let later = [("pieces", pieces_examples()), ("read", read_examples()), ("contents", contents_examples())];
    for (file, examples) in later {
        let golden = format!("{}/tests/golden/peer_frames_{file}.txt", env!("CARGO_MANIFEST_DIR"));
        let line = |(name, frame): &(&str, Frame)| format!("{name} {}\n", hex(&frame.encode().unwrap()));
        let now: String = examples.iter().map(line).collect();
        assert_eq!(now, std::fs::read_to_string(golden).unwrap(), "frames changed on the wire");
    }
}

#[test]
fn more_ranges_than_a_question_may_hold_are_refused() {
    let ranges = vec![KeyRange::default(); reconcile::RANGES_MAX + 1];
    let bytes = Frame { stream: 3, message: question(Ask::Digests(ranges)) }.encode().unwrap();
    assert!(matches!(Frame::decode(&mut BytesMut::from(&bytes[..])), Err(Error::Malformed(_))));
}

/// Encodes a list of `count` empty values as field `key` of otherwise empty fields.
fn crowded(key: u32, count: usize, value: u8) -> Vec<u8> {
    let mut bytes = vec![0xa1, key as u8, 0x9a];
    bytes.extend_from_slice(&(count as u32).to_be_bytes());
    bytes.resize(bytes.len() + count, value);
    bytes
}

#[test]
fn a_frame_full_of_empty_values_is_refused_before_they_are_all_read() {
    let said = |kind, payload: &[u8]| Message::parse(kind, 0, payload).unwrap_err().to_string();
    let millions = FRAME_BYTES_MAX - 64;
    for (kind, key, value) in [(kind::HELLO, 5, 0x60), (kind::HELLO, 4, 0x60)] {
        let why = said(kind, &crowded(key, millions, value));
        assert!(why.contains("longer than allowed"), "field {key}: {why}");
    }
    // As many fields as fit, instead of as many values.
    let mut fields = vec![0xba];
    fields.extend_from_slice(&(millions as u32 / 2).to_be_bytes());
    fields.resize(millions, 0);
    let why = said(kind::HELLO, &fields);
    assert!(why.contains("fields in one map"), "{why}");
    // An announced length alone takes nothing.
    let why = said(kind::HELLO, &[0xa1, 5, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert!(why.contains("end of input"), "{why}");
}

#[test]
fn a_frame_of_a_later_type_is_read_and_passed_over() {
    let mut line = BytesMut::from(&[0, 0, 0, 9, 99, 0, 0, 0, 0, 1, b'a', b'b', b'c'][..]);
    line.extend_from_slice(&Frame::connection(Message::Ping(7)).encode().unwrap());
    let (unknown, _) = Frame::decode(&mut line).unwrap().unwrap();
    assert_eq!(unknown, Frame { stream: 1, message: Message::Unknown(99) });
    let (ping, _) = Frame::decode(&mut line).unwrap().unwrap();
    assert_eq!(ping, Frame::connection(Message::Ping(7)));
}

#[test]
fn every_frame_comes_back_as_it_went() {
    let mut line = BytesMut::new();
    for (_, frame) in all_examples() {
        line.extend_from_slice(&frame.encode().unwrap());
    }
    for (name, frame) in all_examples() {
        let (read, _) = Frame::decode(&mut line).unwrap().unwrap();
        assert_eq!(read, frame, "{name}");
    }
    assert!(line.is_empty());
}

#[test]
fn a_frame_is_read_only_when_whole_and_costs_what_its_sender_counts() {
    for (name, frame) in examples() {
        let bytes = frame.encode().unwrap();
        for cut in 0..bytes.len() {
            assert_eq!(Frame::decode(&mut BytesMut::from(&bytes[..cut])), Ok(None), "{name} cut at {cut}");
        }
        let (_, cost) = Frame::decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
        assert_eq!(cost, credit_cost(&bytes), "{name}");
    }
}

#[test]
fn a_frame_moves_to_another_stream_unchanged() {
    let frame = Frame { stream: 0, message: put(PutBody::Streamed) };
    let moved = Frame { stream: 0x0102_0304, ..frame.clone() };
    assert_eq!(on_stream(frame.encode().unwrap(), 0x0102_0304), moved.encode().unwrap());
}

#[test]
fn an_oversized_frame_is_refused_by_its_length_alone() {
    let mut line = BytesMut::from(&(FRAME_BYTES_MAX as u32 + 1).to_be_bytes()[..]);
    assert_eq!(Frame::decode(&mut line), Err(Error::Oversized { bytes: FRAME_BYTES_MAX as u64 + 1 }));
    let data = Message::Data(Bytes::from(vec![0; FRAME_BYTES_MAX]));
    assert!(matches!(Frame { stream: 1, message: data }.encode(), Err(Error::Oversized { .. })));
}

#[test]
fn fields_of_a_later_version_survive() {
    let Message::Put(mut put) = put(PutBody::None) else { unreachable!("made as a Put") };
    put.unknown.put(900, &"later".to_string());
    put.version.unknown.put(901, &7u64);
    let hello = Hello { unknown: put.unknown.clone(), site: "ams".into(), ..Hello::default() };
    for message in [Message::Put(put), Message::Hello(hello)] {
        let frame = Frame { stream: 1, message };
        let bytes = frame.encode().unwrap();
        let (read, _) = Frame::decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
        assert_eq!(read, frame);
        assert_eq!(read.encode().unwrap(), bytes);
    }
}

#[test]
fn bytes_where_the_flags_promise_none_are_refused() {
    let mut bytes = BytesMut::from(&put(PutBody::Inline(Bytes::from_static(b"abc"))).parts().2[..]);
    bytes.extend_from_slice(b"abc");
    assert!(Message::parse(kind::PUT, 0, &bytes).is_err());
    assert!(Message::parse(kind::PUT, flag::PUT_BODY_STREAMED, &bytes).is_err());
    assert!(Message::parse(kind::PUT, 3, &bytes).is_err());
    assert!(Message::parse(kind::PUT, flag::PUT_BODY_INLINE, &bytes).is_ok());
}

proptest! {
    /// A line is cut into reads anywhere, damaged anywhere, and goes on with anything: what was read until an error is
    /// what was sent, and the buffer never holds more than was put into it.
    #[test]
    fn a_line_of_frames_is_read_however_it_is_cut_and_damaged(
        order in proptest::collection::vec(0usize..38, 1..12),
        reads in proptest::collection::vec(1usize..200, 1..64),
        damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        tail in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let all: Vec<_> = all_examples().into_iter().map(|(_, frame)| frame).collect();
        let sent: Vec<Frame> = order.iter().map(|which| all[*which].clone()).collect();
        let mut bytes: Vec<u8> = sent.iter().flat_map(|frame| frame.encode().unwrap()).collect();
        let whole = bytes.len();
        bytes.extend_from_slice(&tail);
        let damaged = damage.map(|(at, byte)| (at.index(bytes.len()), byte));
        if let Some((at, byte)) = damaged {
            bytes[at] = byte;
        }
        let intact = damaged.map_or(whole, |(at, _)| at.min(whole));
        let (mut line, mut read, mut put_in, mut taken) = (BytesMut::new(), Vec::new(), 0, 0);
        let mut sizes = reads.iter().cycle();
        'line: while put_in < bytes.len() {
            let end = (put_in + sizes.next().expect("it never ends")).min(bytes.len());
            line.extend_from_slice(&bytes[put_in..end]);
            put_in = end;
            loop {
                let before = line.len();
                match Frame::decode(&mut line) {
                    Ok(Some((frame, cost))) => {
                        let size = before - line.len();
                        taken += size;
                        prop_assert!(cost as u64 == size as u64 - 10 + CREDIT_PER_FRAME as u64);
                        if taken <= intact {
                            read.push(frame);
                        }
                    }
                    Ok(None) => break,
                    Err(_) => break 'line,
                }
            }
        }
        prop_assert!(read.len() <= sent.len());
        prop_assert_eq!(&read[..], &sent[..read.len()]);
        if damaged.is_none() {
            prop_assert_eq!(read.len(), sent.len(), "every frame of a whole line is read");
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Frame::decode(&mut BytesMut::from(&bytes[..]));
    }

    #[test]
    fn no_payload_makes_the_parser_panic(
        kind in 0u8..15, flags in any::<u8>(), payload in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = Message::parse(kind, flags, &payload);
    }

    #[test]
    fn a_damaged_frame_is_refused_or_read_but_never_a_panic(
        which in 0usize..38, at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let all = all_examples();
        let mut bytes = BytesMut::from(&all[which].1.encode().unwrap()[..]);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Some((frame, _))) = Frame::decode(&mut bytes) {
            prop_assert!(frame.encode().is_ok());
        }
    }
}
