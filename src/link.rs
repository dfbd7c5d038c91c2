//! One rule to one peer, as a pure state machine: `step(now, Event) -> Vec<Action>`.
//!
//! It decides what may fly together, when to try again, what to park, how far the checkpoint and the
//! floor may move, and what lag is shown. It knows no runtime, journal, network, clock or dice; the
//! production shell (`replicator`) and the simulator (`e2e`) drive the same code.
//!
//! This file is the words: events in, actions out, and what the journal keeps. `machine` is the state
//! machine; what it decides with stands in a file per noun.
mod brake;
mod existing;
mod lag;
mod machine;
mod op;
pub(crate) mod part;
pub mod planted;
mod progress;
pub mod project;
mod reason;
pub mod reconcile;
mod recorder;
mod retry;
mod scope;
mod standing;
#[cfg(test)]
pub(crate) mod tests;
pub mod toll;
mod window;

pub use brake::{Kept as KeptBrake, Terms as BrakeTerms, is_delete};
pub use op::Op;
pub use part::to_send;
pub use reason::{Reason, Why};
pub use retry::ROWS_MAX;
pub use scope::{Filter, Scope, includes, weight_of};
pub use standing::Standing;

use std::collections::BTreeMap;
use std::sync::Arc;
use storage_engine::feed::Cursor;
use storage_engine::version::{Version, VersionId};

/// Unix time in milliseconds, handed in with every event.
pub type Millis = u64;

/// One change of one version, to be made durable at the peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The whole current record, without bytes.
    pub version: Arc<Version>,
    /// When the oldest unreplicated change of it was committed here.
    pub pending_since: Millis,
    /// W3C traceparent of the request that made it.
    pub traceparent: Option<String>,
}

/// Names one push in flight; never reused within one life of a link.
pub type PushId = u64;

/// What can happen to a link.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The feed (or reconciliation) yielded changes; `cursor` stands behind the last of them.
    Changed { changes: Vec<Change>, cursor: Cursor },
    /// The feed was seen at its head: nothing waits behind the cursor.
    CaughtUp,
    /// The store does not know the cursor any more: what changed since it can only be found by comparing with the
    /// peer. The feed goes on from `head`.
    Expired { head: Cursor },
    /// The pass over existing versions yielded these; `is_last`: it has come to its end.
    Existing { changes: Vec<Change>, cursor: Cursor, is_last: bool },
    /// The peer answered: durable there.
    Pushed { id: PushId, outcome: Outcome },
    /// The push did not succeed.
    PushFailed { id: PushId, failure: Failure },
    /// The journal made `Record` number `seq` durable.
    Recorded { seq: u64 },
    /// The journal could not make `Record` number `seq` durable: the same record will be asked for again.
    RecordFailed { seq: u64 },
    /// Time passed.
    Tick,
    /// So many versions are in the bucket: asked for by `Count`.
    Counted { versions: u64 },
    /// A person lets go what the brake holds back.
    Release,
    /// A comparison without regard to age found, or made, that the peer holds all of this scope.
    Covered { scope: Scope },
    /// The rule, suspend or resume: the settings that hold from now on.
    RuleAltered(Settings),
    /// A person asked for versions that failed to go again now.
    Retry(Again),
    /// The peer can be reached; said while it already could: over another line, on which nothing flies yet.
    PeerUp,
    /// The peer cannot be reached: intake stops, what was in flight is read again from the feed.
    PeerDown,
    /// Finish what flies, record, stop.
    Drain,
}

/// Which rows a person wants to go again now; what is not said matches every row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Again {
    pub key: Option<String>,
    pub version_id: Option<VersionId>,
    /// Only those that do not go by themselves.
    pub parked_only: bool,
}

impl Again {
    /// Whether `row` is meant.
    pub fn matches(&self, row: &Row) -> bool {
        self.key.as_ref().is_none_or(|key| *key == row.key)
            && self.version_id.is_none_or(|id| id == row.version_id)
            && (!self.parked_only || row.state == RowState::Parked)
    }
}

/// How the peer took a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    AlreadyPresent,
    Superseded,
}

impl Outcome {
    /// Its name in metrics and traces.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Applied => "applied",
            Outcome::AlreadyPresent => "already_present",
            Outcome::Superseded => "superseded",
        }
    }
}

