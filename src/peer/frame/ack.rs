//! Ack: what became of one version at the receiver.
use super::{AtMost, Error};
use crate::peer::Ack;
use storage_engine::wire::Fields;

/// Pieces named in one ack at most: a version has no more.
pub const PIECES_MAX: usize = 10_000;

/// Outcomes by number; never reused for another meaning.
mod outcome {
    pub const APPLIED: u8 = 1;
    pub const ALREADY_PRESENT: u8 = 2;
    pub const SUPERSEDED: u8 = 3;
    pub const NEEDS_BODY: u8 = 4;
    pub const REFUSED: u8 = 5;
    pub const RETRY: u8 = 6;
    pub const CLOCK_AHEAD: u8 = 7;
    pub const FENCED: u8 = 8;
    pub const NEEDS_PIECES: u8 = 9;
}

pub(super) fn to_fields(ack: &Ack) -> Fields {
    let mut f = Fields::default();
    let number = match ack {
        Ack::Applied => outcome::APPLIED,
        Ack::AlreadyPresent => outcome::ALREADY_PRESENT,
        Ack::Superseded => outcome::SUPERSEDED,
        Ack::NeedsBody => outcome::NEEDS_BODY,
        Ack::NeedsPieces { held } => {
            f.put(5, held);
            outcome::NEEDS_PIECES
        }
        Ack::Refused(reason) => {
            f.put(2, reason);
            outcome::REFUSED
        }
        Ack::Retry { after_ms, reason } => {
            f.put(2, reason);
            f.put(3, after_ms);
            outcome::RETRY
        }
        Ack::ClockAhead { after_ms } => {
            f.put(3, after_ms);
            outcome::CLOCK_AHEAD
        }
        Ack::Fenced { highest } => {
            f.put(4, highest);
            outcome::FENCED
        }
    };
    f.put(1, &number);
    f
}

pub(super) fn from_fields(mut f: Fields) -> Result<Ack, Error> {
    Ok(match f.need::<u8>(1)? {
        outcome::APPLIED => Ack::Applied,
        outcome::ALREADY_PRESENT => Ack::AlreadyPresent,
        outcome::SUPERSEDED => Ack::Superseded,
        outcome::NEEDS_BODY => Ack::NeedsBody,
        outcome::NEEDS_PIECES => {
            let AtMost(held) = f.need::<AtMost<PIECES_MAX, u32>>(5)?;
            Ack::NeedsPieces { held }
        }
        outcome::REFUSED => Ack::Refused(f.need(2)?),
        outcome::RETRY => Ack::Retry { reason: f.need(2)?, after_ms: f.need(3)? },
        outcome::CLOCK_AHEAD => Ack::ClockAhead { after_ms: f.need(3)? },
        outcome::FENCED => Ack::Fenced { highest: f.need(4)? },
        other => return Err(Error::Malformed(format!("outcome {other} is unknown"))),
    })
}
