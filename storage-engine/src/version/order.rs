//! The order of versions: (HLC, origin, version id). Pure.
use crate::wire::{self, Fields};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// A hybrid logical clock reading: 48 bits of Unix milliseconds, 16 bits of counter.
///
/// Source: Kulkarni et al., "Logical Physical Clocks" (2014).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(u64);

impl Hlc {
    /// The reading below every other.
    pub const ZERO: Hlc = Hlc(0);
    /// The first reading of a millisecond.
    pub const fn from_millis(millis: u64) -> Self {
        Hlc(millis << 16)
    }
    /// A reading from its 64 bits.
    pub const fn from_bits(bits: u64) -> Self {
        Hlc(bits)
    }
    /// The 64 bits of the reading; their order is the order of readings.
    pub const fn bits(self) -> u64 {
        self.0
    }
    /// Unix milliseconds of the reading.
    pub const fn millis(self) -> u64 {
        self.0 >> 16
    }
    /// The next reading; a full counter carries into the milliseconds.
    pub const fn next(self) -> Self {
        Hlc(self.0 + 1)
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.0 & 0xffff)
    }
}

/// The number of one attempt to write; local to a store, never part of the order of versions.
pub type Ballot = Hlc;

/// Where a version was born: opaque to the store, at most 32 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Origin(std::sync::Arc<str>);

impl Origin {
    /// An origin by its name.
    pub fn new(name: &str) -> Self {
        Origin(name.into())
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a version as S3 shows it: 32 hexadecimal digits, or `null`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(Uuid);

impl VersionId {
    /// The version of a bucket without versioning.
    pub const NULL: VersionId = VersionId(Uuid::nil());
    /// An id from a UUID made by `entropy`.
    pub const fn from_uuid(id: Uuid) -> Self {
        VersionId(id)
    }
    /// Whether this is the null version.
    pub fn is_null(self) -> bool {
        self == Self::NULL
    }
    /// The 16 bytes of the id.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
    /// An id from its 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        VersionId(Uuid::from_bytes(bytes))
    }
}
impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_null() { f.write_str("null") } else { write!(f, "{}", self.0.as_simple()) }
    }
}
impl fmt::Debug for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
/// The text is no version id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a version id is `null` or 32 hexadecimal digits")]
pub struct InvalidVersionId;
impl FromStr for VersionId {
    type Err = InvalidVersionId;
    fn from_str(s: &str) -> Result<Self, InvalidVersionId> {
        if s == "null" {
            return Ok(Self::NULL);
        }
        if s.len() != 32 {
            return Err(InvalidVersionId);
        }
        let id = Uuid::try_parse(s).map_err(|_| InvalidVersionId)?;
        if id.is_nil() { Err(InvalidVersionId) } else { Ok(VersionId(id)) }
    }
}

/// Place of a version among the versions of its key, alike on every site. It is compared everywhere, so
/// what a later format says beside it stays with its holder ([`Fields::take_within`]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order {
    /// When it was born.
    pub hlc: Hlc,
    /// Where it was born.
    pub origin: Origin,
    /// Its id.
    pub version_id: VersionId,
}

impl Order {
    /// The order as fields.
    pub fn to_fields(&self) -> Fields {
        let mut f = Fields::default();
        self.put(&mut f);
        f
    }
    pub(super) fn put(&self, f: &mut Fields) {
        f.put(1, &self.hlc.bits());
        f.put(2, &self.origin.as_str().to_string());
        f.put_bytes(3, self.version_id.as_bytes());
    }
    /// An order from its fields.
    ///
    /// # Errors
    /// [`wire::Error`] when a field is missing or of another type.
    pub fn from_fields(mut f: Fields) -> Result<Self, wire::Error> {
        Self::take(&mut f)
    }
    pub(super) fn take(f: &mut Fields) -> Result<Self, wire::Error> {
        Ok(Order {
            hlc: Hlc::from_bits(f.need(1)?),
            origin: Origin::new(&f.need::<String>(2)?),
            version_id: version_id(f, 3)?,
        })
    }
}

/// A version id out of field `key`.
pub(crate) fn version_id(f: &mut Fields, key: u32) -> Result<VersionId, wire::Error> {
    let bytes = f.take_bytes(key)?.ok_or(wire::Error::Missing(key))?;
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| wire::Error::Malformed("a version id has 16 bytes".into()))?;
    Ok(VersionId::from_bytes(bytes))
}

/// When and where one component of a version was last set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// When.
    pub hlc: Hlc,
    /// Where.
    pub origin: Origin,
    /// Fields of a later format.
    pub unknown: Fields,
}

impl Stamp {
    /// A stamp of this format.
    pub fn new(hlc: Hlc, origin: Origin) -> Self {
        Stamp { hlc, origin, unknown: Fields::default() }
    }
    /// The earlier of two; of equal ones, with all that either knows.
    pub(super) fn earlier(mut self, other: Stamp) -> Stamp {
        match (self.hlc, &self.origin).cmp(&(other.hlc, &other.origin)) {
            Ordering::Less => self,
            Ordering::Greater => other,
            Ordering::Equal => {
                self.unknown.join(&other.unknown);
                self
            }
        }
    }
    /// The stamp as fields.
    pub fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        f.put(1, &self.hlc.bits());
        f.put(2, &self.origin.as_str().to_string());
        f
    }
    /// A stamp from its fields.
    ///
    /// # Errors
    /// [`wire::Error`] when a field is missing or of another type.
    pub fn from_fields(mut f: Fields) -> Result<Self, wire::Error> {
        Ok(Stamp { hlc: Hlc::from_bits(f.need(1)?), origin: Origin::new(&f.need::<String>(2)?), unknown: f })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_reading_is_the_least_above_and_a_full_counter_carries() {
        let last = Hlc::from_bits(Hlc::from_millis(5).bits() + 0xffff);
        assert_eq!((last.millis(), last.next()), (5, Hlc::from_millis(6)));
        assert_eq!(Hlc::from_millis(6).next().bits(), Hlc::from_millis(6).bits() + 1);
    }

    #[test]
    fn a_version_id_is_read_as_it_is_written_and_nothing_else_is_one() {
        let id = VersionId::from_bytes([0xab; 16]);
        for (id, text) in [(id, "ab".repeat(16)), (VersionId::NULL, "null".into())] {
            assert_eq!((id.to_string(), text.parse()), (text.clone(), Ok(id)));
        }
        let hyphened = "abababab-abab-abab-abab-abababababab";
        for wrong in ["", "Null", &"a".repeat(31), &"g".repeat(32), &"0".repeat(32), hyphened] {
            assert_eq!(wrong.parse::<VersionId>(), Err(InvalidVersionId), "{wrong}");
        }
    }

    #[test]
    fn what_a_log_shows_of_them_is_what_they_are() {
        let hlc = Hlc::from_bits(Hlc::from_millis(5).bits() + 7);
        let shown = format!("{hlc:?} {:?} {:?}", Origin::new("ams"), VersionId::from_bytes([0xab; 16]));
        assert_eq!(shown, format!("5.7 ams {}", "ab".repeat(16)));
    }
}
