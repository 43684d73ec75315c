//! `information_schema.views`. The text of a view is its owner's business.

use catalog::RelationKind;

use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    for (schema, relation) in cx.relations() {
        if relation.kind != RelationKind::View {
            continue;
        }
        let text = relation.query.clone();
        frame.row([
            ("table_catalog", (&cx.database).into()),
            ("table_schema", schema.into()),
            ("table_name", (&relation.name).into()),
            (
                "view_definition",
                text.filter(|_| access.is_member(relation.owner)).into(),
            ),
            ("check_option", "NONE".into()),
            ("is_updatable", "NO".into()),
            ("is_insertable_into", "NO".into()),
            ("is_trigger_updatable", "NO".into()),
            ("is_trigger_deletable", "NO".into()),
            ("is_trigger_insertable_into", "NO".into()),
        ])?;
    }
    Ok(())
}
