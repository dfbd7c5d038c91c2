//! How a store is, for people: its drives, and what was acked on fewer of them than it should be. Decides nothing.
use super::Objects;

/// A store at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    pub drives: Vec<DriveHealth>,
    /// Records acked while some drive lacked them or their shard, since the process began.
    pub below_target: u64,
    /// What its listeners show, where they show any.
    pub certificates: Vec<ShownCertificate>,
}

/// A certificate that a store's process shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownCertificate {
    /// As a person knows it: `the S3 listener's`.
    pub whose: String,
    /// Unix milliseconds from which and until which it holds.
    pub from_millis: u64,
    pub until_millis: u64,
}

/// One drive of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriveHealth {
    /// Index in its set, 0-based.
    pub slot: u32,
    /// Why it takes no requests; `None`: it is online.
    pub offline: Option<String>,
    pub free_bytes: u64,
    pub total_bytes: u64,
}

impl Objects {
    /// How this store is now; of listeners it knows nothing.
    pub fn store_health(&self) -> StoreHealth {
        let drive = |drive: &std::sync::Arc<dyn crate::drive::Drive>| {
            let (free_bytes, total_bytes) = drive.space();
            let slot = u32::try_from(drive.slot()).unwrap_or(u32::MAX);
            DriveHealth { slot, offline: drive.health().offline, free_bytes, total_bytes }
        };
        let drives = self.0.drives.iter().map(drive).collect();
        StoreHealth { drives, below_target: self.metrics().snapshot().commits_below_target, certificates: Vec::new() }
    }
}
