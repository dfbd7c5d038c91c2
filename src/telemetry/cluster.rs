//! Whether the API server can be watched and who leads, read at each scrape. Only there where documents come from one.
use crate::replicator::lease::Leadership;
use crate::rule::watch_kube::cluster::Cluster;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use tokio::sync::watch;

/// The API server as a source of metrics.
pub struct Watched {
    pub cluster: Cluster,
    pub leadership: watch::Receiver<Leadership>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({})", self.cluster.namespace)
    }
}

impl Collector for Watched {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let help = "1 while the API server can be watched; links run on without it";
        let up = ConstGauge::new(i64::from(self.cluster.is_up()));
        up.encode(to.encode_descriptor("kube_up", help, None, MetricType::Gauge)?)?;
        let help = "1 where this process leads: it writes status, starts jobs and drills";
        let Leadership { is_ours, transitions, .. } = self.leadership.borrow().clone();
        let leads = ConstGauge::new(i64::from(is_ours));
        leads.encode(to.encode_descriptor("leader", help, None, MetricType::Gauge)?)?;
        let help = "How often the Lease went to another process, as this one saw it last";
        let epoch = ConstGauge::new(transitions);
        epoch.encode(to.encode_descriptor("leader_epoch", help, None, MetricType::Gauge)?)
    }
}
