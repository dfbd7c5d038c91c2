//! Documents of a bucket that are kept as their owner wrote them: tags, CORS, lifecycle, policy.
//!
//! Each is one text under the bucket's id with the stamp of its writer; the last writer wins, whichever site it wrote
//! at, and "removed" is a writing like any other. A bucket that is made again has none. What a text means is the front
//! door's; nobody acts on it here.
use crate::object::document::{Content, Document as Held, RACES_MAX, is_race};
use crate::object::{Bucket, Error, Inner, Objects};
use crate::record::BucketId;
use crate::version::{Hlc, Order, Origin, Stamp};
use std::collections::BTreeMap;

/// Bytes of one document: a lifecycle of 1,000 rules stays below, and a record holds it.
pub const TEXT_BYTES_MAX: usize = 512 << 10;

/// Which document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Tags,
    Cors,
    Lifecycle,
    Policy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Tags, Kind::Cors, Kind::Lifecycle, Kind::Policy];

    /// Its name, in keys and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Tags => "tags",
            Kind::Cors => "cors",
            Kind::Lifecycle => "lifecycle",
            Kind::Policy => "policy",
        }
    }
    /// The kind of this name.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
    /// Whether it may go to another site: a policy never does, or a peer that is allowed one prefix rewrote it.
    pub fn travels(self) -> bool {
        self != Kind::Policy
    }
}

/// A document as somebody wrote it last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Document {
    pub kind: Kind,
    pub stamp: Stamp,
    /// `None`: removed.
    pub text: Option<String>,
}

impl Document {
    /// Whether this one is what remains of the two, by (HLC, site, text).
    fn beats(&self, other: &Document) -> bool {
        let rank = |d: &Document| (d.stamp.hlc, d.stamp.origin.clone(), d.text.clone());
        rank(self) > rank(other)
    }
}

/// Fields of a document.
const TEXT: &str = "text";
const HLC: &str = "hlc";
const ORIGIN: &str = "origin";

fn key(bucket: BucketId, kind: Kind) -> String {
    format!("bucket-document/{}/{}", bucket.0.as_simple(), kind.name())
}

