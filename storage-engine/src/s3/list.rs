//! Lists of a bucket: objects (v1, v2) and versions. Only translates; paging and order are the object layer's.
use crate::object::{List, Listed, Marker, Page};
use crate::s3::text::percent_encode;
use crate::s3::{FrontDoor, checksum, owner, timestamp};
use crate::version::Birth;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use s3s::dto::{
    ChecksumAlgorithm, CommonPrefix, DeleteMarkerEntry, ETag, EncodingType, ListObjectVersionsInput,
    ListObjectVersionsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, Object,
    ObjectStorageClass, ObjectVersion, ObjectVersionStorageClass,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

/// Rows of a page, as S3 has it; a client that asks for more gets this.
const ROWS_MAX: i32 = 1000;

/// How many rows to show.
pub fn limit(asked: Option<i32>, name: &str) -> S3Result<i32> {
    let asked = asked.unwrap_or(ROWS_MAX);
    if asked < 0 {
        return Err(s3_error!(InvalidArgument, "{name} must not be negative."));
    }
    Ok(asked.min(ROWS_MAX))
}

/// How names are written: as they are, or percent-encoded because XML cannot hold every byte of a key.
pub struct Names(bool);

impl Names {
    pub fn new(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Names(false)),
            Some(EncodingType::URL) => Ok(Names(true)),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request.")),
        }
    }
    pub fn write(&self, name: &str) -> String {
        if self.0 { percent_encode(name) } else { name.to_owned() }
    }
    pub fn option(&self, name: Option<&str>) -> Option<String> {
        name.map(|n| self.write(n))
    }
    pub fn prefixes(&self, all: &[String]) -> Option<Vec<CommonPrefix>> {
        let shown = |p: &String| CommonPrefix { prefix: Some(self.write(p)) };
        (!all.is_empty()).then(|| all.iter().map(shown).collect())
    }
}

/// One page; `limit` 0 asks only whether the bucket is there.
async fn page(door: &FrontDoor, bucket: &str, list: List) -> S3Result<Page> {
    if list.limit == 0 {
        door.objects.bucket(bucket).await.map_err(|e| door.unread(e))?;
        return Ok(Page::default());
    }
    door.objects.list(bucket, list).await.map_err(|e| door.unread(e))
}

fn wanted(prefix: Option<&String>, delimiter: Option<&String>, after: Option<String>, limit: i32) -> List {
    List {
        prefix: prefix.cloned().unwrap_or_default(),
        delimiter: delimiter.filter(|d| !d.is_empty()).cloned(),
        after: after.filter(|a| !a.is_empty()).map(|key| Marker { key, version: None }),
        limit: usize::try_from(limit).unwrap_or_default(),
        versions: false,
    }
}

pub async fn objects(
    door: &FrontDoor,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = request.input;
    let names = Names::new(input.encoding_type.as_ref())?;
    let limit = limit(input.max_keys, "max-keys")?;
    let list = wanted(input.prefix.as_ref(), input.delimiter.as_ref(), input.marker.clone(), limit);
    let page = page(door, &input.bucket, list).await?;
    // Without a delimiter clients go on from the last key they saw, and S3 names no marker.
    let next = page.next.as_ref().filter(|_| input.delimiter.is_some());
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(names.write(input.prefix.as_deref().unwrap_or_default())),
        marker: Some(names.write(input.marker.as_deref().unwrap_or_default())),
        max_keys: Some(limit),
        is_truncated: Some(page.next.is_some()),
        next_marker: next.map(|m| names.write(&m.key)),
        contents: Some(page.entries.iter().filter_map(|e| object(e, &names, true)).collect()),
        common_prefixes: names.prefixes(&page.common_prefixes),
        delimiter: names.option(input.delimiter.as_deref()),
        encoding_type: input.encoding_type,
        request_charged: None,
    }))
}

pub async fn objects_v2(
    door: &FrontDoor,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = request.input;
    let names = Names::new(input.encoding_type.as_ref())?;
    let limit = limit(input.max_keys, "max-keys")?;
    let after = match &input.continuation_token {
        Some(token) => Some(key_of(token)?),
        None => input.start_after.clone(),
    };
    let list = wanted(input.prefix.as_ref(), input.delimiter.as_ref(), after, limit);
    let page = page(door, &input.bucket, list).await?;
    let rows = page.entries.len() + page.common_prefixes.len();
    let with_owner = input.fetch_owner == Some(true);
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(names.write(input.prefix.as_deref().unwrap_or_default())),
        max_keys: Some(limit),
        key_count: i32::try_from(rows).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.as_ref().map(|m| token_of(&m.key)),
        contents: Some(page.entries.iter().filter_map(|e| object(e, &names, with_owner)).collect()),
        common_prefixes: names.prefixes(&page.common_prefixes),
        delimiter: names.option(input.delimiter.as_deref()),
        encoding_type: input.encoding_type,
        start_after: names.option(input.start_after.as_deref()),
        request_charged: None,
    }))
}

