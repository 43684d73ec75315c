//! The active files of a snapshot with typed partition values and statistics.
//!
//! Statistics from a log are bounds, made by any writer: timestamps may be cut to milliseconds,
//! texts cut short, NaN left out. What could be a wrong bound is left unknown here, so pruning by
//! them never loses a row.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use deltalake::kernel::Add;
use deltalake::table::state::DeltaTableState;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{LakeFile, LakeSnapshot};
use crate::error::{Error, Result};

/// Decimal digits an `f64` keeps exactly; statistics travel through one.
const EXACT_DIGITS: i128 = 1_000_000_000_000_000;

/// Statistics may be cut to milliseconds: this much the true maximum can lie above.
const MILLISECOND: i64 = 999;

/// Lays out the active files; those `before` has already are taken over as they are.
pub(super) fn active_files(
    state: &DeltaTableState,
    schema: &SchemaRef,
    partition_by: &[String],
    before: Option<&LakeSnapshot>,
) -> Result<Arc<[LakeFile]>> {
    let known: HashMap<&str, &LakeFile> = before
        .map(|b| b.files.iter().map(|f| (f.path.as_str(), f)).collect())
        .unwrap_or_default();
    state
        .log_data()
        .iter()
        .map(|view| {
            let path = view.path();
            if view.deletion_vector_descriptor().is_some() {
                return Err(Error::unsupported(
                    "the table has deletion vectors",
                    "purge them with the engine that wrote them (REORG TABLE … APPLY (PURGE))",
                ));
            }
            if let Some(file) = known.get(path.as_ref()) {
                return Ok((*file).clone());
            }
            let (raw, stats) = (view.partition_values_map(), view.stats());
            let told = Told {
                path: path.into_owned(),
                size: view.size(),
                modified_ms: view.modification_time(),
                partition_values: &raw,
                statistics: stats.as_deref(),
            };
            told.laid_out(schema, partition_by)
        })
        .collect()
}

impl LakeSnapshot {
    /// The table as it would be with these files, of its own columns, in the place of all it has.
    pub fn with_files(&self, adds: &[Add]) -> Result<Self> {
        let file = |add: &Add| {
            let path = percent_decode_str(&add.path).decode_utf8();
            let path = path.map_err(|e| Error::Internal(format!("the path of a new file: {e}")))?;
            let told = Told {
                path: path.into_owned(),
                size: add.size,
                modified_ms: add.modification_time,
                partition_values: &add.partition_values,
                statistics: add.stats.as_deref(),
            };
            told.laid_out(&self.schema, &self.partition_by)
        };
        Ok(Self {
            files: adds.iter().map(file).collect::<Result<_>>()?,
            ..self.clone()
        })
    }
}

/// A file as the log, or who wrote it, tells of it.
struct Told<'a> {
    path: String,
    size: i64,
    modified_ms: i64,
    partition_values: &'a HashMap<String, Option<String>>,
    statistics: Option<&'a str>,
}

impl Told<'_> {
    fn laid_out(self, schema: &SchemaRef, partition_by: &[String]) -> Result<LakeFile> {
        let raw = self.partition_values;
        let partition_values = partition_by
            .iter()
            .map(|name| partition_value(schema, name, raw.get(name).and_then(Option::as_deref)))
            .collect::<Result<Vec<_>>>()?;
        let statistics = statistics(
            schema,
            partition_by,
            &partition_values,
            self.statistics,
            self.size,
        );
        Ok(LakeFile {
            path: self.path,
            size: u64::try_from(self.size).unwrap_or(0),
            modified_ms: self.modified_ms,
            partition_values,
            statistics: Arc::new(statistics),
        })
    }
}

/// A partition value as the log spells it; the empty text is NULL, as the format says.
fn partition_value(schema: &SchemaRef, name: &str, text: Option<&str>) -> Result<ScalarValue> {
    let ty = schema.field_with_name(name)?.data_type();
    let Some(text) = text.filter(|t| !t.is_empty()) else {
        return Ok(ScalarValue::try_from(ty)?);
    };
    let parsed = match ty {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => timestamp_micros(text)
            .map(|micros| ScalarValue::TimestampMicrosecond(Some(micros), zone.clone())),
        _ => ScalarValue::try_from_string(text.to_owned(), ty).ok(),
    };
    parsed.ok_or_else(|| {
        Error::refused(
            crate::error::SqlState::DATA_CORRUPTED,
            format!("partition column \"{name}\" has an unreadable value in the table's log"),
        )
    })
}

