//! Cells → Arrow arrays, strictly: a value that is not of its column's type is an error, never a
//! guess.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, IntervalMonthDayNanoBuilder,
    RecordBatch, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
    new_null_array,
};
use arrow::compute::kernels::cast_utils::{
    Parser, parse_interval_month_day_nano, string_to_datetime,
};
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, IntervalUnit, Schema, SchemaRef, Time64MicrosecondType,
    TimeUnit,
};
use catalog::SqlType;
use chrono::Utc;
use uuid::Uuid;

use super::datetime;
use super::decimal::{self, DecimalError};
use super::exact::is_exact_double;
use super::table::{BadCell, Sizes, at, shortened};
use crate::error::{Error, Result, SqlState};
use crate::types::{self, Evolution, RESCUED, TYPE_KEY, is_canonical_uuid, sql_type};

/// A value as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cell<'a> {
    /// The row does not have the column.
    Absent,
    /// NULL.
    Null,
    /// A text that spells the value, as in CSV.
    Text(&'a str),
    /// A JSON value's text, known to be valid JSON and not null.
    Json(&'a str),
    /// A JSON string with its quotes and without escapes.
    Plain(&'a str),
    /// Bytes as they are, for a column of bytes or texts.
    Bytes(&'a [u8]),
    /// A whole number; for a column of times, microseconds since the Unix epoch.
    Int(i64),
}

impl Cell<'_> {
    /// Bytes of its text.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Absent | Self::Null | Self::Int(_) => 0,
            Self::Text(text) | Self::Json(text) | Self::Plain(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// A key that is no column, or a column whose value is not of its type, with the JSON value.
pub(super) type Stray<'a> = (Cow<'a, str>, &'a str);

/// One builder per column.
pub(super) struct Builders {
    /// What the batch looks like: the columns that are built. All may be null here: constraints
    /// are the table's.
    schema: SchemaRef,
    columns: Vec<(usize, FieldRef, Builder)>,
    rows: usize,
    /// Rows that are to be left out.
    bad: HashSet<usize>,
    /// What becomes of JSON values that are not of their column's type, if they are no error.
    keeps: Option<Evolution>,
    /// JSON objects of what has no place in the columns; made when the first row needs it.
    strays: Option<StringBuilder>,
}

/// A batch, the rows of it that are to be left out, and why some of them are: those of which that
/// shows only now.
type Finished = (RecordBatch, HashSet<usize>, Vec<(usize, Error)>);

impl Builders {
    /// For all columns but `without`.
    pub(super) fn new(table: &SchemaRef, without: &[usize], sizes: &Sizes) -> Self {
        let columns: Vec<_> = table
            .fields()
            .iter()
            .enumerate()
            .filter(|(i, _)| !without.contains(i))
            .map(|(i, f)| {
                let bytes = sizes.bytes.get(i).copied().unwrap_or(0);
                (i, Arc::clone(f), Builder::new(f, sizes.rows, bytes))
            })
            .collect();
        let fields: Vec<Field> = columns
            .iter()
            .map(|(_, f, _)| f.as_ref().clone().with_nullable(true))
            .collect();
        Self {
            schema: Arc::new(Schema::new(fields)),
            columns,
            rows: 0,
            bad: HashSet::new(),
            keeps: Evolution::of(table),
            strays: None,
        }
    }

    /// Rows since the last batch.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a row with what it has beside the columns. A bad one (told with its column) takes a place,
    /// too, and is to be left out.
    pub(super) fn push<'a>(
        &mut self,
        line: usize,
        cells: &[Cell<'a>],
        strays: &mut Vec<Stray<'a>>,
    ) -> Result<(), (usize, BadCell)> {
        let row = self.rows;
        self.rows += 1;
        let keeps = self.keeps;
        let mut columns = self.columns.iter_mut();
        for (i, field, builder) in &mut columns {
            let done = match cells[*i] {
                Cell::Json(json) if keeps.is_some() && builder.rounds(json) => {
                    Err(Misfit::OutOfRange.named(field, json))
                }
                Cell::Absent | Cell::Null if field.is_nullable() => {
                    builder.append_null(line);
                    Ok(())
                }
                Cell::Absent | Cell::Null => Err(BadCell {
                    state: SqlState::NOT_NULL_VIOLATION,
                    message: "null value in a column that is NOT NULL".to_owned(),
                }),
                Cell::Text(text) => builder
                    .append_text(line, text)
                    .map_err(|p| p.named(field, text)),
                Cell::Json(json) => builder
                    .append_json(line, json)
                    .map_err(|p| p.named(field, json)),
                Cell::Plain(json) => builder
                    .append_plain(line, json)
                    .map_err(|p| p.named(field, json)),
                Cell::Bytes(bytes) => builder
                    .append_bytes(line, bytes)
                    .map_err(|p| p.named(field, &String::from_utf8_lossy(bytes))),
                Cell::Int(value) => builder
                    .append_int(value)
                    .map_err(|p| p.named(field, &value.to_string())),
            };
            if let Err(bad) = done {
                // in a column of 'add' its place is kept for it, whatever the column takes
                let kept = match (keeps, cells[*i]) {
                    (Some(Evolution::Add), Cell::Json(json) | Cell::Plain(json)) => Some(json),
                    (Some(Evolution::Rescue), Cell::Json(json) | Cell::Plain(json)) => {
                        field.is_nullable().then_some(json)
                    }
                    _ => None,
                };
                // no text, and so no JSON of ours, holds the character NUL
                let kept = kept.filter(|json| without_nul_escape(json).is_ok());
                // a value that is refused was not appended
                builder.append_null(line);
                let Some(json) = kept else {
                    columns.for_each(|(_, _, rest)| rest.append_null(line));
                    if let Some(objects) = &mut self.strays {
                        objects.append_null();
                    }
                    self.bad.insert(row);
                    return Err((*i, bad));
                };
                strays.push((Cow::Owned(field.name().clone()), json));
            }
        }
        if !strays.is_empty() || self.strays.is_some() {
            self.push_strays(strays);
        }
        Ok(())
    }

    fn push_strays(&mut self, strays: &[Stray<'_>]) {
        let before = self.rows - 1;
        let objects = self.strays.get_or_insert_with(|| {
            let mut objects = StringBuilder::new();
            (0..before).for_each(|_| objects.append_null());
            objects
        });
        match strays.is_empty() {
            true => objects.append_null(),
            false => objects.append_value(object(strays)),
        }
    }

    /// The batch of the rows since the last one.
    pub(super) fn finish(&mut self) -> Result<Finished> {
        let mut late = Vec::new();
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (_, field, builder) in &mut self.columns {
            arrays.push(builder.finish(field, &mut late)?);
        }
        self.rows = 0;
        let mut bad = std::mem::take(&mut self.bad);
        // a row may be bad in several columns: the first one found is its reason
        late.retain(|(row, _)| bad.insert(*row));
        let mut schema = Arc::clone(&self.schema);
        if let Some(mut strays) = self.strays.take() {
            arrays.push(Arc::new(strays.finish()));
            let mut fields: Vec<FieldRef> = schema.fields().to_vec();
            fields.push(Arc::new(types::field(RESCUED, &SqlType::Jsonb, true)));
            schema = Arc::new(Schema::new(fields));
        }
        let batch = RecordBatch::try_new(schema, arrays)?;
        Ok((batch, bad, late))
    }
}

/// The keys and values as one JSON object.
fn object(strays: &[Stray<'_>]) -> String {
    let mut text = String::from("{");
    for (key, json) in strays {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(key.as_ref()).to_string());
        text.push(':');
        text.push_str(json);
    }
    text.push('}');
    text
}

/// Why a value does not fit.
enum Misfit {
    /// It does not spell a value of the type.
    Invalid,
    /// It is a value, but too large.
    OutOfRange,
    /// It is a JSON value of another kind; this kind is wanted.
    Kind(&'static str),
    /// It is refused for this reason.
    Other(SqlState, &'static str),
}

impl Misfit {
    fn named(self, field: &Field, value: &str) -> BadCell {
        let ty = sql_type(field);
        let value = shortened(value);
        let (state, message) = match self {
            Self::Invalid => (
                SqlState::INVALID_TEXT_REPRESENTATION,
                format!("invalid input for type {ty}: {value}"),
            ),
            Self::OutOfRange => (
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("value out of range for type {ty}: {value}"),
            ),
            Self::Kind(wanted) => (
                SqlState::INVALID_TEXT_REPRESENTATION,
                format!("expected {wanted} for type {ty}, not {value}"),
            ),
            Self::Other(state, reason) => (state, reason.to_owned()),
        };
        BadCell { state, message }
    }
}

/// Numbers of so many characters are given back by a double.
const SHORT: usize = 15;

/// A column under construction.
enum Builder {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Decimal(Decimal128Builder, u8, i8),
    Text(StringBuilder),
    Uuid(StringBuilder),
    Json(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    /// Types without a form of their own here: JSON texts with their lines, decoded at the end.
    Nested(Vec<(usize, Option<String>)>),
}

impl Builder {
    /// With room for so many rows and bytes of text.
    fn new(field: &Field, rows: usize, bytes: usize) -> Self {
        let texts = || StringBuilder::with_capacity(rows, bytes);
        match field.data_type() {
            DataType::Boolean => Self::Bool(BooleanBuilder::with_capacity(rows)),
            DataType::Int16 => Self::Int2(Int16Builder::with_capacity(rows)),
            DataType::Int32 => Self::Int4(Int32Builder::with_capacity(rows)),
            DataType::Int64 => Self::Int8(Int64Builder::with_capacity(rows)),
            DataType::Float32 => Self::Float4(Float32Builder::with_capacity(rows)),
            DataType::Float64 => Self::Float8(Float64Builder::with_capacity(rows)),
            DataType::Decimal128(p, s) => Self::Decimal(
                Decimal128Builder::with_capacity(rows).with_data_type(field.data_type().clone()),
                *p,
                *s,
            ),
            DataType::Utf8 => match field.metadata().get(TYPE_KEY).map(String::as_str) {
                Some("uuid") => Self::Uuid(texts()),
                Some("json" | "jsonb") => Self::Json(texts()),
                Some(_) | None => Self::Text(texts()),
            },
            DataType::Binary => Self::Bytes(BinaryBuilder::new()),
            DataType::Date32 => Self::Date(Date32Builder::with_capacity(rows)),
            DataType::Time64(TimeUnit::Microsecond) => {
                Self::Time(Time64MicrosecondBuilder::with_capacity(rows))
            }
            DataType::Timestamp(TimeUnit::Microsecond, zone) => Self::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(rows).with_timezone_opt(zone.clone()),
            ),
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                Self::Interval(IntervalMonthDayNanoBuilder::with_capacity(rows))
            }
            _ => Self::Nested(Vec::new()),
        }
    }

    /// True for a number that the column would not give back.
    fn rounds(&self, json: &str) -> bool {
        matches!(self, Self::Float8(_)) && json.len() > SHORT && !is_exact_double(json)
    }

    fn append_null(&mut self, line: usize) {
        match self {
            Self::Bool(b) => b.append_null(),
            Self::Int2(b) => b.append_null(),
            Self::Int4(b) => b.append_null(),
            Self::Int8(b) => b.append_null(),
            Self::Float4(b) => b.append_null(),
            Self::Float8(b) => b.append_null(),
            Self::Decimal(b, _, _) => b.append_null(),
            Self::Text(b) | Self::Uuid(b) | Self::Json(b) => b.append_null(),
            Self::Bytes(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Time(b) => b.append_null(),
            Self::Timestamp(b) => b.append_null(),
            Self::Interval(b) => b.append_null(),
            Self::Nested(values) => values.push((line, None)),
        }
    }

    /// A value spelled as text.
    fn append_text(&mut self, line: usize, text: &str) -> Result<(), Misfit> {
        match self {
            Self::Bool(b) => b.append_value(boolean(text)?),
            Self::Int2(b) => b.append_value(integer(text)?),
            Self::Int4(b) => b.append_value(integer(text)?),
            Self::Int8(b) => b.append_value(integer(text)?),
            Self::Float4(b) => b.append_value(float(text)?),
            Self::Float8(b) => b.append_value(float(text)?),
            Self::Decimal(b, p, s) => b.append_value(decimal(text, *p, *s)?),
            Self::Text(b) => b.append_value(without_nul(text)?),
            Self::Uuid(b) => b.append_value(uuid(text)?),
            Self::Json(b) => {
                serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| Misfit::Invalid)?;
                b.append_value(text);
            }
            Self::Bytes(b) => b.append_value(bytes(text)?),
            Self::Date(b) => b.append_value(Date32Type::parse(text).ok_or(Misfit::Invalid)?),
            Self::Time(b) => {
                b.append_value(Time64MicrosecondType::parse(text).ok_or(Misfit::Invalid)?);
            }
            Self::Timestamp(b) => b.append_value(micros(text)?),
            Self::Interval(b) => {
                b.append_value(parse_interval_month_day_nano(text).map_err(|_| Misfit::Invalid)?);
            }
            Self::Nested(values) => {
                serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| Misfit::Invalid)?;
                values.push((line, Some(text.to_owned())));
            }
        }
        Ok(())
    }

    /// Bytes as they are; for a text, they must spell it.
    fn append_bytes(&mut self, line: usize, bytes: &[u8]) -> Result<(), Misfit> {
        if let Self::Bytes(b) = self {
            b.append_value(bytes);
            return Ok(());
        }
        let text = std::str::from_utf8(bytes).map_err(|_| NO_TEXT)?;
        self.append_text(line, text)
    }

    /// A whole number, or a time by its microseconds.
    fn append_int(&mut self, value: i64) -> Result<(), Misfit> {
        match self {
            Self::Int2(b) => b.append_value(i16::try_from(value).map_err(|_| Misfit::OutOfRange)?),
            Self::Int4(b) => b.append_value(i32::try_from(value).map_err(|_| Misfit::OutOfRange)?),
            Self::Int8(b) => b.append_value(value),
            Self::Timestamp(b) => b.append_value(value),
            _ => return Err(Misfit::Kind(self.wanted())),
        }
        Ok(())
    }

    /// As [`Self::append_json`] for a string whose characters stand for themselves.
    fn append_plain(&mut self, line: usize, json: &str) -> Result<(), Misfit> {
        let text = &json[1..json.len() - 1];
        match self {
            Self::Json(b) => b.append_value(json),
            Self::Text(b) => b.append_value(text),
            Self::Nested(values) => values.push((line, Some(json.to_owned()))),
            Self::Bool(_) => return Err(Misfit::Kind("true or false")),
            _ => return self.append_text(line, text),
        }
        Ok(())
    }

    /// A JSON value: numbers and switches as such, everything else as a string that spells it. A
    /// string is taken for a number too, since JSON's numbers lose digits in many clients.
    fn append_json(&mut self, line: usize, json: &str) -> Result<(), Misfit> {
        match self {
            Self::Json(b) => {
                b.append_value(without_nul_escape(json)?);
                return Ok(());
            }
            Self::Nested(values) => {
                values.push((line, Some(json.to_owned())));
                return Ok(());
            }
            _ => {}
        }
        match json.as_bytes().first() {
            Some(b'"') => {
                if matches!(self, Self::Bool(_)) {
                    return Err(Misfit::Kind("true or false"));
                }
                self.append_text(line, &unquoted(json)?)
            }
            Some(b'{') => Err(Misfit::Kind(self.wanted())),
            Some(b'[') => Err(Misfit::Kind(self.wanted())),
            Some(b't' | b'f') => match self {
                Self::Bool(b) => {
                    b.append_value(json == "true");
                    Ok(())
                }
                _ => Err(Misfit::Kind(self.wanted())),
            },
            _ => match self {
                Self::Int2(b) => whole(json).map(|v| b.append_value(v)),
                Self::Int4(b) => whole(json).map(|v| b.append_value(v)),
                Self::Int8(b) => whole(json).map(|v| b.append_value(v)),
                Self::Float4(_) | Self::Float8(_) | Self::Decimal(..) => {
                    self.append_text(line, json)
                }
                _ => Err(Misfit::Kind(self.wanted())),
            },
        }
    }

    /// The JSON that a column takes, for errors.
    fn wanted(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Int2(_) | Self::Int4(_) | Self::Int8(_) => "a whole number",
            Self::Float4(_) | Self::Float8(_) | Self::Decimal(..) => "a number",
            Self::Text(_) | Self::Uuid(_) => "a string",
            Self::Bytes(_) => "a string of hexadecimal digits after \\x",
            Self::Date(_) => "a string like \"2026-01-31\"",
            Self::Time(_) => "a string like \"12:30:00\"",
            Self::Timestamp(_) => "a string like \"2026-01-31T12:30:00Z\"",
            Self::Interval(_) => "a string like \"1 day 2 hours\"",
            Self::Json(_) | Self::Nested(_) => "a JSON value",
        }
    }

    /// The array; `late` takes the rows that show only now to be bad, which are NULL in it.
    fn finish(&mut self, field: &Field, late: &mut Vec<(usize, Error)>) -> Result<ArrayRef> {
        Ok(match self {
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Int2(b) => Arc::new(b.finish()),
            Self::Int4(b) => Arc::new(b.finish()),
            Self::Int8(b) => Arc::new(b.finish()),
            Self::Float4(b) => Arc::new(b.finish()),
            Self::Float8(b) => Arc::new(b.finish()),
            Self::Decimal(b, _, _) => Arc::new(b.finish()),
            Self::Text(b) | Self::Uuid(b) | Self::Json(b) => Arc::new(b.finish()),
            Self::Bytes(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Time(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish()),
            Self::Interval(b) => Arc::new(b.finish()),
            Self::Nested(values) => nested(field, std::mem::take(values), late)?,
        })
    }
}

/// Lists and structs, by arrow's own JSON reader. When it refuses, the values are read one by one to
/// find those that are bad.
fn nested(
    field: &Field,
    mut values: Vec<(usize, Option<String>)>,
    late: &mut Vec<(usize, Error)>,
) -> Result<ArrayRef> {
    let whole = match read_nested(field, &values) {
        Ok(array) => return Ok(array),
        Err(e) => e,
    };
    let mut found = false;
    for (row, value) in values.iter_mut().enumerate() {
        let Err(e) = read_nested(field, std::slice::from_ref(value)) else {
            continue;
        };
        let ty = sql_type(field);
        let state = SqlState::INVALID_TEXT_REPRESENTATION;
        let message = format!("invalid input for type {ty}");
        let bad = at(value.0, Some(field.name()), state, message).with_detail(e.to_string());
        late.push((row, bad));
        value.1 = None;
        found = true;
    }
    match found {
        true => Ok(read_nested(field, &values)?),
        false => Err(whole.into()),
    }
}

fn read_nested(
    field: &Field,
    values: &[(usize, Option<String>)],
) -> Result<ArrayRef, arrow::error::ArrowError> {
    let mut decoder = arrow::json::ReaderBuilder::new_with_field(field.clone().with_nullable(true))
        .with_batch_size(values.len())
        .build_decoder()?;
    for (_, value) in values {
        let value = value.as_deref().unwrap_or("null");
        decoder.decode(value.as_bytes())?;
        decoder.decode(b"\n")?;
    }
    let batch = decoder.flush()?;
    Ok(batch.map_or_else(
        || new_null_array(field.data_type(), 0),
        |b| Arc::clone(b.column(0)),
    ))
}

fn boolean(text: &str) -> Result<bool, Misfit> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Ok(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Ok(false),
        _ => Err(Misfit::Invalid),
    }
}

fn integer<T: TryFrom<i64>>(text: &str) -> Result<T, Misfit> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let value: i64 = text.trim().parse().map_err(|e: std::num::ParseIntError| {
        match matches!(e.kind(), PosOverflow | NegOverflow) {
            true => Misfit::OutOfRange,
            false => Misfit::Invalid,
        }
    })?;
    T::try_from(value).map_err(|_| Misfit::OutOfRange)
}

/// A JSON number that is whole, however it is written: some clients write `3.0` for 3.
fn whole<T: TryFrom<i64>>(json: &str) -> Result<T, Misfit> {
    if let Ok(value) = json.parse::<i64>() {
        return T::try_from(value).map_err(|_| Misfit::OutOfRange);
    }
    if !json.contains(['.', 'e', 'E']) {
        return integer(json);
    }
    let number: f64 = json.parse().map_err(|_| Misfit::Invalid)?;
    if number.fract() != 0.0 {
        return Err(Misfit::Kind("a whole number"));
    }
    match decimal::parse(json, 38, 0) {
        Ok(value) => i64::try_from(value)
            .ok()
            .and_then(|v| T::try_from(v).ok())
            .ok_or(Misfit::OutOfRange),
        Err(_) => Err(Misfit::OutOfRange),
    }
}

fn float<T: std::str::FromStr>(text: &str) -> Result<T, Misfit> {
    text.trim().parse().map_err(|_| Misfit::Invalid)
}

fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Misfit> {
    decimal::parse(text.trim(), precision, scale).map_err(|e| match e {
        DecimalError::Malformed => Misfit::Invalid,
        DecimalError::OutOfRange => Misfit::OutOfRange,
    })
}

fn uuid(text: &str) -> Result<Cow<'_, str>, Misfit> {
    if is_canonical_uuid(text) {
        return Ok(Cow::Borrowed(text));
    }
    let id = Uuid::try_parse(text.trim()).map_err(|_| Misfit::Invalid)?;
    Ok(Cow::Owned(id.hyphenated().to_string()))
}

/// `\x` and hexadecimal digits, as PostgreSQL prints bytes.
fn bytes(text: &str) -> Result<Vec<u8>, Misfit> {
    let digits = text.strip_prefix("\\x").ok_or(Misfit::Invalid)?.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return Err(Misfit::Invalid);
    }
    let nibble = |b: u8| char::from(b).to_digit(16).ok_or(Misfit::Invalid);
    digits
        .chunks_exact(2)
        .map(|pair| {
            let byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
            u8::try_from(byte).map_err(|_| Misfit::Invalid)
        })
        .collect()
}

/// Microseconds since the Unix epoch; a text without a zone is UTC.
fn micros(text: &str) -> Result<i64, Misfit> {
    if let Some(micros) = datetime::plain_micros(text.as_bytes()) {
        return Ok(micros);
    }
    string_to_datetime(&Utc, text.trim())
        .map(|at| at.timestamp_micros())
        .map_err(|_| Misfit::Invalid)
}

/// PostgreSQL's texts cannot hold NUL, so no client could read it back.
fn without_nul(text: &str) -> Result<&str, Misfit> {
    match text.contains('\0') {
        true => Err(NUL),
        false => Ok(text),
    }
}

fn without_nul_escape(json: &str) -> Result<&str, Misfit> {
    match json.contains("\\u0000") {
        true => Err(NUL),
        false => Ok(json),
    }
}

const NO_TEXT: Misfit = Misfit::Other(
    SqlState::CHARACTER_NOT_IN_REPERTOIRE,
    "the bytes are not UTF-8",
);

const NUL: Misfit = Misfit::Other(
    SqlState::CHARACTER_NOT_IN_REPERTOIRE,
    "a text cannot hold the character NUL",
);

/// What a JSON string spells; borrowed unless it has escapes.
fn unquoted(json: &str) -> Result<Cow<'_, str>, Misfit> {
    if json.contains('\\') {
        return serde_json::from_str(json)
            .map(Cow::Owned)
            .map_err(|_| Misfit::Invalid);
    }
    Ok(Cow::Borrowed(json.trim_matches('"')))
}
