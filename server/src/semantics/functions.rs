//! PostgreSQL's functions that the planner lacks, or that mean something else there: a table of names,
//! arguments and row functions.
//!
//! | module | functions |
//! |---|---|
//! | `patterns` | `to_char`, `to_date`, `to_timestamp` and their patterns |
//! | `readings` | texts read by those patterns |
//! | `digits` | `to_char` of numbers, `to_number` |
//! | `instants` | time zones, `make_…`, `age`, `justify_…`, fields of dates |
//! | `numbers` | logarithms and powers that report what they cannot give, `width_bucket`, `div` |
//! | `strings` | `format`, patterns, bytes |
//! | `regex` | regular expressions |
//! | `date_part` | fields of dates and times |
//! | `lists` | `array_fill`, `trim_array`, `array_positions` |
//! | `json` | operators and functions of `json` and `jsonb` |
//! | `json_gathered` | `json_agg`, `json_object_agg` |
//!
//! Functions here know their arguments and the session's time zone, nothing else.

mod bytes;
mod date_part;
mod digits;
mod instants;
mod json;
mod json_flat;
mod json_gathered;
mod json_value;
mod lists;
mod numbers;
mod patterns;
mod readings;
mod regex;
mod strings;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, ListArray, new_empty_array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, UInt32Type, UInt64Type,
};
use chrono_tz::Tz;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::text::session_zone;
use super::types::name;
use crate::error::{Error, SqlState};
use crate::types::TYPE_KEY;

pub(super) use date_part::function as date_part;
pub(super) use instants::FIELDS as DATE_FIELDS;
pub(super) use json_flat::normalized_all;

/// All of them.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let own = FUNCTIONS.values().cloned();
    own.chain([date_part::function()]).collect()
}

static FUNCTIONS: LazyLock<HashMap<&'static str, Arc<ScalarUDF>>> = LazyLock::new(|| {
    entries()
        .map(|entry| (entry.name, Arc::new(function(entry, None))))
        .collect()
});

fn entries() -> impl Iterator<Item = Entry> {
    [
        patterns::LIST,
        digits::LIST,
        instants::LIST,
        numbers::LIST,
        strings::LIST,
        bytes::LIST,
        regex::LIST,
        lists::LIST,
        json::LIST,
        json_gathered::LIST,
    ]
    .into_iter()
    .flatten()
    .copied()
}

fn function(entry: Entry, zone: Option<Tz>) -> ScalarUDF {
    ScalarUDF::from(Function {
        entry,
        zone,
        signature: Signature::user_defined(Volatility::Immutable),
    })
}

/// A call of one of them by its name.
///
/// # Errors
/// XX000 when there is no such function.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Result<Expr> {
    match FUNCTIONS.get(name) {
        Some(function) => Ok(function.call(args)),
        None => Err(Error::Internal(format!("no function {name}")).into()),
    }
}

/// The same, by the clocks of a zone.
pub(super) fn call_in(name: &str, args: Vec<Expr>, zone: Tz) -> Result<Expr> {
    match entries().find(|entry| entry.name == name) {
        Some(entry) => Ok(function(entry, Some(zone)).call(args)),
        None => Err(Error::Internal(format!("no function {name}")).into()),
    }
}

/// Those whose result depends on the session's zone.
const ZONED: [&str; 7] = [
    "age",
    "date_field",
    "format",
    "make_timestamptz",
    "to_char",
    "to_timestamp",
    "to_json",
];

/// A call of one of those that has no zone yet, with one: a view keeps the zone that it was made in.
pub(super) fn in_zone(call: &ScalarFunction, zone: Tz) -> Option<Expr> {
    if !ZONED.contains(&call.name()) || FUNCTIONS.get(call.name()) != Some(&call.func) {
        return None;
    }
    let entry = entries().find(|entry| entry.name == call.name())?;
    Some(function(entry, Some(zone)).call(call.args.clone()))
}

