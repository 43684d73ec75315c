//! `information_schema.columns`.

use catalog::{Column, RelationKind, SqlType};

use super::{is_listed, system_tables};
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::{Cell, Frame};
use crate::system::pg_catalog::pg_type;
use crate::types::pg_oid;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (schema, relation) in cx.relations() {
        if !is_listed(relation.kind) {
            continue;
        }
        let table = matches!(
            relation.kind,
            RelationKind::Table | RelationKind::StreamingTable
        );
        for (i, column) in relation.columns.iter().enumerate() {
            user_column(frame, cx, (schema, &relation.name), i, column, table)?;
        }
    }
    for shape in system_tables() {
        for (i, column) in shape.columns.iter().enumerate() {
            let ty = pg_type::by_shape_name(column.type_name);
            frame.row([
                ("table_catalog", (&cx.database).into()),
                ("table_schema", shape.schema.into()),
                ("table_name", shape.name.into()),
                ("column_name", column.name.into()),
                ("ordinal_position", (i + 1).into()),
                ("is_nullable", yes_or_no(column.nullable).into()),
                ("data_type", ty.map(pg_type::standard_name).into()),
                ("udt_catalog", (&cx.database).into()),
                ("udt_schema", "pg_catalog".into()),
                ("udt_name", ty.map(|t| t.name).into()),
                ("dtd_identifier", (i + 1).to_string().into()),
                ("is_self_referencing", "NO".into()),
                ("is_identity", "NO".into()),
                ("identity_cycle", "NO".into()),
                ("is_generated", "NEVER".into()),
                ("is_updatable", "NO".into()),
            ])?;
        }
    }
    Ok(())
}

fn user_column(
    frame: &mut Frame,
    cx: &SystemContext,
    (schema, table_name): (&str, &String),
    i: usize,
    column: &Column,
    updatable: bool,
) -> Result<()> {
    let ty = &column.sql_type;
    let udt = pg_type::by_oid(pg_oid(ty)).map(|t| t.name);
    let numbers = Numbers::of(ty);
    frame.row([
        ("table_catalog", (&cx.database).into()),
        ("table_schema", schema.into()),
        ("table_name", table_name.into()),
        ("column_name", (&column.name).into()),
        ("ordinal_position", (i + 1).into()),
        ("column_default", column.default.clone().into()),
        ("is_nullable", yes_or_no(column.nullable).into()),
        ("data_type", data_type(ty).into()),
        ("character_maximum_length", numbers.length),
        ("character_octet_length", numbers.octets),
        ("numeric_precision", numbers.precision),
        ("numeric_precision_radix", numbers.radix),
        ("numeric_scale", numbers.scale),
        ("datetime_precision", numbers.datetime),
        ("udt_catalog", (&cx.database).into()),
        ("udt_schema", "pg_catalog".into()),
        ("udt_name", udt.into()),
        ("dtd_identifier", (i + 1).to_string().into()),
        ("is_self_referencing", "NO".into()),
        ("is_identity", "NO".into()),
        ("identity_cycle", "NO".into()),
        (
            "is_generated",
            if column.generated.is_some() {
                "ALWAYS"
            } else {
                "NEVER"
            }
            .into(),
        ),
        ("generation_expression", column.generated.clone().into()),
        (
            "is_updatable",
            yes_or_no(updatable && column.generated.is_none()).into(),
        ),
    ])
}

/// The standard's name of a type: without its parameters, arrays as one word.
fn data_type(ty: &SqlType) -> String {
    match ty {
        SqlType::Numeric { .. } => "numeric".to_owned(),
        SqlType::Varchar(_) => "character varying".to_owned(),
        SqlType::Array(_) => "ARRAY".to_owned(),
        SqlType::Record(_) => "jsonb".to_owned(),
        other => other.to_string(),
    }
}

/// The standard's figures of a type.
struct Numbers {
    length: Cell,
    octets: Cell,
    precision: Cell,
    radix: Cell,
    scale: Cell,
    datetime: Cell,
}

impl Numbers {
    fn of(ty: &SqlType) -> Self {
        let mut numbers = Self {
            length: Cell::Null,
            octets: Cell::Null,
            precision: Cell::Null,
            radix: Cell::Null,
            scale: Cell::Null,
            datetime: Cell::Null,
        };
        let mut binary = |bits: i32, scale: Option<i32>| {
            numbers.precision = bits.into();
            numbers.radix = 2.into();
            numbers.scale = scale.into();
        };
        match ty {
            SqlType::Int2 => binary(16, Some(0)),
            SqlType::Int4 => binary(32, Some(0)),
            SqlType::Int8 => binary(64, Some(0)),
            SqlType::Float4 => binary(24, None),
            SqlType::Float8 => binary(53, None),
            SqlType::Numeric { precision, scale } => {
                numbers.precision = i32::from(*precision).into();
                numbers.radix = 10.into();
                numbers.scale = i32::from(*scale).into();
            }
            SqlType::Varchar(n) => {
                numbers.length = (*n).into();
                numbers.octets = n.saturating_mul(4).min(1 << 30).into();
            }
            SqlType::Text => numbers.octets = (1 << 30).into(),
            SqlType::Date => numbers.datetime = 0.into(),
            SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz | SqlType::Interval => {
                numbers.datetime = 6.into();
            }
            SqlType::Bool
            | SqlType::Bytea
            | SqlType::Uuid
            | SqlType::Json
            | SqlType::Jsonb
            | SqlType::Array(_)
            | SqlType::Record(_) => {}
        }
        numbers
    }
}

fn yes_or_no(v: bool) -> &'static str {
    if v { "YES" } else { "NO" }
}
