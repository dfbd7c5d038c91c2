//! What both ends of a connection share: one task that writes frames and coalesces them, reading with a
//! limit on silence, and the credit a receiver gives back.
//!
//! Never decides what a frame means: `client.rs` and `server.rs` do, and they alone call this.
use super::frame::{self, CREDIT_PER_FRAME, Frame, Message, Windows};
use crate::link::planted::{self, Planted};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

/// How often each end pings. Source: replication.md section 5.
pub const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Silence after which a sender counts its peer as down; any bytes break it, so that a slow line is none.
pub const SILENCE_MAX: Duration = Duration::from_secs(4);
/// Silence after which a receiver lets a sender go; longer, since nothing waits for its word.
pub const SENDER_SILENCE_MAX: Duration = Duration::from_secs(10);
/// Limit of TCP connect, TLS handshake and Hello together. Source: security.md section 5.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Largest Data frame: small enough that many bodies take turns on a slow line.
pub const DATA_BYTES_MAX: usize = 256 << 10;
/// Largest body that travels inside its Put.
pub const INLINE_BYTES_MAX: u64 = 1 << 20;
/// Frames wait for the writer in at most so many bytes; what is above it waits in its own task. Twice
/// the largest inline body, so that one is written while the next is made ready.
const OUTBOX_BYTES: usize = 2 << 20;
/// Waiting frames are joined into one write up to about this size: 16 TLS records.
const WRITE_BYTES: usize = 256 << 10;
/// Control frames that may wait for a sender that does not read them. One that obeys its windows leaves
/// an ack a stream at most.
const CONTROL_FRAMES_MAX: usize = 1 << 16;
/// Reads ask for this much at once.
const READ_BYTES: usize = 128 << 10;

/// Why a connection ended; both ends speak of it in these words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("the other end closed the connection")]
    Closed,
    #[error("the line broke: {0}")]
    Io(String),
    #[error("nothing heard for too long")]
    Silent,
    #[error(transparent)]
    Frame(#[from] frame::Error),
    /// The other end broke a rule of the protocol.
    #[error("protocol violated: {0}")]
    Protocol(&'static str),
    /// The other end said Goodbye and what was under way is done.
    #[error("the other end says goodbye: {0}")]
    Goodbye(String),
    /// This end stopped.
    #[error("stopped here")]
    Stopped,
}

impl From<std::io::Error> for Ended {
    fn from(err: std::io::Error) -> Self {
        match err.kind() {
            std::io::ErrorKind::UnexpectedEof => Ended::Closed,
            _ => Ended::Io(err.to_string()),
        }
    }
}

/// Hands frames to the writing task; cheap to clone. Frames of one lane keep their order.
#[derive(Clone)]
pub struct Outbox {
    /// Ping, Pong, Credit, Ack, Goodbye: few and small (one Ack a stream, one Credit per eighth of a
    /// window), written before data so that neither health nor credit waits behind bodies.
    control: mpsc::UnboundedSender<Bytes>,
    control_waiting: Arc<AtomicUsize>,
    /// Put, Data, End. Bounded by `room`; an End takes none, and a stream has one.
    data: mpsc::UnboundedSender<(Bytes, Option<OwnedSemaphorePermit>)>,
    room: Arc<Semaphore>,
}

/// The writing task's end of an [`Outbox`].
pub struct Outgoing {
    control: mpsc::UnboundedReceiver<Bytes>,
    control_waiting: Arc<AtomicUsize>,
    data: mpsc::UnboundedReceiver<(Bytes, Option<OwnedSemaphorePermit>)>,
    /// Taken from the lanes and not yet on the line; outlives a write that is given up half way.
    buffer: BytesMut,
}

/// An empty outbox and its other end.
pub fn outbox() -> (Outbox, Outgoing) {
    let (control, control_rx) = mpsc::unbounded_channel();
    let (data, data_rx) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(OUTBOX_BYTES));
    let control_waiting = Arc::new(AtomicUsize::new(0));
    let outgoing = Outgoing {
        control: control_rx,
        control_waiting: control_waiting.clone(),
        data: data_rx,
        buffer: BytesMut::with_capacity(2 * WRITE_BYTES),
    };
    (Outbox { control, control_waiting, data, room }, outgoing)
}

