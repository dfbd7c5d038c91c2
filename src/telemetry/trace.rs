//! Traces of sampled work, exported by OTLP: off unless OpenTelemetry's environment variables name an endpoint
//! (`environment`). One trace spans a PUT here to the version readable there; `span` names its parts. Without an endpoint
//! nothing here is ever made.
mod environment;
mod export;
mod sampler;
pub mod span;

pub use environment::Error;
pub use export::Counts;

use environment::Asked;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, SpanId, TraceId, TracerProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer, SdkTracerProvider};
use sampler::Sampler;
use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::registry::LookupSpan;

/// How long a process that ends waits for its last spans to be taken.
const FLUSH_MAX: Duration = Duration::from_secs(2);

static TRACES: OnceLock<Traces> = OnceLock::new();

/// What a process that exports traces has.
#[derive(Debug)]
pub struct Traces {
    sampler: Sampler,
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    counts: Arc<Counts>,
    site: OnceLock<KeyValue>,
}

/// What traced work was caused by.
#[derive(Debug)]
enum Cause {
    /// A span, mostly of another process.
    Remote(SpanContext),
    /// Nothing that is traced: it begins this trace.
    Nobody(TraceId),
}

fn traces() -> Option<&'static Traces> {
    TRACES.get()
}

/// Prepares what the environment asks for; `false`: nothing.
///
/// # Errors
/// A variable that cannot be meant.
pub(super) fn start() -> Result<bool, Error> {
    let Some(asked) = environment::read(|name| std::env::var(name).ok())? else { return Ok(false) };
    let traces = Traces::of(&asked)?;
    let is_first = TRACES.set(traces).is_ok();
    if let (true, Some(traces)) = (is_first, TRACES.get()) {
        storage_engine::trace::install(Box::new(traces));
    }
    Ok(true)
}

/// What hands our spans to the exporter.
pub(super) fn layer<S>() -> Option<impl Layer<S>>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    Some(of_tracer(&traces()?.tracer))
}

fn of_tracer<S>(tracer: &SdkTracer) -> impl Layer<S> + use<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    let ours = FilterFn::new(|about| about.target() == span::TARGET).with_max_level_hint(LevelFilter::INFO);
    let layer = OpenTelemetryLayer::new(tracer.clone())
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false);
    layer.with_filter(ours)
}

/// Names this site in every span from here on.
pub fn at_site(name: &str) {
    if let Some(traces) = traces() {
        // A process has one site.
        let _ = traces.site.set(span::site(name));
    }
}

/// What became of spans, where they are exported.
pub fn counts() -> Option<Arc<Counts>> {
    traces().map(|t| t.counts.clone())
}

/// Sends the last spans, for a bounded time.
pub async fn flush() {
    let Some(traces) = traces() else { return };
    let flushed = tokio::task::spawn_blocking(|| traces.provider.shutdown_with_timeout(FLUSH_MAX)).await;
    if let Ok(Err(e)) = flushed {
        tracing::warn!(error = %e, "The last spans were not taken by the collector.");
    }
}

impl Traces {
    fn of(asked: &Asked) -> Result<Traces, Error> {
        let ca = asked.ca.as_ref().map(|path| {
            std::fs::read(path).map_err(|e| Error {
                variable: "OTEL_EXPORTER_OTLP_CERTIFICATE",
                value: path.display().to_string(),
                why: format!("it cannot be read ({e})"),
                remedy: "name a PEM file of the collector's CA, or unset it",
            })
        });
        let ca = ca.transpose()?;
        let counts = Arc::new(Counts::default());
        let processor = export::processor(&asked.endpoint, ca.as_deref(), counts.clone());
        let processor = processor.map_err(|why| Error {
            variable: "OTEL_EXPORTER_OTLP_ENDPOINT",
            value: asked.endpoint.clone(),
            why,
            remedy: "correct it and the other OTEL_EXPORTER_OTLP variables",
        })?;
        let mut resource = Resource::builder();
        if let Some(name) = asked.service {
            resource = resource.with_service_name(name);
        }
        // Spans are made for sampled work alone: the SDK decides nothing a second time.
        let provider = SdkTracerProvider::builder()
            .with_sampler(opentelemetry_sdk::trace::Sampler::AlwaysOn)
            .with_id_generator(Ids)
            .with_resource(resource.build())
            .with_span_processor(processor)
            .build();
        let tracer = provider.tracer("isthmus");
        Ok(Traces { sampler: asked.sampler, tracer, provider, counts, site: OnceLock::new() })
    }

