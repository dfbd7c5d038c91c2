//! Hello: how two replicators agree on a version, on abilities, on epochs and on windows.
use super::{AtMost, Error};
use std::collections::BTreeMap;
use storage_engine::wire::Fields;

/// Links asked for in one Hello at most.
pub const LINKS_MAX: usize = 4096;
/// Abilities named in one Hello at most.
pub const FEATURES_MAX: usize = 64;
/// The protocol version this build speaks.
pub const PROTOCOL_VERSION: u32 = 1;
/// Ability named in a receiver's Hello: it answers Digest and Items.
pub const RECONCILES: &str = "reconcile";
/// Ability named in a receiver's Hello: it answers Bucket.
pub const BUCKETS: &str = "buckets";
/// Ability named in a receiver's Hello: it takes large versions in pieces.
pub const PIECES: &str = "pieces";
/// Ability named in a receiver's Hello: it answers Read.
pub const READS: &str = "read";
/// Ability named in a receiver's Hello: it answers Contents.
pub const CONTENTS: &str = "contents";
/// Ability named in a receiver's Hello: it takes part in drills, where its Peer document grants them.
pub const DRILLS: &str = "drills";
/// Ability named in a receiver's Hello: its drills know cuts in one direction.
pub const ONE_WAY_DRILLS: &str = "one-way-drills";
/// Ability named in a receiver's Hello: it takes part in drills of live rules.
pub const LIVE_DRILLS: &str = "live-drills";

/// The first frame of each side, on stream 0. Later ones ask for epochs, on a stream of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest protocol version spoken; an answer names the chosen one twice.
    pub versions: (u32, u32),
    /// siteID of the sender; the receiver holds it against the certificate.
    pub site: String,
    /// Optional abilities, by name.
    pub features: Vec<String>,
    /// Links whose highest epoch is asked for.
    pub links: Vec<String>,
    /// Answer: the highest epoch seen, by link.
    pub epochs: BTreeMap<String, u64>,
    /// Answer: what the sender may send before it gets credit back.
    pub windows: Option<Windows>,
    /// Fields of a later version.
    pub unknown: Fields,
}

/// What a receiver takes in at once from one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Bytes of all streams together.
    pub connection_bytes: u32,
    /// Bytes of one streamed body.
    pub stream_bytes: u32,
    /// Versions without an ack.
    pub streams: u32,
}

impl Hello {
    pub(super) fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        f.put(1, &self.versions.0);
        f.put(2, &self.versions.1);
        f.put(3, &self.site);
        f.put(4, &self.features);
        f.put(5, &self.links);
        f.put(6, &self.epochs);
        if let Some(windows) = &self.windows {
            f.put(7, &windows.connection_bytes);
            f.put(8, &windows.stream_bytes);
            f.put(9, &windows.streams);
        }
        f
    }

    pub(super) fn from_fields(mut f: Fields) -> Result<Self, Error> {
        let AtMost(features) = f.take::<AtMost<FEATURES_MAX, String>>(4)?.unwrap_or_default();
        let AtMost(links) = f.take::<AtMost<LINKS_MAX, String>>(5)?.unwrap_or_default();
        let windows = match (f.take(7)?, f.take(8)?, f.take(9)?) {
            (Some(connection_bytes), Some(stream_bytes), Some(streams)) => {
                Some(Windows { connection_bytes, stream_bytes, streams })
            }
            _ => None,
        };
        Ok(Hello {
            versions: (f.need(1)?, f.need(2)?),
            site: f.need(3)?,
            features,
            links,
            epochs: f.take(6)?.unwrap_or_default(),
            windows,
            unknown: f,
        })
    }
}
