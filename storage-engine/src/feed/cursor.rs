//! What is inside a cursor: for each drive, the life of its content and a place in its log. Pure.
//!
//! Readers hold a cursor as opaque bytes; only this file looks inside. A drive that was replaced since
//! is read from its beginning; a cursor that knows none of the drives is of another store: expired.
use super::Cursor;
use crate::drive::Lsn;
use crate::wire::{self, Fields};
use minicbor::bytes::ByteVec;
use uuid::Uuid;

/// Format of the cursors written here; others are not understood and answered as expired.
const FORMAT: u32 = 1;

/// A cursor that can no longer be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not of this store")]
pub struct Foreign;

/// A place in the feed of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Map epoch in which it was written.
    epoch: u64,
    /// By slot: the incarnation, and the place that is dealt with.
    places: Vec<(Uuid, Lsn)>,
    /// Fields of a later format.
    unknown: Fields,
}

impl Position {
    /// The beginning of the feed over drives of these incarnations, by slot.
    pub fn start(epoch: u64, incarnations: &[Uuid]) -> Self {
        Position { epoch, places: incarnations.iter().map(|i| (*i, 0)).collect(), unknown: Fields::default() }
    }

    /// The position a cursor names over drives as they are now.
    ///
    /// # Errors
    /// [`Foreign`] when the cursor is damaged, of another format, or knows none of the drives.
    pub fn resume(cursor: &Cursor, epoch: u64, incarnations: &[Uuid]) -> Result<Self, Foreign> {
        let mut found = Self::from_bytes(&cursor.0).map_err(|_| Foreign)?;
        let mut knows_one = false;
        let mut places = Vec::with_capacity(incarnations.len());
        for (slot, incarnation) in incarnations.iter().enumerate() {
            let known = found.places.get(slot).filter(|(held, _)| held == incarnation);
            knows_one |= known.is_some();
            places.push((*incarnation, known.map_or(0, |(_, lsn)| *lsn)));
        }
        if !knows_one || found.epoch > epoch {
            return Err(Foreign);
        }
        (found.epoch, found.places) = (epoch, places);
        Ok(found)
    }

    /// The place on the drive of `slot`.
    pub fn place(&self, slot: usize) -> Lsn {
        self.places.get(slot).map_or(0, |(_, lsn)| *lsn)
    }
    /// Moves the place on the drive of `slot`.
    pub fn set(&mut self, slot: usize, lsn: Lsn) {
        if let Some(place) = self.places.get_mut(slot) {
            place.1 = lsn;
        }
    }
    /// Whether it is beyond `other` on no drive; of other lives of content nothing is said.
    pub fn is_at_or_before(&self, other: &Position) -> bool {
        (0..self.places.len().max(other.places.len())).all(|slot| self.place(slot) <= other.place(slot))
    }
    /// Whether everything acked before `mark` lies before this place: a majority of drives is past it, and
    /// every write quorum holds one of a majority.
    fn has_passed(&self, mark: &Position) -> bool {
        let of_mark = |(at, (incarnation, lsn)): (usize, &(Uuid, Lsn))| {
            self.places.get(at).is_some_and(|(held, place)| held == incarnation && place >= lsn)
        };
        let past = mark.places.iter().enumerate().filter(|place| of_mark(*place)).count();
        past > mark.places.len() / 2
    }
    /// Lives of the drives' content, by slot.
    pub fn incarnations(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.places.iter().map(|(incarnation, _)| *incarnation)
    }

    /// The position as a cursor.
    pub fn to_cursor(&self) -> Cursor {
        let mut f = self.unknown.clone();
        f.put(1, &FORMAT);
        f.put(2, &self.epoch);
        f.put(3, &self.places.iter().map(|(i, _)| ByteVec::from(i.as_bytes().to_vec())).collect::<Vec<_>>());
        f.put(4, &self.places.iter().map(|(_, lsn)| *lsn).collect::<Vec<_>>());
        Cursor(f.to_bytes().into())
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, wire::Error> {
        let mut f = Fields::parse(bytes)?;
        if f.need::<u32>(1)? != FORMAT {
            return Err(wire::Error::Malformed("a cursor of another format".into()));
        }
        let epoch = f.need(2)?;
        let incarnations: Vec<ByteVec> = f.need(3)?;
        let lsns: Vec<Lsn> = f.need(4)?;
        if incarnations.len() != lsns.len() {
            return Err(wire::Error::Malformed("a cursor with drives without places".into()));
        }
        let incarnation = |bytes: ByteVec| {
            Uuid::from_slice(&bytes).map_err(|_| wire::Error::Malformed("an incarnation has 16 bytes".into()))
        };
        let places = incarnations.into_iter().zip(lsns).map(|(i, lsn)| Ok((incarnation(i)?, lsn)));
        Ok(Position { epoch, places: places.collect::<Result<_, wire::Error>>()?, unknown: f })
    }
}

impl Cursor {
    /// Whether a reader at this place has been shown everything acked before `mark`. False also where that
    /// cannot be told: a cursor of another store, or drives replaced since.
    pub fn has_passed(&self, mark: &Cursor) -> bool {
        match (Position::from_bytes(&self.0), Position::from_bytes(&mark.0)) {
            (Ok(here), Ok(mark)) => here.has_passed(&mark),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_passed_once_a_majority_of_its_drives_is() {
        let at = |lsns: [Lsn; 3]| {
            let mut position = Position::start(1, &drives(1));
            lsns.iter().enumerate().for_each(|(slot, lsn)| position.set(slot, *lsn));
            position.to_cursor()
        };
        let mark = at([5, 5, 5]);
        assert!(mark.has_passed(&mark) && at([5, 9, 0]).has_passed(&mark));
        assert!(!at([5, 4, 4]).has_passed(&mark));
        let other = Position::start(1, &drives(2)).to_cursor();
        assert!(!at([9, 9, 9]).has_passed(&other) && !Cursor::default().has_passed(&mark));
    }

    fn drives(of: u128) -> Vec<Uuid> {
        (0..3).map(|slot| Uuid::from_u128(of * 100 + slot)).collect()
    }

    #[test]
    fn a_replaced_drive_is_read_from_its_beginning_and_a_foreign_store_expires() {
        let mut position = Position::start(1, &drives(1));
        (0..3).for_each(|slot| position.set(slot, 40 + slot as u64));
        let cursor = position.to_cursor();
        assert_eq!(Position::resume(&cursor, 1, &drives(1)), Ok(position));
        let mut swapped = drives(1);
        swapped[1] = Uuid::from_u128(9);
        let resumed = Position::resume(&cursor, 2, &swapped).unwrap();
        assert_eq!((0..3).map(|s| resumed.place(s)).collect::<Vec<_>>(), [40, 0, 42]);
        assert_eq!(Position::resume(&cursor, 1, &drives(2)), Err(Foreign));
        assert_eq!(Position::resume(&cursor, 0, &drives(1)), Err(Foreign), "a store set back in time");
        assert_eq!(Position::resume(&Cursor::default(), 1, &drives(1)), Err(Foreign));
    }

    #[test]
    fn the_stored_cursor_is_read_and_written_unchanged() {
        for golden in [
            &include_bytes!("../../tests/golden/cursor.bin")[..],
            include_bytes!("../../tests/golden/cursor-newer.bin"),
        ] {
            let position = Position::from_bytes(golden).unwrap();
            assert_eq!(position.place(1), 41);
            assert_eq!(position.to_cursor().0, golden);
        }
    }
}
