//! PostgreSQL text and binary values → Arrow columns.
//!
//! One [`CellReader`] per column collects cells until [`CellReader::finish`]. Used by
//! `COPY … FROM` and for the parameters of the Postgres door. Text follows PostgreSQL's input
//! rules; a value that does not fit is an error with its code, never a NULL.

pub(super) mod datetime;
mod list;
mod number;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, PrimitiveBuilder,
    StringBuilder,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use catalog::SqlType;
use chrono_tz::Tz;

use super::pg_type::Kind;
use crate::error::{Error, Result, SqlState};
use crate::types::{arrow_type, sql_type};

pub(super) use number::natural_scale;

/// Collects the cells of one column.
pub trait CellReader: Send {
    /// Appends a value given as text.
    fn text(&mut self, text: &str) -> Result<()>;
    /// Appends a value given in PostgreSQL's binary format.
    fn binary(&mut self, bytes: &[u8]) -> Result<()>;
    /// Appends a NULL.
    fn null(&mut self);
    /// Hands the cells over and starts again.
    fn finish(&mut self) -> Result<ArrayRef>;
}

/// A reader whose arrays have exactly the field's Arrow type.
pub fn reader(field: &Field, zone: Tz) -> Result<Box<dyn CellReader>> {
    if Kind::of(field) == Kind::Json {
        return Err(unsupported(field.data_type()));
    }
    let sql = sql_type(field);
    let inner = of_type(&sql, zone)?;
    if &arrow_type(&sql) == field.data_type() {
        return Ok(inner);
    }
    Ok(Box::new(Cast {
        inner,
        target: field.data_type().clone(),
    }))
}

fn unsupported(ty: impl std::fmt::Display) -> Error {
    Error::unsupported(
        format!("values of type \"{ty}\" cannot be read from a client"),
        "send it as text or jsonb and convert it in a query",
    )
}

/// A reader for a type in its canonical Arrow form.
pub fn of_type(sql: &SqlType, zone: Tz) -> Result<Box<dyn CellReader>> {
    Ok(match sql {
        SqlType::Bool => Box::new(Bool(BooleanBuilder::new())),
        SqlType::Int2 => Primitive::<Int16Type, _, _>::boxed(
            number::int2,
            |b| Ok(i16::from_be_bytes(exact("smallint", b)?)),
            arrow_type(sql),
        ),
        SqlType::Int4 => Primitive::<Int32Type, _, _>::boxed(
            number::int4,
            |b| Ok(i32::from_be_bytes(exact("integer", b)?)),
            arrow_type(sql),
        ),
        SqlType::Int8 => Primitive::<Int64Type, _, _>::boxed(
            number::int8,
            |b| Ok(i64::from_be_bytes(exact("bigint", b)?)),
            arrow_type(sql),
        ),
        SqlType::Float4 => Primitive::<Float32Type, _, _>::boxed(
            number::float4,
            |b| Ok(f32::from_be_bytes(exact("real", b)?)),
            arrow_type(sql),
        ),
        SqlType::Float8 => Primitive::<Float64Type, _, _>::boxed(
            number::float8,
            |b| Ok(f64::from_be_bytes(exact("double precision", b)?)),
            arrow_type(sql),
        ),
        SqlType::Numeric { precision, scale } => {
            let (precision, scale) = (*precision, *scale);
            if precision > 38 {
                return Err(unsupported(sql));
            }
            Primitive::<Decimal128Type, _, _>::boxed(
                move |text| number::decimal(text, precision, scale),
                move |bytes| number::decimal_binary(bytes, precision, scale),
                arrow_type(sql),
            )
        }
        SqlType::Text | SqlType::Json | SqlType::Jsonb | SqlType::Uuid | SqlType::Varchar(_) => {
            Box::new(Text {
                kind: sql.clone(),
                builder: StringBuilder::new(),
            })
        }
        SqlType::Bytea => Box::new(Bytea(BinaryBuilder::new())),
        SqlType::Date => Primitive::<Date32Type, _, _>::boxed(
            datetime::date,
            datetime::date_binary,
            arrow_type(sql),
        ),
        SqlType::Time => Primitive::<Time64MicrosecondType, _, _>::boxed(
            datetime::time,
            datetime::time_binary,
            arrow_type(sql),
        ),
        SqlType::Timestamp => Primitive::<TimestampMicrosecondType, _, _>::boxed(
            |text| datetime::timestamp(text, None),
            datetime::timestamp_binary,
            arrow_type(sql),
        ),
        SqlType::Timestamptz => Primitive::<TimestampMicrosecondType, _, _>::boxed(
            move |text| datetime::timestamp(text, Some(zone)),
            datetime::timestamp_binary,
            arrow_type(sql),
        ),
        SqlType::Interval => Primitive::<IntervalMonthDayNanoType, _, _>::boxed(
            datetime::interval,
            datetime::interval_binary,
            arrow_type(sql),
        ),
        SqlType::Array(of) => Box::new(list::List::new(of, of_type(of, zone)?)?),
        SqlType::Record(_) => return Err(unsupported(sql)),
    })
}

