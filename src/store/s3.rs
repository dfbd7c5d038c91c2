//! A bucket at a bare S3 endpoint, as a destination: what can be asked of it, and in which dialect.
//!
//! It knows versions, and nothing of links, journals or rules; it sends what it is told to, once, and says what
//! became of it. Which requests make a version be there is decided in `replicator/foreign.rs`, its only caller.
pub mod connect;
pub mod dialect;
mod error;
mod http;
pub mod identity;
pub mod list;
pub mod probe;
pub mod send;
pub mod upload;

pub use connect::{Endpoint, Keys};
pub use dialect::Dialect;
pub use error::Error;
pub use identity::Identity;

use aws_sdk_s3::Client;
use aws_sdk_s3::client::customize::CustomizableOperation;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use dialect::{Ask, Extra};
use std::future::Future;
use std::time::Duration;
use storage_engine::version::Version;
use tokio::sync::Semaphore;

/// Requests under way at one bucket: at 50 ms a request 1,280 a second, and few enough sockets for any server.
const REQUESTS_MAX: usize = 64;
/// How long a request without a body may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The slowest target that is waited for.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// A bucket at an S3 endpoint that has been found fit.
pub struct Target {
    client: Client,
    bucket: String,
    dialect: Dialect,
    /// The bucket takes retention and legal hold.
    has_lock: bool,
    requests: Semaphore,
}

impl Target {
    fn new(client: Client, bucket: String, dialect: Dialect, has_lock: bool) -> Self {
        Target { client, bucket, dialect, has_lock, requests: Semaphore::new(REQUESTS_MAX) }
    }

    /// How it is spoken to.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }
    /// Whether the bucket takes retention and legal hold.
    pub fn has_lock(&self) -> bool {
        self.has_lock
    }

    /// Runs a request among those under way, for as long as `bytes` of body may take.
    async fn limited<T>(&self, bytes: u64, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let _permit = self.requests.acquire().await.expect("it is never closed");
        in_time(bytes, request).await
    }

    fn extra(&self, ask: Ask, version: &Version) -> Extra {
        self.dialect.extra(ask, version)
    }
}

/// A request that gets no answer in time has an unknown outcome.
async fn in_time<T>(bytes: u64, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let most = ANSWER_MAX + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
    match tokio::time::timeout(most, request).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Silent(format!("{}s", most.as_secs()))),
    }
}

/// Adds to a request before it is signed.
trait With: Sized {
    fn with(self, extra: Extra) -> Self;
}

impl<T, E, B> With for CustomizableOperation<T, E, B> {
    fn with(self, extra: Extra) -> Self {
        self.mutate_request(move |request| add(request, &extra))
    }
}

fn add(request: &mut HttpRequest, extra: &Extra) {
    let mut uri = request.uri().to_string();
    for (name, value) in &extra.query {
        uri.push(if uri.contains('?') { '&' } else { '?' });
        uri.push_str(&format!("{name}={}", encoded(value)));
    }
    if !extra.query.is_empty() {
        request.set_uri(uri).expect("a URI with another pair in its query is one");
    }
    for (name, value) in &extra.headers {
        // What no header can hold was refused before.
        let _ = request.headers_mut().try_insert(name.clone(), value.clone());
    }
}

/// Percent-encoded for a query or a form: all but the unreserved characters.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
        out
    })
}
