//! The board of chosen links: what gets there, how late, and what keeps the rest.
use super::{Board, Choice, Colour, Look, Panel, Unit, WAY, quantile};
use crate::telemetry::shown::STATES;

pub(super) fn board() -> Board {
    Board {
        name: "link",
        title: "isthmus / Link and bucket",
        about: "Chosen buckets and peers: lag against the objective, what gets there, what waits and why.",
        choices: &[Choice::Bucket, Choice::Peer],
        panels: [lateness(), flow(), trouble(), proof()].concat(),
    }
}

const EACH: &str = "{{site}}: {{rule}} to {{peer}}";
/// What tells one link from all others.
const LINK: &str = "site, rule, bucket, peer";

fn lateness() -> Vec<Panel> {
    let ack = "link_commit_to_ack_seconds";
    vec![
        Panel::new(
            Look::Lines,
            "How far behind is each link, and how far may it be?",
            Unit::Seconds,
            "IsthmusLagAboveObjective",
            "Above its objective: `isthmus lag` names the link, `isthmus explain --peer P` the reason.",
        )
        .asks(EACH, format!("max by ({LINK}) (time() - isthmus_link_oldest_pending_timestamp_seconds{{{WAY}}})"))
        .asks("objective of {{rule}}", format!("max by (rule) (isthmus_link_rpo_seconds{{{WAY}}})"))
        .worse_from(60.0, 900.0),
        Panel::new(
            Look::Lines,
            "How long from commit here to durable there?",
            Unit::Seconds,
            "IsthmusLagHigh",
            "p99 far above p50: large objects, retries or limits. All of them up: the line, or the peer's drives. A point is one sampled version: its trace says where its time went.",
        )
        .asks("p50", quantile(0.5, ack, WAY, ""))
        .asks("p99", quantile(0.99, ack, WAY, ""))
        .with_exemplars()
        .asks("p99.9", quantile(0.999, ack, WAY, ""))
        .worse_from(3.0, 60.0)
        .absent("nothing was acked"),
        Panel::new(
            Look::Heatmap,
            "How are these times spread?",
            Unit::Seconds,
            "IsthmusLagHigh",
            "Two bands: two kinds of versions (small and large, two peers). Choose one peer, one bucket.",
        )
        .asks(
            "{{le}}",
            format!("sum by (le) (increase(isthmus_link_commit_to_ack_seconds_bucket{{{WAY}}}[$__rate_interval]))"),
        ),
        Panel::new(
            Look::States,
            "In which state is each link?",
            Unit::Plain,
            "IsthmusLinkStuck",
            "`isthmus status` has the reason of every state that is not live or catching_up.",
        )
        .asks(EACH, states())
        .words(STATES.iter().zip(1u8..).map(|(state, number)| (f64::from(number), *state, colour(state)))),
    ]
}

fn colour(state: &str) -> Colour {
    match state {
        "live" | "catching_up" | "standby" => Colour::Blue,
        "suspended" | "stopped" => Colour::Orange,
        _ => Colour::Vermillion,
    }
}

