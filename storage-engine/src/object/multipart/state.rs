//! What an upload's document says, and how it becomes [`Content`] and back. Pure.
use super::assemble::Whole;
use crate::bucket::lock::Protection;
use crate::object::document::{Content, Document};
use crate::object::{Conditions, Error, Put, Upload, UploadChecksum};
use crate::version::guard::{Mode, Retention};
use crate::version::{Birth, Guards, Kind, Order, Stamp, Tags, Version};
use crate::wire::Fields;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::BTreeMap;

/// Where an upload stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// Takes parts.
    Open,
    /// What it becomes is decided; it may stand already.
    Completing(Box<Whole>),
    /// It stands, or stood.
    Completed(Box<Whole>),
    /// Its client ended it.
    Aborted,
    /// Another write made the condition of its Complete false.
    Failed,
}

/// An upload's document.
#[derive(Clone, Debug)]
pub(super) struct UploadDoc {
    pub(super) upload: Upload,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) protection: Protection,
    pub(super) traceparent: Option<String>,
    pub(super) state: State,
}

/// Fields of the document; header, metadata and tag are fields of their own behind their prefix.
const STATE: &str = "state";
const ID: &str = "upload";
const KEY: &str = "key";
const INITIATED: &str = "initiated_millis";
const ALGORITHM: &str = "checksum_algorithm";
/// Stands when the checksum is of the whole; what was written before it existed said so by its algorithm.
const OF_WHOLE: &str = "checksum_of_whole";
const TRACEPARENT: &str = "traceparent";
const RETENTION_MODE: &str = "retention_mode";
const RETAIN_UNTIL: &str = "retain_until_millis";
const LEGAL_HOLD: &str = "legal_hold";
const GUARDS: &str = "guards";
const ORDER: &str = "order";
const BASE: &str = "base";
const IF_MATCH: &str = "if_match";
const IF_NONE_MATCH: &str = "if_none_match";
const HEADER: &str = "header:";
const METADATA: &str = "meta:";
const TAG: &str = "tag:";

impl UploadDoc {
    pub(super) fn open(upload: Upload, put: Put) -> Self {
        let Put { headers, metadata, tags, protection, traceparent, .. } = put;
        UploadDoc { upload, headers, metadata, tags, protection, traceparent, state: State::Open }
    }

    /// Whether S3 still shows the upload: its object may be missing.
    pub(super) fn is_in_progress(&self) -> bool {
        matches!(self.state, State::Open | State::Completing(_))
    }

    /// The version the upload becomes: the same whoever asks, however often.
    pub(super) fn version(&self, whole: &Whole) -> Version {
        let mut version = Version::blank(&self.upload.key, whole.order.version_id);
        version.birth = Some(Birth {
            order: whole.order.clone(),
            base: whole.base.clone(),
            kind: Kind::Object,
            size_bytes: whole.content.size_bytes,
            etag: whole.content.etag.clone(),
            crc64nvme: whole.content.crc64nvme,
            checksums: whole.content.checksums.clone(),
            parts: whole.content.parts.clone(),
            headers: self.headers.clone(),
            metadata: self.metadata.clone(),
            guards: whole.guards.clone(),
            unknown: Fields::default(),
        });
        if !self.tags.is_empty() {
            let stamp = Stamp::new(whole.order.hlc, whole.order.origin.clone());
            version.tags = Some(Tags::new(stamp, self.tags.clone()));
        }
        version
    }

