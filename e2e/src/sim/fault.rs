//! What goes wrong in a world, by name and counted: a fault that never fires proves nothing.
use std::collections::BTreeMap;
use std::fmt;

/// One kind of fault; in brackets its number in the list of faults that the tests are to cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing passes between two sites (F1).
    Partition,
    /// Nothing passes from one to the other (F1).
    OneWayPartition,
    /// Messages wait and then come in another order (F2).
    Clogged,
    /// A message overtook an earlier one (F3).
    Reordered,
    /// F4.
    Doubled,
    /// A message was lost on its way there (F1).
    LostMessage,
    /// It arrived, was taken, and nobody heard of it (F5).
    LostAck,
    /// Answers take seconds (F8).
    SlowPeer,
    /// A limit of bandwidth held something back (F9).
    Throttled,
    /// Everything is answered "try again" (F10).
    Storm,
    /// kill -9 of a site (F11).
    Crash,
    /// A write that was under way at a crash and is gone (F13).
    UnsyncedLost,
    /// A site stands still and goes on (F12).
    Pause,
    /// The journal takes no record, or takes it and says it did not (F16).
    JournalFailed,
    /// F17.
    ClockForward,
    /// F17.
    ClockBack,
    /// A version was stamped too far ahead for its receiver (F17).
    ClockAhead,
    /// A rule is suspended and resumed (F19).
    Suspended,
    /// The receiver suspends its peer (F19).
    PeerSuspended,
    /// A rule covers less, and then again all (F19).
    Narrowed,
    /// A grant covers less while versions fly (F19).
    GrantNarrowed,
    /// A site's store is an old backup of it (F20).
    Restored,
    /// A site was away for more than 30 days (F21).
    LongAway,
    /// Others purged then what it held (F21).
    PurgedMeanwhile,
    /// A bucket is deleted and made again (F22).
    Recreated,
    /// A peer claims to bring another site's version (F24).
    ForgedOrigin,
    /// A peer sends a key outside of its grant (F24).
    OutsideGrant,
    /// A frame under an old epoch (F24).
    StaleEpoch,
    /// A store does not know a link's cursor any more (F25).
    CursorExpired,
    /// Another process owns the link, and the old one goes on for a while (F27).
    Deposed,
    /// The journal is an old copy (F27).
    JournalRestored,
    /// The journal refused a record of a former owner (F27).
    RecordFenced,
    /// Deletes in a mass are held back, until released.
    Braked,
    /// A person had to look.
    Parked,
    /// A pass read the past again.
    Existing,
    /// A pass compared with the peer.
    Compared,
    /// A purge was void.
    PurgeVoid,
}

impl Fault {
    /// All of them, in order.
    pub const ALL: [Fault; 37] = [
        Fault::Partition,
        Fault::OneWayPartition,
        Fault::Clogged,
        Fault::Reordered,
        Fault::Doubled,
        Fault::LostMessage,
        Fault::LostAck,
        Fault::SlowPeer,
        Fault::Throttled,
        Fault::Storm,
        Fault::Crash,
        Fault::UnsyncedLost,
        Fault::Pause,
        Fault::JournalFailed,
        Fault::ClockForward,
        Fault::ClockBack,
        Fault::ClockAhead,
        Fault::Suspended,
        Fault::PeerSuspended,
        Fault::Narrowed,
        Fault::GrantNarrowed,
        Fault::Restored,
        Fault::LongAway,
        Fault::PurgedMeanwhile,
        Fault::Recreated,
        Fault::ForgedOrigin,
        Fault::OutsideGrant,
        Fault::StaleEpoch,
        Fault::CursorExpired,
        Fault::Deposed,
        Fault::JournalRestored,
        Fault::RecordFenced,
        Fault::Braked,
        Fault::Parked,
        Fault::Existing,
        Fault::Compared,
        Fault::PurgeVoid,
    ];
}

/// How often each fired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<Fault, u64>);

impl Faults {
    /// It fired.
    pub fn fire(&mut self, fault: Fault) {
        *self.0.entry(fault).or_default() += 1;
    }
    /// How often it fired.
    pub fn count(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or(0)
    }
    /// Those of another world too.
    pub fn add(&mut self, other: &Faults) {
        other.0.iter().for_each(|(fault, times)| *self.0.entry(*fault).or_default() += times);
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Fault::ALL.iter().try_for_each(|fault| writeln!(f, "{:>9}  {fault:?}", self.count(*fault)))
    }
}
