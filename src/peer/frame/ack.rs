//! Ack: what became of one version at the receiver.
use super::{AtMost, Error};
use crate::link::{Reason, Why};
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
        Ack::Refused(why) => {
            put_why(&mut f, why);
            outcome::REFUSED
        }
        Ack::Retry { after_ms, why } => {
            put_why(&mut f, why);
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

/// Field 6 says what kind of reason it is; a build of before leaves it out.
fn put_why(f: &mut Fields, why: &Why) {
    f.put(2, &why.said);
    if why.reason != Reason::Other {
        f.put(6, &why.reason.word());
    }
}

fn need_why(f: &mut Fields) -> Result<Why, Error> {
    let word: Option<String> = f.take(6)?;
    Ok(Why { said: f.need(2)?, reason: word.map_or(Reason::Other, |word| Reason::of(&word)) })
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
        outcome::REFUSED => Ack::Refused(need_why(&mut f)?),
        outcome::RETRY => Ack::Retry { why: need_why(&mut f)?, after_ms: f.need(3)? },
        outcome::CLOCK_AHEAD => Ack::ClockAhead { after_ms: f.need(3)? },
        outcome::FENCED => Ack::Fenced { highest: f.need(4)? },
        other => return Err(Error::Malformed(format!("outcome {other} is unknown"))),
    })
}
