//! The version record: what every site holds alike. Pure: no I/O, clock or dice.
//!
//! A [`Version`] is a product of components that each join on their own (`version/merge.rs`), so
//! pieces may arrive in any order: a tag or a purge before its birth is kept, invisible, and joins
//! later. What one drive adds to it (ballot, shards, debt) is in `record.rs`.
pub mod guard;
pub mod merge;
pub mod order;
#[cfg(test)]
mod tests;

pub use guard::{Guards, Purges};
pub use order::{Ballot, Hlc, Order, Origin, Stamp, VersionId};

use crate::wire::{self, Fields};
use std::collections::BTreeMap;

/// What kind of version was born.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Bytes under a key.
    Object,
    /// The key reads as absent from here on.
    DeleteMarker,
}

/// One part of an object as its writer cut it; a simple PUT has exactly one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// Part number, 1..=10000; 1 for a simple PUT.
    pub number: u16,
    /// Bytes in the part.
    pub size_bytes: u64,
    /// MD5 of the part, hexadecimal.
    pub etag: String,
    /// Additional checksums of the part: lower-case algorithm (`crc32`, `sha256` …) to base64.
    pub checksums: BTreeMap<String, String>,
    /// Fields of a later format.
    pub unknown: Fields,
}

/// What never changes after a version was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Birth {
    /// Place among the versions of the key.
    pub order: Order,
    /// Order of the newest version of the key at the origin when this one was born.
    pub base: Option<Order>,
    /// Object or delete marker.
    pub kind: Kind,
    /// Bytes of the object; 0 for a marker.
    pub size_bytes: u64,
    /// ETag without quotes, as S3 makes it: MD5, or MD5 of part MD5s with `-N`.
    pub etag: String,
    /// CRC-64/NVME of the whole body; every reader of the body proves it got the right bytes.
    pub crc64nvme: u64,
    /// Additional checksums the client asked for: lower-case algorithm to base64 (`-N` when composite).
    pub checksums: BTreeMap<String, String>,
    /// Part boundaries; empty for a marker.
    pub parts: Vec<Part>,
    /// Content headers, names in lower case (`content-type`, `cache-control` …).
    pub headers: BTreeMap<String, String>,
    /// User metadata, names in lower case without the `x-amz-meta-` prefix.
    pub metadata: BTreeMap<String, String>,
    /// Retention and legal hold it was born with.
    pub guards: Guards,
    /// Fields of a later format.
    pub unknown: Fields,
}

impl Birth {
    /// An object without bytes, or a marker, with nothing said about it yet.
    pub fn blank(order: Order, kind: Kind) -> Self {
        Birth {
            order,
            base: None,
            kind,
            size_bytes: 0,
            etag: String::new(),
            crc64nvme: 0,
            checksums: BTreeMap::new(),
            parts: Vec::new(),
            headers: BTreeMap::new(),
            metadata: BTreeMap::new(),
            guards: Guards::default(),
            unknown: Fields::default(),
        }
    }
}

/// The tag set of a version: last writer wins on the whole document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tags {
    /// Who set it last.
    pub stamp: Stamp,
    /// The tags.
    pub set: BTreeMap<String, String>,
    /// Fields of a later format.
    pub unknown: Fields,
}

/// A version of a key, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// The object key, at most 1,024 bytes of UTF-8.
    pub key: String,
    /// Id of the version, the same on every site.
    pub id: VersionId,
    /// What it was born as; absent while only later components have arrived.
    pub birth: Option<Birth>,
    /// Tags, when somebody set them.
    pub tags: Option<Tags>,
    /// Retention and legal hold set and lifted since its birth; see [`Version::guards`] for all.
    pub later_guards: Guards,
    /// Permanent deletes of this version, void ones too; see [`Version::purged`].
    pub purges: Purges,
    /// Fields of a later format.
    pub unknown: Fields,
}

