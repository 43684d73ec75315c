//! Protobuf's own message types that mean more than their fields.

use std::borrow::Cow;

use prost::Message;
use prost_reflect::prost_types::{Duration, FieldMask, Timestamp};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage, Value};

use super::malformed;
use crate::error::Result;

/// From 0001-01-01 to the end of 9999, as protobuf says.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Ten thousand years.
const LONGEST: i64 = 315_576_000_000;
const NANOS: i32 = 1_000_000_000;

/// What a type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Timestamp,
    Duration,
    /// One value that may be missing.
    Wrapper,
    Struct,
    ListValue,
    Value,
    FieldMask,
    Any,
    Empty,
}

impl Known {
    pub(super) fn of(message: &MessageDescriptor) -> Option<Self> {
        let name = message.full_name().strip_prefix("google.protobuf.")?;
        Some(match name {
            "Timestamp" => Self::Timestamp,
            "Duration" => Self::Duration,
            "Struct" => Self::Struct,
            "ListValue" => Self::ListValue,
            "Value" => Self::Value,
            "FieldMask" => Self::FieldMask,
            "Any" => Self::Any,
            "Empty" => Self::Empty,
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value"
            | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue" => Self::Wrapper,
            _ => return None,
        })
    }
}

/// The value and its kind in a message of one field.
pub(super) fn only(message: &DynamicMessage) -> Result<(Cow<'_, Value>, Kind)> {
    let field = message.descriptor().get_field(1);
    let field = field.ok_or_else(|| malformed("a type of google.protobuf is not protobuf's"))?;
    Ok((message.get_field(&field), field.kind()))
}

/// The name of an enum's value.
pub(super) fn name_of(number: i32, kind: &Kind) -> Option<String> {
    let value = kind.as_enum()?.get_value(number)?;
    Some(value.name().to_owned())
}

/// True for the enum whose only value means null.
pub(super) fn is_null(kind: &Kind) -> bool {
    kind.as_enum()
        .is_some_and(|e| e.full_name() == "google.protobuf.NullValue")
}

/// How a number that is none is spelled.
pub(super) fn not_finite(value: f64) -> &'static str {
    match value {
        v if v.is_nan() => "NaN",
        v if v > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

/// Microseconds since the Unix epoch; what lies between is cut off.
pub(super) fn micros(message: &DynamicMessage) -> Result<i64> {
    let at = timestamp(message)?;
    Ok(at.seconds * 1_000_000 + i64::from(at.nanos / 1_000))
}

/// A time as RFC 3339 spells it.
pub(super) fn rfc3339(message: &DynamicMessage) -> Result<String> {
    Ok(timestamp(message)?.to_string())
}

/// A duration as protobuf's JSON spells it.
pub(super) fn seconds(message: &DynamicMessage) -> Result<String> {
    Ok(duration(message)?.to_string())
}

/// A duration as PostgreSQL spells an interval.
pub(super) fn interval(message: &DynamicMessage) -> Result<String> {
    let span = duration(message)?;
    let sign = if span.seconds < 0 || span.nanos < 0 {
        "-"
    } else {
        ""
    };
    let (seconds, nanos) = (span.seconds.unsigned_abs(), span.nanos.unsigned_abs());
    Ok(format!("{sign}{seconds}.{nanos:09} seconds"))
}

/// The paths of a mask in one text, with names as JSON has them.
pub(super) fn paths(message: &DynamicMessage) -> Result<String> {
    let mask: FieldMask = reread(message)?;
    let mut text = String::new();
    for path in &mask.paths {
        if !text.is_empty() {
            text.push(',');
        }
        let mut upper = false;
        for c in path.chars() {
            match (c, upper) {
                ('_', _) => upper = true,
                (c, true) => {
                    text.push(c.to_ascii_uppercase());
                    upper = false;
                }
                (c, false) => text.push(c),
            }
        }
    }
    Ok(text)
}

/// What an `Any` holds, with its type as it is spelled there.
pub(super) fn unpacked(message: &DynamicMessage) -> Result<(String, DynamicMessage)> {
    let (url, value) = (
        message.get_field_by_number(1),
        message.get_field_by_number(2),
    );
    let (Some(Value::String(url)), Some(Value::Bytes(value))) = (url.as_deref(), value.as_deref())
    else {
        return Err(malformed("a type of google.protobuf is not protobuf's"));
    };
    let name = url.rsplit('/').next().unwrap_or_default();
    let ty = message.descriptor().parent_pool().get_message_by_name(name);
    let ty = ty.ok_or_else(|| malformed("an Any is of a type that its schema does not know"))?;
    let inner = DynamicMessage::decode(ty, value.as_ref());
    Ok((url.clone(), inner.map_err(|e| malformed(&e.to_string()))?))
}

fn timestamp(message: &DynamicMessage) -> Result<Timestamp> {
    let at: Timestamp = reread(message)?;
    match SECONDS.contains(&at.seconds) && (0..NANOS).contains(&at.nanos) {
        true => Ok(at),
        false => Err(malformed("a time lies outside the years 1 to 9999")),
    }
}

fn duration(message: &DynamicMessage) -> Result<Duration> {
    let span: Duration = reread(message)?;
    let agree = span.seconds.signum() * i64::from(span.nanos.signum()) >= 0;
    match agree && span.seconds.abs() <= LONGEST && span.nanos.abs() < NANOS {
        true => Ok(span),
        false => Err(malformed("a duration is longer than ten thousand years")),
    }
}

fn reread<T: Message + Default>(message: &DynamicMessage) -> Result<T> {
    T::decode(message.encode_to_vec().as_slice()).map_err(|e| malformed(&e.to_string()))
}
