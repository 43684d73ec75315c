//! What a view stores: its columns and their types, in weir's own versioned format.
//!
//! Format 1, AGG: keys `g0…`, state columns `s0…` in the order of the aggregates, and the log range
//! `_lo`…`_hi` that a run was made from; rows are a bag, a key may repeat. SESSION: the same, the last
//! two states being a session's first and last time. APPEND: `_lsn`, then the result columns. TOP and
//! FULL: the columns alone. Types are the lake's own; each is cast back exactly before it is merged.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

use super::analysis::Analysis;
use crate::types::LSN;

/// Version of the encoding described above.
pub const STATE_FORMAT: i32 = 1;

/// First log position of a run.
pub(super) const LO: &str = "_lo";
/// Last log position of a run.
pub(super) const HI: &str = "_hi";

/// Characters a Delta column name cannot hold without a name mapping.
const FORBIDDEN: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// What the state holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// Result rows with their positions.
    Append(Vec<FieldRef>),
    /// Rows alone.
    Rows(Vec<FieldRef>),
    /// Keys and, per aggregate, its state fields.
    Agg {
        keys: Vec<FieldRef>,
        states: Vec<Vec<FieldRef>>,
    },
}

impl Layout {
    /// The stored columns.
    pub(super) fn stored(&self) -> SchemaRef {
        let position = |name: &str| Field::new(name, DataType::Int64, false);
        let fields: Vec<Field> = match self {
            Self::Append(columns) => {
                let first = std::iter::once(position(LSN));
                first.chain(row_fields(columns)).collect()
            }
            Self::Rows(columns) => row_fields(columns).collect(),
            Self::Agg { keys, states } => {
                let keys = keys.iter().enumerate();
                let keys = keys.map(|(i, f)| stored(&format!("g{i}"), f, key_type));
                let states = states.iter().flatten().enumerate();
                let states = states.map(|(i, f)| stored(&format!("s{i}"), f, state_type));
                keys.chain(states)
                    .chain([position(LO), position(HI)])
                    .collect()
            }
        };
        Arc::new(Schema::new(fields))
    }

    /// The first column whose type cannot be stored without loss.
    pub(super) fn unsupported(&self) -> Option<&FieldRef> {
        match self {
            Self::Append(columns) | Self::Rows(columns) => {
                columns.iter().find(|f| key_type(f.data_type()).is_none())
            }
            Self::Agg { keys, states } => {
                let keys = keys.iter().find(|f| key_type(f.data_type()).is_none());
                let mut states = states.iter().flatten();
                keys.or_else(|| states.find(|f| state_type(f.data_type()).is_none()))
            }
        }
    }
}

/// The Delta schema of a view's state table, for CREATE.
pub fn state_schema(analysis: &Analysis) -> SchemaRef {
    analysis.layout.stored()
}

fn stored(name: &str, field: &FieldRef, ty: fn(&DataType) -> Option<DataType>) -> Field {
    // unsupported types were refused by the analysis
    let ty = ty(field.data_type()).unwrap_or_else(|| field.data_type().clone());
    Field::new(name, ty, field.is_nullable()).with_metadata(field.metadata().clone())
}

fn row_fields(columns: &[FieldRef]) -> impl Iterator<Item = Field> + '_ {
    let named = columns.iter().zip(row_names(columns));
    named.map(|(f, name)| stored(&name, f, key_type))
}

/// Result names where the lake can hold them all, numbered ones otherwise. Names of the lake differ by
/// more than their case.
fn row_names(columns: &[FieldRef]) -> Vec<String> {
    let plain = |name: &str| !name.is_empty() && name != LSN && !name.contains(FORBIDDEN);
    let distinct: BTreeSet<String> = columns.iter().map(|f| f.name().to_lowercase()).collect();
    if distinct.len() == columns.len() && columns.iter().all(|f| plain(f.name())) {
        columns.iter().map(|f| f.name().clone()).collect()
    } else {
        (0..columns.len()).map(|i| format!("c{i}")).collect()
    }
}

/// The stored type of a key or result column.
fn key_type(ty: &DataType) -> Option<DataType> {
    Some(match ty {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Timestamp(TimeUnit::Microsecond, None) => ty.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Decimal128(_, scale) if *scale >= 0 => ty.clone(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        // seconds and milliseconds fit; nanoseconds would be cut and are kept as numbers
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, zone) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into()))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _)
        | DataType::Time64(_)
        | DataType::Date64
        | DataType::Duration(_) => DataType::Int64,
        DataType::Time32(_) => DataType::Int32,
        DataType::List(of) | DataType::LargeList(of) => DataType::List(Arc::new(Field::new(
            "element",
            key_type(of.data_type())?,
            true,
        ))),
        DataType::Struct(fields) => {
            let kept = fields.iter().map(|f| {
                let ty = key_type(f.data_type())?;
                Some(Field::new(f.name(), ty, true))
            });
            DataType::Struct(kept.collect::<Option<Fields>>()?)
        }
        _ => return None,
    })
}

/// The stored type of a state column: counters stay below 2⁶³.
fn state_type(ty: &DataType) -> Option<DataType> {
    match ty {
        DataType::UInt64 => Some(DataType::Int64),
        other => key_type(other),
    }
}
