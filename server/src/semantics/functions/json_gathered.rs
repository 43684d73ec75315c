//! `json_agg` and `json_object_agg`: JSON of lists that `array_agg` gathered.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

use super::json::json_of;
use super::json_flat::normalized;
use super::json_value::quoted;
use super::{Entry, Row, Ty, invalid, strict, text};
use crate::error::Error;

pub(super) const LIST: &[Entry] = &[
    strict(
        "json_agg",
        &[&[Ty::AnyList], &[Ty::AnyList, Ty::Bool]],
        Ty::Json,
        |r| Ok(text(gathered(r)?)),
    ),
    strict(
        "jsonb_agg",
        &[&[Ty::AnyList], &[Ty::AnyList, Ty::Bool]],
        Ty::Jsonb,
        |r| Ok(text(normalized(&gathered(r)?)?)),
    ),
    strict(
        "json_object_agg",
        &[&[Ty::AnyList, Ty::AnyList]],
        Ty::Json,
        |r| Ok(text(gathered_pairs(r)?)),
    ),
    strict(
        "jsonb_object_agg",
        &[&[Ty::AnyList, Ty::AnyList]],
        Ty::Jsonb,
        |r| Ok(text(normalized(&gathered_pairs(r)?)?)),
    ),
];

/// An element that is JSON already.
fn written(values: &ArrayRef, at: usize) -> &str {
    match values.as_string_opt::<i32>() {
        Some(texts) if texts.is_valid(at) => texts.value(at),
        _ => "null",
    }
}

/// `json_agg` over the list that was gathered, of values or, when a second argument says so, of JSON.
fn gathered(row: &Row<'_>) -> Result<String, Error> {
    let (Some(values), Some(DataType::List(of))) =
        (row.list(0), row.args.first().map(|a| a.data_type()))
    else {
        return Ok("null".to_owned());
    };
    let is_json = row.len() > 1 && row.flag(1);
    let all = (0..values.len())
        .map(|i| match is_json {
            true => Ok(written(&values, i).to_owned()),
            false => json_of(row, &values, of, i),
        })
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(format!("[{}]", all.join(", ")))
}

/// Keys of `json_object_agg`, and values that are JSON.
fn gathered_pairs(row: &Row<'_>) -> Result<String, Error> {
    let list = |i: usize| match (row.list(i), row.ty(i)) {
        (Some(values), DataType::List(of)) => Some((values, Arc::clone(of))),
        _ => None,
    };
    let (Some((keys, key)), Some((values, _))) = (list(0), list(1)) else {
        return Ok("null".to_owned());
    };
    let mut members = Vec::with_capacity(keys.len());
    for i in 0..keys.len() {
        if keys.data_type().is_null() || keys.is_null(i) {
            return Err(invalid("field name must not be null"));
        }
        let key = super::super::text::shown(&keys, &key, i, row.zone)?;
        members.push(format!("{} : {}", quoted(&key), written(&values, i)));
    }
    Ok(format!("{{ {} }}", members.join(", ")))
}
