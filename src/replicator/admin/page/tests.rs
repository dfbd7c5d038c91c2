use super::*;
use crate::drill::Plan;
use crate::drill::report::Verdict;
use crate::journal::Conflict;
use crate::replicator::report::{DriveReport, OtherCertificate, PeerReport, ProblemReport, StoreReport};
use crate::replicator::told::RowReport;

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

/// As anybody reads it, while nothing waits.
fn shown(report: &SiteReport, history: &History) -> String {
    let none = Waiting { parked: Some(Vec::new()), conflicts: Some(Vec::new()) };
    html(report, &none, Reader::Anybody, &[], history, 0)
}

/// So many parked versions and conflicts of keys with this end.
fn waiting(versions: usize, key: &str) -> Waiting {
    let row = |n| RowReport {
        rule: "rule-0".into(),
        bucket: "orders".into(),
        peer: "ams".into(),
        key: format!("{n}{key}"),
        version_id: format!("019a0000-0000-7000-8000-{n:012}"),
        is_parked: true,
        reason: format!("the peer refused orders/{key}"),
        ..RowReport::default()
    };
    let pair = |n| Conflict {
        bucket: "orders".into(),
        key: format!("{n}{key}"),
        later: "later-id".into(),
        earlier: "earlier-id".into(),
        seen_millis: 0,
    };
    Waiting { parked: Some((0..versions).map(row).collect()), conflicts: Some((0..versions).map(pair).collect()) }
}

#[test]
fn the_verdict_the_mesh_and_the_worst_link_come_first() {
    let text = shown(&site(3), &History::default());
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in\n{text}"));
    assert!(at("<strong>HEALTHY</strong>") < at("Lag to peers: ams 2.0s"));
    assert!(at("<td>rule-2</td>") < at("<td>rule-1</td>"));
    assert!(at("3 / 2.0KiB") < at("18.0ms"));
    assert!(text.contains("<p>Nothing.</p>") && text.contains("isthmus drill run"));
    assert!(!text.contains("<script") && !text.contains("style="), "the policy allows neither");
}

#[test]
fn drives_clocks_and_certificates_are_shown_as_far_as_they_are_known() {
    let mut report = site(1);
    let text = shown(&report, &History::default());
    assert!(text.contains("<p>Not known now.</p>") && !text.contains("drives offline"), "{text}");
    let drive = |drive, offline| DriveReport { drive, offline, free_bytes: 3 << 30, total_bytes: 4 << 30 };
    let drives = vec![drive(0, None), drive(1, Some("No such file: /secret/path".into()))];
    report.store = Some(StoreReport { drives, below_target: 7, ..StoreReport::default() });
    report.peers[0].clock_offset_ms = Some(-700);
    report.peers[0].certificate_until = Some(1_800_000_000_000);
    let text = shown(&report, &History::default());
    for told in ["<td>3.0GiB</td>", ">offline</span>", "drives offline: 1", "began: 7.", "-700ms", "2027-01-15"] {
        assert!(text.contains(told), "no {told} in\n{text}");
    }
    assert!(!text.contains("/secret/path"), "paths are for the socket: {text}");
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
    let text = shown(&report, &History::default());
    assert!(!text.contains("secret-key"), "{text}");
    assert!(
        text.contains("&lt;b onclick=&quot;x&quot;&gt;&amp;") && !text.contains("<b ") && !text.contains("<i>"),
        "{text}"
    );
    assert!(text.contains("<strong>DEGRADED</strong>"), "{text}");
}

#[test]
fn who_is_down_since_when_and_what_to_type_comes_first_and_why_to_who_may_know() {
    let mut report = site(1);
    let peer = &mut report.peers[0];
    (peer.is_up, peer.last_seen, peer.last_error) =
        (false, Some(1_800_000_000_000), Some("connection <refused>".into()));
    let open = shown(&report, &History::default());
    let told = "peer ams is down since 2027-01-15 08:00:00Z (<code>isthmus explain --peer ams</code>)";
    let at = |what: &str| open.find(what).unwrap_or_else(|| panic!("no {what} in\n{open}"));
    assert!(at("DEGRADED") < at(told) && at(told) < at("Lag to peers"), "{open}");
    assert!(!open.contains("connection &lt;refused&gt;") && !open.contains("secret-key"), "{open}");
    let none = Waiting { parked: Some(Vec::new()), conflicts: Some(Vec::new()) };
    let trusted = html(&report, &none, Reader::Trusted, &[], &History::default(), 0);
    assert!(trusted.contains("<td>connection &lt;refused&gt;</td>"), "{trusted}");
    assert!(trusted.contains("<td>the peer refused orders/secret-key</td>"), "{trusted}");
    report.peers[0].last_seen = None;
    assert!(shown(&report, &History::default()).contains("down since before the process began"));
}

#[test]
fn a_conflict_is_no_task_and_a_backlog_has_an_end_or_none_that_is_known() {
    let (mut report, history) = (site(1), History::default());
    report.conflicts = 49;
    let waiting = waiting(1, "key");
    let text = html(&report, &waiting, Reader::Anybody, &[], &history, 0);
    assert!(text.contains("<p>Nothing.</p>") && text.contains("Since the process began: 49."), "{text}");
    assert!(text.contains("<td>unknown</td>"), "its backlog does not shrink: {text}");
    (report.links[0].measured_at, report.links[0].backlog_versions) = (1_000, Some(300));
    history.note(&report);
    (report.links[0].measured_at, report.links[0].backlog_versions) = (31_000, Some(100));
    assert!(shown(&report, &history).contains("<td>15.0s</td>"));
    report.links[0].backlog_versions = Some(0);
    assert!(!shown(&report, &history).contains("<td>unknown</td>"));
}

