//! Uploads in parts: create, upload and copy parts, complete, abort, and their lists.
use crate::object::{PartRef, Put, UploadChecksum, UploadedPart};
use crate::s3::body::incoming;
use crate::s3::checksum::{self, named_checksums, show_checksums};
use crate::s3::list::{Names, limit};
use crate::s3::read::{self, birth, open};
use crate::s3::write::{bytes_of, conditions, content_headers, metadata, source, source_holds, traced};
use crate::s3::{FrontDoor, lock, owner, tag, timestamp};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, CopyPartResult,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag, Initiator, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload, Part, Range, UploadPartCopyInput,
    UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};
use std::collections::{BTreeMap, BTreeSet};

/// Part numbers run from 1 to this, as S3 has it.
const PARTS_MAX: u16 = 10_000;

pub async fn create(
    door: &FrontDoor,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let S3Request { input, headers, extensions, .. } = request;
    // The object, which Complete makes, belongs to the trace of the upload's begin.
    let traced = traced("CreateMultipartUpload", &input.bucket, &input.key, &headers, &extensions);
    let checksum = upload_checksum(input.checksum_algorithm.as_ref(), input.checksum_type.as_ref())?;
    let checksum_type = checksum.as_ref().map(checksum_type);
    let put = Put {
        headers: content_headers!(input),
        metadata: metadata(input.metadata)?,
        tags: tag::from_header(input.tagging.as_deref())?,
        protection: lock::asked!(input)?,
        traceparent: traced.traceparent(),
        ..Put::default()
    };
    let upload =
        door.objects.create_upload(&input.bucket, &input.key, put, checksum).await.map_err(|e| door.fail(e))?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(upload.id),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type,
        ..Default::default()
    }))
}

/// What the parts of an upload are checked with; without a word CRC-64/NVME is of the whole object and the
/// others of the parts' checksums.
///
/// # Source
/// Amazon S3 User Guide, "Checking object integrity": full object and composite checksum types.
fn upload_checksum(
    algorithm: Option<&ChecksumAlgorithm>,
    asked: Option<&ChecksumType>,
) -> S3Result<Option<UploadChecksum>> {
    let Some(algorithm) = algorithm else {
        return match asked {
            None => Ok(None),
            Some(_) => Err(s3_error!(InvalidRequest, "x-amz-checksum-type needs x-amz-checksum-algorithm beside it.")),
        };
    };
    let algorithm = checksum::algorithm(algorithm)?;
    let is_of_whole = match asked.map(ChecksumType::as_str) {
        None => algorithm == "crc64nvme",
        Some(ChecksumType::FULL_OBJECT) => true,
        Some(ChecksumType::COMPOSITE) => false,
        Some(_) => return Err(s3_error!(InvalidRequest, "x-amz-checksum-type is FULL_OBJECT or COMPOSITE.")),
    };
    if algorithm == "crc64nvme" && !is_of_whole || algorithm.starts_with("sha") && is_of_whole {
        let asked = if is_of_whole { ChecksumType::FULL_OBJECT } else { ChecksumType::COMPOSITE };
        return Err(s3_error!(InvalidRequest, "The {asked} checksum type cannot be used with {algorithm}."));
    }
    Ok(Some(UploadChecksum { algorithm, is_of_whole }))
}

fn checksum_type(checksum: &UploadChecksum) -> ChecksumType {
    ChecksumType::from_static(if checksum.is_of_whole { ChecksumType::FULL_OBJECT } else { ChecksumType::COMPOSITE })
}

pub async fn upload_part(
    door: &FrontDoor,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let S3Request { input, headers, trailing_headers, .. } = request;
    let number = part_number(input.part_number)?;
    let (expect, announced) = checksum::expect(&headers, trailing_headers)?;
    let body = incoming(input.body, expect.size_bytes.unwrap_or_default(), announced);
    let done = door.objects.upload_part(&input.bucket, &input.key, &input.upload_id, number, expect, body).await;
    let part = done.map_err(|e| door.fail(e))?;
    let mut output = UploadPartOutput { e_tag: Some(ETag::Strong(part.etag)), ..Default::default() };
    show_checksums!(output, part.checksums);
    Ok(S3Response::new(output))
}

