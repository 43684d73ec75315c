//! `pg_constraint`: `CHECK` constraints; weir has no others.

use super::derived_oid;
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (_, relation) in cx.relations() {
        for (i, (name, expression)) in relation.checks.iter().enumerate() {
            frame.row([
                ("oid", derived_oid("check", relation.oid, i).into()),
                ("conname", name.into()),
                ("connamespace", relation.schema.into()),
                ("contype", "c".into()),
                ("convalidated", true.into()),
                ("conrelid", relation.oid.into()),
                ("conislocal", true.into()),
                ("conbin", expression.into()),
            ])?;
        }
    }
    Ok(())
}

/// `CHECK (…)` of the constraint with that oid, among those the role sees.
pub(crate) fn definition(cx: &SystemContext, oid: u32) -> Option<String> {
    cx.relations().into_iter().find_map(|(_, relation)| {
        relation
            .checks
            .values()
            .enumerate()
            .find(|(i, _)| derived_oid("check", relation.oid, *i) == oid)
            .map(|(_, expression)| format!("CHECK ({expression})"))
    })
}
