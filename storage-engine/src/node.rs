//! The store node: opens the drives, binds the S3 listener and, where it has one, the private API's;
//! spawns a task per connection, stops in order.
//!
//! Tasks are spawned here and by the API's listener, and nowhere else in the front doors. A task's error is its
//! connection's end and is nobody else's business; its panic ends the process, for starting from the drives is
//! the tested road.
mod patience;
mod places;
mod tls;

use crate::api::serve as api;
use crate::bucket::lock::Lock;
use crate::clock::Clock;
use crate::config::{self, Settings};
use crate::drive::{self, Drive};
use crate::identity::{self, Identity, ServerCertificate};
use crate::metrics::Metrics;
use crate::object::{self, Objects, Versioning};
use crate::s3;
use crate::version::Origin;
use futures::future::join_all;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use patience::{Busy, Patient};
use places::{Place, Places};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Requests under way have so long to end after the stop was asked for.
const DRAIN_SECONDS_MAX: Duration = Duration::from_secs(10);
/// Pause after a failed accept: it fails when file handles run out, and trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a node did not start. Nothing was bound.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings contradict themselves.
    #[error(transparent)]
    Settings(#[from] config::Invalid),
    /// The drives are not a store that can be opened.
    #[error(transparent)]
    Drives(#[from] drive::format::OpenError),
    /// A secret key cannot be read.
    #[error("read the secret key in {}", .file.display())]
    Secret { file: PathBuf, source: io::Error },
    /// A bucket of the settings could not be made.
    #[error("make the bucket {name}")]
    Bucket { name: String, source: object::Error },
    /// The S3 listener cannot show its certificate.
    #[error(
        "the certificate of the S3 listener: {0}; give its folder (s3_tls_dir) tls.crt, PEM with the listener's certificate \
         first, and tls.key, the key of that certificate"
    )]
    Certificate(identity::Error),
    /// The identity of the private API cannot be used.
    #[error("the private API: {0}")]
    Identity(#[from] identity::Error),
}

/// A store: its drives, its object layer and its S3 front door.
pub struct StoreNode {
    drives: Vec<Arc<dyn Drive>>,
    objects: Objects,
    gate: s3::Gate,
    limits: config::Limits,
    clock: Arc<dyn Clock>,
    listen: SocketAddr,
    listener: Option<TcpListener>,
    /// What the S3 listener shows; without one it speaks plain HTTP.
    certificate: Option<Arc<ServerCertificate>>,
    api: Option<Api>,
}

/// The private API, where this node has one.
struct Api {
    server: Arc<api::Server>,
    listen: SocketAddr,
    listener: Option<TcpListener>,
}

impl StoreNode {
    /// Opens the drives and makes the configured buckets; binds nothing.
    ///
    /// # Errors
    /// [`OpenError`]: what to do is in its text. The drives are as they were.
    pub async fn open(settings: &Settings, clock: Arc<dyn Clock>, origin: Origin) -> Result<StoreNode, OpenError> {
        settings.check()?;
        let (users, certificate) = read_files(settings).await?;
        let (dirs, parity) = (settings.drives.clone(), settings.parity);
        let opened = tokio::task::spawn_blocking(move || drive::local::open_store(&dirs, parity)).await;
        let (drives, parity) = match opened {
            Ok(opened) => opened?,
            Err(panicked) => resume_unwind(panicked.into_panic()), // nobody cancels a blocking task
        };
        let node = StoreNode::over(drives, parity, settings, users, clock, origin);
        let node = StoreNode { certificate, ..node };
        if let Err(error) = node.make_buckets(settings).await {
            node.close().await;
            return Err(error);
        }
        Ok(node)
    }

    /// A node over drives that are open already, its S3 listener plain; `users` from access key to secret key.
    pub fn over(
        drives: Vec<Arc<dyn Drive>>,
        parity: usize,
        settings: &Settings,
        users: BTreeMap<String, String>,
        clock: Arc<dyn Clock>,
        origin: Origin,
    ) -> StoreNode {
        let objects = Objects::new(drives.clone(), parity, clock.clone(), origin);
        let gate = s3::gate(objects.clone(), users, settings);
        let (limits, listen) = (settings.limits.clone(), settings.s3_listen);
        StoreNode { drives, objects, gate, limits, clock, listen, listener: None, certificate: None, api: None }
    }

    /// Gives the node a private API, for a replicator in another process; binds nothing yet.
    ///
    /// # Errors
    /// [`OpenError::Identity`], naming the file.
    pub async fn serve_api(&mut self, settings: &api::Settings) -> Result<(), OpenError> {
        let identity = Arc::new(Identity::load(settings.files.clone()).await?);
        let (objects, metrics) = (self.objects.clone(), self.metrics());
        let server = api::Server::new(objects, identity, settings.clients.clone(), metrics, self.clock.clone())
            .beside(self.certificate.clone());
        self.api = Some(Api { server: Arc::new(server), listen: settings.listen, listener: None });
        Ok(())
    }

