//! What keeps a version from being purged: retention and legal hold, and the purges that met them.
//!
//! Guards join per site, so that two sites can set and lift them at once and still agree; a purge
//! carries the guards its maker had seen and counts only where they cover all that are known now.
//! Pure: time comes in as the stamp of the purge. Called by `version` and, through it, by drives,
//! which judge a purge by their own record and believe no coordinator.
//!
//! Source: Amazon S3 User Guide, "Locking objects with Object Lock"; the per-site sets are
//! last-writer-wins registers (Shapiro et al., "A comprehensive study of CRDTs", 2011).
use super::{Hlc, Origin, Stamp};
use crate::wire::{self, Fields};
use std::collections::BTreeMap;

/// How strictly a retention binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// A privileged person may lift or shorten it.
    Governance,
    /// Nobody may lift or shorten it.
    Compliance,
}

impl Mode {
    /// The mode as S3 writes it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Governance => "GOVERNANCE",
            Mode::Compliance => "COMPLIANCE",
        }
    }
    /// The mode S3 calls so.
    pub fn named(name: &str) -> Option<Mode> {
        [Mode::Governance, Mode::Compliance].into_iter().find(|mode| mode.name() == name)
    }
}

/// A retention as S3 shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub mode: Mode,
    /// Unix milliseconds until which the version may not be purged.
    pub until_millis: u64,
}

/// Governance retention as one site set and lifted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Governance {
    /// When it was last set there; zero: never.
    pub on: Hlc,
    /// Unix milliseconds it was set to.
    pub until_millis: u64,
    /// The newest setting of that site which a bypass has lifted, wherever the bypass was made.
    pub cancelled: Hlc,
}

/// Legal hold as one site set and lifted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hold {
    /// When it was last set there; zero: never.
    pub on: Hlc,
    /// The newest setting of that site which somebody has lifted.
    pub cancelled: Hlc,
}

/// Compliance retention. Of two the later date wins, whoever set it; of one date the later setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Compliance {
    /// Unix milliseconds; zero: none.
    pub until_millis: u64,
    /// When it was set to that date; zero: nobody wrote it down.
    pub on: Hlc,
}

/// Every guard of a version. Joins component by component; see [`Guards::join`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guards {
    compliance: Compliance,
    governance: BTreeMap<Origin, Governance>,
    holds: BTreeMap<Origin, Hold>,
    /// Fields of a later format.
    unknown: Fields,
}

/// Why a change of the guards is refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Compliance is never shortened, lowered to governance or removed.
    #[error("the version is under compliance retention until {until_millis} (Unix ms), which nobody may shorten")]
    Compliance { until_millis: u64 },
    /// Governance is shortened or removed only with a bypass.
    #[error("the version is under governance retention until {until_millis} (Unix ms); ask with the right to bypass")]
    Governance { until_millis: u64 },
    /// Held until somebody lifts the hold.
    #[error("the version is under legal hold; lift it first")]
    Hold,
}

impl Guards {
    /// The guards of a version born at `stamp`.
    pub fn at_birth(retention: Option<Retention>, is_held: bool, stamp: &Stamp) -> Guards {
        let none = Guards::default();
        let mut guards = none.retain(retention, false, stamp).expect("nothing stands that it could weaken");
        if is_held {
            guards.join(&none.hold(true, stamp));
        }
        guards
    }

    /// Whether nothing was ever set.
    pub fn is_empty(&self) -> bool {
        *self == Guards::default()
    }

    /// Whether a legal hold of any site stands.
    pub fn is_held(&self) -> bool {
        self.holds.values().any(|h| h.on > h.cancelled)
    }

    /// Whether anybody ever set a legal hold, lifted or not.
    pub fn was_held(&self) -> bool {
        !self.holds.is_empty()
    }

    /// The retention S3 shows, expired or not: compliance where there is any, else the longest
    /// governance retention nobody has lifted.
    pub fn retention(&self) -> Option<Retention> {
        if self.compliance.until_millis > 0 {
            return Some(Retention { mode: Mode::Compliance, until_millis: self.compliance.until_millis });
        }
        let until_millis = self.standing_governance()?;
        Some(Retention { mode: Mode::Governance, until_millis })
    }

