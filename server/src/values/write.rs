//! Arrow cells → PostgreSQL text and binary values.
//!
//! A [`ColumnWriter`] is prepared once per batch and column; writing a cell then neither looks at
//! types nor allocates. Used by `COPY … TO` and by the Postgres door's DataRow messages.

pub(super) mod datetime;
mod json;
mod number;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, ListArray, PrimitiveArray, StringArray, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Decimal256Type, Field, Float32Type,
    Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use chrono_tz::Tz;

use super::pg_type::{Kind, PgType};
use crate::error::{Error, Result, SqlState};

/// Settings that change how values print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Zone that `timestamptz` is shown and read in.
    pub time_zone: Tz,
    /// `extra_float_digits`: 1 and above is the shortest text that reads back the same.
    pub float_digits: i32,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            time_zone: Tz::UTC,
            float_digits: 1,
        }
    }
}

/// PostgreSQL's two value formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireFormat {
    /// Format code 0.
    Text,
    /// Format code 1.
    Binary,
}

/// See [`super::json_object`].
pub(super) fn json_object(batch: &arrow::record_batch::RecordBatch) -> Result<Vec<u8>> {
    json::object(batch)
}

type Cell = Box<dyn Fn(usize, &mut Vec<u8>) -> Result<()> + Send + Sync>;

/// Writes the cells of one column of one batch.
pub struct ColumnWriter {
    nulls: Option<NullBuffer>,
    cell: Cell,
}

impl std::fmt::Debug for ColumnWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColumnWriter").finish_non_exhaustive()
    }
}

impl ColumnWriter {
    /// Prepares a column. Fails when the values have no PostgreSQL form (a timestamp in seconds
    /// beyond the microsecond range, for one).
    pub fn new(field: &Field, array: &ArrayRef, format: WireFormat, style: Style) -> Result<Self> {
        let kind = Kind::of(field);
        if kind == Kind::Json {
            let json = json::writer(field, array, style)?;
            return Ok(Self {
                nulls: array.logical_nulls(),
                cell: match format {
                    WireFormat::Text => json,
                    WireFormat::Binary => Box::new(move |row, out| {
                        out.push(1); // the only jsonb version there is
                        json(row, out)
                    }),
                },
            });
        }
        let array = canonical(field, array)?;
        Ok(Self {
            nulls: array.logical_nulls(),
            cell: match format {
                WireFormat::Text => text(field, &array, kind, style)?,
                WireFormat::Binary => binary(field, &array, kind, style)?,
            },
        })
    }

    /// Whether the cell is NULL; such a cell must not be written.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|n| n.is_null(row))
    }

    /// Appends the cell's value.
    #[inline]
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        (self.cell)(row, out)
    }
}

/// Brings an array into the one form per type that the writers know.
fn canonical(field: &Field, array: &ArrayRef) -> Result<ArrayRef> {
    let tagged = Kind::of(field) == Kind::Oid;
    let target = canonical_type(array.data_type(), tagged);
    if &target == array.data_type() {
        return Ok(Arc::clone(array));
    }
    let options = CastOptions {
        safe: false, // a value that does not fit is an error, never a NULL
        ..CastOptions::default()
    };
    Ok(cast_with_options(array, &target, &options)?)
}

fn canonical_type(ty: &DataType, tagged: bool) -> DataType {
    match ty {
        DataType::Null | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 if !tagged => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Interval(_) | DataType::Duration(_) => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        DataType::LargeList(f)
        | DataType::FixedSizeList(f, _)
        | DataType::ListView(f)
        | DataType::LargeListView(f) => DataType::List(Arc::clone(f)),
        DataType::Dictionary(_, value) => canonical_type(value, tagged),
        DataType::RunEndEncoded(_, value) => canonical_type(value.data_type(), tagged),
        other => other.clone(),
    }
}

/// A writer over the plain values of a primitive array.
fn primitive<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    write: impl Fn(T::Native, &mut Vec<u8>) -> Result<()> + Send + Sync + 'static,
) -> Cell {
    let array: PrimitiveArray<T> = array.as_primitive::<T>().clone();
    Box::new(move |row, out| write(array.value(row), out))
}

fn no_form(ty: &DataType) -> Error {
    Error::unsupported(
        format!("values of type \"{ty}\" cannot be sent to a PostgreSQL client"),
        "cast the column to text",
    )
}

