//! Object lock: the bucket's configuration, retention and legal hold of a version, and the headers that ask
//! for them and show them.
//!
//! Errors and their words: Amazon S3 API Reference, PutObjectLockConfiguration, PutObjectRetention.
use crate::bucket::lock::{DefaultRetention, Lock, Period, Protection};
use crate::object::{Error, Opened};
use crate::s3::auth::bypasses;
use crate::s3::read::open;
use crate::s3::write::traced;
use crate::s3::{FrontDoor, timestamp, version_id};
use crate::version::guard::{Mode, Retention};
use s3s::dto::{
    DefaultRetention as DefaultRetentionRule, GetObjectLegalHoldInput, GetObjectLegalHoldOutput,
    GetObjectLockConfigurationInput, GetObjectLockConfigurationOutput, GetObjectRetentionInput,
    GetObjectRetentionOutput, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockLegalHold,
    ObjectLockLegalHoldStatus, ObjectLockRetention, ObjectLockRetentionMode, ObjectLockRule, PutObjectLegalHoldInput,
    PutObjectLegalHoldOutput, PutObjectLockConfigurationInput, PutObjectLockConfigurationOutput,
    PutObjectRetentionInput, PutObjectRetentionOutput, Timestamp, TimestampFormat,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

/// The protection that the headers of a write ask for.
macro_rules! asked {
    ($input:expr) => {
        $crate::s3::lock::protection(
            $input.object_lock_mode.as_ref().map(|m| m.as_str()),
            $input.object_lock_retain_until_date.as_ref(),
            $input.object_lock_legal_hold_status.as_ref().map(|s| s.as_str()),
        )
    };
}
pub(crate) use asked;

/// Fills the headers that show the guards of a version.
macro_rules! show {
    ($out:expr, $guards:expr) => {{
        let guards = $guards;
        let retention = guards.retention();
        $out.object_lock_mode = retention.map(|r| s3s::dto::ObjectLockMode::from_static(r.mode.name()));
        $out.object_lock_retain_until_date = retention.map(|r| timestamp(r.until_millis));
        $out.object_lock_legal_hold_status = guards.was_held().then(|| $crate::s3::lock::hold_status(guards.is_held()));
    }};
}
pub(crate) use show;

/// What the lock headers ask for, in S3's words.
pub fn protection(mode: Option<&str>, until: Option<&Timestamp>, hold: Option<&str>) -> S3Result<Protection> {
    let retention = match (mode, until) {
        (None, None) => None,
        (Some(mode), Some(until)) => {
            let mode = Mode::named(mode).ok_or_else(|| s3_error!(InvalidArgument, "Unknown wormMode directive."))?;
            Some(Retention { mode, until_millis: millis(until)? })
        }
        _ => {
            let both = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied.";
            return Err(s3_error!(InvalidArgument, "{both}"));
        }
    };
    let legal_hold = match hold {
        None | Some(ObjectLockLegalHoldStatus::OFF) => false,
        Some(ObjectLockLegalHoldStatus::ON) => true,
        Some(_) => return Err(s3_error!(InvalidArgument, "Legal Hold must be either of 'ON' or 'OFF'.")),
    };
    Ok(Protection { retention, legal_hold })
}

pub fn hold_status(is_held: bool) -> ObjectLockLegalHoldStatus {
    ObjectLockLegalHoldStatus::from_static(if is_held {
        ObjectLockLegalHoldStatus::ON
    } else {
        ObjectLockLegalHoldStatus::OFF
    })
}

/// A date of a request in Unix milliseconds; what lies before 1970 has ended like all that is past.
fn millis(date: &Timestamp) -> S3Result<u64> {
    let unreadable = || s3_error!(InvalidArgument, "The retain until date is not valid.");
    let mut text = Vec::new();
    date.format(TimestampFormat::EpochSeconds, &mut text).map_err(|_| unreadable())?;
    let seconds: f64 = String::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or_else(unreadable)?;
    Ok((seconds * 1000.0).round() as u64)
}

pub async fn bucket(
    door: &FrontDoor,
    request: S3Request<GetObjectLockConfigurationInput>,
) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
    let bucket = door.objects.bucket(&request.input.bucket).await.map_err(|e| door.unread(e))?;
    let none = || {
        let why = "Object Lock configuration does not exist for this bucket.";
        s3_error!(ObjectLockConfigurationNotFoundError, "{why}")
    };
    let lock = bucket.lock.ok_or_else(none)?;
    let rule = |default: DefaultRetention| {
        let (days, years) = match default.period {
            Period::Days(days) => (Some(days), None),
            Period::Years(years) => (None, Some(years)),
        };
        ObjectLockRule {
            default_retention: Some(DefaultRetentionRule {
                days: days.and_then(|n| i32::try_from(n).ok()),
                mode: Some(ObjectLockRetentionMode::from_static(default.mode.name())),
                years: years.and_then(|n| i32::try_from(n).ok()),
            }),
        }
    };
    Ok(S3Response::new(GetObjectLockConfigurationOutput {
        object_lock_configuration: Some(ObjectLockConfiguration {
            object_lock_enabled: Some(ObjectLockEnabled::from_static(ObjectLockEnabled::ENABLED)),
            rule: lock.default_retention.map(rule),
        }),
    }))
}