/// `invalid input syntax for type t: "text"`.
fn bad_syntax(kind: &str, text: &str) -> Error {
    Error::refused(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type {kind}: \"{}\"", shown(text)),
    )
}

/// A value for an error message, not too long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn bad_binary(kind: &str) -> Error {
    Error::refused(
        SqlState("22P03"),
        format!("incorrect binary data format for type {kind}"),
    )
}

/// Exactly `N` bytes of a binary value.
fn exact<const N: usize>(kind: &str, bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| bad_binary(kind))
}

/// UTF-8 without NUL bytes.
pub(super) fn valid_text(bytes: &[u8]) -> Result<&str> {
    let refuse = || {
        Error::refused(
            SqlState("22021"),
            "invalid byte sequence for encoding \"UTF8\"",
        )
    };
    let text = std::str::from_utf8(bytes).map_err(|_| refuse())?;
    if bytes.contains(&0) {
        return Err(refuse());
    }
    Ok(text)
}

struct Primitive<T: ArrowPrimitiveType, F, G> {
    builder: PrimitiveBuilder<T>,
    from_text: F,
    from_binary: G,
}

impl<T, F, G> Primitive<T, F, G>
where
    T: ArrowPrimitiveType,
    F: Fn(&str) -> Result<T::Native> + Send + 'static,
    G: Fn(&[u8]) -> Result<T::Native> + Send + 'static,
{
    fn boxed(from_text: F, from_binary: G, ty: DataType) -> Box<dyn CellReader> {
        Box::new(Self {
            builder: PrimitiveBuilder::new().with_data_type(ty),
            from_text,
            from_binary,
        })
    }
}

impl<T, F, G> CellReader for Primitive<T, F, G>
where
    T: ArrowPrimitiveType,
    F: Fn(&str) -> Result<T::Native> + Send,
    G: Fn(&[u8]) -> Result<T::Native> + Send,
{
    fn text(&mut self, text: &str) -> Result<()> {
        self.builder.append_value((self.from_text)(text)?);
        Ok(())
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        self.builder.append_value((self.from_binary)(bytes)?);
        Ok(())
    }

    fn null(&mut self) {
        self.builder.append_null();
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(self.builder.finish()))
    }
}

struct Bool(BooleanBuilder);

impl CellReader for Bool {
    fn text(&mut self, text: &str) -> Result<()> {
        let word = text.trim().to_ascii_lowercase();
        let value = match word.as_str() {
            "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => true,
            "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => false,
            _ => return Err(bad_syntax("boolean", text)),
        };
        self.0.append_value(value);
        Ok(())
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        let [byte] = exact("boolean", bytes)?;
        self.0.append_value(byte != 0);
        Ok(())
    }

    fn null(&mut self) {
        self.0.append_null();
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(self.0.finish()))
    }
}

struct Bytea(BinaryBuilder);

impl CellReader for Bytea {
    fn text(&mut self, text: &str) -> Result<()> {
        self.0.append_value(bytea(text)?);
        Ok(())
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.append_value(bytes);
        Ok(())
    }

