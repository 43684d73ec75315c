//! `weir.columns`: the columns of every table and view.

use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (schema, relation) in cx.relations() {
        for (i, column) in relation.columns.iter().enumerate() {
            frame.row([
                ("table_oid", relation.oid.into()),
                ("table_schema", schema.into()),
                ("table_name", (&relation.name).into()),
                ("column_name", (&column.name).into()),
                ("position", (i + 1).into()),
                ("data_type", column.sql_type.to_string().into()),
                ("nullable", column.nullable.into()),
                ("default_value", column.default.clone().into()),
                ("generated", column.generated.clone().into()),
                ("comment", column.comment.clone().into()),
            ])?;
        }
    }
    Ok(())
}
