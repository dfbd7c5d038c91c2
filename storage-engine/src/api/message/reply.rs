//! Answers, and what follows them, <-> bytes.
use super::{Answer, Reply, documents, need_cursor, need_id, put_cursor, row, tag, take_cursor, take_version};
use crate::api::{Applied, Backlog, BucketInfo, DriveHealth, Event, ShownCertificate, StoreHealth, lend};
use crate::version::Origin;
use crate::wire::{self, Fields};

/// Slot, why it is offline, bytes free, bytes in all.
type DriveRow = (u32, Option<String>, u64, u64);
/// Whose, from when and until when.
type CertificateRow = (String, u64, u64);

impl Reply {
    /// The answer as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut f = self.unknown.clone();
        let kind: u32 = match &self.answer {
            Answer::Hello { protocol, origin } => {
                f.put(tag::PROTOCOL, protocol);
                f.put(tag::ORIGIN, &origin.as_str().to_owned());
                1
            }
            Answer::Bucket(info) => {
                f.put(tag::BUCKET_ID, &info.id);
                f.put(tag::BUCKET, &info.name);
                f.put(tag::VERSIONED, &info.versioned);
                if info.object_lock {
                    f.put(tag::OBJECT_LOCK, &true);
                }
                if !info.documents.is_empty() {
                    f.put(tag::DOCUMENTS, &info.documents.iter().map(row).collect::<Vec<_>>());
                }
                2
            }
            Answer::Changes { cursor, bucket } => {
                put_cursor(&mut f, tag::CURSOR, Some(cursor));
                if !bucket.is_empty() {
                    f.put(tag::BUCKET_ID, bucket);
                }
                3
            }
            Answer::Version(version) => {
                if let Some(version) = version {
                    f.put_bytes(tag::VERSION, &version.to_bytes());
                }
                4
            }
            Answer::Bytes { size_bytes } => {
                f.put(tag::SIZE_BYTES, size_bytes);
                5
            }
            Answer::Applied(applied) => {
                f.put(tag::APPLIED, &applied_number(*applied));
                6
            }
            Answer::Versions => 7,
            Answer::Cursor(cursor) => {
                put_cursor(&mut f, tag::CURSOR, cursor.as_ref());
                8
            }
            Answer::Done => 9,
            Answer::Backlog(backlog) => {
                f.put(tag::VERSIONS, &backlog.versions);
                f.put(tag::BYTES, &backlog.bytes);
                f.put_some(tag::PENDING_SINCE, &backlog.oldest_pending_since);
                10
            }
            Answer::Stretch { through } => {
                f.put_some(tag::KEY, through);
                11
            }
            Answer::Made(id) => {
                f.put_bytes(tag::VERSION_ID, id.as_bytes());
                12
            }
            Answer::Held(pieces) => {
                f.put(tag::PIECES, pieces);
                13
            }
            Answer::Forgotten(count) => {
                f.put(tag::VERSIONS, count);
                14
            }
            Answer::Wanted(question) => {
                if let Some(question) = question {
                    question.put(&mut f);
                }
                15
            }
            Answer::Health(StoreHealth { drives, below_target, certificates }) => {
                let row = |d: &DriveHealth| (d.slot, d.offline.clone(), d.free_bytes, d.total_bytes);
                f.put(tag::DRIVES, &drives.iter().map(row).collect::<Vec<DriveRow>>());
                f.put(tag::BELOW_TARGET, below_target);
                if !certificates.is_empty() {
                    let row = |c: &ShownCertificate| (c.whose.clone(), c.from_millis, c.until_millis);
                    f.put(tag::CERTIFICATES, &certificates.iter().map(row).collect::<Vec<CertificateRow>>());
                }
                16
            }
        };
        f.put(tag::KIND, &kind);
        f.to_bytes()
    }

    /// An answer from its bytes.
    ///
    /// # Errors
    /// [`wire::Error`] when they are none that this build knows.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, wire::Error> {
        let mut f = Fields::parse(bytes)?;
        let answer = match f.need::<u32>(tag::KIND)? {
            1 => {
                Answer::Hello { protocol: f.need(tag::PROTOCOL)?, origin: Origin::new(&f.need::<String>(tag::ORIGIN)?) }
            }
            2 => Answer::Bucket(BucketInfo {
                id: f.need(tag::BUCKET_ID)?,
                name: f.need(tag::BUCKET)?,
                versioned: f.need(tag::VERSIONED)?,
                object_lock: f.take(tag::OBJECT_LOCK)?.unwrap_or_default(),
                documents: documents(f.take(tag::DOCUMENTS)?.unwrap_or_default()),
            }),
            3 => Answer::Changes {
                cursor: need_cursor(&mut f, tag::CURSOR)?,
                bucket: f.take(tag::BUCKET_ID)?.unwrap_or_default(),
            },
            4 => Answer::Version(take_version(&mut f)?.map(Box::new)),
            5 => Answer::Bytes { size_bytes: f.need(tag::SIZE_BYTES)? },
            6 => Answer::Applied(applied(f.need(tag::APPLIED)?)?),
            7 => Answer::Versions,
            8 => Answer::Cursor(take_cursor(&mut f, tag::CURSOR)?),
            9 => Answer::Done,
            10 => Answer::Backlog(Backlog {
                versions: f.need(tag::VERSIONS)?,
                bytes: f.need(tag::BYTES)?,
                oldest_pending_since: f.take(tag::PENDING_SINCE)?,
            }),
            11 => Answer::Stretch { through: f.take(tag::KEY)? },
            12 => Answer::Made(need_id(&mut f)?),
            13 => Answer::Held(f.need(tag::PIECES)?),
            14 => Answer::Forgotten(f.need(tag::VERSIONS)?),
            15 => Answer::Wanted(lend::Question::take(&mut f)?),
            16 => {
                let drive = |(slot, offline, free_bytes, total_bytes): DriveRow| DriveHealth {
                    slot,
                    offline,
                    free_bytes,
                    total_bytes,
                };
                let rows: Vec<DriveRow> = f.need(tag::DRIVES)?;
                let drives = rows.into_iter().map(drive).collect();
                let shown: Vec<CertificateRow> = f.take(tag::CERTIFICATES)?.unwrap_or_default();
                let certificate =
                    |(whose, from_millis, until_millis)| ShownCertificate { whose, from_millis, until_millis };
                let certificates = shown.into_iter().map(certificate).collect();
                Answer::Health(StoreHealth { drives, below_target: f.need(tag::BELOW_TARGET)?, certificates })
            }
            other => return Err(wire::Error::Malformed(format!("answer {other} is unknown"))),
        };
        Ok(Reply { answer, unknown: f })
    }
}

