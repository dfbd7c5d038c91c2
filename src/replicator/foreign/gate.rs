//! Whether a link to a bucket at an S3 endpoint may send: finds the bucket fit and its dialect, probes it from then on, and
//! closes when it is not there or not fit any more, with the condition that says why. One a link, so that what is wrong
//! with one bucket stops nothing else. Spawned by `replicator.rs`; dropping it at any time is safe.
use super::End;
use crate::journal::{Journal, LinkId};
use crate::replicator::far::FarEnd;
use crate::replicator::report::ConditionReport;
use crate::rule::plan::LinkView;
use crate::rule::refs::{CREDENTIALS, Refs};
use crate::rule::{Dialect as Wanted, FarDoc, FileRef, ForeignDoc};
use crate::store::s3::probe::{self, Canary};
use crate::store::s3::{Dialect, Endpoint, Error, Keys};
use crate::store::{self, Store};
use std::sync::Arc;
use std::time::Duration;
use storage_engine::clock::Clock;
use storage_engine::version::VersionId;
use tokio::sync::watch;
use tokio::time::Instant;

/// Pause before an endpoint that could not be reached is tried again: one that returns is used within seconds.
const PAUSE: Duration = Duration::from_secs(3);
/// Pause before credentials that were refused are shown again, unless their files change: many servers shut out an access
/// key that comes with wrong signatures, and its rightful user with it.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// Finding out takes several requests.
const REQUESTS: u32 = 12;

/// What keeps a link's way to its bucket.
pub struct Gate {
    pub store: Arc<dyn Store>,
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
    pub refs: Refs,
    /// The link as its rule is now.
    pub view: watch::Receiver<LinkView>,
    pub far: watch::Sender<Option<FarEnd>>,
    pub trouble: watch::Sender<Option<String>>,
    /// What a person must mend.
    pub unfit: watch::Sender<Vec<ConditionReport>>,
}

/// What a gate opens by; it is opened anew when any of it changes.
#[derive(Clone, PartialEq)]
struct Key {
    doc: ForeignDoc,
    endpoint: Endpoint,
    bucket: String,
    prefix: String,
    link: LinkId,
}

/// What is wrong with the target, where it is not only away.
fn condition(trouble: &Error) -> Option<ConditionReport> {
    let Error::Unfit { reason, message } = trouble else { return None };
    Some(ConditionReport { reason: (*reason).into(), message: message.clone(), holds: true })
}

impl Gate {
    /// Runs until it is dropped.
    pub async fn keep(mut self) {
        loop {
            let trouble = match self.open().await {
                Ok((key, end)) => {
                    let rule = self.view.borrow().rule.name.clone();
                    tracing::info!(
                        rule,
                        peer = key.doc.name,
                        bucket = key.bucket,
                        dialect = end.target.dialect().name(),
                        "The S3 endpoint is fit."
                    );
                    self.trouble.send_replace(None);
                    self.unfit.send_replace(Vec::new());
                    self.far.send_replace(Some(FarEnd::S3(end.clone())));
                    let closed = self.probe(&key, &end).await;
                    self.far.send_replace(None);
                    match closed {
                        Some(trouble) => trouble,
                        // Its settings changed.
                        None => continue,
                    }
                }
                Err(trouble) => trouble,
            };
            let text = trouble.to_string();
            if self.trouble.borrow().as_ref() != Some(&text) {
                let view = self.view.borrow();
                tracing::warn!(rule = %view.rule.name, peer = view.peer.name(), bucket = %view.destination.bucket, error = text, "Nothing can be sent to the S3 endpoint; changes wait in the feed.");
            }
            self.trouble.send_replace(Some(text));
            self.unfit.send_replace(condition(&trouble).into_iter().collect());
            if !self.wait(&trouble).await {
                return;
            }
        }
    }