pub async fn versions(
    door: &FrontDoor,
    request: S3Request<ListObjectVersionsInput>,
) -> S3Result<S3Response<ListObjectVersionsOutput>> {
    let input = request.input;
    let names = Names::new(input.encoding_type.as_ref())?;
    let limit = limit(input.max_keys, "max-keys")?;
    let mut list = wanted(input.prefix.as_ref(), input.delimiter.as_ref(), input.key_marker.clone(), limit);
    list.versions = true;
    if let Some(id) = crate::s3::version_id(input.version_id_marker.as_deref())? {
        let marker = list.after.as_mut();
        let marker = marker.ok_or_else(|| {
            s3_error!(InvalidArgument, "A version-id marker cannot be specified without a key marker.")
        })?;
        marker.version = Some(id);
    }
    let page = page(door, &input.bucket, list).await?;
    let (markers, objects): (Vec<_>, Vec<_>) = page.entries.iter().partition(|e| e.version.is_delete_marker());
    Ok(S3Response::new(ListObjectVersionsOutput {
        common_prefixes: names.prefixes(&page.common_prefixes),
        delete_markers: Some(markers.into_iter().filter_map(|e| marker(e, &names)).collect()),
        delimiter: names.option(input.delimiter.as_deref()),
        encoding_type: input.encoding_type,
        is_truncated: Some(page.next.is_some()),
        key_marker: Some(names.write(input.key_marker.as_deref().unwrap_or_default())),
        max_keys: Some(limit),
        name: Some(input.bucket),
        next_key_marker: page.next.as_ref().map(|m| names.write(&m.key)),
        next_version_id_marker: page.next.as_ref().and_then(|m| m.version).map(|id| id.to_string()),
        prefix: Some(names.write(input.prefix.as_deref().unwrap_or_default())),
        request_charged: None,
        version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
        versions: Some(objects.into_iter().filter_map(|e| version(e, &names)).collect()),
    }))
}

fn object(entry: &Listed, names: &Names, with_owner: bool) -> Option<Object> {
    let birth = entry.version.birth.as_ref()?;
    Some(Object {
        checksum_algorithm: algorithms(birth),
        checksum_type: checksum::kind(&birth.checksums),
        e_tag: Some(ETag::Strong(birth.etag.clone())),
        key: Some(names.write(&entry.version.key)),
        last_modified: Some(timestamp(birth.order.hlc.millis())),
        owner: with_owner.then(owner),
        restore_status: None,
        size: i64::try_from(birth.size_bytes).ok(),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
    })
}

fn version(entry: &Listed, names: &Names) -> Option<ObjectVersion> {
    let birth = entry.version.birth.as_ref()?;
    Some(ObjectVersion {
        checksum_algorithm: algorithms(birth),
        checksum_type: checksum::kind(&birth.checksums),
        e_tag: Some(ETag::Strong(birth.etag.clone())),
        is_latest: Some(entry.is_latest),
        key: Some(names.write(&entry.version.key)),
        last_modified: Some(timestamp(birth.order.hlc.millis())),
        owner: Some(owner()),
        restore_status: None,
        size: i64::try_from(birth.size_bytes).ok(),
        storage_class: Some(ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD)),
        version_id: Some(entry.version.id.to_string()),
    })
}

fn marker(entry: &Listed, names: &Names) -> Option<DeleteMarkerEntry> {
    let birth = entry.version.birth.as_ref()?;
    Some(DeleteMarkerEntry {
        is_latest: Some(entry.is_latest),
        key: Some(names.write(&entry.version.key)),
        last_modified: Some(timestamp(birth.order.hlc.millis())),
        owner: Some(owner()),
        version_id: Some(entry.version.id.to_string()),
    })
}

fn algorithms(birth: &Birth) -> Option<Vec<ChecksumAlgorithm>> {
    let asked = birth.checksums.keys().map(|name| ChecksumAlgorithm::from(name.to_ascii_uppercase()));
    let own = birth.checksums.is_empty().then(|| ChecksumAlgorithm::from_static(ChecksumAlgorithm::CRC64NVME));
    Some(asked.chain(own).collect())
}

/// A continuation token: opaque to clients; the leading 1 is its format.
fn token_of(key: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("1{key}"))
}

fn key_of(token: &str) -> S3Result<String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
    let text = bytes.and_then(|b| String::from_utf8(b).ok());
    let key = text.as_deref().and_then(|t| t.strip_prefix('1')).map(str::to_owned);
    key.ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_its_key_back_and_others_are_refused() {
        assert_eq!(key_of(&token_of("a/ü\u{1}")).unwrap(), "a/ü\u{1}");
        for bad in ["", "%%%", "a/b", &BASE64_URL_SAFE_NO_PAD.encode("2key")] {
            assert!(key_of(bad).is_err(), "{bad}");
        }
    }
}
