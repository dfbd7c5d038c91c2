//! One site that listens and the means to call it: certificates, receiver, relay, bodies.
use crate::cli::certs;
use crate::link::{Reason, Why};
use crate::peer::client::{Connection, Error, PeerClient, Target};
use crate::peer::server::{Counters, Known, Server, Settings};
use crate::peer::{Ack, Incoming, Outgoing, Receiver};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::SystemClock;
use storage_engine::identity::{Files, Identity};
use storage_engine::version::{Birth, Hlc, Kind, Order, Origin, Version, VersionId};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const EPOCH: u64 = 17;
pub const TRUST: &str = "test.example";

/// Waits for a fact, with a deadline no healthy run comes near.
pub async fn within<T>(fact: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), fact).await.expect("the fact within a minute")
}

/// Site `ams` listens; site `fra` is its peer `frankfurt` under the same CA, site `nyc` its peer `york` under another.
pub struct Rig {
    pub certificates: tempfile::TempDir,
    pub endpoint: String,
    pub counters: Arc<Counters>,
    /// The listener's.
    pub identity: Arc<Identity>,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    pub client_tasks: TaskTracker,
}

struct Script<F>(F);

#[async_trait::async_trait]
impl<F: Fn(Incoming) -> BoxFuture<'static, Ack> + Send + Sync + 'static> Receiver for Script<F> {
    async fn receive(&self, incoming: Incoming) -> Ack {
        assert_eq!((incoming.site.as_str(), incoming.peer.as_str()), ("fra", "frankfurt"));
        (self.0)(incoming).await
    }
    async fn highest_epoch(&self, site: &str, link: &str) -> u64 {
        if (site, link) == ("fra", "rule/bucket") { EPOCH } else { 0 }
    }
}

impl Rig {
    pub async fn new<F: Fn(Incoming) -> BoxFuture<'static, Ack> + Send + Sync + 'static>(receive: F) -> Rig {
        Rig::with(Settings::default(), receive).await
    }

