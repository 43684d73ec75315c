//! `information_schema.tables`.

use catalog::{RelationKind, names_temporary};

use super::{is_listed, system_tables};
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (schema, relation) in cx.relations() {
        if !is_listed(relation.kind) {
            continue;
        }
        let (ty, insertable) = match relation.kind {
            RelationKind::View | RelationKind::MaterializedView => ("VIEW", "NO"),
            RelationKind::ExternalTable => ("FOREIGN", "NO"),
            RelationKind::Table | RelationKind::StreamingTable if names_temporary(schema) => {
                ("LOCAL TEMPORARY", "YES")
            }
            RelationKind::Table | RelationKind::StreamingTable => ("BASE TABLE", "YES"),
        };
        row(frame, cx, schema, &relation.name, ty, insertable)?;
    }
    for shape in system_tables() {
        row(frame, cx, shape.schema, shape.name, "VIEW", "NO")?;
    }
    Ok(())
}

fn row(
    frame: &mut Frame,
    cx: &SystemContext,
    schema: &str,
    name: &str,
    ty: &str,
    insertable: &str,
) -> Result<()> {
    frame.row([
        ("table_catalog", (&cx.database).into()),
        ("table_schema", schema.into()),
        ("table_name", name.into()),
        ("table_type", ty.into()),
        ("is_insertable_into", insertable.into()),
        ("is_typed", "NO".into()),
    ])
}
