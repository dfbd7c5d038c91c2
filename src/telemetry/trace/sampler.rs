//! Which work is traced. Decided before a span is made, so that what is not sampled costs a look at its traceparent.
//!
//! # Source
//! OpenTelemetry specification, "Built-in samplers"; W3C Trace Context, "traceparent Header".
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// A rule of which work is traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Where there is a parent, its word holds.
    follows_parent: bool,
    /// The share of the traces that are sampled otherwise, 0 to 1.
    ratio: f64,
}

impl Sampler {
    /// What its parent says; of the others this share.
    pub fn parent_based(ratio: f64) -> Self {
        Sampler { follows_parent: true, ratio }
    }

    /// This share of all traces, whatever a parent says.
    pub fn of_all(ratio: f64) -> Self {
        Sampler { follows_parent: false, ratio }
    }

    /// Whether work in this trace is traced; `parent`: what its parent says, where it has one. By the id of the trace,
    /// so that all who take the same share take the same traces.
    pub(super) fn takes(&self, trace: TraceId, parent: Option<bool>) -> bool {
        if let (true, Some(says)) = (self.follows_parent, parent) {
            return says;
        }
        let low = u64::from_be_bytes(trace.to_bytes()[8..].try_into().expect("half of 16 bytes"));
        // The greatest ids round up to the whole.
        self.ratio >= 1.0 || ((low >> 1) as f64) < self.ratio * (1u64 << 63) as f64
    }
}

/// Reads a traceparent; `None` where it is none, which is as if it was not sent.
pub(super) fn parse(traceparent: &str) -> Option<SpanContext> {
    let bytes = traceparent.as_bytes();
    let is_formed = bytes.len() == 55 && [2, 35, 52].iter().all(|at| bytes[*at] == b'-');
    if !is_formed || !bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-')) {
        return None;
    }
    let (version, trace, span, flags) =
        (&traceparent[..2], &traceparent[3..35], &traceparent[36..52], &traceparent[53..]);
    if version == "ff" {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags & TraceFlags::SAMPLED, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

/// As a traceparent.
pub(super) fn written(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_as_it_is_written() {
        assert_eq!(parse(SAMPLED).map(|c| written(&c)).as_deref(), Some(SAMPLED));
        let unsampled = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02").expect("it is one");
        assert!(!unsampled.is_sampled());
    }

    #[test]
    fn what_is_no_traceparent_is_as_if_not_sent() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_parent_decides_where_it_is_asked_and_else_the_share() {
        let trace = |low: u64| TraceId::from(u128::from(low));
        let (few, all) = (Sampler::parent_based(0.25), Sampler::of_all(1.0));
        assert!(few.takes(trace(u64::MAX), Some(true)));
        assert!(!few.takes(trace(0), Some(false)));
        assert!(few.takes(trace(u64::MAX / 5), None));
        assert!(!few.takes(trace(u64::MAX / 3), None));
        assert!(all.takes(trace(u64::MAX), Some(false)));
        assert!(!Sampler::of_all(0.0).takes(trace(0), Some(true)));
    }
}