    /// What forbids a purge made at `at_millis`, if anything does.
    ///
    /// # Errors
    /// [`Refused`] names the strictest guard.
    pub fn permit_purge(&self, at_millis: u64) -> Result<(), Refused> {
        if self.is_held() {
            return Err(Refused::Hold);
        }
        if self.compliance.until_millis > at_millis {
            return Err(Refused::Compliance { until_millis: self.compliance.until_millis });
        }
        match self.standing_governance() {
            Some(until_millis) if until_millis > at_millis => Err(Refused::Governance { until_millis }),
            _ => Ok(()),
        }
    }

    /// What is to be joined in to set this retention (`None`: to remove it) at `stamp`.
    ///
    /// `bypass`: the person may shorten or lift governance. It lifts only what stands in `self`: an
    /// extension made elsewhere at the same time survives.
    ///
    /// # Errors
    /// [`Refused`] where the new retention is weaker than what stands and may not be.
    pub fn retain(&self, retention: Option<Retention>, bypass: bool, stamp: &Stamp) -> Result<Guards, Refused> {
        let now = stamp.hlc.millis();
        let mut change = Guards::default();
        let asked = retention.map_or(0, |r| r.until_millis);
        let is_compliance = retention.is_some_and(|r| r.mode == Mode::Compliance);
        if self.compliance.until_millis > now && !(is_compliance && asked >= self.compliance.until_millis) {
            return Err(Refused::Compliance { until_millis: self.compliance.until_millis });
        }
        if let Some(until_millis) = self.standing_governance().filter(|until| *until > asked) {
            if until_millis > now && !bypass {
                return Err(Refused::Governance { until_millis });
            }
            change = self.lift_governance();
        }
        match retention {
            Some(Retention { mode: Mode::Compliance, until_millis }) => {
                change.compliance = Compliance { until_millis, on: stamp.hlc };
            }
            Some(Retention { mode: Mode::Governance, until_millis }) => {
                let mine = change.governance.entry(stamp.origin.clone()).or_default();
                (mine.on, mine.until_millis) = (stamp.hlc, until_millis);
            }
            None => {}
        }
        Ok(change)
    }

    /// What is to be joined in so that a purge by a person who may bypass governance goes through.
    pub fn lift_governance(&self) -> Guards {
        let lift = |(origin, set): (&Origin, &Governance)| {
            (origin.clone(), Governance { cancelled: set.on, ..Governance::default() })
        };
        Guards { governance: self.governance.iter().map(lift).collect(), ..Guards::default() }
    }

    /// What is to be joined in to set (`true`) or lift every hold that stands in `self`.
    pub fn hold(&self, on: bool, stamp: &Stamp) -> Guards {
        let holds = if on {
            [(stamp.origin.clone(), Hold { on: stamp.hlc, cancelled: Hlc::ZERO })].into()
        } else {
            let lift = |(origin, hold): (&Origin, &Hold)| (origin.clone(), Hold { on: Hlc::ZERO, cancelled: hold.on });
            self.holds.iter().map(lift).collect()
        };
        Guards { holds, ..Guards::default() }
    }

    /// Joins `other` in: the later compliance date, and per site the newest setting and the newest
    /// lifting. Commutative, associative, idempotent.
    pub fn join(&mut self, other: &Guards) {
        self.compliance = self.compliance.max(other.compliance);
        for (origin, theirs) in &other.governance {
            let ours = self.governance.entry(origin.clone()).or_default();
            (ours.on, ours.until_millis) = (ours.on, ours.until_millis).max((theirs.on, theirs.until_millis));
            ours.cancelled = ours.cancelled.max(theirs.cancelled);
        }
        for (origin, theirs) in &other.holds {
            let ours = self.holds.entry(origin.clone()).or_default();
            ours.on = ours.on.max(theirs.on);
            ours.cancelled = ours.cancelled.max(theirs.cancelled);
        }
        self.unknown.join(&other.unknown);
    }

