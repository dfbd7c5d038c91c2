//! Tagged fields: how every record, cursor and frame becomes bytes.
//!
//! A [`Fields`] is a CBOR map with small integer keys. What a reader does not know it carries along
//! unchanged, so that version N-1 and version N can hold each other's data. Pure; never does I/O.
//!
//! Source of the format: RFC 8949 (CBOR), deterministic encoding (section 4.2): keys ascending,
//! shortest lengths.
use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;

/// Fields of one map at most: a record has some thirty. Millions of empty ones would take far more memory than their
/// bytes before they could be refused for anything else.
const FIELDS_MAX: usize = 4096;

/// What the bytes were not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not a map of fields, or end too early.
    #[error("malformed fields: {0}")]
    Malformed(String),
    /// A field without which the value means nothing is absent.
    #[error("field {0} is missing")]
    Missing(u32),
}

impl From<minicbor::decode::Error> for Error {
    fn from(e: minicbor::decode::Error) -> Self {
        Error::Malformed(e.to_string())
    }
}

/// A map from field number to its encoded value; known fields are taken out, the rest stays.
///
/// All values stand in one buffer: a record has some thirty fields in nested maps, and is coded for
/// every drive that holds it.
#[derive(Clone, Default)]
pub struct Fields {
    /// Encoded values, one after another; what was taken or replaced is left as a gap.
    bytes: Vec<u8>,
    /// Number of a field and where its value stands, numbers ascending.
    places: Vec<(u32, Range<usize>)>,
}