    async fn make_buckets(&self, settings: &Settings) -> Result<(), OpenError> {
        for bucket in &settings.buckets {
            let made = self.make_bucket(bucket).await;
            made.map_err(|source| OpenError::Bucket { name: bucket.name.clone(), source })?;
        }
        Ok(())
    }

    /// Makes a bucket, or turns object lock on, and versioning where it was never touched; what people set since stays.
    async fn make_bucket(&self, bucket: &config::BucketSettings) -> Result<(), object::Error> {
        let config::BucketSettings { name, versioning, object_lock } = bucket;
        let state = if *versioning { Versioning::Enabled } else { Versioning::Unversioned };
        let made = match object_lock {
            true => self.objects.create_locked_bucket(name).await,
            false => self.objects.create_bucket(name, state).await,
        };
        if !matches!(made, Err(object::Error::BucketExists)) {
            return made.map(|_| ());
        }
        let held = self.objects.bucket(name).await?;
        if *versioning && held.versioning == Versioning::Unversioned {
            self.objects.set_versioning(name, Versioning::Enabled).await?;
        }
        if *object_lock && held.lock.is_none() {
            self.objects.set_lock(name, Lock::default()).await?;
        }
        Ok(())
    }

    /// The object layer, for the replicator of the same process.
    pub fn objects(&self) -> Objects {
        self.objects.clone()
    }
    /// What this store counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.objects.metrics().clone()
    }
    /// What the S3 listener shows to its clients, where it speaks TLS.
    pub fn certificate(&self) -> Option<Arc<ServerCertificate>> {
        self.certificate.clone()
    }
    /// What the private API shows, where this node has one.
    pub fn api_identity(&self) -> Option<Arc<Identity>> {
        self.api.as_ref().map(|api| api.server.identity().clone())
    }
    /// The drives, for those who look at their space and state.
    pub fn drives(&self) -> &[Arc<dyn Drive>] {
        &self.drives
    }

    /// Binds the listeners; from here on clients may connect, and wait until [`run`](Self::run).
    ///
    /// # Errors
    /// An address, which is named, is taken or not ours.
    pub async fn bind(&mut self) -> io::Result<()> {
        self.listener = Some(bind("S3", self.listen).await?);
        if let Some(api) = &mut self.api {
            api.listener = Some(bind("the private API", api.listen).await?);
        }
        Ok(())
    }
    /// Address of the S3 listener; `None` before [`bind`](Self::bind).
    pub fn s3_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|l| l.local_addr().ok())
    }
    /// Address of the private API's listener; `None` before [`bind`](Self::bind) or where there is none.
    pub fn api_addr(&self) -> Option<SocketAddr> {
        self.api.as_ref()?.listener.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// Serves until `stop` is cancelled, drains, closes the drives. Binds first where [`bind`](Self::bind) was not called.
    ///
    /// Dropped halfway it leaves what a kill leaves: everything acked is durable.
    ///
    /// # Errors
    /// The listener could not be bound; the drives are closed then.
    pub async fn run(mut self, stop: CancellationToken) -> io::Result<()> {
        let bound = if self.listener.is_none() { self.bind().await } else { Ok(()) };
        let api = self.api.take().and_then(|api| Some((api.server, api.listener?)));
        let api = async {
            if let Some((server, listener)) = api {
                server.run(listener, stop.clone()).await;
            }
        };
        let listener = self.listener.take();
        let s3 = async {
            if let Some(listener) = listener {
                tokio::join!(self.keep_fresh(&stop), self.serve_s3(listener, &stop));
            }
        };
        tokio::join!(api, s3);
        self.close().await;
        bound
    }

    async fn keep_fresh(&self, stop: &CancellationToken) {
        if let Some(certificate) = &self.certificate {
            certificate.keep_fresh(stop).await;
        }
    }

    async fn serve_s3(&self, listener: TcpListener, stop: &CancellationToken) {
        let mut connections = JoinSet::new();
        self.accept(&listener, &mut connections, stop).await;
        drop(listener); // the port is free before the drain: a successor may bind it
        drain(connections).await;
    }

    async fn accept(&self, listener: &TcpListener, connections: &mut JoinSet<()>, stop: &CancellationToken) {
        let (gate, certificate, metrics) = (self.gate.clone(), self.certificate.clone(), self.metrics());
        let door = Arc::new(Door { gate, certificate, metrics });
        let places = Places::new(self.limits.connections_max, self.limits.connections_per_address_max);
        loop {
            let next = async {
                let free = places.free().await;
                (listener.accept().await, free)
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(ended) = connections.join_next() => end_of(ended),
                (accepted, free) = next => match accepted {
                    Ok((stream, client)) => match places.take(free, client.ip()) {
                        Some(place) => {
                            connections.spawn(serve(door.clone(), stream, client.ip(), place, stop.clone()));
                        }
                        None => refuse(&stream, client, &door),
                    },
                    Err(error) => {
                        tracing::warn!(err = %error, "Accepting an S3 connection failed.");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    async fn close(&self) {
        join_all(self.drives.iter().map(|d| d.close())).await;
    }
}

/// What connections of the S3 listener share.
struct Door {
    gate: s3::Gate,
    certificate: Option<Arc<ServerCertificate>>,
    metrics: Arc<Metrics>,
}

/// One connection, until the client leaves or `stop` lets it finish its request.
async fn serve(door: Arc<Door>, stream: TcpStream, client: IpAddr, place: Place, stop: CancellationToken) {
    // Without it small answers wait for the client's delayed acknowledgement. A socket that refuses is closing.
    let _ = stream.set_nodelay(true);
    let gate = door.gate.clone();
    match &door.certificate {
        None => converse(gate, stream, client, stop).await,
        Some(certificate) => {
            let shaken = tls::handshake(stream, certificate.config(), tls::HANDSHAKE_MAX);
            match stop.run_until_cancelled(shaken).await {
                Some(Ok(line)) => converse(gate, line, client, stop).await,
                Some(Err(error)) => {
                    door.metrics.handshake_failed();
                    tracing::debug!(%client, err = %error, "An S3 client did not get through TLS.");
                }
                None => {}
            }
        }
    }
    drop(place);
}

/// Requests and answers on a line that stands.
async fn converse<T>(gate: s3::Gate, line: T, client: IpAddr, stop: CancellationToken)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let busy = Busy::default();
    let line = Patient::new(line, patience::LIMITS, busy.clone());
    let service = service_fn(move |request| {
        let (gate, under_way) = (gate.clone(), busy.request());
        async move {
            let answer = gate.answer(request, client).await;
            drop(under_way);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None) // `Patient` watches, which tells a late head from an idle connection
        .serve_connection(TokioIo::new(line), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(err = %error, "An S3 connection broke.");
    }
}

/// Tells a client that has too many connections so, as far as its socket takes it at once, and hangs up. Of TLS it does
/// that alone: the handshake that an answer needs is just what is not given.
fn refuse(stream: &TcpStream, client: SocketAddr, door: &Door) {
    tracing::debug!(%client, "An S3 client holds too many connections.");
    if door.certificate.is_some() {
        return;
    }
    let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code>\
                <Message>Too many connections from this address; please use fewer.</Message></Error>";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.try_write(answer.as_bytes()); // a socket that takes nothing gets nothing
}

/// Waits for the requests under way, and cuts them at the deadline.
async fn drain(mut connections: JoinSet<()>) {
    let all = async {
        while let Some(ended) = connections.join_next().await {
            end_of(ended);
        }
    };
    if tokio::time::timeout(DRAIN_SECONDS_MAX, all).await.is_err() {
        tracing::warn!(connections = connections.len(), "Requests were cut at the deadline of the stop.");
        connections.shutdown().await;
    }
}

/// A task that panicked takes the process with it; one that was cancelled is no error.
pub(crate) fn end_of(task: Result<(), JoinError>) {
    if let Some(panic) = task.err().and_then(|error| error.try_into_panic().ok()) {
        resume_unwind(panic);
    }
}

async fn bind(what: &str, address: SocketAddr) -> io::Result<TcpListener> {
    let named = |err: io::Error| io::Error::new(err.kind(), format!("bind {what} to {address}: {err}"));
    TcpListener::bind(address).await.map_err(named)
}

/// Reads what the settings name, secret keys and the certificate of the S3 listener, as [`StoreNode::open`] does; no drive is
/// touched.
///
/// # Errors
/// [`OpenError`], naming the file.
pub async fn check_files(settings: &Settings) -> Result<(), OpenError> {
    read_files(settings).await.map(drop)
}

/// Secret keys by access key, and what the S3 listener shows.
type Read = (BTreeMap<String, String>, Option<Arc<ServerCertificate>>);

async fn read_files(settings: &Settings) -> Result<Read, OpenError> {
    let users = secrets(settings).await?;
    let certificate = match &settings.s3_tls_dir {
        Some(folder) => Some(Arc::new(ServerCertificate::load(folder).await.map_err(OpenError::Certificate)?)),
        None => None,
    };
    Ok((users, certificate))
}

async fn secrets(settings: &Settings) -> Result<BTreeMap<String, String>, OpenError> {
    let mut keys = BTreeMap::new();
    for user in &settings.users {
        let file = &user.secret_key_file;
        let failed = |source| OpenError::Secret { file: file.clone(), source };
        let secret = tokio::fs::read_to_string(file).await.map_err(failed)?;
        let secret = secret.trim_end();
        if secret.len() < config::SECRET_BYTES_MIN {
            let why = format!("a secret key has at least {} bytes", config::SECRET_BYTES_MIN);
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        keys.insert(user.access_key.clone(), secret.to_owned());
    }
    Ok(keys)
}
