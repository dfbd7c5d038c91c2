//! Questions <-> bytes.
use super::{
    Call, PROTOCOL_VERSION, Request, documents, need_cursor, need_id, put_cursor, put_range, row, tag, take_cursor,
    take_range, take_version,
};
use crate::api::{lend, piece, scratch};
use crate::feed::Interest;
use crate::version::Origin;
use crate::wire::{self, Fields};

impl Request {
    /// The question's fields; the operation's name is said elsewhere.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut f = self.unknown.clone();
        match &self.call {
            Call::Hello => f.put(tag::PROTOCOL, &PROTOCOL_VERSION),
            Call::Health => {}
            Call::Bucket { bucket } | Call::Head { bucket } => f.put(tag::BUCKET, bucket),
            Call::Changes { bucket, cursor, limit } => {
                f.put(tag::BUCKET, bucket);
                put_cursor(&mut f, tag::CURSOR, cursor.as_ref());
                f.put(tag::LIMIT, limit);
            }
            Call::Stat { bucket, key, id } | Call::ReadVersion { bucket, key, id } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::KEY, key);
                f.put_bytes(tag::VERSION_ID, id.as_bytes());
            }
            Call::Apply { bucket, version, has_body, traceparent } => {
                f.put(tag::BUCKET, bucket);
                f.put_bytes(tag::VERSION, &version.to_bytes());
                f.put(tag::HAS_BODY, has_body);
                f.put_some(tag::TRACEPARENT, traceparent);
            }
            Call::VersionsOf { bucket, key } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::KEY, key);
            }
            Call::VersionsAfter { bucket, after, limit } => {
                f.put(tag::BUCKET, bucket);
                if let Some((key, id)) = after {
                    f.put(tag::KEY, key);
                    f.put_bytes(tag::VERSION_ID, id.as_bytes());
                }
                f.put(tag::LIMIT, limit);
            }
            Call::Stretch { bucket, prefix, after, limit } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::PREFIX, prefix);
                f.put_some(tag::KEY, after);
                f.put(tag::LIMIT, limit);
            }
            Call::Register { bucket, consumer, keeps_versioning } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::CONSUMER, consumer);
                f.put(tag::KEEPS_VERSIONING, keeps_versioning);
            }
            Call::Commit { bucket, consumer, cursor, floor } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::CONSUMER, consumer);
                put_cursor(&mut f, tag::CURSOR, Some(cursor));
                put_cursor(&mut f, tag::FLOOR, Some(floor));
            }
            Call::Deregister { bucket, consumer } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::CONSUMER, consumer);
            }
            Call::Backlog { bucket, cursor, interest } => {
                f.put(tag::BUCKET, bucket);
                put_cursor(&mut f, tag::CURSOR, cursor.as_ref());
                f.put(tag::PREFIX, &interest.prefix);
                let name = |site: &Option<Origin>| site.as_ref().map(|site| site.as_str().to_owned());
                f.put_some(tag::MADE_AT, &name(&interest.made_at));
                f.put_some(tag::NOT_ONLY_AT, &name(&interest.not_only_at));
            }
            Call::JoinDocument { bucket, document } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::DOCUMENTS, &vec![row(document)]);
            }
            Call::Scratch { bucket, act } => {
                f.put(tag::BUCKET, bucket);
                act.put(&mut f);
            }
            Call::ReadRange { bucket, key, id, range } => {
                f.put(tag::BUCKET, bucket);
                f.put(tag::KEY, key);
                f.put_bytes(tag::VERSION_ID, id.as_bytes());
                put_range(&mut f, range);
            }
            Call::Piece { bucket, act } => {
                f.put(tag::BUCKET, bucket);
                act.put(&mut f);
            }
            Call::Wanted { buckets, wait_millis } => {
                f.put(tag::BUCKETS, buckets);
                f.put(tag::WAIT_MILLIS, wait_millis);
            }
            Call::Lend { number, found } => {
                f.put(tag::QUESTION, number);
                found.put(&mut f);
            }
        }
        f.to_bytes()
    }

    /// The question an operation and its fields are; `None`: no such operation here.
    ///
    /// # Errors
    /// [`wire::Error`] when the fields are not those of the operation.
    pub fn from_bytes(operation: &str, bytes: &[u8]) -> Result<Option<Self>, wire::Error> {
        let mut f = Fields::parse(bytes)?;
        let call = match operation {
            "Hello" => {
                let _: Option<u32> = f.take(tag::PROTOCOL)?;
                Call::Hello
            }
            "Health" => Call::Health,
            "Bucket" => Call::Bucket { bucket: f.need(tag::BUCKET)? },
            "Changes" => Call::Changes {
                bucket: f.need(tag::BUCKET)?,
                cursor: take_cursor(&mut f, tag::CURSOR)?,
                limit: f.need(tag::LIMIT)?,
            },
            "Head" => Call::Head { bucket: f.need(tag::BUCKET)? },
            "Stat" => Call::Stat { bucket: f.need(tag::BUCKET)?, key: f.need(tag::KEY)?, id: need_id(&mut f)? },
            "ReadVersion" => {
                Call::ReadVersion { bucket: f.need(tag::BUCKET)?, key: f.need(tag::KEY)?, id: need_id(&mut f)? }
            }
            "Apply" => Call::Apply {
                bucket: f.need(tag::BUCKET)?,
                version: Box::new(take_version(&mut f)?.ok_or(wire::Error::Missing(tag::VERSION))?),
                has_body: f.need(tag::HAS_BODY)?,
                traceparent: f.take(tag::TRACEPARENT)?,
            },
            "VersionsOf" => Call::VersionsOf { bucket: f.need(tag::BUCKET)?, key: f.need(tag::KEY)? },
            "VersionsAfter" => Call::VersionsAfter {
                bucket: f.need(tag::BUCKET)?,
                after: match f.take(tag::KEY)? {
                    Some(key) => Some((key, need_id(&mut f)?)),
                    None => None,
                },
                limit: f.need(tag::LIMIT)?,
            },
            "Stretch" => Call::Stretch {
                bucket: f.need(tag::BUCKET)?,
                prefix: f.need(tag::PREFIX)?,
                after: f.take(tag::KEY)?,
                limit: f.need(tag::LIMIT)?,
            },
            "Register" => Call::Register {
                bucket: f.need(tag::BUCKET)?,
                consumer: f.need(tag::CONSUMER)?,
                keeps_versioning: f.need(tag::KEEPS_VERSIONING)?,
            },
            "Commit" => Call::Commit {
                bucket: f.need(tag::BUCKET)?,
                consumer: f.need(tag::CONSUMER)?,
                cursor: need_cursor(&mut f, tag::CURSOR)?,
                floor: need_cursor(&mut f, tag::FLOOR)?,
            },
            "Deregister" => Call::Deregister { bucket: f.need(tag::BUCKET)?, consumer: f.need(tag::CONSUMER)? },
            "Backlog" => Call::Backlog {
                bucket: f.need(tag::BUCKET)?,
                cursor: take_cursor(&mut f, tag::CURSOR)?,
                interest: Interest {
                    prefix: f.need(tag::PREFIX)?,
                    made_at: f.take::<String>(tag::MADE_AT)?.map(|site| Origin::new(&site)),
                    not_only_at: f.take::<String>(tag::NOT_ONLY_AT)?.map(|site| Origin::new(&site)),
                },
            },
            "JoinDocument" => Call::JoinDocument {
                bucket: f.need(tag::BUCKET)?,
                document: documents(f.need(tag::DOCUMENTS)?).pop().ok_or(wire::Error::Missing(tag::DOCUMENTS))?,
            },
            "Scratch" => Call::Scratch { bucket: f.need(tag::BUCKET)?, act: scratch::Act::take(&mut f)? },
            "ReadRange" => Call::ReadRange {
                bucket: f.need(tag::BUCKET)?,
                key: f.need(tag::KEY)?,
                id: need_id(&mut f)?,
                range: take_range(&mut f)?.ok_or(wire::Error::Missing(tag::START))?,
            },
            "Wanted" => Call::Wanted { buckets: f.need(tag::BUCKETS)?, wait_millis: f.need(tag::WAIT_MILLIS)? },
            "Lend" => Call::Lend { number: f.need(tag::QUESTION)?, found: lend::Found::take(&mut f)? },
            other => match piece::Act::take(other, &mut f)? {
                Some(act) => Call::Piece { bucket: f.need(tag::BUCKET)?, act },
                None => return Ok(None),
            },
        };
        Ok(Some(Request { call, unknown: f }))
    }
}
