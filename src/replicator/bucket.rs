//! The two buckets of a link: looks every few seconds whether they fit each other, says what does not, and brings the
//! bucket's documents where the rule says so. And the other end of it: what a peer is told of a bucket here, and which of
//! its documents are taken.
//!
//! What holds a link back is told to its loop (`run.rs`), which sends nothing until it fits; nothing else stops. One
//! task a link, spawned by `replicator.rs`; dropping it halfway is safe.
use super::far::FarEnd;
use super::push::link_name;
use super::receive::{CLOCK_AHEAD_MS, Receive};
use super::report::ConditionReport;
use super::verify::Verify;
use crate::peer::Ack;
use crate::peer::client::Connection;
use crate::peer::frame::bucket::{BucketAsk, BucketState};
use crate::peer::frame::reconcile::Answer;
use crate::rule::allow::{Refusal, may_document};
use crate::store::{BucketInfo, Error};
use std::sync::Arc;
use std::time::Duration;
use storage_engine::bucket::document::Document;
use storage_engine::s3::check_document;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How often both buckets are looked at: a document is so long under way, and a mended bucket so long unseen.
const EVERY: Duration = Duration::from_secs(2);
/// When documents that were refused are brought again: a grant may have been given since.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);
/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one link's task works with.
pub struct Watcher {
    pub show: watch::Sender<Vec<ConditionReport>>,
}

/// What the peer was brought over this line, and why it did not take all of it.
struct Told {
    line: Arc<Connection>,
    documents: Vec<Document>,
    refused: Option<String>,
    at: Instant,
}

impl Watcher {
    /// Runs until it is dropped. `links` yields the link as the rule is now.
    pub async fn run(self, mut links: watch::Receiver<Arc<Verify>>) {
        let mut told: Option<Told> = None;
        loop {
            let link = links.borrow_and_update().clone();
            let mut line = link.line.clone();
            line.mark_unchanged();
            match self.look(&link, &mut told).await {
                Ok(Some(found)) => {
                    self.show.send_if_modified(|shown| {
                        let is_news = *shown != found;
                        if is_news {
                            *shown = found;
                        }
                        is_news
                    });
                }
                // What was seen last still holds: a peer that is down has no other bucket for that.
                Ok(None) => {}
                Err(why) => {
                    tracing::debug!(peer = link.peer, bucket = link.bucket, why, "A bucket cannot be looked at.")
                }
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = line.changed() => {}
                changed = links.changed() => if changed.is_err() { return },
            }
        }
    }

    /// `None`: there is nobody to ask, or the link is not pushed here.
    async fn look(&self, link: &Verify, told: &mut Option<Told>) -> Result<Option<Vec<ConditionReport>>, String> {
        let (route, line) = (link.route.borrow().clone(), link.line.borrow().clone());
        // A bucket at an S3 endpoint is looked at by its gate (`foreign/gate.rs`).
        let (Some(route), Some(FarEnd::Site(line))) = (route, line) else { return Ok(None) };
        let own = link.store.bucket(&link.bucket).await.map_err(|e| e.to_string())?;
        let documents = if link.documents { to_bring(link, &own) } else { Vec::new() };
        let is_known = told.as_ref().is_some_and(|t| {
            let stands = t.refused.is_none() || t.at.elapsed() < REFUSED_AGAIN;
            stands && Arc::ptr_eq(&t.line, &line) && t.documents == documents
        });
        let ask = BucketAsk {
            link: link_name(&route.id),
            epoch: route.lease.epoch,
            bucket: link.peer_bucket.clone(),
            documents: if is_known { Vec::new() } else { documents.clone() },
            relayed: link.settings.forward_all,
            unknown: Default::default(),
        };
        if !route.lease.is_held() {
            return Ok(None);
        }
        let answered = timeout(PATIENCE, line.ask_bucket(ask)).await.map_err(|_| "no answer".to_string())?;
        let there = match answered.map_err(|e| e.to_string())? {
            Answer::Bucket(there) => there,
            Answer::Refused(why) => return Ok(Some(vec![condition("RefusedByPeer", why, false)])),
            Answer::Unavailable(why) => return Err(why),
            _ => return Err("the peer's answer does not fit the question".into()),
        };
        if let (Some(there), false) = (&there, is_known) {
            *told = Some(Told { line, documents, refused: there.refused.clone(), at: Instant::now() });
        }
        let refused = told.as_ref().filter(|_| there.is_some()).and_then(|told| told.refused.clone());
        let mut found = judge(&own, there.as_ref(), link.settings.object_lock, &link.peer, &link.peer_bucket);
        found.extend(refused.map(|why| condition("DocumentsRefused", why, false)));
        Ok(Some(found))
    }
}

/// What the link brings: its own site's writings, or, relaying, all but the peer's own.
fn to_bring(link: &Verify, own: &BucketInfo) -> Vec<Document> {
    let settings = &link.settings;
    let is_ours = |d: &&Document| match settings.forward_all {
        true => d.stamp.origin != settings.peer_origin,
        false => d.stamp.origin == settings.own_origin,
    };
    own.documents.iter().filter(|d| d.kind.travels()).filter(is_ours).cloned().collect()
}

fn condition(reason: &str, message: String, holds: bool) -> ConditionReport {
    ConditionReport { reason: reason.into(), message, holds }
}

