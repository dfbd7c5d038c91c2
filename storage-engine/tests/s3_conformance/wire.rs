//! What goes over the socket besides S3: connections that are kept, heads without bodies, answers in between.
use crate::client::{Answer, Call, Store};
use std::time::Duration;
use storage_engine::config::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Far beyond what a test waits for.
const DEADLINE: Duration = Duration::from_secs(20);

/// One connection, read answer by answer.
struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    async fn open(store: &Store) -> Wire {
        Wire { stream: TcpStream::connect(store.addr).await.unwrap(), unread: Vec::new() }
    }
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }
    /// More bytes; false at the end.
    async fn more(&mut self) -> bool {
        timeout(DEADLINE, self.stream.read_buf(&mut self.unread)).await.expect("bytes in time").unwrap() > 0
    }
    /// The head of the next answer, without its empty line.
    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(self.more().await, "the connection ended: {}", String::from_utf8_lossy(&self.unread));
        }
    }
    /// The next answer; of HEAD its head alone.
    async fn answer(&mut self, is_head: bool) -> Answer {
        let head = self.head().await;
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
        let length: usize = if is_head { 0 } else { length };
        while self.unread.len() < length {
            assert!(self.more().await, "the body ended early");
        }
        let body: Vec<u8> = self.unread.drain(..length).collect();
        Answer::parse(&[head.as_bytes(), &body].concat(), is_head)
    }
    async fn ends(&mut self) {
        while self.more().await {}
        assert!(self.unread.is_empty(), "{}", String::from_utf8_lossy(&self.unread));
    }
}

fn kept(store: &Store, call: Call) -> Vec<u8> {
    call.header("connection", "keep-alive").sign(store.addr)
}

#[tokio::test]
async fn one_connection_answers_many_requests_in_order() {
    let store = Store::with_bucket().await;
    let mut wire = Wire::open(&store).await;
    wire.send(&kept(&store, Call::new("PUT", "/box/k").body(b"hello"))).await;
    let first = wire.answer(false).await.expect(200);
    assert!(first.header("date").ends_with(" GMT"));
    wire.send(&kept(&store, Call::new("HEAD", "/box/k"))).await;
    let head = wire.answer(true).await.expect(200);
    assert_eq!(head.header("content-length"), "5", "HEAD says how long and sends nothing");
    wire.send(&kept(&store, Call::new("HEAD", "/box/absent"))).await;
    wire.answer(true).await.expect(404);
    wire.send(&kept(&store, Call::new("GET", "/box/absent"))).await;
    let absent = wire.answer(false).await.error(404, "NoSuchKey");
    assert_ne!(absent.header("x-amz-request-id"), first.header("x-amz-request-id"));
    assert_eq!(absent.one("RequestId"), absent.header("x-amz-request-id"));
    let two = [kept(&store, Call::new("GET", "/box/k")), kept(&store, Call::new("GET", "/box/absent"))].concat();
    wire.send(&two).await;
    assert_eq!(wire.answer(false).await.expect(200).body, b"hello");
    wire.answer(false).await.expect(404);
    wire.send(&Call::new("GET", "/box/k").sign(store.addr)).await;
    assert_eq!(wire.answer(false).await.expect(200).header("connection"), "close");
    wire.ends().await;
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on_or_why_not() {
    let store = Store::with_bucket().await;
    let asks = || Call::new("PUT", "/box/k").body(b"hello").header("expect", "100-continue");
    let split = |request: &[u8]| {
        let at = request.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        (request[..at].to_vec(), request[at..].to_vec())
    };
    let (head, body) = split(&kept(&store, asks()));
    let mut wire = Wire::open(&store).await;
    wire.send(&head).await;
    assert_eq!(wire.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    wire.send(&body).await;
    wire.answer(false).await.expect(200);
    let mut forged = asks();
    forged.secret_key = "another secret".into();
    let mut wire = Wire::open(&store).await;
    wire.send(&split(&kept(&store, forged)).0).await;
    let refused = wire.answer(false).await.error(403, "SignatureDoesNotMatch");
    assert_eq!(refused.header("connection"), "close");
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_body_is_read_and_ends_the_connection() {
    let store = Store::with_bucket().await;
    let mut forged = Call::new("PUT", "/box/k").body(&vec![7; 8 << 20]);
    forged.secret_key = "another secret".into();
    let request = kept(&store, forged);
    let wire = Wire::open(&store).await;
    // Sends all of it before it reads: many clients do.
    let (mut reading, mut writing) = wire.stream.into_split();
    let writes = async {
        let _ = writing.write_all(&request).await;
    };
    let mut all = Vec::new();
    let (read, ()) = tokio::join!(timeout(DEADLINE, reading.read_to_end(&mut all)), writes);
    read.expect("the connection ends").expect("and is not reset");
    let answer = Answer::parse(&all, false).error(403, "SignatureDoesNotMatch");
    assert_eq!(answer.header("connection"), "close");
    // A body that was read to its end keeps its connection, whatever was wrong with it.
    let mut wire = Wire::open(&store).await;
    let wrong = Call::new("PUT", "/box/k").body(b"hello").header("content-md5", &crate::client::md5(b"other"));
    wire.send(&kept(&store, wrong)).await;
    wire.answer(false).await.error(400, "BadDigest");
    wire.send(&kept(&store, Call::new("GET", "/box/k"))).await;
    wire.answer(false).await.error(404, "NoSuchKey");
}

#[tokio::test]
async fn one_address_holds_so_many_connections_and_no_more() {
    let store = Store::with_limits(Limits { connections_per_address_max: 2, ..Limits::default() }).await;
    let get = kept(&store, Call::new("GET", "/box"));
    let mut held = Vec::new();
    while held.len() < 2 {
        // The connection that made the bucket may still be closing.
        let mut wire = Wire::open(&store).await;
        wire.send(&get).await;
        if wire.answer(false).await.status == 200 {
            held.push(wire);
        }
    }
    let mut third = Wire::open(&store).await;
    third.answer(false).await.error(503, "SlowDown");
    drop(held.pop());
    let again = async {
        loop {
            let mut wire = Wire::open(&store).await;
            let _ = wire.stream.write_all(&get).await;
            if wire.answer(false).await.status == 200 {
                return;
            }
        }
    };
    timeout(DEADLINE, again).await.expect("a place that was left is free");
}
