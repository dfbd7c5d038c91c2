//! What a peer may read of this site's versions before they have reached it: what a rule here sends it, and what it may
//! bring itself. Never a version that is deleted here. Called by `receive.rs`.
use crate::link::{Settings, includes};
use crate::peer::frame::read::{Found, Read};
use crate::rule::allow::{Facts, may};
use crate::rule::{PeerDoc, RuleSet, plan};
use crate::store::{Error, Store};
use bytes::BytesMut;
use futures::StreamExt;
use storage_engine::version::{Kind, Version};

/// Answers `peer`, whose certificate was proven. What it may not read it is not told of: the answer is the same as if
/// there were nothing.
pub async fn lend(store: &dyn Store, reader: Option<Reader>, peer: &str, read: Read) -> Found {
    let Some(reader) = reader.filter(|reader| reader.may_ask(&read.bucket, &read.key)) else {
        return Found::Refused(format!("{peer} may read nothing there of bucket {}", read.bucket));
    };
    match find(store, &read).await {
        Ok(Some(version)) if reader.may_read(&read.bucket, &version) => {
            bytes(store, &read, version).await.unwrap_or_else(unavailable)
        }
        Ok(_) => Found::Nothing,
        Err(e) => unavailable(e),
    }
}

/// Who asks, and what is sent to it.
pub struct Reader {
    own_site: String,
    peer: PeerDoc,
    /// Buckets here, and what of them travels there.
    sent: Vec<(String, Settings)>,
}

impl Reader {
    /// `None`: this site does not know it, or has suspended it.
    pub fn of(own_site: &str, rules: &RuleSet, peer: &str) -> Option<Reader> {
        let peer = rules.peers.get(peer).filter(|p| !p.suspend)?;
        let site = rules.sites.values().find(|s| s.site_id == own_site)?;
        let of_peer = plan::links(rules, &site.name).into_values().filter(|view| view.peer.name() == peer.name);
        let settings = of_peer.map(|view| (view.rule.bucket.clone(), view.settings()));
        let sent = settings.filter(|(_, settings)| !settings.suspend).collect();
        Some(Reader { own_site: own_site.into(), peer: peer.clone(), sent })
    }

    /// Whether it may know of any version of the key.
    fn may_ask(&self, bucket: &str, key: &str) -> bool {
        let is_sent = |(of, settings): &(String, Settings)| of == bucket && key.starts_with(&settings.prefix);
        self.sent.iter().any(is_sent) || self.may_bring(bucket, key, &[])
    }

    fn may_read(&self, bucket: &str, version: &Version) -> bool {
        let birth = version.birth.as_ref().map(|b| b.order.origin.as_str());
        let tags = version.tags.as_ref().map(|t| t.stamp.origin.as_str());
        // What this site wrote is no secret from a peer that may write the same keys.
        let origins: Vec<&str> = birth.into_iter().chain(tags).filter(|o| *o != self.own_site).collect();
        self.sent.iter().any(|(of, settings)| of == bucket && includes(settings, version))
            || self.may_bring(bucket, &version.key, &origins)
    }

    fn may_bring(&self, bucket: &str, key: &str, origins: &[&str]) -> bool {
        may(&self.peer, &Facts { bucket, key, origins, is_delete_marker: false, is_purge: false, relayed: true })
            .is_ok()
    }
}

fn unavailable(e: Error) -> Found {
    match e {
        Error::NoSuchBucket(_) | Error::NoSuchKey | Error::NoSuchVersion => Found::Nothing,
        e => Found::Unavailable(e.to_string()),
    }
}

/// The object asked for, where S3 would show it here.
async fn find(store: &dyn Store, read: &Read) -> Result<Option<Version>, Error> {
    let found = match read.version_id {
        Some(id) => store.stat(&read.bucket, &read.key, id).await?,
        None => store.versions_of(&read.bucket, &read.key).await?.into_iter().next(),
    };
    let is_object = |v: &Version| v.is_live() && v.birth.as_ref().is_some_and(|b| b.kind == Kind::Object);
    Ok(found.filter(is_object))
}

async fn bytes(store: &dyn Store, read: &Read, version: Version) -> Result<Found, Error> {
    let size = version.birth.as_ref().map_or(0, |b| b.size_bytes);
    let end = read.offset.saturating_add(read.bytes.into()).min(size);
    let mut bytes = BytesMut::new();
    if read.offset < end {
        let ranges = store.pieces().ok_or_else(|| Error::Unavailable("this store reads no ranges".into()))?;
        let mut body = ranges.read_range(&read.bucket, &read.key, version.id, read.offset..end).await?;
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(Error::Body)?);
        }
    }
    Ok(Found::Version { version: Box::new(version), bytes: bytes.freeze() })
}