fn text(field: &Field, array: &ArrayRef, kind: Kind, style: Style) -> Result<Cell> {
    Ok(match array.data_type() {
        DataType::Boolean => {
            let array = array.as_boolean().clone();
            Box::new(move |row, out| {
                out.push(if array.value(row) { b't' } else { b'f' });
                Ok(())
            })
        }
        DataType::Int16 => primitive::<Int16Type>(array, |v, out| {
            number::integer(v.into(), out);
            Ok(())
        }),
        DataType::Int32 => primitive::<Int32Type>(array, |v, out| {
            number::integer(v.into(), out);
            Ok(())
        }),
        DataType::Int64 => primitive::<Int64Type>(array, |v, out| {
            number::integer(v, out);
            Ok(())
        }),
        DataType::UInt32 => {
            let array: UInt32Array = array.as_primitive().clone();
            Box::new(move |row, out| {
                number::integer(array.value(row).into(), out);
                Ok(())
            })
        }
        DataType::Float32 => primitive::<Float32Type>(array, move |v, out| {
            number::float4(v, style.float_digits, out);
            Ok(())
        }),
        DataType::Float64 => primitive::<Float64Type>(array, move |v, out| {
            number::float8(v, style.float_digits, out);
            Ok(())
        }),
        DataType::Decimal128(_, scale) => {
            let scale = *scale;
            primitive::<Decimal128Type>(array, move |v, out| {
                number::decimal_text(&number::Digits::of_i128(v), scale, out);
                Ok(())
            })
        }
        DataType::Decimal256(_, scale) => {
            let scale = *scale;
            primitive::<Decimal256Type>(array, move |v, out| {
                number::decimal_text(&number::Digits::of_text(&v.to_string()), scale, out);
                Ok(())
            })
        }
        DataType::Utf8 => {
            let array: StringArray = array.as_string().clone();
            Box::new(move |row, out| {
                out.extend_from_slice(array.value(row).as_bytes());
                Ok(())
            })
        }
        DataType::Binary => {
            let array: BinaryArray = array.as_binary().clone();
            if kind == Kind::Uuid {
                Box::new(move |row, out| uuid_text(array.value(row), out))
            } else {
                Box::new(move |row, out| {
                    bytea_text(array.value(row), out);
                    Ok(())
                })
            }
        }
        DataType::Date32 => primitive::<Date32Type>(array, |v, out| {
            datetime::date_text(v, out);
            Ok(())
        }),
        DataType::Time64(TimeUnit::Microsecond) => {
            primitive::<Time64MicrosecondType>(array, |v, out| {
                datetime::time_text(v, out);
                Ok(())
            })
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let zone = zone.is_some().then_some(style.time_zone);
            primitive::<TimestampMicrosecondType>(array, move |v, out| {
                datetime::timestamp_text(v, zone, b' ', out);
                Ok(())
            })
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            primitive::<IntervalMonthDayNanoType>(array, |v, out| {
                datetime::interval_text(v, out);
                Ok(())
            })
        }
        DataType::List(element) => list_text(array.as_list(), element, style)?,
        _ => return Err(no_form(field.data_type())),
    })
}

