//! Digest and Items: questions about ranges of keys, and their answers <-> fields. Pure.
//!
//! What a peer may be told is decided in `replicator/answer.rs`; here only the sizes are bounded.
use super::bucket::BucketState;
use super::content::{Content, SPANS_MAX, Told};
use super::drill::DrillState;
use super::{AtMost, Error};
use crate::link::Filter;
use crate::link::project::Projection;
use crate::link::reconcile::{Ask, Beside, Core, Digest, Item, KeyRange};
use minicbor::bytes::ByteVec;
use std::collections::BTreeMap;
use storage_engine::version::{Origin, VersionId};
use storage_engine::wire::{self, Fields};

/// Ranges in one question: a page's descent asks for no more at once than it has leaves.
pub const RANGES_MAX: usize = 4096;
/// Items in one answer: a leaf takes one, unless the other side holds far more.
pub const ITEMS_MAX: usize = 1000;
/// Rules of a higher priority in one question.
const YIELDS_TO_MAX: usize = 1000;

/// A question about what the other side holds of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Bucket at the side that answers.
    pub bucket: String,
    pub projection: Projection,
    pub ask: Ask,
    /// Fields of a later version.
    pub unknown: Fields,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One for each range, in their order.
    Digests(Vec<Digest>),
    /// Ascending by key and id; `is_last`: the range has no more.
    Items { items: Vec<Item>, is_last: bool },
    /// Outside the grant; a person must look.
    Refused(String),
    /// The store there cannot be asked now.
    Unavailable(String),
    /// How a bucket is set; `None`: there is no such bucket. Answers a question about one.
    Bucket(Option<BucketState>),
    /// What was read, one for each span, in their order. Answers a question about contents.
    Contents(Vec<Content>),
    /// It was done; and how things stand. Answers a step of a drill.
    Drill(Box<DrillState>),
}

/// Flags of a projection.
mod flag {
    pub const FORWARD_ALL: u8 = 1;
    pub const DELETE_MARKERS: u8 = 2;
    pub const VERSION_DELETES: u8 = 4;
    pub const OBJECT_LOCK: u8 = 8;
}

/// Kinds of answers; never reused for another meaning.
mod answer {
    pub const DIGESTS: u8 = 1;
    pub const ITEMS: u8 = 2;
    pub const REFUSED: u8 = 3;
    pub const UNAVAILABLE: u8 = 4;
    pub const BUCKET: u8 = 10;
    pub const DRILL: u8 = 20;
    pub const CONTENTS: u8 = 30;
}

impl Question {
    pub(super) fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        let p = &self.projection;
        let set = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let flags = set(p.forward_all, flag::FORWARD_ALL)
            | set(p.delete_markers, flag::DELETE_MARKERS)
            | set(p.version_deletes, flag::VERSION_DELETES)
            | set(p.object_lock, flag::OBJECT_LOCK);
        f.put(1, &self.bucket);
        f.put(2, &p.prefix);
        f.put(3, &p.tags);
        f.put(4, &p.source.as_str().to_owned());
        f.put(5, &p.target.as_str().to_owned());
        f.put(6, &flags);
        let yields_to: Vec<_> = p.yields_to.iter().map(|f| (f.prefix.clone(), f.tags.clone())).collect();
        f.put(10, &yields_to);
        f.put_some(11, &p.since);
        let bounds = |range: &KeyRange| (range.after.clone(), range.upto.clone());
        match &self.ask {
            Ask::Digests(ranges) => f.put(7, &ranges.iter().map(bounds).collect::<Vec<_>>()),
            Ask::Items { range, behind } => {
                f.put(7, &vec![bounds(range)]);
                if let Some((key, id)) = behind {
                    f.put(8, key);
                    f.put_bytes(9, id.as_bytes());
                }
            }
        }
        f
    }

    pub(super) fn from_fields(mut f: Fields, is_items: bool) -> Result<Self, Error> {
        let flags: u8 = f.need(6)?;
        let AtMost(yields_to) = f.need::<AtMost<YIELDS_TO_MAX, (String, BTreeMap<String, String>)>>(10)?;
        let projection = Projection {
            prefix: f.need(2)?,
            tags: f.need(3)?,
            yields_to: yields_to.into_iter().map(|(prefix, tags)| Filter { prefix, tags }).collect(),
            source: Origin::new(&f.need::<String>(4)?),
            target: Origin::new(&f.need::<String>(5)?),
            forward_all: flags & flag::FORWARD_ALL != 0,
            delete_markers: flags & flag::DELETE_MARKERS != 0,
            version_deletes: flags & flag::VERSION_DELETES != 0,
            object_lock: flags & flag::OBJECT_LOCK != 0,
            since: f.take(11)?,
        };
        let AtMost(ranges) = f.need::<AtMost<RANGES_MAX, (Option<String>, Option<String>)>>(7)?;
        let mut ranges: Vec<_> = ranges.into_iter().map(|(after, upto)| KeyRange { after, upto }).collect();
        let ask = if is_items {
            let range = ranges.pop().filter(|_| ranges.is_empty());
            let range = range.ok_or_else(|| Error::Malformed("items of one range are asked for".into()))?;
            let behind = match (f.take::<String>(8)?, f.take_bytes(9)?) {
                (Some(key), Some(bytes)) => Some((key, version_id(&bytes)?)),
                _ => None,
            };
            Ask::Items { range, behind }
        } else {
            Ask::Digests(ranges)
        };
        Ok(Question { bucket: f.need(1)?, projection, ask, unknown: f })
    }
}

