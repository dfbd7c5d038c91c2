//! What a replicator shows of its site, its peers and its drills.
use super::{Section, counter, gauge, histogram};

pub(super) const SITE: Section = Section {
    title: "Site, peers, drills",
    labels: &[],
    metrics: &[
        gauge(&["build_info"], &["version"], "1 for the version that runs"),
        gauge(&["rules"], &["state"], "`accepted`: rules with links; `rejected`: documents that are not in force"),
        counter(
            &["conflicts"],
            &["bucket", "kind"],
            "versions born without knowing each other: `concurrent_put`, both objects; `concurrent_delete`, one \
             a delete marker",
        ),
        histogram(&["journal_commit_seconds"], &[], "until a link's checkpoint was durable"),
        gauge(
            &["journal_rows"],
            &["table"],
            "rows the journal keeps, counted once a minute: `link_row` has a row a version that failed while \
             its peer answered, `version_map` one a version at an S3 endpoint",
        ),
        gauge(
            &["journal_free_bytes"],
            &[],
            "bytes left where the journal's file lies; absent with PostgreSQL, whose own exporter knows",
        ),
        gauge(
            &["leader"],
            &[],
            "1 where this process leads: it writes status, starts jobs and drills; only where documents come \
             from an API server",
        ),
        gauge(
            &["leader_epoch"],
            &[],
            "how often the Lease went to another process, as this one saw it last; of processes that disagree \
             the higher is right",
        ),
        gauge(&["peer_up"], &["peer"], "1 while the peer answers"),
        gauge(
            &["certificate_issued_timestamp_seconds", "certificate_expiry_timestamp_seconds"],
            &[],
            "the certificate that the peer listener shows holds from then, until then",
        ),
        gauge(
            &["certificate_authority_issued_timestamp_seconds", "certificate_authority_expiry_timestamp_seconds"],
            &[],
            "of the CA bundles the peer listener believes, its own and the peers', the one that comes to its \
             end first; of a bundle the CA counts that holds longest",
        ),
        gauge(&["peer_rtt_seconds"], &["peer"], "round trip of the last ping; absent while it is down"),
        gauge(
            &["peer_last_seen_timestamp_seconds"],
            &["peer"],
            "when it was connected last; absent where it never was since the process began",
        ),
        gauge(
            &["peer_clock_offset_seconds"],
            &["peer"],
            "how far its clock is ahead of this site's, as good as half a round trip; absent while it is down",
        ),
        gauge(
            &["peer_certificate_expiry_timestamp_seconds"],
            &["peer"],
            "the certificate it shows holds until then; absent while it is down",
        ),
        counter(
            &["peer_frames_refused"],
            &["peer", "reason"],
            "what a proven peer sent and may not: grant, epoch, clock_ahead, digest, malformed, document, \
             drill; its connection lives on",
        ),
        counter(
            &["peer_listener_refused"],
            &["reason"],
            "callers turned away by the peer listener, and frames it could not take",
        ),
        counter(
            &["trace_spans"],
            &["result"],
            "spans that were `exported`, and `dropped`: the collector did not take them, or not as fast as they \
             came. Of the process, only where [traces](tracing.md) are exported; at role `store` too",
        ),
        gauge(&["kube_up"], &[], "1 while the API server can be watched; only where documents come from one"),
        gauge(&["drill_rpo_seconds", "drill_rto_seconds"], &["peer", "type"], "figures of the last drill"),
        gauge(&["drill_rpo_objective_seconds", "drill_rto_objective_seconds"], &["peer", "type"], "what was in order"),
        gauge(&["drill_last_timestamp_seconds"], &["peer", "type", "result"], "when the last one ended"),
        gauge(
            &["drill_step"],
            &["peer", "type"],
            "of the one that runs: 1 prepare, 2 baseline, 3 cut, 4 fence, 5 drain, 6 takeover, 7 measure, 8 \
             hold, 9 fail back, 10 heal, 11 catch up, 12 verify, 13 clean up; 0: it is over",
        ),
    ],
};
