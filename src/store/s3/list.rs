//! What a target holds: versions of a key or of a range of keys, and whose an object is. Changes nothing.
use super::dialect::Ask;
use super::error::of;
use super::identity::Identity;
use super::{Error, Target, With};
use storage_engine::version::{Version, VersionId};

/// Entries of a page, the most S3 gives.
const PAGE: i32 = 1000;

/// One version at a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub key: String,
    pub remote_id: String,
    pub is_marker: bool,
    pub etag: String,
    pub size_bytes: u64,
}

/// An object's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Whose it is; `None`: nobody of us put it there.
    pub identity: Option<Identity>,
    pub etag: String,
    pub size_bytes: u64,
}

/// A place in a list of versions.
type Place = (Option<String>, Option<String>);

impl Target {
    /// Every version of one key, newest first.
    ///
    /// # Errors
    /// Any [`Error`]: then nothing is known; a failed list is never an empty one.
    pub async fn versions_of(&self, key: &str) -> Result<Vec<Seen>, Error> {
        let mut all = Vec::new();
        let mut place: Place = (None, None);
        loop {
            let (page, next) = self.page(Some(key), place).await?;
            // Keys that only begin with it come behind it.
            let is_over = next.is_none() || page.last().is_some_and(|seen| seen.key != key);
            all.extend(page.into_iter().filter(|seen| seen.key == key));
            match next {
                Some(next) if !is_over => place = next,
                _ => return Ok(all),
            }
        }
    }

    /// Every version of keys after `after` up to and with `upto`, keys ascending, newest first within a key; above `most`
    /// `None`.
    ///
    /// # Errors
    /// As [`Target::versions_of`].
    pub async fn versions_in(
        &self,
        after: Option<&str>,
        upto: Option<&str>,
        prefix: &str,
        most: usize,
    ) -> Result<Option<Vec<Seen>>, Error> {
        let is_meant = |key: &str| after.is_none_or(|after| key > after) && upto.is_none_or(|upto| key <= upto);
        let mut all: Vec<Seen> = Vec::new();
        let mut place: Place = (after.map(str::to_string), None);
        loop {
            let (page, next) = self.page(Some(prefix), place).await?;
            let is_over = page.last().is_some_and(|last| upto.is_some_and(|upto| last.key.as_str() > upto));
            all.extend(page.into_iter().filter(|seen| is_meant(&seen.key)));
            if all.len() > most {
                return Ok(None);
            }
            match next {
                Some(next) if !is_over => place = next,
                _ => return Ok(Some(all)),
            }
        }
    }

    async fn page(&self, prefix: Option<&str>, (key, id): Place) -> Result<(Vec<Seen>, Option<Place>), Error> {
        let request = self.client.list_object_versions().bucket(&self.bucket).max_keys(PAGE);
        let request = request.set_prefix(prefix.filter(|p| !p.is_empty()).map(str::to_string));
        let request = request.set_key_marker(key).set_version_id_marker(id);
        let page = self.limited(0, async { request.send().await.map_err(of) }).await?;
        let versions = page.versions().iter().map(|v| Seen {
            key: v.key().unwrap_or_default().into(),
            remote_id: v.version_id().unwrap_or("null").into(),
            is_marker: false,
            etag: v.e_tag().unwrap_or_default().trim_matches('"').into(),
            size_bytes: v.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
        });
        let markers = page.delete_markers().iter().map(|m| Seen {
            key: m.key().unwrap_or_default().into(),
            remote_id: m.version_id().unwrap_or("null").into(),
            is_marker: true,
            etag: String::new(),
            size_bytes: 0,
        });
        // The SDK gives versions and markers apart: where they stand among each other, their times tell.
        let time = |at: Option<&aws_sdk_s3::primitives::DateTime>| at.map_or(0, |at| at.as_nanos());
        let versions = versions.zip(page.versions().iter().map(|v| (v.is_latest(), time(v.last_modified()))));
        let markers = markers.zip(page.delete_markers().iter().map(|m| (m.is_latest(), time(m.last_modified()))));
        let all = merge(versions.collect(), markers.collect());
        let next = (page.next_key_marker().map(str::to_string), page.next_version_id_marker().map(str::to_string));
        Ok((all, (page.is_truncated() == Some(true)).then_some(next)))
    }

    /// The head of one version; `None`: there is no such version, or it is a delete marker.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::NotFound`].
    pub async fn head(&self, key: &str, remote_id: &str) -> Result<Option<Head>, Error> {
        let extra = self.extra(Ask::Head, &Version::blank(key, VersionId::from_bytes([1; 16])));
        let request = self.client.head_object().bucket(&self.bucket).key(key).version_id(remote_id);
        let request = request.customize().with(extra);
        let head = match self.limited(0, async { request.send().await.map_err(of) }).await {
            Ok(head) => head,
            Err(Error::NotFound) => return Ok(None),
            // A delete marker by its id: 405, with no body that would name an error.
            Err(Error::Refused(said)) if said.starts_with("HTTP 405") => return Ok(None),
            // Nor has a 403 of HEAD a body: the request that follows tells which.
            Err(e) => return Err(e),
        };
        let metadata = head.metadata();
        Ok(Some(Head {
            identity: Identity::from_metadata(|name| metadata.and_then(|m| m.get(name).cloned())),
            etag: head.e_tag().unwrap_or_default().trim_matches('"').into(),
            size_bytes: head.content_length().and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
        }))
    }
}

/// An entry of a list, whether it is the latest of its key, and when it was made.
type Dated = (Seen, (Option<bool>, i128));

/// One list out of two, keys ascending and newest first within a key; each is so already.
fn merge(versions: Vec<Dated>, markers: Vec<Dated>) -> Vec<Seen> {
    let (mut versions, mut markers) = (versions.into_iter().peekable(), markers.into_iter().peekable());
    let mut all = Vec::new();
    loop {
        let is_version = match (versions.peek(), markers.peek()) {
            (None, None) => return all,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((v, (is_latest, v_time))), Some((m, (_, m_time)))) => match v.key.cmp(&m.key) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Greater => false,
                // S3's times are whole seconds: of the same second the object is taken for the older one, for deletes
                // follow writes, unless it is the latest.
                std::cmp::Ordering::Equal => *is_latest == Some(true) || v_time > m_time,
            },
        };
        let next = if is_version { versions.next() } else { markers.next() };
        all.extend(next.map(|(seen, _)| seen));
    }
}
