//! Compares sites through S3 alone: version ids and their order, bytes, metadata, headers and tags.
use super::BUCKET;
use super::sites::Site;
use anyhow::Context;
use aws_sdk_s3::Client;
use futures::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Requests under way at once, per site.
const AT_ONCE: usize = 16;

/// One version as S3 shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// Place among the versions (or markers) of its key, 0 the newest.
    place: usize,
    is_latest: bool,
    is_marker: bool,
    etag: String,
    size_bytes: u64,
    sha256: String,
    metadata: BTreeMap<String, String>,
    content_type: Option<String>,
    tags: BTreeMap<String, String>,
}

type Versions = BTreeMap<(String, String), Seen>;

/// What a comparison found.
pub struct Compared {
    pub sites: usize,
    pub versions: usize,
    pub bytes: u64,
    pub conflicts: u64,
    pub mismatches: Vec<String>,
}

impl Compared {
    /// Whether all sites are identical.
    pub fn is_equal(&self) -> bool {
        self.mismatches.is_empty() && self.versions > 0
    }
}

/// Reads every version of every site and compares them.
///
/// # Errors
/// When a site cannot be read to the end: nothing is concluded from half a list.
pub async fn all(sites: &[Site]) -> anyhow::Result<Compared> {
    let mut seen = Vec::new();
    let mut conflicts = 0;
    for site in sites {
        seen.push(read(&site.client).await.with_context(|| format!("read site {}", site.name))?);
        conflicts = conflicts.max(site.status().await?.conflicts);
    }
    let mut mismatches = Vec::new();
    for (site, versions) in sites.iter().zip(&seen).skip(1) {
        mismatches.extend(differences(&sites[0].name, &seen[0], &site.name, versions));
    }
    Ok(Compared {
        sites: sites.len(),
        versions: seen[0].len(),
        bytes: seen[0].values().map(|v| v.size_bytes).sum(),
        conflicts,
        mismatches,
    })
}

fn differences(a_name: &str, a: &Versions, b_name: &str, b: &Versions) -> Vec<String> {
    let mut found = Vec::new();
    for (id, seen) in a {
        match b.get(id) {
            None => found.push(format!("{} {} is on {a_name} and not on {b_name}", id.0, id.1)),
            Some(other) if other != seen => {
                found.push(format!("{} {} differs: {a_name} {seen:?}, {b_name} {other:?}", id.0, id.1));
            }
            Some(_) => {}
        }
    }
    found.extend(
        b.keys()
            .filter(|id| !a.contains_key(*id))
            .map(|id| format!("{} {} is on {b_name} and not on {a_name}", id.0, id.1)),
    );
    found
}

async fn read(client: &Client) -> anyhow::Result<Versions> {
    let listed = list(client).await?;
    stream::iter(listed)
        .map(|(key, id, seen)| async move {
            let seen = if seen.is_marker { seen } else { fill(client, &key, &id, seen).await? };
            Ok(((key, id), seen))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Every version and marker; the place of each is the one the site's list gives it among its kind.
async fn list(client: &Client) -> anyhow::Result<Vec<(String, String, Seen)>> {
    let mut all = Vec::new();
    let mut places: BTreeMap<(String, bool), usize> = BTreeMap::new();
    let (mut key_marker, mut id_marker) = (None, None);
    loop {
        let page = client
            .list_object_versions()
            .bucket(BUCKET)
            .set_key_marker(key_marker)
            .set_version_id_marker(id_marker)
            .send()
            .await
            .context("list versions")?;
        let versions = page.versions().iter().map(|v| {
            let seen = blank(false, v.is_latest(), v.e_tag(), v.size());
            (v.key(), v.version_id(), seen)
        });
        let markers =
            page.delete_markers().iter().map(|m| (m.key(), m.version_id(), blank(true, m.is_latest(), None, None)));
        for (key, id, mut seen) in versions.chain(markers) {
            let (key, id) = (key.context("a key")?.to_owned(), id.context("a version id")?.to_owned());
            let place = places.entry((key.clone(), seen.is_marker)).or_default();
            seen.place = *place;
            *place += 1;
            all.push((key, id, seen));
        }
        key_marker = page.next_key_marker().map(str::to_owned);
        id_marker = page.next_version_id_marker().map(str::to_owned);
        if page.is_truncated() != Some(true) {
            return Ok(all);
        }
    }
}

fn blank(is_marker: bool, is_latest: Option<bool>, etag: Option<&str>, size: Option<i64>) -> Seen {
    Seen {
        place: 0,
        is_latest: is_latest.unwrap_or_default(),
        is_marker,
        etag: etag.unwrap_or_default().into(),
        size_bytes: u64::try_from(size.unwrap_or_default()).unwrap_or_default(),
        sha256: String::new(),
        metadata: BTreeMap::new(),
        content_type: None,
        tags: BTreeMap::new(),
    }
}

/// Reads the bytes, metadata and tags of one version.
async fn fill(client: &Client, key: &str, id: &str, mut seen: Seen) -> anyhow::Result<Seen> {
    let what = || format!("{key} {id}");
    let mut got = client.get_object().bucket(BUCKET).key(key).version_id(id).send().await.with_context(what)?;
    seen.metadata = got.metadata.take().unwrap_or_default().into_iter().collect();
    seen.content_type = got.content_type.take();
    let mut hash = Sha256::new();
    let mut size = 0u64;
    while let Some(bytes) = got.body.try_next().await.with_context(what)? {
        size += bytes.len() as u64;
        hash.update(&bytes);
    }
    anyhow::ensure!(size == seen.size_bytes, "{key} {id}: {size} bytes read, {} listed", seen.size_bytes);
    seen.sha256 = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let tags = client.get_object_tagging().bucket(BUCKET).key(key).version_id(id).send().await.with_context(what)?;
    seen.tags = tags.tag_set().iter().map(|t| (t.key().to_owned(), t.value().to_owned())).collect();
    Ok(seen)
}
