//! Buckets: documents of the store, changed by compare-and-set and read on every request.
//!
//! Owns what a bucket is and its whole life; never looks into one except to see whether it is empty.
//! A bucket that is deleted and made again has another id, and nothing of the first shows in it.
//!
//! **Deleting** is three steps without a lock: mark the document, list, replace the marked document by
//! a delete marker. Whoever commits a version asks [`Inner::confirm_bucket`] before it acks; that lifts
//! a mark it meets, and then the third step fails. So either the list saw the version, or the bucket
//! stays, or the version was never acked. A crash leaves at most a mark, which hinders nobody.
mod cache;
pub mod document;
pub mod lock;
pub mod name;
#[cfg(test)]
mod tests;

pub(crate) use cache::Cache;

use crate::entropy;
use crate::object::document::{Content, Document, RACES_MAX, is_race};
use crate::object::{Bucket, Error, Inner, List, Objects, Versioning};
use crate::record::BucketId;
use crate::version::Order;
use lock::Lock;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A bucket's document as it stands.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) bucket: Bucket,
    /// Which writing of the document this is.
    pub(crate) order: Order,
    /// Somebody has begun to delete it.
    pub(crate) is_marked: bool,
}

impl Objects {
    /// Makes a bucket.
    ///
    /// # Errors
    /// [`Error::InvalidBucketName`], [`Error::BucketExists`], [`Error::Unavailable`] (it may exist later).
    pub async fn create_bucket(&self, name: &str, versioning: Versioning) -> Result<Bucket, Error> {
        self.make_bucket(name, versioning, None).await
    }

    /// Makes a bucket with versioning and object lock on.
    ///
    /// # Errors
    /// As [`Objects::create_bucket`].
    pub async fn create_locked_bucket(&self, name: &str) -> Result<Bucket, Error> {
        self.make_bucket(name, Versioning::Enabled, Some(Lock::default())).await
    }

    async fn make_bucket(&self, name: &str, versioning: Versioning, lock: Option<Lock>) -> Result<Bucket, Error> {
        name::check(name)?;
        let created_millis = self.0.clock.now_millis();
        let id = BucketId(entropy::id());
        let bucket = Bucket { id, name: name.to_owned(), versioning, lock, created_millis };
        match self.0.swap_bucket(name, None, Some(&to_content(&bucket, false))).await {
            Err(err) if is_race(&err) => Err(Error::BucketExists),
            written => written.map(|_| bucket),
        }
    }

    /// Deletes a bucket without versions. Uploads in progress vanish with it.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`]; [`Error::BucketNotEmpty`] while any version or delete marker is live;
    /// [`Error::Conflict`] when somebody wrote or changed it meanwhile: try again.
    pub async fn delete_bucket(&self, name: &str) -> Result<(), Error> {
        let held = self.0.held_bucket(name).await?;
        let busy = |err: Error| match err {
            err if is_race(&err) => Error::Conflict(format!("bucket {name} is being changed")),
            err => err,
        };
        let marked = to_content(&held.bucket, true);
        let mark = self.0.swap_bucket(name, Some(&held.order), Some(&marked)).await.map_err(busy)?;
        let any = List { limit: 1, versions: true, ..List::default() };
        if !self.0.list_versions(held.bucket.id, any).await?.entries.is_empty() {
            // Whoever lifted the mark first did this for us.
            match self.0.swap_bucket(name, Some(&mark), Some(&to_content(&held.bucket, false))).await {
                Err(err) if !is_race(&err) => return Err(err),
                _ => return Err(Error::BucketNotEmpty),
            }
        }
        self.0.swap_bucket(name, Some(&mark), None).await.map(|_| ()).map_err(busy)
    }

    /// A bucket by its name.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`].
    pub async fn bucket(&self, name: &str) -> Result<Bucket, Error> {
        self.0.bucket_doc(name).await
    }

    /// All buckets, by name.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; never a shorter list.
    pub async fn buckets(&self) -> Result<Vec<Bucket>, Error> {
        let documents = self.0.documents(PREFIX).await?;
        documents.iter().map(|d| from_document(d).map(|held| held.bucket)).collect()
    }

    /// Turns versioning on, or suspends it.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is to be suspended while a registered consumer or object lock needs it;
    /// [`Error::Invalid`] for the way back to [`Versioning::Unversioned`], which S3 does not have.
    pub async fn set_versioning(&self, name: &str, versioning: Versioning) -> Result<(), Error> {
        let bucket = self.0.bucket_doc(name).await?;
        if versioning != Versioning::Enabled && self.0.versioning_is_kept(bucket.id).await? {
            return Err(Error::Conflict(format!("replication needs the versioning of bucket {name}")));
        }
        self.0
            .change_bucket(name, |bucket| {
                if versioning == Versioning::Unversioned && bucket.versioning != Versioning::Unversioned {
                    return Err(Error::Invalid("versioning can be suspended, not removed".into()));
                }
                if versioning != Versioning::Enabled && bucket.lock.is_some() {
                    return Err(Error::Conflict(format!("object lock needs the versioning of bucket {}", bucket.name)));
                }
                bucket.versioning = versioning;
                Ok(())
            })
            .await
    }
}

