//! Tagged fields: how every record, cursor and frame becomes bytes.
//!
//! A [`Fields`] is a CBOR map with small integer keys. What a reader does not know it carries along
//! unchanged, so that version N-1 and version N can hold each other's data. Pure; never does I/O.
//!
//! Source of the format: RFC 8949 (CBOR), deterministic encoding (section 4.2): keys ascending,
//! shortest lengths.
use minicbor::data::Type;
use minicbor::{CborLen, Decode, Decoder, Encode, Encoder};
use std::collections::BTreeMap;

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
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fields(BTreeMap<u32, Vec<u8>>);

impl Fields {
    /// Reads one map that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the bytes are no map with integer keys or have a tail.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut d = Decoder::new(bytes);
        let count = d.map()?.ok_or_else(|| Error::Malformed("a map of unknown length".into()))?;
        let mut map = BTreeMap::new();
        for _ in 0..count {
            let key = d.u32()?;
            let start = d.position();
            d.skip()?;
            if map.insert(key, bytes[start..d.position()].to_vec()).is_some() {
                return Err(Error::Malformed(format!("field {key} stands twice")));
            }
        }
        if d.position() != bytes.len() {
            return Err(Error::Malformed("bytes after the map".into()));
        }
        Ok(Self(map))
    }

    /// The map as bytes, keys ascending: equal fields give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::with_capacity(16 + self.0.values().map(|v| v.len() + 3).sum::<usize>()));
        e.map(self.0.len() as u64).expect("a Vec takes every byte");
        for (key, value) in &self.0 {
            e.u32(*key).expect("a Vec takes every byte");
            e.writer_mut().extend_from_slice(value);
        }
        e.into_writer()
    }

    /// Puts a field in; an existing one is replaced.
    pub fn put<T: Encode<()> + CborLen<()>>(&mut self, key: u32, value: &T) {
        self.0.insert(key, minicbor::to_vec(value).expect("a Vec takes every byte"));
    }

    /// Puts a field in only where there is a value.
    pub fn put_some<T: Encode<()> + CborLen<()>>(&mut self, key: u32, value: &Option<T>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    /// Puts raw bytes in as a CBOR byte string.
    pub fn put_bytes(&mut self, key: u32, value: &[u8]) {
        let mut e = Encoder::new(Vec::with_capacity(value.len() + 9));
        e.bytes(value).expect("a Vec takes every byte");
        self.0.insert(key, e.into_writer());
    }

    /// Puts nested fields in, as a byte string.
    pub fn put_fields(&mut self, key: u32, value: &Fields) {
        self.put_bytes(key, &value.to_bytes());
    }

    /// Takes a field out; `None` where it is absent.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the field is there with another type.
    pub fn take<T: for<'b> Decode<'b, ()>>(&mut self, key: u32) -> Result<Option<T>, Error> {
        match self.0.remove(&key) {
            None => Ok(None),
            Some(raw) => minicbor::decode(&raw).map(Some).map_err(|e| Error::Malformed(format!("field {key}: {e}"))),
        }
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
        let Some(raw) = self.0.remove(&key) else { return Ok(None) };
        let mut d = Decoder::new(&raw);
        if d.datatype()? != Type::Bytes {
            return Err(Error::Malformed(format!("field {key} is no byte string")));
        }
        Ok(Some(d.bytes()?.to_vec()))
    }

    /// Takes nested fields out.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the field does not hold fields.
    pub fn take_fields(&mut self, key: u32) -> Result<Option<Fields>, Error> {
        self.take_bytes(key)?.map(|b| Fields::parse(&b)).transpose()
    }

    /// Joins the fields of `other` in: for a field on both sides the greater bytes win.
    pub fn join(&mut self, other: &Fields) {
        for (key, theirs) in &other.0 {
            match self.0.get(key) {
                Some(ours) if ours >= theirs => {}
                _ => {
                    self.0.insert(*key, theirs.clone());
                }
            }
        }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
}
