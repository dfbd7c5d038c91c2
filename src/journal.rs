//! What a replicator stores of its own, and why so little.
//!
//! Progress is a checkpoint per link, advanced in batches; a row is made only for a version that
//! failed while the peer answered. Objects and feeds live elsewhere and are never copied here; of a document only
//! its last good form is, for a restart while its file is broken.
mod brake;
#[cfg(test)]
pub mod conformance;
mod foreign;
pub mod memory;
pub mod postgres;
pub mod reach;
mod sql;
pub mod sqlite;

pub use foreign::{Mapped, Upload};

use crate::link::{Checkpoint, Record, Row};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage_engine::version::VersionId;

/// Names a link: rule, bucket (by uuid) and peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// Uid of the rule (a hash of site, kind, namespace and name in a rule folder).
    pub rule: String,
    /// uuid of the bucket.
    pub bucket: String,
    /// The far end: peer, site and bucket there (`rule::plan::LinkView::far_end`).
    pub peer: String,
}

/// Why the journal did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached or is full; nothing was written. Try again.
    #[error("journal is unavailable: {0}")]
    Unavailable(String),
    /// Another owner holds the link: a higher epoch was seen. Stop the link.
    #[error("link is owned under epoch {current}, this write came with {ours}")]
    Fenced { ours: u64, current: u64 },
    /// A peer speaks of an epoch no journal can hold: it is broken or hostile; nothing was kept.
    #[error("epoch {epoch} is above {EPOCH_MAX}, the highest there is")]
    EpochTooHigh { epoch: u64 },
    /// The journal belongs to another process or holds what cannot be read.
    #[error("journal cannot be used: {0}")]
    Unusable(String),
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Unavailable(_))
    }
}

/// Where a journal is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// In a file, by one process alone.
    Sqlite(PathBuf),
    /// In a database, shared by the replicators of a site.
    Postgres(postgres::Settings),
}

/// Opens the journal, or makes it.
///
/// # Errors
/// [`Error::Unusable`]: a person must mend it first. [`Error::Unavailable`]: it may answer later.
pub async fn open(settings: &Settings) -> Result<Arc<dyn Journal>, Error> {
    Ok(match settings {
        Settings::Sqlite(file) => Arc::new(sqlite::SqliteJournal::open(file).await?),
        Settings::Postgres(database) => Arc::new(postgres::PostgresJournal::open(database.clone()).await?),
    })
}

/// Highest epoch there is: SQL's integers are signed.
pub const EPOCH_MAX: u64 = i64::MAX as u64;

/// Conflicts kept: more than anybody reads; the metric goes on counting all of them.
pub const CONFLICTS_MAX: usize = 1000;

/// The epoch of the next owner: above the last one, and not below what a peer has seen.
fn next_epoch(current: u64, at_least: u64) -> Result<u64, Error> {
    let epoch = current.saturating_add(1).max(at_least);
    if epoch > EPOCH_MAX { Err(Error::EpochTooHigh { epoch }) } else { Ok(epoch) }
}

/// A pair of versions of one key born without knowing of each other.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Conflict {
    pub bucket: String,
    pub key: String,
    /// The later version: the one that reads as latest.
    pub later: String,
    pub earlier: String,
    /// When this site saw it, Unix milliseconds.
    pub seen_millis: u64,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The link is this holder's, under this epoch.
    Owned { epoch: u64 },
    /// It is not: another holds it (`Some`), or it was left for too short a time.
    Held { by: Option<String> },
}

/// How a holder claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimTerms {
    /// The epoch is at least this: above what a receiver has seen.
    pub at_least: u64,
    /// The claim ends by itself after so long without a renewal.
    pub lease: Duration,
    /// A link is taken only when nobody has held it for so long: whoever has its share lets others go first.
    pub patience: Duration,
}

/// What a renewal found.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Renewed {
    /// Links of the holder that are still its own; the others are lost.
    pub kept: Vec<LinkId>,
    /// Holders alive that would run links, this one included.
    pub holders: u64,
}

/// How much a journal keeps, and how much more it can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Rows of each of [`sql::KEPT`].
    pub rows: BTreeMap<String, u64>,
    /// Bytes left where it lies; `None`: only the database's own machine knows.
    pub free_bytes: Option<u64>,
}

