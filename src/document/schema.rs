//! Holds a document against a JSON schema, as an API server does before it looks at CEL: unknown and missing
//! fields, types, patterns, lengths, ranges, words, list maps. Pure. All findings are returned, not the first.
//!
//! It reads the subset of JSON Schema that our own types generate (inlined, structural); it is no general
//! validator.
use super::{Node, Value};
use regex::Regex;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub line: u64,
    /// Such as `spec.destinations[0].peer`.
    pub path: String,
    /// What is wrong and what belongs there.
    pub message: String,
}

/// Everything in which `node`, standing at `path`, does not follow `schema`.
pub fn check(schema: &Json, node: &Node, path: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    walk(schema, node, path, &mut findings);
    findings
}

fn walk(schema: &Json, node: &Node, path: &str, out: &mut Vec<Finding>) {
    let mut say = |message: String| out.push(Finding { line: node.line, path: path.into(), message });
    if node.value == Value::Null && allows_null(schema) {
        return;
    }
    if let Some(wanted) = wrong_type(schema, &node.value) {
        return say(format!("is {}, must be {wanted}", kind_of(&node.value)));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(&node.to_json())
    {
        let words: Vec<String> = words.iter().filter(|w| !w.is_null()).map(plain).collect();
        return say(format!("is `{}`, must be one of {}", plain(&node.to_json()), words.join(", ")));
    }
    match &node.value {
        Value::Text(text) => check_text(schema, text).into_iter().for_each(say),
        Value::Number(number) => check_number(schema, number).into_iter().for_each(say),
        Value::List(items) => check_list(schema, node, items, path, out),
        Value::Map(_) => check_map(schema, node, path, out),
        Value::Null | Value::Bool(_) => {}
    }
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

fn allows_null(schema: &Json) -> bool {
    schema["nullable"] == Json::Bool(true) || types(schema).contains(&"null")
}

fn types(schema: &Json) -> Vec<&str> {
    match &schema["type"] {
        Json::String(one) => vec![one.as_str()],
        Json::Array(many) => many.iter().filter_map(Json::as_str).collect(),
        _ => vec![],
    }
}

/// The type that was wanted, where the value has another one.
fn wrong_type(schema: &Json, value: &Value) -> Option<String> {
    let wanted = types(schema);
    let fits = |t: &&str| match (*t, value) {
        ("null", Value::Null) | ("boolean", Value::Bool(_)) | ("string", Value::Text(_)) => true,
        ("array", Value::List(_)) | ("object", Value::Map(_)) | ("number", Value::Number(_)) => true,
        ("integer", Value::Number(n)) => n.is_i64() || n.is_u64(),
        _ => false,
    };
    if wanted.is_empty() || wanted.iter().any(fits) {
        return None;
    }
    let name = |t: &str| match t {
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text (put it in quotes)",
        "array" => "a list",
        _ => "a map",
    };
    Some(wanted.into_iter().filter(|t| *t != "null").map(name).collect::<Vec<_>>().join(" or "))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::Text(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}

fn check_text(schema: &Json, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let length = text.chars().count() as u64;
    if let Some(min) = schema["minLength"].as_u64().filter(|min| length < *min) {
        wrong.push(format!("has {length} characters, needs at least {min}"));
    }
    if let Some(max) = schema["maxLength"].as_u64().filter(|max| length > *max) {
        wrong.push(format!("has {length} characters, may have {max}"));
    }
    if let Some(pattern) = schema["pattern"].as_str().filter(|pattern| !matches(pattern, text)) {
        wrong.push(match SAID.iter().find(|(known, _)| *known == pattern) {
            Some((_, instead)) => format!("is `{text}`; write {instead}"),
            None => format!("is `{text}`, must match {pattern}"),
        });
    }
    wrong
}

/// Patterns of our types as people are told what to write instead.
const SAID: [(&str, &str); 8] = [
    ("^([0-9]{1,5}(h|m|s|ms)){1,4}$", "a duration such as 30s, 15m or 1h30m"),
    ("^[0-9]+(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", "bytes such as 100Mi, in quotes where there is no unit"),
    ("^[a-z0-9][a-z0-9.-]*[a-z0-9]$", "a bucket name: lower-case letters, digits, dots and hyphens"),
    ("^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "lower-case letters, digits, dots and hyphens"),
    ("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "lower-case letters, digits and hyphens"),
    ("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "lower-case letters, digits and hyphens"),
    (r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$", "a siteID, or \"*\" for all of them"),
    ("^[a-z0-9._-]+$", "lower-case letters, digits, dots, hyphens and underscores"),
];

/// Compiled once: a thousand documents are held against a dozen patterns each.
fn matches(pattern: &str, text: &str) -> bool {
    static COMPILED: Mutex<BTreeMap<String, Regex>> = Mutex::new(BTreeMap::new());
    let compile = || Regex::new(pattern).expect("the patterns are our own");
    let regex = COMPILED.lock().expect("no panic while held").entry(pattern.into()).or_insert_with(compile).clone();
    regex.is_match(text)
}

fn check_number(schema: &Json, number: &serde_json::Number) -> Vec<String> {
    let value = number.as_f64().unwrap_or(f64::NAN);
    let mut wrong = Vec::new();
    if let Some(min) = schema["minimum"].as_f64().filter(|min| value < *min) {
        wrong.push(format!("is {number}, must be at least {min}"));
    }
    if let Some(max) = schema["maximum"].as_f64().filter(|max| value > *max) {
        wrong.push(format!("is {number}, must be at most {max}"));
    }
    wrong
}

fn check_list(schema: &Json, node: &Node, items: &[Node], path: &str, out: &mut Vec<Finding>) {
    let mut say = |line: u64, path: String, message: String| out.push(Finding { line, path, message });
    let length = items.len() as u64;
    if let Some(min) = schema["minItems"].as_u64().filter(|min| length < *min) {
        say(node.line, path.into(), format!("has {length} entries, needs at least {min}"));
    }
    if let Some(max) = schema["maxItems"].as_u64().filter(|max| length > *max) {
        say(node.line, path.into(), format!("has {length} entries, may have {max}"));
    }
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if let Some(id) = identity(schema, item)
            && !seen.insert(id.clone())
        {
            say(item.line, format!("{path}[{index}]"), format!("{id} stands twice in the list"));
        }
    }
    for (index, item) in items.iter().enumerate() {
        walk(&schema["items"], item, &format!("{path}[{index}]"), out);
    }
}

/// What may stand only once in the list: the entry of a set, the keys of a list map.
fn identity(schema: &Json, item: &Node) -> Option<String> {
    match schema["x-kubernetes-list-type"].as_str()? {
        "set" => Some(item.to_json().to_string()),
        "map" => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array()?;
            let one = |k: &Json| Some(format!("{} `{}`", k.as_str()?, item.text(k.as_str()?)?));
            Some(keys.iter().filter_map(one).collect::<Vec<_>>().join(", "))
        }
        _ => None,
    }
}

fn check_map(schema: &Json, node: &Node, path: &str, out: &mut Vec<Finding>) {
    let Value::Map(entries) = &node.value else { return };
    let place = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    let known = schema["properties"].as_object();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
        if node.get(name).is_none() {
            out.push(Finding { line: node.line, path: place(name), message: "is missing".into() });
        }
    }
    if let Some(max) = schema["maxProperties"].as_u64().filter(|max| entries.len() as u64 > *max) {
        let message = format!("has {} entries, may have {max}", entries.len());
        out.push(Finding { line: node.line, path: path.into(), message });
    }
    for (key, child) in entries {
        match (known.and_then(|k| k.get(&key.name)), &schema["additionalProperties"]) {
            (Some(child_schema), _) => walk(child_schema, child, &place(&key.name), out),
            (None, Json::Object(_)) => walk(&schema["additionalProperties"], child, &place(&key.name), out),
            (None, _) => {
                let names: Vec<&str> = known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                let message = format!("is not a field; known here: {}", names.join(", "));
                out.push(Finding { line: key.line, path: place(&key.name), message });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_fault_is_found_at_its_line_in_one_pass() {
        let schema = json!({"type": "object", "required": ["name", "gone"], "properties": {
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
            "gone": {"type": "string"},
            "count": {"type": "integer", "minimum": 1, "maximum": 9},
            "mode": {"type": "string", "enum": ["A", "B"]},
            "maybe": {"type": "boolean", "nullable": true},
            "tags": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}},
            "list": {"type": "array", "maxItems": 2, "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}});
        let text = "name: ABCD\ncount: 10\nmode: C\nmaybe: ~\ntags:\n  a: 1\n  b: x\nlist:\n  - k: x\n  - k: x\n    extra: 1\n  - k: z\nspare: 1\n";
        let node = &super::super::parse(text).unwrap()[0];
        let found: Vec<(u64, String)> = check(&schema, node, "").into_iter().map(|f| (f.line, f.path)).collect();
        let expected = [
            (1, "gone"),
            (1, "name"),
            (1, "name"),
            (2, "count"),
            (3, "mode"),
            (6, "tags"),
            (6, "tags.a"),
            (9, "list"),
            (10, "list[1]"),
            (11, "list[1].extra"),
            (13, "spare"),
        ];
        assert_eq!(found, expected.map(|(line, path)| (line, path.to_string())));
    }

    #[test]
    fn every_pattern_of_the_kinds_is_said_in_words() {
        fn walk(json: &Json, untold: &mut Vec<String>) {
            match json {
                Json::Object(map) => {
                    let pattern = map.get("pattern").and_then(Json::as_str);
                    untold.extend(pattern.filter(|p| SAID.iter().all(|(known, _)| known != p)).map(str::to_string));
                    map.values().for_each(|child| walk(child, untold));
                }
                Json::Array(items) => items.iter().for_each(|child| walk(child, untold)),
                _ => {}
            }
        }
        let mut untold = Vec::new();
        for kind in ["Site", "Peer", "ReplicationRule", "ReplicationJob", "FailoverDrill"] {
            walk(crate::rule::resource::spec_schema(kind).expect("a kind"), &mut untold);
        }
        assert!(untold.is_empty(), "{untold:?}");
        let said = |pattern: &str, text: &str| check_text(&json!({"pattern": pattern}), text);
        assert_eq!(said(SAID[0].0, "15 minutes"), ["is `15 minutes`; write a duration such as 30s, 15m or 1h30m"]);
        assert_eq!(said("^x$", "y"), ["is `y`, must match ^x$"]);
    }
}
