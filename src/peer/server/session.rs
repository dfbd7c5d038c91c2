//! One proven connection: its versions go to the receiver side by side, their acks go back as they come.
//!
//! Memory stays within the windows given in Hello: what arrives is charged, what the store consumed is
//! given back. Never decides whether a version is allowed. Called by `server.rs`.
use super::{Known, Refusal, Server};
use crate::link::planted::{self, Planted};
use crate::link::{Reason, Why};
use crate::peer::connection::{Ended, FrameReader, Outbox, Outgoing, PING_INTERVAL, Window};
use crate::peer::frame::read::{Found, Read};
use crate::peer::frame::reconcile::Answer;
use crate::peer::frame::{Frame, Message, Put, PutBody};
use crate::peer::{Ack, Incoming};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use storage_engine::object::Body;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Questions about ranges of keys answered at once: each reads the store from its drives.
const QUESTIONS_AT_ONCE: usize = 2;
/// Questions of one connection that wait or are answered; a peer that obeys asks a few pages at once.
const QUESTIONS_MAX: usize = 64;
/// Reads answered at once, each with at most half a MiB in memory.
const READS_AT_ONCE: usize = 4;
/// Reads of one connection that wait or are answered; a peer that obeys has a quarter of it under way.
const READS_MAX: usize = 64;
/// How long the last frames may take to leave.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// When a version that came after Goodbye is worth another try: the sender will have connected anew.
const RETRY_AFTER_GOODBYE_MS: u64 = 500;

/// One connection past Hello.
pub(super) struct Session {
    server: Arc<Server>,
    pub(super) known: Known,
    uri: String,
    outbox: Outbox,
    /// What all streams together may still send.
    window: Window,
    streams: Mutex<HashMap<u32, StreamState>>,
    /// A stream went away; whoever drains looks whether it was the last.
    fewer: Notify,
    receives: Semaphore,
    questions: Semaphore,
    questions_waiting: AtomicUsize,
    /// A lane of their own: a client waits for them, and comparing takes its time.
    reads: Semaphore,
    reads_waiting: AtomicUsize,
    lifetime: Duration,
    /// Cancelled when the connection is over: the writer flushes and goes.
    over: CancellationToken,
    tasks: TaskTracker,
}

/// A version between its Put and both its ack and its End.
struct StreamState {
    acked: bool,
    /// The body that is still arriving.
    body: Option<(mpsc::UnboundedSender<Piece>, Arc<Window>)>,
}

/// What a body's stream is told. The channel needs no bound of its own: the stream's window is one.
enum Piece {
    Data(Bytes, usize),
    End,
    Aborted,
}

