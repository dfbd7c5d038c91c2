//! The network between two sites: a TCP proxy per direction of dialling that cuts, stalls one way, delays,
//! throttles, or resets connections mid-stream. It knows bytes, never frames.
use crate::dice::Dice;
use crate::site::Door;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the network does to a pair of sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Connections break, new ones are dropped.
    Cut,
    /// Nothing gets through from the dialling side; the other way flows.
    DeafThere,
    /// Nothing gets back to the dialling side; the other way flows.
    DeafHere,
    /// Every piece is so late, both ways.
    Delay(Duration),
    /// So many bytes a second, each way.
    Slow(u64),
    /// Connections are reset after so many bytes, mid-body or mid-frame; each new one too.
    ResetAfter(u64),
}

impl Fault {
    /// What a run does to its network, each in turn.
    pub const KINDS: [&str; 6] = ["cut", "deaf there", "deaf here", "delay", "slow", "reset"];

    /// One of this kind, by its place in [`Fault::KINDS`].
    pub fn of_kind(kind: usize, dice: &mut Dice) -> Fault {
        match kind {
            0 => Fault::Cut,
            1 => Fault::DeafThere,
            2 => Fault::DeafHere,
            3 => Fault::Delay(Duration::from_millis(dice.range(20, 300))),
            4 => Fault::Slow(dice.range(20_000, 400_000)),
            _ => Fault::ResetAfter(dice.range(500, 200_000)),
        }
    }
}

/// What came through a proxy.
#[derive(Default)]
struct Counts {
    /// Bytes handed on from the dialling side.
    carried: AtomicU64,
    /// Pieces and connections that a fault did something to.
    bitten: AtomicU64,
}

/// The way from one site's dial to another site's listener.
pub struct Proxy {
    /// What the dialling site takes for its peer.
    pub addr: SocketAddr,
    fault: Arc<watch::Sender<Fault>>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens, and sends everybody to where `door` says the site is at that moment.
    pub async fn start(door: watch::Receiver<Option<Door>>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind a proxy");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let fault = Arc::new(watch::channel(Fault::None).0);
        let counts = Arc::new(Counts::default());
        let (faults, counter) = (fault.clone(), counts.clone());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let to = door.borrow().as_ref().map(|d| d.peer);
                let is_cut = *faults.borrow() == Fault::Cut;
                counter.bitten.fetch_add(u64::from(is_cut), Ordering::Relaxed);
                if let Some(to) = to.filter(|_| !is_cut) {
                    tokio::spawn(carry(near, to, faults.subscribe(), counter.clone()));
                }
            }
        });
        Proxy { addr, fault, counts, task }
    }

    /// Bytes handed on so far from the dialling side to the other.
    pub fn carried(&self) -> u64 {
        self.counts.carried.load(Ordering::Relaxed)
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Sets a fault and waits until it did something to somebody; `false`: nobody came by in that time.
    pub async fn bite(&self, fault: Fault, patience: Duration) -> bool {
        let before = self.counts.bitten.load(Ordering::Relaxed);
        self.set(fault);
        let bites = async {
            while self.counts.bitten.load(Ordering::Relaxed) == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(patience, bites).await.is_ok()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, until a side ends it or the fault cuts it; a cut is a reset on both sides.
async fn carry(near: TcpStream, to: SocketAddr, faults: watch::Receiver<Fault>, counts: Arc<Counts>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    for stream in [&near, &far] {
        // Without it the proxy would add its own delays. A socket that refuses is closing.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_zero_linger();
    }
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = pump(near_read, far_write, faults.clone(), Fault::DeafThere, &counts) => {}
        () = pump(far_read, near_write, faults.clone(), Fault::DeafHere, &counts) => {}
        () = cut(faults) => {
            counts.bitten.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn cut(mut faults: watch::Receiver<Fault>) {
    if faults.wait_for(|f| *f == Fault::Cut).await.is_err() {
        std::future::pending().await
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut faults: watch::Receiver<Fault>,
    deaf: Fault,
    counts: &Counts,
) {
    let mut buffer = vec![0; 16 << 10];
    let mut carried = 0u64;
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let bite = || counts.bitten.fetch_add(1, Ordering::Relaxed);
        if *faults.borrow() == deaf {
            bite();
        }
        if faults.wait_for(|f| *f != deaf).await.is_err() {
            return;
        }
        let fault = *faults.borrow();
        let mut piece = &buffer[..read];
        match fault {
            Fault::Delay(late) => {
                bite();
                tokio::time::sleep(late).await;
            }
            Fault::Slow(per_second) => {
                bite();
                tokio::time::sleep(Duration::from_secs_f64(read as f64 / per_second as f64)).await;
            }
            Fault::ResetAfter(limit) if carried + read as u64 > limit => {
                bite();
                piece = &piece[..usize::try_from(limit.saturating_sub(carried)).expect("within the piece")];
            }
            _ => {}
        }
        carried += piece.len() as u64;
        if deaf == Fault::DeafThere {
            counts.carried.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        if to.write_all(piece).await.is_err() || piece.len() < read {
            return;
        }
    }
}
