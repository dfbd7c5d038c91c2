//! [`Held`]: everything a drive holds of one key, and the rows that say so. Pure.
//!
//! A key with few versions is one row, its head: one point read finds it, and one finds that there is
//! no such key. A key with more has a row per record, so that the next version does not rewrite all
//! earlier ones. Called by `index.rs` on the live road and on replay.
use super::rows::{self, Row};
use super::table::Rows;
use crate::drive::Lsn;
use crate::drive::log::segment::Entry;
use crate::quorum::participant::{Effect, KeyView};
use crate::record::Recent;
use crate::version::{Ballot, VersionId};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Attempts in a head, aborted ones included; from then on the key is spread.
pub const HEAD_ATTEMPTS: usize = 4;
/// Bytes of records in a head: it is written again with every change of the key.
pub const HEAD_BYTES: usize = 4 << 10;

/// Everything held of one key, with the feed places of its versions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// What the protocol sees.
    pub view: KeyView,
    /// The lsn at which each version stands in the feed.
    pub feed: BTreeMap<VersionId, Lsn>,
    /// The records have rows of their own; it stays so.
    pub is_spread: bool,
    /// The records of a head as their rows have them, the acked flag aside; empty once spread.
    pub kept: Vec<Kept>,
}

/// The bytes of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub id: VersionId,
    pub ballot: Ballot,
    pub bytes: Bytes,
}

impl Held {
    /// The bytes of a record of a head.
    pub fn kept(&self, id: VersionId, ballot: Ballot) -> Option<&Kept> {
        self.kept.iter().find(|k| k.ballot == ballot && k.id == id)
    }

    /// Makes a change and tells which rows under `prefix` follow from it. `place`: where the version
    /// stands in the feed from now on, if it moves.
    pub fn change(&mut self, prefix: &[u8], id: VersionId, entry: &Entry, place: Option<Lsn>, out: &mut Rows) {
        let before = self.is_spread.then(|| Attempts::of(&self.view, id));
        self.view.apply(&entry.effect);
        if let Some(lsn) = place {
            self.feed.insert(id, lsn);
        }
        if let Some(before) = before {
            before.differences(&self.view, id, &entry.effect, prefix, out);
            out.extend(place.map(|lsn| (rows::name(prefix, Row::Feed(id)), Some(lsn.to_be_bytes().to_vec()))));
            return;
        }
        self.keep(id, &entry.effect);
        let bytes: usize = self.kept.iter().map(|k| k.bytes.len()).sum();
        if self.view.records.len() + self.view.aborts.len() > HEAD_ATTEMPTS || bytes > HEAD_BYTES {
            self.spread(prefix, out);
        }
        out.push((prefix.to_vec(), Some(rows::write_head(self))));
    }

    /// Brings the kept bytes up to the view.
    fn keep(&mut self, id: VersionId, effect: &Effect) {
        let put = match effect {
            Effect::Put { record, .. } => Some(record),
            _ => None,
        };
        let is_put = |k: &Kept| put.is_some_and(|put| put.ballot == k.ballot && k.id == id);
        let is_joined = |k: &Kept| matches!(effect, Effect::Join { .. }) && k.id == id;
        let view = &self.view;
        self.kept.retain(|k| view.held(k.id, k.ballot).is_some() && !is_put(k) && !is_joined(k));
        if let Some(put) = put {
            self.kept.push(Kept { id, ballot: put.ballot, bytes: put.bytes().clone() });
        }
        for record in &view.records {
            let (id, ballot) = (record.id(), record.ballot);
            if self.kept.iter().all(|k| k.ballot != ballot || k.id != id) {
                self.kept.push(Kept { id, ballot, bytes: record.to_bytes().into() });
            }
        }
    }

    /// Gives everything of the key a row of its own.
    fn spread(&mut self, prefix: &[u8], out: &mut Rows) {
        for kept in std::mem::take(&mut self.kept) {
            out.push((rows::name(prefix, Row::Record(kept.id, kept.ballot)), Some(kept.bytes.to_vec())));
        }
        for record in self.view.records.iter().filter(|r| r.acked) {
            out.push((rows::name(prefix, Row::Ack(record.id(), record.ballot)), Some(Vec::new())));
        }
        for (id, ballot) in &self.view.aborts {
            out.push((rows::name(prefix, Row::Abort(*id, *ballot)), Some(Vec::new())));
        }
        for (id, lsn) in &self.feed {
            out.push((rows::name(prefix, Row::Feed(*id)), Some(lsn.to_be_bytes().to_vec())));
        }
        self.is_spread = true;
    }

    /// What is held of a spread key, from its rows without the head; `None`: one of them is damaged.
    pub fn gather<'a>(found: impl Iterator<Item = (&'a [u8], &'a [u8])>, recent: &Recent) -> Option<Held> {
        let (mut held, mut acks) = (Held { is_spread: true, ..Held::default() }, Vec::new());
        for (rest, value) in found {
            match Row::read(rest)? {
                Row::Record(..) => held.view.records.push(recent.read(value).ok()?),
                Row::Ack(id, ballot) => acks.push((id, ballot)),
                Row::Abort(id, ballot) => held.view.aborts.push((id, ballot)),
                Row::Feed(id) => drop(held.feed.insert(id, rows::number(value)?)),
            }
        }
        for record in &mut held.view.records {
            if acks.contains(&(record.id(), record.ballot)) {
                *record = record.flagged();
            }
        }
        Some(held)
    }
}

/// Attempts of one version, before a change.
struct Attempts {
    records: Vec<(Ballot, bool)>,
    aborts: Vec<Ballot>,
}

impl Attempts {
    fn of(view: &KeyView, id: VersionId) -> Self {
        Attempts {
            records: view.records.iter().filter(|r| r.id() == id).map(|r| (r.ballot, r.acked)).collect(),
            aborts: view.aborts.iter().filter(|(v, _)| *v == id).map(|(_, b)| *b).collect(),
        }
    }

    /// The rows that turn what was held of the version into what is held now.
    fn differences(&self, now: &KeyView, id: VersionId, effect: &Effect, prefix: &[u8], out: &mut Rows) {
        for (ballot, acked) in self.records.iter().filter(|(b, _)| now.held(id, *b).is_none()) {
            out.push((rows::name(prefix, Row::Record(id, *ballot)), None));
            if *acked {
                out.push((rows::name(prefix, Row::Ack(id, *ballot)), None));
            }
        }
        for record in now.records.iter().filter(|r| r.id() == id) {
            let was = self.records.iter().find(|(b, _)| *b == record.ballot);
            let bytes = match effect {
                Effect::Put { record: put, .. } if put.ballot == record.ballot => Some(put.bytes().to_vec()),
                Effect::Join { .. } => Some(record.to_bytes()),
                _ if was.is_none() => Some(record.to_bytes()),
                _ => None,
            };
            out.extend(bytes.map(|bytes| (rows::name(prefix, Row::Record(id, record.ballot)), Some(bytes))));
            // The flag has a row of its own: an ack rewrites no record.
            if record.acked && !was.is_some_and(|(_, acked)| *acked) {
                out.push((rows::name(prefix, Row::Ack(id, record.ballot)), Some(Vec::new())));
            }
        }
        let gone = self.aborts.iter().filter(|b| !now.aborted(id, **b));
        out.extend(gone.map(|b| (rows::name(prefix, Row::Abort(id, *b)), None)));
        let new = now.aborts.iter().filter(|(v, b)| *v == id && !self.aborts.contains(b));
        out.extend(new.map(|(_, b)| (rows::name(prefix, Row::Abort(id, *b)), Some(Vec::new()))));
    }
}
