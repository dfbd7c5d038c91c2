//! Reasons of conditions that are found in what a process shows: what a person filters by, out of the words and numbers of
//! whoever met the trouble. Pure; called by `status.rs`.
use crate::replicator::report::{LinkReport, PeerReport};

/// A clock that is off by more has its versions held back at the other end (`replicator/receive.rs`).
pub const CLOCK_OFF_MAX_MS: i64 = 60_000;
/// How stores say that they have no room: our own, and those behind S3 endpoints.
const FULL: [&str; 5] = ["drives are full", "HTTP 507", "QuotaExceeded", "StorageFull", "InsufficientStorage"];

fn has(text: &str, words: &[&str]) -> bool {
    let lower = text.to_lowercase();
    words.iter().any(|word| lower.contains(&word.to_lowercase()))
}

/// Why the own store cannot be reached. A store that does not let this process in closes the connection and does not say
/// why: only its own log does.
pub fn of_store(why: &str) -> &'static str {
    if has(why, &["tls: ", "certificate", "handshake"]) { "TLSFailed" } else { "Unreachable" }
}

/// What ails the journal, where an error of a link is the journal's.
pub fn of_journal(error: &str) -> Option<&'static str> {
    if error.starts_with("journal cannot be used") {
        return Some("Corrupt");
    }
    let is_full = has(error, &["is full", "no space left"]);
    error.starts_with("journal is unavailable").then_some(if is_full { "Full" } else { "Unreachable" })
}

/// What of a peer's certificates and lists cannot be used.
pub fn of_files(peer: &PeerReport) -> Option<&'static str> {
    let why = peer.last_error.as_ref().filter(|_| !peer.is_up)?;
    match why {
        why if why.starts_with("InvalidCRL: ") => Some("InvalidCRL"),
        why if why.starts_with("InvalidCertificate: ") => Some("InvalidCertificate"),
        // Read and out of date, or without the CA that signed.
        why if has(why, &["revocation list", "revocation status unknown"]) => Some("InvalidCRL"),
        _ => None,
    }
}

/// Why a peer cannot be reached; `None`: it answers, and something else is wrong (`of_fit`).
pub fn of_line(why: &str, is_s3: bool) -> Option<&'static str> {
    Some(match () {
        () if is_s3 && has(why, &["AccessDenied", "Credentials"]) => "AccessDenied",
        () if is_s3 && (is_unversioned(why) || is_skewed(why)) => return None,
        () if has(why, &["identit", "spiffe", "one uri"]) => "IdentityMismatch",
        () if has(why, &["announces", "another site"]) => "SiteIDMismatch",
        () if has(why, &["certificate", "tls", "handshake", "pem"]) => "TLSFailed",
        () if is_s3 => "ProbeFailed",
        () => "DialFailed",
    })
}

fn is_unversioned(why: &str) -> bool {
    why.starts_with("TargetNotVersioned")
}
fn is_skewed(why: &str) -> bool {
    why.starts_with("ClockSkewed")
}

/// What keeps a peer that answers from working together with this site, and in what words.
pub fn of_fit(peer: &PeerReport) -> Option<(&'static str, String)> {
    if let (false, Some(why)) = (peer.is_up, &peer.last_error) {
        let reason = match () {
            () if is_unversioned(why) => "VersioningUnsupported",
            () if is_skewed(why) => "ClockSkewTooLarge",
            () if has(why, &["protocol version"]) => "ProtocolTooOld",
            () => return None,
        };
        return Some((reason, why.clone()));
    }
    if let Some(off) = peer.clock_offset_ms.filter(|off| off.abs() > CLOCK_OFF_MAX_MS) {
        let (seconds, whose) = (off.abs() / 1000, if off > 0 { "ahead of" } else { "behind" });
        let why = format!(
            "its clock is {seconds}s {whose} this site's, and versions stamped more than {}s ahead wait; look at the time service of both",
            CLOCK_OFF_MAX_MS / 1000
        );
        return Some(("ClockSkewTooLarge", why));
    }
    let lacks = peer.lacks.join(", ");
    (!lacks.is_empty()).then(|| ("FeatureMissing", format!("its build lacks: {lacks}; upgrade it")))
}

/// Whether a link waits for room at its far end.
pub fn is_full(link: &LinkReport) -> bool {
    let waits = link.retry_versions > 0 || link.parked_versions > 0;
    waits && link.last_error.as_ref().is_some_and(|why| has(why, &FULL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::s3::Error;

    #[test]
    fn every_reason_has_words_that_lead_to_it() {
        assert_eq!(of_store("TLS: invalid peer certificate: UnknownIssuer"), "TLSFailed");
        assert_eq!(of_store("its certificate names spiffe://x, not spiffe://y"), "TLSFailed");
        assert_eq!(of_store("Connection refused (os error 111)"), "Unreachable");
        let unavailable = |why: &str| of_journal(&crate::journal::Error::Unavailable(why.into()).to_string());
        assert_eq!(unavailable("(code: 13) database or disk is full"), Some("Full"));
        assert_eq!(unavailable("pool timed out"), Some("Unreachable"));
        assert_eq!(of_journal(&crate::journal::Error::Unusable("malformed".into()).to_string()), Some("Corrupt"));
        assert_eq!(of_journal("read own store: no"), None);
        let refused = Error::Unfit { reason: "CredentialsInvalid", message: "put them right".into() }.to_string();
        assert_eq!(of_line(&refused, true), Some("AccessDenied"));
        assert_eq!(of_line(&Error::Silent("a probe".into()).to_string(), true), Some("ProbeFailed"));
        assert_eq!(of_line("reach ams:8443: Connection refused", false), Some("DialFailed"));
        assert_eq!(of_line("its certificate names spiffe://x", false), Some("IdentityMismatch"));
    }

    #[test]
    fn what_does_not_fit_is_told_apart_from_what_cannot_be_reached() {
        let down = |why: &str| PeerReport { last_error: Some(why.into()), ..PeerReport::default() };
        let up = PeerReport { is_up: true, ..PeerReport::default() };
        let fit = |peer: &PeerReport| of_fit(peer).map(|(reason, _)| reason);
        for (reason, word) in [("TargetNotVersioned", "VersioningUnsupported"), ("ClockSkewed", "ClockSkewTooLarge")] {
            let why = Error::Unfit { reason, message: "mend it".into() }.to_string();
            assert_eq!((fit(&down(&why)), of_line(&why, true)), (Some(word), None));
        }
        let old = "reach ams:8443: it says goodbye: this end speaks protocol version 2 only";
        assert_eq!(fit(&down(old)), Some("ProtocolTooOld"));
        assert_eq!(fit(&up), None);
        assert_eq!(fit(&PeerReport { clock_offset_ms: Some(-60_000), ..up.clone() }), None);
        let (reason, why) = of_fit(&PeerReport { clock_offset_ms: Some(-61_000), ..up.clone() }).unwrap();
        assert!(reason == "ClockSkewTooLarge" && why.contains("61s behind"), "{why}");
        let (reason, why) = of_fit(&PeerReport { lacks: vec!["comparisons".into()], ..up }).unwrap();
        assert!(reason == "FeatureMissing" && why.contains("comparisons"), "{why}");
        assert_eq!(of_files(&down("InvalidCRL: read certs/ca.crl: not there")), Some("InvalidCRL"));
        assert_eq!(of_files(&down("certificate revocation list expired: now 1")), Some("InvalidCRL"));
        assert_eq!(of_files(&down("Connection refused")), None);
    }
}
