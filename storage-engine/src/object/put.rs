//! PUT: a body becomes a version.
//!
//! The body is on the drives and verified before a version names it; the version counts once a write
//! quorum holds it. Called by the S3 front door.
use super::ballot::{Draft, NewId, Test};
use super::{Body, Conditions, Error, Objects, Put, Versioning, Written};
use crate::object::blob::StoredBody;
use crate::record::Record;
use crate::version::{Birth, Hlc, Kind, Order, Part, Tags, Version, VersionId};
use crate::wire::Fields;

impl Objects {
    /// Writes an object. On return a write quorum of drives has synced the version and its shards.
    ///
    /// If the future is dropped, or fails with [`Error::Unavailable`], the version may still appear, once.
    ///
    /// # Errors
    /// - [`Error::BadDigest`], [`Error::Body`]: nothing was written.
    /// - [`Error::LockMissing`], [`Error::Invalid`]: the bucket does not take the protection asked for.
    /// - [`Error::PreconditionFailed`], [`Error::NoSuchKey`] (If-Match of an absent key): nothing was written.
    /// - [`Error::Unavailable`], [`Error::Full`]: too few drives; try again.
    ///
    /// # Source
    /// ETag and conditions: Amazon S3 API Reference, `PutObject`.
    pub async fn put(&self, bucket: &str, key: &str, put: Put, body: Body) -> Result<Written, Error> {
        let inner = &self.0;
        let bucket = inner.bucket_doc(bucket).await?;
        let Put { headers, metadata, tags, protection, expect, conditions, traceparent } = put;
        bucket.permits(&protection, inner.clock.now_millis())?;
        let StoredBody { data, size_bytes, md5, crc64nvme, checksums } = inner.store_body(body, expect).await?;
        let etag = hex(&md5);
        let part = Part {
            number: 1,
            size_bytes,
            etag: etag.clone(),
            checksums: checksums.clone(),
            unknown: Fields::default(),
        };
        let make = |hlc: Hlc, id: VersionId, base: Option<Order>| {
            let mut version = Version::blank(key, id);
            let stamp = inner.stamp(hlc);
            version.birth = Some(Birth {
                order: Order { hlc, origin: inner.origin.clone(), version_id: id },
                base,
                kind: Kind::Object,
                size_bytes,
                etag: etag.clone(),
                crc64nvme,
                checksums: checksums.clone(),
                parts: vec![part.clone()],
                headers: headers.clone(),
                metadata: metadata.clone(),
                guards: bucket.guards_at_birth(&protection, &stamp),
                unknown: Fields::default(),
            });
            version.tags = (!tags.is_empty()).then(|| Tags::new(stamp, tags.clone()));
            version
        };
        let test = |records: &[Record]| conditions_hold(records, &conditions);
        let conditional = conditions != Conditions::default();
        let record = inner
            .write(Draft {
                bucket: bucket.id,
                key,
                id: new_id(bucket.versioning),
                make: &make,
                data,
                test: conditional.then_some(&test as Test<'_>),
                traceparent,
            })
            .await?;
        inner.confirm_bucket(&bucket).await?;
        Ok(Written { version: record.version, versioned: bucket.versioning != Versioning::Unversioned })
    }
}

/// The id a version born in such a bucket gets.
pub(super) fn new_id(versioning: Versioning) -> NewId {
    match versioning {
        Versioning::Enabled => NewId::Fresh,
        Versioning::Unversioned | Versioning::Suspended => NewId::Null,
    }
}

/// Tests a write's conditions against what is decided, newest first.
///
/// # Source
/// Amazon S3 User Guide, "Add preconditions to S3 operations": If-Match of an absent key is 404.
pub(super) fn conditions_hold(records: &[Record], conditions: &Conditions) -> Result<(), Error> {
    let latest = super::resolve::newest(records).and_then(|r| r.version.birth.as_ref());
    let object = latest.filter(|b| b.kind == Kind::Object);
    if conditions.if_none_match && object.is_some() {
        return Err(Error::PreconditionFailed("If-None-Match"));
    }
    match (&conditions.if_match, object) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Error::NoSuchKey),
        (Some(etag), Some(birth)) if etag == "*" || *etag == birth.etag => Ok(()),
        (Some(_), Some(_)) => Err(Error::PreconditionFailed("If-Match")),
    }
}

/// A version without bytes: a delete marker, and the birth of a purge of null.
pub(super) fn marker(key: &str, order: Order, base: Option<Order>) -> Version {
    let mut version = Version::blank(key, order.version_id);
    version.birth = Some(Birth { base, ..Birth::blank(order, Kind::DeleteMarker) });
    version
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| char::from(b"0123456789abcdef"[usize::from(d)])).collect()
}