    /// Whether joining `other` in would teach nothing.
    pub fn hold_all_of(&self, other: &Guards) -> bool {
        let mut both = self.clone();
        both.join(other);
        both == *self
    }

    /// All but what `site` set: liftings of that too, which anybody may have made, and the compliance date, which
    /// is nobody's.
    pub fn but_set_at(&self, site: &Origin) -> Guards {
        let mut part = self.clone();
        if let Some(set) = part.governance.remove(site).filter(|set| set.cancelled > Hlc::ZERO) {
            part.governance.insert(site.clone(), Governance { cancelled: set.cancelled, ..Governance::default() });
        }
        if let Some(hold) = part.holds.remove(site).filter(|hold| hold.cancelled > Hlc::ZERO) {
            part.holds.insert(site.clone(), Hold { on: Hlc::ZERO, cancelled: hold.cancelled });
        }
        part
    }

    /// Whether whoever saw `self` had seen every guard that was ever set in `now`. Liftings do not
    /// count: a hold lifted later does not make a purge good that had not seen the hold.
    pub fn cover(&self, now: &Guards) -> bool {
        let governed = now
            .governance
            .iter()
            .all(|(origin, theirs)| self.governance.get(origin).map_or(Hlc::ZERO, |ours| ours.on) >= theirs.on);
        let held = now
            .holds
            .iter()
            .all(|(origin, theirs)| self.holds.get(origin).map_or(Hlc::ZERO, |ours| ours.on) >= theirs.on);
        self.compliance.until_millis >= now.compliance.until_millis && governed && held
    }

    /// Greatest clock reading in any guard.
    pub fn max_hlc(&self) -> Hlc {
        let governance = self.governance.values().map(|g| g.on.max(g.cancelled));
        let holds = self.holds.values().map(|h| h.on.max(h.cancelled));
        governance.chain(holds).max().unwrap_or(Hlc::ZERO).max(self.compliance.on)
    }

    fn standing_governance(&self) -> Option<u64> {
        self.governance.values().filter(|g| g.on > g.cancelled).map(|g| g.until_millis).max()
    }

    /// The guards as fields.
    pub fn to_fields(&self) -> Fields {
        let mut f = self.unknown.clone();
        if self.compliance.until_millis > 0 {
            f.put(1, &self.compliance.until_millis);
        }
        if self.compliance.on > Hlc::ZERO {
            f.put(4, &self.compliance.on.bits());
        }
        for (number, rows) in [(2, self.governance_rows()), (3, self.hold_rows())] {
            if !rows.is_empty() {
                f.put(number, &rows);
            }
        }
        f
    }

    /// Guards from their fields.
    ///
    /// # Errors
    /// [`wire::Error`] when a field is of another type.
    pub fn from_fields(mut f: Fields) -> Result<Self, wire::Error> {
        let compliance = Compliance {
            until_millis: f.take(1)?.unwrap_or_default(),
            on: Hlc::from_bits(f.take(4)?.unwrap_or_default()),
        };
        let mut guards = Guards { compliance, ..Guards::default() };
        for (origin, on, until_millis, cancelled) in f.take::<Vec<Row>>(2)?.unwrap_or_default() {
            let set = Governance { on: Hlc::from_bits(on), until_millis, cancelled: Hlc::from_bits(cancelled) };
            guards.governance.insert(Origin::new(&origin), set);
        }
        for (origin, on, _, cancelled) in f.take::<Vec<Row>>(3)?.unwrap_or_default() {
            let hold = Hold { on: Hlc::from_bits(on), cancelled: Hlc::from_bits(cancelled) };
            guards.holds.insert(Origin::new(&origin), hold);
        }
        guards.unknown = f;
        Ok(guards)
    }

    fn governance_rows(&self) -> Vec<Row> {
        let row = |(o, g): (&Origin, &Governance)| (o.to_string(), g.on.bits(), g.until_millis, g.cancelled.bits());
        self.governance.iter().map(row).collect()
    }

