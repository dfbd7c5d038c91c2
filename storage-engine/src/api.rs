//! What a replicator asks of its own store, in the process.
pub use crate::feed::{Backlog, Batch, Cursor, Event};
pub use crate::object::{Applied, Body, Error, Objects, Opened};
