//! A version as one drive holds it: the replicated state and what this store adds to it. Pure.
mod recent;

pub use recent::Recent;

use crate::version::{Ballot, Hlc, Version, VersionId};
use crate::wire::{self, Fields};
use bytes::Bytes;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

/// A bucket by its uuid: a bucket deleted and made again is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketId(pub Uuid);

impl BucketId {
    /// Holds the store's own documents (buckets, uploads, parts, consumers) as null versions.
    pub const SYSTEM: BucketId = BucketId(Uuid::nil());
}

/// A group of shards, one per drive, that codes one part's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Names the shards; every drive holds at most one shard of a blob.
    pub id: Uuid,
    /// Bytes of data before coding.
    pub size_bytes: u64,
    /// Data shards.
    pub k: u8,
    /// Parity shards.
    pub m: u8,
    /// Drive that holds shard 0; shard i stands on drive (first + i) mod n.
    pub first: u8,
    /// Data bytes per stripe.
    pub stripe_bytes: u32,
    /// Fields of a later format.
    pub unknown: Fields,
}

/// A version as one drive holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Bucket of the key.
    pub bucket: BucketId,
    /// What every site holds alike.
    pub version: Version,
    /// Attempt that wrote it here; zero while no birth has been accepted.
    pub ballot: Ballot,
    /// Ballot of the version a conditional write tested; zero: none, absent: unconditional.
    pub tested: Option<Ballot>,
    /// The bytes, one blob per part in order.
    pub blobs: Vec<Blob>,
    /// A write quorum is known to hold it.
    pub acked: bool,
    /// Drives known not to hold their shard, bit per drive.
    pub missing: u32,
    /// Unix milliseconds when the oldest change not yet replicated was committed here.
    pub pending_since: u64,
    /// A write quorum is known to hold what joined the version after its birth: exactly what stands here.
    pub settled: bool,
    /// W3C traceparent of the request that wrote it.
    pub traceparent: Option<String>,
    /// Fields of a later format.
    pub unknown: Fields,
}

impl Record {
    /// A record of a version without bytes, not yet flagged acked.
    pub fn new(bucket: BucketId, version: Version, ballot: Ballot) -> Self {
        Record {
            bucket,
            version,
            ballot,
            tested: None,
            blobs: Vec::new(),
            acked: false,
            missing: 0,
            pending_since: ballot.millis(),
            settled: false,
            traceparent: None,
            unknown: Fields::default(),
        }
    }
    /// Key of the object.
    pub fn key(&self) -> &str {
        &self.version.key
    }
    /// Id of the version.
    pub fn id(&self) -> VersionId {
        self.version.id
    }
    /// The record as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut f = self.unknown.clone();
        f.put_bytes(1, self.bucket.0.as_bytes());
        f.put_bytes(2, &self.version.to_bytes());
        f.put(3, &self.ballot.bits());
        f.put_some(4, &self.tested.map(Hlc::bits));
        f.put(
            5,
            &self.blobs.iter().map(|b| minicbor::bytes::ByteVec::from(b.to_fields().to_bytes())).collect::<Vec<_>>(),
        );
        f.put(6, &self.acked);
        f.put(7, &self.missing);
        f.put(8, &self.pending_since);
        f.put_some(9, &self.traceparent);
        f.put_some(10, &self.settled.then_some(true));
        f.to_bytes()
    }
    /// A record from its bytes.
    ///
    /// # Errors
    /// [`wire::Error`] when the bytes are no record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, wire::Error> {
        let mut f = Fields::parse(bytes)?;
        Ok(Record {
            bucket: BucketId(uuid(&mut f, 1)?),
            version: Version::from_bytes(&f.take_bytes(2)?.ok_or(wire::Error::Missing(2))?)?,
            ballot: Hlc::from_bits(f.need(3)?),
            tested: f.take::<u64>(4)?.map(Hlc::from_bits),
            blobs: f
                .need::<Vec<minicbor::bytes::ByteVec>>(5)?
                .into_iter()
                .map(|b| Blob::from_fields(Fields::parse(&b)?))
                .collect::<Result<_, _>>()?,
            acked: f.need(6)?,
            missing: f.need(7)?,
            pending_since: f.need(8)?,
            traceparent: f.take(9)?,
            settled: f.take(10)?.unwrap_or(false),
            unknown: f,
        })
    }
}

/// A record shared by all who hold it, and coded once: on its way to the drives and as they show it.
#[derive(Clone)]
pub struct Coded(Arc<Shared>);

#[derive(Clone)]
struct Shared {
    record: Record,
    bytes: OnceLock<Bytes>,
    /// The same record with its flag.
    flagged: OnceLock<Coded>,
}

impl Coded {
    /// A record from its bytes, which are kept as they came.
    ///
    /// # Errors
    /// [`wire::Error`] when the bytes are no record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, wire::Error> {
        let record = Record::from_bytes(bytes)?;
        let bytes = OnceLock::from(Bytes::copy_from_slice(bytes));
        Ok(Coded(Arc::new(Shared { record, bytes, flagged: OnceLock::new() })))
    }
    /// The record as bytes.
    pub fn bytes(&self) -> &Bytes {
        self.0.bytes.get_or_init(|| self.0.record.to_bytes().into())
    }
    /// The record flagged acked: made once for all who flag it, as every drive does that holds it.
    pub fn flagged(&self) -> Coded {
        if self.acked {
            return self.clone();
        }
        let flag = || Record { acked: true, ..self.0.record.clone() }.into();
        self.0.flagged.get_or_init(flag).clone()
    }
    /// The record to be changed; who else holds it keeps what it was.
    pub fn to_mut(&mut self) -> &mut Record {
        let shared = Arc::make_mut(&mut self.0);
        (shared.bytes, shared.flagged) = (OnceLock::new(), OnceLock::new());
        &mut shared.record
    }
    /// Whether both are one in memory: equal, without looking.
    pub fn is_shared_with(&self, other: &Coded) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl From<Record> for Coded {
    fn from(record: Record) -> Self {
        Coded(Arc::new(Shared { record, bytes: OnceLock::new(), flagged: OnceLock::new() }))
    }
}

// Equal is the same record, coded already or not.
impl PartialEq for Coded {
    fn eq(&self, other: &Self) -> bool {
        self.is_shared_with(other) || **self == **other
    }
}

impl Deref for Coded {
    type Target = Record;
    fn deref(&self) -> &Record {
        &self.0.record
    }
}

impl fmt::Debug for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Blob {
    fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        f.put_bytes(1, self.id.as_bytes());
        f.put(2, &self.size_bytes);
        f.put(3, &self.k);
        f.put(4, &self.m);
        f.put(5, &self.first);
        f.put(6, &self.stripe_bytes);
        f
    }
    fn from_fields(mut f: Fields) -> Result<Self, wire::Error> {
        Ok(Blob {
            id: uuid(&mut f, 1)?,
            size_bytes: f.need(2)?,
            k: f.need(3)?,
            m: f.need(4)?,
            first: f.need(5)?,
            stripe_bytes: f.need(6)?,
            unknown: f,
        })
    }
}

fn uuid(f: &mut Fields, key: u32) -> Result<Uuid, wire::Error> {
    let bytes = f.take_bytes(key)?.ok_or(wire::Error::Missing(key))?;
    Uuid::from_slice(&bytes).map_err(|_| wire::Error::Malformed(format!("field {key} is no uuid")))
}