/// Why a push did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Worth another try while the peer answers: a row is made.
    Retryable(Why),
    /// The peer refuses it: parked after a limit of attempts.
    Refused(Why),
    /// Stamped too far ahead of the peer's clock; goes by itself after so many milliseconds.
    ClockAhead { after_ms: u64 },
    /// The connection is gone; `PeerDown` follows or has come. No row, no attempt is counted.
    PeerGone,
}

/// What of a rule a link needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Changes outside of it are passed over.
    pub prefix: String,
    /// Every one of these tags must be set; empty: no condition.
    pub tags: std::collections::BTreeMap<String, String>,
    /// This site: only versions with a component of this origin are sent…
    pub own_origin: storage_engine::version::Origin,
    /// …or, when relaying, all but those wholly of the peer's own origin.
    pub forward_all: bool,
    /// The peer's origin.
    pub peer_origin: storage_engine::version::Origin,
    /// Whether delete markers travel.
    pub delete_markers: bool,
    /// Whether purges travel.
    pub version_deletes: bool,
    /// Whether retention and legal hold travel.
    pub object_lock: bool,
    /// What rules of a higher priority send to the same peer: not sent here.
    pub yields_to: Vec<Filter>,
    /// Whether what was there before the rule, or before it was widened, is sent too.
    pub existing_objects: bool,
    /// Versions of the rule are applied at the peer in commit order: one in flight.
    pub commit_order: bool,
    /// The peer orders versions of a key by their arrival: the older one first, and none while an older one has failed.
    pub by_arrival: bool,
    /// Bytes a second; `None`: no limit.
    pub bandwidth: Option<u64>,
    /// Versions in flight at most.
    pub window_versions: usize,
    /// Bytes in flight at most (one version always may fly).
    pub window_bytes: u64,
    /// When deletes in a mass are held back; `None`: never.
    pub brake: Option<BrakeTerms>,
    /// Raised to release what the brake holds.
    pub brake_release: u64,
    /// Sends nothing; the cursor waits in the feed.
    pub suspend: bool,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send this version now.
    Push { id: PushId, change: Change },
    /// Send the version of this row now; its record is read from the store first. Where that is no longer
    /// in scope ([`Link::includes`]: another site's change has overtaken ours, and that site brings it),
    /// nothing is sent and the answer is `Pushed` with [`Outcome::Superseded`].
    PushRow { id: PushId, key: String, version_id: VersionId, pending_since: Millis, traceparent: Option<String> },
    /// Count it: this version is durable at the peer, committed here at `pending_since`.
    Done { outcome: Outcome, pending_since: Millis, bytes: u64 },
    /// Make checkpoint and rows durable in one transaction, then answer `Recorded { seq }`.
    Record { seq: u64, record: Record },
    /// Ask again with `Tick` at this time at the latest.
    WakeAt(Millis),
    /// Read the feed on from the last cursor given (`true`), or stop reading (`false`). A batch already
    /// read may still be handed in.
    Intake(bool),
    /// Go back: read the feed again from this cursor; what was taken in since is forgotten. A batch read
    /// before this action must not be handed in any more: it would hide the gap in front of it.
    Rewind(Option<Cursor>),
    /// Read besides, for existing versions, as the survey says; or stop that (`None`).
    /// What was read before this action must not be handed in any more.
    Existing(Option<Survey>),
    /// Count the versions of the bucket, then answer `Counted`; an estimate will do.
    Count,
    /// Nothing is in flight or unrecorded any more.
    Stop,
}

/// A second reading, for versions that were there before the rule covered them or that the feed lost: of the feed, or
/// of what a comparison with the peer finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// From here on; `None`: from the beginning. A comparison's places are keys, as the shell writes them.
    pub cursor: Option<Cursor>,
    /// Up to here in the feed: what lies behind it was judged as it came.
    pub until: Cursor,
    /// Compare every key with the peer and yield what differs; else read the feed.
    pub compares: bool,
}

/// One transaction of the journal.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Record {
    /// Where the link stands.
    pub checkpoint: Checkpoint,
    /// Rows made or changed.
    pub upserts: Vec<Row>,
    /// Rows that are done, by key and version id.
    pub deletes: Vec<(String, VersionId)>,
}

/// Where a link stands, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Checkpoint {
    /// Every change before it is at the peer or in a row.
    pub cursor: Option<Cursor>,
    /// Every change before it is at the peer: parked and retry rows hold it.
    pub floor: Option<Cursor>,
    /// Commit time up to which everything is at the peer.
    pub committed_through: Millis,
    /// What of the past was sent or is being sent; `None`: all that the settings cover.
    pub reach: Option<Reach>,
    /// What the brake does; `None`: the link had none yet.
    pub brake: Option<KeptBrake>,
}