pub async fn set_bucket(
    door: &FrontDoor,
    request: S3Request<PutObjectLockConfigurationInput>,
) -> S3Result<S3Response<PutObjectLockConfigurationOutput>> {
    let input = request.input;
    let malformed = || s3_error!(MalformedXML, "ObjectLockEnabled is Enabled; a rule has a mode and days or years.");
    let asked = input.object_lock_configuration.ok_or_else(malformed)?;
    if asked.object_lock_enabled.as_ref().map(|e| e.as_str()) != Some(ObjectLockEnabled::ENABLED) {
        return Err(malformed());
    }
    let default = match asked.rule {
        None => None,
        Some(rule) => {
            let rule = rule.default_retention.ok_or_else(malformed)?;
            let mode = rule.mode.as_ref().and_then(|m| Mode::named(m.as_str())).ok_or_else(malformed)?;
            Some(DefaultRetention { mode, period: period(rule.days, rule.years).ok_or_else(malformed)?? })
        }
    };
    let done = door.objects.set_lock(&input.bucket, Lock { default_retention: default }).await;
    done.map_err(|error| match error {
        Error::Conflict(why) => s3_error!(InvalidBucketState, "{why}"),
        other => door.fail(other),
    })?;
    Ok(S3Response::new(PutObjectLockConfigurationOutput::default()))
}

/// The period of a default retention; `None` unless it is in exactly one unit.
fn period(days: Option<i32>, years: Option<i32>) -> Option<S3Result<Period>> {
    let not_positive = || s3_error!(InvalidArgument, "Default retention period must be a positive integer value.");
    let count = |n: i32| u32::try_from(n).map_err(|_| not_positive());
    match (days, years) {
        (Some(days), None) => Some(count(days).map(Period::Days)),
        (None, Some(years)) => Some(count(years).map(Period::Years)),
        _ => None,
    }
}

pub async fn retention(
    door: &FrontDoor,
    request: S3Request<GetObjectRetentionInput>,
) -> S3Result<S3Response<GetObjectRetentionOutput>> {
    let input = request.input;
    let opened = open_locked(door, &input.bucket, &input.key, input.version_id.as_deref()).await?;
    let retention = opened.version.guards().retention().ok_or_else(unguarded)?;
    Ok(S3Response::new(GetObjectRetentionOutput {
        retention: Some(ObjectLockRetention {
            mode: Some(ObjectLockRetentionMode::from_static(retention.mode.name())),
            retain_until_date: Some(timestamp(retention.until_millis)),
        }),
    }))
}

pub async fn set_retention(
    door: &FrontDoor,
    request: S3Request<PutObjectRetentionInput>,
) -> S3Result<S3Response<PutObjectRetentionOutput>> {
    let S3Request { input, headers, extensions, .. } = request;
    let traced = traced("PutObjectRetention", &input.bucket, &input.key, &headers, &extensions);
    let malformed = || s3_error!(MalformedXML, "A retention has a mode and a date, or neither to remove it.");
    let asked = input.retention.ok_or_else(malformed)?;
    let asked = match (asked.mode, asked.retain_until_date) {
        (None, None) => None,
        (Some(mode), Some(until)) => {
            let mode = Mode::named(mode.as_str()).ok_or_else(malformed)?;
            Some(Retention { mode, until_millis: millis(&until)? })
        }
        _ => return Err(malformed()),
    };
    let id = version_id(input.version_id.as_deref())?;
    let bypass = bypasses(input.bypass_governance_retention, &extensions);
    let (bucket, key) = (&input.bucket, &input.key);
    let retaining = door.objects.set_retention_for(bucket, key, id, asked, bypass, traced.traceparent());
    let retained = traced.until(retaining, |version| Some(*version)).await;
    retained.map_err(|e| door.fail_by_id(e, id.is_some()))?;
    Ok(S3Response::new(PutObjectRetentionOutput::default()))
}

pub async fn hold(
    door: &FrontDoor,
    request: S3Request<GetObjectLegalHoldInput>,
) -> S3Result<S3Response<GetObjectLegalHoldOutput>> {
    let input = request.input;
    let opened = open_locked(door, &input.bucket, &input.key, input.version_id.as_deref()).await?;
    let guards = opened.version.guards();
    if !guards.was_held() {
        return Err(unguarded());
    }
    Ok(S3Response::new(GetObjectLegalHoldOutput {
        legal_hold: Some(ObjectLockLegalHold { status: Some(hold_status(guards.is_held())) }),
    }))
}

pub async fn set_hold(
    door: &FrontDoor,
    request: S3Request<PutObjectLegalHoldInput>,
) -> S3Result<S3Response<PutObjectLegalHoldOutput>> {
    let S3Request { input, headers, extensions, .. } = request;
    let traced = traced("PutObjectLegalHold", &input.bucket, &input.key, &headers, &extensions);
    let asked = input.legal_hold.and_then(|hold| hold.status);
    let on = match asked.as_ref().map(|s| s.as_str()) {
        Some(ObjectLockLegalHoldStatus::ON) => true,
        Some(ObjectLockLegalHoldStatus::OFF) => false,
        _ => return Err(s3_error!(MalformedXML, "The status of a legal hold is ON or OFF.")),
    };
    let id = version_id(input.version_id.as_deref())?;
    let holding = door.objects.set_hold_for(&input.bucket, &input.key, id, on, traced.traceparent());
    let held = traced.until(holding, |version| Some(*version)).await;
    held.map_err(|e| door.fail_by_id(e, id.is_some()))?;
    Ok(S3Response::new(PutObjectLegalHoldOutput::default()))
}

/// Opens a version of a bucket with object lock.
async fn open_locked(door: &FrontDoor, bucket: &str, key: &str, id: Option<&str>) -> S3Result<Opened> {
    let held = door.objects.bucket(bucket).await.map_err(|e| door.unread(e))?;
    held.require_lock().map_err(|e| door.unread(e))?;
    open(door, bucket, key, id).await
}

fn unguarded() -> s3s::S3Error {
    s3_error!(NoSuchObjectLockConfiguration, "The specified object does not have a ObjectLock configuration.")
}
