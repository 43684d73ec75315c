//! Assignment casts: what a column makes of a given value, with PostgreSQL's codes when it cannot.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use arrow::util::display::FormatOptions;
use catalog::{Column, SqlType};
use chrono_tz::Tz;

use super::is_checked_text;
use crate::error::{Error, Result, SqlState};
use crate::semantics;
use crate::types::{arrow_type, is_canonical_uuid};
use crate::values;

/// An array as the column stores it.
pub(in crate::exec) fn to_column(
    array: &ArrayRef,
    ty: &DataType,
    column: &Column,
    zone: &str,
) -> Result<ArrayRef> {
    let cast = if array.data_type() == ty {
        Arc::clone(array)
    } else {
        cast(array, ty, column, zone)?
    };
    match is_checked_text(&column.sql_type) {
        true => checked_text(&cast, column),
        false => Ok(cast),
    }
}

fn cast(array: &ArrayRef, ty: &DataType, column: &Column, zone: &str) -> Result<ArrayRef> {
    if is_text(array.data_type()) && ty != &DataType::Utf8 && ty == &arrow_type(&column.sql_type) {
        return read(array, column, zone)
            .map_err(|error| error.with_detail(format!("column \"{}\"", column.name)));
    }
    let strict = |array: &ArrayRef, ty: &DataType| {
        let options = CastOptions {
            safe: false,
            format_options: FormatOptions::default(),
        };
        cast_with_options(array, ty, &options).map_err(|_| refusal(array, column))
    };
    let given = array.data_type();
    // PostgreSQL rounds where Arrow cuts off
    if ty.is_integer() && given.is_floating() {
        let wide = strict(array, &DataType::Float64)?;
        let rounded: Float64Array = wide
            .as_primitive::<Float64Type>()
            .unary(f64::round_ties_even);
        return strict(&(Arc::new(rounded) as ArrayRef), ty);
    }
    if ty.is_integer()
        && let DataType::Decimal128(precision, _) = given
    {
        return strict(&strict(array, &DataType::Decimal128(*precision, 0))?, ty);
    }
    // a time without zone is in the session's
    if let DataType::Timestamp(TimeUnit::Microsecond, Some(_)) = ty
        && matches!(given, DataType::Timestamp(_, None) | DataType::Date32)
    {
        let array = if matches!(given, DataType::Date32) {
            strict(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?
        } else {
            Arc::clone(array)
        };
        let local = DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
        return strict(&strict(&array, &local)?, ty);
    }
    if matches!(ty, DataType::Utf8)
        && matches!(
            given,
            DataType::Struct(_) | DataType::List(_) | DataType::Map(..)
        )
    {
        return Err(Error::refused(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "column \"{}\" is of type {} but the value is composite",
                column.name, column.sql_type
            ),
        ));
    }
    strict(array, ty)
}

/// Texts as values of the column's type, by the input rules that casts and `COPY` have too.
fn read(texts: &ArrayRef, column: &Column, zone: &str) -> Result<ArrayRef> {
    let zone = Tz::from_str(zone)
        .map_err(|_| Error::Internal(format!("the session's time zone is \"{zone}\"")))?;
    let texts = arrow::compute::cast(texts, &DataType::Utf8)?;
    let mut reader = values::of_type(&column.sql_type, zone)?;
    for text in texts.as_string::<i32>() {
        match text {
            Some(text) => reader.text(text)?,
            None => reader.null(),
        }
    }
    reader.finish()
}

fn is_text(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

fn refusal(array: &ArrayRef, column: &Column) -> Error {
    let given = array.data_type();
    let state = match given.is_numeric() {
        true => SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        false => SqlState::DATATYPE_MISMATCH,
    };
    Error::refused(
        state,
        format!(
            "invalid value for column \"{}\" of type {}",
            column.name, column.sql_type
        ),
    )
}

fn checked_text(array: &ArrayRef, column: &Column) -> Result<ArrayRef> {
    let Some(texts) = array.as_string_opt::<i32>() else {
        return Ok(Arc::clone(array));
    };
    match &column.sql_type {
        SqlType::Varchar(n) => {
            let most = usize::try_from(*n).unwrap_or(usize::MAX);
            match texts.iter().flatten().any(|t| t.chars().count() > most) {
                true => Err(Error::refused(
                    SqlState("22001"),
                    format!("value too long for type character varying({n})"),
                )),
                false => Ok(Arc::clone(array)),
            }
        }
        SqlType::Uuid if texts.iter().flatten().all(is_canonical_uuid) => Ok(Arc::clone(array)),
        SqlType::Uuid => {
            let bad = || {
                Error::refused(
                    SqlState::INVALID_TEXT_REPRESENTATION,
                    format!(
                        "invalid input syntax for type uuid in column \"{}\"",
                        column.name
                    ),
                )
            };
            let canonical = texts
                .iter()
                .map(|t| {
                    t.map(|t| {
                        uuid::Uuid::try_parse(t)
                            .map(|u| u.to_string())
                            .map_err(|_| bad())
                    })
                    .transpose()
                })
                .collect::<Result<StringArray>>()?;
            Ok(Arc::new(canonical))
        }
        // every jsonb is stored in its own form: equality, groups and joins compare texts
        SqlType::Jsonb => {
            let normal = semantics::normal_jsonb(texts).map_err(|_| broken_json(column))?;
            Ok(Arc::new(normal))
        }
        SqlType::Json => {
            let broken = texts
                .iter()
                .flatten()
                .any(|t| serde_json::from_str::<serde::de::IgnoredAny>(t).is_err());
            match broken {
                true => Err(broken_json(column)),
                false => Ok(Arc::clone(array)),
            }
        }
        _ => Ok(Arc::clone(array)),
    }
}

fn broken_json(column: &Column) -> Error {
    Error::refused(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!(
            "invalid input syntax for type json in column \"{}\"",
            column.name
        ),
    )
}
