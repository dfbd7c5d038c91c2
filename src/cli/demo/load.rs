//! What the demo writes: files of a directory as objects of all sizes, overwrites, the same keys on two
//! sites at once, tags, deletes and version deletes, and one multipart upload of 64 MiB.
use super::BUCKET;
use super::sites::Site;
use anyhow::Context;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Tag, Tagging};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::path::{Path, PathBuf};

/// Bytes read from the directory at most.
const INPUT_BYTES_MAX: u64 = 200 << 20;
/// Files taken at most: the demo stays under its 90 seconds.
const INPUT_FILES_MAX: usize = 1500;
/// Requests under way at once, per site.
const AT_ONCE: usize = 8;
/// Parts of the multipart upload: 8 of 8 MiB.
const PARTS: usize = 8;
const PART_BYTES: usize = 8 << 20;
/// Keys written on two sites at once.
const CONTESTED: usize = 24;
/// Directories that hold no input.
const SKIPPED: [&str; 3] = [".git", "target", "node_modules"];

/// A file to write, by its path below the directory.
#[derive(Clone, Debug)]
pub struct Input {
    pub key: String,
    pub path: PathBuf,
}

/// The files of a directory, smallest paths first, within the bounds.
///
/// # Errors
/// When the directory cannot be read or holds no file.
pub fn inputs(dir: &Path) -> anyhow::Result<Vec<Input>> {
    let mut found = Vec::new();
    let mut queue = vec![dir.to_path_buf()];
    while let Some(folder) = queue.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let path = entry.path();
            if kind.is_dir() && !SKIPPED.iter().any(|s| entry.file_name() == *s) {
                queue.push(path);
            } else if kind.is_file() {
                let key = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
                found.push((Input { key, path }, entry.metadata()?.len()));
            }
        }
    }
    found.sort_by(|a, b| a.0.key.cmp(&b.0.key));
    let mut bytes = 0;
    let taken: Vec<_> = found
        .into_iter()
        .take(INPUT_FILES_MAX)
        .filter(|(_, size)| {
            let fits = bytes + size <= INPUT_BYTES_MAX;
            bytes += if fits { *size } else { 0 };
            fits
        })
        .map(|(input, _)| input)
        .collect();
    anyhow::ensure!(!taken.is_empty(), "{} holds no file", dir.display());
    Ok(taken)
}

/// The demo's writes, in three acts.
pub struct Load {
    inputs: Vec<Input>,
}

impl Load {
    /// A load over these files.
    pub fn new(inputs: Vec<Input>) -> Self {
        Load { inputs }
    }

    /// New objects everywhere, contested keys, one multipart upload, tags.
    pub async fn first_half(&self, sites: &super::sites::Sites) -> anyhow::Result<()> {
        let sites = sites.all();
        let half = self.inputs.len().div_ceil(2);
        tokio::try_join!(
            self.put_all(sites, &self.inputs[..half]),
            self.contest(&sites[0], &sites[1], "first"),
            multipart(&sites[0].client, "large/multipart.bin"),
            sizes(&sites[sites.len() - 1]),
        )?;
        self.tag(sites).await
    }

    /// The rest of the files, overwrites, deletes and version deletes, on the sites that live.
    pub async fn second_half(&self, sites: &[Site]) -> anyhow::Result<()> {
        let half = self.inputs.len().div_ceil(2);
        tokio::try_join!(
            self.put_all(sites, &self.inputs[half..]),
            self.overwrite(sites),
            self.contest(&sites[0], &sites[1], "second"),
        )?;
        self.delete(sites).await
    }

    /// What the returned site writes once it is back.
    pub async fn after_return(&self, site: &Site) -> anyhow::Result<()> {
        for input in self.inputs.iter().take(10) {
            put_file(&site.client, &format!("after/{}", input.key), &input.path).await?;
        }
        Ok(())
    }

