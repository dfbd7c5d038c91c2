//! What a site shows of its links, peers and documents, as gauges: made from the same snapshot as `isthmus status` at
//! each scrape, so that the two cannot disagree. What cannot be known is absent.
use super::metrics::{LinkLabels, PeerLabels, registry};
use crate::replicator::report::{LinkReport, SiteReport};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

type Seconds = Gauge<f64, AtomicU64>;

/// Every state a link can be in; one of them is 1.
pub const STATES: [&str; 8] =
    ["live", "catching_up", "peer_down", "suspended", "braked", "stopped", "blocked", "standby"];

/// A link and a word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    rule: String,
    bucket: String,
    peer: String,
    state: &'static str,
}

/// Every state a link's reading of the own store's feed can be in; one of them is 1.
pub const FEEDS: [&str; 3] = ["live", "incomplete", "expired"];

/// How many documents are, and are not, in force.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    state: &'static str,
}

/// What the journal keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabels {
    table: String,
}

/// What runs here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

fn labels(link: &LinkReport) -> LinkLabels {
    LinkLabels { rule: link.rule.clone(), bucket: link.bucket.clone(), peer: link.peer.clone() }
}

/// The gauges of `report`.
pub fn registry_of(report: &SiteReport) -> Registry {
    let mut all = registry(&report.site);
    build(&mut all);
    links(&mut all, report);
    peers(&mut all, report);
    let rules = Family::<RuleLabels, Gauge>::default();
    let accepted: std::collections::BTreeSet<&str> = report.links.iter().map(|l| l.rule.as_str()).collect();
    rules.get_or_create(&RuleLabels { state: "accepted" }).set(count(accepted.len()));
    rules.get_or_create(&RuleLabels { state: "rejected" }).set(count(report.problems.len()));
    certificates(&mut all, report);
    journal(&mut all, report);
    all.register("rules", "Rules with links, and documents that are not in force", rules);
    all
}