impl Fields {
    /// Reads one map that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the bytes are no map with integer keys or have a tail.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut d = Decoder::new(bytes);
        let count = d.map()?.ok_or_else(|| Error::Malformed("a map of unknown length".into()))?;
        if count > FIELDS_MAX as u64 {
            return Err(Error::Malformed(format!("{count} fields in one map")));
        }
        let mut places: Vec<(u32, Range<usize>)> = Vec::new();
        for _ in 0..count {
            let key = d.u32()?;
            let start = d.position();
            d.skip()?;
            places.push((key, start..d.position()));
        }
        if d.position() != bytes.len() {
            return Err(Error::Malformed("bytes after the map".into()));
        }
        places.sort_by_key(|(key, _)| *key);
        if let Some(twice) = places.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::Malformed(format!("field {} stands twice", twice[0].0)));
        }
        Ok(Fields { bytes: if places.is_empty() { Vec::new() } else { bytes.to_vec() }, places })
    }

    /// The map as bytes, keys ascending: equal fields give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::with_capacity(8 + self.iter().map(|(_, value)| value.len() + 5).sum::<usize>()));
        e.map(self.places.len() as u64).expect("a Vec takes every byte");
        for (key, value) in self.iter() {
            e.u32(key).expect("a Vec takes every byte");
            e.writer_mut().extend_from_slice(value);
        }
        e.into_writer()
    }

    /// Fields in order, each with its encoded value.
    fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.places.iter().map(|(key, place)| (*key, &self.bytes[place.clone()]))
    }

    /// Puts a field in; an existing one is replaced.
    pub fn put<T: Encode<()>>(&mut self, key: u32, value: &T) {
        self.append(key, |bytes| minicbor::encode(value, bytes).expect("a Vec takes every byte"));
    }

    /// Puts a field in only where there is a value.
    pub fn put_some<T: Encode<()>>(&mut self, key: u32, value: &Option<T>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    /// Puts raw bytes in as a CBOR byte string.
    pub fn put_bytes(&mut self, key: u32, value: &[u8]) {
        self.append(key, |bytes| _ = Encoder::new(bytes).bytes(value).expect("a Vec takes every byte"));
    }

    /// Puts nested fields in, as a byte string.
    pub fn put_fields(&mut self, key: u32, value: &Fields) {
        self.put_bytes(key, &value.to_bytes());
    }

    fn append(&mut self, key: u32, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        encode(&mut self.bytes);
        let place = start..self.bytes.len();
        // Writers put fields in order, so this is the end as a rule.
        match self.places.last() {
            Some((last, _)) if *last >= key => match self.find(key) {
                Ok(at) => self.places[at].1 = place,
                Err(at) => self.places.insert(at, (key, place)),
            },
            _ => self.places.push((key, place)),
        }
    }

    fn find(&self, key: u32) -> Result<usize, usize> {
        self.places.binary_search_by_key(&key, |(known, _)| *known)
    }

    /// Takes a field out and reads its encoded value.
    fn remove<T>(&mut self, key: u32, read: impl FnOnce(&[u8]) -> Result<T, Error>) -> Result<Option<T>, Error> {
        let Ok(at) = self.find(key) else { return Ok(None) };
        let (_, place) = self.places.remove(at);
        let found = read(&self.bytes[place]);
        if self.places.is_empty() {
            // What is left over lives as long as its record: it holds no gaps alone.
            self.bytes = Vec::new();
        }
        found.map(Some)
    }

    /// Takes a field out; `None` where it is absent.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the field is there with another type.
    pub fn take<T: for<'b> Decode<'b, ()>>(&mut self, key: u32) -> Result<Option<T>, Error> {
        self.remove(key, |raw| minicbor::decode(raw).map_err(|e| Error::Malformed(format!("field {key}: {e}"))))
    }

    /// Takes a field out that must be there.
    ///
    /// # Errors
    /// [`Error::Missing`] when it is absent, [`Error::Malformed`] when it has another type.
    pub fn need<T: for<'b> Decode<'b, ()>>(&mut self, key: u32) -> Result<T, Error> {
        self.take(key)?.ok_or(Error::Missing(key))
    }

    /// Takes a byte string out.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the field is no byte string.
    pub fn take_bytes(&mut self, key: u32) -> Result<Option<Vec<u8>>, Error> {
        self.remove(key, |raw| Ok(byte_string(key, raw)?.to_vec()))
    }

    /// Takes nested fields out.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the field does not hold fields.
    pub fn take_fields(&mut self, key: u32) -> Result<Option<Fields>, Error> {
        self.remove(key, |raw| Fields::parse(byte_string(key, raw)?))
    }

    /// Takes out of nested fields what `take` knows; what it leaves stays under `key` for [`put_within`](Self::put_within).
    ///
    /// # Errors
    /// [`Error::Malformed`] when the field does not hold fields, and what `take` returns.
    pub fn take_within<T>(
        &mut self,
        key: u32,
        take: impl FnOnce(&mut Fields) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let Some(mut inner) = self.take_fields(key)? else { return Ok(None) };
        let taken = take(&mut inner)?;
        if !inner.is_empty() {
            self.put_fields(key, &inner);
        }
        Ok(Some(taken))
    }

    /// Puts nested fields in, beside those that [`take_within`](Self::take_within) left there.
    pub fn put_within(&mut self, key: u32, put: impl FnOnce(&mut Fields)) {
        let left = self.take_fields(key).expect("only nested fields are left under the number of nested fields");
        let mut inner = left.unwrap_or_default();
        put(&mut inner);
        self.put_fields(key, &inner);
    }

    /// Joins the fields of `other` in: for a field on both sides the greater bytes win.
    pub fn join(&mut self, other: &Fields) {
        for (key, theirs) in other.iter() {
            match self.find(key) {
                Ok(at) if self.bytes[self.places[at].1.clone()] >= *theirs => {}
                _ => self.append(key, |bytes| bytes.extend_from_slice(theirs)),
            }
        }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

fn byte_string(key: u32, raw: &[u8]) -> Result<&[u8], Error> {
    let mut d = Decoder::new(raw);
    if d.datatype()? != Type::Bytes {
        return Err(Error::Malformed(format!("field {key} is no byte string")));
    }
    Ok(d.bytes()?)
}

// Equal is what holds the same fields, wherever they stand in the buffer.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}
impl Eq for Fields {}
impl PartialOrd for Fields {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Fields {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}
impl Hash for Fields {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.iter().for_each(|field| field.hash(state));
    }
}
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_survive_a_reader_that_does_not_know_them() {
        let mut newer = Fields::default();
        newer.put(1, &7u64);
        newer.put(200, &"from a later version".to_string());
        let bytes = newer.to_bytes();
        let mut read = Fields::parse(&bytes).unwrap();
        let known: u64 = read.need(1).unwrap();
        read.put(1, &known);
        assert_eq!(read.to_bytes(), bytes);
    }

    #[test]
    fn truncated_doubled_and_trailing_bytes_are_refused() {
        let mut f = Fields::default();
        f.put_bytes(3, b"abc");
        let bytes = f.to_bytes();
        for cut in 0..bytes.len() {
            assert!(Fields::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut tail = bytes.clone();
        tail.push(0);
        assert!(Fields::parse(&tail).is_err());
        assert!(Fields::parse(&[0xa2, 1, 1, 1, 2]).is_err(), "field 1 twice");
    }

    #[test]
    fn fields_are_equal_however_they_came_to_stand_there() {
        let mut in_order = Fields::default();
        in_order.put(1, &1u8);
        in_order.put(2, &"two".to_string());
        let mut shuffled = Fields::default();
        shuffled.put(3, &3u8);
        shuffled.put(2, &"another".to_string());
        shuffled.put(1, &1u8);
        shuffled.put(2, &"two".to_string());
        assert_ne!(shuffled, in_order);
        assert_eq!(shuffled.take::<u8>(3).unwrap(), Some(3));
        assert_eq!((&shuffled, shuffled.to_bytes()), (&in_order, in_order.to_bytes()));
        assert_eq!(Fields::parse(&[0xa2, 2, 0x63, b't', b'w', b'o', 1, 1]).unwrap(), in_order, "unsorted is read");
        let mut joined = Fields::default();
        joined.put(2, &"abc".to_string());
        joined.join(&in_order);
        assert_eq!(joined, in_order, "the greater bytes of field 2 win");
    }
}