/// What an argument may be, and what a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ty {
    Bool,
    Int4,
    Int8,
    Float8,
    Numeric,
    Text,
    Bytes,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Json,
    Jsonb,
    TextList,
    TextLists,
    JsonList,
    JsonbList,
    Int4List,
    /// Whatever is given.
    Any,
    /// A list of whatever.
    AnyList,
}

/// What a function gives.
#[derive(Debug, Clone, Copy)]
enum Gives {
    /// Always this.
    A(Ty),
    /// The type of an argument.
    Like(usize),
    /// A list of an argument's type.
    ListOf(usize),
    /// `jsonb` for an argument that is, else `json`.
    JsonLike(usize),
    /// `timestamp` for a `timestamptz`, and the other way round.
    OtherZone(usize),
}

/// Whether a NULL among the arguments makes the result NULL without a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nulls {
    Strict,
    Seen,
}

/// One function.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: &'static str,
    /// Lists of arguments that it takes.
    overloads: &'static [&'static [Ty]],
    /// The last argument of the first list may be given any number of times, also not at all.
    variadic: bool,
    gives: Gives,
    nulls: Nulls,
    eval: fn(&Row<'_>) -> Result<ScalarValue, Error>,
}

const fn strict(
    name: &'static str,
    overloads: &'static [&'static [Ty]],
    gives: Ty,
    eval: fn(&Row<'_>) -> Result<ScalarValue, Error>,
) -> Entry {
    Entry {
        name,
        overloads,
        variadic: false,
        gives: Gives::A(gives),
        nulls: Nulls::Strict,
        eval,
    }
}

const fn variadic(
    name: &'static str,
    overloads: &'static [&'static [Ty]],
    gives: Ty,
    eval: fn(&Row<'_>) -> Result<ScalarValue, Error>,
) -> Entry {
    Entry {
        name,
        overloads,
        variadic: true,
        gives: Gives::A(gives),
        nulls: Nulls::Seen,
        eval,
    }
}

/// The arguments of one row.
struct Row<'a> {
    /// The function's name.
    name: &'static str,
    args: &'a [ArrayRef],
    fields: &'a [FieldRef],
    gives: &'a DataType,
    row: usize,
    zone: Tz,
}

