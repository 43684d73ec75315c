//! `WITH (…)` of a streaming table.

use std::collections::BTreeMap;

use catalog::{Column, SqlType};

use super::no_column;
use crate::dialect::CreateTable;
use crate::engine::open::{bloom_filters, column_list, parse_duration};
use crate::error::{Error, Result, SqlState};
use crate::governance::write_key;
use crate::jobs::retention;
use crate::types::Evolution;

/// What is there, for hints.
const KNOWN: &str = "the options are event_time, flush_interval, retention, dedup_key, dedup_window, \
                     segment_write_key, on_violation, acknowledge, bloom_filter_columns and schema_evolution = 'add', \
                     'rescue' or 'reject'";

/// Options that have a meaning, but not here yet.
const LATER: &[&str] = &["dedup_policy", "watermark", "late_data", "max_lateness"];

/// Checks the options against the columns.
pub(super) fn check(s: &CreateTable, columns: &[Column]) -> Result<()> {
    for (key, value) in &s.options {
        if !s.streaming {
            return Err(unknown(key).with_hint("an ordinary table has no options"));
        }
        match key.as_str() {
            "event_time" => event_time(value, columns)?,
            "flush_interval" => {
                parse_duration(value)?;
            }
            "retention" => {
                retention::parse(Some(value))?;
            }
            "dedup_key" => dedup_key(value, columns)?,
            "dedup_window" => dedup_window(value, &s.options)?,
            // checked where it is put into the catalog: no two tables have one key
            write_key::OPTION => {}
            "on_violation" => on_violation(value)?,
            "acknowledge" => acknowledge(value)?,
            "bloom_filter_columns" => {
                bloom_filter_columns(value, columns, &s.partitioned_by)?;
            }
            "schema_evolution" => evolution(key, value)?,
            later if LATER.contains(&later) => {
                return Err(Error::unsupported(
                    format!("option \"{key}\" is not supported"),
                    KNOWN,
                ));
            }
            _ => return Err(unknown(key).with_hint(KNOWN)),
        }
    }
    Ok(())
}

/// Checks a value of `schema_evolution`.
pub(in crate::exec) fn evolution(key: &str, value: &str) -> Result<()> {
    if value.eq_ignore_ascii_case("reject") || Evolution::named(value).is_some() {
        return Ok(());
    }
    Err(Error::refused(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("invalid value for option \"{key}\": \"{value}\""),
    )
    .with_hint("the values are 'add', 'rescue' and 'reject'"))
}

fn unknown(key: &str) -> Error {
    Error::refused(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("unrecognized option \"{key}\""),
    )
}

fn event_time(name: &str, columns: &[Column]) -> Result<()> {
    let Some(column) = columns.iter().find(|c| c.name == name) else {
        return Err(no_column(name));
    };
    match column.sql_type {
        SqlType::Timestamp | SqlType::Timestamptz => Ok(()),
        _ => Err(Error::refused(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "event_time column \"{name}\" is of type {}",
                column.sql_type
            ),
        )
        .with_hint("name a timestamp or timestamptz column")),
    }
}

/// What becomes of rows that do not fit. Left out, each door has its own way.
pub(in crate::exec) fn on_violation(value: &str) -> Result<()> {
    match value {
        "dead_letter" | "reject" => Ok(()),
        _ => Err(Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for option \"on_violation\": \"{value}\""),
        )
        .with_hint("the values are 'dead_letter' and 'reject'")),
    }
}

/// When a writer is answered: its rows are in the log, or in the table's storage.
pub(in crate::exec) fn acknowledge(value: &str) -> Result<()> {
    match value {
        "local" | "object" => Ok(()),
        _ => Err(Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for option \"acknowledge\": \"{value}\""),
        )
        .with_hint("the values are 'local' and 'object'")),
    }
}

/// The columns whose values data files keep a Bloom filter of. None for an empty text.
///
/// # Errors
/// `42703`, `42701`, `42804` for a type whose filters no read would use, `42P16` for a partition column.
pub(in crate::exec) fn bloom_filter_columns(
    names: &str,
    columns: &[Column],
    partition_by: &[String],
) -> Result<Vec<String>> {
    let names = bloom_filters(names);
    for column in listed("bloom_filter_columns", &names, columns)? {
        let name = &column.name;
        if partition_by.contains(name) {
            return Err(Error::refused(
                SqlState::INVALID_TABLE_DEFINITION,
                format!("bloom_filter_columns names the partition column \"{name}\""),
            )
            .with_hint("files are chosen by partition columns without a filter"));
        }
        match column.sql_type {
            SqlType::Int4
            | SqlType::Int8
            | SqlType::Text
            | SqlType::Varchar(_)
            | SqlType::Uuid
            | SqlType::Bytea => {}
            SqlType::Bool
            | SqlType::Int2
            | SqlType::Numeric { .. }
            | SqlType::Date
            | SqlType::Timestamp
            | SqlType::Timestamptz
            | SqlType::Float4
            | SqlType::Float8
            | SqlType::Json
            | SqlType::Jsonb
            | SqlType::Time
            | SqlType::Interval
            | SqlType::Array(_)
            | SqlType::Record(_) => {
                return Err(Error::refused(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "bloom_filter_columns column \"{name}\" is of type {}",
                        column.sql_type
                    ),
                )
                .with_hint("name columns of type text, varchar, uuid, bytea, integer or bigint"));
            }
        }
    }
    Ok(names)
}

/// The columns that an option names, each of them once.
fn listed<'a>(option: &str, names: &[String], columns: &'a [Column]) -> Result<Vec<&'a Column>> {
    let mut found: Vec<&Column> = Vec::with_capacity(names.len());
    for name in names {
        let Some(column) = columns.iter().find(|c| c.name == *name) else {
            return Err(no_column(name));
        };
        if found.iter().any(|before| before.name == *name) {
            return Err(Error::refused(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" appears twice in {option}"),
            ));
        }
        found.push(column);
    }
    Ok(found)
}

fn dedup_key(names: &str, columns: &[Column]) -> Result<()> {
    for column in listed("dedup_key", &column_list(names), columns)? {
        let name = &column.name;
        match column.sql_type {
            SqlType::Bool
            | SqlType::Int2
            | SqlType::Int4
            | SqlType::Int8
            | SqlType::Numeric { .. }
            | SqlType::Text
            | SqlType::Varchar(_)
            | SqlType::Uuid
            | SqlType::Bytea
            | SqlType::Date
            | SqlType::Timestamp
            | SqlType::Timestamptz => {}
            SqlType::Float4
            | SqlType::Float8
            | SqlType::Json
            | SqlType::Jsonb
            | SqlType::Time
            | SqlType::Interval
            | SqlType::Array(_)
            | SqlType::Record(_) => {
                return Err(Error::refused(
                    SqlState::DATATYPE_MISMATCH,
                    format!("dedup_key column \"{name}\" is of type {}", column.sql_type),
                )
                .with_hint("name columns whose values are equal in one way only, such as an id"));
            }
        }
    }
    Ok(())
}

fn dedup_window(value: &str, options: &BTreeMap<String, String>) -> Result<()> {
    parse_duration(value)?;
    match options.contains_key("dedup_key") {
        true => Ok(()),
        false => Err(Error::refused(
            SqlState::INVALID_PARAMETER_VALUE,
            "dedup_window has no meaning without dedup_key",
        )
        .with_hint("name the columns that tell duplicates: dedup_key = 'event_id'")),
    }
}
