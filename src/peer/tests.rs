//! Two replicators on loopback, with real TLS: what arrives, what is refused, and what one slow, dead
//! or dishonest end does to the other.
mod refused;
mod rig;
mod rotation;

use super::connection::Ended;
use super::{Ack, Incoming};
use crate::link::{Reason, Why};
use futures::StreamExt;
use futures::future::join_all;
use rig::{Rig, accept_all, drain, object, outgoing, stalled, within};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, Semaphore, mpsc};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_small_versions_and_a_large_one_arrive_whole() {
    let rig = Rig::new(accept_all()).await;
    let line = rig.connect().await;
    let large = line.push(object("large", 32 * MIB));
    let small = join_all((0..1000).map(|n| line.push(object(&format!("small-{n}"), 4096))));
    let (large, small) = within(async { tokio::join!(large, small) }).await;
    assert_eq!(large.unwrap(), Ack::Applied);
    for ack in small {
        assert_eq!(ack.unwrap(), Ack::Applied);
    }
    assert_eq!(rig.counters.versions.load(Ordering::Relaxed), 1001);
}

#[tokio::test]
async fn versions_without_bytes_and_empty_ones_arrive() {
    let rig = Rig::new(accept_all()).await;
    let line = rig.connect().await;
    let mut bare = object("bare", 10);
    bare.body = None;
    assert_eq!(within(line.push(bare)).await.unwrap(), Ack::NeedsBody);
    assert_eq!(within(line.push(object("empty", 0))).await.unwrap(), Ack::Applied);
    assert_eq!(within(line.push(object("at the limit", MIB))).await.unwrap(), Ack::Applied);
    assert_eq!(within(line.push(object("above it", MIB + 1))).await.unwrap(), Ack::Applied);
}

#[tokio::test]
async fn every_word_of_the_receiver_reaches_the_push_it_answers() {
    let words = vec![
        Ack::Applied,
        Ack::AlreadyPresent,
        Ack::Superseded,
        Ack::NeedsBody,
        Ack::Refused(Why::new(Reason::Grant, "no grant")),
        Ack::Retry { after_ms: 5, why: Why::new(Reason::Unavailable, "no quorum") },
        Ack::ClockAhead { after_ms: 70_000 },
        Ack::Fenced { highest: 12 },
    ];
    let said = words.clone();
    let rig = Rig::new(move |incoming: Incoming| {
        let ack = said[incoming.version.key.parse::<usize>().unwrap()].clone();
        Box::pin(async move { ack })
    })
    .await;
    let line = rig.connect().await;
    let acks = within(join_all((0..words.len()).map(|n| line.push(object(&n.to_string(), 100))))).await;
    assert_eq!(acks.into_iter().map(Result::unwrap).collect::<Vec<_>>(), words);
}

