//! The catalogue of metrics against what there is: the names that are registered, and types and labels of what processes show.
use isthmus::telemetry::catalogue::{self, Described, Kind};
use std::collections::{BTreeMap, BTreeSet};

/// What three sites without Kubernetes have no reason to show: an API server, S3 over TLS and a rule's promise; what is absent
/// where all is well.
const ELSEWHERE: [&str; 8] = [
    "leader",
    "leader_epoch",
    "kube_up",
    "link_rpo_seconds",
    "link_oldest_tombstone_timestamp_seconds",
    "store_certificate_issued_timestamp_seconds",
    "store_certificate_expiry_timestamp_seconds",
    "peer_frames_refused",
];

/// What was shown, held against the catalogue.
#[derive(Default)]
pub struct Held {
    seen: BTreeSet<&'static str>,
    pub faults: BTreeSet<String>,
}

impl Held {
    /// Holds one process' OpenMetrics text against it.
    pub fn take(&mut self, text: &str) {
        let described: BTreeMap<&str, Described> = catalogue::all().map(|m| (m.name, m)).collect();
        for line in text.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE isthmus_").and_then(|rest| rest.split_once(' ')) {
                match described.get(name) {
                    Some(metric) if metric.kind.word() == kind => {}
                    Some(metric) => _ = self.faults.insert(format!("{name} is a {kind}, not a {}", metric.kind.word())),
                    None => _ = self.faults.insert(format!("{name} is not in the catalogue")),
                }
            } else if let Some(series) = line.strip_prefix("isthmus_") {
                self.series(&described, series);
            }
        }
    }

    fn series(&mut self, described: &BTreeMap<&str, Described>, series: &str) {
        let (name, rest) = series.split_once('{').expect("every series says its site");
        let (labels, _) = rest.split_once("} ").expect("a value behind its labels");
        let ends = ["_total", "_bucket", "_count", "_sum"];
        let is_of = |m: &&Described| ends.iter().any(|end| name.strip_suffix(end) == Some(m.name));
        let Some(metric) = described.get(name).or_else(|| described.values().find(is_of)) else {
            self.faults.insert(format!("{name} is not in the catalogue"));
            return;
        };
        self.seen.insert(metric.name);
        let has: BTreeSet<&str> = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0)).collect();
        let bound = (metric.kind == Kind::Histogram && name.ends_with("_bucket")).then_some("le");
        let expected: BTreeSet<&str> = metric.labels.iter().copied().chain(["site"]).chain(bound).collect();
        if has != expected {
            self.faults.insert(format!("{name} has the labels {has:?}, not {expected:?}"));
        }
    }

    /// Metrics that nobody showed.
    pub fn unseen(&self) -> Vec<&'static str> {
        let is_missing = |name: &&'static str| !self.seen.contains(name) && !ELSEWHERE.contains(name);
        catalogue::all().map(|metric| metric.name).filter(is_missing).collect()
    }
}

#[test]
fn the_catalogue_has_each_metric_that_is_registered_and_no_other() {
    let named: BTreeSet<String> = catalogue::all().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(named, crate::registered());
}

#[test]
fn a_type_a_label_and_a_name_that_the_catalogue_does_not_have_are_found() {
    let faults = |text: &str| {
        let mut held = Held::default();
        held.take(text);
        held.faults.into_iter().collect::<Vec<_>>().join("; ")
    };
    let well = "# TYPE isthmus_peer_up gauge\nisthmus_peer_up{site=\"fra\",peer=\"a,b=c\"} 1\n";
    assert_eq!(faults(well), "");
    assert_eq!(faults(&well.replace("gauge", "counter")), "peer_up is a counter, not a gauge");
    assert!(faults(&well.replace("peer=", "key=")).contains("has the labels"));
    assert!(faults(&well.replace("peer_up", "peer_down")).contains("peer_down is not in the catalogue"));
    let bucket = "isthmus_journal_commit_seconds_bucket{site=\"fra\",le=\"1.0\"} 1 # {trace_id=\"x\"} 1\n";
    assert_eq!(
        (faults(bucket), faults(&bucket.replace("le=\"1.0\"", "le=\"1.0\",x=\"\"")).is_empty()),
        (String::new(), false)
    );
}
