//! What a peer may read of this site's versions before they have reached it: what a rule here sends it, and what it may
//! bring itself. Never a version that is deleted here. Called by `receive.rs`.
use crate::link::includes;
use crate::peer::frame::read::{Found, Read};
use crate::rule::allow::{Facts, may};
use crate::rule::{RuleSet, plan};
use crate::store::{Error, Store};
use bytes::BytesMut;
use futures::StreamExt;
use storage_engine::version::{Kind, Version};

/// Answers `peer`, whose certificate was proven.
pub async fn lend(store: &dyn Store, own_site: &str, rules: &RuleSet, peer: &str, read: Read) -> Found {
    match find(store, &read).await {
        // Whether it stands here is told only to who may read it.
        Ok(Some(version)) if !may_read(own_site, rules, peer, &read.bucket, &version) => {
            Found::Refused(format!("{peer} may not read this of bucket {}", read.bucket))
        }
        Ok(Some(version)) => bytes(store, &read, version).await.unwrap_or_else(unavailable),
        Ok(None) => Found::Nothing,
        Err(e) => unavailable(e),
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

fn may_read(own_site: &str, rules: &RuleSet, peer: &str, bucket: &str, version: &Version) -> bool {
    let Some(peer) = rules.peers.get(peer).filter(|p| !p.suspend) else { return false };
    let Some(site) = rules.sites.values().find(|s| s.site_id == own_site) else { return false };
    let is_sent = plan::links(rules, &site.name).values().any(|view| {
        let settings = view.settings();
        view.peer.name() == peer.name && view.rule.bucket == bucket && !settings.suspend && includes(&settings, version)
    });
    let birth = version.birth.as_ref().map(|b| b.order.origin.as_str());
    let origins: Vec<&str> = birth.into_iter().chain(version.tags.as_ref().map(|t| t.stamp.origin.as_str())).collect();
    // What this site wrote is no secret from a peer that may write the same keys.
    let origins: Vec<&str> = origins.into_iter().filter(|o| *o != own_site).collect();
    let facts =
        Facts { bucket, key: &version.key, origins: &origins, is_delete_marker: false, is_purge: false, relayed: true };
    is_sent || may(peer, &facts).is_ok()
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