    pub(super) fn to_content(&self) -> Content {
        let (state, whole) = match &self.state {
            State::Open => ("open", None),
            State::Completing(whole) => ("completing", Some(whole)),
            State::Completed(whole) => ("completed", Some(whole)),
            State::Aborted => ("aborted", None),
            State::Failed => ("failed", None),
        };
        let mut content = whole.map(|w| w.content.clone()).unwrap_or_default();
        let fields = &mut content.fields;
        let mut put = |name: &str, value: Option<String>| value.map(|v| fields.insert(name.to_owned(), v));
        put(STATE, Some(state.to_owned()));
        put(ID, Some(self.upload.id.clone()));
        put(KEY, Some(self.upload.key.clone()));
        put(INITIATED, Some(self.upload.initiated_millis.to_string()));
        if let Some(checksum) = &self.upload.checksum {
            put(ALGORITHM, Some(checksum.algorithm.clone()));
            put(OF_WHOLE, checksum.is_of_whole.then(String::new));
        }
        put(TRACEPARENT, self.traceparent.clone());
        put(RETENTION_MODE, self.protection.retention.map(|r| r.mode.name().to_owned()));
        put(RETAIN_UNTIL, self.protection.retention.map(|r| r.until_millis.to_string()));
        put(LEGAL_HOLD, self.protection.legal_hold.then(String::new));
        if let Some(whole) = whole {
            put(ORDER, Some(order_text(&whole.order)));
            put(BASE, whole.base.as_ref().map(order_text));
            put(GUARDS, (!whole.guards.is_empty()).then(|| BASE64.encode(whole.guards.to_fields().to_bytes())));
            put(IF_MATCH, whole.conditions.if_match.clone());
            put(IF_NONE_MATCH, whole.conditions.if_none_match.then(String::new));
        }
        for (prefix, map) in [(HEADER, &self.headers), (METADATA, &self.metadata), (TAG, &self.tags)] {
            fields.extend(map.iter().map(|(k, v)| (format!("{prefix}{k}"), v.clone())));
        }
        content
    }

    pub(super) fn from_document(document: &Document) -> Result<Self, Error> {
        let Document { content, key, .. } = document;
        let broken = |what: &str| Error::Corrupt(format!("document {} ({what})", key.escape_debug()));
        let fields = &content.fields;
        let field = |name: &'static str| fields.get(name).ok_or_else(|| broken(name));
        let order =
            |name: &'static str| fields.get(name).map(|text| order_of(text).ok_or_else(|| broken(name))).transpose();
        let under = |prefix: &str| -> BTreeMap<String, String> {
            fields.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), v.clone()))).collect()
        };
        let whole = || -> Result<Box<Whole>, Error> {
            Ok(Box::new(Whole {
                order: order(ORDER)?.ok_or_else(|| broken(ORDER))?,
                base: order(BASE)?,
                guards: match fields.get(GUARDS) {
                    Some(text) => guards_of(text).ok_or_else(|| broken(GUARDS))?,
                    None => Guards::default(),
                },
                conditions: Conditions {
                    if_match: fields.get(IF_MATCH).cloned(),
                    if_none_match: fields.contains_key(IF_NONE_MATCH),
                },
                content: Content { fields: BTreeMap::new(), ..content.clone() },
            }))
        };
        let retention = |mode: &str| -> Result<Retention, Error> {
            let mode = Mode::named(mode).ok_or_else(|| broken(RETENTION_MODE))?;
            let until_millis = field(RETAIN_UNTIL)?.parse().map_err(|_| broken(RETAIN_UNTIL))?;
            Ok(Retention { mode, until_millis })
        };
        let state = match field(STATE)?.as_str() {
            "open" => State::Open,
            "completing" => State::Completing(whole()?),
            "completed" => State::Completed(whole()?),
            "aborted" => State::Aborted,
            "failed" => State::Failed,
            _ => return Err(broken(STATE)),
        };
        Ok(UploadDoc {
            upload: Upload {
                id: field(ID)?.clone(),
                key: field(KEY)?.clone(),
                initiated_millis: field(INITIATED)?.parse().map_err(|_| broken(INITIATED))?,
                checksum: fields.get(ALGORITHM).map(|algorithm| UploadChecksum {
                    algorithm: algorithm.clone(),
                    is_of_whole: fields.contains_key(OF_WHOLE) || algorithm == "crc64nvme",
                }),
            },
            headers: under(HEADER),
            metadata: under(METADATA),
            tags: under(TAG),
            protection: Protection {
                retention: fields.get(RETENTION_MODE).map(|mode| retention(mode)).transpose()?,
                legal_hold: fields.contains_key(LEGAL_HOLD),
            },
            traceparent: fields.get(TRACEPARENT).cloned(),
            state,
        })
    }
}

fn order_text(order: &Order) -> String {
    BASE64.encode(order.to_fields().to_bytes())
}

fn guards_of(text: &str) -> Option<Guards> {
    Guards::from_fields(Fields::parse(&BASE64.decode(text).ok()?).ok()?).ok()
}

fn order_of(text: &str) -> Option<Order> {
    Order::from_fields(Fields::parse(&BASE64.decode(text).ok()?).ok()?).ok()
}
