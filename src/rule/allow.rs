//! May this peer do this here? By the grants of its Peer document; the default is nothing. Pure.
//!
//! Called for every frame that would change something. A refusal is answered, counted and audited; the
//! connection lives on. Site suspension, object lock and clocks are checked elsewhere.
use super::{Grant, PeerDoc};
use crate::link::planted::{self, Planted};

/// What a frame wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Bucket of this site.
    pub bucket: &'a str,
    pub key: &'a str,
    /// Every site that set a component of the version: birth, tags, purge.
    pub origins: &'a [&'a str],
    /// The version is a delete marker.
    pub is_delete_marker: bool,
    /// The version is deleted for good.
    pub is_purge: bool,
    /// Flagged as relay or reconciliation: it may carry other origins than the sender's own.
    pub relayed: bool,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer is suspended here: worth another try later.
    #[error("this site has suspended the peer")]
    Suspended,
    /// No grant names the bucket.
    #[error("nothing may be written to bucket {bucket}: no inbound entry names it")]
    Bucket { bucket: String },
    /// The key lies outside of the grant.
    #[error("in bucket {bucket} only keys that begin with {prefix:?} may be written")]
    Prefix { bucket: String, prefix: String },
    /// Delete markers are not taken.
    #[error("inbound entry of {bucket} does not allow deletes")]
    Deletes { bucket: String },
    /// Permanent deletes are not taken.
    #[error("inbound entry of {bucket} does not allow versionDeletes")]
    VersionDeletes { bucket: String },
    /// Bucket documents are not taken.
    #[error("inbound entry of {bucket} does not allow documents")]
    Documents { bucket: String },
    /// A policy never comes from another site.
    #[error("the policy of bucket {bucket} is this site's own; none is taken from a peer")]
    Policy { bucket: String },
    /// The version comes from a site the peer may not speak for.
    #[error("versions of site {origin} are not taken from this peer (inbound entry of {bucket}, origins)")]
    Origin { bucket: String, origin: String },
    /// The version comes from another site and the frame is not flagged as relayed.
    #[error("a live frame carries only its sender's own versions, this one is of site {origin}")]
    NotRelayed { origin: String },
}

impl Refusal {
    /// Whether it goes by itself, without a person at either end changing a grant.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Refusal::Suspended)
    }
}

/// Whether `peer` may do what the frame wants.
///
/// # Errors
/// [`Refusal`], to be sent back as it reads.
///
/// # Source
/// Design of the peer listener: live frames of the sender's own origin only; relay and reconciliation frames
/// also of the origins the entry lists.
pub fn may(peer: &PeerDoc, facts: &Facts<'_>) -> Result<(), Refusal> {
    if peer.suspend {
        return Err(Refusal::Suspended);
    }
    let bucket = || facts.bucket.to_string();
    let grant = peer.inbound.iter().find(|g| g.bucket == facts.bucket);
    let grant = grant.ok_or_else(|| Refusal::Bucket { bucket: bucket() })?;
    if !facts.key.starts_with(&grant.prefix) && !planted::has(Planted::PrefixOfGrantIgnored) {
        return Err(Refusal::Prefix { bucket: bucket(), prefix: grant.prefix.clone() });
    }
    if facts.is_delete_marker && !grant.deletes {
        return Err(Refusal::Deletes { bucket: bucket() });
    }
    if facts.is_purge && !grant.version_deletes {
        return Err(Refusal::VersionDeletes { bucket: bucket() });
    }
    facts.origins.iter().try_for_each(|origin| may_bring(peer, grant, origin, facts.relayed))
}

/// Whether `peer` may set a document of a bucket that was written at `origin`; one that never `travels` is taken from
/// nobody.
///
/// # Errors
/// [`Refusal`], to be sent back as it reads.
pub fn may_document(peer: &PeerDoc, bucket: &str, travels: bool, origin: &str, relayed: bool) -> Result<(), Refusal> {
    if peer.suspend {
        return Err(Refusal::Suspended);
    }
    let named = || bucket.to_string();
    let grant = peer.inbound.iter().find(|g| g.bucket == bucket).ok_or_else(|| Refusal::Bucket { bucket: named() })?;
    if !travels {
        return Err(Refusal::Policy { bucket: named() });
    }
    if !grant.documents {
        return Err(Refusal::Documents { bucket: named() });
    }
    may_bring(peer, grant, origin, relayed)
}

