//! One side's items of a range of keys, read from its own store in key order, a stretch at a time.
//!
//! Both ends of a reconciliation read with it. A store that cannot be read ends the walk with its error:
//! what was not read is never taken for absent.
use crate::link::reconcile::{Item, KeyRange};
use crate::store::{Error, Store};
use std::collections::VecDeque;
use std::sync::Arc;
use storage_engine::version::{Version, VersionId};

/// Keys read from the store at once: long enough that asking costs little, short enough to be held.
const STRETCH_KEYS: usize = 1000;

/// A version as it is compared, on the side that reads; `None`: it is not compared, or may not be told of.
pub type Project = Arc<dyn Fn(&Version) -> Option<Item> + Send + Sync>;

/// Reads items upward. Ranges are taken in ascending order; one that lies behind is found empty.
pub struct Walk {
    store: Arc<dyn Store>,
    bucket: String,
    prefix: String,
    project: Project,
    /// Read and not yet taken, ascending by key and id.
    ready: VecDeque<Item>,
    /// Everything up to this key was read.
    through: Option<String>,
    is_over: bool,
}

impl Walk {
    /// A walk from the first key with `prefix` on.
    pub fn new(store: Arc<dyn Store>, bucket: &str, prefix: &str, project: Project) -> Self {
        let (ready, through) = (VecDeque::new(), None);
        Walk { store, bucket: bucket.into(), prefix: prefix.into(), project, ready, through, is_over: false }
    }

    /// Passes over everything up to `after`, reading none of it that was not read.
    pub fn seek(&mut self, after: Option<&str>) {
        let Some(after) = after else { return };
        while self.ready.pop_front_if(|item| item.key.as_str() <= after).is_some() {}
        let prefix = self.prefix.as_str();
        // No key with the prefix lies behind it.
        self.is_over |= self.ready.is_empty() && after > prefix && !after.starts_with(prefix);
        if self.ready.is_empty() && self.through.as_deref().is_none_or(|through| through < after) {
            self.through = Some(after.into());
        }
    }

    /// The next item of the range; `None`: it has no more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn next(&mut self, range: &KeyRange) -> Result<Option<Item>, Error> {
        while self.ready.is_empty() && !self.is_over && !self.is_behind(range) {
            self.read().await?;
        }
        Ok(self.ready.pop_front_if(|item| range.contains(&item.key)))
    }

    /// Takes what is left of one key, behind `id`; the walk goes on behind the key.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rest_of(&mut self, key: &str, id: VersionId) -> Result<Vec<Item>, Error> {
        let stretch = self.store.stretch(&self.bucket, key, None, 1).await?;
        let mut items = self.project(stretch.versions.into_iter().filter(|v| v.key == key).collect()).await;
        items.retain(|item| item.version_id > id);
        self.seek(Some(key));
        Ok(items)
    }

    /// Whether everything of the range was read.
    fn is_behind(&self, range: &KeyRange) -> bool {
        matches!((&self.through, &range.upto), (Some(through), Some(upto)) if through >= upto)
    }

    async fn read(&mut self) -> Result<(), Error> {
        let stretch = self.store.stretch(&self.bucket, &self.prefix, self.through.as_deref(), STRETCH_KEYS).await?;
        self.is_over = stretch.through.is_none();
        self.through = stretch.through.or(self.through.take());
        self.ready = self.project(stretch.versions).await.into();
        Ok(())
    }

    /// Hashes, off the async threads: a stretch of keys may hold any number of versions.
    async fn project(&self, versions: Vec<Version>) -> Vec<Item> {
        let project = self.project.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            let mut items: Vec<_> = versions.iter().filter_map(|version| project(version)).collect();
            items.sort();
            items
        });
        hashed.await.expect("projecting does not panic, and nothing aborts it")
    }
}