#[test]
fn certificates_are_listed_the_first_to_end_first_with_what_is_left() {
    let mut report = site(1);
    assert!(shown(&report, &History::default()).contains("<p>None is shown or seen.</p>"));
    let until = |hours: u64| Certificate { issued_at: 0, expires_at: hours * 3_600_000 };
    report.peers[0].certificate_until = Some(until(200).expires_at);
    (report.certificate, report.authorities) = (Some(until(25)), Some(until(9_000)));
    let whose = "the <S3> listener's".to_owned();
    report.other_certificates = vec![OtherCertificate { whose, holds: until(100) }];
    let text = html(&report, &Waiting::default(), Reader::Anybody, &[], &History::default(), 24 * 3_600_000);
    let rows: Vec<_> = ["this site's", "the &lt;S3&gt; listener's", "peer ams's", "the CAs this site believes"]
        .iter()
        .map(|whose| text.find(&format!("<td>{whose}</td>")).unwrap_or_else(|| panic!("no {whose} in\n{text}")))
        .collect();
    assert!(rows.is_sorted(), "{rows:?}");
    assert!(text.contains("<span class=\"bad\">1h</span>") && text.contains("<span class=\"ok\">3d</span>"), "{text}");
}

#[test]
fn drills_say_how_many_passed_and_how_to_read_them() {
    let drill = |id: &str, verdict| {
        let mut report = Report::begun(Plan { peer: "ams".into(), ..Plan::of_a_former_life(id) }, "fra", 0);
        report.verdict = verdict;
        report
    };
    let drills = [drill("0123456789ab", Verdict::Pass), drill("ba9876543210", Verdict::Fail)];
    let text = html(&site(1), &Waiting::default(), Reader::Anybody, &drills, &History::default(), 0);
    assert!(text.contains("<p>1 of the last 2 passed.</p>"), "{text}");
    assert!(text.contains("<code>isthmus drill report ba9876543210</code>"), "{text}");
}

#[test]
fn what_waits_is_listed_with_its_command_and_its_key_is_text() {
    let mut report = site(1);
    report.links[0].parked_versions = 3;
    let waiting = waiting(1, "<img src=x onerror=\"go()\">&amp;'");
    let text = html(&report, &waiting, Reader::Trusted, &[], &History::default(), 0);
    for part in [
        "<td>orders/0&lt;img src=x onerror=&quot;go()&quot;&gt;&amp;amp;'</td>",
        "<code>isthmus retry rule-0 --version 019a0000-0000-7000-8000-000000000000</code>",
        "<td>the peer refused orders/&lt;img",
        r"<code>isthmus explain 'orders/0&lt;img src=x onerror=&quot;go()&quot;&gt;&amp;amp;'\'''</code>",
        "<p>2 more: <code>isthmus backlog --parked</code></p>",
        "<td>later-id</td><td>earlier-id</td>",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert!(!text.contains("<img"), "{text}");

    let open = html(&report, &waiting, Reader::Anybody, &[], &History::default(), 0);
    assert!(!open.contains("onerror") && open.contains("page_token_file"), "{open}");
    assert!(open.contains("isthmus retry rule-0 --version") && open.contains("isthmus conflicts"), "{open}");
}

#[test]
fn what_is_not_known_here_is_said() {
    let mut report = site(2);
    (report.links[1].state, report.links[1].owner) = ("standby".into(), Some("<fra-2>".into()));
    let text = html(&report, &Waiting::default(), Reader::Trusted, &[], &History::default(), 0);
    assert!(text.contains("parked versions of 1 links that another replicator pushes (&lt;fra-2&gt;)"), "{text}");
    assert!(text.contains("the links did not answer") && text.contains("the journal did not answer"), "{text}");
    assert!(shown(&site(1), &History::default()).contains("<p>None.</p>"));
}

#[test]
fn a_thousand_links_with_an_hour_of_lag_and_full_lists_are_a_small_page() {
    let (mut report, history) = (site(1000), History::default());
    report.problems = vec![ProblemReport { document: "d".repeat(200), ..ProblemReport::default() }; 100];
    for round in 0..200 {
        report
            .links
            .iter_mut()
            .for_each(|l| l.lag_seconds = l.lag_seconds.map(|lag| 999.0 - lag + f64::from(round % 2)));
        history.note(&report);
    }
    report.links[0].parked_versions = 1000;
    let waiting = waiting(1000, &"\"<".repeat(500));
    let began = std::time::Instant::now();
    let text = html(&report, &waiting, Reader::Trusted, &[], &history, 0);
    println!("{} bytes in {:?}", text.len() + STYLE.len(), began.elapsed());
    assert!(text.len() + STYLE.len() < 100_000, "{}", text.len());
    let more = |verb: &str| text.contains(&format!(" more: <code>{verb}</code>"));
    assert!(more("isthmus status") && more("isthmus backlog --parked") && more("isthmus conflicts --limit 1000"));
    assert!(text.matches("<td>rule-").count() > 30, "some of each are shown");
}

#[test]
fn an_hour_has_a_gap_where_the_lag_was_not_known() {
    let text = picture::sparkline(&[Some(0.0), Some(4.0), None, Some(2.0)].into());
    assert_eq!(text.matches("<polyline").count(), 2, "{text}");
    assert!(text.contains("at most 4.0s") && text.contains("points=\"116,19 117,1\""), "{text}");
    assert!(picture::sparkline(&Default::default()).contains("not known"));
    assert!(text.ends_with(">at most 4.0s</span>"), "its scale can be read: {text}");
}