impl Outbox {
    /// Puts a small frame into the first lane; lost when the connection is over, as it would be anyway.
    pub fn control(&self, frame: &Frame) {
        if let Ok(bytes) = frame.encode() {
            self.control_waiting.fetch_add(1, Ordering::Relaxed);
            let _ = self.control.send(bytes);
        }
    }

    /// Whether the other end reads too little of what it causes.
    ///
    /// # Errors
    /// [`Ended::Protocol`] when it does.
    pub fn check_waiting(&self) -> Result<(), Ended> {
        if self.control_waiting.load(Ordering::Relaxed) > CONTROL_FRAMES_MAX {
            return Err(Ended::Protocol("answers are not read"));
        }
        Ok(())
    }

    /// Whoever waits for room goes away empty.
    pub fn close(&self) {
        self.room.close();
    }

    /// Waits for room, in turn. Dropped while waiting, nothing was taken.
    pub async fn room(&self, bytes: &Bytes) -> Result<OwnedSemaphorePermit, Ended> {
        let wanted = u32::try_from(bytes.len().min(OUTBOX_BYTES)).expect("the outbox is below 4 GiB");
        self.room.clone().acquire_many_owned(wanted).await.map_err(|_| Ended::Stopped)
    }

    /// Puts an encoded frame into the second lane.
    pub fn data(&self, bytes: Bytes, room: OwnedSemaphorePermit) {
        let _ = self.data.send((bytes, Some(room)));
    }

    /// Puts an End into the second lane, behind the Data of its stream. Never waits: `Drop` calls it.
    pub fn end(&self, stream: u32, aborted: bool) {
        let end = Frame { stream, message: Message::End { aborted } };
        if let Ok(bytes) = end.encode() {
            let _ = self.data.send((bytes, None));
        }
    }
}

