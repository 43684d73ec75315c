//! Definitions and comments of objects: `pg_get_viewdef`, `pg_get_constraintdef`, …

use catalog::Oid;

use super::{Entry, Row};
use crate::error::Result;
use crate::system::frame::{Cell, Kind};
use crate::system::pg_catalog::{pg_constraint, pg_description, pg_proc};
use crate::system::{SystemContext, relkind};

pub(super) const LIST: &[Entry] = &[
    // expressions are kept as SQL text already
    ("pg_get_expr", Kind::Text, |_, row| Ok(row.text(0).into())),
    ("pg_get_viewdef", Kind::Text, view),
    ("pg_get_constraintdef", Kind::Text, |cx, row| {
        let oid = row.oid(0);
        Ok(oid.and_then(|o| pg_constraint::definition(cx, o)).into())
    }),
    ("pg_get_function_arguments", Kind::Text, arguments),
    ("pg_get_function_identity_arguments", Kind::Text, arguments),
    ("pg_get_function_result", Kind::Text, |cx, row| {
        let function = row.oid(0).and_then(|oid| pg_proc::function(cx, oid));
        Ok(function.map(|f| &f.result).into())
    }),
    ("obj_description", Kind::Text, description),
    ("col_description", Kind::Text, |cx, row| {
        let (Some(oid), Some(column)) = (row.oid(0), row.int(1)) else {
            return Ok(Cell::Null);
        };
        Ok(pg_description::comment(cx, oid, column).into())
    }),
    // weir has no indexes, rules, triggers, sequences or partitioned parents, and shared objects
    // have no comments
    ("shobj_description", Kind::Text, none),
    ("pg_get_indexdef", Kind::Text, none),
    ("pg_get_ruledef", Kind::Text, none),
    ("pg_get_triggerdef", Kind::Text, none),
    ("pg_get_partkeydef", Kind::Text, none),
    ("pg_get_partition_constraintdef", Kind::Text, none),
    ("pg_get_serial_sequence", Kind::Text, none),
    ("pg_get_functiondef", Kind::Text, none),
    ("pg_get_function_sqlbody", Kind::Text, none),
    ("pg_get_statisticsobjdef", Kind::Text, none),
    ("pg_get_statisticsobjdef_columns", Kind::Text, none),
    ("pg_tablespace_location", Kind::Text, |_, _| Ok("".into())),
    ("pg_relation_is_publishable", Kind::Bool, |_, _| {
        Ok(false.into())
    }),
    ("pg_column_is_updatable", Kind::Bool, |cx, row| {
        let relation = row
            .relation(cx, 0)
            .and_then(|o| cx.catalog.relation_by_oid(Oid(o)));
        Ok(relation.map(|r| relkind(r.kind) == "r").into())
    }),
    ("pg_partition_ancestors", Kind::Id("oid"), none),
    ("pg_partition_root", Kind::Id("oid"), none),
];

#[expect(
    clippy::unnecessary_wraps,
    reason = "every entry of the list has this form"
)]
fn none(_: &SystemContext, _: &Row<'_>) -> Result<Cell> {
    Ok(Cell::Null)
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every entry of the list has this form"
)]
fn view(cx: &SystemContext, row: &Row<'_>) -> Result<Cell> {
    let relation = row
        .relation(cx, 0)
        .and_then(|oid| cx.catalog.relation_by_oid(Oid(oid)))
        .filter(|r| cx.access().sees_relation(r));
    let query = relation.and_then(|r| r.query.as_deref());
    Ok(query
        .map(|q| format!("{};", q.trim_end().trim_end_matches(';')))
        .into())
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every entry of the list has this form"
)]
fn arguments(cx: &SystemContext, row: &Row<'_>) -> Result<Cell> {
    let function = row.oid(0).and_then(|oid| pg_proc::function(cx, oid));
    Ok(function.map(|f| &f.arguments).into())
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every entry of the list has this form"
)]
fn description(cx: &SystemContext, row: &Row<'_>) -> Result<Cell> {
    let Some(oid) = row.oid(0) else {
        return Ok(Cell::Null);
    };
    Ok(match row.text(1).unwrap_or("pg_class") {
        "pg_class" => pg_description::comment(cx, oid, 0).into(),
        "pg_proc" => pg_proc::function(cx, oid).map(|f| &f.description).into(),
        _ => Cell::Null,
    })
}