#[tokio::test]
async fn acks_come_back_in_any_order() {
    let second_is_in = Arc::new(Notify::new());
    let seen = second_is_in.clone();
    let rig = Rig::new(move |incoming: Incoming| {
        let seen = seen.clone();
        Box::pin(async move {
            match incoming.version.key.as_str() {
                "first" => seen.notified().await,
                _ => seen.notify_one(),
            }
            Ack::Applied
        })
    })
    .await;
    let line = rig.connect().await;
    let first = line.push(object("first", 10));
    let second = line.push(object("second", 10));
    let (first, second) = within(async { tokio::join!(first, second) }).await;
    assert_eq!((first.unwrap(), second.unwrap()), (Ack::Applied, Ack::Applied));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_holds_the_sender_within_its_credit() {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let rig = Rig::new(move |incoming: Incoming| {
        let gate = waiting.clone();
        Box::pin(async move {
            if incoming.version.key == "slow" {
                let _open = gate.acquire().await;
            }
            drain(incoming).await
        })
    })
    .await;
    let line = rig.connect().await;
    let pulled = Arc::new(AtomicUsize::new(0));
    let mut slow = object("slow", 32 * MIB);
    let counting = pulled.clone();
    slow.body = slow.body.map(|body| {
        let count = move |chunk: &Result<bytes::Bytes, _>| {
            counting.fetch_add(chunk.as_ref().map_or(0, |c| c.len()), Ordering::Relaxed);
        };
        body.inspect(count).boxed()
    });
    let slow = line.push(slow);
    let others = async {
        // All of these pass while the slow body stands still: more bytes than the connection's window.
        for n in 0..48 {
            assert_eq!(line.push(object(&format!("other-{n}"), MIB)).await.unwrap(), Ack::Applied);
        }
        let held = pulled.load(Ordering::Relaxed);
        let window = crate::peer::server::Settings::default().windows.stream_bytes as usize;
        assert!(held <= window + MIB, "{held} bytes were taken from a body nobody reads");
        assert!(held >= window / 2, "the window was not used: {held}");
        gate.add_permits(1);
    };
    let (slow, ()) = within(async { tokio::join!(slow, others) }).await;
    assert_eq!(slow.unwrap(), Ack::Applied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_large_bodies_than_the_window_holds_all_arrive_at_a_slow_receiver() {
    let turns = Arc::new(Semaphore::new(2));
    let rig = Rig::new(move |incoming: Incoming| {
        let turns = turns.clone();
        Box::pin(async move {
            let _turn = turns.acquire().await;
            drain(incoming).await
        })
    })
    .await;
    let line = rig.connect().await;
    let acks = within(join_all((0..40).map(|n| line.push(object(&n.to_string(), 3 * MIB))))).await;
    assert!(acks.into_iter().all(|ack| ack.unwrap() == Ack::Applied));
}

#[tokio::test]
async fn an_early_ack_ends_the_body_and_gives_its_credit_back() {
    let rig = Rig::new(|_| Box::pin(async { Ack::AlreadyPresent })).await;
    let line = rig.connect().await;
    for n in 0..30 {
        let ack = within(line.push(object(&n.to_string(), 4 * MIB))).await;
        assert_eq!(ack.unwrap(), Ack::AlreadyPresent);
    }
}

#[tokio::test]
async fn a_connection_cut_within_a_body_is_an_error_on_both_ends() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let rig = Rig::new(move |incoming: Incoming| {
        let tell = tell.clone();
        Box::pin(async move {
            let mut body = incoming.body.unwrap();
            while let Some(chunk) = body.next().await {
                let _ = tell.send(chunk.map(|c| c.len()).map_err(|e| e.kind()));
            }
            Ack::Applied
        })
    })
    .await;
    let (line, cut) = rig.connect_through_relay().await;
    let push = line.push(stalled("cut", 8 * MIB, 2 * MIB));
    let cutter = async {
        let mut seen = 0;
        while seen < 2 * MIB {
            seen += told.recv().await.unwrap().unwrap();
        }
        cut.abort();
        loop {
            // What had arrived before the cut may still be read.
            if let Err(kind) = told.recv().await.expect("an error ends the body") {
                return kind;
            }
        }
    };
    let (pushed, heard) = within(async { tokio::join!(push, cutter) }).await;
    assert!(pushed.unwrap_err().is_peer_gone());
    assert_eq!(heard, std::io::ErrorKind::UnexpectedEof);
    assert!(within(line.push(object("after", 1))).await.unwrap_err().is_peer_gone());
    assert!(matches!(within(line.closed()).await, Ended::Closed | Ended::Io(_)));
}

#[tokio::test]
async fn a_push_dropped_half_way_hurts_no_other() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let rig = Rig::new(move |incoming: Incoming| {
        let tell = tell.clone();
        Box::pin(async move {
            let key = incoming.version.key.clone();
            let ack = drain(incoming).await;
            let _ = tell.send((key, ack.clone()));
            ack
        })
    })
    .await;
    let line = rig.connect().await;
    for n in 0..20 {
        let push = line.push(stalled(&format!("dropped-{n}"), 8 * MIB, MIB / 2));
        let short = tokio::time::timeout(std::time::Duration::from_millis(30), push).await;
        assert!(short.is_err(), "a stalled body was acked");
    }
    assert_eq!(within(line.push(object("whole", 8 * MIB))).await.unwrap(), Ack::Applied);
    let mut cut = 0;
    while cut < 20 {
        let (key, ack) = within(told.recv()).await.unwrap();
        if key.starts_with("dropped") {
            assert!(matches!(ack, Ack::Retry { .. }), "{key} was taken for whole");
            cut += 1;
        }
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_told_to_both_ends() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let rig = Rig::new(move |incoming: Incoming| {
        let tell = tell.clone();
        Box::pin(async move {
            let ack = drain(incoming).await;
            let _ = tell.send(ack.clone());
            ack
        })
    })
    .await;
    let line = rig.connect().await;
    let broken = |key, size: usize| {
        let mut version = object(key, size);
        let body = version.body.take().unwrap().take(1);
        let lost = futures::stream::once(async { Err(std::io::Error::other("a drive is lost")) });
        version.body = Some(body.chain(lost).boxed());
        version
    };
    let large = within(line.push(broken("large", 8 * MIB))).await;
    assert!(matches!(large, Err(super::client::Error::Body(_))), "{large:?}");
    assert!(matches!(within(told.recv()).await.unwrap(), Ack::Retry { .. }));
    let small = within(line.push(broken("small", MIB))).await;
    assert!(matches!(small, Err(super::client::Error::Body(_))), "{small:?}");
    assert_eq!(within(line.push(object("next", 10))).await.unwrap(), Ack::Applied);
}

#[tokio::test]
async fn the_highest_epoch_of_a_link_is_told_on_request() {
    let rig = Rig::new(accept_all()).await;
    let line = rig.connect().await;
    assert_eq!(within(line.highest_epoch("rule/bucket")).await.unwrap(), rig::EPOCH);
    assert!(
        within(async {
            while line.rtt().is_none() {
                tokio::task::yield_now().await;
            }
            line.rtt().unwrap()
        })
        .await
        .as_micros()
            > 0
    );
}

#[tokio::test]
async fn a_site_that_stops_says_goodbye_and_finishes_what_is_under_way() {
    let gate = Arc::new(Notify::new());
    let (waiting, arrived) = (gate.clone(), Arc::new(Notify::new()));
    let tell = arrived.clone();
    let rig = Rig::new(move |_| {
        let (gate, tell) = (waiting.clone(), tell.clone());
        Box::pin(async move {
            tell.notify_one();
            gate.notified().await;
            Ack::Applied
        })
    })
    .await;
    let line = rig.connect().await;
    let stopping = async {
        arrived.notified().await;
        rig.stop.cancel();
        // New versions are turned away, at the latest by the receiver.
        while line.push(object("late", 10)).await.is_ok_and(|ack| matches!(ack, Ack::Retry { .. })) {}
        gate.notify_one();
    };
    let (under_way, ()) = within(async { tokio::join!(line.push(object("under way", 10)), stopping) }).await;
    assert_eq!(under_way.unwrap(), Ack::Applied);
    assert!(matches!(within(line.closed()).await, Ended::Goodbye(_)));
    drop(line);
    rig.tasks.close();
    within(rig.tasks.wait()).await;
}

#[tokio::test]
async fn a_dropped_connection_leaves_no_task_behind() {
    let rig = Rig::new(accept_all()).await;
    drop(rig.connect().await);
    rig.client_tasks.close();
    within(rig.client_tasks.wait()).await;
    within(async {
        while rig.counters.connections_open.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// `cargo test -p isthmus measure_small_versions -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_small_versions_a_second() {
    let rig = Rig::new(|_| Box::pin(async { Ack::Applied })).await;
    let line = rig.connect().await;
    let (total, workers) = (100_000, 512);
    let bytes = bytes::Bytes::from(vec![7u8; 4096]);
    let started = std::time::Instant::now();
    let pushes = (0..workers).map(|_| async {
        for _ in 0..total / workers {
            line.push(outgoing("key", bytes.clone())).await.unwrap();
        }
    });
    join_all(pushes).await;
    let took = started.elapsed();
    println!("{:.0} versions/s of 4 KiB, {workers} in flight", f64::from(total) / took.as_secs_f64());
}
