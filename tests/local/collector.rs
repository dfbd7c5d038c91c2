//! A stand-in for a collector of traces: takes OTLP posts on a free port and keeps every span, with the site that sent it.
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// One span, as it came.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    pub kind: SpanKind,
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// Span ids it links to.
    pub links: Vec<String>,
    pub events: Vec<String>,
    pub says: BTreeMap<String, String>,
    pub is_failure: bool,
    /// Unix nanoseconds.
    pub began: u64,
    pub ended: u64,
}

impl Span {
    /// What it says under this name; nothing where it says nothing.
    pub fn says(&self, name: &str) -> &str {
        self.says.get(name).map_or("", String::as_str)
    }
}

/// The collector.
pub struct Collector {
    pub addr: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    pub async fn start() -> Collector {
        let spans = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind a collector");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let router = Router::new().route("/v1/traces", post(take)).with_state(spans.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        Collector { addr, spans }
    }

    /// All spans of a trace so far.
    pub fn of(&self, trace: &str) -> Vec<Span> {
        self.all().into_iter().filter(|s| s.trace == trace).collect()
    }

    pub fn all(&self) -> Vec<Span> {
        self.spans.lock().expect("no panic while held").clone()
    }

    /// Waits until a span like this has come.
    pub async fn until(&self, patience: Duration, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = self.all().into_iter().find(|s| is_it(s)) {
                return found;
            }
            assert!(Instant::now() < deadline, "no {what} among {:#?}", self.all());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn take(State(spans): State<Arc<Mutex<Vec<Span>>>>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    let sent = request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
    let seen = sent.map(|s| Span {
        kind: s.kind(),
        name: s.name,
        trace: hex(&s.trace_id),
        id: hex(&s.span_id),
        parent: hex(&s.parent_span_id),
        links: s.links.iter().map(|l| hex(&l.span_id)).collect(),
        events: s.events.into_iter().map(|e| e.name).collect(),
        says: s.attributes.into_iter().map(|a| (a.key, text(a.value.and_then(|v| v.value)))).collect(),
        is_failure: s.status.is_some_and(|s| s.code == 2),
        began: s.start_time_unix_nano,
        ended: s.end_time_unix_nano,
    });
    spans.lock().expect("no panic while held").extend(seen);
    StatusCode::OK
}

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The spans below `root`, a span id or nothing, as an indented text with a line each.
pub fn tree(spans: &[Span], root: &str, line: &dyn Fn(&Span) -> String) -> String {
    let mut text = String::new();
    grow(spans, root, 0, line, &mut text);
    text
}

fn grow(spans: &[Span], parent: &str, depth: usize, line: &dyn Fn(&Span) -> String, text: &mut String) {
    let mut children: Vec<_> = spans.iter().filter(|s| s.parent == parent).collect();
    children.sort_by(|a, b| a.name.cmp(&b.name));
    for span in children {
        writeln!(text, "{}{}", "  ".repeat(depth), line(span)).expect("a String takes every line");
        grow(spans, &span.id, depth + 1, line, text);
    }
}
