//! `pg_attrdef`: defaults and generation expressions, as SQL text.

use super::derived_oid;
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (_, relation) in cx.relations() {
        for (i, column) in relation.columns.iter().enumerate() {
            let Some(expression) = column.generated.as_ref().or(column.default.as_ref()) else {
                continue;
            };
            frame.row([
                ("oid", derived_oid("default", relation.oid, i).into()),
                ("adrelid", relation.oid.into()),
                ("adnum", (i + 1).into()),
                ("adbin", expression.into()),
            ])?;
        }
    }
    Ok(())
}
