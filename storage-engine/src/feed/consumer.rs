//! Registered consumers: a cursor, a floor, and how much waits behind them.
use super::Cursor;

/// A registered reader of one bucket's feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Consumer {
    /// Name, unique in the bucket.
    pub name: String,
    /// Everything before it was read and recorded by the consumer.
    pub cursor: Cursor,
    /// Everything before it is durable at the consumer's end; nothing after it may be forgotten.
    pub floor: Cursor,
    /// The bucket's versioning must stay on.
    pub keeps_versioning: bool,
}

/// What waits behind a cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Changes.
    pub versions: u64,
    /// Bytes of their objects.
    pub bytes: u64,
    /// Unix milliseconds of the oldest one's commit; `None` when nothing waits.
    pub oldest_pending_since: Option<u64>,
}