/// The state of each link as its place in [`STATES`], from 1 on.
fn states() -> String {
    let each = |(state, number): (&&str, u8)| {
        let numbered = format!(r#"isthmus_link_state{{{WAY}, state="{state}"}} == 1"#);
        format!("max by ({LINK}) ({numbered}) * {number}")
    };
    STATES.iter().zip(1u8..).map(each).collect::<Vec<_>>().join(" or ")
}

fn flow() -> Vec<Panel> {
    vec![
        Panel::new(
            Look::Lines,
            "How many versions get there?",
            Unit::VersionsPerSecond,
            "figures.md",
            "already_present in numbers: the same is sent twice, as after a lost place in the feed. None at all with a backlog: stuck.",
        )
        .asks(
            "{{peer}}: {{result}}",
            format!("sum by (peer, result) (rate(isthmus_link_versions_total{{{WAY}}}[$__rate_interval]))"),
        ),
        Panel::new(
            Look::Lines,
            "What kind of changes get there?",
            Unit::VersionsPerSecond,
            "metrics.md",
            "More markers or purges than anybody meant: `isthmus suspend --rule RULE` now, `isthmus backlog --deletes` then.",
        )
        .asks(
            "{{peer}}: {{op}}",
            format!("sum by (peer, op) (rate(isthmus_link_versions_total{{{WAY}}}[$__rate_interval]))"),
        ),
        Panel::new(
            Look::Lines,
            "How many bytes get there?",
            Unit::BytesPerSecond,
            "operating.md",
            "Flat at one height: a limit of bandwidth, or the line is full. Compare with the panel of limits.",
        )
        .asks(
            "{{site}} to {{peer}}",
            format!("sum by (site, peer) (rate(isthmus_link_bytes_total{{{WAY}}}[$__rate_interval]))"),
        ),
        Panel::new(
            Look::Lines,
            "How many versions wait?",
            Unit::Versions,
            "IsthmusBacklogGrows",
            "What stays after everything else went is parked or held: `isthmus backlog`.",
        )
        .asks(EACH, format!("sum by ({LINK}) (isthmus_link_backlog_versions{{{WAY}}})"))
        .worse_from(1000.0, 100_000.0),
        Panel::new(
            Look::Lines,
            "How many bytes wait?",
            Unit::Bytes,
            "IsthmusBacklogGrows",
            "They wait in this site's store, which keeps them: look at its free space if this lasts.",
        )
        .asks(EACH, format!("sum by ({LINK}) (isthmus_link_backlog_bytes{{{WAY}}})"))
        .worse_from(1e9, 1e11),
    ]
}

fn trouble() -> Vec<Panel> {
    vec![
        Panel::new(
            Look::Lines,
            "What fails?",
            Unit::VersionsPerSecond,
            "IsthmusParked",
            "unavailable, digest, drill and clock_ahead go again by themselves. grant, bucket, rejected and own_store are parked after five.",
        )
        .asks(
            "{{peer}}: {{reason}}",
            format!("sum by (peer, reason) (rate(isthmus_link_attempts_failed_total{{{WAY}}}[$__rate_interval]))"),
        )
        .worse_from(1.0, 10.0),
        Panel::new(
            Look::Lines,
            "Do limits hold versions up?",
            Unit::Plain,
            "operating.md",
            "Seconds waited a second, added up over versions. If lag grows with it: raise `bandwidth` or `maxConcurrentTransfers`.",
        )
        .asks(
            "{{site}}: {{rule}} to {{peer}}, {{limit}}",
            format!("sum by ({LINK}, limit) (rate(isthmus_link_throttled_seconds_total{{{WAY}}}[$__rate_interval]))"),
        )
        .worse_from(10.0, 1000.0),
        Panel::new(
            Look::Lines,
            "What does not go by itself, or not yet?",
            Unit::Versions,
            "IsthmusParked",
            "parked: mend and `isthmus retry`. braked: `isthmus release`. clock_ahead: the time service of the writer.",
        )
        .asks(
            "parked, {{reason}}: {{rule}} to {{peer}}",
            format!("sum by (rule, peer, reason) (isthmus_link_parked_versions{{{WAY}}})"),
        )
        .asks("braked: {{rule}} to {{peer}}", format!("sum by (rule, peer) (isthmus_link_braked_versions{{{WAY}}})"))
        .asks(
            "clock ahead: {{rule}} to {{peer}}",
            format!("sum by (rule, peer) (isthmus_link_clock_ahead_versions{{{WAY}}})"),
        )
        .bad_from(1.0),
        Panel::new(
            Look::Lines,
            "Does exactly one process push each link?",
            Unit::Plain,
            "IsthmusLinkWithoutOwner",
            "0: no replicator runs or none reaches the journal. 2 for long: two journals; `isthmus status -o json` names the owner.",
        )
        .asks("{{rule}} to {{peer}}, pods together", format!("sum by (rule, bucket, peer) (isthmus_link_owned{{{WAY}}})"))
        .good_between(1.0, 2.0),
    ]
}

fn proof() -> Vec<Panel> {
    vec![
        Panel::new(
            Look::Number,
            "Did a comparison find differences in 24 h?",
            Unit::Versions,
            "IsthmusDifferences",
            "Each is a bug or a loss at the peer. `isthmus verify RULE` proves where; it was sent again already.",
        )
        .asks("differences", format!("sum(increase(isthmus_link_differences_total{{{WAY}}}[24h]))"))
        .bad_from(0.5),
        Panel::new(
            Look::Number,
            "How old is the proof that the peers hold everything?",
            Unit::Seconds,
            "operating.md",
            "The slow comparison goes on by itself; `isthmus verify RULE` proves it now.",
        )
        .asks("oldest", format!("time() - min(isthmus_link_verified_timestamp_seconds{{{WAY}}})"))
        .worse_from(7.0 * 86_400.0, 30.0 * 86_400.0)
        .absent("no whole pass yet"),
        Panel::new(
            Look::Number,
            "How much of deleted versions is kept?",
            Unit::Versions,
            "decisions/2026-11-22-tombstones-are-kept.md",
            "Tombstones cost an index row each and are never dropped; unacked ones the peer did not have at the last whole comparison.",
        )
        .asks("tombstones", format!("sum(isthmus_link_tombstones{{{WAY}}})"))
        .asks("unacked", format!("sum(isthmus_link_tombstones_unacked{{{WAY}}})"))
        .worse_from(1e7, 1e8)
        .absent("no whole pass yet"),
    ]
}
