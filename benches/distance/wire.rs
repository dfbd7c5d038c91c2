//! The distance between two sites: a proxy that hands on every byte half a round trip late, as a line does: what was
//! sent later travels behind it and nothing waits for anything. It can be cut in two ways.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

/// Bytes under way each way at most: the line is never what limits, up to 640 MB/s at 200 ms.
const UNDER_WAY_BYTES: usize = 64 << 20;
/// What is read at once.
const READ_BYTES: usize = 64 << 10;

/// How the line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Carries, with this round trip.
    Up(Duration),
    /// The cable is pulled: what is sent is lost and nobody is told; who dials waits.
    Silent,
    /// Nobody listens there: connections are reset, who dials is reset.
    Reset,
}

/// The line from one site to another.
pub struct Wire {
    /// What the dialling site takes for its peer.
    pub addr: SocketAddr,
    state: Arc<watch::Sender<State>>,
}

impl Wire {
    /// A line to `to`.
    pub async fn start(to: SocketAddr, state: State) -> std::io::Result<Wire> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (tell, told) = watch::channel(state);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, to, told.clone()));
            }
        });
        Ok(Wire { addr, state: Arc::new(tell) })
    }

    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

/// One connection until an end closes it or the line is cut.
async fn carry(near: TcpStream, to: SocketAddr, mut state: watch::Receiver<State>) {
    let _ = near.set_zero_linger();
    // A dial into a pulled cable goes on when the cable is back, as the next SYN would.
    let Ok(now) = state.wait_for(|s| *s != State::Silent).await.map(|s| *s) else { return };
    if now == State::Reset {
        return;
    }
    let Ok(far) = TcpStream::connect(to).await else { return };
    let _ = far.set_zero_linger();
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
    }
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let mut resets = state.clone();
    tokio::select! {
        () = pump(near_read, far_write, state.clone()) => {}
        () = pump(far_read, near_write, state) => {}
        _ = resets.wait_for(|s| *s == State::Reset) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: watch::Receiver<State>) {
    let room = Arc::new(Semaphore::new(UNDER_WAY_BYTES));
    let (put, mut take) = mpsc::unbounded_channel::<(Instant, Vec<u8>, OwnedSemaphorePermit)>();
    let reading = async {
        // What was lost once leaves a hole: nothing of this connection gets through any more.
        let mut is_broken = false;
        loop {
            let mut piece = vec![0; READ_BYTES];
            let Ok(read @ 1..) = from.read(&mut piece).await else { return };
            piece.truncate(read);
            let late = match *state.borrow() {
                State::Up(rtt) if !is_broken => rtt / 2,
                _ => {
                    is_broken = true;
                    continue;
                }
            };
            let Ok(room) = room.clone().acquire_many_owned(read as u32).await else { return };
            if put.send((Instant::now() + late, piece, room)).is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((at, piece, _room)) = take.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
