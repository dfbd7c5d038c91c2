//! The board of failover drills: how the last ones went, and what a running one does to clients and links.
use super::{Board, Choice, Colour, Look, Panel, Unit};
use crate::drill::machine::Step;

const PAGE: &str = "drills.md";
const PEER: &str = r#"peer=~"$peer""#;
const NONE: &str = "no drill since the process began";

pub(super) fn board() -> Board {
    Board {
        name: "drill",
        title: "isthmus / Failover drill",
        about: "RPO and RTO of the last drills against their objectives, the steps of one that runs, and what clients see.",
        choices: &[Choice::Peer],
        panels: [figures(), course()].concat(),
    }
}

fn figures() -> Vec<Panel> {
    let figure = |name: &str| format!("max by (peer, type) (isthmus_drill_{name}_seconds{{{PEER}}})");
    let versus = |title, name: &str, todo| {
        Panel::new(Look::Number, title, Unit::Seconds, PAGE, todo)
            .asks("{{type}} to {{peer}}", figure(name))
            .asks("objective: {{type}} to {{peer}}", figure(&format!("{name}_objective")))
            .absent(NONE)
    };
    vec![
        versus(
            "How much would the last drill have lost, and how much may it?",
            "rpo",
            "Above the objective: what was lost is in `isthmus drill report`. Look at lag at that moment.",
        ),
        versus(
            "How long was nobody served, and how long may it be?",
            "rto",
            "Above the objective: `isthmus drill report` has the time of each step.",
        ),
        Panel::new(
            Look::Number,
            "When did the last drill end, and how?",
            Unit::Days,
            PAGE,
            "fail and aborted have their reason in `isthmus drill list`. Rehearse again after mending.",
        )
        .asks(
            "{{result}}: {{type}} to {{peer}}",
            format!("(time() - max by (peer, type, result) (isthmus_drill_last_timestamp_seconds{{{PEER}}})) / 86400"),
        )
        .worse_from(30.0, 90.0)
        .absent(NONE),
        Panel {
            over: Some("90d"),
            ..Panel::new(
                Look::Lines,
                "Do drills get better?",
                Unit::Seconds,
                PAGE,
                "Figures begin with the process; the reports of the last 50 are in `isthmus drill list`.",
            )
        }
        .asks("RPO: {{type}} to {{peer}}", figure("rpo"))
        .asks("RTO: {{type}} to {{peer}}", figure("rto"))
        .absent(NONE),
    ]
}

/// Another one while the fault lasts.
fn colour(step: Step) -> Colour {
    match step {
        Step::Cut | Step::Fence | Step::Drain | Step::Takeover | Step::Measure | Step::Hold => Colour::Orange,
        _ => Colour::Blue,
    }
}

fn course() -> Vec<Panel> {
    let numbers = Step::ALL.iter().map(|step| (f64::from(step.number()), step.name(), colour(*step)));
    vec![
        Panel::new(
            Look::States,
            "Which step is a drill at?",
            Unit::Plain,
            PAGE,
            "`isthmus drill abort` ends it at once; by its deadline it ends by itself, at both sites.",
        )
        .asks("{{type}} to {{peer}}", format!("max by (peer, type) (isthmus_drill_step{{{PEER}}})"))
        .words([(0.0, "none", Colour::Blue)].into_iter().chain(numbers))
        .absent(NONE),
        Panel::new(
            Look::Lines,
            "Do clients see errors?",
            Unit::RequestsPerSecond,
            "IsthmusQuorumFailures",
            "A drill touches its own bucket only: errors here are no part of it.",
        )
        .asks(
            "{{site}}",
            "sum by (site) (rate(isthmus_store_requests_total{code=~\"5..\"}[$__rate_interval])) or sum by (site) (rate(isthmus_store_requests_total[$__rate_interval])) * 0",
        )
        .bad_from(0.1),
        Panel::new(
            Look::Lines,
            "Where do clients write?",
            Unit::RequestsPerSecond,
            PAGE,
            "In a real switch-over writes stop at one site and begin at the other; the gap is what clients feel.",
        )
        .asks(
            "{{site}}: {{operation}}",
            "sum by (site, operation) (rate(isthmus_store_requests_total{operation=~\"PutObject|CompleteMultipartUpload|DeleteObject|DeleteObjects\", code=~\"2..\"}[$__rate_interval]))",
        )
        .absent("nobody writes"),
        Panel::new(
            Look::Lines,
            "How far behind are the links meanwhile?",
            Unit::Seconds,
            "IsthmusLagHigh",
            "The canary's link rises while it is cut and falls after; a rise of any other has another cause.",
        )
        .asks(
            "{{site}}: {{rule}} to {{peer}}",
            format!(
                "max by (site, rule, peer) (time() - isthmus_link_oldest_pending_timestamp_seconds{{{PEER}}})"
            ),
        )
        .worse_from(60.0, 900.0),
    ]
}
