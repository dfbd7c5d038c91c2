//! One version out: reads it from the own store, sends it over the peer's line, and says in the
//! link's words what became of it. Decides nothing.
mod pieces;

use super::tenure::Lease;
use super::toll::Toll;
use crate::journal::LinkId;
use crate::link::{Failure, Held, Outcome, Reason, Scope, Settings, Why, to_send};
use crate::peer::client::{Connection, Error};
use crate::peer::connection::INLINE_BYTES_MAX;
use crate::peer::{Ack, Outgoing, Portion};
use crate::store::{self, Batch, Cursor, Store};
use std::sync::Arc;
use storage_engine::version::{Kind, Version, VersionId};
use tokio::sync::{Notify, watch};

/// What a link's pushes have in common.
pub struct Route {
    /// The link, for its epoch at the receiver.
    pub id: LinkId,
    /// This process' claim on it: nothing is sent once it is over.
    pub lease: Arc<Lease>,
    /// Bucket here and bucket there.
    pub bucket: String,
    pub peer_bucket: String,
    pub store: Arc<dyn Store>,
    /// What it shares with other links on their way out.
    pub toll: Toll,
    /// What the link's loop sends nothing of now: so does whoever else sends under its claim.
    pub held: watch::Sender<Held>,
    /// Somebody waits for the link to be measured: an idle one measures itself seldom.
    pub measure: Notify,
    /// What a comparison without regard to age found, or made, to be at the peer.
    pub covered: watch::Sender<Option<Scope>>,
}

impl Route {
    /// What stands behind `cursor` in the feed of the link's bucket, at most `limit` changes.
    ///
    /// # Errors
    /// As the store's; [`store::Error::NoSuchBucket`] also where another bucket stands under its name.
    pub async fn changes(&self, cursor: Option<&Cursor>, limit: usize) -> Result<Batch, store::Error> {
        let batch = self.store.changes(&self.bucket, cursor, limit).await?;
        // A store of before does not say of which bucket it is.
        if batch.bucket.is_empty() || batch.bucket == self.id.bucket { Ok(batch) } else { Err(self.gone()) }
    }

    /// Whether the link's bucket is still there.
    ///
    /// # Errors
    /// As [`Route::changes`].
    pub async fn look(&self) -> Result<(), store::Error> {
        let bucket = self.store.bucket(&self.bucket).await?;
        if bucket.id == self.id.bucket { Ok(()) } else { Err(self.gone()) }
    }

    fn gone(&self) -> store::Error {
        store::Error::NoSuchBucket(self.bucket.clone())
    }
}

/// What a head counts for in limits of bandwidth: deletes are not free.
const HEAD_BYTES: u64 = 256;

/// What became of one push.
#[derive(Debug)]
pub enum Pushed {
    Done(Outcome),
    Failed(Failure),
    /// The receiver has seen a higher epoch: this process no longer owns the link.
    Fenced {
        highest: u64,
    },
}

impl Route {
    /// A version as the store holds it now; else what is to be said of its push.
    pub(super) async fn current(&self, key: &str, id: VersionId) -> Result<Version, Pushed> {
        match self.store.stat(&self.bucket, key, id).await {
            Ok(Some(version)) => Ok(version),
            Ok(None) => Err(not_found()),
            Err(e) => Err(Pushed::Failed(Failure::Retryable(unread(&e)))),
        }
    }