impl Row<'_> {
    fn len(&self) -> usize {
        self.args.len()
    }

    fn is_null(&self, i: usize) -> bool {
        self.args.get(i).is_none_or(|a| a.is_null(self.row))
    }

    fn ty(&self, i: usize) -> &DataType {
        self.args.get(i).map_or(&DataType::Null, |a| a.data_type())
    }

    fn tag(&self, i: usize) -> Option<&str> {
        let field = self.fields.get(i)?;
        field.metadata().get(TYPE_KEY).map(String::as_str)
    }

    fn text(&self, i: usize) -> &str {
        self.text_or_null(i).unwrap_or_default()
    }

    fn text_or_null(&self, i: usize) -> Option<&str> {
        if self.is_null(i) {
            return None;
        }
        Some(self.args.get(i)?.as_string_opt::<i32>()?.value(self.row))
    }

    fn bytes(&self, i: usize) -> &[u8] {
        let array = self.args.get(i).and_then(|a| a.as_binary_opt::<i32>());
        array.map_or(&[], |a| a.value(self.row))
    }

    fn flag(&self, i: usize) -> bool {
        let array = self.args.get(i).and_then(|a| a.as_boolean_opt());
        array.is_some_and(|a| a.value(self.row))
    }

    /// Any whole number, days of a date, microseconds of an instant.
    fn int(&self, i: usize) -> i64 {
        let Some(array) = self.args.get(i) else {
            return 0;
        };
        let row = self.row;
        match array.data_type() {
            DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
            DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
            DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
            DataType::Int64 => array.as_primitive::<Int64Type>().value(row),
            DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
            DataType::UInt64 => {
                i64::try_from(array.as_primitive::<UInt64Type>().value(row)).unwrap_or(i64::MAX)
            }
            DataType::Date32 => array.as_primitive::<Date32Type>().value(row).into(),
            DataType::Time64(TimeUnit::Microsecond) => {
                array.as_primitive::<Time64MicrosecondType>().value(row)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                array.as_primitive::<TimestampMicrosecondType>().value(row)
            }
            _ => 0,
        }
    }

    fn float(&self, i: usize) -> f64 {
        match self.args.get(i) {
            Some(a) if a.data_type() == &DataType::Float64 => {
                a.as_primitive::<Float64Type>().value(self.row)
            }
            Some(a) if a.data_type() == &DataType::Float32 => {
                a.as_primitive::<Float32Type>().value(self.row).into()
            }
            _ => 0.0,
        }
    }

    /// Unscaled value and scale.
    fn decimal(&self, i: usize) -> (i128, i8) {
        match self.args.get(i) {
            Some(a) => match a.data_type() {
                DataType::Decimal128(_, scale) => {
                    (a.as_primitive::<Decimal128Type>().value(self.row), *scale)
                }
                _ => (self.int(i).into(), 0),
            },
            None => (0, 0),
        }
    }

    fn span(&self, i: usize) -> IntervalMonthDayNano {
        let array = self
            .args
            .get(i)
            .and_then(|a| a.as_primitive_opt::<IntervalMonthDayNanoType>());
        array.map_or(IntervalMonthDayNano::default(), |a| a.value(self.row))
    }

    /// The elements of a list.
    fn list(&self, i: usize) -> Option<ArrayRef> {
        if self.is_null(i) {
            return None;
        }
        Some(self.args.get(i)?.as_list_opt::<i32>()?.value(self.row))
    }

    /// The value of an argument by PostgreSQL's output rules.
    fn shown(&self, i: usize) -> Result<Option<String>, Error> {
        match (self.args.get(i), self.fields.get(i)) {
            (Some(array), Some(field)) if array.is_valid(self.row) => {
                super::text::shown(array, field, self.row, self.zone).map(Some)
            }
            _ => Ok(None),
        }
    }
}

fn text(value: impl Into<String>) -> ScalarValue {
    ScalarValue::Utf8(Some(value.into()))
}

fn int4(value: i64) -> Result<ScalarValue, Error> {
    let value = i32::try_from(value).map_err(|_| {
        Error::refused(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "integer out of range")
    })?;
    Ok(ScalarValue::Int32(Some(value)))
}

fn texts<S: Into<String>>(values: impl IntoIterator<Item = Option<S>>) -> ScalarValue {
    let values: Vec<ScalarValue> = values
        .into_iter()
        .map(|v| ScalarValue::Utf8(v.map(Into::into)))
        .collect();
    let list: Arc<ListArray> = ScalarValue::new_list(&values, &DataType::Utf8, true);
    ScalarValue::List(list)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::refused(SqlState::INVALID_PARAMETER_VALUE, message)
}

#[derive(Debug)]
struct Function {
    entry: Entry,
    /// The session's when there is none.
    zone: Option<Tz>,
    signature: Signature,
}

