//! Parameter values of a Bind message → scalars.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::datatypes::{DataType, Field, Int32Type, UInt32Type};
use bytes::Bytes;
use catalog::SqlType;
use chrono_tz::Tz;
use datafusion::common::ScalarValue;

use super::rows::Formats;
use crate::error::{Error, Result, SqlState};
use crate::types::{arrow_type, pg_oid, sql_type_of};
use crate::values::{WireFormat, cast_exact, natural_scale, of_type};

/// `oid` and `oid[]`.
const OID: u32 = 26;
const OID_ARRAY: u32 = 1028;

/// Type of a numeric of which no more is known.
const ANY_NUMERIC: SqlType = SqlType::Numeric {
    precision: 38,
    scale: 10,
};

/// The type of a parameter declared with this oid; `None` when the oid decides nothing or is not
/// known.
pub(super) fn declared(oid: u32) -> Option<SqlType> {
    let array = |of| Some(SqlType::Array(Box::new(of)));
    match oid {
        16 => Some(SqlType::Bool),
        17 => Some(SqlType::Bytea),
        20 | 26 | 28 | 2205 | 2206 => Some(SqlType::Int8),
        21 => Some(SqlType::Int2),
        23 => Some(SqlType::Int4),
        18 | 19 | 25 | 1042 | 1043 => Some(SqlType::Text),
        114 => Some(SqlType::Json),
        700 => Some(SqlType::Float4),
        701 => Some(SqlType::Float8),
        1082 => Some(SqlType::Date),
        1083 => Some(SqlType::Time),
        1114 => Some(SqlType::Timestamp),
        1184 => Some(SqlType::Timestamptz),
        1186 => Some(SqlType::Interval),
        1700 => Some(ANY_NUMERIC),
        2950 => Some(SqlType::Uuid),
        3802 => Some(SqlType::Jsonb),
        199 => array(SqlType::Json),
        1000 => array(SqlType::Bool),
        1001 => array(SqlType::Bytea),
        1002 | 1003 | 1009 | 1014 | 1015 => array(SqlType::Text),
        1005 => array(SqlType::Int2),
        1007 => array(SqlType::Int4),
        1016 | 1028 => array(SqlType::Int8),
        1021 => array(SqlType::Float4),
        1022 => array(SqlType::Float8),
        1115 => array(SqlType::Timestamp),
        1182 => array(SqlType::Date),
        1183 => array(SqlType::Time),
        1185 => array(SqlType::Timestamptz),
        1187 => array(SqlType::Interval),
        1231 => array(ANY_NUMERIC),
        2951 => array(SqlType::Uuid),
        3807 => array(SqlType::Jsonb),
        _ => None,
    }
}

/// The oid of the type that a statement takes: what a client is told that declared none.
pub(super) fn told(ty: &DataType) -> u32 {
    match ty {
        DataType::UInt32 => OID,
        DataType::List(of) if *of.data_type() == DataType::UInt32 => OID_ARRAY,
        other => pg_oid(&sql_type_of(other)),
    }
}

/// What is known about one parameter.
#[derive(Debug, Clone)]
pub(super) struct Param {
    /// The oid the client declared, 0 for none.
    pub(super) oid: u32,
    /// The type the statement takes there.
    pub(super) ty: DataType,
}

/// Decodes the values of a Bind message.
pub(super) fn decode(
    params: &[Param],
    formats: &[i16],
    values: &[Option<Bytes>],
    zone: Tz,
) -> Result<Vec<ScalarValue>> {
    if values.len() != params.len() {
        return Err(Error::refused(
            SqlState::PROTOCOL_VIOLATION,
            format!(
                "bind message supplies {} parameters, but the prepared statement requires {}",
                values.len(),
                params.len()
            ),
        ));
    }
    if formats.len() > 1 && formats.len() != values.len() {
        return Err(Error::refused(
            SqlState::PROTOCOL_VIOLATION,
            format!(
                "bind message has {} parameter formats but {} parameters",
                formats.len(),
                values.len()
            ),
        ));
    }
    let formats = Formats::of_codes(formats)?;
    values
        .iter()
        .zip(params)
        .enumerate()
        .map(|(i, (value, param))| value_of(param, value.as_deref(), formats.get(i), i + 1, zone))
        .collect()
}

