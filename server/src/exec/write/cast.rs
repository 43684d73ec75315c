//! Assignment casts: what a column makes of a given value, with PostgreSQL's codes when it cannot.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use arrow::util::display::FormatOptions;
use catalog::{Column, SqlType};

use super::is_checked_text;
use crate::error::{Error, Result, SqlState};

/// An array as the column stores it.
pub(super) fn to_column(
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
    let strict = |array: &ArrayRef, ty: &DataType| {
        let options = CastOptions {
            safe: false,
            format_options: FormatOptions::default(),
        };
        cast_with_options(array, ty, &options)
            .map_err(|e| refusal(array.data_type(), column, &e.to_string()))
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
        && (is_text(given) || matches!(given, DataType::Timestamp(_, None) | DataType::Date32))
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

fn is_text(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

fn refusal(given: &DataType, column: &Column, why: &str) -> Error {
    let message = format!(
        "invalid value for column \"{}\" of type {}",
        column.name, column.sql_type
    );
    let state = match (is_text(given), &column.sql_type) {
        (true, SqlType::Date | SqlType::Timestamp | SqlType::Timestamptz | SqlType::Time) => {
            SqlState::INVALID_DATETIME_FORMAT
        }
        (true, _) => SqlState::INVALID_TEXT_REPRESENTATION,
        (false, _) if given.is_numeric() => SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        (false, _) => SqlState::DATATYPE_MISMATCH,
    };
    // Arrow's text quotes the value; a value of a row has no place in an error of another's masked column
    let _ = why;
    Error::refused(state, message)
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
        SqlType::Json | SqlType::Jsonb => {
            let broken = texts
                .iter()
                .flatten()
                .any(|t| serde_json::from_str::<serde::de::IgnoredAny>(t).is_err());
            match broken {
                true => Err(Error::refused(
                    SqlState::INVALID_TEXT_REPRESENTATION,
                    format!(
                        "invalid input syntax for type json in column \"{}\"",
                        column.name
                    ),
                )),
                false => Ok(Arc::clone(array)),
            }
        }
        _ => Ok(Arc::clone(array)),
    }
}
