//! What a store shows.
use super::{Section, counter, gauge, histogram};

pub(super) const STORE: Section = Section {
    title: "The store, at role `store` and `site`",
    labels: &[],
    metrics: &[
        counter(
            &["store_requests"],
            &["operation", "code"],
            "S3 requests and questions of the private API (`Apply`, `Changes`, ...)",
        ),
        histogram(
            &["store_request_seconds"],
            &["operation"],
            "to the head of the answer; `Changes`, which waits for a change, has no times. A sampled request \
             that makes or changes a version leaves its `trace_id` as the exemplar of its bucket",
        ),
        counter(
            &["store_quorum_failures"],
            &["set", "kind"],
            "requests that found too few drives to `read` or to `write`; attempts of a write that too few \
             drives could `resolve`",
        ),
        counter(&["store_commits_below_target"], &["set"], "records acked while some drive lacked them or their shard"),
        counter(
            &["store_purges_voided"],
            &[],
            "permanent deletes made void by a retention or legal hold that they had not seen",
        ),
        gauge(&["store_drive_state"], &["drive", "state"], "1 for `online` or `offline`"),
        gauge(&["store_drive_free_bytes"], &["drive"], "bytes free"),
        histogram(
            &["store_log_fsync_seconds", "store_group_commit_records"],
            &["drive"],
            "syncs of the commit log; records that shared one",
        ),
        gauge(
            &["store_certificate_issued_timestamp_seconds", "store_certificate_expiry_timestamp_seconds"],
            &["listener"],
            "the certificate that the listener (`s3`, `api`) shows holds from then, until then; absent where it \
             shows none",
        ),
        counter(
            &["store_handshakes_failed"],
            &[],
            "S3 clients that did not get through TLS: they spoke something else, took longer than 10 s, or do \
             not believe the CA",
        ),
        counter(
            &["store_logins_failed"],
            &["reason"],
            "S3 requests that proved no user: `signature`, a wrong secret or a user there is none of; `clock`, \
             more than 15 min off; `denied`, no signature or one that has expired; `too_often`, turned away \
             unlooked at after too many wrong ones",
        ),
        counter(
            &["store_callers_refused"],
            &["reason"],
            "who the private API turned away: handshake, certificate, name, unknown_client",
        ),
    ],
};