pub async fn upload_part_copy(
    door: &FrontDoor,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let input = request.input;
    let number = part_number(input.part_number)?;
    let (bucket, key, id) = source(&input.copy_source)?;
    let opened = open(door, bucket, key, id).await?;
    let from = birth(&opened)?;
    let wanted = read::Conditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    source_holds(wanted.unmet(&from.etag, from.order.hlc.millis()))?;
    let range = match &input.copy_source_range {
        None => 0..from.size_bytes,
        Some(text) => copy_range(text, from.size_bytes)?,
    };
    let size_bytes = range.end - range.start;
    if size_bytes > checksum::UPLOAD_BYTES_MAX {
        return Err(s3_error!(EntityTooLarge, "A part holds at most 5 GiB."));
    }
    let expect = crate::object::Expect { size_bytes: Some(size_bytes), ..Default::default() };
    let body = bytes_of(&opened, range);
    let done = door.objects.upload_part(&input.bucket, &input.key, &input.upload_id, number, expect, body).await;
    let part = done.map_err(|e| door.fail(e))?;
    let mut result = CopyPartResult {
        e_tag: Some(ETag::Strong(part.etag)),
        last_modified: Some(timestamp(part.modified_millis)),
        ..Default::default()
    };
    show_checksums!(result, part.checksums);
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(result),
        copy_source_version_id: opened.versioned.then(|| opened.version.id.to_string()),
        ..Default::default()
    }))
}

/// `bytes=first-last`, both named and both within the source.
fn copy_range(text: &str, size: u64) -> S3Result<std::ops::Range<u64>> {
    match Range::parse(text) {
        Ok(Range::Int { first, last: Some(last) }) if last < size => Ok(first..last + 1),
        Ok(Range::Int { last: Some(_), .. }) => {
            Err(s3_error!(InvalidArgument, "The range is not within the source of {size} bytes."))
        }
        _ => Err(s3_error!(InvalidArgument, "The x-amz-copy-source-range value must be of the form bytes=first-last.")),
    }
}

fn part_number(number: i32) -> S3Result<u16> {
    let number = u16::try_from(number).ok().filter(|n| (1..=PARTS_MAX).contains(n));
    number.ok_or_else(|| s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive."))
}

pub async fn complete(
    door: &FrontDoor,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let S3Request { input, headers, .. } = request;
    let stated = checksum::of_whole(&headers)?;
    let conditions = conditions(input.if_match, input.if_none_match)?;
    let named = input.multipart_upload.and_then(|u| u.parts).unwrap_or_default();
    if named.is_empty() {
        return Err(s3_error!(MalformedXML, "Name at least one part."));
    }
    let parts = named.into_iter().map(part_ref).collect::<S3Result<Vec<_>>>()?;
    if input.mpu_object_size.is_some() || input.checksum_type.is_some() {
        let held = door.objects.parts(&input.bucket, &input.key, &input.upload_id).await;
        // An upload that has ended is answered below: what it was, or that it is gone.
        if let Ok((upload, held)) = held {
            type_matches(input.checksum_type.as_ref(), upload.checksum.as_ref())?;
            input.mpu_object_size.map_or(Ok(()), |stated| size_matches(stated, &parts, &held))?;
        }
    }
    let done = door.objects.complete_upload(&input.bucket, &input.key, &input.upload_id, parts, stated, conditions);
    let done = done.await;
    let written = done.map_err(|e| door.fail(e))?;
    let birth = written.version.birth.as_ref().ok_or_else(|| s3_error!(InternalError))?;
    let mut output = CompleteMultipartUploadOutput {
        e_tag: Some(ETag::Strong(birth.etag.clone())),
        location: Some(format!("/{}/{}", input.bucket, crate::s3::text::percent_encode(&input.key))),
        bucket: Some(input.bucket),
        key: Some(input.key),
        checksum_type: checksum::kind(&birth.checksums),
        version_id: written.versioned.then(|| written.version.id.to_string()),
        ..Default::default()
    };
    show_checksums!(output, checksum::shown(birth));
    Ok(S3Response::new(output))
}

fn type_matches(stated: Option<&ChecksumType>, held: Option<&UploadChecksum>) -> S3Result<()> {
    match (stated, held.map(checksum_type)) {
        (Some(stated), Some(held)) if *stated != held => {
            Err(s3_error!(InvalidRequest, "The upload was created with checksum type {}.", held.as_str()))
        }
        _ => Ok(()),
    }
}

fn part_ref(part: CompletedPart) -> S3Result<PartRef> {
    let number = part_number(part.part_number.ok_or_else(|| s3_error!(MalformedXML, "A part has no number."))?)?;
    let checksums = named_checksums!(part);
    let etag = part.e_tag.ok_or_else(|| s3_error!(MalformedXML, "A part has no ETag."))?;
    Ok(PartRef { number, etag: etag.into_value(), checksums })
}

fn size_matches(stated: i64, named: &[PartRef], held: &[UploadedPart]) -> S3Result<()> {
    let numbers: BTreeSet<u16> = named.iter().map(|p| p.number).collect();
    let total: u64 = held.iter().filter(|p| numbers.contains(&p.number)).map(|p| p.size_bytes).sum();
    if u64::try_from(stated).ok() == Some(total) {
        return Ok(());
    }
    Err(s3_error!(InvalidRequest, "x-amz-mp-object-size does not match the {total} bytes of the parts."))
}

pub async fn abort(
    door: &FrontDoor,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = request.input;
    door.objects.abort_upload(&input.bucket, &input.key, &input.upload_id).await.map_err(|e| door.fail(e))?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

pub async fn parts(door: &FrontDoor, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
    let input = request.input;
    let most = limit(input.max_parts, "max-parts")?;
    let after = input.part_number_marker.unwrap_or(0);
    let held = door.objects.parts(&input.bucket, &input.key, &input.upload_id).await;
    let (upload, mut held) = held.map_err(|e| door.unread(e))?;
    held.sort_by_key(|p| p.number);
    held.retain(|p| i32::from(p.number) > after);
    let shown = &held[..held.len().min(usize::try_from(most).unwrap_or_default())];
    let part = |p: &UploadedPart| {
        let mut part = Part {
            e_tag: Some(ETag::Strong(p.etag.clone())),
            last_modified: Some(timestamp(p.modified_millis)),
            part_number: Some(p.number.into()),
            size: i64::try_from(p.size_bytes).ok(),
            ..Default::default()
        };
        show_checksums!(part, p.checksums);
        part
    };
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        checksum_algorithm: upload.checksum.as_ref().map(checksum_algorithm),
        checksum_type: upload.checksum.as_ref().map(checksum_type),
        initiator: Some(initiator()),
        is_truncated: Some(shown.len() < held.len()),
        key: Some(input.key),
        max_parts: Some(most),
        next_part_number_marker: shown.last().map(|p| p.number.into()),
        owner: Some(owner()),
        part_number_marker: Some(after),
        parts: Some(shown.iter().map(part).collect()),
        upload_id: Some(input.upload_id),
        ..Default::default()
    }))
}

