//! Fields of a message → cells of a row.
//!
//! What a column takes of a field follows protobuf's JSON mapping, but by type: whole numbers of 64 bits
//! are numbers, bytes are bytes, times are times. A message, a map or several values go to a column of
//! JSON, a text, or an array.

use std::borrow::Cow;

use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};

use super::json::{self, Bytes};
use super::known::{self, Known};
use crate::decode::columns::Cell;
use crate::error::{Error, Result, SqlState};
use crate::types::{TYPE_KEY, sql_type};

/// What a column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Bool,
    Whole,
    Double,
    Decimal,
    Text,
    Uuid,
    Json,
    Bytes,
    Timestamp,
    Interval,
    /// Dates and times of the day: what a text spells.
    Spelled,
    Array(Bytes),
}

/// A field and the column it goes to.
#[derive(Debug)]
struct Target {
    field: FieldDescriptor,
    kind: Kind,
    default: Value,
    /// Its place and what it takes; `None` for a field without a column.
    column: Option<(usize, Takes)>,
}

/// How messages of one type become rows of one table.
#[derive(Debug)]
pub(super) struct Plan {
    ty: MessageDescriptor,
    targets: Vec<Target>,
    schema: SchemaRef,
}

/// A value between message and row.
#[derive(Debug, Default)]
enum Held<'m> {
    /// What is not set.
    #[default]
    Absent,
    Int(i64),
    Text(Cow<'m, str>),
    Json(Cow<'m, str>),
    Bytes(&'m [u8]),
}

/// The values of one message.
#[derive(Debug)]
pub(super) struct Row<'m> {
    values: Vec<Held<'m>>,
    /// Fields that are set and have no column, as JSON.
    strays: Vec<(&'m str, String)>,
}

impl Plan {
    /// For a message type and a table; columns for which `taken` holds are filled otherwise.
    pub(super) fn new(
        ty: &MessageDescriptor,
        schema: &SchemaRef,
        taken: impl Fn(usize) -> bool,
    ) -> Self {
        let targets = ty.fields().filter_map(|field| {
            // names as the schema spells them, or as JSON does
            let names = [field.name(), field.json_name()];
            let found = names.iter().find_map(|name| schema.index_of(name).ok());
            let column = match found {
                Some(at) if taken(at) => return None,
                Some(at) => Some((at, takes(schema.field(at)))),
                None => None,
            };
            Some(Target {
                kind: field.kind(),
                default: Value::default_value_for_field(&field),
                column,
                field,
            })
        });
        Self {
            targets: targets.collect(),
            ty: ty.clone(),
            schema: SchemaRef::clone(schema),
        }
    }

    /// Reads one message.
    pub(super) fn message(&self, bytes: &[u8]) -> Result<DynamicMessage> {
        DynamicMessage::decode(self.ty.clone(), bytes).map_err(|e| super::malformed(&e.to_string()))
    }

    /// The values of a message. A field that is not set has no value where that can be told from its
    /// default.
    pub(super) fn row<'m>(&'m self, message: &'m DynamicMessage) -> Result<Row<'m>> {
        let mut values = Vec::new();
        values.resize_with(self.schema.fields().len(), Held::default);
        let mut strays = Vec::new();
        for target in &self.targets {
            let set = message.has_field(&target.field);
            let Some((at, takes)) = target.column else {
                if set {
                    let mut text = String::new();
                    let value = message.get_field(&target.field);
                    json::write(&value, &target.kind, Bytes::Base64, &mut text)?;
                    strays.push((target.field.name(), text));
                }
                continue;
            };
            if !set && target.field.supports_presence() {
                continue;
            }
            let value = match message.get_field(&target.field) {
                Cow::Borrowed(value) => value,
                Cow::Owned(_) => &target.default,
            };
            let held = held(value, &target.kind, takes)?;
            let held = held.ok_or_else(|| mismatch(target, self.schema.field(at)))?;
            if let Some(place) = values.get_mut(at) {
                *place = held;
            }
        }
        Ok(Row { values, strays })
    }
}

impl Row<'_> {
    /// The cells of the row, one per column.
    pub(super) fn cells(&self) -> Vec<Cell<'_>> {
        let cell = |value| match value {
            &Held::Absent => Cell::Absent,
            &Held::Int(value) => Cell::Int(value),
            Held::Text(text) => Cell::Text(text),
            Held::Json(json) => Cell::Json(json),
            &Held::Bytes(bytes) => Cell::Bytes(bytes),
        };
        self.values.iter().map(cell).collect()
    }

    /// Names and JSON of what has no column.
    pub(super) fn strays(&self) -> Vec<(Cow<'_, str>, &str)> {
        let strays = self.strays.iter();
        strays
            .map(|(name, json)| (Cow::Borrowed(*name), json.as_str()))
            .collect()
    }
}

