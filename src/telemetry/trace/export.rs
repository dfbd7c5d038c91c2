//! Spans on their way to a collector: a bounded queue, a thread of the SDK's that sends batches, and our own HTTP client
//! below it. What does not fit or is not taken is dropped and counted; nothing that makes spans ever waits for it.
use crate::https;
use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry::Context;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// Spans that wait for the collector or are being sent: some MiB, and several hundred sampled versions.
const WAITING_MAX: u64 = 4096;
/// How long one post may take, its answer included.
const POST_MAX: Duration = Duration::from_secs(10);
/// An answer is a few bytes; no more is read of one.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What became of spans since the start.
#[derive(Debug, Default)]
pub struct Counts {
    waiting: AtomicU64,
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    /// Taken by the collector.
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }
    /// Lost: the queue was full, or the collector did not take them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// What takes ended spans and sends them to `endpoint`, believing the CAs in `ca`.
///
/// # Errors
/// A sentence on what cannot be used.
pub fn processor(endpoint: &str, ca: Option<&[u8]>, counts: Arc<Counts>) -> Result<Bounded, String> {
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(https::IDLE_MAX)
        .build(https::connector(ca)?);
    let client = Poster { client, runtime: Handle::current() };
    let exporter = Otlp::builder().with_http().with_http_client(client).with_endpoint(endpoint).build();
    let exporter = exporter.map_err(|e| e.to_string())?;
    let exporter =
        Counted { exporter, endpoint: endpoint.into(), counts: counts.clone(), fails: AtomicBool::new(false) };
    let queue = usize::try_from(WAITING_MAX).expect("a few thousand");
    let config = BatchConfigBuilder::default().with_max_queue_size(queue).build();
    let inner = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    Ok(Bounded { inner, counts, overflows: AtomicBool::new(false) })
}

/// Counts what is dropped before the SDK's queue would drop it without a number.
#[derive(Debug)]
pub struct Bounded {
    inner: BatchSpanProcessor,
    counts: Arc<Counts>,
    /// It was said.
    overflows: AtomicBool,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.counts.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            if !self.overflows.swap(true, Ordering::Relaxed) {
                tracing::warn!(WAITING_MAX, "More spans end than the collector takes; some are dropped. Sample less.");
            }
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what the collector took, and says once when it begins and once when it ceases to fail.
#[derive(Debug)]
struct Counted {
    exporter: Otlp,
    endpoint: String,
    counts: Arc<Counts>,
    fails: AtomicBool,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let said = self.exporter.export(batch).await;
        self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
        match &said {
            Ok(()) => {
                self.counts.exported.fetch_add(spans, Ordering::Relaxed);
                if self.fails.swap(false, Ordering::Relaxed) {
                    tracing::info!(
                        endpoint = self.endpoint,
                        dropped = self.counts.dropped(),
                        "The collector takes spans again."
                    );
                }
            }
            Err(e) => {
                self.counts.dropped.fetch_add(spans, Ordering::Relaxed);
                if !self.fails.swap(true, Ordering::Relaxed) {
                    tracing::warn!(endpoint = self.endpoint, error = %e, "The collector takes no spans; they are dropped until it does.");
                }
            }
        }
        said
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Posts by the process' own runtime: the SDK's thread is none of it.
#[derive(Clone)]
struct Poster {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
}

impl fmt::Debug for Poster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Poster")
    }
}

#[async_trait]
impl HttpClient for Poster {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let post = async move {
            let response = client.request(request.map(Full::new)).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(parts, body))
        };
        self.runtime.spawn(async move { tokio::time::timeout(POST_MAX, post).await }).await??
    }
}