fn value_of(
    param: &Param,
    value: Option<&[u8]>,
    format: WireFormat,
    number: usize,
    zone: Tz,
) -> Result<ScalarValue> {
    let Some(value) = value else {
        return Ok(ScalarValue::try_from(&param.ty)?);
    };
    let binary = format == WireFormat::Binary;
    let oid = match param.oid {
        0 => told(&param.ty),
        oid => oid,
    };
    let mut sql = match declared(param.oid) {
        // four bytes without a sign
        _ if binary && [OID, 28, 2205, 2206].contains(&oid) => SqlType::Int4,
        _ if binary && oid == OID_ARRAY => SqlType::Array(Box::new(SqlType::Int4)),
        // text that stands where the statement takes another type is read as that type
        Some(SqlType::Text) if !binary => sql_type_of(&param.ty),
        Some(sql) => sql,
        None if param.oid == 0 || !binary => sql_type_of(&param.ty),
        None => {
            return Err(Error::unsupported(
                format!(
                    "parameter ${number} has type oid {} in binary format",
                    param.oid
                ),
                "send the parameter as text or with a built-in type",
            ));
        }
    };
    // a numeric keeps the digits it came with: rounding is for the column it goes into
    let mut exact = false;
    if let SqlType::Numeric { precision, scale } = &mut sql {
        let needed = natural_scale(value, binary);
        exact = needed > *scale || !matches!(param.ty, DataType::Decimal128(..));
        if exact {
            (*precision, *scale) = (38, needed.max(*scale));
        }
    }
    let mut reader = of_type(&sql, zone)?;
    let read = if binary {
        reader.binary(value)
    } else {
        crate::values::valid_text(value).and_then(|text| reader.text(text))
    };
    read.map_err(|e| e.with_detail(format!("parameter ${number}")))?;
    let mut array = reader.finish()?;
    if binary && [OID, 28, 2205, 2206, OID_ARRAY].contains(&oid) {
        array = unsigned(&array);
    }
    let keep = param.ty == DataType::Null
        || (exact && param.ty.is_decimal())
        || array.data_type() == &param.ty;
    let array = if keep {
        array
    } else {
        cast_exact(&array, &param.ty)?
    };
    debug_assert_eq!(array.len(), 1);
    Ok(ScalarValue::try_from_array(&array, 0)?)
}

/// The same bits without their sign, also inside an array.
fn unsigned(array: &ArrayRef) -> ArrayRef {
    let numbers = |a: &ArrayRef| -> Option<ArrayRef> {
        let numbers = a.as_primitive_opt::<Int32Type>()?;
        Some(Arc::new(numbers.unary::<_, UInt32Type>(i32::cast_unsigned)))
    };
    let made = match array.as_list_opt::<i32>() {
        None => numbers(array),
        Some(list) => numbers(list.values()).map(|values| {
            let field = Arc::new(Field::new_list_field(DataType::UInt32, true));
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            Arc::new(ListArray::new(field, offsets, values, nulls)) as ArrayRef
        }),
    };
    made.unwrap_or_else(|| Arc::clone(array))
}

/// What a statement's parameters are: the client's word first, then the statement's.
pub(super) fn known(oids: &[u32], described: &[DataType]) -> Vec<Param> {
    (0..oids.len().max(described.len()))
        .map(|i| {
            let oid = oids.get(i).copied().unwrap_or(0);
            let oid = if oid == 705 { 0 } else { oid }; // unknown
            let ty = described
                .get(i)
                .cloned()
                .unwrap_or_else(|| declared(oid).map_or(DataType::Utf8, |sql| arrow_type(&sql)));
            Param { oid, ty }
        })
        .collect()
}