fn statistics(
    schema: &SchemaRef,
    partition_by: &[String],
    partition_values: &[ScalarValue],
    json: Option<&str>,
    size: i64,
) -> Statistics {
    let stats: Value = json
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let rows = stats
        .get("numRecords")
        .and_then(Value::as_u64)
        .and_then(|n| usize::try_from(n).ok());
    let column_statistics = schema
        .fields()
        .iter()
        .map(|field| {
            let partition = partition_by.iter().position(|p| p == field.name());
            match partition.and_then(|at| partition_values.get(at)) {
                Some(value) => constant(value, rows),
                None => bounds(&stats, field.name(), field.data_type()),
            }
        })
        .collect();
    Statistics {
        num_rows: rows.map_or(Precision::Absent, Precision::Exact),
        total_byte_size: usize::try_from(size).map_or(Precision::Absent, Precision::Inexact),
        column_statistics,
    }
}

fn constant(value: &ScalarValue, rows: Option<usize>) -> ColumnStatistics {
    let mut column = ColumnStatistics::new_unknown();
    if value.is_null() {
        column.null_count = rows.map_or(Precision::Absent, Precision::Exact);
    } else {
        column.null_count = Precision::Exact(0);
        column.min_value = Precision::Exact(value.clone());
        column.max_value = Precision::Exact(value.clone());
    }
    column
}

fn bounds(stats: &Value, name: &str, ty: &DataType) -> ColumnStatistics {
    let mut column = ColumnStatistics::new_unknown();
    if let Some(nulls) = stats.get("nullCount").and_then(|v| v.get(name)) {
        column.null_count = nulls
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .map_or(Precision::Absent, Precision::Exact);
    }
    let min = stats.get("minValues").and_then(|v| v.get(name));
    let max = stats.get("maxValues").and_then(|v| v.get(name));
    if let Some(value) = min.and_then(|v| bound(v, ty, false)) {
        column.min_value = value;
    }
    if let Some(value) = max.and_then(|v| bound(v, ty, true)) {
        column.max_value = value;
    }
    column
}

/// One bound as a value of the column's type; `None` where it cannot be trusted (floats: NaN is
/// not counted in them, yet sorts outside them).
fn bound(value: &Value, ty: &DataType, upper: bool) -> Option<Precision<ScalarValue>> {
    let exact = |scalar| Some(Precision::Exact(scalar));
    let inexact = |scalar| Some(Precision::Inexact(scalar));
    match ty {
        DataType::Boolean => exact(ScalarValue::Boolean(Some(value.as_bool()?))),
        DataType::Int8 => exact(ScalarValue::Int8(Some(integer(value)?.try_into().ok()?))),
        DataType::Int16 => exact(ScalarValue::Int16(Some(integer(value)?.try_into().ok()?))),
        DataType::Int32 => exact(ScalarValue::Int32(Some(integer(value)?.try_into().ok()?))),
        DataType::Int64 => exact(ScalarValue::Int64(Some(integer(value)?))),
        DataType::Date32 => {
            let date: NaiveDate = value.as_str()?.parse().ok()?;
            let days = date.signed_duration_since(NaiveDate::default()).num_days();
            exact(ScalarValue::Date32(Some(days.try_into().ok()?)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let micros = timestamp_micros(value.as_str()?)?;
            let micros = if upper {
                micros.checked_add(MILLISECOND)?
            } else {
                micros
            };
            inexact(ScalarValue::TimestampMicrosecond(
                Some(micros),
                zone.clone(),
            ))
        }
        DataType::Decimal128(precision, scale) => {
            let unscaled = decimal(value, *scale)?;
            inexact(ScalarValue::Decimal128(Some(unscaled), *precision, *scale))
        }
        DataType::Utf8 => inexact(ScalarValue::Utf8(Some(value.as_str()?.to_owned()))),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
}

fn decimal(value: &Value, scale: i8) -> Option<i128> {
    let number = match value {
        Value::String(text) => text.parse::<f64>().ok()?,
        other => other.as_f64()?,
    };
    let unscaled = (number * 10f64.powi(i32::from(scale))).round();
    if !unscaled.is_finite() || unscaled.abs() >= EXACT_DIGITS as f64 {
        return None;
    }
    Some(unscaled as i128)
}

/// Both spellings in use: RFC 3339, and date and time with a space and no zone.
fn timestamp_micros(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .map(|time| time.and_utc().timestamp_micros())
}
