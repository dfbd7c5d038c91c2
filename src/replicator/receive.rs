//! One version in: the grant, the epoch and the clock are checked, then the own store joins it. What is
//! refused is counted, said, and leaves nothing behind.
use super::drill::Drills;
use super::lend::{Reader, lend};
use crate::drill::is_canary;
use crate::journal::{Conflict, Journal};
use crate::link::{Reason, Why};
use crate::peer::frame::bucket::BucketAsk;
use crate::peer::frame::content::ContentAsk;
use crate::peer::frame::drill::DrillAsk;
use crate::peer::frame::read::{Found, Read};
use crate::peer::frame::reconcile::{Answer, Question};
use crate::peer::{Ack, Incoming, Portion, Receiver};
use crate::rule::allow::{Facts, may};
use crate::rule::watch_folder::Snapshot;
use crate::store::{Applied, Body, Cut, Error, Pieces, Store};
use crate::telemetry::metrics::{CONFLICTS, ConflictLabels, Metrics, RefusedLabels};
use crate::telemetry::trace::span::{self, Work};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use storage_engine::clock::Clock;
use storage_engine::version::{Kind, Version, merge};
use tokio::sync::watch;
use tracing::Instrument;

/// A version stamped further ahead than this waits at its sender.
pub(super) const CLOCK_AHEAD_MS: u64 = 60_000;
/// Longest key. Source: Amazon S3 User Guide, "Naming Amazon S3 objects".
const KEY_BYTES_MAX: usize = 1024;
/// When a sender should try again what this site cannot take now.
const RETRY_MS: u64 = 500;

/// How long a known epoch is believed without asking the journal: another replicator of this site may have seen a
/// higher one. A sender that lost its link stops by itself; this is the second fence.
const EPOCH_FRESH_MS: u64 = 2_000;

/// The receiving side of a site.
pub struct Receive {
    /// siteID of this site.
    pub site_id: String,
    pub rules: watch::Receiver<Snapshot>,
    pub store: Arc<dyn Store>,
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    /// This site's parts in failover drills.
    pub drills: Arc<Drills>,
    /// Highest epoch seen per incoming link, and when the journal last said so.
    pub epochs: Mutex<BTreeMap<String, (u64, u64)>>,
    /// Conflicts seen since the start.
    pub conflicts: AtomicU64,
    /// Versions refused since the start.
    pub refused: AtomicU64,
}

#[async_trait]
impl Receiver for Receive {
    async fn receive(&self, mut incoming: Incoming) -> Ack {
        let traced = traced(&incoming);
        if let Some(work) = &traced {
            incoming.traceparent = Some(work.traceparent());
        }
        let Some(work) = traced else { return self.take(incoming).await };
        let ack = self.take(incoming).instrument(work.in_log()).await;
        work.answered(&ack);
        ack
    }
    fn takes_pieces(&self) -> bool {
        self.store.pieces().is_some()
    }

    async fn highest_epoch(&self, site: &str, link: &str) -> u64 {
        self.journal.see_epoch(&format!("{site}/{link}"), 0).await.unwrap_or(0)
    }

    async fn lend(&self, peer: &str, read: Read) -> Found {
        let reader = Reader::of(&self.site_id, &self.rules.borrow().rules, peer);
        lend(&*self.store, reader, peer, read).await
    }

    async fn answer(&self, _site: &str, peer: &str, question: Question) -> Answer {
        let peer = self.rules.borrow().rules.peers.get(peer).cloned();
        let peer = peer.map(|peer| self.drills.granting(peer, &question.bucket));
        super::answer::answer(self.store.clone(), &self.site_id, peer, question).await
    }

    async fn bucket(&self, site: &str, peer: &str, ask: BucketAsk) -> Answer {
        super::bucket::answer(self, site, peer, ask).await
    }

    async fn contents(&self, _site: &str, peer: &str, ask: ContentAsk) -> Answer {
        let peer = self.rules.borrow().rules.peers.get(peer).cloned();
        super::content::answer(&*self.store, &self.site_id, peer, ask).await
    }

    async fn drill(&self, _site: &str, peer: &str, ask: DrillAsk) -> Answer {
        super::drill::answer(self, peer, ask).await
    }
}

