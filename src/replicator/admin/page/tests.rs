use super::*;
use crate::replicator::report::{PeerReport, ProblemReport};

fn link(place: usize) -> LinkReport {
    LinkReport {
        rule: format!("rule-{place}"),
        bucket: "orders".into(),
        peer: "ams".into(),
        state: "live".into(),
        lag_seconds: Some(place as f64),
        backlog_versions: Some(3),
        backlog_bytes: Some(2048),
        last_error: Some("the peer refused orders/secret-key".into()),
        ..LinkReport::default()
    }
}

fn site(links: usize) -> SiteReport {
    let peer =
        PeerReport { peer: "ams".into(), site: "ams".into(), is_up: true, rtt_ms: Some(18.0), ..PeerReport::default() };
    SiteReport { site: "fra".into(), peers: vec![peer], links: (0..links).map(link).collect(), ..SiteReport::default() }
}

#[test]
fn the_verdict_the_mesh_and_the_worst_link_come_first() {
    let text = html(&site(3), &[], &History::default(), 0);
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in\n{text}"));
    assert!(at("<strong>HEALTHY</strong>") < at("Lag to peers: ams 2.0s"));
    assert!(at("<td>rule-2</td>") < at("<td>rule-1</td>"));
    assert!(at("3 / 2.0KiB") < at("18.0ms"));
    assert!(text.contains("<p>Nothing.</p>") && text.contains("isthmus drill run"));
    assert!(!text.contains("<script") && !text.contains("style="), "the policy allows neither");
}

#[test]
fn no_key_and_no_markup_gets_through() {
    let mut report = site(1);
    report.links[0].rule = "<b onclick=\"x\">&".into();
    report.peers[0].is_up = false;
    report.problems.push(ProblemReport {
        document: "<i>rule".into(),
        reason: "Unknown".into(),
        ..ProblemReport::default()
    });
    let text = html(&report, &[], &History::default(), 0);
    assert!(!text.contains("secret-key"), "{text}");
    assert!(
        text.contains("&lt;b onclick=&quot;x&quot;&gt;&amp;") && !text.contains("<b ") && !text.contains("<i>"),
        "{text}"
    );
    assert!(text.contains("<strong>DEGRADED</strong>") && text.contains("peers down: 1"), "{text}");
}

#[test]
fn a_thousand_links_with_an_hour_of_lag_are_a_small_page() {
    let (report, history) = (site(1000), History::default());
    (0..200).for_each(|_| history.note(&report));
    let text = html(&report, &[], &history, 0);
    println!("{} bytes", text.len() + STYLE.len());
    assert!(text.len() + STYLE.len() < 100_000, "{}", text.len());
    assert!(text.contains("950 more"));
}

#[test]
fn an_hour_has_a_gap_where_the_lag_was_not_known() {
    let text = picture::sparkline(&[Some(0.0), Some(4.0), None, Some(2.0)].into());
    assert_eq!(text.matches("<polyline").count(), 2, "{text}");
    assert!(text.contains("at most 4.0s") && text.contains("points=\"116,19 117,1\""), "{text}");
    assert!(picture::sparkline(&Default::default()).contains("not known"));
}