    /// Sends a version with its bytes; a purged or unborn one and a marker have none.
    pub async fn push(
        &self,
        line: &Connection,
        settings: &Settings,
        version: &Version,
        traceparent: Option<String>,
    ) -> Pushed {
        let Some(mut version) = to_send(settings, version) else { return Pushed::Done(Outcome::Superseded) };
        let has_bytes =
            version.is_live() && version.birth.as_ref().is_some_and(|b| b.kind == Kind::Object && b.size_bytes > 0);
        let mut body = None;
        if let Some(whole) = has_bytes.then(|| self.in_pieces(line, &version)).flatten() {
            return whole.push(&version, traceparent, settings.forward_all).await;
        }
        if has_bytes {
            match self.store.read_version(&self.bucket, &version.key, version.id).await {
                Ok(bytes) => body = Some(bytes),
                // Purged since the event was read: send what it is now, without bytes.
                Err(store::Error::NoSuchVersion | store::Error::NoSuchKey) => {
                    match self.store.stat(&self.bucket, &version.key, version.id).await {
                        Ok(Some(now)) => match to_send(settings, &now) {
                            Some(now) => version = now,
                            None => return Pushed::Done(Outcome::Superseded),
                        },
                        Ok(None) => return not_found(),
                        Err(e) => return Pushed::Failed(Failure::Retryable(unread(&e))),
                    }
                }
                Err(e) => return Pushed::Failed(Failure::Retryable(unread(&e))),
            }
        }
        let _flight = self.toll.take_off().await;
        let size = if body.is_some() { version.birth.as_ref().map_or(0, |b| b.size_bytes) } else { 0 };
        if size > INLINE_BYTES_MAX {
            body = body.map(|body| self.toll.pace(body));
        } else {
            self.toll.pass(HEAD_BYTES + size).await;
        }
        let outgoing = Outgoing { body, traceparent, ..self.outgoing(version, settings.forward_all) };
        line.push(outgoing).await.map_or_else(failed, said)
    }

    /// A version on its way, without bytes.
    fn outgoing(&self, version: Version, relayed: bool) -> Outgoing {
        let lease = self.lease.clone();
        Outgoing {
            link: link_name(&self.id),
            epoch: lease.epoch,
            may_send: Arc::new(move || lease.is_held()),
            bucket: self.peer_bucket.clone(),
            version,
            body: None,
            portion: Portion::Whole,
            traceparent: None,
            relayed,
        }
    }
}

/// No ack came.
fn failed(e: Error) -> Pushed {
    match e {
        e if e.is_peer_gone() => {
            tracing::debug!(error = %e, "The peer went away during a push.");
            Pushed::Failed(Failure::PeerGone)
        }
        // The loop ends with the claim; nobody counts an attempt.
        Error::NotOwned => Pushed::Failed(Failure::PeerGone),
        // The own store could not give all bytes, or the version fits no frame.
        e => Pushed::Failed(Failure::Retryable(Why::new(Reason::OwnStore, e.to_string()))),
    }
}

/// The name of a link on the wire; its epochs are kept under it at the receiver.
pub fn link_name(id: &LinkId) -> String {
    format!("{}/{}", id.rule, id.bucket)
}

/// The own store announced a version and does not find it now. Absence is never taken for an end: a record
/// stays as a tombstone at least. Asked for a few times it is parked: a store that was restored from a backup
/// will not find it by itself.
fn not_found() -> Pushed {
    let said = "the own store does not hold the version it announced: was it restored?";
    Pushed::Failed(Failure::Refused(Why::new(Reason::OwnStore, said)))
}

/// The own store does not answer now.
fn unread(e: &store::Error) -> Why {
    Why::new(Reason::OwnStore, format!("read own store: {e}"))
}

/// The peer says that it lacks what it was sent.
fn lacks(what: &str) -> Pushed {
    Pushed::Failed(Failure::Retryable(Why::new(Reason::Digest, what)))
}

fn said(ack: Ack) -> Pushed {
    match ack {
        Ack::Applied => Pushed::Done(Outcome::Applied),
        Ack::AlreadyPresent => Pushed::Done(Outcome::AlreadyPresent),
        Ack::Superseded => Pushed::Done(Outcome::Superseded),
        Ack::NeedsBody => lacks("the peer needs the bytes"),
        Ack::NeedsPieces { .. } => lacks("the peer lacks pieces"),
        Ack::Refused(why) => Pushed::Failed(Failure::Refused(why)),
        Ack::Retry { why, .. } => Pushed::Failed(Failure::Retryable(why)),
        Ack::ClockAhead { after_ms } => Pushed::Failed(Failure::ClockAhead { after_ms }),
        Ack::Fenced { highest } => Pushed::Fenced { highest },
    }
}

#[cfg(test)]
mod tests;
