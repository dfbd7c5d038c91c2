//! What links show, and the versions on their way.
use super::{Section, counter, gauge, histogram};

pub(super) const LINKS: Section = Section {
    title: "Links",
    labels: &["rule", "bucket", "peer"],
    metrics: &[
        gauge(
            &["link_oldest_pending_timestamp_seconds"],
            &[],
            "all that was committed before this is at the peer; without a backlog, when that was last seen. The \
             lag is `time()` less this; where it cannot be known the last value stays, and its age shows",
        ),
        gauge(
            &["link_backlog_versions", "link_backlog_bytes"],
            &[],
            "not yet durable at the peer: what nobody has read from the feed, what flies, what failed, and the \
             pass over existing objects. Of what nobody has read, what carries nothing of this site is left out \
             where the rule forwards its own (`forward: Own`), and what is the peer's alone where it relays; \
             tags and kinds are not looked at there",
        ),
        gauge(
            &["link_retry_versions", "link_existing_versions"],
            &[],
            "of the backlog: what failed and goes again by itself; what the pass over existing objects has \
             still to bring",
        ),
        gauge(
            &["link_parked_versions"],
            &["reason"],
            "wait for a person: `grant`, `bucket`, `rejected`, `own_store`, `other`, as [their \
             runbook](runbooks/IsthmusParked.md) explains them",
        ),
        gauge(
            &["link_clock_ahead_versions"],
            &[],
            "stamped more than 60 s ahead of the peer's clock; they go by themselves",
        ),
        gauge(&["link_braked_versions"], &[], "deletes the brake holds back"),
        gauge(
            &["link_state"],
            &["state"],
            "1 for the state it is in: live, catching_up, peer_down, suspended, braked, stopped, blocked, \
             standby",
        ),
        gauge(
            &["link_feed_state"],
            &["state"],
            "1 for how the link reads the feed of the own store: `live`; `incomplete`, it gives nothing now; \
             `expired`, it has lost the link's place, and every key is compared with the peer",
        ),
        gauge(&["link_rpo_seconds"], &[], "what the rule promises; absent where it promises nothing"),
        gauge(&["link_owned", "link_epoch"], &[], "1 where this process pushes the link; under which epoch"),
        gauge(
            &["link_verified_timestamp_seconds"],
            &[],
            "begin of the last whole comparison that found everything at the peer",
        ),
        counter(
            &["link_differences"],
            &[],
            "versions the slow comparison found unlike at the peer: each is a bug, or a loss there",
        ),
        gauge(
            &["link_tombstones", "link_tombstones_unacked", "link_oldest_tombstone_timestamp_seconds"],
            &[],
            "tombstones below the rule's prefix, those the peer did not have, the oldest: as of the last whole \
             comparison",
        ),
        counter(
            &["link_throttled_seconds"],
            &["limit"],
            "what versions waited for bandwidth of their `rule`, their `peer`, the `site`, and for its versions \
             in flight (`transfers`); added up over versions",
        ),
        counter(&["link_bytes"], &[], "bytes of versions acked by the peer"),
    ],
};

pub(super) const WAYS: Section = Section {
    title: "Versions on their way",
    labels: &["bucket", "peer"],
    metrics: &[
        histogram(
            &["link_commit_to_ack_seconds"],
            &[],
            "commit here to durable ack there; a sampled version leaves its `trace_id` as the exemplar of its \
             bucket ([tracing.md](tracing.md))",
        ),
        counter(
            &["link_slo_versions"],
            &["outcome"],
            "`in_time`: acked within 60 s of the commit; `late`: not acked when 60 s had passed, counted at \
             that moment, once. Versions are taken to be done in the order they came",
        ),
        counter(
            &["link_versions"],
            &["op", "result"],
            "by their newest change: `put`, `marker`, `purge`, `meta` (tags, retention, legal hold); acked as \
             `applied`, `already_present`, `superseded`",
        ),
        counter(
            &["link_attempts_failed"],
            &["reason"],
            "beside those of parked versions, after five refusals: `unavailable`, `digest`, `clock_ahead`, \
             `drill`, which go again for ever. `order` waits for an older version of its key at an S3 endpoint \
             and makes no attempt",
        ),
    ],
};
