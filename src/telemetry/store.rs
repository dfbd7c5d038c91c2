//! What a store node counts, read at each scrape: `isthmus_store_*`.
use super::metrics::{TraceLabels, add, counter};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use std::fmt;
use std::sync::Arc;
use storage_engine::drive::{Drive, Health};
use storage_engine::identity::{Identity, ServerCertificate};
use storage_engine::metrics::{Distribution, Metrics, Times};
use storage_engine::node::StoreNode;

/// Upper bounds of the request histogram in seconds; the last bucket is open.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// An operation: bounded by the codec's names and the private API's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: String,
}

/// Times of requests, by operation; the newest sampled request of each bucket leaves its trace.
#[derive(Clone, Debug)]
struct Seconds(Family<OperationLabels, HistogramWithExemplars<TraceLabels>>);

impl Default for Seconds {
    fn default() -> Self {
        Seconds(Family::new_with_constructor(|| HistogramWithExemplars::new(SECONDS.into_iter())))
    }
}

impl Times for Seconds {
    fn took(&self, operation: &str, seconds: f64, trace_id: Option<&str>) {
        let exemplar = trace_id.map(|id| TraceLabels { trace_id: id.to_owned() });
        let labels = OperationLabels { operation: operation.to_owned() };
        self.0.get_or_create(&labels).observe(seconds, exemplar, None);
    }
}

/// A store node as a source of metrics.
pub struct Counted {
    metrics: Arc<Metrics>,
    seconds: Seconds,
    drives: Vec<Arc<dyn Drive>>,
    /// What the S3 listener shows, where it speaks TLS.
    certificate: Option<Arc<ServerCertificate>>,
    /// What the private API shows, where there is one.
    api: Option<Arc<Identity>>,
}

impl Counted {
    /// What `node` counts from here on.
    pub fn of(node: &StoreNode) -> Self {
        let (metrics, seconds) = (node.metrics(), Seconds::default());
        metrics.time_with(Box::new(seconds.clone()));
        let (certificate, api) = (node.certificate(), node.api_identity());
        Counted { metrics, seconds, drives: node.drives().to_vec(), certificate, api }
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counted({} drives)", self.drives.len())
    }
}

impl Collector for Counted {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let seen = self.metrics.snapshot();
        let mut requests = counter(&mut to, "store_requests", "Requests answered, by operation and status")?;
        for (operation, held) in &seen.requests {
            for (code, count) in held {
                add(&mut requests, &[("operation", operation), ("code", &code.to_string())], *count)?;
            }
        }
        let help = "Seconds of a request to the head of its answer";
        self.seconds.0.encode(to.encode_descriptor("store_request_seconds", help, None, MetricType::Histogram)?)?;
        // One embedded set; more come with the nodes.
        let mut failures = counter(&mut to, "store_quorum_failures", "Requests that found no quorum of drives")?;
        let kinds = [
            ("read", seen.reads_without_quorum),
            ("write", seen.writes_without_quorum),
            ("resolve", seen.attempts_unresolved),
        ];
        for (kind, count) in kinds {
            add(&mut failures, &[("set", "0"), ("kind", kind)], count)?;
        }
        let help = "Records acked while some drive lacked them or their shard";
        let mut below = counter(&mut to, "store_commits_below_target", help)?;
        add(&mut below, &[("set", "0")], seen.commits_below_target)?;
        let help = "Permanent deletes made void by a guard they had not seen";
        let mut voided = counter(&mut to, "store_purges_voided", help)?;
        add(&mut voided, &[], seen.purges_voided)?;
        let help = "S3 clients that did not get through TLS";
        let mut handshakes = counter(&mut to, "store_handshakes_failed", help)?;
        add(&mut handshakes, &[], seen.handshakes_failed)?;
        let mut logins = counter(&mut to, "store_logins_failed", "S3 requests that proved no user")?;
        for (reason, count) in &seen.logins_failed {
            add(&mut logins, &[("reason", reason)], *count)?;
        }
        self.encode_certificates(&mut to)?;
        let mut refused = counter(&mut to, "store_callers_refused", "Callers the private API refused")?;
        for (reason, count) in &seen.callers_refused {
            add(&mut refused, &[("reason", reason)], *count)?;
        }
        self.encode_drives(&mut to)
    }
}

