//! What the drill's own client was told: every write that was acked, and how many were not. From it and from what the
//! peer lacks at the fault comes the recovery point. Pure; written by `replicator/drill/client.rs`.
use super::WRITES_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use storage_engine::version::VersionId;

/// Versions named in a report; all are counted.
const SAMPLES: usize = 20;

/// A write that a client was told had succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    pub bucket: String,
    pub key: String,
    pub version_id: VersionId,
    /// Unix milliseconds of the ack, by this site's clock.
    pub at: u64,
    pub bytes: u64,
    pub is_delete: bool,
}

/// Everything the client was told.
#[derive(Debug, Default)]
pub struct Ledger {
    acked: Vec<Acked>,
    counted: Counted,
}

/// The same in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Puts and deletes that were acked, and the bytes of the puts.
    pub puts: u64,
    pub deletes: u64,
    pub bytes: u64,
    /// Turned away by the fence.
    pub refused: u64,
    /// Failed or without an answer: the client knows nothing.
    pub failed: u64,
    /// Not begun, for too many were under way.
    pub skipped: u64,
    /// At the peer: probes that were served, and that were not.
    pub served_there: u64,
    pub not_served_there: u64,
}

/// What would be lost if this site were gone at the fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AtRisk {
    /// Acked before the fault, and not at the peer.
    pub versions: u64,
    pub bytes: u64,
    /// Age of the oldest of them at the fault; 0: there is none.
    pub seconds: f64,
    /// Of so many acked before the fault.
    pub acked: u64,
    /// The first few, as `key version-id`.
    pub samples: Vec<String>,
}

impl Ledger {
    /// A write that was acked.
    pub fn ack(&mut self, acked: Acked) {
        match acked.is_delete {
            true => self.counted.deletes += 1,
            false => {
                self.counted.puts += 1;
                self.counted.bytes += acked.bytes;
            }
        }
        if self.acked.len() < WRITES_MAX as usize {
            self.acked.push(acked);
        }
    }

    /// Changes the numbers of what was not acked here.
    pub fn count(&mut self, change: impl FnOnce(&mut Counted)) {
        change(&mut self.counted);
    }

    /// The numbers.
    pub fn counted(&self) -> Counted {
        self.counted.clone()
    }

    /// A bucket and a key in it that was put before, by number; `None`: none was.
    pub fn key(&self, number: usize) -> Option<(String, String)> {
        let puts = self.acked.len();
        (puts > 0).then(|| &self.acked[number % puts]).map(|acked| (acked.bucket.clone(), acked.key.clone()))
    }

    /// What was acked up to the fault and stands in `missing`: what the peer lacks.
    pub fn at_risk(&self, fault_at: u64, missing: &BTreeSet<(String, VersionId)>) -> AtRisk {
        let mut found = AtRisk::default();
        for acked in self.acked.iter().filter(|a| a.at <= fault_at) {
            found.acked += 1;
            if missing.contains(&(acked.key.clone(), acked.version_id)) {
                found.add(&acked.key, acked.version_id, acked.bytes, fault_at - acked.at);
            }
        }
        found
    }
}

impl AtRisk {
    /// One version that would be lost: its bytes, and its age at the fault.
    pub fn add(&mut self, key: &str, version_id: VersionId, bytes: u64, age_millis: u64) {
        self.versions += 1;
        self.bytes += bytes;
        self.seconds = self.seconds.max(age_millis as f64 / 1000.0);
        if self.samples.len() < SAMPLES {
            self.samples.push(format!("{key} {version_id}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked(number: u8, at: u64, is_delete: bool) -> Acked {
        let version_id = VersionId::from_bytes([number; 16]);
        Acked {
            bucket: "b".into(),
            key: format!("k{number}"),
            version_id,
            at,
            bytes: if is_delete { 0 } else { 10 },
            is_delete,
        }
    }

    #[test]
    fn at_risk_is_what_was_acked_before_the_fault_and_is_not_there() {
        let mut ledger = Ledger::default();
        for (number, at) in [(1, 1000), (2, 1500), (3, 1900), (4, 2100)] {
            ledger.ack(acked(number, at, number == 3));
        }
        let missing: BTreeSet<_> =
            [2, 3, 4].map(|n| (format!("k{n}"), VersionId::from_bytes([n; 16]))).into_iter().collect();
        let found = ledger.at_risk(2000, &missing);
        assert_eq!((found.versions, found.bytes, found.seconds, found.acked), (2, 10, 0.5, 3));
        assert!(found.samples[0].starts_with("k2 "), "{:?}", found.samples);
        assert_eq!(ledger.at_risk(2000, &BTreeSet::new()), AtRisk { acked: 3, ..AtRisk::default() });
        assert_eq!((ledger.counted().puts, ledger.counted().deletes, ledger.counted().bytes), (3, 1, 30));
    }

    #[test]
    fn a_delete_takes_a_key_that_was_put() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.key(5), None);
        ledger.ack(acked(1, 1, false));
        assert_eq!(ledger.key(5), Some(("b".into(), "k1".into())));
    }
}