fn build(all: &mut Registry) {
    let info = Family::<BuildLabels, Gauge>::default();
    info.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
    all.register("build_info", "1 for the version of this process", info);
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn certificates(all: &mut Registry, report: &SiteReport) {
    let seconds = |millis: u64| {
        let gauge = Seconds::default();
        gauge.set(millis as f64 / 1000.0);
        gauge
    };
    if let Some(own) = report.certificate {
        let issued = "The peer listener's certificate holds from then on";
        all.register("certificate_issued_timestamp_seconds", issued, seconds(own.issued_at));
        all.register("certificate_expiry_timestamp_seconds", "It holds until then", seconds(own.expires_at));
    }
    if let Some(first) = report.authorities {
        let issued = "The first CA bundle to come to its end holds from then on";
        all.register("certificate_authority_issued_timestamp_seconds", issued, seconds(first.issued_at));
        let expiry = "It holds until then";
        all.register("certificate_authority_expiry_timestamp_seconds", expiry, seconds(first.expires_at));
    }
}

fn journal(all: &mut Registry, report: &SiteReport) {
    let Some(journal) = &report.journal else { return };
    let rows = Family::<TableLabels, Gauge>::default();
    for (table, count) in &journal.rows {
        rows.get_or_create(&TableLabels { table: table.clone() }).set(count.cast_signed());
    }
    all.register("journal_rows", "Rows the journal keeps, counted once a minute", rows);
    if let Some(bytes) = journal.free_bytes {
        let free = Gauge::<i64>::default();
        free.set(bytes.cast_signed());
        all.register("journal_free_bytes", "Bytes left where the journal's file lies", free);
    }
}

fn links(all: &mut Registry, report: &SiteReport) {
    let (state, rpo) = (Family::<StateLabels, Gauge>::default(), Family::<LinkLabels, Seconds>::default());
    let feed = Family::<StateLabels, Gauge>::default();
    let (retry, existing) = (Family::<LinkLabels, Gauge>::default(), Family::<LinkLabels, Gauge>::default());
    for link in &report.links {
        if link.is_pushed_here() {
            retry.get_or_create(&labels(link)).set(link.retry_versions.cast_signed());
            let is = if link.compares {
                "expired"
            } else if link.feed_stalls {
                "incomplete"
            } else {
                "live"
            };
            for state in FEEDS {
                let LinkLabels { rule, bucket, peer } = labels(link);
                feed.get_or_create(&StateLabels { rule, bucket, peer, state }).set(i64::from(is == state));
            }
        }
        if let Some(versions) = link.existing_versions {
            existing.get_or_create(&labels(link)).set(versions.cast_signed());
        }
        let LinkLabels { rule, bucket, peer } = labels(link);
        for name in STATES {
            let labels = StateLabels { rule: rule.clone(), bucket: bucket.clone(), peer: peer.clone(), state: name };
            state.get_or_create(&labels).set(i64::from(link.state == name));
        }
        if let Some(seconds) = link.rpo_seconds {
            rpo.get_or_create(&labels(link)).set(seconds);
        }
    }
    all.register("link_state", "1 for the state the link is in", state);
    all.register("link_feed_state", "1 for how the link reads the feed of the own store", feed);
    all.register("link_rpo_seconds", "The recovery point objective the rule promises", rpo);
    all.register("link_retry_versions", "Of the backlog: versions that failed and go again by themselves", retry);
    all.register("link_existing_versions", "Of the backlog: versions of the pass over existing objects", existing);
}

fn peers(all: &mut Registry, report: &SiteReport) {
    let (up, rtt) = (Family::<PeerLabels, Gauge>::default(), Family::<PeerLabels, Seconds>::default());
    let [seen, clock, until] = [(); 3].map(|()| Family::<PeerLabels, Seconds>::default());
    for peer in &report.peers {
        let labels = PeerLabels { peer: peer.peer.clone() };
        up.get_or_create(&labels).set(i64::from(peer.is_up));
        if let Some(ms) = peer.rtt_ms {
            rtt.get_or_create(&labels).set(ms / 1000.0);
        }
        if let Some(millis) = peer.clock_offset_ms {
            clock.get_or_create(&labels).set(millis as f64 / 1000.0);
        }
        for (gauge, millis) in [(&seen, peer.last_seen), (&until, peer.certificate_until)] {
            if let Some(millis) = millis {
                gauge.get_or_create(&labels).set(millis as f64 / 1000.0);
            }
        }
    }
    all.register("peer_up", "1 while the peer answers", up);
    all.register("peer_rtt_seconds", "Round trip of the last ping, while the peer answers", rtt);
    all.register("peer_last_seen_timestamp_seconds", "When the peer was connected last", seen);
    all.register("peer_clock_offset_seconds", "How far the peer's clock is ahead of this site's", clock);
    all.register("peer_certificate_expiry_timestamp_seconds", "The certificate the peer shows holds until then", until);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicator::report::JournalReport;

    #[test]
    fn parts_of_a_backlog_are_shown_where_they_are_known() {
        let link = |rule: &str| LinkReport { rule: rule.into(), state: "live".into(), ..LinkReport::default() };
        let known = LinkReport { measured_at: 1, retry_versions: 3, existing_versions: Some(5), ..link("known") };
        let standby = LinkReport { state: "standby".into(), ..link("elsewhere") };
        let rows = [("link_row".to_string(), 7)].into();
        let journal = Some(JournalReport { rows, free_bytes: Some(11) });
        let report = SiteReport { site: "fra".into(), links: vec![known, standby], journal, ..SiteReport::default() };
        let shown = super::super::metrics::text(&[&registry_of(&report)]);
        for (name, value) in [("retry", 3), ("existing", 5)] {
            let of: Vec<_> =
                shown.lines().filter(|l| l.starts_with(&format!("isthmus_link_{name}_versions{{"))).collect();
            assert!(
                of.len() == 1 && of[0].contains("rule=\"known\"") && of[0].ends_with(&format!(" {value}")),
                "{of:?}"
            );
        }
        for line in [r#"rows{site="fra",table="link_row"} 7"#, r#"free_bytes{site="fra"} 11"#] {
            assert!(shown.contains(&format!("isthmus_journal_{line}\n")), "{shown}");
        }
        assert!(shown.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")), "{shown}");
    }
    #[test]
    fn a_link_reads_the_feed_in_one_of_three_ways_and_one_that_is_not_pushed_here_in_none() {
        let link = |rule: &str| LinkReport { rule: rule.into(), measured_at: 1, ..LinkReport::default() };
        let links = vec![
            link("well"),
            LinkReport { feed_stalls: true, ..link("short") },
            LinkReport { feed_stalls: true, compares: true, ..link("lost") },
            LinkReport { state: "standby".into(), ..link("elsewhere") },
        ];
        let shown = super::super::metrics::text(&[&registry_of(&SiteReport { links, ..SiteReport::default() })]);
        let feeds: Vec<_> = shown.lines().filter(|l| l.starts_with("isthmus_link_feed_state{")).collect();
        assert_eq!(feeds.len(), 9, "{feeds:?}");
        for (rule, state) in [("well", "live"), ("short", "incomplete"), ("lost", "expired")] {
            let is = |l: &&&str| l.contains(&format!("rule=\"{rule}\"")) && l.ends_with(" 1");
            let now: Vec<_> = feeds.iter().filter(is).collect();
            assert!(now.len() == 1 && now[0].contains(&format!("state=\"{state}\"")), "{rule}: {now:?}");
        }
    }
}
