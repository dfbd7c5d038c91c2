//! What became of spans, read at each scrape: only where traces are exported.
use super::metrics::{add, counter};
use super::trace::Counts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt;
use std::sync::Arc;

/// The exporter of traces as a source of metrics.
#[derive(Debug)]
pub struct Spans(pub Arc<Counts>);

impl Collector for Spans {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let help = "Spans that ended, by whether the collector took them";
        let mut spans = counter(&mut to, "trace_spans", help)?;
        for (result, count) in [("exported", self.0.exported()), ("dropped", self.0.dropped())] {
            add(&mut spans, &[("result", result)], count)?;
        }
        Ok(())
    }
}