fn binary(field: &Field, array: &ArrayRef, kind: Kind, style: Style) -> Result<Cell> {
    Ok(match array.data_type() {
        DataType::Boolean => {
            let array = array.as_boolean().clone();
            Box::new(move |row, out| {
                out.push(u8::from(array.value(row)));
                Ok(())
            })
        }
        DataType::Int16 => primitive::<Int16Type>(array, |v, out| put(out, &v.to_be_bytes())),
        DataType::Int32 => primitive::<Int32Type>(array, |v, out| put(out, &v.to_be_bytes())),
        DataType::Int64 => primitive::<Int64Type>(array, |v, out| put(out, &v.to_be_bytes())),
        DataType::UInt32 => {
            let array: UInt32Array = array.as_primitive().clone();
            Box::new(move |row, out| put(out, &array.value(row).to_be_bytes()))
        }
        DataType::Float32 => primitive::<Float32Type>(array, |v, out| put(out, &v.to_be_bytes())),
        DataType::Float64 => primitive::<Float64Type>(array, |v, out| put(out, &v.to_be_bytes())),
        DataType::Decimal128(_, scale) => {
            let scale = *scale;
            primitive::<Decimal128Type>(array, move |v, out| {
                number::decimal_binary(&number::Digits::of_i128(v), scale, out);
                Ok(())
            })
        }
        DataType::Decimal256(_, scale) => {
            let scale = *scale;
            primitive::<Decimal256Type>(array, move |v, out| {
                number::decimal_binary(&number::Digits::of_text(&v.to_string()), scale, out);
                Ok(())
            })
        }
        DataType::Utf8 => string_binary(array.as_string().clone(), kind),
        DataType::Binary => {
            let array: BinaryArray = array.as_binary().clone();
            Box::new(move |row, out| put(out, array.value(row)))
        }
        DataType::Date32 => primitive::<Date32Type>(array, datetime::date_binary),
        DataType::Time64(TimeUnit::Microsecond) => {
            primitive::<Time64MicrosecondType>(array, |v, out| put(out, &v.to_be_bytes()))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            primitive::<TimestampMicrosecondType>(array, datetime::timestamp_binary)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            primitive::<IntervalMonthDayNanoType>(array, |v, out| {
                put(out, &(v.nanoseconds / 1000).to_be_bytes())?;
                put(out, &v.days.to_be_bytes())?;
                put(out, &v.months.to_be_bytes())
            })
        }
        DataType::List(element) => list_binary(array.as_list(), element, style)?,
        _ => return Err(no_form(field.data_type())),
    })
}

fn string_binary(array: StringArray, kind: Kind) -> Cell {
    match kind {
        Kind::Uuid => Box::new(move |row, out| {
            let text = array.value(row);
            match uuid::Uuid::try_parse(text) {
                Ok(value) => put(out, value.as_bytes()),
                Err(_) => Err(Error::refused(
                    SqlState::INVALID_TEXT_REPRESENTATION,
                    format!("invalid input syntax for type uuid: \"{text}\""),
                )),
            }
        }),
        Kind::Jsonb => Box::new(move |row, out| {
            out.push(1);
            put(out, array.value(row).as_bytes())
        }),
        // a name that stands for an object: only its text is known here
        Kind::Oid => Box::new(move |row, out| match array.value(row).parse::<u32>() {
            Ok(oid) => put(out, &oid.to_be_bytes()),
            Err(_) => Err(Error::unsupported(
                "object names have no binary format",
                "ask for the column in text format or cast it to text",
            )),
        }),
        Kind::Plain | Kind::Json => Box::new(move |row, out| put(out, array.value(row).as_bytes())),
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    out.extend_from_slice(bytes);
    Ok(())
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}

fn bytea_text(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    hex(bytes, out);
}

fn uuid_text(bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    if bytes.len() != 16 {
        return Err(Error::refused(
            SqlState::DATA_EXCEPTION,
            format!("a uuid of {} bytes cannot be shown", bytes.len()),
        ));
    }
    for (i, part) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if i > 0 {
            out.push(b'-');
        }
        hex(&bytes[part], out);
    }
    Ok(())
}

fn list_text(array: &ListArray, element: &Field, style: Style) -> Result<Cell> {
    let array = array.clone();
    let cells = ColumnWriter::new(element, array.values(), WireFormat::Text, style)?;
    let nested = matches!(element.data_type(), DataType::List(_));
    Ok(Box::new(move |row, out| {
        out.push(b'{');
        for (i, at) in range(&array, row).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            if cells.is_null(at) {
                out.extend_from_slice(b"NULL");
                continue;
            }
            let start = out.len();
            cells.write(at, out)?;
            if !nested && needs_quotes(&out[start..]) {
                let raw = out.split_off(start);
                out.push(b'"');
                for byte in raw {
                    if matches!(byte, b'"' | b'\\') {
                        out.push(b'\\');
                    }
                    out.push(byte);
                }
                out.push(b'"');
            }
        }
        out.push(b'}');
        Ok(())
    }))
}

fn needs_quotes(element: &[u8]) -> bool {
    element.is_empty()
        || element.eq_ignore_ascii_case(b"null")
        || element.iter().any(|b| {
            matches!(
                b,
                b'{' | b'}' | b',' | b'"' | b'\\' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c
            )
        })
}

