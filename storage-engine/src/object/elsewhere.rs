//! Reads of versions that are not here yet: found by the neighbour, shown only where this store does not know them to be
//! deleted. Writes nothing.
use super::{Error, Objects, Opened};
use crate::api::Neighbour;
use crate::record::Record;
use crate::version::{Kind, VersionId};
use std::sync::Arc;

impl Objects {
    /// From now on this neighbour is asked for what is not here; the first one stays.
    pub fn set_neighbour(&self, neighbour: Arc<dyn Neighbour>) {
        let _ = self.0.neighbour.set(neighbour);
    }

    /// As [`Objects::open`]; what this store does not hold and does not know to be deleted is opened at its neighbour,
    /// where it has one.
    ///
    /// # Errors
    /// As [`Objects::open`].
    pub async fn open_anywhere(&self, bucket: &str, key: &str, version: Option<VersionId>) -> Result<Opened, Error> {
        let missing = match self.open(bucket, key, version).await {
            Err(missing @ (Error::NoSuchKey | Error::NoSuchVersion)) => missing,
            opened => return opened,
        };
        let Some(neighbour) = self.0.neighbour.get() else { return Err(missing) };
        let Some(found) = neighbour.find(bucket, key, version).await else { return Err(missing) };
        let is_asked_for = found.version.key == key && version.is_none_or(|id| id == found.version.id);
        let is_object = found.version.birth.as_ref().is_some_and(|b| b.kind == Kind::Object);
        if !is_asked_for || !is_object || !found.version.is_live() {
            return Err(missing);
        }
        // Looked up behind the answer: what came here meanwhile counts.
        let held = self.stat(bucket, key, found.version.id).await?;
        if held.is_some_and(|held| !held.purges.is_empty()) {
            return Err(missing);
        }
        let bucket = self.0.bucket_doc(bucket).await?;
        Ok(Opened {
            version: found.version.clone(),
            is_latest: version.is_none(),
            versioned: true,
            record: Record::new(bucket.id, found.version.clone(), Default::default()),
            objects: self.clone(),
            elsewhere: Some(found),
        })
    }
}