    fn null(&mut self) {
        self.0.append_null();
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(self.0.finish()))
    }
}

/// `\x…` hexadecimal or the older escape form.
fn bytea(text: &str) -> Result<Vec<u8>> {
    let digit = |b: u8, base: u32| {
        char::from(b)
            .to_digit(base)
            .and_then(|d| u8::try_from(d).ok())
            .ok_or_else(|| bad_syntax("bytea", text))
    };
    if let Some(hex) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        return digits
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Ok(digit(*high, 16)? << 4 | digit(*low, 16)?),
                _ => Err(bad_syntax("bytea", text)),
            })
            .collect();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        match *rest {
            [b'\\', ref tail @ ..] => {
                out.push(b'\\');
                rest = tail;
            }
            [a @ b'0'..=b'3', b, c, ref tail @ ..] => {
                out.push(digit(a, 8)? << 6 | digit(b, 8)? << 3 | digit(c, 8)?);
                rest = tail;
            }
            _ => return Err(bad_syntax("bytea", text)),
        }
    }
    Ok(out)
}

/// Text and the types kept as text.
struct Text {
    kind: SqlType,
    builder: StringBuilder,
}

impl CellReader for Text {
    fn text(&mut self, text: &str) -> Result<()> {
        match &self.kind {
            SqlType::Uuid => {
                let plain = text.trim();
                let plain = plain
                    .strip_prefix('{')
                    .and_then(|t| t.strip_suffix('}'))
                    .unwrap_or(plain);
                let value = uuid::Uuid::try_parse(plain).map_err(|_| bad_syntax("uuid", text))?;
                let mut buffer = uuid::Uuid::encode_buffer();
                self.builder
                    .append_value(value.hyphenated().encode_lower(&mut buffer));
            }
            SqlType::Json | SqlType::Jsonb => {
                serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|e| {
                    Error::refused(
                        SqlState::INVALID_TEXT_REPRESENTATION,
                        format!("invalid input syntax for type {}", self.kind),
                    )
                    .with_detail(e.to_string())
                })?;
                self.builder.append_value(text);
            }
            SqlType::Varchar(n) => {
                let limit = usize::try_from(*n).unwrap_or(usize::MAX);
                // blanks beyond the limit are cut, anything else is refused
                let kept = match text.char_indices().nth(limit) {
                    Some((at, _)) if text[at..].trim_matches(' ').is_empty() => &text[..at],
                    Some(_) => {
                        return Err(Error::refused(
                            SqlState("22001"),
                            format!("value too long for type {}", self.kind),
                        ));
                    }
                    None => text,
                };
                self.builder.append_value(kept);
            }
            _ => self.builder.append_value(text),
        }
        Ok(())
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        match &self.kind {
            SqlType::Uuid => {
                let value = uuid::Uuid::from_bytes(exact("uuid", bytes)?);
                let mut buffer = uuid::Uuid::encode_buffer();
                self.builder
                    .append_value(value.hyphenated().encode_lower(&mut buffer));
                Ok(())
            }
            SqlType::Jsonb => match bytes {
                [1, rest @ ..] => self.text(valid_text(rest)?),
                _ => Err(bad_binary("jsonb")),
            },
            _ => self.text(valid_text(bytes)?),
        }
    }

    fn null(&mut self) {
        self.builder.append_null();
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(self.builder.finish()))
    }
}

/// Reads the canonical type and hands over another Arrow form of it.
struct Cast {
    inner: Box<dyn CellReader>,
    target: DataType,
}

impl CellReader for Cast {
    fn text(&mut self, text: &str) -> Result<()> {
        self.inner.text(text)
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.binary(bytes)
    }

    fn null(&mut self) {
        self.inner.null();
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        cast_exact(&self.inner.finish()?, &self.target)
    }
}

/// A cast in which a value that does not fit is an error.
pub(crate) fn cast_exact(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    if array.data_type() == target {
        return Ok(Arc::clone(array));
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    Ok(cast_with_options(array, target, &options)?)
}
