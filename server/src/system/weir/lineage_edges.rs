//! `weir.lineage_edges`: which columns reach which. A role sees the edges between objects it sees.

use catalog::Oid;

use super::{object_name, word};
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) async fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    let access = cx.access();
    let sees = |oid: Oid| {
        let relation = cx.catalog.relation_by_oid(oid);
        let model = cx.catalog.models.iter().find(|m| m.oid == oid);
        // what was dropped belongs to nobody any more
        access.superuser()
            || relation.is_some_and(|r| access.sees_relation(r))
            || model.is_some_and(|m| access.sees_model(m))
    };
    let edges = cx.store.lineage().await?;
    for edge in edges.iter().filter(|e| sees(e.target) && sees(e.source)) {
        frame.row([
            ("source", object_name(&cx.catalog, edge.source).into()),
            ("source_column", (&edge.source_column).into()),
            ("target", object_name(&cx.catalog, edge.target).into()),
            ("target_column", (&edge.target_column).into()),
            ("kind", word(&edge.kind).into()),
            ("statement", (&edge.statement).into()),
        ])?;
    }
    Ok(())
}