impl Counted {
    /// How long what each listener shows holds; no series where it shows nothing.
    fn encode_certificates(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let s3 = self.certificate.as_ref().map(|shown| ("s3", shown.valid_millis()));
        let api = self.api.as_ref().and_then(|shown| Some(("api", shown.valid_millis()?)));
        let shown: Vec<(&str, (u64, u64))> = s3.into_iter().chain(api).collect();
        let help = "The certificate that the listener shows holds from then on";
        let mut issued =
            to.encode_descriptor("store_certificate_issued_timestamp_seconds", help, None, MetricType::Gauge)?;
        for (listener, (from, _)) in &shown {
            issued.encode_family(&[("listener", *listener)])?.encode_gauge(&(*from as f64 / 1000.0))?;
        }
        let help = "The certificate that the listener shows holds until then";
        let mut expiry =
            to.encode_descriptor("store_certificate_expiry_timestamp_seconds", help, None, MetricType::Gauge)?;
        for (listener, (_, until)) in &shown {
            expiry.encode_family(&[("listener", *listener)])?.encode_gauge(&(*until as f64 / 1000.0))?;
        }
        Ok(())
    }

    fn encode_drives(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let drives: Vec<(String, Health, u64)> =
            self.drives.iter().map(|d| (d.slot().to_string(), d.health(), d.space().0)).collect();
        let help = "1 for the state the drive is in";
        let mut states = to.encode_descriptor("store_drive_state", help, None, MetricType::Gauge)?;
        for (drive, health, _) in &drives {
            for (state, holds) in [("online", health.offline.is_none()), ("offline", health.offline.is_some())] {
                let labels = [("drive", drive.as_str()), ("state", state)];
                states.encode_family(&labels)?.encode_gauge(&i64::from(holds))?;
            }
        }
        let mut free = to.encode_descriptor("store_drive_free_bytes", "Bytes free", None, MetricType::Gauge)?;
        for (drive, _, bytes) in &drives {
            free.encode_family(&[("drive", drive.as_str())])?.encode_gauge(&bytes.cast_signed())?;
        }
        let help = "Seconds of a sync of the commit log";
        let mut fsync = to.encode_descriptor("store_log_fsync_seconds", help, None, MetricType::Histogram)?;
        for (drive, health, _) in &drives {
            let Some(seconds) = &health.fsync_seconds else { continue };
            observe(&mut fsync.encode_family(&[("drive", drive.as_str())])?, seconds)?;
        }
        let help = "Records that shared one sync of the commit log";
        let mut group = to.encode_descriptor("store_group_commit_records", help, None, MetricType::Histogram)?;
        for (drive, health, _) in &drives {
            let Some(records) = &health.group_commit_records else { continue };
            observe(&mut group.encode_family(&[("drive", drive.as_str())])?, records)?;
        }
        Ok(())
    }
}

fn observe(to: &mut MetricEncoder<'_>, seen: &Distribution) -> fmt::Result {
    let bounds = seen.bounds.iter().copied().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(seen.counts.iter().copied()).collect();
    to.encode_histogram::<NoLabelSet>(seen.sum, seen.counts.iter().sum(), &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampled_request_leaves_its_trace_in_its_bucket_and_the_others_none() {
        let seconds = Seconds::default();
        seconds.took("PutObject", 0.004, Some("0af7651916cd43dd8448eb211c80319c"));
        seconds.took("PutObject", 0.2, None);
        let mut registry = crate::telemetry::metrics::registry("fra");
        registry.register("store_request_seconds", "Seconds", seconds.0.clone());
        let shown = crate::telemetry::metrics::text(&[&registry]);
        let bucket = |le: &str| {
            let le = format!("le=\"{le}\"");
            let found = shown.lines().find(|line| line.contains("operation=\"PutObject\"") && line.contains(&le));
            found.and_then(|line| line.split_once("} ")).unwrap_or_else(|| panic!("no {le} in\n{shown}")).1.to_owned()
        };
        assert!(bucket("0.005").starts_with("1 # {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} 0.004"), "{shown}");
        assert_eq!((bucket("0.25"), bucket("0.0025")), ("2".into(), "0".into()));
    }
}