// the name stands for the entry
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.entry.name == other.entry.name && self.zone == other.zone
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.entry.name.hash(state);
        self.zone.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.entry.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let mut best: Option<(u32, Vec<DataType>)> = None;
        for wanted in self.entry.overloads {
            let Some(wanted) = spread(wanted, given.len(), self.entry.variadic) else {
                continue;
            };
            let fits: Option<Vec<(u32, DataType)>> =
                wanted.iter().zip(given).map(|(w, g)| fit(*w, g)).collect();
            if let Some(fits) = fits {
                let score = fits.iter().map(|(score, _)| score).sum();
                if best.as_ref().is_none_or(|(most, _)| score > *most) {
                    best = Some((score, fits.into_iter().map(|(_, ty)| ty).collect()));
                }
            }
        }
        best.map(|(_, types)| types).ok_or_else(|| {
            let types: Vec<String> = given.iter().map(name).collect();
            let call = format!("{}({})", self.entry.name, types.join(", "));
            Error::refused(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {call} does not exist"),
            )
            .with_hint("no function of that name takes these types; you might need explicit casts")
            .into()
        })
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        let argument = |i: usize| given.get(i).cloned().unwrap_or(DataType::Utf8);
        Ok(match self.entry.gives {
            Gives::A(ty) => arrow(ty),
            Gives::Like(i) => argument(i),
            Gives::ListOf(i) => list_of(&argument(i)),
            Gives::JsonLike(_) => DataType::Utf8,
            Gives::OtherZone(i) => match argument(i) {
                DataType::Timestamp(_, None) => arrow(Ty::Timestamptz),
                _ => arrow(Ty::Timestamp),
            },
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args
            .arg_fields
            .iter()
            .map(|f| f.data_type().clone())
            .collect();
        let mut field = Field::new(self.name(), self.return_type(&types)?, true);
        let tag = match self.entry.gives {
            Gives::A(Ty::Json) => Some("json".to_owned()),
            Gives::A(Ty::Jsonb) => Some("jsonb".to_owned()),
            Gives::JsonLike(i) => {
                let tag = args
                    .arg_fields
                    .get(i)
                    .and_then(|f| f.metadata().get(TYPE_KEY));
                let tag = tag.filter(|t| *t == "jsonb").cloned();
                Some(tag.unwrap_or_else(|| "json".to_owned()))
            }
            Gives::Like(i) => {
                let tag = args
                    .arg_fields
                    .get(i)
                    .and_then(|f| f.metadata().get(TYPE_KEY));
                tag.cloned()
            }
            _ => None,
        };
        if let Some(tag) = tag {
            field = field.with_metadata([(TYPE_KEY.to_owned(), tag)].into());
        }
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = self
            .zone
            .unwrap_or_else(|| session_zone(&args.config_options));
        let constant = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let gives = args.return_field.data_type().clone();
        let arrays = args
            .args
            .into_iter()
            .map(|arg| arg.into_array(rows))
            .collect::<Result<Vec<_>>>()?;
        let values = (0..rows).map(|row| {
            let skip = self.entry.nulls == Nulls::Strict && arrays.iter().any(|a| a.is_null(row));
            if skip {
                return Ok(None);
            }
            let row = Row {
                name: self.entry.name,
                args: &arrays,
                fields: &args.arg_fields,
                gives: &gives,
                row,
                zone,
            };
            Ok(Some((self.entry.eval)(&row)?))
        });
        if rows == 0 {
            return Ok(ColumnarValue::Array(new_empty_array(&gives)));
        }
        let values = values.collect::<Result<Vec<_>>>()?;
        // lists come without the tags of their elements
        let given = values.iter().flatten().next().map(ScalarValue::data_type);
        let null = ScalarValue::try_from(&given.unwrap_or_else(|| gives.clone()))?;
        let values = values
            .into_iter()
            .map(|v| v.unwrap_or_else(|| null.clone()));
        let mut array = ScalarValue::iter_to_array(values)?;
        if array.data_type() != &gives {
            // fields of lists have other names
            array = cast(&array, &gives)?;
        }
        Ok(match constant {
            true => ColumnarValue::Scalar(super::text::first(&array)?),
            false => ColumnarValue::Array(array),
        })
    }
}

/// A list of arguments as long as what is given.
fn spread(wanted: &[Ty], given: usize, variadic: bool) -> Option<Vec<Ty>> {
    if wanted.len() == given {
        return Some(wanted.to_vec());
    }
    let (last, fixed) = wanted.split_last()?;
    if !variadic || given < fixed.len() {
        return None;
    }
    let mut all = fixed.to_vec();
    all.resize(given, *last);
    Some(all)
}

