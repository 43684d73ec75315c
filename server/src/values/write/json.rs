//! Composites, maps, unions and nested arrays as JSON text: no PostgreSQL client reads anonymous
//! composites.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, TimeUnit, TimestampMicrosecondType};

use super::{Cell, Kind, Style, canonical, datetime, primitive, range, text};
use crate::error::Result;

/// Writes cells of any type as JSON. The cell itself must not be NULL; what is inside may be.
pub(super) fn writer(field: &Field, array: &ArrayRef, style: Style) -> Result<Cell> {
    let array = canonical(field, array)?;
    let array = &array;
    Ok(match array.data_type() {
        DataType::List(element) => {
            let list = array.as_list::<i32>().clone();
            let inner = nullable(element, list.values(), style)?;
            Box::new(move |row, out| {
                out.push(b'[');
                for (i, at) in range(&list, row).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    inner(at, out)?;
                }
                out.push(b']');
                Ok(())
            })
        }
        DataType::Struct(fields) => {
            let parts = fields
                .iter()
                .zip(array.as_struct().columns())
                .map(|(f, column)| {
                    let mut key = Vec::new();
                    quoted(f.name().as_bytes(), &mut key);
                    key.push(b':');
                    Ok((key, nullable(f, column, style)?))
                })
                .collect::<Result<Vec<_>>>()?;
            Box::new(move |row, out| {
                out.push(b'{');
                for (i, (key, inner)) in parts.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(key);
                    inner(row, out)?;
                }
                out.push(b'}');
                Ok(())
            })
        }
        DataType::Map(entry, _) => map(array, entry, style)?,
        DataType::Union(fields, _) => {
            let union = array.as_union().clone();
            let parts = fields
                .iter()
                .map(|(id, f)| Ok((id, nullable(f, union.child(id), style)?)))
                .collect::<Result<Vec<_>>>()?;
            Box::new(move |row, out| {
                let id = union.type_id(row);
                match parts.iter().find(|(of, _)| *of == id) {
                    Some((_, inner)) => inner(union.value_offset(row), out),
                    None => null(out),
                }
            })
        }
        _ => scalar(field, array, style)?,
    })
}

fn null(out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(b"null");
    Ok(())
}

fn nullable(field: &Field, array: &ArrayRef, style: Style) -> Result<Cell> {
    let nulls = array.logical_nulls();
    let inner = writer(field, array, style)?;
    Ok(Box::new(move |row, out| {
        if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
            null(out)
        } else {
            inner(row, out)
        }
    }))
}

fn map(array: &ArrayRef, entry: &Field, style: Style) -> Result<Cell> {
    let map = array.as_map().clone();
    let DataType::Struct(parts) = entry.data_type() else {
        return Err(super::no_form(array.data_type()));
    };
    let [key, value] = parts.as_ref() else {
        return Err(super::no_form(array.data_type()));
    };
    let keys = super::ColumnWriter::new(key, map.keys(), super::WireFormat::Text, style)?;
    let values = nullable(value, map.values(), style)?;
    Ok(Box::new(move |row, out| {
        let at = |i: usize| usize::try_from(map.value_offsets()[i]).unwrap_or_default();
        out.push(b'{');
        for (i, at) in (at(row)..at(row + 1)).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            let start = out.len();
            keys.write(at, out)?;
            requote(start, out);
            out.push(b':');
            values(at, out)?;
        }
        out.push(b'}');
        Ok(())
    }))
}

fn scalar(field: &Field, array: &ArrayRef, style: Style) -> Result<Cell> {
    match array.data_type() {
        DataType::Boolean => {
            let array = array.as_boolean().clone();
            return Ok(Box::new(move |row, out| {
                let word: &[u8] = if array.value(row) { b"true" } else { b"false" };
                out.extend_from_slice(word);
                Ok(())
            }));
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let zone = zone.is_some().then_some(style.time_zone);
            return Ok(primitive::<TimestampMicrosecondType>(
                array,
                move |v, out| {
                    out.push(b'"');
                    datetime::timestamp_text(v, zone, b'T', out);
                    out.push(b'"');
                    Ok(())
                },
            ));
        }
        _ => {}
    }
    let plain = text(field, array, Kind::of(field), style)?;
    let ty = array.data_type();
    let tag = field.metadata().get(crate::types::TYPE_KEY);
    if ty.is_integer()
        || ty.is_decimal()
        || matches!(tag.map(String::as_str), Some("json" | "jsonb"))
    {
        return Ok(plain);
    }
    let float = ty.is_floating();
    Ok(Box::new(move |row, out| {
        let start = out.len();
        plain(row, out)?;
        // NaN and the infinities are no JSON numbers
        if !float || !out[out.len() - 1].is_ascii_digit() {
            requote(start, out);
        }
        Ok(())
    }))
}

/// Turns what was written from `start` on into a JSON string.
fn requote(start: usize, out: &mut Vec<u8>) {
    let raw = out.split_off(start);
    quoted(&raw, out);
}

fn quoted(raw: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in raw {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1f => {
                out.extend_from_slice(b"\\u00");
                super::hex(&[*byte], out);
            }
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

/// The only row of a batch as a JSON object, keyed by its columns' names. Values that JSON has no form
/// for stand as the texts PostgreSQL prints.
pub(in crate::values) fn object(batch: &arrow::record_batch::RecordBatch) -> Result<Vec<u8>> {
    let mut out = vec![b'{'];
    let schema = batch.schema();
    for (i, (field, array)) in schema.fields().iter().zip(batch.columns()).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        quoted(field.name().as_bytes(), &mut out);
        out.push(b':');
        let start = out.len();
        nullable(field, array, Style::default())?(0, &mut out)?;
        let tag = field.metadata().get(crate::types::TYPE_KEY);
        let json = matches!(tag.map(String::as_str), Some("json" | "jsonb"));
        // what a column of JSON refused is a text only
        if json && serde_json::from_slice::<serde::de::IgnoredAny>(&out[start..]).is_err() {
            requote(start, &mut out);
        }
    }
    out.push(b'}');
    Ok(out)
}
