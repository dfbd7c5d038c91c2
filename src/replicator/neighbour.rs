//! Answers the store's questions outward (trait [`Neighbour`]): a version that is not here yet is read from the peers of
//! the rules that allow it, in the order of their destinations. Decides nothing about what is deleted: the store does.
use super::Replicator;
use crate::peer::client::Connection;
use crate::peer::frame::read::{Found, READ_BYTES_MAX, Read};
use async_trait::async_trait;
use futures::StreamExt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use storage_engine::api::{Elsewhere, Neighbour};
use storage_engine::object::Body;
use storage_engine::version::VersionId;
use storage_engine::wire::Fields;
use tokio::time::timeout;

/// How long one peer may take to say what it has; a client that waits for a 404 waits no longer for each.
const PATIENCE: Duration = Duration::from_secs(2);
/// Ranges of one body asked for at once: 2 MiB in memory a reader.
const READS_AT_ONCE: usize = 4;

/// Who is asked of a bucket: siteID, bucket there, the line.
pub(super) struct Lender {
    pub site: String,
    pub bucket: String,
    pub line: Arc<Connection>,
}

/// The neighbour of the store in this process, once its replicator runs.
#[derive(Default)]
pub struct Neighbours {
    replicator: OnceLock<Weak<Replicator>>,
}

impl Neighbours {
    /// From now on this replicator is asked.
    pub fn serve(&self, replicator: &Arc<Replicator>) {
        let _ = self.replicator.set(Arc::downgrade(replicator));
    }

    /// Buckets of which something may be read from a peer.
    pub(super) fn buckets(&self) -> Vec<String> {
        self.replicator.get().and_then(Weak::upgrade).map(|replicator| replicator.lent()).unwrap_or_default()
    }
}

#[async_trait]
impl Neighbour for Neighbours {
    async fn find(&self, bucket: &str, key: &str, version: Option<VersionId>) -> Option<Elsewhere> {
        let lenders = self.replicator.get()?.upgrade()?.lenders(bucket, key);
        for Lender { site, bucket, line } in lenders {
            let (key, unknown) = (key.to_owned(), Fields::default());
            let read = Read { bucket, key, version_id: version, offset: 0, bytes: 0, unknown };
            match timeout(PATIENCE, line.read(read.clone())).await {
                Ok(Ok(Found::Version { version, .. })) => {
                    let read = Read { version_id: Some(version.id), ..read };
                    let read = Arc::new(move |range| body(&line, &read, range));
                    return Some(Elsewhere { place: site, version: *version, read });
                }
                Ok(Ok(Found::Refused(reason) | Found::Unavailable(reason))) => {
                    tracing::debug!(site, reason, "A peer does not lend a version that is not here.");
                }
                // It has none, is gone, or is too slow.
                _ => {}
            }
        }
        None
    }
}

/// The bytes of a range, in order, a few questions ahead of the reader.
fn body(line: &Arc<Connection>, read: &Read, range: Range<u64>) -> Body {
    let (line, read) = (line.clone(), read.clone());
    let starts = (range.start..range.end).step_by(READ_BYTES_MAX as usize);
    let pieces = futures::stream::iter(starts).map(move |offset| {
        let bytes = u32::try_from(range.end - offset).map_or(READ_BYTES_MAX, |left| left.min(READ_BYTES_MAX));
        let (line, read) = (line.clone(), Read { offset, bytes, ..read.clone() });
        async move {
            match line.read(read).await {
                Ok(Found::Version { bytes: found, .. }) if found.len() == bytes as usize => Ok(found),
                Ok(_) => Err(io::Error::other("the peer does not have the version any more")),
                Err(e) => Err(io::Error::other(e)),
            }
        }
    });
    pieces.buffered(READS_AT_ONCE).boxed()
}