    async fn put_all(&self, sites: &[Site], inputs: &[Input]) -> anyhow::Result<()> {
        stream::iter(inputs.iter().enumerate())
            .map(|(i, input)| put_file(&sites[i % sites.len()].client, &input.key, &input.path))
            .buffer_unordered(AT_ONCE * sites.len())
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    /// The same keys on two sites at once.
    async fn contest(&self, a: &Site, b: &Site, round: &str) -> anyhow::Result<()> {
        stream::iter(0..CONTESTED)
            .map(|i| async move {
                let key = format!("contested/{i}");
                let (on_a, on_b) = (format!("{round} on {}", a.name), format!("{round} on {}", b.name));
                tokio::try_join!(put_bytes(&a.client, &key, on_a.into()), put_bytes(&b.client, &key, on_b.into()))?;
                anyhow::Ok(())
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    async fn overwrite(&self, sites: &[Site]) -> anyhow::Result<()> {
        stream::iter(self.inputs.iter().step_by(7).enumerate())
            .map(|(i, input)| {
                let client = &sites[(i + 1) % sites.len()].client;
                put_bytes(client, &input.key, Bytes::from(format!("overwritten {i}: {}", input.key)))
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    /// Tags set on another site than the one that wrote the object, once it is there.
    async fn tag(&self, sites: &[Site]) -> anyhow::Result<()> {
        for (i, input) in self.inputs.iter().step_by(20).enumerate() {
            let client = &sites[i % sites.len()].client;
            let tag = Tag::builder().key("demo").value(format!("tag-{i}")).build()?;
            let set = Tagging::builder().tag_set(tag).build()?;
            let tagged = client.put_object_tagging().bucket(BUCKET).key(&input.key).tagging(set).send().await;
            match tagged {
                Ok(_) => {}
                // Not there yet: replication is asynchronous, and this site was asked at once.
                Err(e) if e.raw_response().is_some_and(|r| r.status().as_u16() == 404) => {}
                Err(e) => return Err(e).with_context(|| format!("tag {}", input.key)),
            }
        }
        Ok(())
    }

    async fn delete(&self, sites: &[Site]) -> anyhow::Result<()> {
        for (i, input) in self.inputs.iter().step_by(11).enumerate() {
            let client = &sites[i % sites.len()].client;
            let made = client.delete_object().bucket(BUCKET).key(&input.key).send().await;
            let made = made.with_context(|| format!("delete {}", input.key))?;
            if i % 3 == 0 {
                // Removing the marker brings the object back.
                let id = made.version_id().context("a delete marker has a version id")?;
                client.delete_object().bucket(BUCKET).key(&input.key).version_id(id).send().await?;
            }
        }
        for (i, input) in self.inputs.iter().step_by(13).enumerate() {
            let client = &sites[i % sites.len()].client;
            let listed = client.list_object_versions().bucket(BUCKET).prefix(&input.key).send().await?;
            let oldest = listed.versions().iter().rfind(|v| v.key() == Some(&input.key));
            if let Some(id) = oldest.and_then(|v| v.version_id()) {
                client.delete_object().bucket(BUCKET).key(&input.key).version_id(id).send().await?;
            }
        }
        Ok(())
    }
}

async fn put_file(client: &Client, key: &str, path: &Path) -> anyhow::Result<()> {
    let bytes = tokio::fs::read(path).await.with_context(|| format!("read {}", path.display()))?;
    put_bytes(client, key, bytes.into()).await
}

async fn put_bytes(client: &Client, key: &str, bytes: Bytes) -> anyhow::Result<()> {
    client
        .put_object()
        .bucket(BUCKET)
        .key(key)
        .metadata("written-by", "isthmus demo")
        .content_type("application/octet-stream")
        .body(ByteStream::from(bytes))
        .send()
        .await
        .with_context(|| format!("put {key}"))?;
    Ok(())
}

/// Objects at the borders of blocks, stripes and inline shards.
async fn sizes(site: &Site) -> anyhow::Result<()> {
    for size in [0usize, 1, 4 << 10, 64 << 10, (1 << 20) - 1, 1 << 20, (4 << 20) + 1, 9 << 20] {
        put_bytes(&site.client, &format!("sizes/{size}"), pattern(size, size as u64)).await?;
    }
    Ok(())
}

async fn multipart(client: &Client, key: &str) -> anyhow::Result<()> {
    let upload = client.create_multipart_upload().bucket(BUCKET).key(key).send().await.context("start the upload")?;
    let id = upload.upload_id().context("an upload has an id")?;
    let parts: Vec<CompletedPart> = stream::iter(1..=PARTS)
        .map(|number| async move {
            let body = ByteStream::from(pattern(PART_BYTES, number as u64));
            let number = i32::try_from(number)?;
            let sent = client
                .upload_part()
                .bucket(BUCKET)
                .key(key)
                .upload_id(id)
                .part_number(number)
                .body(body)
                .send()
                .await?;
            anyhow::Ok(
                CompletedPart::builder()
                    .part_number(number)
                    .set_e_tag(sent.e_tag)
                    .set_checksum_crc32(sent.checksum_crc32)
                    .build(),
            )
        })
        .buffered(2)
        .try_collect()
        .await
        .context("upload a part")?;
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    client
        .complete_multipart_upload()
        .bucket(BUCKET)
        .key(key)
        .upload_id(id)
        .multipart_upload(parts)
        .send()
        .await
        .context("complete the upload")?;
    Ok(())
}

/// Bytes that no two sizes or parts share.
fn pattern(size: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}
