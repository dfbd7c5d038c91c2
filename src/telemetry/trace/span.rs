//! The names of spans and of what they say, on one page: OpenTelemetry's conventions still change. A span is made only
//! where its work is sampled; keys stand in it as hashes, in clear only while the log shows debug.
use super::sampler::{parse, written};
use super::{Cause, Traces};
use crate::peer::Ack;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _};
use opentelemetry::{Context, KeyValue};
use sha2::{Digest, Sha256};
use std::time::{Duration, UNIX_EPOCH};
use storage_engine::version::VersionId;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Target of our spans: what makes them visible to the exporter, and keeps them out of logs.
pub const TARGET: &str = "isthmus_trace";

const LINK_WAIT: &str = "link.wait";
const LINK_PUSH: &str = "link.push";
const PEER_APPLY: &str = "peer.apply";
const STORE_COMMIT: &str = "store.commit";
/// Event of a `peer.apply`: the version may be read here.
const READABLE: &str = "readable";

const SITE: &str = "isthmus.site";
const BUCKET: &str = "isthmus.bucket";
const KEY: &str = "isthmus.key";
const KEY_HASH: &str = "isthmus.key_hash";
const VERSION_ID: &str = "isthmus.version_id";
const RULE: &str = "isthmus.rule";
const PEER: &str = "isthmus.peer";
const ORIGIN: &str = "isthmus.origin";
const ATTEMPT: &str = "isthmus.attempt";
const BYTES: &str = "isthmus.bytes";
const OUTCOME: &str = "isthmus.outcome";
const ACKS: &str = "isthmus.acks";
const DRIVES: &str = "isthmus.drives";

/// A traced piece of work; it ends when it is dropped.
#[derive(Debug)]
pub struct Work {
    span: tracing::Span,
    context: SpanContext,
}

/// A version on its way.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    pub rule: &'a str,
    pub bucket: &'a str,
    pub peer: &'a str,
    pub key: &'a str,
    pub version: VersionId,
}

impl Work {
    fn begin(traces: &Traces, name: &str, kind: &'static str, cause: Cause, says: Vec<KeyValue>) -> Work {
        let span = tracing::info_span!(target: TARGET, parent: None, "work", otel.name = name, otel.kind = kind);
        match cause {
            Cause::Remote(parent) => {
                // It fails only under a subscriber of somebody else's, which exports nothing.
                let _ = span.set_parent(Context::new().with_remote_span_context(parent));
            }
            Cause::Nobody(trace) => super::begin_trace(trace),
        }
        for attribute in says.into_iter().chain(traces.site()) {
            span.set_attribute(attribute.key, attribute.value);
        }
        let context = span.context().span().span_context().clone();
        Work { span, context }
    }

    /// W3C traceparent for what it causes.
    pub fn traceparent(&self) -> String {
        written(&self.context)
    }

    /// The trace it belongs to, in hexadecimal.
    pub fn trace_id(&self) -> String {
        self.context.trace_id().to_string()
    }

    /// What log lines made under it bear: the id of its trace. As loud as what it is to explain.
    pub fn in_log(&self) -> tracing::Span {
        tracing::error_span!("traced", trace_id = self.trace_id())
    }

    /// How it ended: a word, and why where that is a failure.
    pub fn ended(self, outcome: &'static str, failure: Option<String>) {
        self.span.set_attribute(OUTCOME, outcome);
        if let Some(why) = failure {
            self.span.set_status(Status::error(why));
        }
    }

    /// What this site answers its peer.
    pub fn answered(self, ack: &Ack) {
        let (outcome, failure) = match ack {
            Ack::Applied => {
                self.span.add_event(READABLE, Vec::new());
                ("applied", None)
            }
            Ack::AlreadyPresent => ("already_present", None),
            Ack::Superseded => ("superseded", None),
            Ack::NeedsBody => ("needs_body", None),
            Ack::NeedsPieces { .. } => ("needs_pieces", None),
            Ack::Refused(why) => ("refused", Some(why.to_string())),
            Ack::Retry { why, .. } => ("retry", Some(why.to_string())),
            Ack::ClockAhead { .. } => ("clock_ahead", Some("the version is stamped too far ahead".into())),
            Ack::Fenced { .. } => ("fenced", Some("a newer owner of the link was seen".into())),
        };
        self.ended(outcome, failure);
    }
}

