//! `pg_attribute`: columns.

use catalog::{Column, Relation, SqlType};

use super::acl::column_acl;
use super::pg_type::{self, PgType};
use crate::error::Result;
use crate::system::frame::Frame;
use crate::system::{SystemContext, shapes};
use crate::types::{pg_oid, pg_typmod};

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (_, relation) in cx.relations() {
        for (i, column) in relation.columns.iter().enumerate() {
            user_column(frame, cx, relation, i, column)?;
        }
    }
    for shape in shapes::all() {
        for (i, column) in shape.columns.iter().enumerate() {
            let Some(ty) = pg_type::by_shape_name(column.type_name) else {
                continue;
            };
            frame.row([
                ("attrelid", shape.oid.into()),
                ("attname", column.name.into()),
                ("atttypid", ty.oid.into()),
                ("attstattarget", (-1).into()),
                ("attlen", ty.len.into()),
                ("attnum", (i + 1).into()),
                ("attndims", i32::from(ty.category == "A").into()),
                ("attcacheoff", (-1).into()),
                ("atttypmod", (-1).into()),
                ("attbyval", ty.by_value.into()),
                ("attalign", ty.align.into()),
                ("attstorage", ty.storage.into()),
                ("attnotnull", (!column.nullable).into()),
                ("attislocal", true.into()),
                ("attcollation", ty.collation.into()),
            ])?;
        }
    }
    Ok(())
}

fn user_column(
    frame: &mut Frame,
    cx: &SystemContext,
    relation: &Relation,
    i: usize,
    column: &Column,
) -> Result<()> {
    let oid = pg_oid(&column.sql_type);
    let ty = pg_type::by_oid(oid).unwrap_or(&PgType::UNKNOWN);
    let has_default = column.default.is_some() || column.generated.is_some();
    frame.row([
        ("attrelid", relation.oid.into()),
        ("attname", (&column.name).into()),
        ("atttypid", oid.into()),
        ("attstattarget", (-1).into()),
        ("attlen", ty.len.into()),
        ("attnum", (i + 1).into()),
        (
            "attndims",
            i32::from(matches!(column.sql_type, SqlType::Array(_))).into(),
        ),
        ("attcacheoff", (-1).into()),
        ("atttypmod", pg_typmod(&column.sql_type).into()),
        ("attbyval", ty.by_value.into()),
        ("attalign", ty.align.into()),
        ("attstorage", ty.storage.into()),
        ("attnotnull", (!column.nullable).into()),
        ("atthasdef", has_default.into()),
        (
            "attgenerated",
            if column.generated.is_some() { "s" } else { "" }.into(),
        ),
        ("attislocal", true.into()),
        ("attcollation", ty.collation.into()),
        ("attacl", column_acl(cx, relation.oid, &column.name).into()),
    ])
}
