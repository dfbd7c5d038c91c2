//! The board of the stores: drives, quorum, requests and space. Stores count by drive and operation, not by bucket.
use super::{Board, Look, Panel, Unit, quantile};

pub(super) fn board() -> Board {
    Board {
        name: "store",
        title: "isthmus / Store",
        about: "The stores below: are their drives there, do requests find their quorum, how fast are they, what is full?",
        choices: &[],
        panels: [safety(), requests(), drives()].concat(),
    }
}

fn safety() -> Vec<Panel> {
    vec![
        Panel::new(
            Look::Number,
            "How many drives are offline?",
            Unit::Plain,
            "IsthmusDriveOffline",
            "Bring it back: the log of the process says what happened. Within the parity nothing is lost.",
        )
        .asks("offline", r#"sum(isthmus_store_drive_state{state="offline"})"#)
        .worse_from(1.0, 2.0),
        Panel::new(
            Look::Number,
            "Did requests find too few drives in the last hour?",
            Unit::Plain,
            "IsthmusQuorumFailures",
            "503 is right then, and nothing is lost: bring drives or nodes back.",
        )
        .asks("{{site}}: {{kind}}", "sum by (site, kind) (increase(isthmus_store_quorum_failures_total[1h]))")
        .bad_from(0.5),
        Panel::new(
            Look::Number,
            "How many commits of the last hour lack a drive?",
            Unit::Versions,
            "IsthmusDriveOffline",
            "They are durable at the write quorum, with less parity to lose. A drive is offline or slow.",
        )
        .asks("{{site}}", "sum by (site) (increase(isthmus_store_commits_below_target_total[1h]))")
        .worse_from(1.0, 1000.0),
        Panel::new(
            Look::Number,
            "How many links get nothing from the feed, or have lost their place in it?",
            Unit::Plain,
            "IsthmusFeedIncomplete",
            "incomplete: too few drives answer, bring them back. expired: every key is compared with the peer, which takes its time.",
        )
        .asks("{{site}}: {{state}}", r#"sum by (site, state) (isthmus_link_feed_state{state!="live"})"#)
        .worse_from(1.0, 2.0),
        Panel::new(
            Look::Number,
            "Were permanent deletes made void in the last hour?",
            Unit::Versions,
            "IsthmusPurgeVoided",
            "A retention or legal hold was set elsewhere at the same time: the version stays, everywhere.",
        )
        .asks("voided", "sum(increase(isthmus_store_purges_voided_total[1h]))")
        .worse_from(0.5, 100.0),
    ]
}

fn requests() -> Vec<Panel> {
    let rate = |selector: &str| format!("rate(isthmus_store_requests_total{selector}[$__rate_interval])");
    let (all, failed) = (rate(""), rate("{code=~\"5..\"}"));
    vec![
        Panel::new(
            Look::Lines,
            "What is asked of the stores?",
            Unit::RequestsPerSecond,
            "metrics.md",
            "Apply is what comes from peers. Changes is a replicator's question for the feed.",
        )
        .asks("{{operation}}", format!("sum by (operation) ({all})")),
        Panel::new(
            Look::Lines,
            "Which share of requests fails?",
            Unit::Share,
            "IsthmusQuorumFailures",
            "5xx only: a refusal (4xx) is an answer. Look at drives and quorum first.",
        )
        .asks(
            "{{site}}",
            format!("(sum by (site) ({failed}) or sum by (site) ({all}) * 0) / clamp_min(sum by (site) ({all}), 1e-9)"),
        )
        .worse_from(0.001, 0.01),
        Panel::new(
            Look::Lines,
            "Which requests are refused or fail?",
            Unit::RequestsPerSecond,
            "operating.md",
            "403: credentials or a lock. 404 in numbers: readers ask before versions are here. 503: too few drives.",
        )
        .asks("{{operation}}: {{code}}", format!("sum by (operation, code) ({})", rate("{code=~\"[45]..\"}")))
        .absent("none"),
        Panel::new(
            Look::Lines,
            "Who cannot log in?",
            Unit::RequestsPerSecond,
            "metrics.md",
            "signature: a wrong secret, or a user there is none of. clock: a client more than 15 min off. too_often: somebody guesses.",
        )
        .asks("{{site}}: {{reason}}", "sum by (site, reason) (rate(isthmus_store_logins_failed_total[$__rate_interval]))")
        .bad_from(0.1),
        Panel::new(
            Look::Lines,
            "How long does an answer take?",
            Unit::Seconds,
            "figures.md",
            "To the head of the answer. p99 of writes follows the sync of the commit log below.",
        )
        .asks("p50 {{operation}}", quantile(0.5, "store_request_seconds", "", "operation"))
        .asks("p99 {{operation}}", quantile(0.99, "store_request_seconds", "", "operation"))
        .with_exemplars()
        .worse_from(0.5, 5.0)
        .absent("nothing is asked"),
    ]
}

fn drives() -> Vec<Panel> {
    let free = "isthmus_store_drive_free_bytes";
    vec![
        Panel::new(
            Look::Lines,
            "How long does a sync of the commit log take?",
            Unit::Seconds,
            "figures.md",
            "One drive above the others is failing or shared; all of them: the load, or one controller.",
        )
        .asks("p99 {{site}} drive {{drive}}", quantile(0.99, "store_log_fsync_seconds", "", "site, drive"))
        .worse_from(0.1, 1.0)
        .absent("nothing is written"),
        Panel::new(
            Look::Lines,
            "How many records share a sync?",
            Unit::Plain,
            "figures.md",
            "More under load is right: it is what keeps writes fast on slow drives.",
        )
        .asks(
            "{{site}}",
            "sum by (site) (rate(isthmus_store_group_commit_records_sum[$__rate_interval])) / clamp_min(sum by (site) (rate(isthmus_store_group_commit_records_count[$__rate_interval])), 1e-9)",
        ),
        Panel::new(
            Look::Lines,
            "How much space is free?",
            Unit::Bytes,
            "IsthmusDriveFull",
            "Space of deleted versions is not reclaimed by this version: add drives before it runs out.",
        )
        .asks("least of {{site}}", format!("min by (site) ({free})"))
        .good_from(10e9, 100e9),
        Panel::new(
            Look::Lines,
            "How much is free in 4 hours, if it goes on like this?",
            Unit::Bytes,
            "IsthmusDriveFull",
            "Below nothing: full within 4 hours. Stop the largest writer, or make room.",
        )
        .asks("least of {{site}}", format!("min by (site) (predict_linear({free}[6h], 4 * 3600))"))
        .good_from(0.0, 10e9),
        Panel::new(
            Look::Lines,
            "How much room has the journal?",
            Unit::Bytes,
            "IsthmusJournalFull",
            "Where replicators share a database, only that knows. A full journal stops links and loses nothing.",
        )
        .asks("{{site}}", "min by (site) (isthmus_journal_free_bytes)")
        .good_from(1e9, 10e9),
        Panel::new(
            Look::Lines,
            "What does the journal keep?",
            Unit::Plain,
            "IsthmusJournalFull",
            "link_row: versions that failed, wait or are parked. version_map: those at S3 endpoints. The rest is small.",
        )
        .asks("{{site}} {{table}}", "sum by (site, table) (isthmus_journal_rows)"),
        Panel::new(
            Look::Lines,
            "Whom does the private API turn away?",
            Unit::RequestsPerSecond,
            "roles.md",
            "Where store and replicator are processes apart: the caller's certificate or name does not fit.",
        )
        .asks(
            "{{site}}: {{reason}}",
            "sum by (site, reason) (rate(isthmus_store_callers_refused_total[$__rate_interval]))",
        )
        .bad_from(0.1),
    ]
}
