//! What a request says besides plain S3, so that a target keeps what plain S3 cannot set. Pure.
//!
//! Plain S3 (`Aws`) mints ids and times of its own. MinIO and RustFS take id and time of a version from whoever may
//! replicate; Ceph's gateway takes the id. Nothing outside this file knows these headers.
//!
//! # Source
//! What minio-go, MinIO and RustFS read and write, and Ceph's `rgwx-version-id`.
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use storage_engine::version::{Hlc, Version, VersionId};

/// How a target is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Aws,
    MinIO,
    RustFs,
    Ceph,
}

/// What to add to a request: pairs of the query, and headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    pub query: Vec<(&'static str, String)>,
    pub headers: Vec<(String, String)>,
}

/// What is asked of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A whole object in one request.
    Put,
    /// The begin, a part and the end of an upload.
    Initiate,
    Part,
    Complete,
    /// A delete marker.
    Marker,
    /// The end of one version.
    Purge,
    /// Whether and what it is.
    Head,
}

impl Dialect {
    /// The name people read.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Aws => "AWS",
            Dialect::MinIO => "MinIO",
            Dialect::RustFs => "RustFS",
            Dialect::Ceph => "Ceph",
        }
    }

    /// Whether a version has the same id there.
    pub fn keeps_ids(self) -> bool {
        self != Dialect::Aws
    }

    /// How the target writes the id of a version of ours.
    pub fn remote_id(self, id: VersionId) -> String {
        if self.keeps_ids() { uuid(id) } else { id.to_string() }
    }

    /// What to add where this is asked for a version.
    pub fn extra(self, ask: Ask, version: &Version) -> Extra {
        let mut extra = Extra::default();
        match self {
            Dialect::Aws => {}
            Dialect::Ceph => {
                if matches!(ask, Ask::Put | Ask::Initiate | Ask::Marker) {
                    extra.query.push(("rgwx-version-id", uuid(version.id)));
                }
            }
            Dialect::MinIO => minio(ask, version, &["x-minio"], &mut extra),
            Dialect::RustFs => minio(ask, version, &["x-minio", "x-rustfs"], &mut extra),
        }
        extra
    }
}

/// Every private header under each of the prefixes: RustFS wants both.
fn minio(ask: Ask, version: &Version, prefixes: &[&str], extra: &mut Extra) {
    let mut private = |name: &str, value: &str| {
        extra.headers.extend(prefixes.iter().map(|prefix| (format!("{prefix}-{name}"), value.to_string())));
    };
    if ask == Ask::Head {
        // Otherwise a miss is answered from the source, and everything looks as if it were there.
        private("source-proxy-request", "false");
        return;
    }
    private("source-replication-request", "true");
    let born = version.birth.as_ref().map(|b| b.order.hlc);
    // A time at the begin of an upload makes MinIO clean it up early.
    if let Some(born) = born.filter(|_| matches!(ask, Ask::Put | Ask::Complete | Ask::Marker | Ask::Purge)) {
        private("source-mtime", &time(born));
    }
    if let Some(birth) = version.birth.as_ref().filter(|_| matches!(ask, Ask::Put | Ask::Initiate | Ask::Complete)) {
        private("source-etag", &birth.etag);
    }
    if let Some(tags) = version.tags.as_ref().filter(|_| matches!(ask, Ask::Put | Ask::Initiate)) {
        private("source-replication-tagging-timestamp", &time(tags.stamp.hlc));
    }
    let guards = version.guards();
    if !guards.is_empty() && matches!(ask, Ask::Put | Ask::Initiate) {
        private("source-replication-retention-timestamp", &time(guards.max_hlc()));
        private("source-replication-legalhold-timestamp", &time(guards.max_hlc()));
    }
    if ask == Ask::Complete {
        let size = version.birth.as_ref().map_or(0, |b| b.size_bytes);
        private("replication-actual-object-size", &size.to_string());
    }
    if ask == Ask::Marker {
        private("source-deletemarker", "true");
    }
    if matches!(ask, Ask::Put | Ask::Initiate | Ask::Marker | Ask::Purge) {
        extra.headers.push(("x-amz-replication-status".into(), "REPLICA".into()));
    }
    if matches!(ask, Ask::Put | Ask::Initiate | Ask::Marker) {
        extra.query.push(("versionId", uuid(version.id)));
    }
}

