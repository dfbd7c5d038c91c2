//! Everything a site shows through S3: every version with its place, bytes and tags.
use crate::oracle::Oracle;
use crate::s3::{Miss, S3, Said, Tags, miss};
use crate::site::{BUCKET, LOOK};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Requests under way at once, per site.
const AT_ONCE: usize = 8;
/// A site with all its drives answers within this time; a 503 while unacked writes are settled is not final.
const PATIENCE: Duration = Duration::from_secs(20);

/// One version as S3 shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Place among the versions (or markers) of its key, 0 the newest.
    pub place: usize,
    pub is_latest: bool,
    pub etag: String,
    /// SHA-256 of its bytes; `None`: a delete marker.
    pub body: Option<String>,
    /// Read where the oracle knows of tags.
    pub tags: Option<Tags>,
}

/// A whole site, by key and version id.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct View {
    pub keys: BTreeMap<String, BTreeMap<String, Seen>>,
}

impl View {
    /// Reads every version of a site whose key begins so. A delete that nobody was told of may take effect between
    /// the list and the read; then everything is read again.
    pub async fn read(s3: &S3, oracle: &Oracle, prefix: &str) -> View {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match View::read_once(s3, oracle, prefix).await {
                Ok(view) => return view,
                Err(gone) => assert!(Instant::now() < deadline, "{gone}: listed, and not there"),
            }
        }
    }

    async fn read_once(s3: &S3, oracle: &Oracle, prefix: &str) -> Result<View, String> {
        let listed = surely("list versions", || list(s3, prefix)).await?;
        let filled: Vec<_> = stream::iter(listed)
            .map(|(key, id, mut seen)| async move {
                if seen.body.is_some() {
                    let what = format!("read {key} {id}");
                    seen.body = Some(surely(&what, || s3.read(&key, &id)).await?);
                    if oracle.is_tagged(&key, &id) {
                        seen.tags = Some(surely(&what, || s3.tags(&key, &id)).await?);
                    }
                }
                Ok::<_, String>((key, id, seen))
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let mut view = View::default();
        for (key, id, seen) in filled {
            view.keys.entry(key).or_default().insert(id, seen);
        }
        Ok(view)
    }

    pub fn versions(&self) -> usize {
        self.keys.values().map(BTreeMap::len).sum()
    }

    /// What one site shows and the other does not, or differently.
    pub fn differences(&self, other: &View) -> Vec<String> {
        let flat = |view: &View| -> BTreeMap<(String, String), Seen> {
            let all = view.keys.iter().flat_map(|(k, v)| v.iter().map(|(id, s)| ((k.clone(), id.clone()), s.clone())));
            all.collect()
        };
        let (a, b) = (flat(self), flat(other));
        let mut found: Vec<_> = a
            .iter()
            .filter(|(id, seen)| b.get(*id) != Some(*seen))
            .map(|(id, seen)| format!("{} {}: {seen:?} here, {:?} there", id.0, id.1, b.get(id)))
            .collect();
        let only = b.iter().filter(|(id, _)| !a.contains_key(*id));
        found.extend(only.map(|(id, seen)| format!("{} {}: not here, {seen:?} there", id.0, id.1)));
        found
    }
}

/// Fails with what was wrong, a few of it.
#[track_caller]
pub fn nothing(what: &str, wrong: &[String]) {
    let shown: Vec<_> = wrong.iter().take(12).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{what}: {} wrong\n{}", wrong.len(), shown.join("\n"));
}

/// Asks until there is an answer: with all drives there, only a refusal is final.
///
/// # Errors
/// What does not exist.
async fn surely<T, F: Future<Output = Said<T>>>(what: &str, mut ask: impl FnMut() -> F) -> Result<T, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(Miss::Unknown(why)) if Instant::now() > deadline => panic!("{what}: {why}"),
            Err(Miss::Unknown(_)) => tokio::time::sleep(LOOK).await,
            Err(Miss::Refused(404, why)) => return Err(format!("{what}: {why}")),
            Err(Miss::Refused(status, why)) => panic!("{what}: {status} {why}"),
        }
    }
}

async fn list(s3: &S3, prefix: &str) -> Said<Vec<(String, String, Seen)>> {
    let mut all = Vec::new();
    let mut places: BTreeMap<(String, bool), usize> = BTreeMap::new();
    let (mut key_marker, mut id_marker) = (None, None);
    loop {
        let request = s3.client.list_object_versions().bucket(BUCKET).prefix(prefix);
        let request = request.set_key_marker(key_marker).set_version_id_marker(id_marker);
        let page = request.send().await.map_err(miss)?;
        let versions = page.versions().iter().map(|v| (v.key(), v.version_id(), v.is_latest(), v.e_tag(), true));
        let markers = page.delete_markers().iter().map(|m| (m.key(), m.version_id(), m.is_latest(), None, false));
        for (key, id, is_latest, etag, is_object) in versions.chain(markers) {
            let (key, id) = (key.expect("a key").to_owned(), id.expect("a version id").to_owned());
            let place = places.entry((key.clone(), is_object)).or_default();
            let seen = Seen {
                place: *place,
                is_latest: is_latest.unwrap_or_default(),
                etag: etag.unwrap_or_default().into(),
                body: is_object.then(String::new),
                tags: None,
            };
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