    /// Waits until it may try again; `false`: the link is gone.
    async fn wait(&mut self, trouble: &Error) -> bool {
        let is_refused = matches!(trouble, Error::Unfit { reason, .. } if reason.starts_with("Credentials"));
        let tried = self.key().await.ok();
        let again = Instant::now() + if is_refused { REFUSED_PAUSE } else { PAUSE };
        loop {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                changed = self.view.changed() => return changed.is_ok(),
            }
            if Instant::now() >= again || self.key().await.ok() != tried {
                return true;
            }
        }
    }

    /// What it would open by now.
    async fn key(&self) -> Result<Key, Error> {
        let view = self.view.borrow().clone();
        let FarDoc::S3(doc) = view.peer.clone() else {
            return Err(Error::Unreachable("the Peer is no S3 endpoint".into()));
        };
        let bucket = match self.store.bucket(&view.rule.bucket).await {
            Ok(bucket) => bucket,
            Err(store::Error::NoSuchBucket(name)) => {
                let message = format!("bucket {name} does not exist at this site");
                return Err(Error::Unfit { reason: "BucketNotFound", message });
            }
            Err(e) => return Err(Error::Body(e.to_string())),
        };
        let keys = match &doc.credentials_secret {
            Some(secret) => Some(self.keys(secret).await?),
            None => None,
        };
        let ca = match &doc.ca {
            Some(reference) => Some(self.file(reference).await?.into_bytes()),
            None => None,
        };
        let (url, region, path_style) = (doc.endpoint.clone(), doc.region.clone(), doc.path_style);
        Ok(Key {
            endpoint: Endpoint { url, region, path_style, keys, ca },
            bucket: view.destination.bucket.clone(),
            prefix: view.rule.filter.prefix.clone(),
            link: LinkId { rule: view.rule.uid.clone(), bucket: bucket.id, peer: view.far_end() },
            doc,
        })
    }

    async fn keys(&self, secret: &str) -> Result<Keys, Error> {
        let file = |key: &str| FileRef { is_secret: true, name: secret.into(), key: key.into() };
        let [id, secret] = CREDENTIALS;
        let (access_key_id, secret_access_key) = (self.file(&file(id)).await?, self.file(&file(secret)).await?);
        // Temporary credentials bring one.
        let session_token = self.file(&file("sessionToken")).await.ok();
        Ok(Keys { access_key_id, secret_access_key, session_token })
    }

    async fn file(&self, reference: &FileRef) -> Result<String, Error> {
        let missing = |message: String| Error::Unfit { reason: "CredentialsMissing", message };
        let path = self.refs.file(reference).map_err(|e| missing(e.to_string()))?;
        let read = tokio::fs::read_to_string(&path).await;
        let text = read.map_err(|e| missing(format!("{}: {e}; put it there", path.display())))?;
        Ok(text.trim().to_string())
    }

    async fn open(&mut self) -> Result<(Key, Arc<End>), Error> {
        self.view.mark_unchanged();
        let key = self.key().await?;
        let want = match key.doc.dialect {
            Wanted::Auto => None,
            Wanted::Aws => Some(Dialect::Aws),
            Wanted::MinIO => Some(Dialect::MinIO),
            Wanted::RustFS => Some(Dialect::RustFs),
            Wanted::Ceph => Some(Dialect::Ceph),
        };
        let now_millis = self.clock.now_millis();
        let id = VersionId::from_uuid(storage_engine::entropy::id());
        let canary = Canary { prefix: key.prefix.clone(), id, now_millis };
        let patience = Duration::from_millis(key.doc.probe_timeout_millis) * REQUESTS;
        let opened = tokio::time::timeout(patience, probe::open(&key.endpoint, &key.bucket, want, &canary)).await;
        let target =
            opened.map_err(|_| Error::Unreachable(format!("it did not answer within {}s", patience.as_secs())))??;
        self.fits(target.has_lock()).await?;
        let end = End::new(target, key.link.clone(), self.journal.clone(), self.clock.clone());
        Ok((key, Arc::new(end)))
    }

    /// Where retention and legal hold travel, both buckets have them or neither.
    async fn fits(&self, has_lock_there: bool) -> Result<(), Error> {
        let rule = self.view.borrow().rule.clone();
        if !rule.replicate.object_lock {
            return Ok(());
        }
        let here = self.store.bucket(&rule.bucket).await.map_err(|e| Error::Body(e.to_string()))?;
        let message = match (here.object_lock, has_lock_there) {
            (true, false) => {
                "the bucket here has object lock and the one at the endpoint has not: retention and legal hold would be lost; make that bucket with object lock, or write replicate.objectLock: Disabled"
            }
            (false, true) => {
                "the bucket at the endpoint has object lock and the one here has not: its default retention could refuse deletes; use a bucket without it, or write replicate.objectLock: Disabled"
            }
            _ => return Ok(()),
        };
        Err(Error::Unfit { reason: "ObjectLockMismatch", message: message.into() })
    }

    /// Probes until it is not fit any more (`Some`), or is to be opened anew (`None`).
    async fn probe(&mut self, opened: &Key, end: &End) -> Option<Error> {
        let interval = Duration::from_millis(opened.doc.probe_interval_millis);
        let patience = Duration::from_millis(opened.doc.probe_timeout_millis);
        let mut failures = 0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = end.suspect.notified() => {}
                changed = self.view.changed() => if changed.is_err() { return None },
            }
            match self.key().await {
                Ok(key) if key == *opened => {}
                Ok(_) => return None,
                // The own store's trouble is its own; files that are missing for a moment are being replaced.
                Err(e @ Error::Unfit { .. }) => return Some(e),
                Err(_) => continue,
            }
            let checked = tokio::time::timeout(patience, end.target.check()).await;
            let checked = checked.unwrap_or_else(|_| Err(Error::Unreachable("a probe got no answer".into())));
            match checked {
                Ok(has_lock) if has_lock == end.target.has_lock() => {
                    if let Err(e @ Error::Unfit { .. }) = self.fits(has_lock).await {
                        return Some(e);
                    }
                    failures = 0;
                }
                Ok(_) => return None,
                Err(e @ Error::Unfit { .. }) => return Some(e),
                Err(e) => {
                    failures += 1;
                    if failures >= opened.doc.probe_failures {
                        return Some(e);
                    }
                    // What fails is probed again soon: a peer that is down is known within seconds.
                    end.suspect.notify_one();
                    tokio::time::sleep(patience / 3).await;
                }
            }
        }
    }
}