impl Session {
    pub(super) fn new(
        server: Arc<Server>,
        known: Known,
        uri: String,
        outbox: Outbox,
        lifetime: Duration,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Session {
            window: Window::new(server.settings.windows.connection_bytes),
            receives: Semaphore::new(server.settings.receives_max),
            questions: Semaphore::new(QUESTIONS_AT_ONCE),
            questions_waiting: AtomicUsize::new(0),
            reads: Semaphore::new(READS_AT_ONCE),
            reads_waiting: AtomicUsize::new(0),
            server,
            known,
            uri,
            outbox,
            streams: Mutex::default(),
            fewer: Notify::new(),
            lifetime,
            over: CancellationToken::new(),
            tasks,
        })
    }

    /// Writes until the connection is over; then what waits, and the end of TLS.
    pub(super) async fn write(self: Arc<Self>, mut outgoing: Outgoing, mut line: impl AsyncWrite + Unpin) {
        let written = self.server.counters.bytes_out.clone();
        if self.over.run_until_cancelled(outgoing.write_to(&mut line, &written)).await.is_some() {
            self.over.cancel();
            return;
        }
        let farewell = async {
            outgoing.flush_to(&mut line).await.ok();
            line.shutdown().await.ok();
        };
        let _ = tokio::time::timeout(FAREWELL_MAX, farewell).await;
    }

    /// Reads until the connection ends, and says why it did. What was handed to the receiver goes on.
    pub(super) async fn run<R>(self: &Arc<Self>, mut reader: FrameReader<R>, stop: CancellationToken) -> Ended
    where
        R: AsyncRead + Unpin,
    {
        let ended = self.attend(&mut reader, stop).await;
        // Bodies whose End has not come see their channel close: an error, never a short body.
        self.streams().clear();
        self.over.cancel();
        if matches!(ended, Ended::Goodbye(_)) {
            // A line closed over unread bytes is reset, and the reset may overtake the last acks.
            let _ = tokio::time::timeout(FAREWELL_MAX, reader.discard()).await;
        }
        ended
    }

    async fn attend<R>(self: &Arc<Self>, reader: &mut FrameReader<R>, stop: CancellationToken) -> Ended
    where
        R: AsyncRead + Unpin,
    {
        let mut ping = tokio::time::interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut pings = 0;
        let mut leave_at = Instant::now() + self.lifetime;
        let mut leaving = None;
        loop {
            let reason = tokio::select! {
                frame = reader.next() => {
                    match frame.and_then(|(frame, cost)| self.hear(frame, cost, leaving.is_some())) {
                        Ok(()) => None,
                        Err(ended) => return ended,
                    }
                }
                _ = ping.tick() => {
                    pings += 1;
                    self.outbox.control(&Frame::connection(Message::Ping(pings)));
                    if (self.server.resolver)(&self.uri).as_ref() != Some(&self.known) {
                        return Ended::Goodbye("this site does not know the peer any more".into());
                    }
                    None
                }
                () = self.over.cancelled() => return Ended::Closed,
                () = stop.cancelled(), if leaving.is_none() => Some("this site stops"),
                () = tokio::time::sleep_until(leave_at) => match leaving {
                    None => Some("the connection is old"),
                    Some(reason) => return Ended::Goodbye(format!("{reason}; versions under way were cut")),
                },
                () = self.fewer.notified(), if leaving.is_some() => None,
            };
            if let Some(reason) = reason {
                self.outbox.control(&Frame::connection(Message::Goodbye(reason.into())));
                leaving = Some(reason);
                leave_at = Instant::now() + self.server.settings.drain;
            }
            if let Some(reason) = leaving
                && (self.streams().is_empty() || planted::has(Planted::GoodbyeBeforeAcks))
            {
                return Ended::Goodbye(reason.into());
            }
        }
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u32, StreamState>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(self: &Arc<Self>, frame: Frame, cost: usize, leaving: bool) -> Result<(), Ended> {
        self.outbox.check_waiting()?;
        let stream = frame.stream;
        match frame.message {
            Message::Put(put) => self.hear_put(stream, *put, cost, leaving),
            Message::Data(bytes) => self.hear_data(stream, bytes, cost),
            Message::End { aborted } => self.hear_end(stream, aborted),
            Message::Hello(hello) => {
                self.clone().answer(stream, hello.links);
                Ok(())
            }
            Message::Ping(number) => {
                let clock_millis = Some(self.server.clock.now_millis());
                self.outbox.control(&Frame::connection(Message::Pong { number, clock_millis }));
                Ok(())
            }
            Message::Pong { .. } => Ok(()),
            Message::Goodbye(_) => Err(Ended::Closed),
            Message::Question(question) => {
                let session = self.clone();
                self.clone().hear_question(stream, async move {
                    session.server.receiver.answer(&session.known.site, &session.known.peer, *question).await
                })
            }
            Message::Bucket(ask) => {
                let session = self.clone();
                self.clone().hear_question(stream, async move {
                    session.server.receiver.bucket(&session.known.site, &session.known.peer, *ask).await
                })
            }
            Message::Contents(ask) => {
                let session = self.clone();
                self.clone().hear_question(stream, async move {
                    session.server.receiver.contents(&session.known.site, &session.known.peer, *ask).await
                })
            }
            Message::Drill(ask) => {
                let session = self.clone();
                self.clone().hear_question(stream, async move {
                    session.server.receiver.drill(&session.known.site, &session.known.peer, *ask).await
                })
            }
            Message::Unknown(_) => {
                self.server.counters.refuse(Refusal::UnknownFrame);
                Ok(())
            }
            Message::Read(read) => self.clone().hear_read(stream, *read),
            Message::Ack(_) | Message::Credit(_) | Message::Answer(_) | Message::Found(_) => {
                Err(Ended::Protocol("a frame only receivers send"))
            }
        }
    }

    /// Answers a question for epochs; it may have to ask the journal, so it has a task of its own.
    fn answer(self: Arc<Self>, stream: u32, links: Vec<String>) {
        self.tasks.clone().spawn(async move {
            let Ok(_turn) = self.receives.acquire().await else { return };
            let message = self.server.hello(&self.known.site, &links).await;
            self.outbox.control(&Frame { stream, message });
        });
    }

    /// Answers a question, on a task of its own that ends with the connection.
    fn hear_question(
        self: Arc<Self>,
        stream: u32,
        answer: impl Future<Output = Answer> + Send + 'static,
    ) -> Result<(), Ended> {
        if self.questions_waiting.fetch_add(1, Ordering::AcqRel) >= QUESTIONS_MAX {
            return Err(Ended::Protocol("more questions at once than are answered"));
        }
        self.tasks.clone().spawn(async move {
            let answered = async {
                let _turn = self.questions.acquire().await.ok()?;
                Some(answer.await)
            };
            if let Some(Some(answer)) = self.over.run_until_cancelled(answered).await {
                let fits = Frame { stream, message: Message::Answer(answer) };
                let too_large = || Frame {
                    stream,
                    message: Message::Answer(Answer::Unavailable("the answer fits no frame".into())),
                };
                self.outbox.control(&if fits.encode().is_ok() { fits } else { too_large() });
            }
            self.questions_waiting.fetch_sub(1, Ordering::AcqRel);
        });
        Ok(())
    }

    /// Lends a version, on a task of its own; its bytes wait for room among frames that carry data.
    fn hear_read(self: Arc<Self>, stream: u32, read: Read) -> Result<(), Ended> {
        if self.reads_waiting.fetch_add(1, Ordering::AcqRel) >= READS_MAX {
            return Err(Ended::Protocol("more reads at once than are answered"));
        }
        self.tasks.clone().spawn(async move {
            let lent = async {
                let _turn = self.reads.acquire().await.ok()?;
                let found = self.server.receiver.lend(&self.known.peer, read).await;
                let fits = Frame { stream, message: Message::Found(found) }.encode();
                let too_large =
                    || Frame { stream, message: Message::Found(Found::Unavailable("the answer fits no frame".into())) };
                let frame = fits.or_else(|_| too_large().encode()).ok()?;
                let room = self.outbox.room(&frame).await.ok()?;
                self.outbox.data(frame, room);
                Some(())
            };
            let _ = self.over.run_until_cancelled(lent).await;
            self.reads_waiting.fetch_sub(1, Ordering::AcqRel);
        });
        Ok(())
    }

    fn hear_put(self: &Arc<Self>, stream: u32, put: Put, cost: usize, leaving: bool) -> Result<(), Ended> {
        self.charge(cost)?;
        let (sender, body) = match &put.body {
            PutBody::Streamed => {
                let window = Arc::new(Window::new(self.server.settings.windows.stream_bytes));
                let (tell, told) = mpsc::unbounded_channel();
                let body = Arriving { session: self.clone(), stream, window: window.clone(), told, over: false };
                (Some((tell, window)), Some(body.boxed()))
            }
            PutBody::Inline(bytes) => {
                let bytes = bytes.clone();
                (None, Some(futures::stream::once(async move { Ok(bytes) }).boxed()))
            }
            PutBody::None => (None, None),
        };
        {
            let mut streams = self.streams();
            if stream == 0 || streams.len() >= self.server.settings.windows.streams as usize {
                return Err(Ended::Protocol("more versions in flight than allowed"));
            }
            if streams.insert(stream, StreamState { acked: false, body: sender }).is_some() {
                return Err(Ended::Protocol("a stream twice"));
            }
        }
        if leaving {
            let why = Why::new(Reason::Unavailable, "the connection is closing");
            drop(body);
            self.acked(stream, Ack::Retry { after_ms: RETRY_AFTER_GOODBYE_MS, why }, cost);
            return Ok(());
        }
        self.server.counters.versions.fetch_add(1, Ordering::Relaxed);
        let session = self.clone();
        self.tasks.spawn(async move { session.receive(stream, put, body, cost).await });
        Ok(())
    }

    /// Hands one version over. Runs to its end even when the connection goes: what was whole is kept.
    async fn receive(&self, stream: u32, put: Put, body: Option<Body>, cost: usize) {
        let Ok(_turn) = self.receives.acquire().await else { return };
        let incoming = Incoming {
            site: self.known.site.clone(),
            peer: self.known.peer.clone(),
            link: put.link,
            epoch: put.epoch,
            bucket: put.bucket,
            version: put.version,
            body,
            portion: put.portion,
            traceparent: put.traceparent,
            relayed: put.relayed,
        };
        let ack = self.server.receiver.receive(incoming).await;
        self.acked(stream, ack, cost);
    }

    /// Sends the ack and gives the stream up in one step: the sender may fill its place at once, and a
    /// connection that leaves when the last stream is gone takes its ack along.
    fn acked(&self, stream: u32, ack: Ack, cost: usize) {
        self.give_back(cost);
        {
            let mut streams = self.streams();
            if let Some(state) = streams.get_mut(&stream) {
                state.acked = true;
                if state.body.is_none() {
                    streams.remove(&stream);
                }
            }
            self.outbox.control(&Frame { stream, message: Message::Ack(ack) });
        }
        self.fewer.notify_one();
    }

    fn hear_data(&self, stream: u32, bytes: Bytes, cost: usize) -> Result<(), Ended> {
        self.charge(cost)?;
        let told = match self.streams().get(&stream) {
            Some(StreamState { body: Some((tell, window)), .. }) => {
                if !window.arrived(cost) {
                    return Err(Ended::Protocol("more bytes on a stream than credit"));
                }
                tell.send(Piece::Data(bytes, cost)).is_ok()
            }
            _ => return Err(Ended::Protocol("Data on no open stream")),
        };
        if !told {
            // The receiver made up its mind without the rest.
            self.give_back(cost);
        }
        Ok(())
    }

    fn hear_end(&self, stream: u32, aborted: bool) -> Result<(), Ended> {
        let mut streams = self.streams();
        let state = streams.get_mut(&stream).ok_or(Ended::Protocol("End on no open stream"))?;
        let (tell, _) = state.body.take().ok_or(Ended::Protocol("End on no open stream"))?;
        let _ = tell.send(if aborted { Piece::Aborted } else { Piece::End });
        if state.acked {
            streams.remove(&stream);
        }
        drop(streams);
        self.fewer.notify_one();
        Ok(())
    }

    fn charge(&self, cost: usize) -> Result<(), Ended> {
        if self.window.arrived(cost) { Ok(()) } else { Err(Ended::Protocol("more bytes than credit")) }
    }

    fn give_back(&self, cost: usize) {
        if let Some(credit) = self.window.consumed(cost) {
            self.outbox.control(&Frame::connection(Message::Credit(credit)));
        }
    }
}