/// What does not fit between the two buckets. Pure.
fn judge(
    own: &BucketInfo,
    there: Option<&BucketState>,
    carries_lock: bool,
    peer: &str,
    bucket: &str,
) -> Vec<ConditionReport> {
    let Some(there) = there else {
        let message = format!("bucket {bucket} does not exist at {peer}; make it there, with versioning enabled");
        return vec![condition("BucketNotFound", message, true)];
    };
    let mut found = Vec::new();
    if !there.versioned {
        let message = format!("bucket {bucket} at {peer} is not versioned; enable versioning there");
        found.push(condition("VersioningDisabled", message, true));
    }
    if carries_lock && own.object_lock != there.object_lock {
        let word = |on: bool| if on { "has" } else { "lacks" };
        let message = format!(
            "bucket {} here {} object lock and bucket {bucket} at {peer} {} it; make them alike, or write replicate.objectLock: Disabled",
            own.name,
            word(own.object_lock),
            word(there.object_lock)
        );
        found.push(condition("ObjectLockMismatch", message, true));
    }
    found
}

/// What `peer` is told of a bucket here; documents it brings are joined as far as its grant goes.
pub(super) async fn answer(receive: &Receive, site: &str, peer: &str, ask: BucketAsk) -> Answer {
    let Some(doc) = receive.rules.borrow().rules.peers.get(peer).cloned() else {
        return Answer::Refused(format!("there is no Peer {peer} here any more"));
    };
    let doc = receive.drills.granting(doc, &ask.bucket);
    if doc.suspend {
        return Answer::Unavailable(Refusal::Suspended.to_string());
    }
    if !doc.inbound.iter().any(|grant| grant.bucket == ask.bucket) {
        return Answer::Refused(Refusal::Bucket { bucket: ask.bucket }.to_string());
    }
    if receive.drills.is_refused(peer, &ask.link, &ask.bucket) {
        return Answer::Unavailable("cut by a drill".into());
    }
    match receive.check_epoch(format!("{site}/{}", ask.link), ask.epoch).await {
        Ok(()) => {}
        Err(Ack::Retry { why, .. }) => return Answer::Unavailable(why.said),
        Err(_) => return Answer::Unavailable("a newer owner of the link was seen".into()),
    }
    let info = match receive.store.bucket(&ask.bucket).await {
        Ok(info) => info,
        Err(Error::NoSuchBucket(_)) => return Answer::Bucket(None),
        Err(e) => return Answer::Unavailable(e.to_string()),
    };
    let mut refused = None;
    for document in ask.documents {
        let origin = document.stamp.origin.as_str().to_owned();
        let ahead = document.stamp.hlc.millis().saturating_sub(receive.clock.now_millis());
        let allowed = may_document(&doc, &ask.bucket, document.kind.travels(), &origin, ask.relayed);
        let is_form = document.text.as_ref().map(|text| check_document(document.kind, text));
        let taken = match allowed {
            Err(refusal) => Err(refusal.to_string()),
            Ok(()) if ahead > CLOCK_AHEAD_MS => Err(format!("clock_ahead: stamped {ahead} ms ahead of this clock")),
            Ok(()) if let Some(Err(why)) = is_form => {
                Err(format!("{} of bucket {}, written at {origin}: {why}", document.kind.name(), ask.bucket))
            }
            Ok(()) => match receive.store.join_document(&ask.bucket, document).await {
                Ok(_) => Ok(()),
                Err(Error::Invalid(why)) => Err(why),
                Err(e) => return Answer::Unavailable(e.to_string()),
            },
        };
        if let Err(why) = taken {
            receive.count_refused(peer, &ask.bucket, "document", &why);
            refused = Some(why);
        }
    }
    Answer::Bucket(Some(BucketState { versioned: info.versioned, object_lock: info.object_lock, refused }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(own_lock: bool, there: Option<(bool, bool)>, carries_lock: bool) -> Vec<(String, bool)> {
        let own = BucketInfo { name: "logs".into(), versioned: true, object_lock: own_lock, ..BucketInfo::default() };
        let there = there.map(|(versioned, object_lock)| BucketState { versioned, object_lock, refused: None });
        let found = judge(&own, there.as_ref(), carries_lock, "ams", "logs-there");
        assert!(found.iter().all(|c| c.message.contains("ams") && c.message.contains("logs-there")), "{found:?}");
        found.into_iter().map(|c| (c.reason, c.holds)).collect()
    }

    #[test]
    fn every_misfit_has_its_reason_and_holds_the_link() {
        let held = |reason: &str| vec![(reason.to_string(), true)];
        assert_eq!(reasons(false, Some((true, false)), true), []);
        assert_eq!(reasons(true, Some((true, true)), true), []);
        assert_eq!(reasons(true, None, true), held("BucketNotFound"));
        assert_eq!(reasons(false, Some((false, false)), true), held("VersioningDisabled"));
        assert_eq!(reasons(true, Some((true, false)), true), held("ObjectLockMismatch"));
        assert_eq!(reasons(false, Some((true, true)), true), held("ObjectLockMismatch"));
        assert_eq!(reasons(true, Some((true, false)), false), [], "the rule carries no lock");
    }
}