fn may_bring(peer: &PeerDoc, grant: &Grant, origin: &str, relayed: bool) -> Result<(), Refusal> {
    let is_own = origin == peer.site_id || planted::has(Planted::ForeignOriginTaken);
    // A list that does not name the peer itself takes only what it relays for those it names.
    let is_listed = match grant.origins.is_empty() {
        true => is_own,
        false => grant.origins.iter().any(|o| o == origin || o == "*"),
    };
    match (is_listed, is_own || relayed) {
        (true, true) => Ok(()),
        (true, false) => Err(Refusal::NotRelayed { origin: origin.into() }),
        (false, _) => Err(Refusal::Origin { bucket: grant.bucket.clone(), origin: origin.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(grants: Vec<Grant>) -> PeerDoc {
        PeerDoc { inbound: grants, ..PeerDoc::bare("ams") }
    }
    fn grant(origins: &[&str]) -> Grant {
        Grant {
            bucket: "logs".into(),
            prefix: "ams/".into(),
            origins: origins.iter().map(|o| o.to_string()).collect(),
            deletes: true,
            version_deletes: false,
            documents: false,
        }
    }
    const PUT: Facts<'_> = Facts {
        bucket: "logs",
        key: "ams/1",
        origins: &["ams"],
        is_delete_marker: false,
        is_purge: false,
        relayed: false,
    };

    #[test]
    fn nothing_is_allowed_by_default() {
        assert_eq!(may(&peer(vec![]), &PUT), Err(Refusal::Bucket { bucket: "logs".into() }));
    }

    #[test]
    fn a_grant_covers_its_bucket_prefix_and_kinds_and_nothing_else() {
        let p = peer(vec![grant(&[])]);
        let refused = |facts: Facts<'_>| may(&p, &facts).unwrap_err();
        assert_eq!(may(&p, &PUT), Ok(()));
        assert_eq!(may(&p, &Facts { is_delete_marker: true, ..PUT }), Ok(()));
        assert!(matches!(refused(Facts { bucket: "logs2", ..PUT }), Refusal::Bucket { .. }));
        assert!(matches!(refused(Facts { key: "ams", ..PUT }), Refusal::Prefix { .. }));
        assert!(matches!(refused(Facts { key: "fra/ams/1", ..PUT }), Refusal::Prefix { .. }));
        assert!(matches!(refused(Facts { is_purge: true, ..PUT }), Refusal::VersionDeletes { .. }));
        let no_deletes = peer(vec![Grant { deletes: false, version_deletes: true, ..grant(&[]) }]);
        let marker = may(&no_deletes, &Facts { is_delete_marker: true, ..PUT });
        assert!(matches!(marker, Err(Refusal::Deletes { .. })));
        assert_eq!(may(&no_deletes, &Facts { is_purge: true, ..PUT }), Ok(()));
    }

    #[test]
    fn origins_follow_the_table() {
        type Row<'a> = (&'a [&'a str], &'a [&'a str], bool, bool);
        let table: [Row<'_>; 11] = [
            (&[], &["ams"], false, true),
            (&[], &["ams"], true, true),
            (&[], &["nyc"], true, false),
            (&[], &["ams", "nyc"], true, false),
            (&["nyc"], &["nyc"], true, true),
            (&["nyc"], &["nyc"], false, false),
            (&["nyc"], &["ams"], false, false),
            (&["ams", "nyc"], &["ams", "nyc"], true, true),
            (&["ams", "nyc"], &["ams", "nyc"], false, false),
            (&["*"], &["sfo", "ams"], true, true),
            (&["*"], &["sfo"], false, false),
        ];
        for (listed, origins, relayed, allowed) in table {
            let said = may(&peer(vec![grant(listed)]), &Facts { origins, relayed, ..PUT });
            assert_eq!(said.is_ok(), allowed, "{listed:?} {origins:?} relayed {relayed}: {said:?}");
        }
    }

    #[test]
    fn documents_need_a_grant_of_their_own_and_a_policy_is_never_taken() {
        let refused = |p: &PeerDoc, travels, origin, relayed| may_document(p, "logs", travels, origin, relayed).err();
        let closed = peer(vec![grant(&[])]);
        assert!(matches!(refused(&closed, true, "ams", false), Some(Refusal::Documents { .. })));
        let open = peer(vec![Grant { documents: true, ..grant(&["ams", "nyc"]) }]);
        assert_eq!(refused(&open, true, "ams", false), None);
        assert!(matches!(refused(&open, false, "ams", false), Some(Refusal::Policy { .. })));
        assert!(matches!(refused(&open, true, "nyc", false), Some(Refusal::NotRelayed { .. })));
        assert_eq!(refused(&open, true, "nyc", true), None);
        assert!(matches!(refused(&open, true, "sfo", true), Some(Refusal::Origin { .. })));
        assert!(matches!(refused(&peer(vec![]), true, "ams", false), Some(Refusal::Bucket { .. })));
    }

    #[test]
    fn a_suspended_peer_is_told_to_come_back() {
        let p = PeerDoc { suspend: true, ..peer(vec![grant(&[])]) };
        assert!(may(&p, &PUT).unwrap_err().is_retryable());
    }
}