fn takes(column: &Field) -> Takes {
    match column.data_type() {
        DataType::Boolean => Takes::Bool,
        DataType::Int16 | DataType::Int32 | DataType::Int64 => Takes::Whole,
        DataType::Float32 | DataType::Float64 => Takes::Double,
        DataType::Decimal128(..) => Takes::Decimal,
        DataType::Binary => Takes::Bytes,
        DataType::Timestamp(TimeUnit::Microsecond, _) => Takes::Timestamp,
        DataType::Interval(_) => Takes::Interval,
        DataType::Utf8 => match column.metadata().get(TYPE_KEY).map(String::as_str) {
            Some("uuid") => Takes::Uuid,
            Some("json" | "jsonb") => Takes::Json,
            _ => Takes::Text,
        },
        DataType::List(of) if *of.data_type() == DataType::Binary => Takes::Array(Bytes::Hex),
        DataType::List(_) | DataType::Struct(_) => Takes::Array(Bytes::Base64),
        _ => Takes::Spelled,
    }
}

/// What a column makes of a value; `None` when it takes no such thing.
fn held<'m>(value: &'m Value, kind: &Kind, takes: Takes) -> Result<Option<Held<'m>>> {
    let text = |text: String| Some(Held::Text(Cow::Owned(text)));
    if let (Value::Message(message), Takes::Timestamp | Takes::Interval | Takes::Spelled) =
        (value, takes)
    {
        return moment(message, takes);
    }
    if let Value::Message(message) = value
        && Known::of(&message.descriptor()) == Some(Known::Wrapper)
        && takes != Takes::Json
    {
        return wrapped(message, takes);
    }
    Ok(match (value, takes) {
        // a text in a column of JSON is JSON already, as it is at other doors that know types
        (Value::String(v), Takes::Json) => Some(Held::Text(Cow::Borrowed(v))),
        (_, Takes::Json) => Some(Held::Json(as_json(value, kind, Bytes::Base64)?)),
        (Value::List(_), Takes::Array(bytes)) => Some(Held::Json(as_json(value, kind, bytes)?)),
        (_, Takes::Array(_)) => None,
        (Value::List(_) | Value::Map(_), Takes::Text) => {
            Some(Held::Text(as_json(value, kind, Bytes::Base64)?))
        }
        (Value::Message(message), Takes::Text) => match Known::of(&message.descriptor()) {
            Some(Known::Timestamp) => text(known::rfc3339(message)?),
            Some(Known::Duration) => text(known::seconds(message)?),
            Some(Known::FieldMask) => text(known::paths(message)?),
            _ => Some(Held::Text(as_json(value, kind, Bytes::Base64)?)),
        },
        (Value::Bool(v), Takes::Bool) => Some(Held::Json(Cow::Borrowed(word(*v)))),
        (Value::Bool(v), Takes::Text) => Some(Held::Text(Cow::Borrowed(word(*v)))),
        (Value::I32(v), _) => whole(i64::from(*v), takes),
        (Value::I64(v), _) => whole(*v, takes),
        (Value::U32(v), _) => whole(i64::from(*v), takes),
        (Value::U64(v), _) => match i64::try_from(*v) {
            Ok(v) => whole(v, takes),
            // the column says that it is too large, or takes it
            Err(_) => numeric(takes).then(|| Held::Text(v.to_string().into())),
        },
        // a double holds what a float is, not what it is printed as
        (Value::F32(v), Takes::Double) => text(spelled(f64::from(*v))),
        (Value::F32(v), _) => double(spelled(*v), takes),
        (Value::F64(v), _) => double(spelled(*v), takes),
        (Value::EnumNumber(number), Takes::Text) => {
            text(known::name_of(*number, kind).unwrap_or_else(|| number.to_string()))
        }
        (Value::EnumNumber(number), Takes::Whole) => Some(Held::Int(i64::from(*number))),
        (Value::String(v), _) => Some(Held::Text(Cow::Borrowed(v))),
        (Value::Bytes(v), Takes::Bytes | Takes::Text) => Some(Held::Bytes(v)),
        (Value::Bytes(v), Takes::Uuid) => match uuid::Uuid::from_slice(v) {
            Ok(id) => text(id.hyphenated().to_string()),
            Err(_) => Some(Held::Bytes(v)),
        },
        _ => None,
    })
}

