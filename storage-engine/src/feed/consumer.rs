//! Registered consumers: a cursor, a floor, and what a consumer asks of its bucket.
//!
//! A consumer is a document of the store (`object/document.rs`), so it is as durable as an object and
//! changed by compare-and-set. This file never reads the feed; `serve` does.
use super::Cursor;
use super::cursor::Position;
use crate::drive::Lsn;
use crate::object::document::{Content, Document, RACES_MAX, is_race};
use crate::object::{Error, Inner, Objects};
use crate::record::BucketId;
use crate::version::Version;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::sync::PoisonError;

/// Longest name of a consumer, bytes of UTF-8: with its prefix it stays a key of usual length.
const NAME_BYTES_MAX: usize = 256;

/// A registered reader of one bucket's feed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Consumer {
    /// Name, unique in the bucket.
    pub name: String,
    /// Everything before it was read and recorded by the consumer; `None`: nothing yet.
    pub cursor: Option<Cursor>,
    /// Everything before it is durable at the consumer's end; nothing after it may be forgotten.
    pub floor: Option<Cursor>,
    /// The bucket's versioning must stay on.
    pub keeps_versioning: bool,
}

impl Objects {
    /// Registers a consumer and returns the floor it committed last, if it was registered before: where one that lost
    /// its own memory goes on.
    /// From here on nothing after its floor is forgotten.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Invalid`] for a name that is empty or too long,
    /// [`Error::Unavailable`]: it may be registered; call again.
    pub async fn register(
        &self,
        bucket: &str,
        consumer: &str,
        keeps_versioning: bool,
    ) -> Result<Option<Cursor>, Error> {
        if consumer.is_empty() || consumer.len() > NAME_BYTES_MAX {
            return Err(Error::Invalid(format!("a consumer's name has 1 to {NAME_BYTES_MAX} bytes")));
        }
        let change = |held: Option<Consumer>| {
            let held = held.unwrap_or_else(|| Consumer { name: consumer.to_owned(), ..Consumer::default() });
            Ok(Some(Consumer { keeps_versioning, ..held }))
        };
        let registered = self.0.change_consumer(self.bucket(bucket).await?.id, consumer, &change).await?;
        Ok(registered.and_then(|c| c.floor))
    }

    /// Commits how far a consumer read (`cursor`) and how far everything is durable at its end (`floor`).
    ///
    /// # Errors
    /// [`Error::Expired`] when either is not of this store, [`Error::Invalid`] when the consumer is not
    /// registered, [`Error::NoSuchBucket`], [`Error::Unavailable`]: it may be committed; call again.
    pub async fn commit(&self, bucket: &str, consumer: &str, cursor: &Cursor, floor: &Cursor) -> Result<(), Error> {
        let incarnations: Vec<_> = self.0.drives.iter().map(|d| d.incarnation()).collect();
        for given in [cursor, floor] {
            Position::resume(given, self.0.epoch, &incarnations).map_err(|_| Error::Expired)?;
        }
        let change = |held: Option<Consumer>| match held {
            Some(held) => Ok(Some(Consumer { cursor: Some(cursor.clone()), floor: Some(floor.clone()), ..held })),
            None => Err(Error::Invalid(format!("consumer {consumer} is not registered"))),
        };
        self.0.change_consumer(self.bucket(bucket).await?.id, consumer, &change).await.map(|_| ())
    }

    /// Forgets a consumer: what was kept for it alone is kept no longer. One that is not there is no error.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`]: call again.
    pub async fn deregister(&self, bucket: &str, consumer: &str) -> Result<(), Error> {
        let id = self.bucket(bucket).await?.id;
        self.0.change_consumer(id, consumer, &|_| Ok(None)).await.map(|_| ())
    }
}

/// What a change makes of a consumer; `None`: it is not, or shall not be, registered.
type Change<'a> = &'a (dyn Fn(Option<Consumer>) -> Result<Option<Consumer>, Error> + Sync);

impl Inner {
    /// The consumers of a bucket by name.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn consumers(&self, bucket: BucketId) -> Result<Vec<Consumer>, Error> {
        let documents = self.documents(&prefix(bucket)).await?;
        Ok(documents.iter().map(|d| from_document(bucket, d)).collect())
    }

    /// Whether some consumer asks that the versioning of the bucket stay on.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(crate) async fn versioning_is_kept(&self, bucket: BucketId) -> Result<bool, Error> {
        Ok(self.consumers(bucket).await?.iter().any(|c| c.keeps_versioning))
    }

    /// By slot: how far in the drive's log everything is durable at every consumer of the bucket that may
    /// lack something of the version `held`; beyond the end of all logs where there is none.
    ///
    /// A floor stands where the feed was last read, and a slow drive may log the change behind it: what
    /// was shown in just this state before the floor is at the consumer, wherever else it stands.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(crate) async fn passed(&self, bucket: BucketId, held: &Version) -> Result<Vec<Lsn>, Error> {
        let incarnations: Vec<_> = self.drives.iter().map(|d| d.incarnation()).collect();
        let mut passed = vec![Lsn::MAX; incarnations.len()];
        for consumer in self.consumers(bucket).await? {
            let floor = consumer.floor.and_then(|f| Position::resume(&f, self.epoch, &incarnations).ok());
            let sightings = self.sightings.lock().unwrap_or_else(PoisonError::into_inner);
            if floor.as_ref().is_some_and(|floor| sightings.is_past(bucket, held, floor)) {
                continue;
            }
            for (slot, passed) in passed.iter_mut().enumerate() {
                *passed = (*passed).min(floor.as_ref().map_or(0, |f| f.place(slot)));
            }
        }
        Ok(passed)
    }

    async fn change_consumer(
        &self,
        bucket: BucketId,
        name: &str,
        change: Change<'_>,
    ) -> Result<Option<Consumer>, Error> {
        let key = format!("{}{name}", prefix(bucket));
        for _ in 0..RACES_MAX {
            let held = self.document(&key).await?;
            let before = held.as_ref().map(|d| from_document(bucket, d));
            let after = change(before.clone())?;
            if after == before {
                return Ok(after);
            }
            let seen = held.map(|d| d.order);
            match self.swap_document(&key, seen.as_ref(), after.as_ref().map(to_content).as_ref()).await {
                Err(err) if is_race(&err) => {}
                written => return written.map(|_| after),
            }
        }
        Err(Error::Unavailable(format!("consumer {name} is being changed by others")))
    }
}

fn prefix(bucket: BucketId) -> String {
    format!("consumer/{}/", bucket.0.as_simple())
}

fn to_content(consumer: &Consumer) -> Content {
    let mut fields = BTreeMap::from([("keeps-versioning".to_owned(), consumer.keeps_versioning.to_string())]);
    let cursors = [("cursor", &consumer.cursor), ("floor", &consumer.floor)];
    fields.extend(cursors.iter().filter_map(|(name, c)| Some(((*name).to_owned(), STANDARD.encode(&c.as_ref()?.0)))));
    Content { fields, ..Content::default() }
}

fn from_document(bucket: BucketId, document: &Document) -> Consumer {
    let fields = &document.content.fields;
    // What does not decode counts as nothing read yet: the consumer gets all again, and loses nothing.
    let cursor = |name| STANDARD.decode(fields.get(name)?).ok().map(|bytes| Cursor(bytes.into()));
    Consumer {
        name: document.key.strip_prefix(&prefix(bucket)).unwrap_or(&document.key).to_owned(),
        cursor: cursor("cursor"),
        floor: cursor("floor"),
        keeps_versioning: fields.get("keeps-versioning").is_some_and(|v| v == "true"),
    }
}