fn checksum_algorithm(checksum: &UploadChecksum) -> ChecksumAlgorithm {
    ChecksumAlgorithm::from(checksum.algorithm.to_ascii_uppercase())
}

fn initiator() -> Initiator {
    let owner = owner();
    Initiator { display_name: owner.display_name, id: owner.id }
}

pub async fn uploads(
    door: &FrontDoor,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = request.input;
    let names = Names::new(input.encoding_type.as_ref())?;
    let most = limit(input.max_uploads, "max-uploads")?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().filter(|d| !d.is_empty());
    let all = door.objects.uploads(&input.bucket, &prefix).await.map_err(|e| door.unread(e))?;
    let after = (
        input.key_marker.clone().unwrap_or_default(),
        input.upload_id_marker.clone().filter(|_| input.key_marker.is_some()),
    );
    // Rows in order: an upload by (key, id), or the common prefix that stands for many.
    let mut rows: BTreeMap<(String, String), Option<crate::object::Upload>> = BTreeMap::new();
    for upload in all.into_iter().filter(|u| u.key.starts_with(&prefix)) {
        let cut = delimiter
            .as_ref()
            .and_then(|d| Some(prefix.len() + upload.key[prefix.len()..].find(d.as_str())? + d.len()));
        let (row, held) = match cut {
            Some(end) => ((upload.key[..end].to_owned(), String::new()), None),
            None => ((upload.key.clone(), upload.id.clone()), Some(upload)),
        };
        let later = match &after {
            (key, None) => row.0 > *key,
            (key, Some(id)) => row.0 > *key || row.0 == *key && row.1 > *id,
        };
        if later {
            rows.insert(row, held);
        }
    }
    let most_rows = usize::try_from(most).unwrap_or_default();
    let is_truncated = rows.len() > most_rows && most > 0;
    let shown: Vec<_> = rows.into_iter().take(most_rows).collect();
    let last = shown.last().map(|(row, _)| row.clone()).filter(|_| is_truncated);
    let prefixes: Vec<String> = shown.iter().filter(|(_, u)| u.is_none()).map(|((p, _), _)| p.clone()).collect();
    let upload = |u: &crate::object::Upload| MultipartUpload {
        checksum_algorithm: u.checksum.as_ref().map(checksum_algorithm),
        checksum_type: u.checksum.as_ref().map(checksum_type),
        initiated: Some(timestamp(u.initiated_millis)),
        initiator: Some(initiator()),
        key: Some(names.write(&u.key)),
        owner: Some(owner()),
        upload_id: Some(u.id.clone()),
        ..Default::default()
    };
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        common_prefixes: names.prefixes(&prefixes),
        delimiter: names.option(input.delimiter.as_deref()),
        encoding_type: input.encoding_type,
        is_truncated: Some(is_truncated),
        key_marker: Some(names.write(input.key_marker.as_deref().unwrap_or_default())),
        max_uploads: Some(most),
        next_key_marker: last.as_ref().map(|(key, _)| names.write(key)),
        next_upload_id_marker: last.map(|(_, id)| id),
        prefix: Some(names.write(&prefix)),
        request_charged: None,
        upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
        uploads: Some(shown.iter().filter_map(|(_, u)| u.as_ref()).map(upload).collect()),
    }))
}
