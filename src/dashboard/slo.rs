//! The board of the objective: 99.9 % of versions durable at the peer within 60 s, over 30 days.
use super::{BUCKET, Board, Choice, Look, Panel, Unit};

/// Share of versions that may be late.
const BUDGET: &str = "0.001";

pub(super) fn board() -> Board {
    Board {
        name: "slo",
        title: "isthmus / Objective",
        about: "99.9 % of versions, deletes included, durable at the peer within 60 s, over 30 days: attained, left, burning?",
        choices: &[Choice::Bucket],
        panels: [standing(), burning()].concat(),
    }
}

/// Share of versions that were late, over a window, by these labels.
fn late(how: &str, window: &str, by: &str) -> String {
    let by = if by.is_empty() { String::new() } else { format!(" by ({by})") };
    let of =
        |selector: &str| format!("sum{by} ({how}(isthmus_link_slo_versions_total{{{BUCKET}{selector}}}[{window}]))");
    let floor = if how == "rate" { "1e-9" } else { "1" };
    format!("{} / clamp_min({}, {floor})", of(r#", outcome="late""#), of(""))
}

fn standing() -> Vec<Panel> {
    let month = late("increase", "30d", "");
    vec![
        Panel::new(
            Look::Number,
            "How many versions were in time in 30 days?",
            Unit::Share,
            "IsthmusBudgetWillNotLast",
            "Below 99.9 %: the objective is missed. Which bucket and peer: below.",
        )
        .asks("in time", format!("1 - {month}"))
        .good_from(0.999, 0.9995),
        Panel::new(
            Look::Number,
            "How much of the budget is left?",
            Unit::Share,
            "IsthmusBudgetWillNotLast",
            "Nothing left: put off what is risky (upgrades, drills) until it is back.",
        )
        .asks("left", format!("1 - ({month}) / {BUDGET}"))
        .good_from(0.0, 0.25),
        Panel::new(
            Look::Number,
            "How many alerts fire?",
            Unit::Plain,
            "operating.md",
            "Each has its page under docs/runbooks.",
        )
        .asks("firing", r#"count(ALERTS{alertname=~"Isthmus.+", alertstate="firing"}) or vector(0)"#)
        .bad_from(1.0),
        Panel::new(
            Look::Table,
            "Which alerts fire or are about to?",
            Unit::Plain,
            "operating.md",
            "Its page under docs/runbooks says what to look at, the usual cause, and what to do.",
        )
        .asks("how many", r#"sum by (alertname, severity, alertstate) (ALERTS{alertname=~"Isthmus.+"})"#)
        .absent("none"),
    ]
}

fn burning() -> Vec<Panel> {
    let burn = |window: &str| format!("({}) / {BUDGET}", late("rate", window, ""));
    let burns = |title, fast: &'static str, slow: &'static str, factor: f64, page: &str, todo| {
        Panel::new(Look::Lines, title, Unit::Plain, page, todo)
            .asks(fast, burn(fast))
            .asks(slow, burn(slow))
            .worse_from(1.0, factor)
    };
    let todo =
        "Both above the upper line: the alert fires. Look for the cause on the board of the mesh, worst link first.";
    vec![
        burns("Does it burn within 2 days?", "5m", "1h", 14.4, "IsthmusBudgetBurnsFast", todo),
        burns("Does it burn within 5 days?", "30m", "6h", 6.0, "IsthmusBudgetBurns", todo),
        burns("Does it burn within 10 days?", "2h", "24h", 3.0, "IsthmusBudgetBurnsSlowly", todo),
        burns("Will it last the 30 days?", "6h", "3d", 1.0001, "IsthmusBudgetWillNotLast", todo),
        Panel::new(
            Look::Lines,
            "Which bucket and peer burns it?",
            Unit::Plain,
            "IsthmusBudgetBurns",
            "1 is what the objective allows for 30 days. `isthmus explain --peer P` for the worst.",
        )
        .asks("{{bucket}} to {{peer}}", format!("({}) / {BUDGET}", late("rate", "1h", "bucket, peer")))
        .worse_from(1.0, 14.4),
        Panel::new(
            Look::Lines,
            "How many are in time, and how many late?",
            Unit::VersionsPerSecond,
            "metrics.md",
            "late is counted at the moment 60 s have passed, so an outage burns while it lasts.",
        )
        .asks(
            "{{outcome}}",
            format!("sum by (outcome) (rate(isthmus_link_slo_versions_total{{{BUCKET}}}[$__rate_interval]))"),
        ),
    ]
}