impl Receive {
    /// Checks a version and applies it.
    async fn take(&self, incoming: Incoming) -> Ack {
        let Incoming { site, peer, link, epoch, bucket, version, body, portion, traceparent, relayed } = incoming;
        let mut checked = self.check(&peer, &link, &bucket, &version, relayed);
        if checked.is_ok() {
            checked = self.check_epoch(format!("{site}/{link}"), epoch).await;
        }
        if let Err(ack) = checked {
            match &ack {
                Ack::Refused(why) => self.count_refused(&peer, &bucket, "grant", &why.said),
                Ack::ClockAhead { .. } => self.count_refused(&peer, &bucket, "clock_ahead", "its clock is ahead"),
                Ack::Fenced { .. } => self.count_refused(&peer, &bucket, "epoch", "another owner of the link was seen"),
                _ => {}
            }
            return ack;
        }
        if let Err(reason) = well_formed(&version) {
            self.count_refused(&peer, &bucket, "malformed", &reason);
            return Ack::Refused(Why::new(Reason::Rejected, reason));
        }
        let taken = match portion {
            Portion::Whole => self.take_whole(&bucket, version, body, traceparent).await,
            Portion::Piece { piece_bytes, number, crc64nvme } => {
                self.take_piece(&bucket, &version, piece_bytes, (number, crc64nvme), body).await
            }
            Portion::Assemble { piece_bytes } => self.assemble(&bucket, version, piece_bytes, traceparent).await,
        };
        taken.unwrap_or_else(|e| {
            if let Error::BadDigest(_) = e {
                self.count_refused(&peer, &bucket, "digest", &e.to_string());
            }
            answer(e)
        })
    }

    async fn take_whole(
        &self,
        bucket: &str,
        version: Version,
        body: Option<Body>,
        traceparent: Option<String>,
    ) -> Result<Ack, Error> {
        let born = version.clone();
        let applied = self.store.apply_version(bucket, version, body, traceparent).await?;
        Ok(self.said(bucket, &born, applied).await)
    }

    /// One piece of a large version, durable before it is acked; nothing of it shows.
    async fn take_piece(
        &self,
        bucket: &str,
        version: &Version,
        piece_bytes: u64,
        (number, crc64nvme): (u32, u64),
        body: Option<Body>,
    ) -> Result<Ack, Error> {
        let (pieces, cut) = self.cut(version, piece_bytes)?;
        let Some(body) = body else { return Ok(Ack::NeedsBody) };
        pieces.put_piece(bucket, version.id, cut, number, crc64nvme, body).await?;
        Ok(Ack::Applied)
    }

    /// A large version whose pieces may all be here.
    async fn assemble(
        &self,
        bucket: &str,
        version: Version,
        piece_bytes: u64,
        traceparent: Option<String>,
    ) -> Result<Ack, Error> {
        let (pieces, cut) = self.cut(&version, piece_bytes)?;
        let born = version.clone();
        match pieces.apply_pieces(bucket, version, cut, traceparent).await? {
            Applied::NeedsBody => Ok(Ack::NeedsPieces { held: pieces.held_pieces(bucket, born.id, cut).await? }),
            applied => Ok(self.said(bucket, &born, applied).await),
        }
    }

    fn cut(&self, version: &Version, piece_bytes: u64) -> Result<(&dyn Pieces, Cut), Error> {
        let size = version.birth.as_ref().map_or(0, |b| b.size_bytes);
        let cut = Cut::new(size, piece_bytes).filter(|_| !version.id.is_null());
        let cut =
            cut.ok_or_else(|| Error::Invalid(format!("{size} bytes are not cut into pieces of {piece_bytes}")))?;
        let pieces = self.store.pieces().ok_or_else(|| Error::Invalid("this store takes no pieces".into()))?;
        Ok((pieces, cut))
    }

    async fn said(&self, bucket: &str, born: &Version, applied: Applied) -> Ack {
        match applied {
            Applied::Applied => {
                self.note_conflicts(bucket, born).await;
                Ack::Applied
            }
            Applied::AlreadyPresent => Ack::AlreadyPresent,
            Applied::Superseded => Ack::Superseded,
            Applied::NeedsBody => Ack::NeedsBody,
        }
    }

    pub(super) fn count_refused(&self, peer: &str, bucket: &str, why: &str, detail: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let labels = RefusedLabels { peer: peer.into(), reason: why.into() };
        self.metrics.frames_refused.get_or_create(&labels).inc();
        tracing::warn!(peer, bucket, reason = why, detail, "A version was refused.");
    }

    fn check(&self, peer: &str, link: &str, bucket: &str, version: &Version, relayed: bool) -> Result<(), Ack> {
        let origins = origins(version);
        let facts = Facts {
            bucket,
            key: &version.key,
            origins: &origins,
            is_delete_marker: version.birth.as_ref().is_some_and(|b| b.kind == Kind::DeleteMarker),
            is_purge: !version.purges.is_empty(),
            relayed,
        };
        let may = {
            let snapshot = self.rules.borrow();
            match snapshot.rules.peers.get(peer) {
                Some(peer) if is_canary(bucket) => may(&self.drills.granting(peer.clone(), bucket), &facts),
                Some(peer) => may(peer, &facts),
                None => {
                    let said = format!("there is no Peer {peer} here any more");
                    return Err(Ack::Refused(Why::new(Reason::Grant, said)));
                }
            }
        };
        if let Err(refusal) = may {
            let why = Why::new(Reason::Grant, refusal.to_string());
            return Err(match refusal.is_retryable() {
                true => retry(why),
                false => Ack::Refused(why),
            });
        }
        if self.drills.is_refused(peer, link, bucket) {
            return Err(retry(Why::new(Reason::Drill, "cut by a drill")));
        }
        let ahead = version.max_hlc().millis().saturating_sub(self.clock.now_millis());
        if ahead > CLOCK_AHEAD_MS {
            return Err(Ack::ClockAhead { after_ms: ahead - CLOCK_AHEAD_MS });
        }
        Ok(())
    }