impl Outgoing {
    /// Writes until `line` breaks or every [`Outbox`] is gone, joining what waits into one write. The
    /// number of bytes written is added to `written`. Dropped half way, the next call goes on from there.
    ///
    /// # Errors
    /// [`Ended`] when the line broke.
    pub async fn write_to<W: AsyncWrite + Unpin>(&mut self, line: &mut W, written: &AtomicU64) -> Result<(), Ended> {
        loop {
            let first = tokio::select! {
                biased;
                Some(bytes) = self.control.recv() => {
                    self.control_waiting.fetch_sub(1, Ordering::Relaxed);
                    bytes
                }
                Some((bytes, _room)) = self.data.recv() => bytes,
                else => return Ok(()),
            };
            self.buffer.extend_from_slice(&first);
            self.gather();
            let count = self.buffer.len();
            self.write_buffer(line).await?;
            written.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Writes what waits now, and no more.
    ///
    /// # Errors
    /// [`Ended`] when the line broke.
    pub async fn flush_to<W: AsyncWrite + Unpin>(&mut self, line: &mut W) -> Result<(), Ended> {
        self.gather();
        while !self.buffer.is_empty() {
            self.write_buffer(line).await?;
            self.gather();
        }
        Ok(())
    }

    /// Writes the buffer and empties it; what one frame made large is given back.
    async fn write_buffer<W: AsyncWrite + Unpin>(&mut self, line: &mut W) -> Result<(), Ended> {
        line.write_all_buf(&mut self.buffer).await?;
        line.flush().await?;
        self.buffer.clear();
        if self.buffer.capacity() > 4 * WRITE_BYTES {
            self.buffer = BytesMut::with_capacity(2 * WRITE_BYTES);
        }
        Ok(())
    }

    /// Joins frames that wait, control first, up to [`WRITE_BYTES`] and one frame.
    fn gather(&mut self) {
        while self.buffer.len() < WRITE_BYTES {
            if let Ok(bytes) = self.control.try_recv() {
                self.control_waiting.fetch_sub(1, Ordering::Relaxed);
                self.buffer.extend_from_slice(&bytes);
            } else if let Ok((bytes, _room)) = self.data.try_recv() {
                self.buffer.extend_from_slice(&bytes);
            } else {
                return;
            }
        }
    }
}

/// Reads frames off a line.
pub struct FrameReader<R> {
    line: R,
    buffer: BytesMut,
    silence_max: Duration,
    /// When silence has lasted too long; only bytes move it, not a caller that asks again.
    silent_at: Instant,
    read: Arc<AtomicU64>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader that gives up after `silence_max` without a byte and adds what it reads to `read`.
    pub fn new(line: R, silence_max: Duration, read: Arc<AtomicU64>) -> Self {
        let silent_at = Instant::now() + silence_max;
        FrameReader { line, buffer: BytesMut::with_capacity(READ_BYTES), silence_max, silent_at, read }
    }

    /// The next frame, with its cost in credit. Dropped while waiting, nothing is lost.
    ///
    /// # Errors
    /// [`Ended`]: there will be no more.
    pub async fn next(&mut self) -> Result<(Frame, usize), Ended> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer)? {
                return Ok(frame);
            }
            let had = planted::has(Planted::HalfReadForgotten).then(|| self.buffer.split());
            self.buffer.reserve(READ_BYTES);
            let read = tokio::time::timeout_at(self.silent_at, self.line.read_buf(&mut self.buffer));
            let count = read.await.map_err(|_| Ended::Silent)??;
            if let Some(had) = had {
                let came = std::mem::replace(&mut self.buffer, had);
                self.buffer.unsplit(came);
            }
            if count == 0 {
                return Err(Ended::Closed);
            }
            self.silent_at = Instant::now() + self.silence_max;
            self.read.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Reads on and forgets it, until the other end closes.
    pub async fn discard(&mut self) {
        while self.line.read_buf(&mut self.buffer).await.is_ok_and(|count| count > 0) {
            self.buffer.clear();
        }
    }
}

/// One window as its receiver keeps it: what the sender may still send, and what it will be told of.
pub struct Window {
    size: u64,
    /// Bytes the sender may still send.
    open: AtomicU64,
    /// Consumed here and not yet given back.
    owed: AtomicU64,
}

impl Window {
    pub fn new(size: u32) -> Self {
        Window { size: size.into(), open: AtomicU64::new(size.into()), owed: AtomicU64::new(0) }
    }

    /// Counts what arrived; `false` when the sender had no credit for it.
    pub fn arrived(&self, cost: usize) -> bool {
        let spend = |open: u64| open.checked_sub(cost as u64);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, spend).is_ok()
    }

    /// Counts what was consumed; the credit to give back now, once an eighth of the window is due: small
    /// enough that the sender never waits for the rest, large enough that few frames carry it.
    pub fn consumed(&self, cost: usize) -> Option<u32> {
        let owed = self.owed.fetch_add(cost as u64, Ordering::AcqRel) + cost as u64;
        if owed < self.size / 8 {
            return None;
        }
        let owed = self.owed.swap(0, Ordering::AcqRel);
        self.open.fetch_add(owed, Ordering::AcqRel);
        let owed = if planted::has(Planted::CreditLeaked) { owed / 8 * 7 } else { owed };
        u32::try_from(owed).ok().filter(|o| *o > 0)
    }
}

/// Checks windows the other end announced: too small ones would stall a frame for ever.
///
/// # Errors
/// [`Ended::Protocol`].
pub fn check(windows: Windows) -> Result<Windows, Ended> {
    if (windows.connection_bytes as usize) < 1 << 20
        || (windows.stream_bytes as usize) < 64 << 10
        || windows.stream_bytes > windows.connection_bytes / 2
        || windows.connection_bytes > 1 << 30
        || windows.streams == 0
        || windows.streams > 1 << 20
    {
        return Err(Ended::Protocol("windows out of range"));
    }
    Ok(windows)
}

/// The largest payload of a Data frame under `windows`: half a stream's window, so that one frame is
/// consumed while the next travels.
pub fn data_bytes(windows: Windows) -> usize {
    DATA_BYTES_MAX.min(windows.stream_bytes as usize / 2 - CREDIT_PER_FRAME)
}