/// What of the versions before the cursor is at the peer or on its way there.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Reach {
    /// All versions in it; `None`: only what changed since the rule came.
    pub covered: Option<Scope>,
    /// When that was, where `covered` is `None`.
    pub since: Option<Since>,
    /// The pass under way.
    pub existing: Option<Existing>,
}

/// From when on a rule that leaves existing objects where they are copies.
#[derive(Clone, Debug, PartialEq)]
pub struct Since {
    pub at: Millis,
    /// What it has copied since then.
    pub scope: Scope,
    /// The bucket was deleted and made again: what was in it by then is left until a person wants it copied. The generation
    /// of the rule when that was seen.
    pub remade: Option<u64>,
}

/// A pass over existing versions, as the journal keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Existing {
    /// Every version before it is at the peer or in a row.
    pub cursor: Option<Cursor>,
    /// Where the pass ends.
    pub until: Cursor,
    /// Versions in it were sent before the pass began, and since then as they changed.
    pub except: Option<Scope>,
    /// It compares with the peer; its cursor is a place among keys.
    pub compares: bool,
}

/// A version that failed while the peer answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: String,
    pub version_id: VersionId,
    pub pending_since: Millis,
    pub bytes: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next one is due; meaningless while parked.
    pub next_attempt: Millis,
    pub last_error: String,
    /// What kind of error that was.
    pub reason: Reason,
    pub state: RowState,
    /// Cursor before the batch the change was read in: the floor while this row stands.
    pub floor: Option<Cursor>,
    /// W3C traceparent of the request that made the change.
    pub traceparent: Option<String>,
}

/// Whether a row needs a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// Goes again by itself.
    Pending,
    /// A person must look.
    Parked,
}

/// What a link sends nothing of, whatever waits: suspended, ending, or braked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub all: bool,
    pub deletes: bool,
}

/// What a link shows of itself.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Shown {
    /// live, catching_up, peer_down, suspended, braked, stopped.
    pub state: &'static str,
    /// Commit time of the oldest change known here that is not at the peer; `None`: none is known.
    pub oldest_pending: Option<Millis>,
    /// Versions taken in and not yet at the peer, rows included.
    pub pending_versions: u64,
    pub pending_bytes: u64,
    pub retry_versions: u64,
    /// Of the pending ones, those a pass over existing versions took in.
    pub existing_versions: u64,
    pub existing_bytes: u64,
    pub parked_versions: u64,
    /// Of the parked ones, how many for each reason; a reason without any is left out.
    pub parked_by: BTreeMap<Reason, u64>,
    pub clock_ahead_versions: u64,
    /// Deletes the brake holds back, as far as they were read, and since when it does.
    pub braked_versions: u64,
    pub braked_since: Option<Millis>,
    pub in_flight: u64,
    /// What was not changed since then is left where it is; `None`: all that the settings cover is sent.
    pub copies_since: Option<Millis>,
    /// Every key is being compared with the peer: the feed had lost the link's place.
    pub compares: bool,
    pub last_error: Option<String>,
}

/// One rule to one peer. See the module's doc.
#[derive(Debug)]
pub struct Link {
    settings: Settings,
    seed: u64,
    is_peer_up: bool,
    is_draining: bool,
    is_stopped: bool,
    /// What the shell was last told of intake.
    is_reading: bool,
    is_caught_up: bool,
    queue: window::Queue,
    next_ticket: u64,
    flights: BTreeMap<PushId, machine::Flight>,
    flying_bytes: u64,
    /// Counted, not looked for: thousands fly over a long line, and every answer asks.
    flying_rows: usize,
    next_push: PushId,
    /// Changes queued or in flight; rows count themselves.
    pending: lag::Pending,
    rows: retry::Rows,
    progress: progress::Progress,
    existing: existing::Existing,
    recorder: recorder::Recorder,
    pacer: window::Pacer,
    brake: brake::Brake,
    /// Deletes wait until the bucket is counted.
    is_counting: bool,
    /// No push before it: one said that the peer is gone, and `PeerDown` has not come yet.
    paused_until: Millis,
    /// The wake-up last asked for.
    woken_at: Option<Millis>,
    /// The clock when something last happened.
    seen_at: Millis,
    last_error: Option<String>,
}
