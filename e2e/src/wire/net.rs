//! The simulated network as peers see it: a dialler, a listener and a clock over turmoil, and connections that break
//! after so many bytes, within a frame as often as not. What happens between the hosts is `storm.rs`'s.
use super::dice::Dice;
use super::locked;
use async_trait::async_trait;
use isthmus::peer::client::{Connection, Dial, Error, PeerClient, Target};
use isthmus::peer::server::Listen;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use storage_engine::clock::Clock;
use storage_engine::identity::Identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::TaskTracker;
use turmoil::net::{TcpListener, TcpStream};

/// Where every site listens.
pub const PORT: u16 = 7443;

/// The simulated wall clock: one for all hosts.
pub struct WorldClock {
    /// Unix milliseconds when the simulation began.
    pub began: u64,
}

impl Clock for WorldClock {
    fn now_millis(&self) -> u64 {
        let since = turmoil::sim_elapsed().unwrap_or_default();
        self.began + u64::try_from(since.as_millis()).expect("a simulation is shorter than an age")
    }
}

/// The peer listener of the simulated host it is bound on.
pub struct Wire(TcpListener);

impl Wire {
    pub async fn bind() -> io::Result<Wire> {
        Ok(Wire(TcpListener::bind(("0.0.0.0", PORT)).await?))
    }
}

impl Listen for Wire {
    type Stream = TcpStream;
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}

/// Calls peers over the simulated network. While `breaks`, most connections break after some bytes.
pub struct Caller {
    pub breaks: AtomicBool,
    /// Connections that broke so.
    pub broken: std::sync::Arc<AtomicU64>,
    dice: Mutex<Dice>,
}

impl Caller {
    pub fn new(dice: Dice) -> Self {
        Caller { breaks: AtomicBool::new(false), broken: Default::default(), dice: Mutex::new(dice) }
    }
    fn budget(&self) -> Option<u64> {
        let mut dice = locked(&self.dice);
        let (breaks, bytes) = (dice.chance(800), dice.range(3_000, 600_000));
        (breaks && self.breaks.load(Ordering::Relaxed)).then_some(bytes)
    }
}

#[async_trait]
impl Dial for Caller {
    async fn dial(&self, target: &Target, identity: &Identity, tasks: &TaskTracker) -> Result<Connection, Error> {
        let (left, broken) = (self.budget(), self.broken.clone());
        let opening = async {
            let (host, port) = target.endpoint.rsplit_once(':').unwrap_or_default();
            let stream = TcpStream::connect((host, port.parse().unwrap_or(PORT))).await?;
            Ok(Breaking { stream, left, broken })
        };
        PeerClient::connect_over(opening, target, identity, tasks).await
    }
}

/// A stream that is reset once so many bytes have passed, both ways together; `None`: never.
struct Breaking {
    stream: TcpStream,
    left: Option<u64>,
    broken: std::sync::Arc<AtomicU64>,
}

impl Breaking {
    /// How many bytes may pass now, at most `wanted`.
    fn may_pass(&self, wanted: usize) -> io::Result<usize> {
        match self.left {
            Some(0) => Err(io::ErrorKind::ConnectionReset.into()),
            Some(left) => Ok(wanted.min(usize::try_from(left).unwrap_or(usize::MAX))),
            None => Ok(wanted),
        }
    }
    fn passed(&mut self, count: usize) {
        if let Some(left) = &mut self.left {
            let was_whole = *left > 0;
            *left = left.saturating_sub(count as u64);
            if was_whole && *left == 0 {
                self.broken.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl AsyncRead for Breaking {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.may_pass(1)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let count = buf.filled().len() - before;
        self.passed(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Breaking {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = self.may_pass(bytes.len())?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[..count]))?;
        self.passed(written);
        Poll::Ready(Ok(written))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
