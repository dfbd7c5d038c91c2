//! Keys in order out of a read quorum of drives: what every list is made of.
//!
//! Merges R drives' sorted pages and settles each key as a read would. Fewer than R drives is an
//! error, never a shorter list. Knows nothing of delimiters, pages or S3.
use super::{Error, Inner, Objects};
use crate::drive::{self, Drive};
use crate::quorum::participant::KeyView;
use crate::record::{BucketId, Record};
use crate::version::Version;
use futures::stream::{FuturesUnordered, StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keys settled at once: enough to hide the latency of the few that need asking.
const SETTLES_AT_ONCE: usize = 16;

/// What one drive said: its slot, and keys with what it holds of each.
type Pages = Vec<(usize, Vec<(String, KeyView)>)>;

/// A stretch of keys.
pub(crate) struct Scan {
    /// Keys ascending, each with its decided records, newest first, purged and unborn ones included.
    pub(crate) keys: Vec<(String, Vec<Record>)>,
    /// Everything up to this key is told; `None`: everything there is.
    pub(crate) through: Option<String>,
}

/// All that is held of a stretch of keys, tombstones and what came before its birth included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stretch {
    /// Keys ascending; within a key in no order to rely on.
    pub versions: Vec<Version>,
    /// Everything up to this key is told; `None`: everything there is.
    pub through: Option<String>,
}

impl Objects {
    /// What is held of about `limit` keys with `prefix` after `after`, whole keys only.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`]: never a shorter stretch instead.
    pub async fn stretch(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Stretch, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        let scan = self.0.scan(bucket.id, prefix, after, limit.max(1)).await?;
        let records = scan.keys.into_iter().flat_map(|(_, records)| records);
        Ok(Stretch { versions: records.map(|r| r.version).collect(), through: scan.through })
    }
}

impl Inner {
    /// Keys with `prefix` after `after`, about `limit` of them: fewer where drives differ, never none
    /// while there are more.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when fewer than a read quorum of drives answer.
    pub(crate) async fn scan(
        &self,
        bucket: BucketId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Scan, Error> {
        let pages = self.pages(bucket, prefix, after, limit).await?;
        let (views, through) = merge(pages, limit);
        let settling = views.into_iter().map(|(key, views)| self.settle_key(bucket, key, views));
        let keys = futures::stream::iter(settling.collect::<Vec<_>>()).buffered(SETTLES_AT_ONCE).try_collect().await?;
        Ok(Scan { keys, through })
    }

    async fn settle_key(
        &self,
        bucket: BucketId,
        key: String,
        views: Vec<(usize, KeyView)>,
    ) -> Result<(String, Vec<Record>), Error> {
        let records = self.settle(bucket, &key, views).await?;
        Ok((key, records))
    }

    /// The pages of the first R drives that answer.
    async fn pages(&self, bucket: BucketId, prefix: &str, after: Option<&str>, limit: usize) -> Result<Pages, Error> {
        let wanted = self.quorum.read();
        let mut spare = self.drives.iter();
        let mut asked: FuturesUnordered<_> =
            spare.by_ref().take(wanted).map(|d| page(d.clone(), bucket, prefix, after, limit)).collect();
        let (mut pages, mut last_error) = (Vec::new(), None);
        while let Some((slot, answer)) = asked.next().await {
            match answer {
                Ok(page) => pages.push((slot, page)),
                Err(err) => {
                    last_error = Some(err);
                    asked.extend(spare.next().map(|d| page(d.clone(), bucket, prefix, after, limit)));
                }
            }
        }
        if pages.len() == wanted {
            return Ok(pages);
        }
        let why = last_error.map(|e| e.to_string()).unwrap_or_default();
        Err(Error::Unavailable(format!("{} of {wanted} drives for a list: {why}", pages.len())))
    }
}

async fn page(
    drive: Arc<dyn Drive>,
    bucket: BucketId,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> (usize, Result<Vec<(String, KeyView)>, drive::Error>) {
    (drive.slot(), drive.scan(bucket, prefix, after, limit).await)
}

/// Merges pages of at most `limit` keys: each key with every drive's view, and how far the merge goes.
///
/// A full page says nothing of keys behind its last one, so the merge ends at the least of those.
fn merge(pages: Pages, limit: usize) -> (Vec<(String, Vec<(usize, KeyView)>)>, Option<String>) {
    let full = pages.iter().filter(|(_, page)| page.len() >= limit);
    let through = full.filter_map(|(_, page)| page.last()).map(|(key, _)| key.clone()).min();
    let slots: Vec<usize> = pages.iter().map(|(slot, _)| *slot).collect();
    let mut keys: BTreeMap<String, BTreeMap<usize, KeyView>> = BTreeMap::new();
    for (slot, page) in pages {
        for (key, view) in page {
            if through.as_ref().is_none_or(|through| key <= *through) {
                keys.entry(key).or_default().insert(slot, view);
            }
        }
    }
    let told = |mut views: BTreeMap<usize, KeyView>| {
        slots.iter().map(|slot| (*slot, views.remove(slot).unwrap_or_default())).collect::<Vec<_>>()
    };
    (keys.into_iter().map(|(key, views)| (key, told(views))).collect(), through)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: &[&str]) -> Vec<(String, KeyView)> {
        keys.iter().map(|k| (k.to_string(), KeyView::default())).collect()
    }

    #[test]
    fn a_full_page_hides_what_lies_behind_it_on_other_drives() {
        let (keys, through) = merge(vec![(0, page(&["a", "b"])), (3, page(&["a", "d"]))], 2);
        assert_eq!(keys.iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(through.as_deref(), Some("b"));
        assert!(
            keys.iter().all(|(_, views)| views.iter().map(|(s, _)| *s).eq([0, 3])),
            "each key has each drive's view"
        );
    }

    #[test]
    fn short_pages_reach_the_end() {
        let (keys, through) = merge(vec![(0, page(&["a"])), (1, page(&["b", "c"])), (2, page(&[]))], 4);
        assert_eq!(keys.len(), 3);
        assert_eq!(through, None);
    }
}
