//! `weir.materialized_views`: how each materialized view is kept and how far its state is.

use super::{object_name, word};
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (schema, relation) in cx.relations() {
        let Some(kept) = &relation.materialized else {
            continue;
        };
        let head = cx.head.views.get(&relation.oid);
        let bytes: Option<u64> = head.map(|h| h.state.files.iter().map(|f| f.size).sum());
        frame.row([
            ("oid", relation.oid.into()),
            ("view_schema", schema.into()),
            ("view_name", (&relation.name).into()),
            ("owner", cx.role_name(relation.owner).into()),
            ("strategy", word(&kept.strategy).into()),
            ("codes", kept.codes.clone().into()),
            ("source", object_name(&cx.catalog, kept.source).into()),
            ("state_format", kept.state_format.into()),
            ("definition", relation.query.clone().into()),
            ("location", relation.location.clone().into()),
            ("durable_lsn", head.map(|h| h.durable.0).into()),
            (
                "lag",
                head.map(|h| cx.head.visible.0.saturating_sub(h.durable.0))
                    .into(),
            ),
            ("state_files", head.map(|h| h.state.files.len()).into()),
            ("state_bytes", bytes.map(u64::cast_signed).into()),
        ])?;
    }
    Ok(())
}
