//! Callers and frames the peer listener refused before anybody was asked: read at each scrape, every reason
//! from 0 on.
use crate::peer::server::{Counters, Refusal};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::Arc;

/// The peer listener as a source of metrics.
#[derive(Debug)]
pub struct Refused(pub Arc<Counters>);

impl Collector for Refused {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let help = "Callers and frames refused by the peer listener itself";
        let mut refused = to.encode_descriptor("peer_listener_refused", help, None, MetricType::Counter)?;
        for why in Refusal::ALL {
            let labels = [("reason", why.label())];
            refused.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&self.0.refused(why), None)?;
        }
        Ok(())
    }
}