/// A time or a duration in a column of its kind.
fn moment(message: &DynamicMessage, takes: Takes) -> Result<Option<Held<'_>>> {
    Ok(match (Known::of(&message.descriptor()), takes) {
        (Some(Known::Timestamp), Takes::Timestamp) => Some(Held::Int(known::micros(message)?)),
        (Some(Known::Duration), Takes::Interval) => {
            Some(Held::Text(known::interval(message)?.into()))
        }
        (Some(Known::Wrapper), _) => wrapped(message, takes)?,
        _ => None,
    })
}

/// The value of a wrapper, which is its default where it is not set.
fn wrapped(message: &DynamicMessage, takes: Takes) -> Result<Option<Held<'_>>> {
    let (value, kind) = known::only(message)?;
    match value {
        Cow::Borrowed(value) => held(value, &kind, takes),
        Cow::Owned(value) => Ok(held(&value, &kind, takes)?.map(Held::owned)),
    }
}

impl Held<'_> {
    /// A copy that borrows nothing; of bytes there are none in a default.
    fn owned<'n>(self) -> Held<'n> {
        match self {
            Self::Absent => Held::Absent,
            Self::Int(value) => Held::Int(value),
            Self::Text(text) => Held::Text(Cow::Owned(text.into_owned())),
            Self::Json(json) => Held::Json(Cow::Owned(json.into_owned())),
            Self::Bytes(_) => Held::Bytes(&[]),
        }
    }
}

fn whole<'m>(value: i64, takes: Takes) -> Option<Held<'m>> {
    match takes {
        Takes::Whole => Some(Held::Int(value)),
        _ => numeric(takes).then(|| Held::Text(value.to_string().into())),
    }
}

fn numeric(takes: Takes) -> bool {
    matches!(
        takes,
        Takes::Whole | Takes::Double | Takes::Decimal | Takes::Text
    )
}

fn double<'m>(text: String, takes: Takes) -> Option<Held<'m>> {
    match takes {
        // which takes it if it is whole
        Takes::Whole => Some(Held::Json(text.into())),
        _ => numeric(takes).then(|| Held::Text(text.into())),
    }
}

fn spelled<F: Copy + Into<f64> + std::fmt::Display + std::fmt::LowerExp>(value: F) -> String {
    let size = value.into().abs();
    match size.is_finite() {
        true if size == 0.0 || (1e-5..1e16).contains(&size) => value.to_string(),
        true => format!("{value:e}"),
        false => known::not_finite(value.into()).to_owned(),
    }
}

fn word(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn as_json<'m>(value: &Value, kind: &Kind, bytes: Bytes) -> Result<Cow<'m, str>> {
    let mut text = String::new();
    json::write(value, kind, bytes, &mut text)?;
    Ok(Cow::Owned(text))
}

fn mismatch(target: &Target, column: &Field) -> Error {
    let kind = match (target.field.is_map(), target.field.is_list()) {
        (true, _) => "map".to_owned(),
        (_, true) => format!("repeated {:?}", target.kind),
        _ => format!("{:?}", target.kind),
    };
    Error::refused(
        SqlState::DATATYPE_MISMATCH,
        format!(
            "column \"{}\" is of type {}, which does not take a field of type {kind}",
            column.name(),
            sql_type(column),
        ),
    )
}
