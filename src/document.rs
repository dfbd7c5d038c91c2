//! A YAML document that remembers the line of every value, so that what is wrong can be pointed at.
//!
//! Read by `rule::watch_folder` and `config`; `document/schema.rs` holds it against a schema. Pure: text in.
pub mod schema;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// Longest text that is read: rules for a thousand buckets are far below, a file given by mistake is not.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

/// A value and the line it stands in, from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub line: u64,
    pub value: Value,
}

/// What stands there.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; no key twice.
    Map(Vec<(Key, Node)>),
}

/// A key and its line.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub line: u64,
    pub name: String,
}

/// The text is no YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Malformed {
    /// Where reading ended; 1 where it is not known.
    pub line: u64,
    pub message: String,
}

/// All documents of a text, empty ones left out.
///
/// # Errors
/// [`Malformed`] when any of them is no YAML, names a key twice or goes beyond the parser's limits.
pub fn parse(text: &str) -> Result<Vec<Node>, Malformed> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Malformed { line: 1, message: format!("longer than {TEXT_BYTES_MAX} bytes") });
    }
    let nodes: Vec<Node> = serde_saphyr::from_multiple(text).map_err(|e| {
        let plain = e.without_snippet();
        let message = plain.to_string();
        Malformed { line: e.location().map_or(1, |l| l.line().max(1)), message }
    })?;
    Ok(nodes.into_iter().filter(|n| n.value != Value::Null).collect())
}

impl Node {
    /// The value under a key; `None` where there is none, or this is no map.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node),
            _ => None,
        }
    }
    /// The text under a key.
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.get(name)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
    /// Line of the deepest part of `path` (such as `spec.destinations[1].peer`) that is there.
    pub fn line_of(&self, path: &str) -> u64 {
        let mut here = self;
        let mut line = self.line;
        for step in path.split(['.', '[']).filter(|s| !s.is_empty()) {
            let index = step.strip_suffix(']').and_then(|i| i.parse::<usize>().ok());
            let next = match (&here.value, index) {
                (Value::List(items), Some(index)) => items.get(index).map(|n| (n.line, n)),
                (Value::Map(entries), _) => {
                    entries.iter().find(|(k, _)| k.name == step).map(|(k, node)| (k.line, node))
                }
                _ => None,
            };
            let Some((at, node)) = next else { break };
            (line, here) = (at, node);
        }
        line
    }
    /// A value that stands in no text: every line is 0. An object of an API server.
    pub fn from_json(json: &serde_json::Value) -> Node {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => Value::Number(n.clone()),
            serde_json::Value::String(t) => Value::Text(t.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Node::from_json).collect()),
            serde_json::Value::Object(map) => {
                let entry = |(name, value): (&String, &serde_json::Value)| {
                    (Key { line: 0, name: name.clone() }, Node::from_json(value))
                };
                Value::Map(map.iter().map(entry).collect())
            }
        };
        Node { line: 0, value }
    }
    /// The value without its lines.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(b) => (*b).into(),
            Value::Number(n) => n.clone().into(),
            Value::Text(t) => t.clone().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(k, n)| (k.name.clone(), n.to_json())).collect(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(d)?;
        Ok(Node { line: spanned.referenced.line().max(1), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;
impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        Value::deserialize(d)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Text(v.into()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::Text(v))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            if entries.iter().any(|(known, _)| known.name == key.value) {
                return Err(A::Error::custom(format!("key `{}` stands twice", key.value)));
            }
            let key = Key { line: key.referenced.line().max(1), name: key.value };
            entries.push((key, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let docs = parse("a: 1\nb:\n  - x\n  - c: yes please\n---\n---\nd: ~\ne: true\n").unwrap();
        assert_eq!(docs.len(), 2, "an empty document is none");
        assert_eq!(docs[0].line_of("a"), 1);
        assert_eq!(docs[0].line_of("b[1].c"), 4);
        assert_eq!(docs[0].line_of("b[1].missing"), 4, "the deepest part that is there");
        assert_eq!(docs[1].line_of("e"), 8);
        assert_eq!(docs[0].to_json(), serde_json::json!({"a": 1, "b": ["x", {"c": "yes please"}]}));
        assert_eq!(docs[1].to_json(), serde_json::json!({"d": null, "e": true}));
    }

    #[test]
    fn what_is_no_yaml_is_said_with_its_line() {
        for (text, line) in [("a: 1\nb: [1, 2\nc: 3\n", 2..=4), ("a: 1\na: 2\n", 1..=2), ("a: 1\n\tb: 2\n", 1..=2)] {
            let bad = parse(text).unwrap_err();
            assert!(line.contains(&bad.line), "{text:?}: {bad:?}");
            assert!(!bad.message.contains('\n'), "one line: {}", bad.message);
        }
    }
}
