//! The times of an event.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, TimeZone, Utc};
use serde_json::value::RawValue;

use super::{Common, Object, is_null, text};
use crate::error::{Error, Result, SqlState};

/// Times that are none are no times of another meaning.
pub(super) fn check_times(fields: &Object<'_>) -> Result<()> {
    for name in ["timestamp", "originalTimestamp", "sentAt"] {
        if fields
            .get(name)
            .is_some_and(|raw| !is_null(raw) && time(raw).is_none())
        {
            return Err(Error::refused(
                SqlState::INVALID_DATETIME_FORMAT,
                format!("\"{name}\" is no time"),
            )
            .with_hint("times are texts in ISO 8601, or milliseconds since 1970"));
        }
    }
    Ok(())
}

/// When it happened: the client's clock corrected by what it showed when the event was sent.
pub(super) fn happened(fields: &Object<'_>, common: &Common<'_>) -> DateTime<Utc> {
    match (original(fields), sent(fields, common)) {
        (None, _) => common.received,
        (Some(original), None) => original,
        (Some(original), Some(sent)) => {
            let corrected = common.received.checked_sub_signed(sent - original);
            corrected.unwrap_or(original)
        }
    }
}

/// When it happened by the client's clock.
pub(super) fn original(fields: &Object<'_>) -> Option<DateTime<Utc>> {
    ["originalTimestamp", "timestamp"]
        .iter()
        .find_map(|name| time(fields.get(*name)?))
}

/// When it was sent by the client's clock.
pub(super) fn sent(fields: &Object<'_>, common: &Common<'_>) -> Option<DateTime<Utc>> {
    let own = fields.get("sentAt").and_then(|raw| time(raw));
    own.or(common.sent)
}

/// A time in ISO 8601, or in milliseconds since the Unix epoch.
pub(super) fn time(raw: &RawValue) -> Option<DateTime<Utc>> {
    if let Ok(millis) = raw.get().parse::<i64>() {
        return Utc.timestamp_millis_opt(millis).single();
    }
    let text = text(raw)?;
    if let Ok(time) = DateTime::parse_from_rfc3339(&text) {
        return Some(time.to_utc());
    }
    ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z"]
        .iter()
        .find_map(|format| DateTime::parse_from_str(&text, format).ok())
        .map(|time| time.to_utc())
        .or_else(|| {
            ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
                .iter()
                .find_map(|format| chrono::NaiveDateTime::parse_from_str(&text, format).ok())
                .map(|time| time.and_utc())
        })
}

/// A time as the column reads it.
pub(super) fn moment(time: DateTime<Utc>) -> Cow<'static, str> {
    let text = time.to_rfc3339_opts(SecondsFormat::Micros, true);
    Cow::Owned(format!("\"{text}\""))
}
