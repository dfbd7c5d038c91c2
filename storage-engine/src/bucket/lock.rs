//! Object lock of a bucket: whether it is on, and what retention versions are born with.
//!
//! Once on it stays on, and so does versioning: a null would be overwritten. What a guard permits is
//! decided in `version/guard.rs`; guards of a version that exists are changed in `object/lock.rs`.
//!
//! Source: Amazon S3 User Guide, "Locking objects with Object Lock".
use crate::object::{Bucket, Error, Objects, Versioning};
use crate::version::guard::{Mode, Retention};
use crate::version::{Guards, Stamp};
use std::collections::BTreeMap;

/// Longest default retention, as S3 has it.
const DAYS_MAX: u32 = 36_500;
const YEARS_MAX: u32 = 100;
/// A year of a default retention. Leap days are given away to the safe side.
const DAYS_A_YEAR: u64 = 366;
const MILLIS_A_DAY: u64 = 86_400_000;

/// Object lock of a bucket where it is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// What a version is born with whose writer asks for no retention.
    pub default_retention: Option<DefaultRetention>,
}

/// Retention from birth on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRetention {
    pub mode: Mode,
    pub period: Period,
}

/// How long, in the unit it was given in: S3 shows it again as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Days(u32),
    Years(u32),
}

/// The guards a writer asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// `None`: what the bucket gives by default.
    pub retention: Option<Retention>,
    pub legal_hold: bool,
}

impl Period {
    /// Whether S3 has such a period: at least one, and at most 36,500 days or 100 years.
    pub fn is_valid(self) -> bool {
        match self {
            Period::Days(days) => (1..=DAYS_MAX).contains(&days),
            Period::Years(years) => (1..=YEARS_MAX).contains(&years),
        }
    }
    fn millis(self) -> u64 {
        let days = match self {
            Period::Days(days) => u64::from(days),
            Period::Years(years) => u64::from(years) * DAYS_A_YEAR,
        };
        days * MILLIS_A_DAY
    }
}

impl Objects {
    /// Turns object lock on, or changes what versions are born with from now on. It cannot be turned off.
    ///
    /// # Errors
    /// [`Error::Conflict`] unless versioning is on; [`Error::Invalid`] for a period S3 does not have.
    pub async fn set_lock(&self, bucket: &str, lock: Lock) -> Result<(), Error> {
        if lock.default_retention.is_some_and(|d| !d.period.is_valid()) {
            return Err(Error::Invalid(format!(
                "a default retention lasts 1 to {DAYS_MAX} days or 1 to {YEARS_MAX} years"
            )));
        }
        self.0
            .change_bucket(bucket, |bucket| {
                if bucket.versioning != Versioning::Enabled {
                    let why = format!("object lock needs the versioning of bucket {}; turn it on first", bucket.name);
                    return Err(Error::Conflict(why));
                }
                bucket.lock = Some(lock);
                Ok(())
            })
            .await
    }
}

impl Bucket {
    /// Whether versions born at `now_millis` may ask for this.
    ///
    /// # Errors
    /// [`Error::LockMissing`] where object lock is off; [`Error::Invalid`] for a retention that has ended.
    pub(crate) fn permits(&self, asked: &Protection, now_millis: u64) -> Result<(), Error> {
        if *asked == Protection::default() {
            return Ok(());
        }
        self.require_lock()?;
        lies_ahead(asked.retention, now_millis)
    }

    /// # Errors
    /// [`Error::LockMissing`] where object lock is off.
    pub(crate) fn require_lock(&self) -> Result<Lock, Error> {
        self.lock.ok_or_else(|| Error::LockMissing(self.name.clone()))
    }

    /// The guards of a version born here at `stamp`.
    pub(crate) fn guards_at_birth(&self, asked: &Protection, stamp: &Stamp) -> Guards {
        let by_default = |default: DefaultRetention| Retention {
            mode: default.mode,
            until_millis: stamp.hlc.millis().saturating_add(default.period.millis()),
        };
        let default = self.lock.and_then(|lock| lock.default_retention).map(by_default);
        Guards::at_birth(asked.retention.or(default), asked.legal_hold, stamp)
    }
}

/// # Errors
/// [`Error::Invalid`] for a retention that has ended before it began.
pub(crate) fn lies_ahead(retention: Option<Retention>, now_millis: u64) -> Result<(), Error> {
    match retention {
        Some(retention) if retention.until_millis <= now_millis => {
            Err(Error::Invalid("The retain until date must be in the future!".into()))
        }
        _ => Ok(()),
    }
}

/// Fields of the bucket's document. Each value says mode and length, so that no half of it is ever missing.
const LOCK: &str = "object_lock";
const OFF: &str = "none";

/// Object lock as fields of the bucket's document.
pub(super) fn put_fields(lock: Option<Lock>, fields: &mut BTreeMap<String, String>) {
    let Some(lock) = lock else { return };
    let text = lock.default_retention.map_or(OFF.to_owned(), |DefaultRetention { mode, period }| {
        let (count, unit) = match period {
            Period::Days(days) => (days, "days"),
            Period::Years(years) => (years, "years"),
        };
        format!("{} {count} {unit}", mode.name())
    });
    fields.insert(LOCK.to_owned(), text);
}

/// Object lock out of the fields of a bucket's document; the error names the field that is broken.
pub(super) fn from_fields(fields: &BTreeMap<String, String>) -> Result<Option<Lock>, &'static str> {
    let Some(text) = fields.get(LOCK) else { return Ok(None) };
    if text == OFF {
        return Ok(Some(Lock::default()));
    }
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or(LOCK);
    let mode = Mode::named(word()?).ok_or(LOCK)?;
    let count = word()?.parse().map_err(|_| LOCK)?;
    let period = match word()? {
        "days" => Period::Days(count),
        "years" => Period::Years(count),
        _ => return Err(LOCK),
    };
    Ok(Some(Lock { default_retention: Some(DefaultRetention { mode, period }) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let with = |mode, period| Some(Lock { default_retention: Some(DefaultRetention { mode, period }) });
        for lock in [
            None,
            Some(Lock::default()),
            with(Mode::Governance, Period::Days(36_500)),
            with(Mode::Compliance, Period::Years(7)),
        ] {
            let mut fields = BTreeMap::new();
            put_fields(lock, &mut fields);
            assert_eq!(from_fields(&fields), Ok(lock));
        }
        for broken in ["", "GOVERNANCE", "GOVERNANCE 1", "GOVERNANCE x days", "LAX 1 days", "GOVERNANCE 1 hours"] {
            assert_eq!(from_fields(&BTreeMap::from([(LOCK.to_owned(), broken.to_owned())])), Err(LOCK), "{broken}");
        }
    }

    #[test]
    fn periods_have_the_bounds_of_s3() {
        for (period, is_valid) in [
            (Period::Days(0), false),
            (Period::Days(1), true),
            (Period::Days(36_501), false),
            (Period::Years(100), true),
            (Period::Years(101), false),
        ] {
            assert_eq!(period.is_valid(), is_valid, "{period:?}");
        }
    }
}
