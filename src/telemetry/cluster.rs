//! Whether the API server can be watched, read at each scrape. Only there where documents come from one.
use crate::rule::watch_kube::cluster::Cluster;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;

/// The API server as a source of metrics.
pub struct Watched(pub Cluster);

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({})", self.0.namespace)
    }
}

impl Collector for Watched {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let help = "1 while the API server can be watched; links run on without it";
        let up = ConstGauge::new(i64::from(self.0.is_up()));
        up.encode(to.encode_descriptor("kube_up", help, None, MetricType::Gauge)?)
    }
}
