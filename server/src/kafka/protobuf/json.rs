//! Values as JSON: protobuf's own mapping, with names as the schema spells them and whole numbers of 64
//! bits as numbers, since SQL reads it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage, Value};

use super::known::{self, Known};
use super::malformed;
use crate::error::{Error, Result};

/// Messages inside each other; the reader of messages allows as many, but anew inside every `Any`.
const DEEPEST: usize = 100;

/// How bytes are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bytes {
    /// As protobuf's mapping has it.
    Base64,
    /// For a column of arrays of bytes.
    Hex,
}

/// Writes one value.
pub(super) fn write(value: &Value, kind: &Kind, bytes: Bytes, out: &mut String) -> Result<()> {
    Writer { bytes, depth: 0 }.value(value, kind, out)
}

struct Writer {
    bytes: Bytes,
    depth: usize,
}

impl Writer {
    fn value(&mut self, value: &Value, kind: &Kind, out: &mut String) -> Result<()> {
        match value {
            Value::Bool(v) => plain(v, out),
            Value::I32(v) => plain(v, out),
            Value::I64(v) => plain(v, out),
            Value::U32(v) => plain(v, out),
            Value::U64(v) => plain(v, out),
            Value::F32(v) if v.is_finite() => json(v, out)?,
            Value::F64(v) if v.is_finite() => json(v, out)?,
            Value::F32(v) => json(known::not_finite(f64::from(*v)), out)?,
            Value::F64(v) => json(known::not_finite(*v), out)?,
            Value::String(v) => json(v, out)?,
            Value::Bytes(v) => match self.bytes {
                Bytes::Base64 => json(&BASE64_STANDARD.encode(v), out)?,
                // arrow's reader wants the digits alone
                Bytes::Hex => json(
                    crate::kafka::messages::hex(v).trim_start_matches("\\x"),
                    out,
                )?,
            },
            Value::EnumNumber(number) => match known::name_of(*number, kind) {
                _ if known::is_null(kind) => out.push_str("null"),
                Some(name) => json(&name, out)?,
                None => plain(number, out),
            },
            Value::Message(message) => {
                self.depth += 1;
                if self.depth > DEEPEST {
                    return Err(malformed("messages lie too deep inside each other"));
                }
                self.message(message, out)?;
                self.depth -= 1;
            }
            Value::List(values) => self.list(values, kind, out)?,
            Value::Map(entries) => {
                let Kind::Message(entry) = kind else {
                    return Err(malformed("a map has no entries"));
                };
                let kind = entry.map_entry_value_field().kind();
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                out.push('{');
                for (n, (key, value)) in entries.into_iter().enumerate() {
                    comma(n, out);
                    json(&key_text(key), out)?;
                    out.push(':');
                    self.value(value, &kind, out)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }

    fn list(&mut self, values: &[Value], kind: &Kind, out: &mut String) -> Result<()> {
        out.push('[');
        for (n, value) in values.iter().enumerate() {
            comma(n, out);
            self.value(value, kind, out)?;
        }
        out.push(']');
        Ok(())
    }

    fn message(&mut self, message: &DynamicMessage, out: &mut String) -> Result<()> {
        match Known::of(&message.descriptor()) {
            Some(Known::Timestamp) => json(&known::rfc3339(message)?, out),
            Some(Known::Duration) => json(&known::seconds(message)?, out),
            Some(Known::Wrapper | Known::Struct | Known::ListValue) => {
                let (value, kind) = known::only(message)?;
                self.value(&value, &kind, out)
            }
            Some(Known::Value) => match message.fields().next() {
                None => {
                    out.push_str("null");
                    Ok(())
                }
                Some((_, Value::F64(v))) if !v.is_finite() => {
                    Err(malformed("a number of a google.protobuf.Value is none"))
                }
                Some((field, value)) => self.value(value, &field.kind(), out),
            },
            Some(Known::FieldMask) => json(&known::paths(message)?, out),
            Some(Known::Any) => self.any(message, out),
            Some(Known::Empty) | None => {
                out.push('{');
                self.fields(message, 0, out)?;
                out.push('}');
                Ok(())
            }
        }
    }

    /// Fields behind `before` others. One that is not set is left out, unless that means its default.
    fn fields(&mut self, message: &DynamicMessage, before: usize, out: &mut String) -> Result<()> {
        let mut n = before;
        for field in message.descriptor().fields() {
            if field.supports_presence() && !message.has_field(&field) {
                continue;
            }
            comma(n, out);
            n += 1;
            json(field.name(), out)?;
            out.push(':');
            self.value(&message.get_field(&field), &field.kind(), out)?;
        }
        Ok(())
    }

    fn any(&mut self, message: &DynamicMessage, out: &mut String) -> Result<()> {
        let (url, inner) = known::unpacked(message)?;
        out.push_str("{\"@type\":");
        json(&url, out)?;
        match Known::of(&inner.descriptor()) {
            None => self.fields(&inner, 1, out)?,
            Some(_) => {
                out.push_str(",\"value\":");
                let kind = Kind::Message(inner.descriptor());
                self.value(&Value::Message(inner), &kind, out)?;
            }
        }
        out.push('}');
        Ok(())
    }
}

fn comma(n: usize, out: &mut String) {
    if n > 0 {
        out.push(',');
    }
}

fn plain(value: &impl std::fmt::Display, out: &mut String) {
    out.push_str(&value.to_string());
}

fn json<T: serde::Serialize + ?Sized>(value: &T, out: &mut String) -> Result<()> {
    let text = serde_json::to_string(value);
    out.push_str(&text.map_err(|e| Error::Internal(format!("a value has no JSON: {e}")))?);
    Ok(())
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(v) => v.to_string(),
        MapKey::I32(v) => v.to_string(),
        MapKey::I64(v) => v.to_string(),
        MapKey::U32(v) => v.to_string(),
        MapKey::U64(v) => v.to_string(),
        MapKey::String(v) => v.clone(),
    }
}