/// Durable memory of a replicator; every write is durable when the call returns.
///
/// Who owns a link is decided here alone. Where several processes share a journal a claim ends by the database's
/// clock; where one process has the journal to itself (SQLite), every claim is granted. Either way the epoch
/// fences: [`Journal::record`], [`Journal::release`] and [`Journal::free`] under an epoch that is not the link's
/// own have no effect and say [`Error::Fenced`].
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Takes a link that nobody else holds; the epoch rises each time.
    async fn claim(&self, link: &LinkId, holder: &str, terms: ClaimTerms) -> Result<Claim, Error>;
    /// Renews what a holder holds, by link and epoch, and says that it is alive and would run `links_wanted` links
    /// (0: it leaves).
    async fn renew(
        &self,
        holder: &str,
        links_wanted: u64,
        held: &[(LinkId, u64)],
        lease: Duration,
    ) -> Result<Renewed, Error>;
    /// Gives a link back, so that another may claim it at once.
    async fn free(&self, link: &LinkId, epoch: u64) -> Result<(), Error>;
    /// Where the link stands, and its rows (at most `limit`, those due first).
    async fn load(&self, link: &LinkId, limit: usize) -> Result<(Option<Checkpoint>, Vec<Row>), Error>;
    /// How many of its rows wait for a person.
    async fn parked(&self, link: &LinkId) -> Result<u64, Error>;
    /// Checkpoint and rows in one transaction, refused unless `epoch` is the link's own. A row both deleted and
    /// upserted stays: one retry too many harms nothing. No row stands twice in `upserts`.
    async fn record(&self, link: &LinkId, epoch: u64, record: &Record) -> Result<(), Error>;
    /// Forgets a link: checkpoint, rows, and what is kept of a foreign target. Its epoch is kept, for it must never be handed out again; so is its
    /// owner.
    async fn release(&self, link: &LinkId, epoch: u64) -> Result<(), Error>;
    /// The links of one rule that stand somewhere, or of all, with their checkpoints.
    async fn links(&self, rule: Option<&str>) -> Result<Vec<(LinkId, Checkpoint)>, Error>;

    /// What is known of a foreign target, of keys from `from` up to and with `upto`, at most `limit`, by key and version.
    async fn mapped(
        &self,
        link: &LinkId,
        from: Option<&str>,
        upto: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Mapped>, Error>;
    /// Adds or replaces, and forgets, what is known of a foreign target; refused as [`Journal::record`] is. No version
    /// stands twice.
    async fn remap(
        &self,
        link: &LinkId,
        epoch: u64,
        upserts: &[Mapped],
        deletes: &[(String, VersionId)],
    ) -> Result<(), Error>;
    /// Uploads of a link that are not over.
    async fn uploads(&self, link: &LinkId) -> Result<Vec<Upload>, Error>;
    /// Keeps the upload of a version, or forgets it (`None`); refused as [`Journal::record`] is.
    async fn set_upload(
        &self,
        link: &LinkId,
        epoch: u64,
        version: (&str, VersionId),
        upload_id: Option<&str>,
    ) -> Result<(), Error>;

    /// Remembers the highest epoch seen of an incoming link (`peer site/rule/bucket`); returns the highest known.
    /// Writes only what is news, so that asking (with 0) leaves nothing behind.
    async fn see_epoch(&self, incoming: &str, epoch: u64) -> Result<u64, Error>;

    /// Keeps a conflict; the same pair twice is kept once, and of all pairs the last [`CONFLICTS_MAX`] seen.
    async fn add_conflict(&self, conflict: &Conflict) -> Result<(), Error>;
    /// The newest conflicts, at most `limit`.
    async fn conflicts(&self, limit: usize) -> Result<Vec<Conflict>, Error>;

    /// The last accepted spec of a document (`kind/namespace/name`), as JSON with its generation.
    async fn accepted_spec(&self, document: &str) -> Result<Option<(u64, String)>, Error>;
    /// The last accepted spec of every document: its name, generation and spec.
    async fn accepted_specs(&self) -> Result<Vec<(String, u64, String)>, Error>;
    /// Forgets the spec of a document that is gone.
    async fn forget_spec(&self, document: &str) -> Result<(), Error>;
    /// Keeps the accepted spec of a document.
    async fn accept_spec(&self, document: &str, generation: u64, spec: &str) -> Result<(), Error>;

    /// What verbs have set: subject (`rule/<uid>`, `peer/<name>`, `link/<uid>/<name>`) and JSON, by subject.
    async fn verb_states(&self) -> Result<Vec<(String, String)>, Error>;
    /// Keeps what a verb sets; `None`: forgets it.
    async fn set_verb_state(&self, subject: &str, state: Option<&str>) -> Result<(), Error>;

    /// How much it keeps; counts every row, so it is asked now and then.
    async fn extent(&self) -> Result<Extent, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_journal_that_did_not_answer_is_asked_again() {
        assert!(Error::Unavailable("full".into()).is_retryable());
        let lasting = [
            Error::Fenced { ours: 1, current: 2 },
            Error::EpochTooHigh { epoch: EPOCH_MAX + 1 },
            Error::Unusable("damaged".into()),
        ];
        assert!(lasting.iter().all(|e| !e.is_retryable()));
    }

    #[test]
    fn epochs_rise_above_what_was_seen_up_to_the_highest_there_is() {
        let last = EPOCH_MAX - 1;
        for (current, at_least, next) in [(0, 0, 1), (4, 9, 9), (9, 4, 10), (last, 0, EPOCH_MAX)] {
            assert_eq!(next_epoch(current, at_least).unwrap(), next);
        }
        assert!(matches!(next_epoch(EPOCH_MAX, 0), Err(Error::EpochTooHigh { .. })));
    }
}
