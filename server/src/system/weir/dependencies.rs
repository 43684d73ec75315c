//! `weir.dependencies`: which views read which relations.

use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let seen = cx.relations();
    for (view_schema, view) in &seen {
        let read = seen
            .iter()
            .filter(|(_, r)| view.depends_on.contains(&r.oid));
        for (source_schema, source) in read {
            frame.row([
                ("view_schema", (*view_schema).into()),
                ("view_name", (&view.name).into()),
                ("source_schema", (*source_schema).into()),
                ("source_name", (&source.name).into()),
            ])?;
        }
    }
    Ok(())
}
