//! `information_schema`: the SQL standard's view of the database, one file per table that has rows.

mod columns;
mod schemata;
mod table_privileges;
mod tables;
mod views;

use std::sync::Arc;

use catalog::RelationKind;

use super::SystemContext;
use super::frame::Frame;
use super::shapes::{self, Shape};
use crate::error::Result;

pub(super) fn fill(name: &str, frame: &mut Frame, cx: &Arc<SystemContext>) -> Result<()> {
    match name {
        "columns" => columns::fill(frame, cx),
        "schemata" => schemata::fill(frame, cx),
        "table_privileges" | "role_table_grants" => table_privileges::fill(frame, cx),
        "tables" => tables::fill(frame, cx),
        "views" => views::fill(frame, cx),
        "information_schema_catalog_name" => frame.row([("catalog_name", (&cx.database).into())]),
        "enabled_roles" => enabled_roles(frame, cx),
        // weir has no such objects
        _ => Ok(()),
    }
}

/// Whether a table of this schema has no rows whatever the database holds.
pub(super) fn always_empty(name: &str) -> bool {
    const FILLED: [&str; 8] = [
        "columns",
        "enabled_roles",
        "information_schema_catalog_name",
        "role_table_grants",
        "schemata",
        "table_privileges",
        "tables",
        "views",
    ];
    !FILLED.contains(&name)
}

fn enabled_roles(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for role in &cx.catalog.roles {
        if access.is_member(role.oid) {
            frame.row([("role_name", (&role.name).into())])?;
        }
    }
    Ok(())
}

/// The standard knows no materialized views; PostgreSQL leaves them out too.
fn is_listed(kind: RelationKind) -> bool {
    kind != RelationKind::MaterializedView
}

/// System tables, which everyone may see.
fn system_tables() -> impl Iterator<Item = &'static Shape> {
    shapes::all().iter()
}