/// The time a change has waited here since its commit, `since` to `now` in Unix milliseconds: the traceparent for its
/// push. `None`: not sampled.
pub fn wait(cause: &str, way: &Way<'_>, since: u64, now: u64) -> Option<String> {
    let traces = super::traces()?;
    let parent = traces.caused_by(cause)?;
    let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(millis);
    let says = of_way(way).into_iter().chain(traces.site()).collect::<Vec<_>>();
    let builder = SpanBuilder::from_name(LINK_WAIT).with_kind(SpanKind::Internal).with_start_time(at(since));
    let builder = builder.with_attributes(says);
    // Its begin is known when it is over: it stands in no code that a `tracing` span could go around.
    let mut span = traces.tracer.build_with_context(builder, &Context::new().with_remote_span_context(parent));
    span.end_with_timestamp(at(now.max(since)));
    Some(written(span.span_context()))
}

/// One attempt to push a version, under the traceparent of its wait; a later attempt names the first.
pub fn push(under: &str, way: &Way<'_>, bytes: u64, attempt: u32, first: Option<&str>) -> Option<Work> {
    let traces = super::traces()?;
    let mut says = of_way(way);
    says.extend([KeyValue::new(BYTES, number(bytes)), KeyValue::new(ATTEMPT, i64::from(attempt))]);
    let work = Work::begin(traces, LINK_PUSH, "client", Cause::Remote(parse(under)?), says);
    if let Some(first) = first.and_then(parse) {
        work.span.add_link(first);
    }
    Some(work)
}

/// A version of a peer's arrives, with this traceparent.
pub fn apply(cause: &str, peer: &str, origin: &str, bucket: &str, key: &str, version: VersionId) -> Option<Work> {
    let traces = super::traces()?;
    let cause = traces.caused_by(cause)?;
    let mut says = of_version(bucket, key);
    says.extend([id(version), KeyValue::new(PEER, peer.to_owned()), KeyValue::new(ORIGIN, origin.to_owned())]);
    Some(Work::begin(traces, PEER_APPLY, "server", Cause::Remote(cause), says))
}

impl storage_engine::trace::Tracer for &'static Traces {
    fn request(
        &self,
        operation: &'static str,
        bucket: &str,
        key: &str,
        parent: Option<&str>,
    ) -> Option<Box<dyn storage_engine::trace::Work>> {
        let cause = self.begun_by(parent)?;
        Some(Box::new(Work::begin(self, &format!("S3.{operation}"), "server", cause, of_version(bucket, key))))
    }

    fn commit(&self, version: VersionId, parent: &str) -> Option<Box<dyn storage_engine::trace::Work>> {
        let cause = Cause::Remote(self.caused_by(parent)?);
        Some(Box::new(Work::begin(self, STORE_COMMIT, "internal", cause, vec![id(version)])))
    }
}

impl storage_engine::trace::Work for Work {
    fn traceparent(&self) -> String {
        Work::traceparent(self)
    }

    fn trace_id(&self) -> String {
        Work::trace_id(self)
    }

    fn made(&self, version: VersionId) {
        self.span.set_attribute(VERSION_ID, version.to_string());
    }

    fn acked(&self, acks: usize, drives: usize) {
        self.span.set_attribute(ACKS, number(acks as u64));
        self.span.set_attribute(DRIVES, number(drives as u64));
    }

    fn failed(&self, why: &str) {
        self.span.set_status(Status::error(why.to_owned()));
    }
}

/// The attribute that names the site.
pub(super) fn site(name: &str) -> KeyValue {
    KeyValue::new(SITE, name.to_owned())
}

fn of_way(way: &Way<'_>) -> Vec<KeyValue> {
    let mut says = of_version(way.bucket, way.key);
    let link = [(RULE, way.rule), (PEER, way.peer)].map(|(name, value)| KeyValue::new(name, value.to_owned()));
    says.extend([id(way.version)].into_iter().chain(link));
    says
}

fn of_version(bucket: &str, key: &str) -> Vec<KeyValue> {
    let hash: String = Sha256::digest(key)[..8].iter().map(|b| format!("{b:02x}")).collect();
    let mut says = vec![KeyValue::new(BUCKET, bucket.to_owned())];
    if key.is_empty() {
        return says; // a request of many keys
    }
    says.push(KeyValue::new(KEY_HASH, hash));
    if tracing::enabled!(tracing::Level::DEBUG) {
        says.push(KeyValue::new(KEY, key.to_owned()));
    }
    says
}

fn id(version: VersionId) -> KeyValue {
    KeyValue::new(VERSION_ID, version.to_string())
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
