//! The roads one by one, over four drives in memory (2+2): what each promises its caller.
mod apply;
mod conditions;
mod debt;
mod delete;
mod lag;
mod lock;
mod tag;

use super::fixture::{Set, body};
use super::*;
use crate::record::Record;
use futures::TryStreamExt;

async fn store(versioning: Versioning) -> (Set, Objects) {
    let set = Set::new();
    let objects = set.start();
    objects.create_bucket("bucket", versioning).await.expect("four drives answer");
    (set, objects)
}

async fn put(objects: &Objects, bytes: &[u8]) -> Version {
    let written = objects.put("bucket", "k", Put::default(), body(bytes.to_vec())).await;
    written.expect("four drives answer").version
}

/// The bytes of the latest version, or of one by id.
async fn get(objects: &Objects, id: Option<VersionId>) -> Result<Vec<u8>, Error> {
    let opened = objects.open("bucket", "k", id).await?;
    let size_bytes = opened.version.birth.as_ref().expect("it is live").size_bytes;
    let read: Result<Vec<Bytes>, _> = opened.read(0..size_bytes).try_collect().await;
    match read {
        Ok(chunks) => Ok(chunks.concat()),
        Err(err) => Err(*err.into_inner().expect("a cause").downcast::<Error>().expect("one of ours")),
    }
}

async fn record(objects: &Objects) -> Record {
    let bucket = objects.bucket("bucket").await.expect("it was made");
    objects.0.read_latest(bucket.id, "k").await.expect("a read quorum").expect("it was written")
}
/// Waits until every drive holds the latest version of the key.
async fn until_all_hold_it(set: &Set, objects: &Objects) {
    let latest = record(objects).await;
    let everywhere = async {
        for drive in &set.drives {
            while drive
                .read_key(latest.bucket, "k")
                .await
                .expect("it answers")
                .held(latest.id(), latest.ballot)
                .is_none()
            {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), everywhere).await.expect("every drive has the record");
}
