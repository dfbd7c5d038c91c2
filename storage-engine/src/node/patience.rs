//! A connection that does not wait for ever: for a request's head, between requests, for a reader to read.
//!
//! Bodies on their way in are not its business: while a request is under way (`Busy`) it lets reading
//! take its time, and `s3::pace` watches. hyper's own timer would close idle connections as early as late heads.
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a connection waits for its client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For a head, from the connection or the head's first byte on.
    pub(super) head: Duration,
    /// Between two requests, and for a client that reads nothing of its answer.
    pub(super) idle: Duration,
    /// At the end, for the client to stop sending: closed with bytes unread, TCP takes back the answer too.
    pub(super) linger: Duration,
}

/// As `security.md` has it. SDKs keep connections for some tens of seconds; closing before them costs a retry.
pub(super) const LIMITS: Limits =
    Limits { head: Duration::from_secs(10), idle: Duration::from_secs(60), linger: Duration::from_secs(2) };

/// Whether a request is under way: beginnings and ends of requests together, odd while one is.
#[derive(Clone, Default)]
pub(super) struct Busy(Arc<AtomicU64>);

/// Held while a request is under way.
pub(super) struct Request(Busy);

impl Busy {
    pub(super) fn request(&self) -> Request {
        self.0.fetch_add(1, Ordering::Relaxed);
        Request(self.clone())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the alarm of the reading side is set for.
#[derive(Clone, Copy, PartialEq)]
enum Wait {
    Nothing,
    Idle,
    Head,
    End,
}

/// A stream that fails with `TimedOut` when its client keeps it waiting.
pub(super) struct Patient<T> {
    io: T,
    limits: Limits,
    busy: Busy,
    /// `busy` as it was at the last read: when it moved, what was waited for is past.
    turn: u64,
    wait: Wait,
    read_alarm: Pin<Box<Sleep>>,
    /// Set while a write waits.
    is_writing: bool,
    write_alarm: Pin<Box<Sleep>>,
}

impl<T> Patient<T> {
    pub(super) fn new(io: T, limits: Limits, busy: Busy) -> Self {
        let (read_alarm, write_alarm) = (Box::pin(sleep(limits.head)), Box::pin(sleep(limits.idle)));
        Patient { io, limits, busy, turn: 0, wait: Wait::Head, read_alarm, is_writing: false, write_alarm }
    }

    fn is_busy(&mut self) -> bool {
        let turn = self.busy.0.load(Ordering::Relaxed);
        if turn != self.turn {
            self.turn = turn;
            self.wait = Wait::Nothing;
        }
        turn % 2 == 1
    }

    fn wait_for(&mut self, wait: Wait, limit: Duration) {
        self.wait = wait;
        self.read_alarm.as_mut().reset(Instant::now() + limit);
    }

    /// Watches a write: progress clears the alarm, waiting sets it.
    fn written<R>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if done.is_ready() {
            self.is_writing = false;
            if self.wait == Wait::Idle {
                self.wait = Wait::Nothing; // the idle time counts from the last byte of an answer
            }
            return done;
        }
        if !self.is_writing {
            self.is_writing = true;
            self.write_alarm.as_mut().reset(Instant::now() + self.limits.idle);
        }
        self.write_alarm.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        let done = Pin::new(&mut this.io).poll_read(context, into);
        if this.is_busy() {
            return done;
        }
        if done.is_ready() {
            // The first byte of a head starts its time, the later ones do not prolong it.
            if this.wait != Wait::Head && into.filled().len() > before {
                this.wait_for(Wait::Head, this.limits.head);
            }
            return done;
        }
        if this.wait == Wait::Nothing {
            this.wait_for(Wait::Idle, this.limits.idle);
        }
        this.read_alarm.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.io).poll_write(context, bytes);
        this.written(context, done)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.io).poll_write_vectored(context, bytes);
        this.written(context, done)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }
    /// Says that no more is sent, and reads what the client still sends into nothing until it stops.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.wait != Wait::End {
            ready!(Pin::new(&mut this.io).poll_shutdown(context))?;
            this.wait_for(Wait::End, this.limits.linger);
        }
        let mut nothing = [0; 4096];
        loop {
            let mut into = ReadBuf::new(&mut nothing);
            match Pin::new(&mut this.io).poll_read(context, &mut into) {
                Poll::Pending => return this.read_alarm.as_mut().poll(context).map(Ok),
                Poll::Ready(read) if read.is_err() || into.filled().is_empty() => return Poll::Ready(Ok(())),
                // A client that never stops is heard no longer than one that is silent.
                Poll::Ready(_) if this.read_alarm.is_elapsed() => return Poll::Ready(Ok(())),
                Poll::Ready(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    /// Short where the test waits for it to pass, beyond the test's end where it must not.
    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3600);

    fn patient(head: Duration, idle: Duration) -> (DuplexStream, Patient<DuplexStream>, Busy) {
        let (client, server) = duplex(16);
        let busy = Busy::default();
        (client, Patient::new(server, Limits { head, idle, linger: SHORT }, busy.clone()), busy)
    }
    async fn read(server: &mut Patient<DuplexStream>) -> Result<usize, io::ErrorKind> {
        server.read(&mut [0; 16]).await.map_err(|e| e.kind())
    }

    #[tokio::test]
    async fn a_head_that_drips_is_not_waited_for() {
        let (mut client, mut server, _) = patient(SHORT, LONG);
        client.write_all(b"GET").await.unwrap();
        assert_eq!(read(&mut server).await, Ok(3));
        assert_eq!(read(&mut server).await, Err(io::ErrorKind::TimedOut));
    }

    #[tokio::test]
    async fn between_requests_the_idle_time_counts_and_a_new_head_has_its_own() {
        let (mut client, mut server, busy) = patient(LONG, SHORT);
        client.write_all(b"GET").await.unwrap();
        assert_eq!(read(&mut server).await, Ok(3));
        let request = busy.request();
        assert!(tokio::time::timeout(SHORT * 3, read(&mut server)).await.is_err(), "a request may take its time");
        drop(request);
        assert_eq!(read(&mut server).await, Err(io::ErrorKind::TimedOut));
        client.write_all(b"G").await.unwrap();
        assert_eq!(read(&mut server).await, Ok(1));
        assert!(tokio::time::timeout(SHORT * 3, read(&mut server)).await.is_err(), "the head's time counts");
    }

    #[tokio::test]
    async fn a_long_request_leaves_no_alarm_behind() {
        let (mut client, mut server, busy) = patient(SHORT, LONG);
        client.write_all(b"GET").await.unwrap();
        assert_eq!(read(&mut server).await, Ok(3));
        drop(busy.request()); // nobody read while it was under way
        assert!(tokio::time::timeout(SHORT * 3, read(&mut server)).await.is_err(), "its head's time is past");
    }

    #[tokio::test]
    async fn what_a_client_still_sends_at_the_end_is_swallowed_for_a_while() {
        let (mut client, mut server, _) = patient(LONG, LONG);
        let sends = async {
            client.write_all(&[0; 64]).await.unwrap();
            drop(client);
        };
        let (ended, ()) = tokio::join!(server.shutdown(), sends);
        ended.unwrap();
        let (_silent, mut server, _) = patient(LONG, LONG);
        server.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_not_waited_for() {
        let (_client, mut server, _) = patient(LONG, SHORT);
        let written = server.write_all(&[0; 64]).await;
        assert_eq!(written.map_err(|e| e.kind()), Err(io::ErrorKind::TimedOut));
    }
}