impl Objects {
    /// The text of a document; `None`: there is none.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`].
    pub async fn bucket_document(&self, bucket: &str, kind: Kind) -> Result<Option<String>, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        Ok(self.0.held_document(&bucket, kind).await?.and_then(|(document, _)| document.text))
    }

    /// Every document of a bucket that was ever written, removed ones too.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::Unavailable`].
    pub async fn bucket_documents(&self, bucket: &str) -> Result<Vec<Document>, Error> {
        let bucket = self.0.bucket_doc(bucket).await?;
        let mut all = Vec::new();
        for kind in Kind::ALL {
            all.extend(self.0.held_document(&bucket, kind).await?.map(|(document, _)| document));
        }
        Ok(all)
    }

    /// Sets a document, or removes it (`None`).
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`]; [`Error::Invalid`] above [`TEXT_BYTES_MAX`]; [`Error::Unavailable`],
    /// [`Error::Full`]: too few drives; it may still take effect.
    pub async fn set_bucket_document(&self, bucket: &str, kind: Kind, text: Option<String>) -> Result<(), Error> {
        let write = |held: Option<&Document>| {
            let above = held.map_or(Hlc::ZERO, |held| held.stamp.hlc);
            let stamp = Stamp::new(self.0.clock.tick(above), self.0.origin.clone());
            Some(Document { kind, stamp, text: text.clone() })
        };
        self.0.change_document(bucket, kind, &write).await.map(|_| ())
    }

    /// Joins a document that was written elsewhere; whether it is what counts now.
    ///
    /// # Errors
    /// As [`Objects::set_bucket_document`].
    pub async fn join_bucket_document(&self, bucket: &str, document: Document) -> Result<bool, Error> {
        let write = |held: Option<&Document>| held.is_none_or(|held| document.beats(held)).then(|| document.clone());
        self.0.change_document(bucket, document.kind, &write).await
    }
}

impl Inner {
    async fn held_document(&self, bucket: &Bucket, kind: Kind) -> Result<Option<(Document, Order)>, Error> {
        let held = self.document(&key(bucket.id, kind)).await?;
        held.map(|held| read(kind, &held).map(|document| (document, held.order))).transpose()
    }

    /// Writes what `change` makes of the document as it stands; `None` leaves it. Whether it was written.
    async fn change_document(
        &self,
        name: &str,
        kind: Kind,
        change: &(dyn Fn(Option<&Document>) -> Option<Document> + Sync),
    ) -> Result<bool, Error> {
        let bucket = self.bucket_doc(name).await?;
        for _ in 0..RACES_MAX {
            let held = self.held_document(&bucket, kind).await?;
            let Some(document) = change(held.as_ref().map(|(document, _)| document)) else { return Ok(false) };
            if document.text.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
                let why = format!("the {} of a bucket has at most {TEXT_BYTES_MAX} bytes", kind.name());
                return Err(Error::Invalid(why));
            }
            let seen = held.map(|(_, order)| order);
            match self.swap_document(&key(bucket.id, kind), seen.as_ref(), Some(&write(&document))).await {
                Err(err) if is_race(&err) => {}
                Err(err) => return Err(err),
                Ok(_) => return self.confirm_bucket(&bucket).await.map(|()| true),
            }
        }
        Err(Error::Unavailable(format!("the {} of bucket {name} is changed all the time", kind.name())))
    }
}

fn write(document: &Document) -> Content {
    let stamp = &document.stamp;
    let mut fields = BTreeMap::from([
        (HLC.to_owned(), stamp.hlc.bits().to_string()),
        (ORIGIN.to_owned(), stamp.origin.as_str().to_owned()),
    ]);
    fields.extend(document.text.clone().map(|text| (TEXT.to_owned(), text)));
    Content { fields, ..Content::default() }
}

fn read(kind: Kind, held: &Held) -> Result<Document, Error> {
    let fields = &held.content.fields;
    let broken = |what: &str| Error::Corrupt(format!("document {} ({what})", held.key));
    let hlc = fields.get(HLC).and_then(|bits| bits.parse().ok()).ok_or_else(|| broken(HLC))?;
    let origin = fields.get(ORIGIN).ok_or_else(|| broken(ORIGIN))?;
    let stamp = Stamp::new(Hlc::from_bits(hlc), Origin::new(origin));
    Ok(Document { kind, stamp, text: fields.get(TEXT).cloned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Versioning;
    use crate::object::fixture::Set;

    fn written(at: u64, origin: &str, text: Option<&str>) -> Document {
        let stamp = Stamp::new(Hlc::from_millis(at), Origin::new(origin));
        Document { kind: Kind::Cors, stamp, text: text.map(str::to_owned) }
    }

    #[tokio::test]
    async fn the_last_writer_wins_wherever_it_wrote_and_removing_is_writing() {
        let set = Set::new();
        let objects = set.start();
        objects.create_bucket("abc", Versioning::Enabled).await.unwrap();
        let text = async || objects.bucket_document("abc", Kind::Cors).await.unwrap();
        let join = async |document| objects.join_bucket_document("abc", document).await.unwrap();
        assert_eq!(text().await, None);
        assert!(join(written(10, "b", Some("b10"))).await);
        assert!(!join(written(10, "b", Some("b10"))).await, "the same once more");
        assert!(!join(written(9, "c", Some("c9"))).await, "an older one");
        assert!(!join(written(10, "a", Some("a10"))).await, "as old, of a lesser site");
        assert_eq!(text().await.as_deref(), Some("b10"));
        assert!(join(written(11, "a", None)).await);
        assert_eq!(text().await, None);
        assert!(!join(written(10, "b", Some("b10"))).await, "what was removed stays removed");
        objects.set_bucket_document("abc", Kind::Cors, Some("here".into())).await.unwrap();
        assert!(!join(written(11, "z", Some("z11"))).await, "a local writing stands above what it has seen");
        assert_eq!(set.start().bucket_document("abc", Kind::Cors).await.unwrap().as_deref(), Some("here"));
        assert_eq!(objects.bucket_documents("abc").await.unwrap().len(), 1);
        let huge = Some("x".repeat(TEXT_BYTES_MAX + 1));
        assert!(matches!(objects.set_bucket_document("abc", Kind::Tags, huge).await, Err(Error::Invalid(_))));
    }

    #[tokio::test]
    async fn a_bucket_made_again_has_none_of_the_documents_of_the_first() {
        let objects = Set::new().start();
        objects.create_bucket("abc", Versioning::Enabled).await.unwrap();
        objects.set_bucket_document("abc", Kind::Policy, Some("{}".into())).await.unwrap();
        objects.delete_bucket("abc").await.unwrap();
        let gone = objects.set_bucket_document("abc", Kind::Policy, None).await;
        assert!(matches!(gone, Err(Error::NoSuchBucket(_))));
        objects.create_bucket("abc", Versioning::Enabled).await.unwrap();
        assert_eq!(objects.bucket_document("abc", Kind::Policy).await.unwrap(), None);
    }
}