    fn hold_rows(&self) -> Vec<Row> {
        let row = |(o, h): (&Origin, &Hold)| (o.to_string(), h.on.bits(), 0, h.cancelled.bits());
        self.holds.iter().map(row).collect()
    }
}

/// Origin, set at (HLC bits), until (Unix ms; 0 for a hold), lifted up to (HLC bits).
type Row = (String, u64, u64, u64);

/// Guards a purge had seen and its stamp, each as the bytes of its fields.
pub(super) type PurgeRow = (minicbor::bytes::ByteVec, minicbor::bytes::ByteVec);

/// The purges of a version: for each set of guards that purgers had seen, the earliest stamp.
///
/// They are kept apart because two purges that each saw another guard do not add up to one that saw both.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Purges(BTreeMap<Guards, Stamp>);

impl From<Stamp> for Purges {
    /// A purge by somebody who had seen no guards.
    fn from(stamp: Stamp) -> Self {
        Purges::one(Guards::default(), stamp)
    }
}

impl Purges {
    /// One purge, made by somebody who had seen `seen`.
    pub fn one(seen: Guards, stamp: Stamp) -> Self {
        Purges([(seen, stamp)].into())
    }

    /// Whether nobody ever purged.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The earliest purge that counts against these guards: it had seen them all and was made when
    /// none of them stood. `None`: none counts, and the version lives.
    pub fn effective(&self, now: &Guards) -> Option<&Stamp> {
        let counts =
            |(seen, stamp): &(&Guards, &Stamp)| seen.cover(now) && seen.permit_purge(stamp.hlc.millis()).is_ok();
        self.0.iter().filter(counts).map(|(_, stamp)| stamp).min()
    }

    /// Joins `other` in. Commutative, associative, idempotent.
    pub fn join(&mut self, other: &Purges) {
        for (seen, theirs) in &other.0 {
            match self.0.get_mut(seen) {
                Some(ours) => *ours = ours.clone().earlier(theirs.clone()),
                None => _ = self.0.insert(seen.clone(), theirs.clone()),
            }
        }
    }

    /// Whether joining `other` in would teach nothing.
    pub fn hold_all_of(&self, other: &Purges) -> bool {
        let mut both = self.clone();
        both.join(other);
        both == *self
    }

    /// The purge that had seen no guards, and the others as rows of fields (guards seen, stamp).
    pub(super) fn to_parts(&self) -> (Option<&Stamp>, Vec<PurgeRow>) {
        let row = |(seen, stamp): (&Guards, &Stamp)| {
            (seen.to_fields().to_bytes().into(), stamp.to_fields().to_bytes().into())
        };
        let plain = self.0.get(&Guards::default());
        (plain, self.0.iter().filter(|(seen, _)| !seen.is_empty()).map(row).collect())
    }

    /// Purges from what [`Purges::to_parts`] gave.
    ///
    /// # Errors
    /// [`wire::Error`] when a row does not hold guards and a stamp.
    pub(super) fn from_parts(plain: Option<Stamp>, rows: Vec<PurgeRow>) -> Result<Self, wire::Error> {
        let mut purges = plain.map(|stamp| Purges::one(Guards::default(), stamp)).unwrap_or_default();
        for (seen, stamp) in rows {
            let seen = Guards::from_fields(Fields::parse(&seen)?)?;
            purges.join(&Purges::one(seen, Stamp::from_fields(Fields::parse(&stamp)?)?));
        }
        Ok(purges)
    }

    /// Every purge with what it had seen.
    pub fn iter(&self) -> impl Iterator<Item = (&Guards, &Stamp)> {
        self.0.iter()
    }

    /// Keeps the purges whose stamp passes.
    pub fn retain(&mut self, mut keep: impl FnMut(&Stamp) -> bool) {
        self.0.retain(|_, stamp| keep(stamp));
    }
}

#[cfg(test)]
pub(super) mod tests;