impl Answer {
    pub(super) fn to_fields(&self) -> Fields {
        let mut f = Fields::default();
        let bytes = |of: &[u8]| ByteVec::from(of.to_vec());
        let kind = match self {
            Answer::Digests(digests) => {
                let digests: Vec<_> = digests.iter().map(|d| (d.count, bytes(&d.sum.to_be_bytes()))).collect();
                f.put(2, &digests);
                answer::DIGESTS
            }
            Answer::Items { items, is_last } => {
                let hash = |item: &Item| item.hash.map_or_else(|| bytes(&[]), |hash| bytes(&hash.to_be_bytes()));
                let item = |item: &Item| (item.key.clone(), bytes(item.version_id.as_bytes()), hash(item));
                f.put(3, &items.iter().map(item).collect::<Vec<_>>());
                f.put(4, is_last);
                let beside = items.iter().zip(0u32..).filter_map(|(item, at)| {
                    let beside = item.beside.as_deref()?;
                    Some((at, core_bytes(beside.core), bytes(&beside.gathered)))
                });
                let beside: Vec<(u32, ByteVec, ByteVec)> = beside.collect();
                if !beside.is_empty() {
                    f.put(7, &beside);
                }
                answer::ITEMS
            }
            Answer::Refused(reason) => {
                f.put(5, reason);
                answer::REFUSED
            }
            Answer::Unavailable(reason) => {
                f.put(5, reason);
                answer::UNAVAILABLE
            }
            Answer::Bucket(state) => {
                if let Some(state) = state {
                    f.put_fields(6, &state.to_fields());
                }
                answer::BUCKET
            }
            Answer::Contents(contents) => {
                f.put(8, &contents.iter().map(Content::to_told).collect::<Vec<_>>());
                answer::CONTENTS
            }
            Answer::Drill(state) => {
                f.put_fields(7, &state.to_fields());
                answer::DRILL
            }
        };
        f.put(1, &kind);
        f
    }

    pub(super) fn from_fields(mut f: Fields) -> Result<Self, Error> {
        Ok(match f.need::<u8>(1)? {
            answer::DIGESTS => {
                let AtMost(digests) = f.need::<AtMost<RANGES_MAX, (u64, ByteVec)>>(2)?;
                let digest = |(count, sum): (u64, ByteVec)| Ok::<_, Error>(Digest { count, sum: hash(&sum)? });
                Answer::Digests(digests.into_iter().map(digest).collect::<Result<_, _>>()?)
            }
            answer::ITEMS => {
                let AtMost(items) = f.need::<AtMost<ITEMS_MAX, (String, ByteVec, ByteVec)>>(3)?;
                let item = |(key, id, state): (String, ByteVec, ByteVec)| {
                    let hash = if state.is_empty() { None } else { Some(hash(&state)?) };
                    Ok::<_, Error>(Item { key, version_id: version_id(&id)?, hash, beside: None, purged_at: None })
                };
                let mut items = items.into_iter().map(item).collect::<Result<Vec<_>, _>>()?;
                let beside = f.take::<AtMost<ITEMS_MAX, (u32, ByteVec, ByteVec)>>(7)?;
                for (at, core, gathered) in beside.map(|AtMost(beside)| beside).unwrap_or_default() {
                    let item = items.get_mut(at as usize);
                    let item = item.ok_or_else(|| Error::Malformed("something beside no item".into()))?;
                    item.beside =
                        Some(Box::new(Beside { core: core_of(&core)?, gathered: Vec::from(gathered).into() }));
                }
                Answer::Items { items, is_last: f.need(4)? }
            }
            answer::REFUSED => Answer::Refused(f.need(5)?),
            answer::UNAVAILABLE => Answer::Unavailable(f.need(5)?),
            answer::BUCKET => Answer::Bucket(f.take_fields(6)?.map(BucketState::from_fields).transpose()?),
            answer::CONTENTS => {
                let AtMost(told) = f.need::<AtMost<SPANS_MAX, Told>>(8)?;
                Answer::Contents(told.into_iter().map(Content::from_told).collect::<Result<_, _>>()?)
            }
            answer::DRILL => {
                let state = f.take_fields(7)?.ok_or(wire::Error::Missing(7))?;
                Answer::Drill(Box::new(DrillState::from_fields(state)?))
            }
            other => return Err(Error::Malformed(format!("answer {other} is unknown"))),
        })
    }
}

/// Nothing, one byte, or the 16 of a hash.
fn core_bytes(core: Core) -> ByteVec {
    match core {
        Core::Settled => Vec::new(),
        Core::Absent => vec![0],
        Core::Gone => vec![1],
        Core::State(hash) => hash.to_be_bytes().to_vec(),
    }
    .into()
}

fn core_of(bytes: &[u8]) -> Result<Core, wire::Error> {
    Ok(match bytes {
        [] => Core::Settled,
        [0] => Core::Absent,
        [1] => Core::Gone,
        state => Core::State(hash(state)?),
    })
}

pub(super) fn version_id(bytes: &[u8]) -> Result<VersionId, wire::Error> {
    let id = <[u8; 16]>::try_from(bytes);
    Ok(VersionId::from_bytes(id.map_err(|_| wire::Error::Malformed("a version id has 16 bytes".into()))?))
}

fn hash(bytes: &[u8]) -> Result<u128, wire::Error> {
    let hash = <[u8; 16]>::try_from(bytes);
    Ok(u128::from_be_bytes(hash.map_err(|_| wire::Error::Malformed("a state hash has 16 bytes".into()))?))
}