impl Version {
    /// A version of which nothing is known yet.
    pub fn blank(key: &str, id: VersionId) -> Self {
        Version {
            key: key.into(),
            id,
            birth: None,
            tags: None,
            later_guards: Guards::default(),
            purges: Purges::default(),
            unknown: Fields::default(),
        }
    }
    /// Every guard: what it was born with and what was set and lifted since.
    pub fn guards(&self) -> Guards {
        let mut all = self.birth.as_ref().map(|b| b.guards.clone()).unwrap_or_default();
        all.join(&self.later_guards);
        all
    }
    /// The purge that counts; `None`: nobody purged it, or every purge is void for the guards known here.
    /// A guard set elsewhere at the same time can still make a purge void when it arrives.
    pub fn purged(&self) -> Option<&Stamp> {
        if self.purges.is_empty() { None } else { self.purges.effective(&self.guards()) }
    }
    /// Whether somebody purged it in vain.
    pub fn is_purged_in_vain(&self) -> bool {
        !self.purges.is_empty() && self.purged().is_none()
    }
    /// Whether S3 may show it: born and not purged.
    pub fn is_live(&self) -> bool {
        self.birth.is_some() && self.purged().is_none()
    }
    /// Whether it is a live delete marker.
    pub fn is_delete_marker(&self) -> bool {
        self.is_live() && self.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker)
    }
    /// Whether `origin` has something of it to tell: a component that was set there, or any later guard.
    /// A lifting stands under the site whose guard it lifts, so whoever knows guards passes them on.
    pub fn has_origin(&self, origin: &Origin) -> bool {
        self.birth.as_ref().is_some_and(|b| &b.order.origin == origin)
            || self.tags.as_ref().is_some_and(|t| &t.stamp.origin == origin)
            || self.purges.iter().any(|(_, p)| &p.origin == origin)
            || !self.later_guards.is_empty()
    }
    /// Whether everything known of it was set at `origin`; later guards are nobody's alone.
    pub fn is_wholly_of(&self, origin: &Origin) -> bool {
        self.birth.as_ref().is_none_or(|b| &b.order.origin == origin)
            && self.tags.as_ref().is_none_or(|t| &t.stamp.origin == origin)
            && self.purges.iter().all(|(_, p)| &p.origin == origin)
            && self.later_guards.is_empty()
    }
    /// Greatest clock reading in any component.
    pub fn max_hlc(&self) -> Hlc {
        let birth = self.birth.as_ref().map_or(Hlc::ZERO, |b| b.order.hlc);
        let tags = self.tags.as_ref().map_or(Hlc::ZERO, |t| t.stamp.hlc);
        let purge = self.purges.iter().map(|(_, p)| p.hlc).max().unwrap_or(Hlc::ZERO);
        birth.max(tags).max(purge).max(self.guards().max_hlc())
    }
    /// CRC-64/NVME of the encoded version: equal on sites that hold the same state.
    pub fn state_hash(&self) -> u64 {
        crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &self.to_bytes())
    }

    /// The version as bytes; equal versions give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut f = self.unknown.clone();
        f.put(1, &self.key);
        f.put_bytes(2, self.id.as_bytes());
        if let Some(b) = &self.birth {
            f.put_fields(3, &b.to_fields());
        }
        if let Some(t) = &self.tags {
            f.put_fields(4, &t.to_fields());
        }
        // A purge that had seen no guards is written as it was before there were any.
        let (plain, seeing) = self.purges.to_parts();
        if let Some(stamp) = plain {
            f.put_fields(5, &stamp.to_fields());
        }
        if !self.later_guards.is_empty() {
            f.put_fields(6, &self.later_guards.to_fields());
        }
        if !seeing.is_empty() {
            f.put(7, &seeing);
        }
        f.to_bytes()
    }

    /// A version from its bytes.
    ///
    /// # Errors
    /// [`wire::Error`] when the bytes are no version; they are never partly believed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, wire::Error> {
        let mut f = Fields::parse(bytes)?;
        Ok(Version {
            key: f.need(1)?,
            id: order::version_id(&mut f, 2)?,
            birth: f.take_fields(3)?.map(Birth::from_fields).transpose()?,
            tags: f.take_fields(4)?.map(Tags::from_fields).transpose()?,
            purges: {
                let plain = f.take_fields(5)?.map(Stamp::from_fields).transpose()?;
                Purges::from_parts(plain, f.take(7)?.unwrap_or_default())?
            },
            later_guards: f.take_fields(6)?.map(Guards::from_fields).transpose()?.unwrap_or_default(),
            unknown: f,
        })
    }
}

impl Birth {
    fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        f.put_within(1, |g| self.order.put(g));
        if let Some(base) = &self.base {
            f.put_within(2, |g| base.put(g));
        }
        f.put(3, &matches!(self.kind, Kind::DeleteMarker));
        f.put(4, &self.size_bytes);
        f.put(5, &self.etag);
        f.put(6, &self.crc64nvme);
        f.put(7, &self.checksums);
        f.put(
            8,
            &self.parts.iter().map(|p| minicbor::bytes::ByteVec::from(p.to_fields().to_bytes())).collect::<Vec<_>>(),
        );
        f.put(9, &self.headers);
        f.put(10, &self.metadata);
        if !self.guards.is_empty() {
            f.put_fields(11, &self.guards.to_fields());
        }
        f
    }
    fn from_fields(mut f: Fields) -> Result<Self, wire::Error> {
        Ok(Birth {
            order: f.take_within(1, Order::take)?.ok_or(wire::Error::Missing(1))?,
            base: f.take_within(2, Order::take)?,
            kind: if f.need(3)? { Kind::DeleteMarker } else { Kind::Object },
            size_bytes: f.need(4)?,
            etag: f.need(5)?,
            crc64nvme: f.need(6)?,
            checksums: f.need(7)?,
            parts: f
                .need::<Vec<minicbor::bytes::ByteVec>>(8)?
                .into_iter()
                .map(|b| Part::from_fields(Fields::parse(&b)?))
                .collect::<Result<_, _>>()?,
            headers: f.need(9)?,
            metadata: f.need(10)?,
            guards: f.take_fields(11)?.map(Guards::from_fields).transpose()?.unwrap_or_default(),
            unknown: f,
        })
    }
}

impl Tags {
    /// A tag set of this format.
    pub fn new(stamp: Stamp, set: BTreeMap<String, String>) -> Self {
        Tags { stamp, set, unknown: Fields::default() }
    }
    fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        f.put_fields(1, &self.stamp.to_fields());
        f.put(2, &self.set);
        f
    }
    fn from_fields(mut f: Fields) -> Result<Self, wire::Error> {
        let stamp = f.take_fields(1)?.ok_or(wire::Error::Missing(1))?;
        Ok(Tags { stamp: Stamp::from_fields(stamp)?, set: f.need(2)?, unknown: f })
    }
}

impl Part {
    fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        f.put(1, &self.number);
        f.put(2, &self.size_bytes);
        f.put(3, &self.etag);
        f.put(4, &self.checksums);
        f
    }
    fn from_fields(mut f: Fields) -> Result<Self, wire::Error> {
        Ok(Part { number: f.need(1)?, size_bytes: f.need(2)?, etag: f.need(3)?, checksums: f.need(4)?, unknown: f })
    }
}
