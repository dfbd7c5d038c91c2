//! What one drive decides alone: commit protocol, rules 1 to 9. Pure.
use crate::record::{BucketId, Record};
use crate::version::{Ballot, Version, VersionId};
use bytes::Bytes;
use uuid::Uuid;

/// What a coordinator asks of a drive.
#[derive(Clone, Debug)]
pub struct Request {
    /// Map epoch in which the operation began.
    pub epoch: u64,
    /// Bucket of the key.
    pub bucket: BucketId,
    /// The key; all records named are of it.
    pub key: String,
    /// What to do.
    pub op: Op,
}

/// One operation of the protocol.
#[derive(Clone, Debug)]
pub enum Op {
    /// Rule 3: hold this attempt. `shards` are this drive's small shards, by blob.
    Accept { record: Box<Record>, shards: Vec<(Uuid, Bytes)> },
    /// Rule 4: promise to refuse ballots below, and tell what is held.
    Prepare { ballot: Ballot },
    /// Rule 5: promise to refuse this attempt unless it is held.
    Fence { version: VersionId, ballot: Ballot },
    /// Rule 5: as accept, with a refusal that counts as a denial.
    Forward { record: Box<Record>, shards: Vec<(Uuid, Bytes)> },
    /// Rule 6: this attempt never counts.
    Abort { version: VersionId, ballot: Ballot },
    /// Rule 7 and every later component: join this state (a purge, tags) into the version, held or not.
    Join { version: Box<Version>, pending_since: u64 },
    /// Rule 7: flag a held attempt as acked.
    Ack { version: VersionId, ballot: Ballot },
    /// Rule 8: heal inserts a record, promises ignored.
    Insert { record: Box<Record>, shards: Vec<(Uuid, Bytes)> },
    /// Tell what is held; promises nothing.
    Read,
}

/// A drive's answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Life of the drive's content at that moment.
    pub incarnation: Uuid,
    /// Its epoch at that moment.
    pub epoch: u64,
    /// Whether its answers count, at that moment.
    pub voting: bool,
    /// The answer.
    pub verdict: Verdict,
}

/// What a drive says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Held, durable.
    Ok,
    /// Refused: a ballot above `max` is needed. A denial.
    Stale { max: Ballot },
    /// Refused: that attempt was aborted. A denial.
    Aborted,
    /// Below the garbage collection floor: neither hold nor denial.
    Gone,
    /// Not held, and from now on refused. A denial.
    Denied,
    /// Held; whether flagged acked.
    Held { acked: bool },
    /// The version is purged.
    Tombstoned,
    /// The operation began in an older epoch; no effect.
    Epoch { current: u64 },
    /// Everything held of the key.
    State(KeyView),
}

/// Everything one drive holds of one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyView {
    /// Attempts and records, one per (version id, ballot); a version known only by later components has ballot zero.
    pub records: Vec<Record>,
    /// Attempts that never count.
    pub aborts: Vec<(VersionId, Ballot)>,
    /// Attempts at or below it may have been forgotten.
    pub gc_floor: Ballot,
}