/// An event as it follows [`Answer::Changes`].
pub fn event_to_bytes(event: &Event) -> Vec<u8> {
    let mut f = Fields::default();
    f.put_bytes(tag::VERSION, &event.version.to_bytes());
    f.put(tag::PENDING_SINCE, &event.pending_since);
    f.put_some(tag::TRACEPARENT, &event.traceparent);
    f.to_bytes()
}

/// An event from its bytes; fields of a later version are left out.
///
/// # Errors
/// [`wire::Error`] when they are none.
pub fn event_from_bytes(bytes: &[u8]) -> Result<Event, wire::Error> {
    let mut f = Fields::parse(bytes)?;
    Ok(Event {
        version: take_version(&mut f)?.ok_or(wire::Error::Missing(tag::VERSION))?,
        pending_since: f.need(tag::PENDING_SINCE)?,
        traceparent: f.take(tag::TRACEPARENT)?,
    })
}

fn applied_number(applied: Applied) -> u32 {
    match applied {
        Applied::Applied => 1,
        Applied::AlreadyPresent => 2,
        Applied::Superseded => 3,
        Applied::NeedsBody => 4,
    }
}
fn applied(number: u32) -> Result<Applied, wire::Error> {
    match number {
        1 => Ok(Applied::Applied),
        2 => Ok(Applied::AlreadyPresent),
        3 => Ok(Applied::Superseded),
        4 => Ok(Applied::NeedsBody),
        other => Err(wire::Error::Malformed(format!("outcome {other} is unknown"))),
    }
}
