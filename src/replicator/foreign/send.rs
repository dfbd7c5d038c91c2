//! One version as requests: a delete marker, an object in one piece, or its parts where its writer cut them. An upload is
//! kept in the journal from its beginning to its end; after a cut only the parts that are not there go again. Uploads of
//! ours that nobody will finish are given up; others' are never touched.
use super::known::Known;
use super::{End, Failed, state};
use crate::journal::{Mapped, Upload};
use crate::link::Settings;
use crate::replicator::push::Route;
use crate::store;
use crate::store::s3;
use crate::store::s3::send::{Bytestream, Terms};
use crate::store::s3::upload::Parts;
use storage_engine::object::Body;
use storage_engine::version::{Birth, Kind, Version};

/// Sends a version and keeps its id there. What was purged here meanwhile is passed over: its purge follows.
pub(super) async fn version(
    end: &End,
    route: &Route,
    settings: &Settings,
    known: &mut Known<'_>,
    version: &Version,
) -> Result<(), Failed> {
    let birth = version.birth.as_ref().expect("only what was born is sent");
    known.allow()?;
    let remote_id = match birth.kind {
        Kind::DeleteMarker => end.target.mark(version).await?,
        Kind::Object => {
            let body = match body(route, version, birth).await {
                Ok(body) => body,
                Err(store::Error::NoSuchVersion | store::Error::NoSuchKey) => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            let terms = Terms { object_lock: settings.object_lock, now_millis: end.clock.now_millis() };
            // `-N` behind an ETag: it was made of N parts.
            match body {
                Some(body) if birth.etag.contains('-') => parts(end, known, version, birth, &terms, body).await?,
                body => end.target.put(version, birth, &terms, body).await?,
            }
        }
    };
    let (key, born) = (version.key.clone(), birth.order.hlc.bits());
    known.set(Mapped { key, version_id: version.id, remote_id, born, state: state(settings, version) }).await
}

/// The bytes, paid for as they are read; none for an empty object.
async fn body(route: &Route, version: &Version, birth: &Birth) -> Result<Option<Body>, store::Error> {
    if birth.size_bytes == 0 {
        return Ok(None);
    }
    let body = route.store.read_version(&route.bucket, &version.key, version.id).await?;
    Ok(Some(route.toll.pace(body)))
}

/// Goes on with the upload the journal knows, or begins one; returns the id of the object it becomes.
async fn parts(
    end: &End,
    known: &Known<'_>,
    version: &Version,
    birth: &Birth,
    terms: &Terms,
    body: Body,
) -> Result<String, Failed> {
    let kept = upload_of(end, version).await?;
    let begun = match &kept {
        Some(id) => end.target.parts_of(&version.key, id).await?.map(|parts| (id.clone(), parts)),
        None => None,
    };
    let (upload_id, there) = match begun {
        Some(begun) => begun,
        None => {
            let id = end.target.begin_upload(version, birth, terms).await?;
            let kept = end.journal.set_upload(&end.link, known.epoch(), (&version.key, version.id), Some(&id)).await;
            if let Err(e) = kept {
                // Nobody would know of it any more.
                let _ = end.target.abort_upload(&version.key, &id).await;
                return Err(e.into());
            }
            (id, Parts::new())
        }
    };
    let mut body = Bytestream::new(body);
    let mut sent = Parts::new();
    for part in &birth.parts {
        let is_there = there.get(&part.number).filter(|etag| **etag == part.etag);
        let etag = match is_there {
            Some(etag) => {
                body.skip(part.size_bytes).await?;
                etag.clone()
            }
            None => {
                known.allow()?;
                end.target.send_part(version, &upload_id, part, &mut body).await?
            }
        };
        sent.insert(part.number, etag);
    }
    known.allow()?;
    let remote_id = end.target.end_upload(version, &upload_id, &sent).await?;
    end.journal.set_upload(&end.link, known.epoch(), (&version.key, version.id), None).await?;
    Ok(remote_id)
}

async fn upload_of(end: &End, version: &Version) -> Result<Option<String>, Failed> {
    let uploads = end.journal.uploads(&end.link).await?;
    let is_it = |u: &Upload| u.version_id == version.id && u.key == version.key;
    Ok(uploads.into_iter().find(is_it).map(|u| u.upload_id))
}

/// A version that is gone needs no upload.
pub(super) async fn forget_upload(end: &End, known: &Known<'_>, version: &Version) -> Result<(), Failed> {
    if let Some(id) = upload_of(end, version).await? {
        known.allow()?;
        end.target.abort_upload(&version.key, &id).await?;
        end.journal.set_upload(&end.link, known.epoch(), (&version.key, version.id), None).await?;
    }
    Ok(())
}

/// Gives up the uploads of earlier lives whose version is there or gone; the others are gone on with when their turn
/// comes. Only what the journal knows is ours.
pub(super) async fn reap(end: &End, route: &Route) -> Result<(), Failed> {
    for Upload { key, version_id, upload_id } in end.journal.uploads(&end.link).await? {
        let version = route.store.stat(&route.bucket, &key, version_id).await?;
        let known = Known::load(end, route, &key).await?;
        let is_wanted = known.of(version_id).is_none() && version.is_some_and(|v| v.is_live());
        if !is_wanted {
            known.allow()?;
            end.target.abort_upload(&key, &upload_id).await?;
            end.journal.set_upload(&end.link, route.lease.epoch, (&key, version_id), None).await?;
        }
    }
    Ok(())
}

/// The link is gone for good, and with it whoever would finish them.
pub async fn give_up(end: &End, epoch: u64) -> Result<(), s3::Error> {
    let uploads = end.journal.uploads(&end.link).await.unwrap_or_default();
    for Upload { key, version_id, upload_id } in uploads {
        end.target.abort_upload(&key, &upload_id).await?;
        // Should the journal not take it, it forgets all of the link next.
        let _ = end.journal.set_upload(&end.link, epoch, (&key, version_id), None).await;
    }
    Ok(())
}