/// Lengths of a rectangular nested list's dimensions, outermost first, and the range of its innermost values.
fn dimensions(
    array: &ListArray,
    row: usize,
) -> Result<(Vec<usize>, ArrayRef, std::ops::Range<usize>)> {
    let mut lengths = Vec::new();
    let mut values = Arc::clone(array.values());
    let mut at = range(array, row);
    lengths.push(at.len());
    while let Some(inner) = values.as_list_opt::<i32>().cloned() {
        let mut each = at.clone().map(|i| (inner.is_valid(i), range(&inner, i)));
        let Some((valid, first)) = each.next() else {
            return Ok((vec![0], values, 0..0));
        };
        let mut end = first.end;
        for (other_valid, other) in each {
            if other.len() != first.len() || other.start != end || !other_valid {
                return Err(not_rectangular());
            }
            end = other.end;
        }
        if !valid {
            return Err(not_rectangular());
        }
        lengths.push(first.len());
        at = first.start..end;
        values = Arc::clone(inner.values());
    }
    Ok((lengths, values, at))
}

fn not_rectangular() -> Error {
    Error::unsupported(
        "lists of lists of unlike lengths have no binary form",
        "ask for the result as text, or as to_json(…)",
    )
}

/// An array of several dimensions.
fn nested_binary(array: &ListArray, element: &Field, style: Style) -> Result<Cell> {
    let array = array.clone();
    let oid = PgType::of_elements(element).oid;
    let mut innermost = element;
    while let DataType::List(inner) = innermost.data_type() {
        innermost = inner;
    }
    let mut values = Arc::clone(array.values());
    while let Some(inner) = values.as_list_opt::<i32>() {
        values = Arc::clone(inner.values());
    }
    let cells = ColumnWriter::new(innermost, &values, WireFormat::Binary, style)?;
    Ok(Box::new(move |row, out| {
        let (lengths, _, at) = dimensions(&array, row)?;
        let empty = at.is_empty();
        let count = if empty { 0 } else { lengths.len() };
        let count = i32::try_from(count).map_err(|_| too_long())?;
        let with_null = at.clone().any(|i| cells.is_null(i));
        put(out, &count.to_be_bytes())?;
        put(out, &i32::from(with_null).to_be_bytes())?;
        put(out, &oid.to_be_bytes())?;
        for length in lengths.iter().filter(|_| !empty) {
            let length = i32::try_from(*length).map_err(|_| too_long())?;
            put(out, &length.to_be_bytes())?;
            put(out, &1i32.to_be_bytes())?;
        }
        for i in at {
            sized(&cells, i, out)?;
        }
        Ok(())
    }))
}

fn list_binary(array: &ListArray, element: &Field, style: Style) -> Result<Cell> {
    if matches!(element.data_type(), DataType::List(_)) {
        return nested_binary(array, element, style);
    }
    let array = array.clone();
    let oid = PgType::of(element).oid;
    let cells = ColumnWriter::new(element, array.values(), WireFormat::Binary, style)?;
    Ok(Box::new(move |row, out| {
        let cells_of_row = range(&array, row);
        let count = i32::try_from(cells_of_row.len()).map_err(|_| too_long())?;
        let with_null = cells_of_row.clone().any(|at| cells.is_null(at));
        put(out, &i32::from(count > 0).to_be_bytes())?; // dimensions
        put(out, &i32::from(with_null).to_be_bytes())?;
        put(out, &oid.to_be_bytes())?;
        if count > 0 {
            put(out, &count.to_be_bytes())?;
            put(out, &1i32.to_be_bytes())?; // lower bound
        }
        for at in cells_of_row {
            sized(&cells, at, out)?;
        }
        Ok(())
    }))
}

/// The cell with its length before it, -1 for NULL: the form of DataRow, arrays and binary COPY.
#[inline]
pub fn sized(cells: &ColumnWriter, row: usize, out: &mut Vec<u8>) -> Result<()> {
    if cells.is_null(row) {
        return put(out, &(-1i32).to_be_bytes());
    }
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    cells.write(row, out)?;
    let length = i32::try_from(out.len() - start - 4).map_err(|_| too_long())?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn too_long() -> Error {
    Error::refused(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        "a value is too long for the PostgreSQL protocol",
    )
}

fn range(array: &ListArray, row: usize) -> std::ops::Range<usize> {
    // list offsets are never negative
    let at = |i: usize| usize::try_from(array.value_offsets()[i]).unwrap_or_default();
    at(row)..at(row + 1)
}