impl Inner {
    /// The bucket as its document says, out of the cache where it is there.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`].
    pub(crate) async fn bucket_doc(&self, name: &str) -> Result<Bucket, Error> {
        self.held_bucket(name).await.map(|held| held.bucket)
    }

    /// Says that a version just committed to `bucket` may be acked: the bucket is still there, and whoever
    /// is deleting it will see the version.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`]: the bucket went away meanwhile, and the version with it.
    pub(crate) async fn confirm_bucket(&self, bucket: &Bucket) -> Result<(), Error> {
        for _ in 0..RACES_MAX {
            let held = self.held_bucket(&bucket.name).await?;
            if held.bucket.id != bucket.id {
                return Err(Error::NoSuchBucket(bucket.name.clone()));
            }
            if !held.is_marked {
                return Ok(());
            }
            match self.swap_bucket(&bucket.name, Some(&held.order), Some(&to_content(&held.bucket, false))).await {
                Err(err) if is_race(&err) => {}
                lifted => return lifted.map(|_| ()),
            }
        }
        Err(Error::Unavailable(format!("bucket {} is changed all the time", bucket.name)))
    }

    async fn held_bucket(&self, name: &str) -> Result<Held, Error> {
        let generation = match self.buckets.get(name) {
            Ok(held) => return Ok(held),
            Err(generation) => generation,
        };
        let absent = || Error::NoSuchBucket(name.to_owned());
        // A name that no bucket can have must not become a key.
        name::check(name).map_err(|_| absent())?;
        let document = self.document(&document_key(name)).await?.ok_or_else(absent)?;
        let held = from_document(&document)?;
        self.buckets.learn(generation, &held);
        Ok(held)
    }

    /// Compare-and-set on a bucket's document; the cache forgets it before anybody hears of the change.
    async fn swap_bucket(&self, name: &str, seen: Option<&Order>, content: Option<&Content>) -> Result<Order, Error> {
        let change = self.buckets.change(name);
        let swapped = self.swap_document(&document_key(name), seen, content).await;
        if swapped.as_ref().map_or_else(is_race, |_| true) {
            change.end();
        }
        swapped
    }

    pub(crate) async fn change_bucket(
        &self,
        name: &str,
        change: impl Fn(&mut Bucket) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        for _ in 0..RACES_MAX {
            let mut held = self.held_bucket(name).await?;
            change(&mut held.bucket)?;
            match self.swap_bucket(name, Some(&held.order), Some(&to_content(&held.bucket, false))).await {
                Err(err) if is_race(&err) => {}
                swapped => return swapped.map(|_| ()),
            }
        }
        Err(Error::Unavailable(format!("bucket {name} is changed all the time")))
    }
}

const PREFIX: &str = "bucket/";
/// Fields of the document.
const ID: &str = "id";
const VERSIONING: &str = "versioning";
const CREATED: &str = "created_millis";
const MARKED: &str = "marked";

fn document_key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn to_content(bucket: &Bucket, is_marked: bool) -> Content {
    let versioning = match bucket.versioning {
        Versioning::Unversioned => "unversioned",
        Versioning::Enabled => "enabled",
        Versioning::Suspended => "suspended",
    };
    let mut fields = BTreeMap::from([
        (ID.to_owned(), bucket.id.0.to_string()),
        (VERSIONING.to_owned(), versioning.to_owned()),
        (CREATED.to_owned(), bucket.created_millis.to_string()),
    ]);
    if is_marked {
        fields.insert(MARKED.to_owned(), String::new());
    }
    lock::put_fields(bucket.lock, &mut fields);
    Content { fields, ..Content::default() }
}

fn from_document(document: &Document) -> Result<Held, Error> {
    let fields = &document.content.fields;
    let broken = |what: &str| Error::Corrupt(format!("document {} ({what})", document.key));
    let field = |name: &'static str| fields.get(name).ok_or_else(|| broken(name));
    let versioning = match field(VERSIONING)?.as_str() {
        "unversioned" => Versioning::Unversioned,
        "enabled" => Versioning::Enabled,
        "suspended" => Versioning::Suspended,
        _ => return Err(broken(VERSIONING)),
    };
    let bucket = Bucket {
        id: BucketId(Uuid::try_parse(field(ID)?).map_err(|_| broken(ID))?),
        name: document.key.strip_prefix(PREFIX).ok_or_else(|| broken("key"))?.to_owned(),
        versioning,
        lock: lock::from_fields(fields).map_err(broken)?,
        created_millis: field(CREATED)?.parse().map_err(|_| broken(CREATED))?,
    };
    Ok(Held { bucket, order: document.order.clone(), is_marked: fields.contains_key(MARKED) })
}