    pub async fn with<F: Fn(Incoming) -> BoxFuture<'static, Ack> + Send + Sync + 'static>(
        settings: Settings,
        receive: F,
    ) -> Rig {
        let certificates = tempfile::tempdir().unwrap();
        let hosts: &[&str] = &["localhost", "127.0.0.1"];
        certs::make(certificates.path(), TRUST, &[("ams", hosts), ("fra", hosts), ("lon", hosts)]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let (fra, nyc) = (certs::spiffe_id(TRUST, "fra"), certs::spiffe_id(TRUST, "nyc"));
        let ours = certificates.path().join("ams/ca.crt");
        let theirs = certificates.path().join("nyc-ca.crt");
        let resolve = move |uri: &str| match uri {
            uri if uri == fra => {
                Some(Known { site: "fra".into(), peer: "frankfurt".into(), authority: ours.clone().into() })
            }
            uri if uri == nyc => {
                Some(Known { site: "nyc".into(), peer: "york".into(), authority: theirs.clone().into() })
            }
            _ => None,
        };
        let identity = Identity::load(Files::in_folder(&certificates.path().join("ams"))).await.unwrap();
        let identity = Arc::new(identity);
        let counters = Arc::new(Counters::default());
        let server = Server {
            site: "ams".into(),
            identity: identity.clone(),
            resolver: Arc::new(resolve),
            receiver: Arc::new(Script(receive)),
            clock: Arc::new(SystemClock),
            settings,
            counters: counters.clone(),
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(Arc::new(server).run(listener, tasks.clone(), stop.clone()));
        Rig { certificates, endpoint, counters, identity, stop, tasks, client_tasks: TaskTracker::new() }
    }

    /// The identity `uri` names, signed by `ca`, of a site that believes the listener.
    pub async fn signed(&self, ca: &certs::Authority, site: &str, uri: &str) -> Identity {
        let folder = self.certificates.path().join(format!("signed-{site}"));
        std::fs::create_dir_all(&folder).unwrap();
        let (certificate, key) = certs::issue(ca, site, &["127.0.0.1"], &[uri]).unwrap();
        std::fs::write(folder.join("tls.crt"), certificate).unwrap();
        std::fs::write(folder.join("tls.key"), key).unwrap();
        std::fs::copy(self.certificates.path().join("ca.crt"), folder.join("ca.crt")).unwrap();
        Identity::load(Files::in_folder(&folder)).await.unwrap()
    }

    pub async fn identity(&self, site: &str) -> Identity {
        Identity::load(Files::in_folder(&self.certificates.path().join(site))).await.unwrap()
    }

    pub fn target(&self) -> Target {
        Target {
            endpoint: self.endpoint.clone(),
            server_name: "127.0.0.1".into(),
            identities: vec![certs::spiffe_id(TRUST, "ams")],
            site: "fra".into(),
            peer_site: "ams".into(),
        }
    }

    pub async fn try_connect(&self, target: &Target, identity: &Identity) -> Result<Connection, Error> {
        within(PeerClient::connect(target, identity, &self.client_tasks)).await
    }

    pub async fn connect(&self) -> Connection {
        self.try_connect(&self.target(), &self.identity("fra").await).await.unwrap()
    }

    /// A connection through a relay that can be cut.
    pub async fn connect_through_relay(&self) -> (Connection, JoinHandle<()>) {
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { endpoint: relay.local_addr().unwrap().to_string(), ..self.target() };
        let to = self.endpoint.clone();
        let task = tokio::spawn(async move {
            let (mut near, _) = relay.accept().await.unwrap();
            let mut far = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        (self.try_connect(&target, &self.identity("fra").await).await.unwrap(), task)
    }
}

/// Reads the body and says `Applied` only when it is the pattern, as long as the record promises.
pub async fn drain(incoming: Incoming) -> Ack {
    let Some(mut body) = incoming.body else { return Ack::NeedsBody };
    let size = incoming.version.birth.expect("the tests send born versions").size_bytes;
    let mut read = 0;
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) if chunk.iter().zip(read..).all(|(byte, at)| *byte == pattern_at(at)) => read += chunk.len(),
            Ok(_) => return refused(format!("other bytes behind {read}")),
            Err(err) => return Ack::Retry { after_ms: 1, why: Why::new(Reason::Digest, err.to_string()) },
        }
    }
    if read as u64 == size { Ack::Applied } else { refused(format!("{read} bytes of {size}")) }
}

fn refused(said: String) -> Ack {
    Ack::Refused(Why::new(Reason::Rejected, said))
}

pub fn accept_all() -> impl Fn(Incoming) -> BoxFuture<'static, Ack> + Send + Sync + 'static {
    |incoming| Box::pin(drain(incoming))
}

/// A byte that differs from place to place, so that a swapped frame shows.
fn pattern_at(at: usize) -> u8 {
    (at / 251 + at) as u8
}

pub fn pattern(size: usize) -> Bytes {
    (0..size).map(pattern_at).collect::<Vec<u8>>().into()
}

/// A version of `size` patterned bytes, its body in pieces of 100,000.
pub fn object(key: &str, size: usize) -> Outgoing {
    let bytes = pattern(size);
    let mut outgoing = outgoing(key, bytes.clone());
    let pieces: Vec<_> = bytes.chunks(100_000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    outgoing.body = Some(futures::stream::iter(pieces).boxed());
    outgoing
}

/// A version whose body stops arriving after `after` of its bytes, and never ends.
pub fn stalled(key: &str, size: usize, after: usize) -> Outgoing {
    let mut outgoing = object(key, size);
    // One piece more than `after`, since frames leave when they are full.
    let first = futures::stream::iter([Ok(pattern(after + 512 * 1024))]);
    outgoing.body = Some(first.chain(futures::stream::pending()).boxed());
    outgoing
}

/// A version of these bytes, in one piece.
pub fn outgoing(key: &str, bytes: Bytes) -> Outgoing {
    let id = VersionId::from_bytes([1; 16]);
    let mut version = Version::blank(key, id);
    version.birth = Some(Birth {
        size_bytes: bytes.len() as u64,
        ..Birth::blank(Order { hlc: Hlc::from_millis(1), origin: Origin::new("fra"), version_id: id }, Kind::Object)
    });
    Outgoing {
        link: "rule/bucket".into(),
        epoch: 1,
        may_send: Arc::new(|| true),
        bucket: "logs".into(),
        version,
        body: Some(futures::stream::iter([Ok(bytes)]).boxed()),
        portion: Default::default(),
        traceparent: None,
        relayed: false,
    }
}
