//! Makes a version be at a target: the bytes with all that travels with them, delete markers, ends of versions, and
//! what changes later: tags, retention, legal hold. Each function sends once and knows of no retry.
use super::dialect::Ask;
use super::error::of;
use super::identity::Identity;
use super::{Error, Target, With, encoded};
use aws_sdk_s3::primitives::{ByteStream, DateTime, SdkBody};
use aws_sdk_s3::types::{
    ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockRetention, ObjectLockRetentionMode, Tag, Tagging,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use http_body_util::StreamBody;
use hyper::body::Frame;
use std::collections::BTreeMap;
use storage_engine::object::Body;
use storage_engine::version::guard::Mode;
use storage_engine::version::{Birth, Guards, Version};

/// Bodies up to here are sent from memory, signed and with their MD5; larger ones flow through.
const BUFFER_MAX: u64 = 8 << 20;
/// Pieces of a flowing body between its reader and the socket.
const PIECES: usize = 4;

/// A body that is read piece by piece, cut where the caller wants.
pub struct Bytestream {
    body: Body,
    rest: Bytes,
}

impl Bytestream {
    /// From its first byte.
    pub fn new(body: Body) -> Self {
        Bytestream { body, rest: Bytes::new() }
    }

    /// The next piece of at most `most` bytes.
    async fn next(&mut self, most: u64) -> Result<Bytes, Error> {
        while self.rest.is_empty() {
            match self.body.next().await {
                Some(Ok(bytes)) => self.rest = bytes,
                Some(Err(e)) => return Err(Error::Body(e.to_string())),
                None => return Err(Error::Body("it ends before its size".into())),
            }
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.rest.len());
        Ok(self.rest.split_to(most))
    }

    /// Passes over bytes that are at the target already.
    pub async fn skip(&mut self, mut bytes: u64) -> Result<(), Error> {
        while bytes > 0 {
            bytes -= self.next(bytes).await?.len() as u64;
        }
        Ok(())
    }

    async fn collect(&mut self, bytes: u64) -> Result<Bytes, Error> {
        let mut all = BytesMut::with_capacity(usize::try_from(bytes).unwrap_or(0));
        while (all.len() as u64) < bytes {
            let left = bytes - all.len() as u64;
            all.extend_from_slice(&self.next(left).await?);
        }
        Ok(all.freeze())
    }

    /// Sends the next `bytes` with `send`, from memory or as they are read.
    pub(super) async fn feed<T>(
        &mut self,
        bytes: u64,
        send: impl AsyncFnOnce(ByteStream) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if bytes <= BUFFER_MAX {
            let body = self.collect(bytes).await?;
            return send(ByteStream::from(body)).await;
        }
        let (mut feed, pieces) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(PIECES);
        let body = ByteStream::new(SdkBody::from_body_1_x(StreamBody::new(pieces)));
        let reading = async {
            let mut left = bytes;
            while left > 0 {
                let piece = match self.next(left).await {
                    Ok(piece) => piece,
                    Err(e) => {
                        // An error ends the request: nothing of a body cut short may be believed there.
                        let _ = feed.send(Err(std::io::Error::other(e.to_string()))).await;
                        return Err(e);
                    }
                };
                left -= piece.len() as u64;
                if feed.send(Ok(Frame::data(piece))).await.is_err() {
                    // The request ended first; its answer says why.
                    return Ok(());
                }
            }
            drop(feed);
            Ok(())
        };
        let (sent, read) = futures::join!(send(body), reading);
        read.and(sent)
    }
}

impl Target {
    /// Puts an object in one request; returns its id there.
    ///
    /// # Errors
    /// Any [`Error`]; after [`Error::Unreachable`] and [`Error::Busy`] it may be there all the same.
    pub async fn put(
        &self,
        version: &Version,
        birth: &Birth,
        terms: &Terms,
        body: Option<Body>,
    ) -> Result<String, Error> {
        let mut extra = self.extra(Ask::Put, version);
        extra.headers.extend(self.told(version, birth, terms)?);
        // Those of the whole object: the target proves the bytes by them, and keeps them.
        let whole = birth.checksums.iter().filter(|(_, value)| !value.contains('-'));
        extra.headers.extend(whole.map(|(name, value)| (format!("x-amz-checksum-{name}"), value.clone())));
        let mut body = Bytestream::new(body.unwrap_or_else(|| futures::stream::empty().boxed()));
        let length = i64::try_from(birth.size_bytes).map_err(|_| Error::Refused("it is too large".into()))?;
        let request = self.client.put_object().bucket(&self.bucket).key(&version.key).content_length(length);
        let request = request.set_content_md5(content_md5(&birth.etag));
        let put = body.feed(birth.size_bytes, async |bytes| {
            let request = request.body(bytes).customize().with(extra);
            request.send().await.map_err(of)
        });
        match self.limited(birth.size_bytes, put).await {
            Ok(put) => Ok(put.version_id().unwrap_or("null").into()),
            // MinIO: this version is there, with this ETag.
            Err(Error::Refused(said)) if self.dialect.keeps_ids() && said.starts_with("HTTP 412") => {
                Ok(self.dialect.remote_id(version.id))
            }
            Err(e) => Err(e),
        }
    }

    /// Makes a delete marker; returns its id there.
    ///
    /// # Errors
    /// As [`Target::put`].
    pub async fn mark(&self, version: &Version) -> Result<String, Error> {
        let extra = self.extra(Ask::Marker, version);
        let request = self.client.delete_object().bucket(&self.bucket).key(&version.key).customize().with(extra);
        let made = self.limited(0, async { request.send().await.map_err(of) }).await?;
        match made.version_id() {
            Some(id) => Ok(id.into()),
            None if self.dialect.keeps_ids() => Ok(self.dialect.remote_id(version.id)),
            None => Err(Error::Refused("it made no delete marker with an id; is the bucket versioned?".into())),
        }
    }

    /// Ends one version by its id there; one that is not there is done.
    ///
    /// # Errors
    /// As [`Target::put`].
    pub async fn purge(&self, version: &Version, remote_id: &str) -> Result<(), Error> {
        let extra = self.extra(Ask::Purge, version);
        let request = self.client.delete_object().bucket(&self.bucket).key(&version.key).version_id(remote_id);
        let request = request.customize().with(extra);
        match self.limited(0, async { request.send().await.map_err(of) }).await {
            Ok(_) | Err(Error::NotFound) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The tags of a version.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn tags(&self, key: &str, remote_id: &str) -> Result<BTreeMap<String, String>, Error> {
        let request = self.client.get_object_tagging().bucket(&self.bucket).key(key).version_id(remote_id);
        let found = self.limited(0, async { request.send().await.map_err(of) }).await?;
        Ok(found.tag_set().iter().map(|tag| (tag.key().to_string(), tag.value().to_string())).collect())
    }

    /// Sets the tags of a version; none: removes them.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn set_tags(&self, key: &str, remote_id: &str, set: &BTreeMap<String, String>) -> Result<(), Error> {
        if set.is_empty() {
            let request = self.client.delete_object_tagging().bucket(&self.bucket).key(key).version_id(remote_id);
            return self.limited(0, async { request.send().await.map(drop).map_err(of) }).await;
        }
        let tag = |(name, value): (&String, &String)| Tag::builder().key(name).value(value).build();
        let tags: Result<Vec<Tag>, _> = set.iter().map(tag).collect();
        let tagging = tags.and_then(|tags| Tagging::builder().set_tag_set(Some(tags)).build());
        let tagging = tagging.map_err(|e| Error::Refused(e.to_string()))?;
        let request = self.client.put_object_tagging().bucket(&self.bucket).key(key).version_id(remote_id);
        self.limited(0, async { request.tagging(tagging).send().await.map(drop).map_err(of) }).await
    }

    /// Sets retention and legal hold of a version as they stand now; nothing where the bucket takes none.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn guard(&self, key: &str, remote_id: &str, guards: &Guards, now_millis: u64) -> Result<(), Error> {
        if !self.has_lock {
            return Ok(());
        }
        if let Some(kept) = guards.retention().filter(|kept| kept.until_millis > now_millis) {
            let mode = match kept.mode {
                Mode::Compliance => ObjectLockRetentionMode::Compliance,
                Mode::Governance => ObjectLockRetentionMode::Governance,
            };
            let retention =
                ObjectLockRetention::builder().mode(mode).retain_until_date(date(kept.until_millis)).build();
            let set = async |bypass: bool| {
                let request = self.client.put_object_retention().bucket(&self.bucket).key(key).version_id(remote_id);
                let request = request.set_bypass_governance_retention(bypass.then_some(true));
                let request = request.retention(retention.clone());
                self.limited(0, async { request.send().await.map_err(of) }).await
            };
            match set(false).await {
                // It may shorten what stands there: for that one needs a right.
                Err(Error::Refused(_)) => set(true).await?,
                other => other?,
            };
        }
        if guards.was_held() {
            let status = if guards.is_held() { ObjectLockLegalHoldStatus::On } else { ObjectLockLegalHoldStatus::Off };
            let hold = ObjectLockLegalHold::builder().status(status).build();
            let request = self.client.put_object_legal_hold().bucket(&self.bucket).key(key).version_id(remote_id);
            self.limited(0, async { request.legal_hold(hold).send().await.map_err(of) }).await?;
        }
        Ok(())
    }

    /// What an object is born with there, as headers.
    pub(super) fn told(&self, version: &Version, birth: &Birth, terms: &Terms) -> Result<Vec<(String, String)>, Error> {
        let mut headers: Vec<(String, String)> =
            birth.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        headers.extend(birth.metadata.iter().map(|(name, value)| (format!("x-amz-meta-{name}"), value.clone())));
        let identity = Identity::of(birth).to_metadata();
        headers.extend(identity.into_iter().map(|(name, value)| (format!("x-amz-meta-{name}"), value)));
        if let Some(tags) = version.tags.as_ref().filter(|tags| !tags.set.is_empty()) {
            let pairs: Vec<String> = tags.set.iter().map(|(k, v)| format!("{}={}", encoded(k), encoded(v))).collect();
            headers.push(("x-amz-tagging".into(), pairs.join("&")));
        }
        if self.has_lock && terms.object_lock {
            headers.extend(locked(&version.guards(), terms.now_millis));
        }
        let is_plain = |text: &str| text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'));
        match headers.iter().find(|(name, value)| !is_plain(value) || !is_plain(name)) {
            Some((name, _)) => Err(Error::Refused(format!("{name} holds characters that no HTTP header can"))),
            None => Ok(headers),
        }
    }
}

/// What a rule and the moment say of a put.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Retention and legal hold travel.
    pub object_lock: bool,
    pub now_millis: u64,
}

fn locked(guards: &Guards, now_millis: u64) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    // A date that has passed is refused, and protects nothing.
    if let Some(kept) = guards.retention().filter(|kept| kept.until_millis > now_millis) {
        headers.push(("x-amz-object-lock-mode".into(), kept.mode.name().to_string()));
        let until = date(kept.until_millis).fmt(aws_sdk_s3::primitives::DateTimeFormat::DateTime);
        headers.push(("x-amz-object-lock-retain-until-date".into(), until.unwrap_or_default()));
    }
    if guards.is_held() {
        headers.push(("x-amz-object-lock-legal-hold".into(), "ON".into()));
    }
    headers
}

fn date(millis: u64) -> DateTime {
    DateTime::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// The ETag of an object made in one piece is its MD5: the target proves the bytes by it.
pub(super) fn content_md5(etag: &str) -> Option<String> {
    let byte = |at: usize| u8::from_str_radix(etag.get(at..at + 2)?, 16).ok();
    let digest: Option<Vec<u8>> = (0..etag.len()).step_by(2).map(byte).collect();
    digest.filter(|digest| digest.len() == 16).map(|digest| STANDARD.encode(digest))
}
