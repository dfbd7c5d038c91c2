//! The board of all sites together: is everything where it should be, and what would be lost now?
use super::{BUCKET, Board, Choice, Colour, Look, Panel, Unit};

/// What tells the ways of a mesh apart: from where, to where, of what.
const LINK: &str = "site, peer, bucket";

pub(super) fn board() -> Board {
    Board {
        name: "mesh",
        title: "isthmus / Mesh",
        about: "All sites together: how far behind the worst link is, who is down, what waits for a person.",
        choices: &[Choice::Bucket],
        panels: [verdicts(), matrix(), peers()].concat(),
    }
}

fn verdicts() -> Vec<Panel> {
    let bytes = format!("sum(isthmus_link_backlog_bytes{{{BUCKET}}})");
    vec![
        Panel::new(
            Look::Number,
            "How stale is the worst link?",
            Unit::Seconds,
            "IsthmusLagHigh",
            "What was acked within this time would be lost with its site. Find the link below; `isthmus explain --peer P` says why.",
        )
        .asks("worst", format!("time() - min(isthmus_link_oldest_pending_timestamp_seconds{{{BUCKET}}})"))
        .worse_from(60.0, 900.0),
        Panel::new(
            Look::Number,
            "When is the backlog drained?",
            Unit::Seconds,
            "IsthmusBacklogGrows",
            "At the rate of the last 5 minutes. Unknown: next to nothing gets through; look at peers and failures.",
        )
        .asks(
            "at this rate",
            format!(
                "{bytes} / clamp_min(sum(rate(isthmus_link_bytes_total{{{BUCKET}}}[5m])), 1) and {bytes} > 0"
            ),
        )
        .worse_from(900.0, 3600.0)
        .said_from(30.0 * 86_400.0, "unknown")
        .absent("nothing waits"),
        Panel::new(
            Look::Number,
            "How many versions are not everywhere yet?",
            Unit::Versions,
            "IsthmusBacklogGrows",
            "Nothing while it falls. If it grows, compare what is written with what gets there on the board of links.",
        )
        .asks("versions", format!("sum(isthmus_link_backlog_versions{{{BUCKET}}})"))
        .worse_from(1000.0, 100_000.0),
        Panel::new(
            Look::Number,
            "Do versions wait for a person?",
            Unit::Versions,
            "IsthmusParked",
            "`isthmus backlog --parked` gives the reason of each; mend it, then `isthmus retry`.",
        )
        .asks("parked", format!("sum(isthmus_link_parked_versions{{{BUCKET}}})"))
        .bad_from(1.0),
        Panel::new(
            Look::Number,
            "Does a brake hold deletes?",
            Unit::Versions,
            "IsthmusBrakeEngaged",
            "`isthmus backlog --deletes` shows them. Wanted: `isthmus release RULE`. Not wanted: restore first.",
        )
        .asks("deletes", format!("sum(isthmus_link_braked_versions{{{BUCKET}}})"))
        .bad_from(1.0),
        Panel::new(
            Look::Number,
            "How many conflicts in 24 h?",
            Unit::Versions,
            "concepts.md",
            "Both versions of each are kept: nothing is lost. `isthmus conflicts` shows which reads as newer, and why.",
        )
        .asks("{{kind}}", "sum by (kind) (increase(isthmus_conflicts_total[24h]))")
        .worse_from(100.0, 10_000.0),
        Panel::new(
            Look::Number,
            "Are documents not in force?",
            Unit::Plain,
            "IsthmusRulesRejected",
            "`isthmus status` names each with file, line and reason.",
        )
        .asks("rejected", r#"sum(isthmus_rules{state="rejected"})"#)
        .bad_from(1.0),
        Panel::new(
            Look::Number,
            "How long ago was the last drill?",
            Unit::Days,
            "drills.md",
            "Rehearse: `isthmus drill run --peer P`. A drill touches its own bucket only.",
        )
        .asks("days", "(time() - max(isthmus_drill_last_timestamp_seconds)) / 86400")
        .worse_from(30.0, 90.0)
        .absent("none since the process began"),
    ]
}

fn matrix() -> Vec<Panel> {
    let links = |how: &str, of: &str| format!("{how} by ({LINK}) ({of})");
    vec![
        Panel::new(
            Look::Table,
            "From where to where is what behind, and is it getting better?",
            Unit::Plain,
            "IsthmusLagHigh",
            "A lag that grows with a backlog that grows: the peer is away or the line too thin. One that grows alone: one version waits.",
        )
        .asks_in(
            Some(Unit::Seconds),
            "lag",
            links("max", &format!("time() - isthmus_link_oldest_pending_timestamp_seconds{{{BUCKET}}}")),
        )
        .asks_in(
            Some(Unit::Versions),
            "backlog",
            links("sum", &format!("isthmus_link_backlog_versions{{{BUCKET}}}")),
        )
        .asks_in(
            Some(Unit::Versions),
            "change in 1 h",
            links("sum", &format!("delta(isthmus_link_backlog_versions{{{BUCKET}}}[1h])")),
        )
        .asks_in(Some(Unit::Versions), "parked", links("sum", &format!("isthmus_link_parked_versions{{{BUCKET}}}"))),
        Panel::new(
            Look::Lines,
            "In which state are the links?",
            Unit::Plain,
            "IsthmusLinkStuck",
            "live and catching_up are well. For any other, `isthmus status` has the reason, `isthmus explain --peer P` more.",
        )
        .asks("{{state}}", format!("sum by (state) (isthmus_link_state{{{BUCKET}}})")),
        Panel::new(
            Look::Lines,
            "How far behind is each peer?",
            Unit::Seconds,
            "IsthmusLagAboveObjective",
            "One line that rises by a second a second: nothing at all gets there. Several with one peer: that peer; with one site: that site.",
        )
        .asks(
            "{{site}} to {{peer}}",
            format!(
                "max by (site, peer) (time() - isthmus_link_oldest_pending_timestamp_seconds{{{BUCKET}}})"
            ),
        )
        .worse_from(60.0, 900.0),
    ]
}

fn peers() -> Vec<Panel> {
    vec![
        Panel::new(
            Look::States,
            "Which peers answer?",
            Unit::Plain,
            "IsthmusPeerDown",
            "Down: network, certificate or process; `isthmus explain --peer P` has the error. Changes wait in the feed, nothing is lost.",
        )
        .asks("{{site}} sees {{peer}}", "min by (site, peer) (isthmus_peer_up)")
        .words([(0.0, "down", Colour::Vermillion), (1.0, "up", Colour::Blue)])
        .good_from(1.0, 1.0),
        Panel::new(
            Look::Lines,
            "How far away are the peers?",
            Unit::Seconds,
            "figures.md",
            "Distance costs little by itself (figures). A jump is another route or a line that is full.",
        )
        .asks("{{site}} to {{peer}}", "max by (site, peer) (isthmus_peer_rtt_seconds)")
        .worse_from(0.3, 1.0)
        .absent("no peer answers"),
        Panel::new(
            Look::Lines,
            "Do the clocks agree?",
            Unit::Seconds,
            "IsthmusClockOff",
            "A peer that is off against all others: mend its time service. From 60 s on its versions wait at the others.",
        )
        .asks("{{site}} sees {{peer}}", "max by (site, peer) (abs(isthmus_peer_clock_offset_seconds))")
        .worse_from(0.5, 5.0)
        .absent("no peer answers"),
        Panel::new(
            Look::Lines,
            "How long do the peers' certificates hold?",
            Unit::Days,
            "IsthmusPeerDown",
            "Near 0: the peer's certificate was not renewed, and soon nothing gets there. `isthmus certs` there shows its files.",
        )
        .asks(
            "{{site}} sees {{peer}}",
            "(min by (site, peer) (isthmus_peer_certificate_expiry_timestamp_seconds) - time()) / 86400",
        )
        .absent("no peer answers"),
        Panel::new(
            Look::Lines,
            "Who is refused?",
            Unit::RequestsPerSecond,
            "operating.md",
            "What a proven peer sent and may not: its rules and the `inbound` of its Peer document here do not fit.",
        )
        .asks(
            "{{peer}}: {{reason}}",
            "sum by (peer, reason) (rate(isthmus_peer_frames_refused_total[$__rate_interval]))",
        )
        .asks(
            "listener: {{reason}}",
            "sum by (reason) (rate(isthmus_peer_listener_refused_total[$__rate_interval]))",
        )
        .bad_from(0.1)
        .absent("nobody"),
    ]
}
