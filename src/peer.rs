//! What two replicators say to each other: frames over mutual TLS, acks streaming back.
pub mod client;
pub mod connection;
pub mod frame;
pub mod server;

use crate::link::Why;
use async_trait::async_trait;
use frame::bucket::BucketAsk;
use frame::content::ContentAsk;
use frame::drill::DrillAsk;
use frame::read::{Found, Read};
use frame::reconcile::{Answer, Question};
use std::sync::Arc;
use storage_engine::object::Body;
use storage_engine::version::Version;

/// Says at any moment whether frames of a link may leave.
pub type MaySend = Arc<dyn Fn() -> bool + Send + Sync>;

/// What of a version is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Portion {
    /// All of it.
    #[default]
    Whole,
    /// One piece of its bytes, which are cut into pieces of `piece_bytes`; nothing of it shows.
    Piece { piece_bytes: u64, number: u32, crc64nvme: u64 },
    /// All but its bytes, of which the pieces may be there; answered with those that are, until all are.
    Assemble { piece_bytes: u64 },
}

/// A version on its way to a peer.
pub struct Outgoing {
    /// The link it belongs to, as `rule uid/bucket uuid`, and its epoch there.
    pub link: String,
    pub epoch: u64,
    /// Whether the sender still owns the link; asked before each of its frames.
    pub may_send: MaySend,
    /// Bucket at the peer.
    pub bucket: String,
    pub version: Version,
    /// The bytes, where the version has any and they are wanted at once.
    pub body: Option<Body>,
    pub portion: Portion,
    pub traceparent: Option<String>,
    /// May carry other origins than the sender's own (relay, reconciliation).
    pub relayed: bool,
}

/// A version that came from a peer whose certificate was verified.
pub struct Incoming {
    /// siteID of the peer, from its certificate.
    pub site: String,
    /// Name of the Peer document.
    pub peer: String,
    pub link: String,
    pub epoch: u64,
    pub bucket: String,
    pub version: Version,
    pub body: Option<Body>,
    pub portion: Portion,
    pub traceparent: Option<String>,
    pub relayed: bool,
}

/// The receiver's word on one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    Applied,
    AlreadyPresent,
    Superseded,
    /// The bytes are needed: send it again with its body.
    NeedsBody,
    /// Of a version that is to be assembled these pieces are here, by number; the others are wanted.
    NeedsPieces {
        held: Vec<u32>,
    },
    /// Outside the grant, or never acceptable; a person must look.
    Refused(Why),
    /// Not now; worth another try after so many milliseconds.
    Retry {
        after_ms: u64,
        why: Why,
    },
    /// Stamped more than 60 s ahead of the receiver's clock.
    ClockAhead {
        after_ms: u64,
    },
    /// The epoch is below the highest seen; the sender is no longer the owner.
    Fenced {
        highest: u64,
    },
}

/// What stands behind the peer listener: checks grants and applies.
#[async_trait]
pub trait Receiver: Send + Sync + 'static {
    /// Applies one version to this site's own store, or says why not.
    async fn receive(&self, incoming: Incoming) -> Ack;
    /// Whether large versions may come in pieces, for Hello.
    fn takes_pieces(&self) -> bool {
        false
    }
    /// The highest epoch seen of a link of this site, for Hello.
    async fn highest_epoch(&self, site: &str, link: &str) -> u64;
    /// Lends a version to a peer that does not have it yet, as far as it may read; a receiver that lends nothing refuses.
    async fn lend(&self, _peer: &str, _read: Read) -> Found {
        Found::Refused("this end lends nothing".into())
    }
    /// Answers what this site holds of ranges of keys, as far as the peer (siteID, name of its Peer document) may
    /// know; a receiver that compares nothing refuses.
    async fn answer(&self, _site: &str, _peer: &str, _question: Question) -> Answer {
        Answer::Refused("this end compares nothing".into())
    }
    /// Answers how a bucket of this site is set, as far as the peer may know, and joins the documents that came.
    async fn bucket(&self, _site: &str, _peer: &str, _ask: BucketAsk) -> Answer {
        Answer::Refused("this end has no buckets".into())
    }
    /// Answers what bytes this site reads of versions, as far as the peer may know; a receiver that reads nothing refuses.
    async fn contents(&self, _site: &str, _peer: &str, _ask: ContentAsk) -> Answer {
        Answer::Refused("this end reads nothing".into())
    }
    /// Does one step of a drill at this site, as far as the peer may.
    async fn drill(&self, _site: &str, _peer: &str, _ask: DrillAsk) -> Answer {
        Answer::Refused("this end takes part in no drills".into())
    }
}

#[cfg(test)]
mod tests;