/// The id as these targets spell it.
pub(super) fn uuid(id: VersionId) -> String {
    let text = id.to_string();
    if id.is_null() {
        return text;
    }
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

/// RFC 3339 with nanoseconds, which hold the clock's counter: MinIO orders the versions of a key by it.
fn time(hlc: Hlc) -> String {
    let (millis, counter) = (hlc.millis(), hlc.bits() & 0xffff);
    let seconds = DateTime::from_secs(i64::try_from(millis / 1_000).unwrap_or(i64::MAX));
    // Beyond the year 9999 there is no such text; nothing is born there.
    let text = seconds.fmt(DateTimeFormat::DateTime).unwrap_or_default();
    format!("{}.{:09}Z", text.trim_end_matches('Z'), millis % 1_000 * 1_000_000 + counter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage_engine::version::{Birth, Kind, Order, Origin};

    fn version() -> Version {
        let id = "01a200000abc7b2681bff33bd4ef61f0".parse().unwrap();
        let hlc = Hlc::from_millis(1_700_000_000_123).next().next();
        let birth = Birth {
            size_bytes: 5,
            etag: "abc".into(),
            ..Birth::blank(Order { hlc, origin: Origin::new("fra"), version_id: id }, Kind::Object)
        };
        Version { birth: Some(birth), ..Version::blank("k", id) }
    }

    fn header<'a>(extra: &'a Extra, name: &str) -> Option<&'a str> {
        extra.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn plain_s3_is_asked_nothing_special() {
        for ask in [Ask::Put, Ask::Initiate, Ask::Part, Ask::Complete, Ask::Marker, Ask::Purge, Ask::Head] {
            assert_eq!(Dialect::Aws.extra(ask, &version()), Extra::default());
        }
    }

    #[test]
    fn minio_is_given_id_time_and_etag() {
        let put = Dialect::MinIO.extra(Ask::Put, &version());
        assert_eq!(put.query, [("versionId", "01a20000-0abc-7b26-81bf-f33bd4ef61f0".to_string())]);
        assert_eq!(header(&put, "x-minio-source-mtime"), Some("2023-11-14T22:13:20.123000002Z"));
        assert_eq!(header(&put, "x-minio-source-etag"), Some("abc"));
        assert_eq!(header(&put, "x-minio-source-replication-request"), Some("true"));
        assert_eq!(header(&put, "x-amz-replication-status"), Some("REPLICA"));
        assert!(put.headers.iter().all(|(name, _)| !name.starts_with("x-rustfs")));
        let initiate = Dialect::MinIO.extra(Ask::Initiate, &version());
        assert_eq!(header(&initiate, "x-minio-source-mtime"), None, "it would be cleaned up early");
        let part = Dialect::MinIO.extra(Ask::Part, &version());
        assert_eq!((part.query.len(), part.headers.len()), (0, 1));
        let complete = Dialect::MinIO.extra(Ask::Complete, &version());
        assert_eq!(header(&complete, "x-minio-replication-actual-object-size"), Some("5"));
        let marker = Dialect::MinIO.extra(Ask::Marker, &version());
        assert_eq!((header(&marker, "x-minio-source-deletemarker"), marker.query.len()), (Some("true"), 1));
        let purge = Dialect::MinIO.extra(Ask::Purge, &version());
        assert_eq!((header(&purge, "x-minio-source-deletemarker"), purge.query.len()), (None, 0));
    }

    #[test]
    fn rustfs_is_told_under_both_names_and_ceph_only_the_id() {
        let put = Dialect::RustFs.extra(Ask::Put, &version());
        for prefix in ["x-minio", "x-rustfs"] {
            assert_eq!(header(&put, &format!("{prefix}-source-replication-request")), Some("true"));
        }
        let put = Dialect::Ceph.extra(Ask::Put, &version());
        assert_eq!(put.query, [("rgwx-version-id", "01a20000-0abc-7b26-81bf-f33bd4ef61f0".to_string())]);
        assert!(put.headers.is_empty());
    }
}