fn arrow(ty: Ty) -> DataType {
    match ty {
        Ty::Bool => DataType::Boolean,
        Ty::Int4 => DataType::Int32,
        Ty::Int8 => DataType::Int64,
        Ty::Float8 => DataType::Float64,
        Ty::Numeric => DataType::Decimal128(38, 10),
        Ty::Text | Ty::Json | Ty::Jsonb | Ty::Any => DataType::Utf8,
        Ty::Bytes => DataType::Binary,
        Ty::Date => DataType::Date32,
        Ty::Time => DataType::Time64(TimeUnit::Microsecond),
        Ty::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        Ty::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Ty::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
        Ty::TextList | Ty::AnyList => list_of(&DataType::Utf8),
        Ty::TextLists => list_of(&list_of(&DataType::Utf8)),
        Ty::JsonList => list_of_tagged("json"),
        Ty::JsonbList => list_of_tagged("jsonb"),
        Ty::Int4List => list_of(&DataType::Int32),
    }
}

fn list_of(ty: &DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(ty.clone(), true)))
}

fn list_of_tagged(tag: &str) -> DataType {
    let element = Field::new_list_field(DataType::Utf8, true);
    let tag = [(TYPE_KEY.to_owned(), tag.to_owned())];
    DataType::List(Arc::new(element.with_metadata(tag.into())))
}

/// How well a type fits, and what it becomes.
fn fit(wanted: Ty, given: &DataType) -> Option<(u32, DataType)> {
    let is_text = matches!(
        given,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    );
    if wanted == Ty::Any {
        let ty = if given.is_null() || is_text {
            DataType::Utf8
        } else {
            given.clone()
        };
        return Some((1, ty));
    }
    if given.is_null() {
        return Some((1, arrow(wanted)));
    }
    // a quoted literal takes any type
    let open = |score| is_text.then(|| (score, arrow(wanted)));
    let score = match (wanted, given) {
        (Ty::Text | Ty::Json | Ty::Jsonb, _) => return open(3),
        (Ty::AnyList, DataType::List(_)) => return Some((3, given.clone())),
        (Ty::AnyList, _) => return open(1),
        (Ty::TextList, DataType::List(of)) if of.data_type() == &DataType::Utf8 => 4,
        (Ty::Int4List, DataType::List(of)) if of.data_type().is_integer() => 3,
        (Ty::Bool, DataType::Boolean)
        | (Ty::Date, DataType::Date32)
        | (Ty::Timestamp, DataType::Timestamp(_, None))
        | (Ty::Timestamptz, DataType::Timestamp(_, Some(_)))
        | (Ty::Time, DataType::Time64(_) | DataType::Time32(_))
        | (Ty::Interval, DataType::Interval(_) | DataType::Duration(_))
        | (Ty::Bytes, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
        | (Ty::Float8, DataType::Float64 | DataType::Float32 | DataType::Float16) => 4,
        (Ty::Numeric, DataType::Decimal128(..)) => return Some((4, given.clone())),
        (Ty::Int8, DataType::Int64 | DataType::UInt32 | DataType::UInt64) => 4,
        (Ty::Int4, ty) if ty.is_integer() => match ty {
            DataType::Int64 | DataType::UInt64 | DataType::UInt32 => 2,
            _ => 4,
        },
        (Ty::Int8, ty) if ty.is_integer() => 3,
        (Ty::Numeric, ty) if ty.is_integer() => return Some((2, DataType::Decimal128(20, 0))),
        (Ty::Float8, ty) if ty.is_numeric() => 1,
        (Ty::Timestamp | Ty::Timestamptz, DataType::Date32) => 2,
        (Ty::Timestamptz, DataType::Timestamp(_, None)) => 1,
        _ => return open(1),
    };
    Some((score, arrow(wanted)))
}
