//! Tags of buckets and of versions, and their limits.
use crate::bucket::document::Kind;
use crate::s3::error::{custom, header};
use crate::s3::write::traced;
use crate::s3::{FrontDoor, text, version_id};
use crate::trace::Request;
use hyper::{HeaderMap, StatusCode};
use s3s::dto::{
    DeleteBucketTaggingInput, DeleteBucketTaggingOutput, DeleteObjectTaggingInput, DeleteObjectTaggingOutput,
    GetBucketTaggingInput, GetBucketTaggingOutput, GetObjectTaggingInput, GetObjectTaggingOutput,
    PutBucketTaggingInput, PutBucketTaggingOutput, PutObjectTaggingInput, PutObjectTaggingOutput, Tag, TagSet, Tagging,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};
use std::collections::BTreeMap;

/// Tags of an object, as S3 has it.
const OBJECT_TAGS_MAX: usize = 10;
/// Tags of a bucket, as S3 has it.
pub(super) const BUCKET_TAGS_MAX: usize = 50;
/// Characters of a tag's key and of its value, as S3 has them.
const TAG_CHARS_MAX: (usize, usize) = (128, 256);

/// The tag set of `x-amz-tagging`.
pub fn from_header(value: Option<&str>) -> S3Result<BTreeMap<String, String>> {
    let Some(value) = value else { return Ok(BTreeMap::new()) };
    let set = text::tags(value).ok_or_else(|| s3_error!(InvalidArgument, "The header x-amz-tagging is not valid."))?;
    within_limits(set, OBJECT_TAGS_MAX)
}

fn from_document(document: Tagging, most: usize) -> S3Result<BTreeMap<String, String>> {
    let mut set = BTreeMap::new();
    for tag in document.tag_set {
        let key = tag.key.ok_or_else(|| s3_error!(MalformedXML, "A tag has no key."))?;
        if set.insert(key, tag.value.unwrap_or_default()).is_some() {
            return Err(s3_error!(InvalidTag, "Cannot provide multiple tags with the same key."));
        }
    }
    within_limits(set, most)
}

pub(super) fn within_limits(set: BTreeMap<String, String>, most: usize) -> S3Result<BTreeMap<String, String>> {
    if set.len() > most {
        return Err(custom("BadRequest", StatusCode::BAD_REQUEST, format!("There are more than {most} tags.")));
    }
    let fits = |(k, v): (&String, &String)| {
        !k.is_empty() && k.chars().count() <= TAG_CHARS_MAX.0 && v.chars().count() <= TAG_CHARS_MAX.1
    };
    if set.iter().all(fits) {
        Ok(set)
    } else {
        Err(s3_error!(InvalidTag, "A tag's key or value is empty or too long."))
    }
}

fn to_document(set: BTreeMap<String, String>) -> TagSet {
    set.into_iter().map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect()
}

pub async fn bucket(
    door: &FrontDoor,
    request: S3Request<GetBucketTaggingInput>,
) -> S3Result<S3Response<GetBucketTaggingOutput>> {
    let held = door.objects.bucket_document(&request.input.bucket, Kind::Tags).await.map_err(|e| door.unread(e))?;
    let tags = held.and_then(|text| text::tags(&text)).filter(|tags| !tags.is_empty());
    let tags = tags.ok_or_else(|| s3_error!(NoSuchTagSet, "The bucket has no tags."))?;
    Ok(S3Response::new(GetBucketTaggingOutput { tag_set: to_document(tags) }))
}

pub async fn set_bucket(
    door: &FrontDoor,
    request: S3Request<PutBucketTaggingInput>,
) -> S3Result<S3Response<PutBucketTaggingOutput>> {
    let tags = from_document(request.input.tagging, BUCKET_TAGS_MAX)?;
    let done = door.objects.set_bucket_document(&request.input.bucket, Kind::Tags, Some(text::query(&tags))).await;
    done.map_err(|e| door.fail(e))?;
    Ok(S3Response::new(PutBucketTaggingOutput::default()))
}

pub async fn clear_bucket(
    door: &FrontDoor,
    request: S3Request<DeleteBucketTaggingInput>,
) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
    let done = door.objects.set_bucket_document(&request.input.bucket, Kind::Tags, None).await;
    done.map_err(|e| door.fail(e))?;
    Ok(S3Response::new(DeleteBucketTaggingOutput::default()))
}

pub async fn object(
    door: &FrontDoor,
    request: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let input = request.input;
    let id = version_id(input.version_id.as_deref())?;
    let opened = door.objects.open(&input.bucket, &input.key, id).await;
    let opened = opened.map_err(|e| door.unread_by_id(e, id.is_some()))?;
    let version_id = opened.versioned.then(|| opened.version.id.to_string());
    let tags = opened.version.tags.map(|t| t.set).unwrap_or_default();
    Ok(S3Response::new(GetObjectTaggingOutput { tag_set: to_document(tags), version_id }))
}

pub async fn set_object(
    door: &FrontDoor,
    request: S3Request<PutObjectTaggingInput>,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    let S3Request { input, headers, extensions, .. } = request;
    let traced = traced("PutObjectTagging", &input.bucket, &input.key, &headers, &extensions);
    let tags = from_document(input.tagging, OBJECT_TAGS_MAX)?;
    let version_id = set(door, &input.bucket, &input.key, input.version_id.as_deref(), tags, traced).await?;
    Ok(S3Response::new(PutObjectTaggingOutput { version_id }))
}

pub async fn clear_object(
    door: &FrontDoor,
    request: S3Request<DeleteObjectTaggingInput>,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let S3Request { input, headers, extensions, .. } = request;
    let traced = traced("DeleteObjectTagging", &input.bucket, &input.key, &headers, &extensions);
    let none = BTreeMap::new();
    let version_id = set(door, &input.bucket, &input.key, input.version_id.as_deref(), none, traced).await?;
    Ok(S3Response::new(DeleteObjectTaggingOutput { version_id }))
}

/// Replaces the tags of a version; the id to show, `None` where the bucket never had versions.
async fn set(
    door: &FrontDoor,
    bucket: &str,
    key: &str,
    id: Option<&str>,
    tags: BTreeMap<String, String>,
    traced: Request,
) -> S3Result<Option<String>> {
    let id = version_id(id)?;
    let touching = door.objects.set_tags_for(bucket, key, id, tags, traced.traceparent());
    let touched = traced.until(touching, |touched| Some(*touched)).await;
    let touched = touched.map_err(|e| door.fail_by_id(e, id.is_some()))?;
    Ok((!touched.is_null() || id.is_some()).then(|| touched.to_string()))
}

/// `x-amz-tagging-count`, which S3 sends where there are tags.
pub fn count_header(tags: usize) -> HeaderMap {
    let count = (tags > 0).then(|| (header("x-amz-tagging-count"), tags.into()));
    count.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_tags_hold() {
        let code = |header: &str| from_header(Some(header)).err().map(|e| e.code().as_str().to_owned());
        let ten: Vec<String> = (0..10).map(|i| format!("k{i}=v")).collect();
        assert_eq!(code(&ten.join("&")), None);
        assert_eq!(code(&format!("{}&k10=v", ten.join("&"))).as_deref(), Some("BadRequest"));
        assert_eq!(code("a=1&a=2").as_deref(), Some("InvalidArgument"));
        assert_eq!(code(&format!("{}=1", "k".repeat(129))).as_deref(), Some("InvalidTag"));
        assert_eq!(code(&format!("k={}", "v".repeat(257))).as_deref(), Some("InvalidTag"));
    }
}
