//! Callers and frames the peer listener refused before anybody was asked: read at each scrape, every reason
//! from 0 on.
use super::metrics::{add, counter};
use crate::peer::server::{Counters, Refusal};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt;
use std::sync::Arc;

/// The peer listener as a source of metrics.
#[derive(Debug)]
pub struct Refused(pub Arc<Counters>);

impl Collector for Refused {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        let help = "Callers and frames refused by the peer listener itself";
        let mut refused = counter(&mut to, "peer_listener_refused", help)?;
        for why in Refusal::ALL {
            add(&mut refused, &[("reason", why.label())], self.0.refused(why))?;
        }
        Ok(())
    }
}