    fn site(&self) -> Option<KeyValue> {
        self.site.get().cloned()
    }

    /// Whether what this traceparent caused is traced.
    fn caused_by(&self, traceparent: &str) -> Option<SpanContext> {
        self.followed(sampler::parse(traceparent)?)
    }

    fn followed(&self, parent: SpanContext) -> Option<SpanContext> {
        self.sampler.takes(parent.trace_id(), Some(parent.is_sampled())).then_some(parent)
    }

    /// The same for what may begin a trace.
    fn begun_by(&self, traceparent: Option<&str>) -> Option<Cause> {
        if let Some(parent) = traceparent.and_then(sampler::parse) {
            return self.followed(parent).map(Cause::Remote);
        }
        let trace = RandomIdGenerator::default().new_trace_id();
        self.sampler.takes(trace, None).then_some(Cause::Nobody(trace))
    }
}

thread_local! {
    /// Id of the trace that begins now on this thread: it was sampled by that id.
    static BEGINS: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// The next span without a parent that starts on this thread begins this trace.
fn begin_trace(trace: TraceId) {
    BEGINS.set(Some(trace));
}

/// Ids of spans, random; of a trace the one it was sampled by.
#[derive(Debug)]
struct Ids;

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        BEGINS.take().unwrap_or_else(|| RandomIdGenerator::default().new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        RandomIdGenerator::default().new_span_id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::time::Instant;
    use storage_engine::trace::Tracer;
    use tracing_subscriber::layer::SubscriberExt;

    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    /// Of a process whose collector is nowhere.
    fn exporting(sampler: Sampler) -> &'static Traces {
        let endpoint = "http://127.0.0.1:9/v1/traces".into();
        let traces = Traces::of(&Asked { endpoint, ca: None, sampler, service: None }).expect("an endpoint");
        Box::leak(Box::new(traces))
    }

    #[tokio::test]
    async fn a_trace_that_begins_here_has_the_id_it_was_sampled_by() {
        let traces = exporting(Sampler::parent_based(0.5));
        let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(of_tracer(&traces.tracer)));
        let begun: Vec<_> = (0..200).filter_map(|_| (&traces).request("PutObject", "b", "k", None)).collect();
        assert!((50..150).contains(&begun.len()), "{} of 200", begun.len());
        for work in &begun {
            let context = sampler::parse(&work.traceparent()).expect("a traceparent");
            assert!(context.is_sampled() && traces.sampler.takes(context.trace_id(), None), "{context:?}");
        }
        assert!((&traces).request("PutObject", "b", "k", Some(UNSAMPLED)).is_none());
    }

    #[tokio::test]
    #[ignore = "it measures: docs/tracing.md has its figures"]
    async fn what_work_that_is_not_sampled_costs() {
        let traces = exporting(Sampler::parent_based(0.0));
        let timed = |what: &str, work: &dyn Fn()| {
            let (began, rounds) = (Instant::now(), 1_000_000);
            (0..rounds).for_each(|_| work());
            println!("{what}: {} ns", began.elapsed().as_nanos() / rounds);
        };
        timed("request without a trace", &|| drop(black_box(traces.begun_by(black_box(None)))));
        timed("request of an unsampled trace", &|| drop(black_box(traces.begun_by(black_box(Some(UNSAMPLED))))));
        timed("commit or push of one", &|| drop(black_box(traces.caused_by(black_box(UNSAMPLED)))));
    }
}