/// The body of a streamed version; reading it gives credit back.
struct Arriving {
    session: Arc<Session>,
    stream: u32,
    window: Arc<Window>,
    told: mpsc::UnboundedReceiver<Piece>,
    over: bool,
}

impl Stream for Arriving {
    type Item = Result<Bytes, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let cut = |why| Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, why)));
        let next = match std::task::ready!(self.told.poll_recv(cx)) {
            Some(Piece::Data(bytes, cost)) => {
                if let Some(credit) = self.window.consumed(cost) {
                    let message = Message::Credit(credit);
                    self.session.outbox.control(&Frame { stream: self.stream, message });
                }
                self.session.give_back(cost);
                return Poll::Ready(Some(Ok(bytes)));
            }
            Some(Piece::End) => None,
            Some(Piece::Aborted) => cut("the sender gave the body up"),
            None if planted::has(Planted::CutBodyTakenForWhole) => None,
            None => cut("the connection ended within the body"),
        };
        self.over = true;
        Poll::Ready(next)
    }
}

/// What nobody will read is given back to the connection.
impl Drop for Arriving {
    fn drop(&mut self) {
        self.told.close();
        while let Ok(piece) = self.told.try_recv() {
            if let Piece::Data(_, cost) = piece {
                self.session.give_back(cost);
            }
        }
    }
}