    pub(super) async fn check_epoch(&self, link: String, epoch: u64) -> Result<(), Ack> {
        let now = self.clock.now_millis();
        let seen = self.epochs.lock().expect("no panic while held").get(&link).copied();
        let highest = match seen {
            Some((seen, at)) if epoch <= seen && now.saturating_sub(at) < EPOCH_FRESH_MS => seen,
            // A new epoch is durable before anything is applied under it.
            _ => {
                let known = self.journal.see_epoch(&link, epoch).await;
                let known = known.map_err(|e| retry(Why::new(Reason::Unavailable, e.to_string())))?;
                self.epochs.lock().expect("no panic while held").insert(link, (known, now));
                known
            }
        };
        if epoch < highest { Err(Ack::Fenced { highest }) } else { Ok(()) }
    }

    /// Finds versions of the key that were born without knowing this one, or that it did not know.
    async fn note_conflicts(&self, bucket: &str, version: &Version) {
        let Some(birth) = &version.birth else { return };
        let Ok(siblings) = self.store.versions_of(bucket, &version.key).await else { return };
        for sibling in siblings.iter().filter(|s| s.id != version.id) {
            let Some(other) = &sibling.birth else { continue };
            let (later, earlier) = if birth.order > other.order { (version, sibling) } else { (sibling, version) };
            let is_conflict = match birth.order > other.order {
                true => merge::is_conflict(birth, other),
                false => merge::is_conflict(other, birth),
            };
            if !is_conflict {
                continue;
            }
            self.conflicts.fetch_add(1, Ordering::Relaxed);
            let is_put = [birth, other].iter().all(|b| b.kind == Kind::Object);
            let [put, delete] = CONFLICTS;
            let kind = if is_put { put } else { delete };
            self.metrics.conflicts.get_or_create(&ConflictLabels { bucket: bucket.into(), kind }).inc();
            let conflict = Conflict {
                bucket: bucket.into(),
                key: version.key.clone(),
                later: later.id.to_string(),
                earlier: earlier.id.to_string(),
                seen_millis: self.clock.now_millis(),
            };
            if let Err(e) = self.journal.add_conflict(&conflict).await {
                tracing::warn!(bucket, error = %e, "A conflict could not be kept in the journal.");
            }
        }
    }
}

/// The span of a version that arrives; a piece of one is no version yet.
fn traced(incoming: &Incoming) -> Option<Work> {
    let Incoming { peer, bucket, version, portion, traceparent, .. } = incoming;
    if matches!(portion, Portion::Piece { .. }) {
        return None;
    }
    let origin = version.birth.as_ref().map_or("", |b| b.order.origin.as_str());
    span::apply(traceparent.as_deref()?, peer, origin, bucket, &version.key, version.id)
}

/// Whether the record agrees with itself and with what S3 could have made: nobody else looks at it again.
fn well_formed(version: &Version) -> Result<(), String> {
    if !(1..=KEY_BYTES_MAX).contains(&version.key.len()) {
        return Err(format!("a key of {} bytes", version.key.len()));
    }
    let Some(birth) = &version.birth else { return Ok(()) };
    if !version.id.is_null() && birth.order.version_id != version.id {
        return Err(format!("version {} is ordered as version {}", version.id, birth.order.version_id));
    }
    let parts = birth.parts.iter().try_fold(0u64, |sum, part| sum.checked_add(part.size_bytes));
    if !birth.parts.is_empty() && parts != Some(birth.size_bytes) {
        return Err(format!("its parts are not its {} bytes", birth.size_bytes));
    }
    Ok(())
}

/// Every site that set a component of the version. Guards do not count: whoever knows them passes them
/// on, and to name another site in one gains nothing over naming oneself.
fn origins(version: &Version) -> Vec<&str> {
    let birth = version.birth.as_ref().map(|b| b.order.origin.as_str());
    let tags = version.tags.as_ref().map(|t| t.stamp.origin.as_str());
    let purges = version.purges.iter().map(|(_, p)| p.origin.as_str());
    let mut all: Vec<_> = [birth, tags].into_iter().flatten().chain(purges).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// It may come again.
fn retry(why: Why) -> Ack {
    Ack::Retry { after_ms: RETRY_MS, why }
}

/// The store's word, for the sender: what goes by itself and what needs a person.
fn answer(error: Error) -> Ack {
    match error {
        Error::NoSuchBucket(name) => {
            Ack::Refused(Why::new(Reason::Bucket, format!("bucket {name} does not exist at the peer; make it there")))
        }
        Error::Invalid(why) | Error::Conflict(why) => Ack::Refused(Why::new(Reason::Rejected, why)),
        Error::BadDigest(_) => retry(Why::new(Reason::Digest, error.to_string())),
        other => retry(Why::new(Reason::Unavailable, other.to_string())),
    }
}
