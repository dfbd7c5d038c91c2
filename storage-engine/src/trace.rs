//! The door to tracing. The engine says where a piece of work begins and ends; whether it is traced, what it is called
//! elsewhere and where it is sent is the process' business, which installs a [`Tracer`]. Without one, and for work that
//! nobody sampled, nothing is made. Called by the S3 front door and where a record goes to the drives.
use crate::object::Error;
use crate::version::VersionId;
use std::future::Future;
use std::sync::OnceLock;
use tracing::Instrument;

/// Of the process, as its logs are: set once, before the first request.
static TRACER: OnceLock<Box<dyn Tracer>> = OnceLock::new();

/// Decides what is traced, and knows the names that work has elsewhere.
pub trait Tracer: Send + Sync {
    /// A request of a client begins, which sent this traceparent. `None`: it is not sampled.
    fn request(&self, operation: &'static str, bucket: &str, key: &str, parent: Option<&str>) -> Option<Box<dyn Work>>;

    /// A version goes to the drives, caused by what this traceparent names. `None`: it is not sampled.
    fn commit(&self, version: VersionId, parent: &str) -> Option<Box<dyn Work>>;
}

/// A traced piece of work; it ends when it is dropped.
pub trait Work: Send + Sync {
    /// W3C traceparent for what it causes.
    fn traceparent(&self) -> String;
    /// The trace it belongs to, in hexadecimal.
    fn trace_id(&self) -> String;
    /// It made this version.
    fn made(&self, version: VersionId);
    /// So many of so many drives had synced when it counted.
    fn acked(&self, acks: usize, drives: usize);
    /// It did not succeed.
    fn failed(&self, why: &str);
}

/// Makes `tracer` the process'. `false`: there was one already, which stays.
pub fn install(tracer: Box<dyn Tracer>) -> bool {
    TRACER.set(tracer).is_ok()
}

/// A commit under `parent`, where it is traced.
pub(crate) fn commit(version: VersionId, parent: Option<&str>) -> Option<Box<dyn Work>> {
    TRACER.get()?.commit(version, parent?)
}

/// A request of a client that may be traced.
pub(crate) struct Request {
    work: Option<Box<dyn Work>>,
    traceparent: Option<String>,
}

impl Request {
    /// Begins it; `client` is the traceparent that came with it.
    pub(crate) fn begin(operation: &'static str, bucket: &str, key: &str, client: Option<String>) -> Self {
        let work = TRACER.get().and_then(|t| t.request(operation, bucket, key, client.as_deref()));
        let traceparent = work.as_ref().map(|w| w.traceparent()).or(client);
        Request { work, traceparent }
    }

    /// Its trace, where it is sampled.
    pub(crate) fn trace_id(&self) -> Option<String> {
        self.work.as_ref().map(|work| work.trace_id())
    }

    /// What the version it makes carries on: its own traceparent, or the client's where it is not traced.
    pub(crate) fn traceparent(&self) -> Option<String> {
        self.traceparent.clone()
    }

    /// Ends with `doing`, which made or changed the version that `made` finds in its outcome. What is logged meanwhile
    /// bears the id of the trace.
    pub(crate) async fn until<T>(
        self,
        doing: impl Future<Output = Result<T, Error>>,
        made: impl FnOnce(&T) -> Option<VersionId>,
    ) -> Result<T, Error> {
        let Some(work) = self.work else { return doing.await };
        // As loud as what it is to explain: a log of errors alone has it too.
        let log = tracing::error_span!("request", trace_id = work.trace_id());
        let done = doing.instrument(log).await;
        match &done {
            Ok(outcome) => made(outcome).into_iter().for_each(|id| work.made(id)),
            Err(e) => work.failed(&e.to_string()),
        }
        done
    }
}
